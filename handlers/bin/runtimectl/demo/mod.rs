//! `demo`: the platform's story on one machine, told as it happens.
//!
//! It starts what `up` starts and then is a client like any other: commands go over Service Bus, and
//! what became of them is read from the HTTP functions. Some things it does from outside, as whoever owns
//! the machine, or the subscription, could: it asks the apps through the ingress and counts there, it
//! changes resources behind the platform's back, and it kills the handler. Every story verifies what it
//! claims; where something else came, the demo says so and fails.

mod checks;
mod closing;
mod facts;
mod narrator;
mod orders;
mod outside;
mod sample;
mod stories;
mod tally;
mod teller;
mod traffic;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use tokio::time::{Instant, timeout};

pub use self::stories::only_values;
use self::{
    stories::{STORIES, Story},
    teller::Teller,
};
use crate::{
    cli::DemoArgs,
    failure::Failure,
    output::Out,
    up::{self, World, WorldOptions},
};

/// How long one story may take.
const STORY_TIMEOUT: Duration = Duration::from_secs(90);
/// Nobody who watches wants to wait two minutes for what has settled long ago.
const SETTINGS: &[(&str, &str)] = &[("DRIFT_SETTLE_SECONDS", "2")];
/// What a shell tells of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Tells the story.
///
/// # Errors
/// When the platform cannot be started, or something came to something else than it should.
pub async fn run(args: &DemoArgs, out: &Out) -> Result<ExitCode, Failure> {
    let temporary = if args.data.is_none() { Some(up::temporary()?) } else { None };
    let directory = match (&temporary, &args.data) {
        (Some(temporary), _) => temporary.path().to_owned(),
        (None, data) => data.clone().unwrap_or_else(|| PathBuf::from(".runtime")),
    };
    out.note("Starting the platform on this machine.");
    let options = WorldOptions { data: directory, app: None, images: None, port: None, settings: SETTINGS };
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

/// Tells all stories, or one of them after what it needs.
async fn tell(world: &mut World, args: &DemoArgs, out: &Out) -> Result<(), Failure> {
    let began = Instant::now();
    let log = world.context().log_file.clone();
    let mut teller = Teller::new(world, *out).await?;
    during(world, teller.nothing_is_there()).await?;
    let only = args.only.as_deref().and_then(stories::named);
    let told = match only {
        Some(story) => stories::with_needs(story),
        // A platform that stays is for looking around, so what is in it stays too.
        None => STORIES.iter().filter(|story| !(args.keep && story.takes_down)).collect(),
    };
    for story in told {
        teller.narrator.muted = only.is_some_and(|only| only.name != story.name);
        if teller.narrator.muted {
            out.note(&format!("First, without a word: {}.", story.name));
        }
        one(world, &mut teller, story, &log).await?;
    }
    let end = closing::End {
        only,
        keep: args.keep,
        data: args.data.as_deref(),
        seconds: began.elapsed().as_secs(),
    };
    during(world, teller.closes(&end)).await
}

/// Lets the platform's host be served while `work` goes on.
async fn during<T>(world: &mut World, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut ended = None;
    world.run(async { ended = Some(work.await) }).await?;
    ended.unwrap_or_else(|| Err(Failure::failed("The platform's host ended before the story was told")))
}

/// One story within its time; whatever goes wrong says which it was and where to look.
async fn one(world: &mut World, teller: &mut Teller, story: &Story, log: &Path) -> Result<(), Failure> {
    let number = stories::number(story);
    teller.begins(story.name);
    teller.narrator.heading(number, story.title)?;
    let began = Instant::now();
    let ended = timeout(STORY_TIMEOUT, during(world, (story.tell)(teller))).await;
    teller.took(story.name, began.elapsed());
    let directory = log.parent().unwrap_or(log).display();
    let look = format!(
        "see `runtimectl logs --level warn --context {directory}`, or the file {} itself",
        log.display()
    );
    let name = format!("Story {number} ({})", story.name);
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Failure::Told { exit, what, advice, causes })) => {
            let what = format!("{name} did not go as it should: {what}");
            Err(Failure::Told { exit, what, advice: advice.or(Some(look)), causes })
        }
        Ok(Err(Failure::Closed)) => Err(Failure::Closed),
        Err(_) => {
            let what = match teller.narrator.last_doing() {
                Some(doing) => {
                    format!("{name} did not end within {} seconds: {doing}", STORY_TIMEOUT.as_secs())
                }
                None => format!("{name} did not end within {} seconds", STORY_TIMEOUT.as_secs()),
            };
            Err(Failure::failed(what).advice(look))
        }
    }
}
