//! The end of an environment's workloads: nothing serves any more, and nothing begins again.
//!
//! A slot that serves nothing is the fence. A refresh finds nothing to roll out, a rollback conflicts
//! with the slot and is decided anew, and a Deploy conflicts with the environment's own document.

use super::{
    deploy::missing,
    state::{RuntimeDeployment, Slot, app_name},
};
use crate::{
    ids::ModuleId,
    ledger::{Commit, Ledger},
    outcome::Fault,
    ports::{
        compute::{ComputeTarget, WorkloadRef},
        store::{Filter, Page, Partition},
    },
};

/// Pages of workloads of one environment, of 100 each.
const PAGES_MAX: usize = 10;
/// Workloads that one commit retires, each with two documents.
const RETIRED_AT_ONCE: usize = 20;

/// How far an environment's workloads are retired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retired {
    /// A deployment of this workload is in flight, or waits: nothing was added to the commit.
    Busy(ModuleId),
    /// So many were, and there may be more.
    Some(usize),
    /// Nothing serves.
    All,
}

/// Adds to a commit that workloads serve nothing any more, as many as one commit takes.
///
/// # Errors
/// When the store is away.
pub async fn retire(ledger: &Ledger, commit: &mut Commit) -> Result<Retired, Fault> {
    let slots = slots(ledger, &commit.partition).await?;
    let busy = slots.iter().find(|slot| slot.in_flight.is_some() || slot.pending.is_some());
    if let Some(slot) = busy {
        return Ok(Retired::Busy(slot.module_id.clone()));
    }
    let mut retired = 0;
    for slot in slots.iter().filter(|slot| slot.serving.is_some()).take(RETIRED_AT_ONCE) {
        retire_one(ledger, commit, &slot.module_id).await?;
        retired += 1;
    }
    Ok(if retired == 0 { Retired::All } else { Retired::Some(retired) })
}

async fn retire_one(ledger: &Ledger, commit: &mut Commit, module: &ModuleId) -> Result<(), Fault> {
    let (slot, loaded) = ledger.load::<Slot>(&commit.partition, &Slot::id(module)).await?.take();
    let slot = slot.ok_or_else(|| missing(module.as_str()))?;
    if slot.in_flight.is_some() {
        return Err(Fault::Conflict { id: Slot::id(module) });
    }
    if let Some(serving) = &slot.serving {
        let id = serving.deployment_id.as_str();
        let (deployment, loaded) = ledger.load::<RuntimeDeployment>(&commit.partition, id).await?.take();
        if let Some(deployment) = deployment {
            let retired = RuntimeDeployment {
                retired_at: Some(commit.now),
                weight: 0,
                weight_in_place: 0,
                ..deployment
            };
            commit.put(&loaded, &retired)?;
        }
    }
    commit.put(&loaded, &Slot { serving: None, refresh: None, ..slot })
}

/// Every workload that an environment's owner ever had here, on each of the environment's targets.
///
/// # Errors
/// When the store is away.
pub async fn apps(
    ledger: &Ledger,
    partition: &Partition,
    targets: &[ComputeTarget],
) -> Result<Vec<WorkloadRef>, Fault> {
    let slots = slots(ledger, partition).await?;
    let of_slot = |slot: &Slot| {
        let name = app_name(&slot.module_id);
        targets
            .iter()
            .map(move |target| WorkloadRef { target: target.clone(), name: name.clone() })
            .collect::<Vec<_>>()
    };
    Ok(slots.iter().flat_map(of_slot).collect())
}

async fn slots(ledger: &Ledger, partition: &Partition) -> Result<Vec<Slot>, Fault> {
    let mut slots = Vec::new();
    let mut page = Page::first(100);
    for _ in 0..PAGES_MAX {
        let listing = ledger.query::<Slot>(partition, &Filter::default(), &page).await?;
        slots.extend(listing.items.into_iter().map(|(_, slot)| slot));
        let Some(next) = listing.next else { return Ok(slots) };
        page.after = Some(next);
    }
    Err(Fault::Rejected {
        doing: format!("listing the workloads of `{}`", partition.environment_id),
        code: "TooManyWorkloads".to_owned(),
        detail: format!("there are more than {} of them, more than are looked through", PAGES_MAX * 100),
    })
}
