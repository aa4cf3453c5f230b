//! The settings that the handler reads and those of `local.settings.json` are the same, both ways.

use std::collections::{BTreeMap, BTreeSet};

use runtime_platform::config::{Config, SETTINGS};
use serde_json::Value;

/// What Azure's host, not the handler, reads.
const OF_THE_HOST: [&str; 3] = ["AzureWebJobsStorage", "FUNCTIONS_WORKER_RUNTIME", "ServiceBus"];

fn local() -> BTreeMap<String, String> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/local.settings.json");
    let settings: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let values = settings["Values"].as_object().expect("local.settings.json has Values");
    let text = |value: &Value| value.as_str().expect("a setting is a text, as the host wants it").to_owned();
    values.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

#[test]
fn every_setting_is_in_the_file_and_every_entry_is_a_setting() {
    let known: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.name).chain(OF_THE_HOST).collect();
    let local = local();
    let found: BTreeSet<_> = local.keys().map(String::as_str).collect();
    let missing: Vec<_> = known.difference(&found).collect();
    let strange: Vec<_> = found.difference(&known).collect();
    assert!(
        missing.is_empty() && strange.is_empty(),
        "local.settings.json lacks {missing:?}, and has {strange:?} that no setting of config.rs reads"
    );
}

#[test]
fn the_file_is_good_as_it_is() {
    Config::read(&local()).unwrap();
}

#[test]
fn a_default_that_is_written_down_is_the_default() {
    // What the file leaves to `config.rs` and what it repeats must not drift apart by accident: the
    // credential, the wire format and the log level are the same in both places.
    let local = local();
    for setting in SETTINGS
        .iter()
        .filter(|setting| ["AZURE_CREDENTIAL", "WIRE_FORMAT", "LOG_LEVEL"].contains(&setting.name))
    {
        assert_eq!(local.get(setting.name).map(String::as_str), setting.default, "{}", setting.name);
    }
}

#[test]
fn no_setting_is_listed_twice_or_without_a_meaning() {
    let names: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.name).collect();
    assert_eq!(names.len(), SETTINGS.len());
    assert!(SETTINGS.iter().all(|setting| setting.meaning.ends_with('.')));
}
