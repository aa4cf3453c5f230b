//! What the server adds: defaults that are stored with a write, and properties that are made up at
//! reading and cannot be written.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    address::{self, ResourceId},
    records::Resource,
    types,
};
use crate::ids;

/// What reading depends on beside the resource.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    /// e.g. `apps.localhost`
    pub ingress_domain: String,
    pub ingress_port: u16,
    /// e.g. `vault.localhost:8443`
    pub vault_domain: String,
}

/// A UUID that a resource always has, e.g. its `principalId`.
pub(super) fn uuid_of(id: &ResourceId, what: &str) -> Uuid {
    ids::derive(&["azure", what, &id.key()])
}

/// The tenant of Microsoft Entra that everything here belongs to.
pub(super) fn directory_tenant() -> Uuid {
    ids::derive(&["azure", "tenant"])
}

/// The members that are always the server's.
const TOP_LEVEL_READ_ONLY: [&str; 5] = ["id", "name", "type", "systemData", "etag"];

/// Takes out what only the server may write.
pub(super) fn strip(id: &ResourceId, body: &mut Map<String, Value>) {
    for name in TOP_LEVEL_READ_ONLY {
        body.shift_remove(name);
    }
    if let Some(identity) = body.get_mut("identity").and_then(Value::as_object_mut) {
        identity.shift_remove("principalId");
        identity.shift_remove("tenantId");
    }
    if let Some(properties) = body.get_mut("properties").and_then(Value::as_object_mut) {
        properties.shift_remove("provisioningState");
        for name in id.spec.read_only {
            properties.shift_remove(*name);
        }
    }
}

/// Adds what the server sets where the caller said nothing.
pub(super) fn fill(id: &ResourceId, body: &mut Map<String, Value>) {
    if !body.get("properties").is_some_and(Value::is_object) {
        body.insert("properties".to_owned(), json!({}));
    }
    let defaults = match id.spec.name {
        types::VAULT => json!({
            "tenantId": directory_tenant(),
            "sku": { "family": "A", "name": "standard" },
            "accessPolicies": [],
            "enabledForDeployment": false,
            "enableSoftDelete": true,
            "softDeleteRetentionInDays": 90,
            "enableRbacAuthorization": false,
            "publicNetworkAccess": "Enabled",
        }),
        types::WORKSPACE => json!({
            "sku": { "name": "PerGB2018" },
            "retentionInDays": 30,
            "publicNetworkAccessForIngestion": "Enabled",
            "publicNetworkAccessForQuery": "Enabled",
        }),
        types::NETWORK => json!({ "enableDdosProtection": false }),
        types::SUBNET => json!({
            "privateEndpointNetworkPolicies": "Disabled",
            "privateLinkServiceNetworkPolicies": "Enabled",
            "delegations": [],
        }),
        types::ROLE_ASSIGNMENT => json!({ "principalType": "ServicePrincipal", "condition": null }),
        types::REGISTRY => json!({ "adminUserEnabled": false, "publicNetworkAccess": "Enabled" }),
        types::ENVIRONMENT => json!({ "zoneRedundant": false, "publicNetworkAccess": "Enabled" }),
        _ => json!({}),
    };
    let properties = body["properties"].as_object_mut().expect("it was made an object above");
    for (name, value) in defaults.as_object().into_iter().flatten() {
        properties.entry(name.clone()).or_insert_with(|| value.clone());
    }
}

/// The domain of a Container Apps environment: a label of its own under the ingress's.
pub(super) fn environment_domain(id: &ResourceId, naming: &Naming) -> String {
    let uuid = uuid_of(id, "domain").simple().to_string();
    format!("e{}.{}", &uuid[..8], naming.ingress_domain)
}

/// The resource as a GET shows it. Container apps are finished by `container_apps`.
pub(super) fn render(resource: &Resource, naming: &Naming) -> Value {
    let id = &resource.id;
    let mut shown = Map::new();
    shown.insert("id".to_owned(), json!(id.text));
    shown.insert("name".to_owned(), json!(id.name));
    shown.insert("type".to_owned(), json!(id.spec.name));
    for (name, value) in resource.body.as_object().into_iter().flatten() {
        shown.insert(name.clone(), value.clone());
    }
    if let Some(identity) = shown.get_mut("identity").and_then(Value::as_object_mut) {
        show_identity(id, identity);
    }
    let mut properties = shown.shift_remove("properties").unwrap_or_default();
    if let Some(properties) = properties.as_object_mut() {
        let mut own = Map::new();
        own.insert("provisioningState".to_owned(), json!(resource.state));
        if matches!(id.spec.name, types::ROLE_ASSIGNMENT | types::DIAGNOSTIC_SETTING | types::IDENTITY) {
            own.clear();
        }
        own.extend(made_up(resource, naming));
        own.append(properties);
        hide(id, &mut own);
        *properties = own;
    }
    shown.insert("properties".to_owned(), properties);
    if id.spec.name == types::GROUP {
        return Value::Object(shown);
    }
    shown.insert(
        "systemData".to_owned(),
        json!({
            "createdBy": "local", "createdByType": "ManagedIdentity", "createdAt": resource.created.to_string(),
            "lastModifiedBy": "local", "lastModifiedByType": "ManagedIdentity",
            "lastModifiedAt": resource.modified.to_string(),
        }),
    );
    Value::Object(shown)
}

fn made_up(resource: &Resource, naming: &Naming) -> Map<String, Value> {
    let id = &resource.id;
    let made = match id.spec.name {
        types::IDENTITY => json!({
            "tenantId": directory_tenant(),
            "principalId": uuid_of(id, "principal"),
            "clientId": uuid_of(id, "client"),
        }),
        types::VAULT => json!({ "vaultUri": format!("https://{}.{}/", id.name, naming.vault_domain) }),
        types::WORKSPACE => json!({
            "customerId": uuid_of(id, "customer"),
            "createdDate": resource.created.to_string(),
            "modifiedDate": resource.modified.to_string(),
        }),
        types::NETWORK => json!({ "resourceGuid": uuid_of(id, "guid") }),
        types::ROLE_ASSIGNMENT => json!({
            "scope": id.parent,
            "createdOn": resource.created.to_string(),
            "updatedOn": resource.modified.to_string(),
            "createdBy": "local",
            "updatedBy": "local",
        }),
        types::REGISTRY => json!({
            "loginServer": format!("{}.azurecr.io", id.name.to_ascii_lowercase()),
            "creationDate": resource.created.to_string(),
        }),
        types::ENVIRONMENT => json!({
            "defaultDomain": environment_domain(id, naming),
            "staticIp": "127.0.0.1",
        }),
        _ => json!({}),
    };
    match made {
        Value::Object(made) => made,
        _ => Map::new(),
    }
}

/// Keys that go in and never come out.
fn hide(id: &ResourceId, properties: &mut Map<String, Value>) {
    if id.spec.name == types::ENVIRONMENT
        && let Some(logs) = properties
            .get_mut("appLogsConfiguration")
            .and_then(|logs| logs.get_mut("logAnalyticsConfiguration"))
            .and_then(Value::as_object_mut)
    {
        logs.shift_remove("sharedKey");
    }
}

fn show_identity(id: &ResourceId, identity: &mut Map<String, Value>) {
    let kind = identity.get("type").and_then(Value::as_str).unwrap_or_default();
    if kind.contains("SystemAssigned") {
        identity.insert("principalId".to_owned(), json!(uuid_of(id, "principal")));
        identity.insert("tenantId".to_owned(), json!(directory_tenant()));
    }
    let Some(users) = identity.get_mut("userAssignedIdentities").and_then(Value::as_object_mut) else {
        return;
    };
    for (user, shown) in users {
        if let Some(user) = address::resource(user) {
            *shown =
                json!({ "principalId": uuid_of(&user, "principal"), "clientId": uuid_of(&user, "client") });
        }
    }
}
