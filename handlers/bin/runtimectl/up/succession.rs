//! What becomes of a host that gave up: a new one takes its place, at once where it had worked for a
//! while, later and later where it had not. And what is heard from a handler that never came to work.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::data::ContextFile;
use crate::failure::Failure;

/// A host that gave up before this had not worked.
const WORKED: Duration = Duration::from_secs(30);
/// Bounds of the pause before a host is replaced that had not worked.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The pause between two questions whether the functions answer.
const ANSWER_PAUSE: Duration = Duration::from_millis(25);
/// How long one of these questions may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Last words of a handler that are kept, and the longest of them, in characters.
const WORDS_MAX: usize = 4;
const WORD_CHARACTERS_MAX: usize = 2000;

/// One host after the other.
pub struct Succession {
    began: Instant,
    /// Hosts in a row that had not worked.
    failures: u32,
    replace_at: Option<Instant>,
}

impl Default for Succession {
    fn default() -> Self {
        Self { began: Instant::now(), failures: 0, replace_at: None }
    }
}

impl Succession {
    /// A host gave up. Answers the pause before its successor starts.
    pub fn gave_up(&mut self) -> Duration {
        let pause = pause_after(self.began.elapsed(), &mut self.failures);
        self.replace_at = Some(Instant::now() + pause);
        pause
    }

    /// Ends when a new host is to be started, which may be never.
    pub async fn due(&self) {
        match self.replace_at {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }

    /// A new host starts.
    pub fn begins(&mut self) {
        (self.began, self.replace_at) = (Instant::now(), None);
    }
}

/// The first host that had not worked is replaced at once, too: it may have been killed.
fn pause_after(life: Duration, failures: &mut u32) -> Duration {
    if life >= WORKED {
        *failures = 0;
        return Duration::ZERO;
    }
    *failures += 1;
    match *failures {
        1 => Duration::ZERO,
        more => PAUSE_MIN.saturating_mul(1 << (more - 2).min(16)).min(PAUSE_MAX),
    }
}

/// Ends when the functions answer something, their errors excepted.
pub async fn answers(context: ContextFile) {
    let url = format!("{}/api/v1/runtime/health", context.functions_endpoint);
    // Where no client can be made, nobody is asked, and the platform is taken to be up.
    let Ok(client) = reqwest::Client::builder().no_proxy().timeout(ANSWER_TIMEOUT).build() else { return };
    loop {
        let asked = client.get(&url).header("x-functions-key", &context.function_key).send().await;
        if asked.is_ok_and(|answer| !answer.status().is_server_error()) {
            return;
        }
        tokio::time::sleep(ANSWER_PAUSE).await;
    }
}

/// What a handler said last that tells of trouble.
#[derive(Default)]
pub struct LastWords(VecDeque<String>);

impl LastWords {
    /// Hears a line: an error of the handler's log, or what is no line of its log, such as a panic.
    pub fn hear(&mut self, line: &str) {
        let said = match serde_json::from_str::<Value>(line) {
            Ok(line) if line["level"] == "ERROR" => line["message"].as_str().map(str::to_owned),
            Ok(_) => None,
            Err(_) => Some(line.trim().to_owned()).filter(|line| !line.is_empty()),
        };
        let Some(said) = said else { return };
        let said = said.chars().take(WORD_CHARACTERS_MAX).collect::<String>();
        if self.0.contains(&said) {
            return;
        }
        self.0.push_back(said);
        if self.0.len() > WORDS_MAX {
            self.0.pop_front();
        }
    }

    /// The failure of a handler that gave no answer before its host gave up.
    pub fn of_a_handler(self, reason: &str) -> Failure {
        let mut causes: Vec<String> = self.0.into();
        causes.push(reason.to_owned());
        Failure::unusable("The handler does not come up")
            .advice("Correct what it says, in local.settings.json or where else its settings come from, and start again.")
            .with_causes(causes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_had_not_worked_is_replaced_later_and_later() {
        let mut failures = 0;
        let short = Duration::from_secs(2);
        let lives = [short, short, short, short, WORKED, short, short];
        let pauses = lives.map(|life| pause_after(life, &mut failures).as_secs());
        assert_eq!(pauses, [0, 1, 2, 4, 0, 0, 1]);
        failures = 40;
        assert_eq!(pause_after(short, &mut failures), PAUSE_MAX);
    }

    #[test]
    fn what_a_handler_says_of_its_trouble_is_told_once() {
        let mut words = LastWords::default();
        for line in [
            r#"{"level":"INFO","message":"all is well"}"#,
            r#"{"level":"ERROR","message":"the handler cannot run: no"}"#,
            "thread 'main' panicked",
            "",
            r#"{"level":"ERROR","message":"the handler cannot run: no"}"#,
        ] {
            words.hear(line);
        }
        let Failure::Told { causes, .. } = words.of_a_handler("three errors") else { panic!() };
        assert_eq!(causes, ["the handler cannot run: no", "thread 'main' panicked", "three errors"]);
    }
}
