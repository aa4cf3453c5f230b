//! Decommissioning, step by step: wait for what runs, fence the workloads, delete their apps, tell the
//! tenants that are bound, delete the resources, and say what is left.
//!
//! Each step may be taken twice: what is gone is gone, and what was begun is found in the record or in
//! Azure. Until the workloads are fenced the environment can come back to what it was; afterwards it can
//! only go on, and an order for it takes up where this one stopped.

use std::time::Duration;

use super::{
    decommission::{of_bound_tenants, running, serving},
    resources::{self, vault_name},
    state::{AppRemoval, Decommission, ProvisioningStatus, RuntimeEnvironment},
};
use crate::{
    events::{Event, RuntimeEnvironmentDecommissioned},
    ledger::{Commit, Loaded, NewEvent},
    operations::{GiveUp, Operation, Step, Then},
    outcome::Fault,
    platform::Platform,
    ports::{compute, infrastructure::Removing, store::Partition},
    services::{
        deployment_service::retiring::{self, Retired},
        tenant_runtime_isolation_service,
    },
    sweeps,
};

/// Where a new operation stands.
pub(super) const DRAINING: &str = "Draining";
const FENCING: &str = "FencingWorkloads";
const REMOVING_WORKLOADS: &str = "RemovingWorkloads";
const TELLING_TENANTS: &str = "TellingTenants";
const REMOVING_RESOURCES: &str = "RemovingResources";

/// Between two looks at what runs.
const DRAIN_AGAIN: Duration = Duration::from_secs(5);
/// Between two looks at apps that are being deleted.
const APPS_AGAIN: Duration = Duration::from_secs(2);
/// Apps that are being deleted at once.
const APPS_AT_ONCE: usize = 4;
/// Things that stay and are told.
const LEFT_TOLD_MAX: usize = 20;

/// Everything that a step rests on.
struct Site {
    environment: RuntimeEnvironment,
    loaded: Loaded<RuntimeEnvironment>,
    record: Decommission,
    record_loaded: Loaded<Decommission>,
    commit: Commit,
    notes: Vec<String>,
}

impl Site {
    fn on(mut self, label: &'static str, then: Then) -> Result<Step, Fault> {
        self.commit.put(&self.record_loaded, &self.record)?;
        Ok(Step { commit: self.commit, label, notes: self.notes, then, outcome: None })
    }
}

async fn site(platform: &Platform, operation: &Operation) -> Result<Site, Fault> {
    let partition = Partition::environment(&operation.lineage.tenant_id, &operation.environment_id);
    let gone = |what: &str| Fault::Unreadable {
        doing: format!("decommissioning `{}`", operation.environment_id),
        source: format!("{what} is gone").into(),
    };
    let ledger = &platform.ledger;
    let (environment, loaded) =
        ledger.load::<RuntimeEnvironment>(&partition, &operation.environment_id).await?.take();
    let environment = environment.ok_or_else(|| gone("the environment"))?;
    let id = Decommission::id(&environment.environment_id);
    let (record, record_loaded) = ledger.load::<Decommission>(&partition, &id).await?.take();
    let record = record.ok_or_else(|| gone("its record"))?;
    let commit = Commit::new(partition, platform.clock.now());
    Ok(Site { environment, loaded, record, record_loaded, commit, notes: Vec::new() })
}

/// Takes the next step of decommissioning.
///
/// # Errors
/// What the store or Azure withheld.
pub async fn step(platform: &Platform, operation: &Operation) -> Result<Step, Fault> {
    let site = site(platform, operation).await?;
    match operation.step.as_str() {
        FENCING => fence(platform, operation, site).await,
        REMOVING_WORKLOADS => remove_workloads(platform, operation, site).await,
        TELLING_TENANTS => tell_tenants(platform, operation, site).await,
        REMOVING_RESOURCES => remove_resources(platform, operation, site).await,
        _ => drain(platform, operation, site).await,
    }
}

/// What was on its way when the order came is waited for; what it leaves serving is not cut off unless
/// that was ordered.
async fn drain(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    let (ledger, partition) = (&platform.ledger, site.commit.partition.clone());
    if let Some(sentence) = of_bound_tenants(ledger, &partition, &site.environment.environment_id).await? {
        return stays(site, sentence);
    }
    let running = running(ledger, &partition, Some(&operation.operation_id)).await?;
    if !running.is_empty() {
        let note = format!("waits for {}", running.join(", "));
        if operation.notes.last().is_none_or(|last| last.text != note) {
            site.notes.push(note);
        }
        return site.on(DRAINING, Then::Wait(DRAIN_AGAIN));
    }
    let serving = serving(ledger, &partition).await?;
    if !serving.is_empty() && !site.record.force {
        return stays(site, format!("{} came to serve meanwhile, and was not to go", serving.join(", ")));
    }
    site.on(FENCING, Then::Next)
}

/// Nothing was touched by this order: the environment is what it was.
fn stays(site: Site, sentence: String) -> Result<Step, Fault> {
    let Site { environment, loaded, record, record_loaded, mut commit, mut notes } = site;
    let status = match environment.provisioned_at {
        None => ProvisioningStatus::Failed,
        // An earlier order came further than this one: there is no way back.
        Some(_) if environment.targets.is_empty() => ProvisioningStatus::Decommissioning,
        Some(_) => ProvisioningStatus::Provisioned,
    };
    let detail = format!("`{}` is not decommissioned: {sentence}", environment.environment_id);
    notes.push(detail.clone());
    let environment =
        RuntimeEnvironment { status, operation_id: None, failure: Some(detail.clone()), ..environment };
    commit.put(&loaded, &environment)?;
    commit.put(&record_loaded, &record)?;
    Ok(Step { commit, label: "Stays", notes, then: Then::Failed(detail), outcome: None })
}

/// From here on nothing serves, and nothing can begin again.
async fn fence(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    let ledger = &platform.ledger;
    match retiring::retire(ledger, &mut site.commit).await? {
        Retired::Busy(module) => {
            site.notes.push(format!("`{module}` is being deployed; waits for it"));
            site.on(DRAINING, Then::Wait(DRAIN_AGAIN))
        }
        Retired::Some(number) => {
            let workloads = if number == 1 { "workload serves" } else { "workloads serve" };
            site.notes.push(format!("{number} {workloads} no more"));
            site.on(FENCING, Then::Next)
        }
        Retired::All => {
            let targets = &site.environment.targets;
            let apps = retiring::apps(ledger, &site.commit.partition, targets).await?;
            site.record.apps = apps.into_iter().map(AppRemoval::new).collect();
            // Timers pass an environment by that goes: this look is the one that retires its services.
            sweeps::nudge(
                &mut site.commit,
                sweeps::Kind::Health,
                &operation.lineage.tenant_id,
                &site.environment.environment_id,
                None,
                operation.operation_id.as_str(),
            )?;
            site.on(REMOVING_WORKLOADS, Then::Next)
        }
    }
}

/// Looks once at each app that is being deleted, and begins the next.
async fn remove_workloads(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    let mut looked = 0;
    let mut withheld = None;
    let mut went_on = false;
    for app in site.record.apps.iter_mut().filter(|app| !app.gone && app.kept.is_none()) {
        if looked == APPS_AT_ONCE {
            break;
        }
        looked += 1;
        let answer = match app.pending.as_ref() {
            Some(token) => platform.compute.resume(token).await,
            None => platform.compute.remove(&app.workload).await,
        };
        match answer {
            Ok(compute::Step::Done) => {
                went_on = true;
                app.gone = true;
                app.pending = None;
                site.notes.push(format!("deleted the app {}", app.workload.name));
            }
            Ok(compute::Step::Pending { token, .. }) => {
                went_on |= app.pending.is_none();
                app.pending = Some(token);
            }
            Err(Fault::Rejected { code, detail, .. }) => {
                went_on = true;
                app.pending = None;
                app.kept = Some(format!("{detail} ({code})"));
            }
            Err(fault) => withheld = withheld.or(Some(fault)),
        }
    }
    if looked > 0 {
        // What went on is recorded; what was withheld from all counts as an attempt.
        return match withheld {
            Some(fault) if !went_on => Err(fault),
            Some(_) | None => site.on(REMOVING_WORKLOADS, Then::Wait(APPS_AGAIN)),
        };
    }
    let kept = site.record.apps.iter().filter_map(|app| {
        app.kept.as_ref().map(|why| format!("the app {} could not be deleted: {why}", app.workload.name))
    });
    let kept: Vec<_> = kept.take(LEFT_TOLD_MAX).collect();
    if !kept.is_empty() {
        return stops(site, operation, kept);
    }
    let environment = RuntimeEnvironment { targets: Vec::new(), ..site.environment.clone() };
    site.commit.put(&site.loaded, &environment)?;
    site.on(TELLING_TENANTS, Then::Next)
}

/// The views of tenants that are bound lead nowhere any more.
async fn tell_tenants(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    let after = site.record.told_after.take();
    let by = operation.operation_id.as_str();
    let next =
        tenant_runtime_isolation_service::renew_views(&platform.ledger, &mut site.commit, after, by).await?;
    match next {
        Some(next) => {
            site.record.told_after = Some(next);
            site.on(TELLING_TENANTS, Then::Next)
        }
        None => site.on(REMOVING_RESOURCES, Then::Next),
    }
}

async fn remove_resources(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    let desired =
        resources::resources(&site.environment.spec(), &platform.subscription_id, &platform.directory_id);
    let before = site.record.removal.gone.clone();
    let (removal, again_in) =
        match platform.infrastructure.remove(&desired, site.record.removal.clone()).await? {
            Removing::Running { removal, again_in } => (removal, Some(again_in)),
            Removing::Done { removal } => (removal, None),
        };
    let named = |key: &str| {
        let resource = desired.iter().find(|resource| resource.key == key);
        resource.map_or_else(
            || key.to_owned(),
            |resource| {
                format!("{} {}", resource.resource_type, resource.id.rsplit('/').next().unwrap_or_default())
            },
        )
    };
    site.notes.extend(removal.gone.difference(&before).map(|key| format!("deleted {}", named(key))));
    let (mut stuck, mut left) = (Vec::new(), Vec::new());
    for (key, kept) in &removal.kept {
        let sentence = format!("{} stays: {}", named(key), kept.reason);
        if kept.must { left.push(sentence) } else { stuck.push(sentence) }
    }
    let vault_went = removal.gone.contains("vault");
    site.record.removal = removal;
    if let Some(again_in) = again_in {
        return site.on(REMOVING_RESOURCES, Then::Wait(again_in));
    }
    if !stuck.is_empty() {
        // What could not be deleted is asked for anew by the next order.
        site.record.removal.kept.clear();
        stuck.truncate(LEFT_TOLD_MAX);
        return stops(site, operation, stuck);
    }
    if vault_went {
        left.push(format!(
            "Azure keeps the deleted vault {} with its name for {} days, in which it can be recovered",
            vault_name(&desired),
            resources::VAULT_RETENTION_DAYS
        ));
    }
    gone(operation, site, left)
}

/// Everything that can go is gone.
fn gone(operation: &Operation, site: Site, left: Vec<String>) -> Result<Step, Fault> {
    let Site { environment, loaded, record, record_loaded, mut commit, mut notes } = site;
    let environment = RuntimeEnvironment {
        status: ProvisioningStatus::Decommissioned,
        operation_id: None,
        sequence: environment.sequence + 1,
        decommissioned_at: Some(commit.now),
        left_behind: left.clone(),
        failure: None,
        ..environment
    };
    let event = Event::RuntimeEnvironmentDecommissioned(RuntimeEnvironmentDecommissioned {
        environment_id: environment.environment_id.clone(),
        decommissioned_at: commit.now,
    });
    let cause = operation.cause();
    let id = cause.event(event.event_type(), 0);
    let outcome = Some(id.clone());
    commit.event(
        &operation.lineage,
        NewEvent {
            id,
            event,
            aggregate: environment.environment_id.to_string(),
            sequence: environment.sequence,
            caused_by: operation.caused_by.clone(),
        },
    )?;
    commit.put(&loaded, &environment)?;
    commit.put(&record_loaded, &record)?;
    notes.extend(left);
    let detail = format!("`{}` is decommissioned", environment.environment_id);
    notes.push(detail.clone());
    Ok(Step { commit, label: "Decommissioned", notes, then: Then::Succeeded(detail), outcome })
}

/// It cannot go on: the environment stays `Decommissioning`, and says what is in the way.
fn stops(site: Site, operation: &Operation, in_the_way: Vec<String>) -> Result<Step, Fault> {
    let Site { environment, loaded, record, record_loaded, mut commit, mut notes } = site;
    let detail = format!(
        "Decommissioning `{}` stopped at {}: {}. Remove what is in the way and order it again; it goes on where it stopped.",
        environment.environment_id,
        operation.step,
        in_the_way.join("; ").trim_end_matches('.')
    );
    notes.push(detail.clone());
    let environment = RuntimeEnvironment { operation_id: None, failure: Some(detail.clone()), ..environment };
    commit.put(&loaded, &environment)?;
    commit.put(&record_loaded, &record)?;
    Ok(Step { commit, label: "Stopped", notes, then: Then::Failed(detail), outcome: None })
}

/// Ends an operation that cannot go on, as far back as it may go.
///
/// # Errors
/// When the store is away.
pub async fn give_up(platform: &Platform, operation: &Operation, why: &GiveUp) -> Result<Step, Fault> {
    let site = site(platform, operation).await?;
    match operation.step.as_str() {
        FENCING | REMOVING_WORKLOADS | TELLING_TENANTS | REMOVING_RESOURCES => {
            stops(site, operation, vec![why.sentence()])
        }
        _ => stays(site, why.sentence()),
    }
}
