//! What operators see of the platform itself: its outbox and its sweeps.

use expect_test::expect;
use runtime_platform::{
    invocation::{HttpAnswer, HttpRequest},
    sweeps,
};
use serde_json::json;

use super::story::serving;
use crate::support::{
    builders::{TENANT, deploy, environment},
    faulty::When,
    test_platform::OPERATOR,
};

#[tokio::test]
async fn what_cannot_be_sent_is_seen_in_the_outbox_by_whom_it_concerns() {
    let mut platform = serving().await;
    assert_eq!(platform.ask("Outbox", TENANT, &[]).await.body["items"], json!([]));
    platform.trouble.die_at_commit(platform.trouble.commits() + 1, When::After);
    platform.send(&deploy("deploy-2", "1.4.2"));
    platform.happen().await;
    platform.clock.advance(std::time::Duration::from_secs(7));
    let seen = platform.ask("Outbox", TENANT, &[]).await;
    let told = |item: &serde_json::Value| {
        format!("{} to {} {} for {} s", item["kind"], item["to"], item["eventType"], item["ageSeconds"])
    };
    let items: Vec<_> = seen.body["items"].as_array().unwrap().iter().map(told).collect();
    expect![[r#"
        1 1 true [
            "\"event\" to \"runtime.deployment\" \"RuntimeDeploymentRequested\" for 7 s",
            "\"message\" to \"continue-operation\" null for 7 s",
        ]"#]]
    .assert_eq(&format!(
        "{} {} {} {:#?}",
        seen.body["events"], seen.body["messages"], seen.body["complete"], items
    ));
    assert!(!seen.body.to_string().contains("1.4.2"), "no body is shown: {}", seen.body);
    assert_eq!(platform.ask("Outbox", "globex", &[]).await.body["items"], json!([]));
    let all = |key: &str| HttpRequest {
        headers: [("x-cs-tenant-id".to_owned(), "globex".to_owned())].into(),
        query: [("all".to_owned(), "true".to_owned())].into(),
        key_name: Some(key.to_owned()),
        ..HttpRequest::default()
    };
    assert_eq!(platform.request("Outbox", all("a-tenants-key")).await.status, 403);
    assert_eq!(platform.request("Outbox", all(OPERATOR)).await.body["items"], seen.body["items"]);
    platform.run_until_quiet().await;
    assert_eq!(platform.ask("Outbox", TENANT, &[]).await.body["items"], json!([]));
}

#[tokio::test]
async fn sweeps_are_seen_by_their_tenant_and_those_of_the_timers_by_operators() {
    let mut platform = serving().await;
    sweeps::start(&platform.platform, sweeps::Kind::Rotation).await.unwrap();
    platform.run_until_quiet().await;
    let request = |key: &str, query: &[(&str, &str)]| HttpRequest {
        headers: [("x-cs-tenant-id".to_owned(), TENANT.to_owned())].into(),
        query: query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        key_name: Some(key.to_owned()),
        ..HttpRequest::default()
    };
    let told = |answer: &HttpAnswer| {
        let items = answer.body["items"].as_array().unwrap().iter();
        items.map(|item| format!("{} {}", item["environmentId"], item["kind"])).collect::<Vec<_>>()
    };
    let own = format!("\"{}\" \"Rotation\"", environment());
    let seen = platform.request("Sweeps", request("a-tenants-key", &[])).await;
    assert_eq!(told(&seen), [own.clone()]);
    let seen = platform.request("Sweeps", request(OPERATOR, &[])).await;
    assert_eq!(told(&seen), ["\"_\" \"Rotation\"".to_owned(), own]);
    let seen = platform.request("Sweeps", request(OPERATOR, &[("kind", "drift")])).await;
    assert_eq!(told(&seen), Vec::<String>::new());
    let wrong = platform.request("Sweeps", request(OPERATOR, &[("kind", "tea")])).await;
    assert_eq!((wrong.status, wrong.body["code"].as_str()), (400, Some("KindUnknown")));
}
