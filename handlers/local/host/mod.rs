//! A Functions host on this machine: it drives an unmodified custom handler as Azure's host v4 does,
//! and fails where that one fails.
//!
//! `app` reads the function app; `supervisor` and `process` run the handler; `messages`, `timers` and
//! `http` are the triggers; `payloads` and `wire` say what is posted, `reply` what an answer means.
//! Deliberately absent: output bindings but HTTP's, batches, sessions, retry policies, request
//! forwarding, and every other kind of trigger. An app that uses one is refused with the field's name.

use std::{collections::BTreeMap, fs, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use uuid::Uuid;

mod app;
mod events;
mod http;
mod invoker;
mod keys;
mod messages;
mod payloads;
mod process;
mod reply;
mod routes;
mod schedule;
mod supervisor;
mod timers;
mod wire;

pub use app::Problem;
pub use events::{HostEvent, Stream};
pub use keys::FunctionKey;

use app::{App, Function, MessageTrigger, TimerTrigger, Trigger};
use events::Events;
use http::HttpSide;
use invoker::Invoker;
use messages::{MessageLoop, MessageSource};
use supervisor::{Launch, State, Supervisor};
use timers::{StatusFile, TimerLoop};
use wire::Occasion;

use crate::{
    local::service_bus::{Received, ServiceBus},
    ports::clock::Clock,
};

/// How long invocations that run may take to end when the host is stopped.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long the handler may take to be gone after that.
const STOP_MAX: Duration = Duration::from_secs(10);

/// What a host is started with.
pub struct HostOptions {
    /// The folder with host.json. Functions are under `functions/` where there is such a folder
    /// (a checkout), else beside host.json (a staged app).
    pub app: PathBuf,
    /// App settings, the handler's environment. They win over the `Values` of local.settings.json.
    pub settings: BTreeMap<String, String>,
    pub service_bus: ServiceBus,
    /// Where HTTP functions are served, over plain HTTP.
    pub listener: TcpListener,
    /// Who may call HTTP functions.
    pub keys: Vec<FunctionKey>,
    /// Where the timers' status is kept.
    pub state: PathBuf,
    /// Where events go. They must be read: where the channel is full, the handler's output and its
    /// restarts wait, and other events are lost, with their number told later.
    pub events: mpsc::Sender<HostEvent>,
    pub clock: Arc<dyn Clock>,
}

/// Why a host cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Everything that is wrong with the app's files and settings.
    #[error("the function app cannot be run:\n{}", .0.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n"))]
    Configuration(Vec<Problem>),
    #[error("`{path}` cannot be made, and timers keep their status there")]
    State { path: PathBuf, source: io::Error },
}

/// A host that runs. When it is dropped, everything of it ends at once, the handler killed.
pub struct Host {
    supervisor: Supervisor,
    stopping: watch::Sender<bool>,
    triggers: JoinSet<()>,
}

impl Host {
    /// Reads the app and starts the handler and the triggers. That the handler is ready is an event.
    ///
    /// # Errors
    /// When the app is wrong, with all that is wrong, or the state's folder cannot be made.
    pub async fn start(options: HostOptions) -> Result<Self, HostError> {
        let source = options.service_bus.clone();
        Self::start_with(Parts::from(options), source).await
    }

    /// The handler's process, while there is one.
    pub fn handler_pid(&self) -> Option<u32> {
        self.supervisor.pid()
    }

    /// Takes nothing new, lets what runs come to its end within ten seconds, and kills the handler.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        // What is not done by then is cut short, as a host that is recycled does.
        let _ = timeout(DRAIN_MAX, async { while self.triggers.join_next().await.is_some() {} }).await;
        self.triggers.shutdown().await;
        // A supervisor that does not come to its end is dropped, which kills the handler too.
        let _ = timeout(STOP_MAX, self.supervisor.stop()).await;
    }

    async fn start_with<S: MessageSource>(parts: Parts, source: S) -> Result<Self, HostError> {
        let timers = parts.state.join("timers");
        let (folder, settings, state) = (parts.app.clone(), parts.settings.clone(), timers.clone());
        let read = tokio::task::spawn_blocking(move || {
            let app = App::read(&folder, settings).map_err(HostError::Configuration)?;
            fs::create_dir_all(&state).map_err(|source| HostError::State { path: state, source })?;
            Ok(app)
        });
        let app = read.await.map_err(|error| HostError::State {
            path: parts.state.clone(),
            source: io::Error::other(error),
        })??;
        let events = Events::new(parts.events.clone());
        let client = process::client();
        let launch = Launch {
            program: app.config.program.clone(),
            environment: app.settings.environment(),
            initialization_timeout: app.config.initialization_timeout,
        };
        let supervisor = Supervisor::start(launch, client.clone(), events.clone(), parts.clock.clone());
        let invoker = Invoker {
            client,
            state: supervisor.state.clone(),
            orders: supervisor.orders.clone(),
            events: events.clone(),
            initialization_timeout: app.config.initialization_timeout,
            function_timeout: app.config.function_timeout,
        };
        let (stopping, stopped) = watch::channel(false);
        let mut triggers = Triggers {
            app: &app,
            parts: &parts,
            timers,
            source,
            invoker,
            events,
            stopped,
            tasks: JoinSet::new(),
        };
        let mut http = Vec::new();
        for function in &app.functions {
            match &function.trigger {
                _ if function.disabled => triggers.tell_disabled(function),
                Trigger::Messages(trigger) => triggers.messages(function, trigger),
                Trigger::Timer(trigger) => triggers.timer(function, trigger),
                Trigger::Http(trigger) => http.push((function.name.clone(), trigger.clone())),
            }
        }
        let Triggers { invoker, stopped, mut tasks, .. } = triggers;
        let side = HttpSide {
            prefix: app.config.route_prefix,
            functions: http,
            keys: parts.keys,
            invoker,
            clock: parts.clock,
        };
        tasks.spawn(side.run(parts.listener, stopped));
        Ok(Self { supervisor, stopping, triggers: tasks })
    }
}

/// What a host is made of, beside the source of its messages.
struct Parts {
    app: PathBuf,
    settings: BTreeMap<String, String>,
    listener: TcpListener,
    keys: Vec<FunctionKey>,
    state: PathBuf,
    events: mpsc::Sender<HostEvent>,
    clock: Arc<dyn Clock>,
}

impl From<HostOptions> for Parts {
    fn from(options: HostOptions) -> Self {
        let HostOptions { app, settings, service_bus: _, listener, keys, state, events, clock } = options;
        Self { app, settings, listener, keys, state, events, clock }
    }
}

struct Triggers<'a, S> {
    app: &'a App,
    parts: &'a Parts,
    timers: PathBuf,
    source: S,
    invoker: Invoker,
    events: Events,
    stopped: watch::Receiver<bool>,
    tasks: JoinSet<()>,
}

impl<S: MessageSource> Triggers<'_, S> {
    fn tell_disabled(&self, function: &Function) {
        let name = &function.name;
        self.events.tell("INFO", format!("{name} is disabled by the setting AzureWebJobs.{name}.Disabled"));
    }

    fn messages(&mut self, function: &Function, trigger: &MessageTrigger) {
        let messages = MessageLoop {
            function: function.name.clone(),
            path: trigger.path.clone(),
            source: self.source.clone(),
            config: self.app.config.service_bus.clone(),
            events: self.events.clone(),
            clock: self.parts.clock.clone(),
            stopping: self.stopped.clone(),
        };
        let invoke = Arc::new(MessageInvoker {
            function: function.name.clone(),
            trigger: trigger.clone(),
            client: format!("{}-{}", trigger.namespace, Uuid::new_v4()),
            invoker: self.invoker.clone(),
            clock: self.parts.clock.clone(),
        });
        let invoker = self.invoker.clone();
        let ready = move || {
            let invoker = invoker.clone();
            async move { invoker.settled().await != State::Gone }
        };
        self.tasks.spawn(messages.run(ready, move |received| {
            let invoke = invoke.clone();
            async move { invoke.invoke(&received).await }
        }));
    }

    fn timer(&mut self, function: &Function, trigger: &TimerTrigger) {
        let timer = TimerLoop {
            function: function.name.clone(),
            trigger: trigger.clone(),
            status: StatusFile(self.timers.join(format!("{}.json", function.name))),
            invoker: self.invoker.clone(),
            events: self.events.clone(),
            clock: self.parts.clock.clone(),
            stopping: self.stopped.clone(),
        };
        self.tasks.spawn(timer.run());
    }
}

/// Passes messages on to one function.
struct MessageInvoker {
    function: String,
    trigger: MessageTrigger,
    client: String,
    invoker: Invoker,
    clock: Arc<dyn Clock>,
}

impl MessageInvoker {
    /// Answers whether the function succeeded; why it did not has been told.
    async fn invoke(&self, received: &Received) -> bool {
        let occasion = Occasion { now: self.clock.now(), random: Uuid::new_v4() };
        match payloads::message(&self.function, &self.trigger, received, &self.client, occasion) {
            Ok(body) => self.invoker.invoke(&self.function, body, |_| Ok(())).await.is_ok(),
            Err(problem) => {
                self.invoker.failed(&self.function, occasion.random, problem.to_owned());
                false
            }
        }
    }
}
