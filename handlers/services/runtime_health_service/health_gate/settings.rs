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
const READINESS_DEADLINE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3600)];
const INITIAL_DELAY: [Duration; 2] = [Duration::ZERO, Duration::from_secs(600)];
const INTERVAL: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(300)];
/// A step of an operation may take 6 seconds, and looks at the platform too.
const TIMEOUT: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
const BAKE: [Duration; 2] = [Duration::ZERO, Duration::from_secs(3600)];

/// What a revision must show before it takes, or keeps, traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthGate {
    /// Begins with `/`; asked of the revision's own host.
    pub path: String,
    /// Statuses that count as a success.
    pub expect_status: Vec<u16>,
    /// How long the platform may take to make the revision ready.
    #[serde(rename = "readinessDeadlineSeconds", with = "seconds")]
    pub readiness_deadline: Duration,
    /// From the gate's start to the first sample.
    #[serde(rename = "initialDelaySeconds", with = "seconds")]
    pub initial_delay: Duration,
    /// From one sample to the next.
    #[serde(rename = "intervalSeconds", with = "seconds")]
    pub interval: Duration,
    /// How long one answer may take.
    #[serde(rename = "timeoutSeconds", with = "seconds")]
    pub timeout: Duration,
    /// How long successes must go on, from the first of them in a row to the last.
    #[serde(rename = "bakeSeconds", with = "seconds")]
    pub bake: Duration,
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
            readiness_deadline: Duration::from_secs(600),
            initial_delay: Duration::from_secs(10),
            interval: Duration::from_secs(15),
            timeout: Duration::from_secs(5),
            bake: Duration::from_secs(60),
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

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, limits, advice } = self;
        write!(formatter, "`healthGate.{field}` is {value} and must be {limits}: {advice}")
    }
}

impl HealthGate {
    /// The longest that a gate can take: to become ready, and then all its samples, each with the
    /// longest answer.
    pub fn longest(&self) -> Duration {
        let samples = (self.interval + self.timeout).saturating_mul(self.count);
        self.readiness_deadline.saturating_add(self.initial_delay).saturating_add(samples)
    }

    /// # Errors
    /// Everything that is wrong with it, at least one.
    pub fn validate(&self) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        self.check_times(&mut problems);
        self.check_counts(&mut problems);
        self.check_question(&mut problems);
        if problems.is_empty() {
            self.check_can_pass(&mut problems);
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn check_times(&self, problems: &mut Vec<Problem>) {
        let times = [
            (
                "readinessDeadlineSeconds",
                self.readiness_deadline,
                READINESS_DEADLINE,
                "give the platform time to pull the image and start a replica; 600 is usual",
            ),
            ("initialDelaySeconds", self.initial_delay, INITIAL_DELAY, "10 is usual"),
            ("intervalSeconds", self.interval, INTERVAL, "15 is usual"),
            ("timeoutSeconds", self.timeout, TIMEOUT, "5 is usual; a slower answer is no sign of health"),
            ("bakeSeconds", self.bake, BAKE, "60 to 300 is usual"),
        ];
        for (field, value, [least, most], advice) in times {
            if value < least || value > most {
                problems.push(Problem {
                    field,
                    value: value.as_secs_f64().to_string(),
                    limits: format!("from {} to {} seconds", least.as_secs_f64(), most.as_secs_f64()),
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
        let longest_bake = self.interval.saturating_mul(self.count - 1);
        if self.bake > longest_bake {
            problems.push(Problem {
                field: "bakeSeconds",
                value: self.bake.as_secs_f64().to_string(),
                limits: format!(
                    "at most `intervalSeconds` times `count` less one, which is {} seconds",
                    longest_bake.as_secs_f64()
                ),
                advice: "the samples end before the bake does; raise `count` or `intervalSeconds`",
            });
        }
    }
}

/// Times as numbers of seconds, whole where they are.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        if time.subsec_nanos() == 0 {
            serializer.serialize_u64(time.as_secs())
        } else {
            serializer.serialize_f64(time.as_secs_f64())
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds)
            .map_err(|_| D::Error::custom("it must be a number of seconds, 0 or more"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(gate: &HealthGate) -> Vec<&'static str> {
        gate.validate().err().unwrap_or_default().into_iter().map(|problem| problem.field).collect()
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
    fn a_time_may_be_part_of_a_second_and_never_less_than_none() {
        let read = |seconds: serde_json::Value| {
            serde_json::from_value::<HealthGate>(json!({ "intervalSeconds": seconds }))
        };
        let gate = read(json!(0.25)).unwrap();
        assert_eq!(gate.interval, Duration::from_millis(250));
        assert_eq!(serde_json::to_value(&gate).unwrap()["intervalSeconds"], json!(0.25));
        assert!(read(json!(-1)).unwrap_err().to_string().contains("it must be a number of seconds"));
        assert!(read(json!("15")).is_err());
    }

    #[test]
    fn each_member_has_limits() {
        let usual = HealthGate::default;
        let seconds = Duration::from_secs;
        for (field, gate) in [
            ("readinessDeadlineSeconds", HealthGate { readiness_deadline: seconds(0), ..usual() }),
            ("readinessDeadlineSeconds", HealthGate { readiness_deadline: seconds(3601), ..usual() }),
            ("initialDelaySeconds", HealthGate { initial_delay: seconds(601), ..usual() }),
            ("intervalSeconds", HealthGate { interval: Duration::ZERO, ..usual() }),
            ("intervalSeconds", HealthGate { interval: seconds(301), ..usual() }),
            ("timeoutSeconds", HealthGate { timeout: seconds(9), ..usual() }),
            ("bakeSeconds", HealthGate { bake: seconds(3601), ..usual() }),
            ("bakeSeconds", HealthGate { bake: seconds(286), ..usual() }),
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
        let gate = HealthGate { bake: Duration::from_secs(300), ..HealthGate::default() };
        let [problem] = &gate.validate().unwrap_err()[..] else { panic!("one problem") };
        assert_eq!(
            problem.to_string(),
            "`healthGate.bakeSeconds` is 300 and must be at most `intervalSeconds` times `count` less one, which \
             is 285 seconds: the samples end before the bake does; raise `count` or `intervalSeconds`"
        );
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let gate =
            HealthGate { count: 0, path: String::new(), timeout: Duration::ZERO, ..HealthGate::default() };
        assert_eq!(fields(&gate), ["timeoutSeconds", "count", "path"]);
    }
}
