//! Ports that fail when told to: at a call, from a commit on, or until a time.
//!
//! One [`Trouble`] may be shared by every port of a platform, so that "the seventh call" counts over
//! all of them and a death takes all of them away.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use jiff::Timestamp;
use runtime_platform::{
    outcome::Fault,
    ports::{
        bus::{Bus, Outgoing},
        clock::Clock,
        store::{Etag, Filter, Key, Listing, Page, Partition, Store, StoreFault, Stored, Write},
    },
};
use tokio::sync::watch;

use super::fixed_clock::FixedClock;

/// When a call that fails does so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing has happened.
    Before,
    /// It has happened, and its answer is lost.
    After,
}

/// What goes wrong. Clones share it.
#[derive(Clone)]
pub struct Trouble {
    state: Arc<Mutex<State>>,
    dead: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// The name of every call, in order.
    calls: Vec<String>,
    commits: u64,
    failing: BTreeMap<u64, When>,
    dying: Option<(u64, When)>,
}

/// What becomes of one call.
enum Verdict {
    Passes,
    Fails(When, &'static str),
}

impl Default for Trouble {
    fn default() -> Self {
        Self { state: Arc::default(), dead: watch::Sender::new(false) }
    }
}

impl Trouble {
    /// The `nth` call fails, counted from 1 over all that share this.
    pub fn fail_call(&self, nth: u64, when: When) {
        self.state.lock().unwrap().failing.insert(nth, when);
    }

    /// The process dies at its `nth` commit, counted from 1: every later call fails, until
    /// [`Trouble::revive`].
    pub fn die_at_commit(&self, nth: u64, when: When) {
        self.state.lock().unwrap().dying = Some((nth, when));
    }

    /// Nothing that was set and not met goes wrong any more.
    pub fn calm(&self) {
        let mut state = self.state.lock().unwrap();
        state.failing.clear();
        state.dying = None;
    }

    /// A new process: calls pass again; failures that were set and not met stay.
    pub fn revive(&self) {
        self.dead.send_replace(false);
    }

    pub fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// Returns when the process has died. A test drops the work that ran in it at that point, as a
    /// death does.
    pub async fn died(&self) {
        self.dead.subscribe().wait_for(|dead| *dead).await.expect("the sender is this one's own");
    }

    /// How many calls were made, those of the dead not counted.
    pub fn calls(&self) -> u64 {
        self.state.lock().unwrap().calls.len() as u64
    }

    /// The name of every call, in order, e.g. `store.commit`.
    pub fn log(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// How many commits were tried.
    pub fn commits(&self) -> u64 {
        self.state.lock().unwrap().commits
    }

    /// Makes a call, or what is left of it.
    pub async fn around<T, E>(
        &self,
        call: &str,
        act: impl Future<Output = Result<T, E>>,
        fault: impl FnOnce(&'static str) -> E,
    ) -> Result<T, E> {
        match self.verdict(call) {
            Verdict::Passes => act.await,
            Verdict::Fails(When::Before, why) => Err(fault(why)),
            Verdict::Fails(When::After, why) => {
                let _lost = act.await;
                if why == DIED {
                    self.dead.send_replace(true);
                }
                Err(fault(why))
            }
        }
    }

    fn verdict(&self, call: &str) -> Verdict {
        if self.is_dead() {
            return Verdict::Fails(When::Before, DIED);
        }
        let mut state = self.state.lock().unwrap();
        state.calls.push(call.to_owned());
        let number = state.calls.len() as u64;
        if call == COMMIT {
            state.commits += 1;
            let commits = state.commits;
            if let Some((_, when)) = state.dying.take_if(|(nth, _)| *nth == commits) {
                if when == When::Before {
                    self.dead.send_replace(true);
                }
                return Verdict::Fails(when, DIED);
            }
        }
        match state.failing.remove(&number) {
            Some(when) => Verdict::Fails(when, "this call was told to fail"),
            None => Verdict::Passes,
        }
    }
}

const COMMIT: &str = "store.commit";
const DIED: &str = "the process has died";

/// A store that fails when told to.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    trouble: Trouble,
    away: Arc<Mutex<Option<(FixedClock, Timestamp)>>>,
}

impl FaultyStore {
    pub fn new(inner: Arc<dyn Store>, trouble: Trouble) -> Self {
        Self { inner, trouble, away: Arc::default() }
    }

    /// Every call fails, doing nothing, until the clock says `until`.
    pub fn away_until(&self, clock: &FixedClock, until: Timestamp) {
        *self.away.lock().unwrap() = Some((clock.clone(), until));
    }

    async fn call<T>(
        &self,
        name: &str,
        act: impl Future<Output = Result<T, StoreFault>>,
    ) -> Result<T, StoreFault> {
        let unavailable = |why: &'static str| StoreFault::Unavailable {
            doing: format!("calling {name}"),
            source: why.into(),
        };
        if self.away.lock().unwrap().as_ref().is_some_and(|(clock, until)| clock.now() < *until) {
            return self.trouble.around(name, async { Err(unavailable("it is away")) }, unavailable).await;
        }
        self.trouble.around(name, act, unavailable).await
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn read(&self, key: &Key) -> Result<Option<Stored>, StoreFault> {
        self.call("store.read", self.inner.read(key)).await
    }

    async fn commit(&self, partition: &Partition, writes: Vec<Write>) -> Result<Vec<Etag>, StoreFault> {
        self.call(COMMIT, self.inner.commit(partition, writes)).await
    }

    async fn query(
        &self,
        partition: &Partition,
        kind: &str,
        filter: &Filter,
        page: &Page,
    ) -> Result<Listing, StoreFault> {
        self.call("store.query", self.inner.query(partition, kind, filter, page)).await
    }

    async fn due(&self, kind: &str, until: Timestamp, page: &Page) -> Result<Listing, StoreFault> {
        self.call("store.due", self.inner.due(kind, until, page)).await
    }

    async fn list(
        &self,
        tenant: &str,
        kind: &str,
        filter: &Filter,
        page: &Page,
    ) -> Result<Listing, StoreFault> {
        self.call("store.list", self.inner.list(tenant, kind, filter, page)).await
    }
}

/// A bus that fails when told to.
#[derive(Clone)]
pub struct FaultyBus {
    inner: Arc<dyn Bus>,
    trouble: Trouble,
}

impl FaultyBus {
    pub fn new(inner: Arc<dyn Bus>, trouble: Trouble) -> Self {
        Self { inner, trouble }
    }
}

#[async_trait]
impl Bus for FaultyBus {
    async fn send(&self, message: &Outgoing) -> Result<(), Fault> {
        let fault = |why| Fault::transient(format!("sending to `{}`", message.entity), why);
        self.trouble.around("bus.send", self.inner.send(message), fault).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime_platform::local::store::SqliteStore;
    use serde_json::json;

    use super::*;
    use crate::support::memory_bus::{MemoryBus, message};

    struct Bench {
        _directory: tempfile::TempDir,
        clock: FixedClock,
        trouble: Trouble,
        store: FaultyStore,
    }

    fn bench() -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let (clock, trouble) = (FixedClock::default(), Trouble::default());
        let inner = SqliteStore::open(&directory.path().join("a.db"), Arc::new(clock.clone())).unwrap();
        let store = FaultyStore::new(Arc::new(inner), trouble.clone());
        Bench { _directory: directory, clock, trouble, store }
    }

    impl Bench {
        async fn write(&self, id: &str) -> bool {
            let document = runtime_platform::ports::store::Document {
                id: id.into(),
                kind: "note".into(),
                v: 1,
                at: self.clock.now(),
                due: None,
                ttl_seconds: None,
                body: json!({}),
            };
            self.store.commit(&Partition::platform("_"), vec![Write::Upsert(document)]).await.is_ok()
        }

        async fn has(&self, id: &str) -> bool {
            let key = Key { partition: Partition::platform("_"), id: id.into() };
            self.store.inner.read(&key).await.unwrap().is_some()
        }
    }

    #[tokio::test]
    async fn a_call_fails_before_or_after_it_acts_and_once() {
        let bench = bench();
        bench.trouble.fail_call(1, When::Before);
        bench.trouble.fail_call(2, When::After);
        assert_eq!((bench.write("a").await, bench.has("a").await), (false, false));
        assert_eq!((bench.write("b").await, bench.has("b").await), (false, true));
        assert_eq!((bench.write("a").await, bench.has("a").await), (true, true));
        assert_eq!((bench.trouble.calls(), bench.trouble.commits()), (3, 3));
    }

    #[tokio::test]
    async fn a_death_at_a_commit_takes_every_port_away_until_revived() {
        for when in [When::Before, When::After] {
            let bench = bench();
            let sent = MemoryBus::new(bench.clock.clone());
            let bus = FaultyBus::new(Arc::new(sent.clone()), bench.trouble.clone());
            bench.trouble.die_at_commit(2, when);
            bus.send(&message("topic", "1")).await.unwrap();
            assert!(bench.write("a").await && !bench.write("b").await && bench.trouble.is_dead());
            bench.trouble.died().await;
            assert_eq!(bench.has("b").await, when == When::After);
            assert!(matches!(bus.send(&message("topic", "2")).await, Err(Fault::Transient { .. })));
            assert!(!bench.write("c").await);
            bench.trouble.revive();
            assert!(bench.write("c").await);
            assert_eq!(sent.sent(), vec![message("topic", "1")]);
            let log = ["bus.send", COMMIT, COMMIT, COMMIT];
            assert_eq!(bench.trouble.log(), log);
        }
    }

    #[tokio::test]
    async fn a_store_that_is_away_comes_back_when_its_time_has_come() {
        let bench = bench();
        let back = bench.clock.now() + Duration::from_secs(60);
        bench.store.away_until(&bench.clock, back);
        assert!(!bench.write("a").await);
        bench.clock.advance(Duration::from_secs(59));
        assert!(!bench.write("a").await && !bench.has("a").await);
        bench.clock.advance(Duration::from_secs(1));
        assert!(bench.write("a").await);
    }

    #[tokio::test]
    async fn listings_pass_through_and_count() {
        let bench = bench();
        let (partition, filter, page) = (Partition::platform("_"), Filter::default(), Page::first(10));
        bench.write("a").await;
        assert_eq!(bench.store.query(&partition, "note", &filter, &page).await.unwrap().items.len(), 1);
        assert_eq!(bench.store.list("_platform", "note", &filter, &page).await.unwrap().items.len(), 1);
        assert_eq!(bench.store.due("note", Timestamp::MAX, &page).await.unwrap().items.len(), 0);
        bench.store.read(&Key { partition, id: "a".into() }).await.unwrap();
        assert_eq!(bench.trouble.calls(), 5);
    }
}
