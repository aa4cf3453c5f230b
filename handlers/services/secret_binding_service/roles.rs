//! Whether the identity of an environment's workloads has the role that reads its vault, as Azure says.

use crate::{
    ids::EnvironmentId,
    outcome::Fault,
    platform::Platform,
    ports::{
        infrastructure::{Change, Resource},
        store::Partition,
    },
    services::{
        runtime_environment_service::resources::{self, IsolationModel},
        tenant_runtime_isolation_service::Ground,
    },
};

/// The name of the role assignment in the list of an environment's resources.
const ROLE: &str = "vault-secrets-user";

/// Looks at the role assignment, and that it is for the identity that there is now.
///
/// # Errors
/// What the store or Azure withheld.
pub(super) async fn may_read(
    platform: &Platform,
    partition: &Partition,
    environment: &EnvironmentId,
) -> Result<bool, Fault> {
    let Ok(tenant) = partition.tenant_id.parse() else { return Ok(false) };
    let Some(ground) = Ground::find(&platform.ledger, &tenant, environment).await? else { return Ok(false) };
    let spec = ground.environment().spec();
    let rendered = resources::resources(&spec, &platform.subscription_id, &platform.directory_id);
    // A tenant of a pool has a vault and an identity of its own, and with them an assignment.
    let pooled = ground.binding().filter(|binding| binding.isolation_model == IsolationModel::Pool);
    let own = pooled.map(|binding| format!("{}-{ROLE}", binding.prefix()));
    let own = own.filter(|key| ground.prefix().is_some() && rendered.iter().any(|it| it.key == *key));
    let role = own.as_deref().unwrap_or(ROLE);
    let plan = platform.infrastructure.plan(&with_what_it_needs(&rendered, role)).await?;
    Ok(plan.iter().any(|planned| planned.key == role && planned.change == Change::NoChange))
}

/// A resource of a list and all that it depends on.
fn with_what_it_needs(list: &[Resource], key: &str) -> Vec<Resource> {
    let mut wanted = vec![key.to_owned()];
    let mut seen = 0;
    // Each turn looks at one more name, and a name is added once.
    while let Some(next) = wanted.get(seen).cloned() {
        seen += 1;
        let needs = list.iter().find(|resource| resource.key == next).map(|it| it.depends_on.clone());
        for need in needs.unwrap_or_default() {
            if !wanted.contains(&need) {
                wanted.push(need);
            }
        }
    }
    list.iter().filter(|resource| wanted.contains(&resource.key)).cloned().collect()
}
