//! What the host posts and what it gets back, through the handler's own router.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use expect_test::{Expect, expect};
use futures::stream;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use jiff::Timestamp;
use runtime_platform::{platform::Platform, ports::clock::Clock, server};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::support::{
    builders::{Order, deploy},
    test_platform::TestPlatform,
};

fn router(platform: &Platform) -> Router {
    // The sender may go: what it sent last stays.
    server::router(watch::channel(Some(platform.clone())).1)
}

async fn post(router: Router, function: &str, body: Body) -> (StatusCode, String) {
    let request =
        Request::post(format!("/{function}")).header("x-azure-functions-invocationid", "inv-1").body(body);
    let answer = router.oneshot(request.unwrap()).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/json");
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// A Service Bus invocation as Azure's host writes one: texts are JSON within JSON, numbers are texts.
fn invocation(order: &Order) -> Value {
    let message = order.message();
    let text = |text: &str| Value::from(Value::from(text).to_string());
    json!({
        "Data": { "message": BASE64_STANDARD.encode(&message.body) },
        "Metadata": {
            "MessageId": text(&message.message_id),
            "ContentType": text(&message.content_type),
            "DeliveryCount": "1",
            "EnqueuedTime": text("2026-03-02T10:15:00+00:00"),
            "ApplicationProperties": message.properties,
            "sys": { "MethodName": "Deploy", "UtcNow": "2026-03-02T10:15:00Z", "RandGuid": "7d1b3a52-0000-0000-0000-000000000000" },
        },
    })
}

async fn replies(platform: &TestPlatform, function: &str, body: Value, expected: Expect) {
    let (status, reply) = post(router(&platform.platform), function, Body::from(body.to_string())).await;
    expected.assert_eq(&format!("{} {reply}", status.as_u16()));
}

#[tokio::test]
async fn a_message_that_was_decided_is_a_success_and_published_before_the_reply() {
    let platform = TestPlatform::new();
    let order = deploy("deploy-1", "1.4.1");
    let reply = expect![[r#"200 {"Outputs":{},"Logs":[],"ReturnValue":null}"#]];
    replies(&platform, "Deploy", invocation(&order), reply).await;
    let published = platform.broker.take_published();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].subject.as_deref(), Some("RuntimeCommandFailed"));
}

#[tokio::test]
async fn a_timer_is_a_success_without_data() {
    let reply = expect![[r#"200 {"Outputs":{},"Logs":[],"ReturnValue":null}"#]];
    let body = json!({ "Data": { "timer": { "IsPastDue": false } }, "Metadata": {} });
    replies(&TestPlatform::new(), "OutboxRelay", body, reply).await;
}

#[tokio::test]
async fn a_request_is_answered_within_the_reply() {
    let body = json!({
        "Data": { "req": { "Url": "http://localhost:7071/api/v1/runtime/environments", "Method": "GET",
            "Headers": { "X-CS-Tenant-Id": ["connectsoft"] }, "Query": {}, "Params": {} } },
        "Metadata": {},
    });
    let reply = expect![[
        r#"200 {"Outputs":{"res":{"statusCode":200,"headers":{"Content-Type":"application/json; charset=utf-8"},"body":"{\"items\":[],\"next\":null}"}},"Logs":[],"ReturnValue":null}"#
    ]];
    replies(&TestPlatform::new(), "Environments", body, reply).await;
}

#[tokio::test]
async fn a_request_without_a_tenant_is_told_what_is_missing() {
    let body = json!({ "Data": { "req": { "Method": "GET", "Headers": {}, "Query": {}, "Params": {} } }, "Metadata": {} });
    let reply = expect![[
        r#"200 {"Outputs":{"res":{"statusCode":400,"headers":{"Content-Type":"application/problem+json"},"body":"{\"type\":\"about:blank\",\"title\":\"Bad Request\",\"status\":400,\"detail\":\"The header x-cs-tenant-id is missing; it names the tenant that is asked about.\",\"code\":\"TenantMissing\"}"}},"Logs":[],"ReturnValue":null}"#
    ]];
    replies(&TestPlatform::new(), "Environments", body, reply).await;
}

#[tokio::test]
async fn a_function_that_is_not_there_is_named() {
    let reply = expect![[
        r#"500 {"error":"There is no function `MakeTea`; the app was staged with another version of the handler."}"#
    ]];
    replies(&TestPlatform::new(), "MakeTea", json!({ "Data": {}, "Metadata": {} }), reply).await;
}

#[tokio::test]
async fn an_invocation_without_its_binding_is_told_so() {
    let reply = expect![[
        r#"500 {"error":"Data has no member `message`: function.json and the handler disagree on the binding's name"}"#
    ]];
    replies(&TestPlatform::new(), "Deploy", json!({ "Data": { "other": "" }, "Metadata": {} }), reply).await;
    let reply = expect![[
        r#"500 {"error":"Data.message is not base64: the binding needs \"dataType\": \"binary\" in function.json"}"#
    ]];
    replies(&TestPlatform::new(), "Deploy", json!({ "Data": { "message": "{}" }, "Metadata": {} }), reply)
        .await;
}

/// A hundred megabytes, a megabyte at a time.
fn hundred_megabytes() -> Body {
    let chunk = Bytes::from(vec![b'x'; 1024 * 1024]);
    Body::from_stream(stream::iter((0..100).map(move |_| Ok::<_, std::io::Error>(chunk.clone()))))
}

#[tokio::test]
async fn a_body_of_a_hundred_megabytes_is_read_to_its_end_and_declined() {
    let platform = TestPlatform::new();
    let (status, reply) = post(router(&platform.platform), "Environments", hundred_megabytes()).await;
    expect![[r#"200 {"Outputs":{"res":{"statusCode":413,"headers":{"Content-Type":"application/problem+json"},"body":"{\"type\":\"about:blank\",\"title\":\"Payload Too Large\",\"status\":413,\"detail\":\"The request is over 1048576 bytes; send less.\",\"code\":\"RequestTooLarge\"}"}},"Logs":[],"ReturnValue":null}"#]]
    .assert_eq(&format!("{} {reply}", status.as_u16()));
    let (status, reply) = post(router(&platform.platform), "Deploy", hundred_megabytes()).await;
    expect![[r#"500 {"error":"The invocation is larger than any message may be."}"#]]
        .assert_eq(&format!("{} {reply}", status.as_u16()));
}

/// A clock that nobody should have asked.
struct Broken;

impl Clock for Broken {
    fn now(&self) -> Timestamp {
        panic!("this clock is broken, as the test wants it");
    }
}

#[tokio::test]
async fn a_panic_fails_its_invocation_and_nobody_elses() {
    let good = TestPlatform::new();
    let broken = Platform { clock: Arc::new(Broken), ..good.platform.clone() };
    let router = router(&broken);
    let body = Body::from(invocation(&deploy("deploy-1", "1.4.1")).to_string());
    let (status, reply) = post(router.clone(), "Deploy", body).await;
    expect![[
        r#"500 {"error":"The function stopped in a state that should be impossible; the log has the place."}"#
    ]]
    .assert_eq(&format!("{} {reply}", status.as_u16()));
    let request = Request::get("/").body(Body::empty()).unwrap();
    assert_eq!(router.oneshot(request).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn the_host_is_answered_before_the_platform_is_there() {
    let (_sender, ready) = watch::channel(None);
    let request = Request::get("/").body(Body::empty()).unwrap();
    assert_eq!(server::router(ready).oneshot(request).await.unwrap().status(), StatusCode::OK);
}
