//! A rollout, step by step: the revision beside the one that serves, the health gate, the traffic.
//!
//! Each step records what it is about to do before it does it, reads the world before it changes it,
//! and may be taken twice. Orders to end the rollout are looked at before every step.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{
    beginning::{self, TurnedAway},
    ending::{self, Site},
    rolling_back,
    state::{DeploymentStatus, GateRecord, Origin, RuntimeDeployment, Slot},
    stopping::stop,
};
use crate::{
    events::{CommandOutcome, HealthGateResult, ReasonCode, RolledBackReason},
    holds::{self, Hold},
    ids::DeploymentId,
    ledger::Commit,
    operations::{GiveUp, Operation, Step, Then},
    outcome::Fault,
    platform::Platform,
    ports::{
        compute::{self, Observed, Revision},
        probe::{Answer, ProbeTarget, Sample},
        store::Partition,
    },
    services::runtime_health_service::health_gate::{self, Readiness, Verdict},
};

/// The longest pause between two looks, whatever the gate's interval is.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The shortest pause while a hold is in force.
const HELD_PAUSE_MIN: Duration = Duration::from_secs(1);
/// How early a tick may be: the broker schedules to whole seconds.
const TICK_ROUNDING: SignedDuration = SignedDuration::from_millis(500);

/// Takes the next step of a deployment's operation.
///
/// # Errors
/// What the store or Azure withheld.
pub async fn step(platform: &Platform, operation: &Operation) -> Result<Step, Fault> {
    let site = site(platform, operation).await?;
    let status = site.deployment.status;
    if let Some(cancel) = site.deployment.cancel.clone()
        && status != DeploymentStatus::RollingBack
    {
        let why = match cancel.reason {
            RolledBackReason::Superseded => "superseded by a newer Deploy".to_owned(),
            RolledBackReason::Operator | RolledBackReason::Cancelled | RolledBackReason::GateFailed => {
                site.deployment.reason.clone().unwrap_or_else(|| "ended by an operator".to_owned())
            }
        };
        return rolling_back::turn(site, cancel.reason, why);
    }
    match status {
        DeploymentStatus::Queued => queued(platform, operation, site).await,
        DeploymentStatus::Requested => requested(platform, operation, site).await,
        DeploymentStatus::Provisioning => provisioning(platform, site).await,
        DeploymentStatus::Configuring => configuring(platform, operation, site).await,
        DeploymentStatus::RollingOut => rolling_out(platform, site).await,
        DeploymentStatus::HealthGating => health_gating(platform, site).await,
        DeploymentStatus::Promoting => promoting(platform, operation, site).await,
        DeploymentStatus::RollingBack => rolling_back::step(platform, operation, site).await,
        DeploymentStatus::Completed | DeploymentStatus::RolledBack | DeploymentStatus::Failed => {
            let detail = format!("`{}` has ended already", site.deployment.deployment_id);
            site.on(Then::Succeeded(detail))
        }
    }
}

async fn site(platform: &Platform, operation: &Operation) -> Result<Site, Fault> {
    let partition = Partition::environment(&operation.lineage.tenant_id, &operation.environment_id);
    let (deployment, loaded) =
        platform.ledger.load::<RuntimeDeployment>(&partition, &operation.subject).await?.take();
    let deployment = deployment.ok_or_else(|| super::deploy::missing(&operation.subject))?;
    Ok(Site { deployment, loaded, commit: Commit::new(partition, platform.clock.now()), notes: Vec::new() })
}

/// It has no turn yet; whoever ends before it starts it. Once it is known that it may run, it ends
/// whoever is in flight and has no traffic.
async fn queued(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    if site.deployment.image_digest.is_none() {
        if let Err(no) = beginning::resolve(platform, &mut site).await? {
            return turned_away(platform, operation, site, no).await;
        }
        let slot = slot(platform, &site).await?;
        if let Err(no) = beginning::judged(slot.as_ref(), &site.deployment) {
            return turned_away(platform, operation, site, no).await;
        }
        beginning::take_place(&platform.ledger, operation, &mut site).await?;
    }
    site.on(Then::Hold(PAUSE_MAX))
}

async fn slot(platform: &Platform, site: &Site) -> Result<Option<Slot>, Fault> {
    let id = Slot::id(&site.deployment.module_id);
    Ok(platform.ledger.load::<Slot>(&site.commit.partition, &id).await?.state)
}

/// Ends a deployment that may not begin.
async fn turned_away(
    platform: &Platform,
    operation: &Operation,
    site: Site,
    no: TurnedAway,
) -> Result<Step, Fault> {
    let TurnedAway { code, detail } = no;
    ending::failed(platform, operation, site, CommandOutcome::Rejected, code, detail).await
}

/// Holds and quarantine are judged here, not when the command came: the deployment may have waited.
async fn requested(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    if let Some(hold) = held(platform, &site).await? {
        let left = Duration::try_from(hold.until.duration_since(site.now())).unwrap_or_default();
        if operation.notes.last().is_none_or(|note| !note.text.contains(&hold.hold_id)) {
            site.note(format!("waits: {}", hold.sentence()));
        }
        return site.on(Then::Hold(left.clamp(HELD_PAUSE_MIN, PAUSE_MAX)));
    }
    if let Err(no) = beginning::resolve(platform, &mut site).await? {
        return turned_away(platform, operation, site, no).await;
    }
    let slot = slot(platform, &site).await?;
    if let Err(no) = beginning::judged(slot.as_ref(), &site.deployment) {
        return turned_away(platform, operation, site, no).await;
    }
    let image = site.deployment.workload.image.clone();
    site.deployment.previous = slot.and_then(|slot| slot.serving);
    site.deployment.status = DeploymentStatus::Provisioning;
    match site.deployment.previous.clone() {
        Some(previous) => {
            site.note(format!("{image} over {}, which serves as {}", previous.image, previous.revision))
        }
        None => site.note(format!("{image} is the first deployment of `{}`", site.deployment.module_id)),
    }
    site.on(Then::Next)
}

/// The hold that keeps what the platform does by itself from beginning; a person's Deploy is not held.
async fn held(platform: &Platform, site: &Site) -> Result<Option<Hold>, Fault> {
    if site.deployment.origin == Origin::Deploy {
        return Ok(None);
    }
    let module = &site.deployment.module_id;
    holds::held(&platform.ledger, &site.commit.partition, Some(module), site.now()).await
}

/// The environment is there when its target answers for the workload.
async fn provisioning(platform: &Platform, mut site: Site) -> Result<Step, Fault> {
    let workload = site.deployment.workload_ref();
    let observed = platform.compute.observe(&workload).await?;
    site.deployment.revision =
        Some(platform.compute.revision_name(&workload, &site.deployment.revision_suffix()));
    if site.deployment.origin == Origin::Drift {
        without_what_is_gone(&mut site, observed.as_ref());
    }
    site.deployment.host = observed.and_then(|observed| observed.host);
    site.deployment.status = DeploymentStatus::Configuring;
    site.on(Then::Next)
}

/// What served before may be what is to be put right: where its revision is gone or switched off, there
/// is nobody to share the traffic with, and nothing to go back to.
fn without_what_is_gone(site: &mut Site, observed: Option<&Observed>) {
    let Some(previous) = &site.deployment.previous else { return };
    let runs = observed
        .and_then(|observed| observed.revisions.get(&previous.revision))
        .is_some_and(|revision| revision.active);
    if !runs {
        let note = format!("{} does not run any more; all the traffic is for the new one", previous.revision);
        site.note(note);
        site.deployment.previous = None;
    }
}

/// What the revision is started with is fixed from here on.
async fn configuring(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    if let Err(no) = beginning::configure(platform, &mut site).await? {
        return turned_away(platform, operation, site, no).await;
    }
    site.deployment.status = DeploymentStatus::RollingOut;
    site.deployment.configured_at = Some(site.now());
    let name = site.deployment.revision.clone().unwrap_or_default();
    let version = site
        .deployment
        .configuration
        .as_ref()
        .map_or("no configuration".to_owned(), |it| format!("configuration {}", it.version));
    site.note(format!(
        "revision {name}: {} settings, {version}, {} secrets, port {}",
        site.deployment.workload.env.len(),
        site.deployment.secrets.len(),
        site.deployment.workload.port
    ));
    site.on(Then::Next)
}

async fn rolling_out(platform: &Platform, mut site: Site) -> Result<Step, Fault> {
    let workload = site.deployment.workload_ref();
    let step = match site.deployment.pending.take() {
        Some(token) => platform.compute.resume(&token).await?,
        None => platform.compute.stage(&workload, &site.deployment.revision_spec()).await?,
    };
    match step {
        compute::Step::Pending { token, again_in } => {
            site.deployment.pending = Some(token);
            site.on(Then::Wait(again_in))
        }
        compute::Step::Done => {
            site.deployment.status = DeploymentStatus::HealthGating;
            site.deployment.gate_started_at = Some(site.now());
            let share = if site.deployment.previous.is_some() { "0 %" } else { "100 %, being the first," };
            let name = site.deployment.revision.clone().unwrap_or_default();
            site.note(format!("revision {name} is made, with {share} of the traffic"));
            site.on(Then::Next)
        }
    }
}

/// One sample, and the verdict on all there are.
async fn health_gating(platform: &Platform, mut site: Site) -> Result<Step, Fault> {
    let started_at = site.deployment.gate_started_at.unwrap_or(site.now());
    let observed = platform.compute.observe(&site.deployment.workload_ref()).await?.unwrap_or_default();
    let mut record = gate_record(platform, &site).await?;
    let gate = site.deployment.health_gate.clone();
    let revision = own_revision(&site.deployment, &observed).cloned();
    site.deployment.host = observed.host.clone().or(site.deployment.host);
    let readiness = Readiness::of(revision.as_ref());
    let about_now = platform.clock.now() + TICK_ROUNDING;
    if health_gate::wants_sample(&gate, started_at, about_now, &readiness, &record.samples)
        && let Some(sample) = sample(platform, &site.deployment, revision.as_ref()).await
    {
        site.note(format!("sample {}: {}", record.samples.len() + 1, in_words(&sample)));
        record.samples.push(sample);
    }
    let verdict = health_gate::judge(&gate, started_at, platform.clock.now(), &readiness, &record.samples);
    let id = GateRecord::id(&site.deployment.deployment_id);
    let (result, why) = match verdict {
        Verdict::Running { next_in } => {
            site.commit.overwrite(&id, &record)?;
            return site.on(Then::Wait(next_in.min(PAUSE_MAX)));
        }
        Verdict::Inconclusive { reason } => {
            site.note(format!(
                "the gate cannot tell ({reason}); it holds until RollbackDeployment or a newer Deploy"
            ));
            record.reason = Some(reason);
            site.commit.overwrite(&id, &record)?;
            return site.on(Then::Wait(PAUSE_MAX));
        }
        Verdict::Passed => (HealthGateResult::Passed, None),
        Verdict::Failed { kind, reason } => {
            site.deployment.application_failed = kind.blames_application();
            (HealthGateResult::Failed, Some(reason))
        }
        Verdict::TimedOut { reason } => (HealthGateResult::TimedOut, Some(reason)),
    };
    record.verdict = result.to_string();
    record.reason.clone_from(&why);
    site.commit.overwrite(&id, &record)?;
    site.deployment.gate_result = Some(result);
    match why {
        Some(why) => {
            site.note(format!("health gate {result}: {why}"));
            rolling_back::turn(site, RolledBackReason::GateFailed, why)
        }
        None => {
            site.note(format!("health gate Passed after {} samples", record.samples.len()));
            site.deployment.status = DeploymentStatus::Promoting;
            // The first weight is recorded here, before any traffic moves: from now on a newer Deploy
            // waits instead of superseding.
            site.deployment.weight = site.deployment.weights()[0];
            site.on(Then::Next)
        }
    }
}

async fn gate_record(platform: &Platform, site: &Site) -> Result<GateRecord, Fault> {
    let id: &DeploymentId = &site.deployment.deployment_id;
    let record = platform.ledger.load::<GateRecord>(&site.commit.partition, &GateRecord::id(id)).await?.state;
    Ok(record.unwrap_or_else(|| GateRecord {
        deployment_id: id.clone(),
        started_at: site.deployment.gate_started_at.unwrap_or(site.commit.now),
        samples: Vec::new(),
        verdict: "Running".to_owned(),
        reason: None,
    }))
}

fn own_revision<'a>(deployment: &RuntimeDeployment, observed: &'a Observed) -> Option<&'a Revision> {
    observed.revisions.get(deployment.revision.as_deref()?)
}

/// Asks the revision's own host, which reaches it whatever the traffic.
async fn sample(
    platform: &Platform,
    deployment: &RuntimeDeployment,
    revision: Option<&Revision>,
) -> Option<Sample> {
    let host = revision?.host.clone()?;
    let gate = &deployment.health_gate;
    let target = ProbeTarget { host, path: gate.path.clone(), timeout: gate.timeout };
    Some(platform.probe.probe(&target).await)
}

fn in_words(sample: &Sample) -> String {
    match &sample.answer {
        Answer::Status { status, .. } => format!("{status} in {} ms", sample.latency_ms),
        Answer::Unreachable { reason } => format!("not reached: {reason}"),
        Answer::TimedOut => format!("no answer within {} ms", sample.latency_ms),
        Answer::Forbidden { reason } => format!("not asked: {reason}"),
    }
}

/// Gives traffic in steps, and looks after each whether the workload still answers.
async fn promoting(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    if site.deployment.weight_in_place != site.deployment.weight {
        return shift(platform, site).await;
    }
    let observed = platform.compute.observe(&site.deployment.workload_ref()).await?.unwrap_or_default();
    site.deployment.host = observed.host.clone().or(site.deployment.host);
    let revision = own_revision(&site.deployment, &observed).cloned();
    let Some(sample) = sample(platform, &site.deployment, revision.as_ref()).await else {
        let why = "its revision is not there any more".to_owned();
        return rolling_back::turn(site, RolledBackReason::GateFailed, why);
    };
    let gate = site.deployment.health_gate.clone();
    let is_good =
        matches!(sample.answer, Answer::Status { status, .. } if gate.expect_status.contains(&status));
    if is_good {
        site.deployment.failures_in_a_row = 0;
    } else {
        site.deployment.failures_in_a_row += 1;
        site.note(format!("while shifting: {}", in_words(&sample)));
    }
    if site.deployment.failures_in_a_row > gate.failure_limit {
        site.deployment.gate_result = Some(HealthGateResult::Failed);
        site.deployment.application_failed = true;
        let why = format!(
            "it stopped answering well at {} % of the traffic: {}",
            site.deployment.weight,
            in_words(&sample)
        );
        return rolling_back::turn(site, RolledBackReason::GateFailed, why);
    }
    let interval = gate.interval.min(PAUSE_MAX);
    if site.deployment.failures_in_a_row > 0 {
        return site.on(Then::Wait(interval));
    }
    let weight = site.deployment.weight;
    if let Some(next) = site.deployment.weights().iter().copied().find(|next| *next > weight) {
        site.deployment.weight = next;
        return site.on(Then::Wait(interval));
    }
    if bakes(&site.deployment, site.now()) {
        return site.on(Then::Wait(interval));
    }
    let previous = site.deployment.previous.as_ref().map(|previous| previous.revision.clone());
    stop(platform, operation, &mut site, &observed, previous.as_deref()).await?;
    if site.deployment.origin == Origin::Drift {
        let own = site.deployment.revision.clone();
        let others =
            observed.revisions.values().filter(|other| other.active && Some(&other.name) != own.as_ref());
        for other in others.filter(|other| Some(&other.name) != previous.as_ref()) {
            stop(platform, operation, &mut site, &observed, Some(&other.name)).await?;
        }
    }
    ending::completed(platform, operation, site).await
}

async fn shift(platform: &Platform, mut site: Site) -> Result<Step, Fault> {
    let step = match site.deployment.pending.take() {
        Some(token) => platform.compute.resume(&token).await?,
        None => {
            let weights = split(&site.deployment);
            platform.compute.shift(&site.deployment.workload_ref(), &weights).await?
        }
    };
    match step {
        compute::Step::Pending { token, again_in } => {
            site.deployment.pending = Some(token);
            site.on(Then::Wait(again_in))
        }
        compute::Step::Done => {
            let weight = site.deployment.weight;
            site.deployment.weight_in_place = weight;
            if weight == 100 {
                site.deployment.shifted_at = Some(site.now());
            }
            let name = site.deployment.revision.clone().unwrap_or_default();
            site.note(format!("traffic: {weight} % to {name} ({})", site.deployment.workload.image));
            site.on(Then::Next)
        }
    }
}

/// Whether all the traffic is too fresh to believe in. A first deployment had it while it was gated.
fn bakes(deployment: &RuntimeDeployment, now: Timestamp) -> bool {
    let Some(shifted_at) = deployment.shifted_at.filter(|_| deployment.previous.is_some()) else {
        return false;
    };
    now + TICK_ROUNDING < shifted_at.saturating_add(deployment.health_gate.bake).unwrap_or(Timestamp::MAX)
}

/// The traffic that is meant, by revision: what is not for the new one stays with the one before.
fn split(deployment: &RuntimeDeployment) -> BTreeMap<String, u32> {
    let mut weights = BTreeMap::new();
    if let Some(revision) = &deployment.revision {
        weights.insert(revision.clone(), deployment.weight);
    }
    if let Some(previous) = &deployment.previous
        && deployment.weight < 100
    {
        weights.insert(previous.revision.clone(), 100 - deployment.weight);
    }
    weights
}

/// What a rollout does when it cannot go on: go back, or, where it was going back, fail.
///
/// # Errors
/// When the store is away.
pub async fn give_up(platform: &Platform, operation: &Operation, why: &GiveUp) -> Result<Step, Fault> {
    let site = site(platform, operation).await?;
    let detail = why.sentence();
    match site.deployment.status {
        DeploymentStatus::RollingBack => {
            let detail = format!(
                "Rolling `{}` back failed: {detail}. See where the traffic goes and send RollbackDeployment again.",
                site.deployment.deployment_id
            );
            ending::failed(
                platform,
                operation,
                site,
                CommandOutcome::Failed,
                ReasonCode::RollbackFailed,
                detail,
            )
            .await
        }
        // Its revision may exist from here on.
        DeploymentStatus::RollingOut | DeploymentStatus::HealthGating | DeploymentStatus::Promoting => {
            let mut site = site;
            site.deployment.gate_result = match why {
                GiveUp::Deadline => Some(HealthGateResult::TimedOut),
                GiveUp::Rejected { .. } | GiveUp::Attempts { .. } => Some(HealthGateResult::Failed),
            };
            rolling_back::turn(site, RolledBackReason::GateFailed, detail)
        }
        DeploymentStatus::Queued
        | DeploymentStatus::Requested
        | DeploymentStatus::Provisioning
        | DeploymentStatus::Configuring
        | DeploymentStatus::Completed
        | DeploymentStatus::RolledBack
        | DeploymentStatus::Failed => {
            let code = match why {
                GiveUp::Deadline => ReasonCode::TimedOut,
                GiveUp::Rejected { .. } | GiveUp::Attempts { .. } => ReasonCode::ProvisioningFailed,
            };
            let detail = format!(
                "`{}` failed before anything was rolled out: {detail}",
                site.deployment.deployment_id
            );
            ending::failed(platform, operation, site, CommandOutcome::Failed, code, detail).await
        }
    }
}
