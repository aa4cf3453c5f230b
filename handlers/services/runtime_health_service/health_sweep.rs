//! The health sweep: asks every workload of an environment how it is, every thirty seconds.
//!
//! Each workload is asked at its serving revision's own host, by the terms of its deployment's gate; a
//! new revision that is being rolled out is the gate's business. Replicas are counted every two minutes,
//! and at once where a workload does not answer: Resource Manager is a budget for the whole subscription.
//! A look that tells nothing new is written only where replicas were counted; the sweep's report says that
//! it looked.
//!
//! `HealthCheckCompleted` is emitted at a transition, and as a heartbeat. Where more than a fifth of the
//! environment's workloads (three at least) flip to Unhealthy in one sweep, or the canary does not
//! answer, they become Unknown and nothing is emitted: rather the prober is ill than the fleet. The canary
//! is a host under the environment's ingress that nobody has: any answer shows that the way is open. A
//! fleet that really fails is told three windows later, since from Unknown nothing flips.
//!
//! Redelivery is safe: a workload whose result is of this window or a later one is passed over.

use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::SignedDuration;

use super::{
    evaluate::{self, Look, Seen, Standing, TRIES},
    state::{Check, Health, HealthCheckResult, Transition},
};
use crate::{
    events::{CheckSummary, Event, HealthCheckCompleted},
    ids::{self, Cause, ServiceId},
    ledger::{Change, Commit, NewEvent},
    outbox_relay,
    outcome::Fault,
    platform::Platform,
    ports::{
        compute::Observed,
        probe::{Answer, ProbeTarget},
    },
    services::{
        deployment_service::{self, Running},
        service_catalog_runtime_service::{self as catalogue, Observation},
    },
    sweeps::{self, Kind, Scope, SweepReport},
};

/// Workloads that are asked at once.
const AT_ONCE: usize = 8;
/// Workloads that one invocation asks; the others get messages of their own.
const BATCH: usize = 100;
/// How long one answer may take, whatever the workload's gate allows.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a count of replicas is good.
const COUNT_AGE: SignedDuration = SignedDuration::from_secs(120);
/// From one heartbeat to the next.
const HEARTBEAT: SignedDuration = SignedDuration::from_mins(5);
/// What the canary's host begins with: a name that no app has.
const CANARY: &str = "cs--canary";
/// Times that a result is decided anew because somebody else wrote first.
const CONFLICTS_MAX: u32 = 5;

/// Looks at the workloads of a scope.
///
/// # Errors
/// When the store is away.
pub async fn sweep(platform: &Platform, scope: &Scope) -> Result<SweepReport, Fault> {
    let mut report = SweepReport::new(scope);
    let mut running = match &scope.module {
        Some(module) => {
            let one = deployment_service::running_one(&platform.ledger, &scope.partition, module).await?;
            one.into_iter().collect()
        }
        None => deployment_service::running(&platform.ledger, &scope.partition).await?,
    };
    if scope.module.is_none() {
        retire(platform, scope, &running, &mut report).await?;
        if catalogue::make_up(platform, &scope.partition, &scope.environment).await? {
            report.changed += 1;
            report.note("what the catalogue had not been told of this environment is made up for");
        }
        if running.len() > BATCH {
            hand_on(platform, scope, &running.split_off(BATCH), &mut report).await?;
        }
    }
    let looks: Vec<_> = running.iter().map(|one| look_at(platform, scope, one.clone())).collect();
    let looks: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
    let mut looked = Vec::new();
    for look in looks {
        match look {
            Ok(Some(look)) => looked.push(look),
            Ok(None) => {}
            Err(unreadable) => {
                report.unreadable += 1;
                report.note(unreadable);
            }
        }
    }
    looked.sort_by(|a: &Looked, b| a.running.module_id.cmp(&b.running.module_id));
    report.checked = u32::try_from(looked.len()).unwrap_or(u32::MAX);
    let ill = prober_is_ill(platform, &looked, running.len()).await;
    if let Some(why) = &ill {
        report.note(format!("{why}; what flipped is Unknown, and nothing is told"));
    }
    for look in &looked {
        if record(platform, scope, look, ill.as_deref()).await? {
            report.changed += 1;
        }
    }
    Ok(report)
}

/// A workload and what one look at it came to.
struct Looked {
    running: Running,
    before: Option<HealthCheckResult>,
    look: Look,
    checks: Vec<Check>,
    host: Option<String>,
    replicas: (u32, u32),
    /// The workload's own host and replicas, where they were read in this look.
    observed: Option<(Option<String>, (u32, u32))>,
}

/// Services of which nothing runs any more leave the inventory.
async fn retire(
    platform: &Platform,
    scope: &Scope,
    running: &[Running],
    report: &mut SweepReport,
) -> Result<(), Fault> {
    for service in catalogue::services(&platform.ledger, &scope.partition).await? {
        let runs = running.iter().any(|one| one.module_id == service.module_id);
        if runs || service.retired_at.is_some() {
            continue;
        }
        let mut commit = Commit::new(scope.partition.clone(), scope.now);
        let told = format!("{}/retired", scope.window);
        if catalogue::retire(&platform.ledger, &mut commit, &service.service_id, &told).await? {
            report.changed += 1;
            report.note(format!("`{}` runs no more and leaves the inventory", service.module_id));
            outbox_relay::publish(platform, platform.ledger.commit(commit).await?).await;
        }
    }
    Ok(())
}

/// Has the workloads that are too many for one invocation looked at by messages of their own.
async fn hand_on(
    platform: &Platform,
    scope: &Scope,
    rest: &[Running],
    report: &mut SweepReport,
) -> Result<(), Fault> {
    report.note(format!("{} workloads are looked at one by one", rest.len()));
    for some in rest.chunks(BATCH / 2) {
        let mut commit = Commit::new(scope.partition.clone(), scope.now);
        for one in some {
            let why = scope.window.to_string();
            let (tenant, environment) = (&scope.tenant, &scope.environment);
            sweeps::nudge(&mut commit, Kind::Health, tenant, environment, Some(&one.module_id), &why)?;
        }
        outbox_relay::publish(platform, platform.ledger.commit(commit).await?).await;
    }
    Ok(())
}

/// One look; none where this window was recorded before. An error says what could not be read: that is
/// no judgement of the workload.
async fn look_at(platform: &Platform, scope: &Scope, running: Running) -> Result<Option<Looked>, String> {
    let module = running.module_id.clone();
    let unreadable = |fault: Fault| format!("`{module}` could not be looked at: {}", fault.chain());
    let service = running.service_id();
    let before = super::latest(&platform.ledger, &scope.partition, &service).await.map_err(unreadable)?;
    if before.as_ref().is_some_and(|before| before.window_start >= scope.window) {
        return Ok(None);
    }
    let known = before.as_ref().filter(|before| before.deployment_id == running.deployment.deployment_id);
    let counted = known.filter(|known| {
        let fresh = |at| scope.now.duration_since(at) < COUNT_AGE;
        known.status == Health::Healthy && known.failures_none() && known.observed_at.is_some_and(fresh)
    });
    let mut observed = match counted {
        Some(_) => None,
        None => Some(count(platform, &running).await.map_err(unreadable)?),
    };
    let (mut host, mut replicas) = match (&observed, known) {
        (Some(seen), _) => (seen.revision_host.clone(), seen.replicas),
        (None, Some(known)) => (known.host.clone(), (known.replicas, known.ready_replicas)),
        (None, None) => (None, (0, 0)),
    };
    let may_sleep = running.deployment.workload.min_replicas == 0;
    let gate = &running.deployment.health_gate;
    let mut samples = Vec::new();
    while replicas.0 > 0 && samples.len() < TRIES {
        let Some(host) = host.clone() else { break };
        let timeout = gate.timeout.min(PROBE_TIMEOUT);
        let target = ProbeTarget { host, path: gate.path.clone(), timeout };
        let sample = platform.probe.probe(&target).await;
        let passed = evaluate::passes(gate, &sample);
        samples.push(sample);
        if passed {
            break;
        }
    }
    let failed = samples.last().is_some_and(|sample| !evaluate::passes(gate, sample));
    if failed && observed.is_none() {
        // What was counted a while ago may be gone.
        let seen = count(platform, &running).await.map_err(unreadable)?;
        (host, replicas) = (seen.revision_host.clone(), seen.replicas);
        observed = Some(seen);
    }
    let seen = Seen { samples, replicas: replicas.0, ready: replicas.1, may_sleep };
    let (look, checks) = evaluate::look(gate, &seen);
    let observed = observed.map(|seen| (seen.host, seen.replicas));
    Ok(Some(Looked { before, look, checks, host, replicas, observed, running }))
}

impl HealthCheckResult {
    fn failures_none(&self) -> bool {
        self.consecutive_failures == 0 && self.consecutive_weak == 0
    }
}

/// What Azure says of a workload's serving revision.
struct Counted {
    host: Option<String>,
    revision_host: Option<String>,
    replicas: (u32, u32),
}

async fn count(platform: &Platform, running: &Running) -> Result<Counted, Fault> {
    let observed = platform.compute.observe(&running.deployment.workload_ref()).await?;
    let Observed { host, revisions, .. } = observed.unwrap_or_default();
    let name = running.deployment.revision.as_deref().unwrap_or_default();
    let revision = revisions.get(name);
    Ok(Counted {
        host,
        revision_host: revision.and_then(|revision| revision.host.clone()),
        replicas: revision.map_or((0, 0), |revision| (revision.replicas, revision.ready_replicas)),
    })
}

fn standing(before: Option<&HealthCheckResult>) -> Standing {
    before.map_or_else(Standing::default, |before| Standing {
        status: before.status,
        failures: before.consecutive_failures,
        weak: before.consecutive_weak,
        passes: before.consecutive_passes,
    })
}

/// Whether a look turns a workload that was known to serve.
fn flips(look: &Looked) -> bool {
    let before = standing(look.before.as_ref());
    matches!(before.status, Health::Healthy | Health::Degraded)
        && evaluate::after(before, look.look).status == Health::Unhealthy
}

/// Why the looks are not to be trusted, where they are not.
async fn prober_is_ill(platform: &Platform, looked: &[Looked], workloads: usize) -> Option<String> {
    let flips = looked.iter().filter(|look| flips(look)).count();
    if evaluate::is_storm(flips, workloads) {
        return Some(format!("{flips} of {workloads} workloads turned Unhealthy at once"));
    }
    let bad = looked.iter().find(|look| look.look == Look::Bad)?;
    let host = canary(bad.host.as_deref()?)?;
    let target = ProbeTarget { host, path: "/".to_owned(), timeout: PROBE_TIMEOUT };
    match platform.probe.probe(&target).await.answer {
        Answer::Status { .. } => None,
        Answer::Unreachable { .. } | Answer::TimedOut | Answer::Forbidden { .. } => {
            Some(format!("the environment's ingress did not answer at `{}`", target.host))
        }
    }
}

/// A host beside a workload's that nobody has.
fn canary(host: &str) -> Option<String> {
    host.split_once('.').map(|(_, domain)| format!("{CANARY}.{domain}"))
}

/// Writes what a look came to, and tells it where it is to be told.
async fn record(platform: &Platform, scope: &Scope, look: &Looked, ill: Option<&str>) -> Result<bool, Fault> {
    for _ in 0..CONFLICTS_MAX {
        let mut commit = Commit::new(scope.partition.clone(), scope.now);
        let told = decide(platform, scope, look, ill, &mut commit).await?;
        if commit.is_empty() {
            return Ok(false);
        }
        match platform.ledger.commit(commit).await {
            Ok(committed) => {
                outbox_relay::publish(platform, committed).await;
                return Ok(told);
            }
            Err(Fault::Conflict { .. }) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(false)
}

async fn decide(
    platform: &Platform,
    scope: &Scope,
    look: &Looked,
    ill: Option<&str>,
    commit: &mut Commit,
) -> Result<bool, Fault> {
    let service = look.running.service_id();
    let id = HealthCheckResult::id(&service);
    let (before, loaded) = platform.ledger.load::<HealthCheckResult>(&scope.partition, &id).await?.take();
    if before.as_ref().is_some_and(|before| before.window_start >= scope.window) {
        return Ok(false);
    }
    let stood = standing(before.as_ref());
    let mut stands = evaluate::after(stood, look.look);
    if ill.is_some() && (look.look == Look::Bad) {
        stands = Standing { status: Health::Unknown, ..Standing::default() };
    }
    let mut result = next(before.as_ref(), scope, look, service, stands);
    let why = ill.map_or_else(|| in_words(&look.checks), str::to_owned);
    if stands.status != stood.status {
        result.remember(Transition { at: scope.now, from: stood.status, to: stands.status, why });
    }
    let told = tell(commit, scope, &look.running, &mut result, before.as_ref())?;
    let seen = Observation {
        at: scope.now,
        health: Some(result.status),
        replicas: look.observed.as_ref().map(|(_, replicas)| *replicas),
        host: look.observed.as_ref().and_then(|(host, _)| host.clone()),
    };
    let caused_by = look.running.completed_event_id.to_string();
    let window = scope.window.to_string();
    let changed =
        catalogue::observe(&platform.ledger, commit, &look.running, &seen, &caused_by, &window).await?;
    if told || !is_same(before.as_ref(), &result) {
        commit.put(&loaded, &result)?;
    }
    Ok(told || changed)
}

fn in_words(checks: &[Check]) -> String {
    checks.iter().map(|check| check.message.as_str()).collect::<Vec<_>>().join("; ")
}

fn next(
    before: Option<&HealthCheckResult>,
    scope: &Scope,
    look: &Looked,
    service: ServiceId,
    stands: Standing,
) -> HealthCheckResult {
    let deployment = &look.running.deployment;
    let name = ["health-check", service.as_str(), &scope.window.to_string()];
    HealthCheckResult {
        health_check_id: format!("hc-{}", &ids::derive(&name).simple().to_string()[..8]),
        tenant_id: scope.tenant.clone(),
        environment_id: scope.environment.clone(),
        service_id: service,
        module_id: look.running.module_id.clone(),
        deployment_id: deployment.deployment_id.clone(),
        status: stands.status,
        previous_status: before.map(|before| before.status),
        checks: look.checks.clone(),
        window_start: scope.window,
        evaluated_at: scope.now,
        consecutive_failures: stands.failures,
        consecutive_weak: stands.weak,
        consecutive_passes: stands.passes.min(evaluate::PASSES),
        transitions: before.map(|before| before.transitions.clone()).unwrap_or_default(),
        told_at: before.and_then(|before| before.told_at),
        sequence: before.map_or(0, |before| before.sequence),
        host: look.host.clone(),
        replicas: look.replicas.0,
        ready_replicas: look.replicas.1,
        observed_at: match look.observed {
            Some(_) => Some(scope.now),
            None => before.and_then(|before| before.observed_at),
        },
    }
}

/// Whether a look told nothing that is not known: then it is not worth a write.
fn is_same(before: Option<&HealthCheckResult>, result: &HealthCheckResult) -> bool {
    before.is_some_and(|before| {
        let words = |checks: &[Check]| -> Vec<_> { checks.iter().map(|it| (it.kind, it.status)).collect() };
        before.status == result.status
            && before.deployment_id == result.deployment_id
            && before.consecutive_failures == result.consecutive_failures
            && before.consecutive_weak == result.consecutive_weak
            && before.consecutive_passes == result.consecutive_passes
            && before.observed_at == result.observed_at
            && words(&before.checks) == words(&result.checks)
    })
}

/// Adds the event of a transition or a heartbeat, where one is due.
fn tell(
    commit: &mut Commit,
    scope: &Scope,
    running: &Running,
    result: &mut HealthCheckResult,
    before: Option<&HealthCheckResult>,
) -> Result<bool, Fault> {
    let Some(status) = result.status.told() else { return Ok(false) };
    let last_told = result.transitions.iter().rev().map(|it| it.from).find_map(Health::told);
    let stood = before.map_or(Health::Unknown, |before| before.status);
    let change = if stood != result.status {
        Change::Transition
    } else if result.told_at.is_none_or(|at| scope.now.duration_since(at) >= HEARTBEAT) {
        Change::Heartbeat
    } else {
        return Ok(false);
    };
    result.sequence += 1;
    result.told_at = Some(scope.now);
    let previous_status = match change {
        Change::Transition => last_told,
        Change::Heartbeat => Some(status),
    };
    let environment = scope.environment.to_string();
    let event_id = format!("{}/{}", scope.window, result.service_id);
    let cause = Cause {
        tenant: &scope.tenant,
        environment: &environment,
        function: "HealthSweep",
        event_id: &event_id,
    };
    let event = Event::HealthCheckCompleted(HealthCheckCompleted {
        health_check_id: result.health_check_id.clone(),
        service_id: result.service_id.clone(),
        environment_id: result.environment_id.clone(),
        deployment_id: Some(result.deployment_id.clone()),
        status,
        previous_status,
        checks: result
            .checks
            .iter()
            .map(|check| CheckSummary { kind: check.kind, name: check.name.clone(), status: check.status })
            .collect(),
        window_start: result.window_start,
    });
    let new = NewEvent {
        id: cause.event("HealthCheckCompleted", 0),
        event,
        aggregate: HealthCheckResult::id(&result.service_id),
        sequence: result.sequence,
        caused_by: running.completed_event_id.to_string(),
    };
    let mut lineage = running.deployment.lineage.clone();
    lineage.module_id = Some(running.module_id.clone());
    commit.event_with_change(&lineage, new, change)?;
    Ok(true)
}
