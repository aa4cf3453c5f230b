//! HealthCheckResult, as it is stored: the latest of each workload, with its last transitions. An
//! observation overwrites the one before it, so that a year of looks takes no more room than one.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    events::{CheckKind, HealthStatus},
    ids::{DeploymentId, EnvironmentId, ModuleId, ServiceId, TenantId},
    ledger::State,
};

/// How long transitions are told of.
const TRANSITIONS_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Transitions that are kept of one workload; the oldest go.
const TRANSITIONS_MAX: usize = 50;
/// How long the result of a workload is kept that is looked at no more.
const KEPT_SECONDS: u32 = 30 * 24 * 60 * 60;

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
    /// The word of the event; none for what is not told.
    pub fn told(self) -> Option<HealthStatus> {
        match self {
            Self::Unknown => None,
            Self::Healthy => Some(HealthStatus::Healthy),
            Self::Degraded => Some(HealthStatus::Degraded),
            Self::Unhealthy => Some(HealthStatus::Unhealthy),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Healthy => "Healthy",
            Self::Degraded => "Degraded",
            Self::Unhealthy => "Unhealthy",
        }
    }
}

/// One question about a workload and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    pub kind: CheckKind,
    pub name: String,
    pub status: HealthStatus,
    /// What was found, for a person.
    pub message: String,
}

/// A change from one state to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    pub at: Timestamp,
    pub from: Health,
    pub to: Health,
    pub why: String,
}

/// What the looks at a workload came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheckResult {
    pub health_check_id: String,
    pub tenant_id: TenantId,
    pub environment_id: EnvironmentId,
    pub service_id: ServiceId,
    pub module_id: ModuleId,
    /// What served as it was looked at.
    pub deployment_id: DeploymentId,
    pub status: Health,
    pub previous_status: Option<Health>,
    pub checks: Vec<Check>,
    /// The window of the last look that is recorded.
    pub window_start: Timestamp,
    pub evaluated_at: Timestamp,
    pub consecutive_failures: u32,
    pub consecutive_weak: u32,
    pub consecutive_passes: u32,
    pub transitions: Vec<Transition>,
    /// When the last event told of it.
    pub told_at: Option<Timestamp>,
    /// Counts the events.
    pub sequence: u64,
    /// The revision's own host, as it was last seen.
    pub host: Option<String>,
    /// Replicas that were there and ready, as they were last counted.
    pub replicas: u32,
    pub ready_replicas: u32,
    /// When they were counted.
    pub observed_at: Option<Timestamp>,
}

impl State for HealthCheckResult {
    const KIND: &'static str = "health";

    fn made_at(&self) -> Timestamp {
        self.evaluated_at
    }

    fn ttl_seconds(&self) -> Option<u32> {
        Some(KEPT_SECONDS)
    }
}

impl HealthCheckResult {
    /// Where the result of a workload is kept.
    pub fn id(service: &ServiceId) -> String {
        format!("health-{service}")
    }

    /// Remembers a transition, and forgets those that are too old or too many.
    pub fn remember(&mut self, transition: Transition) {
        let now = transition.at;
        self.transitions.push(transition);
        self.transitions.retain(|known| now.duration_since(known.at) <= TRANSITIONS_KEPT);
        let excess = self.transitions.len().saturating_sub(TRANSITIONS_MAX);
        self.transitions.drain(..excess);
    }
}
