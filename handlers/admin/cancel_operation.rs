//! `POST operations/{id}/cancel`: ends long work, in the way that its kind knows. A rollout goes back,
//! provisioning stops where it stands, and so does decommissioning once a workload was touched; before
//! that the environment is what it was.

use serde_json::{Value, json};
use tracing::info;

use super::{
    http::{self, HttpError},
    writes::{self, Order},
};
use crate::{
    ids::TenantId,
    invocation::{HttpAnswer, HttpRequest},
    ledger::Commit,
    operations::{self, Kind, Operation, Status},
    outbox_relay,
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
    services::deployment_service::operators,
};

pub async fn post(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    match cancelled(platform, request).await {
        Ok((body, id)) => http::accepted(body, &format!("operations/{id}")),
        Err(error) => error.answer(),
    }
}

async fn cancelled(platform: &Platform, request: &HttpRequest) -> Result<(Value, String), HttpError> {
    let tenant = http::tenant(request)?;
    let id = http::id(request).unwrap_or_default();
    let order = Order::read("CancelOperation", request, id)?;
    let body = writes::patiently(|| try_cancel(platform, &tenant, id, &order)).await?;
    Ok((body, id.to_owned()))
}

async fn try_cancel(
    platform: &Platform,
    tenant: &TenantId,
    id: &str,
    order: &Order,
) -> Result<Result<Value, HttpError>, Fault> {
    let ledger = &platform.ledger;
    let Some(found) = ledger.find::<Operation>(tenant, "operationId", id).await? else {
        return Ok(Err(HttpError::not_found("OperationNotFound", format!("There is no operation `{id}`."))));
    };
    let partition = Partition::environment(tenant, &found.environment_id);
    let told = format!("ended `{id}`");
    let done = match order.done(ledger, &partition, &told).await? {
        Ok(done) => done,
        Err(other) => return Ok(Err(other)),
    };
    if !done {
        let (operation, loaded) = ledger.load::<Operation>(&partition, id).await?.take();
        let operation = operation.ok_or_else(|| Fault::Conflict { id: id.to_owned() })?;
        let mut commit = Commit::new(partition, platform.clock.now());
        if let Err(problem) = end(platform, &mut commit, (operation, loaded), order).await? {
            return Ok(Err(HttpError::new(409, "NotCancellable", problem)));
        }
        order.remember(&mut commit, &told)?;
        let committed = ledger.commit(commit).await?;
        info!(operation.id = id, "`{}` {told}: {}", order.actor, order.reason);
        outbox_relay::publish(platform, committed).await;
    }
    Ok(Ok(json!({
        "operationId": id,
        "environmentId": found.environment_id,
        "subject": found.subject,
        "cancelledBy": order.actor,
        "reason": order.reason,
    })))
}

/// Adds the order to what is written; an inner error says why it cannot be followed.
async fn end(
    platform: &Platform,
    commit: &mut Commit,
    (operation, loaded): (Operation, crate::ledger::Loaded<Operation>),
    order: &Order,
) -> Result<Result<(), String>, Fault> {
    let id = operation.operation_id.clone();
    if operation.status != Status::Running {
        return Ok(Err(format!("`{id}` has ended already ({:?}).", operation.status)));
    }
    if operation.cancel.is_some() {
        return Ok(Err(format!("`{id}` is being ended already.")));
    }
    let why = format!("ended by `{}`: {}", order.actor, order.reason);
    if operation.kind == Kind::Deploy {
        return operators::cancel(&platform.ledger, commit, (operation, loaded), &order.id(), &why).await;
    }
    if operation.kind == Kind::Rollback {
        return Ok(Err(format!(
            "`{id}` goes back to what is known to be good and is brought to its end; send Deploy for another version."
        )));
    }
    operations::cancel(commit, &loaded, operation, &order.id(), &why)?;
    Ok(Ok(()))
}
