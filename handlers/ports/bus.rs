//! Sending to queues and topics. What it promises: an acknowledged message is durable, and a resend
//! with the same message id within a day is dropped by the broker.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::outcome::Fault;

/// A message on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// The queue's or topic's name.
    pub entity: String,
    pub message_id: String,
    pub content_type: String,
    pub body: Vec<u8>,
    /// Application properties; names in lower case, since they travel as HTTP headers.
    pub properties: BTreeMap<String, String>,
    pub session_id: Option<String>,
    pub correlation_id: Option<String>,
    pub subject: Option<String>,
    /// Not before this time, in whole seconds (rounded up).
    pub scheduled_at: Option<Timestamp>,
    pub time_to_live: Option<Duration>,
}

#[async_trait]
pub trait Bus: Send + Sync {
    /// # Errors
    /// [`Fault::Transient`] where it may pass, [`Fault::Rejected`] where the broker never takes this
    /// message (too large, no such entity, no right).
    async fn send(&self, message: &Outgoing) -> Result<(), Fault>;
}
