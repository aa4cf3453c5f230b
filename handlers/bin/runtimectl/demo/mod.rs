//! `demo`: the platform's story on one machine, told as it happens.
//!
//! It starts what `up` starts and then is a client like any other: commands go over Service Bus, and
//! what became of them is read from the HTTP functions. Two things it does from outside, as whoever
//! owns the machine could: it counts at the ingress, and it kills the handler. Every step verifies what
//! it claims; where something else came, the demo says so and fails.

mod closing;
mod facts;
mod kill;
mod narrator;
mod orders;
mod sample;
mod steps;
mod teller;
mod traffic;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use tokio::time::{Instant, timeout};

use self::teller::Teller;
use crate::{
    cli::DemoArgs,
    failure::Failure,
    output::Out,
    up::{self, World, WorldOptions},
};

/// How long one step may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// What a shell tells of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Tells the story.
///
/// # Errors
/// When the platform cannot be started, or a step came to something else than it should.
pub async fn run(args: &DemoArgs, out: &Out) -> Result<ExitCode, Failure> {
    let temporary = if args.data.is_none() { Some(up::temporary()?) } else { None };
    let directory = match (&temporary, &args.data) {
        (Some(temporary), _) => temporary.path().to_owned(),
        (None, data) => data.clone().unwrap_or_else(|| PathBuf::from(".runtime")),
    };
    out.note("Starting the platform on this machine.");
    let options = WorldOptions { data: directory, app: None, images: None, port: None };
    let mut world = World::start(options, out).await?;
    let mut told = tokio::select! {
        told = tell(&mut world, args, out) => told.map(|()| ExitCode::SUCCESS),
        () = up::stop_signal() => Ok(ExitCode::from(INTERRUPTED)),
    };
    if args.keep && told.as_ref().is_ok_and(|code| *code == ExitCode::SUCCESS) {
        told = keep(&mut world, out).await.map(|()| ExitCode::SUCCESS);
    }
    out.note("Stopping the platform.");
    up::stop(world, out).await;
    if let Some(temporary) = temporary
        && (args.keep || told.is_err())
    {
        out.note(&format!("The data and the log stay in {}.", temporary.keep().display()));
    }
    told
}

/// Keeps the platform running until Ctrl-C.
async fn keep(world: &mut World, out: &Out) -> Result<(), Failure> {
    out.line("")?;
    out.line("The platform stays up. Stop it with Ctrl-C.")?;
    world.run(up::stop_signal()).await
}

/// The seven steps and what they leave behind.
async fn tell(world: &mut World, args: &DemoArgs, out: &Out) -> Result<(), Failure> {
    let began = Instant::now();
    let log = world.context().log_file.clone();
    let mut teller = Teller::new(world.context(), world.azure().clone(), *out).await?;
    during(world, teller.nothing_is_there()).await?;

    step(1, &log, during(world, teller.provisions())).await?;
    step(2, &log, during(world, teller.deploys_the_first())).await?;
    step(3, &log, during(world, teller.deploys_the_next())).await?;
    step(4, &log, during(world, teller.deploys_a_bad_one())).await?;
    step(5, &log, during(world, teller.rolls_back())).await?;
    step(6, &log, kill::in_the_middle(world, &mut teller)).await?;
    step(7, &log, during(world, teller.deploys_to_nowhere())).await?;

    let end =
        closing::End { keep: args.keep, data: args.data.as_deref(), seconds: began.elapsed().as_secs() };
    during(world, teller.closes(&end)).await
}

/// Lets the platform's host be served while `work` goes on.
async fn during<T>(world: &mut World, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut ended = None;
    world.run(async { ended = Some(work.await) }).await?;
    ended.unwrap_or_else(|| Err(Failure::failed("The platform's host ended before the story was told")))
}

/// One step within its time; whatever goes wrong says which step it was and where to look.
async fn step<T>(
    number: u32,
    log: &Path,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let directory = log.parent().unwrap_or(log).display();
    let look = format!(
        "see `runtimectl logs --level warn --context {directory}`, or the file {} itself",
        log.display()
    );
    match timeout(STEP_TIMEOUT, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Failure::Told { exit, what, advice, causes })) => {
            let what = format!("Step {number} did not go as it should: {what}");
            Err(Failure::Told { exit, what, advice: advice.or(Some(look)), causes })
        }
        Ok(Err(Failure::Closed)) => Err(Failure::Closed),
        Err(_) => {
            let what = format!("Step {number} did not end within {} seconds", STEP_TIMEOUT.as_secs());
            Err(Failure::failed(what).advice(look))
        }
    }
}
