//! What an event failed to tell the catalogue of an environment, a sweep tells: that it stands, and who is
//! bound to it.
//!
//! Redelivery is safe: what is known already is not written again, and an event that comes later than the
//! sweep says the same.

use jiff::Timestamp;

use super::{
    on_runtime_environment::{TENANTS_MAX, entry},
    state::{BoundTenant, CatalogueEntry},
};
use crate::{
    ids::EnvironmentId,
    ledger::Commit,
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
    services::{
        runtime_environment_service::{self, RuntimeEnvironment},
        tenant_runtime_isolation_service::{self, RuntimeTenantBinding},
    },
};

/// Brings the catalogue's entry of an environment up to what the store says; whether there was anything to
/// bring. In a bound tenant's partition there is no entry.
///
/// # Errors
/// When the store is away, or somebody else wrote the entry first.
pub async fn make_up(
    platform: &Platform,
    partition: &Partition,
    environment: &EnvironmentId,
) -> Result<bool, Fault> {
    let ledger = &platform.ledger;
    let Some(view) = runtime_environment_service::find(ledger, partition, environment).await? else {
        return Ok(false);
    };
    let bindings = tenant_runtime_isolation_service::bindings(ledger, partition).await?;
    let mut commit = Commit::new(partition.clone(), platform.clock.now());
    let (known, loaded) = entry(ledger, &commit, environment).await?;
    let wanted = made_up(known.clone(), &view.environment, &bindings);
    if wanted == known {
        return Ok(false);
    }
    commit.put(&loaded, &wanted)?;
    ledger.commit(commit).await?;
    Ok(true)
}

/// The entry with what the environment and its bindings say and the entry does not.
fn made_up(
    mut entry: CatalogueEntry,
    environment: &RuntimeEnvironment,
    bindings: &[RuntimeTenantBinding],
) -> CatalogueEntry {
    if let Some(at) = environment.provisioned_at.map(as_told)
        && entry.provisioned_at.is_none_or(|known| known < at)
    {
        entry.name = Some(environment.name.clone());
        entry.stage = Some(environment.stage.as_str().to_owned());
        entry.region = Some(environment.region.clone());
        entry.isolation_model = Some(environment.isolation_model.as_str().to_owned());
        entry.compute_targets =
            environment.compute_targets.iter().map(|target| target.as_str().to_owned()).collect();
        entry.provisioned_at = Some(at);
    }
    for binding in bindings {
        let (id, at) = (binding.tenant_binding_id.to_string(), as_told(binding.updated_at));
        let known = entry.tenants.get(&id);
        let is_old = known.is_some_and(|known| known.at >= at);
        if is_old || (known.is_none() && entry.tenants.len() >= TENANTS_MAX) {
            continue;
        }
        let tenant = BoundTenant {
            isolation_model: binding.isolation_model.as_str().to_owned(),
            quota: binding.quota.clone(),
            at,
            event_id: String::new(),
        };
        entry.tenants.insert(id, tenant);
    }
    entry
}

/// A moment as events have it: in whole seconds.
fn as_told(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
