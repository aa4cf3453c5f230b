//! Which versions of secrets workloads are started with: what a rotation asks before it takes the next
//! step, and before an old version is disabled.
//!
//! A version is in use while what serves, what is being deployed, or what a rollback under way goes
//! back to was started with it. A deployment that serves no more has no claim: going back to it starts
//! it with the versions that are bound by then ([`renewed`]).

use super::{
    deploy::missing,
    state::{Origin, RuntimeDeployment, Slot},
    workloads::{Course, RECENT_MAX, did_not_pass, load},
};
use crate::{
    ids::ModuleId,
    ledger::Ledger,
    outcome::Fault,
    ports::{
        compute::SecretEntry,
        store::{Filter, Page, Partition},
        vault::SecretRef,
    },
    services::secret_binding_service,
};
use jiff::Timestamp;

/// The version of a secret that an entry refers to; none where it is another secret's.
fn version_in<'a>(entry: &'a SecretEntry, secret: &SecretRef) -> Option<&'a str> {
    let (place, version) = entry.key_vault_url.rsplit_once('/')?;
    let own = format!("{}/secrets/{}", secret.vault_uri.trim_end_matches('/'), secret.name);
    place.eq_ignore_ascii_case(&own).then_some(version)
}

fn versions_of<'a>(
    deployment: &'a RuntimeDeployment,
    secret: &'a SecretRef,
) -> impl Iterator<Item = &'a str> + 'a {
    deployment.secrets.iter().filter_map(|entry| version_in(entry, secret))
}

/// Whether what serves was started with a version of a secret.
///
/// # Errors
/// When the store is away.
pub async fn serves_with(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
    secret: &SecretRef,
    version: &str,
) -> Result<bool, Fault> {
    let slot = load::<Slot>(ledger, partition, &Slot::id(module)).await?;
    let Some(serving) = slot.and_then(|slot| slot.serving) else { return Ok(false) };
    let serves = load::<RuntimeDeployment>(ledger, partition, serving.deployment_id.as_str()).await?;
    Ok(serves.is_some_and(|serves| versions_of(&serves, secret).any(|carried| carried == version)))
}

/// What came of a version of a secret at a workload that was to be refreshed with it from `since` on.
///
/// # Errors
/// When the store is away.
pub async fn secret_course(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
    (secret, version): (&SecretRef, &str),
    since: Timestamp,
) -> Result<Course, Fault> {
    let Some(slot) = load::<Slot>(ledger, partition, &Slot::id(module)).await? else {
        return Ok(Course::Gone);
    };
    if let Some(serving) = &slot.serving {
        let id = serving.deployment_id.as_str();
        let serves = load::<RuntimeDeployment>(ledger, partition, id).await?.ok_or_else(|| missing(id))?;
        let mut carried = versions_of(&serves, secret).peekable();
        // A configuration may have given the variable another source: then it does not read the secret.
        let reads_none = carried.peek().is_none() && serves.configured_at > Some(since);
        if reads_none || carried.any(|carried| carried == version) {
            return Ok(Course::Carried(serves.deployment_id.clone()));
        }
    }
    if slot.in_flight.is_some() {
        return Ok(Course::UnderWay);
    }
    if slot.serving.is_none() {
        return Ok(Course::Gone);
    }
    let equal = vec![("moduleId".to_owned(), module.to_string())];
    let filter = Filter { equal, newest_first: true, ..Filter::default() };
    let recent = ledger.query::<RuntimeDeployment>(partition, &filter, &Page::first(RECENT_MAX)).await?;
    // Only a refresh for the secret's sake speaks of the secret: a Deploy may fail for its image.
    let failed = recent.items.into_iter().map(|(_, deployment)| deployment).find(|deployment| {
        let was_started_with =
            deployment.configured_at.is_none() || versions_of(deployment, secret).any(|it| it == version);
        deployment.origin == Origin::Secret
            && deployment.requested_at >= since
            && was_started_with
            && did_not_pass(deployment)
    });
    Ok(match failed {
        Some(RuntimeDeployment { deployment_id, reason, .. }) => Course::Failed {
            deployment_id,
            reason: reason.unwrap_or_else(|| "no reason was recorded".to_owned()),
        },
        None => Course::Nothing,
    })
}

/// A version of a secret that must stay enabled, and who needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    pub version: String,
    /// e.g. "`dep-1` of `module-reservations-api` serves with it".
    pub why: String,
}

/// The versions of a secret that workloads need.
///
/// # Errors
/// When the store is away.
pub async fn secret_versions_in_use(
    ledger: &Ledger,
    partition: &Partition,
    modules: &[ModuleId],
    secret: &SecretRef,
) -> Result<Vec<InUse>, Fault> {
    let mut found = Vec::new();
    for module in modules {
        let Some(slot) = load::<Slot>(ledger, partition, &Slot::id(module)).await? else { continue };
        let mut needed = Vec::new();
        needed.extend(slot.serving.map(|serving| (serving.deployment_id, "serves")));
        if let Some(id) = slot.in_flight {
            let in_flight = load::<RuntimeDeployment>(ledger, partition, id.as_str()).await?;
            let back = in_flight.into_iter().flat_map(|it| [it.previous, it.restore]).flatten();
            needed.extend(back.map(|serving| (serving.deployment_id, "may be gone back to")));
            needed.push((id, "is being deployed"));
        }
        for (id, how) in needed {
            let Some(deployment) = load::<RuntimeDeployment>(ledger, partition, id.as_str()).await? else {
                continue;
            };
            found.extend(versions_of(&deployment, secret).map(|version| InUse {
                version: version.to_owned(),
                why: format!("`{id}` of `{module}` {how} with it"),
            }));
        }
    }
    Ok(found)
}

/// The secrets of a deployment that is gone back to, in the versions that are bound today; none where
/// they are the ones that it was started with.
///
/// # Errors
/// When the store is away.
pub(super) async fn renewed(
    ledger: &Ledger,
    partition: &Partition,
    deployment: &RuntimeDeployment,
) -> Result<Option<Vec<SecretEntry>>, Fault> {
    if deployment.secrets.is_empty() {
        return Ok(None);
    }
    let bindings = secret_binding_service::bindings(ledger, partition, &deployment.module_id).await?;
    let mut secrets = deployment.secrets.clone();
    for entry in &mut secrets {
        let binding = bindings.iter().find(|binding| version_in(entry, &binding.secret()).is_some());
        if let Some(url) = binding.and_then(|binding| binding.url()) {
            entry.key_vault_url = url;
        }
    }
    Ok((secrets != deployment.secrets).then_some(secrets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_belongs_to_the_secret_that_is_named() {
        let entry = SecretEntry {
            variable: "DB_PASSWORD".into(),
            key_vault_url: "https://kv-1.vault.azure.net/secrets/db-password/v1".into(),
            identity_id: String::new(),
        };
        let secret =
            |name: &str| SecretRef { vault_uri: "https://kv-1.vault.azure.net".into(), name: name.into() };
        assert_eq!(version_in(&entry, &secret("DB-password")), Some("v1"));
        assert_eq!(version_in(&entry, &secret("db-passwor")), None);
        assert_eq!(version_in(&entry, &secret("db-password-2")), None);
    }
}
