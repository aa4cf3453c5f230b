//! Workloads, their revisions and their traffic, in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use runtime_platform::{
    outcome::Fault,
    ports::{
        clock::Clock,
        compute::{
            Compute, ComputeTarget, Observed, Revision, RevisionSpec, RevisionState, Settings, Step,
            WorkloadRef,
        },
        probe::Answer,
    },
};
use serde_json::{Value, json};

use super::registry::FakeRegistry;
use crate::support::{faulty::Trouble, fixed_clock::FixedClock};

/// How long a call that is not finished asks to wait.
const AGAIN_IN: Duration = Duration::from_secs(1);
/// How long a crashing container lives.
const CRASHES_EVERY: Duration = Duration::from_secs(10);

/// What becomes of an image that is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Ready at once, answers 200.
    Good,
    /// Ready at once, answers every request with this status.
    Answers(u16),
    /// Answers 200 for this many requests, and then with this status.
    Turns { after: u32, status: u16 },
    /// Ready this long after it was staged.
    Slow(Duration),
    /// Never ready; its containers are restarted every ten seconds.
    Crashes,
    /// Cannot be pulled.
    Missing,
}

/// Compute in memory. Clones are the same.
#[derive(Clone)]
pub struct FakeCompute {
    clock: FixedClock,
    trouble: Trouble,
    /// Where images come from, and by which tags they go.
    registry: Option<FakeRegistry>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Looks after which a started call is finished; 0 finishes it at once.
    looks: u32,
    images: BTreeMap<String, Behaviour>,
    /// By version of the configuration; it comes before the image's.
    configurations: BTreeMap<u64, Behaviour>,
    /// By the end of a secret's URL; it comes before the image's too.
    secrets: BTreeMap<String, Behaviour>,
    workloads: BTreeMap<String, Workload>,
    /// Calls that were started, by number; a finished one is remembered, since its token may be
    /// looked at again.
    started: Vec<Started>,
    effects: Vec<String>,
    /// Requests that reached each revision.
    requests: BTreeMap<String, u32>,
}

#[derive(Default)]
struct Workload {
    /// The resource group that it is in, once it was staged.
    group: Option<String>,
    settings: Settings,
    revisions: BTreeMap<String, Made>,
    traffic: BTreeMap<String, u32>,
    /// Requests that came in where traffic enters.
    entered: u32,
    /// Replicas that the target's autoscaler wants, within the bounds of each revision.
    scaled: u32,
}

struct Made {
    spec: RevisionSpec,
    /// The tag of its image.
    tagged: String,
    at: Timestamp,
    active: bool,
    provisioned: bool,
    /// As many as the autoscaler, or somebody's hand, left.
    replicas: Option<u32>,
}

#[derive(Clone, PartialEq)]
enum Change {
    Stage { workload: String, revision: String },
    Shift { workload: String, weights: BTreeMap<String, u32> },
    Remove { workload: String },
}

struct Started {
    change: Change,
    looks_left: u32,
}

impl FakeCompute {
    pub fn new(clock: FixedClock, trouble: Trouble) -> Self {
        Self { clock, trouble, registry: None, state: Arc::default() }
    }

    /// Tells of images by the tags that they were asked for by.
    #[must_use]
    pub fn over(self, registry: FakeRegistry) -> Self {
        Self { registry: Some(registry), ..self }
    }

    /// Calls that start from now on are finished after this many looks.
    pub fn finish_after(&self, looks: u32) {
        self.state().looks = looks;
    }

    /// What becomes of an image, by its digest or else by its tag; [`Behaviour::Good`] where nothing is
    /// said.
    pub fn image(&self, image: &str, behaviour: Behaviour) {
        self.state().images.insert(image.to_owned(), behaviour);
    }

    /// What becomes of a revision that is started with a version of the configuration, whatever its
    /// image.
    pub fn configuration(&self, version: u64, behaviour: Behaviour) {
        self.state().configurations.insert(version, behaviour);
    }

    /// What becomes of a revision that is started with a version of a secret, by the end of its URL.
    pub fn secret(&self, url_end: &str, behaviour: Behaviour) {
        self.state().secrets.insert(url_end.to_owned(), behaviour);
    }

    /// Whether this was said of an image.
    pub fn is_image(&self, image: &str, behaviour: Behaviour) -> bool {
        self.state().images.get(image) == Some(&behaviour)
    }

    /// Every revision that was made, and its traffic in percent.
    pub fn made(&self) -> Vec<(RevisionSpec, u32)> {
        let state = self.state();
        let workloads = state.workloads.values();
        let made = workloads.flat_map(|workload| {
            let traffic = |name: &String| workload.traffic.get(name).copied().unwrap_or(0);
            workload.revisions.iter().map(move |(name, made)| (made.spec.clone(), traffic(name)))
        });
        made.collect()
    }

    /// What every revision with traffic was made from, by workload.
    pub fn with_traffic(&self) -> Vec<(String, RevisionSpec)> {
        let state = self.state();
        let mut found = Vec::new();
        for (name, workload) in &state.workloads {
            for (revision, weight) in &workload.traffic {
                if let Some(made) = workload.revisions.get(revision).filter(|_| *weight > 0) {
                    found.push((name.clone(), made.spec.clone()));
                }
            }
        }
        found
    }

    /// What a workload's revision that has all the traffic was made from.
    pub fn serving(&self, workload: &str) -> Option<RevisionSpec> {
        let state = self.state();
        let there = state.workloads.get(workload)?;
        let (name, _) = there.traffic.iter().find(|(_, weight)| **weight == 100)?;
        there.revisions.get(name).map(|made| made.spec.clone())
    }

    /// The target's own autoscaler wants so many replicas from now on, and gets them within the bounds.
    pub fn scale(&self, workload: &str, replicas: u32) {
        if let Some(there) = self.state().workloads.get_mut(workload) {
            there.scaled = replicas;
        }
    }

    /// A workload goes, behind the platform's back.
    pub fn forget(&self, workload: &str) {
        self.state().workloads.remove(workload);
    }

    /// What changed, in order, e.g. `stage api--d1 acr/api:1`, `shift api to api--d1=100`.
    pub fn effects(&self) -> Vec<String> {
        self.state().effects.clone()
    }

    /// Every workload as it is, by name.
    pub fn world(&self) -> BTreeMap<String, Observed> {
        let (state, now) = (self.state(), self.clock.now());
        state.workloads.keys().filter_map(|name| Some((name.clone(), state.observe(name, now)?))).collect()
    }

    /// How many requests reached a revision.
    pub fn requests(&self, revision: &str) -> u32 {
        self.state().requests.get(revision).copied().unwrap_or(0)
    }

    /// One request to a host, a workload's or a revision's: how whoever it reaches answers.
    pub fn request(&self, host: &str) -> Answer {
        let now = self.clock.now();
        let mut state = self.state();
        let unreachable = |reason: &str| Answer::Unreachable { reason: reason.into() };
        let Some(revision) = host.strip_suffix(HOSTS).and_then(|name| state.route(name)) else {
            return unreachable("no revision answers at this host");
        };
        let Some((made, behaviour)) = state.revision(&revision) else {
            return unreachable("there is no such revision");
        };
        if state_of(made, behaviour, now) != RevisionState::Running {
            return unreachable("connection refused");
        }
        let count = state.requests.entry(revision).or_default();
        *count += 1;
        let status = match behaviour {
            Behaviour::Answers(status) => status,
            Behaviour::Turns { after, status } if *count > after => status,
            Behaviour::Turns { .. }
            | Behaviour::Good
            | Behaviour::Slow(_)
            | Behaviour::Crashes
            | Behaviour::Missing => 200,
        };
        Answer::Status { status, retry_after: false }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn call<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut State) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let act = async { act(&mut self.state()) };
        self.trouble.around(name, act, |why| Fault::transient(format!("calling {name}"), why)).await
    }
}

/// What every host ends in.
const HOSTS: &str = ".fake.localhost";

fn rejected(code: &str, detail: String) -> Fault {
    Fault::Rejected { doing: "changing a workload".into(), code: code.into(), detail }
}

fn state_of(made: &Made, behaviour: Behaviour, now: Timestamp) -> RevisionState {
    if !made.active {
        return RevisionState::Stopped;
    }
    if !made.provisioned {
        return RevisionState::Provisioning;
    }
    match behaviour {
        Behaviour::Good | Behaviour::Answers(_) | Behaviour::Turns { .. } => RevisionState::Running,
        Behaviour::Slow(start) if now.duration_since(made.at).unsigned_abs() < start => {
            RevisionState::Provisioning
        }
        Behaviour::Slow(_) => RevisionState::Running,
        Behaviour::Crashes => RevisionState::Degraded,
        Behaviour::Missing => RevisionState::Failed,
    }
}

impl State {
    fn behaviour(&self, made: &Made) -> Behaviour {
        let spec = &made.spec;
        let configured =
            spec.configuration.as_ref().and_then(|entry| self.configurations.get(&entry.version));
        let bound = self
            .secrets
            .iter()
            .find(|(end, _)| spec.secrets.iter().any(|entry| entry.key_vault_url.ends_with(end.as_str())));
        configured
            .or(bound.map(|(_, behaviour)| behaviour))
            .or(self.images.get(&spec.image))
            .or(self.images.get(&made.tagged))
            .copied()
            .unwrap_or(Behaviour::Good)
    }

    fn revision(&self, name: &str) -> Option<(&Made, Behaviour)> {
        let made = self.workloads.values().find_map(|workload| workload.revisions.get(name))?;
        Some((made, self.behaviour(made)))
    }

    /// The revision that a request to `name` reaches. A workload spreads a hundred requests exactly
    /// by its weights.
    fn route(&mut self, name: &str) -> Option<String> {
        let Some(workload) = self.workloads.get_mut(name) else { return Some(name.to_owned()) };
        let turn = workload.entered % 100;
        workload.entered += 1;
        let mut below = 0;
        workload.traffic.iter().find_map(|(revision, weight)| {
            below += weight;
            (turn < below).then(|| revision.clone())
        })
    }

    fn observe(&self, name: &str, now: Timestamp) -> Option<Observed> {
        let workload = self.workloads.get(name)?;
        let revisions = workload.revisions.iter().map(|(name, made)| {
            let behaviour = self.behaviour(made);
            let state = state_of(made, behaviour, now);
            let scaled = workload.scaled.min(made.spec.max_replicas).max(made.spec.min_replicas.max(1));
            let replicas = if made.active { made.replicas.unwrap_or(scaled) } else { 0 };
            let lived = now.duration_since(made.at).unsigned_abs().as_secs();
            let crashes = state == RevisionState::Degraded;
            let revision = Revision {
                name: name.clone(),
                deployment_id: Some(made.spec.deployment_id.clone()),
                image: made.spec.image.clone(),
                active: made.active,
                state,
                traffic: workload.traffic.get(name).copied().unwrap_or(0),
                replicas,
                ready_replicas: if state == RevisionState::Running { replicas } else { 0 },
                restarts: if crashes {
                    u32::try_from(lived / CRASHES_EVERY.as_secs()).unwrap_or(u32::MAX)
                } else {
                    0
                },
                host: Some(format!("{name}{HOSTS}")),
                detail: (state == RevisionState::Failed)
                    .then(|| format!("`{}` cannot be pulled", made.spec.image)),
                template: made.spec.template(),
            };
            (name.clone(), revision)
        });
        Some(Observed {
            host: Some(format!("{name}{HOSTS}")),
            revisions: revisions.collect(),
            settings: workload.settings.clone(),
            complete: true,
        })
    }

    fn stage(
        &mut self,
        (workload, target): (&str, &ComputeTarget),
        revision: String,
        (spec, tagged): (&RevisionSpec, String),
        now: Timestamp,
    ) -> Result<Step, Fault> {
        let change = Change::Stage { workload: workload.to_owned(), revision: revision.clone() };
        let there = self.workloads.entry(workload.to_owned()).or_default();
        if let Some(made) = there.revisions.get(&revision) {
            if made.spec.deployment_id != spec.deployment_id {
                let whose = format!("`{revision}` belongs to deployment `{}`", made.spec.deployment_id);
                return Err(rejected("RevisionOfAnotherDeployment", whose));
            }
            return Ok(self.unfinished(&change));
        }
        if there.revisions.is_empty() {
            there.traffic = BTreeMap::from([(revision.clone(), 100)]);
        }
        self.effects.push(format!("stage {revision} {tagged}"));
        there.group = Some(target.resource_group_id.clone());
        there.settings.tags.clone_from(&target.tags);
        if there.revisions.is_empty() || spec.corrective {
            there.settings.external = true;
            there.settings.allow_insecure = false;
            there.settings.port = Some(spec.port);
            there.settings.identities = vec![target.identity_id.clone()];
        }
        let made =
            Made { spec: spec.clone(), tagged, at: now, active: true, provisioned: false, replicas: None };
        there.revisions.insert(revision.clone(), made);
        Ok(self.start(change))
    }

    fn shift(&mut self, workload: &str, weights: &BTreeMap<String, u32>) -> Result<Step, Fault> {
        let Some(there) = self.workloads.get(workload) else {
            return Err(rejected("WorkloadNotFound", format!("there is no workload `{workload}`")));
        };
        let weights: BTreeMap<_, _> = weights
            .iter()
            .filter(|(_, weight)| **weight > 0)
            .map(|(name, weight)| (name.clone(), *weight))
            .collect();
        if weights.values().sum::<u32>() != 100 {
            return Err(rejected("TrafficWeights", "the weights do not add up to 100".into()));
        }
        if let Some(name) =
            weights.keys().find(|name| !there.revisions.get(*name).is_some_and(|made| made.active))
        {
            return Err(rejected("RevisionInactive", format!("`{name}` is not there, or is not active")));
        }
        let change = Change::Shift { workload: workload.to_owned(), weights: weights.clone() };
        if let Some(other) = self.shifting(workload) {
            return if other == change {
                Ok(self.unfinished(&change))
            } else {
                Err(Fault::transient(format!("shifting `{workload}`"), "another change is in progress"))
            };
        }
        if there.traffic == weights {
            return Ok(Step::Done);
        }
        let told: Vec<_> = weights.iter().map(|(name, weight)| format!("{name}={weight}")).collect();
        self.effects.push(format!("shift {workload} to {}", told.join(" ")));
        Ok(self.start(change))
    }

    fn shifting(&self, workload: &str) -> Option<Change> {
        let shifts =
            |change: &Change| matches!(change, Change::Shift { workload: whose, .. } if whose == workload);
        self.started
            .iter()
            .filter(|started| started.looks_left > 0)
            .map(|started| &started.change)
            .find(|c| shifts(c))
            .cloned()
    }

    fn set_active(&mut self, workload: &str, revision: &str, active: bool) -> Result<(), Fault> {
        let made = self.workloads.get_mut(workload).and_then(|there| there.revisions.get_mut(revision));
        let Some(made) = made else {
            return Err(rejected("RevisionNotFound", format!("there is no revision `{revision}`")));
        };
        if made.active != active {
            made.active = active;
            self.effects.push(format!("{} {revision}", if active { "activate" } else { "deactivate" }));
        }
        Ok(())
    }

    fn start(&mut self, change: Change) -> Step {
        self.started.push(Started { change: change.clone(), looks_left: self.looks });
        if self.looks == 0 {
            self.finish(&change);
        }
        self.unfinished(&change)
    }

    /// The token of a change that was started and is not finished.
    fn unfinished(&self, change: &Change) -> Step {
        let number =
            self.started.iter().rposition(|started| started.change == *change && started.looks_left > 0);
        match number {
            Some(number) => Step::Pending { token: json!({"started": number}), again_in: AGAIN_IN },
            None => Step::Done,
        }
    }

    fn look(&mut self, token: &Value) -> Result<Step, Fault> {
        let number = token["started"].as_u64().and_then(|number| usize::try_from(number).ok());
        let Some(started) = number.and_then(|number| self.started.get_mut(number)) else {
            return Err(rejected("OperationNotFound", format!("no call has the token {token}")));
        };
        if started.looks_left == 0 {
            return Ok(Step::Done);
        }
        started.looks_left -= 1;
        if started.looks_left > 0 {
            return Ok(Step::Pending { token: token.clone(), again_in: AGAIN_IN });
        }
        let change = started.change.clone();
        if !self.is_there(&change) {
            return Err(rejected("WorkloadNotFound", "what was to be changed was deleted".into()));
        }
        self.finish(&change);
        Ok(Step::Done)
    }

    fn finish(&mut self, change: &Change) {
        // What somebody deleted meanwhile stays deleted.
        match change {
            Change::Stage { workload, revision } => {
                let there = self.workloads.get_mut(workload);
                if let Some(made) = there.and_then(|there| there.revisions.get_mut(revision)) {
                    made.provisioned = true;
                }
            }
            Change::Shift { workload, weights } => {
                if let Some(there) = self.workloads.get_mut(workload) {
                    there.traffic = weights.clone();
                }
            }
            Change::Remove { workload } => drop(self.workloads.remove(workload)),
        }
    }

    /// Whether what a change is about is still there.
    fn is_there(&self, change: &Change) -> bool {
        match change {
            Change::Stage { workload, revision } => {
                self.workloads.get(workload).is_some_and(|there| there.revisions.contains_key(revision))
            }
            Change::Shift { workload, weights } => self
                .workloads
                .get(workload)
                .is_some_and(|there| weights.keys().all(|name| there.revisions.contains_key(name))),
            Change::Remove { .. } => true,
        }
    }

    fn remove(&mut self, workload: &str) -> Step {
        if !self.workloads.contains_key(workload) {
            return Step::Done;
        }
        let change = Change::Remove { workload: workload.to_owned() };
        let on_its_way = self.started.iter().any(|it| it.change == change && it.looks_left > 0);
        if on_its_way {
            return self.unfinished(&change);
        }
        self.effects.push(format!("remove {workload}"));
        self.start(change)
    }
}

#[async_trait]
impl Compute for FakeCompute {
    async fn observe(&self, workload: &WorkloadRef) -> Result<Option<Observed>, Fault> {
        self.call("compute.observe", |state| Ok(state.observe(&workload.name, self.clock.now()))).await
    }

    async fn list(&self, target: &ComputeTarget) -> Result<Vec<(String, Observed)>, Fault> {
        let now = self.clock.now();
        self.call("compute.list", |state| {
            let there = state.workloads.iter();
            let of_group = there.filter(|(_, it)| it.group.as_ref() == Some(&target.resource_group_id));
            let names: Vec<_> = of_group.map(|(name, _)| name.clone()).collect();
            let observe = |name: String| {
                let newest = state.workloads[&name].revisions.iter().max_by_key(|(_, made)| made.at);
                let newest = newest.map(|(name, _)| name.clone());
                Some((name.clone(), serving_alone(state.observe(&name, now)?, newest.as_deref())))
            };
            Ok(names.into_iter().filter_map(observe).collect())
        })
        .await
    }

    async fn stage(&self, workload: &WorkloadRef, revision: &RevisionSpec) -> Result<Step, Fault> {
        let name = self.revision_name(workload, &revision.suffix);
        let now = self.clock.now();
        let place = (workload.name.as_str(), &workload.target);
        let image = &revision.image;
        let tagged = self.registry.as_ref().map_or_else(|| image.clone(), |registry| registry.named(image));
        self.call("compute.stage", |state| state.stage(place, name, (revision, tagged), now)).await
    }

    async fn resume(&self, token: &Value) -> Result<Step, Fault> {
        self.call("compute.resume", |state| state.look(token)).await
    }

    async fn shift(&self, workload: &WorkloadRef, weights: &BTreeMap<String, u32>) -> Result<Step, Fault> {
        self.call("compute.shift", |state| state.shift(&workload.name, weights)).await
    }

    async fn activate(&self, workload: &WorkloadRef, revision: &str) -> Result<(), Fault> {
        self.call("compute.activate", |state| state.set_active(&workload.name, revision, true)).await
    }

    async fn deactivate(&self, workload: &WorkloadRef, revision: &str) -> Result<(), Fault> {
        self.call("compute.deactivate", |state| state.set_active(&workload.name, revision, false)).await
    }

    async fn remove(&self, workload: &WorkloadRef) -> Result<Step, Fault> {
        self.call("compute.remove", |state| Ok(state.remove(&workload.name))).await
    }

    fn revision_name(&self, workload: &WorkloadRef, suffix: &str) -> String {
        format!("{}--{suffix}", workload.name)
    }
}

/// As a listing tells of a workload: of the newest revision, where that serves wholly. That it was
/// switched off does not show.
fn serving_alone(mut observed: Observed, newest: Option<&str>) -> Observed {
    if let Some(newest) = newest.and_then(|newest| observed.revisions.get_mut(newest))
        && newest.traffic == 100
    {
        let newest = Revision { active: true, ..newest.clone() };
        observed.revisions = BTreeMap::from([(newest.name.clone(), newest)]);
        observed.complete = false;
    }
    observed
}

mod meddling;
#[cfg(test)]
mod tests;
