//! The list of functions and the files that the host reads are the same, both ways.

use std::{collections::BTreeSet, env, fs, path::Path};

use runtime_platform::{
    events::COMMANDS,
    functions::{self, Trigger},
};

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/functions"))
}

#[test]
fn every_function_has_its_file_and_every_file_its_function() {
    let update = env::var_os("UPDATE_EXPECT").is_some();
    let mut problems = Vec::new();
    let mut known = BTreeSet::new();
    for function in functions::all() {
        known.insert(function.name.to_owned());
        let file = folder().join(function.name).join("function.json");
        let wanted = serde_json::to_string_pretty(&function.json()).unwrap() + "\n";
        let found = fs::read_to_string(&file).unwrap_or_default();
        if found == wanted {
            continue;
        }
        if update {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, wanted).unwrap();
        } else {
            problems.push(format!("functions/{}/function.json is not what functions.rs says", function.name));
        }
    }
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !known.contains(&name) {
            problems.push(format!("functions/{name} is no function of functions.rs; delete it"));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}\nUPDATE_EXPECT=1 cargo test writes the files");
}

#[test]
fn every_function_has_a_name_of_its_own() {
    let all = functions::all();
    let names: BTreeSet<_> = all.iter().map(|function| function.name).collect();
    assert_eq!(names.len(), all.len());
}

#[test]
fn every_command_can_be_posted() {
    let all = functions::all();
    for function in all.iter().filter(|function| COMMANDS.contains(&function.name)) {
        let name = format!("Post{}", function.name);
        let is_it = |it: &functions::Function| {
            it.name == name && matches!(it.trigger, Trigger::Http { method: "post", .. })
        };
        assert!(all.iter().any(is_it), "{} has no HTTP function {name}", function.name);
    }
}
