//! The health gate: whether a new revision is well enough to take, or keep, the traffic.
//!
//! A pure function of the gate, the time, what the platform says of the revision, and the samples
//! that were taken of it. It is asked again after every look and every sample; what the samples have
//! decided stays decided, however many follow.
//!
//! Three questions are kept apart: is the revision ready (the platform says), does it answer as
//! expected (the samples say), and does it stay so (the bake). Deliberately absent: taking samples,
//! metrics, and what follows from a verdict.

mod settings;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::settings::{HealthGate, OnInconclusive, Problem};
use crate::{
    events::HealthGateResult,
    ports::{
        compute::{Revision, RevisionState},
        probe::{Answer, Sample},
    },
};

/// Restarts without a single ready replica from which on a revision is in a crash loop.
pub const CRASH_LOOP_RESTARTS: u32 = 3;

/// What the platform says of the revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet, or not at this moment, and why.
    Waiting {
        why: String,
    },
    Ready,
    /// It will not run as it is: in the platform's words.
    Failed {
        detail: String,
    },
    /// It starts and dies, over and over.
    CrashLoop {
        restarts: u32,
        detail: String,
    },
}

impl Readiness {
    /// Reads a revision; none where the platform does not show it yet.
    pub fn of(revision: Option<&Revision>) -> Self {
        let Some(revision) = revision else {
            return Self::Waiting { why: "the platform does not show the revision yet".to_owned() };
        };
        let detail =
            || revision.detail.clone().unwrap_or_else(|| "the platform says nothing more".to_owned());
        let waiting = |why: &str| Self::Waiting { why: why.to_owned() };
        if revision.state == RevisionState::Failed {
            return Self::Failed { detail: detail() };
        }
        if revision.ready_replicas == 0 && revision.restarts >= CRASH_LOOP_RESTARTS {
            return Self::CrashLoop { restarts: revision.restarts, detail: detail() };
        }
        match revision.state {
            RevisionState::Provisioning => waiting("no replica is ready yet"),
            RevisionState::Running if revision.ready_replicas == 0 => waiting("no replica is ready"),
            RevisionState::Running => Self::Ready,
            RevisionState::Degraded => waiting("its replicas come and go"),
            RevisionState::Stopped => waiting("it is stopped"),
            RevisionState::Failed => Self::Failed { detail: detail() },
        }
    }
}

/// How a gate stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing is decided. Look again after this time.
    Running {
        next_in: Duration,
    },
    Passed,
    Failed {
        kind: FailureKind,
        reason: String,
    },
    /// A person has to decide; only where the gate says so.
    Inconclusive {
        reason: String,
    },
    /// The time is over and nothing was decided.
    TimedOut {
        reason: String,
    },
}

/// What made a gate fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    /// The platform gave the revision up.
    Platform,
    CrashLoop,
    /// It answered, and not as expected; or it stopped answering.
    Answers,
    /// It was ready by the platform's word and never answered.
    NeverAnswered,
    /// The target is one that is not probed.
    Forbidden,
    /// It could not be told, and that counts as a no here.
    Inconclusive,
}

impl FailureKind {
    /// Whether the application is to blame, so that what was deployed should not be tried again as
    /// it is. Where nobody ever answered, the way there may be broken instead.
    pub fn blames_application(self) -> bool {
        match self {
            Self::Platform | Self::CrashLoop | Self::Answers => true,
            Self::NeverAnswered | Self::Forbidden | Self::Inconclusive => false,
        }
    }
}

impl Verdict {
    /// What events tell of it; none while nothing is decided or a person has to.
    pub fn result(&self) -> Option<HealthGateResult> {
        match self {
            Self::Passed => Some(HealthGateResult::Passed),
            Self::Failed { .. } => Some(HealthGateResult::Failed),
            Self::TimedOut { .. } => Some(HealthGateResult::TimedOut),
            Self::Running { .. } | Self::Inconclusive { .. } => None,
        }
    }
}

/// How the gate stands.
///
/// `samples` are in order of time and were taken while the revision was ready (see
/// [`wants_sample`]); those beyond [`HealthGate::count`] are not looked at.
pub fn judge(
    gate: &HealthGate,
    started_at: Timestamp,
    now: Timestamp,
    readiness: &Readiness,
    samples: &[Sample],
) -> Verdict {
    match (hear(gate, samples), readiness) {
        (Heard::Failed { kind, reason }, _) => Verdict::Failed { kind, reason },
        (_, Readiness::Failed { detail }) => Verdict::Failed {
            kind: FailureKind::Platform,
            reason: format!("the platform gave the revision up: {detail}"),
        },
        (_, Readiness::CrashLoop { restarts, detail }) => Verdict::Failed {
            kind: FailureKind::CrashLoop,
            reason: format!("the revision restarted {restarts} times and no replica is ready: {detail}"),
        },
        (Heard::Unclear { reason }, Readiness::Ready | Readiness::Waiting { .. }) => {
            match gate.on_inconclusive {
                OnInconclusive::Fail => Verdict::Failed { kind: FailureKind::Inconclusive, reason },
                OnInconclusive::Hold => Verdict::Inconclusive { reason },
            }
        }
        (Heard::Passed, Readiness::Ready) => Verdict::Passed,
        (Heard::Open { .. }, Readiness::Ready) => ready(gate, started_at, now, samples),
        (heard @ (Heard::Passed | Heard::Open { .. }), Readiness::Waiting { why }) => {
            let was_ready = matches!(heard, Heard::Passed | Heard::Open { answered: true });
            not_ready(gate, started_at, now, why, was_ready)
        }
    }
}

/// Whether a sample should be taken now: the revision is ready, the first delay has passed, the last
/// sample is an interval old, and more samples could change anything.
pub fn wants_sample(
    gate: &HealthGate,
    started_at: Timestamp,
    now: Timestamp,
    readiness: &Readiness,
    samples: &[Sample],
) -> bool {
    *readiness == Readiness::Ready
        && matches!(hear(gate, samples), Heard::Open { .. })
        && now >= next_sample_at(gate, started_at, samples)
}

fn next_sample_at(gate: &HealthGate, started_at: Timestamp, samples: &[Sample]) -> Timestamp {
    let first = after(started_at, gate.initial_delay);
    samples.last().map_or(first, |last| after(last.at, gate.interval).max(first))
}

/// Ready and not decided: on to the next sample, as long as there is time.
fn ready(gate: &HealthGate, started_at: Timestamp, now: Timestamp, samples: &[Sample]) -> Verdict {
    let deadline = after(started_at, gate.longest());
    if now >= deadline {
        let reason = format!("nothing was decided within {} s", gate.longest().as_secs_f64());
        return Verdict::TimedOut { reason };
    }
    Verdict::Running { next_in: until(now, next_sample_at(gate, started_at, samples).min(deadline)) }
}

/// Not ready. It has the readiness deadline for becoming so; one that answered well was ready once,
/// and has the whole of the gate's time.
fn not_ready(
    gate: &HealthGate,
    started_at: Timestamp,
    now: Timestamp,
    why: &str,
    was_ready: bool,
) -> Verdict {
    let limit = if was_ready { gate.longest() } else { gate.readiness_deadline };
    let deadline = after(started_at, limit);
    if now >= deadline {
        let reason = format!("the revision was not ready within {} s: {why}", limit.as_secs_f64());
        return Verdict::TimedOut { reason };
    }
    Verdict::Running { next_in: until(now, after(now, gate.interval).min(deadline)) }
}

fn after(time: Timestamp, wait: Duration) -> Timestamp {
    time.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

fn until(now: Timestamp, then: Timestamp) -> Duration {
    if then <= now { Duration::ZERO } else { then.duration_since(now).unsigned_abs() }
}

/// What the samples say, whatever the time and the platform.
enum Heard {
    /// Nothing yet; whether it ever answered as expected.
    Open {
        answered: bool,
    },
    Passed,
    Failed {
        kind: FailureKind,
        reason: String,
    },
    Unclear {
        reason: String,
    },
}

/// What one sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Success,
    Failure,
    /// It may be the way there, or that it is still starting.
    Error,
    /// It asked to be left alone for a while.
    Unclear,
    Forbidden,
}

/// Before the first success nobody answering means that it is still starting; afterwards, that it
/// has died.
fn classify(gate: &HealthGate, answer: &Answer, answered: bool) -> Kind {
    match answer {
        Answer::Status { status, .. } if gate.expect_status.contains(status) => Kind::Success,
        Answer::Status { status: 429 | 503, retry_after: true } => Kind::Unclear,
        Answer::Status { .. } => Kind::Failure,
        Answer::Unreachable { .. } | Answer::TimedOut if answered => Kind::Failure,
        Answer::Unreachable { .. } | Answer::TimedOut => Kind::Error,
        Answer::Forbidden { .. } => Kind::Forbidden,
    }
}

fn told(answer: &Answer) -> String {
    match answer {
        Answer::Status { status, retry_after: false } => format!("it answered {status}"),
        Answer::Status { status, retry_after: true } => format!("it answered {status} and asked to wait"),
        Answer::Unreachable { reason } => format!("nobody answered ({reason})"),
        Answer::TimedOut => "nobody answered in time".to_owned(),
        Answer::Forbidden { reason } => format!("it must not be asked ({reason})"),
    }
}

#[derive(Default)]
struct Tally {
    failures: u32,
    errors_in_a_row: u32,
    unclear: u32,
    successes: u32,
    successes_in_a_row: u32,
    /// When the successes in a row began.
    since: Option<Timestamp>,
}

/// Goes through the samples and stops at the first that decides.
fn hear(gate: &HealthGate, samples: &[Sample]) -> Heard {
    let count = usize::try_from(gate.count).unwrap_or(usize::MAX);
    let mut tally = Tally::default();
    for sample in samples.iter().take(count) {
        let kind = classify(gate, &sample.answer, tally.successes > 0);
        tally.add(kind, sample.at);
        if let Some(heard) = tally.decides(gate, kind, sample) {
            return heard;
        }
    }
    if samples.len() < count {
        return Heard::Open { answered: tally.successes > 0 };
    }
    let reason = format!(
        "after {count} samples, {} of them successes, there were not {} successes in a row over {} s",
        tally.successes,
        gate.consecutive_success,
        gate.bake.as_secs_f64()
    );
    Heard::Unclear { reason }
}

impl Tally {
    fn add(&mut self, kind: Kind, at: Timestamp) {
        if kind == Kind::Success {
            self.successes += 1;
            self.successes_in_a_row += 1;
            self.since = self.since.or(Some(at));
        } else {
            self.successes_in_a_row = 0;
            self.since = None;
        }
        self.errors_in_a_row = if kind == Kind::Error { self.errors_in_a_row + 1 } else { 0 };
        self.failures += u32::from(kind == Kind::Failure);
        self.unclear += u32::from(kind == Kind::Unclear);
    }

    /// Whether this sample, just added, decides.
    fn decides(&self, gate: &HealthGate, kind: Kind, sample: &Sample) -> Option<Heard> {
        let told = || told(&sample.answer);
        match kind {
            Kind::Forbidden => Some(Heard::Failed { kind: FailureKind::Forbidden, reason: told() }),
            Kind::Failure if self.failures > gate.failure_limit => {
                let reason = format!(
                    "{} failures, {} allowed; in the last sample {}",
                    self.failures,
                    gate.failure_limit,
                    told()
                );
                Some(Heard::Failed { kind: FailureKind::Answers, reason })
            }
            Kind::Error if self.errors_in_a_row > gate.consecutive_error_limit => {
                let reason = format!(
                    "{} errors in a row, {} allowed; in the last sample {}",
                    self.errors_in_a_row,
                    gate.consecutive_error_limit,
                    told()
                );
                Some(Heard::Failed { kind: FailureKind::NeverAnswered, reason })
            }
            Kind::Unclear if self.unclear > gate.inconclusive_limit => {
                let reason = format!(
                    "{} samples told nothing, {} allowed; in the last {}",
                    self.unclear,
                    gate.inconclusive_limit,
                    told()
                );
                Some(Heard::Unclear { reason })
            }
            Kind::Success => self.has_passed(gate, sample.at).then_some(Heard::Passed),
            Kind::Failure | Kind::Error | Kind::Unclear => None,
        }
    }

    fn has_passed(&self, gate: &HealthGate, at: Timestamp) -> bool {
        let baked = self.since.is_some_and(|since| at >= after(since, gate.bake));
        self.successes_in_a_row >= gate.consecutive_success && baked
    }
}

#[cfg(test)]
mod tests;
