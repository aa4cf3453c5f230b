//! Revisions and replicas as they are shown, what can be done to them, and what is to run.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{
    STOPPED, Scale, domain, is_single, is_stopped,
    secrets::{self, EnvValue, identities},
    weights,
};
use crate::local::azure::{
    address::ResourceId,
    defaults::Naming,
    images::ImageCatalogue,
    operations,
    records::{self, Resource, Revision},
    refusals::ArmError,
    registry,
    replicas::{Container, Fleet, ReplicaView, RunSpec},
    resources::{self, Call, Effect, Reply},
    types,
};

/// Restarts after which a revision that was never ready counts as failed.
const RESTARTS_UNTIL_FAILED: u32 = 5;

/// What of an app is to run, and by which hosts it is reached.
#[derive(Clone, Debug)]
pub(in crate::local::azure) struct Plan {
    pub app: ResourceId,
    /// The identities that the app has, in lower case.
    pub identities: Vec<String>,
    /// The app's own host, without a port; none where it has no ingress.
    pub host: Option<String>,
    /// Percent of the traffic by revision.
    pub weights: Vec<(String, u32)>,
    pub revisions: Vec<PlannedRevision>,
}

/// An active revision.
#[derive(Clone, Debug)]
pub(in crate::local::azure) struct PlannedRevision {
    pub host: Option<String>,
    pub spec: RunSpec,
}

/// What of the app `key` is to run; none where there is no such app.
pub(in crate::local::azure) fn plan(
    connection: &Connection,
    key: &str,
    naming: &Naming,
    images: &ImageCatalogue,
) -> Result<Option<Plan>, ArmError> {
    let Some(app) = records::load(connection, key)?.filter(|app| app.state != operations::DELETING) else {
        return Ok(None);
    };
    let all = records::revisions(connection, key)?;
    let domain = domain(&app.body, naming);
    let host = |name: &str| domain.as_ref().map(|domain| format!("{name}.{domain}"));
    let running = all.iter().filter(|revision| revision.active && !is_stopped(&app.body));
    let mut revisions = Vec::new();
    for revision in running {
        let mut spec = run_spec(&app, revision, domain.as_deref(), naming, images);
        if let Some(stand_in) = registry::pulled(connection, spec.image())? {
            spec.stand_in = stand_in;
        }
        revisions.push(PlannedRevision { host: host(&revision.name), spec });
    }
    Ok(Some(Plan {
        app: app.id.clone(),
        identities: identities(&app.body),
        host: host(&app.id.name),
        weights: weights(&app.body, &all),
        revisions,
    }))
}

fn run_spec(
    app: &Resource,
    revision: &Revision,
    domain: Option<&str>,
    naming: &Naming,
    images: &ImageCatalogue,
) -> RunSpec {
    let secrets = app.body["properties"]["configuration"]["secrets"].as_array();
    let given = revision.template["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let containers = given.iter().map(|container| {
        let mut env = BTreeMap::new();
        for entry in container["env"].as_array().into_iter().flatten() {
            let value = entry["value"].as_str().map(|value| EnvValue::Plain(value.to_owned()));
            let referred = || secrets::value_of(secrets, entry["secretRef"].as_str()?);
            if let (Some(name), Some(value)) = (entry["name"].as_str(), value.or_else(referred)) {
                env.insert(name.to_owned(), value);
            }
        }
        Container {
            name: container["name"].as_str().unwrap_or_default().to_owned(),
            image: container["image"].as_str().unwrap_or_default().to_owned(),
            env,
        }
    });
    let containers = containers.collect::<Vec<_>>();
    RunSpec {
        app: app.id.name.clone(),
        revision: revision.name.clone(),
        stand_in: images.stand_in(containers.first().map_or("", |container| &container.image)),
        containers,
        domain: domain.unwrap_or(&naming.ingress_domain).to_owned(),
        scale: Scale::of(&revision.template, domain.is_some()),
        millicores: given.iter().map(|container| millicores(&container["resources"]["cpu"])).sum(),
        memory_bytes: given.iter().map(|container| bytes(&container["resources"]["memory"])).sum(),
        broken: None,
    }
}

/// Thousandths of a processor, of a number or a text such as `0.5`; half a processor where it says
/// nothing that can be read.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is cut to what a u32 holds")]
fn millicores(cpu: &Value) -> u32 {
    let cores = cpu.as_f64().or_else(|| cpu.as_str()?.parse().ok()).unwrap_or(0.5);
    (cores * 1000.0).round().clamp(1.0, f64::from(u32::MAX)) as u32
}

/// Bytes of e.g. `1Gi`; one gibibyte where it says nothing that can be read.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a container has far less than 2^63 bytes"
)]
fn bytes(memory: &Value) -> u64 {
    const UNITS: [(&str, f64); 2] = [("Gi", 1_073_741_824.0), ("Mi", 1_048_576.0)];
    let text = memory.as_str().unwrap_or("1Gi");
    let unit = UNITS.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
    let number = unit.and_then(|(number, size)| Some(number.trim().parse::<f64>().ok()? * size));
    number.filter(|bytes| *bytes >= 1.0).unwrap_or(1_073_741_824.0) as u64
}

/// How a revision is, in Azure's three words.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Health {
    provisioning: &'static str,
    health: &'static str,
    running: &'static str,
}

fn health(active: bool, provisioned: bool, broken: bool, replicas: &[ReplicaView]) -> Health {
    if !active {
        return Health { provisioning: "Deprovisioned", health: "None", running: STOPPED };
    }
    if broken {
        let provisioning = if provisioned { "Provisioned" } else { "Failed" };
        return Health { provisioning, health: "Unhealthy", running: "Failed" };
    }
    let ready = replicas.iter().filter(|replica| replica.ready).count();
    let restarts = replicas.iter().map(|replica| replica.restarts).max().unwrap_or_default();
    let (health, running) = match (ready, restarts) {
        _ if replicas.is_empty() && provisioned => ("None", STOPPED),
        (ready, _) if ready > 0 && ready == replicas.len() => ("Healthy", "Running"),
        (0, RESTARTS_UNTIL_FAILED..) => ("Unhealthy", "Failed"),
        (_, 1..) => ("Unhealthy", "Degraded"),
        (0, 0) => ("None", "Processing"),
        (_, 0) => ("Healthy", "Running"),
    };
    let provisioning = match running {
        _ if provisioned || ready > 0 => "Provisioned",
        "Failed" => "Failed",
        _ => "Provisioning",
    };
    Health { provisioning, health, running }
}

fn show(app: &Resource, revision: &Revision, all: &[Revision], fleet: &Fleet, naming: &Naming) -> Value {
    let running = fleet.replicas(&app.id.key(), &revision.name);
    let active = revision.active && !is_stopped(&app.body);
    let broken = fleet.broken(&app.id.key(), &revision.name).filter(|_| active);
    let health = health(active, revision.provisioned, broken.is_some(), &running);
    let weights = weights(&app.body, all);
    let weight = weights.iter().find(|(name, _)| *name == revision.name).map_or(0, |(_, weight)| *weight);
    let domain = domain(&app.body, naming);
    let mut properties = json!({
        "createdTime": revision.created.to_string(),
        "lastActiveTime": revision.last_active.to_string(),
        "fqdn": domain.map(|domain| format!("{}.{domain}:{}", revision.name, naming.ingress_port)),
        "template": revision.template,
        "active": revision.active,
        "replicas": running.len(),
        "trafficWeight": weight,
        "healthState": health.health,
        "provisioningState": health.provisioning,
        "runningState": health.running,
    });
    let crashing = running.iter().find(|replica| !replica.ready && replica.restarts > 0);
    if let Some(detail) = broken.or_else(|| crashing.map(|replica| replica.detail.clone())) {
        if health.provisioning == "Failed" {
            properties["provisioningError"] = json!(detail);
        }
        properties["runningStateDetails"] = json!(detail);
    }
    json!({
        "id": format!("{}/revisions/{}", app.id.text, revision.name),
        "name": revision.name,
        "type": types::REVISION,
        "properties": properties,
    })
}

fn found<'a>(all: &'a [Revision], name: &str) -> Result<&'a Revision, ArmError> {
    all.iter()
        .find(|revision| revision.name.eq_ignore_ascii_case(name))
        .ok_or_else(|| ArmError::not_found("RevisionNotFound", format!("There is no revision `{name}`.")))
}

/// The app that a revision's or replica's id is in, and the revision's name.
fn app_of(connection: &Connection, id: &ResourceId) -> Result<(Resource, String), ArmError> {
    let mut at = id.clone();
    let mut revision = String::new();
    while at.spec.name != types::APP {
        if at.spec.name == types::REVISION {
            revision.clone_from(&at.name);
        }
        at = crate::local::azure::address::resource(&at.parent)
            .ok_or_else(|| ArmError::internal(format!("`{}` is in no container app.", id.text)))?;
    }
    Ok((resources::stored(connection, &at)?, revision))
}

/// All revisions of an app.
pub(in crate::local::azure) fn revisions(
    connection: &Connection,
    app: &ResourceId,
    fleet: &Fleet,
    naming: &Naming,
) -> Result<Vec<Value>, ArmError> {
    let app = resources::stored(connection, app)?;
    let all = records::revisions(connection, &app.id.key())?;
    Ok(all.iter().map(|revision| show(&app, revision, &all, fleet, naming)).collect())
}

pub(in crate::local::azure) fn revision(
    connection: &Connection,
    id: &ResourceId,
    fleet: &Fleet,
    naming: &Naming,
) -> Result<Value, ArmError> {
    let (app, name) = app_of(connection, id)?;
    let all = records::revisions(connection, &app.id.key())?;
    Ok(show(&app, found(&all, &name)?, &all, fleet, naming))
}

/// All replicas of a revision.
pub(in crate::local::azure) fn replicas(
    connection: &Connection,
    revision: &ResourceId,
    fleet: &Fleet,
) -> Result<Vec<Value>, ArmError> {
    let (app, name) = app_of(connection, revision)?;
    let all = records::revisions(connection, &app.id.key())?;
    let revision = found(&all, &name)?;
    let running = fleet.replicas(&app.id.key(), &revision.name);
    Ok(running.iter().map(|replica| show_replica(&app, revision, replica)).collect())
}

pub(in crate::local::azure) fn replica(
    connection: &Connection,
    id: &ResourceId,
    fleet: &Fleet,
) -> Result<Value, ArmError> {
    let (app, name) = app_of(connection, id)?;
    let all = records::revisions(connection, &app.id.key())?;
    let revision = found(&all, &name)?;
    let running = fleet.replicas(&app.id.key(), &revision.name);
    let replica = running.iter().find(|replica| replica.name.eq_ignore_ascii_case(&id.name));
    replica.map(|replica| show_replica(&app, revision, replica)).ok_or_else(|| {
        ArmError::not_found("ReplicaNotFound", format!("The revision `{name}` has no replica `{}`.", id.name))
    })
}

fn show_replica(app: &Resource, revision: &Revision, replica: &ReplicaView) -> Value {
    let names =
        revision.template["containers"].as_array().into_iter().flatten().map(|container| &container["name"]);
    let containers = names.map(|name| {
        json!({
            "name": name,
            "containerId": format!("local://{}/{}", replica.name, name.as_str().unwrap_or_default()),
            "ready": replica.ready,
            "started": replica.started,
            "restartCount": replica.restarts,
            "runningState": replica.container_state,
            "runningStateDetails": replica.detail,
        })
    });
    json!({
        "id": format!("{}/revisions/{}/replicas/{}", app.id.text, revision.name, replica.name),
        "name": replica.name,
        "type": types::REPLICA,
        "properties": {
            "createdTime": replica.created.to_string(),
            "runningState": if replica.ready { "Running" } else { "NotRunning" },
            "runningStateDetails": replica.detail,
            "containers": containers.collect::<Vec<_>>(),
            "initContainers": [],
        },
    })
}

/// A POST on an app or a revision.
pub(in crate::local::azure) fn act(
    connection: &Connection,
    call: &Call,
    id: &ResourceId,
    action: &str,
) -> Result<Reply, ArmError> {
    let (mut app, name) = app_of(connection, id)?;
    let key = app.id.key();
    let is = |wanted: &str| action.eq_ignore_ascii_case(wanted);
    if id.spec.name == types::APP && is("listSecrets") {
        let secrets = &app.body["properties"]["configuration"]["secrets"];
        let secrets = if secrets.is_null() { json!([]) } else { secrets.clone() };
        return Ok(Reply::new(StatusCode::OK, Some(json!({ "value": secrets }))));
    }
    let mut reply = Reply::new(StatusCode::OK, None);
    reply.effect = Effect::App(key.clone());
    if id.spec.name == types::APP && (is("start") || is("stop")) {
        app.body["properties"]["runningStatus"] = json!(if is("stop") { STOPPED } else { "Running" });
        app.etag = records::new_etag();
        records::save(connection, &app)?;
        reply.body = Some(resources::show(connection, &app, &call.naming)?);
        return Ok(reply);
    }
    if id.spec.name == types::REVISION {
        let all = records::revisions(connection, &key)?;
        let mut revision = found(&all, &name)?.clone();
        match action.to_ascii_lowercase().as_str() {
            "activate" | "deactivate" => {
                revision.active = is("activate");
                revision.last_active = call.now;
                records::save_revision(connection, &key, &revision)?;
                return Ok(reply);
            }
            "restart" => {
                reply.effect = Effect::Restart { app: key, revision: revision.name };
                return Ok(reply);
            }
            _ => {}
        }
    }
    Err(ArmError::not_found("InvalidAction", format!("`{}` has no action `{action}`.", id.spec.name)))
}

/// Notes that a replica of a revision was ready. In single mode the older revisions end with that.
pub(in crate::local::azure) fn promote(
    connection: &Connection,
    key: &str,
    name: &str,
    now: Timestamp,
) -> Result<(), ArmError> {
    let Some(app) = records::load(connection, key)? else { return Ok(()) };
    let all = records::revisions(connection, key)?;
    let Some(ready) = all.iter().find(|revision| revision.name == name) else { return Ok(()) };
    if !ready.provisioned {
        records::save_revision(
            connection,
            key,
            &Revision { provisioned: true, last_active: now, ..ready.clone() },
        )?;
    }
    if is_single(&app.body) {
        for older in all.iter().filter(|revision| revision.active && revision.ordinal < ready.ordinal) {
            records::save_revision(
                connection,
                key,
                &Revision { active: false, last_active: now, ..older.clone() },
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(ready: bool, restarts: u32) -> ReplicaView {
        ReplicaView {
            name: "r".to_owned(),
            created: Timestamp::UNIX_EPOCH,
            ready,
            started: ready,
            restarts,
            container_state: "Running",
            detail: String::new(),
        }
    }

    #[test]
    fn a_revision_is_what_its_replicas_are() {
        let says = |active, provisioned, replicas: &[ReplicaView]| {
            let Health { provisioning, health, running } = health(active, provisioned, false, replicas);
            (provisioning, health, running)
        };
        let table = [
            (says(true, false, &[]), ("Provisioning", "None", "Processing")),
            (says(true, false, &[replica(false, 0)]), ("Provisioning", "None", "Processing")),
            (says(true, false, &[replica(true, 0)]), ("Provisioned", "Healthy", "Running")),
            (says(true, true, &[replica(true, 0), replica(false, 0)]), ("Provisioned", "Healthy", "Running")),
            (
                says(true, true, &[replica(true, 0), replica(false, 2)]),
                ("Provisioned", "Unhealthy", "Degraded"),
            ),
            (says(true, false, &[replica(false, 1)]), ("Provisioning", "Unhealthy", "Degraded")),
            (says(true, false, &[replica(false, 5)]), ("Failed", "Unhealthy", "Failed")),
            (says(true, true, &[replica(false, 5)]), ("Provisioned", "Unhealthy", "Failed")),
            (says(true, true, &[]), ("Provisioned", "None", "Stopped")),
            (says(false, true, &[]), ("Deprovisioned", "None", "Stopped")),
        ];
        for (found, expected) in table {
            assert_eq!(found, expected);
        }
        assert_eq!(
            health(true, false, true, &[]),
            Health { provisioning: "Failed", health: "Unhealthy", running: "Failed" }
        );
    }

    #[test]
    fn what_a_container_may_use_is_read_from_numbers_and_texts() {
        assert_eq!([json!(0.25), json!("1.5"), json!(null)].map(|cpu| millicores(&cpu)), [250, 1500, 500]);
        let gibibyte = 1_073_741_824;
        assert_eq!(
            [json!("0.5Gi"), json!("2Mi"), json!("x")].map(|memory| bytes(&memory)),
            [gibibyte / 2, 2_097_152, gibibyte]
        );
    }
}
