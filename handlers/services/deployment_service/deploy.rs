//! `Deploy`: roll a workload out behind a health gate.
//!
//! Ends in `RuntimeDeploymentCompleted`; in `RuntimeDeploymentRolledBack` when the gate fails, or
//! when it is superseded or rolled back on the way; or in `RuntimeCommandFailed`.
//!
//! Redelivery is safe at every await: the command's own function only records, and what it records is
//! found by the same ids when the message comes again.
//!
//! # What supersedes what
//! One deployment is in flight per (environment, module). A newer Deploy waits, `Queued`, and finds out
//! meanwhile which image it brings. Once it is known that this may run here
//! - it is the one pending deployment, and replaces an older one that waited, which ends in
//!   `RuntimeCommandFailed`, `Superseded`;
//! - it supersedes the one in flight as long as no traffic was meant for that: the older one ends as
//!   rolled back, reason `Superseded`, and the newer one begins when the older has compensated. One whose
//!   traffic has begun to shift is waited for.
//!
//! So a Deploy of an image that is not there, or is in quarantine, ends nobody else's.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{
    beginning::Waiting,
    quota,
    state::{DeploymentStatus, Origin, RuntimeDeployment, Slot, Workload, app_name_of_tenant},
};
use crate::{
    delivery::{self, Command, Decision, Message, Refusal},
    events::{Event, ReasonCode, RuntimeDeploymentRequested, Strategy},
    ids::{DeploymentId, EnvironmentId, OperationId},
    ledger::{Commit, Loaded, NewEvent},
    operations::{self, Kind, NewOperation},
    outcome::Fault,
    platform::Platform,
    ports::{registry::ImageReference, store::Partition},
    services::{
        runtime_configuration_service::{self, Unavailable},
        runtime_environment_service::{ProvisioningStatus, RuntimeEnvironment, resources::Stage},
        runtime_health_service::health_gate::HealthGate,
        runtime_scaling_service,
        tenant_runtime_isolation_service::Ground,
    },
};

/// How long a deployment may take in all, from the start of its turn.
pub const ALLOWED: SignedDuration = SignedDuration::from_hours(2);
/// Deployments of one workload that may find out at one time which image they bring, while another
/// waits; a newer one takes the oldest's place.
const ARRIVING_MAX: usize = 4;
/// Deployments whose ids may share eight digits.
const ORDINALS_MAX: u32 = 8;

/// The payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deploy {
    pub environment_id: String,
    /// The release that the images belong to.
    #[serde(default)]
    pub release_ref: Option<String>,
    #[serde(default)]
    pub strategy: Option<Strategy>,
    #[serde(default)]
    pub health_gate: Option<HealthGate>,
    /// A version that PublishConfiguration made: the revision starts with it, or with a newer one
    /// that the workload has by then.
    #[serde(default)]
    pub configuration_version: Option<u64>,
    /// Exactly one, until releases of several workloads exist.
    pub workloads: Vec<Workload>,
}

#[async_trait::async_trait]
impl Command for Deploy {
    const NAME: &'static str = "Deploy";

    async fn environment(_: &Platform, message: &Message<Self>) -> Result<String, Fault> {
        Ok(delivery::partition_of(&message.envelope.payload.environment_id))
    }

    async fn decide(platform: &Platform, message: &Message<Self>) -> Result<Decision, Fault> {
        let wanted = match validate(&message.envelope.payload) {
            Ok(wanted) => wanted,
            Err(refusal) => return Ok(Decision::Refused(refusal)),
        };
        let partition = Partition::environment(&message.envelope.tenant_id, wanted.environment_id.as_str());
        let tenant = &message.envelope.tenant_id;
        let ground = Ground::find(&platform.ledger, tenant, &wanted.environment_id).await?;
        let ground = match accepts(&wanted.environment_id, ground, wanted.workload) {
            Ok(ground) => ground,
            Err(refusal) => return Ok(Decision::Refused(refusal)),
        };
        if let Some(limits) = ground.quota() {
            let used = quota::usage(&platform.ledger, &partition, Some(&wanted.workload.module_id)).await?;
            // A policy that the workload has says how many replicas it may have.
            let module = &wanted.workload.module_id;
            let scaling = runtime_scaling_service::entry(&platform.ledger, &partition, module).await?;
            let max_replicas = scaling.map_or(wanted.workload.max_replicas, |it| it.max_replicas);
            let workload = Workload { max_replicas, ..wanted.workload.clone() };
            if let Err(refusal) = quota::within(limits, used, &workload) {
                return Ok(Decision::Refused(refusal));
            }
        }
        if let Some(number) = message.envelope.payload.configuration_version {
            let module = &wanted.workload.module_id;
            let available =
                runtime_configuration_service::available(&platform.ledger, &partition, module, number)
                    .await?;
            if let Err(unavailable) = available {
                let slot = platform.ledger.load::<Slot>(&partition, &Slot::id(module)).await?.state;
                return Ok(Decision::Refused(no_configuration(number, unavailable, slot.as_ref())));
            }
        }
        let place = place(platform, message, &partition, wanted.workload).await?;
        record(message, &wanted, &ground, place, partition)
    }
}

/// A payload that was looked through.
struct Wanted<'a> {
    environment_id: EnvironmentId,
    workload: &'a Workload,
    strategy: Strategy,
    health_gate: HealthGate,
}

fn invalid(field: &str, what: impl std::fmt::Display) -> Refusal {
    Refusal::new(ReasonCode::InvalidPayload, format!("payload.{field}: {what}"))
}

fn validate(deploy: &Deploy) -> Result<Wanted<'_>, Refusal> {
    let environment_id =
        EnvironmentId::of_ours(&deploy.environment_id).map_err(|error| invalid("environmentId", error))?;
    let [workload] = deploy.workloads.as_slice() else {
        return Err(Refusal::new(
            ReasonCode::NotSupported,
            format!(
                "payload.workloads: {} were given; exactly one is taken. Send one Deploy for each.",
                deploy.workloads.len()
            ),
        ));
    };
    if deploy.strategy == Some(Strategy::Recreate) {
        return Err(Refusal::new(
            ReasonCode::NotSupported,
            "payload.strategy: `Recreate` would stop what serves before the new one is known to work; use `RollingHealthGated`, `BlueGreen` or `Canary`.",
        ));
    }
    validate_workload(workload)?;
    let mut health_gate = deploy.health_gate.clone().unwrap_or_default();
    if let Some(path) = &workload.probe_path {
        health_gate.path.clone_from(path);
    }
    health_gate.validate().map_err(|problems| {
        let told = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Refusal::new(ReasonCode::InvalidPayload, format!("payload: {told}"))
    })?;
    Ok(Wanted {
        environment_id,
        workload,
        strategy: deploy.strategy.unwrap_or(Strategy::RollingHealthGated),
        health_gate,
    })
}

fn validate_workload(workload: &Workload) -> Result<(), Refusal> {
    let field = |name: &str| format!("workloads[0].{name}");
    if let Err(problem) = ImageReference::parse(&workload.image) {
        return Err(invalid(&field("image"), problem));
    }
    if workload.target != "container-apps" {
        return Err(Refusal::new(
            ReasonCode::NotSupported,
            format!(
                "payload.{}: `{}` is no target that can be deployed to yet; use `container-apps`.",
                field("target"),
                workload.target
            ),
        ));
    }
    if workload.port == 0 {
        return Err(invalid(&field("port"), "0 is no port; name the one that the container listens on"));
    }
    if workload.max_replicas == 0
        || workload.min_replicas > workload.max_replicas
        || workload.max_replicas > 1000
    {
        return Err(invalid(
            &field("maxReplicas"),
            format!(
                "{} to {} replicas are asked for; the most is 1 to 1000 and no less than minReplicas",
                workload.min_replicas, workload.max_replicas
            ),
        ));
    }
    if !(workload.cpu > 0.0 && workload.cpu <= 16.0) {
        return Err(invalid(
            &field("cpu"),
            format!("{} cores; it is more than 0 and at most 16", workload.cpu),
        ));
    }
    let name_is_good = |name: &String| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !name.starts_with(|first: char| first.is_ascii_digit())
    };
    match workload.env.keys().find(|name| !name_is_good(name) || name.starts_with("CS_")) {
        Some(name) => Err(invalid(
            &field("env"),
            format!(
                "`{name}` cannot be set; names are letters, digits and `_`, and those with `CS_` are the platform's"
            ),
        )),
        None => Ok(()),
    }
}

/// Whether the environment takes this workload.
fn accepts(id: &EnvironmentId, ground: Option<Ground>, workload: &Workload) -> Result<Ground, Refusal> {
    let Some(ground) = ground else { return Err(environment_not_found(id)) };
    let RuntimeEnvironment { status, stage, .. } = ground.environment();
    if matches!(status, ProvisioningStatus::Decommissioning | ProvisioningStatus::Decommissioned) {
        return Err(taken_down(id, *status));
    }
    if *status != ProvisioningStatus::Provisioned {
        return Err(Refusal {
            code: ReasonCode::EnvironmentNotProvisioned,
            detail: format!(
                "`{id}` is {status:?}; deployments are taken once it is Provisioned. Wait for RuntimeEnvironmentProvisioned, or see its operation for what holds it up."
            ),
            retryable: true,
        });
    }
    if *stage == Stage::Prod && ground.binding().is_none() {
        return Err(Refusal::new(
            ReasonCode::TenantBindingMissing,
            format!(
                "`{id}` is a prod environment without a tenant binding; send BindTenant before its first Deploy."
            ),
        ));
    }
    if ground.target(&workload.target).is_none() {
        return Err(Refusal::new(
            ReasonCode::NotSupported,
            format!("`{id}` was provisioned without the target `{}`.", workload.target),
        ));
    }
    Ok(ground)
}

/// A version that the workload cannot be started with.
fn no_configuration(number: u64, why: Unavailable, slot: Option<&Slot>) -> Refusal {
    let entry = slot.and_then(|slot| slot.configuration_kept_out(number));
    if let (Unavailable::Failed, Some(entry)) = (why, entry) {
        return Refusal::new(
            ReasonCode::Quarantined,
            format!("payload.configurationVersion: {}", entry.sentence(&entry.image)),
        );
    }
    let (code, what) = match why {
        Unavailable::Unknown => (
            ReasonCode::InvalidPayload,
            "was never published; `runtimectl get configurations` lists those there are".to_owned(),
        ),
        Unavailable::Older(newer) => (
            ReasonCode::Conflict,
            format!(
                "is older than version {newer}, which the workload has; leave the field out, or name that one"
            ),
        ),
        Unavailable::Failed => (
            ReasonCode::Quarantined,
            "failed its health gate at this workload; publish a corrected version".to_owned(),
        ),
    };
    Refusal::new(code, format!("payload.configurationVersion: version {number} {what}."))
}

/// What is said of an environment that is going, or gone.
pub(super) fn taken_down(id: &EnvironmentId, status: ProvisioningStatus) -> Refusal {
    Refusal::new(
        ReasonCode::EnvironmentNotProvisioned,
        format!("`{id}` is {status:?} and takes nothing any more; use another environment."),
    )
}

/// What is said of an environment that is not there, or is another tenant's: the two are not told
/// apart.
pub fn environment_not_found(id: &EnvironmentId) -> Refusal {
    Refusal::new(
        ReasonCode::EnvironmentNotFound,
        format!(
            "There is no environment `{id}`. Send ProvisionEnvironment first, or correct payload.environmentId; `runtimectl get environments` lists those there are."
        ),
    )
}

/// The workload's slot and whoever stands in it.
struct Place {
    slot: Slot,
    slot_loaded: Loaded<Slot>,
    /// The oldest of those that arrive, where there are as many as may.
    too_many: Option<Waiting>,
    deployment_id: DeploymentId,
    deployment_loaded: Loaded<RuntimeDeployment>,
    operation_id: OperationId,
}

async fn place(
    platform: &Platform,
    message: &Message<Deploy>,
    partition: &Partition,
    workload: &Workload,
) -> Result<Place, Fault> {
    let ledger = &platform.ledger;
    let (slot, slot_loaded) = ledger.load::<Slot>(partition, &Slot::id(&workload.module_id)).await?.take();
    let slot = slot.unwrap_or_else(|| Slot::new(workload.module_id.clone(), message.now));
    let too_many = match slot.arriving.first().filter(|_| slot.arriving.len() >= ARRIVING_MAX) {
        Some(oldest) => Some(Waiting::load(ledger, partition, oldest).await?),
        None => None,
    };
    let (ordinal, deployment_id, deployment_loaded) = free_id(platform, message, partition).await?;
    let operation_id = message.cause(&partition.environment_id).operation(ordinal);
    Ok(Place { slot, slot_loaded, too_many, deployment_id, deployment_loaded, operation_id })
}

/// The first id that no other deployment has.
async fn free_id(
    platform: &Platform,
    message: &Message<Deploy>,
    partition: &Partition,
) -> Result<(u32, DeploymentId, Loaded<RuntimeDeployment>), Fault> {
    for ordinal in 0..ORDINALS_MAX {
        let id = message.cause(&partition.environment_id).deployment(ordinal);
        let loaded = platform.ledger.load::<RuntimeDeployment>(partition, id.as_str()).await?;
        if loaded.state.is_none() {
            return Ok((ordinal, id, loaded));
        }
    }
    Err(Fault::Rejected {
        doing: "finding an id for the deployment".to_owned(),
        code: "Conflict".to_owned(),
        detail: format!("{ORDINALS_MAX} other deployments have the ids that this one could have"),
    })
}

pub(super) fn missing(id: &str) -> Fault {
    Fault::Unreadable {
        doing: format!("reading `{id}`"),
        source: "a document that another one names is missing".into(),
    }
}

/// Writes the decision: the deployment, its operation, its place, and what becomes of those who were
/// there before.
fn record(
    message: &Message<Deploy>,
    wanted: &Wanted<'_>,
    ground: &Ground,
    place: Place,
    partition: Partition,
) -> Result<Decision, Fault> {
    let mut commit = Commit::new(partition, message.now);
    let Place { mut slot, slot_loaded, too_many, deployment_id, deployment_loaded, operation_id } = place;
    let waits = slot.in_flight.is_some();
    let event_id = message.envelope.event_id.to_string();
    if let Some(replaced) = too_many {
        slot.arriving.retain(|arriving| *arriving != replaced.deployment.deployment_id);
        let id = message.cause(&commit.partition.environment_id).event("RuntimeCommandFailed", 1);
        replaced.replace(&mut commit, &deployment_id, id, &event_id)?;
    }
    let compute_target =
        ground.target(&wanted.workload.target).cloned().ok_or_else(|| missing(&wanted.workload.target))?;
    let mut lineage = message.lineage();
    lineage.module_id.get_or_insert_with(|| wanted.workload.module_id.clone());
    let requested = message.cause(&commit.partition.environment_id).event("RuntimeDeploymentRequested", 0);
    let deployment = RuntimeDeployment {
        deployment_id: deployment_id.clone(),
        origin: Origin::Deploy,
        environment_id: wanted.environment_id.clone(),
        module_id: wanted.workload.module_id.clone(),
        workload: wanted.workload.clone(),
        image_digest: None,
        compute_target,
        app: ground.prefix().map(|prefix| app_name_of_tenant(&prefix, &wanted.workload.module_id)),
        strategy: wanted.strategy,
        release_ref: message.envelope.payload.release_ref.clone(),
        health_gate: wanted.health_gate.clone(),
        configuration_version: message.envelope.payload.configuration_version,
        configuration: None,
        secrets: Vec::new(),
        scaling: None,
        held_back: false,
        status: if waits { DeploymentStatus::Queued } else { DeploymentStatus::Requested },
        previous: slot.serving.clone(),
        revision: None,
        host: None,
        weight: 0,
        weight_in_place: 0,
        shifted_at: None,
        gate_started_at: None,
        failures_in_a_row: 0,
        pending: None,
        cancel: None,
        suffix: None,
        restore: None,
        rolled_back_reason: None,
        gate_result: None,
        application_failed: false,
        reason: None,
        operation_id: operation_id.clone(),
        lineage: lineage.clone(),
        requested_event_id: requested.to_string(),
        completed_event_id: None,
        sequence: 1,
        requested_at: message.now,
        configured_at: None,
        ended_at: None,
        retired_at: None,
    };
    commit.event(
        &lineage,
        NewEvent {
            id: requested,
            event: Event::RuntimeDeploymentRequested(RuntimeDeploymentRequested {
                deployment_id: deployment_id.clone(),
                environment_id: wanted.environment_id.clone(),
                target: wanted.workload.target.clone(),
                image: wanted.workload.image.clone(),
                previous_image: slot.serving.as_ref().map(|serving| serving.image.clone()),
                strategy: wanted.strategy,
                release_ref: deployment.release_ref.clone(),
            }),
            aggregate: deployment_id.to_string(),
            sequence: 1,
            caused_by: event_id.clone(),
        },
    )?;
    operations::begin(
        &mut commit,
        NewOperation {
            id: operation_id.clone(),
            kind: Kind::Deploy,
            module_id: Some(wanted.workload.module_id.to_string()),
            subject: deployment_id.to_string(),
            step: deployment.status.as_str(),
            lineage,
            caused_by: event_id,
            allowed: ALLOWED,
            // One that waits finds out meanwhile which image it is, and whether it may run.
            starts: true,
        },
    )?;
    commit.put(&deployment_loaded, &deployment)?;
    if !waits {
        slot.in_flight = Some(deployment_id);
    } else if slot.pending.is_none() {
        slot.pending = Some(deployment_id);
    } else {
        slot.arriving.push(deployment_id);
    }
    commit.put(&slot_loaded, &slot)?;
    ground.guard(&mut commit)?;
    Ok(Decision::Accepted { commit, operation_id: Some(operation_id) })
}
