//! `get`, `watch` and `explain`.

use std::{
    collections::HashMap,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    time::timeout,
};

use super::fake::{Asked, Fake, LINE_TIMEOUT, interrupt, next, not_found};

fn deployment(number: usize) -> Value {
    json!({
        "deploymentId": format!("dep-{number}"), "environmentId": "env-1", "moduleId": "module-a",
        "image": format!("acr.azurecr.io/reservations-api:1.4.{number}"), "target": "container-apps",
        "status": "Completed", "weight": 100, "requestedAt": "2026-03-02T10:15:30Z",
        "gate": {"verdict": "Passed", "reason": null, "samples": []}
    })
}

/// Three pages of two.
fn pages(asked: &Asked) -> (u16, Value) {
    if asked.path != "deployments" {
        return not_found("NotFound");
    }
    assert_eq!(asked.query.get("environmentId").map(String::as_str), Some("env-1"));
    let from: usize = asked.query.get("after").map_or(0, |after| after.parse().unwrap());
    let next = (from < 4).then(|| (from + 2).to_string());
    (200, json!({"items": [deployment(from), deployment(from + 1)], "next": next}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_followed_to_its_end_and_shown_in_three_forms() {
    let fake = Fake::start(pages).await;
    let table = fake.run(&["get", "deployments", "--environment", "env-1"]).await;
    assert_eq!(table.code, Some(0), "{table:?}");
    let lines = table.out.lines().collect::<Vec<_>>();
    assert_eq!(lines.len(), 7, "{}", table.out);
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["DEPLOYMENT", "ENVIRONMENT", "MODULE", "IMAGE", "TARGET", "STATUS", "GATE", "WEIGHT", "AGE"]
    );
    assert!(
        lines[6].starts_with("dep-5       env-1        module-a  reservations-api:1.4.5"),
        "{}",
        table.out
    );
    assert!(!table.out.contains('\u{1b}'), "no colours without a terminal");

    let json = fake.run(&["get", "deployments", "--environment", "env-1", "-o", "json"]).await;
    let items = (0..6).map(deployment).collect::<Vec<_>>();
    assert_eq!(serde_json::from_str::<Value>(&json.out).unwrap(), json!(items));
    let yaml = fake.run(&["get", "deployments", "--environment", "env-1", "-o", "yaml"]).await;
    assert_eq!(serde_yaml_ng::from_str::<Value>(&yaml.out).unwrap(), json!(items));

    let cut = fake.run(&["get", "deployments", "--environment", "env-1", "--limit", "3"]).await;
    assert_eq!(cut.out.lines().count(), 4, "{cut:?}");
    assert!(cut.err.contains("There are more than 3"), "{}", cut.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_thing_is_shown_in_full_and_a_missing_one_is_said_to_be_missing() {
    let fake = Fake::start(|asked| match asked.path.as_str() {
        "deployments/dep-1" => (200, deployment(1)),
        _ => not_found("DeploymentNotFound"),
    })
    .await;
    let card = fake.run(&["get", "deployment", "dep-1"]).await;
    assert!(card.out.contains("image          acr.azurecr.io/reservations-api:1.4.1\n"), "{}", card.out);
    assert!(card.out.contains("  verdict  Passed\n"), "{}", card.out);
    let missing = fake.run(&["get", "deployments", "dep-9"]).await;
    assert_eq!((missing.code, missing.out.as_str()), (Some(1), ""));
    assert!(missing.err.contains("there is none (DeploymentNotFound)"), "{}", missing.err);
    let plans = fake.run(&["get", "plans"]).await;
    assert_eq!(plans.code, Some(2), "{plans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_platform_is_told_as_such() {
    let fake = Fake::start(pages).await;
    fake.context(|context| context["functionKey"] = json!("another-key"));
    let ran = fake.run(&["get", "deployments", "--environment", "env-1"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("refused the function key of the context"), "{}", ran.err);
    assert!(!ran.err.contains("another-key"), "a key is never shown: {}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_goes_away_is_no_failure() {
    let items = (0..20_000).map(deployment).collect::<Vec<_>>();
    let fake = Fake::start(move |_| (200, json!({"items": items, "next": null}))).await;
    let args = ["get", "deployments", "--environment", "env-1", "--limit", "20000"];
    let mut child = fake.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(out.next_line().await.unwrap().unwrap().starts_with("DEPLOYMENT"));
    drop(out);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
    assert_eq!((child.wait().await.unwrap().code(), err.as_str()), (Some(0), ""));
}

fn event(number: usize, kind: &str, cause: Option<&str>, payload: Value) -> Value {
    json!({
        "topic": "runtime.deployment", "sequence": number, "publishedAt": "2026-03-02T10:15:31Z",
        "envelope": {
            "eventId": format!("evt-{number}"), "eventType": kind, "tenantId": "connectsoft", "projectId": "proj-a",
            "moduleId": "module-a", "traceId": "trace-1", "correlationId": "corr-1", "causationId": cause,
            "occurredAt": format!("2026-03-02T10:15:{number:02}Z"), "payload": payload
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_shows_each_event_once_through_overlaps_and_a_restart() {
    let rounds = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start(move |asked| {
        assert_eq!(asked.path, "events");
        let one = |number| event(number, "Happened", None, json!({}));
        match rounds.fetch_add(1, Ordering::SeqCst) {
            0 => (200, json!({"items": [one(1), one(2)], "next": "2"})),
            1 => (200, json!({"items": [one(2), one(3)], "next": "3"})),
            2..5 => (503, json!({"error": {"code": "Starting", "message": "in a moment"}})),
            5 => (200, json!({"items": [one(3), one(2), one(4)], "next": "4"})),
            _ => {
                assert_eq!(asked.query.get("after").map(String::as_str), Some("4"));
                (200, json!({"items": [one(4)], "next": "4"}))
            }
        }
    })
    .await;
    let args = ["watch", "-o", "json", "--after", "start"];
    let mut child = fake.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for number in 1..=4 {
        let envelope: Value = serde_json::from_str(&next(&mut lines).await).unwrap();
        assert_eq!(envelope, event(number, "Happened", None, json!({}))["envelope"]);
    }
    interrupt(&child);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
    let rest = timeout(LINE_TIMEOUT, lines.next_line()).await.unwrap().unwrap();
    assert_eq!((child.wait().await.unwrap().code(), rest, err.as_str()), (Some(0), None, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_begins_now() {
    let rounds = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start(move |_| {
        let old = event(1, "Happened", None, json!({}));
        let payload = json!({"deploymentId": "dep-1", "environmentId": "env-1", "image": "a:1", "healthGate": "Passed"});
        let new = event(2, "RuntimeDeploymentCompleted", Some("evt-1"), payload);
        match rounds.fetch_add(1, Ordering::SeqCst) {
            0 => (200, json!({"items": [old], "next": "1"})),
            1 => (200, json!({"items": [], "next": "1"})),
            _ => (200, json!({"items": [old, new], "next": "2"})),
        }
    })
    .await;
    let mut child = fake.command(&["watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(
        next(&mut lines).await,
        "10:15:02Z  RuntimeDeploymentCompleted      dep-1  a:1 runs in env-1, gate Passed  <- Happened evt-1"
    );
}

/// A deployment whose gate failed, as the platform keeps it.
fn failed_deployment() -> HashMap<&'static str, Value> {
    let gate = json!({
        "verdict": "Failed", "reason": "2 of 2 samples failed",
        "samples": [
            {"at": "2026-03-02T10:15:10Z", "latencyMs": 12, "answer": {"kind": "status", "status": 500, "retry_after": false}},
            {"at": "2026-03-02T10:15:11Z", "latencyMs": 2000, "answer": {"kind": "timedOut"}},
        ]
    });
    let feed = json!({"next": null, "items": [
        event(4, "Unrelated", Some("cmd-2"), json!({})),
        event(2, "RuntimeDeploymentRequested", Some("cmd-1"),
            json!({"deploymentId": "dep-1", "environmentId": "env-1", "image": "a:2", "previousImage": "a:1"})),
        event(3, "RuntimeDeploymentRolledBack", Some("evt-2"),
            json!({"deploymentId": "dep-1", "image": "a:2", "restoredImage": "a:1", "reason": "GateFailed"})),
    ]});
    HashMap::from([
        (
            "deployments/dep-1",
            json!({
                "deploymentId": "dep-1", "status": "RolledBack", "image": "a:2", "moduleId": "module-a", "environmentId": "env-1",
                "reason": "GateFailed", "operationId": "op-1", "gate": gate,
            }),
        ),
        (
            "operations/op-1",
            json!({
                "operationId": "op-1", "kind": "Deploy", "status": "Failed", "step": "Done", "subject": "dep-1",
                "startedAt": "2026-03-02T10:15:00Z", "endedAt": "2026-03-02T10:15:12Z", "detail": null,
                "correlationId": "corr-1", "commandId": "cmd-1", "notes": [{"at": "2026-03-02T10:15:05Z", "text": "revision made"}],
            }),
        ),
        (
            "commands/cmd-1",
            json!({
                "eventId": "cmd-1", "commandType": "Deploy", "status": "Failed", "ended": true, "operationId": "op-1",
                "detail": "the gate failed", "outcome": {"correlationId": "corr-1"},
            }),
        ),
        ("events", feed),
        (
            "events/evt-3",
            event(
                3,
                "RuntimeDeploymentRolledBack",
                Some("evt-2"),
                json!({"image": "a:2", "reason": "GateFailed"}),
            ),
        ),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_explained_with_its_causes_its_samples_and_its_notes() {
    let known = failed_deployment();
    let fake = Fake::start(move |asked| match known.get(asked.path.as_str()) {
        Some(value) => (200, value.clone()),
        None => not_found("NotFound"),
    })
    .await;
    let ran = fake.run(&["explain", "dep-1"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    expect_test::expect![[r#"
        dep-1  RolledBack  a:2 of module-a in env-1 (GateFailed)
        in the workflow corr-1

        Deploy  cmd-1  command, Failed
        └─ 10:15:02Z  RuntimeDeploymentRequested  evt-2  dep-1  a:2 is to run in env-1 in place of a:1
           └─ 10:15:03Z  RuntimeDeploymentRolledBack  evt-3  dep-1  a:2 was taken back (GateFailed), now serving a:1

        Health gate of dep-1: Failed. 2 of 2 samples failed
          10:15:10Z  HTTP 500  12 ms
          10:15:11Z  no answer in time  2000 ms

        Operation op-1: Deploy, Failed after 12s
          10:15:05Z  revision made
    "#]]
    .assert_eq(&ran.out);

    for id in ["evt-3", "cmd-1", "op-1"] {
        let ran = fake.run(&["explain", id]).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.out.contains("└─ 10:15:02Z  RuntimeDeploymentRequested"), "{id}: {}", ran.out);
        assert!(ran.out.contains("10:15:10Z  HTTP 500  12 ms"), "{id}: {}", ran.out);
        assert_eq!(ran.out.matches("<== this").count(), usize::from(id != "op-1"), "{id}: {}", ran.out);
        assert!(!ran.out.contains("Unrelated"), "{id}: {}", ran.out);
    }
    let json = fake.run(&["explain", "op-1", "-o", "json"]).await;
    let told: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(told["events"].as_array().unwrap().len(), 2, "{}", json.out);
    assert_eq!(told["deployments"][0]["gate"]["verdict"], json!("Failed"));

    let unknown = fake.run(&["explain", "evt-9"]).await;
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.err.contains("Nothing is known of `evt-9`"), "{}", unknown.err);
}
