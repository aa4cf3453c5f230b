//! `get`: what there is, as a table for people and as JSON or YAML for programs; once, or again whenever
//! it has changed.

use std::{process::ExitCode, time::Duration};

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    cli::{Connection, Format, GetArgs},
    client::{Client, Listed, segment},
    collections::Collection,
    context::Context,
    failure::Failure,
    feed::Feed,
    output::{Out, Tint, scalar, tint_of},
};

/// Clears a terminal and its scroll-back, and goes to its first place.
const CLEAR: &str = "\u{1b}[2J\u{1b}[3J\u{1b}[H";
/// What is shown before a YAML document that follows another.
const NEXT_DOCUMENT: &str = "---";

/// What was asked for, as it was answered.
#[derive(PartialEq)]
enum Found {
    One(Value),
    Many(Listed),
}

/// Runs `get`.
///
/// # Errors
/// When there is no such thing, or the platform cannot be reached.
pub async fn run(connection: &Connection, args: &GetArgs, out: &Out) -> Result<ExitCode, Failure> {
    let query = query(args)?;
    let context = Context::open(connection, out)?;
    let client = Client::new(&context, &context.tenant(connection)?).await?;
    if !args.watch {
        show(args, &find(&client, args, &query).await?, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    tokio::select! {
        ended = watch(&client, args, &query, out) => ended.map(|()| ExitCode::SUCCESS),
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
    }
}

/// Shows what there is, and shows it anew whenever it is another.
async fn watch(client: &Client, args: &GetArgs, query: &[(&str, &str)], out: &Out) -> Result<(), Failure> {
    let mut shown: Option<Found> = None;
    let mut away = false;
    loop {
        match find(client, args, query).await {
            Ok(found) if shown.as_ref() == Some(&found) => {}
            Ok(found) => {
                between(args, shown.is_some(), out)?;
                show(args, &found, out)?;
                shown = Some(found);
                away = false;
            }
            // It was there a moment ago: it may come back.
            Err(failure) if shown.is_some() && failure.is_unusable() => {
                if !away {
                    failure.tell(out);
                    out.note("trying again until it is back; Ctrl-C ends it");
                }
                away = true;
            }
            Err(failure) => return Err(failure),
        }
        sleep(Duration::from_secs(args.interval.into())).await;
    }
}

/// What stands between two showings: a terminal begins anew, a file goes on.
fn between(args: &GetArgs, again: bool, out: &Out) -> Result<(), Failure> {
    match args.output {
        Format::Table if out.terminal => {
            let now = Timestamp::now().strftime("%H:%M:%SZ");
            let about = format!("{CLEAR}{} at {now}, every {} s", args.kind.plural(), args.interval);
            out.line(&out.paint(Tint::Dim, &about))
        }
        Format::Table if again => out.line(""),
        Format::Yaml if again => out.line(NEXT_DOCUMENT),
        Format::Table | Format::Json | Format::Yaml => Ok(()),
    }
}

async fn find(client: &Client, args: &GetArgs, query: &[(&str, &str)]) -> Result<Found, Failure> {
    let limit = args.limit as usize;
    match (&args.id, args.kind.one, args.kind.list) {
        (Some(id), Some(path), _) => {
            Ok(Found::One(client.get(&path.replace("{}", &segment(id)), query).await?))
        }
        (None, _, Some("events")) => {
            let correlation = query.iter().find(|(name, _)| *name == "correlationId").map(|(_, value)| *value);
            let (items, complete) = Feed::new(None, correlation).rest(client, limit).await?;
            Ok(Found::Many(Listed { items, more: !complete }))
        }
        (None, _, Some(path)) => Ok(Found::Many(client.list(path, query, limit).await?)),
        (Some(_), None, _) => {
            Err(Failure::unusable(format!("{} are shown as a list", capital(args.kind))).advice("leave the id out"))
        }
        (None, _, None) => Err(Failure::unusable(format!("{} are shown one at a time", capital(args.kind)))
            .advice("name one by its id, which is in what it belongs to: `runtimectl get environments -o json` tells `planId`, `runtimectl get services` the services")),
    }
}

fn capital(collection: &Collection) -> String {
    let name = collection.plural();
    name[..1].to_uppercase() + &name[1..]
}

/// The query parameters that were asked for, which must be some of the collection's.
fn query(args: &GetArgs) -> Result<Vec<(&str, &str)>, Failure> {
    let given = [("environmentId", &args.environment), ("moduleId", &args.module), ("status", &args.status)];
    let mut query: Vec<(&str, &str)> =
        given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
    query.extend(args.filter.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let known = if args.id.is_some() { args.kind.one_filters } else { args.kind.filters };
    if let Some((unknown, _)) = query.iter().find(|(name, _)| !known.contains(name)) {
        let option = match *unknown {
            "environmentId" => "--environment".to_owned(),
            "moduleId" => "--module".to_owned(),
            "status" => "--status".to_owned(),
            other => format!("--filter {other}=..."),
        };
        let advice = match (known, args.id.is_some()) {
            ([], _) => "leave it out".to_owned(),
            (known, _) => format!("leave it out; there are: {}", known.join(", ")),
        };
        let what = format!("{option} does not apply to {}", args.kind.plural());
        return Err(Failure::unusable(what).advice(advice));
    }
    Ok(query)
}

fn show(args: &GetArgs, found: &Found, out: &Out) -> Result<(), Failure> {
    let listed = match found {
        Found::One(item) => {
            return match args.output {
                Format::Table => card(item, out),
                Format::Json => json(args, item, out),
                Format::Yaml => out.yaml(item),
            };
        }
        Found::Many(listed) => listed,
    };
    if listed.more {
        out.note(&format!("There are more than {}; see them with a larger --limit.", listed.items.len()));
    }
    match args.output {
        Format::Table if listed.items.is_empty() => {
            out.note(&format!("There are no {}.", args.kind.plural()));
            Ok(())
        }
        Format::Table => out.grid(&args.kind.grid(&listed.items, Timestamp::now())),
        Format::Json => json(args, &Value::Array(listed.items.clone()), out),
        Format::Yaml => out.yaml(&Value::Array(listed.items.clone())),
    }
}

/// Indented once, and one document a line where more follow.
fn json(args: &GetArgs, value: &Value, out: &Out) -> Result<(), Failure> {
    if args.watch { out.line(&value.to_string()) } else { out.json(value) }
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
