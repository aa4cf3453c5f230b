//! `GET services`, `GET services/{id}`, `GET services/{id}/health`: what runs, and how well. With
//! `?at=TIME` a service is told as it was then.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::http::{self, HttpError};
use crate::{
    envelope::whole_seconds,
    invocation::{HttpAnswer, HttpRequest},
    platform::Platform,
    ports::store::{Filter, Partition},
    services::{
        runtime_health_service::{self, HealthCheckResult},
        service_catalog_runtime_service::{
            self as catalogue, PastService, RuntimeService, state::HISTORY_SECONDS,
        },
    },
};

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

pub async fn health(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(health_of(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    if http::id(request).is_some() {
        let (service, partition) = one(platform, request).await?;
        return match request.query.get("at") {
            None => Ok(view(&service)),
            Some(at) => Ok(past_view(&at_time(platform, &service, &partition, at).await?)),
        };
    }
    let equal = http::equal(request, &["environmentId", "moduleId", "status"]);
    let filter = Filter { equal, newest_first: true, ..Filter::default() };
    let listing = platform.ledger.list::<RuntimeService>(&tenant, &filter, &http::page(request)).await?;
    let items = listing.items.iter().map(|(_, service)| view(service)).collect();
    Ok(http::list(items, listing.next))
}

async fn one(platform: &Platform, request: &HttpRequest) -> Result<(RuntimeService, Partition), HttpError> {
    let tenant = http::tenant(request)?;
    let id = http::id(request).unwrap_or_default();
    let service = platform.ledger.find::<RuntimeService>(&tenant, "serviceId", id).await?;
    let service = service
        .ok_or_else(|| HttpError::not_found("ServiceNotFound", format!("There is no service `{id}`.")))?;
    let partition = Partition::environment(&tenant, service.environment_id.as_str());
    Ok((service, partition))
}

async fn at_time(
    platform: &Platform,
    service: &RuntimeService,
    partition: &Partition,
    at: &str,
) -> Result<PastService, HttpError> {
    let at: Timestamp = at.parse().map_err(|_| {
        HttpError::bad_request(
            "TimeInvalid",
            "The parameter `at` is no time; write it as 2026-03-02T10:15:00Z.",
        )
    })?;
    let oldest = platform.clock.now() - SignedDuration::from_secs(HISTORY_SECONDS.into());
    if at < oldest {
        let message = format!(
            "The parameter `at`: past states are kept for 30 days; ask for {} or later.",
            whole_seconds::text(oldest)
        );
        return Err(HttpError::bad_request("TimeTooOld", message));
    }
    let past = catalogue::service_at(&platform.ledger, partition, &service.service_id, at).await?;
    past.ok_or_else(|| {
        let message = format!(
            "Nothing is known of `{}` at {}: it was not seen yet, or has changed too often since.",
            service.service_id,
            whole_seconds::text(at)
        );
        HttpError::not_found("NothingKnownThen", message)
    })
}

async fn health_of(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let (service, partition) = one(platform, request).await?;
    let result = runtime_health_service::latest(&platform.ledger, &partition, &service.service_id).await?;
    let result = result.ok_or_else(|| {
        let message = format!(
            "`{}` was not looked at yet; the next sweep comes within 30 seconds.",
            service.service_id
        );
        HttpError::not_found("NotLookedAtYet", message)
    })?;
    Ok(health_view(&result))
}

fn view(service: &RuntimeService) -> Value {
    json!({
        "serviceId": service.service_id,
        "environmentId": service.environment_id,
        "moduleId": service.module_id,
        "componentType": service.component_type,
        "image": service.image,
        "version": service.version,
        "deploymentId": service.deployment_id,
        "computeTarget": service.compute_target,
        "replicas": service.replicas,
        "instances": service.instances,
        "endpointUrl": service.endpoint_url,
        "status": service.status,
        "scaled": service.scaled,
        "lastObservedAt": whole_seconds::text(service.last_observed_at),
        "retiredAt": service.retired_at.map(whole_seconds::text),
    })
}

fn past_view(past: &PastService) -> Value {
    json!({
        "serviceId": past.service_id,
        "since": whole_seconds::text(past.at),
        "change": past.change,
        "status": past.status,
        "image": past.image,
        "version": past.version,
        "deploymentId": past.deployment_id,
        "replicas": past.replicas,
    })
}

fn health_view(result: &HealthCheckResult) -> Value {
    json!({
        "serviceId": result.service_id,
        "environmentId": result.environment_id,
        "moduleId": result.module_id,
        "deploymentId": result.deployment_id,
        "status": result.status,
        "checks": result.checks,
        "consecutiveFailures": result.consecutive_failures,
        "replicas": result.replicas,
        "readyReplicas": result.ready_replicas,
        "evaluatedAt": whole_seconds::text(result.evaluated_at),
        "windowStart": whole_seconds::text(result.window_start),
        "transitions": result.transitions,
    })
}
