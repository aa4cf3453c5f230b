//! How many replicas a revision is to have: each rule says how many it needs, the largest counts,
//! between least and most. More come at once; fewer come when fewer were enough for a while.
//!
//! Absent on purpose: Azure's steps of 1, 4, 8, 16 on the way up.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use crate::local::azure::container_apps::{Rule, Scale};

/// How long fewer replicas must have been enough before any goes. Azure waits for 300 seconds; here a
/// person wants to see it happen.
pub(super) const DOWN_AFTER: Duration = Duration::from_secs(8);
/// A measure this close to its target changes nothing.
const TOLERANCE: f64 = 0.1;

/// What is seen of a revision.
#[derive(Clone, Debug)]
pub(super) struct Seen<'a> {
    /// Replicas that are ready.
    pub ready: u32,
    /// Requests on their way at a time.
    pub in_flight: f64,
    /// Percent of their processors and of their memory that the replicas use on average; none where it
    /// is not known.
    pub cpu_percent: Option<f64>,
    pub memory_percent: Option<f64>,
    /// Messages that wait, by queue.
    pub queues: &'a BTreeMap<String, u64>,
}

/// How many replicas the rules ask for; 0 is none.
pub(super) fn asked_for(rules: &[Rule], seen: &Seen<'_>) -> u32 {
    let by = |rule: &Rule| match rule {
        Rule::Http { concurrent } => up(seen.in_flight / f64::from(*concurrent)),
        Rule::Queue { queue, messages } => {
            let waiting = seen.queues.get(queue).copied().unwrap_or_default();
            u32::try_from(waiting.div_ceil(u64::from(*messages))).unwrap_or(u32::MAX)
        }
        Rule::Cpu { percent } => by_share(seen.ready, seen.cpu_percent, *percent),
        Rule::Memory { percent } => by_share(seen.ready, seen.memory_percent, *percent),
    };
    rules.iter().map(by).max().unwrap_or_default()
}

fn by_share(ready: u32, used: Option<f64>, target: u32) -> u32 {
    let Some(used) = used else { return ready };
    let ratio = used / f64::from(target);
    if (ratio - 1.0).abs() <= TOLERANCE { ready } else { up(f64::from(ready) * ratio) }
}

/// The next whole number; what is nearly one already is that one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is cut to what a u32 holds")]
fn up(number: f64) -> u32 {
    (number - 0.01).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// What was asked for lately.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<(Instant, u32)>);

impl History {
    /// How many replicas there are to be now. `idle` is for how long nobody has asked for the revision;
    /// none while somebody does, or it is coming up.
    pub(super) fn decide(
        &mut self,
        scale: &Scale,
        most: u32,
        current: u32,
        asked_for: u32,
        idle: Option<Duration>,
        now: Instant,
    ) -> u32 {
        let most = scale.replicas_max.clamp(1, most);
        let least = scale.replicas_min.min(most);
        let wanted = asked_for.clamp(least.max(1), most);
        while self.0.front().is_some_and(|(at, _)| now.duration_since(*at) > DOWN_AFTER) {
            self.0.pop_front();
        }
        self.0.push_back((now, wanted));
        let shares = |rule: &Rule| matches!(rule, Rule::Cpu { .. } | Rule::Memory { .. });
        // What is scaled by its own use cannot be brought back from none.
        let may_sleep = least == 0 && !scale.rules.iter().any(shares);
        let cooled = idle.is_some_and(|idle| idle >= Duration::from_secs(scale.cooldown_seconds));
        if may_sleep && asked_for == 0 && (current == 0 || cooled) {
            return 0;
        }
        if wanted >= current {
            return wanted;
        }
        let lately = self.0.iter().map(|(_, wanted)| *wanted).max().unwrap_or(wanted);
        lately.min(current)
    }

    /// A revision that has just come up is not taken down by what was asked for before.
    pub(super) fn note(&mut self, wanted: u32, now: Instant) {
        self.0.push_back((now, wanted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(queues: &BTreeMap<String, u64>) -> Seen<'_> {
        Seen { ready: 2, in_flight: 21.0, cpu_percent: Some(140.0), memory_percent: None, queues }
    }

    #[test]
    fn the_rule_that_needs_most_counts() {
        let queues = BTreeMap::from([("orders".to_owned(), 11)]);
        let asked = |rules: &[Rule]| asked_for(rules, &seen(&queues));
        let queue = |name: &str| Rule::Queue { queue: name.to_owned(), messages: 5 };
        for (rules, expected) in [
            (vec![Rule::Http { concurrent: 10 }], 3),
            (vec![Rule::Http { concurrent: 21 }], 1),
            (vec![Rule::Cpu { percent: 70 }], 4),
            (vec![Rule::Cpu { percent: 135 }], 2),
            (vec![Rule::Memory { percent: 1 }], 2),
            (vec![queue("orders")], 3),
            (vec![queue("none")], 0),
            (vec![Rule::Http { concurrent: 10 }, Rule::Cpu { percent: 70 }], 4),
            (vec![], 0),
        ] {
            assert_eq!(asked(&rules), expected, "{rules:?}");
        }
    }

    #[test]
    fn up_at_once_down_after_a_while_and_never_beyond_the_bounds() {
        let scale = |least, most| Scale {
            replicas_min: least,
            replicas_max: most,
            cooldown_seconds: 20,
            rules: vec![Rule::Http { concurrent: 1 }],
        };
        let began = Instant::now();
        let mut history = History::default();
        let mut decide = |scale: &Scale, second, current, asked, idle| {
            let now = began + Duration::from_secs(second);
            history.decide(scale, 30, current, asked, Some(Duration::from_secs(idle)), now)
        };
        assert_eq!(decide(&scale(1, 5), 0, 1, 9, 0), 5);
        assert_eq!(decide(&scale(1, 5), 4, 5, 2, 0), 5);
        assert_eq!(decide(&scale(1, 5), 9, 5, 2, 0), 2);
        assert_eq!(decide(&scale(1, 5), 30, 2, 0, 19), 1);
        assert_eq!(decide(&scale(0, 5), 50, 1, 0, 19), 1);
        assert_eq!(decide(&scale(0, 5), 51, 1, 0, 20), 0);
        assert_eq!(decide(&scale(0, 5), 52, 0, 0, 21), 0);
        assert_eq!(decide(&scale(0, 5), 53, 0, 1, 0), 1);
        assert_eq!(decide(&scale(40, 50), 54, 1, 0, 0), 30);
    }
}
