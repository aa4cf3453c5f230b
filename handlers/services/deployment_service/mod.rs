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
pub mod on_runtime_drift;
pub mod on_runtime_secrets;
pub mod operators;
pub mod quarantine;
mod quota;
pub mod refresh;
pub mod remediate_drift;
pub mod retiring;
pub mod rollback_deployment;
mod rolling_back;
pub mod rollout;
mod secrets;
pub mod state;
mod stopping;
pub mod workloads;

pub use quota::{Usage, of_one_replica, usage, within};
pub use secrets::{InUse, secret_course, secret_versions_in_use, serves_with};
pub use state::{DeploymentStatus, GateRecord, RuntimeDeployment, Slot};
pub use workloads::{
    Running, app_names, course, keeps_out, module_of, running, running_one, scaling_course, serving_version,
    workloads,
};
