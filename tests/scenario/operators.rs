//! What operators do over HTTP, and what comes of it.

use expect_test::expect;
use runtime_platform::{
    operations::{Kind, Operation, Status},
    services::deployment_service::{DeploymentStatus, RuntimeDeployment, Slot},
};
use serde_json::json;

use super::story::serving;
use crate::support::{
    builders::{Order, TENANT, deploy, provision, rollback},
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
    expect![[r#"200 {"items":[{"deploymentId":"dep-ff46effc","environmentId":"env-cc58147b","moduleId":"module-reservations-api","kind":"Image","image":"acr.azurecr.io/reservations-api:1.5.0","imageDigest":"sha256:87d9cecce99ca6026b8e297174d51744713f0da367421980190858a51c152090","configurationVersion":null,"secretVersions":null,"by":"its health gate","since":"2026-03-02T10:15:13Z","reason":"2 failures, 1 allowed; in the last sample it answered 500"}],"next":null}"#]].assert_eq(&format!("{} {}", listed.status, listed.body));
}

#[tokio::test]
async fn an_operator_lifts_a_quarantine_once_and_the_image_may_come_again() {
    let (mut platform, id) = kept_out().await;
    let why = json!({ "reason": "the database was down, not the release" });
    let lifted = platform.post("LiftQuarantine", Some(&id), why.clone(), Some("key-1")).await;
    expect![[r#"200 {"deploymentId":"dep-ff46effc","environmentId":"env-cc58147b","moduleId":"module-reservations-api","image":"acr.azurecr.io/reservations-api:1.5.0","liftedBy":"olga","reason":"the database was down, not the release","detail":"What `dep-ff46effc` brought to `env-cc58147b` may be deployed again."}"#]].assert_eq(&format!("{} {}", lifted.status, lifted.body));
    let again = platform.post("LiftQuarantine", Some(&id), why.clone(), Some("key-1")).await;
    assert_eq!(again, lifted);
    let other =
        platform.post("LiftQuarantine", Some(&id), json!({ "reason": "another" }), Some("key-1")).await;
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
    assert_eq!(
        quarantined(&platform),
        [BAD],
        "going back to an older image is no reason to try the bad one again"
    );
    platform.run(&deploy("deploy-4", "1.5.1")).await;
    assert_eq!(quarantined(&platform), Vec::<String>::new());
}

#[tokio::test]
async fn an_order_without_a_reason_or_a_subject_is_refused() {
    let (platform, id) = kept_out().await;
    for (body, code) in [
        (json!({}), "BodyInvalid"),
        (json!({ "reason": " " }), "BodyInvalid"),
        (json!({ "reason": 7 }), "BodyInvalid"),
    ] {
        let answer = platform.post("LiftQuarantine", Some(&id), body.clone(), None).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (400, Some(code)), "{body}");
    }
    let answer = platform.post("LiftQuarantine", Some("dep-0"), json!({ "reason": "x" }), None).await;
    assert_eq!((answer.status, answer.body["code"].as_str()), (404, Some("DeploymentNotFound")));
    assert_eq!(quarantined(&platform), [BAD]);
}

fn status_of(platform: &TestPlatform, image: &str) -> Option<DeploymentStatus> {
    let found =
        platform.states::<RuntimeDeployment>().into_iter().find(|it| it.workload.image.ends_with(image));
    found.map(|deployment| deployment.status)
}

fn running(platform: &TestPlatform, kind: Kind) -> String {
    let operations = platform.states::<Operation>();
    let mut running: Vec<_> =
        operations.into_iter().filter(|it| it.kind == kind && it.status == Status::Running).collect();
    running.sort_by_key(|operation| operation.started_at);
    running.pop().expect("one is running").operation_id.to_string()
}

#[tokio::test]
async fn a_rollout_that_is_cancelled_goes_back_and_is_not_kept_out() {
    let mut platform = serving().await;
    platform.send(&deploy("deploy-2", "1.4.2"));
    platform.run_until("promoting", |it| status_of(it, "1.4.2") == Some(DeploymentStatus::Promoting)).await;
    let (id, why) = (running(&platform, Kind::Deploy), json!({ "reason": "the wrong customer" }));
    let place = platform.mark();
    let answer = platform.post("CancelOperation", Some(&id), why.clone(), None).await;
    assert_eq!(
        (answer.status, answer.location.as_deref()),
        (202, Some(format!("/api/v1/runtime/operations/{id}").as_str()))
    );
    let again = platform.post("CancelOperation", Some(&id), why, None).await;
    assert_eq!(again, answer);
    platform.run_until_quiet().await;
    expect![[r#"
        10:15:13 ~ shift reservations-api to reservations-api--d9c2595bb=100
        10:15:14 ~ deactivate reservations-api--dff46effc
        10:15:14 RuntimeDeploymentRolledBack dep-ff46effc reservations-api:1.4.2 to reservations-api:1.4.1 (dep-9c2595bb), Cancelled, gate Passed <- RuntimeDeploymentRequested
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.traffic(), ["1.4.1=100"]);
    assert_eq!(quarantined(&platform), Vec::<String>::new());
    let late =
        platform.post("CancelOperation", Some(&id), json!({ "reason": "once more" }), Some("key-9")).await;
    assert_eq!((late.status, late.body["code"].as_str()), (409, Some("NotCancellable")));
}

#[tokio::test]
async fn a_deployment_that_waits_is_cancelled_before_it_begins() {
    let mut platform = serving().await;
    platform.send(&deploy("deploy-2", "1.4.2"));
    platform.run_until("promoting", |it| status_of(it, "1.4.2") == Some(DeploymentStatus::Promoting)).await;
    platform.send(&deploy("deploy-3", "1.4.3"));
    platform.run_until("queued", |it| status_of(it, "1.4.3") == Some(DeploymentStatus::Queued)).await;
    let id = running(&platform, Kind::Deploy);
    let answer = platform.post("CancelOperation", Some(&id), json!({ "reason": "not today" }), None).await;
    assert_eq!(answer.status, 202);
    platform.run_until_quiet().await;
    assert_eq!(platform.traffic(), ["1.4.2=100"]);
    assert_eq!(status_of(&platform, "1.4.3"), Some(DeploymentStatus::Failed));
    assert_eq!(platform.outcome("deploy-3").await, ("Failed".into(), "RuntimeCommandFailed".into()));
}

#[tokio::test]
async fn provisioning_that_is_cancelled_ends_as_failed_and_is_taken_up_by_the_next() {
    let mut platform = TestPlatform::new();
    platform.send(&provision("provision-1"));
    platform.run_until("making resources", |it| !it.infrastructure.world().is_empty()).await;
    let id = running(&platform, Kind::Provision);
    let answer =
        platform.post("CancelOperation", Some(&id), json!({ "reason": "the wrong region" }), None).await;
    assert_eq!(answer.status, 202);
    platform.run_until_quiet().await;
    let failed = platform.last("RuntimeCommandFailed");
    assert_eq!(failed["reasonCode"], "Cancelled");
    expect!["Provisioning `env-cc58147b` failed: ended by `olga`: the wrong region (Cancelled). What was made stays and is taken up by the next ProvisionEnvironment of the same name."].assert_eq(failed["detail"].as_str().unwrap());
    platform.run(&provision("provision-2")).await;
    assert_eq!(
        platform.outcome("provision-2").await,
        ("Completed".into(), "RuntimeEnvironmentProvisioned".into())
    );
}

#[tokio::test]
async fn a_rollback_is_not_cancelled() {
    let mut platform = serving().await;
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    platform.send(&rollback("rollback-1"));
    platform
        .run_until("going back", |it| status_of(it, "1.4.2") == Some(DeploymentStatus::RollingBack))
        .await;
    let id = running(&platform, Kind::Rollback);
    let answer = platform.post("CancelOperation", Some(&id), json!({ "reason": "hm" }), None).await;
    assert_eq!((answer.status, answer.body["code"].as_str()), (409, Some("NotCancellable")));
    platform.run_until_quiet().await;
    assert_eq!(platform.traffic(), ["1.4.1=100"]);
}

#[tokio::test]
async fn a_dead_letter_shows_to_the_tenant_that_it_names_and_an_unreadable_one_to_operators() {
    let mut platform = TestPlatform::new();
    platform.run(&Order { body: Some(b"{".to_vec()), ..deploy("deploy-1", "1.4.1") }).await;
    // Delivered again and again without success: the broker itself files it.
    let mut named = deploy("deploy-2", "1.4.2").message();
    named.entity = "dead-letters".into();
    named.properties.insert("DeadLetterReason".into(), "MaxDeliveryCountExceeded".into());
    platform.broker.accept(named).unwrap();
    platform.tidy = false; // The command of the second letter was not sent by the builders.
    platform.run_until_quiet().await;

    let own = platform.ask("FiledDeadLetters", TENANT, &[]).await;
    let items = own.body["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{}", own.body);
    assert_eq!(
        (&items[0]["eventId"], &items[0]["reason"]),
        (&json!("deploy-2"), &json!("MaxDeliveryCountExceeded"))
    );
    let id = items[0]["deadLetterId"].as_str().unwrap();
    let one = platform.get("FiledDeadLetters", Some(id)).await;
    assert_eq!((one.status, &one.body["contentType"]), (200, &json!("application/json")));
    assert!(one.body["bodyBase64"].as_str().is_some_and(|body| !body.is_empty()));

    let unreadable = platform.ask("FiledDeadLetters", TENANT, &[("unreadable", "true")]).await;
    let items = unreadable.body["items"].as_array().unwrap();
    assert_eq!(
        (items.len(), &items[0]["reason"], &items[0]["function"]),
        (1, &json!("Unreadable"), &json!("Deploy"))
    );
    let hidden = platform.get("FiledDeadLetters", items[0]["deadLetterId"].as_str()).await;
    assert_eq!((hidden.status, hidden.body["code"].as_str()), (404, Some("DeadLetterNotFound")));

    let others = platform.ask("FiledDeadLetters", "acme", &[]).await;
    assert_eq!(others.body, json!({ "items": [], "next": null }));
    let filtered = platform.ask("FiledDeadLetters", TENANT, &[("reason", "Unreadable")]).await;
    assert_eq!(filtered.body["items"], json!([]));
    let wrong = platform.ask("FiledDeadLetters", TENANT, &[("unreadable", "maybe")]).await;
    assert_eq!(wrong.status, 400);
}
