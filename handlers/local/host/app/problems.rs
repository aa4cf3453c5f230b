//! Reading JSON files so that everything wrong with them is said at once, each with its place.

use std::{cell::RefCell, fmt, fs, path::Path, time::Duration};

use serde_json::Value;

use super::timespan;

/// Something wrong in a file or a setting of the app: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// e.g. `bindings[0].schedule`; empty where the file as a whole is meant.
    pub path: String,
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(formatter, "{}: {}", self.file, self.problem),
            path => write!(formatter, "{}: {path}: {}", self.file, self.problem),
        }
    }
}

/// Everything that was found wrong.
#[derive(Debug, Default)]
pub(in crate::local::host) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub fn add(&self, file: &str, path: &str, problem: impl Into<String>) {
        self.0.borrow_mut().push(Problem {
            file: file.to_owned(),
            path: path.to_owned(),
            problem: problem.into(),
        });
    }

    pub fn into_list(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// Reads a file of JSON. What is wrong with it is added to the problems.
pub(in crate::local::host) fn read_json(path: &Path, problems: &Problems) -> Option<Value> {
    let file = path.display().to_string();
    let text = fs::read_to_string(path)
        .map_err(|error| problems.add(&file, "", format!("cannot be read ({error})")))
        .ok()?;
    let value: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| problems.add(&file, "", format!("is not valid JSON: {error}")))
        .ok()?;
    if !value.is_object() {
        problems.add(&file, "", format!("must hold one JSON object, not {}", kind(&value)));
        return None;
    }
    Some(value)
}

/// A place in a JSON document, there or not. Names are matched whatever their case, as Azure does.
#[derive(Clone)]
pub(in crate::local::host) struct Field<'a> {
    pub file: &'a str,
    pub path: String,
    pub value: Option<&'a Value>,
    pub problems: &'a Problems,
}

impl<'a> Field<'a> {
    pub fn root(file: &'a str, value: &'a Value, problems: &'a Problems) -> Self {
        Self { file, path: String::new(), value: Some(value), problems }
    }

    /// Adds a problem of this place.
    pub fn problem(&self, problem: impl Into<String>) {
        self.problems.add(self.file, &self.path, problem);
    }

    /// A member. Of something that is no object there are none, which is a problem.
    pub fn member(&self, name: &str) -> Field<'a> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        let value = match self.value {
            Some(Value::Object(members)) => {
                members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
            }
            _ => None,
        };
        Field { path, value: value.filter(|value| !value.is_null()), ..self.clone() }
    }

    /// Whether it is an object; absence is none, anything else is a problem.
    pub fn is_object(&self) -> bool {
        match self.value {
            None => false,
            Some(Value::Object(_)) => true,
            Some(other) => {
                self.problem(format!("must be an object, not {}", kind(other)));
                false
            }
        }
    }

    pub fn elements(&self) -> Vec<Field<'a>> {
        let Some(value) = self.value else { return Vec::new() };
        let Value::Array(elements) = value else {
            self.problem(format!("must be an array, not {}", kind(value)));
            return Vec::new();
        };
        let place = |(index, value)| Field {
            path: format!("{}[{index}]", self.path),
            value: Some(value),
            ..self.clone()
        };
        elements.iter().enumerate().map(place).collect()
    }

    pub fn text(&self) -> Option<&'a str> {
        match self.value? {
            Value::String(text) => Some(text),
            other => {
                self.problem(format!("must be a text, not {}", kind(other)));
                None
            }
        }
    }

    pub fn texts(&self) -> Vec<String> {
        self.elements().iter().filter_map(Field::text).map(str::to_owned).collect()
    }

    /// `true` or `false`; settings give them as texts.
    pub fn flag(&self) -> Option<bool> {
        match self.value? {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            other => {
                self.problem(format!("must be true or false, not {}", kind(other)));
                None
            }
        }
    }

    /// A whole number of `least` to `most`; settings give it as a text.
    pub fn number(&self, least: u64, most: u64) -> Option<u64> {
        let number = match self.value? {
            Value::String(text) => text.trim().parse().ok(),
            value => value.as_u64(),
        };
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.problem(format!("must be a whole number from {least} to {most}"));
        }
        number
    }

    pub fn duration(&self) -> Option<Duration> {
        let text = self.text()?;
        let duration = timespan::parse(text);
        if duration.is_none() {
            self.problem(format!(
                "`{text}` is no span of time: write hours, minutes and seconds, such as \"00:05:00\""
            ));
        }
        duration
    }

    /// One of a few words, whatever their case; anything else is a problem that names them.
    pub fn one_of(&self, words: &[&'static str]) -> Option<&'static str> {
        let text = self.text()?;
        let found = words.iter().find(|word| word.eq_ignore_ascii_case(text)).copied();
        if found.is_none() {
            self.problem(format!("`{text}` is not supported here: use {}", words.join(" or ")));
        }
        found
    }

    /// Only `supported` will do; anything else is a problem that says why.
    pub fn only(&self, supported: bool, why: &str) {
        if self.flag().is_some_and(|flag| flag != supported) {
            self.problem(format!("`{}` is not supported here: {why}", !supported));
        }
    }
}

pub(in crate::local::host) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
