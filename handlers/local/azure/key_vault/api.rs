//! The vaults' HTTP API: who asks, which vault, which secret.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Inner,
    input::{given, page_size},
    refusals::Refusal,
    secrets::{self, Page, Vault},
};
use crate::local::azure::defaults::directory_tenant;

/// The largest body, in bytes: the longest value with every character escaped, and what is around it.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// The versions of the API that are served.
const API_VERSIONS: [&str; 4] = ["7.4", "7.5", "7.6", "2025-07-01"];

/// The router of all vaults; the host tells which one is meant.
pub(super) fn router(inner: Arc<Inner>) -> Router {
    Router::new().fallback(answer).with_state(inner)
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let mut response = match inner.unauthorised(request.headers()) {
        Some(challenge) => challenge,
        None => respond(&inner, request).await.unwrap_or_else(IntoResponse::into_response),
    };
    let id = HeaderValue::from_str(&Uuid::new_v4().to_string()).expect("a UUID is a header's value");
    response.headers_mut().insert("x-ms-request-id", id);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

impl Inner {
    /// The challenge, where the caller has no good token. The resource that it names is a parent of
    /// every vault's host, as clients verify.
    fn unauthorised(&self, headers: &HeaderMap) -> Option<Response> {
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let audience = format!("https://{}", self.azure.naming.vault_domain);
        let now = self.azure.clock.now().as_second();
        let refused = self.azure.tokens.check(authorization, &audience, now).err()?;
        let refusal = Refusal::new(
            StatusCode::UNAUTHORIZED,
            "Unauthorized",
            format!("The request is not let in: {refused}."),
        );
        let mut response = refusal.into_response();
        let directory = directory_tenant();
        let challenge = format!(
            r#"Bearer authorization="https://login.microsoftonline.com/{directory}", resource="{audience}""#
        );
        if let Ok(challenge) = HeaderValue::from_str(&challenge) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        Some(response)
    }

    /// The vault that a host belongs to.
    async fn vault(&self, authority: &str) -> Result<Vault, Refusal> {
        let without_port = |authority: &str| {
            authority
                .rsplit_once(':')
                .map_or(authority, |(host, _)| host)
                .trim_end_matches('.')
                .to_ascii_lowercase()
        };
        let (host, domain) = (without_port(authority), without_port(&self.azure.naming.vault_domain));
        let name = host.strip_suffix(&domain).and_then(|name| name.strip_suffix('.')).unwrap_or_default();
        let found = self.azure.vault(name).await.map_err(|error| Refusal::internal(error.message))?;
        let Some(body) = found else {
            let message = format!("There is no vault at `{host}`: Resource Manager has none of that name.");
            return Err(Refusal::new(StatusCode::NOT_FOUND, "VaultNotFound", message));
        };
        let days = body.pointer("/properties/softDeleteRetentionInDays").and_then(Value::as_i64);
        let protected = body.pointer("/properties/enablePurgeProtection").and_then(Value::as_bool);
        Ok(Vault {
            name: name.to_owned(),
            authority: authority.to_owned(),
            retention_days: days.unwrap_or(90),
            purge_protected: protected.unwrap_or(false),
            now: self.azure.clock.now().as_second(),
        })
    }
}

async fn respond(inner: &Inner, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let named = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let authority = parts.uri.authority().map(|authority| authority.as_str()).or(named).unwrap_or_default();
    let vault = inner.vault(authority).await?;
    let query = query_of(&parts.uri);
    let version = query.get("api-version").cloned().unwrap_or_default();
    if !API_VERSIONS.contains(&version.as_str()) {
        let message = format!("`api-version` is `{version}`; it must be one of {}.", API_VERSIONS.join(", "));
        return Err(Refusal::bad_parameter(message));
    }
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        let message =
            format!("The body of the request is larger than {BODY_BYTES_MAX} bytes, or was cut off.");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    })?;
    // Clients that mean the newest version end the path with a slash.
    let path = parts.uri.path().trim_matches('/');
    let segments = path.split('/').collect::<Vec<_>>();
    let call = Call { inner, vault, query, path, version, body: &body };
    call.run(&parts.method, &segments).await
}

/// Parameters of the query; names in lower case.
fn query_of(uri: &Uri) -> HashMap<String, String> {
    let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.into_owned())).collect()
}

/// A request, taken apart.
struct Call<'a> {
    inner: &'a Inner,
    vault: Vault,
    query: HashMap<String, String>,
    path: &'a str,
    version: String,
    body: &'a [u8],
}

impl Call<'_> {
    async fn run(self, method: &Method, segments: &[&str]) -> Result<Response, Refusal> {
        match (method.as_str(), segments) {
            ("GET", ["secrets"]) => self.list(false).await,
            ("GET", ["deletedsecrets"]) => self.list(true).await,
            ("GET", ["secrets", name, "versions"]) => self.list_versions(name).await,
            ("PUT", ["secrets", name]) => self.set(name).await,
            ("GET", ["secrets", name]) => self.get(name, None).await,
            ("GET", ["secrets", name, version]) => self.get(name, Some(version)).await,
            ("PATCH", ["secrets", name]) => self.update(name, None).await,
            ("PATCH", ["secrets", name, version]) => self.update(name, Some(version)).await,
            ("DELETE", ["secrets", name]) => self.write(name, secrets::delete).await.map(ok),
            ("GET", ["deletedsecrets", name]) => self.read(name, secrets::get_deleted).await.map(ok),
            ("POST", ["deletedsecrets", name, "recover"]) => self.write(name, secrets::recover).await.map(ok),
            ("DELETE", ["deletedsecrets", name]) => {
                self.write(name, secrets::purge).await.map(|()| StatusCode::NO_CONTENT.into_response())
            }
            (_, ["secrets" | "deletedsecrets", ..]) => {
                let message = format!("`{method} /{}` is no operation of secrets.", self.path);
                Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message))
            }
            _ => {
                let message = format!("There is nothing at `/{}`: this vault has secrets only.", self.path);
                Err(Refusal::new(StatusCode::NOT_FOUND, "NotFound", message))
            }
        }
    }

    async fn set(self, name: &str) -> Result<Response, Refusal> {
        let (given, seal, vault, name) =
            (given(self.body)?, self.inner.seal.clone(), self.vault, name.to_owned());
        let work = move |connection: &_| secrets::set(connection, &seal, &vault, &name, given);
        self.inner.database.write(work).await.map(ok)
    }

    async fn get(self, name: &str, version: Option<&str>) -> Result<Response, Refusal> {
        let (seal, vault, name) = (self.inner.seal.clone(), self.vault, name.to_owned());
        let version = version.map(str::to_owned);
        let work = move |connection: &_| secrets::get(connection, &seal, &vault, &name, version.as_deref());
        self.inner.database.read(work).await.map(ok)
    }

    async fn update(self, name: &str, version: Option<&str>) -> Result<Response, Refusal> {
        let (given, vault, name) = (given(self.body)?, self.vault, name.to_owned());
        let version = version.map(str::to_owned);
        let work =
            move |connection: &_| secrets::update(connection, &vault, &name, version.as_deref(), given);
        self.inner.database.write(work).await.map(ok)
    }

    async fn write<T: Send + 'static>(
        self,
        name: &str,
        work: fn(&rusqlite::Connection, &Vault, &str) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let (vault, name) = (self.vault, name.to_owned());
        self.inner.database.write(move |connection| work(connection, &vault, &name)).await
    }

    async fn read<T: Send + 'static>(
        self,
        name: &str,
        work: fn(&rusqlite::Connection, &Vault, &str) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let (vault, name) = (self.vault, name.to_owned());
        self.inner.database.read(move |connection| work(connection, &vault, &name)).await
    }

    async fn list(self, deleted: bool) -> Result<Response, Refusal> {
        let (size, after) = (self.size()?, self.after().to_owned());
        let vault = self.vault.clone();
        let work = move |connection: &_| secrets::list(connection, &vault, deleted, &after, size);
        let page = self.inner.database.read(work).await?;
        Ok(self.page(page, size))
    }

    async fn list_versions(self, name: &str) -> Result<Response, Refusal> {
        let (size, after) = (self.size()?, self.after());
        let after = if after.is_empty() { Ok(0) } else { after.parse() };
        let after =
            after.map_err(|_| Refusal::bad_parameter("`$skiptoken` is not one that this vault gave."))?;
        let (vault, name) = (self.vault.clone(), name.to_owned());
        let work = move |connection: &_| secrets::list_versions(connection, &vault, &name, after, size);
        let page = self.inner.database.read(work).await?;
        Ok(self.page(page, size))
    }

    fn size(&self) -> Result<usize, Refusal> {
        page_size(self.query.get("maxresults").map(String::as_str))
    }

    fn after(&self) -> &str {
        self.query.get("$skiptoken").map(String::as_str).unwrap_or_default()
    }

    fn page(&self, (entries, next): Page, size: usize) -> Response {
        let (authority, path, version) = (&self.vault.authority, self.path, &self.version);
        let link = next.map(|token| {
            format!("https://{authority}/{path}?api-version={version}&$skiptoken={token}&maxresults={size}")
        });
        ok(json!({ "value": entries, "nextLink": link }))
    }
}

fn ok(body: Value) -> Response {
    Json(body).into_response()
}
