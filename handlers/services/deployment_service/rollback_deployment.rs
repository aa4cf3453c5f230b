//! `RollbackDeployment`: go back to the last good deployment, by traffic and without a rebuild.
//!
//! Ends in `RuntimeDeploymentRolledBack`; in `RuntimeCommandCompleted` where there is nothing to roll
//! back any more; or in `RuntimeCommandFailed`.
//!
//! What it goes back to is the newest deployment of the same workload, older than the one that is
//! rolled back, that completed, passed its gate, and was itself neither rolled back nor quarantined.
//! The rollback of a deployment in flight ends that deployment.
//!
//! Redelivery is safe at every await: the command's own function only records.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{
    deploy::{environment_not_found, missing, taken_down},
    state::{Cancel, DeploymentStatus, RuntimeDeployment, Serving, Slot},
};
use crate::{
    delivery::{self, Command, Decision, Message, Refusal},
    events::{HealthGateResult, ReasonCode, RolledBackReason},
    ids::{DeploymentId, EnvironmentId, ModuleId},
    ledger::{Commit, Ledger, Loaded},
    operations::{self, Kind, NewOperation, Operation},
    outcome::Fault,
    platform::Platform,
    ports::store::{Filter, Page, Partition},
    services::{runtime_environment_service::ProvisioningStatus, tenant_runtime_isolation_service::Ground},
};

/// How long a rollback may take in all.
const ALLOWED: SignedDuration = SignedDuration::from_mins(30);
/// Pages of older deployments that are searched for one to go back to.
const PAGES_MAX: usize = 5;

/// The payload: a deployment, or the workload whose newest one is meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollbackDeployment {
    pub environment_id: String,
    #[serde(default)]
    pub deployment_id: Option<String>,
    #[serde(default)]
    pub module_id: Option<ModuleId>,
    /// Why, for whoever reads it later.
    pub reason: String,
}

#[async_trait::async_trait]
impl Command for RollbackDeployment {
    const NAME: &'static str = "RollbackDeployment";

    async fn environment(_: &Platform, message: &Message<Self>) -> Result<String, Fault> {
        Ok(delivery::partition_of(&message.envelope.payload.environment_id))
    }

    async fn decide(platform: &Platform, message: &Message<Self>) -> Result<Decision, Fault> {
        let wanted = match validate(&message.envelope.payload) {
            Ok(wanted) => wanted,
            Err(refusal) => return Ok(Decision::Refused(refusal)),
        };
        let partition = Partition::environment(&message.envelope.tenant_id, wanted.environment_id.as_str());
        let ground =
            Ground::find(&platform.ledger, &message.envelope.tenant_id, &wanted.environment_id).await?;
        let Some(ground) = ground else {
            return Ok(Decision::Refused(environment_not_found(&wanted.environment_id)));
        };
        let status = ground.environment().status;
        if matches!(status, ProvisioningStatus::Decommissioning | ProvisioningStatus::Decommissioned) {
            return Ok(Decision::Refused(taken_down(&wanted.environment_id, status)));
        }
        let scene = match look(platform, &partition, &wanted).await? {
            Ok(scene) => scene,
            Err(refusal) => return Ok(Decision::Refused(refusal)),
        };
        match decide(&scene) {
            Err(refusal) => Ok(Decision::Refused(refusal)),
            Ok(Course::Nothing(detail)) => {
                Ok(Decision::NoChange { commit: Commit::new(partition, message.now), detail })
            }
            Ok(Course::EndInFlight) => end_in_flight(platform, message, scene, partition).await,
            Ok(Course::GoBack(restore)) => go_back(message, scene, restore, partition),
        }
    }
}

struct Wanted {
    environment_id: EnvironmentId,
    subject: Subject,
}

enum Subject {
    Deployment(DeploymentId),
    Newest(ModuleId),
}

fn validate(payload: &RollbackDeployment) -> Result<Wanted, Refusal> {
    let invalid = |detail: String| Refusal::new(ReasonCode::InvalidPayload, detail);
    let environment_id = EnvironmentId::of_ours(&payload.environment_id)
        .map_err(|error| invalid(format!("payload.environmentId: {error}")))?;
    let subject = match (&payload.deployment_id, &payload.module_id) {
        (Some(id), None) => Subject::Deployment(
            DeploymentId::of_ours(id).map_err(|error| invalid(format!("payload.deploymentId: {error}")))?,
        ),
        (None, Some(module)) => Subject::Newest(module.clone()),
        (Some(_), Some(_)) => {
            return Err(invalid(
                "payload: deploymentId and moduleId are both given; give one of them".to_owned(),
            ));
        }
        (None, None) => {
            return Err(invalid("payload: deploymentId or moduleId is missing; name the deployment, or the workload whose newest one is meant".to_owned()));
        }
    };
    Ok(Wanted { environment_id, subject })
}

/// What the decision rests on.
struct Scene {
    deployment: RuntimeDeployment,
    loaded: Loaded<RuntimeDeployment>,
    slot: Slot,
    slot_loaded: Loaded<Slot>,
    /// Deployments of the workload, newest first.
    history: Vec<RuntimeDeployment>,
}

async fn look(
    platform: &Platform,
    partition: &Partition,
    wanted: &Wanted,
) -> Result<Result<Scene, Refusal>, Fault> {
    let ledger = &platform.ledger;
    let not_found = |what: String| Ok(Err(Refusal::new(ReasonCode::DeploymentNotFound, what)));
    let id = match &wanted.subject {
        Subject::Deployment(id) => id.clone(),
        Subject::Newest(module) => {
            let slot = ledger.load::<Slot>(partition, &Slot::id(module)).await?.state;
            match slot.and_then(|slot| slot.in_flight.or(slot.serving.map(|serving| serving.deployment_id))) {
                Some(id) => id,
                None => {
                    return not_found(format!(
                        "`{module}` has no deployment in `{}`; there is nothing to roll back.",
                        wanted.environment_id
                    ));
                }
            }
        }
    };
    let (deployment, loaded) = ledger.load::<RuntimeDeployment>(partition, id.as_str()).await?.take();
    let Some(deployment) = deployment else {
        return not_found(format!(
            "There is no deployment `{id}` in `{}`; `runtimectl get deployments` lists those there are.",
            wanted.environment_id
        ));
    };
    let (slot, slot_loaded) = ledger.load::<Slot>(partition, &Slot::id(&deployment.module_id)).await?.take();
    let slot = slot.ok_or_else(|| missing("the slot of the deployment"))?;
    let history = history(ledger, partition, &deployment.module_id).await?;
    Ok(Ok(Scene { deployment, loaded, slot, slot_loaded, history }))
}

/// Deployments of a workload, newest first, as far back as is looked.
pub(super) async fn history(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
) -> Result<Vec<RuntimeDeployment>, Fault> {
    let filter =
        Filter { equal: vec![("moduleId".to_owned(), module.to_string())], since: None, newest_first: true };
    let mut page = Page::first(100);
    let mut history = Vec::new();
    for _ in 0..PAGES_MAX {
        let listing = ledger.query::<RuntimeDeployment>(partition, &filter, &page).await?;
        history.extend(listing.items.into_iter().map(|(_, deployment)| deployment));
        match listing.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    Ok(history)
}

/// What is to be done.
#[derive(Debug, PartialEq)]
enum Course {
    Nothing(String),
    EndInFlight,
    GoBack(Serving),
}

fn decide(scene: &Scene) -> Result<Course, Refusal> {
    let Scene { deployment, slot, history, .. } = scene;
    let id = &deployment.deployment_id;
    match deployment.status {
        DeploymentStatus::RolledBack => Ok(Course::Nothing(format!("`{id}` was rolled back already."))),
        DeploymentStatus::RollingBack => Ok(Course::Nothing(format!("`{id}` is being rolled back already."))),
        DeploymentStatus::Failed => Err(Refusal::new(
            ReasonCode::NothingToRollBackTo,
            format!("`{id}` failed and serves nothing; there is nothing to roll back."),
        )),
        DeploymentStatus::Queued => Err(Refusal {
            code: ReasonCode::Conflict,
            detail: format!(
                "`{id}` still waits for its turn and has changed nothing. Send a newer Deploy to replace it, or roll it back once it has begun."
            ),
            retryable: true,
        }),
        DeploymentStatus::Requested
        | DeploymentStatus::Provisioning
        | DeploymentStatus::Configuring
        | DeploymentStatus::RollingOut
        | DeploymentStatus::HealthGating
        | DeploymentStatus::Promoting => Ok(if deployment.cancel.is_some() {
            Course::Nothing(format!("`{id}` is being ended already."))
        } else {
            Course::EndInFlight
        }),
        DeploymentStatus::Completed => {
            if let Some(other) = slot.in_flight.as_ref().filter(|other| *other != id) {
                return Err(Refusal {
                    code: ReasonCode::Conflict,
                    detail: format!(
                        "`{other}` of the same workload is in flight. Wait for its end, or roll that one back."
                    ),
                    retryable: true,
                });
            }
            if slot.serving.as_ref().map(|serving| &serving.deployment_id) != Some(id) {
                return Err(Refusal::new(
                    ReasonCode::Conflict,
                    format!(
                        "`{id}` does not serve any more; roll back the deployment that does, or leave deploymentId out and give moduleId."
                    ),
                ));
            }
            target(deployment, slot, history).map(Course::GoBack).ok_or_else(|| {
                Refusal::new(
                    ReasonCode::NothingToRollBackTo,
                    format!("Before `{id}` no deployment of `{}` completed with a passed gate and is still good; deploy a good version instead.", deployment.module_id),
                )
            })
        }
    }
}

/// The newest older deployment that is known to be good.
pub(super) fn target(
    deployment: &RuntimeDeployment,
    slot: &Slot,
    newest_first: &[RuntimeDeployment],
) -> Option<Serving> {
    newest_first
        .iter()
        .filter(|older| {
            older.requested_at < deployment.requested_at && older.deployment_id != deployment.deployment_id
        })
        .filter(|older| older.status == DeploymentStatus::Completed)
        .filter(|older| older.gate_result == Some(HealthGateResult::Passed))
        .filter(|older| slot.kept_out(older).is_none())
        .find_map(RuntimeDeployment::as_serving)
}

async fn end_in_flight(
    platform: &Platform,
    message: &Message<RollbackDeployment>,
    scene: Scene,
    partition: Partition,
) -> Result<Decision, Fault> {
    let Scene { deployment, loaded, .. } = scene;
    let operation_id = deployment.operation_id.clone();
    let operation = platform.ledger.load::<Operation>(&partition, operation_id.as_str()).await?.state;
    let operation = operation.ok_or_else(|| missing(operation_id.as_str()))?;
    let mut commit = Commit::new(partition, message.now);
    let by = message.envelope.event_id.to_string();
    operations::nudge(&mut commit, &operation, &by)?;
    let rollback = Some(message.lineage());
    let cancel = Cancel { reason: RolledBackReason::Operator, by, rollback, at: message.now };
    let reason = Some(message.envelope.payload.reason.clone());
    commit.put(&loaded, &RuntimeDeployment { cancel: Some(cancel), reason, ..deployment })?;
    Ok(Decision::Accepted { commit, operation_id: Some(operation_id) })
}

fn go_back(
    message: &Message<RollbackDeployment>,
    scene: Scene,
    restore: Serving,
    partition: Partition,
) -> Result<Decision, Fault> {
    let Scene { deployment, loaded, slot, slot_loaded, .. } = scene;
    let mut commit = Commit::new(partition, message.now);
    let operation_id = message.cause(&commit.partition.environment_id).operation(0);
    let mut lineage = message.lineage();
    lineage.module_id = Some(deployment.module_id.clone());
    let by = message.envelope.event_id.to_string();
    operations::begin(
        &mut commit,
        NewOperation {
            id: operation_id.clone(),
            kind: Kind::Rollback,
            module_id: Some(deployment.module_id.to_string()),
            subject: deployment.deployment_id.to_string(),
            step: DeploymentStatus::RollingBack.as_str(),
            lineage,
            caused_by: by.clone(),
            allowed: ALLOWED,
            starts: true,
        },
    )?;
    let slot = Slot { in_flight: Some(deployment.deployment_id.clone()), ..slot };
    commit.put(&slot_loaded, &slot)?;
    let deployment = RuntimeDeployment {
        status: DeploymentStatus::RollingBack,
        cancel: Some(Cancel { reason: RolledBackReason::Operator, by, rollback: None, at: message.now }),
        rolled_back_reason: Some(RolledBackReason::Operator),
        restore: Some(restore),
        reason: Some(message.envelope.payload.reason.clone()),
        pending: None,
        operation_id: operation_id.clone(),
        ..deployment
    };
    commit.put(&loaded, &deployment)?;
    Ok(Decision::Accepted { commit, operation_id: Some(operation_id) })
}
