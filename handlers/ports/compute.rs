//! Running workloads, blue/green by revision: a new revision is made beside the one that serves, is
//! looked at, gets traffic in steps, and the old one stays activatable.
//!
//! What it promises: every call is idempotent on the revision's name; a revision of another
//! deployment is never adopted; nothing here waits for Azure, a call that is not finished answers
//! with a token to look again.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::outcome::Fault;

/// Where workloads of an environment run: what provisioning left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComputeTarget {
    /// `container-apps`, `app-service` or `aks`.
    pub target: String,
    /// `/subscriptions/.../resourceGroups/...`
    pub resource_group_id: String,
    /// The Container Apps environment, the plan, or the cluster.
    pub host_id: String,
    /// The identity that workloads run as.
    pub identity_id: String,
    pub region: String,
    pub tags: BTreeMap<String, String>,
    /// The machines that workloads run on, by the name that the host has for them; none for those
    /// that everybody shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_profile: Option<String>,
}

/// One workload on one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRef {
    pub target: ComputeTarget,
    /// The name of the app on its target.
    pub name: String,
}

/// A revision as it is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionSpec {
    /// Deterministic: `d` and the deployment's eight digits.
    pub suffix: String,
    /// What made it; written to the revision, so that another deployment's is recognised.
    pub deployment_id: String,
    pub image: String,
    /// The port that the container listens on.
    pub port: u16,
    pub env: BTreeMap<String, String>,
    pub cpu: f64,
    pub memory: String,
    pub min_replicas: u32,
    pub max_replicas: u32,
    /// Settings of a published configuration, in an immutable entry of their own.
    #[serde(default)]
    pub configuration: Option<ConfigurationEntry>,
    /// Environment variables that come from secrets.
    #[serde(default)]
    pub secrets: Vec<SecretEntry>,
    /// Whether it is made to put a workload right: what belongs to the workload as a whole (its
    /// ingress, its identity) is then written too, and not only looked at.
    #[serde(default)]
    pub corrective: bool,
    /// What the target itself scales by, between the two bounds.
    #[serde(default)]
    pub scale_rules: Vec<ScaleRule>,
}

impl RevisionSpec {
    /// What a revision made from this is read to be made with. A variable that the deployment itself
    /// gives comes before one from a secret, and that before one from the configuration.
    pub fn template(&self) -> Template {
        let mut env = BTreeMap::new();
        env.extend(self.configuration.iter().flat_map(|entry| entry.settings.clone()));
        let secrets = self.secrets.iter().filter(|entry| !self.env.contains_key(&entry.variable));
        let secrets: BTreeMap<_, _> =
            secrets.map(|entry| (entry.variable.clone(), entry.key_vault_url.clone())).collect();
        env.retain(|name, _| !secrets.contains_key(name));
        env.extend(self.env.clone());
        Template {
            env,
            secrets,
            configuration: self.configuration.as_ref().map(|entry| entry.version.to_string()),
            cpu: self.cpu,
            memory: self.memory.clone(),
            min_replicas: self.min_replicas,
            max_replicas: self.max_replicas,
            rules: self.scale_rules.iter().map(ScaleRule::value).collect(),
        }
    }
}

/// What a revision was made with, as far as it is compared with what is desired.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Plain variables by name, without those by which a revision names itself.
    pub env: BTreeMap<String, String>,
    /// Variables that come from our entries of secrets, with the URL and version behind each.
    pub secrets: BTreeMap<String, String>,
    /// The version of the configuration that it names.
    pub configuration: Option<String>,
    pub cpu: f64,
    pub memory: String,
    pub min_replicas: u32,
    pub max_replicas: u32,
    /// Rules of scaling: ours as [`ScaleRule::value`], others as the target writes them.
    pub rules: Vec<Value>,
}

/// How many replicas a workload's revisions may have, and by what the target scales them: a scaling
/// policy in the target's terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingEntry {
    pub scaling_policy_id: String,
    /// Counts the changes of what the policy wants of a revision.
    pub generation: u64,
    pub min_replicas: u32,
    pub max_replicas: u32,
    pub rules: Vec<ScaleRule>,
}

/// By what the target scales a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ScaleRule {
    /// Percent of the processors that replicas ask for.
    Cpu { percent: u32 },
    /// Percent of the memory that replicas ask for.
    Memory { percent: u32 },
    /// Requests at a time that are for one replica.
    Requests { concurrent: u32 },
    /// Waiting messages of a queue that are for one replica.
    Queue {
        /// The name of the Service Bus namespace.
        namespace: String,
        queue: String,
        messages: u32,
        /// The identity that reads the queue's length.
        identity_id: String,
    },
}

impl ScaleRule {
    /// The rule as it is compared, whatever a target writes for it.
    pub fn value(&self) -> Value {
        serde_json::to_value(self).expect("numbers and texts always serialise")
    }
}

/// A version of a configuration as a workload holds it: an entry `cfg-v7` that nothing older refers to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationEntry {
    pub version: u64,
    pub content_hash: String,
    /// By name; never secret.
    pub settings: BTreeMap<String, String>,
}

/// A reference to a version of a secret, in an entry of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretEntry {
    /// The environment variable that the workload reads.
    pub variable: String,
    /// e.g. `https://kv-1.vault.azure.net/secrets/db-password/0123`: always with a version.
    pub key_vault_url: String,
    /// The identity that reads it.
    pub identity_id: String,
}

/// A workload as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// The workload's own host, where traffic enters.
    pub host: Option<String>,
    /// By revision name.
    pub revisions: BTreeMap<String, Revision>,
    /// What belongs to the workload as a whole.
    #[serde(default)]
    pub settings: Settings,
    /// Whether all its revisions were read; a listing tells of the one that serves alone.
    #[serde(default)]
    pub complete: bool,
}

/// What a workload has beside its revisions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Whether it is reached from outside.
    pub external: bool,
    pub port: Option<u16>,
    /// Whether it answers without TLS.
    pub allow_insecure: bool,
    pub tags: BTreeMap<String, String>,
    /// The identities that it may run as.
    pub identities: Vec<String>,
    /// Who wrote it last, where the target says so.
    pub modified_by: Option<String>,
    /// Whether a change of it is under way.
    pub busy: bool,
}

/// A revision as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    pub name: String,
    pub deployment_id: Option<String>,
    pub image: String,
    pub active: bool,
    pub state: RevisionState,
    /// Percent of the workload's traffic.
    pub traffic: u32,
    pub replicas: u32,
    pub ready_replicas: u32,
    /// Times that its containers were restarted.
    pub restarts: u32,
    /// The revision's own host, which reaches it whatever the traffic.
    pub host: Option<String>,
    /// What the platform says of it, where it says something.
    pub detail: Option<String>,
    #[serde(default)]
    pub template: Template,
}

/// Whether the platform thinks that a revision can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RevisionState {
    Provisioning,
    /// At least one replica is ready.
    Running,
    /// Replicas come and go.
    Degraded,
    /// It will not run as it is.
    Failed,
    /// Scaled to zero, or deactivated.
    Stopped,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Done,
    /// Look again after this time with [`Compute::resume`].
    Pending {
        token: Value,
        again_in: Duration,
    },
}

#[async_trait]
pub trait Compute: Send + Sync {
    /// None where there is no such workload.
    async fn observe(&self, workload: &WorkloadRef) -> Result<Option<Observed>, Fault>;

    /// All workloads of a target's resource group by name, in few calls: each with the revision that
    /// serves where one does wholly, else with all its revisions.
    async fn list(&self, target: &ComputeTarget) -> Result<Vec<(String, Observed)>, Fault>;

    /// Makes a revision beside those that are there, and gives it no traffic; the first revision of
    /// a workload has nobody to leave the traffic to and takes it all. A revision of this name and
    /// deployment that exists is done; one of another deployment is [`Fault::Rejected`].
    async fn stage(&self, workload: &WorkloadRef, revision: &RevisionSpec) -> Result<Step, Fault>;

    /// Looks once at a call that was not finished.
    async fn resume(&self, token: &Value) -> Result<Step, Fault>;

    /// Gives traffic by revision name, in percent; the weights add up to 100.
    async fn shift(&self, workload: &WorkloadRef, weights: &BTreeMap<String, u32>) -> Result<Step, Fault>;

    async fn activate(&self, workload: &WorkloadRef, revision: &str) -> Result<(), Fault>;

    async fn deactivate(&self, workload: &WorkloadRef, revision: &str) -> Result<(), Fault>;

    /// Stops a workload and deletes it with all its revisions; nothing there is done.
    async fn remove(&self, workload: &WorkloadRef) -> Result<Step, Fault>;

    /// The name that a revision of this suffix has.
    fn revision_name(&self, workload: &WorkloadRef, suffix: &str) -> String;
}
