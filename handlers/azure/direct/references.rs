//! References between resources: a text `${key.path}` stands for a property of another resource as
//! Azure answered it. A text that only contains one is an ordinary text.

use serde_json::Value;

/// A property of another resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    pub key: &'a str,
    /// Names of members, joined by dots.
    pub path: &'a str,
}

/// The reference that a value is, if it is one.
pub(super) fn reference(value: &Value) -> Option<Reference<'_>> {
    let inner = value.as_str()?.strip_prefix("${")?.strip_suffix('}')?;
    let (key, path) = inner.split_once('.')?;
    Some(Reference { key, path })
}

/// Every reference in a body, in order.
pub(super) fn references(body: &Value) -> Vec<Reference<'_>> {
    match body {
        Value::Object(members) => members.values().flat_map(references).collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        Value::String(_) => reference(body).into_iter().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

/// The body with every reference replaced that `lookup` knows a value for; the others stay.
pub(super) fn resolved<'a>(body: &Value, lookup: &impl Fn(&str) -> Option<&'a Value>) -> Value {
    match body {
        Value::Object(members) => Value::Object(
            members.iter().map(|(name, member)| (name.clone(), resolved(member, lookup))).collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(|item| resolved(item, lookup)).collect()),
        Value::String(_) => reference(body)
            .and_then(|reference| follow(lookup(reference.key)?, reference.path))
            .unwrap_or(body)
            .clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) => body.clone(),
    }
}

fn follow<'a>(body: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(body, |value, name| value.get(name)).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_whole_text_of_the_right_form_is_a_reference() {
        let found =
            |text: &str| reference(&json!(text)).map(|found| (found.key.to_owned(), found.path.to_owned()));
        assert_eq!(found("${a-b.c.d}"), Some(("a-b".into(), "c.d".into())));
        for text in ["", "a.b", "${a}", "x${a.b}", "${a.b}x", "$a.b"] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_known_is_put_in_and_the_rest_stays() {
        let body = json!({ "a": ["${x.p.q}", 1], "b": "${x.none}", "c": "${y.p}" });
        let x = json!({ "p": { "q": { "deep": true } }, "none": null });
        assert_eq!(
            resolved(&body, &|key| (key == "x").then_some(&x)),
            json!({ "a": [{ "deep": true }, 1], "b": "${x.none}", "c": "${y.p}" })
        );
        let keys: Vec<_> = references(&body).into_iter().map(|found| found.key).collect();
        assert_eq!(keys, ["x", "x", "y"]);
    }
}
