//! What other services may know of an environment's workloads: which there are, and what they were
//! started with.

use std::collections::BTreeSet;

use crate::{
    events::RolledBackReason,
    ids::{DeploymentId, EnvironmentId, EventId, ModuleId, ServiceId, TenantId},
    ledger::{Ledger, State},
    outcome::Fault,
    ports::store::{Filter, Page, Partition},
};

use super::{
    deploy::missing,
    ending::completed_event_id,
    state::{DeploymentStatus, Origin, RuntimeDeployment, Slot, app_name, app_name_of_tenant},
};

/// Pages of workloads of one environment.
const PAGES_MAX: usize = 10;
/// Deployments of a workload that are looked through for one that was started with a version.
pub(super) const RECENT_MAX: usize = 20;

/// A workload that serves, or is being deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadView {
    pub module_id: ModuleId,
    pub serves: bool,
}

/// The workloads of an environment, in order of their modules.
///
/// # Errors
/// When the store is away.
pub async fn workloads(ledger: &Ledger, partition: &Partition) -> Result<Vec<WorkloadView>, Fault> {
    let mut found = Vec::new();
    let mut page = Page::first(100);
    for _ in 0..PAGES_MAX {
        let listing = ledger.query::<Slot>(partition, &Filter::default(), &page).await?;
        for (_, slot) in listing.items {
            let serves = slot.serving.is_some();
            if serves || slot.in_flight.is_some() {
                found.push(WorkloadView { module_id: slot.module_id, serves });
            }
        }
        let Some(next) = listing.next else { break };
        page.after = Some(next);
    }
    found.sort_by(|a, b| a.module_id.cmp(&b.module_id));
    Ok(found)
}

/// The names of all apps that the workloads of a partition have, or had: what served and was stopped
/// keeps its app. `prefix` is that of a bound tenant.
///
/// # Errors
/// When the store is away.
pub async fn app_names(
    ledger: &Ledger,
    partition: &Partition,
    prefix: Option<&str>,
) -> Result<BTreeSet<String>, Fault> {
    let mut names = BTreeSet::new();
    let mut page = Page::first(100);
    for _ in 0..PAGES_MAX {
        let listing = ledger.query::<Slot>(partition, &Filter::default(), &page).await?;
        names.extend(listing.items.iter().map(|(_, slot)| match prefix {
            Some(prefix) => app_name_of_tenant(prefix, &slot.module_id),
            None => app_name(&slot.module_id),
        }));
        let Some(next) = listing.next else { break };
        page.after = Some(next);
    }
    Ok(names)
}

/// The module of a service: `likely`, if that is the service's, else the workload with its id; none where
/// there never was such a workload.
///
/// # Errors
/// When the store is away.
pub async fn module_of(
    ledger: &Ledger,
    partition: &Partition,
    (tenant, environment): (&TenantId, &EnvironmentId),
    service: &ServiceId,
    likely: Option<&ModuleId>,
) -> Result<Option<ModuleId>, Fault> {
    let is_it = |module: &ModuleId| ServiceId::derived(tenant, environment, module) == *service;
    if let Some(module) = likely.filter(|module| is_it(module)) {
        let there = load::<Slot>(ledger, partition, &Slot::id(module)).await?.is_some();
        return Ok(there.then(|| module.clone()));
    }
    Ok(workloads(ledger, partition).await?.into_iter().map(|workload| workload.module_id).find(is_it))
}

/// A workload that serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    pub module_id: ModuleId,
    /// What serves.
    pub deployment: RuntimeDeployment,
    /// Whether another deployment of it is in flight, or waits for its turn.
    pub in_flight: bool,
    /// The eventId of the `RuntimeDeploymentCompleted` of what serves.
    pub completed_event_id: EventId,
}

impl Running {
    /// The service that it is in the inventory.
    pub fn service_id(&self) -> ServiceId {
        let deployment = &self.deployment;
        ServiceId::derived(&deployment.lineage.tenant_id, &deployment.environment_id, &self.module_id)
    }
}

/// The workloads of an environment that serve, in order of their modules.
///
/// # Errors
/// When the store is away.
pub async fn running(ledger: &Ledger, partition: &Partition) -> Result<Vec<Running>, Fault> {
    let mut found = Vec::new();
    let mut page = Page::first(100);
    for _ in 0..PAGES_MAX {
        let listing = ledger.query::<Slot>(partition, &Filter::default(), &page).await?;
        for (_, slot) in listing.items {
            found.extend(of_slot(ledger, partition, slot).await?);
        }
        let Some(next) = listing.next else { break };
        page.after = Some(next);
    }
    found.sort_by(|a, b| a.module_id.cmp(&b.module_id));
    Ok(found)
}

/// One workload; none where nothing of it serves.
///
/// # Errors
/// When the store is away.
pub async fn running_one(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
) -> Result<Option<Running>, Fault> {
    match load::<Slot>(ledger, partition, &Slot::id(module)).await? {
        Some(slot) => of_slot(ledger, partition, slot).await,
        None => Ok(None),
    }
}

async fn of_slot(ledger: &Ledger, partition: &Partition, slot: Slot) -> Result<Option<Running>, Fault> {
    let Some(serving) = slot.serving else { return Ok(None) };
    let id = serving.deployment_id.as_str();
    let deployment = load::<RuntimeDeployment>(ledger, partition, id).await?.ok_or_else(|| missing(id))?;
    Ok(Some(Running {
        module_id: slot.module_id,
        completed_event_id: completed_event_id(&deployment),
        deployment,
        in_flight: slot.in_flight.is_some(),
    }))
}

/// The version of the configuration that what serves was started with.
///
/// # Errors
/// When the store is away.
pub async fn serving_version(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
) -> Result<Option<u64>, Fault> {
    let slot = load::<Slot>(ledger, partition, &Slot::id(module)).await?;
    let Some(serving) = slot.and_then(|slot| slot.serving) else { return Ok(None) };
    let deployment = load::<RuntimeDeployment>(ledger, partition, serving.deployment_id.as_str()).await?;
    Ok(deployment.and_then(|deployment| deployment.configuration).map(|entry| entry.version))
}

/// Whether a version of the configuration may not be started at a workload.
///
/// # Errors
/// When the store is away.
pub async fn keeps_out(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
    version: u64,
) -> Result<bool, Fault> {
    let slot = load::<Slot>(ledger, partition, &Slot::id(module)).await?;
    Ok(slot.is_some_and(|slot| slot.configuration_kept_out(version).is_some()))
}

/// What came of a version of the configuration at a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    /// Nothing serves and nothing is being deployed.
    Gone,
    /// What serves was started with it, or with a newer one.
    Carried(DeploymentId),
    /// A deployment is in flight.
    UnderWay,
    /// Nothing was started with it yet.
    Nothing,
    /// What was started with it did not pass, or was taken back.
    Failed { deployment_id: DeploymentId, reason: String },
}

/// What came of a version of the configuration: a newer one carries it too.
///
/// # Errors
/// When the store is away.
pub async fn course(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
    version: u64,
) -> Result<Course, Fault> {
    let of = |deployment: &RuntimeDeployment| deployment.configuration.as_ref().map(|entry| entry.version);
    let carries = |deployment: &RuntimeDeployment| of(deployment).is_some_and(|number| number >= version);
    course_of(ledger, partition, module, carries, |deployment| of(deployment) == Some(version)).await
}

/// What came of a change of what a scaling policy wants. Only a refresh that was made for it fails with
/// it: a Deploy that failed meanwhile says nothing of the policy.
///
/// # Errors
/// When the store is away.
pub async fn scaling_course(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
    generation: u64,
) -> Result<Course, Fault> {
    let carries = |deployment: &RuntimeDeployment| {
        deployment.scaling.as_ref().is_some_and(|entry| entry.generation == generation)
    };
    let was_for_it =
        |deployment: &RuntimeDeployment| deployment.origin == Origin::Scaling && carries(deployment);
    course_of(ledger, partition, module, carries, was_for_it).await
}

async fn course_of(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
    carries: impl Fn(&RuntimeDeployment) -> bool + Send,
    was_for_it: impl Fn(&RuntimeDeployment) -> bool + Send,
) -> Result<Course, Fault> {
    let Some(slot) = load::<Slot>(ledger, partition, &Slot::id(module)).await? else {
        return Ok(Course::Gone);
    };
    if let Some(serving) = &slot.serving {
        let id = serving.deployment_id.as_str();
        let serves = load::<RuntimeDeployment>(ledger, partition, id).await?.ok_or_else(|| missing(id))?;
        if carries(&serves) {
            return Ok(Course::Carried(serves.deployment_id));
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
    let mut recent = recent.items.into_iter().map(|(_, deployment)| deployment);
    let failed = recent.find(|deployment| was_for_it(deployment) && did_not_pass(deployment));
    Ok(match failed {
        Some(RuntimeDeployment { deployment_id, reason, .. }) => Course::Failed {
            deployment_id,
            reason: reason.unwrap_or_else(|| "no reason was recorded".to_owned()),
        },
        None => Course::Nothing,
    })
}

/// One that was superseded or cancelled says nothing of what it was started with.
pub(super) fn did_not_pass(deployment: &RuntimeDeployment) -> bool {
    match deployment.status {
        DeploymentStatus::Failed => true,
        DeploymentStatus::RolledBack => match deployment.rolled_back_reason {
            Some(RolledBackReason::GateFailed | RolledBackReason::Operator) | None => true,
            Some(RolledBackReason::Superseded | RolledBackReason::Cancelled) => false,
        },
        DeploymentStatus::Queued
        | DeploymentStatus::Requested
        | DeploymentStatus::Provisioning
        | DeploymentStatus::Configuring
        | DeploymentStatus::RollingOut
        | DeploymentStatus::HealthGating
        | DeploymentStatus::Promoting
        | DeploymentStatus::Completed
        | DeploymentStatus::RollingBack => false,
    }
}

pub(super) async fn load<S: State>(
    ledger: &Ledger,
    partition: &Partition,
    id: &str,
) -> Result<Option<S>, Fault> {
    Ok(ledger.load::<S>(partition, id).await?.state)
}
