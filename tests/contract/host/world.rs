//! A host on an app that a test writes, with a real Service Bus beside it.

use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use runtime_platform::{
    local::{
        host::{FunctionKey, Host, HostError, HostEvent, HostOptions},
        service_bus::{Message, ServiceBus, Topology},
    },
    ports::clock::SystemClock,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};

use super::handler::ARGUMENTS;

/// The key of the HTTP functions.
pub const KEY: &str = "a-key";
/// The one queue.
pub const QUEUE: &str = "deploy";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An app to be, in a folder of its own.
pub struct App {
    pub folder: TempDir,
    pub settings: BTreeMap<String, String>,
    pub host_json: Value,
}

impl App {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("handler.log").display().to_string();
        let settings = [
            ("FAKE_LOG", log.as_str()),
            (
                "ServiceBus",
                "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=k",
            ),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let program = env::current_exe().unwrap();
        let host_json = json!({
            "version": "2.0",
            "customHandler": { "description": { "defaultExecutablePath": program, "arguments": ARGUMENTS } },
        });
        Self { folder, settings, host_json }
    }

    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn function(self, name: &str, bindings: Value) -> Self {
        let folder = self.folder.path().join("functions").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("function.json"), json!({ "bindings": bindings }).to_string()).unwrap();
        self
    }

    /// A function of the queue.
    pub fn queue(self, name: &str) -> Self {
        let binding = json!({"name": "message", "type": "serviceBusTrigger", "direction": "in", "queueName": QUEUE,
            "connection": "ServiceBus", "dataType": "binary"});
        self.function(name, json!([binding]))
    }

    /// A function of GET and POST under `route`.
    pub fn http(self, name: &str, route: &str) -> Self {
        let trigger = json!({"name": "req", "type": "httpTrigger", "direction": "in", "methods": ["get", "post"], "route": route});
        self.function(name, json!([trigger, {"name": "res", "type": "http", "direction": "out"}]))
    }

    /// Where the timers' status is kept.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub async fn start(self) -> World {
        self.try_start().await.unwrap_or_else(|error| panic!("{error}"))
    }

    pub async fn try_start(self) -> Result<World, HostError> {
        fs::write(self.folder.path().join("host.json"), self.host_json.to_string()).unwrap();
        let bus = service_bus(&self.folder);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, mut receiver) = mpsc::channel(1024);
        let events: Arc<Mutex<Vec<HostEvent>>> = Arc::default();
        let collected = events.clone();
        let collector = tokio::spawn(async move {
            while let Some(event) = receiver.recv().await {
                collected.lock().unwrap().push(event);
            }
        });
        let options = HostOptions {
            app: self.folder.path().to_owned(),
            settings: self.settings.clone(),
            service_bus: bus.clone(),
            listener,
            keys: vec![FunctionKey::new("local", KEY)],
            state: self.state(),
            events: sender,
            clock: Arc::new(SystemClock),
        };
        let host = Host::start(options).await?;
        Ok(World { app: self, host: Some(host), bus, url, events, collector })
    }
}

fn service_bus(folder: &TempDir) -> ServiceBus {
    let file = folder.path().join("messaging.json");
    let queue = json!({"name": QUEUE, "lockDuration": "PT30S", "maxDeliveryCount": 5});
    fs::write(&file, json!({"queues": [queue], "topics": []}).to_string()).unwrap();
    let topology = Topology::read(&file).unwrap_or_else(|errors| panic!("{errors:?}"));
    ServiceBus::open(&folder.path().join("bus.db"), topology, Arc::new(SystemClock)).unwrap()
}

/// A host that runs.
pub struct World {
    pub app: App,
    pub host: Option<Host>,
    pub bus: ServiceBus,
    /// Of the HTTP functions.
    pub url: String,
    events: Arc<Mutex<Vec<HostEvent>>>,
    collector: JoinHandle<()>,
}

impl World {
    pub fn host(&self) -> &Host {
        self.host.as_ref().expect("the host was not stopped")
    }

    pub fn events(&self) -> Vec<HostEvent> {
        self.events.lock().unwrap().clone()
    }

    /// Every invocation that the handler has seen.
    pub fn invocations(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.app.folder.path().join("handler.log")).unwrap_or_default();
        // The last line may still be in the making.
        log.split_inclusive('\n').filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for the `count`-th event that is asked for.
    pub async fn event<T>(&self, what: &str, count: usize, pick: impl Fn(&HostEvent) -> Option<T>) -> T {
        self.until(what, || self.events().iter().filter_map(&pick).nth(count - 1)).await
    }

    pub async fn ready(&self, count: usize) {
        self.event("Ready", count, |event| matches!(event, HostEvent::Ready { .. }).then_some(())).await;
    }

    pub async fn failure(&self, count: usize) -> String {
        let reason = |event: &HostEvent| match event {
            HostEvent::InvocationFailed { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        self.event("InvocationFailed", count, reason).await
    }

    pub async fn until<T>(&self, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            if let Some(found) = found() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: not within {PATIENCE:?}; events: {:#?}", self.events());
    }

    pub async fn send(&self, id: &str, body: &[u8]) {
        let content_type = Some("application/json".to_owned());
        let message =
            Message { message_id: id.to_owned(), content_type, body: body.to_vec(), ..Message::default() };
        self.bus.send(QUEUE, vec![message]).await.unwrap();
    }

    /// Active and dead-lettered messages of the queue.
    pub async fn queue(&self) -> (u64, u64) {
        let counts = self.bus.counts().await.unwrap();
        let (active, dead, _) = counts[QUEUE];
        (active, dead)
    }

    pub async fn get(&self, path: &str, key: Option<&str>) -> (u16, String) {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut request = reqwest::Client::new().get(format!("{}{path}", self.url));
        if let Some(key) = key {
            request = request.header("x-functions-key", key);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub async fn stop(&mut self) {
        self.host.take().expect("the host was not stopped").stop().await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.collector.abort();
    }
}
