//! How a command of the command line fails: a sentence, what to do, and what was behind it.

use std::{error::Error, io, process::ExitCode};

use crate::output::{Out, Tint};

/// Causes that are told, at most; deeper ones say little to a person.
const CAUSES_MAX: usize = 8;

/// What the exit code tells a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was understood and came to nothing: 1.
    Failed,
    /// It was asked wrongly, or the platform cannot be reached: 2.
    Unusable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Failed => Self::from(1),
            Exit::Unusable => Self::from(2),
        }
    }
}

/// Why a command of the command line ended early.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// Whoever read our output has gone (`| head`): no failure to a person.
    Closed,
    Told {
        exit: Exit,
        what: String,
        advice: Option<String>,
        causes: Vec<String>,
    },
}

impl Failure {
    /// Asked wrongly, or nobody there to ask.
    pub fn unusable(what: impl Into<String>) -> Self {
        Self::Told { exit: Exit::Unusable, what: what.into(), advice: None, causes: Vec::new() }
    }

    /// Understood, and came to nothing.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Told { exit: Exit::Failed, what: what.into(), advice: None, causes: Vec::new() }
    }

    /// The same failure, saying what to do about it.
    #[must_use]
    pub fn advice(mut self, text: impl Into<String>) -> Self {
        if let Self::Told { advice, .. } = &mut self {
            *advice = Some(text.into());
        }
        self
    }

    /// The same failure, with the error behind it and that error's causes.
    #[must_use]
    pub fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        if let Self::Told { causes, .. } = &mut self {
            let mut next = Some(error);
            while let Some(cause) = next.filter(|_| causes.len() < CAUSES_MAX) {
                let text = cause.to_string();
                if causes.last() != Some(&text) {
                    causes.push(text);
                }
                next = cause.source();
            }
        }
        self
    }

    /// The same failure, with what others said of it.
    #[must_use]
    pub fn with_causes(mut self, said: Vec<String>) -> Self {
        if let Self::Told { causes, .. } = &mut self {
            causes.extend(said);
            causes.truncate(CAUSES_MAX);
        }
        self
    }

    /// Whether nobody was there to ask, or it was asked wrongly.
    pub fn is_unusable(&self) -> bool {
        matches!(self, Self::Told { exit: Exit::Unusable, .. })
    }

    /// A failure to write to standard output.
    pub fn of_output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::failed("Cannot write the output").because(error)
        }
    }

    /// Says it on standard error and answers the exit code.
    pub fn tell(&self, out: &Out) -> ExitCode {
        match self {
            Self::Closed => ExitCode::SUCCESS,
            Self::Told { exit, what, advice, causes } => {
                out.note(&format!("{} {what}", out.paint_note(Tint::Red, "error:")));
                for cause in causes {
                    out.note(&format!("  caused by: {}", cause.trim_end().replace('\n', "\n    ")));
                }
                if let Some(advice) = advice {
                    out.note(&format!("  {} {advice}", out.paint_note(Tint::Cyan, "what to do:")));
                }
                (*exit).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_no_failure_and_another_broken_output_is() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::of_output(&closed), Failure::Closed);
        let full = io::Error::other("no space");
        assert_eq!(
            Failure::of_output(&full),
            Failure::Told {
                exit: Exit::Failed,
                what: "Cannot write the output".into(),
                advice: None,
                causes: vec!["no space".into()]
            }
        );
    }
}
