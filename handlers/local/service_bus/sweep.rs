//! Retiring what nobody is waiting for: expired messages, locks that ran out for the last time, dead
//! letters whose target had no room, and message ids that need not be remembered any more.

use std::{sync::Weak, time::Duration};

use rusqlite::Connection;

use super::{
    BusRefusal,
    broker::{Broker, Retirement, forward_buried, retire},
    directory::Spot,
    store,
};

const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Messages of each kind, and remembered ids, that one pass handles before it lets others write.
const PASS_MAX: u32 = 200;
/// Passes of one sweep; what is left waits for the next.
const PASSES_MAX: usize = 50;

/// Sweeps until the broker is gone.
pub(super) async fn sweep_until_closed(broker: Weak<Broker>) {
    let mut failing = false;
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(broker) = broker.upgrade() else { return };
        match broker.sweep().await {
            Ok(()) => failing = false,
            Err(refusal) if !failing => {
                failing = true;
                tracing::warn!(error = %refusal, "Expired messages cannot be retired; trying every second");
            }
            Err(_) => {}
        }
    }
}

impl Broker {
    pub(super) async fn sweep(self: &std::sync::Arc<Self>) -> Result<(), BusRefusal> {
        for _ in 0..PASSES_MAX {
            let broker = self.clone();
            let is_more = self.database.write(move |connection| pass(connection, &broker)).await?;
            if !is_more {
                break;
            }
        }
        Ok(())
    }
}

/// Does a bounded amount of work, and answers whether there is more.
fn pass(connection: &Connection, broker: &Broker) -> Result<bool, BusRefusal> {
    let now = broker.clock.now().as_microsecond();
    let directory = &broker.directory;
    let expired = store::expired(connection, now, PASS_MAX)?;
    let mut is_more = is_full(expired.len());
    for (entity, lying) in expired {
        if let Some(holder) = directory.holder(entity) {
            retire(connection, directory, holder, &lying, Retirement::Expired, now)?;
        }
    }
    for holder in directory.holders() {
        let exhausted = store::exhausted(connection, holder, now, PASS_MAX)?;
        is_more |= is_full(exhausted.len());
        for lying in exhausted {
            retire(connection, directory, holder, &lying, Retirement::DeliveredTooOften, now)?;
        }
        if holder.holding.forward_dead_lettered_messages_to.is_some() {
            let buried = Spot { holder: holder.clone(), is_dead: true };
            for lying in store::visible(connection, &buried, now, PASS_MAX)? {
                if !forward_buried(connection, directory, holder, &lying, now)? {
                    break;
                }
            }
        }
    }
    is_more |= is_full(store::forget(connection, now, PASS_MAX)?);
    Ok(is_more)
}

fn is_full(handled: usize) -> bool {
    handled >= PASS_MAX as usize
}
