//! Sweeps: a timer pages through the environments and sends each a message; the function behind that
//! queue looks after one environment and commits in its partition.
//!
//! A timer belongs to no partition and so has no outbox: its messages are sent straight to the bus, and
//! carry an id made of kind, environment and window, so that sending twice is sending once.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{
    delivery,
    ids::{self, TenantId},
    invocation::QueueMessage,
    ledger::State,
    outcome::Fault,
    platform::Platform,
    ports::{
        bus::Outgoing,
        store::{Page, Partition},
    },
    services::{runtime_environment_service::RuntimeEnvironment, tenant_runtime_isolation_service::RuntimeTenantBinding},
};

/// The queue that sweep messages travel on.
pub const SWEEP: &str = "sweep";
/// Pages of environments that one run goes through.
const PAGES_MAX: usize = 100;

/// What is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Health,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Health => "Health",
        }
    }

    /// From one sweep to the next; the window that a message is for.
    fn interval(self) -> SignedDuration {
        match self {
            Self::Health => SignedDuration::from_secs(30),
        }
    }
}

/// The message that has one environment looked after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sweep {
    pub kind: Kind,
    pub tenant_id: TenantId,
    pub environment_id: String,
    /// When the window began.
    pub window: Timestamp,
}

/// The timer's part: a message for every environment that takes deployments, and for every tenant that
/// is bound to another's.
///
/// # Errors
/// When the store or the bus is away; the next window comes.
pub async fn start(platform: &Platform, kind: Kind) -> Result<(), Fault> {
    for documents in [RuntimeEnvironment::KIND, RuntimeTenantBinding::KIND] {
        each(platform, kind, documents).await?;
    }
    Ok(())
}

/// A message for the partition of every document of a kind that is looked after.
async fn each(platform: &Platform, kind: Kind, documents: &str) -> Result<(), Fault> {
    let now = platform.clock.now();
    let window = window(now, kind.interval());
    let mut page = Page::first(100);
    for _ in 0..PAGES_MAX {
        let listing = platform.ledger.due(documents, now, &page).await?;
        for stored in listing.items {
            let Partition { tenant_id, environment_id } = stored.partition;
            let Ok(tenant_id) = tenant_id.parse() else {
                warn!("`{}` is not swept: `{tenant_id}` is no tenant", stored.document.id);
                continue;
            };
            platform.bus.send(&outgoing(&Sweep { kind, tenant_id, environment_id, window })?).await?;
        }
        let Some(next) = listing.next else { break };
        page.after = Some(next);
    }
    Ok(())
}

fn window(now: Timestamp, interval: SignedDuration) -> Timestamp {
    let seconds = interval.as_secs().max(1);
    Timestamp::from_second(now.as_second() / seconds * seconds).unwrap_or(now)
}

fn outgoing(sweep: &Sweep) -> Result<Outgoing, Fault> {
    let body = serde_json::to_vec(sweep)
        .map_err(|error| Fault::Unreadable { doing: "writing a sweep".to_owned(), source: error.into() })?;
    let window = sweep.window.as_second().to_string();
    let name = ["sweep", sweep.kind.as_str(), sweep.tenant_id.as_str(), &sweep.environment_id, &window];
    Ok(Outgoing {
        entity: SWEEP.to_owned(),
        message_id: ids::derive(&name).to_string(),
        content_type: "application/json".to_owned(),
        body,
        properties: std::collections::BTreeMap::new(),
        session_id: None,
        correlation_id: None,
        subject: Some(sweep.kind.as_str().to_owned()),
        scheduled_at: None,
        // A sweep that comes after the next one has nothing to add.
        time_to_live: Some(std::time::Duration::from_secs(kind_seconds(sweep.kind) * 2)),
    })
}

fn kind_seconds(kind: Kind) -> u64 {
    kind.interval().as_secs().unsigned_abs()
}

/// The queue's part: looks after one environment.
///
/// # Errors
/// What the store or the world withheld; the next window comes.
pub async fn one(platform: &Platform, delivered: &QueueMessage) -> Result<(), Fault> {
    let sweep: Sweep = match serde_json::from_slice(&delivered.body) {
        Ok(sweep) => sweep,
        Err(error) => {
            let detail = format!("the body is no sweep: {error}");
            return delivery::dead_letter(platform, "Sweep", delivered, "Unreadable", &detail).await;
        }
    };
    let partition = Partition::environment(&sweep.tenant_id, &sweep.environment_id);
    match sweep.kind {
        Kind::Health => crate::services::runtime_health_service::health_sweep::run(platform, &partition, sweep.window).await,
    }
}
