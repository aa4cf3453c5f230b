//! Compute and infrastructure that answer some calls as Azure does on a bad day.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use runtime_platform::{
    outcome::Fault,
    ports::{
        compute::{Compute, ComputeTarget, Observed, RevisionSpec, Step, WorkloadRef},
        infrastructure::{Advance, Infrastructure, PlannedChange, Progress, Removal, Removing, Resource},
        registry::{ImageReference, Registry},
    },
};
use serde_json::Value;

/// A bad answer, as the adapters translate it.
#[derive(Clone, Copy, Debug)]
pub enum Bad {
    /// 429 with Retry-After, in seconds.
    TooManyRequests(u64),
    /// 409: another change is under way.
    Busy,
    /// 500.
    ServerError,
    /// 400 and the like: it will never do it.
    Never,
}

impl Bad {
    fn fault(self, doing: &str) -> Fault {
        let transient = |retry_after, what: &str| Fault::Transient {
            doing: doing.to_owned(),
            retry_after,
            source: what.to_owned().into(),
        };
        match self {
            Self::TooManyRequests(seconds) => {
                transient(Some(Duration::from_secs(seconds)), "429: too many requests")
            }
            Self::Busy => transient(Some(Duration::from_secs(5)), "409: another change is under way"),
            Self::ServerError => transient(None, "500: internal server error"),
            Self::Never => Fault::Rejected {
                doing: doing.into(),
                code: "QuotaExceeded".into(),
                detail: "no cores are left".into(),
            },
        }
    }
}

/// Bad answers by the name of the call, e.g. `stage`; each is given once.
#[derive(Clone, Default)]
pub struct Script(Arc<Mutex<BTreeMap<&'static str, VecDeque<Bad>>>>);

impl Script {
    pub fn answer(&self, call: &'static str, bad: impl IntoIterator<Item = Bad>) {
        self.0.lock().unwrap().entry(call).or_default().extend(bad);
    }

    /// Bad answers that were not asked for yet.
    pub fn left(&self) -> usize {
        self.0.lock().unwrap().values().map(VecDeque::len).sum()
    }

    fn meets(&self, call: &'static str) -> Result<(), Fault> {
        let bad = self.0.lock().unwrap().get_mut(call).and_then(VecDeque::pop_front);
        bad.map_or(Ok(()), |bad| Err(bad.fault(call)))
    }
}

/// A port behind a script.
#[derive(Clone)]
pub struct Refusing<P> {
    pub inner: P,
    pub script: Script,
}

#[async_trait]
impl<P: Compute> Compute for Refusing<P> {
    async fn observe(&self, workload: &WorkloadRef) -> Result<Option<Observed>, Fault> {
        self.script.meets("observe")?;
        self.inner.observe(workload).await
    }

    async fn list(&self, target: &ComputeTarget) -> Result<Vec<(String, Observed)>, Fault> {
        self.script.meets("list")?;
        self.inner.list(target).await
    }

    async fn stage(&self, workload: &WorkloadRef, revision: &RevisionSpec) -> Result<Step, Fault> {
        self.script.meets("stage")?;
        self.inner.stage(workload, revision).await
    }

    async fn resume(&self, token: &Value) -> Result<Step, Fault> {
        self.script.meets("resume")?;
        self.inner.resume(token).await
    }

    async fn shift(&self, workload: &WorkloadRef, weights: &BTreeMap<String, u32>) -> Result<Step, Fault> {
        self.script.meets("shift")?;
        self.inner.shift(workload, weights).await
    }

    async fn activate(&self, workload: &WorkloadRef, revision: &str) -> Result<(), Fault> {
        self.script.meets("activate")?;
        self.inner.activate(workload, revision).await
    }

    async fn deactivate(&self, workload: &WorkloadRef, revision: &str) -> Result<(), Fault> {
        self.script.meets("deactivate")?;
        self.inner.deactivate(workload, revision).await
    }

    async fn remove(&self, workload: &WorkloadRef) -> Result<Step, Fault> {
        self.script.meets("remove")?;
        self.inner.remove(workload).await
    }

    fn revision_name(&self, workload: &WorkloadRef, suffix: &str) -> String {
        self.inner.revision_name(workload, suffix)
    }
}

#[async_trait]
impl<P: Infrastructure> Infrastructure for Refusing<P> {
    async fn plan(&self, desired: &[Resource]) -> Result<Vec<PlannedChange>, Fault> {
        self.script.meets("plan")?;
        self.inner.plan(desired).await
    }

    async fn advance(
        &self,
        desired: &[Resource],
        plan: &[PlannedChange],
        progress: Progress,
    ) -> Result<Advance, Fault> {
        self.script.meets("advance")?;
        self.inner.advance(desired, plan, progress).await
    }

    async fn remove(&self, desired: &[Resource], removal: Removal) -> Result<Removing, Fault> {
        self.script.meets("removeResources")?;
        self.inner.remove(desired, removal).await
    }
}

#[async_trait]
impl<P: Registry> Registry for Refusing<P> {
    async fn resolve(&self, image: &ImageReference) -> Result<String, Fault> {
        self.script.meets("resolve")?;
        self.inner.resolve(image).await
    }
}
