//! A timer's occurrence.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::local::host::{
    app::TimerTrigger,
    wire::{Metadata, Net, Occasion, invocation, with_fraction},
};

/// The beginning of .NET's calendar: when a timer ran that never ran.
const NO_TIME: &str = "0001-01-01T00:00:00";

/// What is remembered of a monitored timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleStatus {
    /// None where it has not run yet.
    pub last: Option<Timestamp>,
    pub next: Timestamp,
    pub updated: Timestamp,
}

impl ScheduleStatus {
    /// As invocations and the status file give it.
    pub fn json(&self) -> Value {
        let offset = |text: String| format!("{text}+00:00");
        let last = self.last.map_or_else(|| NO_TIME.to_owned(), with_fraction);
        // Azure leaves the time of the last update empty too until the timer has run.
        let updated = if self.last.is_some() { with_fraction(self.updated) } else { NO_TIME.to_owned() };
        json!({ "Last": offset(last), "Next": offset(with_fraction(self.next)), "LastUpdated": offset(updated) })
    }
}

/// The body of the request.
pub fn timer(
    function: &str,
    trigger: &TimerTrigger,
    status: Option<&ScheduleStatus>,
    past_due: bool,
    occasion: Occasion,
) -> String {
    let data = json!({
        "Schedule": { "AdjustForDST": trigger.schedule.adjusts_for_dst() },
        "ScheduleStatus": status.map(ScheduleStatus::json),
        "IsPastDue": past_due,
    });
    let mut metadata = Metadata::default();
    metadata.put_sys(function, occasion);
    invocation(&trigger.name, Net::Object(data), metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::host::{payloads::golden, schedule::Schedule};

    fn trigger() -> TimerTrigger {
        let schedule = Schedule::parse("0 */5 * * * *").unwrap();
        TimerTrigger { name: "timer".into(), schedule, run_on_startup: false, use_monitor: true }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_timer_without_monitor_has_no_status() {
        let occasion = Occasion {
            now: at("2023-09-07T11:40:45.004275Z"),
            random: "35e6e68c-5583-436c-a277-5aec2b416ba8".parse().unwrap(),
        };
        golden::compare("timer", &timer("azure", &trigger(), None, false, occasion));
    }

    #[test]
    fn a_monitored_timer_tells_its_status() {
        let occasion = Occasion {
            now: at("2026-05-15T17:45:00.0091Z"),
            random: "35e6e68c-5583-436c-a277-5aec2b416ba8".parse().unwrap(),
        };
        let ran = at("2026-05-15T17:40:00.0105419Z");
        let status = ScheduleStatus { last: Some(ran), next: at("2026-05-15T17:45:00Z"), updated: ran };
        golden::compare("timer_monitored", &timer("sweep", &trigger(), Some(&status), true, occasion));
        let never = ScheduleStatus { last: None, ..status };
        let expected = json!({"Last": "0001-01-01T00:00:00+00:00", "Next": "2026-05-15T17:45:00+00:00", "LastUpdated": "0001-01-01T00:00:00+00:00"});
        assert_eq!(never.json(), expected);
    }
}
