//! `GET sweeps`: what the latest sweep of each kind did in each environment; operators see what the
//! timers did over all of them too, as the environment `_`.

use serde_json::{Value, json};

use super::http::{self, HttpError};
use crate::{
    envelope::whole_seconds,
    invocation::{HttpAnswer, HttpRequest},
    platform::Platform,
    ports::store::{Filter, Page, Partition},
    sweeps::{Kind, SweepReport},
};

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    let mut equal = http::equal(request, &["environmentId"]);
    let of_timers = equal.is_empty() && !request.query.contains_key("after");
    if let Some(given) = request.query.get("kind").filter(|kind| !kind.is_empty()) {
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(given));
        let kind = kind.ok_or_else(|| {
            let known = Kind::ALL.map(Kind::as_str).join(", ");
            HttpError::bad_request("KindUnknown", format!("The parameter `kind` is one of {known}."))
        })?;
        equal.push(("kind".to_owned(), kind.as_str().to_owned()));
    }
    let filter = Filter { equal, newest_first: true, ..Filter::default() };
    let mut items = Vec::new();
    if of_timers && http::is_operator(platform, request) {
        let timers = Page::first(Kind::ALL.len());
        let timers =
            platform.ledger.query::<SweepReport>(&Partition::platform("_"), &filter, &timers).await?;
        items.extend(timers.items.iter().map(|(_, report)| view(report)));
    }
    let listing = platform.ledger.list::<SweepReport>(&tenant, &filter, &http::page(request)).await?;
    items.extend(listing.items.iter().map(|(_, report)| view(report)));
    Ok(http::list(items, listing.next))
}

fn view(report: &SweepReport) -> Value {
    json!({
        "kind": report.kind,
        "environmentId": report.environment_id,
        "window": whole_seconds::text(report.window),
        "beganAt": whole_seconds::text(report.began_at),
        "endedAt": whole_seconds::text(report.ended_at),
        "checked": report.checked,
        "changed": report.changed,
        "unreadable": report.unreadable,
        "notes": report.notes,
    })
}
