//! The rules of applying, against Resource Manager in memory.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    azure::direct::{
        WRITES_AT_ONCE,
        testing::{Course, MemoryArm, TestClock, resource},
    },
    ports::infrastructure::Infrastructure,
};

struct Bench {
    arm: Arc<MemoryArm>,
    clock: Arc<TestClock>,
    engine: Direct,
}

fn bench() -> Bench {
    let (arm, clock) = (Arc::new(MemoryArm::default()), Arc::new(TestClock::default()));
    let engine = Direct::new(arm.clone(), clock.clone());
    Bench { arm, clock, engine }
}

/// The most looks that a test takes.
const LOOKS_MAX: usize = 200;

impl Bench {
    /// Advances to the end as a caller does: progress goes through its stored form, and time
    /// passes as asked.
    async fn run(&self, desired: &[Resource], plan: &[PlannedChange]) -> Advance {
        let mut stored = serde_json::to_value(Progress::default()).unwrap();
        for _ in 0..LOOKS_MAX {
            let progress = serde_json::from_value(stored).unwrap();
            match self.engine.advance(desired, plan, progress).await.unwrap() {
                Advance::Running { progress, again_in } => {
                    stored = serde_json::to_value(progress).unwrap();
                    self.clock.pass(again_in);
                }
                end => return end,
            }
        }
        panic!("no end after {LOOKS_MAX} looks: {stored}");
    }

    async fn plan_and_run(&self, desired: &[Resource]) -> Advance {
        let plan = self.engine.plan(desired).await.unwrap();
        self.run(desired, &plan).await
    }
}

fn chain_of_three() -> Vec<Resource> {
    vec![
        resource("group", &[], json!({ "location": "westeurope" })),
        resource("identity", &["group"], json!({ "location": "westeurope" })),
        Resource {
            resource_type: ROLE_ASSIGNMENT.to_owned(),
            ..resource(
                "role",
                &["group"],
                json!({ "properties": { "principal": "${identity.properties.principalId}" } }),
            )
        },
    ]
}

fn is_done(end: &Advance, keys: &[&str]) -> bool {
    matches!(end, Advance::Done { progress } if progress.pending.is_empty()
        && progress.done.keys().map(String::as_str).eq(keys.iter().copied()))
}

#[tokio::test]
async fn everything_is_written_once_in_order_and_references_are_filled_in() {
    let bench = bench();
    bench.arm.next("group", Course::Looks(2));
    let end = bench.plan_and_run(&chain_of_three()).await;
    assert!(is_done(&end, &["group", "identity", "role"]), "{end:?}");
    assert_eq!(bench.arm.writes(), ["PUT group", "PUT identity", "PUT role"]);
    assert_eq!(bench.arm.body("role").unwrap()["properties"]["principal"], "principal of identity");
}

#[tokio::test]
async fn what_is_satisfied_is_not_written() {
    let bench = bench();
    bench.plan_and_run(&chain_of_three()).await;
    bench.arm.writes();
    let plan = bench.engine.plan(&chain_of_three()).await.unwrap();
    assert!(plan.iter().all(|planned| planned.change == Change::NoChange), "{plan:?}");
    let end = bench.run(&chain_of_three(), &plan).await;
    assert!(is_done(&end, &["group", "identity", "role"]), "{end:?}");
    assert_eq!(bench.arm.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn an_update_keeps_the_tags_of_others() {
    let bench = bench();
    let desired = [resource("group", &[], json!({ "location": "x", "tags": { "ours": "1" } }))];
    bench.arm.set("group", json!({ "location": "x", "tags": { "OURS": "0", "theirs": "2" } }));
    bench.plan_and_run(&desired).await;
    assert_eq!(bench.arm.body("group").unwrap()["tags"], json!({ "ours": "1", "theirs": "2" }));
}

#[tokio::test]
async fn no_more_than_allowed_are_on_their_way_and_all_arrive() {
    let bench = bench();
    let desired: Vec<_> = (0..9).map(|n| resource(&format!("r{n}"), &[], json!({}))).collect();
    desired.iter().for_each(|resource| bench.arm.next(&resource.key, Course::Looks(3)));
    let plan = bench.engine.plan(&desired).await.unwrap();
    let end = bench.run(&desired, &plan).await;
    assert!(matches!(&end, Advance::Done { progress } if progress.done.len() == 9), "{end:?}");
    assert_eq!(bench.arm.in_flight_most(), WRITES_AT_ONCE);
}

#[tokio::test]
async fn a_step_that_died_after_its_put_writes_nothing_again() {
    let bench = bench();
    let desired = chain_of_three();
    let plan = bench.engine.plan(&desired).await.unwrap();
    bench.engine.advance(&desired, &plan, Progress::default()).await.unwrap();
    assert_eq!(bench.arm.writes(), ["PUT group"]);
    bench.arm.next("identity", Course::LosesTheAnswer);
    let end = bench.run(&desired, &plan).await;
    assert!(is_done(&end, &["group", "identity", "role"]), "{end:?}");
    assert_eq!(bench.arm.writes(), ["PUT identity", "PUT role"]);
}

#[tokio::test]
async fn what_moved_since_the_plan_is_not_overwritten() {
    let desired = [resource("group", &[], json!({ "location": "x", "tags": { "a": "1" } }))];
    let body = |tag: &str| json!({ "location": "x", "tags": { "a": tag } });
    // What was there at planning, what is there at applying, whether it is written.
    for (planned, found, written) in [
        (None, Some("2"), None),
        (Some("2"), Some("3"), None),
        (Some("2"), None, None),
        (Some("1"), Some("2"), None),
        (Some("1"), None, None),
        (None, Some("1"), Some(false)),
        (Some("2"), Some("1"), Some(false)),
        (Some("2"), Some("2"), Some(true)),
    ] {
        let bench = bench();
        let set = |tag: Option<&str>| match tag {
            Some(tag) => bench.arm.set("group", body(tag)),
            None => bench.arm.remove("group"),
        };
        set(planned);
        let plan = bench.engine.plan(&desired).await.unwrap();
        set(found);
        let end = bench.run(&desired, &plan).await;
        let writes = bench.arm.writes().len();
        match written {
            None => assert_eq!(
                (end, writes),
                (Advance::Moved { key: "group".into() }, 0),
                "{planned:?} {found:?}"
            ),
            Some(written) => {
                assert!(is_done(&end, &["group"]), "{planned:?} {found:?} {end:?}");
                assert_eq!(writes, usize::from(written), "{planned:?} {found:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_reference_that_turned_out_otherwise_than_the_plan_could_know_asks_for_a_new_plan() {
    let bench = bench();
    bench.arm.set("role", json!({ "properties": { "principal": "of an identity that is gone" } }));
    let end = bench.plan_and_run(&chain_of_three()).await;
    assert_eq!(end, Advance::Moved { key: "role".into() });
}

#[tokio::test]
async fn what_somebody_writes_at_this_moment_is_waited_for() {
    let bench = bench();
    let desired = [resource("group", &[], json!({ "location": "x" }))];
    let changing = json!({ "location": "x", "properties": { "provisioningState": "Updating" } });
    let plan = bench.engine.plan(&desired).await.unwrap();
    bench.arm.set("group", changing);
    let Advance::Running { progress, again_in } =
        bench.engine.advance(&desired, &plan, Progress::default()).await.unwrap()
    else {
        panic!("it should wait")
    };
    assert_eq!(again_in, SETTLING_AGAIN);
    assert_eq!(waiting(&progress)[0].0, "group");
    bench.arm.set("group", json!({ "location": "x", "properties": { "provisioningState": "Succeeded" } }));
    bench.clock.pass(again_in);
    let end = bench.engine.advance(&desired, &plan, progress).await.unwrap();
    assert!(is_done(&end, &["group"]), "{end:?}");
    assert_eq!(bench.arm.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_asked_before_its_time() {
    let bench = bench();
    let desired = [resource("group", &[], json!({}))];
    bench.arm.next("group", Course::Looks(1));
    let plan = bench.engine.plan(&desired).await.unwrap();
    let advance = |progress| bench.engine.advance(&desired, &plan, progress);
    let Advance::Running { progress, again_in } = advance(Progress::default()).await.unwrap() else {
        panic!()
    };
    assert_eq!(again_in, Duration::from_secs(1));
    bench.clock.pass(Duration::from_millis(400));
    let early = advance(progress.clone()).await.unwrap();
    assert_eq!(early, Advance::Running { progress: progress.clone(), again_in: Duration::from_millis(600) });
    bench.clock.pass(Duration::from_millis(600));
    assert!(is_done(&advance(progress).await.unwrap(), &["group"]));
}

fn refusal(code: &str) -> Course {
    Course::Refuses(Fault::Rejected {
        doing: "writing".into(),
        code: code.into(),
        detail: "It is so.".into(),
    })
}

#[tokio::test]
async fn a_refusal_ends_everything_and_a_role_that_is_on_its_way_does_not() {
    for (key, code, ends_with) in [
        ("group", "AuthorizationFailed", Some("Azure refused: It is so. (AuthorizationFailed)")),
        (
            "identity",
            "RequestDisallowedByPolicy",
            Some("Azure refused: It is so. (RequestDisallowedByPolicy)"),
        ),
        (
            "role",
            "RoleAssignmentUpdateNotPermitted",
            Some("Azure refused: It is so. (RoleAssignmentUpdateNotPermitted)"),
        ),
        ("role", "AuthorizationFailed", None),
        ("role", "PrincipalNotFound", None),
    ] {
        let bench = bench();
        bench.arm.next(key, refusal(code));
        match (bench.plan_and_run(&chain_of_three()).await, ends_with) {
            (Advance::Failed { key: failed, reason, .. }, Some(ends_with)) => {
                assert_eq!((failed.as_str(), reason.as_str()), (key, ends_with));
            }
            (end, None) => assert!(is_done(&end, &["group", "identity", "role"]), "{code} {end:?}"),
            (end, Some(_)) => panic!("{key} {code}: {end:?}"),
        }
    }
}

#[tokio::test]
async fn what_azure_gave_up_is_told_and_is_written_again_by_the_next_plan() {
    let bench = bench();
    bench.arm.next("identity", Course::GivesUp);
    let end = bench.plan_and_run(&chain_of_three()).await;
    let Advance::Failed { key, reason, progress } = end else { panic!("{end:?}") };
    assert_eq!((key.as_str(), reason.as_str()), ("identity", "Azure could not do it: it broke (Broken)"));
    assert!(progress.done.contains_key("group") && progress.pending.is_empty());
    bench.arm.writes();
    let end = bench.plan_and_run(&chain_of_three()).await;
    assert!(is_done(&end, &["group", "identity", "role"]), "{end:?}");
    assert_eq!(bench.arm.writes(), ["PUT identity", "PUT role"]);
}

#[tokio::test]
async fn what_is_busy_is_tried_again_when_azure_says() {
    let bench = bench();
    let desired = [resource("group", &[], json!({}))];
    let busy = Fault::Transient {
        doing: "writing `group`".into(),
        retry_after: Some(Duration::from_secs(17)),
        source: "another operation is in progress".into(),
    };
    bench.arm.next("group", Course::Refuses(busy));
    let plan = bench.engine.plan(&desired).await.unwrap();
    let Advance::Running { progress, again_in } =
        bench.engine.advance(&desired, &plan, Progress::default()).await.unwrap()
    else {
        panic!("it should wait")
    };
    assert_eq!(again_in, Duration::from_secs(17));
    let reason = "writing `group`: another operation is in progress".to_owned();
    assert_eq!(waiting(&progress), [("group".to_owned(), reason)]);
}

#[tokio::test]
async fn a_plan_that_refuses_is_not_begun() {
    let bench = bench();
    bench.arm.set("identity", json!({ "location": "elsewhere" }));
    let end = bench.plan_and_run(&chain_of_three()).await;
    assert!(matches!(&end, Advance::Failed { key, .. } if key == "identity"), "{end:?}");
    assert_eq!(bench.arm.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_plan_of_another_list_is_refused() {
    let bench = bench();
    let plan = bench.engine.plan(&chain_of_three()[..1]).await.unwrap();
    let fault = bench.engine.advance(&chain_of_three(), &plan, Progress::default()).await.unwrap_err();
    assert!(fault.to_string().contains("the plan says nothing of `identity`"), "{fault}");
}

fn course() -> impl Strategy<Value = Course> {
    (0..6_u32).prop_map(|kind| match kind {
        4 => Course::LosesTheAnswer,
        5 => Course::Refuses(Fault::transient("writing", "busy")),
        looks => Course::Looks(looks),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever Azure does that may pass, and at whichever step the caller dies and comes back
    /// with older progress, all is written exactly as desired in the end.
    #[test]
    fn dying_anywhere_changes_nothing_in_the_end(
        courses in prop::collection::vec(course(), 6),
        edges in prop::collection::vec(any::<bool>(), 15),
        dies in prop::collection::vec(any::<bool>(), 40),
    ) {
        let keys: Vec<String> = (0..6).map(|n| format!("r{n}")).collect();
        let mut edges = edges.into_iter();
        let desired: Vec<Resource> = (0..6).map(|n| {
            let needs: Vec<&str> = keys[..n].iter().filter(|_| edges.next().unwrap()).map(String::as_str).collect();
            resource(&keys[n], &needs, json!({ "location": "x", "properties": { "n": n } }))
        }).collect();
        let bench = bench();
        let mut lost = 0;
        for (key, course) in keys.iter().zip(courses) {
            lost += usize::from(matches!(course, Course::Refuses(_)));
            bench.arm.next(key, course);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let end = runtime.block_on(async {
            let plan = bench.engine.plan(&desired).await.unwrap();
            let mut progress = Progress::default();
            let mut dies = dies.into_iter();
            for _ in 0..LOOKS_MAX {
                match bench.engine.advance(&desired, &plan, progress.clone()).await.unwrap() {
                    Advance::Running { progress: next, again_in } => {
                        if !dies.next().unwrap_or(false) {
                            progress = next;
                        }
                        bench.clock.pass(again_in);
                        // What was forgotten goes on in Azure all the same.
                        bench.arm.finish_forgotten(&progress.pending);
                    }
                    end => return Some(end),
                }
            }
            None
        });
        prop_assert!(matches!(&end, Some(Advance::Done { progress }) if progress.done.len() == 6), "{:?}", end);
        prop_assert_eq!(bench.arm.writes().len(), 6 + lost);
    }
}
