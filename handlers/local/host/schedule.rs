//! When a timer is due: NCRONTAB expressions and fixed periods, in UTC.
//!
//! NCRONTAB is not cron: six fields (five leave out the seconds), day of the month *and* day of the
//! week must both match, Sunday is 0 and never 7, and there is no `L`, `W`, `#`, `?` or `@daily`.

use std::time::Duration;

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Timestamp, tz::TimeZone};

use super::app::parse_timespan;

/// A schedule that fires more often than this keeps no status.
const MONITORED_EVERY: Duration = Duration::from_secs(60);
/// Occurrences that are looked at to tell how often a schedule fires.
const OCCURRENCES_LOOKED_AT: usize = 5;

/// Names of months and days are cut to the three letters that the parser knows.
const NAMES: &[&str] = &[
    "JANUARY",
    "FEBRUARY",
    "MARCH",
    "APRIL",
    "JUNE",
    "JULY",
    "AUGUST",
    "SEPTEMBER",
    "OCTOBER",
    "NOVEMBER",
    "DECEMBER",
    "SUNDAY",
    "MONDAY",
    "TUESDAY",
    "WEDNESDAY",
    "THURSDAY",
    "FRIDAY",
    "SATURDAY",
];

/// When a timer is due.
#[derive(Clone, Debug)]
pub(super) enum Schedule {
    Cron(Box<Cron>),
    Every(Duration),
}

impl Schedule {
    /// # Errors
    /// What is wrong with the expression.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(period) = parse_timespan(text) {
            return match period.is_zero() {
                true => Err(format!("`{text}` is no time at all: a period must be longer")),
                false => Ok(Self::Every(period)),
            };
        }
        let fields: Vec<String> = text.split_whitespace().map(spell_out).collect();
        let pattern = match fields.len() {
            5 => format!("0 {}", fields.join(" ")),
            6 => fields.join(" "),
            count => {
                return Err(format!(
                    "`{text}` has {count} fields: write six, second minute hour day month day-of-week, such as \"0 */5 * * * *\", or a period such as \"00:05:00\""
                ));
            }
        };
        if let Some(field) = fields.iter().find(|field| !is_ncrontab(field)) {
            return Err(format!(
                "`{field}` in `{text}` is no NCRONTAB field: use numbers, `*`, `,`, `-` and `/`"
            ));
        }
        if fields.last().is_some_and(|days| has_number(days, "7")) {
            return Err(format!("`{text}` has a day of the week 7: Sunday is 0"));
        }
        let parser =
            CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed).dom_and_dow(true);
        let cron = parser
            .sloppy_ranges(true)
            .build()
            .parse(&pattern)
            .map_err(|error| format!("`{text}`: {error}"))?;
        let schedule = Self::Cron(Box::new(cron));
        let ever = schedule.next(Timestamp::UNIX_EPOCH).is_some();
        ever.then_some(schedule).ok_or_else(|| format!("`{text}` never comes: there is no such day"))
    }

    /// The first occurrence after `after`; none where there is none in the calendar's range.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(cron) => {
                let next = cron.find_next_occurrence(&after.to_zoned(TimeZone::UTC), false).ok()?;
                Some(next.timestamp())
            }
            Self::Every(period) => after.checked_add(jiff::SignedDuration::try_from(*period).ok()?).ok(),
        }
    }

    /// Whether a status is kept: only where occurrences are a minute apart or more.
    pub fn is_monitored(&self, now: Timestamp) -> bool {
        let occurrences =
            std::iter::successors(self.next(now), |last| self.next(*last)).take(OCCURRENCES_LOOKED_AT);
        let occurrences: Vec<Timestamp> = occurrences.collect();
        let apart = |pair: &[Timestamp]| pair[1].duration_since(pair[0]).unsigned_abs();
        occurrences.windows(2).all(|pair| apart(pair) >= MONITORED_EVERY)
    }

    /// Whether the wall clock matters, as invocations are told.
    pub fn adjusts_for_dst(&self) -> bool {
        match self {
            Self::Cron(_) => true,
            Self::Every(_) => false,
        }
    }
}

fn spell_out(field: &str) -> String {
    NAMES.iter().fold(field.to_ascii_uppercase(), |field, name| field.replace(name, &name[..3]))
}

fn is_ncrontab(field: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_alphabetic() || b"*,-/".contains(&byte);
    let word = |part: &str| part.bytes().any(|byte| byte.is_ascii_alphabetic());
    let known = |part: &str| {
        let names = [
            "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC", "SUN", "MON",
            "TUE", "WED", "THU", "FRI", "SAT",
        ];
        !word(part) || names.contains(&part)
    };
    field.bytes().all(allowed)
        && field.split(',').all(|part| !part.is_empty() && !part.starts_with('/'))
        && field.split([',', '-', '/']).all(known)
}

fn has_number(field: &str, number: &str) -> bool {
    // What follows a `/` is a step, and may well be 7.
    field
        .split(',')
        .any(|part| part.split('/').next().unwrap_or_default().split('-').any(|end| end == number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> String {
        let schedule = Schedule::parse(schedule).unwrap_or_else(|problem| panic!("{problem}"));
        schedule.next(after.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn expressions_fire_when_azure_fires_them() {
        // 2026-05-15 is a Friday.
        let cases = [
            ("*/10 * * * * *", "2026-05-15T17:40:00Z", "2026-05-15T17:40:10Z"),
            ("*/10 * * * * *", "2026-05-15T17:40:09.999Z", "2026-05-15T17:40:10Z"),
            ("*/10 * * * * *", "2026-05-15T17:40:10.5Z", "2026-05-15T17:40:20Z"),
            ("0 */5 * * * *", "2026-05-15T17:40:00.0105Z", "2026-05-15T17:45:00Z"),
            ("0 0 * * * *", "2026-05-15T17:40:00Z", "2026-05-15T18:00:00Z"),
            ("0 30 9 * * 1-5", "2026-05-15T17:40:00Z", "2026-05-18T09:30:00Z"),
            ("0 30 9 * * Mon-Fri", "2026-05-15T17:40:00Z", "2026-05-18T09:30:00Z"),
            ("0 0 0 * * 0", "2026-05-15T17:40:00Z", "2026-05-17T00:00:00Z"),
            ("0 0 0 * * Sunday", "2026-05-15T17:40:00Z", "2026-05-17T00:00:00Z"),
            ("0 0 0 * * 6", "2026-05-15T17:40:00Z", "2026-05-16T00:00:00Z"),
            ("0 0 12 13 * FRI", "2026-05-15T17:40:00Z", "2026-11-13T12:00:00Z"),
            ("0 0 0 1 Jan,Jul *", "2026-05-15T17:40:00Z", "2026-07-01T00:00:00Z"),
            ("5/15 * * * * *", "2026-05-15T17:40:06Z", "2026-05-15T17:40:20Z"),
            ("0 0 0 29 2 *", "2026-05-15T17:40:00Z", "2028-02-29T00:00:00Z"),
            ("*/5 * * * *", "2026-05-15T17:40:00Z", "2026-05-15T17:45:00Z"),
            ("00:30:00", "2026-05-15T17:40:00Z", "2026-05-15T18:10:00Z"),
        ];
        for (schedule, after, expected) in cases {
            assert_eq!(next(schedule, after), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn what_is_no_ncrontab_is_told() {
        let said = |text: &str| Schedule::parse(text).map(|_| ()).unwrap_err();
        assert_eq!(
            said("* * * *"),
            "`* * * *` has 4 fields: write six, second minute hour day month day-of-week, such as \"0 */5 * * * *\", or a period such as \"00:05:00\""
        );
        assert_eq!(said("0 0 0 * * 7"), "`0 0 0 * * 7` has a day of the week 7: Sunday is 0");
        assert_eq!(
            said("0 0 0 L * *"),
            "`L` in `0 0 0 L * *` is no NCRONTAB field: use numbers, `*`, `,`, `-` and `/`"
        );
        assert_eq!(said("0 0 0 30 2 *"), "`0 0 0 30 2 *` never comes: there is no such day");
        assert_eq!(said("00:00:00"), "`00:00:00` is no time at all: a period must be longer");
        assert!(said("99 * * * * *").starts_with("`99 * * * * *`: "));
        assert!(said("/10 * * * * *").starts_with("`/10` in "));
    }

    #[test]
    fn only_schedules_of_a_minute_or_more_are_monitored() {
        let monitored =
            |text: &str| Schedule::parse(text).unwrap().is_monitored("2026-05-15T17:40:00Z".parse().unwrap());
        assert!(monitored("0 * * * * *"));
        assert!(monitored("00:01:00"));
        assert!(!monitored("*/10 * * * * *"));
        assert!(!monitored("0,30 0 * * * *"));
        assert!(!monitored("00:00:59"));
    }
}
