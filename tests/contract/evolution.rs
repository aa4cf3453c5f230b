//! What may change in a golden envelope: fields may come, none may go, none may change its type.
//!
//! The shapes below were published once, so somebody reads them. `tests/golden/envelopes` shows what is
//! published today; a test compares the two.

use std::{collections::BTreeMap, path::Path};

use expect_test::expect_file;
use runtime_platform::events::EVENTS;
use serde_json::{Value, json};

/// The paths of a value and the type of each. An element of a list stands for all of them.
fn shape(value: &Value, at: &str, into: &mut BTreeMap<String, &'static str>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    into.insert(at.to_owned(), kind);
    match value {
        Value::Array(items) => items.iter().for_each(|item| shape(item, &format!("{at}[]"), into)),
        Value::Object(members) => {
            members.iter().for_each(|(name, item)| shape(item, &format!("{at}/{name}"), into));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What a consumer of `before` could no longer read in `now`, as sentences. A value that was `null` may
/// become of a type, and one of a type may be `null` in an example: an optional field is both.
fn breaks(event: &str, before: &BTreeMap<String, String>, now: &Value) -> Vec<String> {
    let mut current = BTreeMap::new();
    shape(now, "", &mut current);
    let remedy = |what: String| {
        format!(
            "{event}: {what}. Its consumers would break: leave `{event}` as it is and add an event `{event}V2` beside it."
        )
    };
    before
        .iter()
        .filter_map(|(path, kind)| match current.get(path) {
            None => Some(remedy(format!("the field {path} is gone (removed or renamed)"))),
            Some(now) if now != kind && *now != "null" && kind != "null" => {
                Some(remedy(format!("the field {path} was {kind} and is {now}")))
            }
            Some(_) => None,
        })
        .collect()
}

fn golden(event: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/envelopes/{event}.json"));
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn published_before() -> BTreeMap<String, BTreeMap<String, String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/shapes.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap_or_else(|_| "{}".to_owned())).unwrap()
}

#[test]
fn no_golden_breaks_who_reads_it() {
    let before = published_before();
    let broken: Vec<String> = before
        .iter()
        .flat_map(|(event, shape)| match EVENTS.contains(&event.as_str()) {
            true => breaks(event, shape, &golden(event)),
            false => vec![format!(
                "{event}: it was published and is an event no more. Its consumers wait for it: keep it."
            )],
        })
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Runs after nothing is broken: what is new joins the record by `UPDATE_EXPECT=1`, and what is there
/// never leaves it.
#[test]
fn what_is_published_is_on_record() {
    let mut record = published_before();
    for event in EVENTS {
        let golden = golden(event);
        let mut now = BTreeMap::new();
        shape(&golden, "", &mut now);
        let known = record.entry((*event).to_owned()).or_default();
        for (path, kind) in now {
            let kept = known.entry(path).or_insert_with(|| kind.to_owned());
            if kept == "null" {
                kind.clone_into(kept);
            }
        }
    }
    let text = serde_json::to_string_pretty(&record).unwrap();
    expect_file!["../golden/shapes.json"].assert_eq(&format!("{text}\n"));
}

#[test]
fn a_breaking_change_is_told_and_an_addition_is_fine() {
    let mut before = BTreeMap::new();
    let was =
        json!({ "payload": { "image": "a:1", "replicas": 3, "version": null, "checks": [{ "name": "/" }] } });
    shape(&was, "", &mut before);
    let before: BTreeMap<String, String> =
        before.into_iter().map(|(path, kind)| (path, kind.to_owned())).collect();
    let told = |now: Value| breaks("Example", &before, &now).join("\n");
    assert_eq!(told(was), "");
    assert_eq!(
        told(
            json!({ "payload": { "image": "a:1", "replicas": 3, "version": "1", "checks": [{ "name": "/" }], "colour": "red" } })
        ),
        ""
    );
    assert_eq!(
        told(
            json!({ "payload": { "picture": "a:1", "replicas": "3", "version": null, "checks": [{ "name": "/" }] } })
        ),
        "Example: the field /payload/image is gone (removed or renamed). Its consumers would break: leave `Example` as it is and add an event `ExampleV2` beside it.\n\
         Example: the field /payload/replicas was number and is text. Its consumers would break: leave `Example` as it is and add an event `ExampleV2` beside it."
    );
    assert_eq!(
        told(
            json!({ "payload": { "image": "a:1", "replicas": 3, "version": null, "checks": [{ "title": "/" }] } })
        ),
        "Example: the field /payload/checks[]/name is gone (removed or renamed). Its consumers would break: leave `Example` as it is and add an event `ExampleV2` beside it."
    );
}
