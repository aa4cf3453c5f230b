//! Bringing a version to the workloads, step by step: applied to one, and to the rest once that one
//! has passed with it.
//!
//! Each step looks at what the deployments have come to, and decides what is next from that alone, so
//! that it may be taken twice. Every step writes the environment's configuration: the operation of an
//! older version that still runs cannot get ahead of a newer one.

use std::time::Duration;

use jiff::SignedDuration;

use super::state::{
    self, ConfigurationVersion, Progress, RuntimeConfiguration, Stage, VersionStatus, WorkloadConfiguration,
};
use crate::{
    events::{CommandOutcome, ConfigurationSynced, Event, ReasonCode, RuntimeCommandFailed},
    ids::{DeploymentId, EventId},
    ledger::{Commit, Ledger, Loaded, NewEvent},
    operations::{GiveUp, Operation, Step, Then},
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
    services::deployment_service::{
        self,
        refresh::{self, Wish},
        state::Origin,
        workloads::Course,
    },
};

/// Between two looks at refreshes that are under way.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// Workloads that one step applies a version to.
const BATCH: usize = 20;
/// Documents that one step writes for the workloads that it looks at; a commit has room for a few
/// more.
const LOOK_WRITES_MAX: usize = 60;
/// Documents that asking for a refresh writes.
const NUDGE_WRITES: usize = 6;
/// How long a refresh may fail to appear before it is asked for again.
const NUDGE_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// Times that a refresh is asked for again.
const NUDGES_MAX: u32 = 3;

/// Everything that a step rests on.
struct Site {
    head: RuntimeConfiguration,
    head_loaded: Loaded<RuntimeConfiguration>,
    version: ConfigurationVersion,
    version_loaded: Loaded<ConfigurationVersion>,
    commit: Commit,
    notes: Vec<String>,
}

impl Site {
    fn on(mut self, label: &'static str, then: Then) -> Result<Step, Fault> {
        self.commit.put(&self.head_loaded, &self.head)?;
        self.commit.put(&self.version_loaded, &self.version)?;
        Ok(Step { commit: self.commit, label, notes: self.notes, then, outcome: None })
    }

    fn is_established(&self) -> bool {
        self.head.established == Some(self.version.version)
    }

    fn number(&self) -> u64 {
        self.version.version
    }

    fn any(&self, stage: Stage) -> bool {
        self.version.workloads.iter().any(|progress| progress.stage == stage)
    }
}

async fn site(platform: &Platform, operation: &Operation) -> Result<Site, Fault> {
    let partition = Partition::environment(&operation.lineage.tenant_id, &operation.environment_id);
    let (version, version_loaded) =
        platform.ledger.load::<ConfigurationVersion>(&partition, &operation.subject).await?.take();
    let version = version.ok_or_else(|| state::missing(&operation.subject))?;
    let (head, head_loaded) =
        platform.ledger.load::<RuntimeConfiguration>(&partition, &version.configuration_id).await?.take();
    let head = head.ok_or_else(|| state::missing(&version.configuration_id))?;
    let commit = Commit::new(partition, platform.clock.now());
    Ok(Site { head, head_loaded, version, version_loaded, commit, notes: Vec::new() })
}

/// Takes the next step of bringing a version to the workloads.
///
/// # Errors
/// When the store is away.
pub async fn step(platform: &Platform, operation: &Operation) -> Result<Step, Fault> {
    let mut site = site(platform, operation).await?;
    if site.head.version > site.number() {
        return overtaken(site);
    }
    if look(&platform.ledger, operation, &mut site).await? == Looked::Partly {
        return site.on("Confirming", Then::Next);
    }
    if site.is_established() {
        return rest(platform, operation, site).await;
    }
    if site.any(Stage::Confirmed) {
        establish(platform, &mut site).await?;
        return site.on("Established", Then::Next);
    }
    if site.any(Stage::Failed) {
        return failed(operation, site, None);
    }
    if site.any(Stage::Applied) {
        return site.on("Confirming", Then::Wait(LOOK_AGAIN));
    }
    first(platform, operation, site).await
}

/// A newer version took its place; what was begun with this one is that one's to finish.
fn overtaken(mut site: Site) -> Result<Step, Fault> {
    let newer = site.head.version;
    if !site.is_established() {
        site.version.status = VersionStatus::Superseded;
    }
    let detail = format!("version {newer} took the place of version {}", site.number());
    site.version.reason = Some(detail.clone());
    site.notes.push(detail.clone());
    let published = site.version.published_event_id.clone();
    Ok(Step { outcome: Some(published), ..site.on("Superseded", Then::Succeeded(detail))? })
}

/// Applies the version to one workload that serves; where none does, there is nothing to wait for.
async fn first(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    let ledger = &platform.ledger;
    let workloads = deployment_service::workloads(ledger, &site.commit.partition).await?;
    for index in 0..site.version.workloads.len() {
        let progress = &site.version.workloads[index];
        let serves =
            workloads.iter().any(|workload| workload.module_id == progress.module_id && workload.serves);
        if progress.stage == Stage::Waiting && serves {
            apply(ledger, operation, &mut site, index).await?;
            return site.on("Applied", Then::Wait(LOOK_AGAIN));
        }
    }
    establish(platform, &mut site).await?;
    site.on("Established", Then::Next)
}

/// From here on new workloads start with the version, and the one before it may go.
async fn establish(platform: &Platform, site: &mut Site) -> Result<(), Fault> {
    if let Some(before) = site.head.established.filter(|before| *before != site.version.version) {
        let id = ConfigurationVersion::id(&site.head.configuration_id, before);
        let (older, loaded) =
            platform.ledger.load::<ConfigurationVersion>(&site.commit.partition, &id).await?.take();
        if let Some(older) = older {
            site.commit.put(&loaded, &ConfigurationVersion { status: VersionStatus::Superseded, ..older })?;
        }
    }
    site.head.established = Some(site.version.version);
    site.head.established_hash = Some(site.version.content_hash.clone());
    site.notes.push(format!("version {} is what new revisions start with", site.version.version));
    Ok(())
}

/// The workloads after the first, those that came meanwhile included.
async fn rest(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    let ledger = &platform.ledger;
    for workload in deployment_service::workloads(ledger, &site.commit.partition).await? {
        if !site.version.workloads.iter().any(|progress| progress.module_id == workload.module_id) {
            let progress =
                Progress::waiting(&site.head.environment_id, &site.commit.partition, workload.module_id)?;
            site.version.workloads.push(progress);
        }
    }
    let waiting: Vec<usize> = (0..site.version.workloads.len())
        .filter(|index| site.version.workloads[*index].stage == Stage::Waiting)
        .take(BATCH)
        .collect();
    if !waiting.is_empty() {
        for index in waiting {
            apply(ledger, operation, &mut site, index).await?;
        }
        return site.on("Applied", Then::Wait(LOOK_AGAIN));
    }
    if site.any(Stage::Applied) {
        return site.on("Confirming", Then::Wait(LOOK_AGAIN));
    }
    if site.any(Stage::Failed) {
        return failed(operation, site, None);
    }
    let count = site.version.workloads.iter().filter(|progress| progress.stage == Stage::Confirmed).count();
    let detail = format!("version {} is confirmed by {count} workloads", site.number());
    site.notes.push(detail.clone());
    let published = site.version.published_event_id.clone();
    Ok(Step { outcome: Some(published), ..site.on("Confirmed", Then::Succeeded(detail))? })
}

/// Puts the version in place at one workload: its next revision starts with it.
async fn apply(ledger: &Ledger, operation: &Operation, site: &mut Site, index: usize) -> Result<(), Fault> {
    let now = site.commit.now;
    let number = site.version.version;
    let progress = &mut site.version.workloads[index];
    progress.stage = Stage::Applied;
    progress.applied_at = Some(now);
    let (module, service) = (progress.module_id.clone(), progress.service_id.clone());
    let (workload, loaded) = ledger
        .load::<WorkloadConfiguration>(&site.commit.partition, &WorkloadConfiguration::id(&module))
        .await?
        .take();
    let workload = match workload {
        Some(workload) => workload,
        None => WorkloadConfiguration {
            module_id: module.clone(),
            service_id: service.clone(),
            environment_id: site.head.environment_id.clone(),
            applied: None,
            applied_at: None,
            confirmed: deployment_service::serving_version(ledger, &site.commit.partition, &module).await?,
            confirmed_at: None,
            failed: Vec::new(),
            made_at: now,
        },
    };
    let workload = WorkloadConfiguration { applied: Some(number), applied_at: Some(now), ..workload };
    site.commit.put(&loaded, &workload)?;
    site.head.sequence += 1;
    let mut lineage = operation.lineage.clone();
    lineage.module_id = Some(module.clone());
    let new = NewEvent {
        id: synced_id(operation, index),
        event: Event::ConfigurationSynced(ConfigurationSynced {
            configuration_id: site.head.configuration_id.clone(),
            environment_id: site.head.environment_id.clone(),
            version: number,
            service_id: service,
            content_hash: site.version.content_hash.clone(),
        }),
        aggregate: site.head.configuration_id.clone(),
        sequence: site.head.sequence,
        caused_by: site.version.published_event_id.to_string(),
    };
    site.commit.event(&lineage, new)?;
    site.notes.push(format!("version {number} is applied to `{module}`"));
    Ok(())
}

/// The id of the event that tells of a workload's version; its place in the version's list never changes.
fn synced_id(operation: &Operation, index: usize) -> EventId {
    operation.cause().event("ConfigurationSynced", u32::try_from(index).unwrap_or(u32::MAX))
}

/// How far a look went.
#[derive(PartialEq)]
enum Looked {
    AtAll,
    /// The commit has no room for more.
    Partly,
}

/// Looks what came of the refreshes of those that the version was applied to.
async fn look(ledger: &Ledger, operation: &Operation, site: &mut Site) -> Result<Looked, Fault> {
    let number = site.version.version;
    let mut writes = 0;
    for index in 0..site.version.workloads.len() {
        if site.version.workloads[index].stage != Stage::Applied {
            continue;
        }
        if writes + NUDGE_WRITES > LOOK_WRITES_MAX {
            return Ok(Looked::Partly);
        }
        let module = site.version.workloads[index].module_id.clone();
        match deployment_service::course(ledger, &site.commit.partition, &module, number).await? {
            Course::UnderWay => continue,
            Course::Nothing => match nudge(ledger, operation, site, index).await? {
                Nudge::NotDue => continue,
                Nudge::Asked => writes += NUDGE_WRITES,
                Nudge::Spent => {
                    let why = format!(
                        "a refresh was asked for {NUDGES_MAX} times again, and none got as far as starting with it"
                    );
                    fail(ledger, site, index, &why).await?;
                }
            },
            Course::Gone => site.version.workloads[index].stage = Stage::Gone,
            Course::Carried(deployment) => confirm(ledger, site, index, deployment).await?,
            Course::Failed { deployment_id, reason } => {
                site.version.workloads[index].deployment_id = Some(deployment_id);
                fail(ledger, site, index, &reason).await?;
            }
        }
        writes += 1;
    }
    Ok(Looked::AtAll)
}

/// A revision that was started with the version serves.
async fn confirm(
    ledger: &Ledger,
    site: &mut Site,
    index: usize,
    deployment: DeploymentId,
) -> Result<(), Fault> {
    let (now, number) = (site.commit.now, site.version.version);
    let progress = &mut site.version.workloads[index];
    progress.stage = Stage::Confirmed;
    let module = progress.module_id.clone();
    site.notes.push(format!("`{module}` serves with version {number} (`{deployment}`)"));
    progress.deployment_id = Some(deployment);
    let id = WorkloadConfiguration::id(&module);
    let (workload, loaded) = ledger.load::<WorkloadConfiguration>(&site.commit.partition, &id).await?.take();
    let workload = workload.ok_or_else(|| state::missing(&id))?;
    let confirmed = Some(number).max(workload.confirmed);
    site.commit.put(&loaded, &WorkloadConfiguration { confirmed, confirmed_at: Some(now), ..workload })
}

enum Nudge {
    NotDue,
    Asked,
    Spent,
}

/// Asks for the refresh once more where the event that asks for it brought none about.
async fn nudge(
    ledger: &Ledger,
    operation: &Operation,
    site: &mut Site,
    index: usize,
) -> Result<Nudge, Fault> {
    let now = site.commit.now;
    let progress = &mut site.version.workloads[index];
    let patience = NUDGE_AFTER * i32::try_from(progress.nudges + 1).unwrap_or(i32::MAX);
    if progress.applied_at.is_some_and(|at| at + patience > now) {
        return Ok(Nudge::NotDue);
    }
    if progress.nudges == NUDGES_MAX {
        return Ok(Nudge::Spent);
    }
    progress.nudges += 1;
    let module = progress.module_id.clone();
    site.notes.push(format!("asks for the refresh of `{module}` again"));
    let wish = Wish {
        origin: Origin::Configuration,
        lineage: operation.lineage.clone(),
        caused_by: synced_id(operation, index).to_string(),
        wished_at: now,
    };
    refresh::refresh(ledger, &mut site.commit, &module, wish).await?;
    Ok(Nudge::Asked)
}

/// The version failed at a workload, which wants its last confirmed one again.
async fn fail(ledger: &Ledger, site: &mut Site, index: usize, why: &str) -> Result<(), Fault> {
    let number = site.version.version;
    let progress = &mut site.version.workloads[index];
    progress.stage = Stage::Failed;
    progress.reason = Some(why.to_owned());
    let module = progress.module_id.clone();
    let id = WorkloadConfiguration::id(&module);
    let (workload, loaded) = ledger.load::<WorkloadConfiguration>(&site.commit.partition, &id).await?.take();
    let mut workload = workload.ok_or_else(|| state::missing(&id))?;
    // Where a newer version was applied meanwhile, that one is not taken back.
    if workload.applied == Some(number) {
        workload.fail(number, why, site.commit.now);
        site.commit.put(&loaded, &workload)?;
    }
    let back = match workload.confirmed {
        Some(confirmed) => format!("it goes on with version {confirmed}"),
        None => "it goes on without a configuration".to_owned(),
    };
    site.notes.push(format!("`{module}` did not pass with version {number}: {why}; {back}"));
    Ok(())
}

/// Some workload did not pass. Where it was the first, the version comes to no other.
fn failed(operation: &Operation, mut site: Site, code: Option<ReasonCode>) -> Result<Step, Fault> {
    let number = site.number();
    let told: Vec<_> = site
        .version
        .workloads
        .iter()
        .filter(|progress| progress.stage == Stage::Failed)
        .map(|progress| {
            format!(
                "`{}` ({})",
                progress.module_id,
                progress.reason.as_deref().unwrap_or("no reason was recorded")
            )
        })
        .collect();
    let told = if told.is_empty() { "no workload".to_owned() } else { told.join(", ") };
    let detail = if site.is_established() {
        format!(
            "Version {number} is in place, but not everywhere. Each of these did not pass with it and keeps the last version that it was confirmed with: {told}. See `runtimectl explain` of its deployment, and publish a corrected version."
        )
    } else {
        site.version.status = VersionStatus::Failed;
        site.head.wanted_hash.clone_from(&site.head.established_hash);
        let kept = match site.head.established {
            Some(established) => format!("version {established} stays in place"),
            None => "there was none before it".to_owned(),
        };
        format!(
            "Version {number} did not pass and was applied to no other workload; {kept}. It failed at {told}. See `runtimectl explain` of its deployment, and publish a corrected version."
        )
    };
    site.version.reason = Some(detail.clone());
    site.head.sequence += 1;
    let id = operation.cause().event("RuntimeCommandFailed", 0);
    let new = NewEvent {
        id: id.clone(),
        event: Event::RuntimeCommandFailed(RuntimeCommandFailed {
            command_id: operation.lineage.command_id.clone(),
            command_type: operation.lineage.command_type.clone(),
            outcome: CommandOutcome::Failed,
            reason_code: code.unwrap_or(ReasonCode::GateFailed),
            detail: detail.clone(),
            retryable: code == Some(ReasonCode::TimedOut),
        }),
        aggregate: site.head.configuration_id.clone(),
        sequence: site.head.sequence,
        caused_by: site.version.published_event_id.to_string(),
    };
    site.commit.event(&operation.lineage, new)?;
    Ok(Step { outcome: Some(id), ..site.on("Failed", Then::Failed(detail))? })
}

/// What is applied and unconfirmed is taken back.
///
/// # Errors
/// When the store is away.
pub async fn give_up(platform: &Platform, operation: &Operation, why: &GiveUp) -> Result<Step, Fault> {
    let mut site = site(platform, operation).await?;
    if site.head.version > site.number() {
        return overtaken(site);
    }
    let mut taken = 0;
    for index in 0..site.version.workloads.len() {
        if site.version.workloads[index].stage == Stage::Applied && taken < BATCH {
            fail(&platform.ledger, &mut site, index, &why.sentence()).await?;
            taken += 1;
        }
    }
    if site.any(Stage::Applied) {
        return site.on("GivingUp", Then::Next);
    }
    let code = match why {
        GiveUp::Deadline => ReasonCode::TimedOut,
        GiveUp::Rejected { .. } | GiveUp::Attempts { .. } => ReasonCode::Conflict,
    };
    failed(operation, site, Some(code))
}
