//! `GET commands`, `GET commands/{eventId}`: what became of commands.
//!
//! The list is of those that were handled, newest first. The one command is found from the moment it was
//! sent over HTTP; one that came by Service Bus is known once it was handled.

use futures::future::try_join_all;
use serde_json::{Value, json};

use super::{
    command_posts::SENT,
    http::{self, HttpError},
};
use crate::{
    envelope::whole_seconds,
    events::COMMANDS,
    ids::{EventId, TenantId},
    invocation::{HttpAnswer, HttpRequest},
    ledger::{InboxEntry, OutboxEvent},
    operations::{Operation, Status},
    outcome::Fault,
    platform::Platform,
    ports::store::{Filter, Page, Partition},
};

/// Memories of one eventId that are looked at: its request, its function, its dead letter, and those of
/// other functions to which the same id was sent.
const MEMORIES_MAX: usize = 16;

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    let Some(id) = http::id(request) else { return list(platform, &tenant, request).await };
    let equal = vec![("eventId".to_owned(), id.to_owned())];
    let filter = Filter { equal, ..Filter::default() };
    let memories = platform.ledger.list::<InboxEntry>(&tenant, &filter, &Page::first(MEMORIES_MAX)).await?;
    let telling = memories.items.into_iter().min_by_key(|(_, entry)| rank(entry));
    let Some((_, entry)) = telling else {
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
    let (mut told, outcome) = tell(&entry, operation.as_ref());
    let outcome = match outcome {
        Some(id) => envelope(platform, &tenant, id.as_str()).await?,
        None => None,
    };
    told["outcome"] = outcome.unwrap_or_default();
    Ok(told)
}

async fn list(platform: &Platform, tenant: &TenantId, request: &HttpRequest) -> Result<Value, HttpError> {
    let mut equal = http::equal(request, &["environmentId"]);
    if let Some(command) = request.query.get("commandType").filter(|command| !command.is_empty()) {
        if !COMMANDS.contains(&command.as_str()) {
            let message =
                format!("The parameter `commandType` is none of the commands: {}.", COMMANDS.join(", "));
            return Err(HttpError::bad_request("CommandTypeInvalid", message));
        }
        equal.push(("function".to_owned(), command.clone()));
    }
    let filter = Filter { equal, newest_first: true, ..Filter::default() };
    let memories = platform.ledger.list::<InboxEntry>(tenant, &filter, &http::page(request)).await?;
    let handled = memories.items.iter().filter(|(_, entry)| COMMANDS.contains(&entry.function.as_str()));
    let told = handled.map(|(partition, entry)| async move {
        let operation = operation(platform, partition, entry).await?;
        Ok::<_, Fault>(tell(entry, operation.as_ref()).0)
    });
    Ok(http::list(try_join_all(told).await?, memories.next))
}

/// The operation that goes on with a command, which is in the same partition.
async fn operation(
    platform: &Platform,
    partition: &Partition,
    entry: &InboxEntry,
) -> Result<Option<Operation>, Fault> {
    match &entry.operation_id {
        Some(id) => Ok(platform.ledger.load::<Operation>(partition, id).await?.state),
        None => Ok(None),
    }
}

/// What tells most of a command comes first: its own function, then its dead letter, then its request.
fn rank(entry: &InboxEntry) -> u8 {
    if COMMANDS.contains(&entry.function.as_str()) {
        0
    } else if entry.outcome == SENT {
        2
    } else {
        1
    }
}

/// What a memory and its operation tell of a command, and the event that ended it.
fn tell(entry: &InboxEntry, operation: Option<&Operation>) -> (Value, Option<EventId>) {
    let (status, ended) = match (operation.map(|operation| operation.status), entry.outcome.as_str()) {
        (Some(Status::Running), _) => ("Accepted", false),
        (Some(Status::Succeeded), _) | (None, "NoChange" | "Completed") => ("Completed", true),
        (Some(Status::Failed), _) => ("Failed", true),
        (None, "Rejected") => ("Rejected", true),
        (None, SENT) => (SENT, false),
        (None, _) => ("Accepted", false),
    };
    let detail = entry
        .detail
        .clone()
        .filter(|_| status != SENT)
        .or_else(|| operation.and_then(|operation| operation.detail.clone()));
    let outcome = entry
        .outcome_event_id
        .clone()
        .or_else(|| operation.and_then(|operation| operation.outcome_event_id.clone()));
    let known = COMMANDS.contains(&entry.event_type.as_str());
    let told = json!({
        "eventId": entry.event_id,
        "commandType": if known { &entry.event_type } else { &entry.function },
        "status": status,
        "ended": ended,
        "environmentId": entry.environment_id,
        "operationId": entry.operation_id,
        "at": whole_seconds::text(entry.handled_at),
        "detail": detail,
        "outcomeEventId": outcome,
    });
    (told, outcome)
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
