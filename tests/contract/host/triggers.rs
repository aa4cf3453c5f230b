//! What is posted to the handler, and what becomes of its answers.

use std::fs;

use base64::{Engine, prelude::BASE64_STANDARD};
use runtime_platform::local::host::{HostEvent, Stream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::{App, KEY, World};

async fn invocation(world: &World, count: usize) -> Value {
    world.until("an invocation", || world.invocations().into_iter().nth(count - 1)).await
}

async fn empty(world: &World, dead: u64) {
    for _ in 0..500 {
        if world.queue().await == (0, dead) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the queue holds {:?}; events: {:#?}", world.queue().await, world.events());
}

#[tokio::test]
async fn a_message_is_posted_as_azure_posts_it_and_completed() {
    let world = App::new().setting("OURS", "yes").queue("Deploy").start().await;
    world.send("m-1", br#"{"MessageId":"from the body"}"#).await;
    let invocation = invocation(&world, 1).await;
    let (headers, body) = (&invocation["headers"], &invocation["body"]);
    assert_eq!(invocation["function"], "Deploy");
    assert_eq!(headers["content-type"], "application/json; charset=utf-8");
    assert_eq!(headers["transfer-encoding"], "chunked");
    assert_eq!(headers.get("content-length"), None);
    assert_eq!(headers["x-azure-functions-hostversion"], "4.1037.0.0");
    assert_eq!(headers["user-agent"], "Azure-Functions-Host/4.1037.0.0");
    assert_eq!(headers["x-azure-functions-invocationid"].as_str().map(str::len), Some(36));
    let trace = headers["traceparent"].as_str().unwrap();
    assert_eq!((trace.len(), &trace[..3], &trace[52..]), (55, "00-", "-00"));
    let data = BASE64_STANDARD.decode(body["Data"]["message"].as_str().unwrap()).unwrap();
    assert_eq!(data, br#"{"MessageId":"from the body"}"#);
    assert_eq!(
        (&body["Metadata"]["MessageId"], &body["Metadata"]["DeliveryCount"]),
        (&json!("\"m-1\""), &json!("1"))
    );
    empty(&world, 0).await;
}

#[tokio::test]
async fn the_handler_gets_the_settings_and_nothing_of_ours() {
    let app = App::new().setting("OURS", "overridden").queue("Deploy");
    let defaults = json!({"IsEncrypted": false, "Values": {"OURS": "default", "THEIRS": "default"}});
    fs::write(app.folder.path().join("local.settings.json"), defaults.to_string()).unwrap();
    let world = app.start().await;
    world.send("m-1", b"{}").await;
    let environment = invocation(&world, 1).await["environment"].clone();
    assert_eq!((&environment["OURS"], &environment["THEIRS"]), (&json!("overridden"), &json!("default")));
    assert_eq!(environment["FUNCTIONS_APP_ROOT_PATH"], json!(world.app.folder.path()));
    assert_eq!(environment["FUNCTIONS_CUSTOMHANDLER_PORT"], environment["FUNCTIONS_HTTPWORKER_PORT"]);
    assert_eq!(environment["FUNCTIONS_CUSTOMHANDLER_WORKER_ID"], environment["FUNCTIONS_HTTPWORKER_ID"]);
    let ours = [
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "LC_ALL",
        "TZ",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "LLVM_PROFILE_FILE",
    ];
    let unasked = environment.as_object().unwrap().keys().filter(|name| {
        let is_setting = world.app.settings.contains_key(*name) || *name == "THEIRS";
        !is_setting && !name.starts_with("FUNCTIONS_") && !ours.contains(&name.as_str())
    });
    assert_eq!(unasked.collect::<Vec<_>>(), Vec::<&String>::new());
    let line = |wanted: Stream, text: &'static str| {
        move |event: &HostEvent| match event {
            HostEvent::HandlerLine { stream, line } => (*stream == wanted && line == text).then_some(()),
            _ => None,
        }
    };
    world.event("stdout", 1, line(Stream::Out, "the fake handler starts")).await;
    world.event("stderr", 1, line(Stream::Err, "and complains")).await;
}

#[tokio::test]
async fn a_failure_gives_the_message_back_until_it_is_dead() {
    let world = App::new().setting("FAKE_Deploy", "status 500|empty|text|ok").queue("Deploy").start().await;
    world.send("m-1", b"{}").await;
    empty(&world, 0).await;
    let counts: Vec<Value> =
        world.invocations().iter().map(|call| call["body"]["Metadata"]["DeliveryCount"].clone()).collect();
    assert_eq!(counts, ["1", "2", "3", "4"]);
    assert_eq!(
        world.failure(1).await,
        "Response status code does not indicate success: 500 (Internal Server Error)"
    );
    assert!(
        world
            .failure(2)
            .await
            .starts_with("the handler answered with an empty body: on Azure this invocation would hang")
    );
    assert_eq!(
        world.failure(3).await,
        "the handler answered with Content-Type `text/plain`: it must be application/json"
    );

    let world = App::new().setting("FAKE_Deploy", "status 500").queue("Deploy").start().await;
    world.send("m-1", b"{}").await;
    empty(&world, 1).await;
    assert_eq!(world.invocations().len(), 5);
}

#[tokio::test]
async fn http_requests_find_their_function_and_need_its_key() {
    let reply =
        r#"{"Outputs":{"res":{"statusCode":"201","body":"made","headers":{"x-a":"b"}}},"Logs":["said"]}"#;
    let world = App::new().setting("FAKE_Things", reply).setting("FAKE_Broken", "empty");
    let world = world.http("Things", "v1/things/{id:int?}").http("Broken", "v1/broken").start().await;
    assert_eq!(world.get("/api/v1/things/7?a=1&a=2", Some(KEY)).await, (201, "made".to_owned()));
    let request = invocation(&world, 1).await["body"].clone();
    assert_eq!(request["Data"]["req"]["Params"], json!({"id": "7"}));
    assert_eq!(request["Data"]["req"]["Query"], json!({"a": "1,2"}));
    assert_eq!(request["Data"]["req"]["Url"], json!(format!("{}/api/v1/things/7?a=1&a=2", world.url)));
    assert_eq!(request["Metadata"]["id"], json!("\"7\""));
    assert_eq!(world.get(&format!("/api/v1/things?code={KEY}"), None).await.0, 201);
    let no_key = "This function asks for a function key: send it as the header x-functions-key or as ?code=.";
    assert_eq!(world.get("/api/v1/things", None).await, (401, no_key.to_owned()));
    assert_eq!(world.get("/api/v1/things", Some("wrong")).await.0, 401);
    assert_eq!(
        world.get("/v1/things", Some(KEY)).await,
        (404, "No function answers GET /v1/things.".to_owned())
    );
    assert_eq!(world.get("/api/v1/things/x", Some(KEY)).await.0, 404);
    let failed = "The function Broken failed; the host's log says why.";
    assert_eq!(world.get("/api/v1/broken", Some(KEY)).await, (500, failed.to_owned()));
    let said = |event: &HostEvent| {
        matches!(event, HostEvent::Told { level: "INFO", text } if text.ends_with("): said")).then_some(())
    };
    world.event("the reply's Logs", 1, said).await;
}

async fn raw(world: &World, request: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(world.url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_before_they_are_read() {
    let world = App::new().http("Things", "things").start().await;
    let head = format!("POST /api/things HTTP/1.1\r\nHost: h\r\nx-functions-key: {KEY}\r\n");
    // Not one byte of the body is sent.
    let answer = raw(&world, &format!("{head}Content-Length: 104857601\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(
        answer.ends_with("The body has 104857601 bytes, 104857600 are the most that a function can be sent."),
        "{answer}"
    );
    let answer = raw(&world, &format!("{head}Connection: close\r\nContent-Length: 2\r\n\r\nhi")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(invocation(&world, 1).await["body"]["Data"]["req"]["Body"], "hi");
    let answer = raw(
        &world,
        &format!("{head}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(invocation(&world, 2).await["body"]["Data"]["req"].get("Body"), None);
}

fn timer(schedule: &str) -> Value {
    json!([{"name": "timer", "type": "timerTrigger", "direction": "in", "schedule": schedule}])
}

#[tokio::test]
async fn timers_fire_and_make_up_for_what_was_missed_once() {
    let app = App::new().function("Often", timer("* * * * * *")).function("Missed", timer("0 0 0 1 * *"));
    let folder = app.state().join("timers");
    fs::create_dir_all(&folder).unwrap();
    let status = json!({"Last": "2020-01-01T00:00:00Z", "Next": "2020-02-01T00:00:00Z", "LastUpdated": "2020-01-01T00:00:00Z"});
    fs::write(folder.join("Missed.json"), status.to_string()).unwrap();
    let world = app.start().await;
    let calls = |name: &'static str| move |call: &Value| call["function"] == name;
    let often =
        world.until("two ticks", || world.invocations().into_iter().filter(calls("Often")).nth(1)).await;
    let expected = json!({"Schedule": {"AdjustForDST": true}, "ScheduleStatus": null, "IsPastDue": false});
    assert_eq!(often["body"]["Data"]["timer"], expected);
    let missed: Vec<Value> = world.invocations().into_iter().filter(calls("Missed")).collect();
    assert_eq!(missed.len(), 1);
    let status = json!({"Last": "2020-01-01T00:00:00+00:00", "Next": "2020-02-01T00:00:00+00:00", "LastUpdated": "2020-01-01T00:00:00+00:00"});
    let expected = json!({"Schedule": {"AdjustForDST": true}, "ScheduleStatus": status, "IsPastDue": true});
    assert_eq!(missed[0]["body"]["Data"]["timer"], expected);
    let kept = || serde_json::from_slice::<Value>(&fs::read(folder.join("Missed.json")).ok()?).ok();
    world.until("the status", || kept().filter(|kept| kept["Next"].as_str() > Some("2026"))).await;
}
