//! The store against a map: whatever is written in whatever order, both end the same.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use proptest::{collection::vec, option, prelude::*};
use runtime_platform::{
    local::store::SqliteStore,
    ports::{
        clock::Clock,
        store::{Document, Etag, Filter, Key, Page, Partition, Store, StoreFault, Stored, Write},
    },
};
use serde_json::json;

use crate::support::fixed_clock::FixedClock;

/// Four partitions of five documents make no more pages.
const PAGES_MAX: usize = 20;

/// How a write is guarded: by the etag that is there, by one that was there once, or by none.
#[derive(Clone, Debug)]
enum Kind {
    Create,
    ReplaceCurrent,
    ReplaceStale,
    Upsert,
    Delete,
    DeleteCurrent,
    DeleteStale,
}

#[derive(Clone, Debug)]
struct Draft {
    kind: Kind,
    id: u8,
    word: u8,
    at: i64,
    due: Option<i64>,
    ttl_seconds: Option<u32>,
}

#[derive(Clone, Debug)]
enum Action {
    Commit { partition: u8, drafts: Vec<Draft> },
    Wait(u64),
    Reopen,
}

fn draft() -> impl Strategy<Value = Draft> {
    let kind = prop_oneof![
        3 => Just(Kind::Create),
        3 => Just(Kind::ReplaceCurrent),
        1 => Just(Kind::ReplaceStale),
        3 => Just(Kind::Upsert),
        1 => Just(Kind::Delete),
        1 => Just(Kind::DeleteCurrent),
        1 => Just(Kind::DeleteStale),
    ];
    (kind, 0..5_u8, 0..3_u8, 0..4_i64, option::of(0..6_i64), option::of(1..30_u32))
        .prop_map(|(kind, id, word, at, due, ttl_seconds)| Draft { kind, id, word, at, due, ttl_seconds })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (0..4_u8, vec(draft(), 1..5)).prop_map(|(partition, drafts)| Action::Commit { partition, drafts }),
        2 => (1..20_u64).prop_map(Action::Wait),
        1 => Just(Action::Reopen),
    ]
}

fn partition(number: u8) -> Partition {
    Partition { tenant_id: format!("t{}", number / 2), environment_id: format!("env-{}", number % 2) }
}

fn document(draft: &Draft) -> Document {
    Document {
        id: format!("d{}", draft.id),
        kind: "note".into(),
        v: 1,
        at: Timestamp::from_second(draft.at).unwrap(),
        due: draft.due.map(|due| Timestamp::from_second(due).unwrap()),
        ttl_seconds: draft.ttl_seconds,
        body: json!({"word": format!("w{}", draft.word)}),
    }
}

#[derive(Clone, Default)]
struct Model {
    documents: BTreeMap<Key, (Document, Etag, Option<Timestamp>)>,
}

impl Model {
    fn forget_expired(&mut self, now: Timestamp) {
        self.documents.retain(|_, (_, _, expires)| expires.is_none_or(|expires| expires > now));
    }

    /// What a commit should come to: the documents after it without their new etags, or the conflict.
    fn commit(&self, partition: &Partition, writes: &[Write], now: Timestamp) -> Result<Self, String> {
        let mut next = self.clone();
        for write in writes {
            let key = Key { partition: partition.clone(), id: write.id().to_owned() };
            let there = next.documents.get(&key).map(|(_, etag, _)| etag.clone());
            let allowed = match write {
                Write::Create(_) => there.is_none(),
                Write::Replace(_, etag) => there.as_ref() == Some(etag),
                Write::Upsert(_) | Write::Delete(_, None) => true,
                Write::Delete(_, Some(etag)) => there.is_none() || there.as_ref() == Some(etag),
            };
            if !allowed {
                return Err(key.id);
            }
            match write {
                Write::Create(document) | Write::Replace(document, _) | Write::Upsert(document) => {
                    let lives = document.ttl_seconds.map(|ttl| now + SignedDuration::from_secs(ttl.into()));
                    // No etag of the store is empty, so that none guards what this commit wrote itself.
                    next.documents.insert(key, (document.clone(), Etag("new".into()), lives));
                }
                Write::Delete(..) => drop(next.documents.remove(&key)),
            }
        }
        Ok(next)
    }

    fn give_etags(&mut self, partition: &Partition, writes: &[Write], etags: &[Etag]) {
        for (write, etag) in writes.iter().zip(etags) {
            let key = Key { partition: partition.clone(), id: write.id().to_owned() };
            if let Some(entry) = self.documents.get_mut(&key) {
                entry.1 = etag.clone();
            }
        }
    }

    fn stored(&self) -> impl Iterator<Item = Stored> + '_ {
        self.documents.iter().map(|(key, (document, etag, _))| Stored {
            partition: key.partition.clone(),
            document: document.clone(),
            etag: etag.clone(),
        })
    }
}

struct Run {
    directory: tempfile::TempDir,
    clock: FixedClock,
    store: SqliteStore,
    model: Model,
    stale: BTreeMap<Key, Etag>,
}

impl Run {
    fn open(directory: &tempfile::TempDir, clock: &FixedClock) -> SqliteStore {
        SqliteStore::open(&directory.path().join("store.db"), Arc::new(clock.clone())).unwrap()
    }

    fn new() -> Self {
        let (directory, clock) = (tempfile::tempdir().unwrap(), FixedClock::default());
        let store = Self::open(&directory, &clock);
        Self { directory, clock, store, model: Model::default(), stale: BTreeMap::new() }
    }

    fn write(&self, partition: &Partition, draft: &Draft) -> Write {
        let document = document(draft);
        let key = Key { partition: partition.clone(), id: document.id.clone() };
        let nothing = || Etag("never".into());
        let current = || self.model.documents.get(&key).map_or_else(nothing, |(_, etag, _)| etag.clone());
        let stale = || self.stale.get(&key).cloned().unwrap_or_else(nothing);
        match draft.kind {
            Kind::Create => Write::Create(document),
            Kind::ReplaceCurrent => Write::Replace(document, current()),
            Kind::ReplaceStale => Write::Replace(document, stale()),
            Kind::Upsert => Write::Upsert(document),
            Kind::Delete => Write::Delete(key.id, None),
            Kind::DeleteCurrent => Write::Delete(key.id.clone(), Some(current())),
            Kind::DeleteStale => Write::Delete(key.id.clone(), Some(stale())),
        }
    }

    async fn act(&mut self, action: &Action) {
        match action {
            Action::Wait(seconds) => self.clock.advance(Duration::from_secs(*seconds)),
            Action::Reopen => self.store = Self::open(&self.directory, &self.clock),
            Action::Commit { partition: number, drafts } => {
                let partition = partition(*number);
                let writes: Vec<_> = drafts.iter().map(|draft| self.write(&partition, draft)).collect();
                let expected = self.model.commit(&partition, &writes, self.clock.now());
                match (self.store.commit(&partition, writes.clone()).await, expected) {
                    (Ok(etags), Ok(mut next)) => {
                        next.give_etags(&partition, &writes, &etags);
                        self.stale.extend(
                            self.model
                                .documents
                                .iter()
                                .map(|(key, (_, etag, _))| (key.clone(), etag.clone())),
                        );
                        self.model = next;
                    }
                    (Err(StoreFault::Conflict(found)), Err(wanted)) => assert_eq!(found, wanted),
                    (found, wanted) => panic!("{found:?}, the model says {:?}", wanted.err()),
                }
            }
        }
        self.model.forget_expired(self.clock.now());
    }

    /// Everything that can be read is as the map has it, in pages of `size`.
    async fn compare(&self, size: usize) {
        for number in 0..4 {
            let partition = partition(number);
            for id in (0..5).map(|id| format!("d{id}")) {
                let key = Key { partition: partition.clone(), id };
                let wanted = self
                    .model
                    .stored()
                    .find(|stored| stored.partition == partition && stored.document.id == key.id);
                assert_eq!(self.store.read(&key).await.unwrap(), wanted);
            }
            for newest_first in [false, true] {
                let filter = Filter {
                    equal: vec![("word".into(), "w1".into())],
                    since: Some(Timestamp::from_second(1).unwrap()),
                    newest_first,
                };
                let mut wanted: Vec<_> = self
                    .model
                    .stored()
                    .filter(|stored| stored.partition == partition && chosen(stored))
                    .collect();
                wanted.sort_by(|a, b| made(a).cmp(&made(b)));
                if newest_first {
                    wanted.reverse();
                }
                let found =
                    pages(async |page| self.store.query(&partition, "note", &filter, &page).await, size)
                        .await;
                assert_eq!(found, wanted);
            }
        }
        for tenant in ["t0", "t1"] {
            let mut wanted: Vec<_> =
                self.model.stored().filter(|stored| stored.partition.tenant_id == tenant).collect();
            wanted.sort_by(|a, b| made(a).cmp(&made(b)));
            let filter = Filter::default();
            assert_eq!(
                pages(async |page| self.store.list(tenant, "note", &filter, &page).await, size).await,
                wanted
            );
        }
        let until = Timestamp::from_second(3).unwrap();
        let due = |stored: &Stored| stored.document.due.filter(|due| *due <= until);
        let mut wanted: Vec<_> = self.model.stored().filter(|stored| due(stored).is_some()).collect();
        wanted.sort_by_key(|stored| (due(stored), stored.document.id.clone(), stored.partition.clone()));
        assert_eq!(pages(async |page| self.store.due("note", until, &page).await, size).await, wanted);
    }
}

fn chosen(stored: &Stored) -> bool {
    stored.document.body["word"] == "w1" && stored.document.at >= Timestamp::from_second(1).unwrap()
}

fn made(stored: &Stored) -> (Timestamp, &str, &Partition) {
    (stored.document.at, &stored.document.id, &stored.partition)
}

async fn pages(
    read: impl AsyncFn(Page) -> Result<runtime_platform::ports::store::Listing, StoreFault>,
    size: usize,
) -> Vec<Stored> {
    let (mut found, mut after) = (Vec::new(), None);
    for _ in 0..PAGES_MAX {
        let listing = read(Page { size, after }).await.unwrap();
        assert!(listing.items.len() <= size);
        found.extend(listing.items);
        after = listing.next;
        if after.is_none() {
            return found;
        }
    }
    panic!("the listing had not ended after {PAGES_MAX} pages");
}

proptest! {
    // A failure prints its smallest case; no file of them is kept beside the sources.
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_batches_leave_the_store_as_they_leave_a_map(actions in vec(action(), 1..30), size in 1..6_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new();
            for action in &actions {
                run.act(action).await;
            }
            run.compare(size).await;
        });
    }
}
