//! What an operator has the platform do, each by one POST: orders that are no command (`lift`, `hold`,
//! ...), and commands about one thing that there is (`rollback`, `rotate`, `remediate`).

use std::{process::ExitCode, time::Duration};

use clap::{CommandFactory, ValueEnum};
use clap_complete::generate;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    cli::{
        CancelArgs, Cli, CompletionArgs, Connection, DecommissionArgs, Following, HoldArgs, LiftArgs,
        ReleaseArgs, RemediateArgs, RollbackArgs, RotateArgs, RotateReason, Shell, SuppressArgs, SweepArgs,
    },
    client::{Client, segment},
    context::Context,
    failure::Failure,
    follow,
    output::{Out, text},
    send,
};

/// Runs `lift`.
///
/// # Errors
/// When there is no such quarantine, or the platform cannot be reached.
pub async fn lift(connection: &Connection, args: &LiftArgs, out: &Out) -> Result<ExitCode, Failure> {
    let path = format!("quarantine/{}/lift", segment(&args.deployment));
    let answer = post(connection, &path, &json!({ "reason": args.reason }), out).await?;
    out.line(&text(&answer, "image"))?;
    out.note(&text(&answer, "detail"));
    Ok(ExitCode::SUCCESS)
}

/// Runs `cancel`.
///
/// # Errors
/// When it cannot be ended, or the platform cannot be reached.
pub async fn cancel(connection: &Connection, args: &CancelArgs, out: &Out) -> Result<ExitCode, Failure> {
    let path = format!("operations/{}/cancel", segment(&args.operation));
    let answer = post(connection, &path, &json!({ "reason": args.reason }), out).await?;
    let id = text(&answer, "operationId");
    out.line(&id)?;
    out.note(&format!("{id} is told to end; see what becomes of it: runtimectl get operations {id}"));
    Ok(ExitCode::SUCCESS)
}

/// Runs `hold`.
///
/// # Errors
/// When it is not to be held, or the platform cannot be reached.
pub async fn hold(connection: &Connection, args: &HoldArgs, out: &Out) -> Result<ExitCode, Failure> {
    let scope = match (args.platform, &args.module) {
        (true, _) => "platform",
        (false, Some(_)) => "workload",
        (false, None) => "environment",
    };
    let mut body = json!({ "scope": scope, "reason": args.reason });
    let given = [("environmentId", &args.environment), ("moduleId", &args.module), ("until", &args.until)];
    for (member, value) in given {
        if let Some(value) = value {
            body[member] = json!(value);
        }
    }
    if let Some(lasting) = args.lasting {
        body["minutes"] = json!(lasting.as_secs().div_ceil(60));
    }
    let answer = post(connection, "holds", &body, out).await?;
    let id = text(&answer, "holdId");
    out.line(&id)?;
    out.note(&format!(
        "Automation is held until {}; end it before with: runtimectl release {id} --reason '...'",
        text(&answer, "until")
    ));
    Ok(ExitCode::SUCCESS)
}

/// Runs `release`.
///
/// # Errors
/// When nothing is held by it, or the platform cannot be reached.
pub async fn release(connection: &Connection, args: &ReleaseArgs, out: &Out) -> Result<ExitCode, Failure> {
    let path = format!("holds/{}/release", segment(&args.hold));
    let answer = post(connection, &path, &json!({ "reason": args.reason }), out).await?;
    out.line(&text(&answer, "holdId"))?;
    out.note("Automation goes on.");
    Ok(ExitCode::SUCCESS)
}

/// Runs `decommission`.
///
/// # Errors
/// When something still runs there, or the platform cannot be reached.
pub async fn decommission(
    connection: &Connection,
    args: &DecommissionArgs,
    out: &Out,
) -> Result<ExitCode, Failure> {
    let path = format!("environments/{}/decommission", segment(&args.environment));
    let mut body = json!({ "reason": args.reason });
    if args.force {
        body["force"] = json!(true);
    }
    let answer = post(connection, &path, &body, out).await?;
    let id = text(&answer, "operationId");
    out.line(&id)?;
    out.note(&format!("It is being taken down; see how far it is: runtimectl get operations {id} --watch"));
    Ok(ExitCode::SUCCESS)
}

/// Runs `suppress`.
///
/// # Errors
/// When it is not to be left alone, or the platform cannot be reached.
pub async fn suppress(connection: &Connection, args: &SuppressArgs, out: &Out) -> Result<ExitCode, Failure> {
    let mut matches = json!({});
    for (member, value) in [("kind", &args.kind), ("resource", &args.resource), ("path", &args.path)] {
        if let Some(value) = value {
            matches[member] = json!(value);
        }
    }
    let until = match (&args.until, args.lasting) {
        (Some(until), _) => until.clone(),
        (None, lasting) => (Timestamp::now() + signed(lasting.unwrap_or_default())?).to_string(),
    };
    let body = json!({
        "environmentId": args.environment, "match": matches, "reason": args.reason, "expiresAt": until
    });
    let answer = post(connection, "drift/suppressions", &body, out).await?;
    out.line(&text(&answer, "suppressionId"))?;
    out.note(&format!("Such drift is left alone until {}.", text(&answer, "expiresAt")));
    Ok(ExitCode::SUCCESS)
}

fn signed(lasting: Duration) -> Result<SignedDuration, Failure> {
    SignedDuration::try_from(lasting).map_err(|error| Failure::unusable("--for is too long").because(&error))
}

/// Runs `sweep`.
///
/// # Errors
/// When there is no such environment, or the platform cannot be reached.
pub async fn sweep(connection: &Connection, args: &SweepArgs, out: &Out) -> Result<ExitCode, Failure> {
    let kind = args.kind.to_possible_value().map(|kind| kind.get_name().to_owned()).unwrap_or_default();
    let path = format!("environments/{}/sweep/{kind}", segment(&args.environment));
    let answer = post(connection, &path, &json!({ "reason": args.reason }), out).await?;
    let id = text(&answer, "environmentId");
    out.line(&id)?;
    out.note(&format!("It is looked after; see what came of it: runtimectl get sweeps --environment {id}"));
    Ok(ExitCode::SUCCESS)
}

/// Runs `rollback`.
///
/// # Errors
/// When there is no such deployment, or the platform cannot be reached.
pub async fn rollback(connection: &Connection, args: &RollbackArgs, out: &Out) -> Result<ExitCode, Failure> {
    let path = format!("deployments/{}/rollback", segment(&args.deployment));
    command(connection, &path, &json!({ "reason": args.reason }), &args.following, out).await
}

/// Runs `rotate`.
///
/// # Errors
/// When there is no such binding, or the platform cannot be reached.
pub async fn rotate(connection: &Connection, args: &RotateArgs, out: &Out) -> Result<ExitCode, Failure> {
    let reason = match args.reason {
        RotateReason::Manual => "Manual",
        RotateReason::Compromised => "Compromised",
    };
    let mut body = json!({ "reason": reason });
    if let Some(version) = &args.version {
        body["version"] = json!(version);
    }
    let path = format!("secret-bindings/{}/rotate", segment(&args.binding));
    command(connection, &path, &body, &args.following, out).await
}

/// Runs `remediate`.
///
/// # Errors
/// When there is no such finding, or the platform cannot be reached.
pub async fn remediate(
    connection: &Connection,
    args: &RemediateArgs,
    out: &Out,
) -> Result<ExitCode, Failure> {
    let path = format!("drift/{}/remediate", segment(&args.finding));
    command(connection, &path, &json!({}), &args.following, out).await
}

/// Posts a command, and with `--wait` follows it to its end.
async fn command(
    connection: &Connection,
    path: &str,
    body: &Value,
    following: &Following,
    out: &Out,
) -> Result<ExitCode, Failure> {
    let client = client(connection, out).await?;
    let answer = client.post(path, body, &Uuid::new_v4().to_string()).await?;
    let id = text(&answer, "eventId");
    out.line(&id)?;
    if !following.wait {
        out.note(&format!(
            "{} is sent; see what becomes of it: runtimectl explain {id}",
            text(&answer, "commandType")
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let ended = follow::to_the_end(&client, &id, following.timeout, out).await?;
    send::conclude(&ended, out)
}

async fn client(connection: &Connection, out: &Out) -> Result<Client, Failure> {
    let context = Context::open(connection, out)?;
    Client::new(&context, &context.tenant(connection)?).await
}

async fn post(connection: &Connection, path: &str, body: &Value, out: &Out) -> Result<Value, Failure> {
    Ok(client(connection, out).await?.post(path, body, &Uuid::new_v4().to_string()).await?)
}

/// Runs `completion`.
///
/// # Errors
/// When the output cannot be written.
pub fn completion(args: &CompletionArgs, out: &Out) -> Result<ExitCode, Failure> {
    let mut command = Cli::command();
    let mut script = Vec::new();
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    generate(shell, &mut command, "runtimectl", &mut script);
    out.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::SUCCESS)
}
