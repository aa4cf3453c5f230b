//! Measurements as a test sets them; replicas as they run in [`FakeCompute`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use runtime_platform::{
    outcome::Fault,
    ports::{
        clock::Clock,
        metrics::{Measured, Metrics, Reading},
    },
};

use super::compute::FakeCompute;
use crate::support::{faulty::Trouble, fixed_clock::FixedClock};

/// Metrics in memory. Clones are the same.
#[derive(Clone)]
pub struct FakeMetrics {
    clock: FixedClock,
    compute: FakeCompute,
    trouble: Trouble,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    readings: BTreeMap<String, Reading>,
    queues: BTreeMap<String, u64>,
    away: bool,
    calls: usize,
}

impl FakeMetrics {
    pub fn new(clock: FixedClock, compute: FakeCompute, trouble: Trouble) -> Self {
        Self { clock, compute, trouble, state: Arc::default() }
    }

    /// What a workload is measured at from now on; its replicas are those that run, where the reading
    /// does not tell them.
    pub fn set(&self, workload: &str, reading: Reading) {
        self.state().readings.insert(workload.to_owned(), reading);
    }

    /// How many messages wait in a queue from now on.
    pub fn queue(&self, id: &str, depth: u64) {
        self.state().queues.insert(id.to_owned(), depth);
    }

    /// Whether nothing can be read.
    pub fn away(&self, away: bool) {
        self.state().away = away;
    }

    /// How many times workloads were read.
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn reading(&self, measured: &Measured) -> Reading {
        let mut reading = self.state().readings.get(&measured.workload.name).cloned().unwrap_or_default();
        let world = self.compute.world();
        let revision =
            world.get(&measured.workload.name).and_then(|there| there.revisions.get(&measured.revision));
        let counted = revision.map(|revision| (revision.replicas, self.clock.now()));
        reading.replicas = reading.replicas.or(counted);
        reading
    }

    fn present(&self) -> Result<(), Fault> {
        match self.state().away {
            true => Err(Fault::transient("reading metrics", "503: not available")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Metrics for FakeMetrics {
    async fn read(&self, workloads: &[Measured]) -> Result<Vec<Reading>, Fault> {
        let act = async {
            self.present()?;
            self.state().calls += 1;
            Ok(workloads.iter().map(|measured| self.reading(measured)).collect())
        };
        self.trouble.around("metrics.read", act, |why| Fault::transient("reading metrics", why)).await
    }

    async fn queue_depth(&self, queue: &str) -> Result<Option<u64>, Fault> {
        let act = async {
            self.present()?;
            Ok(self.state().queues.get(queue).copied())
        };
        self.trouble.around("metrics.queue_depth", act, |why| Fault::transient("reading a queue", why)).await
    }
}
