//! Everything that runs: the stand-ins, the Functions host and its handler.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use runtime_platform::{
    local::{
        azure::{self, Azure, AzureOptions, Happening, ImageCatalogue, KeyVaults},
        certificates::Authority,
        host::{FunctionKey, Host, HostEvent, HostOptions},
        https, identity,
        identity::Tokens,
        service_bus::{ServiceBus, Topology, rest},
    },
    ports::clock::SystemClock,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    data::{ContextFile, Data, Keys},
    guardian::{Guardian, WARD_PARENT, WARD_PROGRAM},
    handler,
    log::Log,
    ports,
    succession::{LastWords, Succession, answers},
};
use crate::{failure::Failure, output::Out};

/// The name under which the function key and the shared access key are known.
const KEY_NAME: &str = "local";
const SAS_KEY_NAME: &str = "RootManageSharedAccessKey";
/// Stands for the subscription and the directory on this machine.
const SUBSCRIPTION: &str = "00000000-0000-0000-0000-00000000c105";
const DIRECTORY: &str = "00000000-0000-0000-0000-0000000d13ec";
/// The tenant that commands ask for where none is named.
const TENANT: &str = "connectsoft";
/// Events of the host that may wait to be written.
const EVENTS_MAX: usize = 4096;
/// The ports that are tried first, from this one on.
const FIRST_PORT: u16 = 7071;
/// What the hosts of vaults lie under.
const VAULT_DOMAIN: &str = "vault.localhost";
/// Where every container registry is reached, whatever the images call it.
const REGISTRY_HOST: &str = "registry.localhost";

/// What to run, and where to keep it.
pub struct WorldOptions {
    pub data: PathBuf,
    /// The function app's folder; none for the nearest one upwards.
    pub app: Option<PathBuf>,
    /// An image catalogue; none for the one built in.
    pub images: Option<PathBuf>,
    /// The port of the HTTP functions; the others follow.
    pub port: Option<u16>,
    /// Settings of the app that are to be others than in `local.settings.json`.
    pub settings: &'static [(&'static str, &'static str)],
}

/// The platform on this machine.
pub struct World {
    data: Data,
    context: ContextFile,
    guardian: Arc<Guardian>,
    log: Log,
    azure: Azure,
    host: Option<Host>,
    /// The process that handles invocations, while there is one.
    handler: watch::Sender<Option<u32>>,
    events: mpsc::Receiver<HostEvent>,
    succession: Succession,
    launch: Launch,
    servers: JoinSet<()>,
}

/// What a host is started with, as often as one is needed.
struct Launch {
    app: PathBuf,
    settings: BTreeMap<String, String>,
    service_bus: ServiceBus,
    key: FunctionKey,
    state: PathBuf,
    port: u16,
    events: mpsc::Sender<HostEvent>,
}

impl World {
    /// Starts everything. Whatever fails says what to do about it.
    pub async fn start(options: WorldOptions, out: &Out) -> Result<Self, Failure> {
        let app = app_folder(options.app)?;
        let handler = handler::find(out).await?;
        let data = Data::open(&options.data)?;
        let keys = data.keys()?;
        let log = Log::open(&data.directory.join("log.jsonl"))?;
        let guardian = Arc::new(Guardian::start(&data.directory)?);
        let authority = Authority::open(&data.directory.join("certificates"));
        let authority = Arc::new(
            authority.map_err(|error| Failure::unusable("No certificates can be made").because(&error))?,
        );
        let listeners = Listeners::open(&data, options.port).await?;
        let context = listeners.context(&data, &keys, &authority);
        let tokens = Tokens::new(keys.token_key(), keys.identity_header.clone());
        let mut servers = JoinSet::new();
        let service_bus = service_bus(&app, &data)?;
        let azure = azure(&data, &options.images, &tokens, &listeners, &log, &service_bus)?;
        // Before the apps start: their secrets are in the vaults.
        let vaults = KeyVaults::open(&azure, &data.directory.join("key-vault.db")).await;
        let vaults =
            vaults.map_err(|error| Failure::unusable("The vaults cannot be opened").because(&error))?;
        azure
            .start()
            .await
            .map_err(|error| Failure::unusable("The Resource Manager cannot start").because(&error))?;
        // Whoever received a message in an earlier `up` is gone with it.
        let released = service_bus.release_all().await;
        released.map_err(|error| Failure::unusable("The Service Bus cannot use its file").because(&error))?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let launch = Launch {
            app,
            settings: settings(&data, &keys, &context, &handler, options.settings)?,
            service_bus: service_bus.clone(),
            key: FunctionKey::new(KEY_NAME, &keys.function_key),
            state: data.directory.join("host"),
            port: listeners.functions_port,
            events,
        };
        let functions =
            listeners.serve(&mut servers, &authority, &tokens, &keys, service_bus, &azure, &vaults)?;
        data.write_private("context.json", &context)?;
        let host = launch.start(functions).await?;
        let succession = Succession::default();
        let mut world = Self {
            data,
            context,
            guardian,
            log,
            azure,
            host: Some(host),
            handler: watch::Sender::new(None),
            events: receiver,
            succession,
            launch,
            servers,
        };
        world.first_answer().await?;
        Ok(world)
    }

    /// Waits until the functions answer. A handler that never comes so far says why itself.
    async fn first_answer(&mut self) -> Result<(), Failure> {
        let answer = answers(self.context.clone());
        tokio::pin!(answer);
        let mut last_words = LastWords::default();
        loop {
            let event = tokio::select! {
                () = &mut answer => return Ok(()),
                event = self.events.recv() => event,
            };
            match event {
                None => return Ok(()),
                Some(HostEvent::GaveUp { reason }) => return Err(last_words.of_a_handler(&reason)),
                Some(event) => {
                    if let HostEvent::HandlerLine { line, .. } = &event {
                        last_words.hear(line);
                    }
                    self.follow(event).await?;
                }
            }
        }
    }

    pub fn context(&self) -> &ContextFile {
        &self.context
    }

    pub fn directory(&self) -> &Path {
        &self.data.directory
    }

    pub fn azure(&self) -> &Azure {
        &self.azure
    }

    /// The process that handles invocations, while there is one.
    pub fn handler(&self) -> watch::Receiver<Option<u32>> {
        self.handler.subscribe()
    }

    /// Writes the log and replaces a host that gave up, until `until` ends.
    pub async fn run(&mut self, until: impl Future<Output = ()>) -> Result<(), Failure> {
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return Ok(()),
                event = self.events.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    self.follow(event).await?;
                }
                () = self.succession.due() => self.replace_host().await?,
            }
        }
    }

    async fn replace_host(&mut self) -> Result<(), Failure> {
        self.succession.begins();
        let listener = ports::listen_again(self.launch.port).await?;
        self.host = Some(self.launch.start(listener).await?);
        Ok(())
    }

    async fn follow(&mut self, event: HostEvent) -> Result<(), Failure> {
        match event {
            HostEvent::HandlerStarting { pid, port } => {
                self.guardian.guard(pid);
                self.handler.send_replace(Some(pid));
                self.log.tell("INFO", "host", &format!("the handler starts as process {pid} on port {port}"));
            }
            HostEvent::Ready { milliseconds } => {
                self.log.tell("INFO", "host", &format!("the handler is ready after {milliseconds} ms"));
            }
            HostEvent::HandlerExited { pid, how, restarting } => {
                self.guardian.release(pid);
                self.handler.send_if_modified(|known| known.take_if(|known| *known == pid).is_some());
                let next = if restarting { "it is started again" } else { "it is not started again" };
                self.log.tell("WARN", "host", &format!("the handler ended ({how}); {next}"));
            }
            HostEvent::HandlerLine { line, .. } => self.log.line(&line),
            HostEvent::GaveUp { reason } => {
                let pause = self.succession.gave_up();
                let next = format!("a new one is started in {} s, as Azure does", pause.as_secs());
                self.log.tell("ERROR", "host", &format!("the host gave up ({reason}); {next}"));
                if let Some(host) = self.host.take() {
                    host.stop().await;
                }
            }
            HostEvent::InvocationFailed { function, invocation_id, reason } => {
                self.log.tell("ERROR", "host", &format!("{function} ({invocation_id}) failed: {reason}"));
            }
            HostEvent::Told { level, text } => self.log.tell(level, "host", &text),
        }
        Ok(())
    }

    /// Stops everything in order: no new work, then what runs it, then the stand-ins.
    pub async fn stop(mut self) {
        if let Some(host) = self.host.take() {
            host.stop().await;
        }
        self.azure.stop().await;
        self.servers.shutdown().await;
    }
}

impl Launch {
    async fn start(&self, listener: TcpListener) -> Result<Host, Failure> {
        let options = HostOptions {
            app: self.app.clone(),
            settings: self.settings.clone(),
            service_bus: self.service_bus.clone(),
            listener,
            keys: vec![self.key.clone()],
            state: self.state.clone(),
            events: self.events.clone(),
            clock: Arc::new(SystemClock),
        };
        Host::start(options)
            .await
            .map_err(|error| Failure::unusable("The function app cannot be started").because(&error))
    }
}

/// The listeners, open before anything that names their ports is made.
struct Listeners {
    functions: TcpListener,
    functions_port: u16,
    service_bus: (TcpListener, u16),
    manager: (TcpListener, u16),
    ingress: (TcpListener, u16),
    identity: (TcpListener, u16),
    vaults: (TcpListener, u16),
    registry: (TcpListener, u16),
}

impl Listeners {
    /// The ports of the last time where they are free, else the usual ones, else any.
    async fn open(data: &Data, port: Option<u16>) -> Result<Self, Failure> {
        let last = data.last_context();
        let before =
            |address: fn(&ContextFile) -> &String| last.as_ref().and_then(|last| ports::of(address(last)));
        let first = port.unwrap_or(FIRST_PORT);
        let wanted = |offset: u16, before: Option<u16>| -> Vec<u16> {
            let usual = first.saturating_add(offset);
            if port.is_some() { vec![usual] } else { before.into_iter().chain([usual]).collect() }
        };
        let (functions, functions_port) =
            ports::listen(&wanted(0, before(|last| &last.functions_endpoint))).await?;
        Ok(Self {
            functions,
            functions_port,
            service_bus: ports::listen(&wanted(1, before(|last| &last.service_bus_endpoint))).await?,
            manager: ports::listen(&wanted(2, before(|last| &last.resource_manager_endpoint))).await?,
            ingress: ports::listen(&wanted(3, before(|last| &last.ingress_endpoint))).await?,
            identity: ports::listen(&wanted(4, before(|last| &last.identity_endpoint))).await?,
            vaults: ports::listen(&wanted(5, before(|last| &last.vault_endpoint))).await?,
            registry: ports::listen(&wanted(6, before(|last| &last.registry_endpoint))).await?,
        })
    }

    fn context(&self, data: &Data, keys: &Keys, authority: &Authority) -> ContextFile {
        let service_bus = self.service_bus.1;
        ContextFile {
            name: "local".to_owned(),
            functions_endpoint: format!("http://127.0.0.1:{}", self.functions_port),
            function_key: keys.function_key.clone(),
            service_bus_connection_string: format!(
                "Endpoint=sb://localhost:{service_bus};SharedAccessKeyName={SAS_KEY_NAME};SharedAccessKey={};UseDevelopmentEmulator=true",
                keys.service_bus_key
            ),
            service_bus_endpoint: format!("https://localhost:{service_bus}"),
            resource_manager_endpoint: format!("https://localhost:{}", self.manager.1),
            ingress_endpoint: format!("https://apps.localhost:{}", self.ingress.1),
            identity_endpoint: format!("http://127.0.0.1:{}/msi/token", self.identity.1),
            vault_endpoint: format!("https://{VAULT_DOMAIN}:{}", self.vaults.1),
            registry_endpoint: format!("https://{REGISTRY_HOST}:{}", self.registry.1),
            root_certificate: authority.root_certificate().to_owned(),
            data_directory: data.directory.clone(),
            log_file: data.directory.join("log.jsonl"),
            tenant: TENANT.to_owned(),
        }
    }

    /// Serves the stand-ins, and hands out the listener of the functions.
    fn serve(
        self,
        servers: &mut JoinSet<()>,
        authority: &Arc<Authority>,
        tokens: &Tokens,
        keys: &Keys,
        service_bus: ServiceBus,
        azure: &Azure,
        vaults: &KeyVaults,
    ) -> Result<TcpListener, Failure> {
        let no_certificate = |error| Failure::unusable("No certificate can be made").because(&error);
        let own = authority.server(&["localhost", "127.0.0.1"]).map_err(no_certificate)?;
        let apps = azure::hosts_server(authority.clone(), "apps.localhost").map_err(no_certificate)?;
        let safe = azure::hosts_server(authority.clone(), VAULT_DOMAIN).map_err(no_certificate)?;
        let pulls = authority.server(&[REGISTRY_HOST]).map_err(no_certificate)?;
        let (vaults, registry) = (vaults.router(), azure.registry());
        let key = rest::SasKey { name: SAS_KEY_NAME.to_owned(), key: keys.service_bus_key.clone() };
        let bus = rest::router(service_bus, tokens.clone(), key);
        let (manager, ingress, identity) =
            (azure.router(), azure.ingress(), identity::router(tokens.clone()));
        let (listener, tls) = (self.service_bus.0, own.clone());
        servers.spawn(async move { match https::serve(listener, Some(tls), bus).await {} });
        servers.spawn(async move { match https::serve(self.manager.0, Some(own), manager).await {} });
        servers.spawn(async move { match https::serve(self.ingress.0, Some(apps), ingress).await {} });
        servers.spawn(async move { match https::serve(self.identity.0, None, identity).await {} });
        servers.spawn(async move { match https::serve(self.vaults.0, Some(safe), vaults).await {} });
        servers.spawn(async move { match https::serve(self.registry.0, Some(pulls), registry).await {} });
        Ok(self.functions)
    }
}

/// The named folder, or the nearest one upwards with a `host.json`.
fn app_folder(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(folder) = named {
        return match folder.join("host.json").is_file() {
            true => Ok(folder),
            false => Err(Failure::unusable(format!(
                "{} has no host.json, so it is no function app",
                folder.display()
            ))
            .advice("Name the folder of a function app with --app.")),
        };
    }
    let here = std::env::current_dir()
        .map_err(|error| Failure::unusable("The system does not tell the current folder").because(&error))?;
    here.ancestors().find(|folder| folder.join("host.json").is_file()).map(Path::to_owned).ok_or_else(|| {
        Failure::unusable(format!("Neither {} nor a folder above it has a host.json", here.display()))
            .advice("Change to the checkout, or name the function app's folder with --app.")
    })
}

fn service_bus(app: &Path, data: &Data) -> Result<ServiceBus, Failure> {
    let declared = app.join("infra").join("messaging.json");
    let topology = Topology::read(&declared).map_err(|errors| {
        let mut failure = Failure::unusable(format!("{} cannot be used", declared.display()));
        for error in &errors {
            failure = failure.because(error);
        }
        failure
    })?;
    ServiceBus::open(&data.directory.join("service-bus.db"), topology, Arc::new(SystemClock))
        .map_err(|error| Failure::unusable("The Service Bus cannot open its file").because(&error))
}

fn azure(
    data: &Data,
    images: &Option<PathBuf>,
    tokens: &Tokens,
    listeners: &Listeners,
    log: &Log,
    service_bus: &ServiceBus,
) -> Result<Azure, Failure> {
    let images = match images {
        Some(file) => ImageCatalogue::read(file)
            .map_err(|error| Failure::unusable("The image catalogue cannot be used").because(&error))?,
        None => ImageCatalogue::built_in(),
    };
    let log = log.clone();
    let options = AzureOptions {
        images,
        service_bus: Some(service_bus.clone()),
        vault_domain: format!("{VAULT_DOMAIN}:{}", listeners.vaults.1),
        sink: Arc::new(move |happening| tell(&log, &happening)),
        ..AzureOptions::new(
            data.directory.join("azure.db"),
            tokens.clone(),
            format!("https://localhost:{}", listeners.manager.1),
            listeners.ingress.1,
        )
    };
    Azure::open(options)
        .map_err(|error| Failure::unusable("The Resource Manager cannot open its file").because(&error))
}

fn tell(log: &Log, happening: &Happening) {
    match happening {
        Happening::Output { replica, line, .. } => log.tell("INFO", replica, line),
        Happening::Ready { replica, .. } => log.tell("INFO", "replicas", &format!("{replica} is ready")),
        Happening::Scaled { revision, from, to, .. } => {
            log.tell("INFO", "replicas", &format!("{revision} goes from {from} to {to} replicas"));
        }
        Happening::Exited { replica, reason, .. } => {
            log.tell("WARN", "replicas", &format!("{replica} exited: {reason}"));
        }
    }
}

/// The app settings: `local.settings.json` holds the defaults, these say what is true here.
fn settings(
    data: &Data,
    keys: &Keys,
    context: &ContextFile,
    handler: &Path,
    other: &[(&str, &str)],
) -> Result<BTreeMap<String, String>, Failure> {
    let own = std::env::current_exe().map_err(|error| {
        Failure::unusable("The system does not tell where this program is").because(&error)
    })?;
    let settings = [
        ("STORE", format!("sqlite:{}", data.directory.join("store.db").display())),
        ("SERVICE_BUS_ENDPOINT", context.service_bus_endpoint.clone()),
        ("RESOURCE_MANAGER_ENDPOINT", context.resource_manager_endpoint.clone()),
        ("VAULT_DOMAIN", VAULT_DOMAIN.to_owned()),
        ("REGISTRY_ENDPOINT", context.registry_endpoint.trim_start_matches("https://").to_owned()),
        ("AZURE_SUBSCRIPTION_ID", SUBSCRIPTION.to_owned()),
        ("AZURE_DIRECTORY_ID", DIRECTORY.to_owned()),
        ("AZURE_CREDENTIAL", "managed".to_owned()),
        ("IDENTITY_ENDPOINT", context.identity_endpoint.clone()),
        ("IDENTITY_HEADER", keys.identity_header.clone()),
        ("ADDITIONAL_ROOT_CERTIFICATE", context.root_certificate.display().to_string()),
        ("RESOLVE_LOCALHOST", "true".to_owned()),
        ("PROBE_LOOPBACK", "true".to_owned()),
        ("ServiceBus", context.service_bus_connection_string.clone()),
        // By way of this program, so that the handler never outlives it.
        (
            "AzureFunctionsJobHost__customHandler__description__defaultExecutablePath",
            own.display().to_string(),
        ),
        (WARD_PROGRAM, handler.display().to_string()),
        (WARD_PARENT, std::process::id().to_string()),
    ];
    let other = other.iter().map(|(name, value)| (*name, (*value).to_owned()));
    Ok(settings.into_iter().chain(other).map(|(name, value)| (name.to_owned(), value)).collect())
}
