//! One replica: starts its container, says when it is ready, starts it again when it exits.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{Happening, Notice, ReplicaView, RunSpec, Surroundings, program, simulated};
use crate::local::azure::images::StandIn;

/// The longest pause before a container is started again.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A container that ran this long is not in a crash loop: the pause begins anew.
const STEADY: Duration = Duration::from_secs(60);
/// How long a replica that was told to end is waited for, before it is cut off.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a replica that is to end goes on answering what it was asked, and the pause between two
/// looks whether it has. Azure gives it 30 seconds.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const DRAIN_PAUSE: Duration = Duration::from_millis(10);

/// Why a container no longer runs.
pub(super) enum Ended {
    /// It was told to.
    Told,
    Exited(String),
}

/// What a running container tells of itself.
pub(super) struct Status {
    pub view: ReplicaView,
    pub address: Option<SocketAddr>,
    /// The leader of the process group that it is, where it is one.
    pub group: Option<i32>,
    /// Seconds of a processor that its group had used when that was last looked at.
    pub spent: Option<f64>,
}

/// What a container is run with, and where it tells how it is.
pub(super) struct Context {
    /// The key of the app.
    pub app: String,
    pub spec: RunSpec,
    pub replica: String,
    pub surroundings: Arc<Surroundings>,
    status: Arc<Mutex<Status>>,
}

impl Context {
    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().expect("nobody panics while holding a replica's status")
    }

    /// The container listens and takes requests.
    pub(super) async fn ready(&self, address: SocketAddr) {
        {
            let mut status = self.status();
            status.address = Some(address);
            status.view.ready = true;
            status.view.started = true;
            status.view.container_state = "Running";
            status.view.detail.clear();
        }
        let (app, revision, replica) =
            (self.spec.app.clone(), self.spec.revision.clone(), self.replica.clone());
        (self.surroundings.sink)(Happening::Ready { app, revision: revision.clone(), replica });
        // Nobody hears it where the stand-in is being stopped.
        let _ = self.surroundings.notices.send(Notice { app: self.app.clone(), revision }).await;
    }

    /// The container is this process group.
    pub(super) fn is_group(&self, leader: i32) {
        let mut status = self.status();
        status.group = Some(leader);
        status.spent = None;
    }

    fn exited(&self, reason: &str, pause: Duration) {
        {
            let mut status = self.status();
            status.address = None;
            status.group = None;
            status.view.ready = false;
            status.view.started = false;
            status.view.restarts += 1;
            status.view.container_state = "Waiting";
            status.view.detail = format!("CrashLoopBackOff: {reason}; started again in {pause:.1?}");
        }
        (self.surroundings.sink)(Happening::Exited {
            app: self.spec.app.clone(),
            revision: self.spec.revision.clone(),
            replica: self.replica.clone(),
            reason: reason.to_owned(),
        });
    }

    pub(super) fn output(&self, line: String) {
        (self.surroundings.sink)(Happening::Output {
            app: self.spec.app.clone(),
            revision: self.spec.revision.clone(),
            replica: self.replica.clone(),
            line,
        });
    }
}

/// A replica. Dropped, it is cut off at once.
pub(super) struct Replica {
    status: Arc<Mutex<Status>>,
    stop: watch::Sender<bool>,
    kill: mpsc::Sender<Duration>,
    /// Held by each request that it is answering.
    flights: Arc<()>,
    task: JoinHandle<()>,
}

impl Replica {
    pub(super) fn start(
        app: String,
        name: String,
        spec: RunSpec,
        surroundings: Arc<Surroundings>,
        now: Timestamp,
    ) -> Self {
        let view = ReplicaView {
            name: name.clone(),
            created: now,
            ready: false,
            started: false,
            restarts: 0,
            container_state: "Waiting",
            detail: "ContainerCreating".to_owned(),
        };
        let status = Arc::new(Mutex::new(Status { view, address: None, group: None, spent: None }));
        let (stop, stopped) = watch::channel(false);
        let (kill, killed) = mpsc::channel(1);
        let context = Context { app, spec, replica: name, surroundings, status: status.clone() };
        Self {
            status,
            stop,
            kill,
            flights: Arc::default(),
            task: tokio::spawn(live(context, stopped, killed)),
        }
    }

    pub(super) fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().expect("nobody panics while holding a replica's status")
    }

    /// Kills the container, which stays down for so long at least. One that is being killed already is.
    pub(super) fn kill(&self, down: Duration) {
        let _ = self.kill.try_send(down);
    }

    pub(super) fn view(&self) -> ReplicaView {
        self.status().view.clone()
    }

    /// Where it takes requests; none while it is not ready.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.status().address
    }

    /// To be held while it answers a request.
    pub(super) fn flight(&self) -> Arc<()> {
        self.flights.clone()
    }

    /// Lets it answer what it was asked, then lets it end, and cuts it off where it does not. Nobody
    /// asks it any more.
    pub(super) async fn end(mut self) {
        let drained = async {
            while Arc::strong_count(&self.flights) > 1 && self.address().is_some() {
                tokio::time::sleep(DRAIN_PAUSE).await;
            }
        };
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
        self.stop.send_replace(true);
        let _ = tokio::time::timeout(END_TIMEOUT, &mut self.task).await;
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn live(context: Context, mut stopped: watch::Receiver<bool>, mut killed: mpsc::Receiver<Duration>) {
    let mut pause = context.surroundings.restart_pause;
    loop {
        let began = Instant::now();
        // One that was killed while it was down is down, not killed once more.
        while killed.try_recv().is_ok() {}
        // Dropped, a program's run kills its process group: there is no other way to end it at once.
        let (ended, down) = tokio::select! {
            ended = run(&context, &mut stopped) => (ended, Duration::ZERO),
            Some(down) = killed.recv() => (Ended::Exited("it was killed from outside".to_owned()), down),
        };
        let Ended::Exited(reason) = ended else { return };
        if began.elapsed() >= STEADY {
            pause = context.surroundings.restart_pause;
        }
        let down = down.max(pause);
        context.exited(&reason, down);
        tokio::select! {
            () = tokio::time::sleep(down) => {}
            () = told(&mut stopped) => return,
        }
        pause = (pause * 2).min(RESTART_PAUSE_MAX);
    }
}

async fn run(context: &Context, stopped: &mut watch::Receiver<bool>) -> Ended {
    match &context.spec.stand_in {
        StandIn::Behaviour(behaviour) => simulated::run(context, *behaviour, stopped).await,
        StandIn::Command(command) => program::run(context, command, stopped).await,
    }
}

/// Waits until the replica is told to end, or nobody is left to tell it.
pub(super) async fn told(stopped: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone: that is an end too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
