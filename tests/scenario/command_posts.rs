//! Commands over HTTP: the same messages, the same ends, and once however often they are posted.

use std::collections::BTreeMap;

use expect_test::expect;
use runtime_platform::{
    invocation::{HttpAnswer, HttpRequest},
    ports::clock::Clock,
};
use serde_json::{Value, json};

use super::story::serving;
use crate::support::{
    builders::{MODULE, TENANT, bind, bind_secret, deploy, environment, provision, publish_configuration},
    faulty::When,
    test_platform::TestPlatform,
};

fn told(answer: &HttpAnswer) -> String {
    let place = answer.location.as_deref().unwrap_or("-");
    format!("{} {place} {}", answer.status, answer.body)
}

fn code(answer: &HttpAnswer) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or("-"))
}

async fn deployment(platform: &TestPlatform) -> String {
    let listed = platform.get("Deployments", None).await;
    listed.body["items"][0]["deploymentId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_environment_a_workload_and_its_rollback_over_http_alone() {
    let mut platform = TestPlatform::new();
    let accepted =
        platform.post_command("PostProvisionEnvironment", None, provision("-").payload, "key-1").await;
    expect![[r#"202 /api/v1/runtime/commands/evt-10c915d2-2d1b-57e5-85a4-e2190100d529 {"eventId":"evt-10c915d2-2d1b-57e5-85a4-e2190100d529","commandType":"ProvisionEnvironment","status":"Sent","environmentId":null,"correlationId":"corr-10c915d2","traceId":"trace-10c915d2","see":"/api/v1/runtime/commands/evt-10c915d2-2d1b-57e5-85a4-e2190100d529"}"#]].assert_eq(&told(&accepted));
    let id = accepted.body["eventId"].as_str().unwrap().to_owned();
    assert_eq!(platform.outcome(&id).await, ("Sent".into(), "-".into()));
    platform.run_until_quiet().await;
    assert_eq!(platform.outcome(&id).await, ("Completed".into(), "RuntimeEnvironmentProvisioned".into()));

    for (name, body) in [
        ("PostBindTenant", bind("-", "acme", "shared").payload),
        ("PostDeploy", deploy("-", "1.4.1").payload),
        ("PostPublishConfiguration", publish_configuration("-", json!({ "LOG_LEVEL": "debug" })).payload),
        ("PostBindSecret", bind_secret("-", "db-password").payload),
        ("PostRotateSecret", json!({ "reason": "Manual" })),
        ("PostDeploy", deploy("-", "1.4.2").payload),
    ] {
        let key = format!("{name} at {}", platform.clock.now());
        let bindings = platform.get("SecretBindings", None).await;
        let binding = bindings.body["items"][0]["secretBindingId"].as_str();
        let id = binding.filter(|_| name == "PostRotateSecret");
        let accepted = platform.post_command(name, id, body, &key).await;
        assert_eq!(accepted.status, 202, "{name}: {}", accepted.body);
        platform.run_until_quiet().await;
        let (status, event) = platform.outcome(accepted.body["eventId"].as_str().unwrap()).await;
        assert_eq!(status, "Completed", "{name} ended in {event}");
    }
    assert_eq!(platform.traffic(), ["1.4.2=100"]);

    let newest = deployment(&platform).await;
    let back = json!({ "reason": "too slow" });
    let accepted = platform.post_command("PostRollbackDeployment", Some(&newest), back, "key-9").await;
    assert_eq!(accepted.body["environmentId"], environment().to_string());
    platform.run_until_quiet().await;
    assert_eq!(platform.traffic(), ["1.4.1=100"]);

    let listed = platform.ask("Commands", TENANT, &[]).await;
    let items = listed.body["items"].as_array().unwrap();
    let types: Vec<_> = items.iter().map(|item| item["commandType"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        [
            "RollbackDeployment",
            "Deploy",
            "RotateSecret",
            "BindSecret",
            "PublishConfiguration",
            "Deploy",
            "BindTenant",
            "ProvisionEnvironment"
        ]
    );
    assert!(items.iter().all(|item| item["status"] == "Completed"), "{}", listed.body);
    let deploys = platform.ask("Commands", TENANT, &[("commandType", "Deploy")]).await;
    assert_eq!(deploys.body["items"].as_array().unwrap().len(), 2);
    let unknown = platform.ask("Commands", TENANT, &[("commandType", "Dance")]).await;
    assert_eq!(code(&unknown), (400, "CommandTypeInvalid"));
}

#[tokio::test]
async fn a_post_that_is_sent_again_is_one_command_and_its_key_is_for_no_other() {
    let mut platform = serving().await;
    let body = deploy("-", "1.4.2").payload;
    let first = platform.post_command("PostDeploy", None, body.clone(), "key-1").await;
    let again = platform.post_command("PostDeploy", None, body.clone(), "key-1").await;
    assert_eq!(first, again);
    assert_eq!(platform.broker.waiting().len(), 1);
    platform.run_until_quiet().await;
    assert_eq!(platform.post_command("PostDeploy", None, body, "key-1").await, first);
    platform.run_until_quiet().await;
    assert_eq!(platform.deployments(), ["1.4.1 Completed", "1.4.2 Completed"]);
    let other = platform.post("PostDeploy", None, deploy("-", "1.4.3").payload, Some("key-1")).await;
    assert_eq!(code(&other), (422, "IdempotencyKeyReused"));
    // Another command may have the same key: it is another request.
    let newest = deployment(&platform).await;
    let back = json!({ "reason": "too slow" });
    let other = platform.post_command("PostRollbackDeployment", Some(&newest), back, "key-1").await;
    assert_eq!(other.status, 202);
    platform.run_until_quiet().await;
}

#[tokio::test]
async fn an_answer_outlives_the_process() {
    for when in [When::Before, When::After] {
        let mut platform = serving().await;
        let body = deploy("-", "1.4.2").payload;
        platform.trouble.die_at_commit(platform.trouble.commits() + 1, when);
        let lost = platform.post("PostDeploy", None, body.clone(), Some("key-1")).await;
        assert!(platform.trouble.is_dead() && lost.status == 503, "the process dies at the commit");
        platform.trouble.revive();
        // The caller got no answer, and asks again.
        let accepted = platform.post_command("PostDeploy", None, body, "key-1").await;
        assert_eq!(accepted.status, 202);
        platform.run_until_quiet().await;
        assert_eq!(platform.deployments(), ["1.4.1 Completed", "1.4.2 Completed"], "{when:?}");
    }
}

#[tokio::test]
async fn what_the_headers_say_is_in_the_envelope() {
    let mut platform = serving().await;
    let mut headers: BTreeMap<String, String> = [
        ("x-cs-tenant-id", TENANT),
        ("x-cs-project-id", "proj-1"),
        ("x-cs-module-id", "module-1"),
        ("x-cs-trace-id", "trace-9"),
        ("x-cs-correlation-id", "corr-9"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("idempotency-key", "key-1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let body = Some(deploy("-", "1.4.2").payload.to_string());
    let request =
        HttpRequest { method: "POST".into(), headers: headers.clone(), body, ..HttpRequest::default() };
    assert_eq!(platform.request("PostDeploy", request.clone()).await.status, 202);
    let number = platform.broker.ready()[0];
    let held = platform.broker.take(number);
    let envelope: Value = serde_json::from_slice(&held.message.body).unwrap();
    let member = |name: &str| envelope[name].as_str().unwrap().to_owned();
    assert_eq!(
        ["projectId", "moduleId", "traceId", "correlationId"].map(member),
        ["proj-1", "module-1", "trace-9", "corr-9"]
    );
    assert_eq!(
        held.message.properties.get("traceparent").map(String::as_str),
        Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    );
    headers.insert("x-cs-trace-id".into(), "é".into());
    let wrong = platform.request("PostDeploy", HttpRequest { headers, ..request }).await;
    assert_eq!(code(&wrong), (400, "HeaderInvalid"));
    platform.tidy = false; // The message was taken away.
}

#[tokio::test]
async fn what_has_not_the_shape_of_its_command_is_refused_at_once() {
    let platform = serving().await;
    let newest = deployment(&platform).await;
    for (name, id, body, wanted) in [
        ("PostDeploy", None, json!({}), (400, "PayloadInvalid")),
        ("PostDeploy", None, json!([]), (400, "BodyInvalid")),
        ("PostBindTenant", None, json!({ "environmentId": 7 }), (400, "PayloadInvalid")),
        ("PostRollbackDeployment", Some(newest.as_str()), json!({}), (400, "PayloadInvalid")),
        ("PostRollbackDeployment", Some("dep-0"), json!({ "reason": "x" }), (404, "NotFound")),
        ("PostRotateSecret", Some("sb-0"), json!({ "reason": "Manual" }), (404, "NotFound")),
        ("PostRemediateDrift", Some("drift-0"), json!({}), (404, "NotFound")),
        (
            "PostRollbackDeployment",
            Some(newest.as_str()),
            json!({ "reason": "x", "environmentId": "env-1" }),
            (400, "BodyInvalid"),
        ),
    ] {
        let answer = platform.post(name, id, body.clone(), None).await;
        assert_eq!(code(&answer), wanted, "{name} {body}: {}", answer.body);
    }
    let answer = platform.post("PostDeploy", None, json!({ "environmentId": "env-1" }), None).await;
    expect!["The body: missing field `workloads`."].assert_eq(answer.body["detail"].as_str().unwrap());
    let large = json!({ "environmentId": environment(), "settings": { "A": "x".repeat(200_000) } });
    assert_eq!(code(&platform.post("PostPublishConfiguration", None, large, None).await), (413, "TooLarge"));
    let headers = [("x-cs-tenant-id".to_owned(), TENANT.to_owned())].into();
    let body = Some(provision("-").payload.to_string());
    let request = HttpRequest { headers, body, ..HttpRequest::default() };
    assert_eq!(code(&platform.request("PostProvisionEnvironment", request).await), (400, "ProjectMissing"));
    assert_eq!(platform.broker.waiting(), Vec::<String>::new(), "nothing was sent");
}

#[tokio::test]
async fn what_the_command_refuses_is_told_where_the_answer_points() {
    let mut platform = serving().await;
    let body = deploy("-", "1.4.2").with("/environmentId", "env-00000000".into()).payload;
    let accepted = platform.post_command("PostDeploy", None, body, "key-1").await;
    platform.run_until_quiet().await;
    let told = platform.get("Commands", accepted.body["eventId"].as_str()).await;
    assert_eq!((&told.body["status"], &told.body["ended"]), (&json!("Rejected"), &json!(true)));
    assert_eq!(told.body["outcome"]["payload"]["reasonCode"], "EnvironmentNotFound");
    assert_eq!(told.body["commandType"], "Deploy");
    assert_eq!(MODULE, platform.events().last().unwrap().envelope.module_id.as_ref().unwrap().as_str());
}
