//! The handler's process: started, waited for, asked, and started again when it dies.

use std::{
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};
use uuid::Uuid;

use super::{HostEvent, app::App, reply};

const HOST_VERSION: &str = "4.1037.0.0";
/// Between two looks whether the handler listens.
const READINESS_INTERVAL: Duration = Duration::from_millis(25);
/// Crashes after which the host gives up, and the time after which they are forgotten.
const CRASHES_MAX: usize = 3;
const CRASHES_FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 60);
/// The exit code of a handler that wants to be started again.
const RESTART_EXIT_CODE: i32 = 200;
/// How long an invocation waits for a handler that is being started again.
const RESTART_WAIT: Duration = Duration::from_secs(120);
/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 100 * 1024 * 1024;

type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

/// Looks after the handler.
pub(super) struct Supervisor {
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Body>,
    /// The port of a handler that is ready.
    ready: watch::Receiver<Option<u16>>,
    pid: Arc<Mutex<Option<u32>>>,
    restart: Arc<Notify>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    running: AtomicUsize,
    quiet: Notify,
    timeout: Duration,
}

struct Launch {
    executable: std::path::PathBuf,
    arguments: Vec<String>,
    directory: std::path::PathBuf,
    root: std::path::PathBuf,
    environment: std::collections::BTreeMap<String, String>,
    initialization_timeout: Duration,
    events: mpsc::Sender<HostEvent>,
}

impl Supervisor {
    pub fn start(app: &App, events: mpsc::Sender<HostEvent>) -> Arc<Self> {
        let launch = Launch {
            executable: app.executable.clone(),
            arguments: app.arguments.clone(),
            directory: app.working_directory.clone(),
            root: app.root.clone(),
            environment: app.environment.clone(),
            initialization_timeout: app.initialization_timeout,
            events,
        };
        let (ready_sender, ready) = watch::channel(None);
        let (pid, restart) = (Arc::new(Mutex::new(None)), Arc::new(Notify::new()));
        let keeper = tokio::spawn(keep(launch, ready_sender, pid.clone(), restart.clone()));
        let mut connector = hyper_util::client::legacy::connect::HttpConnector::new();
        connector.set_nodelay(true);
        Arc::new(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            ready,
            pid,
            restart,
            keeper: Mutex::new(Some(keeper)),
            running: AtomicUsize::new(0),
            quiet: Notify::new(),
            timeout: app.function_timeout,
        })
    }

    pub fn pid(&self) -> Option<u32> {
        *self.pid.lock().expect("nobody panics while holding the pid")
    }

    /// Posts an invocation, and answers what the handler said.
    pub async fn invoke(&self, function: &str, invocation_id: Uuid, payload: &Value) -> Result<Value, reply::Failure> {
        self.running.fetch_add(1, Ordering::SeqCst);
        let result = self.invoke_counted(function, invocation_id, payload).await;
        if self.running.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.quiet.notify_waiters();
        }
        result
    }

    async fn invoke_counted(&self, function: &str, invocation_id: Uuid, payload: &Value) -> Result<Value, reply::Failure> {
        let not_reached = |why: &dyn std::fmt::Display| reply::Failure::NotReached(why.to_string());
        let mut ready = self.ready.clone();
        let port = tokio::time::timeout(RESTART_WAIT, ready.wait_for(Option::is_some)).await;
        let port = match port.map(|port| port.map(|port| *port)) {
            Ok(Ok(port)) => port.unwrap_or_default(),
            Ok(Err(_)) => return Err(not_reached(&"the host gave up on it")),
            Err(_) => return Err(not_reached(&"it is not ready")),
        };
        let trace = Uuid::new_v4().simple().to_string();
        let chunks: Vec<Result<Frame<Bytes>, std::convert::Infallible>> = payload
            .to_string()
            .into_bytes()
            .chunks(64 * 1024)
            .map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk))))
            .collect();
        let request = hyper::Request::builder()
            .method("POST")
            .uri(format!("http://127.0.0.1:{port}/{function}"))
            .header("X-Azure-Functions-HostVersion", HOST_VERSION)
            .header("X-Azure-Functions-InvocationId", invocation_id.to_string())
            .header("User-Agent", format!("Azure-Functions-Host/{HOST_VERSION}"))
            .header("traceparent", format!("00-{trace}-{}-00", &Uuid::new_v4().simple().to_string()[..16]))
            .header("Content-Type", "application/json; charset=utf-8")
            .body(BodyExt::boxed(StreamBody::new(futures::stream::iter(chunks))))
            .map_err(|error| not_reached(&error))?;
        let call = async {
            let response = self.client.request(request).await.map_err(|error| not_reached(&error))?;
            let status = response.status().as_u16();
            let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok()).map(str::to_owned);
            let mut body = response.into_body().into_data_stream();
            let mut bytes = Vec::new();
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(|error| not_reached(&error))?;
                if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                    return Err(reply::Failure::Malformed(format!("it is over {ANSWER_BYTES_MAX} bytes")));
                }
                bytes.extend_from_slice(&chunk);
            }
            reply::read(status, content_type.as_deref(), &bytes)
        };
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer,
            Err(_) => {
                self.restart.notify_one();
                Err(reply::Failure::TimedOut(self.timeout.as_secs()))
            }
        }
    }

    /// Ends when no invocation is running.
    pub async fn idle(&self) {
        loop {
            let quiet = self.quiet.notified();
            if self.running.load(Ordering::SeqCst) == 0 {
                return;
            }
            quiet.await;
        }
    }

    /// Kills the handler.
    pub async fn stop(&self) {
        let keeper = self.keeper.lock().expect("nobody panics while holding the keeper").take();
        if let Some(keeper) = keeper {
            keeper.abort();
            // Its child is killed when the task is dropped.
            let _ = keeper.await;
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.lock().expect("nobody panics while holding the keeper").take() {
            keeper.abort();
        }
    }
}

async fn keep(launch: Launch, ready: watch::Sender<Option<u16>>, pid: Arc<Mutex<Option<u32>>>, restart: Arc<Notify>) {
    let mut crashes: Vec<Instant> = Vec::new();
    loop {
        let why = match start(&launch).await {
            Err(why) => Some((0, why, true)),
            Ok((mut child, port)) => {
                let id = child.id().unwrap_or_default();
                *pid.lock().expect("nobody panics while holding the pid") = Some(id);
                launch.tell(HostEvent::HandlerStarting { pid: id, port });
                let ended = watch_over(&launch, &mut child, port, &ready, &restart).await;
                ready.send_replace(None);
                *pid.lock().expect("nobody panics while holding the pid") = None;
                match ended {
                    Ended::Restart => None,
                    Ended::Exited(Some(0)) => {
                        launch.tell(HostEvent::HandlerExited { pid: id, how: "exit code 0".to_owned(), restarting: false });
                        launch.tell(HostEvent::Told {
                            level: "ERROR",
                            text: "the handler exited with 0: Azure's host does not start it again, and every invocation fails from here on".to_owned(),
                        });
                        return std::future::pending().await;
                    }
                    Ended::Exited(Some(RESTART_EXIT_CODE)) => {
                        launch.tell(HostEvent::HandlerExited { pid: id, how: "exit code 200".to_owned(), restarting: true });
                        None
                    }
                    Ended::Exited(code) => {
                        let how = code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
                        Some((id, how, false))
                    }
                    Ended::NotReady => Some((id, "not ready in time".to_owned(), false)),
                }
            }
        };
        if let Some((id, how, never_started)) = why {
            if crashes.last().is_some_and(|last| last.elapsed() > CRASHES_FORGOTTEN_AFTER) {
                crashes.clear();
            }
            crashes.push(Instant::now());
            let gives_up = crashes.len() >= CRASHES_MAX || never_started;
            launch.tell(HostEvent::HandlerExited { pid: id, how: how.clone(), restarting: !gives_up });
            if gives_up {
                launch.tell(HostEvent::GaveUp { reason: format!("the handler ended {} times, the last by {how}", crashes.len()) });
                return;
            }
        }
    }
}

impl Launch {
    fn tell(&self, event: HostEvent) {
        let _ = self.events.try_send(event);
    }
}

enum Ended {
    Exited(Option<i32>),
    NotReady,
    Restart,
}

/// Starts the program on a free port.
async fn start(launch: &Launch) -> Result<(Child, u16), String> {
    let probe = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    let port = probe.local_addr().map_err(|error| error.to_string())?.port();
    drop(probe);
    let worker = Uuid::new_v4().to_string();
    let mut command = Command::new(&launch.executable);
    command
        .args(&launch.arguments)
        .current_dir(&launch.directory)
        .envs(&launch.environment)
        .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string())
        .env("FUNCTIONS_CUSTOMHANDLER_WORKER_ID", &worker)
        .env("FUNCTIONS_HTTPWORKER_PORT", port.to_string())
        .env("FUNCTIONS_HTTPWORKER_ID", &worker)
        .env("FUNCTIONS_APP_ROOT_PATH", &launch.root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|error| format!("`{}` cannot be started: {error}", launch.executable.display()))?;
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(lines(stdout, false, launch.events.clone()));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(lines(stderr, true, launch.events.clone()));
    }
    Ok((child, port))
}

async fn lines(stream: impl AsyncRead + Unpin, from_error: bool, events: mpsc::Sender<HostEvent>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if events.send(HostEvent::HandlerLine { from_error, line }).await.is_err() {
            return;
        }
    }
}

async fn watch_over(
    launch: &Launch,
    child: &mut Child,
    port: u16,
    ready: &watch::Sender<Option<u16>>,
    restart: &Notify,
) -> Ended {
    let began = Instant::now();
    tokio::select! {
        status = child.wait() => return Ended::Exited(status.ok().and_then(|status| status.code())),
        answered = answers(port, launch.initialization_timeout) => {
            if !answered {
                let _ = child.kill().await;
                return Ended::NotReady;
            }
        }
    }
    ready.send_replace(Some(port));
    launch.tell(HostEvent::Ready { milliseconds: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX) });
    tokio::select! {
        status = child.wait() => Ended::Exited(status.ok().and_then(|status| status.code())),
        () = restart.notified() => {
            let _ = child.kill().await;
            Ended::Restart
        }
    }
}

/// Whether any HTTP answer comes to `GET /` in time.
async fn answers(port: u16, timeout: Duration) -> bool {
    let client: Client<_, http_body_util::Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let uri: hyper::Uri = match format!("http://127.0.0.1:{port}/").parse() {
        Ok(uri) => uri,
        Err(_) => return false,
    };
    let ask = async {
        while client.get(uri.clone()).await.is_err() {
            tokio::time::sleep(READINESS_INTERVAL).await;
        }
    };
    tokio::time::timeout(timeout, ask).await.is_ok()
}
