//! The README's tables: every function and every event has its row, with what calls it and links that
//! lead somewhere.

use std::path::Path;

use runtime_platform::{
    events::EVENTS,
    functions::{self, Trigger},
};

/// The row of a table that begins with a name, with a second link or more.
fn row(readme: &str, name: &str) -> Option<String> {
    let begins = format!("| `{name}`");
    let rows = readme.lines().filter(|line| line.starts_with(&begins));
    rows.into_iter().find(|line| line.matches("](").count() >= 2).map(str::to_owned)
}

fn links(row: &str) -> Vec<String> {
    row.split("](").skip(1).map(|rest| rest.split(')').next().unwrap_or_default().to_owned()).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_function_has_a_row_that_says_what_calls_it() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut problems = Vec::new();
    for function in functions::all() {
        let Some(row) = row(&readme, function.name) else {
            problems.push(format!("{} has no row with its file and its test", function.name));
            continue;
        };
        let called: Vec<String> = match &function.trigger {
            Trigger::Queue(queue) => vec![queue.clone()],
            Trigger::Subscription { topic, subscription } => {
                vec![(*topic).to_owned(), (*subscription).to_owned()]
            }
            Trigger::Timer(schedule) => vec![(*schedule).to_owned()],
            Trigger::Http { method, route } => vec![method.to_uppercase(), (*route).to_owned()],
        };
        problems.extend(
            called
                .iter()
                .filter(|what| !row.contains(what.as_str()))
                .map(|what| format!("the row of {} does not say `{what}`", function.name)),
        );
        problems.extend(
            links(&row)
                .iter()
                .filter(|link| !root().join(link).is_file())
                .map(|link| format!("the row of {} links to {link}, which is not there", function.name)),
        );
    }
    assert_eq!(problems, Vec::<String>::new());
}

#[test]
fn every_event_has_a_row_whose_file_makes_it() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut problems = Vec::new();
    for event in EVENTS {
        let Some(row) = row(&readme, event) else {
            problems.push(format!("{event} has no row with its producer's file and its test"));
            continue;
        };
        let read = |link: &String| std::fs::read_to_string(root().join(link)).unwrap_or_default();
        let links = links(&row);
        let made = format!("Event::{event}(");
        if !read(&links[0]).contains(&made) {
            problems.push(format!("{} does not make {event}", links[0]));
        }
        if links.iter().any(|link| !root().join(link).is_file()) {
            problems.push(format!("the row of {event} has a link that leads nowhere"));
        }
    }
    assert_eq!(problems, Vec::<String>::new());
}
