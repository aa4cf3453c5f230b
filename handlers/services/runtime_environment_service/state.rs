//! RuntimeEnvironment and its plans, as they are stored.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::resources::{EnvironmentSpec, IsolationModel, Stage, TargetKind, TenantPart};
use crate::{
    ids::{EnvironmentId, EventId, OperationId, PlanId, ProjectId, TenantId},
    ledger::{Lineage, State},
    ports::{
        compute::{ComputeTarget, WorkloadRef},
        infrastructure::{Change, PlannedChange, Progress, Removal, Resource},
    },
};

/// How long a plan is kept after its last use.
const PLAN_SECONDS: u32 = 90 * 24 * 60 * 60;
/// How long the record of a decommission is kept after its last use.
const DECOMMISSION_SECONDS: u32 = 365 * 24 * 60 * 60;

/// Where an environment stands. Only `Provisioned` takes deployments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProvisioningStatus {
    Requested,
    Provisioning,
    Provisioned,
    Failed,
    Decommissioning,
    Decommissioned,
}

/// An isolated slice of Azure that hosts workloads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeEnvironment {
    pub environment_id: EnvironmentId,
    pub tenant_id: TenantId,
    pub project_id: ProjectId,
    pub name: String,
    pub stage: Stage,
    pub region: String,
    pub status: ProvisioningStatus,
    pub isolation_model: IsolationModel,
    pub compute_targets: Vec<TargetKind>,
    /// What provisioning left behind, one per compute target.
    pub targets: Vec<ComputeTarget>,
    pub plan_id: Option<PlanId>,
    /// The operation that provisions it, while one does.
    pub operation_id: Option<OperationId>,
    /// Counts the events of this environment.
    pub sequence: u64,
    /// Counts accepted deployments: writing it is what guards the environment against them.
    pub deployments_accepted: u64,
    pub created_at: Timestamp,
    pub provisioned_at: Option<Timestamp>,
    /// What told that it stands; what is found out about it later comes from there.
    #[serde(default)]
    pub provisioned_by: Option<ProvisionedBy>,
    pub decommissioned_at: Option<Timestamp>,
    /// The eventId of its RuntimeEnvironmentProvisioned; none where it was provisioned before that was
    /// kept.
    #[serde(default)]
    pub provisioned_event_id: Option<String>,
    /// Counts the orders to take it down.
    #[serde(default)]
    pub decommission_orders: u64,
    /// What decommissioning could not or must not take away, as sentences.
    #[serde(default)]
    pub left_behind: Vec<String>,
    /// Why provisioning failed, where it did.
    pub failure: Option<String>,
    /// The tenants that have a part of it for themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<TenantPart>,
}

/// The message that an environment comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProvisionedBy {
    pub lineage: Lineage,
    /// The eventId of the event that told that it stands.
    pub event_id: EventId,
}

impl State for RuntimeEnvironment {
    const KIND: &'static str = "environment";

    fn made_at(&self) -> Timestamp {
        self.created_at
    }

    /// Sweeps go through what is provisioned, always.
    fn due(&self) -> Option<Timestamp> {
        (self.status == ProvisioningStatus::Provisioned).then_some(self.created_at)
    }
}

impl RuntimeEnvironment {
    /// What its resources are rendered from.
    pub fn spec(&self) -> EnvironmentSpec {
        EnvironmentSpec {
            tenant: self.tenant_id.clone(),
            project: self.project_id.clone(),
            environment_id: self.environment_id.clone(),
            name: self.name.clone(),
            stage: self.stage,
            region: self.region.clone(),
            isolation_model: self.isolation_model,
            compute_targets: self.compute_targets.clone(),
            parts: self.parts.clone(),
        }
    }
}

/// How far taking an environment down has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decommission {
    pub environment_id: EnvironmentId,
    pub operation_id: OperationId,
    /// Who ordered it.
    pub actor: String,
    pub reason: String,
    /// Whether workloads that serve go too.
    pub force: bool,
    pub ordered_at: Timestamp,
    /// The apps of workloads, once they are known.
    pub apps: Vec<AppRemoval>,
    /// Where telling bound tenants goes on.
    pub told_after: Option<String>,
    pub removal: Removal,
}

impl State for Decommission {
    const KIND: &'static str = "decommission";

    fn made_at(&self) -> Timestamp {
        self.ordered_at
    }

    fn ttl_seconds(&self) -> Option<u32> {
        Some(DECOMMISSION_SECONDS)
    }
}

impl Decommission {
    /// An environment has one record; a newer order's takes its place.
    pub fn id(environment: &EnvironmentId) -> String {
        format!("decommission-{environment}")
    }
}

/// How far deleting one app has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppRemoval {
    pub workload: WorkloadRef,
    /// A call to Azure that is not finished.
    pub pending: Option<Value>,
    pub gone: bool,
    /// Why it could not be deleted.
    pub kept: Option<String>,
}

impl AppRemoval {
    pub fn new(workload: WorkloadRef) -> Self {
        Self { workload, pending: None, gone: false, kept: None }
    }
}

/// What provisioning would change, and how far applying it has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub plan_id: PlanId,
    pub operation_id: OperationId,
    pub environment_id: EnvironmentId,
    /// Raised each time the world moved and the plan was made anew.
    pub generation: u32,
    /// Of what is desired and what was seen; applying names it.
    pub hash: String,
    pub changes: Vec<PlannedChange>,
    pub made_at: Timestamp,
    /// Applying must begin before this.
    pub expires_at: Timestamp,
    pub applied_at: Option<Timestamp>,
    pub progress: Progress,
}

impl State for Plan {
    const KIND: &'static str = "plan";

    fn made_at(&self) -> Timestamp {
        self.made_at
    }

    fn ttl_seconds(&self) -> Option<u32> {
        Some(PLAN_SECONDS)
    }
}

impl Plan {
    /// The hash of a plan: whoever applies must be about to do exactly this.
    pub fn hash(desired: &[Resource], changes: &[PlannedChange]) -> String {
        let text = serde_json::to_vec(&(desired, changes)).expect("resources and changes have text keys");
        format!("sha256:{}", hex(&Sha256::digest(text)))
    }

    /// How many resources would be created, updated and left, in this order.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count =
            |is: fn(&Change) -> bool| self.changes.iter().filter(|planned| is(&planned.change)).count();
        (
            count(|change| matches!(change, Change::Create)),
            count(|change| matches!(change, Change::Update { .. })),
            count(|change| matches!(change, Change::NoChange)),
        )
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
        text
    })
}
