//! Going back: what served before gets all traffic again, and the revision that failed is stopped.
//!
//! Safe to repeat: each look at the world decides what is left to do.

use std::{collections::BTreeMap, time::Duration};

use super::{
    ending::{self, Site},
    secrets,
    state::{DeploymentStatus, Origin, RuntimeDeployment, Serving},
    stopping::stop,
};
use crate::{
    events::{CommandOutcome, HealthGateResult, ReasonCode, RolledBackReason},
    operations::{self, Operation, Step, Then},
    outcome::Fault,
    platform::Platform,
    ports::compute::{self, Observed, RevisionState, WorkloadRef},
};

/// Between two looks at a revision that is starting.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Turns a rollout round: from here on it goes back, for this reason.
pub(super) fn turn(mut site: Site, reason: RolledBackReason, why: String) -> Result<Step, Fault> {
    let deployment = &mut site.deployment;
    deployment.status = DeploymentStatus::RollingBack;
    deployment.rolled_back_reason = Some(reason);
    deployment.restore.clone_from(&deployment.previous);
    deployment.reason = Some(why.clone());
    site.note(format!("goes back: {why}"));
    site.on(Then::Next)
}

/// Takes the next step back.
pub(super) async fn step(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    // What was begun on the way forward, or by the last step back, comes to its end first: an app that is
    // still being made would else appear after it was looked for.
    if let Some(token) = site.deployment.pending.take() {
        return match platform.compute.resume(&token).await {
            Ok(compute::Step::Done) => site.on(Then::Next),
            Err(Fault::Rejected { detail, .. }) => {
                site.note(format!("what was under way failed: {detail}"));
                site.on(Then::Again(LOOK_AGAIN))
            }
            Err(fault) => Err(fault),
            Ok(compute::Step::Pending { token, again_in }) => {
                site.deployment.pending = Some(token);
                site.on(Then::Wait(again_in))
            }
        };
    }
    if operation.kind == operations::Kind::Rollback && renew(platform, operation, &mut site).await? {
        return site.on(Then::Next);
    }
    let workload = site.deployment.workload_ref();
    let observed = platform.compute.observe(&workload).await?.unwrap_or_default();
    match site.deployment.restore.clone() {
        Some(restore) => restore_traffic(platform, operation, site, &workload, &observed, restore).await,
        None => {
            let own = site.deployment.revision.clone();
            stop(platform, operation, &mut site, &observed, own.as_deref()).await?;
            nothing_to_go_back_to(platform, operation, site).await
        }
    }
}

/// Whether a revision is one that an operation makes anew.
fn is_made_by(operation: &Operation, revision: &str) -> bool {
    revision.ends_with(&RuntimeDeployment::mark_anew(&operation.operation_id))
}

/// What was started with versions of secrets that are bound no more is made anew with those that are:
/// the old ones may be disabled by now, and are once nobody serves with them. Says whether it is so;
/// the new revision's name is recorded before it is made.
async fn renew(platform: &Platform, operation: &Operation, site: &mut Site) -> Result<bool, Fault> {
    let Some(restore) = site.deployment.restore.clone() else { return Ok(false) };
    let (ledger, partition) = (&platform.ledger, &site.commit.partition);
    let loaded = ledger.load::<RuntimeDeployment>(partition, restore.deployment_id.as_str()).await?;
    let (Some(mut older), loaded) = loaded.take() else { return Ok(false) };
    let suffix = older.suffix_anew(&operation.operation_id);
    if older.suffix.as_ref() == Some(&suffix) {
        // A binding that moved since then refreshes what serves by then.
        return Ok(false);
    }
    let Some(renewed) = secrets::renewed(ledger, partition, &older).await? else { return Ok(false) };
    let revision = platform.compute.revision_name(&older.workload_ref(), &suffix);
    site.note(format!(
        "{} was started with versions of secrets that are bound no more; {revision} is made of `{}` with those that are",
        restore.revision, restore.deployment_id
    ));
    older.secrets = renewed;
    older.suffix = Some(suffix);
    older.revision = Some(revision.clone());
    site.commit.put(&loaded, &older)?;
    site.deployment.restore = Some(Serving { revision, ..restore });
    Ok(true)
}

async fn restore_traffic(
    platform: &Platform,
    operation: &Operation,
    mut site: Site,
    workload: &WorkloadRef,
    observed: &Observed,
    restore: Serving,
) -> Result<Step, Fault> {
    let Some(revision) = observed.revisions.get(&restore.revision) else {
        return rebuild(platform, site, workload, &restore).await;
    };
    if !revision.active {
        platform.compute.activate(workload, &restore.revision).await?;
        site.note(format!("activates {}", restore.revision));
        return site.on(Then::Wait(LOOK_AGAIN));
    }
    if revision.traffic != 100 {
        match revision.state {
            RevisionState::Running | RevisionState::Degraded => {}
            // The call that makes it may have been lost with the process that made it: it is made once more.
            RevisionState::Provisioning if is_made_by(operation, &restore.revision) => {
                return stage(platform, site, workload, &restore).await;
            }
            RevisionState::Provisioning | RevisionState::Stopped => return site.on(Then::Wait(LOOK_AGAIN)),
            RevisionState::Failed => {
                let detail = format!(
                    "`{}` does not start any more: {}",
                    restore.revision,
                    revision.detail.as_deref().unwrap_or("no reason given")
                );
                return ending::failed(
                    platform,
                    operation,
                    site,
                    CommandOutcome::Failed,
                    ReasonCode::RollbackFailed,
                    detail,
                )
                .await;
            }
        }
        let weights = BTreeMap::from([(restore.revision.clone(), 100)]);
        site.note(format!("100 % of the traffic to {} ({})", restore.revision, restore.image));
        return match platform.compute.shift(workload, &weights).await? {
            compute::Step::Done => site.on(Then::Next),
            compute::Step::Pending { token, again_in } => {
                site.deployment.pending = Some(token);
                site.on(Then::Wait(again_in))
            }
        };
    }
    let own = site.deployment.revision.clone();
    stop(platform, operation, &mut site, observed, own.as_deref()).await?;
    site.deployment.weight = 0;
    site.deployment.weight_in_place = 0;
    ending::rolled_back(platform, operation, site).await
}

/// The revision is not there, since it was purged or is made of other secrets: it is made anew from
/// the recorded deployment.
async fn rebuild(
    platform: &Platform,
    mut site: Site,
    workload: &WorkloadRef,
    restore: &Serving,
) -> Result<Step, Fault> {
    site.note(format!("{} is not there; makes it anew from `{}`", restore.revision, restore.deployment_id));
    stage(platform, site, workload, restore).await
}

async fn stage(
    platform: &Platform,
    mut site: Site,
    workload: &WorkloadRef,
    restore: &Serving,
) -> Result<Step, Fault> {
    let older = platform
        .ledger
        .load::<RuntimeDeployment>(&site.commit.partition, restore.deployment_id.as_str())
        .await?;
    let older = older.state.ok_or_else(|| Fault::Rejected {
        doing: format!("restoring `{}`", restore.deployment_id),
        code: "DeploymentNotFound".to_owned(),
        detail: format!(
            "neither the revision `{}` nor the deployment `{}` is there any more",
            restore.revision, restore.deployment_id
        ),
    })?;
    match platform.compute.stage(workload, &older.revision_spec()).await? {
        compute::Step::Done => site.on(Then::Wait(LOOK_AGAIN)),
        compute::Step::Pending { token, again_in } => {
            site.deployment.pending = Some(token);
            site.on(Then::Wait(again_in))
        }
    }
}

/// A first deployment has nothing before it: its revision is stopped, and it has failed; one that
/// somebody ended is rolled back to nothing.
async fn nothing_to_go_back_to(
    platform: &Platform,
    operation: &Operation,
    site: Site,
) -> Result<Step, Fault> {
    let deployment = &site.deployment;
    match deployment.rolled_back_reason {
        Some(RolledBackReason::GateFailed) | None => {
            let (code, what) = match (deployment.gate_started_at, deployment.gate_result) {
                (_, Some(HealthGateResult::TimedOut)) => (ReasonCode::TimedOut, "did not come up in time"),
                (None, _) => (ReasonCode::ProvisioningFailed, "could not be rolled out"),
                (Some(_), _) => (ReasonCode::GateFailed, "did not pass its health gate"),
            };
            let of = match deployment.origin {
                Origin::Drift => "which was to put it right for",
                Origin::Deploy | Origin::Configuration | Origin::Secret | Origin::Scaling => {
                    "the first deployment of"
                }
            };
            let detail = format!(
                "`{}`, {of} `{}`, {what}: {}. There is nothing to go back to, and what was started is stopped. See `runtimectl explain {}`.",
                deployment.deployment_id,
                deployment.module_id,
                deployment.reason.as_deref().unwrap_or("no reason was recorded"),
                deployment.deployment_id
            );
            ending::failed(platform, operation, site, CommandOutcome::Failed, code, detail).await
        }
        Some(RolledBackReason::Operator | RolledBackReason::Superseded | RolledBackReason::Cancelled) => {
            ending::rolled_back(platform, operation, site).await
        }
    }
}
