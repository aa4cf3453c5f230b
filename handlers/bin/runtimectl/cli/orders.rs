//! What can be typed to have the platform do something, beside `send`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::duration;

/// Let an image that is in quarantine be deployed again
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  runtimectl lift dep-3a6e1f0c --reason 'the database was down, not the release'\n\n\
    See what is kept out, and since when: runtimectl get quarantine"
)]
pub struct LiftArgs {
    /// The deployment that failed
    pub deployment: String,
    /// Why, for whoever reads it later
    #[arg(long)]
    pub reason: String,
}

/// End an operation: a rollout goes back, provisioning stops where it stands
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  runtimectl cancel op-3a6e1f0c --reason 'the wrong region'")]
pub struct CancelArgs {
    pub operation: String,
    /// Why, for whoever reads it later
    #[arg(long)]
    pub reason: String,
}

/// Keep the platform's own hands off a workload, an environment or everything, for a while
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    runtimectl hold --environment env-3a6e1f0c --for 2h --reason 'incident 4711'\n  \
    runtimectl hold --environment env-3a6e1f0c --module module-reservations --for 30m --reason 'a demo'\n  \
    runtimectl hold --platform --for 1h --reason 'the region is down'\n\n\
    Remediation, scaling, rotation and refreshes wait until it ends; what people send is carried out.\n\
    See what is held: runtimectl get holds --status InForce")]
pub struct HoldArgs {
    /// What to hold
    #[arg(long, value_name = "ID", required_unless_present = "platform")]
    pub environment: Option<String>,
    /// Only this workload of it
    #[arg(long, value_name = "ID", requires = "environment")]
    pub module: Option<String>,
    /// Everything; for operators of the platform
    #[arg(long, conflicts_with_all = ["environment", "module"])]
    pub platform: bool,
    /// How long, e.g. 30m, 2h; at most a week
    #[arg(long = "for", value_parser = duration, value_name = "TIME", required_unless_present = "until")]
    pub lasting: Option<Duration>,
    /// Until when, e.g. 2026-03-02T18:00:00Z
    #[arg(long, conflicts_with = "lasting", value_name = "TIME")]
    pub until: Option<String>,
    /// Why, for whoever reads it later
    #[arg(long)]
    pub reason: String,
}

/// End a hold before its time
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  runtimectl release hold-3a6e1f0c --reason 'it is over'")]
pub struct ReleaseArgs {
    pub hold: String,
    /// Why, for whoever reads it later
    #[arg(long)]
    pub reason: String,
}

/// Take an environment down; refused while something runs in it
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  runtimectl decommission env-3a6e1f0c --reason 'the project is over'")]
pub struct DecommissionArgs {
    pub environment: String,
    /// Why, for whoever reads it later
    #[arg(long)]
    pub reason: String,
    /// With all that runs in it
    #[arg(long)]
    pub force: bool,
}

/// Following a command to its end.
#[derive(Debug, Args)]
pub struct Following {
    /// Follow the command to its end
    #[arg(long)]
    pub wait: bool,
    /// How long to follow it, e.g. 90s, 10m
    #[arg(long, value_parser = duration, default_value = "10m", requires = "wait")]
    pub timeout: Duration,
}

/// Put a drift right
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  runtimectl remediate drift-3a6e1f0c --wait\n\n\
    See what is not as desired: runtimectl get drift")]
pub struct RemediateArgs {
    pub finding: String,
    #[command(flatten)]
    pub following: Following,
}

/// Move a secret to another version, and the workloads that read it with it
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  runtimectl rotate sb-3a6e1f0c --reason compromised --wait")]
pub struct RotateArgs {
    /// The binding of the secret
    pub binding: String,
    /// A compromised secret: all workloads at once, and the old version goes soon
    #[arg(long, value_enum, default_value_t = RotateReason::Manual)]
    pub reason: RotateReason,
    /// Of an external secret: the version to move to [default: the newest]
    #[arg(long)]
    pub version: Option<String>,
    #[command(flatten)]
    pub following: Following,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RotateReason {
    Manual,
    Compromised,
}

/// Go back to what ran before a deployment
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  runtimectl rollback dep-3a6e1f0c --reason 'too slow' --wait")]
pub struct RollbackArgs {
    /// The deployment to take back
    pub deployment: String,
    /// Why, for whoever reads it later
    #[arg(long)]
    pub reason: String,
    #[command(flatten)]
    pub following: Following,
}

/// Have drift left alone for a while
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    runtimectl suppress --environment env-3a6e1f0c --kind ConfigurationMismatch --path 'env/LOG_*' \\\n    \
    --for 24h --reason 'we are looking for something'\n\n\
    See what is left alone: runtimectl get drift-suppressions")]
pub struct SuppressArgs {
    #[arg(long, value_name = "ID")]
    pub environment: String,
    /// Only drift of this kind, e.g. ConfigurationMismatch
    #[arg(long, required_unless_present_any = ["resource", "path"])]
    pub kind: Option<String>,
    /// Only of these resources; * stands for anything
    #[arg(long, value_name = "PATTERN")]
    pub resource: Option<String>,
    /// Only at these places within them
    #[arg(long, value_name = "PATTERN")]
    pub path: Option<String>,
    /// How long, e.g. 12h, 48h
    #[arg(long = "for", value_parser = duration, value_name = "TIME", required_unless_present = "until")]
    pub lasting: Option<Duration>,
    /// Until when, e.g. 2026-03-02T18:00:00Z
    #[arg(long, conflicts_with = "lasting", value_name = "TIME")]
    pub until: Option<String>,
    /// Why, for whoever reads it later
    #[arg(long)]
    pub reason: String,
}

/// Have an environment looked after now, before its timer would
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  runtimectl sweep env-3a6e1f0c drift --reason 'somebody was in the portal'\n\n\
    See what came of it: runtimectl get sweeps --environment env-3a6e1f0c"
)]
pub struct SweepArgs {
    pub environment: String,
    #[arg(value_enum)]
    pub kind: SweepKind,
    /// Why, for whoever reads it later
    #[arg(long)]
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SweepKind {
    Health,
    Scaling,
    Drift,
    Rotation,
}

/// Write what makes a shell complete this program's commands
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    source <(runtimectl completion bash)\n  \
    runtimectl completion zsh > \"${fpath[1]}/_runtimectl\"\n  \
    runtimectl completion fish > ~/.config/fish/completions/runtimectl.fish")]
pub struct CompletionArgs {
    #[arg(value_enum)]
    pub shell: Shell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}
