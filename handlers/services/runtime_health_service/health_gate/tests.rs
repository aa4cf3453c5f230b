//! The rules of the gate, as tables of samples.

use proptest::prelude::*;

use super::*;

const INTERVAL_SECONDS: i64 = 10;

/// Three successes in a row, over twenty seconds; one failure and one error in a row allowed, one
/// sample that tells nothing; ten samples.
fn gate() -> HealthGate {
    HealthGate {
        initial_delay: Duration::from_secs(5),
        interval: Duration::from_secs(10),
        bake: Duration::from_secs(20),
        readiness_deadline: Duration::from_secs(60),
        count: 10,
        failure_limit: 1,
        consecutive_success: 3,
        consecutive_error_limit: 1,
        inconclusive_limit: 1,
        ..HealthGate::default()
    }
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn at(seconds: i64) -> Timestamp {
    start() + jiff::SignedDuration::from_secs(seconds)
}

/// One sample every interval, one letter each: `+` expected, `-` another status, `~` asked to wait,
/// `!` nobody there, `t` no answer in time, `x` not allowed.
fn samples(letters: &str) -> Vec<Sample> {
    let mut time = 5 - INTERVAL_SECONDS;
    letters
        .chars()
        .map(|letter| {
            time += INTERVAL_SECONDS;
            Sample { at: at(time), latency_ms: 3, answer: answer(letter) }
        })
        .collect()
}

fn answer(letter: char) -> Answer {
    match letter {
        '+' => Answer::Status { status: 200, retry_after: false },
        '-' => Answer::Status { status: 500, retry_after: false },
        '~' => Answer::Status { status: 503, retry_after: true },
        '!' => Answer::Unreachable { reason: "connection refused".into() },
        't' => Answer::TimedOut,
        'x' => Answer::Forbidden { reason: "a metadata address".into() },
        other => panic!("no sample is written `{other}`"),
    }
}

fn judged(gate: &HealthGate, readiness: &Readiness, letters: &str) -> Verdict {
    let samples = samples(letters);
    let now = samples.last().map_or(start(), |last| last.at);
    judge(gate, start(), now, readiness, &samples)
}

/// The verdict as one word.
fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Running { .. } => "running".into(),
        Verdict::Passed => "passed".into(),
        Verdict::Failed { kind, .. } => format!("failed {kind:?}"),
        Verdict::Inconclusive { .. } => "inconclusive".into(),
        Verdict::TimedOut { .. } => "timed out".into(),
    }
}

fn waiting() -> Readiness {
    Readiness::Waiting { why: "no replica is ready yet".into() }
}

#[test]
fn what_samples_come_to() {
    for (letters, verdict) in [
        ("", "running"),
        ("+", "running"),
        ("++", "running"),
        ("+++", "passed"),
        ("+++---", "passed"),
        ("-", "running"),
        ("-+++", "passed"),
        ("--", "failed Answers"),
        ("-+-", "failed Answers"),
        ("++-+", "running"),
        ("++-+++", "passed"),
        ("!", "running"),
        ("!!", "failed NeverAnswered"),
        ("tt", "failed NeverAnswered"),
        ("!-!+++", "passed"),
        ("!+++", "passed"),
        ("+!", "running"),
        ("+!!", "failed Answers"),
        ("+t+!", "failed Answers"),
        ("~", "running"),
        ("~+++", "passed"),
        ("~+~", "failed Inconclusive"),
        ("++~+++", "passed"),
        ("x", "failed Forbidden"),
        ("+x", "failed Forbidden"),
        ("+++x", "passed"),
        ("++-++~++!", "failed Answers"),
        ("++-++~++", "running"),
    ] {
        assert_eq!(word(&judged(&gate(), &Readiness::Ready, letters)), verdict, "`{letters}`");
    }
}

#[test]
fn successes_must_go_on_for_the_bake_after_the_last_break() {
    let gate = HealthGate { bake: Duration::from_secs(40), ..gate() };
    for (letters, verdict) in [
        ("+++", "running"),
        ("++++", "running"),
        ("+++++", "passed"),
        ("+++-+++", "running"),
        ("+++-+++++", "passed"),
    ] {
        assert_eq!(word(&judged(&gate, &Readiness::Ready, letters)), verdict, "`{letters}`");
    }
    let no_bake = HealthGate { bake: Duration::ZERO, consecutive_success: 1, ..gate };
    assert_eq!(judged(&no_bake, &Readiness::Ready, "+"), Verdict::Passed);
}

#[test]
fn what_the_samples_do_not_decide_fails_unless_a_person_is_asked() {
    let fails = HealthGate { count: 5, bake: Duration::ZERO, failure_limit: 9, ..gate() };
    let holds = HealthGate { on_inconclusive: OnInconclusive::Hold, ..fails.clone() };
    for letters in ["++-++", "~~"] {
        assert_eq!(word(&judged(&fails, &Readiness::Ready, letters)), "failed Inconclusive", "`{letters}`");
        let held = judged(&holds, &Readiness::Ready, letters);
        assert_eq!((word(&held).as_str(), held.result()), ("inconclusive", None), "`{letters}`");
    }
}

#[test]
fn only_the_expected_statuses_are_successes() {
    let gate = HealthGate { expect_status: vec![204, 503], ..gate() };
    for (status, retry_after, kind) in [
        (204, false, Kind::Success),
        (503, true, Kind::Success),
        (200, false, Kind::Failure),
        (301, false, Kind::Failure),
        (429, true, Kind::Unclear),
        (429, false, Kind::Failure),
        (500, true, Kind::Failure),
    ] {
        assert_eq!(classify(&gate, &Answer::Status { status, retry_after }, true), kind, "{status}");
    }
}

#[test]
fn what_the_platform_says_counts_beside_the_samples() {
    let failed = Readiness::Failed { detail: "ImagePullFailure".into() };
    let looping = Readiness::CrashLoop { restarts: 4, detail: "exit code 1".into() };
    for (readiness, letters, verdict) in [
        (&failed, "", "failed Platform"),
        (&failed, "+++", "failed Platform"),
        (&looping, "", "failed CrashLoop"),
        (&looping, "~~", "failed CrashLoop"),
        (&looping, "x", "failed Forbidden"),
        (&waiting(), "", "running"),
        (&waiting(), "++", "running"),
        (&waiting(), "+++", "running"),
        (&waiting(), "--", "failed Answers"),
    ] {
        assert_eq!(word(&judged(&gate(), readiness, letters)), verdict, "{readiness:?} `{letters}`");
    }
    let Verdict::Failed { reason, .. } = judged(&gate(), &looping, "") else { panic!("it should fail") };
    assert_eq!(reason, "the revision restarted 4 times and no replica is ready: exit code 1");
}

#[test]
fn a_revision_is_read_as_the_platform_means_it() {
    let revision = |state, ready_replicas, restarts| Revision {
        name: "api--d1".into(),
        deployment_id: None,
        image: "api:1".into(),
        active: true,
        state,
        traffic: 0,
        replicas: 1,
        ready_replicas,
        restarts,
        host: None,
        detail: Some("so it is".into()),
        template: Default::default(),
    };
    let detail = || "so it is".to_owned();
    let wait = |why: &str| Readiness::Waiting { why: why.into() };
    for (state, ready, restarts, readiness) in [
        (RevisionState::Provisioning, 0, 0, wait("no replica is ready yet")),
        (RevisionState::Provisioning, 0, 2, wait("no replica is ready yet")),
        (RevisionState::Provisioning, 0, 3, Readiness::CrashLoop { restarts: 3, detail: detail() }),
        (RevisionState::Running, 1, 0, Readiness::Ready),
        (RevisionState::Running, 1, 9, Readiness::Ready),
        (RevisionState::Running, 0, 0, wait("no replica is ready")),
        (RevisionState::Degraded, 1, 5, wait("its replicas come and go")),
        (RevisionState::Degraded, 0, 5, Readiness::CrashLoop { restarts: 5, detail: detail() }),
        (RevisionState::Failed, 0, 9, Readiness::Failed { detail: detail() }),
        (RevisionState::Stopped, 0, 0, wait("it is stopped")),
    ] {
        assert_eq!(
            Readiness::of(Some(&revision(state, ready, restarts))),
            readiness,
            "{state:?} {ready} {restarts}"
        );
    }
    assert_eq!(Readiness::of(None), wait("the platform does not show the revision yet"));
}

#[test]
fn a_revision_that_does_not_become_ready_times_out() {
    let judge = |seconds, letters: &str| judge(&gate(), start(), at(seconds), &waiting(), &samples(letters));
    assert_eq!(judge(0, ""), Verdict::Running { next_in: Duration::from_secs(10) });
    assert_eq!(judge(57, ""), Verdict::Running { next_in: Duration::from_secs(3) });
    let reason = "the revision was not ready within 60 s: no replica is ready yet".to_owned();
    let late = judge(60, "");
    assert_eq!(late, Verdict::TimedOut { reason });
    assert_eq!(late.result(), Some(HealthGateResult::TimedOut));
    assert_eq!(word(&judge(60, "!")), "timed out");
    // It was ready once: then it has the whole of the gate's time, which is 60 + 5 + 10 * (10 + 5) s.
    assert_eq!(word(&judge(60, "+")), "running");
    assert_eq!(word(&judge(214, "+++")), "running");
    assert_eq!(word(&judge(215, "+++")), "timed out");
}

#[test]
fn samples_that_stay_away_do_not_keep_a_gate_open_for_ever() {
    let judge = |seconds| judge(&gate(), start(), at(seconds), &Readiness::Ready, &samples("++"));
    assert_eq!(judge(214), Verdict::Running { next_in: Duration::ZERO });
    assert_eq!(judge(215), Verdict::TimedOut { reason: "nothing was decided within 215 s".into() });
}

#[test]
fn the_next_look_is_when_the_next_sample_is_due() {
    let next = |seconds, letters: &str| {
        let samples = samples(letters);
        let wanted = wants_sample(&gate(), start(), at(seconds), &Readiness::Ready, &samples);
        match judge(&gate(), start(), at(seconds), &Readiness::Ready, &samples) {
            Verdict::Running { next_in } => Some((next_in.as_secs(), wanted)),
            _ => {
                assert!(!wanted);
                None
            }
        }
    };
    assert_eq!(next(0, ""), Some((5, false)));
    assert_eq!(next(5, ""), Some((0, true)));
    assert_eq!(next(5, "+"), Some((10, false)));
    assert_eq!(next(14, "+"), Some((1, false)));
    assert_eq!(next(15, "+"), Some((0, true)));
    assert_eq!(next(25, "+++"), None);
    assert!(!wants_sample(&gate(), start(), at(15), &waiting(), &samples("+")));
}

#[test]
fn only_an_application_that_is_to_blame_is_blamed() {
    for (kind, blamed) in [
        (FailureKind::Platform, true),
        (FailureKind::CrashLoop, true),
        (FailureKind::Answers, true),
        (FailureKind::NeverAnswered, false),
        (FailureKind::Forbidden, false),
        (FailureKind::Inconclusive, false),
    ] {
        assert_eq!(kind.blames_application(), blamed, "{kind:?}");
    }
}

fn letters() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!['+', '+', '+', '-', '~', '!', 't', 'x']), 0..14)
        .prop_map(|letters| letters.into_iter().collect())
}

fn any_gate() -> impl Strategy<Value = HealthGate> {
    (1..12_u32, 0..4_u32, 1..4_u32, 0..4_u32, 0..4_u32, 0..60_u64, any::<bool>()).prop_map(
        |(
            count,
            failure_limit,
            consecutive_success,
            consecutive_error_limit,
            inconclusive_limit,
            bake,
            hold,
        )| {
            HealthGate {
                count,
                failure_limit,
                consecutive_success,
                consecutive_error_limit,
                inconclusive_limit,
                bake: Duration::from_secs(bake),
                on_inconclusive: if hold { OnInconclusive::Hold } else { OnInconclusive::Fail },
                ..gate()
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_decided_stays_decided(gate in any_gate(), first in letters(), more in letters()) {
        let decided = judged(&gate, &Readiness::Ready, &first);
        if !matches!(decided, Verdict::Running { .. }) {
            prop_assert_eq!(judged(&gate, &Readiness::Ready, &format!("{first}{more}")), decided);
        }
    }

    #[test]
    fn a_success_never_makes_a_gate_fail(gate in any_gate(), letters in letters()) {
        let before = judged(&gate, &Readiness::Ready, &letters);
        let after = judged(&gate, &Readiness::Ready, &format!("{letters}+"));
        let fails = matches!(&after, Verdict::Failed { kind, .. } if *kind != FailureKind::Inconclusive);
        prop_assert!(!fails || before == after, "{:?} became {:?}", before, after);
    }

    #[test]
    fn one_that_answers_well_where_another_did_not_is_never_worse_off(
        gate in any_gate(),
        letters in letters(),
        at in 0..14_usize,
    ) {
        // Errors before the first success are forgiven more than failures after it, so a success in
        // the place of an error may be the worse of the two; one in the place of a failure never is.
        let better: String = letters
            .chars()
            .enumerate()
            .map(|(index, letter)| if index == at && letter == '-' { '+' } else { letter })
            .collect();
        let unreachable = letters.contains(['!', 't']);
        if !unreachable && judged(&gate, &Readiness::Ready, &letters) == Verdict::Passed {
            prop_assert_eq!(judged(&gate, &Readiness::Ready, &better), Verdict::Passed);
        }
    }

    #[test]
    fn a_gate_ends_with_its_samples_and_never_passes_what_is_not_ready(gate in any_gate(), letters in letters()) {
        let count = usize::try_from(gate.count).unwrap();
        if letters.len() >= count {
            prop_assert_ne!(word(&judged(&gate, &Readiness::Ready, &letters)), "running");
        }
        prop_assert_ne!(judged(&gate, &waiting(), &letters), Verdict::Passed);
    }

    #[test]
    fn a_pass_has_its_successes_and_its_bake_behind_it(gate in any_gate(), letters in letters()) {
        let passes = |letters: &str| judged(&gate, &Readiness::Ready, letters) == Verdict::Passed;
        let first = (0..=letters.len()).find(|&end| passes(&letters[..end]));
        if let Some(end) = first {
            let run = letters[..end].chars().rev().take_while(|&letter| letter == '+').count();
            let baked = (run as u64 - 1) * INTERVAL_SECONDS.unsigned_abs();
            prop_assert!(run >= usize::try_from(gate.consecutive_success).unwrap());
            prop_assert!(baked >= gate.bake.as_secs());
            let failures = letters[..end].chars().filter(|&letter| letter == '-').count();
            prop_assert!(failures <= usize::try_from(gate.failure_limit).unwrap());
        }
    }

    #[test]
    fn a_gate_that_is_valid_can_be_passed(gate in any_gate()) {
        let all_well = "+".repeat(usize::try_from(gate.count).unwrap());
        prop_assert_eq!(gate.validate().is_ok(), judged(&gate, &Readiness::Ready, &all_well) == Verdict::Passed);
    }
}
