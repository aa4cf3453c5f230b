//! A Service Bus in memory, as far as the platform leans on it: queues with redelivery, messages that
//! wait for their time, duplicate detection, and topics whose messages are kept to be looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use runtime_platform::{
    delivery::DEAD_LETTERS,
    events::{COMMANDS, Topic, queue_name},
    functions::{self, Trigger},
    invocation::QueueMessage,
    outcome::Fault,
    ports::{
        bus::{Bus, Outgoing},
        clock::Clock,
    },
    sweeps::QUEUE as SWEEPS,
};
use serde_json::{Map, Value};

use super::fixed_clock::FixedClock;

/// How long a message id is remembered.
const DUPLICATES_REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// Deliveries after which a message goes to `dead-letters`.
const DELIVERIES_MAX: u32 = 100;

/// A broker in memory. Clones are the same broker.
#[derive(Clone)]
pub struct Broker {
    clock: FixedClock,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Held>,
    published: Vec<Outgoing>,
    /// Ids of the commands that came, whoever sent them.
    commanded: BTreeSet<String>,
    remembered: BTreeMap<(String, String), Timestamp>,
    /// Counts the messages.
    count: u64,
    /// What comes here is lost, as it never is but must be survived.
    lost: Option<String>,
}

/// A message of a queue.
#[derive(Clone, Debug)]
pub struct Held {
    /// The order in which messages came.
    pub number: u64,
    pub message: Outgoing,
    pub visible_at: Timestamp,
    enqueued_at: Timestamp,
    pub deliveries: u32,
}

impl Held {
    /// The message as a function gets it.
    pub fn delivered(&self) -> QueueMessage {
        let text = |(name, value): (&String, &String)| (name.clone(), Value::String(value.clone()));
        QueueMessage {
            body: self.message.body.clone(),
            message_id: Some(self.message.message_id.clone()),
            content_type: Some(self.message.content_type.clone())
                .filter(|content_type| !content_type.is_empty()),
            delivery_count: self.deliveries + 1,
            enqueued_at: Some(self.enqueued_at),
            properties: self.message.properties.iter().map(text).collect::<Map<_, _>>(),
        }
    }
}

impl Broker {
    pub fn new(clock: FixedClock) -> Self {
        Self { clock, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Messages that may be delivered now, oldest first.
    pub fn ready(&self) -> Vec<u64> {
        let now = self.clock.now();
        let state = self.state();
        let mut ready: Vec<_> = state.waiting.iter().filter(|held| held.visible_at <= now).collect();
        ready.sort_by_key(|held| (held.visible_at, held.number));
        ready.into_iter().map(|held| held.number).collect()
    }

    /// When the next message may be delivered. A sweep that is meant for later waits until a test lets
    /// sweeps come, as timers do.
    pub fn next_at(&self) -> Option<Timestamp> {
        self.state().waiting.iter().filter(|held| !is_sweep(held)).map(|held| held.visible_at).min()
    }

    /// When the next sweep comes that was ordered for later.
    pub fn next_sweep_at(&self) -> Option<Timestamp> {
        self.state().waiting.iter().filter(|held| is_sweep(held)).map(|held| held.visible_at).min()
    }

    /// Ids of all commands that came.
    pub fn commanded(&self) -> BTreeSet<String> {
        self.state().commanded.clone()
    }

    /// Takes a message away; it is gone unless it is put back.
    pub fn take(&self, number: u64) -> Held {
        let mut state = self.state();
        let place = state.waiting.iter().position(|held| held.number == number).expect("the message waits");
        state.waiting.remove(place)
    }

    /// Gives a message back after a delivery that did not succeed.
    pub fn put_back(&self, mut held: Held, visible_at: Timestamp) {
        held.deliveries += 1;
        held.visible_at = visible_at;
        if held.deliveries >= DELIVERIES_MAX && held.message.entity != DEAD_LETTERS {
            held.message.entity = DEAD_LETTERS.to_owned();
            held.message.properties.insert("DeadLetterReason".into(), "MaxDeliveryCountExceeded".into());
            held.deliveries = 0;
        }
        self.state().waiting.push(held);
    }

    /// Gives a message back that was only looked at.
    pub fn give_back(&self, held: Held) {
        self.state().waiting.push(held);
    }

    /// Delivers a message once more, beside the delivery that was.
    pub fn repeat(&self, held: &Held) {
        let mut state = self.state();
        state.count += 1;
        let number = state.count;
        state.waiting.push(Held { number, deliveries: held.deliveries + 1, ..held.clone() });
    }

    /// Loses every message that comes to a queue or subscription from now on.
    pub fn lose(&self, entity: &str) {
        self.state().lost = Some(entity.to_owned());
    }

    /// What was published to topics since the last call, in order.
    pub fn take_published(&self) -> Vec<Outgoing> {
        std::mem::take(&mut self.state().published)
    }

    /// What waits, for a sentence about it.
    pub fn waiting(&self) -> Vec<String> {
        let state = self.state();
        let now = self.clock.now();
        state
            .waiting
            .iter()
            .filter(|held| !is_sweep(held) || held.visible_at <= now)
            .map(|held| format!("{} on `{}`", held.message.message_id, held.message.entity))
            .collect()
    }

    /// Accepts a message.
    ///
    /// # Errors
    /// When there is no such queue or topic.
    pub fn accept(&self, message: Outgoing) -> Result<(), Fault> {
        let now = self.clock.now();
        let topic = Topic::ALL.iter().any(|topic| topic.name() == message.entity);
        if !topic && !queues().contains(&message.entity) {
            return Err(Fault::Rejected {
                doing: format!("sending to `{}`", message.entity),
                code: "MessagingEntityNotFound".into(),
                detail: "there is no such entity".into(),
            });
        }
        let mut state = self.state();
        let name = (message.entity.clone(), message.message_id.clone());
        let seen = state.remembered.get(&name).copied();
        let repeat = seen.is_some_and(|at| now.duration_since(at).unsigned_abs() < DUPLICATES_REMEMBERED);
        if repeat && message.entity != DEAD_LETTERS {
            return Ok(());
        }
        state.remembered.insert(name, now);
        if topic {
            for entity in subscribers(&message) {
                if state.lost.as_ref() == Some(&entity) {
                    continue;
                }
                state.count += 1;
                let message = Outgoing { entity, ..message.clone() };
                let held =
                    Held { number: state.count, visible_at: now, enqueued_at: now, deliveries: 0, message };
                state.waiting.push(held);
            }
            state.published.push(message);
            return Ok(());
        }
        if let Some(id) = command_id(&message) {
            state.commanded.insert(id);
        }
        state.count += 1;
        let visible_at = message.scheduled_at.map_or(now, |at| whole_second(at).max(now));
        let held = Held { number: state.count, visible_at, enqueued_at: visible_at, deliveries: 0, message };
        state.waiting.push(held);
        Ok(())
    }
}

/// The broker schedules to whole seconds, and never early.
fn whole_second(at: Timestamp) -> Timestamp {
    at.round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil)).unwrap()
}

fn is_sweep(held: &Held) -> bool {
    held.message.entity == SWEEPS
}

/// The eventId of a command that the platform itself, or a raw sender, puts on its queue.
fn command_id(message: &Outgoing) -> Option<String> {
    COMMANDS.iter().find(|command| queue_name(command) == message.entity)?;
    let body: Value = serde_json::from_slice(&message.body).ok()?;
    body.get("eventId").and_then(Value::as_str).map(str::to_owned)
}

/// The queues that functions read.
fn queues() -> Vec<String> {
    functions::all()
        .into_iter()
        .filter_map(|function| match function.trigger {
            Trigger::Queue(queue) => Some(queue),
            Trigger::Subscription { .. } | Trigger::Timer(_) | Trigger::Http { .. } => None,
        })
        .collect()
}

/// What a function's messages come from.
pub fn entity(trigger: &Trigger) -> Option<String> {
    match trigger {
        Trigger::Queue(queue) => Some(queue.clone()),
        Trigger::Subscription { topic, subscription } => {
            Some(format!("{topic}/Subscriptions/{subscription}"))
        }
        Trigger::Timer(_) | Trigger::Http { .. } => None,
    }
}

/// The subscriptions with a function of ours that a topic's message goes to, by the rules that are
/// declared for them.
fn subscribers(message: &Outgoing) -> Vec<String> {
    let declared: Value = serde_json::from_str(include_str!("../../infra/messaging.json")).unwrap();
    let matches = |rule: &Value| {
        let wanted =
            rule["correlationFilter"]["properties"].as_object().expect("our rules are correlation filters");
        wanted.iter().all(|(name, value)| message.properties.get(name).map(String::as_str) == value.as_str())
    };
    let topic = declared["topics"]
        .as_array()
        .unwrap()
        .iter()
        .find(|topic| topic["name"] == message.entity.as_str())
        .unwrap();
    let read: Vec<_> = functions::all().iter().filter_map(|function| entity(&function.trigger)).collect();
    topic["subscriptions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|subscription| subscription["rules"].as_array().unwrap().iter().any(matches))
        .map(|subscription| {
            format!("{}/Subscriptions/{}", message.entity, subscription["name"].as_str().unwrap())
        })
        .filter(|entity| read.contains(entity))
        .collect()
}

#[async_trait]
impl Bus for Broker {
    async fn send(&self, message: &Outgoing) -> Result<(), Fault> {
        let lower = message.properties.keys().all(|name| *name == name.to_lowercase());
        assert!(lower, "property names travel as HTTP headers, which keep no case: {:?}", message.properties);
        self.accept(message.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::memory_bus::message;

    #[test]
    fn a_message_waits_for_its_time_and_comes_in_order() {
        let clock = FixedClock::default();
        let broker = Broker::new(clock.clone());
        let at = clock.now() + Duration::from_millis(1500);
        broker.accept(Outgoing { scheduled_at: Some(at), ..message("deploy", "late") }).unwrap();
        broker.accept(message("deploy", "early")).unwrap();
        broker.accept(message("deploy", "early")).unwrap();
        assert_eq!(broker.ready(), [2]);
        clock.advance(Duration::from_millis(1500));
        assert_eq!(broker.ready(), [2]);
        clock.advance(Duration::from_millis(500));
        assert_eq!(broker.ready(), [2, 1]);
        assert!(broker.accept(message("tea", "1")).is_err());
    }

    #[test]
    fn a_message_that_is_never_taken_ends_in_dead_letters() {
        let clock = FixedClock::default();
        let broker = Broker::new(clock.clone());
        broker.accept(message("deploy", "1")).unwrap();
        for _ in 0..DELIVERIES_MAX {
            let held = broker.take(1);
            assert_eq!(held.message.entity, "deploy");
            broker.put_back(held, clock.now());
        }
        assert_eq!(broker.take(1).message.entity, DEAD_LETTERS);
    }
}
