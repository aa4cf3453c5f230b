//! `GET configurations`, `GET configurations/{id}`: versions, and how far each has come. The id is a
//! version's, e.g. `cfg-2c8d41f7-v7`, or the configuration's own for its newest version.

use serde_json::{Value, json};

use super::http::{self, HttpError};
use crate::{
    envelope::whole_seconds,
    invocation::{HttpAnswer, HttpRequest},
    platform::Platform,
    ports::store::{Filter, Partition},
    services::runtime_configuration_service::{ConfigurationVersion, RuntimeConfiguration},
};

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    let ledger = &platform.ledger;
    if let Some(id) = http::id(request) {
        let unknown =
            || HttpError::not_found("ConfigurationNotFound", format!("There is no configuration `{id}`."));
        let (configuration, number) =
            match id.rsplit_once("-v").map(|(id, number)| (id, number.parse::<u64>())) {
                Some((configuration, Ok(number))) => (configuration, Some(number)),
                Some((_, Err(_))) | None => (id, None),
            };
        let head = ledger
            .find::<RuntimeConfiguration>(&tenant, "configurationId", configuration)
            .await?
            .ok_or_else(unknown)?;
        let partition = Partition::environment(&tenant, head.environment_id.as_str());
        let version = ConfigurationVersion::id(configuration, number.unwrap_or(head.version));
        let version =
            ledger.load::<ConfigurationVersion>(&partition, &version).await?.state.ok_or_else(unknown)?;
        return Ok(view(&version));
    }
    let filter =
        Filter { equal: http::equal(request, &["environmentId"]), newest_first: true, ..Filter::default() };
    let listing = ledger.list::<ConfigurationVersion>(&tenant, &filter, &http::page(request)).await?;
    let items = listing.items.iter().map(|(_, version)| view(version)).collect();
    Ok(http::list(items, listing.next))
}

fn view(version: &ConfigurationVersion) -> Value {
    let workloads: Vec<_> = version
        .workloads
        .iter()
        .map(|progress| {
            json!({
                "moduleId": progress.module_id,
                "serviceId": progress.service_id,
                "stage": progress.stage,
                "appliedAt": progress.applied_at.map(whole_seconds::text),
                "deploymentId": progress.deployment_id,
                "reason": progress.reason,
            })
        })
        .collect();
    json!({
        "configurationId": version.configuration_id,
        "environmentId": version.environment_id,
        "version": version.version,
        "status": version.status,
        "reason": version.reason,
        "contentHash": version.content_hash,
        "settings": version.settings,
        "secretRefs": version.secret_refs,
        "workloads": workloads,
        "operationId": version.operation_id,
        "publishedAt": whole_seconds::text(version.published_at),
    })
}
