//! Whatever is asked of one workload, in whatever order, messages early, late and twice: one
//! deployment is in flight, what serves is good, and every command ends.

use proptest::{prelude::*, test_runner::Config};
use runtime_platform::services::deployment_service::{DeploymentStatus, RuntimeDeployment, Slot};

use crate::support::{
    builders::{IMAGE, deploy, provision, rollback, rollback_of},
    fakes::compute::Behaviour,
    faulty::When,
    test_platform::TestPlatform,
};

/// Something that may happen to the platform.
#[derive(Clone, Debug)]
enum Act {
    Deploy {
        bad: bool,
    },
    RollBack,
    /// Of the n-th deployment there is.
    RollBackOf(usize),
    /// This many things happen.
    Happen(usize),
    /// The n-th of the messages that are ready is delivered, out of turn.
    OutOfTurn(usize),
    /// The n-th of the messages that are ready is delivered twice.
    Repeat(usize),
    Timers,
    /// The process dies at its n-th commit from now.
    Death(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => prop::bool::weighted(0.3).prop_map(|bad| Act::Deploy { bad }),
        2 => Just(Act::RollBack),
        1 => (0..5_usize).prop_map(Act::RollBackOf),
        8 => (1..12_usize).prop_map(Act::Happen),
        2 => (0..4_usize).prop_map(Act::OutOfTurn),
        1 => (0..4_usize).prop_map(Act::Repeat),
        1 => Just(Act::Timers),
        1 => (1..6_u64).prop_map(Act::Death),
    ]
}

/// Ids of all deployments, oldest first.
fn deployments(platform: &TestPlatform) -> Vec<RuntimeDeployment> {
    let mut deployments = platform.states::<RuntimeDeployment>();
    deployments.sort_by_key(|deployment| (deployment.requested_at, deployment.deployment_id.to_string()));
    deployments
}

async fn perform(platform: &mut TestPlatform, number: usize, act: &Act, sent: &mut Vec<String>) {
    let id = format!("command-{number}");
    let ready = platform.broker.ready();
    match act {
        Act::Deploy { bad } => {
            let version = if *bad { format!("{number}-bad") } else { number.to_string() };
            platform.compute.image(&format!("{IMAGE}:{number}-bad"), Behaviour::Answers(500));
            if number % 4 == 3 {
                // Its registry has no such image: it ends nobody else's rollout, and nobody else's wait.
                platform.registry.remove(&format!("{IMAGE}:{version}"));
            }
            platform.send(&deploy(&id, &version));
            sent.push(id);
        }
        Act::RollBack => {
            platform.send(&rollback(&id));
            sent.push(id);
        }
        Act::RollBackOf(which) => {
            let deployments = deployments(platform);
            if let Some(deployment) = deployments.get(which % deployments.len().max(1)) {
                platform.send(&rollback_of(&id, deployment.deployment_id.as_str()));
                sent.push(id);
            }
        }
        Act::Happen(times) => {
            for _ in 0..*times {
                platform.happen().await;
                at_most_one_in_flight(platform);
            }
        }
        Act::OutOfTurn(which) => {
            if let Some(message) = ready.get(which % ready.len().max(1)) {
                platform.deliver(*message).await;
            }
        }
        Act::Repeat(which) => {
            if let Some(message) = ready.get(which % ready.len().max(1)) {
                let held = platform.broker.take(*message);
                platform.broker.repeat(&held);
                platform.broker.repeat(&held);
            }
        }
        Act::Timers => {
            platform.fire("OutboxRelay").await;
            platform.fire("ResumeOperations").await;
        }
        Act::Death(commits) => {
            platform.trouble.die_at_commit(platform.trouble.commits() + commits, When::After)
        }
    }
    at_most_one_in_flight(platform);
}

fn at_most_one_in_flight(platform: &TestPlatform) {
    let in_flight = |deployment: &&RuntimeDeployment| match deployment.status {
        DeploymentStatus::Requested
        | DeploymentStatus::Provisioning
        | DeploymentStatus::Configuring
        | DeploymentStatus::RollingOut
        | DeploymentStatus::HealthGating
        | DeploymentStatus::Promoting
        | DeploymentStatus::RollingBack => true,
        DeploymentStatus::Queued
        | DeploymentStatus::Completed
        | DeploymentStatus::RolledBack
        | DeploymentStatus::Failed => false,
    };
    let states = platform.states::<RuntimeDeployment>();
    let flying: Vec<_> =
        states.iter().filter(in_flight).map(|deployment| &deployment.deployment_id).collect();
    assert!(flying.len() <= 1, "{flying:?} are in flight\n{}", platform.transcript());
}

async fn all_is_well(platform: &TestPlatform, sent: &[String]) {
    let told = || format!("\n{:?}\n{}", platform.deployments(), platform.transcript());
    for slot in platform.states::<Slot>() {
        assert_eq!((&slot.in_flight, &slot.pending), (&None, &None), "the slot is not free{}", told());
        assert!(slot.arriving.is_empty(), "somebody still arrives{}", told());
        let Some(serving) = slot.serving else { continue };
        let deployments = platform.states::<RuntimeDeployment>();
        let serves = deployments.iter().find(|deployment| deployment.deployment_id == serving.deployment_id);
        let serves = serves.expect("what serves is a deployment");
        assert_eq!(serves.status, DeploymentStatus::Completed, "what serves did not complete{}", told());
        let passed = serves.gate_result.map(|result| result.to_string());
        assert_eq!(passed.as_deref(), Some("Passed"), "what serves passed no gate{}", told());
        let world = platform.compute.world();
        let revisions = world.values().flat_map(|observed| observed.revisions.values());
        let traffic: Vec<_> =
            revisions.clone().filter(|it| it.traffic > 0).map(|it| (it.name.clone(), it.traffic)).collect();
        assert_eq!(
            traffic,
            [(serving.revision.clone(), 100)],
            "the traffic is not where it should be{}",
            told()
        );
        let active: Vec<_> =
            revisions.filter(|revision| revision.active).map(|revision| revision.name.clone()).collect();
        assert_eq!(active, [serving.revision], "what does not serve still runs{}", told());
    }
    for command in sent {
        let answer = platform.get("Commands", Some(command)).await;
        let ended = answer.body["ended"] == true && answer.body["outcome"].is_object();
        assert!(ended, "`{command}` did not end: {}{}", answer.body, told());
    }
}

proptest! {
    #![proptest_config(Config { cases: 96, max_shrink_iters: 300, failure_persistence: None, ..Config::default() })]

    #[test]
    fn one_is_in_flight_what_serves_is_good_and_every_command_ends(acts in prop::collection::vec(act(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut platform = TestPlatform::new();
            platform.run(&provision("provision-0")).await;
            let mut sent = Vec::new();
            for (number, act) in acts.iter().enumerate() {
                perform(&mut platform, number, act, &mut sent).await;
            }
            platform.run_until_quiet().await;
            all_is_well(&platform, &sent).await;
        });
    }
}
