//! A workload's health changed: it may be that somebody changed the workload. It is looked at now;
//! being unhealthy is no drift by itself.

use crate::{
    delivery::{Message, subscription::Subscriber},
    events::{Event, Topic},
    ledger::Commit,
    outcome::Fault,
    platform::Platform,
    sweeps::{self, Kind},
};

/// DriftDetectionWorker's part in health.
pub struct OnRuntimeHealth;

#[async_trait::async_trait]
impl Subscriber for OnRuntimeHealth {
    const NAME: &'static str = "DriftDetectionWorkerOnRuntimeHealth";
    const TOPIC: Topic = Topic::Health;
    const SUBSCRIPTION: &'static str = "drift-detection-worker";

    async fn react(_: &Platform, message: &Message<Event>, commit: &mut Commit) -> Result<(), Fault> {
        let Event::HealthCheckCompleted(checked) = &message.envelope.payload else { return Ok(()) };
        let Some(module) = &message.envelope.module_id else { return Ok(()) };
        let tenant = &message.envelope.tenant_id;
        let why = message.envelope.event_id.as_str();
        sweeps::nudge(commit, Kind::Drift, tenant, &checked.environment_id, Some(module), why)
    }
}
