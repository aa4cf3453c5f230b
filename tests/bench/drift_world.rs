//! A world in memory with so many resources, and what a drift sweep computes of it.
//!
//! Half are workloads of one environment. Half are what environments are made of, in lists as long as
//! the infrastructure engine takes them. All begin as texts, as the store and Azure hand them over:
//! reading those is measured, writing them before is not. Of the store itself nothing is measured, nor
//! are the calls to Azure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use jiff::Timestamp;
use runtime_platform::{
    azure::{
        direct::{Arm, Direct, RESOURCES_MAX},
        resource_manager::{LongRunning, Reply},
    },
    ids::{DriftFindingId, EnvironmentId, ModuleId, ServiceId, TenantId},
    ledger::Lineage,
    outcome::Fault,
    ports::{
        clock::SystemClock,
        compute::{
            ComputeTarget, ConfigurationEntry, Observed, Revision, RevisionSpec, RevisionState, SecretEntry,
            Settings, Template, WorkloadRef,
        },
        infrastructure::{Infrastructure, Resource},
    },
    services::{
        runtime_drift_detection_service::{
            findings::{self, Provenance, Scene},
            of_resource, policy, state,
            workload::{self, Desired, Sighting},
        },
        runtime_environment_service::resources::Stage,
    },
};
use serde_json::{Value, json};

use crate::round::{Meter, Round};

/// Workloads whose texts exist at once, as the store's pages do.
const PAGE: usize = 100;
const GROUP: &str = "/subscriptions/00000000-0000-0000-0000-00000000c105/resourceGroups/rg-bench";
const TENANT: &str = "connectsoft";

/// Which resources are not as desired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drifted {
    /// One workload.
    One,
    /// All, in one property each.
    All,
}

impl Drifted {
    pub fn word(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::All => "all",
        }
    }

    pub fn of_word(word: &str) -> Option<Self> {
        [Self::One, Self::All].into_iter().find(|drifted| drifted.word() == word)
    }
}

/// Sweeps a world of so many resources once.
///
/// # Panics
/// When the sweep does not find what drifted, and only that.
pub fn sweep(resources: usize, drifted: Drifted) -> Round {
    let mut meter = Meter::default();
    let workloads = resources / 2;
    let mut sightings = infrastructure(&mut meter, resources - workloads, drifted == Drifted::All);
    let mut known = Vec::with_capacity(workloads);
    for first in (0..workloads).step_by(PAGE) {
        let is_drifted = |number| drifted == Drifted::All || number == workloads / 2;
        let numbers = first..workloads.min(first + PAGE);
        let texts: Vec<_> = numbers.map(|number| Texts::of(number, is_drifted(number))).collect();
        meter.time(|| known.extend(texts.iter().map(Workload::read)));
    }
    let target = target();
    meter.time(|| sightings.extend(known.iter().flat_map(|workload| workload.sightings(&target))));
    let written = meter.time(|| judged(&sightings, known.len()));
    let expected = if drifted == Drifted::All { resources } else { 1 };
    assert_eq!(sightings.len(), expected, "each drift is seen once, and nothing else");
    assert_eq!(written.len(), expected, "each has a finding of its own");
    meter.round()
}

/// Plans the resources that environments are made of, list by list.
fn infrastructure(meter: &mut Meter, resources: usize, drifted: bool) -> Vec<Sighting> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("the runtime starts");
    let mut sightings = Vec::new();
    for first in (0..resources).step_by(RESOURCES_MAX) {
        let numbers = first..resources.min(first + RESOURCES_MAX);
        let (desired, there): (Vec<_>, BTreeMap<_, _>) =
            numbers.map(|number| resource_texts(number, drifted)).unzip();
        let engine = Direct::new(Arc::new(Texted(there)), Arc::new(SystemClock));
        meter.time(|| {
            let desired: Vec<Resource> =
                desired.iter().map(|text| serde_json::from_str(text).expect("it was written so")).collect();
            let plan = runtime.block_on(engine.plan(&desired)).expect("everything can be read");
            sightings.extend(plan.iter().flat_map(of_resource));
        });
    }
    sightings
}

/// A resource of an environment as it is desired, and its id with it as it is.
fn resource_texts(number: usize, drifted: bool) -> (String, (String, String)) {
    let id = format!("{GROUP}/providers/Microsoft.Storage/storageAccounts/st{number:06}");
    let tags = |team: &str| {
        json!({
            "cs-environment-id": "env-0be7c4aa", "cs-isolation": "dedicated", "cs-tenant-id": TENANT,
            "cs-project-id": "proj-bench", "team": team,
        })
    };
    let mut properties = json!({
        "accessTier": "Hot", "allowBlobPublicAccess": false, "allowSharedKeyAccess": false,
        "minimumTlsVersion": "TLS1_2", "publicNetworkAccess": "Disabled", "supportsHttpsTrafficOnly": true,
        "networkAcls": { "bypass": "AzureServices", "defaultAction": "Deny" },
        "encryption": { "keySource": "Microsoft.Storage", "services": { "blob": { "enabled": true }, "file": { "enabled": true } } },
    });
    let sku = json!({ "name": "Standard_LRS" });
    let desired = Resource {
        key: format!("storage-{number}"),
        resource_type: "Microsoft.Storage/storageAccounts".to_owned(),
        api_version: "2024-01-01".to_owned(),
        id: id.clone(),
        body: json!({ "location": "westeurope", "kind": "StorageV2", "sku": sku, "tags": tags("booking"), "properties": properties }),
        depends_on: Vec::new(),
        immutable: vec!["/location".to_owned(), "/kind".to_owned()],
    };
    properties["provisioningState"] = json!("Succeeded");
    properties["creationTime"] = json!("2026-01-02T03:04:05.678Z");
    properties["primaryEndpoints"] =
        json!({ "blob": format!("https://st{number:06}.blob.core.windows.net/") });
    let actual = json!({
        "id": id, "name": format!("st{number:06}"), "type": desired.resource_type, "location": "West Europe",
        "kind": "StorageV2", "sku": { "name": "Standard_LRS", "tier": "Standard" },
        "tags": tags(if drifted { "somebody" } else { "booking" }), "properties": properties,
        "systemData": { "lastModifiedBy": "ops@example.com", "lastModifiedAt": "2026-01-02T03:04:05.678Z" },
    });
    (json!(desired).to_string(), (id, actual.to_string()))
}

/// Resource Manager as far as planning needs it: texts by id.
struct Texted(BTreeMap<String, String>);

#[async_trait]
impl Arm for Texted {
    async fn get(&self, id: &str, _api_version: &str) -> Result<Option<Value>, Fault> {
        Ok(self.0.get(id).map(|text| serde_json::from_str(text).expect("it was written so")))
    }

    async fn put(&self, id: &str, _api_version: &str, _body: &Value) -> Result<Reply, Fault> {
        panic!("planning writes nothing, and this writes {id}")
    }

    async fn delete(&self, id: &str, _api_version: &str) -> Result<Reply, Fault> {
        panic!("planning writes nothing, and this deletes {id}")
    }

    async fn list(&self, path: &str, _api_version: &str) -> Result<Vec<Value>, Fault> {
        panic!("planning lists nothing, and this lists {path}")
    }

    async fn look(&self, _operation: &LongRunning) -> Result<Reply, Fault> {
        panic!("nothing is pending")
    }
}

/// A workload as the store and Azure tell of it.
struct Texts {
    module: String,
    desired: String,
    observed: String,
}

impl Texts {
    fn of(number: usize, drifted: bool) -> Self {
        let spec = spec(number);
        let observed = observed(number, &spec, drifted);
        Self {
            module: format!("module-{number:06}"),
            desired: json!(spec).to_string(),
            observed: json!(observed).to_string(),
        }
    }
}

fn name(number: usize) -> String {
    format!("module-{number:06}")
}

fn spec(number: usize) -> RevisionSpec {
    let numbered = |prefix: &str, count: usize| -> BTreeMap<String, String> {
        (0..count).map(|item| (format!("{prefix}_{item}"), format!("value {item} of {number}"))).collect()
    };
    let secret = |item: usize| SecretEntry {
        variable: format!("SECRET_{item}"),
        key_vault_url: format!("https://kv-bench.vault.azure.net/secrets/s{item}-{number}/0123456789abcdef"),
        identity_id: identity(),
    };
    RevisionSpec {
        scale_rules: Vec::new(),
        suffix: format!("d{number:08x}"),
        deployment_id: format!("dep-{number:08x}"),
        image: format!("acr.azurecr.io/service-{number}@sha256:{number:064x}"),
        port: 8080,
        env: numbered("VARIABLE", 8),
        cpu: 0.5,
        memory: "1Gi".to_owned(),
        min_replicas: 1,
        max_replicas: 10,
        configuration: Some(ConfigurationEntry {
            version: 7,
            content_hash: format!("{number:064x}"),
            settings: numbered("SETTING", 8),
        }),
        secrets: vec![secret(0), secret(1)],
        corrective: false,
    }
}

/// As Azure gives it back: other spellings, and more beside it.
fn observed(number: usize, spec: &RevisionSpec, drifted: bool) -> Observed {
    let revision = Revision {
        name: format!("{}--{}", name(number), spec.suffix),
        deployment_id: Some(spec.deployment_id.clone()),
        image: if drifted { "acr.azurecr.io/by-hand:latest".to_owned() } else { spec.image.clone() },
        active: true,
        state: RevisionState::Running,
        traffic: 100,
        replicas: 3,
        ready_replicas: 3,
        restarts: 1,
        host: Some(format!("{}--{}.azurecontainerapps.io", name(number), spec.suffix)),
        detail: None,
        template: Template { memory: "1024Mi".to_owned(), ..spec.template() },
    };
    let mut tags = target().tags;
    tags.insert("owner".to_owned(), "somebody".to_owned());
    Observed {
        host: Some(format!("{}.azurecontainerapps.io", name(number))),
        revisions: BTreeMap::from([(revision.name.clone(), revision)]),
        settings: Settings {
            external: true,
            port: Some(8080),
            allow_insecure: false,
            tags,
            identities: vec![identity().to_uppercase()],
            modified_by: Some("ops@example.com".to_owned()),
            busy: false,
        },
        complete: false,
    }
}

fn identity() -> String {
    format!("{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-bench")
}

fn target() -> ComputeTarget {
    let tags =
        [("cs-environment-id", "env-0be7c4aa"), ("cs-isolation", "dedicated"), ("cs-tenant-id", TENANT)];
    ComputeTarget {
        target: "container-apps".to_owned(),
        resource_group_id: GROUP.to_owned(),
        host_id: format!("{GROUP}/providers/Microsoft.App/managedEnvironments/cae-bench"),
        identity_id: identity(),
        region: "westeurope".to_owned(),
        tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        workload_profile: None,
    }
}

/// A workload as a sweep holds it.
struct Workload {
    module: ModuleId,
    revision: String,
    spec: RevisionSpec,
    observed: Observed,
}

impl Workload {
    fn read(texts: &Texts) -> Self {
        let spec: RevisionSpec = serde_json::from_str(&texts.desired).expect("it was written so");
        Self {
            module: texts.module.parse().expect("it is an id"),
            revision: format!("{}--{}", texts.module, spec.suffix),
            spec,
            observed: serde_json::from_str(&texts.observed).expect("it was written so"),
        }
    }

    fn sightings(&self, target: &ComputeTarget) -> Vec<Sighting> {
        // A sweep makes both out of the deployment and of what is wanted by now, and takes its own copy
        // of what the listing told.
        let (applied, wanted, observed) = (self.spec.clone(), self.spec.clone(), self.observed.clone());
        let workload = WorkloadRef { target: target.clone(), name: self.module.to_string() };
        let (applied, wanted) = (&applied, &wanted);
        let desired = Desired {
            module_id: &self.module,
            workload: &workload,
            revision: &self.revision,
            applied,
            wanted,
        };
        workload::sightings(&desired, Some(&observed))
    }
}

/// What the sightings make of findings, as they are written. A sweep keeps only so many of one
/// environment; here all are made.
fn judged(sightings: &[Sighting], serving: usize) -> Vec<String> {
    let environment: EnvironmentId = "env-0be7c4aa".parse().expect("it is an id");
    let tenant: TenantId = TENANT.parse().expect("it is an id");
    let now = Timestamp::from_second(1_800_000_000).expect("it is a time");
    let print_of = |sighting: &Sighting| {
        state::fingerprint(&environment, &sighting.resource, &sighting.path, sighting.kind)
    };
    let drifting: BTreeSet<_> = sightings.iter().filter_map(|sighting| sighting.module_id.as_ref()).collect();
    let storm = policy::storm(drifting.len(), serving);
    let scene = Scene {
        environment: &environment,
        stage: Stage::Staging,
        window: now,
        now,
        suppressions: &[],
        storm: storm.as_deref(),
    };
    let mut findings = BTreeMap::new();
    for sighting in sightings {
        let fingerprint = print_of(sighting);
        let id = DriftFindingId::derived(&tenant, &environment, &fingerprint, &now.to_string(), 0);
        let from = provenance(&tenant, &environment, sighting.module_id.as_ref());
        let (finding, _) = findings::first_seen(&scene, id, &fingerprint, sighting, from, &[]);
        let text = serde_json::to_string(&finding).expect("a finding is JSON");
        findings.insert(fingerprint, text);
    }
    findings.into_values().collect()
}

fn provenance(tenant: &TenantId, environment: &EnvironmentId, module: Option<&ModuleId>) -> Provenance {
    Provenance {
        lineage: Lineage {
            tenant_id: tenant.clone(),
            project_id: None,
            module_id: module.cloned(),
            trace_id: "trace-0a1b2c3d".parse().expect("it is an id"),
            correlation_id: "corr-0a1b2c3d".parse().expect("it is an id"),
            command_id: "evt-0a1b2c3d".to_owned(),
            command_type: "Deploy".to_owned(),
            traceparent: None,
        },
        caused_by: "evt-0a1b2c3e".to_owned(),
        service_id: module.map(|module| ServiceId::derived(tenant, environment, module)),
        deployment_id: None,
    }
}
