//! `logs`: the log of a platform on this machine, line by line in a form for people.
//!
//! The log is JSON lines; what is none (a crash, a library's own words) is shown as it stands and
//! never left out by a filter of levels: it may be the very line that is looked for.

use std::{
    collections::VecDeque,
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use serde_json::{Map, Value};
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader},
    time::sleep,
};

use crate::{
    cli::{Connection, Level, LogsArgs},
    context::Context,
    failure::Failure,
    output::{Out, Tint, clock, scalar},
};

/// How far back the log is searched for the last lines, in bytes.
const LOOK_BACK_BYTES: u64 = 64 * 1024 * 1024;
/// A line is shown up to this many bytes.
const LINE_BYTES_MAX: usize = 256 * 1024;
/// The pause before looking whether the log has grown.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs `logs`.
///
/// # Errors
/// When the context has no log on this machine, or it cannot be read.
pub async fn run(connection: &Connection, args: &LogsArgs, out: &Out) -> Result<ExitCode, Failure> {
    let context = Context::open(connection, out)?;
    let Some(file) = context.log_file else {
        return Err(Failure::unusable(format!(
            "The context `{}` has no log on this machine",
            context.file.display()
        ))
        .advice("look where that platform keeps its logs: on Azure, in Application Insights"));
    };
    tokio::select! {
        ended = show(&file, args, out) => ended.map(|()| ExitCode::SUCCESS),
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
    }
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    Failure::unusable(format!("Cannot read the log `{}`", file.display()))
        .because(error)
        .advice("`runtimectl up` writes it; is this the context of a platform that has run?")
}

async fn show(file: &Path, args: &LogsArgs, out: &Out) -> Result<(), Failure> {
    let mut log = Log::open(file).await.map_err(|error| unreadable(file, &error))?;
    let mut last = VecDeque::new();
    while let Some(line) = log.line().await.map_err(|error| unreadable(file, &error))? {
        if let Some(shown) = rendered(&line, args, out) {
            last.push_back(shown);
            if last.len() > args.lines {
                last.pop_front();
            }
        }
    }
    last.iter().try_for_each(|line| out.line(line))?;
    if !args.follow {
        return Ok(());
    }
    loop {
        match log.line().await.map_err(|error| unreadable(file, &error))? {
            Some(line) => rendered(&line, args, out).map_or(Ok(()), |line| out.line(&line))?,
            None => {
                sleep(PAUSE).await;
                log.start_anew().await.map_err(|error| unreadable(file, &error))?;
            }
        }
    }
}

/// A log that grows while it is read.
struct Log {
    path: PathBuf,
    reader: BufReader<File>,
    /// Bytes read so far, of this file.
    at: u64,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl Log {
    async fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path).await?;
        let length = file.metadata().await?.len();
        let at = length.saturating_sub(LOOK_BACK_BYTES);
        file.seek(SeekFrom::Start(at)).await?;
        let mut log = Self { path: path.to_owned(), reader: BufReader::new(file), at, partial: Vec::new() };
        if at > 0 {
            // In the middle of a line.
            log.line().await?;
        }
        Ok(log)
    }

    /// The next whole line.
    async fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            let room = LINE_BYTES_MAX.saturating_sub(self.partial.len()) as u64;
            let mut part = Vec::new();
            let read = (&mut self.reader).take(room.max(1)).read_until(b'\n', &mut part).await?;
            self.at += read as u64;
            self.partial.extend_from_slice(&part);
            if self.partial.ends_with(b"\n") || self.partial.len() >= LINE_BYTES_MAX {
                let line = std::mem::take(&mut self.partial);
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            if read == 0 {
                return Ok(None);
            }
        }
    }

    /// Begins again where the log was cut or another one has taken its place.
    async fn start_anew(&mut self) -> io::Result<()> {
        let Ok(there) = tokio::fs::metadata(&self.path).await else {
            // It is being replaced: the next look finds the new one.
            return Ok(());
        };
        let replaced = !is_same(&there, &self.reader.get_ref().metadata().await?);
        if replaced || there.len() < self.at {
            self.reader = BufReader::new(File::open(&self.path).await?);
            self.at = 0;
            self.partial.clear();
        }
        Ok(())
    }
}

#[cfg(unix)]
fn is_same(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same(_: &std::fs::Metadata, _: &std::fs::Metadata) -> bool {
    true
}

/// A line as a person reads it; none where it was not asked for.
fn rendered(line: &str, args: &LogsArgs, out: &Out) -> Option<String> {
    let Ok(Value::Object(members)) = serde_json::from_str(line) else {
        return (args.function.is_none() && !line.is_empty()).then(|| line.to_owned());
    };
    let mut fields = Map::new();
    flatten(members, &mut fields);
    let mut take = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| fields.shift_remove(*name))
            .map(|value| scalar(&value))
            .unwrap_or_default()
    };
    let at = take(&["timestamp", "time", "at", "ts"]);
    let level = take(&["level"]);
    let message = take(&["message", "msg"]);
    let function = take(&["function.name", "functionName", "function"]);
    let _ = take(&["target"]);
    if args.function.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&function)) {
        return None;
    }
    let severity = severity(&level);
    if args.level.zip(severity).is_some_and(|(least, severity)| severity < least) {
        return None;
    }
    let rest = fields.iter().filter(|(_, value)| !value.is_null());
    let rest = rest.map(|(name, value)| format!("{name}={}", scalar(value))).collect::<Vec<_>>().join(" ");
    let parts = [
        out.paint(Tint::Dim, &clock(&at)),
        out.paint(tint(severity), &format!("{:5}", level.to_uppercase())),
        if function.is_empty() { function } else { out.paint(Tint::Bold, &function) },
        message.replace('\n', "\n    "),
        if rest.is_empty() { rest } else { out.paint(Tint::Dim, &rest) },
    ];
    Some(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  "))
}

/// Puts the fields of the event and of its spans beside the rest; what the event says itself wins.
fn flatten(members: Map<String, Value>, into: &mut Map<String, Value>) {
    let mut later = Vec::new();
    for (name, value) in members {
        match (name.as_str(), value) {
            ("fields", Value::Object(inner)) => into.extend(inner),
            ("span", Value::Object(inner)) => later.push(inner),
            ("spans", Value::Array(spans)) => {
                later.extend(spans.into_iter().filter_map(|span| match span {
                    Value::Object(inner) => Some(inner),
                    _ => None,
                }));
            }
            (_, value) => {
                into.insert(name, value);
            }
        }
    }
    for mut span in later {
        // The name of the span says where in the code it was opened, which helps nobody here.
        span.shift_remove("name");
        for (name, value) in span {
            into.entry(name).or_insert(value);
        }
    }
}

fn severity(level: &str) -> Option<Level> {
    match level.to_ascii_lowercase().as_str() {
        "trace" => Some(Level::Trace),
        "debug" => Some(Level::Debug),
        "info" | "information" => Some(Level::Info),
        "warn" | "warning" => Some(Level::Warn),
        "error" | "critical" => Some(Level::Error),
        _ => None,
    }
}

fn tint(severity: Option<Level>) -> Tint {
    match severity {
        Some(Level::Error) => Tint::Red,
        Some(Level::Warn) => Tint::Yellow,
        Some(Level::Info) => Tint::Green,
        Some(Level::Debug | Level::Trace) => Tint::Dim,
        None => Tint::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(function: Option<&str>, level: Option<Level>) -> LogsArgs {
        LogsArgs { follow: false, lines: 10, function: function.map(str::to_owned), level }
    }

    const LINE: &str = r#"{"timestamp":"2026-03-02T10:15:30.123Z","level":"INFO","fields":{"message":"Deployment `dep-1` completed","deployment.id":"dep-1"},"target":"x","span":{"function.name":"Deploy","tenant.id":"acme","name":"invocation"}}"#;

    #[test]
    fn a_line_is_told_with_its_time_level_function_and_fields() {
        assert_eq!(
            rendered(LINE, &args(None, None), &Out::plain()).unwrap(),
            "10:15:30Z  INFO   Deploy  Deployment `dep-1` completed  deployment.id=dep-1 tenant.id=acme"
        );
    }

    #[test]
    fn lines_are_kept_by_function_and_level_and_what_is_no_json_by_neither_dropped() {
        let kept = |line, function, level| rendered(line, &args(function, level), &Out::plain()).is_some();
        assert!(kept(LINE, Some("deploy"), Some(Level::Info)));
        assert!(!kept(LINE, Some("Other"), None));
        assert!(!kept(LINE, None, Some(Level::Warn)));
        assert!(kept("thread panicked", None, Some(Level::Error)));
        assert!(!kept("thread panicked", Some("Deploy"), None));
        assert!(kept(r#"{"level":"odd","message":"x"}"#, None, Some(Level::Error)));
    }

    #[tokio::test]
    async fn a_log_that_is_replaced_is_read_from_its_start() {
        use std::io::Write;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("platform.log");
        std::fs::write(&path, "one\ntw").unwrap();
        let mut log = Log::open(&path).await.unwrap();
        assert_eq!(log.line().await.unwrap().as_deref(), Some("one"));
        assert_eq!(log.line().await.unwrap(), None);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"o\n").unwrap();
        log.start_anew().await.unwrap();
        assert_eq!(log.line().await.unwrap().as_deref(), Some("two"));
        std::fs::rename(&path, root.path().join("old.log")).unwrap();
        std::fs::write(&path, "three is longer than all before it\n").unwrap();
        log.start_anew().await.unwrap();
        assert_eq!(log.line().await.unwrap().as_deref(), Some("three is longer than all before it"));
    }
}
