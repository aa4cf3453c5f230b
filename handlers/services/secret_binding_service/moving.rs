//! What a step of a rotation rests on and writes, and how a binding moves from one version to another.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    rotation_state::{Receipt, RotationStatus, SecretRotation},
    state::{BindingStatus, SecretBinding},
};
use crate::{
    events::{
        CommandOutcome, CompletionOutcome, Event, ReasonCode, RuntimeCommandCompleted, RuntimeCommandFailed,
        SecretRotated,
    },
    ids::EventId,
    ledger::{Commit, Loaded},
    operations::{Operation, Step, Then},
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
};

/// Everything that a step rests on, and what it writes.
pub(super) struct Site {
    pub rotation: SecretRotation,
    loaded: Loaded<SecretRotation>,
    bindings: BTreeMap<String, (SecretBinding, Loaded<SecretBinding>)>,
    pub commit: Commit,
    pub notes: Vec<String>,
}

impl Site {
    pub async fn find(platform: &Platform, operation: &Operation) -> Result<Self, Fault> {
        let partition = Partition::environment(&operation.lineage.tenant_id, &operation.environment_id);
        let (rotation, loaded) =
            platform.ledger.load::<SecretRotation>(&partition, &operation.subject).await?.take();
        let rotation = rotation.ok_or_else(|| missing(&operation.subject))?;
        let commit = Commit::new(partition, platform.clock.now());
        Ok(Self { rotation, loaded, bindings: BTreeMap::new(), commit, notes: Vec::new() })
    }

    pub fn now(&self) -> Timestamp {
        self.commit.now
    }

    /// Tells whoever reads along.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// A binding, to be changed; it is written with the rest.
    pub async fn binding(&mut self, platform: &Platform, id: &str) -> Result<&mut SecretBinding, Fault> {
        if !self.bindings.contains_key(id) {
            let loaded = platform.ledger.load::<SecretBinding>(&self.commit.partition, id).await?;
            let (Some(binding), loaded) = loaded.take() else { return Err(missing(id)) };
            self.bindings.insert(id.to_owned(), (binding, loaded));
        }
        self.bindings.get_mut(id).map(|(binding, _)| binding).ok_or_else(|| missing(id))
    }

    /// Writes everything and goes on as `then` says.
    pub fn on(self, then: Then) -> Result<Step, Fault> {
        self.end(then, None)
    }

    fn end(mut self, then: Then, outcome: Option<EventId>) -> Result<Step, Fault> {
        let label = self.rotation.status.as_str();
        for (binding, loaded) in self.bindings.values() {
            self.commit.put(loaded, binding)?;
        }
        self.commit.put(&self.loaded, &self.rotation)?;
        Ok(Step { commit: self.commit, label, notes: self.notes, then, outcome })
    }

    /// Moves the binding of a target to the rotation's version and records `SecretRotated`.
    pub async fn forth(
        &mut self,
        platform: &Platform,
        operation: &Operation,
        index: usize,
    ) -> Result<(), Fault> {
        let (now, expires_at) = (self.now(), self.rotation.expires_at);
        let target = self.rotation.targets[index].clone();
        let Some(version) = self.rotation.version.clone() else { return Err(missing("the version")) };
        let binding = self.binding(platform, &target.secret_binding_id).await?;
        let from = binding.version.clone();
        let is_there = from.as_ref() == Some(&version);
        binding.status = BindingStatus::Rotating;
        binding.operation_id = operation.operation_id.clone();
        binding.reason = None;
        let event_id = if is_there {
            None
        } else {
            binding.last_rotated_at = Some(now);
            binding.next_rotation_due_at = binding.due_after(now);
            binding.expires_at = expires_at;
            let id = operation.cause().event("SecretRotated", event_ordinal(index, false));
            Some(self.tell(platform, operation, &target.secret_binding_id, id, version).await?)
        };
        let target = &mut self.rotation.targets[index];
        target.from = from;
        target.event_id = event_id;
        target.moved_at = Some(now);
        Ok(())
    }

    /// Moves the binding of a target back to the version that it had, which its workload still uses.
    pub async fn back(
        &mut self,
        platform: &Platform,
        operation: &Operation,
        index: usize,
    ) -> Result<(), Fault> {
        let target = self.rotation.targets[index].clone();
        let Some(from) = target.from.filter(|_| target.event_id.is_some()) else { return Ok(()) };
        let id = operation.cause().event("SecretRotated", event_ordinal(index, true));
        self.tell(platform, operation, &target.secret_binding_id, id, from).await.map(drop)
    }

    /// Writes another version into a binding, with the event that tells of it.
    async fn tell(
        &mut self,
        platform: &Platform,
        operation: &Operation,
        binding: &str,
        id: EventId,
        version: String,
    ) -> Result<EventId, Fault> {
        let (now, reason) = (self.now(), self.rotation.reason);
        let binding = self.binding(platform, binding).await?;
        let previous = binding.version.replace(version.clone());
        binding.previous_version.clone_from(&previous);
        let event = Event::SecretRotated(SecretRotated {
            secret_binding_id: binding.secret_binding_id.clone(),
            environment_id: binding.environment_id.clone(),
            secret_name: binding.secret_name.clone(),
            previous_version: previous,
            new_version: version,
            rotated_at: now,
            reason,
        });
        let new = binding.next_event(id.clone(), event, &operation.caused_by);
        let lineage = binding.lineage(&operation.lineage);
        self.commit.event(&lineage, new)?;
        Ok(id)
    }

    /// Writes down what became of a target's workload; its binding rotates no more.
    pub async fn settle(&mut self, platform: &Platform, index: usize, receipt: Receipt) -> Result<(), Fault> {
        let target = self.rotation.targets[index].clone();
        let told = match &receipt {
            Receipt::Confirmed { deployment_id } => {
                (format!("`{}` serves with the new version as `{deployment_id}`", target.module_id), None)
            }
            Receipt::NothingServes => (format!("nothing of `{}` serves", target.module_id), None),
            Receipt::Failed { reason } => {
                (format!("`{}` was not refreshed: {reason}", target.module_id), Some(reason.clone()))
            }
        };
        let binding = self.binding(platform, &target.secret_binding_id).await?;
        binding.status = BindingStatus::Active;
        binding.reason = told.1;
        self.rotation.targets[index].receipt = Some(receipt);
        self.note(told.0);
        Ok(())
    }

    /// Everything is at the version already.
    pub async fn nothing(mut self, platform: &Platform, operation: &Operation) -> Result<Step, Fault> {
        let version = self.rotation.version.clone().unwrap_or_default();
        let detail = format!("`{}` is at version {version} everywhere already.", self.rotation.secret_name);
        let event = Event::RuntimeCommandCompleted(RuntimeCommandCompleted {
            command_id: operation.lineage.command_id.clone(),
            command_type: operation.lineage.command_type.clone(),
            outcome: CompletionOutcome::NoChange,
            detail: detail.clone(),
        });
        let id = self.answer(platform, operation, event, None).await?;
        self.ended(RotationStatus::Completed, &detail);
        self.end(Then::Succeeded(detail), Some(id))
    }

    /// Every workload has confirmed; the SecretRotated of the first that moved is the answer.
    pub fn completed(mut self) -> Result<Step, Fault> {
        let version = self.rotation.version.clone().unwrap_or_default();
        let detail = format!(
            "`{}` is at version {version} for {} workloads",
            self.rotation.secret_name,
            self.rotation.targets.len()
        );
        let outcome = self.rotation.targets.iter().find_map(|target| target.event_id.clone());
        self.note(detail.clone());
        self.ended(RotationStatus::Completed, &detail);
        self.end(Then::Succeeded(detail), outcome)
    }

    /// It ends without having come to its end.
    pub async fn failed(
        mut self,
        platform: &Platform,
        operation: &Operation,
        code: ReasonCode,
        detail: String,
    ) -> Result<Step, Fault> {
        let event = Event::RuntimeCommandFailed(RuntimeCommandFailed {
            command_id: operation.lineage.command_id.clone(),
            command_type: operation.lineage.command_type.clone(),
            outcome: CommandOutcome::Failed,
            reason_code: code,
            detail: detail.clone(),
            retryable: true,
        });
        let id = self.answer(platform, operation, event, Some(&detail)).await?;
        self.note(detail.clone());
        self.ended(RotationStatus::Failed, &detail);
        self.end(Then::Failed(detail), Some(id))
    }

    /// Records the command's answer with the binding that it named, which rotates no more.
    async fn answer(
        &mut self,
        platform: &Platform,
        operation: &Operation,
        event: Event,
        reason: Option<&str>,
    ) -> Result<EventId, Fault> {
        let id = operation.cause().event(event.event_type(), 0);
        let named = self.rotation.secret_binding_id.clone();
        let binding = self.binding(platform, &named).await?;
        binding.status = BindingStatus::Active;
        binding.reason = reason.map(str::to_owned);
        let new = binding.next_event(id.clone(), event, &operation.caused_by);
        self.commit.event(&operation.lineage, new)?;
        Ok(id)
    }

    fn ended(&mut self, status: RotationStatus, detail: &str) {
        self.rotation.status = status;
        self.rotation.detail = Some(detail.to_owned());
        self.rotation.ended_at = Some(self.commit.now);
    }
}

/// Each target has two events: of going and of coming back.
fn event_ordinal(index: usize, back: bool) -> u32 {
    u32::try_from(index * 2 + usize::from(back)).unwrap_or(u32::MAX)
}

fn missing(id: &str) -> Fault {
    Fault::Unreadable {
        doing: format!("reading `{id}`"),
        source: "a document that another one names is missing".into(),
    }
}
