//! What every HTTP function shares: whose request it is, pages, and errors as sentences.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tracing::error;

use crate::{
    delivery,
    ids::{EventId, TenantId},
    invocation::{HttpAnswer, HttpRequest},
    outcome::{CURSOR_INVALID, Fault},
    platform::Platform,
    ports::store::{PAGE_ITEMS_MAX, Page},
};

/// Where the platform's HTTP functions are, as callers see them.
pub const ROUTES: &str = "/api/v1/runtime/";

/// An answer that is no success.
#[derive(Debug)]
pub struct HttpError {
    pub status: u16,
    pub code: &'static str,
    pub message: String,
}

impl HttpError {
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 404, code, message: message.into() }
    }

    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, code, message: message.into() }
    }

    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn answer(&self) -> HttpAnswer {
        HttpAnswer::problem(self.status, self.code, &self.message)
    }
}

impl From<Fault> for HttpError {
    fn from(fault: Fault) -> Self {
        if matches!(&fault, Fault::Rejected { code, .. } if code == CURSOR_INVALID) {
            let message = "The parameter `after` is no place in this list: give what `next` said, or leave it out to begin anew.";
            return Self::bad_request(CURSOR_INVALID, message);
        }
        error!("a request was not answered: {}", fault.chain());
        Self {
            status: 503,
            code: "Unavailable",
            message:
                "The state cannot be read right now; try again in a few seconds. The log names the cause."
                    .to_owned(),
        }
    }
}

/// The answer to a request, from what a function found.
pub fn answer<T: Serialize>(result: Result<T, HttpError>) -> HttpAnswer {
    let body = result.and_then(|found| {
        serde_json::to_value(found).map_err(|error| {
            Fault::Unreadable { doing: "writing an answer".to_owned(), source: error.into() }.into()
        })
    });
    match body {
        Ok(body) => HttpAnswer::new(200, body),
        Err(error) => error.answer(),
    }
}

/// The answer to a request that was taken on, and where under the platform's routes to look for what
/// comes of it.
pub fn accepted(body: Value, place: &str) -> HttpAnswer {
    HttpAnswer { location: Some(format!("{ROUTES}{place}")), ..HttpAnswer::new(202, body) }
}

/// The tenant that a request is about: the one place that knows where it comes from.
///
/// # Errors
/// When the header is missing or names no tenant.
pub fn tenant(request: &HttpRequest) -> Result<TenantId, HttpError> {
    let Some(text) = request.headers.get("x-cs-tenant-id") else {
        return Err(HttpError::bad_request(
            "TenantMissing",
            "The header x-cs-tenant-id is missing; it names the tenant that is asked about.",
        ));
    };
    let tenant = text.parse::<TenantId>().and_then(TenantId::checked);
    tenant.map_err(|error| {
        HttpError::bad_request("TenantInvalid", format!("The header x-cs-tenant-id {error}."))
    })
}

/// The page that a request asks for.
pub fn page(request: &HttpRequest) -> Page {
    let size = request.query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(PAGE_ITEMS_MAX);
    Page {
        after: request.query.get("after").filter(|after| !after.is_empty()).cloned(),
        ..Page::first(size.max(1))
    }
}

/// Who asks: the name of the key, until callers have tokens of their own.
pub fn actor(request: &HttpRequest) -> &str {
    request.key_name.as_deref().unwrap_or("anonymous")
}

/// Whether whoever asks operates the whole platform, and not only a tenant's part of it.
pub fn is_operator(platform: &Platform, request: &HttpRequest) -> bool {
    request.key_name.as_ref().is_some_and(|name| platform.operator_keys.contains(name))
}

/// What makes a request that is sent twice one request.
///
/// # Errors
/// When the header is there and is no key.
pub fn idempotency_key(request: &HttpRequest) -> Result<Option<&str>, HttpError> {
    let Some(key) = request.headers.get("idempotency-key") else { return Ok(None) };
    match key.parse::<EventId>() {
        Ok(_) => Ok(Some(key)),
        Err(problem) => Err(HttpError::bad_request(
            "IdempotencyKeyInvalid",
            format!("The header Idempotency-Key {problem}."),
        )),
    }
}

/// The body, as JSON of a form.
///
/// # Errors
/// When there is none, or it has another form. What a field holds is not told: it may be something to
/// keep.
pub fn body<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, HttpError> {
    let text = request.body.as_deref().unwrap_or_default();
    if text.trim().is_empty() {
        return Err(HttpError::bad_request(
            "BodyMissing",
            "The request has no body; send a JSON object, with its Content-Length.",
        ));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let problem = delivery::without_values(&error.inner().to_string());
        let message = match error.path().to_string().as_str() {
            "." => format!("The body: {problem}."),
            path => format!("The body's field `{path}`: {problem}."),
        };
        HttpError::bad_request("BodyInvalid", message)
    })
}

/// A part of a list.
pub fn list(items: Vec<Value>, next: Option<String>) -> Value {
    json!({ "items": items, "next": next })
}

/// The id in the route, where there is one.
pub fn id(request: &HttpRequest) -> Option<&str> {
    request.params.get("id").map(String::as_str).filter(|id| !id.is_empty())
}

/// Filters by those query parameters that are given.
pub fn equal(request: &HttpRequest, names: &[&str]) -> Vec<(String, String)> {
    names
        .iter()
        .filter_map(|name| {
            Some(((*name).to_owned(), request.query.get(*name).filter(|value| !value.is_empty())?.clone()))
        })
        .collect()
}
