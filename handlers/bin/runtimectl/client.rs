//! Reading from the platform: its HTTP functions, and nothing else.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{StatusCode, dns};
use serde_json::Value;

use crate::{context::Context, failure::Failure};

/// How long it may take to reach the other side.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one exchange may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The longest text of an unexpected answer that is shown, in characters.
const SHOWN_CHARACTERS_MAX: usize = 200;
/// Pages that one list may take; a list that goes on longer is said to be cut.
const PAGES_MAX: usize = 2000;
/// Where the platform's HTTP functions are, below the endpoint.
const ROUTES: &str = "/api/v1/runtime/";

/// What stays as it is in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One segment of a path.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// The platform's HTTP functions, asked in the name of one tenant.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    endpoint: String,
    key: Option<String>,
    tenant: String,
    context_file: String,
}

/// Items of a list, and whether there are more than were asked for.
#[derive(Debug, PartialEq)]
pub struct Listed {
    pub items: Vec<Value>,
    pub more: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("The platform at {endpoint} cannot be reached")]
    Unreachable { endpoint: String, source: reqwest::Error },
    #[error("{message}")]
    NotFound { code: String, message: String },
    #[error("The platform refused the function key of the context `{context_file}` (HTTP {status})")]
    Key { context_file: String, status: StatusCode },
    #[error("The platform answered HTTP {status}: {message}")]
    Refused { status: StatusCode, message: String },
    #[error("The platform's answer to `{path}` cannot be understood: {problem}")]
    Unreadable { path: String, problem: String },
}

impl ReadError {
    /// The platform may just be starting, or be busy: asking again may help.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::NotFound { .. } | Self::Key { .. } | Self::Unreadable { .. } => false,
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let what = error.to_string();
        match &error {
            ReadError::Unreachable { source, .. } => {
                Self::unusable(what).because(source).advice("start it with `runtimectl up`, or name another with --context")
            }
            ReadError::NotFound { .. } => Self::failed(what).advice("see what there is with `runtimectl get`"),
            ReadError::Key { .. } => Self::unusable(what)
                .advice("the key belongs to one platform: name the right context, or have `runtimectl up` write it anew"),
            ReadError::Refused { status, .. } if status.is_server_error() => {
                Self::unusable(what).advice("see why with `runtimectl logs --level warn`, then try again")
            }
            ReadError::Refused { .. } => Self::failed(what),
            ReadError::Unreadable { .. } => Self::unusable(what)
                .advice("is `functionsEndpoint` of the context the platform's, and as new as this program?"),
        }
    }
}

/// Every name at or under `localhost` is this machine, whatever the system's resolver thinks of it.
struct Loopback;

impl dns::Resolve for Loopback {
    fn resolve(&self, name: dns::Name) -> dns::Resolving {
        Box::pin(async move {
            let host = name.as_str().trim_end_matches('.');
            if is_loopback(host) {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                return Ok(Box::new(std::iter::once(address)) as dns::Addrs);
            }
            let found = tokio::net::lookup_host((host, 0)).await?.collect::<Vec<_>>();
            Ok(Box::new(found.into_iter()) as dns::Addrs)
        })
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

fn is_on_this_machine(endpoint: &str) -> bool {
    let Ok(endpoint) = url::Url::parse(endpoint) else { return false };
    match endpoint.host() {
        Some(url::Host::Domain(host)) => is_loopback(host),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// A client that trusts what the context trusts.
///
/// # Errors
/// When the context's certificate cannot be used.
pub async fn http(context: &Context) -> Result<reqwest::Client, Failure> {
    let mut builder = reqwest::Client::builder()
        .dns_resolver(Loopback)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(EXCHANGE_TIMEOUT)
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("runtimectl/", env!("CARGO_PKG_VERSION")));
    if is_on_this_machine(&context.functions_endpoint) {
        // A proxy would look for the platform on its own machine.
        builder = builder.no_proxy();
    }
    if let Some(file) = &context.root_certificate {
        let about = || Failure::unusable(format!("Cannot use the root certificate `{}`", file.display()));
        let pem = tokio::fs::read(file).await.map_err(|error| {
            about()
                .because(&error)
                .advice("start `runtimectl up` again: it makes the certificate and the context anew")
        })?;
        let certificates =
            reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| about().because(&error))?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|error| Failure::unusable("Cannot make an HTTP client").because(&error))
}

impl Client {
    /// A client of the context's platform, in the name of `tenant`.
    ///
    /// # Errors
    /// As [`http`].
    pub async fn new(context: &Context, tenant: &str) -> Result<Self, Failure> {
        Ok(Self {
            http: http(context).await?,
            endpoint: context.functions_endpoint.clone(),
            key: context.function_key.clone(),
            tenant: tenant.to_owned(),
            context_file: context.file.display().to_string(),
        })
    }

    /// Gets `path` (below the platform's routes, segments already encoded).
    ///
    /// # Errors
    /// When the platform cannot be reached, has no such thing, or does not answer as it should.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, ReadError> {
        self.ask(path, self.http.get(self.address(path)).query(query)).await
    }

    /// Posts to `path`; sent again with the same key it is one request.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post(&self, path: &str, body: &Value, idempotency_key: &str) -> Result<Value, ReadError> {
        let request = self.http.post(self.address(path)).header("idempotency-key", idempotency_key);
        let request = request.header("content-type", "application/json").body(body.to_string());
        self.ask(path, request).await
    }

    fn address(&self, path: &str) -> String {
        format!("{}{ROUTES}{path}", self.endpoint)
    }

    async fn ask(&self, path: &str, request: reqwest::RequestBuilder) -> Result<Value, ReadError> {
        let unreachable = |source| ReadError::Unreachable { endpoint: self.endpoint.clone(), source };
        let mut request = request.header("x-cs-tenant-id", &self.tenant);
        if let Some(key) = &self.key {
            request = request.header("x-functions-key", key);
        }
        let mut answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(unreachable)? {
            if body.len() + part.len() > ANSWER_BYTES_MAX {
                let problem = format!("it is longer than {ANSWER_BYTES_MAX} bytes");
                return Err(ReadError::Unreadable { path: path.to_owned(), problem });
            }
            body.extend_from_slice(&part);
        }
        self.understand(path, status, &body)
    }

    fn understand(&self, path: &str, status: StatusCode, body: &[u8]) -> Result<Value, ReadError> {
        let json = serde_json::from_slice::<Value>(body);
        if status.is_success() {
            return json.map_err(|error| ReadError::Unreadable {
                path: path.to_owned(),
                problem: error.to_string(),
            });
        }
        // A problem as RFC 9457 writes one, or the older form of an error.
        let told = |problem: &str, older: &str| {
            let json = json.as_ref().ok()?;
            json[problem].as_str().or_else(|| json["error"][older].as_str()).map(str::to_owned)
        };
        let (code, message) = (told("code", "code"), told("detail", "message"));
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if code.is_none() => {
                ReadError::Key { context_file: self.context_file.clone(), status }
            }
            StatusCode::NOT_FOUND => match (code, message) {
                (Some(code), Some(message)) => ReadError::NotFound { code, message },
                _ => ReadError::Unreadable {
                    path: path.to_owned(),
                    problem: "there is no such route (HTTP 404)".into(),
                },
            },
            _ => ReadError::Refused { status, message: message.unwrap_or_else(|| shown(body)) },
        })
    }

    /// Follows the pages of a list up to `limit` items.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn list(&self, path: &str, query: &[(&str, &str)], limit: usize) -> Result<Listed, ReadError> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut query = query.to_vec();
            if let Some(after) = &after {
                query.push(("after", after));
            }
            let (page, next) = page_of(path, self.get(path, &query).await?)?;
            items.extend(page);
            if items.len() > limit {
                items.truncate(limit);
                return Ok(Listed { items, more: true });
            }
            // A cursor that does not move would have us ask for ever.
            if next.is_none() || next == after {
                return Ok(Listed { items, more: false });
            }
            after = next;
        }
        Ok(Listed { items, more: true })
    }
}

/// The items and the next cursor of a page.
///
/// # Errors
/// When it is no page.
pub fn page_of(path: &str, mut page: Value) -> Result<(Vec<Value>, Option<String>), ReadError> {
    let next = page["next"].as_str().map(str::to_owned);
    match page.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok((items, next)),
        _ => Err(ReadError::Unreadable {
            path: path.to_owned(),
            problem: "it is no list: it has no `items`".into(),
        }),
    }
}

/// The beginning of a text that was not expected.
pub fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * SHOWN_CHARACTERS_MAX)]);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        "an empty answer".to_owned()
    } else if text.chars().count() > SHOWN_CHARACTERS_MAX {
        format!("{}...", text.chars().take(SHOWN_CHARACTERS_MAX).collect::<String>())
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_of_any_characters_stays_one_segment() {
        assert_eq!(segment("evt-3a6e"), "evt-3a6e");
        assert_eq!(segment("a/b?c d"), "a%2Fb%3Fc%20d");
    }

    #[test]
    fn a_proxy_is_asked_for_other_machines_only() {
        let local =
            ["http://127.0.0.1:7071", "https://localhost", "https://bus.localhost:1", "http://[::1]:80"];
        assert!(local.into_iter().all(is_on_this_machine));
        assert!(!is_on_this_machine("https://app.azurewebsites.net"));
        assert!(!is_on_this_machine("https://localhost.example.com"));
    }

    #[test]
    fn what_is_no_page_is_refused() {
        assert_eq!(
            page_of("x", json!({"items": [1], "next": "c"})).unwrap(),
            (vec![json!(1)], Some("c".into()))
        );
        assert_eq!(page_of("x", json!({"items": [], "next": null})).unwrap(), (vec![], None));
        assert!(page_of("x", json!({"error": 1})).is_err());
    }
}
