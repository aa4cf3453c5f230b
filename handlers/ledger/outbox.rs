//! What leaves: events, which stay as entries of the feed, and messages to our own queues.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{EVENT, MESSAGE, SENT_EVENT_SECONDS, State};
use crate::ids::{self, EventId};

/// An event on its way out, and afterwards an entry of the feed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxEvent {
    pub event_id: EventId,
    pub event_type: String,
    pub correlation_id: String,
    pub causation_id: Option<String>,
    pub topic: String,
    pub schema_version: String,
    /// Whose event it is; events of one aggregate are published in order.
    pub aggregate: String,
    /// Counts the aggregate's events from 1.
    pub sequence: u64,
    pub traceparent: Option<String>,
    /// Set on the events of which subscribers may want some kinds only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// The canonical envelope, byte for byte.
    pub envelope: String,
    pub recorded_at: Timestamp,
    pub sent_at: Option<Timestamp>,
}

impl State for OutboxEvent {
    const KIND: &'static str = EVENT;

    fn made_at(&self) -> Timestamp {
        self.recorded_at
    }

    fn due(&self) -> Option<Timestamp> {
        self.sent_at.is_none().then_some(self.recorded_at)
    }

    fn ttl_seconds(&self) -> Option<u32> {
        self.sent_at.map(|_| SENT_EVENT_SECONDS)
    }
}

/// What the property `cs-change` says of an event: rules of subscriptions ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// It tells something new.
    Transition,
    /// It tells that nothing changed.
    Heartbeat,
}

impl Change {
    /// The word as the property carries it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transition => "transition",
            Self::Heartbeat => "heartbeat",
        }
    }
}

/// The id of the outbox document that holds an aggregate's event of a number. With it a publisher
/// sees by one point read whether an earlier event is still unsent.
pub fn outbox_id(aggregate: &str, sequence: u64) -> String {
    format!("event-{}-{sequence:08}", ids::derive(&["aggregate", aggregate]).simple())
}

/// A message to one of our own queues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxMessage {
    pub queue: String,
    pub message_id: String,
    pub content_type: String,
    /// Base64: a copy of somebody's message need not be text.
    pub body: String,
    pub properties: BTreeMap<String, String>,
    pub scheduled_at: Option<Timestamp>,
    pub recorded_at: Timestamp,
}

impl State for OutboxMessage {
    const KIND: &'static str = MESSAGE;

    fn made_at(&self) -> Timestamp {
        self.recorded_at
    }

    fn due(&self) -> Option<Timestamp> {
        Some(self.recorded_at)
    }
}

impl OutboxMessage {
    /// A message whose body is JSON, without properties, to be delivered at once.
    pub fn json(queue: &str, message_id: String, body: impl AsRef<[u8]>, now: Timestamp) -> Self {
        Self {
            queue: queue.to_owned(),
            message_id,
            content_type: "application/json".to_owned(),
            body: BASE64_STANDARD.encode(body),
            properties: BTreeMap::new(),
            scheduled_at: None,
            recorded_at: now,
        }
    }
}
