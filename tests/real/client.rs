//! A client of the platform: REST to Service Bus and Resource Manager, HTTP to the functions and
//! through the ingress. It knows what `context.json` and `keys.json` say, and nothing else.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::{SignedDuration, Timestamp};
use runtime_platform::{
    azure::http_client::{self, HttpSettings},
    local::service_bus::rest::{SasKey, sign},
};
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use crate::orders::{Order, TENANT};

/// How long one exchange may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause between two looks at something that is awaited.
const PAUSE: Duration = Duration::from_millis(100);
/// Pages of one list.
const PAGES_MAX: usize = 1000;
/// The version of Container Apps' API.
const CONTAINER_APPS: &str = "2026-01-01";

/// Why there is no answer: the other side is away, or the connection broke.
pub type Away = reqwest::Error;

/// Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    pub context: Value,
    keys: Value,
}

/// A message that was received.
#[derive(Debug)]
pub struct Taken {
    pub broker: Value,
    pub body: Vec<u8>,
}

/// What is sent to a queue.
pub struct Mail<'a> {
    pub queue: &'a str,
    pub message_id: &'a str,
    pub content_type: &'a str,
    /// Application properties, as text.
    pub properties: &'a [(&'a str, &'a str)],
    /// Other broker properties.
    pub broker: Value,
    pub body: Vec<u8>,
}

impl Client {
    /// The platform of a data directory.
    pub fn of(data: &Path) -> Self {
        let read =
            |name: &str| -> Value { serde_json::from_slice(&fs::read(data.join(name)).unwrap()).unwrap() };
        let (context, keys) = (read("context.json"), read("keys.json"));
        let settings = HttpSettings {
            additional_root: Some(context["rootCertificate"].as_str().unwrap().into()),
            resolve_localhost: true,
            request_timeout: EXCHANGE_TIMEOUT,
            ..HttpSettings::default()
        };
        Self { http: http_client::client(&settings).unwrap(), context, keys }
    }

    pub fn text(&self, name: &str) -> &str {
        self.context[name].as_str().unwrap()
    }

    // --- Functions.

    /// Asks a function, in the name of a tenant.
    pub async fn get_as(&self, tenant: &str, path: &str) -> Result<(u16, Value), Away> {
        let url = format!("{}/api/v1/runtime/{path}", self.text("functionsEndpoint"));
        let request = self.http.get(url).header("x-functions-key", self.text("functionKey"));
        let answer = request.header("x-cs-tenant-id", tenant).send().await?;
        let status = answer.status().as_u16();
        Ok((status, serde_json::from_slice(&answer.bytes().await?).unwrap_or_default()))
    }

    pub async fn get(&self, path: &str) -> Result<(u16, Value), Away> {
        self.get_as(TENANT, path).await
    }

    /// All items of a list.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let (mut items, mut after) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let join = if path.contains('?') { '&' } else { '?' };
            let (status, page) = self.get(&format!("{path}{join}limit=100&after={after}")).await.unwrap();
            assert_eq!(status, 200, "{path}: {page}");
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                // The events' cursor that ends so is where the next ones will be found.
                Some(next) if !next.ends_with('~') => after = escape(next),
                _ => return items,
            }
        }
        panic!("`{path}` has more than {PAGES_MAX} pages");
    }

    /// The events of the feed, oldest first, each once, as the feed shows them.
    pub async fn events(&self) -> Vec<Value> {
        let mut seen = std::collections::HashSet::new();
        let all = self.list("events").await;
        all.into_iter().filter(|item| seen.insert(item["envelope"]["eventId"].clone())).collect()
    }

    /// Waits until a command has ended, and answers what became of it.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn end_of(&self, event_id: &str, within: Duration) -> Value {
        let began = Instant::now();
        loop {
            // While the platform is down there is no answer; it comes back or the time runs out.
            let last = self.get(&format!("commands/{event_id}")).await;
            if let Ok((200, command)) = &last
                && command["ended"] == true
            {
                return command.clone();
            }
            assert!(
                began.elapsed() < within,
                "the command `{event_id}` has not ended in {within:?}: {last:?}"
            );
            sleep(PAUSE).await;
        }
    }

    // --- Service Bus.

    fn signature(&self) -> String {
        let key = SasKey {
            name: "RootManageSharedAccessKey".to_owned(),
            key: self.keys["serviceBusKey"].as_str().unwrap().to_owned(),
        };
        sign("https://localhost/", &key, Timestamp::now() + SignedDuration::from_hours(1))
    }

    /// Sends a message; 201 means that the broker has it.
    pub async fn post(&self, mail: Mail<'_>) -> Result<(u16, String), Away> {
        let mut broker = mail.broker;
        broker["MessageId"] = json!(mail.message_id);
        let mut request = self
            .http
            .post(format!("{}/{}/messages", self.text("serviceBusEndpoint"), mail.queue))
            .header("authorization", self.signature())
            .header("content-type", mail.content_type)
            .header("brokerproperties", broker.to_string());
        for (name, value) in mail.properties {
            request = request.header(*name, json!(value).to_string());
        }
        let answer = request.body(mail.body).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Sends a command under a message id.
    pub async fn send_as(&self, order: &Order, message_id: &str) -> Result<(u16, String), Away> {
        self.post(Mail {
            queue: &order.queue,
            message_id,
            content_type: "application/json",
            properties: &[("cs-event-type", &order.kind), ("cs-tenant-id", TENANT)],
            broker: json!({}),
            body: order.envelope.to_string().into_bytes(),
        })
        .await
    }

    /// Sends a command, which the broker must take.
    pub async fn send(&self, order: &Order) {
        let (status, text) = self.send_as(order, &Uuid::new_v4().to_string()).await.unwrap();
        assert_eq!(status, 201, "{text}");
    }

    /// Sends a command and waits for its end.
    pub async fn carry_out(&self, order: &Order, within: Duration) -> Value {
        self.send(order).await;
        self.end_of(&order.event_id, within).await
    }

    /// Receives and deletes one message, where there is one now.
    pub async fn take(&self, path: &str) -> Option<Taken> {
        let url = format!("{}/{path}/messages/head?timeout=0", self.text("serviceBusEndpoint"));
        let answer = self.http.delete(url).header("authorization", self.signature()).send().await.unwrap();
        match answer.status().as_u16() {
            204 => None,
            200 => {
                let broker = serde_json::from_slice(answer.headers()["brokerproperties"].as_bytes()).unwrap();
                Some(Taken { broker, body: answer.bytes().await.unwrap().to_vec() })
            }
            status => panic!("receiving from `{path}` answers {status}: {}", answer.text().await.unwrap()),
        }
    }

    // --- Resource Manager.

    async fn token(&self, resource: &str) -> String {
        let endpoint = self.text("identityEndpoint");
        let answer = self
            .http
            .get(format!("{endpoint}?api-version=2019-08-01&resource={resource}"))
            .header("x-identity-header", self.keys["identityHeader"].as_str().unwrap())
            .send()
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        format!("Bearer {}", answer["access_token"].as_str().unwrap())
    }

    async fn manager(&self, method: http::Method, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}{path}", self.text("resourceManagerEndpoint"));
        let token = self.token("https://management.azure.com").await;
        let mut request = self.http.request(method, url).header("authorization", token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let (status, bytes) = (answer.status(), answer.bytes().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&bytes));
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Every container app, as Resource Manager shows it.
    pub async fn apps(&self) -> Vec<Value> {
        self.resources(&format!("Microsoft.App/containerApps?api-version={CONTAINER_APPS}")).await
    }

    /// All resources of a type, in every group.
    async fn resources(&self, of_type: &str) -> Vec<Value> {
        let subscription = "/subscriptions/00000000-0000-0000-0000-00000000c105";
        let groups = format!("{subscription}/resourcegroups?api-version=2021-04-01");
        let groups = self.manager(http::Method::GET, &groups, None).await;
        let mut found = Vec::new();
        for group in groups["value"].as_array().unwrap() {
            let path = format!("{}/providers/{of_type}", group["id"].as_str().unwrap());
            found.extend(
                self.manager(http::Method::GET, &path, None).await["value"].as_array().unwrap().clone(),
            );
        }
        found
    }

    // --- Vaults.

    /// The addresses of all vaults.
    pub async fn vaults(&self) -> Vec<String> {
        let vaults = self.resources("Microsoft.KeyVault/vaults?api-version=2023-07-01").await;
        let uri = |vault: &Value| vault["properties"]["vaultUri"].as_str().map(str::to_owned);
        vaults.iter().filter_map(uri).collect()
    }

    /// Puts a value into a vault, as its issuer does.
    pub async fn put_secret(&self, vault: &str, name: &str, value: &str) {
        self.vault(http::Method::PUT, vault, name, Some(json!({ "value": value }))).await;
    }

    /// The newest value of a secret.
    pub async fn secret(&self, vault: &str, name: &str) -> String {
        let secret = self.vault(http::Method::GET, vault, name, None).await;
        secret["value"].as_str().unwrap().to_owned()
    }

    async fn vault(&self, method: http::Method, vault: &str, name: &str, body: Option<Value>) -> Value {
        let url = format!("{}/secrets/{name}?api-version=7.5", vault.trim_end_matches('/'));
        let token = self.token(self.text("vaultEndpoint")).await;
        let mut request = self.http.request(method, url).header("authorization", token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let (status, bytes) = (answer.status(), answer.bytes().await.unwrap());
        assert!(status.is_success(), "the vault answers {status} about `{name}`");
        serde_json::from_slice(&bytes).unwrap()
    }

    /// The revisions of an app.
    pub async fn revisions(&self, app: &Value) -> Vec<Value> {
        let path = format!("{}/revisions?api-version={CONTAINER_APPS}", app["id"].as_str().unwrap());
        self.manager(http::Method::GET, &path, None).await["value"].as_array().unwrap().clone()
    }

    pub async fn add_fault(&self, fault: Value) {
        self.manager(http::Method::POST, "/local/faults", Some(json!([fault]))).await;
    }

    /// Faults that wait for their call.
    pub async fn faults(&self) -> Vec<Value> {
        self.manager(http::Method::GET, "/local/faults", None).await.as_array().unwrap().clone()
    }

    pub async fn clear_faults(&self) {
        self.manager(http::Method::DELETE, "/local/faults", None).await;
    }
}

/// Text as a query may hold it.
fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Random bytes as base64 text of a length, which no compression makes smaller.
pub fn noise(length: usize) -> String {
    let bytes: Vec<u8> =
        std::iter::repeat_with(|| *Uuid::new_v4().as_bytes()).flatten().take(length).collect();
    BASE64_STANDARD.encode(bytes).chars().take(length).collect()
}
