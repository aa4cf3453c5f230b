//! `GET plans/{id}`: what provisioning would change, before and after it is applied.

use serde_json::{Value, json};

use super::http::{self, HttpError};
use crate::{
    envelope::whole_seconds,
    invocation::{HttpAnswer, HttpRequest},
    platform::Platform,
    services::runtime_environment_service::state::Plan,
};

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    let id = http::id(request).unwrap_or_default();
    let plan = platform.ledger.find::<Plan>(&tenant, "planId", id).await?;
    let plan =
        plan.ok_or_else(|| HttpError::not_found("PlanNotFound", format!("There is no plan `{id}`.")))?;
    Ok(json!({
        "planId": plan.plan_id,
        "environmentId": plan.environment_id,
        "operationId": plan.operation_id,
        "generation": plan.generation,
        "hash": plan.hash,
        "madeAt": whole_seconds::text(plan.made_at),
        "expiresAt": whole_seconds::text(plan.expires_at),
        "appliedAt": plan.applied_at.map(whole_seconds::text),
        "changes": plan.changes,
        "inPlace": plan.progress.done.keys().collect::<Vec<_>>(),
    }))
}
