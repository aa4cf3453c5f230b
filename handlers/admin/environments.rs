//! `GET environments`, `GET environments/{id}`.

use serde_json::{Value, json};

use super::http::{self, HttpError};
use crate::{
    envelope::whole_seconds,
    invocation::{HttpAnswer, HttpRequest},
    platform::Platform,
    ports::store::Filter,
    services::runtime_environment_service::RuntimeEnvironment,
};

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    if let Some(id) = http::id(request) {
        let environment = platform.ledger.find::<RuntimeEnvironment>(&tenant, "environmentId", id).await?;
        return environment.as_ref().map(view).ok_or_else(|| {
            HttpError::not_found("EnvironmentNotFound", format!("There is no environment `{id}`."))
        });
    }
    let equal = http::equal(request, &["name", "stage", "status"]);
    let filter = Filter { equal, newest_first: true, ..Filter::default() };
    let listing = platform.ledger.list::<RuntimeEnvironment>(&tenant, &filter, &http::page(request)).await?;
    let items = listing.items.iter().map(|(_, environment)| view(environment)).collect();
    Ok(http::list(items, listing.next))
}

fn view(environment: &RuntimeEnvironment) -> Value {
    json!({
        "environmentId": environment.environment_id,
        "tenantId": environment.tenant_id,
        "projectId": environment.project_id,
        "name": environment.name,
        "stage": environment.stage,
        "region": environment.region,
        "isolationModel": environment.isolation_model,
        "status": environment.status,
        "computeTargets": environment.compute_targets,
        "planId": environment.plan_id,
        "operationId": environment.operation_id,
        "failure": environment.failure,
        "leftBehind": environment.left_behind,
        "decommissionedAt": environment.decommissioned_at.map(whole_seconds::text),
        "createdAt": whole_seconds::text(environment.created_at),
        "provisionedAt": environment.provisioned_at.map(whole_seconds::text),
    })
}
