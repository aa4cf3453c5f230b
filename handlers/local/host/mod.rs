//! A Functions host on this machine: it drives an unmodified custom handler exactly as Azure's host
//! (version 4) does, so that what runs here runs there.
//!
//! It reads `host.json` and every `function.json`, starts the handler and looks after it, and invokes it
//! for Service Bus messages, timers and HTTP requests. Deliberately absent: output bindings beside
//! `http`, retry policies, sessions, request forwarding; a function that asks for them is an error that
//! says so.

mod app;
mod encoding;
mod http_trigger;
mod process;
mod reply;
mod service_bus_trigger;
mod timer_trigger;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};

pub use app::{AppError, Problem};

use crate::{local::service_bus::ServiceBus, ports::clock::Clock};
use app::{App, Trigger};
use process::Supervisor;

/// How long running invocations may go on when the host stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A key that opens HTTP functions. The host keeps only its hash.
#[derive(Clone)]
pub struct FunctionKey {
    pub name: String,
    hash: [u8; 32],
}

impl FunctionKey {
    pub fn new(name: &str, key: &str) -> Self {
        Self { name: name.to_owned(), hash: Sha256::digest(key.as_bytes()).into() }
    }

    fn opens(&self, key: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        hash == self.hash
    }
}

/// What a host is started with.
pub struct HostOptions {
    /// The folder with `host.json`.
    pub app: PathBuf,
    /// App settings: the handler's environment. They override the values of `local.settings.json`.
    pub settings: BTreeMap<String, String>,
    pub service_bus: ServiceBus,
    /// Where HTTP functions are asked.
    pub listener: TcpListener,
    pub keys: Vec<FunctionKey>,
    /// Where the status of timers is kept.
    pub state: PathBuf,
    pub events: mpsc::Sender<HostEvent>,
    pub clock: Arc<dyn Clock>,
}

/// What a host has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEvent {
    HandlerStarting { pid: u32, port: u16 },
    Ready { milliseconds: u64 },
    HandlerExited { pid: u32, how: String, restarting: bool },
    /// The handler crashed a third time: the host does nothing any more.
    GaveUp { reason: String },
    HandlerLine { from_error: bool, line: String },
    InvocationFailed { function: String, invocation_id: String, reason: String },
    Told { level: &'static str, text: String },
}

/// Why a host does not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error(transparent)]
    App(#[from] AppError),
    #[error("the directory `{path}` for the timers' status cannot be made")]
    State { path: PathBuf, source: std::io::Error },
}

/// A running host. Dropping it ends the handler at once.
pub struct Host {
    supervisor: Arc<Supervisor>,
    /// True once no new work is taken.
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// What every trigger needs.
#[derive(Clone)]
struct Shared {
    supervisor: Arc<Supervisor>,
    stopping: watch::Receiver<bool>,
    clock: Arc<dyn Clock>,
    events: mpsc::Sender<HostEvent>,
}

impl Shared {
    /// Events are for people; where nobody keeps up, they are dropped rather than waited for.
    fn tell(&self, event: HostEvent) {
        let _ = self.events.try_send(event);
    }

    fn failed(&self, function: &str, invocation_id: &str, reason: &str) {
        self.tell(HostEvent::InvocationFailed {
            function: function.to_owned(),
            invocation_id: invocation_id.to_owned(),
            reason: reason.to_owned(),
        });
    }
}

impl Host {
    /// Reads the app, starts the handler, and begins to invoke it once it is ready.
    ///
    /// # Errors
    /// Everything that is wrong with the app, at once.
    pub async fn start(options: HostOptions) -> Result<Self, HostError> {
        let app = App::read(&options.app, &options.settings)?;
        std::fs::create_dir_all(&options.state)
            .map_err(|source| HostError::State { path: options.state.clone(), source })?;
        let supervisor = Supervisor::start(&app, options.events.clone());
        let (stopping, stopped) = watch::channel(false);
        let shared = Shared {
            supervisor: supervisor.clone(),
            stopping: stopped,
            clock: options.clock,
            events: options.events,
        };
        let mut tasks = JoinSet::new();
        let mut routes = Vec::new();
        for function in app.functions.iter().filter(|function| !function.disabled) {
            match &function.trigger {
                Trigger::ServiceBus(trigger) => {
                    let trigger = service_bus_trigger::run(
                        shared.clone(),
                        Arc::new(options.service_bus.clone()),
                        function.name.clone(),
                        trigger.clone(),
                        app.service_bus,
                    );
                    tasks.spawn(trigger);
                }
                Trigger::Timer(trigger) => {
                    let file = options.state.join(format!("{}.timer.json", function.name));
                    tasks.spawn(timer_trigger::run(shared.clone(), function.name.clone(), trigger.clone(), file));
                }
                Trigger::Http(trigger) => routes.push((function.name.clone(), trigger.clone())),
            }
        }
        let router = http_trigger::router(shared, routes, options.keys, &app.route_prefix);
        let listener = options.listener;
        tasks.spawn(async move { match crate::local::https::serve(listener, None, router).await {} });
        Ok(Self { supervisor, stopping, tasks })
    }

    /// The handler's process, while there is one.
    pub fn handler_pid(&self) -> Option<u32> {
        self.supervisor.pid()
    }

    /// Takes no new work, lets running invocations end for a while, then kills the handler, as Azure
    /// does.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        let supervisor = self.supervisor.clone();
        // What is still running then is given back to the broker.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, supervisor.idle()).await;
        self.tasks.shutdown().await;
        self.supervisor.stop().await;
    }
}
