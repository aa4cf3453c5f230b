//! Keeps one handler running, by Azure's rules: exit code 200 is a restart on request, any other
//! code but 0 an error, the third error within half an hour the end of the host. After exit code 0
//! Azure does nothing at all, and every later invocation fails; here that is said aloud.

use std::{
    collections::BTreeMap,
    io,
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use uuid::Uuid;

use super::{
    app::Program,
    events::{Events, HostEvent},
    process::{HandlerClient, Process, answers},
};
use crate::ports::clock::Clock;

/// The error that ends the host.
const ERRORS_MAX: u32 = 3;
/// How long errors count: after so long without one, counting begins anew.
const ERRORS_COUNT_FOR: SignedDuration = SignedDuration::from_mins(30);
/// The exit code with which a handler asks to be started again.
const RESTART_CODE: i32 = 200;
/// Orders that may wait; an invocation that ran out of time gives one.
const ORDERS_MAX: usize = 64;

/// What invocations need to know of the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not ready, or between two processes: invocations wait.
    Starting,
    /// `run` counts the processes.
    Ready { port: u16, run: u64 },
    /// It exited with 0: invocations fail.
    Finished,
    /// The host has given up, or was stopped.
    Gone,
}

/// What can be asked of the supervisor.
pub(super) enum Order {
    /// An invocation of this run is out of time: kill, and start again.
    Restart { run: u64 },
    /// The host cannot go on.
    GiveUp { reason: String },
    /// Kill, and say when it is done.
    Stop(oneshot::Sender<()>),
}

/// What a handler is started with.
pub(super) struct Launch {
    pub program: Program,
    pub environment: BTreeMap<String, String>,
    pub initialization_timeout: Duration,
}

/// The supervisor of a handler. The process is killed when this is dropped.
pub(super) struct Supervisor {
    pub state: watch::Receiver<State>,
    pub orders: mpsc::Sender<Order>,
    pid: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Supervisor {
    pub fn start(launch: Launch, client: HandlerClient, events: Events, clock: Arc<dyn Clock>) -> Self {
        let (state, watched) = watch::channel(State::Starting);
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let pid = Arc::new(AtomicU32::new(0));
        let runner = Runner {
            launch,
            client,
            events,
            clock,
            state,
            orders: received,
            pid: pid.clone(),
            runs: 0,
            errors: Errors::default(),
        };
        Self { state: watched, orders, pid, task: tokio::spawn(runner.run()) }
    }

    /// The process that runs, if one does.
    pub fn pid(&self) -> Option<u32> {
        Some(self.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// Kills the handler and waits until it is gone.
    pub async fn stop(&mut self) {
        let (done, is_done) = oneshot::channel();
        if self.orders.send(Order::Stop(done)).await.is_ok() {
            // A supervisor that ended by itself has no process either.
            let _ = is_done.await;
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Errors of the handler, counted as Azure counts them.
#[derive(Debug, Default)]
struct Errors {
    count: u32,
    last: Option<Timestamp>,
}

impl Errors {
    /// Counts an error; answers whether the handler may be started again.
    fn may_restart_after(&mut self, now: Timestamp) -> bool {
        if self.last.is_some_and(|last| now.duration_since(last) > ERRORS_COUNT_FOR) {
            self.count = 0;
        }
        self.count += 1;
        self.last = Some(now);
        self.count < ERRORS_MAX
    }
}

/// How one run ended.
enum End {
    Exited(String, Option<i32>),
    /// It could not be started.
    NoStart(io::Error),
    /// It did not answer in time, and was killed.
    NotReady(String),
    /// It was killed to be started again.
    Restart(String),
    GiveUp(String, String),
    Stop(String, Option<oneshot::Sender<()>>),
}

struct Runner {
    launch: Launch,
    client: HandlerClient,
    events: Events,
    clock: Arc<dyn Clock>,
    state: watch::Sender<State>,
    orders: mpsc::Receiver<Order>,
    pid: Arc<AtomicU32>,
    runs: u64,
    errors: Errors,
}

impl Runner {
    async fn run(mut self) {
        loop {
            self.state.send_replace(State::Starting);
            self.runs += 1;
            let worker = Uuid::new_v4().to_string();
            let started =
                Process::start(&self.launch.program, &self.launch.environment, &worker, &self.events).await;
            let (end, pid) = match started {
                Err(error) => (End::NoStart(error), 0),
                Ok(mut process) => {
                    self.pid.store(process.pid, Ordering::Relaxed);
                    let end = self.attend(&mut process).await;
                    self.pid.store(0, Ordering::Relaxed);
                    (end, process.pid)
                }
            };
            if !self.conclude(end, pid).await {
                return;
            }
        }
    }

    /// Watches one process to its end.
    async fn attend(&mut self, process: &mut Process) -> End {
        let (started, run, port) = (Instant::now(), self.runs, process.port);
        let client = self.client.clone();
        let readiness =
            timeout(self.launch.initialization_timeout, async move { answers(&client, port).await });
        tokio::pin!(readiness);
        let mut is_ready = false;
        loop {
            tokio::select! {
                status = process.ended() => return self.exited(process, status).await,
                answer = &mut readiness, if !is_ready => match answer {
                    Ok(()) => {
                        is_ready = true;
                        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                        self.state.send_replace(State::Ready { port, run });
                        self.events.send(HostEvent::Ready { milliseconds }).await;
                    }
                    Err(_) => return End::NotReady(process.kill().await),
                },
                order = self.orders.recv() => match order {
                    // What ran out of time belonged to an earlier process.
                    Some(Order::Restart { run: late }) if late != run => {}
                    Some(Order::Restart { .. }) => {
                        self.state.send_replace(State::Starting);
                        return End::Restart(process.kill().await);
                    }
                    Some(Order::GiveUp { reason }) => return End::GiveUp(process.kill().await, reason),
                    Some(Order::Stop(done)) => return End::Stop(process.kill().await, Some(done)),
                    None => return End::Stop(process.kill().await, None),
                },
            }
        }
    }

    async fn exited(&self, process: &mut Process, status: io::Result<ExitStatus>) -> End {
        // No invocation is sent to a process that is gone.
        self.state.send_replace(State::Starting);
        match status {
            Ok(status) => End::Exited(process.after(status).await, status.code()),
            Err(error) => End::Exited(format!("unknown: {error}"), None),
        }
    }

    /// Applies the rules; answers whether to start again.
    async fn conclude(&mut self, end: End, pid: u32) -> bool {
        match end {
            End::Exited(how, Some(0)) => {
                self.tell_exit(pid, how, false).await;
                self.finished().await;
                false
            }
            End::Exited(how, Some(RESTART_CODE)) | End::Restart(how) => {
                self.tell_exit(pid, how, true).await;
                true
            }
            End::Exited(how, _) => {
                let again = self.errors.may_restart_after(self.clock.now());
                self.tell_exit(pid, how.clone(), again).await;
                self.again_or_give_up(again, self.too_many(&format!("the handler ended with {how}"))).await
            }
            End::NotReady(how) => {
                let again = self.errors.may_restart_after(self.clock.now());
                let seconds = self.launch.initialization_timeout.as_secs_f64();
                let problem = format!(
                    "the handler did not answer GET / on FUNCTIONS_CUSTOMHANDLER_PORT within {seconds} seconds (initializationTimeout)"
                );
                self.events.tell("ERROR", problem.clone());
                self.tell_exit(pid, how, again).await;
                self.again_or_give_up(again, self.too_many(&problem)).await
            }
            End::NoStart(error) => {
                let again = self.errors.may_restart_after(self.clock.now());
                let problem =
                    format!("`{}` could not be started: {error}", self.launch.program.executable.display());
                self.events.tell("ERROR", problem.clone());
                self.again_or_give_up(again, self.too_many(&problem)).await
            }
            End::GiveUp(how, reason) => {
                self.tell_exit(pid, how, false).await;
                self.again_or_give_up(false, reason).await
            }
            End::Stop(how, done) => {
                self.tell_exit(pid, how, false).await;
                self.gone(done);
                false
            }
        }
    }

    async fn tell_exit(&self, pid: u32, how: String, restarting: bool) {
        self.events.send(HostEvent::HandlerExited { pid, how, restarting }).await;
    }

    fn too_many(&self, problem: &str) -> String {
        format!(
            "{problem}; that was error {} of at most {ERRORS_MAX} without {} quiet minutes between",
            self.errors.count,
            ERRORS_COUNT_FOR.as_mins()
        )
    }

    async fn again_or_give_up(&mut self, again: bool, reason: String) -> bool {
        if !again {
            self.state.send_replace(State::Gone);
            self.events.send(HostEvent::GaveUp { reason }).await;
        }
        again
    }

    /// Azure leaves a handler that exited with 0 alone; only a stop ends this.
    async fn finished(&mut self) {
        self.state.send_replace(State::Finished);
        let text = "the handler exited with code 0: Azure's host neither restarts it nor says so, and from now on every invocation fails; a handler must never exit with 0, use 200 to ask for a restart";
        self.events.tell("ERROR", text);
        while let Some(order) = self.orders.recv().await {
            match order {
                Order::Restart { .. } | Order::GiveUp { .. } => {}
                Order::Stop(done) => return self.gone(Some(done)),
            }
        }
    }

    fn gone(&self, done: Option<oneshot::Sender<()>>) {
        self.state.send_replace(State::Gone);
        if let Some(done) = done {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_error_within_half_an_hour_is_the_last() {
        let at = |minutes: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        let mut errors = Errors::default();
        assert_eq!([0, 20, 40].map(|minutes| errors.may_restart_after(at(minutes))), [true, true, false]);
        let mut errors = Errors::default();
        assert_eq!(
            [0, 20, 51, 52, 53].map(|minutes| errors.may_restart_after(at(minutes))),
            [true, true, true, true, false]
        );
    }
}
