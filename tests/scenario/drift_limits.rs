//! Where drift is left to a person, or alone: prod, suppressions, storms, what is contested, holds,
//! quarantine; and what RemediateDrift refuses.

use expect_test::expect;
use jiff::SignedDuration;
use runtime_platform::{
    events::DriftKind, holds::HoldScope, invocation::HttpAnswer, ports::clock::Clock,
    services::runtime_drift_detection_service::FindingStatus,
};
use serde_json::{Value, json};

use super::{
    drift::{APP, SWEEP, finding, findings, image, notes, serving, serving_in, sweep},
    holds::hold,
};
use crate::support::{
    builders::{IMAGE, Order, TENANT, deploy, environment, remediate, rollback},
    fakes::compute::Behaviour,
    test_platform::TestPlatform,
};

#[tokio::test]
async fn in_prod_a_person_decides() {
    let mut platform = serving_in("prod").await;
    let place = platform.mark();
    platform.compute.meddle(APP, true, |spec| spec.image = format!("{IMAGE}:evil"));
    for _ in 0..3 {
        sweep(&mut platform).await;
    }
    let found = finding(&platform, DriftKind::ImageMismatch);
    assert_eq!(found.waits.as_deref(), Some("In a prod environment a person decides."));
    platform.run(&remediate("auto-1", found.finding_id.as_str(), "Auto")).await;
    platform.run(&remediate("manual-1", found.finding_id.as_str(), "Manual")).await;
    platform.run_with_sweeps().await;
    platform.run(&remediate("manual-2", found.finding_id.as_str(), "Manual")).await;
    expect![[r#"
        10:20:00 ~ somebody makes reservations-api--meddled-1
        10:20:30 RuntimeDriftDetected drift-1e8a6529 High ImageMismatch: reservations-api@sha256:1665d59cdfa323fd324c4a9f491e6e827a20e0963aab467edd308137a11df842 is reservations-api:evil, waits <- RuntimeDeploymentCompleted
        10:30:00 > RemediateDrift auto-1
        10:30:00 RuntimeCommandFailed auto-1 Rejected Conflict: `drift-1e8a6529` waits for a person: In a prod environment a person decides. Send RemediateDrift with the mode `Manual` to put it right. <- auto-1
        10:30:00 > RemediateDrift manual-1
        10:30:00 RuntimeDeploymentRequested dep-b29bfff8 reservations-api:1.4.1 over reservations-api:1.4.1 <- manual-1
        10:30:00 ~ stage reservations-api--db29bfff8 acr.azurecr.io/reservations-api:1.4.1
        10:30:04 ~ shift reservations-api to reservations-api--d9c2595bb=90 reservations-api--db29bfff8=10
        10:30:07 ~ shift reservations-api to reservations-api--d9c2595bb=50 reservations-api--db29bfff8=50
        10:30:10 ~ shift reservations-api to reservations-api--db29bfff8=100
        10:30:13 ~ deactivate reservations-api--d9c2595bb
        10:30:13 ~ deactivate reservations-api--meddled-1
        10:30:13 RuntimeDeploymentCompleted dep-b29bfff8 reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:32:13 RuntimeDriftResolved drift-1e8a6529 ImageMismatch Remediated <- RuntimeDeploymentCompleted
        10:32:13 > RemediateDrift manual-2
        10:32:13 RuntimeCommandCompleted manual-2 NoChange: `drift-1e8a6529` is over since 2026-03-02T10:32:13Z: nothing is left to put right. <- manual-2
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(platform.outcome("manual-1").await, ("Completed".into(), "RuntimeDeploymentCompleted".into()));
    assert_eq!(platform.outcome("manual-2").await, ("Completed".into(), "RuntimeCommandCompleted".into()));
}

async fn suppress(platform: &TestPlatform, matches: Value, minutes: i64) -> (u16, Value) {
    let until = platform.clock.now() + SignedDuration::from_mins(minutes);
    let body = json!({
        "environmentId": environment(), "match": matches, "reason": "load test", "expiresAt": until.to_string(),
    });
    let answer = platform.post("SuppressDrift", None, body, None).await;
    (answer.status, answer.body)
}

#[tokio::test]
async fn a_suppressed_drift_is_left_alone_until_the_suppression_expires() {
    let mut platform = serving().await;
    let place = platform.mark();
    let (status, body) = suppress(&platform, json!({ "path": "/maxReplicas" }), 14).await;
    assert_eq!((status, &body["inForce"]), (200, &json!(true)), "{body}");
    platform.compute.meddle(APP, true, |spec| spec.max_replicas = 9);
    sweep(&mut platform).await;
    sweep(&mut platform).await;
    assert_eq!(findings(&platform), ["ReplicaMismatch /maxReplicas Suppressed"]);
    for _ in 0..3 {
        sweep(&mut platform).await;
    }
    expect![[r#"
        10:20:00 ~ somebody makes reservations-api--meddled-1
        10:35:00 RuntimeDriftDetected drift-ae11fb18 Medium ReplicaMismatch: 1 is 9, put right by itself <- RuntimeDeploymentCompleted
        10:35:00 RuntimeDeploymentRequested dep-634f5119 reservations-api:1.4.1 over reservations-api:1.4.1 <- evt-f0e6522a-3131-510f-9e32-070d23c4c118
        10:35:00 ~ stage reservations-api--d634f5119 acr.azurecr.io/reservations-api:1.4.1
        10:35:04 ~ shift reservations-api to reservations-api--d634f5119=10 reservations-api--d9c2595bb=90
        10:35:07 ~ shift reservations-api to reservations-api--d634f5119=50 reservations-api--d9c2595bb=50
        10:35:10 ~ shift reservations-api to reservations-api--d634f5119=100
        10:35:13 ~ deactivate reservations-api--d9c2595bb
        10:35:13 ~ deactivate reservations-api--meddled-1
        10:35:13 RuntimeDeploymentCompleted dep-634f5119 reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:37:13 RuntimeDriftResolved drift-ae11fb18 ReplicaMismatch Remediated <- RuntimeDeploymentCompleted
    "#]]
    .assert_eq(&platform.transcript_since(place));
    assert_eq!(findings(&platform), ["ReplicaMismatch /maxReplicas Resolved"]);
    let listed = platform.get("DriftSuppressions", None).await.body;
    assert_eq!(listed["items"][0]["inForce"], json!(false));
}

#[tokio::test]
async fn a_suppression_says_what_why_and_until_when() {
    let platform = serving().await;
    let mut told = String::new();
    for (matches, minutes) in [
        (json!({}), 60),
        (json!({ "kind": "IsolationMismatch" }), 60),
        (json!({ "path": "/env/*" }), -1),
        (json!({ "path": "/env/*" }), 91 * 24 * 60),
        (json!({ "colour": "red" }), 60),
    ] {
        let (status, body) = suppress(&platform, matches, minutes).await;
        told.push_str(&format!("{status} {}\n", body["detail"].as_str().unwrap_or_default()));
    }
    expect![[r#"
        400 The body's field `match`: name a kind, a resource or a path; a suppression of everything would hide everything.
        400 The body's field `match.kind`: drift of this kind is critical and cannot be suppressed; put it right.
        400 The body's field `expiresAt`: it must end after 2026-03-02T10:17:09Z and not after 2026-05-31T10:17:09Z, which is 90 days.
        400 The body's field `expiresAt`: it must end after 2026-03-02T10:17:09Z and not after 2026-05-31T10:17:09Z, which is 90 days.
        400 The body's field `match.colour`: it must be one of `kind`, `resource`, `path` at line 1 column 49.
    "#]]
    .assert_eq(&told);
    let (_, first) = suppress(&platform, json!({ "path": "/env/*" }), 60).await;
    let (_, again) = suppress(&platform, json!({ "path": "/env/*" }), 60).await;
    assert_eq!(first, again, "saying it twice makes one");
}

#[tokio::test]
async fn when_more_than_half_drift_at_once_a_person_decides() {
    let mut platform = serving().await;
    for number in 0..4 {
        let order = deploy(&format!("deploy-other-{number}"), "1.4.1");
        platform.run(&order.with("/workloads/0/moduleId", json!(format!("module-m{number}")))).await;
    }
    platform.run_with_sweeps().await;
    let place = platform.mark();
    for app in ["m0", "m1", "m2", "m3"] {
        platform.compute.meddle(app, true, |spec| spec.cpu = 4.0);
    }
    sweep(&mut platform).await;
    sweep(&mut platform).await;
    let told = platform.transcript_since(place);
    assert_eq!(told.matches("RuntimeDriftDetected drift-").count(), 4, "{told}");
    assert!(!told.contains("stage"), "{told}");
    let finding = finding(&platform, DriftKind::ConfigurationMismatch);
    expect!["4 of 5 workloads drifted at once: somebody is at work, or the wrong subscription is read. A person decides."].assert_eq(finding.waits.as_deref().unwrap_or_default());
}

#[tokio::test]
async fn what_comes_back_three_times_is_contested_and_names_the_last_writer() {
    let mut platform = serving().await;
    let place = platform.mark();
    for _ in 0..4 {
        platform.compute.meddle(APP, true, |spec| spec.image = format!("{IMAGE}:evil"));
        platform
            .compute
            .change_settings(APP, |settings| settings.modified_by = Some("eve@contoso.com".into()));
        for _ in 0..4 {
            sweep(&mut platform).await;
        }
    }
    let told = platform.transcript_since(place);
    assert_eq!(told.matches("RuntimeDeploymentCompleted dep-").count(), 3, "{told}");
    assert_eq!(
        findings(&platform),
        [
            "ImageMismatch /image Resolved",
            "ImageMismatch /image Resolved",
            "ImageMismatch /image Resolved",
            "ImageMismatch /image Contested"
        ]
    );
    let contested = finding(&platform, DriftKind::ImageMismatch);
    expect!["It came back after 3 automatic remediations within 24 hours: somebody, or something, wants it otherwise. Azure says that `eve@contoso.com` wrote last."].assert_eq(contested.waits.as_deref().unwrap_or_default());
    platform.run(&remediate("manual-1", contested.finding_id.as_str(), "Manual")).await;
    platform.run_with_sweeps().await;
    assert_eq!(image(&platform), format!("{IMAGE}:1.4.1"), "a person may");
}

#[tokio::test]
async fn a_remediation_that_fails_is_tried_three_times_and_not_for_ever() {
    let mut platform = serving().await;
    platform.compute.remove(APP);
    platform.compute.image(&format!("{IMAGE}:1.4.1"), Behaviour::Crashes);
    for _ in 0..12 {
        sweep(&mut platform).await;
    }
    let told = platform.transcript();
    assert_eq!(told.matches("RuntimeDeploymentRequested dep-").count(), 1 + 3, "{told}");
    let found = finding(&platform, DriftKind::MissingWorkload);
    assert_eq!((found.status, found.remediation.attempts), (FindingStatus::Contested, 3));
}

#[tokio::test]
async fn a_hold_is_honoured_said_and_over_by_itself() {
    let mut platform = serving().await;
    hold(&platform, HoldScope::Workload, 22).await;
    let place = platform.mark();
    platform.compute.meddle(APP, true, |spec| spec.image = format!("{IMAGE}:evil"));
    for _ in 0..3 {
        sweep(&mut platform).await;
    }
    expect!["drift-1e8a6529 (ImageMismatch of reservations-api/image): would be put right, but `ops` holds `module-reservations-api` until 2026-03-02T10:39:09Z (hold-239b78f8): incident 4711"].assert_eq(&notes(&platform).join("\n"));
    let found = finding(&platform, DriftKind::ImageMismatch);
    platform.run(&remediate("manual-1", found.finding_id.as_str(), "Manual")).await;
    for _ in 0..3 {
        sweep(&mut platform).await;
    }
    expect![[r#"
        10:20:00 ~ somebody makes reservations-api--meddled-1
        10:20:30 RuntimeDriftDetected drift-1e8a6529 High ImageMismatch: reservations-api@sha256:1665d59cdfa323fd324c4a9f491e6e827a20e0963aab467edd308137a11df842 is reservations-api:evil, put right by itself <- RuntimeDeploymentCompleted
        10:30:00 > RemediateDrift manual-1
        10:30:00 RuntimeCommandFailed manual-1 Rejected Conflict: `drift-1e8a6529` is not put right: `ops` holds `module-reservations-api` until 2026-03-02T10:39:09Z (hold-239b78f8): incident 4711. Release the hold, or send the command again when it is over. <- manual-1
        10:40:00 RuntimeDeploymentRequested dep-9585796e reservations-api:1.4.1 over reservations-api:1.4.1 <- evt-e6237131-ab73-5815-9e1b-9715818235f8
        10:40:00 ~ stage reservations-api--d9585796e acr.azurecr.io/reservations-api:1.4.1
        10:40:04 ~ shift reservations-api to reservations-api--d9585796e=10 reservations-api--d9c2595bb=90
        10:40:07 ~ shift reservations-api to reservations-api--d9585796e=50 reservations-api--d9c2595bb=50
        10:40:10 ~ shift reservations-api to reservations-api--d9585796e=100
        10:40:13 ~ deactivate reservations-api--d9c2595bb
        10:40:13 ~ deactivate reservations-api--meddled-1
        10:40:13 RuntimeDeploymentCompleted dep-9585796e reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:42:13 RuntimeDriftResolved drift-1e8a6529 ImageMismatch Remediated <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(image(&platform), format!("{IMAGE}:1.4.1"));
}

#[tokio::test]
async fn what_is_in_quarantine_does_not_come_back_by_remediation() {
    let mut platform = serving().await;
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    platform.run(&rollback("rollback-1")).await;
    platform.run_with_sweeps().await;
    let bad = platform.compute.world()[APP]
        .revisions
        .values()
        .find(|it| platform.registry.named(&it.image).ends_with("1.4.2"))
        .cloned();
    platform.compute.move_traffic(APP, &bad.unwrap().name);
    sweep(&mut platform).await;
    assert_eq!(image(&platform), format!("{IMAGE}:1.4.1"));
    let world = platform.compute.world();
    let runs = world[APP]
        .revisions
        .values()
        .any(|it| it.active && platform.registry.named(&it.image).ends_with("1.4.2"));
    assert!(!runs, "what is in quarantine runs: {world:?}");
}

#[tokio::test]
async fn what_is_critical_is_told_at_once_and_waits() {
    let mut platform = serving().await;
    let place = platform.mark();
    platform.compute.change_settings(APP, |settings| {
        settings.allow_insecure = true;
        settings.tags.insert("cs-tenant-id".into(), "somebody-else".into());
    });
    platform.fire(SWEEP).await;
    platform.run_until_quiet().await;
    platform.compute.add_beside(APP, "stranger");
    sweep(&mut platform).await;
    let stranger = finding(&platform, DriftKind::UnexpectedWorkload).finding_id;
    platform.run(&remediate("manual-1", stranger.as_str(), "Manual")).await;
    let network = finding(&platform, DriftKind::NetworkPolicyMismatch).finding_id;
    platform.run(&remediate("manual-2", network.as_str(), "Manual")).await;
    platform.run_with_sweeps().await;
    expect![[r#"
        10:17:09 ~ somebody changes the settings of reservations-api
        10:17:09 RuntimeDriftDetected drift-e1766843 Critical NetworkPolicyMismatch: false is true, waits <- RuntimeDeploymentCompleted
        10:17:09 RuntimeDriftDetected drift-46b3476e Critical IsolationMismatch: connectsoft is somebody-else, waits <- RuntimeDeploymentCompleted
        10:20:00 ~ somebody makes stranger
        10:20:30 RuntimeDriftDetected drift-75626bc1 High UnexpectedWorkload: null is stranger, waits <- RuntimeEnvironmentProvisioned
        10:20:30 > RemediateDrift manual-1
        10:20:30 RuntimeCommandFailed manual-1 Rejected NotSupported: `/subscriptions/00000000-0000-0000-0000-00000000c105/resourceGroups/rg-connectsoft-test-f94dfe7f4026/providers/Microsoft.App/containerApps/stranger` was not made by the platform, which deletes nothing that it did not make. Delete it, or suppress the finding `drift-75626bc1`. <- manual-1
        10:20:30 > RemediateDrift manual-2
        10:20:30 RuntimeDeploymentRequested dep-d1146bc1 reservations-api:1.4.1 over reservations-api:1.4.1 <- manual-2
        10:20:30 ~ stage reservations-api--dd1146bc1 acr.azurecr.io/reservations-api:1.4.1
        10:20:34 ~ shift reservations-api to reservations-api--d9c2595bb=90 reservations-api--dd1146bc1=10
        10:20:37 ~ shift reservations-api to reservations-api--d9c2595bb=50 reservations-api--dd1146bc1=50
        10:20:40 ~ shift reservations-api to reservations-api--dd1146bc1=100
        10:20:43 ~ deactivate reservations-api--d9c2595bb
        10:20:43 RuntimeDeploymentCompleted dep-d1146bc1 reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
        10:22:43 RuntimeDriftResolved drift-e1766843 NetworkPolicyMismatch Remediated <- RuntimeDeploymentCompleted
        10:22:43 RuntimeDriftResolved drift-46b3476e IsolationMismatch Remediated <- RuntimeDeploymentCompleted
    "#]].assert_eq(&platform.transcript_since(place));
    assert_eq!(
        findings(&platform),
        [
            "NetworkPolicyMismatch /ingress/allowInsecure Resolved",
            "IsolationMismatch /tags/cs-tenant-id Resolved",
            "UnexpectedWorkload  Open"
        ]
    );
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let mut platform = serving().await;
    let place = platform.mark();
    let wrong: [Order; 5] = [
        remediate("x-1", "drift-00000000", "Auto"),
        remediate("x-2", "dep-1", "Auto"),
        remediate("x-3", "drift-00000000", "Never"),
        remediate("x-4", "drift-00000000", "Auto").with("/environmentId", json!("test")),
        remediate("x-5", "drift-00000000", "Auto").with("/environmentId", json!("env-00000000")),
    ];
    for order in &wrong {
        platform.run(order).await;
    }
    platform.compute.meddle(APP, true, |spec| spec.image = format!("{IMAGE}:evil"));
    platform.fire(SWEEP).await;
    platform.run_until_quiet().await;
    let suspected = finding(&platform, DriftKind::ImageMismatch).finding_id;
    platform.run(&remediate("x-6", suspected.as_str(), "Manual")).await;
    expect![[r#"
        10:17:09 > RemediateDrift x-1
        10:17:09 RuntimeCommandFailed x-1 Rejected DriftFindingNotFound: There is no finding `drift-00000000` in this environment; `runtimectl get drift` lists those there are. <- x-1
        10:17:09 > RemediateDrift x-2
        10:17:09 RuntimeCommandFailed x-2 Rejected InvalidPayload: payload.findingId `dep-1` should begin with `drift-`. `runtimectl get drift` lists the findings with their environments. <- x-2
        10:17:09 > RemediateDrift x-3
        10:17:09 RuntimeCommandFailed x-3 Rejected InvalidPayload: payload.mode: it must be `Auto` or `Manual`. Correct the field and send the command with a new eventId. <- x-3
        10:17:09 > RemediateDrift x-4
        10:17:09 RuntimeCommandFailed x-4 Rejected InvalidPayload: payload.environmentId `test` should begin with `env-`. `runtimectl get drift` lists the findings with their environments. <- x-4
        10:17:09 > RemediateDrift x-5
        10:17:09 RuntimeCommandFailed x-5 Rejected EnvironmentNotFound: There is no environment `env-00000000`. Send ProvisionEnvironment first, or correct payload.environmentId; `runtimectl get environments` lists those there are. <- x-5
        10:17:09 ~ somebody makes reservations-api--meddled-1
        10:17:09 > RemediateDrift x-6
        10:17:09 RuntimeCommandFailed x-6 Rejected Conflict: `drift-3bbb794e` was seen once and is not certain yet. The next look, within minutes, confirms or drops it; send the command again then. <- x-6
    "#]].assert_eq(&platform.transcript_since(place));
}

#[tokio::test]
async fn findings_are_listed_to_their_tenant_alone() {
    let mut platform = serving_in("prod").await;
    platform.compute.meddle(APP, true, |spec| spec.image = format!("{IMAGE}:evil"));
    sweep(&mut platform).await;
    let items = |answer: HttpAnswer| answer.body["items"].as_array().unwrap().len();
    assert_eq!(items(platform.get("Drift", None).await), 1);
    for (query, count) in [
        (("status", "Open"), 1),
        (("status", "Resolved"), 0),
        (("severity", "High"), 1),
        (("severity", "Low"), 0),
        (("environmentId", "env-other"), 0),
    ] {
        assert_eq!(items(platform.ask("Drift", TENANT, &[query]).await), count, "{query:?}");
    }
    assert_eq!(items(platform.ask("Drift", "acme", &[]).await), 0);
    let id = finding(&platform, DriftKind::ImageMismatch).finding_id;
    let one = platform.get("Drift", Some(id.as_str())).await.body;
    assert_eq!(
        (one["kind"].as_str(), &one["actual"]),
        (Some("ImageMismatch"), &json!(format!("{IMAGE}:evil")))
    );
    assert_eq!(platform.get("Drift", Some("drift-00000000")).await.status, 404);
}
