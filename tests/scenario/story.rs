//! The story that the demo tells: provision, deploy, deploy again, a bad image, back to an older one,
//! a crash in the middle, an environment that does not exist.

use expect_test::expect;

use crate::support::{
    builders::{deploy, provision, rollback},
    fakes::compute::Behaviour,
    test_platform::TestPlatform,
};

/// An environment is there, and 1.4.1 serves in it.
pub async fn serving() -> TestPlatform {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    platform
}

#[tokio::test]
async fn an_environment_is_provisioned_resource_by_resource() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    expect![[r#"
        10:15:00 > ProvisionEnvironment provision-1
        10:15:00 ~ create group
        10:15:01 ~ create workspace
        10:15:01 ~ create network
        10:15:01 ~ create identity
        10:15:01 ~ create vault
        10:15:02 ~ create vault-secrets-user
        10:15:02 ~ create registry-pull
        10:15:02 ~ create subnet
        10:15:03 ~ create container-apps
        10:15:04 ~ create container-apps-logs
        10:15:05 RuntimeEnvironmentProvisioned env-cc58147b test <- provision-1
    "#]]
    .assert_eq(&platform.transcript());
}

#[tokio::test]
async fn a_first_deployment_has_nothing_before_it() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    let place = platform.mark();
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    expect![[r#"
        10:15:05 > Deploy deploy-1
        10:15:05 RuntimeDeploymentRequested dep-9c2595bb reservations-api:1.4.1 over null <- deploy-1
        10:15:05 ~ stage reservations-api--d9c2595bb acr.azurecr.io/reservations-api:1.4.1
        10:15:09 RuntimeDeploymentCompleted dep-9c2595bb reservations-api:1.4.1 over null, gate Passed <- RuntimeDeploymentRequested
        10:15:09 RuntimeInventoryUpdated svc-b0deb1bf Added Running reservations-api:1.4.1 x1 <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
}

#[tokio::test]
async fn a_second_deployment_takes_the_traffic_in_steps() {
    let mut platform = serving().await;
    let place = platform.mark();
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    expect![[r#"
        10:15:09 > Deploy deploy-2
        10:15:09 RuntimeDeploymentRequested dep-ff46effc reservations-api:1.4.2 over reservations-api:1.4.1 <- deploy-2
        10:15:09 ~ stage reservations-api--dff46effc acr.azurecr.io/reservations-api:1.4.2
        10:15:13 ~ shift reservations-api to reservations-api--d9c2595bb=90 reservations-api--dff46effc=10
        10:15:16 ~ shift reservations-api to reservations-api--d9c2595bb=50 reservations-api--dff46effc=50
        10:15:19 ~ shift reservations-api to reservations-api--dff46effc=100
        10:15:22 ~ deactivate reservations-api--d9c2595bb
        10:15:22 RuntimeDeploymentCompleted dep-ff46effc reservations-api:1.4.2 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:15:22 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.2 x1 <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
}

#[tokio::test]
async fn a_bad_image_never_gets_traffic() {
    let mut platform = serving().await;
    platform.compute.image("acr.azurecr.io/reservations-api:1.5.0", Behaviour::Answers(500));
    let place = platform.mark();
    platform.run(&deploy("deploy-3", "1.5.0")).await;
    expect![[r#"
        10:15:09 > Deploy deploy-3
        10:15:09 RuntimeDeploymentRequested dep-5758d5fb reservations-api:1.5.0 over reservations-api:1.4.1 <- deploy-3
        10:15:09 ~ stage reservations-api--d5758d5fb acr.azurecr.io/reservations-api:1.5.0
        10:15:13 ~ deactivate reservations-api--d5758d5fb
        10:15:13 RuntimeDeploymentRolledBack dep-5758d5fb reservations-api:1.5.0 to reservations-api:1.4.1 (dep-9c2595bb), GateFailed, gate Failed <- RuntimeDeploymentRequested
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.traffic(), ["1.4.1=100"]);
}

#[tokio::test]
async fn a_rollback_goes_back_without_a_rebuild() {
    let mut platform = serving().await;
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    let place = platform.mark();
    platform.run(&rollback("rollback-1")).await;
    expect![[r#"
        10:15:22 > RollbackDeployment rollback-1
        10:15:22 ~ activate reservations-api--d9c2595bb
        10:15:23 ~ shift reservations-api to reservations-api--d9c2595bb=100
        10:15:24 ~ deactivate reservations-api--dff46effc
        10:15:24 RuntimeDeploymentRolledBack dep-ff46effc reservations-api:1.4.2 to reservations-api:1.4.1 (dep-9c2595bb), Operator, gate Passed <- rollback-1
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.traffic(), ["1.4.1=100"]);
    assert_eq!(platform.deployments(), ["1.4.1 Completed", "1.4.2 RolledBack"]);
}

#[tokio::test]
async fn an_environment_that_does_not_exist_is_said_not_to() {
    let mut platform = TestPlatform::new();
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    expect![[r#"
        10:15:00 > Deploy deploy-1
        10:15:00 RuntimeCommandFailed deploy-1 Rejected EnvironmentNotFound: There is no environment `env-cc58147b`. Send ProvisionEnvironment first, or correct payload.environmentId; `runtimectl get environments` lists those there are. <- deploy-1
    "#]].assert_eq(&platform.transcript());
    assert_eq!(platform.outcome("deploy-1").await, ("Rejected".into(), "RuntimeCommandFailed".into()));
}
