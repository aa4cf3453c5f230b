//! How a tenant comes to the part of a pool that it has for itself.
//!
//! `BindTenant` records what the binding is to become and begins an operation; the environment's
//! service makes the part; then one commit changes the binding and tells `RuntimeTenantBound`. Until
//! then the bound tenant sees what it saw before: nothing, or its former binding. Where the part does not
//! come into place the command ends in `RuntimeCommandFailed`, the binding stays what it was, and what
//! was made is taken up by the next `BindTenant`.
//!
//! Each step may be taken twice: the resources are planned, applied and read as provisioning does it.

use jiff::SignedDuration;

use super::{
    Located,
    bind_tenant::{self, BindTenant, Wanted},
    state::{Pending, RuntimeTenantBinding},
    tenant_view,
};
use crate::{
    delivery::{Decision, Message},
    events::{BindingChange, CommandOutcome, Event, ReasonCode, RuntimeCommandFailed},
    ids::EventId,
    ledger::{Commit, Loaded, NewEvent},
    operations::{self, GiveUp, Kind, NewOperation, Operation, Step, Then},
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
    services::runtime_environment_service::{
        EnvironmentView,
        parts::{self, Part},
        resources::TenantPart,
    },
};

/// How long making a part may take: a workload profile is added to a running environment.
const ALLOWED: SignedDuration = SignedDuration::from_mins(60);

/// Records what the binding is to become, that the environment is to have the part, and the operation.
pub(super) fn begin(
    message: &Message<BindTenant>,
    wanted: Wanted,
    environment: &EnvironmentView,
    located: Located,
    partition: Partition,
) -> Result<Decision, Fault> {
    let mut commit = Commit::new(partition, message.now);
    let operation_id = message.cause(&commit.partition.environment_id).operation(0);
    let Wanted { environment_id, bound_tenant_id, isolation_model, quota } = wanted;
    let pending = Some(Pending { isolation_model, quota: quota.clone(), operation_id: operation_id.clone() });
    let binding = match located.binding {
        Some(binding) => RuntimeTenantBinding { pending, updated_at: message.now, ..binding },
        None => RuntimeTenantBinding {
            tenant_binding_id: located.id,
            environment_id,
            owner_tenant_id: message.envelope.tenant_id.clone(),
            bound_tenant_id,
            isolation_model,
            quota,
            sequence: 0,
            bound_at: message.now,
            updated_at: message.now,
            view: None,
            bound: false,
            pending,
        },
    };
    let part =
        TenantPart { tenant_id: binding.bound_tenant_id.clone(), prefix: binding.prefix(), stands: false };
    environment.want_part(&mut commit, part, &operation_id)?;
    operations::begin(
        &mut commit,
        NewOperation {
            id: operation_id.clone(),
            kind: Kind::BindTenant,
            module_id: None,
            subject: binding.tenant_binding_id.to_string(),
            step: parts::FIRST_STEP,
            lineage: message.lineage(),
            caused_by: message.envelope.event_id.to_string(),
            allowed: ALLOWED,
            starts: true,
        },
    )?;
    commit.put(&located.loaded, &binding)?;
    Ok(Decision::Accepted { commit, operation_id: Some(operation_id) })
}

async fn binding(
    platform: &Platform,
    operation: &Operation,
) -> Result<(RuntimeTenantBinding, Loaded<RuntimeTenantBinding>), Fault> {
    let partition = Partition::environment(&operation.lineage.tenant_id, &operation.environment_id);
    let (binding, loaded) =
        platform.ledger.load::<RuntimeTenantBinding>(&partition, &operation.subject).await?.take();
    let binding = binding.ok_or_else(|| Fault::Unreadable {
        doing: format!("reading `{}`", operation.subject),
        source: "a document that another one names is missing".into(),
    })?;
    Ok((binding, loaded))
}

/// Takes the next step of making a tenant's part.
///
/// # Errors
/// What the store or Azure withheld.
pub async fn step(platform: &Platform, operation: &Operation) -> Result<Step, Fault> {
    let (binding, loaded) = binding(platform, operation).await?;
    match parts::advance(platform, operation, &binding.prefix()).await? {
        Part::Goes(step) => Ok(step),
        Part::Stands { commit, notes } => bound(operation, binding, &loaded, commit, notes),
        Part::Fails { commit, notes, code, detail } => {
            failed(operation, binding, &loaded, commit, notes, (code, detail))
        }
    }
}

/// The binding becomes what it was to become, and the bound tenant is shown it.
fn bound(
    operation: &Operation,
    binding: RuntimeTenantBinding,
    loaded: &Loaded<RuntimeTenantBinding>,
    mut commit: Commit,
    mut notes: Vec<String>,
) -> Result<Step, Fault> {
    let change = if binding.bound { BindingChange::Updated } else { BindingChange::Created };
    let (isolation_model, quota) = match &binding.pending {
        Some(pending) => (pending.isolation_model, pending.quota.clone()),
        None => (binding.isolation_model, binding.quota.clone()),
    };
    let binding = RuntimeTenantBinding {
        isolation_model,
        quota,
        sequence: binding.sequence + 1,
        updated_at: commit.now,
        bound: true,
        pending: None,
        ..binding
    };
    let outcome = outcome(operation, "RuntimeTenantBound");
    let event = bind_tenant::told(&binding, change, outcome.clone(), operation.caused_by.clone());
    commit.event(&operation.lineage, event)?;
    tenant_view::ask(&mut commit, &binding, operation.operation_id.as_str())?;
    commit.put(loaded, &binding)?;
    let detail =
        format!("`{}` has a part of `{}` for itself", binding.bound_tenant_id, binding.environment_id);
    notes.push(detail.clone());
    Ok(Step { commit, label: "Bound", notes, then: Then::Succeeded(detail), outcome: Some(outcome) })
}

/// The binding stays what it was.
fn failed(
    operation: &Operation,
    binding: RuntimeTenantBinding,
    loaded: &Loaded<RuntimeTenantBinding>,
    mut commit: Commit,
    mut notes: Vec<String>,
    (code, detail): (ReasonCode, String),
) -> Result<Step, Fault> {
    let binding = RuntimeTenantBinding {
        sequence: binding.sequence + 1,
        updated_at: commit.now,
        pending: None,
        ..binding
    };
    let outcome = outcome(operation, "RuntimeCommandFailed");
    let event = NewEvent {
        id: outcome.clone(),
        event: Event::RuntimeCommandFailed(RuntimeCommandFailed {
            command_id: operation.lineage.command_id.clone(),
            command_type: operation.lineage.command_type.clone(),
            outcome: CommandOutcome::Failed,
            reason_code: code,
            detail: format!(
                "The part of `{}` for `{}` did not come into place: {detail}. What was made stays and is taken up by the next BindTenant.",
                binding.environment_id, binding.bound_tenant_id
            ),
            retryable: true,
        }),
        aggregate: binding.tenant_binding_id.to_string(),
        sequence: binding.sequence,
        caused_by: operation.caused_by.clone(),
    };
    commit.event(&operation.lineage, event)?;
    commit.put(loaded, &binding)?;
    notes.push(detail.clone());
    Ok(Step { commit, label: "Failed", notes, then: Then::Failed(detail), outcome: Some(outcome) })
}

/// The id of the event that ends the operation.
fn outcome(operation: &Operation, event_type: &str) -> EventId {
    let cause = operation.cause();
    cause.event(event_type, 0)
}

/// Ends an operation that cannot go on.
///
/// # Errors
/// When the store is away.
pub async fn give_up(platform: &Platform, operation: &Operation, why: &GiveUp) -> Result<Step, Fault> {
    let (binding, loaded) = binding(platform, operation).await?;
    let commit = parts::leave(platform, operation).await?;
    let code = match why {
        _ if operation.cancel.is_some() => ReasonCode::Cancelled,
        GiveUp::Deadline => ReasonCode::TimedOut,
        GiveUp::Rejected { .. } | GiveUp::Attempts { .. } => ReasonCode::ProvisioningFailed,
    };
    failed(operation, binding, &loaded, commit, Vec::new(), (code, why.sentence()))
}
