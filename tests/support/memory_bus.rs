//! A bus that keeps what it was sent, and drops repeats as Service Bus does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use runtime_platform::{
    outcome::Fault,
    ports::{
        bus::{Bus, Outgoing},
        clock::Clock,
    },
};

use super::fixed_clock::FixedClock;

/// How long a message id is remembered.
const DUPLICATES_REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// A bus in memory. Clones are the same bus.
#[derive(Clone)]
pub struct MemoryBus {
    clock: FixedClock,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    sent: Vec<Outgoing>,
    attempts: usize,
    /// By entity and message id, when it was accepted.
    remembered: BTreeMap<(String, String), Timestamp>,
    missing: Vec<String>,
}

impl MemoryBus {
    pub fn new(clock: FixedClock) -> Self {
        Self { clock, state: Arc::default() }
    }

    /// What was accepted, in order, without the repeats.
    pub fn sent(&self) -> Vec<Outgoing> {
        self.state.lock().unwrap().sent.clone()
    }

    /// What was accepted since the last call.
    pub fn take(&self) -> Vec<Outgoing> {
        std::mem::take(&mut self.state.lock().unwrap().sent)
    }

    /// How many sends came here, the dropped and refused ones included.
    pub fn attempts(&self) -> usize {
        self.state.lock().unwrap().attempts
    }

    /// There is no such entity: sending to it is refused for good.
    pub fn without(&self, entity: &str) {
        self.state.lock().unwrap().missing.push(entity.to_owned());
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn send(&self, message: &Outgoing) -> Result<(), Fault> {
        let mut state = self.state.lock().unwrap();
        state.attempts += 1;
        if state.missing.contains(&message.entity) {
            return Err(Fault::Rejected {
                doing: format!("sending to `{}`", message.entity),
                code: "MessagingEntityNotFound".into(),
                detail: "there is no such entity".into(),
            });
        }
        let now = self.clock.now();
        let name = (message.entity.clone(), message.message_id.clone());
        let repeat = state
            .remembered
            .get(&name)
            .is_some_and(|at| now.duration_since(*at).unsigned_abs() < DUPLICATES_REMEMBERED);
        if !repeat {
            state.remembered.insert(name, now);
            state.sent.push(message.clone());
        }
        Ok(())
    }
}

/// A small message.
pub fn message(entity: &str, id: &str) -> Outgoing {
    Outgoing {
        entity: entity.into(),
        message_id: id.into(),
        content_type: "application/json".into(),
        body: b"{}".to_vec(),
        properties: BTreeMap::new(),
        session_id: None,
        correlation_id: None,
        subject: None,
        scheduled_at: None,
        time_to_live: None,
    }
}

#[tokio::test]
async fn a_repeat_within_a_day_is_dropped_per_entity() {
    let clock = FixedClock::default();
    let bus = MemoryBus::new(clock.clone());
    for entity in ["a", "a", "b"] {
        bus.send(&message(entity, "1")).await.unwrap();
    }
    assert_eq!(bus.take(), vec![message("a", "1"), message("b", "1")]);
    clock.advance(DUPLICATES_REMEMBERED);
    bus.send(&message("a", "1")).await.unwrap();
    assert_eq!((bus.sent(), bus.attempts()), (vec![message("a", "1")], 4));
}

#[tokio::test]
async fn an_entity_that_is_not_there_refuses_for_good() {
    let bus = MemoryBus::new(FixedClock::default());
    bus.without("a");
    assert!(matches!(bus.send(&message("a", "1")).await, Err(Fault::Rejected { .. })));
    assert_eq!(bus.sent(), vec![]);
}
