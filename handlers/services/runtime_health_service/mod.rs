//! RuntimeHealthService: judges whether what runs is well.
//!
//! It alone writes HealthCheckResult, and it alone produces `HealthCheckCompleted`. A deployment asks
//! its gate (`health_gate.rs`) before traffic shifts; what serves is looked at by the sweep
//! (`health_sweep.rs`), every thirty seconds.

pub mod evaluate;
pub mod health_gate;
pub mod health_sweep;
pub mod state;

use std::collections::BTreeMap;

pub use state::{Health, HealthCheckResult};

use crate::{
    ids::{ModuleId, ServiceId},
    ledger::Ledger,
    outcome::Fault,
    ports::store::{Filter, Page, Partition},
};

/// Pages of results of one environment, of 100 each.
const PAGES_MAX: usize = 10;

/// How well a workload is, as far as the last looks tell.
///
/// # Errors
/// When the store is away.
pub async fn latest(
    ledger: &Ledger,
    partition: &Partition,
    service: &ServiceId,
) -> Result<Option<HealthCheckResult>, Fault> {
    Ok(ledger.load::<HealthCheckResult>(partition, &HealthCheckResult::id(service)).await?.state)
}

/// How well each workload of an environment is; one that was never judged is not among them.
///
/// # Errors
/// When the store is away.
pub async fn healths(ledger: &Ledger, partition: &Partition) -> Result<BTreeMap<ModuleId, Health>, Fault> {
    let mut found = BTreeMap::new();
    let mut page = Page::first(100);
    for _ in 0..PAGES_MAX {
        let listing = ledger.query::<HealthCheckResult>(partition, &Filter::default(), &page).await?;
        found.extend(listing.items.into_iter().map(|(_, result)| (result.module_id, result.status)));
        let Some(next) = listing.next else { break };
        page.after = Some(next);
    }
    Ok(found)
}
