//! An environment goes, as an operator ordered it, and says what is left.

use expect_test::expect;
use runtime_platform::{
    invocation::HttpAnswer,
    operations::{Kind, Operation, Status},
    ports::store::Store,
    services::{
        deployment_service::{DeploymentStatus, RuntimeDeployment, Slot},
        runtime_environment_service::{ProvisioningStatus, RuntimeEnvironment},
        service_catalog_runtime_service::RuntimeService,
        tenant_runtime_isolation_service::RuntimeTenantBinding,
    },
};
use serde_json::{Value, json};

use super::story::serving;
use crate::support::{
    builders::{Order, bind, deploy, environment, provision, publish_configuration, rollback},
    faulty::When,
    refusing::Bad,
    test_platform::TestPlatform,
};

async fn order(platform: &TestPlatform, body: Value, key: Option<&str>) -> HttpAnswer {
    platform.post("Decommission", Some(environment().as_str()), body, key).await
}

async fn by_force(platform: &TestPlatform) -> HttpAnswer {
    order(platform, json!({ "reason": "the product is retired", "force": true }), None).await
}

/// More than one commit retires, and more than are deleted at once.
const MANY: usize = 23;

fn told(answer: &HttpAnswer) -> String {
    let text = |name: &str| answer.body[name].as_str().unwrap_or_default().to_owned();
    format!("{} {} {}", answer.status, text("code"), text("detail"))
}

fn found(platform: &TestPlatform) -> RuntimeEnvironment {
    platform.states::<RuntimeEnvironment>().into_iter().next().unwrap()
}

fn operation(platform: &TestPlatform) -> Operation {
    let operations = platform.states::<Operation>().into_iter();
    let mut ours: Vec<_> = operations.filter(|it| it.kind == Kind::Decommission).collect();
    ours.sort_by_key(|operation| operation.started_at);
    ours.pop().unwrap()
}

/// Environments, and bound tenants' parts of them, that sweeps go through.
async fn swept(platform: &TestPlatform) -> usize {
    let mut number = 0;
    for kind in ["environment", "tenant-binding"] {
        let page = runtime_platform::ports::store::Page::first(10);
        let until = "9999-01-01T00:00:00Z".parse().unwrap();
        number += platform.store.due(kind, until, &page).await.unwrap().items.len();
    }
    number
}

#[tokio::test]
async fn an_environment_goes_with_its_workloads_when_that_is_forced() {
    let mut platform = serving().await;
    assert_eq!(swept(&platform).await, 1);
    let place = platform.mark();
    let answer = by_force(&platform).await;
    assert_eq!(
        (answer.status, answer.location.as_deref()),
        (202, Some(format!("/api/v1/runtime/environments/{}", environment()).as_str()))
    );
    expect![[r#"{"environmentId":"env-cc58147b","operationId":"op-0af824b3","force":true,"decommissionedBy":"olga","reason":"the product is retired","detail":"`env-cc58147b` is being taken down; see `runtimectl get operations op-0af824b3`."}"#]].assert_eq(&answer.body.to_string());
    assert_eq!(found(&platform).status, ProvisioningStatus::Decommissioning);
    platform.run_until_quiet().await;
    expect![[r#"
        10:15:09 ~ remove reservations-api
        10:15:09 RuntimeInventoryUpdated svc-b0deb1bf Retired Retired reservations-api:1.4.1 x0 <- RuntimeDeploymentCompleted
        10:15:13 ~ delete container-apps-logs
        10:15:13 ~ delete container-apps
        10:15:13 ~ delete subnet
        10:15:13 ~ delete registry-pull
        10:15:13 ~ delete vault-secrets-user
        10:15:13 ~ delete vault
        10:15:13 ~ delete identity
        10:15:13 ~ delete network
        10:15:13 ~ delete workspace
        10:15:13 ~ delete group
        10:15:13 RuntimeEnvironmentDecommissioned env-cc58147b <- RuntimeEnvironmentProvisioned
    "#]]
    .assert_eq(&platform.transcript_since(place));
    let there = platform.get("Environments", Some(environment().as_str())).await.body;
    let picked = json!([
        there["status"],
        there["decommissionedAt"],
        there["leftBehind"],
        there["operationId"],
        there["failure"]
    ]);
    expect![[r#"["Decommissioned","2026-03-02T10:15:13Z",["Azure keeps the deleted vault kv-95150196cd1a5f4e8cc1 with its name for 90 days, in which it can be recovered"],null,null]"#]].assert_eq(&picked.to_string());
    let operation = operation(&platform);
    assert_eq!(
        (operation.status, operation.operation_id.to_string().as_str()),
        (Status::Succeeded, answer.body["operationId"].as_str().unwrap())
    );
    assert!(platform.compute.world().is_empty() && platform.infrastructure.world().is_empty());
    assert_eq!(platform.states::<Slot>()[0].serving, None);
    let services = platform.states::<RuntimeService>();
    assert!(
        !services.is_empty() && services.iter().all(|service| service.retired_at.is_some()),
        "{services:?}"
    );
    assert_eq!(swept(&platform).await, 0);

    for (order, code) in [
        (deploy("deploy-9", "1.4.9"), "EnvironmentNotProvisioned"),
        (rollback("rollback-9"), "EnvironmentNotProvisioned"),
        (publish_configuration("publish-9", json!({ "A": "1" })), "EnvironmentNotProvisioned"),
        (bind("bind-9", "acme", "shared"), "EnvironmentNotProvisioned"),
        (provision("provision-9"), "Conflict"),
    ] {
        platform.run(&order).await;
        assert_eq!(platform.last("RuntimeCommandFailed")["reasonCode"], code, "{}", order.event_type);
    }
    expect!["`env-cc58147b` was decommissioned. Choose another name for a new environment."]
        .assert_eq(platform.last("RuntimeCommandFailed")["detail"].as_str().unwrap());
    expect!["409 Decommissioned `env-cc58147b` is decommissioned already."]
        .assert_eq(&told(&by_force(&platform).await));
}

#[tokio::test]
async fn an_order_is_carried_out_once() {
    let mut platform = serving().await;
    let body = json!({ "reason": "the product is retired", "force": true });
    let first = order(&platform, body.clone(), Some("key-1")).await;
    let again = order(&platform, body.clone(), Some("key-1")).await;
    assert_eq!(first, again);
    let other = order(&platform, json!({ "reason": "another", "force": true }), Some("key-1")).await;
    assert_eq!((other.status, other.body["code"].as_str()), (422, Some("IdempotencyKeyReused")));
    expect!["409 OperationRunning `op-3d019c98` works on `env-cc58147b`; wait for its end, or cancel it: runtimectl cancel op-3d019c98."].assert_eq(&told(&order(&platform, body.clone(), Some("key-2")).await));
    platform.run_until_quiet().await;
    assert_eq!(order(&platform, body, Some("key-1")).await, first);
    let gone = platform.event_types().into_iter().filter(|it| it == "RuntimeEnvironmentDecommissioned");
    assert_eq!(gone.count(), 1);
}

#[tokio::test]
async fn what_serves_or_runs_is_in_the_way() {
    let mut platform = serving().await;
    let gently = json!({ "reason": "tidying up" });
    expect![[r#"409 WorkloadsServe `module-reservations-api` serves in `env-cc58147b`. Send `"force": true` if it is to go too."#]].assert_eq(&told(&order(&platform, gently.clone(), None).await));
    platform.send(&deploy("deploy-2", "1.4.2"));
    platform
        .run_until("gating", |it| {
            it.states::<RuntimeDeployment>().iter().any(|it| it.status == DeploymentStatus::HealthGating)
        })
        .await;
    expect!["409 OperationRunning `op-c44e7317` still works on `env-cc58147b`; wait for the end, or cancel first what need not be done any more."].assert_eq(&told(&by_force(&platform).await));
    platform.run_until_quiet().await;
    assert_eq!(platform.traffic(), ["1.4.2=100"]);
    for (body, code) in [
        (json!({}), 400),
        (json!({ "reason": " " }), 400),
        (json!({ "reason": "x", "force": "yes" }), 400),
        (json!({ "reason": "x", "harder": true }), 400),
    ] {
        assert_eq!(order(&platform, body.clone(), None).await.status, code, "{body}");
    }
    for id in ["env-00000000", "somewhere"] {
        let answer = platform.post("Decommission", Some(id), gently.clone(), None).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (404, Some("EnvironmentNotFound")));
    }
    assert_eq!(found(&platform).status, ProvisioningStatus::Provisioned);
}

#[tokio::test]
async fn an_environment_without_workloads_goes_without_force() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    assert_eq!(order(&platform, json!({ "reason": "never used" }), None).await.status, 202);
    platform.run_until_quiet().await;
    assert_eq!(found(&platform).status, ProvisioningStatus::Decommissioned);
    assert!(platform.infrastructure.world().is_empty());
}

#[tokio::test]
async fn what_failed_half_way_through_provisioning_can_be_taken_down() {
    let mut platform = TestPlatform::new();
    platform.infrastructure.fail("container-apps", "no capacity in this region");
    platform.run(&provision("provision-1")).await;
    assert_eq!(found(&platform).status, ProvisioningStatus::Failed);
    assert!(!platform.infrastructure.world().is_empty());
    assert_eq!(order(&platform, json!({ "reason": "the wrong region" }), None).await.status, 202);
    platform.tidy = false; // No event of ours caused it: it was never provisioned.
    platform.run_until_quiet().await;
    assert_eq!(found(&platform).status, ProvisioningStatus::Decommissioned);
    assert!(platform.infrastructure.world().is_empty());
}

#[tokio::test]
async fn a_bound_tenants_workloads_are_not_forced_and_its_view_ends_with_the_environment() {
    let mut platform = serving().await;
    platform.run(&bind("bind-1", "acme", "shared")).await;
    platform.run(&deploy("deploy-2", "1.4.1").of("acme")).await;
    expect!["409 TenantsServe The bound tenant `acme` has workloads in `env-cc58147b`, whatever is forced; have it move first."].assert_eq(&told(&by_force(&platform).await));

    let mut platform = serving().await;
    platform.run(&bind("bind-1", "acme", "shared")).await;
    assert_eq!(swept(&platform).await, 2);
    assert_eq!(by_force(&platform).await.status, 202);
    platform.run_until_quiet().await;
    assert_eq!(found(&platform).status, ProvisioningStatus::Decommissioned);
    assert_eq!(swept(&platform).await, 0);
    let views = platform.states::<RuntimeTenantBinding>().into_iter().filter_map(|binding| binding.view);
    assert!(views.into_iter().all(|view| view.targets.is_empty()));
    platform.run(&deploy("deploy-2", "1.4.1").of("acme")).await;
    assert_eq!(platform.last("RuntimeCommandFailed")["reasonCode"], "EnvironmentNotProvisioned");
}

#[tokio::test]
async fn what_could_not_be_deleted_is_told_and_the_next_order_goes_on() {
    let mut platform = serving().await;
    platform.infrastructure.keep("vault", "it is locked by `audit` (ScopeLocked)", false);
    by_force(&platform).await;
    platform.run_until_quiet().await;
    let stopped = found(&platform);
    assert_eq!((stopped.status, stopped.operation_id), (ProvisioningStatus::Decommissioning, None));
    expect!["Decommissioning `env-cc58147b` stopped at RemovingResources: Microsoft.Resources/resourceGroups rg-connectsoft-test-f94dfe7f4026 stays: `vault`, which needs it, stays; Microsoft.KeyVault/vaults kv-95150196cd1a5f4e8cc1 stays: it is locked by `audit` (ScopeLocked). Remove what is in the way and order it again; it goes on where it stopped."].assert_eq(&stopped.failure.unwrap());
    assert_eq!(operation(&platform).status, Status::Failed);
    assert!(platform.compute.world().is_empty());
    platform.infrastructure.release("vault");
    assert_eq!(by_force(&platform).await.status, 202);
    platform.run_until_quiet().await;
    assert_eq!(found(&platform).status, ProvisioningStatus::Decommissioned);
    assert!(platform.infrastructure.world().is_empty());
}

#[tokio::test]
async fn what_must_stay_is_left_behind_and_told() {
    let mut platform = serving().await;
    platform.infrastructure.keep("group", "it holds a resource of somebody else, `disk`", true);
    by_force(&platform).await;
    platform.run_until_quiet().await;
    let gone = found(&platform);
    assert_eq!(gone.status, ProvisioningStatus::Decommissioned);
    assert_eq!(gone.left_behind.len(), 2, "{:?}", gone.left_behind);
    assert!(gone.left_behind[0].contains("holds a resource of somebody else"), "{:?}", gone.left_behind);
    assert!(gone.left_behind[1].starts_with("Azure keeps the deleted vault kv-"), "{:?}", gone.left_behind);
}

/// A Deploy of another module.
fn of_module(number: usize) -> Order {
    deploy(&format!("deploy-m{number}"), "1.0")
        .with("/workloads/0/moduleId", json!(format!("module-number-{number}")))
}

#[tokio::test]
async fn many_workloads_go_a_few_at_a_time_and_one_that_will_not_is_told() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    for number in 0..MANY {
        platform.run(&of_module(number)).await;
    }
    assert_eq!(platform.compute.world().len(), MANY);
    platform.script.answer("remove", [Bad::Busy, Bad::ServerError, Bad::Never]);
    by_force(&platform).await;
    platform.run_until_quiet().await;
    let stopped = found(&platform);
    assert_eq!(stopped.status, ProvisioningStatus::Decommissioning);
    expect!["Decommissioning `env-cc58147b` stopped at RemovingWorkloads: the app number-2 could not be deleted: no cores are left (QuotaExceeded). Remove what is in the way and order it again; it goes on where it stopped."].assert_eq(&stopped.failure.unwrap());
    assert_eq!(platform.compute.world().len(), 1);
    assert!(!platform.infrastructure.world().is_empty(), "what the app needs is still there");
    assert!(platform.states::<Slot>().iter().all(|slot| slot.serving.is_none()));
    by_force(&platform).await;
    platform.run_until_quiet().await;
    assert_eq!(found(&platform).status, ProvisioningStatus::Decommissioned);
    assert!(platform.compute.world().is_empty() && platform.infrastructure.world().is_empty());
}

#[tokio::test]
async fn an_order_that_is_cancelled_before_anything_was_touched_changes_nothing() {
    let mut platform = serving().await;
    by_force(&platform).await;
    platform
        .run_until("begun", |it| it.states::<Operation>().iter().any(|it| it.kind == Kind::Decommission))
        .await;
    let id = operation(&platform).operation_id.to_string();
    let answer =
        platform.post("CancelOperation", Some(&id), json!({ "reason": "the wrong one" }), None).await;
    assert_eq!(answer.status, 202);
    platform.run_until_quiet().await;
    let there = found(&platform);
    assert_eq!((there.status, there.operation_id), (ProvisioningStatus::Provisioned, None));
    expect!["`env-cc58147b` is not decommissioned: ended by `olga`: the wrong one (Cancelled)"]
        .assert_eq(&there.failure.unwrap());
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    assert_eq!(platform.traffic(), ["1.4.2=100"]);
}

/// What is left when it has run to its end.
async fn end(platform: &mut TestPlatform) -> (ProvisioningStatus, usize, usize, Status, usize) {
    platform.run_until_quiet().await;
    let gone = platform.event_types().into_iter().filter(|it| it == "RuntimeEnvironmentDecommissioned");
    (
        found(platform).status,
        platform.compute.world().len(),
        platform.infrastructure.world().len(),
        operation(platform).status,
        gone.count(),
    )
}

#[tokio::test]
async fn killed_or_failed_anywhere_it_goes_on_to_the_same_end() {
    let undisturbed = (ProvisioningStatus::Decommissioned, 0, 0, Status::Succeeded, 1);
    let mut platform = serving().await;
    by_force(&platform).await;
    let (calls, commits) = (platform.trouble.calls(), platform.trouble.commits());
    assert_eq!(end(&mut platform).await, undisturbed);
    let (calls, commits) = (platform.trouble.calls() - calls, platform.trouble.commits() - commits);
    assert!(calls > 40 && commits > 8, "only {calls} calls and {commits} commits");
    for when in [When::Before, When::After] {
        for commit in 1..=commits {
            let mut platform = serving().await;
            by_force(&platform).await;
            platform.trouble.die_at_commit(platform.trouble.commits() + commit, when);
            assert_eq!(end(&mut platform).await, undisturbed, "death at commit {commit}, {when:?}");
            assert_eq!(platform.deaths, 1);
        }
        for call in 1..=calls {
            let mut platform = serving().await;
            by_force(&platform).await;
            platform.trouble.fail_call(platform.trouble.calls() + call, when);
            assert_eq!(end(&mut platform).await, undisturbed, "call {call} failed, {when:?}");
        }
    }
}
