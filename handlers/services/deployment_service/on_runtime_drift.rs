//! `RuntimeDriftDetected` leads to `RemediateDrift`, where the platform may act by itself: the order
//! goes to the command's queue like anybody's.
//!
//! While a hold is in force, and until the pause after an earlier attempt is over, nothing is ordered
//! here; the sweep orders it when its time has come.

use crate::{
    delivery::{Message, subscription::Subscriber},
    events::{Event, Topic},
    holds,
    ids::DriftFindingId,
    ledger::Commit,
    outcome::Fault,
    platform::Platform,
    services::runtime_drift_detection_service::{self, FindingStatus, remediation},
};

/// DeploymentService's part in drift.
pub struct OnRuntimeDrift;

#[async_trait::async_trait]
impl Subscriber for OnRuntimeDrift {
    const NAME: &'static str = "DeploymentServiceOnRuntimeDrift";
    const TOPIC: Topic = Topic::Drift;
    const SUBSCRIPTION: &'static str = "deployment-service";

    async fn react(platform: &Platform, message: &Message<Event>, commit: &mut Commit) -> Result<(), Fault> {
        let Event::RuntimeDriftDetected(detected) = &message.envelope.payload else { return Ok(()) };
        if !detected.auto_remediable {
            return Ok(());
        }
        let Ok(id) = DriftFindingId::of_ours(&detected.finding_id) else { return Ok(()) };
        let (ledger, partition) = (&platform.ledger, commit.partition.clone());
        let Some(finding) = runtime_drift_detection_service::find(ledger, &partition, &id).await? else {
            return Ok(());
        };
        let may_begin = finding.remediation.not_before.is_none_or(|at| at <= commit.now);
        if finding.status != FindingStatus::Open || !finding.auto_remediable || !may_begin {
            return Ok(());
        }
        let module = finding.module_id.as_ref();
        if holds::held(ledger, &partition, module, commit.now).await?.is_some() {
            return Ok(());
        }
        let event_id = message.envelope.event_id.as_str();
        remediation::order(commit, &finding, event_id, event_id)
    }
}
