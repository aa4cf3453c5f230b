//! `GET operations`, `GET operations/{id}`.

use serde_json::{Value, json};

use super::http::{self, HttpError};
use crate::{
    envelope::whole_seconds,
    invocation::{HttpAnswer, HttpRequest},
    operations::Operation,
    platform::Platform,
    ports::store::Filter,
};

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    if let Some(id) = http::id(request) {
        let operation = platform.ledger.find::<Operation>(&tenant, "operationId", id).await?;
        return operation.as_ref().map(view).ok_or_else(|| {
            HttpError::not_found("OperationNotFound", format!("There is no operation `{id}`."))
        });
    }
    let equal = http::equal(request, &["environmentId", "moduleId", "status", "kind"]);
    let filter = Filter { equal, newest_first: true, ..Filter::default() };
    let listing = platform.ledger.list::<Operation>(&tenant, &filter, &http::page(request)).await?;
    let items = listing.items.iter().map(|(_, operation)| view(operation)).collect();
    Ok(http::list(items, listing.next))
}

fn view(operation: &Operation) -> Value {
    json!({
        "operationId": operation.operation_id,
        "kind": operation.kind,
        "status": operation.status,
        "step": operation.step,
        "subject": operation.subject,
        "environmentId": operation.environment_id,
        "moduleId": operation.module_id,
        "attempt": operation.attempt,
        "tick": operation.tick,
        "startedAt": whole_seconds::text(operation.started_at),
        "endedAt": operation.ended_at.map(whole_seconds::text),
        "deadline": whole_seconds::text(operation.deadline),
        "detail": operation.detail,
        "correlationId": operation.lineage.correlation_id,
        "commandId": operation.lineage.command_id,
        "outcomeEventId": operation.outcome_event_id,
        "notes": operation.notes,
    })
}
