//! ServiceCatalogRuntimeService: the inventory of what runs, environment by environment.
//!
//! It alone writes RuntimeService, and it alone produces `RuntimeInventoryUpdated`: once for each real
//! change of what a consumer sees (status, image, version, replicas). RuntimeInventoryWorker tells it
//! what events say, the health sweep what was observed; either may come first, twice or never, since
//! what is registered is always what the store says serves by then.

pub mod make_up;
pub mod on_runtime_environment;
pub mod record;
pub mod state;

use jiff::Timestamp;

pub use make_up::make_up;
pub use record::{Observation, observe, retire, scaled};
pub use state::{CatalogueEntry, PastService, RuntimeService};

use crate::{
    ids::ServiceId,
    ledger::Ledger,
    outcome::Fault,
    ports::store::{Filter, Page, Partition},
};

/// Pages of an environment's services, of 100 each.
const PAGES_MAX: usize = 10;
/// Pages of one service's history.
const HISTORY_PAGES_MAX: usize = 6;

/// The services of an environment, retired ones too.
///
/// # Errors
/// When the store is away.
pub async fn services(ledger: &Ledger, partition: &Partition) -> Result<Vec<RuntimeService>, Fault> {
    let mut found = Vec::new();
    let mut page = Page::first(100);
    for _ in 0..PAGES_MAX {
        let listing = ledger.query::<RuntimeService>(partition, &Filter::default(), &page).await?;
        found.extend(listing.items.into_iter().map(|(_, service)| service));
        let Some(next) = listing.next else { break };
        page.after = Some(next);
    }
    Ok(found)
}

/// One service; none where it was never seen.
///
/// # Errors
/// When the store is away.
pub async fn service(
    ledger: &Ledger,
    partition: &Partition,
    id: &ServiceId,
) -> Result<Option<RuntimeService>, Fault> {
    Ok(ledger.load::<RuntimeService>(partition, id.as_str()).await?.state)
}

/// How a service was at a moment; none where that is longer ago than what is kept, or before the
/// service was seen.
///
/// # Errors
/// When the store is away.
pub async fn service_at(
    ledger: &Ledger,
    partition: &Partition,
    id: &ServiceId,
    at: Timestamp,
) -> Result<Option<PastService>, Fault> {
    let equal = vec![("serviceId".to_owned(), id.to_string())];
    let filter = Filter { equal, newest_first: true, ..Filter::default() };
    let mut page = Page::first(100);
    for _ in 0..HISTORY_PAGES_MAX {
        let listing = ledger.query::<PastService>(partition, &filter, &page).await?;
        if let Some((_, past)) = listing.items.into_iter().find(|(_, past)| past.at <= at) {
            return Ok(Some(past));
        }
        let Some(next) = listing.next else { break };
        page.after = Some(next);
    }
    Ok(None)
}
