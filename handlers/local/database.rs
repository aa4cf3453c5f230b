//! One SQLite file, shared by every part that keeps something on this machine.
//!
//! Writes are acknowledged when they are on disk, and are committed in groups: one thread takes what
//! has queued up, runs each piece of work under a savepoint of its own, commits once (one fsync), and
//! only then answers them all. Reads run beside it on connections of their own.
//!
//! A second process may have the same file open: it waits for its turn to write, up to [`BUSY_WAIT`].
//! What keeps two of them from being *meant* is not here, but with whoever owns the directory.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Pieces of work that may wait for the writer; more wait at the caller.
const WRITES_QUEUED_MAX: usize = 1024;
/// Pieces of work that share one fsync at most.
const WRITES_PER_COMMIT_MAX: usize = 256;
/// Connections that read at the same time.
const READERS: usize = 4;
/// How long to wait for another process that writes the same file.
pub const BUSY_WAIT: Duration = Duration::from_secs(5);
/// How long to wait between two attempts to open a file that another process is opening.
const OPEN_RETRY: Duration = Duration::from_millis(20);
/// Prepared statements that a connection keeps.
const STATEMENTS_CACHED: usize = 64;

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "`{path}` was written by a newer version (form {found}, this version reads {known}): use the newer version, or another data directory"
    )]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("cannot open `{path}`")]
    Unusable { path: PathBuf, source: rusqlite::Error },
    #[error("cannot start the writer of `{path}`")]
    NoThread { path: PathBuf, source: io::Error },
}

/// Why a piece of work was not done. Nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseFault {
    #[error("the disk is full: free some space; what was acknowledged is kept")]
    Full,
    #[error("the database refused")]
    Refused(#[source] rusqlite::Error),
    #[error("the group of writes could not be committed: {0}")]
    Uncommitted(String),
    #[error("the work panicked; what it had written is undone")]
    Panicked,
    #[error("the writer has stopped")]
    Stopped,
}

impl From<rusqlite::Error> for DatabaseFault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::Refused(error),
        }
    }
}

/// A database file. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    path: Arc<PathBuf>,
    writes: mpsc::Sender<Box<dyn Work>>,
    readers: Arc<Readers>,
}

impl Database {
    /// Opens or makes the file; its directory must be there. `forms` are the statements that lead
    /// from one form of the tables to the next; the file remembers how many it has been through.
    /// Blocks while it opens.
    ///
    /// # Errors
    /// When the file cannot be used, or a newer version has written it.
    pub fn open(path: &Path, forms: &'static [&'static str]) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::Unusable { path: path.to_owned(), source };
        let writer = connect(path).map_err(unusable)?;
        bring_up_to_date(&writer, path, forms)?;
        let readers =
            (0..READERS).map(|_| connect_to_read(path)).collect::<Result<Vec<_>, _>>().map_err(unusable)?;
        let (writes, queue) = mpsc::channel(WRITES_QUEUED_MAX);
        thread::Builder::new()
            .name("database-writer".to_owned())
            .spawn(move || write_in_groups(&writer, queue))
            .map_err(|source| OpenError::NoThread { path: path.to_owned(), source })?;
        Ok(Self { path: Arc::new(path.to_owned()), writes, readers: Arc::new(Readers::of(readers)) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in a transaction and answers when it is on disk. An error of `work` undoes what
    /// it wrote, and nothing else. `work` neither begins nor ends transactions, and returns the
    /// first error that it meets: after some, SQLite has already undone the transaction.
    ///
    /// Work that was queued is done even if the caller goes away.
    ///
    /// # Errors
    /// What `work` says, or a [`DatabaseFault`].
    pub async fn write<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseFault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let piece = Piece { work: Some(work), result: None, reply };
        self.writes.send(Box::new(piece)).await.map_err(|_| DatabaseFault::Stopped)?;
        answer.await.map_err(|_| DatabaseFault::Stopped)?
    }

    /// Runs `work` on a snapshot of what is committed; it cannot write.
    ///
    /// # Errors
    /// What `work` says, or a [`DatabaseFault`].
    pub async fn read<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseFault> + Send + 'static,
    {
        // The permit goes with the work: a caller that goes away must not free a connection that
        // is still in use.
        let permit =
            self.readers.permits.clone().acquire_owned().await.map_err(|_| DatabaseFault::Stopped)?;
        let readers = self.readers.clone();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let connection = readers.take().ok_or(DatabaseFault::Stopped)?;
            let result = catch_unwind(AssertUnwindSafe(|| within_snapshot(&connection, work)));
            readers.give_back(connection);
            result.unwrap_or_else(|_| Err(DatabaseFault::Panicked.into()))
        })
        .await
        .map_err(|_| DatabaseFault::Stopped)?
    }
}

/// The connections that read, and a permit for each.
struct Readers {
    free: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    fn of(connections: Vec<Connection>) -> Self {
        let permits = Arc::new(Semaphore::new(connections.len()));
        Self { free: Mutex::new(connections), permits }
    }

    fn take(&self) -> Option<Connection> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// A connection on which work panicked may still be in its transaction; it comes back clean.
    fn give_back(&self, connection: Connection) {
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

fn within_snapshot<T, E: From<DatabaseFault>>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    let fault = |error| E::from(DatabaseFault::from(error));
    connection.execute_batch("BEGIN").map_err(fault)?;
    let result = work(connection);
    // A read leaves nothing to commit, so that a failure to end it takes nothing from its answer.
    let _ = connection.execute_batch("ROLLBACK");
    result
}

/// A piece of work of the writer: runs in the group's transaction, answers once it is committed.
trait Work: Send {
    fn run(&mut self, connection: &Connection);
    /// `Some` when the group was not committed, and this piece is not what broke it.
    fn answer(self: Box<Self>, uncommitted: Option<DatabaseFault>);
}

struct Piece<F, T, E> {
    work: Option<F>,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Work for Piece<F, T, E>
where
    F: FnOnce(&Connection) -> Result<T, E> + Send,
    T: Send,
    E: From<DatabaseFault> + Send,
{
    fn run(&mut self, connection: &Connection) {
        let Some(work) = self.work.take() else { return };
        self.result = Some(within_savepoint(connection, work));
    }

    fn answer(self: Box<Self>, uncommitted: Option<DatabaseFault>) {
        let result = match (uncommitted, self.result) {
            // Also where the work said no: it may have been looking at what is now undone.
            (Some(fault), _) => Err(fault.into()),
            (None, Some(result)) => result,
            (None, None) => Err(DatabaseFault::Stopped.into()),
        };
        // The caller may be gone; what is committed stays committed.
        let _ = self.reply.send(result);
    }
}

fn within_savepoint<T, E: From<DatabaseFault>>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    let fault = |error| E::from(DatabaseFault::from(error));
    connection.execute_batch("SAVEPOINT piece").map_err(fault)?;
    let result = catch_unwind(AssertUnwindSafe(|| work(connection)))
        .unwrap_or_else(|_| Err(DatabaseFault::Panicked.into()));
    match result {
        Ok(value) => connection.execute_batch("RELEASE piece").map_err(fault).map(|()| value),
        Err(error) => {
            // Fails only where SQLite has undone the whole transaction; the group looks for that.
            let _ = connection.execute_batch("ROLLBACK TO piece; RELEASE piece");
            Err(error)
        }
    }
}

fn write_in_groups(connection: &Connection, mut queue: mpsc::Receiver<Box<dyn Work>>) {
    let mut group = Vec::with_capacity(WRITES_PER_COMMIT_MAX);
    while queue.blocking_recv_many(&mut group, WRITES_PER_COMMIT_MAX) > 0 {
        let end = commit_group(connection, &mut group);
        for (number, piece) in group.drain(..).enumerate() {
            piece.answer(end.fault_of(number));
        }
    }
}

/// How a group of writes ended.
enum GroupEnd {
    Committed,
    Failed(rusqlite::Error),
    /// SQLite undid the transaction while this piece ran, as it may when the disk is full.
    Undone {
        by: usize,
    },
}

impl GroupEnd {
    fn fault_of(&self, piece: usize) -> Option<DatabaseFault> {
        match self {
            Self::Committed => None,
            Self::Failed(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                Some(DatabaseFault::Full)
            }
            Self::Failed(error) => Some(DatabaseFault::Uncommitted(error.to_string())),
            Self::Undone { by } if *by == piece => None,
            Self::Undone { .. } => {
                Some(DatabaseFault::Uncommitted("another write of the group made SQLite undo it".to_owned()))
            }
        }
    }
}

fn commit_group(connection: &Connection, group: &mut [Box<dyn Work>]) -> GroupEnd {
    // IMMEDIATE: another process may write the same file, and a lock taken late may fail.
    if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
        return GroupEnd::Failed(error);
    }
    for (number, piece) in group.iter_mut().enumerate() {
        piece.run(connection);
        // Without a transaction the next savepoint would be one, and would commit by itself.
        if connection.is_autocommit() {
            return GroupEnd::Undone { by: number };
        }
    }
    match connection.execute_batch("COMMIT") {
        Ok(()) => GroupEnd::Committed,
        Err(error) => {
            if !connection.is_autocommit() {
                // Nothing was acknowledged; the callers decide whether to come again.
                let _ = connection.execute_batch("ROLLBACK");
            }
            GroupEnd::Failed(error)
        }
    }
}

fn bring_up_to_date(
    connection: &Connection,
    path: &Path,
    forms: &'static [&'static str],
) -> Result<(), OpenError> {
    let unusable = |source| OpenError::Unusable { path: path.to_owned(), source };
    let known = u32::try_from(forms.len()).expect("a handful of forms");
    let form = || connection.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0));
    if form().map_err(unusable)? == known {
        return Ok(());
    }
    // Looked at again under the lock: another process may be at the same.
    connection.execute_batch("BEGIN IMMEDIATE").map_err(unusable)?;
    let found = form().map_err(unusable)?;
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    for statements in forms.iter().skip(found as usize) {
        connection.execute_batch(statements).map_err(unusable)?;
    }
    connection.execute_batch(&format!("PRAGMA user_version = {known}; COMMIT")).map_err(unusable)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    turn_on_write_ahead_log(&connection)?;
    // FULL: a commit is on disk when it returns, also in WAL mode. On macOS a plain fsync leaves it
    // in the drive's cache.
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA foreign_keys = ON")?;
    Ok(connection)
}

fn connect_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path)?;
    connection.execute_batch("PRAGMA query_only = ON")?;
    Ok(connection)
}

/// The first switch of a new file needs it alone, and SQLite does not always wait for that by itself.
fn turn_on_write_ahead_log(connection: &Connection) -> rusqlite::Result<()> {
    let give_up = Instant::now() + BUSY_WAIT;
    loop {
        match connection.execute_batch("PRAGMA journal_mode = WAL") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < give_up =>
            {
                thread::sleep(OPEN_RETRY);
            }
            end => return end,
        }
    }
}

#[cfg(test)]
mod tests {
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
}
