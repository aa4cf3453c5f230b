//! What must not be taken, through the front doors of the real platform: each gets a sentence, loses
//! nothing, and a good command right after it works.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    client::{Client, Mail, noise},
    orders::{self, NO_ENVIRONMENT, Order, TENANT, deploy, deploy_payload},
    up::Place,
};

/// How long a command may take to its end.
const END: Duration = Duration::from_secs(30);
/// How long a message may take until it is filed.
const FILED: Duration = Duration::from_secs(20);
/// Bytes of a body that no function takes.
const HUGE_BYTES: usize = 100_000_000;
/// What the handler may have held at its peak after that, in bytes.
const HANDLER_BYTES_MAX: u64 = 60 * 1024 * 1024;
/// The other tenant.
const STRANGER: &str = "stranger";

pub fn run() -> Result<(), String> {
    crate::block_on(async {
        let place = Place::new();
        let mut up = place.up(&[]);
        let client = up.ready().await;
        let environment = client.carry_out(&orders::provision("front-door"), END).await;
        let environment = environment["environmentId"].as_str().unwrap().to_owned();
        let mut cases = 0;
        cases += refused_with_an_event(&client, &environment).await;
        cases += filed_as_dead_letters(&client, &place, &environment).await;
        cases += refused_by_the_broker(&client).await;
        cases += refused_over_http(&client, &place).await;
        one_outcome_for_many_copies(&client, &environment).await;
        a_stranger_is_told_that_it_does_not_exist(&client, &environment).await;

        let panicked = place.log_lines("panicked at");
        assert!(panicked.is_empty(), "{panicked:?}");
        assert!(up.interrupt().await.success());
        println!("  {} bad inputs, each with its sentence; after each a good command worked", cases + 2);
    })
}

/// A good command, the cheapest there is: what it asks for is there already.
async fn all_is_well(client: &Client) {
    let ended = client.carry_out(&orders::provision("front-door"), END).await;
    assert_eq!(ended["outcome"]["eventType"], "RuntimeCommandCompleted", "{ended}");
}

fn mail<'a>(order: &'a Order, message_id: &'a str, properties: &'a [(&'a str, &'a str)]) -> Mail<'a> {
    Mail {
        queue: &order.queue,
        message_id,
        content_type: "application/json",
        properties,
        broker: json!({}),
        body: order.envelope.to_string().into_bytes(),
    }
}

async fn post(client: &Client, order: &Order, properties: &[(&str, &str)]) {
    let (status, text) = client.post(mail(order, &Uuid::new_v4().to_string(), properties)).await.unwrap();
    assert_eq!(status, 201, "{text}");
}

/// Understood, and refused: the sender is told in an event.
async fn refused_with_an_event(client: &Client, environment: &str) -> usize {
    let changed = |member: &str, value: Value| {
        let mut payload = deploy_payload(environment, "module-a", "r/a:1");
        payload[member] = value;
        Order::new("Deploy", payload)
    };
    let expiring = deploy(environment, "module-a", "r/a:1");
    let none: &[(&str, &str)] = &[];
    let cases: Vec<(Order, &[(&str, &str)], &str, &[&str])> = vec![
        (changed("workloads", json!("many")), none, "InvalidPayload", &["payload.workloads", "list"]),
        (changed("strategy", json!(7)), none, "InvalidPayload", &["payload.strategy"]),
        (
            changed("environmentId", json!("dep-12345678")),
            none,
            "InvalidPayload",
            &["payload.environmentId", "env-"],
        ),
        (
            deploy(environment, "module-a", "r/a"),
            none,
            "InvalidPayload",
            &["payload.workloads[0].image", "has no tag"],
        ),
        (
            deploy(NO_ENVIRONMENT, "module-a", "r/a:1"),
            none,
            "EnvironmentNotFound",
            &[NO_ENVIRONMENT, "ProvisionEnvironment"],
        ),
        (
            deploy(environment, "module-a", "r/a:1").with("eventType", json!("Explode")),
            none,
            "UnknownCommand",
            &["Explode", "Deploy"],
        ),
        (
            expiring,
            &[("cs-first-enqueued", "2020-01-01T00:00:00Z")],
            "Expired",
            &["2020-01-01T06:00:00Z", "new eventId"],
        ),
    ];
    let count = cases.len();
    for (order, properties, code, parts) in cases {
        post(client, &order, properties).await;
        let ended = client.end_of(&order.event_id, END).await;
        let failed = &ended["outcome"];
        assert_eq!(failed["eventType"], "RuntimeCommandFailed", "{ended}");
        assert_eq!(failed["payload"]["reasonCode"], code, "{ended}");
        let detail = failed["payload"]["detail"].as_str().unwrap();
        for part in parts {
            assert!(detail.contains(part), "`{part}` is not in: {detail}");
        }
        all_is_well(client).await;
    }
    count
}

/// Not understood, or not to be trusted: filed with the reason, and nobody is answered.
async fn filed_as_dead_letters(client: &Client, place: &Place, environment: &str) -> usize {
    let good = || deploy(environment, "module-a", "r/a:1");
    let raw = |body: &str| (Some(body.as_bytes().to_vec()), "application/json");
    type Case<'a> = (Order, (Option<Vec<u8>>, &'a str), &'a [(&'a str, &'a str)], &'a [&'a str]);
    let as_it_is = (None, "application/json");
    let cases: Vec<Case<'_>> = vec![
        (good(), raw("{\"eventId\": \"evt-1\", oops"), &[], &["JSON"]),
        (good(), raw(""), &[], &["empty"]),
        (good(), raw("[1, 2]"), &[], &["object"]),
        (good(), (None, "application/xml"), &[], &["application/xml"]),
        (good().with("tenantId", Value::Null), as_it_is.clone(), &[], &["tenantId"]),
        (good().with("tenantId", json!("_platform")), as_it_is.clone(), &[], &["tenantId"]),
        (good().with("occurredAt", json!("yesterday")), as_it_is.clone(), &[], &["occurredAt"]),
        (good(), as_it_is.clone(), &[("cs-tenant-id", "somebody-else")], &["cs-tenant-id"]),
        (good(), as_it_is, &[("cs-event-type", "RollbackDeployment")], &["cs-event-type"]),
    ];
    let count = cases.len();
    for (order, (body, content_type), properties, parts) in cases {
        let before = place.log_lines("is filed").len();
        let message_id = Uuid::new_v4().to_string();
        let mut mail = Mail { content_type, ..mail(&order, &message_id, properties) };
        if let Some(body) = body {
            mail.body = body;
        }
        let (status, text) = client.post(mail).await.unwrap();
        assert_eq!(status, 201, "{text}");
        let filed = filed_after(place, before).await;
        for part in parts {
            assert!(filed.contains(part), "`{part}` is not in: {filed}");
        }
        assert_eq!(
            client.get(&format!("commands/{}", order.event_id)).await.unwrap().0,
            404,
            "nobody is answered"
        );
        all_is_well(client).await;
    }
    let events = client.get_as("somebody-else", "events").await.unwrap().1;
    assert_eq!(events["items"], json!([]), "the tenant that was claimed hears nothing");
    count
}

/// Waits for the next dead letter, and answers what the log says of it.
async fn filed_after(place: &Place, before: usize) -> String {
    let began = Instant::now();
    loop {
        let filed = place.log_lines("is filed");
        if let Some(line) = filed.get(before) {
            return line.clone();
        }
        assert!(began.elapsed() < FILED, "it was not filed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Not accepted at all: Service Bus says so, and why.
async fn refused_by_the_broker(client: &Client) -> usize {
    let mut payload = deploy_payload(NO_ENVIRONMENT, "module-a", "r/a:1");
    payload["releaseRef"] = json!(noise(300 * 1024));
    let large = Order::new("Deploy", payload);
    let (status, text) = client.send_as(&large, "large").await.unwrap();
    assert_eq!(status, 403, "{text}");
    assert!(text.contains("262144") && text.contains("bytes"), "{text}");
    all_is_well(client).await;

    let nowhere = Order { queue: "no-such-queue".to_owned(), ..deploy(NO_ENVIRONMENT, "module-a", "r/a:1") };
    let (status, text) = client.send_as(&nowhere, "nowhere").await.unwrap();
    assert_eq!(status, 404, "{text}");
    assert!(text.contains("no-such-queue"), "{text}");

    let url = format!("{}/deploy/messages", client.text("serviceBusEndpoint"));
    let answer =
        client.http.post(url).header("authorization", "Bearer forged").body("{}").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 401);
    assert!(answer.text().await.unwrap().contains("Not authorized"));
    all_is_well(client).await;
    3
}

async fn refused_over_http(client: &Client, place: &Place) -> usize {
    let url = format!("{}/api/v1/runtime/environments", client.text("functionsEndpoint"));
    let request = || client.http.get(&url).header("x-cs-tenant-id", TENANT);
    let key = client.text("functionKey");
    for (request, status, part) in [
        (request(), 401, ""),
        (request().header("x-functions-key", "wrong"), 401, ""),
        (client.http.get(&url).header("x-functions-key", key), 400, "x-cs-tenant-id"),
        (
            client
                .http
                .get(format!("{url}/env-ffffffff"))
                .header("x-cs-tenant-id", TENANT)
                .header("x-functions-key", key),
            404,
            "env-ffffffff",
        ),
        (request().header("x-functions-key", key).body(vec![b'x'; HUGE_BYTES]), 413, "send less"),
    ] {
        let answer = request.send().await.unwrap();
        let (found, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert_eq!(found, status, "{text}");
        assert!(text.contains(part), "`{part}` is not in: {text}");
        all_is_well(client).await;
    }
    let handler = place.handler_other_than(None).await;
    let peak = memory_bytes(handler);
    assert!(peak < HANDLER_BYTES_MAX, "the handler held {peak} bytes");
    println!(
        "  the handler held {} MiB at most, with a body of {} MB on its way",
        peak >> 20,
        HUGE_BYTES / 1_000_000
    );
    5
}

/// What a process held at its peak, or where the system does not know that, holds now.
fn memory_bytes(pid: i32) -> u64 {
    let kibibytes = match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().to_owned(),
        Err(_) => {
            let told = Command::new("ps").args(["-o", "rss=", "-p", &pid.to_string()]).output().unwrap();
            String::from_utf8(told.stdout).unwrap()
        }
    };
    kibibytes.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

async fn one_outcome_for_many_copies(client: &Client, environment: &str) {
    let order = deploy(environment, "module-copies", "r/copies:1");
    for _ in 0..5 {
        client.send(&order).await;
    }
    let ended = client.end_of(&order.event_id, END).await;
    assert_eq!(ended["outcome"]["eventType"], "RuntimeDeploymentCompleted", "{ended}");
    all_is_well(client).await;
    let events = client.events().await;
    let of_it =
        events.iter().filter(|event| event["envelope"]["correlationId"] == order.correlation_id.as_str());
    let mut kinds: Vec<&str> = of_it.map(|event| event["envelope"]["eventType"].as_str().unwrap()).collect();
    // The inventory tells of it too, and may be later than whoever asks.
    kinds.retain(|kind| *kind != "RuntimeInventoryUpdated");
    assert_eq!(kinds, ["RuntimeDeploymentRequested", "RuntimeDeploymentCompleted"]);
}

async fn a_stranger_is_told_that_it_does_not_exist(client: &Client, environment: &str) {
    let order = deploy(environment, "module-a", "r/a:1").with("tenantId", json!(STRANGER));
    post(client, &order, &[]).await;
    let began = Instant::now();
    let ended = loop {
        let (status, ended) = client.get_as(STRANGER, &format!("commands/{}", order.event_id)).await.unwrap();
        if status == 200 && ended["ended"] == true {
            break ended;
        }
        assert!(began.elapsed() < END, "{ended}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(ended["outcome"]["payload"]["reasonCode"], "EnvironmentNotFound", "{ended}");
    assert_eq!(ended["outcome"]["tenantId"], STRANGER, "{ended}");
    assert_eq!(
        client.get(&format!("commands/{}", order.event_id)).await.unwrap().0,
        404,
        "its owner hears nothing of it"
    );
    assert_eq!(client.get_as(STRANGER, &format!("environments/{environment}")).await.unwrap().0, 404);
    all_is_well(client).await;
}
