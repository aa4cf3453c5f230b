//! What a tag stands for, asked of the registry itself over the distribution protocol: `HEAD` of the
//! manifest, whose answer names the digest in a header.
//!
//! A registry that wants to know who asks answers 401 and says where tokens are given. One of Azure's
//! gets our own identity's token in exchange for one of its own, and no other ever sees it: registries
//! are named by tenants' commands. Elsewhere an anonymous token is asked for, as anybody may.
//!
//! Deliberately absent: passwords for registries, reading a manifest (its digest is all that is
//! wanted), and a cache: a tag is asked for once for each deployment, and may have been moved since.

use std::{error::Error, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use http::{
    HeaderMap, Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, WWW_AUTHENTICATE},
};
use jiff::Timestamp;
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::{
    http_client::{HttpClientError, HttpSettings, Names, builder, reason, retry_after},
    probe::{ForbiddenAddress, Judged, Reach},
};
use crate::{
    outcome::Fault,
    ports::registry::{ImageReference, ImageVersion, Registry, is_digest},
};

/// What a token for registries is asked for.
const SCOPE: &str = "https://containerregistry.azure.net/.default";
/// What the hosts of Azure's registries lie under: our token goes to these alone.
const AZURE_SUFFIXES: [&str; 3] = [".azurecr.io", ".azurecr.cn", ".azurecr.us"];
/// Docker Hub is named by one host and answers at another.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");
/// What a manifest may be: an index of several platforms, or one image.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// The header that names the digest.
const DIGEST: &str = "docker-content-digest";
/// How long finding out may take, with all its calls; a step has six seconds.
const ALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of an answer with a token.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The most characters of a reason that are told.
const REASON_CHARACTERS_MAX: usize = 200;

/// Registries, by the hosts that images name.
pub struct ContainerRegistries {
    client: reqwest::Client,
    credential: Arc<dyn TokenCredential>,
    /// The directory that our identity is in.
    directory_id: String,
    /// Where every registry is reached, whatever its name; none where each is at its own host.
    endpoint: Option<String>,
}

impl ContainerRegistries {
    /// `endpoint` is a host and a port at which every registry is reached, told apart by the header
    /// `Host`; empty on Azure, where addresses are judged as those of probes are.
    ///
    /// # Errors
    /// As [`super::http_client::client`].
    pub fn new(
        settings: &HttpSettings,
        reach: Reach,
        endpoint: &str,
        directory_id: &str,
        credential: Arc<dyn TokenCredential>,
    ) -> Result<Self, HttpClientError> {
        let names = Names { localhost: settings.resolve_localhost };
        let builder = builder(settings)?
            // The header `Host` says which registry is meant; HTTP/2 has no such header.
            .http1_only()
            .user_agent(concat!("runtime-platform/", env!("CARGO_PKG_VERSION")));
        let builder = if endpoint.is_empty() {
            builder.no_proxy().dns_resolver(Arc::new(Judged { names, reach }))
        } else {
            builder.dns_resolver(Arc::new(names))
        };
        Ok(Self {
            client: builder.build()?,
            credential,
            directory_id: directory_id.to_owned(),
            endpoint: (!endpoint.is_empty()).then(|| endpoint.to_owned()),
        })
    }

    /// A request to a registry's host, wherever that is reached.
    fn request(&self, method: Method, host: &str, path: &str) -> Result<reqwest::RequestBuilder, Withheld> {
        let at = self.endpoint.as_deref().unwrap_or(host);
        let url = Url::parse(&format!("https://{at}{path}")).map_err(|_| Withheld::NoHost)?;
        let request = self.client.request(method, url);
        Ok(if self.endpoint.is_some() { request.header(HOST, host) } else { request })
    }

    async fn head(
        &self,
        host: &str,
        image: &ImageReference,
        tag: &str,
        token: Option<&str>,
    ) -> Result<reqwest::Response, Withheld> {
        let path = format!("/v2/{}/manifests/{tag}", image.repository);
        let mut request = self.request(Method::HEAD, host, &path)?.header(ACCEPT, MANIFESTS);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        Ok(request.send().await?)
    }

    async fn digest(&self, host: &str, image: &ImageReference, tag: &str) -> Result<String, Withheld> {
        let first = self.head(host, image, tag, None).await?;
        if first.status() != 401 {
            return digest_of(&first);
        }
        let challenge = Challenge::read(first.headers(), &image.repository).ok_or(Withheld::Forbidden)?;
        if is_azures(host)
            && let Some(token) = self.exchanged(host, &challenge).await?
        {
            let answer = self.head(host, image, tag, Some(&token)).await?;
            if !matches!(answer.status().as_u16(), 401 | 403) {
                return digest_of(&answer);
            }
        }
        // A registry that lets anybody pull gives a token to anybody.
        let token = self.anonymous(&challenge).await?.ok_or(Withheld::Forbidden)?;
        digest_of(&self.head(host, image, tag, Some(&token)).await?)
    }

    /// Our identity's token against one that the registry takes; none where it does not know us.
    async fn exchanged(&self, host: &str, challenge: &Challenge) -> Result<Option<String>, Withheld> {
        let ours = self.credential.get_token(&[SCOPE], None).await;
        let ours = ours.map_err(|error| Withheld::NoToken(reason(&error)))?;
        let exchange = form(&[
            ("grant_type", "access_token"),
            ("service", challenge.service.as_str()),
            ("tenant", self.directory_id.as_str()),
            ("access_token", ours.token.secret()),
        ]);
        let Some(refresh) = self.token(host, "/oauth2/exchange", exchange, "refresh_token").await? else {
            return Ok(None);
        };
        let renewal = form(&[
            ("grant_type", "refresh_token"),
            ("service", challenge.service.as_str()),
            ("scope", challenge.scope.as_str()),
            ("refresh_token", refresh.as_str()),
        ]);
        self.token(host, "/oauth2/token", renewal, "access_token").await
    }

    async fn token(
        &self,
        host: &str,
        path: &str,
        form: String,
        member: &str,
    ) -> Result<Option<String>, Withheld> {
        let request = self.request(Method::POST, host, path)?;
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        token_of(request.send().await?, &[member]).await
    }

    async fn anonymous(&self, challenge: &Challenge) -> Result<Option<String>, Withheld> {
        let Some(host) = challenge.realm.host_str() else { return Ok(None) };
        let host = match challenge.realm.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let asked = form(&[("service", &challenge.service), ("scope", &challenge.scope)]);
        let path = format!("{}?{asked}", challenge.realm.path());
        token_of(self.request(Method::GET, &host, &path)?.send().await?, &["token", "access_token"]).await
    }
}

#[async_trait]
impl Registry for ContainerRegistries {
    async fn resolve(&self, image: &ImageReference) -> Result<String, Fault> {
        let tag = match &image.version {
            ImageVersion::Digest(digest) => return Ok(digest.clone()),
            ImageVersion::Tag(tag) => tag,
        };
        let host = if image.registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { image.registry.as_str() };
        match tokio::time::timeout(ALL_TIMEOUT, self.digest(host, image, tag)).await {
            Ok(Ok(digest)) => Ok(digest),
            Ok(Err(withheld)) => Err(withheld.fault(image, tag)),
            Err(_) => Err(Fault::transient(
                doing(image, tag),
                format!("no answer within {} seconds", ALL_TIMEOUT.as_secs()),
            )),
        }
    }
}

fn doing(image: &ImageReference, tag: &str) -> String {
    format!("asking `{}` which image `{}:{tag}` is", image.registry, image.repository)
}

/// Fields as a form, or a query, has them.
fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

fn is_azures(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    AZURE_SUFFIXES.iter().any(|suffix| {
        host.strip_suffix(suffix).is_some_and(|name| !name.is_empty() && !name.contains(['.', ':']))
    })
}

/// Where a registry's tokens are given, as it says itself.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    realm: Url,
    service: String,
    scope: String,
}

impl Challenge {
    /// None where there is none of the kind that can be answered, or tokens are given in the clear.
    fn read(headers: &HeaderMap, repository: &str) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut parameters = texts.filter_map(|text| {
            let (scheme, rest) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim().to_owned())
        });
        let parameters = parameters.next()?;
        let realm = Url::parse(&parameter(&parameters, "realm")?).ok()?;
        let plain = realm.scheme() == "https" && realm.username().is_empty() && realm.password().is_none();
        plain.then(|| Self {
            service: parameter(&parameters, "service").unwrap_or_default(),
            // What is asked for is known here, and no registry may widen it.
            scope: format!("repository:{repository}:pull"),
            realm,
        })
    }
}

/// A parameter of a challenge: `name="value"`, in which the value may have commas.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        let (found, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if found.trim().trim_start_matches(',').trim().eq_ignore_ascii_case(name) {
            return Some(value.trim().to_owned());
        }
        rest = after;
    }
}

fn digest_of(answer: &reqwest::Response) -> Result<String, Withheld> {
    if !answer.status().is_success() {
        return Err(Withheld::of(answer));
    }
    let digest = answer.headers().get(DIGEST).and_then(|value| value.to_str().ok()).map(str::trim);
    digest.filter(|digest| is_digest(digest)).map(str::to_owned).ok_or(Withheld::NoDigest)
}

/// The token in an answer; none where we are not known, or have no right.
async fn token_of(answer: reqwest::Response, members: &[&str]) -> Result<Option<String>, Withheld> {
    if matches!(answer.status().as_u16(), 400 | 401 | 403 | 404) {
        return Ok(None);
    }
    if !answer.status().is_success() {
        return Err(Withheld::of(&answer));
    }
    let mut answer = answer;
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(Withheld::NoProtocol);
        }
    }
    let body: Value = serde_json::from_slice(&bytes).map_err(|_| Withheld::NoProtocol)?;
    let token = members.iter().find_map(|member| body.get(*member).and_then(Value::as_str));
    token.filter(|token| !token.is_empty()).map(|token| Some(token.to_owned())).ok_or(Withheld::NoProtocol)
}

/// Why there is no digest.
enum Withheld {
    NotFound,
    Forbidden,
    /// It answered otherwise, and will again.
    Refused(u16),
    /// The answer named no digest.
    NoDigest,
    /// What answered speaks something else.
    NoProtocol,
    /// The registry's name is that of no host.
    NoHost,
    /// The registry's name leads to where nobody is asked.
    ForbiddenAddress(String),
    /// Our own token was not to be had.
    NoToken(String),
    Away {
        reason: String,
        retry_after: Option<Duration>,
    },
}

impl Withheld {
    fn of(answer: &reqwest::Response) -> Self {
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        match answer.status().as_u16() {
            404 => Self::NotFound,
            401 | 403 => Self::Forbidden,
            status @ (408 | 425 | 429 | 500..=599) => Self::Away {
                reason: format!("it answered {status}"),
                retry_after: retry_after(header, Timestamp::now()),
            },
            status => Self::Refused(status),
        }
    }

    fn fault(self, image: &ImageReference, tag: &str) -> Fault {
        let doing = doing(image, tag);
        let (registry, name) = (&image.registry, format!("{}:{tag}", image.repository));
        let (code, detail) = match self {
            Self::Away { reason, retry_after } => {
                return Fault::Transient { doing, retry_after, source: reason.into() };
            }
            Self::NoToken(reason) => {
                return Fault::transient(doing, format!("there is no token for registries: {reason}"));
            }
            Self::NotFound => (
                "ImageNotFound",
                format!(
                    "`{registry}` has no image `{name}`; push it, or correct the repository or the tag, and send Deploy again"
                ),
            ),
            Self::Forbidden => (
                "ImageForbidden",
                format!(
                    "`{registry}` does not let the platform pull `{name}`; give the platform's identity the role AcrPull there, or let anybody pull, and send Deploy again"
                ),
            ),
            Self::Refused(status) => (
                "RegistryRefused",
                format!(
                    "`{registry}` answered {status} for `{name}`; see whether it is a registry of images"
                ),
            ),
            Self::NoDigest => (
                "DigestMissing",
                format!(
                    "`{registry}` does not say which image `{name}` is; name the image by its digest, as in `repository@sha256:...`"
                ),
            ),
            Self::NoProtocol | Self::NoHost => (
                "NoRegistry",
                format!(
                    "`{registry}` does not answer as a registry of images does; correct the image's name"
                ),
            ),
            Self::ForbiddenAddress(told) => {
                ("RegistryForbidden", format!("{}; correct the image's name", in_short(&told)))
            }
        };
        Fault::Rejected { doing, code: code.to_owned(), detail }
    }
}

impl From<reqwest::Error> for Withheld {
    fn from(error: reqwest::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(current) = cause {
            if let Some(forbidden) = current.downcast_ref::<ForbiddenAddress>() {
                return Self::ForbiddenAddress(forbidden.to_string());
            }
            cause = current.source();
        }
        Self::Away { reason: in_short(&reason(&error)), retry_after: None }
    }
}

fn in_short(text: &str) -> String {
    text.chars().take(REASON_CHARACTERS_MAX).collect()
}

#[cfg(all(test, feature = "local"))]
mod tests;
