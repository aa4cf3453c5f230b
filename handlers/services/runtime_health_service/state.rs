//! HealthCheckResult, as it is stored.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ids::ModuleId, ledger::State};

/// How well a workload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// It was not looked at often enough to tell, or the looks are not to be trusted.
    #[default]
    Unknown,
    Healthy,
    Degraded,
    Unhealthy,
}

impl Health {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Healthy => "Healthy",
            Self::Degraded => "Degraded",
            Self::Unhealthy => "Unhealthy",
        }
    }
}

/// What the looks at a workload came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheckResult {
    pub module_id: ModuleId,
    pub status: Health,
    pub evaluated_at: Timestamp,
}

impl State for HealthCheckResult {
    const KIND: &'static str = "health";

    fn made_at(&self) -> Timestamp {
        self.evaluated_at
    }
}
