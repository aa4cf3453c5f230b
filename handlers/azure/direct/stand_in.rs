//! A rendered environment against the stand-in for Resource Manager, over HTTPS and with tokens, as
//! it goes on Azure.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::{Direct, testing::TestClock};
use crate::{
    azure::{
        http_client::{HttpSettings, client, client_options, install_tls_provider},
        resource_manager::ResourceManager,
        testing::{Issuer, tokens},
    },
    local::{
        azure::{Azure, AzureOptions},
        certificates::Authority,
        https,
    },
    ports::infrastructure::{
        Advance, Change, Infrastructure, PlannedChange, Progress, Removal, Removing, Resource,
    },
    services::runtime_environment_service::resources::{
        EnvironmentSpec, IsolationModel, Stage, TargetKind, TenantPart, resources,
    },
};

const SUBSCRIPTION: &str = "11111111-2222-3333-4444-555555555555";
const DIRECTORY: &str = "99999999-8888-7777-6666-555555555555";
/// The most looks that provisioning takes here.
const LOOKS_MAX: usize = 2000;
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// The stand-in's operations take this part of their usual time.
const PACE: f64 = 0.02;

struct Bench {
    manager: ResourceManager,
    engine: Direct,
    clock: Arc<TestClock>,
    server: tokio::task::JoinHandle<std::convert::Infallible>,
    _directory: tempfile::TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn bench() -> Bench {
    install_tls_provider();
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path()).unwrap();
    let tls = authority.server(&["management.localhost"]).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://management.localhost:{}", listener.local_addr().unwrap().port());
    let options = AzureOptions {
        pace: PACE,
        retry_after_seconds: 0,
        ..AzureOptions::new(directory.path().join("azure.db"), tokens(), endpoint.clone(), 9443)
    };
    let azure = Azure::open(options).unwrap();
    let server = tokio::spawn(https::serve(listener, Some(tls), azure.router()));
    let settings = HttpSettings {
        additional_root: Some(authority.root_certificate().to_owned()),
        resolve_localhost: true,
        ..HttpSettings::default()
    };
    let options = client_options(&client(&settings).unwrap());
    let manager = ResourceManager::new(&endpoint, options, Arc::new(Issuer)).unwrap();
    let clock = Arc::new(TestClock::default());
    let engine = Direct::new(Arc::new(manager.clone()), clock.clone());
    Bench { manager, engine, clock, server, _directory: directory }
}

impl Bench {
    async fn run(&self, desired: &[Resource], plan: &[PlannedChange]) -> Advance {
        let mut progress = Progress::default();
        for _ in 0..LOOKS_MAX {
            match self.engine.advance(desired, plan, progress).await.unwrap() {
                Advance::Running { progress: next, again_in } => {
                    progress = next;
                    // What asks for seconds at Azure is done in a moment here.
                    self.clock.pass(again_in);
                    tokio::time::sleep(LOOK_PAUSE).await;
                }
                end => return end,
            }
        }
        panic!("no end after {LOOKS_MAX} looks");
    }

    async fn remove(&self, desired: &[Resource]) -> Removal {
        let mut removal = Removal::default();
        for _ in 0..LOOKS_MAX {
            match self.engine.remove(desired, removal).await.unwrap() {
                Removing::Running { removal: next, again_in } => {
                    removal = next;
                    self.clock.pass(again_in);
                    tokio::time::sleep(LOOK_PAUSE).await;
                }
                Removing::Done { removal } => return removal,
            }
        }
        panic!("no end after {LOOKS_MAX} looks");
    }

    async fn plan(&self, desired: &[Resource]) -> Vec<(String, Change)> {
        let plan = self.engine.plan(desired).await.unwrap();
        plan.into_iter().map(|planned| (planned.key, planned.change)).collect()
    }
}

fn environment() -> Vec<Resource> {
    with_parts(Vec::new())
}

fn with_parts(parts: Vec<TenantPart>) -> Vec<Resource> {
    let spec = EnvironmentSpec {
        tenant: "connectsoft".parse().unwrap(),
        project: "proj-booking-saas".parse().unwrap(),
        environment_id: "env-0a1b2c3d".parse().unwrap(),
        name: "booking-dev".to_owned(),
        stage: Stage::Dev,
        region: "westeurope".to_owned(),
        isolation_model: IsolationModel::Silo,
        compute_targets: vec![TargetKind::ContainerApps],
        parts,
    };
    resources(&spec, SUBSCRIPTION, DIRECTORY)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_is_provisioned_once_and_then_satisfied() {
    let bench = bench().await;
    let desired = environment();
    let plan = bench.engine.plan(&desired).await.unwrap();
    assert!(plan.iter().all(|planned| planned.change == Change::Create), "{plan:?}");
    let end = bench.run(&desired, &plan).await;
    let Advance::Done { progress } = end else { panic!("{end:?}") };
    assert_eq!(progress.done.len(), desired.len());
    let principal = |key: &str| progress.done[key]["properties"]["principalId"].clone();
    assert!(principal("identity").is_string());
    assert_eq!(principal("vault-secrets-user"), principal("identity"));

    let again = bench.plan(&desired).await;
    assert!(again.iter().all(|(_, change)| *change == Change::NoChange), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_changed_is_put_right_and_nothing_else() {
    let bench = bench().await;
    let desired = environment();
    let plan = bench.engine.plan(&desired).await.unwrap();
    bench.run(&desired, &plan).await;

    let vault = desired.iter().find(|resource| resource.key == "vault").unwrap();
    let change = json!({ "tags": { "theirs": "1" }, "properties": { "enableRbacAuthorization": false } });
    bench.manager.patch(&vault.id, &vault.api_version, &change).await.unwrap();
    let changed: Vec<_> =
        bench.plan(&desired).await.into_iter().filter(|(_, change)| *change != Change::NoChange).collect();
    let [(key, Change::Update { differences })] = &changed[..] else { panic!("{changed:?}") };
    assert_eq!(key, "vault");
    let paths: Vec<_> = differences.iter().map(|difference| difference.path.as_str()).collect();
    assert_eq!(paths, ["/properties/enableRbacAuthorization"]);

    let plan = bench.engine.plan(&desired).await.unwrap();
    let end = bench.run(&desired, &plan).await;
    assert!(matches!(end, Advance::Done { .. }), "{end:?}");
    let vault = bench.manager.get(&vault.id, &vault.api_version).await.unwrap().unwrap();
    assert_eq!(vault["properties"]["enableRbacAuthorization"], true);
    assert_eq!(vault["tags"]["theirs"], "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_part_joins_an_environment_that_stands() {
    let bench = bench().await;
    let desired = environment();
    let plan = bench.engine.plan(&desired).await.unwrap();
    bench.run(&desired, &plan).await;

    let part =
        TenantPart { tenant_id: "acme".parse().unwrap(), prefix: "t0a1b2c3d".to_owned(), stands: false };
    let desired = with_parts(vec![part]);
    let plan = bench.engine.plan(&desired).await.unwrap();
    let mut told: Vec<_> = plan
        .iter()
        .filter_map(|planned| match &planned.change {
            Change::Create => Some(format!("create {}", planned.key)),
            Change::Update { .. } => Some(format!("update {}", planned.key)),
            Change::NoChange | Change::Refused { .. } => None,
        })
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            "create t0a1b2c3d-identity",
            "create t0a1b2c3d-registry-pull",
            "create t0a1b2c3d-vault",
            "create t0a1b2c3d-vault-secrets-user",
            "update container-apps",
        ]
    );
    let end = bench.run(&desired, &plan).await;
    let Advance::Done { progress } = end else { panic!("{end:?}") };
    let principal = |key: &str| progress.done[key]["properties"]["principalId"].clone();
    assert_eq!(principal("t0a1b2c3d-vault-secrets-user"), principal("t0a1b2c3d-identity"));
    assert_ne!(principal("t0a1b2c3d-identity"), principal("identity"));
    let again = bench.plan(&desired).await;
    assert!(again.iter().all(|(_, change)| *change == Change::NoChange), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_goes_as_it_came_and_takes_nothing_of_others_with_it() {
    let bench = bench().await;
    let desired = environment();
    let plan = bench.engine.plan(&desired).await.unwrap();
    bench.run(&desired, &plan).await;
    let group = desired[0].id.clone();
    let theirs = format!("{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/theirs");
    let identity = desired.iter().find(|resource| resource.key == "identity").unwrap();
    let body = json!({ "location": "westeurope" });
    bench.manager.put(&theirs, &identity.api_version, &body).await.unwrap();

    let removal = bench.remove(&desired).await;
    let kept: Vec<_> = removal.kept.iter().map(|(key, kept)| (key.as_str(), kept.must)).collect();
    assert_eq!((kept, removal.gone.len()), (vec![("group", true)], desired.len() - 1), "{removal:?}");
    assert!(removal.kept["group"].reason.contains("`theirs`"), "{removal:?}");

    bench.manager.delete(&theirs, &identity.api_version).await.unwrap();
    let removal = bench.remove(&desired).await;
    assert_eq!((removal.kept.len(), removal.gone.len()), (0, desired.len()), "{removal:?}");
    let left = bench.plan(&desired).await;
    assert!(left.iter().all(|(_, change)| *change == Change::Create), "{left:?}");
}
