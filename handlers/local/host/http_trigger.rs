//! HTTP triggers: routes, methods, function keys, and the host's default payload.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use uuid::Uuid;

use super::{FunctionKey, Shared, app::HttpTrigger, encoding, reply};

/// The largest request body, in bytes; Azure's host has the same limit.
const BODY_BYTES_MAX: usize = 104_857_600;

struct Routes {
    shared: Shared,
    prefix: String,
    functions: Vec<(String, HttpTrigger)>,
    keys: Vec<FunctionKey>,
}

pub(super) fn router(shared: Shared, functions: Vec<(String, HttpTrigger)>, keys: Vec<FunctionKey>, prefix: &str) -> Router {
    let prefix = prefix.trim_matches('/').to_owned();
    Router::new().fallback(answer).with_state(Arc::new(Routes { shared, prefix, functions, keys }))
}

async fn answer(State(routes): State<Arc<Routes>>, request: Request) -> Response {
    let path = request.uri().path().trim_matches('/').to_owned();
    let Some(path) = path.strip_prefix(&routes.prefix).map(|rest| rest.trim_start_matches('/')) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let matching: Vec<_> = routes
        .functions
        .iter()
        .filter_map(|(name, trigger)| Some((name, trigger, params(&trigger.route, path)?)))
        .collect();
    let method = request.method().as_str();
    let allowed = matching
        .into_iter()
        .find(|(_, trigger, _)| trigger.methods.is_empty() || trigger.methods.iter().any(|known| known == method));
    match allowed {
        None => StatusCode::NOT_FOUND.into_response(),
        Some((name, trigger, params)) => invoke(&routes, name, trigger, params, request).await,
    }
}

/// The parameters of a path under a route, where it matches.
fn params(route: &str, path: &str) -> Option<Vec<(String, String)>> {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let mut params = Vec::new();
    for part in route.trim_matches('/').split('/') {
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) => {
                let optional = name.ends_with('?');
                let name = name.trim_end_matches('?').split(':').next().unwrap_or_default();
                match segments.next() {
                    Some(value) => {
                        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
                        params.push((name.to_owned(), value));
                    }
                    None if optional => {}
                    None => return None,
                }
            }
            None => {
                if !segments.next()?.eq_ignore_ascii_case(part) {
                    return None;
                }
            }
        }
    }
    segments.next().is_none().then_some(params)
}

async fn invoke(
    routes: &Routes,
    name: &str,
    trigger: &HttpTrigger,
    params: Vec<(String, String)>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let given = parts
        .headers
        .get("x-functions-key")
        .and_then(|key| key.to_str().ok())
        .or_else(|| query.iter().find(|(name, _)| name == "code").map(|(_, code)| code.as_str()));
    let by_key = given.is_some_and(|given| routes.keys.iter().any(|key| key.opens(given)));
    if !by_key && !trigger.anonymous {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > BODY_BYTES_MAX) {
        return (StatusCode::PAYLOAD_TOO_LARGE, "The request body is over 100 MB; send less.").into_response();
    }
    let Ok(bytes) = to_bytes(body, BODY_BYTES_MAX).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "The request body is over 100 MB; send less.").into_response();
    };
    let headers: Vec<(String, String)> = parts
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect();
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let request = encoding::Request {
        url: format!("http://{host}{}", parts.uri),
        method: parts.method.as_str(),
        query,
        headers,
        params,
        // Only a body whose length was said is passed on.
        body: length.filter(|length| *length > 0).map(|_| bytes.as_ref()),
        by_key,
    };
    let id = Uuid::new_v4();
    let payload = encoding::http(name, &trigger.binding, &request, routes.shared.clock.now());
    match routes.shared.supervisor.invoke(name, id, &payload).await {
        Ok(answer) => respond(trigger, &answer),
        Err(failure) => {
            routes.shared.failed(name, &id.to_string(), &failure.to_string());
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Writes the response that the `http` output holds.
fn respond(trigger: &HttpTrigger, answer: &Value) -> Response {
    let output = trigger.output.as_ref().and_then(|name| reply::member(answer, "Outputs")?.get(name));
    let Some(Value::Object(output)) = output else { return StatusCode::OK.into_response() };
    let status = match output.get("statusCode") {
        Some(Value::Number(status)) => status.as_u64().and_then(|status| u16::try_from(status).ok()),
        Some(Value::String(status)) => status.parse().ok(),
        _ => None,
    };
    let status = status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::OK);
    let (body, text) = match output.get("body") {
        None | Some(Value::Null) => (String::new(), false),
        Some(Value::String(text)) => (text.clone(), true),
        Some(other) => (other.to_string(), false),
    };
    let mut response = Response::builder().status(status);
    let headers = output.get("headers").and_then(Value::as_object);
    let mut typed = false;
    for (name, value) in headers.into_iter().flatten() {
        if let Value::String(value) = value {
            typed = typed || name.eq_ignore_ascii_case("content-type");
            response = response.header(name, value);
        }
    }
    if text && !typed {
        response = response.header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
    }
    response.body(Body::from(body)).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}
