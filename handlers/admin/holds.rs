//! `GET holds`, `GET holds/{id}`; `POST holds` keeps the platform's own hands off a workload, an
//! environment or everything for a while, and `POST holds/{id}/release` ends that before its time.
//!
//! One hold stands for one thing. A later one takes its place, unless it would end sooner: nobody
//! shortens what another relies on without releasing it. The whole platform is held by operators only.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::{
    http::{self, HttpError},
    writes::{self, Order},
};
use crate::{
    envelope::whole_seconds,
    holds::{Hold, HoldScope, Released},
    ids::{self, EnvironmentId, ModuleId, TenantId},
    invocation::{HttpAnswer, HttpRequest},
    ledger::Commit,
    outcome::Fault,
    platform::Platform,
    ports::store::{Filter, Page, Partition},
    services::{deployment_service::Slot, tenant_runtime_isolation_service::Ground},
};

/// The longest that something is held, in minutes: a week. Who needs longer says so again.
const MINUTES_MAX: i64 = 7 * 24 * 60;

/// The body of a hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    scope: HoldScope,
    environment_id: Option<String>,
    module_id: Option<String>,
    reason: String,
    until: Option<Timestamp>,
    minutes: Option<i64>,
}

/// What is to be held, and until when.
#[derive(Clone, Debug)]
struct Wanted {
    scope: HoldScope,
    partition: Partition,
    environment: Option<EnvironmentId>,
    module: Option<ModuleId>,
    now: Timestamp,
    until: Timestamp,
    /// What is done, in words that are the same when the request is sent again.
    told: String,
}

pub async fn get(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(found(platform, request).await)
}

async fn found(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    let now = platform.clock.now();
    let everything = everything(platform).await?;
    if let Some(id) = http::id(request) {
        let own = platform.ledger.find::<Hold>(&tenant, "holdId", id).await?;
        let hold = own.or(everything.filter(|hold| hold.hold_id == id));
        return hold.map(|hold| view(&hold, now)).ok_or_else(|| not_found(id));
    }
    let equal = http::equal(request, &["environmentId", "moduleId"]);
    // What holds everything holds the tenant's too; it is told once, on the first page.
    let everything = everything.filter(|_| equal.is_empty() && !request.query.contains_key("after"));
    let filter = Filter { equal, newest_first: true, ..Filter::default() };
    let listing = platform.ledger.list::<Hold>(&tenant, &filter, &http::page(request)).await?;
    let wanted = request.query.get("status").filter(|status| !status.is_empty());
    let holds = everything.iter().chain(listing.items.iter().map(|(_, hold)| hold));
    let told = holds.map(|hold| view(hold, now));
    let items = told.filter(|view| wanted.is_none_or(|status| view["status"] == status.as_str())).collect();
    Ok(http::list(items, listing.next))
}

/// The hold of the whole platform, if there is or was one.
async fn everything(platform: &Platform) -> Result<Option<Hold>, Fault> {
    let partition = Hold::platform();
    Ok(platform.ledger.load::<Hold>(&partition, &Hold::id(&partition, None)).await?.state)
}

fn not_found(id: &str) -> HttpError {
    HttpError::not_found(
        "HoldNotFound",
        format!("There is no hold `{id}`; `runtimectl get holds` lists those there are."),
    )
}

fn view(hold: &Hold, now: Timestamp) -> Value {
    let status = match &hold.released {
        Some(_) => "Released",
        None if hold.in_force(now) => "InForce",
        None => "Expired",
    };
    json!({
        "holdId": hold.hold_id,
        "scope": hold.scope,
        "status": status,
        "environmentId": hold.environment_id,
        "moduleId": hold.module_id,
        "reason": hold.reason,
        "by": hold.by,
        "from": whole_seconds::text(hold.from),
        "until": whole_seconds::text(hold.until),
        "released": hold.released.as_ref().map(|released| json!({
            "by": released.by,
            "reason": released.reason,
            "at": whole_seconds::text(released.at),
        })),
    })
}

pub async fn post(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(held(platform, request).await)
}

async fn held(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    let body: Body = http::body(request)?;
    let wanted = wanted(platform, &tenant, &body)?;
    if wanted.scope == HoldScope::Platform {
        operators_only(platform, request)?;
    }
    // Without a key of its own, the same request within a minute is one.
    let minute = (wanted.now.as_second() / 60).to_string();
    let id = Hold::id(&wanted.partition, wanted.module.as_ref());
    let subject = ids::derive(&[&id, &wanted.told, &body.reason, &minute]).to_string();
    let order = Order::with("Hold", request, &subject, &body.reason)?;
    known(platform, &tenant, &wanted).await?;
    writes::patiently(|| try_hold(platform, &wanted, &order)).await
}

fn operators_only(platform: &Platform, request: &HttpRequest) -> Result<(), HttpError> {
    if http::is_operator(platform, request) {
        return Ok(());
    }
    let message = format!(
        "The whole platform is held and released by its operators only, whose keys the setting OPERATOR_KEYS names; yours is `{}`. Hold an environment or a workload instead.",
        http::actor(request)
    );
    Err(HttpError::new(403, "OperatorsOnly", message))
}

fn invalid(field: &str, what: impl std::fmt::Display) -> HttpError {
    HttpError::bad_request("BodyInvalid", format!("The body's field `{field}`: {what}."))
}

fn wanted(platform: &Platform, tenant: &TenantId, body: &Body) -> Result<Wanted, HttpError> {
    let now = platform.clock.now();
    let (until, lasting) = end(body, now)?;
    let environment = body.environment_id.as_deref().map(|id| {
        EnvironmentId::of_ours(id).map_err(|error| invalid("environmentId", format!("it {error}")))
    });
    let module = body
        .module_id
        .as_deref()
        .map(|id| id.parse::<ModuleId>().map_err(|error| invalid("moduleId", format!("it {error}"))));
    let (environment, module) = (environment.transpose()?, module.transpose()?);
    let superfluous = |field| invalid(field, "it does not go with this scope; leave it out");
    let missing = |field| invalid(field, "this scope needs it");
    let (partition, what) = match (body.scope, &environment, &module) {
        (HoldScope::Platform, None, None) => (Hold::platform(), "the whole platform".to_owned()),
        (HoldScope::Platform, Some(_), _) => return Err(superfluous("environmentId")),
        (HoldScope::Platform | HoldScope::Environment, _, Some(_)) => return Err(superfluous("moduleId")),
        (HoldScope::Environment | HoldScope::Workload, None, _) => return Err(missing("environmentId")),
        (HoldScope::Workload, Some(_), None) => return Err(missing("moduleId")),
        (HoldScope::Environment, Some(environment), None) => {
            (Partition::environment(tenant, environment.as_str()), format!("`{environment}`"))
        }
        (HoldScope::Workload, Some(environment), Some(module)) => {
            (Partition::environment(tenant, environment.as_str()), format!("`{module}` of `{environment}`"))
        }
    };
    let told = format!("held {what} {lasting}");
    Ok(Wanted { scope: body.scope, partition, environment, module, now, until, told })
}

/// When a hold is over, and how that was said.
fn end(body: &Body, now: Timestamp) -> Result<(Timestamp, String), HttpError> {
    let bounds = format!("a hold lasts at least a minute and at most {MINUTES_MAX} minutes");
    let (until, lasting) = match (body.until, body.minutes) {
        (Some(until), None) => (until, format!("until {}", whole_seconds::text(until))),
        (None, Some(minutes)) if (1..=MINUTES_MAX).contains(&minutes) => {
            (now + SignedDuration::from_mins(minutes), format!("for {minutes} minutes"))
        }
        (None, Some(_)) => return Err(invalid("minutes", bounds)),
        (None, None) | (Some(_), Some(_)) => {
            return Err(invalid("minutes", "say `minutes` or `until`, one of them; every hold ends"));
        }
    };
    let lasts = until.duration_since(now);
    if lasts < SignedDuration::from_mins(1) || lasts > SignedDuration::from_mins(MINUTES_MAX) {
        return Err(invalid("until", format!("{bounds}; it is {} now", whole_seconds::text(now))));
    }
    Ok((until, lasting))
}

/// A hold of what is not there protects nothing: most likely a name is mistyped.
async fn known(platform: &Platform, tenant: &TenantId, wanted: &Wanted) -> Result<(), HttpError> {
    let Some(environment) = &wanted.environment else { return Ok(()) };
    if Ground::find(&platform.ledger, tenant, environment).await?.is_none() {
        let message = format!("There is no environment `{environment}`.");
        return Err(HttpError::not_found("EnvironmentNotFound", message));
    }
    let Some(module) = &wanted.module else { return Ok(()) };
    if platform.ledger.load::<Slot>(&wanted.partition, &Slot::id(module)).await?.state.is_none() {
        let message = format!(
            "`{module}` was never deployed to `{environment}`; hold the environment as a whole instead."
        );
        return Err(HttpError::not_found("WorkloadNotFound", message));
    }
    Ok(())
}

async fn try_hold(
    platform: &Platform,
    wanted: &Wanted,
    order: &Order,
) -> Result<Result<Value, HttpError>, Fault> {
    let ledger = &platform.ledger;
    let id = Hold::id(&wanted.partition, wanted.module.as_ref());
    let (there, loaded) = ledger.load::<Hold>(&wanted.partition, &id).await?.take();
    match (order.done(ledger, &wanted.partition, &wanted.told).await?, &there) {
        (Err(other), _) => return Ok(Err(other)),
        (Ok(true), Some(there)) => return Ok(Ok(view(there, wanted.now))),
        (Ok(true | false), _) => {}
    }
    if let Some(longer) = there.filter(|there| there.in_force(wanted.now) && there.until > wanted.until) {
        let message = format!(
            "{}. A hold is not shortened by another one: hold at least as long, or release `{id}` first.",
            longer.sentence()
        );
        return Ok(Err(HttpError::new(409, "HeldLonger", message)));
    }
    let hold = Hold {
        hold_id: id,
        scope: wanted.scope,
        environment_id: wanted.environment.as_ref().map(ToString::to_string),
        module_id: wanted.module.clone(),
        reason: order.reason.clone(),
        by: order.actor.clone(),
        from: wanted.now,
        until: wanted.until,
        released: None,
    };
    let mut commit = Commit::new(wanted.partition.clone(), wanted.now);
    commit.put(&loaded, &hold)?;
    order.remember(&mut commit, &wanted.told)?;
    ledger.commit(commit).await?;
    info!("`{}` {}: {}", order.actor, wanted.told, order.reason);
    Ok(Ok(view(&hold, wanted.now)))
}

pub async fn release(platform: &Platform, request: &HttpRequest) -> HttpAnswer {
    http::answer(released(platform, request).await)
}

async fn released(platform: &Platform, request: &HttpRequest) -> Result<Value, HttpError> {
    let tenant = http::tenant(request)?;
    let id = http::id(request).unwrap_or_default();
    let partition = if id == Hold::id(&Hold::platform(), None) {
        operators_only(platform, request)?;
        Hold::platform()
    } else {
        let equal = vec![("holdId".to_owned(), id.to_owned())];
        let filter = Filter { equal, ..Filter::default() };
        let found = platform.ledger.list::<Hold>(&tenant, &filter, &Page::first(1)).await?;
        found.items.into_iter().next().map(|(partition, _)| partition).ok_or_else(|| not_found(id))?
    };
    let order = Order::read("ReleaseHold", request, id)?;
    writes::patiently(|| try_release(platform, &partition, id, &order)).await
}

async fn try_release(
    platform: &Platform,
    partition: &Partition,
    id: &str,
    order: &Order,
) -> Result<Result<Value, HttpError>, Fault> {
    let (ledger, now) = (&platform.ledger, platform.clock.now());
    let (there, loaded) = ledger.load::<Hold>(partition, id).await?.take();
    let Some(mut hold) = there else { return Ok(Err(not_found(id))) };
    // The same hold may be given again, and released again: each is an order of its own.
    let order = order.about(&format!("{id}-{}", hold.from));
    let told = format!("released `{id}`");
    match order.done(ledger, partition, &told).await? {
        Err(other) => return Ok(Err(other)),
        Ok(true) => return Ok(Ok(view(&hold, now))),
        Ok(false) => {}
    }
    if !hold.in_force(now) {
        let message = format!("`{id}` holds nothing any more: it was released or has expired.");
        return Ok(Err(HttpError::new(409, "NotInForce", message)));
    }
    hold.released = Some(Released { by: order.actor.clone(), reason: order.reason.clone(), at: now });
    let mut commit = Commit::new(partition.clone(), now);
    commit.put(&loaded, &hold)?;
    order.remember(&mut commit, &told)?;
    ledger.commit(commit).await?;
    info!("`{}` {told}: {}", order.actor, order.reason);
    Ok(Ok(view(&hold, now)))
}
