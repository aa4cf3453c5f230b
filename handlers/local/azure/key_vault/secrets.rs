//! The rules of secrets: versions, attributes, soft delete, recovery, purge. Each function runs within
//! one transaction.

use axum::http::StatusCode;
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    input::{Given, check_name},
    records::{self, Secret, Version},
    refusals::Refusal,
    sealing::Seal,
};

/// Seconds of a day.
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// A vault, as its resource describes it and its caller reached it.
#[derive(Clone, Debug)]
pub(super) struct Vault {
    /// In lower case.
    pub name: String,
    /// Host and port that the caller used.
    pub authority: String,
    /// For how many days a deleted secret can be recovered.
    pub retention_days: i64,
    /// Whether nobody may remove a deleted secret before that time.
    pub purge_protected: bool,
    /// Unix seconds.
    pub now: i64,
}

/// Makes a new version.
pub(super) fn set(
    connection: &Connection,
    seal: &Seal,
    vault: &Vault,
    name: &str,
    given: Given,
) -> Result<Value, Refusal> {
    check_name(name)?;
    let value = given.value.ok_or_else(|| Refusal::bad_parameter("The property `value` is missing."))?;
    records::purge_due(connection, vault.now)?;
    let secret = match records::load(connection, &vault.name, name, vault.now)? {
        Some(secret) if secret.deleted.is_some() => {
            let message = format!(
                "The secret {name} is deleted and can be recovered: recover or purge it before its name is used again."
            );
            let refusal = Refusal::new(StatusCode::CONFLICT, "Conflict", message);
            return Err(refusal.because("ObjectIsDeletedButRecoverable"));
        }
        Some(secret) => secret,
        None => Secret { key: name.to_ascii_lowercase(), name: name.to_owned(), deleted: None },
    };
    let newest = records::load_version(connection, &vault.name, &secret.key, None)?;
    let id = Uuid::new_v4().simple().to_string();
    let version = Version {
        ordinal: newest.map_or(1, |newest| newest.ordinal + 1),
        sealed: seal.seal(&vault.place(&secret.key, &id), &value)?,
        version: id,
        content_type: given.content_type,
        enabled: given.enabled.unwrap_or(true),
        not_before: given.not_before,
        expires: given.expires,
        created: vault.now,
        updated: vault.now,
        tags: given.tags.unwrap_or_default(),
    };
    records::save(connection, &vault.name, &secret)?;
    records::save_version(connection, &vault.name, &secret.key, &version)?;
    Ok(with_value(vault.described(&secret, &version, true), value))
}

/// A version with its value, or the newest. Times of validity do not keep anybody from reading.
pub(super) fn get(
    connection: &Connection,
    seal: &Seal,
    vault: &Vault,
    name: &str,
    version: Option<&str>,
) -> Result<Value, Refusal> {
    let (secret, version) = find(connection, vault, name, version)?;
    if !version.enabled {
        return Err(Refusal::disabled());
    }
    let value = seal.open_sealed(&vault.place(&secret.key, &version.version), &version.sealed)?;
    Ok(with_value(vault.described(&secret, &version, true), value))
}

/// The value of a version, or of the newest, and which version it is.
pub(super) fn reveal(
    connection: &Connection,
    seal: &Seal,
    vault: &Vault,
    name: &str,
    version: Option<&str>,
) -> Result<(String, String), Refusal> {
    let (secret, version) = find(connection, vault, name, version)?;
    if !version.enabled {
        return Err(Refusal::disabled());
    }
    let value = seal.open_sealed(&vault.place(&secret.key, &version.version), &version.sealed)?;
    Ok((value, version.version))
}

/// Changes what is given of a version, or of the newest.
pub(super) fn update(
    connection: &Connection,
    vault: &Vault,
    name: &str,
    version: Option<&str>,
    given: Given,
) -> Result<Value, Refusal> {
    let (secret, mut version) = find(connection, vault, name, version)?;
    version.content_type = given.content_type.or(version.content_type);
    version.enabled = given.enabled.unwrap_or(version.enabled);
    version.not_before = given.not_before.or(version.not_before);
    version.expires = given.expires.or(version.expires);
    version.tags = given.tags.unwrap_or(version.tags);
    version.updated = vault.now;
    records::save_version(connection, &vault.name, &secret.key, &version)?;
    Ok(vault.described(&secret, &version, true))
}

/// Deletes a secret; it can be recovered until its time is up.
pub(super) fn delete(connection: &Connection, vault: &Vault, name: &str) -> Result<Value, Refusal> {
    let (mut secret, newest) = find(connection, vault, name, None)?;
    secret.deleted = Some((vault.now, vault.now + vault.retention_days * DAY_SECONDS));
    records::save(connection, &vault.name, &secret)?;
    Ok(vault.described_deleted(&secret, &newest, true))
}

/// A deleted secret.
pub(super) fn get_deleted(connection: &Connection, vault: &Vault, name: &str) -> Result<Value, Refusal> {
    let (secret, newest) = find_deleted(connection, vault, name)?;
    Ok(vault.described_deleted(&secret, &newest, true))
}

/// Brings a deleted secret back with all its versions.
pub(super) fn recover(connection: &Connection, vault: &Vault, name: &str) -> Result<Value, Refusal> {
    let (mut secret, newest) = find_deleted(connection, vault, name)?;
    secret.deleted = None;
    records::save(connection, &vault.name, &secret)?;
    Ok(vault.described(&secret, &newest, true))
}

/// Removes a deleted secret for good.
pub(super) fn purge(connection: &Connection, vault: &Vault, name: &str) -> Result<(), Refusal> {
    let (secret, _) = find_deleted(connection, vault, name)?;
    if vault.purge_protected {
        let message = "The vault is protected from purging: the secret goes by itself when its time is up.";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "Forbidden", message).because("OperationNotAllowed"));
    }
    records::purge(connection, &vault.name, &secret.key)
}

/// A page: what it lists, and where the next one begins.
pub(super) type Page = (Vec<Value>, Option<String>);

/// The secrets, or the deleted ones, without values.
pub(super) fn list(
    connection: &Connection,
    vault: &Vault,
    deleted: bool,
    after: &str,
    size: usize,
) -> Result<Page, Refusal> {
    let mut secrets = records::list(connection, &vault.name, deleted, vault.now, after, size + 1)?;
    let more = secrets.len() > size;
    secrets.truncate(size);
    let next = secrets.last().filter(|_| more).map(|secret| secret.key.clone());
    let mut entries = Vec::with_capacity(secrets.len());
    for secret in &secrets {
        if let Some(newest) = records::load_version(connection, &vault.name, &secret.key, None)? {
            entries.push(match deleted {
                true => vault.described_deleted(secret, &newest, false),
                false => vault.described(secret, &newest, false),
            });
        }
    }
    Ok((entries, next))
}

/// The versions of a secret, without values; none of a secret that is not there.
pub(super) fn list_versions(
    connection: &Connection,
    vault: &Vault,
    name: &str,
    after: i64,
    size: usize,
) -> Result<Page, Refusal> {
    let secret = records::load(connection, &vault.name, name, vault.now)?;
    let Some(secret) = secret.filter(|secret| secret.deleted.is_none()) else {
        return Ok((Vec::new(), None));
    };
    let mut versions = records::versions(connection, &vault.name, &secret.key, after, size + 1)?;
    let more = versions.len() > size;
    versions.truncate(size);
    let next = versions.last().filter(|_| more).map(|version| version.ordinal.to_string());
    Ok((versions.iter().map(|version| vault.described(&secret, version, true)).collect(), next))
}

fn find(
    connection: &Connection,
    vault: &Vault,
    name: &str,
    version: Option<&str>,
) -> Result<(Secret, Version), Refusal> {
    check_name(name)?;
    let secret = records::load(connection, &vault.name, name, vault.now)?;
    let secret = secret.filter(|secret| secret.deleted.is_none());
    let secret = secret.ok_or_else(|| Refusal::no_secret(name))?;
    let found = records::load_version(connection, &vault.name, &secret.key, version)?;
    let version =
        found.ok_or_else(|| Refusal::no_secret(&format!("{name}/{}", version.unwrap_or_default())))?;
    Ok((secret, version))
}

fn find_deleted(connection: &Connection, vault: &Vault, name: &str) -> Result<(Secret, Version), Refusal> {
    check_name(name)?;
    let secret = records::load(connection, &vault.name, name, vault.now)?;
    let secret = secret.filter(|secret| secret.deleted.is_some());
    let secret = secret.ok_or_else(|| Refusal::not_deleted(name))?;
    let newest = records::load_version(connection, &vault.name, &secret.key, None)?;
    Ok((secret, newest.ok_or_else(|| Refusal::not_deleted(name))?))
}

impl Vault {
    /// A vault whose secrets are only read, by nobody who came through its own address.
    pub(super) fn named(name: &str, now: i64) -> Self {
        Self {
            name: name.to_owned(),
            authority: String::new(),
            retention_days: 0,
            purge_protected: true,
            now,
        }
    }

    /// What a value is sealed for.
    fn place(&self, key: &str, version: &str) -> String {
        format!("{}/{key}/{version}", self.name)
    }

    /// A version as callers see it, without its value; `exact` says whether its id names the version.
    fn described(&self, secret: &Secret, version: &Version, exact: bool) -> Value {
        let mut id = format!("https://{}/secrets/{}", self.authority, secret.name);
        if exact {
            id = format!("{id}/{}", version.version);
        }
        let mut described = Map::new();
        if let Some(content_type) = &version.content_type {
            described.insert("contentType".to_owned(), json!(content_type));
        }
        described.insert("id".to_owned(), json!(id));
        described.insert("attributes".to_owned(), self.attributes(version));
        if !version.tags.is_empty() {
            described.insert("tags".to_owned(), json!(version.tags));
        }
        Value::Object(described)
    }

    fn described_deleted(&self, secret: &Secret, newest: &Version, exact: bool) -> Value {
        let mut described = self.described(secret, newest, exact);
        if let Some((deleted, purge)) = secret.deleted {
            described["recoveryId"] =
                json!(format!("https://{}/deletedsecrets/{}", self.authority, secret.name));
            described["deletedDate"] = json!(deleted);
            described["scheduledPurgeDate"] = json!(purge);
        }
        described
    }

    fn attributes(&self, version: &Version) -> Value {
        let mut attributes = Map::new();
        attributes.insert("enabled".to_owned(), json!(version.enabled));
        for (name, time) in [("nbf", version.not_before), ("exp", version.expires)] {
            if let Some(time) = time {
                attributes.insert(name.to_owned(), json!(time));
            }
        }
        attributes.insert("created".to_owned(), json!(version.created));
        attributes.insert("updated".to_owned(), json!(version.updated));
        let level = if self.purge_protected { "Recoverable" } else { "Recoverable+Purgeable" };
        attributes.insert("recoveryLevel".to_owned(), json!(level));
        attributes.insert("recoverableDays".to_owned(), json!(self.retention_days));
        Value::Object(attributes)
    }
}

fn with_value(mut described: Value, value: String) -> Value {
    described["value"] = Value::String(value);
    described
}
