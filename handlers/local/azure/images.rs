//! The image catalogue: what stands in for a container of an image.
//!
//! A catalogue is a JSON file:
//!
//! ```json
//! {
//!   "images": [
//!     { "match": "acr.azurecr.io/reservations-api:1.5.0", "behaviour": { "kind": "errors", "share": 1.0 } },
//!     { "match": "my.registry/app:*", "command": ["node", "server.js"], "workingDirectory": "../app" }
//!   ]
//! }
//! ```
//!
//! `*` stands for any characters. The first entry that matches counts; an image that none matches is
//! healthy. `command` is a program of the user's own: it is started with `PORT` set and must listen
//! there on loopback; a relative `workingDirectory` is relative to the file. The kinds of behaviour
//! are those of [`Behaviour`].

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most entries of a catalogue.
const ENTRIES_MAX: usize = 1000;

/// How a stand-in for a container behaves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Behaviour {
    /// Answers 200 from the start.
    Healthy,
    /// Begins to listen after so many seconds.
    SlowStart { seconds: f64 },
    /// Exits so many seconds after it was started, again and again; 0 is before it listens.
    CrashLoop {
        #[serde(default)]
        after_seconds: f64,
    },
    /// Answers 200 for so many seconds, and 500 from then on.
    FailsAfter { seconds: f64 },
    /// Answers 500 to this share of requests, evenly spread; 1 is all of them.
    Errors { share: f64 },
    /// Answers 200 after so many milliseconds.
    Latency { milliseconds: u64 },
    /// Is not in its registry: nobody can pull it.
    Missing,
}

/// A program of the user's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    pub program: String,
    pub arguments: Vec<String>,
    pub working_directory: Option<PathBuf>,
}

/// What stands in for a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StandIn {
    Behaviour(Behaviour),
    Command(Command),
}

/// What stands in for containers, by image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageCatalogue {
    entries: Vec<(String, StandIn)>,
}

/// What is wrong with a catalogue.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("cannot read the image catalogue `{file}`")]
    Unreadable { file: PathBuf, source: io::Error },
    #[error("`{file}` is no JSON")]
    NoJson { file: PathBuf, source: serde_json::Error },
    /// `path` is e.g. `images[2].behaviour`.
    #[error("`{file}`: {path}: {problem}")]
    Wrong { file: PathBuf, path: String, problem: String },
}

impl ImageCatalogue {
    /// What is there without a file: one image that fails its health gate, and an example of each
    /// kind of trouble.
    pub fn built_in() -> Self {
        let entries = [
            ("acr.azurecr.io/reservations-api:1.5.0", Behaviour::Errors { share: 1.0 }),
            // As what has to ask others does: long enough for requests to be under way at a time.
            ("acr.azurecr.io/billing-api:*", Behaviour::Latency { milliseconds: 250 }),
            ("*/slow-start:*", Behaviour::SlowStart { seconds: 5.0 }),
            ("*/crash-loop:*", Behaviour::CrashLoop { after_seconds: 0.0 }),
            ("*/fails-later:*", Behaviour::FailsAfter { seconds: 10.0 }),
            ("*/flaky:*", Behaviour::Errors { share: 0.2 }),
            ("*/slow:*", Behaviour::Latency { milliseconds: 800 }),
            ("*/missing:*", Behaviour::Missing),
        ];
        let entry =
            |(pattern, behaviour): (&str, Behaviour)| (pattern.to_owned(), StandIn::Behaviour(behaviour));
        Self { entries: entries.into_iter().map(entry).collect() }
    }

    /// Reads a catalogue. What it says comes before what is built in.
    ///
    /// # Errors
    /// When the file cannot be read, or something in it is wrong: which file, where, and what.
    pub fn read(file: &Path) -> Result<Self, CatalogueError> {
        let text = fs::read_to_string(file)
            .map_err(|source| CatalogueError::Unreadable { file: file.to_owned(), source })?;
        Self::parse(&text, file)
    }

    fn parse(text: &str, file: &Path) -> Result<Self, CatalogueError> {
        let wrong =
            |path: String, problem: String| CatalogueError::Wrong { file: file.to_owned(), path, problem };
        let document: Value = serde_json::from_str(text)
            .map_err(|source| CatalogueError::NoJson { file: file.to_owned(), source })?;
        let images = document.get("images").and_then(Value::as_array);
        let images =
            images.ok_or_else(|| wrong("images".to_owned(), "there must be a list `images`".to_owned()))?;
        if images.len() > ENTRIES_MAX {
            let problem = format!("there are {} entries, at most {ENTRIES_MAX} are allowed", images.len());
            return Err(wrong("images".to_owned(), problem));
        }
        let mut catalogue = Self::default();
        for (index, image) in images.iter().enumerate() {
            let entry = entry(image, file.parent().unwrap_or(Path::new(".")));
            catalogue
                .entries
                .push(entry.map_err(|(path, problem)| wrong(format!("images[{index}]{path}"), problem))?);
        }
        catalogue.entries.extend(Self::built_in().entries);
        Ok(catalogue)
    }

    /// The catalogue with an entry that comes before all others, in place of one under the same pattern.
    pub(super) fn with(&self, pattern: &str, stand_in: StandIn) -> Self {
        let others = self.entries.iter().filter(|(known, _)| known != pattern).cloned();
        Self { entries: std::iter::once((pattern.to_owned(), stand_in)).chain(others).collect() }
    }

    /// What stands in for a container of `image`.
    pub fn stand_in(&self, image: &str) -> StandIn {
        self.entries
            .iter()
            .find(|(pattern, _)| matches(pattern, image))
            .map_or(StandIn::Behaviour(Behaviour::Healthy), |(_, stand_in)| stand_in.clone())
    }
}

/// Reads one entry; a problem comes with where it is within the entry.
pub(super) fn entry(image: &Value, directory: &Path) -> Result<(String, StandIn), (String, String)> {
    let no = |path: &str, problem: &str| Err((path.to_owned(), problem.to_owned()));
    let Some(members) = image.as_object() else { return no("", "an entry is an object") };
    if let Some(unknown) = members
        .keys()
        .find(|name| !["match", "behaviour", "command", "workingDirectory"].contains(&name.as_str()))
    {
        return no(
            &format!(".{unknown}"),
            "there is no such member: an entry has match, behaviour, command, workingDirectory",
        );
    }
    let Some(pattern) = image["match"].as_str().filter(|pattern| !pattern.is_empty()) else {
        return no(".match", "an entry names the images it is for, e.g. `my.registry/app:*`");
    };
    let stand_in = match (members.get("behaviour"), members.get("command")) {
        (Some(behaviour), None) => StandIn::Behaviour(read_behaviour(behaviour)?),
        (None, Some(command)) => {
            StandIn::Command(read_command(command, image.get("workingDirectory"), directory)?)
        }
        _ => return no("", "an entry has either a `behaviour` or a `command`"),
    };
    Ok((pattern.to_owned(), stand_in))
}

fn read_behaviour(value: &Value) -> Result<Behaviour, (String, String)> {
    let path = ".behaviour".to_owned();
    let behaviour = Behaviour::deserialize(value).map_err(|error| (path.clone(), error.to_string()))?;
    let (name, number, most) = match behaviour {
        Behaviour::Healthy | Behaviour::Missing | Behaviour::Latency { .. } => return Ok(behaviour),
        Behaviour::Errors { share } => ("share", share, 1.0),
        Behaviour::CrashLoop { after_seconds } => ("afterSeconds", after_seconds, 86_400.0),
        Behaviour::SlowStart { seconds } | Behaviour::FailsAfter { seconds } => {
            ("seconds", seconds, 86_400.0)
        }
    };
    if (0.0..=most).contains(&number) {
        return Ok(behaviour);
    }
    Err((format!("{path}.{name}"), format!("it is {number}, and must be from 0 to {most}")))
}

fn read_command(
    command: &Value,
    working: Option<&Value>,
    directory: &Path,
) -> Result<Command, (String, String)> {
    let words = Vec::<String>::deserialize(command).map_err(|_| {
        (".command".to_owned(), "a command is a list of texts, e.g. [\"node\", \"server.js\"]".to_owned())
    })?;
    let [program, arguments @ ..] = words.as_slice() else {
        return Err((".command".to_owned(), "a command begins with a program".to_owned()));
    };
    let working = match working {
        None => None,
        Some(Value::String(path)) => Some(directory.join(path)),
        Some(_) => return Err((".workingDirectory".to_owned(), "it is a path".to_owned())),
    };
    Ok(Command { program: program.clone(), arguments: arguments.to_vec(), working_directory: working })
}

/// Whether `text` is `pattern`, in which `*` stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, expected) in [
            ("a:1", "a:1", true),
            ("a:1", "a:12", false),
            ("a:*", "a:12", true),
            ("*/x:*", "r/x:1", true),
            ("*/x:*", "x:1", false),
            ("*", "", true),
            ("a*a", "a", false),
            ("a*b*c", "axxbxxc", true),
            ("a*b*c", "acb", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    fn parsed(text: &str) -> Result<ImageCatalogue, String> {
        ImageCatalogue::parse(text, Path::new("dir/images.json")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_entry_that_matches_counts_and_an_unknown_image_is_healthy() {
        let catalogue = parsed(
            r#"{"images":[{"match":"r/a:1","behaviour":{"kind":"slowStart","seconds":2}},
                {"match":"r/a:*","command":["run","it"],"workingDirectory":"app"}]}"#,
        )
        .unwrap();
        assert_eq!(catalogue.stand_in("r/a:1"), StandIn::Behaviour(Behaviour::SlowStart { seconds: 2.0 }));
        assert_eq!(
            catalogue.stand_in("r/a:2"),
            StandIn::Command(Command {
                program: "run".into(),
                arguments: vec!["it".into()],
                working_directory: Some("dir/app".into())
            })
        );
        assert_eq!(catalogue.stand_in("other:1"), StandIn::Behaviour(Behaviour::Healthy));
        let bad = catalogue.stand_in("acr.azurecr.io/reservations-api:1.5.0");
        assert_eq!(bad, StandIn::Behaviour(Behaviour::Errors { share: 1.0 }));
    }

    #[test]
    fn an_error_names_the_file_and_the_path() {
        let error = |text| parsed(text).unwrap_err();
        assert_eq!(error("{}"), "`dir/images.json`: images: there must be a list `images`");
        assert_eq!(
            error(r#"{"images":[{"match":"a","behaviour":{"kind":"errors","share":2}}]}"#),
            "`dir/images.json`: images[0].behaviour.share: it is 2, and must be from 0 to 1"
        );
        assert_eq!(
            error(r#"{"images":[{"match":"a","command":"node x"}]}"#),
            "`dir/images.json`: images[0].command: a command is a list of texts, e.g. [\"node\", \"server.js\"]"
        );
        assert!(
            error(r#"{"images":[{"match":"a","behaviour":{"kind":"odd"}}]}"#)
                .contains("images[0].behaviour: unknown variant `odd`")
        );
        assert_eq!(
            error(r#"{"images":[{"match":"a"}]}"#),
            "`dir/images.json`: images[0]: an entry has either a `behaviour` or a `command`"
        );
    }
}
