//! A hold is never broken: while one is in force nothing begins that nobody sent, whatever is asked,
//! swept, repeated or dies. When it is over, what waited goes on.

use jiff::{SignedDuration, Timestamp};
use proptest::{prelude::*, test_runner::Config};
use runtime_platform::{
    holds::HoldScope,
    ports::clock::Clock,
    services::deployment_service::{DeploymentStatus, RuntimeDeployment, Slot, state::Origin},
};
use serde_json::json;

use super::any_order::sweep_timers;
use crate::{
    scenario::holds::hold,
    support::{
        builders::{IMAGE, bind_secret, deploy, provision, publish_configuration, rollback},
        fakes::compute::Behaviour,
        faulty::When,
        test_platform::TestPlatform,
    },
};

/// How long the hold lasts, in minutes.
const HOLD_MINUTES: i64 = 150;

/// Something that may happen while the hold is in force.
#[derive(Clone, Debug)]
enum Act {
    Deploy {
        bad: bool,
    },
    Publish,
    BindSecret,
    RollBack,
    /// What serves gets ill, or well again.
    Ill(bool),
    /// The n-th of the sweeps, some minutes later.
    Sweep(usize),
    Happen(usize),
    /// The n-th of the messages that are ready is delivered twice, out of turn.
    Repeat(usize),
    Death(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => prop::bool::weighted(0.3).prop_map(|bad| Act::Deploy { bad }),
        2 => Just(Act::Publish),
        1 => Just(Act::BindSecret),
        1 => Just(Act::RollBack),
        1 => any::<bool>().prop_map(Act::Ill),
        3 => (0..8_usize).prop_map(Act::Sweep),
        8 => (1..12_usize).prop_map(Act::Happen),
        1 => (0..4_usize).prop_map(Act::Repeat),
        1 => (1..6_u64).prop_map(Act::Death),
    ]
}

/// Deployments that nobody sent, and that are past waiting.
fn begun(platform: &TestPlatform) -> Vec<String> {
    let begins = |status: DeploymentStatus| match status {
        DeploymentStatus::Queued | DeploymentStatus::Requested => false,
        // What was turned away while it waited.
        DeploymentStatus::RolledBack | DeploymentStatus::Failed => false,
        DeploymentStatus::Provisioning
        | DeploymentStatus::Configuring
        | DeploymentStatus::RollingOut
        | DeploymentStatus::HealthGating
        | DeploymentStatus::Promoting
        | DeploymentStatus::RollingBack
        | DeploymentStatus::Completed => true,
    };
    let deployments = platform.states::<RuntimeDeployment>();
    let ours = deployments.iter().filter(|it| it.origin != Origin::Deploy && begins(it.status));
    ours.map(|it| format!("{} {:?} {:?}", it.deployment_id, it.origin, it.status)).collect()
}

async fn perform(platform: &mut TestPlatform, number: usize, act: &Act, until: Timestamp) {
    let id = format!("command-{number}");
    match act {
        Act::Deploy { bad } => {
            let version = if *bad { "bad".to_owned() } else { number.to_string() };
            platform.send(&deploy(&id, &version));
        }
        Act::Publish => platform.send(&publish_configuration(&id, json!({ "LEVEL": id }))),
        Act::BindSecret => platform.send(&bind_secret(&id, &format!("secret-{number}"))),
        Act::RollBack => platform.send(&rollback(&id)),
        Act::Ill(ill) => {
            if let Some(serving) = platform.compute.serving("reservations-api") {
                let behaviour = if *ill { Behaviour::Answers(500) } else { Behaviour::Good };
                platform.compute.image(&serving.image, behaviour);
            }
        }
        Act::Sweep(which) => {
            let timers = sweep_timers();
            platform.clock.set(platform.clock.now() + SignedDuration::from_mins(6));
            if platform.clock.now() < until {
                platform.fire(timers[which % timers.len()]).await;
            }
        }
        Act::Happen(times) => {
            for _ in 0..*times {
                in_force(platform, until, act);
                platform.happen().await;
            }
        }
        Act::Repeat(which) => {
            let ready = platform.broker.ready();
            if let Some(message) = ready.get(which % ready.len().max(1)) {
                let held = platform.broker.take(*message);
                platform.broker.repeat(&held);
                platform.broker.repeat(&held);
            }
        }
        Act::Death(commits) => {
            platform.trouble.die_at_commit(platform.trouble.commits() + commits, When::After)
        }
    }
    in_force(platform, until, act);
}

fn in_force(platform: &TestPlatform, until: Timestamp, act: &Act) {
    if platform.clock.now() < until {
        let begun = begun(platform);
        assert!(begun.is_empty(), "{begun:?} began under a hold, at {act:?}\n{}", platform.transcript());
    }
}

proptest! {
    #![proptest_config(Config { cases: 32, max_shrink_iters: 60, failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_hold_is_never_broken_and_what_waited_goes_on(
        acts in prop::collection::vec(act(), 1..24),
        scope in prop::sample::select(vec![HoldScope::Platform, HoldScope::Environment, HoldScope::Workload]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut platform = TestPlatform::new();
            platform.compute.image(&format!("{IMAGE}:bad"), Behaviour::Answers(500));
            platform.run(&provision("provision-0")).await;
            platform.run(&deploy("deploy-0", "0")).await;
            hold(&platform, scope, HOLD_MINUTES).await;
            let until = platform.clock.now() + SignedDuration::from_mins(HOLD_MINUTES);
            for (number, act) in acts.iter().enumerate() {
                perform(&mut platform, number, act, until).await;
            }
            while platform.clock.now() < until {
                in_force(&platform, until, &Act::Happen(0));
                if !platform.happen().await {
                    break;
                }
            }
            platform.run_until_quiet().await;
            for slot in platform.states::<Slot>() {
                assert_eq!((&slot.in_flight, &slot.pending), (&None, &None), "{}", platform.transcript());
            }
        });
    }
}
