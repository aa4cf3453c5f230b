//! RuntimeService, its history, and the catalogue's record of an environment, as they are stored.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    events::{InventoryChange, RuntimeStatus, TenantQuota},
    ids::{DeploymentId, EnvironmentId, ModuleId, ServiceId, TenantId},
    ledger::{Lineage, State},
};

/// How long a retired service is kept.
const RETIRED_SECONDS: u32 = 90 * 24 * 60 * 60;
/// How long a past state can be asked for.
pub const HISTORY_SECONDS: u32 = 30 * 24 * 60 * 60;
/// Past states that are kept of one service; a newer one takes the place of the oldest.
pub const HISTORY_MAX: u64 = 500;

/// A generated component that runs in an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeService {
    pub service_id: ServiceId,
    pub tenant_id: TenantId,
    pub environment_id: EnvironmentId,
    pub module_id: ModuleId,
    /// e.g. `microservice`, `gateway`, `worker`.
    pub component_type: String,
    pub image: String,
    /// The image's tag or digest.
    pub version: Option<String>,
    /// The deployment that put the version there.
    pub deployment_id: DeploymentId,
    /// `container-apps`, `app-service` or `aks`.
    pub compute_target: String,
    pub replicas: u32,
    pub instances: Vec<ServiceInstance>,
    pub endpoint_url: Option<String>,
    pub status: RuntimeStatus,
    pub last_observed_at: Timestamp,
    /// What the latest scaling made of it.
    pub scaled: Option<Scaled>,
    pub registered_at: Timestamp,
    pub retired_at: Option<Timestamp>,
    /// Counts the events of this service.
    pub sequence: u64,
    /// The workflow of its deployment, whose trace and correlation its events carry.
    pub lineage: Lineage,
    /// The eventId of the completion of its deployment.
    pub completed_event_id: String,
}

/// The replicas of one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceInstance {
    pub revision: String,
    pub replicas: u32,
    pub healthy: u32,
}

/// A number of replicas that a scaling policy, or the target's own scaler under it, set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scaled {
    pub scaling_policy_id: String,
    pub replicas: u32,
    pub at: Timestamp,
    /// The event that told of it; the later of two in one second is the greater.
    pub event_id: String,
}

impl State for RuntimeService {
    const KIND: &'static str = "service";

    fn made_at(&self) -> Timestamp {
        self.registered_at
    }

    fn ttl_seconds(&self) -> Option<u32> {
        self.retired_at.map(|_| RETIRED_SECONDS)
    }
}

/// A service as it was from a moment on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastService {
    pub service_id: ServiceId,
    pub sequence: u64,
    pub at: Timestamp,
    pub change: InventoryChange,
    pub status: RuntimeStatus,
    pub image: String,
    pub version: Option<String>,
    pub deployment_id: DeploymentId,
    pub replicas: u32,
}

impl State for PastService {
    const KIND: &'static str = "service-history";

    fn made_at(&self) -> Timestamp {
        self.at
    }

    fn ttl_seconds(&self) -> Option<u32> {
        Some(HISTORY_SECONDS)
    }
}

impl PastService {
    /// A ring: the number comes round, so that no service fills its partition.
    pub fn id(service: &ServiceId, sequence: u64) -> String {
        format!("past-{service}-{:03}", sequence % HISTORY_MAX)
    }
}

/// What the catalogue knows of an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogueEntry {
    pub environment_id: EnvironmentId,
    pub name: Option<String>,
    pub stage: Option<String>,
    pub region: Option<String>,
    pub isolation_model: Option<String>,
    pub compute_targets: Vec<String>,
    pub provisioned_at: Option<Timestamp>,
    /// By the binding's id.
    pub tenants: BTreeMap<String, BoundTenant>,
    pub registered_at: Timestamp,
}

/// A tenant's place in an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BoundTenant {
    pub isolation_model: String,
    pub quota: Option<TenantQuota>,
    pub at: Timestamp,
    /// The event that told of it; empty where a sweep did.
    pub event_id: String,
}

impl State for CatalogueEntry {
    const KIND: &'static str = "catalogue-entry";

    fn made_at(&self) -> Timestamp {
        self.registered_at
    }
}
