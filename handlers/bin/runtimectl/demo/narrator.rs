//! The voice of the demo: headings and facts on standard output, and word of what goes on meanwhile
//! on standard error, so that nobody wonders whether it still does.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    failure::Failure,
    output::{Grid, Out, Tint},
};

/// After so long without a line there is one that says what goes on.
const SILENCE: Duration = Duration::from_secs(3);
/// How often that is said again where lines cannot be rewritten.
const REPEAT: Duration = Duration::from_secs(5);
/// How often the line on a terminal moves.
const TICK: Duration = Duration::from_millis(120);

pub struct Narrator {
    pub out: Out,
    /// Nothing is told on standard output; what goes on still is.
    pub muted: bool,
    bar: Option<ProgressBar>,
    /// When the last line was written.
    spoke: Instant,
    /// When a line last said what goes on.
    reassured: Option<Instant>,
    /// What went on when it was last looked at.
    doing: Option<String>,
}

impl Narrator {
    pub fn new(out: Out) -> Self {
        Self { out, muted: false, bar: None, spoke: Instant::now(), reassured: None, doing: None }
    }

    /// The heading of a story.
    pub fn heading(&mut self, number: usize, title: &str) -> Result<(), Failure> {
        let title = self.out.paint(Tint::Bold, &format!("{number}  {title}"));
        self.line("")?;
        self.line(&title)
    }

    /// One line.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.quiet();
        if self.muted { Ok(()) } else { self.out.line(text) }
    }

    pub fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.quiet();
        if self.muted { Ok(()) } else { self.out.json(value) }
    }

    pub fn grid(&mut self, grid: &Grid) -> Result<(), Failure> {
        self.quiet();
        if self.muted { Ok(()) } else { self.out.grid(grid) }
    }

    /// Something that was verified.
    pub fn verified(&mut self, text: &str) -> Result<(), Failure> {
        let mark = self.out.paint(Tint::Green, "ok");
        self.line(&format!("{mark}  {text}"))
    }

    /// What goes on. It is said when nothing was said for a while.
    pub fn doing(&mut self, what: &str) {
        self.doing = Some(what.to_owned());
        let silent = self.spoke.elapsed();
        if silent < SILENCE {
            return;
        }
        if self.out.note_terminal {
            let bar = self.bar.get_or_insert_with(spinner);
            bar.set_message(format!("{what} ({} s)", silent.as_secs()));
        } else if self.reassured.is_none_or(|at| at.elapsed() >= REPEAT) {
            self.reassured = Some(Instant::now());
            self.out.note(&format!("... {what} ({} s)", silent.as_secs()));
        }
    }

    /// What went on when it was last looked at; none where something was told since.
    pub fn last_doing(&self) -> Option<&str> {
        self.doing.as_deref()
    }

    /// Takes the moving line away, for a line that stays.
    fn quiet(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.spoke = Instant::now();
        self.reassured = None;
        self.doing = None;
    }
}

impl Drop for Narrator {
    fn drop(&mut self) {
        self.quiet();
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}
