//! `BindTenant`: let a tenant use an environment, or change how much of it.
//!
//! Sent by the environment's owner, who may bind itself and, where the environment is a `pool` or
//! `shared`, other tenants. Ends in `RuntimeTenantBound`; in `RuntimeCommandCompleted` where the binding
//! is like that already; or in `RuntimeCommandFailed`. A quota that is left out lifts the quota.
//!
//! | refused | because |
//! |---|---|
//! | `EnvironmentNotFound` | there is none, or it is not the sender's |
//! | `EnvironmentNotProvisioned` | nothing can be bound to what is not there |
//! | `InvalidPayload` | a field is no id, or a limit is out of its bounds |
//! | `Conflict` | the model does not fit the environment's; a silo's second tenant; the model of a binding in use; the bound tenant has an environment of the same id; it, or the environment, is under way |
//! | `QuotaExceeded` | the pool has as many parts as it can have |
//!
//! Redelivery is safe at every await: the function only records.

use serde::{Deserialize, Serialize};

use super::{
    Located, making_part,
    state::{self, RuntimeTenantBinding, VIEW_ID},
    tenant_view,
};
use crate::{
    delivery::{self, Command, Decision, Message, Refusal},
    events::{BindingChange, Event, ReasonCode, RuntimeTenantBound, TenantQuota},
    ids::{EnvironmentId, EventId, TenantId},
    ledger::{Commit, NewEvent},
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
    services::{
        deployment_service::{self, deploy::environment_not_found},
        runtime_environment_service::{
            self, EnvironmentView, ProvisioningStatus, RuntimeEnvironment, parts::PARTS_MAX,
            resources::IsolationModel,
        },
    },
};

/// The most services that a quota may allow: a tenant's services are counted at each of its deploys.
pub const QUOTA_SERVICES_MAX: u32 = 200;

/// The payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BindTenant {
    pub environment_id: String,
    /// Who may use the environment from now on.
    pub bound_tenant_id: TenantId,
    /// `silo` (or `dedicated`), `pool` or `shared`.
    pub isolation_model: IsolationModel,
    #[serde(default)]
    pub quota: Option<TenantQuota>,
}

#[async_trait::async_trait]
impl Command for BindTenant {
    const NAME: &'static str = "BindTenant";

    async fn environment(_: &Platform, message: &Message<Self>) -> Result<String, Fault> {
        Ok(delivery::partition_of(&message.envelope.payload.environment_id))
    }

    async fn decide(platform: &Platform, message: &Message<Self>) -> Result<Decision, Fault> {
        let wanted = match validate(&message.envelope.payload) {
            Ok(wanted) => wanted,
            Err(refusal) => return Ok(Decision::Refused(refusal)),
        };
        let owner = &message.envelope.tenant_id;
        let partition = Partition::environment(owner, wanted.environment_id.as_str());
        let view =
            runtime_environment_service::find(&platform.ledger, &partition, &wanted.environment_id).await?;
        let environment = match fits(view, &wanted) {
            Ok(environment) => environment,
            Err(refusal) => return Ok(Decision::Refused(refusal)),
        };
        let located =
            super::locate(&platform.ledger, owner, &wanted.environment_id, &wanted.bound_tenant_id).await?;
        let obstacle = match &located.binding {
            Some(binding) if binding.bound => in_use(platform, binding, &wanted).await?,
            Some(_) | None => no_room(platform, owner, &wanted).await?,
        };
        let wants_part = wants_part(&environment, &located, owner, &wanted);
        let obstacle = obstacle
            .or_else(|| under_way(&located))
            .or_else(|| wants_part.then(|| no_part(&environment, &state::prefix(&located.id))).flatten());
        match obstacle {
            Some(refusal) => Ok(Decision::Refused(refusal)),
            None if wants_part => making_part::begin(message, wanted, &environment, located, partition),
            None => record(message, wanted, &environment, located, partition),
        }
    }
}

/// A payload that was looked through.
#[derive(Debug, PartialEq)]
pub(super) struct Wanted {
    pub environment_id: EnvironmentId,
    pub bound_tenant_id: TenantId,
    pub isolation_model: IsolationModel,
    pub quota: Option<TenantQuota>,
}

fn validate(payload: &BindTenant) -> Result<Wanted, Refusal> {
    let invalid = |field: &str, what: String| {
        Refusal::new(ReasonCode::InvalidPayload, format!("payload.{field}: {what}"))
    };
    let environment_id = EnvironmentId::of_ours(&payload.environment_id)
        .map_err(|error| invalid("environmentId", error.to_string()))?;
    let bound_tenant_id = payload
        .bound_tenant_id
        .clone()
        .checked()
        .map_err(|error| invalid("boundTenantId", error.to_string()))?;
    let quota = payload.quota.clone().unwrap_or_else(unlimited);
    let limits = [
        ("maxReplicas", quota.max_replicas.map(u64::from)),
        ("maxServices", quota.max_services.map(u64::from)),
        ("cpuMillis", quota.cpu_millis),
        ("memoryMiB", quota.memory_mib),
    ];
    if let Some((name, _)) = limits.iter().find(|(_, limit)| *limit == Some(0)) {
        return Err(invalid(
            &format!("quota.{name}"),
            "0 would let nothing run; leave it out where it is not to be limited".to_owned(),
        ));
    }
    if quota.max_services.is_some_and(|most| most > QUOTA_SERVICES_MAX) {
        return Err(invalid(
            "quota.maxServices",
            format!(
                "at most {QUOTA_SERVICES_MAX} can be counted; leave it out where it is not to be limited"
            ),
        ));
    }
    Ok(Wanted {
        environment_id,
        bound_tenant_id,
        isolation_model: payload.isolation_model,
        quota: Some(quota).filter(|quota| *quota != unlimited()),
    })
}

fn unlimited() -> TenantQuota {
    TenantQuota { max_replicas: None, max_services: None, cpu_millis: None, memory_mib: None }
}

/// Whether the environment takes a tenant in this way.
fn fits(view: Option<EnvironmentView>, wanted: &Wanted) -> Result<EnvironmentView, Refusal> {
    let id = &wanted.environment_id;
    let Some(view) = view else { return Err(environment_not_found(id)) };
    let RuntimeEnvironment { status, isolation_model: whole, tenant_id: owner, .. } = &view.environment;
    if *status != ProvisioningStatus::Provisioned {
        return Err(Refusal {
            code: ReasonCode::EnvironmentNotProvisioned,
            detail: format!(
                "`{id}` is {status:?}; tenants are bound once it is Provisioned. Wait for RuntimeEnvironmentProvisioned, then send the command again."
            ),
            retryable: true,
        });
    }
    let conflict = |detail: String| Err(Refusal::new(ReasonCode::Conflict, detail));
    let (asked, given) = (wanted.isolation_model, whole.as_str());
    match (whole, asked) {
        (IsolationModel::Silo, IsolationModel::Silo) if wanted.bound_tenant_id != *owner => {
            conflict(format!(
                "`{id}` is a silo and takes one tenant, its owner `{owner}`. Provision a pool or shared environment for others, or let `{}` provision a silo of its own.",
                wanted.bound_tenant_id
            ))
        }
        (IsolationModel::Silo, IsolationModel::Silo)
        | (IsolationModel::Pool, IsolationModel::Pool | IsolationModel::Shared)
        | (IsolationModel::Shared, IsolationModel::Shared) => Ok(view),
        (IsolationModel::Silo, IsolationModel::Pool | IsolationModel::Shared) => conflict(format!(
            "payload.isolationModel: `{id}` was provisioned as a silo and takes nothing but `silo`. Provision a {} environment.",
            asked.as_str()
        )),
        (IsolationModel::Pool | IsolationModel::Shared, IsolationModel::Silo) => conflict(format!(
            "payload.isolationModel: a silo is an environment of its own, and `{id}` was provisioned as {given}. Provision one with isolationModel `silo`.",
        )),
        (IsolationModel::Shared, IsolationModel::Pool) => conflict(format!(
            "payload.isolationModel: `{id}` was provisioned as shared and has no part for a tenant alone. Use `shared`, or provision a pool environment.",
        )),
    }
}

/// Why the model of a binding cannot change: what runs under it would have to move.
async fn in_use(
    platform: &Platform,
    binding: &RuntimeTenantBinding,
    wanted: &Wanted,
) -> Result<Option<Refusal>, Fault> {
    if binding.isolation_model == wanted.isolation_model {
        return Ok(None);
    }
    let partition = Partition::environment(&wanted.bound_tenant_id, wanted.environment_id.as_str());
    let used = deployment_service::usage(&platform.ledger, &partition, None).await?;
    Ok((used.services > 0).then(|| {
        Refusal::new(
            ReasonCode::Conflict,
            format!(
                "`{}` is {} in `{}` with {} {}, which would have to move, and none is moved while it serves. Bind the tenant to another environment as {}, deploy there, and change over.",
                wanted.bound_tenant_id,
                binding.isolation_model.as_str(),
                wanted.environment_id,
                used.services,
                if used.services == 1 { "service" } else { "services" },
                wanted.isolation_model.as_str()
            ),
        )
    }))
}

/// Why a tenant cannot be bound for the first time.
async fn no_room(platform: &Platform, owner: &TenantId, wanted: &Wanted) -> Result<Option<Refusal>, Fault> {
    let (bound, id) = (&wanted.bound_tenant_id, &wanted.environment_id);
    if bound == owner {
        return Ok(None);
    }
    let theirs = Partition::environment(bound, id.as_str());
    let existing = platform.ledger.load::<RuntimeTenantBinding>(&theirs, VIEW_ID).await?.state;
    let taken = tenant_view::taken(&platform.ledger, existing.as_ref(), owner, bound, id).await?;
    Ok(taken.map(|detail| Refusal::new(ReasonCode::Conflict, detail)))
}

/// Whether the tenant is to have a part of its own that is not in place. An owner has the whole.
fn wants_part(environment: &EnvironmentView, located: &Located, owner: &TenantId, wanted: &Wanted) -> bool {
    wanted.isolation_model == IsolationModel::Pool
        && wanted.bound_tenant_id != *owner
        && !environment.has_part(&state::prefix(&located.id))
}

/// Why a binding cannot be touched now.
fn under_way(located: &Located) -> Option<Refusal> {
    let pending = located.binding.as_ref()?.pending.as_ref()?;
    Some(Refusal {
        code: ReasonCode::Conflict,
        detail: format!(
            "`{}` is being made {} by `{}`. Wait for its end, then send the command again if it is still wanted.",
            located.id,
            pending.isolation_model.as_str(),
            pending.operation_id
        ),
        retryable: true,
    })
}

/// Why an environment cannot make another part now.
fn no_part(view: &EnvironmentView, prefix: &str) -> Option<Refusal> {
    let RuntimeEnvironment { environment_id: id, operation_id, parts, .. } = &view.environment;
    if let Some(operation) = operation_id {
        return Some(Refusal {
            code: ReasonCode::Conflict,
            detail: format!(
                "`{operation}` is at work on `{id}`, and a tenant's part is made of the same resources. Wait for its end, then send the command again."
            ),
            retryable: true,
        });
    }
    let begun = parts.iter().any(|part| part.prefix == prefix);
    (!begun && parts.len() >= PARTS_MAX).then(|| {
        let detail = format!(
            "`{id}` has {} tenants with a part of their own, and {PARTS_MAX} are allowed. Bind the tenant as `shared`, or to another environment.",
            parts.len()
        );
        Refusal::new(ReasonCode::QuotaExceeded, detail)
    })
}

/// Writes the binding, the event that tells it, and the message that has the bound tenant see it.
fn record(
    message: &Message<BindTenant>,
    wanted: Wanted,
    environment: &EnvironmentView,
    located: Located,
    partition: Partition,
) -> Result<Decision, Fault> {
    let mut commit = Commit::new(partition, message.now);
    let event_id = message.envelope.event_id.to_string();
    let Wanted { environment_id, bound_tenant_id, isolation_model, quota } = wanted;
    let (change, binding) = match located.binding {
        Some(binding)
            if binding.bound && binding.isolation_model == isolation_model && binding.quota == quota =>
        {
            // Saying it again also mends a view that did not come to be.
            tenant_view::ask(&mut commit, &binding, &event_id)?;
            let detail = format!("`{bound_tenant_id}` is bound to `{environment_id}` like this already.");
            return Ok(Decision::NoChange { commit, detail });
        }
        Some(binding) => {
            let sequence = binding.sequence + 1;
            (
                if binding.bound { BindingChange::Updated } else { BindingChange::Created },
                RuntimeTenantBinding {
                    isolation_model,
                    quota,
                    sequence,
                    updated_at: message.now,
                    bound: true,
                    ..binding
                },
            )
        }
        None => (
            BindingChange::Created,
            RuntimeTenantBinding {
                tenant_binding_id: located.id,
                environment_id,
                owner_tenant_id: message.envelope.tenant_id.clone(),
                bound_tenant_id,
                isolation_model,
                quota,
                sequence: 1,
                bound_at: message.now,
                updated_at: message.now,
                view: None,
                bound: true,
                pending: None,
            },
        ),
    };
    let outcome = message.cause(&commit.partition.environment_id).event("RuntimeTenantBound", 0);
    commit.event(&message.lineage(), told(&binding, change, outcome.clone(), event_id.clone()))?;
    tenant_view::ask(&mut commit, &binding, &event_id)?;
    commit.put(&located.loaded, &binding)?;
    environment.guard(&mut commit)?;
    Ok(Decision::Done { commit, outcome })
}

/// The event that tells a binding.
pub(super) fn told(
    binding: &RuntimeTenantBinding,
    change: BindingChange,
    id: EventId,
    caused_by: String,
) -> NewEvent {
    NewEvent {
        id,
        event: Event::RuntimeTenantBound(RuntimeTenantBound {
            tenant_binding_id: binding.tenant_binding_id.to_string(),
            environment_id: binding.environment_id.clone(),
            isolation_model: binding.isolation_model.as_str().to_owned(),
            quota: binding.quota.clone(),
            change,
        }),
        aggregate: binding.tenant_binding_id.to_string(),
        sequence: binding.sequence,
        caused_by,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn validated(payload: Value) -> Result<Wanted, Refusal> {
        validate(&serde_json::from_value(payload).unwrap())
    }

    fn payload(quota: Value) -> Value {
        json!({ "environmentId": "env-1", "boundTenantId": "acme", "isolationModel": "pool", "quota": quota })
    }

    #[test]
    fn dedicated_is_another_word_for_silo() {
        let wanted =
            json!({ "environmentId": "env-1", "boundTenantId": "acme", "isolationModel": "dedicated" });
        assert_eq!(validated(wanted).unwrap().isolation_model, IsolationModel::Silo);
    }

    #[test]
    fn a_quota_that_limits_nothing_is_none() {
        assert_eq!(validated(payload(json!({}))).unwrap().quota, None);
        assert_eq!(validated(payload(json!({ "maxReplicas": null }))).unwrap().quota, None);
        let limited = TenantQuota { max_replicas: Some(3), ..unlimited() };
        assert_eq!(validated(payload(json!({ "maxReplicas": 3 }))).unwrap().quota, Some(limited));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_field() {
        let detail = |payload: Value| validated(payload).unwrap_err().detail;
        assert_eq!(
            detail(payload(json!({ "cpuMillis": 0 }))),
            "payload.quota.cpuMillis: 0 would let nothing run; leave it out where it is not to be limited"
        );
        assert_eq!(
            detail(payload(json!({ "maxServices": 201 }))),
            "payload.quota.maxServices: at most 200 can be counted; leave it out where it is not to be limited"
        );
        let named = |environment: &str, tenant: &str| json!({ "environmentId": environment, "boundTenantId": tenant, "isolationModel": "pool" });
        assert_eq!(detail(named("dep-1", "acme")), "payload.environmentId: `dep-1` should begin with `env-`");
        assert_eq!(
            detail(named("env-1", "_platform")),
            "payload.boundTenantId: `_platform` begins with `_`, which is reserved for the platform"
        );
    }
}
