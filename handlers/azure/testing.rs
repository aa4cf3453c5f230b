//! What the adapters' tests share: an HTTPS server on loopback under a certificate authority of the
//! test's own, and a credential whose tokens that server checks.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::{
    http_client::{HttpSettings, client, client_options, install_tls_provider},
    resource_manager::ResourceManager,
};
use crate::local::{certificates::Authority, https, identity::Tokens};

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path_and_query: String,
    /// Host and port that were asked for.
    pub authority: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Seen {
    /// `GET /path?query`.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path_and_query)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Status, headers and body of an answer.
pub type Line = (u16, Vec<(&'static str, String)>, Value);

type Answers = Arc<dyn Fn(&Seen) -> Response + Send + Sync>;

struct Shared {
    answers: Answers,
    seen: Mutex<Vec<Seen>>,
    audience: String,
}

/// A server, running until it is dropped.
pub struct Server {
    pub endpoint: String,
    pub settings: HttpSettings,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<std::convert::Infallible>,
    _directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn tokens() -> Tokens {
    Tokens::new([3; 32], "header".to_owned())
}

impl Server {
    /// Answers as `answers` says whoever comes with a token for `audience`; an empty audience asks
    /// for none.
    pub async fn start(audience: &str, answers: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> Self {
        install_tls_provider();
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        let tls = authority.server(&["server.localhost"]).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://server.localhost:{}", listener.local_addr().unwrap().port());
        let shared = Arc::new(Shared {
            answers: Arc::new(answers),
            seen: Mutex::default(),
            audience: audience.to_owned(),
        });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let settings = HttpSettings {
            additional_root: Some(authority.root_certificate().to_owned()),
            resolve_localhost: true,
            ..HttpSettings::default()
        };
        let task = tokio::spawn(https::serve(listener, Some(tls), router));
        Self { endpoint, settings, shared, task, _directory: directory }
    }

    /// Answers one after another, the last one for ever.
    pub async fn scripted(audience: &str, script: Vec<Line>) -> Self {
        let script = Mutex::new(VecDeque::from(script));
        Self::start(audience, move |_| {
            let mut script = script.lock().unwrap();
            let next = if script.len() > 1 { script.pop_front() } else { script.front().cloned() };
            let (status, headers, body) = next.unwrap();
            reply(status, &headers, &body)
        })
        .await
    }

    pub fn host(&self) -> String {
        self.endpoint.trim_start_matches("https://").to_owned()
    }

    pub fn client(&self) -> reqwest::Client {
        client(&self.settings).unwrap()
    }

    pub fn resource_manager(&self) -> ResourceManager {
        ResourceManager::new(&self.endpoint, client_options(&self.client()), Arc::new(Issuer)).unwrap()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }
}

/// A response with a JSON body; none where it is null.
pub fn reply(status: u16, headers: &[(&'static str, String)], body: &Value) -> Response {
    let mut response = StatusCode::from_u16(status).unwrap().into_response();
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    if !body.is_null() {
        *response.body_mut() = Body::from(body.to_string());
    }
    response
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // HTTP/2 has it in the URI, HTTP/1.1 in a header.
    let host = parts.headers.get("host").map(|host| host.to_str().unwrap().to_owned());
    let seen = Seen {
        authority: parts.uri.authority().map(ToString::to_string).or(host).unwrap(),
        method: parts.method.to_string(),
        path_and_query: parts.uri.path_and_query().unwrap().to_string(),
        headers: parts.headers,
        body: to_bytes(body, 1 << 20).await.unwrap().to_vec(),
    };
    let authorization = seen.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    shared.seen.lock().unwrap().push(seen.clone());
    if !shared.audience.is_empty() {
        let now = jiff::Timestamp::now().as_second();
        if let Err(refused) = tokens().check(authorization.as_deref(), &shared.audience, now) {
            return (StatusCode::UNAUTHORIZED, refused.to_string()).into_response();
        }
    }
    (shared.answers)(&seen)
}

/// Issues what [`Server`] takes.
#[derive(Debug)]
pub struct Issuer;

#[async_trait::async_trait]
impl TokenCredential for Issuer {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let now = jiff::Timestamp::now().as_second();
        let audience = scopes[0].trim_end_matches("/.default");
        let expires = azure_core::time::OffsetDateTime::from_unix_timestamp(now + 3600).unwrap();
        Ok(AccessToken::new(tokens().issue(audience, now), expires))
    }
}
