//! What a gate asks for, as it travels in a Deploy: times are numbers of seconds, every member has a
//! default, and each has limits.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// The most samples of one gate. Samples are kept with the decision.
pub const COUNT_MAX: u32 = 200;
/// The most statuses that a gate may expect.
pub const EXPECT_STATUS_MAX: usize = 20;
/// The longest path that is asked, in bytes.
pub const PATH_BYTES_MAX: usize = 1024;

/// The most different failures, errors and the like.
const LIMIT_MAX: u32 = COUNT_MAX;
// Least and most, in seconds.
const READINESS_DEADLINE: [u32; 2] = [1, 3600];
const INITIAL_DELAY: [u32; 2] = [0, 600];
const INTERVAL: [u32; 2] = [1, 300];
const TIMEOUT: [u32; 2] = [1, 8];
const BAKE: [u32; 2] = [0, 3600];

/// What a revision must show before it takes, or keeps, traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthGate {
    /// Begins with `/`; asked of the revision's own host.
    pub path: String,
    /// Statuses that count as a success.
    pub expect_status: Vec<u16>,
    /// How long the platform may take to make the revision ready.
    pub readiness_deadline_seconds: u32,
    /// From the gate's start to the first sample.
    pub initial_delay_seconds: u32,
    /// From one sample to the next.
    pub interval_seconds: u32,
    /// How long one answer may take.
    pub timeout_seconds: u32,
    /// How long all of the traffic must go well before the revision that served is let go. That
    /// is the rollout's to watch: the gate itself does not wait for it.
    pub bake_seconds: u32,
    /// The most samples; nothing decided by then is inconclusive.
    pub count: u32,
    /// Failures that are allowed, in all.
    pub failure_limit: u32,
    /// Successes in a row that are asked for.
    pub consecutive_success: u32,
    /// Errors in a row that are allowed while it has not answered yet.
    pub consecutive_error_limit: u32,
    /// Samples that may tell nothing, in all.
    pub inconclusive_limit: u32,
    pub on_inconclusive: OnInconclusive,
}

/// What follows where the samples do not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnInconclusive {
    #[default]
    Fail,
    /// A person decides.
    Hold,
}

impl Default for HealthGate {
    fn default() -> Self {
        Self {
            path: "/health".to_owned(),
            expect_status: vec![200],
            readiness_deadline_seconds: 600,
            initial_delay_seconds: 10,
            interval_seconds: 15,
            timeout_seconds: 5,
            bake_seconds: 60,
            count: 20,
            failure_limit: 1,
            consecutive_success: 3,
            consecutive_error_limit: 4,
            inconclusive_limit: 2,
            on_inconclusive: OnInconclusive::Fail,
        }
    }
}

/// A member of a gate that is outside its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// As it is written in JSON.
    pub field: &'static str,
    pub value: String,
    /// What it must be.
    pub limits: String,
    pub advice: &'static str,
}

/// All that is wrong with a gate, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("; ")?;
            }
            write!(formatter, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, limits, advice } = self;
        write!(formatter, "`{field}` is {value} and must be {limits}: {advice}")
    }
}

impl HealthGate {
    /// The longest that a gate can take: to become ready, and then all its samples, each with the
    /// longest answer.
    pub fn longest(&self) -> Duration {
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        let samples = seconds(self.interval_seconds).saturating_add(seconds(self.timeout_seconds));
        let samples = samples.saturating_mul(self.count);
        seconds(self.readiness_deadline_seconds)
            .saturating_add(seconds(self.initial_delay_seconds))
            .saturating_add(samples)
    }

    /// # Errors
    /// Everything that is wrong with it, at least one.
    pub fn validate(&self) -> Result<(), Problems> {
        let mut problems = Vec::new();
        self.check_times(&mut problems);
        self.check_counts(&mut problems);
        self.check_question(&mut problems);
        if problems.is_empty() {
            self.check_can_pass(&mut problems);
        }
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }

    fn check_times(&self, problems: &mut Vec<Problem>) {
        let times = [
            (
                "readinessDeadlineSeconds",
                self.readiness_deadline_seconds,
                READINESS_DEADLINE,
                "give the platform time to pull the image and start a replica; 600 is usual",
            ),
            ("initialDelaySeconds", self.initial_delay_seconds, INITIAL_DELAY, "10 is usual"),
            ("intervalSeconds", self.interval_seconds, INTERVAL, "15 is usual"),
            (
                "timeoutSeconds",
                self.timeout_seconds,
                TIMEOUT,
                "5 is usual; a slower answer is no sign of health",
            ),
            ("bakeSeconds", self.bake_seconds, BAKE, "60 to 300 is usual"),
        ];
        for (field, value, [least, most], advice) in times {
            if value < least || value > most {
                problems.push(Problem {
                    field,
                    value: value.to_string(),
                    limits: format!("from {least} to {most} seconds"),
                    advice,
                });
            }
        }
    }

    fn check_counts(&self, problems: &mut Vec<Problem>) {
        let counts = [
            (
                "count",
                self.count,
                [1, COUNT_MAX],
                "20 is usual; lengthen `intervalSeconds` to watch for longer",
            ),
            ("failureLimit", self.failure_limit, [0, LIMIT_MAX], "1 is usual"),
            ("consecutiveSuccess", self.consecutive_success, [1, COUNT_MAX], "3 is usual"),
            ("consecutiveErrorLimit", self.consecutive_error_limit, [0, LIMIT_MAX], "4 is usual"),
            ("inconclusiveLimit", self.inconclusive_limit, [0, LIMIT_MAX], "2 is usual"),
        ];
        for (field, value, [least, most], advice) in counts {
            if value < least || value > most {
                let limits = format!("from {least} to {most}");
                problems.push(Problem { field, value: value.to_string(), limits, advice });
            }
        }
    }

    fn check_question(&self, problems: &mut Vec<Problem>) {
        let of_the_right_form = self.path.starts_with('/')
            && !self.path.starts_with("//")
            && self.path.len() <= PATH_BYTES_MAX
            && self.path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\');
        if !of_the_right_form {
            problems.push(Problem {
                field: "path",
                value: format!("`{}`", self.path.chars().take(100).collect::<String>().escape_debug()),
                limits: format!("a path of at most {PATH_BYTES_MAX} bytes that begins with one `/`"),
                advice: "name the path at which the workload tells its health, e.g. `/health`, without a host",
            });
        }
        let known = (1..=EXPECT_STATUS_MAX).contains(&self.expect_status.len())
            && self.expect_status.iter().all(|status| (200..=599).contains(status));
        if !known {
            problems.push(Problem {
                field: "expectStatus",
                value: format!(
                    "{:?}",
                    &self.expect_status[..self.expect_status.len().min(EXPECT_STATUS_MAX)]
                ),
                limits: format!("1 to {EXPECT_STATUS_MAX} HTTP statuses from 200 to 599"),
                advice: "[200] is usual",
            });
        }
    }

    /// A gate that no revision could pass is a mistake, not a strict gate.
    fn check_can_pass(&self, problems: &mut Vec<Problem>) {
        if self.consecutive_success > self.count {
            problems.push(Problem {
                field: "consecutiveSuccess",
                value: self.consecutive_success.to_string(),
                limits: format!("at most `count`, which is {}", self.count),
                advice: "with fewer samples than successes nothing can pass; raise `count`",
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(gate: &HealthGate) -> Vec<&'static str> {
        gate.validate()
            .err()
            .map(|problems| problems.0)
            .unwrap_or_default()
            .into_iter()
            .map(|problem| problem.field)
            .collect()
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let gate: HealthGate = serde_json::from_value(json!({})).unwrap();
        assert_eq!(gate, HealthGate::default());
        assert_eq!(gate.validate(), Ok(()));
        assert_eq!(
            serde_json::to_value(&gate).unwrap(),
            json!({
                "path": "/health",
                "expectStatus": [200],
                "readinessDeadlineSeconds": 600,
                "initialDelaySeconds": 10,
                "intervalSeconds": 15,
                "timeoutSeconds": 5,
                "bakeSeconds": 60,
                "count": 20,
                "failureLimit": 1,
                "consecutiveSuccess": 3,
                "consecutiveErrorLimit": 4,
                "inconclusiveLimit": 2,
                "onInconclusive": "Fail",
            })
        );
    }

    #[test]
    fn a_time_is_a_whole_number_of_seconds() {
        let read = |seconds: serde_json::Value| {
            serde_json::from_value::<HealthGate>(json!({ "intervalSeconds": seconds }))
        };
        assert_eq!(read(json!(2)).unwrap().interval_seconds, 2);
        for wrong in [json!(-1), json!(0.5), json!("15"), json!(null)] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_member_has_limits() {
        let usual = HealthGate::default;
        for (field, gate) in [
            ("readinessDeadlineSeconds", HealthGate { readiness_deadline_seconds: 0, ..usual() }),
            ("readinessDeadlineSeconds", HealthGate { readiness_deadline_seconds: 3601, ..usual() }),
            ("initialDelaySeconds", HealthGate { initial_delay_seconds: 601, ..usual() }),
            ("intervalSeconds", HealthGate { interval_seconds: 0, ..usual() }),
            ("intervalSeconds", HealthGate { interval_seconds: 301, ..usual() }),
            ("timeoutSeconds", HealthGate { timeout_seconds: 9, ..usual() }),
            ("bakeSeconds", HealthGate { bake_seconds: 3601, ..usual() }),
            ("count", HealthGate { count: 0, ..usual() }),
            ("count", HealthGate { count: 201, ..usual() }),
            ("failureLimit", HealthGate { failure_limit: 201, ..usual() }),
            ("consecutiveSuccess", HealthGate { consecutive_success: 0, ..usual() }),
            ("consecutiveSuccess", HealthGate { consecutive_success: 21, ..usual() }),
            ("consecutiveErrorLimit", HealthGate { consecutive_error_limit: 201, ..usual() }),
            ("inconclusiveLimit", HealthGate { inconclusive_limit: 201, ..usual() }),
            ("path", HealthGate { path: "health".into(), ..usual() }),
            ("path", HealthGate { path: "//other.host/x".into(), ..usual() }),
            ("path", HealthGate { path: "/a b".into(), ..usual() }),
            ("path", HealthGate { path: format!("/{}", "x".repeat(1024)), ..usual() }),
            ("expectStatus", HealthGate { expect_status: vec![], ..usual() }),
            ("expectStatus", HealthGate { expect_status: vec![200, 99], ..usual() }),
        ] {
            assert_eq!(fields(&gate), [field], "{gate:?}");
        }
    }

    #[test]
    fn a_problem_names_the_field_its_limits_and_what_to_do() {
        let gate = HealthGate { consecutive_success: 30, ..HealthGate::default() };
        assert_eq!(
            gate.validate().unwrap_err().to_string(),
            "`consecutiveSuccess` is 30 and must be at most `count`, which is 20: with fewer samples than \
             successes nothing can pass; raise `count`"
        );
        let gate = HealthGate { count: 0, timeout_seconds: 60, ..HealthGate::default() };
        assert_eq!(
            gate.validate().unwrap_err().to_string(),
            "`timeoutSeconds` is 60 and must be from 1 to 8 seconds: 5 is usual; a slower answer is no sign of \
             health; `count` is 0 and must be from 1 to 200: 20 is usual; lengthen `intervalSeconds` to watch for \
             longer"
        );
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let gate = HealthGate { count: 0, path: String::new(), timeout_seconds: 0, ..HealthGate::default() };
        assert_eq!(fields(&gate), ["timeoutSeconds", "count", "path"]);
    }
}
