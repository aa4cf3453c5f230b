//! Configurations: published, applied to one workload, and to the rest once that one has passed.

use expect_test::expect;
use runtime_platform::{
    ports::compute::ConfigurationEntry,
    services::runtime_configuration_service::{ConfigurationVersion, WorkloadConfiguration},
};
use serde_json::json;

use crate::support::{
    builders::{Order, deploy, provision, publish_configuration as publish},
    fakes::compute::Behaviour,
    faulty::When,
    test_platform::TestPlatform,
};

/// The workload of a module that [`of_module`] deploys.
const OTHERS: [&str; 2] = ["module-billing", "module-search"];

fn of_module(order: Order, module: &str) -> Order {
    order.with("/workloads/0/moduleId", json!(module))
}

/// An environment with three workloads that serve.
async fn three_serve() -> TestPlatform {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    for (number, module) in OTHERS.iter().enumerate() {
        platform.run(&of_module(deploy(&format!("deploy-other-{number}"), "1.4.1"), module)).await;
    }
    platform
}

fn carried(platform: &TestPlatform) -> Vec<(String, Option<u64>)> {
    let version =
        |name: &str| platform.compute.serving(name).unwrap().configuration.map(|entry| entry.version);
    ["billing", "reservations-api", "search"].map(|name| (name.to_owned(), version(name))).into()
}

fn all_carry(version: Option<u64>) -> Vec<(String, Option<u64>)> {
    ["billing", "reservations-api", "search"].map(|name| (name.to_owned(), version)).into()
}

#[tokio::test]
async fn a_version_comes_to_one_workload_first_and_to_the_rest_when_that_has_passed() {
    let mut platform = three_serve().await;
    let place = platform.mark();
    platform.run(&publish("publish-1", json!({ "LOG_LEVEL": "debug" }))).await;
    expect![[r#"
        10:15:17 > PublishConfiguration publish-1
        10:15:17 ConfigurationPublished version 1 for 3 workloads <- publish-1
        10:15:17 ConfigurationSynced version 1 at svc-b2eef1c8 <- ConfigurationPublished
        10:15:17 RuntimeDeploymentRequested dep-fce63ff7 reservations-api:1.4.1 over reservations-api:1.4.1 <- ConfigurationSynced
        10:15:17 ~ stage billing--dfce63ff7 acr.azurecr.io/reservations-api:1.4.1
        10:15:21 ~ shift billing to billing--d509a1449=90 billing--dfce63ff7=10
        10:15:24 ~ shift billing to billing--d509a1449=50 billing--dfce63ff7=50
        10:15:27 ~ shift billing to billing--dfce63ff7=100
        10:15:30 ~ deactivate billing--d509a1449
        10:15:30 RuntimeDeploymentCompleted dep-fce63ff7 reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:15:32 ConfigurationSynced version 1 at svc-b0deb1bf <- ConfigurationPublished
        10:15:32 ConfigurationSynced version 1 at svc-b61054ad <- ConfigurationPublished
        10:15:32 RuntimeDeploymentRequested dep-b9eb06de reservations-api:1.4.1 over reservations-api:1.4.1 <- ConfigurationSynced
        10:15:32 RuntimeDeploymentRequested dep-7d2e5388 reservations-api:1.4.1 over reservations-api:1.4.1 <- ConfigurationSynced
        10:15:32 ~ stage reservations-api--db9eb06de acr.azurecr.io/reservations-api:1.4.1
        10:15:32 ~ stage search--d7d2e5388 acr.azurecr.io/reservations-api:1.4.1
        10:15:36 ~ shift reservations-api to reservations-api--d9c2595bb=90 reservations-api--db9eb06de=10
        10:15:36 ~ shift search to search--d7d2e5388=10 search--da2f77f71=90
        10:15:39 ~ shift reservations-api to reservations-api--d9c2595bb=50 reservations-api--db9eb06de=50
        10:15:39 ~ shift search to search--d7d2e5388=50 search--da2f77f71=50
        10:15:42 ~ shift reservations-api to reservations-api--db9eb06de=100
        10:15:42 ~ shift search to search--d7d2e5388=100
        10:15:45 ~ deactivate reservations-api--d9c2595bb
        10:15:45 RuntimeDeploymentCompleted dep-b9eb06de reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:15:45 ~ deactivate search--da2f77f71
        10:15:45 RuntimeDeploymentCompleted dep-7d2e5388 reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(carried(&platform), all_carry(Some(1)));
    assert_eq!(platform.outcome("publish-1").await, ("Completed".into(), "ConfigurationPublished".into()));
}

#[tokio::test]
async fn a_version_that_fails_at_the_first_workload_comes_to_no_other() {
    let mut platform = three_serve().await;
    platform.run(&publish("publish-1", json!({ "LOG_LEVEL": "debug" }))).await;
    platform.compute.configuration(2, Behaviour::Answers(500));
    let place = platform.mark();
    platform.run(&publish("publish-2", json!({ "LOG_LEVEL": "nonsense" }))).await;
    expect![[r#"
        10:15:47 > PublishConfiguration publish-2
        10:15:47 ConfigurationPublished version 2 for 3 workloads <- publish-2
        10:15:47 ConfigurationSynced version 2 at svc-b2eef1c8 <- ConfigurationPublished
        10:15:47 RuntimeDeploymentRequested dep-acddbb70 reservations-api:1.4.1 over reservations-api:1.4.1 <- ConfigurationSynced
        10:15:47 ~ stage billing--dacddbb70 acr.azurecr.io/reservations-api:1.4.1
        10:15:51 ~ deactivate billing--dacddbb70
        10:15:51 RuntimeDeploymentRolledBack dep-acddbb70 reservations-api:1.4.1 to reservations-api:1.4.1 (dep-fce63ff7), GateFailed, gate Failed <- RuntimeDeploymentRequested
        10:15:53 RuntimeCommandFailed publish-2 Failed GateFailed: Version 2 did not pass and was applied to no other workload; version 1 stays in place. It failed at `module-billing` (2 failures, 1 allowed; in the last sample it answered 500). See `runtimectl explain` of its deployment, and publish a corrected version. <- ConfigurationPublished
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(carried(&platform), all_carry(Some(1)));
    assert_eq!(platform.outcome("publish-2").await, ("Failed".into(), "RuntimeCommandFailed".into()));
    let held: Vec<_> =
        platform.states::<WorkloadConfiguration>().iter().map(|it| (it.applied, it.confirmed)).collect();
    assert_eq!(held, [(Some(1), Some(1)); 3]);
    let mut pinned = of_module(deploy("deploy-9", "1.4.2"), OTHERS[0]);
    for (version, code) in [(1, "-"), (2, "Quarantined")] {
        pinned.payload["configurationVersion"] = json!(version);
        pinned = Order {
            event_id: format!("deploy-pinned-{version}"),
            message_id: format!("pinned-{version}"),
            ..pinned
        };
        platform.run(&pinned).await;
        let failed = platform
            .events()
            .into_iter()
            .find(|event| event.envelope.payload["commandId"] == pinned.event_id.as_str());
        let told = failed.map_or("-".to_owned(), |event| {
            event.envelope.payload["reasonCode"].as_str().unwrap().to_owned()
        });
        assert_eq!(told, code, "version {version}");
    }
    // The content that is in place again is what is wanted, and the one that failed may be tried anew.
    platform.run(&publish("publish-3", json!({ "LOG_LEVEL": "debug" }))).await;
    assert_eq!(platform.outcome("publish-3").await, ("Completed".into(), "RuntimeCommandCompleted".into()));
    platform.run(&publish("publish-4", json!({ "LOG_LEVEL": "nonsense" }))).await;
    assert_eq!(carried(&platform), all_carry(Some(3)));
}

#[tokio::test]
async fn a_deployment_starts_with_the_version_that_has_passed() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    platform.run(&publish("publish-1", json!({ "LOG_LEVEL": "debug" }))).await;
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    let version = platform.states::<ConfigurationVersion>().pop().unwrap();
    let entry =
        ConfigurationEntry { version: 1, content_hash: version.content_hash, settings: version.settings };
    assert_eq!(platform.compute.serving("reservations-api").unwrap().configuration, Some(entry));
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    assert_eq!(
        platform.compute.serving("reservations-api").unwrap().configuration.map(|it| it.version),
        Some(1)
    );
}

#[tokio::test]
async fn an_older_version_never_overtakes_a_newer_one() {
    let mut platform = three_serve().await;
    platform.send(&publish("publish-1", json!({ "LOG_LEVEL": "debug" })));
    platform
        .run_until("synced", |platform| platform.event_types().contains(&"ConfigurationSynced".to_owned()))
        .await;
    platform.run(&publish("publish-2", json!({ "LOG_LEVEL": "info" }))).await;
    assert_eq!(carried(&platform), all_carry(Some(2)));
    assert_eq!(platform.outcome("publish-1").await, ("Completed".into(), "ConfigurationPublished".into()));
    assert_eq!(platform.outcome("publish-2").await, ("Completed".into(), "ConfigurationPublished".into()));
}

#[tokio::test]
async fn one_event_is_published_for_each_workload_and_version_whatever_dies() {
    for commit in 0..12 {
        let mut platform = three_serve().await;
        platform.trouble.die_at_commit(platform.trouble.commits() + commit * 4 + 1, When::After);
        platform.run(&publish("publish-1", json!({ "LOG_LEVEL": "debug" }))).await;
        let synced = platform.event_types().iter().filter(|event| *event == "ConfigurationSynced").count();
        assert_eq!(synced, 3, "{}", platform.transcript());
        assert_eq!(carried(&platform), all_carry(Some(1)));
    }
}

#[tokio::test]
async fn a_lost_event_is_made_good() {
    let mut platform = three_serve().await;
    platform.send(&publish("publish-1", json!({ "LOG_LEVEL": "debug" })));
    platform
        .run_until("synced", |platform| platform.event_types().contains(&"ConfigurationSynced".to_owned()))
        .await;
    let lost: Vec<_> =
        platform.broker.ready().into_iter().map(|number| platform.broker.take(number)).collect();
    let (lost, others): (Vec<_>, Vec<_>) =
        lost.into_iter().partition(|held| held.message.entity.starts_with("runtime.configuration"));
    assert_eq!(lost.len(), 1);
    others
        .into_iter()
        .for_each(|held| platform.broker.put_back(held, "2026-03-02T10:15:00Z".parse().unwrap()));
    platform.run_until_quiet().await;
    assert_eq!(carried(&platform), all_carry(Some(1)));
    assert_eq!(platform.outcome("publish-1").await, ("Completed".into(), "ConfigurationPublished".into()));
}

#[tokio::test]
async fn what_a_publisher_gets_wrong_is_refused_with_a_sentence() {
    let mut platform = three_serve().await;
    platform.run(&publish("publish-1", json!({ "LOG_LEVEL": "debug" }))).await;
    let place = platform.mark();
    let mut lost = publish("publish-2", json!({ "LOG_LEVEL": "info" }));
    lost.payload["expectedVersion"] = json!(0);
    platform.run(&lost).await;
    platform.run(&publish("publish-3", json!({ "DB_PASSWORD": "hunter2" }))).await;
    platform.run(&publish("publish-4", json!({ "LOG_LEVEL": 3 }))).await;
    let mut bound = publish("publish-5", json!({}));
    bound.payload["secretRefs"] = json!({ "DB_PASSWORD": "sb-00000000" });
    platform.run(&bound).await;
    platform.run(&publish("publish-6", json!({ "LOG_LEVEL": "debug" }))).await;
    platform.run(&publish("publish-7", json!({})).with("/environmentId", json!("env-00000000"))).await;
    let mut unknown = deploy("deploy-9", "1.4.2");
    unknown.payload["configurationVersion"] = json!(9);
    platform.run(&unknown).await;
    expect![[r#"
        10:15:47 > PublishConfiguration publish-2
        10:15:47 RuntimeCommandFailed publish-2 Rejected Conflict: payload.expectedVersion: 0 was expected, and the newest version is 1. Read it with `runtimectl get configurations`, carry your change over, and publish with expectedVersion 1. <- publish-2
        10:15:47 > PublishConfiguration publish-3
        10:15:47 RuntimeCommandFailed publish-3 Rejected InvalidPayload: payload.settings.DB_PASSWORD: its name says that it is one, and a configuration holds no secrets. Put the value into Key Vault, send BindSecret, and name the binding in secretRefs; or rename the setting if it is none. <- publish-3
        10:15:47 > PublishConfiguration publish-4
        10:15:47 RuntimeCommandFailed publish-4 Rejected InvalidPayload: payload.settings.LOG_LEVEL: it must be a text. Correct the field and send the command with a new eventId. <- publish-4
        10:15:47 > PublishConfiguration publish-5
        10:15:47 RuntimeCommandFailed publish-5 Rejected InvalidPayload: payload.secretRefs.DB_PASSWORD: there is no secret binding `sb-00000000` in `env-cc58147b`; send BindSecret first. <- publish-5
        10:15:47 > PublishConfiguration publish-6
        10:15:47 RuntimeCommandCompleted publish-6 NoChange: `env-cc58147b` wants this content already (1 settings, sha256:860c4c2c51b4e1b728c72598799eb48316a633018ebaa8e93eb6f697263c70c6); no version was made. <- publish-6
        10:15:47 > PublishConfiguration publish-7
        10:15:47 RuntimeCommandFailed publish-7 Rejected EnvironmentNotFound: There is no environment `env-00000000`. Send ProvisionEnvironment first, or correct payload.environmentId; `runtimectl get environments` lists those there are. <- publish-7
        10:15:47 > Deploy deploy-9
        10:15:47 RuntimeCommandFailed deploy-9 Rejected InvalidPayload: payload.configurationVersion: version 9 was never published; `runtimectl get configurations` lists those there are. <- deploy-9
    "#]].assert_eq(&platform.transcript_since(place));
}

#[tokio::test]
async fn versions_are_read_with_how_far_they_have_come() {
    let mut platform = three_serve().await;
    platform.run(&publish("publish-1", json!({ "LOG_LEVEL": "debug" }))).await;
    let listed = platform.get("Configurations", None).await.body;
    let id = listed["items"][0]["configurationId"].as_str().unwrap().to_owned();
    let one = platform.get("Configurations", Some(&format!("{id}-v1"))).await.body;
    assert_eq!(one, platform.get("Configurations", Some(&id)).await.body);
    assert_eq!(one, listed["items"][0]);
    assert_eq!((&one["version"], &one["settings"]), (&json!(1), &json!({ "LOG_LEVEL": "debug" })));
    let stages: Vec<_> = one["workloads"].as_array().unwrap().iter().map(|it| it["stage"].clone()).collect();
    assert_eq!(stages, ["Confirmed"; 3]);
    assert_eq!(platform.get("Configurations", Some(&format!("{id}-v2"))).await.status, 404);
}
