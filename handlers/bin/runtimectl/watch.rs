//! `watch`: events as they are published.

use std::{process::ExitCode, time::Duration};

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    cli::{Connection, WatchArgs, WatchFormat},
    client::{Client, ReadError},
    context::Context,
    failure::Failure,
    feed::Feed,
    output::{Out, Tint},
    story,
};

/// The pause after the last event that there is.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause between attempts to reach a platform that is away.
const AWAY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// After this long a person is told that the platform is away.
const AWAY_TOLD: Duration = Duration::from_secs(10);

/// Runs `watch` until Ctrl-C.
///
/// # Errors
/// When the platform cannot be reached at first, or answers what cannot be understood.
pub async fn run(connection: &Connection, args: &WatchArgs, out: &Out) -> Result<ExitCode, Failure> {
    tokio::select! {
        ended = watch(connection, args, out) => ended.map(|()| ExitCode::SUCCESS),
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
    }
}

async fn connect(connection: &Connection, context: &Context) -> Result<Client, Failure> {
    Client::new(context, &context.tenant(connection)?).await
}

/// A platform that was started anew may sit at other ports, with another key.
async fn connect_again(connection: &Connection) -> Result<Client, Failure> {
    let (context, _) = Context::find(connection)?;
    connect(connection, &context).await
}

async fn watch(connection: &Connection, args: &WatchArgs, out: &Out) -> Result<(), Failure> {
    let mut client = connect(connection, &Context::open(connection, out)?).await?;
    let from_now = args.after.is_none();
    let cursor = args.after.as_deref().filter(|after| *after != "start");
    let mut feed = Feed::new(cursor, args.correlation.as_deref());
    if from_now {
        skip(&mut feed, &client, Timestamp::now(), args, out).await?;
    } else {
        show(&feed.next(&client).await?.items, &feed, args, out)?;
    }
    if out.note_terminal && args.output == WatchFormat::Text {
        out.note(&out.paint_note(Tint::Dim, "watching; Ctrl-C ends it"));
    }
    let mut away: Option<Away> = None;
    loop {
        match feed.next(&client).await {
            Ok(page) => {
                if away.take().is_some_and(|away| away.told) {
                    out.note("the platform is back");
                }
                show(&page.items, &feed, args, out)?;
                if page.last {
                    sleep(PAUSE).await;
                }
            }
            // Its key was right a moment ago: the platform is another one now.
            Err(error) if error.may_pass() || matches!(error, ReadError::Key { .. }) => {
                away.get_or_insert_with(Away::default).wait(&error, out).await;
                if let Ok(again) = connect_again(connection).await {
                    client = again;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Passes over what was published before `start`, and shows what was published since.
async fn skip(
    feed: &mut Feed,
    client: &Client,
    start: Timestamp,
    args: &WatchArgs,
    out: &Out,
) -> Result<(), Failure> {
    loop {
        let mut page = feed.next(client).await?;
        page.items.retain(|item| is_since(item, start));
        show(&page.items, feed, args, out)?;
        if page.last {
            return Ok(());
        }
    }
}

fn is_since(item: &Value, start: Timestamp) -> bool {
    item["publishedAt"].as_str().and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at >= start)
}

fn show(items: &[Value], feed: &Feed, args: &WatchArgs, out: &Out) -> Result<(), Failure> {
    for item in items {
        let envelope = &item["envelope"];
        match args.output {
            WatchFormat::Json => out.line(&envelope.to_string())?,
            WatchFormat::Text => {
                let cause = envelope["causationId"].as_str().and_then(|id| feed.type_of(id));
                out.line(&story::line(out, envelope, cause))?;
            }
        }
    }
    Ok(())
}

/// A time without the platform.
struct Away {
    since: Instant,
    pause: Duration,
    told: bool,
}

impl Default for Away {
    fn default() -> Self {
        Self { since: Instant::now(), pause: Duration::from_millis(250), told: false }
    }
}

impl Away {
    async fn wait(&mut self, error: &ReadError, out: &Out) {
        if !self.told && self.since.elapsed() >= AWAY_TOLD {
            self.told = true;
            out.note(&format!("{error}; trying again until it is back"));
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(AWAY_PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_published_before_the_start_is_passed_over() {
        let start: Timestamp = "2026-03-02T10:15:30Z".parse().unwrap();
        assert!(is_since(&json!({"publishedAt": "2026-03-02T10:15:30.5Z"}), start));
        assert!(!is_since(&json!({"publishedAt": "2026-03-02T10:15:29Z"}), start));
        assert!(!is_since(&json!({"publishedAt": null}), start));
    }
}
