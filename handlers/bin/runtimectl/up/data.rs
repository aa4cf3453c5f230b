//! The data directory: who holds it, which form it has, its keys, and the context for other commands.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::failure::Failure;

/// The form of the directory. A newer one is not touched.
const FORM: u32 = 1;

/// A data directory that this process holds. Whoever else wants it is told so.
pub struct Data {
    pub directory: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

/// Secrets of this machine's platform.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// Signs tokens of the identity endpoint; 32 bytes in hex.
    pub token_key: String,
    /// What callers of the identity endpoint send.
    pub identity_header: String,
    /// Signs shared access signatures.
    pub service_bus_key: String,
    /// Opens the HTTP functions.
    pub function_key: String,
}

/// What other commands need to talk to this platform; `context.json`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContextFile {
    pub name: String,
    pub functions_endpoint: String,
    pub function_key: String,
    pub service_bus_connection_string: String,
    pub service_bus_endpoint: String,
    pub resource_manager_endpoint: String,
    pub ingress_endpoint: String,
    pub identity_endpoint: String,
    /// Under it are the vaults; empty in a context that an older version wrote.
    #[serde(default)]
    pub vault_endpoint: String,
    /// Where every container registry is reached; empty in a context that an older version wrote.
    #[serde(default)]
    pub registry_endpoint: String,
    pub root_certificate: PathBuf,
    pub data_directory: PathBuf,
    pub log_file: PathBuf,
    pub tenant: String,
}

/// A directory that goes with its owner.
pub struct Temporary(PathBuf);

impl Temporary {
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves the directory behind.
    pub fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            // What cannot be deleted is the system's to clear away.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// Makes a directory of its own among the system's temporary ones.
pub fn temporary() -> Result<Temporary, Failure> {
    let path = std::env::temp_dir().join(format!("runtime-{}", uuid::Uuid::new_v4().simple()));
    fs::create_dir_all(&path).map_err(|error| {
        Failure::unusable(format!("Cannot make the directory {}", path.display())).because(&error)
    })?;
    Ok(Temporary(path))
}

impl Data {
    /// Takes the directory, making it where there is none.
    ///
    /// # Errors
    /// When another `up` holds it, or a newer version made it.
    pub fn open(directory: &Path) -> Result<Self, Failure> {
        let cannot = |path: &Path| format!("Cannot use {}", path.display());
        fs::create_dir_all(directory).map_err(|error| {
            Failure::unusable(cannot(directory)).because(&error).advice("Name another directory with --data.")
        })?;
        let directory =
            directory.canonicalize().map_err(|error| Failure::unusable(cannot(directory)).because(&error))?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))
            .map_err(|error| Failure::unusable(cannot(&directory)).because(&error))?;
        let path = directory.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| Failure::unusable(cannot(&path)).because(&error))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            // Who holds it is told where it is known.
            let _ = lock.read_to_string(&mut holder);
            return Err(Failure::unusable(format!(
                "{} is in use by another `runtimectl up` (process {})",
                directory.display(),
                if holder.trim().is_empty() { "unknown" } else { holder.trim() }
            ))
            .advice("Stop that one, or name another directory with --data."));
        }
        let write = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            write!(lock, "{}", std::process::id())
        };
        write(&mut lock).map_err(|error| Failure::unusable(cannot(&path)).because(&error))?;
        let data = Self { directory, _lock: lock };
        data.check_form()?;
        Ok(data)
    }

    fn check_form(&self) -> Result<(), Failure> {
        let path = self.directory.join("form");
        match fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse::<u32>() {
                Ok(form) if form <= FORM => Ok(()),
                Ok(form) => Err(Failure::unusable(format!(
                    "{} was made by a newer version (form {form}, this version reads up to {FORM})",
                    self.directory.display()
                ))
                .advice("Use the newer version, or name another directory with --data.")),
                Err(_) => Err(Failure::unusable(format!(
                    "{} holds `{}`, which is no form",
                    path.display(),
                    text.trim()
                ))
                .advice("It is not a data directory of this program; name another one with --data.")),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => fs::write(&path, FORM.to_string())
                .map_err(|error| {
                    Failure::unusable(format!("Cannot write {}", path.display())).because(&error)
                }),
            Err(error) => Err(Failure::unusable(format!("Cannot read {}", path.display())).because(&error)),
        }
    }

    /// The keys of this directory, made at its first use.
    pub fn keys(&self) -> Result<Keys, Failure> {
        let path = self.directory.join("keys.json");
        if let Ok(text) = fs::read_to_string(&path) {
            return serde_json::from_str(&text).map_err(|error| {
                Failure::unusable(format!("{} cannot be read", path.display()))
                    .because(&error)
                    .advice("Delete the file; new keys are made.")
            });
        }
        let keys = Keys {
            token_key: random_hex(),
            identity_header: random_hex(),
            service_bus_key: random_hex(),
            function_key: random_hex(),
        };
        self.write_private("keys.json", &keys)?;
        Ok(keys)
    }

    /// Writes a file that only its owner reads.
    pub fn write_private<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Failure> {
        let path = self.directory.join(name);
        let draft = self.directory.join(format!("{name}.new"));
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::unusable(format!("Cannot write {}", path.display())).because(&error))?;
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&draft, &path)
        };
        write().map_err(|error| Failure::unusable(format!("Cannot write {}", path.display())).because(&error))
    }

    /// The context that an earlier `up` left, for its ports.
    pub fn last_context(&self) -> Option<ContextFile> {
        serde_json::from_str(&fs::read_to_string(self.directory.join("context.json")).ok()?).ok()
    }
}

impl Keys {
    pub fn token_key(&self) -> [u8; 32] {
        Sha256::digest(self.token_key.as_bytes()).into()
    }
}

/// 256 bits from the system's random numbers.
fn random_hex() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}
