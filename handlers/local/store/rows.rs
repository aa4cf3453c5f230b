//! A document as a row of the table, and back.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, ToSql};

use super::Refused;
use crate::ports::store::{Document, Etag, Partition, Stored, Write};

/// What [`Row::of`] reads, in its order.
pub const COLUMNS: &str = "tenant, environment, id, kind, v, at, due, ttl, body, etag";

/// What an upsert does where the id is taken.
pub const OVERWRITE: &str = "DO UPDATE SET kind = excluded.kind, v = excluded.v, at = excluded.at, \
     due = excluded.due, ttl = excluded.ttl, expires = excluded.expires, body = excluded.body, etag = excluded.etag";

/// A time as the table has it: of one width, so that texts sort as times do.
pub fn time_text(at: Timestamp) -> String {
    format!("{at:.9}")
}

/// A write with its document made into text, which needs no lock and is not done under one.
pub enum Prepared {
    Create(NewRow),
    Replace(NewRow, Etag),
    Upsert(NewRow),
    Delete(String, Option<Etag>),
}

impl Prepared {
    pub fn of(write: Write, now: Timestamp) -> Self {
        match write {
            Write::Create(document) => Self::Create(NewRow::of(document, now)),
            Write::Replace(document, seen) => Self::Replace(NewRow::of(document, now), seen),
            Write::Upsert(document) => Self::Upsert(NewRow::of(document, now)),
            Write::Delete(id, seen) => Self::Delete(id, seen),
        }
    }

    pub fn id(&self) -> &str {
        match self {
            Self::Create(row) | Self::Replace(row, _) | Self::Upsert(row) => &row.id,
            Self::Delete(id, _) => id,
        }
    }

    /// What the write counts for in the limit of a commit.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Create(row) | Self::Replace(row, _) | Self::Upsert(row) => {
                row.id.len() + row.kind.len() + row.body.len()
            }
            Self::Delete(id, _) => id.len(),
        }
    }
}

/// A document on its way into the table.
pub struct NewRow {
    id: String,
    kind: String,
    v: u32,
    at: String,
    due: Option<String>,
    ttl: Option<u32>,
    expires: Option<String>,
    body: String,
}

impl NewRow {
    fn of(document: Document, now: Timestamp) -> Self {
        let expires = document.ttl_seconds.map(|seconds| {
            let after = SignedDuration::from_secs(i64::from(seconds));
            time_text(now.checked_add(after).unwrap_or(Timestamp::MAX))
        });
        Self {
            id: document.id,
            kind: document.kind,
            v: document.v,
            at: time_text(document.at),
            due: document.due.map(time_text),
            ttl: document.ttl_seconds,
            expires,
            body: document.body.to_string(),
        }
    }

    fn values<'a>(&'a self, partition: &'a Partition, etag: &'a Etag) -> [&'a dyn ToSql; 11] {
        [
            &partition.tenant_id,
            &partition.environment_id,
            &self.id,
            &self.kind,
            &self.v,
            &self.at,
            &self.due,
            &self.ttl,
            &self.expires,
            &self.body,
            &etag.0,
        ]
    }

    /// Inserts the row, does `where_taken` where the id is taken, and answers whether it wrote.
    pub fn insert(
        &self,
        connection: &Connection,
        partition: &Partition,
        etag: &Etag,
        where_taken: &'static str,
    ) -> Result<bool, Refused> {
        let written = connection
            .prepare_cached(&format!(
                "INSERT INTO documents (tenant, environment, id, kind, v, at, due, ttl, expires, body, etag) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
                 ON CONFLICT (tenant, environment, id) {where_taken}"
            ))?
            .execute(&self.values(partition, etag)[..])?;
        Ok(written == 1)
    }

    /// Overwrites the row that has the etag `seen`, and answers whether there was one.
    pub fn update(
        &self,
        connection: &Connection,
        partition: &Partition,
        etag: &Etag,
        seen: &Etag,
    ) -> Result<bool, Refused> {
        let mut values = self.values(partition, etag).to_vec();
        values.push(&seen.0);
        let written = connection
            .prepare_cached(
                "UPDATE documents SET kind = ?4, v = ?5, at = ?6, due = ?7, ttl = ?8, expires = ?9, body = ?10, \
                 etag = ?11 WHERE tenant = ?1 AND environment = ?2 AND id = ?3 AND etag = ?12",
            )?
            .execute(&values[..])?;
        Ok(written == 1)
    }
}

/// A row as it was read; not yet known to be a document.
pub struct Row {
    pub tenant: String,
    pub environment: String,
    pub id: String,
    kind: String,
    v: u32,
    pub at: String,
    pub due: Option<String>,
    ttl: Option<u32>,
    body: String,
    etag: String,
}

impl Row {
    pub fn of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            tenant: row.get(0)?,
            environment: row.get(1)?,
            id: row.get(2)?,
            kind: row.get(3)?,
            v: row.get(4)?,
            at: row.get(5)?,
            due: row.get(6)?,
            ttl: row.get(7)?,
            body: row.get(8)?,
            etag: row.get(9)?,
        })
    }

    /// The document of the row. Its body never appears in the error, its id does.
    pub fn read(self) -> Result<Stored, Refused> {
        let unreadable = |what: &str, error: &dyn std::fmt::Display| {
            Refused::Unreadable(format!("{what} of `{}` cannot be read: {error}", self.id).into())
        };
        let time = |what, text: &str| text.parse::<Timestamp>().map_err(|error| unreadable(what, &error));
        let at = time("the time", &self.at)?;
        let due = self.due.as_deref().map(|text| time("the due time", text)).transpose()?;
        let body = serde_json::from_str(&self.body).map_err(|error| unreadable("the body", &error))?;
        Ok(Stored {
            partition: Partition { tenant_id: self.tenant, environment_id: self.environment },
            document: Document {
                id: self.id,
                kind: self.kind,
                v: self.v,
                at,
                due,
                ttl_seconds: self.ttl,
                body,
            },
            etag: Etag(self.etag),
        })
    }
}
