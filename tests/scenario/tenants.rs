//! Several tenants in one environment: who may use it, how much of it, and that none meets another.

use expect_test::expect;
use runtime_platform::{
    functions::{self, Run},
    invocation::HttpRequest,
    ports::bus::Outgoing,
    services::{
        deployment_service::RuntimeDeployment, tenant_runtime_isolation_service::RuntimeTenantBinding,
    },
};
use serde_json::{Value, json};

use crate::support::{
    builders::{MODULE, TENANT, bind, deploy, environment, provision, rollback},
    faulty::When,
    test_platform::TestPlatform,
};

const ACME: &str = "acme";

/// An environment of this stage and model.
async fn provisioned(stage: &str, model: &str) -> TestPlatform {
    let mut platform = TestPlatform::new();
    let order = provision("provision-1").with("/stage", stage.into()).with("/isolationModel", model.into());
    platform.run(&order).await;
    platform
}

/// What a command that was refused was told: the code and the sentence.
async fn refusal(platform: &mut TestPlatform, order: &crate::support::builders::Order) -> (String, String) {
    platform.run(order).await;
    let told = platform.last("RuntimeCommandFailed");
    let text = |name: &str| told[name].as_str().unwrap().to_owned();
    (text("reasonCode"), text("detail"))
}

/// Calls `GET tenant-bindings` for a tenant.
async fn bindings(platform: &TestPlatform, tenant: &str, id: Option<&str>) -> (u16, Value) {
    let function = functions::all().into_iter().find(|function| function.name == "TenantBindings").unwrap();
    let Run::Http(run) = function.run else { panic!("it takes requests") };
    let headers = [("x-cs-tenant-id".to_owned(), tenant.to_owned())].into();
    let params = id.map(|id| ("id".to_owned(), id.to_owned())).into_iter().collect();
    let request = HttpRequest { method: "GET".into(), headers, params, ..HttpRequest::default() };
    let answer = run(platform.platform.clone(), request).await;
    (answer.status, answer.body)
}

/// What each tenant's newest deployment runs as.
fn places(platform: &TestPlatform) -> Vec<(String, String, String)> {
    let mut deployments = platform.states::<RuntimeDeployment>();
    deployments.sort_by_key(|deployment| deployment.requested_at);
    let told = |deployment: &RuntimeDeployment| {
        let workload = deployment.workload_ref();
        (
            deployment.lineage.tenant_id.to_string(),
            workload.name,
            workload.target.tags["cs-tenant-id"].clone(),
        )
    };
    deployments.iter().map(told).collect()
}

#[tokio::test]
async fn a_prod_environment_takes_no_deployment_before_its_tenant_is_bound() {
    let mut platform = provisioned("prod", "silo").await;
    let (code, detail) = refusal(&mut platform, &deploy("deploy-1", "1.4.1")).await;
    assert_eq!(code, "TenantBindingMissing", "{detail}");
    platform.run(&bind("bind-1", TENANT, "dedicated")).await;
    assert_eq!(platform.last("RuntimeTenantBound")["isolationModel"], "silo");
    assert_eq!(platform.outcome("bind-1").await, ("Completed".into(), "RuntimeTenantBound".into()));
    platform.run(&deploy("deploy-2", "1.4.1")).await;
    assert_eq!(platform.deployments(), ["1.4.1 Completed"]);
}

#[tokio::test]
async fn a_bound_tenant_deploys_beside_the_owner_and_neither_meets_the_other() {
    let mut platform = provisioned("test", "pool").await;
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    let place = platform.mark();
    platform.run(&bind("bind-1", ACME, "pool")).await;
    platform.run(&deploy("deploy-2", "2.0.0").of(ACME)).await;
    platform.run(&deploy("deploy-3", "2.0.1").of(ACME)).await;
    platform.run(&rollback("rollback-1").of(ACME)).await;
    expect![[r#"
        10:15:09 > BindTenant bind-1
        10:15:09 ~ update container-apps
        10:15:09 ~ create t07433385-identity
        10:15:09 ~ create t07433385-vault
        10:15:10 ~ create t07433385-vault-secrets-user
        10:15:10 ~ create t07433385-registry-pull
        10:15:11 RuntimeTenantBound tb-07433385 env-cc58147b pool Created <- bind-1
        10:15:11 > Deploy deploy-2
        10:15:11 RuntimeDeploymentRequested dep-cd9460fd reservations-api:2.0.0 over null <- deploy-2
        10:15:11 ~ stage t07433385-reservations-api--dcd9460fd acr.azurecr.io/reservations-api:2.0.0
        10:15:15 RuntimeDeploymentCompleted dep-cd9460fd reservations-api:2.0.0 over null, gate Passed <- RuntimeDeploymentRequested
        10:15:15 RuntimeInventoryUpdated svc-21b0908e Added Running reservations-api:2.0.0 x1 <- RuntimeDeploymentCompleted
        10:15:15 > Deploy deploy-3
        10:15:15 RuntimeDeploymentRequested dep-7fda3a51 reservations-api:2.0.1 over reservations-api:2.0.0 <- deploy-3
        10:15:15 ~ stage t07433385-reservations-api--d7fda3a51 acr.azurecr.io/reservations-api:2.0.1
        10:15:19 ~ shift t07433385-reservations-api to t07433385-reservations-api--d7fda3a51=10 t07433385-reservations-api--dcd9460fd=90
        10:15:22 ~ shift t07433385-reservations-api to t07433385-reservations-api--d7fda3a51=50 t07433385-reservations-api--dcd9460fd=50
        10:15:25 ~ shift t07433385-reservations-api to t07433385-reservations-api--d7fda3a51=100
        10:15:28 ~ deactivate t07433385-reservations-api--dcd9460fd
        10:15:28 RuntimeDeploymentCompleted dep-7fda3a51 reservations-api:2.0.1 over reservations-api:2.0.0, gate Passed <- RuntimeDeploymentRequested
        10:15:28 RuntimeInventoryUpdated svc-21b0908e Changed Running reservations-api:2.0.1 x1 <- RuntimeDeploymentCompleted
        10:15:28 > RollbackDeployment rollback-1
        10:15:28 ~ activate t07433385-reservations-api--dcd9460fd
        10:15:29 ~ shift t07433385-reservations-api to t07433385-reservations-api--dcd9460fd=100
        10:15:30 ~ deactivate t07433385-reservations-api--d7fda3a51
        10:15:30 RuntimeDeploymentRolledBack dep-7fda3a51 reservations-api:2.0.1 to reservations-api:2.0.0 (dep-cd9460fd), Operator, gate Passed <- rollback-1
    "#]].assert_eq(&platform.transcript_since(place));
    let prefix = platform.states::<RuntimeTenantBinding>()[0].prefix();
    let theirs = (ACME.to_owned(), format!("{prefix}-reservations-api"), ACME.to_owned());
    let ours = (TENANT.to_owned(), "reservations-api".to_owned(), TENANT.to_owned());
    assert_eq!(places(&platform), [ours, theirs.clone(), theirs]);
    assert_eq!(platform.traffic(), ["1.4.1=100", "2.0.0=100"]);
    // What the bound tenant did is told to it, and stored with it.
    let tenants: Vec<_> =
        platform.events().iter().skip(4).map(|event| event.envelope.tenant_id.to_string()).collect();
    assert!(tenants[1..].iter().all(|tenant| tenant == ACME) && tenants[0] == TENANT, "{tenants:?}");
    let stored = platform.documents();
    let deployments = stored.iter().filter(|stored| stored.document.kind == "deployment");
    let mut partitions: Vec<_> = deployments.map(|stored| stored.partition.tenant_id.as_str()).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, [ACME, ACME, TENANT]);
}

#[tokio::test]
async fn a_tenant_that_is_not_bound_is_told_that_there_is_no_environment() {
    let mut platform = provisioned("test", "shared").await;
    platform.run(&bind("bind-1", ACME, "shared")).await;
    for order in [
        deploy("deploy-1", "1.4.1").of("zenith"),
        rollback("rollback-1").of("zenith"),
        bind("bind-2", ACME, "shared").of("zenith"),
    ] {
        let (code, detail) = refusal(&mut platform, &order).await;
        assert_eq!(code, "EnvironmentNotFound", "{detail}");
    }
    // Being bound gives no right to bind others.
    let (code, _) = refusal(&mut platform, &bind("bind-3", "zenith", "shared").of(ACME)).await;
    assert_eq!(code, "EnvironmentNotFound");
}

#[tokio::test]
async fn a_model_fits_the_environment_or_is_refused() {
    let mut told = String::new();
    for whole in ["silo", "pool", "shared"] {
        let mut platform = provisioned("test", whole).await;
        for (number, (tenant, model)) in
            [(TENANT, "silo"), (ACME, "silo"), (ACME, "pool"), ("zenith", "shared")].into_iter().enumerate()
        {
            let event_id = format!("bind-{number}");
            platform.run(&bind(&event_id, tenant, model)).await;
            let last = platform.events().pop().unwrap();
            let detail = last.envelope.payload["detail"].as_str().unwrap_or(last.event_type()).to_owned();
            told.push_str(&format!("{tenant} as {model} in {whole}: {detail}\n"));
        }
    }
    expect![[r#"
        connectsoft as silo in silo: RuntimeTenantBound
        acme as silo in silo: `env-cc58147b` is a silo and takes one tenant, its owner `connectsoft`. Provision a pool or shared environment for others, or let `acme` provision a silo of its own.
        acme as pool in silo: payload.isolationModel: `env-cc58147b` was provisioned as a silo and takes nothing but `silo`. Provision a pool environment.
        zenith as shared in silo: payload.isolationModel: `env-cc58147b` was provisioned as a silo and takes nothing but `silo`. Provision a shared environment.
        connectsoft as silo in pool: payload.isolationModel: a silo is an environment of its own, and `env-cc58147b` was provisioned as pool. Provision one with isolationModel `silo`.
        acme as silo in pool: payload.isolationModel: a silo is an environment of its own, and `env-cc58147b` was provisioned as pool. Provision one with isolationModel `silo`.
        acme as pool in pool: RuntimeTenantBound
        zenith as shared in pool: RuntimeTenantBound
        connectsoft as silo in shared: payload.isolationModel: a silo is an environment of its own, and `env-cc58147b` was provisioned as shared. Provision one with isolationModel `silo`.
        acme as silo in shared: payload.isolationModel: a silo is an environment of its own, and `env-cc58147b` was provisioned as shared. Provision one with isolationModel `silo`.
        acme as pool in shared: payload.isolationModel: `env-cc58147b` was provisioned as shared and has no part for a tenant alone. Use `shared`, or provision a pool environment.
        zenith as shared in shared: RuntimeTenantBound
    "#]].assert_eq(&told);
}

#[tokio::test]
async fn an_environment_that_is_not_there_yet_takes_nobody() {
    let mut platform = TestPlatform::new();
    platform.send(&provision("provision-1"));
    platform.happen().await;
    platform.send(&bind("bind-1", ACME, "shared"));
    platform
        .run_until("refused", |platform| platform.event_types().contains(&"RuntimeCommandFailed".to_owned()))
        .await;
    let told = platform.last("RuntimeCommandFailed");
    assert_eq!(
        (&told["reasonCode"], &told["retryable"]),
        (&json!("EnvironmentNotProvisioned"), &json!(true))
    );
    platform.run_until_quiet().await;
}

#[tokio::test]
async fn saying_it_again_changes_nothing_and_a_new_quota_reaches_the_tenant() {
    let mut platform = provisioned("test", "shared").await;
    platform.run(&bind("bind-1", ACME, "shared")).await;
    platform.run(&bind("bind-1", ACME, "shared").again()).await;
    platform.run(&bind("bind-2", ACME, "shared")).await;
    let quota = json!({ "maxReplicas": 4, "maxServices": 2, "cpuMillis": null, "memoryMiB": null });
    platform.run(&bind("bind-3", ACME, "shared").with("/quota", quota.clone())).await;
    let events: Vec<_> = platform
        .events()
        .iter()
        .skip(1)
        .map(|event| (event.event_type().to_owned(), event.sequence))
        .collect();
    let expected = [("RuntimeTenantBound", 1), ("RuntimeCommandCompleted", 1), ("RuntimeTenantBound", 2)];
    assert_eq!(events, expected.map(|(name, sequence)| (name.to_owned(), sequence)));
    assert_eq!(platform.last("RuntimeTenantBound")["change"], "Updated");
    for tenant in [TENANT, ACME] {
        let (_, listed) = bindings(&platform, tenant, None).await;
        let [item] = listed["items"].as_array().unwrap().as_slice() else {
            panic!("one for {tenant}: {listed}")
        };
        assert_eq!((&item["quota"], &item["ownerTenantId"]), (&quota, &json!(TENANT)));
        let id = item["tenantBindingId"].as_str().unwrap();
        assert_eq!(bindings(&platform, tenant, Some(id)).await, (200, item.clone()));
        assert_eq!(bindings(&platform, "zenith", Some(id)).await.0, 404);
    }
    assert_eq!(bindings(&platform, "zenith", None).await.1["items"], json!([]));
}

#[tokio::test]
async fn a_quota_counts_what_other_workloads_may_use() {
    let mut platform = provisioned("test", "shared").await;
    let quota = |services: u32, replicas: u32| json!({ "maxServices": services, "maxReplicas": replicas });
    platform.run(&bind("bind-1", ACME, "shared").with("/quota", quota(1, 3))).await;
    let workload = |event_id: &str, module: &str, replicas: u32| {
        let mut order = deploy(event_id, "1.4.1").of(ACME).with("/workloads/0/moduleId", module.into());
        order.payload["workloads"][0]["maxReplicas"] = replicas.into();
        order
    };
    let (code, detail) = refusal(&mut platform, &workload("deploy-1", MODULE, 4)).await;
    assert_eq!(
        (code.as_str(), detail.as_str()),
        (
            "QuotaExceeded",
            "The tenant's quota of replicas here is 3 (maxReplicas); its other workloads may use 0, and with `module-reservations-api` it would be 4. Ask for less, or have the environment's owner raise it by BindTenant."
        )
    );
    platform.run(&workload("deploy-2", MODULE, 2)).await;
    assert_eq!(platform.last("RuntimeDeploymentCompleted")["environmentId"], json!(environment()));
    let (code, detail) = refusal(&mut platform, &workload("deploy-3", "module-billing", 1)).await;
    assert_eq!(code, "QuotaExceeded");
    assert!(detail.contains("maxServices"), "{detail}");
    // The same workload again is no other one.
    platform.run(&workload("deploy-4", MODULE, 3)).await;
    platform.last("RuntimeDeploymentCompleted");
    platform.run(&bind("bind-2", ACME, "shared").with("/quota", quota(2, 4))).await;
    platform.run(&workload("deploy-5", "module-billing", 1)).await;
    platform.last("RuntimeDeploymentCompleted");
    // The owner is limited by its own binding only.
    platform.run(&deploy("deploy-6", "1.4.1")).await;
    platform.last("RuntimeDeploymentCompleted");
}

#[tokio::test]
async fn two_deploys_at_once_do_not_share_the_last_of_a_quota() {
    let mut platform = provisioned("test", "shared").await;
    platform.run(&bind("bind-1", ACME, "shared").with("/quota", json!({ "maxServices": 1 }))).await;
    let order = |event_id: &str, module: &str| {
        deploy(event_id, "1.4.1").of(ACME).with("/workloads/0/moduleId", module.into())
    };
    for order in [order("deploy-1", MODULE), order("deploy-2", "module-billing")] {
        platform.send(&order);
    }
    let run = |number: u64| {
        let held = platform.broker.take(number);
        let function = functions::all().into_iter().find(|function| function.name == "Deploy").unwrap();
        let Run::Message(run) = function.run else { panic!("it takes messages") };
        run(platform.platform.clone(), held.delivered())
    };
    let ready = platform.broker.ready();
    let (first, second) = (run(ready[0]), run(ready[1]));
    let (first, second) = tokio::join!(first, second);
    first.unwrap();
    second.unwrap();
    platform.run_until_quiet().await;
    assert_eq!(platform.deployments(), ["1.4.1 Completed"]);
}

#[tokio::test]
async fn the_model_of_a_binding_changes_only_while_nothing_runs_under_it() {
    let mut platform = provisioned("test", "pool").await;
    platform.run(&bind("bind-1", ACME, "pool")).await;
    platform.run(&bind("bind-2", ACME, "shared")).await;
    assert_eq!(platform.last("RuntimeTenantBound")["change"], "Updated");
    platform.run(&deploy("deploy-1", "1.4.1").of(ACME)).await;
    let (code, detail) = refusal(&mut platform, &bind("bind-3", ACME, "pool")).await;
    assert_eq!(code, "Conflict");
    let expected = format!(
        "`acme` is shared in `{}` with 1 service, which would have to move, and none is moved while it serves. Bind the tenant to another environment as pool, deploy there, and change over.",
        environment()
    );
    assert_eq!(detail, expected);
}

#[tokio::test]
async fn a_death_at_any_commit_leaves_the_same_binding() {
    let undisturbed = bound_with_a_death(None).await;
    for when in [When::Before, When::After] {
        for commit in 1..=3 {
            assert_eq!(bound_with_a_death(Some((commit, when))).await, undisturbed, "commit {commit}");
        }
    }
}

/// Binds a tenant, the process dying once; what is stored afterwards, times left out.
async fn bound_with_a_death(death: Option<(u64, When)>) -> Vec<String> {
    let mut platform = provisioned("test", "shared").await;
    if let Some((commit, when)) = death {
        platform.trouble.die_at_commit(platform.trouble.commits() + commit, when);
    }
    platform.run(&bind("bind-1", ACME, "shared")).await;
    assert_eq!(platform.deaths, usize::from(death.is_some()), "{death:?}");
    let told = |binding: &RuntimeTenantBinding| {
        let targets = binding.view.as_ref().map(|view| view.targets.len());
        format!("{} {} {} {targets:?}", binding.tenant_binding_id, binding.bound_tenant_id, binding.sequence)
    };
    let mut bindings: Vec<_> = platform.states::<RuntimeTenantBinding>().iter().map(told).collect();
    bindings.sort();
    bindings
}

#[tokio::test]
async fn a_message_that_asks_for_no_view_is_filed() {
    let mut platform = provisioned("test", "shared").await;
    platform
        .broker
        .accept(Outgoing {
            entity: "bind-tenant-view".into(),
            message_id: "m-1".into(),
            content_type: "application/json".into(),
            body: b"{}".to_vec(),
            properties: std::collections::BTreeMap::new(),
            session_id: None,
            correlation_id: None,
            subject: None,
            scheduled_at: None,
            time_to_live: None,
        })
        .unwrap();
    platform.run_until_quiet().await;
    let filed =
        platform.documents().into_iter().filter(|stored| stored.document.kind == "dead-letter").count();
    assert_eq!((filed, platform.states::<RuntimeTenantBinding>()), (1, Vec::new()));
}
