//! Long work, in steps that each may be the last thing a process does.
//!
//! An operation is a document. A numbered tick, a message on `continue-operation`, runs its steps
//! until one must wait or the budget of an invocation is spent; then the next tick is scheduled, with
//! the next number, in the same commit. An old number is dropped. Whoever runs a step holds a lease
//! with an epoch: a slower twin's commit conflicts.
//!
//! A step counts its attempt in the store *before* it acts, so that a step that kills its process is
//! not revived for ever: after five that ended in death or error the operation gives up, in the way
//! its own kind knows. A committed wait sets the count back. Every operation has a deadline.

mod kinds;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, TimestampRound, Unit};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::{
    ids::{self, Cause, EventId, OperationId},
    ledger::{Commit, Ledger, Lineage, Loaded, OutboxMessage, State},
    outbox_relay,
    outcome::Fault,
    platform::Platform,
    ports::{bus::Outgoing, store::Partition},
};

/// The queue that ticks travel on.
pub const TICKS: &str = "continue-operation";
/// The function that runs operations, and that the events of their steps derive from.
pub const FUNCTION: &str = "ContinueOperation";
/// How long one invocation goes on running steps.
const RUN_BUDGET: SignedDuration = SignedDuration::from_secs(10);
/// How long one step may take; what it asked of the world may still happen.
const STEP_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a lease holds: a step and its commit.
const LEASE: SignedDuration = SignedDuration::from_secs(8);
/// How long cleaning up may take once the deadline has passed.
const COMPENSATION: SignedDuration = SignedDuration::from_mins(30);
/// Attempts of one step that may end in death or error.
pub const ATTEMPTS_MAX: u32 = 5;
/// Times that a step is taken anew because somebody else wrote first.
const CONFLICTS_MAX: u32 = 5;
/// How late a tick may be before the safety net sends it again.
const TICK_GRACE: SignedDuration = SignedDuration::from_secs(30);
/// How long the way back may take that begins where the deadline has passed.
const AFTER_DEADLINE: SignedDuration = SignedDuration::from_mins(30);
/// Notes that an operation keeps; the oldest go.
const NOTES_MAX: usize = 100;
/// How long an ended operation is kept.
const ENDED_SECONDS: u32 = 365 * 24 * 60 * 60;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Provision,
    Deploy,
    Rollback,
    /// Brings a version of a configuration to the workloads.
    Configure,
    /// Binds a workload to a secret.
    BindSecret,
    /// Makes the part of a pool that a tenant has for itself.
    BindTenant,
    /// Moves the bindings of a secret to another version of it.
    RotateSecret,
    /// Puts the resources of an environment right.
    Remediate,
    /// Brings a scaling policy to its workload.
    Scale,
    /// Takes an environment down.
    Decommission,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Running,
    Succeeded,
    Failed,
}

/// Something that happened, for a person to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Note {
    pub at: Timestamp,
    pub text: String,
}

/// A long piece of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    pub operation_id: OperationId,
    pub kind: Kind,
    pub environment_id: String,
    pub module_id: Option<String>,
    /// The aggregate that it works on.
    pub subject: String,
    pub status: Status,
    /// Where it stands, in the words of its subject's states.
    pub step: String,
    /// Attempts of the step under way that did not end.
    pub attempt: u32,
    /// The number of the tick that may run it next.
    pub tick: u64,
    /// Counts the leases.
    pub epoch: u64,
    pub lease_until: Option<Timestamp>,
    /// When the safety net looks after it.
    pub due: Option<Timestamp>,
    pub deadline: Timestamp,
    pub lineage: Lineage,
    /// The eventId of the message that started it.
    pub caused_by: String,
    pub notes: Vec<Note>,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// The event that told its end.
    pub outcome_event_id: Option<EventId>,
    pub detail: Option<String>,
    /// An operator's order to end it, as a sentence with who and why.
    #[serde(default)]
    pub cancel: Option<String>,
}

impl State for Operation {
    const KIND: &'static str = "operation";

    fn made_at(&self) -> Timestamp {
        self.started_at
    }

    fn due(&self) -> Option<Timestamp> {
        self.due
    }

    fn ttl_seconds(&self) -> Option<u32> {
        self.ended_at.map(|_| ENDED_SECONDS)
    }
}

impl Operation {
    /// What the events of its steps derive from.
    pub fn cause(&self) -> Cause<'_> {
        Cause {
            tenant: &self.lineage.tenant_id,
            environment: &self.environment_id,
            function: FUNCTION,
            event_id: self.operation_id.as_str(),
        }
    }
}

/// A new operation, as a command's own function records it.
#[derive(Clone, Debug)]
pub struct NewOperation {
    pub id: OperationId,
    pub kind: Kind,
    pub module_id: Option<String>,
    pub subject: String,
    pub step: &'static str,
    pub lineage: Lineage,
    pub caused_by: String,
    /// How long it may take in all.
    pub allowed: SignedDuration,
    /// False where it waits for its turn.
    pub starts: bool,
}

/// The message that runs an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tick {
    pub tenant_id: crate::ids::TenantId,
    pub environment_id: String,
    pub operation_id: OperationId,
    pub tick: u64,
}

/// What a step leaves behind: what to write, what to tell, and how it goes on.
#[derive(Debug)]
pub struct Step {
    pub commit: Commit,
    /// Where the operation now stands.
    pub label: &'static str,
    pub notes: Vec<String>,
    pub then: Then,
    /// The event that tells the operation's end, where this step ends it.
    pub outcome: Option<EventId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// The next step at once.
    Next,
    /// The next step after a while.
    Wait(Duration),
    /// The next step after a while; the time does not count against the deadline.
    Hold(Duration),
    /// The same step after a while; the attempt counts as failed.
    Again(Duration),
    Succeeded(String),
    Failed(String),
}

/// Why an operation gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// The other side will not do it.
    Rejected {
        code: String,
        detail: String,
    },
    /// Every attempt of the step ended in death or error.
    Attempts {
        detail: String,
    },
    Deadline,
}

impl GiveUp {
    /// A sentence for the sender and for operators.
    pub fn sentence(&self) -> String {
        match self {
            Self::Rejected { code, detail } => format!("{detail} ({code})"),
            Self::Attempts { detail } => {
                format!("{ATTEMPTS_MAX} attempts ended without a result; the last: {detail}")
            }
            Self::Deadline => "it did not end in the time that is allowed for it".to_owned(),
        }
    }
}

/// Records a new operation and its first tick.
pub fn begin(commit: &mut Commit, new: NewOperation) -> Result<(), Fault> {
    let now = commit.now;
    let operation = Operation {
        operation_id: new.id.clone(),
        kind: new.kind,
        environment_id: commit.partition.environment_id.clone(),
        module_id: new.module_id,
        subject: new.subject,
        status: Status::Running,
        step: new.step.to_owned(),
        attempt: 0,
        tick: 1,
        epoch: 0,
        lease_until: None,
        due: new.starts.then(|| now + TICK_GRACE),
        deadline: now + new.allowed,
        lineage: new.lineage,
        caused_by: new.caused_by,
        notes: Vec::new(),
        started_at: now,
        ended_at: None,
        outcome_event_id: None,
        detail: None,
        cancel: None,
    };
    if new.starts {
        commit.message(&tick_message(&operation, now, None)?)?;
    }
    commit.put(&Ledger::absent(new.id.as_str()), &operation)
}

/// Starts an operation that was waiting for its turn.
pub fn start(
    commit: &mut Commit,
    loaded: &Loaded<Operation>,
    operation: Operation,
    allowed: SignedDuration,
) -> Result<(), Fault> {
    let now = commit.now;
    let operation = Operation {
        tick: operation.tick + 1,
        // Whoever runs a step of it right now has an older tick, and its commit conflicts.
        lease_until: None,
        attempt: 0,
        due: Some(now + TICK_GRACE),
        deadline: now + allowed,
        ..operation
    };
    commit.message(&tick_message(&operation, now, None)?)?;
    commit.put(loaded, &operation)
}

/// Ends an operation that never ran, or is ended by somebody else's decision.
pub fn dismiss(
    commit: &mut Commit,
    loaded: &Loaded<Operation>,
    operation: Operation,
    detail: &str,
    outcome: EventId,
) -> Result<(), Fault> {
    let mut operation = operation;
    end(&mut operation, Status::Failed, detail.to_owned(), commit.now);
    operation.outcome_event_id = Some(outcome);
    commit.put(loaded, &operation)
}

/// Has an operation give up at its next step, for this reason; `by` is the order's id.
pub fn cancel(
    commit: &mut Commit,
    loaded: &Loaded<Operation>,
    operation: Operation,
    by: &str,
    why: &str,
) -> Result<(), Fault> {
    nudge(commit, &operation, by)?;
    commit.put(loaded, &Operation { cancel: Some(why.to_owned()), ..operation })
}

/// Records that a waiting operation should look again now: its tick is sent once more, under a
/// message id of its own.
pub fn nudge(commit: &mut Commit, operation: &Operation, why: &str) -> Result<(), Fault> {
    let mut message = tick_message(operation, commit.now, None)?;
    message.message_id = resend_id(operation, why);
    commit.message(&message)
}

fn tick_message(
    operation: &Operation,
    now: Timestamp,
    at: Option<Timestamp>,
) -> Result<OutboxMessage, Fault> {
    let tick = Tick {
        tenant_id: operation.lineage.tenant_id.clone(),
        environment_id: operation.environment_id.clone(),
        operation_id: operation.operation_id.clone(),
        tick: operation.tick,
    };
    let body = serde_json::to_vec(&tick)
        .map_err(|error| Fault::Unreadable { doing: "writing a tick".to_owned(), source: error.into() })?;
    let message = OutboxMessage::json(TICKS, resend_id(operation, "first"), body, now);
    Ok(OutboxMessage { scheduled_at: at, ..message })
}

fn resend_id(operation: &Operation, why: &str) -> String {
    ids::derive(&["tick", operation.operation_id.as_str(), &operation.tick.to_string(), why]).to_string()
}

/// Runs an operation's steps until one must wait, or the invocation's budget is spent.
///
/// # Errors
/// When the store is away, or others kept writing first. The message then comes again, and if it
/// does not, the safety net sends it.
pub async fn run(platform: &Platform, tick: &Tick) -> Result<(), Fault> {
    let partition = Partition::environment(&tick.tenant_id, &tick.environment_id);
    let id = tick.operation_id.as_str();
    let began = platform.clock.now();
    let Some((mut loaded, mut operation)) = claim(platform, &partition, tick).await? else { return Ok(()) };
    let mut conflicts = 0;
    loop {
        let late = platform.clock.now() > operation.deadline;
        let step = match take_step(platform, &operation).await {
            Ok(step) => step,
            Err(Fault::Conflict { .. }) => {
                again(&mut conflicts, id)?;
                match reload(platform, &partition, &operation).await? {
                    Some(fresh) => (loaded, operation) = fresh,
                    None => return Ok(()),
                }
                continue;
            }
            Err(fault) => return Err(fault),
        };
        // Concluded on a copy: where the commit fails, what was held is still what is held.
        let mut concluded = operation.clone();
        let (commit, goes_on) = conclude(platform, &loaded, &mut concluded, step, (began, late))?;
        match platform.ledger.commit(commit).await {
            Ok(committed) => {
                operation = concluded;
                outbox_relay::publish(platform, committed).await;
            }
            Err(Fault::Conflict { .. }) => {
                again(&mut conflicts, id)?;
                match reload(platform, &partition, &operation).await? {
                    Some(fresh) => (loaded, operation) = fresh,
                    None => return Ok(()),
                }
                continue;
            }
            Err(fault) => return Err(fault),
        }
        if !goes_on {
            return Ok(());
        }
        let Some(fresh) = reload(platform, &partition, &operation).await? else { return Ok(()) };
        (loaded, operation) = fresh;
    }
}

fn again(conflicts: &mut u32, id: &str) -> Result<(), Fault> {
    *conflicts += 1;
    if *conflicts > CONFLICTS_MAX { Err(Fault::Conflict { id: id.to_owned() }) } else { Ok(()) }
}

type Held = (Loaded<Operation>, Operation);

/// Takes the lease and counts the attempt, both before anything is done. None when this tick has
/// nothing to run.
async fn claim(platform: &Platform, partition: &Partition, tick: &Tick) -> Result<Option<Held>, Fault> {
    let loaded = platform.ledger.load::<Operation>(partition, tick.operation_id.as_str()).await?;
    let (Some(mut operation), loaded) = loaded.take() else { return Ok(None) };
    let now = platform.clock.now();
    if operation.status != Status::Running || operation.tick != tick.tick {
        return Ok(None);
    }
    if let Some(until) = operation.lease_until.filter(|until| *until > now) {
        // Somebody runs it, or died running it. Which of the two is known when the lease ends.
        let mut message = tick_message(&operation, now, Some(until))?;
        message.message_id = resend_id(&operation, &format!("lease {}", operation.epoch));
        platform.bus.send(&outbox_relay::outgoing_message(&message)?).await?;
        return Ok(None);
    }
    operation.attempt += 1;
    lease(&mut operation, now);
    let mut commit = Commit::new(partition.clone(), now);
    commit.put(&loaded, &operation)?;
    platform.ledger.commit(commit).await?;
    reload(platform, partition, &operation).await
}

fn lease(operation: &mut Operation, now: Timestamp) {
    operation.epoch += 1;
    operation.lease_until = Some(now + LEASE);
    operation.due = Some(now + LEASE + TICK_GRACE);
}

/// Reads the operation again; none when somebody else holds it by now.
async fn reload(platform: &Platform, partition: &Partition, mine: &Operation) -> Result<Option<Held>, Fault> {
    let loaded = platform.ledger.load::<Operation>(partition, mine.operation_id.as_str()).await?;
    let (Some(operation), loaded) = loaded.take() else { return Ok(None) };
    let still_mine = operation.status == Status::Running
        && operation.epoch == mine.epoch
        && operation.tick == mine.tick
        && operation.lease_until.is_some();
    Ok(still_mine.then_some((loaded, operation)))
}

/// Takes one step; what went wrong becomes a step too, except a lost race and an absent store.
async fn take_step(platform: &Platform, operation: &Operation) -> Result<Step, Fault> {
    let now = platform.clock.now();
    if let Some(why) = &operation.cancel {
        let why = GiveUp::Rejected { code: "Cancelled".to_owned(), detail: why.clone() };
        return give_up(platform, operation, why).await;
    }
    if now > operation.deadline {
        return give_up(platform, operation, GiveUp::Deadline).await;
    }
    if operation.attempt > ATTEMPTS_MAX {
        let detail = "the process died, or the store was away".to_owned();
        return give_up(platform, operation, GiveUp::Attempts { detail }).await;
    }
    let step = tokio::time::timeout(STEP_TIMEOUT, kinds::step(platform, operation)).await;
    let fault = match step {
        Ok(Ok(step)) => return Ok(step),
        Ok(Err(fault)) => fault,
        Err(_) => Fault::transient(
            format!("taking the step {} of `{}`", operation.step, operation.operation_id),
            format!("no end within {} seconds", STEP_TIMEOUT.as_secs()),
        ),
    };
    match fault {
        Fault::Conflict { .. } => Err(fault),
        Fault::Rejected { code, detail, .. } => {
            give_up(platform, operation, GiveUp::Rejected { code, detail }).await
        }
        Fault::Transient { retry_after: Some(after), .. } => {
            // The other side asked for patience: that is a wait, not a failed attempt.
            Ok(retry(operation, now, Then::Wait(after), "asked to wait"))
        }
        Fault::Transient { .. } | Fault::Unreadable { .. } if operation.attempt >= ATTEMPTS_MAX => {
            give_up(platform, operation, GiveUp::Attempts { detail: fault.chain() }).await
        }
        Fault::Transient { .. } | Fault::Unreadable { .. } => {
            warn!(operation.id = %operation.operation_id, attempt = operation.attempt, "step {} of `{}`: {}", operation.step, operation.operation_id, fault.chain());
            let after = Duration::from_secs(1 << operation.attempt.min(6));
            Ok(retry(operation, now, Then::Again(after), &fault.to_string()))
        }
    }
}

fn retry(operation: &Operation, now: Timestamp, then: Then, why: &str) -> Step {
    let partition = Partition::environment(&operation.lineage.tenant_id, &operation.environment_id);
    Step {
        commit: Commit::new(partition, now),
        label: "",
        notes: vec![format!("{why}; comes again")],
        then,
        outcome: None,
    }
}

async fn give_up(platform: &Platform, operation: &Operation, why: GiveUp) -> Result<Step, Fault> {
    info!(operation.id = %operation.operation_id, "`{}` gives up at {}: {}", operation.operation_id, operation.step, why.sentence());
    kinds::give_up(platform, operation, &why).await
}

/// Adds the operation itself to what a step writes, and says whether this invocation goes on.
fn conclude(
    platform: &Platform,
    loaded: &Loaded<Operation>,
    operation: &mut Operation,
    step: Step,
    (began, late): (Timestamp, bool),
) -> Result<(Commit, bool), Fault> {
    let Step { mut commit, label, notes, then, outcome } = step;
    let now = platform.clock.now();
    if !label.is_empty() {
        label.clone_into(&mut operation.step);
    }
    operation.notes.extend(notes.into_iter().map(|text| Note { at: now, text }));
    let excess = operation.notes.len().saturating_sub(NOTES_MAX);
    operation.notes.drain(..excess);
    operation.outcome_event_id = outcome.or(operation.outcome_event_id.take());
    if now > operation.deadline {
        // What is left to do after the deadline is to clean up.
        operation.deadline = now + COMPENSATION;
    }
    if late {
        // What gave up at its deadline needs time to go back: otherwise its next step gave up too, and
        // left the traffic where it was.
        operation.deadline = now + AFTER_DEADLINE;
    }
    let mut goes_on = false;
    match then {
        Then::Next if now.duration_since(began) < RUN_BUDGET => {
            // The next step's attempt is counted by the commit that ends this one.
            operation.attempt = 1;
            lease(operation, now);
            goes_on = true;
        }
        Then::Next => wait(operation, &mut commit, now, None)?,
        Then::Wait(after) => wait(operation, &mut commit, now, Some(after))?,
        Then::Hold(after) => {
            operation.deadline += SignedDuration::try_from(after).unwrap_or(SignedDuration::ZERO);
            wait(operation, &mut commit, now, Some(after))?;
        }
        Then::Again(after) => {
            let attempt = operation.attempt;
            wait(operation, &mut commit, now, Some(after))?;
            operation.attempt = attempt;
        }
        Then::Succeeded(detail) => end(operation, Status::Succeeded, detail, now),
        Then::Failed(detail) => end(operation, Status::Failed, detail, now),
    }
    commit.put(loaded, operation)?;
    Ok((commit, goes_on))
}

fn wait(
    operation: &mut Operation,
    commit: &mut Commit,
    now: Timestamp,
    after: Option<Duration>,
) -> Result<(), Fault> {
    operation.attempt = 0;
    operation.lease_until = None;
    operation.tick += 1;
    let at =
        after.map(|after| whole_second(now + SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX)));
    operation.due = Some(at.unwrap_or(now) + TICK_GRACE);
    commit.message(&tick_message(operation, now, at.filter(|at| *at > now))?)
}

/// The broker schedules to whole seconds: the nearest, so that waits of a second are a second on
/// average.
fn whole_second(at: Timestamp) -> Timestamp {
    at.round(TimestampRound::new().smallest(Unit::Second)).unwrap_or(at)
}

fn end(operation: &mut Operation, status: Status, detail: String, now: Timestamp) {
    operation.attempt = 0;
    operation.lease_until = None;
    operation.due = None;
    operation.status = status;
    operation.ended_at = Some(now);
    operation.detail = Some(detail);
}

/// What the safety net sends for an operation whose tick is overdue. The id includes the minute, or
/// duplicate detection would drop it.
pub fn overdue_tick(operation: &Operation, now: Timestamp) -> Result<Outgoing, Fault> {
    let mut message = tick_message(operation, now, None)?;
    message.message_id = resend_id(operation, &format!("minute {}", now.as_second() / 60));
    outbox_relay::outgoing_message(&message)
}
