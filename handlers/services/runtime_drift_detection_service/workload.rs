//! A workload as it is desired and as it is, each written down as one document; and what it means
//! where the two differ.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    compare::{self, Because},
    schema::WORKLOAD,
};
use crate::{
    events::{DriftKind, DriftSeverity},
    ids::ModuleId,
    ports::compute::{Observed, Revision, RevisionSpec, Settings, WorkloadRef},
};

/// Tags by which a workload belongs to its tenant and environment; others are anybody's.
const ISOLATION_TAGS: [&str; 3] = ["cs-environment-id", "cs-isolation", "cs-tenant-id"];

/// One drift as one scan saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// The id of the resource at Azure.
    pub resource: String,
    /// The workload; none for what the environment itself is made of, and for what nobody knows.
    pub module_id: Option<ModuleId>,
    /// A JSON pointer; empty where the whole resource is meant.
    pub path: String,
    pub kind: DriftKind,
    pub severity: DriftSeverity,
    pub desired: Value,
    pub actual: Value,
    /// Who wrote the resource last, where Azure says so.
    pub writer: Option<String>,
    /// Whether putting it right would take away what holds data, or what is not ours.
    pub destructive: bool,
}

/// What is desired of a workload that serves, and what was applied.
#[derive(Clone, Debug)]
pub struct Desired<'a> {
    pub module_id: &'a ModuleId,
    pub workload: &'a WorkloadRef,
    /// The name of the revision that should serve.
    pub revision: &'a str,
    /// As it was applied.
    pub applied: &'a RevisionSpec,
    /// As the next one would be: with the configuration and secrets that are wanted by now.
    pub wanted: &'a RevisionSpec,
}

/// The id of a workload's app.
pub fn resource_id(workload: &WorkloadRef) -> String {
    app_id(&workload.target.resource_group_id, &workload.name)
}

/// The id of an app by its name.
pub fn app_id(resource_group_id: &str, name: &str) -> String {
    format!("{resource_group_id}/providers/Microsoft.App/containerApps/{name}")
}

/// Everything in which a workload is not as desired. One cause is told once: where another revision
/// was put in the place of ours, its traffic is a consequence of that.
pub fn sightings(desired: &Desired<'_>, observed: Option<&Observed>) -> Vec<Sighting> {
    let writer = observed.and_then(|observed| observed.settings.modified_by.clone());
    let sighting = |path: &str, kind, severity, (desired_value, actual): (Value, Value)| Sighting {
        resource: resource_id(desired.workload),
        module_id: Some(desired.module_id.clone()),
        path: path.to_owned(),
        kind,
        severity,
        desired: desired_value,
        actual,
        writer: writer.clone(),
        destructive: false,
    };
    let missing = || {
        let told = (json!(desired.revision), Value::Null);
        vec![sighting("", DriftKind::MissingWorkload, DriftSeverity::High, told)]
    };
    let Some(observed) = observed else { return missing() };
    let Some(shown) = in_its_place(observed, desired.revision) else { return missing() };
    let tags = &desired.workload.target.tags;
    let identity = &desired.workload.target.identity_id;
    let wanted = document(desired.wanted, tags, identity, desired.revision);
    let applied = document(desired.applied, tags, identity, desired.revision);
    let is = seen(shown, observed);
    let mut found: Vec<_> = compare::compare(&WORKLOAD, &wanted, Some(&applied), &is)
        .into_iter()
        .filter(|difference| difference.because == Because::ExternalChange)
        .map(|difference| {
            let (kind, severity) = meaning(&difference.path);
            sighting(&difference.path, kind, severity, (difference.desired, difference.actual))
        })
        .collect();
    let of_traffic = |sighting: &Sighting| sighting.path.starts_with("/traffic/");
    let traffic_is_explained = found.iter().any(|sighting| is_of_template(&sighting.path));
    if found.iter().any(of_traffic) {
        found.retain(|sighting| !of_traffic(sighting));
        if !traffic_is_explained {
            let told = (json!({ desired.revision: 100 }), json!(traffic(observed)));
            let (kind, severity) = meaning("/traffic");
            found.push(sighting("/traffic", kind, severity, told));
        }
    }
    let beside: Vec<_> = observed
        .revisions
        .values()
        .filter(|revision| revision.active && revision.name != desired.revision && revision.traffic == 0)
        .map(|revision| revision.name.as_str())
        .collect();
    if !beside.is_empty() && !traffic_is_explained {
        let (kind, severity) = meaning("/revisions");
        found.push(sighting("/revisions", kind, severity, (json!([]), json!(beside))));
    }
    found
}

/// The revision that runs where ours should: whoever has the most traffic; else one that no deployment
/// made; else ours.
fn in_its_place<'a>(observed: &'a Observed, ours: &str) -> Option<&'a Revision> {
    let running = || observed.revisions.values().filter(|revision| revision.active);
    let most = running().filter(|revision| revision.traffic > 0).max_by_key(|revision| revision.traffic);
    if let Some(other) = most.filter(|most| most.name != ours) {
        return Some(other);
    }
    let made_by_hand = running().filter(|revision| !is_a_deployments(revision));
    if let Some(other) = made_by_hand.max_by_key(|revision| revision.name.as_str()) {
        return Some(other);
    }
    running().find(|revision| revision.name == ours)
}

/// Whether a revision's name is the one that its deployment gives: a copy names the deployment of what
/// it was copied from.
fn is_a_deployments(revision: &Revision) -> bool {
    let digits = revision.deployment_id.as_deref().and_then(|id| id.strip_prefix("dep-"));
    digits.is_some_and(|digits| revision.name.ends_with(&format!("--d{digits}")))
}

fn traffic(observed: &Observed) -> BTreeMap<&str, u32> {
    let with_traffic = observed.revisions.values().filter(|revision| revision.traffic > 0);
    with_traffic.map(|revision| (revision.name.as_str(), revision.traffic)).collect()
}

fn document(spec: &RevisionSpec, tags: &BTreeMap<String, String>, identity: &str, revision: &str) -> Value {
    let settings = Settings {
        external: true,
        port: Some(spec.port),
        allow_insecure: false,
        tags: ISOLATION_TAGS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), tags.get(*name)?.clone())))
            .collect(),
        identities: vec![identity.to_owned()],
        ..Settings::default()
    };
    write(&spec.image, &spec.template(), &settings, &BTreeMap::from([(revision, 100)]))
}

fn seen(revision: &Revision, observed: &Observed) -> Value {
    write(&revision.image, &revision.template, &observed.settings, &traffic(observed))
}

fn write(
    image: &str,
    template: &crate::ports::compute::Template,
    settings: &Settings,
    traffic: &BTreeMap<&str, u32>,
) -> Value {
    let traffic: Vec<_> = traffic
        .iter()
        .map(|(revision, weight)| json!({ "revisionName": revision, "weight": weight }))
        .collect();
    json!({
        "image": image,
        "env": template.env,
        "secrets": template.secrets,
        "configuration": template.configuration,
        "cpu": template.cpu,
        "memory": template.memory,
        "minReplicas": template.min_replicas,
        "maxReplicas": template.max_replicas,
        "rules": template.rules,
        "traffic": traffic,
        "ingress": {
            "external": settings.external,
            "port": settings.port,
            "allowInsecure": settings.allow_insecure,
        },
        "tags": settings.tags,
        // An object by lower-case id: an identity beside ours is somebody's business, ours is wanted.
        "identities": settings.identities.iter().map(|id| (id.to_ascii_lowercase(), json!(true))).collect::<serde_json::Map<_, _>>(),
    })
}

/// What a revision was made with, and not what is about the workload as a whole.
fn is_of_template(path: &str) -> bool {
    !["/traffic", "/ingress", "/tags", "/identities", "/revisions"].iter().any(|part| path.starts_with(part))
}

/// What a difference at a path of a workload is, and how bad.
pub fn meaning(path: &str) -> (DriftKind, DriftSeverity) {
    let first = path.split('/').nth(1).unwrap_or_default();
    match first {
        "image" => (DriftKind::ImageMismatch, DriftSeverity::High),
        "secrets" => (DriftKind::SecretVersionMismatch, DriftSeverity::Critical),
        "minReplicas" | "maxReplicas" | "rules" => (DriftKind::ReplicaMismatch, DriftSeverity::Medium),
        "ingress" => (DriftKind::NetworkPolicyMismatch, DriftSeverity::Critical),
        "tags" | "identities" => (DriftKind::IsolationMismatch, DriftSeverity::Critical),
        "traffic" => (DriftKind::ConfigurationMismatch, DriftSeverity::High),
        "cpu" | "memory" | "revisions" => (DriftKind::ConfigurationMismatch, DriftSeverity::Low),
        _ => (DriftKind::ConfigurationMismatch, DriftSeverity::Medium),
    }
}
