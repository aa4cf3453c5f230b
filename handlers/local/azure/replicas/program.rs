//! A container that is a program of the user's: in a process group of its own, with `PORT` set,
//! ready when it takes a connection.
//!
//! No program outlives us. Told to end, its group gets a SIGTERM and, after a while, a SIGKILL; cut
//! off, a SIGKILL; and should this process be killed, a guardian that holds the other end of a pipe
//! sees that end and kills the group.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::watch,
};

use super::{
    Container,
    running::{Context, Ended, told},
};
use crate::local::azure::images;

/// How long a program may take until it listens.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause between two looks whether it listens.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How long a program may take to end after a SIGTERM.
const TERM_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest line of output that is passed on, in bytes; the rest of it is dropped.
const LINE_BYTES_MAX: u64 = 8 * 1024;
/// What a program gets of our own environment. A container would get nothing, but programs on this
/// machine need to be found.
const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "TMPDIR", "USER", "SHELL"];
/// Waits for the pipe to close, then kills the group that it is told.
const GUARDIAN: &str = "read -r _; kill -s KILL -- \"-$1\" 2>/dev/null";

/// A process group that is killed when this is dropped.
struct Group {
    leader: Pid,
    over: bool,
}

impl Group {
    fn signal(&self, signal: Signal) {
        // A group that is gone needs no signal.
        let _ = kill_process_group(self.leader, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.over {
            self.signal(Signal::KILL);
        }
    }
}

pub(super) async fn run(
    context: &Context,
    command: &images::Command,
    stopped: &mut watch::Receiver<bool>,
) -> Ended {
    let (address, mut child) = match start(context, command).await {
        Ok(started) => started,
        Err(reason) => return Ended::Exited(reason),
    };
    let Some(leader) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else {
        return Ended::Exited(format!("`{}` ended at once", command.program));
    };
    let mut group = Group { leader, over: false };
    context.is_group(leader.as_raw_nonzero().get());
    let _guardian = match guard(leader) {
        Ok(guardian) => guardian,
        Err(error) => {
            return Ended::Exited(format!("no guardian could be started for `{}`: {error}", command.program));
        }
    };
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let listening = async {
        if listens(address).await {
            context.ready(address).await;
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        status = child.wait() => match status {
            Ok(status) => Ended::Exited(format!("`{}` ended: {status}", command.program)),
            Err(error) => Ended::Exited(format!("`{}` was lost: {error}", command.program)),
        },
        () = pass_on_all(context, out, err) => unreachable!("output is passed on until the program is over"),
        () = listening => Ended::Exited(format!(
            "`{}` did not listen on port {} within {} seconds",
            command.program, address.port(), LISTEN_TIMEOUT.as_secs(),
        )),
        () = told(stopped) => {
            group.signal(Signal::TERM);
            let _ = tokio::time::timeout(TERM_TIMEOUT, child.wait()).await;
            Ended::Told
        }
    };
    // What the program started itself, and what did not end, goes with it.
    group.signal(Signal::KILL);
    let _ = child.wait().await;
    group.over = true;
    ended
}

async fn start(context: &Context, command: &images::Command) -> Result<(SocketAddr, Child), String> {
    // The port is free now; should somebody else take it, the program ends and is started anew.
    let free = async { TcpListener::bind(("127.0.0.1", 0)).await?.local_addr() };
    let address = free.await.map_err(|error| format!("there is no free port: {error}"))?;
    let mut process = Command::new(&command.program);
    process
        .args(&command.arguments)
        .env_clear()
        .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .env("CONTAINER_APP_NAME", &context.spec.app)
        .env("CONTAINER_APP_REVISION", &context.spec.revision)
        .env("CONTAINER_APP_REPLICA_NAME", &context.replica)
        .env("CONTAINER_APP_ENV_DNS_SUFFIX", &context.spec.domain)
        .env("CONTAINER_APP_HOSTNAME", format!("{}.{}", context.spec.revision, context.spec.domain))
        .envs(context.spec.containers.first().into_iter().flat_map(Container::variables))
        .env("PORT", address.port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(directory) = &command.working_directory {
        process.current_dir(directory);
    }
    let child =
        process.spawn().map_err(|error| format!("`{}` cannot be started: {error}", command.program))?;
    Ok((address, child))
}

/// Starts the guardian of a group. Its end of the pipe closes with us, however we end; dropped
/// before that, it goes without a trace.
fn guard(leader: Pid) -> std::io::Result<Child> {
    Command::new("/bin/sh")
        .args(["-c", GUARDIAN, "guardian", &leader.as_raw_nonzero().to_string()])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Whether the program takes connections in time.
async fn listens(address: SocketAddr) -> bool {
    let looking = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    tokio::time::timeout(LISTEN_TIMEOUT, looking).await.is_ok()
}

/// Passes output on for as long as it is polled.
async fn pass_on_all(
    context: &Context,
    out: Option<impl AsyncRead + Unpin>,
    err: Option<impl AsyncRead + Unpin>,
) {
    tokio::join!(pass_on(context, out), pass_on(context, err));
    std::future::pending::<()>().await;
}

async fn pass_on(context: &Context, stream: Option<impl AsyncRead + Unpin>) {
    let Some(stream) = stream else { return };
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    let mut cut = false;
    loop {
        line.clear();
        let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(bytes) if bytes > 0) {
            return;
        }
        let ends = line.last() == Some(&b'\n');
        if !cut {
            context.output(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        cut = !ends;
    }
}
