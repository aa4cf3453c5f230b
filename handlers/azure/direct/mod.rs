//! The `direct` infrastructure engine: reads each resource from Resource Manager, compares the
//! properties that we own, and writes what differs by PUT, in order of dependency.
//!
//! It keeps nothing between calls. What is in flight is in [`Progress`], which the caller stores; what
//! is in place is in Azure. A step that died after its PUT is taken again, finds the resource as it
//! should be, and writes nothing.
//!
//! Removing goes the other way round (`remove.rs`), by DELETE.
//!
//! Deliberately absent: replacing what cannot be changed in place.

mod apply;
mod compare;
mod order;
mod plan;
mod references;
mod remove;
#[cfg(all(test, feature = "local"))]
mod stand_in;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::resource_manager::{LongRunning, Reply, ResourceManager};
use crate::{
    outcome::Fault,
    ports::{
        clock::Clock,
        infrastructure::{Advance, Infrastructure, PlannedChange, Progress, Removal, Removing, Resource},
    },
};

pub use apply::waiting;

/// Resources that are read at once.
pub const READS_AT_ONCE_MAX: usize = 8;
/// Resources that are on their way at once, where nothing else is said.
pub const WRITES_AT_ONCE: usize = 4;
/// The most resources of one list.
pub const RESOURCES_MAX: usize = 200;

/// What the engine needs of Resource Manager.
#[async_trait]
pub trait Arm: Send + Sync {
    /// The resource as it is; none where there is none.
    async fn get(&self, id: &str, api_version: &str) -> Result<Option<Value>, Fault>;

    /// Writes a resource; does not wait for what Azure does in its own time.
    async fn put(&self, id: &str, api_version: &str, body: &Value) -> Result<Reply, Fault>;

    /// Deletes a resource, and does not wait either; nothing there is done.
    async fn delete(&self, id: &str, api_version: &str) -> Result<Reply, Fault>;

    /// What a collection has.
    async fn list(&self, path: &str, api_version: &str) -> Result<Vec<Value>, Fault>;

    /// Looks once at a write that was not finished.
    async fn look(&self, operation: &LongRunning) -> Result<Reply, Fault>;
}

#[async_trait]
impl Arm for ResourceManager {
    async fn get(&self, id: &str, api_version: &str) -> Result<Option<Value>, Fault> {
        Self::get(self, id, api_version).await
    }

    async fn put(&self, id: &str, api_version: &str, body: &Value) -> Result<Reply, Fault> {
        Self::put(self, id, api_version, body).await
    }

    async fn delete(&self, id: &str, api_version: &str) -> Result<Reply, Fault> {
        Self::delete(self, id, api_version).await
    }

    async fn list(&self, path: &str, api_version: &str) -> Result<Vec<Value>, Fault> {
        Self::list(self, path, api_version).await
    }

    async fn look(&self, operation: &LongRunning) -> Result<Reply, Fault> {
        Self::look(self, operation).await
    }
}

/// The engine.
#[derive(Clone)]
pub struct Direct {
    arm: Arc<dyn Arm>,
    clock: Arc<dyn Clock>,
    parallel: usize,
}

impl Direct {
    pub fn new(arm: Arc<dyn Arm>, clock: Arc<dyn Clock>) -> Self {
        Self { arm, clock, parallel: WRITES_AT_ONCE }
    }

    /// With at most `parallel` resources on their way at once, and at least one.
    #[must_use]
    pub fn with_parallel(self, parallel: usize) -> Self {
        Self { parallel: parallel.max(1), ..self }
    }
}

#[async_trait]
impl Infrastructure for Direct {
    async fn plan(&self, desired: &[Resource]) -> Result<Vec<PlannedChange>, Fault> {
        plan::plan(self.arm.as_ref(), desired).await
    }

    async fn advance(
        &self,
        desired: &[Resource],
        plan: &[PlannedChange],
        progress: Progress,
    ) -> Result<Advance, Fault> {
        apply::advance(self, desired, plan, progress).await
    }

    async fn remove(&self, desired: &[Resource], removal: Removal) -> Result<Removing, Fault> {
        remove::remove(self, desired, removal).await
    }
}

/// A fault of the list or the plan itself: no retry will mend it.
fn rejected(doing: &str, detail: String) -> Fault {
    Fault::Rejected { doing: doing.to_owned(), code: "InvalidResourceList".to_owned(), detail }
}
