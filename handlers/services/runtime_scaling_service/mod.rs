//! RuntimeScalingService: how many replicas a workload has, and by what.
//!
//! It alone writes ScalingPolicy, and it alone produces `ScalingPolicyApplied`. A policy is compiled to
//! the target's own terms (`compile.rs`), with which the workload's revisions are started: the target's
//! autoscaler acts on it within seconds. What the target cannot do (the clock, a tenant's quota, a queue
//! that its identity does not see) the sweep does (`scaling_sweep.rs`), by moving the bounds; either way
//! a change is a rollout like any other, behind the same gate.
//!
//! Deliberately absent: scaling to no replicas. The platform looks at every workload each half minute,
//! and would wake it each time.

pub mod apply_scaling_policy;
mod applying;
pub mod compile;
pub mod evaluate;
pub mod scaling_sweep;
pub mod schedule;
pub mod state;

pub use applying::{give_up, step};
pub use state::{PolicyStatus, ScalingPolicy};

use crate::{
    ids::ModuleId,
    ledger::Ledger,
    outcome::Fault,
    ports::{
        compute::ScalingEntry,
        store::{Filter, Page, Partition},
    },
};

/// The most replicas of a revision that the target takes.
const REPLICAS_MAX: u32 = 1000;
/// Pages of policies of one environment, of 100 each.
const PAGES_MAX: usize = 10;

/// What the next revision of a workload is to be started with; none where no policy is in force.
///
/// # Errors
/// When the store is away.
pub async fn entry(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
) -> Result<Option<ScalingEntry>, Fault> {
    let policy = find(ledger, partition, module).await?;
    Ok(policy.filter(|policy| policy.status != PolicyStatus::Failed).map(|policy| policy.wanted.entry))
}

/// A workload's policy.
///
/// # Errors
/// When the store is away.
pub async fn find(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
) -> Result<Option<ScalingPolicy>, Fault> {
    Ok(ledger.load::<ScalingPolicy>(partition, &ScalingPolicy::document(module)).await?.state)
}

/// The policies of an environment, in order of their modules.
///
/// # Errors
/// When the store is away.
pub async fn policies(ledger: &Ledger, partition: &Partition) -> Result<Vec<ScalingPolicy>, Fault> {
    let mut found = Vec::new();
    let mut page = Page::first(100);
    for _ in 0..PAGES_MAX {
        let listing = ledger.query::<ScalingPolicy>(partition, &Filter::default(), &page).await?;
        found.extend(listing.items.into_iter().map(|(_, policy)| policy));
        let Some(next) = listing.next else { break };
        page.after = Some(next);
    }
    found.sort_by(|a, b| a.module_id.cmp(&b.module_id));
    Ok(found)
}

/// Whether two numbers are bounds.
///
/// # Errors
/// The member, and what is wrong with it.
fn bounds_are_good(min: u32, max: u32) -> Result<(), (&'static str, String)> {
    if min == 0 {
        let what = "it must be 1 or more: the platform looks at every workload each half minute, and would wake one without replicas each time";
        return Err(("minReplicas", what.to_owned()));
    }
    if max < min || max > REPLICAS_MAX {
        let what = format!(
            "{max} is asked for; it must be at most {REPLICAS_MAX} and no less than minReplicas, {min}"
        );
        return Err(("maxReplicas", what));
    }
    Ok(())
}
