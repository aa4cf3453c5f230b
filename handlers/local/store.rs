//! The store on this machine: documents in one SQLite file.
//!
//! A second process may have the same file open, so every guard is a condition in SQL, judged under
//! the lock of the write: nothing is remembered here between calls. A document whose time to live
//! has passed is filtered out of every read, replaced by any create, and deleted by a task that
//! commits start now and then; nothing runs while nobody writes.

mod listing;
mod members;
mod rows;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use self::{
    listing::{Place, Scope},
    rows::{COLUMNS, Prepared, Row, time_text},
};
use crate::{
    local::database::{Database, DatabaseFault, OpenError},
    outcome::Source,
    ports::{
        clock::Clock,
        store::{
            COMMIT_BYTES_MAX, COMMIT_WRITES_MAX, Etag, Filter, Key, Listing, Page, Partition, Store,
            StoreFault, Stored, Write,
        },
    },
};

/// Expired documents that one pass deletes.
const PURGE_ROWS_MAX: u32 = 500;
/// Passes of one purge; what is then left waits for the next.
const PURGE_PASSES_MAX: u32 = 200;
/// Seconds from one purge to the next, at least.
const PURGE_INTERVAL_SECONDS: i64 = 60;

/// Times are texts of one width in UTC, so that their order is the order of time.
const FORMS: &[&str] = &[
    "
    CREATE TABLE documents (
        tenant TEXT NOT NULL,
        environment TEXT NOT NULL,
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        v INTEGER NOT NULL,
        at TEXT NOT NULL,
        due TEXT,
        ttl INTEGER,
        expires TEXT,
        body TEXT NOT NULL,
        etag TEXT NOT NULL,
        PRIMARY KEY (tenant, environment, id)
    );
    CREATE INDEX documents_of_partition ON documents (tenant, environment, kind, at, id);
    CREATE INDEX documents_of_tenant ON documents (tenant, kind, at, id, environment);
    CREATE INDEX documents_due ON documents (kind, due, id, tenant, environment) WHERE due IS NOT NULL;
    CREATE INDEX documents_expiring ON documents (expires) WHERE expires IS NOT NULL;
",
    members::FORM,
];

/// Documents in one SQLite file. Cheap to clone.
#[derive(Clone)]
pub struct SqliteStore {
    database: Database,
    clock: Arc<dyn Clock>,
    /// When the next purge may begin, in seconds of the epoch.
    next_purge: Arc<AtomicI64>,
}

impl SqliteStore {
    /// Opens or makes the file at `path`; its directory must be there. Blocks while it opens. The
    /// clock decides what has expired.
    ///
    /// # Errors
    /// When the file cannot be used, or a newer version has written it.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let database = Database::open(path, FORMS)?;
        Ok(Self { database, clock, next_purge: Arc::new(AtomicI64::new(i64::MIN)) })
    }

    /// Deletes what has expired, in passes of at most [`PURGE_ROWS_MAX`], and answers how many
    /// documents went. Each pass is a commit of its own, so that writers wait for one pass at most.
    async fn purge(&self) -> Result<usize, DatabaseFault> {
        let now = time_text(self.clock.now());
        let mut gone = 0;
        for _ in 0..PURGE_PASSES_MAX {
            let now = now.clone();
            let pass = self.database.write(move |connection| purge_pass(connection, &now)).await?;
            gone += pass;
            if pass < PURGE_ROWS_MAX as usize {
                break;
            }
        }
        Ok(gone)
    }

    /// Starts a purge where the last one is long enough ago. The commit that brought us here does
    /// not wait for it.
    fn purge_in_time(&self, now: Timestamp) {
        let next = self.next_purge.load(Ordering::Relaxed);
        let then = now.as_second().saturating_add(PURGE_INTERVAL_SECONDS);
        let ours = now.as_second() >= next
            && self.next_purge.compare_exchange(next, then, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if ours {
            let store = self.clone();
            tokio::spawn(async move {
                if let Err(fault) = store.purge().await {
                    tracing::warn!(error = %fault, "Expired documents were not deleted; the next purge takes them");
                }
            });
        }
    }

    async fn page(
        &self,
        doing: impl Fn() -> String,
        scope: Scope,
        filter: &Filter,
        page: &Page,
    ) -> Result<Listing, StoreFault> {
        let after =
            page.after.as_deref().map(Place::read).transpose().map_err(|refused| refused.told(&doing))?;
        let (filter, size, now) = (filter.clone(), page.size, self.clock.now());
        self.database
            .read(move |connection| listing::page(connection, &scope, &filter, after.as_ref(), size, now))
            .await
            .map_err(|refused| refused.told(doing))
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn read(&self, key: &Key) -> Result<Option<Stored>, StoreFault> {
        let wanted = key.clone();
        let now = time_text(self.clock.now());
        self.database
            .read(move |connection| read_one(connection, &wanted, &now))
            .await
            .map_err(|refused| refused.told(|| format!("reading `{}` of {}", key.id, named(&key.partition))))
    }

    async fn commit(&self, partition: &Partition, writes: Vec<Write>) -> Result<Vec<Etag>, StoreFault> {
        let now = self.clock.now();
        let prepared: Vec<_> = writes.into_iter().map(|write| Prepared::of(write, now)).collect();
        let bytes = prepared.iter().map(Prepared::bytes).sum();
        if prepared.len() > COMMIT_WRITES_MAX || bytes > COMMIT_BYTES_MAX {
            return Err(StoreFault::TooLarge { writes: prepared.len(), bytes });
        }
        if prepared.is_empty() {
            return Ok(Vec::new());
        }
        let into = partition.clone();
        let etags = self
            .database
            .write(move |connection| {
                prepared.iter().map(|write| write_one(connection, &into, write, now)).collect()
            })
            .await
            .map_err(|refused: Refused| refused.told(|| format!("writing to {}", named(partition))))?;
        self.purge_in_time(now);
        Ok(etags)
    }

    async fn query(
        &self,
        partition: &Partition,
        kind: &str,
        filter: &Filter,
        page: &Page,
    ) -> Result<Listing, StoreFault> {
        let doing = || format!("listing `{kind}` of {}", named(partition));
        self.page(doing, Scope::partition(partition, kind), filter, page).await
    }

    async fn due(&self, kind: &str, until: Timestamp, page: &Page) -> Result<Listing, StoreFault> {
        let doing = || format!("looking for `{kind}` that is due");
        self.page(doing, Scope::due(kind, until), &Filter::default(), page).await
    }

    async fn list(
        &self,
        tenant: &str,
        kind: &str,
        filter: &Filter,
        page: &Page,
    ) -> Result<Listing, StoreFault> {
        let doing = || format!("listing `{kind}` of `{tenant}`");
        self.page(doing, Scope::tenant(tenant, kind), filter, page).await
    }
}

fn named(partition: &Partition) -> String {
    format!("`{}/{}`", partition.tenant_id, partition.environment_id)
}

/// Why a piece of work was not done, before it is told what the work was for.
#[derive(Debug)]
enum Refused {
    /// The id of the document that somebody else wrote.
    Conflict(String),
    Unreadable(Source),
    ForeignMark,
    Database(DatabaseFault),
}

impl Refused {
    fn told(self, doing: impl FnOnce() -> String) -> StoreFault {
        match self {
            Self::Conflict(id) => StoreFault::Conflict(id),
            Self::Unreadable(source) => StoreFault::Corrupt { doing: doing(), source },
            Self::ForeignMark => StoreFault::ForeignMark { doing: doing() },
            Self::Database(fault) => StoreFault::Unavailable { doing: doing(), source: fault.into() },
        }
    }
}

impl From<DatabaseFault> for Refused {
    fn from(fault: DatabaseFault) -> Self {
        Self::Database(fault)
    }
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let unreadable = match &error {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..) => true,
            // SQLite has no code of its own for a text that its JSON functions cannot read.
            other => {
                matches!(other.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
                    || other.to_string().contains("malformed JSON")
            }
        };
        if unreadable { Self::Unreadable(error.into()) } else { Self::Database(error.into()) }
    }
}

fn read_one(connection: &Connection, key: &Key, now: &str) -> Result<Option<Stored>, Refused> {
    let Key { partition, id } = key;
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM documents WHERE tenant = ?1 AND environment = ?2 AND id = ?3 \
             AND (expires IS NULL OR expires > ?4)"
        ))?
        .query_row([&partition.tenant_id, &partition.environment_id, id, now], Row::of)
        .optional()?
        .map(Row::read)
        .transpose()
}

/// Writes one document, with an etag that nobody has seen.
fn write_one(
    connection: &Connection,
    partition: &Partition,
    write: &Prepared,
    now: Timestamp,
) -> Result<Etag, Refused> {
    let (tenant, environment, id) = (&*partition.tenant_id, &*partition.environment_id, write.id());
    // An expired document is as good as gone, whatever is written in its place.
    connection
        .prepare_cached(
            "DELETE FROM documents WHERE tenant = ?1 AND environment = ?2 AND id = ?3 AND expires <= ?4",
        )?
        .execute([tenant, environment, id, &time_text(now)])?;
    let etag = Etag(Uuid::new_v4().simple().to_string());
    let written = match write {
        Prepared::Create(row) => row.insert(connection, partition, &etag, "DO NOTHING")?,
        Prepared::Replace(row, seen) => row.update(connection, partition, &etag, seen)?,
        Prepared::Upsert(row) => row.insert(connection, partition, &etag, rows::OVERWRITE)?,
        Prepared::Delete(_, seen) => {
            delete_one(connection, [tenant, environment, id], seen.as_ref())?;
            return Ok(Etag(String::new()));
        }
    };
    if written { Ok(etag) } else { Err(Refused::Conflict(id.to_owned())) }
}

fn delete_one(connection: &Connection, key: [&str; 3], seen: Option<&Etag>) -> Result<(), Refused> {
    let [tenant, environment, id] = key;
    let gone = connection
        .prepare_cached(
            "DELETE FROM documents WHERE tenant = ?1 AND environment = ?2 AND id = ?3 AND etag = coalesce(?4, etag)",
        )?
        .execute((tenant, environment, id, seen.map(|etag| &etag.0)))?;
    let there = gone == 0
        && connection
            .prepare_cached("SELECT 1 FROM documents WHERE tenant = ?1 AND environment = ?2 AND id = ?3")?
            .exists(key)?;
    if there { Err(Refused::Conflict(id.to_owned())) } else { Ok(()) }
}

fn purge_pass(connection: &Connection, now: &str) -> Result<usize, DatabaseFault> {
    let deleted = connection
        .prepare_cached(
            "DELETE FROM documents WHERE rowid IN \
             (SELECT rowid FROM documents WHERE expires <= ?1 ORDER BY expires LIMIT ?2)",
        )?
        .execute((now, PURGE_ROWS_MAX))?;
    Ok(deleted)
}

#[cfg(test)]
mod tests;
