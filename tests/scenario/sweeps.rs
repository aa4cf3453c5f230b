//! Sweeps: every environment once in a window, and now where an operator asks.

use std::collections::BTreeMap;

use expect_test::expect;
use jiff::SignedDuration;
use runtime_platform::{
    functions::{self, Run},
    invocation::{HttpAnswer, HttpRequest},
    sweeps::{self, Kind, SweepReport},
};
use serde_json::json;

use crate::support::{
    builders::{TENANT, bind, environment, provision},
    test_platform::TestPlatform,
};

async fn two_tenants() -> TestPlatform {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    platform.run(&bind("bind-1", "acme", "shared")).await;
    platform
}

/// Where reports are, with the window of each.
fn reports(platform: &TestPlatform) -> Vec<String> {
    let mut told: Vec<_> = platform
        .documents()
        .into_iter()
        .filter(|stored| stored.document.id.starts_with("sweep-"))
        .map(|stored| {
            let body = &stored.document.body;
            format!(
                "{}/{} {} {} checked {} changed {}",
                stored.partition.tenant_id,
                stored.partition.environment_id,
                stored.document.id,
                body["window"].as_str().unwrap(),
                body["checked"],
                body["changed"]
            )
        })
        .collect();
    told.sort();
    told
}

async fn sweep_now(platform: &TestPlatform, tenant: &str, environment: &str, kind: &str) -> HttpAnswer {
    let function = functions::all().into_iter().find(|it| it.name == "SweepNow").unwrap();
    let Run::Http(run) = function.run else { panic!("it takes requests") };
    let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let request = HttpRequest {
        method: "POST".into(),
        headers: text(&[("x-cs-tenant-id", tenant), ("idempotency-key", "key-1")]),
        params: text(&[("id", environment), ("kind", kind)]),
        body: Some(json!({ "reason": "somebody called" }).to_string()),
        key_name: Some("olga".into()),
        ..HttpRequest::default()
    };
    run(platform.platform.clone(), request).await
}

#[tokio::test]
async fn two_timers_in_one_window_sweep_every_environment_once() {
    let mut platform = two_tenants().await;
    for _ in 0..2 {
        sweeps::start(&platform.platform, Kind::Rotation).await.unwrap();
    }
    let waiting = platform.broker.waiting().len();
    assert_eq!(waiting, 2, "the owner's part and the bound tenant's, once each");
    platform.run_until_quiet().await;
    expect![[r#"
        _platform/_ sweep-rotation 2026-03-02T10:00:00Z checked 2 changed 2
        acme/env-cc58147b sweep-rotation 2026-03-02T10:00:00Z checked 0 changed 0
        connectsoft/env-cc58147b sweep-rotation 2026-03-02T10:00:00Z checked 0 changed 0"#]]
    .assert_eq(&reports(&platform).join("\n"));
}

#[tokio::test]
async fn what_comes_after_newer_windows_is_dropped() {
    let mut platform = two_tenants().await;
    sweeps::start(&platform.platform, Kind::Rotation).await.unwrap();
    platform.clock.set(platform.platform.clock.now() + SignedDuration::from_hours(5));
    platform.run_until_quiet().await;
    assert_eq!(platform.states::<SweepReport>().len(), 1, "only what the timer says of itself");
}

#[tokio::test]
async fn an_operator_has_an_environment_swept_now_and_once() {
    let mut platform = two_tenants().await;
    let environment = environment().to_string();
    let accepted = sweep_now(&platform, TENANT, &environment, "rotation").await;
    expect![[r#"202 {"environmentId":"env-cc58147b","kind":"Rotation","orderedBy":"olga","reason":"somebody called"}"#]].assert_eq(&format!("{} {}", accepted.status, accepted.body));
    assert_eq!(sweep_now(&platform, TENANT, &environment, "rotation").await, accepted);
    assert_eq!(platform.broker.waiting().len(), 1);
    platform.run_until_quiet().await;
    assert_eq!(platform.states::<SweepReport>().len(), 1);
    for (tenant, environment, kind, code) in [
        ("globex", environment.as_str(), "rotation", "EnvironmentNotFound"),
        (TENANT, "env-00000000", "rotation", "EnvironmentNotFound"),
        (TENANT, environment.as_str(), "tea", "KindUnknown"),
    ] {
        let answer = sweep_now(&platform, tenant, environment, kind).await;
        assert_eq!(answer.body["code"], code);
    }
}
