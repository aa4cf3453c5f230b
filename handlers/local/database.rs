//! One SQLite file, shared by every part that keeps something on this machine.
//!
//! Writes are acknowledged when they are on disk, and are committed in groups: one thread takes what
//! has queued up, runs each piece of work under a savepoint of its own, commits once (one fsync), and
//! only then answers them all. Reads run beside it on connections of their own.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
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
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("`{path}` was written by a newer version (form {found}, this version reads {known}): use the newer version, or another data directory")]
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

/// A piece of work of the writer: runs in the group's transaction, answers once it is committed.
trait Work: Send {
    fn run(&mut self, connection: &Connection);
    /// `Err` when the group could not be committed.
    fn answer(self: Box<Self>, committed: Result<(), DatabaseFault>);
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

    fn answer(self: Box<Self>, committed: Result<(), DatabaseFault>) {
        let result = match (self.result, committed) {
            (Some(Ok(_)), Err(fault)) => Err(fault.into()),
            (Some(result), _) => result,
            (None, _) => Err(DatabaseFault::Stopped.into()),
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
    let result = work(connection);
    let end = if result.is_ok() { "RELEASE piece" } else { "ROLLBACK TO piece; RELEASE piece" };
    connection.execute_batch(end).map_err(fault)?;
    result
}

struct Readers {
    free: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

/// A database file. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    path: Arc<PathBuf>,
    writes: mpsc::Sender<Box<dyn Work>>,
    readers: Arc<Readers>,
}

impl Database {
    /// Opens or makes the file. `forms` are the statements that lead from one form of the tables to
    /// the next; the file remembers how many it has been through.
    ///
    /// # Errors
    /// When the file cannot be used, or a newer version has written it.
    pub fn open(path: &Path, forms: &'static [&'static str]) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::Unusable { path: path.to_owned(), source };
        let writer = connect(path).map_err(unusable)?;
        let known = u32::try_from(forms.len()).expect("a handful of forms");
        let found: u32 = writer.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(unusable)?;
        if found > known {
            return Err(OpenError::Newer { path: path.to_owned(), found, known });
        }
        for (number, form) in (1..).zip(forms).skip(found as usize) {
            writer.execute_batch(&format!("BEGIN IMMEDIATE; {form}; PRAGMA user_version = {number}; COMMIT")).map_err(unusable)?;
        }
        let readers = (0..READERS).map(|_| connect(path)).collect::<Result<Vec<_>, _>>().map_err(unusable)?;
        let (writes, queue) = mpsc::channel(WRITES_QUEUED_MAX);
        thread::Builder::new()
            .name("database-writer".to_owned())
            .spawn(move || write_in_groups(&writer, queue))
            .map_err(|source| OpenError::NoThread { path: path.to_owned(), source })?;
        Ok(Self {
            path: Arc::new(path.to_owned()),
            writes,
            readers: Arc::new(Readers { free: Mutex::new(readers), permits: Semaphore::new(READERS) }),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in a transaction and answers when it is on disk. An error of `work` undoes what
    /// it wrote, and nothing else.
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

    /// Runs `work` on a snapshot of what is committed.
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
        let readers = self.readers.clone();
        let _permit = self.readers.permits.acquire().await.map_err(|_| DatabaseFault::Stopped)?;
        tokio::task::spawn_blocking(move || {
            let connection = readers.free.lock().expect("no reader panics while it holds the list").pop();
            let connection = connection.ok_or(DatabaseFault::Stopped)?;
            let result = work(&connection);
            readers.free.lock().expect("no reader panics while it holds the list").push(connection);
            result
        })
        .await
        .map_err(|_| DatabaseFault::Stopped)?
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(64);
    // FULL: a commit is on disk when it returns, also in WAL mode.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON")?;
    Ok(connection)
}

fn write_in_groups(connection: &Connection, mut queue: mpsc::Receiver<Box<dyn Work>>) {
    let mut group = Vec::with_capacity(WRITES_PER_COMMIT_MAX);
    while queue.blocking_recv_many(&mut group, WRITES_PER_COMMIT_MAX) > 0 {
        // IMMEDIATE: another process may write the same file, and a lock taken late may fail.
        let begun = connection.execute_batch("BEGIN IMMEDIATE");
        if begun.is_ok() {
            for piece in &mut group {
                piece.run(connection);
            }
        }
        let committed = begun.and_then(|()| connection.execute_batch("COMMIT"));
        if committed.is_err() && !connection.is_autocommit() {
            // Nothing was acknowledged; the caller decides whether to come again.
            let _ = connection.execute_batch("ROLLBACK");
        }
        for piece in group.drain(..) {
            piece.answer(match &committed {
                Ok(()) => Ok(()),
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => Err(DatabaseFault::Full),
                Err(error) => Err(DatabaseFault::Uncommitted(error.to_string())),
            });
        }
    }
}
