//! One run of the handler's process: how it is started, when it is ready, what it writes, how it ends.
//!
//! Azure kills a custom handler without a warning, and so does this. There is no pipe to its stdin
//! and no signal before the last one.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::Uri;
use http_body_util::{Empty, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    net::TcpListener,
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

use super::{
    app::Program,
    events::{Events, HostEvent, Stream},
};

/// How often a handler that does not answer yet is asked.
const READINESS_EVERY: Duration = Duration::from_millis(25);
/// Bytes of a line; what is longer is told as several lines.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// How long to wait for the last lines of a process that has ended.
const LAST_LINES_WAIT: Duration = Duration::from_millis(500);
/// How long a process that was killed may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// Connections to the handler that are kept for the next invocation.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// How long an idle connection is kept.
const IDLE_CONNECTION_FOR: Duration = Duration::from_secs(60);
/// How long a connection on this machine may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;
pub(super) type HandlerClient = Client<HttpConnector, Body>;

/// The client of the handler: HTTP/1.1 with connections kept alive.
pub(super) fn client() -> HandlerClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_CONNECTION_FOR)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .build(connector)
}

/// Where a path of the handler is.
pub(super) fn address(port: u16, path: &str) -> Result<Uri, http::uri::InvalidUri> {
    format!("http://{}:{port}/{path}", Ipv4Addr::LOCALHOST).parse()
}

/// A process that runs. It is killed, with all it started, when this is dropped.
pub(super) struct Process {
    child: Child,
    pub pid: u32,
    pub port: u16,
    lines: JoinSet<()>,
}

impl Process {
    /// Starts the handler with `environment` and what Azure's host adds to it.
    ///
    /// # Errors
    /// When the system does not start it, or has no port.
    pub async fn start(
        program: &Program,
        environment: &BTreeMap<String, String>,
        worker: &str,
        events: &Events,
    ) -> io::Result<Self> {
        let port = free_port().await?;
        let mut command = Command::new(&program.executable);
        command
            .args(&program.arguments)
            .current_dir(&program.directory)
            .env_clear()
            .envs(environment)
            .envs([
                ("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string()),
                ("FUNCTIONS_HTTPWORKER_PORT", port.to_string()),
            ])
            .envs([("FUNCTIONS_CUSTOMHANDLER_WORKER_ID", worker), ("FUNCTIONS_HTTPWORKER_ID", worker)])
            .env("FUNCTIONS_APP_ROOT_PATH", &program.app)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // A group of its own: Ctrl-C at our terminal is not meant for it, and killing the group takes
        // along what it started.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("the process ended before it began"))?;
        events.send(HostEvent::HandlerStarting { pid, port }).await;
        let mut lines = JoinSet::new();
        if let Some(out) = child.stdout.take() {
            lines.spawn(pass_on(out, Stream::Out, events.clone()));
        }
        if let Some(err) = child.stderr.take() {
            lines.spawn(pass_on(err, Stream::Err, events.clone()));
        }
        Ok(Self { child, pid, port, lines })
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Kills it, waits until it is gone and has said its last, and tells how it ended.
    pub async fn kill(&mut self) -> String {
        self.kill_group();
        match timeout(KILL_WAIT, self.child.wait()).await {
            Ok(Ok(status)) => self.after(status).await,
            Ok(Err(error)) => format!("unknown: {error}"),
            Err(_) => format!("killed, and not gone after {} seconds", KILL_WAIT.as_secs()),
        }
    }

    /// How it ended, once its last lines are passed on.
    pub async fn after(&mut self, status: ExitStatus) -> String {
        // What it started does not outlive it: the next handler begins in a clean place.
        self.kill_group();
        // A descendant in a group of its own may hold the pipes open; its lines are not waited for.
        let _ = timeout(LAST_LINES_WAIT, async { while self.lines.join_next().await.is_some() {} }).await;
        self.lines.abort_all();
        how(status)
    }

    #[cfg(unix)]
    fn kill_group(&self) {
        let group = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            // Nobody left in the group is what is wanted.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }

    #[cfg(not(unix))]
    fn kill_group(&mut self) {
        // A process that is gone already is what is wanted.
        let _ = self.child.start_kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only while it is ours: once it has been waited for, its number may be another's.
        if self.child.id().is_some() {
            self.kill_group();
        }
    }
}

/// Asks `GET /` until anything answers at all.
pub(super) async fn answers(client: &HandlerClient, port: u16) {
    loop {
        let address = address(port, "").expect("a port makes a good address");
        let request =
            http::Request::get(address).body(Body::new(Empty::new())).expect("the request is complete");
        // Any answer will do. One that never comes is the caller's to give up on.
        if client.request(request).await.is_ok() {
            return;
        }
        tokio::time::sleep(READINESS_EVERY).await;
    }
}

async fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?.port())
}

fn how(status: ExitStatus) -> String {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        if let Some(signal) = status.signal() {
            return format!("signal {signal}");
        }
    }
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

async fn pass_on(from: impl AsyncRead + Unpin, stream: Stream, events: Events) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while let Ok(buffer) = reader.fill_buf().await {
        if buffer.is_empty() {
            break;
        }
        let room = LINE_BYTES_MAX - line.len();
        let end = buffer.iter().take(room).position(|byte| *byte == b'\n');
        let taken = end.map_or(buffer.len().min(room), |end| end + 1);
        line.extend_from_slice(&buffer[..taken]);
        reader.consume(taken);
        if end.is_some() || line.len() >= LINE_BYTES_MAX {
            send_line(&mut line, stream, &events).await;
        }
    }
    if !line.is_empty() {
        send_line(&mut line, stream, &events).await;
    }
}

async fn send_line(line: &mut Vec<u8>, stream: Stream, events: &Events) {
    let text = String::from_utf8_lossy(line).trim_end_matches(['\r', '\n']).to_owned();
    line.clear();
    events.send(HostEvent::HandlerLine { stream, line: text }).await;
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn lines_are_passed_on_whole_and_long_ones_in_pieces() {
        let (sender, mut receiver) = mpsc::channel(16);
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let text = format!("one\r\n\n{long}\nlast");
        pass_on(text.as_bytes(), Stream::Err, Events::new(sender)).await;
        let mut lines = Vec::new();
        while let Some(HostEvent::HandlerLine { stream: Stream::Err, line }) = receiver.recv().await {
            lines.push(line);
        }
        assert_eq!(lines, ["one", "", &long[..LINE_BYTES_MAX], "x", "last"]);
    }
}
