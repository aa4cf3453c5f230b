//! `RotateSecret`: the bindings of a secret move to another version of it, and the old one goes.
//!
//! Every binding of the environment that reads the secret is moved, the named one first: they share
//! what is rotated. A version of a *generated* secret is made by the platform; that of an *external*
//! one was put into the vault by its issuer, and only the bindings move: a new value in the vault would
//! not change what the issuer accepts.
//!
//! `SecretRotated` tells of each binding that moved, and that of the named one is the command's
//! answer once every workload has confirmed. It ends in `RuntimeCommandCompleted` where everything is
//! at the version already, or in `RuntimeCommandFailed`. The course is in `rotation.rs`.
//!
//! Redelivery is safe at every await: the command's own function only records. One document stands for
//! all rotations of a secret, and the operation that it names is the only one that runs.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{
    rotation_state::{RotationStatus, SecretRotation, TARGETS_MAX, Target},
    sharing,
    state::{BindingStatus, SecretBinding, Source},
};
use crate::{
    delivery::{self, Command, Decision, Message, Refusal},
    events::{ReasonCode, RotationReason},
    ids::EnvironmentId,
    ledger::{Commit, Loaded},
    operations::{self, Kind, NewOperation},
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
    services::{
        deployment_service::deploy::environment_not_found,
        runtime_environment_service::{self, ProvisioningStatus},
    },
};

/// How long a rotation may take, besides what it waits for the refreshes of workloads.
const ALLOWED: SignedDuration = SignedDuration::from_hours(1);
/// The longest name of a version, in characters. Key Vault's own have 32.
const VERSION_MAX: usize = 127;

/// The payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotateSecret {
    pub environment_id: String,
    pub secret_binding_id: String,
    pub reason: RotationReason,
    /// Only for an external secret: the version to move to, where it is not the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where the version comes from; the binding's own source where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

#[async_trait::async_trait]
impl Command for RotateSecret {
    const NAME: &'static str = "RotateSecret";

    async fn environment(_: &Platform, message: &Message<Self>) -> Result<String, Fault> {
        Ok(delivery::partition_of(&message.envelope.payload.environment_id))
    }

    async fn decide(platform: &Platform, message: &Message<Self>) -> Result<Decision, Fault> {
        let payload = &message.envelope.payload;
        let environment_id = match validate(payload) {
            Ok(environment_id) => environment_id,
            Err(refusal) => return Ok(Decision::Refused(refusal)),
        };
        let ledger = &platform.ledger;
        let partition = Partition::environment(&message.envelope.tenant_id, environment_id.as_str());
        let view = runtime_environment_service::find(ledger, &partition, &environment_id).await?;
        let Some(view) = view else { return Ok(Decision::Refused(environment_not_found(&environment_id))) };
        if view.environment.status != ProvisioningStatus::Provisioned {
            return Ok(Decision::Refused(not_provisioned(&environment_id, view.environment.status)));
        }
        let binding = ledger.load::<SecretBinding>(&partition, &payload.secret_binding_id).await?;
        let (Some(binding), loaded) = binding.take() else {
            return Ok(Decision::Refused(binding_not_found(payload)));
        };
        let secret = binding.secret();
        let siblings = sharing(ledger, &partition, &secret).await?;
        let id = SecretRotation::id(&partition, &secret);
        let (rotation, rotation_loaded) = ledger.load::<SecretRotation>(&partition, &id).await?.take();
        match judge(payload, &binding, &siblings, rotation.as_ref()) {
            Verdict::Refused(refusal) => Ok(Decision::Refused(refusal)),
            Verdict::Nothing(detail) => {
                Ok(Decision::NoChange { commit: Commit::new(partition, message.now), detail })
            }
            Verdict::Rotate => {
                let scene = Scene { binding, loaded, siblings, rotation, rotation_loaded };
                record(message, partition, scene)
            }
        }
    }
}

fn invalid(field: &str, what: impl std::fmt::Display) -> Refusal {
    Refusal::new(ReasonCode::InvalidPayload, format!("payload.{field}: {what}."))
}

fn validate(payload: &RotateSecret) -> Result<EnvironmentId, Refusal> {
    let environment_id =
        EnvironmentId::of_ours(&payload.environment_id).map_err(|error| invalid("environmentId", error))?;
    if !payload.secret_binding_id.starts_with("sb-") {
        return Err(invalid(
            "secretBindingId",
            "it must be the id of a binding, which begins with `sb-`; `runtimectl get secret-bindings` lists them",
        ));
    }
    let is_good = |version: &str| {
        let letters = version.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !version.is_empty() && version.len() <= VERSION_MAX && letters
    };
    if payload.version.as_deref().is_some_and(|version| !is_good(version)) {
        return Err(invalid(
            "version",
            "it must be the vault's name of a version, letters and digits; never put the secret itself here",
        ));
    }
    Ok(environment_id)
}

fn not_provisioned(id: &EnvironmentId, status: ProvisioningStatus) -> Refusal {
    Refusal {
        code: ReasonCode::EnvironmentNotProvisioned,
        detail: format!(
            "`{id}` is {status:?}; secrets are rotated while it is Provisioned. See its operation for what holds it up."
        ),
        retryable: true,
    }
}

fn binding_not_found(payload: &RotateSecret) -> Refusal {
    Refusal::new(
        ReasonCode::InvalidPayload,
        format!(
            "payload.secretBindingId: there is no secret binding `{}` in `{}`. Send BindSecret first, or correct the id; `runtimectl get secret-bindings` lists those there are.",
            payload.secret_binding_id, payload.environment_id
        ),
    )
}

/// What is to be done.
#[derive(Debug, PartialEq)]
enum Verdict {
    Rotate,
    Nothing(String),
    Refused(Refusal),
}

/// Judges a rotation of `binding`; `siblings` are all bindings of its secret, it among them.
fn judge(
    payload: &RotateSecret,
    binding: &SecretBinding,
    siblings: &[SecretBinding],
    rotation: Option<&SecretRotation>,
) -> Verdict {
    let id = &binding.secret_binding_id;
    let refused = |code, detail| Verdict::Refused(Refusal::new(code, detail));
    let later = |detail| Verdict::Refused(Refusal { code: ReasonCode::Conflict, detail, retryable: true });
    if let Some(running) = rotation.filter(|rotation| rotation.is_running()) {
        if running.reason == payload.reason && running.asked_version == payload.version {
            return Verdict::Nothing(format!(
                "`{}` is being rotated by `{}` for the same reason already.",
                binding.secret_name, running.operation_id
            ));
        }
        return later(format!(
            "`{}` is being rotated by `{}` ({}). Wait for its end, or cancel that operation, and send the command again.",
            binding.secret_name, running.operation_id, running.reason
        ));
    }
    match binding.status {
        BindingStatus::Pending => {
            return later(format!(
                "`{id}` is being bound by `{}`; wait for its end and send the command again.",
                binding.operation_id
            ));
        }
        BindingStatus::Failed => {
            return refused(
                ReasonCode::Conflict,
                format!(
                    "`{id}` was never bound, so there is no version to move from: {} Send BindSecret instead.",
                    binding.reason.as_deref().unwrap_or("no reason was recorded.")
                ),
            );
        }
        BindingStatus::Active | BindingStatus::Rotating => {}
    }
    if let Some(refusal) = refused_source(payload, binding, siblings) {
        return Verdict::Refused(refusal);
    }
    if siblings.len() > TARGETS_MAX {
        return refused(
            ReasonCode::QuotaExceeded,
            format!(
                "`{}` is read by {} bindings, and one rotation moves {TARGETS_MAX} at most. Bind some of the workloads to another secret.",
                binding.secret_name,
                siblings.len()
            ),
        );
    }
    let Some(version) = &payload.version else { return Verdict::Rotate };
    if rotation.is_some_and(|rotation| rotation.is_being_disabled(version)) {
        return refused(
            ReasonCode::Conflict,
            format!("payload.version: `{version}` was replaced and is being disabled. Name another version."),
        );
    }
    if siblings.iter().all(|sibling| sibling.version.as_ref() == Some(version)) {
        return Verdict::Nothing(format!(
            "`{id}` is at version {version} of `{}` already.",
            binding.secret_name
        ));
    }
    Verdict::Rotate
}

/// Why a version cannot come from where it is asked to come from.
fn refused_source(
    payload: &RotateSecret,
    binding: &SecretBinding,
    siblings: &[SecretBinding],
) -> Option<Refusal> {
    let external = siblings.iter().find(|sibling| sibling.source == Source::External);
    let refused = |detail| Some(Refusal::new(ReasonCode::NotSupported, detail));
    match (payload.source.unwrap_or(binding.source), external) {
        (Source::Generated, Some(external)) => refused(format!(
            "`{}` is external (`{}` says so): a new value in the vault does not change what its issuer accepts. Have the issuer make one and put it into `{}`, then send RotateSecret with source `External`, or without one.",
            binding.secret_name, external.secret_binding_id, binding.vault_uri
        )),
        (Source::Generated, None) if payload.version.is_some() => refused(format!(
            "payload.version: versions of `{}` are made by the platform, and none can be named. Leave it out, or bind the secret as `External` first.",
            binding.secret_name
        )),
        (Source::External, _) if binding.source == Source::Generated => refused(format!(
            "payload.source: `{}` is bound as `Generated`. Leave it out, or send BindSecret with source `External` first.",
            binding.secret_name
        )),
        (Source::Generated | Source::External, _) => None,
    }
}

/// What a decision to rotate rests on.
struct Scene {
    binding: SecretBinding,
    loaded: Loaded<SecretBinding>,
    siblings: Vec<SecretBinding>,
    rotation: Option<SecretRotation>,
    rotation_loaded: Loaded<SecretRotation>,
}

/// Writes the decision: the rotation with everything that it is to move, and its operation.
fn record(message: &Message<RotateSecret>, partition: Partition, scene: Scene) -> Result<Decision, Fault> {
    let Scene { binding, loaded, siblings, rotation, rotation_loaded } = scene;
    let payload = &message.envelope.payload;
    let operation_id = message.cause(&partition.environment_id).operation(0);
    let (named, others): (Vec<_>, Vec<_>) =
        siblings.iter().partition(|sibling| sibling.secret_binding_id == binding.secret_binding_id);
    let target = |sibling: &&SecretBinding| Target {
        secret_binding_id: sibling.secret_binding_id.clone(),
        module_id: sibling.module_id.clone(),
        from: sibling.version.clone(),
        moved_at: None,
        event_id: None,
        asked_at: None,
        receipt: None,
    };
    let mut new = SecretRotation {
        rotation_id: rotation_loaded.id.clone(),
        environment_id: binding.environment_id.clone(),
        secret_name: binding.secret_name.clone(),
        vault_uri: binding.vault_uri.clone(),
        source: binding.source,
        secret_binding_id: binding.secret_binding_id.clone(),
        operation_id: operation_id.clone(),
        reason: payload.reason,
        asked_version: payload.version.clone(),
        status: RotationStatus::Making,
        version: None,
        expires_at: None,
        targets: named.iter().chain(&others).map(target).collect(),
        disabled: Vec::new(),
        retiring: rotation.map(|rotation| rotation.retiring).unwrap_or_default(),
        detail: None,
        began_at: message.now,
        ended_at: None,
    };
    if let Some(version) = &payload.version {
        new.keep(version);
    }
    let binding = SecretBinding {
        status: BindingStatus::Rotating,
        reason: None,
        operation_id: operation_id.clone(),
        ..binding
    };
    let mut commit = Commit::new(partition, message.now);
    operations::begin(
        &mut commit,
        NewOperation {
            id: operation_id.clone(),
            kind: Kind::RotateSecret,
            module_id: Some(binding.module_id.to_string()),
            subject: new.rotation_id.clone(),
            step: new.status.as_str(),
            lineage: binding.lineage(&message.lineage()),
            caused_by: message.envelope.event_id.to_string(),
            allowed: ALLOWED,
            starts: true,
        },
    )?;
    commit.put(&loaded, &binding)?;
    commit.put(&rotation_loaded, &new)?;
    Ok(Decision::Accepted { commit, operation_id: Some(operation_id) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn payload(change: impl FnOnce(&mut Value)) -> RotateSecret {
        let mut payload = json!({
            "environmentId": "env-7d1f0c42",
            "secretBindingId": "sb-00000001",
            "reason": "Manual",
        });
        change(&mut payload);
        serde_json::from_value(payload).unwrap()
    }

    fn binding(change: impl FnOnce(&mut Value)) -> SecretBinding {
        let mut binding = json!({
            "secretBindingId": "sb-00000001",
            "environmentId": "env-7d1f0c42",
            "serviceId": "svc-1",
            "moduleId": "module-reservations-api",
            "secretName": "db-password",
            "vaultUri": "https://kv-1.vault.azure.net",
            "source": "External",
            "version": "v1",
            "managedIdentityId": "/subscriptions/1",
            "status": "Active",
            "operationId": "op-1",
            "sequence": 1,
            "madeAt": "2026-03-02T10:15:00Z",
        });
        change(&mut binding);
        serde_json::from_value(binding).unwrap()
    }

    fn rotation(change: impl FnOnce(&mut Value)) -> SecretRotation {
        let mut rotation = json!({
            "rotationId": "rot-1",
            "environmentId": "env-7d1f0c42",
            "secretName": "db-password",
            "vaultUri": "https://kv-1.vault.azure.net",
            "source": "External",
            "secretBindingId": "sb-00000001",
            "operationId": "op-2",
            "reason": "Scheduled",
            "status": "Completed",
            "targets": [],
            "disabled": [],
            "retiring": [],
            "beganAt": "2026-03-02T10:15:00Z",
            "endedAt": "2026-03-02T10:16:00Z",
        });
        change(&mut rotation);
        serde_json::from_value(rotation).unwrap()
    }

    #[test]
    fn every_field_is_looked_at() {
        let table: [(fn(&mut Value), &str); 4] = [
            (
                |it| it["environmentId"] = json!("dep-1"),
                "payload.environmentId: `dep-1` should begin with `env-`.",
            ),
            (
                |it| it["secretBindingId"] = json!("db-password"),
                "payload.secretBindingId: it must be the id of a binding, which begins with `sb-`; `runtimectl get secret-bindings` lists them.",
            ),
            (
                |it| it["version"] = json!(""),
                "payload.version: it must be the vault's name of a version, letters and digits; never put the secret itself here.",
            ),
            (
                |it| it["version"] = json!("hunter_2!"),
                "payload.version: it must be the vault's name of a version, letters and digits; never put the secret itself here.",
            ),
        ];
        for (change, detail) in table {
            assert_eq!(validate(&payload(change)), Err(Refusal::new(ReasonCode::InvalidPayload, detail)));
        }
        assert!(validate(&payload(|_| {})).is_ok());
    }

    #[test]
    fn every_refusal_says_what_is_in_the_way_and_what_to_do() {
        type Change = fn(&mut Value);
        let none: Change = |_| {};
        let table: [(Change, Change, Option<Change>, ReasonCode, &str); 8] = [
            (
                none,
                none,
                Some(|it| it["endedAt"] = Value::Null),
                ReasonCode::Conflict,
                "`db-password` is being rotated by `op-2` (Scheduled). Wait for its end, or cancel that operation, and send the command again.",
            ),
            (
                none,
                |it| it["status"] = json!("Pending"),
                None,
                ReasonCode::Conflict,
                "`sb-00000001` is being bound by `op-1`; wait for its end and send the command again.",
            ),
            (
                none,
                |it| {
                    it["status"] = json!("Failed");
                    it["reason"] = json!("It is not there.");
                },
                None,
                ReasonCode::Conflict,
                "`sb-00000001` was never bound, so there is no version to move from: It is not there. Send BindSecret instead.",
            ),
            (
                |it| it["source"] = json!("Generated"),
                none,
                None,
                ReasonCode::NotSupported,
                "`db-password` is external (`sb-00000001` says so): a new value in the vault does not change what its issuer accepts. Have the issuer make one and put it into `https://kv-1.vault.azure.net`, then send RotateSecret with source `External`, or without one.",
            ),
            (
                |it| it["version"] = json!("v2"),
                |it| it["source"] = json!("Generated"),
                None,
                ReasonCode::NotSupported,
                "payload.version: versions of `db-password` are made by the platform, and none can be named. Leave it out, or bind the secret as `External` first.",
            ),
            (
                |it| it["source"] = json!("External"),
                |it| it["source"] = json!("Generated"),
                None,
                ReasonCode::NotSupported,
                "payload.source: `db-password` is bound as `Generated`. Leave it out, or send BindSecret with source `External` first.",
            ),
            (
                |it| it["version"] = json!("v0"),
                none,
                Some(|it| {
                    it["retiring"] = json!([{
                        "version": "v0",
                        "notBefore": "2026-03-02T10:15:00Z",
                        "compromised": false,
                        "disabling": true,
                    }]);
                }),
                ReasonCode::Conflict,
                "payload.version: `v0` was replaced and is being disabled. Name another version.",
            ),
            (
                |it| it["reason"] = json!("Compromised"),
                none,
                Some(|it| it["endedAt"] = Value::Null),
                ReasonCode::Conflict,
                "`db-password` is being rotated by `op-2` (Scheduled). Wait for its end, or cancel that operation, and send the command again.",
            ),
        ];
        for (asked, bound, before, code, detail) in table {
            let binding = binding(bound);
            let siblings = [binding.clone()];
            let verdict = judge(&payload(asked), &binding, &siblings, before.map(rotation).as_ref());
            let Verdict::Refused(refusal) = verdict else { panic!("{verdict:?}") };
            assert_eq!((refusal.code, refusal.detail.as_str()), (code, detail));
        }
    }

    #[test]
    fn a_rotation_moves_only_so_many_bindings() {
        let binding = binding(|_| {});
        let siblings = vec![binding.clone(); TARGETS_MAX + 1];
        let verdict = judge(&payload(|_| {}), &binding, &siblings, None);
        assert_eq!(
            verdict,
            Verdict::Refused(Refusal::new(
                ReasonCode::QuotaExceeded,
                "`db-password` is read by 61 bindings, and one rotation moves 60 at most. Bind some of the workloads to another secret."
            ))
        );
    }

    #[test]
    fn what_is_under_way_or_in_place_is_not_done_again() {
        let binding = binding(|_| {});
        let siblings = [binding.clone()];
        let scheduled = payload(|it| it["reason"] = json!("Scheduled"));
        let running = rotation(|it| it["endedAt"] = Value::Null);
        assert_eq!(
            judge(&scheduled, &binding, &siblings, Some(&running)),
            Verdict::Nothing("`db-password` is being rotated by `op-2` for the same reason already.".into())
        );
        let named = payload(|it| it["version"] = json!("v1"));
        assert_eq!(
            judge(&named, &binding, &siblings, None),
            Verdict::Nothing("`sb-00000001` is at version v1 of `db-password` already.".into())
        );
        assert_eq!(judge(&payload(|_| {}), &binding, &siblings, None), Verdict::Rotate);
    }

    #[test]
    fn one_external_binding_makes_the_secret_external() {
        let generated = binding(|it| it["source"] = json!("Generated"));
        let other = binding(|it| it["secretBindingId"] = json!("sb-00000002"));
        let siblings = [generated.clone(), other];
        assert!(matches!(
            judge(&payload(|_| {}), &generated, &siblings, None),
            Verdict::Refused(Refusal { code: ReasonCode::NotSupported, .. })
        ));
    }
}
