//! What failed here and is kept out, until a newer image passes or a person lifts it.
//!
//! Kept out is what changed: the image, by its digest, so that a tag that is moved to a mended image is
//! deployed; a version of the configuration, where what served before had the same image; the versions
//! of secrets, where it had the same configuration too. What serves is never kept out, and what changed
//! none of the three (a repair, a scaling revision) leaves nothing to keep out.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::state::{Cancel, RuntimeDeployment, Slot};
use crate::{
    events::RolledBackReason, ids::DeploymentId, ledger::Ledger, outcome::Fault, ports::store::Partition,
};

/// Entries that a slot remembers; the oldest go.
pub const QUARANTINE_MAX: usize = 50;

/// Something that failed here, and is not run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// The image of the deployment that failed, as it was given.
    pub image: String,
    /// None where the deployment began before digests were known.
    #[serde(default)]
    pub image_digest: Option<String>,
    /// What of that deployment is kept out.
    #[serde(default)]
    pub kept_out: KeptOut,
    pub deployment_id: DeploymentId,
    pub at: Timestamp,
    pub reason: String,
    /// Who kept it out, in words.
    #[serde(default)]
    pub by: Option<String>,
}

/// What of a deployment is kept out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum KeptOut {
    #[default]
    Image,
    Configuration {
        version: u64,
    },
    /// These versions of secrets together, each as the URL that has the version in it.
    Secrets {
        versions: Vec<String>,
    },
}

impl Quarantined {
    fn keeps_out(&self, deployment: &RuntimeDeployment) -> bool {
        match &self.kept_out {
            KeptOut::Image => is_image(
                (&self.image, self.image_digest.as_deref()),
                (&deployment.workload.image, deployment.image_digest.as_deref()),
            ),
            KeptOut::Configuration { version } => {
                deployment.configuration.as_ref().is_some_and(|entry| entry.version == *version)
            }
            KeptOut::Secrets { versions } => {
                let has =
                    |version: &String| deployment.secrets.iter().any(|entry| entry.key_vault_url == *version);
                versions.iter().all(has)
            }
        }
    }

    /// What is kept out, in words.
    pub fn what(&self) -> String {
        match &self.kept_out {
            KeptOut::Image => self.image.clone(),
            KeptOut::Configuration { version } => format!("configuration {version}"),
            KeptOut::Secrets { versions } => {
                let names: Vec<_> = versions.iter().map(|url| secret_and_version(url)).collect();
                format!("{} of secrets", names.join(" with "))
            }
        }
    }

    /// Who kept it out, when and why, and how to lift it; `given` is the image as it is asked for now.
    pub fn sentence(&self, given: &str) -> String {
        let (what, instead) = match &self.kept_out {
            KeptOut::Image if self.image == given => (given.to_owned(), "Deploy another version"),
            KeptOut::Image => {
                (format!("{given} is the same image as {}, which", self.image), "Deploy another version")
            }
            KeptOut::Configuration { .. } => (self.what(), "Publish a corrected version"),
            KeptOut::Secrets { .. } => (self.what(), "Rotate to another version"),
        };
        format!(
            "{what} is in quarantine here since {}, when {} kept `{}` out: {}. {instead}, or lift it: runtimectl lift {} --reason WHY.",
            crate::envelope::whole_seconds::text(self.at),
            self.by.as_deref().unwrap_or("the platform"),
            self.deployment_id,
            self.reason.trim_end_matches('.'),
            self.deployment_id
        )
    }
}

/// `db-password/0123` of a secret's URL.
fn secret_and_version(url: &str) -> &str {
    url.split_once("/secrets/").map_or(url, |(_, name)| name)
}

/// Whether two images are one: by their digests, and by their names where one of them has none.
fn is_image((name, digest): (&str, Option<&str>), (other, others): (&str, Option<&str>)) -> bool {
    match (digest, others) {
        (Some(digest), Some(others)) => digest == others,
        (Some(_) | None, None) | (None, Some(_)) => name == other,
    }
}

/// Whether two deployments are of one image.
pub(super) fn same_image(one: &RuntimeDeployment, other: &RuntimeDeployment) -> bool {
    is_image(
        (&one.workload.image, one.image_digest.as_deref()),
        (&other.workload.image, other.image_digest.as_deref()),
    )
}

/// What a deployment changed against what serves; none where it changed nothing that has a name.
fn changed(deployment: &RuntimeDeployment, serves: Option<&RuntimeDeployment>) -> Option<KeptOut> {
    let Some(serves) = serves.filter(|serves| same_image(deployment, serves)) else {
        return Some(KeptOut::Image);
    };
    let version = deployment.configuration.as_ref().map(|entry| entry.version);
    let served = serves.configuration.as_ref().map(|entry| entry.version);
    if let Some(version) = version.filter(|version| Some(*version) != served) {
        return Some(KeptOut::Configuration { version });
    }
    let is_new = |url: &&String| !serves.secrets.iter().any(|entry| entry.key_vault_url == **url);
    let mut versions: Vec<_> =
        deployment.secrets.iter().map(|entry| &entry.key_vault_url).filter(is_new).cloned().collect();
    versions.dedup();
    (!versions.is_empty()).then_some(KeptOut::Secrets { versions })
}

impl Slot {
    /// Why a deployment may not run here, by all that is known of it.
    pub fn kept_out(&self, deployment: &RuntimeDeployment) -> Option<&Quarantined> {
        self.quarantine.iter().find(|entry| entry.keeps_out(deployment))
    }

    /// Why the image of a deployment may not run here.
    pub fn image_kept_out(&self, deployment: &RuntimeDeployment) -> Option<&Quarantined> {
        self.quarantine.iter().find(|entry| entry.kept_out == KeptOut::Image && entry.keeps_out(deployment))
    }

    /// Why a version of the configuration may not be started here.
    pub fn configuration_kept_out(&self, number: u64) -> Option<&Quarantined> {
        self.quarantine.iter().find(|entry| entry.kept_out == KeptOut::Configuration { version: number })
    }

    /// Keeps out what a deployment changed against `serves`, which is what the slot serves.
    pub(super) fn quarantine(
        &mut self,
        deployment: &RuntimeDeployment,
        serves: Option<&RuntimeDeployment>,
        reason: &str,
        now: Timestamp,
    ) {
        if self.kept_out(deployment).is_some() {
            return;
        }
        let is_what_serves = self.serving.as_ref().is_some_and(|serving| {
            is_image(
                (&serving.image, serving.image_digest.as_deref()),
                (&deployment.workload.image, deployment.image_digest.as_deref()),
            )
        });
        if serves.is_none() && is_what_serves {
            // Its record has gone, so what else changed cannot be told.
            return;
        }
        let Some(kept_out) = changed(deployment, serves) else { return };
        self.quarantine.push(Quarantined {
            image: deployment.workload.image.clone(),
            image_digest: deployment.image_digest.clone(),
            kept_out,
            deployment_id: deployment.deployment_id.clone(),
            at: now,
            reason: reason.to_owned(),
            by: Some(match &deployment.cancel {
                Some(Cancel { reason: RolledBackReason::Operator, by, .. }) => {
                    format!("RollbackDeployment `{by}`")
                }
                Some(_) | None => "its health gate".to_owned(),
            }),
        });
        let excess = self.quarantine.len().saturating_sub(QUARANTINE_MAX);
        self.quarantine.drain(..excess);
    }
}

/// The deployment that a slot serves; none where nothing does, or its record has gone.
pub(super) async fn serves(
    ledger: &Ledger,
    partition: &Partition,
    slot: &Slot,
) -> Result<Option<RuntimeDeployment>, Fault> {
    let Some(serving) = &slot.serving else { return Ok(None) };
    let loaded = ledger.load::<RuntimeDeployment>(partition, serving.deployment_id.as_str()).await?;
    Ok(loaded.state)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        ids::ModuleId,
        ledger::State,
        ports::compute::{ConfigurationEntry, SecretEntry},
    };

    /// A deployment as it is stored, with what matters here.
    fn deployment(digest: &str, version: Option<u64>, secrets: &[&str]) -> RuntimeDeployment {
        let golden = include_str!("../../../tests/golden/documents/deployment-v1.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let deployment: RuntimeDeployment = serde_json::from_value(golden["body"].clone()).unwrap();
        let configuration = version.map(|version| ConfigurationEntry {
            version,
            content_hash: String::new(),
            settings: Default::default(),
        });
        let entry = |url: &&str| SecretEntry {
            variable: "V".into(),
            key_vault_url: (*url).to_owned(),
            identity_id: String::new(),
        };
        RuntimeDeployment {
            image_digest: Some(digest.to_owned()),
            configuration,
            secrets: secrets.iter().map(entry).collect(),
            cancel: None,
            ..deployment
        }
    }

    #[test]
    fn what_changed_is_kept_out_and_nothing_else() {
        let before = deployment("sha256:a", Some(1), &["v/secrets/s/1"]);
        for (after, expected) in [
            (deployment("sha256:b", Some(2), &["v/secrets/s/2"]), Some(KeptOut::Image)),
            (
                deployment("sha256:a", Some(2), &["v/secrets/s/2"]),
                Some(KeptOut::Configuration { version: 2 }),
            ),
            (
                deployment("sha256:a", Some(1), &["v/secrets/s/2"]),
                Some(KeptOut::Secrets { versions: vec!["v/secrets/s/2".into()] }),
            ),
            (deployment("sha256:a", Some(1), &["v/secrets/s/1"]), None),
            (deployment("sha256:a", None, &[]), None),
        ] {
            assert_eq!(changed(&after, Some(&before)), expected);
            assert_eq!(changed(&after, None), Some(KeptOut::Image), "a first deployment");
        }
    }

    #[test]
    fn an_entry_keeps_out_what_it_names_whatever_else_is_new() {
        let before = deployment("sha256:a", Some(1), &["v/secrets/s/1"]);
        let now = before.made_at();
        let kept = |failed: &RuntimeDeployment, next: &RuntimeDeployment| {
            let mut slot = Slot::new("module-api".parse::<ModuleId>().unwrap(), now);
            slot.quarantine(failed, Some(&before), "it answered 500", now);
            slot.kept_out(next).map(Quarantined::what)
        };
        let image = deployment("sha256:b", Some(1), &[]);
        assert!(kept(&image, &deployment("sha256:b", Some(9), &[])).is_some());
        assert_eq!(kept(&image, &deployment("sha256:c", Some(1), &[])), None, "the tag was moved");
        let configuration = deployment("sha256:a", Some(2), &["v/secrets/s/1"]);
        let told = kept(&configuration, &deployment("sha256:z", Some(2), &[]));
        assert_eq!(told.as_deref(), Some("configuration 2"));
        assert_eq!(kept(&configuration, &deployment("sha256:a", Some(3), &[])), None);
        let secret = deployment("sha256:a", Some(1), &["v/secrets/s/2"]);
        let told = kept(&secret, &deployment("sha256:z", Some(1), &["v/secrets/s/2"]));
        assert_eq!(told.as_deref(), Some("s/2 of secrets"));
        assert_eq!(kept(&secret, &deployment("sha256:a", Some(1), &["v/secrets/s/3"])), None);
        assert_eq!(kept(&before, &before), None, "what serves is never kept out");
    }

    #[test]
    fn an_entry_of_before_digests_is_known_by_its_name() {
        let entry = json!({
            "image": "acr.azurecr.io/api:1", "deploymentId": "dep-00000001",
            "at": "2026-03-02T10:15:00Z", "reason": "it failed",
        });
        let entry: Quarantined = serde_json::from_value(entry).unwrap();
        assert_eq!(entry.kept_out, KeptOut::Image);
        let mut named = deployment("sha256:a", None, &[]);
        named.workload.image = "acr.azurecr.io/api:1".into();
        assert!(entry.keeps_out(&named));
        named.workload.image = "acr.azurecr.io/api:2".into();
        assert!(!entry.keeps_out(&named));
    }
}
