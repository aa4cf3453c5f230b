//! `GET outbox`: what was committed and is not on the bus yet, oldest first. It should be next to
//! nothing: what stays here is what the relay cannot send, and its log says why.
//!
//! Operators see everybody's with `all=true`. No body is shown.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::http::{self, HttpError};
use crate::{
    envelope::whole_seconds,
    invocation::{HttpAnswer, HttpRequest},
    ledger::{EVENT, MESSAGE},
    platform::Platform,
    ports::store::{PAGE_ITEMS_MAX, Page, Stored},
};

/// Pages of unsent documents that are looked through, of each kind: beyond that the count is a floor.
const PAGES_MAX: usize = 20;

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    let all = match request.query.get("all").map(String::as_str) {
        None | Some("" | "false") => false,
        Some("true") if http::is_operator(platform, request) => true,
        Some("true") => {
            let message = format!(
                "Everybody's outbox is shown to operators only, whose keys the setting OPERATOR_KEYS names; yours is `{}`.",
                http::actor(request)
            );
            return Err(HttpError::new(403, "OperatorsOnly", message));
        }
        Some(_) => return Err(HttpError::bad_request("AllInvalid", "all is `true` or `false`.")),
    };
    let now = platform.clock.now();
    let (mut unsent, mut counts, mut complete) = (Vec::new(), [0, 0], true);
    for (kind, count) in [EVENT, MESSAGE].into_iter().zip(&mut counts) {
        let mut page = Page::first(PAGE_ITEMS_MAX);
        for _ in 0..PAGES_MAX {
            let listing = platform.ledger.due(kind, now, &page).await?;
            let own = listing.items.into_iter().filter(|it| all || it.partition.tenant_id == tenant.as_str());
            for stored in own {
                *count += 1;
                if *count <= PAGE_ITEMS_MAX {
                    unsent.push(stored);
                }
            }
            page.after = listing.next;
            if page.after.is_none() {
                break;
            }
        }
        complete &= page.after.is_none();
    }
    unsent.sort_by_key(|stored| stored.document.at);
    unsent.truncate(PAGE_ITEMS_MAX);
    let oldest = unsent.first().map(|stored| stored.document.at);
    Ok(json!({
        "items": unsent.iter().map(|stored| view(stored, now)).collect::<Vec<_>>(),
        "next": null,
        "events": counts[0],
        "messages": counts[1],
        "complete": complete,
        "oldest": oldest.map(whole_seconds::text),
    }))
}

fn view(stored: &Stored, now: Timestamp) -> Value {
    let document = &stored.document;
    let member = |name: &str| document.body.get(name).cloned().unwrap_or_default();
    let is_event = document.kind == EVENT;
    json!({
        "outboxId": document.id,
        "kind": document.kind,
        "tenantId": stored.partition.tenant_id,
        "environmentId": stored.partition.environment_id,
        "to": if is_event { member("topic") } else { member("queue") },
        "eventId": member("eventId"),
        "eventType": member("eventType"),
        "aggregate": member("aggregate"),
        "sequence": member("sequence"),
        "recordedAt": whole_seconds::text(document.at),
        "ageSeconds": now.duration_since(document.at).as_secs(),
    })
}
