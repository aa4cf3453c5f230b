//! What a write is refused for, whatever its type: who else is at it, what the caller says must be,
//! where it is, what it would leave behind.

use axum::http::StatusCode;
use rusqlite::Connection;
use serde_json::Value;

use super::{
    address::{self, ResourceId},
    container_apps, operations,
    records::{self, Resource},
    refusals::ArmError,
    resources::Call,
    types::{self, Write},
};

/// Resources that are looked at together.
const LOOK_ITEMS_MAX: usize = 100;

pub(super) fn writable(id: &ResourceId) -> Result<(), ArmError> {
    if id.spec.write == Write::ReadOnly {
        return Err(ArmError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "HttpMethodNotAllowed",
            format!("`{}` is made by the service and cannot be written.", id.spec.name),
        ));
    }
    Ok(())
}

pub(super) fn preconditions(existing: Option<&Resource>, call: &Call) -> Result<(), ArmError> {
    if call.if_none_match.as_deref() == Some("*") && existing.is_some() {
        return Err(ArmError::precondition(
            "The resource exists already, and If-None-Match says that it must not.",
        ));
    }
    let Some(wanted) = call.if_match.as_deref() else { return Ok(()) };
    let matches = existing.is_some_and(|existing| wanted == "*" || wanted.trim_matches('"') == existing.etag);
    if matches {
        Ok(())
    } else {
        Err(ArmError::precondition("The resource has another etag than If-Match names: read it again."))
    }
}

pub(super) fn not_busy(existing: Option<&Resource>) -> Result<(), ArmError> {
    let Some(existing) =
        existing.filter(|existing| existing.operation.is_some() || existing.state == operations::DELETING)
    else {
        return Ok(());
    };
    let name = &existing.id.name;
    let (code, what) = match existing.id.spec.name {
        types::APP => ("ContainerAppOperationInProgress", "container app"),
        types::ENVIRONMENT => ("ManagedEnvironmentOperationInProgress", "Container Apps environment"),
        _ => ("AnotherOperationInProgress", "resource"),
    };
    let mut error = ArmError::conflict(
        code,
        format!(
            "The {what} `{name}` cannot be modified while another operation on it is in progress: try again."
        ),
    );
    error.retry_after_seconds = Some(1);
    Err(error)
}

pub(super) fn located(id: &ResourceId, existing: Option<&Resource>, body: &Value) -> Result<(), ArmError> {
    if !id.spec.located {
        return Ok(());
    }
    let location = |body: &Value| {
        body.get("location").and_then(Value::as_str).map(|text| text.to_ascii_lowercase().replace(' ', ""))
    };
    let Some(wanted) = location(body).filter(|text| !text.is_empty()) else {
        return Err(ArmError::bad_request("LocationRequired", format!("`{}` needs a `location`.", id.name)));
    };
    match existing.and_then(|existing| location(&existing.body)) {
        Some(found) if found != wanted => Err(ArmError::conflict(
            "InvalidResourceLocation",
            format!("`{}` exists already in location `{found}` and cannot be made in `{wanted}`.", id.name),
        )),
        _ => Ok(()),
    }
}

/// A principal has a role in a scope once, and an assignment cannot be changed.
pub(super) fn assignable(
    connection: &Connection,
    id: &ResourceId,
    existing: Option<&Resource>,
    body: &Value,
) -> Result<(), ArmError> {
    let what = |body: &Value| {
        let text = |name: &str| body["properties"][name].as_str().map(str::to_ascii_lowercase);
        (text("roleDefinitionId"), text("principalId"))
    };
    let wanted = what(body);
    if wanted.0.is_none() || wanted.1.is_none() {
        return Err(ArmError::bad_request(
            "InvalidRoleAssignment",
            "A role assignment needs properties.roleDefinitionId and properties.principalId.",
        ));
    }
    if existing.is_some_and(|existing| what(&existing.body) != wanted) {
        return Err(ArmError::bad_request(
            "RoleAssignmentUpdateNotPermitted",
            "The role and the principal of a role assignment cannot be changed: delete it and make another.",
        ));
    }
    let siblings = records::within(connection, &id.parent, Some(types::ROLE_ASSIGNMENT), "", LOOK_ITEMS_MAX)?;
    let twin = siblings.iter().find(|other| {
        other.id.key() != id.key() && other.id.parent_key() == id.parent_key() && what(&other.body) == wanted
    });
    match twin {
        Some(twin) => Err(ArmError::conflict(
            "RoleAssignmentExists",
            format!(
                "The role assignment already exists. The ID of the existing role assignment is {}.",
                twin.id.name
            ),
        )),
        None => Ok(()),
    }
}

pub(super) fn no_apps_in(connection: &Connection, environment: &Resource) -> Result<(), ArmError> {
    let subscription = address::subscription_of(&environment.id.text);
    let mut after = String::new();
    loop {
        let page = records::within(connection, &subscription, Some(types::APP), &after, LOOK_ITEMS_MAX)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.id.key();
        let inside = page.iter().find(|app| {
            container_apps::environment_of(&app.body).is_some_and(|id| id.key() == environment.id.key())
        });
        if let Some(app) = inside {
            return Err(ArmError::conflict(
                "ManagedEnvironmentNotEmpty",
                format!(
                    "`{}` still has the container app `{}`: delete it first.",
                    environment.id.name, app.id.name
                ),
            ));
        }
    }
}
