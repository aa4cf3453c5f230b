//! What every store promises. An adapter is put under it by a [`Subject`] and a line of
//! `store_suite!`; nothing here knows which adapter it is.

mod subjects;

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

use self::subjects::{Memory, Sqlite, Subject};
use crate::support::fixed_clock::FixedClock;

/// One test per promise and adapter.
macro_rules! promises {
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

/// The promises, for one adapter.
macro_rules! store_suite {
    ($adapter:ident, $subject:expr) => {
        promises! { $adapter, $subject;
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
    };
}

store_suite!(sqlite, Sqlite::new());
store_suite!(memory, Memory::new());

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

async fn a_query_is_of_one_kind_in_order_of_time_and_id(subject: &impl Subject) {
    let store = subject.open();
    for document in [note_at("b", 1), note_at("a", 2), note_at("d", 0), note_at("c", 1), note_at("B", 1)] {
        create(&*store, document).await;
    }
    create(&*store, Document { kind: "other".into(), ..note_at("e", 1) }).await;
    store.commit(&partition("connectsoft", "env-2"), vec![Write::Create(note_at("f", 1))]).await.unwrap();
    let oldest = query(&*store, Filter::default()).await;
    assert_eq!((ids(&oldest), &oldest.next), (vec!["d", "B", "b", "c", "a"], &None));
    let newest = query(&*store, Filter { newest_first: true, ..Filter::default() }).await;
    assert_eq!((ids(&newest), &newest.next), (vec!["a", "c", "b", "B", "d"], &None));
    let fractions = note_of("g", json!({}));
    create(&*store, Document { at: second(0) + Duration::from_nanos(1), ..fractions }).await;
    assert_eq!(ids(&query(&*store, Filter::default()).await)[..3], ["d", "g", "B"]);
}

async fn a_filter_compares_texts_and_time(subject: &impl Subject) {
    let store = subject.open();
    for document in [
        note_of("a", json!({"moduleId": "m1", "state": "Completed"})),
        note_of("b", json!({"moduleId": "m1", "state": "Failed"})),
        note_of("c", json!({"moduleId": 5, "state": "Completed"})),
        note_of("d", json!({"moduleId": null, "nested": {"moduleId": "m1"}})),
        note_of("e", json!({"moduleId": "5"})),
        note_of("f", json!({"odd.name": "it's \"quoted\" é"})),
    ] {
        create(&*store, document).await;
    }
    create(&*store, Document { at: second(60), ..note_of("g", json!({"moduleId": "m1"})) }).await;
    for (equal, expected) in [
        (vec![("moduleId", "m1")], vec!["a", "b", "g"]),
        (vec![("moduleId", "m1"), ("state", "Completed")], vec!["a"]),
        (vec![("moduleId", "5")], vec!["e"]),
        (vec![("moduleId", "M1")], vec![]),
        (vec![("odd.name", "it's \"quoted\" é")], vec!["f"]),
        (vec![("nested", "m1")], vec![]),
    ] {
        let equal = equal.into_iter().map(|(member, text)| (member.into(), text.into())).collect();
        let filter = Filter { equal, ..Filter::default() };
        assert_eq!(ids(&query(&*store, filter.clone()).await), expected, "{filter:?}");
    }
    for (since, expected) in [(60, vec!["g"]), (61, vec![])] {
        let filter = Filter { since: Some(second(since)), ..Filter::default() };
        assert_eq!(ids(&query(&*store, filter).await), expected);
    }
}

async fn a_listing_is_read_through_page_by_page(subject: &impl Subject) {
    let store = subject.open();
    // Some share their time, so that pages end between documents of one time.
    let writes = (0..25).map(|n| Write::Create(note_at(&format!("n{n:02}"), n / 4))).collect();
    store.commit(&home(), writes).await.unwrap();
    for (newest_first, size) in [(false, 1), (false, 7), (true, 4), (false, 25), (true, 24), (false, 100)] {
        let filter = Filter { newest_first, ..Filter::default() };
        let mut expected: Vec<_> = (0..25).map(|n| format!("n{n:02}")).collect();
        if newest_first {
            expected.reverse();
        }
        let (mut found, mut sizes, mut after) = (Vec::new(), Vec::new(), None);
        loop {
            let listing = store.query(&home(), "note", &filter, &Page { size, after }).await.unwrap();
            found.extend(ids(&listing).into_iter().map(str::to_owned));
            sizes.push(listing.items.len());
            after = listing.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected);
        assert_eq!(sizes.len(), 25_usize.div_ceil(size), "no page is empty: {sizes:?}");
    }
}

async fn pages_are_stable_while_others_insert_and_delete(subject: &impl Subject) {
    let store = subject.open();
    let writes = (0..10).map(|n| Write::Create(note_at(&format!("n{n}"), n * 10))).collect();
    store.commit(&home(), writes).await.unwrap();
    let page = |after| Page { size: 4, after };
    let first = store.query(&home(), "note", &Filter::default(), &page(None)).await.unwrap();
    assert_eq!(ids(&first), ["n0", "n1", "n2", "n3"]);
    // Before the mark, behind it, and the very document that the mark names.
    let writes = vec![
        Write::Create(note_at("before", 5)),
        Write::Create(note_at("behind", 45)),
        Write::Delete("n0".into(), None),
        Write::Delete("n3".into(), None),
        Write::Delete("n5".into(), None),
    ];
    store.commit(&home(), writes).await.unwrap();
    let second = store.query(&home(), "note", &Filter::default(), &page(first.next)).await.unwrap();
    assert_eq!(ids(&second), ["n4", "behind", "n6", "n7"]);
    let third = store.query(&home(), "note", &Filter::default(), &page(second.next)).await.unwrap();
    assert_eq!((ids(&third), &third.next), (vec!["n8", "n9"], &None));
}

async fn a_page_has_a_limit_and_a_mark_of_this_store(subject: &impl Subject) {
    let store = subject.open();
    for batch in 0..2 {
        let writes = (0..100).map(|n| Write::Create(note(&format!("n{batch}-{n:03}")))).collect();
        store.commit(&home(), writes).await.unwrap();
    }
    let page = Page { size: 10_000, after: None };
    let listing = store.query(&home(), "note", &Filter::default(), &page).await.unwrap();
    assert_eq!(listing.items.len(), PAGE_ITEMS_MAX);
    let page = Page { size: 10, after: Some("not a mark".into()) };
    assert!(store.query(&home(), "note", &Filter::default(), &page).await.is_err());
}

async fn what_is_due_is_found_across_partitions_in_order(subject: &impl Subject) {
    let store = subject.open();
    let (a, b) = (partition("t1", "env-1"), partition("t2", "env-2"));
    let due = |id: &str, at| Write::Create(note_due(id, at));
    store.commit(&a, vec![due("x", 30), due("same", 20), due("later", 41)]).await.unwrap();
    store
        .commit(&b, vec![due("same", 20), due("w", 30), due("at-once", 40), Write::Create(note("never"))])
        .await
        .unwrap();
    let other = Document { kind: "other".into(), ..note_due("o", 1) };
    store.commit(&a, vec![Write::Create(other)]).await.unwrap();

    let mut found = Vec::new();
    let mut after = None;
    loop {
        let listing = store.due("note", second(40), &Page { size: 2, after }).await.unwrap();
        found
            .extend(listing.items.into_iter().map(|stored| (stored.partition.tenant_id, stored.document.id)));
        after = listing.next;
        if after.is_none() {
            break;
        }
    }
    let expected = [("t1", "same"), ("t2", "same"), ("t2", "w"), ("t1", "x"), ("t2", "at-once")];
    assert_eq!(found, expected.map(|(tenant, id)| (tenant.to_owned(), id.to_owned())));

    // What is put off or done is no longer found.
    store.commit(&a, vec![Write::Upsert(note_due("same", 90)), Write::Upsert(note("x"))]).await.unwrap();
    let listing = store.due("note", second(40), &Page::first(10)).await.unwrap();
    assert_eq!(ids(&listing), ["same", "w", "at-once"]);
}

async fn a_tenants_list_goes_through_its_environments_and_no_other_tenants(subject: &impl Subject) {
    let store = subject.open();
    for (tenant, environment, id, at) in [
        ("t1", "env-1", "a", 3),
        ("t1", "env-2", "b", 1),
        ("t1", "_", "c", 2),
        ("t1", "env-2", "a", 3),
        ("t10", "env-1", "d", 0),
        ("T1", "env-1", "e", 0),
        ("t", "1env-1", "f", 0),
        ("%", "env-1", "g", 0),
    ] {
        store.commit(&partition(tenant, environment), vec![Write::Create(note_at(id, at))]).await.unwrap();
    }
    for (newest_first, expected) in [(false, ["b", "c", "a", "a"]), (true, ["a", "a", "c", "b"])] {
        for size in [1, 3, 4, 100] {
            let filter = Filter { newest_first, ..Filter::default() };
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let listing = store.list("t1", "note", &filter, &Page { size, after }).await.unwrap();
                assert!(listing.items.iter().all(|stored| stored.partition.tenant_id == "t1"));
                found.extend(listing.items.into_iter().map(|stored| stored.document.id));
                after = listing.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found, expected, "size {size}");
        }
    }
    store
        .commit(&partition("t1", "env-3"), vec![Write::Create(note_of("m", json!({"state": "X"})))])
        .await
        .unwrap();
    let filter = Filter { equal: vec![("state".into(), "X".into())], ..Filter::default() };
    assert_eq!(ids(&store.list("t1", "note", &filter, &Page::first(9)).await.unwrap()), ["m"]);
    assert_eq!(ids(&store.list("t1", "other", &Filter::default(), &Page::first(9)).await.unwrap()), [""; 0]);
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
    let (mut count, mut after) = (0, None);
    loop {
        let listing = store.list("t", "note", &Filter::default(), &Page { size: 100, after }).await.unwrap();
        count += listing.items.len();
        after = listing.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(count, 64 * 6);
}
