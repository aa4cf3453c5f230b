//! `lift` and `cancel`: what an operator does that is no command. Each is posted once, with a reason.

use std::process::ExitCode;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    cli::{CancelArgs, Connection, LiftArgs},
    client::{Client, segment},
    context::Context,
    failure::Failure,
    output::{Out, text},
};

/// Runs `lift`.
///
/// # Errors
/// When there is no such quarantine, or the platform cannot be reached.
pub async fn lift(connection: &Connection, args: &LiftArgs, out: &Out) -> Result<ExitCode, Failure> {
    let path = format!("quarantine/{}/lift", segment(&args.deployment));
    let answer = post(connection, &path, &args.reason, out).await?;
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
    let answer = post(connection, &path, &args.reason, out).await?;
    let id = text(&answer, "operationId");
    out.line(&id)?;
    out.note(&format!("{id} is told to end; see what becomes of it: runtimectl get operations {id}"));
    Ok(ExitCode::SUCCESS)
}

async fn post(connection: &Connection, path: &str, reason: &str, out: &Out) -> Result<Value, Failure> {
    let context = Context::open(connection, out)?;
    let client = Client::new(&context, &context.tenant(connection)?).await?;
    Ok(client.post(path, &json!({ "reason": reason }), &Uuid::new_v4().to_string()).await?)
}
