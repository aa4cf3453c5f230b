//! What is posted to the handler, for each kind of trigger.

mod http;
mod message;
mod timer;

pub(super) use http::{HttpCall, http};
pub(super) use message::message;
pub(super) use timer::{ScheduleStatus, timer};

/// The goldens: what a real host posted, or its source says that it would post.
#[cfg(test)]
mod golden {
    use std::{fs, path::Path};

    /// Compares with `tests/golden/invocations/<name>.json`, where blanks between lines do not count.
    pub fn compare(name: &str, body: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden/invocations")
            .join(format!("{name}.json"));
        let golden = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let golden: String = golden.lines().map(str::trim_start).collect();
        assert_eq!(body, golden, "{}", file.display());
    }
}
