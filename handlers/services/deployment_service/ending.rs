//! How a deployment ends: the one commit that writes its last state, gives its place in the slot to
//! whoever waits, and records the event that tells.

use jiff::Timestamp;

use super::{
    deploy::{ALLOWED, missing},
    quarantine::{self, KeptOut, Quarantined, same_image},
    refresh,
    rollback_deployment::history,
    state::{DeploymentStatus, Origin, RuntimeDeployment, Serving, Slot},
};
use crate::{
    events::{
        CommandOutcome, Event, HealthGateResult, ReasonCode, RolledBackReason, RuntimeCommandFailed,
        RuntimeDeploymentCompleted, RuntimeDeploymentRolledBack,
    },
    ids::{Cause, EventId},
    ledger::{Commit, Ledger, Lineage, Loaded, NewEvent},
    operations::{self, Operation, Step, Then},
    outcome::Fault,
    platform::Platform,
};

/// Everything that a step of a rollout rests on.
pub(super) struct Site {
    pub deployment: RuntimeDeployment,
    pub loaded: Loaded<RuntimeDeployment>,
    pub commit: Commit,
    pub notes: Vec<String>,
}

impl Site {
    /// Writes the deployment and goes on as `then` says.
    pub fn on(mut self, then: Then) -> Result<Step, Fault> {
        let label = self.deployment.status.as_str();
        self.commit.put(&self.loaded, &self.deployment)?;
        Ok(Step { commit: self.commit, label, notes: self.notes, then, outcome: None })
    }

    pub fn now(&self) -> Timestamp {
        self.commit.now
    }

    /// Tells whoever reads along.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

/// The deployment serves: it takes the slot's serving place, and what served before is retired.
pub(super) async fn completed(
    platform: &Platform,
    operation: &Operation,
    mut site: Site,
) -> Result<Step, Fault> {
    let now = site.now();
    let (mut slot, slot_loaded) = slot(&platform.ledger, &site).await?;
    retire_previous(&platform.ledger, &mut site, &slot, now).await?;
    slot.serving = site.deployment.as_serving();
    lift_older(&platform.ledger, &mut site, &mut slot).await?;
    // What was wished for before this one was configured is what it was configured with.
    slot.refresh = slot.refresh.take().filter(|wish| Some(wish.wished_at) > site.deployment.configured_at);
    let previous_image = site.deployment.previous.as_ref().map(|previous| previous.image.clone());
    let deployment = &mut site.deployment;
    deployment.status = DeploymentStatus::Completed;
    deployment.completed_event_id = Some(operation.cause().event("RuntimeDeploymentCompleted", 0));
    deployment.sequence += 1;
    deployment.ended_at = Some(now);
    let event = Event::RuntimeDeploymentCompleted(RuntimeDeploymentCompleted {
        deployment_id: deployment.deployment_id.clone(),
        environment_id: deployment.environment_id.clone(),
        target: deployment.workload.target.clone(),
        image: deployment.workload.image.clone(),
        previous_image,
        health_gate: deployment.gate_result.unwrap_or(HealthGateResult::Skipped),
        strategy: deployment.strategy,
    });
    let caused_by = deployment.requested_event_id.clone();
    let detail = format!("`{}` serves {}", deployment.deployment_id, deployment.workload.image);
    end(platform, operation, site, slot, slot_loaded, event, caused_by, Then::Succeeded(detail)).await
}

/// Marks what served before as retired, so that it goes in time; all traffic has left it.
async fn retire_previous(ledger: &Ledger, site: &mut Site, slot: &Slot, now: Timestamp) -> Result<(), Fault> {
    let Some(before) = &slot.serving else { return Ok(()) };
    if before.deployment_id == site.deployment.deployment_id {
        return Ok(());
    }
    let loaded =
        ledger.load::<RuntimeDeployment>(&site.commit.partition, before.deployment_id.as_str()).await?;
    let (Some(before), loaded) = loaded.take() else { return Ok(()) };
    site.commit
        .put(&loaded, &RuntimeDeployment { retired_at: Some(now), weight: 0, weight_in_place: 0, ..before })
}

/// A newer image that passed ends the quarantine of those before it: going forward is over them. An
/// image that was there before they failed is no newer one, and going back to it lifts nothing.
async fn lift_older(ledger: &Ledger, site: &mut Site, slot: &mut Slot) -> Result<(), Fault> {
    if slot.quarantine.is_empty() || site.deployment.origin != Origin::Deploy {
        return Ok(());
    }
    let history = history(ledger, &site.commit.partition, &site.deployment.module_id).await?;
    let first = history.iter().filter(|other| same_image(other, &site.deployment));
    let first = first.map(|other| other.requested_at).min().unwrap_or(site.deployment.requested_at);
    let failed_at = |entry: &Quarantined| {
        let failed = history.iter().find(|other| other.deployment_id == entry.deployment_id);
        failed.map_or(entry.at, |failed| failed.requested_at)
    };
    // What it was started without, it says nothing of.
    let held_back = site.deployment.held_back;
    let unproven = |entry: &Quarantined| held_back && entry.kept_out != KeptOut::Image;
    let (kept, lifted): (Vec<_>, Vec<_>) =
        slot.quarantine.drain(..).partition(|entry| failed_at(entry) >= first || unproven(entry));
    slot.quarantine = kept;
    for entry in lifted {
        site.note(format!(
            "{} passed, which is newer: the quarantine of {} ends",
            site.deployment.workload.image,
            entry.what()
        ));
    }
    Ok(())
}

/// What was there before serves again.
pub(super) async fn rolled_back(
    platform: &Platform,
    operation: &Operation,
    mut site: Site,
) -> Result<Step, Fault> {
    let now = site.now();
    let (mut slot, slot_loaded) = slot(&platform.ledger, &site).await?;
    let restored = site.deployment.restore.clone();
    let served =
        slot.serving.as_ref().map(|serving| &serving.deployment_id) == Some(&site.deployment.deployment_id);
    if served {
        revive(&platform.ledger, &mut site, restored.as_ref()).await?;
    }
    slot.serving.clone_from(&restored);
    let serves = quarantine::serves(&platform.ledger, &site.commit.partition, &slot).await?;
    let deployment = &mut site.deployment;
    let reason = deployment.rolled_back_reason.unwrap_or(RolledBackReason::Cancelled);
    let why = deployment.reason.clone().unwrap_or_else(|| reason.to_string());
    match reason {
        RolledBackReason::Operator => slot.quarantine(deployment, serves.as_ref(), &why, now),
        RolledBackReason::GateFailed if deployment.application_failed => {
            slot.quarantine(deployment, serves.as_ref(), &why, now)
        }
        RolledBackReason::GateFailed | RolledBackReason::Superseded | RolledBackReason::Cancelled => {}
    }
    deployment.status = DeploymentStatus::RolledBack;
    deployment.sequence += 1;
    deployment.ended_at = Some(now);
    let event = Event::RuntimeDeploymentRolledBack(RuntimeDeploymentRolledBack {
        deployment_id: deployment.deployment_id.clone(),
        environment_id: deployment.environment_id.clone(),
        target: deployment.workload.target.clone(),
        image: deployment.workload.image.clone(),
        restored_deployment_id: restored.as_ref().map(|restored| restored.deployment_id.clone()),
        restored_image: restored.as_ref().map(|restored| restored.image.clone()),
        reason,
        health_gate: deployment.gate_result.unwrap_or(HealthGateResult::Skipped),
    });
    let caused_by = match &deployment.cancel {
        // An operator's own order came over HTTP: no message caused it.
        Some(cancel) if cancel.reason != RolledBackReason::Cancelled => cancel.by.clone(),
        Some(_) | None => deployment.requested_event_id.clone(),
    };
    let detail = match &restored {
        Some(restored) => format!("`{}` is rolled back; {} serves", deployment.deployment_id, restored.image),
        None => format!("`{}` is rolled back; nothing served before it", deployment.deployment_id),
    };
    // A rollback that was asked for has succeeded; a rollout that had to go back has not.
    let then = if operation.kind == operations::Kind::Rollback {
        Then::Succeeded(detail)
    } else {
        Then::Failed(detail)
    };
    end(platform, operation, site, slot, slot_loaded, event, caused_by, then).await
}

/// The deployment that serves again is no longer retired, and has all the traffic.
async fn revive(ledger: &Ledger, site: &mut Site, restored: Option<&Serving>) -> Result<(), Fault> {
    let Some(restored) = restored else { return Ok(()) };
    let loaded =
        ledger.load::<RuntimeDeployment>(&site.commit.partition, restored.deployment_id.as_str()).await?;
    let (Some(older), loaded) = loaded.take() else { return Ok(()) };
    site.commit
        .put(&loaded, &RuntimeDeployment { retired_at: None, weight: 100, weight_in_place: 100, ..older })
}

/// It ends without having served, and there is nothing, or no way, to go back to.
pub(super) async fn failed(
    platform: &Platform,
    operation: &Operation,
    mut site: Site,
    outcome: CommandOutcome,
    code: ReasonCode,
    detail: String,
) -> Result<Step, Fault> {
    let now = site.now();
    let (mut slot, slot_loaded) = slot(&platform.ledger, &site).await?;
    let serving = quarantine::serves(&platform.ledger, &site.commit.partition, &slot).await?;
    let deployment = &mut site.deployment;
    if deployment.application_failed {
        slot.quarantine(deployment, serving.as_ref(), &detail, now);
    }
    let ordered = deployment.cancel.as_ref().and_then(|cancel| cancel.rollback.clone());
    // A rollback that failed leaves what serves as it was.
    let serves =
        slot.serving.as_ref().map(|serving| &serving.deployment_id) == Some(&deployment.deployment_id);
    deployment.status = if serves { DeploymentStatus::Completed } else { DeploymentStatus::Failed };
    if serves {
        deployment.cancel = None;
        deployment.restore = None;
        deployment.rolled_back_reason = None;
    }
    deployment.pending = None;
    deployment.sequence += 1;
    deployment.ended_at = Some(now);
    deployment.reason = Some(detail.clone());
    let told = |lineage: &Lineage| {
        Event::RuntimeCommandFailed(RuntimeCommandFailed {
            command_id: lineage.command_id.clone(),
            command_type: lineage.command_type.clone(),
            outcome,
            reason_code: code,
            detail: detail.clone(),
            retryable: code == ReasonCode::TimedOut,
        })
    };
    let event = told(&operation.lineage);
    if let Some(rollback) = ordered {
        // Whoever ordered the end of this rollout waits for an answer of its own; it comes first, so
        // that the deployment's last event stays the last.
        let id = operation.cause().event("RuntimeCommandFailed", 1);
        let (aggregate, sequence) = (deployment.deployment_id.to_string(), deployment.sequence);
        let caused_by = rollback.command_id.clone();
        let answer = NewEvent { id, event: told(&rollback), aggregate, sequence, caused_by };
        deployment.sequence += 1;
        site.commit.event(&rollback, answer)?;
    }
    let deployment = &site.deployment;
    let caused_by = match operation.kind {
        operations::Kind::Rollback => operation.caused_by.clone(),
        operations::Kind::Deploy
        | operations::Kind::Provision
        | operations::Kind::Configure
        | operations::Kind::BindSecret
        | operations::Kind::BindTenant
        | operations::Kind::RotateSecret
        | operations::Kind::Remediate
        | operations::Kind::Scale
        | operations::Kind::Decommission => deployment.requested_event_id.clone(),
    };
    end(platform, operation, site, slot, slot_loaded, event, caused_by, Then::Failed(detail)).await
}

/// The eventId of the `RuntimeDeploymentCompleted` of a deployment that completed. One that was stored
/// before that was kept has the operation that deployed it, unless it is being rolled back.
pub(super) fn completed_event_id(deployment: &RuntimeDeployment) -> EventId {
    let cause = Cause {
        tenant: &deployment.lineage.tenant_id,
        environment: deployment.environment_id.as_str(),
        function: operations::FUNCTION,
        event_id: deployment.operation_id.as_str(),
    };
    let derived = || cause.event("RuntimeDeploymentCompleted", 0);
    deployment.completed_event_id.clone().unwrap_or_else(derived)
}

async fn slot(ledger: &Ledger, site: &Site) -> Result<(Slot, Loaded<Slot>), Fault> {
    let (slot, loaded) =
        ledger.load::<Slot>(&site.commit.partition, &Slot::id(&site.deployment.module_id)).await?.take();
    let slot = slot.ok_or_else(|| missing("the slot of the deployment"))?;
    Ok((slot, loaded))
}

#[expect(clippy::too_many_arguments, reason = "the one place where the parts of an ending meet")]
async fn end(
    platform: &Platform,
    operation: &Operation,
    mut site: Site,
    mut slot: Slot,
    slot_loaded: Loaded<Slot>,
    event: Event,
    caused_by: String,
    then: Then,
) -> Result<Step, Fault> {
    if slot.in_flight.as_ref() == Some(&site.deployment.deployment_id) {
        slot.in_flight = slot.pending.take();
        if slot.in_flight.is_none() && !slot.arriving.is_empty() {
            slot.in_flight = Some(slot.arriving.remove(0));
        }
        match slot.in_flight.clone() {
            Some(next) => next_turn(platform, &mut site, &slot, next.as_str()).await?,
            None => {
                if let Some(wish) = slot.refresh.take() {
                    refresh::begin(&platform.ledger, &mut site.commit, &mut slot, wish).await?;
                }
            }
        }
    }
    // One that is turned away while it waits leaves its place.
    slot.pending = slot.pending.filter(|pending| *pending != site.deployment.deployment_id);
    slot.arriving.retain(|arriving| *arriving != site.deployment.deployment_id);
    site.commit.put(&slot_loaded, &slot)?;
    let id = operation.cause().event(event.event_type(), 0);
    let outcome = Some(id.clone());
    let new = NewEvent {
        id,
        event,
        aggregate: site.deployment.deployment_id.to_string(),
        sequence: site.deployment.sequence,
        caused_by,
    };
    site.commit.event(&operation.lineage, new)?;
    if let Then::Succeeded(detail) | Then::Failed(detail) = &then {
        site.note(detail.clone());
    }
    Ok(Step { outcome, ..site.on(then)? })
}

/// The pending deployment takes its turn, over what serves now.
async fn next_turn(platform: &Platform, site: &mut Site, slot: &Slot, id: &str) -> Result<(), Fault> {
    let partition = site.commit.partition.clone();
    let (next, loaded) = platform.ledger.load::<RuntimeDeployment>(&partition, id).await?.take();
    let next = next.ok_or_else(|| missing(id))?;
    let (operation, operation_loaded) =
        platform.ledger.load::<Operation>(&partition, next.operation_id.as_str()).await?.take();
    let operation = operation.ok_or_else(|| missing(next.operation_id.as_str()))?;
    operations::start(&mut site.commit, &operation_loaded, operation, ALLOWED)?;
    let next =
        RuntimeDeployment { status: DeploymentStatus::Requested, previous: slot.serving.clone(), ..next };
    site.commit.put(&loaded, &next)
}
