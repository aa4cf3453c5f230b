//! Secrets, by reference. What it promises: no function returns a secret's value, and none takes one;
//! a value is in memory only inside the call that moves it.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::outcome::Fault;

/// A secret in a vault.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// e.g. `https://kv-1.vault.azure.net`
    pub vault_uri: String,
    pub name: String,
}

/// A version of a secret, without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretVersion {
    pub version: String,
    pub enabled: bool,
    pub created_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    /// Tags of the version, among them [`ROTATION_TAG`] on those that we generated.
    pub tags: std::collections::BTreeMap<String, String>,
}

/// The tag that says which rotation generated a version, so that generating twice is generating once.
pub const ROTATION_TAG: &str = "cs-rotation";

#[async_trait]
pub trait Vault: Send + Sync {
    /// The newest enabled version; none where there is no such secret.
    async fn current(&self, secret: &SecretRef) -> Result<Option<SecretVersion>, Fault>;

    /// All versions, newest first, bounded.
    async fn versions(&self, secret: &SecretRef) -> Result<Vec<SecretVersion>, Fault>;

    /// Makes a new version with a value made inside the adapter. `rotation` names the rotation: where a
    /// version with this tag exists, that one is answered and nothing is made.
    async fn generate(&self, secret: &SecretRef, rotation: &str) -> Result<SecretVersion, Fault>;

    /// Whether a version can be read and has a value.
    async fn verify(&self, secret: &SecretRef, version: &str) -> Result<bool, Fault>;

    /// Disables a version; one that is disabled stays so.
    async fn disable(&self, secret: &SecretRef, version: &str) -> Result<(), Fault>;
}
