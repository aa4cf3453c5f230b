//! `GET scaling-policies[/{id}]`: how workloads are scaled, what was last seen, and why.

use serde_json::{Value, json};

use super::http::{self, HttpError};
use crate::{
    envelope::whole_seconds,
    invocation::{HttpAnswer, HttpRequest},
    platform::Platform,
    ports::store::Filter,
    services::runtime_scaling_service::ScalingPolicy,
};

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    if let Some(id) = http::id(request) {
        let policy = platform.ledger.find::<ScalingPolicy>(&tenant, "scalingPolicyId", id).await?;
        let policy = policy.ok_or_else(|| {
            HttpError::not_found("ScalingPolicyNotFound", format!("There is no scaling policy `{id}`."))
        })?;
        let mut whole = view(&policy);
        whole["history"] = policy
            .history
            .iter()
            .rev()
            .map(|scaled| {
                json!({
                    "at": whole_seconds::text(scaled.at),
                    "direction": scaled.direction,
                    "fromReplicas": scaled.from_replicas,
                    "toReplicas": scaled.to_replicas,
                    "minReplicas": scaled.min_replicas,
                    "maxReplicas": scaled.max_replicas,
                    "reason": scaled.reason,
                    "eventId": scaled.event_id,
                })
            })
            .collect();
        return Ok(whole);
    }
    let equal = http::equal(request, &["environmentId", "moduleId", "serviceId", "status"]);
    let filter = Filter { equal, newest_first: true, ..Filter::default() };
    let listing = platform.ledger.list::<ScalingPolicy>(&tenant, &filter, &http::page(request)).await?;
    let items = listing.items.iter().map(|(_, policy)| view(policy)).collect();
    Ok(http::list(items, listing.next))
}

fn view(policy: &ScalingPolicy) -> Value {
    let (spec, entry) = (&policy.wanted.spec, &policy.wanted.entry);
    json!({
        "scalingPolicyId": policy.scaling_policy_id,
        "environmentId": policy.environment_id,
        "serviceId": policy.service_id,
        "moduleId": policy.module_id,
        "kind": spec.kind,
        "minReplicas": spec.min_replicas,
        "maxReplicas": spec.max_replicas,
        "target": spec.target,
        "queue": spec.queue,
        "schedule": spec.schedule,
        "cooldownSeconds": spec.cooldown_seconds,
        "status": policy.status,
        "reason": policy.reason,
        "inForce": {
            "generation": entry.generation,
            "minReplicas": entry.min_replicas,
            "maxReplicas": entry.max_replicas,
            "rules": entry.rules,
        },
        "desiredReplicas": policy.desired_replicas,
        "observedReplicas": policy.observed_replicas,
        "lastScaledAt": policy.last_scaled_at.map(whole_seconds::text),
        "said": policy.said,
        "evaluatedAt": policy.evaluated_window.map(whole_seconds::text),
        "operationId": policy.operation_id,
        "appliedAt": whole_seconds::text(policy.made_at),
    })
}
