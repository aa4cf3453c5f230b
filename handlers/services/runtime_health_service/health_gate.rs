//! temp
use std::time::Duration;
use serde::{Deserialize,Serialize};
use jiff::Timestamp;
use crate::ports::{compute::Revision, probe::Sample};
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
pub struct HealthGate { pub path: String, pub initial_delay_seconds: u32, pub readiness_deadline_seconds: u32, pub timeout_seconds: u32, pub interval_seconds: u32, pub failure_limit: u32, pub bake_seconds: u32 }
impl HealthGate { pub fn validate(&self) -> Result<(), String> { Ok(()) } }
pub struct Readiness; impl Readiness { pub fn of(_: Option<&Revision>) -> Self { Self } }
pub enum Verdict { Running { next_in: Duration }, Passed, Failed { reason: String }, Inconclusive { reason: String }, TimedOut }
pub fn judge(_: &HealthGate, _: Timestamp, _: Timestamp, _: &Readiness, _: &[Sample]) -> Verdict { Verdict::Passed }
pub fn is_success(_: &HealthGate, _: &Sample) -> bool { true }
