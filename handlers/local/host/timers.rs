//! Timer triggers: one occurrence at a time, the next one computed when the last has ended. What was
//! missed while nothing ran is made up for by one invocation that says so.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::sleep};
use uuid::Uuid;

use super::{
    app::TimerTrigger,
    events::Events,
    invoker::Invoker,
    payloads::{ScheduleStatus, timer},
    schedule::Schedule,
    supervisor::State,
    wire::Occasion,
};
use crate::ports::clock::Clock;

/// The clock is looked at so often at least: it may be set.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// Bytes of a status file.
const STATUS_BYTES_MAX: u64 = 4096;

/// One function's timer.
pub(super) struct TimerLoop {
    pub function: String,
    pub trigger: TimerTrigger,
    pub status: StatusFile,
    pub invoker: Invoker,
    pub events: Events,
    pub clock: Arc<dyn Clock>,
    /// Turns true when nothing new is to be begun.
    pub stopping: watch::Receiver<bool>,
}

impl TimerLoop {
    /// Fires until it is told to stop.
    pub async fn run(mut self) {
        if !self.handler_comes_back().await {
            return;
        }
        let now = self.clock.now();
        let mut status = None;
        let mut first = Start::OnTime;
        if self.trigger.use_monitor && self.trigger.schedule.is_monitored(now) {
            let stored = self.status.read().await;
            let Some((known, start)) = look_back(&self.trigger.schedule, stored, now) else { return };
            if stored != Some(known) {
                self.keep(known).await;
            }
            (status, first) = (Some(known), start);
        }
        match first {
            Start::PastDue => status = self.fire(status, true).await,
            Start::OnTime if self.trigger.run_on_startup => status = self.fire(status, false).await,
            Start::OnTime => {}
        }
        self.keep_firing(status).await;
    }

    async fn keep_firing(&mut self, mut status: Option<ScheduleStatus>) {
        // Where the status names a time that is still to come, that is the time.
        let mut from = self.clock.now();
        loop {
            let planned = status.map(|status| status.next).filter(|next| *next >= from);
            let Some(next) = planned.or_else(|| self.trigger.schedule.next(from)) else { return };
            if !self.wait_until(next).await || !self.handler_comes_back().await {
                return;
            }
            status = self.fire(status, false).await;
            from = self.clock.now().max(next);
        }
    }

    /// Runs the function once, and notes what is to be remembered.
    async fn fire(&self, status: Option<ScheduleStatus>, past_due: bool) -> Option<ScheduleStatus> {
        let now = self.clock.now();
        let occasion = Occasion { now, random: Uuid::new_v4() };
        let body = timer(&self.function, &self.trigger, status.as_ref(), past_due, occasion);
        // A failure has been told; the next occurrence comes all the same.
        let _ = self.invoker.invoke(&self.function, body, |_| Ok(())).await;
        let status = status?;
        // A clock that was set back must not make occurrences come twice.
        let last = status.last.map_or(now, |last| now.max(last));
        let kept =
            ScheduleStatus { last: Some(last), next: self.trigger.schedule.next(last)?, updated: last };
        self.keep(kept).await;
        Some(kept)
    }

    async fn keep(&self, status: ScheduleStatus) {
        if let Err(error) = self.status.write(status).await {
            let text = format!(
                "{}: its timer's status cannot be written to `{}`: {error}",
                self.function,
                self.status.0.display()
            );
            self.events.tell("ERROR", text);
        }
    }

    /// Answers false when it is time to stop.
    async fn wait_until(&mut self, next: Timestamp) -> bool {
        loop {
            let left = Duration::try_from(next.duration_since(self.clock.now())).unwrap_or(Duration::ZERO);
            if left.is_zero() {
                return !*self.stopping.borrow();
            }
            tokio::select! {
                _ = self.stopping.wait_for(|stopping| *stopping) => return false,
                () = sleep(left.min(LOOK_MAX)) => {}
            }
        }
    }

    async fn handler_comes_back(&mut self) -> bool {
        tokio::select! {
            _ = self.stopping.wait_for(|stopping| *stopping) => false,
            state = self.invoker.settled() => state != State::Gone,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    OnTime,
    PastDue,
}

/// What is known at start, and whether an occurrence was missed; none where the schedule is over.
fn look_back(
    schedule: &Schedule,
    stored: Option<ScheduleStatus>,
    now: Timestamp,
) -> Option<(ScheduleStatus, Start)> {
    let Some(stored) = stored else {
        let next = schedule.next(now)?;
        return Some((ScheduleStatus { last: None, next, updated: now }, Start::OnTime));
    };
    let base = stored.last.unwrap_or(stored.updated);
    let expected = schedule.next(base)?;
    if expected == stored.next {
        let start = if now > stored.next { Start::PastDue } else { Start::OnTime };
        return Some((stored, start));
    }
    // The schedule was changed. What it would have missed before it was there is not made up for.
    let (next, updated) = if now > expected { (schedule.next(now)?, now) } else { (expected, base) };
    Some((ScheduleStatus { last: None, next, updated }, Start::OnTime))
}

/// Where a timer's status is kept.
#[derive(Clone, Debug)]
pub(super) struct StatusFile(pub PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stored {
    last: Option<Timestamp>,
    next: Timestamp,
    last_updated: Timestamp,
}

impl StatusFile {
    /// What is remembered. A file that is missing or that is no status counts as none.
    pub async fn read(&self) -> Option<ScheduleStatus> {
        let path = self.0.clone();
        let bytes = tokio::task::spawn_blocking(move || read_small(&path)).await.ok()??;
        let stored: Stored = serde_json::from_slice(&bytes).ok()?;
        Some(ScheduleStatus { last: stored.last, next: stored.next, updated: stored.last_updated })
    }

    /// Remembers; on disk when this returns.
    ///
    /// # Errors
    /// When the file cannot be written; the earlier one is still there then.
    pub async fn write(&self, status: ScheduleStatus) -> io::Result<()> {
        let stored = Stored { last: status.last, next: status.next, last_updated: status.updated };
        let bytes = serde_json::to_vec(&stored)?;
        let path = self.0.clone();
        tokio::task::spawn_blocking(move || replace(&path, &bytes)).await.map_err(io::Error::other)?
    }
}

fn read_small(path: &Path) -> Option<Vec<u8>> {
    let is_small = fs::metadata(path).is_ok_and(|metadata| metadata.len() <= STATUS_BYTES_MAX);
    is_small.then(|| fs::read(path).ok()).flatten()
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes)?;
    fs::File::open(&beside)?.sync_all()?;
    fs::rename(&beside, path)?;
    // A rename is on disk when its folder is.
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-05-15T{text}Z").parse().unwrap()
    }

    fn status(last: Option<&str>, next: &str, updated: &str) -> ScheduleStatus {
        ScheduleStatus { last: last.map(at), next: at(next), updated: at(updated) }
    }

    #[test]
    fn what_was_missed_is_made_up_for_once() {
        let schedule = Schedule::parse("0 */5 * * * *").unwrap();
        let cases = [
            ("new", None, status(None, "12:10:00", "12:07:00"), Start::OnTime),
            (
                "missed many",
                Some(status(Some("10:00:00.01"), "10:05:00", "10:00:00.01")),
                status(Some("10:00:00.01"), "10:05:00", "10:00:00.01"),
                Start::PastDue,
            ),
            (
                "never ran, missed",
                Some(status(None, "10:05:00", "10:01:00")),
                status(None, "10:05:00", "10:01:00"),
                Start::PastDue,
            ),
            (
                "on time",
                Some(status(Some("12:05:00.01"), "12:10:00", "12:05:00.01")),
                status(Some("12:05:00.01"), "12:10:00", "12:05:00.01"),
                Start::OnTime,
            ),
            (
                "schedule changed, missed",
                Some(status(Some("10:00:00"), "11:00:00", "10:00:00")),
                status(None, "12:10:00", "12:07:00"),
                Start::OnTime,
            ),
            (
                "schedule changed, still to come",
                Some(status(Some("12:06:00"), "13:00:00", "12:06:00")),
                status(None, "12:10:00", "12:06:00"),
                Start::OnTime,
            ),
        ];
        for (name, stored, known, start) in cases {
            assert_eq!(look_back(&schedule, stored, at("12:07:00")), Some((known, start)), "{name}");
        }
    }

    #[tokio::test]
    async fn a_status_is_kept_and_a_damaged_one_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = StatusFile(folder.path().join("Sweep.json"));
        assert_eq!(file.read().await, None);
        let kept = status(None, "12:10:00", "12:07:00.123");
        file.write(kept).await.unwrap();
        assert_eq!(file.read().await, Some(kept));
        fs::write(folder.path().join("Sweep.json"), "{").unwrap();
        assert_eq!(file.read().await, None);
    }
}
