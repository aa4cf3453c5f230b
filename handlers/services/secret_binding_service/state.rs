//! SecretBinding, as it is stored.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    events::Event,
    ids::{self, EnvironmentId, ModuleId, OperationId, ServiceId},
    ledger::{Lineage, NewEvent, State},
    ports::{store::Partition, vault::SecretRef},
};

/// Days between two rotations where a binding names no interval.
pub const INTERVAL_DAYS: u32 = 90;

/// Where a binding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BindingStatus {
    /// It was asked for, and the secret was not seen yet.
    Pending,
    Active,
    /// It is being moved to another version of its secret.
    Rotating,
    /// It was asked for and could not be made; the reason says why.
    Failed,
}

/// Where new values of a secret come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The platform makes them.
    Generated,
    /// Whoever issues the secret puts them into the vault.
    External,
}

/// A workload that reads a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretBinding {
    pub secret_binding_id: String,
    pub environment_id: EnvironmentId,
    pub service_id: ServiceId,
    pub module_id: ModuleId,
    pub secret_name: String,
    /// e.g. `https://kv-1.vault.azure.net`
    pub vault_uri: String,
    pub source: Source,
    /// The version that workloads are started with: the vault's name of it.
    pub version: Option<String>,
    pub previous_version: Option<String>,
    /// The identity that reads the secret.
    pub managed_identity_id: String,
    pub rotation_interval_days: Option<u32>,
    pub expires_at: Option<Timestamp>,
    pub bound_at: Option<Timestamp>,
    pub last_rotated_at: Option<Timestamp>,
    pub next_rotation_due_at: Option<Timestamp>,
    pub status: BindingStatus,
    /// Why it stands where it stands, for a person.
    pub reason: Option<String>,
    pub operation_id: OperationId,
    /// Counts its events.
    pub sequence: u64,
    pub made_at: Timestamp,
}

impl State for SecretBinding {
    const KIND: &'static str = "secret-binding";

    fn made_at(&self) -> Timestamp {
        self.made_at
    }
}

impl SecretBinding {
    /// A binding is a workload, a vault and a secret; names in Key Vault are the same in any case.
    pub fn id(partition: &Partition, module: &ModuleId, secret: &SecretRef) -> String {
        let name = [
            "secret-binding",
            &partition.tenant_id,
            &partition.environment_id,
            module.as_str(),
            &secret.vault_uri,
            &secret.name.to_ascii_lowercase(),
        ];
        format!("sb-{}", &ids::derive(&name).simple().to_string()[..8])
    }

    pub fn secret(&self) -> SecretRef {
        SecretRef { vault_uri: self.vault_uri.clone(), name: self.secret_name.clone() }
    }

    /// The address of the bound version.
    pub fn url(&self) -> Option<String> {
        let version = self.version.as_ref()?;
        Some(format!("{}/secrets/{}/{version}", self.vault_uri.trim_end_matches('/'), self.secret_name))
    }

    /// When its secret should be rotated by: its interval after the last time.
    pub fn due_after(&self, rotated_at: Timestamp) -> Option<Timestamp> {
        let days = self.rotation_interval_days.unwrap_or(INTERVAL_DAYS);
        rotated_at.checked_add(SignedDuration::from_hours(24 * i64::from(days))).ok()
    }

    /// Whether the two read the same secret; names in Key Vault are the same in any case.
    pub fn shares(&self, secret: &SecretRef) -> bool {
        self.vault_uri == secret.vault_uri && self.secret_name.eq_ignore_ascii_case(&secret.name)
    }

    /// The next event of the binding.
    pub fn next_event(&mut self, id: ids::EventId, event: Event, caused_by: &str) -> NewEvent {
        self.sequence += 1;
        NewEvent {
            id,
            event,
            aggregate: self.secret_binding_id.clone(),
            sequence: self.sequence,
            caused_by: caused_by.to_owned(),
        }
    }

    /// The lineage of what it brings about: that of what caused it, for this workload.
    pub fn lineage(&self, of: &Lineage) -> Lineage {
        Lineage { module_id: Some(self.module_id.clone()), ..of.clone() }
    }
}

/// The variable that a workload reads a secret from, where nobody named another: `db-password` is
/// `DB_PASSWORD`.
pub fn variable(secret_name: &str) -> String {
    let name = secret_name.replace('-', "_").to_ascii_uppercase();
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}
