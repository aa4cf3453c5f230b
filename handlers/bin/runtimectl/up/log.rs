//! The platform's log file: what the handler writes, as it writes it, and what the host and the
//! stand-ins have to tell, as JSON lines of the same form.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use serde_json::json;

use crate::failure::Failure;

/// The size at which the file is put aside and a new one begun, in bytes.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Cheap to clone.
#[derive(Clone)]
pub struct Log {
    path: Arc<PathBuf>,
    file: Arc<Mutex<File>>,
}

impl Log {
    pub fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self { path: Arc::new(path.to_owned()), file: Arc::new(Mutex::new(append(path)?)) })
    }

    /// A line that is JSON already.
    pub fn line(&self, line: &str) {
        let mut file = self.file.lock().expect("nobody panics while holding the log");
        if file.metadata().is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
            // One older file is kept. A log that cannot be moved is written on.
            let _ = fs::rename(&*self.path, self.path.with_extension("old.jsonl"));
            if let Ok(new) = append(&self.path) {
                *file = new;
            }
        }
        // A full disk must not stop the platform from saying so elsewhere.
        let _ = writeln!(file, "{line}");
    }

    /// Something that a part of this machine's platform has to tell.
    pub fn tell(&self, level: &str, target: &str, message: &str) {
        let now = jiff::Timestamp::now().to_string();
        self.line(
            &json!({ "timestamp": now, "level": level, "message": message, "target": target }).to_string(),
        );
    }
}

fn append(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| Failure::unusable(format!("Cannot write {}", path.display())).because(&error))
}
