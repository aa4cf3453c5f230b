//! Messages that are sent on: again, later, as a copy; or to `dead-letters`, with the reason.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::SignedDuration;
use serde_json::{Map, Value};
use tracing::error;

use super::{DEAD_LETTERS, REDELIVERIES};
use crate::{
    functions, ids, invocation::QueueMessage, outcome::Fault, platform::Platform, ports::bus::Outgoing,
};

/// Delayed copies of one message.
const COPIES_MAX: u32 = 5;
/// Bounds of the delay of a copy, in seconds.
const COPY_DELAY_SECONDS: (u64, u64) = (2, 120);
/// Properties that a copy carries.
pub mod property {
    /// The function that a copy is for.
    pub const FUNCTION: &str = "cs-function";
    /// How many copies came before, for a fault of any kind but an absent store.
    pub const ATTEMPT: &str = "cs-attempt";
    /// How many copies were made while the store was away.
    pub const AWAY: &str = "cs-away";
    /// Raised by every redrive.
    pub const GENERATION: &str = "cs-generation";
    /// When the message was first enqueued, RFC 3339.
    pub const FIRST_ENQUEUED: &str = "cs-first-enqueued";
    /// Why a message was sent to `dead-letters`: a code, and a sentence.
    pub const REASON: &str = "cs-reason";
    pub const DETAIL: &str = "cs-detail";
    /// The application properties that a filed message had, as one JSON text.
    pub const ORIGINAL: &str = "cs-original-properties";
    /// The content type that a filed message had.
    pub const ORIGINAL_CONTENT_TYPE: &str = "cs-original-content-type";
}

/// Sends the message again, later, as a copy with a message id of its own; past the last copy it is
/// filed.
pub async fn copy(
    platform: &Platform,
    function: &'static str,
    delivered: &QueueMessage,
    counter: &'static str,
    fault: &Fault,
) -> Result<(), Fault> {
    let count = |name: &str| {
        delivered
            .properties
            .get(name)
            .and_then(Value::as_str)
            .and_then(|text| text.parse::<u32>().ok())
            .unwrap_or(0)
    };
    let (attempt, away, generation) =
        (count(property::ATTEMPT), count(property::AWAY), count(property::GENERATION));
    if counter == property::ATTEMPT && attempt >= COPIES_MAX {
        return dead_letter(platform, function, delivered, "AttemptsExhausted", &fault.chain()).await;
    }
    error!(attempt, "handling failed and comes again: {}", fault.chain());
    let now = platform.clock.now();
    let made = if counter == property::ATTEMPT { attempt } else { away };
    let message_id = copy_id(function, delivered, &[generation, attempt, away], counter);
    let delay = SignedDuration::from_secs(copy_delay_seconds(made, &message_id).cast_signed());
    let mut properties = texts(&delivered.properties);
    properties.insert(property::FUNCTION.to_owned(), function.to_owned());
    properties.insert(counter.to_owned(), (made + 1).to_string());
    properties
        .entry(property::FIRST_ENQUEUED.to_owned())
        .or_insert_with(|| delivered.enqueued_at.unwrap_or(now).to_string());
    let queue = functions::queue_of(function).unwrap_or_else(|| REDELIVERIES.to_owned());
    let sent = platform
        .bus
        .send(&Outgoing {
            entity: queue,
            message_id,
            content_type: delivered.content_type.clone().unwrap_or_else(|| "application/json".to_owned()),
            body: delivered.body.clone(),
            properties,
            session_id: None,
            correlation_id: None,
            subject: None,
            scheduled_at: Some(now + delay),
            time_to_live: None,
        })
        .await;
    match sent {
        // The broker never takes this copy, e.g. for its properties; the message is kept all the same.
        Err(Fault::Rejected { detail, .. }) => {
            dead_letter(platform, function, delivered, "NotCopied", &detail).await
        }
        sent => sent,
    }
}

/// 2 s, 4 s, ... 2 min, less up to a quarter: the copy's id decides how much, so that a crash makes
/// the same copy again.
fn copy_delay_seconds(made: u32, message_id: &str) -> u64 {
    let (least, most) = COPY_DELAY_SECONDS;
    let delay = (least << made.min(6)).min(most);
    let jitter = message_id.bytes().map(u64::from).sum::<u64>() % (delay / 4 + 1);
    delay - jitter
}

/// What a message is known by: its id, or what is in it where the host told none. Two messages without
/// an id must not be taken for one.
pub fn own_id(delivered: &QueueMessage) -> String {
    match &delivered.message_id {
        Some(id) => id.clone(),
        None => ids::derive(&["body", &BASE64_STANDARD.encode(&delivered.body)]).to_string(),
    }
}

fn copy_id(function: &str, delivered: &QueueMessage, counts: &[u32], counter: &str) -> String {
    let own = own_id(delivered);
    let counts = counts.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
    ids::derive(&["copy", function, &own, counter, &counts]).to_string()
}

fn texts(properties: &Map<String, Value>) -> BTreeMap<String, String> {
    properties
        .iter()
        .filter_map(|(name, value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            Some((name.to_lowercase(), text))
        })
        .collect()
}

/// Files a message with the reason, so that nothing is lost and an operator knows why.
pub async fn dead_letter(
    platform: &Platform,
    function: &'static str,
    delivered: &QueueMessage,
    reason: &str,
    detail: &str,
) -> Result<(), Fault> {
    error!(reason, "a message is filed as a dead letter: {detail}");
    let mut properties = BTreeMap::from([
        (property::FUNCTION.to_owned(), function.to_owned()),
        (property::REASON.to_owned(), reason.to_owned()),
        (property::DETAIL.to_owned(), shorten(detail)),
        (property::ORIGINAL.to_owned(), original_properties(&delivered.properties)),
    ]);
    if let Some(content_type) = &delivered.content_type {
        properties.insert(property::ORIGINAL_CONTENT_TYPE.to_owned(), content_type.clone());
    }
    let own = own_id(delivered);
    platform
        .bus
        .send(&Outgoing {
            entity: DEAD_LETTERS.to_owned(),
            message_id: ids::derive(&["dead-letter", function, &own, reason]).to_string(),
            content_type: "application/octet-stream".to_owned(),
            body: delivered.body.clone(),
            properties,
            session_id: None,
            correlation_id: None,
            subject: Some(reason.to_owned()),
            scheduled_at: None,
            time_to_live: None,
        })
        .await
}

/// What one property may take of the headers that properties travel in, in bytes.
const PROPERTY_BYTES_MAX: usize = 3 * 1024;

/// The bytes of a character in a header: what is not ASCII is written as `\uXXXX`, once or twice.
fn header_bytes(character: char) -> usize {
    match character {
        '"' | '\\' => 2,
        ' '..='~' => 1,
        _ => 6 * character.len_utf16(),
    }
}

/// The beginning of a text, as far as a property may go.
fn shorten(text: &str) -> String {
    let mut left = PROPERTY_BYTES_MAX;
    text.chars()
        .take_while(|character| {
            let fits = header_bytes(*character) <= left;
            left = left.saturating_sub(header_bytes(*character));
            fits
        })
        .collect()
}

/// As many application properties as one property may hold, ours first.
fn original_properties(properties: &Map<String, Value>) -> String {
    let mut kept = Map::new();
    let (ours, others): (Vec<_>, Vec<_>) = properties.iter().partition(|(name, _)| name.starts_with("cs-"));
    for (name, value) in ours.into_iter().chain(others) {
        kept.insert(name.clone(), value.clone());
        if Value::Object(kept.clone()).to_string().chars().map(header_bytes).sum::<usize>()
            > PROPERTY_BYTES_MAX
        {
            kept.remove(name);
        }
    }
    Value::Object(kept).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn delays_grow_and_stay_within_their_bounds() {
        let delays: Vec<u64> = (0..10).map(|made| copy_delay_seconds(made, "m")).collect();
        assert!(delays.windows(2).all(|pair| pair[0] <= pair[1] + pair[1] / 4), "{delays:?}");
        assert!(delays.iter().all(|delay| (1..=120).contains(delay)), "{delays:?}");
        assert_eq!(copy_delay_seconds(3, "m"), copy_delay_seconds(3, "m"));
    }

    #[test]
    fn a_property_fits_into_a_header_whatever_is_in_it() {
        for text in ["x".repeat(10_000), "é".repeat(10_000), "\u{1F600}".repeat(10_000), "\"".repeat(10_000)]
        {
            let kept = shorten(&text);
            assert!(text.starts_with(&kept) && !kept.is_empty());
            assert!(kept.chars().map(header_bytes).sum::<usize>() <= PROPERTY_BYTES_MAX);
        }
        assert_eq!(shorten("short"), "short");
    }

    #[test]
    fn two_messages_without_an_id_are_two() {
        let message = |id: Option<&str>, body: &str| QueueMessage {
            body: body.into(),
            message_id: id.map(str::to_owned),
            content_type: None,
            delivery_count: 1,
            enqueued_at: None,
            properties: Map::new(),
        };
        assert_eq!(own_id(&message(Some("m-1"), "a")), "m-1");
        assert_ne!(own_id(&message(None, "a")), own_id(&message(None, "b")));
        assert_eq!(own_id(&message(None, "a")), own_id(&message(None, "a")));
    }

    #[test]
    fn our_own_properties_are_kept_first() {
        let properties = json!({ "long": "x".repeat(5000), "other": 1, "cs-tenant-id": "acme" });
        let kept: Value =
            serde_json::from_str(&original_properties(properties.as_object().unwrap())).unwrap();
        assert_eq!(kept, json!({ "cs-tenant-id": "acme", "other": 1 }));
    }
}
