//! Who can be sent to and received from, by path; and who is waiting there.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Notify, watch};

use super::{
    BusRefusal, Message,
    topology::{Holding, Rule},
};

/// A queue or a topic, as a sender sees it.
pub(super) struct Inlet {
    pub id: i64,
    pub name: String,
    pub duplicate_detection_window: Option<Duration>,
    pub outlets: Vec<Outlet>,
}

/// Where an inlet's messages go: a queue's own messages, or a subscription's share.
pub(super) struct Outlet {
    pub holder: Arc<Holder>,
    /// None at a queue, which asks nothing.
    pub rules: Option<Vec<Rule>>,
}

impl Inlet {
    /// The holders that get a copy of the message.
    pub fn destinations(&self, message: &Message) -> Vec<Arc<Holder>> {
        let wants = |outlet: &&Outlet| match &outlet.rules {
            None => true,
            Some(rules) => rules.iter().any(|rule| rule.filter.matches(message)),
        };
        self.outlets.iter().filter(wants).map(|outlet| outlet.holder.clone()).collect()
    }
}

/// A queue or a subscription: what holds messages.
pub(super) struct Holder {
    pub id: i64,
    /// As declared, e.g. `runtime.secrets/Subscriptions/governance`.
    pub path: String,
    /// The queue, or the topic of a subscription, whose size limit counts.
    pub owner: i64,
    pub size_bytes_max: u64,
    pub holding: Holding,
    pub live: Waiting,
    pub dead: Waiting,
}

/// Receivers that wait for something to become visible.
pub(super) struct Waiting {
    /// Wakes one receiver per message that arrives.
    pub arrived: Notify,
    /// When something that is there becomes visible by itself, in microseconds since the epoch: it
    /// falls due, or its lock runs out. Never late; sometimes early, which costs a look.
    due: watch::Sender<i64>,
}

/// Nothing becomes visible by itself.
pub(super) const NEVER: i64 = i64::MAX;

impl Waiting {
    pub fn new() -> Self {
        // Right after a start nobody knows: look at once.
        Self { arrived: Notify::new(), due: watch::channel(0).0 }
    }

    pub fn is_due_at(&self, due: i64) {
        self.due.send_if_modified(|earliest| {
            let sooner = due < *earliest;
            *earliest = due.min(*earliest);
            sooner
        });
    }

    /// Sets what a look has found; only the writer of the database may, which sees everything.
    pub fn is_next_due_at(&self, due: i64) {
        self.due.send_replace(due);
    }

    pub fn due(&self) -> watch::Receiver<i64> {
        self.due.subscribe()
    }
}

/// A place to receive from: a holder, or its dead-letter queue.
#[derive(Clone)]
pub(super) struct Spot {
    pub holder: Arc<Holder>,
    pub is_dead: bool,
}

impl Spot {
    pub fn waiting(&self) -> &Waiting {
        if self.is_dead { &self.holder.dead } else { &self.holder.live }
    }
}

#[derive(Default)]
pub(super) struct Directory {
    inlets: HashMap<String, Arc<Inlet>>,
    holders: HashMap<String, Arc<Holder>>,
    by_id: BTreeMap<i64, Arc<Holder>>,
}

impl Directory {
    pub fn add_inlet(&mut self, inlet: Inlet) {
        self.inlets.insert(inlet.name.to_ascii_lowercase(), Arc::new(inlet));
    }

    pub fn add_holder(&mut self, holder: Arc<Holder>) {
        self.holders.insert(holder.path.to_ascii_lowercase(), holder.clone());
        self.by_id.insert(holder.id, holder);
    }

    pub fn holders(&self) -> impl Iterator<Item = &Arc<Holder>> {
        self.by_id.values()
    }

    pub fn holder(&self, id: i64) -> Option<&Arc<Holder>> {
        self.by_id.get(&id)
    }

    pub fn inlet(&self, path: &str) -> Result<Arc<Inlet>, BusRefusal> {
        let key = key(path);
        if let Some(inlet) = self.inlets.get(&key) {
            return Ok(inlet.clone());
        }
        if self.spot(path).is_ok() {
            return Err(BusRefusal::Invalid(format!(
                "'{path}' takes no messages: send to a queue or a topic."
            )));
        }
        Err(BusRefusal::EntityNotFound(path.to_owned()))
    }

    pub fn spot(&self, path: &str) -> Result<Spot, BusRefusal> {
        let key = key(path);
        let (holder, is_dead) = match key.strip_suffix("/$deadletterqueue") {
            Some(holder) => (holder, true),
            None => (key.as_str(), false),
        };
        if let Some(holder) = self.holders.get(holder) {
            return Ok(Spot { holder: holder.clone(), is_dead });
        }
        if self.inlets.contains_key(holder) {
            let problem = format!(
                "'{path}' is a topic: receive from one of its subscriptions, '{path}/Subscriptions/name'."
            );
            return Err(BusRefusal::Invalid(problem));
        }
        Err(BusRefusal::EntityNotFound(path.to_owned()))
    }
}

/// Paths are the same whatever their case.
fn key(path: &str) -> String {
    path.trim_matches('/').to_ascii_lowercase()
}
