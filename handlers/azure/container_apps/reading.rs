//! What Container Apps says of an app, in the words of the port.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{CONFIGURATION_VARIABLE, DEPLOYMENT_VARIABLE, body, secrets};
use crate::{
    azure::resource_manager::is_at_work,
    ports::compute::{Observed, Revision, RevisionSpec, RevisionState, Settings, Template},
};

/// One entry of the ingress's traffic, its revision resolved to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Traffic {
    pub revision: String,
    /// Percent.
    pub weight: u32,
    pub label: Option<String>,
}

impl Traffic {
    /// Names at Azure are the same in any case.
    pub fn is_for(&self, revision: &str) -> bool {
        self.revision.eq_ignore_ascii_case(revision)
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn number(value: &Value, pointer: &str) -> u32 {
    value.pointer(pointer).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn entries(app: &Value) -> &[Value] {
    list(app, "/properties/configuration/ingress/traffic")
}

fn is_for_latest(entry: &Value) -> bool {
    entry.get("latestRevision").and_then(Value::as_bool).unwrap_or(false)
}

/// Who has the traffic, by name. An entry for "the latest" is for the latest that was ready: that is
/// who serves.
pub(super) fn traffic(app: &Value) -> Vec<Traffic> {
    let latest = text(app, "/properties/latestReadyRevisionName")
        .or_else(|| text(app, "/properties/latestRevisionName"));
    let mut found: Vec<Traffic> = Vec::new();
    for entry in entries(app) {
        let revision = if is_for_latest(entry) { latest } else { text(entry, "/revisionName") };
        let Some(revision) = revision else { continue };
        let (weight, label) = (number(entry, "/weight"), text(entry, "/label").map(str::to_owned));
        match found.iter_mut().find(|known| known.is_for(revision)) {
            Some(known) => {
                known.weight += weight;
                known.label = known.label.take().or(label);
            }
            None => found.push(Traffic { revision: revision.to_owned(), weight, label }),
        }
    }
    found
}

/// Whether the traffic is given as `weights` say and by name; nought is the same as absent.
pub(super) fn has_traffic(app: &Value, weights: &BTreeMap<String, u32>) -> bool {
    let failed =
        text(app, "/properties/provisioningState").is_some_and(|state| state.eq_ignore_ascii_case("failed"));
    if failed || entries(app).iter().any(is_for_latest) {
        return false;
    }
    let now = traffic(app);
    let now = now.iter().filter(|entry| entry.weight > 0).collect::<Vec<_>>();
    let wanted = weights.iter().filter(|(_, weight)| **weight > 0).collect::<Vec<_>>();
    let has = |(name, weight): &(&String, &u32)| {
        now.iter().any(|entry| entry.is_for(name) && entry.weight == **weight)
    };
    now.len() == wanted.len() && wanted.iter().all(has)
}

/// The traffic to keep while a revision is added: who serves, by name, as far as they exist, adding
/// up to 100. Empty where nobody serves.
pub(super) fn pinned(app: &Value, revisions: &[Value]) -> Vec<Traffic> {
    let mut kept = traffic(app);
    kept.retain(|entry| {
        (entry.weight > 0 || entry.label.is_some())
            && revisions.iter().any(|found| is_named(found, &entry.revision))
    });
    let sum = kept.iter().map(|entry| entry.weight).sum::<u32>();
    match kept.iter_mut().max_by_key(|entry| entry.weight) {
        Some(most) if most.weight > 0 => most.weight += 100_u32.saturating_sub(sum),
        Some(_) | None => kept.clear(),
    }
    kept
}

pub(super) fn is_named(revision: &Value, name: &str) -> bool {
    text(revision, "/name").is_some_and(|found| found.eq_ignore_ascii_case(name))
}

/// The deployment that made a revision, as it says itself.
pub(super) fn deployment_of(revision: &Value) -> Option<&str> {
    let containers = list(revision, "/properties/template/containers");
    let variables = containers.iter().flat_map(|container| list(container, "/env"));
    let ours = |variable: &&Value| text(variable, "/name") == Some(DEPLOYMENT_VARIABLE);
    variables.into_iter().find(ours).and_then(|variable| text(variable, "/value"))
}

/// Whether what the app is being changed to is this revision.
pub(super) fn is_template_of(app: &Value, revision: &RevisionSpec) -> bool {
    // An app has its template where a revision has it.
    text(app, "/properties/template/revisionSuffix") == Some(revision.suffix.as_str())
        && deployment_of(app) == Some(revision.deployment_id.as_str())
}

/// The name of the revision that was made last.
pub(super) fn newest<'a>(app: &'a Value, revisions: &'a [Value]) -> Option<&'a str> {
    let made = |revision: &&Value| {
        text(revision, "/properties/createdTime").and_then(|at| at.parse::<jiff::Timestamp>().ok())
    };
    let dated = revisions.iter().filter(|revision| made(revision).is_some());
    let latest = text(app, "/properties/latestRevisionName");
    let latest = latest.filter(|name| revisions.iter().any(|revision| is_named(revision, name)));
    dated.max_by_key(made).and_then(|revision| text(revision, "/name")).or(latest)
}

/// The app as the port tells it; `replicas` are those of the revision `newest`.
pub(super) fn observed(
    app: &Value,
    revisions: &[Value],
    newest: Option<&str>,
    replicas: &[Value],
) -> Observed {
    let traffic = traffic(app);
    let read = |revision: &Value| {
        let name = text(revision, "/name")?.to_owned();
        let replicas = newest.filter(|newest| name.eq_ignore_ascii_case(newest)).map(|_| replicas);
        let weight = traffic.iter().filter(|entry| entry.is_for(&name)).map(|entry| entry.weight).sum();
        Some((name.clone(), revision_of(app, revision, name, weight, replicas)))
    };
    Observed {
        host: text(app, "/properties/configuration/ingress/fqdn").map(str::to_owned),
        revisions: revisions.iter().filter_map(read).collect(),
        settings: settings(app),
        complete: true,
    }
}

/// An app as a listing tells it, where its latest revision serves alone; none where its revisions must
/// be asked for.
pub(super) fn listed(app: &Value) -> Option<Observed> {
    let latest = text(app, "/properties/latestRevisionName")?;
    let serving = traffic(app).into_iter().filter(|entry| entry.weight > 0).collect::<Vec<_>>();
    let [entry] = serving.as_slice() else { return None };
    let failed =
        text(app, "/properties/provisioningState").is_some_and(|state| state.eq_ignore_ascii_case("failed"));
    if failed || !entry.is_for(latest) {
        return None;
    }
    let revision = Revision {
        name: latest.to_owned(),
        deployment_id: deployment_of(app).map(str::to_owned),
        image: image_of(app),
        active: true,
        state: RevisionState::Running,
        traffic: entry.weight,
        replicas: 0,
        ready_replicas: 0,
        restarts: 0,
        host: None,
        detail: None,
        template: template(app, app),
    };
    Some(Observed {
        host: text(app, "/properties/configuration/ingress/fqdn").map(str::to_owned),
        revisions: BTreeMap::from([(latest.to_owned(), revision)]),
        settings: settings(app),
        complete: false,
    })
}

fn settings(app: &Value) -> Settings {
    let flag = |pointer: &str| app.pointer(pointer).and_then(Value::as_bool).unwrap_or(false);
    let members = |pointer: &str| app.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    let tag = |(name, value): (&String, &Value)| {
        Some((name.clone(), value.as_str().unwrap_or_default().to_owned()))
    };
    Settings {
        external: flag("/properties/configuration/ingress/external"),
        port: app
            .pointer("/properties/configuration/ingress/targetPort")
            .and_then(Value::as_u64)
            .and_then(|port| u16::try_from(port).ok()),
        allow_insecure: flag("/properties/configuration/ingress/allowInsecure"),
        tags: members("/tags").filter_map(tag).collect(),
        identities: members("/identity/userAssignedIdentities").map(|(id, _)| id.clone()).collect(),
        modified_by: text(app, "/systemData/lastModifiedBy").map(str::to_owned),
        busy: is_at_work(app),
    }
}

/// What a template was made with; `of` has it, and `app` the entries of secrets that it refers to.
fn template(app: &Value, of: &Value) -> Template {
    let own = container_of(of).cloned().unwrap_or_default();
    let mut read = Template {
        cpu: own.pointer("/resources/cpu").and_then(Value::as_f64).unwrap_or_default(),
        memory: text(&own, "/resources/memory").unwrap_or_default().to_owned(),
        min_replicas: number(of, "/properties/template/scale/minReplicas"),
        max_replicas: number(of, "/properties/template/scale/maxReplicas"),
        rules: list(of, "/properties/template/scale/rules")
            .iter()
            .map(|rule| body::rule_of(rule).map_or_else(|| rule.clone(), |rule| rule.value()))
            .collect(),
        ..Template::default()
    };
    for variable in list(&own, "/env") {
        let Some(name) = text(variable, "/name") else { continue };
        let value = text(variable, "/value").unwrap_or_default().to_owned();
        match variable.get("secretRef").and_then(Value::as_str) {
            Some(entry) if secrets::is_ours(variable.get("secretRef")) => {
                let is_it = |secret: &&Value| text(secret, "/name") == Some(entry);
                let secret = list(app, "/properties/configuration/secrets").iter().find(is_it);
                let url = secret.and_then(|secret| text(secret, "/keyVaultUrl")).unwrap_or("no entry");
                read.secrets.insert(name.to_owned(), url.to_owned());
            }
            // Bound by somebody else, who looks after it.
            Some(_) => {}
            None if name == DEPLOYMENT_VARIABLE => {}
            None if name == CONFIGURATION_VARIABLE => read.configuration = Some(value),
            None => drop(read.env.insert(name.to_owned(), value)),
        }
    }
    read
}

fn image_of(of: &Value) -> String {
    container_of(of).and_then(|container| text(container, "/image")).unwrap_or_default().to_owned()
}

fn revision_of(
    app: &Value,
    revision: &Value,
    name: String,
    traffic: u32,
    replicas: Option<&[Value]>,
) -> Revision {
    let state = state_of(revision);
    let count = number(revision, "/properties/replicas");
    let (replicas, ready_replicas, restarts) = match replicas {
        Some(replicas) => counts(replicas),
        // Unasked, a revision that runs is taken at its word.
        None => (count, if state == RevisionState::Running { count } else { 0 }, 0),
    };
    let detail = ["/properties/provisioningError", "/properties/runningStateDetails"];
    Revision {
        name,
        deployment_id: deployment_of(revision).map(str::to_owned),
        image: image_of(revision),
        active: is_active(revision),
        state,
        traffic,
        replicas,
        ready_replicas,
        restarts,
        host: text(revision, "/properties/fqdn").map(str::to_owned),
        detail: detail.into_iter().find_map(|pointer| text(revision, pointer)).map(str::to_owned),
        template: template(app, revision),
    }
}

/// The container that is the workload's own: the one with our variable, else the first.
fn container_of(revision: &Value) -> Option<&Value> {
    let containers = list(revision, "/properties/template/containers");
    let own = |container: &&Value| {
        list(container, "/env").iter().any(|variable| text(variable, "/name") == Some(DEPLOYMENT_VARIABLE))
    };
    containers.iter().find(own).or(containers.first())
}

/// Replicas, ready replicas, restarts.
fn counts(replicas: &[Value]) -> (u32, u32, u32) {
    let mut counts = (0, 0, 0);
    for replica in replicas {
        let containers = list(replica, "/properties/containers");
        let ready = |container: &Value| container.get("ready").and_then(Value::as_bool).unwrap_or(false);
        counts.0 += 1;
        counts.1 += u32::from(!containers.is_empty() && containers.iter().all(ready));
        counts.2 += containers.iter().map(|container| number(container, "/restartCount")).sum::<u32>();
    }
    counts
}

fn is_active(revision: &Value) -> bool {
    revision.pointer("/properties/active").and_then(Value::as_bool).unwrap_or(false)
}

/// Azure has three words for how a revision is: how it was made, how it runs, and how it feels.
fn state_of(revision: &Value) -> RevisionState {
    let word = |pointer: &str| text(revision, pointer).unwrap_or_default().to_ascii_lowercase();
    let unhealthy = word("/properties/healthState") == "unhealthy";
    let healthy = word("/properties/healthState") == "healthy";
    match (word("/properties/provisioningState").as_str(), word("/properties/runningState").as_str()) {
        ("failed", _) | (_, "failed") => RevisionState::Failed,
        ("deprovisioning" | "deprovisioned", _) => RevisionState::Stopped,
        _ if !is_active(revision) => RevisionState::Stopped,
        (_, "stopped" | "scaledtozero") => RevisionState::Stopped,
        (_, "degraded") => RevisionState::Degraded,
        ("provisioning", _) | (_, "processing" | "activating") => RevisionState::Provisioning,
        (_, "running" | "runningatmaxscale") if unhealthy => RevisionState::Degraded,
        (_, "running" | "runningatmaxscale") => RevisionState::Running,
        // `Unknown`, or a word that Azure adds: only its health is left to go by.
        _ if healthy => RevisionState::Running,
        _ => RevisionState::Provisioning,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn revision(provisioning: &str, running: &str, health: &str, active: bool) -> Value {
        json!({ "name": "a--d1", "properties": {
            "provisioningState": provisioning, "runningState": running, "healthState": health, "active": active,
        } })
    }

    #[test]
    fn each_state_of_a_revision_has_one_meaning() {
        use RevisionState::{Degraded, Failed, Provisioning, Running, Stopped};
        for (provisioning, running, health, active, state) in [
            ("Provisioning", "Processing", "None", true, Provisioning),
            ("Provisioning", "Running", "None", true, Provisioning),
            ("Provisioned", "Activating", "None", true, Provisioning),
            ("Provisioned", "Running", "Healthy", true, Running),
            ("Provisioned", "Running", "None", true, Running),
            ("Provisioned", "RunningAtMaxScale", "Healthy", true, Running),
            ("Provisioned", "Running", "Unhealthy", true, Degraded),
            ("Provisioned", "Degraded", "Unhealthy", true, Degraded),
            ("Provisioned", "Failed", "Unhealthy", true, Failed),
            ("Failed", "Running", "Healthy", true, Failed),
            ("Provisioned", "Stopped", "None", true, Stopped),
            ("Provisioned", "ScaledToZero", "Healthy", true, Stopped),
            ("Provisioned", "Running", "Healthy", false, Stopped),
            ("Deprovisioned", "Stopped", "None", false, Stopped),
            ("Provisioned", "Unknown", "Healthy", true, Running),
            ("Provisioned", "Unknown", "None", true, Provisioning),
        ] {
            let told = state_of(&revision(provisioning, running, health, active));
            assert_eq!(told, state, "{provisioning} {running} {health} {active}");
        }
    }

    fn app(traffic: &Value) -> Value {
        json!({ "properties": {
            "latestRevisionName": "a--d3",
            "latestReadyRevisionName": "a--d2",
            "configuration": { "ingress": { "traffic": traffic } },
        } })
    }

    fn entry(revision: &str, weight: u32) -> Traffic {
        Traffic { revision: revision.to_owned(), weight, label: None }
    }

    #[test]
    fn traffic_is_pinned_to_who_serves_by_name() {
        let there = [json!({ "name": "a--d1" }), json!({ "name": "A--D2" }), json!({ "name": "a--d3" })];
        let labelled = Traffic { label: Some("next".to_owned()), ..entry("a--d3", 0) };
        for (traffic, pins) in [
            (json!([{ "latestRevision": true, "weight": 100 }]), vec![entry("a--d2", 100)]),
            (json!([{ "revisionName": "a--d1", "weight": 100 }]), vec![entry("a--d1", 100)]),
            (
                json!([{ "revisionName": "a--d2", "weight": 40 }, { "latestRevision": true, "weight": 60 }]),
                vec![entry("a--d2", 100)],
            ),
            (
                json!([{ "revisionName": "a--gone", "weight": 30 }, { "revisionName": "a--d1", "weight": 70 }]),
                vec![entry("a--d1", 100)],
            ),
            (
                json!([{ "revisionName": "a--d1", "weight": 100 }, { "revisionName": "a--d2", "weight": 0 },
                       { "revisionName": "a--d3", "weight": 0, "label": "next" }]),
                vec![entry("a--d1", 100), labelled],
            ),
            (json!([{ "revisionName": "a--gone", "weight": 100 }]), vec![]),
            (json!([]), vec![]),
            (Value::Null, vec![]),
        ] {
            assert_eq!(pinned(&app(&traffic), &there), pins, "{traffic}");
        }
    }

    #[test]
    fn traffic_is_as_wanted_only_by_name_and_number() {
        let wanted = BTreeMap::from([("a--d1".to_owned(), 100), ("a--d2".to_owned(), 0)]);
        let is = |traffic: &Value| has_traffic(&app(traffic), &wanted);
        assert!(is(&json!([{ "revisionName": "A--d1", "weight": 100 }])));
        assert!(is(
            &json!([{ "revisionName": "a--d1", "weight": 100 }, { "revisionName": "a--d3", "weight": 0 }])
        ));
        assert!(!is(
            &json!([{ "revisionName": "a--d1", "weight": 90 }, { "revisionName": "a--d2", "weight": 10 }])
        ));
        assert!(!is(&json!([{ "latestRevision": true, "weight": 100 }])));
        assert!(!is(&json!([])));
        let mut failed = app(&json!([{ "revisionName": "a--d1", "weight": 100 }]));
        failed["properties"]["provisioningState"] = json!("Failed");
        assert!(!has_traffic(&failed, &wanted));
    }

    #[test]
    fn a_listing_tells_of_the_newest_revision_where_that_serves_and_of_nothing_else() {
        let mut app = app(&json!([{ "revisionName": "a--d3", "weight": 100 }]));
        app["tags"] = json!({ "cs-tenant-id": "acme" });
        app["identity"] = json!({ "userAssignedIdentities": { "/id": {} } });
        app["systemData"] = json!({ "lastModifiedBy": "eve" });
        app["properties"]["configuration"]["ingress"]["external"] = json!(true);
        app["properties"]["configuration"]["ingress"]["targetPort"] = json!(8080);
        app["properties"]["configuration"]["secrets"] =
            json!([{ "name": "cs-db-1", "keyVaultUrl": "https://kv/secrets/db/1" }]);
        app["properties"]["template"] = json!({
            "containers": [{
                "name": "a", "image": "i:3", "resources": { "cpu": 0.5, "memory": "1Gi" },
                "env": [
                    { "name": "LEVEL", "value": "debug" },
                    { "name": "CS_CONFIGURATION_VERSION", "value": "7" },
                    { "name": "CS_DEPLOYMENT_ID", "value": "dep-3" },
                    { "name": "DB", "secretRef": "cs-db-1" },
                    { "name": "OTHERS", "secretRef": "theirs" },
                ],
            }],
            "scale": { "minReplicas": 1, "maxReplicas": 4 },
        });
        let observed = listed(&app).expect("the newest serves");
        assert_eq!(
            observed.revisions["a--d3"].template,
            Template {
                env: BTreeMap::from([("LEVEL".into(), "debug".into())]),
                secrets: BTreeMap::from([("DB".into(), "https://kv/secrets/db/1".into())]),
                configuration: Some("7".into()),
                cpu: 0.5,
                memory: "1Gi".into(),
                min_replicas: 1,
                max_replicas: 4,
                rules: Vec::new(),
            }
        );
        assert_eq!(
            observed.settings,
            Settings {
                external: true,
                port: Some(8080),
                allow_insecure: false,
                tags: BTreeMap::from([("cs-tenant-id".into(), "acme".into())]),
                identities: vec!["/id".into()],
                modified_by: Some("eve".into()),
                busy: false,
            }
        );
        app["properties"]["configuration"]["ingress"]["traffic"] =
            json!([{ "revisionName": "a--d2", "weight": 100 }]);
        assert_eq!(listed(&app), None, "another revision than the newest serves: all are asked for");
    }
}
