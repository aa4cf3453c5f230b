//! Whatever somebody does behind the platform's back, and whatever fails meanwhile: once that is over,
//! what is comes to be what is desired within a bounded number of sweeps, and then nothing more is done.

use proptest::{prelude::*, test_runner::Config};
use runtime_platform::services::{
    deployment_service::{RuntimeDeployment, Slot},
    runtime_drift_detection_service::{FindingStatus, RuntimeDriftFinding},
};
use serde_json::json;

use crate::support::{
    builders::{IMAGE, deploy, provision, publish_configuration},
    faulty::When,
    test_platform::TestPlatform,
};

const APP: &str = "reservations-api";
/// Sweeps after which everything is right again: that a revision was switched off shows in a full look
/// alone, which comes once in twelve.
const SWEEPS_MAX: usize = 20;

/// Something that somebody, or the world, does.
#[derive(Clone, Debug)]
enum Act {
    Image,
    Setting,
    Bounds,
    Traffic,
    SwitchOff,
    Delete,
    Vault,
    Deploy,
    Publish,
    /// This many things happen.
    Happen(usize),
    Sweep,
    /// The process dies at its n-th commit from now.
    Death(u64),
    /// The n-th call of a port from now fails.
    Failure(u64, bool),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Image),
        1 => Just(Act::Setting),
        1 => Just(Act::Bounds),
        2 => Just(Act::Traffic),
        1 => Just(Act::SwitchOff),
        1 => Just(Act::Delete),
        1 => Just(Act::Vault),
        1 => Just(Act::Deploy),
        1 => Just(Act::Publish),
        4 => (1..12_usize).prop_map(Act::Happen),
        4 => Just(Act::Sweep),
        1 => (1..8_u64).prop_map(Act::Death),
        2 => ((1..20_u64), any::<bool>()).prop_map(|(call, after)| Act::Failure(call, after)),
    ]
}

/// How often each thing may be done: what comes back too often is left to a person.
const TIMES_MAX: usize = 2;

async fn perform(platform: &mut TestPlatform, number: usize, act: &Act) {
    let is_there = platform.compute.world().contains_key(APP);
    match act {
        Act::Image if is_there => {
            platform.compute.meddle(APP, true, |spec| spec.image = format!("{IMAGE}:evil"))
        }
        Act::Setting if is_there => platform.compute.meddle(APP, false, |spec| {
            spec.env.insert("DEBUG".into(), "1".into());
        }),
        Act::Bounds if is_there => platform.compute.meddle(APP, true, |spec| spec.max_replicas += 3),
        Act::Traffic if is_there => {
            let first = platform.compute.world()[APP].revisions.keys().next().cloned();
            platform.compute.move_traffic(APP, &first.expect("an app has a revision"));
        }
        Act::SwitchOff if is_there => platform.compute.switch_off(APP),
        Act::Delete if is_there => platform.compute.remove(APP),
        Act::Image | Act::Setting | Act::Bounds | Act::Traffic | Act::SwitchOff | Act::Delete => {}
        Act::Vault => {
            let resources = platform.infrastructure.world();
            let workspace = resources.keys().find(|id| id.contains("/workspaces/"));
            if let Some(workspace) = workspace {
                platform.infrastructure.meddle(workspace, None);
            }
        }
        Act::Deploy => platform.send(&deploy(&format!("deploy-{number}"), &format!("2.{number}"))),
        Act::Publish => {
            let settings = json!({ "NUMBER": number.to_string() });
            platform.send(&publish_configuration(&format!("publish-{number}"), settings));
        }
        Act::Happen(times) => {
            for _ in 0..*times {
                platform.happen().await;
            }
        }
        Act::Sweep => platform.sweep("DriftSweep", 300).await,
        Act::Death(commits) => {
            platform.trouble.die_at_commit(platform.trouble.commits() + commits, When::After)
        }
        Act::Failure(calls, after) => {
            let when = if *after { When::After } else { When::Before };
            platform.trouble.fail_call(platform.trouble.calls() + calls, when);
        }
    }
}

/// What is not as desired; empty when all is well.
fn wrong(platform: &TestPlatform) -> Vec<String> {
    let mut wrong = Vec::new();
    for slot in platform.states::<Slot>() {
        let Some(serving) = slot.serving else { continue };
        let deployments = platform.states::<RuntimeDeployment>();
        let desired = deployments.into_iter().find(|it| it.deployment_id == serving.deployment_id);
        let desired = desired.expect("what serves is a deployment").revision_spec();
        let made = platform.compute.serving(APP);
        let same = made
            .as_ref()
            .is_some_and(|made| made.image == desired.image && made.template() == desired.template());
        if !same {
            wrong.push(format!("{APP} is made from {made:?}, desired is {desired:?}"));
        }
        let world = platform.compute.world();
        let running = world.get(APP).into_iter().flat_map(|observed| observed.revisions.values());
        let running: Vec<_> = running.filter(|it| it.active).map(|it| it.name.clone()).collect();
        if running != [serving.revision.clone()] {
            wrong.push(format!("{running:?} run, {} should", serving.revision));
        }
    }
    let findings = platform.states::<RuntimeDriftFinding>();
    let not_over = findings.iter().filter(|finding| finding.status != FindingStatus::Resolved);
    wrong.extend(not_over.map(|it| format!("{} {} is {}", it.kind, it.path, it.status.as_str())));
    wrong
}

proptest! {
    #![proptest_config(Config { cases: 48, max_shrink_iters: 200, failure_persistence: None, ..Config::default() })]

    #[test]
    fn what_is_comes_to_be_what_is_desired_and_then_there_is_peace(acts in prop::collection::vec(act(), 1..16)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut platform = TestPlatform::new();
            platform.run(&provision("provision-0")).await;
            platform.run(&deploy("deploy-0", "1.0")).await;
            let mut done = std::collections::HashMap::new();
            for (number, act) in acts.iter().enumerate() {
                let times = done.entry(std::mem::discriminant(act)).or_insert(0_usize);
                *times += 1;
                let is_drift = !matches!(act, Act::Happen(_) | Act::Sweep | Act::Death(_) | Act::Failure(..));
                if !is_drift || *times <= TIMES_MAX {
                    perform(&mut platform, number, act).await;
                }
            }
            platform.trouble.calm();
            let mut sweeps = 0;
            loop {
                platform.run_with_sweeps().await;
                let before = platform.mark();
                platform.sweep("DriftSweep", 300).await;
                let quiet = platform.transcript_since(before).is_empty();
                let wrong = wrong(&platform);
                if quiet && wrong.is_empty() {
                    break;
                }
                sweeps += 1;
                assert!(sweeps < SWEEPS_MAX, "{sweeps} sweeps later: {wrong:#?}\n{}", platform.transcript());
            }
            let before = platform.mark();
            for _ in 0..3 {
                platform.sweep("DriftSweep", 300).await;
            }
            assert_eq!(platform.transcript_since(before), "", "there is no peace");
        });
    }
}
