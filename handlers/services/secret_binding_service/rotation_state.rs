//! SecretRotation, as it is stored: the last rotation of a secret, with its receipts, and the versions
//! of the secret that are on their way out.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::state::Source;
use crate::{
    events::RotationReason,
    ids::{self, EnvironmentId, EventId, ModuleId, OperationId},
    ledger::State,
    ports::{store::Partition, vault::SecretRef},
};

/// Bindings that one rotation moves: with what tells of it, they fit into one commit.
pub const TARGETS_MAX: usize = 60;
/// Versions of a secret that wait to be disabled; the oldest are disabled by hand beyond that.
pub const RETIRING_MAX: usize = 50;
/// How long an old version stays enabled once its rotation has ended: for connections that are opened
/// once more with it, and for a second thought.
pub const OVERLAP: SignedDuration = SignedDuration::from_hours(1);
/// How long a compromised version stays enabled for the workloads that are still being refreshed.
pub const COMPROMISED_OVERLAP: SignedDuration = SignedDuration::from_mins(10);

/// Where a rotation stands.
///
/// `Making -> Verifying -> Moving <-> Refreshing -> Completed`; a compromised secret goes over
/// `Disabling`. From anywhere it may end in `Failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RotationStatus {
    /// The version to move to is being made, or looked for.
    Making,
    Verifying,
    /// The next binding is to be moved.
    Moving,
    /// Workloads that were moved are being refreshed.
    Refreshing,
    /// Versions that somebody else may know are being disabled.
    Disabling,
    Completed,
    Failed,
}

impl RotationStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Making => "Making",
            Self::Verifying => "Verifying",
            Self::Moving => "Moving",
            Self::Refreshing => "Refreshing",
            Self::Disabling => "Disabling",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
        }
    }
}

/// What became of a workload whose binding was moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Receipt {
    /// What serves was started with the new version.
    #[serde(rename_all = "camelCase")]
    Confirmed { deployment_id: String },
    /// Nothing of the workload serves: whatever is deployed next starts with the new version.
    NothingServes,
    /// It was refreshed and did not pass.
    Failed { reason: String },
}

/// One binding that a rotation moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    pub secret_binding_id: String,
    pub module_id: ModuleId,
    /// The version that it had.
    pub from: Option<String>,
    pub moved_at: Option<Timestamp>,
    /// The eventId of its SecretRotated.
    pub event_id: Option<EventId>,
    /// When the rotation itself asked for the refresh, since nobody else did.
    pub asked_at: Option<Timestamp>,
    pub receipt: Option<Receipt>,
}

/// A version that nothing new is started with, and that is disabled once nobody uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retiring {
    pub version: String,
    /// It is not disabled before that.
    pub not_before: Timestamp,
    /// Somebody else may know it: it is disabled whoever was started with it.
    pub compromised: bool,
    /// It is being disabled: nobody may begin to use it any more.
    pub disabling: bool,
}

/// The last rotation of one secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRotation {
    pub rotation_id: String,
    pub environment_id: EnvironmentId,
    pub secret_name: String,
    pub vault_uri: String,
    pub source: Source,
    /// The binding that the command named.
    pub secret_binding_id: String,
    pub operation_id: OperationId,
    pub reason: RotationReason,
    /// The version that the command named.
    pub asked_version: Option<String>,
    pub status: RotationStatus,
    /// The version that bindings are moved to, once it is known.
    pub version: Option<String>,
    /// When that version ends by itself.
    pub expires_at: Option<Timestamp>,
    /// The named binding first.
    pub targets: Vec<Target>,
    /// Versions that a compromised rotation has disabled.
    pub disabled: Vec<String>,
    /// Versions of this rotation and of those before it, oldest first.
    pub retiring: Vec<Retiring>,
    /// How it ended, for a person.
    pub detail: Option<String>,
    pub began_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

impl State for SecretRotation {
    const KIND: &'static str = "secret-rotation";

    fn made_at(&self) -> Timestamp {
        self.began_at
    }
}

impl SecretRotation {
    /// A secret has one document of its rotations: two of them are never under way at once.
    pub fn id(partition: &Partition, secret: &SecretRef) -> String {
        let name = [
            "secret-rotation",
            &partition.tenant_id,
            &partition.environment_id,
            &secret.vault_uri,
            &secret.name.to_ascii_lowercase(),
        ];
        format!("rot-{}", &ids::derive(&name).simple().to_string()[..8])
    }

    pub fn secret(&self) -> SecretRef {
        SecretRef { vault_uri: self.vault_uri.clone(), name: self.secret_name.clone() }
    }

    pub fn is_running(&self) -> bool {
        self.ended_at.is_none()
    }

    pub fn is_compromised(&self) -> bool {
        self.reason == RotationReason::Compromised
    }

    /// Whether the platform sent it by itself.
    pub fn is_automatic(&self) -> bool {
        matches!(self.reason, RotationReason::Scheduled | RotationReason::NearExpiry)
    }

    /// Whether a version is past the point where anybody may begin to use it.
    pub fn is_being_disabled(&self, version: &str) -> bool {
        self.retiring.iter().any(|entry| entry.version == version && entry.disabling)
    }

    /// Takes a version back from those that are on their way out: somebody begins to use it.
    pub fn keep(&mut self, version: &str) {
        self.retiring.retain(|entry| entry.version != version || entry.disabling);
    }

    /// Puts a version on its way out.
    pub fn retire(&mut self, version: &str, not_before: Timestamp) {
        let is_known = self.retiring.iter().any(|entry| entry.version == version)
            || self.disabled.iter().any(|disabled| disabled == version);
        if is_known {
            return;
        }
        let compromised = self.is_compromised();
        self.retiring.push(Retiring {
            version: version.to_owned(),
            not_before,
            compromised,
            disabling: false,
        });
        let excess = self.retiring.len().saturating_sub(RETIRING_MAX);
        self.retiring.drain(..excess);
    }

    /// The versions that its targets had, each once, without the one that they are moved to.
    pub fn old_versions(&self) -> Vec<String> {
        let mut versions: Vec<String> = Vec::new();
        for from in self.targets.iter().filter_map(|target| target.from.clone()) {
            if Some(&from) != self.version.as_ref() && !versions.contains(&from) {
                versions.push(from);
            }
        }
        versions
    }

    /// When the first binding was moved.
    pub fn moved_at(&self) -> Option<Timestamp> {
        self.targets.iter().filter_map(|target| target.moved_at).min()
    }
}
