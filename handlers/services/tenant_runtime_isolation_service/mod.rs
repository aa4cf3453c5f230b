//! TenantRuntimeIsolationService: says which tenants may use an environment, how, and how much of it.
//!
//! It alone writes RuntimeTenantBinding, and it alone produces `RuntimeTenantBound`. A binding is kept
//! with the environment, at its owner's. Where another tenant is bound, a message of the owner's commit
//! has a view of it written at the bound tenant's (`tenant_view.rs`): what the bound tenant deploys
//! rests on that view and is kept beside it.
//!
//! # What a model means here
//! | | `silo` | `pool` | `shared` |
//! |---|---|---|---|
//! | environment | its owner's alone | takes other tenants | takes other tenants |
//! | what is stored | with the environment | in a partition of the tenant's own | in a partition of the tenant's own |
//! | workloads | as they are named | names begin with the binding's digits | names begin with the binding's digits |
//! | they run as | the environment's identity | an identity of the tenant's own | the environment's identity |
//! | they run on | the environment's machines | a workload profile of the tenant's own | the environment's machines |
//! | their secrets | the environment's vault | a vault of the tenant's own | the environment's vault, names with the prefix |
//! | tags | the owner's `cs-tenant-id` | the bound tenant's | the bound tenant's |
//! | quota | judged at Deploy | judged at Deploy | judged at Deploy |
//!
//! A pool's part is made by an operation of BindTenant (`making_part.rs`); `RuntimeTenantBound` is told
//! when it is in place. An owner that is bound to its own pool keeps what the environment was made with.
//!
//! Deliberately absent: network rules between tenants of one pool. Container Apps gives a subnet to an
//! environment and not to an app, and its rules by address would shut a tenant's own workloads out from
//! each other as well; whoever needs that wall needs a `silo`. A binding cannot be ended, and a quota
//! that is lowered under what runs stops nothing that runs: it refuses what comes next.

pub mod bind_tenant;
pub mod ground;
pub mod making_part;
pub mod state;
pub mod tenant_view;

pub use ground::Ground;
pub use state::RuntimeTenantBinding;

use crate::{
    ids::{EnvironmentId, TenantBindingId, TenantId},
    ledger::{Commit, Ledger, Loaded},
    outcome::Fault,
    ports::store::{Filter, Page, Partition},
};

/// Bindings of one environment whose ids may share eight digits.
const ORDINALS_MAX: u32 = 8;
/// Bindings that are read, or views that are asked for, at once.
const VIEWS_AT_ONCE: usize = 50;
/// Pages of an environment's bindings.
const PAGES_MAX: usize = 20;

/// A tenant's binding as the environment's owner has it, or the place where it will be.
struct Located {
    id: TenantBindingId,
    binding: Option<RuntimeTenantBinding>,
    loaded: Loaded<RuntimeTenantBinding>,
}

/// Finds a tenant's binding: the first id that no other tenant's binding has.
async fn locate(
    ledger: &Ledger,
    owner: &TenantId,
    environment: &EnvironmentId,
    bound: &TenantId,
) -> Result<Located, Fault> {
    let partition = Partition::environment(owner, environment.as_str());
    for ordinal in 0..ORDINALS_MAX {
        let id = TenantBindingId::derived(owner, environment, bound, ordinal);
        let (binding, loaded) = ledger.load::<RuntimeTenantBinding>(&partition, id.as_str()).await?.take();
        if binding.as_ref().is_none_or(|binding| binding.bound_tenant_id == *bound) {
            return Ok(Located { id, binding, loaded });
        }
    }
    Err(Fault::Rejected {
        doing: "finding an id for the binding".to_owned(),
        code: "Conflict".to_owned(),
        detail: format!("{ORDINALS_MAX} other tenants have the ids that this one could have"),
    })
}

/// What the names of bound tenants' workloads begin with, in an environment of the owner's partition.
///
/// # Errors
/// When the store is away.
pub async fn prefixes(ledger: &Ledger, partition: &Partition) -> Result<Vec<String>, Fault> {
    let mut prefixes = Vec::new();
    let mut page = Page::first(100);
    for _ in 0..PAGES_MAX {
        let listing = ledger.query::<RuntimeTenantBinding>(partition, &Filter::default(), &page).await?;
        let others = listing.items.iter().map(|(_, binding)| binding);
        let others = others.filter(|binding| binding.bound_tenant_id != binding.owner_tenant_id);
        prefixes.extend(others.map(RuntimeTenantBinding::prefix));
        let Some(next) = listing.next else { break };
        page.after = Some(next);
    }
    Ok(prefixes)
}

/// The owner's partition of an environment, asked from the partition that a bound tenant has of it;
/// none where the partition is the owner's own.
///
/// # Errors
/// When the store is away.
pub async fn owners_partition(ledger: &Ledger, partition: &Partition) -> Result<Option<Partition>, Fault> {
    let view = ledger.load::<RuntimeTenantBinding>(partition, state::VIEW_ID).await?.state;
    Ok(view.map(|view| Partition::environment(&view.owner_tenant_id, &partition.environment_id)))
}

/// The tenants, beside its owner, that an environment is bound to; `partition` is the owner's.
///
/// # Errors
/// When the store is away.
pub async fn bound_tenants(ledger: &Ledger, partition: &Partition) -> Result<Vec<TenantId>, Fault> {
    let bindings = bindings(ledger, partition).await?.into_iter();
    let others = bindings.filter(|binding| binding.bound_tenant_id != binding.owner_tenant_id);
    Ok(others.map(|binding| binding.bound_tenant_id).collect())
}

/// The bindings of an environment; `partition` is the owner's.
///
/// # Errors
/// When the store is away, or there are more than are looked through.
pub async fn bindings(ledger: &Ledger, partition: &Partition) -> Result<Vec<RuntimeTenantBinding>, Fault> {
    let mut bindings = Vec::new();
    let mut page = Page::first(VIEWS_AT_ONCE);
    for _ in 0..PAGES_MAX {
        let listing = ledger.query::<RuntimeTenantBinding>(partition, &Filter::default(), &page).await?;
        bindings.extend(listing.items.into_iter().map(|(_, binding)| binding));
        let Some(next) = listing.next else { return Ok(bindings) };
        page.after = Some(next);
    }
    Err(Fault::Rejected {
        doing: format!("listing the tenants of `{}`", partition.environment_id),
        code: "TooManyTenants".to_owned(),
        detail: format!(
            "there are more than {} of them, more than are looked through",
            PAGES_MAX * VIEWS_AT_ONCE
        ),
    })
}

/// Adds to an owner's commit that the views of bound tenants are to be written anew, a page of them;
/// answers where to go on. `by` is who asks: once each.
///
/// # Errors
/// When the store is away.
pub async fn renew_views(
    ledger: &Ledger,
    commit: &mut Commit,
    after: Option<String>,
    by: &str,
) -> Result<Option<String>, Fault> {
    let page = Page { after, ..Page::first(VIEWS_AT_ONCE) };
    let listing = ledger.query::<RuntimeTenantBinding>(&commit.partition, &Filter::default(), &page).await?;
    for (_, binding) in listing.items.iter().filter(|(_, binding)| binding.bound) {
        tenant_view::ask(commit, binding, by)?;
    }
    Ok(listing.next)
}
