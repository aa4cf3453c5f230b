//! DeploymentService: health-gated, reversible rollout of workloads onto Azure compute.
//!
//! It alone writes RuntimeDeployment and the slot of each workload, and it alone produces
//! `RuntimeDeploymentRequested`, `RuntimeDeploymentCompleted` and `RuntimeDeploymentRolledBack`.
//!
//! What supersedes what is decided in `deploy.rs`; how a rollout begins in `beginning.rs`, goes forward
//! in `rollout.rs`, back in `rolling_back.rs`, and ends in `ending.rs`; what is kept out in `quarantine.rs`.

mod beginning;
pub mod deploy;
mod ending;
pub mod on_runtime_configuration;
pub mod operators;
pub mod quarantine;
mod quota;
pub mod refresh;
pub mod retiring;
pub mod rollback_deployment;
mod rolling_back;
pub mod rollout;
pub mod state;
mod stopping;
pub mod workloads;

pub use quota::{Usage, usage};
pub use state::{DeploymentStatus, GateRecord, RuntimeDeployment, Slot};
pub use workloads::{Running, course, running, running_one, serving_version, workloads};
