//! What one sweep reads of the world: everything that is not as desired, and how far it could see.
//!
//! What is being changed by us, what has just been, and what cannot be read is not seen: of that a
//! sweep says neither that it drifts nor that it does not.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, future::BoxFuture, stream};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::workload::{self, Desired, Sighting};
use crate::{
    envelope::whole_seconds,
    events::{DriftKind, DriftSeverity},
    ids::{self, ModuleId},
    outcome::Fault,
    platform::Platform,
    ports::{
        compute::{Observed, RevisionSpec},
        infrastructure::{Change, PlannedChange},
    },
    services::{
        deployment_service::{self, Running},
        runtime_configuration_service, runtime_environment_service, secret_binding_service,
        tenant_runtime_isolation_service::{self, Ground},
    },
    sweeps::{Scope, SweepReport},
};

/// How long a version of the configuration may be in place and not be started with.
const UNCONFIRMED: SignedDuration = SignedDuration::from_mins(30);
/// Workloads that are looked at at once.
const AT_ONCE: usize = 8;
/// Of this many windows, a workload is read in full in one, whatever its listing says.
const FULL_EVERY: i64 = 12;
/// The target whose workloads are listed.
const TARGET: &str = "container-apps";

/// What was seen, and what was not.
#[derive(Debug, Default)]
pub struct Look {
    pub sightings: Vec<Sighting>,
    /// By module.
    pub running: BTreeMap<ModuleId, Running>,
    /// Workloads of which nothing can be said this time.
    pub unseen: BTreeSet<ModuleId>,
    /// Whether the environment's own resources were read.
    pub infrastructure: bool,
    /// Whether the list of all workloads was read.
    pub listing: bool,
}

/// Looks at everything of a scope. `suspects` are the workloads with a finding that is not over: those
/// are read in full, since a listing does not show all that may be wrong.
///
/// # Errors
/// When the store is away; what Azure withholds is only not seen.
pub async fn look(
    platform: &Platform,
    scope: &Scope,
    ground: &Ground,
    suspects: &BTreeSet<ModuleId>,
    report: &mut SweepReport,
) -> Result<Look, Fault> {
    let mut look = Look::default();
    let ledger = &platform.ledger;
    let running = match &scope.module {
        Some(module) => {
            deployment_service::running_one(ledger, &scope.partition, module).await?.into_iter().collect()
        }
        None => deployment_service::running(ledger, &scope.partition).await?,
    };
    look.running = running.into_iter().map(|running| (running.module_id.clone(), running)).collect();
    let listed = match &scope.module {
        Some(_) => None,
        None => list(platform, ground, report).await,
    };
    if scope.module.is_none() && matches!(ground, Ground::Own { .. }) {
        infrastructure(platform, ground, &mut look, report).await;
    }
    let mut looks: Vec<BoxFuture<'_, Result<Seen, Fault>>> = Vec::with_capacity(look.running.len());
    for running in look.running.values() {
        looks.push(Box::pin(one(platform, scope, running, listed.as_ref(), suspects)));
    }
    let seen: Vec<_> = stream::iter(looks).buffered(AT_ONCE).collect().await;
    for (module, seen) in look.running.keys().zip(seen) {
        match seen? {
            Seen::Sightings(sightings) => {
                report.checked += 1;
                look.sightings.extend(sightings);
            }
            Seen::Moving => drop(look.unseen.insert(module.clone())),
            Seen::Unreadable(why) => {
                report.unreadable += 1;
                report.note(format!("`{module}` could not be read: {why}"));
                look.unseen.insert(module.clone());
            }
        }
    }
    if let Some(listed) = listed {
        look.listing = true;
        unexpected(platform, scope, ground, &listed, &mut look).await?;
    }
    Ok(look)
}

type Listed = BTreeMap<String, Observed>;

async fn list(platform: &Platform, ground: &Ground, report: &mut SweepReport) -> Option<Listed> {
    let target = ground.target(TARGET)?;
    match platform.compute.list(target).await {
        Ok(listed) => Some(listed.into_iter().collect()),
        Err(fault) => {
            report.unreadable += 1;
            report.note(format!("the workloads could not be listed: {}", fault.chain()));
            None
        }
    }
}

/// What came of looking at one workload.
enum Seen {
    Sightings(Vec<Sighting>),
    /// It is being changed, or was a moment ago.
    Moving,
    Unreadable(String),
}

async fn one(
    platform: &Platform,
    scope: &Scope,
    running: &Running,
    listed: Option<&Listed>,
    suspects: &BTreeSet<ModuleId>,
) -> Result<Seen, Fault> {
    let Running { module_id, deployment, in_flight, .. } = running;
    if *in_flight || !has_settled(platform, deployment.ended_at, scope.now) {
        return Ok(Seen::Moving);
    }
    let Some(revision) = deployment.revision.as_deref() else { return Ok(Seen::Moving) };
    let target = deployment.workload_ref();
    let from_list = listed.and_then(|listed| listed.get(&target.name));
    let observed = match from_list {
        Some(observed) if !suspects.contains(module_id) && !is_its_turn(scope, module_id) => {
            Some(observed.clone())
        }
        Some(_) | None => match platform.compute.observe(&target).await {
            Ok(observed) => observed,
            Err(fault) => return Ok(Seen::Unreadable(fault.chain())),
        },
    };
    if observed.as_ref().is_some_and(|observed| observed.settings.busy) {
        return Ok(Seen::Moving);
    }
    let applied = deployment.revision_spec();
    let (wanted, unconfirmed) = wanted(platform, scope, running, &applied).await?;
    let desired = Desired { module_id, workload: &target, revision, applied: &applied, wanted: &wanted };
    let mut sightings = workload::sightings(&desired, observed.as_ref());
    if let Some(since) = unconfirmed
        && !sightings.iter().any(|sighting| sighting.path == "/configuration")
    {
        let version =
            |spec: &RevisionSpec| json!(spec.configuration.as_ref().map(|entry| entry.version.to_string()));
        let (kind, severity) = workload::meaning("/configuration");
        sightings.push(Sighting {
            resource: workload::resource_id(&target),
            module_id: Some(module_id.clone()),
            path: "/configuration".to_owned(),
            kind,
            severity,
            desired: json!({ "version": version(&wanted), "inPlaceSince": whole_seconds::text(since) }),
            actual: version(&applied),
            writer: None,
            destructive: false,
        });
    }
    Ok(Seen::Sightings(sightings))
}

/// Whether a deployment's end is long enough ago.
fn has_settled(platform: &Platform, ended_at: Option<Timestamp>, now: Timestamp) -> bool {
    ended_at.is_none_or(|at| now.duration_since(at) >= platform.drift_settle)
}

/// Whether this is the window in which a workload is read in full.
fn is_its_turn(scope: &Scope, module: &ModuleId) -> bool {
    let length = i64::try_from(scope.kind.window().as_secs()).unwrap_or(i64::MAX);
    let number = scope.window.as_second().div_euclid(length);
    let own = i64::from(ids::derive(&["full", module.as_str()]).as_bytes()[0]);
    (number + own).rem_euclid(FULL_EVERY) == 0
}

/// The workload as its next revision would be made, and since when it has a configuration in place that
/// it should have been started with long ago.
async fn wanted(
    platform: &Platform,
    scope: &Scope,
    running: &Running,
    applied: &RevisionSpec,
) -> Result<(RevisionSpec, Option<Timestamp>), Fault> {
    let (ledger, module) = (&platform.ledger, &running.module_id);
    let at_least = running.deployment.configuration_version;
    let wanted = runtime_configuration_service::wanted(ledger, &scope.partition, module, at_least).await?;
    let (configuration, secret_refs) = match wanted {
        Some(wanted) => (Some(wanted.entry), wanted.secret_refs),
        None => (None, BTreeMap::new()),
    };
    let secrets = secret_binding_service::entries(ledger, &scope.partition, module, &secret_refs).await?;
    let version = configuration.as_ref().map(|entry| entry.version);
    let mut unconfirmed = None;
    if let Some(version) = version
        && Some(version) != applied.configuration.as_ref().map(|entry| entry.version)
        // What failed here is not run again, and that is as it should be.
        && !deployment_service::keeps_out(ledger, &scope.partition, module, version).await?
    {
        let since = runtime_configuration_service::in_place_since(ledger, &scope.partition, module).await?;
        unconfirmed = since.filter(|since| scope.now.duration_since(*since) > UNCONFIRMED);
    }
    Ok((RevisionSpec { configuration, secrets, ..applied.clone() }, unconfirmed))
}

/// Workloads of the resource group that nobody deployed.
async fn unexpected(
    platform: &Platform,
    scope: &Scope,
    ground: &Ground,
    listed: &Listed,
    look: &mut Look,
) -> Result<(), Fault> {
    let ledger = &platform.ledger;
    let prefix = ground.prefix();
    let known = deployment_service::app_names(ledger, &scope.partition, prefix.as_deref()).await?;
    // A workload of a bound tenant is looked for where that tenant's deployments are.
    let others: BTreeSet<String> = match ground {
        Ground::Own { .. } => {
            let prefixes = tenant_runtime_isolation_service::prefixes(ledger, &scope.partition).await?;
            prefixes.into_iter().collect()
        }
        Ground::Bound { .. } => BTreeSet::new(),
    };
    for (name, observed) in listed {
        let is_here = match &prefix {
            Some(prefix) => name.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('-')),
            None => !begins_with_one_of(name, &others),
        };
        if !is_here || known.contains(name) {
            continue;
        }
        let Some(target) = ground.target(TARGET) else { continue };
        look.sightings.push(Sighting {
            resource: workload::app_id(&target.resource_group_id, name),
            module_id: None,
            path: String::new(),
            kind: DriftKind::UnexpectedWorkload,
            severity: DriftSeverity::High,
            desired: Value::Null,
            actual: json!(name),
            writer: observed.settings.modified_by.clone(),
            destructive: true,
        });
    }
    Ok(())
}

/// Whether a name is one of some prefixes, a dash, and more. It costs as much with many prefixes as with
/// few: an environment may have many tenants, and many workloads.
fn begins_with_one_of(name: &str, prefixes: &BTreeSet<String>) -> bool {
    name.match_indices('-').any(|(dash, _)| prefixes.contains(&name[..dash]))
}

/// What the environment itself is made of.
async fn infrastructure(platform: &Platform, ground: &Ground, look: &mut Look, report: &mut SweepReport) {
    let environment = ground.environment();
    if environment.operation_id.is_some() {
        report.note("the environment's resources are being applied and are left alone".to_owned());
        return;
    }
    match runtime_environment_service::planned(platform, environment).await {
        Ok(plan) => {
            look.infrastructure = true;
            report.checked += u32::try_from(plan.len()).unwrap_or(u32::MAX);
            look.sightings.extend(plan.iter().flat_map(of_resource));
        }
        Err(fault) => {
            report.unreadable += 1;
            report.note(format!("the environment's resources could not be read: {}", fault.chain()));
        }
    }
}

/// Where a resource of the environment is not as desired.
pub fn of_resource(planned: &PlannedChange) -> Vec<Sighting> {
    let sighting = |path: &str, (kind, severity), (desired, actual), destructive| Sighting {
        resource: planned.id.clone(),
        module_id: None,
        path: path.to_owned(),
        kind,
        severity,
        desired,
        actual,
        writer: None,
        destructive,
    };
    match &planned.change {
        Change::NoChange => Vec::new(),
        Change::Create => {
            let told = (json!(planned.resource_type), Value::Null);
            vec![sighting("", (DriftKind::ResourceMissing, DriftSeverity::High), told, false)]
        }
        Change::Update { differences } => differences
            .iter()
            .map(|difference| {
                let told = (difference.desired.clone(), difference.actual.clone());
                sighting(&difference.path, of_property(&planned.resource_type, &difference.path), told, false)
            })
            .collect(),
        Change::Refused { reason } => {
            let told = (json!("as it was provisioned"), json!(reason));
            let meaning = (DriftKind::ConfigurationMismatch, DriftSeverity::High);
            vec![sighting("/immutable", meaning, told, true)]
        }
    }
}

/// What a difference of a resource's property is, and how bad.
fn of_property(resource_type: &str, path: &str) -> (DriftKind, DriftSeverity) {
    let is_tag = path.starts_with("/tags");
    match resource_type {
        _ if is_tag && path.starts_with("/tags/cs-") => {
            (DriftKind::IsolationMismatch, DriftSeverity::Critical)
        }
        _ if is_tag => (DriftKind::ConfigurationMismatch, DriftSeverity::Info),
        "Microsoft.Authorization/roleAssignments"
        | "Microsoft.ManagedIdentity/userAssignedIdentities"
        | "Microsoft.KeyVault/vaults" => (DriftKind::IsolationMismatch, DriftSeverity::Critical),
        name if name.starts_with("Microsoft.Network/") => {
            (DriftKind::NetworkPolicyMismatch, DriftSeverity::Critical)
        }
        _ => (DriftKind::ConfigurationMismatch, DriftSeverity::Medium),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_begins_with_a_prefix_up_to_a_dash_and_not_within_a_word() {
        let prefixes = ["t-1a2b", "acme"].map(str::to_owned).into();
        for (name, begins) in [
            ("acme-api", true),
            ("t-1a2b-orders-api", true),
            ("acmeapi", false),
            ("acme", false),
            ("acmes-api", false),
            ("t-api", false),
            ("orders-acme-api", false),
            ("", false),
        ] {
            assert_eq!(begins_with_one_of(name, &prefixes), begins, "{name}");
        }
        assert!(!begins_with_one_of("acme-api", &BTreeSet::new()));
    }
}
