//! Provisioning, step by step: plan, apply exactly that, and believe it only when it was read.
//!
//! Each step may be taken twice: planning only reads, applying does what the recorded plan names and
//! finds what an earlier attempt made.

use jiff::{SignedDuration, Timestamp};

use super::{
    resources::{self, EnvironmentSpec},
    state::{Plan, ProvisionedBy, ProvisioningStatus, RuntimeEnvironment},
};
use crate::{
    events::{
        CommandOutcome, CompletionOutcome, DriftResolution, Event, ReasonCode, RuntimeCommandCompleted,
        RuntimeCommandFailed, RuntimeEnvironmentProvisioned,
    },
    ids::PlanId,
    ledger::{Commit, Loaded, NewEvent},
    operations::{GiveUp, Kind, Operation, Step, Then},
    outcome::Fault,
    platform::Platform,
    ports::{
        infrastructure::{Advance, Change, PlannedChange, Resource},
        store::Partition,
    },
    services::runtime_drift_detection_service::remediation,
};

/// How long a plan is good before applying begins.
const PLAN_LIFE: SignedDuration = SignedDuration::from_mins(30);
/// Times that a plan is made anew because the world moved.
const GENERATIONS_MAX: u32 = 5;

/// Where a new operation stands.
pub(super) const PLANNING: &str = "Planning";
const APPLYING: &str = "Applying";
const VERIFYING: &str = "Verifying";

/// Everything that a step rests on.
pub(super) struct Site {
    pub environment: RuntimeEnvironment,
    pub loaded: Loaded<RuntimeEnvironment>,
    desired: Vec<Resource>,
    pub commit: Commit,
}

/// Where bringing an environment's resources into place has come to.
pub(super) enum Standing {
    /// It goes on with this.
    Goes(Step),
    /// Everything was read to be in place; nothing had to be changed where `untouched`.
    Stands { site: Site, notes: Vec<String>, untouched: bool },
    /// It will not come into place.
    Fails { site: Site, notes: Vec<String>, code: ReasonCode, detail: String },
}

pub(super) async fn site(platform: &Platform, operation: &Operation) -> Result<Site, Fault> {
    let partition = Partition::environment(&operation.lineage.tenant_id, &operation.environment_id);
    let (environment, loaded) =
        platform.ledger.load::<RuntimeEnvironment>(&partition, &operation.environment_id).await?.take();
    let environment = environment.ok_or_else(|| Fault::Rejected {
        doing: "provisioning".to_owned(),
        code: "EnvironmentNotFound".to_owned(),
        detail: format!("`{}` is gone", operation.environment_id),
    })?;
    let desired =
        resources::resources(&environment.spec(), &platform.subscription_id, &platform.directory_id);
    Ok(Site { environment, loaded, desired, commit: Commit::new(partition, platform.clock.now()) })
}

/// Takes the next step of provisioning.
///
/// # Errors
/// What the store or Azure withheld.
pub async fn step(platform: &Platform, operation: &Operation) -> Result<Step, Fault> {
    match advance(platform, operation).await? {
        Standing::Goes(step) => Ok(step),
        Standing::Stands { site, notes: _, untouched } if operation.kind == Kind::Remediate => {
            let id = &operation.environment_id;
            let (resolution, detail) = match untouched {
                true => (
                    DriftResolution::Healed,
                    format!("Everything of `{id}` is in place; nothing was changed."),
                ),
                false => {
                    (DriftResolution::Remediated, format!("The resources of `{id}` are as they should be."))
                }
            };
            remediated(platform, operation, site, resolution, detail).await
        }
        Standing::Stands { site, notes, untouched: true } => unchanged(operation, site, notes),
        Standing::Stands { site, notes: _, untouched: false } => provisioned(platform, operation, site),
        Standing::Fails { site, mut notes, code, detail } => {
            let mut step = fail(site, operation, code, detail)?;
            notes.append(&mut step.notes);
            Ok(Step { notes, ..step })
        }
    }
}

/// Takes the next step of bringing what the environment is made of into place: plan, apply, verify.
///
/// # Errors
/// What the store or Azure withheld.
pub(super) async fn advance(platform: &Platform, operation: &Operation) -> Result<Standing, Fault> {
    let site = site(platform, operation).await?;
    match operation.step.as_str() {
        APPLYING => apply(platform, operation, site).await,
        VERIFYING => verify(platform, operation, site).await,
        _ => plan(platform, operation, site, 0).await,
    }
}

/// Reads the world and records what would change.
async fn plan(
    platform: &Platform,
    operation: &Operation,
    site: Site,
    generation: u32,
) -> Result<Standing, Fault> {
    let changes = platform.infrastructure.plan(&site.desired).await?;
    record_plan(platform, operation, site, generation, changes).await
}

async fn record_plan(
    platform: &Platform,
    operation: &Operation,
    site: Site,
    generation: u32,
    changes: Vec<PlannedChange>,
) -> Result<Standing, Fault> {
    if generation >= GENERATIONS_MAX {
        let detail =
            format!("the resources kept changing under {GENERATIONS_MAX} plans; see who else writes to them");
        return Ok(Standing::Fails { site, notes: Vec::new(), code: ReasonCode::ProvisioningFailed, detail });
    }
    let now = site.commit.now;
    let plan = Plan {
        plan_id: PlanId::derived(&operation.operation_id, generation),
        operation_id: operation.operation_id.clone(),
        environment_id: site.environment.environment_id.clone(),
        generation,
        hash: Plan::hash(&site.desired, &changes),
        changes,
        made_at: now,
        expires_at: now + PLAN_LIFE,
        applied_at: None,
        progress: crate::ports::infrastructure::Progress::default(),
    };
    let refused = plan.changes.iter().find_map(|planned| match &planned.change {
        Change::Refused { reason } => Some(reason.clone()),
        Change::Create | Change::Update { .. } | Change::NoChange => None,
    });
    let notes = describe(&plan);
    let Site { environment, loaded, desired: _, mut commit } = site;
    let there = platform.ledger.load::<Plan>(&commit.partition, plan.plan_id.as_str()).await?;
    commit.put(&there, &plan)?;
    if let Some(detail) = refused {
        let site = Site { environment, loaded, desired: Vec::new(), commit };
        return Ok(Standing::Fails { site, notes, code: ReasonCode::PlanRefused, detail });
    }
    let nothing_to_do = plan.changes.iter().all(|planned| planned.change == Change::NoChange);
    let status = if environment.status == ProvisioningStatus::Provisioned {
        ProvisioningStatus::Provisioned
    } else {
        ProvisioningStatus::Provisioning
    };
    let was_provisioned = environment.status == ProvisioningStatus::Provisioned;
    let environment = RuntimeEnvironment { plan_id: Some(plan.plan_id), status, ..environment };
    if nothing_to_do && was_provisioned {
        let site = Site { environment, loaded, desired: Vec::new(), commit };
        return Ok(Standing::Stands { site, notes, untouched: true });
    }
    commit.put(&loaded, &environment)?;
    let label = if nothing_to_do { VERIFYING } else { APPLYING };
    Ok(Standing::Goes(Step { commit, label, notes, then: Then::Next, outcome: None }))
}

/// Ends a command that found everything in place.
fn unchanged(operation: &Operation, site: Site, notes: Vec<String>) -> Result<Step, Fault> {
    let Site { mut environment, loaded, desired: _, mut commit } = site;
    let detail = format!("Everything of `{}` is in place; nothing was changed.", environment.environment_id);
    environment.operation_id = None;
    environment.sequence += 1;
    let event = Event::RuntimeCommandCompleted(RuntimeCommandCompleted {
        command_id: operation.lineage.command_id.clone(),
        command_type: operation.lineage.command_type.clone(),
        outcome: CompletionOutcome::NoChange,
        detail: detail.clone(),
    });
    let event = ending(operation, &environment, event);
    let outcome = Some(event.id.clone());
    // An environment that was made before this was kept.
    environment.provisioned_by = environment
        .provisioned_by
        .take()
        .or_else(|| Some(ProvisionedBy { lineage: operation.lineage.clone(), event_id: event.id.clone() }));
    commit.event(&operation.lineage, event)?;
    commit.put(&loaded, &environment)?;
    Ok(Step { commit, label: VERIFYING, notes, then: Then::Succeeded(detail), outcome })
}

/// The plan in sentences.
fn describe(plan: &Plan) -> Vec<String> {
    let (create, update, unchanged) = plan.counts();
    let mut notes =
        vec![format!("plan {}: {create} to create, {update} to update, {unchanged} in place", plan.plan_id)];
    for planned in &plan.changes {
        let name = planned.id.rsplit('/').next().unwrap_or(&planned.id);
        match &planned.change {
            Change::Create => notes.push(format!("would create {} {name}", planned.resource_type)),
            Change::Update { differences } => {
                let paths = differences
                    .iter()
                    .map(|difference| difference.path.as_str())
                    .collect::<Vec<_>>()
                    .join(", ");
                notes.push(format!("would update {} {name}: {paths}", planned.resource_type));
            }
            Change::NoChange => {}
            Change::Refused { reason } => {
                notes.push(format!("refuses {} {name}: {reason}", planned.resource_type))
            }
        }
    }
    notes
}

/// Looks once at what is on its way, and starts what can start.
async fn apply(platform: &Platform, operation: &Operation, site: Site) -> Result<Standing, Fault> {
    let plan_id = site.environment.plan_id.clone();
    let Some(plan_id) = plan_id else { return plan(platform, operation, site, 0).await };
    let (recorded, there) =
        platform.ledger.load::<Plan>(&site.commit.partition, plan_id.as_str()).await?.take();
    let Some(mut recorded) = recorded else { return plan(platform, operation, site, 0).await };
    let now = site.commit.now;
    let begins = recorded.applied_at.is_none();
    // The plan names what may be done. Where it is too old to begin, or no longer what this version
    // of the platform would do, it is made anew.
    let stale = begins && recorded.expires_at < now;
    if stale || recorded.hash != Plan::hash(&site.desired, &recorded.changes) {
        return plan(platform, operation, site, recorded.generation + 1).await;
    }
    let before = recorded.progress.done.len();
    let advance =
        platform.infrastructure.advance(&site.desired, &recorded.changes, recorded.progress.clone()).await?;
    recorded.applied_at = recorded.applied_at.or(Some(now));
    let Site { environment, loaded, desired, mut commit } = site;
    match advance {
        Advance::Running { progress, again_in } => {
            let notes = came_into_place(&recorded, &progress);
            recorded.progress = progress;
            commit.put(&there, &recorded)?;
            let then = Then::Wait(again_in);
            Ok(Standing::Goes(Step { commit, label: APPLYING, notes, then, outcome: None }))
        }
        Advance::Done { progress } => {
            let mut notes = came_into_place(&recorded, &progress);
            notes.push(format!("all {} resources are in place", progress.done.len().max(before)));
            recorded.progress = progress;
            commit.put(&there, &recorded)?;
            Ok(Standing::Goes(Step { commit, label: VERIFYING, notes, then: Then::Next, outcome: None }))
        }
        Advance::Failed { progress, key, reason } => {
            let notes = came_into_place(&recorded, &progress);
            recorded.progress = progress;
            commit.put(&there, &recorded)?;
            let site = Site { environment, loaded, desired, commit };
            let detail = format!("{key}: {reason}");
            Ok(Standing::Fails { site, notes, code: ReasonCode::ProvisioningFailed, detail })
        }
        Advance::Moved { key } => {
            let site = Site { environment, loaded, desired, commit };
            let mut standing = plan(platform, operation, site, recorded.generation + 1).await?;
            let (Standing::Goes(Step { notes, .. })
            | Standing::Stands { notes, .. }
            | Standing::Fails { notes, .. }) = &mut standing;
            notes.insert(0, format!("`{key}` changed after the plan was made; planning anew"));
            Ok(standing)
        }
    }
}

fn came_into_place(plan: &Plan, progress: &crate::ports::infrastructure::Progress) -> Vec<String> {
    plan.changes
        .iter()
        .filter(|planned| {
            progress.done.contains_key(&planned.key) && !plan.progress.done.contains_key(&planned.key)
        })
        .filter_map(|planned| {
            let verb = match planned.change {
                Change::Create => "created",
                Change::Update { .. } => "updated",
                Change::NoChange | Change::Refused { .. } => return None,
            };
            let name = planned.id.rsplit('/').next().unwrap_or(&planned.id);
            Some(format!("{verb} {} {name}", planned.resource_type))
        })
        .collect()
}

/// Believes that the environment stands only when it was read to be so.
async fn verify(platform: &Platform, operation: &Operation, site: Site) -> Result<Standing, Fault> {
    let changes = platform.infrastructure.plan(&site.desired).await?;
    if changes.iter().any(|planned| planned.change != Change::NoChange) {
        let generation = match &site.environment.plan_id {
            Some(id) => {
                let plan = platform.ledger.load::<Plan>(&site.commit.partition, id.as_str()).await?.state;
                plan.map_or(0, |plan| plan.generation)
            }
            None => 0,
        };
        return record_plan(platform, operation, site, generation + 1, changes).await;
    }
    Ok(Standing::Stands { site, notes: Vec::new(), untouched: false })
}

/// The drift that was to be put right is gone: the finding is over, and that is told.
async fn remediated(
    platform: &Platform,
    operation: &Operation,
    site: Site,
    resolution: DriftResolution,
    detail: String,
) -> Result<Step, Fault> {
    let Site { environment, loaded, desired: _, mut commit } = site;
    let environment = RuntimeEnvironment { operation_id: None, ..environment };
    let (ledger, lineage, caused_by) = (&platform.ledger, &operation.lineage, &operation.caused_by);
    let resolved =
        remediation::resolved(ledger, &mut commit, &operation.subject, resolution, lineage, caused_by);
    let Some(outcome) = resolved.await? else {
        let site = Site { environment, loaded, desired: Vec::new(), commit };
        return gone_already(operation, site, detail);
    };
    commit.put(&loaded, &environment)?;
    let notes = vec![detail.clone()];
    Ok(Step { commit, label: "Resolved", notes, then: Then::Succeeded(detail), outcome: Some(outcome) })
}

/// A sweep found the drift gone first, and told of it; the command's sender is told all the same.
fn gone_already(operation: &Operation, site: Site, detail: String) -> Result<Step, Fault> {
    let Site { environment, loaded, desired: _, mut commit } = site;
    let environment = RuntimeEnvironment { sequence: environment.sequence + 1, ..environment };
    let event = Event::RuntimeCommandCompleted(RuntimeCommandCompleted {
        command_id: operation.lineage.command_id.clone(),
        command_type: operation.lineage.command_type.clone(),
        outcome: CompletionOutcome::NoChange,
        detail: detail.clone(),
    });
    let event = ending(operation, &environment, event);
    let outcome = Some(event.id.clone());
    commit.event(&operation.lineage, event)?;
    commit.put(&loaded, &environment)?;
    let notes = vec![detail.clone()];
    Ok(Step { commit, label: "Resolved", notes, then: Then::Succeeded(detail), outcome })
}

fn provisioned(platform: &Platform, operation: &Operation, site: Site) -> Result<Step, Fault> {
    let Site { environment, loaded, desired: _, mut commit } = site;
    let now = commit.now;
    let spec: EnvironmentSpec = environment.spec();
    let targets = spec
        .compute_targets
        .iter()
        .map(|target| resources::compute_target(&spec, *target, &platform.subscription_id))
        .collect();
    let environment = RuntimeEnvironment {
        status: ProvisioningStatus::Provisioned,
        targets,
        operation_id: None,
        sequence: environment.sequence + 1,
        provisioned_at: environment.provisioned_at.or(Some(now)),
        failure: None,
        ..environment
    };
    let event = provisioned_event(&environment, now);
    let event = ending(operation, &environment, event);
    let outcome = Some(event.id.clone());
    let provisioned_by =
        Some(ProvisionedBy { lineage: operation.lineage.clone(), event_id: event.id.clone() });
    let provisioned_event_id = Some(event.id.to_string());
    let environment = RuntimeEnvironment { provisioned_by, provisioned_event_id, ..environment };
    commit.event(&operation.lineage, event)?;
    commit.put(&loaded, &environment)?;
    let detail = format!("`{}` is provisioned", environment.environment_id);
    Ok(Step {
        commit,
        label: "Provisioned",
        notes: vec![detail.clone()],
        then: Then::Succeeded(detail),
        outcome,
    })
}

fn provisioned_event(environment: &RuntimeEnvironment, now: Timestamp) -> Event {
    Event::RuntimeEnvironmentProvisioned(RuntimeEnvironmentProvisioned {
        environment_id: environment.environment_id.clone(),
        name: environment.name.clone(),
        stage: environment.stage.as_str().to_owned(),
        region: environment.region.clone(),
        isolation_model: environment.isolation_model.as_str().to_owned(),
        pulumi_stack_ref: None,
        compute_targets: environment
            .compute_targets
            .iter()
            .map(|target| target.as_str().to_owned())
            .collect(),
        provisioned_at: environment.provisioned_at.unwrap_or(now),
    })
}

/// An event that ends the command, caused by the message that started the operation.
fn ending(operation: &Operation, environment: &RuntimeEnvironment, event: Event) -> NewEvent {
    let cause = operation.cause();
    NewEvent {
        id: cause.event(event.event_type(), 0),
        event,
        aggregate: environment.environment_id.to_string(),
        sequence: environment.sequence,
        caused_by: operation.caused_by.clone(),
    }
}

/// Ends in `RuntimeCommandFailed`. An environment that was provisioned before stays so: what runs
/// there runs on.
fn fail(site: Site, operation: &Operation, code: ReasonCode, detail: String) -> Result<Step, Fault> {
    let Site { environment, loaded, desired: _, mut commit } = site;
    let status =
        if environment.provisioned_at.is_some() { environment.status } else { ProvisioningStatus::Failed };
    let environment = RuntimeEnvironment {
        status,
        operation_id: None,
        sequence: environment.sequence + 1,
        failure: if operation.kind == Kind::Remediate { None } else { Some(detail.clone()) },
        ..environment
    };
    let told = if operation.kind == Kind::Remediate {
        format!(
            "Putting the resources of `{}` right failed: {detail}. The finding `{}` stays; see `runtimectl explain {}`.",
            environment.environment_id, operation.subject, operation.operation_id
        )
    } else {
        format!(
            "Provisioning `{}` failed: {detail}. What was made stays and is taken up by the next ProvisionEnvironment of the same name.",
            environment.environment_id
        )
    };
    let event = Event::RuntimeCommandFailed(RuntimeCommandFailed {
        command_id: operation.lineage.command_id.clone(),
        command_type: operation.lineage.command_type.clone(),
        outcome: CommandOutcome::Failed,
        reason_code: code,
        detail: told,
        retryable: true,
    });
    let event = ending(operation, &environment, event);
    let outcome = Some(event.id.clone());
    commit.event(&operation.lineage, event)?;
    commit.put(&loaded, &environment)?;
    Ok(Step { commit, label: "Failed", notes: vec![detail.clone()], then: Then::Failed(detail), outcome })
}

/// Ends an operation that cannot go on.
///
/// # Errors
/// When the store is away.
pub async fn give_up(platform: &Platform, operation: &Operation, why: &GiveUp) -> Result<Step, Fault> {
    let site = site(platform, operation).await?;
    let code = match why {
        _ if operation.cancel.is_some() => ReasonCode::Cancelled,
        GiveUp::Deadline => ReasonCode::TimedOut,
        GiveUp::Rejected { .. } | GiveUp::Attempts { .. } => ReasonCode::ProvisioningFailed,
    };
    fail(site, operation, code, why.sentence())
}
