//! The ground that a tenant deploys on: an environment of its own, or one that it is bound to.

use super::state::{RuntimeTenantBinding, VIEW_ID, View};
use crate::{
    events::TenantQuota,
    ids::{EnvironmentId, TenantId},
    ledger::{Commit, Ledger, Loaded},
    outcome::Fault,
    ports::{compute::ComputeTarget, store::Partition},
    services::runtime_environment_service::{self, EnvironmentView, RuntimeEnvironment},
};

/// What a decision on a deployment rests on.
#[derive(Clone, Debug)]
pub enum Ground {
    /// The tenant's own environment, and what it allows itself there.
    Own { environment: EnvironmentView, binding: Option<RuntimeTenantBinding> },
    /// Another tenant's environment.
    Bound {
        environment: EnvironmentView,
        binding: RuntimeTenantBinding,
        view: View,
        loaded: Loaded<RuntimeTenantBinding>,
    },
}

impl Ground {
    /// The environment as the tenant may use it; one that it neither owns nor is bound to is not found.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn find(ledger: &Ledger, tenant: &TenantId, id: &EnvironmentId) -> Result<Option<Self>, Fault> {
        let partition = Partition::environment(tenant, id.as_str());
        if let Some(environment) = runtime_environment_service::find(ledger, &partition, id).await? {
            let binding = super::locate(ledger, tenant, id, tenant).await?.binding;
            return Ok(Some(Self::Own { environment, binding }));
        }
        let (binding, loaded) = ledger.load::<RuntimeTenantBinding>(&partition, VIEW_ID).await?.take();
        let Some(mut binding) = binding else { return Ok(None) };
        let Some(view) = binding.view.take() else { return Ok(None) };
        let owners = Partition::environment(&binding.owner_tenant_id, id.as_str());
        let environment = runtime_environment_service::find(ledger, &owners, id).await?;
        Ok(environment.map(|environment| Self::Bound { environment, binding, view, loaded }))
    }

    /// The environment as its owner has it.
    pub fn environment(&self) -> &RuntimeEnvironment {
        match self {
            Self::Own { environment, .. } | Self::Bound { environment, .. } => &environment.environment,
        }
    }

    /// The tenant's binding; its own environment may be without one.
    pub fn binding(&self) -> Option<&RuntimeTenantBinding> {
        match self {
            Self::Own { binding, .. } => binding.as_ref(),
            Self::Bound { binding, .. } => Some(binding),
        }
    }

    /// How much the tenant may use; none where nothing limits it.
    pub fn quota(&self) -> Option<&TenantQuota> {
        self.binding().and_then(|binding| binding.quota.as_ref())
    }

    /// Where the tenant's workloads of a target run.
    pub fn target(&self, name: &str) -> Option<&ComputeTarget> {
        self.targets().iter().find(|target| target.target == name)
    }

    /// Where the tenant's workloads run, one for each target.
    pub fn targets(&self) -> &[ComputeTarget] {
        match self {
            Self::Own { environment, .. } => &environment.environment.targets,
            Self::Bound { view, .. } => &view.targets,
        }
    }

    /// What the names of the tenant's workloads begin with, where the environment is another's.
    pub fn prefix(&self) -> Option<String> {
        match self {
            Self::Own { .. } => None,
            Self::Bound { binding, .. } => Some(binding.prefix()),
        }
    }

    /// Makes a decision in the tenant's partition rest on the ground being as it was read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn guard(&self, commit: &mut Commit) -> Result<(), Fault> {
        match self {
            Self::Own { environment, .. } => environment.guard(commit),
            Self::Bound { binding, view, loaded, .. } => {
                let view = View { deployments_accepted: view.deployments_accepted + 1, ..view.clone() };
                commit.put(loaded, &RuntimeTenantBinding { view: Some(view), ..binding.clone() })
            }
        }
    }
}
