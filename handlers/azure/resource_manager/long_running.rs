//! Operations that Resource Manager finishes in the background.
//!
//! There are three ways in which it tells how one is: a URL that answers with a status, a URL that
//! answers 202 until it is done, and the resource's own provisioning state; in this order of trust.
//! A status of 201 or 202 alone says nothing.

use std::time::Duration;

use azure_core::http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ResourceManager,
    answer::{Answer, refusal_of},
};
use crate::outcome::Fault;

/// The pause before the first look, where Azure names none.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause between looks, where Azure names none.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often a resource that was just written may not be found: a read can come before the write has
/// reached every replica of Resource Manager.
const NOT_FOUND_LOOKS_MAX: u32 = 5;
/// The most bytes of a URL to look at. They are opaque and can be some thousands.
const URL_BYTES_MAX: usize = 16 * 1024;

/// What is needed to look at an operation again. It survives being stored as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum LongRunning {
    /// A URL that answers with a status; afterwards the resource is read if `read_back`.
    AsyncOperation { url: String, resource_id: String, api_version: String, read_back: bool, looks: u32 },
    /// A URL that answers 202 until it is done; afterwards the resource is read if `read_back`.
    Location { url: String, resource_id: String, api_version: String, read_back: bool, looks: u32 },
    /// The resource itself, by its provisioning state.
    ProvisioningState { resource_id: String, api_version: String, looks: u32 },
}

impl LongRunning {
    /// The resource that is worked on, by its provisioning state.
    pub fn provisioning_state(resource_id: &str, api_version: &str) -> Self {
        Self::ProvisioningState {
            resource_id: resource_id.to_owned(),
            api_version: api_version.to_owned(),
            looks: 0,
        }
    }

    /// The id of the resource that is worked on.
    pub fn resource_id(&self) -> &str {
        match self {
            Self::AsyncOperation { resource_id, .. }
            | Self::Location { resource_id, .. }
            | Self::ProvisioningState { resource_id, .. } => resource_id,
        }
    }

    fn looks(&self) -> u32 {
        match self {
            Self::AsyncOperation { looks, .. }
            | Self::Location { looks, .. }
            | Self::ProvisioningState { looks, .. } => *looks,
        }
    }

    fn looked(mut self) -> Self {
        match &mut self {
            Self::AsyncOperation { looks, .. }
            | Self::Location { looks, .. }
            | Self::ProvisioningState { looks, .. } => *looks = looks.saturating_add(1),
        }
        self
    }

    /// Still running: when to look again, as Azure asks, else longer each time.
    fn running(self, asked: Option<Duration>) -> Reply {
        let again_in = asked.unwrap_or_else(|| {
            let grown = FIRST_PAUSE.as_secs_f64() * 1.5_f64.powi(self.looks().min(10).cast_signed());
            Duration::from_secs_f64(grown).min(PAUSE_MAX)
        });
        Reply::Running { operation: self, again_in }
    }
}

/// How far a write has come.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// It is done; the resource as it is now, or what an action answered, or null.
    Done(Value),
    /// Look again after `again_in`.
    Running { operation: LongRunning, again_in: Duration },
    /// Azure took it up and could not do it.
    Failed { code: String, detail: String },
}

/// What was asked for.
#[derive(Clone, Copy)]
pub(super) struct Started<'a> {
    pub method: Method,
    pub id: &'a str,
    pub api_version: &'a str,
}

impl Started<'_> {
    /// Whether the resource is what the caller wants to see at the end.
    fn read_back(&self) -> bool {
        matches!(self.method, Method::Put | Method::Patch)
    }
}

/// Reads the first answer to a write.
pub(super) fn begin(
    manager: &ResourceManager,
    started: &Started<'_>,
    answer: Answer,
    doing: &str,
) -> Result<Reply, Fault> {
    let deleting = started.method == Method::Delete;
    if deleting && answer.status == 404 {
        return Ok(Reply::Done(Value::Null));
    }
    let answer = answer.ok(doing, started.id)?;
    let resource_id = started.id.to_owned();
    let api_version = started.api_version.to_owned();
    let read_back = started.read_back();
    if let Some(given) = &answer.async_operation {
        let url = checked(manager, given, doing)?;
        let operation = LongRunning::AsyncOperation { url, resource_id, api_version, read_back, looks: 0 };
        return Ok(operation.running(answer.retry_after));
    }
    // With 201, Location is where the new resource is, as everywhere in HTTP.
    if let Some(given) = answer.location.as_ref().filter(|_| answer.status == 202) {
        let url = checked(manager, given, doing)?;
        let operation = LongRunning::Location { url, resource_id, api_version, read_back, looks: 0 };
        return Ok(operation.running(answer.retry_after));
    }
    let body = answer.json(doing)?;
    if read_back {
        let operation = LongRunning::ProvisioningState { resource_id, api_version, looks: 0 };
        if answer.status == 202 && body.is_null() {
            return Ok(operation.running(answer.retry_after));
        }
        return Ok(by_provisioning_state(body, operation, answer.retry_after));
    }
    Ok(Reply::Done(if deleting { Value::Null } else { body }))
}

fn checked(manager: &ResourceManager, given: &str, doing: &str) -> Result<String, Fault> {
    if given.len() > URL_BYTES_MAX {
        let detail =
            format!("Azure named a URL to look at of {} bytes, the most is {URL_BYTES_MAX}", given.len());
        return Err(super::rejected(doing, "UrlTooLong", detail));
    }
    manager.trusted(given, doing).map(String::from)
}

/// Looks once.
pub(super) async fn look(manager: &ResourceManager, operation: &LongRunning) -> Result<Reply, Fault> {
    let doing = format!("looking at what is being done to `{}`", operation.resource_id());
    match operation {
        LongRunning::AsyncOperation { url, .. } | LongRunning::Location { url, .. } => {
            let url = manager.trusted(url, &doing)?;
            let answer = manager.call(Method::Get, url, None, &doing).await?;
            look_at_url(manager, operation, &answer, &doing).await
        }
        LongRunning::ProvisioningState { .. } => read_back(manager, operation, &doing).await,
    }
}

async fn look_at_url(
    manager: &ResourceManager,
    operation: &LongRunning,
    answer: &Answer,
    doing: &str,
) -> Result<Reply, Fault> {
    match answer.status {
        200..=299 => {}
        // Azure forgets what has ended.
        404 => return finish(manager, operation, Value::Null, doing).await,
        // Not an answer about the operation, but about our asking.
        401 | 403 | 408 | 429 | 500..=599 => return Err(answer.fault(doing, operation.resource_id())),
        _ => {
            let (code, detail) = answer.refusal();
            return Ok(Reply::Failed { code, detail });
        }
    }
    let body = answer.json(doing)?;
    let running = |operation: LongRunning| Ok(operation.looked().running(answer.retry_after));
    match operation {
        LongRunning::AsyncOperation { .. } => match standing(body.get("status").and_then(Value::as_str)) {
            Standing::Succeeded => {
                let result = body.get("properties").cloned().unwrap_or(Value::Null);
                finish(manager, operation, result, doing).await
            }
            Standing::Ended(status) => Ok(failed(&body, status)),
            Standing::Running => running(operation.clone()),
        },
        LongRunning::Location { resource_id, api_version, read_back, looks, .. } if answer.status == 202 => {
            let Some(given) = &answer.location else { return running(operation.clone()) };
            let url = checked(manager, given, doing)?;
            let (resource_id, api_version) = (resource_id.clone(), api_version.clone());
            running(LongRunning::Location {
                url,
                resource_id,
                api_version,
                read_back: *read_back,
                looks: *looks,
            })
        }
        LongRunning::Location { .. } | LongRunning::ProvisioningState { .. } => {
            finish(manager, operation, body, doing).await
        }
    }
}

/// The operation itself has ended well: what the caller wants to see.
async fn finish(
    manager: &ResourceManager,
    operation: &LongRunning,
    result: Value,
    doing: &str,
) -> Result<Reply, Fault> {
    match operation {
        LongRunning::AsyncOperation { read_back: false, .. }
        | LongRunning::Location { read_back: false, .. } => Ok(Reply::Done(result)),
        LongRunning::AsyncOperation { resource_id, api_version, .. }
        | LongRunning::Location { resource_id, api_version, .. } => {
            read_back(manager, &LongRunning::provisioning_state(resource_id, api_version), doing).await
        }
        LongRunning::ProvisioningState { .. } => read_back(manager, operation, doing).await,
    }
}

async fn read_back(manager: &ResourceManager, operation: &LongRunning, doing: &str) -> Result<Reply, Fault> {
    let (LongRunning::AsyncOperation { resource_id, api_version, .. }
    | LongRunning::Location { resource_id, api_version, .. }
    | LongRunning::ProvisioningState { resource_id, api_version, .. }) = operation;
    let url = manager.url(resource_id, api_version, doing)?;
    let answer = manager.call(Method::Get, url, None, doing).await?;
    let looked = operation.clone().looked();
    if answer.status == 404 {
        if looked.looks() < NOT_FOUND_LOOKS_MAX {
            return Ok(looked.running(answer.retry_after));
        }
        let (code, detail) = answer.refusal();
        return Ok(Reply::Failed { code, detail });
    }
    let asked = answer.retry_after;
    let body = answer.ok(doing, resource_id)?.json(doing)?;
    Ok(by_provisioning_state(body, looked, asked))
}

fn by_provisioning_state(body: Value, operation: LongRunning, asked: Option<Duration>) -> Reply {
    let state = body.pointer("/properties/provisioningState").and_then(Value::as_str);
    match state.map(|state| standing(Some(state))) {
        // A resource without the property is made at once.
        None | Some(Standing::Succeeded) => Reply::Done(body),
        Some(Standing::Ended(status)) => failed(&body, status),
        Some(Standing::Running) => operation.running(asked),
    }
}

fn failed(body: &Value, status: &str) -> Reply {
    let (code, detail) = refusal_of(body.pointer("/properties/error").map_or(body, |_| &body["properties"]));
    Reply::Failed { code: code.unwrap_or_else(|| status.to_owned()), detail }
}

/// Where an operation stands by Azure's word for it; every word but three means that it runs.
enum Standing {
    Running,
    Succeeded,
    /// Ended otherwise, in Azure's words.
    Ended(&'static str),
}

fn standing(status: Option<&str>) -> Standing {
    let Some(status) = status else { return Standing::Running };
    match status.to_ascii_lowercase().as_str() {
        "succeeded" => Standing::Succeeded,
        "failed" => Standing::Ended("Failed"),
        "canceled" | "cancelled" => Standing::Ended("Canceled"),
        _ => Standing::Running,
    }
}

/// Whether Azure is still at work on a resource, by its body.
pub(in crate::azure) fn is_at_work(body: &Value) -> bool {
    let state = body.pointer("/properties/provisioningState").and_then(Value::as_str);
    state.is_some_and(|state| matches!(standing(Some(state)), Standing::Running))
}
