//! Whatever goes wrong at whatever place, the end is the same: the same events, the same states, the
//! same world. Tried at every call of every port, and at every commit.

use super::cases::{self, Case};
use crate::support::{
    faulty::When,
    test_platform::{RunResult, TestPlatform},
};

/// Calls and commits that a case makes when nothing goes wrong.
async fn size(case: &Case) -> (u64, u64) {
    let mut platform = case.prepare().await;
    let (calls, commits) = (platform.trouble.calls(), platform.trouble.commits());
    platform.run(&case.order).await;
    (platform.trouble.calls() - calls, platform.trouble.commits() - commits)
}

fn same(platform: &TestPlatform, undisturbed: &RunResult, what: &str) {
    let result = platform.result();
    assert!(
        result == *undisturbed,
        "{what}: {}\n{}",
        difference(&result, undisturbed),
        platform.transcript()
    );
}

/// What differs, a line each.
fn difference(result: &RunResult, undisturbed: &RunResult) -> String {
    let lines =
        |result: &RunResult| -> Vec<String> { format!("{result:#?}").lines().map(str::to_owned).collect() };
    let (here, there) = (lines(result), lines(undisturbed));
    let only = |sign: &str, a: &[String], b: &[String]| -> String {
        a.iter().filter(|line| !b.contains(line)).map(|line| format!("\n{sign} {line}")).collect()
    };
    only("+", &here, &there) + &only("-", &there, &here)
}

#[tokio::test]
async fn a_failure_at_any_call_changes_nothing_in_the_end() {
    let mut tried = 0;
    for case in cases::all() {
        let undisturbed = case.undisturbed().await;
        let (calls, _) = size(&case).await;
        for call in 1..=calls {
            for when in [When::Before, When::After] {
                let mut platform = case.prepare().await;
                platform.trouble.fail_call(platform.trouble.calls() + call, when);
                platform.run(&case.order).await;
                same(
                    &platform,
                    &undisturbed,
                    &format!("{}, call {call} of {calls} failed {when:?}", case.name),
                );
                tried += 1;
            }
        }
    }
    println!("{tried} failures at calls of ports were tried");
    assert!(tried > 500, "only {tried} failures were tried");
}

#[tokio::test]
async fn a_death_at_any_commit_changes_nothing_in_the_end() {
    let mut tried = 0;
    for case in cases::all() {
        let undisturbed = case.undisturbed().await;
        let (_, commits) = size(&case).await;
        for commit in 1..=commits {
            for when in [When::Before, When::After] {
                let mut platform = case.prepare().await;
                platform.trouble.die_at_commit(platform.trouble.commits() + commit, when);
                platform.run(&case.order).await;
                assert_eq!(platform.deaths, 1, "{}: it did not die at commit {commit}", case.name);
                same(
                    &platform,
                    &undisturbed,
                    &format!("{}, death at commit {commit} of {commits}, {when:?}", case.name),
                );
                tried += 1;
            }
        }
    }
    println!("{tried} deaths at commits were tried");
    assert!(tried > 100, "only {tried} deaths were tried");
}

#[tokio::test]
async fn two_deaths_in_one_rollout_change_nothing_in_the_end() {
    let case = cases::all().into_iter().find(|case| case.name == "deploy second").expect("the case is there");
    let undisturbed = case.undisturbed().await;
    let (_, commits) = size(&case).await;
    let mut tried = 0;
    for first in (1..=commits).step_by(3) {
        for second in 1..=4 {
            let mut platform = case.prepare().await;
            let base = platform.trouble.commits();
            platform.trouble.die_at_commit(base + first, When::After);
            platform.send(&case.order);
            platform.run_until("dead", |platform| platform.deaths == 1).await;
            platform.trouble.die_at_commit(platform.trouble.commits() + second, When::Before);
            platform.run_until_quiet().await;
            same(&platform, &undisturbed, &format!("deaths at commits {first} and {second} later"));
            tried += 1;
        }
    }
    println!("{tried} pairs of deaths were tried");
    assert!(tried > 10, "only {tried} pairs were tried");
}
