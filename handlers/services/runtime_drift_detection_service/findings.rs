//! The life of a finding: what a sighting, or its absence, makes of it. Functions of values; a sweep
//! writes what they say.

use jiff::{SignedDuration, Timestamp};

use super::{
    policy::{self, Circumstances, Verdict},
    state::{FindingStatus, Remediation, RuntimeDriftFinding, Suppression},
    suppressions,
    workload::Sighting,
};
use crate::{
    events::{DriftResolution, DriftSeverity},
    ids::{DeploymentId, DriftFindingId, EnvironmentId, ServiceId},
    ledger::Lineage,
    services::runtime_environment_service::resources::Stage,
};

/// Looks that must see a drift before it is told; one for what is critical.
const SIGHTINGS_TO_OPEN: u32 = 2;
/// The pause before a sweep gives the same order again.
const ORDER_AGAIN: SignedDuration = SignedDuration::from_mins(4);

/// What all findings of one sweep have in common.
#[derive(Clone, Debug)]
pub struct Scene<'a> {
    pub environment: &'a EnvironmentId,
    pub stage: Stage,
    /// The sweep, by its window.
    pub window: Timestamp,
    pub now: Timestamp,
    pub suppressions: &'a [Suppression],
    /// Why this is a storm, where it is one.
    pub storm: Option<&'a str>,
}

/// Where the events of a finding come from: what it is about was made by a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Provenance {
    pub lineage: Lineage,
    pub caused_by: String,
    pub service_id: Option<ServiceId>,
    pub deployment_id: Option<DeploymentId>,
}

/// What is to be told of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Nothing,
    Detected,
    Resolved,
}

/// A drift that was not there at the last look.
pub fn first_seen(
    scene: &Scene<'_>,
    id: DriftFindingId,
    fingerprint: &str,
    sighting: &Sighting,
    from: Provenance,
    attempts: &[Timestamp],
) -> (RuntimeDriftFinding, Told) {
    let mut finding = RuntimeDriftFinding {
        finding_id: id,
        environment_id: scene.environment.clone(),
        module_id: sighting.module_id.clone(),
        service_id: from.service_id,
        finding_hash: fingerprint.to_owned(),
        resource_id: sighting.resource.clone(),
        path: sighting.path.clone(),
        kind: sighting.kind,
        severity: sighting.severity,
        desired: sighting.desired.clone(),
        actual: sighting.actual.clone(),
        status: FindingStatus::Suspected,
        auto_remediable: false,
        destructive: sighting.destructive,
        waits: None,
        last_writer: sighting.writer.clone(),
        suppressed_by: None,
        first_seen_at: scene.window,
        last_seen_at: scene.window,
        seen_in: scene.window,
        sightings: 1,
        opened_at: None,
        resolved_at: None,
        resolution: None,
        desired_deployment_id: from.deployment_id,
        remediation: Remediation::default(),
        lineage: from.lineage,
        caused_by: from.caused_by,
        sequence: 0,
    };
    let told = if finding.severity == DriftSeverity::Critical {
        open(scene, &mut finding, sighting, attempts)
    } else {
        Told::Nothing
    };
    (finding, told)
}

/// A drift that is still there. The same sweep twice is one look.
pub fn seen_again(
    scene: &Scene<'_>,
    finding: &mut RuntimeDriftFinding,
    sighting: &Sighting,
    from: Provenance,
    attempts: &[Timestamp],
) -> Told {
    if finding.seen_in >= scene.window {
        return Told::Nothing;
    }
    let rises = sighting.severity > finding.severity;
    finding.seen_in = scene.window;
    finding.last_seen_at = scene.window;
    finding.sightings = finding.sightings.saturating_add(1);
    finding.severity = sighting.severity;
    finding.desired = sighting.desired.clone();
    finding.actual = sighting.actual.clone();
    finding.last_writer = sighting.writer.clone();
    finding.desired_deployment_id = from.deployment_id;
    let suppression = suppressions::of(scene.suppressions, sighting);
    match finding.status {
        FindingStatus::Suspected => {
            let is_sure =
                finding.sightings >= SIGHTINGS_TO_OPEN || finding.severity == DriftSeverity::Critical;
            if is_sure { open(scene, finding, sighting, attempts) } else { Told::Nothing }
        }
        FindingStatus::Suppressed if suppression.is_none() => open(scene, finding, sighting, attempts),
        FindingStatus::Suppressed => Told::Nothing,
        FindingStatus::Open | FindingStatus::Remediating | FindingStatus::Contested => {
            if let Some(suppression) = suppression {
                suppress(finding, suppression);
                return Told::Nothing;
            }
            judge(scene, finding, attempts);
            if rises {
                finding.sequence += 1;
                return Told::Detected;
            }
            Told::Nothing
        }
        FindingStatus::Resolved => Told::Nothing,
    }
}

/// A complete look did not see it any more. `put_right` says whether what serves by now was rolled out
/// to put the workload right.
pub fn unseen(scene: &Scene<'_>, finding: &mut RuntimeDriftFinding, put_right: bool) -> Told {
    let resolution = if put_right || finding.remediation.attempts > 0 {
        DriftResolution::Remediated
    } else {
        DriftResolution::Healed
    };
    resolve(finding, resolution, scene.now)
}

/// Ends a finding.
pub fn resolve(finding: &mut RuntimeDriftFinding, resolution: DriftResolution, now: Timestamp) -> Told {
    let told = finding.was_told();
    finding.status = FindingStatus::Resolved;
    finding.auto_remediable = false;
    finding.waits = None;
    finding.resolved_at = Some(now);
    finding.resolution = told.then_some(resolution);
    if !told {
        return Told::Nothing;
    }
    finding.sequence += 1;
    Told::Resolved
}

/// Whether a sweep should order the remediation: the order that the event itself led to was lost, held
/// back, or did not help.
pub fn wants_order(scene: &Scene<'_>, finding: &RuntimeDriftFinding) -> bool {
    let is_old = finding.opened_at.is_some_and(|at| at < scene.window);
    is_old
        && finding.status == FindingStatus::Open
        && finding.auto_remediable
        && finding.remediation.not_before.is_none_or(|at| at <= scene.now)
}

/// Counts an order.
pub fn ordered(finding: &mut RuntimeDriftFinding, now: Timestamp) {
    finding.remediation.orders += 1;
    finding.remediation.not_before = Some(now + ORDER_AGAIN);
}

fn open(
    scene: &Scene<'_>,
    finding: &mut RuntimeDriftFinding,
    sighting: &Sighting,
    attempts: &[Timestamp],
) -> Told {
    if let Some(suppression) = suppressions::of(scene.suppressions, sighting) {
        suppress(finding, suppression);
        return Told::Nothing;
    }
    finding.opened_at = Some(scene.window);
    finding.suppressed_by = None;
    finding.remediation.not_before = Some(policy::not_before(attempts, scene.now));
    judge(scene, finding, attempts);
    finding.sequence += 1;
    Told::Detected
}

fn suppress(finding: &mut RuntimeDriftFinding, suppression: &Suppression) {
    finding.status = FindingStatus::Suppressed;
    finding.auto_remediable = false;
    finding.waits = None;
    finding.suppressed_by = Some(suppression.suppression_id.clone());
}

/// Open, contested, and whether the platform may act. What was found in a storm goes on waiting.
fn judge(scene: &Scene<'_>, finding: &mut RuntimeDriftFinding, attempts: &[Timestamp]) {
    let circumstances = Circumstances {
        stage: scene.stage,
        attempts,
        writer: finding.last_writer.as_deref(),
        storm: scene.storm,
        now: scene.now,
    };
    let waited = finding.status == FindingStatus::Open && finding.waits.is_some();
    finding.status = if policy::is_contested(attempts, scene.now) {
        FindingStatus::Contested
    } else {
        FindingStatus::Open
    };
    match policy::verdict(finding.kind, finding.destructive, &circumstances) {
        Verdict::Auto if waited => {}
        Verdict::Auto => {
            finding.auto_remediable = true;
            finding.waits = None;
        }
        Verdict::Waits(why) => {
            finding.auto_remediable = false;
            finding.waits = Some(why);
        }
    }
}
