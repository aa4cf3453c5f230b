//! What is this adapter's alone. What every store promises is in the contract suite.

use serde_json::{Value, json};

use super::*;
use crate::{
    outcome::chain,
    ports::{clock::SystemClock, store::Document},
};

fn open() -> (tempfile::TempDir, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&directory.path().join("a.db"), Arc::new(SystemClock)).unwrap();
    (directory, store)
}

fn document(id: &str, body: Value) -> Document {
    Document {
        id: id.into(),
        kind: "note".into(),
        v: 1,
        at: Timestamp::UNIX_EPOCH,
        due: None,
        ttl_seconds: None,
        body,
    }
}

fn home() -> Partition {
    Partition { tenant_id: "t".into(), environment_id: "env-1".into() }
}

fn key(id: &str) -> Key {
    Key { partition: home(), id: id.into() }
}

async fn rows(store: &SqliteStore) -> u32 {
    let count = |connection: &Connection| -> Result<u32, DatabaseFault> {
        Ok(connection.query_row("SELECT count(*) FROM documents", [], |row| row.get(0))?)
    };
    store.database.read(count).await.unwrap()
}

async fn execute(store: &SqliteStore, sql: &'static str) {
    let work =
        move |connection: &Connection| -> Result<(), DatabaseFault> { Ok(connection.execute_batch(sql)?) };
    store.database.write(work).await.unwrap();
}

#[tokio::test]
async fn every_listing_walks_an_index_and_sorts_nothing() {
    let (_directory, store) = open();
    let place = Place::read(&listing_token()).unwrap();
    let plan_of = |scope: Scope, filter: Filter| {
        let (sql, values) = listing::statement(&scope, &filter, Some(&place), 10, Timestamp::UNIX_EPOCH);
        let explain = move |connection: &Connection| -> Result<String, DatabaseFault> {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
            let lines =
                statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3))?;
            Ok(lines.collect::<Result<Vec<_>, _>>()?.join("\n"))
        };
        store.database.read(explain)
    };
    for newest_first in [false, true] {
        let filter = || Filter { newest_first, since: Some(Timestamp::UNIX_EPOCH), ..Filter::default() };
        for (scope, index) in [
            (Scope::partition(&home(), "note"), "documents_of_partition"),
            (Scope::tenant("t", "note"), "documents_of_tenant"),
            (Scope::due("note", Timestamp::UNIX_EPOCH), "documents_due"),
        ] {
            let plan = plan_of(scope, filter()).await.unwrap();
            assert!(
                plan.contains(&format!("USING INDEX {index}")) && !plan.contains("TEMP B-TREE"),
                "{plan}"
            );
        }
        // A second filter and one that is not in the index do not lead, and are not gone through either.
        let equal = ["color", "moduleId", "status"].map(|name| (name.to_owned(), "x".to_owned())).to_vec();
        for (scope, index) in [
            (Scope::partition(&home(), "note"), "INDEX members_of_partition"),
            (Scope::tenant("t", "note"), "PRIMARY KEY"),
        ] {
            let plan = plan_of(scope, Filter { equal: equal.clone(), ..filter() }).await.unwrap();
            let mut lines = plan.lines();
            let (first, second) = (lines.next().unwrap(), lines.next().unwrap());
            assert!(
                first.contains("SEARCH members") && first.contains(index) && first.contains("value=?"),
                "{plan}"
            );
            assert!(second.contains("SEARCH documents") && second.contains("id=?"), "{plan}");
            assert!(!plan.contains("TEMP B-TREE") && !plan.contains("SCAN documents"), "{plan}");
            assert!(plan.contains("SEARCH further") && !plan.contains("SCAN further"), "{plan}");
        }
    }
}

async fn members(store: &SqliteStore) -> Vec<String> {
    let list = |connection: &Connection| -> Result<Vec<String>, DatabaseFault> {
        let mut statement = connection
            .prepare("SELECT document_id || ' ' || name || '=' || value FROM members ORDER BY 1")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    };
    store.database.read(list).await.unwrap()
}

#[tokio::test]
async fn the_index_of_members_follows_every_write() {
    let (_directory, store) = open();
    let body =
        json!({"moduleId": "m", "status": "Running", "note": "not in it", "xId": 5, "in": {"aId": "n"}});
    store.commit(&home(), vec![Write::Create(document("a", body))]).await.unwrap();
    assert_eq!(members(&store).await, ["a moduleId=m", "a status=Running"]);
    let body = json!({"moduleId": "m", "status": "Ended"});
    let etags = store.commit(&home(), vec![Write::Upsert(document("a", body))]).await.unwrap();
    assert_eq!(members(&store).await, ["a moduleId=m", "a status=Ended"]);
    let later = Document { at: Timestamp::MAX, ..document("a", json!({"moduleId": "m"})) };
    store.commit(&home(), vec![Write::Replace(later, etags[0].clone())]).await.unwrap();
    assert_eq!(members(&store).await, ["a moduleId=m"]);
    store.commit(&home(), vec![Write::Delete("a".into(), None)]).await.unwrap();
    let expired = Document { ttl_seconds: Some(0), ..document("b", json!({"moduleId": "m"})) };
    store.commit(&home(), vec![Write::Create(expired)]).await.unwrap();
    store.purge().await.unwrap();
    assert_eq!(members(&store).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_an_older_version_wrote_is_indexed_when_it_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let older = Connection::open(&path).unwrap();
    older.execute_batch(FORMS[0]).unwrap();
    let insert = "INSERT INTO documents VALUES ('t', 'env-1', 'a', 'note', 1, '1970-01-01T00:00:00.000000000Z', NULL, \
        NULL, NULL, '{\"moduleId\": \"m\"}', 'e'); PRAGMA user_version = 1";
    older.execute_batch(insert).unwrap();
    let store = SqliteStore::open(&path, Arc::new(SystemClock)).unwrap();
    let filter = Filter { equal: vec![("moduleId".into(), "m".into())], ..Filter::default() };
    let listing = store.list("t", "note", &filter, &Page::first(10)).await.unwrap();
    assert_eq!(listing.items.len(), 1);
}

#[test]
fn the_index_has_the_members_that_the_port_names() {
    for name in crate::ports::store::INDEXED {
        assert_eq!(members::FORM.matches(&format!("'{name}'")).count(), 2, "{name}");
    }
}

fn listing_token() -> String {
    use base64::Engine;
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(r#"["1970","a","b","c"]"#)
}

#[tokio::test]
async fn a_purge_deletes_what_has_expired_in_passes_and_nothing_else() {
    let (_directory, store) = open();
    let expired = |number| Document { ttl_seconds: Some(0), ..document(&format!("n{number}"), json!({})) };
    for batch in 0..12 {
        let writes = (0..100).map(|number| Write::Upsert(expired(batch * 100 + number))).collect();
        store.commit(&home(), writes).await.unwrap();
    }
    let long = Document { ttl_seconds: Some(u32::MAX), ..document("long", json!({})) };
    store
        .commit(&home(), vec![Write::Create(long), Write::Create(document("for-ever", json!({})))])
        .await
        .unwrap();
    store.purge().await.unwrap();
    assert_eq!(rows(&store).await, 2);
}

#[tokio::test]
async fn commits_start_a_purge_now_and_then() {
    let (_directory, store) = open();
    let expired = Document { ttl_seconds: Some(0), ..document("gone", json!({})) };
    store.commit(&home(), vec![Write::Create(expired)]).await.unwrap();
    for _ in 0..500 {
        if rows(&store).await == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("nothing was purged within five seconds");
}

#[tokio::test]
async fn a_row_that_is_no_document_is_named_and_its_body_is_not_told() {
    let (_directory, store) = open();
    store.commit(&home(), vec![Write::Create(document("n", json!({"a": "b"})))]).await.unwrap();
    execute(&store, "UPDATE documents SET body = '{\"secret\": ' WHERE id = 'n'").await;
    let fault = store.read(&key("n")).await.unwrap_err();
    assert!(matches!(&fault, StoreFault::Corrupt { .. }));
    let told = chain(&fault);
    assert!(told.contains("reading `n` of `t/env-1`") && told.contains("the body of `n`"), "{told}");
    assert!(!told.contains("secret"), "{told}");
    let filter = Filter { equal: vec![("a".into(), "b".into())], ..Filter::default() };
    let fault = store.query(&home(), "note", &filter, &Page::first(10)).await.unwrap_err();
    assert!(matches!(fault, StoreFault::Corrupt { .. }));
    execute(&store, "UPDATE documents SET body = '{}', at = 'yesterday'").await;
    assert!(matches!(store.read(&key("n")).await, Err(StoreFault::Corrupt { .. })));
}

#[tokio::test]
async fn a_full_disk_refuses_with_a_sentence_and_keeps_what_it_acknowledged() {
    let (_directory, store) = open();
    store.commit(&home(), vec![Write::Create(document("kept", json!({})))]).await.unwrap();
    // As if the disk were full: SQLite reports the same when a file has reached its most pages.
    let limit = |connection: &Connection| -> Result<u32, DatabaseFault> {
        Ok(connection.query_row("PRAGMA max_page_count = 20", [], |row| row.get(0))?)
    };
    store.database.write(limit).await.unwrap();
    let large = document("large", json!({"text": "x".repeat(500_000)}));
    let fault = store.commit(&home(), vec![Write::Create(large)]).await.unwrap_err();
    assert!(matches!(fault, StoreFault::Unavailable { .. }));
    assert_eq!(
        chain(&fault),
        "the store is not available while writing to `t/env-1`: \
         the disk is full: free some space; what was acknowledged is kept"
    );
    assert!(store.read(&key("kept")).await.unwrap().is_some());
    assert_eq!(store.read(&key("large")).await.unwrap(), None);
}

#[test]
fn a_file_of_a_newer_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let error = SqliteStore::open(&path, Arc::new(SystemClock)).err().unwrap();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }));
}

#[test]
fn times_sort_as_their_texts_do_and_come_back_whole() {
    let times = [
        "0001-01-01T00:00:00Z",
        "2026-03-02T10:15:30Z",
        "2026-03-02T10:15:30.000000001Z",
        "9999-12-30T22:00:00Z",
    ]
    .map(|text| text.parse::<Timestamp>().unwrap());
    let texts = times.map(time_text);
    assert!(texts.is_sorted());
    assert_eq!(texts.map(|text| text.parse::<Timestamp>().unwrap()), times);
}

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
}

#[tokio::test]
async fn a_document_is_gone_for_reads_and_writes_at_the_same_instant() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&directory.path().join("a.db"), Arc::new(Stopped)).unwrap();
    // The purge of the first commit is out of the way before the documents are there.
    store.next_purge.store(i64::MAX, Ordering::Relaxed);
    let expired = || Document { ttl_seconds: Some(0), ..document("a", json!({})) };
    let etags = store.commit(&home(), vec![Write::Create(expired())]).await.unwrap();
    assert_eq!(store.read(&key("a")).await.unwrap(), None);
    let guarded = store.commit(&home(), vec![Write::Replace(expired(), etags[0].clone())]).await;
    assert!(matches!(guarded, Err(StoreFault::Conflict(id)) if id == "a"));
    assert!(store.commit(&home(), vec![Write::Create(expired())]).await.is_ok());
}

#[tokio::test]
async fn what_is_due_and_broken_keeps_nothing_else_from_being_found() {
    let (_directory, store) = open();
    let due = |id: &str, second| Document {
        due: Some(Timestamp::from_second(second).unwrap()),
        ..document(id, serde_json::json!({ "n": 1 }))
    };
    let writes = ["a", "b", "c", "d"].into_iter().zip(1..).map(|(id, second)| Write::Create(due(id, second)));
    store.commit(&home(), writes.collect()).await.unwrap();
    execute(&store, "UPDATE documents SET body = '{' WHERE id IN ('b', 'd')").await;
    let mut found = Vec::new();
    let mut page = Page::first(1);
    for _ in 0..4 {
        let listing = store.due("note", Timestamp::from_second(9).unwrap(), &page).await.unwrap();
        found.extend(listing.items.into_iter().map(|stored| stored.document.id));
        page.after = listing.next;
    }
    assert_eq!((found, page.after), (vec!["a".to_owned(), "c".to_owned()], None));
    // A tenant's own list says that something is wrong: what is missing there would be missed.
    let listed = store.query(&home(), "note", &Filter::default(), &Page::first(9)).await;
    assert!(matches!(listed, Err(StoreFault::Corrupt { .. })), "{listed:?}");
}
