//! A container registry on this machine: what each tag of the image catalogue stands for, over the
//! OCI distribution protocol, with the token exchange of Azure Container Registry.
//!
//! It is every registry at once: the header `Host` says which one is meant. Those of Azure want a
//! token of Microsoft Entra in exchange for theirs; the others give a token to anybody. Every image
//! is there but those that the catalogue calls missing.
//!
//! Absent on purpose: blobs, pushing, listing, and rights: a good token may pull everything.

mod manifests;

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{
    AUDIENCE, Shared,
    faults::{self, When},
    images::{Behaviour, StandIn},
};
use crate::local::identity::{TOKEN_SECONDS, TokenRefused};
pub(super) use manifests::{Staged, pulled, stage, staged};

/// The audience of Microsoft Entra's tokens for registries; Resource Manager's is taken, too.
pub const REGISTRY_AUDIENCE: &str = "https://containerregistry.azure.net";
/// What the hosts of Azure's registries end in.
const AZURE_SUFFIX: &str = ".azurecr.io";
/// Docker Hub answers at another host than its images name.
const DOCKER_HUB: (&str, &str) = ("registry-1.docker.io", "docker.io");
/// The largest form that is taken, in bytes.
const FORM_BYTES_MAX: usize = 64 * 1024;
/// The longest name of a repository, and the longest tag or digest.
const NAME_BYTES_MAX: usize = 255;
const REFERENCE_BYTES_MAX: usize = 128;
/// What manifests are.
const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// The router of all registries.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(serve).with_state(shared)
}

/// What a registry answers instead of what was asked.
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    detail: Box<Value>,
    challenge: Option<String>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), detail: Box::default(), challenge: None }
    }

    fn unknown(reference: &str, name: &str) -> Self {
        let message = match reference.contains(':') {
            true => format!("manifest {reference} is not found"),
            false => format!("manifest tagged by \"{reference}\" is not found"),
        };
        let detail = json!({ "Name": name, "Revision": reference });
        Self { detail: detail.into(), ..Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", message) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = json!({ "code": self.code, "message": self.message, "detail": self.detail });
        let mut response = (self.status, Json(json!({ "errors": [error] }))).into_response();
        if let Some(challenge) = self.challenge.and_then(|text| HeaderValue::from_str(&text).ok()) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let fault = shared.faults.take(request.method(), request.uri().path());
    let deal = async |when: When| match &fault {
        Some((wanted, kind)) if *wanted == when => faults::Kind::deal(kind).await,
        _ => None,
    };
    if let Some(answer) = deal(When::Before).await {
        return answer;
    }
    let mut response = answer(&shared, request).await.unwrap_or_else(IntoResponse::into_response);
    if let Some(answer) = deal(When::After).await {
        return answer;
    }
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert("docker-distribution-api-version", version);
    response
}

async fn answer(shared: &Shared, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let registry = Registry { shared, host: host_of(&parts.uri, &parts.headers) };
    let path = percent_decode_str(parts.uri.path()).decode_utf8_lossy().into_owned();
    let path = path.as_str();
    match (&parts.method, path) {
        (&Method::POST, "/oauth2/exchange") => registry.exchange(&form(body).await?),
        (&Method::POST, "/oauth2/token") => registry.renew(&form(body).await?),
        (&Method::GET, "/oauth2/token") => {
            registry.anonymous(&pairs(parts.uri.query().unwrap_or_default().as_bytes()))
        }
        (&Method::GET | &Method::HEAD, "/v2/" | "/v2") => Err(registry.challenge(None)),
        (&Method::GET | &Method::HEAD, _) => {
            let named = path.strip_prefix("/v2/").and_then(|rest| rest.rsplit_once("/manifests/"));
            let (name, reference) = named.ok_or_else(|| nothing_at(path))?;
            if !is_name(name) {
                let message = format!("`{name}` is no name of a repository");
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "NAME_INVALID", message));
            }
            registry.let_in(&parts.headers, name)?;
            registry.manifest(&parts.method, &parts.headers, name, reference).await
        }
        (method, _) => {
            let message = format!("the method {method} is not supported: images are only asked for here");
            Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message))
        }
    }
}

fn nothing_at(path: &str) -> Refusal {
    let path = path.chars().take(NAME_BYTES_MAX).collect::<String>();
    Refusal::new(StatusCode::NOT_FOUND, "UNSUPPORTED", format!("there is nothing at `{path}`"))
}

/// The registry that is meant: its host without a port, in lower case. The header counts before the
/// address, since every registry is reached at one address.
fn host_of(uri: &Uri, headers: &HeaderMap) -> String {
    let named = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let authority = named.or(uri.authority().map(|authority| authority.as_str())).unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte))
    };
    name.len() <= NAME_BYTES_MAX && name.split('/').all(part)
}

/// Whether it is a tag or a digest.
fn is_reference(reference: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let tag = reference.strip_prefix("sha256:").unwrap_or(reference);
    let begins_well = tag.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_');
    begins_well && reference.len() <= REFERENCE_BYTES_MAX && tag.bytes().all(plain)
}

fn pairs(text: &[u8]) -> HashMap<String, String> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

async fn form(body: Body) -> Result<HashMap<String, String>, Refusal> {
    let bytes = axum::body::to_bytes(body, FORM_BYTES_MAX).await.map_err(|_| {
        let message = format!("the form is larger than {FORM_BYTES_MAX} bytes, or was cut off");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "UNSUPPORTED", message)
    })?;
    Ok(pairs(&bytes))
}

/// One registry, as a caller reached it.
struct Registry<'a> {
    shared: &'a Shared,
    host: String,
}

impl Registry<'_> {
    fn now(&self) -> i64 {
        self.shared.clock.now().as_second()
    }

    fn is_azures(&self) -> bool {
        self.host.ends_with(AZURE_SUFFIX)
    }

    /// What our own tokens are issued for: nobody else's service issues such.
    fn refresh_audience(&self) -> String {
        format!("registry-refresh:{}", self.host)
    }

    fn access_audience(&self, name: &str) -> String {
        format!("registry-access:{}:{name}", self.host)
    }

    /// A token of ours. Clients read in it when it ends, so it looks like one of theirs: a header, what
    /// it says, and a signature, which is all that is checked.
    fn issue(&self, audience: &str) -> String {
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let header = json!({ "alg": "HS256", "typ": "JWT" }).to_string();
        let says =
            json!({ "aud": self.host, "iss": "Azure Container Registry", "exp": self.now() + TOKEN_SECONDS });
        let signature = self.shared.tokens.issue(audience, self.now());
        [header, says.to_string(), signature].map(|part| encode(&part)).join(".")
    }

    fn check(&self, token: &str, audience: &str) -> Result<(), TokenRefused> {
        let signature = token.rsplit('.').next().unwrap_or_default();
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenRefused::Foreign)?;
        let signature = String::from_utf8(signature).map_err(|_| TokenRefused::Foreign)?;
        self.shared.tokens.check(Some(&format!("Bearer {signature}")), audience, self.now())
    }

    fn challenge(&self, name: Option<&str>) -> Refusal {
        let host = &self.host;
        let scope = name.map(|name| format!(",scope=\"repository:{name}:pull\"")).unwrap_or_default();
        let message = "authentication required, visit https://aka.ms/acr/authorization for more information.";
        Refusal {
            detail: name
                .map(|name| Box::new(json!([{ "Type": "repository", "Name": name, "Action": "pull" }])))
                .unwrap_or_default(),
            challenge: Some(format!(
                "Bearer realm=\"https://{host}/oauth2/token\",service=\"{host}\"{scope}"
            )),
            ..Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
        }
    }

    fn let_in(&self, headers: &HeaderMap, name: &str) -> Result<(), Refusal> {
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = authorization.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let checked = self.check(token, &self.access_audience(name));
        checked.map_err(|_| self.challenge(Some(name)))
    }

    /// The member of a form, which must be there.
    fn given<'f>(&self, form: &'f HashMap<String, String>, name: &str) -> Result<&'f str, Refusal> {
        form.get(name).map(String::as_str).filter(|text| !text.is_empty()).ok_or_else(|| {
            Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", format!("the parameter `{name}` is missing"))
        })
    }

    fn is_for_us(&self, form: &HashMap<String, String>, grant: Option<&str>) -> Result<(), Refusal> {
        let service = self.given(form, "service")?;
        if !service.eq_ignore_ascii_case(&self.host) {
            let message = format!("the service `{service}` is not this registry, `{}`", self.host);
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", message));
        }
        match grant {
            Some(wanted) if self.given(form, "grant_type")? != wanted => {
                let message = format!("the grant_type must be `{wanted}`");
                Err(Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", message))
            }
            _ => Ok(()),
        }
    }

    /// A token of Microsoft Entra against one of ours that is good for asking for others.
    fn exchange(&self, form: &HashMap<String, String>) -> Result<Response, Refusal> {
        if !self.is_azures() {
            return Err(nothing_at("/oauth2/exchange"));
        }
        self.is_for_us(form, Some("access_token"))?;
        let bearer = format!("Bearer {}", self.given(form, "access_token")?);
        let good = |audience| self.shared.tokens.check(Some(&bearer), audience, self.now());
        if let Err(refused) = good(REGISTRY_AUDIENCE).or_else(|_| good(AUDIENCE)) {
            let message = format!("the access token is not taken: {refused}");
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message));
        }
        let token = self.issue(&self.refresh_audience());
        Ok(Json(json!({ "refresh_token": token })).into_response())
    }

    /// A refresh token against one that opens a repository.
    fn renew(&self, form: &HashMap<String, String>) -> Result<Response, Refusal> {
        self.is_for_us(form, Some("refresh_token"))?;
        let token = self.given(form, "refresh_token")?;
        if let Err(refused) = self.check(token, &self.refresh_audience()) {
            let message = format!("the refresh token is not taken: {refused}");
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message));
        }
        self.access(form)
    }

    /// A token for whoever asks, where anybody may pull.
    fn anonymous(&self, query: &HashMap<String, String>) -> Result<Response, Refusal> {
        self.is_for_us(query, None)?;
        if self.is_azures() {
            return Err(self.challenge(None));
        }
        self.access(query)
    }

    fn access(&self, form: &HashMap<String, String>) -> Result<Response, Refusal> {
        let scope = self.given(form, "scope")?;
        let name = scope.strip_prefix("repository:").and_then(|rest| rest.rsplit_once(':'));
        let name =
            name.filter(|(name, actions)| is_name(name) && actions.split(',').any(|action| action == "pull"));
        let Some((name, _)) = name else {
            let message = format!("the scope `{scope}` is not one repository to pull: repository:NAME:pull");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", message));
        };
        let token = self.issue(&self.access_audience(name));
        // Azure names it by one word, the distribution protocol by the other.
        let member = if self.is_azures() { "access_token" } else { "token" };
        Ok(Json(json!({ member: token })).into_response())
    }

    async fn manifest(
        &self,
        method: &Method,
        headers: &HeaderMap,
        name: &str,
        reference: &str,
    ) -> Result<Response, Refusal> {
        if !is_reference(reference) {
            return Err(Refusal::unknown(reference, name));
        }
        if !takes_our_manifests(headers) {
            let message = "OCI manifest found, but Accept header does not support OCI manifests";
            return Err(Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", message));
        }
        let named = if self.host == DOCKER_HUB.0 { DOCKER_HUB.1 } else { self.host.as_str() };
        let repository = format!("{named}/{name}");
        let internal = |fault: super::ArmError| {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", fault.message)
        };
        let found = if reference.contains(':') {
            let digest = reference.to_owned();
            let find =
                move |connection: &rusqlite::Connection| manifests::find(connection, &repository, &digest);
            let found = self.shared.database.read(find).await.map_err(internal)?;
            found.map(|(manifest, _)| (reference.to_owned(), manifest))
        } else {
            let stand_in = self.shared.fleet.images().stand_in(&format!("{repository}:{reference}"));
            if stand_in == StandIn::Behaviour(Behaviour::Missing) {
                return Err(Refusal::unknown(reference, name));
            }
            let made = manifests::make(&repository, reference, &stand_in);
            let kept = made.clone();
            let keep = move |connection: &rusqlite::Connection| {
                manifests::keep(connection, &repository, &kept, &stand_in)
            };
            self.shared.database.write(keep).await.map_err(internal)?;
            Some((made.digest, made.text))
        };
        let (digest, manifest) = found.ok_or_else(|| Refusal::unknown(reference, name))?;
        let length = manifest.len();
        let body = if method == Method::HEAD { Body::empty() } else { Body::from(Bytes::from(manifest)) };
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if let Ok(digest) = HeaderValue::from_str(&digest) {
            headers.insert("docker-content-digest", digest);
        }
        Ok(response)
    }
}

/// Whether a caller takes manifests of our kind; one that does not say takes what there is.
fn takes_our_manifests(headers: &HeaderMap) -> bool {
    let mut accepted =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    accepted.peek().is_none()
        || accepted.flat_map(|value| value.split(',')).any(|kind| {
            matches!(kind.split(';').next().unwrap_or_default().trim(), MEDIA_TYPE | "*/*" | "application/*")
        })
}
