//! Service Bus semantics, told by tests. The clock stands still until a test moves it.

mod dead_letters;
mod durability;
mod queues;
mod topics;
mod waiting;

use std::{collections::BTreeMap, path::PathBuf, sync::Mutex, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::ports::clock::Clock;

pub(super) const NOW: Duration = Duration::ZERO;

/// A clock that a test moves.
pub(super) struct Hands(Mutex<Timestamp>);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// A broker in a directory of its own, which can be closed and opened again.
pub(super) struct Place {
    pub bus: ServiceBus,
    pub clock: Arc<Hands>,
    pub directory: tempfile::TempDir,
}

impl Place {
    pub fn new(topology: &Value) -> Self {
        Self::with(parse(topology))
    }

    pub fn with(topology: Topology) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hands(Mutex::new("2026-01-02T03:04:05Z".parse().unwrap())));
        let bus = ServiceBus::open(&file(&directory), topology, clock.clone()).unwrap();
        Self { bus, clock, directory }
    }

    pub fn reopened(self, topology: &Value) -> Self {
        let Self { bus, clock, directory } = self;
        drop(bus);
        let bus = ServiceBus::open(&file(&directory), parse(topology), clock.clone()).unwrap();
        Self { bus, clock, directory }
    }

    pub fn pass(&self, time: Duration) {
        *self.clock.0.lock().unwrap() += time;
    }

    pub fn at(&self, offset: Duration) -> Timestamp {
        self.clock.now() + offset
    }

    pub async fn send(&self, entity: &str, id: &str) {
        self.bus.send(entity, vec![message(id)]).await.unwrap();
    }

    /// Locks what is there.
    pub async fn receive(&self, path: &str) -> Vec<Received> {
        self.bus.receive(path, 100, NOW).await.unwrap()
    }

    /// Locks the one message that is there.
    pub async fn one(&self, path: &str) -> Received {
        let mut received = self.receive(path).await;
        assert_eq!(received.len(), 1, "{path}: {received:?}");
        received.remove(0)
    }

    pub async fn ids(&self, path: &str) -> Vec<String> {
        self.receive(path).await.into_iter().map(|received| received.message.message_id).collect()
    }

    pub async fn sweep(&self) {
        self.bus.broker.sweep().await.unwrap();
    }

    pub async fn counts(&self, path: &str) -> (u64, u64, u64) {
        self.bus.counts().await.unwrap()[path]
    }
}

fn file(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("bus.sqlite")
}

pub(super) fn parse(topology: &Value) -> Topology {
    Topology::parse("messaging.json", &topology.to_string()).unwrap()
}

/// One queue of this form.
pub(super) fn queue(members: &Value) -> Value {
    let mut queue = json!({ "name": "q" });
    for (name, value) in members.as_object().unwrap() {
        queue[name] = value.clone();
    }
    json!({ "queues": [queue], "topics": [] })
}

pub(super) fn message(id: &str) -> Message {
    Message { message_id: id.to_owned(), body: id.as_bytes().to_vec(), ..Message::default() }
}

pub(super) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn refused<T: std::fmt::Debug>(result: Result<T, BusRefusal>) -> String {
    result.expect_err("it is refused").to_string()
}

pub(super) const LOCK_LOST: &str =
    "The lock supplied is invalid: it has expired, or the message was settled already.";
