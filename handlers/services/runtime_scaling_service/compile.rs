//! A policy in the target's own terms: the least and the most replicas, and the rules that the target
//! scales by between them. Functions on values.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::state::{ScalingKind, ScalingSpec};
use crate::{
    events::ScalingDirection,
    ports::compute::{ComputeTarget, ScaleRule},
};

/// The least and the most replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    pub min: u32,
    pub max: u32,
}

impl std::fmt::Display for Bounds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} to {}", self.min, self.max)
    }
}

impl Bounds {
    pub fn clamp(self, replicas: u32) -> u32 {
        replicas.max(self.min).min(self.max)
    }

    /// At most so many, and one at least: what serves is never taken away by a limit.
    pub fn at_most(self, limit: u32) -> Self {
        let max = self.max.min(limit.max(1));
        Self { min: self.min.min(max), max }
    }

    /// Where other bounds lead.
    pub fn direction(self, to: Self) -> ScalingDirection {
        if (to.min, to.max) < (self.min, self.max) { ScalingDirection::Down } else { ScalingDirection::Up }
    }
}

/// What is wanted of a revision at a moment, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    pub bounds: Bounds,
    pub rules: Vec<ScaleRule>,
    pub why: String,
}

/// `desired` is what the platform recommends where the target has no rule for the kind; `share` is what
/// the tenant's quota leaves to the workload.
pub fn compile(
    spec: &ScalingSpec,
    target: &ComputeTarget,
    desired: Option<u32>,
    share: Option<u32>,
    now: Timestamp,
) -> Compiled {
    let own = Bounds { min: spec.min_replicas, max: spec.max_replicas };
    let rules: Vec<_> = rule(spec, target).into_iter().collect();
    let (bounds, mut why) = match (spec.kind, spec.schedule.as_ref()) {
        (ScalingKind::Schedule, Some(schedule)) => match schedule.window(now) {
            Some(window) => (
                Bounds { min: window.min_replicas, max: window.max_replicas },
                format!(
                    "the schedule's window {} ({}) asks for {} to {} replicas",
                    window.sentence(),
                    schedule.time_zone,
                    window.min_replicas,
                    window.max_replicas
                ),
            ),
            None => (own, format!("no window of the schedule is open, and outside them it is {own}")),
        },
        (ScalingKind::QueueDepth, _) if rules.is_empty() => {
            let replicas = own.clamp(desired.unwrap_or(own.min));
            let why = format!(
                "the queue is in another subscription than the workload, so that the target has no rule for it and the platform sets {replicas} replicas, of {own}"
            );
            (Bounds { min: replicas, max: replicas }, why)
        }
        (ScalingKind::Fixed, _) => (own, format!("always {} replicas", own.min)),
        (ScalingKind::Cpu | ScalingKind::Memory | ScalingKind::QueueDepth | ScalingKind::RequestRate, _)
        | (ScalingKind::Schedule, None) => (own, format!("the policy's bounds are {own}")),
    };
    let clamped = share.map_or(bounds, |share| bounds.at_most(share));
    if clamped != bounds {
        why.push_str(&format!("; the tenant's quota leaves {} to it", clamped.max));
    }
    Compiled { bounds: clamped, rules, why }
}

/// The rule that a target scales by; none where the clock or the platform does it.
fn rule(spec: &ScalingSpec, target: &ComputeTarget) -> Option<ScaleRule> {
    let number = spec.target?;
    match spec.kind {
        ScalingKind::Cpu => Some(ScaleRule::Cpu { percent: number }),
        ScalingKind::Memory => Some(ScaleRule::Memory { percent: number }),
        ScalingKind::RequestRate => Some(ScaleRule::Requests { concurrent: number }),
        ScalingKind::QueueDepth => {
            let queue = Queue::read(spec.queue.as_deref()?)?;
            // Its identity has roles in its own subscription alone.
            let is_ours =
                queue.subscription.eq_ignore_ascii_case(target.resource_group_id.split('/').nth(2)?);
            is_ours.then(|| ScaleRule::Queue {
                namespace: queue.namespace.to_owned(),
                queue: queue.name.to_owned(),
                messages: number,
                identity_id: target.identity_id.clone(),
            })
        }
        ScalingKind::Schedule | ScalingKind::Fixed => None,
    }
}

/// A queue of Service Bus, as its id at Resource Manager names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue<'a> {
    pub subscription: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl<'a> Queue<'a> {
    /// None where the text is no such id.
    pub fn read(id: &'a str) -> Option<Self> {
        let parts: Vec<_> = id.split('/').collect();
        let is_good = |text: &str| {
            !text.is_empty()
                && text.len() <= 260
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.()~".contains(&byte))
                && !text.starts_with('.')
        };
        let is = |text: &str, word: &str| text.eq_ignore_ascii_case(word);
        match parts.as_slice() {
            ["", s, subscription, g, group, p, provider, n, namespace, q, name]
                if is(s, "subscriptions")
                    && is(g, "resourceGroups")
                    && is(p, "providers")
                    && is(provider, "Microsoft.ServiceBus")
                    && is(n, "namespaces")
                    && is(q, "queues")
                    && [subscription, group, namespace, name].into_iter().all(|text| is_good(text)) =>
            {
                Some(Self { subscription, namespace, name })
            }
            _ => None,
        }
    }
}

/// What of a quota each workload may have: where together they may use more than there is, each gets
/// in proportion to what its policy asks for, and one at least. `asked` is the most replicas that each
/// asks for, with what one replica uses of each limit; `left` is what is left of each limit by the
/// workloads without a policy, where it is limited.
pub fn shares(asked: &[(u32, [u64; 3])], left: [Option<u64>; 3]) -> Vec<Option<u32>> {
    let mut shares = vec![None; asked.len()];
    for (index, left) in left.into_iter().enumerate() {
        let Some(left) = left else { continue };
        let all: u64 = asked.iter().map(|(most, uses)| u64::from(*most) * uses[index]).sum();
        if all <= left {
            continue;
        }
        for (share, (most, _)) in shares.iter_mut().zip(asked) {
            let part = u128::from(*most) * u128::from(left) / u128::from(all);
            let part = u32::try_from(part).unwrap_or(u32::MAX).max(1);
            *share = Some(share.map_or(part, |known: u32| known.min(part)));
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::expect;

    use super::*;
    use crate::services::runtime_scaling_service::schedule::{Schedule, Window};

    const QUEUE: &str =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.ServiceBus/namespaces/sb-1/queues/orders";

    fn target() -> ComputeTarget {
        ComputeTarget {
            workload_profile: None,
            target: "container-apps".into(),
            resource_group_id: "/subscriptions/s/resourceGroups/env".into(),
            host_id: String::new(),
            identity_id: "/id".into(),
            region: "westeurope".into(),
            tags: BTreeMap::new(),
        }
    }

    fn spec(kind: ScalingKind, target: Option<u32>) -> ScalingSpec {
        ScalingSpec {
            kind,
            min_replicas: 2,
            max_replicas: 6,
            target,
            queue: (kind == ScalingKind::QueueDepth).then(|| QUEUE.to_owned()),
            schedule: None,
            cooldown_seconds: None,
        }
    }

    fn told(spec: &ScalingSpec, at: &str, share: Option<u32>) -> String {
        let Compiled { bounds, rules, why } = compile(spec, &target(), Some(4), share, at.parse().unwrap());
        format!("{bounds} by {}: {why}", serde_json::to_string(&rules).unwrap())
    }

    #[test]
    fn each_kind_in_the_targets_terms() {
        let window = Window {
            days: Vec::new(),
            from: "08:00".into(),
            to: "18:00".into(),
            min_replicas: 3,
            max_replicas: 9,
        };
        let schedule = Schedule { time_zone: "UTC".into(), windows: vec![window] };
        let clock = ScalingSpec { schedule: Some(schedule), ..spec(ScalingKind::Schedule, None) };
        let elsewhere = ScalingSpec {
            queue: Some(QUEUE.replace("/s/", "/other/")),
            ..spec(ScalingKind::QueueDepth, Some(5))
        };
        let fixed = ScalingSpec { max_replicas: 2, ..spec(ScalingKind::Fixed, None) };
        let day = "2026-03-02T12:00:00Z";
        let told = [
            told(&spec(ScalingKind::Cpu, Some(70)), day, None),
            told(&spec(ScalingKind::Memory, Some(80)), day, Some(4)),
            told(&spec(ScalingKind::RequestRate, Some(20)), day, Some(0)),
            told(&spec(ScalingKind::QueueDepth, Some(5)), day, None),
            told(&elsewhere, day, None),
            told(&clock, day, None),
            told(&clock, "2026-03-02T18:00:00Z", None),
            told(&clock, day, Some(5)),
            told(&fixed, day, None),
        ];
        expect![[r#"
            2 to 6 by [{"by":"cpu","percent":70}]: the policy's bounds are 2 to 6
            2 to 4 by [{"by":"memory","percent":80}]: the policy's bounds are 2 to 6; the tenant's quota leaves 4 to it
            1 to 1 by [{"by":"requests","concurrent":20}]: the policy's bounds are 2 to 6; the tenant's quota leaves 1 to it
            2 to 6 by [{"by":"queue","namespace":"sb-1","queue":"orders","messages":5,"identityId":"/id"}]: the policy's bounds are 2 to 6
            4 to 4 by []: the queue is in another subscription than the workload, so that the target has no rule for it and the platform sets 4 replicas, of 2 to 6
            3 to 9 by []: the schedule's window 08:00-18:00 (UTC) asks for 3 to 9 replicas
            2 to 6 by []: no window of the schedule is open, and outside them it is 2 to 6
            3 to 5 by []: the schedule's window 08:00-18:00 (UTC) asks for 3 to 9 replicas; the tenant's quota leaves 5 to it
            2 to 2 by []: always 2 replicas"#]].assert_eq(&told.join("\n"));
    }

    #[test]
    fn a_queue_is_named_by_its_whole_id() {
        assert_eq!(Queue::read(QUEUE), Some(Queue { subscription: "s", namespace: "sb-1", name: "orders" }));
        for wrong in [
            "orders",
            "",
            "/subscriptions/s",
            &QUEUE.replace("queues", "topics"),
            &QUEUE.replace("orders", ".."),
            &format!("{QUEUE}/x"),
            &QUEUE.replace("orders", "a?b"),
        ] {
            assert_eq!(Queue::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_quota_is_shared_in_proportion_and_leaves_one_to_each() {
        let one = [1, 250, 512];
        for (asked, left, expected) in [
            (vec![4, 4], [Some(8), None, None], vec![None, None]),
            (vec![4, 4], [Some(4), None, None], vec![Some(2), Some(2)]),
            (vec![9, 3], [Some(4), None, None], vec![Some(3), Some(1)]),
            (vec![9, 1], [Some(2), None, None], vec![Some(1), Some(1)]),
            (vec![4], [Some(8), Some(500), None], vec![Some(2)]),
            (vec![4], [Some(3), Some(500), Some(512)], vec![Some(1)]),
            (vec![4], [Some(0), None, None], vec![Some(1)]),
            (vec![4], [None, None, None], vec![None]),
        ] {
            let asked: Vec<_> = asked.into_iter().map(|most| (most, one)).collect();
            assert_eq!(shares(&asked, left), expected, "{asked:?} {left:?}");
        }
    }
}
