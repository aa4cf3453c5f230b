//! `GET tenant-bindings`, `GET tenant-bindings/{id}`: an owner sees who is bound to its environments, a
//! bound tenant sees what it is bound to.

use serde_json::{Value, json};

use super::http::{self, HttpError};
use crate::{
    envelope::whole_seconds,
    invocation::{HttpAnswer, HttpRequest},
    platform::Platform,
    ports::store::Filter,
    services::tenant_runtime_isolation_service::RuntimeTenantBinding,
};

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    if let Some(id) = http::id(request) {
        let binding = platform.ledger.find::<RuntimeTenantBinding>(&tenant, "tenantBindingId", id).await?;
        return binding.as_ref().map(view).ok_or_else(|| {
            HttpError::not_found("TenantBindingNotFound", format!("There is no tenant binding `{id}`."))
        });
    }
    let equal = http::equal(request, &["environmentId", "boundTenantId"]);
    let filter = Filter { equal, newest_first: true, ..Filter::default() };
    let listing =
        platform.ledger.list::<RuntimeTenantBinding>(&tenant, &filter, &http::page(request)).await?;
    let items = listing.items.iter().map(|(_, binding)| view(binding)).collect();
    Ok(http::list(items, listing.next))
}

fn view(binding: &RuntimeTenantBinding) -> Value {
    json!({
        "tenantBindingId": binding.tenant_binding_id,
        "environmentId": binding.environment_id,
        "ownerTenantId": binding.owner_tenant_id,
        "boundTenantId": binding.bound_tenant_id,
        "isolationModel": binding.isolation_model,
        "quota": binding.quota,
        "boundAt": whole_seconds::text(binding.bound_at),
        "updatedAt": whole_seconds::text(binding.updated_at),
        "bound": binding.bound,
        "pending": binding.pending,
    })
}
