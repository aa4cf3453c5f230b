//! The custom handler: what Azure's Functions host, and the one of this machine, starts.
//!
//! It listens before it opens anything, so that the host's first `GET /` is answered at once. It never
//! exits with 0: the host would then leave it down and fail every invocation.

use std::{collections::BTreeMap, net::Ipv4Addr, process::ExitCode, sync::Arc, time::Duration};

use axum::serve::ListenerExt;
use runtime_platform::{
    azure::{
        container_apps::ContainerApps,
        credential,
        direct::Direct,
        http_client::{self, HttpSettings},
        key_vault::KeyVault,
        metrics::AzureMonitor,
        probe::{HttpProbe, Reach},
        registry::ContainerRegistries,
        resource_manager::ResourceManager,
        service_bus::ServiceBusPublisher,
    },
    config::{Config, StoreSetting},
    ledger::Ledger,
    outcome::{Source, chain},
    platform::Platform,
    ports::{clock::SystemClock, store::Store},
    server, telemetry,
};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};
use tracing::{error, info};

/// The port that the host tells the handler to listen on.
const PORT: &str = "FUNCTIONS_CUSTOMHANDLER_PORT";
/// How long opening waits for the host's first `GET /`. Opening reads hundreds of root certificates and
/// makes the store's file; done at once it would hold up the answer that the host waits for.
const FIRST_LOOK_WAIT: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() -> ExitCode {
    let failure = match run().await {
        Ok(()) => "the server stopped".to_owned(),
        Err(failure) => chain(failure.as_ref()),
    };
    error!("the handler cannot run: {failure}");
    ExitCode::FAILURE
}

async fn run() -> Result<(), Source> {
    let settings: BTreeMap<String, String> = std::env::vars().collect();
    let config = Config::read(&settings);
    // Settings may be wrong; the log must still work to say so.
    telemetry::start(
        config.as_ref().map_or(tracing::level_filters::LevelFilter::INFO, |config| config.log_level),
    );
    let config = config?;
    let port = settings.get(PORT).and_then(|port| port.parse::<u16>().ok());
    let port = port.ok_or_else(|| {
        format!("`{PORT}` names no port; the Functions host sets it when it starts the handler")
    })?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| format!("port {port} cannot be listened on: {error}"))?
        .tap_io(|stream| {
            // A socket that refuses the option still works, only slower.
            let _ = stream.set_nodelay(true);
        });
    let (ready, platform) = watch::channel(None);
    let looked = Arc::new(Notify::new());
    let router = server::router_telling(platform, looked.clone());
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    // Whether the host looked or not, it is time to open.
    let _ = tokio::time::timeout(FIRST_LOOK_WAIT, looked.notified()).await;
    ready.send_replace(Some(open(&config)?));
    info!("the handler is ready on port {port}");
    serving.await??;
    Ok(())
}

/// Opens the store and makes the clients.
fn open(config: &Config) -> Result<Platform, Source> {
    http_client::install_tls_provider();
    let clock = Arc::new(SystemClock);
    let http = HttpSettings {
        additional_root: config.additional_root.clone(),
        resolve_localhost: config.resolve_localhost,
        ..HttpSettings::default()
    };
    let client = http_client::client(&http)?;
    let credential = credential::credential(config.credential, &client)?;
    let options = http_client::client_options(&client);
    let vault = KeyVault::new(&config.vault_domain, options.clone(), credential.clone());
    let manager = ResourceManager::new(&config.resource_manager_endpoint, options, credential.clone())?;
    let reach = Reach { loopback: config.probe_loopback, private: config.probe_private };
    let registry = ContainerRegistries::new(
        &http,
        reach,
        &config.registry_endpoint,
        &config.directory_id,
        credential.clone(),
    )?;
    let namespace = url::Url::parse(&config.service_bus_endpoint)?;
    Ok(Platform {
        ledger: Ledger::new(store(&config.store, clock.clone())?),
        bus: Arc::new(ServiceBusPublisher::new(&config.service_bus_endpoint, client, credential)?),
        infrastructure: Arc::new(Direct::new(Arc::new(manager.clone()), clock.clone())),
        metrics: Arc::new(AzureMonitor::new(manager.clone(), clock.clone())),
        compute: Arc::new(ContainerApps::new(manager)),
        probe: Arc::new(HttpProbe::new(&http, reach, clock.clone())?),
        vault: Arc::new(vault),
        registry: Arc::new(registry),
        clock,
        wire_format: config.wire_format,
        namespace: namespace.host_str().unwrap_or_default().into(),
        subscription_id: config.subscription_id.as_str().into(),
        directory_id: config.directory_id.as_str().into(),
        operator_keys: config.operator_keys.as_slice().into(),
        drift_settle: config.drift_settle,
        hold_pause: Duration::from_secs(1),
    })
}

#[cfg(feature = "local")]
fn store(setting: &StoreSetting, clock: Arc<SystemClock>) -> Result<Arc<dyn Store>, Source> {
    let StoreSetting::Sqlite(path) = setting;
    Ok(Arc::new(runtime_platform::local::store::SqliteStore::open(path, clock)?))
}

#[cfg(not(feature = "local"))]
fn store(setting: &StoreSetting, _clock: Arc<SystemClock>) -> Result<Arc<dyn Store>, Source> {
    let StoreSetting::Sqlite(path) = setting;
    Err(format!(
        "`STORE` names the file `{}`, and this handler was built without the feature `local`",
        path.display()
    )
    .into())
}
