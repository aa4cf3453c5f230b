//! What can come of a message or a call: a fault of the world, or an end.

use std::{error::Error, fmt, time::Duration};

/// The cause of a fault, whatever it was.
pub type Source = Box<dyn Error + Send + Sync>;

/// What the world withheld. A *no* of the domain is never a fault: it is a refusal, and is committed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// May pass: try again, not before `retry_after` where the other side named a time.
    #[error("{doing}")]
    Transient { doing: String, retry_after: Option<Duration>, source: Source },
    /// Somebody else wrote the document first.
    #[error("somebody else wrote `{id}` first")]
    Conflict { id: String },
    /// The other side understood and will not do it, now or later.
    #[error("{doing}: {detail} ({code})")]
    Rejected { doing: String, code: String, detail: String },
    /// A stored document that this version cannot read.
    #[error("{doing}")]
    Unreadable { doing: String, source: Source },
}

/// The code of the fault for a page that is to begin at a place that was never given.
pub const CURSOR_INVALID: &str = "CursorInvalid";

impl Fault {
    /// A fault that may pass, while doing `doing`, e.g. ``reading `env-1` ``.
    pub fn transient(doing: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Transient { doing: doing.into(), retry_after: None, source: source.into() }
    }

    /// A page was to begin at a place that was never given.
    pub fn foreign_mark(doing: &str) -> Self {
        Self::Rejected {
            doing: doing.to_owned(),
            code: CURSOR_INVALID.to_owned(),
            detail: "the place where the last page ended is not one that was given".to_owned(),
        }
    }

    /// What to tell an operator: the fault and its causes, as one line.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and its causes in one line; a cause that its parent already told is left out.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let told = cause.to_string();
        if !text.contains(&told) {
            fmt::Write::write_fmt(&mut text, format_args!(": {told}"))
                .expect("a String takes all that is written");
        }
        next = cause.source();
    }
    text
}
