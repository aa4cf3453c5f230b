//! One sweep: look, see what that makes of each finding, and write it down.
//!
//! Findings are written a few at a time, each few in one commit with what is told of them and with the
//! index of the partition, so that two sweeps, or a sweep and a command, never pass each other. A sweep
//! that is delivered twice finds what it has seen already and changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{
    findings::{self, Provenance, Scene, Told},
    look::{self, Look},
    policy, remediation,
    state::{self, DriftIndex, FindingStatus, RuntimeDriftFinding},
    suppressions,
    workload::Sighting,
};
use crate::{
    events::{DriftKind, DriftSeverity},
    holds,
    ids::{DriftFindingId, ModuleId, ServiceId},
    ledger::{Commit, Ledger, Loaded},
    outbox_relay,
    outcome::Fault,
    platform::Platform,
    services::{
        deployment_service::{self, state::Origin},
        runtime_environment_service::ProvisioningStatus,
        tenant_runtime_isolation_service::Ground,
    },
    sweeps::{self, Scope, SweepReport},
};

/// Findings of one partition that are not over; further drifts are counted and not kept.
const FINDINGS_MAX: usize = 200;
/// Findings that one commit writes.
const COMMIT_FINDINGS_MAX: usize = 20;
/// The pause before a suspicion is looked at again.
const CONFIRM_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// How long what was opened counts as drifting at once.
const AT_ONCE: SignedDuration = SignedDuration::from_mins(10);
/// Findings whose ids may share eight digits.
const ORDINALS_MAX: u32 = 8;

/// Sweeps one environment, or one workload of it.
///
/// # Errors
/// When the store is away. What Azure withholds is told in the report.
pub async fn sweep(platform: &Platform, scope: &Scope) -> Result<SweepReport, Fault> {
    let mut report = SweepReport::new(scope);
    let ledger = &platform.ledger;
    let Some(ground) = Ground::find(ledger, &scope.tenant, &scope.environment).await? else {
        return Ok(report);
    };
    if ground.environment().status != ProvisioningStatus::Provisioned {
        return Ok(report);
    }
    let known = active(ledger, scope).await?;
    let suspects = known.values().filter_map(|known| known.finding.module_id.clone()).collect();
    let look = look::look(platform, scope, &ground, &suspects, &mut report).await?;
    let suppressions = suppressions::in_force(ledger, &scope.partition, scope.now).await?;
    let drifting = drifting(scope, &known, &look);
    let storm = storm(ledger, scope, drifting).await?;
    if let Some(storm) = &storm {
        report.note(storm.clone());
    }
    let scene = Scene {
        environment: &scope.environment,
        stage: ground.environment().stage,
        window: scope.window,
        now: scope.now,
        suppressions: &suppressions,
        storm: storm.as_deref(),
    };
    let mut changes = Vec::new();
    let attempts = attempts(ledger, scope).await?;
    let nothing = Vec::new();
    let mut seen = BTreeSet::new();
    let mut known = known;
    let mut room = FINDINGS_MAX.saturating_sub(known.len());
    for sighting in &look.sightings {
        let fingerprint =
            state::fingerprint(&scope.environment, &sighting.resource, &sighting.path, sighting.kind);
        let Some(from) = provenance(scope, &ground, &look, sighting) else {
            report.note(format!("`{}` is not as desired, and nobody is there to be told", sighting.resource));
            continue;
        };
        let attempts = attempts.get(&fingerprint).unwrap_or(&nothing);
        seen.insert(fingerprint.clone());
        if let Some(known) = known.remove(&fingerprint) {
            let mut finding = known.finding;
            let before = finding.clone();
            let told = findings::seen_again(&scene, &mut finding, sighting, from.clone(), attempts);
            let mut change = Change { fingerprint, loaded: known.loaded, finding, told, from, order: false };
            if change.finding.status == FindingStatus::Contested && before.status != FindingStatus::Contested
            {
                report.note(sentence(&change.finding, change.finding.waits.as_deref().unwrap_or_default()));
            }
            if findings::wants_order(&scene, &change.finding) {
                change.order = may_act(platform, scope, &change.finding, &mut report).await?;
                if change.order {
                    findings::ordered(&mut change.finding, scope.now);
                }
            }
            if change.finding != before {
                changes.push(change);
            }
        } else if room > 0 {
            room -= 1;
            let (id, loaded) = free_id(ledger, scope, &fingerprint).await?;
            let (finding, told) =
                findings::first_seen(&scene, id, &fingerprint, sighting, from.clone(), attempts);
            changes.push(Change { fingerprint, loaded, finding, told, from, order: false });
        } else {
            report.note(format!("more than {FINDINGS_MAX} findings are not over; further ones are not kept"));
        }
    }
    for (fingerprint, gone) in known {
        if !covers(scope, &look, &gone.finding) {
            continue;
        }
        let mut finding = gone.finding;
        let put_right = is_put_right(&look, &finding);
        let told = findings::unseen(&scene, &mut finding, put_right);
        let from = ending(&look, &finding);
        changes.push(Change { fingerprint, loaded: gone.loaded, finding, told, from, order: false });
    }
    report.changed += u32::try_from(changes.len()).unwrap_or(u32::MAX);
    for few in changes.chunks(COMMIT_FINDINGS_MAX) {
        write(platform, scope, few).await?;
    }
    Ok(report)
}

/// A finding that is not over, as it was loaded.
struct Known {
    finding: RuntimeDriftFinding,
    loaded: Loaded<RuntimeDriftFinding>,
}

/// What becomes of one finding.
struct Change {
    fingerprint: String,
    loaded: Loaded<RuntimeDriftFinding>,
    finding: RuntimeDriftFinding,
    told: Told,
    from: Provenance,
    /// Whether the remediation is ordered.
    order: bool,
}

async fn index(ledger: &Ledger, scope: &Scope) -> Result<(DriftIndex, Loaded<DriftIndex>), Fault> {
    let (index, loaded) = ledger.load::<DriftIndex>(&scope.partition, DriftIndex::ID).await?.take();
    Ok((index.unwrap_or_else(|| DriftIndex::new(scope.environment.clone(), scope.now)), loaded))
}

/// The findings that are not over, by fingerprint.
async fn active(ledger: &Ledger, scope: &Scope) -> Result<BTreeMap<String, Known>, Fault> {
    let (index, _) = index(ledger, scope).await?;
    let mut active = BTreeMap::new();
    for (fingerprint, track) in index.tracks {
        let Some(id) = track.finding_id else { continue };
        let (finding, loaded) =
            ledger.load::<RuntimeDriftFinding>(&scope.partition, id.as_str()).await?.take();
        if let Some(finding) = finding.filter(|finding| finding.status != FindingStatus::Resolved) {
            active.insert(fingerprint, Known { finding, loaded });
        }
    }
    Ok(active)
}

async fn attempts(ledger: &Ledger, scope: &Scope) -> Result<BTreeMap<String, Vec<Timestamp>>, Fault> {
    let (index, _) = index(ledger, scope).await?;
    Ok(index.tracks.into_iter().map(|(fingerprint, track)| (fingerprint, track.attempts)).collect())
}

/// Why this is a storm: more workloads are suspected, or were found a moment ago, than can be chance.
async fn storm(ledger: &Ledger, scope: &Scope, drifting: usize) -> Result<Option<String>, Fault> {
    if policy::storm(drifting, 1).is_none() {
        return Ok(None);
    }
    let workloads = deployment_service::workloads(ledger, &scope.partition).await?;
    let serving = workloads.iter().filter(|workload| workload.serves).count();
    Ok(policy::storm(drifting, serving))
}

/// Workloads that are suspected, or were found to drift a moment ago.
fn drifting(scope: &Scope, known: &BTreeMap<String, Known>, look: &Look) -> usize {
    let is_fresh = |finding: &RuntimeDriftFinding| match finding.status {
        FindingStatus::Suspected => true,
        FindingStatus::Open | FindingStatus::Remediating => {
            finding.opened_at.is_some_and(|at| scope.now.duration_since(at) < AT_ONCE)
        }
        FindingStatus::Suppressed | FindingStatus::Contested | FindingStatus::Resolved => false,
    };
    let fresh = known.values().map(|known| &known.finding).filter(|finding| is_fresh(finding));
    let mut drifting: BTreeSet<&ModuleId> = fresh.filter_map(|finding| finding.module_id.as_ref()).collect();
    for sighting in &look.sightings {
        let fingerprint =
            state::fingerprint(&scope.environment, &sighting.resource, &sighting.path, sighting.kind);
        if !known.contains_key(&fingerprint) {
            drifting.extend(sighting.module_id.as_ref());
        }
    }
    drifting.len()
}

/// What a drift's events come from: what was deployed, or that the environment was provisioned.
fn provenance(scope: &Scope, ground: &Ground, look: &Look, sighting: &Sighting) -> Option<Provenance> {
    let of_running = |module: &ModuleId| {
        let running = look.running.get(module)?;
        let mut lineage = running.deployment.lineage.clone();
        lineage.module_id = Some(module.clone());
        Some(Provenance {
            lineage,
            caused_by: running.completed_event_id.to_string(),
            service_id: Some(ServiceId::derived(&scope.tenant, &scope.environment, module)),
            deployment_id: Some(running.deployment.deployment_id.clone()),
        })
    };
    if let Some(module) = &sighting.module_id {
        return of_running(module);
    }
    let of_nobody = |from: Provenance| Provenance { service_id: None, deployment_id: None, ..from };
    match ground {
        Ground::Own { environment, .. } => {
            let provisioned = environment.environment.provisioned_by.clone()?;
            let caused_by = provisioned.event_id.to_string();
            Some(Provenance {
                lineage: provisioned.lineage,
                caused_by,
                service_id: None,
                deployment_id: None,
            })
        }
        Ground::Bound { .. } => look.running.keys().next().and_then(of_running).map(of_nobody),
    }
}

/// What the end of a finding comes from: what serves by now; where nothing does, what told of it.
fn ending(look: &Look, finding: &RuntimeDriftFinding) -> Provenance {
    let running = finding.module_id.as_ref().and_then(|module| look.running.get(module));
    let (lineage, caused_by) = match running {
        Some(running) => {
            let mut lineage = running.deployment.lineage.clone();
            lineage.module_id.clone_from(&finding.module_id);
            (lineage, running.completed_event_id.to_string())
        }
        None => (finding.lineage.clone(), remediation::first_event_id(finding).to_string()),
    };
    Provenance { lineage, caused_by, service_id: None, deployment_id: None }
}

/// Whether what serves by now is a corrective deployment that came after what was found to drift: it
/// puts all of a workload right, whichever finding it was ordered for.
fn is_put_right(look: &Look, finding: &RuntimeDriftFinding) -> bool {
    let running = finding.module_id.as_ref().and_then(|module| look.running.get(module));
    running.is_some_and(|running| {
        running.deployment.origin == Origin::Drift
            && finding.desired_deployment_id.as_ref() != Some(&running.deployment.deployment_id)
    })
}

/// Whether a sweep would have seen a finding's drift, if it were still there.
fn covers(scope: &Scope, look: &Look, finding: &RuntimeDriftFinding) -> bool {
    match (&finding.module_id, &scope.module) {
        (Some(module), Some(only)) => module == only && !look.unseen.contains(module),
        (Some(module), None) => !look.unseen.contains(module),
        (None, Some(_)) => false,
        (None, None) if finding.kind == DriftKind::UnexpectedWorkload => look.listing,
        (None, None) => look.infrastructure,
    }
}

/// Whether automation may act; a hold is told.
async fn may_act(
    platform: &Platform,
    scope: &Scope,
    finding: &RuntimeDriftFinding,
    report: &mut SweepReport,
) -> Result<bool, Fault> {
    let module = finding.module_id.as_ref();
    let held = holds::held(&platform.ledger, &scope.partition, module, scope.now).await?;
    if let Some(hold) = &held {
        report.note(sentence(finding, &format!("would be put right, but {}", hold.sentence())));
    }
    Ok(held.is_none())
}

fn sentence(finding: &RuntimeDriftFinding, what: &str) -> String {
    let name = finding.resource_id.rsplit('/').next().unwrap_or(&finding.resource_id);
    format!("{} ({} of {name}{}): {what}", finding.finding_id, finding.kind, finding.path)
}

async fn free_id(
    ledger: &Ledger,
    scope: &Scope,
    fingerprint: &str,
) -> Result<(DriftFindingId, Loaded<RuntimeDriftFinding>), Fault> {
    let first_seen = scope.window.to_string();
    for ordinal in 0..ORDINALS_MAX {
        let id =
            DriftFindingId::derived(&scope.tenant, &scope.environment, fingerprint, &first_seen, ordinal);
        let loaded = ledger.load::<RuntimeDriftFinding>(&scope.partition, id.as_str()).await?;
        if loaded.state.is_none() {
            return Ok((id, loaded));
        }
    }
    Err(Fault::Rejected {
        doing: "finding an id for a finding".to_owned(),
        code: "Conflict".to_owned(),
        detail: format!("{ORDINALS_MAX} other findings have the ids that this one could have"),
    })
}

/// Writes some findings, what is told of them, and the index, in one commit.
async fn write(platform: &Platform, scope: &Scope, changes: &[Change]) -> Result<(), Fault> {
    let ledger = &platform.ledger;
    let (mut index, index_loaded) = index(ledger, scope).await?;
    let mut commit = Commit::new(scope.partition.clone(), scope.now);
    for change in changes {
        let Change { fingerprint, loaded, finding, told, from, order } = change;
        let track = index.tracks.entry(fingerprint.clone()).or_default();
        let is_over = finding.status == FindingStatus::Resolved;
        track.finding_id = (!is_over).then(|| finding.finding_id.clone());
        commit.put(loaded, finding)?;
        remediation::tell(&mut commit, finding, *told, &from.lineage, &from.caused_by)?;
        if *order {
            let number = format!("sweep {}", finding.remediation.orders);
            let cause = remediation::first_event_id(finding);
            remediation::order(&mut commit, finding, &number, cause.as_str())?;
        }
    }
    for track in index.tracks.values_mut() {
        track.attempts.retain(|at| scope.now.duration_since(*at) < policy::ATTEMPTS_WITHIN);
    }
    index.tracks.retain(|_, track| track.finding_id.is_some() || !track.attempts.is_empty());
    commit.put(&index_loaded, &index)?;
    let is_suspicion = |change: &&Change| {
        change.finding.status == FindingStatus::Suspected && change.finding.severity < DriftSeverity::Critical
    };
    if let Some(first) = changes.iter().find(is_suspicion) {
        let (kind, why) = (sweeps::Kind::Drift, format!("confirm {}", first.finding.finding_id));
        let at = scope.now + CONFIRM_AFTER;
        sweeps::nudge_at(&mut commit, kind, &scope.tenant, &scope.environment, None, &why, at)?;
    }
    let committed = ledger.commit(commit).await?;
    outbox_relay::publish(platform, committed).await;
    Ok(())
}
