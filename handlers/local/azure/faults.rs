//! Faults on request: the next calls that match fare badly, so that callers can be seen to cope.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::refusals::ArmError;

/// Faults that may wait at a time.
const FAULTS_MAX: usize = 100;

/// Which calls fare badly. What is not named is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Matching {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A part of the path, whatever its case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_contains: Option<String>,
}

/// Whether the call is acted on nonetheless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum When {
    /// The call is not acted on, or later.
    #[default]
    Before,
    /// The call is acted on, and its answer is lost.
    After,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Kind {
    /// Too many requests; seconds in `Retry-After`.
    #[serde(rename = "429")]
    TooMany { retry_after: u32 },
    #[serde(rename = "409")]
    Conflict,
    #[serde(rename = "500")]
    Internal,
    /// The connection is dropped without an answer.
    Drop,
    /// The answer takes this much longer.
    Slow { ms: u64 },
    /// The process is killed, as by `kill -9`; the call itself goes on.
    Kill { pid: i32 },
    /// The operation that the call begins ends as failed.
    OperationFails { code: String, message: String },
}

/// A fault that waits for its calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    #[serde(default, rename = "match")]
    pub matching: Matching,
    /// How many calls it meets.
    #[serde(default = "once")]
    pub times: u32,
    /// How many calls that match it lets pass first.
    #[serde(default)]
    pub skip: u32,
    #[serde(default)]
    pub when: When,
    #[serde(rename = "fault")]
    pub kind: Kind,
}

fn once() -> u32 {
    1
}

/// The faults that wait.
#[derive(Default)]
pub(super) struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    fn waiting(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.0.lock().expect("nobody panics while holding the faults")
    }

    /// # Errors
    /// When a fault cannot be dealt, or too many wait.
    pub(super) fn add(&self, faults: Vec<Fault>) -> Result<(), ArmError> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        for fault in &faults {
            if matches!(fault.kind, Kind::Kill { pid } if pid <= 1 || pid == own) {
                return Err(ArmError::bad_request(
                    "InvalidFault",
                    "`pid` must be another process's, and above 1.",
                ));
            }
        }
        let mut waiting = self.waiting();
        if waiting.len() + faults.len() > FAULTS_MAX {
            return Err(ArmError::bad_request(
                "TooManyFaults",
                format!("At most {FAULTS_MAX} faults can wait."),
            ));
        }
        waiting.extend(faults);
        Ok(())
    }

    pub(super) fn list(&self) -> Vec<Fault> {
        self.waiting().clone()
    }

    pub(super) fn clear(&self) {
        self.waiting().clear();
    }

    /// Takes the fault that is for this call, if one is.
    pub(super) fn take(&self, method: &Method, path: &str) -> Option<(When, Kind)> {
        let path = path.to_ascii_lowercase();
        let mut waiting = self.waiting();
        let matches = |fault: &Fault| {
            let Matching { method: wanted, path_contains } = &fault.matching;
            wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method.as_str()))
                && path_contains.as_ref().is_none_or(|part| path.contains(&part.to_ascii_lowercase()))
        };
        let at = waiting.iter().position(matches)?;
        let fault = &mut waiting[at];
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        let taken = (fault.when, fault.kind.clone());
        fault.times = fault.times.saturating_sub(1);
        if fault.times == 0 {
            waiting.remove(at);
        }
        Some(taken)
    }
}

impl Kind {
    /// Deals the fault. What it answers, if anything, is answered in place of the call.
    pub(super) async fn deal(&self) -> Option<Response> {
        match self {
            Self::TooMany { retry_after } => {
                let message = "The request is being throttled, as a fault asked for: come again later.";
                let mut error = ArmError::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
                error.retry_after_seconds = Some(*retry_after);
                Some(error.into_response())
            }
            Self::Conflict => {
                let message = "Another operation is in progress, as a fault asked for: try again.";
                Some(ArmError::conflict("AnotherOperationInProgress", message).into_response())
            }
            Self::Internal => Some(ArmError::internal("A fault asked for this.").into_response()),
            Self::Drop => Some(dropped()),
            Self::Slow { ms } => {
                tokio::time::sleep(Duration::from_millis(*ms)).await;
                None
            }
            Self::Kill { pid } => {
                if let Some(pid) = Pid::from_raw(*pid) {
                    // A process that is gone already is as dead as it was to be.
                    let _ = kill_process(pid, Signal::KILL);
                }
                None
            }
            Self::OperationFails { .. } => None,
        }
    }
}

/// An answer whose body breaks before anything is sent: the server then closes the connection.
fn dropped() -> Response {
    let broken = futures::stream::once(async {
        Err::<Bytes, _>(std::io::Error::other("dropped, as a fault asked for"))
    });
    Response::new(Body::from_stream(broken))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fault_meets_the_calls_that_match_as_often_as_it_says() {
        let faults = Faults::default();
        let given = json!([{ "match": { "method": "PUT", "pathContains": "containerapps" }, "times": 2, "skip": 1,
            "fault": { "kind": "429", "retryAfter": 3 } }]);
        faults.add(serde_json::from_value(given).unwrap()).unwrap();
        let take = |method: Method| faults.take(&method, "/x/containerApps/y");
        let fault = Some((When::Before, Kind::TooMany { retry_after: 3 }));
        assert_eq!(take(Method::GET), None);
        assert_eq!(
            [take(Method::PUT), take(Method::PUT), take(Method::PUT), take(Method::PUT)],
            [None, fault.clone(), fault, None]
        );
        assert_eq!(faults.list(), []);
    }

    #[test]
    fn faults_never_kill_us_or_groups() {
        let faults = Faults::default();
        let own = i32::try_from(std::process::id()).unwrap();
        for pid in [0, 1, -7, own] {
            let fault = Fault {
                matching: Matching::default(),
                times: 1,
                skip: 0,
                when: When::Before,
                kind: Kind::Kill { pid },
            };
            assert_eq!(faults.add(vec![fault]).unwrap_err().code, "InvalidFault", "{pid}");
        }
    }
}
