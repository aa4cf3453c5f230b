//! A platform that answers as a test says: HTTP functions in plain HTTP, Service Bus behind a
//! certificate of its own authority, and a context that names both.

use std::{
    collections::HashMap,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::Request, response::IntoResponse};
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use http::StatusCode;
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;
use runtime_platform::local::{certificates::Authority, https};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;
use tokio::{
    io::{BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
    task::AbortHandle,
    time::timeout,
};

/// No run of the program takes longer.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);
/// No line of output is waited for longer.
pub const LINE_TIMEOUT: Duration = Duration::from_secs(20);
/// No test's request is longer, in bytes.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;

pub const KEY: &str = "the-function-key";
const BUS_KEY: &str = "the-bus-key";
/// The token of whoever is logged in to Azure.
pub const LOGIN_TOKEN: &str = "the-login-token";
pub const TENANT: &str = "connectsoft";

/// A message as Service Bus got it.
#[derive(Clone, Debug)]
pub struct Posted {
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Value,
}

/// What the HTTP functions are asked: the method, the path below the routes, the query and the body.
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: HashMap<String, String>,
    /// None where there is none.
    pub body: Option<Value>,
    pub idempotency_key: Option<String>,
}

type Answers = Arc<dyn Fn(&Asked) -> (u16, Value) + Send + Sync>;

pub struct Fake {
    pub folder: TempDir,
    pub posted: Arc<Mutex<Vec<Posted>>>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// The answer about something that there is not.
pub fn not_found(code: &str) -> (u16, Value) {
    (404, json!({"error": {"code": code, "message": format!("there is none ({code})")}}))
}

impl Fake {
    pub async fn start(answers: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join(".runtime");
        let authority = Authority::open(&data).unwrap();
        let functions = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bus = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (functions_port, bus_port) =
            (functions.local_addr().unwrap().port(), bus.local_addr().unwrap().port());
        let tls = authority.server(&["bus.localhost"]).unwrap();
        let posted = Arc::new(Mutex::new(Vec::new()));
        let answers: Answers = Arc::new(answers);
        let tasks = vec![
            tokio::spawn(https::serve(functions, None, Router::new().fallback(ask).with_state(answers)))
                .abort_handle(),
            tokio::spawn(https::serve(
                bus,
                Some(tls),
                Router::new().fallback(post).with_state(posted.clone()),
            ))
            .abort_handle(),
        ];
        let context = json!({
            "name": "fake",
            "functionsEndpoint": format!("http://127.0.0.1:{functions_port}"),
            "functionKey": KEY,
            "serviceBusConnectionString":
                format!("Endpoint=sb://bus.localhost/;SharedAccessKeyName=root;SharedAccessKey={BUS_KEY}"),
            "serviceBusEndpoint": format!("https://bus.localhost:{bus_port}"),
            "rootCertificate": "root.pem",
            "logFile": "platform.log",
            "tenant": TENANT,
        });
        write_private(&data.join("context.json"), &context.to_string());
        Self { folder, posted, tasks }
    }

    /// The program in the fake's folder, with nothing of our own environment that it would heed.
    pub fn command(&self, args: &[&str]) -> Command {
        command(self.folder.path(), args)
    }

    pub async fn run(&self, args: &[&str]) -> Ran {
        run(self.folder.path(), args).await
    }

    /// Changes the context.
    pub fn context(&self, change: impl FnOnce(&mut Value)) {
        let file = self.folder.path().join(".runtime/context.json");
        let mut context = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        change(&mut context);
        write_private(&file, &context.to_string());
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }
}

fn write_private(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runtimectl"));
    command.args(args).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    for variable in
        ["RUNTIME_CONTEXT", "RUNTIME_TENANT", "NO_COLOR", "XDG_CONFIG_HOME", "HTTP_PROXY", "http_proxy"]
    {
        command.env_remove(variable);
    }
    command.env("HOME", folder);
    command
}

pub async fn run(folder: &Path, args: &[&str]) -> Ran {
    timeout(RUN_TIMEOUT, command(folder, args).output()).await.expect("it ends in time").unwrap().into()
}

/// The next line that a running program writes.
pub async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    timeout(LINE_TIMEOUT, lines.next_line()).await.expect("a line in time").unwrap().expect("a line")
}

/// Presses Ctrl-C.
pub fn interrupt(child: &Child) {
    let id = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
}

async fn ask(State(answers): State<Answers>, request: Request<axum::body::Body>) -> axum::response::Response {
    let (parts, body) = request.into_parts();
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if header("x-functions-key").as_deref() != Some(KEY) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    assert!(header("x-cs-tenant-id").is_some(), "every question names its tenant");
    let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
        .into_owned()
        .collect::<HashMap<_, _>>();
    let path = parts.uri.path().strip_prefix("/api/v1/runtime/").expect("a route of the platform").to_owned();
    let (method, idempotency_key) = (parts.method.to_string(), header("idempotency-key"));
    let bytes = http_body_util::Limited::new(body, REQUEST_BYTES_MAX).collect().await;
    let bytes = bytes.unwrap().to_bytes();
    let body = (!bytes.is_empty()).then(|| serde_json::from_slice(&bytes).unwrap());
    let (status, body) = answers(&Asked { method, path, query, body, idempotency_key });
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

async fn post(
    State(posted): State<Arc<Mutex<Vec<Posted>>>>,
    request: Request<axum::body::Body>,
) -> axum::response::Response {
    let (parts, body) = request.into_parts();
    let headers = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect::<HashMap<_, _>>();
    if !is_signed(headers.get("authorization").map(String::as_str).unwrap_or_default()) {
        return (StatusCode::UNAUTHORIZED, "InvalidSignature").into_response();
    }
    let body: Bytes =
        http_body_util::Limited::new(body, REQUEST_BYTES_MAX).collect().await.unwrap().to_bytes();
    if parts.uri.path().starts_with("/no-such-queue/") {
        return (StatusCode::NOT_FOUND, "The messaging entity could not be found.").into_response();
    }
    let body = serde_json::from_slice(&body).unwrap();
    posted.lock().unwrap().push(Posted { path: parts.uri.path().to_owned(), headers, body });
    StatusCode::CREATED.into_response()
}

/// Whether it is the login's token, or a shared access signature made with the key, for a resource
/// and an end that it names.
fn is_signed(authorization: &str) -> bool {
    if authorization == format!("Bearer {LOGIN_TOKEN}") {
        return true;
    }
    let Some(token) = authorization.strip_prefix("SharedAccessSignature ") else { return false };
    let parts = token.split('&').filter_map(|part| part.split_once('=')).collect::<HashMap<_, _>>();
    let decoded = |name: &str| percent_decode_str(parts[name]).decode_utf8().unwrap().into_owned();
    let mut mac = Hmac::<Sha256>::new_from_slice(BUS_KEY.as_bytes()).unwrap();
    mac.update(format!("{}\n{}", parts["sr"], parts["se"]).as_bytes());
    let until: i64 = parts["se"].parse().unwrap();
    decoded("sig") == BASE64_STANDARD.encode(mac.finalize().into_bytes())
        && decoded("skn") == "root"
        && decoded("sr").starts_with("https://bus.localhost")
        && until > jiff::Timestamp::now().as_second()
}
