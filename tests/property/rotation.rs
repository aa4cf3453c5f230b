//! At every instant of a rotation, whatever dies, whatever fails its gate or cannot be verified, and in
//! whatever order messages come: what has traffic was started with versions that are enabled. Only a
//! compromised version is disabled under a workload, and not before its ten minutes.

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

/// Whether a version that is disabled under a workload is one that somebody else knew for too long.
fn was_compromised(platform: &TestPlatform, version: &str) -> bool {
    let now: Timestamp = platform.clock.now();
    platform.states::<SecretRotation>().iter().any(|rotation| {
        rotation.reason == RotationReason::Compromised
            && rotation.disabled.iter().any(|disabled| disabled == version)
            && rotation.moved_at().is_some_and(|moved_at| now >= moved_at + TEN_MINUTES)
    })
}

fn everybody_can_read(platform: &TestPlatform, compromised: bool) {
    let enabled = platform.vault.enabled(&secret(SECRET));
    for (workload, spec) in platform.compute.with_traffic() {
        for entry in &spec.secrets {
            let version = entry.key_vault_url.rsplit('/').next().unwrap();
            let is_good = enabled.iter().any(|enabled| enabled == version);
            assert!(
                is_good || compromised && was_compromised(platform, version),
                "{workload} was started with {version}, and only {enabled:?} are enabled\n{}",
                platform.transcript()
            );
        }
    }
    for binding in platform.states::<SecretBinding>() {
        let Some(version) = binding.version else { continue };
        assert!(
            enabled.contains(&version),
            "a binding names {version}, of {enabled:?}\n{}",
            platform.transcript()
        );
    }
}

/// Lets everything happen, looking at every instant.
async fn watch(platform: &mut TestPlatform, compromised: bool) {
    while platform.happen().await {
        everybody_can_read(platform, compromised);
    }
}

async fn sweep(platform: &mut TestPlatform, hours: i64, compromised: bool) {
    platform.clock.set(platform.clock.now() + SignedDuration::from_hours(hours));
    platform.fire("RotationSweep").await;
    everybody_can_read(platform, compromised);
    watch(platform, compromised).await;
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
        let compromised = reason == "Compromised";
        let mut platform = shared().await;
        make_wrong(&platform, wrong);
        let before = platform.trouble.commits();
        platform.run(&rotate("rotate-1", SECRET, reason)).await;
        let commits = platform.trouble.commits() - before;
        let end = bindings(&platform);
        for commit in (1..=commits).step_by(2) {
            let mut platform = shared().await;
            make_wrong(&platform, wrong);
            let when = if commit % 4 == 1 { When::Before } else { When::After };
            platform.trouble.die_at_commit(platform.trouble.commits() + commit, when);
            platform.send(&rotate("rotate-1", SECRET, reason));
            watch(&mut platform, compromised).await;
            assert_eq!(platform.deaths, 1);
            assert_eq!(
                bindings(&platform),
                end,
                "{wrong:?}, death at commit {commit}\n{}",
                platform.transcript()
            );
            sweep(&mut platform, 2, compromised).await;
            let left = platform.vault.enabled(&secret(SECRET));
            let used: std::collections::BTreeSet<_> = bindings(&platform).into_iter().collect();
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
    assert!(tried > 60, "only {tried} deaths were tried");
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

async fn perform(platform: &mut TestPlatform, number: usize, act: &Act, sent: &mut Vec<String>) {
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
                everybody_can_read(platform, true);
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
    everybody_can_read(platform, true);
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
    #![proptest_config(Config { cases: 48, max_shrink_iters: 200, failure_persistence: None, ..Config::default() })]

    #[test]
    fn whatever_happens_everybody_has_a_version_that_is_enabled(acts in prop::collection::vec(act(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut platform = shared().await;
            let mut sent = Vec::new();
            for (number, act) in acts.iter().enumerate() {
                perform(&mut platform, number, act, &mut sent).await;
            }
            watch(&mut platform, true).await;
            all_has_ended(&platform, &sent).await;
            sweep(&mut platform, 3, true).await;
            all_has_ended(&platform, &sent).await;
        });
    }
}
