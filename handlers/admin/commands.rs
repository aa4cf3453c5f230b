//! `GET commands/{eventId}`: what became of a command.

use serde_json::{Value, json};

use super::http::{self, HttpError};
use crate::{
    ids::TenantId,
    invocation::{HttpAnswer, HttpRequest},
    ledger::{InboxEntry, OutboxEvent},
    operations::{Operation, Status},
    outcome::Fault,
    platform::Platform,
};

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    let id = http::id(request).unwrap_or_default();
    let Some(entry) = platform.ledger.find::<InboxEntry>(&tenant, "eventId", id).await? else {
        return Err(HttpError::not_found(
            "CommandNotFound",
            format!(
                "No command `{id}` was handled for this tenant yet. It may still be on its way; if it stays unknown, see `dead-letters`."
            ),
        ));
    };
    let operation = match &entry.operation_id {
        Some(id) => platform.ledger.find::<Operation>(&tenant, "operationId", id).await?,
        None => None,
    };
    let (status, ended) = match (&operation, entry.outcome.as_str()) {
        (Some(Operation { status: Status::Running, .. }), _) => ("Accepted", false),
        (Some(Operation { status: Status::Succeeded, .. }), _) | (None, "NoChange" | "Completed") => {
            ("Completed", true)
        }
        (Some(Operation { status: Status::Failed, .. }), _) => ("Failed", true),
        (None, "Rejected") => ("Rejected", true),
        (None, _) => ("Accepted", false),
    };
    let detail = entry.detail.or_else(|| operation.as_ref().and_then(|operation| operation.detail.clone()));
    let outcome =
        entry.outcome_event_id.or_else(|| operation.and_then(|operation| operation.outcome_event_id));
    let outcome = match outcome {
        Some(id) => envelope(platform, &tenant, id.as_str()).await?,
        None => None,
    };
    Ok(json!({
        "eventId": entry.event_id,
        "commandType": entry.function,
        "status": status,
        "ended": ended,
        "environmentId": entry.environment_id,
        "operationId": entry.operation_id,
        "detail": detail,
        "outcome": outcome,
    }))
}

/// The canonical envelope of an event of the tenant.
pub(super) async fn envelope(
    platform: &Platform,
    tenant: &TenantId,
    event_id: &str,
) -> Result<Option<Value>, Fault> {
    let event = platform.ledger.find::<OutboxEvent>(tenant, "eventId", event_id).await?;
    event.as_ref().map(super::events::envelope).transpose()
}
