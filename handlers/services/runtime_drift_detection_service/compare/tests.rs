use proptest::{collection::btree_map, prelude::*, test_runner::Config};
use serde_json::json;

use super::*;
use crate::services::runtime_drift_detection_service::schema::{RESOURCE, WORKLOAD};

fn paths(found: &[Difference]) -> Vec<(&str, How, Because)> {
    found.iter().map(|found| (found.path.as_str(), found.how, found.because)).collect()
}

#[test]
fn only_what_is_desired_is_ours_and_what_means_the_same_is_the_same() {
    let properties = |value: Value| json!({ "properties": value });
    for (desired, actual) in [
        (json!({ "a": 1 }), json!({ "a": 1.0, "b": 2 })),
        (json!({ "location": "westeurope" }), json!({ "location": "West Europe" })),
        (json!({ "id": "/subscriptions/S/x" }), json!({ "id": "/Subscriptions/s/X" })),
        (
            properties(json!({ "cpu": 0.5, "memory": "1Gi" })),
            properties(json!({ "cpu": "500m", "memory": "1024Mi" })),
        ),
        (properties(json!({ "zones": ["1", "2"] })), properties(json!({ "zones": ["2", "1"] }))),
        (properties(json!({ "allowInsecure": "false" })), properties(json!({}))),
        (json!({ "tags": {}, "x": null, "y": [], "z": "" }), json!({})),
        (json!({ "etag": "1", "properties": { "provisioningState": "Succeeded" } }), json!({ "etag": "2" })),
        (
            properties(json!({ "containers": [{ "name": "a", "image": "i" }, { "name": "b", "cpu": 1 }] })),
            properties(
                json!({ "containers": [{ "name": "b", "cpu": 1 }, { "name": "a", "image": "i", "x": [1] }] }),
            ),
        ),
    ] {
        let found = compare(&RESOURCE, &desired, None, &actual);
        assert!(found.is_empty(), "{desired} {actual}: {found:?}");
    }
}

#[test]
fn each_difference_has_its_path_and_its_cause() {
    use Because::{ExternalChange, Orphan, PendingApply};
    use How::{Changed, Missing, Unexpected};
    let traffic = json!([{ "revisionName": "r", "weight": 100 }]);
    let desired = json!({ "image": "i:2", "env": { "A": "1", "B": "2" }, "traffic": traffic });
    let last = json!({ "image": "i:1", "env": { "A": "1", "B": "2", "OLD": "x" } });
    let rolled_out_last = json!({ "image": "i:1", "env": { "A": "1", "B": "2" }, "traffic": traffic });
    let meddled = json!({ "image": "i:3", "env": { "A": "9", "OLD": "x", "NEW": "y" }, "traffic": traffic });
    for (actual, expected) in [
        (rolled_out_last, vec![("/image", Changed, PendingApply)]),
        (
            meddled,
            vec![
                ("/env/A", Changed, ExternalChange),
                ("/env/B", Missing, ExternalChange),
                ("/env/NEW", Unexpected, ExternalChange),
                ("/env/OLD", Unexpected, Orphan),
                ("/image", Changed, ExternalChange),
            ],
        ),
    ] {
        assert_eq!(paths(&compare(&WORKLOAD, &desired, Some(&last), &actual)), expected, "{actual}");
    }
    // What is ours alone is ours even where nothing is desired.
    let nothing = json!({ "rules": null, "configuration": null });
    let something = json!({ "rules": [{ "name": "cpu" }], "configuration": "3" });
    let found = compare(&WORKLOAD, &nothing, None, &something);
    assert_eq!(
        paths(&found),
        [("/configuration", Unexpected, ExternalChange), ("/rules/cpu", Unexpected, ExternalChange)]
    );
}

#[test]
fn values_of_variables_and_long_values_are_told_by_their_digest() {
    let desired = json!({ "env": { "DB": "hunter2" }, "image": "x".repeat(2000) });
    let found = compare(&WORKLOAD, &desired, None, &json!({ "env": { "DB": "hunter3" }, "image": "y" }));
    let told = format!("{found:?}");
    assert!(!told.contains("hunter") && !told.contains("xxxx"), "{told}");
    assert_ne!(found[0].desired, found[0].actual, "that they differ is told");
}

/// A workload as it is desired.
fn workload() -> impl Strategy<Value = Value> {
    let names = || "[A-Z][A-Z_~/]{0,6}";
    let urls = btree_map(names(), "https://[a-z]{1,5}/[a-z0-9]{4}", 0..3);
    (
        ("[a-z]{1,8}:[0-9]{1,3}", btree_map(names(), "[a-zA-Z0-9]{1,6}", 1..5), urls),
        (proptest::option::of("[1-9]"), 1..8_u32, 1..64_u32, 1..5_u32, 5..30_u32),
        (any::<bool>(), 1..9000_u16, btree_map("cs-[a-z]{2,6}", "[a-z]{1,6}", 1..4)),
    )
        .prop_map(
            |((image, env, secrets), (configuration, quarters, gib, min, max), (external, port, tags))| {
                json!({
                    "image": image, "env": env, "secrets": secrets, "configuration": configuration,
                    "cpu": f64::from(quarters) / 4.0, "memory": format!("{gib}Gi"),
                    "minReplicas": min, "maxReplicas": max,
                    "rules": [{ "name": "http", "http": { "metadata": { "concurrentRequests": "50" } } }],
                    "traffic": [{ "revisionName": "app--d1", "weight": 100 }],
                    "ingress": { "external": external, "port": port, "allowInsecure": false },
                    "tags": tags,
                })
            },
        )
}

/// The same as a server gives it back: other spellings, defaults left out, more beside it.
fn as_given_back(desired: &Value) -> Value {
    let mut actual = desired.clone();
    let millis = desired["cpu"].as_f64().unwrap() * 1000.0;
    actual["cpu"] = json!(format!("{millis}m"));
    let gib: u64 = desired["memory"].as_str().unwrap().trim_end_matches("Gi").parse().unwrap();
    actual["memory"] = json!(format!("{}Mi", gib * 1024));
    actual["ingress"].as_object_mut().unwrap().remove("allowInsecure");
    actual["ingress"]["transport"] = json!("Auto");
    actual["tags"]["owner"] = json!("somebody");
    actual["replicas"] = json!(7);
    actual["systemData"] = json!({ "lastModifiedBy": "x" });
    for (_, url) in actual["secrets"].as_object_mut().unwrap() {
        *url = json!(url.as_str().unwrap().to_uppercase());
    }
    actual
}

/// Every owned leaf: a pointer into the document, and the path that is told.
fn leaves(value: &Value, pointer: &str, told: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (name, inner) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                leaves(inner, &format!("{pointer}/{name}"), &format!("{told}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                let key = item.get("name").or(item.get("revisionName")).and_then(Value::as_str).unwrap();
                // Another key is another item.
                let others = item.as_object().unwrap().iter();
                for (name, inner) in others.filter(|(_, inner)| inner.as_str() != Some(key)) {
                    leaves(
                        inner,
                        &format!("{pointer}/{place}/{name}"),
                        &format!("{told}/{key}/{name}"),
                        found,
                    );
                }
            }
        }
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            found.push((pointer.to_owned(), told.to_owned()))
        }
    }
}

fn another(pointer: &str, value: &Value) -> Value {
    match value {
        _ if pointer == "/memory" || pointer == "/cpu" => json!("17"),
        Value::Bool(flag) => json!(!flag),
        Value::Number(number) => json!(number.as_f64().unwrap() + 1.0),
        Value::String(text) => json!(format!("{text}-other")),
        Value::Null | Value::Array(_) | Value::Object(_) => panic!("{value} is no leaf"),
    }
}

proptest! {
    #![proptest_config(Config { cases: 128, failure_persistence: None, ..Config::default() })]

    #[test]
    fn what_a_server_gives_back_never_drifts(desired in workload()) {
        let found = compare(&WORKLOAD, &desired, Some(&desired), &as_given_back(&desired));
        prop_assert!(found.is_empty(), "{:?}", found);
    }

    #[test]
    fn a_change_at_any_owned_path_is_found_there_and_nowhere_else(
        desired in workload(),
        which in any::<prop::sample::Index>(),
    ) {
        let mut owned = Vec::new();
        leaves(&desired, "", "", &mut owned);
        let (pointer, path) = which.get(&owned);
        let mut actual = as_given_back(&desired);
        let changed = another(pointer, desired.pointer(pointer).unwrap());
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let name = name.replace("~1", "/").replace("~0", "~");
        actual.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(name, changed);
        let found = compare(&WORKLOAD, &desired, Some(&desired), &actual);
        prop_assert_eq!(paths(&found), vec![(path.as_str(), How::Changed, Because::ExternalChange)]);
    }

    #[test]
    fn whatever_is_added_where_all_is_ours_is_found(desired in workload(), name in "[a-z]{1,5}") {
        let mut actual = as_given_back(&desired);
        actual["env"][&name] = json!("added");
        let path = format!("/env/{name}");
        let found = compare(&WORKLOAD, &desired, Some(&desired), &actual);
        prop_assert_eq!(paths(&found), vec![(path.as_str(), How::Unexpected, Because::ExternalChange)]);
        // What we added ourselves and want no more is no drift.
        let found = compare(&WORKLOAD, &desired, Some(&actual), &actual);
        prop_assert_eq!(paths(&found), vec![(path.as_str(), How::Unexpected, Because::Orphan)]);
    }
}
