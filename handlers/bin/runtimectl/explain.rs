//! `explain`: what caused a thing, what it caused, and why it was decided so.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    process::ExitCode,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    cli::{Connection, ExplainArgs, ExplainFormat},
    client::{Client, ReadError, segment},
    context::Context,
    failure::Failure,
    feed::Feed,
    output::{Out, Tint, clock, scalar, text, tint_of},
    story,
    tree::{Node, Tree},
};

/// Events of one workflow that are read, at most.
const EVENTS_MAX: usize = 5000;
/// Commands, deployments and operations of one workflow that are looked up, at most of each.
const LOOKUPS_MAX: usize = 20;

/// What was asked about, and where its story is to be found.
#[derive(Default)]
struct Found {
    /// The thing itself, under its kind.
    thing: Option<(&'static str, Value)>,
    correlation: Option<String>,
    /// Ids of the messages that it is about.
    focus: HashSet<String>,
    deployments: BTreeSet<String>,
    operations: BTreeSet<String>,
}

/// The whole story.
struct Story {
    asked: String,
    found: Found,
    tree: Tree,
    commands: HashMap<String, Value>,
    deployments: Vec<Value>,
    operations: Vec<Value>,
    /// Events were left out: the workflow has more than we read.
    cut: bool,
}

/// Runs `explain`.
///
/// # Errors
/// When there is no such thing, or the platform cannot be reached.
pub async fn run(connection: &Connection, args: &ExplainArgs, out: &Out) -> Result<ExitCode, Failure> {
    let context = Context::open(connection, out)?;
    let client = Client::new(&context, &context.tenant(connection)?).await?;
    let found = find(&client, &args.id).await?;
    let story = gather(&client, args.id.clone(), found).await?;
    match args.output {
        ExplainFormat::Text => tell(&story, out)?,
        ExplainFormat::Json => out.json(&as_json(&story))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn maybe(client: &Client, path: &str, id: &str) -> Result<Option<Value>, ReadError> {
    match client.get(&format!("{path}/{}", segment(id)), &[]).await {
        Ok(value) => Ok(Some(value)),
        Err(ReadError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn find(client: &Client, id: &str) -> Result<Found, Failure> {
    let kind = match id.split_once('-').map(|(prefix, _)| prefix) {
        Some("op") => "operations",
        Some("dep") => "deployments",
        Some("env") => "environments",
        Some("plan") => "plans",
        _ => return find_message(client, id).await,
    };
    let thing = client.get(&format!("{kind}/{}", segment(id)), &[]).await?;
    let mut found = Found::default();
    if kind == "deployments" {
        found.deployments.insert(id.to_owned());
    }
    let operation = if kind == "operations" { Some(id) } else { thing["operationId"].as_str() };
    if let Some(operation) = operation {
        found.operations.insert(operation.to_owned());
        let operation = if kind == "operations" {
            Some(thing.clone())
        } else {
            maybe(client, "operations", operation).await?
        };
        if let Some(operation) = operation {
            found.correlation = operation["correlationId"].as_str().map(str::to_owned);
            found.focus.extend(operation["commandId"].as_str().map(str::to_owned));
        }
    }
    found.thing = Some((kind, thing));
    Ok(found)
}

async fn find_message(client: &Client, id: &str) -> Result<Found, Failure> {
    let mut found = Found { focus: HashSet::from([id.to_owned()]), ..Found::default() };
    if let Some(item) = maybe(client, "events", id).await? {
        found.correlation = item["envelope"]["correlationId"].as_str().map(str::to_owned);
        found.thing = Some(("events", item));
        return Ok(found);
    }
    let Some(command) = maybe(client, "commands", id).await? else {
        return Err(Failure::failed(format!("Nothing is known of `{id}`")).advice(
            "name an event, an operation (op-), a deployment (dep-), an environment (env-) or a plan (plan-); \
             a command that was just sent is known a moment later; is --tenant right?",
        ));
    };
    found.correlation = command["outcome"]["correlationId"].as_str().map(str::to_owned);
    if let Some(operation) = command["operationId"].as_str() {
        found.operations.insert(operation.to_owned());
        if found.correlation.is_none() {
            let operation = maybe(client, "operations", operation).await?;
            found.correlation = operation.and_then(|it| it["correlationId"].as_str().map(str::to_owned));
        }
    }
    found.thing = Some(("commands", command));
    Ok(found)
}

async fn gather(client: &Client, asked: String, mut found: Found) -> Result<Story, Failure> {
    let (items, complete) = match &found.correlation {
        Some(correlation) => Feed::new(None, Some(correlation)).rest(client, EVENTS_MAX).await?,
        None => (Vec::new(), true),
    };
    let of_thing = |item: &&Value| {
        let payload = &item["envelope"]["payload"];
        ["deploymentId", "restoredDeploymentId"].iter().any(|member| payload[member] == asked.as_str())
    };
    found.focus.extend(items.iter().filter(of_thing).map(|item| text(&item["envelope"], "eventId")));
    let tree = Tree::of(items, &found.focus.iter().cloned().collect::<Vec<_>>());

    let shown = tree.roots(&found.focus).into_iter().flat_map(|root| tree.below(root)).map(|(_, node)| node);
    let shown = shown.collect::<Vec<_>>();
    let mut commands = HashMap::new();
    for node in shown.iter().filter(|node| node.item.is_none()).take(LOOKUPS_MAX) {
        if let Some(command) = maybe(client, "commands", &node.id).await? {
            found.operations.extend(command["operationId"].as_str().map(str::to_owned));
            commands.insert(node.id.clone(), command);
        }
    }
    for item in shown.iter().filter_map(|node| node.item.as_ref()) {
        found.deployments.extend(item["envelope"]["payload"]["deploymentId"].as_str().map(str::to_owned));
    }
    let mut deployments = Vec::new();
    for id in found.deployments.iter().take(LOOKUPS_MAX) {
        if let Some(deployment) = maybe(client, "deployments", id).await? {
            found.operations.extend(deployment["operationId"].as_str().map(str::to_owned));
            deployments.push(deployment);
        }
    }
    let mut operations = Vec::new();
    for id in found.operations.iter().take(LOOKUPS_MAX) {
        operations.extend(maybe(client, "operations", id).await?);
    }
    operations.sort_by_key(|operation| text(operation, "startedAt"));
    Ok(Story { asked, found, tree, commands, deployments, operations, cut: !complete })
}

fn tell(story: &Story, out: &Out) -> Result<(), Failure> {
    out.line(&heading(story, out))?;
    if let Some(correlation) = &story.found.correlation {
        out.line(&out.paint(Tint::Dim, &format!("in the workflow {correlation}")))?;
    }
    let roots = story.tree.roots(&story.found.focus);
    if !story.tree.nodes().is_empty() {
        out.line("")?;
    }
    for root in &roots {
        for (branch, node) in story.tree.below(*root) {
            out.line(&format!("{}{}", out.paint(Tint::Dim, &branch), node_line(story, node, out)))?;
        }
    }
    if story.cut {
        out.line(&format!("(the workflow has more than {EVENTS_MAX} events; the rest is left out)"))?;
    }
    for deployment in &story.deployments {
        tell_gate(deployment, out)?;
    }
    for operation in &story.operations {
        tell_operation(operation, out)?;
    }
    Ok(())
}

/// The thing that was asked about, in one line.
fn heading(story: &Story, out: &Out) -> String {
    let asked = out.paint(Tint::Bold, &story.asked);
    let Some((kind, thing)) = &story.found.thing else { return asked };
    let status = text(thing, "status");
    let status = out.paint(tint_of(&status), &status);
    let member = |name: &str| text(thing, name);
    match *kind {
        "deployments" => format!(
            "{asked}  {status}  {} of {} in {}{}",
            member("image"),
            member("moduleId"),
            member("environmentId"),
            reason(thing)
        ),
        "operations" => {
            format!("{asked}  {status}  {} of {}, at {}", member("kind"), member("subject"), member("step"))
        }
        "environments" => {
            format!("{asked}  {status}  {} ({}, {})", member("name"), member("stage"), member("region"))
        }
        "plans" => format!("{asked}  plan of {}", member("environmentId")),
        "commands" => format!("{asked}  {status}  {}{}", member("commandType"), detail(thing)),
        _ => {
            let envelope = &thing["envelope"];
            format!("{asked}  {}  {}", text(envelope, "eventType"), story::sentence(envelope))
        }
    }
}

fn reason(thing: &Value) -> String {
    let reason = text(thing, "reason");
    if reason.is_empty() { reason } else { format!(" ({reason})") }
}

fn detail(thing: &Value) -> String {
    let detail = text(thing, "detail");
    if detail.is_empty() { detail } else { format!(": {detail}") }
}

fn node_line(story: &Story, node: &Node, out: &Out) -> String {
    let mark = if node.id == story.asked { out.paint(Tint::Bold, "  <== this") } else { String::new() };
    if let Some(item) = &node.item {
        let envelope = &item["envelope"];
        let kind = text(envelope, "eventType");
        return format!(
            "{}  {}  {}  {}  {}{mark}",
            clock(&text(envelope, "occurredAt")),
            out.paint(tint_of(&kind), &kind),
            out.paint(Tint::Dim, story::short(&node.id)),
            story::subject(envelope),
            story::sentence(envelope)
        );
    }
    match story.commands.get(&node.id) {
        Some(command) => format!(
            "{}  {}  command, {}{mark}",
            out.paint(Tint::Bold, &text(command, "commandType")),
            out.paint(Tint::Dim, story::short(&node.id)),
            text(command, "status")
        ),
        None => format!("{}  a message from outside{mark}", story::short(&node.id)),
    }
}

fn tell_gate(deployment: &Value, out: &Out) -> Result<(), Failure> {
    let gate = &deployment["gate"];
    if !gate.is_object() {
        return Ok(());
    }
    let verdict = match text(gate, "verdict") {
        verdict if verdict.is_empty() => "not decided yet".to_owned(),
        verdict => verdict,
    };
    out.line("")?;
    out.line(&format!(
        "Health gate of {}: {}{}",
        out.paint(Tint::Bold, &text(deployment, "deploymentId")),
        out.paint(tint_of(&verdict), &verdict),
        match text(gate, "reason") {
            reason if reason.is_empty() => reason,
            reason => format!(". {reason}"),
        }
    ))?;
    for sample in gate["samples"].as_array().into_iter().flatten() {
        let latency = text(sample, "latencyMs");
        let latency = if latency.is_empty() { latency } else { format!("  {latency} ms") };
        out.line(&format!("  {}  {}{latency}", clock(&text(sample, "at")), answer(&sample["answer"])))?;
    }
    Ok(())
}

/// What a probe met, in words; a kind that is new to us with whatever is told of it.
fn answer(answer: &Value) -> String {
    let reason = || text(answer, "reason");
    match text(answer, "kind").as_str() {
        "status" => {
            let later = answer["retry_after"] == true || answer["retryAfter"] == true;
            format!(
                "HTTP {}{}",
                text(answer, "status"),
                if later { ", asks to be left alone for a while" } else { "" }
            )
        }
        "unreachable" => format!("not reached: {}", reason()),
        "timedOut" => "no answer in time".to_owned(),
        "forbidden" => format!("not asked: {}", reason()),
        _ => scalar(answer),
    }
}

fn tell_operation(operation: &Value, out: &Out) -> Result<(), Failure> {
    let status = text(operation, "status");
    out.line("")?;
    out.line(&format!(
        "Operation {}: {}, {}{}{}",
        out.paint(Tint::Bold, &text(operation, "operationId")),
        text(operation, "kind"),
        out.paint(tint_of(&status), &status),
        took(operation),
        detail(operation)
    ))?;
    for note in operation["notes"].as_array().into_iter().flatten() {
        out.line(&format!("  {}  {}", clock(&text(note, "at")), text(note, "text")))?;
    }
    Ok(())
}

fn took(operation: &Value) -> String {
    let at = |member: &str| text(operation, member).parse::<Timestamp>().ok();
    match (at("startedAt"), at("endedAt")) {
        (Some(start), Some(end)) => format!(" after {}s", end.duration_since(start).as_secs()),
        _ => String::new(),
    }
}

fn as_json(story: &Story) -> Value {
    let roots = story.tree.roots(&story.found.focus);
    let nodes = roots.into_iter().flat_map(|root| story.tree.below(root)).map(|(_, node)| node);
    let (events, commands): (Vec<_>, Vec<_>) = nodes.partition(|node| node.item.is_some());
    json!({
        "asked": story.asked,
        "correlationId": story.found.correlation,
        "thing": story.found.thing.as_ref().map(|(_, thing)| thing),
        "commands": commands.iter().filter_map(|node| story.commands.get(&node.id)).collect::<Vec<_>>(),
        "events": events.iter().map(|node| &node.item).collect::<Vec<_>>(),
        "deployments": story.deployments,
        "operations": story.operations,
        "complete": !story.cut,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_told_in_words() {
        assert_eq!(answer(&json!({"kind": "status", "status": 500, "retry_after": false})), "HTTP 500");
        assert_eq!(
            answer(&json!({"kind": "status", "status": 503, "retry_after": true})),
            "HTTP 503, asks to be left alone for a while"
        );
        assert_eq!(answer(&json!({"kind": "unreachable", "reason": "refused"})), "not reached: refused");
        assert_eq!(answer(&json!({"kind": "timedOut"})), "no answer in time");
        assert_eq!(answer(&json!({"kind": "forbidden", "reason": "metadata"})), "not asked: metadata");
        assert_eq!(answer(&json!({"kind": "novel"})), "{\"kind\":\"novel\"}");
    }

    #[test]
    fn an_operation_tells_how_long_it_took_once_it_has_ended() {
        let running = json!({"startedAt": "2026-03-02T10:15:30Z", "endedAt": null});
        assert_eq!(took(&running), "");
        let ended = json!({"startedAt": "2026-03-02T10:15:30Z", "endedAt": "2026-03-02T10:15:42Z"});
        assert_eq!(took(&ended), " after 12s");
    }
}
