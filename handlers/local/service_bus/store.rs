//! The broker's tables. Every function works in the transaction of its caller.
//!
//! Times are microseconds since the epoch. A message is visible when it has been enqueued
//! (`enqueued_at`, which lies ahead for a scheduled one) and no lock on it is good.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::{
    Message,
    directory::{Holder, NEVER, Spot},
};
use crate::local::database::DatabaseFault;

pub(super) const FORMS: &[&str] = &["
    CREATE TABLE entity (
        id INTEGER PRIMARY KEY,
        path TEXT NOT NULL COLLATE NOCASE,
        kind TEXT NOT NULL,
        owner INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        UNIQUE (path, kind)
    ) STRICT;
    CREATE TABLE message (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        entity INTEGER NOT NULL,
        owner INTEGER NOT NULL,
        dead INTEGER NOT NULL DEFAULT 0,
        enqueued_at INTEGER NOT NULL,
        expires_at INTEGER,
        locked_until INTEGER,
        lock_token BLOB,
        delivery_count INTEGER NOT NULL DEFAULT 0,
        size INTEGER NOT NULL,
        source TEXT,
        head TEXT NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX message_in_order ON message (entity, dead, enqueued_at, sequence);
    CREATE INDEX message_locked ON message (entity, dead, locked_until) WHERE locked_until IS NOT NULL;
    CREATE UNIQUE INDEX message_lock ON message (lock_token) WHERE lock_token IS NOT NULL;
    CREATE INDEX message_expiry ON message (expires_at) WHERE expires_at IS NOT NULL AND dead = 0;
    CREATE TRIGGER message_in AFTER INSERT ON message BEGIN
        UPDATE entity SET bytes = bytes + NEW.size WHERE id = NEW.owner;
    END;
    CREATE TRIGGER message_out AFTER DELETE ON message BEGIN
        UPDATE entity SET bytes = bytes - OLD.size WHERE id = OLD.owner;
    END;
    CREATE TABLE seen (
        entity INTEGER NOT NULL,
        message_id TEXT NOT NULL,
        until INTEGER NOT NULL,
        PRIMARY KEY (entity, message_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX seen_until ON seen (until);
"];

/// A message on its way into a holder.
pub(super) struct Arrival<'a> {
    pub head: &'a str,
    pub body: &'a [u8],
    pub size: i64,
    pub enqueued_at: i64,
    pub expires_at: Option<i64>,
    /// Where its dead-letter queue forwarded it from.
    pub source: Option<&'a str>,
}

/// A message as it lies there, without its content.
pub(super) struct Lying {
    pub sequence: i64,
    pub delivery_count: u32,
    pub enqueued_at: i64,
    pub expires_at: Option<i64>,
    pub size: i64,
    pub source: Option<String>,
}

const LYING: &str = "sequence, delivery_count, enqueued_at, expires_at, size, source";

fn lying(row: &Row<'_>) -> rusqlite::Result<Lying> {
    Ok(Lying {
        sequence: row.get(0)?,
        delivery_count: row.get(1)?,
        enqueued_at: row.get(2)?,
        expires_at: row.get(3)?,
        size: row.get(4)?,
        source: row.get(5)?,
    })
}

pub(super) fn insert(
    connection: &Connection,
    holder: &Holder,
    arrival: &Arrival<'_>,
) -> Result<(), DatabaseFault> {
    connection
        .prepare_cached(
            "INSERT INTO message (entity, owner, enqueued_at, expires_at, size, source, head, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            holder.id,
            holder.owner,
            arrival.enqueued_at,
            arrival.expires_at,
            arrival.size,
            arrival.source,
            arrival.head,
            arrival.body
        ])?;
    Ok(())
}

/// Bytes that lie in a queue, or in all subscriptions of a topic.
pub(super) fn bytes(connection: &Connection, owner: i64) -> Result<i64, DatabaseFault> {
    let bytes = connection
        .prepare_cached("SELECT bytes FROM entity WHERE id = ?1")?
        .query_row([owner], |row| row.get(0))
        .optional()?;
    Ok(bytes.unwrap_or(0))
}

/// Remembers a message id until `until`; false where it was remembered already.
pub(super) fn remember(
    connection: &Connection,
    inlet: i64,
    message_id: &str,
    now: i64,
    until: i64,
) -> Result<bool, DatabaseFault> {
    let new = connection
        .prepare_cached(
            "INSERT INTO seen (entity, message_id, until) VALUES (?1, ?2, ?3)
             ON CONFLICT (entity, message_id) DO UPDATE SET until = excluded.until WHERE until <= ?4",
        )?
        .execute(params![inlet, message_id, until, now])?;
    Ok(new == 1)
}

/// Forgets up to `max` message ids whose time has passed.
pub(super) fn forget(connection: &Connection, now: i64, max: u32) -> Result<usize, DatabaseFault> {
    let forgotten = connection
        .prepare_cached(
            "DELETE FROM seen WHERE (entity, message_id) IN
             (SELECT entity, message_id FROM seen WHERE until <= ?1 ORDER BY until LIMIT ?2)",
        )?
        .execute(params![now, max])?;
    Ok(forgotten)
}

/// The first messages that are visible.
pub(super) fn visible(
    connection: &Connection,
    spot: &Spot,
    now: i64,
    max: u32,
) -> Result<Vec<Lying>, DatabaseFault> {
    let query = format!(
        "SELECT {LYING} FROM message WHERE entity = ?1 AND dead = ?2 AND enqueued_at <= ?3
         AND (locked_until IS NULL OR locked_until <= ?3) ORDER BY enqueued_at, sequence LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&query)?;
    let rows = statement.query_map(params![spot.holder.id, spot.is_dead, now, max], lying)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// When the next message becomes visible by itself.
pub(super) fn next_due(connection: &Connection, spot: &Spot, now: i64) -> Result<i64, DatabaseFault> {
    let place = params![spot.holder.id, spot.is_dead, now];
    let enqueued: Option<i64> = connection
        .prepare_cached(
            "SELECT min(enqueued_at) FROM message WHERE entity = ?1 AND dead = ?2 AND enqueued_at > ?3",
        )?
        .query_row(place, |row| row.get(0))?;
    let unlocked: Option<i64> = connection
        .prepare_cached(
            "SELECT min(locked_until) FROM message WHERE entity = ?1 AND dead = ?2 AND locked_until > ?3
             AND locked_until IS NOT NULL",
        )?
        .query_row(place, |row| row.get(0))?;
    Ok(enqueued.unwrap_or(NEVER).min(unlocked.unwrap_or(NEVER)))
}

/// A message with its content.
pub(super) fn content(connection: &Connection, sequence: i64) -> Result<Message, DatabaseFault> {
    let (head, body): (String, Vec<u8>) = connection
        .prepare_cached("SELECT head, body FROM message WHERE sequence = ?1")?
        .query_row([sequence], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let message = serde_json::from_str(&head).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(Message { body, ..message })
}

pub(super) fn lock(
    connection: &Connection,
    sequence: i64,
    token: Uuid,
    until: i64,
) -> Result<(), DatabaseFault> {
    connection
        .prepare_cached(
            "UPDATE message SET lock_token = ?2, locked_until = ?3, delivery_count = delivery_count + 1
             WHERE sequence = ?1",
        )?
        .execute(params![sequence, token.as_bytes(), until])?;
    Ok(())
}

/// The message under a lock that is good.
pub(super) fn locked(
    connection: &Connection,
    spot: &Spot,
    token: Uuid,
    now: i64,
) -> Result<Option<Lying>, DatabaseFault> {
    let query = format!(
        "SELECT {LYING} FROM message WHERE lock_token = ?1 AND entity = ?2 AND dead = ?3 AND locked_until > ?4"
    );
    let mut statement = connection.prepare_cached(&query)?;
    let found = statement.query_row(params![token.as_bytes(), spot.holder.id, spot.is_dead, now], lying);
    Ok(found.optional()?)
}

/// Takes a lock off; `uncounted` takes back the delivery too.
pub(super) fn unlock(connection: &Connection, sequence: i64, uncounted: bool) -> Result<(), DatabaseFault> {
    connection
        .prepare_cached(
            "UPDATE message SET lock_token = NULL, locked_until = NULL, delivery_count = delivery_count - ?2
             WHERE sequence = ?1",
        )?
        .execute(params![sequence, uncounted])?;
    Ok(())
}

/// Takes every lock off. The deliveries count: their receivers may have died of them.
pub(super) fn unlock_all(connection: &Connection) -> Result<(), DatabaseFault> {
    connection
        .prepare_cached(
            "UPDATE message SET lock_token = NULL, locked_until = NULL WHERE locked_until IS NOT NULL",
        )?
        .execute([])?;
    Ok(())
}

pub(super) fn extend(connection: &Connection, sequence: i64, until: i64) -> Result<(), DatabaseFault> {
    connection
        .prepare_cached("UPDATE message SET locked_until = ?2 WHERE sequence = ?1")?
        .execute(params![sequence, until])?;
    Ok(())
}

pub(super) fn delete(connection: &Connection, sequence: i64) -> Result<(), DatabaseFault> {
    connection.prepare_cached("DELETE FROM message WHERE sequence = ?1")?.execute([sequence])?;
    Ok(())
}

/// Moves a message to its own dead-letter queue, where nothing expires.
pub(super) fn bury(connection: &Connection, sequence: i64, head: &str) -> Result<(), DatabaseFault> {
    connection
        .prepare_cached(
            "UPDATE message SET dead = 1, head = ?2, lock_token = NULL, locked_until = NULL, expires_at = NULL
             WHERE sequence = ?1",
        )?
        .execute(params![sequence, head])?;
    Ok(())
}

/// The first messages that have expired, anywhere, with their holders.
pub(super) fn expired(
    connection: &Connection,
    now: i64,
    max: u32,
) -> Result<Vec<(i64, Lying)>, DatabaseFault> {
    let query = format!(
        "SELECT {LYING}, entity FROM message WHERE dead = 0 AND expires_at IS NOT NULL AND expires_at <= ?1
         AND (locked_until IS NULL OR locked_until <= ?1) ORDER BY expires_at LIMIT ?2"
    );
    let mut statement = connection.prepare_cached(&query)?;
    let rows = statement.query_map(params![now, max], |row| Ok((row.get(6)?, lying(row)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Messages whose last allowed delivery ended with its lock.
pub(super) fn exhausted(
    connection: &Connection,
    holder: &Holder,
    now: i64,
    max: u32,
) -> Result<Vec<Lying>, DatabaseFault> {
    let query = format!(
        "SELECT {LYING} FROM message WHERE entity = ?1 AND dead = 0 AND locked_until IS NOT NULL
         AND locked_until <= ?2 AND delivery_count >= ?3 LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&query)?;
    let rows = statement.query_map(params![holder.id, now, holder.holding.max_delivery_count, max], lying)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Active, dead-lettered and scheduled messages.
pub(super) type Counts = (u64, u64, u64);

/// Holder to what it holds.
pub(super) fn counts(connection: &Connection, now: i64) -> Result<Vec<(i64, Counts)>, DatabaseFault> {
    let mut statement = connection.prepare_cached(
        "SELECT entity, sum(dead = 0 AND enqueued_at <= ?1), sum(dead), sum(dead = 0 AND enqueued_at > ?1)
         FROM message GROUP BY entity",
    )?;
    let count =
        |row: &Row<'_>, index: usize| Ok::<_, rusqlite::Error>(row.get::<_, i64>(index)?.unsigned_abs());
    let rows = statement
        .query_map([now], |row| Ok((row.get(0)?, (count(row, 1)?, count(row, 2)?, count(row, 3)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn time(microseconds: i64) -> Timestamp {
    Timestamp::from_microsecond(microseconds).unwrap_or(Timestamp::MAX)
}
