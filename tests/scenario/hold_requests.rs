//! Holds as operators give, read and release them.

use expect_test::expect;
use jiff::SignedDuration;
use runtime_platform::{
    holds,
    ids::ModuleId,
    invocation::{HttpAnswer, HttpRequest},
    ports::{clock::Clock, store::Partition},
};
use serde_json::{Value, json};

use super::story::serving;
use crate::support::{
    builders::{MODULE, TENANT, environment},
    test_platform::TestPlatform,
};

async fn hold(platform: &TestPlatform, body: Value, key: Option<&str>) -> HttpAnswer {
    platform.post("Hold", None, body, key).await
}

fn environment_for(minutes: i64) -> Value {
    json!({ "scope": "environment", "environmentId": environment(), "reason": "incident 4711", "minutes": minutes })
}

fn code(answer: &HttpAnswer) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or("-"))
}

/// What keeps automation off the workload, in words.
async fn held(platform: &TestPlatform) -> Option<String> {
    let partition = Partition::environment(&TENANT.parse().unwrap(), environment().as_str());
    let module: ModuleId = MODULE.parse().unwrap();
    let now = platform.clock.now();
    let hold = holds::held(&platform.platform.ledger, &partition, Some(&module), now).await.unwrap();
    hold.map(|hold| hold.sentence())
}

/// Asks as another key than the operators'.
async fn post_as(
    platform: &TestPlatform,
    name: &str,
    id: Option<&str>,
    key: &str,
    body: Value,
) -> HttpAnswer {
    let request = HttpRequest {
        method: "POST".into(),
        headers: [("x-cs-tenant-id".to_owned(), TENANT.to_owned())].into(),
        params: id.map(|id| ("id".to_owned(), id.to_owned())).into_iter().collect(),
        body: Some(body.to_string()),
        key_name: Some(key.into()),
        ..HttpRequest::default()
    };
    platform.request(name, request).await
}

#[tokio::test]
async fn an_environment_is_held_once_and_released_once() {
    let platform = serving().await;
    let first = hold(&platform, environment_for(45), Some("key-1")).await;
    expect![[r#"200 {"holdId":"hold-5f6aa00f","scope":"environment","status":"InForce","environmentId":"env-cc58147b","moduleId":null,"reason":"incident 4711","by":"olga","from":"2026-03-02T10:15:09Z","until":"2026-03-02T11:00:09Z","released":null}"#]].assert_eq(&format!("{} {}", first.status, first.body));
    assert_eq!(hold(&platform, environment_for(45), Some("key-1")).await, first);
    assert_eq!(
        code(&hold(&platform, environment_for(46), Some("key-1")).await),
        (422, "IdempotencyKeyReused")
    );
    expect!["`olga` holds `env-cc58147b` until 2026-03-02T11:00:09Z (hold-5f6aa00f): incident 4711"]
        .assert_eq(&held(&platform).await.unwrap());
    let id = first.body["holdId"].as_str().unwrap();
    assert_eq!(platform.get("Holds", Some(id)).await.body, first.body);
    assert_eq!(
        platform.ask("Holds", TENANT, &[("status", "InForce")]).await.body["items"],
        json!([first.body])
    );

    let why = json!({ "reason": "it is over" });
    let released = platform.post("ReleaseHold", Some(id), why.clone(), None).await;
    assert_eq!((released.status, &released.body["status"]), (200, &json!("Released")));
    assert_eq!(released.body["released"]["by"], "olga");
    assert_eq!(platform.post("ReleaseHold", Some(id), why, None).await, released, "sent again it is one");
    let late = platform.post("ReleaseHold", Some(id), json!({ "reason": "again" }), Some("key-2")).await;
    assert_eq!(code(&late), (409, "NotInForce"));
    assert_eq!(held(&platform).await, None);

    // The same thing may be held and released again.
    platform.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(hold(&platform, environment_for(10), None).await.status, 200);
    let released = platform.post("ReleaseHold", Some(id), json!({ "reason": "it is over" }), None).await;
    assert_eq!(released.status, 200);
    assert_eq!(held(&platform).await, None);
}

#[tokio::test]
async fn a_hold_is_prolonged_and_not_shortened_by_another() {
    let mut platform = serving().await;
    hold(&platform, environment_for(30), None).await;
    let longer = hold(&platform, environment_for(60), None).await;
    assert_eq!(longer.status, 200);
    let shorter = hold(&platform, environment_for(10), None).await;
    expect!["409 `olga` holds `env-cc58147b` until 2026-03-02T11:15:09Z (hold-5f6aa00f): incident 4711. A hold is not shortened by another one: hold at least as long, or release `hold-5f6aa00f` first."].assert_eq(&format!("{} {}", shorter.status, shorter.body["detail"].as_str().unwrap_or_default()));
    platform.clock.advance(std::time::Duration::from_secs(61 * 60));
    assert_eq!(held(&platform).await, None, "it ends by itself");
    let listed = platform.ask("Holds", TENANT, &[]).await;
    assert_eq!(listed.body["items"][0]["status"], "Expired");
    assert_eq!(
        hold(&platform, environment_for(10), None).await.status,
        200,
        "what is over is in nobody's way"
    );
    // What was to be looked at meanwhile.
    platform.run_until_quiet().await;
}

#[tokio::test]
async fn one_workload_is_held_by_its_name() {
    let platform = serving().await;
    let until = platform.clock.now() + SignedDuration::from_hours(2);
    let body = json!({
        "scope": "workload", "environmentId": environment(), "moduleId": MODULE, "reason": "a demo", "until": until
    });
    assert_eq!(hold(&platform, body, None).await.status, 200);
    expect!["`olga` holds `module-reservations-api` until 2026-03-02T12:15:09Z (hold-239b78f8): a demo"]
        .assert_eq(&held(&platform).await.unwrap());
    assert_eq!(platform.ask("Holds", TENANT, &[("moduleId", "another")]).await.body["items"], json!([]));
    assert_eq!(
        platform.ask("Holds", "globex", &[]).await.body["items"],
        json!([]),
        "another tenant's is not there"
    );
}

#[tokio::test]
async fn the_whole_platform_is_held_by_its_operators_only() {
    let platform = serving().await;
    let body = json!({ "scope": "platform", "reason": "the region is down", "minutes": 30 });
    let refused = post_as(&platform, "Hold", None, "a-tenants-key", body.clone()).await;
    expect!["403 The whole platform is held and released by its operators only, whose keys the setting OPERATOR_KEYS names; yours is `a-tenants-key`. Hold an environment or a workload instead."].assert_eq(&format!("{} {}", refused.status, refused.body["detail"].as_str().unwrap_or_default()));
    let given = hold(&platform, body, None).await;
    assert_eq!(given.status, 200);
    expect!["`olga` holds the whole platform until 2026-03-02T10:45:09Z (hold-1e9340c2): the region is down"]
        .assert_eq(&held(&platform).await.unwrap());
    let seen = platform.ask("Holds", "globex", &[]).await;
    assert_eq!(seen.body["items"][0]["scope"], "platform", "whom it concerns sees it");
    let id = given.body["holdId"].as_str();
    let why = json!({ "reason": "it is up" });
    assert_eq!(
        code(&post_as(&platform, "ReleaseHold", id, "a-tenants-key", why.clone()).await),
        (403, "OperatorsOnly")
    );
    assert_eq!(platform.post("ReleaseHold", id, why, None).await.status, 200);
    assert_eq!(held(&platform).await, None);
}

#[tokio::test]
async fn what_is_no_hold_is_refused_with_the_field() {
    let platform = serving().await;
    let with = |change: fn(&mut Value)| {
        let mut body = environment_for(30);
        change(&mut body);
        body
    };
    let mut told = String::new();
    for body in [
        with(|body| body["minutes"] = json!(0)),
        with(|body| body["minutes"] = json!(20_000)),
        with(|body| body["minutes"] = Value::Null),
        with(|body| body["until"] = json!("2026-03-02T12:00:00Z")),
        json!({ "scope": "environment", "environmentId": environment(), "reason": "x", "until": "2026-03-02T10:00:00Z" }),
        with(|body| body["reason"] = json!(" ")),
        with(|body| body["scope"] = json!("galaxy")),
        with(|body| body["scope"] = json!("platform")),
        with(|body| body["scope"] = json!("workload")),
        with(|body| body["moduleId"] = json!(MODULE)),
        with(|body| body["environmentId"] = Value::Null),
        with(|body| body["environmentId"] = json!("prod")),
        with(|body| body["environmentId"] = json!("env-00000000")),
        json!({ "scope": "workload", "environmentId": environment(), "moduleId": "m", "reason": "x", "minutes": 5 }),
    ] {
        let answer = hold(&platform, body, None).await;
        told.push_str(&format!("{} {}\n", answer.status, answer.body["detail"].as_str().unwrap_or_default()));
    }
    expect![[r#"
        400 The body's field `minutes`: a hold lasts at least a minute and at most 10080 minutes.
        400 The body's field `minutes`: a hold lasts at least a minute and at most 10080 minutes.
        400 The body's field `minutes`: say `minutes` or `until`, one of them; every hold ends.
        400 The body's field `minutes`: say `minutes` or `until`, one of them; every hold ends.
        400 The body's field `until`: a hold lasts at least a minute and at most 10080 minutes; it is 2026-03-02T10:15:09Z now.
        400 The body's field `reason`: say why in 1 to 500 characters.
        400 The body's field `scope`: it must be one of `platform`, `environment`, `workload` at line 1 column 17.
        400 The body's field `environmentId`: it does not go with this scope; leave it out.
        400 The body's field `moduleId`: this scope needs it.
        400 The body's field `moduleId`: it does not go with this scope; leave it out.
        400 The body's field `environmentId`: this scope needs it.
        400 The body's field `environmentId`: it `prod` should begin with `env-`.
        404 There is no environment `env-00000000`.
        404 `m` was never deployed to `env-cc58147b`; hold the environment as a whole instead.
    "#]].assert_eq(&told);
    assert_eq!(held(&platform).await, None);
    let unknown = platform.post("ReleaseHold", Some("hold-0"), json!({ "reason": "x" }), None).await;
    assert_eq!(code(&unknown), (404, "HoldNotFound"));
}
