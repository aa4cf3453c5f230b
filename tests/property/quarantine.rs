//! What is kept out never runs again while it is kept out: no revision of it is made, and none of it
//! has traffic, whatever is asked in whatever order.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use proptest::{prelude::*, test_runner::Config};
use runtime_platform::{
    ports::clock::Clock,
    services::deployment_service::{
        Slot,
        quarantine::{KeptOut, Quarantined},
    },
};
use serde_json::json;

use super::any_order::sweep_timers;
use crate::support::{
    builders::{IMAGE, deploy, provision, publish_configuration, rollback},
    fakes::compute::Behaviour,
    faulty::When,
    test_platform::TestPlatform,
};

/// Tags that are deployed, some of them bad.
const TAGS: usize = 3;
/// Versions of the configuration, every third of them bad.
const VERSIONS_MAX: u64 = 30;

/// Something that may happen to the platform.
#[derive(Clone, Debug)]
enum Act {
    Deploy(usize),
    /// Somebody pushes another image under the tag: a good one in the place of a bad one, or the other
    /// way round.
    MoveTag(usize),
    Publish,
    RollBack,
    Lift,
    Happen(usize),
    /// Every sweep, a quarter of an hour later.
    Sweeps,
    Death(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..TAGS).prop_map(Act::Deploy),
        1 => (0..TAGS).prop_map(Act::MoveTag),
        2 => Just(Act::Publish),
        1 => Just(Act::RollBack),
        1 => Just(Act::Lift),
        8 => (1..40_usize).prop_map(Act::Happen),
        1 => Just(Act::Sweeps),
        1 => (1..6_u64).prop_map(Act::Death),
    ]
}

fn tag(number: usize) -> String {
    format!("{IMAGE}:{number}")
}

/// Revisions that were made, and traffic that they have, of what an entry keeps out.
fn runs(platform: &TestPlatform, entry: &Quarantined) -> (usize, u32) {
    let is_of_it = |spec: &runtime_platform::ports::compute::RevisionSpec| match &entry.kept_out {
        KeptOut::Image => entry.image_digest.as_ref().is_some_and(|digest| spec.image.ends_with(digest)),
        KeptOut::Configuration { version } => {
            spec.configuration.as_ref().is_some_and(|entry| entry.version == *version)
        }
        KeptOut::Secrets { .. } => false,
    };
    let made = platform.compute.made();
    let of_it: Vec<_> = made.iter().filter(|(spec, _)| is_of_it(spec)).collect();
    (of_it.len(), of_it.iter().map(|(_, traffic)| traffic).sum())
}

/// By what is kept out and the deployment that began it: how many revisions of it there were.
type Seen = BTreeMap<String, usize>;

fn nothing_kept_out_runs(platform: &TestPlatform, seen: &mut Seen) {
    let mut now = Seen::new();
    for entry in platform.states::<Slot>().iter().flat_map(|slot| &slot.quarantine) {
        let key = format!("{} by {}", entry.what(), entry.deployment_id);
        let (made, traffic) = runs(platform, entry);
        assert_eq!(traffic, 0, "{key} has traffic\n{}", platform.transcript());
        let before = seen.get(&key).copied().unwrap_or(made);
        assert_eq!(made, before, "{key} was made again\n{}", platform.transcript());
        now.insert(key, made);
    }
    *seen = now;
}

async fn perform(platform: &mut TestPlatform, number: usize, act: &Act, seen: &mut Seen) {
    let id = format!("command-{number}");
    match act {
        Act::Deploy(which) => platform.send(&deploy(&id, &which.to_string())),
        Act::MoveTag(which) => {
            let was_bad = platform.compute.is_image(&pinned(platform, *which), Behaviour::Answers(500));
            platform.registry.move_tag(&tag(*which));
            let behaviour = if was_bad { Behaviour::Good } else { Behaviour::Answers(500) };
            platform.compute.image(&pinned(platform, *which), behaviour);
        }
        Act::Publish => platform.send(&publish_configuration(&id, json!({ "LEVEL": id }))),
        Act::RollBack => platform.send(&rollback(&id)),
        Act::Lift => {
            let slots = platform.states::<Slot>();
            if let Some(entry) = slots.first().and_then(|slot| slot.quarantine.last()) {
                let id = entry.deployment_id.to_string();
                platform.post("LiftQuarantine", Some(&id), json!({ "reason": "why not" }), None).await;
            }
        }
        Act::Happen(times) => {
            for _ in 0..*times {
                platform.happen().await;
                nothing_kept_out_runs(platform, seen);
            }
        }
        Act::Sweeps => {
            platform.clock.set(platform.clock.now() + SignedDuration::from_mins(15));
            for timer in sweep_timers() {
                platform.fire(timer).await;
            }
        }
        Act::Death(commits) => {
            platform.trouble.die_at_commit(platform.trouble.commits() + commits, When::After)
        }
    }
    nothing_kept_out_runs(platform, seen);
}

fn pinned(platform: &TestPlatform, which: usize) -> String {
    format!("{IMAGE}@{}", platform.registry.digest(&tag(which)))
}

proptest! {
    #![proptest_config(Config { cases: 64, max_shrink_iters: 200, failure_persistence: None, ..Config::default() })]

    #[test]
    fn what_is_kept_out_never_runs_again(acts in prop::collection::vec(act(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut platform = TestPlatform::new();
            platform.compute.image(&pinned(&platform, 1), Behaviour::Answers(500));
            for version in (2..VERSIONS_MAX).step_by(3) {
                platform.compute.configuration(version, Behaviour::Answers(500));
            }
            platform.run(&provision("provision-0")).await;
            platform.run(&deploy("deploy-0", "0")).await;
            let mut seen = Seen::new();
            for (number, act) in acts.iter().enumerate() {
                perform(&mut platform, number, act, &mut seen).await;
            }
            while platform.happen().await {
                nothing_kept_out_runs(&platform, &mut seen);
            }
        });
    }
}
