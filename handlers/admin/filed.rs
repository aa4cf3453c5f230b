//! `GET dead-letters`, `GET dead-letters/{id}`: the messages that were filed, each with its reason.
//!
//! A dead letter shows to the tenant that it names. What names none, or contradicts itself about it,
//! shows to operators, who ask with `unreadable=true`. The body comes with the one letter only.

use serde_json::{Value, json};

use super::{
    dead_letters::DeadLetter,
    http::{self, HttpError},
};
use crate::{
    envelope::whole_seconds,
    ids::TenantId,
    invocation::{HttpAnswer, HttpRequest},
    ledger::PageOf,
    outcome::Fault,
    platform::Platform,
    ports::store::{Filter, Page, Partition},
};

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    let unreadable = match request.query.get("unreadable").map(String::as_str) {
        None | Some("" | "false") => false,
        Some("true") => true,
        Some(_) => {
            return Err(HttpError::bad_request("UnreadableInvalid", "unreadable is `true` or `false`."));
        }
    };
    let mut equal = http::equal(request, &["reason", "function", "eventType"]);
    if !unreadable {
        equal.push(("messageTenantId".to_owned(), tenant.to_string()));
    }
    if let Some(id) = http::id(request) {
        equal.insert(0, ("deadLetterId".to_owned(), id.to_owned()));
        let filter = Filter { equal, ..Filter::default() };
        let listing = filed(platform, &filter, &Page::first(1)).await?;
        let mut letters = listing.items.iter().filter(|(_, letter)| shows(letter, &tenant, unreadable));
        return letters.next().map(|(_, letter)| in_full(letter)).ok_or_else(|| {
            HttpError::not_found(
                "DeadLetterNotFound",
                format!("There is no dead letter `{id}`; they are kept for 30 days."),
            )
        });
    }
    let filter = Filter { equal, newest_first: true, ..Filter::default() };
    let listing = filed(platform, &filter, &http::page(request)).await?;
    let shown = listing.items.iter().filter(|(_, letter)| shows(letter, &tenant, unreadable));
    Ok(http::list(shown.map(|(_, letter)| view(letter)).collect(), listing.next))
}

/// Dead letters lie in the platform's own partitions, one for each day.
async fn filed(platform: &Platform, filter: &Filter, page: &Page) -> Result<PageOf<DeadLetter>, Fault> {
    let owner = Partition::platform("_").tenant_id.parse::<TenantId>();
    let owner = owner.map_err(|error| Fault::Unreadable {
        doing: "listing dead letters".to_owned(),
        source: error.into(),
    })?;
    platform.ledger.list::<DeadLetter>(&owner, filter, page).await
}

fn shows(letter: &DeadLetter, tenant: &TenantId, unreadable: bool) -> bool {
    match &letter.message_tenant_id {
        Some(named) => !unreadable && named == tenant.as_str(),
        None => unreadable,
    }
}

fn view(letter: &DeadLetter) -> Value {
    json!({
        "deadLetterId": letter.dead_letter_id,
        "reason": letter.reason,
        "detail": letter.detail,
        "function": letter.function,
        "eventId": letter.event_id,
        "eventType": letter.event_type,
        "filedAt": whole_seconds::text(letter.filed_at),
    })
}

fn in_full(letter: &DeadLetter) -> Value {
    let mut view = view(letter);
    view["contentType"] = json!(letter.content_type);
    view["properties"] = json!(letter.properties);
    view["bodyBase64"] = json!(letter.body);
    view
}
