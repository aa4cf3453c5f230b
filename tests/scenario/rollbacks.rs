//! Going back: where to, and when there is nowhere to go.

use expect_test::expect;
use runtime_platform::services::deployment_service::RuntimeDeployment;

use super::story::serving;
use crate::support::{
    builders::{IMAGE, deploy, provision, rollback, rollback_of},
    fakes::compute::Behaviour,
    test_platform::TestPlatform,
};

fn id_of(platform: &TestPlatform, version: &str) -> String {
    let deployments = platform.states::<RuntimeDeployment>();
    let deployment =
        deployments.iter().find(|deployment| deployment.workload.image.ends_with(version)).unwrap();
    deployment.deployment_id.to_string()
}

#[tokio::test]
async fn a_first_deployment_whose_gate_fails_has_failed() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    platform.compute.image(&format!("{IMAGE}:1.5.0"), Behaviour::Answers(500));
    let place = platform.mark();
    platform.run(&deploy("deploy-1", "1.5.0")).await;
    expect![[r#"
        10:15:05 > Deploy deploy-1
        10:15:05 RuntimeDeploymentRequested dep-9c2595bb reservations-api:1.5.0 over null <- deploy-1
        10:15:05 ~ stage reservations-api--d9c2595bb acr.azurecr.io/reservations-api:1.5.0
        10:15:09 ~ deactivate reservations-api--d9c2595bb
        10:15:09 RuntimeCommandFailed deploy-1 Failed GateFailed: `dep-9c2595bb`, the first deployment of `module-reservations-api`, did not pass its health gate: 2 failures, 1 allowed; in the last sample it answered 500. There is nothing to go back to, and what was started is stopped. See `runtimectl explain dep-9c2595bb`. <- RuntimeDeploymentRequested
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.deployments(), ["1.5.0 Failed"]);
}

#[tokio::test]
async fn an_image_that_failed_is_not_tried_again() {
    let mut platform = serving().await;
    platform.compute.image(&format!("{IMAGE}:1.5.0"), Behaviour::Answers(500));
    platform.run(&deploy("deploy-2", "1.5.0")).await;
    let place = platform.mark();
    platform.run(&deploy("deploy-3", "1.5.0")).await;
    expect![[r#"
        10:15:13 > Deploy deploy-3
        10:15:13 RuntimeDeploymentRequested dep-5758d5fb reservations-api:1.5.0 over reservations-api:1.4.1 <- deploy-3
        10:15:13 RuntimeCommandFailed deploy-3 Rejected Quarantined: acr.azurecr.io/reservations-api:1.5.0 is in quarantine here since 2026-03-02T10:15:13Z, when its health gate kept `dep-ff46effc` out: 2 failures, 1 allowed; in the last sample it answered 500. Deploy another version, or lift it: runtimectl lift dep-ff46effc --reason WHY. <- RuntimeDeploymentRequested
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.traffic(), ["1.4.1=100"]);
}

#[tokio::test]
async fn a_crash_loop_and_an_image_that_is_missing_fail_the_gate() {
    for behaviour in [Behaviour::Crashes, Behaviour::Missing, Behaviour::Turns { after: 3, status: 503 }] {
        let mut platform = serving().await;
        platform.compute.image(&format!("{IMAGE}:1.5.0"), behaviour);
        platform.run(&deploy("deploy-2", "1.5.0")).await;
        let event = platform.last("RuntimeDeploymentRolledBack");
        assert_eq!(
            (&event["reason"], &event["healthGate"]),
            (&"GateFailed".into(), &"Failed".into()),
            "{behaviour:?}"
        );
        assert_eq!(platform.traffic(), ["1.4.1=100"], "{behaviour:?}");
    }
}

#[tokio::test]
async fn a_slow_start_passes_within_its_deadline_and_times_out_after_it() {
    let seconds = std::time::Duration::from_secs;
    for (start, gate) in [(seconds(50), "Passed"), (seconds(70), "TimedOut")] {
        let mut platform = serving().await;
        platform.compute.image(&format!("{IMAGE}:1.5.0"), Behaviour::Slow(start));
        platform.run(&deploy("deploy-2", "1.5.0")).await;
        let event = platform.last_event();
        assert_eq!(event.envelope.payload["healthGate"], gate, "{}", platform.transcript());
        // Not to be ready in time is no proof against the image: it may be deployed again.
        assert!(
            platform
                .documents()
                .iter()
                .all(|stored| stored.document.body["quarantine"].as_array().is_none_or(Vec::is_empty))
        );
    }
}

#[tokio::test]
async fn without_an_earlier_good_one_there_is_nothing_to_go_back_to() {
    let mut platform = serving().await;
    let place = platform.mark();
    platform.run(&rollback("rollback-1")).await;
    expect![[r#"
        10:15:09 > RollbackDeployment rollback-1
        10:15:09 RuntimeCommandFailed rollback-1 Rejected NothingToRollBackTo: Before `dep-9c2595bb` no deployment of `module-reservations-api` completed with a passed gate and is still good; deploy a good version instead. <- rollback-1
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.traffic(), ["1.4.1=100"]);
}

#[tokio::test]
async fn what_was_rolled_back_or_failed_is_never_gone_back_to() {
    let mut platform = serving().await;
    platform.compute.image(&format!("{IMAGE}:1.5.0"), Behaviour::Answers(500));
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    platform.run(&rollback("rollback-1")).await;
    platform.run(&deploy("deploy-3", "1.5.0")).await;
    platform.run(&deploy("deploy-4", "1.4.3")).await;
    platform.run(&rollback("rollback-2")).await;
    let event = platform.last("RuntimeDeploymentRolledBack");
    assert_eq!(event["restoredImage"], format!("{IMAGE}:1.4.1"));
    platform.run(&rollback("rollback-3")).await;
    assert_eq!(platform.last("RuntimeCommandFailed")["reasonCode"], "NothingToRollBackTo");
}

#[tokio::test]
async fn what_was_rolled_back_already_is_no_change() {
    let mut platform = serving().await;
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    let newest = id_of(&platform, "1.4.2");
    platform.run(&rollback_of("rollback-1", &newest)).await;
    let place = platform.mark();
    platform.run(&rollback_of("rollback-2", &newest)).await;
    expect![[r#"
        10:15:24 > RollbackDeployment rollback-2
        10:15:24 RuntimeCommandCompleted rollback-2 NoChange: `dep-ff46effc` was rolled back already. <- rollback-2
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.outcome("rollback-2").await, ("Completed".into(), "RuntimeCommandCompleted".into()));
}

#[tokio::test]
async fn what_does_not_serve_any_more_is_not_rolled_back() {
    let mut platform = serving().await;
    let oldest = id_of(&platform, "1.4.1");
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    let place = platform.mark();
    platform.run(&rollback_of("rollback-1", &oldest)).await;
    platform.run(&rollback_of("rollback-2", "dep-00000000")).await;
    expect![[r#"
        10:15:22 > RollbackDeployment rollback-1
        10:15:22 RuntimeCommandFailed rollback-1 Rejected Conflict: `dep-9c2595bb` does not serve any more; roll back the deployment that does, or leave deploymentId out and give moduleId. <- rollback-1
        10:15:22 > RollbackDeployment rollback-2
        10:15:22 RuntimeCommandFailed rollback-2 Rejected DeploymentNotFound: There is no deployment `dep-00000000` in `env-cc58147b`; `runtimectl get deployments` lists those there are. <- rollback-2
    "#]].assert_eq(&platform.transcript_since(place));
}
