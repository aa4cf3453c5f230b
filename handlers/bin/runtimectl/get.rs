//! `get`: what there is, as a table for people and as JSON or YAML for programs.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    cli::{Connection, Format, GetArgs, Kind},
    client::{Client, Listed, segment},
    context::Context,
    failure::Failure,
    feed::Feed,
    output::{Grid, Out, Tint, age, scalar, text, tint_of},
    story,
};

/// How one cell comes out of an item.
type Cell = fn(&Value, Timestamp) -> String;

/// Runs `get`.
///
/// # Errors
/// When there is no such thing, or the platform cannot be reached.
pub async fn run(connection: &Connection, args: &GetArgs, out: &Out) -> Result<ExitCode, Failure> {
    let context = Context::open(connection, out)?;
    let client = Client::new(&context, &context.tenant(connection)?).await?;
    if let Some(id) = &args.id {
        if args.kind == Kind::Quarantine {
            return Err(
                Failure::unusable("What is in quarantine is shown as a list").advice("leave the id out")
            );
        }
        let item = client.get(&format!("{}/{}", path(args.kind), segment(id)), &[]).await?;
        match args.output {
            Format::Table => card(&item, out)?,
            Format::Json => out.json(&item)?,
            Format::Yaml => out.yaml(&item)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let listed = list(&client, args).await?;
    if listed.more {
        out.note(&format!("There are more than {}; see them with a larger --limit.", listed.items.len()));
    }
    match args.output {
        Format::Table if listed.items.is_empty() => out.note(&format!("There are no {}.", path(args.kind))),
        Format::Table => out.grid(&grid(args.kind, &listed.items, Timestamp::now()))?,
        Format::Json => out.json(&Value::Array(listed.items))?,
        Format::Yaml => out.yaml(&Value::Array(listed.items))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn path(kind: Kind) -> &'static str {
    match kind {
        Kind::Environments => "environments",
        Kind::Deployments => "deployments",
        Kind::Operations => "operations",
        Kind::TenantBindings => "tenant-bindings",
        Kind::Configurations => "configurations",
        Kind::SecretBindings => "secret-bindings",
        Kind::Plans => "plans",
        Kind::Events => "events",
        Kind::Quarantine => "quarantine",
        Kind::DeadLetters => "dead-letters",
        Kind::Drift => "drift",
    }
}

async fn list(client: &Client, args: &GetArgs) -> Result<Listed, Failure> {
    let unknown = |option: &str| {
        Failure::unusable(format!("{option} does not apply to {}", path(args.kind))).advice("leave it out")
    };
    let mut query = Vec::new();
    if let Some(environment) = &args.environment {
        match args.kind {
            Kind::Deployments
            | Kind::Operations
            | Kind::TenantBindings
            | Kind::Configurations
            | Kind::SecretBindings
            | Kind::Drift
            | Kind::Quarantine => query.push(("environmentId", environment.as_str())),
            Kind::Environments | Kind::Plans | Kind::Events | Kind::DeadLetters => {
                return Err(unknown("--environment"));
            }
        }
    }
    if let Some(module) = &args.module {
        match args.kind {
            Kind::Deployments | Kind::SecretBindings | Kind::Drift | Kind::Quarantine => {
                query.push(("moduleId", module.as_str()))
            }
            Kind::Environments
            | Kind::Operations
            | Kind::TenantBindings
            | Kind::Configurations
            | Kind::Plans
            | Kind::Events
            | Kind::DeadLetters => {
                return Err(unknown("--module"));
            }
        }
    }
    let limit = args.limit as usize;
    match args.kind {
        Kind::Plans => Err(Failure::unusable("Plans are shown one at a time")
            .advice("name one: an environment's is in `runtimectl get environments -o json` as `planId`")),
        Kind::Events => {
            let (items, complete) = Feed::new(None, None).rest(client, limit).await?;
            Ok(Listed { items, more: !complete })
        }
        Kind::Environments
        | Kind::Deployments
        | Kind::Operations
        | Kind::TenantBindings
        | Kind::Configurations
        | Kind::SecretBindings
        | Kind::Drift
        | Kind::Quarantine
        | Kind::DeadLetters => Ok(client.list(path(args.kind), &query, limit).await?),
    }
}

/// The columns of a list: title and cell.
fn columns(kind: Kind) -> &'static [(&'static str, Cell)] {
    match kind {
        Kind::Environments => &[
            ("ENVIRONMENT", |item, _| text(item, "environmentId")),
            ("NAME", |item, _| text(item, "name")),
            ("STAGE", |item, _| text(item, "stage")),
            ("REGION", |item, _| text(item, "region")),
            ("STATUS", |item, _| text(item, "status")),
            ("TARGETS", |item, _| text(item, "computeTargets")),
            ("OPERATION", |item, _| text(item, "operationId")),
            ("AGE", |item, now| aged(item, "createdAt", now)),
        ],
        Kind::Deployments => &[
            ("DEPLOYMENT", |item, _| text(item, "deploymentId")),
            ("ENVIRONMENT", |item, _| text(item, "environmentId")),
            ("MODULE", |item, _| text(item, "moduleId")),
            ("IMAGE", |item, _| last_segment(&text(item, "image"))),
            ("TARGET", |item, _| text(item, "target")),
            ("STATUS", |item, _| text(item, "status")),
            ("GATE", |item, _| text(item, "healthGate")),
            ("WEIGHT", |item, _| weight(item)),
            ("AGE", |item, now| aged(item, "requestedAt", now)),
        ],
        Kind::Operations => &[
            ("OPERATION", |item, _| text(item, "operationId")),
            ("KIND", |item, _| text(item, "kind")),
            ("SUBJECT", |item, _| text(item, "subject")),
            ("STATUS", |item, _| text(item, "status")),
            ("STEP", |item, _| text(item, "step")),
            ("ATTEMPT", |item, _| text(item, "attempt")),
            ("AGE", |item, now| aged(item, "startedAt", now)),
            ("DETAIL", |item, _| text(item, "detail")),
        ],
        Kind::TenantBindings => &[
            ("BINDING", |item, _| text(item, "tenantBindingId")),
            ("ENVIRONMENT", |item, _| text(item, "environmentId")),
            ("OWNER", |item, _| text(item, "ownerTenantId")),
            ("TENANT", |item, _| text(item, "boundTenantId")),
            ("MODEL", |item, _| text(item, "isolationModel")),
            ("SERVICES", |item, _| text(&item["quota"], "maxServices")),
            ("REPLICAS", |item, _| text(&item["quota"], "maxReplicas")),
            ("AGE", |item, now| aged(item, "boundAt", now)),
        ],
        Kind::Configurations => &[
            ("CONFIGURATION", |item, _| text(item, "configurationId")),
            ("ENVIRONMENT", |item, _| text(item, "environmentId")),
            ("VERSION", |item, _| text(item, "version")),
            ("STATUS", |item, _| text(item, "status")),
            ("AGE", |item, now| aged(item, "publishedAt", now)),
            ("REASON", |item, _| text(item, "reason")),
        ],
        Kind::SecretBindings => &[
            ("BINDING", |item, _| text(item, "secretBindingId")),
            ("ENVIRONMENT", |item, _| text(item, "environmentId")),
            ("MODULE", |item, _| text(item, "moduleId")),
            ("SECRET", |item, _| text(item, "secretName")),
            ("VERSION", |item, _| text(item, "version")),
            ("STATUS", |item, _| text(item, "status")),
            ("ROTATED", |item, now| aged(item, "lastRotatedAt", now)),
            ("DUE", |item, _| text(item, "nextRotationDueAt")),
            ("AGE", |item, now| aged(item, "boundAt", now)),
            ("REASON", |item, _| text(item, "reason")),
        ],
        Kind::Drift => &[
            ("FINDING", |item, _| text(item, "findingId")),
            ("ENVIRONMENT", |item, _| text(item, "environmentId")),
            ("KIND", |item, _| text(item, "kind")),
            ("SEVERITY", |item, _| text(item, "severity")),
            ("RESOURCE", |item, _| last_segment(&text(item, "resourceId"))),
            ("PATH", |item, _| text(item, "path")),
            ("STATUS", |item, _| text(item, "status")),
            ("AGE", |item, now| aged(item, "firstSeenAt", now)),
            ("WAITS", |item, _| text(item, "waits")),
        ],
        Kind::Plans => &[("PLAN", |item, _| text(item, "planId"))],
        Kind::Quarantine => &[
            ("DEPLOYMENT", |item, _| text(item, "deploymentId")),
            ("ENVIRONMENT", |item, _| text(item, "environmentId")),
            ("MODULE", |item, _| text(item, "moduleId")),
            ("IMAGE", |item, _| last_segment(&text(item, "image"))),
            ("AGE", |item, now| aged(item, "since", now)),
            ("BY", |item, _| text(item, "by")),
            ("REASON", |item, _| text(item, "reason")),
        ],
        Kind::DeadLetters => &[
            ("DEAD LETTER", |item, _| text(item, "deadLetterId")),
            ("TYPE", |item, _| text(item, "eventType")),
            ("MESSAGE", |item, _| text(item, "eventId")),
            ("FUNCTION", |item, _| text(item, "function")),
            ("REASON", |item, _| text(item, "reason")),
            ("AGE", |item, now| aged(item, "filedAt", now)),
            ("DETAIL", |item, _| text(item, "detail")),
        ],
        Kind::Events => &[
            ("EVENT", |item, _| text(&item["envelope"], "eventId")),
            ("TYPE", |item, _| text(&item["envelope"], "eventType")),
            ("SUBJECT", |item, _| story::subject(&item["envelope"])),
            ("CAUSE", |item, _| story::short(&text(&item["envelope"], "causationId")).to_owned()),
            ("WORKFLOW", |item, _| text(&item["envelope"], "correlationId")),
            ("AGE", |item, now| aged(&item["envelope"], "occurredAt", now)),
        ],
    }
}

fn grid(kind: Kind, items: &[Value], now: Timestamp) -> Grid {
    let columns = columns(kind);
    Grid {
        header: columns.iter().map(|(title, _)| *title).collect(),
        rows: items.iter().map(|item| columns.iter().map(|(_, cell)| cell(item, now)).collect()).collect(),
        status: columns.iter().position(|(title, _)| matches!(*title, "STATUS" | "TYPE")),
    }
}

fn aged(item: &Value, member: &str, now: Timestamp) -> String {
    text(item, member).parse().map_or_else(|_| String::new(), |at| age(at, now))
}

/// `reservations-api:1.4.2` of `acr.azurecr.io/reservations-api:1.4.2`.
fn last_segment(image: &str) -> String {
    image.rsplit('/').next().unwrap_or(image).to_owned()
}

fn weight(item: &Value) -> String {
    let weight = text(item, "weight");
    if weight.is_empty() { weight } else { format!("{weight}%") }
}

/// One thing in full: its members line by line, lists of objects one line each.
fn card(item: &Value, out: &Out) -> Result<(), Failure> {
    let Some(members) = item.as_object() else { return out.json(item) };
    let width = members.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in members {
        if value.is_null() {
            continue;
        }
        let label = out.paint(Tint::Dim, &format!("{name:width$}"));
        match value {
            Value::Object(inner) => {
                out.line(&label)?;
                for (name, value) in inner.iter().filter(|(_, value)| !value.is_null()) {
                    card_list(&format!("  {name}"), value, out)?;
                }
            }
            Value::Array(items) if items.iter().any(Value::is_object) => card_list(name, value, out)?,
            _ => {
                let shown = scalar(value);
                let shown = if name == "status" { out.paint(tint_of(&shown), &shown) } else { shown };
                out.line(&format!("{label}  {shown}"))?;
            }
        }
    }
    Ok(())
}

fn card_list(name: &str, value: &Value, out: &Out) -> Result<(), Failure> {
    match value {
        Value::Array(items) if items.iter().any(Value::is_object) => {
            out.line(&out.paint(Tint::Dim, name))?;
            items.iter().try_for_each(|item| out.line(&format!("    {}", words(item))))
        }
        _ => out.line(&format!("{}  {}", out.paint(Tint::Dim, name), words(value))),
    }
}

/// An object as `name value` pairs.
fn words(value: &Value) -> String {
    let Some(members) = value.as_object() else { return scalar(value) };
    let told = members.iter().filter(|(_, value)| !value.is_null());
    told.map(|(name, value)| format!("{name} {}", scalar(value))).collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_is_a_row_with_its_age_and_its_weight() {
        let item = json!({
            "deploymentId": "dep-1", "environmentId": "env-1", "moduleId": "m", "image": "acr.io/x/api:1.4.2",
            "target": "container-apps", "status": "Completed", "weight": 100, "requestedAt": "2026-03-02T10:00:00Z",
            "healthGate": "Passed"
        });
        let grid = grid(Kind::Deployments, &[item], "2026-03-02T10:05:00Z".parse().unwrap());
        assert_eq!(
            grid.rows,
            [["dep-1", "env-1", "m", "api:1.4.2", "container-apps", "Completed", "Passed", "100%", "5m"]]
        );
        assert_eq!(grid.status, Some(5));
    }

    #[test]
    fn every_list_has_columns_and_what_is_absent_is_empty() {
        for kind in [
            Kind::Environments,
            Kind::Deployments,
            Kind::Operations,
            Kind::TenantBindings,
            Kind::Configurations,
            Kind::SecretBindings,
            Kind::Plans,
            Kind::Events,
            Kind::Quarantine,
            Kind::DeadLetters,
            Kind::Drift,
        ] {
            let grid = grid(kind, &[json!({})], Timestamp::UNIX_EPOCH);
            assert_eq!(grid.header.len(), grid.rows[0].len());
            assert!(grid.rows[0].iter().all(String::is_empty), "{:?}", grid.rows);
        }
    }
}
