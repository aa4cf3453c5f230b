//! Which platform a command talks to: a small file with endpoints and keys, readable by its owner
//! alone. `runtimectl up` writes one; one for Azure is written by hand.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    cli::Connection,
    failure::Failure,
    output::{Out, Tint},
};

/// Where `runtimectl up` puts its context, in its data directory.
const FILE_NAME: &str = "context.json";
/// The data directory that is looked for upwards.
const DATA_DIRECTORY: &str = ".runtime";
/// No context is longer, in bytes.
const CONTEXT_BYTES_MAX: u64 = 64 * 1024;

/// Endpoints and keys of one platform. Its `Debug` shows no key.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Context {
    /// What it is called, e.g. `local`.
    #[serde(default)]
    pub name: String,
    /// Where the HTTP functions are, e.g. `http://127.0.0.1:7071`.
    pub functions_endpoint: String,
    #[serde(default)]
    pub function_key: Option<String>,
    /// Without one, the login of Azure's own tools is used.
    #[serde(default)]
    pub service_bus_connection_string: Option<String>,
    /// Where Service Bus speaks REST, if not where the connection string says.
    #[serde(default)]
    pub service_bus_endpoint: Option<String>,
    /// A certificate authority to trust beside the usual ones.
    #[serde(default)]
    pub root_certificate: Option<PathBuf>,
    /// The platform's log, where it is on this machine.
    #[serde(default)]
    pub log_file: Option<PathBuf>,
    /// Whom to ask for when nobody else is named.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The file that all this was read from.
    #[serde(skip)]
    pub file: PathBuf,
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Context")
            .field("name", &self.name)
            .field("functions_endpoint", &self.functions_endpoint)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// The context that a command line asks for; what a person should know of it is said.
    ///
    /// # Errors
    /// As [`Context::find`].
    pub fn open(connection: &Connection, out: &Out) -> Result<Self, Failure> {
        let (context, warnings) = Self::find(connection)?;
        for warning in warnings {
            out.note(&format!("{} {warning}", out.paint_note(Tint::Yellow, "warning:")));
        }
        Ok(context)
    }

    /// Finds and reads the context that a command line asks for. Warnings are for a person.
    ///
    /// # Errors
    /// When there is none, or none that can be used.
    pub fn find(connection: &Connection) -> Result<(Self, Vec<String>), Failure> {
        let here = env::current_dir()
            .map_err(|error| Failure::unusable("Cannot tell which folder this is").because(&error))?;
        let named = connection.context.as_deref().filter(|text| !text.is_empty());
        let file = locate(named, &here, home().as_deref())?;
        Self::read(&file)
    }

    /// Reads one context file.
    ///
    /// # Errors
    /// When the file cannot be read, or is no context.
    pub fn read(file: &Path) -> Result<(Self, Vec<String>), Failure> {
        let about = || format!("Cannot read the context `{}`", file.display());
        let metadata = fs::metadata(file).map_err(|error| unreadable(&about(), file, &error))?;
        if metadata.len() > CONTEXT_BYTES_MAX {
            return Err(Failure::unusable(format!("{}: it has {} bytes", about(), metadata.len()))
                .advice(format!("a context is a small JSON file of at most {CONTEXT_BYTES_MAX} bytes")));
        }
        let text = fs::read_to_string(file).map_err(|error| unreadable(&about(), file, &error))?;
        let mut context: Self = serde_json::from_str(&text).map_err(|error| {
            Failure::unusable(about()).because(&error).advice(
                "a context needs at least `functionsEndpoint`; stop and start `runtimectl up` to have it written anew",
            )
        })?;
        let folder = file.parent().unwrap_or(Path::new("."));
        for path in [&mut context.root_certificate, &mut context.log_file].into_iter().flatten() {
            *path = folder.join(&path);
        }
        context.functions_endpoint = context.functions_endpoint.trim_end_matches('/').to_owned();
        context.file = file.to_owned();
        Ok((context, warnings(file, &metadata)))
    }

    /// In whose name to ask: the command line's tenant, else the context's.
    ///
    /// # Errors
    /// When neither names one.
    pub fn tenant(&self, connection: &Connection) -> Result<String, Failure> {
        connection
            .tenant
            .clone()
            .or_else(|| self.tenant.clone())
            .filter(|tenant| !tenant.is_empty())
            .ok_or_else(|| {
                Failure::unusable("No tenant is named")
                    .advice("pass --tenant, set RUNTIME_TENANT, or write `tenant` into the context")
            })
    }
}

fn unreadable(about: &str, file: &Path, error: &io::Error) -> Failure {
    let failure = Failure::unusable(about).because(error);
    if error.kind() == io::ErrorKind::NotFound {
        failure.advice("start the platform with `runtimectl up`, or name another with --context")
    } else {
        failure.advice(format!("see to it that you can read `{}`", file.display()))
    }
}

#[cfg(unix)]
fn warnings(file: &Path, metadata: &fs::Metadata) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt;
    if metadata.permissions().mode() & 0o077 == 0 {
        return Vec::new();
    }
    vec![format!("`{0}` holds keys and others can read it: run `chmod 600 {0}`", file.display())]
}

#[cfg(not(unix))]
fn warnings(_: &Path, _: &fs::Metadata) -> Vec<String> {
    Vec::new()
}

fn home() -> Option<PathBuf> {
    env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".config")))
}

/// The file of the context `named`, or the nearest one from `here` upwards.
fn locate(named: Option<&str>, here: &Path, configuration: Option<&Path>) -> Result<PathBuf, Failure> {
    let nearest = here
        .ancestors()
        .map(|folder| folder.join(DATA_DIRECTORY))
        .find(|folder| folder.join(FILE_NAME).is_file());
    let Some(named) = named else {
        return nearest.map(|folder| folder.join(FILE_NAME)).ok_or_else(|| {
            Failure::unusable(format!(
                "No platform is named, and there is no `{DATA_DIRECTORY}/{FILE_NAME}` in `{}` or above",
                here.display()
            ))
            .advice("start one with `runtimectl up`, or name one with --context FILE or RUNTIME_CONTEXT")
        });
    };
    let file = here.join(named);
    if file.is_file() {
        return Ok(file);
    }
    if file.is_dir() {
        return Ok(file.join(FILE_NAME));
    }
    if named.contains(['/', '\\']) || named.ends_with(".json") {
        return Err(Failure::unusable(format!("There is no context file `{}`", file.display()))
            .advice("start the platform with `runtimectl up`, or name another file"));
    }
    let mut candidates = Vec::new();
    if let Some(folder) = &nearest {
        candidates.push(folder.join("contexts").join(format!("{named}.json")));
    }
    if let Some(folder) = configuration {
        candidates.push(folder.join("runtimectl").join("contexts").join(format!("{named}.json")));
    }
    candidates.iter().find(|candidate| candidate.is_file()).cloned().ok_or_else(|| {
        let places =
            candidates.iter().map(|place| format!("`{}`", place.display())).collect::<Vec<_>>().join(" nor ");
        Failure::unusable(format!(
            "There is no context named `{named}`: neither a file of that name, nor {places}"
        ))
        .advice("name a file with --context FILE, or put one there")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_context_upwards_is_taken_unless_one_is_named() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let Err(Failure::Told { what, advice: Some(advice), .. }) = locate(None, &deep, None) else {
            panic!()
        };
        assert!(what.starts_with("No platform is named"), "{what}");
        assert!(advice.contains("runtimectl up"), "{advice}");

        let data = root.path().join(DATA_DIRECTORY);
        fs::create_dir_all(data.join("contexts")).unwrap();
        fs::write(data.join(FILE_NAME), "{}").unwrap();
        fs::write(data.join("contexts/azure.json"), "{}").unwrap();
        assert_eq!(locate(None, &deep, None), Ok(data.join(FILE_NAME)));
        assert_eq!(locate(Some("azure"), &deep, None), Ok(data.join("contexts/azure.json")));
        assert_eq!(
            locate(Some("../../.runtime"), &deep, None).unwrap(),
            deep.join("../../.runtime/context.json")
        );
        assert!(locate(Some("nowhere"), &deep, None).is_err());
        assert!(locate(Some("./nowhere.json"), &deep, None).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_context_that_others_can_read_is_warned_about() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(FILE_NAME);
        fs::write(&file, r#"{"functionsEndpoint":"http://127.0.0.1:1/","functionKey":"sesame","rootCertificate":"root.pem"}"#)
            .unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let (context, warnings) = Context::read(&file).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(context.functions_endpoint, "http://127.0.0.1:1");
        assert_eq!(context.root_certificate, Some(root.path().join("root.pem")));
        assert!(!format!("{context:?}").contains("sesame"));

        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let (_, warnings) = Context::read(&file).unwrap();
        assert!(warnings[0].contains("chmod 600"), "{warnings:?}");
    }
}
