//! References to secrets, as an app holds them: one entry for each version of a secret, never its
//! value. An entry is never changed, so that what runs keeps what it was started with.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::ports::compute::{RevisionSpec, SecretEntry};

/// What the names of our entries begin with; others belong to somebody else and stay.
const OURS: &str = "cs-";
/// Characters of a secret's name that an entry's name shows.
const SHOWN_MAX: usize = 40;

/// The name of a version's entry: lower-case letters, digits and hyphens.
pub(super) fn name(entry: &SecretEntry) -> String {
    let digest = Sha256::digest(format!("{}\n{}", entry.key_vault_url, entry.identity_id));
    let digits: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    let secret = entry
        .key_vault_url
        .split("/secrets/")
        .nth(1)
        .and_then(|rest| rest.split('/').next())
        .unwrap_or_default();
    let shown: String = secret
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(SHOWN_MAX)
        .collect::<String>()
        .to_ascii_lowercase();
    match shown.trim_matches('-') {
        "" => format!("{OURS}{digits}"),
        shown => format!("{OURS}{shown}-{digits}"),
    }
}

pub(super) fn is_ours(name: Option<&Value>) -> bool {
    name.and_then(Value::as_str).is_some_and(|name| name.starts_with(OURS))
}

/// The entries that a revision refers to.
pub(super) fn entries(revision: &RevisionSpec) -> Vec<Value> {
    let mut entries: Vec<Value> = Vec::new();
    for secret in &revision.secrets {
        let name = name(secret);
        if !entries.iter().any(|entry| entry["name"] == name.as_str()) {
            entries.push(
                json!({ "name": name, "keyVaultUrl": secret.key_vault_url, "identity": secret.identity_id }),
            );
        }
    }
    entries
}

/// The whole list of an app's secrets with those of a revision; none where nothing is to be changed.
///
/// A patch replaces the list whole, so all that is there is in it: others' entries as they were read,
/// without values, which Azure keeps; ours as long as any revision that there is refers to them, for
/// that one may be activated again.
pub(super) fn with(app: &Value, revisions: &[Value], revision: &RevisionSpec) -> Option<Value> {
    let there = app
        .pointer("/properties/configuration/secrets")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let new: Vec<Value> = entries(revision)
        .into_iter()
        .filter(|entry| !there.iter().any(|known| known["name"] == entry["name"]))
        .collect();
    if new.is_empty() {
        return None;
    }
    let templates = revisions.iter().chain([app]);
    let in_use: Vec<&str> = templates.flat_map(references).collect();
    let wanted = entries(revision);
    let stays = |known: &Value| {
        let name = known["name"].as_str().unwrap_or_default();
        !name.starts_with(OURS) || in_use.contains(&name) || wanted.iter().any(|entry| entry["name"] == name)
    };
    let mut list: Vec<Value> = there.into_iter().filter(stays).collect();
    list.extend(new);
    Some(Value::Array(list))
}

/// The entries that a template refers to: in variables, in rules of scaling.
fn references(of: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    if let Some(template) = of.pointer("/properties/template") {
        collect(template, &mut found);
    }
    found
}

fn collect<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "secretRef" => found.push(text),
                    member => collect(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn entry(version: &str) -> SecretEntry {
        SecretEntry {
            variable: "DB_PASSWORD".into(),
            key_vault_url: format!("https://kv-1.vault.azure.net/secrets/Db-Password/{version}"),
            identity_id: "/id".into(),
        }
    }

    fn spec(secrets: Vec<SecretEntry>) -> RevisionSpec {
        RevisionSpec {
            suffix: "d1".into(),
            deployment_id: "dep-1".into(),
            image: "i:1".into(),
            port: 80,
            env: BTreeMap::new(),
            cpu: 0.5,
            memory: "1Gi".into(),
            min_replicas: 1,
            max_replicas: 1,
            configuration: None,
            secrets,
            corrective: false,
            scale_rules: Vec::new(),
        }
    }

    fn app(secrets: Value) -> Value {
        json!({ "properties": { "configuration": { "secrets": secrets }, "template": { "containers": [] } } })
    }

    #[test]
    fn every_version_has_an_entry_of_its_own() {
        assert_eq!(name(&entry("1")), name(&entry("1")));
        assert_ne!(name(&entry("1")), name(&entry("2")));
        assert!(name(&entry("1")).starts_with("cs-db-password-"));
    }

    #[test]
    fn an_entry_that_a_revision_refers_to_is_never_removed() {
        let (old, older, new) = (name(&entry("2")), name(&entry("1")), name(&entry("3")));
        let theirs = json!({ "name": "theirs" });
        let known = |name: &str| json!({ "name": name, "keyVaultUrl": "u", "identity": "/id" });
        let app = app(json!([theirs, known(&old), known(&older)]));
        let refers = json!({ "properties": { "template": { "containers": [{ "env": [{ "name": "DB_PASSWORD", "secretRef": old }] }] } } });
        let list = with(&app, &[refers], &spec(vec![entry("3")])).unwrap();
        let added = json!({ "name": new, "keyVaultUrl": entry("3").key_vault_url, "identity": "/id" });
        assert_eq!(list, json!([theirs, known(&old), added]));
    }

    #[test]
    fn what_is_there_is_not_sent_again() {
        assert_eq!(with(&app(json!([{ "name": name(&entry("1")) }])), &[], &spec(vec![entry("1")])), None);
        assert_eq!(with(&app(Value::Null), &[], &spec(vec![])), None);
    }
}
