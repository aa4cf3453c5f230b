//! From the outbox to the bus: right after a commit, and by a sweep for what is left.
//!
//! Events of one aggregate go out in order. A crash between sending and marking sends again with the
//! same message id, which the broker's duplicate detection drops.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::SignedDuration;
use tracing::{error, warn};

use crate::{
    envelope::Envelope,
    ledger::{Committed, EVENT, MESSAGE, OutboxEvent, OutboxMessage, outbox_id, read_state},
    masstransit,
    outcome::Fault,
    platform::Platform,
    ports::{
        bus::Outgoing,
        store::{Document, Etag, Page, Partition},
    },
};

/// How long a handler publishes before it replies; what is left goes out with the sweep.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
/// How old an unsent document is before the sweep takes it: younger ones are being sent.
const SWEEP_AGE: SignedDuration = SignedDuration::from_secs(5);
/// Pages that one sweep goes through, of each kind.
const SWEEP_PAGES_MAX: usize = 20;
/// Earlier events of an aggregate that are sent on the way to a later one.
const EARLIER_MAX: u64 = 20;

/// Publishes what a commit left, in at most two seconds. Nothing fails here: what could not be sent
/// is in the outbox.
pub async fn publish(platform: &Platform, committed: Committed) {
    if committed.outbox.is_empty() {
        return;
    }
    let Committed { partition, outbox } = committed;
    match tokio::time::timeout(PUBLISH_TIMEOUT, send_all(platform, &partition, outbox)).await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => warn!("publishing is left to the sweep: {}", fault.chain()),
        Err(_) => warn!("publishing took longer than {PUBLISH_TIMEOUT:?} and is left to the sweep"),
    }
}

/// What one sweep did, for an operator to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    pub sent: usize,
    pub failed: usize,
}

/// Sends what is left in the outbox, oldest first.
///
/// # Errors
/// When the store is away; the next sweep comes in seconds.
pub async fn sweep(platform: &Platform) -> Result<SweepReport, Fault> {
    let mut report = SweepReport::default();
    for kind in [EVENT, MESSAGE] {
        let mut page = Page::first(100);
        for _ in 0..SWEEP_PAGES_MAX {
            let until = platform.clock.now() - SWEEP_AGE;
            let listing = platform.ledger.due(kind, until, &page).await?;
            for stored in listing.items {
                let id = stored.document.id.clone();
                match send_all(platform, &stored.partition, vec![(stored.document, stored.etag)]).await {
                    Ok(()) => report.sent += 1,
                    // The publisher that committed it was faster.
                    Err(Fault::Conflict { .. }) => {}
                    Err(fault) => {
                        report.failed += 1;
                        error!(outbox.id = %id, "the outbox document `{id}` was not sent: {}", fault.chain());
                    }
                }
            }
            let Some(next) = listing.next else { break };
            page.after = Some(next);
        }
    }
    Ok(report)
}

async fn send_all(
    platform: &Platform,
    partition: &Partition,
    outbox: Vec<(Document, Etag)>,
) -> Result<(), Fault> {
    let mut sent = Vec::with_capacity(outbox.len());
    let mut result = Ok(());
    for (document, etag) in outbox {
        result = send_in_order(platform, partition, &document, &etag, &mut sent).await;
        if result.is_err() {
            break;
        }
        sent.push((document, etag));
    }
    if !sent.is_empty() {
        platform.ledger.mark_sent(partition, sent, platform.clock.now()).await?;
    }
    result
}

/// Sends a document, and before it the earlier events of its aggregate that are still unsent.
async fn send_in_order(
    platform: &Platform,
    partition: &Partition,
    document: &Document,
    etag: &Etag,
    sent: &mut Vec<(Document, Etag)>,
) -> Result<(), Fault> {
    if document.kind == MESSAGE {
        let message = state::<OutboxMessage>(document, etag)?;
        return platform.bus.send(&outgoing_message(&message)?).await;
    }
    let event = state::<OutboxEvent>(document, etag)?;
    let mut earlier = Vec::new();
    for sequence in (1..event.sequence).rev().take(EARLIER_MAX as usize) {
        let id = outbox_id(&event.aggregate, sequence);
        if sent.iter().any(|(document, _)| document.id == id) {
            break;
        }
        let Some((document, etag)) = platform.ledger.raw(partition, &id).await? else { break };
        let event = state::<OutboxEvent>(&document, &etag)?;
        if event.sent_at.is_some() {
            break;
        }
        earlier.push((document, etag, event));
    }
    for (document, etag, event) in earlier.into_iter().rev() {
        platform.bus.send(&outgoing_event(platform, &event)?).await?;
        sent.push((document, etag));
    }
    platform.bus.send(&outgoing_event(platform, &event)?).await
}

fn state<S: crate::ledger::State>(document: &Document, etag: &Etag) -> Result<S, Fault> {
    let id = document.id.clone();
    read_state::<S>(document.clone(), etag.clone())?
        .state
        .ok_or(Fault::Unreadable { doing: format!("reading `{id}`"), source: "it is empty".into() })
}

/// An event as the bus takes it.
fn outgoing_event(platform: &Platform, event: &OutboxEvent) -> Result<Outgoing, Fault> {
    let envelope: Envelope = serde_json::from_str(&event.envelope).map_err(|error| Fault::Unreadable {
        doing: format!("reading the event `{}`", event.event_id),
        source: error.into(),
    })?;
    let mut published = masstransit::publish(
        &envelope,
        &event.schema_version,
        platform.wire_format,
        Some(event.sequence),
        event.traceparent.as_deref(),
        &event.topic,
        &platform.namespace,
    );
    if let Some(change) = event.change {
        published.properties.insert("cs-change".to_owned(), change.as_str().to_owned());
    }
    Ok(Outgoing {
        entity: event.topic.clone(),
        message_id: event.event_id.broker_message_id().to_string(),
        content_type: published.content_type.to_owned(),
        body: published.body,
        properties: published.properties,
        session_id: Some(event.aggregate.clone()),
        correlation_id: Some(event.correlation_id.clone()),
        subject: Some(event.event_type.clone()),
        scheduled_at: None,
        time_to_live: None,
    })
}

/// An internal message as the bus takes it.
///
/// # Errors
/// When its stored body is not base64.
pub fn outgoing_message(message: &OutboxMessage) -> Result<Outgoing, Fault> {
    let body = BASE64_STANDARD.decode(&message.body).map_err(|error| Fault::Unreadable {
        doing: format!("reading the message `{}`", message.message_id),
        source: error.into(),
    })?;
    Ok(Outgoing {
        entity: message.queue.clone(),
        message_id: message.message_id.clone(),
        content_type: message.content_type.clone(),
        body,
        properties: message.properties.clone(),
        session_id: None,
        correlation_id: None,
        subject: None,
        scheduled_at: message.scheduled_at,
        time_to_live: None,
    })
}
