//! Applies a plan, one look at a time.
//!
//! Each call looks at what is on its way and then starts what can start. Before a resource is written
//! it is read again: where it is as desired already there is nothing to do (an earlier step may have
//! died between its PUT and its answer); where it is as the plan saw it, it is written; anything else
//! is somebody else's doing, and the plan is stale.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Direct, READS_AT_ONCE_MAX,
    compare::{Standing, differences, fingerprint, standing},
    order::Ordered,
    references::{references, resolved},
};
use crate::{
    azure::resource_manager::{LongRunning, Reply},
    outcome::{Fault, chain},
    ports::infrastructure::{Advance, Change, PlannedChange, Progress, Resource},
};

/// When to try again what Azure would not take right now and named no time for.
const BUSY_AGAIN: Duration = Duration::from_secs(5);
/// When to read again what somebody else is writing.
const SETTLING_AGAIN: Duration = Duration::from_secs(3);
/// When to try again what a role may not have reached yet.
const ROLE_AGAIN: Duration = Duration::from_secs(15);

/// Codes by which Azure refuses what it would take once a role assignment, or the principal of one,
/// is known everywhere.
const NOT_YET_CODES: [&str; 6] = [
    "AuthorizationFailed",
    "AuthorizationPermissionMismatch",
    "Forbidden",
    "Http403",
    "LinkedAuthorizationFailed",
    "PrincipalNotFound",
];
const ROLE_ASSIGNMENT: &str = "Microsoft.Authorization/roleAssignments";

/// A resource on its way, as it is kept between looks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pending {
    /// Not to be looked at before this time.
    not_before: Timestamp,
    #[serde(flatten)]
    at: At,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "at")]
enum At {
    /// Azure is at work on what we wrote.
    Written { operation: LongRunning },
    /// Nothing of ours is there: to be taken up again from the start.
    Waiting { reason: String },
}

/// What has become of one resource.
enum Became {
    Done(Value),
    Pending(Pending),
    Failed(String),
    Moved,
}

/// What is waited for: each resource that is not on its way though its turn has come, and why. For
/// whoever gives up waiting, and has to say on what.
pub fn waiting(progress: &Progress) -> Vec<(String, String)> {
    let waiting = progress.pending.iter().filter_map(|(key, pending)| {
        let pending: Pending = serde_json::from_value(pending.clone()).ok()?;
        match pending.at {
            At::Waiting { reason } => Some((key.clone(), reason)),
            At::Written { .. } => None,
        }
    });
    waiting.collect()
}

pub(super) async fn advance(
    engine: &Direct,
    desired: &[Resource],
    plan: &[PlannedChange],
    progress: Progress,
) -> Result<Advance, Fault> {
    let doing = "applying the plan";
    let ordered = Ordered::new(doing, desired)?;
    let changes = ordered.changes(doing, plan)?;
    for resource in &ordered.resources {
        if let Change::Refused { reason } = &changes[resource.key.as_str()].change {
            return Ok(Advance::Failed { progress, key: resource.key.clone(), reason: reason.clone() });
        }
    }
    let mut step = Step {
        engine,
        ordered,
        changes,
        now: engine.clock.now(),
        pending: read(&progress)?,
        done: progress.done,
    };
    let before = step.done.len();
    for part in [Part::Written, Part::Startable] {
        if let Some(end) = step.take(part).await? {
            return Ok(end);
        }
    }
    Ok(step.ended(before))
}

fn read(progress: &Progress) -> Result<BTreeMap<String, Pending>, Fault> {
    let pending = progress.pending.iter().map(|(key, value)| {
        let pending = serde_json::from_value(value.clone()).map_err(|source| Fault::Unreadable {
            doing: format!("reading how far `{key}` has come"),
            source: source.into(),
        })?;
        Ok((key.clone(), pending))
    });
    pending.collect()
}

/// Which resources a round is about.
#[derive(Clone, Copy)]
enum Part {
    /// Those that Azure is at work on.
    Written,
    /// Those whose turn has come.
    Startable,
}

/// One call of `advance`.
struct Step<'a> {
    engine: &'a Direct,
    ordered: Ordered<'a>,
    changes: BTreeMap<&'a str, &'a PlannedChange>,
    now: Timestamp,
    done: BTreeMap<String, Value>,
    pending: BTreeMap<String, Pending>,
}

impl Step<'_> {
    /// Takes every resource of the part one look further. Answers only where that ends everything.
    async fn take(&mut self, part: Part) -> Result<Option<Advance>, Fault> {
        let chosen = match part {
            Part::Written => self.written(),
            Part::Startable => self.startable(),
        };
        let step = &*self;
        let looks: Vec<_> = chosen
            .into_iter()
            .map(|resource| async move {
                let became = match step.pending.get(&resource.key).map(|pending| &pending.at) {
                    Some(At::Written { operation }) => step.look(resource, operation).await,
                    Some(At::Waiting { .. }) | None => step.start(resource).await,
                };
                (resource.key.clone(), became)
            })
            .collect();
        let became: Vec<_> = stream::iter(looks).buffered(READS_AT_ONCE_MAX).collect().await;
        self.settle(became)
    }

    /// Notes what has become of each, and only then tells of the first that ends everything: what
    /// was written beside it must not be forgotten.
    fn settle(&mut self, became: Vec<(String, Result<Became, Fault>)>) -> Result<Option<Advance>, Fault> {
        let mut failed = None;
        let mut moved = None;
        let mut fault = None;
        for (key, became) in became {
            match became {
                Ok(Became::Done(body)) => {
                    self.pending.remove(&key);
                    self.done.insert(key, body);
                }
                Ok(Became::Pending(pending)) => {
                    self.pending.insert(key, pending);
                }
                Ok(Became::Failed(reason)) => {
                    self.pending.remove(&key);
                    failed = failed.or(Some((key, reason)));
                }
                Ok(Became::Moved) => moved = moved.or(Some(key)),
                Err(other) => fault = fault.or(Some(other)),
            }
        }
        if let Some((key, reason)) = failed {
            return Ok(Some(Advance::Failed { progress: self.progress(), key, reason }));
        }
        if let Some(key) = moved {
            return Ok(Some(Advance::Moved { key }));
        }
        fault.map_or(Ok(None), Err)
    }

    fn ended(self, done_before: usize) -> Advance {
        let progress = self.progress();
        if progress.done.len() == self.ordered.resources.len() {
            return Advance::Done { progress };
        }
        let went_on = progress.done.len() > done_before;
        let again_in = if went_on && !self.startable().is_empty() {
            Duration::ZERO
        } else {
            let next = self.pending.values().map(|pending| pending.not_before).min();
            let wait = next.map_or(Duration::ZERO, |next| next.duration_since(self.now).unsigned_abs());
            if next.is_some_and(|next| next < self.now) { Duration::ZERO } else { wait }
        };
        Advance::Running { progress, again_in }
    }

    fn progress(&self) -> Progress {
        let pending = self.pending.iter().map(|(key, pending)| {
            let value = serde_json::to_value(pending).expect("texts and times are always JSON");
            (key.clone(), value)
        });
        Progress { done: self.done.clone(), pending: pending.collect() }
    }

    fn is_due(&self, key: &str) -> bool {
        self.pending.get(key).is_none_or(|pending| pending.not_before <= self.now)
    }

    fn is_written(&self, key: &str) -> bool {
        matches!(self.pending.get(key), Some(Pending { at: At::Written { .. }, .. }))
    }

    fn written(&self) -> Vec<&Resource> {
        let resources = self.ordered.resources.iter().copied();
        resources.filter(|resource| self.is_written(&resource.key) && self.is_due(&resource.key)).collect()
    }

    /// What can be started now, as many as may be on their way. Those that wait come last, so that
    /// they keep nobody from starting.
    fn startable(&self) -> Vec<&Resource> {
        let in_flight =
            self.ordered.resources.iter().filter(|resource| self.is_written(&resource.key)).count();
        let ready = |resource: &&Resource| {
            !self.done.contains_key(&resource.key)
                && !self.is_written(&resource.key)
                && self.is_due(&resource.key)
                && self.ordered.needs(&resource.key).all(|need| self.done.contains_key(need))
        };
        let mut ready: Vec<_> = self.ordered.resources.iter().copied().filter(ready).collect();
        ready.sort_by_key(|resource| self.pending.contains_key(&resource.key));
        ready.truncate(self.engine.parallel.saturating_sub(in_flight));
        ready
    }

    async fn look(&self, resource: &Resource, operation: &LongRunning) -> Result<Became, Fault> {
        let at = At::Written { operation: operation.clone() };
        match self.engine.arm.look(operation).await {
            Ok(reply) => Ok(self.replied(resource, reply)),
            Err(fault) => self.withheld(resource, at, fault),
        }
    }

    async fn start(&self, resource: &Resource) -> Result<Became, Fault> {
        match self.try_start(resource).await {
            Ok(became) => Ok(became),
            Err(fault) => {
                let at = At::Waiting { reason: chain(&fault) };
                self.withheld(resource, at, fault)
            }
        }
    }

    async fn try_start(&self, resource: &Resource) -> Result<Became, Fault> {
        let body = resolved(&resource.body, &|key| self.done.get(key));
        if let Some(open) = references(&body).first() {
            let reason = format!("it needs `{}` of `{}`, which Azure did not answer", open.path, open.key);
            return Ok(Became::Failed(reason));
        }
        let planned = self.changes[resource.key.as_str()];
        let actual = self.engine.arm.get(&resource.id, &resource.api_version).await?;
        let body = match actual {
            None if planned.saw.is_none() => body,
            None => return Ok(Became::Moved),
            Some(actual) if standing(&actual) == Standing::Changing => {
                let reason = format!("somebody is writing `{}` at this moment", resource.id);
                return Ok(self.later(SETTLING_AGAIN, At::Waiting { reason }));
            }
            Some(actual) if differences(&body, &actual).is_empty() => return Ok(Became::Done(actual)),
            Some(actual) => {
                let as_planned = planned.saw == Some(fingerprint(&resource.body, &actual));
                if !as_planned || !matches!(planned.change, Change::Update { .. }) {
                    return Ok(Became::Moved);
                }
                with_their_tags(body, &actual)
            }
        };
        let reply = self.engine.arm.put(&resource.id, &resource.api_version, &body).await?;
        Ok(self.replied(resource, reply))
    }

    fn replied(&self, resource: &Resource, reply: Reply) -> Became {
        match reply {
            Reply::Done(body) => Became::Done(body),
            Reply::Running { operation, again_in } => self.later(again_in, At::Written { operation }),
            Reply::Failed { code, detail } if self.is_not_yet(resource, &code) => {
                self.later(ROLE_AGAIN, At::Waiting { reason: format!("{detail} ({code})") })
            }
            Reply::Failed { code, detail } => {
                Became::Failed(format!("Azure could not do it: {detail} ({code})"))
            }
        }
    }

    /// What to do where Azure withheld an answer or refused; `at` is where the resource stays if
    /// that may pass. How long it may take is for the caller to say.
    fn withheld(&self, resource: &Resource, at: At, fault: Fault) -> Result<Became, Fault> {
        match fault {
            Fault::Transient { retry_after, .. } => Ok(self.later(retry_after.unwrap_or(BUSY_AGAIN), at)),
            Fault::Conflict { .. } => Ok(self.later(BUSY_AGAIN, at)),
            Fault::Rejected { ref code, .. } if self.is_not_yet(resource, code) => {
                Ok(self.later(ROLE_AGAIN, at))
            }
            Fault::Rejected { code, detail, .. } => {
                Ok(Became::Failed(format!("Azure refused: {detail} ({code})")))
            }
            Fault::Unreadable { .. } => Err(fault),
        }
    }

    fn later(&self, wait: Duration, at: At) -> Became {
        let not_before = self.now.saturating_add(wait).unwrap_or(Timestamp::MAX);
        Became::Pending(Pending { not_before, at })
    }

    /// Whether a refusal with this code may pass: Azure takes minutes to make a role known, and what
    /// is refused meanwhile is the assignment, or what comes after it.
    fn is_not_yet(&self, resource: &Resource, code: &str) -> bool {
        NOT_YET_CODES.iter().any(|not_yet| not_yet.eq_ignore_ascii_case(code))
            && self.ordered.reaches(&resource.key, &|resource| {
                resource.resource_type.eq_ignore_ascii_case(ROLE_ASSIGNMENT)
            })
    }
}

/// A PUT replaces all tags, so those that somebody else set go along.
fn with_their_tags(mut body: Value, actual: &Value) -> Value {
    if let (Some(Value::Object(ours)), Some(Value::Object(theirs))) =
        (body.get_mut("tags"), actual.get("tags"))
    {
        for (name, value) in theirs {
            if !ours.keys().any(|our| our.eq_ignore_ascii_case(name)) {
                ours.insert(name.clone(), value.clone());
            }
        }
    }
    body
}

#[cfg(test)]
mod tests;
