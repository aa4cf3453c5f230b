//! The forms in which an envelope travels: within MassTransit's envelope, or as it is.
//!
//! [`read`] takes both and is liberal with what does not matter; [`publish`] writes either, and is
//! strict. MassTransit's other content types (bson, xml, encrypted ones), claim checks and replies
//! are absent: nobody who speaks to this platform uses them.
//!
//! A received property is found whatever the case of its name: what we publish travels as HTTP
//! headers, which keep none.

mod publish;
mod unreadable;

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

pub use publish::{PUBLISHED_BYTES_MAX, Published, publish};
pub use unreadable::Unreadable;

use crate::{
    envelope::Envelope,
    ids::{EventId, ID_LENGTH_MAX, IdError, TenantId},
};

/// The media type of MassTransit's JSON envelope.
pub const MASSTRANSIT_JSON: &str = "application/vnd.masstransit+json";
/// The media type of an envelope that travels as it is.
pub const RAW_JSON: &str = "application/json";
/// The longest body that is read, in bytes: what the broker's standard tier carries.
pub const RECEIVED_BYTES_MAX: usize = 256 * 1024;
/// The longest address of MassTransit's that is kept, in bytes.
const ADDRESS_BYTES_MAX: usize = 2048;

/// How an envelope is wrapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WireFormat {
    /// As the `message` of MassTransit's envelope, which .NET consumers read as they come.
    #[default]
    MassTransit,
    /// As it is.
    Raw,
}

impl WireFormat {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::MassTransit => MASSTRANSIT_JSON,
            Self::Raw => RAW_JSON,
        }
    }
}

impl fmt::Display for WireFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::MassTransit => "masstransit",
            Self::Raw => "raw",
        })
    }
}

impl FromStr for WireFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "masstransit" => Ok(Self::MassTransit),
            "raw" => Ok(Self::Raw),
            _ => Err(format!("`{text}` is no wire format: write `masstransit` or `raw`")),
        }
    }
}

/// A message as the trigger hands it over.
#[derive(Clone, Copy, Debug)]
pub struct Delivered<'a> {
    pub content_type: Option<&'a str>,
    /// Application properties.
    pub properties: &'a Map<String, Value>,
    /// The broker's.
    pub message_id: Option<&'a str>,
    pub body: &'a [u8],
}

/// A message that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    pub envelope: Envelope<Value>,
    pub wire: WireFormat,
    /// What the sender's transport calls this message, the same for every redelivery: a UUID is
    /// written with dashes in small letters, anything else as it came.
    pub dedupe_key: Option<String>,
    /// What a requester of MassTransit's matches an answer by.
    pub request_id: Option<String>,
    pub conversation_id: Option<String>,
    /// Where a requester of MassTransit's waits for the answer.
    pub response_address: Option<String>,
    pub fault_address: Option<String>,
    /// When the sender gives up on the message.
    pub expiration_time: Option<Timestamp>,
    /// The W3C trace parent: `traceparent`, else `MT-Activity-Id`, else `Diagnostic-Id`.
    pub traceparent: Option<String>,
}

/// Reads a message in either form. The content type decides which; without one the shape does.
///
/// `cs-tenant-id` and `cs-event-type` must agree with the body where they are present; whether they
/// may be absent is the caller's to say. `MT-Fault-*`, `MT-Host-*` and `MT-Reason` are the history
/// of a message that was replayed, and mean nothing here.
///
/// # Errors
/// When the message is not one envelope in one of the two forms, or contradicts itself. No text of
/// an error repeats the body, short ids excepted.
pub fn read(delivered: &Delivered<'_>) -> Result<Received, Unreadable> {
    let announced = announced(delivered.content_type)?;
    let body = object(delivered.body)?;
    let wire = announced.unwrap_or_else(|| shape(&body));
    let properties = Named(delivered.properties);
    let received = match wire {
        WireFormat::MassTransit => wrapped(body, properties, delivered.message_id)?,
        WireFormat::Raw => raw(body, properties, delivered.message_id)?,
    };
    agree(properties, "cs-tenant-id", received.envelope.tenant_id.as_str())?;
    agree(properties, "cs-event-type", &received.envelope.event_type)?;
    Ok(received)
}

/// What the content type says, parameters such as the charset aside.
fn announced(content_type: Option<&str>) -> Result<Option<WireFormat>, Unreadable> {
    let Some(content_type) = content_type else { return Ok(None) };
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.is_empty() {
        Ok(None)
    } else if media_type.eq_ignore_ascii_case(MASSTRANSIT_JSON) {
        Ok(Some(WireFormat::MassTransit))
    } else if media_type.eq_ignore_ascii_case(RAW_JSON) {
        Ok(Some(WireFormat::Raw))
    } else {
        Err(Unreadable::UnsupportedContentType { content_type: short(media_type) })
    }
}

/// The form that a body without content type has.
fn shape(body: &Map<String, Value>) -> WireFormat {
    if is_wrapper(body) { WireFormat::MassTransit } else { WireFormat::Raw }
}

fn is_wrapper(body: &Map<String, Value>) -> bool {
    body.get("message").is_some_and(Value::is_object) && !body.contains_key("eventId")
}

/// The object that the body is. A sender is known that wraps it in a JSON string once more.
fn object(body: &[u8]) -> Result<Map<String, Value>, Unreadable> {
    if body.len() > RECEIVED_BYTES_MAX {
        return Err(Unreadable::TooLarge { bytes: body.len() });
    }
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let text =
        std::str::from_utf8(body).map_err(|error| Unreadable::NotUtf8 { position: error.valid_up_to() })?;
    if text.trim_ascii().is_empty() {
        return Err(Unreadable::Empty);
    }
    let value = match parse(text)? {
        Value::String(inner) => parse(&inner)?,
        value => value,
    };
    into_object("the body", value)
}

fn parse(text: &str) -> Result<Value, Unreadable> {
    serde_json::from_str(text).map_err(|error| Unreadable::NotJson { problem: error.to_string() })
}

fn into_object(place: &'static str, value: Value) -> Result<Map<String, Value>, Unreadable> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(Unreadable::NotAnObject { place, found: kind(&other) }),
    }
}

fn wrapped(
    mut body: Map<String, Value>,
    properties: Named<'_>,
    broker_message_id: Option<&str>,
) -> Result<Received, Unreadable> {
    refuse_shadow(&body)?;
    let urns = body.get("messageType").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if urns.iter().filter_map(Value::as_str).any(is_fault) {
        return Err(Unreadable::Fault);
    }
    let message = match body.remove("message") {
        None | Some(Value::Null) => return Err(Unreadable::WithoutMessage),
        Some(message) => into_object("`message`", message)?,
    };
    let no_headers = Map::new();
    let headers = Named(body.get("headers").and_then(Value::as_object).unwrap_or(&no_headers));
    let wrapper = Named(&body);
    let expiration_time = match body.get("expirationTime") {
        None | Some(Value::Null) => None,
        Some(value) => Some(time("expirationTime", value)?),
    };
    let original = properties.text("MT-OriginalMessageId").or_else(|| headers.text("MT-OriginalMessageId"));
    Ok(Received {
        envelope: envelope(message, "message.")?,
        wire: WireFormat::MassTransit,
        dedupe_key: transport_id(original)
            .or_else(|| transport_id(wrapper.text("messageId")))
            .or_else(|| transport_id(broker_message_id)),
        request_id: transport_id(wrapper.text("requestId")),
        conversation_id: transport_id(wrapper.text("conversationId")),
        response_address: address(wrapper.text("responseAddress")),
        fault_address: address(wrapper.text("faultAddress")),
        expiration_time,
        traceparent: traceparent(properties).or_else(|| traceparent(headers)),
    })
}

fn raw(
    body: Map<String, Value>,
    properties: Named<'_>,
    broker_message_id: Option<&str>,
) -> Result<Received, Unreadable> {
    refuse_shadow(&body)?;
    if properties.text("MT-MessageType").is_some_and(|urns| urns.split(';').any(is_fault)) {
        return Err(Unreadable::Fault);
    }
    if is_wrapper(&body) {
        return Err(Unreadable::UnannouncedWrapper);
    }
    Ok(Received {
        envelope: envelope(body, "")?,
        wire: WireFormat::Raw,
        dedupe_key: transport_id(properties.text("MT-OriginalMessageId"))
            .or_else(|| transport_id(properties.text("MessageId")))
            .or_else(|| transport_id(broker_message_id)),
        request_id: transport_id(properties.text("RequestId")),
        conversation_id: transport_id(properties.text("ConversationId")),
        response_address: address(properties.text("MT-Response-Address")),
        fault_address: address(properties.text("MT-Fault-Address")),
        expiration_time: None,
        traceparent: traceparent(properties),
    })
}

/// A `Fault<T>` carries the properties of the message that failed, and is not that message.
fn is_fault(urn: &str) -> bool {
    const FAULT: &str = "urn:message:MassTransit:Fault";
    let urn = urn.trim();
    urn.get(..FAULT.len()).is_some_and(|start| start.eq_ignore_ascii_case(FAULT))
        && matches!(urn.as_bytes().get(FAULT.len()), None | Some(b'['))
}

/// A host that hands a body over as text lets its members replace the broker's metadata. Ours does
/// not, and yet nobody who means well writes such a member.
fn refuse_shadow(body: &Map<String, Value>) -> Result<(), Unreadable> {
    for field in ["applicationProperties", "userProperties"] {
        if body.keys().any(|key| key.eq_ignore_ascii_case(field)) {
            return Err(Unreadable::Shadow { field });
        }
    }
    Ok(())
}

/// The canonical envelope within an object; `place` is what its field names are told with.
fn envelope(mut object: Map<String, Value>, place: &'static str) -> Result<Envelope<Value>, Unreadable> {
    let payload = object.remove("payload");
    let fields = Fields { object: &object, place };
    let tenant_id: TenantId = fields.id("tenantId")?;
    Ok(Envelope {
        event_id: fields.id("eventId")?,
        event_type: String::from(fields.id::<EventId>("eventType")?),
        tenant_id: tenant_id.checked().map_err(|error| fields.invalid("tenantId", error.to_string()))?,
        project_id: fields.optional_id("projectId")?,
        module_id: fields.optional_id("moduleId")?,
        trace_id: fields.id("traceId")?,
        correlation_id: fields.id("correlationId")?,
        causation_id: fields.optional_id::<EventId>("causationId")?.map(String::from),
        occurred_at: match fields.get("occurredAt") {
            Some(value) => time(&fields.path("occurredAt"), value)?,
            None => return Err(fields.missing("occurredAt")),
        },
        payload: match payload {
            Some(payload @ Value::Object(_)) => payload,
            None | Some(Value::Null) => return Err(fields.missing("payload")),
            Some(other) => {
                return Err(fields.invalid("payload", format!("is {}, an object is needed", kind(&other))));
            }
        },
    })
}

/// The fields of an envelope, on the way in.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    place: &'static str,
}

impl Fields<'_> {
    fn path(&self, field: &str) -> String {
        format!("{}{field}", self.place)
    }

    /// The field's value; a null is as good as none.
    fn get(&self, field: &str) -> Option<&Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    fn missing(&self, field: &str) -> Unreadable {
        let other = self.object.keys().find(|key| *key != field && key.eq_ignore_ascii_case(field));
        match other {
            Some(other) => self.invalid(field, format!("is written `{other}`: the case matters")),
            None => Unreadable::Missing { field: self.path(field) },
        }
    }

    fn invalid(&self, field: &str, problem: String) -> Unreadable {
        Unreadable::Invalid { field: self.path(field), problem }
    }

    fn id<I: FromStr<Err = IdError>>(&self, field: &str) -> Result<I, Unreadable> {
        self.optional_id(field)?.ok_or_else(|| self.missing(field))
    }

    fn optional_id<I: FromStr<Err = IdError>>(&self, field: &str) -> Result<Option<I>, Unreadable> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => {
                text.parse().map(Some).map_err(|error: IdError| self.invalid(field, error.to_string()))
            }
            Some(other) => Err(self.invalid(field, format!("is {}, a text is needed", kind(other)))),
        }
    }
}

fn time(field: &str, value: &Value) -> Result<Timestamp, Unreadable> {
    let problem = match value {
        Value::String(text) => match text.parse() {
            Ok(at) => return Ok(at),
            // The parser's own words repeat the text.
            Err(_) => "is not a time as RFC 3339 writes it, such as `2026-03-02T10:15:30Z`".to_owned(),
        },
        other => format!("is {}, a text is needed", kind(other)),
    };
    Err(Unreadable::Invalid { field: field.to_owned(), problem })
}

/// Every property of that name, in whatever case, must say what the body says.
fn agree(properties: Named<'_>, property: &'static str, body: &str) -> Result<(), Unreadable> {
    for value in properties.all(property) {
        if value.as_str() != Some(body) {
            let says = value.as_str().map_or_else(|| kind(value).to_owned(), short);
            return Err(Unreadable::Contradiction { property, says, body: short(body) });
        }
    }
    Ok(())
}

/// Values whose names have no case.
#[derive(Clone, Copy)]
struct Named<'a>(&'a Map<String, Value>);

impl<'a> Named<'a> {
    fn all(self, name: &str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn text(self, name: &str) -> Option<&'a str> {
        self.all(name).find_map(Value::as_str)
    }
}

/// An id of the transport. It is opaque to us, so one that is not usable is none.
fn transport_id(text: Option<&str>) -> Option<String> {
    let text = text?;
    if let Ok(uuid) = Uuid::try_parse(text) {
        return Some(uuid.hyphenated().to_string());
    }
    let printable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    (printable && !text.is_empty() && text.len() <= ID_LENGTH_MAX).then(|| text.to_owned())
}

fn address(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty() && text.len() <= ADDRESS_BYTES_MAX).map(str::to_owned)
}

fn traceparent(values: Named<'_>) -> Option<String> {
    ["traceparent", "MT-Activity-Id", "Diagnostic-Id"]
        .into_iter()
        .find_map(|name| values.text(name).filter(|text| is_traceparent(text)))
        .map(str::to_owned)
}

/// Whether a text has the form of version 0 of the W3C trace parent, `00-{32}-{16}-{2}` in hex.
pub fn is_traceparent(text: &str) -> bool {
    const LENGTHS: [usize; 4] = [2, 32, 16, 2];
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.starts_with("00-")
        && text.split('-').map(str::len).eq(LENGTHS)
        && text.split('-').all(|part| part.bytes().all(hex))
}

/// A text that may be told to a person: an id, not a document.
fn short(text: &str) -> String {
    const TOLD_CHARACTERS_MAX: usize = 80;
    if text.len() > TOLD_CHARACTERS_MAX {
        format!("a text of {} bytes", text.len())
    } else if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        text.to_owned()
    } else {
        "a text that is not printable ASCII".to_owned()
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_known_by_its_urn_alone() {
        let told = |urn| is_fault(urn);
        assert!(told("urn:message:MassTransit:Fault"));
        assert!(told(" URN:message:masstransit:fault[[Cs:Thing]]"));
        assert!(!told("urn:message:MassTransit:FaultTolerance"));
        assert!(!told("urn:message:Cs:Fault"));
        assert!(!told("urn:message:MassTransit:Faul\u{e9}"));
    }

    #[test]
    fn a_uuid_of_the_transport_has_one_spelling() {
        let spelled = Some("e6550000-40d8-00ff-f4f8-08d245dca3c8".to_owned());
        assert_eq!(transport_id(Some("e655000040d800fff4f808d245dca3c8")), spelled);
        assert_eq!(transport_id(Some("{E6550000-40D8-00FF-F4F8-08D245DCA3C8}")), spelled);
        assert_eq!(transport_id(Some("evt-7")), Some("evt-7".to_owned()));
        assert_eq!(transport_id(Some("")), None);
        assert_eq!(transport_id(Some(&"x".repeat(129))), None);
        assert_eq!(transport_id(Some("a\nb")), None);
        assert_eq!(transport_id(None), None);
    }

    #[test]
    fn what_is_no_trace_parent_is_passed_over() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        for bad in ["", "00-1-2-3", "|4bf92f35.1.", &good.to_uppercase(), &format!("{good}-x")] {
            assert!(!is_traceparent(bad), "{bad}");
        }
        let Value::Object(properties) = serde_json::json!({"traceparent": "?", "diagnostic-id": good}) else {
            unreachable!()
        };
        assert_eq!(traceparent(Named(&properties)), Some(good.to_owned()));
    }

    #[test]
    fn a_wire_format_reads_what_it_writes() {
        for format in [WireFormat::MassTransit, WireFormat::Raw] {
            assert_eq!(format.to_string().parse(), Ok(format));
            assert_eq!(serde_json::to_value(format).unwrap(), format.to_string());
        }
        assert_eq!(
            "json".parse::<WireFormat>(),
            Err("`json` is no wire format: write `masstransit` or `raw`".to_owned())
        );
    }

    #[test]
    fn only_short_plain_texts_are_told() {
        assert_eq!(short("tenant-acme"), "tenant-acme");
        assert_eq!(short(&"x".repeat(81)), "a text of 81 bytes");
        assert_eq!(short("a\u{7}"), "a text that is not printable ASCII");
    }
}
