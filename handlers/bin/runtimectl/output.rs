//! Writing for people and for programs: lines, tables, colours, ages.
//!
//! What was asked for goes to standard output, everything said about it to standard error. Colours
//! appear only on a terminal, and not where `NO_COLOR` is set. Times are UTC: the machine's own zone
//! is deliberately not consulted, so that a line can be compared with a message.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde_json::Value;

use crate::failure::Failure;

/// Spaces between two columns of a table.
const COLUMN_GAP: u16 = 2;

/// How a word is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tint {
    Plain,
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
    Cyan,
}

/// Where output goes, and how plainly.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    /// Standard output is a terminal.
    pub terminal: bool,
    /// Standard error is a terminal.
    pub note_terminal: bool,
    colours: bool,
    note_colours: bool,
}

/// One table: its header, its rows, and the column (if any) that says how things stand.
pub struct Grid {
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
    /// The index of the column that is coloured by what it says.
    pub status: Option<usize>,
}

impl Out {
    pub fn of_this_process() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let (terminal, note_terminal) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self { terminal, note_terminal, colours: wanted && terminal, note_colours: wanted && note_terminal }
    }

    /// Output without a terminal or a colour.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self { terminal: false, note_terminal: false, colours: false, note_colours: false }
    }

    /// One line to standard output, there at once.
    ///
    /// # Errors
    /// [`Failure::Closed`] when the reader has gone.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|error| Failure::of_output(&error))
    }

    /// One line to standard error. Nobody can be told when that fails.
    pub fn note(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// A word for standard output.
    pub fn paint(&self, tint: Tint, text: &str) -> String {
        painted(self.colours, tint, text)
    }

    /// A word for standard error.
    pub fn paint_note(&self, tint: Tint, text: &str) -> String {
        painted(self.note_colours, tint, text)
    }

    /// A table, one line a row: plain columns, with a bold header and coloured statuses on a terminal.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn grid(&self, grid: &Grid) -> Result<(), Failure> {
        for line in self.grid_lines(grid) {
            self.line(&line)?;
        }
        Ok(())
    }

    fn grid_lines(&self, grid: &Grid) -> Vec<String> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(grid.header.iter().copied());
        for row in &grid.rows {
            // A cell is one line: what would break it is written as a space.
            table.add_row(row.iter().map(|cell| cell.replace(['\n', '\r', '\t'], " ")));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, COLUMN_GAP));
        }
        let widths = table.column_max_content_widths();
        let status = grid.status.map(|column| {
            let before = widths[..column].iter().map(|width| usize::from(width + COLUMN_GAP)).sum::<usize>();
            (before, usize::from(widths[column]))
        });
        let text = table.to_string();
        let lines = text.lines().map(str::trim_end).enumerate();
        lines.map(|(at, line)| self.grid_line(line, if at == 0 { None } else { status }, at == 0)).collect()
    }

    /// One line of a table, with what stands at `status` (where, how wide) in its colour.
    fn grid_line(&self, line: &str, status: Option<(usize, usize)>, header: bool) -> String {
        if header {
            return self.paint(Tint::Bold, line);
        }
        let Some((from, width)) = status else { return line.to_owned() };
        let before = line.chars().take(from).collect::<String>();
        let word = line.chars().skip(from).take(width).collect::<String>();
        let after = line.chars().skip(from + width).collect::<String>();
        format!("{before}{}{after}", self.paint(tint_of(word.trim_end()), &word))
    }

    /// `value` as indented JSON.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn json(&self, value: &Value) -> Result<(), Failure> {
        self.line(&serde_json::to_string_pretty(value).expect("a JSON value has text keys only"))
    }

    /// `value` as YAML.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn yaml(&self, value: &Value) -> Result<(), Failure> {
        let text = serde_yaml_ng::to_string(value)
            .map_err(|error| Failure::failed("Cannot write this as YAML").because(&error))?;
        self.line(text.trim_end())
    }
}

fn painted(colours: bool, tint: Tint, text: &str) -> String {
    let code = match tint {
        Tint::Plain => return text.to_owned(),
        Tint::Bold => "1",
        Tint::Dim => "2",
        Tint::Green => "32",
        Tint::Yellow => "33",
        Tint::Red => "31",
        Tint::Cyan => "36",
    };
    if colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// The colour of a status or an event's name: good news green, bad news red, the rest on its way.
pub fn tint_of(word: &str) -> Tint {
    const BAD: [&str; 9] =
        ["Failed", "Rejected", "RolledBack", "TimedOut", "Unhealthy", "Dead", "Drift", "Refused", "Expired"];
    const GOOD: [&str; 10] = [
        "Completed",
        "Provisioned",
        "Passed",
        "Succeeded",
        "Bound",
        "Synced",
        "Applied",
        "Rotated",
        "Healthy",
        "Resolved",
    ];
    const RESTING: [&str; 3] = ["Superseded", "Cancelled", "Skipped"];
    let has = |words: &[&str]| words.iter().any(|known| word.contains(known));
    if has(&BAD) {
        Tint::Red
    } else if has(&GOOD) {
        Tint::Green
    } else if has(&RESTING) {
        Tint::Dim
    } else {
        Tint::Yellow
    }
}

/// How long ago that was, in its largest unit: `12s`, `5m`, `3h`, `2d`. What is still to come, by a
/// clock that goes wrong, is `0s`.
pub fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The time of day, in UTC, of a time as our messages write it; what is no time stays as it is.
pub fn clock(text: &str) -> String {
    text.parse::<Timestamp>().map_or_else(|_| text.to_owned(), |at| at.strftime("%H:%M:%SZ").to_string())
}

/// A member of an object as text; nothing where it is absent or `null`.
pub fn text(value: &Value, member: &str) -> String {
    scalar(value.get(member).unwrap_or(&Value::Null))
}

/// A JSON value in few words: lists of scalars joined, objects as compact JSON.
pub fn scalar(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| !item.is_array() && !item.is_object()) => {
            items.iter().map(scalar).collect::<Vec<_>>().join(", ")
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_age_is_told_in_its_largest_unit() {
        let at: Timestamp = "2026-03-02T10:00:00Z".parse().unwrap();
        let told = |now: &str| age(at, now.parse().unwrap());
        assert_eq!(told("2026-03-02T10:00:59Z"), "59s");
        assert_eq!(told("2026-03-02T10:01:00Z"), "1m");
        assert_eq!(told("2026-03-02T11:00:00Z"), "1h");
        assert_eq!(told("2026-03-04T09:59:59Z"), "47h");
        assert_eq!(told("2026-03-05T10:00:00Z"), "3d");
        assert_eq!(told("2026-03-02T09:00:00Z"), "0s");
    }

    #[test]
    fn a_grid_is_plain_columns_without_a_terminal_and_coloured_on_one() {
        let grid = Grid {
            header: vec!["DEPLOYMENT", "STATUS"],
            rows: vec![vec!["dep-1".into(), "Completed".into()], vec!["dep-2".into(), "two\nlines".into()]],
            status: Some(1),
        };
        assert_eq!(
            Out::plain().grid_lines(&grid),
            ["DEPLOYMENT  STATUS", "dep-1       Completed", "dep-2       two lines"]
        );
        let terminal = Out { terminal: true, note_terminal: true, colours: true, note_colours: true };
        assert_eq!(
            terminal.grid_lines(&grid),
            [
                "\u{1b}[1mDEPLOYMENT  STATUS\u{1b}[0m",
                "dep-1       \u{1b}[32mCompleted\u{1b}[0m",
                "dep-2       \u{1b}[33mtwo lines\u{1b}[0m"
            ]
        );
    }

    #[test]
    fn a_value_is_told_in_few_words() {
        assert_eq!(scalar(&json!(["a", "b"])), "a, b");
        assert_eq!(scalar(&json!(null)), "");
        assert_eq!(text(&json!({"weight": 100}), "weight"), "100");
    }
}
