//! Scaling: a policy becomes bounds and rules of a revision, and the worker moves what the target cannot.

use expect_test::expect;
use jiff::{SignedDuration, Timestamp};
use runtime_platform::{
    events::{Event, HealthCheckCompleted, HealthStatus},
    holds::HoldScope,
    ledger::{Change, Commit, Lineage, NewEvent},
    outbox_relay,
    ports::{clock::Clock, metrics::Reading, store::Partition},
    services::{
        deployment_service::RuntimeDeployment, runtime_health_service::HealthCheckResult,
        runtime_scaling_service::ScalingPolicy,
    },
    sweeps::SweepReport,
};
use serde_json::{Value, json};

use super::{holds::hold, story::serving};
use crate::support::{
    builders::{IMAGE, MODULE, TENANT, bind, deploy, environment, provision, rollback, scale, service},
    fakes::compute::Behaviour,
    faulty::When,
    test_platform::{Deliveries, TestPlatform},
};

const APP: &str = "reservations-api";
const ELSEWHERE: &str =
    "/subscriptions/other/resourceGroups/g/providers/Microsoft.ServiceBus/namespaces/sb-1/queues/orders";

fn cpu(event_id: &str, most: u32) -> crate::support::builders::Order {
    scale(event_id, "Cpu", (1, most), json!({ "target": 60 }))
}

/// Bounds and rules of what serves.
fn started_with(platform: &TestPlatform) -> String {
    let spec = platform.compute.serving(APP).unwrap();
    let rules = serde_json::to_string(&spec.scale_rules).unwrap();
    format!("{} to {} by {rules}", spec.min_replicas, spec.max_replicas)
}

/// Some time passes, and the timer fires.
async fn sweep_after(platform: &mut TestPlatform, seconds: i64) {
    platform.clock.set(platform.clock.now() + SignedDuration::from_secs(seconds));
    platform.fire("ScalingSweep").await;
    platform.run_until_quiet().await;
}

async fn sweep_at(platform: &mut TestPlatform, at: &str) {
    platform.clock.set(at.parse().unwrap());
    platform.fire("ScalingSweep").await;
    platform.run_until_quiet().await;
}

fn policy(platform: &TestPlatform) -> ScalingPolicy {
    platform.states::<ScalingPolicy>().remove(0)
}

/// What the last evaluation said.
fn said(platform: &TestPlatform) -> String {
    policy(platform).said.unwrap_or_default()
}

/// The notes of the environment's last report.
fn notes(platform: &TestPlatform) -> Vec<String> {
    let reports = platform.states::<SweepReport>();
    reports.into_iter().find(|report| report.environment_id != "_").unwrap().notes
}

/// What the health sweep would have found.
async fn health(platform: &TestPlatform, status: &str) {
    let now = platform.clock.now();
    let result: HealthCheckResult = serde_json::from_value(json!({
        "healthCheckId": "hc-1", "tenantId": TENANT, "environmentId": environment(),
        "serviceId": service(TENANT), "moduleId": MODULE, "deploymentId": "dep-1", "status": status,
        "previousStatus": null, "checks": [], "windowStart": now, "evaluatedAt": now,
        "consecutiveFailures": 0, "consecutiveWeak": 0, "consecutivePasses": 0, "transitions": [],
        "toldAt": null, "sequence": 0, "host": null, "replicas": 1, "readyReplicas": 1, "observedAt": null,
    }))
    .unwrap();
    let mut commit = Commit::new(partition(), now);
    commit.overwrite(&format!("health-{}", service(TENANT)), &result).unwrap();
    platform.platform.ledger.commit(commit).await.unwrap();
}

fn partition() -> Partition {
    Partition::environment(&TENANT.parse().unwrap(), environment().as_str())
}

/// A transition is told, as the health sweep tells it.
async fn health_is_told(platform: &mut TestPlatform, status: HealthStatus) {
    let deployment: RuntimeDeployment = platform.states().remove(0);
    let now = platform.clock.now();
    let mut commit = Commit::new(partition(), now);
    let event = Event::HealthCheckCompleted(HealthCheckCompleted {
        health_check_id: "hc-1".into(),
        service_id: service(TENANT),
        environment_id: environment(),
        deployment_id: None,
        status,
        previous_status: None,
        checks: Vec::new(),
        window_start: now,
    });
    let id = "evt-00000000-0000-4000-8000-000000000001".parse().unwrap();
    let caused_by = deployment.requested_event_id.clone();
    let new = NewEvent { id, event, aggregate: "hc-1".into(), sequence: 1, caused_by };
    let lineage: Lineage = deployment.lineage;
    commit.event_with_change(&lineage, new, Change::Transition).unwrap();
    let committed = platform.platform.ledger.commit(commit).await.unwrap();
    outbox_relay::publish(&platform.platform, committed).await;
    platform.run_until_quiet().await;
}

#[tokio::test]
async fn a_policy_is_one_new_revision_with_the_targets_own_rule() {
    let mut platform = serving().await;
    let place = platform.mark();
    platform.run(&cpu("scale-1", 5)).await;
    expect![[r#"
        10:15:09 > ApplyScalingPolicy scale-1
        10:15:09 RuntimeDeploymentRequested dep-d1d20b1e reservations-api:1.4.1 over reservations-api:1.4.1 <- scale-1
        10:15:09 ~ stage reservations-api--dd1d20b1e acr.azurecr.io/reservations-api:1.4.1
        10:15:13 ~ shift reservations-api to reservations-api--d9c2595bb=90 reservations-api--dd1d20b1e=10
        10:15:16 ~ shift reservations-api to reservations-api--d9c2595bb=50 reservations-api--dd1d20b1e=50
        10:15:19 ~ shift reservations-api to reservations-api--dd1d20b1e=100
        10:15:22 ~ deactivate reservations-api--d9c2595bb
        10:15:22 RuntimeDeploymentCompleted dep-d1d20b1e reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:15:24 ScalingPolicyApplied sp-ec077879 Up from 1 to 1: ApplyScalingPolicy: 1 to 5 instead of 1 to 1 replicas, Cpu with the target 60; the policy's bounds are 1 to 5. <- scale-1
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(started_with(&platform), r#"1 to 5 by [{"by":"cpu","percent":60}]"#);
    assert_eq!(platform.outcome("scale-1").await, ("Completed".into(), "ScalingPolicyApplied".into()));
}

#[tokio::test]
async fn each_kind_comes_to_what_serves() {
    let queue = ELSEWHERE.replace("other", "00000000-0000-0000-0000-00000000c105");
    let window = json!({ "from": "00:00", "to": "12:00", "minReplicas": 3, "maxReplicas": 4 });
    let mut told = String::new();
    for (kind, bounds, more) in [
        ("Cpu", (1, 5), json!({ "target": 60 })),
        ("Memory", (2, 5), json!({ "target": 80 })),
        ("RequestRate", (1, 5), json!({ "target": 20 })),
        ("QueueDepth", (1, 5), json!({ "target": 7, "queue": queue })),
        ("QueueDepth", (2, 5), json!({ "target": 7, "queue": ELSEWHERE })),
        ("Schedule", (1, 2), json!({ "schedule": { "timeZone": "UTC", "windows": [window] } })),
        ("Fixed", (3, 3), json!({})),
    ] {
        let mut platform = serving().await;
        platform.run(&scale("scale-1", kind, bounds, more)).await;
        assert_eq!(platform.outcome("scale-1").await.1, "ScalingPolicyApplied", "{kind}");
        told.push_str(&format!("{kind}: {}\n", started_with(&platform)));
    }
    expect![[r#"
        Cpu: 1 to 5 by [{"by":"cpu","percent":60}]
        Memory: 2 to 5 by [{"by":"memory","percent":80}]
        RequestRate: 1 to 5 by [{"by":"requests","concurrent":20}]
        QueueDepth: 1 to 5 by [{"by":"queue","namespace":"sb-1","queue":"orders","messages":7,"identityId":"/subscriptions/00000000-0000-0000-0000-00000000c105/resourceGroups/rg-connectsoft-test-f94dfe7f4026/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-f94dfe7f4026"}]
        QueueDepth: 2 to 2 by []
        Schedule: 3 to 4 by []
        Fixed: 3 to 3 by []
    "#]].assert_eq(&told);
}

#[tokio::test]
async fn a_later_deploy_keeps_the_policy_and_going_back_too() {
    let mut platform = serving().await;
    platform.run(&cpu("scale-1", 5)).await;
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    assert_eq!(started_with(&platform), r#"1 to 5 by [{"by":"cpu","percent":60}]"#);
    // What served before the policy has no policy: going back there is put right by the next sweep.
    platform.run(&rollback("rollback-1")).await;
    platform.run(&rollback("rollback-2")).await;
    assert_eq!(started_with(&platform), "1 to 1 by []");
    sweep_after(&mut platform, 600).await;
    assert_eq!(started_with(&platform), r#"1 to 5 by [{"by":"cpu","percent":60}]"#);
    assert_eq!(platform.last("ScalingPolicyApplied")["direction"], "Up");
}

#[tokio::test]
async fn a_rollout_that_does_not_pass_leaves_the_policy_that_was_before() {
    let mut platform = serving().await;
    platform.run(&cpu("scale-1", 5)).await;
    platform.compute.image(&format!("{IMAGE}:1.4.1"), Behaviour::Answers(500));
    let place = platform.mark();
    platform.run(&cpu("scale-2", 9)).await;
    expect![[r#"
        10:15:24 > ApplyScalingPolicy scale-2
        10:15:24 RuntimeDeploymentRequested dep-3deacc4c reservations-api:1.4.1 over reservations-api:1.4.1 <- scale-2
        10:15:24 ~ stage reservations-api--d3deacc4c acr.azurecr.io/reservations-api:1.4.1
        10:15:28 ~ deactivate reservations-api--d3deacc4c
        10:15:28 RuntimeDeploymentRolledBack dep-3deacc4c reservations-api:1.4.1 to reservations-api:1.4.1 (dep-d1d20b1e), GateFailed, gate Failed <- RuntimeDeploymentRequested
        10:15:30 RuntimeCommandFailed scale-2 Failed GateFailed: `module-reservations-api` did not pass with the policy: 2 failures, 1 allowed; in the last sample it answered 500. What was before it is in force again. See `runtimectl explain dep-3deacc4c`. <- scale-2
    "#]].assert_eq(&platform.transcript_since(place));
    platform.compute.image(&format!("{IMAGE}:1.4.1"), Behaviour::Good);
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    assert_eq!(started_with(&platform), r#"1 to 5 by [{"by":"cpu","percent":60}]"#);
}

#[tokio::test]
async fn what_the_targets_autoscaler_did_is_told_once_with_what_it_saw() {
    let mut platform = serving().await;
    platform.run(&cpu("scale-1", 5)).await;
    sweep_after(&mut platform, 60).await;
    assert_eq!(said(&platform), "At 1 of 1 to 5 replicas; Cpu is not measured, the target is 60 percent.");
    let place = platform.mark();
    platform.compute.scale(APP, 3);
    platform.metrics.set(APP, Reading { cpu_percent: Some(145.0), ..Reading::default() });
    sweep_after(&mut platform, 60).await;
    // Once more in the same window, and at the target in the next one.
    platform.fire("ScalingSweep").await;
    platform.run_until_quiet().await;
    sweep_after(&mut platform, 60).await;
    platform.compute.scale(APP, 2);
    platform.metrics.set(APP, Reading { cpu_percent: Some(40.0), ..Reading::default() });
    sweep_after(&mut platform, 60).await;
    expect![[r#"
        10:17:24 ScalingPolicyApplied sp-ec077879 Up from 1 to 3: The target scaled by itself: Cpu at 145 percent, the target is 60, which on 1 asks for 3; within 1 to 5, as the policy's bounds are 1 to 5. It cools down by itself. <- RuntimeDeploymentCompleted
        10:17:24 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.1 x3 <- ScalingPolicyApplied
        10:19:24 ScalingPolicyApplied sp-ec077879 Down from 3 to 2: The target scaled by itself: Cpu at 40 percent, the target is 60, which on 3 asks for 2; within 1 to 5, as the policy's bounds are 1 to 5. It cools down by itself. <- RuntimeDeploymentCompleted
        10:19:24 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.1 x2 <- ScalingPolicyApplied
    "#]].assert_eq(&platform.transcript_since(place));
    let shown = platform.get("ScalingPolicies", Some(&policy(&platform).scaling_policy_id)).await.body;
    assert_eq!(shown["observedReplicas"], 2);
    assert_eq!(shown["history"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_schedule_begins_and_ends_by_the_clock() {
    let mut platform = serving().await;
    let window =
        json!({ "days": ["Mon"], "from": "12:00", "to": "14:00", "minReplicas": 3, "maxReplicas": 6 });
    let schedule = json!({ "schedule": { "timeZone": "Europe/Berlin", "windows": [window] } });
    platform.run(&scale("scale-1", "Schedule", (1, 2), schedule)).await;
    assert_eq!(started_with(&platform), "1 to 2 by []");
    let place = platform.mark();
    sweep_at(&mut platform, "2026-03-02T10:59:30Z").await;
    sweep_at(&mut platform, "2026-03-02T11:00:00Z").await;
    sweep_at(&mut platform, "2026-03-02T11:05:00Z").await;
    sweep_at(&mut platform, "2026-03-02T13:00:00Z").await;
    expect![[r#"
        11:00:00 RuntimeDeploymentRequested dep-ee6d0887 reservations-api:1.4.1 over reservations-api:1.4.1 <- RuntimeDeploymentCompleted
        11:00:00 ~ stage reservations-api--dee6d0887 acr.azurecr.io/reservations-api:1.4.1
        11:00:04 ~ shift reservations-api to reservations-api--dd1d20b1e=90 reservations-api--dee6d0887=10
        11:00:07 ~ shift reservations-api to reservations-api--dd1d20b1e=50 reservations-api--dee6d0887=50
        11:00:10 ~ shift reservations-api to reservations-api--dee6d0887=100
        11:00:13 ~ deactivate reservations-api--dd1d20b1e
        11:00:13 RuntimeDeploymentCompleted dep-ee6d0887 reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        11:00:13 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.1 x3 <- RuntimeDeploymentCompleted
        11:00:15 ScalingPolicyApplied sp-ec077879 Up from 1 to 3: 3 to 6 instead of 1 to 2 replicas: the schedule's window Mon 12:00-14:00 (Europe/Berlin) asks for 3 to 6 replicas; the clock decides; health not looked at yet; the cooldown of 60 s since 2026-03-02T10:15:24Z is over. <- RuntimeDeploymentCompleted
        13:00:00 RuntimeDeploymentRequested dep-3b59b45c reservations-api:1.4.1 over reservations-api:1.4.1 <- RuntimeDeploymentCompleted
        13:00:00 ~ stage reservations-api--d3b59b45c acr.azurecr.io/reservations-api:1.4.1
        13:00:04 ~ shift reservations-api to reservations-api--d3b59b45c=10 reservations-api--dee6d0887=90
        13:00:07 ~ shift reservations-api to reservations-api--d3b59b45c=50 reservations-api--dee6d0887=50
        13:00:10 ~ shift reservations-api to reservations-api--d3b59b45c=100
        13:00:13 ~ deactivate reservations-api--dee6d0887
        13:00:13 RuntimeDeploymentCompleted dep-3b59b45c reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        13:00:13 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.1 x1 <- RuntimeDeploymentCompleted
        13:00:15 ScalingPolicyApplied sp-ec077879 Down from 3 to 2: 1 to 2 instead of 3 to 6 replicas: no window of the schedule is open, and outside them it is 1 to 2; the clock decides; health not looked at yet; the cooldown of 300 s since 2026-03-02T11:00:15Z is over. <- RuntimeDeploymentCompleted
        13:00:15 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.1 x2 <- ScalingPolicyApplied
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(started_with(&platform), "1 to 2 by []");
}

#[tokio::test]
async fn a_queue_that_the_target_does_not_see_is_counted_by_the_platform_with_its_cooldowns() {
    let mut platform = serving().await;
    let queue = json!({ "target": 10, "queue": ELSEWHERE });
    platform.run(&scale("scale-1", "QueueDepth", (2, 6), queue)).await;
    let place = platform.mark();
    platform.metrics.queue(ELSEWHERE, 35);
    sweep_after(&mut platform, 30).await;
    assert!(said(&platform).contains("the cooldown of 60 s after the last change"), "{}", said(&platform));
    sweep_after(&mut platform, 60).await;
    platform.metrics.queue(ELSEWHERE, 0);
    for _ in 0..7 {
        sweep_after(&mut platform, 60).await;
    }
    expect![[r#"
        10:16:54 RuntimeDeploymentRequested dep-ee6d0887 reservations-api:1.4.1 over reservations-api:1.4.1 <- RuntimeDeploymentCompleted
        10:16:54 ~ stage reservations-api--dee6d0887 acr.azurecr.io/reservations-api:1.4.1
        10:16:58 ~ shift reservations-api to reservations-api--dd1d20b1e=90 reservations-api--dee6d0887=10
        10:17:01 ~ shift reservations-api to reservations-api--dd1d20b1e=50 reservations-api--dee6d0887=50
        10:17:04 ~ shift reservations-api to reservations-api--dee6d0887=100
        10:17:07 ~ deactivate reservations-api--dd1d20b1e
        10:17:07 RuntimeDeploymentCompleted dep-ee6d0887 reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:17:07 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.1 x4 <- RuntimeDeploymentCompleted
        10:17:09 ScalingPolicyApplied sp-ec077879 Up from 2 to 4: 4 to 4 instead of 2 to 2 replicas: the queue is in another subscription than the workload, so that the target has no rule for it and the platform sets 4 replicas, of 2 to 6; 35 messages wait, the target is 10 for each replica; health not looked at yet; the cooldown of 60 s since 2026-03-02T10:15:24Z is over. <- RuntimeDeploymentCompleted
        10:22:09 RuntimeDeploymentRequested dep-3b59b45c reservations-api:1.4.1 over reservations-api:1.4.1 <- RuntimeDeploymentCompleted
        10:22:09 ~ stage reservations-api--d3b59b45c acr.azurecr.io/reservations-api:1.4.1
        10:22:13 ~ shift reservations-api to reservations-api--d3b59b45c=10 reservations-api--dee6d0887=90
        10:22:16 ~ shift reservations-api to reservations-api--d3b59b45c=50 reservations-api--dee6d0887=50
        10:22:19 ~ shift reservations-api to reservations-api--d3b59b45c=100
        10:22:22 ~ deactivate reservations-api--dee6d0887
        10:22:22 RuntimeDeploymentCompleted dep-3b59b45c reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:22:22 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.1 x2 <- RuntimeDeploymentCompleted
        10:22:24 ScalingPolicyApplied sp-ec077879 Down from 4 to 2: 2 to 2 instead of 4 to 4 replicas: the queue is in another subscription than the workload, so that the target has no rule for it and the platform sets 2 replicas, of 2 to 6; 0 messages wait, the target is 10 for each replica; health not looked at yet; the cooldown of 300 s since 2026-03-02T10:17:09Z is over. <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
}

#[tokio::test]
async fn what_is_not_measured_changes_nothing() {
    let mut platform = serving().await;
    platform.run(&scale("scale-1", "QueueDepth", (1, 6), json!({ "target": 10, "queue": ELSEWHERE }))).await;
    platform.metrics.queue(ELSEWHERE, 500);
    platform.metrics.away(true);
    let place = platform.mark();
    sweep_after(&mut platform, 120).await;
    assert_eq!(platform.transcript_since(place), "");
    expect![[r#"
        nothing is measured, and what rests on it stays: reading metrics: 503: not available
        `module-reservations-api`: reading metrics: 503: not available"#]]
    .assert_eq(&notes(&platform).join("\n"));
    platform.metrics.away(false);
    sweep_after(&mut platform, 60).await;
    assert_eq!(platform.last("ScalingPolicyApplied")["toReplicas"], 5);
}

#[tokio::test]
async fn what_is_unhealthy_is_never_scaled_and_a_transition_is_looked_at_at_once() {
    let mut platform = serving().await;
    platform.run(&scale("scale-1", "QueueDepth", (1, 6), json!({ "target": 10, "queue": ELSEWHERE }))).await;
    platform.metrics.queue(ELSEWHERE, 40);
    health(&platform, "Unhealthy").await;
    let place = platform.mark();
    sweep_after(&mut platform, 600).await;
    assert_eq!(platform.transcript_since(place), "");
    assert!(said(&platform).contains("it is Unhealthy, and remediation comes first"), "{}", said(&platform));
    health(&platform, "Healthy").await;
    platform.clock.set(platform.clock.now() + SignedDuration::from_secs(5));
    health_is_told(&mut platform, HealthStatus::Healthy).await;
    expect![[r#"
        10:25:14 HealthCheckCompleted svc-b0deb1bf Healthy after null <- RuntimeDeploymentRequested
        10:25:14 RuntimeDeploymentRequested dep-887a503d reservations-api:1.4.1 over reservations-api:1.4.1 <- RuntimeDeploymentCompleted
        10:25:14 ~ stage reservations-api--d887a503d acr.azurecr.io/reservations-api:1.4.1
        10:25:18 ~ shift reservations-api to reservations-api--d887a503d=10 reservations-api--d9c2595bb=90
        10:25:21 ~ shift reservations-api to reservations-api--d887a503d=50 reservations-api--d9c2595bb=50
        10:25:24 ~ shift reservations-api to reservations-api--d887a503d=100
        10:25:27 ~ deactivate reservations-api--d9c2595bb
        10:25:27 RuntimeDeploymentCompleted dep-887a503d reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:25:27 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.1 x4 <- RuntimeDeploymentCompleted
        10:25:29 ScalingPolicyApplied sp-ec077879 Up from 1 to 4: 4 to 4 instead of 1 to 1 replicas: the queue is in another subscription than the workload, so that the target has no rule for it and the platform sets 4 replicas, of 1 to 6; 40 messages wait, the target is 10 for each replica; health Healthy; nothing was scaled before, so that no cooldown (60 s) counts. <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
}

#[tokio::test]
async fn a_quota_that_shrinks_takes_from_each_in_proportion() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    let quota =
        |id: &str, most: u32| bind(id, "acme", "shared").with("/quota", json!({ "maxReplicas": most }));
    platform.run(&quota("bind-1", 10)).await;
    platform.run(&deploy("deploy-1", "1.4.1").of("acme")).await;
    let theirs = |id: &str, most| cpu(id, most).with("/serviceId", json!(service("acme"))).of("acme");
    platform.run(&theirs("scale-1", 11)).await;
    let told = platform.last("RuntimeCommandFailed");
    assert_eq!(told["reasonCode"], "QuotaExceeded");
    platform.run(&theirs("scale-2", 8)).await;
    platform.run(&quota("bind-2", 3)).await;
    let place = platform.mark();
    sweep_after(&mut platform, 240).await;
    assert!(said(&platform).contains("the cooldown of 300 s"), "{}", said(&platform));
    sweep_after(&mut platform, 60).await;
    expect![[r#"
        10:20:24 RuntimeDeploymentRequested dep-5fe6378e reservations-api:1.4.1 over reservations-api:1.4.1 <- RuntimeDeploymentCompleted
        10:20:24 ~ stage t07433385-reservations-api--d5fe6378e acr.azurecr.io/reservations-api:1.4.1
        10:20:28 ~ shift t07433385-reservations-api to t07433385-reservations-api--d424e6f61=90 t07433385-reservations-api--d5fe6378e=10
        10:20:31 ~ shift t07433385-reservations-api to t07433385-reservations-api--d424e6f61=50 t07433385-reservations-api--d5fe6378e=50
        10:20:34 ~ shift t07433385-reservations-api to t07433385-reservations-api--d5fe6378e=100
        10:20:37 ~ deactivate t07433385-reservations-api--d424e6f61
        10:20:37 RuntimeDeploymentCompleted dep-5fe6378e reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:20:39 ScalingPolicyApplied sp-d2e286d3 Down from 1 to 1: 1 to 3 instead of 1 to 8 replicas: the policy's bounds are 1 to 8; the tenant's quota leaves 3 to it; Cpu is not measured, the target is 60 percent; health not looked at yet; the cooldown of 300 s since 2026-03-02T10:15:24Z is over. <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
    platform.run(&quota("bind-3", 20)).await;
    sweep_after(&mut platform, 60).await;
    assert_eq!(policy(&platform).bounds().max, 8);
}

#[tokio::test]
async fn a_hold_keeps_the_worker_off_and_is_said() {
    let mut platform = serving().await;
    platform.run(&scale("scale-1", "QueueDepth", (1, 6), json!({ "target": 10, "queue": ELSEWHERE }))).await;
    platform.metrics.queue(ELSEWHERE, 40);
    hold(&platform, HoldScope::Workload, 10).await;
    let place = platform.mark();
    sweep_after(&mut platform, 120).await;
    assert_eq!(platform.transcript_since(place), "");
    expect!["`module-reservations-api`: 4 to 4 instead of 1 to 1 replicas are wanted (the queue is in another subscription than the workload, so that the target has no rule for it and the platform sets 4 replicas, of 1 to 6), and wait: `ops` holds `module-reservations-api` until 2026-03-02T10:25:09Z (hold-239b78f8): incident 4711"].assert_eq(&notes(&platform).join("\n"));
    assert!(said(&platform).contains("incident 4711"), "{}", said(&platform));
    sweep_after(&mut platform, 600).await;
    assert_eq!(platform.last("ScalingPolicyApplied")["toReplicas"], 4);
}

#[tokio::test]
async fn what_is_being_deployed_is_left_alone_and_a_policy_waits_its_turn() {
    let mut platform = serving().await;
    platform.run(&scale("scale-1", "QueueDepth", (1, 6), json!({ "target": 10, "queue": ELSEWHERE }))).await;
    platform.metrics.queue(ELSEWHERE, 40);
    platform.clock.set(platform.clock.now() + SignedDuration::from_secs(120));
    platform.send(&deploy("deploy-2", "1.4.2"));
    platform
        .run_until("gating", |platform| platform.deployments().iter().any(|it| it == "1.4.2 HealthGating"))
        .await;
    platform.fire("ScalingSweep").await;
    platform.run_until("said", |platform| policy(platform).said.is_some()).await;
    assert!(said(&platform).contains("a deployment of it is in flight"), "{}", said(&platform));
    platform.run_until_quiet().await;
    assert_eq!(started_with(&platform), "1 to 1 by []");
    let mut platform = serving().await;
    platform.send(&deploy("deploy-2", "1.4.2"));
    platform
        .run_until("promoting", |platform| platform.deployments().iter().any(|it| it == "1.4.2 Promoting"))
        .await;
    platform.run(&cpu("scale-1", 5)).await;
    assert_eq!(platform.outcome("scale-1").await, ("Completed".into(), "ScalingPolicyApplied".into()));
    assert_eq!(platform.traffic(), ["1.4.2=100"]);
}

#[tokio::test]
async fn moves_that_do_not_pass_end_after_three() {
    let mut platform = serving().await;
    platform.run(&scale("scale-1", "QueueDepth", (1, 6), json!({ "target": 10, "queue": ELSEWHERE }))).await;
    platform.metrics.queue(ELSEWHERE, 40);
    platform.compute.image(&format!("{IMAGE}:1.4.1"), Behaviour::Answers(500));
    for _ in 0..6 {
        sweep_after(&mut platform, 120).await;
    }
    let rolled_back = platform.event_types().iter().filter(|it| *it == "RuntimeDeploymentRolledBack").count();
    assert_eq!(rolled_back, 3);
    assert!(said(&platform).contains("3 rollouts with it did not pass"), "{}", said(&platform));
}

#[tokio::test]
async fn sweeps_that_come_twice_or_die_scale_once() {
    let mut told = Vec::new();
    for (deliveries, death) in [
        (Deliveries::Once, None),
        (Deliveries::Twice, None),
        (Deliveries::TwoAtOnce, None),
        (Deliveries::Once, Some(1)),
        (Deliveries::Once, Some(2)),
        (Deliveries::Once, Some(4)),
        (Deliveries::Once, Some(7)),
    ] {
        let mut platform = serving().await;
        let queue = json!({ "target": 10, "queue": ELSEWHERE });
        platform.run(&scale("scale-1", "QueueDepth", (2, 6), queue)).await;
        platform.metrics.queue(ELSEWHERE, 40);
        platform.deliveries = deliveries;
        if let Some(commit) = death {
            platform.trouble.die_at_commit(platform.trouble.commits() + commit, When::After);
        }
        sweep_after(&mut platform, 120).await;
        sweep_after(&mut platform, 120).await;
        let events: Vec<Value> = platform
            .events()
            .into_iter()
            .filter(|event| event.event_type() == "ScalingPolicyApplied")
            .map(|event| json!([event.sequence, event.envelope.payload["toReplicas"]]))
            .collect();
        told.push((events, started_with(&platform)));
    }
    let first = told[0].clone();
    assert_eq!(first, (vec![json!([1, 2]), json!([2, 4])], "4 to 4 by []".to_owned()));
    assert!(told.iter().all(|it| *it == first), "{told:#?}");
}

#[tokio::test]
async fn many_policies_are_one_reading() {
    let mut platform = serving().await;
    platform.run(&cpu("scale-1", 5)).await;
    let mut other = deploy("deploy-2", "2.0");
    other.payload["workloads"][0]["moduleId"] = json!("module-billing");
    platform.run(&other).await;
    let billing = runtime_platform::ids::ServiceId::derived(
        &TENANT.parse().unwrap(),
        &environment(),
        &"module-billing".parse().unwrap(),
    );
    platform.run(&cpu("scale-2", 4).with("/serviceId", json!(billing))).await;
    sweep_after(&mut platform, 60).await;
    assert_eq!(platform.metrics.calls(), 1);
    let shown = platform.ask("ScalingPolicies", TENANT, &[("moduleId", "module-billing")]).await.body;
    assert_eq!(shown["items"].as_array().unwrap().len(), 1);
    assert_eq!(shown["items"][0]["inForce"]["maxReplicas"], 4);
    assert_eq!(platform.ask("ScalingPolicies", "acme", &[]).await.body["items"], json!([]));
}

#[tokio::test]
async fn what_cannot_be_applied_is_said_with_a_remedy() {
    let mut platform = serving().await;
    platform.run(&cpu("scale-1", 5)).await;
    let place = platform.mark();
    platform.run(&cpu("scale-2", 5)).await;
    platform.run(&cpu("scale-3", 5).with("/serviceId", json!("svc-00000000"))).await;
    platform.run(&cpu("scale-4", 5).with("/environmentId", json!("env-00000000"))).await;
    platform.run(&cpu("scale-5", 5).with("/kind", json!("Magic"))).await;
    platform.run(&cpu("scale-6", 5).of("acme")).await;
    let pause = json!({ "target": 60, "cooldownSeconds": 30 });
    platform.run(&scale("scale-7", "Cpu", (1, 5), pause)).await;
    platform.send(&cpu("scale-8", 6));
    platform.send(&cpu("scale-9", 7));
    platform.run_until_quiet().await;
    let told: String = platform
        .transcript_since(place)
        .lines()
        .filter(|line| line.contains("Command"))
        .map(|it| format!("{it}\n"))
        .collect();
    expect![[r#"
        10:15:24 RuntimeCommandCompleted scale-2 NoChange: `module-reservations-api` is scaled by `sp-ec077879` like that already: Cpu at 1 to 5 replicas. <- scale-2
        10:15:24 RuntimeCommandFailed scale-3 Rejected Conflict: Nothing serves in `env-cc58147b` as `svc-00000000`, and a policy is for what runs. Deploy it first, or correct payload.serviceId; `runtimectl get services` lists those there are. <- scale-3
        10:15:24 RuntimeCommandFailed scale-4 Rejected EnvironmentNotFound: There is no environment `env-00000000`. Send ProvisionEnvironment first, or correct payload.environmentId; `runtimectl get environments` lists those there are. <- scale-4
        10:15:24 RuntimeCommandFailed scale-5 Rejected InvalidPayload: payload.kind: it must be one of `Cpu`, `Memory`, `QueueDepth`, `RequestRate`, `Schedule`, `Fixed`. Correct the field and send the command with a new eventId. <- scale-5
        10:15:24 RuntimeCommandFailed scale-6 Rejected EnvironmentNotFound: There is no environment `env-cc58147b`. Send ProvisionEnvironment first, or correct payload.environmentId; `runtimectl get environments` lists those there are. <- scale-6
        10:15:24 RuntimeCommandCompleted scale-7 NoChange: `sp-ec077879` is kept; `module-reservations-api` has its bounds and rules already, 1 to 5 replicas. <- scale-7
        10:15:24 RuntimeCommandFailed scale-9 Rejected Conflict: `module-reservations-api` is being scaled by `op-1e56ae39`; wait for its end and send the command again. <- scale-9
    "#]].assert_eq(&told);
    let at: Timestamp = platform.clock.now();
    assert!(policy(&platform).last_scaled_at.is_some_and(|last| last <= at));
}
