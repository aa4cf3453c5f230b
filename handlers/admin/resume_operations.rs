//! `ResumeOperations`: the safety net under ticks. Once a minute it sends again the tick of every
//! operation that is overdue; nothing is written, so it may run beside itself.

use tracing::{info, warn};

use crate::{
    ledger::{State, read_state},
    operations::{self, Operation, Status},
    outcome::Fault,
    platform::Platform,
    ports::store::Page,
};

/// Pages that one run goes through; the rest are overdue in the next minute still.
const PAGES_MAX: usize = 20;

/// Sends the ticks that are overdue.
///
/// # Errors
/// When the store or the bus is away; the next minute comes.
pub async fn run(platform: &Platform) -> Result<(), Fault> {
    let mut page = Page::first(100);
    for _ in 0..PAGES_MAX {
        let now = platform.clock.now();
        let listing = platform.ledger.due(Operation::KIND, now, &page).await?;
        for stored in listing.items {
            let id = stored.document.id.clone();
            let operation = match read_state::<Operation>(stored.document, stored.etag) {
                Ok(loaded) => loaded.state,
                Err(fault) => {
                    warn!(operation.id = %id, "`{id}` cannot be resumed: {}", fault.chain());
                    continue;
                }
            };
            let Some(operation) = operation.filter(|operation| operation.status == Status::Running) else {
                continue;
            };
            info!(operation.id = %id, "the tick of `{id}` is overdue and is sent again");
            platform.bus.send(&operations::overdue_tick(&operation, now)?).await?;
        }
        let Some(next) = listing.next else { break };
        page.after = Some(next);
    }
    Ok(())
}
