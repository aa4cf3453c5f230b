//! `BindSecret`: a workload reads a secret from Key Vault, in a version that is named.
//!
//! Ends in `SecretBound`, in `RuntimeCommandCompleted` where it is bound so already, or in
//! `RuntimeCommandFailed`. A workload that serves is refreshed, so that it starts with the secret.
//!
//! Redelivery is safe at every await: the command's own function only records. The operation looks
//! at the vault before it decides, and generating twice is generating once.
//!
//! The secret is in the environment's own vault: provisioning gave the workloads' identity the role
//! that reads there. That the role is still assigned is looked at before anything is bound. A tenant that
//! is bound to a pool has a vault of its own, which its own identity alone reads; one that is bound as
//! `shared` uses the environment's, and only names that begin with its prefix. A binding that has a version
//! keeps it: `RotateSecret` moves it. Deliberately absent: other vaults, whose roles are not ours to know.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    BINDINGS_MAX, SecretRotation, roles,
    state::{BindingStatus, SecretBinding, Source},
};
use crate::{
    delivery::{self, Command, Decision, Message, Refusal},
    events::{CommandOutcome, Event, ReasonCode, RuntimeCommandFailed, SecretBound},
    ids::{EnvironmentId, ModuleId, ServiceId},
    ledger::{Commit, Loaded},
    operations::{self, GiveUp, Kind, NewOperation, Operation, Step, Then},
    outcome::Fault,
    platform::Platform,
    ports::{
        store::Partition,
        vault::{SecretRef, SecretVersion},
    },
    services::{
        deployment_service::{
            deploy::environment_not_found,
            refresh::{self, Wish},
            state::Origin,
        },
        runtime_environment_service::{
            ProvisioningStatus,
            resources::{self, IsolationModel},
        },
        tenant_runtime_isolation_service::Ground,
    },
};

/// How long binding may take in all: a role that was just assigned may need half an hour to count.
const ALLOWED: SignedDuration = SignedDuration::from_mins(45);
/// How long the vault's no is taken for a role that does not count yet.
pub(super) const ROLE_SETTLES: SignedDuration = SignedDuration::from_mins(30);
/// Between two looks at a vault that says no.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// The longest name of a secret, in characters; Key Vault's limit.
const SECRET_NAME_MAX: usize = 127;
/// The longest time between two rotations, in days.
const INTERVAL_DAYS_MAX: u32 = 3650;
/// Where vaults are: Azure's clouds, and this machine.
const VAULT_DOMAINS: &[&str] =
    &["vault.azure.net", "vault.azure.cn", "vault.usgovcloudapi.net", "vault.localhost"];

/// The payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BindSecret {
    pub environment_id: String,
    pub module_id: ModuleId,
    pub secret_name: String,
    /// e.g. `https://kv-1.vault.azure.net`: the environment's own vault.
    pub vault_uri: String,
    pub source: Source,
    #[serde(default)]
    pub rotation_interval_days: Option<u32>,
}

#[async_trait::async_trait]
impl Command for BindSecret {
    const NAME: &'static str = "BindSecret";

    async fn environment(_: &Platform, message: &Message<Self>) -> Result<String, Fault> {
        Ok(delivery::partition_of(&message.envelope.payload.environment_id))
    }

    async fn decide(platform: &Platform, message: &Message<Self>) -> Result<Decision, Fault> {
        let wanted = match validate(&message.envelope.payload) {
            Ok(wanted) => wanted,
            Err(refusal) => return Ok(Decision::Refused(refusal)),
        };
        let partition = Partition::environment(&message.envelope.tenant_id, wanted.environment_id.as_str());
        let tenant = &message.envelope.tenant_id;
        let Some(ground) = Ground::find(&platform.ledger, tenant, &wanted.environment_id).await? else {
            return Ok(Decision::Refused(environment_not_found(&wanted.environment_id)));
        };
        let identity = match accepts(platform, &ground, &wanted) {
            Ok(identity) => identity,
            Err(refusal) => return Ok(Decision::Refused(refusal)),
        };
        let id = SecretBinding::id(&partition, &message.envelope.payload.module_id, &wanted.secret);
        let (binding, loaded) = platform.ledger.load::<SecretBinding>(&partition, &id).await?.take();
        if binding.is_none() {
            let bound = super::bindings(&platform.ledger, &partition, &message.envelope.payload.module_id)
                .await?
                .len();
            if bound >= BINDINGS_MAX {
                let detail = format!(
                    "`{}` is bound to {bound} secrets, and {BINDINGS_MAX} are allowed.",
                    message.envelope.payload.module_id
                );
                return Ok(Decision::Refused(Refusal::new(ReasonCode::QuotaExceeded, detail)));
            }
        }
        record(message, &wanted, partition, id, identity, binding, &loaded)
    }
}

/// A payload that was looked through.
struct Wanted {
    environment_id: EnvironmentId,
    secret: SecretRef,
    vault: Url,
}

fn invalid(field: &str, what: impl std::fmt::Display) -> Refusal {
    Refusal::new(ReasonCode::InvalidPayload, format!("payload.{field}: {what}."))
}

fn validate(payload: &BindSecret) -> Result<Wanted, Refusal> {
    let environment_id =
        EnvironmentId::of_ours(&payload.environment_id).map_err(|error| invalid("environmentId", error))?;
    let name = &payload.secret_name;
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.is_empty() || name.len() > SECRET_NAME_MAX || !name.bytes().all(is_good) {
        return Err(invalid(
            "secretName",
            format!(
                "it must be 1 to {SECRET_NAME_MAX} letters, digits and `-`, as Key Vault names secrets; never put the secret itself here"
            ),
        ));
    }
    if payload.rotation_interval_days.is_some_and(|days| days == 0 || days > INTERVAL_DAYS_MAX) {
        return Err(invalid("rotationIntervalDays", format!("it must be 1 to {INTERVAL_DAYS_MAX} days")));
    }
    let form = "it must be the address of a vault alone, e.g. `https://kv-1.vault.azure.net`";
    let vault = Url::parse(&payload.vault_uri).map_err(|_| invalid("vaultUri", form))?;
    let alone = vault.scheme() == "https"
        && vault.path() == "/"
        && vault.query().is_none()
        && vault.fragment().is_none()
        && vault.username().is_empty()
        && vault.password().is_none();
    if !alone || parts(&vault).is_none() {
        return Err(invalid("vaultUri", form));
    }
    let secret = SecretRef { vault_uri: vault.as_str().trim_end_matches('/').to_owned(), name: name.clone() };
    Ok(Wanted { environment_id, secret, vault })
}

/// The name of a vault, where the address is one of a vault.
fn parts(vault: &Url) -> Option<&str> {
    let (name, domain) = vault.host_str()?.split_once('.')?;
    VAULT_DOMAINS.contains(&domain).then_some(name)
}

/// Whether the environment takes the binding; the identity that its workloads run as.
fn accepts(platform: &Platform, ground: &Ground, wanted: &Wanted) -> Result<String, Refusal> {
    let environment = ground.environment();
    let status = &environment.status;
    let id = &wanted.environment_id;
    if *status != ProvisioningStatus::Provisioned {
        return Err(Refusal {
            code: ReasonCode::EnvironmentNotProvisioned,
            detail: format!(
                "`{id}` is {status:?}; secrets are bound once it is Provisioned. Wait for RuntimeEnvironmentProvisioned, or see its operation for what holds it up."
            ),
            retryable: true,
        });
    }
    let own = own_vault(platform, ground);
    if parts(&wanted.vault) != Some(own.as_str()) {
        let detail = format!(
            "payload.vaultUri: `{}` is not the vault of `{id}`, which is `{own}`; workloads may read there alone. Put the secret into that vault.",
            wanted.secret.vault_uri
        );
        return Err(Refusal::new(ReasonCode::NotSupported, detail));
    }
    if let Some(prefix) = shared_prefix(ground).filter(|prefix| !wanted.secret.name.starts_with(prefix)) {
        let detail = format!(
            "payload.secretName: `{id}` is shared, and so is its vault; a bound tenant's secrets there have names that begin with `{prefix}`. Name it `{prefix}{}`, or have the owner bind you to a pool.",
            wanted.secret.name
        );
        return Err(Refusal::new(ReasonCode::NotSupported, detail));
    }
    match ground.targets().first() {
        Some(target) => Ok(target.identity_id.clone()),
        None => Err(Refusal::new(
            ReasonCode::NotSupported,
            format!("`{id}` has no compute target, and so no identity that reads secrets."),
        )),
    }
}

/// What the names of a tenant's secrets begin with in a vault that it shares with others.
fn shared_prefix(ground: &Ground) -> Option<String> {
    let shares = ground.binding().is_some_and(|binding| binding.isolation_model != IsolationModel::Pool);
    ground.prefix().filter(|_| shares).map(|prefix| format!("{prefix}-"))
}

/// The name of the vault that the tenant's workloads read: the environment's, or that of its own part.
fn own_vault(platform: &Platform, ground: &Ground) -> String {
    let spec = ground.environment().spec();
    let alone = ground.prefix().filter(|_| shared_prefix(ground).is_none());
    if let Some(prefix) = alone {
        return resources::part_vault(&spec, &prefix, &platform.subscription_id);
    }
    let rendered = resources::resources(&spec, &platform.subscription_id, &platform.directory_id);
    let vault = rendered.iter().find(|resource| resource.key == "vault");
    vault.and_then(|vault| vault.id.rsplit('/').next()).unwrap_or_default().to_ascii_lowercase()
}

/// Writes the decision: the binding as it is asked for, and the operation that makes it so.
fn record(
    message: &Message<BindSecret>,
    wanted: &Wanted,
    partition: Partition,
    id: String,
    identity: String,
    binding: Option<SecretBinding>,
    loaded: &Loaded<SecretBinding>,
) -> Result<Decision, Fault> {
    let payload = &message.envelope.payload;
    let asked = |binding: &SecretBinding| {
        binding.source == payload.source && binding.rotation_interval_days == payload.rotation_interval_days
    };
    match &binding {
        Some(binding) if binding.status == BindingStatus::Pending => {
            return Ok(Decision::Refused(Refusal {
                code: ReasonCode::Conflict,
                detail: format!(
                    "`{id}` is being bound by `{}`; wait for its end and send the command again.",
                    binding.operation_id
                ),
                retryable: true,
            }));
        }
        Some(binding) if binding.status == BindingStatus::Rotating => {
            return Ok(Decision::Refused(Refusal {
                code: ReasonCode::Conflict,
                detail: format!(
                    "`{id}` is being rotated by `{}`; wait for its end and send the command again.",
                    binding.operation_id
                ),
                retryable: true,
            }));
        }
        Some(binding) if binding.status == BindingStatus::Active && asked(binding) => {
            let version = binding.version.as_deref().unwrap_or_default();
            let detail = format!(
                "`{}` is bound to `{}` as `{id}` already, in version {version}.",
                payload.module_id, payload.secret_name
            );
            return Ok(Decision::NoChange { commit: Commit::new(partition, message.now), detail });
        }
        Some(_) | None => {}
    }
    let cause = message.cause(&partition.environment_id);
    let operation_id = cause.operation(0);
    let before = binding.as_ref();
    let binding = SecretBinding {
        secret_binding_id: id.clone(),
        environment_id: wanted.environment_id.clone(),
        service_id: ServiceId::derived(
            &message.envelope.tenant_id,
            &wanted.environment_id,
            &payload.module_id,
        ),
        module_id: payload.module_id.clone(),
        secret_name: before.map_or_else(|| wanted.secret.name.clone(), |it| it.secret_name.clone()),
        vault_uri: wanted.secret.vault_uri.clone(),
        source: payload.source,
        version: before.and_then(|it| it.version.clone()),
        previous_version: before.and_then(|it| it.previous_version.clone()),
        managed_identity_id: identity,
        rotation_interval_days: payload.rotation_interval_days,
        expires_at: before.and_then(|it| it.expires_at),
        bound_at: before.and_then(|it| it.bound_at),
        last_rotated_at: before.and_then(|it| it.last_rotated_at),
        next_rotation_due_at: before.and_then(|it| it.next_rotation_due_at),
        status: BindingStatus::Pending,
        reason: None,
        operation_id: operation_id.clone(),
        sequence: before.map_or(0, |it| it.sequence),
        made_at: before.map_or(message.now, |it| it.made_at),
    };
    let mut commit = Commit::new(partition, message.now);
    operations::begin(
        &mut commit,
        NewOperation {
            id: operation_id.clone(),
            kind: Kind::BindSecret,
            module_id: Some(payload.module_id.to_string()),
            subject: id,
            step: "Checking",
            lineage: binding.lineage(&message.lineage()),
            caused_by: message.envelope.event_id.to_string(),
            allowed: ALLOWED,
            starts: true,
        },
    )?;
    commit.put(loaded, &binding)?;
    Ok(Decision::Accepted { commit, operation_id: Some(operation_id) })
}

/// Everything that a step rests on.
struct Site {
    binding: SecretBinding,
    loaded: Loaded<SecretBinding>,
    commit: Commit,
}

async fn site(platform: &Platform, operation: &Operation) -> Result<Site, Fault> {
    let partition = Partition::environment(&operation.lineage.tenant_id, &operation.environment_id);
    let (binding, loaded) =
        platform.ledger.load::<SecretBinding>(&partition, &operation.subject).await?.take();
    let binding = binding.ok_or_else(|| Fault::Unreadable {
        doing: format!("reading `{}`", operation.subject),
        source: "a document that another one names is missing".into(),
    })?;
    Ok(Site { binding, loaded, commit: Commit::new(partition, platform.clock.now()) })
}

/// Looks at the vault, and binds what is there.
///
/// # Errors
/// What the store or the vault withheld.
pub async fn step(platform: &Platform, operation: &Operation) -> Result<Step, Fault> {
    let site = site(platform, operation).await?;
    let secret = site.binding.secret();
    if !roles::may_read(platform, &site.commit.partition, &site.binding.environment_id).await? {
        return without_role(operation, site);
    }
    match version_of(platform, &site.commit.partition, &site.binding).await {
        Ok(Some(version)) => bound(platform, operation, site, version).await,
        Ok(None) => {
            let detail = format!(
                "There is no enabled secret `{}` with a value in `{}`. Put it there and send BindSecret again, or send source `Generated`.",
                secret.name, secret.vault_uri
            );
            failed(operation, site, ReasonCode::Conflict, detail)
        }
        // Somebody was just given the role, and Azure does not know everywhere yet.
        Err(Fault::Rejected { code, .. })
            if is_forbidden(&code) && site.commit.now < operation.started_at + ROLE_SETTLES =>
        {
            Ok(looks_again(site, format!("`{}` may not be read yet; looks again", secret.vault_uri)))
        }
        Err(fault) => Err(fault),
    }
}

fn looks_again(site: Site, note: String) -> Step {
    Step {
        commit: site.commit,
        label: "Checking",
        notes: vec![note],
        then: Then::Wait(LOOK_AGAIN),
        outcome: None,
    }
}

/// The role is not assigned: somebody may be at it, so that is a no only after a while.
fn without_role(operation: &Operation, site: Site) -> Result<Step, Fault> {
    let (identity, vault) = (&site.binding.managed_identity_id, &site.binding.vault_uri);
    if site.commit.now < operation.started_at + ROLE_SETTLES {
        let note = format!("`{identity}` has no role that reads secrets in `{vault}` yet; looks again");
        return Ok(looks_again(site, note));
    }
    let detail = format!(
        "`{identity}` has no role that reads secrets in `{vault}`. Assign it `Key Vault Secrets User` there, or send ProvisionEnvironment, which does, and send BindSecret again."
    );
    failed(operation, site, ReasonCode::Conflict, detail)
}

/// The code in the vault's own words, or the status alone where it said nothing.
pub(super) fn is_forbidden(code: &str) -> bool {
    code == "Forbidden" || code == "Http403"
}

/// The version to bind: the one that is bound, while it is good; else the newest that is not on its way
/// out; one of our making where there is none and we may.
async fn version_of(
    platform: &Platform,
    partition: &Partition,
    binding: &SecretBinding,
) -> Result<Option<SecretVersion>, Fault> {
    let secret = binding.secret();
    let id = SecretRotation::id(partition, &secret);
    let rotation = platform.ledger.load::<SecretRotation>(partition, &id).await?.state;
    let leaves = |version: &SecretVersion| {
        let mut retiring = rotation.iter().flat_map(|rotation| &rotation.retiring);
        retiring.any(|entry| entry.version == version.version)
    };
    let versions: Vec<_> =
        platform.vault.versions(&secret).await?.into_iter().filter(|version| version.enabled).collect();
    let bound = versions.iter().find(|version| binding.version.as_ref() == Some(&version.version));
    let version = match (bound.or_else(|| versions.iter().find(|version| !leaves(version))), binding.source) {
        (Some(version), _) => version.clone(),
        (None, Source::Generated) => platform.vault.generate(&secret, &binding.secret_binding_id).await?,
        (None, Source::External) => return Ok(None),
    };
    Ok(platform.vault.verify(&secret, &version.version).await?.then_some(version))
}

async fn bound(
    platform: &Platform,
    operation: &Operation,
    mut site: Site,
    version: SecretVersion,
) -> Result<Step, Fault> {
    let now = site.commit.now;
    let binding = &mut site.binding;
    let is_new = binding.version.as_ref() != Some(&version.version);
    if is_new {
        binding.previous_version = binding.version.replace(version.version.clone());
        binding.last_rotated_at = Some(version.created_at.unwrap_or(now));
    }
    binding.expires_at = version.expires_at;
    binding.bound_at = Some(now);
    binding.next_rotation_due_at = binding.due_after(binding.last_rotated_at.unwrap_or(now));
    binding.status = BindingStatus::Active;
    let id = operation.cause().event("SecretBound", 0);
    let event = Event::SecretBound(SecretBound {
        secret_binding_id: binding.secret_binding_id.clone(),
        environment_id: binding.environment_id.clone(),
        service_id: binding.service_id.clone(),
        secret_name: binding.secret_name.clone(),
        version: version.version.clone(),
    });
    let new = binding.next_event(id.clone(), event, &operation.caused_by);
    site.commit.event(&operation.lineage, new)?;
    site.commit.put(&site.loaded, &site.binding)?;
    let detail = format!(
        "`{}` reads version {} of `{}`",
        site.binding.module_id, version.version, site.binding.secret_name
    );
    if is_new {
        let lineage = operation.lineage.clone();
        let wish = Wish { origin: Origin::Secret, lineage, caused_by: id.to_string(), wished_at: now };
        refresh::refresh(&platform.ledger, &mut site.commit, &site.binding.module_id, wish).await?;
    }
    Ok(Step {
        commit: site.commit,
        label: "Bound",
        notes: vec![detail.clone()],
        then: Then::Succeeded(detail),
        outcome: Some(id),
    })
}

fn failed(operation: &Operation, mut site: Site, code: ReasonCode, detail: String) -> Result<Step, Fault> {
    let id = operation.cause().event("RuntimeCommandFailed", 0);
    // What was bound before stays bound.
    site.binding.status =
        if site.binding.version.is_some() { BindingStatus::Active } else { BindingStatus::Failed };
    site.binding.reason = Some(detail.clone());
    let event = Event::RuntimeCommandFailed(RuntimeCommandFailed {
        command_id: operation.lineage.command_id.clone(),
        command_type: operation.lineage.command_type.clone(),
        outcome: CommandOutcome::Failed,
        reason_code: code,
        detail: detail.clone(),
        retryable: true,
    });
    let new = site.binding.next_event(id.clone(), event, &operation.caused_by);
    site.commit.event(&operation.lineage, new)?;
    site.commit.put(&site.loaded, &site.binding)?;
    Ok(Step {
        commit: site.commit,
        label: "Failed",
        notes: vec![detail.clone()],
        then: Then::Failed(detail),
        outcome: Some(id),
    })
}

/// # Errors
/// When the store is away.
pub async fn give_up(platform: &Platform, operation: &Operation, why: &GiveUp) -> Result<Step, Fault> {
    let site = site(platform, operation).await?;
    let code = match why {
        GiveUp::Deadline => ReasonCode::TimedOut,
        GiveUp::Rejected { .. } | GiveUp::Attempts { .. } => ReasonCode::Conflict,
    };
    let detail = format!(
        "`{}` could not be bound: {}. See that the platform may read and write secrets in `{}`, and send BindSecret again.",
        site.binding.secret_name,
        why.sentence(),
        site.binding.vault_uri
    );
    failed(operation, site, code, detail)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn payload(change: impl FnOnce(&mut Value)) -> BindSecret {
        let mut payload = json!({
            "environmentId": "env-7d1f0c42",
            "moduleId": "module-reservations-api",
            "secretName": "db-password",
            "vaultUri": "https://kv-1.vault.azure.net/",
            "source": "Generated",
            "rotationIntervalDays": 90,
        });
        change(&mut payload);
        serde_json::from_value(payload).unwrap()
    }

    #[test]
    fn a_vault_is_named_without_a_slash() {
        let wanted = validate(&payload(|_| {})).map(|wanted| wanted.secret).unwrap();
        assert_eq!(
            wanted,
            SecretRef { vault_uri: "https://kv-1.vault.azure.net".into(), name: "db-password".into() }
        );
    }

    #[test]
    fn every_refusal_names_its_field() {
        type Change = fn(&mut Value);
        let vault =
            "payload.vaultUri: it must be the address of a vault alone, e.g. `https://kv-1.vault.azure.net`.";
        let name = "payload.secretName: it must be 1 to 127 letters, digits and `-`, as Key Vault names secrets; never put the secret itself here.";
        let table: [(Change, &str); 9] = [
            (
                |it| it["environmentId"] = json!("dep-1"),
                "payload.environmentId: `dep-1` should begin with `env-`.",
            ),
            (|it| it["secretName"] = json!(""), name),
            (|it| it["secretName"] = json!("hunter_2!"), name),
            (
                |it| it["rotationIntervalDays"] = json!(0),
                "payload.rotationIntervalDays: it must be 1 to 3650 days.",
            ),
            (|it| it["vaultUri"] = json!("kv-1"), vault),
            (|it| it["vaultUri"] = json!("http://kv-1.vault.azure.net"), vault),
            (|it| it["vaultUri"] = json!("https://kv-1.vault.azure.net/secrets/x"), vault),
            (|it| it["vaultUri"] = json!("https://kv-1.example.org"), vault),
            (|it| it["vaultUri"] = json!("https://kv-1.vault.azure.net@example.org"), vault),
        ];
        for (change, detail) in table {
            let refusal = validate(&payload(change)).map(|wanted| wanted.secret).unwrap_err();
            assert_eq!(refusal, Refusal::new(ReasonCode::InvalidPayload, detail));
        }
    }
}
