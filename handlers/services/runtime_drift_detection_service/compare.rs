//! Where the world is not as desired: a pure function of what is desired, what was applied last, and
//! what is.
//!
//! Nothing said, null, and an empty text, list or object are the same, and so is a default of the
//! server where nothing is said. The third document tells a change from outside from one of our own
//! that was not rolled out yet, which is no drift.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::schema::{Form, Node, Owner};

/// Members that a difference tells in full; longer ones by their digest.
const TOLD_BYTES_MAX: usize = 1024;

/// Whose doing a difference is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Because {
    /// It is neither as desired nor as it was applied: somebody else changed it.
    ExternalChange,
    /// It is as it was applied; what is desired by now was not rolled out yet. No drift.
    PendingApply,
    /// It was applied once and is desired no more, and is still there. No drift: the next rollout takes
    /// it away.
    Orphan,
}

/// What kind of difference it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Changed,
    Missing,
    Unexpected,
}

/// One path that is not as desired.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// A JSON pointer; an item of a keyed list goes by its key.
    pub path: String,
    pub how: How,
    pub because: Because,
    /// As it may be told: digests where the schema says so, and of what is long.
    pub desired: Value,
    pub actual: Value,
}

/// All differences, in order of their paths.
pub fn compare(
    schema: &Node,
    desired: &Value,
    last_applied: Option<&Value>,
    actual: &Value,
) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut path = String::new();
    walk(schema, desired, last_applied, actual, &mut path, &mut found);
    found
}

fn walk(
    node: &Node,
    desired: &Value,
    last: Option<&Value>,
    actual: &Value,
    path: &mut String,
    found: &mut Vec<Difference>,
) {
    if node.owner == Owner::Foreign || (is_nothing(desired) && !node.exclusive) {
        return;
    }
    if let (Some(wanted), Some(there)) = (members(node.form, desired), members(node.form, actual)) {
        let last = last.and_then(|last| members(node.form, last));
        for (name, value) in wanted.iter() {
            let length = path.len();
            step(path, name);
            let before = last.as_ref().map(|last| last.get(*name).copied().unwrap_or(&Value::Null));
            let is = there.get(*name).copied().unwrap_or(&Value::Null);
            walk(node.member(name), value, before, is, path, found);
            path.truncate(length);
        }
        if node.exclusive {
            for (name, value) in there.iter().filter(|(name, _)| !wanted.contains_key(*name)) {
                let inner = node.member(name);
                if inner.owner == Owner::Foreign || is_nothing(value) {
                    continue;
                }
                let before = last.as_ref().and_then(|last| last.get(*name).copied());
                let because = match before {
                    Some(before) if same(inner, before, value) => Because::Orphan,
                    Some(_) | None => Because::ExternalChange,
                };
                let length = path.len();
                step(path, name);
                found.push(difference(path, inner, &Value::Null, value, because));
                path.truncate(length);
            }
        }
        return;
    }
    if !same(node, desired, actual) {
        let pending = last.is_some_and(|last| same(node, last, actual));
        let because = if pending { Because::PendingApply } else { Because::ExternalChange };
        found.push(difference(path, node, desired, actual, because));
    }
}

fn step(path: &mut String, name: &str) {
    path.push('/');
    for character in name.chars() {
        match character {
            '~' => path.push_str("~0"),
            '/' => path.push_str("~1"),
            other => path.push(other),
        }
    }
}

fn difference(path: &str, node: &Node, desired: &Value, actual: &Value, because: Because) -> Difference {
    let how = match (is_nothing(desired), is_nothing(actual)) {
        (true, _) => How::Unexpected,
        (false, true) => How::Missing,
        (false, false) => How::Changed,
    };
    let path = path.to_owned();
    Difference { path, how, because, desired: told(node, desired), actual: told(node, actual) }
}

/// Members by name, or items of a keyed list by their key. Nothing has no members; none where it is a
/// value that can have none.
fn members(form: Form, value: &Value) -> Option<BTreeMap<&str, &Value>> {
    match (form, value) {
        (Form::Keyed(_) | Form::Exact, Value::Null) => Some(BTreeMap::new()),
        (Form::Keyed(key), Value::Array(items)) => Some(
            items
                .iter()
                .map(|item| (item.get(key).and_then(Value::as_str).unwrap_or_default(), item))
                .collect(),
        ),
        (Form::Exact, Value::Object(members)) => {
            Some(members.iter().map(|(name, value)| (name.as_str(), value)).collect())
        }
        _ => None,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether two values mean the same.
fn same(node: &Node, one: &Value, other: &Value) -> bool {
    let default = node.default.value();
    let or_default = |value| if is_nothing(value) { &default } else { value };
    let (one, other) = (or_default(one), or_default(other));
    match (one, other) {
        _ if is_nothing(one) && is_nothing(other) => true,
        (Value::Object(a), Value::Object(b)) => same_members(node, a, b),
        (Value::Array(a), Value::Array(b)) if node.form == Form::Set => set(a) == set(b),
        (Value::Array(a), Value::Array(b)) => {
            let keyed = (members(node.form, one), members(node.form, other));
            match (node.form, keyed) {
                (Form::Keyed(_), (Some(a), Some(b))) => {
                    a.len() == b.len()
                        && a.iter().all(|(name, item)| {
                            b.get(name).is_some_and(|other| same(node.member(name), item, other))
                        })
                }
                _ => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(&super::schema::PLAIN, a, b)),
            }
        }
        _ => same_scalar(node.form, one, other),
    }
}

fn same_members(node: &Node, a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let nothing = Value::Null;
    let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
    names.into_iter().all(|name| {
        let inner = node.member(name);
        inner.owner == Owner::Foreign
            || same(inner, a.get(name).unwrap_or(&nothing), b.get(name).unwrap_or(&nothing))
    })
}

fn same_scalar(form: Form, one: &Value, other: &Value) -> bool {
    if one == other {
        return true;
    }
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::String(a), Value::String(b)) => match form {
            Form::AnyCase => a.eq_ignore_ascii_case(b),
            Form::Location => place(a) == place(b),
            Form::Quantity => quantity(a).is_some_and(|a| Some(a) == quantity(b)),
            Form::Exact | Form::Boolean | Form::Set | Form::Keyed(_) => false,
        },
        (Value::String(text), Value::Number(number)) | (Value::Number(number), Value::String(text)) => {
            form == Form::Quantity && quantity(text) == number.as_f64()
        }
        (Value::String(text), Value::Bool(flag)) | (Value::Bool(flag), Value::String(text)) => {
            form == Form::Boolean && text.parse() == Ok(*flag)
        }
        _ => false,
    }
}

fn place(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(' ', "").to_ascii_lowercase())
}

/// An amount in its base unit: cores, or bytes.
fn quantity(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 9] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("m", 0.001),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
    ];
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1.0));
    // A thousandth and a half are not told apart by how they were multiplied.
    Some((number.trim().parse::<f64>().ok()? * factor * 1e6).round() / 1e6)
}

fn set(items: &[Value]) -> Vec<String> {
    let mut texts: Vec<String> = items
        .iter()
        .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_ascii_lowercase))
        .collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

fn told(node: &Node, value: &Value) -> Value {
    if is_nothing(value) {
        return Value::Null;
    }
    let text = value.to_string();
    if node.digest || text.len() > TOLD_BYTES_MAX {
        return Value::from(digest(&text));
    }
    value.clone()
}

/// The first digits of a hash: enough to tell two values apart, and nothing to read.
pub fn digest(text: &str) -> String {
    use std::fmt::Write;
    Sha256::digest(text).iter().take(8).fold("sha256:".to_owned(), |mut told, byte| {
        write!(told, "{byte:02x}").expect("a String takes all that is written");
        told
    })
}

#[cfg(test)]
mod tests;
