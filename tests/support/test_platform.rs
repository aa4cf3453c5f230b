//! The whole platform in one test: the real functions, called as the server calls them, over a store,
//! a broker and a world in memory, under a clock that moves to the next thing that is to happen.
//!
//! When it is dropped it looks back: everything recorded was published, nothing is left on a queue,
//! nothing in the store is unreadable, every event names a cause that is known, and the events of each
//! aggregate came in order and without a gap.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use runtime_platform::{
    admin::dead_letters::DeadLetter,
    events::COMMANDS,
    functions::{self, Function, Run},
    holds::Hold,
    ledger::{EVENT, InboxEntry, Ledger, MESSAGE, OutboxEvent, OutboxMessage, State, read_state},
    local::store::SqliteStore,
    masstransit::WireFormat,
    operations::Operation,
    outcome::Fault,
    platform::Platform,
    ports::{
        clock::Clock,
        store::{Store, Stored},
    },
    services::{
        deployment_service::{GateRecord, RuntimeDeployment, Slot},
        runtime_configuration_service::{ConfigurationVersion, RuntimeConfiguration, WorkloadConfiguration},
        runtime_drift_detection_service::{DriftIndex, RuntimeDriftFinding, Suppression},
        runtime_environment_service::{
            RuntimeEnvironment,
            state::{Decommission, Plan},
        },
        runtime_health_service::HealthCheckResult,
        runtime_scaling_service::ScalingPolicy,
        secret_binding_service::{SecretBinding, SecretRotation},
        service_catalog_runtime_service::{CatalogueEntry, PastService, RuntimeService},
        tenant_runtime_isolation_service::RuntimeTenantBinding,
    },
    sweeps::SweepReport,
};
use serde_json::Value;

use super::{
    broker::{self, Broker, Held},
    builders::Order,
    fakes::{
        compute::FakeCompute, infrastructure::FakeInfrastructure, metrics::FakeMetrics, probe::FakeProbe,
        registry::FakeRegistry, vault::FakeVault,
    },
    faulty::{FaultyBus, FaultyStore, Trouble},
    fixed_clock::FixedClock,
    memory_store::MemoryStore,
    refusing::{Refusing, Script},
    transcript::{self, Line, PublishedEvent},
};

/// Things that may happen in one test before it is said to be endless.
const HAPPENINGS_MAX: usize = 20_000;
/// How old what is unsent must be before the sweep takes it.
const SWEEP_AGE: SignedDuration = SignedDuration::from_secs(5);
/// The key whose holder operates the whole platform.
pub const OPERATOR: &str = "olga";
/// How long the host takes to start the handler anew.
const RESTART: Duration = Duration::from_secs(1);

/// How often each message is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deliveries {
    Once,
    /// Once more after it was handled.
    Twice,
    /// To two processes at the same time.
    TwoAtOnce,
}

/// A platform under test.
pub struct TestPlatform {
    pub clock: FixedClock,
    pub trouble: Trouble,
    pub store: FaultyStore,
    pub broker: Broker,
    pub compute: FakeCompute,
    pub infrastructure: FakeInfrastructure,
    pub vault: FakeVault,
    pub metrics: FakeMetrics,
    pub probe: FakeProbe,
    pub registry: FakeRegistry,
    /// Bad answers of compute and infrastructure.
    pub script: Script,
    pub platform: Platform,
    /// None where the store is a file, which is not looked through at the end.
    memory: Option<MemoryStore>,
    pub(super) functions: Vec<Function>,
    story: Vec<Line>,
    /// Ids of the commands that were sent.
    pub(super) commands: BTreeSet<String>,
    told: (usize, usize),
    /// Deliveries and timers so far.
    happenings: usize,
    /// Times that the process died.
    pub deaths: usize,
    /// How often each message is delivered.
    pub deliveries: Deliveries,
    /// False where a test leaves things lying about on purpose.
    pub tidy: bool,
}

impl Default for TestPlatform {
    fn default() -> Self {
        Self::new()
    }
}

impl TestPlatform {
    pub fn new() -> Self {
        let clock = FixedClock::default();
        let memory = MemoryStore::new(clock.clone());
        Self::over(clock, Arc::new(memory.clone()), Some(memory))
    }

    /// Over the store that one machine has, in a file.
    pub fn on_disk(directory: &Path) -> Self {
        let clock = FixedClock::default();
        let store = SqliteStore::open(&directory.join("store.db"), Arc::new(clock.clone())).unwrap();
        Self::over(clock, Arc::new(store), None)
    }

    fn over(clock: FixedClock, store: Arc<dyn Store>, memory: Option<MemoryStore>) -> Self {
        let (trouble, script) = (Trouble::default(), Script::default());
        let store = FaultyStore::new(store, trouble.clone());
        let broker = Broker::new(clock.clone());
        let registry = FakeRegistry::new(trouble.clone());
        let compute = FakeCompute::new(clock.clone(), trouble.clone()).over(registry.clone());
        compute.finish_after(1);
        let infrastructure = FakeInfrastructure::new(trouble.clone());
        let vault = FakeVault::new(clock.clone(), trouble.clone());
        let metrics = FakeMetrics::new(clock.clone(), compute.clone(), trouble.clone());
        let probe = FakeProbe::new(clock.clone(), compute.clone(), Trouble::default());
        let platform = Platform {
            ledger: Ledger::new(Arc::new(store.clone())),
            bus: Arc::new(FaultyBus::new(Arc::new(broker.clone()), trouble.clone())),
            clock: Arc::new(clock.clone()),
            infrastructure: Arc::new(Refusing { inner: infrastructure.clone(), script: script.clone() }),
            compute: Arc::new(Refusing { inner: compute.clone(), script: script.clone() }),
            // Not to be reached is an answer of the workload, not a fault of ours: probes are not troubled.
            probe: Arc::new(probe.clone()),
            vault: Arc::new(vault.clone()),
            metrics: Arc::new(metrics.clone()),
            registry: Arc::new(Refusing { inner: registry.clone(), script: script.clone() }),
            wire_format: WireFormat::MassTransit,
            namespace: "test.servicebus.windows.net".into(),
            subscription_id: "00000000-0000-0000-0000-00000000c105".into(),
            directory_id: "00000000-0000-0000-0000-0000000d13ec".into(),
            operator_keys: [OPERATOR.to_owned()].into(),
            drift_settle: SignedDuration::from_secs(120),
            hold_pause: Duration::ZERO,
        };
        Self {
            clock,
            trouble,
            store,
            broker,
            compute,
            infrastructure,
            vault,
            metrics,
            probe,
            registry,
            script,
            platform,
            memory,
            functions: functions::all(),
            story: Vec::new(),
            commands: BTreeSet::new(),
            told: (0, 0),
            happenings: 0,
            deaths: 0,
            deliveries: Deliveries::Once,
            tidy: true,
        }
    }

    /// Sends a command, as a client does.
    pub fn send(&mut self, order: &Order) {
        self.commands.insert(order.event_id.clone());
        self.story.push(Line::Sent {
            at: self.clock.now(),
            command: order.event_type.clone(),
            event_id: order.event_id.clone(),
        });
        self.broker.accept(order.message()).expect("a command's queue exists");
    }

    /// Sends a command and lets everything happen that follows from it.
    pub async fn run(&mut self, order: &Order) {
        self.send(order);
        self.run_until_quiet().await;
    }

    /// Lets everything happen, the clock jumping from one thing to the next.
    pub async fn run_until_quiet(&mut self) {
        while self.happen().await {}
    }

    /// Forgets how much has happened: a long story is told in parts, and each part ends.
    pub fn rest(&mut self) {
        self.happenings = 0;
    }

    /// Lets everything happen, and the sweeps too that were ordered for later.
    pub async fn run_with_sweeps(&mut self) {
        self.run_until_quiet().await;
        while let Some(at) = self.broker.next_sweep_at() {
            self.clock.set(at.max(self.clock.now()));
            self.run_until_quiet().await;
        }
    }

    /// Fires a sweep's timer when it is due the next time, and lets everything happen that follows.
    pub async fn sweep(&mut self, timer: &str, every_seconds: i64) {
        let at = self.tick(self.clock.now(), every_seconds);
        self.clock.set(at);
        self.fire(timer).await;
        self.run_with_sweeps().await;
    }

    /// Lets things happen until something holds.
    pub async fn run_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            assert!(self.happen().await, "everything is quiet and yet not {what}:\n{}", self.transcript());
        }
    }

    /// Lets one thing happen: the oldest message that is ready, else a timer, else time. False when
    /// nothing is left to happen.
    pub async fn happen(&mut self) -> bool {
        let number = self.broker.ready().first().copied();
        match number {
            Some(number) => self.deliver(number).await,
            None => match self.next() {
                Some((at, timer)) => {
                    self.clock.set(at.max(self.clock.now()));
                    if let Some(timer) = timer {
                        self.fire(timer).await;
                    }
                }
                None => return false,
            },
        }
        true
    }

    /// What happens next where no message is ready: a message becomes ready, or a timer has something
    /// to do.
    fn next(&self) -> Option<(Timestamp, Option<&'static str>)> {
        let message = self.broker.next_at().map(|at| (at, None));
        let due = |kinds: &[&str]| self.memory.as_ref().and_then(|memory| memory.due_first(kinds));
        let outbox = due(&[EVENT, MESSAGE]).map(|at| (self.tick(at + SWEEP_AGE, 10), Some("OutboxRelay")));
        let operation = due(&[Operation::KIND]).map(|at| (self.tick(at, 60), Some("ResumeOperations")));
        // The first of equals is taken: messages that come at a timer's time would else starve it.
        [outbox, operation, message].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// When a timer that fires every so many seconds fires next, not before `at`.
    fn tick(&self, at: Timestamp, every_seconds: i64) -> Timestamp {
        let now = self.clock.now().as_second();
        // Whole seconds: the timer fires behind a fraction, not before it.
        let at = at.as_second().max(now) + 1;
        Timestamp::from_second((at + every_seconds - 1).div_euclid(every_seconds) * every_seconds).unwrap()
    }

    /// Delivers one message to its function.
    pub async fn deliver(&mut self, number: u64) {
        let held = self.broker.take(number);
        self.handle(held).await;
    }

    async fn handle(&mut self, held: Held) {
        let entity = Some(held.message.entity.clone());
        let function = self.functions.iter().find(|function| broker::entity(&function.trigger) == entity);
        let function = function.expect("what has messages is read");
        let Run::Message(run) = function.run else { panic!("{} takes no messages", function.name) };
        if self.deliveries == Deliveries::Twice && held.deliveries == 0 {
            self.broker.repeat(&held);
        }
        let work = || run(self.platform.clone(), held.delivered());
        let (first, second) = (work(), (self.deliveries == Deliveries::TwoAtOnce).then(work));
        let both = async move {
            match second {
                Some(second) => {
                    let (first, second) = tokio::join!(first, second);
                    first.and(second)
                }
                None => first.await,
            }
        };
        match self.in_process(both).await {
            Some(Ok(())) => {}
            Some(Err(_)) => self.broker.put_back(held, self.clock.now()),
            None => self.broker.put_back(held, self.clock.now() + RESTART),
        }
    }

    /// Fires a timer, whether or not its time has come.
    pub async fn fire(&mut self, name: &str) {
        let function =
            self.functions.iter().find(|function| function.name == name).expect("there is such a timer");
        let Run::Timer(run) = function.run else { panic!("{name} is no timer") };
        // What a timer could not do, the next one does.
        let _left = self.in_process(run(self.platform.clone())).await;
    }

    /// Runs work that its process may not outlive; none when it did not.
    async fn in_process(
        &mut self,
        work: impl Future<Output = Result<(), Fault>>,
    ) -> Option<Result<(), Fault>> {
        self.happenings += 1;
        assert!(self.happenings < HAPPENINGS_MAX, "this goes on for ever:\n{}", self.transcript());
        let trouble = self.trouble.clone();
        let outcome = tokio::select! {
            biased;
            () = trouble.died() => None,
            outcome = work => Some(outcome),
        };
        self.watch();
        if self.trouble.is_dead() {
            self.deaths += 1;
            self.trouble.revive();
            return None;
        }
        outcome
    }

    /// Writes down what changed.
    fn watch(&mut self) {
        let at = self.clock.now();
        let (resources, revisions) = (self.infrastructure.effects(), self.compute.effects());
        let new = resources[self.told.0..].iter().chain(&revisions[self.told.1..]);
        self.story.extend(new.map(|what| Line::Changed { at, what: what.clone() }));
        self.told = (resources.len(), revisions.len());
        for message in self.broker.take_published() {
            self.story.push(Line::Happened { at, event: Box::new(PublishedEvent::read(&message)) });
        }
    }

    /// The story so far, a line for each thing.
    pub fn transcript(&self) -> String {
        transcript::text(&self.story)
    }

    /// The story from here on.
    pub fn mark(&self) -> usize {
        self.story.len()
    }

    /// The story since a place that [`TestPlatform::mark`] gave.
    pub fn transcript_since(&self, place: usize) -> String {
        // Causes may lie before the place.
        let whole = transcript::text(&self.story);
        whole.lines().skip(place).map(|line| format!("{line}\n")).collect()
    }

    /// The events so far, in the order in which they were published.
    pub fn events(&self) -> Vec<PublishedEvent> {
        let event = |line: &Line| match line {
            Line::Happened { event, .. } => Some((**event).clone()),
            Line::Sent { .. } | Line::Changed { .. } => None,
        };
        self.story.iter().filter_map(event).collect()
    }

    /// The types of the events so far.
    pub fn event_types(&self) -> Vec<String> {
        self.events().iter().map(|event| event.event_type().to_owned()).collect()
    }

    /// The last event that is more than the inventory's word on another.
    pub fn last_event(&self) -> PublishedEvent {
        let mut events = self.events();
        events.retain(|event| event.event_type() != "RuntimeInventoryUpdated");
        events.pop().expect("something happened")
    }

    /// The last event, which must be of this type; its payload.
    pub fn last(&self, event_type: &str) -> Value {
        let event = self.last_event();
        assert_eq!(event.event_type(), event_type, "{}", self.transcript());
        event.envelope.payload
    }

    /// Everything that is stored.
    pub fn documents(&self) -> Vec<Stored> {
        self.memory.as_ref().expect("the store is in memory").dump()
    }

    /// The bodies of all documents of a state's kind, in order of their ids.
    pub fn states<S: State>(&self) -> Vec<S> {
        let of_kind = self.documents().into_iter().filter(|stored| stored.document.kind == S::KIND);
        of_kind.map(|stored| read::<S>(stored).expect("a document of ours is readable")).collect()
    }

    /// Deployments as `image status`, oldest first.
    pub fn deployments(&self) -> Vec<String> {
        let mut deployments = self.states::<RuntimeDeployment>();
        deployments.sort_by_key(|deployment| deployment.requested_at);
        let told = |deployment: &RuntimeDeployment| {
            let image = deployment.workload.image.rsplit(':').next().unwrap_or_default();
            format!("{image} {}", deployment.status.as_str())
        };
        deployments.iter().map(told).collect()
    }

    /// Traffic as `image=percent`, by workload and revision.
    pub fn traffic(&self) -> Vec<String> {
        let world = self.compute.world();
        let revisions = world.values().flat_map(|observed| observed.revisions.values());
        let told = revisions.filter(|revision| revision.traffic > 0).map(|revision| {
            let image = self.registry.named(&revision.image);
            format!("{}={}", image.rsplit(':').next().unwrap_or_default(), revision.traffic)
        });
        told.collect()
    }

    /// What became of a command: its status, and the type of the event that ended it.
    pub async fn outcome(&self, event_id: &str) -> (String, String) {
        let answer = self.get("Commands", Some(event_id)).await;
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        (text(&answer.body["status"]), text(&answer.body["outcome"]["eventType"]))
    }

    /// What two runs are compared by: events and states, times and what depends on them left out.
    pub fn result(&self) -> RunResult {
        RunResult {
            events: self.events().iter().map(PublishedEvent::timeless).collect(),
            deployments: self.deployments(),
            slots: self.states::<Slot>().iter().map(slot_in_short).collect(),
            operations: self
                .states::<Operation>()
                .iter()
                .map(|operation| {
                    format!(
                        "{} {:?} {:?}",
                        operation.operation_id, operation.status, operation.outcome_event_id
                    )
                })
                .collect(),
            environments: self
                .states::<RuntimeEnvironment>()
                .iter()
                .map(|it| format!("{:?} {:?}", it.status, it.failure))
                .collect(),
            traffic: self.traffic(),
            active: self
                .compute
                .world()
                .values()
                .flat_map(|observed| observed.revisions.values())
                .filter(|revision| revision.active)
                .map(|revision| revision.name.clone())
                .collect(),
            resources: self.infrastructure.world().into_keys().collect(),
        }
    }

    fn look_back(&self) {
        let told = || format!("\n{}", self.transcript());
        assert_eq!(self.broker.waiting(), Vec::<String>::new(), "messages are left{}", told());
        let mut known = self.commands.clone();
        if self.memory.is_some() {
            // The platform sends commands too, when something is due.
            let handled = self.states::<InboxEntry>();
            let commands = handled.into_iter().filter(|entry| COMMANDS.contains(&entry.function.as_str()));
            known.extend(commands.map(|entry| entry.event_id));
        }
        known.extend(self.broker.commanded());
        // Order is kept within an aggregate only: a cause may be published after its effect.
        known.extend(self.events().iter().map(|event| event.envelope.event_id.to_string()));
        let mut seen = BTreeSet::new();
        let mut sequences: BTreeMap<String, u64> = BTreeMap::new();
        for event in self.events() {
            let id = event.envelope.event_id.to_string();
            let cause = event.envelope.causation_id.clone().unwrap_or_default();
            assert!(
                known.contains(&cause),
                "{} is caused by `{cause}`, which is not known{}",
                event.event_type(),
                told()
            );
            assert!(seen.insert(id), "{} was published twice{}", event.event_type(), told());
            let before = sequences.insert(event.aggregate.clone(), event.sequence).unwrap_or(0);
            assert_eq!(
                event.sequence,
                before + 1,
                "the events of `{}` are not in order{}",
                event.aggregate,
                told()
            );
        }
        let Some(memory) = &self.memory else { return };
        for stored in memory.dump() {
            let id = stored.document.id.clone();
            assert_ne!(stored.document.kind, MESSAGE, "the message `{id}` is still in the outbox{}", told());
            if let Err(problem) = readable(stored) {
                panic!("{problem}{}", told());
            }
        }
    }
}

impl Drop for TestPlatform {
    fn drop(&mut self) {
        if self.tidy && !std::thread::panicking() {
            self.look_back();
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunResult {
    pub events: BTreeSet<String>,
    pub deployments: Vec<String>,
    pub slots: Vec<String>,
    pub operations: Vec<String>,
    pub environments: Vec<String>,
    pub traffic: Vec<String>,
    pub active: Vec<String>,
    pub resources: Vec<String>,
}

fn slot_in_short(slot: &Slot) -> String {
    let quarantine: Vec<_> = slot.quarantine.iter().map(|entry| entry.image.as_str()).collect();
    format!(
        "{} in flight {:?}, pending {:?}, serving {:?}, quarantine {quarantine:?}",
        slot.module_id, slot.in_flight, slot.pending, slot.serving
    )
}

fn read<S: State>(stored: Stored) -> Result<S, String> {
    let id = stored.document.id.clone();
    let loaded = read_state::<S>(stored.document, stored.etag).map_err(|fault| fault.chain())?;
    loaded.state.ok_or_else(|| format!("`{id}` is empty"))
}

/// Whether a document is one that today's code reads, and an event is published.
fn readable(stored: Stored) -> Result<(), String> {
    match stored.document.kind.as_str() {
        RuntimeEnvironment::KIND => read::<RuntimeEnvironment>(stored).map(drop),
        Decommission::KIND => read::<Decommission>(stored).map(drop),
        Plan::KIND => read::<Plan>(stored).map(drop),
        Operation::KIND => read::<Operation>(stored).map(drop),
        RuntimeDeployment::KIND => read::<RuntimeDeployment>(stored).map(drop),
        Slot::KIND => read::<Slot>(stored).map(drop),
        RuntimeTenantBinding::KIND => read::<RuntimeTenantBinding>(stored).map(drop),
        RuntimeConfiguration::KIND => read::<RuntimeConfiguration>(stored).map(drop),
        ConfigurationVersion::KIND => read::<ConfigurationVersion>(stored).map(drop),
        WorkloadConfiguration::KIND => read::<WorkloadConfiguration>(stored).map(drop),
        SecretBinding::KIND => read::<SecretBinding>(stored).map(drop),
        SecretRotation::KIND => read::<SecretRotation>(stored).map(drop),
        RuntimeDriftFinding::KIND => read::<RuntimeDriftFinding>(stored).map(drop),
        DriftIndex::KIND => read::<DriftIndex>(stored).map(drop),
        Suppression::KIND => read::<Suppression>(stored).map(drop),
        ScalingPolicy::KIND => read::<ScalingPolicy>(stored).map(drop),
        Hold::KIND => read::<Hold>(stored).map(drop),
        SweepReport::KIND => read::<SweepReport>(stored).map(drop),
        HealthCheckResult::KIND => read::<HealthCheckResult>(stored).map(drop),
        RuntimeService::KIND => read::<RuntimeService>(stored).map(drop),
        PastService::KIND => read::<PastService>(stored).map(drop),
        CatalogueEntry::KIND => read::<CatalogueEntry>(stored).map(drop),
        GateRecord::KIND => read::<GateRecord>(stored).map(drop),
        InboxEntry::KIND => read::<InboxEntry>(stored).map(drop),
        DeadLetter::KIND => read::<DeadLetter>(stored).map(drop),
        OutboxMessage::KIND => read::<OutboxMessage>(stored).map(drop),
        OutboxEvent::KIND => {
            let event = read::<OutboxEvent>(stored)?;
            event.sent_at.map(drop).ok_or_else(|| format!("{} is not published", event.event_type))
        }
        other => Err(format!("documents of kind `{other}` are not known to this test: add them here")),
    }
}
