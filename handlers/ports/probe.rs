//! Asking a workload over HTTP how it is.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One question to a revision's own host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Host, and port where it is not 443, as the platform named it.
    pub host: String,
    /// Begins with `/`.
    pub path: String,
    pub timeout: Duration,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    pub at: Timestamp,
    pub latency_ms: u64,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Answer {
    /// It answered; `retry_after` says that it asked to be left alone for a while.
    Status { status: u16, retry_after: bool },
    /// Nobody answered: refused, reset, no name, no TLS.
    Unreachable { reason: String },
    /// Nobody answered in time.
    TimedOut,
    /// The target is one that we do not ask: a metadata address, a host that is not the app's own.
    Forbidden { reason: String },
}

#[async_trait]
pub trait Probe: Send + Sync {
    /// Never fails: not to be reached is an answer too. Redirects are not followed.
    async fn probe(&self, target: &ProbeTarget) -> Sample;
}
