//! The two forms in which an envelope travels, against samples of what MassTransit 8 sends.

use std::path::Path;

use expect_test::{expect, expect_file};
use jiff::Timestamp;
use proptest::prelude::*;
use runtime_platform::{
    envelope::Envelope,
    ids::TenantId,
    masstransit::{
        Delivered, PUBLISHED_BYTES_MAX, Published, Received, Unreadable, WireFormat, publish, read,
    },
};
use serde_json::{Map, Value, json};

use super::envelope::{command, examples, published};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A sample: what was delivered, and what we should make of it.
struct Sample {
    name: String,
    file: Value,
}

impl Sample {
    fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/masstransit");
        let mut samples: Vec<Self> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                Self {
                    name: path.file_name().unwrap().to_string_lossy().into_owned(),
                    file: serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap(),
                }
            })
            .collect();
        samples.sort_by(|a, b| a.name.cmp(&b.name));
        samples
    }

    fn named(start: &str) -> Self {
        Self::all().into_iter().find(|sample| sample.name.starts_with(start)).unwrap()
    }

    fn body(&self) -> Vec<u8> {
        match &self.file["body"] {
            Value::String(text) => text.clone().into_bytes(),
            object => object.to_string().into_bytes(),
        }
    }

    fn read(&self) -> Result<Received, Unreadable> {
        read(&Delivered {
            content_type: self.file["contentType"].as_str(),
            properties: self.file["applicationProperties"].as_object().unwrap(),
            message_id: self.file["brokerProperties"]["MessageId"].as_str(),
            body: &self.body(),
        })
    }
}

#[test]
fn every_sample_gets_the_verdict_that_it_names() {
    let samples = Sample::all();
    assert_eq!(samples.len(), 10);
    for sample in samples {
        let (expected, read) = (&sample.file["expect"], sample.read());
        let told = match &read {
            Ok(received) => json!({
                "verdict": "accept",
                "format": match received.wire {
                    WireFormat::MassTransit => "masstransit-envelope",
                    WireFormat::Raw => "raw-json",
                },
                "eventId": received.envelope.event_id,
                "eventType": received.envelope.event_type,
                "tenantId": received.envelope.tenant_id,
                "transportDedupeKey": received.dedupe_key,
            }),
            Err(unreadable) => json!({"verdict": "reject", "reason": unreadable.reason()}),
        };
        for (field, value) in told.as_object().unwrap() {
            assert_eq!(value, &expected[field], "{}: {field}: {read:?}", sample.name);
        }
    }
}

#[test]
fn a_request_keeps_what_an_answer_needs() {
    let sample = Sample::named("05");
    let received = sample.read().unwrap();
    let body = &sample.file["body"];
    let expected: Envelope<Value> = serde_json::from_value(body["message"].clone()).unwrap();
    assert_eq!(
        received,
        Received {
            envelope: expected,
            wire: WireFormat::MassTransit,
            dedupe_key: Some("b4300000-db6b-5405-8800-08de784542ae".into()),
            request_id: Some("c1a80000-db6b-5405-8801-08de784542ae".into()),
            conversation_id: Some("b4300000-db6b-5405-8802-08de784542ae".into()),
            response_address: body["responseAddress"].as_str().map(str::to_owned),
            fault_address: None,
            expiration_time: Some("2026-03-02T10:20:30.0001204Z".parse().unwrap()),
            traceparent: Some(TRACEPARENT.into()),
        }
    );
}

#[test]
fn the_trace_is_the_nearest_that_is_told() {
    let trace = |start| Sample::named(start).read().unwrap().traceparent;
    let sdk = "00-4bf92f3577b34da6a3ce929d0e0e4736-53995c3f42cd8ad8-01";
    assert_eq!(trace("01").as_deref(), Some(sdk));
    assert_eq!(trace("02"), None);
    assert_eq!(trace("03").as_deref(), Some(TRACEPARENT));
    assert_eq!(trace("07").as_deref(), Some(TRACEPARENT), "from the envelope's headers");
}

/// Reads a raw body with properties.
fn read_raw(body: &[u8], properties: &Value) -> Result<Received, Unreadable> {
    read(&Delivered {
        content_type: Some("application/json; charset=utf-8"),
        properties: properties.as_object().unwrap(),
        message_id: None,
        body,
    })
}

/// Reads a canonical envelope some field of which was replaced; `null` takes it away.
fn read_with(field: &str, value: Value) -> Result<Received, Unreadable> {
    let mut body: Value = serde_json::from_str(&command().canonical()).unwrap();
    if value.is_null() {
        body.as_object_mut().unwrap().remove(field);
    } else {
        body[field] = value;
    }
    read_raw(body.to_string().as_bytes(), &json!({}))
}

#[test]
fn a_field_that_is_wrong_is_named_with_what_to_do() {
    let table = [
        ("tenantId", Value::Null, "`tenantId` is missing: set it, the envelope cannot do without"),
        ("payload", Value::Null, "`payload` is missing: set it, the envelope cannot do without"),
        (
            "tenantId",
            json!(7),
            "`tenantId` is a number, a text is needed: correct it and send the message anew",
        ),
        (
            "tenantId",
            json!("_platform"),
            "`tenantId` `_platform` begins with `_`, which is reserved for the platform: correct it and send the message anew",
        ),
        ("eventId", json!(""), "`eventId` is empty: correct it and send the message anew"),
        (
            "eventType",
            json!("a".repeat(200)),
            "`eventType` has 200 characters, the longest allowed is 128: correct it and send the message anew",
        ),
        (
            "projectId",
            json!("é"),
            "`projectId` contains a character that is not printable ASCII: correct it and send the message anew",
        ),
        (
            "occurredAt",
            json!("yesterday"),
            "`occurredAt` is not a time as RFC 3339 writes it, such as `2026-03-02T10:15:30Z`: correct it and send the message anew",
        ),
        (
            "occurredAt",
            json!(17),
            "`occurredAt` is a number, a text is needed: correct it and send the message anew",
        ),
        (
            "payload",
            json!([1]),
            "`payload` is an array, an object is needed: correct it and send the message anew",
        ),
        (
            "UserProperties",
            json!({}),
            "the body has a member `userProperties`, which can be mistaken for the broker's own: leave it out, and set application properties on the message",
        ),
    ];
    for (field, value, sentence) in table {
        assert_eq!(read_with(field, value).unwrap_err().to_string(), sentence);
    }
}

#[test]
fn a_body_that_is_no_envelope_is_refused() {
    let table: [(&[u8], Unreadable); 8] = [
        (b"", Unreadable::Empty),
        (b" \r\n", Unreadable::Empty),
        (b"{\"a\":\xff}", Unreadable::NotUtf8 { position: 5 }),
        (b"[]", Unreadable::NotAnObject { place: "the body", found: "an array" }),
        (b"\"[]\"", Unreadable::NotAnObject { place: "the body", found: "an array" }),
        (b"{\n\"a\": nine}", Unreadable::NotJson { problem: "expected ident at line 2 column 7".into() }),
        (b"{\"message\":{}}", Unreadable::UnannouncedWrapper),
        (
            b"{\"EventId\":\"evt-1\",\"tenantId\":\"acme\"}",
            Unreadable::Invalid {
                field: "eventId".into(),
                problem: "is written `EventId`: the case matters".into(),
            },
        ),
    ];
    for (body, expected) in table {
        assert_eq!(read_raw(body, &json!({})), Err(expected), "{}", String::from_utf8_lossy(body));
    }
    assert_eq!(read_raw(&vec![b' '; 300_000], &json!({})), Err(Unreadable::TooLarge { bytes: 300_000 }));
}

#[test]
fn a_wrapper_is_refused_when_what_it_wraps_is_no_envelope() {
    let read_wrapper = |body: Value| {
        read(&Delivered {
            content_type: Some("application/vnd.masstransit+json"),
            properties: &Map::new(),
            message_id: None,
            body: body.to_string().as_bytes(),
        })
    };
    let message: Value = serde_json::from_str(&command().canonical()).unwrap();
    assert!(read_wrapper(json!({"message": message})).is_ok());
    assert_eq!(read_wrapper(json!({"message": null})), Err(Unreadable::WithoutMessage));
    assert_eq!(
        read_wrapper(json!({"message": {"tenantId": "acme"}})),
        Err(Unreadable::Missing { field: "message.eventId".into() })
    );
    assert_eq!(
        read_wrapper(json!({"message": "a text"})),
        Err(Unreadable::NotAnObject { place: "`message`", found: "a text" })
    );
    assert_eq!(
        read_wrapper(json!({"message": message, "expirationTime": "soon"})),
        Err(Unreadable::Invalid {
            field: "expirationTime".into(),
            problem: "is not a time as RFC 3339 writes it, such as `2026-03-02T10:15:30Z`".into()
        })
    );
}

#[test]
fn a_raw_fault_is_known_by_its_property() {
    let properties = json!({"mt-messagetype": "urn:message:Cs:X;urn:message:MassTransit:Fault"});
    assert_eq!(read_raw(command().canonical().as_bytes(), &properties), Err(Unreadable::Fault));
}

#[test]
fn the_content_type_decides_and_without_one_the_shape() {
    let (raw, properties) = (command().canonical(), Map::new());
    let wrapped = format!(r#"{{"message":{raw}}}"#);
    let wire = |content_type: Option<&str>, body: &str| {
        read(&Delivered { content_type, properties: &properties, message_id: None, body: body.as_bytes() })
            .map(|received| received.wire)
    };
    assert_eq!(wire(None, &raw), Ok(WireFormat::Raw));
    assert_eq!(wire(None, &wrapped), Ok(WireFormat::MassTransit));
    assert_eq!(wire(Some("Application/JSON;charset=utf-8"), &raw), Ok(WireFormat::Raw));
    assert_eq!(wire(Some("application/vnd.masstransit+json"), &raw), Err(Unreadable::WithoutMessage));
    assert_eq!(wire(Some("application/json"), &wrapped), Err(Unreadable::UnannouncedWrapper));
    assert_eq!(
        wire(Some("application/vnd.masstransit+aes"), &wrapped),
        Err(Unreadable::UnsupportedContentType { content_type: "application/vnd.masstransit+aes".into() })
    );
}

#[test]
fn a_body_that_was_made_a_text_once_more_is_read() {
    let text = json!(command().canonical()).to_string();
    assert_eq!(read_raw(text.as_bytes(), &json!({})).unwrap().envelope, command());
    let marked = format!("\u{feff}{}", command().canonical());
    assert_eq!(read_raw(marked.as_bytes(), &json!({})).unwrap().envelope, command());
}

#[test]
fn a_property_that_contradicts_the_body_is_refused_whatever_its_case() {
    let body = command().canonical();
    let agreeing =
        json!({"CS-Tenant-Id": "connectsoft", "cs-event-type": "Deploy", "cs-trace-id": "another"});
    assert!(read_raw(body.as_bytes(), &agreeing).is_ok());
    assert!(read_raw(body.as_bytes(), &json!({})).is_ok(), "both may be missing");
    let table = [
        (
            json!({"cs-tenant-id": "globex"}),
            "the property `cs-tenant-id` says `globex` and the body says `connectsoft`: set the property from the body, or leave it out",
        ),
        (
            json!({"cs-tenant-id": "connectsoft", "Cs-Tenant-ID": "globex"}),
            "the property `cs-tenant-id` says `globex` and the body says `connectsoft`: set the property from the body, or leave it out",
        ),
        (
            json!({"CS-EVENT-TYPE": "deploy"}),
            "the property `cs-event-type` says `deploy` and the body says `Deploy`: set the property from the body, or leave it out",
        ),
        (
            json!({"cs-tenant-id": 4}),
            "the property `cs-tenant-id` says `a number` and the body says `connectsoft`: set the property from the body, or leave it out",
        ),
    ];
    for (properties, sentence) in table {
        assert_eq!(read_raw(body.as_bytes(), &properties).unwrap_err().to_string(), sentence);
    }
}

#[test]
fn a_redelivery_with_a_new_id_keeps_the_key_of_the_first() {
    let key = |properties: Value| read_raw(command().canonical().as_bytes(), &properties).unwrap().dedupe_key;
    let (first, second) = ("7a0000000040d8ff1813000000000001", "b4300000-db6b-5405-9625-08de7844ddf9");
    assert_eq!(key(json!({})), None);
    assert_eq!(key(json!({"messageid": second})).as_deref(), Some(second));
    assert_eq!(
        key(json!({"MessageId": second, "MT-OriginalMessageId": first})).as_deref(),
        Some("7a000000-0040-d8ff-1813-000000000001")
    );
}

fn publish_on_deployment(envelope: &Envelope<Value>, wire: WireFormat) -> Published {
    let (sequence, trace) = (Some(42), Some(TRACEPARENT));
    publish(envelope, "1", wire, sequence, trace, "runtime.deployment", "cs-platform.servicebus.windows.net")
}

#[test]
fn an_event_is_published_as_masstransit_writes_it() {
    let message = publish_on_deployment(&published(&examples()[5]), WireFormat::MassTransit);
    assert_eq!(message.content_type, "application/vnd.masstransit+json");
    expect_file!["../golden/published/RuntimeDeploymentCompleted.masstransit.json"]
        .assert_eq(&format!("{}\n", String::from_utf8(message.body).unwrap()));
    expect![[r#"
        {
            "cs-correlation-id": "corr-81b4ce07",
            "cs-event-type": "RuntimeDeploymentCompleted",
            "cs-schema-version": "1",
            "cs-sequence": "42",
            "cs-tenant-id": "connectsoft",
            "cs-trace-id": "trace-5c2f9d1e",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        }
    "#]]
    .assert_debug_eq(&message.properties);
}

#[test]
fn an_event_is_published_as_it_is() {
    let envelope = published(&examples()[5]);
    let wrapped = publish_on_deployment(&envelope, WireFormat::MassTransit);
    assert_eq!(
        publish_on_deployment(&envelope, WireFormat::Raw),
        Published {
            content_type: "application/json",
            body: envelope.canonical().into_bytes(),
            properties: wrapped.properties
        }
    );
}

#[test]
fn what_is_not_known_is_not_said() {
    let message = publish(&command(), "1", WireFormat::MassTransit, None, None, "runtime.drift", "host");
    assert_eq!(
        message.properties.keys().collect::<Vec<_>>(),
        ["cs-correlation-id", "cs-event-type", "cs-schema-version", "cs-tenant-id", "cs-trace-id"]
    );
    let body: Value = serde_json::from_slice(&message.body).unwrap();
    assert!(body["headers"].get("MT-Activity-Id").is_none());
    assert!(body["headers"].get("cs-sequence").is_none());
}

#[test]
fn the_wrapper_leaves_most_of_the_limit_to_the_payload() {
    let envelope = published(&examples()[5]);
    let wrapper =
        publish_on_deployment(&envelope, WireFormat::MassTransit).body.len() - envelope.canonical().len();
    assert!(wrapper < PUBLISHED_BYTES_MAX / 64, "the wrapper has {wrapper} bytes");
}

fn id() -> impl Strategy<Value = String> {
    "[ -~]{1,128}"
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            object(inner).prop_map(Value::from),
        ]
    })
}

fn object(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec((any::<String>(), inner), 0..4).prop_map(|members| members.into_iter().collect())
}

prop_compose! {
    fn envelope()(
        event_id in prop_oneof![id(), Just("evt-3a6e1f0c-6f0b-4f5e-9d0e-2f6b7a1c9e11".to_owned())],
        event_type in id(),
        tenant in "[ -^`-~][ -~]{0,127}",
        project in prop::option::of(id()),
        module in prop::option::of(id()),
        (trace, correlation) in (id(), id()),
        causation_id in prop::option::of(id()),
        second in 0_i64..4_000_000_000,
        payload in object(json_value()),
    ) -> Envelope<Value> {
        Envelope {
            event_id: event_id.parse().unwrap(),
            event_type,
            tenant_id: tenant.parse::<TenantId>().unwrap(),
            project_id: project.map(|id| id.parse().unwrap()),
            module_id: module.map(|id| id.parse().unwrap()),
            trace_id: trace.parse().unwrap(),
            correlation_id: correlation.parse().unwrap(),
            causation_id,
            occurred_at: Timestamp::from_second(second).unwrap(),
            payload: Value::Object(payload),
        }
    }
}

proptest! {
    #[test]
    fn what_is_published_reads_back_as_it_was(envelope in envelope(), raw in any::<bool>(), content_type in any::<bool>()) {
        let wire = if raw { WireFormat::Raw } else { WireFormat::MassTransit };
        let message = publish_on_deployment(&envelope, wire);
        let properties: Map<String, Value> =
            message.properties.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let uuid = envelope.event_id.broker_message_id().to_string();
        let received = read(&Delivered {
            content_type: content_type.then_some(message.content_type),
            properties: &properties,
            message_id: Some(&uuid),
            body: &message.body,
        });
        let conversation = received.as_ref().ok().and_then(|received| received.conversation_id.clone());
        prop_assert_eq!(conversation.is_some(), !raw);
        prop_assert_eq!(received, Ok(Received {
            envelope: envelope.clone(),
            wire,
            dedupe_key: Some(uuid),
            request_id: None,
            conversation_id: conversation,
            response_address: None,
            fault_address: None,
            expiration_time: None,
            traceparent: Some(TRACEPARENT.into()),
        }));
        // Whatever wraps it, the canonical envelope is there to the byte.
        let body = String::from_utf8(message.body).unwrap();
        prop_assert!(body.contains(&envelope.canonical()));
    }

    #[test]
    fn no_body_does_more_than_be_refused(body in prop::collection::vec(any::<u8>(), 0..200), wrapped in any::<bool>()) {
        let content_type = if wrapped { "application/vnd.masstransit+json" } else { "application/json" };
        let delivered =
            Delivered { content_type: Some(content_type), properties: &Map::new(), message_id: None, body: &body };
        prop_assert!(read(&delivered).is_err());
    }

    #[test]
    fn no_refusal_repeats_what_the_body_holds(field in 0_usize..10, broken in 0_usize..5) {
        const SECRET: &str = "hunter2-hunter2";
        let mut body: Value = serde_json::from_str(&command().canonical()).unwrap();
        let name = body.as_object().unwrap().keys().nth(field).unwrap().clone();
        body["payload"] = json!({"password": SECRET});
        body[&name] = match broken {
            0 => json!([SECRET]),
            1 => json!({"value": SECRET}),
            2 => json!(format!("{SECRET}\n")),
            3 => json!(SECRET.repeat(10)),
            _ => json!(12),
        };
        let text = body.to_string();
        for body in [&text[..], &text[..text.len() - 1], &format!("{text}{SECRET}"), &text.replace(':', SECRET)] {
            if let Err(unreadable) = read_raw(body.as_bytes(), &json!({})) {
                prop_assert!(!format!("{unreadable} {unreadable:?}").contains("hunter2"), "{}", unreadable);
            }
        }
    }
}
