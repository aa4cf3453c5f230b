//! The real `runtimectl up`, started as a person starts it: on a data directory of its own, with
//! whatever ports are free, and found again by the context that it writes.
//!
//! Everything that it starts inherits a mark in its environment, so that what is left behind can be
//! told from what belongs to others.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::client::Client;

/// How long `up` may take until it says that it is up.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long `up` may take to end after Ctrl-C.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// What marks the processes of one place.
const MARK: &str = "RUNTIME_TEST_PLACE";
/// What `up` prints once it is up.
const IS_UP: &str = "The platform is up.";

/// A folder for one platform: its data, and what it prints.
pub struct Place {
    root: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let root = tempfile::Builder::new().prefix("real-").tempdir().unwrap();
        fs::create_dir(root.path().join("tmp")).unwrap();
        Self { root }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// `runtimectl` with these arguments, as it would be typed in the checkout.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runtimectl"));
        self.prepare(&mut command);
        command.args(arguments);
        command
    }

    /// The surroundings of a command.
    pub fn prepare(&self, command: &mut Command) {
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env(MARK, self.root.path())
            .env("TMPDIR", self.path("tmp"))
            // The handler was built with these tests; there is nothing to be built again.
            .env("CARGO", "true")
            .env_remove("RUNTIME_CONTEXT")
            .env_remove("RUNTIME_TENANT")
            .stdin(Stdio::null());
    }

    /// Starts `up` on this place's data.
    pub fn up(&self, more: &[&str]) -> Up<'_> {
        let data = self.data();
        let mut command = self.command(&["up", "--data", data.to_str().unwrap()]);
        command.args(more);
        self.spawn(command)
    }

    /// Starts a command that is, or becomes, `up`.
    pub fn spawn(&self, mut command: Command) -> Up<'_> {
        let (out, errors) = (self.path("out.txt"), self.path("errors.txt"));
        let child = command
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        Up { place: self, child, out, errors }
    }

    /// Processes that were started here and still run: their numbers and what they are.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let mark = format!("{MARK}={}", self.root.path().display());
        let scratch = format!("TMPDIR={}", self.path("tmp").display());
        let is_ours = |environment: &str| environment.contains(&mark) || environment.contains(&scratch);
        if let Ok(entries) = fs::read_dir("/proc/self").and_then(|_| fs::read_dir("/proc")) {
            return entries
                .flatten()
                .filter_map(|entry| {
                    let pid = entry.file_name().to_str()?.parse().ok()?;
                    let environment = fs::read(entry.path().join("environ")).ok()?;
                    let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    let text = String::from_utf8_lossy(&line).replace('\0', " ");
                    is_ours(&String::from_utf8_lossy(&environment)).then_some((pid, text))
                })
                .collect();
        }
        let listed = Command::new("ps").args(["eww", "-A", "-o", "pid=,command="]).output().unwrap();
        String::from_utf8_lossy(&listed.stdout)
            .lines()
            .filter(|line| is_ours(line))
            .filter_map(|line| Some((line.split_whitespace().next()?.parse().ok()?, line.to_owned())))
            .collect()
    }

    /// Waits until nothing that was started here runs any more.
    ///
    /// # Panics
    /// With what still runs after `within`.
    pub async fn is_empty_within(&self, within: Duration) {
        let began = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(began.elapsed() < within, "still running after {within:?}: {left:?}");
            sleep(PAUSE).await;
        }
    }

    /// The handler that runs, as the list of the guarded processes has it.
    pub fn handler(&self) -> Option<i32> {
        let text = fs::read_to_string(self.data().join("processes.json")).ok()?;
        let wards: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).ok()?;
        let pid = wards.keys().last()?.parse().ok()?;
        is_alive(pid).then_some(pid)
    }

    /// Waits until a handler runs that is not `old`.
    pub async fn handler_other_than(&self, old: Option<i32>) -> i32 {
        let began = Instant::now();
        loop {
            match self.handler() {
                Some(pid) if Some(pid) != old => return pid,
                _ => assert!(began.elapsed() < READY_TIMEOUT, "no handler was started again"),
            }
            sleep(PAUSE).await;
        }
    }

    /// The lines of the platform's log that have `part` in them.
    pub fn log_lines(&self, part: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for name in ["log.old.jsonl", "log.jsonl"] {
            let text = fs::read(self.data().join(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            lines.extend(text.lines().filter(|line| line.contains(part)).map(str::to_owned));
        }
        lines
    }
}

/// A running `up`. Dropping it is a `kill -9`.
pub struct Up<'p> {
    place: &'p Place,
    child: Child,
    out: PathBuf,
    errors: PathBuf,
}

impl Up<'_> {
    /// Waits until it is up, and connects to it.
    ///
    /// # Panics
    /// When it ends instead, or takes too long.
    pub async fn ready(&mut self) -> Client {
        self.is_up().await;
        Client::of(&self.place.data())
    }

    async fn is_up(&mut self) {
        let began = Instant::now();
        while !self.printed().contains(IS_UP) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("`up` ended with {status}: {}", self.told());
            }
            assert!(began.elapsed() < READY_TIMEOUT, "`up` is not up: {}", self.told());
            sleep(PAUSE).await;
        }
    }

    pub fn printed(&self) -> String {
        fs::read_to_string(&self.out).unwrap()
    }

    /// What it wrote to standard error.
    pub fn told(&self) -> String {
        fs::read_to_string(&self.errors).unwrap()
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// `kill -9`, and nothing else: what it started is for others to end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ctrl-C.
    pub async fn interrupt(self) -> ExitStatus {
        kill(self.pid(), Signal::INT);
        self.ended(STOP_TIMEOUT).await
    }

    /// Waits for its end.
    pub async fn ended(mut self, within: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < within, "`up` runs on: {}", self.told());
            sleep(PAUSE).await;
        }
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal; a process that is gone already needs none.
pub fn kill(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process runs; one that has ended and that nobody has asked about yet does not.
fn is_alive(pid: i32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    if state.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')) {
        return false;
    }
    Pid::from_raw(pid).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

/// Where a suite's own function app may be made: a copy of the checkout's, without its code.
pub fn copy_of_the_app(place: &Place) -> PathBuf {
    let (from, to) = (Path::new(env!("CARGO_MANIFEST_DIR")), place.path("app"));
    for file in ["host.json", "local.settings.json", "infra/messaging.json"] {
        place.write(&format!("app/{file}"), &fs::read_to_string(from.join(file)).unwrap());
    }
    for entry in fs::read_dir(from.join("functions")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let text = fs::read_to_string(from.join("functions").join(&name).join("function.json")).unwrap();
        place.write(&format!("app/functions/{name}/function.json"), &text);
    }
    to
}
