//! The promises of one file: groups, full disks, forms, callers and work that go away.

use std::sync::{Barrier, mpsc as blocking};

use super::*;

const FORMS: &[&str] = &["CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)"];

fn open() -> (tempfile::TempDir, Database) {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(&directory.path().join("a.db"), FORMS).unwrap();
    (directory, database)
}

async fn note(database: &Database, id: i64, text: &str) -> Result<(), DatabaseFault> {
    let text = text.to_owned();
    database
        .write(move |connection| {
            connection.execute("INSERT INTO notes VALUES (?1, ?2)", (id, text))?;
            Ok(())
        })
        .await
}

async fn ids(database: &Database) -> Vec<i64> {
    let read = |connection: &Connection| -> Result<Vec<i64>, DatabaseFault> {
        let mut statement = connection.prepare_cached("SELECT id FROM notes ORDER BY id")?;
        let ids = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(ids)
    };
    database.read(read).await.unwrap()
}

/// Keeps the writer busy until the sender is used, so that what is queued meanwhile makes one group.
async fn hold_the_writer(database: &Database) -> blocking::Sender<()> {
    let (release, held) = blocking::channel::<()>();
    let (begun, has_begun) = oneshot::channel();
    let database = database.clone();
    tokio::spawn(async move {
        let work = move |_: &Connection| -> Result<(), DatabaseFault> {
            begun.send(()).unwrap();
            held.recv().unwrap();
            Ok(())
        };
        database.write(work).await
    });
    has_begun.await.unwrap();
    release
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let (_directory, database) = open();
    note(&database, 1, "kept").await.unwrap();
    let path = database.path().to_owned();
    drop(database);
    assert_eq!(ids(&Database::open(&path, FORMS).unwrap()).await, vec![1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_at_once_all_succeed() {
    let (_directory, database) = open();
    let writers = (0..64).map(|id| {
        let database = database.clone();
        tokio::spawn(async move { note(&database, id, "x").await })
    });
    for end in futures::future::join_all(writers).await {
        end.unwrap().unwrap();
    }
    assert_eq!(ids(&database).await, (0..64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_or_panicking_piece_of_a_group_undoes_only_itself() {
    let (_directory, database) = open();
    let release = hold_the_writer(&database).await;
    let queue = |work: fn(&Connection) -> Result<(), DatabaseFault>| {
        let database = database.clone();
        tokio::spawn(async move { database.write(work).await })
    };
    let first = queue(|connection| {
        connection.execute("INSERT INTO notes VALUES (1, 'first')", [])?;
        Ok(())
    });
    let refused = queue(|connection| {
        connection.execute("INSERT INTO notes VALUES (2, 'undone')", [])?;
        connection.execute("INSERT INTO nowhere VALUES (1)", [])?;
        Ok(())
    });
    let panicked = queue(|connection| {
        connection.execute("INSERT INTO notes VALUES (3, 'undone')", [])?;
        panic!("a piece of work panics, as this test wants");
    });
    let last = queue(|connection| {
        connection.execute("INSERT INTO notes VALUES (4, 'last')", [])?;
        Ok(())
    });
    while database.writes.capacity() > WRITES_QUEUED_MAX - 4 {
        tokio::task::yield_now().await;
    }
    release.send(()).unwrap();
    assert!(first.await.unwrap().is_ok());
    assert!(matches!(refused.await.unwrap(), Err(DatabaseFault::Refused(_))));
    assert!(matches!(panicked.await.unwrap(), Err(DatabaseFault::Panicked)));
    assert!(last.await.unwrap().is_ok());
    assert_eq!(ids(&database).await, vec![1, 4]);
}

/// A full disk may make SQLite undo the whole transaction; a `ROLLBACK` within the work does the
/// same to the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_sqlite_undid_is_acknowledged_to_nobody() {
    let (_directory, database) = open();
    let release = hold_the_writer(&database).await;
    let before = tokio::spawn({
        let database = database.clone();
        async move { note(&database, 1, "before").await }
    });
    while database.writes.capacity() > WRITES_QUEUED_MAX - 1 {
        tokio::task::yield_now().await;
    }
    let breaking = tokio::spawn({
        let database = database.clone();
        async move {
            let work = |connection: &Connection| -> Result<(), DatabaseFault> {
                connection.execute_batch("ROLLBACK")?;
                Err(DatabaseFault::Full)
            };
            database.write(work).await
        }
    });
    while database.writes.capacity() > WRITES_QUEUED_MAX - 2 {
        tokio::task::yield_now().await;
    }
    let after = tokio::spawn({
        let database = database.clone();
        async move { note(&database, 3, "after").await }
    });
    while database.writes.capacity() > WRITES_QUEUED_MAX - 3 {
        tokio::task::yield_now().await;
    }
    release.send(()).unwrap();
    assert!(matches!(before.await.unwrap(), Err(DatabaseFault::Uncommitted(_))));
    assert!(matches!(breaking.await.unwrap(), Err(DatabaseFault::Full)));
    assert!(matches!(after.await.unwrap(), Err(DatabaseFault::Uncommitted(_))));
    assert_eq!(ids(&database).await, Vec::<i64>::new());
    note(&database, 4, "again").await.unwrap();
    assert_eq!(ids(&database).await, vec![4]);
}

#[tokio::test]
async fn a_full_disk_refuses_and_keeps_what_it_acknowledged() {
    let (_directory, database) = open();
    note(&database, 1, "kept").await.unwrap();
    // SQLite answers the same when a file has reached its most pages as when the disk is full.
    let limit = |pages: u32| {
        move |connection: &Connection| -> Result<u32, DatabaseFault> {
            let set = format!("PRAGMA max_page_count = {pages}");
            Ok(connection.query_row(&set, [], |row| row.get(0))?)
        }
    };
    database.write(limit(8)).await.unwrap();
    assert!(matches!(note(&database, 2, &"x".repeat(100_000)).await, Err(DatabaseFault::Full)));
    assert_eq!(ids(&database).await, vec![1]);
    database.write(limit(1_000_000)).await.unwrap();
    note(&database, 3, &"x".repeat(100_000)).await.unwrap();
    assert_eq!(ids(&database).await, vec![1, 3]);
}

#[tokio::test]
async fn a_reader_cannot_write_sees_one_snapshot_and_survives_panics() {
    let (_directory, database) = open();
    let write = |connection: &Connection| -> Result<usize, DatabaseFault> {
        Ok(connection.execute("INSERT INTO notes VALUES (1, 'x')", [])?)
    };
    assert!(matches!(database.read(write).await, Err(DatabaseFault::Refused(_))));
    for _ in 0..=READERS {
        let panics = |_: &Connection| -> Result<(), DatabaseFault> { panic!("as this test wants") };
        assert!(matches!(database.read(panics).await, Err(DatabaseFault::Panicked)));
    }
    assert_eq!(ids(&database).await, Vec::<i64>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_does_not_take_a_reader_along() {
    let (_directory, database) = open();
    let release = Arc::new(Barrier::new(READERS + 1));
    for _ in 0..READERS {
        let (begun, has_begun) = oneshot::channel();
        let (database, release) = (database.clone(), release.clone());
        let caller = tokio::spawn(async move {
            let work = move |_: &Connection| -> Result<(), DatabaseFault> {
                begun.send(()).unwrap();
                release.wait();
                Ok(())
            };
            database.read(work).await
        });
        has_begun.await.unwrap();
        caller.abort();
    }
    let next = tokio::spawn(async move { ids(&database).await });
    tokio::task::spawn_blocking(move || release.wait()).await.unwrap();
    assert_eq!(next.await.unwrap(), Vec::<i64>::new());
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 7").unwrap();
    let error = Database::open(&path, FORMS).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "`{}` was written by a newer version (form 7, this version reads 1): use the newer version, or another data directory",
            path.display()
        )
    );
    let tables = "SELECT count(*) FROM sqlite_schema";
    let count: u32 = Connection::open(&path).unwrap().query_row(tables, [], |row| row.get(0)).unwrap();
    assert_eq!(count, 0);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    std::fs::write(&path, "not a database, and long enough to be looked at. ".repeat(50)).unwrap();
    let error = Database::open(&path, FORMS).err().unwrap();
    assert_eq!(error.to_string(), format!("cannot open `{}`", path.display()));
}

#[test]
fn a_file_that_many_open_at_once_is_made_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let together = Barrier::new(6);
    let open = || {
        together.wait();
        Database::open(&path, FORMS).map(drop).map_err(|error| format!("{error:?}"))
    };
    let ends: Vec<_> = thread::scope(|scope| {
        let openers: Vec<_> = (0..6).map(|_| scope.spawn(open)).collect();
        openers.into_iter().map(|opener| opener.join().unwrap()).collect()
    });
    assert_eq!(ends, vec![Ok(()); 6]);
}

#[tokio::test]
async fn a_form_is_added_to_an_older_file_once() {
    const NEXT: &[&str] = &[FORMS[0], "ALTER TABLE notes ADD COLUMN mark TEXT"];
    let (_directory, database) = open();
    note(&database, 1, "old").await.unwrap();
    for _ in 0..2 {
        assert_eq!(ids(&Database::open(database.path(), NEXT).unwrap()).await, vec![1]);
    }
}
