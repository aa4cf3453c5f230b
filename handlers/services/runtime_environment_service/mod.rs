//! RuntimeEnvironmentService: provisions, tracks and decommissions isolated slices of Azure, stage by region.
//!
//! It alone writes RuntimeEnvironment and the plans of what provisioning would change, and it alone
//! produces `RuntimeEnvironmentProvisioned` and `RuntimeEnvironmentDecommissioned`.

pub mod decommission;
pub mod decommissioning;
pub mod provision_environment;
pub mod provisioning;
pub mod resources;
pub mod state;

use crate::{
    ids::EnvironmentId,
    ledger::{Commit, Ledger, Loaded},
    outcome::Fault,
    ports::store::Partition,
};

pub use state::{ProvisioningStatus, RuntimeEnvironment};

/// What another service may know of an environment.
#[derive(Clone, Debug)]
pub struct EnvironmentView {
    pub environment: RuntimeEnvironment,
    loaded: Loaded<RuntimeEnvironment>,
}

impl EnvironmentView {
    /// Makes a decision rest on the environment being as it was read: a commit of both conflicts
    /// where the environment changed in between, e.g. began to be decommissioned.
    ///
    /// # Errors
    /// When the environment cannot be written.
    pub fn guard(&self, commit: &mut Commit) -> Result<(), Fault> {
        let mut environment = self.environment.clone();
        environment.deployments_accepted += 1;
        commit.put(&self.loaded, &environment)
    }
}

/// An environment of the partition's tenant; another tenant's is not found.
///
/// # Errors
/// When the store is away.
pub async fn find(
    ledger: &Ledger,
    partition: &Partition,
    id: &EnvironmentId,
) -> Result<Option<EnvironmentView>, Fault> {
    let (environment, loaded) = ledger.load::<RuntimeEnvironment>(partition, id.as_str()).await?.take();
    Ok(environment.map(|environment| EnvironmentView { environment, loaded }))
}
