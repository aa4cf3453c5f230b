//! The part of a pool that one bound tenant has for itself.
//!
//! An identity that nobody else's workloads run as, a vault that only this identity reads, and a
//! workload profile: machines that run nobody else's workloads, none while nothing runs. The roles are
//! on the tenant's own vault alone, so the identity reads neither the environment's secrets nor another
//! tenant's. A part stays when its tenant is bound as `shared` again: its vault may hold secrets.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    EnvironmentSpec, Place, ROLE_ACR_PULL, ROLE_KEY_VAULT_SECRETS_USER, TargetKind, api_version,
    compute_target, texts,
};
use crate::{
    ids::{TenantId, derive},
    ports::{compute::ComputeTarget, infrastructure::Resource},
};

/// Tenants with a part of their own in one environment: each has a workload profile there, and its
/// machines take addresses of the environment's one subnet.
pub const PARTS_MAX: usize = 20;
/// The machines of a tenant's profile: 4 cores and 16 GiB each.
const PROFILE_TYPE: &str = "D4";
/// The most machines that a tenant's profile may grow to.
const PROFILE_MACHINES_MAX: u32 = 3;

/// A tenant's part of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantPart {
    pub tenant_id: TenantId,
    /// What names begin with: the binding's digits, which no other tenant of the environment has.
    pub prefix: String,
    /// Whether it was read to be in place once.
    pub stands: bool,
}

/// Where the workloads of the tenant of a part run.
pub fn part_target(
    spec: &EnvironmentSpec,
    prefix: &str,
    kind: TargetKind,
    subscription_id: &str,
) -> ComputeTarget {
    let place = Place::new(spec, subscription_id);
    ComputeTarget {
        identity_id: place.part_identity_id(prefix),
        workload_profile: (kind == TargetKind::ContainerApps).then(|| prefix.to_owned()),
        ..compute_target(spec, kind, subscription_id)
    }
}

/// The name of the vault of a part.
pub fn part_vault(spec: &EnvironmentSpec, prefix: &str, subscription_id: &str) -> String {
    Place::new(spec, subscription_id).part_vault(prefix)
}

/// The workload profile of a part, as an entry of the environment's list.
pub(super) fn profile(part: &TenantPart) -> Value {
    json!({
        "name": part.prefix,
        "workloadProfileType": PROFILE_TYPE,
        "minimumCount": 0,
        "maximumCount": PROFILE_MACHINES_MAX,
    })
}

impl Place {
    fn part_identity_id(&self, prefix: &str) -> String {
        self.id("Microsoft.ManagedIdentity/userAssignedIdentities", &format!("id-{prefix}"))
    }

    /// The resources of a part, each after those that it depends on; the profile is one of the
    /// Container Apps environment's.
    pub(super) fn part(&self, part: &TenantPart, azure_tenant_id: &str) -> Vec<Resource> {
        let key = |what: &str| format!("{}-{what}", part.prefix);
        let mut tags = self.tags.clone();
        tags.insert("cs-tenant-id".to_owned(), part.tenant_id.to_string());
        let identity_id = self.part_identity_id(&part.prefix);
        let vault_id = format!(
            "{}/providers/Microsoft.KeyVault/vaults/{}",
            self.group_id(),
            self.part_vault(&part.prefix)
        );
        let mut identity = Resource {
            key: key("identity"),
            resource_type: "Microsoft.ManagedIdentity/userAssignedIdentities".into(),
            api_version: api_version::IDENTITY.into(),
            id: identity_id.clone(),
            body: json!({ "location": self.location }),
            depends_on: texts(&["group"]),
            immutable: texts(&["/location"]),
        };
        let mut vault = Resource { key: key("vault"), id: vault_id.clone(), ..self.vault(azure_tenant_id) };
        for resource in [&mut identity, &mut vault] {
            resource.body["tags"] = json!(tags);
        }
        let who = (identity.key.clone(), identity_id);
        let role = |what: &str, at: &str, scope: &str, role: &str| {
            self.role_of((&who.0, &who.1), &key(what), at, scope, role)
        };
        let roles = [
            role("vault-secrets-user", &vault.key, &vault_id, ROLE_KEY_VAULT_SECRETS_USER),
            role("registry-pull", "group", &self.group_id(), ROLE_ACR_PULL),
        ];
        [identity, vault].into_iter().chain(roles).collect()
    }

    fn part_vault(&self, prefix: &str) -> String {
        let name = ["azure-vault", &self.vault, prefix];
        format!("kv-{}", &derive(&name).simple().to_string()[..20])
    }
}
