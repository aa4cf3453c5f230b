//! RuntimeInventoryWorker: tells the catalogue what events say of workloads. It touches the store only;
//! what can be observed is told by the health sweep, which also heals what an event failed to tell.

pub mod on_runtime_deployment;
pub mod on_runtime_scaling;

pub use on_runtime_deployment::OnRuntimeDeployment;
pub use on_runtime_scaling::OnRuntimeScaling;
