//! Secrets in memory: versions without values.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use jiff::Timestamp;
use runtime_platform::{
    outcome::Fault,
    ports::{
        clock::Clock,
        vault::{ROTATION_TAG, SecretRef, SecretVersion, Vault},
    },
};

use crate::support::{faulty::Trouble, fixed_clock::FixedClock};

/// Vaults in memory. Clones are the same.
#[derive(Clone)]
pub struct FakeVault {
    clock: FixedClock,
    trouble: Trouble,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    secrets: HashMap<SecretRef, Vec<SecretVersion>>,
    /// Calls that are yet to be refused.
    refusals: u32,
    /// Versions without a value.
    empty: BTreeSet<String>,
}

impl FakeVault {
    pub fn new(clock: FixedClock, trouble: Trouble) -> Self {
        Self { clock, trouble, state: Arc::default() }
    }

    /// Puts a version there, as an issuer does.
    pub fn put(&self, secret: &SecretRef, version: &str) {
        let made = self.made(version, BTreeMap::new());
        self.state().secrets.entry(secret.clone()).or_default().push(made);
    }

    /// The next calls are answered with 403, as by a vault that has not heard of a role yet.
    pub fn forbid(&self, calls: u32) {
        self.state().refusals = calls;
    }

    /// A version has, or will have, no value.
    pub fn empty(&self, version: &str) {
        self.state().empty.insert(version.to_owned());
    }

    /// A version ends by itself.
    pub fn expires(&self, secret: &SecretRef, version: &str, at: Timestamp) {
        let mut state = self.state();
        let versions = state.secrets.get_mut(secret).into_iter().flatten();
        versions.filter(|known| known.version == version).for_each(|known| known.expires_at = Some(at));
    }

    /// The enabled versions of a secret, oldest first.
    pub fn enabled(&self, secret: &SecretRef) -> Vec<String> {
        let state = self.state();
        let versions = state.secrets.get(secret).into_iter().flatten();
        versions.filter(|version| version.enabled).map(|version| version.version.clone()).collect()
    }

    /// How many versions a secret has.
    pub fn count(&self, secret: &SecretRef) -> usize {
        self.state().secrets.get(secret).map_or(0, Vec::len)
    }

    fn made(&self, version: &str, tags: BTreeMap<String, String>) -> SecretVersion {
        SecretVersion {
            version: version.to_owned(),
            enabled: true,
            created_at: Some(self.clock.now()),
            expires_at: None,
            tags,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn call<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut State) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let act = async {
            let mut state = self.state();
            if state.refusals > 0 {
                state.refusals -= 1;
                let detail = "the caller has no role that reads secrets".to_owned();
                return Err(Fault::Rejected {
                    doing: format!("calling {name}"),
                    code: "Forbidden".into(),
                    detail,
                });
            }
            act(&mut state)
        };
        self.trouble.around(name, act, |why| Fault::transient(format!("calling {name}"), why)).await
    }
}

#[async_trait]
impl Vault for FakeVault {
    async fn current(&self, secret: &SecretRef) -> Result<Option<SecretVersion>, Fault> {
        self.call("vault.current", |state| {
            let versions = state.secrets.get(secret);
            Ok(versions.and_then(|versions| versions.iter().rev().find(|version| version.enabled)).cloned())
        })
        .await
    }

    async fn versions(&self, secret: &SecretRef) -> Result<Vec<SecretVersion>, Fault> {
        self.call("vault.versions", |state| {
            Ok(state.secrets.get(secret).into_iter().flatten().rev().cloned().collect())
        })
        .await
    }

    async fn generate(&self, secret: &SecretRef, rotation: &str) -> Result<SecretVersion, Fault> {
        self.call("vault.generate", |state| {
            let versions = state.secrets.entry(secret.clone()).or_default();
            let of_it =
                |version: &&SecretVersion| version.tags.get(ROTATION_TAG).is_some_and(|tag| tag == rotation);
            if let Some(made) = versions.iter().find(of_it) {
                return Ok(made.clone());
            }
            let tags = BTreeMap::from([(ROTATION_TAG.to_owned(), rotation.to_owned())]);
            let made = self.made(&format!("generated{}", versions.len() + 1), tags);
            versions.push(made.clone());
            Ok(made)
        })
        .await
    }

    async fn verify(&self, secret: &SecretRef, version: &str) -> Result<bool, Fault> {
        self.call("vault.verify", |state| {
            let mut versions = state.secrets.get(secret).into_iter().flatten();
            let is_enabled = versions.any(|known| known.version == version && known.enabled);
            Ok(is_enabled && !state.empty.contains(version))
        })
        .await
    }

    async fn disable(&self, secret: &SecretRef, version: &str) -> Result<(), Fault> {
        self.call("vault.disable", |state| {
            for known in state.secrets.get_mut(secret).into_iter().flatten() {
                known.enabled &= known.version != version;
            }
            Ok(())
        })
        .await
    }
}
