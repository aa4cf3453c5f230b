//! Health: three bad looks alarm, two good ones clear, and an ill prober alarms nobody.

use expect_test::expect;
use jiff::SignedDuration;
use runtime_platform::{
    ports::clock::Clock,
    services::runtime_health_service::{Health, HealthCheckResult},
};
use serde_json::json;

use super::story::serving;
use crate::support::{
    builders::{IMAGE, Order, deploy},
    fakes::compute::Behaviour,
    test_platform::{Deliveries, TestPlatform},
};

/// Sweeps, half a minute apart.
async fn sweeps(platform: &mut TestPlatform, times: u32) {
    for _ in 0..times {
        platform.clock.set(platform.clock.now() + SignedDuration::from_secs(30));
        platform.fire("HealthSweep").await;
        platform.run_until_quiet().await;
    }
}

fn healths(platform: &TestPlatform) -> Vec<Health> {
    platform.states::<HealthCheckResult>().into_iter().map(|result| result.status).collect()
}

fn module(number: u32) -> Order {
    let mut order = deploy(&format!("deploy-m{number}"), "1.4.1");
    order.payload["workloads"][0]["moduleId"] = json!(format!("module-m{number}"));
    order
}

#[tokio::test]
async fn three_bad_looks_alarm_once_and_two_good_ones_clear() {
    let mut platform = serving().await;
    let place = platform.mark();
    sweeps(&mut platform, 2).await;
    platform.compute.image(&format!("{IMAGE}:1.4.1"), Behaviour::Answers(500));
    sweeps(&mut platform, 4).await;
    platform.compute.image(&format!("{IMAGE}:1.4.1"), Behaviour::Good);
    sweeps(&mut platform, 3).await;
    expect![[r#"
        10:15:39 HealthCheckCompleted svc-b0deb1bf Healthy after null <- RuntimeDeploymentCompleted
        10:17:39 HealthCheckCompleted svc-b0deb1bf Unhealthy after Healthy <- RuntimeDeploymentCompleted
        10:17:39 RuntimeInventoryUpdated svc-b0deb1bf Changed Failed reservations-api:1.4.1 x1 <- RuntimeDeploymentCompleted
        10:19:09 HealthCheckCompleted svc-b0deb1bf Healthy after Unhealthy <- RuntimeDeploymentCompleted
        10:19:09 RuntimeInventoryUpdated svc-b0deb1bf Changed Running reservations-api:1.4.1 x1 <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
    let result = platform.states::<HealthCheckResult>().pop().unwrap();
    let read = platform.get("ServiceHealth", Some(result.service_id.as_str())).await;
    expect![[r#"
        [
          {
            "at": "2026-03-02T10:15:39Z",
            "from": "Unknown",
            "to": "Healthy",
            "why": "1 of 1 replicas are ready; answered 200 after 5 ms"
          },
          {
            "at": "2026-03-02T10:17:39Z",
            "from": "Healthy",
            "to": "Unhealthy",
            "why": "1 of 1 replicas are ready; answered 500 after 5 ms (asked 3 times)"
          },
          {
            "at": "2026-03-02T10:19:09Z",
            "from": "Unhealthy",
            "to": "Healthy",
            "why": "1 of 1 replicas are ready; answered 200 after 5 ms"
          }
        ]"#]]
    .assert_eq(&format!("{:#}", read.body["transitions"]));
}

#[tokio::test]
async fn one_bad_look_alarms_nobody() {
    let mut platform = serving().await;
    sweeps(&mut platform, 1).await;
    for _ in 0..3 {
        platform.compute.image(&format!("{IMAGE}:1.4.1"), Behaviour::Answers(500));
        sweeps(&mut platform, 2).await;
        platform.compute.image(&format!("{IMAGE}:1.4.1"), Behaviour::Good);
        sweeps(&mut platform, 1).await;
    }
    assert_eq!(healths(&platform), [Health::Healthy]);
}

#[tokio::test]
async fn a_heartbeat_comes_every_five_minutes_and_says_what_it_is() {
    let mut platform = serving().await;
    sweeps(&mut platform, 21).await;
    let kinds: Vec<_> = platform
        .events()
        .into_iter()
        .filter(|event| event.event_type() == "HealthCheckCompleted")
        .map(|event| event.properties["cs-change"].clone())
        .collect();
    assert_eq!(kinds, ["transition", "heartbeat", "heartbeat"]);
}

#[tokio::test]
async fn a_sweep_that_comes_twice_changes_nothing() {
    let mut told = Vec::new();
    for deliveries in [Deliveries::Once, Deliveries::Twice, Deliveries::TwoAtOnce] {
        let mut platform = serving().await;
        platform.deliveries = deliveries;
        sweeps(&mut platform, 1).await;
        platform.compute.image(&format!("{IMAGE}:1.4.1"), Behaviour::Answers(500));
        sweeps(&mut platform, 3).await;
        assert_eq!(healths(&platform), [Health::Unhealthy], "{deliveries:?}");
        told.push(platform.event_types().iter().filter(|it| *it == "HealthCheckCompleted").count());
    }
    assert_eq!(told, [2, 2, 2]);
}

#[tokio::test]
async fn when_many_flip_at_once_the_prober_is_ill_and_a_fleet_that_really_fails_is_told_later() {
    let mut platform = serving().await;
    for number in 0..3 {
        platform.run(&module(number)).await;
    }
    sweeps(&mut platform, 1).await;
    let place = platform.mark();
    platform.compute.image(&format!("{IMAGE}:1.4.1"), Behaviour::Answers(503));
    sweeps(&mut platform, 3).await;
    assert_eq!(healths(&platform), [Health::Unknown; 4]);
    assert_eq!(platform.transcript_since(place).matches("HealthCheckCompleted").count(), 0);
    let report = platform.documents().into_iter().rev().find(|stored| stored.document.id == "sweep-health");
    let notes = report.unwrap().document.body["notes"].to_string();
    assert!(notes.contains("4 of 4 workloads turned Unhealthy at once"), "{notes}");
    sweeps(&mut platform, 3).await;
    assert_eq!(healths(&platform), [Health::Unhealthy; 4]);
}

#[tokio::test]
async fn when_the_canary_does_not_answer_nobody_is_blamed() {
    let mut platform = serving().await;
    sweeps(&mut platform, 1).await;
    platform.probe.reach(false);
    sweeps(&mut platform, 5).await;
    assert_eq!(healths(&platform), [Health::Unknown]);
    platform.probe.reach(true);
    sweeps(&mut platform, 1).await;
    assert_eq!(healths(&platform), [Health::Healthy]);
}

#[tokio::test]
async fn a_platform_that_cannot_ask_azure_judges_nothing() {
    let mut platform = serving().await;
    sweeps(&mut platform, 1).await;
    let before = healths(&platform);
    platform.compute.forget("reservations-api");
    sweeps(&mut platform, 1).await;
    assert_eq!(healths(&platform), before, "one look without replicas is one bad look");
    sweeps(&mut platform, 3).await;
    assert_eq!(healths(&platform), [Health::Unhealthy]);
}
