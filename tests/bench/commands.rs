//! What a whole command costs on this machine: `cargo bench --bench commands`.
//!
//! Against the real `runtimectl up`, from outside: a Deploy to an environment that does not exist is
//! sent over Service Bus's REST face; the host delivers it, the handler refuses it, commits inbox and
//! outbox, publishes `RuntimeCommandFailed`, and it is received from the `control-plane` subscription.
//! Beside it stands what the disk alone can do, for every one of those steps is on disk before the
//! next begins.

mod machine;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::{Timestamp, ToSpan};
use machine::{Spread, quantile};
use runtime_platform::{
    azure::http_client,
    local::service_bus::rest::{SasKey, sign},
};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use uuid::Uuid;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);
const WARM_UP_COMMANDS: usize = 20;
const IN_FLIGHT: [usize; 2] = [1, 32];
/// Who receives the answers, at the same time.
const RECEIVERS: usize = 8;
/// How long the platform may take to come up; it builds the handler first.
const UP_TIMEOUT: Duration = Duration::from_secs(600);
/// How long one command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Commits that wait for the disk, for one command alone: accepted on the queue, locked, decided
/// (inbox and outbox in one), accepted on the topic, marked as published, completed, received.
const COMMITS_PER_COMMAND: f64 = 7.0;
const SUBSCRIPTION: &str = "runtime.deployment/Subscriptions/control-plane";

fn main() {
    machine::introduce();
    http_client::install_tls_provider();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("there is room for a directory");
    let up = Up::start(directory.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("the runtime starts");
    let bench = runtime.block_on(async { Bench::new(&up.context()) });
    runtime.block_on(bench.run(1, |sent, _| sent < WARM_UP_COMMANDS));
    let mut rounds: HashMap<usize, Vec<Round>> = HashMap::new();
    let mut disk = Vec::new();
    for _ in 0..ROUNDS {
        disk.push(machine::fsyncs_per_second(directory.path()));
        for in_flight in IN_FLIGHT {
            let began = Instant::now();
            let mut latencies = runtime.block_on(bench.run(in_flight, |_, elapsed| elapsed < ROUND));
            latencies.sort_by(f64::total_cmp);
            let round = Round { per_second: latencies.len() as f64 / began.elapsed().as_secs_f64(), latencies };
            rounds.entry(in_flight).or_default().push(round);
        }
    }
    report(&Spread::of(disk), &rounds);
}

/// Commands of one round: how many a second, and how long each took in milliseconds, sorted.
struct Round {
    per_second: f64,
    latencies: Vec<f64>,
}

fn report(disk: &Spread, rounds: &HashMap<usize, Vec<Round>>) {
    println!("load average at the end: {}", machine::load());
    println!("median (least to most) of {ROUNDS} rounds of {ROUND:?}; one command alone waits for {COMMITS_PER_COMMAND} commits, and commits of several share an fsync");
    println!("the disk alone: {disk} fsyncs per second");
    for in_flight in IN_FLIGHT {
        let rounds = &rounds[&in_flight];
        let spread = |of: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(of));
        let rate = spread(&|round| round.per_second);
        println!("{in_flight:>2} in flight: {rate} commands per second");
        println!("    p50 {} ms, p99 {} ms", spread(&|round| quantile(&round.latencies, 0.5)), spread(&|round| quantile(&round.latencies, 0.99)));
        println!("    {:.3} commands per raw fsync; 1 / {COMMITS_PER_COMMAND} would be {:.3}", rate.median / disk.median, 1.0 / COMMITS_PER_COMMAND);
    }
}

/// The platform, ended when it is dropped.
struct Up {
    child: Child,
    context: PathBuf,
}

impl Up {
    fn start(directory: &Path) -> Self {
        let data = directory.join("data");
        let mut child = Command::new(env!("CARGO_BIN_EXE_runtimectl"))
            .arg("up")
            .arg("--data")
            .arg(&data)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdout(Stdio::null())
            .spawn()
            .expect("runtimectl starts");
        let context = data.join("context.json");
        let began = Instant::now();
        while !context.is_file() {
            let ended = child.try_wait().expect("a child can be asked for");
            assert!(ended.is_none(), "`runtimectl up` ended; what it said is above");
            assert!(began.elapsed() < UP_TIMEOUT, "`runtimectl up` was not up within {UP_TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { child, context }
    }

    fn context(&self) -> Value {
        let text = fs::read_to_string(&self.context).expect("the context can be read");
        serde_json::from_str(&text).expect("the context is JSON")
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Gone already is as good; its guardian ends what it had started.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Those who wait for the answer to a command, by its id.
type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<()>>>>;

/// A client of the platform's Service Bus.
struct Bench {
    http: reqwest::Client,
    endpoint: String,
    authorization: String,
    tenant: String,
    waiting: Waiting,
}

impl Bench {
    fn new(context: &Value) -> Self {
        let text = |name: &str| context[name].as_str().unwrap_or_else(|| panic!("the context has `{name}`")).to_owned();
        let connection = text("serviceBusConnectionString");
        let part = |name: &str| {
            let mut parts = connection.split(';').filter_map(|part| part.split_once('='));
            parts.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).expect("the connection string has its parts")
        };
        let key = SasKey { name: part("SharedAccessKeyName"), key: part("SharedAccessKey") };
        let pem = fs::read(text("rootCertificate")).expect("the root certificate can be read");
        let roots = reqwest::Certificate::from_pem_bundle(&pem).expect("the root certificate is one");
        let http = reqwest::Client::builder().tls_certs_merge(roots).tcp_nodelay(true).no_proxy().timeout(COMMAND_TIMEOUT);
        let endpoint = text("serviceBusEndpoint");
        let bench = Self {
            http: http.build().expect("a client can be made"),
            authorization: sign(&endpoint, &key, Timestamp::now() + 1.hour()),
            endpoint,
            tenant: text("tenant"),
            waiting: Waiting::default(),
        };
        for _ in 0..RECEIVERS {
            tokio::spawn(receive(bench.request(reqwest::Method::DELETE, &format!("{SUBSCRIPTION}/messages/head?timeout=30")), bench.waiting.clone()));
        }
        bench
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}/{path}", self.endpoint)).header("authorization", &self.authorization)
    }

    /// Keeps so many commands in flight while `goes_on` says so of the number sent and the time gone:
    /// how long each took, in milliseconds.
    async fn run(&self, in_flight: usize, goes_on: impl Fn(usize, Duration) -> bool) -> Vec<f64> {
        let began = Instant::now();
        let workers = (0..in_flight).map(|_| async {
            let mut latencies = Vec::new();
            while goes_on(latencies.len(), began.elapsed()) {
                latencies.push(self.command().await);
            }
            latencies
        });
        futures::future::join_all(workers).await.concat()
    }

    /// One command from its sending to the receipt of its answer, in milliseconds.
    async fn command(&self) -> f64 {
        let id = format!("evt-{}", Uuid::new_v4().simple());
        let envelope = json!({
            "eventId": id, "eventType": "Deploy", "occurredAt": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "traceId": "trace-bench", "correlationId": "corr-bench", "causationId": null,
            "tenantId": self.tenant, "projectId": "proj-bench", "moduleId": "module-bench",
            "payload": {
                "environmentId": "env-00000000",
                "workloads": [{ "moduleId": "module-bench", "componentType": "Service", "image": "acr.azurecr.io/bench:1.0.0", "target": "container-apps" }],
            },
        });
        let (tell, told) = oneshot::channel();
        self.waiting.lock().expect("nobody panics while holding it").insert(id.clone(), tell);
        let began = Instant::now();
        let answer = self
            .request(reqwest::Method::POST, "deploy/messages")
            .header("content-type", "application/json")
            .header("brokerproperties", json!({ "MessageId": id }).to_string())
            .body(envelope.to_string())
            .send()
            .await
            .expect("Service Bus can be reached");
        assert_eq!(answer.status().as_u16(), 201, "Service Bus takes the command");
        let told = tokio::time::timeout(COMMAND_TIMEOUT, told).await;
        told.expect("the answer comes in time").expect("the receivers run on");
        began.elapsed().as_secs_f64() * 1000.0
    }
}

/// Receives answers and tells those who wait for them.
async fn receive(head: reqwest::RequestBuilder, waiting: Waiting) {
    loop {
        let request = head.try_clone().expect("a request without a body can be sent again");
        let answer = request.send().await.expect("Service Bus can be reached");
        if answer.status().as_u16() == 204 {
            continue;
        }
        assert_eq!(answer.status().as_u16(), 200, "the subscription can be received from");
        let body: Value = answer.json().await.expect("an event is JSON");
        // MassTransit's envelope holds ours as its message.
        let event = body.get("message").unwrap_or(&body);
        let is_refusal = event["eventType"] == "RuntimeCommandFailed" && event["payload"]["reasonCode"] == "EnvironmentNotFound";
        assert!(is_refusal, "only refusals were asked for; this is a {}", event["eventType"]);
        let id = event["causationId"].as_str().expect("an answer names its command");
        if let Some(tell) = waiting.lock().expect("nobody panics while holding it").remove(id) {
            // Whoever waited has given up, and said so.
            let _ = tell.send(());
        }
    }
}
