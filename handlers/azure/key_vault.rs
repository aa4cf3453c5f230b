//! Secrets in Key Vault, over its data plane.
//!
//! A value is made here and goes to the vault; none is handed on. Vault addresses come from commands,
//! so only hosts under one domain are talked to, and the client checks that the audience that a vault
//! asks a token for is a parent of the vault's own host.
//!
//! Deliberately absent: a cache of versions (what is current is asked anew each time) and deletion.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use azure_core::{
    credentials::TokenCredential,
    error::{Error, ErrorKind},
    http::{ClientOptions, headers::HeaderName},
    time::OffsetDateTime,
};
use azure_security_keyvault_secrets::{
    ResourceExt, SecretClient, SecretClientOptions,
    models::{
        SecretAttributes, SecretClientGetSecretOptions, SecretClientUpdateSecretPropertiesOptions,
        SetSecretParameters, UpdateSecretPropertiesParameters,
    },
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures::TryStreamExt;
use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;

use super::http_client::{reason, retry_after};
use crate::{
    outcome::Fault,
    ports::vault::{ROTATION_TAG, SecretRef, SecretVersion, Vault},
};

/// Versions of a secret that are looked at; a secret with more is refused, since the rest would not be
/// seen and a rotation could be done twice.
const VERSIONS_MAX: usize = 500;
/// Random bytes of a value that is made here.
const VALUE_BYTES: usize = 32;
/// Clients that are kept, one for each vault; beyond that they are made anew.
const CLIENTS_MAX: usize = 64;
/// How long a call may take, with all its pages.
const CALL_TIMEOUT: Duration = Duration::from_secs(9);

/// The vaults under one domain.
pub struct KeyVault {
    /// e.g. `vault.azure.net`
    domain: String,
    credential: Arc<dyn TokenCredential>,
    options: ClientOptions,
    clients: Mutex<HashMap<String, Arc<SecretClient>>>,
}

impl KeyVault {
    /// `domain` is what the hosts of vaults lie under, without a port, e.g. `vault.azure.net`.
    pub fn new(domain: &str, options: ClientOptions, credential: Arc<dyn TokenCredential>) -> Self {
        Self { domain: domain.to_ascii_lowercase(), credential, options, clients: Mutex::default() }
    }

    fn client(&self, secret: &SecretRef, doing: &str) -> Result<Arc<SecretClient>, Fault> {
        // Anything else could be read as another path within the vault.
        let plain = secret.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if secret.name.is_empty() || !plain {
            let detail = "the name of a secret has letters, digits and hyphens only".to_owned();
            return Err(Fault::Rejected { doing: doing.to_owned(), code: "BadName".to_owned(), detail });
        }
        let address = self.address(&secret.vault_uri).ok_or_else(|| Fault::Rejected {
            doing: doing.to_owned(),
            code: "VaultNotAllowed".to_owned(),
            detail: format!(
                "`{}` is no address of a vault here; it must be like https://NAME.{}",
                secret.vault_uri, self.domain
            ),
        })?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&address) {
            return Ok(client.clone());
        }
        let options = SecretClientOptions {
            client_options: self.options.clone(),
            verify_challenge_resource: Some(true),
            ..SecretClientOptions::default()
        };
        let client = SecretClient::new(&address, self.credential.clone(), Some(options));
        let client = Arc::new(client.map_err(|error| Fault::transient(doing, reason(&error)))?);
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(address, client.clone());
        Ok(client)
    }

    /// The vault's address, if a token may be sent there: https, one name under the domain, no more.
    fn address(&self, vault_uri: &str) -> Option<String> {
        let url = url::Url::parse(vault_uri).ok()?;
        let name = url.host_str()?.strip_suffix(&self.domain)?.strip_suffix('.')?;
        let plain = url.scheme() == "https"
            && url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none();
        (plain && !name.is_empty() && !name.contains('.')).then(|| url.to_string())
    }

    async fn listed(&self, secret: &SecretRef, doing: &str) -> Result<Vec<SecretVersion>, Fault> {
        let client = self.client(secret, doing)?;
        let mut pager = client
            .list_secret_properties_versions(&secret.name, None)
            .map_err(|error| fault(doing, &error))?;
        let mut versions = Vec::new();
        loop {
            let next = match pager.try_next().await {
                Ok(next) => next,
                Err(error) if is_missing(&error) => return Ok(Vec::new()),
                Err(error) => return Err(fault(doing, &error)),
            };
            let Some(found) = next else { break };
            if versions.len() == VERSIONS_MAX {
                return Err(Fault::Rejected {
                    doing: doing.to_owned(),
                    code: "TooManyVersions".to_owned(),
                    detail: format!("the secret has more than {VERSIONS_MAX} versions; use another secret"),
                });
            }
            let id = found.resource_id().map_err(|error| fault(doing, &error))?;
            versions.push(described(id.version, found.attributes, found.tags, doing)?);
        }
        // Stable, so that what the vault says of equal times is kept.
        versions.sort_by_key(|version| std::cmp::Reverse(version.created_at));
        if versions.len() > 1 && versions[0].created_at == versions[1].created_at {
            self.put_newest_first(&client, secret, &mut versions, doing).await?;
        }
        Ok(versions)
    }

    /// Times of creation are whole seconds. Where the two newest share one, the vault is asked which of
    /// them it answers when none is named.
    async fn put_newest_first(
        &self,
        client: &SecretClient,
        secret: &SecretRef,
        versions: &mut [SecretVersion],
        doing: &str,
    ) -> Result<(), Fault> {
        let newest = match client.get_secret(&secret.name, None).await {
            Ok(newest) => newest.into_model(),
            // It is disabled: then which of the others comes first is as good as unknown to anybody.
            Err(error) if is_missing(&error) || is_disabled(&error) => return Ok(()),
            Err(error) => Err(error),
        };
        let newest = newest.and_then(|newest| newest.resource_id()).map_err(|error| fault(doing, &error))?;
        let place = versions.iter().position(|version| Some(&version.version) == newest.version.as_ref());
        if let Some(place) = place {
            versions[..=place].rotate_right(1);
        }
        Ok(())
    }

    async fn made(&self, secret: &SecretRef, rotation: &str, doing: &str) -> Result<SecretVersion, Fault> {
        let known = self.listed(secret, doing).await?;
        let has_tag =
            |version: &SecretVersion| version.tags.get(ROTATION_TAG).is_some_and(|tag| tag == rotation);
        if let Some(made) = known.into_iter().find(has_tag) {
            return Ok(made);
        }
        let parameters = SetSecretParameters {
            value: Some(random_value(doing)?),
            tags: Some(HashMap::from([(ROTATION_TAG.to_owned(), rotation.to_owned())])),
            ..SetSecretParameters::default()
        };
        let parameters = parameters.try_into().map_err(|error| fault(doing, &error))?;
        let client = self.client(secret, doing)?;
        let answer = client.set_secret(&secret.name, parameters, None).await;
        let made = answer.and_then(|answer| answer.into_model()).map_err(|error| fault(doing, &error))?;
        let id = made.resource_id().map_err(|error| fault(doing, &error))?;
        described(id.version, made.attributes, made.tags, doing)
    }

    async fn is_good(&self, secret: &SecretRef, version: &str, doing: &str) -> Result<bool, Fault> {
        let options =
            SecretClientGetSecretOptions { secret_version: Some(version.to_owned()), ..Default::default() };
        match self.client(secret, doing)?.get_secret(&secret.name, Some(options)).await {
            Ok(answer) => {
                let secret = answer.into_model().map_err(|error| fault(doing, &error))?;
                Ok(secret.value.is_some_and(|value| !value.is_empty()))
            }
            Err(error) if is_missing(&error) || is_disabled(&error) => Ok(false),
            Err(error) => Err(fault(doing, &error)),
        }
    }

    async fn disabled(&self, secret: &SecretRef, version: &str, doing: &str) -> Result<(), Fault> {
        let attributes = SecretAttributes { enabled: Some(false), ..SecretAttributes::default() };
        let parameters = UpdateSecretPropertiesParameters {
            secret_attributes: Some(attributes),
            ..UpdateSecretPropertiesParameters::default()
        };
        let parameters = parameters.try_into().map_err(|error| fault(doing, &error))?;
        let options = SecretClientUpdateSecretPropertiesOptions {
            secret_version: Some(version.to_owned()),
            ..Default::default()
        };
        let client = self.client(secret, doing)?;
        let answer = client.update_secret_properties(&secret.name, parameters, Some(options)).await;
        answer.map(|_| ()).map_err(|error| fault(doing, &error))
    }
}

#[async_trait]
impl Vault for KeyVault {
    async fn current(&self, secret: &SecretRef) -> Result<Option<SecretVersion>, Fault> {
        let doing = format!("asking for the current version of the secret `{}`", secret.name);
        let versions = within(&doing, self.listed(secret, &doing)).await?;
        Ok(versions.into_iter().find(|version| version.enabled))
    }

    async fn versions(&self, secret: &SecretRef) -> Result<Vec<SecretVersion>, Fault> {
        let doing = format!("listing the versions of the secret `{}`", secret.name);
        within(&doing, self.listed(secret, &doing)).await
    }

    async fn generate(&self, secret: &SecretRef, rotation: &str) -> Result<SecretVersion, Fault> {
        let doing = format!("making a version of the secret `{}`", secret.name);
        within(&doing, self.made(secret, rotation, &doing)).await
    }

    async fn verify(&self, secret: &SecretRef, version: &str) -> Result<bool, Fault> {
        let doing = format!("verifying a version of the secret `{}`", secret.name);
        named(version, &doing)?;
        within(&doing, self.is_good(secret, version, &doing)).await
    }

    async fn disable(&self, secret: &SecretRef, version: &str) -> Result<(), Fault> {
        let doing = format!("disabling a version of the secret `{}`", secret.name);
        named(version, &doing)?;
        within(&doing, self.disabled(secret, version, &doing)).await
    }
}

async fn within<T>(doing: &str, call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer,
        Err(_) => {
            Err(Fault::transient(doing, format!("no answer within {} seconds", CALL_TIMEOUT.as_secs())))
        }
    }
}

/// Refuses an empty version: the vault would take it for the newest.
fn named(version: &str, doing: &str) -> Result<(), Fault> {
    if !version.is_empty() {
        return Ok(());
    }
    let detail = "no version is named".to_owned();
    Err(Fault::Rejected { doing: doing.to_owned(), code: "NoVersion".to_owned(), detail })
}

fn random_value(doing: &str) -> Result<String, Fault> {
    let mut bytes = [0; VALUE_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Fault::transient(doing, "the system gave no random numbers"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

fn described(
    version: Option<String>,
    attributes: Option<SecretAttributes>,
    tags: Option<HashMap<String, String>>,
    doing: &str,
) -> Result<SecretVersion, Fault> {
    let version =
        version.ok_or_else(|| Fault::transient(doing, "the vault named a secret without its version"))?;
    let attributes = attributes.unwrap_or_default();
    let time = |time: Option<OffsetDateTime>| {
        time.and_then(|time| Timestamp::from_second(time.unix_timestamp()).ok())
    };
    Ok(SecretVersion {
        version,
        enabled: attributes.enabled.unwrap_or(true),
        created_at: time(attributes.created),
        expires_at: time(attributes.expires),
        tags: tags.unwrap_or_default().into_iter().collect::<BTreeMap<_, _>>(),
    })
}

/// What a vault said instead of what was asked.
struct Refused {
    status: u16,
    /// The closer reason where there is one, else the code.
    code: String,
    detail: String,
    retry_after: Option<Duration>,
}

fn refused(error: &Error) -> Option<Refused> {
    let ErrorKind::HttpResponse { status, raw_response, .. } = error.kind() else { return None };
    let status = u16::from(*status);
    let body = raw_response.as_ref().map(|raw| raw.body().as_ref()).unwrap_or_default();
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let text = |path: &str| body.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
    let code = text("/error/innererror/code").or_else(|| text("/error/code"));
    let header =
        |name: &str| raw_response.as_ref()?.headers().get_optional_str(&HeaderName::from(name.to_owned()));
    Some(Refused {
        status,
        code: code.map_or_else(|| format!("Http{status}"), str::to_owned),
        detail: text("/error/message").unwrap_or("it says nothing more").to_owned(),
        retry_after: retry_after(header, Timestamp::now()),
    })
}

fn is_missing(error: &Error) -> bool {
    refused(error).is_some_and(|refused| refused.status == 404 && refused.code == "SecretNotFound")
}

fn is_disabled(error: &Error) -> bool {
    refused(error).is_some_and(|refused| refused.status == 403 && refused.code == "SecretDisabled")
}

fn fault(doing: &str, error: &Error) -> Fault {
    let Some(refused) = refused(error) else {
        let reason = match error.kind() {
            // What a parser says may repeat a part of what it read, and that may be a value.
            ErrorKind::DataConversion => "the answer is not one of Key Vault's".to_owned(),
            _ => reason(error),
        };
        return Fault::transient(doing, reason);
    };
    match refused.status {
        400..=499 if ![408, 425, 429].contains(&refused.status) => {
            Fault::Rejected { doing: doing.to_owned(), code: refused.code, detail: refused.detail }
        }
        status => Fault::Transient {
            doing: doing.to_owned(),
            retry_after: refused.retry_after,
            source: format!("Key Vault answered {status}: {} ({})", refused.detail, refused.code).into(),
        },
    }
}

#[cfg(all(test, feature = "local"))]
mod tests;
