//! RuntimeDeployment, the slot of a workload, and the record of a gate, as they are stored.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{quarantine::Quarantined, refresh::Wish};
use crate::{
    events::{HealthGateResult, RolledBackReason, Strategy},
    ids::{self, DeploymentId, EnvironmentId, EventId, ModuleId, OperationId},
    ledger::{Lineage, State},
    ports::{
        compute::{ComputeTarget, ConfigurationEntry, RevisionSpec, ScalingEntry, SecretEntry, WorkloadRef},
        probe::Sample,
        registry::ImageReference,
    },
    services::runtime_health_service::health_gate::HealthGate,
};

/// How long deployments are kept that serve nothing any more.
const RETIRED_SECONDS: u32 = 365 * 24 * 60 * 60;
/// The longest name of a container app, in characters, and the shortest.
const APP_NAME_LENGTH_MAX: usize = 32;
const APP_NAME_LENGTH_MIN: usize = 2;

/// Where a deployment stands.
///
/// `Requested -> Provisioning -> Configuring -> RollingOut -> HealthGating -> Promoting -> Completed`;
/// from `RollingOut` on, what fails goes over `RollingBack` to `RolledBack`, or to `Failed` where
/// there is nothing to go back to. `Queued` waits for another deployment of the same workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeploymentStatus {
    Queued,
    Requested,
    Provisioning,
    Configuring,
    RollingOut,
    HealthGating,
    Promoting,
    Completed,
    RollingBack,
    RolledBack,
    Failed,
}

impl DeploymentStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Requested => "Requested",
            Self::Provisioning => "Provisioning",
            Self::Configuring => "Configuring",
            Self::RollingOut => "RollingOut",
            Self::HealthGating => "HealthGating",
            Self::Promoting => "Promoting",
            Self::Completed => "Completed",
            Self::RollingBack => "RollingBack",
            Self::RolledBack => "RolledBack",
            Self::Failed => "Failed",
        }
    }
}

/// What is to run: one generated component with an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    pub module_id: ModuleId,
    /// e.g. `microservice`, `gateway`, `worker`.
    pub component_type: String,
    /// Registry, repository and tag (or digest).
    pub image: String,
    /// `container-apps`, `app-service` or `aks`.
    pub target: String,
    #[serde(default = "default_port")]
    pub port: u16,
    /// What the health gate asks, where the gate itself names no path.
    #[serde(default)]
    pub probe_path: Option<String>,
    /// Plain values; secrets are bound by BindSecret.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Cores.
    #[serde(default = "default_cpu")]
    pub cpu: f64,
    #[serde(default = "default_memory")]
    pub memory: String,
    #[serde(default = "default_replicas")]
    pub min_replicas: u32,
    #[serde(default = "default_replicas")]
    pub max_replicas: u32,
}

fn default_port() -> u16 {
    8080
}

fn default_cpu() -> f64 {
    0.25
}

fn default_memory() -> String {
    "0.5Gi".to_owned()
}

fn default_replicas() -> u32 {
    1
}

/// Why a deployment came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Somebody sent Deploy.
    #[default]
    Deploy,
    /// A configuration came into place.
    Configuration,
    /// A secret was bound or rotated.
    Secret,
    /// A scaling policy changed.
    Scaling,
    /// The world was not as desired.
    Drift,
}

/// A deployment that serves, or served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Serving {
    pub deployment_id: DeploymentId,
    pub image: String,
    /// None where it began before digests were known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// The name of its revision.
    pub revision: String,
}

/// An order to end a deployment that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancel {
    pub reason: RolledBackReason,
    /// The eventId of the message that gave the order; for `Cancelled`, the operator's order.
    pub by: String,
    /// The RollbackDeployment behind it, whose sender waits for an end too.
    #[serde(default)]
    pub rollback: Option<Lineage>,
    pub at: Timestamp,
}

/// One rollout of one workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeDeployment {
    pub deployment_id: DeploymentId,
    #[serde(default)]
    pub origin: Origin,
    pub environment_id: EnvironmentId,
    /// That of the workload, once more: listings filter on it.
    pub module_id: ModuleId,
    pub workload: Workload,
    /// What the image's name stood for when the deployment began. None until it was asked for, and
    /// where it began before digests were known.
    #[serde(default)]
    pub image_digest: Option<String>,
    pub compute_target: ComputeTarget,
    /// The name of its app, where that is not the module's: another tenant's environment.
    #[serde(default)]
    pub app: Option<String>,
    pub strategy: Strategy,
    pub release_ref: Option<String>,
    pub health_gate: HealthGate,
    /// The version of the configuration that it was asked to start with, or a newer one.
    #[serde(default)]
    pub configuration_version: Option<u64>,
    /// The settings that its revision is started with, fixed in the step `Configuring`.
    #[serde(default)]
    pub configuration: Option<ConfigurationEntry>,
    /// The versions of secrets that its revision is started with, fixed in the same step.
    #[serde(default)]
    pub secrets: Vec<SecretEntry>,
    /// What the workload's scaling policy wants of its revision, fixed in the same step; the workload's
    /// own bounds are for where there is no policy.
    #[serde(default)]
    pub scaling: Option<ScalingEntry>,
    /// Whether something that is kept out here was left out of it.
    #[serde(default)]
    pub held_back: bool,
    pub status: DeploymentStatus,
    /// What served when this one began.
    pub previous: Option<Serving>,
    /// The name of its revision, once it is known.
    pub revision: Option<String>,
    /// The workload's host, once it is known.
    pub host: Option<String>,
    /// Percent of the traffic that is meant for it. The first weight that is recorded is where
    /// shifting begins.
    pub weight: u32,
    /// Percent of the traffic that it was given.
    pub weight_in_place: u32,
    /// When it was given all the traffic.
    #[serde(default)]
    pub shifted_at: Option<Timestamp>,
    pub gate_started_at: Option<Timestamp>,
    /// Failed answers since its traffic began to shift, without a good one between them.
    pub failures_in_a_row: u32,
    /// A call to Azure that is not finished.
    pub pending: Option<Value>,
    pub cancel: Option<Cancel>,
    /// The suffix of its revision, where it was made anew with other versions of its secrets.
    #[serde(default)]
    pub suffix: Option<String>,
    /// What a rollback goes back to.
    pub restore: Option<Serving>,
    pub rolled_back_reason: Option<RolledBackReason>,
    pub gate_result: Option<HealthGateResult>,
    /// Whether it was the application that failed the gate, and not the way to it.
    #[serde(default)]
    pub application_failed: bool,
    /// Why it stands where it stands, for a person.
    pub reason: Option<String>,
    pub operation_id: OperationId,
    /// The Deploy that it answers.
    pub lineage: Lineage,
    /// The eventId of its RuntimeDeploymentRequested.
    pub requested_event_id: String,
    /// The eventId of its RuntimeDeploymentCompleted, once it has completed.
    #[serde(default)]
    pub completed_event_id: Option<EventId>,
    /// Counts its events.
    pub sequence: u64,
    pub requested_at: Timestamp,
    /// When what its revision is started with was fixed.
    #[serde(default)]
    pub configured_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// When another deployment took its place.
    pub retired_at: Option<Timestamp>,
}

impl State for RuntimeDeployment {
    const KIND: &'static str = "deployment";

    fn made_at(&self) -> Timestamp {
        self.requested_at
    }

    fn ttl_seconds(&self) -> Option<u32> {
        let serves_nothing = matches!(self.status, DeploymentStatus::RolledBack | DeploymentStatus::Failed)
            || self.retired_at.is_some();
        serves_nothing.then_some(RETIRED_SECONDS)
    }
}

impl RuntimeDeployment {
    /// Whether a newer Deploy may still take its place: no traffic was ever meant for it.
    pub fn can_be_superseded(&self) -> bool {
        match self.status {
            DeploymentStatus::Queued
            | DeploymentStatus::Requested
            | DeploymentStatus::Provisioning
            | DeploymentStatus::Configuring
            | DeploymentStatus::RollingOut
            | DeploymentStatus::HealthGating => true,
            DeploymentStatus::Promoting
            | DeploymentStatus::Completed
            | DeploymentStatus::RollingBack
            | DeploymentStatus::RolledBack
            | DeploymentStatus::Failed => false,
        }
    }

    /// The workload on its target.
    pub fn workload_ref(&self) -> WorkloadRef {
        let name = self.app.clone().unwrap_or_else(|| app_name(&self.module_id));
        WorkloadRef { target: self.compute_target.clone(), name }
    }

    /// `d` and the deployment's eight digits: the same for every attempt, and nobody else's.
    pub fn revision_suffix(&self) -> String {
        self.suffix.clone().unwrap_or_else(|| self.first_suffix())
    }

    fn first_suffix(&self) -> String {
        format!("d{}", self.deployment_id.as_str().trim_start_matches(DeploymentId::PREFIX))
    }

    /// The least and the most replicas of its revision: those of its policy, else the workload's own.
    /// One is the least: a revision that is being looked at must be there.
    pub fn bounds(&self) -> (u32, u32) {
        let own = (self.workload.min_replicas, self.workload.max_replicas);
        let (least, most) =
            self.scaling.as_ref().map_or(own, |scaling| (scaling.min_replicas, scaling.max_replicas));
        (least.max(1), most.max(1))
    }

    /// The image that is run: by its digest, so that a tag that is moved changes nothing.
    pub fn pinned_image(&self) -> String {
        let image = &self.workload.image;
        match (&self.image_digest, ImageReference::parse(image)) {
            (Some(digest), Ok(reference)) => reference.at(digest),
            (Some(_) | None, _) => image.clone(),
        }
    }

    /// The suffix of the revision that an operation makes of it anew.
    pub fn suffix_anew(&self, operation: &OperationId) -> String {
        format!("{}{}", self.first_suffix(), Self::mark_anew(operation))
    }

    /// What the suffixes of all revisions end in that an operation makes anew.
    pub fn mark_anew(operation: &OperationId) -> String {
        format!("r{}", operation.as_str().trim_start_matches(OperationId::PREFIX))
    }

    /// The revision as it is wanted.
    pub fn revision_spec(&self) -> RevisionSpec {
        let (min_replicas, max_replicas) = self.bounds();
        RevisionSpec {
            suffix: self.revision_suffix(),
            deployment_id: self.deployment_id.to_string(),
            image: self.pinned_image(),
            port: self.workload.port,
            env: self.workload.env.clone(),
            cpu: self.workload.cpu,
            memory: self.workload.memory.clone(),
            min_replicas,
            max_replicas,
            configuration: self.configuration.clone(),
            secrets: self.secrets.clone(),
            corrective: self.origin == Origin::Drift,
            scale_rules: self.scaling.as_ref().map(|scaling| scaling.rules.clone()).unwrap_or_default(),
        }
    }

    /// The same workload, about to be rolled out once more: nothing of this rollout's course is left.
    pub fn anew(self) -> Self {
        Self {
            completed_event_id: None,
            configuration_version: None,
            configuration: None,
            secrets: Vec::new(),
            scaling: None,
            held_back: false,
            previous: None,
            revision: None,
            host: None,
            weight: 0,
            weight_in_place: 0,
            shifted_at: None,
            gate_started_at: None,
            failures_in_a_row: 0,
            pending: None,
            cancel: None,
            suffix: None,
            restore: None,
            rolled_back_reason: None,
            gate_result: None,
            application_failed: false,
            reason: None,
            configured_at: None,
            ended_at: None,
            retired_at: None,
            ..self
        }
    }

    /// This deployment as what serves.
    pub fn as_serving(&self) -> Option<Serving> {
        let revision = self.revision.clone()?;
        Some(Serving {
            deployment_id: self.deployment_id.clone(),
            image: self.workload.image.clone(),
            image_digest: self.image_digest.clone(),
            revision,
        })
    }

    /// Traffic in percent, step by step. A first deployment has nobody to share it with.
    pub fn weights(&self) -> &'static [u32] {
        if self.previous.is_none() {
            return &[100];
        }
        match self.strategy {
            Strategy::RollingHealthGated => &[10, 50, 100],
            Strategy::Canary => &[5, 20, 50, 100],
            Strategy::BlueGreen | Strategy::Recreate => &[100],
        }
    }
}

/// The name of a module's app: lower-case letters, digits and hyphens, 2 to 32. A name that would
/// be cut or changed ends in digits of its own, so that two modules never share one.
pub fn app_name(module: &ModuleId) -> String {
    let slug = module.as_str().strip_prefix("module-").unwrap_or(module.as_str());
    let plain: String = slug
        .to_ascii_lowercase()
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() { character } else { '-' })
        .collect();
    let plain = plain.trim_matches('-').to_owned();
    let begins_well = plain.starts_with(|first: char| first.is_ascii_lowercase());
    let is_free = !is_of_tenant(&plain);
    let fits = (APP_NAME_LENGTH_MIN..=APP_NAME_LENGTH_MAX).contains(&plain.len());
    if plain == slug && begins_well && is_free && fits && !plain.contains("--") {
        return plain;
    }
    let digits = ids::derive(&["app", module.as_str()]).simple().to_string();
    let kept: String = plain.replace("--", "-").chars().take(APP_NAME_LENGTH_MAX - 11).collect();
    match kept.trim_matches('-') {
        "" => format!("m-{}", &digits[..8]),
        kept => format!("m-{kept}-{}", &digits[..8]),
    }
}

/// The characters of a bound tenant's prefix: `t` and eight hex digits.
const TENANT_PREFIX_LENGTH: usize = 9;

/// Whether a name begins like those of bound tenants, which the owner's own never do.
fn is_of_tenant(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first() == Some(&b't')
        && bytes.get(TENANT_PREFIX_LENGTH) == Some(&b'-')
        && bytes[1..TENANT_PREFIX_LENGTH].iter().all(u8::is_ascii_hexdigit)
}

/// The name of a module's app in another tenant's environment: the tenant's prefix there, and the
/// module's name, shortened where the two are too long together.
pub(super) fn app_name_of_tenant(prefix: &str, module: &ModuleId) -> String {
    let name = format!("{prefix}-{}", app_name(module));
    if name.len() <= APP_NAME_LENGTH_MAX {
        return name;
    }
    let digits = ids::derive(&["app", module.as_str()]).simple().to_string();
    let kept: String = name.chars().take(APP_NAME_LENGTH_MAX - 9).collect();
    format!("{}-{}", kept.trim_end_matches('-'), &digits[..8])
}

/// Who is in flight for one workload, who waits, who serves. Every decision about the workload
/// rests on this one document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slot {
    pub module_id: ModuleId,
    pub in_flight: Option<DeploymentId>,
    pub pending: Option<DeploymentId>,
    /// Newer ones than that, oldest first, which do not know yet which image they bring.
    #[serde(default)]
    pub arriving: Vec<DeploymentId>,
    pub serving: Option<Serving>,
    /// A refresh that waits for the end of what is in flight.
    #[serde(default)]
    pub refresh: Option<Wish>,
    pub quarantine: Vec<Quarantined>,
    pub made_at: Timestamp,
}

impl State for Slot {
    const KIND: &'static str = "slot";

    fn made_at(&self) -> Timestamp {
        self.made_at
    }
}

impl Slot {
    pub fn new(module_id: ModuleId, now: Timestamp) -> Self {
        Self {
            module_id,
            in_flight: None,
            pending: None,
            arriving: Vec::new(),
            serving: None,
            refresh: None,
            quarantine: Vec::new(),
            made_at: now,
        }
    }

    /// The id of a workload's slot.
    pub fn id(module: &ModuleId) -> String {
        format!("slot-{}", ids::derive(&["slot", module.as_str()]).simple())
    }
}

/// The samples that a gate looked at, kept with its verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GateRecord {
    pub deployment_id: DeploymentId,
    pub started_at: Timestamp,
    pub samples: Vec<Sample>,
    /// `Running` until it is judged.
    pub verdict: String,
    pub reason: Option<String>,
}

impl State for GateRecord {
    const KIND: &'static str = "gate";

    fn made_at(&self) -> Timestamp {
        self.started_at
    }

    fn ttl_seconds(&self) -> Option<u32> {
        Some(RETIRED_SECONDS)
    }
}

impl GateRecord {
    pub fn id(deployment: &DeploymentId) -> String {
        format!("gate-{deployment}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(module: &str) -> String {
        app_name(&module.parse().unwrap())
    }

    #[test]
    fn a_module_that_is_a_good_name_keeps_it() {
        assert_eq!(name("module-reservations-api"), "reservations-api");
        assert_eq!(name("billing"), "billing");
    }

    #[test]
    fn a_name_that_is_changed_gets_digits_of_its_own() {
        for module in [
            "Billing",
            "billing_api",
            "9lives",
            "a--b",
            "x.y",
            "module-",
            "-",
            "module-a",
            &"long".repeat(20),
        ] {
            let name = name(module);
            assert!(name.len() <= APP_NAME_LENGTH_MAX, "{name}");
            assert!(name.starts_with("m-"), "{name}");
            assert!(!name.contains("--") && !name.ends_with('-'), "{name}");
        }
        assert_ne!(name("billing_api"), name("billing.api"));
    }

    #[test]
    fn tenants_of_one_environment_never_share_a_name() {
        let of_tenant = |prefix: &str, module: &str| app_name_of_tenant(prefix, &module.parse().unwrap());
        assert_eq!(of_tenant("t0123abcd", "module-reservations-api"), "t0123abcd-reservations-api");
        let long = ["module-reservations-api-of-the-north", "module-reservations-api-of-the-south"];
        let [north, south] = long.map(|module| of_tenant("t0123abcd", module));
        assert_ne!(north, south);
        assert!(north.len() <= APP_NAME_LENGTH_MAX && north.starts_with("t0123abcd-reserv"), "{north}");
        // An owner's module that is called like a tenant's app gets another name.
        assert!(name("module-t0123abcd-reservations-api").starts_with("m-"));
        assert_eq!(name("module-t0123abcx-api"), "t0123abcx-api");
    }
}
