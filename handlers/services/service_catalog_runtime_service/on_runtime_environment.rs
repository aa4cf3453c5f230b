//! What the catalogue keeps of environments: that they stand, and who is bound to them.
//!
//! Redelivery is safe: each event says what is, and of two about one binding the later one counts.

use super::state::{BoundTenant, CatalogueEntry};
use crate::{
    delivery::{Message, subscription::Subscriber},
    events::{Event, Topic},
    ids::EnvironmentId,
    ledger::{Commit, Ledger, Loaded},
    outcome::Fault,
    platform::Platform,
};

/// The id of the entry in its environment's partition.
const ENTRY: &str = "catalogue-entry";
/// Bindings that an entry keeps; more are not told apart from these.
pub(super) const TENANTS_MAX: usize = 500;

/// ServiceCatalogRuntimeService's part in what happens to environments.
pub struct OnRuntimeEnvironment;

#[async_trait::async_trait]
impl Subscriber for OnRuntimeEnvironment {
    const NAME: &'static str = "ServiceCatalogRuntimeServiceOnRuntimeEnvironment";
    const TOPIC: Topic = Topic::Environment;
    const SUBSCRIPTION: &'static str = "service-catalog-runtime-service";

    async fn react(platform: &Platform, message: &Message<Event>, commit: &mut Commit) -> Result<(), Fault> {
        let at = message.envelope.occurred_at;
        match &message.envelope.payload {
            Event::RuntimeEnvironmentProvisioned(event) => {
                let (entry, loaded) = entry(&platform.ledger, commit, &event.environment_id).await?;
                if entry.provisioned_at.is_some_and(|known| known > event.provisioned_at) {
                    return Ok(());
                }
                commit.put(
                    &loaded,
                    &CatalogueEntry {
                        name: Some(event.name.clone()),
                        stage: Some(event.stage.clone()),
                        region: Some(event.region.clone()),
                        isolation_model: Some(event.isolation_model.clone()),
                        compute_targets: event.compute_targets.clone(),
                        provisioned_at: Some(event.provisioned_at),
                        ..entry
                    },
                )
            }
            Event::RuntimeTenantBound(event) => {
                let (mut entry, loaded) = entry(&platform.ledger, commit, &event.environment_id).await?;
                let event_id = message.envelope.event_id.to_string();
                let known = entry.tenants.get(&event.tenant_binding_id);
                let is_old = known.is_some_and(|known| (known.at, &known.event_id) >= (at, &event_id));
                if is_old || (known.is_none() && entry.tenants.len() >= TENANTS_MAX) {
                    return Ok(());
                }
                let tenant = BoundTenant {
                    isolation_model: event.isolation_model.clone(),
                    quota: event.quota.clone(),
                    at,
                    event_id,
                };
                entry.tenants.insert(event.tenant_binding_id.clone(), tenant);
                commit.put(&loaded, &entry)
            }
            _ => Ok(()),
        }
    }
}

/// The entry as it is, or an empty one.
pub(super) async fn entry(
    ledger: &Ledger,
    commit: &Commit,
    environment: &EnvironmentId,
) -> Result<(CatalogueEntry, Loaded<CatalogueEntry>), Fault> {
    let (entry, loaded) = ledger.load::<CatalogueEntry>(&commit.partition, ENTRY).await?.take();
    let entry = entry.unwrap_or_else(|| CatalogueEntry {
        environment_id: environment.clone(),
        name: None,
        stage: None,
        region: None,
        isolation_model: None,
        compute_targets: Vec::new(),
        provisioned_at: None,
        tenants: Default::default(),
        registered_at: commit.now,
    });
    Ok((entry, loaded))
}
