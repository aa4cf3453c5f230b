//! Messages as HTTP carries them: broker properties in one JSON header, each application property
//! in a header of its own, whose value is JSON too.
//!
//! A property whose name cannot be a header's, or is the name of one of HTTP's own, does not travel.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::{Timestamp, fmt::rfc2822};
use serde_json::{Map, Value, json};

use super::super::{Message, Received};

/// The header that holds broker properties.
pub(super) const BROKER_PROPERTIES: HeaderName = HeaderName::from_static("brokerproperties");
/// The content type of several messages in one request.
pub(super) const BATCH: &str = "application/vnd.microsoft.servicebus.json";

/// HTTP's own headers, and those of its tools: no application properties.
const NOT_PROPERTIES: [&str; 38] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "age",
    "allow",
    "authorization",
    "brokerproperties",
    "cache-control",
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "from",
    "host",
    "keep-alive",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "priority",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
];
const NOT_PROPERTIES_PREFIXES: [&str; 5] = ["x-ms-", "if-", "proxy-", "sec-", "x-forwarded-"];

/// Broker properties that only the broker sets; a sender who hands them back is not refused.
const READ_ONLY: [&str; 11] = [
    "DeadLetterSource",
    "DeliveryCount",
    "EnqueuedSequenceNumber",
    "EnqueuedTimeUtc",
    "ExpiresAtUtc",
    "ForcePersistence",
    "LockToken",
    "LockedUntilUtc",
    "SequenceNumber",
    "State",
    "ViaPartitionKey",
];

/// One message from the headers and the body of a request.
pub(super) fn message(headers: &HeaderMap, body: Vec<u8>) -> Result<Message, String> {
    let mut message = match headers.get(BROKER_PROPERTIES) {
        None => Message::default(),
        Some(value) => match serde_json::from_slice(value.as_bytes()) {
            Ok(Value::Object(members)) => with_broker_properties(&members, "the header BrokerProperties")?,
            _ => return Err("The header BrokerProperties must be a JSON object.".to_owned()),
        },
    };
    message.content_type = text_header(headers, &header::CONTENT_TYPE)?.or(message.content_type);
    for (name, value) in headers.iter().filter(|(name, _)| is_property(name.as_str())) {
        message.properties.insert(name.as_str().to_owned(), property(name.as_str(), value.as_bytes())?);
    }
    message.body = body;
    Ok(message)
}

fn text_header(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, String> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().map_err(|_| format!("The header {name} must be plain text."))?;
    Ok(Some(text.to_owned()))
}

fn is_property(name: &str) -> bool {
    !NOT_PROPERTIES.contains(&name) && !NOT_PROPERTIES_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn property(name: &str, value: &[u8]) -> Result<Value, String> {
    match serde_json::from_slice(value) {
        Ok(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => Ok(value),
        _ => Err(format!(
            "The header {name} is an application property: its value must be a text in double quotation marks, \
             a number, true or false."
        )),
    }
}

/// The messages of a batch.
pub(super) fn batch(body: &[u8]) -> Result<Vec<Message>, String> {
    let items: Vec<Map<String, Value>> = serde_json::from_slice(body).map_err(|error| {
        format!(
            "The batch must be a JSON list of objects (line {}, column {}).",
            error.line(),
            error.column()
        )
    })?;
    items
        .iter()
        .enumerate()
        .map(|(index, item)| batch_item(item).map_err(|problem| format!("Message {index}: {problem}")))
        .collect()
}

fn batch_item(item: &Map<String, Value>) -> Result<Message, String> {
    if let Some(unknown) =
        item.keys().find(|key| !["Body", "BrokerProperties", "UserProperties"].contains(&key.as_str()))
    {
        return Err(format!(
            "'{unknown}' is not known: there are Body, BrokerProperties and UserProperties."
        ));
    }
    let mut message = match item.get("BrokerProperties") {
        None => Message::default(),
        Some(Value::Object(members)) => with_broker_properties(members, "BrokerProperties")?,
        Some(_) => return Err("BrokerProperties must be an object.".to_owned()),
    };
    match item.get("UserProperties") {
        None => {}
        Some(Value::Object(members)) => {
            message.properties =
                members.iter().map(|(name, value)| (name.clone(), value.clone())).collect::<BTreeMap<_, _>>();
        }
        Some(_) => return Err("UserProperties must be an object.".to_owned()),
    }
    match item.get("Body") {
        Some(Value::String(body)) => message.body = body.clone().into_bytes(),
        _ => return Err("Body must be a text.".to_owned()),
    }
    Ok(message)
}

fn with_broker_properties(members: &Map<String, Value>, place: &str) -> Result<Message, String> {
    let mut message = Message::default();
    for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        let text =
            || value.as_str().map(str::to_owned).ok_or_else(|| format!("In {place}, {name} must be a text."));
        match name.as_str() {
            "MessageId" => message.message_id = text()?,
            "CorrelationId" => message.correlation_id = Some(text()?),
            "SessionId" => message.session_id = Some(text()?),
            "Label" => message.subject = Some(text()?),
            "To" => message.to = Some(text()?),
            "ReplyTo" => message.reply_to = Some(text()?),
            "ReplyToSessionId" => message.reply_to_session_id = Some(text()?),
            "PartitionKey" => message.partition_key = Some(text()?),
            "ContentType" => message.content_type = Some(text()?),
            "TimeToLive" => message.time_to_live = Some(seconds(value, place)?),
            "ScheduledEnqueueTimeUtc" => message.scheduled_enqueue_time = Some(time(&text()?, place)?),
            name if READ_ONLY.contains(&name) => {}
            name => {
                return Err(format!("In {place}, {name} is not known: names are written as in MessageId."));
            }
        }
    }
    Ok(message)
}

fn seconds(value: &Value, place: &str) -> Result<Duration, String> {
    value
        .as_f64()
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("In {place}, TimeToLive must be a number of seconds above 0."))
}

fn time(text: &str, place: &str) -> Result<Timestamp, String> {
    let parsed = rfc2822::DateTimeParser::new().parse_timestamp(text).or_else(|_| text.parse());
    parsed.map_err(|_| {
        format!("In {place}, ScheduledEnqueueTimeUtc must be a time such as Sun, 06 Nov 1994 08:49:37 GMT.")
    })
}

/// The headers that carry a received message.
pub(super) fn headers(received: &Received) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &received.message.properties {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes())
            && is_property(name.as_str())
        {
            headers.insert(name, header_value(value));
        }
    }
    if let Some(content_type) = &received.message.content_type
        && let Ok(value) = HeaderValue::from_str(content_type)
    {
        headers.insert(header::CONTENT_TYPE, value);
    }
    headers.insert(BROKER_PROPERTIES, header_value(&broker_properties(received)));
    headers
}

fn broker_properties(received: &Received) -> Value {
    let message = &received.message;
    let mut members = Map::new();
    members.insert("DeliveryCount".to_owned(), json!(received.delivery_count));
    members.insert("EnqueuedTimeUtc".to_owned(), http_date(received.enqueued_at));
    if !received.lock_token.is_nil() {
        members.insert("LockToken".to_owned(), json!(received.lock_token));
        members.insert("LockedUntilUtc".to_owned(), http_date(received.locked_until));
    }
    members.insert("MessageId".to_owned(), json!(message.message_id));
    members.insert("SequenceNumber".to_owned(), json!(received.sequence_number));
    members.insert("State".to_owned(), json!("Active"));
    let texts = [
        ("CorrelationId", &message.correlation_id),
        ("SessionId", &message.session_id),
        ("Label", &message.subject),
        ("To", &message.to),
        ("ReplyTo", &message.reply_to),
        ("ReplyToSessionId", &message.reply_to_session_id),
        ("PartitionKey", &message.partition_key),
        ("DeadLetterSource", &received.dead_letter_source),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            members.insert(name.to_owned(), json!(text));
        }
    }
    if let Some(time_to_live) = message.time_to_live {
        members.insert("TimeToLive".to_owned(), json!(time_to_live.as_secs_f64()));
    }
    if let Some(due) = message.scheduled_enqueue_time {
        members.insert("ScheduledEnqueueTimeUtc".to_owned(), http_date(due));
    }
    Value::Object(members)
}

fn http_date(time: Timestamp) -> Value {
    // A year beyond 9999 has no such form; a timestamp does not reach it.
    rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).map_or(Value::Null, Value::String)
}

/// JSON in the characters that a header may have.
fn header_value(value: &Value) -> HeaderValue {
    let mut text = String::new();
    for c in value.to_string().chars() {
        if matches!(c, ' '..='~') {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(text, "\\u{unit:04x}").expect("a string takes what is written to it");
            }
        }
    }
    HeaderValue::from_str(&text).expect("printable ASCII only")
}
