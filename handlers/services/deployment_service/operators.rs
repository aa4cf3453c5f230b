//! What an operator may do to a deployment without a command: lift a quarantine, end a rollout.

use super::{
    deploy::missing,
    quarantine::{KeptOut, Quarantined},
    state::{Cancel, DeploymentStatus, RuntimeDeployment, Slot},
};
use crate::{
    delivery::{self, Refusal},
    events::{ReasonCode, RolledBackReason},
    ids::Cause,
    ledger::{Commit, Ledger, Loaded, NewEvent},
    operations::{self, Operation},
    outcome::Fault,
    services::runtime_configuration_service,
};

/// Lifts the quarantine that a deployment began. None where there is none, or no longer.
///
/// # Errors
/// When the store is away.
pub async fn lift(
    ledger: &Ledger,
    commit: &mut Commit,
    deployment: &RuntimeDeployment,
) -> Result<Option<Quarantined>, Fault> {
    let (slot, loaded) =
        ledger.load::<Slot>(&commit.partition, &Slot::id(&deployment.module_id)).await?.take();
    let Some(mut slot) = slot else { return Ok(None) };
    let Some(place) =
        slot.quarantine.iter().position(|entry| entry.deployment_id == deployment.deployment_id)
    else {
        return Ok(None);
    };
    let lifted = slot.quarantine.remove(place);
    commit.put(&loaded, &slot)?;
    if let KeptOut::Configuration { version } = lifted.kept_out {
        runtime_configuration_service::forgive(ledger, commit, &deployment.module_id, version).await?;
    }
    Ok(Some(lifted))
}

/// Ends a rollout: one that has its turn goes back, one that still waits never begins. `by` is the
/// order's id, `why` a sentence with who and why.
///
/// # Errors
/// When the store is away. The inner error is a sentence that says why it cannot be ended.
pub async fn cancel(
    ledger: &Ledger,
    commit: &mut Commit,
    operation: (Operation, Loaded<Operation>),
    by: &str,
    why: &str,
) -> Result<Result<(), String>, Fault> {
    let (operation, operation_loaded) = operation;
    let id = &operation.subject;
    let (deployment, loaded) = ledger.load::<RuntimeDeployment>(&commit.partition, id).await?.take();
    let deployment = deployment.ok_or_else(|| missing(id))?;
    match deployment.status {
        DeploymentStatus::Queued => {
            let (slot, slot_loaded) =
                ledger.load::<Slot>(&commit.partition, &Slot::id(&deployment.module_id)).await?.take();
            let mut slot = slot.ok_or_else(|| missing("the slot of the deployment"))?;
            slot.pending = slot.pending.filter(|pending| *pending != deployment.deployment_id);
            slot.arriving.retain(|arriving| *arriving != deployment.deployment_id);
            commit.put(&slot_loaded, &slot)?;
            never_begins(commit, (deployment, loaded), (operation, operation_loaded), why)?;
            Ok(Ok(()))
        }
        DeploymentStatus::Requested
        | DeploymentStatus::Provisioning
        | DeploymentStatus::Configuring
        | DeploymentStatus::RollingOut
        | DeploymentStatus::HealthGating
        | DeploymentStatus::Promoting => {
            if deployment.cancel.is_some() {
                return Ok(Err(format!("`{id}` is being ended already.")));
            }
            operations::nudge(commit, &operation, by)?;
            let order = Cancel {
                reason: RolledBackReason::Cancelled,
                by: by.to_owned(),
                rollback: None,
                at: commit.now,
            };
            let reason = Some(why.to_owned());
            commit.put(&loaded, &RuntimeDeployment { cancel: Some(order), reason, ..deployment })?;
            Ok(Ok(()))
        }
        DeploymentStatus::RollingBack => Ok(Err(format!("`{id}` is going back already; wait for its end."))),
        DeploymentStatus::Completed | DeploymentStatus::RolledBack | DeploymentStatus::Failed => {
            Ok(Err(format!("`{id}` has ended already; send RollbackDeployment to take back what serves.")))
        }
    }
}

/// Ends a deployment that waited for its turn: nothing of it was rolled out.
fn never_begins(
    commit: &mut Commit,
    (deployment, loaded): (RuntimeDeployment, Loaded<RuntimeDeployment>),
    (operation, operation_loaded): (Operation, Loaded<Operation>),
    why: &str,
) -> Result<(), Fault> {
    let detail = format!(
        "`{}` waited for its turn and was ended: {why}. Nothing of it was rolled out.",
        deployment.deployment_id
    );
    let refusal = Refusal::new(ReasonCode::Cancelled, detail.clone());
    let lineage = deployment.lineage.clone();
    let cause = Cause {
        tenant: &lineage.tenant_id,
        environment: &operation.environment_id,
        function: "CancelOperation",
        event_id: operation.operation_id.as_str(),
    };
    let id = cause.event("RuntimeCommandFailed", 0);
    let sequence = deployment.sequence + 1;
    commit.event(
        &lineage,
        NewEvent {
            id: id.clone(),
            event: delivery::refused(&lineage.command_id, &lineage.command_type, &refusal),
            aggregate: deployment.deployment_id.to_string(),
            sequence,
            caused_by: deployment.requested_event_id.clone(),
        },
    )?;
    operations::dismiss(commit, &operation_loaded, operation, &detail, id)?;
    let ended = RuntimeDeployment {
        status: DeploymentStatus::Failed,
        reason: Some(detail),
        sequence,
        ended_at: Some(commit.now),
        ..deployment
    };
    commit.put(&loaded, &ended)
}
