//! `HealthCheckCompleted`, where it tells of a transition: the workload's policy is evaluated now.
//!
//! A workload without a policy asks for nothing. An event that comes twice, or never, changes nothing:
//! the sweep comes each minute.

use crate::{
    delivery::{Message, subscription::Subscriber},
    events::{Event, Topic},
    ledger::Commit,
    outcome::Fault,
    platform::Platform,
    services::{deployment_service, runtime_scaling_service},
    sweeps::{self, Kind},
};

/// ScalingPolicyWorker's part in what happens to health.
pub struct OnRuntimeHealth;

#[async_trait::async_trait]
impl Subscriber for OnRuntimeHealth {
    const NAME: &'static str = "ScalingPolicyWorkerOnRuntimeHealth";
    const TOPIC: Topic = Topic::Health;
    const SUBSCRIPTION: &'static str = "scaling-policy-worker";

    async fn react(platform: &Platform, message: &Message<Event>, commit: &mut Commit) -> Result<(), Fault> {
        let Event::HealthCheckCompleted(health) = &message.envelope.payload else { return Ok(()) };
        let envelope = &message.envelope;
        let ledger = &platform.ledger;
        let place = (&envelope.tenant_id, &health.environment_id);
        let module = deployment_service::module_of(
            ledger,
            &commit.partition,
            place,
            &health.service_id,
            envelope.module_id.as_ref(),
        )
        .await?;
        let Some(module) = module else { return Ok(()) };
        if runtime_scaling_service::find(ledger, &commit.partition, &module).await?.is_none() {
            return Ok(());
        }
        sweeps::nudge(commit, Kind::Scaling, place.0, place.1, Some(&module), envelope.event_id.as_str())
    }
}
