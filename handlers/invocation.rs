//! The host's dialect: `{Data, Metadata}` in, `{Outputs, Logs, ReturnValue}` out.
//!
//! Azure's host encodes a string once more as JSON inside a JSON string, writes numbers as strings,
//! and gives the body of a `"dataType": "binary"` message as base64, once. Metadata keys may be
//! missing. This is the only file that knows.

use std::{collections::BTreeMap, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, json};

/// The name of the one binding that our functions have.
pub const TRIGGER: &str = "message";
/// The name of the HTTP request binding.
pub const REQUEST: &str = "req";
/// The name of the HTTP response binding.
pub const RESPONSE: &str = "res";
/// The claim in which the host names a caller's function key.
const KEY_NAME_CLAIM: &str = "http://schemas.microsoft.com/2017/07/functions/claims/keyid";

/// What the host posts.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Invocation {
    pub data: Map<String, Value>,
    pub metadata: Map<String, Value>,
}

/// Why an invocation is none.
#[derive(Debug, thiserror::Error)]
pub enum InvocationError {
    #[error("the body is not the host's {{\"Data\": ..., \"Metadata\": ...}}")]
    NotTheHosts(#[source] serde_json::Error),
    #[error("Data has no member `{0}`: function.json and the handler disagree on the binding's name")]
    NoBinding(&'static str),
    #[error("Data.{0} is not base64: the binding needs \"dataType\": \"binary\" in function.json")]
    NotBinary(&'static str),
}

/// A delivered message, as the host passed it on.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueMessage {
    pub body: Vec<u8>,
    pub message_id: Option<String>,
    pub content_type: Option<String>,
    pub delivery_count: u32,
    pub enqueued_at: Option<Timestamp>,
    pub properties: Map<String, Value>,
}

/// An HTTP request, as the host passed it on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpRequest {
    pub method: String,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    pub query: BTreeMap<String, String>,
    /// Route parameters.
    pub params: BTreeMap<String, String>,
    pub body: Option<String>,
    /// The name of the function key that let it in.
    pub key_name: Option<String>,
}

/// An HTTP answer. What is no success is a problem as RFC 9457 writes one.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpAnswer {
    pub status: u16,
    /// Where to look for what comes of it.
    pub location: Option<String>,
    pub body: Value,
}

impl HttpAnswer {
    pub fn new(status: u16, body: Value) -> Self {
        Self { status, location: None, body }
    }

    /// A no: a code for programs, and a sentence for people.
    pub fn problem(status: u16, code: &str, detail: &str) -> Self {
        let title = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let title = title.unwrap_or("No success");
        Self::new(
            status,
            json!({ "type": "about:blank", "title": title, "status": status, "detail": detail, "code": code }),
        )
    }
}

impl Invocation {
    /// # Errors
    /// When the bytes are not what a host posts.
    pub fn read(bytes: &[u8]) -> Result<Self, InvocationError> {
        serde_json::from_slice(bytes).map_err(InvocationError::NotTheHosts)
    }

    /// The message of a Service Bus trigger.
    ///
    /// # Errors
    /// When the binding is missing or not binary.
    pub fn message(&self) -> Result<QueueMessage, InvocationError> {
        let body =
            self.data.get(TRIGGER).and_then(Value::as_str).ok_or(InvocationError::NoBinding(TRIGGER))?;
        let body = BASE64_STANDARD.decode(body).map_err(|_| InvocationError::NotBinary(TRIGGER))?;
        let properties = match self.metadata_value("ApplicationProperties") {
            Some(Value::Object(properties)) => properties,
            _ => Map::new(),
        };
        Ok(QueueMessage {
            body,
            message_id: self.metadata_text("MessageId"),
            content_type: self.metadata_text("ContentType"),
            delivery_count: self
                .metadata_text("DeliveryCount")
                .and_then(|count| count.parse().ok())
                .unwrap_or(1),
            enqueued_at: self.metadata_text("EnqueuedTime").and_then(|at| at.parse().ok()),
            properties,
        })
    }

    /// A metadata value, freed of up to two layers of JSON strings.
    fn metadata_value(&self, name: &str) -> Option<Value> {
        self.metadata.get(name).map(unwrap)
    }

    fn metadata_text(&self, name: &str) -> Option<String> {
        self.metadata_value(name).and_then(|value| text(&value))
    }
}

/// A scalar as text; the first of a list, as request headers are.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Array(values) => values.first().and_then(text),
        Value::Null | Value::Object(_) => None,
    }
}

/// The invocation of an HTTP trigger, as far as it is looked at: the rest is skipped unread, since
/// these are the invocations that come in numbers.
#[derive(Deserialize)]
struct HttpInvocation {
    #[serde(rename = "Data", default)]
    data: HttpData,
}

#[derive(Default, Deserialize)]
struct HttpData {
    // The name of the binding, see `REQUEST`.
    req: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, FirstText>,
    #[serde(default)]
    query: BTreeMap<String, FirstText>,
    #[serde(default)]
    params: BTreeMap<String, FirstText>,
    body: Option<String>,
    #[serde(default)]
    identities: Vec<Identity>,
}

/// What the host says of whoever asks.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Identity {
    #[serde(default)]
    claims: Vec<Claim>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Claim {
    r#type: Option<String>,
    value: Option<String>,
}

/// A scalar as text, or the first of a list; nothing for anything else.
struct FirstText(Option<String>);

impl<'de> Deserialize<'de> for FirstText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FirstTextVisitor).map(Self)
    }
}

struct FirstTextVisitor;

impl<'de> Visitor<'de> for FirstTextVisitor {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let first = list.next_element::<FirstText>()?;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(first.and_then(|first| first.0))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// Reads the request of an HTTP trigger from what the host posts.
///
/// # Errors
/// When the bytes are not what a host posts, or the binding is missing.
pub fn request(bytes: &[u8]) -> Result<HttpRequest, InvocationError> {
    let invocation: HttpInvocation = serde_json::from_slice(bytes).map_err(InvocationError::NotTheHosts)?;
    let request = invocation.data.req.ok_or(InvocationError::NoBinding(REQUEST))?;
    let Request { method, headers, query, params, body, identities } = request;
    let mut claims = identities.into_iter().flat_map(|identity| identity.claims);
    let texts = |members: BTreeMap<String, FirstText>| -> BTreeMap<String, String> {
        members.into_iter().filter_map(|(name, value)| Some((name, value.0?))).collect()
    };
    Ok(HttpRequest {
        method: method.unwrap_or_else(|| "GET".to_owned()),
        headers: texts(headers).into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect(),
        query: texts(query),
        params: texts(params),
        body,
        key_name: claims
            .find(|claim| claim.r#type.as_deref() == Some(KEY_NAME_CLAIM))
            .and_then(|claim| claim.value),
    })
}

/// A JSON string that holds a JSON string is that string; a text that is no JSON string stays. Texts
/// that look like numbers stay texts: an id may.
fn unwrap(value: &Value) -> Value {
    let Value::String(text) = value else { return value.clone() };
    let looks_wrapped = text.starts_with(['"', '{', '[']);
    match serde_json::from_str::<Value>(text) {
        Ok(inner) if looks_wrapped => inner,
        _ => value.clone(),
    }
}

/// The answer to a message or timer that was handled.
pub fn done() -> Value {
    json!({ "Outputs": {}, "Logs": [], "ReturnValue": null })
}

/// The answer to an HTTP request. The body is a text with its own content type: the host writes an
/// object without one. That type is the caller's alone; the reply around it is always JSON.
pub fn answer(answer: &HttpAnswer) -> Value {
    let content_type =
        if answer.status < 400 { "application/json; charset=utf-8" } else { "application/problem+json" };
    let mut headers = json!({ "Content-Type": content_type });
    if let Some(location) = &answer.location {
        headers["Location"] = json!(location);
    }
    json!({
        "Outputs": { RESPONSE: {
            "statusCode": answer.status,
            "headers": headers,
            "body": answer.body.to_string(),
        } },
        "Logs": [],
        "ReturnValue": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_arrive_encoded_once_more_and_numbers_as_strings() {
        let invocation = Invocation::read(
            br#"{"Data":{"message":"aGk="},"Metadata":{"DeliveryCount":"3","MessageId":"\"m-1\"","ContentType":"\"application/json\"",
                "EnqueuedTime":"2023-10-12T20:13:49+00:00","ApplicationProperties":{"cs-tenant-id":"acme"}}}"#,
        )
        .unwrap();
        assert_eq!(
            invocation.message().unwrap(),
            QueueMessage {
                body: b"hi".to_vec(),
                message_id: Some("m-1".into()),
                content_type: Some("application/json".into()),
                delivery_count: 3,
                enqueued_at: Some("2023-10-12T20:13:49Z".parse().unwrap()),
                properties: json!({"cs-tenant-id": "acme"}).as_object().unwrap().clone(),
            }
        );
    }

    #[test]
    fn a_single_encoded_string_is_taken_as_it_is() {
        let invocation =
            Invocation::read(br#"{"Data":{"message":""},"Metadata":{"MessageId":"m-1","DeliveryCount":2}}"#)
                .unwrap();
        let message = invocation.message().unwrap();
        assert_eq!((message.message_id.as_deref(), message.delivery_count), (Some("m-1"), 2));
    }

    #[test]
    fn metadata_may_be_missing() {
        let message = Invocation::read(br#"{"Data":{"message":""}}"#).unwrap().message().unwrap();
        assert_eq!((message.message_id, message.delivery_count, message.properties), (None, 1, Map::new()));
    }

    #[test]
    fn headers_are_lists_and_their_names_have_no_case() {
        let request = request(
            br#"{"Data":{"req":{"Method":"GET","Headers":{"X-Cs-Tenant-Id":["acme"]},"Query":{"after":"7"},"Params":{"id":"env-1"}}}}"#,
        );
        let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert_eq!(
            request.unwrap(),
            HttpRequest {
                method: "GET".into(),
                headers: one("x-cs-tenant-id", "acme"),
                query: one("after", "7"),
                params: one("id", "env-1"),
                body: None,
                key_name: None,
            }
        );
    }

    #[test]
    fn a_caller_is_known_by_the_name_of_the_key() {
        let request = request(include_bytes!("../tests/golden/invocations/http_post.json")).unwrap();
        assert_eq!(request.key_name.as_deref(), Some("local"));
    }

    #[test]
    fn a_no_is_a_problem_and_its_reply_is_plain_json() {
        let reply = answer(&HttpAnswer::problem(404, "PlanNotFound", "There is no plan `plan-1`."));
        assert_eq!(
            reply["Outputs"]["res"],
            json!({
                "statusCode": 404,
                "headers": { "Content-Type": "application/problem+json" },
                "body": r#"{"type":"about:blank","title":"Not Found","status":404,"detail":"There is no plan `plan-1`.","code":"PlanNotFound"}"#,
            })
        );
        let location = Some("/api/v1/runtime/commands/evt-1".to_owned());
        let reply = answer(&HttpAnswer { location, ..HttpAnswer::new(202, json!({})) });
        assert_eq!(reply["Outputs"]["res"]["headers"]["Location"], "/api/v1/runtime/commands/evt-1");
    }
}
