//! What becomes of a Deploy when another one of the same workload is under way.

use expect_test::expect;
use runtime_platform::services::deployment_service::{DeploymentStatus, RuntimeDeployment};

use super::story::serving;
use crate::support::{
    builders::{deploy, rollback},
    test_platform::TestPlatform,
};

/// Whether a deployment of this version stands there.
fn stands(version: &'static str, status: DeploymentStatus) -> impl Fn(&TestPlatform) -> bool {
    move |platform| {
        let deployments = platform.states::<RuntimeDeployment>();
        deployments.iter().any(|it| it.workload.image.ends_with(version) && it.status == status)
    }
}

#[tokio::test]
async fn before_traffic_shifts_the_newer_supersedes_the_older() {
    let mut platform = serving().await;
    let place = platform.mark();
    platform.send(&deploy("deploy-2", "1.4.2"));
    platform.run_until("gating", stands("1.4.2", DeploymentStatus::HealthGating)).await;
    platform.run(&deploy("deploy-3", "1.4.3")).await;
    expect![[r#"
        10:15:09 > Deploy deploy-2
        10:15:09 RuntimeDeploymentRequested dep-ff46effc reservations-api:1.4.2 over reservations-api:1.4.1 <- deploy-2
        10:15:09 ~ stage reservations-api--dff46effc acr.azurecr.io/reservations-api:1.4.2
        10:15:10 > Deploy deploy-3
        10:15:10 RuntimeDeploymentRequested dep-5758d5fb reservations-api:1.4.3 over reservations-api:1.4.1 <- deploy-3
        10:15:10 ~ deactivate reservations-api--dff46effc
        10:15:10 RuntimeDeploymentRolledBack dep-ff46effc reservations-api:1.4.2 to reservations-api:1.4.1 (dep-9c2595bb), Superseded, gate Skipped <- deploy-3
        10:15:10 ~ stage reservations-api--d5758d5fb acr.azurecr.io/reservations-api:1.4.3
        10:15:14 ~ shift reservations-api to reservations-api--d5758d5fb=10 reservations-api--d9c2595bb=90
        10:15:17 ~ shift reservations-api to reservations-api--d5758d5fb=50 reservations-api--d9c2595bb=50
        10:15:20 ~ shift reservations-api to reservations-api--d5758d5fb=100
        10:15:23 ~ deactivate reservations-api--d9c2595bb
        10:15:23 RuntimeDeploymentCompleted dep-5758d5fb reservations-api:1.4.3 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:15:23 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.3 x1 <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.deployments(), ["1.4.1 Completed", "1.4.2 RolledBack", "1.4.3 Completed"]);
    assert_eq!(platform.outcome("deploy-2").await, ("Failed".into(), "RuntimeDeploymentRolledBack".into()));
    assert_eq!(platform.outcome("deploy-3").await, ("Completed".into(), "RuntimeDeploymentCompleted".into()));
}

#[tokio::test]
async fn once_traffic_shifts_the_newer_waits_and_then_runs() {
    let mut platform = serving().await;
    let place = platform.mark();
    platform.send(&deploy("deploy-2", "1.4.2"));
    platform.run_until("promoting", stands("1.4.2", DeploymentStatus::Promoting)).await;
    platform.run(&deploy("deploy-3", "1.4.3")).await;
    expect![[r#"
        10:15:09 > Deploy deploy-2
        10:15:09 RuntimeDeploymentRequested dep-ff46effc reservations-api:1.4.2 over reservations-api:1.4.1 <- deploy-2
        10:15:09 ~ stage reservations-api--dff46effc acr.azurecr.io/reservations-api:1.4.2
        10:15:13 ~ shift reservations-api to reservations-api--d9c2595bb=90 reservations-api--dff46effc=10
        10:15:13 > Deploy deploy-3
        10:15:13 RuntimeDeploymentRequested dep-5758d5fb reservations-api:1.4.3 over reservations-api:1.4.1 <- deploy-3
        10:15:16 ~ shift reservations-api to reservations-api--d9c2595bb=50 reservations-api--dff46effc=50
        10:15:19 ~ shift reservations-api to reservations-api--dff46effc=100
        10:15:22 ~ deactivate reservations-api--d9c2595bb
        10:15:22 RuntimeDeploymentCompleted dep-ff46effc reservations-api:1.4.2 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:15:22 ~ stage reservations-api--d5758d5fb acr.azurecr.io/reservations-api:1.4.3
        10:15:22 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.2 x1 <- RuntimeDeploymentCompleted
        10:15:26 ~ shift reservations-api to reservations-api--d5758d5fb=10 reservations-api--dff46effc=90
        10:15:29 ~ shift reservations-api to reservations-api--d5758d5fb=50 reservations-api--dff46effc=50
        10:15:32 ~ shift reservations-api to reservations-api--d5758d5fb=100
        10:15:35 ~ deactivate reservations-api--dff46effc
        10:15:35 RuntimeDeploymentCompleted dep-5758d5fb reservations-api:1.4.3 over reservations-api:1.4.2, gate Passed <- RuntimeDeploymentRequested
        10:15:35 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.3 x1 <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.deployments(), ["1.4.1 Completed", "1.4.2 Completed", "1.4.3 Completed"]);
}

#[tokio::test]
async fn what_waits_is_replaced_by_what_is_newer_still() {
    let mut platform = serving().await;
    let place = platform.mark();
    platform.send(&deploy("deploy-2", "1.4.2"));
    platform.run_until("promoting", stands("1.4.2", DeploymentStatus::Promoting)).await;
    platform.send(&deploy("deploy-3", "1.4.3"));
    platform.run_until("queued", stands("1.4.3", DeploymentStatus::Queued)).await;
    platform.run(&deploy("deploy-4", "1.4.4")).await;
    expect![[r#"
        10:15:09 > Deploy deploy-2
        10:15:09 RuntimeDeploymentRequested dep-ff46effc reservations-api:1.4.2 over reservations-api:1.4.1 <- deploy-2
        10:15:09 ~ stage reservations-api--dff46effc acr.azurecr.io/reservations-api:1.4.2
        10:15:13 ~ shift reservations-api to reservations-api--d9c2595bb=90 reservations-api--dff46effc=10
        10:15:13 > Deploy deploy-3
        10:15:13 RuntimeDeploymentRequested dep-5758d5fb reservations-api:1.4.3 over reservations-api:1.4.1 <- deploy-3
        10:15:13 > Deploy deploy-4
        10:15:13 RuntimeDeploymentRequested dep-e622154b reservations-api:1.4.4 over reservations-api:1.4.1 <- deploy-4
        10:15:13 RuntimeCommandFailed deploy-3 Rejected Superseded: `dep-5758d5fb` waited for its turn and was replaced by the newer `dep-e622154b`; nothing of it was rolled out. <- deploy-4
        10:15:16 ~ shift reservations-api to reservations-api--d9c2595bb=50 reservations-api--dff46effc=50
        10:15:19 ~ shift reservations-api to reservations-api--dff46effc=100
        10:15:22 ~ deactivate reservations-api--d9c2595bb
        10:15:22 RuntimeDeploymentCompleted dep-ff46effc reservations-api:1.4.2 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:15:22 ~ stage reservations-api--de622154b acr.azurecr.io/reservations-api:1.4.4
        10:15:22 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.2 x1 <- RuntimeDeploymentCompleted
        10:15:26 ~ shift reservations-api to reservations-api--de622154b=10 reservations-api--dff46effc=90
        10:15:29 ~ shift reservations-api to reservations-api--de622154b=50 reservations-api--dff46effc=50
        10:15:32 ~ shift reservations-api to reservations-api--de622154b=100
        10:15:35 ~ deactivate reservations-api--dff46effc
        10:15:35 RuntimeDeploymentCompleted dep-e622154b reservations-api:1.4.4 over reservations-api:1.4.2, gate Passed <- RuntimeDeploymentRequested
        10:15:35 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.4 x1 <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.outcome("deploy-3").await, ("Failed".into(), "RuntimeCommandFailed".into()));
    assert_eq!(platform.traffic(), ["1.4.4=100"]);
}

#[tokio::test]
async fn a_first_deployment_that_is_superseded_leaves_nothing_behind() {
    let mut platform = TestPlatform::new();
    platform.run(&crate::support::builders::provision("provision-1")).await;
    let place = platform.mark();
    platform.send(&deploy("deploy-1", "1.4.1"));
    platform.run_until("gating", stands("1.4.1", DeploymentStatus::HealthGating)).await;
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    expect![[r#"
        10:15:05 > Deploy deploy-1
        10:15:05 RuntimeDeploymentRequested dep-9c2595bb reservations-api:1.4.1 over null <- deploy-1
        10:15:05 ~ stage reservations-api--d9c2595bb acr.azurecr.io/reservations-api:1.4.1
        10:15:06 > Deploy deploy-2
        10:15:06 RuntimeDeploymentRequested dep-ff46effc reservations-api:1.4.2 over null <- deploy-2
        10:15:06 ~ deactivate reservations-api--d9c2595bb
        10:15:06 RuntimeDeploymentRolledBack dep-9c2595bb reservations-api:1.4.1 to null (null), Superseded, gate Skipped <- deploy-2
        10:15:06 ~ stage reservations-api--dff46effc acr.azurecr.io/reservations-api:1.4.2
        10:15:10 ~ shift reservations-api to reservations-api--dff46effc=100
        10:15:11 RuntimeDeploymentCompleted dep-ff46effc reservations-api:1.4.2 over null, gate Passed <- RuntimeDeploymentRequested
        10:15:11 RuntimeInventoryUpdated svc-b0deb1bf Added Running reservations-api:1.4.2 x1 <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.traffic(), ["1.4.2=100"]);
}

#[tokio::test]
async fn a_rollback_ends_a_deployment_in_flight() {
    let mut platform = serving().await;
    let place = platform.mark();
    platform.send(&deploy("deploy-2", "1.4.2"));
    platform.run_until("promoting", stands("1.4.2", DeploymentStatus::Promoting)).await;
    platform.run(&rollback("rollback-1")).await;
    expect![[r#"
        10:15:09 > Deploy deploy-2
        10:15:09 RuntimeDeploymentRequested dep-ff46effc reservations-api:1.4.2 over reservations-api:1.4.1 <- deploy-2
        10:15:09 ~ stage reservations-api--dff46effc acr.azurecr.io/reservations-api:1.4.2
        10:15:13 ~ shift reservations-api to reservations-api--d9c2595bb=90 reservations-api--dff46effc=10
        10:15:13 > RollbackDeployment rollback-1
        10:15:13 ~ shift reservations-api to reservations-api--d9c2595bb=100
        10:15:14 ~ deactivate reservations-api--dff46effc
        10:15:14 RuntimeDeploymentRolledBack dep-ff46effc reservations-api:1.4.2 to reservations-api:1.4.1 (dep-9c2595bb), Operator, gate Passed <- rollback-1
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.traffic(), ["1.4.1=100"]);
    assert_eq!(platform.outcome("rollback-1").await.1, "RuntimeDeploymentRolledBack");
}

#[tokio::test]
async fn what_is_under_way_ends_before_a_rollout_turns_round() {
    let mut platform = serving().await;
    platform.compute.finish_after(4);
    platform.send(&deploy("deploy-2", "1.4.2"));
    let staging = |platform: &TestPlatform| {
        platform.states::<RuntimeDeployment>().iter().any(|deployment| deployment.pending.is_some())
    };
    platform.run_until("staging", staging).await;
    let place = platform.mark();
    platform.send(&rollback("rollback-1"));
    let turned = |platform: &TestPlatform| {
        platform.states::<RuntimeDeployment>().iter().any(|it| it.status == DeploymentStatus::RollingBack)
    };
    platform.run_until("turned", turned).await;
    assert!(staging(&platform), "the call to Azure is forgotten while it goes on");
    platform.run_until_quiet().await;
    expect![[r#"
        10:15:09 > RollbackDeployment rollback-1
        10:15:12 ~ deactivate reservations-api--dff46effc
        10:15:12 RuntimeDeploymentRolledBack dep-ff46effc reservations-api:1.4.2 to reservations-api:1.4.1 (dep-9c2595bb), Operator, gate Skipped <- rollback-1
    "#]].assert_eq(&platform.transcript_since(place));
}
