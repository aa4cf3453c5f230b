//! Bringing what a policy wants to its workload: a refresh, and a look at what came of it.
//!
//! Each step looks at what the deployments have come to and decides from that alone, so that it may be
//! taken twice. One change is under way at a time; what does not pass is taken back.

use std::time::Duration;

use jiff::SignedDuration;

use super::{
    compile::Bounds,
    state::{Failures, Moving, PolicyStatus, Scaled, ScalingPolicy, Wanted},
};
use crate::{
    events::{CommandOutcome, Event, ReasonCode, RuntimeCommandFailed, ScalingPolicyApplied},
    holds,
    ids::{DeploymentId, OperationId},
    ledger::{Commit, Ledger, Lineage, Loaded, NewEvent},
    operations::{self, GiveUp, Kind, NewOperation, Operation, Step, Then},
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
    services::deployment_service::{
        self,
        refresh::{self, Wish},
        state::Origin,
        workloads::Course,
    },
};

/// How long a change may take in all: another deployment of the workload may go first.
const ALLOWED: SignedDuration = SignedDuration::from_hours(5);
/// Between two looks at a rollout that is under way.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// How long a refresh may fail to appear before it is asked for again.
const NUDGE_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// Times that a refresh is asked for again.
const NUDGES_MAX: u32 = 3;

/// A change of what a policy wants, which the policy already says.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub operation_id: OperationId,
    pub by_command: bool,
    /// What serves is bound by.
    pub from: Bounds,
    pub reason: String,
    /// What counts again where the rollout does not pass.
    pub back: Option<Wanted>,
    pub over: DeploymentId,
    pub lineage: Lineage,
    pub caused_by: String,
}

/// Adds a change to a decision: the operation that looks after it, and the refresh. The caller writes
/// the policy.
pub(super) async fn begin(
    ledger: &Ledger,
    commit: &mut Commit,
    policy: &mut ScalingPolicy,
    change: Change,
) -> Result<(), Fault> {
    let from = policy.observed_replicas.unwrap_or(change.from.min);
    let to = policy.bounds();
    policy.status = PolicyStatus::Applying;
    policy.operation_id = change.operation_id.clone();
    policy.moving = Some(Moving {
        operation_id: change.operation_id.clone(),
        by_command: change.by_command,
        from_replicas: from,
        to_replicas: to.clamp(from),
        direction: change.from.direction(to),
        reason: change.reason,
        back: change.back,
        over: change.over,
        asked_at: commit.now,
        nudges: 0,
    });
    operations::begin(
        commit,
        NewOperation {
            id: change.operation_id,
            kind: Kind::Scale,
            module_id: Some(policy.module_id.to_string()),
            subject: ScalingPolicy::document(&policy.module_id),
            step: "Applying",
            lineage: change.lineage.clone(),
            caused_by: change.caused_by.clone(),
            allowed: ALLOWED,
            starts: true,
        },
    )?;
    let wish = Wish {
        origin: Origin::Scaling,
        lineage: change.lineage,
        caused_by: change.caused_by,
        wished_at: commit.now,
    };
    refresh::refresh(ledger, commit, &policy.module_id, wish).await.map(drop)
}

/// Everything that a step rests on.
struct Site {
    policy: ScalingPolicy,
    loaded: Loaded<ScalingPolicy>,
    commit: Commit,
    notes: Vec<String>,
}

impl Site {
    fn on(mut self, label: &'static str, then: Then) -> Result<Step, Fault> {
        self.commit.put(&self.loaded, &self.policy)?;
        Ok(Step { commit: self.commit, label, notes: self.notes, then, outcome: None })
    }
}

/// The policy and the change that the operation looks after; none where another one took its place.
async fn site(platform: &Platform, operation: &Operation) -> Result<(Site, Option<Moving>), Fault> {
    let partition = Partition::environment(&operation.lineage.tenant_id, &operation.environment_id);
    let (policy, loaded) =
        platform.ledger.load::<ScalingPolicy>(&partition, &operation.subject).await?.take();
    let policy = policy.ok_or_else(|| Fault::Unreadable {
        doing: format!("reading `{}`", operation.subject),
        source: "a document that another one names is missing".into(),
    })?;
    let moving = policy.moving.clone().filter(|moving| moving.operation_id == operation.operation_id);
    let commit = Commit::new(partition, platform.clock.now());
    Ok((Site { policy, loaded, commit, notes: Vec::new() }, moving))
}

/// Looks what came of the refresh.
///
/// # Errors
/// When the store is away.
pub async fn step(platform: &Platform, operation: &Operation) -> Result<Step, Fault> {
    let (site, moving) = site(platform, operation).await?;
    let Some(moving) = moving else {
        return site.on("Settled", Then::Succeeded("the change was settled already".to_owned()));
    };
    let (partition, module) = (&site.commit.partition, &site.policy.module_id);
    let generation = site.policy.wanted.entry.generation;
    match deployment_service::scaling_course(&platform.ledger, partition, module, generation).await? {
        Course::UnderWay => under_way(platform, operation, site).await,
        Course::Carried(deployment) => applied(operation, site, moving, &deployment),
        Course::Nothing => nudge(platform, operation, site, moving).await,
        Course::Gone => {
            let detail = format!(
                "Nothing of `{module}` serves any more, and a policy is for what runs. Deploy it and send the command again."
            );
            failed(operation, site, moving, ReasonCode::Conflict, detail)
        }
        Course::Failed { deployment_id, reason } => {
            let detail = format!(
                "`{module}` did not pass with the policy: {}. What was before it is in force again. See `runtimectl explain {deployment_id}`.",
                reason.trim_end_matches('.')
            );
            failed(operation, site, moving, ReasonCode::GateFailed, detail)
        }
    }
}

/// A refresh waits while a hold is in force, and that time is not the change's own.
async fn under_way(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    let (partition, module) = (site.commit.partition.clone(), site.policy.module_id.clone());
    let held = holds::held(&platform.ledger, &partition, Some(&module), site.commit.now).await?;
    let Some(hold) = held else { return site.on("Applying", Then::Wait(LOOK_AGAIN)) };
    if operation.notes.last().is_none_or(|note| !note.text.contains(&hold.hold_id)) {
        site.notes.push(format!("waits: {}", hold.sentence()));
    }
    site.on("Applying", Then::Hold(LOOK_AGAIN))
}

/// Asks for the refresh once more where none came to pass, e.g. since a Deploy took its place and failed.
async fn nudge(
    platform: &Platform,
    operation: &Operation,
    mut site: Site,
    moving: Moving,
) -> Result<Step, Fault> {
    let now = site.commit.now;
    let patience = NUDGE_AFTER * i32::try_from(moving.nudges + 1).unwrap_or(i32::MAX);
    if moving.asked_at + patience > now {
        return site.on("Applying", Then::Wait(LOOK_AGAIN));
    }
    if moving.nudges == NUDGES_MAX {
        let detail = format!(
            "A refresh of `{}` was asked for {NUDGES_MAX} times again, and none got as far as starting with the policy. See `runtimectl get deployments`, and send the command again.",
            site.policy.module_id
        );
        return failed(operation, site, moving, ReasonCode::Conflict, detail);
    }
    site.policy.moving = Some(Moving { nudges: moving.nudges + 1, ..moving });
    site.notes.push("asks for the refresh again".to_owned());
    let wish = Wish {
        origin: Origin::Scaling,
        lineage: operation.lineage.clone(),
        caused_by: operation.caused_by.clone(),
        wished_at: now,
    };
    let module = site.policy.module_id.clone();
    refresh::refresh(&platform.ledger, &mut site.commit, &module, wish).await?;
    site.on("Applying", Then::Wait(LOOK_AGAIN))
}

/// What serves was started with it.
fn applied(
    operation: &Operation,
    mut site: Site,
    moving: Moving,
    deployment: &DeploymentId,
) -> Result<Step, Fault> {
    let now = site.commit.now;
    let id = operation.cause().event("ScalingPolicyApplied", 0);
    let policy = &mut site.policy;
    let bounds = policy.bounds();
    policy.status = PolicyStatus::Active;
    policy.reason = None;
    policy.moving = None;
    policy.failures = None;
    policy.observed_replicas = Some(moving.to_replicas);
    policy.last_scaled_at = Some(now);
    policy.remember(Scaled {
        at: now,
        from_replicas: moving.from_replicas,
        to_replicas: moving.to_replicas,
        direction: moving.direction,
        min_replicas: bounds.min,
        max_replicas: bounds.max,
        reason: moving.reason.clone(),
        event_id: id.clone(),
    });
    let event = Event::ScalingPolicyApplied(ScalingPolicyApplied {
        scaling_policy_id: policy.scaling_policy_id.clone(),
        service_id: policy.service_id.clone(),
        environment_id: policy.environment_id.clone(),
        from_replicas: moving.from_replicas,
        to_replicas: moving.to_replicas,
        direction: moving.direction,
        reason: moving.reason,
    });
    let new: NewEvent = policy.next_event(id.clone(), event, &operation.caused_by);
    let detail = format!("`{}` serves with {bounds} replicas (`{deployment}`)", policy.module_id);
    site.commit.event(&operation.lineage, new)?;
    site.notes.push(detail.clone());
    Ok(Step { outcome: Some(id), ..site.on("Applied", Then::Succeeded(detail))? })
}

/// What was before it counts again, and whoever asked is told.
fn failed(
    operation: &Operation,
    mut site: Site,
    moving: Moving,
    code: ReasonCode,
    detail: String,
) -> Result<Step, Fault> {
    let now = site.commit.now;
    let policy = &mut site.policy;
    policy.moving = None;
    policy.reason = Some(detail.clone());
    policy.status = match moving.back {
        Some(back) => {
            policy.wanted = back;
            PolicyStatus::Active
        }
        None => PolicyStatus::Failed,
    };
    site.notes.push(detail.clone());
    if !moving.by_command {
        let before = policy.failures.take().filter(|known| known.over == moving.over);
        let count = before.map_or(0, |known| known.count) + 1;
        policy.failures = Some(Failures { count, over: moving.over, at: now, reason: detail.clone() });
        return site.on("Failed", Then::Failed(detail));
    }
    let id = operation.cause().event("RuntimeCommandFailed", 0);
    let event = Event::RuntimeCommandFailed(RuntimeCommandFailed {
        command_id: operation.lineage.command_id.clone(),
        command_type: operation.lineage.command_type.clone(),
        outcome: CommandOutcome::Failed,
        reason_code: code,
        detail: detail.clone(),
        retryable: true,
    });
    let new = policy.next_event(id.clone(), event, &operation.caused_by);
    site.commit.event(&operation.lineage, new)?;
    Ok(Step { outcome: Some(id), ..site.on("Failed", Then::Failed(detail))? })
}

/// # Errors
/// When the store is away.
pub async fn give_up(platform: &Platform, operation: &Operation, why: &GiveUp) -> Result<Step, Fault> {
    let (site, moving) = site(platform, operation).await?;
    let Some(moving) = moving else {
        return site.on("Settled", Then::Succeeded("the change was settled already".to_owned()));
    };
    let code = match why {
        GiveUp::Deadline => ReasonCode::TimedOut,
        GiveUp::Rejected { .. } | GiveUp::Attempts { .. } => ReasonCode::Conflict,
    };
    let detail = format!(
        "`{}` was not rolled out with the policy: {}. What was before it is in force again. See its deployments, and send the command again.",
        site.policy.module_id,
        why.sentence()
    );
    failed(operation, site, moving, code, detail)
}
