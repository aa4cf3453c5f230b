//! What the stand-in keeps in its file: resources, operations, revisions. Rows in, rows out; the
//! rules are elsewhere.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, named_params, params, types::Type};
use serde_json::Value;
use uuid::Uuid;

use super::{
    address::ResourceId,
    refusals::ArmError,
    types::{self, TypeSpec},
};

/// The forms of the tables.
pub(super) const FORMS: &[&str] = &[
    "
    CREATE TABLE resources (
        key TEXT PRIMARY KEY,        -- the id in lower case
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        parent TEXT NOT NULL,
        body TEXT NOT NULL,          -- JSON, without what the server makes up at reading
        state TEXT NOT NULL,         -- provisioningState
        operation TEXT,              -- the operation that is changing it
        etag TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        modified_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX resources_kind ON resources (kind, key);
    CREATE TABLE operations (
        id TEXT PRIMARY KEY,
        resource TEXT NOT NULL,      -- the key of the resource that it changes
        removes INTEGER NOT NULL,
        status TEXT NOT NULL,
        error TEXT,                  -- JSON {code,message}, where it is to fail
        started_ms INTEGER NOT NULL,
        ready_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX operations_ready ON operations (status, ready_ms);
    CREATE TABLE revisions (
        app TEXT NOT NULL,           -- the key of the app
        name TEXT NOT NULL,
        ordinal INTEGER NOT NULL,
        template TEXT NOT NULL,      -- JSON
        active INTEGER NOT NULL,
        provisioned INTEGER NOT NULL,
        created_ms INTEGER NOT NULL,
        last_active_ms INTEGER NOT NULL,
        PRIMARY KEY (app, name)
    ) STRICT
",
    "
    CREATE TABLE manifests (         -- of images that were asked for by a tag
        repository TEXT NOT NULL,    -- with the registry's host
        digest TEXT NOT NULL,
        manifest TEXT NOT NULL,      -- JSON
        stand_in TEXT NOT NULL,      -- JSON: what stands in for containers of it
        PRIMARY KEY (repository, digest)
    ) STRICT;
    CREATE TABLE staged_images (     -- what comes before the image catalogue
        ordinal INTEGER PRIMARY KEY,
        pattern TEXT NOT NULL UNIQUE,
        stand_in TEXT NOT NULL       -- JSON
    ) STRICT
",
];

/// A stored resource.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resource {
    pub id: ResourceId,
    /// A JSON object.
    pub body: Value,
    pub state: String,
    pub operation: Option<String>,
    pub etag: String,
    pub created: Timestamp,
    pub modified: Timestamp,
}

/// A stored operation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Operation {
    pub id: String,
    /// The key of the resource that it changes.
    pub resource: String,
    /// Whether it removes the resource.
    pub removes: bool,
    /// `InProgress`, `Succeeded` or `Failed`.
    pub status: String,
    /// Why it failed, or is going to.
    pub error: Option<Value>,
    pub started: Timestamp,
    pub ready: Timestamp,
}

/// A stored revision.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Revision {
    pub name: String,
    /// Counts the app's revisions, from 1.
    pub ordinal: u32,
    pub template: Value,
    pub active: bool,
    /// Whether a replica of it was ready, ever.
    pub provisioned: bool,
    pub created: Timestamp,
    pub last_active: Timestamp,
}

pub(super) fn new_etag() -> String {
    Uuid::new_v4().to_string()
}

fn unreadable(kind: Type, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, kind, Box::new(error))
}

fn timestamp(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    Timestamp::from_millisecond(row.get(column)?).map_err(|error| unreadable(Type::Integer, error))
}

fn json(row: &Row<'_>, column: &str) -> rusqlite::Result<Value> {
    serde_json::from_str(&row.get::<_, String>(column)?).map_err(|error| unreadable(Type::Text, error))
}

fn spec(row: &Row<'_>) -> rusqlite::Result<&'static TypeSpec> {
    let kind: String = row.get("kind")?;
    types::find(&kind).ok_or(rusqlite::Error::InvalidQuery)
}

fn resource(row: &Row<'_>) -> rusqlite::Result<Resource> {
    Ok(Resource {
        id: ResourceId {
            text: row.get("id")?,
            spec: spec(row)?,
            name: row.get("name")?,
            parent: row.get("parent")?,
        },
        body: json(row, "body")?,
        state: row.get("state")?,
        operation: row.get("operation")?,
        etag: row.get("etag")?,
        created: timestamp(row, "created_ms")?,
        modified: timestamp(row, "modified_ms")?,
    })
}

fn operation(row: &Row<'_>) -> rusqlite::Result<Operation> {
    let error: Option<String> = row.get("error")?;
    let error = error.map(|text| serde_json::from_str(&text)).transpose();
    Ok(Operation {
        id: row.get("id")?,
        resource: row.get("resource")?,
        removes: row.get("removes")?,
        status: row.get("status")?,
        error: error.map_err(|error| unreadable(Type::Text, error))?,
        started: timestamp(row, "started_ms")?,
        ready: timestamp(row, "ready_ms")?,
    })
}

fn revision(row: &Row<'_>) -> rusqlite::Result<Revision> {
    Ok(Revision {
        name: row.get("name")?,
        ordinal: row.get("ordinal")?,
        template: json(row, "template")?,
        active: row.get("active")?,
        provisioned: row.get("provisioned")?,
        created: timestamp(row, "created_ms")?,
        last_active: timestamp(row, "last_active_ms")?,
    })
}

pub(super) fn load(connection: &Connection, key: &str) -> Result<Option<Resource>, ArmError> {
    let mut statement = connection.prepare_cached("SELECT * FROM resources WHERE key = ?1")?;
    Ok(statement.query_row([key], resource).optional()?)
}

/// The resource of a type with that name, in lower case, that is there to be used.
pub(super) fn named(connection: &Connection, kind: &str, name: &str) -> Result<Option<Resource>, ArmError> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM resources WHERE kind = ?1 AND lower(name) = ?2 AND state <> 'Deleting' LIMIT 1",
    )?;
    Ok(statement.query_row([kind, name], resource).optional()?)
}

pub(super) fn save(connection: &Connection, resource: &Resource) -> Result<(), ArmError> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO resources
             VALUES (:key, :id, :kind, :name, :parent, :body, :state, :operation, :etag, :created, :modified)",
        )?
        .execute(named_params! {
            ":key": resource.id.key(),
            ":id": resource.id.text,
            ":kind": resource.id.spec.name,
            ":name": resource.id.name,
            ":parent": resource.id.parent,
            ":body": resource.body.to_string(),
            ":state": resource.state,
            ":operation": resource.operation,
            ":etag": resource.etag,
            ":created": resource.created.as_millisecond(),
            ":modified": resource.modified.as_millisecond(),
        })?;
    Ok(())
}

/// What is within `scope`, in order of key, after `after`; of one type, or of all. `0` follows `/`,
/// so the two bounds hold every key that begins with the scope and a slash.
pub(super) fn within(
    connection: &Connection,
    scope: &str,
    kind: Option<&str>,
    after: &str,
    max: usize,
) -> Result<Vec<Resource>, ArmError> {
    let scope = scope.to_ascii_lowercase();
    let mut statement = connection.prepare_cached(
        "SELECT * FROM resources
         WHERE key > ?1 AND key < ?2 AND key > ?3 AND (?4 IS NULL OR kind = ?4) ORDER BY key LIMIT ?5",
    )?;
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let rows =
        statement.query_map(params![format!("{scope}/"), format!("{scope}0"), after, kind, max], resource)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Deletes a resource and all that is within it.
pub(super) fn remove(connection: &Connection, key: &str) -> Result<(), ArmError> {
    let bounds = params![key, format!("{key}/"), format!("{key}0")];
    connection.execute("DELETE FROM resources WHERE key = ?1 OR (key > ?2 AND key < ?3)", bounds)?;
    connection.execute("DELETE FROM revisions WHERE app = ?1 OR (app > ?2 AND app < ?3)", bounds)?;
    Ok(())
}

pub(super) fn load_operation(connection: &Connection, id: &str) -> Result<Option<Operation>, ArmError> {
    let mut statement = connection.prepare_cached("SELECT * FROM operations WHERE id = ?1")?;
    Ok(statement.query_row([id], operation).optional()?)
}

pub(super) fn save_operation(connection: &Connection, operation: &Operation) -> Result<(), ArmError> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO operations VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            operation.id,
            operation.resource,
            operation.removes,
            operation.status,
            operation.error.as_ref().map(Value::to_string),
            operation.started.as_millisecond(),
            operation.ready.as_millisecond(),
        ])?;
    Ok(())
}

/// Operations whose time has come, in order, at most `max`.
pub(super) fn due(connection: &Connection, now: Timestamp, max: usize) -> Result<Vec<Operation>, ArmError> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM operations WHERE status = 'InProgress' AND ready_ms <= ?1 ORDER BY ready_ms, id LIMIT ?2",
    )?;
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    Ok(statement.query_map(params![now.as_millisecond(), max], operation)?.collect::<Result<_, _>>()?)
}

/// Forgets operations that ended before `before`.
pub(super) fn forget_operations(connection: &Connection, before: Timestamp) -> Result<(), ArmError> {
    connection
        .prepare_cached("DELETE FROM operations WHERE status <> 'InProgress' AND ready_ms < ?1")?
        .execute([before.as_millisecond()])?;
    Ok(())
}

/// An app's revisions, oldest first.
pub(super) fn revisions(connection: &Connection, app: &str) -> Result<Vec<Revision>, ArmError> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM revisions WHERE app = ?1 ORDER BY ordinal")?;
    Ok(statement.query_map([app], revision)?.collect::<Result<_, _>>()?)
}

pub(super) fn save_revision(connection: &Connection, app: &str, revision: &Revision) -> Result<(), ArmError> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO revisions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
        .execute(params![
            app,
            revision.name,
            revision.ordinal,
            revision.template.to_string(),
            revision.active,
            revision.provisioned,
            revision.created.as_millisecond(),
            revision.last_active.as_millisecond(),
        ])?;
    Ok(())
}

pub(super) fn remove_revision(connection: &Connection, app: &str, name: &str) -> Result<(), ArmError> {
    connection.prepare_cached("DELETE FROM revisions WHERE app = ?1 AND name = ?2")?.execute([app, name])?;
    Ok(())
}

/// The keys of all apps that are there to run, in order.
pub(super) fn apps(connection: &Connection) -> Result<Vec<String>, ArmError> {
    let mut statement = connection
        .prepare_cached("SELECT key FROM resources WHERE kind = ?1 AND state <> 'Deleting' ORDER BY key")?;
    Ok(statement.query_map([types::APP], |row| row.get(0))?.collect::<Result<_, _>>()?)
}
