//! RuntimeDriftDetectionService: compares what is with what is desired, and keeps what it finds.
//!
//! It alone writes RuntimeDriftFinding and suppressions, and it alone produces `RuntimeDriftDetected`
//! and `RuntimeDriftResolved`. Putting right is the deployment service's and the environment
//! service's, by `RemediateDrift`.
//!
//! A sweep (`drift_sweep.rs`) reads the world and writes it down as documents (`workload.rs`);
//! `compare.rs` says where two documents differ, by the tree of `schema.rs`; `findings.rs` what that
//! makes of a finding; `policy.rs` whether the platform may act on it by itself. Deliberately absent:
//! counts of replicas (the autoscaler's and the platform's business), health (unhealthy is no drift),
//! and taking away what is not ours.

pub mod compare;
mod drift_sweep;
pub mod findings;
mod look;
pub mod policy;
pub mod remediation;
pub mod schema;
pub mod state;
pub mod suppressions;
pub mod workload;

pub use drift_sweep::sweep;
pub use look::of_resource;
pub use state::{DriftIndex, FindingStatus, RuntimeDriftFinding, Suppression};

use crate::{ids::DriftFindingId, ledger::Ledger, outcome::Fault, ports::store::Partition};

/// A finding of the partition's tenant.
///
/// # Errors
/// When the store is away.
pub async fn find(
    ledger: &Ledger,
    partition: &Partition,
    id: &DriftFindingId,
) -> Result<Option<RuntimeDriftFinding>, Fault> {
    Ok(ledger.load::<RuntimeDriftFinding>(partition, id.as_str()).await?.state)
}
