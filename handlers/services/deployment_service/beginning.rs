//! What a deployment finds out before anything is rolled out: which image it is, whether that may run
//! here, whom it supersedes, and what it is started with.
//!
//! A Deploy that is turned away here has ended nobody else's rollout: quarantine and superseding are
//! judged once it is known which image it brings.

use super::{
    deploy::missing,
    ending::Site,
    quarantine::{self, KeptOut, Quarantined},
    state::{Cancel, DeploymentStatus, Origin, RuntimeDeployment, Slot},
};
use crate::{
    delivery::{self, Refusal},
    events::{ReasonCode, RolledBackReason},
    ids::{DeploymentId, EventId},
    ledger::{Commit, Ledger, Loaded, NewEvent},
    operations::{self, Operation},
    outcome::Fault,
    platform::Platform,
    ports::{
        compute::SecretEntry,
        registry::{ImageReference, ImageVersion},
        store::Partition,
        vault::SecretRef,
    },
    services::{runtime_configuration_service, runtime_scaling_service, secret_binding_service},
};

/// The registry's word for an image that is not there.
const NOT_FOUND: &str = "ImageNotFound";
/// The number of the first event that ends a deployment which waited: those before are of the
/// operation's own deployment.
const FIRST_REPLACED: u32 = 2;
/// Digits of a digest that are told.
const DIGEST_CHARACTERS_TOLD: usize = 19;

/// Why a deployment ends before it began.
pub(super) struct TurnedAway {
    pub code: ReasonCode,
    pub detail: String,
}

/// Fixes which image it is. A tag is asked for once: what refreshes or repairs a workload rolls out the
/// image that serves, wherever the tag has gone since.
///
/// # Errors
/// When the registry is away. The inner error says why there will be no answer.
pub(super) async fn resolve(platform: &Platform, site: &mut Site) -> Result<Result<(), TurnedAway>, Fault> {
    let deployment = &mut site.deployment;
    if deployment.image_digest.is_some() || deployment.origin != Origin::Deploy {
        return Ok(Ok(()));
    }
    let image = deployment.workload.image.clone();
    let reference = match ImageReference::parse(&image) {
        Ok(reference) => reference,
        Err(problem) => {
            let detail = format!("payload.workloads[0].image: {problem}");
            return Ok(Err(TurnedAway { code: ReasonCode::InvalidPayload, detail }));
        }
    };
    let digest = match &reference.version {
        ImageVersion::Digest(digest) => digest.clone(),
        ImageVersion::Tag(_) => match platform.registry.resolve(&reference).await {
            Ok(digest) => digest,
            Err(Fault::Rejected { code, detail, .. }) => {
                let reason =
                    if code == NOT_FOUND { ReasonCode::ImageNotFound } else { ReasonCode::ImageUnavailable };
                let detail = format!("payload.workloads[0].image: {detail}. Nothing was rolled out.");
                return Ok(Err(TurnedAway { code: reason, detail }));
            }
            Err(fault) => return Err(fault),
        },
    };
    let told: String = digest.chars().take(DIGEST_CHARACTERS_TOLD).collect();
    deployment.image_digest = Some(digest);
    site.note(format!("{image} is {told}"));
    Ok(Ok(()))
}

/// Whether the image may run here.
pub(super) fn judged(slot: Option<&Slot>, deployment: &RuntimeDeployment) -> Result<(), TurnedAway> {
    match slot.and_then(|slot| slot.image_kept_out(deployment)) {
        Some(entry) => Err(quarantined(entry, deployment)),
        None => Ok(()),
    }
}

fn quarantined(entry: &Quarantined, deployment: &RuntimeDeployment) -> TurnedAway {
    TurnedAway { code: ReasonCode::Quarantined, detail: entry.sentence(&deployment.workload.image) }
}

/// A deployment that waits for its turn.
pub(super) struct Waiting {
    pub deployment: RuntimeDeployment,
    loaded: Loaded<RuntimeDeployment>,
    operation: Operation,
    operation_loaded: Loaded<Operation>,
}

impl Waiting {
    pub async fn load(ledger: &Ledger, partition: &Partition, id: &DeploymentId) -> Result<Self, Fault> {
        let (deployment, loaded) = ledger.load::<RuntimeDeployment>(partition, id.as_str()).await?.take();
        let deployment = deployment.ok_or_else(|| missing(id.as_str()))?;
        let operation_id = deployment.operation_id.as_str();
        let (operation, operation_loaded) = ledger.load::<Operation>(partition, operation_id).await?.take();
        let operation = operation.ok_or_else(|| missing(operation_id))?;
        Ok(Self { deployment, loaded, operation, operation_loaded })
    }

    /// Ends it in favour of a newer one. `event_id` is that of the event that says so.
    pub fn replace(
        self,
        commit: &mut Commit,
        by: &DeploymentId,
        event_id: EventId,
        caused_by: &str,
    ) -> Result<(), Fault> {
        let Self { deployment, loaded, operation, operation_loaded } = self;
        let detail = format!(
            "`{}` waited for its turn and was replaced by the newer `{by}`; nothing of it was rolled out.",
            deployment.deployment_id
        );
        let refusal = Refusal::new(ReasonCode::Superseded, detail.clone());
        let lineage = &deployment.lineage;
        let sequence = deployment.sequence + 1;
        commit.event(
            lineage,
            NewEvent {
                id: event_id.clone(),
                event: delivery::refused(&lineage.command_id, &lineage.command_type, &refusal),
                aggregate: deployment.deployment_id.to_string(),
                sequence,
                caused_by: caused_by.to_owned(),
            },
        )?;
        operations::dismiss(commit, &operation_loaded, operation, &detail, event_id)?;
        let ended = RuntimeDeployment {
            status: DeploymentStatus::Failed,
            reason: Some(detail),
            sequence,
            ended_at: Some(commit.now),
            ..deployment
        };
        commit.put(&loaded, &ended)
    }
}

/// Takes the place of the one pending deployment: those that are older and wait end, and so does the one
/// in flight, where no traffic was meant for it yet. Whoever arrived later goes on finding out.
///
/// # Errors
/// When the store is away.
pub(super) async fn take_place(ledger: &Ledger, operation: &Operation, site: &mut Site) -> Result<(), Fault> {
    let partition = site.commit.partition.clone();
    let id = site.deployment.deployment_id.clone();
    let (slot, loaded) = ledger.load::<Slot>(&partition, &Slot::id(&site.deployment.module_id)).await?.take();
    let Some(mut slot) = slot else { return Ok(()) };
    if let Some(place) = slot.arriving.iter().position(|arriving| *arriving == id) {
        let older = slot.arriving.drain(..=place).filter(|older| *older != id);
        let older: Vec<_> = slot.pending.replace(id.clone()).into_iter().chain(older).collect();
        let cause = operation.cause();
        for (number, older) in (FIRST_REPLACED..).zip(&older) {
            let event_id = cause.event("RuntimeCommandFailed", number);
            let by = site.deployment.lineage.command_id.clone();
            Waiting::load(ledger, &partition, older).await?.replace(&mut site.commit, &id, event_id, &by)?;
            site.notes.push(format!("replaces `{older}`, which waited"));
        }
        site.commit.put(&loaded, &slot)?;
    }
    supersede(ledger, site, &slot).await
}

async fn supersede(ledger: &Ledger, site: &mut Site, slot: &Slot) -> Result<(), Fault> {
    let Some(older) = &slot.in_flight else { return Ok(()) };
    let partition = &site.commit.partition;
    let (older, loaded) = ledger.load::<RuntimeDeployment>(partition, older.as_str()).await?.take();
    let Some(older) = older.filter(|older| older.can_be_superseded() && older.cancel.is_none()) else {
        return Ok(());
    };
    let operation = ledger.load::<Operation>(partition, older.operation_id.as_str()).await?.state;
    let operation = operation.ok_or_else(|| missing(older.operation_id.as_str()))?;
    let by = site.deployment.lineage.command_id.clone();
    operations::nudge(&mut site.commit, &operation, &by)?;
    site.note(format!("supersedes `{}`, which had no traffic yet", older.deployment_id));
    let cancel = Cancel { reason: RolledBackReason::Superseded, by, rollback: None, at: site.commit.now };
    site.commit.put(&loaded, &RuntimeDeployment { cancel: Some(cancel), ..older })
}

/// Fixes what the revision is started with: what is wanted, or, where that is kept out here and is not
/// what this deployment is for, what the workload serves with.
///
/// # Errors
/// When the store is away.
pub(super) async fn configure(platform: &Platform, site: &mut Site) -> Result<Result<(), TurnedAway>, Fault> {
    let ledger = &platform.ledger;
    let partition = site.commit.partition.clone();
    let deployment = &mut site.deployment;
    let module = deployment.module_id.clone();
    let asked = deployment.configuration_version;
    let mut wanted = runtime_configuration_service::wanted(ledger, &partition, &module, asked).await?;
    let slot = ledger.load::<Slot>(&partition, &Slot::id(&module)).await?.state;
    let serves = match &slot {
        Some(slot) => quarantine::serves(ledger, &partition, slot).await?,
        None => None,
    };
    let mut notes = Vec::new();
    let kept_out = wanted.as_ref().zip(slot.as_ref());
    if let Some(entry) = kept_out.and_then(|(wanted, slot)| slot.configuration_kept_out(wanted.entry.version))
    {
        if deployment.origin == Origin::Configuration || asked.is_some() {
            return Ok(Err(quarantined(entry, deployment)));
        }
        notes.push(format!("{} is in quarantine here; starts with what serves", entry.what()));
        let served = serves.as_ref().and_then(|serves| serves.configuration.as_ref());
        wanted = match served {
            Some(served) => runtime_configuration_service::at(ledger, &partition, served.version).await?,
            None => None,
        };
    }
    let secret_refs = wanted.as_ref().map(|wanted| wanted.secret_refs.clone()).unwrap_or_default();
    deployment.secrets = secret_binding_service::entries(ledger, &partition, &module, &secret_refs).await?;
    deployment.configuration = wanted.map(|wanted| wanted.entry);
    deployment.scaling = runtime_scaling_service::entry(ledger, &partition, &module).await?;
    if let Some(entry) = slot.as_ref().and_then(|slot| slot.kept_out(deployment)) {
        let KeptOut::Secrets { versions } = &entry.kept_out else {
            return Ok(Err(quarantined(entry, deployment)));
        };
        if deployment.origin == Origin::Secret {
            return Ok(Err(quarantined(entry, deployment)));
        }
        match held_back(platform, deployment, versions, serves.as_ref()).await? {
            Some(secrets) => {
                notes.push(format!("{} is in quarantine here; starts with what serves", entry.what()));
                deployment.secrets = secrets;
            }
            None if deployment.origin == Origin::Deploy => {
                site.notes.push(format!(
                    "{} is in quarantine here, and what serves is disabled; starts with it all the same",
                    entry.what()
                ));
            }
            None => return Ok(Err(quarantined(entry, deployment))),
        }
    }
    deployment.held_back = !notes.is_empty();
    for note in notes {
        site.note(note);
    }
    Ok(Ok(()))
}

/// The secrets with the versions that serve in the place of those that are kept out; a variable that
/// nothing serves with is left out. None where one that serves is disabled by now: a compromised version
/// is, whoever still runs with it.
async fn held_back(
    platform: &Platform,
    deployment: &RuntimeDeployment,
    versions: &[String],
    serves: Option<&RuntimeDeployment>,
) -> Result<Option<Vec<SecretEntry>>, Fault> {
    let mut secrets = Vec::with_capacity(deployment.secrets.len());
    for entry in &deployment.secrets {
        if !versions.contains(&entry.key_vault_url) {
            secrets.push(entry.clone());
            continue;
        }
        let mut entries = serves.into_iter().flat_map(|serves| &serves.secrets);
        let Some(served) = entries.find(|served| served.variable == entry.variable) else { continue };
        if let Some((secret, version)) = secret_of(&served.key_vault_url)
            && !platform.vault.verify(&secret, version).await?
        {
            return Ok(None);
        }
        secrets.push(served.clone());
    }
    Ok(Some(secrets))
}

/// The secret and the version of a URL like `https://kv-1.vault.azure.net/secrets/db-password/0123`.
fn secret_of(url: &str) -> Option<(SecretRef, &str)> {
    let (vault_uri, rest) = url.split_once("/secrets/")?;
    let (name, version) = rest.split_once('/')?;
    Some((SecretRef { vault_uri: vault_uri.to_owned(), name: name.to_owned() }, version))
}
