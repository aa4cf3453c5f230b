//! Orders to put a finding right, and what becomes of the finding on the way.

use serde_json::json;

use super::{
    findings::{self, Told},
    policy,
    state::{DriftIndex, FindingStatus, RuntimeDriftFinding},
};
use crate::{
    envelope::Envelope,
    events::{self, DriftResolution, Event, RuntimeDriftDetected, RuntimeDriftResolved},
    ids::{Cause, DeploymentId, DriftFindingId, EventId, OperationId, TenantId},
    ledger::{Commit, Ledger, Lineage, NewEvent, OutboxMessage},
    outcome::Fault,
};

/// The command that puts a finding right.
pub const COMMAND: &str = "RemediateDrift";

/// Records the order to put a finding right, on the queue of its command. `number` tells orders for one
/// finding apart; `caused_by` is the eventId of what led to it.
///
/// # Errors
/// When it cannot be written.
pub fn order(
    commit: &mut Commit,
    finding: &RuntimeDriftFinding,
    number: &str,
    caused_by: &str,
) -> Result<(), Fault> {
    let lineage = &finding.lineage;
    let cause = cause(&lineage.tenant_id, finding, number);
    let event_id = cause.event(COMMAND, 0);
    let envelope = Envelope {
        event_id: event_id.clone(),
        event_type: COMMAND.to_owned(),
        tenant_id: lineage.tenant_id.clone(),
        project_id: lineage.project_id.clone(),
        module_id: finding.module_id.clone(),
        trace_id: lineage.trace_id.clone(),
        correlation_id: lineage.correlation_id.clone(),
        causation_id: Some(caused_by.to_owned()),
        occurred_at: commit.now,
        payload: json!({
            "environmentId": finding.environment_id,
            "findingId": finding.finding_id,
            "mode": "Auto",
        }),
    };
    let properties = [("cs-event-type", COMMAND), ("cs-tenant-id", lineage.tenant_id.as_str())];
    let message_id = event_id.broker_message_id().to_string();
    let message =
        OutboxMessage::json(&events::queue_name(COMMAND), message_id, envelope.canonical(), commit.now);
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    commit.message(&OutboxMessage { properties, ..message })
}

fn cause<'a>(tenant: &'a TenantId, finding: &'a RuntimeDriftFinding, event_id: &'a str) -> Cause<'a> {
    Cause {
        tenant,
        environment: finding.environment_id.as_str(),
        function: finding.finding_id.as_str(),
        event_id,
    }
}

/// Whose doing a remediation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The platform's, which counts against the budget of the fingerprint.
    Automatically,
    ByAPerson,
}

/// Adds to a decision that a finding is being put right.
///
/// # Errors
/// When the store is away.
pub async fn begin(
    ledger: &Ledger,
    commit: &mut Commit,
    finding: &DriftFindingId,
    begun: Begun,
    deployment_id: Option<DeploymentId>,
    operation_id: Option<OperationId>,
) -> Result<(), Fault> {
    let now = commit.now;
    let (state, loaded) =
        ledger.load::<RuntimeDriftFinding>(&commit.partition, finding.as_str()).await?.take();
    let Some(mut state) = state else { return Ok(()) };
    let (index, index_loaded) = ledger.load::<DriftIndex>(&commit.partition, DriftIndex::ID).await?.take();
    let mut index = index.unwrap_or_else(|| DriftIndex::new(state.environment_id.clone(), now));
    let track = index.tracks.entry(state.finding_hash.clone()).or_default();
    if begun == Begun::Automatically {
        track.attempts.retain(|at| now.duration_since(*at) < policy::ATTEMPTS_WITHIN);
        track.attempts.push(now);
    }
    state.status = FindingStatus::Remediating;
    state.remediation.attempts += 1;
    state.remediation.not_before = Some(policy::not_before(&track.attempts, now));
    state.remediation.deployment_id = deployment_id.or(state.remediation.deployment_id);
    state.remediation.operation_id = operation_id.or(state.remediation.operation_id);
    commit.put(&index_loaded, &index)?;
    commit.put(&loaded, &state)
}

/// Ends a finding in the commit of an operation that put it right, or found it gone. None where it is
/// over already.
///
/// # Errors
/// When the store is away.
pub async fn resolved(
    ledger: &Ledger,
    commit: &mut Commit,
    finding: &str,
    resolution: DriftResolution,
    lineage: &Lineage,
    caused_by: &str,
) -> Result<Option<EventId>, Fault> {
    let (state, loaded) = ledger.load::<RuntimeDriftFinding>(&commit.partition, finding).await?.take();
    let Some(mut state) = state.filter(|state| state.status != FindingStatus::Resolved) else {
        return Ok(None);
    };
    let (index, index_loaded) = ledger.load::<DriftIndex>(&commit.partition, DriftIndex::ID).await?.take();
    if let Some(mut index) = index {
        if let Some(track) = index.tracks.get_mut(&state.finding_hash) {
            track.finding_id = None;
        }
        commit.put(&index_loaded, &index)?;
    }
    let told = findings::resolve(&mut state, resolution, commit.now);
    let outcome = tell(commit, &state, told, lineage, caused_by)?;
    commit.put(&loaded, &state)?;
    Ok(outcome)
}

/// Records the event of a finding.
///
/// # Errors
/// When it cannot be written.
pub fn tell(
    commit: &mut Commit,
    finding: &RuntimeDriftFinding,
    told: Told,
    lineage: &Lineage,
    caused_by: &str,
) -> Result<Option<EventId>, Fault> {
    let event = match told {
        Told::Nothing => return Ok(None),
        Told::Detected => Event::RuntimeDriftDetected(RuntimeDriftDetected {
            finding_id: finding.finding_id.to_string(),
            environment_id: finding.environment_id.clone(),
            service_id: finding.service_id.clone(),
            kind: finding.kind,
            severity: finding.severity,
            desired: finding.desired.clone(),
            actual: finding.actual.clone(),
            finding_hash: finding.finding_hash.clone(),
            auto_remediable: finding.auto_remediable,
        }),
        Told::Resolved => Event::RuntimeDriftResolved(RuntimeDriftResolved {
            finding_id: finding.finding_id.to_string(),
            environment_id: finding.environment_id.clone(),
            service_id: finding.service_id.clone(),
            kind: finding.kind,
            finding_hash: finding.finding_hash.clone(),
            resolution: finding.resolution.unwrap_or(DriftResolution::Healed),
            resolved_at: finding.resolved_at.unwrap_or(commit.now),
        }),
    };
    let id = event_id(finding, event.event_type(), finding.sequence);
    commit.event(
        lineage,
        NewEvent {
            id: id.clone(),
            event,
            aggregate: finding.finding_id.to_string(),
            sequence: finding.sequence,
            caused_by: caused_by.to_owned(),
        },
    )?;
    Ok(Some(id))
}

/// The eventId of a finding's event of a number.
fn event_id(finding: &RuntimeDriftFinding, event_type: &str, sequence: u64) -> EventId {
    let number = sequence.to_string();
    cause(&finding.lineage.tenant_id, finding, &number).event(event_type, 0)
}

/// The eventId of the first event that told of a finding.
pub fn first_event_id(finding: &RuntimeDriftFinding) -> EventId {
    event_id(finding, "RuntimeDriftDetected", 1)
}
