//! `up`: the whole platform on this machine, kept running.
//!
//! It starts the stand-ins, then a Functions host that drives the unmodified handler, and plays Azure:
//! when the host gives up after the handler's third crash, it starts a new host.

mod data;
mod guardian;
mod handler;
mod log;
mod ports;
mod succession;
mod world;

use std::{process::ExitCode, time::Duration};

pub use data::{ContextFile, temporary};
pub use guardian::{GUARD_ARGUMENT, WARD_PROGRAM, become_ward, guard};
pub use world::{World, WorldOptions};

use crate::{cli::UpArgs, failure::Failure, output::Out};

/// How long an orderly stop may take before it becomes a hasty one.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the platform until Ctrl-C.
pub async fn run(args: &UpArgs, out: &Out) -> Result<ExitCode, Failure> {
    let temporary = if args.ephemeral { Some(data::temporary()?) } else { None };
    let directory = match &temporary {
        Some(temporary) => temporary.path().to_owned(),
        None => args.data.clone(),
    };
    let options = WorldOptions {
        data: directory,
        app: args.app.clone(),
        images: args.images.clone(),
        port: args.port,
        settings: &[],
    };
    let mut world = World::start(options, out).await?;
    introduce(&world, args.ephemeral, out)?;
    let ended = world.run(stop_signal()).await;
    out.note("Stopping.");
    stop(world, out).await;
    ended.map(|()| ExitCode::SUCCESS)
}

/// Stops the platform, in order as long as that takes no longer than it should.
pub async fn stop(world: World, out: &Out) {
    if tokio::time::timeout(STOP_TIMEOUT, world.stop()).await.is_err() {
        out.note("Something did not stop in time and is ended the hard way.");
    }
}

fn introduce(world: &World, ephemeral: bool, out: &Out) -> Result<(), Failure> {
    let context = world.context();
    out.line("The platform is up.")?;
    for (what, value) in [
        ("functions", context.functions_endpoint.as_str()),
        ("service bus", context.service_bus_endpoint.as_str()),
        ("resource manager", context.resource_manager_endpoint.as_str()),
        ("ingress", context.ingress_endpoint.as_str()),
        ("connection string", context.service_bus_connection_string.as_str()),
    ] {
        out.line(&format!("  {what:<18} {value}"))?;
    }
    let kept = if ephemeral { "until it stops" } else { "in" };
    out.line(&format!("  {:<18} {kept} {}", "data", world.directory().display()))?;
    out.line("")?;
    out.line("Try, in another terminal: runtimectl watch --tenant connectsoft")?;
    out.line("Stop it with Ctrl-C.")
}

/// Ends with the first Ctrl-C or SIGTERM; a second one ends the process at once, and the guardian
/// ends what it had started.
pub async fn stop_signal() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(signal) => signal,
        Err(_) => return std::future::pending().await,
    };
    let mut interrupt = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()) {
        Ok(signal) => signal,
        Err(_) => return std::future::pending().await,
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(130);
    });
}
