//! `runtimectl up` from its start to its end: who holds the data, which ports, what is wrong with the
//! files, and that nothing is left behind.

use std::{
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

use crate::{
    orders::{self, NO_ENVIRONMENT, deploy},
    up::{Place, copy_of_the_app},
};

/// How long an `up` that cannot run may take to say so.
const REFUSED: Duration = Duration::from_secs(20);
/// How long something may live on after `up` was killed.
const GONE: Duration = Duration::from_secs(2);
/// How long a command may take to its end.
const END: Duration = Duration::from_secs(20);
/// The exit code of what cannot be used as it was asked for.
const UNUSABLE: i32 = 2;

pub fn run() -> Result<(), String> {
    crate::block_on(async {
        a_clean_stop_and_a_second_one_on_the_same_data().await;
        taken_ports_are_replaced().await;
        killed_it_leaves_nothing_running().await;
        an_ephemeral_one_leaves_nothing_at_all().await;
        data_of_a_newer_version_is_not_touched().await;
        every_mistake_in_a_file_is_named().await;
        a_handler_that_cannot_run_is_told_of().await;
    })
}

/// Runs `up` to its end, which must be a refusal; answers what it said.
async fn refused(place: &Place, more: &[&str]) -> String {
    let up = place.up(more);
    let began = Instant::now();
    let errors = place.path("errors.txt");
    let status = up.ended(REFUSED).await;
    let told = fs::read_to_string(errors).unwrap();
    assert_eq!(status.code(), Some(UNUSABLE), "{told}");
    place.is_empty_within(GONE).await;
    assert!(began.elapsed() < REFUSED);
    told
}

async fn a_clean_stop_and_a_second_one_on_the_same_data() {
    let place = Place::new();
    let mut up = place.up(&[]);
    let client = up.ready().await;
    let holder = up.pid();

    let data = place.data();
    let second = place.command(&["up", "--data", data.to_str().unwrap()]).output().unwrap();
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(UNUSABLE), "{told}");
    for part in [&format!("process {holder}"), data.to_str().unwrap(), "--data"] {
        assert!(told.contains(part), "`{part}` is not in: {told}");
    }

    // The first one does not mind.
    let ended = client.carry_out(&deploy(NO_ENVIRONMENT, "module-a", "r/a:1"), END).await;
    assert_eq!(ended["status"], "Rejected", "{ended}");

    let began = Instant::now();
    let status = up.interrupt().await;
    assert_eq!(status.code(), Some(0));
    place.is_empty_within(Duration::ZERO).await;
    println!("  a clean stop takes {:.1} s", began.elapsed().as_secs_f64());

    // And what it knew is there the next time, at the same addresses.
    let mut up = place.up(&[]);
    let again = up.ready().await;
    assert_eq!(again.context, client.context);
    assert_eq!(again.end_of(ended["eventId"].as_str().unwrap(), END).await, ended);
    assert!(up.interrupt().await.success());
}

async fn taken_ports_are_replaced() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut up = place.up(&["--port", &port.to_string()]);
    let client = up.ready().await;
    assert!(!client.text("functionsEndpoint").ends_with(&format!(":{port}")));
    assert_eq!(client.get("health").await.unwrap().0, 200);
    assert!(up.interrupt().await.success());
}

async fn killed_it_leaves_nothing_running() {
    for rest in [Duration::ZERO, Duration::from_millis(30), Duration::from_millis(300), Duration::from_secs(2)] {
        let place = Place::new();
        let mut up = place.up(&[]);
        tokio::time::sleep(rest).await;
        up.kill();
        place.is_empty_within(GONE).await;
    }
    let place = Place::new();
    let mut up = place.up(&[]);
    up.ready().await;
    place.handler_other_than(None).await;
    let began = Instant::now();
    up.kill();
    place.is_empty_within(GONE).await;
    println!("  killed, it leaves nothing running after {:.2} s", began.elapsed().as_secs_f64());
}

async fn an_ephemeral_one_leaves_nothing_at_all() {
    let place = Place::new();
    let up = place.spawn(place.command(&["up", "--ephemeral"]));
    let began = Instant::now();
    while !up.printed().contains("Stop it with Ctrl-C.") {
        assert!(began.elapsed() < REFUSED, "{}", up.told());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let scratch = place.path("tmp");
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 1);
    assert!(up.interrupt().await.success());
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
    place.is_empty_within(GONE).await;
}

async fn data_of_a_newer_version_is_not_touched() {
    let place = Place::new();
    place.write("data/form", "999");
    let told = refused(&place, &[]).await;
    assert!(told.contains("newer version (form 999"), "{told}");
    assert_eq!(fs::read_to_string(place.data().join("form")).unwrap(), "999");
    assert!(!place.data().join("store.db").exists());
}

/// A file of the app, a text in it and what stands there instead, and what must be said of it.
const MISTAKES: [(&str, &str, &str, &[&str]); 9] = [
    ("host.json", "\"2.0\"", "\"1.0\"", &["host.json", "version"]),
    ("host.json", "\"00:05:00\",\n  \"customHandler\"", "\"soon\",\n  \"customHandler\"", &["host.json", "functionTimeout", "soon"]),
    ("host.json", "{\n  \"version\"", "{\n  version", &["host.json", "line 2"]),
    ("functions/Deploy/function.json", "\"queueName\"", "\"queue\"", &["functions/Deploy/function.json", "bindings[0]", "queueName"]),
    ("functions/OutboxRelay/function.json", "*/10 * * * * *", "*/10 * *", &["functions/OutboxRelay/function.json", "bindings[0].schedule"]),
    ("functions/Health/function.json", "\"function\"", "\"everybody\"", &["functions/Health/function.json", "bindings[0].authLevel"]),
    ("infra/messaging.json", "\"PT1M\"", "\"a minute\"", &["messaging.json", "queues[0].lockDuration"]),
    ("infra/messaging.json", "\"maxDeliveryCount\"", "\"maxDeliveries\"", &["messaging.json", "queues[0]", "maxDeliveries"]),
    ("local.settings.json", "\"Values\": {", "\"Values\": [", &["local.settings.json"]),
];

async fn every_mistake_in_a_file_is_named() {
    let place = Place::new();
    let app = copy_of_the_app(&place);
    let arguments = ["--app", app.to_str().unwrap()];
    for (file, good, bad, parts) in MISTAKES {
        let path = app.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(good), "{file} has no {good}");
        fs::write(&path, text.replacen(good, bad, 1)).unwrap();
        let told = refused(&place, &arguments).await;
        for part in parts {
            assert!(told.contains(part), "{file} with {bad}: `{part}` is not in: {told}");
        }
        fs::write(&path, text).unwrap();
    }
    let images = place.write("images.json", r#"{"images":[{"match":"a:*","behaviour":{"kind":"errors","share":2}}]}"#);
    let told = refused(&place, &["--images", images.to_str().unwrap()]).await;
    assert!(told.contains("images.json") && told.contains("images[0].behaviour.share"), "{told}");
    println!("  {} mistakes in files are named", MISTAKES.len() + 1);
}

/// A setting that the handler refuses: the platform says so instead of trying for ever in silence.
async fn a_handler_that_cannot_run_is_told_of() {
    let place = Place::new();
    let app = copy_of_the_app(&place);
    let path = app.join("local.settings.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"masstransit\"", "\"xml\"", 1)).unwrap();
    let told = refused(&place, &["--app", app.to_str().unwrap()]).await;
    assert!(told.contains("`WIRE_FORMAT` is `xml`"), "{told}");

    // With the mistake gone the same data serves.
    fs::write(&path, text).unwrap();
    let mut up = place.up(&["--app", app.to_str().unwrap()]);
    let client = up.ready().await;
    let ended = client.carry_out(&orders::provision("later"), END).await;
    assert_eq!(ended["outcome"]["eventType"], "RuntimeEnvironmentProvisioned", "{ended}");
    assert!(up.interrupt().await.success());
}
