//! `ConfigurationSynced` leads to a refresh: the workload is rolled out once more, behind its gate,
//! started with the version that is in place for it.
//!
//! A version that what serves was started with already, and one that a newer one has overtaken at the
//! workload, ask for nothing.

use super::{
    refresh::{self, Wish},
    state::{Origin, Slot},
    workloads,
};
use crate::{
    delivery::{Message, subscription::Subscriber},
    events::{ConfigurationSynced, Event, Topic},
    ids::{ModuleId, ServiceId},
    ledger::{Commit, Ledger},
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
    services::runtime_configuration_service,
};

/// DeploymentService's part in what happens to configurations.
pub struct OnRuntimeConfiguration;

#[async_trait::async_trait]
impl Subscriber for OnRuntimeConfiguration {
    const NAME: &'static str = "DeploymentServiceOnRuntimeConfiguration";
    const TOPIC: Topic = Topic::Configuration;
    const SUBSCRIPTION: &'static str = "deployment-service";

    async fn react(platform: &Platform, message: &Message<Event>, commit: &mut Commit) -> Result<(), Fault> {
        let Event::ConfigurationSynced(synced) = &message.envelope.payload else { return Ok(()) };
        let ledger = &platform.ledger;
        let Some(module) = module_of(ledger, &commit.partition, message, synced).await? else {
            return Ok(());
        };
        let wanted = runtime_configuration_service::wanted(ledger, &commit.partition, &module, None).await?;
        if wanted.is_none_or(|wanted| wanted.entry.version != synced.version) {
            return Ok(());
        }
        let carried = workloads::serving_version(ledger, &commit.partition, &module).await?;
        if carried.is_some_and(|carried| carried >= synced.version) {
            return Ok(());
        }
        let wish = Wish {
            origin: Origin::Configuration,
            lineage: message.lineage(),
            caused_by: message.envelope.event_id.to_string(),
            wished_at: message.now,
        };
        refresh::refresh(ledger, commit, &module, wish).await.map(drop)
    }
}

/// The module that an event is about: the one that its envelope names, if that is the service's, else
/// the workload with the service's id.
async fn module_of(
    ledger: &Ledger,
    partition: &Partition,
    message: &Message<Event>,
    synced: &ConfigurationSynced,
) -> Result<Option<ModuleId>, Fault> {
    let tenant = &message.envelope.tenant_id;
    let is_it =
        |module: &ModuleId| ServiceId::derived(tenant, &synced.environment_id, module) == synced.service_id;
    if let Some(module) = message.envelope.module_id.as_ref().filter(|module| is_it(module)) {
        let there = ledger.load::<Slot>(partition, &Slot::id(module)).await?.state.is_some();
        return Ok(there.then(|| module.clone()));
    }
    let workloads = workloads::workloads(ledger, partition).await?;
    Ok(workloads.into_iter().map(|workload| workload.module_id).find(is_it))
}
