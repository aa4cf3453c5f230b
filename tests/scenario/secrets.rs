//! Secrets: bound in a version, and handed to a workload by reference.

use expect_test::expect;
use runtime_platform::ports::{clock::Clock, compute::SecretEntry, vault::SecretRef};
use serde_json::json;

use super::story::serving;
use crate::support::{
    builders::{bind_secret as bind, deploy, provision, publish_configuration as publish, vault},
    faulty::When,
    test_platform::TestPlatform,
};

fn secret(name: &str) -> SecretRef {
    SecretRef { vault_uri: vault(), name: name.into() }
}

/// Variables and the versions behind them, as what serves was started with.
fn read(platform: &TestPlatform) -> Vec<(String, String)> {
    let told =
        |entry: SecretEntry| (entry.variable, entry.key_vault_url.rsplit('/').next().unwrap().to_owned());
    platform.compute.serving("reservations-api").unwrap().secrets.into_iter().map(told).collect()
}

fn pair(variable: &str, version: &str) -> (String, String) {
    (variable.to_owned(), version.to_owned())
}

#[tokio::test]
async fn a_workload_that_serves_is_refreshed_with_its_secret() {
    let mut platform = serving().await;
    let place = platform.mark();
    platform.run(&bind("bind-1", "db-password")).await;
    expect![[r#"
        10:15:09 > BindSecret bind-1
        10:15:09 SecretBound sb-f408ad28 db-password generated1 <- bind-1
        10:15:09 RuntimeDeploymentRequested dep-4dbb3a7c reservations-api:1.4.1 over reservations-api:1.4.1 <- SecretBound
        10:15:09 ~ stage reservations-api--d4dbb3a7c acr.azurecr.io/reservations-api:1.4.1
        10:15:13 ~ shift reservations-api to reservations-api--d4dbb3a7c=10 reservations-api--d9c2595bb=90
        10:15:16 ~ shift reservations-api to reservations-api--d4dbb3a7c=50 reservations-api--d9c2595bb=50
        10:15:19 ~ shift reservations-api to reservations-api--d4dbb3a7c=100
        10:15:22 ~ deactivate reservations-api--d9c2595bb
        10:15:22 RuntimeDeploymentCompleted dep-4dbb3a7c reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.outcome("bind-1").await, ("Completed".into(), "SecretBound".into()));
    let serving = platform.compute.serving("reservations-api").unwrap();
    let identity_id = serving.secrets[0].identity_id.clone();
    assert!(identity_id.contains("userAssignedIdentities"), "{identity_id}");
    let key_vault_url = format!("{}/secrets/db-password/generated1", vault());
    assert_eq!(serving.secrets, [SecretEntry { variable: "DB_PASSWORD".into(), key_vault_url, identity_id }]);
}

#[tokio::test]
async fn a_binding_made_before_the_first_deployment_is_what_that_starts_with() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    platform.vault.put(&secret("db-password"), "theirs1");
    platform.run(&bind("bind-1", "db-password").with("/source", json!("External"))).await;
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    assert_eq!(read(&platform), [pair("DB_PASSWORD", "theirs1")]);
}

#[tokio::test]
async fn a_configuration_names_the_variables_of_secrets() {
    let mut platform = serving().await;
    platform.run(&bind("bind-1", "db-password")).await;
    let binding = platform.get("SecretBindings", None).await.body["items"][0]["secretBindingId"].clone();
    let mut order = publish("publish-1", json!({ "LOG_LEVEL": "debug" }));
    order.payload["secretRefs"] = json!({ "PGPASSWORD": binding });
    platform.run(&order).await;
    assert_eq!(read(&platform), [pair("PGPASSWORD", "generated1")]);
}

#[tokio::test]
async fn a_role_that_does_not_count_yet_is_waited_for() {
    let mut platform = serving().await;
    platform.vault.forbid(3);
    platform.run(&bind("bind-1", "db-password")).await;
    assert_eq!(platform.outcome("bind-1").await, ("Completed".into(), "SecretBound".into()));
    platform.vault.forbid(u32::MAX);
    platform.run(&bind("bind-2", "other")).await;
    assert_eq!(platform.outcome("bind-2").await, ("Failed".into(), "RuntimeCommandFailed".into()));
}

#[tokio::test]
async fn nothing_is_bound_for_an_identity_without_the_role_that_reads() {
    let mut platform = serving().await;
    let world = platform.infrastructure.world();
    let (role, body) =
        world.iter().find(|(id, _)| id.contains("/vaults/") && id.contains("roleAssignments")).unwrap();
    platform.infrastructure.meddle(role, None);
    platform.send(&bind("bind-1", "db-password"));
    platform
        .run_until("looking", |it| {
            it.clock.now() > "2026-03-02T10:25:00Z".parse::<jiff::Timestamp>().unwrap()
        })
        .await;
    assert_eq!(platform.vault.count(&secret("db-password")), 0);
    // Somebody assigns it while the binding waits.
    platform.infrastructure.meddle(role, Some(body.clone()));
    platform.run_until_quiet().await;
    assert_eq!(platform.outcome("bind-1").await, ("Completed".into(), "SecretBound".into()));
    platform.infrastructure.meddle(role, None);
    platform.run(&bind("bind-2", "other")).await;
    let failed = platform.last("RuntimeCommandFailed");
    expect!["`/subscriptions/00000000-0000-0000-0000-00000000c105/resourceGroups/rg-connectsoft-test-f94dfe7f4026/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-f94dfe7f4026` has no role that reads secrets in `https://kv-95150196cd1a5f4e8cc1.vault.azure.net`. Assign it `Key Vault Secrets User` there, or send ProvisionEnvironment, which does, and send BindSecret again."].assert_eq(failed["detail"].as_str().unwrap());
}

#[tokio::test]
async fn a_binding_that_is_bound_again_keeps_its_version() {
    let mut platform = serving().await;
    platform.vault.put(&secret("db-password"), "theirs1");
    let external = |id: &str| bind(id, "db-password").with("/source", json!("External"));
    platform.run(&external("bind-1")).await;
    platform.vault.put(&secret("db-password"), "theirs2");
    platform.run(&external("bind-2").with("/rotationIntervalDays", json!(30))).await;
    assert_eq!(read(&platform), [pair("DB_PASSWORD", "theirs1")]);
    let binding = platform.get("SecretBindings", None).await.body["items"][0].clone();
    assert_eq!(binding["rotationIntervalDays"], 30);
    assert_eq!(binding["nextRotationDueAt"], "2026-04-01T10:15:09Z");
}

#[tokio::test]
async fn a_secret_is_made_once_whatever_dies() {
    for commit in 0..10 {
        let mut platform = serving().await;
        platform.trouble.die_at_commit(platform.trouble.commits() + commit * 2 + 1, When::After);
        platform.run(&bind("bind-1", "db-password")).await;
        assert_eq!(platform.vault.count(&secret("db-password")), 1);
        assert_eq!(read(&platform), [pair("DB_PASSWORD", "generated1")]);
    }
}

#[tokio::test]
async fn what_cannot_be_bound_is_said_with_a_remedy() {
    let mut platform = serving().await;
    platform.run(&bind("bind-1", "db-password")).await;
    let place = platform.mark();
    platform.run(&bind("bind-2", "db-password")).await;
    platform.run(&bind("bind-3", "api-key").with("/source", json!("External"))).await;
    platform
        .run(&bind("bind-4", "api-key").with("/vaultUri", json!("https://kv-other.vault.azure.net")))
        .await;
    platform.run(&bind("bind-5", "api-key").with("/environmentId", json!("env-00000000"))).await;
    platform.run(&bind("bind-6", "api-key").with("/source", json!("hunter2"))).await;
    expect![[r#"
        10:15:22 > BindSecret bind-2
        10:15:22 RuntimeCommandCompleted bind-2 NoChange: `module-reservations-api` is bound to `db-password` as `sb-f408ad28` already, in version generated1. <- bind-2
        10:15:22 > BindSecret bind-3
        10:15:22 RuntimeCommandFailed bind-3 Failed Conflict: There is no enabled secret `api-key` with a value in `https://kv-95150196cd1a5f4e8cc1.vault.azure.net`. Put it there and send BindSecret again, or send source `Generated`. <- bind-3
        10:15:22 > BindSecret bind-4
        10:15:22 RuntimeCommandFailed bind-4 Rejected NotSupported: payload.vaultUri: `https://kv-other.vault.azure.net` is not the vault of `env-cc58147b`, which is `kv-95150196cd1a5f4e8cc1`; workloads may read there alone. Put the secret into that vault. <- bind-4
        10:15:22 > BindSecret bind-5
        10:15:22 RuntimeCommandFailed bind-5 Rejected EnvironmentNotFound: There is no environment `env-00000000`. Send ProvisionEnvironment first, or correct payload.environmentId; `runtimectl get environments` lists those there are. <- bind-5
        10:15:22 > BindSecret bind-6
        10:15:22 RuntimeCommandFailed bind-6 Rejected InvalidPayload: payload.source: it must be `Generated` or `External`. Correct the field and send the command with a new eventId. <- bind-6
    "#]].assert_eq(&platform.transcript_since(place));
    let bindings = platform.get("SecretBindings", None).await.body;
    let told: Vec<_> = bindings["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["secretName"].clone(), it["status"].clone()))
        .collect();
    assert_eq!(told, [(json!("api-key"), json!("Failed")), (json!("db-password"), json!("Active"))]);
}
