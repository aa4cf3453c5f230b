//! `DeadLetters`: files each message that could not be handled, with its reason, and answers the
//! sender of a command.
//!
//! What arrives here was sent by us with a reason, or forwarded by the broker from the dead-letter
//! queue of one of our queues. A message that is not understood, or whose tenant is in doubt, is filed
//! and never answered: an answer would go to the tenant that was claimed.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::warn;

use crate::{
    delivery::{self, Message, property},
    events::{COMMANDS, CommandOutcome, Event, ReasonCode, RuntimeCommandFailed},
    ids,
    invocation::QueueMessage,
    ledger::{self, Commit, InboxEntry, NewEvent, State},
    outbox_relay,
    outcome::Fault,
    platform::Platform,
    ports::store::{Filter, PAGE_ITEMS_MAX, Page, Partition},
};

/// How long a dead letter is kept.
const KEPT_SECONDS: u32 = 30 * 24 * 60 * 60;
/// What was handled is remembered for longer than any dead letter can be sent again.
const _: () = assert!(ledger::INBOX_SECONDS > KEPT_SECONDS);

/// A message that was filed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    pub dead_letter_id: String,
    /// A code: ours, or the broker's.
    pub reason: String,
    pub detail: Option<String>,
    pub function: Option<String>,
    /// The tenant that it names, where it is understood.
    pub message_tenant_id: Option<String>,
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    pub content_type: Option<String>,
    /// The application properties that it had.
    pub properties: Map<String, Value>,
    /// Base64.
    pub body: String,
    pub filed_at: Timestamp,
}

impl State for DeadLetter {
    const KIND: &'static str = "dead-letter";

    fn made_at(&self) -> Timestamp {
        self.filed_at
    }

    fn ttl_seconds(&self) -> Option<u32> {
        Some(KEPT_SECONDS)
    }
}

/// Files a message, then answers it.
///
/// # Errors
/// When the store is away: the message then comes again.
pub async fn file(platform: &Platform, delivered: &QueueMessage) -> Result<(), Fault> {
    let original = original(delivered);
    let text = |names: [&str; 2]| {
        names.iter().find_map(|name| delivered.properties.get(*name)?.as_str().map(str::to_owned))
    };
    let understood = delivery::understand(platform, "DeadLetters", &original).ok();
    let now = platform.clock.now();
    let own = delivery::own_id(delivered);
    let letter = DeadLetter {
        dead_letter_id: format!("dl-{}", ids::derive(&["dead-letter", &own]).simple()),
        reason: text([property::REASON, "DeadLetterReason"]).unwrap_or_else(|| "Unknown".to_owned()),
        detail: text([property::DETAIL, "DeadLetterErrorDescription"]),
        function: text([property::FUNCTION, property::FUNCTION]),
        message_tenant_id: understood.as_ref().map(|message| message.envelope.tenant_id.to_string()),
        event_id: understood.as_ref().map(|message| message.envelope.event_id.to_string()),
        event_type: understood.as_ref().map(|message| message.envelope.event_type.clone()),
        content_type: original.content_type.clone(),
        properties: original.properties.clone(),
        body: BASE64_STANDARD.encode(&original.body),
        filed_at: now,
    };
    warn!(
        reason = letter.reason,
        "`{}` is filed: {}",
        letter.dead_letter_id,
        letter.detail.as_deref().unwrap_or("no detail")
    );
    let day = now.strftime("%Y%m%d").to_string();
    let mut commit = Commit::new(Partition::platform(&format!("dead-letters-{day}")), now);
    commit.overwrite(&letter.dead_letter_id, &letter)?;
    platform.ledger.commit(commit).await?;
    match understood {
        // What its own function could not read may have lost, on the way here, what contradicted it.
        Some(message)
            if letter.reason != "Unreadable" && COMMANDS.contains(&message.envelope.event_type.as_str()) =>
        {
            answer(platform, &message, &letter).await
        }
        Some(_) | None => Ok(()),
    }
}

/// The message as it was before it was filed.
fn original(delivered: &QueueMessage) -> QueueMessage {
    let kept = |name: &str| delivered.properties.get(name).and_then(Value::as_str);
    let Some(properties) = kept(property::ORIGINAL) else { return delivered.clone() };
    QueueMessage {
        properties: serde_json::from_str(properties).unwrap_or_default(),
        content_type: kept(property::ORIGINAL_CONTENT_TYPE).map(str::to_owned),
        ..delivered.clone()
    }
}

/// Tells a command's sender that it was not carried out, unless it was decided after all.
async fn answer(platform: &Platform, message: &Message, letter: &DeadLetter) -> Result<(), Fault> {
    let envelope = &message.envelope;
    let environment = delivery::named_environment(&envelope.payload);
    let partition = Partition::environment(&envelope.tenant_id, &environment);
    let handler = letter.function.as_deref().unwrap_or(&envelope.event_type);
    // Looked for in all environments of the tenant: not every command names the one that it was decided
    // in, such as ProvisionEnvironment.
    let equal = vec![("eventId".to_owned(), envelope.event_id.to_string())];
    let filter = Filter { equal, ..Filter::default() };
    let entries = platform
        .ledger
        .list::<InboxEntry>(&envelope.tenant_id, &filter, &Page::first(PAGE_ITEMS_MAX))
        .await?;
    if entries.items.iter().any(|(_, entry)| entry.function == handler) {
        return Ok(());
    }
    let expired = letter.reason == "TTLExpiredException";
    let code = if expired { ReasonCode::Expired } else { ReasonCode::DeadLettered };
    let event = Event::RuntimeCommandFailed(RuntimeCommandFailed {
        command_id: envelope.event_id.to_string(),
        command_type: envelope.event_type.clone(),
        outcome: CommandOutcome::Failed,
        reason_code: code,
        detail: format!(
            "The command could not be handled and is kept as the dead letter `{}` ({}): {}",
            letter.dead_letter_id,
            letter.reason,
            letter.detail.as_deref().unwrap_or("the broker gave no detail")
        ),
        retryable: true,
    });
    let id = message.cause(&environment).event("RuntimeCommandFailed", 0);
    let mut commit = Commit::new(partition, message.now);
    commit.remember(&InboxEntry {
        event_id: envelope.event_id.to_string(),
        event_type: envelope.event_type.clone(),
        function: "DeadLetters".to_owned(),
        handled_at: message.now,
        environment_id: (environment != "_").then(|| environment.clone()),
        operation_id: None,
        outcome: "Rejected".to_owned(),
        outcome_event_id: Some(id.clone()),
        detail: letter.detail.clone(),
    })?;
    commit.event(
        &message.lineage(),
        NewEvent {
            id,
            event,
            // The letter is an aggregate of its own: a redriven command may end a second time.
            aggregate: letter.dead_letter_id.clone(),
            sequence: 1,
            caused_by: envelope.event_id.to_string(),
        },
    )?;
    match platform.ledger.commit(commit).await {
        Ok(committed) => {
            outbox_relay::publish(platform, committed).await;
            Ok(())
        }
        // Answered before.
        Err(Fault::Conflict { .. }) => Ok(()),
        Err(fault) => Err(fault),
    }
}
