//! What the host posts: values as Azure's host encodes them for a custom handler.
//!
//! A string becomes a JSON text inside a JSON string; numbers and booleans become strings; times are
//! cut to whole seconds; bytes become base64, once; objects stay objects.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::app::ServiceBusTrigger;
use crate::local::service_bus::Received;

/// A string, encoded once more.
fn text(value: &str) -> Value {
    Value::String(Value::String(value.to_owned()).to_string())
}

/// `2023-10-12T20:13:49`: a time of no stated zone.
fn unspecified(at: Timestamp) -> Value {
    Value::String(at.strftime("%Y-%m-%dT%H:%M:%S").to_string())
}

/// `2023-10-12T20:13:49+00:00`
fn offset(at: Timestamp) -> Value {
    Value::String(at.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string())
}

fn sys(function: &str, now: Timestamp) -> Value {
    json!({
        "MethodName": function,
        "UtcNow": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        "RandGuid": Uuid::new_v4().to_string(),
    })
}

/// The invocation of a Service Bus function with one message.
pub(super) fn service_bus(function: &str, trigger: &ServiceBusTrigger, received: &Received, namespace: &str, now: Timestamp) -> Value {
    let message = &received.message;
    let mut metadata = Map::new();
    for name in ["MessageReceiver", "MessageSession", "MessageActions", "SessionActions", "ReceiveActions"] {
        metadata.insert(name.to_owned(), json!({}));
    }
    metadata.insert(
        "Client".to_owned(),
        json!({ "FullyQualifiedNamespace": namespace, "IsClosed": false, "TransportType": 0, "Identifier": format!("{namespace}-{}", Uuid::new_v4()) }),
    );
    let never = Timestamp::MAX;
    let expires = received.expires_at.unwrap_or(never);
    metadata.insert("DeliveryCount".to_owned(), json!(received.delivery_count.to_string()));
    let mut optional = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            metadata.insert(name.to_owned(), text(value));
        }
    };
    optional("DeadLetterSource", &received.dead_letter_source);
    optional("LockToken", &Some(received.lock_token.to_string()));
    metadata.insert("ExpiresAtUtc".to_owned(), unspecified(expires));
    metadata.insert("ExpiresAt".to_owned(), offset(expires));
    metadata.insert("EnqueuedTimeUtc".to_owned(), unspecified(received.enqueued_at));
    metadata.insert("EnqueuedTime".to_owned(), offset(received.enqueued_at));
    metadata.insert("MessageId".to_owned(), text(&message.message_id));
    let mut optional = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            metadata.insert(name.to_owned(), text(value));
        }
    };
    optional("ContentType", &message.content_type);
    optional("ReplyTo", &message.reply_to);
    metadata.insert("SequenceNumber".to_owned(), json!(received.sequence_number.to_string()));
    let mut optional = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            metadata.insert(name.to_owned(), text(value));
        }
    };
    optional("To", &message.to);
    optional("Subject", &message.subject);
    optional("Label", &message.subject);
    optional("CorrelationId", &message.correlation_id);
    let properties: Map<String, Value> = message.properties.clone().into_iter().collect();
    metadata.insert("ApplicationProperties".to_owned(), Value::Object(properties.clone()));
    metadata.insert("UserProperties".to_owned(), Value::Object(properties));
    let mut optional = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            metadata.insert(name.to_owned(), text(value));
        }
    };
    optional("SessionId", &message.session_id);
    optional("ReplyToSessionId", &message.reply_to_session_id);
    optional("PartitionKey", &message.partition_key);
    metadata.insert("sys".to_owned(), sys(function, now));
    let data = if trigger.binary {
        Value::String(BASE64_STANDARD.encode(&message.body))
    } else {
        let body = String::from_utf8_lossy(&message.body);
        merge_body(&mut metadata, &body);
        text(&body)
    };
    json!({ "Data": { (trigger.binding.as_str()): data }, "Metadata": metadata })
}

/// The top level of a text body that looks like an object overwrites metadata, whatever its keys.
fn merge_body(metadata: &mut Map<String, Value>, body: &str) {
    if !body.trim_start().starts_with('{') {
        return;
    }
    let Ok(Value::Object(members)) = serde_json::from_str::<Value>(body) else { return };
    for (name, value) in members {
        let encoded = match value {
            Value::Null | Value::Array(_) => continue,
            Value::String(value) => text(&value),
            Value::Number(number) => text(&number.to_string()),
            Value::Bool(value) => text(if value { "True" } else { "False" }),
            Value::Object(object) => Value::Object(object),
        };
        metadata.retain(|known, _| !known.eq_ignore_ascii_case(&name));
        metadata.insert(name, encoded);
    }
}

/// The status of a timer, where it is monitored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ScheduleStatus {
    pub last: Option<Timestamp>,
    pub next: Timestamp,
}

/// The invocation of a timer function.
pub(super) fn timer(function: &str, binding: &str, status: Option<&ScheduleStatus>, past_due: bool, now: Timestamp) -> Value {
    let full = |at: Option<Timestamp>| match at {
        Some(at) => at.strftime("%Y-%m-%dT%H:%M:%S%.7f+00:00").to_string(),
        // What .NET writes for a time that never was.
        None => "0001-01-01T00:00:00+00:00".to_owned(),
    };
    let status = status.map(|status| json!({ "Last": full(status.last), "Next": offset(status.next), "LastUpdated": full(status.last) }));
    json!({
        "Data": { binding: { "Schedule": { "AdjustForDST": true }, "ScheduleStatus": status, "IsPastDue": past_due } },
        "Metadata": { "sys": sys(function, now) },
    })
}

/// An HTTP request on its way to a function.
pub(super) struct Request<'a> {
    pub url: String,
    pub method: &'a str,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub params: Vec<(String, String)>,
    pub body: Option<&'a [u8]>,
    /// Whether a function key opened it.
    pub by_key: bool,
}

/// The invocation of an HTTP function.
pub(super) fn http(function: &str, binding: &str, request: &Request<'_>, now: Timestamp) -> Value {
    let mut query = Map::new();
    for (name, value) in &request.query {
        match query.get_mut(name) {
            // Repeated names are joined.
            Some(Value::String(known)) => *known = format!("{known},{value}"),
            _ => {
                query.insert(name.clone(), json!(value));
            }
        }
    }
    let mut lists = Map::new();
    let mut single = Map::new();
    for (name, value) in &request.headers {
        let name = canonical(name);
        single.insert(name.clone(), json!(value));
        match lists.get_mut(&name) {
            Some(Value::Array(values)) => values.push(json!(value)),
            _ => {
                lists.insert(name, json!([value]));
            }
        }
    }
    let params: Map<String, Value> = request.params.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let claims = if request.by_key {
        json!([{ "Issuer": "LOCAL AUTHORITY", "Type": "http://schemas.microsoft.com/2017/07/functions/claims/authlevel", "Value": "Function" }])
    } else {
        json!([])
    };
    let mut req = json!({
        "Url": request.url,
        "Method": request.method,
        "Query": query,
        "Headers": lists,
        "Params": params,
        "Identities": [{
            "AuthenticationType": request.by_key.then_some("WebJobsAuthLevel"),
            "IsAuthenticated": request.by_key,
            "Actor": null,
            "BootstrapContext": null,
            "Claims": claims,
            "Label": null,
            "Name": null,
            "NameClaimType": "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
            "RoleClaimType": "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
        }],
    });
    if let (Some(body), Some(req)) = (request.body, req.as_object_mut()) {
        let binary = request.headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("content-type")
                && (value.starts_with("application/octet-stream") || value.starts_with("multipart/"))
        });
        let body = if binary { BASE64_STANDARD.encode(body) } else { String::from_utf8_lossy(body).into_owned() };
        req.insert("Body".to_owned(), Value::String(body));
    }
    let mut metadata = Map::new();
    for (name, value) in request.query.iter().chain(&request.params) {
        metadata.insert(name.clone(), text(value));
    }
    metadata.insert("Query".to_owned(), Value::Object(query_of(request)));
    metadata.insert("Headers".to_owned(), Value::Object(single));
    metadata.insert("sys".to_owned(), sys(function, now));
    json!({ "Data": { binding: req }, "Metadata": metadata })
}

fn query_of(request: &Request<'_>) -> Map<String, Value> {
    request.query.iter().map(|(name, value)| (name.clone(), json!(value))).collect()
}

/// HTTP/1 names as .NET shows them: `x-functions-key` becomes `X-Functions-Key`? No: as they were
/// sent, but for the well-known ones, whose first letters it writes large.
fn canonical(name: &str) -> String {
    match name {
        "accept" | "host" | "connection" | "user-agent" | "content-type" | "content-length" | "accept-encoding" => {
            name.split('-').map(capital).collect::<Vec<_>>().join("-")
        }
        other => other.to_owned(),
    }
}

fn capital(part: &str) -> String {
    let mut characters = part.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
