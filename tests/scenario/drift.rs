//! Drift: what somebody changes behind the platform's back is seen, told and put right; what the
//! platform, or the target itself, did is no drift.

use expect_test::expect;
use runtime_platform::{
    events::DriftKind,
    services::runtime_drift_detection_service::{FindingStatus, RuntimeDriftFinding},
    sweeps::SweepReport,
};
use serde_json::json;

use crate::support::{
    builders::{IMAGE, TENANT, bind, bind_secret, deploy, environment, provision, publish_configuration},
    fakes::compute::Behaviour,
    refusing::Bad,
    test_platform::TestPlatform,
};

pub(super) const APP: &str = "reservations-api";
pub(super) const SWEEP: &str = "DriftSweep";
/// Between two sweeps, in seconds.
const EVERY: i64 = 300;

pub(super) async fn serving_in(stage: &str) -> TestPlatform {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-1").with("/stage", json!(stage))).await;
    if stage == "prod" {
        platform.run(&bind("bind-1", TENANT, "shared")).await;
    }
    platform.run(&deploy("deploy-1", "1.4.1")).await;
    platform.run_with_sweeps().await;
    platform
}

pub(super) async fn serving() -> TestPlatform {
    serving_in("test").await
}

/// Findings as `kind path status`, oldest first.
pub(super) fn findings(platform: &TestPlatform) -> Vec<String> {
    let mut findings = platform.states::<RuntimeDriftFinding>();
    findings.sort_by_key(|finding| (finding.first_seen_at, finding.path.clone(), finding.kind));
    let told = |finding: &RuntimeDriftFinding| {
        format!("{} {} {}", finding.kind, finding.path, finding.status.as_str())
    };
    findings.iter().map(told).collect()
}

pub(super) fn finding(platform: &TestPlatform, kind: DriftKind) -> RuntimeDriftFinding {
    let mut findings = platform.states::<RuntimeDriftFinding>();
    findings.sort_by_key(|finding| finding.first_seen_at);
    findings.into_iter().rfind(|finding| finding.kind == kind).expect("it was found")
}

/// The notes of the environment's latest drift sweep.
pub(super) fn notes(platform: &TestPlatform) -> Vec<String> {
    let reports = platform.states::<SweepReport>();
    let of_environment =
        reports.into_iter().find(|report| report.environment_id == environment().to_string());
    of_environment.expect("a sweep reported").notes
}

/// The image that serves, by its tag.
pub(super) fn image(platform: &TestPlatform) -> String {
    platform.registry.named(&platform.compute.serving(APP).expect("something serves").image)
}

pub(super) async fn sweep(platform: &mut TestPlatform) {
    platform.sweep(SWEEP, EVERY).await;
}

#[tokio::test]
async fn an_image_changed_behind_the_back_is_suspected_found_and_put_right() {
    let mut platform = serving().await;
    let place = platform.mark();
    platform.compute.meddle(APP, true, |spec| spec.image = format!("{IMAGE}:evil"));
    platform.fire(SWEEP).await;
    platform.run_until_quiet().await;
    assert_eq!(findings(&platform), ["ImageMismatch /image Suspected"]);
    assert!(!platform.event_types().contains(&"RuntimeDriftDetected".to_owned()), "one look is not enough");
    platform.run_with_sweeps().await;
    expect![[r#"
        10:17:09 ~ somebody makes reservations-api--meddled-1
        10:17:39 RuntimeDriftDetected drift-3bbb794e High ImageMismatch: reservations-api@sha256:1665d59cdfa323fd324c4a9f491e6e827a20e0963aab467edd308137a11df842 is reservations-api:evil, put right by itself <- RuntimeDeploymentCompleted
        10:17:39 RuntimeDeploymentRequested dep-b787ba1e reservations-api:1.4.1 over reservations-api:1.4.1 <- evt-2b292224-9800-5a11-9291-9a82045f0bd4
        10:17:39 ~ stage reservations-api--db787ba1e acr.azurecr.io/reservations-api:1.4.1
        10:17:43 ~ shift reservations-api to reservations-api--d9c2595bb=90 reservations-api--db787ba1e=10
        10:17:46 ~ shift reservations-api to reservations-api--d9c2595bb=50 reservations-api--db787ba1e=50
        10:17:49 ~ shift reservations-api to reservations-api--db787ba1e=100
        10:17:52 ~ deactivate reservations-api--d9c2595bb
        10:17:52 ~ deactivate reservations-api--meddled-1
        10:17:52 RuntimeDeploymentCompleted dep-b787ba1e reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:19:52 RuntimeDriftResolved drift-3bbb794e ImageMismatch Remediated <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(findings(&platform), ["ImageMismatch /image Resolved"]);
    assert_eq!(image(&platform), format!("{IMAGE}:1.4.1"));
    let world = platform.compute.world();
    let active: Vec<_> = world[APP].revisions.values().filter(|revision| revision.active).collect();
    assert_eq!(active.len(), 1, "what was put there does not run on: {active:?}");
    let before = platform.mark();
    for _ in 0..3 {
        sweep(&mut platform).await;
    }
    assert_eq!(platform.transcript_since(before), "", "and then there is peace");
}

#[tokio::test]
async fn settings_bounds_and_traffic_are_brought_back() {
    let mut platform = serving().await;
    platform.run(&publish_configuration("publish-1", json!({ "LOG_LEVEL": "debug" }))).await;
    platform.run_with_sweeps().await;
    let place = platform.mark();
    platform.compute.meddle(APP, true, |spec| {
        let entry = spec.configuration.as_mut().expect("it was started with one");
        entry.settings.insert("LOG_LEVEL".into(), "trace".into());
        spec.env.insert("EXTRA".into(), "hunter2".into());
        spec.max_replicas = 9;
    });
    sweep(&mut platform).await;
    expect![[r#"
        10:20:00 ~ somebody makes reservations-api--meddled-2
        10:20:30 RuntimeDriftDetected drift-96e01ceb Medium ConfigurationMismatch: sha256:2c5943c559a125bf is sha256:c9613997237f6549, put right by itself <- RuntimeDeploymentCompleted
        10:20:30 RuntimeDriftDetected drift-ebae4b16 Medium ConfigurationMismatch: null is sha256:4ddbb67bf993867e, put right by itself <- RuntimeDeploymentCompleted
        10:20:30 RuntimeDriftDetected drift-ae11fb18 Medium ReplicaMismatch: 1 is 9, put right by itself <- RuntimeDeploymentCompleted
        10:20:30 RuntimeDeploymentRequested dep-b363aade reservations-api:1.4.1 over reservations-api:1.4.1 <- evt-68ab0fcb-7f8a-5e91-8ee7-ddf6085a4096
        10:20:30 RuntimeCommandCompleted evt-42067d94-94d1-53ff-878a-f82094cd566e NoChange: A deployment of `module-reservations-api` is in flight and rolls out what is desired; what is left of `drift-ebae4b16` is seen after it. <- evt-42067d94-94d1-53ff-878a-f82094cd566e
        10:20:30 RuntimeCommandCompleted evt-f0e6522a-3131-510f-9e32-070d23c4c118 NoChange: A deployment of `module-reservations-api` is in flight and rolls out what is desired; what is left of `drift-ae11fb18` is seen after it. <- evt-f0e6522a-3131-510f-9e32-070d23c4c118
        10:20:30 ~ stage reservations-api--db363aade acr.azurecr.io/reservations-api:1.4.1
        10:20:34 ~ shift reservations-api to reservations-api--d2c1451af=90 reservations-api--db363aade=10
        10:20:37 ~ shift reservations-api to reservations-api--d2c1451af=50 reservations-api--db363aade=50
        10:20:40 ~ shift reservations-api to reservations-api--db363aade=100
        10:20:43 ~ deactivate reservations-api--d2c1451af
        10:20:43 ~ deactivate reservations-api--meddled-2
        10:20:43 RuntimeDeploymentCompleted dep-b363aade reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:22:43 RuntimeDriftResolved drift-96e01ceb ConfigurationMismatch Remediated <- RuntimeDeploymentCompleted
        10:22:43 RuntimeDriftResolved drift-ebae4b16 ConfigurationMismatch Remediated <- RuntimeDeploymentCompleted
        10:22:43 RuntimeDriftResolved drift-ae11fb18 ReplicaMismatch Remediated <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(
        findings(&platform),
        [
            "ConfigurationMismatch /env/EXTRA Resolved",
            "ConfigurationMismatch /env/LOG_LEVEL Resolved",
            "ReplicaMismatch /maxReplicas Resolved"
        ]
    );
    let told = format!("{:?} {:?}", platform.states::<RuntimeDriftFinding>(), platform.events());
    assert!(!told.contains("hunter2") && !told.contains("trace\""), "values of variables are not told");
}

#[tokio::test]
async fn traffic_moved_to_an_older_revision_is_brought_back() {
    let mut platform = serving().await;
    let older = platform.compute.world()[APP].revisions.keys().next().unwrap().clone();
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    platform.run_with_sweeps().await;
    platform.compute.move_traffic(APP, &older);
    let place = platform.mark();
    sweep(&mut platform).await;
    expect![[r#"
        10:20:00 ~ somebody moves the traffic of reservations-api to reservations-api--d9c2595bb
        10:20:30 RuntimeDriftDetected drift-1e8a6529 High ImageMismatch: reservations-api@sha256:8a007adec2dab4b40f09a44d60f472b4146be645fff7983ce7aa05430f4ca07a is reservations-api@sha256:1665d59cdfa323fd324c4a9f491e6e827a20e0963aab467edd308137a11df842, put right by itself <- RuntimeDeploymentCompleted
        10:20:30 RuntimeDeploymentRequested dep-4537c48f reservations-api:1.4.2 over reservations-api:1.4.2 <- evt-f91c08f1-5a90-5c60-8e06-45186c4e3e98
        10:20:30 ~ stage reservations-api--d4537c48f acr.azurecr.io/reservations-api:1.4.2
        10:20:34 ~ shift reservations-api to reservations-api--d4537c48f=10 reservations-api--dff46effc=90
        10:20:37 ~ shift reservations-api to reservations-api--d4537c48f=50 reservations-api--dff46effc=50
        10:20:40 ~ shift reservations-api to reservations-api--d4537c48f=100
        10:20:43 ~ deactivate reservations-api--dff46effc
        10:20:43 ~ deactivate reservations-api--d9c2595bb
        10:20:43 RuntimeDeploymentCompleted dep-4537c48f reservations-api:1.4.2 over reservations-api:1.4.2, gate Passed <- RuntimeDeploymentRequested
        10:22:43 RuntimeDriftResolved drift-1e8a6529 ImageMismatch Remediated <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(image(&platform), format!("{IMAGE}:1.4.2"));
}

#[tokio::test]
async fn a_deleted_app_is_made_again() {
    let mut platform = serving().await;
    let place = platform.mark();
    platform.compute.remove(APP);
    sweep(&mut platform).await;
    expect![[r#"
        10:20:00 ~ somebody deletes reservations-api
        10:20:30 RuntimeDriftDetected drift-92b962ca High MissingWorkload: reservations-api--d9c2595bb is null, put right by itself <- RuntimeDeploymentCompleted
        10:20:30 RuntimeDeploymentRequested dep-f10ebfe6 reservations-api:1.4.1 over reservations-api:1.4.1 <- evt-1ba7aa35-e7c9-53c4-90bd-40b1e98b7d0f
        10:20:30 ~ stage reservations-api--df10ebfe6 acr.azurecr.io/reservations-api:1.4.1
        10:20:34 RuntimeDeploymentCompleted dep-f10ebfe6 reservations-api:1.4.1 over null, gate Passed <- RuntimeDeploymentRequested
        10:22:34 RuntimeDriftResolved drift-92b962ca MissingWorkload Remediated <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(findings(&platform), ["MissingWorkload  Resolved"]);
    assert_eq!(image(&platform), format!("{IMAGE}:1.4.1"));
}

#[tokio::test]
async fn a_revision_that_was_switched_off_is_replaced() {
    let mut platform = serving().await;
    platform.compute.switch_off(APP);
    // A listing does not show it; a full look does, which comes at least once an hour.
    for _ in 0..13 {
        sweep(&mut platform).await;
    }
    assert_eq!(findings(&platform), ["MissingWorkload  Resolved"]);
    assert_eq!(image(&platform), format!("{IMAGE}:1.4.1"));
}

#[tokio::test]
async fn a_deleted_resource_of_the_environment_is_made_again() {
    let mut platform = serving().await;
    let place = platform.mark();
    let resources = platform.infrastructure.world();
    let workspace = resources.keys().find(|id| id.contains("/workspaces/")).expect("there is a workspace");
    platform.infrastructure.meddle(workspace, None);
    sweep(&mut platform).await;
    expect![[r#"
        10:20:30 RuntimeDriftDetected drift-ecdd9cff High ResourceMissing: workspaces is null, put right by itself <- RuntimeEnvironmentProvisioned
        10:20:30 ~ create workspace
        10:20:31 RuntimeDriftResolved drift-ecdd9cff ResourceMissing Remediated <- evt-5be50ee1-3d1c-522d-9ce4-877e149182b2
    "#]].assert_eq(&platform.transcript_since(place));
    assert!(platform.infrastructure.world().contains_key(workspace));
    let finding = finding(&platform, DriftKind::ResourceMissing);
    assert_eq!(finding.status, FindingStatus::Resolved);
    let before = platform.mark();
    sweep(&mut platform).await;
    assert_eq!(platform.transcript_since(before), "");
}

#[tokio::test]
async fn what_the_target_and_the_platform_do_themselves_is_no_drift() {
    let mut platform = serving().await;
    let place = platform.mark();
    // A replica was killed and not replaced yet; the autoscaler made more.
    for replicas in [0, 7] {
        platform.compute.scale_to(APP, replicas);
        sweep(&mut platform).await;
        sweep(&mut platform).await;
    }
    // A version that one workload failed is not wanted there; what it has is.
    platform.compute.configuration(1, Behaviour::Answers(500));
    platform.run(&publish_configuration("publish-1", json!({ "LOG_LEVEL": "debug" }))).await;
    sweep(&mut platform).await;
    platform.run(&bind_secret("bind-1", "db-password")).await;
    sweep(&mut platform).await;
    let told = platform.transcript_since(place);
    assert!(!told.contains("Drift"), "{told}");
    assert_eq!(findings(&platform), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_found_while_a_deployment_is_in_flight_or_has_not_settled() {
    let mut platform = serving().await;
    platform.compute.meddle(APP, true, |spec| spec.cpu = 2.0);
    platform.send(&deploy("deploy-2", "1.4.2"));
    platform
        .run_until("staged", |platform| platform.transcript().contains("stage reservations-api--d"))
        .await;
    platform.fire(SWEEP).await;
    platform.run_until_quiet().await;
    assert_eq!(findings(&platform), Vec::<String>::new());
    platform.compute.meddle(APP, true, |spec| spec.cpu = 2.0);
    platform.fire(SWEEP).await;
    platform.run_until_quiet().await;
    assert_eq!(findings(&platform), Vec::<String>::new(), "the world may still be moving");
    platform.run_with_sweeps().await;
    assert_eq!(findings(&platform), ["ConfigurationMismatch /cpu Resolved"]);
}

#[tokio::test]
async fn what_cannot_be_read_neither_drifts_nor_heals() {
    let mut platform = serving_in("prod").await;
    platform.compute.meddle(APP, true, |spec| spec.image = format!("{IMAGE}:evil"));
    sweep(&mut platform).await;
    assert_eq!(findings(&platform), ["ImageMismatch /image Open"]);
    platform.compute.move_traffic(APP, &right_revision(&platform));
    platform.script.answer("list", [Bad::ServerError]);
    platform.script.answer("observe", [Bad::Busy]);
    platform.script.answer("plan", [Bad::TooManyRequests(5)]);
    sweep(&mut platform).await;
    assert_eq!(findings(&platform), ["ImageMismatch /image Open"]);
    expect![[r#"
        the workloads could not be listed: list: 500: internal server error
        the environment's resources could not be read: plan: 429: too many requests
        `module-reservations-api` could not be read: observe: 409: another change is under way"#]]
    .assert_eq(&notes(&platform).join("\n"));
    assert_eq!(platform.script.left(), 0);
}

fn right_revision(platform: &TestPlatform) -> String {
    let names: Vec<_> = platform.compute.world()[APP].revisions.keys().cloned().collect();
    names.into_iter().find(|name| !name.contains("meddled")).expect("ours is there")
}
