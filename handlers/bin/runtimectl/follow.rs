//! A command from the moment it was sent to its end: asked for again and again, told as it goes.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    client::{Client, ReadError, segment},
    failure::Failure,
    output::{Out, Tint, clock, text},
    story,
};

/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(300);
/// How long the platform may be away (it may be starting anew) before we give up on it.
const AWAY_MAX: Duration = Duration::from_secs(30);
/// After this long without a trace of the command a person is told where to look.
const SILENCE: Duration = Duration::from_secs(15);

/// How a command ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// It did what it was sent for.
    pub succeeded: bool,
    /// `Completed`, `Failed` or `Rejected`; `RolledBack` of a Deploy that was taken back.
    pub status: String,
    /// What to tell a person.
    pub sentence: String,
    /// The envelope of the event that ended it.
    pub outcome: Option<Value>,
}

/// Follows the command `event_id` to its end, for at most `timeout`.
///
/// # Errors
/// When it has not ended by then, or the platform stays away.
pub async fn to_the_end(
    client: &Client,
    event_id: &str,
    timeout: Duration,
    out: &Out,
) -> Result<Ended, Failure> {
    let started = Instant::now();
    let mut seen = started;
    let mut teller = Teller::new(*out);
    let path = format!("commands/{}", segment(event_id));
    loop {
        match client.get(&path, &[]).await {
            Ok(command) => {
                seen = Instant::now();
                teller.known = command["status"] != "Sent";
                if let Some(operation) = command["operationId"].as_str() {
                    teller.operation(client, operation).await;
                }
                if command["ended"].as_bool() == Some(true) {
                    return Ok(ended(&command));
                }
            }
            Err(ReadError::NotFound { .. }) => seen = Instant::now(),
            Err(error) if error.may_pass() && seen.elapsed() < AWAY_MAX => {
                teller.doing("waiting for the platform")
            }
            Err(error) => return Err(error.into()),
        }
        if started.elapsed() >= timeout {
            return Err(Failure::failed(format!(
                "{event_id} has not ended within {} seconds",
                timeout.as_secs()
            ))
            .advice(format!(
                "it goes on without us: see `runtimectl explain {event_id}`, or wait longer with --timeout"
            )));
        }
        teller.silence(started.elapsed());
        sleep(PAUSE.min(timeout.saturating_sub(started.elapsed()))).await;
    }
}

/// What the answer about an ended command says.
fn ended(command: &Value) -> Ended {
    let outcome = command.get("outcome").filter(|outcome| outcome.is_object()).cloned();
    let event = outcome.as_ref().map(|outcome| text(outcome, "eventType")).unwrap_or_default();
    // A Deploy that was taken back has ended, and not as its sender wanted.
    let taken_back = event == "RuntimeDeploymentRolledBack" && text(command, "commandType") == "Deploy";
    let status = if taken_back { "RolledBack".to_owned() } else { text(command, "status") };
    let detail = text(command, "detail");
    let sentence = match (&outcome, detail.is_empty()) {
        (_, false) => detail,
        (Some(outcome), true) => story::sentence(outcome),
        (None, true) => format!("{} has ended", text(command, "eventId")),
    };
    Ended { succeeded: status == "Completed", status, sentence, outcome }
}

/// How far the notes of an operation were told: of which, how many, and the last of them.
struct Told {
    operation: String,
    count: usize,
    last: Value,
}

/// Tells a person what happens meanwhile, each thing once.
struct Teller {
    out: Out,
    bar: Option<ProgressBar>,
    known: bool,
    reminded: bool,
    told: Option<Told>,
}

impl Teller {
    fn new(out: Out) -> Self {
        let bar = out.note_terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { out, bar, known: false, reminded: false, told: None }
    }

    fn doing(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.out.note(line)),
            None => self.out.note(line),
        }
    }

    fn silence(&mut self, waited: Duration) {
        if !self.known && !self.reminded && waited > SILENCE {
            self.reminded = true;
            self.say("The platform has not taken it up yet; `runtimectl logs --level warn` may say why.");
        }
    }

    /// Tells the notes of an operation that were not told yet. What cannot be read now is told later.
    async fn operation(&mut self, client: &Client, id: &str) {
        let Ok(operation) = client.get(&format!("operations/{}", segment(id)), &[]).await else { return };
        self.doing(&format!("{} {}", text(&operation, "kind"), text(&operation, "step")));
        let Some(notes) = operation["notes"].as_array() else { return };
        let told = self.told.as_ref().filter(|told| told.operation == id);
        let fresh = told.map_or(0, |told| fresh(notes, told.count, Some(&told.last)));
        for note in &notes[fresh..] {
            let at = self.out.paint_note(Tint::Dim, &clock(&text(note, "at")));
            self.say(&format!("{at}  {}", text(note, "text")));
        }
        if let Some(last) = notes.last() {
            self.told = Some(Told { operation: id.to_owned(), count: notes.len(), last: last.clone() });
        }
    }
}

/// Where the notes begin that were not told, of which `count` were, up to `last`: an operation may
/// drop its oldest ones.
pub fn fresh(notes: &[Value], count: usize, last: Option<&Value>) -> usize {
    let Some(last) = last else { return 0 };
    if count.checked_sub(1).and_then(|at| notes.get(at)) == Some(last) {
        return count;
    }
    notes.iter().rposition(|note| note == last).map_or(0, |at| at + 1)
}

impl Drop for Teller {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deploy_that_was_rolled_back_did_not_succeed_and_a_rollback_did() {
        let command = |command: &str, status: &str, event: &str| {
            ended(&json!({"commandType": command, "status": status, "detail": "so it is", "outcome": {"eventType": event}}))
                .succeeded
        };
        assert!(command("Deploy", "Completed", "RuntimeDeploymentCompleted"));
        assert!(!command("Deploy", "Completed", "RuntimeDeploymentRolledBack"));
        assert!(command("RollbackDeployment", "Completed", "RuntimeDeploymentRolledBack"));
        assert!(!command("Deploy", "Failed", "RuntimeCommandFailed"));
        assert!(!command("Deploy", "Rejected", "RuntimeCommandFailed"));
    }

    #[test]
    fn each_note_is_told_once_also_when_old_ones_are_dropped() {
        let notes = |texts: &[&str]| texts.iter().map(|text| json!({"text": text})).collect::<Vec<_>>();
        let b = json!({"text": "b"});
        assert_eq!(fresh(&notes(&["a", "b"]), 0, None), 0);
        assert_eq!(fresh(&notes(&["a", "b", "c"]), 2, Some(&b)), 2);
        assert_eq!(fresh(&notes(&["b", "c"]), 2, Some(&b)), 1);
        assert_eq!(fresh(&notes(&["d", "e"]), 2, Some(&b)), 0);
    }
}
