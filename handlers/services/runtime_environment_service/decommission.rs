//! Decommissioning an environment: an operator's order, and the internal message that begins it.
//!
//! The order is judged and written at once: from that commit on the environment is `Decommissioning`,
//! and takes no Deploy. It is refused while anything runs, so that nobody's work is cut off, and while a
//! tenant that is bound to the environment has workloads there, whatever is forced. What was begun by a
//! message that had been on its way already is waited for, and what a bound tenant's Deploy of that very
//! moment brought is found before anything is touched.
//!
//! The message on `decommission-environment` begins the operation whose steps are in
//! `decommissioning.rs`. It comes again where its function died, and finds what it made.
//!
//! An environment that was decommissioned stays so: its id and the names of its resources derive from
//! its name, Azure keeps its vault for months after, and its history is that of another life. So
//! ProvisionEnvironment of the same name is refused, and a new environment takes a new name.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::{
    decommissioning::DRAINING,
    state::{Decommission, ProvisioningStatus, RuntimeEnvironment},
};
use crate::{
    delivery,
    ids::{self, Cause, CorrelationId, EnvironmentId, OperationId, TenantId, TraceId},
    invocation::QueueMessage,
    ledger::{Commit, Ledger, Lineage, Loaded, OutboxMessage},
    operations::{self, Kind, NewOperation, Operation, Status},
    outbox_relay,
    outcome::Fault,
    platform::Platform,
    ports::store::{Filter, Page, Partition},
    services::{deployment_service, tenant_runtime_isolation_service},
};

/// The queue that begins it.
pub const QUEUE: &str = "decommission-environment";
/// The function behind the queue.
pub const FUNCTION: &str = "DecommissionEnvironment";
/// How long it may take in all; a Container Apps environment alone takes up to half an hour.
const ALLOWED: SignedDuration = SignedDuration::from_hours(2);
/// Workloads, tenants and operations that a refusal names.
const NAMED_MAX: usize = 3;

/// An operator's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The order's id, the same for a request that is sent again.
    pub id: String,
    pub actor: String,
    pub reason: String,
    /// Whether workloads that serve go too.
    pub force: bool,
}

/// Why an environment is not decommissioned now, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotNow {
    pub code: &'static str,
    pub sentence: String,
}

/// The message on the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Begin {
    tenant_id: TenantId,
    environment_id: EnvironmentId,
    operation_id: OperationId,
    order_id: String,
    actor: String,
    reason: String,
    force: bool,
}

/// The operation that an order leads to.
pub fn operation_id(tenant: &TenantId, environment: &EnvironmentId, order_id: &str) -> OperationId {
    let cause = Cause { tenant, environment: environment.as_str(), function: FUNCTION, event_id: order_id };
    cause.operation(0)
}

/// Adds an order to a commit of the environment's partition: the environment begins to go, and the
/// message that has it done.
///
/// # Errors
/// When the store is away. The inner error says why not now.
pub async fn order(
    ledger: &Ledger,
    commit: &mut Commit,
    found: (RuntimeEnvironment, Loaded<RuntimeEnvironment>),
    order: &Order,
) -> Result<Result<(), NotNow>, Fault> {
    let (environment, loaded) = found;
    if let Err(no) = may_go(ledger, &commit.partition, &environment, order.force).await? {
        return Ok(Err(no));
    }
    let (tenant, id) = (environment.tenant_id.clone(), environment.environment_id.clone());
    let operation_id = operation_id(&tenant, &id, &order.id);
    let message = Begin {
        tenant_id: tenant,
        environment_id: id,
        operation_id: operation_id.clone(),
        order_id: order.id.clone(),
        actor: order.actor.clone(),
        reason: order.reason.clone(),
        force: order.force,
    };
    let body = serde_json::to_vec(&message).map_err(|error| Fault::Unreadable {
        doing: "ordering a decommission".to_owned(),
        source: error.into(),
    })?;
    commit.message(&OutboxMessage::json(
        QUEUE,
        ids::derive(&[QUEUE, operation_id.as_str()]).to_string(),
        body,
        commit.now,
    ))?;
    let environment = RuntimeEnvironment {
        status: ProvisioningStatus::Decommissioning,
        operation_id: Some(operation_id),
        decommission_orders: environment.decommission_orders + 1,
        failure: None,
        ..environment
    };
    commit.put(&loaded, &environment)?;
    Ok(Ok(()))
}

async fn may_go(
    ledger: &Ledger,
    partition: &Partition,
    environment: &RuntimeEnvironment,
    force: bool,
) -> Result<Result<(), NotNow>, Fault> {
    let id = &environment.environment_id;
    let no = |code, sentence: String| Ok(Err(NotNow { code, sentence }));
    if environment.status == ProvisioningStatus::Decommissioned {
        return no("Decommissioned", format!("`{id}` is decommissioned already."));
    }
    if let Some(operation) = &environment.operation_id {
        return no(
            "OperationRunning",
            format!(
                "`{operation}` works on `{id}`; wait for its end, or cancel it: runtimectl cancel {operation}."
            ),
        );
    }
    let running = running(ledger, partition, None).await?;
    if !running.is_empty() {
        return no(
            "OperationRunning",
            format!(
                "{} on `{id}`; wait for the end, or cancel first what need not be done any more.",
                if running.len() == 1 {
                    format!("{} still works", named(&running))
                } else {
                    format!("{} still work", named(&running))
                }
            ),
        );
    }
    let serving = serving(ledger, partition).await?;
    if !serving.is_empty() && !force {
        return no(
            "WorkloadsServe",
            format!(
                "{} in `{id}`. Send `\"force\": true` if {} to go too.",
                if serving.len() == 1 {
                    format!("{} serves", named(&serving))
                } else {
                    format!("{} serve", named(&serving))
                },
                if serving.len() == 1 { "it is" } else { "they are" }
            ),
        );
    }
    if let Some(sentence) = of_bound_tenants(ledger, partition, id).await? {
        return no("TenantsServe", sentence);
    }
    Ok(Ok(()))
}

/// The ids of operations that run in a partition, but for one, as far as a refusal names them.
pub(super) async fn running(
    ledger: &Ledger,
    partition: &Partition,
    besides: Option<&OperationId>,
) -> Result<Vec<String>, Fault> {
    let equal = vec![("status".to_owned(), format!("{:?}", Status::Running))];
    let filter = Filter { equal, ..Filter::default() };
    let listing = ledger.query::<Operation>(partition, &filter, &Page::first(NAMED_MAX + 2)).await?;
    let ids = listing.items.into_iter().map(|(_, operation)| operation.operation_id);
    Ok(ids.filter(|id| Some(id) != besides).map(|id| id.to_string()).collect())
}

/// The modules that serve, or are being deployed.
pub(super) async fn serving(ledger: &Ledger, partition: &Partition) -> Result<Vec<String>, Fault> {
    let workloads = deployment_service::workloads(ledger, partition).await?;
    Ok(workloads.into_iter().map(|workload| workload.module_id.to_string()).collect())
}

/// What keeps the environment: workloads of tenants that are bound to it. None where there are none.
pub(super) async fn of_bound_tenants(
    ledger: &Ledger,
    partition: &Partition,
    id: &EnvironmentId,
) -> Result<Option<String>, Fault> {
    let mut serving = Vec::new();
    for bound in tenant_runtime_isolation_service::bound_tenants(ledger, partition).await? {
        let theirs = Partition::environment(&bound, id.as_str());
        if !self::serving(ledger, &theirs).await?.is_empty() {
            serving.push(bound.to_string());
        }
    }
    Ok((!serving.is_empty()).then(|| {
        format!(
            "{} in `{id}`, whatever is forced; have {} move first.",
            if serving.len() == 1 {
                format!("The bound tenant {} has workloads", named(&serving))
            } else {
                format!("The bound tenants {} have workloads", named(&serving))
            },
            if serving.len() == 1 { "it" } else { "them" }
        )
    }))
}

/// The first of them, and how many more there are.
fn named(ids: &[String]) -> String {
    let first: Vec<_> = ids.iter().take(NAMED_MAX).map(|id| format!("`{id}`")).collect();
    let more = if ids.len() > NAMED_MAX { " and more" } else { "" };
    format!("{}{more}", first.join(", "))
}

/// Begins what a message orders.
///
/// # Errors
/// Only when the message could neither be handled, nor copied, nor filed.
pub async fn begin(platform: &Platform, delivered: &QueueMessage) -> Result<(), Fault> {
    let message: Begin = match serde_json::from_slice(&delivered.body) {
        Ok(message) => message,
        Err(error) => {
            let detail = format!("the body decommissions nothing: {error}");
            return delivery::dead_letter(platform, FUNCTION, delivered, "Unreadable", &detail).await;
        }
    };
    delivery::internal(platform, FUNCTION, delivered, || try_begin(platform, &message)).await
}

async fn try_begin(platform: &Platform, message: &Begin) -> Result<(), Fault> {
    let ledger = &platform.ledger;
    let partition = Partition::environment(&message.tenant_id, message.environment_id.as_str());
    let id = message.environment_id.as_str();
    let Some(environment) = ledger.load::<RuntimeEnvironment>(&partition, id).await?.state else {
        return Ok(());
    };
    let begun = ledger.raw(&partition, message.operation_id.as_str()).await?.is_some();
    if begun || environment.operation_id.as_ref() != Some(&message.operation_id) {
        return Ok(());
    }
    let mut commit = Commit::new(partition, platform.clock.now());
    let lineage = lineage(&environment, message)?;
    operations::begin(
        &mut commit,
        NewOperation {
            id: message.operation_id.clone(),
            kind: Kind::Decommission,
            module_id: None,
            subject: message.environment_id.to_string(),
            step: DRAINING,
            lineage,
            caused_by: environment.provisioned_event_id.unwrap_or_else(|| message.order_id.clone()),
            allowed: ALLOWED,
            starts: true,
        },
    )?;
    let record = Decommission {
        environment_id: message.environment_id.clone(),
        operation_id: message.operation_id.clone(),
        actor: message.actor.clone(),
        reason: message.reason.clone(),
        force: message.force,
        ordered_at: commit.now,
        apps: Vec::new(),
        told_after: None,
        removal: crate::ports::infrastructure::Removal::default(),
    };
    let loaded =
        ledger.load::<Decommission>(&commit.partition, &Decommission::id(&message.environment_id)).await?;
    commit.put(&loaded, &record)?;
    let committed = ledger.commit(commit).await?;
    info!("`{}` begins to decommission `{}`: {}", message.actor, message.environment_id, message.reason);
    outbox_relay::publish(platform, committed).await;
    Ok(())
}

/// Nobody sent a command, so the order is the root of what follows.
fn lineage(environment: &RuntimeEnvironment, message: &Begin) -> Result<Lineage, Fault> {
    let unreadable = |error: ids::IdError| Fault::Unreadable {
        doing: "naming a decommission".to_owned(),
        source: error.into(),
    };
    let digits = ids::derive(&["decommission", message.operation_id.as_str()]).simple();
    Ok(Lineage {
        tenant_id: environment.tenant_id.clone(),
        project_id: Some(environment.project_id.clone()),
        module_id: None,
        trace_id: format!("trace-{digits}").parse::<TraceId>().map_err(unreadable)?,
        correlation_id: format!("corr-{digits}").parse::<CorrelationId>().map_err(unreadable)?,
        command_id: message.order_id.clone(),
        command_type: FUNCTION.to_owned(),
        traceparent: None,
    })
}
