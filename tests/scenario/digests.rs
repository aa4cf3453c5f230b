//! Images by their digests: a tag is asked for once, and may go where it likes afterwards.

use expect_test::expect;
use runtime_platform::services::deployment_service::{DeploymentStatus, RuntimeDeployment};
use serde_json::json;

use super::story::serving;
use crate::support::{
    builders::{IMAGE, deploy, publish_configuration, rollback},
    fakes::compute::Behaviour,
    refusing::Bad,
    test_platform::TestPlatform,
};

fn tagged(version: &str) -> String {
    format!("{IMAGE}:{version}")
}

/// The image that serves, as the target was told.
fn serves(platform: &TestPlatform) -> String {
    platform.compute.serving("reservations-api").unwrap().image
}

/// What a tag stands for now, as the target is told.
fn pinned(platform: &TestPlatform, version: &str) -> String {
    format!("{IMAGE}@{}", platform.registry.digest(&tagged(version)))
}

fn refusal(platform: &TestPlatform) -> String {
    let failed = platform.last("RuntimeCommandFailed");
    format!("{} {}", failed["reasonCode"].as_str().unwrap(), failed["detail"].as_str().unwrap())
}

#[tokio::test]
async fn what_runs_is_what_the_tag_stood_for_when_the_deployment_began() {
    let mut platform = serving().await;
    let first = pinned(&platform, "1.4.1");
    assert_eq!(serves(&platform), first);
    platform.registry.move_tag(&tagged("1.4.1"));
    platform.run(&publish_configuration("publish-1", json!({ "LOG_LEVEL": "debug" }))).await;
    assert_eq!(serves(&platform), first, "a refresh rolls out what serves");
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    platform.run(&rollback("rollback-1")).await;
    assert_eq!(serves(&platform), first, "a rollback goes back to what served");
    assert_eq!(platform.registry.asked(), [tagged("1.4.1"), tagged("1.4.2")], "nothing else was asked");
    // Events keep the reference as it was given.
    let rolled_back = platform.last("RuntimeDeploymentRolledBack");
    assert_eq!(
        (&rolled_back["image"], &rolled_back["restoredImage"]),
        (&json!(tagged("1.4.2")), &json!(tagged("1.4.1")))
    );
    // A person who deploys the tag again means what it stands for now.
    platform.run(&deploy("deploy-3", "1.4.1")).await;
    assert_eq!(serves(&platform), pinned(&platform, "1.4.1"));
    assert_ne!(serves(&platform), first);
}

#[tokio::test]
async fn a_reference_with_a_digest_is_taken_at_its_word() {
    let mut platform = serving().await;
    let image = pinned(&platform, "1.4.2");
    platform.run(&deploy("deploy-2", "1.4.2").with("/workloads/0/image", json!(image))).await;
    assert_eq!(serves(&platform), image);
    assert_eq!(platform.registry.asked(), [tagged("1.4.1")]);
    let odd = format!("{IMAGE}@sha256:12");
    platform.run(&deploy("deploy-3", "1.4.2").with("/workloads/0/image", json!(odd))).await;
    expect!["InvalidPayload payload.workloads[0].image: `sha256:12` is no digest; it is `sha256:` and 64 hexadecimal digits, as the registry tells it"].assert_eq(&refusal(&platform));
}

#[tokio::test]
async fn an_image_that_is_not_there_is_refused_and_ends_nobodys_rollout() {
    let mut platform = serving().await;
    platform.registry.remove(&tagged("1.4.3"));
    platform.send(&deploy("deploy-2", "1.4.2"));
    let gating = |platform: &TestPlatform| {
        let deployments = platform.states::<RuntimeDeployment>();
        deployments.iter().any(|it| it.status == DeploymentStatus::HealthGating)
    };
    platform.run_until("gating", gating).await;
    platform.send(&deploy("deploy-3", "1.4.3"));
    platform
        .run_until("refused", |it| it.event_types().last().is_some_and(|last| last == "RuntimeCommandFailed"))
        .await;
    expect!["ImageNotFound payload.workloads[0].image: `acr.azurecr.io` has no image `reservations-api:1.4.3`. Nothing was rolled out."].assert_eq(&refusal(&platform));
    platform.run_until_quiet().await;
    assert_eq!(platform.traffic(), ["1.4.2=100"]);
    assert_eq!(platform.deployments(), ["1.4.1 Completed", "1.4.2 Completed", "1.4.3 Failed"]);
    platform.registry.push(&tagged("1.4.3"));
    platform.run(&deploy("deploy-4", "1.4.3")).await;
    assert_eq!(platform.traffic(), ["1.4.3=100"]);
}

#[tokio::test]
async fn an_image_that_is_not_there_replaces_nobody_who_waits() {
    let mut platform = serving().await;
    platform.registry.remove(&tagged("1.4.4"));
    platform.send(&deploy("deploy-2", "1.4.2"));
    let promoting = |platform: &TestPlatform| {
        let deployments = platform.states::<RuntimeDeployment>();
        deployments.iter().any(|it| it.status == DeploymentStatus::Promoting)
    };
    platform.run_until("promoting", promoting).await;
    for (id, version) in
        [("deploy-3", "1.4.3"), ("deploy-4", "1.4.4"), ("deploy-5", "1.4.5"), ("deploy-6", "1.4.4")]
    {
        platform.send(&deploy(id, version));
    }
    platform.run_until_quiet().await;
    let mut ended = platform.deployments();
    ended.sort();
    assert_eq!(
        ended,
        [
            "1.4.1 Completed",
            "1.4.2 Completed",
            "1.4.3 Failed",
            "1.4.4 Failed",
            "1.4.4 Failed",
            "1.4.5 Completed",
        ]
    );
    assert_eq!(platform.traffic(), ["1.4.5=100"]);
    let codes = platform.events().into_iter().filter(|it| it.event_type() == "RuntimeCommandFailed");
    let mut codes: Vec<_> = codes
        .map(|it| {
            format!("{} {}", it.envelope.payload["commandId"], it.envelope.payload["reasonCode"])
                .replace('"', "")
        })
        .collect();
    codes.sort();
    assert_eq!(codes, ["deploy-3 Superseded", "deploy-4 ImageNotFound", "deploy-6 ImageNotFound"]);
}

#[tokio::test]
async fn an_image_that_is_kept_out_ends_nobodys_rollout_either() {
    let mut platform = serving().await;
    platform.compute.image(&tagged("1.5.0"), Behaviour::Answers(500));
    platform.run(&deploy("deploy-2", "1.5.0")).await;
    platform.send(&deploy("deploy-3", "1.4.2"));
    platform.happen().await;
    platform.run(&deploy("deploy-4", "1.5.0")).await;
    assert_eq!(platform.traffic(), ["1.4.2=100"]);
    assert_eq!(platform.outcome("deploy-4").await, ("Failed".into(), "RuntimeCommandFailed".into()));
    assert_eq!(platform.outcome("deploy-3").await.1, "RuntimeDeploymentCompleted");
}

#[tokio::test]
async fn a_registry_that_is_away_for_a_while_delays_and_one_that_stays_away_fails() {
    let mut platform = serving().await;
    platform.script.answer("resolve", [Bad::TooManyRequests(7), Bad::ServerError]);
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    assert_eq!(platform.traffic(), ["1.4.2=100"]);
    platform.script.answer("resolve", [Bad::ServerError; 5]);
    platform.run(&deploy("deploy-3", "1.4.3")).await;
    expect!["ProvisioningFailed `dep-5758d5fb` failed before anything was rolled out: 5 attempts ended without a result; the last: resolve: 500: internal server error"].assert_eq(&refusal(&platform));
    assert_eq!(platform.traffic(), ["1.4.2=100"]);
}
