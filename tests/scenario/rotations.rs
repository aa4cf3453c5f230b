//! Rotations: a version is made or found, bindings move, workloads confirm, and the old version goes
//! when nobody uses it any more.

use std::time::Duration;

use expect_test::expect;
use jiff::SignedDuration;
use runtime_platform::{
    holds::HoldScope,
    operations::{Kind, Operation},
    ports::clock::Clock,
    services::{
        deployment_service::Slot,
        secret_binding_service::{SecretBinding, SecretRotation},
    },
    sweeps::SweepReport,
};
use serde_json::json;

use super::{holds::hold, story::serving};
use crate::support::{
    builders::{
        OTHER_MODULE, bind_secret as bind, bind_secret_other, binding, deploy, deploy_other, provision,
        rollback, rotate, secret,
    },
    fakes::compute::Behaviour,
    test_platform::TestPlatform,
};

const APP: &str = "reservations-api";
const OTHER_APP: &str = "billing-api";

/// 1.4.1 serves, started with the first version of `db-password`.
async fn bound() -> TestPlatform {
    let mut platform = serving().await;
    platform.run(&bind("bind-1", "db-password")).await;
    platform
}

/// A second workload serves, started with the same version.
async fn shared() -> TestPlatform {
    let mut platform = bound().await;
    platform.run(&deploy_other("deploy-other", "1.0")).await;
    platform.run(&bind_secret_other("bind-other", "db-password")).await;
    platform
}

/// 1.4.1 serves with a version of `db-password` that its issuer put there.
async fn external() -> TestPlatform {
    let mut platform = serving().await;
    platform.vault.put(&secret("db-password"), "theirs1");
    platform.run(&bind("bind-1", "db-password").with("/source", json!("External"))).await;
    platform
}

/// The version that a workload which serves was started with.
fn version(platform: &TestPlatform, app: &str) -> String {
    let serving = platform.compute.serving(app).expect("it serves");
    serving.secrets[0].key_vault_url.rsplit('/').next().unwrap().to_owned()
}

fn enabled(platform: &TestPlatform) -> Vec<String> {
    platform.vault.enabled(&secret("db-password"))
}

/// Bindings as `version status`, in order of their ids.
fn bindings(platform: &TestPlatform) -> Vec<String> {
    let told =
        |binding: SecretBinding| format!("{} {:?}", binding.version.unwrap_or_default(), binding.status);
    platform.states::<SecretBinding>().into_iter().map(told).collect()
}

fn reason(platform: &TestPlatform) -> String {
    platform.states::<SecretBinding>()[0].reason.clone().unwrap_or_default()
}

/// Time passes, and the sweep comes; what it reported.
async fn sweep_after(platform: &mut TestPlatform, hours: i64) -> Vec<String> {
    platform.clock.set(platform.clock.now() + SignedDuration::from_hours(hours));
    platform.fire("RotationSweep").await;
    platform.run_until_quiet().await;
    let reports = platform.states::<SweepReport>();
    let report = reports.into_iter().find(|report| report.environment_id != "_");
    report.expect("the environment was swept").notes
}

#[tokio::test]
async fn a_secret_is_rotated_and_its_workload_confirms() {
    let mut platform = bound().await;
    let place = platform.mark();
    platform.run(&rotate("rotate-1", "db-password", "Manual")).await;
    expect![[r#"
        10:15:22 > RotateSecret rotate-1
        10:15:22 SecretRotated sb-f408ad28 db-password from generated1 to generated2 (Manual) <- rotate-1
        10:15:22 RuntimeDeploymentRequested dep-b1c56ecf reservations-api:1.4.1 over reservations-api:1.4.1 <- SecretRotated
        10:15:22 ~ stage reservations-api--db1c56ecf acr.azurecr.io/reservations-api:1.4.1
        10:15:26 ~ shift reservations-api to reservations-api--d4dbb3a7c=90 reservations-api--db1c56ecf=10
        10:15:29 ~ shift reservations-api to reservations-api--d4dbb3a7c=50 reservations-api--db1c56ecf=50
        10:15:32 ~ shift reservations-api to reservations-api--db1c56ecf=100
        10:15:35 ~ deactivate reservations-api--d4dbb3a7c
        10:15:35 RuntimeDeploymentCompleted dep-b1c56ecf reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.outcome("rotate-1").await, ("Completed".into(), "SecretRotated".into()));
    assert_eq!(
        (version(&platform, APP).as_str(), bindings(&platform)),
        ("generated2", vec!["generated2 Active".into()])
    );
    // Before its overlap is over the old version stays; then it goes.
    assert_eq!(sweep_after(&mut platform, 0).await, Vec::<String>::new());
    assert_eq!(enabled(&platform), ["generated1", "generated2"]);
    expect!["version generated1 of `db-password` is disabled: nobody uses it any more"]
        .assert_eq(&sweep_after(&mut platform, 2).await.join("\n"));
    assert_eq!(enabled(&platform), ["generated2"]);
    assert!(platform.states::<SecretRotation>()[0].retiring.is_empty());
}

#[tokio::test]
async fn workloads_that_share_a_secret_are_refreshed_one_after_the_other() {
    let mut platform = shared().await;
    let place = platform.mark();
    platform.run(&rotate("rotate-1", "db-password", "Manual")).await;
    expect![[r#"
        10:15:39 > RotateSecret rotate-1
        10:15:39 SecretRotated sb-f408ad28 db-password from generated1 to generated2 (Manual) <- rotate-1
        10:15:39 RuntimeDeploymentRequested dep-b1c56ecf reservations-api:1.4.1 over reservations-api:1.4.1 <- SecretRotated
        10:15:39 ~ stage reservations-api--db1c56ecf acr.azurecr.io/reservations-api:1.4.1
        10:15:43 ~ shift reservations-api to reservations-api--d4dbb3a7c=90 reservations-api--db1c56ecf=10
        10:15:46 ~ shift reservations-api to reservations-api--d4dbb3a7c=50 reservations-api--db1c56ecf=50
        10:15:49 ~ shift reservations-api to reservations-api--db1c56ecf=100
        10:15:52 ~ deactivate reservations-api--d4dbb3a7c
        10:15:52 RuntimeDeploymentCompleted dep-b1c56ecf reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:15:54 SecretRotated sb-357a5bff db-password from generated1 to generated2 (Manual) <- rotate-1
        10:15:54 RuntimeDeploymentRequested dep-9f535a61 billing-api:1.0 over billing-api:1.0 <- SecretRotated
        10:15:54 ~ stage billing-api--d9f535a61 acr.azurecr.io/billing-api:1.0
        10:15:58 ~ shift billing-api to billing-api--d573d3334=90 billing-api--d9f535a61=10
        10:16:01 ~ shift billing-api to billing-api--d573d3334=50 billing-api--d9f535a61=50
        10:16:04 ~ shift billing-api to billing-api--d9f535a61=100
        10:16:07 ~ deactivate billing-api--d573d3334
        10:16:07 RuntimeDeploymentCompleted dep-9f535a61 billing-api:1.0 over billing-api:1.0, gate Passed <- RuntimeDeploymentRequested
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!([version(&platform, APP), version(&platform, OTHER_APP)], ["generated2", "generated2"]);
    assert_eq!(bindings(&platform), ["generated2 Active", "generated2 Active"]);
}

#[tokio::test]
async fn a_workload_that_does_not_pass_keeps_its_version_and_so_does_its_binding() {
    let mut platform = bound().await;
    platform.compute.secret("generated2", Behaviour::Answers(500));
    let place = platform.mark();
    platform.run(&rotate("rotate-1", "db-password", "Manual")).await;
    expect![[r#"
        10:15:22 > RotateSecret rotate-1
        10:15:22 SecretRotated sb-f408ad28 db-password from generated1 to generated2 (Manual) <- rotate-1
        10:15:22 RuntimeDeploymentRequested dep-b1c56ecf reservations-api:1.4.1 over reservations-api:1.4.1 <- SecretRotated
        10:15:22 ~ stage reservations-api--db1c56ecf acr.azurecr.io/reservations-api:1.4.1
        10:15:26 ~ deactivate reservations-api--db1c56ecf
        10:15:26 RuntimeDeploymentRolledBack dep-b1c56ecf reservations-api:1.4.1 to reservations-api:1.4.1 (dep-4dbb3a7c), GateFailed, gate Failed <- RuntimeDeploymentRequested
        10:15:27 SecretRotated sb-f408ad28 db-password from generated2 to generated1 (Manual) <- rotate-1
        10:15:27 RuntimeCommandFailed rotate-1 Failed GateFailed: `module-reservations-api` did not pass with version generated2 of `db-password` and keeps version generated1, which stays enabled: `dep-b1c56ecf` did not pass: 2 failures, 1 allowed; in the last sample it answered 500. See `runtimectl explain` of its deployment, mend it or the secret, and send RotateSecret again. <- rotate-1
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.outcome("rotate-1").await, ("Failed".into(), "RuntimeCommandFailed".into()));
    assert_eq!(
        (version(&platform, APP).as_str(), bindings(&platform)),
        ("generated1", vec!["generated1 Active".into()])
    );
    assert!(reason(&platform).contains("did not pass"), "{}", reason(&platform));
    // The version that nobody uses goes, and the one that is used stays.
    sweep_after(&mut platform, 2).await;
    assert_eq!(enabled(&platform), ["generated1"]);
    // The next one passes.
    platform.run(&rotate("rotate-2", "db-password", "Manual")).await;
    assert_eq!(version(&platform, APP), "generated3");
    sweep_after(&mut platform, 2).await;
    assert_eq!(enabled(&platform), ["generated3"]);
}

#[tokio::test]
async fn what_cannot_be_verified_changes_nothing() {
    let mut platform = bound().await;
    platform.vault.empty("generated2");
    let place = platform.mark();
    platform.run(&rotate("rotate-1", "db-password", "Manual")).await;
    expect![[r#"
        10:15:22 > RotateSecret rotate-1
        10:15:22 RuntimeCommandFailed rotate-1 Failed Conflict: Version generated2 of `db-password` cannot be read: it is disabled, or has no value. What was bound stays bound. See the version in `https://kv-95150196cd1a5f4e8cc1.vault.azure.net` and send RotateSecret again. <- rotate-1
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(
        (version(&platform, APP).as_str(), bindings(&platform)),
        ("generated1", vec!["generated1 Active".into()])
    );
    assert!(!reason(&platform).is_empty());
}

#[tokio::test]
async fn an_issuers_new_version_is_what_an_external_secret_moves_to() {
    let mut platform = external().await;
    platform.vault.put(&secret("db-password"), "theirs2");
    platform.run(&rotate("rotate-1", "db-password", "Manual")).await;
    assert_eq!(version(&platform, APP), "theirs2");
    let place = platform.mark();
    platform.run(&rotate("rotate-2", "db-password", "Manual")).await;
    platform.run(&rotate("rotate-3", "db-password", "Manual").with("/version", json!("theirs2"))).await;
    platform.run(&rotate("rotate-4", "db-password", "Manual").with("/version", json!("theirs9"))).await;
    let mut generate = rotate("rotate-5", "db-password", "Manual");
    generate.payload["source"] = json!("Generated");
    platform.run(&generate).await;
    expect![[r#"
        10:15:37 > RotateSecret rotate-2
        10:15:37 RuntimeCommandCompleted rotate-2 NoChange: `db-password` is at version theirs2 everywhere already. <- rotate-2
        10:15:37 > RotateSecret rotate-3
        10:15:37 RuntimeCommandCompleted rotate-3 NoChange: `sb-f408ad28` is at version theirs2 of `db-password` already. <- rotate-3
        10:15:37 > RotateSecret rotate-4
        10:15:37 RuntimeCommandFailed rotate-4 Failed Conflict: There is no enabled version theirs9 of `db-password` in `https://kv-95150196cd1a5f4e8cc1.vault.azure.net`. Put it there, or name another, and send RotateSecret again; what was bound stays bound. <- rotate-4
        10:15:37 > RotateSecret rotate-5
        10:15:37 RuntimeCommandFailed rotate-5 Rejected NotSupported: `db-password` is external (`sb-f408ad28` says so): a new value in the vault does not change what its issuer accepts. Have the issuer make one and put it into `https://kv-95150196cd1a5f4e8cc1.vault.azure.net`, then send RotateSecret with source `External`, or without one. <- rotate-5
    "#]].assert_eq(&platform.transcript_since(place));
    // Back to the one before, by its name.
    platform.run(&rotate("rotate-6", "db-password", "Manual").with("/version", json!("theirs1"))).await;
    assert_eq!(version(&platform, APP), "theirs1");
    sweep_after(&mut platform, 2).await;
    assert_eq!(enabled(&platform), ["theirs1"]);
}

#[tokio::test]
async fn a_compromised_version_is_disabled_with_the_last_confirmation() {
    let mut platform = shared().await;
    let place = platform.mark();
    platform.run(&rotate("rotate-1", "db-password", "Compromised")).await;
    expect![[r#"
        10:15:39 > RotateSecret rotate-1
        10:15:39 SecretRotated sb-f408ad28 db-password from generated1 to generated2 (Compromised) <- rotate-1
        10:15:39 SecretRotated sb-357a5bff db-password from generated1 to generated2 (Compromised) <- rotate-1
        10:15:39 RuntimeDeploymentRequested dep-b1c56ecf reservations-api:1.4.1 over reservations-api:1.4.1 <- SecretRotated
        10:15:39 RuntimeDeploymentRequested dep-9f535a61 billing-api:1.0 over billing-api:1.0 <- SecretRotated
        10:15:39 ~ stage reservations-api--db1c56ecf acr.azurecr.io/reservations-api:1.4.1
        10:15:39 ~ stage billing-api--d9f535a61 acr.azurecr.io/billing-api:1.0
        10:15:43 ~ shift reservations-api to reservations-api--d4dbb3a7c=90 reservations-api--db1c56ecf=10
        10:15:43 ~ shift billing-api to billing-api--d573d3334=90 billing-api--d9f535a61=10
        10:15:46 ~ shift reservations-api to reservations-api--d4dbb3a7c=50 reservations-api--db1c56ecf=50
        10:15:46 ~ shift billing-api to billing-api--d573d3334=50 billing-api--d9f535a61=50
        10:15:49 ~ shift reservations-api to reservations-api--db1c56ecf=100
        10:15:49 ~ shift billing-api to billing-api--d9f535a61=100
        10:15:52 ~ deactivate reservations-api--d4dbb3a7c
        10:15:52 RuntimeDeploymentCompleted dep-b1c56ecf reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:15:52 ~ deactivate billing-api--d573d3334
        10:15:52 RuntimeDeploymentCompleted dep-9f535a61 billing-api:1.0 over billing-api:1.0, gate Passed <- RuntimeDeploymentRequested
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(enabled(&platform), ["generated2"]);
    assert_eq!([version(&platform, APP), version(&platform, OTHER_APP)], ["generated2", "generated2"]);
}

#[tokio::test]
async fn a_compromised_version_is_disabled_after_ten_minutes_whoever_uses_it() {
    let mut platform = shared().await;
    platform.compute.image("acr.azurecr.io/billing-api:1.0", Behaviour::Answers(500));
    let began = platform.clock.now();
    platform.run(&rotate("rotate-1", "db-password", "Compromised")).await;
    let took = platform.clock.now().duration_since(began);
    assert!(took >= SignedDuration::from_mins(10) && took < SignedDuration::from_mins(11), "{took:?}");
    assert_eq!(enabled(&platform), ["generated2"]);
    let failed = platform.events().pop().unwrap();
    expect!["Version generated1 of `db-password` is disabled, being compromised, and `module-billing-api` was started with it: `dep-9f535a61` did not pass: 2 failures, 1 allowed; in the last sample it answered 500. It runs on until it is started anew. Deploy a version of it that passes; it starts with version generated2."].assert_eq(failed.envelope.payload["detail"].as_str().unwrap());
    // What is deployed next starts with the new version.
    platform.run(&deploy_other("deploy-other-2", "1.1")).await;
    assert_eq!(version(&platform, OTHER_APP), "generated2");
}

#[tokio::test]
async fn two_rotations_of_one_secret_are_never_under_way_at_once() {
    let mut platform = shared().await;
    platform.send(&rotate("rotate-1", "db-password", "Manual"));
    platform.run_until("moved", |it| it.event_types().contains(&"SecretRotated".to_owned())).await;
    let place = platform.mark();
    platform.send(&rotate("rotate-2", "db-password", "Compromised"));
    platform.send(
        &rotate("rotate-3", "db-password", "Manual")
            .with("/secretBindingId", json!(binding(OTHER_MODULE, "db-password"))),
    );
    platform.run_until_quiet().await;
    let told = platform.transcript_since(place);
    let told: Vec<_> = told.lines().filter(|line| line.contains("rotate-")).collect();
    expect![[r#"
        10:15:39 > RotateSecret rotate-2
        10:15:39 > RotateSecret rotate-3
        10:15:39 RuntimeCommandFailed rotate-2 Rejected Conflict: `db-password` is being rotated by `op-4da05e1e` (Manual). Wait for its end, or cancel that operation, and send the command again. <- rotate-2
        10:15:39 RuntimeCommandCompleted rotate-3 NoChange: `db-password` is being rotated by `op-4da05e1e` for the same reason already. <- rotate-3
        10:15:54 SecretRotated sb-357a5bff db-password from generated1 to generated2 (Manual) <- rotate-1"#]].assert_eq(&told.join("\n"));
}

#[tokio::test]
async fn going_back_past_a_rotation_keeps_the_new_version() {
    let mut platform = bound().await;
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    platform.run(&rotate("rotate-1", "db-password", "Manual")).await;
    sweep_after(&mut platform, 2).await;
    assert_eq!(enabled(&platform), ["generated2"]);
    let place = platform.mark();
    platform.run(&rollback("rollback-1")).await;
    expect![[r#"
        12:15:50 > RollbackDeployment rollback-1
        12:15:50 ~ stage reservations-api--dff46effcr8d9256da acr.azurecr.io/reservations-api:1.4.2
        12:15:51 ~ shift reservations-api to reservations-api--dff46effcr8d9256da=100
        12:15:52 ~ deactivate reservations-api--db1c56ecf
        12:15:52 RuntimeDeploymentRolledBack dep-b1c56ecf reservations-api:1.4.2 to reservations-api:1.4.2 (dep-ff46effc), Operator, gate Passed <- rollback-1
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(version(&platform, APP), "generated2");
    platform.run(&rotate("rotate-2", "db-password", "Manual")).await;
    assert_eq!(version(&platform, APP), "generated3");
}

#[tokio::test]
async fn a_deployment_in_flight_is_waited_for() {
    let mut platform = bound().await;
    // A deployment that was configured before the rotation is held up at its gate.
    let slow = Behaviour::Slow(Duration::from_secs(30));
    platform.compute.image("acr.azurecr.io/reservations-api:1.5.0", slow);
    platform.send(&deploy("deploy-2", "1.5.0"));
    platform.run_until("gating", |it| it.deployments().contains(&"1.5.0 HealthGating".to_owned())).await;
    platform.send(&rotate("rotate-1", "db-password", "Manual"));
    platform.run_until_quiet().await;
    assert_eq!(
        (version(&platform, APP).as_str(), bindings(&platform)),
        ("generated2", vec!["generated2 Active".into()])
    );
    sweep_after(&mut platform, 2).await;
    assert_eq!(enabled(&platform), ["generated2"]);
}

#[tokio::test]
async fn what_is_due_is_rotated_once_a_day_and_once() {
    let mut platform = bound().await;
    sweep_after(&mut platform, 24 * 89).await;
    assert_eq!(version(&platform, APP), "generated1");
    platform.vault.empty("generated2");
    let notes = sweep_after(&mut platform, 24).await;
    assert!(notes[0].contains("sends RotateSecret"), "{notes:?}");
    assert_eq!(bindings(&platform), ["generated1 Active"]);
    // What failed is tried again the next day, and not before.
    let notes = sweep_after(&mut platform, 1).await;
    assert!(notes.iter().any(|note| note.contains("today already")), "{notes:?}");
    assert_eq!(platform.vault.count(&secret("db-password")), 2);
    sweep_after(&mut platform, 24).await;
    assert_eq!(bindings(&platform), ["generated3 Active"]);
    sweep_after(&mut platform, 24).await;
    assert_eq!(bindings(&platform), ["generated3 Active"]);
}

#[tokio::test]
async fn what_ends_soon_is_rotated_thirty_days_before() {
    let mut platform = external().await;
    let end = platform.clock.now() + SignedDuration::from_hours(24 * 40);
    platform.vault.put(&secret("db-password"), "theirs2");
    platform.vault.expires(&secret("db-password"), "theirs2", end);
    platform.run(&rotate("rotate-1", "db-password", "Manual")).await;
    assert_eq!(sweep_after(&mut platform, 24).await.len(), 1);
    let notes = sweep_after(&mut platform, 24 * 10).await;
    expect!["`db-password` (sb-f408ad28) is due since 2026-03-12T10:15:22Z (NearExpiry); it is external: have its issuer put a new version into `https://kv-95150196cd1a5f4e8cc1.vault.azure.net`, and it is rotated by itself"].assert_eq(&notes.join("\n"));
    platform.vault.put(&secret("db-password"), "theirs3");
    let place = platform.mark();
    sweep_after(&mut platform, 1).await;
    let told = platform.transcript_since(place);
    assert!(told.contains("from theirs2 to theirs3 (NearExpiry)"), "{told}");
    assert_eq!(version(&platform, APP), "theirs3");
}

#[tokio::test]
async fn a_hold_keeps_what_is_due_from_being_rotated() {
    let mut platform = bound().await;
    platform.clock.set(platform.clock.now() + SignedDuration::from_hours(24 * 91));
    hold(&platform, HoldScope::Workload, 90).await;
    let notes = sweep_after(&mut platform, 0).await;
    assert!(notes[0].contains("not rotated: `ops` holds"), "{notes:?}");
    assert_eq!(bindings(&platform), ["generated1 Active"]);
    sweep_after(&mut platform, 2).await;
    assert_eq!(bindings(&platform), ["generated2 Active"]);
}

#[tokio::test]
async fn a_refresh_that_nobody_asked_for_is_asked_for_by_the_rotation() {
    let mut platform = bound().await;
    platform.broker.lose("runtime.secrets/Subscriptions/deployment-service");
    platform.run(&rotate("rotate-1", "db-password", "Manual")).await;
    assert_eq!(version(&platform, APP), "generated2");
    assert_eq!(platform.outcome("rotate-1").await, ("Completed".into(), "SecretRotated".into()));
}

#[tokio::test]
async fn an_old_version_waits_for_whoever_uses_it() {
    let mut platform = bound().await;
    platform.compute.secret("generated2", Behaviour::Crashes);
    platform.send(&rotate("rotate-1", "db-password", "Manual"));
    platform.run_until("moved", |it| it.event_types().contains(&"SecretRotated".to_owned())).await;
    // An operator ends the rotation while it waits for the workload, which keeps its old version.
    let operation = platform.states::<SecretRotation>()[0].operation_id.clone();
    platform.post("CancelOperation", Some(operation.as_str()), json!({ "reason": "not today" }), None).await;
    platform.run_until_quiet().await;
    assert_eq!(platform.outcome("rotate-1").await, ("Failed".into(), "RuntimeCommandFailed".into()));
    assert_eq!(
        (version(&platform, APP).as_str(), bindings(&platform)),
        ("generated1", vec!["generated2 Active".into()])
    );
    expect!["The rotation of `db-password` did not come to its end: ended by `olga`: not today (Cancelled). The bindings that moved are at version generated2, and the old version stays enabled until nobody uses it; see that `runtimectl get secret-bindings` and what serves agree, and send RotateSecret again."].assert_eq(&reason(&platform));
    expect!["version generated1 of `db-password` stays enabled: `dep-4dbb3a7c` of `module-reservations-api` serves with it"].assert_eq(&sweep_after(&mut platform, 2).await.join("\n"));
    assert_eq!(enabled(&platform), ["generated1", "generated2"]);
    // The new version is kept out where it failed, until somebody lifts that; once the workload passes
    // with it, the old one goes.
    let kept_out = platform.states::<Slot>()[0].quarantine[0].deployment_id.to_string();
    let why = json!({ "reason": "the database knows the new password by now" });
    assert_eq!(platform.post("LiftQuarantine", Some(&kept_out), why, None).await.status, 200);
    platform.compute.secret("generated2", Behaviour::Good);
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    sweep_after(&mut platform, 1).await;
    assert_eq!(enabled(&platform), ["generated2"]);
}

#[tokio::test]
async fn what_a_person_rotates_is_refreshed_when_the_hold_ends() {
    let mut platform = bound().await;
    hold(&platform, HoldScope::Environment, 45).await;
    let began = platform.clock.now();
    platform.run(&rotate("rotate-1", "db-password", "Manual")).await;
    assert!(platform.clock.now().duration_since(began) > SignedDuration::from_mins(45));
    assert_eq!(platform.outcome("rotate-1").await, ("Completed".into(), "SecretRotated".into()));
    assert_eq!(version(&platform, APP), "generated2");
    let operations = platform.states::<Operation>();
    let rotation = operations.iter().find(|operation| operation.kind == Kind::RotateSecret).unwrap();
    expect!["workloads are refreshed when the hold ends: `ops` holds `env-cc58147b` until 2026-03-02T11:00:22Z (hold-5f6aa00f): incident 4711"].assert_eq(&rotation.notes[0].text);
}

#[tokio::test]
async fn what_cannot_be_rotated_is_said_with_a_remedy() {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1")).await;
    let place = platform.mark();
    platform.run(&rotate("rotate-1", "db-password", "Manual")).await;
    platform
        .run(&rotate("rotate-2", "db-password", "Manual").with("/environmentId", json!("env-00000000")))
        .await;
    platform.run(&rotate("rotate-3", "db-password", "hunter2")).await;
    expect![[r#"
        10:15:05 > RotateSecret rotate-1
        10:15:05 RuntimeCommandFailed rotate-1 Rejected InvalidPayload: payload.secretBindingId: there is no secret binding `sb-f408ad28` in `env-cc58147b`. Send BindSecret first, or correct the id; `runtimectl get secret-bindings` lists those there are. <- rotate-1
        10:15:05 > RotateSecret rotate-2
        10:15:05 RuntimeCommandFailed rotate-2 Rejected EnvironmentNotFound: There is no environment `env-00000000`. Send ProvisionEnvironment first, or correct payload.environmentId; `runtimectl get environments` lists those there are. <- rotate-2
        10:15:05 > RotateSecret rotate-3
        10:15:05 RuntimeCommandFailed rotate-3 Rejected InvalidPayload: payload.reason: it must be one of `Scheduled`, `Manual`, `Compromised`, `NearExpiry`. Correct the field and send the command with a new eventId. <- rotate-3
    "#]].assert_eq(&platform.transcript_since(place));
}
