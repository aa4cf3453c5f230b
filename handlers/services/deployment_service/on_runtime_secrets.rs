//! `SecretRotated` leads to a refresh: the workload is rolled out once more, behind its gate, started
//! with the version that its binding moved to.
//!
//! A version that what serves was started with already, and one that the binding has left meanwhile,
//! ask for nothing. The rotation goes on by what the slot of the workload says, not by an answer.

use super::{
    refresh::{self, Wish},
    secrets,
    state::Origin,
};
use crate::{
    delivery::{Message, subscription::Subscriber},
    events::{Event, Topic},
    ledger::Commit,
    outcome::Fault,
    platform::Platform,
    services::secret_binding_service,
};

/// DeploymentService's part in what happens to secrets.
pub struct OnRuntimeSecrets;

#[async_trait::async_trait]
impl Subscriber for OnRuntimeSecrets {
    const NAME: &'static str = "DeploymentServiceOnRuntimeSecrets";
    const TOPIC: Topic = Topic::Secrets;
    const SUBSCRIPTION: &'static str = "deployment-service";

    async fn react(platform: &Platform, message: &Message<Event>, commit: &mut Commit) -> Result<(), Fault> {
        let Event::SecretRotated(rotated) = &message.envelope.payload else { return Ok(()) };
        let (ledger, version) = (&platform.ledger, &rotated.new_version);
        let binding =
            secret_binding_service::find(ledger, &commit.partition, &rotated.secret_binding_id).await?;
        let Some(binding) = binding.filter(|binding| binding.version.as_ref() == Some(version)) else {
            return Ok(());
        };
        let (module, secret) = (&binding.module_id, binding.secret());
        if secrets::serves_with(ledger, &commit.partition, module, &secret, version).await? {
            return Ok(());
        }
        let wish = Wish {
            origin: Origin::Secret,
            lineage: message.lineage(),
            caused_by: message.envelope.event_id.to_string(),
            wished_at: message.now,
        };
        refresh::refresh(ledger, commit, module, wish).await.map(drop)
    }
}
