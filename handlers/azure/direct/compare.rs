//! Whether a resource is as desired, looking only at the properties that we own: those that the
//! desired body mentions. What else Azure or somebody sets is none of our business.
//!
//! Nothing said, null, and an empty text, list or object are the same. Ids and UUIDs are compared
//! whatever their case; locations also whatever their spaces; SKUs whatever their case, since Azure
//! gives some back in another one. Items of a list belong together by what names them, in any order;
//! a list that we own is owned whole, though a switched-off item of Azure's own is not seen.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::references::reference;
use crate::{azure::resource_manager::is_at_work, ports::infrastructure::Difference};

/// Members that name an item of a list, the first that there is.
const NAMING_MEMBERS: [&str; 3] = ["name", "category", "categoryGroup"];

/// An item that is not there, in a projection. No normal form is an empty list.
const ABSENT: Value = Value::Array(Vec::new());

/// Where a resource stands by what Azure says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Settled,
    /// Somebody writes or deletes it at this moment.
    Changing,
    /// The last write came to nothing.
    Failed(String),
}

/// Reads `provisioningState`; a resource without one is settled.
pub(super) fn standing(actual: &Value) -> Standing {
    if is_at_work(actual) {
        return Standing::Changing;
    }
    match actual.pointer(PROVISIONING_STATE).and_then(Value::as_str) {
        Some(state) if !state.eq_ignore_ascii_case("Succeeded") => Standing::Failed(state.to_owned()),
        Some(_) | None => Standing::Settled,
    }
}

const PROVISIONING_STATE: &str = "/properties/provisioningState";

/// Where `actual` is not as `desired`. A reference that could not be resolved equals whatever is
/// there. A resource whose last write failed differs in that.
pub(super) fn differences(desired: &Value, actual: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(desired, actual, "", &mut found);
    if let Standing::Failed(state) = standing(actual) {
        found.push(Difference {
            path: PROVISIONING_STATE.to_owned(),
            desired: json!("Succeeded"),
            actual: json!(state),
        });
    }
    found
}

fn walk(desired: &Value, actual: &Value, path: &str, found: &mut Vec<Difference>) {
    let differs =
        |path: &str| Difference { path: path.to_owned(), desired: desired.clone(), actual: actual.clone() };
    if reference(desired).is_some() {
        if blank(actual) {
            found.push(differs(path));
        }
        return;
    }
    match (desired, actual) {
        (Value::Object(wanted), Value::Object(_)) if !wanted.is_empty() => {
            for (name, member) in wanted {
                walk(member, member_of(actual, name, path), &child(path, name), found);
            }
        }
        (Value::Array(wanted), Value::Array(there)) => {
            let (pairs, extras) = align(wanted, there);
            if extras.is_empty() && pairs.iter().all(|(_, there)| there.is_some()) {
                for (index, (wanted, there)) in pairs.into_iter().enumerate() {
                    walk(wanted, there.unwrap_or(&Value::Null), &child(path, &index.to_string()), found);
                }
            } else {
                found.push(differs(path));
            }
        }
        _ => {
            if normal(desired, path) != normal(actual, path) {
                found.push(differs(path));
            }
        }
    }
}

/// A hash of the properties that we own as they are, in hex; whether the last write failed is part
/// of it. References play no part: it is the same before and after they are resolved.
pub(super) fn fingerprint(desired: &Value, actual: &Value) -> String {
    let seen = json!([project(desired, actual, ""), matches!(standing(actual), Standing::Failed(_))]);
    Sha256::digest(seen.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What of `actual` the desired body mentions, in one normal form.
fn project(desired: &Value, actual: &Value, path: &str) -> Value {
    match (desired, actual) {
        (Value::Object(wanted), Value::Object(_)) if !wanted.is_empty() => {
            let members = wanted.iter().map(|(name, member)| {
                (name.clone(), project(member, member_of(actual, name, path), &child(path, name)))
            });
            let members: Map<_, _> = members.filter(|(_, member)| !member.is_null()).collect();
            if members.is_empty() { Value::Null } else { Value::Object(members) }
        }
        (Value::Array(wanted), Value::Array(there)) => {
            let (pairs, extras) = align(wanted, there);
            let path = child(path, "-");
            let mut items: Vec<_> = pairs
                .into_iter()
                .map(|(wanted, there)| there.map_or(ABSENT, |there| project(wanted, there, &path)))
                .collect();
            items.extend(extras.into_iter().map(|extra| normal(extra, &path)));
            if items.is_empty() { Value::Null } else { Value::Array(items) }
        }
        _ => normal(actual, path),
    }
}

/// Finds for each wanted item the one that is there, and what is there beside them.
fn align<'a>(
    wanted: &'a [Value],
    there: &'a [Value],
) -> (Vec<(&'a Value, Option<&'a Value>)>, Vec<&'a Value>) {
    let mut rest: Vec<&Value> = there.iter().collect();
    let pairs = wanted.iter().map(|item| {
        let position = match naming(item) {
            Some((member, name)) => rest.iter().position(|other| {
                other
                    .get(member)
                    .and_then(Value::as_str)
                    .is_some_and(|other| other.eq_ignore_ascii_case(name))
            }),
            None => (!rest.is_empty()).then_some(0),
        };
        (item, position.map(|position| rest.remove(position)))
    });
    let pairs = pairs.collect();
    rest.retain(|item| item.get("enabled") != Some(&Value::Bool(false)));
    (pairs, rest)
}

fn naming(item: &Value) -> Option<(&'static str, &str)> {
    NAMING_MEMBERS.iter().find_map(|&member| Some((member, item.get(member)?.as_str()?)))
}

/// The member of this name. Names of tags are the same in any case.
fn member_of<'a>(object: &'a Value, name: &str, path: &str) -> &'a Value {
    let exact = object.get(name);
    let found = match exact {
        None if path == "/tags" => object
            .as_object()
            .and_then(|members| members.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)))
            .map(|(_, member)| member),
        exact => exact,
    };
    found.unwrap_or(&Value::Null)
}

fn child(path: &str, name: &str) -> String {
    format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn blank(value: &Value) -> bool {
    normal(value, "").is_null()
}

/// One form for all that counts as equal. `path` is a JSON pointer and says what a text means.
fn normal(value: &Value, path: &str) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Bool(_) => value.clone(),
        Value::Number(number) => number.as_f64().map_or_else(|| value.clone(), |number| json!(number)),
        Value::String(text) if text.is_empty() => Value::Null,
        Value::String(text) => json!(normal_text(text, path)),
        Value::Array(items) if items.is_empty() => Value::Null,
        Value::Array(items) => {
            let path = child(path, "-");
            items.iter().map(|item| normal(item, &path)).collect()
        }
        Value::Object(members) => {
            let members =
                members.iter().map(|(name, member)| (name.clone(), normal(member, &child(path, name))));
            let mut members: Vec<_> = members.filter(|(_, member)| !member.is_null()).collect();
            members.sort_by(|one, other| one.0.cmp(&other.0));
            if members.is_empty() { Value::Null } else { Value::Object(members.into_iter().collect()) }
        }
    }
}

fn normal_text(text: &str, path: &str) -> String {
    if path.starts_with("/tags/") {
        return text.to_owned();
    }
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("/subscriptions/") {
        lower.trim_end_matches('/').to_owned()
    } else if path.ends_with("/location") {
        lower.replace(' ', "")
    } else if path.contains("/sku/") || Uuid::try_parse(text).is_ok() {
        lower
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths(desired: Value, actual: Value) -> Vec<String> {
        differences(&desired, &actual).into_iter().map(|difference| difference.path).collect()
    }

    #[test]
    fn what_counts_as_equal() {
        for (desired, actual) in [
            (json!({ "location": "westeurope" }), json!({ "location": "West Europe" })),
            (
                json!({ "properties": { "subnet": "/subscriptions/S/resourceGroups/Rg" } }),
                json!({ "properties": { "subnet": "/SUBSCRIPTIONS/s/resourcegroups/rg/" } }),
            ),
            (
                json!({ "principalId": "ABCDEF00-0000-0000-0000-000000000001" }),
                json!({ "principalId": "abcdef00-0000-0000-0000-000000000001" }),
            ),
            (json!({ "sku": { "name": "PerGB2018" } }), json!({ "sku": { "name": "pergb2018" } })),
            (json!({ "a": null, "b": [], "c": {}, "d": "" }), json!({})),
            (json!({ "a": {} }), json!({ "a": [] })),
            (json!({ "a": 1 }), json!({ "a": 1.0 })),
            (json!({ "a": 1 }), json!({ "a": 1, "etag": "x", "systemData": {} })),
            (json!({ "tags": { "cs-a": "1" } }), json!({ "tags": { "CS-A": "1", "theirs": "2" } })),
            (json!({ "a": "${x.y}" }), json!({ "a": "whatever" })),
            (
                json!({ "logs": [{ "category": "a", "enabled": true }, { "category": "b", "enabled": true }] }),
                json!({ "logs": [
                    { "category": "c", "enabled": false },
                    { "category": "b", "enabled": true, "retentionPolicy": null },
                    { "category": "a", "enabled": true },
                ] }),
            ),
        ] {
            assert_eq!(differences(&desired, &actual), [], "{desired} and {actual}");
        }
    }

    #[test]
    fn what_differs_and_where() {
        for (desired, actual, path) in [
            (json!({ "location": "westeurope" }), json!({ "location": "northeurope" }), "/location"),
            (json!({ "tags": { "a": "X" } }), json!({ "tags": { "a": "x" } }), "/tags/a"),
            (json!({ "a": { "b": true } }), json!({}), "/a"),
            (json!({ "a": { "b": true, "c": 1 } }), json!({ "a": { "c": 1 } }), "/a/b"),
            (json!({ "a": [] }), json!({ "a": [1] }), "/a"),
            (json!({ "a": {} }), json!({ "a": { "b": 1 } }), "/a"),
            (json!({ "a": ["x", "y"] }), json!({ "a": ["x"] }), "/a"),
            (json!({ "a": ["x"] }), json!({ "a": ["x", "y"] }), "/a"),
            (json!({ "a": ["x", "y"] }), json!({ "a": ["x", "z"] }), "/a/1"),
            (json!({ "a": [{ "name": "n", "v": 1 }] }), json!({ "a": [{ "name": "n", "v": 2 }] }), "/a/0/v"),
            (json!({ "a": "${x.y}" }), json!({ "a": "" }), "/a"),
            (json!({ "a/b": 1 }), json!({ "a/b": 2 }), "/a~1b"),
        ] {
            assert_eq!(paths(desired.clone(), actual.clone()), [path], "{desired} and {actual}");
        }
    }

    #[test]
    fn a_resource_whose_last_write_failed_differs_in_that() {
        let actual = json!({ "location": "x", "properties": { "provisioningState": "Failed" } });
        assert_eq!(
            differences(&json!({ "location": "x" }), &actual),
            [Difference {
                path: "/properties/provisioningState".into(),
                desired: json!("Succeeded"),
                actual: json!("Failed"),
            }]
        );
        assert_eq!(
            standing(&json!({ "properties": { "provisioningState": "Deleting" } })),
            Standing::Changing
        );
        assert_eq!(standing(&json!({})), Standing::Settled);
    }

    #[test]
    fn the_fingerprint_sees_what_we_own_and_nothing_else() {
        let desired =
            json!({ "location": "westeurope", "tags": { "a": "1" }, "properties": { "p": "${x.y}" } });
        let actual = json!({ "location": "westeurope", "tags": { "a": "2" }, "properties": { "p": "v" } });
        let print = fingerprint(&desired, &actual);
        let with = |change: &dyn Fn(&mut Value)| {
            let mut changed = actual.clone();
            change(&mut changed);
            fingerprint(&desired, &changed)
        };
        assert_eq!(with(&|body| body["etag"] = json!("9")), print);
        assert_eq!(with(&|body| body["tags"]["theirs"] = json!("9")), print);
        assert_eq!(with(&|body| body["location"] = json!("West Europe")), print);
        assert_eq!(with(&|body| body["properties"]["provisioningState"] = json!("Updating")), print);
        assert_ne!(with(&|body| body["tags"]["a"] = json!("3")), print);
        assert_ne!(with(&|body| body["properties"]["p"] = json!("w")), print);
        assert_ne!(with(&|body| body["properties"]["provisioningState"] = json!("Failed")), print);
        let bound = json!({ "location": "westeurope", "tags": { "a": "1" }, "properties": { "p": "other" } });
        assert_eq!(fingerprint(&bound, &actual), print);
    }

    fn body() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(|value| json!(value)),
            any::<i32>().prop_map(|value| json!(value)),
            "[a-cA-C /]{0,4}".prop_map(|value| json!(value)),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[a-c]|name|location|tags", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_body_is_as_itself_whatever_it_is(body in body()) {
            prop_assert_eq!(differences(&body, &body), vec![]);
        }

        #[test]
        fn two_that_do_not_differ_from_the_desired_have_one_fingerprint(desired in body(), actual in body()) {
            let same = fingerprint(&desired, &desired) == fingerprint(&desired, &actual);
            prop_assert_eq!(same, differences(&desired, &actual).is_empty());
        }
    }
}
