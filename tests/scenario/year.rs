//! A year of one environment: what its partition holds in the end is bounded, and told.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use runtime_platform::{
    functions::{self, Trigger},
    ports::{clock::Clock, store::Stored},
};
use serde_json::json;

use super::story::serving;
use crate::support::{
    builders::{IMAGE, bind_secret, deploy, publish_configuration},
    fakes::compute::Behaviour,
    test_platform::TestPlatform,
};

const DAYS: i64 = 365;
/// Hours between two looks; each has enough windows for health to flip and come back.
const LOOK_HOURS: i64 = 12;
/// The most that one environment of one workload may hold after a year, in bytes: a partition takes 20 GB.
const BYTES_MAX: usize = 20_000_000;
/// The largest single document, in bytes.
const DOCUMENT_BYTES_MAX: usize = 150_000;

/// Documents and bytes of a kind.
type Sizes = BTreeMap<String, (usize, usize)>;

fn sizes(documents: &[Stored], chosen: impl Fn(&Stored) -> bool) -> Sizes {
    let mut sizes = Sizes::new();
    for stored in documents.iter().filter(|stored| chosen(stored)) {
        let size = sizes.entry(stored.document.kind.clone()).or_default();
        size.0 += 1;
        size.1 += stored.document.body.to_string().len();
    }
    sizes
}

/// What is kept until something replaces it.
fn for_ever(stored: &Stored) -> bool {
    stored.document.ttl_seconds.is_none()
}

async fn sweep(platform: &mut TestPlatform, timers: &[&'static str], windows: usize) {
    for _ in 0..windows {
        platform.clock.set(platform.clock.now() + SignedDuration::from_secs(30));
        platform.fire("HealthSweep").await;
        platform.run_until_quiet().await;
    }
    for timer in timers {
        platform.fire(timer).await;
        platform.run_until_quiet().await;
    }
}

async fn day(platform: &mut TestPlatform, number: i64, start: Timestamp, timers: &[&'static str]) {
    platform.rest();
    let at = |hours: i64| start + SignedDuration::from_hours(number * 24 + hours);
    platform.clock.set(at(0).max(platform.clock.now()));
    let version = if number % 7 == 6 { format!("{number}-bad") } else { number.to_string() };
    let image = format!("{IMAGE}:{version}");
    if version.ends_with("-bad") {
        platform.compute.image(&image, Behaviour::Answers(500));
    }
    platform.run(&deploy(&format!("deploy-day-{number}"), &version)).await;
    if number % 5 == 0 {
        let level = json!({ "LOG_LEVEL": format!("level-{number}") });
        platform.run(&publish_configuration(&format!("publish-day-{number}"), level)).await;
    }
    if number % 3 == 0 {
        // Somebody edits what runs, behind the platform's back.
        platform.compute.meddle("reservations-api", false, |spec| {
            spec.env.insert("DEBUG".into(), number.to_string());
        });
    }
    let serving = platform.compute.serving("reservations-api").expect("something serves").image;
    for look in 1..=24 / LOOK_HOURS {
        platform.clock.set(at(look * LOOK_HOURS - 1).max(platform.clock.now()));
        platform.compute.image(&serving, Behaviour::Answers(500));
        sweep(platform, timers, 3).await;
        platform.compute.image(&serving, Behaviour::Good);
        sweep(platform, timers, 2).await;
    }
}

#[tokio::test]
async fn a_year_leaves_a_bounded_partition() {
    let mut platform = serving().await;
    platform.run(&bind_secret("bind-secret", "db-password")).await;
    let timers: Vec<_> = functions::all()
        .into_iter()
        .filter(|function| matches!(function.trigger, Trigger::Timer(_)))
        .map(|function| function.name)
        .filter(|name| name.ends_with("Sweep") && *name != "HealthSweep")
        .collect();
    let start = platform.clock.now();
    let mut kept = BTreeMap::new();
    let mut half = Vec::new();
    for number in 0..DAYS {
        day(&mut platform, number, start, &timers).await;
        if number == DAYS / 4 {
            kept = sizes(&platform.documents(), for_ever);
        }
        if number == DAYS / 2 {
            half = platform.documents();
        }
    }
    let end = platform.documents();
    let (all, then) = (sizes(&end, |_| true), sizes(&half, |_| true));
    println!("{:24} {:>8} {:>10}   {:>8} after half", "after a year", "count", "bytes", "count");
    for (kind, (count, bytes)) in &all {
        println!("{kind:24} {count:>8} {bytes:>10}   {:>8}", then.get(kind).map_or(0, |size| size.0));
    }
    let bytes: usize = all.values().map(|size| size.1).sum();
    println!("{:24} {:>8} {bytes:>10}", "all", end.len());
    assert!(bytes < BYTES_MAX, "a year left {bytes} bytes");
    // What no time takes away is as much after a year as after a quarter of one.
    let ever = sizes(&end, for_ever);
    for (kind, (count, _)) in &ever {
        let before = kept.get(kind).map_or(0, |size| size.0);
        assert!(*count <= before, "`{kind}` is kept for ever, and there are {count} after {before}");
    }
    // What is kept for less than half a year is no more after a year than after half of one.
    for stored in &end {
        let Some(ttl) = stored.document.ttl_seconds else { continue };
        assert!(ttl <= 2 * 365 * 24 * 60 * 60, "`{}` is kept for {ttl} seconds", stored.document.id);
    }
    let short = |stored: &Stored| stored.document.ttl_seconds.is_some_and(|ttl| ttl <= 100 * 24 * 60 * 60);
    let (short_now, short_then) = (sizes(&end, short), sizes(&half, short));
    for (kind, (count, _)) in &short_now {
        let before = short_then.get(kind).map_or(0, |size| size.0);
        assert!(*count <= before + before / 10 + 10, "`{kind}` grows: {count} after {before}");
    }
    let largest = end.iter().max_by_key(|stored| stored.document.body.to_string().len()).unwrap();
    let bytes = largest.document.body.to_string().len();
    println!("the largest is `{}`, {bytes} bytes", largest.document.id);
    assert!(bytes < DOCUMENT_BYTES_MAX, "`{}` has {bytes} bytes", largest.document.id);
}
