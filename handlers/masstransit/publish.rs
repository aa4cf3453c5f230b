//! An envelope on its way out.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::WireFormat;
use crate::{
    envelope::{Envelope, whole_seconds},
    ids::derive,
};

/// The largest body that is published, in bytes, whatever wraps it. The broker takes 256 KiB and
/// counts the properties too.
pub const PUBLISHED_BYTES_MAX: usize = 192 * 1024;

/// What every message of ours says it is, to a .NET contract with `[MessageUrn("cs:event-envelope:v1")]`.
const ENVELOPE_URN: &str = "urn:message:cs:event-envelope:v1";
/// What each event says it is beside, followed by its name.
const EVENT_URN: &str = "urn:message:ConnectSoft.Factory.Runtime:";
/// The endpoint that our messages come from, as MassTransit names endpoints.
const SOURCE: &str = "runtime-platform";

/// A message as the broker takes it. Its MessageId is not part of it: that is the envelope's
/// [`broker_message_id`](crate::ids::EventId::broker_message_id), or another one for a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub content_type: &'static str,
    pub body: Vec<u8>,
    /// Application properties. The names are in lower case: they travel as HTTP headers.
    pub properties: BTreeMap<String, String>,
}

/// Writes an envelope for the topic `destination` of the Service Bus at `namespace_host`.
///
/// The same arguments make the same bytes, as a resend must. The canonical envelope is in the body
/// byte for byte. `sequence` is the event's number within its aggregate.
pub fn publish(
    envelope: &Envelope<Value>,
    event_schema_version: &str,
    wire: WireFormat,
    sequence: Option<u64>,
    traceparent: Option<&str>,
    destination: &str,
    namespace_host: &str,
) -> Published {
    let mut properties = BTreeMap::from([
        ("cs-event-type".to_owned(), envelope.event_type.clone()),
        ("cs-tenant-id".to_owned(), envelope.tenant_id.to_string()),
        ("cs-trace-id".to_owned(), envelope.trace_id.to_string()),
        ("cs-correlation-id".to_owned(), envelope.correlation_id.to_string()),
        ("cs-schema-version".to_owned(), event_schema_version.to_owned()),
    ]);
    if let Some(sequence) = sequence {
        properties.insert("cs-sequence".to_owned(), sequence.to_string());
    }
    let body = match wire {
        WireFormat::Raw => envelope.canonical(),
        WireFormat::MassTransit => {
            let mut headers = properties.clone();
            if let Some(traceparent) = traceparent {
                headers.insert("MT-Activity-Id".to_owned(), traceparent.to_owned());
            }
            wrapped(envelope, headers, destination, namespace_host)
        }
    };
    if let Some(traceparent) = traceparent {
        properties.insert("traceparent".to_owned(), traceparent.to_owned());
    }
    Published { content_type: wire.content_type(), body: body.into_bytes(), properties }
}

/// MassTransit's envelope, its members in the order in which MassTransit writes them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wrapper<'a> {
    /// MassTransit reads nothing but UUIDs in its ids.
    message_id: Uuid,
    request_id: Option<Uuid>,
    correlation_id: Option<Uuid>,
    conversation_id: Uuid,
    initiator_id: Option<Uuid>,
    source_address: String,
    destination_address: String,
    response_address: Option<String>,
    fault_address: Option<String>,
    message_type: [String; 2],
    message: &'a Envelope<Value>,
    expiration_time: Option<String>,
    sent_time: String,
    headers: BTreeMap<String, String>,
    host: Host,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Host {
    process_name: &'static str,
}

fn wrapped(
    envelope: &Envelope<Value>,
    headers: BTreeMap<String, String>,
    destination: &str,
    namespace_host: &str,
) -> String {
    let wrapper = Wrapper {
        message_id: envelope.event_id.broker_message_id(),
        request_id: None,
        correlation_id: None,
        conversation_id: derive(&["conversation", envelope.correlation_id.as_str()]),
        initiator_id: None,
        source_address: format!("sb://{namespace_host}/{SOURCE}"),
        destination_address: format!("sb://{namespace_host}/{destination}?type=topic"),
        response_address: None,
        fault_address: None,
        message_type: [ENVELOPE_URN.to_owned(), format!("{EVENT_URN}{}", envelope.event_type)],
        message: envelope,
        expiration_time: None,
        sent_time: whole_seconds::text(envelope.occurred_at),
        headers,
        host: Host { process_name: SOURCE },
    };
    serde_json::to_string(&wrapper).expect("texts, ids and JSON values always serialise")
}
