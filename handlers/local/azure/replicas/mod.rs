//! The replicas that run: each listens on a port of its own on loopback, as a server in this process
//! or as a program of the user's. Nothing of this is stored; after a restart it is brought up again
//! from the revisions that are.
//!
//! Absent on purpose: a second process for side-car containers (they are as ready as the first one
//! is), liveness probes.

mod autoscaler;
mod load;
mod program;
mod running;
mod scaling;
mod simulated;
mod usage;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, RwLock},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    container_apps::{EnvValue, Scale},
    images::{ImageCatalogue, StandIn},
};
use autoscaler::History;
use load::{Flight, Load};
use running::Replica;
pub(super) use scaling::{ReplicaUse, Sample};
pub(super) use usage::{Groups, by_group};

/// The most replicas of one revision that run on this machine, however many are wanted.
pub(super) const REPLICAS_PER_REVISION_MAX: u32 = 30;
/// Notices of replicas that became ready and are not yet noted.
const NOTICES_MAX: usize = 256;

/// One container of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub name: String,
    pub image: String,
    pub env: BTreeMap<String, EnvValue>,
}

impl Container {
    /// The variables as a program gets them.
    fn variables(&self) -> impl Iterator<Item = (&String, &String)> {
        self.env.iter().filter_map(|(name, value)| match value {
            EnvValue::Plain(value) => Some((name, value)),
            EnvValue::Secret(secret) => Some((name, &secret.value)),
            EnvValue::Reference(_) => None,
        })
    }

    /// What may be told of the variables: which version of a vault's secret each holds, and the value
    /// of those that are called a version themselves.
    fn versions(&self) -> BTreeMap<String, String> {
        let told = self.env.iter().filter_map(|(name, value)| match value {
            EnvValue::Plain(value) if name.ends_with("_VERSION") => Some((name.clone(), value.clone())),
            EnvValue::Secret(secret) => Some((name.clone(), secret.version.clone()?)),
            EnvValue::Plain(_) | EnvValue::Reference(_) => None,
        });
        told.collect()
    }
}

/// What a revision's replicas are started from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RunSpec {
    pub app: String,
    pub revision: String,
    /// The first is the one that is run and asked.
    pub containers: Vec<Container>,
    /// What stands in for the first container.
    pub stand_in: StandIn,
    /// The domain of the app's hosts.
    pub domain: String,
    pub scale: Scale,
    /// What all containers of a replica may use together.
    pub millicores: u32,
    pub memory_bytes: u64,
    /// Why it cannot be started.
    pub broken: Option<String>,
}

impl RunSpec {
    pub(super) fn image(&self) -> &str {
        self.containers.first().map_or("", |container| &container.image)
    }

    /// The replicas that it starts with: one at least, so that it can be seen to be ready.
    fn at_first(&self) -> u32 {
        self.scale.replicas_min.clamp(1, REPLICAS_PER_REVISION_MAX)
    }
}

/// A replica as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReplicaView {
    pub name: String,
    pub created: Timestamp,
    pub ready: bool,
    pub started: bool,
    /// Times that its container was started again.
    pub restarts: u32,
    /// `Running`, `Waiting` or `Terminated`.
    pub container_state: &'static str,
    /// Why, where there is something to say.
    pub detail: String,
}

/// What is heard of replicas: for logs and for a person's eye.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A line that a program of the user's wrote.
    Output {
        app: String,
        revision: String,
        replica: String,
        line: String,
    },
    Ready {
        app: String,
        revision: String,
        replica: String,
    },
    /// The autoscaler wants another number of replicas.
    Scaled {
        app: String,
        revision: String,
        from: u32,
        to: u32,
    },
    /// It exited, and why; it is started again after a pause.
    Exited {
        app: String,
        revision: String,
        replica: String,
        reason: String,
    },
}

/// Where happenings go. Called from tasks that must not wait.
pub type Sink = Arc<dyn Fn(Happening) + Send + Sync>;

/// A revision's replica became ready for the first time since it was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub app: String,
    pub revision: String,
}

/// How replicas are run.
pub(super) struct Surroundings {
    pub sink: Sink,
    /// The pause after the first exit; it doubles with each further one.
    pub restart_pause: Duration,
    pub notices: mpsc::Sender<Notice>,
}

struct Run {
    spec: RunSpec,
    replicas: Vec<Replica>,
    /// How many there are to be; 0 is asleep, until somebody asks.
    wanted: u32,
    load: Arc<Load>,
    history: History,
    /// Requests on their way at the last looks, the newest last.
    in_flight: VecDeque<f64>,
    /// Counts replicas made, for their names.
    made: u64,
    /// Counts requests, to take turns.
    turn: usize,
    asked: Instant,
}

impl Run {
    fn new(spec: RunSpec, now: Instant) -> Self {
        Self {
            wanted: spec.at_first(),
            spec,
            replicas: Vec::new(),
            load: Load::new(now),
            history: History::default(),
            in_flight: VecDeque::new(),
            made: 0,
            turn: 0,
            asked: now,
        }
    }

    /// Takes a newer reading of what it is to be. Secrets may change beneath a revision: what runs keeps
    /// the old ones until it is started anew, as on Azure. And one that ran keeps the values it was
    /// started with where they can no longer be read.
    fn renew(&mut self, spec: RunSpec) {
        if spec.broken.is_some() && self.spec.broken.is_none() {
            return;
        }
        let mended = self.spec.broken.is_some();
        self.spec = spec;
        if mended {
            self.wanted = self.spec.at_first();
        }
        if self.spec.scale.replicas_min > 0 {
            self.wanted = self.wanted.max(self.spec.at_first());
        }
    }
}

/// All replicas, by app and revision.
pub(super) struct Fleet {
    /// Read when a revision is planned.
    images: RwLock<Arc<ImageCatalogue>>,
    surroundings: Arc<Surroundings>,
    runs: Mutex<HashMap<(String, String), Run>>,
    /// Replicas that were told to end and are being waited for.
    ending: Mutex<JoinSet<()>>,
}

impl Fleet {
    pub(super) fn new(
        images: ImageCatalogue,
        sink: Sink,
        restart_pause: Duration,
    ) -> (Self, mpsc::Receiver<Notice>) {
        let (notices, heard) = mpsc::channel(NOTICES_MAX);
        let surroundings = Arc::new(Surroundings { sink, restart_pause, notices });
        (
            Self {
                surroundings,
                images: RwLock::new(Arc::new(images)),
                runs: Mutex::default(),
                ending: Mutex::default(),
            },
            heard,
        )
    }

    /// What stands in for containers.
    pub(super) fn images(&self) -> Arc<ImageCatalogue> {
        self.images.read().expect("nobody panics while holding the catalogue").clone()
    }

    /// Puts an entry before all others of the catalogue. What runs goes on as it is.
    pub(super) fn stage(&self, pattern: &str, stand_in: StandIn) {
        let mut images = self.images.write().expect("nobody panics while holding the catalogue");
        *images = Arc::new(images.with(pattern, stand_in));
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<(String, String), Run>> {
        self.runs.lock().expect("nobody panics while holding the replicas")
    }

    fn end(&self, replicas: impl IntoIterator<Item = Replica>) {
        let mut ending = self.ending.lock().expect("nobody panics while holding what ends");
        while ending.try_join_next().is_some() {}
        for replica in replicas {
            ending.spawn(replica.end());
        }
    }

    /// Runs exactly these revisions of an app. What runs already as it should goes on.
    pub(super) fn keep(&self, app: &str, specs: Vec<RunSpec>, now: Timestamp) {
        let mut over = Vec::new();
        {
            let mut runs = self.runs();
            let unwanted =
                |key: &(String, String)| key.0 == app && specs.iter().all(|spec| spec.revision != key.1);
            let gone = runs.keys().filter(|key| unwanted(key)).cloned().collect::<Vec<_>>();
            over.extend(gone.iter().filter_map(|key| runs.remove(key)).flat_map(|run| run.replicas));
            for spec in specs {
                let key = (app.to_owned(), spec.revision.clone());
                let run = runs.entry(key).or_insert_with(|| Run::new(spec.clone(), Instant::now()));
                run.renew(spec);
                fill(run, app, &self.surroundings, now);
            }
        }
        self.end(over);
    }

    /// Ends all replicas of the apps at or below a key.
    pub(super) fn forget(&self, key: &str) {
        let below = format!("{key}/");
        let mut runs = self.runs();
        let gone =
            runs.keys().filter(|(app, _)| app == key || app.starts_with(&below)).cloned().collect::<Vec<_>>();
        let over =
            gone.iter().filter_map(|key| runs.remove(key)).flat_map(|run| run.replicas).collect::<Vec<_>>();
        drop(runs);
        self.end(over);
    }

    /// Replaces all replicas of a revision.
    pub(super) fn restart(&self, app: &str, revision: &str, now: Timestamp) {
        let mut over = Vec::new();
        if let Some(run) = self.runs().get_mut(&(app.to_owned(), revision.to_owned())) {
            over.append(&mut run.replicas);
            fill(run, app, &self.surroundings, now);
        }
        self.end(over);
    }

    /// The replicas of a revision.
    pub(super) fn replicas(&self, app: &str, revision: &str) -> Vec<ReplicaView> {
        let runs = self.runs();
        let run = runs.get(&(app.to_owned(), revision.to_owned()));
        run.map(|run| run.replicas.iter().map(Replica::view).collect()).unwrap_or_default()
    }

    /// Where a ready replica of a revision listens; they take turns. A revision that is down to none
    /// is woken.
    pub(super) fn pick(&self, app: &str, revision: &str, now: Timestamp) -> Pick {
        let mut runs = self.runs();
        let Some(run) = runs.get_mut(&(app.to_owned(), revision.to_owned())) else { return Pick::NotRunning };
        run.asked = Instant::now();
        if run.spec.broken.is_some() {
            return Pick::NotReady;
        }
        if run.wanted == 0 {
            run.wanted = 1;
            run.history.note(1, run.asked);
            fill(run, app, &self.surroundings, now);
            return Pick::Waking;
        }
        let answers = |replica: &Replica| Some((replica.address()?, replica.flight()));
        let ready = run.replicas.iter().filter_map(answers).collect::<Vec<_>>();
        if ready.is_empty() {
            let waking = run.spec.scale.replicas_min == 0
                && run.replicas.iter().all(|replica| replica.view().restarts == 0);
            return if waking { Pick::Waking } else { Pick::NotReady };
        }
        run.turn = run.turn.wrapping_add(1);
        let (address, flight) = ready[run.turn % ready.len()].clone();
        Pick::At(address, flight)
    }

    /// Notes that a request is on its way to a revision, for as long as the answer is held.
    pub(super) fn flight(&self, app: &str, revision: &str) -> Option<Flight> {
        let runs = self.runs();
        runs.get(&(app.to_owned(), revision.to_owned())).map(|run| Flight::of(&run.load))
    }

    /// Why a revision cannot be started.
    pub(super) fn broken(&self, app: &str, revision: &str) -> Option<String> {
        self.runs().get(&(app.to_owned(), revision.to_owned()))?.spec.broken.clone()
    }

    /// Kills a replica's container, as somebody would behind everybody's back. It is started again
    /// after the usual pause, or after `down` where that is longer. Answers whether there is one.
    pub(super) fn kill(&self, app: &str, revision: &str, replica: &str, down: Duration) -> bool {
        let runs = self.runs();
        let run = runs.get(&(app.to_owned(), revision.to_owned()));
        let named = |known: &&Replica| known.view().name.eq_ignore_ascii_case(replica);
        let found = run.and_then(|run| run.replicas.iter().find(named));
        found.map(|replica| replica.kill(down)).is_some()
    }

    /// Ends everything and waits for it.
    pub(super) async fn stop(&self) {
        let over = self.runs().drain().flat_map(|(_, run)| run.replicas).collect::<Vec<_>>();
        self.end(over);
        let mut ending =
            std::mem::take(&mut *self.ending.lock().expect("nobody panics while holding what ends"));
        while ending.join_next().await.is_some() {}
    }
}

/// What can be asked of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    /// Where it listens, and what is to be held until it has answered.
    At(SocketAddr, Arc<()>),
    /// It is coming up because it was asked for: worth a wait.
    Waking,
    NotReady,
    /// It is not active, or not there.
    NotRunning,
}

fn fill(run: &mut Run, app: &str, surroundings: &Arc<Surroundings>, now: Timestamp) {
    while run.spec.broken.is_none() && run.replicas.len() < run.wanted as usize {
        run.made += 1;
        // As Azure's names look: the revision, a hash, something short.
        let hash = crate::ids::derive(&["replica", app, &run.spec.revision, &run.made.to_string()])
            .simple()
            .to_string();
        let name = format!("{}-{}-{}", run.spec.revision, &hash[..10], &hash[10..15]);
        run.replicas.push(Replica::start(app.to_owned(), name, run.spec.clone(), surroundings.clone(), now));
    }
}
