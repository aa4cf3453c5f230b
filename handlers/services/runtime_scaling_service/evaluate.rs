//! What a policy asks for now: functions on values, from which the sweep acts and tells.
//!
//! Where the target scales by a rule of its own, it acts within seconds and the platform only tells what
//! it came to. Where it cannot (the clock, a quota, a queue that its identity does not see), the platform
//! moves the bounds. Nothing is moved that is not known to be well, or is being deployed.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    compile::{Bounds, Compiled, compile},
    state::{ScalingKind, ScalingPolicy},
};
use crate::{
    envelope::whole_seconds,
    events::ScalingDirection,
    ids::DeploymentId,
    ports::{
        compute::{ComputeTarget, ScaleRule},
        metrics::Reading,
    },
    services::runtime_health_service::Health,
};

/// How far a load may be from its target, as a share of it, without anything being changed.
const TOLERANCE: f64 = 0.1;
/// What rounding may add to a number.
const ROUNDING: f64 = 1e-9;
/// Replicas that one step may add at least; more where that is no more than doubling.
const STEP_MIN: u32 = 4;
/// For how long the highest recommendation counts before there are fewer replicas.
const STABILIZATION: SignedDuration = SignedDuration::from_secs(300);
/// The pauses after a change before the next one, up and down, where a policy names none.
const COOLDOWN_UP_SECONDS: u32 = 60;
const COOLDOWN_DOWN_SECONDS: u32 = 300;
/// Moves in a row that did not pass, after which a person or another deployment must come.
pub const FAILURES_MAX: u32 = 3;
/// Recommendations that are remembered: those of a sweep each minute, and of as many nudges.
const RECOMMENDATIONS_MAX: usize = 20;

/// Replicas that a load asked for at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recommendation {
    pub at: Timestamp,
    pub replicas: u32,
}

/// Replicas that a load asks for: `ratio` is the load of each of `current` replicas over the target.
/// Within the tolerance none are changed; up goes by doubling or four at most.
pub fn recommend(current: u32, ratio: f64, bounds: Bounds) -> u32 {
    let current = current.max(1);
    if !ratio.is_finite() || ratio < 0.0 || (ratio - 1.0).abs() <= TOLERANCE + ROUNDING {
        return bounds.clamp(current);
    }
    let most = current.saturating_mul(2).max(current.saturating_add(STEP_MIN));
    // A little less than exact, so that what rounding adds to a whole number adds no replica.
    let exact = (f64::from(current) * ratio - ROUNDING).ceil().max(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let replicas = if exact >= f64::from(most) { most } else { exact as u32 };
    bounds.clamp(replicas)
}

/// There are fewer replicas only once nothing has asked for more for a while.
pub fn settled(current: u32, recommended: u32, recent: &[Recommendation], now: Timestamp) -> u32 {
    if recommended >= current {
        return recommended;
    }
    let counts = |known: &&Recommendation| now.duration_since(known.at) <= STABILIZATION;
    let highest = recent.iter().filter(counts).map(|known| known.replicas).max().unwrap_or(0);
    highest.max(recommended).min(current)
}

/// Adds a recommendation, and forgets those that do not count any more.
pub fn remember(recent: &mut Vec<Recommendation>, recommended: u32, now: Timestamp) {
    recent.retain(|known| now.duration_since(known.at) <= STABILIZATION);
    recent.push(Recommendation { at: now, replicas: recommended });
    let excess = recent.len().saturating_sub(RECOMMENDATIONS_MAX);
    recent.drain(..excess);
}

/// Everything that an evaluation rests on, besides the policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub now: Timestamp,
    /// What serves, and what it was started with.
    pub deployment: DeploymentId,
    pub bounds: Bounds,
    pub rules: Vec<ScaleRule>,
    pub target: ComputeTarget,
    /// Whether another deployment is in flight.
    pub in_flight: bool,
    /// None where the workload was not looked at yet: it passed its gate.
    pub health: Option<Health>,
    /// The hold in force, as a sentence.
    pub held: Option<String>,
    pub reading: Reading,
    /// Messages in the policy's queue.
    pub depth: Option<u64>,
    /// What the tenant's quota leaves to the workload.
    pub share: Option<u32>,
}

/// What an evaluation comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Replicas that the load asks for, where the platform itself counts them.
    pub recommended: Option<u32>,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// For this reason.
    Stay(String),
    /// Something is to be done, and must wait for this.
    Wait(String),
    /// The target scaled by itself.
    Tell { from: u32, to: u32, direction: ScalingDirection, reason: String },
    /// The bounds, or the rules, are to be others.
    Move { to: Compiled, desired: Option<u32>, direction: ScalingDirection, reason: String },
}

/// Judges a policy.
pub fn judge(policy: &ScalingPolicy, facts: &Facts) -> Verdict {
    let spec = &policy.wanted.spec;
    let (recommended, desired) = match own_count(policy, facts) {
        Some((recommended, desired)) => (Some(recommended), Some(desired)),
        None => (None, policy.desired_replicas),
    };
    let wanted = compile(spec, &facts.target, desired, facts.share, facts.now);
    let what = if wanted.bounds == facts.bounds && wanted.rules == facts.rules {
        in_place(policy, facts, &wanted)
    } else {
        not_in_place(policy, facts, wanted, desired)
    };
    Verdict { recommended, what }
}

/// What the load asks for and what is wanted for it, where the target has no rule for the kind; none
/// where it has, or nothing is measured.
fn own_count(policy: &ScalingPolicy, facts: &Facts) -> Option<(u32, u32)> {
    let spec = &policy.wanted.spec;
    let has_rule = !compile(spec, &facts.target, None, None, facts.now).rules.is_empty();
    if spec.kind != ScalingKind::QueueDepth || has_rule {
        return None;
    }
    let own = Bounds { min: spec.min_replicas, max: spec.max_replicas };
    let bounds = facts.share.map_or(own, |share| own.at_most(share));
    let current = policy.desired_replicas.unwrap_or(facts.bounds.max).max(1);
    // More messages than are counted exactly are as many as ask for the most.
    #[expect(clippy::cast_precision_loss)]
    let per_replica = facts.depth? as f64 / f64::from(current);
    let recommended = recommend(current, per_replica / f64::from(spec.target?.max(1)), bounds);
    Some((recommended, settled(current, recommended, &policy.recommendations, facts.now)))
}

/// What serves is as the policy wants it; the target may have scaled within that.
fn in_place(policy: &ScalingPolicy, facts: &Facts, wanted: &Compiled) -> What {
    let bounds = wanted.bounds;
    let load = load(policy, facts);
    let Some((count, at)) = facts.reading.replicas else {
        return What::Stay(format!("At {bounds} replicas, which are not counted; {load}."));
    };
    let at_rest = || What::Stay(format!("At {count} of {bounds} replicas; {load}."));
    let Some(known) = policy.observed_replicas.filter(|known| *known != count) else { return at_rest() };
    // What was counted before the last change says nothing of it, and what does not scale was not scaled.
    if bounds.min == bounds.max || policy.last_scaled_at.is_some_and(|last| at < last) {
        return at_rest();
    }
    if facts.in_flight {
        return What::Stay(format!("{count} replicas are counted, and a deployment is in flight."));
    }
    let direction = if count > known { ScalingDirection::Up } else { ScalingDirection::Down };
    if direction == ScalingDirection::Down && facts.health == Some(Health::Unhealthy) {
        return What::Stay(format!(
            "{count} replicas are there and {known} were: it is Unhealthy, which is no scaling."
        ));
    }
    let asked = asks_for(policy, facts, known);
    let reason = format!(
        "The target scaled by itself: {load}{asked}; within {bounds}, as {}. It cools down by itself.",
        wanted.why
    );
    What::Tell { from: known, to: count, direction, reason }
}

/// The bounds or the rules that serve are not those that are wanted.
fn not_in_place(policy: &ScalingPolicy, facts: &Facts, wanted: Compiled, desired: Option<u32>) -> What {
    let direction = facts.bounds.direction(wanted.bounds);
    let change = format!("{} instead of {} replicas", wanted.bounds, facts.bounds);
    let wait = |why: &str| What::Wait(format!("{change} are wanted ({}), and wait: {why}", wanted.why));
    if facts.in_flight {
        return wait("a deployment of it is in flight.");
    }
    if let Some(held) = &facts.held {
        return wait(held);
    }
    match facts.health {
        Some(Health::Unhealthy) => return wait("it is Unhealthy, and remediation comes first."),
        Some(Health::Unknown) if direction == ScalingDirection::Down => {
            return wait("its health is not known, and fewer replicas may be too few.");
        }
        Some(Health::Unknown | Health::Healthy | Health::Degraded) | None => {}
    }
    let cooldown = cooldown(policy, direction);
    let until = policy.last_scaled_at.map(|last| last + SignedDuration::from_secs(i64::from(cooldown)));
    if let Some(until) = until.filter(|until| facts.now < *until) {
        return wait(&format!(
            "the cooldown of {cooldown} s after the last change is over at {}.",
            whole_seconds::text(until)
        ));
    }
    if let Some(failures) = policy.failures.as_ref().filter(|it| it.over == facts.deployment)
        && failures.count >= FAILURES_MAX
    {
        return wait(&format!(
            "{FAILURES_MAX} rollouts with it did not pass, the last since {}. Deploy a version that passes, or send ApplyScalingPolicy again.",
            failures.reason.trim_end_matches('.')
        ));
    }
    let since = match policy.last_scaled_at {
        Some(last) => format!("the cooldown of {cooldown} s since {} is over", whole_seconds::text(last)),
        None => format!("nothing was scaled before, so that no cooldown ({cooldown} s) counts"),
    };
    let reason = format!(
        "{change}: {}; {}; health {}; {since}.",
        wanted.why,
        load(policy, facts),
        facts.health.map_or("not looked at yet", Health::as_str)
    );
    What::Move { to: wanted, desired, direction, reason }
}

/// Seconds after a change before the next one.
fn cooldown(policy: &ScalingPolicy, direction: ScalingDirection) -> u32 {
    policy.wanted.spec.cooldown_seconds.unwrap_or(match direction {
        ScalingDirection::Up => COOLDOWN_UP_SECONDS,
        ScalingDirection::Down => COOLDOWN_DOWN_SECONDS,
    })
}

/// What the policy looks at, and its threshold.
fn load(policy: &ScalingPolicy, facts: &Facts) -> String {
    let spec = &policy.wanted.spec;
    let target = spec.target.unwrap_or_default();
    let percent = |name: &str, value: Option<f64>| match value {
        Some(value) => format!("{name} at {value:.0} percent, the target is {target}"),
        None => format!("{name} is not measured, the target is {target} percent"),
    };
    match spec.kind {
        ScalingKind::Cpu => percent("Cpu", facts.reading.cpu_percent),
        ScalingKind::Memory => percent("Memory", facts.reading.memory_percent),
        ScalingKind::RequestRate => match facts.reading.requests {
            Some(requests) => {
                format!(
                    "{requests:.0} requests in a minute, the target is {target} at a time for each replica"
                )
            }
            None => {
                format!("requests are not measured, the target is {target} at a time for each replica")
            }
        },
        ScalingKind::QueueDepth => match facts.depth {
            Some(depth) => format!("{depth} messages wait, the target is {target} for each replica"),
            None => format!("the waiting messages are not counted, the target is {target} for each replica"),
        },
        ScalingKind::Schedule => "the clock decides".to_owned(),
        ScalingKind::Fixed => "nothing is measured".to_owned(),
    }
}

/// What the load asks for by the platform's own count, to be held against what the target did.
fn asks_for(policy: &ScalingPolicy, facts: &Facts, current: u32) -> String {
    let target = f64::from(policy.wanted.spec.target.unwrap_or(1).max(1));
    let value = match policy.wanted.spec.kind {
        ScalingKind::Cpu => facts.reading.cpu_percent,
        ScalingKind::Memory => facts.reading.memory_percent,
        #[expect(clippy::cast_precision_loss)]
        ScalingKind::QueueDepth => facts.depth.map(|depth| depth as f64 / f64::from(current.max(1))),
        ScalingKind::RequestRate | ScalingKind::Schedule | ScalingKind::Fixed => None,
    };
    let Some(value) = value else { return String::new() };
    format!(", which on {current} asks for {}", recommend(current, value / target, facts.bounds))
}

#[cfg(test)]
mod tests;
