//! RuntimeDriftFinding, what is remembered of each fingerprint, and suppressions, as they are stored.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    events::{DriftKind, DriftResolution, DriftSeverity},
    ids::{DeploymentId, DriftFindingId, EnvironmentId, ModuleId, OperationId, ServiceId, derive},
    ledger::{Lineage, State},
};

/// How long a finding is kept once it is over.
const RESOLVED_SECONDS: u32 = 90 * 24 * 60 * 60;
/// How long a suspicion is kept that came to nothing.
const DISMISSED_SECONDS: u32 = 24 * 60 * 60;
/// How long a suppression is kept once it is over.
const EXPIRED_SECONDS: u32 = 30 * 24 * 60 * 60;

/// Where a finding stands.
///
/// `Suspected -> Open -> Remediating -> Resolved`; `Suppressed` while somebody asked to be left alone,
/// `Contested` when it came back too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FindingStatus {
    /// Seen once. It is told when the next look sees it too.
    Suspected,
    Open,
    /// A remediation was begun.
    Remediating,
    Suppressed,
    /// It came back after every automatic remediation, and waits for a person.
    Contested,
    Resolved,
}

impl FindingStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspected => "Suspected",
            Self::Open => "Open",
            Self::Remediating => "Remediating",
            Self::Suppressed => "Suppressed",
            Self::Contested => "Contested",
            Self::Resolved => "Resolved",
        }
    }
}

/// One drift, from when it was first seen to its end. One that comes back is another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeDriftFinding {
    pub finding_id: DriftFindingId,
    pub environment_id: EnvironmentId,
    /// None where the environment itself has drifted, or nobody knows the workload.
    pub module_id: Option<ModuleId>,
    pub service_id: Option<ServiceId>,
    /// The fingerprint: the same for every sighting of one drift, and for its return.
    pub finding_hash: String,
    /// The id of the resource at Azure.
    pub resource_id: String,
    /// A JSON pointer; empty where the whole resource is meant.
    pub path: String,
    pub kind: DriftKind,
    pub severity: DriftSeverity,
    /// As it may be told: digests of values of variables.
    pub desired: Value,
    pub actual: Value,
    pub status: FindingStatus,
    pub auto_remediable: bool,
    pub destructive: bool,
    /// Why it waits for a person, where it does.
    pub waits: Option<String>,
    pub last_writer: Option<String>,
    pub suppressed_by: Option<String>,
    pub first_seen_at: Timestamp,
    pub last_seen_at: Timestamp,
    /// The sweep that saw it last, by its window.
    pub seen_in: Timestamp,
    /// Sweeps that saw it.
    pub sightings: u32,
    pub opened_at: Option<Timestamp>,
    pub resolved_at: Option<Timestamp>,
    pub resolution: Option<DriftResolution>,
    /// The deployment that is desired where it drifted.
    pub desired_deployment_id: Option<DeploymentId>,
    pub remediation: Remediation,
    /// Where its events come from.
    pub lineage: Lineage,
    pub caused_by: String,
    /// Counts its events.
    pub sequence: u64,
}

/// What was done about a finding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remediation {
    /// Remediations that were begun.
    pub attempts: u32,
    /// Automatic orders that sweeps gave.
    pub orders: u32,
    /// When the next automatic order may be given.
    pub not_before: Option<Timestamp>,
    pub deployment_id: Option<DeploymentId>,
    pub operation_id: Option<OperationId>,
}

impl State for RuntimeDriftFinding {
    const KIND: &'static str = "drift-finding";

    fn made_at(&self) -> Timestamp {
        self.first_seen_at
    }

    fn ttl_seconds(&self) -> Option<u32> {
        match self.status {
            FindingStatus::Resolved if self.sequence == 0 => Some(DISMISSED_SECONDS),
            FindingStatus::Resolved => Some(RESOLVED_SECONDS),
            FindingStatus::Suspected
            | FindingStatus::Open
            | FindingStatus::Remediating
            | FindingStatus::Suppressed
            | FindingStatus::Contested => None,
        }
    }
}

impl RuntimeDriftFinding {
    /// Whether it is to be told when it is over: somebody was told of it.
    pub fn was_told(&self) -> bool {
        self.sequence > 0
    }
}

/// The fingerprint of a drift: of the condition, and not of the value.
pub fn fingerprint(environment: &EnvironmentId, resource: &str, path: &str, kind: DriftKind) -> String {
    let parts = [
        "drift-fingerprint",
        environment.as_str(),
        &resource.to_ascii_lowercase(),
        &path.to_ascii_lowercase(),
        kind.as_str(),
    ];
    derive(&parts).simple().to_string()[..16].to_owned()
}

/// What a partition remembers of each fingerprint: the finding that is not over, and when it was put
/// right automatically. Every decision on findings writes it, so that two never pass each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftIndex {
    pub environment_id: EnvironmentId,
    pub tracks: BTreeMap<String, Track>,
    pub made_at: Timestamp,
}

/// What is remembered of one fingerprint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Track {
    /// The finding that is not over.
    pub finding_id: Option<DriftFindingId>,
    /// Automatic remediations within the last day, oldest first.
    pub attempts: Vec<Timestamp>,
}

impl State for DriftIndex {
    const KIND: &'static str = "drift-index";

    fn made_at(&self) -> Timestamp {
        self.made_at
    }
}

impl DriftIndex {
    /// A partition has one.
    pub const ID: &'static str = "drift-index";

    pub fn new(environment_id: EnvironmentId, now: Timestamp) -> Self {
        Self { environment_id, tracks: BTreeMap::new(), made_at: now }
    }
}

/// Somebody's word that a drift is to be left alone for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Suppression {
    pub suppression_id: String,
    pub environment_id: EnvironmentId,
    #[serde(rename = "match")]
    pub matches: Match,
    pub reason: String,
    pub created_by: String,
    pub created_at: Timestamp,
    /// It always ends.
    pub expires_at: Timestamp,
}

/// Which drifts a suppression is about: all that is said must hold; `*` stands for any characters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    #[serde(default)]
    pub kind: Option<DriftKind>,
    /// Of the resource's id.
    #[serde(default)]
    pub resource: Option<String>,
    #[serde(default)]
    pub path: Option<String>,
}

impl State for Suppression {
    const KIND: &'static str = "drift-suppression";

    fn made_at(&self) -> Timestamp {
        self.created_at
    }

    fn ttl_seconds(&self) -> Option<u32> {
        let lasts = self.expires_at.duration_since(self.created_at).as_secs();
        Some(u32::try_from(lasts).unwrap_or(u32::MAX).saturating_add(EXPIRED_SECONDS))
    }
}
