//! `ConfigurationSynced` leads to a refresh: the workload is rolled out once more, behind its gate,
//! started with the version that is in place for it.
//!
//! A version that what serves was started with already, and one that a newer one has overtaken at the
//! workload, ask for nothing.

use super::{
    refresh::{self, Wish},
    state::Origin,
    workloads,
};
use crate::{
    delivery::{Message, subscription::Subscriber},
    events::{Event, Topic},
    ledger::Commit,
    outcome::Fault,
    platform::Platform,
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
        let place = (&message.envelope.tenant_id, &synced.environment_id);
        let likely = message.envelope.module_id.as_ref();
        let module =
            workloads::module_of(ledger, &commit.partition, place, &synced.service_id, likely).await?;
        let Some(module) = module else { return Ok(()) };
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
