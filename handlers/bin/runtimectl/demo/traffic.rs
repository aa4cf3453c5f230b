//! Requests through the ingress, a trickle or a load, and what the ingress counted of them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use runtime_platform::local::azure::{Azure, Count};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

/// The pause between two requests.
const PAUSE: Duration = Duration::from_millis(50);

/// Requests to one address, one after the other, until it is dropped.
pub struct Trickle {
    task: JoinHandle<()>,
    counts: Arc<Counts>,
    /// What was told of them: how many, and how many were not answered well.
    told: Mutex<(u64, u64)>,
}

#[derive(Default)]
struct Counts {
    asked: AtomicU64,
    /// Without an answer, or with another one than 200.
    unwell: AtomicU64,
}

async fn ask(http: &reqwest::Client, url: &str, counts: &Counts) {
    let answer = match http.get(url).send().await {
        Ok(answer) => {
            let well = answer.status() == reqwest::StatusCode::OK;
            answer.bytes().await.is_ok() && well
        }
        Err(_) => false,
    };
    if !answer {
        counts.unwell.fetch_add(1, Ordering::Relaxed);
    }
    counts.asked.fetch_add(1, Ordering::Relaxed);
}

impl Trickle {
    pub fn start(http: reqwest::Client, url: String) -> Self {
        let counts = Arc::new(Counts::default());
        let kept = counts.clone();
        let task = tokio::spawn(async move {
            let mut pace = interval(PAUSE);
            pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                pace.tick().await;
                ask(&http, &url, &kept).await;
            }
        });
        Self { task, counts, told: Mutex::default() }
    }

    /// How many requests were made since the last time, and how many of them were not answered well.
    pub fn since_last(&self) -> (u64, u64) {
        let now = (self.counts.asked.load(Ordering::Relaxed), self.counts.unwell.load(Ordering::Relaxed));
        let mut told = self.told.lock().expect("nobody panics while holding the counts");
        let before = std::mem::replace(&mut *told, now);
        (now.0 - before.0, now.1 - before.1)
    }
}

impl Drop for Trickle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Requests to one address from many clients at a time, each of which asks again once it was answered.
pub struct Load {
    tasks: Vec<JoinHandle<()>>,
    counts: Arc<Counts>,
    ending: Arc<AtomicBool>,
    pub began: Instant,
}

impl Load {
    pub fn start(http: &reqwest::Client, url: &str, clients: u32) -> Self {
        let (counts, ending) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let client = |_| {
            let (http, url) = (http.clone(), url.to_owned());
            let (counts, ending) = (counts.clone(), ending.clone());
            tokio::spawn(async move {
                while !ending.load(Ordering::Relaxed) {
                    ask(&http, &url, &counts).await;
                }
            })
        };
        Self { tasks: (0..clients).map(client).collect(), counts, ending, began: Instant::now() }
    }

    /// Lets everybody have the last answer; how many requests there were, and how many of them were not
    /// answered well.
    pub async fn ends(mut self) -> (u64, u64) {
        self.ending.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            // A client that broke off is counted by what it did not ask.
            let _ = task.await;
        }
        (self.counts.asked.load(Ordering::Relaxed), self.counts.unwell.load(Ordering::Relaxed))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What the ingress counted at one host, by revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<String, Count>);

impl Tally {
    /// What was counted so far at the host of `url`.
    pub fn at(azure: &Azure, url: &str) -> Self {
        let host =
            url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        Self(azure.ingress_counts(Some(&host)).into_values().next().unwrap_or_default())
    }

    /// What came since `before`; revisions that nothing came to are left out.
    pub fn since(&self, before: &Self) -> Self {
        let none = Count::default();
        let difference = |(revision, count): (&String, &Count)| {
            let before = before.0.get(revision).unwrap_or(&none);
            let statuses = count.statuses.iter().map(|(status, number)| {
                (*status, number.saturating_sub(before.statuses.get(status).copied().unwrap_or(0)))
            });
            let statuses = statuses.filter(|(_, number)| *number > 0).collect();
            let requests = count.requests.saturating_sub(before.requests);
            (requests > 0).then(|| (revision.clone(), Count { requests, statuses }))
        };
        Self(self.0.iter().filter_map(difference).collect())
    }

    /// How many requests came in all.
    pub fn requests(&self) -> u64 {
        self.0.values().map(|count| count.requests).sum()
    }

    /// Requests that were answered with anything but 200.
    pub fn not_well(&self) -> u64 {
        let bad = |count: &Count| {
            count
                .statuses
                .iter()
                .filter(|(status, _)| **status != 200)
                .map(|(_, number)| *number)
                .sum::<u64>()
        };
        self.0.values().map(bad).sum()
    }

    /// Whether requests came, and all to this revision.
    pub fn all_to(&self, revision: &str) -> bool {
        self.0.len() == 1 && self.0.contains_key(revision)
    }

    /// Whether any request came to this revision.
    pub fn reaches(&self, revision: &str) -> bool {
        self.0.contains_key(revision)
    }

    /// In words; `version` names revisions for people.
    pub fn in_words(&self, version: impl Fn(&str) -> String) -> String {
        if self.0.is_empty() {
            return "no request".to_owned();
        }
        let of_one = |(revision, count): (&String, &Count)| {
            let statuses = count
                .statuses
                .iter()
                .map(|(status, number)| format!("{number} x {status}"))
                .collect::<Vec<_>>();
            format!("{} to {} ({})", count.requests, version(revision), statuses.join(", "))
        };
        self.0.iter().map(of_one).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(counts: &[(&str, &[(u16, u64)])]) -> Tally {
        let count = |statuses: &[(u16, u64)]| Count {
            requests: statuses.iter().map(|(_, number)| number).sum(),
            statuses: statuses.iter().copied().collect(),
        };
        Tally(counts.iter().map(|(revision, statuses)| ((*revision).to_owned(), count(statuses))).collect())
    }

    #[test]
    fn what_came_since_leaves_out_what_came_before() {
        let before = tally(&[("old", &[(200, 10)]), ("gone", &[(200, 5)])]);
        let after = tally(&[("old", &[(200, 12), (503, 1)]), ("gone", &[(200, 5)]), ("new", &[(200, 7)])]);
        let since = after.since(&before);
        assert_eq!(since, tally(&[("old", &[(200, 2), (503, 1)]), ("new", &[(200, 7)])]));
        assert_eq!((since.requests(), since.not_well()), (10, 1));
        assert!(!since.all_to("old"));
        assert_eq!(since.in_words(str::to_uppercase), "7 to NEW (7 x 200), 3 to OLD (2 x 200, 1 x 503)");
    }

    #[test]
    fn nothing_is_not_all_to_anybody() {
        let nothing = Tally::default();
        assert!(!nothing.all_to("old"));
        assert_eq!(nothing.in_words(str::to_owned), "no request");
        assert!(tally(&[("old", &[(200, 1)])]).all_to("old"));
    }
}
