//! RuntimeTenantBinding, as it is stored.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    events::TenantQuota,
    ids::{EnvironmentId, OperationId, TenantBindingId, TenantId},
    ledger::State,
    ports::compute::ComputeTarget,
    services::runtime_environment_service::resources::IsolationModel,
};

/// The id of the view in a bound tenant's partition: an environment is bound to it once.
pub(super) const VIEW_ID: &str = "tenant-binding-view";

/// A tenant's place in an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeTenantBinding {
    pub tenant_binding_id: TenantBindingId,
    pub environment_id: EnvironmentId,
    /// Whose environment it is.
    pub owner_tenant_id: TenantId,
    /// Who may use it.
    pub bound_tenant_id: TenantId,
    pub isolation_model: IsolationModel,
    /// None where nothing but the environment limits the tenant.
    pub quota: Option<TenantQuota>,
    /// Counts the changes, and with them the binding's events.
    pub sequence: u64,
    pub bound_at: Timestamp,
    pub updated_at: Timestamp,
    /// Only in the copy that the bound tenant has.
    pub view: Option<View>,
    /// False until the first binding is in place.
    #[serde(default = "yes")]
    pub bound: bool,
    /// What an operation is making of it.
    #[serde(default)]
    pub pending: Option<Pending>,
}

/// What a binding is to become.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    pub isolation_model: IsolationModel,
    pub quota: Option<TenantQuota>,
    pub operation_id: OperationId,
}

fn yes() -> bool {
    true
}

/// What the bound tenant needs to know of the environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Where its workloads run, tagged as its own.
    pub targets: Vec<ComputeTarget>,
    /// Counts accepted deployments: writing it is what keeps two of them from each taking the last of
    /// the quota.
    pub deployments_accepted: u64,
}

impl State for RuntimeTenantBinding {
    const KIND: &'static str = "tenant-binding";

    fn made_at(&self) -> Timestamp {
        self.bound_at
    }

    /// Sweeps go through what a bound tenant has, as they go through environments, for as long as the
    /// environment is there.
    fn due(&self) -> Option<Timestamp> {
        self.view.as_ref().filter(|view| !view.targets.is_empty()).map(|_| self.bound_at)
    }
}

impl RuntimeTenantBinding {
    /// What the names of the bound tenant's workloads begin with. Ids of bindings are unique in their
    /// environment, so no two tenants share it.
    pub fn prefix(&self) -> String {
        prefix(&self.tenant_binding_id)
    }
}

pub(super) fn prefix(id: &TenantBindingId) -> String {
    format!("t{}", id.as_str().trim_start_matches(TenantBindingId::PREFIX))
}
