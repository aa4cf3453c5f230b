//! A store in memory, under the same contract suite as the real ones: for tests that run the platform
//! thousands of times.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use runtime_platform::ports::{
    clock::Clock,
    store::{
        COMMIT_BYTES_MAX, COMMIT_WRITES_MAX, Document, Etag, Filter, Key, Listing, PAGE_ITEMS_MAX, Page,
        Partition, Store, StoreFault, Stored, Write,
    },
};
use tokio::task::yield_now;

use super::fixed_clock::FixedClock;

/// Writes from one purge of what has expired to the next.
const PURGE_WRITES: u64 = 1000;

/// A store in memory. Clones are the same store.
#[derive(Clone)]
pub struct MemoryStore {
    clock: FixedClock,
    state: Arc<Mutex<State>>,
}

type Documents = BTreeMap<(Partition, String), Arc<Kept>>;

#[derive(Default)]
struct State {
    documents: Documents,
    /// Counts the writes; the last one is the newest etag.
    writes: u64,
    /// When what has expired goes, in writes.
    purge_at: u64,
}

struct Kept {
    document: Document,
    etag: Etag,
    written_at: Timestamp,
}

impl Kept {
    fn lives(&self, now: Timestamp) -> bool {
        let ttl = self.document.ttl_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        ttl.is_none_or(|ttl| self.written_at.saturating_add(ttl).is_ok_and(|end| now < end))
    }
}

impl MemoryStore {
    pub fn new(clock: FixedClock) -> Self {
        Self { clock, state: Arc::default() }
    }

    /// Everything that lives, in order of partition and id.
    pub fn dump(&self) -> Vec<Stored> {
        let now = self.clock.now();
        let state = self.state();
        let living = state.documents.iter().filter(|(_, kept)| kept.lives(now));
        living.map(|((partition, _), kept)| stored(partition, kept)).collect()
    }

    /// When the first document of these kinds is due.
    pub fn due_first(&self, kinds: &[&str]) -> Option<Timestamp> {
        let state = self.state();
        let of_kind = state.documents.values().filter(|kept| kinds.contains(&kept.document.kind.as_str()));
        of_kind.filter_map(|kept| kept.document.due).min()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A page of what `chosen` picks, in the order of the keys that it gives.
    fn page(
        &self,
        newest_first: bool,
        page: &Page,
        chosen: impl Fn(&Partition, &Document) -> Option<String>,
    ) -> Result<Listing, StoreFault> {
        if page.after.as_ref().is_some_and(|after| !after.starts_with(MARK)) {
            return Err(StoreFault::ForeignMark { doing: "listing".into() });
        }
        let now = self.clock.now();
        let state = self.state();
        let mut found: Vec<_> = state
            .documents
            .iter()
            .filter(|(_, kept)| kept.lives(now))
            .filter_map(|((partition, _), kept)| {
                Some((chosen(partition, &kept.document)?, (partition, kept)))
            })
            .collect();
        found.sort_by(|(a, _), (b, _)| if newest_first { b.cmp(a) } else { a.cmp(b) });
        let behind = |key: &String| match page.after.as_ref().and_then(|after| after.strip_prefix(MARK)) {
            None => true,
            Some(after) if newest_first => key.as_str() < after,
            Some(after) => key.as_str() > after,
        };
        let mut found = found.into_iter().filter(|(key, _)| behind(key));
        let size = page.size.min(PAGE_ITEMS_MAX);
        let items: Vec<_> = found.by_ref().take(size).collect();
        let more = found.next().is_some();
        let next = items.last().filter(|_| more).map(|(key, _)| format!("{MARK}{key}"));
        let items = items.into_iter().map(|(_, (partition, kept))| stored(partition, kept)).collect();
        Ok(Listing { items, next })
    }
}

/// What every continuation of this store begins with.
const MARK: &str = "memory:";

fn stored(partition: &Partition, kept: &Kept) -> Stored {
    Stored { partition: partition.clone(), document: kept.document.clone(), etag: kept.etag.clone() }
}

/// A key that sorts as (time, the rest) does.
fn key(at: Timestamp, rest: [&str; 3]) -> String {
    let since = at.as_nanosecond() - Timestamp::MIN.as_nanosecond();
    format!("{since:030}\u{1}{}", rest.join("\u{1}"))
}

fn made(partition: &Partition, document: &Document) -> String {
    key(document.at, [&document.id, &partition.environment_id, &partition.tenant_id])
}

fn passes(filter: &Filter, document: &Document) -> bool {
    let equal = |(name, value): &(String, String)| {
        document.body.get(name).and_then(|member| member.as_str()) == Some(value)
    };
    filter.equal.iter().all(equal) && filter.since.is_none_or(|since| document.at >= since)
}

fn limits(writes: &[Write]) -> Result<(), StoreFault> {
    let bytes = writes
        .iter()
        .map(|write| match write {
            Write::Create(document) | Write::Replace(document, _) | Write::Upsert(document) => {
                document.id.len() + document.kind.len() + document.body.to_string().len()
            }
            Write::Delete(id, _) => id.len(),
        })
        .sum();
    if writes.len() > COMMIT_WRITES_MAX || bytes > COMMIT_BYTES_MAX {
        return Err(StoreFault::TooLarge { writes: writes.len(), bytes });
    }
    Ok(())
}

/// Takes writes back, the last one first.
fn undo(documents: &mut Documents, before: Vec<((Partition, String), Option<Arc<Kept>>)>) {
    for (place, kept) in before.into_iter().rev() {
        match kept {
            Some(kept) => drop(documents.insert(place, kept)),
            None => drop(documents.remove(&place)),
        }
    }
}

/// Applies one write; nothing is changed where it conflicts.
fn apply(
    documents: &mut Documents,
    partition: &Partition,
    write: Write,
    now: Timestamp,
    etag: Etag,
) -> Result<Etag, StoreFault> {
    let place = (partition.clone(), write.id().to_owned());
    let there = documents.get(&place).filter(|kept| kept.lives(now)).map(|kept| kept.etag.clone());
    let conflicts = match &write {
        Write::Create(_) => there.is_some(),
        Write::Replace(_, etag) => there.as_ref() != Some(etag),
        Write::Delete(_, Some(etag)) => there.is_some_and(|there| there != *etag),
        Write::Upsert(_) | Write::Delete(_, None) => false,
    };
    if conflicts {
        return Err(StoreFault::Conflict(place.1));
    }
    match write {
        Write::Create(document) | Write::Replace(document, _) | Write::Upsert(document) => {
            documents.insert(place, Arc::new(Kept { document, etag: etag.clone(), written_at: now }));
            Ok(etag)
        }
        Write::Delete(..) => {
            documents.remove(&place);
            Ok(Etag(String::new()))
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn read(&self, key: &Key) -> Result<Option<Stored>, StoreFault> {
        // Whoever runs at the same time may come in between, as with a real store.
        yield_now().await;
        let now = self.clock.now();
        let state = self.state();
        let kept = state.documents.get(&(key.partition.clone(), key.id.clone()));
        Ok(kept.filter(|kept| kept.lives(now)).map(|kept| stored(&key.partition, kept)))
    }

    async fn commit(&self, partition: &Partition, writes: Vec<Write>) -> Result<Vec<Etag>, StoreFault> {
        limits(&writes)?;
        yield_now().await;
        let now = self.clock.now();
        let mut guard = self.state();
        let state = &mut *guard;
        let mut etags = Vec::with_capacity(writes.len());
        let mut before = Vec::with_capacity(writes.len());
        for write in writes {
            state.writes += 1;
            let etag = Etag(format!("m{}", state.writes));
            let place = (partition.clone(), write.id().to_owned());
            before.push((place.clone(), state.documents.get(&place).cloned()));
            match apply(&mut state.documents, partition, write, now, etag) {
                Ok(etag) => etags.push(etag),
                Err(fault) => {
                    undo(&mut state.documents, before);
                    return Err(fault);
                }
            }
        }
        if state.writes >= state.purge_at {
            state.purge_at = state.writes + PURGE_WRITES;
            state.documents.retain(|_, kept| kept.lives(now));
        }
        Ok(etags)
    }

    async fn query(
        &self,
        partition: &Partition,
        kind: &str,
        filter: &Filter,
        page: &Page,
    ) -> Result<Listing, StoreFault> {
        self.page(filter.newest_first, page, |place, document| {
            let chosen = place == partition && document.kind == kind && passes(filter, document);
            chosen.then(|| made(place, document))
        })
    }

    async fn due(&self, kind: &str, until: Timestamp, page: &Page) -> Result<Listing, StoreFault> {
        self.page(false, page, |partition, document| {
            let due = document.due.filter(|due| *due <= until && document.kind == kind)?;
            Some(key(due, [&document.id, &partition.tenant_id, &partition.environment_id]))
        })
    }

    async fn list(
        &self,
        tenant: &str,
        kind: &str,
        filter: &Filter,
        page: &Page,
    ) -> Result<Listing, StoreFault> {
        self.page(filter.newest_first, page, |partition, document| {
            let chosen = partition.tenant_id == tenant && document.kind == kind && passes(filter, document);
            chosen.then(|| made(partition, document))
        })
    }
}
