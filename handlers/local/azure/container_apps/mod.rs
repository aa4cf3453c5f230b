//! Container apps: a write may make a revision, traffic goes to revisions by weight, and each active
//! revision has replicas that really listen.
//!
//! Absent on purpose: custom domains, Dapr, jobs, checks of registries' credentials.

mod revisions;
mod rules;
mod scale;
mod secrets;

use rusqlite::Connection;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    address::{self, ResourceId},
    defaults::{self, Naming},
    operations,
    records::{self, Resource, Revision},
    refusals::ArmError,
    resources::Call,
    types,
};
pub(super) use revisions::{Plan, act, plan, promote, replica, replicas, revision, revisions};
pub(super) use scale::{Rule, Scale};
pub(super) use secrets::{EnvValue, Reference, SecretValue, identities, may_read, unseen};

/// Inactive revisions that are kept where the app does not say.
const INACTIVE_REVISIONS_MAX: u64 = 100;
/// Characters of a suffix that the service makes up.
const GENERATED_SUFFIX_CHARS: usize = 7;

pub(super) const STOPPED: &str = "Stopped";

/// The environment that an app's body names.
pub(super) fn environment_of(body: &Value) -> Option<ResourceId> {
    let properties = &body["properties"];
    let named =
        ["managedEnvironmentId", "environmentId"].iter().find_map(|name| properties[*name].as_str())?;
    address::resource(named).filter(|id| id.spec.name == types::ENVIRONMENT)
}

/// What a merge patch means beyond merging: one that names no suffix asks for a new one.
pub(super) fn after_merge(changes: &Value, body: &mut Value) {
    let template = &changes["properties"]["template"];
    if template.is_object()
        && template.get("revisionSuffix").is_none()
        && let Some(template) = body["properties"]["template"].as_object_mut()
    {
        template.shift_remove("revisionSuffix");
    }
}

/// Checks an app's body, fills in what the server sets, and makes a revision where the template is
/// new. Answers whether it made one.
pub(super) fn apply(
    connection: &Connection,
    call: &Call,
    id: &ResourceId,
    existing: Option<&Resource>,
    body: &mut Value,
    whole: bool,
) -> Result<bool, ArmError> {
    rules::app_name(&id.name)?;
    in_environment(connection, existing, body)?;
    let known =
        existing.and_then(|existing| existing.body["properties"]["configuration"]["secrets"].as_array());
    configure(body, known.filter(|_| !whole).map(Vec::as_slice).unwrap_or_default())?;
    if body["properties"]["template"].is_null() && existing.is_none() {
        return Err(ArmError::bad_request(
            "ContainerAppTemplateRequired",
            format!("`{}` needs a properties.template with at least one container.", id.name),
        ));
    }
    if body["properties"]["template"].is_null()
        && let Some(existing) = existing
    {
        body["properties"]["template"] = existing.body["properties"]["template"].clone();
    }
    let secrets = secret_names(body);
    rules::template(&body["properties"]["template"], &secrets)?;
    scale::check(&body["properties"]["template"]["scale"], &secrets, &identities(body))?;
    complete_template(&mut body["properties"]["template"]);
    let made = make_revision(connection, call, id, body)?;
    check_traffic(connection, id, body)?;
    purge(connection, id, body)?;
    if let Some(stopped) = existing.filter(|existing| is_stopped(&existing.body)) {
        body["properties"]["runningStatus"] = stopped.body["properties"]["runningStatus"].clone();
    }
    Ok(made)
}

fn in_environment(
    connection: &Connection,
    existing: Option<&Resource>,
    body: &mut Value,
) -> Result<(), ArmError> {
    let before = existing.and_then(|existing| environment_of(&existing.body));
    let Some(wanted) = environment_of(body).or_else(|| before.clone()) else {
        return Err(ArmError::bad_request(
            "ContainerAppManagedEnvironmentIdRequired",
            "properties.managedEnvironmentId must name a Container Apps environment.",
        ));
    };
    if before.is_some_and(|before| before.key() != wanted.key()) {
        return Err(ArmError::bad_request(
            "ContainerAppManagedEnvironmentIdImmutable",
            "The environment of a container app cannot be changed: make another app.",
        ));
    }
    let environment = records::load(connection, &wanted.key())?.ok_or_else(|| {
        ArmError::bad_request(
            "ManagedEnvironmentNotFound",
            format!("The Container Apps environment `{}` does not exist.", wanted.text),
        )
    })?;
    if existing.is_none() && environment.state != operations::SUCCEEDED {
        return Err(ArmError::conflict(
            "ManagedEnvironmentNotReadyForAppCreation",
            format!("The Container Apps environment `{}` is {}: try again.", wanted.name, environment.state),
        ));
    }
    let properties = body["properties"].as_object_mut().expect("every stored body has properties");
    properties.insert("managedEnvironmentId".to_owned(), json!(environment.id.text));
    properties.insert("environmentId".to_owned(), json!(environment.id.text));
    let profile = properties.entry("workloadProfileName").or_insert_with(|| json!("Consumption"));
    let offered = environment.body.pointer("/properties/workloadProfiles").and_then(Value::as_array);
    if offered.is_some_and(|offered| !offered.iter().any(|one| one["name"] == *profile)) {
        return Err(ArmError::bad_request(
            "WorkloadProfileNameNotFound",
            format!("The Container Apps environment `{}` has no workload profile {profile}.", wanted.name),
        ));
    }
    Ok(())
}

fn configure(body: &mut Value, known_secrets: &[Value]) -> Result<(), ArmError> {
    let properties = body["properties"].as_object_mut().expect("every stored body has properties");
    let configuration = properties.entry("configuration").or_insert_with(|| json!({}));
    let Some(configuration) = configuration.as_object_mut() else {
        return Err(ArmError::bad_request(
            "InvalidRequestContent",
            "properties.configuration must be an object.",
        ));
    };
    let mode = configuration.entry("activeRevisionsMode").or_insert_with(|| json!("Single"));
    let spelt = ["Single", "Multiple"]
        .into_iter()
        .find(|known| mode.as_str().is_some_and(|mode| mode.eq_ignore_ascii_case(known)));
    let Some(spelt) = spelt else {
        return Err(ArmError::bad_request(
            "ContainerAppInvalidActiveRevisionsMode",
            "properties.configuration.activeRevisionsMode is `Single` or `Multiple`.",
        ));
    };
    *mode = json!(spelt);
    configuration.entry("maxInactiveRevisions").or_insert_with(|| json!(INACTIVE_REVISIONS_MAX));
    if let Some(given) = configuration.get("secrets").and_then(Value::as_array) {
        let secrets = rules::secrets(given, known_secrets)?;
        configuration.insert("secrets".to_owned(), Value::Array(secrets));
    }
    if let Some(ingress) = configuration.get_mut("ingress") {
        rules::ingress(ingress)?;
        if let Some(ingress) = ingress.as_object_mut() {
            complete_ingress(ingress);
        }
    }
    Ok(())
}

fn complete_ingress(ingress: &mut Map<String, Value>) {
    ingress.shift_remove("fqdn");
    let defaults =
        json!({ "external": false, "transport": "Auto", "exposedPort": 0, "allowInsecure": false });
    for (name, value) in defaults.as_object().into_iter().flatten() {
        ingress.entry(name.clone()).or_insert_with(|| value.clone());
    }
    if ingress.get("traffic").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        ingress.insert("traffic".to_owned(), json!([{ "latestRevision": true, "weight": 100 }]));
    }
}

fn complete_template(template: &mut Value) {
    let Some(template) = template.as_object_mut() else { return };
    template.entry("revisionSuffix").or_insert_with(|| json!(""));
    let scale = template.entry("scale").or_insert_with(|| json!({}));
    if let Some(scale) = scale.as_object_mut() {
        scale::complete(scale);
    }
    for container in template.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(container) = container.as_object_mut() {
            container.entry("resources").or_insert_with(|| json!({ "cpu": 0.5, "memory": "1Gi" }));
        }
    }
}

/// A template without its suffix: what two revisions are compared by.
fn substance(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(template) = template.as_object_mut() {
        template.shift_remove("revisionSuffix");
    }
    template
}

fn make_revision(
    connection: &Connection,
    call: &Call,
    id: &ResourceId,
    body: &mut Value,
) -> Result<bool, ArmError> {
    let app = id.key();
    let there = records::revisions(connection, &app)?;
    let template = body["properties"]["template"].clone();
    let wanted = template["revisionSuffix"].as_str().filter(|suffix| !suffix.is_empty());
    let latest = there.last();
    let name = match wanted {
        Some(suffix) => {
            rules::suffix(&id.name, suffix)?;
            let name = format!("{}--{suffix}", id.name);
            match there.iter().find(|revision| revision.name == name) {
                None => Some(name),
                Some(same) if substance(&same.template) == substance(&template) => None,
                Some(_) => {
                    return Err(ArmError::bad_request(
                        "ContainerAppInvalidRevisionSuffix",
                        format!(
                            "The field `template.revisionSuffix` is invalid: revision with suffix {suffix} already exists."
                        ),
                    ));
                }
            }
        }
        None if latest.is_some_and(|latest| substance(&latest.template) == substance(&template)) => None,
        None => Some(generated_name(id, &there)),
    };
    let Some(name) = name else {
        if let Some(latest) = latest {
            body["properties"]["template"] = latest.template.clone();
        }
        return Ok(false);
    };
    let revision = Revision {
        name,
        ordinal: latest.map_or(1, |latest| latest.ordinal + 1),
        template,
        active: true,
        provisioned: false,
        created: call.now,
        last_active: call.now,
    };
    records::save_revision(connection, &app, &revision)?;
    Ok(true)
}

fn generated_name(id: &ResourceId, there: &[Revision]) -> String {
    loop {
        // A suffix begins with a letter; a UUID may not.
        let random = Uuid::new_v4().simple().to_string();
        let name = format!("{}--r{}", id.name, &random[..GENERATED_SUFFIX_CHARS - 1]);
        if there.iter().all(|revision| revision.name != name) {
            return name;
        }
    }
}

fn check_traffic(connection: &Connection, id: &ResourceId, body: &Value) -> Result<(), ArmError> {
    let configuration = &body["properties"]["configuration"];
    let Some(traffic) = configuration["ingress"]["traffic"].as_array() else { return Ok(()) };
    if is_single(body) {
        return Ok(());
    }
    let revisions = records::revisions(connection, &id.key())?;
    let candidates = revisions
        .iter()
        .map(|revision| rules::Candidate { name: &revision.name, active: revision.active })
        .collect::<Vec<_>>();
    rules::traffic(traffic, &candidates)
}

/// Forgets the oldest inactive revisions beyond the number that the app keeps.
fn purge(connection: &Connection, id: &ResourceId, body: &Value) -> Result<(), ArmError> {
    let keep = body["properties"]["configuration"]["maxInactiveRevisions"]
        .as_u64()
        .unwrap_or(INACTIVE_REVISIONS_MAX);
    let revisions = records::revisions(connection, &id.key())?;
    let inactive = revisions.iter().filter(|revision| !revision.active).collect::<Vec<_>>();
    let excess = inactive.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
    for revision in &inactive[..excess] {
        records::remove_revision(connection, &id.key(), &revision.name)?;
    }
    Ok(())
}

fn secret_names(body: &Value) -> Vec<String> {
    let secrets = body["properties"]["configuration"]["secrets"].as_array();
    secrets.into_iter().flatten().filter_map(|secret| secret["name"].as_str().map(str::to_owned)).collect()
}

fn is_single(body: &Value) -> bool {
    body["properties"]["configuration"]["activeRevisionsMode"] == json!("Single")
}

fn is_stopped(body: &Value) -> bool {
    body["properties"]["runningStatus"] == json!(STOPPED)
}

/// The revision that `latestRevision` stands for: the newest that was ready and is active.
fn latest_ready(revisions: &[Revision]) -> Option<&Revision> {
    let ready = |revision: &&Revision| revision.provisioned;
    revisions
        .iter()
        .rev()
        .find(|revision| revision.active && revision.provisioned)
        .or_else(|| revisions.iter().rev().find(ready))
}

/// Percent of the app's traffic by revision, in order of first mention.
fn weights(body: &Value, revisions: &[Revision]) -> Vec<(String, u32)> {
    let latest = latest_ready(revisions).or(revisions.last()).map(|revision| revision.name.clone());
    if is_single(body) {
        return latest.into_iter().map(|name| (name, 100)).collect();
    }
    let mut weights: Vec<(String, u32)> = Vec::new();
    for entry in body["properties"]["configuration"]["ingress"]["traffic"].as_array().into_iter().flatten() {
        let weight =
            entry["weight"].as_u64().and_then(|weight| u32::try_from(weight).ok()).unwrap_or_default();
        let Some(name) = entry["revisionName"].as_str().map(str::to_owned).or_else(|| latest.clone()) else {
            continue;
        };
        match weights.iter_mut().find(|(known, _)| *known == name) {
            Some((_, total)) => *total += weight,
            None => weights.push((name, weight)),
        }
    }
    weights
}

/// The domain under which an app's hosts are; its own label for apps that are not external.
fn domain(body: &Value, naming: &Naming) -> Option<String> {
    let ingress = body["properties"]["configuration"]["ingress"].as_object()?;
    let domain = defaults::environment_domain(&environment_of(body)?, naming);
    let external = ingress.get("external").and_then(Value::as_bool).unwrap_or_default();
    Some(if external { domain } else { format!("internal.{domain}") })
}

/// Finishes what a GET of an app shows.
pub(super) fn show(
    connection: &Connection,
    app: &Resource,
    naming: &Naming,
    shown: &mut Value,
) -> Result<(), ArmError> {
    let revisions = records::revisions(connection, &app.id.key())?;
    let domain = domain(&app.body, naming);
    let host = |name: &str| domain.as_ref().map(|domain| format!("{name}.{domain}:{}", naming.ingress_port));
    let properties = &mut shown["properties"];
    properties["runningStatus"] = json!(if is_stopped(&app.body) { STOPPED } else { "Running" });
    if let Some(latest) = revisions.last() {
        properties["latestRevisionName"] = json!(latest.name);
        properties["latestRevisionFqdn"] = json!(host(&latest.name).unwrap_or_default());
    }
    if let Some(ready) = latest_ready(&revisions) {
        properties["latestReadyRevisionName"] = json!(ready.name);
    }
    properties["outboundIpAddresses"] = json!(["127.0.0.1"]);
    properties["customDomainVerificationId"] =
        json!(defaults::uuid_of(&app.id, "domain").simple().to_string());
    if let Some(ingress) = properties["configuration"]["ingress"].as_object_mut() {
        ingress.insert("fqdn".to_owned(), json!(host(&app.id.name)));
    }
    if let Some(secrets) = properties["configuration"].get_mut("secrets") {
        rules::without_values(secrets);
    }
    Ok(())
}
