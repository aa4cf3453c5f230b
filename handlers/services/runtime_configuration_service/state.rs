//! RuntimeConfiguration, its versions, and what each workload holds, as they are stored.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    ids::{self, DeploymentId, EnvironmentId, EventId, ModuleId, OperationId, ServiceId},
    ledger::State,
    outcome::Fault,
    ports::store::Partition,
};

/// How long versions are kept that nothing wants any more.
const RETIRED_SECONDS: u32 = 365 * 24 * 60 * 60;
/// Versions that failed at a workload and are remembered; the oldest go.
pub const FAILED_MAX: usize = 20;

/// The id of an environment's configuration; its versions share it.
pub fn configuration_id(partition: &Partition) -> String {
    let uuid =
        ids::derive(&["configuration", &partition.tenant_id, &partition.environment_id]).simple().to_string();
    format!("cfg-{}", &uuid[..8])
}

pub(super) fn missing(id: &str) -> Fault {
    Fault::Unreadable {
        doing: format!("reading `{id}`"),
        source: "a document that another one names is missing".into(),
    }
}

/// Which version an environment wants. Every decision about its configuration rests on this one
/// document, so that an older version never overtakes a newer one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeConfiguration {
    pub configuration_id: String,
    pub environment_id: EnvironmentId,
    /// The newest version that was published; counts up from 1.
    pub version: u64,
    /// The content that is wanted: that of the newest version, unless it failed.
    pub wanted_hash: Option<String>,
    /// The newest version that has passed at a workload; new workloads start with it.
    pub established: Option<u64>,
    pub established_hash: Option<String>,
    /// Counts the events of the configuration.
    pub sequence: u64,
    pub made_at: Timestamp,
}

impl State for RuntimeConfiguration {
    const KIND: &'static str = "configuration";

    fn made_at(&self) -> Timestamp {
        self.made_at
    }
}

/// What became of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VersionStatus {
    /// The environment wants it.
    Published,
    /// A newer one took its place.
    Superseded,
    /// The workload that it was applied to first did not pass with it.
    Failed,
}

/// One version of an environment's settings. Its content never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationVersion {
    pub configuration_id: String,
    pub environment_id: EnvironmentId,
    pub version: u64,
    /// Environment variables, by name; never secret.
    pub settings: BTreeMap<String, String>,
    /// Environment variables that come from secrets: their names, and the bindings behind them.
    pub secret_refs: BTreeMap<String, String>,
    pub content_hash: String,
    pub status: VersionStatus,
    pub reason: Option<String>,
    /// The workloads, in the order in which the version comes to them.
    pub workloads: Vec<Progress>,
    pub operation_id: OperationId,
    pub published_event_id: EventId,
    pub published_at: Timestamp,
}

impl State for ConfigurationVersion {
    const KIND: &'static str = "configuration-version";

    fn made_at(&self) -> Timestamp {
        self.published_at
    }

    fn ttl_seconds(&self) -> Option<u32> {
        match self.status {
            VersionStatus::Published => None,
            VersionStatus::Superseded | VersionStatus::Failed => Some(RETIRED_SECONDS),
        }
    }
}

impl ConfigurationVersion {
    pub fn id(configuration_id: &str, version: u64) -> String {
        format!("{configuration_id}-v{version}")
    }
}

/// The hash of a content: two versions with the same one are the same.
pub fn content_hash(settings: &BTreeMap<String, String>, secret_refs: &BTreeMap<String, String>) -> String {
    use std::fmt::Write;
    let text = serde_json::to_vec(&(settings, secret_refs)).expect("maps of texts are JSON");
    Sha256::digest(text).iter().fold("sha256:".to_owned(), |mut hash, byte| {
        write!(hash, "{byte:02x}").expect("a String takes all that is written");
        hash
    })
}

/// How far a version has come at one workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub module_id: ModuleId,
    pub service_id: ServiceId,
    pub stage: Stage,
    pub applied_at: Option<Timestamp>,
    /// Times that a refresh was asked for again, because the first did not come to pass.
    pub nudges: u32,
    /// The deployment that confirmed it, or failed with it.
    pub deployment_id: Option<DeploymentId>,
    pub reason: Option<String>,
}

impl Progress {
    pub fn waiting(
        environment: &EnvironmentId,
        partition: &Partition,
        module: ModuleId,
    ) -> Result<Self, Fault> {
        let tenant = partition.tenant_id.parse().map_err(|error: ids::IdError| Fault::Unreadable {
            doing: "reading a partition's tenant".to_owned(),
            source: error.into(),
        })?;
        Ok(Self {
            service_id: ServiceId::derived(&tenant, environment, &module),
            module_id: module,
            stage: Stage::Waiting,
            applied_at: None,
            nudges: 0,
            deployment_id: None,
            reason: None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    Waiting,
    Applied,
    Confirmed,
    Failed,
    /// The workload serves no more.
    Gone,
}

/// What one workload holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadConfiguration {
    pub module_id: ModuleId,
    pub service_id: ServiceId,
    pub environment_id: EnvironmentId,
    /// What its next revision starts with.
    pub applied: Option<u64>,
    pub applied_at: Option<Timestamp>,
    /// The newest version with which a revision of it served.
    pub confirmed: Option<u64>,
    pub confirmed_at: Option<Timestamp>,
    pub failed: Vec<FailedVersion>,
    pub made_at: Timestamp,
}

/// A version with which a revision of a workload did not pass its gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedVersion {
    pub version: u64,
    pub at: Timestamp,
    pub reason: String,
}

impl State for WorkloadConfiguration {
    const KIND: &'static str = "workload-configuration";

    fn made_at(&self) -> Timestamp {
        self.made_at
    }
}

impl WorkloadConfiguration {
    pub fn id(module: &ModuleId) -> String {
        format!(
            "workload-configuration-{}",
            ids::derive(&["workload-configuration", module.as_str()]).simple()
        )
    }

    pub fn has_failed(&self, version: u64) -> bool {
        self.failed.iter().any(|failed| failed.version == version)
    }

    /// The version failed here: the last confirmed one is wanted again.
    pub fn fail(&mut self, version: u64, reason: &str, now: Timestamp) {
        self.applied = self.confirmed;
        self.applied_at = Some(now);
        self.failed.push(FailedVersion { version, at: now, reason: reason.to_owned() });
        let excess = self.failed.len().saturating_sub(FAILED_MAX);
        self.failed.drain(..excess);
    }
}
