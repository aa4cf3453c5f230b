//! How a delivered message ends.
//!
//! A message that is understood ends in a committed decision: an event, an operation, or a refusal
//! that its sender is told. What cannot be understood is sent to `dead-letters` with the reason. What
//! cannot be done right now comes back as a delayed copy. An error to the host is the last resort: it
//! redelivers at once, and a hundred times within a second is how a queue is emptied by accident.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tracing::{debug, error, info, warn};

use crate::{
    envelope::Envelope,
    events::{CommandOutcome, CompletionOutcome, Event, ReasonCode, RuntimeCommandCompleted, RuntimeCommandFailed},
    ids::{self, Cause, TenantId},
    invocation::QueueMessage,
    ledger::{Commit, Committed, InboxEntry, Lineage, NewEvent, inbox_id},
    masstransit::{self, Delivered},
    outbox_relay,
    outcome::Fault,
    platform::Platform,
    ports::{bus::Outgoing, store::Partition},
    telemetry,
};

/// How long a command is good after it was first enqueued, where its sender did not say.
const COMMAND_LIFE: SignedDuration = SignedDuration::from_hours(6);
/// Times that an invocation looks again at a store that is away; with a second between them it holds
/// on for half a minute.
const HOLDS_MAX: u32 = 30;
/// Times that a decision is taken anew in process because somebody else wrote first.
const CONFLICTS_MAX: u32 = 10;
/// Delayed copies of one message.
const COPIES_MAX: u32 = 5;
/// Bounds of the delay of a copy, in seconds.
const COPY_DELAY_SECONDS: (u64, u64) = (2, 120);
/// The queue for what cannot be handled.
pub const DEAD_LETTERS: &str = "dead-letters";
/// The queue for copies of a subscription's messages.
pub const REDELIVERIES: &str = "redeliveries";

/// Properties that a copy carries.
pub mod property {
    /// The function that a copy is for.
    pub const FUNCTION: &str = "cs-function";
    /// How many copies came before, for a fault of any kind but an absent store.
    pub const ATTEMPT: &str = "cs-attempt";
    /// How many copies were made while the store was away.
    pub const AWAY: &str = "cs-away";
    /// Raised by every redrive.
    pub const GENERATION: &str = "cs-generation";
    /// When the message was first enqueued, RFC 3339.
    pub const FIRST_ENQUEUED: &str = "cs-first-enqueued";
    /// Why a message was sent to `dead-letters`: a code, and a sentence.
    pub const REASON: &str = "cs-reason";
    pub const DETAIL: &str = "cs-detail";
    /// The application properties that a filed message had, as one JSON text.
    pub const ORIGINAL: &str = "cs-original-properties";
    /// The content type that a filed message had.
    pub const ORIGINAL_CONTENT_TYPE: &str = "cs-original-content-type";
}

/// A message that was understood.
#[derive(Clone, Debug)]
pub struct Message<P = Value> {
    /// The function that handles it.
    pub function: &'static str,
    pub envelope: Envelope<P>,
    pub traceparent: Option<String>,
    /// Until when its sender wants it carried out, where the sender said so.
    pub expires_at: Option<Timestamp>,
    pub now: Timestamp,
}

impl<P> Message<P> {
    pub fn lineage(&self) -> Lineage {
        Lineage::of(&self.envelope, self.traceparent.as_deref())
    }

    /// What ids derive from, in the environment where it is decided.
    pub fn cause<'a>(&'a self, environment: &'a str) -> Cause<'a> {
        Cause {
            tenant: &self.envelope.tenant_id,
            environment,
            function: self.function,
            event_id: self.envelope.event_id.as_str(),
        }
    }

    fn with<Q>(&self, payload: Q) -> Message<Q> {
        Message {
            function: self.function,
            envelope: self.envelope.with(payload),
            traceparent: self.traceparent.clone(),
            expires_at: self.expires_at,
            now: self.now,
        }
    }

    fn entry(&self, environment: &str, outcome: &str) -> InboxEntry {
        InboxEntry {
            event_id: self.envelope.event_id.to_string(),
            event_type: self.envelope.event_type.clone(),
            function: self.function.to_owned(),
            handled_at: self.now,
            environment_id: (environment != "_").then(|| environment.to_owned()),
            operation_id: None,
            outcome: outcome.to_owned(),
            outcome_event_id: None,
            detail: None,
        }
    }
}

/// The domain's no: a code from the closed list, and a sentence that says what was wrong and what to
/// do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: ReasonCode,
    pub detail: String,
    /// Whether the same command may succeed later.
    pub retryable: bool,
}

impl Refusal {
    pub fn new(code: ReasonCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retryable: false }
    }
}

/// What a command's own function decided, besides what it wrote.
#[derive(Debug)]
pub enum Decision {
    /// Work goes on in an operation.
    Accepted { commit: Commit, operation_id: Option<ids::OperationId> },
    Refused(Refusal),
    /// There is nothing to do, for this reason.
    NoChange { commit: Commit, detail: String },
}

/// A command's own function: the environment it is about, and the decision on it.
#[async_trait::async_trait]
pub trait Command: DeserializeOwned + Send + Sync + 'static {
    /// The command's name in the design, its function's name, and its eventType.
    const NAME: &'static str;

    /// The environment whose partition the decision is committed to; `_` for none.
    async fn environment(platform: &Platform, message: &Message<Self>) -> Result<String, Fault>;

    /// Loads what the decision rests on, and decides.
    async fn decide(platform: &Platform, message: &Message<Self>) -> Result<Decision, Fault>;
}

/// Handles a command to its end.
///
/// # Errors
/// Only when the message could neither be decided, nor copied, nor filed: the host then gives it back
/// to the broker.
pub async fn command<C: Command>(platform: &Platform, delivered: &QueueMessage) -> Result<(), Fault> {
    let message = match understand(platform, C::NAME, delivered) {
        Ok(message) => message,
        Err(unreadable) => return dead_letter(platform, C::NAME, delivered, "Unreadable", &unreadable.to_string()).await,
    };
    telemetry::identify(&message.envelope, delivered.delivery_count);
    let (mut conflicts, mut holds) = (0, 0);
    loop {
        let fault = match handle::<C>(platform, &message, delivered).await {
            Ok(()) => return Ok(()),
            Err(fault) => fault,
        };
        match fault {
            Fault::Conflict { .. } if conflicts < CONFLICTS_MAX => {
                conflicts += 1;
                debug!("`{}` is decided anew: {fault}", message.envelope.event_id);
            }
            Fault::Transient { .. } if holds < HOLDS_MAX => {
                holds += 1;
                warn!("`{}` waits: {}", message.envelope.event_id, fault.chain());
                tokio::time::sleep(platform.hold_pause).await;
            }
            Fault::Transient { .. } => return copy(platform, C::NAME, delivered, property::AWAY, &fault).await,
            Fault::Conflict { .. } | Fault::Rejected { .. } | Fault::Unreadable { .. } => {
                return copy(platform, C::NAME, delivered, property::ATTEMPT, &fault).await;
            }
        }
    }
}

async fn handle<C: Command>(platform: &Platform, message: &Message, delivered: &QueueMessage) -> Result<(), Fault> {
    let typed = payload::<C>(message);
    let environment = match &typed {
        Ok(typed) => C::environment(platform, typed).await?,
        Err(_) => named_environment(&message.envelope.payload),
    };
    let partition = Partition::environment(&message.envelope.tenant_id, &environment);
    let inbox = inbox_id(message.function, message.envelope.event_id.as_str());
    if platform.ledger.raw(&partition, &inbox).await?.is_some() {
        info!("`{}` was handled before", message.envelope.event_id);
        return Ok(());
    }
    let decision = match (expired(message, delivered, platform.clock.now()), typed) {
        (Some(refusal), _) | (None, Err(refusal)) => Decision::Refused(refusal),
        (None, Ok(typed)) => C::decide(platform, &typed).await?,
    };
    let committed = conclude(platform, message, &environment, decision).await?;
    outbox_relay::publish(platform, committed).await;
    Ok(())
}

/// Commits a decision with the memory of the message that it answers.
async fn conclude(
    platform: &Platform,
    message: &Message,
    environment: &str,
    decision: Decision,
) -> Result<Committed, Fault> {
    let partition = Partition::environment(&message.envelope.tenant_id, environment);
    let command_id = message.envelope.event_id.to_string();
    let answer = |event: Event| NewEvent {
        id: message.cause(environment).event(event.event_type(), 0),
        event,
        aggregate: command_id.clone(),
        sequence: 1,
        caused_by: command_id.clone(),
    };
    let (mut commit, entry) = match decision {
        Decision::Accepted { commit, operation_id } => {
            info!("`{command_id}` is accepted");
            let entry = InboxEntry {
                operation_id: operation_id.map(|id| id.to_string()),
                ..message.entry(environment, "Accepted")
            };
            (commit, entry)
        }
        Decision::Refused(refusal) => {
            warn!(reason.code = ?refusal.code, "`{command_id}` is refused: {}", refusal.detail);
            let mut commit = Commit::new(partition, message.now);
            let failed = refused(&command_id, message.function, &refusal);
            let answer = answer(failed);
            let outcome_event_id = Some(answer.id.clone());
            commit.event(&message.lineage(), answer)?;
            let entry = message.entry(environment, "Rejected");
            (commit, InboxEntry { detail: Some(refusal.detail), outcome_event_id, ..entry })
        }
        Decision::NoChange { mut commit, detail } => {
            info!("`{command_id}` changes nothing: {detail}");
            let completed = Event::RuntimeCommandCompleted(RuntimeCommandCompleted {
                command_id: command_id.clone(),
                command_type: message.function.to_owned(),
                outcome: CompletionOutcome::NoChange,
                detail: detail.clone(),
            });
            let answer = answer(completed);
            let outcome_event_id = Some(answer.id.clone());
            commit.event(&message.lineage(), answer)?;
            let entry = message.entry(environment, "NoChange");
            (commit, InboxEntry { detail: Some(detail), outcome_event_id, ..entry })
        }
    };
    commit.remember(&entry)?;
    platform.ledger.commit(commit).await
}

/// The event that tells a command's sender of a no.
pub fn refused(command_id: &str, command_type: &str, refusal: &Refusal) -> Event {
    Event::RuntimeCommandFailed(RuntimeCommandFailed {
        command_id: command_id.to_owned(),
        command_type: command_type.to_owned(),
        outcome: CommandOutcome::Rejected,
        reason_code: refusal.code,
        detail: refusal.detail.clone(),
        retryable: refusal.retryable,
    })
}

/// Why a message is not understood.
#[derive(Debug, thiserror::Error)]
pub enum NotUnderstood {
    #[error(transparent)]
    Unreadable(#[from] masstransit::Unreadable),
    #[error("tenantId {0}")]
    Tenant(#[from] ids::IdError),
}

/// Reads a message. No tenant is trusted before its properties and its body agree.
pub fn understand(platform: &Platform, function: &'static str, delivered: &QueueMessage) -> Result<Message, NotUnderstood> {
    let received = masstransit::read(&Delivered {
        content_type: delivered.content_type.as_deref(),
        properties: &delivered.properties,
        message_id: delivered.message_id.as_deref(),
        body: &delivered.body,
    })?;
    let tenant: TenantId = received.envelope.tenant_id.clone().checked()?;
    let mut envelope = received.envelope;
    envelope.tenant_id = tenant;
    Ok(Message {
        function,
        envelope,
        traceparent: received.traceparent,
        expires_at: received.expiration_time,
        now: platform.clock.now(),
    })
}

fn payload<C: Command>(message: &Message) -> Result<Message<C>, Refusal> {
    if message.envelope.event_type != C::NAME {
        return Err(Refusal::new(
            ReasonCode::UnknownCommand,
            format!(
                "The queue of {} takes only {}; this message has the eventType `{}`. Send it to the queue of its own command.",
                C::NAME, C::NAME, message.envelope.event_type
            ),
        ));
    }
    match serde_path_to_error::deserialize::<_, C>(&message.envelope.payload) {
        Ok(payload) => Ok(message.with(payload)),
        Err(error) => Err(Refusal::new(
            ReasonCode::InvalidPayload,
            format!(
                "payload.{}: {}. Correct the field and send the command with a new eventId.",
                error.path(),
                without_values(&error.inner().to_string())
            ),
        )),
    }
}

/// What a reader says of a field, without what the field holds: it may be something to keep.
fn without_values(problem: &str) -> String {
    match problem.split_once(", expected ") {
        Some((_, expected)) => format!("it must be {expected}"),
        None => problem.to_owned(),
    }
}

/// The environment that a payload names, where it cannot be read as a whole.
pub fn named_environment(payload: &Value) -> String {
    partition_of(payload.get("environmentId").and_then(Value::as_str).unwrap_or_default())
}

/// The environment part of the partition for a text that should be an environment's id.
pub fn partition_of(environment_id: &str) -> String {
    ids::EnvironmentId::of_ours(environment_id).map_or_else(|_| "_".to_owned(), |id| id.to_string())
}

/// A command that waited too long is not carried out: its sender has long since gone on.
fn expired(message: &Message, delivered: &QueueMessage, now: Timestamp) -> Option<Refusal> {
    let text = |name: &str| delivered.properties.get(name).and_then(Value::as_str);
    let first = text(property::FIRST_ENQUEUED).and_then(|at| at.parse::<Timestamp>().ok()).or(delivered.enqueued_at);
    let until = message.expires_at.or(first.map(|first| first + COMMAND_LIFE))?;
    (until < now).then(|| Refusal {
        code: ReasonCode::Expired,
        detail: format!(
            "The command was good until {} and was reached only at {}: nothing was done. Send {} again with a new eventId if it is still wanted.",
            crate::envelope::whole_seconds::text(until),
            crate::envelope::whole_seconds::text(now),
            message.function
        ),
        retryable: true,
    })
}

/// Sends the message again, later, as a copy with a message id of its own; past the last copy it is
/// filed.
pub async fn copy(
    platform: &Platform,
    function: &'static str,
    delivered: &QueueMessage,
    counter: &'static str,
    fault: &Fault,
) -> Result<(), Fault> {
    let count = |name: &str| {
        delivered.properties.get(name).and_then(Value::as_str).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0)
    };
    let (attempt, away, generation) =
        (count(property::ATTEMPT), count(property::AWAY), count(property::GENERATION));
    if counter == property::ATTEMPT && attempt >= COPIES_MAX {
        return dead_letter(platform, function, delivered, "AttemptsExhausted", &fault.chain()).await;
    }
    error!(attempt, "handling failed and comes again: {}", fault.chain());
    let now = platform.clock.now();
    let made = if counter == property::ATTEMPT { attempt } else { away };
    let message_id = copy_id(function, delivered, &[generation, attempt, away], counter);
    let delay = SignedDuration::from_secs(copy_delay_seconds(made, &message_id).cast_signed());
    let mut properties = texts(&delivered.properties);
    properties.insert(property::FUNCTION.to_owned(), function.to_owned());
    properties.insert(counter.to_owned(), (made + 1).to_string());
    properties
        .entry(property::FIRST_ENQUEUED.to_owned())
        .or_insert_with(|| delivered.enqueued_at.unwrap_or(now).to_string());
    let queue = crate::functions::queue_of(function).unwrap_or_else(|| REDELIVERIES.to_owned());
    let sent = platform
        .bus
        .send(&Outgoing {
            entity: queue,
            message_id,
            content_type: delivered.content_type.clone().unwrap_or_else(|| "application/json".to_owned()),
            body: delivered.body.clone(),
            properties,
            session_id: None,
            correlation_id: None,
            subject: None,
            scheduled_at: Some(now + delay),
            time_to_live: None,
        })
        .await;
    match sent {
        // The broker never takes this copy, e.g. for its properties; the message is kept all the same.
        Err(Fault::Rejected { detail, .. }) => dead_letter(platform, function, delivered, "NotCopied", &detail).await,
        sent => sent,
    }
}

/// 2 s, 4 s, ... 2 min, less up to a quarter: the copy's id decides how much, so that a crash makes
/// the same copy again.
fn copy_delay_seconds(made: u32, message_id: &str) -> u64 {
    let (least, most) = COPY_DELAY_SECONDS;
    let delay = (least << made.min(6)).min(most);
    let jitter = message_id.bytes().map(u64::from).sum::<u64>() % (delay / 4 + 1);
    delay - jitter
}

fn copy_id(function: &str, delivered: &QueueMessage, counts: &[u32], counter: &str) -> String {
    let own = delivered.message_id.clone().unwrap_or_default();
    let counts = counts.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
    ids::derive(&["copy", function, &own, counter, &counts]).to_string()
}

fn texts(properties: &Map<String, Value>) -> BTreeMap<String, String> {
    properties
        .iter()
        .filter_map(|(name, value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            Some((name.to_lowercase(), text))
        })
        .collect()
}

/// Files a message with the reason, so that nothing is lost and an operator knows why.
pub async fn dead_letter(
    platform: &Platform,
    function: &'static str,
    delivered: &QueueMessage,
    reason: &str,
    detail: &str,
) -> Result<(), Fault> {
    error!(reason, "a message is filed as a dead letter: {detail}");
    let mut properties = BTreeMap::from([
        (property::FUNCTION.to_owned(), function.to_owned()),
        (property::REASON.to_owned(), reason.to_owned()),
        (property::DETAIL.to_owned(), shorten(detail)),
        (property::ORIGINAL.to_owned(), original_properties(&delivered.properties)),
    ]);
    if let Some(content_type) = &delivered.content_type {
        properties.insert(property::ORIGINAL_CONTENT_TYPE.to_owned(), content_type.clone());
    }
    let own = delivered.message_id.clone().unwrap_or_default();
    platform
        .bus
        .send(&Outgoing {
            entity: DEAD_LETTERS.to_owned(),
            message_id: ids::derive(&["dead-letter", function, &own, reason]).to_string(),
            content_type: "application/octet-stream".to_owned(),
            body: delivered.body.clone(),
            properties,
            session_id: None,
            correlation_id: None,
            subject: Some(reason.to_owned()),
            scheduled_at: None,
            time_to_live: None,
        })
        .await
}

/// What one property may take of the headers that properties travel in, in bytes.
const PROPERTY_BYTES_MAX: usize = 3 * 1024;

/// The bytes of a character in a header: what is not ASCII is written as `\uXXXX`, once or twice.
fn header_bytes(character: char) -> usize {
    match character {
        '"' | '\\' => 2,
        ' '..='~' => 1,
        _ => 6 * character.len_utf16(),
    }
}

/// The beginning of a text, as far as a property may go.
fn shorten(text: &str) -> String {
    let mut left = PROPERTY_BYTES_MAX;
    text.chars()
        .take_while(|character| {
            let fits = header_bytes(*character) <= left;
            left = left.saturating_sub(header_bytes(*character));
            fits
        })
        .collect()
}

/// As many application properties as one property may hold, ours first.
fn original_properties(properties: &Map<String, Value>) -> String {
    let mut kept = Map::new();
    let (ours, others): (Vec<_>, Vec<_>) = properties.iter().partition(|(name, _)| name.starts_with("cs-"));
    for (name, value) in ours.into_iter().chain(others) {
        kept.insert(name.clone(), value.clone());
        if Value::Object(kept.clone()).to_string().chars().map(header_bytes).sum::<usize>() > PROPERTY_BYTES_MAX {
            kept.remove(name);
        }
    }
    Value::Object(kept).to_string()
}

/// Runs the operation that a tick names.
///
/// # Errors
/// When the store stays away: the message then comes again, and the safety net watches over it.
pub async fn tick(platform: &Platform, delivered: &QueueMessage) -> Result<(), Fault> {
    let tick: crate::operations::Tick = match serde_json::from_slice(&delivered.body) {
        Ok(tick) => tick,
        Err(error) => {
            let detail = format!("the body is no tick: {error}");
            return dead_letter(platform, "ContinueOperation", delivered, "Unreadable", &detail).await;
        }
    };
    let mut holds = 0;
    loop {
        match crate::operations::run(platform, &tick).await {
            Err(fault @ Fault::Transient { .. }) if holds < HOLDS_MAX => {
                holds += 1;
                warn!(operation.id = %tick.operation_id, "`{}` waits: {}", tick.operation_id, fault.chain());
                tokio::time::sleep(platform.hold_pause).await;
            }
            result => return result,
        }
    }
}

/// Hands a copy to the function that it is for.
///
/// # Errors
/// What that function says.
pub async fn redelivery(platform: &Platform, delivered: QueueMessage) -> Result<(), Fault> {
    let name = delivered.properties.get(property::FUNCTION).and_then(Value::as_str).unwrap_or_default();
    let function = crate::functions::all().into_iter().find(|function| function.name == name);
    match function.map(|function| function.run) {
        Some(crate::functions::Run::Message(run)) => run(platform.clone(), delivered).await,
        Some(crate::functions::Run::Timer(_) | crate::functions::Run::Http(_)) | None => {
            let detail = format!("there is no function `{name}` that takes messages");
            dead_letter(platform, "Redeliveries", &delivered, "UnknownFunction", &detail).await
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_field_holds_is_not_told() {
        assert_eq!(
            without_values("invalid type: string \"hunter2\", expected u16"),
            "it must be u16"
        );
        assert_eq!(without_values("missing field `name`"), "missing field `name`");
    }

    #[test]
    fn delays_grow_and_stay_within_their_bounds() {
        let delays: Vec<u64> = (0..10).map(|made| copy_delay_seconds(made, "m")).collect();
        assert!(delays.windows(2).all(|pair| pair[0] <= pair[1] + pair[1] / 4), "{delays:?}");
        assert!(delays.iter().all(|delay| (1..=120).contains(delay)), "{delays:?}");
        assert_eq!(copy_delay_seconds(3, "m"), copy_delay_seconds(3, "m"));
    }

    #[test]
    fn a_property_fits_into_a_header_whatever_is_in_it() {
        for text in ["x".repeat(10_000), "é".repeat(10_000), "\u{1F600}".repeat(10_000), "\"".repeat(10_000)] {
            let kept = shorten(&text);
            assert!(text.starts_with(&kept) && !kept.is_empty());
            assert!(kept.chars().map(header_bytes).sum::<usize>() <= PROPERTY_BYTES_MAX);
        }
        assert_eq!(shorten("short"), "short");
    }

    #[test]
    fn our_own_properties_are_kept_first() {
        let properties = json!({ "long": "x".repeat(5000), "other": 1, "cs-tenant-id": "acme" });
        let kept: Value = serde_json::from_str(&original_properties(properties.as_object().unwrap())).unwrap();
        assert_eq!(kept, json!({ "cs-tenant-id": "acme", "other": 1 }));
    }

    #[test]
    fn a_text_that_is_no_environment_has_no_partition_of_its_own() {
        assert_eq!(partition_of("env-1"), "env-1");
        assert_eq!(partition_of("dep-1"), "_");
        assert_eq!(named_environment(&json!({ "environmentId": 7 })), "_");
    }
}
