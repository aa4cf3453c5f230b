//! Environments: made once, looked after, refused where they cannot be what is asked.

use expect_test::expect;
use serde_json::json;

use crate::support::{
    builders::{deploy, environment, provision},
    refusing::Bad,
    test_platform::TestPlatform,
};

#[tokio::test]
async fn provisioning_what_is_in_place_changes_nothing_and_says_so() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    let (place, effects) = (platform.mark(), platform.infrastructure.effects().len());
    platform.run(&provision("provision-2")).await;
    expect![[r#"
        10:15:05 > ProvisionEnvironment provision-2
        10:15:05 RuntimeCommandCompleted provision-2 NoChange: Everything of `env-cc58147b` is in place; nothing was changed. <- provision-2
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.infrastructure.effects().len(), effects);
}

#[tokio::test]
async fn one_environment_is_provisioned_by_one_command_at_a_time() {
    let mut platform = TestPlatform::new();
    platform.send(&provision("provision-1"));
    platform.happen().await;
    platform.send(&provision("provision-2"));
    platform.run_until_quiet().await;
    let types = platform.event_types();
    assert_eq!(types, ["RuntimeCommandFailed", "RuntimeEnvironmentProvisioned"]);
    let refused = &platform.events()[0].envelope.payload;
    assert_eq!((&refused["reasonCode"], &refused["retryable"]), (&json!("Conflict"), &json!(true)));
}

#[tokio::test]
async fn an_environment_keeps_what_it_was_provisioned_with() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    let place = platform.mark();
    platform.run(&provision("provision-2").with("/region", json!("northeurope"))).await;
    expect![[r#"
        10:15:05 > ProvisionEnvironment provision-2
        10:15:05 RuntimeCommandFailed provision-2 Rejected Conflict: payload.region differs from that of `env-cc58147b`, which is provisioned and keeps it. Provision an environment of another name. <- provision-2
    "#]].assert_eq(&platform.transcript_since(place));
}

#[tokio::test]
async fn what_would_have_to_be_replaced_is_refused() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    let vault = platform
        .infrastructure
        .world()
        .into_iter()
        .find(|(id, _)| id.contains("Microsoft.KeyVault/vaults/"))
        .unwrap();
    let mut moved = vault.1.clone();
    moved["location"] = json!("northeurope");
    platform.infrastructure.meddle(&vault.0, Some(moved));
    let place = platform.mark();
    platform.run(&provision("provision-2")).await;
    expect![[r#"
        10:15:05 > ProvisionEnvironment provision-2
        10:15:05 RuntimeCommandFailed provision-2 Failed PlanRefused: Provisioning `env-cc58147b` failed: `/location` cannot be changed in place. What was made stays and is taken up by the next ProvisionEnvironment of the same name. <- provision-2
    "#]].assert_eq(&platform.transcript_since(place));
    // What runs there runs on.
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    platform.last("RuntimeDeploymentCompleted");
}

#[tokio::test]
async fn what_somebody_removed_is_made_again() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    let id = platform
        .infrastructure
        .world()
        .into_keys()
        .find(|id| id.ends_with("container-apps-logs") || id.contains("diagnosticSettings"))
        .unwrap();
    platform.infrastructure.meddle(&id, None);
    let place = platform.mark();
    platform.run(&provision("provision-2")).await;
    expect![[r#"
        10:15:05 > ProvisionEnvironment provision-2
        10:15:05 ~ create container-apps-logs
        10:15:06 RuntimeEnvironmentProvisioned env-cc58147b test <- provision-2
    "#]]
    .assert_eq(&platform.transcript_since(place));
}

#[tokio::test]
async fn a_resource_that_cannot_be_made_fails_the_command_and_the_next_one_goes_on() {
    let mut platform = TestPlatform::new();
    platform.script.answer("advance", [Bad::Never]);
    platform.run(&provision("provision-1")).await;
    expect![[r#"
        10:15:00 > ProvisionEnvironment provision-1
        10:15:00 RuntimeCommandFailed provision-1 Failed ProvisioningFailed: Provisioning `env-cc58147b` failed: no cores are left (QuotaExceeded). What was made stays and is taken up by the next ProvisionEnvironment of the same name. <- provision-1
    "#]].assert_eq(&platform.transcript());
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    assert_eq!(platform.last("RuntimeCommandFailed")["reasonCode"], "EnvironmentNotProvisioned");
    platform.run(&provision("provision-2")).await;
    platform.last("RuntimeEnvironmentProvisioned");
}

#[tokio::test]
async fn a_prod_environment_takes_no_deployment_before_its_tenant_is_bound() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1").with("/stage", json!("prod"))).await;
    let place = platform.mark();
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    expect![[r#"
        10:15:05 > Deploy deploy-1
        10:15:05 RuntimeCommandFailed deploy-1 Rejected TenantBindingMissing: `env-cc58147b` is a prod environment without a tenant binding; send BindTenant before its first Deploy. <- deploy-1
    "#]].assert_eq(&platform.transcript_since(place));
}

#[tokio::test]
async fn another_tenants_environment_does_not_exist() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    platform.run(&deploy("deploy-1", "1.4.1").of("acme")).await;
    platform.run(&deploy("deploy-2", "1.4.1").with("/environmentId", json!("env-00000000"))).await;
    let events = platform.events();
    let [.., theirs, nobodys] = &events[..] else { panic!("{}", platform.transcript()) };
    assert_eq!(theirs.envelope.tenant_id.as_str(), "acme");
    let told = |event: &crate::support::transcript::PublishedEvent, id: &str| {
        let detail = event.envelope.payload["detail"].as_str().unwrap();
        (event.envelope.payload["reasonCode"].clone(), detail.replace(id, "ID"))
    };
    assert_eq!(
        told(theirs, environment().as_str()),
        told(nobodys, "env-00000000"),
        "the two can be told apart"
    );
}
