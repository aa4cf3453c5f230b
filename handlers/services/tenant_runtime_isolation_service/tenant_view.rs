//! The view that a bound tenant has of its binding, written by a message of the owner's commit.
//!
//! A commit is of one partition, so the owner's cannot write at the bound tenant's. The message names
//! the binding and carries nothing of it: its function reads what the binding is by then, so messages
//! may come twice and in any order, and the view is never older than the last of them.

use serde::{Deserialize, Serialize};
use tracing::info;

use super::state::{RuntimeTenantBinding, VIEW_ID, View};
use crate::{
    delivery,
    ids::{self, EnvironmentId, TenantId},
    invocation::QueueMessage,
    ledger::{Commit, Ledger, OutboxMessage},
    outcome::Fault,
    platform::Platform,
    ports::{compute::ComputeTarget, store::Partition},
    services::runtime_environment_service::{
        self, RuntimeEnvironment,
        resources::{self, IsolationModel},
    },
};

/// The queue that asks for views.
pub const QUEUE: &str = "bind-tenant-view";
const FUNCTION: &str = "BindTenantView";
/// The tag that names whose a workload is.
const TENANT_TAG: &str = "cs-tenant-id";

/// The message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BindTenantView {
    owner_tenant_id: TenantId,
    environment_id: EnvironmentId,
    bound_tenant_id: TenantId,
}

/// Adds to the owner's commit that the bound tenant's view is to be written; `caused_by` is the eventId
/// of the command. An owner that is bound to its own environment needs no view of it.
pub(super) fn ask(commit: &mut Commit, binding: &RuntimeTenantBinding, caused_by: &str) -> Result<(), Fault> {
    if binding.bound_tenant_id == binding.owner_tenant_id {
        return Ok(());
    }
    let message = BindTenantView {
        owner_tenant_id: binding.owner_tenant_id.clone(),
        environment_id: binding.environment_id.clone(),
        bound_tenant_id: binding.bound_tenant_id.clone(),
    };
    let body = serde_json::to_vec(&message).map_err(|error| Fault::Unreadable {
        doing: "asking for a tenant's view".to_owned(),
        source: error.into(),
    })?;
    let name = [QUEUE, binding.owner_tenant_id.as_str(), binding.tenant_binding_id.as_str(), caused_by];
    commit.message(&OutboxMessage::json(QUEUE, ids::derive(&name).to_string(), body, commit.now))
}

/// Writes the view that a message asks for.
///
/// # Errors
/// Only when the message could neither be handled, nor copied, nor filed.
pub async fn write(platform: &Platform, delivered: &QueueMessage) -> Result<(), Fault> {
    let message: BindTenantView = match serde_json::from_slice(&delivered.body) {
        Ok(message) => message,
        Err(error) => {
            let detail = format!("the body asks for no view: {error}");
            return delivery::dead_letter(platform, FUNCTION, delivered, "Unreadable", &detail).await;
        }
    };
    delivery::internal(platform, FUNCTION, delivered, || renew(platform, &message)).await
}

async fn renew(platform: &Platform, message: &BindTenantView) -> Result<(), Fault> {
    let BindTenantView { owner_tenant_id: owner, environment_id: id, bound_tenant_id: bound } = message;
    let ledger = &platform.ledger;
    // The view is read before what it shows: whoever writes a newer one in between is not overwritten.
    let partition = Partition::environment(bound, id.as_str());
    let (existing, loaded) = ledger.load::<RuntimeTenantBinding>(&partition, VIEW_ID).await?.take();
    let binding = super::locate(ledger, owner, id, bound).await?.binding.filter(|binding| binding.bound);
    let binding = binding.ok_or_else(|| gone(message, "the binding"))?;
    let owners = Partition::environment(owner, id.as_str());
    let environment = runtime_environment_service::find(ledger, &owners, id).await?;
    let environment = environment.ok_or_else(|| gone(message, "the environment"))?.environment;
    if let Some(taken) = taken(ledger, existing.as_ref(), owner, bound, id).await? {
        return Err(Fault::Rejected {
            doing: format!("showing `{id}` to `{bound}`"),
            code: "Conflict".to_owned(),
            detail: taken,
        });
    }
    let deployments_accepted =
        existing.and_then(|existing| existing.view).map_or(0, |view| view.deployments_accepted);
    let targets = targets(platform, &environment, &binding);
    let view = View { targets, deployments_accepted };
    let mut commit = Commit::new(partition, platform.clock.now());
    commit.put(&loaded, &RuntimeTenantBinding { view: Some(view), pending: None, ..binding })?;
    ledger.commit(commit).await?;
    info!("`{bound}` sees `{id}` of `{owner}`");
    Ok(())
}

fn gone(message: &BindTenantView, what: &str) -> Fault {
    Fault::Rejected {
        doing: format!("showing `{}` to `{}`", message.environment_id, message.bound_tenant_id),
        code: "NotFound".to_owned(),
        detail: format!("{what} is gone"),
    }
}

/// Why the bound tenant has no room for a view of this environment: ids of environments are unique in
/// their tenant only.
pub(super) async fn taken(
    ledger: &Ledger,
    existing: Option<&RuntimeTenantBinding>,
    owner: &TenantId,
    bound: &TenantId,
    id: &EnvironmentId,
) -> Result<Option<String>, Fault> {
    if existing.is_some_and(|existing| existing.owner_tenant_id != *owner) {
        return Ok(Some(format!(
            "`{bound}` is bound to an environment `{id}` of somebody else already; provision one of another name and bind it to that."
        )));
    }
    let partition = Partition::environment(bound, id.as_str());
    let own = runtime_environment_service::find(ledger, &partition, id).await?;
    Ok(own.map(|_| format!("`{bound}` has an environment `{id}` of its own; provision one of another name and bind it to that.")))
}

/// The environment's targets, tagged as the bound tenant's; in a pool with its own identity and machines.
fn targets(
    platform: &Platform,
    environment: &RuntimeEnvironment,
    binding: &RuntimeTenantBinding,
) -> Vec<ComputeTarget> {
    let tagged = |mut target: ComputeTarget| {
        target.tags.insert(TENANT_TAG.to_owned(), binding.bound_tenant_id.to_string());
        target.tags.insert("cs-isolation".to_owned(), binding.isolation_model.as_str().to_owned());
        target
    };
    if binding.isolation_model != IsolationModel::Pool {
        return environment.targets.iter().cloned().map(tagged).collect();
    }
    let (spec, prefix) = (environment.spec(), binding.prefix());
    let own = |kind| resources::part_target(&spec, &prefix, kind, &platform.subscription_id);
    environment.compute_targets.iter().map(|kind| tagged(own(*kind))).collect()
}
