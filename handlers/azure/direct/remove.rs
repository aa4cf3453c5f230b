//! Removes a list of resources, one look at a time: each after those that need it.
//!
//! Nothing there is gone, so a step that died is simply taken again. What Azure will not delete is told
//! with Azure's own reason, and what that one needs stays with it. A resource group goes with all that
//! is in it, so it is looked into first: one that holds anything of somebody else's stays.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Direct, READS_AT_ONCE_MAX, order::Ordered};
use crate::{
    azure::resource_manager::{LongRunning, Reply},
    outcome::Fault,
    ports::infrastructure::{Kept, Removal, Removing, Resource},
};

const GROUP: &str = "Microsoft.Resources/resourceGroups";
/// The tag by which what the platform made is told from what somebody else did.
const OWNER_TAG: &str = "cs-managed-by";
/// When to try again what Azure would not take right now and named no time for.
const BUSY_AGAIN: Duration = Duration::from_secs(5);
/// When to try again what something that is gone still holds on to.
const IN_USE_AGAIN: Duration = Duration::from_secs(15);
/// Times that it is tried again; together with the pause, a quarter of an hour.
const IN_USE_MAX: u32 = 60;
/// Parts of codes by which Azure says that something still needs the resource: it takes minutes until
/// what was deleted is forgotten everywhere.
const IN_USE_CODES: [&str; 3] = ["InUse", "NotEmpty", "StillAssociated"];
/// Resources of others that are told by name.
const OTHERS_TOLD_MAX: usize = 3;

/// A resource on its way out, as it is kept between looks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pending {
    /// Not to be looked at before this time.
    not_before: Timestamp,
    /// What Azure is at work on; none where it has to be asked again.
    operation: Option<LongRunning>,
    /// Times that it was refused because something still needs it.
    refused: u32,
}

/// What has become of one resource.
enum Became {
    Gone,
    Pending(Pending),
    Kept(Kept),
}

pub(super) async fn remove(
    engine: &Direct,
    desired: &[Resource],
    removal: Removal,
) -> Result<Removing, Fault> {
    let ordered = Ordered::new("removing the infrastructure", desired)?;
    let mut step = Step { engine, now: engine.clock.now(), pending: read(&removal)?, removal };
    let before = step.removal.gone.len() + step.removal.kept.len();
    step.keep_what_is_needed(&ordered);
    let turn: Vec<&Resource> = step.turn(&ordered);
    let looks: Vec<_> = {
        let step = &step;
        turn.into_iter()
            .map(|resource| async move { (resource.key.clone(), step.take(resource, desired).await) })
            .collect()
    };
    let became: Vec<_> = stream::iter(looks).buffered(READS_AT_ONCE_MAX).collect().await;
    let mut fault = None;
    for (key, became) in became {
        match became {
            Ok(became) => step.settle(key, became),
            Err(other) => fault = fault.or(Some(other)),
        }
    }
    step.keep_what_is_needed(&ordered);
    step.ended(&ordered, before, fault)
}

fn read(removal: &Removal) -> Result<BTreeMap<String, Pending>, Fault> {
    let pending = removal.pending.iter().map(|(key, value)| {
        let pending = serde_json::from_value(value.clone()).map_err(|source| Fault::Unreadable {
            doing: format!("reading how far removing `{key}` has come"),
            source: source.into(),
        })?;
        Ok((key.clone(), pending))
    });
    pending.collect()
}

/// One call of `remove`.
struct Step<'a> {
    engine: &'a Direct,
    now: Timestamp,
    removal: Removal,
    pending: BTreeMap<String, Pending>,
}

impl Step<'_> {
    fn is_settled(&self, key: &str) -> bool {
        self.removal.gone.contains(key) || self.removal.kept.contains_key(key)
    }

    /// What a resource that stays needs stays too.
    fn keep_what_is_needed(&mut self, ordered: &Ordered<'_>) {
        // Those that need come after those that are needed, so one pass from the end goes all the way.
        for resource in ordered.resources.iter().rev() {
            let Some(kept) = self.removal.kept.get(&resource.key).cloned() else { continue };
            for need in ordered.needs(&resource.key) {
                if !self.is_settled(need) && !self.pending.contains_key(need) {
                    let reason = format!("`{}`, which needs it, stays", resource.key);
                    self.removal.kept.insert(need.to_owned(), Kept { reason, must: kept.must });
                }
            }
        }
    }

    /// What can be looked at or begun now, as many as may be on their way.
    fn turn<'r>(&self, ordered: &Ordered<'r>) -> Vec<&'r Resource> {
        let is_due = |key: &str| self.pending.get(key).is_none_or(|pending| pending.not_before <= self.now);
        let is_needed = |key: &str| {
            ordered.resources.iter().any(|other| {
                !self.removal.gone.contains(&other.key) && ordered.needs(&other.key).any(|need| need == key)
            })
        };
        let on_their_way = self.pending.values().filter(|pending| pending.operation.is_some()).count();
        let mut free = self.engine.parallel.saturating_sub(on_their_way);
        let mut turn = Vec::new();
        for resource in ordered.resources.iter().rev() {
            let key = resource.key.as_str();
            if self.is_settled(key) || !is_due(key) {
                continue;
            }
            let is_on_its_way = self.pending.get(key).is_some_and(|pending| pending.operation.is_some());
            if is_on_its_way {
                turn.push(*resource);
            } else if free > 0 && !is_needed(key) {
                free -= 1;
                turn.push(*resource);
            }
        }
        turn
    }

    async fn take(&self, resource: &Resource, desired: &[Resource]) -> Result<Became, Fault> {
        let arm = &self.engine.arm;
        let operation = self.pending.get(&resource.key).and_then(|pending| pending.operation.as_ref());
        let reply = match operation {
            Some(operation) => arm.look(operation).await,
            None => {
                if resource.resource_type.eq_ignore_ascii_case(GROUP)
                    && let Some(kept) = self.others_in(resource, desired).await?
                {
                    return Ok(Became::Kept(kept));
                }
                arm.delete(&resource.id, &resource.api_version).await
            }
        };
        match reply {
            Ok(Reply::Done(_)) => Ok(Became::Gone),
            Ok(Reply::Running { operation, again_in }) => Ok(self.later(again_in, Some(operation), 0)),
            Ok(Reply::Failed { code, detail }) | Err(Fault::Rejected { code, detail, .. }) => {
                Ok(self.refused(resource, &code, &detail))
            }
            Err(Fault::Transient { retry_after, .. }) => {
                Ok(self.later(retry_after.unwrap_or(BUSY_AGAIN), operation.cloned(), 0))
            }
            Err(Fault::Conflict { .. }) => Ok(self.later(BUSY_AGAIN, operation.cloned(), 0)),
            Err(fault @ Fault::Unreadable { .. }) => Err(fault),
        }
    }

    fn refused(&self, resource: &Resource, code: &str, detail: &str) -> Became {
        // A resource whose parent is gone is gone with it.
        if code.ends_with("NotFound") {
            return Became::Gone;
        }
        let refused = self.pending.get(&resource.key).map_or(0, |pending| pending.refused) + 1;
        if refused < IN_USE_MAX && IN_USE_CODES.iter().any(|part| code.contains(part)) {
            return self.later(IN_USE_AGAIN, None, refused);
        }
        Became::Kept(Kept { reason: format!("Azure does not delete it: {detail} ({code})"), must: false })
    }

    /// Whose resources a group holds, beside ours.
    async fn others_in(&self, group: &Resource, desired: &[Resource]) -> Result<Option<Kept>, Fault> {
        let path = format!("{}/resources", group.id);
        let found = match self.engine.arm.list(&path, &group.api_version).await {
            Ok(found) => found,
            Err(Fault::Rejected { code, .. }) if code.ends_with("NotFound") => return Ok(None),
            Err(fault) => return Err(fault),
        };
        let owner = group.body.pointer(&format!("/tags/{OWNER_TAG}")).and_then(Value::as_str);
        let text = |value: &Value, name: &str| {
            value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let is_ours = |found: &Value| {
            let id = text(found, "id").to_ascii_lowercase();
            let listed = desired.iter().any(|ours| {
                let ours = ours.id.to_ascii_lowercase();
                id == ours || (ours != group.id.to_ascii_lowercase() && id.starts_with(&format!("{ours}/")))
            });
            let tag = found.pointer(&format!("/tags/{OWNER_TAG}")).and_then(Value::as_str);
            listed || (owner.is_some() && tag == owner)
        };
        let others: Vec<String> =
            found.iter().filter(|found| !is_ours(found)).map(|found| text(found, "name")).collect();
        if others.is_empty() {
            return Ok(None);
        }
        let named: Vec<_> = others.iter().take(OTHERS_TOLD_MAX).map(|name| format!("`{name}`")).collect();
        let reason = format!(
            "it holds {} of somebody else, {}{}, which would go with it",
            if others.len() == 1 { "a resource".to_owned() } else { format!("{} resources", others.len()) },
            named.join(", "),
            if others.len() > OTHERS_TOLD_MAX { " and more" } else { "" }
        );
        Ok(Some(Kept { reason, must: true }))
    }

    fn later(&self, wait: Duration, operation: Option<LongRunning>, refused: u32) -> Became {
        let not_before = self.now.saturating_add(wait).unwrap_or(Timestamp::MAX);
        Became::Pending(Pending { not_before, operation, refused })
    }

    fn settle(&mut self, key: String, became: Became) {
        match became {
            Became::Gone => {
                self.pending.remove(&key);
                self.removal.gone.insert(key);
            }
            Became::Pending(pending) => {
                self.pending.insert(key, pending);
            }
            Became::Kept(kept) => {
                self.pending.remove(&key);
                self.removal.kept.insert(key, kept);
            }
        }
    }

    fn ended(
        mut self,
        ordered: &Ordered<'_>,
        before: usize,
        fault: Option<Fault>,
    ) -> Result<Removing, Fault> {
        let settled = self.removal.gone.len() + self.removal.kept.len();
        if let Some(fault) = fault.filter(|_| settled == before) {
            return Err(fault);
        }
        let pending = self.pending.iter().map(|(key, pending)| {
            (key.clone(), serde_json::to_value(pending).expect("texts and times are always JSON"))
        });
        self.removal.pending = pending.collect();
        if ordered.resources.iter().all(|resource| self.is_settled(&resource.key)) {
            return Ok(Removing::Done { removal: self.removal });
        }
        let next = self.pending.values().map(|pending| pending.not_before).min();
        let again_in = match next {
            Some(next) if settled == before && next > self.now => {
                next.duration_since(self.now).unsigned_abs()
            }
            Some(_) | None => Duration::ZERO,
        };
        Ok(Removing::Running { removal: self.removal, again_in })
    }
}

#[cfg(test)]
mod tests;
