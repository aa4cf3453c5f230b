//! The loop: whatever becomes of its messages on the way, in whatever order and however often they come,
//! the platform ends in one state, and then is quiet.

use jiff::SignedDuration;
use proptest::{prelude::*, test_runner::Config};
use runtime_platform::{
    functions::{self, Trigger},
    ledger::State,
    ports::clock::Clock,
    services::{
        deployment_service::{RuntimeDeployment, Slot},
        runtime_configuration_service::{ConfigurationVersion, WorkloadConfiguration},
        runtime_health_service::HealthCheckResult,
        secret_binding_service::SecretBinding,
        service_catalog_runtime_service::{CatalogueEntry, RuntimeService},
        tenant_runtime_isolation_service::RuntimeTenantBinding,
    },
};
use serde_json::{Value, json};

use crate::support::{
    broker,
    builders::{IMAGE, Order, bind, bind_secret, deploy, provision, publish_configuration, rotate},
    fakes::compute::Behaviour,
    test_platform::TestPlatform,
};

/// What must be the same however messages came. Moments, and what counts messages, are left out.
const COMPARED: [&str; 8] = [
    RuntimeDeployment::KIND,
    Slot::KIND,
    RuntimeService::KIND,
    CatalogueEntry::KIND,
    ConfigurationVersion::KIND,
    WorkloadConfiguration::KIND,
    SecretBinding::KIND,
    RuntimeTenantBinding::KIND,
];
/// The longest pause between two sweeps of one kind, and a bit.
const ROUND: SignedDuration = SignedDuration::from_mins(61);
/// Rounds of sweeps that a quiet platform is watched for.
const WATCHED_ROUNDS: usize = 3;

fn platform() -> TestPlatform {
    let platform = TestPlatform::new();
    platform.compute.image(&format!("{IMAGE}:bad"), Behaviour::Answers(500));
    platform
}

/// One of everything, one after the other.
fn story() -> Vec<Order> {
    let other = |event_id: &str, version: &str| {
        deploy(event_id, version).with("/workloads/0/moduleId", json!("module-other"))
    };
    vec![
        provision("provision-0"),
        bind("bind-0", "acme", "shared"),
        deploy("deploy-0", "1.0"),
        other("deploy-o", "1.0"),
        publish_configuration("publish-0", json!({ "LOG_LEVEL": "debug" })),
        bind_secret("secret-0", "db-password"),
        deploy("deploy-1", "1.1"),
        rotate("rotate-0", "db-password", "Manual"),
        deploy("deploy-bad", "bad"),
        publish_configuration("publish-1", json!({ "LOG_LEVEL": "info" })),
    ]
}

pub fn sweep_timers() -> Vec<&'static str> {
    let timers =
        functions::all().into_iter().filter(|function| matches!(function.trigger, Trigger::Timer(_)));
    timers.map(|function| function.name).filter(|name| name.ends_with("Sweep")).collect()
}

/// One round of all sweeps, in a window that none of them has had.
async fn sweep_all(platform: &mut TestPlatform) {
    platform.clock.set(platform.clock.now() + ROUND);
    for timer in sweep_timers() {
        platform.fire(timer).await;
        platform.run_with_sweeps().await;
    }
}

/// The state that a run ends in, a line for each document.
fn state(platform: &TestPlatform) -> Vec<String> {
    let mut lines: Vec<_> = platform
        .documents()
        .into_iter()
        .filter(|stored| COMPARED.contains(&stored.document.kind.as_str()))
        .map(|stored| {
            let body = lasting(&stored.document.body);
            format!("{}/{} {body}", stored.partition.tenant_id, stored.document.id)
        })
        .collect();
    lines.extend(
        platform.states::<HealthCheckResult>().iter().map(|it| format!("{} {:?}", it.service_id, it.status)),
    );
    lines.extend(platform.traffic());
    lines
}

/// A value without moments and counts.
fn lasting(value: &Value) -> Value {
    let passes = |name: &str| !(name.ends_with("At") || COUNTS.contains(&name));
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(name, _)| passes(name))
            .map(|(name, member)| (name.clone(), lasting(member)))
            .collect(),
        Value::Array(items) => items.iter().map(lasting).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Members that say when, how often or by whom something was told, and not what is.
const COUNTS: [&str; 6] = ["at", "sequence", "nudges", "eventId", "completedEventId", "lineage"];

/// The lines without ids of what happened: what is made up for was caused by another message. How many
/// deployments it took is left out too.
fn masked(lines: &[String]) -> Vec<String> {
    let mask = |line: &String| {
        let words: Vec<_> = line
            .split_inclusive(|c: char| !c.is_ascii_alphanumeric())
            .map(|word| {
                let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
                let digits = bare.strip_prefix('d').unwrap_or(bare);
                let is_id = digits.len() >= 8 && digits.chars().all(|c| c.is_ascii_hexdigit());
                if is_id { format!("#{}", &word[bare.len()..]) } else { word.to_owned() }
            })
            .collect();
        words.concat()
    };
    let kept = lines.iter().filter(|line| !line.contains("/dep-"));
    let mut masked: Vec<_> = kept.map(mask).collect();
    masked.sort();
    masked
}

fn made_up_for(platform: &TestPlatform, wanted: &[String], what: &str) {
    let (found, wanted) = (masked(&state(platform)), masked(wanted));
    assert!(found == wanted, "{what}: {}\n{}", difference(&found, &wanted), platform.transcript());
}

fn difference(found: &[String], wanted: &[String]) -> String {
    let only = |sign: &str, a: &[String], b: &[String]| -> String {
        a.iter().filter(|line| !b.contains(line)).map(|line| format!("\n{sign} {line}")).collect()
    };
    only("+", found, wanted) + &only("-", wanted, found)
}

fn same(platform: &TestPlatform, wanted: &[String], what: &str) {
    let found = state(platform);
    assert!(found == wanted, "{what}: {}\n{}", difference(&found, wanted), platform.transcript());
}

/// Nothing is sent and nothing is changed any more, but that somebody is still well.
async fn nothing_more_happens(platform: &mut TestPlatform) {
    let place = platform.mark();
    for _ in 0..WATCHED_ROUNDS {
        sweep_all(platform).await;
    }
    let more = platform.transcript_since(place);
    let more: Vec<_> = more.lines().filter(|line| !line.contains("HealthCheckCompleted")).collect();
    assert!(more.is_empty(), "{more:#?}\n{}", platform.transcript());
}

async fn undisturbed() -> Vec<String> {
    let mut platform = platform();
    for order in story() {
        platform.run(&order).await;
    }
    sweep_all(&mut platform).await;
    let ended = state(&platform);
    nothing_more_happens(&mut platform).await;
    same(&platform, &ended, "watched on");
    ended
}

fn subscriptions() -> Vec<String> {
    let subscriptions = functions::all().into_iter().filter_map(|function| match &function.trigger {
        Trigger::Subscription { .. } => broker::entity(&function.trigger),
        Trigger::Queue(_) | Trigger::Timer(_) | Trigger::Http { .. } => None,
    });
    subscriptions.collect()
}

#[tokio::test]
async fn a_subscription_that_gets_nothing_is_made_up_for_by_sweeps() {
    let wanted = undisturbed().await;
    for lost in subscriptions() {
        let mut platform = platform();
        platform.broker.lose(&lost);
        for order in story() {
            platform.run(&order).await;
            sweep_all(&mut platform).await;
        }
        made_up_for(&platform, &wanted, &format!("everything to `{lost}` was lost"));
        nothing_more_happens(&mut platform).await;
    }
}

/// Runs the story and loses the n-th message that comes to a subscription; none where there were not so
/// many.
async fn with_one_lost(platform: &mut TestPlatform, nth: usize) -> Option<String> {
    let mut seen = 0;
    let mut lost = None;
    let read = subscriptions();
    for order in story() {
        platform.send(&order);
        loop {
            let number = platform.broker.ready().first().copied();
            let Some(number) = number else {
                if platform.happen().await {
                    continue;
                }
                break;
            };
            let held = platform.broker.take(number);
            let entity = held.message.entity.clone();
            let is_event = read.contains(&entity);
            seen += usize::from(is_event);
            if is_event && seen == nth + 1 && lost.is_none() {
                lost = Some(format!("{} of `{entity}`", held.message.message_id));
                continue;
            }
            platform.broker.give_back(held);
            platform.deliver(number).await;
        }
    }
    lost
}

#[tokio::test]
async fn any_one_event_that_is_lost_is_made_up_for_by_the_next_sweep() {
    let wanted = undisturbed().await;
    for nth in 0.. {
        let mut platform = platform();
        let Some(lost) = with_one_lost(&mut platform, nth).await else {
            assert!(nth > 10, "only {nth} events reached a subscription");
            println!("{nth} events were lost, one at a time");
            break;
        };
        sweep_all(&mut platform).await;
        made_up_for(&platform, &wanted, &format!("{lost} was lost"));
    }
}

/// Delivers what is ready in an order that `picks` chooses, and some of it again.
async fn in_any_order(platform: &mut TestPlatform, picks: &mut impl Iterator<Item = u8>) {
    let mut repeats = 0;
    loop {
        let ready = platform.broker.ready();
        if ready.is_empty() {
            if platform.happen().await {
                continue;
            }
            return;
        }
        let pick = picks.next().expect("picks do not end");
        let number = ready[usize::from(pick) % ready.len()];
        if pick >= 192 && repeats < 40 {
            repeats += 1;
            let held = platform.broker.take(number);
            platform.broker.repeat(&held);
            platform.broker.repeat(&held);
        } else {
            platform.deliver(number).await;
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 24, max_shrink_iters: 60, failure_persistence: None, ..Config::default() })]

    #[test]
    fn any_order_and_any_repetition_of_messages_ends_in_the_same_state(picks in prop::collection::vec(any::<u8>(), 64)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let wanted = undisturbed().await;
            let mut platform = platform();
            let mut picks = picks.into_iter().cycle();
            for order in story() {
                platform.send(&order);
                in_any_order(&mut platform, &mut picks).await;
            }
            sweep_all(&mut platform).await;
            same(&platform, &wanted, "in another order");
            nothing_more_happens(&mut platform).await;
        });
    }
}
