//! `POST environments/{id}/decommission`: takes an environment down, with all that is in it.

use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::{
    http::{self, HttpError},
    writes::{self, Order},
};
use crate::{
    ids::{EnvironmentId, TenantId},
    invocation::{HttpAnswer, HttpRequest},
    ledger::Commit,
    outbox_relay,
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
    services::runtime_environment_service::{RuntimeEnvironment, decommission},
};

/// The body.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    reason: String,
    /// Whether workloads that serve go too.
    #[serde(default)]
    force: bool,
}

pub async fn post(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    match ordered(platform, request).await {
        Ok((body, id)) => http::accepted(body, &format!("environments/{id}")),
        Err(error) => error.answer(),
    }
}

async fn ordered(platform: &Platform, request: &HttpRequest) -> Result<(Value, String), HttpError> {
    let tenant = http::tenant(request)?;
    let id = http::id(request).unwrap_or_default();
    let body: Body = http::body(request)?;
    let body = writes::patiently(|| try_order(platform, request, &tenant, id, &body)).await?;
    Ok((body, id.to_owned()))
}

async fn try_order(
    platform: &Platform,
    request: &HttpRequest,
    tenant: &TenantId,
    id: &str,
    Body { reason, force }: &Body,
) -> Result<Result<Value, HttpError>, Fault> {
    let ledger = &platform.ledger;
    let not_found = || {
        let message = format!(
            "There is no environment `{id}` of yours; `runtimectl get environments` lists those there are."
        );
        HttpError::not_found("EnvironmentNotFound", message)
    };
    let Ok(environment_id) = EnvironmentId::of_ours(id) else { return Ok(Err(not_found())) };
    let partition = Partition::environment(tenant, id);
    let (environment, loaded) = ledger.load::<RuntimeEnvironment>(&partition, id).await?.take();
    let Some(environment) = environment else { return Ok(Err(not_found())) };
    // Without a key of the sender's its number is the key: an order that stopped may be given again.
    let subject = format!("{id}-{}", environment.decommission_orders);
    let order = match Order::with("Decommission", request, &subject, reason) {
        Ok(order) => order,
        Err(error) => return Ok(Err(error)),
    };
    let force = *force;
    let told =
        if force { format!("decommissioned `{id}` by force") } else { format!("decommissioned `{id}`") };
    let done = match order.done(ledger, &partition, &told).await? {
        Ok(done) => done,
        Err(other) => return Ok(Err(other)),
    };
    let operation_id = decommission::operation_id(tenant, &environment_id, &order.id());
    if !done {
        let mut commit = Commit::new(partition, platform.clock.now());
        let wanted = decommission::Order {
            id: order.id(),
            actor: order.actor.clone(),
            reason: order.reason.clone(),
            force,
        };
        if let Err(no) = decommission::order(ledger, &mut commit, (environment, loaded), &wanted).await? {
            return Ok(Err(HttpError::new(409, no.code, no.sentence)));
        }
        order.remember(&mut commit, &told)?;
        let committed = ledger.commit(commit).await?;
        info!("`{}` {told}: {}", order.actor, order.reason);
        outbox_relay::publish(platform, committed).await;
    }
    Ok(Ok(json!({
        "environmentId": id,
        "operationId": operation_id,
        "force": force,
        "decommissionedBy": order.actor,
        "reason": order.reason,
        "detail": format!("`{id}` is being taken down; see `runtimectl get operations {operation_id}`."),
    })))
}
