//! Bad commands: each gets a sentence that names what was wrong, loses nothing, and takes nobody down.

use std::collections::BTreeMap;

use expect_test::expect;
use jiff::SignedDuration;
use runtime_platform::{admin::dead_letters::DeadLetter, ports::clock::Clock};
use serde_json::{Value, json};

use super::story::serving;
use crate::support::{
    builders::{Order, deploy, rollback, rollback_of},
    test_platform::TestPlatform,
};

/// Sends commands and answers what is said of each: the reason, and the sentence.
async fn refusals(orders: Vec<Order>) -> String {
    let mut platform = serving().await;
    let mut told = String::new();
    for order in orders {
        platform.run(&order).await;
        let said = platform.last("RuntimeCommandFailed");
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        told.push_str(&format!("{}: {} {}\n", text("commandId"), text("reasonCode"), text("detail")));
    }
    assert_eq!(platform.deployments(), ["1.4.1 Completed"]);
    told
}

#[tokio::test]
async fn every_field_that_is_wrong_is_named() {
    let workload = |id: &str, pointer: &str, value: Value| {
        deploy(id, "1.4.2").with(&format!("/workloads/0{pointer}"), value)
    };
    let told = refusals(vec![
        workload("no-tag", "/image", json!("acr.azurecr.io/reservations-api")),
        workload("other-target", "/target", json!("aks")),
        deploy("wrong-kind", "1.4.2").with("/environmentId", json!("dep-12345678")),
        rollback_of("wrong-kind-too", "env-12345678"),
        deploy("no-workload", "1.4.2").with("/workloads", json!([])),
        deploy("endless-gate", "1.4.2").with("/healthGate/bakeSeconds", json!(9999)),
    ])
    .await;
    expect![[r#"
        no-tag: InvalidPayload payload.workloads[0].image: `acr.azurecr.io/reservations-api` has no tag; add the version, e.g. `acr.azurecr.io/reservations-api:1.4.2`
        other-target: NotSupported payload.workloads[0].target: `aks` is no target that can be deployed to yet; use `container-apps`.
        wrong-kind: InvalidPayload payload.environmentId: `dep-12345678` should begin with `env-`
        wrong-kind-too: InvalidPayload payload.deploymentId: `env-12345678` should begin with `dep-`
        no-workload: NotSupported payload.workloads: 0 were given; exactly one is taken. Send one Deploy for each.
        endless-gate: InvalidPayload payload: `healthGate.bakeSeconds` is 9999 and must be from 0 to 3600 seconds: 60 to 300 is usual
    "#]].assert_eq(&told);
}

#[tokio::test]
async fn no_value_of_a_field_with_the_wrong_type_gets_into_an_event() {
    let secret = "hunter2-hunter2";
    let told = refusals(vec![
        deploy("list-as-text", "1.4.2").with("/workloads", json!(secret)),
        deploy("text-as-number", "1.4.2").with("/environmentId", json!(4711)),
        deploy("strategy", "1.4.2").with("/strategy", json!(secret)),
        deploy("gate", "1.4.2").with("/healthGate/count", json!(secret)),
        deploy("seconds", "1.4.2").with("/healthGate/bakeSeconds", json!(-4711)),
    ])
    .await;
    expect![[r#"
        list-as-text: InvalidPayload payload.workloads: it must be a list. Correct the field and send the command with a new eventId.
        text-as-number: InvalidPayload payload.environmentId: it must be a text. Correct the field and send the command with a new eventId.
        strategy: InvalidPayload payload.strategy: it must be one of `RollingHealthGated`, `BlueGreen`, `Canary`, `Recreate`. Correct the field and send the command with a new eventId.
        gate: InvalidPayload payload.healthGate.count: it must be a whole number that is not negative. Correct the field and send the command with a new eventId.
        seconds: InvalidPayload payload.healthGate.bakeSeconds: it must be a number of seconds, 0 or more. Correct the field and send the command with a new eventId.
    "#]].assert_eq(&told);
    assert!(!told.contains(secret) && !told.contains("4711"), "{told}");
}

#[tokio::test]
async fn a_command_on_the_queue_of_another_is_told_where_to_go() {
    let order = Order { queue: "deploy".into(), ..Order::new("lost", "MakeTea", json!({ "sugar": 2 })) };
    expect![[r#"
        lost: UnknownCommand The queue of Deploy takes only Deploy; this message has the eventType `MakeTea`. Send it to the queue of its own command.
    "#]].assert_eq(&refusals(vec![order]).await);
}

#[tokio::test]
async fn what_cannot_be_read_is_filed_with_its_reason_and_never_answered() {
    let mut platform = TestPlatform::new();
    let contradicts = BTreeMap::from([("cs-tenant-id".to_owned(), "acme".to_owned())]);
    platform.run(&Order { body: Some(b"{\"eventId\": ".to_vec()), ..deploy("malformed", "1.4.1") }).await;
    platform.run(&Order { properties: contradicts, ..deploy("contradictory", "1.4.1") }).await;
    platform.run(&Order { tenant: "_platform".into(), ..deploy("reserved", "1.4.1") }).await;
    assert_eq!(platform.event_types(), Vec::<String>::new());
    let mut letters = platform.states::<DeadLetter>();
    letters.sort_by_key(|letter| letter.detail.clone());
    let told: String = letters
        .iter()
        .map(|it| format!("{}: {}\n", it.reason, it.detail.clone().unwrap_or_default()))
        .collect();
    expect![[r#"
        Unreadable: `tenantId` `_platform` begins with `_`, which is reserved for the platform: correct it and send the message anew
        Unreadable: the body is not JSON: EOF while parsing a value at line 1 column 12: send a canonical envelope
        Unreadable: the property `cs-tenant-id` says `acme` and the body says `connectsoft`: set the property from the body, or leave it out
    "#]].assert_eq(&told);
}

#[tokio::test]
async fn a_command_that_waited_too_long_is_not_carried_out() {
    let mut platform = serving().await;
    let place = platform.mark();
    platform.send(&Order {
        expiration_time: Some("2026-03-02T10:20:00Z".into()),
        ..deploy("its-own-limit", "1.4.2")
    });
    platform.clock.set(platform.clock.now() + SignedDuration::from_mins(5));
    platform.run_until_quiet().await;
    platform.send(&deploy("six-hours", "1.4.2"));
    platform.clock.set(platform.clock.now() + SignedDuration::from_hours(6) + SignedDuration::from_secs(1));
    platform.run_until_quiet().await;
    expect![[r#"
        10:15:09 > Deploy its-own-limit
        10:20:09 RuntimeCommandFailed its-own-limit Rejected Expired: The command was good until 2026-03-02T10:20:00Z and was reached only at 2026-03-02T10:20:09Z: nothing was done. Send Deploy again with a new eventId if it is still wanted. <- its-own-limit
        10:20:09 > Deploy six-hours
        16:20:10 RuntimeCommandFailed six-hours Rejected Expired: The command was good until 2026-03-02T16:20:09Z and was reached only at 2026-03-02T16:20:10Z: nothing was done. Send Deploy again with a new eventId if it is still wanted. <- six-hours
    "#]].assert_eq(&platform.transcript_since(place));
}

#[tokio::test]
async fn one_id_on_two_queues_is_answered_twice() {
    let mut platform = TestPlatform::new();
    platform.run(&deploy("same", "1.4.1")).await;
    platform.run(&rollback("same")).await;
    assert_eq!(platform.event_types(), ["RuntimeCommandFailed", "RuntimeCommandFailed"]);
    let sequences: Vec<_> = platform.events().iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [1, 2]);
}
