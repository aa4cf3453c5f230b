//! What an operator may do to a deployment without a command: lift a quarantine.

use super::state::{Quarantined, RuntimeDeployment, Slot};
use crate::{
    ledger::{Commit, Ledger},
    outcome::Fault,
};

/// Lifts the quarantine that a deployment began. None where there is none, or no longer.
///
/// # Errors
/// When the store is away.
pub async fn lift(ledger: &Ledger, commit: &mut Commit, deployment: &RuntimeDeployment) -> Result<Option<Quarantined>, Fault> {
    let (slot, loaded) = ledger.load::<Slot>(&commit.partition, &Slot::id(&deployment.module_id)).await?.take();
    let Some(mut slot) = slot else { return Ok(None) };
    let Some(place) = slot.quarantine.iter().position(|entry| entry.deployment_id == deployment.deployment_id) else {
        return Ok(None);
    };
    let lifted = slot.quarantine.remove(place);
    commit.put(&loaded, &slot)?;
    Ok(Some(lifted))
}
