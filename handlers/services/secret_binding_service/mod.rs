//! SecretBindingService: which workload reads which secret, and in which version.
//!
//! It alone writes SecretBinding. A binding names a version of a secret in Key Vault; the workload's
//! own identity reads it there. No value is in it, or comes by here.

pub mod bind_secret;
pub mod state;

use std::collections::BTreeMap;

pub use state::{BindingStatus, SecretBinding};

use crate::{
    ids::ModuleId,
    ledger::Ledger,
    outcome::Fault,
    ports::{
        compute::SecretEntry,
        store::{Filter, Page, Partition},
    },
};

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
