//! `runtimectl demo`, run as a person runs it: the whole goes as it says, within its time, and leaves
//! nothing behind; one story alone does too.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::up::Place;

/// How long the whole may take on a machine that does nothing else.
const WHOLE: Duration = Duration::from_secs(180);
/// How long it may take on one that does.
const PATIENCE: Duration = Duration::from_secs(600);
/// What the last line of the whole begins with.
const WENT_WELL: &str = "All ";

pub fn run() -> Result<(), String> {
    crate::block_on(async {
        one_story_alone().await;
        the_whole().await;
    })
}

/// Runs the demo to its end, which must be a good one; answers what it told.
async fn told(place: &Place, more: &[&str]) -> String {
    let mut arguments = vec!["demo"];
    arguments.extend(more);
    let demo = place.spawn(place.command(&arguments));
    let status = demo.ended(PATIENCE).await;
    let (told, noted) =
        (fs::read_to_string(place.path("out.txt")), fs::read_to_string(place.path("errors.txt")));
    let (told, noted) = (told.unwrap(), noted.unwrap());
    assert!(status.success(), "{told}\n{noted}");
    place.is_empty_within(Duration::ZERO).await;
    assert_eq!(fs::read_dir(place.path("tmp")).unwrap().count(), 0, "the demo leaves data behind");
    told
}

async fn one_story_alone() {
    let told = told(&Place::new(), &["--only", "nowhere"]).await;
    assert!(told.contains("EnvironmentNotFound"), "{told}");
    assert!(!told.contains("RuntimeEnvironmentProvisioned"), "what is needed is done without a word: {told}");
}

async fn the_whole() {
    let began = Instant::now();
    let told = told(&Place::new(), &[]).await;
    let took = began.elapsed();
    let last = told.trim_end().lines().last().unwrap_or_default();
    assert!(last.starts_with(WENT_WELL), "{told}");
    let slow = if took > WHOLE { ", longer than it should" } else { "" };
    println!("  the whole demo takes {:.0} s{slow}: {last}", took.as_secs_f64());
}
