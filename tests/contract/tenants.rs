//! Another tenant's thing does not exist: every HTTP function that reads is asked for every id that
//! there is, in the name of somebody else.

use std::collections::{BTreeMap, BTreeSet};

use runtime_platform::{
    functions::{self, Trigger},
    holds::HoldScope,
    invocation::{HttpAnswer, HttpRequest},
    sweeps,
};
use serde_json::{Value, json};

use crate::scenario::holds::hold;
use crate::support::{
    builders::{Order, TENANT, bind, bind_secret, deploy, provision, publish_configuration},
    test_platform::TestPlatform,
};

/// A tenant that has nothing and is bound to nothing.
const STRANGER: &str = "globex";
/// It tells nothing of any tenant.
const OF_NOBODY: [&str; 1] = ["Health"];
/// What the story below makes one of, so that its owner must find it.
const MADE: [&str; 9] = [
    "Environments",
    "Deployments",
    "Operations",
    "Configurations",
    "SecretBindings",
    "Plans",
    "TenantBindings",
    "Commands",
    "Events",
];

/// A platform in which there is one of everything.
async fn furnished() -> TestPlatform {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    platform.run(&bind("bind-1", "acme", "shared")).await;
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    platform.run(&publish_configuration("publish-1", json!({ "LOG_LEVEL": "debug" }))).await;
    platform.run(&bind_secret("secret-1", "db-password")).await;
    platform.run(&Order { body: Some(b"{".to_vec()), ..deploy("deploy-2", "1.4.2") }).await;
    hold(&platform, HoldScope::Workload, 45).await;
    for kind in sweeps::Kind::ALL {
        sweeps::start(&platform.platform, kind).await.unwrap();
    }
    platform.run_until_quiet().await;
    platform
}

async fn ask(platform: &TestPlatform, name: &str, tenant: Option<&str>, id: Option<&str>) -> HttpAnswer {
    let headers: BTreeMap<_, _> =
        tenant.map(|tenant| ("x-cs-tenant-id".to_owned(), tenant.to_owned())).into_iter().collect();
    let params = id.map(|id| ("id".to_owned(), id.to_owned())).into_iter().collect();
    platform
        .request(name, HttpRequest { method: "GET".into(), headers, params, ..HttpRequest::default() })
        .await
}

/// Every text of a member that is called an id.
fn ids(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    // Names of Azure's resources are no ids of ours.
                    Value::String(text) if name.ends_with("Id") && !text.contains('/') => {
                        found.insert(text.clone());
                    }
                    other => ids(other, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| ids(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The functions that read, and whether one thing and whether a list is asked of them.
fn reading() -> Vec<(&'static str, bool, bool)> {
    let reading = functions::all().into_iter().filter_map(|function| match function.trigger {
        Trigger::Http { method: "get", route } => {
            Some((function.name, route.contains("{id"), !route.contains("{id}")))
        }
        Trigger::Http { .. } | Trigger::Queue(_) | Trigger::Subscription { .. } | Trigger::Timer(_) => None,
    });
    reading.filter(|(name, ..)| !OF_NOBODY.contains(name)).collect()
}

#[tokio::test]
async fn another_tenants_thing_does_not_exist() {
    let platform = furnished().await;
    let mut known = BTreeSet::new();
    for (name, _, listed) in reading() {
        if listed {
            let own = ask(&platform, name, Some(TENANT), None).await;
            assert_eq!(own.status, 200, "{name}: {}", own.body);
            ids(&own.body, &mut known);
            let others = ask(&platform, name, Some(STRANGER), None).await;
            assert_eq!((others.status, &others.body["items"]), (200, &json!([])), "{name}");
        }
    }
    assert!(known.len() > 20, "{known:?}");
    for (name, one, _) in reading().into_iter().filter(|(_, one, _)| *one) {
        assert!(one);
        let mut found = false;
        for id in &known {
            found |= ask(&platform, name, Some(TENANT), Some(id)).await.status == 200;
            let others = ask(&platform, name, Some(STRANGER), Some(id)).await;
            assert_eq!(others.status, 404, "{name} {id}: {}", others.body);
            let detail = others.body["detail"].as_str().unwrap_or_default().replace(id, "");
            assert!(!detail.contains(TENANT), "{name} {id}: {detail}");
        }
        assert!(found || !MADE.contains(&name), "{name} finds nothing for its owner either");
    }
}

#[tokio::test]
async fn nobody_reads_without_saying_for_whom_and_no_foreign_place_begins_a_page() {
    let platform = furnished().await;
    for (name, one, listed) in reading() {
        let id = one.then_some("x-1");
        for tenant in [None, Some("_platform"), Some("")] {
            let answer = ask(&platform, name, tenant, id).await;
            assert_eq!(answer.status, 400, "{name} for {tenant:?}: {}", answer.body);
            assert_eq!(answer.body["type"], "about:blank", "{name}");
        }
        if listed && name != "Outbox" {
            let answer = platform.ask(name, TENANT, &[("after", "2026-03-02T10:15:30Z~nowhere")]).await;
            assert_eq!((answer.status, &answer.body["code"]), (400, &json!("CursorInvalid")), "{name}");
        }
    }
}
