//! Real deaths under load: `kill -9` of the handler and of `up` at random instants, while commands keep
//! coming. At the end every command that the broker took has exactly one ending, nothing is lost, and
//! nothing happened twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};
use uuid::Uuid;

use crate::{
    client::Client,
    orders::{self, NO_ENVIRONMENT, Order, deploy, deploy_payload},
    up::{Place, Up, kill},
};

const COMMANDS: usize = 48;
const MODULES: u64 = 6;
/// Deaths of the handler one by one, and of `up`.
const HANDLER_KILLS: usize = 15;
const UP_KILLS: usize = 4;
/// Deaths of the handler in a row, each as soon as it runs: after the third its host gives up.
const QUICK_KILLS: usize = 3;
/// How long everything may take to end once the killing is over.
const SETTLED: Duration = Duration::from_secs(120);
/// How long a command's own ending may take where nobody is killed.
const END: Duration = Duration::from_secs(60);
/// The pause before a command that was not taken is sent again.
const AGAIN: Duration = Duration::from_millis(200);
/// The events that end a Deploy.
const ENDINGS: [&str; 4] =
    ["RuntimeDeploymentCompleted", "RuntimeDeploymentRolledBack", "RuntimeCommandFailed", "RuntimeCommandCompleted"];

pub fn run() -> Result<(), String> {
    crate::block_on(async {
        let mut random = Random::new();
        println!("  seed {} (KILLS_SEED={} does the same again, as far as time allows)", random.0, random.0);
        let place = Place::new();
        let catalogue = json!({ "images": [{ "match": "r/bad:*", "behaviour": { "kind": "errors", "share": 1.0 } }] });
        let catalogue = place.write("images.json", &catalogue.to_string());
        let arguments = ["--images", catalogue.to_str().unwrap()];
        let mut up = place.up(&arguments);
        let client = up.ready().await;
        let provisioned = orders::provision("kills");
        let environment = client.carry_out(&provisioned, END).await["environmentId"].as_str().unwrap().to_owned();

        let (known, platform) = watch::channel(client);
        let sender = tokio::spawn(send_all(platform, commands(&environment, &mut random), random.fork()));
        let dealt = deal(&place, &arguments, &mut up, &known, &mut random).await;
        let (mut sent, again) = sender.await.unwrap();
        sent.push(provisioned);

        let client = known.borrow().clone();
        let began = Instant::now();
        let mut ends = BTreeMap::new();
        for order in &sent {
            let left = SETTLED.saturating_sub(began.elapsed());
            ends.insert(order.correlation_id.clone(), client.end_of(&order.event_id, left).await);
        }
        println!("  all had ended {:.0} s after the last death", began.elapsed().as_secs_f64());
        let events = client.events().await;
        every_command_ended_once(&sent, &ends, &events);
        nothing_is_out_of_order(&events);
        let served = what_serves_is_what_was_said(&client, &events).await;
        let delivered = every_event_was_delivered_once(&client, &events).await;
        nothing_is_left_over(&place, &client).await;
        assert!(up.interrupt().await.success());
        place.is_empty_within(Duration::from_secs(2)).await;
        println!(
            "  commands={} (sent again {again}) handler-kills={} up-kills={} new-hosts={} handler-starts={} events={} delivered={delivered} apps={served} lost=0 doubled=0",
            sent.len(),
            dealt.handlers,
            dealt.ups,
            place.log_lines("a new one is started").len(),
            place.log_lines("the handler starts as process").len(),
            events.len(),
        );
    })
}

/// SplitMix64: enough to be surprised by, and the same again for the same seed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let given = std::env::var("KILLS_SEED").ok().and_then(|seed| seed.parse().ok());
        Self(given.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0 % 1_000_000))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn milliseconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

/// Deploys to a few modules, some of which fail at the gate, and commands that are refused.
fn commands(environment: &str, random: &mut Random) -> Vec<Order> {
    (0..COMMANDS)
        .map(|number| {
            let module = format!("module-m{}", random.below(MODULES));
            match random.below(20) {
                0..14 => deploy(environment, &module, &format!("r/good:{number}")),
                14..17 => deploy(environment, &module, &format!("r/bad:{number}")),
                17 => deploy(environment, &module, "r/without-a-tag"),
                18 => deploy(NO_ENVIRONMENT, &module, "r/good:1"),
                _ => {
                    let mut payload = deploy_payload(environment, &module, "r/good:1");
                    payload["strategy"] = json!("Sideways");
                    Order::new("Deploy", payload)
                }
            }
        })
        .collect()
}

/// Sends each command until the broker has taken it; some a second time. Answers them, and how often
/// one had to be sent again.
async fn send_all(platform: watch::Receiver<Client>, orders: Vec<Order>, mut random: Random) -> (Vec<Order>, usize) {
    let mut again = 0;
    for order in &orders {
        let copies = if random.below(8) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            // The same id for every try: what the broker took without our knowing is dropped then.
            let message_id = Uuid::new_v4().to_string();
            loop {
                let client = platform.borrow().clone();
                match client.send_as(order, &message_id).await {
                    Ok((201, _)) => break,
                    Ok((503, _)) | Err(_) => {
                        again += 1;
                        sleep(AGAIN).await;
                    }
                    Ok((status, text)) => panic!("a command is not taken: {status} {text}"),
                }
            }
        }
        sleep(random.milliseconds(300, 1800)).await;
    }
    (orders, again)
}

/// Deaths that were dealt.
#[derive(Default)]
struct Dealt {
    handlers: usize,
    ups: usize,
}

/// Deals all deaths, at random instants. `up` is started again on the same data.
async fn deal<'p>(
    place: &'p Place,
    arguments: &[&str],
    up: &mut Up<'p>,
    known: &watch::Sender<Client>,
    random: &mut Random,
) -> Dealt {
    let mut dealt = Dealt::default();
    let quick_round = HANDLER_KILLS / 2;
    let mut handler = None;
    for round in 0..HANDLER_KILLS {
        sleep(random.milliseconds(300, 4500)).await;
        let deaths = if round == quick_round { QUICK_KILLS } else { 1 };
        for _ in 0..deaths {
            let pid = place.handler_other_than(handler).await;
            kill(pid, Signal::KILL);
            handler = Some(pid);
            dealt.handlers += 1;
        }
        let due = (round + 1) * UP_KILLS / HANDLER_KILLS;
        if due > dealt.ups {
            sleep(random.milliseconds(0, 2500)).await;
            up.kill();
            dealt.ups += 1;
            *up = place.up(arguments);
            known.send_replace(up.ready().await);
        }
    }
    dealt
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer} is not in {value}"))
}

fn every_command_ended_once(sent: &[Order], ends: &BTreeMap<String, Value>, events: &[Value]) {
    let mut endings: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for event in events {
        let kind = text(event, "/envelope/eventType");
        if ENDINGS.contains(&kind) || kind == "RuntimeEnvironmentProvisioned" {
            endings.entry(text(event, "/envelope/correlationId")).or_default().push(event);
        }
    }
    for order in sent {
        let end = &ends[&order.correlation_id];
        let found = endings.remove(order.correlation_id.as_str()).unwrap_or_default();
        assert_eq!(found.len(), 1, "`{}` has {} endings: {found:?}; {end}", order.event_id, found.len());
        assert_eq!(end["outcome"]["eventId"], found[0]["envelope"]["eventId"], "{end}");
        let failed = found[0]["envelope"]["payload"]["reasonCode"].as_str().unwrap_or_default();
        assert!(!["DeadLettered", "TimedOut", "Expired"].contains(&failed), "`{}` was given up: {}", order.event_id, found[0]);
    }
    assert!(endings.is_empty(), "these were not asked for: {endings:?}");
}

/// Each aggregate's events are numbered from 1 on, each number once, and all are published.
fn nothing_is_out_of_order(events: &[Value]) {
    let mut sequences: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for event in events {
        assert!(event["publishedAt"].is_string(), "it was not published: {event}");
        sequences.entry(text(event, "/aggregate")).or_default().push(event["sequence"].as_u64().unwrap());
    }
    for (aggregate, mut numbers) in sequences {
        numbers.sort_unstable();
        let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, expected, "the events of `{aggregate}`");
    }
}

/// The last deployment of each module that completed has all the traffic in Resource Manager, no
/// revision is there that no deployment knows, and none was made for two.
async fn what_serves_is_what_was_said(client: &Client, events: &[Value]) -> usize {
    let deployments = client.list("deployments").await;
    let mut last = BTreeMap::new();
    for event in events.iter().filter(|event| text(event, "/envelope/eventType") == "RuntimeDeploymentCompleted") {
        let id = text(event, "/envelope/payload/deploymentId");
        let deployment = deployments.iter().find(|deployment| deployment["deploymentId"] == id).unwrap();
        last.insert(text(deployment, "/moduleId"), deployment);
    }
    let mut revisions = BTreeMap::new();
    for deployment in &deployments {
        let status = text(deployment, "/status");
        assert!(["Completed", "RolledBack", "Failed"].contains(&status), "{deployment}");
        if let Some(revision) = deployment["revision"].as_str() {
            let twin = revisions.insert(revision, text(deployment, "/deploymentId"));
            assert_eq!(twin, None, "`{revision}` was made for two deployments");
        }
    }
    let apps = client.apps().await;
    let mut weights = BTreeMap::new();
    for app in &apps {
        for revision in client.revisions(app).await {
            let name = text(&revision, "/name");
            assert!(revisions.contains_key(name), "no deployment made the revision `{name}`");
            if revision["properties"]["trafficWeight"] == 100 {
                weights.insert(text(app, "/name").to_owned(), name.to_owned());
            }
        }
        let traffic = app["properties"]["configuration"]["ingress"]["traffic"].as_array().unwrap();
        let whole: u64 = traffic.iter().filter_map(|entry| entry["weight"].as_u64()).sum();
        assert_eq!(whole, 100, "{app}");
    }
    for (module, deployment) in &last {
        let app = module.trim_start_matches("module-");
        let said = weights.get(app).map(String::as_str);
        assert_eq!(said, deployment["revision"].as_str(), "what serves of `{module}`");
        assert_eq!(deployment["weight"], 100, "{deployment}");
    }
    last.len()
}

/// Every event reached each subscription that asks for it, once.
async fn every_event_was_delivered_once(client: &Client, events: &[Value]) -> usize {
    let mut delivered = 0;
    for (subscription, kinds) in [
        ("runtime.deployment/Subscriptions/control-plane", &["RuntimeDeploymentRequested", ENDINGS[0], ENDINGS[1], ENDINGS[2], ENDINGS[3]][..]),
        ("runtime.deployment/Subscriptions/observability", &["RuntimeDeploymentCompleted"][..]),
        ("runtime.environment/Subscriptions/control-plane", &["RuntimeEnvironmentProvisioned", ENDINGS[2], ENDINGS[3]][..]),
    ] {
        let topic = subscription.split('/').next().unwrap();
        let expected: BTreeSet<String> = events
            .iter()
            .filter(|event| event["topic"] == topic && kinds.contains(&text(event, "/envelope/eventType")))
            .map(|event| text(event, "/envelope/eventId").trim_start_matches("evt-").to_owned())
            .collect();
        let mut found = BTreeSet::new();
        while let Some(taken) = client.take(subscription).await {
            let id = text(&taken.broker, "/MessageId").to_owned();
            assert!(found.insert(id.clone()), "`{id}` was delivered twice to {subscription}");
        }
        assert_eq!(found, expected, "what {subscription} was delivered");
        delivered += found.len();
    }
    delivered
}

/// No message is waiting, none was filed, and nothing was said to have been done twice.
async fn nothing_is_left_over(place: &Place, client: &Client) {
    let filed = place.log_lines("is filed");
    assert!(filed.is_empty(), "{filed:?}");
    for queue in ["provision-environment", "deploy", "rollback-deployment", "dead-letters", "redeliveries"] {
        for path in [queue.to_owned(), format!("{queue}/$DeadLetterQueue")] {
            let left = client.take(&path).await;
            assert!(left.is_none(), "left in {path}: {left:?}");
        }
    }
    let panicked = place.log_lines("panicked at");
    assert!(panicked.is_empty(), "{panicked:?}");
}
