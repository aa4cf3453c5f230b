//! What the vaults keep in their file: secrets and their versions. Rows in, rows out; the rules are
//! elsewhere.

use rusqlite::{Connection, OptionalExtension, Row, named_params, params, types::Type};
use serde_json::{Map, Value};

use super::refusals::Refusal;

/// The forms of the tables.
pub(super) const FORMS: &[&str] = &["
    CREATE TABLE secrets (
        vault TEXT NOT NULL,         -- the name of the vault in lower case
        key TEXT NOT NULL,           -- the name in lower case
        name TEXT NOT NULL,
        deleted_s INTEGER,           -- when it was deleted, Unix seconds
        purge_s INTEGER,             -- when it goes for good
        PRIMARY KEY (vault, key)
    ) STRICT;
    CREATE TABLE versions (
        vault TEXT NOT NULL,
        key TEXT NOT NULL,
        ordinal INTEGER NOT NULL,    -- counts the versions of a secret, from 1
        version TEXT NOT NULL,
        sealed BLOB NOT NULL,        -- the value, encrypted
        content_type TEXT,
        enabled INTEGER NOT NULL,
        not_before_s INTEGER,
        expires_s INTEGER,
        created_s INTEGER NOT NULL,
        updated_s INTEGER NOT NULL,
        tags TEXT NOT NULL,          -- a JSON object
        PRIMARY KEY (vault, key, ordinal)
    ) STRICT;
    CREATE UNIQUE INDEX versions_version ON versions (vault, key, version);
    CREATE TABLE proof (             -- one row: a known text under the key that seals the values
        one INTEGER PRIMARY KEY CHECK (one = 1),
        sealed BLOB NOT NULL
    ) STRICT
"];

/// A stored secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Secret {
    pub key: String,
    pub name: String,
    /// Unix seconds: when it was deleted, and when it goes for good.
    pub deleted: Option<(i64, i64)>,
}

/// A stored version; times are Unix seconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Version {
    pub ordinal: i64,
    pub version: String,
    pub sealed: Vec<u8>,
    pub content_type: Option<String>,
    pub enabled: bool,
    pub not_before: Option<i64>,
    pub expires: Option<i64>,
    pub created: i64,
    pub updated: i64,
    pub tags: Map<String, Value>,
}

fn secret(row: &Row<'_>) -> rusqlite::Result<Secret> {
    let (deleted, purge): (Option<i64>, Option<i64>) = (row.get("deleted_s")?, row.get("purge_s")?);
    Ok(Secret { key: row.get("key")?, name: row.get("name")?, deleted: deleted.zip(purge) })
}

fn version(row: &Row<'_>) -> rusqlite::Result<Version> {
    let tags = serde_json::from_str(&row.get::<_, String>("tags")?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))?;
    Ok(Version {
        ordinal: row.get("ordinal")?,
        version: row.get("version")?,
        sealed: row.get("sealed")?,
        content_type: row.get("content_type")?,
        enabled: row.get("enabled")?,
        not_before: row.get("not_before_s")?,
        expires: row.get("expires_s")?,
        created: row.get("created_s")?,
        updated: row.get("updated_s")?,
        tags,
    })
}

/// A secret, deleted or not, unless its time to go for good has come by `now`.
pub(super) fn load(
    connection: &Connection,
    vault: &str,
    name: &str,
    now: i64,
) -> Result<Option<Secret>, Refusal> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM secrets WHERE vault = ?1 AND key = ?2 AND (purge_s IS NULL OR purge_s > ?3)",
    )?;
    Ok(statement.query_row(params![vault, name.to_ascii_lowercase(), now], secret).optional()?)
}

/// Secrets that are deleted, or that are not, in order of name, after `after`.
pub(super) fn list(
    connection: &Connection,
    vault: &str,
    deleted: bool,
    now: i64,
    after: &str,
    max: usize,
) -> Result<Vec<Secret>, Refusal> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM secrets WHERE vault = ?1 AND key > ?2 AND (deleted_s IS NOT NULL) = ?3
         AND (purge_s IS NULL OR purge_s > ?4) ORDER BY key LIMIT ?5",
    )?;
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![vault, after, deleted, now, max], secret)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn save(connection: &Connection, vault: &str, secret: &Secret) -> Result<(), Refusal> {
    let (deleted, purge) = secret.deleted.unzip();
    connection
        .prepare_cached("INSERT OR REPLACE INTO secrets VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![vault, secret.key, secret.name, deleted, purge])?;
    Ok(())
}

/// Removes a secret and all its versions.
pub(super) fn purge(connection: &Connection, vault: &str, key: &str) -> Result<(), Refusal> {
    connection.execute("DELETE FROM versions WHERE vault = ?1 AND key = ?2", [vault, key])?;
    connection.execute("DELETE FROM secrets WHERE vault = ?1 AND key = ?2", [vault, key])?;
    Ok(())
}

/// Removes what was deleted and whose time has come.
pub(super) fn purge_due(connection: &Connection, now: i64) -> Result<(), Refusal> {
    connection.execute(
        "DELETE FROM versions WHERE EXISTS (SELECT 1 FROM secrets
         WHERE secrets.vault = versions.vault AND secrets.key = versions.key AND purge_s <= ?1)",
        [now],
    )?;
    connection.execute("DELETE FROM secrets WHERE purge_s <= ?1", [now])?;
    Ok(())
}

/// One version of a secret, or its newest.
pub(super) fn load_version(
    connection: &Connection,
    vault: &str,
    key: &str,
    named: Option<&str>,
) -> Result<Option<Version>, Refusal> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM versions WHERE vault = ?1 AND key = ?2 AND (?3 IS NULL OR version = ?3)
         ORDER BY ordinal DESC LIMIT 1",
    )?;
    Ok(statement.query_row(params![vault, key, named], version).optional()?)
}

/// Versions of a secret, oldest first, after the ordinal `after`.
pub(super) fn versions(
    connection: &Connection,
    vault: &str,
    key: &str,
    after: i64,
    max: usize,
) -> Result<Vec<Version>, Refusal> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM versions WHERE vault = ?1 AND key = ?2 AND ordinal > ?3 ORDER BY ordinal LIMIT ?4",
    )?;
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    Ok(statement.query_map(params![vault, key, after, max], version)?.collect::<Result<_, _>>()?)
}

pub(super) fn save_version(
    connection: &Connection,
    vault: &str,
    key: &str,
    version: &Version,
) -> Result<(), Refusal> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO versions VALUES (:vault, :key, :ordinal, :version, :sealed, :content_type,
             :enabled, :not_before, :expires, :created, :updated, :tags)",
        )?
        .execute(named_params! {
            ":vault": vault,
            ":key": key,
            ":ordinal": version.ordinal,
            ":version": version.version,
            ":sealed": version.sealed,
            ":content_type": version.content_type,
            ":enabled": version.enabled,
            ":not_before": version.not_before,
            ":expires": version.expires,
            ":created": version.created,
            ":updated": version.updated,
            ":tags": Value::Object(version.tags.clone()).to_string(),
        })?;
    Ok(())
}

/// What proves that a key is the one of this file.
pub(super) fn proof(connection: &Connection) -> Result<Option<Vec<u8>>, Refusal> {
    Ok(connection.query_row("SELECT sealed FROM proof", [], |row| row.get(0)).optional()?)
}

pub(super) fn save_proof(connection: &Connection, sealed: &[u8]) -> Result<(), Refusal> {
    connection.execute("INSERT INTO proof VALUES (1, ?1)", params![sealed])?;
    Ok(())
}
