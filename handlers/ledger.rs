//! The ledger: state, inbox and outbox of a message change together, in one atomic batch.
//!
//! Nothing else in the platform writes to the store. A commit names every document that the decision
//! rests on, with the etag it was read with; where somebody else wrote first, nothing is written and
//! the decision is taken anew.

mod outbox;

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    envelope::Envelope,
    events::Event,
    ids::{self, EventId, TenantId},
    masstransit::{self, PUBLISHED_BYTES_MAX, WireFormat},
    outcome::Fault,
    ports::store::{Document, Etag, Filter, Key, Listing, Page, Partition, Store, StoreFault, Write},
};

pub use outbox::{Change, OutboxEvent, OutboxMessage, outbox_id};

/// How long a handled message is remembered: longer than anything can come back (dead letters are
/// kept 30 days).
pub const INBOX_SECONDS: u32 = 35 * 24 * 60 * 60;
/// How long a sent event stays in the feed.
pub const SENT_EVENT_SECONDS: u32 = 7 * 24 * 60 * 60;
/// The kind of documents that hold events.
pub const EVENT: &str = "event";
/// The kind of documents that hold internal messages; they go once they are sent.
pub const MESSAGE: &str = "message";
/// The kind of documents that remember handled messages.
pub const INBOX: &str = "inbox";

/// Stands in for the namespace where only the size counts: no host name is longer.
const NAMESPACE_LENGTH_MAX: &str =
    "namespace-of-fifty-characters-which-is-the-longest.servicebus.windows.net";

/// A document's body, with a kind and a version of its form.
pub trait State: Serialize + DeserializeOwned + Send + Sync {
    const KIND: &'static str;
    /// Raised when an older version could not read what this one writes.
    const V: u32 = 1;

    /// When it was made; listings are in this order.
    fn made_at(&self) -> Timestamp;

    /// When it wants to be looked at.
    fn due(&self) -> Option<Timestamp> {
        None
    }

    /// Seconds after its last write at which it may go.
    fn ttl_seconds(&self) -> Option<u32> {
        None
    }

    /// Leads a body of an older form to this one.
    fn upcast(_v: u32, body: Value) -> Value {
        body
    }
}

/// A document as it was loaded: a state, or nothing there yet.
#[derive(Clone, Debug)]
pub struct Loaded<S> {
    pub id: String,
    pub state: Option<S>,
    etag: Option<Etag>,
    /// The body as stored; members that this version does not know are kept when it is written.
    stored: Map<String, Value>,
}

impl<S> Loaded<S> {
    /// Takes the state out, leaving what is needed to write it back.
    pub fn take(mut self) -> (Option<S>, Self) {
        let state = self.state.take();
        (state, self)
    }
}

/// What was handled, by which function, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InboxEntry {
    pub event_id: String,
    pub event_type: String,
    pub function: String,
    pub handled_at: Timestamp,
    pub environment_id: Option<String>,
    /// The operation that goes on with it.
    pub operation_id: Option<String>,
    /// `Accepted`, `Completed`, `Rejected` or `NoChange`.
    pub outcome: String,
    /// The event that answered it, where its own function ended it.
    pub outcome_event_id: Option<EventId>,
    pub detail: Option<String>,
}

impl State for InboxEntry {
    const KIND: &'static str = INBOX;

    fn made_at(&self) -> Timestamp {
        self.handled_at
    }

    fn ttl_seconds(&self) -> Option<u32> {
        Some(INBOX_SECONDS)
    }
}

/// The id under which a function remembers a message.
pub fn inbox_id(function: &str, event_id: &str) -> String {
    format!("inbox-{}", ids::derive(&[function, event_id]).simple())
}

/// What an event inherits from the message or operation that causes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    pub tenant_id: TenantId,
    pub project_id: Option<crate::ids::ProjectId>,
    pub module_id: Option<crate::ids::ModuleId>,
    pub trace_id: crate::ids::TraceId,
    pub correlation_id: crate::ids::CorrelationId,
    /// The command at the root, whose sender waits for an end.
    pub command_id: String,
    pub command_type: String,
    pub traceparent: Option<String>,
}

impl Lineage {
    pub fn of<P>(envelope: &Envelope<P>, traceparent: Option<&str>) -> Self {
        Self {
            tenant_id: envelope.tenant_id.clone(),
            project_id: envelope.project_id.clone(),
            module_id: envelope.module_id.clone(),
            trace_id: envelope.trace_id.clone(),
            correlation_id: envelope.correlation_id.clone(),
            command_id: envelope.event_id.to_string(),
            command_type: envelope.event_type.clone(),
            traceparent: traceparent.map(str::to_owned),
        }
    }
}

/// An event to record.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub id: EventId,
    pub event: Event,
    pub aggregate: String,
    pub sequence: u64,
    /// The eventId of what directly caused it.
    pub caused_by: String,
}

/// Everything that one decision writes.
#[derive(Clone, Debug)]
pub struct Commit {
    pub partition: Partition,
    pub now: Timestamp,
    writes: Vec<Write>,
    /// The outbox documents among the writes.
    outbox: Vec<String>,
}

impl Commit {
    pub fn new(partition: Partition, now: Timestamp) -> Self {
        Self { partition, now, writes: Vec::new(), outbox: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Writes a state where it was loaded from: creates it, or replaces exactly what was read.
    pub fn put<S: State>(&mut self, loaded: &Loaded<S>, state: &S) -> Result<(), Fault> {
        let document = document(&loaded.id, state, &loaded.stored)?;
        self.writes.push(match &loaded.etag {
            Some(etag) => Write::Replace(document, etag.clone()),
            None => Write::Create(document),
        });
        Ok(())
    }

    /// Writes a state under an id whatever is there: for documents that only this decision's owner
    /// writes, such as the samples of a gate.
    pub fn overwrite<S: State>(&mut self, id: &str, state: &S) -> Result<(), Fault> {
        self.writes.push(Write::Upsert(document(id, state, &Map::new())?));
        Ok(())
    }

    /// Remembers that a function handled a message.
    pub fn remember(&mut self, entry: &InboxEntry) -> Result<(), Fault> {
        let id = inbox_id(&entry.function, &entry.event_id);
        self.writes.push(Write::Create(document(&id, entry, &Map::new())?));
        Ok(())
    }

    /// Records an event for publishing.
    ///
    /// # Errors
    /// [`Fault::Rejected`] with code `TooLarge` when the event is larger than the broker takes: found
    /// out here, so that one large message never blocks what is behind it.
    pub fn event(&mut self, lineage: &Lineage, new: NewEvent) -> Result<(), Fault> {
        self.record(lineage, new, None)
    }

    /// Records an event that says of itself whether it tells something new.
    ///
    /// # Errors
    /// As [`Self::event`].
    pub fn event_with_change(
        &mut self,
        lineage: &Lineage,
        new: NewEvent,
        change: Change,
    ) -> Result<(), Fault> {
        self.record(lineage, new, Some(change))
    }

    fn record(&mut self, lineage: &Lineage, new: NewEvent, change: Option<Change>) -> Result<(), Fault> {
        let envelope = Envelope {
            event_id: new.id.clone(),
            event_type: new.event.event_type().to_owned(),
            tenant_id: lineage.tenant_id.clone(),
            project_id: lineage.project_id.clone(),
            module_id: lineage.module_id.clone(),
            trace_id: lineage.trace_id.clone(),
            correlation_id: lineage.correlation_id.clone(),
            causation_id: Some(new.caused_by.clone()),
            occurred_at: self.now,
            payload: new.event.payload(),
        };
        let (topic, version) = (new.event.topic().name(), new.event.schema_version());
        // Measured in the larger of the two forms: the setting may change before it is published.
        let traceparent = lineage.traceparent.as_deref();
        let published = masstransit::publish(
            &envelope,
            version,
            WireFormat::MassTransit,
            Some(new.sequence),
            traceparent,
            topic,
            NAMESPACE_LENGTH_MAX,
        );
        if published.body.len() > PUBLISHED_BYTES_MAX {
            return Err(Fault::Rejected {
                doing: format!("recording {}", envelope.event_type),
                code: "TooLarge".to_owned(),
                detail: format!(
                    "the event has {} bytes, {PUBLISHED_BYTES_MAX} are allowed",
                    published.body.len()
                ),
            });
        }
        let text = envelope.canonical();
        let id = outbox_id(&new.aggregate, new.sequence);
        let entry = OutboxEvent {
            event_id: new.id,
            event_type: envelope.event_type,
            correlation_id: lineage.correlation_id.to_string(),
            causation_id: envelope.causation_id,
            topic: topic.to_owned(),
            schema_version: version.to_owned(),
            aggregate: new.aggregate,
            sequence: new.sequence,
            traceparent: lineage.traceparent.clone(),
            change,
            envelope: text,
            recorded_at: self.now,
            sent_at: None,
        };
        self.writes.push(Write::Create(document(&id, &entry, &Map::new())?));
        self.outbox.push(id);
        Ok(())
    }

    /// Records a message to one of our queues.
    pub fn message(&mut self, message: &OutboxMessage) -> Result<(), Fault> {
        let id = format!("message-{}", ids::derive(&[&message.queue, &message.message_id]).simple());
        self.writes.push(Write::Upsert(document(&id, message, &Map::new())?));
        self.outbox.push(id);
        Ok(())
    }
}

fn document<S: State>(id: &str, state: &S, stored: &Map<String, Value>) -> Result<Document, Fault> {
    let body = serde_json::to_value(state).map_err(|error| unwritable(S::KIND, error))?;
    let Value::Object(mut body) = body else {
        return Err(Fault::Unreadable {
            doing: format!("writing a {}", S::KIND),
            source: "it is not an object".into(),
        });
    };
    for (name, value) in stored {
        if !body.contains_key(name) {
            body.insert(name.clone(), value.clone());
        }
    }
    Ok(Document {
        id: id.to_owned(),
        kind: S::KIND.to_owned(),
        v: S::V,
        at: state.made_at(),
        due: state.due(),
        ttl_seconds: state.ttl_seconds(),
        body: Value::Object(body),
    })
}

fn unwritable(what: &str, error: serde_json::Error) -> Fault {
    Fault::Unreadable { doing: format!("writing {what}"), source: error.into() }
}

/// What a commit left to be published, as it was stored.
#[derive(Clone, Debug)]
pub struct Committed {
    pub partition: Partition,
    /// Outbox documents with the etags they got.
    pub outbox: Vec<(Document, Etag)>,
}

/// The only writer of the store. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    store: Arc<dyn Store>,
}

impl Ledger {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Reads one document.
    ///
    /// # Errors
    /// When the store is away, or the document cannot be read by this version.
    pub async fn load<S: State>(&self, partition: &Partition, id: &str) -> Result<Loaded<S>, Fault> {
        let key = Key { partition: partition.clone(), id: id.to_owned() };
        let stored =
            self.store.read(&key).await.map_err(|fault| translate(fault, &format!("reading `{id}`")))?;
        match stored {
            None => Ok(Self::absent(id)),
            Some(stored) => read_state(stored.document, stored.etag),
        }
    }

    /// A place where nothing is yet: writing to it creates, and conflicts where something is.
    pub fn absent<S>(id: &str) -> Loaded<S> {
        Loaded { id: id.to_owned(), state: None, etag: None, stored: Map::new() }
    }

    /// Writes all of a decision, or nothing.
    ///
    /// # Errors
    /// [`Fault::Conflict`] when somebody else wrote one of the documents first.
    pub async fn commit(&self, commit: Commit) -> Result<Committed, Fault> {
        let Commit { partition, now: _, writes, outbox } = commit;
        let etags =
            self.store.commit(&partition, writes.clone()).await.map_err(|fault| {
                translate(fault, &format!("committing to `{}`", partition.environment_id))
            })?;
        let outbox = writes
            .into_iter()
            .zip(etags)
            .filter_map(|(write, etag)| match write {
                Write::Create(document) | Write::Upsert(document) if outbox.contains(&document.id) => {
                    Some((document, etag))
                }
                Write::Create(_) | Write::Upsert(_) | Write::Replace(..) | Write::Delete(..) => None,
            })
            .collect();
        Ok(Committed { partition, outbox })
    }

    /// Marks outbox documents as sent: events stay in the feed for a while, messages go.
    pub async fn mark_sent(
        &self,
        partition: &Partition,
        sent: Vec<(Document, Etag)>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let mut writes = Vec::with_capacity(sent.len());
        for (document, etag) in sent {
            writes.push(match document.kind.as_str() {
                EVENT => {
                    let loaded = read_state::<OutboxEvent>(document, etag.clone())?;
                    let Some(mut event) = loaded.state else { continue };
                    event.sent_at = Some(now);
                    Write::Replace(self::document(&loaded.id, &event, &loaded.stored)?, etag)
                }
                _ => Write::Delete(document.id, None),
            });
        }
        self.store
            .commit(partition, writes)
            .await
            .map_err(|fault| translate(fault, "marking messages as sent"))?;
        Ok(())
    }

    /// Documents of a state's kind in one partition.
    pub async fn query<S: State>(
        &self,
        partition: &Partition,
        filter: &Filter,
        page: &Page,
    ) -> Result<PageOf<S>, Fault> {
        let listing = self.store.query(partition, S::KIND, filter, page).await;
        read_page(listing.map_err(|fault| translate(fault, &format!("querying {}s", S::KIND)))?)
    }

    /// Documents of a state's kind of one tenant.
    pub async fn list<S: State>(
        &self,
        tenant: &TenantId,
        filter: &Filter,
        page: &Page,
    ) -> Result<PageOf<S>, Fault> {
        let listing = self.store.list(tenant.as_str(), S::KIND, filter, page).await;
        read_page(listing.map_err(|fault| translate(fault, &format!("listing {}s", S::KIND)))?)
    }

    /// The one document of a tenant whose member `name` is `value`, wherever it is.
    pub async fn find<S: State>(
        &self,
        tenant: &TenantId,
        name: &str,
        value: &str,
    ) -> Result<Option<S>, Fault> {
        let filter = Filter { equal: vec![(name.to_owned(), value.to_owned())], ..Filter::default() };
        let page = self.list::<S>(tenant, &filter, &Page::first(1)).await?;
        Ok(page.items.into_iter().next().map(|(_, state)| state))
    }

    /// Documents of a kind that want to be looked at, as they are stored.
    pub async fn due(&self, kind: &str, until: Timestamp, page: &Page) -> Result<Listing, Fault> {
        self.store
            .due(kind, until, page)
            .await
            .map_err(|fault| translate(fault, &format!("looking for {kind}s that are due")))
    }

    /// One document as it is stored.
    pub async fn raw(&self, partition: &Partition, id: &str) -> Result<Option<(Document, Etag)>, Fault> {
        let key = Key { partition: partition.clone(), id: id.to_owned() };
        let stored =
            self.store.read(&key).await.map_err(|fault| translate(fault, &format!("reading `{id}`")))?;
        Ok(stored.map(|stored| (stored.document, stored.etag)))
    }
}

/// A page of states with the partitions they are in.
#[derive(Clone, Debug)]
pub struct PageOf<S> {
    pub items: Vec<(Partition, S)>,
    pub next: Option<String>,
}

fn read_page<S: State>(listing: Listing) -> Result<PageOf<S>, Fault> {
    let mut items = Vec::with_capacity(listing.items.len());
    for stored in listing.items {
        let loaded = read_state::<S>(stored.document, stored.etag)?;
        if let Some(state) = loaded.state {
            items.push((stored.partition, state));
        }
    }
    Ok(PageOf { items, next: listing.next })
}

/// Reads a stored document as a state, through the state's upcaster.
pub fn read_state<S: State>(document: Document, etag: Etag) -> Result<Loaded<S>, Fault> {
    let Document { id, kind, v, body, .. } = document;
    let unreadable = |source: crate::outcome::Source| Fault::Unreadable {
        doing: format!("reading the {kind} `{id}`"),
        source,
    };
    if v > S::V {
        // A newer version runs beside this one; it will take the message.
        return Err(unreadable(format!("it is of form {v}, this version reads up to {}", S::V).into()));
    }
    let body = S::upcast(v, body);
    let state = S::deserialize(&body).map_err(|error| unreadable(error.into()))?;
    let Value::Object(stored) = body else {
        return Err(unreadable("it is not an object".into()));
    };
    Ok(Loaded { id, state: Some(state), etag: Some(etag), stored })
}

fn translate(fault: StoreFault, doing: &str) -> Fault {
    match fault {
        StoreFault::Conflict(id) => Fault::Conflict { id },
        StoreFault::TooLarge { writes, bytes } => Fault::Rejected {
            doing: doing.to_owned(),
            code: "TooLarge".to_owned(),
            detail: format!("{writes} documents with {bytes} bytes are more than one commit may carry"),
        },
        StoreFault::Unavailable { .. } => {
            Fault::Transient { doing: doing.to_owned(), retry_after: None, source: fault.into() }
        }
        StoreFault::ForeignMark { .. } => Fault::foreign_mark(doing),
        StoreFault::Corrupt { .. } => Fault::Unreadable { doing: doing.to_owned(), source: fault.into() },
    }
}
