//! What every store promises of its listings.

use std::time::Duration;

use runtime_platform::ports::store::{Document, Filter, PAGE_ITEMS_MAX, Page, StoreFault, Write};
use serde_json::json;

use super::{Subject, create, home, ids, note, note_at, note_due, note_of, pages, partition, query, second};

pub async fn a_query_is_of_one_kind_in_order_of_time_and_id(subject: &impl Subject) {
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

pub async fn a_filter_compares_texts_and_time(subject: &impl Subject) {
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
        (vec![("nested", r#"{"moduleId":"m1"}"#)], vec![]),
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

pub async fn a_listing_is_read_through_page_by_page(subject: &impl Subject) {
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
        let read = async |page| store.query(&home(), "note", &filter, &page).await;
        let pages = pages(size, read).await;
        assert_eq!(pages.len(), 25_usize.div_ceil(size), "no page is empty, and none is missing");
        let found: Vec<_> = pages.into_iter().flatten().map(|stored| stored.document.id).collect();
        assert_eq!(found, expected);
    }
}

pub async fn pages_are_stable_while_others_insert_and_delete(subject: &impl Subject) {
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

pub async fn a_page_has_a_limit_and_a_mark_of_this_store(subject: &impl Subject) {
    let store = subject.open();
    for batch in 0..2 {
        let writes = (0..100).map(|n| Write::Create(note(&format!("n{batch}-{n:03}")))).collect();
        store.commit(&home(), writes).await.unwrap();
    }
    let page = Page { size: 10_000, after: None };
    let listing = store.query(&home(), "note", &Filter::default(), &page).await.unwrap();
    assert_eq!(listing.items.len(), PAGE_ITEMS_MAX);
    let page = Page { size: 10, after: Some("not a mark".into()) };
    for listing in [
        store.query(&home(), "note", &Filter::default(), &page).await,
        store.list("connectsoft", "note", &Filter::default(), &page).await,
        store.due("note", second(0), &page).await,
    ] {
        assert!(matches!(listing, Err(StoreFault::ForeignMark { .. })), "{listing:?}");
    }
}

pub async fn what_is_due_is_found_across_partitions_in_order(subject: &impl Subject) {
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

    let read = async |page| store.due("note", second(40), &page).await;
    let found: Vec<_> = pages(2, read)
        .await
        .into_iter()
        .flatten()
        .map(|stored| (stored.partition.tenant_id, stored.document.id))
        .collect();
    let expected = [("t1", "same"), ("t2", "same"), ("t2", "w"), ("t1", "x"), ("t2", "at-once")];
    assert_eq!(found, expected.map(|(tenant, id)| (tenant.to_owned(), id.to_owned())));

    // What is put off or done is no longer found.
    store.commit(&a, vec![Write::Upsert(note_due("same", 90)), Write::Upsert(note("x"))]).await.unwrap();
    let listing = store.due("note", second(40), &Page::first(10)).await.unwrap();
    assert_eq!(ids(&listing), ["same", "w", "at-once"]);
}

pub async fn a_tenants_list_goes_through_its_environments_and_no_other_tenants(subject: &impl Subject) {
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
            let read = async |page| store.list("t1", "note", &filter, &page).await;
            let found: Vec<_> = pages(size, read).await.into_iter().flatten().collect();
            assert!(found.iter().all(|stored| stored.partition.tenant_id == "t1"));
            let found: Vec<_> = found.into_iter().map(|stored| stored.document.id).collect();
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
