//! `send`, and what it says of the end.

use std::{
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::fake::{Fake, LOGIN_TOKEN, Ran, TENANT, not_found, run};

const DEPLOY: &str = r#"{"environmentId":"env-1","workloads":[{"moduleId":"module-reservations","componentType":"api","image":"acr.azurecr.io/reservations-api:1.4.2","target":"container-apps"}]}"#;

async fn silent() -> Fake {
    let fake = Fake::start(|_| not_found("CommandNotFound")).await;
    fake.write("deploy.json", DEPLOY);
    fake
}

/// A platform on which a command is unknown, then under way, then ended in this way.
async fn ending(status: &'static str, command: &'static str, event: Value, detail: Value) -> Fake {
    let asked = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start(move |question| match question.path.split_once('/') {
        Some(("commands", id)) => match asked.fetch_add(1, Ordering::SeqCst) {
            0 => not_found("CommandNotFound"),
            1 => (503, json!({"error": {"code": "Busy", "message": "starting"}})),
            round => {
                let ended = round > 2;
                let status = if ended { status } else { "Accepted" };
                (200, json!({
                    "eventId": id, "commandType": command, "status": status, "ended": ended, "environmentId": "env-1",
                    "operationId": "op-1", "detail": if ended { detail.clone() } else { Value::Null },
                    "outcome": if ended { event.clone() } else { Value::Null },
                }))
            }
        },
        Some(("operations", "op-1")) => (200, json!({
            "operationId": "op-1", "kind": "Deploy", "step": "Probe",
            "notes": [{"at": "2026-03-02T10:15:30Z", "text": "revision made"}, {"at": "2026-03-02T10:15:31Z", "text": "gate passed"}],
        })),
        _ => not_found("NotFound"),
    })
    .await;
    fake.write("deploy.json", DEPLOY);
    fake
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_arrives_in_its_queue_within_a_canonical_envelope() {
    let fake = silent().await;
    let ran = fake.run(&["send", "deploy", "--file", "deploy.json", "--project", "proj-booking-saas"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let posted = fake.posted.lock().unwrap().clone();
    let [message] = posted.as_slice() else { panic!("{posted:?}") };
    assert_eq!(message.path, "/deploy/messages");
    let id = ran.out.trim();
    let body = &message.body;
    assert_eq!(
        body.as_object().unwrap().keys().collect::<Vec<_>>(),
        [
            "eventId",
            "eventType",
            "tenantId",
            "projectId",
            "moduleId",
            "traceId",
            "correlationId",
            "causationId",
            "occurredAt",
            "payload"
        ]
    );
    assert_eq!(
        (&body["eventId"], &body["eventType"], &body["tenantId"], &body["projectId"], &body["moduleId"]),
        (
            &json!(id),
            &json!("Deploy"),
            &json!(TENANT),
            &json!("proj-booking-saas"),
            &json!("module-reservations")
        )
    );
    assert_eq!(body["payload"].to_string(), DEPLOY);
    let header = |name: &str| message.headers[name].as_str();
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("cs-event-type"), "\"Deploy\"");
    assert_eq!(header("cs-tenant-id"), format!("\"{TENANT}\""));
    assert_eq!(header("cs-correlation-id"), body["correlationId"].to_string());
    let broker: Value = serde_json::from_str(header("brokerproperties")).unwrap();
    assert_eq!(broker["MessageId"], json!(id.strip_prefix("evt-").unwrap()));
    assert!(ran.err.contains(&format!("runtimectl explain {id}")), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_can_go_to_another_queue_in_masstransits_envelope() {
    let fake = silent().await;
    let args = [
        "send",
        "Deploy",
        "--file",
        "-",
        "--queue",
        "deploy-canary",
        "--wire",
        "masstransit",
        "--tenant",
        "other",
    ];
    let mut command = fake.command(&args);
    let mut child =
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(DEPLOY.as_bytes()).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    let posted = fake.posted.lock().unwrap().clone();
    assert_eq!(posted[0].path, "/deploy-canary/messages");
    assert_eq!(posted[0].headers["content-type"], "application/vnd.masstransit+json");
    assert_eq!(posted[0].body["message"]["tenantId"], json!("other"));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_tells_what_happens_and_ends_with_the_event() {
    let event = json!({"eventId": "evt-2", "eventType": "RuntimeDeploymentCompleted", "payload": {"image": "a:1", "environmentId": "env-1"}});
    let fake = ending("Completed", "Deploy", event.clone(), Value::Null).await;
    let ran = fake.run(&["send", "deploy", "-f", "deploy.json", "--wait"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let lines = ran.out.lines().collect::<Vec<_>>();
    assert_eq!(lines.len(), 2, "{ran:?}");
    assert_eq!(serde_json::from_str::<Value>(lines[1]).unwrap(), event);
    assert_eq!(ran.err.matches("revision made").count(), 1, "{}", ran.err);
    assert!(ran.err.contains("10:15:31Z  gate passed"), "{}", ran.err);
    assert!(ran.err.ends_with("Completed a:1 runs in env-1\n"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_command_ends_with_one_and_the_reason() {
    let event = json!({"eventId": "evt-2", "eventType": "RuntimeCommandFailed", "payload": {}});
    let fake = ending("Rejected", "Deploy", event, json!("There is no environment `env-1`.")).await;
    let ran = fake.run(&["send", "deploy", "-f", "deploy.json", "--wait"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.ends_with("Rejected There is no environment `env-1`.\n"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_end_in_time_is_said_to_go_on() {
    let fake = silent().await;
    let ran = fake.run(&["send", "deploy", "-f", "deploy.json", "--wait", "--timeout", "1s"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("has not ended within 1 seconds"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_ends_with_two_and_sends_nothing() {
    let fake = silent().await;
    fake.write("empty.json", "{}");
    let cases: [(&[&str], &str); 6] = [
        (&["send", "deplyo", "-f", "deploy.json"], "did you mean `deploy`?"),
        (&["send", "deploy", "-f", "missing.json"], "Cannot read `missing.json`"),
        (&["send", "deploy", "-f", "empty.json"], "`workloads` is missing"),
        (&["send", "deploy", "-f", "deploy.json", "--timeout", "soon", "--wait"], "`soon` is no time span"),
        (
            &["send", "deploy", "-f", "deploy.json", "--context", "nowhere"],
            "There is no context named `nowhere`",
        ),
        (
            &["send", "deploy", "-f", "deploy.json", "--queue", "no-such-queue"],
            "Service Bus has no queue `no-such-queue`",
        ),
    ];
    for (args, said) in cases {
        let ran = fake.run(args).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{args:?}: {ran:?}");
        assert!(ran.err.contains(said), "{args:?}: {}", ran.err);
    }
    assert!(fake.posted.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_platform_it_is_said_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(folder.path(), &["get", "environments"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("start one with `runtimectl up`"), "{}", ran.err);

    let fake = silent().await;
    // Nobody listens at port 1.
    fake.context(|context| {
        context["functionsEndpoint"] = json!("http://127.0.0.1:1");
        context["serviceBusEndpoint"] = json!("https://bus.localhost:1");
    });
    let ran = fake.run(&["get", "environments"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.err.contains("The platform at http://127.0.0.1:1 cannot be reached\n  caused by: "),
        "{}",
        ran.err
    );
    let ran = fake.run(&["send", "deploy", "-f", "deploy.json"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("Service Bus at https://bus.localhost:1 cannot be reached"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_connection_string_the_azure_login_is_used() {
    let fake = silent().await;
    fake.context(|context| drop(context.as_object_mut().unwrap().shift_remove("serviceBusConnectionString")));
    let tools = fake.folder.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    let answer = json!({"accessToken": LOGIN_TOKEN, "tokenType": "Bearer", "expires_on": 4_102_444_800_u64, "expiresOn": "2100-01-01 00:00:00.000000"});
    std::fs::write(tools.join("az"), format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
    std::fs::set_permissions(tools.join("az"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", tools.display());
    let mut command = fake.command(&["send", "deploy", "-f", "deploy.json"]);
    let ran: Ran = command.env("PATH", path).output().await.unwrap().into();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let posted = fake.posted.lock().unwrap().clone();
    assert_eq!(posted[0].headers["authorization"], format!("Bearer {LOGIN_TOKEN}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_not_asked_for_this_machine_and_an_open_context_is_warned_about() {
    let fake = silent().await;
    let file = fake.folder.path().join(".runtime/context.json");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut command = fake.command(&["send", "deploy", "-f", "deploy.json"]);
    command.env("http_proxy", "http://127.0.0.1:1").env("https_proxy", "http://127.0.0.1:1");
    let ran: Ran = command.output().await.unwrap().into();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("run `chmod 600 "), "{}", ran.err);
}
