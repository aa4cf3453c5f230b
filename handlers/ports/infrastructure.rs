//! Standing environments up. An engine takes one list of typed resources, says what it would change,
//! and then applies exactly that, one look at a time: nothing here waits for Azure.
//!
//! What it promises: planning writes nothing; advancing is idempotent, so that a step that died is
//! simply taken again; a resource that is satisfied is not written.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::outcome::Fault;

/// One resource of Azure that we own, as desired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Its name in the list, e.g. `vault`.
    pub key: String,
    /// e.g. `Microsoft.KeyVault/vaults`.
    pub resource_type: String,
    pub api_version: String,
    /// The whole id, beginning with `/subscriptions/`.
    pub id: String,
    /// The body to PUT, with only the properties that we own. A text member `${key.path}` stands for
    /// a property of another resource as Azure answered it, e.g. `${identity.properties.principalId}`.
    pub body: Value,
    /// Keys of resources that must be there first.
    pub depends_on: Vec<String>,
    /// Paths of properties (`/location`) that Azure cannot change in place. Where one differs, the
    /// plan refuses: we never replace what holds data.
    pub immutable: Vec<String>,
}

/// What would happen to one resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "action")]
pub enum Change {
    Create,
    Update {
        differences: Vec<Difference>,
    },
    NoChange,
    /// It would have to be replaced, and is not.
    Refused {
        reason: String,
    },
}

/// One property that is not as desired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// A JSON pointer into the resource.
    pub path: String,
    pub desired: Value,
    pub actual: Value,
}

/// What would happen to the resource `key`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedChange {
    pub key: String,
    pub resource_type: String,
    pub id: String,
    #[serde(flatten)]
    pub change: Change,
    /// A hash of the properties we own as they were when the plan was made; none where there was
    /// nothing. Applying refuses where this moved.
    pub saw: Option<String>,
}

/// How far applying has come; the engine's own words, kept by the caller between looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Resources that are in place, with the body that Azure answered.
    pub done: BTreeMap<String, Value>,
    /// Resources on their way, with what the engine needs to look again.
    pub pending: BTreeMap<String, Value>,
}

/// The answer to one look.
#[derive(Clone, Debug, PartialEq)]
pub enum Advance {
    /// Look again after this time.
    Running { progress: Progress, again_in: Duration },
    /// Everything is in place.
    Done { progress: Progress },
    /// A resource will not come into place.
    Failed { progress: Progress, key: String, reason: String },
    /// The world moved since the plan was made: plan again.
    Moved { key: String },
}

/// How far removing has come, kept by the caller between looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// Keys of resources that are not there any more.
    pub gone: BTreeSet<String>,
    /// Resources on their way out, with what the engine needs to look again.
    pub pending: BTreeMap<String, Value>,
    /// Resources that stay, and why.
    pub kept: BTreeMap<String, Kept>,
}

/// Why a resource was not removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    pub reason: String,
    /// Whether it stays because it must, and not because removing it failed.
    pub must: bool,
}

/// The answer to one look at removing.
#[derive(Clone, Debug, PartialEq)]
pub enum Removing {
    /// Look again after this time.
    Running { removal: Removal, again_in: Duration },
    /// Everything is gone, or stays for good.
    Done { removal: Removal },
}

#[async_trait]
pub trait Infrastructure: Send + Sync {
    /// Reads every resource and compares the properties that we own.
    async fn plan(&self, desired: &[Resource]) -> Result<Vec<PlannedChange>, Fault>;

    /// Looks once at what is pending and starts what can start, in order of dependency.
    async fn advance(
        &self,
        desired: &[Resource],
        plan: &[PlannedChange],
        progress: Progress,
    ) -> Result<Advance, Fault>;

    /// Looks once at what is on its way out, and removes what nothing needs any more. Nothing there is
    /// gone; what is not of ours never goes.
    async fn remove(&self, desired: &[Resource], removal: Removal) -> Result<Removing, Fault>;
}
