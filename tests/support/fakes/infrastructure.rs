//! Resources in memory, that take their looks to come into place.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use runtime_platform::{
    ids::derive,
    outcome::Fault,
    ports::infrastructure::{
        Advance, Change, Difference, Infrastructure, Kept, PlannedChange, Progress, Removal, Removing,
        Resource,
    },
};
use serde_json::{Value, json};

use crate::support::faulty::Trouble;

/// How long a look that is not the last asks to wait.
const AGAIN_IN: Duration = Duration::from_secs(1);

/// Infrastructure in memory. Clones are the same.
#[derive(Clone)]
pub struct FakeInfrastructure {
    trouble: Trouble,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    looks: u32,
    /// What was put, by resource id: only the properties that we own.
    there: BTreeMap<String, Value>,
    /// Reasons why resources will not come into place, by key.
    failing: BTreeMap<String, String>,
    /// Resources that stay, by key.
    staying: BTreeMap<String, Kept>,
    effects: Vec<String>,
}

impl FakeInfrastructure {
    pub fn new(trouble: Trouble) -> Self {
        Self { trouble, state: Arc::default() }
    }

    /// A resource that is started is in place after this many further looks.
    pub fn finish_after(&self, looks: u32) {
        self.state.lock().unwrap().looks = looks;
    }

    /// The resource `key` will not come into place.
    pub fn fail(&self, key: &str, reason: &str) {
        self.state.lock().unwrap().failing.insert(key.to_owned(), reason.to_owned());
    }

    /// The resource `key` comes into place again.
    pub fn mend(&self, key: &str) {
        self.state.lock().unwrap().failing.remove(key);
    }

    /// The resource `key` is not removed.
    pub fn keep(&self, key: &str, reason: &str, must: bool) {
        self.state.lock().unwrap().staying.insert(key.to_owned(), Kept { reason: reason.to_owned(), must });
    }

    /// The resource `key` is removed again.
    pub fn release(&self, key: &str) {
        self.state.lock().unwrap().staying.remove(key);
    }

    /// Somebody else writes (or, with none, deletes) the resource `id`.
    pub fn meddle(&self, id: &str, body: Option<Value>) {
        let mut state = self.state.lock().unwrap();
        match body {
            Some(body) => drop(state.there.insert(id.to_owned(), body)),
            None => drop(state.there.remove(id)),
        }
    }

    /// What was written, in order, e.g. `create vault`, `update apps`.
    pub fn effects(&self) -> Vec<String> {
        self.state.lock().unwrap().effects.clone()
    }

    /// The properties that we own of every resource, by id.
    pub fn world(&self) -> BTreeMap<String, Value> {
        self.state.lock().unwrap().there.clone()
    }

    async fn call<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut State) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let act = async { act(&mut self.state.lock().unwrap()) };
        self.trouble.around(name, act, |why| Fault::transient(format!("calling {name}"), why)).await
    }
}

fn hash(body: &Value) -> String {
    derive(&["owned", &body.to_string()]).to_string()
}

impl State {
    fn plan(&self, resource: &Resource) -> PlannedChange {
        let actual = self.there.get(&resource.id);
        let change = match actual {
            None => Change::Create,
            Some(actual) if *actual == resource.body => Change::NoChange,
            Some(actual) => {
                let differences = differences(&resource.body, actual);
                let fixed =
                    resource.immutable.iter().find(|path| differences.iter().any(|d| d.path == **path));
                match fixed {
                    Some(path) => Change::Refused { reason: format!("`{path}` cannot be changed in place") },
                    None => Change::Update { differences },
                }
            }
        };
        PlannedChange {
            key: resource.key.clone(),
            resource_type: resource.resource_type.clone(),
            id: resource.id.clone(),
            change,
            saw: actual.map(hash),
        }
    }

    fn advance(&mut self, desired: &[Resource], plan: &[PlannedChange], mut progress: Progress) -> Advance {
        self.look(desired, &mut progress);
        for resource in desired {
            let known =
                progress.done.contains_key(&resource.key) || progress.pending.contains_key(&resource.key);
            if known || !resource.depends_on.iter().all(|key| progress.done.contains_key(key)) {
                continue;
            }
            if let Some(reason) = self.failing.get(&resource.key) {
                let (key, reason) = (resource.key.clone(), reason.clone());
                return Advance::Failed { progress, key, reason };
            }
            let planned = plan.iter().find(|planned| planned.key == resource.key);
            let Some(planned) = planned.filter(|planned| self.still_as_seen(planned, resource)) else {
                return Advance::Moved { key: resource.key.clone() };
            };
            match &planned.change {
                Change::Refused { reason } => {
                    let (key, reason) = (resource.key.clone(), reason.clone());
                    return Advance::Failed { progress, key, reason };
                }
                Change::NoChange => {
                    let body = answered(resource, &progress.done);
                    progress.done.insert(resource.key.clone(), body);
                }
                Change::Create | Change::Update { .. } => {
                    if let Some(reference) = unresolved(&resource.body, &progress.done) {
                        let reason = format!("`{reference}` names nothing that is in place");
                        return Advance::Failed { progress, key: resource.key.clone(), reason };
                    }
                    self.put(resource);
                    progress.pending.insert(resource.key.clone(), json!({"looks": self.looks}));
                }
            }
        }
        if progress.pending.is_empty()
            && desired.iter().all(|resource| progress.done.contains_key(&resource.key))
        {
            return Advance::Done { progress };
        }
        Advance::Running { progress, again_in: AGAIN_IN }
    }

    /// One resource after the other, from the last; each takes its looks.
    fn remove(&mut self, desired: &[Resource], mut removal: Removal) -> Removing {
        for resource in desired.iter().rev() {
            let key = resource.key.as_str();
            if removal.gone.contains(key) || removal.kept.contains_key(key) {
                continue;
            }
            let needed = desired.iter().find(|other| {
                removal.kept.contains_key(&other.key) && other.depends_on.iter().any(|need| need == key)
            });
            if let Some(other) = needed {
                let kept = Kept {
                    reason: format!("`{}`, which needs it, stays", other.key),
                    must: removal.kept[&other.key].must,
                };
                removal.kept.insert(key.to_owned(), kept);
                continue;
            }
            if let Some(kept) = self.staying.get(key) {
                removal.kept.insert(key.to_owned(), kept.clone());
                continue;
            }
            let left = removal.pending.remove(key).map(|token| token["looks"].as_u64().unwrap_or(0));
            if left.is_none() && self.there.remove(&resource.id).is_some() {
                self.effects.push(format!("delete {key}"));
            }
            let left = left.map_or(u64::from(self.looks), |left| left.saturating_sub(1));
            if left == 0 {
                removal.gone.insert(key.to_owned());
                continue;
            }
            removal.pending.insert(key.to_owned(), json!({ "looks": left }));
            return Removing::Running { removal, again_in: AGAIN_IN };
        }
        Removing::Done { removal }
    }

    /// What a step that died has put already is as good as what the plan saw.
    fn still_as_seen(&self, planned: &PlannedChange, resource: &Resource) -> bool {
        let actual = self.there.get(&resource.id);
        actual.map(hash) == planned.saw || actual == Some(&resource.body)
    }

    fn look(&self, desired: &[Resource], progress: &mut Progress) {
        let pending = std::mem::take(&mut progress.pending);
        for (key, token) in pending {
            let left = token["looks"].as_u64().unwrap_or(0);
            let resource = desired.iter().find(|resource| resource.key == key);
            match resource {
                Some(resource) if left == 0 => {
                    let body = answered(resource, &progress.done);
                    progress.done.insert(key, body);
                }
                Some(_) => drop(progress.pending.insert(key, json!({"looks": left - 1}))),
                // No longer desired: nobody waits for it.
                None => {}
            }
        }
    }

    fn put(&mut self, resource: &Resource) {
        let before = self.there.insert(resource.id.clone(), resource.body.clone());
        if before.as_ref() != Some(&resource.body) {
            let verb = if before.is_none() { "create" } else { "update" };
            self.effects.push(format!("{verb} {}", resource.key));
        }
    }
}

fn differences(desired: &Value, actual: &Value) -> Vec<Difference> {
    fn walk(path: &str, desired: &Value, actual: &Value, found: &mut Vec<Difference>) {
        match (desired, actual) {
            (Value::Object(desired), Value::Object(_)) => {
                for (name, value) in desired {
                    let name_escaped = name.replace('~', "~0").replace('/', "~1");
                    walk(&format!("{path}/{name_escaped}"), value, &actual[name], found);
                }
            }
            _ if desired == actual => {}
            _ => found.push(Difference {
                path: path.to_owned(),
                desired: desired.clone(),
                actual: actual.clone(),
            }),
        }
    }
    let mut found = Vec::new();
    walk("", desired, actual, &mut found);
    found
}

/// What the reference `${key.path}` stands for; none where the text is no reference, and
/// `Some(None)` where it is one and names nothing.
fn referenced<'a>(text: &str, done: &'a BTreeMap<String, Value>) -> Option<Option<&'a Value>> {
    let reference = text.strip_prefix("${")?.strip_suffix('}')?;
    let (key, path) = reference.split_once('.')?;
    Some(done.get(key).and_then(|body| body.pointer(&format!("/{}", path.replace('.', "/")))))
}

/// The first reference in `value` that names nothing.
fn unresolved(value: &Value, done: &BTreeMap<String, Value>) -> Option<String> {
    match value {
        Value::String(text) => referenced(text, done)?.is_none().then(|| text.clone()),
        Value::Array(items) => items.iter().find_map(|item| unresolved(item, done)),
        Value::Object(members) => members.values().find_map(|member| unresolved(member, done)),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// `value` with its references replaced by what they stand for.
fn resolved(value: &Value, done: &BTreeMap<String, Value>) -> Value {
    match value {
        Value::String(text) => referenced(text, done).flatten().unwrap_or(value).clone(),
        Value::Array(items) => items.iter().map(|item| resolved(item, done)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, member)| (name.clone(), resolved(member, done))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// The resource as Azure would answer it: what was put, and what only the server knows.
fn answered(resource: &Resource, done: &BTreeMap<String, Value>) -> Value {
    let mut body = resolved(&resource.body, done);
    let name = resource.id.rsplit('/').next().unwrap_or_default();
    body["id"] = json!(resource.id);
    body["name"] = json!(name);
    body["type"] = json!(resource.resource_type);
    if !body["properties"].is_object() {
        body["properties"] = json!({});
    }
    let properties = &mut body["properties"];
    properties["provisioningState"] = json!("Succeeded");
    match resource.resource_type.as_str() {
        "Microsoft.ManagedIdentity/userAssignedIdentities" => {
            properties["principalId"] = json!(derive(&["principal", &resource.id]));
            properties["clientId"] = json!(derive(&["client", &resource.id]));
        }
        "Microsoft.KeyVault/vaults" => {
            properties["vaultUri"] = json!(format!("https://{name}.vault.fake.localhost/"))
        }
        "Microsoft.OperationalInsights/workspaces" => {
            properties["customerId"] = json!(derive(&["workspace", &resource.id]));
        }
        "Microsoft.App/managedEnvironments" => properties["defaultDomain"] = json!("fake.localhost"),
        _ => {}
    }
    body
}

#[async_trait]
impl Infrastructure for FakeInfrastructure {
    async fn plan(&self, desired: &[Resource]) -> Result<Vec<PlannedChange>, Fault> {
        self.call("infrastructure.plan", |state| {
            Ok(desired.iter().map(|resource| state.plan(resource)).collect())
        })
        .await
    }

    async fn advance(
        &self,
        desired: &[Resource],
        plan: &[PlannedChange],
        progress: Progress,
    ) -> Result<Advance, Fault> {
        self.call("infrastructure.advance", |state| Ok(state.advance(desired, plan, progress))).await
    }

    async fn remove(&self, desired: &[Resource], removal: Removal) -> Result<Removing, Fault> {
        self.call("infrastructure.remove", |state| Ok(state.remove(desired, removal))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::faulty::When;

    fn resource(key: &str, depends_on: &[&str], body: Value) -> Resource {
        Resource {
            key: key.into(),
            resource_type: "Microsoft.KeyVault/vaults".into(),
            api_version: "2024-11-01".into(),
            id: format!("/subscriptions/s/{key}"),
            body,
            depends_on: depends_on.iter().map(|key| (*key).to_owned()).collect(),
            immutable: vec!["/location".into()],
        }
    }

    fn desired() -> Vec<Resource> {
        vec![
            resource("late", &["a", "b"], json!({"location": "x", "tags": {"t/1": "1"}})),
            resource("a", &[], json!({"location": "x"})),
            resource("b", &[], json!({"location": "x"})),
        ]
    }

    /// Advances until something else than `Running` is said; also answers how many looks that took.
    async fn apply(
        fake: &FakeInfrastructure,
        desired: &[Resource],
        plan: &[PlannedChange],
    ) -> (Advance, u32) {
        let (mut progress, mut looks) = (Progress::default(), 0);
        while looks < 50 {
            match fake.advance(desired, plan, progress.clone()).await {
                Ok(Advance::Running { progress: next, .. }) => progress = next,
                Ok(end) => return (end, looks),
                Err(_) => {}
            }
            looks += 1;
        }
        panic!("applying did not end");
    }

    #[tokio::test]
    async fn resources_come_into_place_in_order_of_dependency_and_once() {
        let trouble = Trouble::default();
        let fake = FakeInfrastructure::new(trouble.clone());
        fake.finish_after(1);
        let desired = desired();
        let plan = fake.plan(&desired).await.unwrap();
        assert!(plan.iter().all(|planned| planned.change == Change::Create && planned.saw.is_none()));
        // The first look acts and its answer is lost: taken again, nothing is written twice.
        trouble.fail_call(2, When::After);
        let (end, looks) = apply(&fake, &desired, &plan).await;
        let Advance::Done { progress } = end else { panic!("{end:?}") };
        assert_eq!(progress.done["a"]["properties"]["vaultUri"], "https://a.vault.fake.localhost/");
        assert_eq!(
            (fake.effects(), looks),
            (vec!["create a".into(), "create b".into(), "create late".into()], 5)
        );
        assert_eq!(fake.world().len(), 3);

        let plan = fake.plan(&desired).await.unwrap();
        assert!(plan.iter().all(|planned| planned.change == Change::NoChange));
        assert!(matches!(apply(&fake, &desired, &plan).await.0, Advance::Done { .. }));
        assert_eq!(fake.effects().len(), 3);
    }

    #[tokio::test]
    async fn a_world_that_moved_is_said_and_planned_anew() {
        let fake = FakeInfrastructure::new(Trouble::default());
        let desired = desired();
        let plan = fake.plan(&desired).await.unwrap();
        let late = "/subscriptions/s/late";
        fake.meddle(late, Some(json!({"location": "x", "tags": {"t/1": "2"}})));
        assert_eq!(apply(&fake, &desired, &plan).await.0, Advance::Moved { key: "late".into() });
        let plan = fake.plan(&desired).await.unwrap();
        let difference = Difference { path: "/tags/t~11".into(), desired: json!("1"), actual: json!("2") };
        assert_eq!(plan[0].change, Change::Update { differences: vec![difference] });
        assert!(matches!(apply(&fake, &desired, &plan).await.0, Advance::Done { .. }));
        assert_eq!(fake.effects(), ["create a", "create b", "update late"]);

        fake.meddle(late, Some(json!({"location": "y"})));
        let plan = fake.plan(&desired).await.unwrap();
        let reason = "`/location` cannot be changed in place".to_owned();
        assert_eq!(plan[0].change, Change::Refused { reason });
        fake.meddle(late, None);
        assert_eq!(fake.plan(&desired).await.unwrap()[0].change, Change::Create);
    }

    #[tokio::test]
    async fn a_resource_that_fails_ends_it_with_its_reason() {
        let fake = FakeInfrastructure::new(Trouble::default());
        fake.fail("b", "no quota");
        let plan = fake.plan(&desired()).await.unwrap();
        let (end, _) = apply(&fake, &desired(), &plan).await;
        assert!(matches!(end, Advance::Failed { key, reason, .. } if (&*key, &*reason) == ("b", "no quota")));
    }

    #[tokio::test]
    async fn a_reference_stands_for_what_azure_answered() {
        let fake = FakeInfrastructure::new(Trouble::default());
        let uses =
            |text: &str| vec![resource("a", &[], json!({})), resource("z", &["a"], json!({"uri": [text]}))];
        let desired = uses("${a.properties.vaultUri}");
        let plan = fake.plan(&desired).await.unwrap();
        let (end, _) = apply(&fake, &desired, &plan).await;
        let Advance::Done { progress } = end else { panic!("{end:?}") };
        assert_eq!(progress.done["z"]["uri"], json!(["https://a.vault.fake.localhost/"]));

        let desired = uses("${a.properties.nothing}");
        let plan = fake.plan(&desired).await.unwrap();
        let (end, _) = apply(&fake, &desired, &plan).await;
        let told = "`${a.properties.nothing}` names nothing that is in place";
        assert!(
            matches!(&end, Advance::Failed { key, reason, .. } if (&**key, &**reason) == ("z", told)),
            "{end:?}"
        );
    }
}
