//! `GET drift/suppressions`; `POST drift/suppressions` has a drift left alone for a while: by whom, why,
//! and until when. What is critical cannot be suppressed.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::{
    http::{self, HttpError},
    writes,
};
use crate::{
    envelope::whole_seconds,
    events::DriftKind,
    ids::{self, EnvironmentId, TenantId},
    invocation::{HttpAnswer, HttpRequest},
    ledger::{Commit, InboxEntry, inbox_id},
    outcome::Fault,
    platform::Platform,
    ports::store::{Filter, Partition},
    services::{
        runtime_drift_detection_service::{
            Suppression,
            state::Match,
            suppressions::{self, SUPPRESSIONS_MAX},
        },
        tenant_runtime_isolation_service::Ground,
    },
};

const FUNCTION: &str = "SuppressDrift";
/// The longest that a drift may be left alone, in days.
const DAYS_MAX: i64 = 90;
/// The longest reason, and the longest pattern, in characters.
const CHARACTERS_MAX: usize = 500;

/// The body.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Suppress {
    environment_id: String,
    #[serde(rename = "match")]
    matches: Match,
    reason: String,
    expires_at: Timestamp,
}

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    let equal = http::equal(request, &["environmentId"]);
    let filter = Filter { equal, newest_first: true, ..Filter::default() };
    let listing = platform.ledger.list::<Suppression>(&tenant, &filter, &http::page(request)).await?;
    let now = platform.clock.now();
    let items = listing.items.iter().map(|(_, suppression)| view(suppression, now)).collect();
    Ok(http::list(items, listing.next))
}

fn view(suppression: &Suppression, now: Timestamp) -> Value {
    json!({
        "suppressionId": suppression.suppression_id,
        "environmentId": suppression.environment_id,
        "match": suppression.matches,
        "reason": suppression.reason,
        "createdBy": suppression.created_by,
        "createdAt": whole_seconds::text(suppression.created_at),
        "expiresAt": whole_seconds::text(suppression.expires_at),
        "inForce": now < suppression.expires_at,
    })
}

pub async fn post(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(suppressed(platform, request).await)
}

async fn suppressed(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    let body: Suppress = http::body(request)?;
    let now = platform.clock.now();
    let environment = validate(&body, now)?;
    let given = http::idempotency_key(request)?;
    let made = ids::derive(&[
        "drift-suppression",
        tenant.as_str(),
        environment.as_str(),
        given.unwrap_or_default(),
        &format!("{:?} {} {}", body.matches, body.reason, body.expires_at),
    ]);
    let suppression = Suppression {
        suppression_id: format!("suppression-{}", &made.simple().to_string()[..8]),
        environment_id: environment,
        matches: body.matches,
        reason: body.reason.trim().to_owned(),
        created_by: http::actor(request).to_owned(),
        created_at: now,
        expires_at: body.expires_at,
    };
    writes::patiently(|| make(platform, &tenant, &suppression, given)).await
}

fn validate(body: &Suppress, now: Timestamp) -> Result<EnvironmentId, HttpError> {
    let invalid = |message: String| HttpError::bad_request("BodyInvalid", message);
    let environment = EnvironmentId::of_ours(&body.environment_id)
        .map_err(|error| invalid(format!("The body's field `environmentId` {error}.")))?;
    let Match { kind, resource, path } = &body.matches;
    if kind.is_none() && resource.is_none() && path.is_none() {
        return Err(invalid(
            "The body's field `match`: name a kind, a resource or a path; a suppression of everything would hide everything.".to_owned(),
        ));
    }
    if matches!(
        kind,
        Some(
            DriftKind::NetworkPolicyMismatch
                | DriftKind::IsolationMismatch
                | DriftKind::SecretVersionMismatch
        )
    ) {
        return Err(invalid(
            "The body's field `match.kind`: drift of this kind is critical and cannot be suppressed; put it right.".to_owned(),
        ));
    }
    let too_long = |text: &str| text.chars().count() > CHARACTERS_MAX;
    if [resource, path].into_iter().flatten().any(|glob| too_long(glob)) {
        return Err(invalid(format!(
            "The body's field `match`: a pattern has at most {CHARACTERS_MAX} characters."
        )));
    }
    if body.reason.trim().is_empty() || too_long(&body.reason) {
        return Err(invalid(format!(
            "The body's field `reason`: say why in 1 to {CHARACTERS_MAX} characters."
        )));
    }
    let latest = now + SignedDuration::from_hours(24 * DAYS_MAX);
    if body.expires_at <= now || body.expires_at > latest {
        return Err(invalid(format!(
            "The body's field `expiresAt`: it must end after {} and not after {}, which is {DAYS_MAX} days.",
            whole_seconds::text(now),
            whole_seconds::text(latest)
        )));
    }
    Ok(environment)
}

/// Decides once; a request that is sent again finds what it made.
async fn make(
    platform: &Platform,
    tenant: &TenantId,
    suppression: &Suppression,
    key: Option<&str>,
) -> Result<Result<Value, HttpError>, Fault> {
    let ledger = &platform.ledger;
    let environment = &suppression.environment_id;
    if Ground::find(ledger, tenant, environment).await?.is_none() {
        let message = format!("There is no environment `{environment}`.");
        return Ok(Err(HttpError::not_found("EnvironmentNotFound", message)));
    }
    let partition = Partition::environment(tenant, environment.as_str());
    let id = &suppression.suppression_id;
    if let Some(there) = ledger.load::<Suppression>(&partition, id).await?.state {
        return Ok(Ok(view(&there, platform.clock.now())));
    }
    let order = format!("http-{}", key.unwrap_or(id));
    if ledger.load::<InboxEntry>(&partition, &inbox_id(FUNCTION, &order)).await?.state.is_some() {
        let message =
            "The Idempotency-Key was used for another suppression; send this one with a key of its own.";
        return Ok(Err(HttpError::new(422, "IdempotencyKeyReused", message)));
    }
    let mut commit = Commit::new(partition, suppression.created_at);
    if !suppressions::add(ledger, &mut commit, suppression).await? {
        let message = format!(
            "`{environment}` has {SUPPRESSIONS_MAX} suppressions already; wait for some to expire, or use wider patterns."
        );
        return Ok(Err(HttpError::new(409, "TooManySuppressions", message)));
    }
    let told = format!("`{}` suppressed drift: {}", suppression.created_by, suppression.reason);
    commit.remember(&InboxEntry {
        event_id: order,
        event_type: FUNCTION.to_owned(),
        function: FUNCTION.to_owned(),
        handled_at: commit.now,
        environment_id: Some(environment.to_string()),
        operation_id: None,
        outcome: "Accepted".to_owned(),
        outcome_event_id: None,
        detail: Some(told.clone()),
    })?;
    ledger.commit(commit).await?;
    info!("{told} ({id})");
    Ok(Ok(view(suppression, suppression.created_at)))
}
