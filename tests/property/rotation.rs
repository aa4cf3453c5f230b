//! At every instant of a rotation, whatever dies, whatever fails its gate or cannot be verified, and in
//! whatever order messages come: what has traffic was started with versions that are enabled. Only a
//! compromised version is disabled under a workload, and not before its ten minutes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::{prelude::*, test_runner::Config};
use runtime_platform::{
    events::RotationReason,
    ports::clock::Clock,
    services::secret_binding_service::{SecretBinding, SecretRotation},
};
use serde_json::json;

use crate::support::{
    builders::{
        OTHER_MODULE, bind_secret, bind_secret_other, binding, deploy, deploy_other, provision, rollback,
        rotate, secret,
    },
    fakes::compute::Behaviour,
    faulty::When,
    test_platform::{Deliveries, TestPlatform},
};

const SECRET: &str = "db-password";
/// How long a compromised version is good for those that still use it.
const TEN_MINUTES: SignedDuration = SignedDuration::from_mins(10);

/// Two workloads serve, started with the first version of one secret.
async fn shared() -> TestPlatform {
    let mut platform = TestPlatform::new();
    platform.run(&provision("provision-0")).await;
    platform.run(&deploy("deploy-0", "1.0")).await;
    platform.run(&deploy_other("deploy-o", "1.0")).await;
    platform.run(&bind_secret("secret-0", SECRET)).await;
    platform.run(&bind_secret_other("secret-o", SECRET)).await;
    platform
}

/// Since when somebody else may know each compromised version.
#[derive(Default)]
struct Watch {
    compromised: BTreeMap<String, Timestamp>,
}

impl Watch {
    /// Looks at what has traffic, and at what bindings name.
    fn look(&mut self, platform: &TestPlatform) {
        for rotation in platform.states::<SecretRotation>() {
            let moved_at = rotation.moved_at().filter(|_| rotation.reason == RotationReason::Compromised);
            for version in moved_at.iter().flat_map(|_| rotation.old_versions()) {
                self.compromised.entry(version).or_insert(moved_at.unwrap());
            }
        }
        let (now, enabled) = (platform.clock.now(), platform.vault.enabled(&secret(SECRET)));
        for (workload, spec) in platform.compute.with_traffic() {
            for entry in &spec.secrets {
                let version = entry.key_vault_url.rsplit('/').next().unwrap();
                let is_enabled = enabled.iter().any(|enabled| enabled == version);
                let is_over = self.compromised.get(version).is_some_and(|since| now >= *since + TEN_MINUTES);
                assert!(
                    is_enabled || is_over,
                    "{workload} was started with {version}, and only {enabled:?} are enabled\n{}",
                    platform.transcript()
                );
            }
        }
        for version in bindings(platform) {
            assert!(
                enabled.contains(&version),
                "a binding names {version}, of {enabled:?}\n{}",
                platform.transcript()
            );
        }
    }

    /// Lets everything happen, looking at every instant.
    async fn until_quiet(&mut self, platform: &mut TestPlatform) {
        while platform.happen().await {
            self.look(platform);
        }
    }

    /// The sweep comes this many hours later.
    async fn sweep_after(&mut self, platform: &mut TestPlatform, hours: i64) {
        platform.clock.set(platform.clock.now() + SignedDuration::from_hours(hours));
        platform.fire("RotationSweep").await;
        self.look(platform);
        self.until_quiet(platform).await;
    }
}

/// What goes wrong in a rotation besides deaths.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Nothing,
    Verification,
    /// Every workload fails its gate with the new version.
    Gates,
    /// Only the second does.
    SecondGate,
}

fn make_wrong(platform: &TestPlatform, wrong: Wrong) {
    match wrong {
        Wrong::Nothing => {}
        Wrong::Verification => platform.vault.empty("generated2"),
        Wrong::Gates => platform.compute.secret("generated2", Behaviour::Answers(500)),
        Wrong::SecondGate => {
            platform.compute.image("acr.azurecr.io/billing-api:1.0", Behaviour::Answers(500));
        }
    }
}

#[tokio::test]
async fn a_death_at_any_commit_of_a_rotation_leaves_everybody_a_version() {
    let mut tried = 0;
    for (reason, wrong) in [
        ("Manual", Wrong::Nothing),
        ("Manual", Wrong::Verification),
        ("Manual", Wrong::Gates),
        ("Manual", Wrong::SecondGate),
        ("Compromised", Wrong::Nothing),
        ("Compromised", Wrong::SecondGate),
    ] {
        let mut platform = shared().await;
        make_wrong(&platform, wrong);
        let before = platform.trouble.commits();
        platform.run(&rotate("rotate-1", SECRET, reason)).await;
        let commits = platform.trouble.commits() - before;
        let end = bindings(&platform);
        for commit in (1..=commits).step_by(3) {
            let mut platform = shared().await;
            make_wrong(&platform, wrong);
            let when = if commit % 2 == 1 { When::Before } else { When::After };
            platform.trouble.die_at_commit(platform.trouble.commits() + commit, when);
            platform.send(&rotate("rotate-1", SECRET, reason));
            let mut watch = Watch::default();
            watch.until_quiet(&mut platform).await;
            assert_eq!(platform.deaths, 1);
            assert_eq!(
                bindings(&platform),
                end,
                "{wrong:?}, death at commit {commit}\n{}",
                platform.transcript()
            );
            watch.sweep_after(&mut platform, 2).await;
            let left = platform.vault.enabled(&secret(SECRET));
            let used: BTreeSet<_> = bindings(&platform).into_iter().collect();
            assert_eq!(
                left.len(),
                used.len(),
                "{left:?} are enabled, {used:?} are used\n{}",
                platform.transcript()
            );
            tried += 1;
        }
    }
    println!("{tried} deaths in rotations were tried");
    assert!(tried > 40, "only {tried} deaths were tried");
}

/// The versions of all bindings.
fn bindings(platform: &TestPlatform) -> Vec<String> {
    platform.states::<SecretBinding>().into_iter().filter_map(|binding| binding.version).collect()
}

/// Something that may happen.
#[derive(Clone, Debug)]
enum Act {
    Rotate {
        other: bool,
        compromised: bool,
    },
    Deploy {
        bad: bool,
    },
    RollBack,
    /// The version that is made next fails gates, or cannot be verified.
    BadVersion {
        empty: bool,
    },
    Happen(usize),
    OutOfTurn(usize),
    Repeat(usize),
    /// This many hours later the sweep comes.
    Sweep(i64),
    Death(u64),
    Twice,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(other, compromised)| Act::Rotate { other, compromised }),
        2 => prop::bool::weighted(0.3).prop_map(|bad| Act::Deploy { bad }),
        2 => Just(Act::RollBack),
        1 => any::<bool>().prop_map(|empty| Act::BadVersion { empty }),
        6 => (1..40_usize).prop_map(Act::Happen),
        2 => (0..4_usize).prop_map(Act::OutOfTurn),
        1 => (0..4_usize).prop_map(Act::Repeat),
        2 => (0..4_i64).prop_map(Act::Sweep),
        1 => (1..6_u64).prop_map(Act::Death),
        1 => Just(Act::Twice),
    ]
}

async fn perform(
    platform: &mut TestPlatform,
    watch: &mut Watch,
    number: usize,
    act: &Act,
    sent: &mut Vec<String>,
) {
    let id = format!("command-{number}");
    let ready = platform.broker.ready();
    match act {
        Act::Rotate { other, compromised } => {
            let reason = if *compromised { "Compromised" } else { "Manual" };
            let mut order = rotate(&id, SECRET, reason);
            if *other {
                order = order.with("/secretBindingId", json!(binding(OTHER_MODULE, SECRET)));
            }
            platform.send(&order);
            sent.push(id);
        }
        Act::Deploy { bad } => {
            let version = if *bad { format!("{number}-bad") } else { number.to_string() };
            let image = format!("acr.azurecr.io/reservations-api:{number}-bad");
            platform.compute.image(&image, Behaviour::Answers(500));
            platform.send(&deploy(&id, &version));
            sent.push(id);
        }
        Act::RollBack => {
            platform.send(&rollback(&id));
            sent.push(id);
        }
        Act::BadVersion { empty } => {
            let next = format!("generated{}", platform.vault.count(&secret(SECRET)) + 1);
            if *empty {
                platform.vault.empty(&next);
            } else {
                platform.compute.secret(&next, Behaviour::Answers(500));
            }
        }
        Act::Happen(times) => {
            for _ in 0..*times {
                platform.happen().await;
                watch.look(platform);
            }
        }
        Act::OutOfTurn(which) => {
            if let Some(message) = ready.get(which % ready.len().max(1)) {
                platform.deliver(*message).await;
            }
        }
        Act::Repeat(which) => {
            if let Some(message) = ready.get(which % ready.len().max(1)) {
                let held = platform.broker.take(*message);
                platform.broker.repeat(&held);
                platform.broker.repeat(&held);
            }
        }
        Act::Sweep(hours) => {
            platform.clock.set(platform.clock.now() + SignedDuration::from_hours(*hours));
            platform.fire("RotationSweep").await;
        }
        Act::Death(commits) => {
            platform.trouble.die_at_commit(platform.trouble.commits() + commits, When::After);
        }
        Act::Twice => platform.deliveries = Deliveries::Twice,
    }
    watch.look(platform);
}

async fn all_has_ended(platform: &TestPlatform, sent: &[String]) {
    for rotation in platform.states::<SecretRotation>() {
        assert!(rotation.ended_at.is_some(), "{rotation:?} goes on\n{}", platform.transcript());
    }
    for command in sent {
        let answer = platform.get("Commands", Some(command)).await;
        let ended = answer.body["ended"] == true && answer.body["outcome"].is_object();
        assert!(ended, "`{command}` did not end: {}\n{}", answer.body, platform.transcript());
    }
}

proptest! {
    #![proptest_config(Config { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..Config::default() })]

    #[test]
    fn whatever_happens_everybody_has_a_version_that_is_enabled(acts in prop::collection::vec(act(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut platform = shared().await;
            let (mut watch, mut sent) = (Watch::default(), Vec::new());
            for (number, act) in acts.iter().enumerate() {
                perform(&mut platform, &mut watch, number, act, &mut sent).await;
            }
            watch.until_quiet(&mut platform).await;
            all_has_ended(&platform, &sent).await;
            watch.sweep_after(&mut platform, 3).await;
            all_has_ended(&platform, &sent).await;
        });
    }
}
