//! The REST face: send, batch, peek-lock receive, receive-and-delete, complete, abandon, renew, by
//! bearer token or shared access signature, with Service Bus's paths, headers and status codes.
//!
//! Absent on purpose: the management of entities (Atom XML), which `infra/messaging.json` replaces.

mod properties;
mod sas;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::{BusRefusal, MESSAGE_BYTES_MAX, Received, ServiceBus};
use crate::local::identity::Tokens;

pub use sas::{SasKey, sign};

/// What bearer tokens must be for.
pub const AUDIENCE: &str = "https://servicebus.azure.net";
/// How long a receive waits that does not say how long.
const WAIT_DEFAULT: Duration = Duration::from_secs(60);
/// How long a receive waits at most.
const WAIT_MAX: Duration = Duration::from_secs(240);

/// Serves `bus` to whoever has a token of `tokens` or a signature under `sas`.
pub fn router(bus: ServiceBus, tokens: Tokens, sas: SasKey) -> Router {
    Router::new().fallback(serve).with_state(Arc::new(Face { bus, tokens, sas }))
}

struct Face {
    bus: ServiceBus,
    tokens: Tokens,
    sas: SasKey,
}

/// What a request is answered instead.
struct Refused {
    status: StatusCode,
    detail: String,
}

impl Refused {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }
}

impl From<BusRefusal> for Refused {
    fn from(refusal: BusRefusal) -> Self {
        let status = match &refusal {
            BusRefusal::EntityNotFound(_) => StatusCode::NOT_FOUND,
            BusRefusal::LockLost => StatusCode::GONE,
            BusRefusal::Invalid(_) => StatusCode::BAD_REQUEST,
            BusRefusal::TooLarge { .. } | BusRefusal::QuotaExceeded(_) => StatusCode::FORBIDDEN,
            BusRefusal::Database(fault) => {
                tracing::error!(error = fault as &dyn std::error::Error, "Service Bus cannot use its file");
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self::new(status, refusal.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let detail = self.detail.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let body = format!("<Error><Code>{}</Code><Detail>{detail}</Detail></Error>", self.status.as_u16());
        let xml = HeaderValue::from_static("application/xml; charset=utf-8");
        (self.status, [(header::CONTENT_TYPE, xml)], body).into_response()
    }
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// `{entity}/messages`
    Messages(String),
    /// `{entity}/messages/head`
    Head(String),
    /// `{entity}/messages/{message id or sequence number}/{lock token}`; the token says it all.
    Locked(String, String),
}

impl Target {
    fn of(path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let is = |segment: &str, word: &str| segment.eq_ignore_ascii_case(word);
        let target = match segments.as_slice() {
            [entity @ .., messages] if is(messages, "messages") => Self::Messages(entity.join("/")),
            [entity @ .., messages, head] if is(messages, "messages") && is(head, "head") => {
                Self::Head(entity.join("/"))
            }
            [entity @ .., messages, _, lock] if is(messages, "messages") => {
                Self::Locked(entity.join("/"), (*lock).to_owned())
            }
            _ => return None,
        };
        Some(target)
    }
}

async fn serve(State(face): State<Arc<Face>>, request: Request) -> Response {
    match face.answer(request).await {
        Ok(response) => response,
        Err(refused) => refused.into_response(),
    }
}

impl Face {
    async fn answer(&self, request: Request) -> Result<Response, Refused> {
        let (parts, body) = request.into_parts();
        let path = percent_decode_str(parts.uri.path())
            .decode_utf8()
            .map_err(|_| Refused::new(StatusCode::BAD_REQUEST, "The path must be UTF-8."))?
            .into_owned();
        self.authorize(&parts.headers, &path)?;
        let Some(target) = Target::of(&path) else {
            let detail =
                format!("There is nothing at '{path}': write '/entity/messages' or '/entity/messages/head'.");
            return Err(Refused::new(StatusCode::NOT_FOUND, detail));
        };
        match (&parts.method, target) {
            (&Method::POST, Target::Messages(entity)) => self.send(&entity, &parts.headers, body).await,
            (&Method::POST, Target::Head(entity)) => {
                let received = self.bus.receive(&entity, 1, wait(&parts.uri)?).await?;
                Ok(received
                    .into_iter()
                    .next()
                    .map_or_else(nothing, |received| peeked(received, &entity, &parts)))
            }
            (&Method::DELETE, Target::Head(entity)) => {
                let received = self.bus.take(&entity, 1, wait(&parts.uri)?).await?;
                Ok(received.into_iter().next().map_or_else(nothing, |received| {
                    (StatusCode::OK, properties::headers(&received), received.message.body).into_response()
                }))
            }
            (&Method::DELETE, Target::Locked(entity, lock)) => {
                self.bus.complete(&entity, token(&lock)?).await?;
                Ok(StatusCode::OK.into_response())
            }
            (&Method::PUT, Target::Locked(entity, lock)) => {
                self.bus.abandon(&entity, token(&lock)?).await?;
                Ok(StatusCode::OK.into_response())
            }
            (&Method::POST, Target::Locked(entity, lock)) => {
                self.bus.renew(&entity, token(&lock)?).await?;
                Ok(StatusCode::OK.into_response())
            }
            (method, _) => {
                let detail = format!("{method} means nothing at '{path}'.");
                Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, detail))
            }
        }
    }

    fn authorize(&self, headers: &HeaderMap, path: &str) -> Result<(), Refused> {
        let refuse =
            |problem: String| Refused::new(StatusCode::UNAUTHORIZED, format!("Not authorized: {problem}."));
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let now = self.bus.now();
        match authorization {
            Some(value) if value.starts_with("Bearer ") => self
                .tokens
                .check(authorization, AUDIENCE, now.as_second())
                .map_err(|problem| refuse(problem.to_string())),
            Some(value) if value.starts_with("SharedAccessSignature") => {
                sas::check(value, path, &self.sas, now).map_err(|problem| refuse(problem.to_string()))
            }
            _ => Err(refuse(
                "the request needs an Authorization header, with a bearer token or a shared access signature"
                    .to_owned(),
            )),
        }
    }

    async fn send(&self, entity: &str, headers: &HeaderMap, body: Body) -> Result<Response, Refused> {
        let body = read(headers, body).await?;
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_batch = content_type
            .and_then(|value| value.split(';').next())
            .is_some_and(|value| value.trim().eq_ignore_ascii_case(properties::BATCH));
        let messages = if is_batch {
            properties::batch(&body)
        } else {
            properties::message(headers, body).map(|one| vec![one])
        };
        let messages = messages.map_err(|problem| Refused::new(StatusCode::BAD_REQUEST, problem))?;
        self.bus.send(entity, messages).await?;
        Ok(StatusCode::CREATED.into_response())
    }
}

/// Reads a body of a message's size, and no more than that of a larger one.
async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refused> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(size) = length.filter(|size| *size > MESSAGE_BYTES_MAX) {
        return Err(BusRefusal::TooLarge { size, limit: MESSAGE_BYTES_MAX }.into());
    }
    match Limited::new(body, MESSAGE_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => {
            let detail =
                format!("The message is larger than the {MESSAGE_BYTES_MAX} bytes that are allowed.");
            Err(Refused::new(StatusCode::FORBIDDEN, detail))
        }
        Err(_) => Err(Refused::new(StatusCode::BAD_REQUEST, "The body broke off.")),
    }
}

fn wait(uri: &Uri) -> Result<Duration, Refused> {
    let query = uri.query().unwrap_or_default();
    let timeout =
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == "timeout");
    let Some((_, seconds)) = timeout else { return Ok(WAIT_DEFAULT) };
    let seconds = seconds.parse().map(Duration::from_secs).map_err(|_| {
        Refused::new(
            StatusCode::BAD_REQUEST,
            format!("timeout={seconds} is no number of seconds: write e.g. timeout=10."),
        )
    })?;
    Ok(seconds.min(WAIT_MAX))
}

fn token(lock: &str) -> Result<Uuid, Refused> {
    lock.parse().map_err(|_| {
        Refused::new(
            StatusCode::BAD_REQUEST,
            format!("'{lock}' is no lock token: write the LockToken of the BrokerProperties."),
        )
    })
}

fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

fn peeked(received: Received, entity: &str, parts: &axum::http::request::Parts) -> Response {
    let mut headers = properties::headers(&received);
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host =
        host.or_else(|| parts.uri.authority().map(axum::http::uri::Authority::as_str)).unwrap_or("localhost");
    let location =
        format!("https://{host}/{entity}/messages/{}/{}", received.sequence_number, received.lock_token);
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    (StatusCode::CREATED, headers, received.message.body).into_response()
}

#[cfg(test)]
mod tests;
