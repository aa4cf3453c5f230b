//! The part of a pool that a bound tenant has for itself, and what it keeps there.

use expect_test::expect;
use runtime_platform::{
    ids::derive,
    services::{
        deployment_service::RuntimeDeployment, runtime_environment_service::RuntimeEnvironment,
        tenant_runtime_isolation_service::RuntimeTenantBinding,
    },
};
use serde_json::{Value, json};

use crate::support::{
    builders::{Order, bind, bind_secret, deploy, environment, provision, publish_configuration, vault},
    faulty::When,
    test_platform::TestPlatform,
};

const ACME: &str = "acme";
/// What the names of acme's things begin with in the environment of the builders.
const PREFIX: &str = "t07433385";

async fn pool() -> TestPlatform {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1").with("/isolationModel", "pool".into())).await;
    platform
}

async fn refusal(platform: &mut TestPlatform, order: &Order) -> (String, String) {
    platform.run(order).await;
    let told = platform.last("RuntimeCommandFailed");
    let text = |name: &str| told[name].as_str().unwrap().to_owned();
    (text("reasonCode"), text("detail"))
}

/// The address of acme's own vault in the pool.
fn own_vault() -> String {
    let whole = vault();
    let name = whole.trim_start_matches("https://").split('.').next().unwrap();
    let own = derive(&["azure-vault", name, PREFIX]).simple().to_string();
    format!("https://kv-{}.vault.azure.net", &own[..20])
}

/// The workload profiles of the environment's host.
fn profiles(platform: &TestPlatform) -> Vec<String> {
    let world = platform.infrastructure.world();
    let host = world.iter().find(|(id, _)| id.contains("managedEnvironments/")).unwrap().1;
    let profiles = host["properties"]["workloadProfiles"].as_array().unwrap();
    profiles.iter().map(|profile| profile["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_tenant_of_a_pool_runs_as_an_identity_and_on_machines_of_its_own() {
    let mut platform = pool().await;
    let place = platform.mark();
    platform.run(&bind("bind-1", ACME, "pool")).await;
    expect![[r#"
        10:15:05 > BindTenant bind-1
        10:15:05 ~ update container-apps
        10:15:05 ~ create t07433385-identity
        10:15:05 ~ create t07433385-vault
        10:15:06 ~ create t07433385-vault-secrets-user
        10:15:06 ~ create t07433385-registry-pull
        10:15:07 RuntimeTenantBound tb-07433385 env-cc58147b pool Created <- bind-1
    "#]]
    .assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.outcome("bind-1").await, ("Completed".into(), "RuntimeTenantBound".into()));
    assert_eq!(profiles(&platform), ["Consumption", PREFIX]);
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    platform.run(&deploy("deploy-2", "1.4.1").of(ACME)).await;
    let mut runs: Vec<_> = platform
        .states::<RuntimeDeployment>()
        .into_iter()
        .map(|deployment| {
            let target = deployment.compute_target;
            let identity = target.identity_id.rsplit('/').next().unwrap().to_owned();
            (
                deployment.lineage.tenant_id.to_string(),
                identity.starts_with(&format!("id-{PREFIX}")),
                target.workload_profile,
            )
        })
        .collect();
    runs.sort();
    assert_eq!(
        runs,
        [(ACME.to_owned(), true, Some(PREFIX.to_owned())), ("connectsoft".to_owned(), false, None)]
    );
    // Provisioning again leaves the part where it is.
    platform.run(&provision("provision-2").with("/isolationModel", "pool".into())).await;
    assert_eq!(platform.last("RuntimeCommandCompleted")["outcome"], "NoChange");
    assert_eq!(profiles(&platform), ["Consumption", PREFIX]);
}

#[tokio::test]
async fn a_part_that_does_not_come_into_place_binds_nobody_and_is_taken_up_again() {
    let mut platform = pool().await;
    platform.infrastructure.fail(&format!("{PREFIX}-vault"), "no vaults are left");
    let (code, detail) = refusal(&mut platform, &bind("bind-1", ACME, "pool")).await;
    assert_eq!(code, "ProvisioningFailed");
    let expected = format!(
        "The part of `{}` for `acme` did not come into place: {PREFIX}-vault: no vaults are left. What was made stays and is taken up by the next BindTenant.",
        environment()
    );
    assert_eq!(detail, expected);
    let (code, _) = refusal(&mut platform, &deploy("deploy-1", "1.4.1").of(ACME)).await;
    assert_eq!(code, "EnvironmentNotFound");
    assert!(platform.states::<RuntimeEnvironment>()[0].operation_id.is_none());
    platform.run(&bind("bind-2", ACME, "shared")).await;
    assert_eq!(platform.last("RuntimeTenantBound")["change"], "Created");
    platform.infrastructure.mend(&format!("{PREFIX}-vault"));
    platform.run(&bind("bind-3", ACME, "pool")).await;
    let told = platform.last("RuntimeTenantBound");
    assert_eq!((&told["change"], &told["isolationModel"]), (&json!("Updated"), &json!("pool")));
}

#[tokio::test]
async fn one_part_is_made_at_a_time() {
    let mut platform = pool().await;
    platform.infrastructure.finish_after(3);
    platform.send(&bind("bind-1", ACME, "pool"));
    platform.happen().await;
    platform.send(&bind("bind-2", ACME, "shared"));
    platform.send(&bind("bind-3", "zenith", "pool"));
    platform.run_until_quiet().await;
    let told: Vec<String> = platform
        .events()
        .iter()
        .skip(1)
        .map(|event| match event.envelope.payload["detail"].as_str() {
            Some(detail) => detail.split('`').step_by(2).collect::<Vec<_>>().join("_"),
            None => event.event_type().to_owned(),
        })
        .collect();
    expect![[r#"
        [
            "_ is being made pool by _. Wait for its end, then send the command again if it is still wanted.",
            "_ is at work on _, and a tenant's part is made of the same resources. Wait for its end, then send the command again.",
            "RuntimeTenantBound",
        ]"#]].assert_eq(&format!("{told:#?}"));
}

#[tokio::test]
async fn a_bound_tenant_has_a_configuration_and_secrets_of_its_own() {
    let mut platform = pool().await;
    platform.run(&bind("bind-1", ACME, "pool")).await;
    for tenant in [ACME, "connectsoft"] {
        let order = deploy(&format!("deploy-{tenant}"), "1.4.1").of(tenant);
        platform.run(&order).await;
    }
    platform.run(&publish_configuration("publish-1", json!({ "LOG_LEVEL": "debug" })).of(ACME)).await;
    let theirs = platform.compute.serving(&format!("{PREFIX}-reservations-api")).unwrap();
    assert_eq!(theirs.configuration.map(|entry| entry.version), Some(1));
    let ours = platform.compute.serving("reservations-api").unwrap();
    assert_eq!(ours.configuration, None, "the owner's workload is another's");

    let secret = |id: &str| bind_secret(id, "db-password").of(ACME);
    let (code, detail) = refusal(&mut platform, &secret("secret-1")).await;
    assert_eq!(code, "NotSupported", "{detail}");
    assert!(detail.contains("is not the vault of"), "{detail}");
    platform.run(&secret("secret-2").with("/vaultUri", Value::from(own_vault()))).await;
    let theirs = platform.compute.serving(&format!("{PREFIX}-reservations-api")).unwrap();
    let [entry] = theirs.secrets.as_slice() else { panic!("one secret: {:?}", theirs.secrets) };
    assert!(entry.key_vault_url.starts_with(&own_vault()), "{}", entry.key_vault_url);
    assert!(entry.identity_id.contains(&format!("/id-{PREFIX}")), "{}", entry.identity_id);
}

#[tokio::test]
async fn what_is_shared_keeps_secrets_apart_by_name() {
    let mut platform = pool().await;
    platform.run(&bind("bind-1", ACME, "shared")).await;
    platform.run(&deploy("deploy-1", "1.4.1").of(ACME)).await;
    let (code, detail) = refusal(&mut platform, &bind_secret("secret-1", "db-password").of(ACME)).await;
    assert_eq!(code, "NotSupported");
    let expected = format!(
        "payload.secretName: `{}` is shared, and so is its vault; a bound tenant's secrets there have names that begin with `{PREFIX}-`. Name it `{PREFIX}-db-password`, or have the owner bind you to a pool.",
        environment()
    );
    assert_eq!(detail, expected);
    platform.run(&bind_secret("secret-2", &format!("{PREFIX}-db-password")).of(ACME)).await;
    assert!(platform.event_types().contains(&"SecretBound".to_owned()), "{}", platform.transcript());
}

#[tokio::test]
async fn a_death_at_any_commit_makes_the_same_part() {
    let undisturbed = made_with_a_death(None).await;
    for when in [When::Before, When::After] {
        for commit in 1..=6 {
            assert_eq!(made_with_a_death(Some((commit, when))).await, undisturbed, "commit {commit}");
        }
    }
}

/// Binds a tenant to a pool, the process dying once; what is stored afterwards, times left out.
async fn made_with_a_death(death: Option<(u64, When)>) -> (Vec<String>, Vec<String>) {
    let mut platform = pool().await;
    if let Some((commit, when)) = death {
        platform.trouble.die_at_commit(platform.trouble.commits() + commit, when);
    }
    platform.run(&bind("bind-1", ACME, "pool")).await;
    assert_eq!(platform.deaths, usize::from(death.is_some()), "{death:?}");
    let told = |binding: &RuntimeTenantBinding| {
        let targets: Option<Vec<_>> = binding
            .view
            .as_ref()
            .map(|view| view.targets.iter().map(|target| target.workload_profile.clone()).collect());
        format!("{} {} {:?} {targets:?}", binding.tenant_binding_id, binding.sequence, binding.pending)
    };
    let mut bindings: Vec<_> = platform.states::<RuntimeTenantBinding>().iter().map(told).collect();
    bindings.sort();
    (bindings, profiles(&platform))
}
