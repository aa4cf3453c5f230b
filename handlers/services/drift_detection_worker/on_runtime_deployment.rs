//! A deployment came to its end: its workload is looked at when the settle window is over. That is also
//! how a corrective deployment is believed.

use crate::{
    delivery::{Message, subscription::Subscriber},
    events::{Event, Topic},
    ledger::Commit,
    outcome::Fault,
    platform::Platform,
    sweeps::{self, Kind},
};

/// DriftDetectionWorker's part in deployments.
pub struct OnRuntimeDeployment;

#[async_trait::async_trait]
impl Subscriber for OnRuntimeDeployment {
    const NAME: &'static str = "DriftDetectionWorkerOnRuntimeDeployment";
    const TOPIC: Topic = Topic::Deployment;
    const SUBSCRIPTION: &'static str = "drift-detection-worker";

    async fn react(platform: &Platform, message: &Message<Event>, commit: &mut Commit) -> Result<(), Fault> {
        let Event::RuntimeDeploymentCompleted(completed) = &message.envelope.payload else { return Ok(()) };
        let Some(module) = &message.envelope.module_id else { return Ok(()) };
        let (tenant, at) = (&message.envelope.tenant_id, commit.now + platform.drift_settle);
        let why = message.envelope.event_id.as_str();
        let environment = &completed.environment_id;
        sweeps::nudge_at(commit, Kind::Drift, tenant, environment, Some(module), why, at)
    }
}
