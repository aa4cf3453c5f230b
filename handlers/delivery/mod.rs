//! How a delivered message ends.
//!
//! A message that is understood ends in a committed decision: an event, an operation, or a refusal
//! that its sender is told. What cannot be understood is sent to `dead-letters` with the reason. What
//! cannot be done right now comes back as a delayed copy. An error to the host is the last resort: it
//! redelivers at once, and a hundred times within a second is how a queue is emptied by accident.

mod sent_on;
pub mod subscription;

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::{debug, info, warn};

pub use sent_on::{copy, dead_letter, own_id, property};

use crate::{
    envelope::Envelope,
    events::{
        CommandOutcome, CompletionOutcome, Event, ReasonCode, RuntimeCommandCompleted, RuntimeCommandFailed,
    },
    ids::{self, Cause, TenantId},
    invocation::QueueMessage,
    ledger::{Commit, Committed, InboxEntry, Lineage, NewEvent, inbox_id, outbox_id},
    masstransit::{self, Delivered},
    outbox_relay,
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
    telemetry,
};

/// How long a command is good after it was first enqueued, where its sender did not say.
const COMMAND_LIFE: SignedDuration = SignedDuration::from_hours(6);
/// Times that an invocation looks again at a store that is away; with a second between them it holds
/// on for half a minute.
const HOLDS_MAX: u32 = 30;
/// Times that a decision is taken anew in process because somebody else wrote first.
const CONFLICTS_MAX: u32 = 10;
/// Answers that one command's id may have in one environment: two functions may get the same.
const ANSWERS_MAX: u64 = 16;
/// The queue for what cannot be handled.
pub const DEAD_LETTERS: &str = "dead-letters";
/// The queue for copies of a subscription's messages.
pub const REDELIVERIES: &str = "redeliveries";

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
    Accepted {
        commit: Commit,
        operation_id: Option<ids::OperationId>,
    },
    /// Everything is done by what was written, and told by the event of this id.
    Done {
        commit: Commit,
        outcome: ids::EventId,
    },
    Refused(Refusal),
    /// There is nothing to do, for this reason.
    NoChange {
        commit: Commit,
        detail: String,
    },
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
        Err(unreadable) => {
            return dead_letter(platform, C::NAME, delivered, "Unreadable", &unreadable.to_string()).await;
        }
    };
    telemetry::identify(&message.envelope, delivered.delivery_count);
    let id = message.envelope.event_id.as_str();
    match patiently(platform, id, || handle::<C>(platform, &message, delivered)).await {
        Ok(()) => Ok(()),
        Err(GivenUp { counter, fault }) => copy(platform, C::NAME, delivered, counter, &fault).await,
    }
}

/// Handles a message that the platform sends to itself: what may pass is tried again, then comes back
/// as a delayed copy, and is filed where that does not help.
///
/// # Errors
/// Only when the message could neither be handled, nor copied, nor filed.
pub async fn internal<Fut>(
    platform: &Platform,
    function: &'static str,
    delivered: &QueueMessage,
    attempt: impl FnMut() -> Fut,
) -> Result<(), Fault>
where
    Fut: Future<Output = Result<(), Fault>>,
{
    match patiently(platform, function, attempt).await {
        Ok(()) => Ok(()),
        Err(GivenUp { counter, fault }) => copy(platform, function, delivered, counter, &fault).await,
    }
}

/// What could not be done in this invocation, and the property that counts the copies for it.
struct GivenUp {
    counter: &'static str,
    fault: Fault,
}

/// Tries again in process what may pass: a lost race at once, an absent store for a while.
async fn patiently<Fut>(
    platform: &Platform,
    id: &str,
    mut attempt: impl FnMut() -> Fut,
) -> Result<(), GivenUp>
where
    Fut: Future<Output = Result<(), Fault>>,
{
    let (mut conflicts, mut holds) = (0, 0);
    loop {
        let fault = match attempt().await {
            Ok(()) => return Ok(()),
            Err(fault) => fault,
        };
        match fault {
            Fault::Conflict { .. } if conflicts < CONFLICTS_MAX => {
                conflicts += 1;
                debug!("`{id}` is decided anew: {fault}");
            }
            Fault::Transient { .. } if holds < HOLDS_MAX => {
                holds += 1;
                warn!("`{id}` waits: {}", fault.chain());
                tokio::time::sleep(platform.hold_pause).await;
            }
            Fault::Transient { .. } => return Err(GivenUp { counter: property::AWAY, fault }),
            Fault::Conflict { .. } | Fault::Rejected { .. } | Fault::Unreadable { .. } => {
                return Err(GivenUp { counter: property::ATTEMPT, fault });
            }
        }
    }
}

async fn handle<C: Command>(
    platform: &Platform,
    message: &Message,
    delivered: &QueueMessage,
) -> Result<(), Fault> {
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
    let sequence = match &decision {
        Decision::Accepted { .. } | Decision::Done { .. } => 1,
        Decision::Refused(_) | Decision::NoChange { .. } => {
            free_answer(platform, &partition, &command_id).await?
        }
    };
    let answer = |event: Event| NewEvent {
        id: message.cause(environment).event(event.event_type(), 0),
        event,
        aggregate: command_id.clone(),
        sequence,
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
        Decision::Done { commit, outcome } => {
            info!("`{command_id}` is done");
            let entry = message.entry(environment, "Completed");
            (commit, InboxEntry { outcome_event_id: Some(outcome), ..entry })
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

/// The number of the next answer to a command: another function may have answered the same id.
async fn free_answer(platform: &Platform, partition: &Partition, command_id: &str) -> Result<u64, Fault> {
    for sequence in 1..=ANSWERS_MAX {
        if platform.ledger.raw(partition, &outbox_id(command_id, sequence)).await?.is_none() {
            return Ok(sequence);
        }
    }
    Err(Fault::Rejected {
        doing: format!("answering `{command_id}`"),
        code: "Conflict".to_owned(),
        detail: format!(
            "this id was answered {ANSWERS_MAX} times already; give each command an id of its own"
        ),
    })
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
pub fn understand(
    platform: &Platform,
    function: &'static str,
    delivered: &QueueMessage,
) -> Result<Message, NotUnderstood> {
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
                C::NAME,
                C::NAME,
                message.envelope.event_type
            ),
        ));
    }
    read_payload::<C>(&message.envelope.payload).map(|payload| message.with(payload)).map_err(|problem| {
        let detail = format!("payload.{problem}. Correct the field and send the command with a new eventId.");
        Refusal::new(ReasonCode::InvalidPayload, detail)
    })
}

/// Reads a command's payload.
///
/// # Errors
/// The field and what is wrong with it, e.g. ``reason: missing field `reason` ``.
pub fn read_payload<C: Command>(payload: &Value) -> Result<C, String> {
    serde_path_to_error::deserialize::<_, C>(payload)
        .map_err(|error| format!("{}: {}", error.path(), without_values(&error.inner().to_string())))
}

/// What a reader says of a field, without what the field holds: it may be something to keep.
pub fn without_values(problem: &str) -> String {
    match problem.split_once(", expected ") {
        Some((_, expected)) => format!("it must be {}", in_words(expected)),
        None => problem.to_owned(),
    }
}

/// A reader's word for a type, as a person says it.
fn in_words(expected: &str) -> &str {
    match expected {
        "a string" | "a borrowed string" | "a borrowed str" => "a text",
        "a sequence" => "a list",
        "a map" => "an object",
        "a boolean" => "true or false",
        "f32" | "f64" => "a number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        other if other.starts_with("struct ") => "an object",
        other => other,
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
    let first =
        text(property::FIRST_ENQUEUED).and_then(|at| at.parse::<Timestamp>().ok()).or(delivered.enqueued_at);
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

/// Runs the operation that a tick names.
///
/// # Errors
/// When the store stays away: the message then comes again, and the safety net watches over it.
pub async fn tick(platform: &Platform, delivered: &QueueMessage) -> Result<(), Fault> {
    let tick: crate::operations::Tick = match serde_json::from_slice(&delivered.body) {
        Ok(tick) => tick,
        Err(error) => {
            let detail = format!("the body is no tick: {error}");
            return dead_letter(platform, crate::operations::FUNCTION, delivered, "Unreadable", &detail)
                .await;
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
            "it must be a whole number that is not negative"
        );
        assert_eq!(without_values("missing field `name`"), "missing field `name`");
    }

    #[test]
    fn a_text_that_is_no_environment_has_no_partition_of_its_own() {
        assert_eq!(partition_of("env-1"), "env-1");
        assert_eq!(partition_of("dep-1"), "_");
        assert_eq!(named_environment(&json!({ "environmentId": 7 })), "_");
    }
}
