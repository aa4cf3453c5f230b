//! What a subscriber does with an event: the same path as a command's, without a sender to answer.
//!
//! An event of a type that the subscriber does not know is skipped: whoever publishes may be newer.

use async_trait::async_trait;
use tracing::{debug, info};

use super::{GivenUp, Message, copy, dead_letter, named_environment, patiently, understand};
use crate::{
    events::{Event, Topic},
    invocation::QueueMessage,
    ledger::{Commit, inbox_id},
    outbox_relay,
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
    telemetry,
};

/// A subscription's own function.
#[async_trait]
pub trait Subscriber: Send + Sync + 'static {
    /// `<Subscriber>On<Topic>`, the function's name.
    const NAME: &'static str;
    const TOPIC: Topic;
    /// The subscription's name on its topic.
    const SUBSCRIPTION: &'static str;

    /// Loads what the reaction rests on, and adds what it writes to `commit`, which is empty and of
    /// the event's environment. Writing nothing is a reaction too.
    async fn react(platform: &Platform, message: &Message<Event>, commit: &mut Commit) -> Result<(), Fault>;
}

/// Handles an event to its end.
///
/// # Errors
/// Only when it could neither be handled, nor copied, nor filed.
pub async fn event<S: Subscriber>(platform: &Platform, delivered: &QueueMessage) -> Result<(), Fault> {
    let message = match understand(platform, S::NAME, delivered) {
        Ok(message) => message,
        Err(unreadable) => {
            return dead_letter(platform, S::NAME, delivered, "Unreadable", &unreadable.to_string()).await;
        }
    };
    telemetry::identify(&message.envelope, delivered.delivery_count);
    let event = match Event::read(&message.envelope.event_type, &message.envelope.payload) {
        Ok(Some(event)) => event,
        Ok(None) => {
            info!("{} does not know `{}` and skips it", S::NAME, message.envelope.event_type);
            return Ok(());
        }
        Err(_) => {
            let detail = format!("the payload is not that of {}", message.envelope.event_type);
            return dead_letter(platform, S::NAME, delivered, "Unreadable", &detail).await;
        }
    };
    let environment = named_environment(&message.envelope.payload);
    let message = message.with(event);
    let id = message.envelope.event_id.as_str();
    match patiently(platform, id, || handle::<S>(platform, &message, &environment)).await {
        Ok(()) => Ok(()),
        Err(GivenUp { counter, fault }) => copy(platform, S::NAME, delivered, counter, &fault).await,
    }
}

async fn handle<S: Subscriber>(
    platform: &Platform,
    message: &Message<Event>,
    environment: &str,
) -> Result<(), Fault> {
    let partition = Partition::environment(&message.envelope.tenant_id, environment);
    let inbox = inbox_id(S::NAME, message.envelope.event_id.as_str());
    if platform.ledger.raw(&partition, &inbox).await?.is_some() {
        debug!("`{}` was handled before", message.envelope.event_id);
        return Ok(());
    }
    let mut commit = Commit::new(partition, platform.clock.now());
    S::react(platform, message, &mut commit).await?;
    commit.remember(&message.entry(environment, "Handled"))?;
    let committed = platform.ledger.commit(commit).await?;
    outbox_relay::publish(platform, committed).await;
    Ok(())
}
