//! Schedules: windows of the day, in a time zone, in which other bounds are wanted.
//!
//! A schedule is a list of windows with bounds; the first one that a moment is in counts, and outside
//! all of them the policy's own bounds do. Windows are told on the wall clock of the time zone, so
//! that summer time moves them. Deliberately absent: cron expressions, which say when something begins
//! and not until when, and dates.

use jiff::{
    Timestamp,
    civil::{Time, Weekday},
    tz::TimeZone,
};
use serde::{Deserialize, Serialize};

/// Windows of one schedule.
const WINDOWS_MAX: usize = 20;

/// When which bounds are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// An IANA name, e.g. `Europe/Berlin`.
    pub time_zone: String,
    pub windows: Vec<Window>,
}

/// A part of some days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// The days on which it begins; every day where none is named.
    #[serde(default)]
    pub days: Vec<Day>,
    /// `HH:MM`, included.
    pub from: String,
    /// `HH:MM`, not included. One that is not after `from` is on the next day.
    pub to: String,
    pub min_replicas: u32,
    pub max_replicas: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    fn of(weekday: Weekday) -> Self {
        match weekday {
            Weekday::Monday => Self::Mon,
            Weekday::Tuesday => Self::Tue,
            Weekday::Wednesday => Self::Wed,
            Weekday::Thursday => Self::Thu,
            Weekday::Friday => Self::Fri,
            Weekday::Saturday => Self::Sat,
            Weekday::Sunday => Self::Sun,
        }
    }
}

impl Window {
    /// Its times as they are written, e.g. `Mon Fri 08:00-18:00`.
    pub fn sentence(&self) -> String {
        let mut text: String = self.days.iter().map(|day| format!("{day:?} ")).collect();
        text.push_str(&format!("{}-{}", self.from, self.to));
        text
    }

    fn times(&self) -> Option<(Time, Time)> {
        Some((time(&self.from)?, time(&self.to)?))
    }

    fn is_on(&self, weekday: Weekday) -> bool {
        self.days.is_empty() || self.days.contains(&Day::of(weekday))
    }

    fn has(&self, weekday: Weekday, now: Time) -> bool {
        let Some((from, to)) = self.times() else { return false };
        if from < to {
            return self.is_on(weekday) && from <= now && now < to;
        }
        (self.is_on(weekday) && now >= from) || (self.is_on(weekday.previous()) && now < to)
    }
}

/// `HH:MM`, and nothing beside it.
fn time(text: &str) -> Option<Time> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| {
        let good = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        good.then(|| text.parse::<i8>().ok()).flatten()
    };
    Time::new(number(hours)?, number(minutes)?, 0, 0).ok()
}

impl Schedule {
    /// The window that a moment is in.
    pub fn window(&self, now: Timestamp) -> Option<&Window> {
        let zone = TimeZone::get(&self.time_zone).ok()?;
        let there = now.to_zoned(zone);
        self.windows.iter().find(|window| window.has(there.weekday(), there.time()))
    }

    /// # Errors
    /// The member, and what is wrong with it.
    pub fn validate(&self) -> Result<(), (String, String)> {
        if TimeZone::get(&self.time_zone).is_err() {
            let what = "it must name a time zone of the IANA database, e.g. `Europe/Berlin`, or `UTC`";
            return Err(("timeZone".to_owned(), what.to_owned()));
        }
        if self.windows.is_empty() || self.windows.len() > WINDOWS_MAX {
            let what = format!("there are {}; 1 to {WINDOWS_MAX} are taken", self.windows.len());
            return Err(("windows".to_owned(), what));
        }
        for (index, window) in self.windows.iter().enumerate() {
            let field = |name: &str| format!("windows[{index}].{name}");
            for (name, text) in [("from", &window.from), ("to", &window.to)] {
                if time(text).is_none() {
                    return Err((field(name), "it must be a time as `HH:MM`, e.g. `08:00`".to_owned()));
                }
            }
            if window.from == window.to {
                let what = "it is when the window begins; a window ends before or after that".to_owned();
                return Err((field("to"), what));
            }
            if let Err((name, what)) = super::bounds_are_good(window.min_replicas, window.max_replicas) {
                return Err((field(name), what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schedule(windows: serde_json::Value) -> Schedule {
        serde_json::from_value(json!({ "timeZone": "Europe/Berlin", "windows": windows })).unwrap()
    }

    fn window(days: &[&str], from: &str, to: &str) -> serde_json::Value {
        json!({ "days": days, "from": from, "to": to, "minReplicas": 3, "maxReplicas": 6 })
    }

    #[test]
    fn a_window_is_on_the_wall_clock_of_its_time_zone() {
        let office = schedule(json!([window(&["Mon", "Tue", "Wed", "Thu", "Fri"], "08:00", "18:00")]));
        let night = schedule(json!([window(&["Fri"], "22:00", "06:00")]));
        let always = schedule(json!([window(&[], "00:00", "24:00"), window(&[], "00:00", "12:00")]));
        for (schedule, at, is_in) in [
            // Winter: one hour ahead of UTC; 2026-03-02 is a Monday.
            (&office, "2026-03-02T06:59:59Z", false),
            (&office, "2026-03-02T07:00:00Z", true),
            (&office, "2026-03-02T16:59:59Z", true),
            (&office, "2026-03-02T17:00:00Z", false),
            (&office, "2026-03-07T10:00:00Z", false),
            // Summer: two hours.
            (&office, "2026-07-06T06:00:00Z", true),
            (&office, "2026-07-06T16:00:00Z", false),
            (&night, "2026-03-06T20:59:00Z", false),
            (&night, "2026-03-06T21:00:00Z", true),
            (&night, "2026-03-07T04:59:00Z", true),
            (&night, "2026-03-07T05:00:00Z", false),
            (&night, "2026-03-06T03:00:00Z", false),
            (&always, "2026-03-06T03:00:00Z", true),
            (&always, "2026-03-06T12:00:00Z", false),
        ] {
            assert_eq!(schedule.window(at.parse().unwrap()).is_some(), is_in, "{at}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_place() {
        let of = |window| schedule(json!([window])).validate().unwrap_err();
        let mut narrow = window(&[], "08:00", "09:00");
        narrow["minReplicas"] = json!(7);
        for (found, (field, says)) in [
            (of(window(&[], "8:00", "09:00")), ("windows[0].from", "`HH:MM`")),
            (of(window(&[], "08:00", "25:00")), ("windows[0].to", "`HH:MM`")),
            (of(window(&[], "08:00", "08:00")), ("windows[0].to", "when the window begins")),
            (of(narrow), ("windows[0].maxReplicas", "no less than minReplicas")),
            (schedule(json!([])).validate().unwrap_err(), ("windows", "there are 0")),
            (
                Schedule {
                    time_zone: "Mars/Base".into(),
                    ..schedule(json!([window(&[], "08:00", "09:00")]))
                }
                .validate()
                .unwrap_err(),
                ("timeZone", "IANA"),
            ),
        ] {
            assert_eq!(found.0, field);
            assert!(found.1.contains(says), "{}", found.1);
        }
    }
}
