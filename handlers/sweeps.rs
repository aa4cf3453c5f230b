//! Sweeps: what the platform looks after by itself, environment by environment.
//!
//! A timer belongs to no partition, so it only pages through the environments that there are, and
//! through the parts of them that bound tenants have, and sends each a message on the queue `sweep`.
//! The message's id is of kind, environment and window, so that two timers make one sweep. The function
//! behind the queue does one environment and commits in its partition. What happens between two timers
//! nudges: the same message for one workload, sent by whoever saw it.
//!
//! A sweep that failed is not sent again by the timer: the next window comes.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::{
    delivery,
    ids::{self, EnvironmentId, ModuleId, TenantId},
    invocation::QueueMessage,
    ledger::{Commit, OutboxMessage, State},
    outbox_relay,
    outcome::Fault,
    platform::Platform,
    ports::store::{Page, Partition, Stored},
    services::{
        runtime_drift_detection_service, runtime_environment_service::RuntimeEnvironment,
        runtime_health_service::health_sweep, runtime_scaling_service::scaling_sweep,
        secret_binding_service::rotation_sweep, tenant_runtime_isolation_service,
    },
};

/// The queue that sweeps travel on.
pub const QUEUE: &str = "sweep";
const FUNCTION: &str = "Sweep";
/// Pages of environments that one timer goes through, of 100 each.
const PAGES_MAX: usize = 200;
/// Messages that a timer sends at once.
const SENDS_AT_ONCE: usize = 16;
/// Windows after which a timer's message is stale: newer ones are behind it.
const STALE_WINDOWS: i64 = 3;
/// Sentences that a report keeps.
const NOTES_MAX: usize = 50;
/// How long a report is kept that no newer one replaces.
const REPORT_SECONDS: u32 = 30 * 24 * 60 * 60;

/// What is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    Health,
    Scaling,
    Drift,
    Rotation,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Health, Self::Scaling, Self::Drift, Self::Rotation];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Health => "Health",
            Self::Scaling => "Scaling",
            Self::Drift => "Drift",
            Self::Rotation => "Rotation",
        }
    }

    /// How far two of its timers are apart.
    pub fn window(self) -> Duration {
        Duration::from_secs(match self {
            Self::Health => 30,
            Self::Scaling => 60,
            Self::Drift => 5 * 60,
            Self::Rotation => 60 * 60,
        })
    }

    /// The start of the window that a moment is in.
    fn window_at(self, now: Timestamp) -> Timestamp {
        let length = i64::try_from(self.window().as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(now.as_second().div_euclid(length) * length).unwrap_or(now)
    }
}

/// The message on the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Order {
    kind: Kind,
    tenant_id: TenantId,
    environment_id: EnvironmentId,
    module_id: Option<ModuleId>,
    window: Timestamp,
}

impl Order {
    /// `why` is empty for a timer's.
    fn message(&self, now: Timestamp, why: &str) -> Result<OutboxMessage, Fault> {
        let body = serde_json::to_vec(self).map_err(|error| Fault::Unreadable {
            doing: "writing a sweep's message".to_owned(),
            source: error.into(),
        })?;
        let name = [
            QUEUE,
            self.kind.as_str(),
            self.tenant_id.as_str(),
            self.environment_id.as_str(),
            self.module_id.as_ref().map_or("", ModuleId::as_str),
            &if why.is_empty() { self.window.to_string() } else { why.to_owned() },
        ];
        Ok(OutboxMessage::json(QUEUE, ids::derive(&name).to_string(), body, now))
    }
}

/// What one sweep goes through.
#[derive(Clone, Debug)]
pub struct Scope {
    pub kind: Kind,
    /// Whose partition it is: the environment's owner, or a tenant that is bound to it.
    pub tenant: TenantId,
    pub environment: EnvironmentId,
    pub partition: Partition,
    /// Only this workload, where something nudged.
    pub module: Option<ModuleId>,
    /// The start of the window, or the time of the nudge. The same for every delivery of one sweep.
    pub window: Timestamp,
    pub now: Timestamp,
}

/// What a sweep did, the latest of each kind and environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SweepReport {
    pub kind: Kind,
    /// `_` for what a timer did over all environments.
    pub environment_id: String,
    pub window: Timestamp,
    pub began_at: Timestamp,
    pub ended_at: Timestamp,
    /// Things that were looked at: workloads, resources, bindings; environments for a timer.
    pub checked: u32,
    /// Things that were acted on or told; messages sent for a timer.
    pub changed: u32,
    /// Things that could not be looked at.
    pub unreadable: u32,
    /// Sentences for a person, the first of them.
    pub notes: Vec<String>,
}

impl State for SweepReport {
    const KIND: &'static str = "sweep-report";

    fn made_at(&self) -> Timestamp {
        self.ended_at
    }

    fn ttl_seconds(&self) -> Option<u32> {
        Some(REPORT_SECONDS)
    }
}

impl SweepReport {
    pub fn new(scope: &Scope) -> Self {
        Self::of(scope.kind, scope.environment.as_str(), scope.window, scope.now)
    }

    fn of(kind: Kind, environment: &str, window: Timestamp, now: Timestamp) -> Self {
        Self {
            kind,
            environment_id: environment.to_owned(),
            window,
            began_at: now,
            ended_at: now,
            checked: 0,
            changed: 0,
            unreadable: 0,
            notes: Vec::new(),
        }
    }

    /// Tells something to whoever reads the report.
    pub fn note(&mut self, sentence: impl Into<String>) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(sentence.into());
        }
    }

    /// The document of the latest report of a kind.
    pub fn id(kind: Kind) -> String {
        format!("sweep-{}", kind.as_str().to_ascii_lowercase())
    }
}

/// The body of a timer: has every environment swept.
///
/// # Errors
/// When the store or the bus is away; the next window comes.
pub async fn start(platform: &Platform, kind: Kind) -> Result<(), Fault> {
    let now = platform.clock.now();
    let mut report = SweepReport::of(kind, "_", kind.window_at(now), now);
    for documents in [RuntimeEnvironment::KIND, tenant_runtime_isolation_service::RuntimeTenantBinding::KIND]
    {
        let mut page = Page::first(100);
        for _ in 0..PAGES_MAX {
            let listing = platform.ledger.due(documents, now, &page).await?;
            report.checked += u32::try_from(listing.items.len()).unwrap_or(u32::MAX);
            report.changed += send(platform, &report, &listing.items).await?;
            page.after = listing.next;
            if page.after.is_none() {
                break;
            }
        }
        if page.after.is_some() {
            report.note(format!(
                "there are more than {} of `{documents}`; the rest was left out",
                100 * PAGES_MAX
            ));
        }
    }
    report.ended_at = platform.clock.now();
    let mut commit = Commit::new(Partition::platform("_"), report.ended_at);
    commit.overwrite(&SweepReport::id(kind), &report)?;
    platform.ledger.commit(commit).await?;
    Ok(())
}

async fn send(platform: &Platform, report: &SweepReport, places: &[Stored]) -> Result<u32, Fault> {
    let mut messages = Vec::with_capacity(places.len());
    for place in places {
        let Partition { tenant_id, environment_id } = &place.partition;
        let (Ok(tenant_id), Ok(environment_id)) = (tenant_id.parse(), environment_id.parse()) else {
            warn!("`{tenant_id}/{environment_id}` is no partition of an environment and is not swept");
            continue;
        };
        let order =
            Order { kind: report.kind, tenant_id, environment_id, module_id: None, window: report.window };
        messages.push(outbox_relay::outgoing_message(&order.message(report.began_at, "")?)?);
    }
    let sent = u32::try_from(messages.len()).unwrap_or(u32::MAX);
    let bus = Arc::clone(&platform.bus);
    stream::iter(messages)
        .map(Ok)
        .try_for_each_concurrent(SENDS_AT_ONCE, |message| {
            let bus = Arc::clone(&bus);
            async move { bus.send(&message).await }
        })
        .await?;
    Ok(sent)
}

/// Adds to a decision that its environment, or one workload of it, is to be looked at now. `caused_by`
/// is the eventId of what was seen: seen twice, it is looked at once.
///
/// # Errors
/// When the message cannot be written.
pub fn nudge(
    commit: &mut Commit,
    kind: Kind,
    tenant: &TenantId,
    environment: &EnvironmentId,
    module: Option<&ModuleId>,
    caused_by: &str,
) -> Result<(), Fault> {
    let now = commit.now;
    nudge_at(commit, kind, tenant, environment, module, caused_by, now)
}

/// As [`nudge`], to be looked at at a time.
///
/// # Errors
/// When the message cannot be written.
pub fn nudge_at(
    commit: &mut Commit,
    kind: Kind,
    tenant: &TenantId,
    environment: &EnvironmentId,
    module: Option<&ModuleId>,
    caused_by: &str,
    at: Timestamp,
) -> Result<(), Fault> {
    let order = Order {
        kind,
        tenant_id: tenant.clone(),
        environment_id: environment.clone(),
        module_id: module.cloned(),
        window: at,
    };
    let mut message = order.message(commit.now, caused_by)?;
    message.scheduled_at = (at > commit.now).then_some(at);
    commit.message(&message)
}

/// Does one environment: the function `Sweep`.
///
/// # Errors
/// Only when the message could neither be handled, nor copied, nor filed.
pub async fn one(platform: &Platform, delivered: &QueueMessage) -> Result<(), Fault> {
    let order: Order = match serde_json::from_slice(&delivered.body) {
        Ok(order) => order,
        Err(error) => {
            let detail = format!("the body orders no sweep: {error}");
            return delivery::dead_letter(platform, FUNCTION, delivered, "Unreadable", &detail).await;
        }
    };
    let age = platform.clock.now().duration_since(order.window);
    let window = SignedDuration::try_from(order.kind.window()).unwrap_or(SignedDuration::MAX);
    if order.module_id.is_none() && age.as_secs() > window.as_secs() * STALE_WINDOWS {
        info!(
            "a {} sweep of `{}` came too late: newer ones follow",
            order.kind.as_str(),
            order.environment_id
        );
        return Ok(());
    }
    delivery::internal(platform, FUNCTION, delivered, || sweep(platform, &order)).await
}

async fn sweep(platform: &Platform, order: &Order) -> Result<(), Fault> {
    let Order { kind, tenant_id, environment_id, module_id, window } = order.clone();
    let partition = Partition::environment(&tenant_id, environment_id.as_str());
    let scope = Scope {
        kind,
        tenant: tenant_id,
        environment: environment_id,
        partition: partition.clone(),
        module: module_id,
        window,
        now: platform.clock.now(),
    };
    let mut report = of_kind(platform, &scope).await?;
    if scope.module.is_some() {
        return Ok(());
    }
    report.ended_at = platform.clock.now();
    let mut commit = Commit::new(partition, report.ended_at);
    commit.overwrite(&SweepReport::id(kind), &report)?;
    platform.ledger.commit(commit).await?;
    Ok(())
}

/// What each kind does, one line each.
async fn of_kind(platform: &Platform, scope: &Scope) -> Result<SweepReport, Fault> {
    match scope.kind {
        Kind::Health => Box::pin(health_sweep::sweep(platform, scope)).await,
        Kind::Drift => Box::pin(runtime_drift_detection_service::sweep(platform, scope)).await,
        Kind::Rotation => Box::pin(rotation_sweep::sweep(platform, scope)).await,
        Kind::Scaling => Box::pin(scaling_sweep::sweep(platform, scope)).await,
    }
}
