//! `RemediateDrift`: put right what is not as desired.
//!
//! A workload is rolled out once more as it is recorded (a *corrective deployment*), which brings back
//! its image, settings, bounds and traffic, or the whole app; it ends in `RuntimeDeploymentCompleted`.
//! The environment's own resources are applied by the engine, which ends in `RuntimeDriftResolved`.
//! Where nothing is left to do, or what is desired has moved on, it ends in `RuntimeCommandCompleted`;
//! in `RuntimeCommandFailed` where it is held, in quarantine, or not the platform's to put right.
//!
//! Redelivery is safe at every await: the command's own function only records, and what it records is
//! found by the same ids when the message comes again.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{
    deploy::environment_not_found,
    refresh::{self, Refresh, Wish},
    state::{Origin, RuntimeDeployment, Slot},
    workloads,
};
use crate::{
    delivery::{self, Command, Decision, Message, Refusal},
    envelope::whole_seconds,
    events::{DriftKind, ReasonCode},
    holds::{self, Hold},
    ids::{DriftFindingId, EnvironmentId, ModuleId},
    ledger::Commit,
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
    services::{
        runtime_drift_detection_service::{
            self, FindingStatus, RuntimeDriftFinding,
            remediation::{self, Begun},
        },
        runtime_environment_service,
        tenant_runtime_isolation_service::Ground,
    },
};

/// The payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemediateDrift {
    pub environment_id: String,
    pub finding_id: String,
    pub mode: Mode,
}

/// Who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The platform, where its policy allows.
    Auto,
    /// A person.
    Manual,
}

/// How long applying the environment's resources may take.
const ALLOWED: SignedDuration = SignedDuration::from_mins(60);

#[async_trait::async_trait]
impl Command for RemediateDrift {
    const NAME: &'static str = remediation::COMMAND;

    async fn environment(_: &Platform, message: &Message<Self>) -> Result<String, Fault> {
        Ok(delivery::partition_of(&message.envelope.payload.environment_id))
    }

    async fn decide(platform: &Platform, message: &Message<Self>) -> Result<Decision, Fault> {
        let (environment, id) = match validate(&message.envelope.payload) {
            Ok(wanted) => wanted,
            Err(refusal) => return Ok(Decision::Refused(refusal)),
        };
        let (ledger, tenant) = (&platform.ledger, &message.envelope.tenant_id);
        let partition = Partition::environment(tenant, environment.as_str());
        let Some(ground) = Ground::find(ledger, tenant, &environment).await? else {
            return Ok(Decision::Refused(environment_not_found(&environment)));
        };
        let Some(finding) = runtime_drift_detection_service::find(ledger, &partition, &id).await? else {
            return Ok(Decision::Refused(finding_not_found(&id)));
        };
        let hold = holds::held(ledger, &partition, finding.module_id.as_ref(), message.now).await?;
        let mode = message.envelope.payload.mode;
        match judge(&finding, mode, hold.as_ref()) {
            Err(refusal) => return Ok(Decision::Refused(refusal)),
            Ok(Course::Nothing(detail)) => return Ok(no_change(message, partition, detail)),
            Ok(Course::PutRight) => {}
        }
        match finding.module_id.clone() {
            Some(module) => redeploy(platform, message, partition, &finding, &module).await,
            None => apply(platform, message, partition, &finding, &ground).await,
        }
    }
}

fn validate(payload: &RemediateDrift) -> Result<(EnvironmentId, DriftFindingId), Refusal> {
    let invalid = |field: &str, error: crate::ids::IdError| {
        let detail = format!(
            "payload.{field} {error}. `runtimectl get drift` lists the findings with their environments."
        );
        Refusal::new(ReasonCode::InvalidPayload, detail)
    };
    let environment =
        EnvironmentId::of_ours(&payload.environment_id).map_err(|error| invalid("environmentId", error))?;
    let finding =
        DriftFindingId::of_ours(&payload.finding_id).map_err(|error| invalid("findingId", error))?;
    Ok((environment, finding))
}

fn finding_not_found(id: &DriftFindingId) -> Refusal {
    Refusal::new(
        ReasonCode::DriftFindingNotFound,
        format!(
            "There is no finding `{id}` in this environment; `runtimectl get drift` lists those there are."
        ),
    )
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
enum Course {
    Nothing(String),
    PutRight,
}

/// Judges a finding by itself, before the workload is looked at.
fn judge(finding: &RuntimeDriftFinding, mode: Mode, hold: Option<&Hold>) -> Result<Course, Refusal> {
    let id = &finding.finding_id;
    let conflict = |detail: String| Err(Refusal { code: ReasonCode::Conflict, detail, retryable: true });
    match finding.status {
        FindingStatus::Resolved => {
            let when = finding.resolved_at.map(whole_seconds::text).unwrap_or_default();
            return Ok(Course::Nothing(format!(
                "`{id}` is over since {when}: nothing is left to put right."
            )));
        }
        FindingStatus::Suspected => {
            return conflict(format!(
                "`{id}` was seen once and is not certain yet. The next look, within minutes, confirms or drops it; send the command again then."
            ));
        }
        FindingStatus::Suppressed => {
            return conflict(format!(
                "`{id}` is suppressed by `{}`: it was to be left alone. Send the command again when the suppression has expired.",
                finding.suppressed_by.as_deref().unwrap_or("a suppression")
            ));
        }
        FindingStatus::Open | FindingStatus::Remediating | FindingStatus::Contested => {}
    }
    if let Some(hold) = hold {
        return conflict(format!(
            "`{id}` is not put right: {}. Release the hold, or send the command again when it is over.",
            hold.sentence()
        ));
    }
    if finding.kind == DriftKind::UnexpectedWorkload {
        return Err(Refusal::new(
            ReasonCode::NotSupported,
            format!(
                "`{}` was not made by the platform, which deletes nothing that it did not make. Delete it, or suppress the finding `{id}`.",
                finding.resource_id
            ),
        ));
    }
    if finding.destructive {
        return Err(Refusal::new(
            ReasonCode::PlanRefused,
            format!(
                "Putting `{id}` right would replace `{}`, which may hold data. Change it back by hand.",
                finding.resource_id
            ),
        ));
    }
    if mode == Mode::Auto && !finding.auto_remediable {
        return conflict(format!(
            "`{id}` waits for a person: {} Send RemediateDrift with the mode `Manual` to put it right.",
            finding.waits.as_deref().unwrap_or("its policy allows no automatic remediation.")
        ));
    }
    Ok(Course::PutRight)
}

fn no_change(message: &Message<RemediateDrift>, partition: Partition, detail: String) -> Decision {
    Decision::NoChange { commit: Commit::new(partition, message.now), detail }
}

fn begun(mode: Mode) -> Begun {
    match mode {
        Mode::Auto => Begun::Automatically,
        Mode::Manual => Begun::ByAPerson,
    }
}

/// A workload is rolled out once more.
async fn redeploy(
    platform: &Platform,
    message: &Message<RemediateDrift>,
    partition: Partition,
    finding: &RuntimeDriftFinding,
    module: &ModuleId,
) -> Result<Decision, Fault> {
    let ledger = &platform.ledger;
    let Some(running) = workloads::running_one(ledger, &partition, module).await? else {
        let detail = format!("Nothing of `{module}` is desired any more: nothing is left to put right.");
        return Ok(no_change(message, partition, detail));
    };
    if running.in_flight {
        let detail = format!(
            "A deployment of `{module}` is in flight and rolls out what is desired; what is left of `{}` is seen after it.",
            finding.finding_id
        );
        return Ok(no_change(message, partition, detail));
    }
    let serves = &running.deployment;
    if finding.desired_deployment_id.as_ref() != Some(&serves.deployment_id) {
        let detail = format!(
            "`{}` serves by now and was not what `{}` was found against; the next look tells whether it drifts too.",
            serves.deployment_id, finding.finding_id
        );
        return Ok(no_change(message, partition, detail));
    }
    let slot = ledger.load::<Slot>(&partition, &Slot::id(module)).await?.state;
    if let Some(refusal) = slot.and_then(|slot| quarantined(&slot, serves)) {
        return Ok(Decision::Refused(refusal));
    }
    let mut commit = Commit::new(partition, message.now);
    let wish = Wish {
        origin: Origin::Drift,
        lineage: message.lineage(),
        caused_by: message.envelope.event_id.to_string(),
        wished_at: message.now,
    };
    let operation_of = refresh::operation_of(&commit.partition, module, &wish);
    let Refresh::Began(deployment) = refresh::refresh(ledger, &mut commit, module, wish).await? else {
        let detail = format!("Another deployment of `{module}` begins; what is left is seen after it.");
        return Ok(no_change(message, commit.partition, detail));
    };
    let operation_id = operation_of(&deployment);
    let by = begun(message.envelope.payload.mode);
    remediation::begin(ledger, &mut commit, &finding.finding_id, by, Some(deployment), operation_id.clone())
        .await?;
    Ok(Decision::Accepted { commit, operation_id })
}

/// What is recorded is kept out by now: rolling it out again would bring it back.
fn quarantined(slot: &Slot, serves: &RuntimeDeployment) -> Option<Refusal> {
    let entry = slot.kept_out(serves)?;
    Some(Refusal::new(ReasonCode::Quarantined, entry.sentence(&serves.workload.image)))
}

/// The environment's resources are applied.
async fn apply(
    platform: &Platform,
    message: &Message<RemediateDrift>,
    partition: Partition,
    finding: &RuntimeDriftFinding,
    ground: &Ground,
) -> Result<Decision, Fault> {
    let Ground::Own { environment, .. } = ground else {
        return Ok(Decision::Refused(Refusal::new(
            ReasonCode::NotSupported,
            format!(
                "`{}` is about another tenant's environment; its owner puts it right.",
                finding.finding_id
            ),
        )));
    };
    if let Some(operation) = &environment.environment.operation_id {
        let detail = format!(
            "`{operation}` applies the environment's resources already; what is left of `{}` is seen after it.",
            finding.finding_id
        );
        return Ok(no_change(message, partition, detail));
    }
    let mut commit = Commit::new(partition, message.now);
    let operation_id = message.cause(&commit.partition.environment_id).operation(0);
    runtime_environment_service::begin_remediation(
        &mut commit,
        environment,
        operation_id.clone(),
        finding.finding_id.as_str(),
        (message.lineage(), message.envelope.event_id.as_str()),
        ALLOWED,
    )?;
    let by = begun(message.envelope.payload.mode);
    let operation = Some(operation_id.clone());
    remediation::begin(&platform.ledger, &mut commit, &finding.finding_id, by, None, operation).await?;
    Ok(Decision::Accepted { commit, operation_id: Some(operation_id) })
}
