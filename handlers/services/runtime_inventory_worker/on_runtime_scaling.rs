//! `ScalingPolicyApplied`: the inventory shows how many replicas a workload has by policy, which is the
//! baseline that drift detection goes by. Of two events the later one counts, whatever comes first.

use crate::{
    delivery::{Message, subscription::Subscriber},
    events::{Event, Topic},
    ledger::Commit,
    outcome::Fault,
    platform::Platform,
    services::service_catalog_runtime_service::{self as catalogue, state::Scaled},
};

/// RuntimeInventoryWorker's part in what happens to scaling.
pub struct OnRuntimeScaling;

#[async_trait::async_trait]
impl Subscriber for OnRuntimeScaling {
    const NAME: &'static str = "RuntimeInventoryWorkerOnRuntimeScaling";
    const TOPIC: Topic = Topic::Scaling;
    const SUBSCRIPTION: &'static str = "runtime-inventory-worker";

    async fn react(platform: &Platform, message: &Message<Event>, commit: &mut Commit) -> Result<(), Fault> {
        let Event::ScalingPolicyApplied(event) = &message.envelope.payload else { return Ok(()) };
        let scaled = Scaled {
            scaling_policy_id: event.scaling_policy_id.clone(),
            replicas: event.to_replicas,
            at: message.envelope.occurred_at,
            event_id: message.envelope.event_id.to_string(),
        };
        catalogue::scaled(&platform.ledger, commit, &event.service_id, scaled).await.map(drop)
    }
}
