//! What can be typed.

mod orders;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use orders::*;

use crate::collections::{self, Collection};

/// The command line as a whole.
#[derive(Debug, Parser)]
#[command(
    name = "runtimectl",
    version,
    about = "The Runtime & Cloud Platform from the command line",
    after_help = "Example:\n  runtimectl send deploy --file deploy.json --tenant connectsoft --wait"
)]
pub struct Cli {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: Command,
}

/// Which platform, and in whose name.
#[derive(Clone, Debug, Default, Args)]
pub struct Connection {
    /// Which platform: a context file or the name of one [default: the nearest .runtime/context.json upwards]
    #[arg(
        long,
        global = true,
        env = "RUNTIME_CONTEXT",
        hide_env_values = true,
        value_name = "FILE|NAME",
        help_heading = "Platform"
    )]
    pub context: Option<String>,
    /// The tenant in whose name to ask [default: the context's]
    #[arg(long, global = true, env = "RUNTIME_TENANT", hide_env_values = true, help_heading = "Platform")]
    pub tenant: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Demo(DemoArgs),
    Up(UpArgs),
    Send(SendArgs),
    Get(GetArgs),
    Rollback(RollbackArgs),
    Rotate(RotateArgs),
    Remediate(RemediateArgs),
    Hold(HoldArgs),
    Release(ReleaseArgs),
    Lift(LiftArgs),
    Cancel(CancelArgs),
    Suppress(SuppressArgs),
    Sweep(SweepArgs),
    Decommission(DecommissionArgs),
    Watch(WatchArgs),
    Explain(ExplainArgs),
    Logs(LogsArgs),
    Stage(StageArgs),
    Completion(CompletionArgs),
}

/// Start the platform on this machine and tell its story, message by message, from nothing to nothing
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  runtimectl demo --keep\n  runtimectl demo --only rollback")]
pub struct DemoArgs {
    /// Where it keeps its data [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Leave the data there, and the platform running until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// Only one of the stories; what it needs is done first, without a word
    #[arg(long, value_name = "STORY", value_parser = crate::demo::only_values())]
    pub only: Option<String>,
}

/// Run the whole platform on this machine
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  runtimectl up --images images.json\n\nCtrl-C stops it; what it knew is there the next time."
)]
pub struct UpArgs {
    /// Where it keeps its data
    #[arg(long, value_name = "DIR", default_value = ".runtime")]
    pub data: PathBuf,
    /// Keep nothing
    #[arg(long, conflicts_with = "data")]
    pub ephemeral: bool,
    /// The function app: the folder with host.json [default: the nearest upwards]
    #[arg(long, value_name = "DIR")]
    pub app: Option<PathBuf>,
    /// What images do when they run: a catalogue, which may name programs of your own
    #[arg(long, value_name = "FILE")]
    pub images: Option<PathBuf>,
    /// Where the HTTP functions listen; the stand-ins follow. Other ports are taken where these are in use
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
}

/// Send a command to the platform, and see what becomes of it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    runtimectl send deploy --file deploy.json --tenant connectsoft --project proj-booking-saas --wait\n  \
    echo '{\"environmentId\":\"env-3a6e1f0c\",\"moduleId\":\"module-reservations\",\"reason\":\"errors\"}' \\\n    \
    | runtimectl send rollback-deployment --file - --tenant connectsoft\n\n\
    The file holds a canonical envelope, a MassTransit envelope, or just a payload: then an envelope is\n\
    made around it. Exit code: 0 sent (with --wait: it succeeded), 1 it failed or was rejected, 2 it was\n\
    asked wrongly or the platform cannot be reached.")]
pub struct SendArgs {
    /// Which command: deploy, or Deploy
    pub command: String,
    /// The message; - reads standard input
    #[arg(long, short, value_name = "FILE|-")]
    pub file: PathBuf,
    /// The project, for an envelope that is made
    #[arg(long)]
    pub project: Option<String>,
    /// The module, for an envelope that is made [default: the one that the payload names]
    #[arg(long)]
    pub module: Option<String>,
    /// The workflow it belongs to, for an envelope that is made [default: a new one]
    #[arg(long)]
    pub correlation_id: Option<String>,
    /// The intent it belongs to, for an envelope that is made [default: a new one]
    #[arg(long)]
    pub trace_id: Option<String>,
    /// The message's id, for an envelope that is made: sending an id again does nothing again [default: a new one]
    #[arg(long)]
    pub event_id: Option<String>,
    /// Another queue than the command's own
    #[arg(long)]
    pub queue: Option<String>,
    /// Follow the command to its end
    #[arg(long)]
    pub wait: bool,
    /// How long to follow it, e.g. 90s, 10m
    #[arg(long, value_parser = duration, default_value = "10m", requires = "wait")]
    pub timeout: Duration,
    /// How the message travels; a MassTransit envelope is sent as it is
    #[arg(long, value_enum, default_value_t = Wire::Raw)]
    pub wire: Wire,
    /// Send what looks wrong too: let the platform judge
    #[arg(long)]
    pub unchecked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wire {
    /// The canonical envelope is the body
    Raw,
    /// The canonical envelope inside MassTransit's
    Masstransit,
}

/// Show what there is: environments, deployments, services, operations, commands, events and all the rest
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    runtimectl get deployments --environment env-3a6e1f0c\n  \
    runtimectl get environments env-3a6e1f0c -o yaml\n  \
    runtimectl get operations --status Running --watch\n  \
    runtimectl get drift --filter severity=Critical -o json")]
pub struct GetArgs {
    #[arg(value_parser = collections::parser(), value_name = "WHAT")]
    pub kind: &'static Collection,
    /// One of them, by its id
    pub id: Option<String>,
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Only of this environment
    #[arg(long, value_name = "ID", conflicts_with = "id")]
    pub environment: Option<String>,
    /// Only of this module
    #[arg(long, value_name = "ID", conflicts_with = "id")]
    pub module: Option<String>,
    /// Only in this status, e.g. Running
    #[arg(long, conflicts_with = "id")]
    pub status: Option<String>,
    /// Only where a member has this value, e.g. severity=Critical; which members depends on what is shown
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub filter: Vec<(String, String)>,
    /// At most so many
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// Show it again whenever it has changed, until Ctrl-C
    #[arg(long, short)]
    pub watch: bool,
    /// Seconds from one look to the next
    #[arg(long, default_value_t = 2, requires = "watch", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub interval: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Yaml,
}

/// Show events as they are published
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    runtimectl watch --correlation corr-7c1d2b90\n  \
    runtimectl watch -o json | jq -r .eventType\n\n\
    It begins now; --after start begins with the oldest event that is kept.")]
pub struct WatchArgs {
    /// json: one canonical envelope a line
    #[arg(long, short, value_enum, default_value_t = WatchFormat::Text)]
    pub output: WatchFormat,
    /// Begin after this cursor, or at the start of what is kept
    #[arg(long, value_name = "CURSOR|start")]
    pub after: Option<String>,
    /// Only one workflow's events
    #[arg(long, value_name = "ID")]
    pub correlation: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WatchFormat {
    Text,
    Json,
}

/// Tell what caused a thing and what it caused
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  runtimectl explain dep-3a6e1f0c")]
pub struct ExplainArgs {
    /// An event, operation, deployment, environment or plan: evt-, op-, dep-, env-, plan-
    pub id: String,
    #[arg(long, short, value_enum, default_value_t = ExplainFormat::Text)]
    pub output: ExplainFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExplainFormat {
    Text,
    Json,
}

/// Show the log of the platform on this machine
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  runtimectl logs --follow --function Deploy --level warn")]
pub struct LogsArgs {
    /// Go on with what is written
    #[arg(long, short)]
    pub follow: bool,
    /// The last so many lines
    #[arg(short = 'n', long = "lines", default_value_t = 100, value_name = "N")]
    pub lines: usize,
    /// Only of this function
    #[arg(long, value_name = "NAME")]
    pub function: Option<String>,
    /// This level and what is worse
    #[arg(long, value_enum)]
    pub level: Option<Level>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Level {
    Trace,
    Debug,
    Info,
    #[value(alias = "warning")]
    Warn,
    Error,
}

/// Lay the function app out as Azure's host wants it
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  runtimectl stage --release && func start --script-root target/app")]
pub struct StageArgs {
    /// The function app: the folder with host.json [default: the nearest upwards]
    #[arg(long, value_name = "DIR")]
    pub app: Option<PathBuf>,
    /// The built handler [default: the one beside runtimectl]
    #[arg(long, value_name = "FILE", conflicts_with = "release")]
    pub handler: Option<PathBuf>,
    /// Where to lay it out [default: target/app in the function app's folder]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Build the handler with cargo first, as production runs it
    #[arg(long)]
    pub release: bool,
}

/// `NAME=VALUE`.
fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err(format!("`{text}` is no NAME=VALUE; write e.g. severity=Critical")),
    }
}

/// A time span as people write it, e.g. `90s`, `10m`, `1h30m`.
fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("`{text}` is no time span; write e.g. 90s, 10m or 1h30m"))?;
    Duration::try_from(span)
        .ok()
        .filter(|span| !span.is_zero())
        .ok_or_else(|| format!("`{text}` is not longer than nothing; write e.g. 90s, 10m or 1h30m"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_a_summary_and_an_example() {
        let command = Cli::command();
        command.clone().debug_assert();
        for each in command.get_subcommands() {
            assert!(each.get_about().is_some(), "`{}` has no summary", each.get_name());
            let help = each.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                help.contains(&format!("runtimectl {}", each.get_name())),
                "`{}` has no example",
                each.get_name()
            );
        }
    }

    #[test]
    fn a_time_span_is_written_as_people_write_it() {
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("10").is_err());
        assert!(duration("0s").is_err());
        assert!(duration("-5s").is_err());
    }
}
