//! Rules that no compiler checks: who may import whom, who may write and send, and how files look.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The longest file, in lines.
const LINES_MAX: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

struct Source {
    /// Below the package's folder.
    path: String,
    text: String,
}

impl Source {
    /// The part before the tests that stand under the code.
    fn product(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 5, "the sources are not where they are looked for");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn none(problems: Vec<String>) {
    assert!(problems.is_empty(), "{problems:#?}");
}

/// Lines of code that contain one of some texts, as `path:line`.
fn lines_with<'a>(
    source: &'a Source,
    text: &'a str,
    parts: &'a [&'a str],
) -> impl Iterator<Item = String> + 'a {
    text.lines().enumerate().filter_map(move |(number, line)| {
        let code = line.trim_start();
        let found = !code.starts_with("//") && parts.iter().any(|part| line.contains(part));
        found.then(|| format!("{}:{}: {}", source.path, number + 1, code))
    })
}

#[test]
fn services_know_neither_azure_nor_this_machine_nor_http() {
    let forbidden = ["crate::azure", "crate::local", "axum", "azure::", "local::", "reqwest"];
    let services = sources(&["handlers/services"]);
    none(services.iter().flat_map(|source| lines_with(source, source.product(), &forbidden)).collect());
}

#[test]
fn only_the_ledger_commits() {
    let allowed = ["handlers/ledger.rs"];
    let mut problems = Vec::new();
    for source in sources(&["handlers"]) {
        let below_the_port =
            source.path.starts_with("handlers/local/") || source.path.starts_with("handlers/azure/");
        if allowed.contains(&source.path.as_str()) || below_the_port || source.is_test() {
            continue;
        }
        // A call may be broken over lines.
        let joined: String = source.product().split_whitespace().collect();
        if joined.contains("store.commit(") {
            problems.push(format!("{}: commits to the store; go through the ledger", source.path));
        }
        let holds_a_store =
            source.product().contains("dyn Store") && source.path != "handlers/bin/handler.rs";
        if holds_a_store && source.path != "handlers/ports/store.rs" {
            problems.push(format!("{}: holds a store; go through the ledger", source.path));
        }
    }
    none(problems);
}

#[test]
fn only_these_send_to_the_bus() {
    let allowed = [
        "handlers/outbox_relay.rs",
        "handlers/delivery/sent_on.rs",
        "handlers/operations.rs",
        "handlers/admin/resume_operations.rs",
        "handlers/sweeps.rs",
    ];
    let mut problems = Vec::new();
    for source in sources(&["handlers"]) {
        let client =
            source.path.starts_with("handlers/bin/runtimectl/") || source.path.starts_with("handlers/local/");
        if allowed.contains(&source.path.as_str()) || client || source.is_test() {
            continue;
        }
        // A call may be broken over lines: `platform\n.bus\n.send(`.
        let joined: String = source.product().split_whitespace().collect();
        if joined.contains(".bus.send(") {
            problems
                .push(format!("{}: sends to the bus; record a message in the outbox instead", source.path));
        }
    }
    none(problems);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut problems = Vec::new();
    for source in sources(&["handlers", "tests"]) {
        let doc = source.text.lines().next().unwrap_or_default();
        let beside_its_code = source.path.starts_with("handlers/") && source.is_test();
        if !beside_its_code && (!doc.starts_with("//! ") || doc.len() < 12) {
            problems.push(format!("{}: begins with no sentence about itself", source.path));
        }
    }
    none(problems);
}

#[test]
fn no_file_is_too_long_to_read() {
    let long = |source: &Source| {
        let lines = source.text.lines().count();
        (lines > LINES_MAX)
            .then(|| format!("{}: {lines} lines, {LINES_MAX} are enough: split it by its nouns", source.path))
    };
    none(sources(&["handlers", "tests"]).iter().filter_map(long).collect());
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let marks: Vec<String> =
        [("TO", "DO"), ("FIX", "ME"), ("todo", "!("), ("unimplemented", "!("), ("#[ig", "nore")]
            .iter()
            .map(|(a, b)| format!("{a}{b}"))
            .collect();
    let mut problems = Vec::new();
    for source in sources(&["handlers", "tests"]) {
        for (number, line) in source.text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(mark.as_str())) {
                problems.push(format!("{}:{}: {mark}", source.path, number + 1));
            }
        }
    }
    none(problems);
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    let paths: Vec<String> = [("/ro", "ot/"), ("/wo", "rk/"), ("/ho", "me/"), ("/Us", "ers/")]
        .iter()
        .map(|(a, b)| format!("\"{a}{b}"))
        .collect();
    let mut problems = Vec::new();
    for source in sources(&["handlers", "tests"]) {
        for (number, line) in source.text.lines().enumerate() {
            if paths.iter().any(|path| line.contains(path.as_str())) {
                problems.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    none(problems);
}

#[test]
fn the_library_forbids_unsafe_code() {
    let lib = fs::read_to_string(root().join("handlers/lib.rs")).unwrap();
    assert!(lib.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn a_panic_needs_a_reason_in_the_product() {
    let parts = [".unwrap()"];
    let mut problems = Vec::new();
    for source in sources(&["handlers"]) {
        let testing = source.path.ends_with("/testing.rs") || source.path.ends_with("/stand_in.rs");
        if !source.is_test() && !testing {
            problems.extend(lines_with(&source, source.product(), &parts).collect::<Vec<_>>());
        }
    }
    none(problems);
}

/// The features of every package of the build, with or without what only tests need.
fn features(edges: &str) -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args([
            "tree",
            "--offline",
            "--locked",
            "--prefix",
            "none",
            "--no-dedupe",
            "--format",
            "{p}|{f}",
            "-e",
            edges,
        ])
        .output()
        .expect("cargo runs these tests, so it can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut features = BTreeMap::<String, BTreeSet<String>>::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some((package, list)) = line.trim_end_matches(" (*)").split_once('|') {
            let package = package.trim_end_matches(" (*)").to_owned();
            features
                .entry(package)
                .or_default()
                .extend(list.split(',').map(|feature| feature.trim().to_owned()));
        }
    }
    features
}

#[test]
fn what_tests_need_adds_no_feature_to_what_the_product_needs() {
    let (normal, with_tests) = (features("normal,build"), features("normal,build,dev"));
    assert!(normal.len() > 50, "the tree was not read: {normal:?}");
    let mut problems = Vec::new();
    for (package, product) in &normal {
        let added: Vec<_> =
            with_tests[package].difference(product).filter(|feature| !feature.is_empty()).collect();
        if !added.is_empty() {
            problems.push(format!("{package} gets {added:?} from a dependency of tests: the demo and the tests would build it twice"));
        }
    }
    none(problems);
}

#[test]
fn every_setting_of_the_host_is_json() {
    for file in ["host.json", "local.settings.json", "infra/messaging.json"] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}
