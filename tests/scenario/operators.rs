//! What operators do over HTTP, and what comes of it.

use expect_test::expect;
use runtime_platform::services::deployment_service::{RuntimeDeployment, Slot};
use serde_json::{Value, json};

use super::story::serving;
use crate::support::{
    builders::{deploy, environment},
    fakes::compute::Behaviour,
    test_platform::TestPlatform,
};

const BAD: &str = "acr.azurecr.io/reservations-api:1.5.0";

/// 1.5.0 failed its gate and is kept out; 1.4.1 serves.
async fn kept_out() -> (TestPlatform, String) {
    let mut platform = serving().await;
    platform.compute.image(BAD, Behaviour::Answers(500));
    platform.run(&deploy("deploy-2", "1.5.0")).await;
    let entry = platform.states::<Slot>()[0].quarantine[0].clone();
    (platform, entry.deployment_id.to_string())
}

fn quarantined(platform: &TestPlatform) -> Vec<String> {
    platform.states::<Slot>()[0].quarantine.iter().map(|entry| entry.image.clone()).collect()
}

#[tokio::test]
async fn what_is_in_quarantine_is_refused_with_the_way_to_lift_it() {
    let (mut platform, _) = kept_out().await;
    platform.run(&deploy("deploy-3", "1.5.0")).await;
    let refused = platform.last("RuntimeCommandFailed");
    assert_eq!(refused["reasonCode"], "Quarantined");
    expect!["acr.azurecr.io/reservations-api:1.5.0 is in quarantine here since 2026-03-02T10:15:13Z, when its health gate kept `dep-ff46effc` out: 2 failures, 1 allowed; in the last sample it answered 500. Deploy another version, or lift it: runtimectl lift dep-ff46effc --reason WHY."].assert_eq(refused["detail"].as_str().unwrap());
    let listed = platform.get("Quarantine", None).await;
    expect![[r#"200 {"items":[{"deploymentId":"dep-ff46effc","environmentId":"env-cc58147b","moduleId":"module-reservations-api","image":"acr.azurecr.io/reservations-api:1.5.0","by":"its health gate","since":"2026-03-02T10:15:13Z","reason":"2 failures, 1 allowed; in the last sample it answered 500"}],"next":null}"#]].assert_eq(&format!("{} {}", listed.status, listed.body));
}

#[tokio::test]
async fn an_operator_lifts_a_quarantine_once_and_the_image_may_come_again() {
    let (mut platform, id) = kept_out().await;
    let why = json!({ "reason": "the database was down, not the release" });
    let lifted = platform.post("LiftQuarantine", Some(&id), why.clone(), Some("key-1")).await;
    expect![[r#"200 {"deploymentId":"dep-ff46effc","environmentId":"env-cc58147b","moduleId":"module-reservations-api","image":"acr.azurecr.io/reservations-api:1.5.0","liftedBy":"olga","reason":"the database was down, not the release","detail":"acr.azurecr.io/reservations-api:1.5.0 may be deployed again to `env-cc58147b`."}"#]].assert_eq(&format!("{} {}", lifted.status, lifted.body));
    let again = platform.post("LiftQuarantine", Some(&id), why.clone(), Some("key-1")).await;
    assert_eq!(again, lifted);
    let other = platform.post("LiftQuarantine", Some(&id), json!({ "reason": "another" }), Some("key-1")).await;
    assert_eq!((other.status, other.body["code"].as_str()), (422, Some("IdempotencyKeyReused")));
    let late = platform.post("LiftQuarantine", Some(&id), why, Some("key-2")).await;
    assert_eq!((late.status, late.body["code"].as_str()), (404, Some("NotQuarantined")));
    assert_eq!(quarantined(&platform), Vec::<String>::new());

    platform.compute.image(BAD, Behaviour::Answers(200));
    platform.run(&deploy("deploy-3", "1.5.0")).await;
    assert_eq!(platform.traffic(), ["1.5.0=100"]);
}

#[tokio::test]
async fn only_a_newer_image_that_passes_ends_a_quarantine() {
    let (mut platform, _) = kept_out().await;
    platform.run(&deploy("deploy-3", "1.4.1")).await;
    assert_eq!(quarantined(&platform), [BAD], "going back to an older image is no reason to try the bad one again");
    platform.run(&deploy("deploy-4", "1.5.1")).await;
    assert_eq!(quarantined(&platform), Vec::<String>::new());
}

#[tokio::test]
async fn an_order_without_a_reason_or_a_subject_is_refused() {
    let (platform, id) = kept_out().await;
    for (body, code) in [(json!({}), "BodyInvalid"), (json!({ "reason": " " }), "BodyInvalid"), (json!({ "reason": 7 }), "BodyInvalid")] {
        let answer = platform.post("LiftQuarantine", Some(&id), body.clone(), None).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (400, Some(code)), "{body}");
    }
    let answer = platform.post("LiftQuarantine", Some("dep-0"), json!({ "reason": "x" }), None).await;
    assert_eq!((answer.status, answer.body["code"].as_str()), (404, Some("DeploymentNotFound")));
    assert_eq!(quarantined(&platform), [BAD]);
}
