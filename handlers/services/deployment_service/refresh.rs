//! A refresh: what serves is rolled out once more, as it is desired by now.
//!
//! A new configuration, a rotated secret, a scaling policy or a repair changes what a workload should
//! be started with, and not its image. The refresh is a deployment like any other, behind the same
//! gate. It never supersedes: where a deployment is in flight it waits as the one wish of the slot,
//! and a Deploy that runs meanwhile fulfils it, since that starts with what is desired too.

use jiff::Timestamp;

use super::{
    deploy::{ALLOWED, missing},
    state::{DeploymentStatus, Origin, RuntimeDeployment, Slot},
};
use crate::{
    events::{Event, RuntimeDeploymentRequested},
    ids::{Cause, DeploymentId, ModuleId, OperationId},
    ledger::{Commit, Ledger, Lineage, Loaded, NewEvent},
    operations::{self, Kind, NewOperation},
    outcome::Fault,
    ports::store::Partition,
};

/// The function that ids of refreshes derive from.
const FUNCTION: &str = "Refresh";
/// Deployments whose ids may share eight digits.
const ORDINALS_MAX: u32 = 8;

/// Why a workload should be rolled out once more, and on whose behalf.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wish {
    pub origin: Origin,
    pub lineage: Lineage,
    /// The eventId of the message that asks for it.
    pub caused_by: String,
    pub wished_at: Timestamp,
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// It begins.
    Began(DeploymentId),
    /// Another deployment is in flight; it waits for its end.
    Waits,
    /// Nothing serves, so there is nothing to roll out.
    NothingServes,
}

/// Adds a refresh of a workload to a decision.
///
/// # Errors
/// When the store is away.
pub async fn refresh(
    ledger: &Ledger,
    commit: &mut Commit,
    module: &ModuleId,
    wish: Wish,
) -> Result<Refresh, Fault> {
    let (slot, loaded) = ledger.load::<Slot>(&commit.partition, &Slot::id(module)).await?.take();
    let Some(mut slot) = slot else { return Ok(Refresh::NothingServes) };
    if slot.in_flight.is_some() {
        slot.refresh = Some(wish);
        commit.put(&loaded, &slot)?;
        return Ok(Refresh::Waits);
    }
    let began = begin(ledger, commit, &mut slot, wish).await?;
    if let Refresh::Began(_) = &began {
        commit.put(&loaded, &slot)?;
    }
    Ok(began)
}

/// Finds the operation of a refresh that a wish began, by its deployment.
pub fn operation_of(
    partition: &Partition,
    module: &ModuleId,
    wish: &Wish,
) -> impl FnOnce(&DeploymentId) -> Option<OperationId> + use<> {
    let (tenant, environment) = (wish.lineage.tenant_id.clone(), partition.environment_id.clone());
    let event_id = event_id(&wish.caused_by, module);
    move |deployment| {
        let cause =
            Cause { tenant: &tenant, environment: &environment, function: FUNCTION, event_id: &event_id };
        let ordinal = (0..ORDINALS_MAX).find(|ordinal| cause.deployment(*ordinal) == *deployment)?;
        Some(cause.operation(ordinal))
    }
}

/// What ids of a refresh derive from: one message may lead to refreshes of several workloads.
fn event_id(caused_by: &str, module: &ModuleId) -> String {
    format!("{caused_by}/{module}")
}

/// Begins a refresh of what a free slot serves; the caller writes the slot.
pub(super) async fn begin(
    ledger: &Ledger,
    commit: &mut Commit,
    slot: &mut Slot,
    wish: Wish,
) -> Result<Refresh, Fault> {
    let Some(serving) = slot.serving.clone() else { return Ok(Refresh::NothingServes) };
    let id = serving.deployment_id.as_str();
    let serves =
        ledger.load::<RuntimeDeployment>(&commit.partition, id).await?.state.ok_or_else(|| missing(id))?;
    let Wish { origin, mut lineage, caused_by, wished_at: _ } = wish;
    lineage.module_id = Some(slot.module_id.clone());
    let environment = commit.partition.environment_id.clone();
    let event_id = event_id(&caused_by, &slot.module_id);
    let cause = Cause {
        tenant: &lineage.tenant_id,
        environment: &environment,
        function: FUNCTION,
        event_id: &event_id,
    };
    let (ordinal, loaded) = free_id(ledger, commit, &cause).await?;
    let (deployment_id, operation_id) = (cause.deployment(ordinal), cause.operation(ordinal));
    let requested = cause.event("RuntimeDeploymentRequested", ordinal);
    let deployment = RuntimeDeployment {
        deployment_id: deployment_id.clone(),
        origin,
        status: DeploymentStatus::Requested,
        previous: Some(serving.clone()),
        operation_id: operation_id.clone(),
        lineage: lineage.clone(),
        requested_event_id: requested.to_string(),
        sequence: 1,
        requested_at: commit.now,
        ..serves.anew()
    };
    commit.event(
        &lineage,
        NewEvent {
            id: requested,
            event: Event::RuntimeDeploymentRequested(RuntimeDeploymentRequested {
                deployment_id: deployment_id.clone(),
                environment_id: deployment.environment_id.clone(),
                target: deployment.workload.target.clone(),
                image: deployment.workload.image.clone(),
                previous_image: Some(serving.image),
                strategy: deployment.strategy,
                release_ref: deployment.release_ref.clone(),
            }),
            aggregate: deployment_id.to_string(),
            sequence: 1,
            caused_by: caused_by.clone(),
        },
    )?;
    operations::begin(
        commit,
        NewOperation {
            id: operation_id,
            kind: Kind::Deploy,
            module_id: Some(slot.module_id.to_string()),
            subject: deployment_id.to_string(),
            step: deployment.status.as_str(),
            lineage,
            caused_by,
            allowed: ALLOWED,
            starts: true,
        },
    )?;
    commit.put(&loaded, &deployment)?;
    slot.in_flight = Some(deployment_id.clone());
    Ok(Refresh::Began(deployment_id))
}

async fn free_id(
    ledger: &Ledger,
    commit: &Commit,
    cause: &Cause<'_>,
) -> Result<(u32, Loaded<RuntimeDeployment>), Fault> {
    for ordinal in 0..ORDINALS_MAX {
        let id = cause.deployment(ordinal);
        let loaded = ledger.load::<RuntimeDeployment>(&commit.partition, id.as_str()).await?;
        if loaded.state.is_none() {
            return Ok((ordinal, loaded));
        }
    }
    Err(Fault::Rejected {
        doing: "finding an id for a refresh".to_owned(),
        code: "Conflict".to_owned(),
        detail: format!("{ORDINALS_MAX} other deployments have the ids that this one could have"),
    })
}
