//! DriftDetectionWorker: has a workload looked at once something happened to it, when the world has
//! settled. It touches the store alone; looking is the sweep's, which also comes by its timer, so that
//! an event that is lost delays a finding and loses none.

mod on_runtime_deployment;
mod on_runtime_health;

pub use on_runtime_deployment::OnRuntimeDeployment;
pub use on_runtime_health::OnRuntimeHealth;
