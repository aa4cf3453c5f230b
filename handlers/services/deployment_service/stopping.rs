//! Stopping a revision that has no traffic any more. It stays activatable: a rollback needs no rebuild.

use super::ending::Site;
use crate::{
    operations::{self, Operation},
    outcome::Fault,
    platform::Platform,
    ports::compute::Observed,
};

/// Stops a revision that runs. Tidying up never decides how a deployment ends: what cannot be stopped
/// at the last attempt, or for good, is left running and told.
///
/// # Errors
/// When it may work at the next attempt.
pub(super) async fn stop(
    platform: &Platform,
    operation: &Operation,
    site: &mut Site,
    observed: &Observed,
    revision: Option<&str>,
) -> Result<(), Fault> {
    let Some(name) =
        revision.filter(|name| observed.revisions.get(*name).is_some_and(|revision| revision.active))
    else {
        return Ok(());
    };
    let workload = site.deployment.workload_ref();
    let Err(fault) = platform.compute.deactivate(&workload, name).await else { return Ok(()) };
    let is_last = operation.attempt >= operations::ATTEMPTS_MAX;
    match fault {
        Fault::Transient { .. } | Fault::Conflict { .. } | Fault::Unreadable { .. } if !is_last => Err(fault),
        Fault::Transient { .. }
        | Fault::Conflict { .. }
        | Fault::Unreadable { .. }
        | Fault::Rejected { .. } => {
            site.note(format!("{name} could not be stopped and runs on without traffic: {}", fault.chain()));
            Ok(())
        }
    }
}
