//! `GET drift`, `GET drift/{id}`: what is not as desired, what was, and what is being done about it.

use serde_json::{Value, json};

use super::http::{self, HttpError};
use crate::{
    envelope::whole_seconds,
    invocation::{HttpAnswer, HttpRequest},
    platform::Platform,
    ports::store::Filter,
    services::runtime_drift_detection_service::RuntimeDriftFinding,
};

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    if let Some(id) = http::id(request) {
        let finding = platform.ledger.find::<RuntimeDriftFinding>(&tenant, "findingId", id).await?;
        return finding.as_ref().map(view).ok_or_else(|| {
            HttpError::not_found("DriftFindingNotFound", format!("There is no drift finding `{id}`."))
        });
    }
    let equal = http::equal(request, &["environmentId", "moduleId", "status", "severity", "kind"]);
    let filter = Filter { equal, newest_first: true, ..Filter::default() };
    let listing = platform.ledger.list::<RuntimeDriftFinding>(&tenant, &filter, &http::page(request)).await?;
    let items = listing.items.iter().map(|(_, finding)| view(finding)).collect();
    Ok(http::list(items, listing.next))
}

fn view(finding: &RuntimeDriftFinding) -> Value {
    json!({
        "findingId": finding.finding_id,
        "environmentId": finding.environment_id,
        "moduleId": finding.module_id,
        "serviceId": finding.service_id,
        "kind": finding.kind,
        "severity": finding.severity,
        "status": finding.status,
        "resourceId": finding.resource_id,
        "path": finding.path,
        "desired": finding.desired,
        "actual": finding.actual,
        "findingHash": finding.finding_hash,
        "autoRemediable": finding.auto_remediable,
        "waits": finding.waits,
        "lastWriter": finding.last_writer,
        "suppressedBy": finding.suppressed_by,
        "sightings": finding.sightings,
        "firstSeenAt": whole_seconds::text(finding.first_seen_at),
        "detectedAt": finding.opened_at.map(whole_seconds::text),
        "lastSeenAt": whole_seconds::text(finding.last_seen_at),
        "resolvedAt": finding.resolved_at.map(whole_seconds::text),
        "resolution": finding.resolution,
        "remediationAttempts": finding.remediation.attempts,
        "remediationDeploymentId": finding.remediation.deployment_id,
        "remediationOperationId": finding.remediation.operation_id,
    })
}
