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
mod tests;
