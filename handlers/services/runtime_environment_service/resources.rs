//! Renders an environment to the Azure resources that it is made of.
//!
//! A pure function of the specification: the same environment always renders to the same ids, so that
//! provisioning twice makes one. Names are explicit, and unique by a part that is derived from the
//! tenant and the environment's id; what a person reads in them is decoration.
//!
//! Deliberately absent: workloads (the deployment service owns them), a container registry (images
//! come from wherever they are), secrets (they are bound later), resources of other targets than
//! Container Apps (no adapter deploys to them, so the command is refused before it comes here).
//! A tenant that is bound to a pool has a part of its own (`resources/part.rs`): an identity, a vault and
//! a workload profile. What is `shared` has nothing of the kind; the model is told in a tag.

mod part;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::part::{PARTS_MAX, TenantPart, part_target, part_vault};
use crate::{
    ids::{EnvironmentId, ProjectId, TenantId, derive},
    ports::{compute::ComputeTarget, infrastructure::Resource},
};

/// The API version that each type is written with.
pub mod api_version {
    pub const RESOURCE_GROUP: &str = "2024-03-01";
    pub const WORKSPACE: &str = "2023-09-01";
    pub const VIRTUAL_NETWORK: &str = "2024-05-01";
    pub const SUBNET: &str = "2024-05-01";
    pub const IDENTITY: &str = "2023-01-31";
    pub const VAULT: &str = "2024-11-01";
    pub const ROLE_ASSIGNMENT: &str = "2022-04-01";
    pub const CONTAINER_APPS_ENVIRONMENT: &str = "2026-01-01";
    pub const DIAGNOSTIC_SETTING: &str = "2021-05-01-preview";
}

/// Who made a resource, in the tag `cs-managed-by`.
pub const MANAGED_BY: &str = "runtime-platform";

/// Azure's own role `AcrPull`.
const ROLE_ACR_PULL: &str = "7f951dda-4ed3-4680-a7ca-43fe172d538d";
/// Azure's own role `Key Vault Secrets User`.
const ROLE_KEY_VAULT_SECRETS_USER: &str = "4633458b-17de-408a-b874-0445c86b69e6";

const NETWORK_ADDRESSES: &str = "10.0.0.0/16";
const SUBNET_ADDRESSES: &str = "10.0.0.0/23";
/// Log Analytics keeps this many days without extra cost.
const LOG_RETENTION_DAYS: u32 = 30;
/// The most that Key Vault allows, and what it takes when nothing is said.
pub const VAULT_RETENTION_DAYS: u32 = 90;

/// The longest part of a name that is there for a person to read, in characters.
const SLUG_LENGTH_MAX: usize = 24;

/// What an environment should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentSpec {
    pub tenant: TenantId,
    pub project: ProjectId,
    pub environment_id: EnvironmentId,
    pub name: String,
    pub stage: Stage,
    /// As Azure names it, e.g. `westeurope`.
    pub region: String,
    pub isolation_model: IsolationModel,
    pub compute_targets: Vec<TargetKind>,
    /// The tenants that have a part for themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<TenantPart>,
}

/// How near to the customers an environment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Dev,
    Test,
    Staging,
    Prod,
}

/// What tenants of an environment share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IsolationModel {
    /// Nothing: the environment has one tenant. The control plane calls it `dedicated`.
    #[serde(alias = "dedicated")]
    Silo,
    /// The surface, each in a part of its own.
    Pool,
    /// Everything but the data.
    Shared,
}

/// A surface that workloads run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    ContainerApps,
    AppService,
    Aks,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Test => "test",
            Self::Staging => "staging",
            Self::Prod => "prod",
        }
    }
}

impl IsolationModel {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Silo => "silo",
            Self::Pool => "pool",
            Self::Shared => "shared",
        }
    }
}

impl TargetKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ContainerApps => "container-apps",
            Self::AppService => "app-service",
            Self::Aks => "aks",
        }
    }
}

/// The resources of an environment, each after those that it depends on.
///
/// `azure_tenant_id` is the directory in Microsoft Entra that the vault trusts.
pub fn resources(spec: &EnvironmentSpec, subscription_id: &str, azure_tenant_id: &str) -> Vec<Resource> {
    let place = Place::new(spec, subscription_id);
    let mut list = vec![
        place.resource_group(),
        place.workspace(),
        place.virtual_network(),
        place.identity(),
        place.vault(azure_tenant_id),
        place.role("vault-secrets-user", "vault", &place.vault_id(), ROLE_KEY_VAULT_SECRETS_USER),
        place.role("registry-pull", "group", &place.group_id(), ROLE_ACR_PULL),
    ];
    if spec.compute_targets.contains(&TargetKind::ContainerApps) {
        list.extend([place.subnet(), place.container_apps(&spec.parts), place.container_apps_logs()]);
    }
    list.extend(spec.parts.iter().flat_map(|part| place.part(part, azure_tenant_id)));
    list
}

/// The name of the vault in a list of [`resources`]; empty where there is none.
pub fn vault_name(resources: &[Resource]) -> &str {
    let vault = resources.iter().find(|resource| resource.key == "vault");
    vault.and_then(|vault| vault.id.rsplit('/').next()).unwrap_or_default()
}

/// What provisioning leaves behind for workloads on `kind`.
pub fn compute_target(spec: &EnvironmentSpec, kind: TargetKind, subscription_id: &str) -> ComputeTarget {
    let place = Place::new(spec, subscription_id);
    ComputeTarget {
        target: kind.as_str().to_owned(),
        resource_group_id: place.group_id(),
        host_id: place.host_id(kind),
        identity_id: place.identity_id(),
        region: place.location.clone(),
        tags: place.tags.clone(),
        workload_profile: None,
    }
}

/// Where an environment is, and how its resources are called.
struct Place {
    subscription: String,
    group: String,
    /// Twelve hex digits that no other environment of any tenant has. Ids of environments are unique
    /// in their tenant only, and are shorter.
    suffix: String,
    /// Names of vaults are unique in all of Azure, the subscription included.
    vault: String,
    location: String,
    tags: BTreeMap<String, String>,
}

impl Place {
    fn new(spec: &EnvironmentSpec, subscription_id: &str) -> Self {
        let (tenant, environment) = (spec.tenant.as_str(), spec.environment_id.as_str());
        let suffix = derive(&["azure", tenant, environment]).simple().to_string()[..12].to_owned();
        let vault = derive(&["azure-vault", subscription_id, tenant, environment]).simple().to_string();
        Self {
            subscription: subscription_id.to_owned(),
            group: format!("rg-{}-{}-{suffix}", slug(tenant), slug(&spec.name)),
            vault: format!("kv-{}", &vault[..20]),
            suffix,
            location: spec.region.replace(' ', "").to_ascii_lowercase(),
            tags: BTreeMap::from([
                ("cs-environment-id".to_owned(), environment.to_owned()),
                ("cs-tenant-id".to_owned(), tenant.to_owned()),
                ("cs-isolation".to_owned(), spec.isolation_model.as_str().to_owned()),
                ("cs-managed-by".to_owned(), MANAGED_BY.to_owned()),
            ]),
        }
    }

    fn group_id(&self) -> String {
        format!("/subscriptions/{}/resourceGroups/{}", self.subscription, self.group)
    }

    fn id(&self, resource_type: &str, prefix: &str) -> String {
        format!("{}/providers/{resource_type}/{prefix}-{}", self.group_id(), self.suffix)
    }

    fn workspace_id(&self) -> String {
        self.id("Microsoft.OperationalInsights/workspaces", "log")
    }

    fn network_id(&self) -> String {
        self.id("Microsoft.Network/virtualNetworks", "vnet")
    }

    fn subnet_id(&self) -> String {
        format!("{}/subnets/container-apps", self.network_id())
    }

    fn identity_id(&self) -> String {
        self.id("Microsoft.ManagedIdentity/userAssignedIdentities", "id")
    }

    fn vault_id(&self) -> String {
        format!("{}/providers/Microsoft.KeyVault/vaults/{}", self.group_id(), self.vault)
    }

    fn host_id(&self, kind: TargetKind) -> String {
        match kind {
            TargetKind::ContainerApps => self.id("Microsoft.App/managedEnvironments", "cae"),
            TargetKind::AppService => self.id("Microsoft.Web/serverfarms", "plan"),
            TargetKind::Aks => self.id("Microsoft.ContainerService/managedClusters", "aks"),
        }
    }

    fn located(&self, properties: Value) -> Value {
        json!({ "location": self.location, "tags": self.tags, "properties": properties })
    }

    fn resource_group(&self) -> Resource {
        Resource {
            key: "group".into(),
            resource_type: "Microsoft.Resources/resourceGroups".into(),
            api_version: api_version::RESOURCE_GROUP.into(),
            id: self.group_id(),
            body: json!({ "location": self.location, "tags": self.tags }),
            depends_on: Vec::new(),
            immutable: texts(&["/location"]),
        }
    }

    fn workspace(&self) -> Resource {
        Resource {
            key: "workspace".into(),
            resource_type: "Microsoft.OperationalInsights/workspaces".into(),
            api_version: api_version::WORKSPACE.into(),
            id: self.workspace_id(),
            body: self
                .located(json!({ "sku": { "name": "PerGB2018" }, "retentionInDays": LOG_RETENTION_DAYS })),
            depends_on: texts(&["group"]),
            immutable: texts(&["/location"]),
        }
    }

    /// The subnet is a resource of its own. A PUT of the network that does not mention subnets leaves
    /// them alone.
    fn virtual_network(&self) -> Resource {
        Resource {
            key: "network".into(),
            resource_type: "Microsoft.Network/virtualNetworks".into(),
            api_version: api_version::VIRTUAL_NETWORK.into(),
            id: self.network_id(),
            body: self.located(json!({ "addressSpace": { "addressPrefixes": [NETWORK_ADDRESSES] } })),
            depends_on: texts(&["group"]),
            immutable: texts(&["/location"]),
        }
    }

    fn subnet(&self) -> Resource {
        Resource {
            key: "subnet".into(),
            resource_type: "Microsoft.Network/virtualNetworks/subnets".into(),
            api_version: api_version::SUBNET.into(),
            id: self.subnet_id(),
            body: json!({ "properties": {
                "addressPrefix": SUBNET_ADDRESSES,
                "delegations": [{
                    "name": "container-apps",
                    "properties": { "serviceName": "Microsoft.App/environments" },
                }],
            } }),
            depends_on: texts(&["network"]),
            immutable: texts(&["/properties/addressPrefix"]),
        }
    }

    fn identity(&self) -> Resource {
        Resource {
            key: "identity".into(),
            resource_type: "Microsoft.ManagedIdentity/userAssignedIdentities".into(),
            api_version: api_version::IDENTITY.into(),
            id: self.identity_id(),
            body: json!({ "location": self.location, "tags": self.tags }),
            depends_on: texts(&["group"]),
            immutable: texts(&["/location"]),
        }
    }

    fn vault(&self, azure_tenant_id: &str) -> Resource {
        Resource {
            key: "vault".into(),
            resource_type: "Microsoft.KeyVault/vaults".into(),
            api_version: api_version::VAULT.into(),
            id: self.vault_id(),
            body: self.located(json!({
                "tenantId": azure_tenant_id,
                "sku": { "family": "A", "name": "standard" },
                "enableRbacAuthorization": true,
                "enableSoftDelete": true,
                "softDeleteRetentionInDays": VAULT_RETENTION_DAYS,
                "enablePurgeProtection": true,
            })),
            depends_on: texts(&["group"]),
            immutable: texts(&["/location", "/properties/tenantId", "/properties/softDeleteRetentionInDays"]),
        }
    }

    /// Gives the environment's identity a role at `scope`, the id of the resource `at`. Its name comes
    /// from the identity's id, since the principal is known only once the identity is there.
    fn role(&self, key: &str, at: &str, scope: &str, role: &str) -> Resource {
        self.role_of(("identity", &self.identity_id()), key, at, scope, role)
    }

    /// The same for another identity: its key in the list, and its id.
    fn role_of(
        &self,
        (identity_key, identity): (&str, &str),
        key: &str,
        at: &str,
        scope: &str,
        role: &str,
    ) -> Resource {
        let name =
            derive(&["role-assignment", &scope.to_ascii_lowercase(), role, &identity.to_ascii_lowercase()]);
        Resource {
            key: key.into(),
            resource_type: "Microsoft.Authorization/roleAssignments".into(),
            api_version: api_version::ROLE_ASSIGNMENT.into(),
            id: format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}"),
            body: json!({ "properties": {
                "roleDefinitionId": format!(
                    "/subscriptions/{}/providers/Microsoft.Authorization/roleDefinitions/{role}",
                    self.subscription
                ),
                "principalId": format!("${{{identity_key}.properties.principalId}}"),
                "principalType": "ServicePrincipal",
            } }),
            depends_on: texts(&[at, identity_key]),
            immutable: texts(&["/properties/roleDefinitionId", "/properties/principalId"]),
        }
    }

    /// A delegated subnet goes with workload profiles, so there is one, and it costs nothing idle.
    /// Logs go through Azure Monitor: the other destination wants the workspace's shared key, and a
    /// key that nobody reads cannot leak.
    fn container_apps(&self, parts: &[TenantPart]) -> Resource {
        let shared = json!({ "name": "Consumption", "workloadProfileType": "Consumption" });
        let profiles: Vec<Value> = std::iter::once(shared).chain(parts.iter().map(part::profile)).collect();
        Resource {
            key: "container-apps".into(),
            resource_type: "Microsoft.App/managedEnvironments".into(),
            api_version: api_version::CONTAINER_APPS_ENVIRONMENT.into(),
            id: self.host_id(TargetKind::ContainerApps),
            body: self.located(json!({
                "vnetConfiguration": { "infrastructureSubnetId": self.subnet_id(), "internal": false },
                "appLogsConfiguration": { "destination": "azure-monitor" },
                "workloadProfiles": profiles,
            })),
            depends_on: texts(&["group", "subnet"]),
            immutable: texts(&[
                "/location",
                "/properties/vnetConfiguration/infrastructureSubnetId",
                "/properties/vnetConfiguration/internal",
            ]),
        }
    }

    fn container_apps_logs(&self) -> Resource {
        Resource {
            key: "container-apps-logs".into(),
            resource_type: "Microsoft.Insights/diagnosticSettings".into(),
            api_version: api_version::DIAGNOSTIC_SETTING.into(),
            id: format!(
                "{}/providers/Microsoft.Insights/diagnosticSettings/cs-logs",
                self.host_id(TargetKind::ContainerApps)
            ),
            body: json!({ "properties": {
                "workspaceId": self.workspace_id(),
                "logs": [
                    { "category": "ContainerAppConsoleLogs", "enabled": true },
                    { "category": "ContainerAppSystemLogs", "enabled": true },
                ],
                "metrics": [{ "category": "AllMetrics", "enabled": true }],
            } }),
            depends_on: texts(&["container-apps", "workspace"]),
            immutable: Vec::new(),
        }
    }
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

/// What is left of a text when it has to be part of a name in Azure: lower-case letters, digits and
/// single hyphens between them.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for character in text.chars().map(|character| character.to_ascii_lowercase()) {
        if slug.len() == SLUG_LENGTH_MAX {
            break;
        }
        if character.is_ascii_alphanumeric() {
            slug.push(character);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let kept = slug.trim_end_matches('-');
    if kept.is_empty() { "x".to_owned() } else { kept.to_owned() }
}

#[cfg(test)]
mod tests;
