//! A Service Bus on this machine: Service Bus semantics in a durable core, protocols at its edge.
//!
//! A message is accepted only when it is on disk. What a receiver holds it holds under a lock, and
//! gets only while the lock is good; a lock that runs out makes the message visible again.
//!
//! Absent on purpose: sessions (their ids are carried, their order is not kept), deferral,
//! transactions, rule actions. A message that is scheduled into a topic meets its rules when it is
//! sent, not when it is due.

mod broker;
mod declare;
mod delivery;
mod directory;
mod filter;
pub mod rest;
mod store;
mod sweep;
mod topology;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use self::{broker::Broker, delivery::Taking};
pub use self::{
    filter::{CorrelationFilter, Filter, FilterError, SqlFilter},
    topology::{Holding, Queue, Rule, Subscription, TenantTemplate, Topic, Topology, TopologyError},
};
use crate::{
    local::database::{DatabaseFault, OpenError},
    ports::clock::Clock,
};

/// Bytes of a message: body and properties together, as on Azure's Standard tier. A batch has no more.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Messages of one send.
pub const MESSAGES_PER_SEND_MAX: usize = 1000;
/// Messages of one receive; who asks for more gets this many.
pub const MESSAGES_PER_RECEIVE_MAX: usize = 256;

/// A message as the broker keeps it; on disk the body lies beside the rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    /// Assigned by the broker where the sender gave none.
    pub message_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to_session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_live: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_enqueue_time: Option<Timestamp>,
    /// Application properties: strings, numbers and booleans.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, Value>,
    #[serde(skip)]
    pub body: Vec<u8>,
}

/// A message that was received under a lock.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    pub message: Message,
    /// Unique, and rising within an entity; a message that is forwarded gets a new one.
    pub sequence_number: i64,
    /// Deliveries, this one included: 1 at first.
    pub delivery_count: u32,
    pub enqueued_at: Timestamp,
    /// When the message expires; none where it does not.
    pub expires_at: Option<Timestamp>,
    /// Nil where the message was received and deleted.
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
pub struct ServiceBus {
    broker: Arc<Broker>,
}

impl ServiceBus {
    /// Opens the broker's file; entities that the topology no longer declares and that hold no
    /// message go, the others stay, to be emptied by receivers. Must be called within a tokio
    /// runtime, in which the broker retires what has expired.
    ///
    /// # Errors
    /// When the file cannot be used, or a newer version has written it.
    pub fn open(file: &Path, topology: Topology, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let broker = Arc::new(Broker::open(file, &topology, clock)?);
        tokio::spawn(sweep::sweep_until_closed(Arc::downgrade(&broker)));
        Ok(Self { broker })
    }

    /// Accepts messages into a queue or topic, all or none, once they are on disk.
    ///
    /// # Errors
    /// [`BusRefusal`]: no such queue or topic, a message that is too large or malformed, a full entity.
    pub async fn send(&self, entity: &str, messages: Vec<Message>) -> Result<(), BusRefusal> {
        self.broker.send(entity, messages).await
    }

    /// Locks up to `max` messages of `path` (`queue`, `topic/Subscriptions/name`, either with
    /// `/$DeadLetterQueue`), waiting up to `wait` for the first. What was locked for a caller who
    /// has gone away is given back.
    ///
    /// # Errors
    /// [`BusRefusal`]: no such queue or subscription, or the disk.
    pub async fn receive(&self, path: &str, max: usize, wait: Duration) -> Result<Vec<Received>, BusRefusal> {
        delivery::receive(&self.broker, path, max, wait, Taking::Lock).await
    }

    /// Receives and deletes: what a caller who goes away was being handed is lost.
    ///
    /// # Errors
    /// [`BusRefusal`]: no such queue or subscription, or the disk.
    pub async fn take(&self, path: &str, max: usize, wait: Duration) -> Result<Vec<Received>, BusRefusal> {
        delivery::receive(&self.broker, path, max, wait, Taking::Delete).await
    }

    /// # Errors
    /// [`BusRefusal::LockLost`], or no such entity, or the disk.
    pub async fn complete(&self, path: &str, lock_token: Uuid) -> Result<(), BusRefusal> {
        self.broker.complete(path, lock_token).await
    }

    /// Gives the message back at once; beyond the entity's MaxDeliveryCount it is dead-lettered.
    ///
    /// # Errors
    /// [`BusRefusal::LockLost`], or no such entity, or the disk.
    pub async fn abandon(&self, path: &str, lock_token: Uuid) -> Result<(), BusRefusal> {
        self.broker.abandon(path, lock_token).await
    }

    /// Gives the message back unused: the delivery does not count.
    ///
    /// # Errors
    /// [`BusRefusal::LockLost`], or no such entity, or the disk.
    pub async fn release(&self, path: &str, lock_token: Uuid) -> Result<(), BusRefusal> {
        self.broker.release(path, vec![lock_token]).await
    }

    /// Gives back every message that is locked, whoever holds it; the deliveries count. For a process
    /// that takes over from one that died with its receivers: their messages need not wait until
    /// their locks run out.
    ///
    /// # Errors
    /// [`BusRefusal::Database`].
    pub async fn release_all(&self) -> Result<(), BusRefusal> {
        self.broker.release_all().await
    }

    /// Moves the message to its entity's dead-letter queue, or to where that forwards.
    ///
    /// # Errors
    /// [`BusRefusal::LockLost`], or no such entity, or the disk.
    pub async fn dead_letter(
        &self,
        path: &str,
        lock_token: Uuid,
        reason: &str,
        description: &str,
    ) -> Result<(), BusRefusal> {
        self.broker.dead_letter(path, lock_token, reason, description).await
    }

    /// Answers until when the lock now holds.
    ///
    /// # Errors
    /// [`BusRefusal::LockLost`], or no such entity, or the disk.
    pub async fn renew(&self, path: &str, lock_token: Uuid) -> Result<Timestamp, BusRefusal> {
        self.broker.renew(path, lock_token).await
    }

    /// Active messages, for a person's eye and for tests: entity path to (active, dead-lettered,
    /// scheduled). What is locked is active.
    ///
    /// # Errors
    /// [`BusRefusal::Database`].
    pub async fn counts(&self) -> Result<BTreeMap<String, (u64, u64, u64)>, BusRefusal> {
        self.broker.counts().await
    }

    /// The time as the broker sees it.
    pub fn now(&self) -> Timestamp {
        self.broker.clock.now()
    }
}

#[cfg(test)]
mod tests;
