//! `GET deployments`, `GET deployments/{id}`; the one deployment comes with its gate's samples.

use serde_json::{Value, json};

use super::http::{self, HttpError};
use crate::{
    envelope::whole_seconds,
    invocation::{HttpAnswer, HttpRequest},
    platform::Platform,
    ports::store::{Filter, Partition},
    services::deployment_service::{GateRecord, RuntimeDeployment},
};

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    if let Some(id) = http::id(request) {
        let deployment = platform.ledger.find::<RuntimeDeployment>(&tenant, "deploymentId", id).await?;
        let Some(deployment) = deployment else {
            return Err(HttpError::not_found(
                "DeploymentNotFound",
                format!("There is no deployment `{id}`."),
            ));
        };
        let partition = Partition::environment(&tenant, deployment.environment_id.as_str());
        let gate = platform
            .ledger
            .load::<GateRecord>(&partition, &GateRecord::id(&deployment.deployment_id))
            .await?;
        return Ok(view(&deployment, gate.state.as_ref()));
    }
    let equal = http::equal(request, &["environmentId", "moduleId", "status"]);
    let filter = Filter { equal, newest_first: true, ..Filter::default() };
    let listing = platform.ledger.list::<RuntimeDeployment>(&tenant, &filter, &http::page(request)).await?;
    let items = listing.items.iter().map(|(_, deployment)| view(deployment, None)).collect();
    Ok(http::list(items, listing.next))
}

fn view(deployment: &RuntimeDeployment, gate: Option<&GateRecord>) -> Value {
    json!({
        "deploymentId": deployment.deployment_id,
        "environmentId": deployment.environment_id,
        "moduleId": deployment.module_id,
        "componentType": deployment.workload.component_type,
        "target": deployment.workload.target,
        "image": deployment.workload.image,
        "imageDigest": deployment.image_digest,
        "previousImage": deployment.previous.as_ref().map(|previous| &previous.image),
        "strategy": deployment.strategy,
        "status": deployment.status,
        "healthGate": deployment.gate_result,
        "rolledBackReason": deployment.rolled_back_reason,
        "restoredImage": deployment.restore.as_ref().map(|restored| &restored.image),
        "reason": deployment.reason,
        "revision": deployment.revision,
        "url": deployment.host.as_ref().map(|host| format!("https://{host}/")),
        "weight": deployment.weight_in_place,
        "operationId": deployment.operation_id,
        "correlationId": deployment.lineage.correlation_id,
        "requestedAt": whole_seconds::text(deployment.requested_at),
        "endedAt": deployment.ended_at.map(whole_seconds::text),
        "gate": gate.map(|gate| json!({
            "verdict": gate.verdict,
            "reason": gate.reason,
            "samples": gate.samples,
        })),
    })
}
