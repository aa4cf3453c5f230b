//! Going back: what served before gets all traffic again, and the revision that failed is stopped.
//!
//! Safe to repeat: each look at the world decides what is left to do.

use std::{collections::BTreeMap, time::Duration};

use super::{
    ending::{self, Site},
    state::{DeploymentStatus, Origin, RuntimeDeployment, Serving},
    stopping::stop,
};
use crate::{
    events::{CommandOutcome, HealthGateResult, ReasonCode, RolledBackReason},
    operations::{Operation, Step, Then},
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

/// The revision was purged: it is made anew from the recorded deployment.
async fn rebuild(
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
    site.note(format!("{} is gone; makes it anew from `{}`", restore.revision, restore.deployment_id));
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
