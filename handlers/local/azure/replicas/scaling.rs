//! The look at all revisions, once a second: what they use and what goes through them, and how many
//! replicas each is to have from that.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use jiff::Timestamp;

use super::{
    Fleet, Groups, Happening, Replica, Run, Surroundings,
    autoscaler::{self, Seen},
    fill,
    load::Looked,
    usage::{self, Use},
};
use crate::local::azure::container_apps::Rule;

/// Looks that requests on their way are averaged over.
const LOOKS: usize = 3;

/// What one revision did since the last look.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::local::azure) struct Sample {
    /// The key of the app.
    pub app: String,
    pub revision: String,
    pub requests: u64,
    /// Replicas, ready or not.
    pub replicas: u32,
    /// Times that containers of those replicas were started again.
    pub restarts: u32,
    pub used: Vec<ReplicaUse>,
}

/// What one replica uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::local::azure) struct ReplicaUse {
    pub cores: f64,
    pub bytes: u64,
    /// Of what it may use.
    pub cpu_percent: f64,
    pub memory_percent: f64,
}

impl Fleet {
    /// Whether a rule looks at queues.
    pub(in crate::local::azure) fn looks_at_queues(&self) -> bool {
        let of_a_queue = |rule: &Rule| matches!(rule, Rule::Queue { .. });
        self.runs().values().any(|run| run.spec.scale.rules.iter().any(of_a_queue))
    }

    /// Whether there are programs to be measured.
    pub(in crate::local::azure) fn has_programs(&self) -> bool {
        self.runs().values().flat_map(|run| &run.replicas).any(|replica| replica.status().group.is_some())
    }

    /// Looks at everything, and starts and ends replicas.
    pub(in crate::local::azure) fn look(
        &self,
        queues: &BTreeMap<String, u64>,
        groups: &Groups,
        now: Timestamp,
    ) -> Vec<Sample> {
        let (mut samples, mut over) = (Vec::new(), Vec::new());
        let at = Instant::now();
        for ((app, revision), run) in self.runs().iter_mut() {
            let looked = run.load.look(at);
            let used = run.measure(&looked, groups);
            samples.push(Sample {
                app: app.clone(),
                revision: revision.clone(),
                requests: looked.answered,
                replicas: u32::try_from(run.replicas.len()).unwrap_or(u32::MAX),
                restarts: run.replicas.iter().map(|replica| replica.view().restarts).sum(),
                used: used.clone(),
            });
            over.extend(run.scale(app, &looked, &used, queues, at, (now, &self.surroundings)));
        }
        self.end(over);
        samples
    }
}

impl Run {
    /// What each replica that is ready uses; none of those of which it is not known.
    fn measure(&self, looked: &Looked, groups: &Groups) -> Vec<ReplicaUse> {
        let ready = self.replicas.iter().filter(|replica| replica.address().is_some()).collect::<Vec<_>>();
        let share = |number: f64| number / f64::from(u32::try_from(ready.len().max(1)).unwrap_or(u32::MAX));
        let seconds = looked.seconds.max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "far fewer requests than 2^52 come in a second")]
        let per_second = looked.answered as f64 / seconds;
        let of = |replica: &&Replica| {
            let mut status = replica.status();
            let used = match status.group {
                None => usage::model(share(per_second), share(looked.in_flight)),
                Some(group) => {
                    let spent = groups.get(&group)?;
                    // A process that went took its time with it: nothing was used, not less than nothing.
                    let before = status.spent.replace(spent.seconds).unwrap_or(spent.seconds);
                    Use { cores: (spent.seconds - before).max(0.0) / seconds, bytes: spent.bytes }
                }
            };
            Some(self.of_what_it_may(used))
        };
        ready.iter().filter_map(of).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "a replica has far less than 2^52 bytes")]
    fn of_what_it_may(&self, used: Use) -> ReplicaUse {
        let (cores, bytes) = (f64::from(self.spec.millicores) / 1000.0, self.spec.memory_bytes as f64);
        ReplicaUse {
            cores: used.cores,
            bytes: used.bytes,
            cpu_percent: 100.0 * used.cores / cores,
            memory_percent: 100.0 * used.bytes as f64 / bytes,
        }
    }

    /// Starts what is to be there, and answers what is to go.
    fn scale(
        &mut self,
        app: &str,
        looked: &Looked,
        used: &[ReplicaUse],
        queues: &BTreeMap<String, u64>,
        at: Instant,
        (now, surroundings): (Timestamp, &Arc<Surroundings>),
    ) -> Vec<Replica> {
        self.in_flight.push_back(looked.in_flight);
        if self.in_flight.len() > LOOKS {
            self.in_flight.pop_front();
        }
        if looked.in_flight > 0.0 {
            self.asked = at;
        }
        let current = u32::try_from(self.replicas.len()).unwrap_or(u32::MAX);
        let ready = self.replicas.iter().filter(|replica| replica.address().is_some()).count();
        let coming_up = self.replicas.iter().any(|replica| !replica.view().ready);
        let seen = Seen {
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            in_flight: mean(self.in_flight.iter().copied()).unwrap_or_default(),
            cpu_percent: mean(used.iter().map(|used| used.cpu_percent)),
            memory_percent: mean(used.iter().map(|used| used.memory_percent)),
            queues,
        };
        let asked_for = autoscaler::asked_for(&self.spec.scale.rules, &seen);
        let idle = (asked_for == 0 && !coming_up).then(|| at.duration_since(self.asked));
        let most = super::REPLICAS_PER_REVISION_MAX;
        self.wanted = self.history.decide(&self.spec.scale, most, current, asked_for, idle, at);
        if self.wanted != current && self.spec.broken.is_none() {
            (surroundings.sink)(Happening::Scaled {
                app: self.spec.app.clone(),
                revision: self.spec.revision.clone(),
                from: current,
                to: self.wanted,
            });
        }
        fill(self, app, surroundings, now);
        // What is not ready yet goes first, and of the ready ones the youngest.
        self.replicas.sort_by_key(|replica| !replica.view().ready);
        self.replicas.split_off(self.replicas.len().min(self.wanted as usize))
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are far fewer than 2^52 numbers")]
fn mean(numbers: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let count = numbers.len();
    (count > 0).then(|| numbers.sum::<f64>() / count as f64)
}
