//! `GET quarantine`: what failed and is kept out (images, versions of configurations and of secrets); `POST quarantine/{deploymentId}/lift`
//! lets one in again.

use serde_json::{Value, json};
use tracing::info;

use super::{
    http::{self, HttpError},
    writes::{self, Order},
};
use crate::{
    envelope::whole_seconds,
    ids::{EnvironmentId, ModuleId, TenantId},
    invocation::{HttpAnswer, HttpRequest},
    ledger::Commit,
    outcome::Fault,
    platform::Platform,
    ports::store::{Filter, Partition},
    services::deployment_service::{
        RuntimeDeployment, Slot, operators,
        quarantine::{KeptOut, Quarantined},
    },
};

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    let filter =
        Filter { equal: http::equal(request, &["moduleId"]), newest_first: true, ..Filter::default() };
    let page = http::page(request);
    let listing = match request.query.get("environmentId").filter(|id| !id.is_empty()) {
        Some(id) => {
            let id = EnvironmentId::of_ours(id).map_err(|error| {
                HttpError::bad_request("EnvironmentIdInvalid", format!("environmentId {error}."))
            })?;
            platform
                .ledger
                .query::<Slot>(&Partition::environment(&tenant, id.as_str()), &filter, &page)
                .await?
        }
        None => platform.ledger.list::<Slot>(&tenant, &filter, &page).await?,
    };
    let items = listing.items.iter().flat_map(|(partition, slot)| {
        slot.quarantine.iter().map(|entry| view(&partition.environment_id, &slot.module_id, entry))
    });
    Ok(http::list(items.collect(), listing.next))
}

fn view(environment_id: &str, module_id: &ModuleId, entry: &Quarantined) -> Value {
    let (kind, version, secrets) = match &entry.kept_out {
        KeptOut::Image => ("Image", None, None),
        KeptOut::Configuration { version } => ("Configuration", Some(version), None),
        KeptOut::Secrets { versions } => ("Secrets", None, Some(versions)),
    };
    json!({
        "deploymentId": entry.deployment_id,
        "environmentId": environment_id,
        "moduleId": module_id,
        "kind": kind,
        "image": entry.image,
        "imageDigest": entry.image_digest,
        "configurationVersion": version,
        "secretVersions": secrets,
        "by": entry.by,
        "since": whole_seconds::text(entry.at),
        "reason": entry.reason,
    })
}

pub async fn lift(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(lifted(platform, request).await)
}

async fn lifted(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    let id = http::id(request).unwrap_or_default();
    let order = Order::read("LiftQuarantine", request, id)?;
    writes::patiently(|| try_lift(platform, &tenant, id, &order)).await
}

async fn try_lift(
    platform: &Platform,
    tenant: &TenantId,
    id: &str,
    order: &Order,
) -> Result<Result<Value, HttpError>, Fault> {
    let ledger = &platform.ledger;
    let Some(deployment) = ledger.find::<RuntimeDeployment>(tenant, "deploymentId", id).await? else {
        let message = format!(
            "There is no deployment `{id}`; `runtimectl get quarantine` lists what is kept out, by the deployment that failed."
        );
        return Ok(Err(HttpError::not_found("DeploymentNotFound", message)));
    };
    let partition = Partition::environment(tenant, deployment.environment_id.as_str());
    let image = &deployment.workload.image;
    let told = format!("lifted the quarantine that `{id}` began");
    let done = match order.done(ledger, &partition, &told).await? {
        Ok(done) => done,
        Err(other) => return Ok(Err(other)),
    };
    if !done {
        let mut commit = Commit::new(partition, platform.clock.now());
        if operators::lift(ledger, &mut commit, &deployment).await?.is_none() {
            let message = format!("`{id}` keeps nothing out: nothing is in quarantine for it, or no longer.");
            return Ok(Err(HttpError::not_found("NotQuarantined", message)));
        }
        order.remember(&mut commit, &told)?;
        ledger.commit(commit).await?;
        info!("`{}` {told}: {}", order.actor, order.reason);
    }
    Ok(Ok(json!({
        "deploymentId": id,
        "environmentId": deployment.environment_id,
        "moduleId": deployment.module_id,
        "image": image,
        "liftedBy": order.actor,
        "reason": order.reason,
        "detail": format!("What `{id}` brought to `{}` may be deployed again.", deployment.environment_id),
    })))
}
