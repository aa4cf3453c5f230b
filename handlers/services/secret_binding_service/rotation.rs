//! The steps of a rotation.
//!
//! The new version is made, or found, and verified before anything points to it. Then one binding
//! after the other moves, each in one commit with its `SecretRotated`; DeploymentService refreshes the
//! workload behind its gate, and the rotation waits for what the workload's slot says before it goes
//! on. Where nobody asked for the refresh, since the event was lost, the rotation asks itself.
//!
//! The old version stays enabled: the sweep disables it after the overlap, once nobody uses it
//! (`rotation_sweep.rs`). A workload that does not pass its gate with the new version keeps the old
//! one, and so does its binding: it moves back, and the rotation ends failed. A *compromised* version is
//! different: all bindings move at once, none goes back, and it is disabled with the last
//! confirmation or after ten minutes, whoever uses it.
//!
//! Every step may be taken twice: making is tagged with the operation, moving is one commit, disabling
//! twice is disabling once.

use std::time::Duration;

use jiff::SignedDuration;

use super::{
    bind_secret::{LOOK_AGAIN, ROLE_SETTLES, is_forbidden},
    moving::Site,
    rotation_state::{COMPROMISED_OVERLAP, OVERLAP, Receipt, RotationStatus, Target},
    state::Source,
};
use crate::{
    events::ReasonCode,
    holds,
    ledger::Lineage,
    operations::{GiveUp, Operation, Step, Then},
    outcome::Fault,
    platform::Platform,
    ports::vault::SecretVersion,
    services::deployment_service::{
        refresh::{self, Refresh, Wish},
        secret_course,
        state::Origin,
        workloads::Course,
    },
};

/// Bindings of a compromised secret that one commit moves.
const MOVED_AT_ONCE: usize = 20;
/// Receipts that one commit writes.
const RECEIPTS_AT_ONCE: usize = 20;
/// Refreshes that one commit asks for.
const ASKED_AT_ONCE: usize = 5;
/// How long nothing may happen at a workload before the rotation asks for its refresh itself.
const LATE: SignedDuration = SignedDuration::from_mins(1);
/// Between two looks at workloads that are being refreshed, and once that takes long.
const PAUSE: Duration = Duration::from_secs(5);
const LONG_PAUSE: Duration = Duration::from_secs(30);
/// How long a refresh is looked at often.
const SOON: SignedDuration = SignedDuration::from_mins(10);
/// The shortest and the longest pause while a hold is in force.
const HELD_PAUSE_MIN: Duration = Duration::from_secs(1);
const HELD_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Takes the next step of a rotation's operation.
///
/// # Errors
/// What the store or the vault withheld.
pub async fn step(platform: &Platform, operation: &Operation) -> Result<Step, Fault> {
    let site = Site::find(platform, operation).await?;
    match site.rotation.status {
        RotationStatus::Making => making(platform, operation, site).await,
        RotationStatus::Verifying => verifying(platform, operation, site).await,
        RotationStatus::Moving => moving(platform, operation, site).await,
        RotationStatus::Refreshing => refreshing(platform, operation, site).await,
        RotationStatus::Disabling => disabling(platform, site).await,
        RotationStatus::Completed | RotationStatus::Failed => {
            let detail = format!("`{}` has ended already", site.rotation.rotation_id);
            site.on(Then::Succeeded(detail))
        }
    }
}

async fn making(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    if let Some(pause) = held(platform, operation, &mut site).await? {
        return site.on(Then::Hold(pause));
    }
    let version = match version(platform, operation, &site).await {
        Ok(Ok(version)) => version,
        Ok(Err(detail)) => return site.failed(platform, operation, ReasonCode::Conflict, detail).await,
        // Somebody was just given the role, and Azure does not know everywhere yet.
        Err(Fault::Rejected { code, .. })
            if is_forbidden(&code) && site.now() < operation.started_at + ROLE_SETTLES =>
        {
            site.note(format!("`{}` may not be used yet; looks again", site.rotation.vault_uri));
            return site.on(Then::Wait(LOOK_AGAIN));
        }
        Err(fault) => return Err(fault),
    };
    let rotation = &mut site.rotation;
    let is_there = rotation.targets.iter().all(|target| target.from.as_ref() == Some(&version.version));
    rotation.keep(&version.version);
    rotation.expires_at = version.expires_at;
    rotation.version = Some(version.version.clone());
    if is_there {
        return site.nothing(platform, operation).await;
    }
    rotation.status = RotationStatus::Verifying;
    let how = match rotation.source {
        Source::Generated => "is made",
        Source::External => "was put there",
    };
    let note = format!("version {} of `{}` {how}", version.version, rotation.secret_name);
    site.note(note);
    site.on(Then::Next)
}

/// How long a rotation that the platform began by itself waits for the end of a hold; none where
/// nothing holds it. One that a person sent goes on, and only says that the refreshes will wait.
async fn held(
    platform: &Platform,
    operation: &Operation,
    site: &mut Site,
) -> Result<Option<Duration>, Fault> {
    let module = site.rotation.targets.first().map(|target| target.module_id.clone());
    let hold = holds::held(&platform.ledger, &site.commit.partition, module.as_ref(), site.now()).await?;
    let Some(hold) = hold else { return Ok(None) };
    if !site.rotation.is_automatic() {
        let all_the_same = match site.rotation.is_compromised() {
            true => "; the old version is disabled in ten minutes all the same",
            false => "",
        };
        site.note(format!("workloads are refreshed when the hold ends{all_the_same}: {}", hold.sentence()));
        return Ok(None);
    }
    if operation.notes.last().is_none_or(|note| !note.text.contains(&hold.hold_id)) {
        site.note(format!("waits: {}", hold.sentence()));
    }
    let left = Duration::try_from(hold.until.duration_since(site.now())).unwrap_or_default();
    Ok(Some(left.clamp(HELD_PAUSE_MIN, HELD_PAUSE_MAX)))
}

/// The version to move to, or why there is none.
async fn version(
    platform: &Platform,
    operation: &Operation,
    site: &Site,
) -> Result<Result<SecretVersion, String>, Fault> {
    let rotation = &site.rotation;
    let secret = rotation.secret();
    let found = match (rotation.source, &rotation.asked_version) {
        (Source::Generated, _) => {
            return Ok(Ok(platform.vault.generate(&secret, operation.operation_id.as_str()).await?));
        }
        (Source::External, None) => platform.vault.current(&secret).await?,
        (Source::External, Some(asked)) => {
            let versions = platform.vault.versions(&secret).await?;
            versions.into_iter().find(|version| version.version == *asked && version.enabled)
        }
    };
    Ok(match (found, &rotation.asked_version) {
        (Some(version), _) if rotation.is_being_disabled(&version.version) => Err(format!(
            "Version {} of `{}` was replaced and is being disabled. Put a new one into `{}` and send RotateSecret again; what was bound stays bound.",
            version.version, secret.name, secret.vault_uri
        )),
        (Some(version), _) => Ok(version),
        (None, Some(asked)) => Err(format!(
            "There is no enabled version {asked} of `{}` in `{}`. Put it there, or name another, and send RotateSecret again; what was bound stays bound.",
            secret.name, secret.vault_uri
        )),
        (None, None) => Err(format!(
            "There is no enabled version of `{}` in `{}`. Put one there and send RotateSecret again; what was bound stays bound.",
            secret.name, secret.vault_uri
        )),
    })
}

async fn verifying(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    let (secret, version) = (site.rotation.secret(), site.rotation.version.clone().unwrap_or_default());
    if platform.vault.verify(&secret, &version).await? {
        site.note(format!("version {version} can be read"));
        site.rotation.status = RotationStatus::Moving;
        return site.on(Then::Next);
    }
    let detail = format!(
        "Version {version} of `{}` cannot be read: it is disabled, or has no value. What was bound stays bound. See the version in `{}` and send RotateSecret again.",
        secret.name, secret.vault_uri
    );
    discard(&mut site);
    site.failed(platform, operation, ReasonCode::Conflict, detail).await
}

/// A version that was made here and that nobody will use is on its way out too.
fn discard(site: &mut Site) {
    let not_before = site.now() + OVERLAP;
    if let (Source::Generated, Some(version)) = (site.rotation.source, site.rotation.version.clone()) {
        site.rotation.retire(&version, not_before);
    }
}

/// The old versions are on their way out: the sweep disables them when nobody uses them.
fn retire(site: &mut Site) {
    let overlap = if site.rotation.is_compromised() { COMPROMISED_OVERLAP } else { OVERLAP };
    let not_before = site.now() + overlap;
    for version in site.rotation.old_versions() {
        site.rotation.retire(&version, not_before);
    }
}

async fn moving(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    let at_once = if site.rotation.is_compromised() { MOVED_AT_ONCE } else { 1 };
    let waiting =
        (0..site.rotation.targets.len()).filter(|index| site.rotation.targets[*index].moved_at.is_none());
    let batch: Vec<usize> = waiting.take(at_once).collect();
    for index in &batch {
        site.forth(platform, operation, *index).await?;
        let target = &site.rotation.targets[*index];
        let note = format!("`{}` moves for `{}`", target.secret_binding_id, target.module_id);
        site.note(note);
    }
    let left = site.rotation.targets.iter().any(|target| target.moved_at.is_none());
    if !(left && site.rotation.is_compromised()) {
        site.rotation.status = RotationStatus::Refreshing;
    }
    site.on(Then::Next)
}

/// What one look at the workloads found.
#[derive(Default)]
struct Look {
    receipts: usize,
    asked: usize,
    /// A deployment of one of them is in flight.
    under_way: bool,
}

async fn refreshing(platform: &Platform, operation: &Operation, mut site: Site) -> Result<Step, Fault> {
    let look = look(platform, operation, &mut site).await?;
    let (now, compromised) = (site.now(), site.rotation.is_compromised());
    let targets = &site.rotation.targets;
    let failed = targets.iter().find(|target| matches!(target.receipt, Some(Receipt::Failed { .. })));
    let failed = failed.cloned();
    let waits = targets.iter().any(|target| target.moved_at.is_some() && target.receipt.is_none());
    let left = targets.iter().any(|target| target.moved_at.is_none());
    if let Some(failed) = failed.as_ref().filter(|_| !compromised) {
        return gone_back(platform, operation, site, failed).await;
    }
    let armed = site.rotation.old_versions().iter().any(|old| !site.rotation.disabled.contains(old));
    let over = site.rotation.moved_at().is_some_and(|moved_at| now >= moved_at + COMPROMISED_OVERLAP);
    if compromised && armed && (over || !waits && failed.is_none()) {
        site.rotation.status = RotationStatus::Disabling;
        return site.on(Then::Next);
    }
    if waits || (compromised && armed) {
        let began = site.rotation.targets.iter().filter_map(|target| target.moved_at).max();
        let soon = began.is_none_or(|began| now < began + SOON);
        let pause = if soon { PAUSE } else { LONG_PAUSE };
        // What is in flight has a deadline of its own, and a hold its end: that time is not ours.
        let patient = look.under_way || !waits;
        return site.on(if patient { Then::Hold(pause) } else { Then::Wait(pause) });
    }
    if left {
        site.rotation.status = RotationStatus::Moving;
        return site.on(Then::Next);
    }
    match failed {
        Some(failed) => {
            let detail = cut_off(&site, &failed);
            site.failed(platform, operation, ReasonCode::GateFailed, detail).await
        }
        None => {
            retire(&mut site);
            site.completed()
        }
    }
}

/// Looks at the workloads that have not confirmed yet, and writes down what became of them.
async fn look(platform: &Platform, operation: &Operation, site: &mut Site) -> Result<Look, Fault> {
    let mut look = Look::default();
    let secret = site.rotation.secret();
    let version = site.rotation.version.clone().unwrap_or_default();
    for index in 0..site.rotation.targets.len() {
        let target = site.rotation.targets[index].clone();
        let Some(moved_at) = target.moved_at.filter(|_| target.receipt.is_none()) else { continue };
        if look.receipts == RECEIPTS_AT_ONCE {
            break;
        }
        let (ledger, partition) = (&platform.ledger, &site.commit.partition);
        let course =
            secret_course(ledger, partition, &target.module_id, (&secret, &version), moved_at).await?;
        let receipt = match course {
            Course::Gone => Receipt::NothingServes,
            Course::Carried(deployment) => Receipt::Confirmed { deployment_id: deployment.to_string() },
            Course::UnderWay => {
                look.under_way = true;
                continue;
            }
            Course::Nothing => {
                let silent = site.now() >= target.asked_at.unwrap_or(moved_at) + LATE;
                if silent && look.asked < ASKED_AT_ONCE {
                    look.asked += 1;
                    ask(platform, operation, site, index).await?;
                }
                continue;
            }
            Course::Failed { deployment_id, reason } => {
                Receipt::Failed { reason: format!("`{deployment_id}` did not pass: {reason}") }
            }
        };
        look.receipts += 1;
        if matches!(receipt, Receipt::Failed { .. }) && !site.rotation.is_compromised() {
            site.back(platform, operation, index).await?;
        }
        site.settle(platform, index, receipt).await?;
    }
    Ok(look)
}

/// Asks for the refresh of a workload at which nothing happens.
async fn ask(platform: &Platform, operation: &Operation, site: &mut Site, index: usize) -> Result<(), Fault> {
    let Target { module_id, event_id, .. } = site.rotation.targets[index].clone();
    let caused_by = event_id.map_or_else(|| operation.caused_by.clone(), |id| id.to_string());
    let lineage = Lineage {
        command_id: caused_by.clone(),
        command_type: "SecretRotated".to_owned(),
        ..operation.lineage.clone()
    };
    let wish = Wish { origin: Origin::Secret, lineage, caused_by, wished_at: site.now() };
    let began = refresh::refresh(&platform.ledger, &mut site.commit, &module_id, wish).await?;
    site.rotation.targets[index].asked_at = Some(site.now());
    site.note(match began {
        Refresh::Began(id) => format!("nothing happened at `{module_id}`: `{id}` refreshes it"),
        Refresh::Waits => format!("`{module_id}` is refreshed when what is in flight has ended"),
        Refresh::NothingServes => format!("nothing of `{module_id}` serves"),
    });
    Ok(())
}

/// The binding of the workload that did not pass is back at its old version; what moved before stays.
async fn gone_back(
    platform: &Platform,
    operation: &Operation,
    mut site: Site,
    failed: &Target,
) -> Result<Step, Fault> {
    let rotation = &site.rotation;
    let detail = format!(
        "`{}` did not pass with version {} of `{}` and keeps version {}, which stays enabled: {}. See `runtimectl explain` of its deployment, mend it or the secret, and send RotateSecret again.",
        failed.module_id,
        rotation.version.as_deref().unwrap_or_default(),
        rotation.secret_name,
        failed.from.as_deref().unwrap_or("none"),
        reason_of(failed)
    );
    retire(&mut site);
    discard(&mut site);
    site.failed(platform, operation, ReasonCode::GateFailed, detail).await
}

fn reason_of(target: &Target) -> &str {
    match &target.receipt {
        Some(Receipt::Failed { reason }) => reason.trim_end_matches('.'),
        Some(Receipt::Confirmed { .. } | Receipt::NothingServes) | None => "no reason was recorded",
    }
}

/// A workload still runs with a compromised version that is disabled by now.
fn cut_off(site: &Site, failed: &Target) -> String {
    let rotation = &site.rotation;
    format!(
        "Version {} of `{}` is disabled, being compromised, and `{}` was started with it: {}. It runs on until it is started anew. Deploy a version of it that passes; it starts with version {}.",
        rotation.disabled.join(", "),
        rotation.secret_name,
        failed.module_id,
        reason_of(failed),
        rotation.version.as_deref().unwrap_or_default()
    )
}

async fn disabling(platform: &Platform, mut site: Site) -> Result<Step, Fault> {
    let secret = site.rotation.secret();
    let next = site.rotation.old_versions().into_iter().find(|old| !site.rotation.disabled.contains(old));
    match next {
        Some(version) => {
            disable(platform, &secret, &version).await?;
            site.note(format!("version {version} is disabled"));
            site.rotation.retiring.retain(|entry| entry.version != version);
            site.rotation.disabled.push(version);
        }
        None => site.rotation.status = RotationStatus::Refreshing,
    }
    site.on(Then::Next)
}

/// Disables a version; one that is gone is disabled enough.
///
/// # Errors
/// What the vault withheld.
pub(super) async fn disable(
    platform: &Platform,
    secret: &crate::ports::vault::SecretRef,
    version: &str,
) -> Result<(), Fault> {
    match platform.vault.disable(secret, version).await {
        Err(Fault::Rejected { code, .. }) if code == "SecretNotFound" => Ok(()),
        answer => answer,
    }
}

/// What a rotation does when it cannot go on: what moved stays moved, what was not reached stays, and
/// no version is disabled that somebody uses.
///
/// # Errors
/// When the store is away.
pub async fn give_up(platform: &Platform, operation: &Operation, why: &GiveUp) -> Result<Step, Fault> {
    let mut site = Site::find(platform, operation).await?;
    let code = match why {
        GiveUp::Deadline => ReasonCode::TimedOut,
        GiveUp::Rejected { code, .. } if code == "Cancelled" => ReasonCode::Cancelled,
        GiveUp::Rejected { .. } | GiveUp::Attempts { .. } => ReasonCode::Conflict,
    };
    let why = why.sentence();
    let moved: Vec<usize> = (0..site.rotation.targets.len())
        .filter(|index| site.rotation.targets[*index].moved_at.is_some())
        .collect();
    let name = site.rotation.secret_name.clone();
    if moved.is_empty() {
        let detail = format!(
            "`{name}` could not be rotated: {why}. What was bound stays bound. See that the platform may read and write secrets in `{}`, and send RotateSecret again.",
            site.rotation.vault_uri
        );
        discard(&mut site);
        return site.failed(platform, operation, code, detail).await;
    }
    let waiting: Vec<usize> =
        moved.into_iter().filter(|index| site.rotation.targets[*index].receipt.is_none()).collect();
    for index in waiting {
        let reason = "its rotation ended before it was confirmed".to_owned();
        site.settle(platform, index, Receipt::Failed { reason }).await?;
    }
    retire(&mut site);
    let until = if site.rotation.is_compromised() { "for ten minutes" } else { "until nobody uses it" };
    let detail = format!(
        "The rotation of `{name}` did not come to its end: {why}. The bindings that moved are at version {}, and the old version stays enabled {until}; see that `runtimectl get secret-bindings` and what serves agree, and send RotateSecret again.",
        site.rotation.version.as_deref().unwrap_or_default()
    );
    site.failed(platform, operation, code, detail).await
}
