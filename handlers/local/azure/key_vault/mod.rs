//! The secrets of Key Vaults on this machine, under the hosts `{vault}.{domain}`.
//!
//! A vault is there when Resource Manager has the resource. One that is deleted and made again is
//! recovered: its secrets are there again. Values are encrypted in the file, and nothing logs them.
//!
//! Absent on purpose: keys and certificates, backup and restore, and rights: a good token for the
//! audience that the challenge names may do anything.

mod api;
mod input;
mod records;
mod refusals;
mod sealing;
mod secrets;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::Router;

use super::{Azure, Shared};
use crate::local::database::{Database, OpenError};
use refusals::Refusal;
use sealing::{KeyError, Seal};

/// What the proof of the key is sealed for, and what it says.
const PROOF: &str = "proof";

/// Why the vaults cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultsError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the key `{key}` is not the one that `{file}` was written with: put the right one back")]
    OtherKey { key: PathBuf, file: PathBuf },
    #[error("cannot use `{file}`: {reason}")]
    Unusable { file: PathBuf, reason: String },
}

/// The stand-in. Cheap to clone.
#[derive(Clone)]
pub struct KeyVaults {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    azure: Arc<Shared>,
    database: Database,
    seal: Arc<Seal>,
}

impl KeyVaults {
    /// Opens the file and, beside it under the same name with the ending `key`, the key; or makes them.
    ///
    /// # Errors
    /// When they cannot be used, or do not belong together.
    pub async fn open(azure: &Azure, file: &Path) -> Result<Self, VaultsError> {
        let key = file.with_extension("key");
        let seal = Arc::new(Seal::open(&key)?);
        let database = Database::open(file, records::FORMS)?;
        let prover = seal.clone();
        let proven = database.write(move |connection| prove(connection, &prover)).await;
        match proven {
            Ok(true) => {
                let inner = Arc::new(Inner { azure: azure.shared.clone(), database, seal });
                *azure.shared.vaults.lock().expect("nobody panics while holding the vaults") =
                    Arc::downgrade(&inner);
                Ok(Self { inner })
            }
            Ok(false) => Err(VaultsError::OtherKey { key, file: file.to_owned() }),
            Err(refusal) => Err(VaultsError::Unusable { file: file.to_owned(), reason: refusal.message }),
        }
    }

    /// The API of all vaults. Its server needs a certificate for each host: see
    /// [`super::hosts_server`].
    pub fn router(&self) -> Router {
        api::router(self.inner.clone())
    }
}

impl Inner {
    /// The value and the version of a secret, for a workload whose right to it has been checked. The
    /// error says why there is none.
    pub(super) async fn reveal(
        &self,
        vault: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<(String, String), String> {
        let vault = secrets::Vault::named(vault, self.azure.clock.now().as_second());
        let (name, version, seal) = (name.to_owned(), version.map(str::to_owned), self.seal.clone());
        let read = move |connection: &rusqlite::Connection| {
            secrets::reveal(connection, &seal, &vault, &name, version.as_deref())
        };
        self.database.read(read).await.map_err(|refusal: Refusal| refusal.message)
    }
}

/// Whether the key is the one that the file was first opened with.
fn prove(connection: &rusqlite::Connection, seal: &Seal) -> Result<bool, Refusal> {
    match records::proof(connection)? {
        Some(sealed) => Ok(seal.open_sealed(PROOF, &sealed).is_ok()),
        None => {
            let sealed = seal.seal(PROOF, PROOF)?;
            records::save_proof(connection, &sealed)?;
            Ok(true)
        }
    }
}
