//! What failed is kept out, and nothing else is.

use expect_test::expect;
use runtime_platform::services::deployment_service::Slot;
use serde_json::json;

use super::story::serving;
use crate::support::{
    builders::{IMAGE, Order, bind_secret, deploy, publish_configuration, rollback},
    fakes::compute::Behaviour,
    test_platform::TestPlatform,
};

fn kept_out(platform: &TestPlatform) -> Vec<String> {
    platform.states::<Slot>()[0].quarantine.iter().map(|entry| entry.what()).collect()
}

fn pinned_configuration(event_id: &str, version: &str, number: u64) -> Order {
    let mut order = deploy(event_id, version);
    order.payload["configurationVersion"] = json!(number);
    order
}

fn configuration(platform: &TestPlatform) -> Option<u64> {
    platform.compute.serving("reservations-api").unwrap().configuration.map(|entry| entry.version)
}

#[tokio::test]
async fn a_bad_configuration_is_kept_out_and_not_the_image() {
    let mut platform = serving().await;
    platform.run(&publish_configuration("publish-1", json!({ "LOG_LEVEL": "debug" }))).await;
    platform.compute.configuration(2, Behaviour::Answers(500));
    platform.run(&publish_configuration("publish-2", json!({ "LOG_LEVEL": "nonsense" }))).await;
    assert_eq!(kept_out(&platform), ["configuration 2"]);
    platform.run(&pinned_configuration("deploy-2", "1.4.2", 2)).await;
    let refused = platform.last("RuntimeCommandFailed");
    assert_eq!(refused["reasonCode"], "Quarantined");
    expect!["payload.configurationVersion: configuration 2 is in quarantine here since 2026-03-02T10:15:28Z, when its health gate kept `dep-792f0e63` out: 2 failures, 1 allowed; in the last sample it answered 500. Publish a corrected version, or lift it: runtimectl lift dep-792f0e63 --reason WHY."].assert_eq(refused["detail"].as_str().unwrap());
    // The image is as good as it was, with what served before.
    platform.run(&deploy("deploy-3", "1.4.1")).await;
    assert_eq!((platform.traffic(), configuration(&platform)), (vec!["1.4.1=100".to_owned()], Some(1)));
    assert_eq!(kept_out(&platform), ["configuration 2"], "nothing newer has passed");

    let id = platform.states::<Slot>()[0].quarantine[0].deployment_id.to_string();
    let listed = platform.get("Quarantine", None).await;
    assert_eq!(
        (&listed.body["items"][0]["kind"], &listed.body["items"][0]["configurationVersion"]),
        (&json!("Configuration"), &json!(2))
    );
    let answer =
        platform.post("LiftQuarantine", Some(&id), json!({ "reason": "a typo in the probe" }), None).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    platform.compute.configuration(2, Behaviour::Good);
    platform.run(&pinned_configuration("deploy-4", "1.4.2", 2)).await;
    assert_eq!((platform.traffic(), configuration(&platform)), (vec!["1.4.2=100".to_owned()], Some(2)));
}

#[tokio::test]
async fn a_bad_version_of_a_secret_is_kept_out_and_the_workload_goes_on_without() {
    let mut platform = serving().await;
    platform.compute.secret("generated1", Behaviour::Answers(500));
    platform.run(&bind_secret("bind-1", "db-password")).await;
    assert_eq!(kept_out(&platform), ["db-password/generated1 of secrets"]);
    assert_eq!(platform.traffic(), ["1.4.1=100"]);
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    let serves = platform.compute.serving("reservations-api").unwrap();
    assert_eq!((platform.traffic(), serves.secrets), (vec!["1.4.2=100".to_owned()], vec![]));
    assert_eq!(
        kept_out(&platform),
        ["db-password/generated1 of secrets"],
        "what passed without it says nothing of it"
    );
}

#[tokio::test]
async fn a_tag_that_is_moved_to_a_mended_image_is_deployed() {
    let mut platform = serving().await;
    let tag = format!("{IMAGE}:1.5.0");
    let bad = format!("{IMAGE}@{}", platform.registry.digest(&tag));
    platform.compute.image(&bad, Behaviour::Answers(500));
    platform.run(&deploy("deploy-2", "1.5.0")).await;
    assert_eq!(kept_out(&platform), [tag.as_str()]);
    // By whatever name it comes, it is the same image.
    platform.run(&deploy("deploy-3", "1.5.0").with("/workloads/0/image", json!(bad))).await;
    let refused = platform.last("RuntimeCommandFailed");
    let same = format!("{bad} is the same image as {tag}, which is in quarantine here since ");
    assert!(refused["detail"].as_str().unwrap().starts_with(&same), "{refused}");
    platform.registry.move_tag(&tag);
    platform.run(&deploy("deploy-4", "1.5.0")).await;
    assert_eq!(platform.traffic(), ["1.5.0=100"]);
    assert_eq!(kept_out(&platform), Vec::<String>::new(), "a newer image passed");
}

#[tokio::test]
async fn an_image_that_serves_is_not_kept_out_whatever_fails_with_it() {
    let mut platform = serving().await;
    platform.compute.image(&format!("{IMAGE}:1.4.1"), Behaviour::Answers(500));
    platform.run(&deploy("deploy-2", "1.4.1")).await;
    assert_eq!(platform.deployments(), ["1.4.1 Completed", "1.4.1 RolledBack"]);
    assert_eq!(kept_out(&platform), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_person_took_back_is_kept_out_of_a_rollback_too() {
    let mut platform = serving().await;
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    platform.run(&rollback("rollback-1")).await;
    assert_eq!(
        (platform.traffic(), kept_out(&platform)),
        (vec!["1.4.1=100".to_owned()], vec![format!("{IMAGE}:1.4.2")])
    );
    platform.run(&deploy("deploy-3", "1.4.2")).await;
    let refused = platform.last("RuntimeCommandFailed");
    assert!(
        refused["detail"].as_str().unwrap().contains("when RollbackDeployment `rollback-1` kept"),
        "{refused}"
    );
}
