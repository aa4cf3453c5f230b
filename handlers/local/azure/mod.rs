//! A Resource Manager on this machine: generic typed resources, long-running operations, and
//! Container Apps whose replicas really listen behind an ingress.
//!
//! Everything that was acknowledged is in one SQLite file. Only the replicas and what is measured of
//! them live in memory; replicas are brought up again from the revisions that are stored.
//!
//! Absent on purpose: rights of callers (any good token may do anything; what an app's identity may
//! read of a vault is checked), quotas, deployments of templates, the data planes of the resources
//! other than Key Vault's and the registries'.

mod address;
mod api;
mod asides;
mod container_apps;
mod defaults;
mod faults;
mod guards;
mod host_certificates;
mod images;
mod ingress;
mod key_vault;
mod metrics;
mod operations;
mod records;
mod references;
mod refusals;
mod registry;
mod replicas;
mod resources;
mod routes;
mod types;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use axum::Router;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::MissedTickBehavior};

pub use faults::{Fault, Kind as FaultKind, Matching as FaultMatching, When as FaultWhen};
pub use host_certificates::hosts_server;
pub use images::{Behaviour, CatalogueError, Command, ImageCatalogue, StandIn};
pub use key_vault::{KeyVaults, VaultsError};
pub use refusals::ArmError;
pub use registry::REGISTRY_AUDIENCE;
pub use replicas::{Happening, Sink};
pub use routes::{Count, Counts};

use crate::{
    local::{
        database::{Database, OpenError},
        identity::Tokens,
        service_bus::ServiceBus,
    },
    ports::clock::Clock,
};
use address::ResourceId;
use replicas::{Fleet, Notice};
use resources::Effect;
use routes::Routes;

/// The audience that tokens must have.
pub const AUDIENCE: &str = "https://management.azure.com";
/// How often revisions are measured and scaled.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the stand-in is opened with.
pub struct AzureOptions {
    /// The SQLite file.
    pub file: PathBuf,
    /// Checks the callers' tokens.
    pub tokens: Tokens,
    /// Where callers find Resource Manager, e.g. `https://management.localhost:8443`.
    pub endpoint: String,
    /// The port of the ingress. It is part of the hosts that apps are given.
    pub ingress_port: u16,
    /// What apps' hosts are under, e.g. `apps.localhost`.
    pub ingress_domain: String,
    /// What vaults' hosts are under, with a port where it is not 443.
    pub vault_domain: String,
    pub images: ImageCatalogue,
    /// Whose queues rules of scaling look at, and the queues of every namespace that is asked about.
    pub service_bus: Option<ServiceBus>,
    pub clock: Arc<dyn Clock>,
    /// Hears what becomes of replicas, and what programs write.
    pub sink: Sink,
    /// What the durations of operations are multiplied by; at 1 they take 300 to 1500 ms.
    pub pace: f64,
    /// What `Retry-After` says while an operation goes on, in seconds. Some clients take 0 for
    /// nothing said, and then wait for half a minute.
    pub retry_after_seconds: u32,
    /// The pause before a container that exited is started again; it doubles up to 30 seconds.
    pub restart_pause: Duration,
}

impl AzureOptions {
    /// The usual ones.
    pub fn new(file: PathBuf, tokens: Tokens, endpoint: String, ingress_port: u16) -> Self {
        Self {
            file,
            tokens,
            endpoint,
            ingress_port,
            ingress_domain: "apps.localhost".to_owned(),
            vault_domain: "vault.localhost".to_owned(),
            images: ImageCatalogue::built_in(),
            service_bus: None,
            clock: Arc::new(crate::ports::clock::SystemClock),
            sink: Arc::new(|_| {}),
            pace: 1.0,
            retry_after_seconds: 1,
            restart_pause: Duration::from_millis(500),
        }
    }
}

/// The stand-in. Cheap to clone; when the last clone and router are gone, so are the replicas.
#[derive(Clone)]
pub struct Azure {
    shared: Arc<Shared>,
}

/// What routers and tasks share.
struct Shared {
    database: Database,
    fleet: Arc<Fleet>,
    routes: Arc<Routes>,
    faults: faults::Faults,
    naming: defaults::Naming,
    tokens: Tokens,
    clock: Arc<dyn Clock>,
    pace: f64,
    retry_after_seconds: u32,
    /// The authority of [`AzureOptions::endpoint`], for requests that name no host.
    authority: String,
    service_bus: Option<ServiceBus>,
    metrics: metrics::Metrics,
    /// The vaults, once they are opened; they hold us, so we do not hold them.
    vaults: Mutex<Weak<key_vault::Inner>>,
    /// One reconciliation at a time: an older reading must not overtake a newer one.
    reconciling: tokio::sync::Mutex<()>,
    notices: Mutex<Option<mpsc::Receiver<Notice>>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Azure {
    /// Opens the file, or makes one. Nothing runs before [`Azure::start`].
    ///
    /// # Errors
    /// When the file cannot be used, or a newer version has written it.
    pub fn open(options: AzureOptions) -> Result<Self, OpenError> {
        let database = Database::open(&options.file, records::FORMS)?;
        let (fleet, notices) = Fleet::new(options.images, options.sink, options.restart_pause);
        let authority =
            options.endpoint.split("://").last().unwrap_or_default().trim_end_matches('/').to_owned();
        let shared = Shared {
            database,
            fleet: Arc::new(fleet),
            routes: Arc::default(),
            faults: faults::Faults::default(),
            naming: defaults::Naming {
                ingress_domain: options.ingress_domain,
                ingress_port: options.ingress_port,
                vault_domain: options.vault_domain,
            },
            tokens: options.tokens,
            clock: options.clock,
            pace: options.pace,
            retry_after_seconds: options.retry_after_seconds,
            authority,
            service_bus: options.service_bus,
            metrics: metrics::Metrics::default(),
            vaults: Mutex::default(),
            reconciling: tokio::sync::Mutex::new(()),
            notices: Mutex::new(Some(notices)),
            keeper: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Resource Manager's API.
    pub fn router(&self) -> Router {
        api::router(self.shared.clone())
    }

    /// The ingress. Its server needs a certificate for each host: see [`hosts_server`].
    pub fn ingress(&self) -> Router {
        ingress::router(self.shared.routes.clone(), self.shared.fleet.clone())
    }

    /// The container registries. Every one is reached at one address, and told by the header `Host`.
    pub fn registry(&self) -> Router {
        registry::router(self.shared.clone())
    }

    /// Brings up the replicas of what is stored, and looks after them from then on.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn start(&self) -> Result<(), ArmError> {
        let notices = self.shared.notices.lock().expect("nobody panics while holding the notices").take();
        if let Some(notices) = notices {
            let keeper = tokio::spawn(keep(Arc::downgrade(&self.shared), notices));
            *self.shared.keeper.lock().expect("nobody panics while holding the keeper") = Some(keeper);
        }
        let now = self.shared.clock.now();
        self.shared.database.write(move |connection| operations::settle(connection, now)).await?;
        for staged in self.shared.database.read(registry::staged).await?.into_iter().rev() {
            self.shared.fleet.stage(&staged.pattern, staged.stand_in);
        }
        for app in self.shared.database.read(records::apps).await? {
            self.shared.reconcile(&app).await?;
        }
        Ok(())
    }

    /// Ends all replicas and waits until they are gone.
    pub async fn stop(&self) {
        self.shared.stop_keeper();
        self.shared.fleet.stop().await;
    }

    /// What came through the ingress, by host and revision; of one host (without port), or of all.
    pub fn ingress_counts(&self, host: Option<&str>) -> Counts {
        self.shared.routes.counts(host)
    }

    /// Has the next matching calls fare badly.
    ///
    /// # Errors
    /// When a fault cannot be dealt, or too many wait.
    pub fn inject(&self, faults: Vec<Fault>) -> Result<(), ArmError> {
        self.shared.faults.add(faults)
    }
}

impl Shared {
    /// Brings the replicas and routes of an app in line with what is stored.
    async fn reconcile(&self, app: &str) -> Result<(), ArmError> {
        let _one = self.reconciling.lock().await;
        let (key, naming, images) = (app.to_owned(), self.naming.clone(), self.fleet.images());
        let plan =
            move |connection: &rusqlite::Connection| container_apps::plan(connection, &key, &naming, &images);
        match self.database.read(plan).await? {
            Some(mut plan) => {
                self.resolve(&mut plan).await?;
                self.routes.set(app, &plan);
                let specs = plan.revisions.into_iter().map(|revision| revision.spec).collect();
                self.fleet.keep(app, specs, self.clock.now());
            }
            None => {
                self.routes.forget(app);
                self.fleet.forget(app);
                self.metrics.forget(app);
            }
        }
        Ok(())
    }

    /// The body of the vault of that name, in lower case, while there is one.
    async fn vault(&self, name: &str) -> Result<Option<Value>, ArmError> {
        let name = name.to_owned();
        let find = move |connection: &rusqlite::Connection| records::named(connection, types::VAULT, &name);
        Ok(self.database.read(find).await?.map(|vault| vault.body))
    }

    async fn follow(&self, effect: Effect) -> Result<(), ArmError> {
        match effect {
            Effect::None => Ok(()),
            Effect::App(app) => self.reconcile(&app).await,
            Effect::Restart { app, revision } => {
                self.fleet.restart(&app, &revision, self.clock.now());
                Ok(())
            }
            Effect::Gone(key) => {
                let _one = self.reconciling.lock().await;
                self.routes.forget(&key);
                self.fleet.forget(&key);
                self.metrics.forget(&key);
                Ok(())
            }
        }
    }

    async fn promote(&self, notice: Notice) -> Result<(), ArmError> {
        let now = self.clock.now();
        let app = notice.app.clone();
        let promotion = move |connection: &rusqlite::Connection| {
            container_apps::promote(connection, &notice.app, &notice.revision, now)
        };
        self.database.write(promotion).await?;
        self.reconcile(&app).await
    }

    /// A queue of Service Bus, as Resource Manager shows it. Its name has no case.
    async fn queue(&self, id: &ResourceId) -> Result<Value, ArmError> {
        let lengths = match &self.service_bus {
            Some(bus) => bus.counts().await.map_err(|error| ArmError::internal(error.to_string()))?,
            None => BTreeMap::new(),
        };
        let found = lengths.iter().find(|(name, _)| name.eq_ignore_ascii_case(&id.name));
        let (name, (active, dead, scheduled)) = found.ok_or_else(|| {
            let message = format!("The requested resource {} does not exist.", id.text);
            ArmError::not_found("MessagingGatewayNotFoundStatusCode", message)
        })?;
        Ok(json!({
            "id": id.text,
            "name": name,
            "type": id.spec.name,
            "properties": {
                "status": "Active",
                "messageCount": active + dead + scheduled,
                "countDetails": {
                    "activeMessageCount": active,
                    "deadLetterMessageCount": dead,
                    "scheduledMessageCount": scheduled,
                    "transferMessageCount": 0,
                    "transferDeadLetterMessageCount": 0,
                },
            },
        }))
    }

    /// Messages that wait, by queue; none where there is no Service Bus, or it does not answer.
    async fn queue_lengths(&self) -> BTreeMap<String, u64> {
        let Some(bus) = &self.service_bus else { return BTreeMap::new() };
        match bus.counts().await {
            Ok(counts) => counts.into_iter().map(|(queue, (active, _, _))| (queue, active)).collect(),
            Err(error) => {
                tracing::warn!("the lengths of the queues are not known: {error}");
                BTreeMap::new()
            }
        }
    }

    /// Measures all revisions, scales them, and keeps what was measured.
    async fn look(&self) {
        let queues = if self.fleet.looks_at_queues() { self.queue_lengths().await } else { BTreeMap::new() };
        let groups = if self.fleet.has_programs() {
            tokio::task::spawn_blocking(replicas::by_group).await.unwrap_or_default()
        } else {
            replicas::Groups::new()
        };
        let now = self.clock.now();
        self.metrics.record(now, &self.fleet.look(&queues, &groups, now));
    }

    fn stop_keeper(&self) {
        if let Some(keeper) = self.keeper.lock().expect("nobody panics while holding the keeper").take() {
            keeper.abort();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop_keeper();
    }
}

/// Notes revisions that became ready, and measures and scales them all, until the stand-in is gone.
async fn keep(shared: Weak<Shared>, mut notices: mpsc::Receiver<Notice>) {
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            notice = notices.recv() => {
                let (Some(notice), Some(shared)) = (notice, shared.upgrade()) else { return };
                if let Err(error) = shared.promote(notice.clone()).await {
                    tracing::warn!("noting that `{}` is ready: {error}", notice.revision);
                }
            }
            _ = interval.tick() => {
                let Some(shared) = shared.upgrade() else { return };
                shared.look().await;
            }
        }
    }
}
