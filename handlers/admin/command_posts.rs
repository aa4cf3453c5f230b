//! `POST environments`, `POST deployments`, `POST secret-bindings/{id}/rotate` and so on: a command over
//! HTTP.
//!
//! The body is the command's payload. What becomes of it is the same as of a command that came by
//! Service Bus, because it goes there: the canonical message is committed to the outbox of the caller's
//! partition, with a memory of the request, and sent to the command's queue from there. So an answer of
//! 202 outlives the process. `GET commands/{eventId}` tells how it ends.
//!
//! A request that is sent again with its `Idempotency-Key` is the same command: the eventId is derived
//! from the key. The shape of the payload is judged here, everything else by the command's own function.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tracing::info;
use uuid::Uuid;

use super::{
    http::{self, HttpError},
    writes,
};
use crate::{
    delivery::{self, Command},
    envelope::Envelope,
    events::queue_name,
    ids::{self, EventId, IdError, TenantId},
    invocation::{HttpAnswer, HttpRequest},
    ledger::{Commit, InboxEntry, OutboxMessage, inbox_id},
    masstransit::{self, PUBLISHED_BYTES_MAX, WireFormat},
    outbox_relay,
    outcome::Fault,
    platform::Platform,
    ports::store::Partition,
    services::{
        deployment_service::RuntimeDeployment, runtime_drift_detection_service::RuntimeDriftFinding,
        secret_binding_service::SecretBinding,
    },
};

/// The outcome that the memory of a request has; what the command's own function remembers replaces it.
pub const SENT: &str = "Sent";
/// The version of what our commands carry, as their properties tell it.
const SCHEMA_VERSION: &str = "1";

/// Sends a command.
pub async fn post<C: Command>(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    match sent::<C>(platform, request).await {
        Ok((body, id)) => http::accepted(body, &format!("commands/{id}")),
        Err(error) => error.answer(),
    }
}

/// A command, ready to be sent.
struct Posted {
    envelope: Envelope,
    /// The function that remembers the request.
    function: String,
    traceparent: Option<String>,
    actor: String,
    /// Of all that makes it another command: the same key with another digest is refused.
    digest: String,
}

async fn sent<C: Command>(platform: &Platform, request: &HttpRequest) -> Result<(Value, EventId), HttpError> {
    let tenant = http::tenant(request)?;
    let payload = payload::<C>(platform, request, &tenant).await?;
    let posted = compose::<C>(platform, request, tenant, payload)?;
    let body = writes::patiently(|| commit(platform, &posted)).await?;
    Ok((body, posted.envelope.event_id))
}

/// The member that the id in a command's path fills.
fn member(command: &str) -> Option<&'static str> {
    match command {
        "RollbackDeployment" => Some("deploymentId"),
        "RotateSecret" => Some("secretBindingId"),
        "RemediateDrift" => Some("findingId"),
        _ => None,
    }
}

/// The environment of the thing that a command's path names; none where the tenant has no such thing.
async fn environment_of(
    platform: &Platform,
    tenant: &TenantId,
    member: &str,
    id: &str,
) -> Result<Option<String>, Fault> {
    let ledger = &platform.ledger;
    Ok(match member {
        "deploymentId" => ledger
            .find::<RuntimeDeployment>(tenant, member, id)
            .await?
            .map(|deployment| deployment.environment_id.to_string()),
        "secretBindingId" => ledger
            .find::<SecretBinding>(tenant, member, id)
            .await?
            .map(|binding| binding.environment_id.to_string()),
        "findingId" => ledger
            .find::<RuntimeDriftFinding>(tenant, member, id)
            .await?
            .map(|finding| finding.environment_id.to_string()),
        _ => None,
    })
}

/// The command's payload: the body, and what the path says.
async fn payload<C: Command>(
    platform: &Platform,
    request: &HttpRequest,
    tenant: &TenantId,
) -> Result<Value, HttpError> {
    let named = member(C::NAME).zip(http::id(request));
    let without_body = request.body.as_deref().is_none_or(|body| body.trim().is_empty());
    let mut payload: Map<String, Value> =
        if named.is_some() && without_body { Map::new() } else { http::body(request)? };
    if let Some((member, id)) = named {
        let Some(environment) = environment_of(platform, tenant, member, id).await? else {
            return Err(HttpError::not_found("NotFound", format!("There is no `{id}`.")));
        };
        put(&mut payload, member, id)?;
        put(&mut payload, "environmentId", &environment)?;
    }
    if C::NAME == "RemediateDrift" {
        // Whoever asks over HTTP is a person.
        payload.entry("mode").or_insert_with(|| json!("Manual"));
    }
    let payload = Value::Object(payload);
    delivery::read_payload::<C>(&payload).map_err(|problem| {
        let message = match problem.strip_prefix(".: ") {
            Some(of_the_whole) => format!("The body: {of_the_whole}."),
            None => format!("The body's field {problem}."),
        };
        HttpError::bad_request("PayloadInvalid", message)
    })?;
    Ok(payload)
}

fn put(payload: &mut Map<String, Value>, member: &str, value: &str) -> Result<(), HttpError> {
    match payload.get(member) {
        None | Some(Value::Null) => {
            payload.insert(member.to_owned(), json!(value));
            Ok(())
        }
        Some(given) if given == value => Ok(()),
        Some(_) => {
            let message = format!(
                "The body's field `{member}` contradicts the path, which means `{value}`; leave the field out."
            );
            Err(HttpError::bad_request("BodyInvalid", message))
        }
    }
}

/// An id that a header gives.
fn header<T: std::str::FromStr<Err = IdError>>(
    request: &HttpRequest,
    name: &str,
) -> Result<Option<T>, HttpError> {
    let Some(text) = request.headers.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse()
        .map(Some)
        .map_err(|problem| HttpError::bad_request("HeaderInvalid", format!("The header {name} {problem}.")))
}

fn compose<C: Command>(
    platform: &Platform,
    request: &HttpRequest,
    tenant: TenantId,
    payload: Value,
) -> Result<Posted, HttpError> {
    let project = header(request, "x-cs-project-id")?;
    if C::NAME == "ProvisionEnvironment" && project.is_none() {
        return Err(HttpError::bad_request(
            "ProjectMissing",
            "The header x-cs-project-id is missing: an environment is its tenant, project and name.",
        ));
    }
    let module = match header(request, "x-cs-module-id")? {
        None => module_of(&payload),
        given => given,
    };
    let id = match http::idempotency_key(request)? {
        // Not the key itself: two tenants may have the same one, and the broker would drop the second.
        Some(key) => ids::derive(&["http-command", tenant.as_str(), C::NAME, key]),
        None => Uuid::new_v4(),
    };
    let eight = &id.simple().to_string()[..8];
    let envelope = Envelope {
        event_id: own(format!("evt-{id}"))?,
        event_type: C::NAME.to_owned(),
        tenant_id: tenant,
        project_id: project,
        module_id: module,
        trace_id: match header(request, "x-cs-trace-id")? {
            Some(given) => given,
            None => own(format!("trace-{eight}"))?,
        },
        correlation_id: match header(request, "x-cs-correlation-id")? {
            Some(given) => given,
            None => own(format!("corr-{eight}"))?,
        },
        causation_id: None,
        occurred_at: platform.clock.now(),
        payload,
    };
    let told = json!([
        envelope.project_id,
        envelope.module_id,
        envelope.trace_id,
        envelope.correlation_id,
        envelope.payload
    ]);
    let digest = Sha256::digest(told.to_string().as_bytes());
    let traceparent = request.headers.get("traceparent").filter(|text| masstransit::is_traceparent(text));
    Ok(Posted {
        function: format!("Post{}", C::NAME),
        traceparent: traceparent.cloned(),
        actor: http::actor(request).to_owned(),
        digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        envelope,
    })
}

/// An id of our own making.
fn own<T: std::str::FromStr<Err = IdError>>(text: String) -> Result<T, HttpError> {
    let made = text.parse();
    made.map_err(|error: IdError| {
        Fault::Unreadable { doing: "making an id".to_owned(), source: error.into() }.into()
    })
}

/// The module that a payload names, where it names one.
fn module_of<T: std::str::FromStr<Err = IdError>>(payload: &Value) -> Option<T> {
    let named = payload["moduleId"].as_str().or_else(|| payload["workloads"][0]["moduleId"].as_str());
    named.and_then(|module| module.parse().ok())
}

/// Commits the message and the memory of the request, once.
async fn commit(platform: &Platform, posted: &Posted) -> Result<Result<Value, HttpError>, Fault> {
    let envelope = &posted.envelope;
    let environment = delivery::named_environment(&envelope.payload);
    let partition = Partition::environment(&envelope.tenant_id, &environment);
    let id = inbox_id(&posted.function, envelope.event_id.as_str());
    let told = format!("`{}` sent it over HTTP; its SHA-256 is {}", posted.actor, posted.digest);
    if let Some(before) = platform.ledger.load::<InboxEntry>(&partition, &id).await?.state {
        if before.detail.is_some_and(|detail| detail.ends_with(&posted.digest)) {
            return Ok(Ok(view(posted, &environment)));
        }
        let message =
            "The Idempotency-Key was used for another command; send this one with a key of its own.";
        return Ok(Err(HttpError::new(422, "IdempotencyKeyReused", message)));
    }
    let queue = queue_name(&envelope.event_type);
    let published = masstransit::publish(
        envelope,
        SCHEMA_VERSION,
        WireFormat::Raw,
        None,
        posted.traceparent.as_deref(),
        &queue,
        &platform.namespace,
    );
    if published.body.len() > PUBLISHED_BYTES_MAX {
        let message = format!(
            "The command has {} bytes, {PUBLISHED_BYTES_MAX} are allowed: what is large belongs into a store, and its address into the command.",
            published.body.len()
        );
        return Ok(Err(HttpError::new(413, "TooLarge", message)));
    }
    let mut commit = Commit::new(partition, platform.clock.now());
    commit.message(&OutboxMessage {
        queue,
        message_id: envelope.event_id.broker_message_id().to_string(),
        content_type: published.content_type.to_owned(),
        body: BASE64_STANDARD.encode(published.body),
        properties: published.properties,
        scheduled_at: None,
        recorded_at: commit.now,
    })?;
    commit.remember(&InboxEntry {
        event_id: envelope.event_id.to_string(),
        event_type: envelope.event_type.clone(),
        function: posted.function.clone(),
        handled_at: commit.now,
        environment_id: (environment != "_").then(|| environment.clone()),
        operation_id: None,
        outcome: SENT.to_owned(),
        outcome_event_id: None,
        detail: Some(told),
    })?;
    let committed = platform.ledger.commit(commit).await?;
    info!("`{}` sent {} `{}` over HTTP", posted.actor, envelope.event_type, envelope.event_id);
    outbox_relay::publish(platform, committed).await;
    Ok(Ok(view(posted, &environment)))
}

fn view(posted: &Posted, environment: &str) -> Value {
    let Envelope { event_id, event_type, trace_id, correlation_id, .. } = &posted.envelope;
    json!({
        "eventId": event_id,
        "commandType": event_type,
        "status": SENT,
        "environmentId": (environment != "_").then_some(environment),
        "correlationId": correlation_id,
        "traceId": trace_id,
        "see": format!("{}commands/{event_id}", http::ROUTES),
    })
}
