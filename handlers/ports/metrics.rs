//! What running workloads are measured at. What it promises: workloads are read in batches; what is
//! not measured is absent and never nought; nothing here changes anything.

use async_trait::async_trait;
use jiff::Timestamp;

use super::compute::WorkloadRef;
use crate::outcome::Fault;

/// A workload whose measurements are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    pub workload: WorkloadRef,
    /// The name of the revision that serves; what others of the workload are measured at is left out.
    pub revision: String,
}

/// What a revision was measured at: of each measure the newest minute that has one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Replicas that there were, at most, and the start of the minute in which they were counted.
    pub replicas: Option<(u32, Timestamp)>,
    /// Percent of the processors that its replicas asked for, on average.
    pub cpu_percent: Option<f64>,
    /// Percent of the memory that its replicas asked for, on average.
    pub memory_percent: Option<f64>,
    /// Requests in a whole minute.
    pub requests: Option<f64>,
}

#[async_trait]
pub trait Metrics: Send + Sync {
    /// Readings in the order of the workloads; nothing is measured of one that is not there.
    async fn read(&self, workloads: &[Measured]) -> Result<Vec<Reading>, Fault>;

    /// Messages that wait in a queue of Service Bus, which is named by its id at Resource Manager; none
    /// where there is no such queue.
    async fn queue_depth(&self, queue: &str) -> Result<Option<u64>, Fault>;
}
