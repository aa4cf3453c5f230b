//! From looks to a judgement, in plain functions on values.
//!
//! A workload turns Unhealthy after three bad looks in a row and comes back after two good ones, so
//! that one lost packet alarms nobody. Degraded is what serves, but not as it should: it answered only
//! when asked again or slowly, or fewer replicas are ready than there are.

use std::time::Duration;

use super::{
    health_gate::HealthGate,
    state::{Check, Health},
};
use crate::{
    events::{CheckKind, HealthStatus},
    ports::probe::{Answer, Sample},
};

/// Bad looks in a row that make a workload Unhealthy.
pub const FAILURES: u32 = 3;
/// Good looks in a row that bring it back; weak ones that make it Degraded.
pub const PASSES: u32 = 2;
/// Questions of one look; a good answer ends it.
pub const TRIES: usize = 3;
/// From here on an answer is slow.
pub const SLOW: Duration = Duration::from_secs(2);

/// What one look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Good,
    /// It serves, but not as it should.
    Weak,
    Bad,
    /// It is scaled to zero, and asking would wake it.
    Asleep,
}

/// What there is to go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Answers in the order in which they came.
    pub samples: Vec<Sample>,
    pub replicas: u32,
    pub ready: u32,
    /// Whether none at all is as it should be.
    pub may_sleep: bool,
}

/// Whether an answer is a good one, by the terms of the workload's own gate.
pub fn passes(gate: &HealthGate, sample: &Sample) -> bool {
    match sample.answer {
        Answer::Status { status, .. } => gate.expect_status.contains(&status),
        Answer::Unreachable { .. } | Answer::TimedOut | Answer::Forbidden { .. } => false,
    }
}

/// One look, with its checks.
pub fn look(gate: &HealthGate, seen: &Seen) -> (Look, Vec<Check>) {
    if seen.replicas == 0 && seen.may_sleep {
        return (Look::Asleep, vec![liveness(seen, HealthStatus::Healthy)]);
    }
    let passed = seen.samples.last().is_some_and(|sample| passes(gate, sample));
    let (slow, again) = (
        seen.samples.last().is_some_and(|sample| u128::from(sample.latency_ms) > SLOW.as_millis()),
        seen.samples.len() > 1,
    );
    let readiness = match (passed, slow || again) {
        (false, _) => HealthStatus::Unhealthy,
        (true, true) => HealthStatus::Degraded,
        (true, false) => HealthStatus::Healthy,
    };
    let alive = match (seen.ready, seen.replicas) {
        // Whoever answers lives, however late the count of its replicas is.
        (0, _) if passed => HealthStatus::Degraded,
        (0, _) => HealthStatus::Unhealthy,
        (ready, there) if ready < there => HealthStatus::Degraded,
        (_, _) => HealthStatus::Healthy,
    };
    let message = match seen.samples.last() {
        None => "it was not asked".to_owned(),
        Some(sample) => in_words(sample, seen.samples.len()),
    };
    let asked = Check { kind: CheckKind::Readiness, name: gate.path.clone(), status: readiness, message };
    let look = match (readiness, alive) {
        (HealthStatus::Unhealthy, _) => Look::Bad,
        (HealthStatus::Degraded, _) | (_, HealthStatus::Degraded | HealthStatus::Unhealthy) => Look::Weak,
        (HealthStatus::Healthy, HealthStatus::Healthy) => Look::Good,
    };
    (look, vec![liveness(seen, alive), asked])
}

fn liveness(seen: &Seen, status: HealthStatus) -> Check {
    let message = format!("{} of {} replicas are ready", seen.ready, seen.replicas);
    Check { kind: CheckKind::Liveness, name: "replicas".to_owned(), status, message }
}

fn in_words(sample: &Sample, tries: usize) -> String {
    let answer = match &sample.answer {
        Answer::Status { status, .. } => format!("answered {status} after {} ms", sample.latency_ms),
        Answer::Unreachable { reason } => format!("cannot be reached: {reason}"),
        Answer::TimedOut => "did not answer in time".to_owned(),
        Answer::Forbidden { reason } => format!("is not asked: {reason}"),
    };
    if tries > 1 { format!("{answer} (asked {tries} times)") } else { answer }
}

/// How the looks at a workload stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub status: Health,
    pub failures: u32,
    pub weak: u32,
    pub passes: u32,
}

/// How they stand after one more.
pub fn after(before: Standing, look: Look) -> Standing {
    let Standing { status, failures, weak, passes } = before;
    match look {
        Look::Asleep => Standing { failures: 0, weak: 0, ..before },
        Look::Bad => {
            let failures = failures.saturating_add(1);
            let status = if failures >= FAILURES { Health::Unhealthy } else { status };
            Standing { status, failures, weak: 0, passes: 0 }
        }
        Look::Weak => {
            let weak = weak.saturating_add(1);
            let passes = passes.saturating_add(1);
            let status = match status {
                Health::Unhealthy if passes >= PASSES => Health::Degraded,
                Health::Healthy if weak >= PASSES => Health::Degraded,
                Health::Unknown => Health::Degraded,
                Health::Healthy | Health::Degraded | Health::Unhealthy => status,
            };
            Standing { status, failures: 0, weak, passes }
        }
        Look::Good => {
            let passes = passes.saturating_add(1);
            // The good looks that count for coming back are those without a weak one between them.
            let passes = if weak > 0 { 1 } else { passes };
            let status = match status {
                Health::Unknown => Health::Healthy,
                Health::Degraded | Health::Unhealthy if passes >= PASSES => Health::Healthy,
                Health::Healthy | Health::Degraded | Health::Unhealthy => status,
            };
            Standing { status, failures: 0, weak: 0, passes }
        }
    }
}

/// Flips to Unhealthy in one look at an environment that are taken for an ill prober at the least.
const STORM_MIN: usize = 3;
/// The share of the workloads that is taken for one: more than a fifth.
const STORM_SHARE: usize = 5;

/// Whether so many workloads flip at once that rather the prober is ill than the fleet.
pub fn is_storm(flips: usize, workloads: usize) -> bool {
    flips >= STORM_MIN && flips * STORM_SHARE > workloads
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(looks: &[Look]) -> Vec<Health> {
        let mut standing = Standing::default();
        looks
            .iter()
            .map(|look| {
                standing = after(standing, *look);
                standing.status
            })
            .collect()
    }

    use Health::{Degraded, Healthy, Unhealthy, Unknown};
    use Look::{Asleep, Bad, Good, Weak};

    #[test]
    fn three_bad_looks_in_a_row_and_two_good_ones_back() {
        for (looks, stands) in [
            (vec![Good], vec![Healthy]),
            (vec![Bad, Bad, Bad], vec![Unknown, Unknown, Unhealthy]),
            (vec![Good, Bad, Bad, Good, Bad, Bad], vec![Healthy; 6]),
            (
                vec![Good, Bad, Bad, Bad, Good, Good],
                vec![Healthy, Healthy, Healthy, Unhealthy, Unhealthy, Healthy],
            ),
            (
                vec![Good, Weak, Good, Weak, Weak, Good, Good],
                vec![Healthy, Healthy, Healthy, Healthy, Degraded, Degraded, Healthy],
            ),
            (vec![Weak], vec![Degraded]),
            (vec![Bad, Bad, Bad, Weak, Weak], vec![Unknown, Unknown, Unhealthy, Unhealthy, Degraded]),
            (vec![Good, Bad, Bad, Asleep, Bad], vec![Healthy; 5]),
        ] {
            assert_eq!(run(&looks), stands, "{looks:?}");
        }
    }

    #[test]
    fn more_than_a_fifth_and_at_least_three_are_a_storm() {
        let storms = [(3, 14, true), (3, 15, false), (2, 2, false), (20, 100, false), (21, 100, true)];
        for (flips, workloads, expected) in storms {
            assert_eq!(is_storm(flips, workloads), expected, "{flips} of {workloads}");
        }
    }

    proptest! {
        #[test]
        fn nothing_turns_unhealthy_without_three_bad_looks_at_the_end(
            looks in prop::collection::vec(prop::sample::select(vec![Good, Weak, Bad, Asleep]), 0..40)
        ) {
            let stands = run(&looks);
            for at in 1..stands.len() {
                if stands[at] == Unhealthy && stands[at - 1] != Unhealthy {
                    prop_assert!(at >= 2 && looks[at - 2..=at].iter().all(|look| *look == Bad));
                }
            }
        }
    }
}
