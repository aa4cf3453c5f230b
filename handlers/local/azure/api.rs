//! Resource Manager over HTTP: who asks, in which version, for what, and how it is answered.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    AUDIENCE, Shared,
    address::{self, Address, OperationForm},
    asides, container_apps,
    faults::{Kind, When},
    metrics,
    operations::{self, Header, Poll},
    records,
    refusals::ArmError,
    resources::{self, Call, Reply},
    types::{self, TypeSpec},
};

/// The largest body that is taken, in bytes; Resource Manager's own limit.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().merge(asides::router()).fallback(handle).with_state(shared)
}

/// The answer to a caller whose token is not good.
pub(super) fn unauthorised(shared: &Shared, headers: &HeaderMap) -> Option<Response> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let refused = shared.tokens.check(authorization, AUDIENCE, shared.clock.now().as_second()).err()?;
    let error = ArmError::new(
        StatusCode::UNAUTHORIZED,
        "InvalidAuthenticationToken",
        format!("The access token is not taken: {refused}."),
    );
    let mut response = error.into_response();
    let challenge =
        "Bearer authorization_uri=\"https://login.microsoftonline.com/common\", error=\"invalid_token\"";
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    Some(response)
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let fault = shared.faults.take(request.method(), request.uri().path());
    if let Some((When::Before, kind)) = &fault
        && let Some(answer) = kind.deal().await
    {
        return answer;
    }
    let fails = match &fault {
        Some((_, Kind::OperationFails { code, message })) => {
            Some(json!({ "code": code, "message": message }))
        }
        _ => None,
    };
    let mut response = answer(&shared, request, fails).await;
    if let Some((When::After, kind)) = &fault
        && let Some(answer) = kind.deal().await
    {
        return answer;
    }
    let id = HeaderValue::from_str(&Uuid::new_v4().to_string()).expect("a UUID is a header's value");
    response.headers_mut().insert("x-ms-request-id", id);
    response
}

/// A request, taken apart.
struct Asked {
    method: Method,
    path: String,
    version: String,
    query: HashMap<String, String>,
    /// Where the caller found us.
    host: String,
    call: Call,
    body: Value,
}

async fn answer(shared: &Arc<Shared>, request: Request, fails: Option<Value>) -> Response {
    if let Some(refusal) = unauthorised(shared, request.headers()) {
        return refusal;
    }
    let asked = match take_apart(shared, request, fails).await {
        Ok(asked) => asked,
        Err(error) => return error.into_response(),
    };
    respond(shared, asked).await.unwrap_or_else(IntoResponse::into_response)
}

async fn take_apart(shared: &Shared, request: Request, fails: Option<Value>) -> Result<Asked, ArmError> {
    let (parts, body) = request.into_parts();
    let text = |name: header::HeaderName| {
        parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let query = query_of(&parts.uri);
    let version = query.get("api-version").cloned().ok_or_else(|| {
        ArmError::bad_request(
            "MissingApiVersionParameter",
            "The query parameter `api-version` is missing: every call needs ?api-version=.",
        )
    })?;
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        let message =
            format!("The body of the request is larger than {BODY_BYTES_MAX} bytes, or was cut off.");
        ArmError::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestContentTooLarge", message)
    })?;
    let body = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            ArmError::bad_request(
                "InvalidRequestContent",
                format!("The body of the request is no JSON: {error}."),
            )
        })?
    };
    let authority = parts.uri.authority().map(ToString::to_string);
    Ok(Asked {
        path: parts.uri.path().to_owned(),
        host: authority.or_else(|| text(header::HOST)).unwrap_or_else(|| shared.authority.clone()),
        call: Call {
            now: shared.clock.now(),
            naming: shared.naming.clone(),
            pace: shared.pace,
            if_match: text(header::IF_MATCH),
            if_none_match: text(header::IF_NONE_MATCH),
            fails,
        },
        method: parts.method,
        version,
        query,
        body,
    })
}

/// Parameters of the query; names in lower case, as Azure does not care.
fn query_of(uri: &Uri) -> HashMap<String, String> {
    let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    pairs.map(|(name, value): (Cow<'_, str>, _)| (name.to_ascii_lowercase(), value.into_owned())).collect()
}

async fn respond(shared: &Arc<Shared>, asked: Asked) -> Result<Response, ArmError> {
    let address = address::parse(&asked.path, asked.method == Method::POST)?;
    match &address {
        Address::Resource(id) | Address::Action { resource: id, .. } => versioned(id.spec, &asked.version)?,
        Address::Collection { spec, .. } => versioned(spec, &asked.version)?,
        Address::Subscription(_)
        | Address::Groups { .. }
        | Address::Everything { .. }
        | Address::Operation { .. } => {}
        Address::Metrics { .. } => metrics_versioned(&asked.version)?,
    }
    let reading = asked.method == Method::GET || asked.method == Method::HEAD;
    if reading {
        settle(shared, asked.call.now).await?;
    }
    match address {
        Address::Subscription(id) if reading => Ok(Json(subscription(&id)).into_response()),
        Address::Groups { scope } if reading => list(shared, asked, scope, Some(types::GROUP)).await,
        Address::Everything { scope } if reading => list(shared, asked, scope, None).await,
        Address::Collection { scope, spec } if reading => match spec.name {
            types::REVISION | types::REPLICA => list_running(shared, scope, spec).await,
            name => list(shared, asked, scope, Some(name)).await,
        },
        Address::Operation { id, form } if reading => follow_operation(shared, asked, id, form).await,
        Address::Metrics { scope } if reading => {
            Ok(Json(metrics::answer(shared, &scope, &asked.query).await?).into_response())
        }
        Address::Resource(id) if reading => match id.spec.name {
            types::QUEUE => Ok(Json(shared.queue(&id).await?).into_response()),
            types::REVISION | types::REPLICA => {
                let (fleet, naming) = (shared.fleet.clone(), shared.naming.clone());
                let reading = move |connection: &rusqlite::Connection| match id.spec.name {
                    types::REPLICA => container_apps::replica(connection, &id, &fleet),
                    _ => container_apps::revision(connection, &id, &fleet, &naming),
                };
                Ok(Json(shared.database.read(reading).await?).into_response())
            }
            _ => {
                let call = asked.call.clone();
                let reply =
                    shared.database.read(move |connection| resources::get(connection, &call, &id)).await?;
                if asked.method == Method::HEAD {
                    return Ok(StatusCode::NO_CONTENT.into_response());
                }
                finish(shared, &asked, reply)
            }
        },
        Address::Resource(id) => change(shared, asked, Change::Resource(id)).await,
        Address::Action { resource, action } => change(shared, asked, Change::Action(resource, action)).await,
        _ => Err(not_allowed(&asked.method)),
    }
}

fn not_allowed(method: &Method) -> ArmError {
    let message = format!("The method {method} is not supported here.");
    ArmError::new(StatusCode::METHOD_NOT_ALLOWED, "HttpMethodNotAllowed", message)
}

fn versioned(spec: &TypeSpec, version: &str) -> Result<(), ArmError> {
    has_version(spec.name, spec.versions, version)
}

fn metrics_versioned(version: &str) -> Result<(), ArmError> {
    has_version("Microsoft.Insights/metrics", &metrics::API_VERSIONS, version)
}

fn has_version(name: &str, versions: &[&str], version: &str) -> Result<(), ArmError> {
    if versions.iter().any(|known| known.eq_ignore_ascii_case(version)) {
        return Ok(());
    }
    Err(ArmError::bad_request(
        "NoRegisteredProviderFound",
        format!(
            "No resource provider is registered for `{name}` in API version `{version}`: the versions are {}.",
            versions.join(", ")
        ),
    ))
}

async fn settle(shared: &Shared, now: jiff::Timestamp) -> Result<(), ArmError> {
    if shared.database.read(move |connection| operations::is_due(connection, now)).await? {
        shared.database.write(move |connection| operations::settle(connection, now)).await?;
    }
    Ok(())
}

fn subscription(id: &str) -> Value {
    json!({
        "id": format!("/subscriptions/{id}"),
        "subscriptionId": id,
        "displayName": "This machine",
        "state": "Enabled",
        "tenantId": super::defaults::directory_tenant(),
    })
}

async fn list(
    shared: &Shared,
    asked: Asked,
    scope: String,
    kind: Option<&'static str>,
) -> Result<Response, ArmError> {
    if asked.query.contains_key("$filter") {
        return Err(ArmError::bad_request(
            "InvalidFilter",
            "Lists cannot be filtered here: leave `$filter` out.",
        ));
    }
    let after = asked.query.get("$skiptoken").cloned().unwrap_or_default();
    let call = asked.call;
    let reading =
        move |connection: &rusqlite::Connection| resources::list(connection, &call, &scope, kind, &after);
    let (value, next) = shared.database.read(reading).await?;
    let mut body = json!({ "value": value });
    if let Some(next) = next {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("api-version", &asked.version)
            .append_pair("$skipToken", &next)
            .finish();
        body["nextLink"] = json!(format!("https://{}{}?{query}", asked.host, asked.path));
    }
    Ok(Json(body).into_response())
}

async fn list_running(shared: &Shared, scope: String, spec: &'static TypeSpec) -> Result<Response, ArmError> {
    let parent = address::resource(&scope)
        .ok_or_else(|| ArmError::not_found("NotFound", format!("`{scope}` has no `{}`.", spec.name)))?;
    let (fleet, naming) = (shared.fleet.clone(), shared.naming.clone());
    let reading = move |connection: &rusqlite::Connection| match spec.name {
        types::REPLICA => container_apps::replicas(connection, &parent, &fleet),
        _ => container_apps::revisions(connection, &parent, &fleet, &naming),
    };
    let value = shared.database.read(reading).await?;
    Ok(Json(json!({ "value": value })).into_response())
}

enum Change {
    Resource(address::ResourceId),
    Action(address::ResourceId, String),
}

async fn change(shared: &Arc<Shared>, mut asked: Asked, change: Change) -> Result<Response, ArmError> {
    let (call, body, method) = (asked.call.clone(), asked.body.take(), asked.method.clone());
    if let Change::Resource(id) = &change
        && id.spec.name == types::APP
        && matches!(method, Method::PUT | Method::PATCH)
    {
        shared.new_secrets_are_readable(id, &body, method == Method::PUT).await?;
    }
    let work = move |connection: &rusqlite::Connection| {
        operations::settle(connection, call.now)?;
        match (change, method) {
            (Change::Resource(id), Method::PUT) => resources::put(connection, &call, &id, body),
            (Change::Resource(id), Method::PATCH) => resources::patch(connection, &call, &id, body),
            (Change::Resource(id), Method::DELETE) => resources::delete(connection, &call, &id),
            (Change::Action(id, action), _) if matches!(id.spec.name, types::APP | types::REVISION) => {
                container_apps::act(connection, &call, &id, &action)
            }
            (Change::Action(id, action), _) => {
                let message = format!("`{}` has no action `{action}`.", id.spec.name);
                Err(ArmError::not_found("InvalidAction", message))
            }
            (Change::Resource(_), method) => Err(not_allowed(&method)),
        }
    };
    let reply = shared.database.write(work).await?;
    shared.follow(reply.effect.clone()).await?;
    finish(shared, &asked, reply)
}

async fn follow_operation(
    shared: &Shared,
    asked: Asked,
    id: String,
    form: OperationForm,
) -> Result<Response, ArmError> {
    let key = id.clone();
    let found = shared.database.read(move |connection| records::load_operation(connection, &key)).await?;
    let operation = found.ok_or_else(|| {
        ArmError::not_found(
            "OperationNotFound",
            format!("There is no operation `{id}`: operations are kept for a day."),
        )
    })?;
    let running = operation.status == operations::IN_PROGRESS;
    let mut response = match (form, operation.status.as_str()) {
        (OperationForm::Status, _) => Json(operations::status(&operation, &asked.path)).into_response(),
        (OperationForm::Result, operations::IN_PROGRESS) => {
            let mut response = StatusCode::ACCEPTED.into_response();
            let url = format!("https://{}{}?api-version={}", asked.host, asked.path, asked.version);
            response.headers_mut().insert(header::LOCATION, url_value(&url)?);
            response
        }
        (OperationForm::Result, operations::FAILED) => {
            let error = operation.error.clone().unwrap_or_default();
            (StatusCode::CONFLICT, Json(json!({ "error": error }))).into_response()
        }
        (OperationForm::Result, _) if operation.removes => StatusCode::NO_CONTENT.into_response(),
        (OperationForm::Result, _) => {
            let naming = shared.naming.clone();
            let reading = move |connection: &rusqlite::Connection| {
                let resource = records::load(connection, &operation.resource)?;
                resource.map(|resource| resources::show(connection, &resource, &naming)).transpose()
            };
            match shared.database.read(reading).await? {
                Some(resource) => Json(resource).into_response(),
                None => StatusCode::NO_CONTENT.into_response(),
            }
        }
    };
    if running {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(shared.retry_after_seconds));
    }
    Ok(response)
}

fn finish(shared: &Shared, asked: &Asked, reply: Reply) -> Result<Response, ArmError> {
    let body = reply.body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let mut response = (reply.status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    if let Some(etag) = reply.etag {
        headers.insert(header::ETAG, url_value(&format!("\"{etag}\""))?);
    }
    if let Some(poll) = reply.poll {
        let url = url_value(&poll_url(&poll, asked))?;
        match poll.header {
            Header::AsyncOperation => headers.insert("azure-asyncoperation", url),
            Header::Location => headers.insert(header::LOCATION, url),
        };
        headers.insert(header::RETRY_AFTER, HeaderValue::from(shared.retry_after_seconds));
    }
    Ok(response)
}

fn poll_url(poll: &Poll, asked: &Asked) -> String {
    let form = match poll.header {
        Header::AsyncOperation => "operationStatuses",
        Header::Location => "operationResults",
    };
    format!("https://{}{}/{form}/{}?api-version={}", asked.host, poll.base, poll.operation, asked.version)
}

fn url_value(text: &str) -> Result<HeaderValue, ArmError> {
    HeaderValue::from_str(text)
        .map_err(|_| ArmError::bad_request("InvalidHost", "The request's host cannot be part of an address."))
}
