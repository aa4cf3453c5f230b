//! A Service Bus on this machine: Service Bus semantics in a durable core, protocols at its edge.
//!
//! A message is accepted only when it is on disk.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::{local::database::{DatabaseFault, OpenError}, ports::clock::Clock};

/// A message as the broker keeps it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Assigned by the broker where the sender gave none.
    pub message_id: String,
    pub content_type: Option<String>,
    pub correlation_id: Option<String>,
    pub session_id: Option<String>,
    pub subject: Option<String>,
    pub to: Option<String>,
    pub reply_to: Option<String>,
    pub reply_to_session_id: Option<String>,
    pub partition_key: Option<String>,
    pub time_to_live: Option<Duration>,
    pub scheduled_enqueue_time: Option<Timestamp>,
    /// Application properties: strings, numbers and booleans.
    pub properties: BTreeMap<String, Value>,
    pub body: Vec<u8>,
}

/// A message that was received under a lock.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    pub message: Message,
    pub sequence_number: i64,
    /// Deliveries, this one included: 1 at first.
    pub delivery_count: u32,
    pub enqueued_at: Timestamp,
    /// When the message expires; none where it does not.
    pub expires_at: Option<Timestamp>,
    pub lock_token: Uuid,
    pub locked_until: Timestamp,
    /// The entity from whose dead-letter queue it was forwarded.
    pub dead_letter_source: Option<String>,
}

/// What the broker answers instead.
#[derive(Debug, thiserror::Error)]
pub enum BusRefusal {
    #[error("The messaging entity '{0}' could not be found.")]
    EntityNotFound(String),
    #[error("The lock supplied is invalid: it has expired, or the message was settled already.")]
    LockLost,
    #[error("{0}")]
    Invalid(String),
    #[error("The message is {size} bytes, {limit} are allowed.")]
    TooLarge { size: usize, limit: usize },
    #[error("The entity '{0}' is full.")]
    QuotaExceeded(String),
    #[error(transparent)]
    Database(#[from] DatabaseFault),
}

/// A broker. Cheap to clone.
#[derive(Clone)]
pub struct ServiceBus {}

/// What `infra/messaging.json` declares.
pub struct Topology {}

/// An error in `infra/messaging.json`: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {path}: {problem}")]
pub struct TopologyError {
    pub file: String,
    /// e.g. `topics[2].subscriptions[0].rules[1].sqlFilter`
    pub path: String,
    pub problem: String,
}

impl Topology {
    pub fn read(file: &Path) -> Result<Self, Vec<TopologyError>> { todo!() }
}

impl ServiceBus {
    /// Opens the broker's file; entities that the topology no longer declares and that hold no
    /// message go, the others stay.
    pub fn open(file: &Path, topology: Topology, clock: Arc<dyn Clock>) -> Result<Self, OpenError> { todo!() }

    /// Accepts messages into a queue or topic, all or none, once they are on disk.
    pub async fn send(&self, entity: &str, messages: Vec<Message>) -> Result<(), BusRefusal> { todo!() }

    /// Locks up to `max` messages of `path` (`queue`, `topic/Subscriptions/name`, either with
    /// `/$DeadLetterQueue`), waiting up to `wait` for the first.
    pub async fn receive(&self, path: &str, max: usize, wait: Duration) -> Result<Vec<Received>, BusRefusal> { todo!() }

    /// Receives and deletes.
    pub async fn take(&self, path: &str, max: usize, wait: Duration) -> Result<Vec<Received>, BusRefusal> { todo!() }

    pub async fn complete(&self, path: &str, lock_token: Uuid) -> Result<(), BusRefusal> { todo!() }

    /// Gives the message back at once; beyond the entity's MaxDeliveryCount it is dead-lettered.
    pub async fn abandon(&self, path: &str, lock_token: Uuid) -> Result<(), BusRefusal> { todo!() }

    pub async fn dead_letter(&self, path: &str, lock_token: Uuid, reason: &str, description: &str) -> Result<(), BusRefusal> { todo!() }

    /// Answers until when the lock now holds.
    pub async fn renew(&self, path: &str, lock_token: Uuid) -> Result<Timestamp, BusRefusal> { todo!() }

    /// Active messages, for a person's eye and for tests: entity path to (active, dead-lettered, scheduled).
    pub async fn counts(&self) -> Result<BTreeMap<String, (u64, u64, u64)>, BusRefusal> { todo!() }
}
