//! SecretBindingService: which workload reads which secret, and in which version.
//!
//! It alone writes SecretBinding and SecretRotation, and it alone produces `SecretBound` and
//! `SecretRotated`. A binding names a version of a secret in Key Vault; the workload's
//! own identity reads it there. No value is in it, or comes by here.

pub mod bind_secret;
mod moving;
mod roles;
pub mod rotate_secret;
pub mod rotation;
pub mod rotation_state;
pub mod rotation_sweep;
pub mod state;

use std::collections::BTreeMap;

pub use rotation_state::SecretRotation;
pub use state::{BindingStatus, SecretBinding};

use crate::{
    ids::ModuleId,
    ledger::Ledger,
    outcome::Fault,
    ports::{
        compute::SecretEntry,
        store::{Filter, Page, Partition},
        vault::SecretRef,
    },
};

/// Pages of bindings of one environment, of 100 each.
const PAGES_MAX: usize = 20;
/// Secrets that one workload may be bound to.
pub const BINDINGS_MAX: usize = 50;

/// A binding of the environment, by its id.
///
/// # Errors
/// When the store is away.
pub async fn find(ledger: &Ledger, partition: &Partition, id: &str) -> Result<Option<SecretBinding>, Fault> {
    Ok(ledger.load::<SecretBinding>(partition, id).await?.state)
}

/// The bindings of a workload that are in force.
///
/// # Errors
/// When the store is away.
pub async fn bindings(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
) -> Result<Vec<SecretBinding>, Fault> {
    let equal = vec![("moduleId".to_owned(), module.to_string())];
    let page = ledger
        .query::<SecretBinding>(partition, &Filter { equal, ..Filter::default() }, &Page::first(BINDINGS_MAX))
        .await?;
    Ok(page
        .items
        .into_iter()
        .map(|(_, binding)| binding)
        .filter(|binding| binding.version.is_some())
        .collect())
}

/// All bindings of an environment, in order of their ids.
///
/// # Errors
/// When the store is away, or there are more than are looked through.
pub async fn all(ledger: &Ledger, partition: &Partition) -> Result<Vec<SecretBinding>, Fault> {
    let mut found = Vec::new();
    let mut page = Page::first(100);
    for _ in 0..PAGES_MAX {
        let listing = ledger.query::<SecretBinding>(partition, &Filter::default(), &page).await?;
        found.extend(listing.items.into_iter().map(|(_, binding)| binding));
        page.after = listing.next;
        if page.after.is_none() {
            found.sort_by(|a, b| a.secret_binding_id.cmp(&b.secret_binding_id));
            return Ok(found);
        }
    }
    Err(Fault::Rejected {
        doing: format!("reading the secret bindings of `{}`", partition.environment_id),
        code: "TooManyBindings".to_owned(),
        detail: format!("there are more than {} of them", PAGES_MAX * 100),
    })
}

/// The bindings of an environment that read a secret, in whatever version.
///
/// # Errors
/// As [`all`].
async fn sharing(
    ledger: &Ledger,
    partition: &Partition,
    secret: &SecretRef,
) -> Result<Vec<SecretBinding>, Fault> {
    let bindings = all(ledger, partition).await?;
    Ok(bindings.into_iter().filter(|binding| binding.version.is_some() && binding.shares(secret)).collect())
}

/// What a workload's next revision gets of its secrets. A variable is named by `secret_refs` (names of
/// variables, and the bindings behind them), and where that does not speak of a binding, after the secret.
///
/// # Errors
/// When the store is away.
pub async fn entries(
    ledger: &Ledger,
    partition: &Partition,
    module: &ModuleId,
    secret_refs: &BTreeMap<String, String>,
) -> Result<Vec<SecretEntry>, Fault> {
    let mut entries = BTreeMap::new();
    for binding in bindings(ledger, partition, module).await? {
        let Some(url) = binding.url() else { continue };
        let named = secret_refs
            .iter()
            .filter(|(_, id)| **id == binding.secret_binding_id)
            .map(|(name, _)| name.clone());
        let mut variables: Vec<String> = named.collect();
        if variables.is_empty() {
            let own = state::variable(&binding.secret_name);
            if secret_refs.contains_key(&own) {
                continue;
            }
            variables.push(own);
        }
        for variable in variables {
            let identity_id = binding.managed_identity_id.clone();
            entries
                .insert(variable.clone(), SecretEntry { variable, key_vault_url: url.clone(), identity_id });
        }
    }
    Ok(entries.into_values().collect())
}
