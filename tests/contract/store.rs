//! What every store promises. An adapter is put under it by a [`Subject`] and a line of
//! `store_suite!`; nothing here knows which adapter it is.

mod listings;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::join_all;
use jiff::Timestamp;
use runtime_platform::{
    local::store::SqliteStore,
    ports::store::{
        COMMIT_BYTES_MAX, COMMIT_WRITES_MAX, Document, Etag, Filter, Key, Listing, PAGE_ITEMS_MAX, Page,
        Partition, Store, StoreFault, Stored, Write,
    },
};
use serde_json::{Value, json};

use self::listings::*;
use crate::support::fixed_clock::FixedClock;

/// No test here has more pages to read.
const PAGES_MAX: usize = 100;

/// An adapter under the suite, with data of its own that begins empty.
#[async_trait]
trait Subject: Sync {
    /// Another handle on the same data, as another process would have.
    fn open(&self) -> Arc<dyn Store>;

    /// Lets this much time pass, as the store sees it.
    async fn wait(&self, seconds: u64);
}

/// One test per promise and adapter.
macro_rules! store_suite {
    ($adapter:ident, $subject:expr; $($promise:ident)*) => {
        mod $adapter {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::$promise(&$subject).await;
            })*
        }
    };
}

store_suite! { sqlite, Sqlite::new();
    a_document_comes_back_as_it_was_written
    what_is_not_there_is_none
    a_create_over_a_document_conflicts_and_names_it
    a_replace_needs_the_etag_that_was_read_last
    an_upsert_writes_whatever_is_there
    a_delete_is_content_with_nothing_and_not_with_another_etag
    every_write_makes_an_etag_that_was_never_seen
    one_conflict_undoes_the_whole_commit
    the_writes_of_a_commit_happen_in_order
    partitions_do_not_see_each_other
    a_commit_has_a_limit_of_writes_and_of_bytes
    a_query_is_of_one_kind_in_order_of_time_and_id
    a_filter_compares_texts_and_time
    a_listing_is_read_through_page_by_page
    pages_are_stable_while_others_insert_and_delete
    a_page_has_a_limit_and_a_mark_of_this_store
    what_is_due_is_found_across_partitions_in_order
    a_tenants_list_goes_through_its_environments_and_no_other_tenants
    what_has_outlived_its_time_is_not_found
    an_id_that_has_expired_is_free
    a_write_begins_the_time_to_live_anew
    what_was_acknowledged_is_there_for_the_next_process
    of_two_processes_with_one_etag_exactly_one_wins
    of_many_that_create_one_document_exactly_one_wins
    many_writers_at_once_all_succeed
}

/// The adapter of this machine.
struct Sqlite {
    directory: tempfile::TempDir,
    clock: FixedClock,
}

impl Sqlite {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), clock: FixedClock::default() }
    }
}

#[async_trait]
impl Subject for Sqlite {
    fn open(&self) -> Arc<dyn Store> {
        let path = self.directory.path().join("store.db");
        Arc::new(SqliteStore::open(&path, Arc::new(self.clock.clone())).unwrap())
    }

    async fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

fn home() -> Partition {
    Partition { tenant_id: "connectsoft".into(), environment_id: "env-1".into() }
}

fn partition(tenant: &str, environment: &str) -> Partition {
    Partition { tenant_id: tenant.into(), environment_id: environment.into() }
}

fn key(id: &str) -> Key {
    Key { partition: home(), id: id.into() }
}

fn second(number: i64) -> Timestamp {
    Timestamp::from_second(1_770_000_000 + number).unwrap()
}

/// A document of kind `note`, made at `second(0)`.
fn note(id: &str) -> Document {
    Document {
        id: id.into(),
        kind: "note".into(),
        v: 1,
        at: second(0),
        due: None,
        ttl_seconds: None,
        body: json!({}),
    }
}

fn note_at(id: &str, at: i64) -> Document {
    Document { at: second(at), ..note(id) }
}

fn note_due(id: &str, due: i64) -> Document {
    Document { due: Some(second(due)), ..note(id) }
}

fn note_for(id: &str, ttl_seconds: u32) -> Document {
    Document { ttl_seconds: Some(ttl_seconds), ..note(id) }
}

fn note_of(id: &str, body: Value) -> Document {
    Document { body, ..note(id) }
}

async fn write(store: &dyn Store, write: Write) -> Result<Etag, StoreFault> {
    Ok(store.commit(&home(), vec![write]).await?.remove(0))
}

async fn create(store: &dyn Store, document: Document) -> Etag {
    write(store, Write::Create(document)).await.unwrap()
}

async fn body(store: &dyn Store, id: &str) -> Option<Value> {
    store.read(&key(id)).await.unwrap().map(|stored| stored.document.body)
}

/// The id that a conflict names; any other end fails the test.
fn conflict<T: std::fmt::Debug>(end: Result<T, StoreFault>) -> String {
    match end {
        Err(StoreFault::Conflict(id)) => id,
        other => panic!("a conflict was expected, not {other:?}"),
    }
}

fn ids(listing: &Listing) -> Vec<&str> {
    listing.items.iter().map(|stored| &*stored.document.id).collect()
}

/// The pages of a listing, to its end; a listing that does not come to one fails the test.
async fn pages(size: usize, read: impl AsyncFn(Page) -> Result<Listing, StoreFault>) -> Vec<Vec<Stored>> {
    let (mut pages, mut after) = (Vec::new(), None);
    while pages.len() < PAGES_MAX {
        let listing = read(Page { size, after }).await.unwrap();
        pages.push(listing.items);
        after = listing.next;
        if after.is_none() {
            return pages;
        }
    }
    panic!("the listing had not ended after {PAGES_MAX} pages");
}

async fn query(store: &dyn Store, filter: Filter) -> Listing {
    store.query(&home(), "note", &filter, &Page::first(PAGE_ITEMS_MAX)).await.unwrap()
}

async fn a_document_comes_back_as_it_was_written(subject: &impl Subject) {
    let store = subject.open();
    let document = Document {
        id: "a/b c'\"%_".into(),
        kind: "note".into(),
        v: 7,
        at: "2026-03-02T10:15:30.123456789Z".parse().unwrap(),
        due: Some("2026-03-02T10:16:00Z".parse().unwrap()),
        ttl_seconds: Some(3600),
        body: json!({"z": 1, "a": {"text": "zwölf Prüfungen \u{1f680}", "none": null}, "list": [1.5, -2, true]}),
    };
    let etag = create(&*store, document.clone()).await;
    let stored = store.read(&key(&document.id)).await.unwrap();
    assert_eq!(stored, Some(Stored { partition: home(), document: document.clone(), etag }));
    // Members keep their order, which comparing values does not see.
    assert_eq!(stored.unwrap().document.body.to_string(), document.body.to_string());
}

async fn what_is_not_there_is_none(subject: &impl Subject) {
    let store = subject.open();
    assert_eq!(store.read(&key("a")).await.unwrap(), None);
    assert_eq!(query(&*store, Filter::default()).await, Listing { items: vec![], next: None });
    assert_eq!(store.commit(&home(), vec![]).await.unwrap(), vec![]);
}

async fn a_create_over_a_document_conflicts_and_names_it(subject: &impl Subject) {
    let store = subject.open();
    create(&*store, note_of("a", json!({"by": "first"}))).await;
    assert_eq!(conflict(write(&*store, Write::Create(note_of("a", json!({"by": "second"})))).await), "a");
    assert_eq!(body(&*store, "a").await, Some(json!({"by": "first"})));
}

async fn a_replace_needs_the_etag_that_was_read_last(subject: &impl Subject) {
    let store = subject.open();
    let first = create(&*store, note("a")).await;
    let second = write(&*store, Write::Replace(note_of("a", json!({"n": 2})), first.clone())).await.unwrap();
    assert_eq!(conflict(write(&*store, Write::Replace(note_of("a", json!({"n": 3})), first)).await), "a");
    let read = store.read(&key("a")).await.unwrap().unwrap();
    assert_eq!((read.document.body, &read.etag), (json!({"n": 2}), &second));
    assert_eq!(conflict(write(&*store, Write::Replace(note("gone"), second)).await), "gone");
    assert_eq!(store.read(&key("gone")).await.unwrap(), None);
}

async fn an_upsert_writes_whatever_is_there(subject: &impl Subject) {
    let store = subject.open();
    let first = write(&*store, Write::Upsert(note_of("a", json!({"n": 1})))).await.unwrap();
    let whole =
        Document { kind: "other".into(), v: 2, at: second(9), due: Some(second(8)), ..note_for("a", 500) };
    let etag = write(&*store, Write::Upsert(whole.clone())).await.unwrap();
    assert_ne!(first, etag);
    let stored = store.read(&key("a")).await.unwrap();
    assert_eq!(stored, Some(Stored { partition: home(), document: whole, etag }));
}

async fn a_delete_is_content_with_nothing_and_not_with_another_etag(subject: &impl Subject) {
    let store = subject.open();
    let nothing = Etag(String::new());
    let delete = |etag: Option<&Etag>| Write::Delete("a".into(), etag.cloned());
    assert_eq!(write(&*store, delete(None)).await.unwrap(), nothing);
    let old = create(&*store, note("a")).await;
    assert_eq!(write(&*store, delete(None)).await.unwrap(), nothing);
    assert_eq!(write(&*store, delete(Some(&old))).await.unwrap(), nothing);
    let new = create(&*store, note("a")).await;
    assert_eq!(conflict(write(&*store, delete(Some(&old))).await), "a");
    assert!(store.read(&key("a")).await.unwrap().is_some());
    assert_eq!(write(&*store, delete(Some(&new))).await.unwrap(), nothing);
    assert_eq!(store.read(&key("a")).await.unwrap(), None);
}

async fn every_write_makes_an_etag_that_was_never_seen(subject: &impl Subject) {
    let store = subject.open();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(create(&*store, note("a")).await);
        let last = seen.last().cloned().unwrap();
        // The same document again is a write too.
        seen.push(write(&*store, Write::Replace(note("a"), last)).await.unwrap());
        seen.push(write(&*store, Write::Upsert(note("a"))).await.unwrap());
        write(&*store, Write::Delete("a".into(), None)).await.unwrap();
    }
    let mut distinct: Vec<_> = seen.iter().map(|etag| &etag.0).collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), seen.len());
}

async fn one_conflict_undoes_the_whole_commit(subject: &impl Subject) {
    let store = subject.open();
    let etag = create(&*store, note_of("kept", json!({"n": 1}))).await;
    create(&*store, note("taken")).await;
    let writes = vec![
        Write::Create(note("new")),
        Write::Replace(note_of("kept", json!({"n": 2})), etag.clone()),
        Write::Delete("taken".into(), Some(Etag("another".into()))),
        Write::Upsert(note("late")),
    ];
    assert_eq!(conflict(store.commit(&home(), writes).await), "taken");
    assert_eq!(store.read(&key("new")).await.unwrap(), None);
    assert_eq!(store.read(&key("late")).await.unwrap(), None);
    let kept = store.read(&key("kept")).await.unwrap().unwrap();
    assert_eq!((kept.document.body, kept.etag), (json!({"n": 1}), etag));
}

async fn the_writes_of_a_commit_happen_in_order(subject: &impl Subject) {
    let store = subject.open();
    create(&*store, note("old")).await;
    let writes = vec![
        Write::Delete("old".into(), None),
        Write::Create(note_of("old", json!({"made": "anew"}))),
        Write::Create(note("new")),
        Write::Upsert(note_of("new", json!({"n": 2}))),
    ];
    let etags = store.commit(&home(), writes).await.unwrap();
    assert_eq!(etags[0], Etag(String::new()));
    assert_eq!(store.read(&key("old")).await.unwrap().unwrap().etag, etags[1]);
    assert_eq!(store.read(&key("new")).await.unwrap().unwrap().etag, etags[3]);
    assert_eq!(body(&*store, "old").await, Some(json!({"made": "anew"})));
    assert_eq!(body(&*store, "new").await, Some(json!({"n": 2})));
}

async fn partitions_do_not_see_each_other(subject: &impl Subject) {
    let store = subject.open();
    let others = [partition("connectsoft", "env-2"), partition("other", "env-1")];
    create(&*store, note_of("a", json!({"n": 0}))).await;
    for other in &others {
        store.commit(other, vec![Write::Create(note("a"))]).await.unwrap();
        store.commit(other, vec![Write::Delete("a".into(), None)]).await.unwrap();
        assert_eq!(store.read(&Key { partition: other.clone(), id: "a".into() }).await.unwrap(), None);
    }
    assert_eq!(body(&*store, "a").await, Some(json!({"n": 0})));
}

async fn a_commit_has_a_limit_of_writes_and_of_bytes(subject: &impl Subject) {
    let store = subject.open();
    let notes = |count: usize| (0..count).map(|n| Write::Create(note(&format!("n{n}")))).collect::<Vec<_>>();
    let over = store.commit(&home(), notes(COMMIT_WRITES_MAX + 1)).await;
    assert!(matches!(over, Err(StoreFault::TooLarge { writes, .. }) if writes == COMMIT_WRITES_MAX + 1));
    assert_eq!(query(&*store, Filter::default()).await.items, vec![]);
    assert_eq!(store.commit(&home(), notes(COMMIT_WRITES_MAX)).await.unwrap().len(), COMMIT_WRITES_MAX);

    let large = |id: &str, bytes: usize| Write::Create(note_of(id, json!({"text": "x".repeat(bytes)})));
    let half = COMMIT_BYTES_MAX / 2;
    let over = store.commit(&home(), vec![large("a", half), large("b", half)]).await;
    assert!(matches!(over, Err(StoreFault::TooLarge { writes: 2, bytes }) if bytes > COMMIT_BYTES_MAX));
    assert_eq!(store.read(&key("a")).await.unwrap(), None);
    store.commit(&home(), vec![large("a", half - 10_000), large("b", half - 10_000)]).await.unwrap();
    assert!(store.read(&key("b")).await.unwrap().is_some());
}

async fn what_has_outlived_its_time_is_not_found(subject: &impl Subject) {
    let store = subject.open();
    let etag = create(&*store, Document { due: Some(second(1)), ..note_for("short", 10) }).await;
    create(&*store, note_due("kept", 1)).await;
    let found = async || {
        let read = store.read(&key("short")).await.unwrap().is_some();
        let page = Page::first(10);
        let queried = store.query(&home(), "note", &Filter::default(), &page).await.unwrap().items.len();
        let due = store.due("note", second(1), &page).await.unwrap().items.len();
        let listed = store.list("connectsoft", "note", &Filter::default(), &page).await.unwrap().items.len();
        (read, queried, due, listed)
    };
    subject.wait(8).await;
    assert_eq!(found().await, (true, 2, 2, 2));
    subject.wait(4).await;
    assert_eq!(found().await, (false, 1, 1, 1));
    assert_eq!(conflict(write(&*store, Write::Replace(note("short"), etag.clone())).await), "short");
    // Nothing there is fine for a delete, whatever it expects.
    let delete = Write::Delete("short".into(), Some(Etag("another".into())));
    assert_eq!(write(&*store, delete).await.unwrap(), Etag(String::new()));
}

async fn an_id_that_has_expired_is_free(subject: &impl Subject) {
    let store = subject.open();
    let old = create(&*store, note_for("a", 5)).await;
    assert_eq!(conflict(write(&*store, Write::Create(note("a"))).await), "a");
    subject.wait(6).await;
    let new = create(&*store, note_of("a", json!({"n": 2}))).await;
    assert_ne!(old, new);
    subject.wait(600).await;
    assert_eq!(body(&*store, "a").await, Some(json!({"n": 2})));
}

async fn a_write_begins_the_time_to_live_anew(subject: &impl Subject) {
    let store = subject.open();
    let etag = create(&*store, note_for("a", 10)).await;
    subject.wait(6).await;
    write(&*store, Write::Replace(note_for("a", 10), etag)).await.unwrap();
    subject.wait(6).await;
    assert!(store.read(&key("a")).await.unwrap().is_some());
    write(&*store, Write::Upsert(note("a"))).await.unwrap();
    subject.wait(60).await;
    assert!(store.read(&key("a")).await.unwrap().is_some());
}

async fn what_was_acknowledged_is_there_for_the_next_process(subject: &impl Subject) {
    let store = subject.open();
    let etag = create(&*store, note_of("a", json!({"n": 1}))).await;
    drop(store);
    let stored = subject.open().read(&key("a")).await.unwrap();
    assert_eq!(stored, Some(Stored { partition: home(), document: note_of("a", json!({"n": 1})), etag }));
}

async fn of_two_processes_with_one_etag_exactly_one_wins(subject: &impl Subject) {
    let processes = [subject.open(), subject.open()];
    let mut etag = create(&*processes[0], note_of("a", json!({"by": 9}))).await;
    for _ in 0..20 {
        let replace = |number: usize| {
            let (store, etag) = (processes[number].clone(), etag.clone());
            tokio::spawn(async move {
                write(&*store, Write::Replace(note_of("a", json!({"by": number})), etag)).await
            })
        };
        let ends =
            join_all([replace(0), replace(1)]).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
        let winners: Vec<_> =
            ends.iter().enumerate().filter_map(|(n, end)| Some((n, end.as_ref().ok()?))).collect();
        let [(winner, new)] = winners[..] else { panic!("one should win: {ends:?}") };
        let stored = processes[1 - winner].read(&key("a")).await.unwrap().unwrap();
        assert_eq!((stored.document.body, &stored.etag), (json!({"by": winner}), new));
        etag = new.clone();
        conflict(ends.into_iter().find(Result::is_err).expect("the other one lost"));
    }
}

async fn of_many_that_create_one_document_exactly_one_wins(subject: &impl Subject) {
    let processes = [subject.open(), subject.open()];
    let creates = (0..32).map(|number| {
        let store = processes[number % 2].clone();
        // A second document tells whether a loser wrote half of its commit.
        let own = Write::Create(note(&format!("own-{number:02}")));
        let shared = Write::Create(note_of("shared", json!({"by": format!("own-{number:02}")})));
        tokio::spawn(async move { store.commit(&home(), vec![own, shared]).await.is_ok() })
    });
    let wins = join_all(creates).await.into_iter().filter(|end| *end.as_ref().unwrap()).count();
    assert_eq!(wins, 1);
    let listing = query(&*processes[0], Filter::default()).await;
    let winner = body(&*processes[0], "shared").await.unwrap()["by"].as_str().unwrap().to_owned();
    assert_eq!(ids(&listing), [winner.as_str(), "shared"]);
}

async fn many_writers_at_once_all_succeed(subject: &impl Subject) {
    let store = subject.open();
    let writers = (0..64).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..5 {
                let writes = vec![
                    Write::Create(note(&format!("n{number}-{round}"))),
                    Write::Upsert(note_of(&format!("last{number:02}"), json!({"round": round}))),
                ];
                store.commit(&partition("t", &format!("env-{}", number % 7)), writes).await.unwrap();
            }
        })
    });
    for end in join_all(writers).await {
        end.unwrap();
    }
    let read = async |page| store.list("t", "note", &Filter::default(), &page).await;
    let count = pages(100, read).await.iter().map(Vec::len).sum::<usize>();
    assert_eq!(count, 64 * 6);
}
