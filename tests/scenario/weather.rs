//! Bad weather: the store is away, Azure answers badly, nothing ends.

use std::time::Duration;

use expect_test::expect;
use jiff::SignedDuration;
use runtime_platform::{
    ports::clock::Clock,
    services::deployment_service::{DeploymentStatus, RuntimeDeployment},
};

use super::story::serving;
use crate::support::{
    builders::{IMAGE, deploy, provision},
    fakes::compute::Behaviour,
    refusing::Bad,
    test_platform::TestPlatform,
};

#[tokio::test]
async fn a_command_waits_for_a_store_that_is_away_for_a_minute() {
    let mut platform = serving().await;
    let place = platform.mark();
    platform.store.away_until(&platform.clock, platform.clock.now() + SignedDuration::from_mins(1));
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    platform.last("RuntimeDeploymentCompleted");
    expect![[r#"
        10:15:09 > Deploy deploy-2
        10:16:55 RuntimeDeploymentRequested dep-ff46effc reservations-api:1.4.2 over reservations-api:1.4.1 <- deploy-2
        10:16:55 ~ stage reservations-api--dff46effc acr.azurecr.io/reservations-api:1.4.2
        10:16:59 ~ shift reservations-api to reservations-api--d9c2595bb=90 reservations-api--dff46effc=10
        10:17:02 ~ shift reservations-api to reservations-api--d9c2595bb=50 reservations-api--dff46effc=50
        10:17:05 ~ shift reservations-api to reservations-api--dff46effc=100
        10:17:08 ~ deactivate reservations-api--d9c2595bb
        10:17:08 RuntimeDeploymentCompleted dep-ff46effc reservations-api:1.4.2 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:17:08 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.2 x1 <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
}

#[tokio::test]
async fn azure_may_ask_for_patience_be_busy_and_fail_and_the_end_is_the_same() {
    for call in ["observe", "stage", "resume", "shift", "deactivate"] {
        for bad in [Bad::TooManyRequests(7), Bad::Busy, Bad::ServerError] {
            let mut platform = serving().await;
            platform.script.answer(call, [bad, bad, bad]);
            platform.run(&deploy("deploy-2", "1.4.2")).await;
            platform.last("RuntimeDeploymentCompleted");
            assert_eq!(
                (platform.traffic(), platform.script.left()),
                (vec!["1.4.2=100".to_owned()], 0),
                "{call}, {bad:?}"
            );
        }
    }
}

#[tokio::test]
async fn patience_that_is_asked_for_more_than_five_times_is_no_failure() {
    let mut platform = serving().await;
    platform.script.answer("stage", [Bad::TooManyRequests(30); 20]);
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    platform.last("RuntimeDeploymentCompleted");
}

#[tokio::test]
async fn five_failed_attempts_give_up_and_go_back() {
    let mut platform = serving().await;
    let place = platform.mark();
    platform.script.answer("shift", [Bad::ServerError; 5]);
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    expect![[r#"
        10:15:09 > Deploy deploy-2
        10:15:09 RuntimeDeploymentRequested dep-ff46effc reservations-api:1.4.2 over reservations-api:1.4.1 <- deploy-2
        10:15:09 ~ stage reservations-api--dff46effc acr.azurecr.io/reservations-api:1.4.2
        10:15:43 ~ deactivate reservations-api--dff46effc
        10:15:43 RuntimeDeploymentRolledBack dep-ff46effc reservations-api:1.4.2 to reservations-api:1.4.1 (dep-9c2595bb), GateFailed, gate Failed <- RuntimeDeploymentRequested
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.traffic(), ["1.4.1=100"]);
    // The way there was broken, not the image.
    platform.run(&deploy("deploy-3", "1.4.2")).await;
    platform.last("RuntimeDeploymentCompleted");
}

#[tokio::test]
async fn what_azure_will_never_do_is_not_tried_again() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    let place = platform.mark();
    platform.script.answer("stage", [Bad::Never]);
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    expect![[r#"
        10:15:05 > Deploy deploy-1
        10:15:05 RuntimeDeploymentRequested dep-9c2595bb reservations-api:1.4.1 over null <- deploy-1
        10:15:05 RuntimeCommandFailed deploy-1 Failed ProvisioningFailed: `dep-9c2595bb`, the first deployment of `module-reservations-api`, could not be rolled out: no cores are left (QuotaExceeded). There is nothing to go back to, and what was started is stopped. See `runtimectl explain dep-9c2595bb`. <- RuntimeDeploymentRequested
    "#]].assert_eq(&platform.transcript_since(place));
}

#[tokio::test]
async fn a_deadline_in_the_middle_of_the_shift_leaves_time_to_go_back() {
    let mut platform = serving().await;
    platform.send(&deploy("deploy-2", "1.4.2"));
    let shifting = |platform: &TestPlatform| {
        let deployments = platform.states::<RuntimeDeployment>();
        deployments.iter().any(|it| it.status == DeploymentStatus::Promoting && it.weight_in_place == 50)
    };
    platform.run_until("half way", shifting).await;
    let place = platform.mark();
    platform.clock.advance(Duration::from_secs(3 * 60 * 60));
    platform.run_until_quiet().await;
    expect![[r#"
        13:15:17 ~ shift reservations-api to reservations-api--d9c2595bb=100
        13:15:18 ~ deactivate reservations-api--dff46effc
        13:15:18 RuntimeDeploymentRolledBack dep-ff46effc reservations-api:1.4.2 to reservations-api:1.4.1 (dep-9c2595bb), GateFailed, gate TimedOut <- RuntimeDeploymentRequested
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.traffic(), ["1.4.1=100"]);
}

#[tokio::test]
async fn a_step_that_kills_its_process_is_not_revived_for_ever() {
    let mut platform = serving().await;
    platform.compute.image(&format!("{IMAGE}:1.4.2"), Behaviour::Good);
    platform.send(&deploy("deploy-2", "1.4.2"));
    let staging = |platform: &TestPlatform| {
        platform.states::<RuntimeDeployment>().iter().any(|it| it.status == DeploymentStatus::HealthGating)
    };
    platform.run_until("gating", staging).await;
    // The claim's commit lives, the step's commit kills: five times over.
    for _ in 0..5 {
        let deaths = platform.deaths;
        let next = platform.trouble.commits() + 2;
        platform.trouble.die_at_commit(next, crate::support::faulty::When::Before);
        platform.run_until("dead", |platform| platform.deaths > deaths).await;
    }
    platform.run_until_quiet().await;
    let end = platform.last("RuntimeDeploymentRolledBack");
    assert_eq!(end["reason"], "GateFailed");
    assert_eq!(platform.traffic(), ["1.4.1=100"]);
}

#[tokio::test]
async fn the_story_is_the_same_over_the_store_of_one_machine() {
    let mut memory = serving().await;
    memory.run(&deploy("deploy-2", "1.4.2")).await;
    let directory = tempfile::tempdir().unwrap();
    let mut disk = TestPlatform::on_disk(directory.path());
    disk.run(&provision("provision-1")).await;
    disk.run(&deploy("deploy-1", "1.4.1")).await;
    disk.run(&deploy("deploy-2", "1.4.2")).await;
    assert_eq!(disk.transcript(), memory.transcript());
}
