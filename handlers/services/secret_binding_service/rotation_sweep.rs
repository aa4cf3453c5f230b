//! The rotation sweep: what is due is rotated, and old versions that nobody uses any more are disabled.
//!
//! A binding is due when its interval is over, or thirty days before its version ends. For what is due
//! the sweep sends the command that a person would send, once a day until it is done: its eventId
//! derives from binding, due date and day, so that two sweeps send one. An external secret is rotated
//! only where its issuer has put a newer version into the vault; else the report says that it is time.
//!
//! An old version is disabled after its overlap, and never while a binding names it or a workload was
//! started with it: it waits then, and the report says for whom. The sweep first records that it is
//! about to disable, in the document that every rotation of the secret begins with: from then on nobody
//! begins to use the version. What died in between is done by the next sweep.

use jiff::{SignedDuration, Timestamp};

use super::{
    all,
    rotate_secret::RotateSecret,
    rotation,
    rotation_state::SecretRotation,
    sharing,
    state::{BindingStatus, SecretBinding, Source},
};
use crate::{
    delivery::Command,
    envelope::{Envelope, whole_seconds},
    events::{RotationReason, queue_name},
    holds,
    ids::{self, CorrelationId, EventId, ModuleId, TraceId},
    ledger::{Commit, Loaded, OutboxMessage, inbox_id},
    outbox_relay,
    outcome::Fault,
    platform::Platform,
    ports::store::{Filter, Page},
    services::{deployment_service, runtime_environment_service},
    sweeps::{Scope, SweepReport},
};

/// How long before its end a version is replaced.
const BEFORE_EXPIRY: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Pages of rotations that one sweep goes through, of 100 each.
const PAGES_MAX: usize = 20;

/// Sweeps the secrets of one environment, or of one workload of it.
///
/// # Errors
/// When the store is away; what the vault withholds is told in the report.
pub async fn sweep(platform: &Platform, scope: &Scope) -> Result<SweepReport, Fault> {
    let mut report = SweepReport::new(scope);
    let bindings = all(&platform.ledger, &scope.partition).await?;
    if bindings.is_empty() {
        return Ok(report);
    }
    disable_what_is_over(platform, scope, &mut report).await?;
    let ours =
        |binding: &&SecretBinding| scope.module.as_ref().is_none_or(|module| binding.module_id == *module);
    let mut sent: Vec<&SecretBinding> = Vec::new();
    for binding in bindings.iter().filter(ours) {
        report.checked += 1;
        // Bindings of one secret are rotated together.
        if sent.iter().any(|other| other.shares(&binding.secret())) {
            continue;
        }
        if let Some(due) = due(binding, scope.now)
            && rotate(platform, scope, &mut report, (&bindings, binding), due).await?
        {
            sent.push(binding);
        }
    }
    Ok(report)
}

/// Why a binding is to be rotated, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    reason: RotationReason,
    since: Timestamp,
}

fn due(binding: &SecretBinding, now: Timestamp) -> Option<Due> {
    if binding.status != BindingStatus::Active || binding.version.is_none() {
        return None;
    }
    let near = binding.expires_at.and_then(|at| at.checked_sub(BEFORE_EXPIRY).ok());
    let near = near.map(|since| Due { reason: RotationReason::NearExpiry, since });
    let scheduled = binding.next_rotation_due_at;
    let scheduled = scheduled.map(|since| Due { reason: RotationReason::Scheduled, since });
    near.into_iter().chain(scheduled).find(|due| due.since <= now)
}

/// Sends the command for a binding that is due, or says why not.
async fn rotate(
    platform: &Platform,
    scope: &Scope,
    report: &mut SweepReport,
    (bindings, binding): (&[SecretBinding], &SecretBinding),
    due: Due,
) -> Result<bool, Fault> {
    let (id, name) = (&binding.secret_binding_id, &binding.secret_name);
    let what = format!("`{name}` ({id}) is due since {} ({})", whole_seconds::text(due.since), due.reason);
    let hold = holds::held(&platform.ledger, &scope.partition, Some(&binding.module_id), scope.now).await?;
    if let Some(hold) = hold {
        report.note(format!("{what}; not rotated: {}", hold.sentence()));
        return Ok(false);
    }
    let external =
        bindings.iter().find(|other| other.shares(&binding.secret()) && other.source == Source::External);
    let version = if external.is_some() {
        match newer(platform, binding).await {
            Ok(Some(version)) => Some(version),
            Ok(None) => {
                report.note(format!(
                    "{what}; it is external: have its issuer put a new version into `{}`, and it is rotated by itself",
                    binding.vault_uri
                ));
                return Ok(false);
            }
            Err(fault @ Fault::Conflict { .. }) => return Err(fault),
            Err(fault) => {
                report.unreadable += 1;
                report.note(format!("{what}; its vault cannot be read: {}", fault.chain()));
                return Ok(false);
            }
        }
    } else {
        None
    };
    let command = command(platform, scope, external.unwrap_or(binding), due, version).await?;
    let inbox = inbox_id(RotateSecret::NAME, command.event_id.as_str());
    if platform.ledger.raw(&scope.partition, &inbox).await?.is_some() {
        report.note(format!("{what}; asked for as `{}` today already", command.event_id));
        return Ok(true);
    }
    let mut commit = Commit::new(scope.partition.clone(), platform.clock.now());
    commit.message(&message(&command, commit.now))?;
    let committed = platform.ledger.commit(commit).await?;
    outbox_relay::publish(platform, committed).await;
    report.changed += 1;
    report.note(format!("{what}; sends RotateSecret `{}`", command.event_id));
    Ok(true)
}

/// The newest enabled version, where the binding has another.
async fn newer(platform: &Platform, binding: &SecretBinding) -> Result<Option<String>, Fault> {
    let current = platform.vault.current(&binding.secret()).await?;
    Ok(current.map(|current| current.version).filter(|version| binding.version.as_ref() != Some(version)))
}

/// The command as a person would send it, in the name of what is due.
async fn command(
    platform: &Platform,
    scope: &Scope,
    binding: &SecretBinding,
    due: Due,
    version: Option<String>,
) -> Result<Envelope, Fault> {
    let view =
        runtime_environment_service::find(&platform.ledger, &scope.partition, &scope.environment).await?;
    let day = scope.window.duration_since(due.since).as_secs().max(0) / (24 * 60 * 60);
    let id = ids::derive(&[
        "rotation-due",
        &scope.partition.tenant_id,
        &scope.partition.environment_id,
        &binding.secret_binding_id,
        &due.since.to_string(),
        &day.to_string(),
        version.as_deref().unwrap_or_default(),
    ]);
    let payload = RotateSecret {
        environment_id: scope.environment.to_string(),
        secret_binding_id: binding.secret_binding_id.clone(),
        reason: due.reason,
        version,
        source: None,
    };
    let payload = serde_json::to_value(payload).map_err(|error| unwritable(error.into()))?;
    let of = |text: String| text.parse::<EventId>().map_err(|error| unwritable(error.into()));
    Ok(Envelope {
        event_id: of(format!("{}{id}", EventId::PREFIX))?,
        event_type: RotateSecret::NAME.to_owned(),
        tenant_id: scope.tenant.clone(),
        project_id: view.map(|view| view.environment.project_id),
        module_id: Some(binding.module_id.clone()),
        trace_id: format!("trace-{id}").parse::<TraceId>().map_err(|error| unwritable(error.into()))?,
        correlation_id: format!("corr-{id}")
            .parse::<CorrelationId>()
            .map_err(|error| unwritable(error.into()))?,
        causation_id: None,
        occurred_at: scope.window,
        payload,
    })
}

fn unwritable(source: crate::outcome::Source) -> Fault {
    Fault::Unreadable { doing: "writing a RotateSecret that is due".to_owned(), source }
}

fn message(command: &Envelope, now: Timestamp) -> OutboxMessage {
    OutboxMessage::json(
        &queue_name(RotateSecret::NAME),
        command.event_id.broker_message_id().to_string(),
        command.canonical(),
        now,
    )
}

/// Disables the versions whose overlap is over and that nobody uses.
async fn disable_what_is_over(
    platform: &Platform,
    scope: &Scope,
    report: &mut SweepReport,
) -> Result<(), Fault> {
    let mut page = Page::first(100);
    for _ in 0..PAGES_MAX {
        let listing =
            platform.ledger.query::<SecretRotation>(&scope.partition, &Filter::default(), &page).await?;
        for (_, rotation) in listing.items {
            let is_due = rotation.retiring.iter().any(|entry| entry.not_before <= scope.now);
            if !rotation.is_running() && is_due {
                disable_of(platform, scope, report, &rotation.rotation_id).await?;
            }
        }
        page.after = listing.next;
        if page.after.is_none() {
            return Ok(());
        }
    }
    report.note(format!("there are more than {} secrets; the rest was left out", PAGES_MAX * 100));
    Ok(())
}

/// What is to become of a version that is on its way out.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// A binding names it again.
    Keep,
    /// Somebody needs it, for this reason.
    Wait(String),
    Disable,
}

async fn disable_of(
    platform: &Platform,
    scope: &Scope,
    report: &mut SweepReport,
    id: &str,
) -> Result<(), Fault> {
    let ledger = &platform.ledger;
    let (rotation, loaded) = ledger.load::<SecretRotation>(&scope.partition, id).await?.take();
    let Some(mut rotation) = rotation.filter(|rotation| !rotation.is_running()) else { return Ok(()) };
    let secret = rotation.secret();
    let module = rotation.targets.first().map(|target| target.module_id.clone());
    if let Some(hold) = holds::held(ledger, &scope.partition, module.as_ref(), scope.now).await? {
        report.note(format!("old versions of `{}` stay enabled: {}", secret.name, hold.sentence()));
        return Ok(());
    }
    let bindings = sharing(ledger, &scope.partition, &secret).await?;
    let modules: Vec<ModuleId> = bindings.iter().map(|binding| binding.module_id.clone()).collect();
    let in_use =
        deployment_service::secret_versions_in_use(ledger, &scope.partition, &modules, &secret).await?;
    let before = rotation.retiring.clone();
    let mut to_disable = Vec::new();
    for entry in &before {
        if entry.not_before > scope.now {
            continue;
        }
        report.checked += 1;
        let bound = bindings.iter().any(|binding| binding.version.as_ref() == Some(&entry.version));
        let user = in_use.iter().find(|user| user.version == entry.version).map(|user| user.why.clone());
        match fate(entry.disabling, entry.compromised, bound, user) {
            Fate::Keep => rotation.keep(&entry.version),
            Fate::Wait(why) => {
                report.note(format!("version {} of `{}` stays enabled: {why}", entry.version, secret.name));
            }
            Fate::Disable => to_disable.push(entry.version.clone()),
        }
    }
    for entry in &mut rotation.retiring {
        entry.disabling |= to_disable.contains(&entry.version);
    }
    if rotation.retiring != before {
        write(platform, scope, &loaded, &rotation).await?;
    }
    for version in to_disable {
        disable(platform, scope, report, id, &version).await?;
    }
    Ok(())
}

fn fate(disabling: bool, compromised: bool, bound: bool, user: Option<String>) -> Fate {
    match user {
        _ if disabling => Fate::Disable,
        _ if bound => Fate::Keep,
        Some(why) if !compromised => Fate::Wait(why),
        Some(_) | None => Fate::Disable,
    }
}

/// Disables a version that was recorded as being disabled, and forgets it.
async fn disable(
    platform: &Platform,
    scope: &Scope,
    report: &mut SweepReport,
    id: &str,
    version: &str,
) -> Result<(), Fault> {
    let (rotation, loaded) = platform.ledger.load::<SecretRotation>(&scope.partition, id).await?.take();
    let Some(mut rotation) = rotation else { return Ok(()) };
    let secret = rotation.secret();
    if let Err(fault) = rotation::disable(platform, &secret, version).await {
        report.unreadable += 1;
        report.note(format!(
            "version {version} of `{}` could not be disabled: {}",
            secret.name,
            fault.chain()
        ));
        return Ok(());
    }
    rotation.retiring.retain(|entry| entry.version != version);
    write(platform, scope, &loaded, &rotation).await?;
    report.changed += 1;
    report.note(format!("version {version} of `{}` is disabled: nobody uses it any more", secret.name));
    Ok(())
}

async fn write(
    platform: &Platform,
    scope: &Scope,
    loaded: &Loaded<SecretRotation>,
    rotation: &SecretRotation,
) -> Result<(), Fault> {
    let mut commit = Commit::new(scope.partition.clone(), platform.clock.now());
    commit.put(loaded, rotation)?;
    platform.ledger.commit(commit).await.map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn binding(change: impl FnOnce(&mut Value)) -> SecretBinding {
        let mut binding = json!({
            "secretBindingId": "sb-1",
            "environmentId": "env-1",
            "serviceId": "svc-1",
            "moduleId": "module-a",
            "secretName": "db-password",
            "vaultUri": "https://kv-1.vault.azure.net",
            "source": "Generated",
            "version": "v1",
            "managedIdentityId": "/subscriptions/1",
            "nextRotationDueAt": "2026-06-01T00:00:00Z",
            "expiresAt": "2026-06-20T00:00:00Z",
            "status": "Active",
            "operationId": "op-1",
            "sequence": 1,
            "madeAt": "2026-03-02T10:15:00Z",
        });
        change(&mut binding);
        serde_json::from_value(binding).unwrap()
    }

    #[test]
    fn a_binding_is_due_after_its_interval_or_thirty_days_before_its_end() {
        let at = |day: &str| format!("2026-{day}T00:00:00Z").parse::<Timestamp>().unwrap();
        let reason = |binding: &SecretBinding, day| due(binding, at(day)).map(|due| due.reason);
        let both = binding(|_| {});
        assert_eq!(reason(&both, "05-20"), None);
        assert_eq!(reason(&both, "05-21"), Some(RotationReason::NearExpiry));
        let scheduled = binding(|it| it["expiresAt"] = Value::Null);
        assert_eq!(reason(&scheduled, "05-31"), None);
        assert_eq!(reason(&scheduled, "06-01"), Some(RotationReason::Scheduled));
        for status in ["Pending", "Rotating", "Failed"] {
            assert_eq!(reason(&binding(|it| it["status"] = json!(status)), "12-01"), None);
        }
    }

    #[test]
    fn a_version_goes_only_when_nobody_needs_it() {
        let user = || Some("`dep-1` serves with it".to_owned());
        assert_eq!(fate(false, false, false, None), Fate::Disable);
        assert_eq!(fate(false, false, false, user()), Fate::Wait("`dep-1` serves with it".into()));
        assert_eq!(fate(false, false, true, None), Fate::Keep);
        // A compromised one goes whoever uses it, but not while a binding names it.
        assert_eq!(fate(false, true, false, user()), Fate::Disable);
        assert_eq!(fate(false, true, true, user()), Fate::Keep);
        // What was begun is brought to its end.
        assert_eq!(fate(true, false, true, user()), Fate::Disable);
    }
}
