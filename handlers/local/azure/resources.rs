//! Reading and writing resources of any type, within one transaction of the file.

use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::{Map, Value, json};

use super::{
    address::{self, ResourceId},
    container_apps,
    defaults::{self, Naming},
    guards,
    operations::{self, Header, Poll},
    records::{self, Resource},
    refusals::ArmError,
    types::{self, Removal, Write},
};

/// The most resources that one page of a list has.
const PAGE_ITEMS_MAX: usize = 100;

/// What a call depends on beside its address and body.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub now: Timestamp,
    pub naming: Naming,
    /// What operations' durations are multiplied by.
    pub pace: f64,
    pub if_match: Option<String>,
    pub if_none_match: Option<String>,
    /// The error that the operation of this call is to end in.
    pub fails: Option<Value>,
}

impl Call {
    fn takes(&self, milliseconds: u32) -> Duration {
        Duration::from_millis(u64::from(milliseconds)).mul_f64(self.pace)
    }
}

/// What a call did to programs that run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// This app's replicas and routes are to be brought in line.
    App(String),
    /// This app's revision is to be started anew.
    Restart {
        app: String,
        revision: String,
    },
    /// What is at or below this key is gone.
    Gone(String),
}

/// What a call is answered with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reply {
    pub status: StatusCode,
    pub body: Option<Value>,
    pub etag: Option<String>,
    pub poll: Option<Poll>,
    pub effect: Effect,
}

impl Reply {
    pub(super) fn new(status: StatusCode, body: Option<Value>) -> Self {
        Self { status, body, etag: None, poll: None, effect: Effect::None }
    }
}

/// The resource as a GET shows it.
pub(super) fn show(connection: &Connection, resource: &Resource, naming: &Naming) -> Result<Value, ArmError> {
    let mut shown = defaults::render(resource, naming);
    match resource.id.spec.name {
        types::APP => container_apps::show(connection, resource, naming, &mut shown)?,
        types::NETWORK => {
            let subnets =
                records::within(connection, &resource.id.text, Some(types::SUBNET), "", PAGE_ITEMS_MAX)?;
            let subnets = subnets.iter().map(|subnet| defaults::render(subnet, naming)).collect::<Vec<_>>();
            if !subnets.is_empty() || shown["properties"].get("subnets").is_none() {
                shown["properties"]["subnets"] = json!(subnets);
            }
        }
        _ => {}
    }
    Ok(shown)
}

/// The resource, where there is one.
pub(super) fn stored(connection: &Connection, id: &ResourceId) -> Result<Resource, ArmError> {
    if let Some(resource) = records::load(connection, &id.key())? {
        return Ok(resource);
    }
    if id.spec.name == types::GROUP {
        return Err(no_group(&id.name));
    }
    let group = address::group_name(&id.text);
    if !group.is_empty() && records::load(connection, &group_key(&id.text))?.is_none() {
        return Err(no_group(group));
    }
    Err(ArmError::not_found(
        "ResourceNotFound",
        format!("The resource `{}/{}` under resource group `{group}` was not found.", id.spec.name, id.name),
    ))
}

fn group_key(id: &str) -> String {
    id.split('/').take(5).collect::<Vec<_>>().join("/").to_ascii_lowercase()
}

fn no_group(name: &str) -> ArmError {
    ArmError::not_found("ResourceGroupNotFound", format!("Resource group `{name}` could not be found."))
}

pub(super) fn get(connection: &Connection, call: &Call, id: &ResourceId) -> Result<Reply, ArmError> {
    let resource = stored(connection, id)?;
    let mut reply = Reply::new(StatusCode::OK, Some(show(connection, &resource, &call.naming)?));
    reply.etag = Some(resource.etag);
    Ok(reply)
}

/// One page of what is in a scope, and the key to go on after.
pub(super) fn list(
    connection: &Connection,
    call: &Call,
    scope: &str,
    kind: Option<&str>,
    after: &str,
) -> Result<(Vec<Value>, Option<String>), ArmError> {
    if let Some(parent) = address::resource(scope) {
        stored(connection, &parent)?;
    }
    let mut page = records::within(connection, scope, kind, after, PAGE_ITEMS_MAX + 1)?;
    let next = (page.len() > PAGE_ITEMS_MAX).then(|| {
        page.truncate(PAGE_ITEMS_MAX);
        page.last().map(|resource| resource.id.key()).unwrap_or_default()
    });
    let listed = page.iter().filter(|resource| kind.is_some() || resource.id.spec.name != types::GROUP);
    Ok((listed.map(|resource| show(connection, resource, &call.naming)).collect::<Result<_, _>>()?, next))
}

pub(super) fn put(
    connection: &Connection,
    call: &Call,
    id: &ResourceId,
    body: Value,
) -> Result<Reply, ArmError> {
    let Value::Object(mut body) = body else { return Err(no_object()) };
    let existing = records::load(connection, &id.key())?;
    let id = match &existing {
        Some(existing) => existing.id.clone(),
        None => id.under(&parent(connection, id)?),
    };
    guards::writable(&id)?;
    guards::preconditions(existing.as_ref(), call)?;
    guards::not_busy(existing.as_ref())?;
    defaults::strip(&id, &mut body);
    defaults::fill(&id, &mut body);
    write(connection, call, &id, existing, Value::Object(body), true)
}

/// Applies a JSON merge patch.
pub(super) fn patch(
    connection: &Connection,
    call: &Call,
    id: &ResourceId,
    patch: Value,
) -> Result<Reply, ArmError> {
    let Value::Object(mut changes) = patch else { return Err(no_object()) };
    let existing = stored(connection, id)?;
    guards::writable(id)?;
    guards::preconditions(Some(&existing), call)?;
    guards::not_busy(Some(&existing))?;
    defaults::strip(&existing.id, &mut changes);
    let mut body = existing.body.clone();
    let changes = Value::Object(changes);
    merge(&mut body, &changes);
    if id.spec.name == types::APP {
        container_apps::after_merge(&changes, &mut body);
    }
    if let Some(body) = body.as_object_mut() {
        defaults::fill(&existing.id, body);
    }
    write(connection, call, &existing.id.clone(), Some(existing), body, false)
}

/// RFC 7396: null removes, objects merge, everything else replaces.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let target = target.as_object_mut().expect("it was made an object above");
    for (name, value) in patch {
        if value.is_null() {
            target.shift_remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

fn write(
    connection: &Connection,
    call: &Call,
    id: &ResourceId,
    existing: Option<Resource>,
    mut body: Value,
    whole: bool,
) -> Result<Reply, ArmError> {
    guards::located(id, existing.as_ref(), &body)?;
    let mut made_revision = false;
    match id.spec.name {
        types::APP => {
            made_revision = container_apps::apply(connection, call, id, existing.as_ref(), &mut body, whole)?
        }
        types::ROLE_ASSIGNMENT => guards::assignable(connection, id, existing.as_ref(), &body)?,
        _ => {}
    }
    let created = existing.is_none();
    let mut resource = Resource {
        id: id.clone(),
        body,
        state: operations::SUCCEEDED.to_owned(),
        operation: None,
        etag: records::new_etag(),
        created: existing.as_ref().map_or(call.now, |existing| existing.created),
        modified: call.now,
    };
    let slow = match id.spec.write {
        Write::Immediate | Write::ReadOnly => None,
        // A patch of an app that makes no revision is quick; of anything else, tags aside, it is not.
        Write::AsyncOperation if !whole && id.spec.name == types::APP => {
            made_revision.then_some(Header::Location)
        }
        Write::AsyncOperation if whole => Some(Header::AsyncOperation),
        Write::AsyncOperation => Some(Header::Location),
        Write::ProvisioningState => Some(Header::Location).filter(|_| whole),
    };
    let mut poll = None;
    if let Some(header) = slow {
        let takes = call.takes(id.spec.write_ms);
        let operation =
            operations::begin(connection, &mut resource, false, takes, call.fails.clone(), call.now)?;
        poll = Some(Poll { header, operation: operation.id, base: poll_base(&resource) })
            .filter(|_| id.spec.write != Write::ProvisioningState);
    } else {
        records::save(connection, &resource)?;
    }
    let status = match &poll {
        Some(poll) if poll.header == Header::Location => StatusCode::ACCEPTED,
        _ if created => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    let mut reply = Reply::new(status, Some(show(connection, &resource, &call.naming)?));
    reply.etag = Some(resource.etag);
    reply.poll = poll;
    if id.spec.name == types::APP {
        reply.effect = Effect::App(id.key());
    }
    Ok(reply)
}

pub(super) fn poll_base(resource: &Resource) -> String {
    let subscription = address::subscription_of(&resource.id.text);
    if resource.id.spec.name == types::GROUP {
        return subscription;
    }
    let location = resource.body.get("location").and_then(Value::as_str).unwrap_or("global");
    let location = location.to_ascii_lowercase().replace(' ', "");
    format!("{subscription}/providers/{}/locations/{location}", resource.id.spec.namespace())
}

pub(super) fn delete(connection: &Connection, call: &Call, id: &ResourceId) -> Result<Reply, ArmError> {
    let Some(mut existing) = records::load(connection, &id.key())? else {
        if id.spec.name == types::GROUP {
            return Err(no_group(&id.name));
        }
        return Ok(Reply::new(StatusCode::NO_CONTENT, None));
    };
    guards::writable(id)?;
    guards::preconditions(Some(&existing), call)?;
    // A group goes whatever is being done in it.
    if id.spec.name != types::GROUP || existing.state == operations::DELETING {
        guards::not_busy(Some(&existing))?;
    }
    if id.spec.name == types::ENVIRONMENT {
        guards::no_apps_in(connection, &existing)?;
    }
    let key = id.key();
    let mut reply = Reply::new(StatusCode::OK, None);
    reply.effect = Effect::Gone(key.clone());
    match id.spec.removal {
        Removal::Immediate => {
            let body =
                (id.spec.name == types::ROLE_ASSIGNMENT).then(|| defaults::render(&existing, &call.naming));
            records::remove(connection, &key)?;
            reply.body = body;
        }
        Removal::Location => {
            let takes = call.takes(types::REMOVAL_MS);
            let operation =
                operations::begin(connection, &mut existing, true, takes, call.fails.clone(), call.now)?;
            if id.spec.name == types::GROUP {
                mark_deleting(connection, &id.text)?;
            }
            reply.status = StatusCode::ACCEPTED;
            reply.poll =
                Some(Poll { header: Header::Location, operation: operation.id, base: poll_base(&existing) });
        }
    }
    Ok(reply)
}

/// Marks what is in a group as going with it.
fn mark_deleting(connection: &Connection, group: &str) -> Result<(), ArmError> {
    let mut after = String::new();
    loop {
        let page = records::within(connection, group, None, &after, PAGE_ITEMS_MAX)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.id.key();
        for mut resource in page {
            operations::DELETING.clone_into(&mut resource.state);
            records::save(connection, &resource)?;
        }
    }
}

/// The id of the parent as it was first written.
fn parent(connection: &Connection, id: &ResourceId) -> Result<String, ArmError> {
    let Some(parent) = address::resource(&id.parent) else {
        // A subscription, which is always there.
        return Ok(id.parent.clone());
    };
    let stored_parent = records::load(connection, &id.parent_key())?;
    match stored_parent {
        Some(found) if found.state == operations::DELETING && parent.spec.name == types::GROUP => {
            Err(ArmError::conflict(
                "ResourceGroupBeingDeleted",
                format!("The resource group `{}` is being deleted and cannot take resources.", found.id.name),
            ))
        }
        Some(found) => Ok(found.id.text),
        None if parent.spec.name == types::GROUP => Err(no_group(&parent.name)),
        None => Err(ArmError::not_found(
            "ParentResourceNotFound",
            format!(
                "`{}` cannot be written, because its parent `{}` could not be found.",
                id.name, parent.text
            ),
        )),
    }
}

fn no_object() -> ArmError {
    ArmError::bad_request("InvalidRequestContent", "The body of the request must be a JSON object.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_merges_objects_removes_nulls_and_replaces_arrays() {
        let mut target = json!({ "a": { "b": 1, "c": 2 }, "list": [1, 2], "gone": true });
        merge(
            &mut target,
            &json!({ "a": { "b": null, "d": 3 }, "list": [3], "gone": null, "new": { "x": null } }),
        );
        assert_eq!(target, json!({ "a": { "c": 2, "d": 3 }, "list": [3], "new": {} }));
    }
}
