//! `POST environments/{id}/sweep/{kind}`: has an environment looked after now, before its timer would.
//! The same code runs as on the timer, and what it does is in the same report.

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
    services::tenant_runtime_isolation_service::Ground,
    sweeps::{self, Kind},
};

pub async fn post(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    match ordered(platform, request).await {
        Ok(body) => http::accepted(body, "sweeps"),
        Err(error) => error.answer(),
    }
}

async fn ordered(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    let given = request.params.get("kind").map(String::as_str).unwrap_or_default();
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(given));
    let kind = kind.ok_or_else(|| {
        let known = Kind::ALL.map(|kind| kind.as_str().to_ascii_lowercase()).join(", ");
        HttpError::bad_request("KindUnknown", format!("`{given}` is no kind of sweep; there are {known}."))
    })?;
    let id = http::id(request).unwrap_or_default();
    let not_found =
        || HttpError::not_found("EnvironmentNotFound", format!("There is no environment `{id}`."));
    let environment: EnvironmentId = id.parse().map_err(|_| not_found())?;
    // Without a key of its own, two requests within a minute are one.
    let minute = platform.clock.now().as_second() / 60;
    let order = Order::read("SweepNow", request, &format!("{id}-{}-{minute}", kind.as_str()))?;
    if Ground::find(&platform.ledger, &tenant, &environment).await?.is_none() {
        return Err(not_found());
    }
    writes::patiently(|| send(platform, &tenant, &environment, kind, &order)).await
}

async fn send(
    platform: &Platform,
    tenant: &TenantId,
    environment: &EnvironmentId,
    kind: Kind,
    order: &Order,
) -> Result<Result<Value, HttpError>, Fault> {
    let partition = Partition::environment(tenant, environment.as_str());
    let told = format!("had `{environment}` swept for {}", kind.as_str());
    match order.done(&platform.ledger, &partition, &told).await? {
        Ok(true) => {}
        Ok(false) => {
            let mut commit = Commit::new(partition, platform.clock.now());
            sweeps::nudge(&mut commit, kind, tenant, environment, None, &order.id())?;
            order.remember(&mut commit, &told)?;
            let committed = platform.ledger.commit(commit).await?;
            info!("`{}` {told}: {}", order.actor, order.reason);
            outbox_relay::publish(platform, committed).await;
        }
        Err(other) => return Ok(Err(other)),
    }
    Ok(Ok(
        json!({ "environmentId": environment, "kind": kind, "orderedBy": order.actor, "reason": order.reason }),
    ))
}
