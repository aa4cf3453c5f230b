//! RuntimeConfigurationService: versions the settings of an environment and brings them to its
//! workloads, one workload first and the rest when that one has passed its gate.
//!
//! It alone writes RuntimeConfiguration, its versions and what each workload holds of them, and it
//! alone produces `ConfigurationPublished` and `ConfigurationSynced`.
//!
//! A version is *published* when the environment wants it, *applied* at a workload when the
//! workload's next revision starts with it, and *confirmed* when a revision that was started with it
//! serves. An applied version is an entry that nothing serving refers to: what runs keeps the settings
//! that it was started with, always. Deliberately absent: changing the settings of a running revision,
//! and values of secrets, which settings only refer to.

mod distribution;
mod looks_secret;
pub mod publish_configuration;
pub mod state;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use distribution::{give_up, step};
pub use state::{ConfigurationVersion, RuntimeConfiguration, WorkloadConfiguration};

use crate::{
    ids::ModuleId,
    ledger::{Commit, Ledger},
    outcome::Fault,
    ports::{compute::ConfigurationEntry, store::Partition},
};

/// What the next revision of a workload is to be started with.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub entry: ConfigurationEntry,
    /// The variables that come from secrets: names of variables, and the bindings behind them.
    pub secret_refs: BTreeMap<String, String>,
}

/// The version that a workload's next revision starts with: the one applied to it; for a workload
/// that no version was applied to yet, the one that has passed in its environment. `at_least` is a
/// version that the next revision was asked to start with, where it is newer.
///
/// # Errors
/// When the store is away, or a version that is referred to is missing.
pub async fn wanted(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
    at_least: Option<u64>,
) -> Result<Option<Wanted>, Fault> {
    let id = state::configuration_id(partition);
    let head = ledger.load::<RuntimeConfiguration>(partition, &id).await?.state;
    let established = head.and_then(|head| head.established);
    let applied = match ledger
        .load::<WorkloadConfiguration>(partition, &WorkloadConfiguration::id(module))
        .await?
        .state
    {
        Some(workload) => workload.applied,
        None => established,
    };
    let Some(mut number) = applied.max(at_least) else { return Ok(None) };
    // A workload may hold on to a version that is older than what is kept.
    if let Some(established) = established.filter(|established| *established > number)
        && version(ledger, partition, number).await?.is_none()
    {
        number = established;
    }
    let found = at(ledger, partition, number).await?;
    let id = ConfigurationVersion::id(&id, number);
    found.map(Some).ok_or_else(|| state::missing(&id))
}

/// A version as a revision is started with it; none where it is not kept any more.
///
/// # Errors
/// When the store is away.
pub async fn at(ledger: &Ledger, partition: &Partition, number: u64) -> Result<Option<Wanted>, Fault> {
    Ok(version(ledger, partition, number).await?.map(|found| {
        let ConfigurationVersion { version, content_hash, settings, secret_refs, .. } = found;
        Wanted { entry: ConfigurationEntry { version, content_hash, settings }, secret_refs }
    }))
}

/// Forgets, in the same commit, that a version failed at a workload: a Deploy may name it again.
///
/// # Errors
/// When the store is away.
pub async fn forgive(
    ledger: &Ledger,
    commit: &mut Commit,
    module: &ModuleId,
    number: u64,
) -> Result<(), Fault> {
    let id = WorkloadConfiguration::id(module);
    let (workload, loaded) = ledger.load::<WorkloadConfiguration>(&commit.partition, &id).await?.take();
    let Some(mut workload) = workload.filter(|workload| workload.has_failed(number)) else { return Ok(()) };
    workload.failed.retain(|failed| failed.version != number);
    commit.put(&loaded, &workload)
}

/// Since when a workload has in place what its next revision is to be started with.
///
/// # Errors
/// When the store is away.
pub async fn in_place_since(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
) -> Result<Option<Timestamp>, Fault> {
    let id = WorkloadConfiguration::id(module);
    let workload = ledger.load::<WorkloadConfiguration>(partition, &id).await?.state;
    Ok(workload.and_then(|workload| workload.applied_at))
}

/// Why a workload cannot be started with a version that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// It was never published.
    Unknown,
    /// The workload has this newer one, which an older one does not overtake.
    Older(u64),
    /// A revision that was started with it failed its gate at this workload.
    Failed,
}

/// Whether a workload may be started with a version that is asked for by number.
///
/// # Errors
/// When the store is away.
pub async fn available(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
    number: u64,
) -> Result<Result<(), Unavailable>, Fault> {
    if version(ledger, partition, number).await?.is_none() {
        return Ok(Err(Unavailable::Unknown));
    }
    let workload =
        ledger.load::<WorkloadConfiguration>(partition, &WorkloadConfiguration::id(module)).await?.state;
    if workload.as_ref().is_some_and(|workload| workload.has_failed(number)) {
        return Ok(Err(Unavailable::Failed));
    }
    let applied = match workload {
        Some(workload) => workload.applied,
        None => wanted(ledger, partition, module, None).await?.map(|wanted| wanted.entry.version),
    };
    Ok(match applied {
        Some(applied) if applied > number => Err(Unavailable::Older(applied)),
        Some(_) | None => Ok(()),
    })
}

async fn version(
    ledger: &Ledger,
    partition: &Partition,
    number: u64,
) -> Result<Option<ConfigurationVersion>, Fault> {
    let id = ConfigurationVersion::id(&state::configuration_id(partition), number);
    Ok(ledger.load::<ConfigurationVersion>(partition, &id).await?.state)
}
