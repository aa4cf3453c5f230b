//! The Resource Manager stand-in, asked as any client would: ids, versions, tokens, etags, errors,
//! operations, restarts.

mod apps;
mod bench;
mod ingress;
mod metrics;
mod registry;
mod scaling;
mod secrets;

use std::time::Duration;

use bench::{Bench, GROUP, SUBSCRIPTION};
use serde_json::{Value, json};

const VAULT: &str = "/subscriptions/s1/resourceGroups/Rg/providers/Microsoft.KeyVault/vaults/kv";
const ENVIRONMENT: &str =
    "/subscriptions/s1/resourceGroups/Rg/providers/Microsoft.App/managedEnvironments/env";

fn vault_body() -> Value {
    json!({ "location": "westeurope", "tags": { "a": "1" }, "properties": { "enableRbacAuthorization": true } })
}

#[tokio::test]
async fn a_call_needs_a_token_and_a_version_that_is_known() {
    let bench = Bench::new().await;
    let refused = bench.send_as(None, "GET", &format!("{GROUP}?api-version=2024-03-01"), &[], None).await;
    assert_eq!((refused.status, refused.code()), (401, "InvalidAuthenticationToken"));
    assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer "));
    let refused = bench.send("GET", GROUP, None).await;
    assert_eq!((refused.status, refused.code()), (400, "MissingApiVersionParameter"));
    let refused = bench.send("GET", &format!("{GROUP}?api-version=1999-01-01"), None).await;
    assert_eq!((refused.status, refused.code()), (400, "NoRegisteredProviderFound"));
    let refused = bench.get(&format!("{GROUP}/providers/Microsoft.Nope/things/x")).await;
    assert_eq!((refused.status, refused.code()), (404, "InvalidResourceType"));
}

#[tokio::test]
async fn a_resource_needs_its_parent_and_its_location() {
    let bench = Bench::new().await;
    let refused = bench.put(VAULT, vault_body()).await;
    assert_eq!((refused.status, refused.code()), (404, "ResourceGroupNotFound"));
    bench.group().await;
    let refused = bench
        .put(&format!("{GROUP}/providers/Microsoft.Network/virtualNetworks/v/subnets/s"), json!({}))
        .await;
    assert_eq!((refused.status, refused.code()), (404, "ParentResourceNotFound"));
    let refused = bench.put(VAULT, json!({ "properties": {} })).await;
    assert_eq!((refused.status, refused.code()), (400, "LocationRequired"));
    let refused = bench.get(VAULT).await;
    assert_eq!((refused.status, refused.code()), (404, "ResourceNotFound"));
    let refused = bench.put(GROUP, json!({ "location": "northeurope" })).await;
    assert_eq!((refused.status, refused.code()), (409, "InvalidResourceLocation"));
}

#[tokio::test]
async fn ids_have_no_case_and_keep_the_one_they_were_first_written_in() {
    let bench = Bench::new().await;
    bench.group().await;
    let lower = VAULT.to_lowercase();
    assert_eq!(bench.put(&lower.replace("/kv", "/Kv"), vault_body()).await.status, 201);
    bench.pass(Duration::from_secs(2));
    let again = bench.put(VAULT, vault_body()).await;
    assert_eq!(again.status, 200);
    assert_eq!(
        again.body["id"],
        json!("/subscriptions/s1/resourceGroups/Rg/providers/Microsoft.KeyVault/vaults/Kv")
    );
    assert_eq!(bench.get(&VAULT.to_uppercase().replace("KV", "kV")).await.body["name"], json!("Kv"));
}

#[tokio::test]
async fn what_the_server_writes_the_caller_cannot() {
    let bench = Bench::new().await;
    bench.group().await;
    let mut body = vault_body();
    body["id"] = json!("nonsense");
    body["properties"]["vaultUri"] = json!("https://elsewhere/");
    body["properties"]["provisioningState"] = json!("Odd");
    bench.put(VAULT, body).await;
    bench.pass(Duration::from_secs(2));
    let mut found = bench.get(VAULT).await.body;
    found.as_object_mut().unwrap().remove("systemData").unwrap();
    let tenant = found["properties"]["tenantId"].clone();
    assert_eq!(
        found,
        json!({
            "id": VAULT, "name": "kv", "type": "Microsoft.KeyVault/vaults", "location": "westeurope", "tags": { "a": "1" },
            "properties": {
                "provisioningState": "Succeeded", "vaultUri": "https://kv.vault.localhost/", "enableRbacAuthorization": true,
                "tenantId": tenant, "sku": { "family": "A", "name": "standard" }, "accessPolicies": [],
                "enabledForDeployment": false, "enableSoftDelete": true, "softDeleteRetentionInDays": 90,
                "publicNetworkAccess": "Enabled",
            },
        })
    );
}

#[tokio::test]
async fn a_patch_merges_and_etags_guard() {
    let bench = Bench::new().await;
    bench.group().await;
    bench.put(VAULT, vault_body()).await;
    bench.pass(Duration::from_secs(2));
    let etag = bench.get(VAULT).await.header("etag").unwrap();
    let url = format!("{VAULT}?api-version=2024-11-01");
    let patched = bench
        .send_with("PATCH", &url, &[("if-match", &etag)], Some(json!({ "tags": { "a": null, "b": "2" } })))
        .await;
    assert_eq!((patched.status, &patched.body["tags"]), (200, &json!({ "b": "2" })));
    let stale = bench.send_with("PUT", &url, &[("if-match", &etag)], Some(vault_body())).await;
    assert_eq!((stale.status, stale.code()), (412, "PreconditionFailed"));
    let there = bench.send_with("PUT", &url, &[("if-none-match", "*")], Some(vault_body())).await;
    assert_eq!((there.status, there.code()), (412, "PreconditionFailed"));
}

#[tokio::test]
async fn an_operation_is_followed_at_the_host_that_was_asked_and_blocks_others() {
    let bench = Bench::new().await;
    bench.group().await;
    let created = bench.put(ENVIRONMENT, json!({ "location": "West Europe" })).await;
    assert_eq!(
        (created.status, &created.body["properties"]["provisioningState"]),
        (201, &json!("InProgress"))
    );
    let poll = created.header("azure-asyncoperation").unwrap();
    assert!(poll.starts_with("https://asked.example:77/subscriptions/s1/providers/Microsoft.App/locations/westeurope/operationStatuses/"));
    assert_eq!(created.header("retry-after").as_deref(), Some("1"));
    let busy = bench.put(ENVIRONMENT, json!({ "location": "westeurope" })).await;
    assert_eq!((busy.status, busy.code()), (409, "ManagedEnvironmentOperationInProgress"));
    let path = poll.strip_prefix("https://asked.example:77").unwrap();
    assert_eq!(bench.send("GET", path, None).await.body["status"], json!("InProgress"));
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.send("GET", path, None).await.body["status"], json!("Succeeded"));
    let environment = bench.get(ENVIRONMENT).await.body;
    assert_eq!(environment["properties"]["provisioningState"], json!("Succeeded"));
    assert!(environment["properties"]["defaultDomain"].as_str().unwrap().ends_with(".apps.localhost"));
}

#[tokio::test]
async fn an_operation_goes_on_over_a_restart() {
    let bench = Bench::new().await;
    bench.group().await;
    let poll = bench
        .put(ENVIRONMENT, json!({ "location": "westeurope" }))
        .await
        .header("azure-asyncoperation")
        .unwrap();
    let path = poll.strip_prefix("https://asked.example:77").unwrap().to_owned();
    let bench = bench.restart().await;
    assert_eq!(bench.send("GET", &path, None).await.body["status"], json!("InProgress"));
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.send("GET", &path, None).await.body["status"], json!("Succeeded"));
    assert_eq!(bench.get(ENVIRONMENT).await.body["properties"]["provisioningState"], json!("Succeeded"));
}

#[tokio::test]
async fn a_group_goes_with_all_that_is_in_it() {
    let bench = Bench::new().await;
    bench.group().await;
    bench.put(VAULT, vault_body()).await;
    bench.pass(Duration::from_secs(2));
    let assignment = format!(
        "{VAULT}/providers/Microsoft.Authorization/roleAssignments/{}",
        "11111111-1111-1111-1111-111111111111"
    );
    let role = json!({ "properties": { "roleDefinitionId": "/r", "principalId": "p" } });
    assert_eq!(bench.put(&assignment, role.clone()).await.status, 201);
    let twin = bench.put(&assignment.replace("1111-1111-", "1111-2222-"), role.clone()).await;
    assert_eq!((twin.status, twin.code()), (409, "RoleAssignmentExists"));
    assert_eq!(bench.put(&assignment, role).await.status, 200);

    let listed = bench.send("GET", &format!("{GROUP}/resources?api-version=2024-03-01"), None).await;
    assert_eq!(listed.names(), ["kv", "11111111-1111-1111-1111-111111111111"]);

    let deleted = bench.send("DELETE", &format!("{GROUP}?api-version=2024-03-01"), None).await;
    assert_eq!(deleted.status, 202);
    let location = deleted.header("location").unwrap();
    let path = location.strip_prefix("https://asked.example:77").unwrap();
    assert_eq!(bench.send("GET", path, None).await.status, 202);
    let refused = bench.put(&VAULT.replace("/kv", "/kv2"), vault_body()).await;
    assert_eq!((refused.status, refused.code()), (409, "ResourceGroupBeingDeleted"));
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.send("GET", path, None).await.status, 204);
    assert_eq!(bench.send("HEAD", &format!("{GROUP}?api-version=2024-03-01"), None).await.status, 404);
    assert_eq!(bench.get(VAULT).await.code(), "ResourceGroupNotFound");
    let groups =
        bench.send("GET", &format!("{SUBSCRIPTION}/resourceGroups?api-version=2024-03-01"), None).await;
    assert_eq!(groups.body, json!({ "value": [] }));
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let bench = Bench::new().await;
    bench.group().await;
    let identities = format!("{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities");
    for number in 0..101 {
        bench.put(&format!("{identities}/i{number:03}"), json!({ "location": "westeurope" })).await;
    }
    let first = bench.get(&identities).await;
    assert_eq!(first.names().len(), 100);
    let next = first.body["nextLink"].as_str().unwrap();
    let second = bench.send("GET", next.strip_prefix("https://asked.example:77").unwrap(), None).await;
    assert_eq!((second.names(), second.body.get("nextLink")), (vec!["i100".to_owned()], None));
}

#[tokio::test]
async fn an_identity_always_has_the_same_principal() {
    let bench = Bench::new().await;
    bench.group().await;
    let id = format!("{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id");
    let body = json!({ "location": "westeurope" });
    let first = bench.put(&id, body.clone()).await.body["properties"].clone();
    assert!(
        first["principalId"].is_string()
            && first["clientId"].is_string()
            && first["principalId"] != first["clientId"]
    );
    assert_eq!(bench.send("DELETE", &format!("{id}?api-version=2023-01-31"), None).await.status, 200);
    assert_eq!(bench.send("DELETE", &format!("{id}?api-version=2023-01-31"), None).await.status, 204);
    assert_eq!(bench.put(&id, body).await.body["properties"], first);
}

#[tokio::test]
async fn a_fault_refuses_or_loses_the_answer_or_fails_the_operation() {
    let bench = Bench::new().await;
    bench.group().await;
    let fault = |value: Value| serde_json::from_value(json!([value])).unwrap();
    let azure = bench.azure();
    azure
        .inject(fault(json!({ "match": { "method": "PUT" }, "fault": { "kind": "429", "retryAfter": 7 } })))
        .unwrap();
    let throttled = bench.put(VAULT, vault_body()).await;
    assert_eq!((throttled.status, throttled.header("retry-after").as_deref()), (429, Some("7")));
    assert_eq!(bench.get(VAULT).await.status, 404);

    let lost = json!({ "match": { "method": "PUT" }, "when": "after", "fault": { "kind": "500" } });
    azure.inject(fault(lost)).unwrap();
    assert_eq!(bench.put(VAULT, vault_body()).await.status, 500);
    assert_eq!(bench.get(VAULT).await.status, 200);

    let fails = json!({ "match": { "pathContains": "managedenv" },
        "fault": { "kind": "operationFails", "code": "QuotaExceeded", "message": "No." } });
    azure.inject(fault(fails)).unwrap();
    let poll = bench
        .put(ENVIRONMENT, json!({ "location": "westeurope" }))
        .await
        .header("azure-asyncoperation")
        .unwrap();
    bench.pass(Duration::from_secs(2));
    let status = bench.send("GET", poll.strip_prefix("https://asked.example:77").unwrap(), None).await.body;
    assert_eq!(
        (&status["status"], &status["error"]),
        (&json!("Failed"), &json!({ "code": "QuotaExceeded", "message": "No." }))
    );
    assert_eq!(bench.get(ENVIRONMENT).await.body["properties"]["provisioningState"], json!("Failed"));
}

#[tokio::test]
async fn asking_for_faults_over_http_needs_a_token() {
    let bench = Bench::new().await;
    let body = json!([{ "fault": { "kind": "409" } }]);
    let path = "/local/faults";
    assert_eq!(bench.send_as(None, "POST", path, &[], Some(body.clone())).await.status, 401);
    let added = bench.send("POST", path, Some(body)).await;
    assert_eq!(
        added.body,
        json!([{ "match": {}, "times": 1, "skip": 0, "when": "before", "fault": { "kind": "409" } }])
    );
    assert_eq!(bench.put(GROUP, json!({ "location": "westeurope" })).await.status, 409);
    assert_eq!(bench.put(GROUP, json!({ "location": "westeurope" })).await.status, 201);
}
