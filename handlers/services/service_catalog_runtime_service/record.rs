//! What becomes of a service's record when something is told of it: a rule on values, and the writes
//! that follow from it.
//!
//! Redelivery is safe: a record that says already what is told stays as it is, and nothing is emitted.

use jiff::Timestamp;

use super::state::{PastService, RuntimeService, Scaled, ServiceInstance};
use crate::{
    events::{Event, HealthGateResult, InventoryChange, RuntimeInventoryUpdated, RuntimeStatus},
    ids::{Cause, ServiceId},
    ledger::{Commit, Ledger, Loaded, NewEvent},
    outcome::Fault,
    services::{deployment_service::Running, runtime_health_service::Health},
};

/// What was seen of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub at: Timestamp,
    /// None where it was not judged.
    pub health: Option<Health>,
    /// Replicas that are there, and ready ones; none where they were not counted.
    pub replicas: Option<(u32, u32)>,
    /// The workload's own host.
    pub host: Option<String>,
}

/// Records what serves, and what was seen of it. `caused_by` is the eventId of what told of it, and
/// `told` sets this telling apart from others of the same cause.
///
/// # Errors
/// When the store is away.
pub async fn observe(
    ledger: &Ledger,
    commit: &mut Commit,
    running: &Running,
    seen: &Observation,
    caused_by: &str,
    told: &str,
) -> Result<bool, Fault> {
    let id = running.service_id();
    let (before, loaded) = ledger.load::<RuntimeService>(&commit.partition, id.as_str()).await?.take();
    let mut now = next(before.as_ref(), id, running, seen);
    // A lineage that names no module would hide whose service it is.
    now.lineage.module_id = Some(running.module_id.clone());
    record(commit, before, &loaded, now, caused_by, told)
}

/// Records that nothing of a service runs any more.
///
/// # Errors
/// When the store is away.
pub async fn retire(ledger: &Ledger, commit: &mut Commit, id: &ServiceId, told: &str) -> Result<bool, Fault> {
    let (before, loaded) = ledger.load::<RuntimeService>(&commit.partition, id.as_str()).await?.take();
    let Some(before) = before.filter(|before| before.retired_at.is_none()) else { return Ok(false) };
    let now = RuntimeService {
        status: RuntimeStatus::Retired,
        replicas: 0,
        instances: Vec::new(),
        retired_at: Some(commit.now),
        last_observed_at: commit.now,
        ..before.clone()
    };
    let caused_by = before.completed_event_id.clone();
    record(commit, Some(before), &loaded, now, &caused_by, told)
}

/// Records how many replicas a scaling policy came to; what is older than what is known is passed over.
///
/// # Errors
/// When the store is away.
pub async fn scaled(
    ledger: &Ledger,
    commit: &mut Commit,
    id: &ServiceId,
    scaled: Scaled,
) -> Result<bool, Fault> {
    let (before, loaded) = ledger.load::<RuntimeService>(&commit.partition, id.as_str()).await?.take();
    let Some(before) = before else { return Ok(false) };
    let newer = |known: &Scaled| (known.at, &known.event_id) >= (scaled.at, &scaled.event_id);
    if before.scaled.as_ref().is_some_and(newer) {
        return Ok(false);
    }
    let caused_by = scaled.event_id.clone();
    let mut now = before.clone();
    // What was observed since is nearer the truth.
    if scaled.at >= before.last_observed_at && before.retired_at.is_none() {
        now.replicas = scaled.replicas;
        if scaled.replicas == 0 {
            now.status = RuntimeStatus::Stopped;
        }
    }
    now.scaled = Some(scaled);
    record(commit, Some(before), &loaded, now, &caused_by, &caused_by)
}

/// The record after what was seen. A service is `Running` only with a healthy instance.
fn next(
    before: Option<&RuntimeService>,
    id: ServiceId,
    running: &Running,
    seen: &Observation,
) -> RuntimeService {
    let deployment = &running.deployment;
    let same = before.filter(|before| before.deployment_id == deployment.deployment_id);
    let known = same.and_then(|before| before.instances.first()).map(|it| (it.replicas, it.healthy));
    // A gate that was passed saw at least one instance answer.
    let passed = deployment.gate_result == Some(HealthGateResult::Passed);
    let scaled = before.and_then(|before| before.scaled.clone());
    // Events of two topics come in any order: what was scaled after this deployment ended still counts.
    let since = |scaled: &&Scaled| {
        deployment.ended_at.is_some_and(|ended| scaled.at.as_second() >= ended.as_second())
    };
    let least = scaled.as_ref().filter(since).map_or(deployment.bounds().0, |scaled| scaled.replicas);
    let assumed = (least, if passed { least } else { 0 });
    let (replicas, healthy) = seen.replicas.or(known).unwrap_or(assumed);
    let judged = seen.health.or_else(|| same.map(|before| health_of(before.status)));
    let status = status(replicas, healthy, judged.unwrap_or_default(), deployment.workload.min_replicas == 0);
    let host = seen.host.as_ref().or(deployment.host.as_ref());
    RuntimeService {
        tenant_id: deployment.lineage.tenant_id.clone(),
        environment_id: deployment.environment_id.clone(),
        module_id: running.module_id.clone(),
        component_type: deployment.workload.component_type.clone(),
        image: deployment.workload.image.clone(),
        version: version(&deployment.workload.image),
        deployment_id: deployment.deployment_id.clone(),
        compute_target: deployment.workload.target.clone(),
        replicas,
        instances: vec![ServiceInstance {
            revision: deployment.revision.clone().unwrap_or_default(),
            replicas,
            healthy,
        }],
        endpoint_url: host
            .map(|host| format!("https://{host}"))
            .or_else(|| before.and_then(|before| before.endpoint_url.clone())),
        status,
        last_observed_at: seen.at.max(before.map_or(seen.at, |before| before.last_observed_at)),
        scaled,
        registered_at: before.map_or(seen.at, |before| before.registered_at),
        retired_at: None,
        sequence: before.map_or(0, |before| before.sequence),
        lineage: deployment.lineage.clone(),
        completed_event_id: running.completed_event_id.to_string(),
        service_id: id,
    }
}

fn status(replicas: u32, healthy: u32, health: Health, may_sleep: bool) -> RuntimeStatus {
    match (replicas, healthy, health) {
        (0, _, _) if may_sleep => RuntimeStatus::Stopped,
        (_, _, Health::Unhealthy) => RuntimeStatus::Failed,
        (_, 0, _) => RuntimeStatus::Pending,
        (_, _, Health::Degraded) => RuntimeStatus::Degraded,
        (replicas, healthy, Health::Healthy | Health::Unknown) if healthy < replicas => {
            RuntimeStatus::Degraded
        }
        (_, _, Health::Healthy | Health::Unknown) => RuntimeStatus::Running,
    }
}

fn health_of(status: RuntimeStatus) -> Health {
    match status {
        RuntimeStatus::Failed => Health::Unhealthy,
        RuntimeStatus::Degraded => Health::Degraded,
        RuntimeStatus::Running => Health::Healthy,
        RuntimeStatus::Pending | RuntimeStatus::Stopped | RuntimeStatus::Retired => Health::Unknown,
    }
}

/// The tag or digest of an image.
fn version(image: &str) -> Option<String> {
    if let Some((_, digest)) = image.split_once('@') {
        return Some(digest.to_owned());
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').map(|(_, tag)| tag.to_owned())
}

/// What consumers see of a service.
fn visible(service: &RuntimeService) -> (RuntimeStatus, &str, Option<&str>, u32) {
    (service.status, &service.image, service.version.as_deref(), service.replicas)
}

fn record(
    commit: &mut Commit,
    before: Option<RuntimeService>,
    loaded: &Loaded<RuntimeService>,
    mut now: RuntimeService,
    caused_by: &str,
    told: &str,
) -> Result<bool, Fault> {
    let change = match &before {
        None => Some(InventoryChange::Added),
        Some(before) if before.retired_at.is_some() && now.retired_at.is_none() => {
            Some(InventoryChange::Added)
        }
        Some(before) if now.retired_at.is_some() && before.retired_at.is_none() => {
            Some(InventoryChange::Retired)
        }
        Some(before) if visible(before) != visible(&now) => Some(InventoryChange::Changed),
        Some(_) => None,
    };
    let Some(change) = change else {
        // The time of a look that found nothing new is not worth a write.
        let same = before
            .is_some_and(|before| RuntimeService { last_observed_at: now.last_observed_at, ..before } == now);
        if !same {
            commit.put(loaded, &now)?;
        }
        return Ok(false);
    };
    now.sequence += 1;
    let environment = now.environment_id.to_string();
    let event_id = format!("{told}/{}", now.service_id);
    let cause = Cause {
        tenant: &now.tenant_id,
        environment: &environment,
        function: "ServiceCatalogRuntimeService",
        event_id: &event_id,
    };
    let event = Event::RuntimeInventoryUpdated(RuntimeInventoryUpdated {
        environment_id: now.environment_id.clone(),
        service_id: now.service_id.clone(),
        change,
        status: now.status,
        image: now.image.clone(),
        version: now.version.clone(),
        replicas: now.replicas,
    });
    let new = NewEvent {
        id: cause.event("RuntimeInventoryUpdated", 0),
        event,
        aggregate: now.service_id.to_string(),
        sequence: now.sequence,
        caused_by: caused_by.to_owned(),
    };
    commit.event(&now.lineage, new)?;
    let past = PastService {
        service_id: now.service_id.clone(),
        sequence: now.sequence,
        at: commit.now,
        change,
        status: now.status,
        image: now.image.clone(),
        version: now.version.clone(),
        deployment_id: now.deployment_id.clone(),
        replicas: now.replicas,
    };
    commit.overwrite(&PastService::id(&now.service_id, now.sequence), &past)?;
    commit.put(loaded, &now)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_needs_a_healthy_instance() {
        for replicas in 0..3 {
            for healthy in 0..=replicas {
                for health in [Health::Unknown, Health::Healthy, Health::Degraded, Health::Unhealthy] {
                    for may_sleep in [false, true] {
                        let status = status(replicas, healthy, health, may_sleep);
                        assert!(status != RuntimeStatus::Running || healthy > 0);
                    }
                }
            }
        }
        assert_eq!(status(0, 0, Health::Healthy, true), RuntimeStatus::Stopped);
        assert_eq!(status(2, 1, Health::Healthy, false), RuntimeStatus::Degraded);
        assert_eq!(status(2, 2, Health::Healthy, false), RuntimeStatus::Running);
        assert_eq!(status(2, 2, Health::Unhealthy, false), RuntimeStatus::Failed);
        assert_eq!(status(1, 0, Health::Unknown, false), RuntimeStatus::Pending);
    }

    #[test]
    fn the_version_is_the_tag_or_the_digest() {
        let versions =
            ["acr.azurecr.io/a:1.4", "localhost:5000/a", "acr.azurecr.io/a@sha256:00", "a:1"].map(version);
        assert_eq!(versions, [Some("1.4".into()), None, Some("sha256:00".into()), Some("1".into())]);
    }
}
