//! What a container's variables hold, and secrets by reference: a reference names a secret of a
//! vault, and the identity of the app that reads it there.

use std::fmt;

use rusqlite::Connection;
use serde_json::Value;
use uuid::Uuid;

use crate::local::azure::{
    address::{self, ResourceId},
    defaults,
    records::{self, Resource},
    refusals::ArmError,
    types,
};

/// The identity that an app has by itself, as references name it.
const SYSTEM: &str = "system";
/// The roles that read a secret's value: Key Vault Secrets User, Secrets Officer, Administrator.
const READING_ROLES: [&str; 3] = [
    "4633458b-17de-408a-b874-0445c86b69e6",
    "b86a8fe4-44ce-4948-aee5-eccb2c155cd7",
    "00482a5a-887f-4fb3-b363-3b7fe8e74483",
];
/// Role assignments of one scope that are looked at.
const ASSIGNMENTS_MAX: usize = 1000;

/// What a variable of a container holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::local::azure) enum EnvValue {
    Plain(String),
    Secret(SecretValue),
    /// A secret whose value is not read yet.
    Reference(Reference),
}

/// A secret's value. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::local::azure) struct SecretValue {
    pub value: String,
    /// The vault's version; none where the app itself holds the value.
    pub version: Option<String>,
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SecretValue").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Where a secret's value is, and who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::local::azure) struct Reference {
    /// The name that the app gives the secret.
    pub name: String,
    /// `https://{vault}/secrets/{name}`, with a version or without.
    pub url: String,
    /// `system`, or the id of an identity that is assigned to the app.
    pub identity: String,
}

impl Reference {
    fn of(secret: &Value) -> Option<Self> {
        let text = |name: &str| secret[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        Some(Self {
            name: text("name")?,
            url: text("keyVaultUrl")?,
            identity: text("identity").unwrap_or_else(|| SYSTEM.to_owned()),
        })
    }

    /// Azure's words for a secret that cannot be read, and the reason.
    pub(in crate::local::azure) fn unreadable(&self, why: &str) -> ArmError {
        let Self { name, identity, .. } = self;
        ArmError::bad_request(
            "InvalidParameterValueInContainerTemplate",
            format!(
                "The following field(s) are either invalid or missing. Field 'configuration.secrets' is invalid with \
                 details: 'Invalid value: \"{name}\": Unable to get value using Managed identity {identity} for secret \
                 {name}. Error: unable to fetch secret '{name}' using Managed identity '{identity}': {why}'."
            ),
        )
    }
}

/// What a variable that refers to `name` holds.
pub(super) fn value_of(secrets: Option<&Vec<Value>>, name: &str) -> Option<EnvValue> {
    let secret = secrets.into_iter().flatten().find(|secret| secret["name"].as_str() == Some(name))?;
    match Reference::of(secret) {
        Some(reference) => Some(EnvValue::Reference(reference)),
        None => {
            Some(EnvValue::Secret(SecretValue { value: secret["value"].as_str()?.to_owned(), version: None }))
        }
    }
}

/// The references of a body that is to be written which are not there already: those must be
/// readable before the write is taken.
pub(in crate::local::azure) fn unseen(given: &Value, there: Option<&Value>) -> Vec<Reference> {
    let references = |body: &Value| {
        let secrets = body["properties"]["configuration"]["secrets"].as_array();
        secrets.into_iter().flatten().filter_map(Reference::of).collect::<Vec<_>>()
    };
    let known = there.map(references).unwrap_or_default();
    references(given).into_iter().filter(|reference| !known.contains(reference)).collect()
}

/// The identities that an app has, in lower case.
pub(in crate::local::azure) fn identities(body: &Value) -> Vec<String> {
    let identity = &body["identity"];
    let assigned = identity["userAssignedIdentities"].as_object();
    let mut found = assigned.into_iter().flatten().map(|(id, _)| id.to_ascii_lowercase()).collect::<Vec<_>>();
    if identity["type"].as_str().is_some_and(|kind| kind.contains("SystemAssigned")) {
        found.push(SYSTEM.to_owned());
    }
    found
}

/// Whether the identity that a reference names may read the secrets of `vault`; the reason why not.
pub(in crate::local::azure) fn may_read(
    connection: &Connection,
    app: &ResourceId,
    identities: &[String],
    reference: &Reference,
    vault: &Resource,
) -> Result<Result<(), String>, ArmError> {
    let wanted = reference.identity.to_ascii_lowercase();
    if !identities.contains(&wanted) {
        return Ok(Err("the identity is not assigned to the container app".to_owned()));
    }
    let holder = if wanted == SYSTEM { Some(app.clone()) } else { address::resource(&reference.identity) };
    let Some(holder) = holder.filter(|id| matches!(id.spec.name, types::APP | types::IDENTITY)) else {
        return Ok(Err("the identity is no user-assigned identity".to_owned()));
    };
    if holder.spec.name == types::IDENTITY && records::load(connection, &holder.key())?.is_none() {
        return Ok(Err("the identity does not exist".to_owned()));
    }
    let principal = defaults::uuid_of(&holder, "principal");
    let allowed = match vault.body["properties"]["enableRbacAuthorization"].as_bool() {
        Some(true) => has_role(connection, vault, principal)?,
        _ => has_policy(&vault.body, principal),
    };
    if allowed {
        return Ok(Ok(()));
    }
    let name = &vault.id.name;
    Ok(Err(format!(
        "Forbidden: it may not read the secrets of the vault `{name}` (role Key Vault Secrets User)"
    )))
}

/// Whether a principal has a role that reads, at the vault or at what the vault is in.
fn has_role(connection: &Connection, vault: &Resource, principal: Uuid) -> Result<bool, ArmError> {
    let subscription = address::subscription_of(&vault.id.text);
    let principal = principal.to_string();
    for scope in [vault.id.text.as_str(), vault.id.parent.as_str(), subscription.as_str()] {
        let scope = format!("{scope}/providers/Microsoft.Authorization");
        let kind = Some(types::ROLE_ASSIGNMENT);
        let assignments = records::within(connection, &scope, kind, "", ASSIGNMENTS_MAX)?;
        let reads = |assignment: &Resource| {
            let text = |name: &str| assignment.body["properties"][name].as_str().unwrap_or_default();
            let role = text("roleDefinitionId").rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
            text("principalId").eq_ignore_ascii_case(&principal) && READING_ROLES.contains(&role.as_str())
        };
        if assignments.iter().any(reads) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether an access policy, the older way, lets a principal read.
fn has_policy(vault: &Value, principal: Uuid) -> bool {
    let policies = vault["properties"]["accessPolicies"].as_array();
    let principal = principal.to_string();
    policies.into_iter().flatten().any(|policy| {
        let is_theirs = policy["objectId"].as_str().is_some_and(|id| id.eq_ignore_ascii_case(&principal));
        let rights = policy["permissions"]["secrets"].as_array();
        let reads = |right: &Value| {
            right
                .as_str()
                .is_some_and(|right| right.eq_ignore_ascii_case("get") || right.eq_ignore_ascii_case("all"))
        };
        is_theirs && rights.into_iter().flatten().any(reads)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_new_is_looked_at() {
        let body = |secrets: Value| json!({ "properties": { "configuration": { "secrets": secrets } } });
        let one = json!({ "name": "a", "keyVaultUrl": "https://v/secrets/a/1", "identity": "/i" });
        let two = json!({ "name": "a", "keyVaultUrl": "https://v/secrets/a/2", "identity": "/i" });
        let inline = json!({ "name": "b", "value": "hush" });
        assert_eq!(unseen(&body(json!([one, inline])), Some(&body(json!([one])))), []);
        assert_eq!(unseen(&body(json!([one, inline])), None), [Reference::of(&one).unwrap()]);
        assert_eq!(unseen(&body(json!([two])), Some(&body(json!([one])))), [Reference::of(&two).unwrap()]);
    }

    #[test]
    fn a_value_is_never_shown() {
        let value = SecretValue { value: "hush".to_owned(), version: Some("1".to_owned()) };
        assert_eq!(format!("{value:?}"), r#"SecretValue { version: Some("1"), .. }"#);
    }
}
