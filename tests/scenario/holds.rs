//! Holds: what the platform does by itself waits, what people send does not.

use expect_test::expect;
use jiff::SignedDuration;
use runtime_platform::{
    holds::{Hold, HoldScope},
    ids::ModuleId,
    ledger::{Commit, Ledger},
    operations::{Kind, Operation},
    ports::{clock::Clock, store::Partition},
};
use serde_json::json;

use super::story::serving;
use crate::support::{
    builders::{MODULE, TENANT, bind_secret, deploy, environment, publish_configuration as publish},
    test_platform::TestPlatform,
};

/// Holds something for some minutes, as the HTTP function would.
pub async fn hold(platform: &TestPlatform, scope: HoldScope, minutes: i64) {
    let owners = Partition::environment(&TENANT.parse().unwrap(), environment().as_str());
    let partition = if scope == HoldScope::Platform { Hold::platform() } else { owners };
    let module: Option<ModuleId> = (scope == HoldScope::Workload).then(|| MODULE.parse().unwrap());
    let now = platform.clock.now();
    let hold = Hold {
        hold_id: Hold::id(&partition, module.as_ref()),
        scope,
        environment_id: (scope != HoldScope::Platform).then(|| environment().to_string()),
        module_id: module,
        reason: "incident 4711".into(),
        by: "ops".into(),
        from: now,
        until: now + SignedDuration::from_mins(minutes),
        released: None,
    };
    let mut commit = Commit::new(partition, now);
    commit.put(&Ledger::absent(&hold.hold_id), &hold).unwrap();
    platform.platform.ledger.commit(commit).await.unwrap();
}

fn notes(platform: &TestPlatform) -> Vec<String> {
    let operations = platform.states::<Operation>();
    let refresh = operations.into_iter().filter(|it| it.kind == Kind::Deploy).max_by_key(|it| it.started_at);
    refresh.unwrap().notes.into_iter().map(|note| note.text).collect()
}

#[tokio::test]
async fn a_refresh_waits_for_the_end_of_a_hold_and_says_so() {
    let mut platform = serving().await;
    hold(&platform, HoldScope::Environment, 45).await;
    let place = platform.mark();
    platform.run(&bind_secret("bind-1", "db-password")).await;
    expect![[r#"
        10:15:09 > BindSecret bind-1
        10:15:09 SecretBound sb-f408ad28 db-password generated1 <- bind-1
        10:15:09 RuntimeDeploymentRequested dep-4dbb3a7c reservations-api:1.4.1 over reservations-api:1.4.1 <- SecretBound
        11:00:09 ~ stage reservations-api--d4dbb3a7c acr.azurecr.io/reservations-api:1.4.1
        11:00:13 ~ shift reservations-api to reservations-api--d4dbb3a7c=10 reservations-api--d9c2595bb=90
        11:00:16 ~ shift reservations-api to reservations-api--d4dbb3a7c=50 reservations-api--d9c2595bb=50
        11:00:19 ~ shift reservations-api to reservations-api--d4dbb3a7c=100
        11:00:22 ~ deactivate reservations-api--d9c2595bb
        11:00:22 RuntimeDeploymentCompleted dep-4dbb3a7c reservations-api:1.4.1 over reservations-api:1.4.1, gate Passed <- RuntimeDeploymentRequested
    "#]].assert_eq(&platform.transcript_since(place));
    let told = "waits: `ops` holds `env-cc58147b` until 2026-03-02T11:00:09Z (hold-5f6aa00f): incident 4711";
    let notes = notes(&platform);
    assert_eq!(notes[0], told);
    assert_eq!(notes.iter().filter(|note| note.contains("waits")).count(), 1, "it is said once");
}

#[tokio::test]
async fn every_scope_holds_and_a_hold_that_is_over_does_not() {
    for (scope, minutes, waits) in [
        (HoldScope::Platform, 3, true),
        (HoldScope::Environment, 3, true),
        (HoldScope::Workload, 3, true),
        (HoldScope::Workload, 0, false),
    ] {
        let mut platform = serving().await;
        let from = platform.clock.now();
        hold(&platform, scope, minutes).await;
        platform.run(&publish("publish-1", json!({ "LOG_LEVEL": "debug" }))).await;
        let waited = platform.clock.now().duration_since(from) > SignedDuration::from_mins(3);
        assert_eq!(waited, waits, "{scope:?} for {minutes} minutes");
        assert_eq!(
            platform.outcome("publish-1").await,
            ("Completed".into(), "ConfigurationPublished".into())
        );
    }
}

#[tokio::test]
async fn a_deploy_of_a_person_is_not_held_and_takes_the_place_of_what_waits() {
    let mut platform = serving().await;
    hold(&platform, HoldScope::Workload, 45).await;
    let from = platform.clock.now();
    platform.send(&bind_secret("bind-1", "db-password"));
    platform
        .run_until("waiting", |platform| {
            platform
                .states::<Operation>()
                .iter()
                .any(|it| it.notes.iter().any(|note| note.text.contains("waits")))
        })
        .await;
    platform.run(&deploy("deploy-2", "1.4.2")).await;
    assert!(platform.clock.now().duration_since(from) < SignedDuration::from_mins(5));
    let serving = platform.compute.serving("reservations-api").unwrap();
    let image = platform.registry.named(&serving.image);
    assert!(image.ends_with(":1.4.2") && serving.secrets.len() == 1);
}
