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
    expect![[""]].assert_eq(&platform.transcript());
}

#[tokio::test]
async fn a_first_deployment_has_nothing_before_it() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    let place = platform.mark();
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    expect![[""]].assert_eq(&platform.transcript_since(place));
}

#[tokio::test]
async fn a_second_deployment_takes_the_traffic_in_steps() {
    let mut platform = serving().await;
    let place = platform.mark();
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    expect![[""]].assert_eq(&platform.transcript_since(place));
}

#[tokio::test]
async fn a_bad_image_never_gets_traffic() {
    let mut platform = serving().await;
    platform.compute.image("acr.azurecr.io/reservations-api:1.5.0", Behaviour::Answers(500));
    let place = platform.mark();
    platform.run(&deploy("deploy-3", "1.5.0")).await;
    expect![[""]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.traffic(), ["1.4.1=100"]);
}

#[tokio::test]
async fn a_rollback_goes_back_without_a_rebuild() {
    let mut platform = serving().await;
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    let place = platform.mark();
    platform.run(&rollback("rollback-1")).await;
    expect![[""]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.traffic(), ["1.4.1=100"]);
    assert_eq!(platform.deployments(), ["1.4.1 Completed", "1.4.2 RolledBack"]);
}

#[tokio::test]
async fn an_environment_that_does_not_exist_is_said_not_to() {
    let mut platform = TestPlatform::new();
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    expect![[""]].assert_eq(&platform.transcript());
    assert_eq!(platform.outcome("deploy-1").await, ("Rejected".into(), "RuntimeCommandFailed".into()));
}
