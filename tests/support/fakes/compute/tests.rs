//! The fake keeps what the port promises.

use super::*;
use crate::support::faulty::When;

fn workload() -> WorkloadRef {
    let target = ComputeTarget {
        target: "container-apps".into(),
        resource_group_id: "/subscriptions/s/resourceGroups/g".into(),
        host_id: "host".into(),
        identity_id: "identity".into(),
        region: "westeurope".into(),
        tags: BTreeMap::new(),
        workload_profile: None,
    };
    WorkloadRef { target, name: "api".into() }
}

fn spec(number: u32, image: &str) -> RevisionSpec {
    RevisionSpec {
        suffix: format!("d{number}"),
        deployment_id: format!("dep-{number}"),
        image: image.into(),
        port: 8080,
        env: BTreeMap::new(),
        cpu: 0.5,
        memory: "1Gi".into(),
        min_replicas: 2,
        max_replicas: 3,
        configuration: None,
        secrets: Vec::new(),
        corrective: false,
        scale_rules: Vec::new(),
    }
}

fn weights(of: &[(&str, u32)]) -> BTreeMap<String, u32> {
    of.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
}

fn fake() -> (FixedClock, Trouble, FakeCompute) {
    let (clock, trouble) = (FixedClock::default(), Trouble::default());
    let compute = FakeCompute::new(clock.clone(), trouble.clone());
    (clock, trouble, compute)
}

fn token(step: Step) -> Value {
    match step {
        Step::Pending { token, .. } => token,
        Step::Done => panic!("a call should not be finished"),
    }
}

#[tokio::test]
async fn a_call_is_finished_after_its_looks_and_asked_again_is_the_same_call() {
    let (_, trouble, compute) = fake();
    let api = workload();
    compute.finish_after(2);
    assert_eq!(compute.observe(&api).await.unwrap(), None);
    let started = token(compute.stage(&api, &spec(1, "i:1")).await.unwrap());
    assert_eq!(token(compute.stage(&api, &spec(1, "i:1")).await.unwrap()), started);
    let state = |compute: &FakeCompute| compute.world()["api"].revisions["api--d1"].state;
    assert_eq!(token(compute.resume(&started).await.unwrap()), started);
    assert_eq!(state(&compute), RevisionState::Provisioning);
    assert_eq!(compute.resume(&started).await.unwrap(), Step::Done);
    assert_eq!(compute.resume(&started).await.unwrap(), Step::Done);
    assert_eq!(state(&compute), RevisionState::Running);
    assert_eq!(compute.stage(&api, &spec(1, "i:1")).await.unwrap(), Step::Done);
    assert!(matches!(compute.resume(&json!({"started": 9})).await, Err(Fault::Rejected { .. })));
    assert_eq!(compute.effects(), ["stage api--d1 i:1"]);
    assert_eq!(trouble.log()[..2], ["compute.observe", "compute.stage"]);
}

#[tokio::test]
async fn only_the_first_revision_gets_traffic_by_itself() {
    let (_, _, compute) = fake();
    let api = workload();
    compute.stage(&api, &spec(1, "i:1")).await.unwrap();
    compute.stage(&api, &spec(2, "i:2")).await.unwrap();
    let world = compute.world();
    let traffic: Vec<_> = world["api"].revisions.values().map(|r| (r.traffic, r.ready_replicas)).collect();
    assert_eq!(traffic, [(100, 2), (0, 2)]);
    let other = RevisionSpec { deployment_id: "dep-9".into(), ..spec(2, "i:2") };
    assert!(matches!(compute.stage(&api, &other).await, Err(Fault::Rejected { .. })));
}

#[tokio::test]
async fn traffic_goes_by_weight_and_only_to_what_is_active() {
    let (_, _, compute) = fake();
    let api = workload();
    for number in [1, 2] {
        compute.stage(&api, &spec(number, "i:1")).await.unwrap();
    }
    compute.finish_after(1);
    let wanted = weights(&[("api--d1", 90), ("api--d2", 10)]);
    let started = token(compute.shift(&api, &wanted).await.unwrap());
    assert_eq!(token(compute.shift(&api, &wanted).await.unwrap()), started);
    let others = weights(&[("api--d2", 100)]);
    assert!(matches!(compute.shift(&api, &others).await, Err(Fault::Transient { .. })));
    compute.resume(&started).await.unwrap();
    assert_eq!(compute.shift(&api, &wanted).await.unwrap(), Step::Done);
    for _ in 0..100 {
        compute.request("api.fake.localhost");
    }
    assert_eq!((compute.requests("api--d1"), compute.requests("api--d2")), (90, 10));
    for wrong in [weights(&[("api--d1", 99)]), weights(&[("api--d3", 100)])] {
        assert!(matches!(compute.shift(&api, &wrong).await, Err(Fault::Rejected { .. })));
    }
    for _ in 0..2 {
        compute.deactivate(&api, "api--d2").await.unwrap();
    }
    assert!(matches!(compute.shift(&api, &others).await, Err(Fault::Rejected { .. })));
    compute.activate(&api, "api--d2").await.unwrap();
    assert!(matches!(compute.activate(&api, "api--d9").await, Err(Fault::Rejected { .. })));
    assert_eq!(
        compute.effects()[2..],
        ["shift api to api--d1=90 api--d2=10", "deactivate api--d2", "activate api--d2"]
    );
}

#[tokio::test]
async fn an_image_behaves_as_told() {
    let (clock, _, compute) = fake();
    let behaviours = [
        (Behaviour::Good, [Some(200), Some(200)], RevisionState::Running, 0),
        (Behaviour::Answers(500), [Some(500), Some(500)], RevisionState::Running, 0),
        (Behaviour::Turns { after: 1, status: 503 }, [Some(200), Some(503)], RevisionState::Running, 0),
        (Behaviour::Slow(Duration::from_secs(30)), [None, Some(200)], RevisionState::Running, 0),
        (Behaviour::Crashes, [None, None], RevisionState::Degraded, 3),
        (Behaviour::Missing, [None, None], RevisionState::Failed, 0),
    ];
    let status = |compute: &FakeCompute, number: usize| match compute
        .request(&format!("api--d{number}.fake.localhost"))
    {
        Answer::Status { status, .. } => Some(status),
        Answer::Unreachable { .. } | Answer::TimedOut | Answer::Forbidden { .. } => None,
    };
    for (number, (behaviour, ..)) in (0..).zip(&behaviours) {
        compute.image(&format!("i:{number}"), *behaviour);
        compute.stage(&workload(), &spec(number, &format!("i:{number}"))).await.unwrap();
    }
    let first: Vec<_> = (0..behaviours.len()).map(|number| status(&compute, number)).collect();
    clock.advance(Duration::from_secs(30));
    let world = compute.world();
    for (number, (behaviour, answers, state, restarts)) in behaviours.into_iter().enumerate() {
        assert_eq!([first[number], status(&compute, number)], answers, "{behaviour:?}");
        let revision = &world["api"].revisions[&format!("api--d{number}")];
        assert_eq!((revision.state, revision.restarts), (state, restarts), "{behaviour:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_an_effect_that_is_not_made_twice() {
    let (_, trouble, compute) = fake();
    trouble.fail_call(1, When::Before);
    trouble.fail_call(2, When::After);
    for _ in 0..2 {
        assert!(matches!(compute.stage(&workload(), &spec(1, "i:1")).await, Err(Fault::Transient { .. })));
    }
    assert_eq!(compute.stage(&workload(), &spec(1, "i:1")).await.unwrap(), Step::Done);
    assert_eq!(compute.effects(), ["stage api--d1 i:1"]);
}
