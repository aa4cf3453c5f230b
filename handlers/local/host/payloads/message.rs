//! A Service Bus message, one at a time.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::local::{
    host::{
        app::{DataType, MessageTrigger},
        wire::{Metadata, Net, Occasion, invocation},
    },
    service_bus::Received,
};

/// The end of .NET's calendar: when a message that does not expire expires.
const NEVER: &str = "9999-12-31T23:59:59";
/// What a custom handler sees of the objects that .NET functions settle with.
const EMPTY_OBJECTS: &[&str] =
    &["MessageReceiver", "MessageSession", "MessageActions", "SessionActions", "ReceiveActions"];

/// The body of the request, or why the message cannot be passed on. `client` names this host's
/// connection to the namespace.
pub fn message(
    function: &str,
    trigger: &MessageTrigger,
    received: &Received,
    client: &str,
    occasion: Occasion,
) -> Result<String, &'static str> {
    let mut metadata = Metadata::default();
    for name in EMPTY_OBJECTS {
        metadata.put(name, Net::Object(json!({})));
    }
    metadata.put(
        "Client",
        Net::Object(json!({
            "FullyQualifiedNamespace": trigger.namespace,
            "IsClosed": false,
            "TransportType": 0,
            "Identifier": client,
        })),
    );
    broker_properties(&mut metadata, received);
    metadata.put_sys(function, occasion);
    let body = &received.message.body;
    let data = match trigger.data_type {
        DataType::Binary => Net::Bytes(body.clone()),
        DataType::Text => {
            let text = std::str::from_utf8(body)
                .map_err(|_| "the message is no UTF-8 text: its trigger needs \"dataType\": \"binary\"")?;
            metadata.merge_body(text);
            Net::Text(text.to_owned())
        }
    };
    Ok(invocation(&trigger.name, data, metadata))
}

fn broker_properties(metadata: &mut Metadata, received: &Received) {
    let message = &received.message;
    let text = |text: &Option<String>| text.clone().map_or(Net::Null, Net::Text);
    metadata.put("DeliveryCount", Net::Integer(received.delivery_count.into()));
    metadata.put("DeadLetterSource", text(&received.dead_letter_source));
    metadata.put("LockToken", Net::Text(received.lock_token.to_string()));
    put_expiry(metadata, received.expires_at);
    metadata.put("EnqueuedTimeUtc", Net::Time(received.enqueued_at));
    metadata.put("EnqueuedTime", Net::TimeWithOffset(received.enqueued_at));
    metadata.put("MessageId", Net::Text(message.message_id.clone()));
    metadata.put("ContentType", text(&message.content_type));
    metadata.put("ReplyTo", text(&message.reply_to));
    metadata.put("SequenceNumber", Net::Integer(received.sequence_number));
    metadata.put("To", text(&message.to));
    metadata.put("Subject", text(&message.subject));
    metadata.put("Label", text(&message.subject));
    metadata.put("CorrelationId", text(&message.correlation_id));
    let properties: Map<String, Value> = message.properties.clone().into_iter().collect();
    metadata.put("ApplicationProperties", Net::Object(Value::Object(properties.clone())));
    metadata.put("UserProperties", Net::Object(Value::Object(properties)));
    metadata.put("SessionId", text(&message.session_id));
    metadata.put("ReplyToSessionId", text(&message.reply_to_session_id));
    metadata.put("PartitionKey", text(&message.partition_key));
}

fn put_expiry(metadata: &mut Metadata, expires_at: Option<Timestamp>) {
    match expires_at {
        Some(time) => {
            metadata.put("ExpiresAtUtc", Net::Time(time));
            metadata.put("ExpiresAt", Net::TimeWithOffset(time));
        }
        None => {
            // Times are written as they stand, so a text in an object's place is the same on the wire.
            metadata.put("ExpiresAtUtc", Net::Object(json!(NEVER)));
            metadata.put("ExpiresAt", Net::Object(json!(format!("{NEVER}+00:00"))));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::local::{host::payloads::golden, service_bus::Message};

    const ID: &str = "4e773554-f6b7-4ea2-b07d-4c5fd5aba741";

    fn trigger(data_type: DataType) -> MessageTrigger {
        MessageTrigger {
            name: "queue".into(),
            path: "q".into(),
            data_type,
            namespace: "ns.servicebus.windows.net".into(),
        }
    }

    fn received() -> Received {
        Received {
            message: Message {
                message_id: ID.into(),
                content_type: Some("application/json".into()),
                properties: BTreeMap::from([
                    ("Attempt".to_owned(), json!(3)),
                    ("Kind".to_owned(), json!("OrderPlaced")),
                ]),
                body: br#"{"message":"hello","number":2}"#.to_vec(),
                ..Message::default()
            },
            sequence_number: 1,
            delivery_count: 1,
            enqueued_at: "2023-10-12T20:13:49.64Z".parse().unwrap(),
            expires_at: Some("2023-10-12T20:13:49.99Z".parse().unwrap()),
            lock_token: ID.parse().unwrap(),
            locked_until: "2023-10-12T20:14:49Z".parse().unwrap(),
            dead_letter_source: None,
        }
    }

    fn encode(data_type: DataType, received: &Received) -> Result<String, &'static str> {
        let occasion =
            Occasion { now: "2023-10-12T20:13:49.640002Z".parse().unwrap(), random: ID.parse().unwrap() };
        message(
            "helloQueue",
            &trigger(data_type),
            received,
            &format!("ns.servicebus.windows.net-{ID}"),
            occasion,
        )
    }

    #[test]
    fn a_text_is_encoded_twice_and_its_members_are_merged() {
        golden::compare("service_bus_string", &encode(DataType::Text, &received()).unwrap());
    }

    #[test]
    fn bytes_are_base64_and_never_merged() {
        golden::compare("service_bus_binary", &encode(DataType::Binary, &received()).unwrap());
    }

    #[test]
    fn every_property_of_the_broker_has_its_place() {
        let text = |text: &str| Some(text.to_owned());
        let full = received();
        let full = Received {
            message: Message {
                correlation_id: text("c-1"),
                session_id: text("s-1"),
                subject: text("subject"),
                to: text("to"),
                reply_to: text("reply"),
                reply_to_session_id: text("rs"),
                partition_key: text("s-1"),
                ..full.message
            },
            expires_at: None,
            dead_letter_source: text("source"),
            ..full
        };
        golden::compare("service_bus_all_properties", &encode(DataType::Binary, &full).unwrap());
    }

    #[test]
    fn what_is_no_text_needs_binary() {
        let mut received = received();
        received.message.body = vec![0xff];
        assert_eq!(
            encode(DataType::Text, &received),
            Err("the message is no UTF-8 text: its trigger needs \"dataType\": \"binary\"")
        );
        assert!(encode(DataType::Binary, &received).unwrap().starts_with(r#"{"Data":{"queue":"/w=="},"#));
    }
}
