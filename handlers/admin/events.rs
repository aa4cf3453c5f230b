//! `GET events?after=CURSOR`: the events feed; `GET events/{eventId}`.
//!
//! The cursor is a time, and overlaps: a commit that was slow may sort before one that was read
//! already. The reader drops what it has seen by eventId.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::http::{self, HttpError};
use crate::{
    envelope::whole_seconds,
    invocation::{HttpAnswer, HttpRequest},
    ledger::OutboxEvent,
    outcome::Fault,
    platform::Platform,
    ports::store::{Filter, Page},
};

/// How far the cursor reaches back over what was read already: longer than a step and its commit.
const OVERLAP: SignedDuration = SignedDuration::from_secs(10);

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    if let Some(id) = http::id(request) {
        return super::commands::envelope(platform, &tenant, id).await?.ok_or_else(|| {
            HttpError::not_found(
                "EventNotFound",
                format!("There is no event `{id}`; events are kept for seven days."),
            )
        });
    }
    let page = http::page(request);
    let (since, after) = read_cursor(page.after.as_deref())?;
    let filter = Filter { equal: http::equal(request, &["correlationId"]), since, newest_first: false };
    let listing = platform.ledger.list::<OutboxEvent>(&tenant, &filter, &Page { after, ..page }).await?;
    let items = listing.items.iter().map(|(_, event)| view(event)).collect::<Result<Vec<_>, _>>()?;
    let newest = listing.items.last().map(|(_, event)| event.recorded_at);
    let next = match (listing.next, newest, since) {
        // More is there: the store's own place, and the time that it belongs to.
        (Some(place), ..) => format!("{}~{place}", since.map_or_else(String::new, |since| since.to_string())),
        (None, Some(newest), since) => {
            let reached = since.map_or(newest - OVERLAP, |since| since.max(newest - OVERLAP));
            format!("{reached}~")
        }
        (None, None, Some(since)) => format!("{since}~"),
        (None, None, None) => format!("{}~", platform.clock.now() - OVERLAP),
    };
    Ok(http::list(items, Some(next)))
}

/// A cursor is a time and a place of the store, either of which may be empty; a bare time is a cursor
/// too, for a person.
fn read_cursor(cursor: Option<&str>) -> Result<(Option<Timestamp>, Option<String>), HttpError> {
    let Some(cursor) = cursor else { return Ok((None, None)) };
    let (since, place) = cursor.split_once('~').unwrap_or((cursor, ""));
    let since = match since {
        "" => None,
        text => Some(text.parse::<Timestamp>().map_err(|_| {
            HttpError::bad_request(
                "CursorInvalid",
                format!(
                    "`{cursor}` is no cursor: give what `next` said, or a time such as 2026-03-02T10:15:30Z."
                ),
            )
        })?),
    };
    Ok((since, Some(place.to_owned()).filter(|place| !place.is_empty())))
}

pub(super) fn envelope(event: &OutboxEvent) -> Result<Value, Fault> {
    serde_json::from_str(&event.envelope).map_err(|error| Fault::Unreadable {
        doing: format!("reading the event `{}`", event.event_id),
        source: error.into(),
    })
}

fn view(event: &OutboxEvent) -> Result<Value, Fault> {
    Ok(json!({
        "topic": event.topic,
        "sequence": event.sequence,
        "aggregate": event.aggregate,
        "publishedAt": event.sent_at.map(whole_seconds::text),
        "envelope": envelope(event)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_time_a_place_or_both() {
        let at: Timestamp = "2026-03-02T10:15:30Z".parse().unwrap();
        assert_eq!(read_cursor(None).unwrap(), (None, None));
        assert_eq!(read_cursor(Some("2026-03-02T10:15:30Z~")).unwrap(), (Some(at), None));
        assert_eq!(read_cursor(Some("2026-03-02T10:15:30Z")).unwrap(), (Some(at), None));
        assert_eq!(read_cursor(Some("2026-03-02T10:15:30Z~p1")).unwrap(), (Some(at), Some("p1".into())));
        assert_eq!(read_cursor(Some("~p1")).unwrap(), (None, Some("p1".into())));
        assert!(read_cursor(Some("yesterday")).is_err());
    }
}
