//! How the handler is started, watched and replaced; how a host starts and stops.

use std::{collections::BTreeSet, fs, path::Path};

use runtime_platform::local::host::{HostError, HostEvent};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::json;

use super::world::{App, KEY, World};

fn exits(event: &HostEvent) -> Option<(String, bool)> {
    match event {
        HostEvent::HandlerExited { how, restarting, .. } => Some((how.clone(), *restarting)),
        _ => None,
    }
}

fn gave_up(event: &HostEvent) -> Option<String> {
    match event {
        HostEvent::GaveUp { reason } => Some(reason.clone()),
        _ => None,
    }
}

fn pid(world: &World) -> Pid {
    let pid = world.host().handler_pid().expect("the handler runs");
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

#[tokio::test]
async fn the_third_crash_ends_the_host() {
    let world = App::new().setting("FAKE_START", "3").queue("Deploy").start().await;
    let reason = world.event("GaveUp", 1, gave_up).await;
    assert_eq!(
        reason,
        "the handler ended with exit code 3; that was error 3 of at most 3 without 30 quiet minutes between"
    );
    let exits: Vec<(String, bool)> = world.events().iter().filter_map(exits).collect();
    assert_eq!(exits, [true, true, false].map(|restarting| ("exit code 3".to_owned(), restarting)));
    assert_eq!(world.host().handler_pid(), None);
}

#[tokio::test]
async fn a_killed_handler_is_replaced_and_its_message_comes_again() {
    let world = App::new().setting("FAKE_Deploy", "hang").queue("Deploy").start().await;
    world.send("m-1", b"{}").await;
    world.until("the invocation", || world.invocations().into_iter().next()).await;
    kill_process(pid(&world), Signal::KILL).unwrap();
    assert_eq!(world.event("HandlerExited", 1, exits).await, ("signal 9".to_owned(), true));
    let again = world.until("the second delivery", || world.invocations().into_iter().nth(1)).await;
    assert_eq!(again["body"]["Metadata"]["DeliveryCount"], "2");
    assert!(world.failure(1).await.starts_with("the connection to the handler failed: "));
}

#[tokio::test]
async fn exit_code_200_is_no_error() {
    let world = App::new()
        .setting("FAKE_Again", "exit 200")
        .http("Again", "again")
        .http("Fine", "fine")
        .start()
        .await;
    for round in 1..=4 {
        world.ready(round).await;
        assert_eq!(world.get("/api/again", Some(KEY)).await.0, 500);
        assert_eq!(world.event("HandlerExited", round, exits).await, ("exit code 200".to_owned(), true));
    }
    assert_eq!(world.get("/api/fine", Some(KEY)).await, (200, "{}".to_owned()));
    assert_eq!(world.events().iter().filter_map(gave_up).count(), 0);
}

#[tokio::test]
async fn exit_code_0_is_made_visible_and_fails_what_follows() {
    let mut world =
        App::new().setting("FAKE_End", "exit 0").http("End", "end").http("Fine", "fine").start().await;
    world.ready(1).await;
    assert_eq!(world.get("/api/end", Some(KEY)).await.0, 500);
    assert_eq!(world.event("HandlerExited", 1, exits).await, ("exit code 0".to_owned(), false));
    let told = |event: &HostEvent| match event {
        HostEvent::Told { level: "ERROR", text } => Some(text.clone()),
        _ => None,
    };
    assert!(
        world
            .event("an error", 1, told)
            .await
            .starts_with("the handler exited with code 0: Azure's host neither restarts it")
    );
    assert_eq!(world.get("/api/fine", Some(KEY)).await.0, 500);
    assert_eq!(
        world.failure(2).await,
        "the handler exited with code 0 and Azure's host would not start it again"
    );
    world.stop().await;
}

#[tokio::test]
async fn an_invocation_out_of_time_kills_the_handler_and_is_no_error() {
    let mut app = App::new().setting("FAKE_Hang", "hang").http("Hang", "hang").http("Fine", "fine");
    app.host_json["functionTimeout"] = json!("00:00:01");
    let world = app.start().await;
    for round in 1..=3 {
        world.ready(round).await;
        assert_eq!(world.get("/api/hang", Some(KEY)).await.0, 500);
        assert_eq!(world.event("HandlerExited", round, exits).await, ("signal 9".to_owned(), true));
    }
    assert_eq!(
        world.failure(1).await,
        "the invocation took longer than functionTimeout (1 seconds); the handler is killed and started again"
    );
    assert_eq!(world.get("/api/fine", Some(KEY)).await.0, 200);
}

#[tokio::test]
async fn a_handler_that_never_listens_is_an_error_each_time() {
    let mut app = App::new().queue("Deploy");
    app.host_json["customHandler"]["initializationTimeout"] = json!("00:00:00.2");
    app.host_json["customHandler"]["description"] =
        json!({"defaultExecutablePath": "sleep", "arguments": ["60"]});
    let world = app.start().await;
    let reason = world.event("GaveUp", 1, gave_up).await;
    assert_eq!(
        reason,
        "the handler did not answer GET / on FUNCTIONS_CUSTOMHANDLER_PORT within 0.2 seconds (initializationTimeout); that was error 3 of at most 3 without 30 quiet minutes between"
    );
}

#[tokio::test]
async fn stopping_lets_what_runs_end_and_leaves_no_process() {
    let mut world = App::new().setting("FAKE_Slow", "slow").http("Slow", "slow").start().await;
    world.ready(1).await;
    let handler = pid(&world);
    let (url, host) = (world.url.clone(), world.host.take().unwrap());
    let call = tokio::spawn(async move {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::new()
            .get(format!("{url}/api/slow"))
            .header("x-functions-key", KEY)
            .send()
            .await
            .unwrap()
            .status()
    });
    world.until("the invocation", || world.invocations().into_iter().next()).await;
    host.stop().await;
    assert_eq!(call.await.unwrap(), 200);
    assert!(test_kill_process(handler).is_err());
    assert_eq!(world.event("HandlerExited", 1, exits).await, ("signal 9".to_owned(), false));
}

#[tokio::test]
async fn dropping_a_host_kills_its_handler() {
    let mut world = App::new().queue("Deploy").start().await;
    world.ready(1).await;
    let handler = pid(&world);
    drop(world.host.take());
    world.until("the handler's end", || test_kill_process(handler).is_err().then_some(())).await;
}

#[tokio::test]
async fn everything_wrong_with_an_app_is_said_together() {
    let mut app = App::new()
        .function("Copy", json!([{"name": "b", "type": "blobTrigger", "direction": "in"}]))
        .function(
            "Sweep",
            json!([{"name": "t", "type": "timerTrigger", "direction": "in", "schedule": "0 0 0 * * 7"}]),
        )
        .http("One", "same/{a}")
        .http("Two", "same/{b}");
    app.host_json["version"] = json!("1.0");
    let folder = app.folder.path().to_owned();
    let Err(HostError::Configuration(problems)) = app.try_start().await else { panic!("the app was taken") };
    let said: Vec<String> = problems
        .iter()
        .map(|problem| problem.to_string().replace(&format!("{}/", folder.display()), ""))
        .collect();
    assert_eq!(
        said,
        [
            "host.json: version: `1.0` is not supported: write \"2.0\"",
            "functions/Copy/function.json: bindings[0].type: `blobTrigger` is not supported here: supported are serviceBusTrigger, timerTrigger, httpTrigger and, with the latter, http",
            "functions/Copy/function.json: bindings: has 0 triggers, a function has one: supported are serviceBusTrigger, timerTrigger, httpTrigger and, with the latter, http",
            "functions/Sweep/function.json: bindings[0].schedule: `0 0 0 * * 7` has a day of the week 7: Sunday is 0",
            "functions/Two/function.json: bindings: the function `One` has the same route for the same method: change one of them",
        ]
    );
}

#[tokio::test]
async fn the_app_of_this_checkout_is_taken_and_a_staged_one_too() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let app = App::new();
    let mut expected = BTreeSet::new();
    for function in fs::read_dir(checkout.join("functions")).unwrap() {
        let function = function.unwrap();
        // Beside host.json, as Azure wants them.
        let folder = app.folder.path().join(function.file_name());
        fs::create_dir(&folder).unwrap();
        fs::copy(function.path().join("function.json"), folder.join("function.json")).unwrap();
        expected.insert(function.file_name());
    }
    assert!(expected.len() > 5, "{expected:?}");
    let mut world = app.start().await;
    world.ready(1).await;
    // Of its queues only one is there, which is told and not fatal.
    let trouble = |event: &HostEvent| match event {
        HostEvent::Told { level: "ERROR", text } => text.contains("cannot be received").then_some(()),
        _ => None,
    };
    world.event("a missing queue", 1, trouble).await;
    assert_eq!(world.get("/api/v1/runtime/environments", None).await.0, 401);
    world.stop().await;
}
