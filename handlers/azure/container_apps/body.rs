//! The bodies that are sent to Container Apps.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    CONFIGURATION_VARIABLE, DEPLOYMENT_VARIABLE,
    reading::{self, Traffic},
    secrets,
};
use crate::ports::compute::{RevisionSpec, ScaleRule, WorkloadRef};

/// Registries of Azure, to which workloads sign in as their own identity.
const AZURE_REGISTRY_SUFFIX: &str = ".azurecr.io";

/// A whole new app, whose first revision, `name`, takes all traffic.
pub(super) fn first_revision(workload: &WorkloadRef, revision: &RevisionSpec, name: &str) -> Value {
    let target = &workload.target;
    let mut configuration = json!({
        "activeRevisionsMode": "Multiple",
        "ingress": ingress(revision, &[all_to(name)]),
    });
    if let Some(server) = azure_registry(&revision.image) {
        configuration["registries"] = json!([{ "server": server, "identity": target.identity_id }]);
    }
    if !revision.secrets.is_empty() {
        configuration["secrets"] = json!(secrets::entries(revision));
    }
    let mut body = json!({
        "location": target.region,
        "tags": target.tags,
        "identity": identity(workload),
        "properties": {
            "environmentId": target.host_id,
            "configuration": configuration,
            "template": {
                "revisionSuffix": revision.suffix,
                "containers": [container(&Map::new(), &workload.name, revision)],
                "scale": scale(revision),
            },
        },
    });
    if let Some(profile) = &target.workload_profile {
        body["properties"]["workloadProfileName"] = json!(profile);
    }
    body
}

/// The patch that adds revision `name` to an app. `traffic` is who keeps the traffic; the new
/// revision takes it where that is nobody.
pub(super) fn revision_beside(
    app: &Value,
    workload: &WorkloadRef,
    revision: &RevisionSpec,
    name: &str,
    traffic: Vec<Traffic>,
) -> Value {
    let serves = !traffic.is_empty();
    let traffic = if serves { traffic } else { vec![all_to(name)] };
    let has_ingress = app.pointer("/properties/configuration/ingress").is_some_and(Value::is_object);
    let ingress = if serves && has_ingress && !revision.corrective {
        json!({ "traffic": entries(&traffic) })
    } else {
        ingress(revision, &traffic)
    };
    let mut configuration = json!({ "activeRevisionsMode": "Multiple", "ingress": ingress });
    if let Some(registries) = registries_with(app, workload, revision) {
        configuration["registries"] = registries;
    }
    let mut patch = json!({
        "tags": workload.target.tags,
        "properties": {
            "configuration": configuration,
            "template": {
                "revisionSuffix": revision.suffix,
                "containers": containers_with(app, workload, revision),
                "scale": scale(revision),
            },
        },
    });
    if revision.corrective {
        patch["identity"] = identity(workload);
    }
    patch
}

fn identity(workload: &WorkloadRef) -> Value {
    json!({
        "type": "UserAssigned",
        "userAssignedIdentities": { workload.target.identity_id.as_str(): {} },
    })
}

/// The patch that gives traffic by `weights`. Labels stay where they are.
pub(super) fn traffic(app: &Value, weights: &BTreeMap<String, u32>) -> Value {
    let now = reading::traffic(app);
    let label =
        |name: &str| now.iter().find(|entry| entry.is_for(name)).and_then(|entry| entry.label.clone());
    let mut wanted = weights
        .iter()
        .map(|(name, weight)| Traffic { revision: name.clone(), weight: *weight, label: label(name) })
        .filter(|entry| entry.weight > 0 || entry.label.is_some())
        .collect::<Vec<_>>();
    for entry in &now {
        if entry.label.is_some() && !weights.keys().any(|name| entry.is_for(name)) {
            wanted.push(Traffic { weight: 0, ..entry.clone() });
        }
    }
    json!({ "properties": { "configuration": { "ingress": { "traffic": entries(&wanted) } } } })
}

fn all_to(name: &str) -> Traffic {
    Traffic { revision: name.to_owned(), weight: 100, label: None }
}

fn entries(traffic: &[Traffic]) -> Vec<Value> {
    let entry = |entry: &Traffic| {
        let mut body =
            json!({ "revisionName": entry.revision, "weight": entry.weight, "latestRevision": false });
        if let Some(label) = &entry.label {
            body["label"] = json!(label);
        }
        body
    };
    traffic.iter().map(entry).collect()
}

fn ingress(revision: &RevisionSpec, traffic: &[Traffic]) -> Value {
    json!({
        "external": true,
        "targetPort": revision.port,
        "transport": "auto",
        "allowInsecure": false,
        "traffic": entries(traffic),
    })
}

/// Whole, an empty list of rules included: a patch that said nothing of rules would keep those of the
/// revision before.
fn scale(revision: &RevisionSpec) -> Value {
    json!({
        "minReplicas": revision.min_replicas,
        "maxReplicas": revision.max_replicas,
        "rules": revision.scale_rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

/// A rule in Container Apps' words, which writes numbers as texts.
fn rule(rule: &ScaleRule) -> Value {
    let utilization = |kind: &str, percent: u32| {
        let metadata = json!({ "type": "Utilization", "value": percent.to_string() });
        json!({ "name": kind, "custom": { "type": kind, "metadata": metadata } })
    };
    match rule {
        ScaleRule::Cpu { percent } => utilization("cpu", *percent),
        ScaleRule::Memory { percent } => utilization("memory", *percent),
        ScaleRule::Requests { concurrent } => json!({
            "name": "requests",
            "http": { "metadata": { "concurrentRequests": concurrent.to_string() } },
        }),
        ScaleRule::Queue { namespace, queue, messages, identity_id } => json!({
            "name": "queue",
            "custom": {
                "type": "azure-servicebus",
                "metadata": {
                    "namespace": namespace,
                    "queueName": queue,
                    "messageCount": messages.to_string(),
                },
                "identity": identity_id,
            },
        }),
    }
}

/// Reads a rule that [`rule`] wrote; none for one that is not of ours.
pub(super) fn rule_of(written: &Value) -> Option<ScaleRule> {
    let text = |pointer: &str| written.pointer(pointer).and_then(Value::as_str);
    let number = |pointer: &str| text(pointer).and_then(|text| text.parse().ok());
    match (text("/name")?, text("/custom/type")) {
        ("requests", None) => {
            Some(ScaleRule::Requests { concurrent: number("/http/metadata/concurrentRequests")? })
        }
        ("cpu", Some("cpu")) => Some(ScaleRule::Cpu { percent: number("/custom/metadata/value")? }),
        ("memory", Some("memory")) => Some(ScaleRule::Memory { percent: number("/custom/metadata/value")? }),
        ("queue", Some("azure-servicebus")) => Some(ScaleRule::Queue {
            namespace: text("/custom/metadata/namespace")?.to_owned(),
            queue: text("/custom/metadata/queueName")?.to_owned(),
            messages: number("/custom/metadata/messageCount")?,
            identity_id: text("/custom/identity")?.to_owned(),
        }),
        _ => None,
    }
}

/// The whole list of containers, for a patch replaces it whole: ours renewed, others' as they are.
fn containers_with(app: &Value, workload: &WorkloadRef, revision: &RevisionSpec) -> Vec<Value> {
    let pointer = "/properties/template/containers";
    let mut containers = app.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let is_ours =
        |container: &Value| container.get("name").and_then(Value::as_str) == Some(workload.name.as_str());
    let nothing = Map::new();
    match containers.iter().position(is_ours) {
        Some(ours) => {
            let known = containers[ours].as_object().unwrap_or(&nothing);
            containers[ours] = container(known, &workload.name, revision);
        }
        None => containers.insert(0, container(&nothing, &workload.name, revision)),
    }
    containers
}

/// The workload's container: `known` with what a revision says. What it does not speak of (probes,
/// volume mounts, variables that refer to a secret that is not ours) stays. A variable that the
/// deployment itself gives comes before one from a secret, and that before one from the configuration.
fn container(known: &Map<String, Value>, name: &str, revision: &RevisionSpec) -> Value {
    let mut container = known.clone();
    let bound = known.get("env").and_then(Value::as_array).into_iter().flatten().filter(|variable| {
        let is_secret = variable.get("secretRef").is_some_and(Value::is_string);
        let name = variable.get("name").and_then(Value::as_str).unwrap_or_default();
        is_secret && !secrets::is_ours(variable.get("secretRef")) && !revision.env.contains_key(name)
    });
    let mut env = BTreeMap::new();
    if let Some(configuration) = &revision.configuration {
        let settings = configuration.settings.iter();
        env.extend(settings.map(|(name, value)| (name.as_str(), json!({ "name": name, "value": value }))));
        let version = configuration.version.to_string();
        env.insert(CONFIGURATION_VARIABLE, json!({ "name": CONFIGURATION_VARIABLE, "value": version }));
    }
    for entry in &revision.secrets {
        let reference = json!({ "name": entry.variable, "secretRef": secrets::name(entry) });
        env.insert(entry.variable.as_str(), reference);
    }
    env.extend(
        revision.env.iter().map(|(name, value)| (name.as_str(), json!({ "name": name, "value": value }))),
    );
    env.remove(DEPLOYMENT_VARIABLE);
    let mut bound = bound.cloned().collect::<Vec<_>>();
    bound.retain(|variable| {
        !variable.get("name").and_then(Value::as_str).is_some_and(|name| env.contains_key(name))
    });
    let mut env = env.into_values().collect::<Vec<_>>();
    env.extend(bound);
    env.push(json!({ "name": DEPLOYMENT_VARIABLE, "value": revision.deployment_id }));
    container.insert("name".to_owned(), json!(name));
    container.insert("image".to_owned(), json!(revision.image));
    container.insert("env".to_owned(), json!(env));
    // Whole, without the read-only share of storage that a read has beside them.
    container.insert("resources".to_owned(), json!({ "cpu": revision.cpu, "memory": revision.memory }));
    Value::Object(container)
}

/// The registry of an image, if it is one of Azure's.
fn azure_registry(image: &str) -> Option<&str> {
    let (server, _) = image.split_once('/')?;
    server.to_ascii_lowercase().ends_with(AZURE_REGISTRY_SUFFIX).then_some(server)
}

/// The whole list of registries with the image's own; none where it is there already or not needed.
fn registries_with(app: &Value, workload: &WorkloadRef, revision: &RevisionSpec) -> Option<Value> {
    let server = azure_registry(&revision.image)?;
    let pointer = "/properties/configuration/registries";
    let mut registries = app.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let is_this = |registry: &Value| {
        registry.get("server").and_then(Value::as_str).is_some_and(|known| known.eq_ignore_ascii_case(server))
    };
    if registries.iter().any(is_this) {
        return None;
    }
    registries.push(json!({ "server": server, "identity": workload.target.identity_id }));
    Some(json!(registries))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn each_rule_is_written_as_container_apps_takes_it() {
        let queue = ScaleRule::Queue {
            namespace: "sb-1".into(),
            queue: "orders".into(),
            messages: 5,
            identity_id: "/identities/i".into(),
        };
        let rules = [
            ScaleRule::Cpu { percent: 70 },
            ScaleRule::Memory { percent: 80 },
            ScaleRule::Requests { concurrent: 20 },
            queue,
        ];
        let told: Vec<_> = rules.iter().map(|it| rule(it).to_string()).collect();
        expect![[r#"
            {"name":"cpu","custom":{"type":"cpu","metadata":{"type":"Utilization","value":"70"}}}
            {"name":"memory","custom":{"type":"memory","metadata":{"type":"Utilization","value":"80"}}}
            {"name":"requests","http":{"metadata":{"concurrentRequests":"20"}}}
            {"name":"queue","custom":{"type":"azure-servicebus","metadata":{"namespace":"sb-1","queueName":"orders","messageCount":"5"},"identity":"/identities/i"}}"#]]
        .assert_eq(&told.join("\n"));
    }
}
