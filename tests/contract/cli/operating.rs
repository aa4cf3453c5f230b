//! What an operator has the platform do: each command's one POST, and what it answers.

use std::{
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::fake::{Asked, Fake, interrupt, next, not_found};

/// What was posted: the path and the body.
type Posts = Arc<Mutex<Vec<(String, Value)>>>;

/// A platform that answers every POST alike, and commands as ended.
async fn platform(answer: Value) -> (Fake, Posts) {
    let posts = Posts::default();
    let seen = posts.clone();
    let fake = Fake::start(move |asked: &Asked| match asked.method.as_str() {
        "POST" => {
            assert!(asked.idempotency_key.is_some(), "what is posted twice must be one");
            seen.lock().unwrap().push((asked.path.clone(), asked.body.clone().unwrap()));
            (202, answer.clone())
        }
        _ if asked.path == "commands/evt-1" => (
            200,
            json!({"eventId": "evt-1", "commandType": "RollbackDeployment", "status": "Completed", "ended": true,
                "detail": null, "operationId": null,
                "outcome": {"eventType": "RuntimeDeploymentRolledBack", "payload": {"deploymentId": "dep-1"}}}),
        ),
        _ => not_found("NotFound"),
    })
    .await;
    (fake, posts)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_order_is_one_post_and_says_what_it_is_about() {
    let answer = json!({
        "image": "a:1", "operationId": "op-1", "holdId": "hold-1", "until": "2026-03-02T12:00:00Z",
        "suppressionId": "suppression-1", "environmentId": "env-1", "eventId": "evt-1", "commandType": "X"
    });
    let (fake, posts) = platform(answer).await;
    let cases: [(&[&str], &str, Value, &str); 14] = [
        (&["lift", "dep-1", "--reason", "r"], "quarantine/dep-1/lift", json!({"reason": "r"}), "a:1"),
        (&["cancel", "op-1", "--reason", "r"], "operations/op-1/cancel", json!({"reason": "r"}), "op-1"),
        (
            &["hold", "--environment", "env-1", "--for", "90s", "--reason", "r"],
            "holds",
            json!({"scope": "environment", "reason": "r", "environmentId": "env-1", "minutes": 2}),
            "hold-1",
        ),
        (
            &[
                "hold",
                "--environment",
                "env-1",
                "--module",
                "m",
                "--until",
                "2026-03-02T12:00:00Z",
                "--reason",
                "r",
            ],
            "holds",
            json!({"scope": "workload", "reason": "r", "environmentId": "env-1", "moduleId": "m", "until": "2026-03-02T12:00:00Z"}),
            "hold-1",
        ),
        (
            &["hold", "--platform", "--for", "1h", "--reason", "r"],
            "holds",
            json!({"scope": "platform", "reason": "r", "minutes": 60}),
            "hold-1",
        ),
        (&["release", "hold-1", "--reason", "r"], "holds/hold-1/release", json!({"reason": "r"}), "hold-1"),
        (
            &["decommission", "env-1", "--reason", "r"],
            "environments/env-1/decommission",
            json!({"reason": "r"}),
            "op-1",
        ),
        (
            &["decommission", "env-1", "--reason", "r", "--force"],
            "environments/env-1/decommission",
            json!({"reason": "r", "force": true}),
            "op-1",
        ),
        (
            &[
                "suppress",
                "--environment",
                "env-1",
                "--path",
                "env/*",
                "--until",
                "2026-03-03T00:00:00Z",
                "--reason",
                "r",
            ],
            "drift/suppressions",
            json!({"environmentId": "env-1", "match": {"path": "env/*"}, "reason": "r", "expiresAt": "2026-03-03T00:00:00Z"}),
            "suppression-1",
        ),
        (
            &["sweep", "env-1", "drift", "--reason", "r"],
            "environments/env-1/sweep/drift",
            json!({"reason": "r"}),
            "env-1",
        ),
        (
            &["rollback", "dep-1", "--reason", "r"],
            "deployments/dep-1/rollback",
            json!({"reason": "r"}),
            "evt-1",
        ),
        (&["rotate", "sb-1"], "secret-bindings/sb-1/rotate", json!({"reason": "Manual"}), "evt-1"),
        (
            &["rotate", "sb/1", "--reason", "compromised", "--version", "v2"],
            "secret-bindings/sb%2F1/rotate",
            json!({"reason": "Compromised", "version": "v2"}),
            "evt-1",
        ),
        (&["remediate", "drift-1"], "drift/drift-1/remediate", json!({}), "evt-1"),
    ];
    for (args, path, body, line) in cases {
        let ran = fake.run(args).await;
        assert_eq!((ran.code, ran.out.trim_end()), (Some(0), line), "{args:?}: {ran:?}");
        assert!(!ran.err.is_empty(), "{args:?} says what comes next");
        assert_eq!(posts.lock().unwrap().pop(), Some((path.to_owned(), body)), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_about_one_thing_is_followed_to_its_end() {
    let (fake, _) = platform(json!({"eventId": "evt-1", "commandType": "RollbackDeployment"})).await;
    let ran = fake.run(&["rollback", "dep-1", "--reason", "r", "--wait"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines[0], "evt-1");
    assert_eq!(serde_json::from_str::<Value>(lines[1]).unwrap()["eventType"], "RuntimeDeploymentRolledBack");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_wrongly_is_not_sent() {
    let (fake, posts) = platform(json!({})).await;
    let cases: [&[&str]; 9] = [
        &["hold", "--for", "1h", "--reason", "r"],
        &["hold", "--environment", "env-1", "--reason", "r"],
        &["hold", "--platform", "--environment", "env-1", "--for", "1h", "--reason", "r"],
        &["hold", "--environment", "env-1", "--for", "soon", "--reason", "r"],
        &["release", "hold-1"],
        &["suppress", "--environment", "env-1", "--for", "1h", "--reason", "r"],
        &["sweep", "env-1", "tea", "--reason", "r"],
        &["get", "tea"],
        &["get", "deployments", "--interval", "5"],
    ];
    for args in cases {
        let ran = fake.run(args).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{args:?}: {ran:?}");
    }
    let refused = Fake::start(|_| {
        (403, json!({"type": "about:blank", "status": 403, "code": "OperatorsOnly", "detail": "not you"}))
    })
    .await;
    let ran = refused.run(&["hold", "--platform", "--for", "1h", "--reason", "r"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("not you"), "{}", ran.err);
    assert!(posts.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_collection_is_asked_for_where_it_is_and_narrowed_by_what_it_knows() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let fake = Fake::start(move |asked| {
        let mut query: Vec<_> = asked.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        query.sort();
        seen.lock().unwrap().push(format!("{} {}?{}", asked.method, asked.path, query.join("&")));
        if asked.path.contains("-1") {
            (200, json!({"id": "x"}))
        } else {
            (200, json!({"items": [], "next": null}))
        }
    })
    .await;
    let cases: [(&[&str], &str); 12] = [
        (&["get", "services", "--status", "Running"], "GET services?status=Running"),
        (
            &["get", "svc", "svc-1", "--filter", "at=2026-03-02T10:00:00Z"],
            "GET services/svc-1?at=2026-03-02T10:00:00Z",
        ),
        (&["get", "service-health", "svc-1"], "GET services/svc-1/health?"),
        (&["get", "commands", "--filter", "commandType=Deploy"], "GET commands?commandType=Deploy"),
        (&["get", "scaling-policies", "--environment", "e"], "GET scaling-policies?environmentId=e"),
        (
            &["get", "drift", "--filter", "severity=High", "--filter", "kind=X"],
            "GET drift?kind=X&severity=High",
        ),
        (&["get", "suppressions"], "GET drift/suppressions?"),
        (&["get", "holds", "--status", "InForce", "-o", "json"], "GET holds?status=InForce"),
        (&["get", "hold", "hold-1", "-o", "yaml"], "GET holds/hold-1?"),
        (&["get", "sweeps", "--environment", "e"], "GET sweeps?environmentId=e"),
        (&["get", "outbox", "--filter", "all=true"], "GET outbox?all=true"),
        (&["get", "dl", "dl-1", "--filter", "unreadable=true"], "GET dead-letters/dl-1?unreadable=true"),
    ];
    for (args, wanted) in cases {
        let ran = fake.run(args).await;
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        assert_eq!(asked.lock().unwrap().drain(..).collect::<Vec<_>>(), [wanted], "{args:?}");
    }
    let cases: [(&[&str], &str); 4] = [
        (&["get", "events", "--environment", "e"], "--environment does not apply to events"),
        (&["get", "drift", "--filter", "tea=1"], "--filter tea=... does not apply to drift"),
        (&["get", "sweeps", "x"], "Sweeps are shown as a list"),
        (&["get", "service-health"], "Service health are shown one at a time"),
    ];
    for (args, wanted) in cases {
        let ran = fake.run(args).await;
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.err.contains(wanted), "{args:?}: {}", ran.err);
    }
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_watched_is_shown_again_only_when_it_has_changed() {
    let round = Arc::new(AtomicUsize::new(0));
    let rounds = round.clone();
    let fake = Fake::start(move |_| {
        let status = match rounds.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => "Running",
            // Away for a moment.
            2 => return (503, json!({"code": "Unavailable", "detail": "later"})),
            _ => "Succeeded",
        };
        (200, json!({"items": [{"operationId": "op-1", "status": status}], "next": null}))
    })
    .await;
    let args = ["get", "operations", "--watch", "--interval", "1", "-o", "json"];
    let mut child = fake.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&next(&mut lines).await).unwrap();
    assert_eq!(first, json!([{"operationId": "op-1", "status": "Running"}]));
    let second: Value = serde_json::from_str(&next(&mut lines).await).unwrap();
    assert_eq!(second, json!([{"operationId": "op-1", "status": "Succeeded"}]));
    assert!(round.load(Ordering::SeqCst) >= 4, "it looked in between");
    interrupt(&child);
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_complete_what_can_be_typed() {
    let folder = tempfile::tempdir().unwrap();
    // Fish is told of no values of what stands without an option.
    for (shell, mark, value) in [
        ("bash", "complete -F", "tenant-bindings"),
        ("zsh", "#compdef runtimectl", "tenant-bindings"),
        ("fish", "complete -c runtimectl", "interval"),
    ] {
        let ran = super::fake::run(folder.path(), &["completion", shell]).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        for wanted in [mark, "decommission", value] {
            assert!(ran.out.contains(wanted), "{shell} lacks `{wanted}`");
        }
    }
}
