//! `GET secret-bindings`, `GET secret-bindings/{id}`: which workload reads which secret, in which
//! version. There is no value to show.

use serde_json::{Value, json};

use super::http::{self, HttpError};
use crate::{
    envelope::whole_seconds,
    invocation::{HttpAnswer, HttpRequest},
    platform::Platform,
    ports::store::Filter,
    services::secret_binding_service::SecretBinding,
};

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    if let Some(id) = http::id(request) {
        let binding = platform.ledger.find::<SecretBinding>(&tenant, "secretBindingId", id).await?;
        return binding.as_ref().map(view).ok_or_else(|| {
            HttpError::not_found("SecretBindingNotFound", format!("There is no secret binding `{id}`."))
        });
    }
    let equal = http::equal(request, &["environmentId", "moduleId"]);
    let filter = Filter { equal, newest_first: true, ..Filter::default() };
    let listing = platform.ledger.list::<SecretBinding>(&tenant, &filter, &http::page(request)).await?;
    let items = listing.items.iter().map(|(_, binding)| view(binding)).collect();
    Ok(http::list(items, listing.next))
}

fn view(binding: &SecretBinding) -> Value {
    json!({
        "secretBindingId": binding.secret_binding_id,
        "environmentId": binding.environment_id,
        "moduleId": binding.module_id,
        "serviceId": binding.service_id,
        "secretName": binding.secret_name,
        "vaultUri": binding.vault_uri,
        "source": binding.source,
        "status": binding.status,
        "reason": binding.reason,
        "version": binding.version,
        "previousVersion": binding.previous_version,
        "managedIdentityId": binding.managed_identity_id,
        "rotationIntervalDays": binding.rotation_interval_days,
        "boundAt": binding.bound_at.map(whole_seconds::text),
        "lastRotatedAt": binding.last_rotated_at.map(whole_seconds::text),
        "nextRotationDueAt": binding.next_rotation_due_at.map(whole_seconds::text),
        "expiresAt": binding.expires_at.map(whole_seconds::text),
        "operationId": binding.operation_id,
    })
}
