//! Azure Monitor's metrics of container apps, measured for real: what came through the ingress, what
//! replicas use, how many there are.
//!
//! Samples are gathered by the minute, in memory, for up to [`MINUTES_KEPT`]; after a restart
//! there are none from before.

mod answer;
mod query;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard},
};

use jiff::Timestamp;

use super::replicas::Sample;
pub(super) use answer::answer;

/// The versions of the API that are served.
pub(super) const API_VERSIONS: [&str; 5] =
    ["2018-01-01", "2019-07-01", "2021-05-01", "2023-10-01", "2024-02-01"];
/// Minutes for which samples are kept, and how many revisions can have so many; where there are more,
/// each has fewer, so that all together never take more memory, down to the least.
const MINUTES_KEPT: i64 = 90;
const SERIES_FULL: i64 = 2_000;
const MINUTES_KEPT_MIN: i64 = 10;

/// A metric that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    Requests,
    Replicas,
    RestartCount,
    UsageNanoCores,
    WorkingSetBytes,
    CpuPercentage,
    MemoryPercentage,
}

/// How a metric's points of a time become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregation {
    Average,
    Minimum,
    Maximum,
    Total,
    Count,
}

impl Metric {
    const ALL: [Self; 7] = [
        Self::Requests,
        Self::Replicas,
        Self::RestartCount,
        Self::UsageNanoCores,
        Self::WorkingSetBytes,
        Self::CpuPercentage,
        Self::MemoryPercentage,
    ];

    /// Name, name for a person, unit, description.
    fn words(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Requests => ("Requests", "Requests", "Count", "Requests processed"),
            Self::Replicas => {
                ("Replicas", "Replica Count", "Count", "Number of replicas of the container app")
            }
            Self::RestartCount => {
                ("RestartCount", "Replica Restart Count", "Count", "Restarts of the container app's replicas")
            }
            Self::UsageNanoCores => {
                ("UsageNanoCores", "CPU Usage", "NanoCores", "Processor used, in billionths of a core")
            }
            Self::WorkingSetBytes => ("WorkingSetBytes", "Memory Working Set Bytes", "Bytes", "Memory used"),
            Self::CpuPercentage => (
                "CpuPercentage",
                "CPU Usage Percentage",
                "Percent",
                "Share of the processor limit that is used",
            ),
            Self::MemoryPercentage => {
                ("MemoryPercentage", "Memory Percentage", "Percent", "Share of the memory limit that is used")
            }
        }
    }

    /// What it is summed up by where nobody says how.
    fn aggregation(self) -> Aggregation {
        match self {
            Self::Requests => Aggregation::Total,
            Self::Replicas | Self::RestartCount => Aggregation::Maximum,
            Self::UsageNanoCores | Self::WorkingSetBytes | Self::CpuPercentage | Self::MemoryPercentage => {
                Aggregation::Average
            }
        }
    }

    /// The points that a look gives it.
    #[expect(clippy::cast_precision_loss, reason = "counts and bytes are far below 2^52")]
    fn points(self, sample: &Sample) -> Vec<f64> {
        let each = |of: fn(&super::replicas::ReplicaUse) -> f64| sample.used.iter().map(of).collect();
        match self {
            Self::Requests => vec![sample.requests as f64],
            Self::Replicas => vec![f64::from(sample.replicas)],
            Self::RestartCount => vec![f64::from(sample.restarts)],
            Self::UsageNanoCores => each(|used| (used.cores * 1e9).round()),
            Self::WorkingSetBytes => each(|used| used.bytes as f64),
            Self::CpuPercentage => each(|used| used.cpu_percent),
            Self::MemoryPercentage => each(|used| used.memory_percent),
        }
    }
}

/// Points of one time, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Summary {
    count: u32,
    total: f64,
    minimum: f64,
    maximum: f64,
}

impl Summary {
    fn add(&mut self, point: f64) {
        self.join(&Self { count: 1, total: point, minimum: point, maximum: point });
    }

    fn join(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        self.count += other.count;
        self.total += other.total;
        self.minimum = self.minimum.min(other.minimum);
        self.maximum = self.maximum.max(other.maximum);
    }

    /// None where there was no point.
    fn by(&self, aggregation: Aggregation) -> Option<f64> {
        let number = match aggregation {
            Aggregation::Average => self.total / f64::from(self.count),
            Aggregation::Minimum => self.minimum,
            Aggregation::Maximum => self.maximum,
            Aggregation::Total => self.total,
            Aggregation::Count => f64::from(self.count),
        };
        (self.count > 0).then_some(number)
    }
}

/// One minute of a revision.
#[derive(Clone, Debug)]
struct Minute {
    /// Minutes since 1970.
    at: i64,
    summaries: [Summary; Metric::ALL.len()],
}

/// By app and revision, so that an app's revisions lie together.
type Series = BTreeMap<(String, String), VecDeque<Minute>>;

/// What was measured lately, by app and revision.
#[derive(Default)]
pub(super) struct Metrics(Mutex<Series>);

impl Metrics {
    fn series(&self) -> MutexGuard<'_, Series> {
        self.0.lock().expect("nobody panics while holding what was measured")
    }

    /// Keeps a look's samples. What is too old goes, and with it revisions of which nothing is left.
    pub(super) fn record(&self, now: Timestamp, samples: &[Sample]) {
        let at = now.as_second().div_euclid(60);
        let mut series = self.series();
        for sample in samples {
            let minutes = series.entry((sample.app.clone(), sample.revision.clone())).or_default();
            if minutes.back().is_none_or(|last| last.at != at) {
                minutes.push_back(Minute { at, summaries: [Summary::default(); Metric::ALL.len()] });
            }
            let Some(minute) = minutes.back_mut() else { continue };
            for metric in Metric::ALL {
                for point in metric.points(sample) {
                    minute.summaries[metric as usize].add(point);
                }
            }
        }
        let kept = minutes_kept(series.len());
        series.retain(|_, minutes| {
            while minutes.front().is_some_and(|first| first.at <= at - kept || first.at > at) {
                minutes.pop_front();
            }
            !minutes.is_empty()
        });
    }

    /// Forgets the apps at or below a key.
    pub(super) fn forget(&self, key: &str) {
        let below = format!("{key}/");
        self.series().retain(|(app, _), _| app != key && !app.starts_with(&below));
    }

    /// The revisions of an app of which anything is known, in order.
    fn revisions(&self, app: &str) -> Vec<String> {
        let series = self.series();
        let from = series.range((app.to_owned(), String::new())..);
        from.take_while(|((known, _), _)| known == app).map(|((_, name), _)| name.clone()).collect()
    }

    /// What a metric of these revisions was, all together, in steps of `interval` minutes from `from`
    /// until before `until`.
    fn steps(
        &self,
        pairs: &[(String, String)],
        metric: Metric,
        (from, until, interval): (i64, i64, i64),
    ) -> Vec<Summary> {
        let count = usize::try_from((until - from + interval - 1) / interval).unwrap_or_default();
        let mut steps = vec![Summary::default(); count];
        let series = self.series();
        for pair in pairs {
            let minutes = series.get(pair).into_iter().flatten();
            for minute in minutes.filter(|minute| (from..until).contains(&minute.at)) {
                let step = usize::try_from((minute.at - from) / interval).unwrap_or_default();
                steps[step].join(&minute.summaries[metric as usize]);
            }
        }
        steps
    }
}

/// For how many minutes samples of so many revisions are kept.
fn minutes_kept(revisions: usize) -> i64 {
    let revisions = i64::try_from(revisions).unwrap_or(i64::MAX).max(1);
    (MINUTES_KEPT * SERIES_FULL / revisions).clamp(MINUTES_KEPT_MIN, MINUTES_KEPT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::azure::replicas::ReplicaUse;

    #[test]
    fn minutes_are_summed_up_and_go_when_they_are_old() {
        let metrics = Metrics::default();
        let sample = |requests| Sample {
            app: "/a".to_owned(),
            revision: "a--1".to_owned(),
            requests,
            replicas: 2,
            restarts: 0,
            used: vec![ReplicaUse { cores: 0.5, bytes: 10, cpu_percent: 50.0, memory_percent: 1.0 }],
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        metrics.record(at(60), &[sample(3)]);
        metrics.record(at(119), &[sample(5)]);
        metrics.record(at(120), &[sample(1)]);
        let pair = [("/a".to_owned(), "a--1".to_owned())];
        let steps = |metric, from, until, interval| metrics.steps(&pair, metric, (from, until, interval));
        let two = Summary { count: 2, total: 8.0, minimum: 3.0, maximum: 5.0 };
        let one = Summary { count: 1, total: 1.0, minimum: 1.0, maximum: 1.0 };
        assert_eq!(steps(Metric::Requests, 0, 3, 1), [Summary::default(), two, one]);
        assert_eq!(steps(Metric::Requests, 0, 3, 5)[0].by(Aggregation::Average), Some(3.0));
        assert_eq!(steps(Metric::Requests, 5, 6, 1)[0].by(Aggregation::Total), None);
        assert_eq!(steps(Metric::UsageNanoCores, 1, 2, 1)[0].by(Aggregation::Average), Some(500_000_000.0));
        assert_eq!(metrics.revisions("/a"), ["a--1"]);
        metrics.record(at(60 * (MINUTES_KEPT + 2)), &[]);
        assert_eq!(metrics.revisions("/a"), Vec::<String>::new());
    }

    #[test]
    fn the_more_revisions_the_less_is_kept_of_each() {
        assert_eq!([0, 1, 2_000, 9_000, 1_000_000].map(minutes_kept), [90, 90, 90, 20, 10]);
    }
}
