//! What may be put right without asking: a function of the kind of drift, the stage, and what happened
//! before.

use jiff::{SignedDuration, Timestamp};

use crate::{
    events::{DriftKind, DriftSeverity},
    services::runtime_environment_service::resources::Stage,
};

/// Automatic remediations of one fingerprint within [`ATTEMPTS_WITHIN`]; then it is contested.
pub const ATTEMPTS_MAX: usize = 3;
/// The window in which automatic remediations of one fingerprint are counted.
pub const ATTEMPTS_WITHIN: SignedDuration = SignedDuration::from_hours(24);
/// The pause after the first automatic remediation; each further one is three times as long.
const BACK_OFF: SignedDuration = SignedDuration::from_mins(1);
/// Workloads that may drift at once before somebody must have meant it.
const STORM_WORKLOADS: usize = 3;

/// Whether the platform may put a drift right by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Auto,
    /// A person must say so; a sentence that says why.
    Waits(String),
}

/// What a verdict rests on beside the drift itself.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    pub stage: Stage,
    /// When this fingerprint was put right automatically before, oldest first.
    pub attempts: &'a [Timestamp],
    pub writer: Option<&'a str>,
    /// Why this is a storm, where it is one.
    pub storm: Option<&'a str>,
    pub now: Timestamp,
}

/// Judges a drift.
pub fn verdict(kind: DriftKind, destructive: bool, circumstances: &Circumstances<'_>) -> Verdict {
    let waits = |why: String| Verdict::Waits(why);
    if destructive {
        return waits(
            "Putting it right would take away something that is there; a person must decide.".to_owned(),
        );
    }
    match kind {
        DriftKind::ImageMismatch
        | DriftKind::ConfigurationMismatch
        | DriftKind::ReplicaMismatch
        | DriftKind::MissingWorkload
        | DriftKind::ResourceMissing => {}
        DriftKind::SecretVersionMismatch
        | DriftKind::UnexpectedWorkload
        | DriftKind::NetworkPolicyMismatch
        | DriftKind::IsolationMismatch => {
            return waits(format!("{kind} is never put right without a person: somebody may be in there."));
        }
    }
    if circumstances.stage == Stage::Prod {
        return waits("In a prod environment a person decides.".to_owned());
    }
    if let Some(storm) = circumstances.storm {
        return waits(storm.to_owned());
    }
    if is_contested(circumstances.attempts, circumstances.now) {
        return waits(contested(circumstances.writer));
    }
    Verdict::Auto
}

/// Whether a fingerprint used up its automatic remediations.
pub fn is_contested(attempts: &[Timestamp], now: Timestamp) -> bool {
    recent(attempts, now).count() >= ATTEMPTS_MAX
}

/// The attempts that still count.
pub fn recent(attempts: &[Timestamp], now: Timestamp) -> impl Iterator<Item = Timestamp> {
    attempts.iter().copied().filter(move |at| now.duration_since(*at) < ATTEMPTS_WITHIN)
}

fn contested(writer: Option<&str>) -> String {
    let hours = ATTEMPTS_WITHIN.as_hours();
    let who = match writer {
        Some(writer) => format!("Azure says that `{writer}` wrote last"),
        None => "Azure does not say who wrote last".to_owned(),
    };
    format!(
        "It came back after {ATTEMPTS_MAX} automatic remediations within {hours} hours: somebody, or something, wants it otherwise. {who}."
    )
}

/// When the next automatic remediation may begin.
pub fn not_before(attempts: &[Timestamp], now: Timestamp) -> Timestamp {
    let recent: Vec<_> = recent(attempts, now).collect();
    let Some(last) = recent.last() else { return now };
    let exponent = u32::try_from(recent.len() - 1).unwrap_or(u32::MAX).min(4);
    (*last + BACK_OFF * 3_i32.pow(exponent)).max(now)
}

/// Whether so many workloads drift at once that it cannot be chance, as a sentence.
pub fn storm(drifting: usize, serving: usize) -> Option<String> {
    (drifting > STORM_WORKLOADS && drifting * 2 > serving).then(|| {
        format!(
            "{drifting} of {serving} workloads drifted at once: somebody is at work, or the wrong subscription is read. A person decides."
        )
    })
}

/// Whether a drift may be left alone by a suppression.
pub fn may_be_suppressed(severity: DriftSeverity) -> bool {
    severity < DriftSeverity::Critical
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
    }

    fn judged(kind: DriftKind, stage: Stage, attempts: &[Timestamp], storm: Option<&str>) -> bool {
        let circumstances = Circumstances { stage, attempts, writer: Some("eve"), storm, now: at(600) };
        verdict(kind, false, &circumstances) == Verdict::Auto
    }

    #[test]
    fn only_what_loses_nothing_is_put_right_without_asking() {
        use DriftKind::*;
        for (kind, auto) in [
            (ImageMismatch, true),
            (ConfigurationMismatch, true),
            (ReplicaMismatch, true),
            (MissingWorkload, true),
            (ResourceMissing, true),
            (SecretVersionMismatch, false),
            (UnexpectedWorkload, false),
            (NetworkPolicyMismatch, false),
            (IsolationMismatch, false),
        ] {
            for stage in [Stage::Dev, Stage::Test, Stage::Staging] {
                assert_eq!(judged(kind, stage, &[], None), auto, "{kind} {stage:?}");
            }
            assert!(!judged(kind, Stage::Prod, &[], None), "{kind} in prod");
            assert!(!judged(kind, Stage::Test, &[], Some("a storm")), "{kind} in a storm");
            assert!(!judged(kind, Stage::Test, &[at(1), at(5), at(20)], None), "{kind} contested");
        }
        let circumstances =
            Circumstances { stage: Stage::Dev, attempts: &[], writer: None, storm: None, now: at(0) };
        assert!(matches!(verdict(DriftKind::ResourceMissing, true, &circumstances), Verdict::Waits(_)));
    }

    #[test]
    fn three_attempts_within_a_day_are_enough_and_pauses_grow() {
        assert!(!is_contested(&[at(0), at(1)], at(2)));
        assert!(is_contested(&[at(0), at(1), at(2)], at(3)));
        assert!(!is_contested(&[at(0), at(1), at(2)], at(24 * 60)));
        assert_eq!(not_before(&[], at(5)), at(5));
        assert_eq!(not_before(&[at(5)], at(5)), at(6));
        assert_eq!(not_before(&[at(0), at(5)], at(5)), at(8));
        assert_eq!(not_before(&[at(0), at(1), at(5)], at(5)), at(14));
        assert_eq!(not_before(&[at(5)], at(60)), at(60));
    }

    #[test]
    fn many_at_once_are_a_storm_and_few_are_not() {
        assert_eq!(storm(3, 3), None);
        assert_eq!(storm(4, 8), None);
        assert!(storm(4, 7).is_some());
    }
}
