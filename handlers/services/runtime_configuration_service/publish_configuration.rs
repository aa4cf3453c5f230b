//! `PublishConfiguration`: another version of an environment's settings.
//!
//! Ends in `ConfigurationPublished`, in `RuntimeCommandCompleted` where the content is what is wanted
//! already, or in `RuntimeCommandFailed`. What follows, one `ConfigurationSynced` for each workload
//! and its refresh, is an operation; where a workload does not pass with the version, that ends in
//! `RuntimeCommandFailed` too.
//!
//! Redelivery is safe at every await: the command's own function only records. Two that are
//! published at once are decided one after the other, for both write the environment's configuration.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{
    looks_secret::looks_secret,
    state::{self, ConfigurationVersion, Progress, RuntimeConfiguration, VersionStatus},
};
use crate::{
    delivery::{self, Command, Decision, Message, Refusal},
    events::{ConfigurationPublished, Event, ReasonCode},
    ids::EnvironmentId,
    ledger::{Commit, Ledger, Loaded, NewEvent},
    operations::{self, Kind, NewOperation},
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
    services::{
        deployment_service::{self, deploy::environment_not_found},
        runtime_environment_service::ProvisioningStatus,
        secret_binding_service,
        tenant_runtime_isolation_service::Ground,
    },
};

/// How long bringing a version to all workloads may take.
const ALLOWED: SignedDuration = SignedDuration::from_hours(6);
/// Settings and secret references of one version together.
const SETTINGS_MAX: usize = 500;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// The longest value, in bytes.
const VALUE_BYTES_MAX: usize = 8 * 1024;
/// All names and values of one version together, in bytes; each deployment keeps a copy.
const CONTENT_BYTES_MAX: usize = 64 * 1024;

/// The payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishConfiguration {
    pub environment_id: String,
    /// Environment variables by name, all of them: what is left out is gone in the next version.
    pub settings: BTreeMap<String, String>,
    /// Environment variables that come from secrets: the name, and the id of the binding.
    #[serde(default)]
    pub secret_refs: BTreeMap<String, String>,
    /// The version that this one is made from; 0 for the first. Guards against a lost update.
    #[serde(default)]
    pub expected_version: Option<u64>,
}

#[async_trait::async_trait]
impl Command for PublishConfiguration {
    const NAME: &'static str = "PublishConfiguration";

    async fn environment(_: &Platform, message: &Message<Self>) -> Result<String, Fault> {
        Ok(delivery::partition_of(&message.envelope.payload.environment_id))
    }

    async fn decide(platform: &Platform, message: &Message<Self>) -> Result<Decision, Fault> {
        let payload = &message.envelope.payload;
        let environment_id = match validate(payload) {
            Ok(id) => id,
            Err(refusal) => return Ok(Decision::Refused(refusal)),
        };
        let partition = Partition::environment(&message.envelope.tenant_id, environment_id.as_str());
        let ledger = &platform.ledger;
        // A bound tenant's configuration is its own and for its own workloads: both are in its partition.
        let ground = Ground::find(ledger, &message.envelope.tenant_id, &environment_id).await?;
        match ground.map(|ground| ground.environment().status) {
            None => return Ok(Decision::Refused(environment_not_found(&environment_id))),
            Some(ProvisioningStatus::Provisioned) => {}
            Some(status) => return Ok(Decision::Refused(not_provisioned(&environment_id, status))),
        }
        for (name, binding) in &payload.secret_refs {
            if secret_binding_service::find(ledger, &partition, binding).await?.is_none() {
                return Ok(Decision::Refused(invalid(
                    &format!("secretRefs.{name}"),
                    format!(
                        "there is no secret binding `{binding}` in `{environment_id}`; send BindSecret first"
                    ),
                )));
            }
        }
        let id = state::configuration_id(&partition);
        let (head, loaded) = ledger.load::<RuntimeConfiguration>(&partition, &id).await?.take();
        let head = head.unwrap_or_else(|| first(id, environment_id.clone(), message.now));
        if let Some(refusal) = lost_update(payload.expected_version, head.version) {
            return Ok(Decision::Refused(refusal));
        }
        let hash = state::content_hash(&payload.settings, &payload.secret_refs);
        if head.wanted_hash.as_ref() == Some(&hash) {
            let detail = format!(
                "`{environment_id}` wants this content already ({} settings, {hash}); no version was made.",
                payload.settings.len() + payload.secret_refs.len()
            );
            return Ok(Decision::NoChange { commit: Commit::new(partition, message.now), detail });
        }
        publish(ledger, message, partition, head, &loaded, hash).await
    }
}

fn invalid(field: &str, what: impl std::fmt::Display) -> Refusal {
    Refusal::new(ReasonCode::InvalidPayload, format!("payload.{field}: {what}."))
}

fn not_provisioned(id: &EnvironmentId, status: ProvisioningStatus) -> Refusal {
    Refusal {
        code: ReasonCode::EnvironmentNotProvisioned,
        detail: format!(
            "`{id}` is {status:?}; a configuration is taken once it is Provisioned. Wait for RuntimeEnvironmentProvisioned, or see its operation for what holds it up."
        ),
        retryable: true,
    }
}

fn validate(payload: &PublishConfiguration) -> Result<EnvironmentId, Refusal> {
    let id =
        EnvironmentId::of_ours(&payload.environment_id).map_err(|error| invalid("environmentId", error))?;
    let count = payload.settings.len() + payload.secret_refs.len();
    if count > SETTINGS_MAX {
        return Err(invalid(
            "settings",
            format!("{count} were given; {SETTINGS_MAX} are allowed, secretRefs included"),
        ));
    }
    for name in payload.settings.keys() {
        check_name("settings", name)?;
    }
    for name in payload.secret_refs.keys() {
        check_name("secretRefs", name)?;
        if payload.settings.contains_key(name) {
            return Err(invalid(
                &format!("secretRefs.{name}"),
                "the name is among the settings too; keep it in one of them",
            ));
        }
    }
    let mut bytes = 0;
    for (name, value) in &payload.settings {
        bytes += name.len() + value.len();
        let field = format!("settings.{name}");
        if value.len() > VALUE_BYTES_MAX {
            return Err(invalid(
                &field,
                format!("its value has {} bytes; {VALUE_BYTES_MAX} are allowed", value.len()),
            ));
        }
        if value.contains('\0') {
            return Err(invalid(
                &field,
                "its value holds a NUL character, which no environment variable can",
            ));
        }
        if let Some(why) = looks_secret(name, value) {
            return Err(invalid(
                &field,
                format!(
                    "{why}, and a configuration holds no secrets. Put the value into Key Vault, send BindSecret, and name the binding in secretRefs; or rename the setting if it is none"
                ),
            ));
        }
    }
    if bytes > CONTENT_BYTES_MAX {
        return Err(invalid(
            "settings",
            format!("they have {bytes} bytes together; {CONTENT_BYTES_MAX} are allowed"),
        ));
    }
    Ok(id)
}

fn check_name(list: &str, name: &str) -> Result<(), Refusal> {
    let good = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit());
    if !good {
        let shown: String = name.chars().take(64).collect();
        return Err(invalid(
            list,
            format!(
                "`{shown}` is no name of an environment variable: at most {NAME_BYTES_MAX} letters, digits and `_`, no digit first"
            ),
        ));
    }
    if name.starts_with("CS_") {
        return Err(invalid(list, format!("`{name}` cannot be set; names with `CS_` are the platform's")));
    }
    Ok(())
}

fn first(
    configuration_id: String,
    environment_id: EnvironmentId,
    now: jiff::Timestamp,
) -> RuntimeConfiguration {
    RuntimeConfiguration {
        configuration_id,
        environment_id,
        version: 0,
        wanted_hash: None,
        established: None,
        established_hash: None,
        sequence: 0,
        made_at: now,
    }
}

/// Somebody published since the sender looked.
fn lost_update(expected: Option<u64>, version: u64) -> Option<Refusal> {
    let expected = expected.filter(|expected| *expected != version)?;
    let detail = format!(
        "payload.expectedVersion: {expected} was expected, and the newest version is {version}. Read it with `runtimectl get configurations`, carry your change over, and publish with expectedVersion {version}."
    );
    Some(Refusal::new(ReasonCode::Conflict, detail))
}

/// Records the new version, its event, and the operation that brings it to the workloads.
async fn publish(
    ledger: &Ledger,
    message: &Message<PublishConfiguration>,
    partition: Partition,
    head: RuntimeConfiguration,
    loaded: &Loaded<RuntimeConfiguration>,
    hash: String,
) -> Result<Decision, Fault> {
    let payload = &message.envelope.payload;
    let cause = message.cause(&partition.environment_id);
    let (published, operation_id) = (cause.event("ConfigurationPublished", 0), cause.operation(0));
    let mut workloads = Vec::new();
    for workload in deployment_service::workloads(ledger, &partition).await? {
        workloads.push(Progress::waiting(&head.environment_id, &partition, workload.module_id)?);
    }
    let head = RuntimeConfiguration {
        version: head.version + 1,
        wanted_hash: Some(hash.clone()),
        sequence: head.sequence + 1,
        ..head
    };
    let event_id = message.envelope.event_id.to_string();
    let mut commit = Commit::new(partition, message.now);
    commit.event(
        &message.lineage(),
        NewEvent {
            id: published.clone(),
            event: Event::ConfigurationPublished(ConfigurationPublished {
                configuration_id: head.configuration_id.clone(),
                environment_id: head.environment_id.clone(),
                version: head.version,
                content_hash: hash.clone(),
                service_ids: workloads.iter().map(|progress| progress.service_id.clone()).collect(),
            }),
            aggregate: head.configuration_id.clone(),
            sequence: head.sequence,
            caused_by: event_id.clone(),
        },
    )?;
    let version_id = ConfigurationVersion::id(&head.configuration_id, head.version);
    operations::begin(
        &mut commit,
        NewOperation {
            id: operation_id.clone(),
            kind: Kind::Configure,
            module_id: None,
            subject: version_id.clone(),
            step: "Published",
            lineage: message.lineage(),
            caused_by: event_id,
            allowed: ALLOWED,
            starts: true,
        },
    )?;
    let version = ConfigurationVersion {
        configuration_id: head.configuration_id.clone(),
        environment_id: head.environment_id.clone(),
        version: head.version,
        settings: payload.settings.clone(),
        secret_refs: payload.secret_refs.clone(),
        content_hash: hash,
        status: VersionStatus::Published,
        reason: None,
        workloads,
        operation_id: operation_id.clone(),
        published_event_id: published,
        published_at: message.now,
    };
    commit.put(&Ledger::absent(&version_id), &version)?;
    commit.put(loaded, &head)?;
    Ok(Decision::Accepted { commit, operation_id: Some(operation_id) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn payload(change: impl FnOnce(&mut Value)) -> PublishConfiguration {
        let mut payload = json!({
            "environmentId": "env-7d1f0c42",
            "settings": { "LOG_LEVEL": "debug" },
            "secretRefs": { "DB": "sb-6e13fd08" },
        });
        change(&mut payload);
        serde_json::from_value(payload).unwrap()
    }

    #[test]
    fn a_good_payload_is_taken() {
        assert_eq!(validate(&payload(|_| {})).unwrap().as_str(), "env-7d1f0c42");
    }

    #[test]
    fn every_refusal_names_its_field() {
        type Change = fn(&mut Value);
        let table: [(Change, &str); 8] = [
            (
                |it| it["environmentId"] = json!("dep-1"),
                "payload.environmentId: `dep-1` should begin with `env-`.",
            ),
            (
                |it| it["settings"]["1ST"] = json!("x"),
                "payload.settings: `1ST` is no name of an environment variable: at most 256 letters, digits and `_`, no digit first.",
            ),
            (
                |it| it["settings"]["CS_X"] = json!("x"),
                "payload.settings: `CS_X` cannot be set; names with `CS_` are the platform's.",
            ),
            (
                |it| it["settings"]["DB"] = json!("x"),
                "payload.secretRefs.DB: the name is among the settings too; keep it in one of them.",
            ),
            (
                |it| it["settings"]["LONG"] = json!("x".repeat(8193)),
                "payload.settings.LONG: its value has 8193 bytes; 8192 are allowed.",
            ),
            (
                |it| it["settings"]["NUL"] = json!("a\0b"),
                "payload.settings.NUL: its value holds a NUL character, which no environment variable can.",
            ),
            (
                |it| it["settings"]["DB_PASSWORD"] = json!("hunter2"),
                "payload.settings.DB_PASSWORD: its name says that it is one, and a configuration holds no secrets. Put the value into Key Vault, send BindSecret, and name the binding in secretRefs; or rename the setting if it is none.",
            ),
            (
                |it| (0..9).for_each(|n| it["settings"][format!("V{n}")] = json!("a ".repeat(4096))),
                "payload.settings: they have 73760 bytes together; 65536 are allowed.",
            ),
        ];
        for (change, detail) in table {
            let refusal = validate(&payload(change)).unwrap_err();
            assert_eq!(refusal, Refusal::new(ReasonCode::InvalidPayload, detail));
        }
    }

    #[test]
    fn what_looks_like_a_secret_is_never_repeated() {
        let refusal = validate(&payload(|it| it["settings"]["DB_PASSWORD"] = json!("hunter2"))).unwrap_err();
        assert!(!refusal.detail.contains("hunter2"));
    }

    #[test]
    fn a_version_is_made_from_the_one_that_its_sender_saw() {
        assert_eq!(lost_update(None, 7), None);
        assert_eq!(lost_update(Some(7), 7), None);
        assert_eq!(lost_update(Some(6), 7).map(|refusal| refusal.code), Some(ReasonCode::Conflict));
    }
}
