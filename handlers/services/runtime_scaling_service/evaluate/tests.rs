//! The maths as a table and for every input; what a policy asks for in each situation.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    ports::compute::ScalingEntry,
    services::runtime_scaling_service::state::{Failures, PolicyStatus, ScalingSpec, Wanted},
};

const NOW: &str = "2026-03-02T10:15:00Z";
const QUEUE: &str =
    "/subscriptions/other/resourceGroups/g/providers/Microsoft.ServiceBus/namespaces/sb-1/queues/orders";

fn bounds(min: u32, max: u32) -> Bounds {
    Bounds { min, max }
}

#[test]
fn the_table_of_recommendations() {
    for (current, ratio, within, expected) in [
        // At the target, and a tenth about it.
        (4, 1.0, bounds(1, 10), 4),
        (4, 1.1, bounds(1, 10), 4),
        (4, 0.9, bounds(1, 10), 4),
        (4, 1.11, bounds(1, 10), 5),
        (4, 0.89, bounds(1, 10), 4),
        (4, 0.75, bounds(1, 10), 3),
        (10, 0.5, bounds(1, 10), 5),
        // Doubling or four more, whichever is more.
        (1, 100.0, bounds(1, 100), 5),
        (3, 100.0, bounds(1, 100), 7),
        (10, 100.0, bounds(1, 100), 20),
        (10, 1.9, bounds(1, 100), 19),
        // Bounds.
        (4, 2.0, bounds(1, 6), 6),
        (4, 0.0, bounds(2, 6), 2),
        (1, 1.0, bounds(3, 6), 3),
        (9, 1.0, bounds(1, 6), 6),
        // Nothing is there, or the measure is none.
        (0, 3.0, bounds(1, 10), 3),
        (4, f64::NAN, bounds(1, 10), 4),
        (4, f64::INFINITY, bounds(1, 10), 4),
        (4, -1.0, bounds(1, 10), 4),
    ] {
        assert_eq!(recommend(current, ratio, within), expected, "{current} x {ratio} within {within}");
    }
}

#[test]
fn there_are_fewer_only_once_nothing_asked_for_more_for_five_minutes() {
    let now: Timestamp = NOW.parse().unwrap();
    let ago =
        |seconds: i64, replicas| Recommendation { at: now - SignedDuration::from_secs(seconds), replicas };
    for (current, recommended, recent, expected) in [
        (4, 6, vec![], 6),
        (4, 2, vec![], 2),
        (4, 2, vec![ago(300, 3)], 3),
        (4, 2, vec![ago(301, 3)], 2),
        (4, 2, vec![ago(60, 9)], 4),
        (4, 2, vec![ago(250, 3), ago(60, 1)], 3),
    ] {
        assert_eq!(settled(current, recommended, &recent, now), expected, "{recent:?}");
    }
}

proptest! {
    #[test]
    fn a_recommendation_keeps_its_bounds_and_its_step(
        current in 0_u32..2000, ratio in 0.0_f64..1e6, min in 1_u32..1000, wide in 0_u32..1000,
    ) {
        let within = bounds(min, min + wide);
        let recommended = recommend(current, ratio, within);
        prop_assert!(recommended >= within.min && recommended <= within.max);
        let from = within.clamp(current.max(1));
        let most = (2 * current.max(1)).max(current.max(1) + STEP_MIN).max(within.min);
        prop_assert!(recommended <= most.max(from.min(most)));
        // More load never asks for less.
        prop_assert!(recommend(current, ratio * 2.0 + 0.3, within) >= recommended.min(within.clamp(current.max(1))));
    }

    #[test]
    fn going_down_never_goes_below_what_was_asked_for_and_never_up(
        current in 1_u32..100, recommended in 1_u32..100,
        recent in proptest::collection::vec((0_i64..600, 1_u32..100), 0..10),
    ) {
        let now: Timestamp = NOW.parse().unwrap();
        let recent: Vec<_> = recent.into_iter()
            .map(|(ago, replicas)| Recommendation { at: now - SignedDuration::from_secs(ago), replicas })
            .collect();
        let to = settled(current, recommended, &recent, now);
        prop_assert!(to >= recommended.min(current));
        prop_assert!(to <= current.max(recommended));
    }

    #[test]
    fn a_steady_load_is_reached_and_then_left_alone(load in 1_u32..500, target in 1_u32..50) {
        let within = bounds(1, 1000);
        let mut current = 1;
        for _ in 0..20 {
            current = recommend(current, f64::from(load) / f64::from(current) / f64::from(target), within);
        }
        let next = recommend(current, f64::from(load) / f64::from(current) / f64::from(target), within);
        prop_assert_eq!(next, current);
        // What each replica has to do is no more than a tenth over the target.
        prop_assert!(f64::from(load) / f64::from(current) <= f64::from(target) * (1.0 + TOLERANCE) + 1e-9);
    }
}

fn policy(kind: ScalingKind, change: impl FnOnce(&mut ScalingPolicy)) -> ScalingPolicy {
    let spec = ScalingSpec {
        kind,
        min_replicas: 1,
        max_replicas: 6,
        target: Some(60),
        queue: (kind == ScalingKind::QueueDepth).then(|| QUEUE.to_owned()),
        schedule: None,
        cooldown_seconds: None,
    };
    let compiled = compile(&spec, &facts(|_| {}).target, Some(2), None, NOW.parse().unwrap());
    let entry = ScalingEntry {
        scaling_policy_id: "sp-1".into(),
        generation: 1,
        min_replicas: compiled.bounds.min,
        max_replicas: compiled.bounds.max,
        rules: compiled.rules,
    };
    let mut policy = ScalingPolicy {
        scaling_policy_id: "sp-1".into(),
        environment_id: "env-1".parse().unwrap(),
        service_id: "svc-1".parse().unwrap(),
        module_id: "api".parse().unwrap(),
        status: PolicyStatus::Active,
        reason: None,
        wanted: Wanted { spec, entry },
        generations: 1,
        moving: None,
        failures: None,
        desired_replicas: (kind == ScalingKind::QueueDepth).then_some(2),
        observed_replicas: Some(2),
        last_scaled_at: None,
        recommendations: Vec::new(),
        said: None,
        evaluated_window: None,
        history: Vec::new(),
        operation_id: "op-1".parse().unwrap(),
        sequence: 1,
        made_at: NOW.parse().unwrap(),
    };
    change(&mut policy);
    policy
}

/// Everything is well, and serves with what the policy wants.
fn facts(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = Facts {
        now: NOW.parse().unwrap(),
        deployment: "dep-1".parse().unwrap(),
        bounds: bounds(1, 6),
        rules: vec![ScaleRule::Cpu { percent: 60 }],
        target: ComputeTarget {
            workload_profile: None,
            target: "container-apps".into(),
            resource_group_id: "/subscriptions/s/resourceGroups/g".into(),
            host_id: String::new(),
            identity_id: "/id".into(),
            region: "westeurope".into(),
            tags: BTreeMap::new(),
        },
        in_flight: false,
        health: Some(Health::Healthy),
        held: None,
        reading: Reading {
            replicas: Some((2, NOW.parse().unwrap())),
            cpu_percent: Some(61.0),
            ..Reading::default()
        },
        depth: None,
        share: None,
    };
    change(&mut facts);
    facts
}

/// In one line.
fn told(policy: &ScalingPolicy, facts: &Facts) -> String {
    match judge(policy, facts).what {
        What::Stay(why) => format!("stay: {why}"),
        What::Wait(why) => format!("wait: {why}"),
        What::Tell { from, to, direction, reason } => format!("tell {direction} {from} to {to}: {reason}"),
        What::Move { to, desired, direction, reason } => {
            format!("move {direction} to {} ({desired:?}): {reason}", to.bounds)
        }
    }
}

fn begins(policy: &ScalingPolicy, facts: &Facts, start: &str) {
    let told = told(policy, facts);
    assert!(told.starts_with(start), "`{start}` is not how it begins: {told}");
}

#[test]
fn where_the_target_scales_the_platform_only_tells() {
    let cpu = policy(ScalingKind::Cpu, |_| {});
    let seen = |count, cpu_percent| {
        facts(|facts| {
            facts.reading.replicas = Some((count, NOW.parse().unwrap()));
            facts.reading.cpu_percent = cpu_percent;
        })
    };
    begins(&cpu, &seen(2, Some(61.0)), "stay: At 2 of 1 to 6 replicas; Cpu at 61 percent, the target is 60.");
    begins(&cpu, &seen(2, None), "stay: At 2 of 1 to 6 replicas; Cpu is not measured");
    begins(
        &cpu,
        &seen(4, Some(95.0)),
        "tell Up 2 to 4: The target scaled by itself: Cpu at 95 percent, the target is 60, which on 2 asks for 4; within 1 to 6",
    );
    begins(&cpu, &seen(1, Some(10.0)), "tell Down 2 to 1");
    begins(
        &cpu,
        &facts(|facts| facts.reading = Reading::default()),
        "stay: At 1 to 6 replicas, which are not counted",
    );
    let flying = Facts { in_flight: true, ..seen(4, None) };
    begins(&cpu, &flying, "stay: 4 replicas are counted, and a deployment is in flight.");
    let ill = Facts { health: Some(Health::Unhealthy), ..seen(1, None) };
    begins(&cpu, &ill, "stay: 1 replicas are there and 2 were: it is Unhealthy");
    let before = policy(ScalingKind::Cpu, |policy| {
        policy.last_scaled_at = Some("2026-03-02T10:15:01Z".parse().unwrap())
    });
    begins(&before, &seen(4, None), "stay: At 4");
}

#[test]
fn bounds_that_do_not_serve_are_moved_and_everything_that_speaks_against_it_is_said() {
    let last = |seconds: i64| {
        policy(ScalingKind::Cpu, |policy| {
            policy.last_scaled_at =
                Some(NOW.parse::<Timestamp>().unwrap() - SignedDuration::from_secs(seconds));
        })
    };
    let more = |change: fn(&mut Facts)| {
        facts(|facts| {
            facts.bounds = bounds(1, 2);
            change(facts)
        })
    };
    let fewer = |change: fn(&mut Facts)| {
        facts(|facts| {
            facts.bounds = bounds(1, 9);
            change(facts)
        })
    };
    let never = policy(ScalingKind::Cpu, |_| {});
    begins(
        &never,
        &more(|_| {}),
        "move Up to 1 to 6 (None): 1 to 6 instead of 1 to 2 replicas: the policy's bounds are 1 to 6; Cpu at 61 percent, the target is 60; health Healthy; nothing was scaled before",
    );
    begins(&never, &fewer(|_| {}), "move Down to 1 to 6");
    begins(&never, &facts(|facts| facts.rules.clear()), "move Up to 1 to 6");
    begins(
        &never,
        &facts(|facts| facts.share = Some(2)),
        "move Down to 1 to 2 (None): 1 to 2 instead of 1 to 6 replicas: the policy's bounds are 1 to 6; the tenant's quota leaves 2 to it",
    );
    for (found, says) in [
        (
            told(&never, &more(|facts| facts.in_flight = true)),
            "wait: 1 to 6 instead of 1 to 2 replicas are wanted (the policy's bounds are 1 to 6), and wait: a deployment of it is in flight.",
        ),
        (told(&never, &more(|facts| facts.held = Some("held".into()))), "and wait: held"),
        (told(&never, &more(|facts| facts.health = Some(Health::Unhealthy))), "it is Unhealthy"),
        (told(&never, &fewer(|facts| facts.health = Some(Health::Unhealthy))), "it is Unhealthy"),
        (told(&never, &fewer(|facts| facts.health = Some(Health::Unknown))), "its health is not known"),
        (
            told(&last(59), &more(|_| {})),
            "the cooldown of 60 s after the last change is over at 2026-03-02T10:15:01Z.",
        ),
        (told(&last(299), &fewer(|_| {})), "the cooldown of 300 s"),
    ] {
        assert!(found.starts_with("wait: ") && found.contains(says), "{found}");
    }
    begins(&last(60), &more(|_| {}), "move Up");
    begins(&last(300), &fewer(|_| {}), "move Down");
    begins(&never, &more(|facts| facts.health = Some(Health::Unknown)), "move Up");
    begins(&never, &more(|facts| facts.health = None), "move Up");
    let failed = |over: &str, count| {
        policy(ScalingKind::Cpu, |policy| {
            policy.failures = Some(Failures {
                count,
                over: over.parse().unwrap(),
                at: NOW.parse().unwrap(),
                reason: "it answered 500.".into(),
            });
        })
    };
    begins(
        &failed("dep-1", 3),
        &more(|_| {}),
        "wait: 1 to 6 instead of 1 to 2 replicas are wanted (the policy's bounds are 1 to 6), and wait: 3 rollouts with it did not pass, the last since it answered 500. Deploy",
    );
    begins(&failed("dep-1", 2), &more(|_| {}), "move Up");
    begins(&failed("dep-0", 3), &more(|_| {}), "move Up");
}

#[test]
fn a_queue_without_a_rule_is_counted_by_the_platform() {
    let orders = |change: fn(&mut ScalingPolicy)| {
        policy(ScalingKind::QueueDepth, |policy| {
            policy.wanted.spec.target = Some(10);
            change(policy);
        })
    };
    let deep = |depth| {
        facts(|facts| {
            facts.rules.clear();
            facts.bounds = bounds(2, 2);
            facts.depth = depth;
        })
    };
    begins(
        &orders(|_| {}),
        &deep(Some(20)),
        "stay: At 2 of 2 to 2 replicas; 20 messages wait, the target is 10 for each replica.",
    );
    begins(
        &orders(|_| {}),
        &deep(None),
        "stay: At 2 of 2 to 2 replicas; the waiting messages are not counted",
    );
    begins(
        &orders(|_| {}),
        &deep(Some(45)),
        "move Up to 5 to 5 (Some(5)): 5 to 5 instead of 2 to 2 replicas: the queue is in another subscription",
    );
    begins(&orders(|_| {}), &deep(Some(9_000)), "move Up to 6 to 6 (Some(6))");
    begins(&orders(|_| {}), &deep(Some(3)), "move Down to 1 to 1 (Some(1))");
    let recently = orders(|policy| {
        let at = "2026-03-02T10:12:00Z".parse().unwrap();
        policy.recommendations = vec![Recommendation { at, replicas: 2 }];
    });
    begins(&recently, &deep(Some(3)), "stay: At 2");
    assert_eq!(judge(&recently, &deep(Some(3))).recommended, Some(1));
    let mut share = deep(Some(9_000));
    share.share = Some(3);
    begins(&orders(|_| {}), &share, "move Up to 3 to 3 (Some(3))");
}
