//! The inventory: what runs, told once for each change, whatever comes twice, late or never.

use expect_test::expect;
use jiff::SignedDuration;
use runtime_platform::{
    events::RuntimeStatus,
    ports::clock::Clock,
    services::{
        deployment_service::RuntimeDeployment,
        service_catalog_runtime_service::{CatalogueEntry, RuntimeService},
    },
};
use serde_json::json;

use super::story::serving;
use crate::support::{
    builders::{IMAGE, TENANT, bind, deploy, provision},
    fakes::compute::Behaviour,
    test_platform::{Deliveries, TestPlatform},
};

fn told(platform: &TestPlatform) -> Vec<String> {
    let lines = platform.transcript();
    let lines = lines.lines().filter(|line| line.contains("RuntimeInventoryUpdated"));
    lines.map(|line| line.trim_start().to_owned()).collect()
}

/// What the record says, without what counts deliveries.
fn record(platform: &TestPlatform) -> (String, Option<String>, RuntimeStatus, u32) {
    let service = platform.states::<RuntimeService>().pop().expect("there is a service");
    (service.image, service.version, service.status, service.replicas)
}

#[tokio::test]
async fn a_deployment_adds_a_service_and_the_next_changes_it() {
    let mut platform = serving().await;
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    expect![[r#"
        10:15:09 RuntimeInventoryUpdated svc-b0deb1bf Added Running reservations-api:1.4.1 x1 <- RuntimeDeploymentCompleted
        10:15:22 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.2 x1 <- RuntimeDeploymentCompleted"#]].assert_eq(&told(&platform).join("\n"));
    let service = platform.states::<RuntimeService>().pop().unwrap();
    let read = platform.get("Services", Some(service.service_id.as_str())).await;
    expect![[r#"{"serviceId":"svc-b0deb1bf","environmentId":"env-cc58147b","moduleId":"module-reservations-api","componentType":"microservice","image":"acr.azurecr.io/reservations-api:1.4.2","version":"1.4.2","deploymentId":"dep-ff46effc","computeTarget":"container-apps","replicas":1,"instances":[{"revision":"reservations-api--dff46effc","replicas":1,"healthy":1}],"endpointUrl":"https://reservations-api.fake.localhost","status":"Running","scaled":null,"lastObservedAt":"2026-03-02T10:15:22Z","retiredAt":null}"#]].assert_eq(&read.body.to_string());
    let known = platform.states::<RuntimeDeployment>();
    assert!(known.iter().any(|it| it.deployment_id == service.deployment_id), "its version is known");
}

#[tokio::test]
async fn messages_that_come_twice_or_at_once_make_the_same_record() {
    for deliveries in [Deliveries::Once, Deliveries::Twice, Deliveries::TwoAtOnce] {
        let mut platform = TestPlatform::new();
        platform.deliveries = deliveries;
        platform.run(&provision("provision-1")).await;
        platform.run(&deploy("deploy-1", "1.4.1")).await;
        platform.run(&deploy("deploy-2", "1.4.2")).await;
        let expected = (format!("{IMAGE}:1.4.2"), Some("1.4.2".to_owned()), RuntimeStatus::Running, 1);
        assert_eq!(record(&platform), expected, "{deliveries:?}");
        assert_eq!(told(&platform).len(), 2, "{deliveries:?}");
    }
}

#[tokio::test]
async fn what_an_event_failed_to_tell_the_sweep_tells() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    platform.broker.lose("runtime.deployment/Subscriptions/runtime-inventory-worker");
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    assert_eq!(platform.states::<RuntimeService>(), []);
    platform.fire("HealthSweep").await;
    platform.run_until_quiet().await;
    assert_eq!(record(&platform).2, RuntimeStatus::Running);
    assert_eq!(told(&platform).len(), 1);
}

#[tokio::test]
async fn a_service_can_be_asked_for_as_it_was() {
    let mut platform = serving().await;
    let then = platform.clock.now();
    platform.clock.set(then + SignedDuration::from_hours(24));
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    let id = platform.states::<RuntimeService>().pop().unwrap().service_id.to_string();
    let mut answers = Vec::new();
    for at in [
        then.to_string(),
        "2026-03-02T10:00:00Z".to_owned(),
        "2026-01-01T00:00:00Z".to_owned(),
        "yesterday".to_owned(),
    ] {
        let answer = platform.ask_one("Services", TENANT, &id, &[("at", &at)]).await;
        answers.push(format!("{} {}", answer.status, answer.body));
    }
    expect![[r#"
        200 {"serviceId":"svc-b0deb1bf","since":"2026-03-02T10:15:09Z","change":"Added","status":"Running","image":"acr.azurecr.io/reservations-api:1.4.1","version":"1.4.1","deploymentId":"dep-9c2595bb","replicas":1}
        404 {"type":"about:blank","title":"Not Found","status":404,"detail":"Nothing is known of `svc-b0deb1bf` at 2026-03-02T10:00:00Z: it was not seen yet, or has changed too often since.","code":"NothingKnownThen"}
        400 {"type":"about:blank","title":"Bad Request","status":400,"detail":"The parameter `at`: past states are kept for 30 days; ask for 2026-02-01T10:15:22Z or later.","code":"TimeTooOld"}
        400 {"type":"about:blank","title":"Bad Request","status":400,"detail":"The parameter `at` is no time; write it as 2026-03-02T10:15:00Z.","code":"TimeInvalid"}"#]].assert_eq(&answers.join("\n"));
    let stranger = platform.ask_one("Services", "globex", &id, &[]).await;
    assert_eq!((stranger.status, stranger.body["code"].clone()), (404, json!("ServiceNotFound")));
}

#[tokio::test]
async fn a_first_deployment_that_fails_is_in_no_inventory() {
    let mut platform = TestPlatform::new();
    platform.compute.image(&format!("{IMAGE}:bad"), Behaviour::Answers(500));
    platform.run(&provision("provision-1")).await;
    platform.run(&deploy("deploy-1", "bad")).await;
    platform.fire("HealthSweep").await;
    platform.run_until_quiet().await;
    assert_eq!(platform.states::<RuntimeService>(), []);
}

#[tokio::test]
async fn the_catalogue_knows_environments_and_who_is_bound_to_them() {
    let mut platform = TestPlatform::new();
    platform.deliveries = Deliveries::Twice;
    platform.run(&provision("provision-1")).await;
    platform.run(&bind("bind-1", "acme", "shared")).await;
    let entry = platform.states::<CatalogueEntry>().pop().unwrap();
    let tenants: Vec<_> = entry.tenants.values().map(|it| it.isolation_model.clone()).collect();
    assert_eq!((entry.name.as_deref(), entry.stage.as_deref()), (Some("test"), Some("test")));
    assert_eq!(tenants, ["shared"]);
}
