//! The end of the story: what there is now, and where to look on.

use std::path::Path;

use serde_json::Value;

use super::{
    stories::{STORIES, Story},
    tally,
    teller::Teller,
};
use crate::{
    failure::Failure,
    output::{Grid, text},
};

/// Rows of a table, at most: the stories make fewer.
const ROWS_MAX: usize = 50;

/// What the end depends on.
pub struct End<'a> {
    /// The one story that was told; none where all were.
    pub only: Option<&'static Story>,
    /// The platform stays up.
    pub keep: bool,
    /// Where the data was asked to be; none for a temporary directory.
    pub data: Option<&'a Path>,
    pub seconds: u64,
}

impl Teller {
    /// Tells what the whole came to, what exists now and where to look on.
    pub async fn closes(&mut self, end: &End<'_>) -> Result<(), Failure> {
        self.narrator.muted = false;
        self.sums_up(end)?;
        let environments = self.client.list("environments", &[], ROWS_MAX).await?.items;
        let deployments = self.client.list("deployments", &[], ROWS_MAX).await?.items;
        self.narrator.line("")?;
        self.narrator.line("What exists now")?;
        self.narrator.grid(&environment_grid(&environments))?;
        if !deployments.is_empty() {
            self.narrator.line("")?;
            self.narrator.grid(&deployment_grid(&deployments))?;
        }
        self.narrator.line("")?;
        let failed = deployments.iter().find(|deployment| text(deployment, "healthGate") == "Failed");
        let about = failed.map(|deployment| text(deployment, "deploymentId"));
        for line in where_to_look(end, &self.context.file, &self.environment, about.as_deref()) {
            self.narrator.line(&line)?;
        }
        self.narrator.line("")?;
        let seconds = end.seconds;
        let told = match end.only {
            Some(story) => {
                format!("The story `{}` went as told, in {seconds} seconds with all it needs.", story.name)
            }
            None if end.keep => format!(
                "All stories went as told, in {seconds} seconds; what the last one takes down stays for you to look at."
            ),
            None => format!("All {} stories went as told, in {seconds} seconds.", STORIES.len()),
        };
        self.narrator.line(&told)
    }

    /// The tables of commands and events, which the whole must have shown all of. A story by itself says
    /// enough without them.
    fn sums_up(&mut self, end: &End<'_>) -> Result<(), Failure> {
        if end.only.is_some() {
            return Ok(());
        }
        let sent: Vec<&str> = self.sent.values().copied().collect();
        let by_it: Vec<&str> = self.orders.values().map(String::as_str).collect();
        let grid = tally::commands(&sent, &by_it, &self.ends);
        self.narrator.line("")?;
        self.narrator.line("The stories")?;
        self.narrator.grid(&tally::times(&self.times))?;
        self.narrator.line("")?;
        self.narrator.line("The nine commands")?;
        self.narrator.grid(&grid)?;
        let cause = |event: &Value| self.cause(event).map(str::to_owned);
        let (grid, unwalked) =
            (tally::events(&self.events, &cause), tally::missing_arrows(&self.events, &cause));
        self.narrator.line("")?;
        self.narrator.line("The events, and what led to them")?;
        self.narrator.grid(&grid)?;
        let all: Vec<&str> = sent.iter().chain(&by_it).copied().collect();
        let mut missing = tally::missing(&all, &self.events);
        missing.extend(unwalked);
        missing.retain(|name| !(end.keep && name == "RuntimeEnvironmentDecommissioned"));
        if !missing.is_empty() {
            return Err(Failure::failed(format!(
                "The whole should show every command, event and arrow of the diagram, and shows no {}",
                missing.join(", no ")
            )));
        }
        Ok(())
    }
}

fn environment_grid(environments: &[Value]) -> Grid {
    let row = |it: &Value| {
        vec![
            text(it, "environmentId"),
            text(it, "name"),
            text(it, "projectId"),
            text(it, "region"),
            text(it, "computeTargets"),
            text(it, "status"),
        ]
    };
    Grid {
        header: vec!["ENVIRONMENT", "NAME", "PROJECT", "REGION", "TARGETS", "STATUS"],
        rows: environments.iter().map(row).collect(),
        status: Some(5),
    }
}

/// Deployments, newest first as they are listed; only what serves has a weight and an address.
fn deployment_grid(deployments: &[Value]) -> Grid {
    let row = |it: &Value| {
        let weight = it["weight"].as_u64().unwrap_or(0);
        let url = if weight > 0 { text(it, "url") } else { String::new() };
        let image = text(it, "image");
        vec![
            text(it, "deploymentId"),
            image.rsplit('/').next().unwrap_or(&image).to_owned(),
            text(it, "status"),
            text(it, "healthGate"),
            format!("{weight}%"),
            url,
        ]
    };
    Grid {
        header: vec!["DEPLOYMENT", "IMAGE", "STATUS", "GATE", "WEIGHT", "URL"],
        rows: deployments.iter().map(row).collect(),
        status: Some(2),
    }
}

/// Commands to go on with, which work as they stand where the platform stays.
fn where_to_look(end: &End<'_>, context: &Path, environment: &str, deployment: Option<&str>) -> Vec<String> {
    let program = if std::env::var_os("CARGO").is_some() { "cargo run -q --" } else { "runtimectl" };
    let directory = context.parent().unwrap_or(context).display().to_string();
    let mut all = match (end.keep, end.data) {
        (true, _) => Vec::new(),
        (false, Some(_)) => {
            vec![("what this demo left, running again", format!("{program} up --data {directory}"))]
        }
        (false, None) => vec![(
            "the same again, which stays up; at its end it names its directory, DIR below",
            format!("{program} demo --keep"),
        )],
    };
    let at = if end.keep || end.data.is_some() { directory } else { "DIR".to_owned() };
    if !environment.is_empty() {
        let command = format!("{program} get deployments --environment {environment} --context {at}");
        all.push(("what there is", command));
    }
    all.extend(deployment.map(|deployment| {
        ("why the bad release was taken back", format!("{program} explain {deployment} --context {at}"))
    }));
    all.extend([
        ("every event from the start", format!("{program} watch --after start --context {at}")),
        ("a platform of your own", format!("{program} up")),
        ("what all this is", "README.md".to_owned()),
    ]);
    let width = all.iter().map(|(_, command)| command.len()).max().unwrap_or(0);
    let lines = all.iter().map(|(what, command)| format!("  {command:width$}  {what}"));
    std::iter::once("Where to look on".to_owned()).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_serves_has_an_address() {
        let grid = deployment_grid(&[
            json!({"deploymentId": "dep-2", "image": "acr.io/api:2", "status": "RolledBack", "healthGate": "Failed", "weight": 0, "url": "https://api/"}),
            json!({"deploymentId": "dep-1", "image": "acr.io/api:1", "status": "Completed", "healthGate": "Passed", "weight": 100, "url": "https://api/"}),
        ]);
        assert_eq!(
            grid.rows,
            [
                ["dep-2", "api:2", "RolledBack", "Failed", "0%", ""],
                ["dep-1", "api:1", "Completed", "Passed", "100%", "https://api/"]
            ]
        );
    }

    #[test]
    fn a_platform_that_stays_is_asked_where_it_is_and_one_that_goes_is_started_again_first() {
        let commands = |keep, data: Option<&str>| {
            let end = End { only: None, keep, data: data.map(Path::new), seconds: 1 };
            let lines = where_to_look(&end, Path::new("/data/context.json"), "env-1", Some("dep-1"));
            let command = |line: &String| line.split("  ").nth(1).unwrap_or_default().to_owned();
            lines.iter().map(command).collect::<Vec<_>>()
        };
        let ends = |command: &str, end: &str| assert!(command.ends_with(end), "{command}");
        ends(&commands(true, None)[1], "get deployments --environment env-1 --context /data");
        ends(&commands(true, None)[2], "explain dep-1 --context /data");
        ends(&commands(false, None)[1], "demo --keep");
        ends(&commands(false, None)[3], "explain dep-1 --context DIR");
        ends(&commands(false, Some("/data"))[1], "up --data /data");
        ends(&commands(false, Some("/data"))[3], "explain dep-1 --context /data");
    }
}
