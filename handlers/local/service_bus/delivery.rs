//! Handing messages to receivers, who may wait, and who may go away at any moment.

use std::{sync::Arc, time::Duration};

use rusqlite::Connection;
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

use super::{
    BusRefusal, MESSAGES_PER_RECEIVE_MAX, Received,
    broker::{Broker, Retirement, later, retire},
    directory::Spot,
    store::{self, Lying},
};

/// Bytes of one receive, beyond which no further message is added.
const BYTES_PER_RECEIVE_MAX: i64 = 16 * 1024 * 1024;
/// Messages that one look retires at most before it lets others write.
const RETIRED_PER_LOOK_MAX: usize = 256;
/// How long a receiver trusts its reckoning of the time: clocks are set, and machines sleep.
const RECKONING_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taking {
    Lock,
    Delete,
}

/// Receives up to `max` messages, waiting up to `wait` for the first.
pub(super) async fn receive(
    broker: &Arc<Broker>,
    path: &str,
    max: usize,
    wait: Duration,
    taking: Taking,
) -> Result<Vec<Received>, BusRefusal> {
    let spot = broker.directory.spot(path)?;
    let max = max.clamp(1, MESSAGES_PER_RECEIVE_MAX);
    let deadline = Instant::now() + wait;
    loop {
        let baton = Baton::of(&spot.waiting().arrived);
        let received = look(broker, &spot, max, taking).await?.accept();
        baton.keep();
        if !received.is_empty() {
            return Ok(received);
        }
        if !something_shows(broker, &spot, deadline).await {
            return Ok(Vec::new());
        }
    }
}

/// Waits until another look may find something; false at the deadline.
async fn something_shows(broker: &Broker, spot: &Spot, deadline: Instant) -> bool {
    let waiting = spot.waiting();
    let mut due = waiting.due();
    loop {
        let until_due = *due.borrow_and_update() - broker.clock.now().as_microsecond();
        if until_due <= 0 {
            return Instant::now() < deadline;
        }
        let reckoning = Duration::from_micros(until_due.unsigned_abs()).min(RECKONING_MAX);
        tokio::select! {
            biased;
            () = waiting.arrived.notified() => return true,
            () = tokio::time::sleep_until(deadline) => return false,
            _ = due.changed() => {}
            () = tokio::time::sleep(reckoning) => {}
        }
    }
}

/// The duty to look at what has arrived: passed on when a receiver goes away before it has looked.
struct Baton<'n>(Option<&'n Notify>);

impl<'n> Baton<'n> {
    fn of(arrived: &'n Notify) -> Self {
        Self(Some(arrived))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Baton<'_> {
    fn drop(&mut self) {
        if let Some(arrived) = self.0 {
            arrived.notify_one();
        }
    }
}

/// Messages on their way from the disk to a receiver. If nobody accepts them, they go back.
struct Handover {
    broker: Arc<Broker>,
    spot: Spot,
    received: Vec<Received>,
    taking: Taking,
}

impl Handover {
    fn accept(mut self) -> Vec<Received> {
        std::mem::take(&mut self.received)
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if self.received.is_empty() || self.taking == Taking::Delete {
            return;
        }
        let tokens = self.received.iter().map(|received| received.lock_token).collect();
        let (broker, spot) = (self.broker.clone(), self.spot.clone());
        self.broker.runtime.spawn(async move {
            // Where this fails the locks run out, which only takes longer.
            let _ = broker.give_back(spot, tokens).await;
        });
    }
}

async fn look(broker: &Arc<Broker>, spot: &Spot, max: usize, taking: Taking) -> Result<Handover, BusRefusal> {
    let (broker, spot) = (broker.clone(), spot.clone());
    let database = broker.database.clone();
    database
        .write(move |connection| {
            let now = broker.clock.now().as_microsecond();
            let received = gather(connection, &broker, &spot, max, taking, now)?;
            Ok(Handover { broker, spot, received, taking })
        })
        .await
}

/// Takes what is visible, oldest first, and retires what turns out to be past its time.
fn gather(
    connection: &Connection,
    broker: &Broker,
    spot: &Spot,
    max: usize,
    taking: Taking,
    now: i64,
) -> Result<Vec<Received>, BusRefusal> {
    let (mut received, mut bytes, mut retired) = (Vec::new(), 0, 0);
    loop {
        let wanted = u32::try_from(max - received.len()).unwrap_or(u32::MAX);
        let visible = store::visible(connection, spot, now, wanted)?;
        if visible.is_empty() {
            break;
        }
        for lying in visible {
            if let Some(why) = past(spot, &lying, now) {
                retire(connection, &broker.directory, &spot.holder, &lying, why, now)?;
                retired += 1;
            } else if received.is_empty() || bytes + lying.size <= BYTES_PER_RECEIVE_MAX {
                bytes += lying.size;
                received.push(take(connection, spot, &lying, taking, now)?);
            } else {
                break;
            }
        }
        if received.len() == max || bytes >= BYTES_PER_RECEIVE_MAX || retired >= RETIRED_PER_LOOK_MAX {
            // There may be more than this receiver takes.
            spot.waiting().arrived.notify_one();
            return Ok(received);
        }
    }
    if received.is_empty() {
        spot.waiting().is_next_due_at(store::next_due(connection, spot, now)?);
    }
    Ok(received)
}

fn past(spot: &Spot, lying: &Lying, now: i64) -> Option<Retirement> {
    if spot.is_dead {
        None
    } else if lying.expires_at.is_some_and(|expiry| expiry <= now) {
        Some(Retirement::Expired)
    } else if lying.delivery_count >= spot.holder.holding.max_delivery_count {
        Some(Retirement::DeliveredTooOften)
    } else {
        None
    }
}

fn take(
    connection: &Connection,
    spot: &Spot,
    lying: &Lying,
    taking: Taking,
    now: i64,
) -> Result<Received, BusRefusal> {
    let message = store::content(connection, lying.sequence)?;
    let (lock_token, locked_until) = match taking {
        Taking::Lock => {
            let (token, until) = (Uuid::new_v4(), later(now, spot.holder.holding.lock_duration));
            store::lock(connection, lying.sequence, token, until)?;
            spot.waiting().is_due_at(until);
            (token, until)
        }
        Taking::Delete => {
            store::delete(connection, lying.sequence)?;
            (Uuid::nil(), now)
        }
    };
    Ok(Received {
        message,
        sequence_number: lying.sequence,
        delivery_count: lying.delivery_count + 1,
        enqueued_at: store::time(lying.enqueued_at),
        expires_at: lying.expires_at.map(store::time),
        lock_token,
        locked_until: store::time(locked_until),
        dead_letter_source: lying.source.clone(),
    })
}
