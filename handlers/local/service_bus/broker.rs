//! What the broker does with one message: accept it, settle it, retire it.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::Value;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::{
    BusRefusal, MESSAGE_BYTES_MAX, MESSAGES_PER_SEND_MAX, Message, declare,
    directory::{Directory, Holder, Inlet, Spot, Waiting},
    store::{self, Arrival, Lying},
    topology::{Holding, Topology},
};
use crate::{
    local::database::{Database, DatabaseFault, OpenError},
    ports::clock::Clock,
};

/// Characters of a message's, session's or partition's id.
const ID_CHARS_MAX: usize = 128;
/// Bytes of everything but the body.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Characters of the reason, and of the description, that a dead letter carries.
const DEAD_LETTER_CHARS_MAX: usize = 4096;

pub(super) struct Broker {
    pub database: Database,
    pub directory: Arc<Directory>,
    pub clock: Arc<dyn Clock>,
    /// Where locks are given back that nobody took.
    pub runtime: Handle,
}

/// A message that may be sent, ready to be written.
struct Prepared {
    message: Message,
    head: String,
    size: i64,
    destinations: Vec<Arc<Holder>>,
}

/// Why the broker itself retires a message.
#[derive(Clone, Copy)]
pub(super) enum Retirement {
    Expired,
    DeliveredTooOften,
}

impl Broker {
    pub fn open(file: &Path, topology: &Topology, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let database = Database::open(file, store::FORMS)?;
        let unusable = |source| OpenError::Unusable { path: file.to_owned(), source };
        let mut connection = Connection::open(file).map_err(unusable)?;
        let directory = declare::declare(&mut connection, topology).map_err(unusable)?;
        Ok(Self { database, directory: Arc::new(directory), clock, runtime: Handle::current() })
    }

    pub async fn send(&self, entity: &str, messages: Vec<Message>) -> Result<(), BusRefusal> {
        let inlet = self.directory.inlet(entity)?;
        if messages.len() > MESSAGES_PER_SEND_MAX {
            let problem =
                format!("One send takes {MESSAGES_PER_SEND_MAX} messages, these are {}.", messages.len());
            return Err(BusRefusal::Invalid(problem));
        }
        let prepared =
            messages.into_iter().map(|message| prepare(message, &inlet)).collect::<Result<Vec<_>, _>>()?;
        let size = prepared.iter().map(|message| usize::try_from(message.size).unwrap_or(usize::MAX)).sum();
        if size > MESSAGE_BYTES_MAX {
            return Err(BusRefusal::TooLarge { size, limit: MESSAGE_BYTES_MAX });
        }
        let clock = self.clock.clone();
        self.database
            .write(move |connection| {
                let now = clock.now().as_microsecond();
                prepared.iter().try_for_each(|message| accept(connection, &inlet, message, now))
            })
            .await
    }

    pub async fn complete(&self, path: &str, token: Uuid) -> Result<(), BusRefusal> {
        self.settle(path, token, |connection, _, _, lying, _| Ok(store::delete(connection, lying.sequence)?))
            .await
    }

    pub async fn abandon(&self, path: &str, token: Uuid) -> Result<(), BusRefusal> {
        self.settle(path, token, |connection, directory, spot, lying, now| {
            if !spot.is_dead && lying.delivery_count >= spot.holder.holding.max_delivery_count {
                return Ok(retire(
                    connection,
                    directory,
                    &spot.holder,
                    &lying,
                    Retirement::DeliveredTooOften,
                    now,
                )?);
            }
            store::unlock(connection, lying.sequence, false)?;
            spot.waiting().arrived.notify_one();
            Ok(())
        })
        .await
    }

    pub async fn dead_letter(
        &self,
        path: &str,
        token: Uuid,
        reason: &str,
        description: &str,
    ) -> Result<(), BusRefusal> {
        let (reason, description) = (shortened(reason), shortened(description));
        self.settle(path, token, move |connection, directory, spot, lying, now| {
            if spot.is_dead {
                let problem = "The message is in a dead-letter queue already: complete it or abandon it.";
                return Err(BusRefusal::Invalid(problem.to_owned()));
            }
            Ok(dead_letter(connection, directory, &spot.holder, &lying, &reason, &description, now)?)
        })
        .await
    }

    pub async fn renew(&self, path: &str, token: Uuid) -> Result<Timestamp, BusRefusal> {
        self.settle(path, token, |connection, _, spot, lying, now| {
            let until = later(now, spot.holder.holding.lock_duration);
            store::extend(connection, lying.sequence, until)?;
            Ok(store::time(until))
        })
        .await
    }

    /// Gives messages back, all or none; their deliveries do not count.
    pub async fn release(&self, path: &str, tokens: Vec<Uuid>) -> Result<(), BusRefusal> {
        let spot = self.directory.spot(path)?;
        self.give_back(spot, tokens).await
    }

    pub async fn give_back(&self, spot: Spot, tokens: Vec<Uuid>) -> Result<(), BusRefusal> {
        let clock = self.clock.clone();
        self.database
            .write(move |connection| {
                let now = clock.now().as_microsecond();
                for token in tokens {
                    let lying = store::locked(connection, &spot, token, now)?.ok_or(BusRefusal::LockLost)?;
                    store::unlock(connection, lying.sequence, true)?;
                    spot.waiting().arrived.notify_one();
                }
                Ok(())
            })
            .await
    }

    pub async fn release_all(&self) -> Result<(), BusRefusal> {
        self.database.write::<_, BusRefusal>(|connection| Ok(store::unlock_all(connection)?)).await?;
        for holder in self.directory.holders() {
            for is_dead in [false, true] {
                Spot { holder: holder.clone(), is_dead }.waiting().arrived.notify_one();
            }
        }
        Ok(())
    }

    pub async fn counts(&self) -> Result<BTreeMap<String, (u64, u64, u64)>, BusRefusal> {
        let now = self.clock.now().as_microsecond();
        let found: HashMap<_, _> = self
            .database
            .read::<_, BusRefusal>(move |connection| Ok(store::counts(connection, now)?))
            .await?
            .into_iter()
            .collect();
        let count =
            |holder: &Arc<Holder>| (holder.path.clone(), found.get(&holder.id).copied().unwrap_or_default());
        Ok(self.directory.holders().map(count).collect())
    }

    /// Does something with the message under a lock, if the lock is good.
    async fn settle<T: Send + 'static>(
        &self,
        path: &str,
        token: Uuid,
        how: impl FnOnce(&Connection, &Directory, &Spot, Lying, i64) -> Result<T, BusRefusal> + Send + 'static,
    ) -> Result<T, BusRefusal> {
        let spot = self.directory.spot(path)?;
        let (clock, directory) = (self.clock.clone(), self.directory.clone());
        self.database
            .write(move |connection| {
                let now = clock.now().as_microsecond();
                let lying = store::locked(connection, &spot, token, now)?.ok_or(BusRefusal::LockLost)?;
                how(connection, &directory, &spot, lying, now)
            })
            .await
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(DEAD_LETTER_CHARS_MAX).collect()
}

/// `from` and `wait`, in microseconds; the end of time where that is beyond it.
pub(super) fn later(from: i64, wait: Duration) -> i64 {
    from.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))
        .min(Timestamp::MAX.as_microsecond())
}

fn prepare(mut message: Message, inlet: &Inlet) -> Result<Prepared, BusRefusal> {
    if message.message_id.is_empty() {
        message.message_id = Uuid::new_v4().simple().to_string();
    }
    check(&message)?;
    let head = head(&message);
    if head.len() > HEAD_BYTES_MAX {
        return Err(BusRefusal::TooLarge { size: head.len(), limit: HEAD_BYTES_MAX });
    }
    let size = message.body.len() + head.len();
    if size > MESSAGE_BYTES_MAX {
        return Err(BusRefusal::TooLarge { size, limit: MESSAGE_BYTES_MAX });
    }
    let destinations = inlet.destinations(&message);
    Ok(Prepared { size: stored_size(size), head, destinations, message })
}

fn stored_size(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn head(message: &Message) -> String {
    serde_json::to_string(message).expect("texts, numbers and times always have a JSON form")
}

fn check(message: &Message) -> Result<(), BusRefusal> {
    let ids = [
        ("MessageId", Some(&message.message_id)),
        ("SessionId", message.session_id.as_ref()),
        ("ReplyToSessionId", message.reply_to_session_id.as_ref()),
        ("PartitionKey", message.partition_key.as_ref()),
    ];
    for (name, id) in ids {
        if id.is_some_and(|id| id.chars().count() > ID_CHARS_MAX) {
            return Err(BusRefusal::Invalid(format!(
                "{name} is longer than {ID_CHARS_MAX} characters: shorten it."
            )));
        }
    }
    if let (Some(session), Some(partition)) = (&message.session_id, &message.partition_key)
        && session != partition
    {
        let problem = "PartitionKey and SessionId differ: make them equal, or leave one out.";
        return Err(BusRefusal::Invalid(problem.to_owned()));
    }
    for (name, value) in &message.properties {
        if !matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_)) {
            let problem =
                format!("The property '{name}' is no text, number or boolean: make it one, or leave it out.");
            return Err(BusRefusal::Invalid(problem));
        }
    }
    Ok(())
}

fn accept(connection: &Connection, inlet: &Inlet, prepared: &Prepared, now: i64) -> Result<(), BusRefusal> {
    if let Some(window) = inlet.duplicate_detection_window
        && !store::remember(connection, inlet.id, &prepared.message.message_id, now, later(now, window))?
    {
        return Ok(());
    }
    let due = prepared.message.scheduled_enqueue_time.map_or(now, |due| due.as_microsecond().max(now));
    for holder in &prepared.destinations {
        if is_full(connection, holder, prepared.size)? {
            return Err(BusRefusal::QuotaExceeded(inlet.name.clone()));
        }
        let arrival = Arrival {
            head: &prepared.head,
            body: &prepared.message.body,
            size: prepared.size,
            enqueued_at: due,
            expires_at: expiry(&holder.holding, prepared.message.time_to_live, due),
            source: None,
        };
        store::insert(connection, holder, &arrival)?;
        announce(&holder.live, due, now);
    }
    Ok(())
}

/// Tells receivers. They look by way of the same writer, so they see what is not committed yet.
fn announce(waiting: &Waiting, due: i64, now: i64) {
    if due > now {
        waiting.is_due_at(due);
    } else {
        waiting.arrived.notify_one();
    }
}

fn is_full(connection: &Connection, holder: &Holder, size: i64) -> Result<bool, DatabaseFault> {
    let bytes = store::bytes(connection, holder.owner)?.saturating_add(size);
    Ok(u64::try_from(bytes).unwrap_or(0) > holder.size_bytes_max)
}

fn expiry(holding: &Holding, asked: Option<Duration>, enqueued_at: i64) -> Option<i64> {
    let shortest = [asked, holding.time_to_live].into_iter().flatten().min()?;
    Some(later(enqueued_at, shortest))
}

/// Takes a message out of circulation: into the dead letters, or away.
pub(super) fn retire(
    connection: &Connection,
    directory: &Directory,
    holder: &Holder,
    lying: &Lying,
    why: Retirement,
    now: i64,
) -> Result<(), DatabaseFault> {
    match why {
        Retirement::Expired if !holder.holding.dead_lettering_on_expiration => {
            store::delete(connection, lying.sequence)
        }
        Retirement::Expired => {
            let description = "The message expired before anybody completed it.";
            dead_letter(connection, directory, holder, lying, "TTLExpiredException", description, now)
        }
        Retirement::DeliveredTooOften => {
            let description =
                format!("The message was not completed in {} deliveries.", lying.delivery_count);
            dead_letter(connection, directory, holder, lying, "MaxDeliveryCountExceeded", &description, now)
        }
    }
}

fn dead_letter(
    connection: &Connection,
    directory: &Directory,
    holder: &Holder,
    lying: &Lying,
    reason: &str,
    description: &str,
    now: i64,
) -> Result<(), DatabaseFault> {
    let mut message = store::content(connection, lying.sequence)?;
    message.properties.insert("DeadLetterReason".to_owned(), reason.into());
    message.properties.insert("DeadLetterErrorDescription".to_owned(), description.into());
    if forward(connection, directory, holder, lying, &message, now)? {
        return Ok(());
    }
    store::bury(connection, lying.sequence, &head(&message))?;
    holder.dead.arrived.notify_one();
    Ok(())
}

/// Forwards what lies in the dead-letter queue already; false where it does not forward or the
/// target is full.
pub(super) fn forward_buried(
    connection: &Connection,
    directory: &Directory,
    holder: &Holder,
    lying: &Lying,
    now: i64,
) -> Result<bool, DatabaseFault> {
    let message = store::content(connection, lying.sequence)?;
    forward(connection, directory, holder, lying, &message, now)
}

/// Moves a dead letter to where its holder forwards; false where it stays.
///
/// Nothing may be lost on the way: duplicate detection is passed by, the message's own time to live
/// ends here (the target's begins), and a target without room leaves it where it is.
fn forward(
    connection: &Connection,
    directory: &Directory,
    holder: &Holder,
    lying: &Lying,
    message: &Message,
    now: i64,
) -> Result<bool, DatabaseFault> {
    let Some(target) = &holder.holding.forward_dead_lettered_messages_to else { return Ok(false) };
    let Ok(inlet) = directory.inlet(target) else { return Ok(false) };
    let message = Message { time_to_live: None, scheduled_enqueue_time: None, ..message.clone() };
    let head = head(&message);
    let size = stored_size(message.body.len() + head.len());
    let destinations = inlet.destinations(&message);
    for destination in &destinations {
        if is_full(connection, destination, size)? {
            return Ok(false);
        }
    }
    store::delete(connection, lying.sequence)?;
    for destination in &destinations {
        let arrival = Arrival {
            head: &head,
            body: &message.body,
            size,
            enqueued_at: now,
            expires_at: expiry(&destination.holding, None, now),
            // Along a chain, the first place stays the one to look at.
            source: Some(lying.source.as_deref().unwrap_or(&holder.path)),
        };
        store::insert(connection, destination, &arrival)?;
        announce(&destination.live, now, now);
    }
    Ok(true)
}
