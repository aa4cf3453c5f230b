//! ScalingPolicy, as it is stored.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{compile::Bounds, evaluate::Recommendation, schedule::Schedule};
use crate::{
    events::{Event, ScalingDirection},
    ids::{self, DeploymentId, EnvironmentId, EventId, ModuleId, OperationId, ServiceId},
    ledger::{Lineage, NewEvent, State},
    ports::{compute::ScalingEntry, store::Partition},
};

/// How long a policy is kept that is looked at no more, and how long its history is.
const KEPT_SECONDS: u32 = 365 * 24 * 60 * 60;
/// Changes that a policy remembers; the oldest go.
const HISTORY_MAX: usize = 100;

/// By what a workload is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScalingKind {
    /// Percent of the processors that its replicas ask for.
    Cpu,
    /// Percent of the memory that its replicas ask for.
    Memory,
    /// Waiting messages for each replica.
    QueueDepth,
    /// Requests at a time for each replica.
    RequestRate,
    /// The clock.
    Schedule,
    /// Nothing: so many replicas always.
    Fixed,
}

impl ScalingKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "Cpu",
            Self::Memory => "Memory",
            Self::QueueDepth => "QueueDepth",
            Self::RequestRate => "RequestRate",
            Self::Schedule => "Schedule",
            Self::Fixed => "Fixed",
        }
    }
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingSpec {
    pub kind: ScalingKind,
    pub min_replicas: u32,
    pub max_replicas: u32,
    /// Percent, messages or requests for each replica, as the kind has it.
    pub target: Option<u32>,
    /// The queue's id at Resource Manager, for `QueueDepth`.
    pub queue: Option<String>,
    pub schedule: Option<Schedule>,
    /// Between two changes of what is wanted; what the platform is used to, where it says nothing.
    pub cooldown_seconds: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyStatus {
    /// The workload is being rolled out with it.
    Applying,
    Active,
    /// The first rollout with it did not pass, and nothing is scaled by it.
    Failed,
}

/// What a policy wants of a revision, and what it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    pub spec: ScalingSpec,
    pub entry: ScalingEntry,
}

/// A change that is being rolled out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moving {
    pub operation_id: OperationId,
    /// Whether somebody sent ApplyScalingPolicy and waits for an answer; else the worker moves.
    pub by_command: bool,
    pub from_replicas: u32,
    pub to_replicas: u32,
    pub direction: ScalingDirection,
    pub reason: String,
    /// What counts again where the rollout does not pass.
    pub back: Option<Wanted>,
    /// What serves as it begins.
    pub over: DeploymentId,
    pub asked_at: Timestamp,
    /// Times that the refresh was asked for again.
    pub nudges: u32,
}

/// A move that did not pass, so that it is not tried for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    /// In a row, over the same deployment.
    pub count: u32,
    pub over: DeploymentId,
    pub at: Timestamp,
    pub reason: String,
}

/// Something that was scaled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scaled {
    pub at: Timestamp,
    pub from_replicas: u32,
    pub to_replicas: u32,
    pub direction: ScalingDirection,
    pub min_replicas: u32,
    pub max_replicas: u32,
    pub reason: String,
    pub event_id: EventId,
}

/// How one workload is scaled: each has one policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingPolicy {
    pub scaling_policy_id: String,
    pub environment_id: EnvironmentId,
    pub service_id: ServiceId,
    pub module_id: ModuleId,
    pub status: PolicyStatus,
    /// Why it stands where it stands, for a person.
    pub reason: Option<String>,
    pub wanted: Wanted,
    /// Counts everything that was ever wanted; a number is never used twice.
    pub generations: u64,
    pub moving: Option<Moving>,
    pub failures: Option<Failures>,
    /// Replicas as the platform wants them by itself, where the target has no rule for it.
    pub desired_replicas: Option<u32>,
    /// Replicas as they were last counted.
    pub observed_replicas: Option<u32>,
    pub last_scaled_at: Option<Timestamp>,
    /// What was recommended in the last minutes.
    pub recommendations: Vec<Recommendation>,
    /// What the last evaluation came to, for a person.
    pub said: Option<String>,
    /// The window of the last evaluation: one that comes again changes nothing.
    pub evaluated_window: Option<Timestamp>,
    /// Oldest first.
    pub history: Vec<Scaled>,
    pub operation_id: OperationId,
    /// Counts its events.
    pub sequence: u64,
    pub made_at: Timestamp,
}

impl State for ScalingPolicy {
    const KIND: &'static str = "scaling-policy";

    fn made_at(&self) -> Timestamp {
        self.made_at
    }

    fn ttl_seconds(&self) -> Option<u32> {
        Some(KEPT_SECONDS)
    }
}

impl ScalingPolicy {
    /// Where a workload's policy is kept.
    pub fn document(module: &ModuleId) -> String {
        format!("scaling-policy-{}", ids::derive(&["scaling-policy", module.as_str()]).simple())
    }

    /// The id that people know a policy by.
    pub fn id(partition: &Partition, module: &ModuleId) -> String {
        let name = ["scaling-policy", &partition.tenant_id, &partition.environment_id, module.as_str()];
        format!("sp-{}", &ids::derive(&name).simple().to_string()[..8])
    }

    pub fn bounds(&self) -> Bounds {
        Bounds { min: self.wanted.entry.min_replicas, max: self.wanted.entry.max_replicas }
    }

    /// The next event of the policy.
    pub fn next_event(&mut self, id: EventId, event: Event, caused_by: &str) -> NewEvent {
        self.sequence += 1;
        NewEvent {
            id,
            event,
            aggregate: self.scaling_policy_id.clone(),
            sequence: self.sequence,
            caused_by: caused_by.to_owned(),
        }
    }

    /// The lineage of what it brings about: that of what caused it, for this workload.
    pub fn lineage(&self, of: &Lineage) -> Lineage {
        Lineage { module_id: Some(self.module_id.clone()), ..of.clone() }
    }

    /// Remembers what was scaled, and forgets what is too old or too much.
    pub fn remember(&mut self, scaled: Scaled) {
        let kept = SignedDuration::from_secs(i64::from(KEPT_SECONDS));
        let now = scaled.at;
        self.history.push(scaled);
        self.history.retain(|known| now.duration_since(known.at) <= kept);
        let excess = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..excess);
    }
}
