//! A stand-in to ask, on a file of its own, with a clock that is moved by hand.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{body::Body, http::Request};
use jiff::Timestamp;
use runtime_platform::{
    local::{
        azure::{AUDIENCE, Azure, AzureOptions, Happening, ImageCatalogue, KeyVaults},
        identity::Tokens,
        service_bus::{Message, ServiceBus, Topology},
    },
    ports::clock::Clock,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

pub const SUBSCRIPTION: &str = "/subscriptions/s1";
pub const GROUP: &str = "/subscriptions/s1/resourceGroups/Rg";
/// How long something that must come may take, before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

struct Hands(Mutex<Timestamp>);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub body: Value,
    headers: axum::http::HeaderMap,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    /// The names of what is listed.
    pub fn names(&self) -> Vec<String> {
        let listed = self.body["value"].as_array().unwrap();
        listed.iter().map(|resource| resource["name"].as_str().unwrap().to_owned()).collect()
    }
}

pub struct Bench {
    directory: TempDir,
    clock: Arc<Hands>,
    images: ImageCatalogue,
    azure: Azure,
    vaults: KeyVaults,
    service_bus: ServiceBus,
    pub heard: Arc<Mutex<Vec<Happening>>>,
}

impl Bench {
    pub async fn new() -> Self {
        Self::with(ImageCatalogue::built_in()).await
    }

    pub async fn with(images: ImageCatalogue) -> Self {
        let clock = Arc::new(Hands(Mutex::new("2026-08-01T00:00:00Z".parse().unwrap())));
        Self::open(tempfile::tempdir().unwrap(), clock, images).await
    }

    async fn open(directory: TempDir, clock: Arc<Hands>, images: ImageCatalogue) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut options = AzureOptions::new(
            directory.path().join("azure.db"),
            Tokens::new([1; 32], "header".to_owned()),
            "https://management.localhost:8443".to_owned(),
            9443,
        );
        options.clock = clock.clone();
        options.images = images.clone();
        options.restart_pause = Duration::from_millis(5);
        let declared = Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/messaging.json");
        let topology = Topology::read(&declared).unwrap();
        let service_bus =
            ServiceBus::open(&directory.path().join("bus.db"), topology, clock.clone()).unwrap();
        options.service_bus = Some(service_bus.clone());
        let ears = heard.clone();
        options.sink = Arc::new(move |happening| ears.lock().unwrap().push(happening));
        let azure = Azure::open(options).unwrap();
        let vaults = KeyVaults::open(&azure, &directory.path().join("vaults.db")).await.unwrap();
        azure.start().await.unwrap();
        Self { directory, clock, images, azure, vaults, service_bus, heard }
    }

    pub fn azure(&self) -> &Azure {
        &self.azure
    }

    /// Ends the stand-in and opens it again on the same file.
    pub async fn restart(self) -> Self {
        self.azure.stop().await;
        drop((self.azure, self.vaults, self.service_bus));
        Self::open(self.directory, self.clock, self.images).await
    }

    pub fn pass(&self, time: Duration) {
        let mut now = self.clock.0.lock().unwrap();
        *now += time;
    }

    /// Waits until `found` finds something.
    pub async fn until<T>(&self, what: &str, mut found: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = found(self).await {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "{what} did not come");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn send_as(
        &self,
        token: Option<&str>,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(url).header("host", "asked.example:77");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        let response = self.azure.router().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() },
        }
    }

    pub async fn send_with(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let token = Tokens::new([1; 32], "header".to_owned()).issue(AUDIENCE, self.clock.now().as_second());
        self.send_as(Some(&token), method, url, headers, body).await
    }

    pub async fn send(&self, method: &str, url: &str, body: Option<Value>) -> Answer {
        self.send_with(method, url, &[], body).await
    }

    pub async fn get(&self, id: &str) -> Answer {
        self.send("GET", &versioned(id), None).await
    }

    pub async fn put(&self, id: &str, body: Value) -> Answer {
        self.send("PUT", &versioned(id), Some(body)).await
    }

    /// Asks a vault, with a token for it.
    pub async fn vault(&self, method: &str, path: &str, body: Value) -> Value {
        let token = Tokens::new([1; 32], "header".to_owned())
            .issue("https://vault.localhost", self.clock.now().as_second());
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}?api-version=7.6"))
            .header("host", "kv.vault.localhost")
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = self.vaults.router().oneshot(request).await.unwrap();
        assert!(response.status().is_success(), "{method} {path}: {}", response.status());
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// A token of Microsoft Entra's for an audience.
    pub fn token(&self, audience: &str) -> String {
        Tokens::new([1; 32], "header".to_owned()).issue(audience, self.clock.now().as_second())
    }

    /// Puts so many messages into a queue.
    pub async fn enqueue(&self, queue: &str, count: usize) {
        let message =
            |number| Message { message_id: format!("m{number}"), body: b"{}".to_vec(), ..Message::default() };
        self.service_bus.send(queue, (0..count).map(message).collect()).await.unwrap();
    }

    /// Everything that the stand-in keeps on disk.
    pub fn disk(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.directory.path()).unwrap();
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    /// Makes the resource group that most tests work in.
    pub async fn group(&self) {
        let created = self.put(GROUP, json!({ "location": "westeurope" })).await;
        assert_eq!(created.status, 201, "{}", created.body);
    }
}

/// The id with a version that its type has.
fn versioned(id: &str) -> String {
    let lower = id.to_lowercase();
    let namespace = lower
        .rsplit("/providers/")
        .next()
        .unwrap_or_default()
        .split('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let version = match namespace.as_str() {
        "microsoft.keyvault" => "2024-11-01",
        "microsoft.app" => "2026-01-01",
        "microsoft.network" => "2024-05-01",
        "microsoft.managedidentity" => "2023-01-31",
        "microsoft.authorization" => "2022-04-01",
        "microsoft.servicebus" => "2021-11-01",
        _ => "2024-03-01",
    };
    format!("{id}?api-version={version}")
}
