//! `RuntimeDeploymentCompleted`: the inventory shows what serves by now. The event may be old: it is
//! the slot that tells, so that events may come twice and in any order.

use crate::{
    delivery::{Message, subscription::Subscriber},
    events::{Event, Topic},
    ledger::Commit,
    outcome::Fault,
    platform::Platform,
    services::{
        deployment_service,
        service_catalog_runtime_service::{self as catalogue, Observation},
    },
};

/// RuntimeInventoryWorker's part in what happens to deployments.
pub struct OnRuntimeDeployment;

#[async_trait::async_trait]
impl Subscriber for OnRuntimeDeployment {
    const NAME: &'static str = "RuntimeInventoryWorkerOnRuntimeDeployment";
    const TOPIC: Topic = Topic::Deployment;
    const SUBSCRIPTION: &'static str = "runtime-inventory-worker";

    async fn react(platform: &Platform, message: &Message<Event>, commit: &mut Commit) -> Result<(), Fault> {
        let Event::RuntimeDeploymentCompleted(_) = &message.envelope.payload else { return Ok(()) };
        let Some(module) = &message.envelope.module_id else { return Ok(()) };
        let ledger = &platform.ledger;
        let running = deployment_service::running_one(ledger, &commit.partition, module).await?;
        let Some(running) = running else { return Ok(()) };
        let told = message.envelope.event_id.as_str();
        let seen = Observation { at: commit.now, health: None, replicas: None, host: None };
        catalogue::observe(ledger, commit, &running, &seen, told, told).await.map(drop)
    }
}
