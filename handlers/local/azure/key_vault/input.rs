//! What callers send: names, bodies, pages. Nothing here repeats a value in what it says.

use serde_json::{Map, Value};

use super::refusals::Refusal;

/// The most characters of a secret's name.
const NAME_CHARACTERS_MAX: usize = 127;
/// The most bytes of a secret's value.
const VALUE_BYTES_MAX: usize = 25 * 1024;
/// The most tags of a version.
const TAGS_MAX: usize = 15;
/// The most characters of a tag's name, and of its value.
const TAG_CHARACTERS_MAX: usize = 512;
/// The most entries of a page, and how many there are where the caller does not say.
pub(super) const PAGE_MAX: usize = 25;

/// The body of a PUT or a PATCH. What is not there stays as it is.
#[derive(Default)]
pub(super) struct Given {
    pub value: Option<String>,
    pub content_type: Option<String>,
    pub enabled: Option<bool>,
    /// Unix seconds.
    pub not_before: Option<i64>,
    pub expires: Option<i64>,
    pub tags: Option<Map<String, Value>>,
}

/// Refuses what is no name of a secret.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let fits = (1..=NAME_CHARACTERS_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits {
        return Ok(());
    }
    Err(Refusal::bad_parameter(format!(
        "The name of a secret has 1 to {NAME_CHARACTERS_MAX} characters, each of them a letter, a digit or a hyphen."
    )))
}

/// Reads the body of a PUT or a PATCH.
pub(super) fn given(body: &[u8]) -> Result<Given, Refusal> {
    // What a parser says of a broken body may repeat a part of it.
    let body: Value = serde_json::from_slice(body)
        .map_err(|_| Refusal::bad_parameter("The body of the request is no JSON."))?;
    let Value::Object(body) = body else {
        return Err(Refusal::bad_parameter("The body of the request is no JSON object."));
    };
    let empty = Map::new();
    let attributes = match body.get("attributes") {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(attributes)) => attributes,
        Some(_) => return Err(wrong("attributes", "an object")),
    };
    let given = Given {
        value: field(&body, "value", "a text", |value| value.as_str().map(str::to_owned))?,
        content_type: field(&body, "contentType", "a text", |value| value.as_str().map(str::to_owned))?,
        enabled: field(attributes, "enabled", "true or false", Value::as_bool)?,
        not_before: field(attributes, "nbf", "a number of seconds", Value::as_i64)?,
        expires: field(attributes, "exp", "a number of seconds", Value::as_i64)?,
        tags: field(&body, "tags", "an object", |value| value.as_object().cloned())?,
    };
    if given.value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
        return Err(Refusal::bad_parameter(format!(
            "The value of a secret has at most {VALUE_BYTES_MAX} bytes."
        )));
    }
    check_tags(given.tags.as_ref().unwrap_or(&empty))?;
    Ok(given)
}

fn wrong(name: &str, what: &str) -> Refusal {
    Refusal::bad_parameter(format!("The property `{name}` must be {what}."))
}

fn field<T>(
    object: &Map<String, Value>,
    name: &str,
    what: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, Refusal> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value).map(Some).ok_or_else(|| wrong(name, what)),
    }
}

fn check_tags(tags: &Map<String, Value>) -> Result<(), Refusal> {
    let fits = |text: &str| text.chars().count() <= TAG_CHARACTERS_MAX;
    if tags.len() > TAGS_MAX {
        return Err(Refusal::bad_parameter(format!("A secret has at most {TAGS_MAX} tags.")));
    }
    match tags.iter().all(|(name, value)| fits(name) && value.as_str().is_some_and(fits)) {
        true => Ok(()),
        false => Err(Refusal::bad_parameter(format!(
            "The name and the value of a tag are texts of at most {TAG_CHARACTERS_MAX} characters."
        ))),
    }
}

/// How many entries a page is to have.
pub(super) fn page_size(asked: Option<&str>) -> Result<usize, Refusal> {
    let Some(asked) = asked else { return Ok(PAGE_MAX) };
    match asked.parse() {
        Ok(size) if (1..=PAGE_MAX).contains(&size) => Ok(size),
        _ => Err(Refusal::bad_parameter(format!("`maxresults` is a number from 1 to {PAGE_MAX}."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_letters_digits_and_hyphens() {
        let long = "a".repeat(128);
        for (name, good) in
            [("db-Password-1", true), ("", false), ("a_b", false), ("ä", false), (&long[1..], true)]
        {
            assert_eq!(check_name(name).is_ok(), good, "{name}");
        }
        assert!(check_name(&long).is_err());
    }

    #[test]
    fn a_bad_body_is_refused_without_repeating_it() {
        let tags = (0..16).map(|number| format!(r#""t{number}":"x""#)).collect::<Vec<_>>().join(",");
        let long = format!(r#"{{"value":"{}"}}"#, "4711".repeat(VALUE_BYTES_MAX / 4 + 1));
        for (body, message) in [
            ("{\"value\":4711", "The body of the request is no JSON."),
            ("[4711]", "The body of the request is no JSON object."),
            (r#"{"value":4711}"#, "The property `value` must be a text."),
            (r#"{"attributes":{"exp":"4711"}}"#, "The property `exp` must be a number of seconds."),
            (r#"{"attributes":4711}"#, "The property `attributes` must be an object."),
            (r#"{"tags":{"a":1}}"#, "The name and the value of a tag are texts of at most 512 characters."),
            (&format!(r#"{{"tags":{{{tags}}}}}"#), "A secret has at most 15 tags."),
            (&long, "The value of a secret has at most 25600 bytes."),
        ] {
            assert_eq!(given(body.as_bytes()).err().unwrap(), Refusal::bad_parameter(message));
        }
    }

    #[test]
    fn a_page_has_at_most_25_entries() {
        assert_eq!(page_size(None), Ok(25));
        assert_eq!(page_size(Some("3")), Ok(3));
        assert!(
            page_size(Some("26")).is_err() && page_size(Some("0")).is_err() && page_size(Some("x")).is_err()
        );
    }
}
