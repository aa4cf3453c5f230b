//! The scaling sweep of one environment: every policy is held against the live measurements.
//!
//! Measurements are read in one batch before anything is decided; where they cannot be read, what rests
//! on them stays as it is and the rest goes on. Each policy is decided and written by itself. A sweep
//! that comes again in the same window finds its mark in the policy and changes nothing.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tracing::info;

use super::{
    applying::{self, Change},
    compile::{Bounds, shares},
    evaluate::{self, Facts, Verdict, What},
    state::{PolicyStatus, Scaled, ScalingKind, ScalingPolicy, Wanted},
};
use crate::{
    events::{Event, ScalingDirection, ScalingPolicyApplied, TenantQuota},
    holds,
    ids::{Cause, ModuleId},
    ledger::{Commit, Loaded},
    outbox_relay,
    outcome::Fault,
    platform::Platform,
    ports::{
        compute::ScalingEntry,
        metrics::{Measured, Reading},
    },
    services::{
        deployment_service::{self, Running},
        runtime_health_service::{self, Health},
        tenant_runtime_isolation_service::Ground,
    },
    sweeps::{Scope, SweepReport},
};

/// How long one sweep goes on; what is left comes first in the next window.
const BUDGET: SignedDuration = SignedDuration::from_secs(8);

/// Evaluates the policies of an environment, or of one workload of it.
///
/// # Errors
/// When the store is away.
pub async fn sweep(platform: &Platform, scope: &Scope) -> Result<SweepReport, Fault> {
    let mut report = SweepReport::new(scope);
    let mut policies = super::policies(&platform.ledger, &scope.partition).await?;
    if policies.is_empty() {
        return Ok(report);
    }
    let quota = Ground::find(&platform.ledger, &scope.tenant, &scope.environment).await?;
    let quota = quota.as_ref().and_then(|ground| ground.quota().cloned());
    let running = running(platform, scope, &policies, quota.is_some()).await?;
    let shares = quota.map(|quota| shared(&quota, &policies, &running)).unwrap_or_default();
    policies.retain(|policy| scope.module.as_ref().is_none_or(|module| *module == policy.module_id));
    let seen = Seen {
        readings: readings(platform, &policies, &running, &mut report).await,
        healths: runtime_health_service::healths(&platform.ledger, &scope.partition).await?,
        running,
        shares,
    };
    let count = policies.len();
    policies.rotate_left(first(scope.window, count));
    for (index, policy) in policies.into_iter().enumerate() {
        if platform.clock.now().duration_since(scope.now) > BUDGET {
            report.note(format!("{} policies are left for the next window", count - index));
            break;
        }
        report.checked += 1;
        one(platform, scope, &policy.module_id, &seen, &mut report).await?;
    }
    Ok(report)
}

/// Where a sweep begins: each window elsewhere, so that none is always last.
fn first(window: Timestamp, count: usize) -> usize {
    let minute = usize::try_from(window.as_second().div_euclid(60)).unwrap_or(0);
    if count == 0 { 0 } else { minute % count }
}

/// What was read before anything was decided.
struct Seen {
    running: BTreeMap<ModuleId, Running>,
    readings: BTreeMap<ModuleId, (Reading, Option<u64>)>,
    healths: BTreeMap<ModuleId, Health>,
    shares: BTreeMap<ModuleId, u32>,
}

/// What serves: everything, where a quota is to be shared, else what has a policy.
async fn running(
    platform: &Platform,
    scope: &Scope,
    policies: &[ScalingPolicy],
    all: bool,
) -> Result<BTreeMap<ModuleId, Running>, Fault> {
    let (ledger, partition) = (&platform.ledger, &scope.partition);
    let mut found = BTreeMap::new();
    if all {
        let running = deployment_service::running(ledger, partition).await?;
        found.extend(running.into_iter().map(|running| (running.module_id.clone(), running)));
        return Ok(found);
    }
    let is_asked =
        |policy: &&ScalingPolicy| scope.module.as_ref().is_none_or(|module| *module == policy.module_id);
    for policy in policies.iter().filter(is_asked) {
        if let Some(running) = deployment_service::running_one(ledger, partition, &policy.module_id).await? {
            found.insert(policy.module_id.clone(), running);
        }
    }
    Ok(found)
}

/// What a quota leaves to each workload that has a policy, where it leaves less than the policy asks for.
fn shared(
    quota: &TenantQuota,
    policies: &[ScalingPolicy],
    running: &BTreeMap<ModuleId, Running>,
) -> BTreeMap<ModuleId, u32> {
    let uses = |running: &Running| {
        let (cpu_millis, memory_mib) = deployment_service::of_one_replica(&running.deployment.workload);
        [1, cpu_millis, memory_mib]
    };
    let counts = |policy: &&ScalingPolicy| policy.status != PolicyStatus::Failed;
    let ours: Vec<_> = policies
        .iter()
        .filter(counts)
        .filter_map(|policy| Some((policy, running.get(&policy.module_id)?)))
        .collect();
    let mut left = [quota.max_replicas.map(u64::from), quota.cpu_millis, quota.memory_mib];
    let is_ours = |module: &ModuleId| ours.iter().any(|(policy, _)| policy.module_id == *module);
    for other in running.values().filter(|running| !is_ours(&running.module_id)) {
        let most = u64::from(other.deployment.bounds().1);
        for (left, uses) in left.iter_mut().zip(uses(other)) {
            *left = left.map(|left| left.saturating_sub(most * uses));
        }
    }
    let asked: Vec<_> =
        ours.iter().map(|(policy, running)| (policy.wanted.spec.most(), uses(running))).collect();
    let modules = ours.iter().map(|(policy, _)| policy.module_id.clone());
    modules.zip(shares(&asked, left)).filter_map(|(module, share)| Some((module, share?))).collect()
}

/// Measurements of what has a policy, in one batch; what cannot be read is absent.
async fn readings(
    platform: &Platform,
    policies: &[ScalingPolicy],
    running: &BTreeMap<ModuleId, Running>,
    report: &mut SweepReport,
) -> BTreeMap<ModuleId, (Reading, Option<u64>)> {
    let mut modules = Vec::new();
    let mut measured = Vec::new();
    for policy in policies {
        let Some(running) = running.get(&policy.module_id) else { continue };
        let Some(revision) = running.deployment.revision.clone() else { continue };
        modules.push(policy);
        measured.push(Measured { workload: running.deployment.workload_ref(), revision });
    }
    let read = match platform.metrics.read(&measured).await {
        Ok(read) => read,
        Err(fault) => {
            report.unreadable += u32::try_from(measured.len()).unwrap_or(u32::MAX);
            report.note(format!("nothing is measured, and what rests on it stays: {}", fault.chain()));
            vec![Reading::default(); measured.len()]
        }
    };
    let mut found = BTreeMap::new();
    for (policy, reading) in modules.into_iter().zip(read) {
        let spec = &policy.wanted.spec;
        let depth = match spec.queue.as_deref().filter(|_| spec.kind == ScalingKind::QueueDepth) {
            Some(queue) => match platform.metrics.queue_depth(queue).await {
                Ok(Some(depth)) => Some(depth),
                Ok(None) => {
                    report.note(format!("`{}`: there is no queue `{queue}`", policy.module_id));
                    None
                }
                Err(fault) => {
                    report.unreadable += 1;
                    report.note(format!("`{}`: {}", policy.module_id, fault.chain()));
                    None
                }
            },
            None => None,
        };
        found.insert(policy.module_id.clone(), (reading, depth));
    }
    found
}

/// Evaluates one policy, and writes what it came to.
async fn one(
    platform: &Platform,
    scope: &Scope,
    module: &ModuleId,
    seen: &Seen,
    report: &mut SweepReport,
) -> Result<(), Fault> {
    let document = ScalingPolicy::document(module);
    let (policy, loaded) = platform.ledger.load::<ScalingPolicy>(&scope.partition, &document).await?.take();
    let Some(mut policy) = policy else { return Ok(()) };
    if policy.evaluated_window.is_some_and(|window| window >= scope.window) {
        return Ok(());
    }
    let said = match (policy.status, seen.running.get(module)) {
        (PolicyStatus::Applying, _) => {
            Err(format!("a change is being rolled out (`{}`)", policy.operation_id))
        }
        (PolicyStatus::Failed, _) => Err("the policy is not in force".to_owned()),
        (PolicyStatus::Active, None) => Err("nothing serves".to_owned()),
        (PolicyStatus::Active, Some(running)) => Ok(running),
    };
    let now = platform.clock.now();
    let mut commit = Commit::new(scope.partition.clone(), now);
    policy.evaluated_window = Some(scope.window);
    match said {
        Ok(running) => {
            let facts = facts(platform, scope, seen, running).await?;
            let verdict = evaluate::judge(&policy, &facts);
            act(platform, scope, running, &facts, verdict, &mut policy, &mut commit, report).await?;
        }
        Err(why) => policy.said = Some(why),
    }
    write(platform, commit, &loaded, &policy).await
}

async fn write(
    platform: &Platform,
    mut commit: Commit,
    loaded: &Loaded<ScalingPolicy>,
    policy: &ScalingPolicy,
) -> Result<(), Fault> {
    commit.put(loaded, policy)?;
    let committed = platform.ledger.commit(commit).await?;
    outbox_relay::publish(platform, committed).await;
    Ok(())
}

async fn facts(platform: &Platform, scope: &Scope, seen: &Seen, running: &Running) -> Result<Facts, Fault> {
    let Running { module_id: module, deployment, in_flight, .. } = running;
    let now = platform.clock.now();
    let hold = holds::held(&platform.ledger, &scope.partition, Some(module), now).await?;
    let (min, max) = deployment.bounds();
    let (reading, depth) = seen.readings.get(module).cloned().unwrap_or_default();
    Ok(Facts {
        now,
        deployment: deployment.deployment_id.clone(),
        bounds: Bounds { min, max },
        rules: deployment.scaling.as_ref().map(|entry| entry.rules.clone()).unwrap_or_default(),
        target: deployment.compute_target.clone(),
        in_flight: *in_flight,
        health: seen.healths.get(module).copied(),
        held: hold.map(|hold| hold.sentence()),
        reading,
        depth,
        share: seen.shares.get(module).copied(),
    })
}

/// Adds what a verdict asks for to a decision.
#[expect(clippy::too_many_arguments, reason = "each is one of the nouns of a sweep")]
async fn act(
    platform: &Platform,
    scope: &Scope,
    running: &Running,
    facts: &Facts,
    verdict: Verdict,
    policy: &mut ScalingPolicy,
    commit: &mut Commit,
    report: &mut SweepReport,
) -> Result<(), Fault> {
    if let Some(recommended) = verdict.recommended {
        evaluate::remember(&mut policy.recommendations, recommended, facts.now);
    }
    let module = policy.module_id.clone();
    match verdict.what {
        What::Stay(why) => {
            let is_counted = facts.reading.replicas.is_some() && !facts.in_flight;
            if let Some((count, _)) =
                facts.reading.replicas.filter(|_| is_counted && same_or_first(policy, facts))
            {
                policy.observed_replicas = Some(count);
            }
            policy.said = Some(why);
        }
        What::Wait(why) => {
            report.note(format!("`{module}`: {why}"));
            policy.said = Some(why);
        }
        What::Tell { from, to, direction, reason } => {
            report.changed += 1;
            tell(scope, running, (from, to, direction), &reason, policy, commit)?;
            info!("`{module}` went from {from} to {to} replicas");
            policy.said = Some(reason);
        }
        What::Move { to, desired, direction, reason } => {
            report.changed += 1;
            report.note(format!("`{module}`: {reason}"));
            info!("`{module}` is scaled {direction}: {} instead of {}", to.bounds, facts.bounds);
            let generation = policy.generations + 1;
            let back = policy.wanted.clone();
            policy.generations = generation;
            policy.desired_replicas = desired;
            policy.wanted = Wanted {
                spec: back.spec.clone(),
                entry: ScalingEntry {
                    scaling_policy_id: policy.scaling_policy_id.clone(),
                    generation,
                    min_replicas: to.bounds.min,
                    max_replicas: to.bounds.max,
                    rules: to.rules,
                },
            };
            policy.said = Some(reason.clone());
            let change = Change {
                operation_id: cause(scope, &event_id(scope, policy, generation)).operation(0),
                by_command: false,
                from: facts.bounds,
                reason,
                back: Some(back),
                over: facts.deployment.clone(),
                lineage: policy.lineage(&running.deployment.lineage),
                caused_by: running.completed_event_id.to_string(),
            };
            applying::begin(&platform.ledger, commit, policy, change).await?;
        }
    }
    Ok(())
}

/// Whether a count is to be taken over although nothing is told of it.
fn same_or_first(policy: &ScalingPolicy, facts: &Facts) -> bool {
    policy.observed_replicas.is_none() || facts.bounds.min == facts.bounds.max
}

/// Records that the target scaled by itself.
fn tell(
    scope: &Scope,
    running: &Running,
    (from, to, direction): (u32, u32, ScalingDirection),
    reason: &str,
    policy: &mut ScalingPolicy,
    commit: &mut Commit,
) -> Result<(), Fault> {
    let id = cause(scope, &event_id(scope, policy, u64::from(to))).event("ScalingPolicyApplied", 0);
    policy.observed_replicas = Some(to);
    let bounds = policy.bounds();
    policy.remember(Scaled {
        at: commit.now,
        from_replicas: from,
        to_replicas: to,
        direction,
        min_replicas: bounds.min,
        max_replicas: bounds.max,
        reason: reason.to_owned(),
        event_id: id.clone(),
    });
    let event = Event::ScalingPolicyApplied(ScalingPolicyApplied {
        scaling_policy_id: policy.scaling_policy_id.clone(),
        service_id: policy.service_id.clone(),
        environment_id: policy.environment_id.clone(),
        from_replicas: from,
        to_replicas: to,
        direction,
        reason: reason.to_owned(),
    });
    let lineage = policy.lineage(&running.deployment.lineage);
    let new = policy.next_event(id, event, running.completed_event_id.as_str());
    commit.event(&lineage, new)
}

/// What ids of an evaluation derive from: the service, what is wanted of it, and the window.
fn event_id(scope: &Scope, policy: &ScalingPolicy, number: u64) -> String {
    format!("{}/{number}/{}", policy.service_id, scope.window)
}

fn cause<'a>(scope: &'a Scope, event_id: &'a str) -> Cause<'a> {
    Cause { tenant: &scope.tenant, environment: scope.environment.as_str(), function: "Sweep", event_id }
}
