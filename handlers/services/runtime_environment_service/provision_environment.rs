//! `ProvisionEnvironment`: stand an environment up, by a plan that can be read before it is applied.
//!
//! Ends in `RuntimeEnvironmentProvisioned`; in `RuntimeCommandCompleted` where everything is in place
//! already; or in `RuntimeCommandFailed`.
//!
//! Redelivery is safe at every await: the command's own function only records. The steps that follow
//! are in `provisioning.rs`.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{
    provisioning::PLANNING,
    resources::{IsolationModel, Stage, TargetKind},
    state::{ProvisioningStatus, RuntimeEnvironment},
};
use crate::{
    delivery::{Command, Decision, Message, Refusal},
    events::ReasonCode,
    ids::{EnvironmentId, ProjectId},
    ledger::{Commit, Loaded},
    operations::{self, Kind, NewOperation},
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
};

/// How long provisioning may take in all; a Container Apps environment alone takes up to 45 minutes.
const ALLOWED: SignedDuration = SignedDuration::from_hours(2);
/// Environments whose ids may share eight digits.
const ORDINALS_MAX: u32 = 8;
/// The longest name of an environment, in characters: it becomes part of resource names.
const NAME_LENGTH_MAX: usize = 32;

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
            provisioned_by: None,
            decommissioned_at: None,
            provisioned_event_id: None,
            decommission_orders: 0,
            left_behind: Vec::new(),
            failure: None,
            parts: Vec::new(),
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
    let gone = match existing.status {
        ProvisioningStatus::Decommissioning => Some("is being decommissioned"),
        ProvisioningStatus::Decommissioned => Some("was decommissioned"),
        ProvisioningStatus::Requested
        | ProvisioningStatus::Provisioning
        | ProvisioningStatus::Provisioned
        | ProvisioningStatus::Failed => None,
    };
    if let Some(gone) = gone {
        // Its resources' names derive from its own, and Azure keeps that of its vault for months.
        let detail = format!("`{id}` {gone}. Choose another name for a new environment.");
        return Err(Refusal::new(ReasonCode::Conflict, detail));
    }
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
        ProvisioningStatus::Requested
        | ProvisioningStatus::Provisioning
        | ProvisioningStatus::Failed
        | ProvisioningStatus::Decommissioning
        | ProvisioningStatus::Decommissioned => Ok(RuntimeEnvironment {
            stage: wanted.stage,
            region: wanted.region.clone(),
            isolation_model: wanted.isolation_model.unwrap_or(existing.isolation_model),
            compute_targets: wanted.compute_targets.clone(),
            status: ProvisioningStatus::Requested,
            failure: None,
            ..existing
        }),
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
