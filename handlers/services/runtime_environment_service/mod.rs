//! RuntimeEnvironmentService: provisions, tracks and decommissions isolated slices of Azure, stage by region.
//!
//! It alone writes RuntimeEnvironment and the plans of what provisioning would change, and it alone
//! produces `RuntimeEnvironmentProvisioned` and `RuntimeEnvironmentDecommissioned`.

pub mod decommission;
pub mod decommissioning;
pub mod parts;
pub mod provision_environment;
pub mod provisioning;
pub mod resources;
pub mod state;

use jiff::SignedDuration;

use crate::{
    ids::{EnvironmentId, OperationId},
    ledger::{Commit, Ledger, Lineage, Loaded},
    operations::{self, Kind, NewOperation},
    outcome::Fault,
    platform::Platform,
    ports::{infrastructure::PlannedChange, store::Partition},
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

/// What applying an environment's resources would change now: nothing is written.
///
/// # Errors
/// What Azure withheld.
pub async fn planned(
    platform: &Platform,
    environment: &RuntimeEnvironment,
) -> Result<Vec<PlannedChange>, Fault> {
    let desired =
        resources::resources(&environment.spec(), &platform.subscription_id, &platform.directory_id);
    platform.infrastructure.plan(&desired).await
}

/// Adds to a decision that an environment's resources are put right for a finding. While that goes on,
/// nobody else applies them.
///
/// # Errors
/// When it cannot be written.
pub fn begin_remediation(
    commit: &mut Commit,
    view: &EnvironmentView,
    id: OperationId,
    finding: &str,
    (lineage, caused_by): (Lineage, &str),
    allowed: SignedDuration,
) -> Result<(), Fault> {
    operations::begin(
        commit,
        NewOperation {
            id: id.clone(),
            kind: Kind::Remediate,
            module_id: None,
            subject: finding.to_owned(),
            step: provisioning::PLANNING,
            lineage,
            caused_by: caused_by.to_owned(),
            allowed,
            starts: true,
        },
    )?;
    let environment = RuntimeEnvironment { operation_id: Some(id), ..view.environment.clone() };
    commit.put(&view.loaded, &environment)
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
