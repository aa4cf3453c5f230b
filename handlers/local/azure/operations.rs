//! Long-running operations. One is begun with the write that it belongs to, and ends when its time
//! has come: whoever looks next settles it. So nothing runs in the background, and a restart in the
//! middle loses nothing.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::{Value, json};
use uuid::Uuid;

use super::records::{self, Operation, Resource};
use super::refusals::ArmError;

/// Operations that one look settles at most; the next look takes more.
const SETTLED_PER_LOOK_MAX: usize = 100;
/// How long an operation that ended can be asked about, in seconds.
const KEPT_SECONDS: i64 = 24 * 60 * 60;

pub(super) const IN_PROGRESS: &str = "InProgress";
pub(super) const SUCCEEDED: &str = "Succeeded";
pub(super) const FAILED: &str = "Failed";
pub(super) const DELETING: &str = "Deleting";

/// Where a caller can follow an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    AsyncOperation,
    Location,
}

/// An operation that a reply tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Poll {
    pub header: Header,
    pub operation: String,
    /// Beginning of the address: `/subscriptions/{s}/providers/{ns}/locations/{l}`, or only the
    /// subscription for resource groups.
    pub base: String,
}

/// Begins an operation on `resource` and marks the resource as being changed.
pub(super) fn begin(
    connection: &Connection,
    resource: &mut Resource,
    removes: bool,
    takes: Duration,
    fails: Option<Value>,
    now: Timestamp,
) -> Result<Operation, ArmError> {
    let operation = Operation {
        id: Uuid::new_v4().to_string(),
        resource: resource.id.key(),
        removes,
        status: IN_PROGRESS.to_owned(),
        error: fails,
        started: now,
        ready: now + takes,
    };
    records::save_operation(connection, &operation)?;
    resource.operation = Some(operation.id.clone());
    resource.state = if removes { DELETING } else { IN_PROGRESS }.to_owned();
    records::save(connection, resource)?;
    Ok(operation)
}

/// Whether an operation waits to be settled.
pub(super) fn is_due(connection: &Connection, now: Timestamp) -> Result<bool, ArmError> {
    Ok(!records::due(connection, now, 1)?.is_empty())
}

/// Ends the operations whose time has come.
pub(super) fn settle(connection: &Connection, now: Timestamp) -> Result<(), ArmError> {
    let due = records::due(connection, now, SETTLED_PER_LOOK_MAX)?;
    for mut operation in due {
        let failed = operation.error.is_some();
        operation.status = if failed { FAILED } else { SUCCEEDED }.to_owned();
        records::save_operation(connection, &operation)?;
        if operation.removes && !failed {
            records::remove(connection, &operation.resource)?;
        } else if let Some(mut resource) = records::load(connection, &operation.resource)? {
            // Another operation may have taken over, as a group's removal does.
            if resource.operation.as_deref() == Some(operation.id.as_str()) {
                resource.operation = None;
                resource.state.clone_from(&operation.status);
                records::save(connection, &resource)?;
            }
        }
    }
    records::forget_operations(connection, now - Duration::from_secs(KEPT_SECONDS.unsigned_abs()))
}

/// What the `Azure-AsyncOperation` address answers.
pub(super) fn status(operation: &Operation, path: &str) -> Value {
    let mut body = json!({
        "id": path,
        "name": operation.id,
        "status": operation.status,
        "startTime": operation.started.to_string(),
    });
    if operation.status != IN_PROGRESS {
        body["endTime"] = json!(operation.ready.to_string());
    }
    if operation.status == FAILED {
        body["error"] = operation.error.clone().unwrap_or_default();
    }
    body
}
