//! How many durable messages a second the local Service Bus takes and delivers, beside what the
//! disk can do: `cargo bench --bench service_bus`.
//!
//! Every message is sent into a topic, meets the rules of its subscriptions, is received under a
//! lock and completed; each of these is on disk before it is answered.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use runtime_platform::{
    local::service_bus::{Message, ServiceBus, Topology},
    ports::clock::SystemClock,
};
use serde_json::{Value, json};

const EACH: Duration = Duration::from_secs(5);
const BODY_BYTES: usize = 1024;
const RECEIVERS_PER_SUBSCRIPTION: usize = 2;
const RECEIVED_AT_ONCE: usize = 32;
/// How long a receiver looks before it asks whether all is done.
const PATIENCE: Duration = Duration::from_millis(100);

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    println!("a message of {BODY_BYTES} bytes; each line is one run of {} s", EACH.as_secs());
    for (name, topology, subscriptions) in [
        ("one of five subscriptions asks", five_subscriptions(), &SUBSCRIPTIONS[..1]),
        ("six of six subscriptions ask", fan_out(), &SUBSCRIPTIONS[..]),
    ] {
        for senders in [1, 64] {
            let directory = tempfile::tempdir().expect("there is room for a directory");
            let fsyncs = fsyncs_per_second(directory.path());
            let file = directory.path().join("bus.sqlite");
            let rates = runtime.block_on(async {
                let bus = ServiceBus::open(&file, topology.clone(), Arc::new(SystemClock))
                    .expect("a new file opens");
                run(&bus, subscriptions, senders).await
            });
            println!(
                "{name}; {senders:>2} senders: {:>6.0} messages/s sent, {:>6.0} copies/s delivered and completed; \
                 the disk alone {fsyncs:.0} fsyncs/s: {:.2} messages per fsync",
                rates.sent,
                rates.completed,
                rates.sent / fsyncs
            );
        }
    }
}

const SUBSCRIPTIONS: [&str; 6] = [
    "events/Subscriptions/s0",
    "events/Subscriptions/s1",
    "events/Subscriptions/s2",
    "events/Subscriptions/s3",
    "events/Subscriptions/s4",
    "events/Subscriptions/s5",
];

fn rule(name: &str, event_type: &str) -> Value {
    json!({ "name": name, "correlationFilter": { "properties": { "cs-event-type": event_type } } })
}

fn topology(subscriptions: Vec<Value>) -> Topology {
    let text = json!({ "queues": [], "topics": [
        { "name": "events", "duplicateDetectionWindow": "P1D", "subscriptions": subscriptions },
    ] });
    Topology::parse("bench", &text.to_string()).expect("the topology is right")
}

fn five_subscriptions() -> Topology {
    let subscription = |index: usize| {
        let first = if index == 0 { "SecretRotated" } else { "SecretBound" };
        json!({ "name": format!("s{index}"), "timeToLive": "P7D", "rules": [
            rule("$Default", first),
            rule("b", "RuntimeCommandFailed"),
            { "name": "c", "sqlFilter": "[cs-event-type] IN ('A', 'B') AND [cs-sequence] > 10" },
        ] })
    };
    topology((0..5).map(subscription).collect())
}

fn fan_out() -> Topology {
    let rules = || {
        vec![
            rule("a", "RuntimeCommandFailed"),
            rule("b", "RuntimeCommandCompleted"),
            rule("$Default", "SecretRotated"),
        ]
    };
    topology(
        (0..6)
            .map(|index| json!({ "name": format!("s{index}"), "timeToLive": "P7D", "rules": rules() }))
            .collect(),
    )
}

struct Rates {
    sent: f64,
    completed: f64,
}

async fn run(bus: &ServiceBus, subscriptions: &[&'static str], senders: usize) -> Rates {
    let (sent, completed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let expected = Arc::new(AtomicU64::new(u64::MAX));
    let start = Instant::now();
    let senders: Vec<_> = (0..senders)
        .map(|_| {
            let (bus, sent) = (bus.clone(), sent.clone());
            tokio::spawn(async move {
                while start.elapsed() < EACH {
                    bus.send("events", vec![message()]).await.expect("the message is taken");
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let receivers: Vec<_> = subscriptions
        .iter()
        .flat_map(|subscription| (0..RECEIVERS_PER_SUBSCRIPTION).map(|_| *subscription))
        .map(|subscription| {
            let (bus, completed, expected) = (bus.clone(), completed.clone(), expected.clone());
            tokio::spawn(async move {
                while completed.load(Ordering::Relaxed) < expected.load(Ordering::Relaxed) {
                    let received =
                        bus.receive(subscription, RECEIVED_AT_ONCE, PATIENCE).await.expect("a receive works");
                    let count = received.len() as u64;
                    let settled =
                        received.into_iter().map(|received| bus.complete(subscription, received.lock_token));
                    try_join_all(settled).await.expect("a lock holds");
                    completed.fetch_add(count, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("a sender ends well");
    }
    let sending = start.elapsed();
    let sent = sent.load(Ordering::Relaxed);
    expected.store(sent * subscriptions.len() as u64, Ordering::Relaxed);
    for receiver in receivers {
        receiver.await.expect("a receiver ends well");
    }
    let completed = completed.load(Ordering::Relaxed);
    assert_eq!(completed, sent * subscriptions.len() as u64, "every copy arrives once");
    Rates { sent: per_second(sent, sending), completed: per_second(completed, start.elapsed()) }
}

fn message() -> Message {
    Message {
        content_type: Some("application/json".to_owned()),
        properties: BTreeMap::from([
            ("cs-event-type".to_owned(), json!("SecretRotated")),
            ("cs-tenant-id".to_owned(), json!("connectsoft")),
            ("cs-trace-id".to_owned(), json!("trace-0a1b2c3d")),
            ("cs-sequence".to_owned(), json!(17)),
        ]),
        body: vec![b'x'; BODY_BYTES],
        ..Message::default()
    }
}

/// Appends a page and waits for the disk, over and over.
fn fsyncs_per_second(directory: &Path) -> f64 {
    let mut file = File::create(directory.join("fsync")).expect("a file can be made");
    let (mut count, start) = (0, Instant::now());
    while start.elapsed() < Duration::from_secs(2) {
        file.write_all(&[0; 4096]).and_then(|()| file.sync_data()).expect("the disk takes a page");
        count += 1;
    }
    per_second(count, start.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "a rate has three digits that matter")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
