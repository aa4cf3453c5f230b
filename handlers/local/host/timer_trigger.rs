//! Timers: one occurrence at a time, missed ones skipped, and one catch-up after a pause.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    HostEvent, Shared,
    app::{Schedule, TimerTrigger},
    encoding::{self, ScheduleStatus},
};

/// A schedule more frequent than this is not monitored.
const MONITORED_INTERVAL: SignedDuration = SignedDuration::from_mins(1);

#[derive(Serialize, Deserialize)]
struct Kept {
    last: Option<Timestamp>,
    next: Timestamp,
}

fn next(schedule: &Schedule, after: Timestamp) -> Option<Timestamp> {
    match schedule {
        Schedule::Every(every) => after.checked_add(*every).ok(),
        Schedule::Cron(cron) => {
            let zoned = after.to_zoned(TimeZone::UTC);
            Some(cron.find_next_occurrence(&zoned, false).ok()?.timestamp())
        }
    }
}

pub(super) async fn run(shared: Shared, function: String, trigger: TimerTrigger, file: PathBuf) {
    let now = shared.clock.now();
    let Some(mut due) = next(&trigger.schedule, now) else {
        shared.tell(HostEvent::Told { level: "ERROR", text: format!("{function} has a schedule that never comes") });
        return;
    };
    let frequent = next(&trigger.schedule, due).is_some_and(|after| after.duration_since(due) < MONITORED_INTERVAL);
    let monitored = trigger.monitor && !frequent;
    let mut kept = if monitored { read(&file) } else { None };
    let missed = kept.as_ref().is_some_and(|kept| kept.next < now);
    if missed || trigger.run_on_startup {
        fire(&shared, &function, &trigger, kept.as_ref(), missed).await;
        kept = Some(Kept { last: Some(now), next: due });
    }
    let mut stopping = shared.stopping.clone();
    loop {
        let pause = Duration::try_from(due.duration_since(shared.clock.now())).unwrap_or_default();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        let status = monitored.then(|| Kept { last: kept.as_ref().and_then(|kept| kept.last), next: due });
        fire(&shared, &function, &trigger, status.as_ref(), false).await;
        let fired = due;
        let Some(after) = next(&trigger.schedule, shared.clock.now().max(due)) else { return };
        due = after;
        kept = Some(Kept { last: Some(fired), next: due });
        if monitored && let Some(kept) = &kept {
            write(&shared, &file, kept);
        }
    }
}

async fn fire(shared: &Shared, function: &str, trigger: &TimerTrigger, kept: Option<&Kept>, past_due: bool) {
    let status = kept.map(|kept| ScheduleStatus { last: kept.last, next: kept.next });
    let payload = encoding::timer(function, &trigger.binding, status.as_ref(), past_due, shared.clock.now());
    let id = Uuid::new_v4();
    if let Err(failure) = shared.supervisor.invoke(function, id, &payload).await {
        shared.failed(function, &id.to_string(), &failure.to_string());
    }
}

fn read(file: &Path) -> Option<Kept> {
    serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()
}

fn write(shared: &Shared, file: &Path, kept: &Kept) {
    let text = serde_json::to_string(kept).expect("times are texts");
    if let Err(error) = std::fs::write(file, text) {
        shared.tell(HostEvent::Told { level: "WARN", text: format!("{} cannot be written: {error}", file.display()) });
    }
}
