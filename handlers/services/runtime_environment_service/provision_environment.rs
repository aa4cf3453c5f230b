//! `ProvisionEnvironment`: stand an environment up, by a plan that can be read before it is applied.
//!
//! Ends in `RuntimeEnvironmentProvisioned`; in `RuntimeCommandCompleted` where everything is in place
//! already; or in `RuntimeCommandFailed`.
//!
//! Redelivery is safe at every await: the command's own function only records; the operation's steps
//! plan by reading, apply what the recorded plan names, and find what an earlier attempt made.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    resources::{self, EnvironmentSpec, IsolationModel, Stage, TargetKind},
    state::{Plan, ProvisioningStatus, RuntimeEnvironment},
};
use crate::{
    delivery::{Command, Decision, Message, Refusal},
    events::{
        CommandOutcome, CompletionOutcome, Event, ReasonCode, RuntimeCommandCompleted, RuntimeCommandFailed,
        RuntimeEnvironmentProvisioned,
    },
    ids::{Cause, EnvironmentId, PlanId, ProjectId},
    ledger::{Commit, Loaded, NewEvent},
    operations::{self, GiveUp, Kind, NewOperation, Operation, Step, Then},
    outcome::Fault,
    platform::Platform,
    ports::{
        infrastructure::{Advance, Change, PlannedChange, Resource},
        store::Partition,
    },
};

/// How long provisioning may take in all; a Container Apps environment alone takes up to 45 minutes.
const ALLOWED: SignedDuration = SignedDuration::from_hours(2);
/// How long a plan is good before applying begins.
const PLAN_LIFE: SignedDuration = SignedDuration::from_mins(30);
/// Times that a plan is made anew because the world moved.
const GENERATIONS_MAX: u32 = 5;
/// Environments whose ids may share eight digits.
const ORDINALS_MAX: u32 = 8;
/// The longest name of an environment, in characters: it becomes part of resource names.
const NAME_LENGTH_MAX: usize = 32;

const PLANNING: &str = "Planning";
const APPLYING: &str = "Applying";
const VERIFYING: &str = "Verifying";

/// The payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProvisionEnvironment {
    /// Lower-case letters, digits and hyphens; unique in its project.
    pub name: String,
    pub stage: Stage,
    /// An Azure region, e.g. `westeurope`.
    pub region: String,
    #[serde(default)]
    pub isolation_model: Option<IsolationModel>,
    pub compute_targets: Vec<TargetKind>,
}

#[async_trait::async_trait]
impl Command for ProvisionEnvironment {
    const NAME: &'static str = "ProvisionEnvironment";

    async fn environment(platform: &Platform, message: &Message<Self>) -> Result<String, Fault> {
        match &message.envelope.project_id {
            Some(project) => Ok(locate(platform, message, project).await?.0.environment_id),
            None => Ok("_".to_owned()),
        }
    }

    async fn decide(platform: &Platform, message: &Message<Self>) -> Result<Decision, Fault> {
        let Some(project) = message.envelope.project_id.clone() else {
            return Ok(Decision::Refused(Refusal::new(
                ReasonCode::InvalidPayload,
                "projectId is missing from the envelope: an environment belongs to a project.",
            )));
        };
        let (partition, loaded, existing) = locate(platform, message, &project).await?;
        let environment = match decide(message, &project, &partition, existing) {
            Ok(environment) => environment,
            Err(refusal) => return Ok(Decision::Refused(refusal)),
        };
        let mut commit = Commit::new(partition, message.now);
        let operation_id = message.cause(environment.environment_id.as_str()).operation(0);
        operations::begin(
            &mut commit,
            NewOperation {
                id: operation_id.clone(),
                kind: Kind::Provision,
                module_id: None,
                subject: environment.environment_id.to_string(),
                step: PLANNING,
                lineage: message.lineage(),
                caused_by: message.envelope.event_id.to_string(),
                allowed: ALLOWED,
                starts: true,
            },
        )?;
        let environment = RuntimeEnvironment { operation_id: Some(operation_id.clone()), ..environment };
        commit.put(&loaded, &environment)?;
        Ok(Decision::Accepted { commit, operation_id: Some(operation_id) })
    }
}

fn derived(message: &Message<ProvisionEnvironment>, project: &ProjectId, ordinal: u32) -> EnvironmentId {
    EnvironmentId::derived(&message.envelope.tenant_id, project, &message.envelope.payload.name, ordinal)
}

type Located = (Partition, Loaded<RuntimeEnvironment>, Option<RuntimeEnvironment>);

/// Where this environment is, or will be: the first id that no other environment has.
async fn locate(
    platform: &Platform,
    message: &Message<ProvisionEnvironment>,
    project: &ProjectId,
) -> Result<Located, Fault> {
    let tenant = &message.envelope.tenant_id;
    for ordinal in 0..ORDINALS_MAX {
        let id = derived(message, project, ordinal);
        let partition = Partition::environment(tenant, id.as_str());
        let (existing, loaded) =
            platform.ledger.load::<RuntimeEnvironment>(&partition, id.as_str()).await?.take();
        match existing {
            Some(other) if other.name != message.envelope.payload.name || other.project_id != *project => {}
            existing => return Ok((partition, loaded, existing)),
        }
    }
    Err(Fault::Rejected {
        doing: "finding an id for the environment".to_owned(),
        code: "Conflict".to_owned(),
        detail: format!("{ORDINALS_MAX} other environments have the ids that this one could have"),
    })
}

/// A new environment, or an existing one to look after; a refusal otherwise.
fn decide(
    message: &Message<ProvisionEnvironment>,
    project: &ProjectId,
    partition: &Partition,
    existing: Option<RuntimeEnvironment>,
) -> Result<RuntimeEnvironment, Refusal> {
    let wanted = &message.envelope.payload;
    validate(wanted)?;
    let Some(existing) = existing else {
        return Ok(RuntimeEnvironment {
            environment_id: EnvironmentId::of_ours(&partition.environment_id).map_err(|error| {
                Refusal::new(ReasonCode::InvalidPayload, format!("environmentId {error}"))
            })?,
            tenant_id: message.envelope.tenant_id.clone(),
            project_id: project.clone(),
            name: wanted.name.clone(),
            stage: wanted.stage,
            region: wanted.region.clone(),
            status: ProvisioningStatus::Requested,
            isolation_model: wanted.isolation_model.unwrap_or(IsolationModel::Shared),
            compute_targets: wanted.compute_targets.clone(),
            targets: Vec::new(),
            plan_id: None,
            operation_id: None,
            sequence: 0,
            deployments_accepted: 0,
            created_at: message.now,
            provisioned_at: None,
            decommissioned_at: None,
            failure: None,
        });
    };
    revisit(existing, wanted)
}

/// What a second `ProvisionEnvironment` of the same name means.
fn revisit(
    existing: RuntimeEnvironment,
    wanted: &ProvisionEnvironment,
) -> Result<RuntimeEnvironment, Refusal> {
    let id = &existing.environment_id;
    if let Some(operation) = &existing.operation_id {
        return Err(Refusal {
            code: ReasonCode::Conflict,
            detail: format!(
                "`{id}` is being provisioned by `{operation}`. Wait for its end, then send the command again if it is still wanted."
            ),
            retryable: true,
        });
    }
    match existing.status {
        ProvisioningStatus::Decommissioning | ProvisioningStatus::Decommissioned => Err(Refusal::new(
            ReasonCode::Conflict,
            format!("`{id}` was decommissioned. Choose another name for a new environment."),
        )),
        ProvisioningStatus::Provisioned => {
            let isolation = wanted.isolation_model.unwrap_or(existing.isolation_model);
            let changed = [
                ("stage", existing.stage != wanted.stage),
                ("region", existing.region != wanted.region),
                ("isolationModel", existing.isolation_model != isolation),
                ("computeTargets", existing.compute_targets != wanted.compute_targets),
            ];
            match changed.iter().find(|(_, changed)| *changed) {
                Some((field, _)) => Err(Refusal::new(
                    ReasonCode::Conflict,
                    format!(
                        "payload.{field} differs from that of `{id}`, which is provisioned and keeps it. Provision an environment of another name."
                    ),
                )),
                None => Ok(existing),
            }
        }
        // Nothing runs there yet: a failed attempt may be repeated with what was corrected.
        ProvisioningStatus::Requested | ProvisioningStatus::Provisioning | ProvisioningStatus::Failed => {
            Ok(RuntimeEnvironment {
                stage: wanted.stage,
                region: wanted.region.clone(),
                isolation_model: wanted.isolation_model.unwrap_or(existing.isolation_model),
                compute_targets: wanted.compute_targets.clone(),
                status: ProvisioningStatus::Requested,
                failure: None,
                ..existing
            })
        }
    }
}

fn validate(wanted: &ProvisionEnvironment) -> Result<(), Refusal> {
    let invalid = |field: &str, what: String| {
        Err(Refusal::new(ReasonCode::InvalidPayload, format!("payload.{field}: {what}")))
    };
    let slug = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && !text.ends_with('-')
    };
    if !slug(&wanted.name) || wanted.name.len() > NAME_LENGTH_MAX {
        return invalid(
            "name",
            format!(
                "`{}` must be 1 to {NAME_LENGTH_MAX} lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen",
                wanted.name
            ),
        );
    }
    if !slug(&wanted.region) || wanted.region.contains('-') {
        return invalid(
            "region",
            format!("`{}` must be an Azure region's name, e.g. `westeurope`", wanted.region),
        );
    }
    if wanted.compute_targets.is_empty() {
        return invalid("computeTargets", "at least one is needed, e.g. [\"container-apps\"]".to_owned());
    }
    match wanted.compute_targets.iter().find(|target| **target != TargetKind::ContainerApps) {
        Some(target) => Err(Refusal::new(
            ReasonCode::NotSupported,
            format!(
                "payload.computeTargets: `{}` cannot be provisioned yet; use `container-apps`.",
                target.as_str()
            ),
        )),
        None => Ok(()),
    }
}

/// Everything that a step rests on.
struct Site {
    environment: RuntimeEnvironment,
    loaded: Loaded<RuntimeEnvironment>,
    desired: Vec<Resource>,
    commit: Commit,
}

async fn site(platform: &Platform, operation: &Operation) -> Result<Site, Fault> {
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
) -> Result<Step, Fault> {
    let changes = platform.infrastructure.plan(&site.desired).await?;
    record_plan(platform, operation, site, generation, changes).await
}

async fn record_plan(
    platform: &Platform,
    operation: &Operation,
    site: Site,
    generation: u32,
    changes: Vec<PlannedChange>,
) -> Result<Step, Fault> {
    if generation >= GENERATIONS_MAX {
        let detail =
            format!("the resources kept changing under {GENERATIONS_MAX} plans; see who else writes to them");
        return fail(site, operation, ReasonCode::ProvisioningFailed, detail);
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
    let mut notes = describe(&plan);
    let Site { environment, loaded, desired: _, mut commit } = site;
    let there = platform.ledger.load::<Plan>(&commit.partition, plan.plan_id.as_str()).await?;
    commit.put(&there, &plan)?;
    if let Some(reason) = refused {
        let site = Site { environment, loaded, desired: Vec::new(), commit };
        let mut step = fail(site, operation, ReasonCode::PlanRefused, reason)?;
        notes.append(&mut step.notes);
        return Ok(Step { notes, ..step });
    }
    let nothing_to_do = plan.changes.iter().all(|planned| planned.change == Change::NoChange);
    let status = if environment.status == ProvisioningStatus::Provisioned {
        ProvisioningStatus::Provisioned
    } else {
        ProvisioningStatus::Provisioning
    };
    let was_provisioned = environment.status == ProvisioningStatus::Provisioned;
    let mut environment = RuntimeEnvironment { plan_id: Some(plan.plan_id), status, ..environment };
    if nothing_to_do && was_provisioned {
        let detail =
            format!("Everything of `{}` is in place; nothing was changed.", environment.environment_id);
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
        commit.event(&operation.lineage, event)?;
        commit.put(&loaded, &environment)?;
        return Ok(Step { commit, label: VERIFYING, notes, then: Then::Succeeded(detail), outcome });
    }
    commit.put(&loaded, &environment)?;
    let label = if nothing_to_do { VERIFYING } else { APPLYING };
    Ok(Step { commit, label, notes, then: Then::Next, outcome: None })
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
async fn apply(platform: &Platform, operation: &Operation, site: Site) -> Result<Step, Fault> {
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
            Ok(Step { commit, label: APPLYING, notes, then: Then::Wait(again_in), outcome: None })
        }
        Advance::Done { progress } => {
            let mut notes = came_into_place(&recorded, &progress);
            notes.push(format!("all {} resources are in place", progress.done.len().max(before)));
            recorded.progress = progress;
            commit.put(&there, &recorded)?;
            Ok(Step { commit, label: VERIFYING, notes, then: Then::Next, outcome: None })
        }
        Advance::Failed { progress, key, reason } => {
            let mut notes = came_into_place(&recorded, &progress);
            recorded.progress = progress;
            commit.put(&there, &recorded)?;
            let site = Site { environment, loaded, desired, commit };
            let mut step = fail(site, operation, ReasonCode::ProvisioningFailed, format!("{key}: {reason}"))?;
            notes.append(&mut step.notes);
            Ok(Step { notes, ..step })
        }
        Advance::Moved { key } => {
            let site = Site { environment, loaded, desired, commit };
            let mut step = plan(platform, operation, site, recorded.generation + 1).await?;
            step.notes.insert(0, format!("`{key}` changed after the plan was made; planning anew"));
            Ok(step)
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
async fn verify(platform: &Platform, operation: &Operation, site: Site) -> Result<Step, Fault> {
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
    provisioned(platform, operation, site)
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
    let cause = Cause {
        tenant: &operation.lineage.tenant_id,
        environment: &operation.environment_id,
        function: "ContinueOperation",
        event_id: operation.operation_id.as_str(),
    };
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
        failure: Some(detail.clone()),
        ..environment
    };
    let event = Event::RuntimeCommandFailed(RuntimeCommandFailed {
        command_id: operation.lineage.command_id.clone(),
        command_type: operation.lineage.command_type.clone(),
        outcome: CommandOutcome::Failed,
        reason_code: code,
        detail: format!(
            "Provisioning `{}` failed: {detail}. What was made stays and is taken up by the next ProvisionEnvironment of the same name.",
            environment.environment_id
        ),
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
