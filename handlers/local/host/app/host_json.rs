//! `host.json`: what of it concerns a custom handler, Service Bus and HTTP. Members that this host
//! has no use for (logging, the extension bundle, health monitoring) are left alone.

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{
    problems::{Field, Problems, read_json},
    settings::Settings,
};

const INITIALIZATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Azure's default on every plan that is not billed by consumption.
const FUNCTION_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const LOCK_RENEWAL: Duration = Duration::from_secs(5 * 60);
/// Azure's default for each processor.
const CONCURRENT_CALLS_PER_PROCESSOR: usize = 16;
const CONCURRENT_CALLS_MAX: u64 = 1024;

/// What the host does, and with which program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::local::host) struct HostConfig {
    pub program: Program,
    pub initialization_timeout: Duration,
    /// None where functions may run for ever.
    pub function_timeout: Option<Duration>,
    pub service_bus: ServiceBusConfig,
    /// The route prefix without slashes at its ends; may be empty.
    pub route_prefix: String,
}

/// The handler, and how it is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::local::host) struct Program {
    pub executable: PathBuf,
    pub arguments: Vec<String>,
    pub directory: PathBuf,
    /// The folder of host.json, as the handler is told.
    pub app: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::local::host) struct ServiceBusConfig {
    /// Messages of one function that are handled at the same time.
    pub concurrent_calls: usize,
    /// How long a message's lock is kept alive.
    pub lock_renewal: Duration,
}

pub(super) fn read(app: &Path, settings: &Settings, problems: &Problems) -> Option<HostConfig> {
    let path = app.join("host.json");
    let mut document = read_json(&path, problems)?;
    settings.override_host(&mut document);
    let file = path.display().to_string();
    let root = Field::root(&file, &document, problems);
    let version = root.member("version");
    match version.text() {
        Some("2.0") => {}
        Some(other) => version.problem(format!("`{other}` is not supported: write \"2.0\"")),
        None if version.value.is_none() => version.problem("is missing: write \"2.0\""),
        None => {}
    }
    let handler = root.member("customHandler");
    let program = program(app, &handler, settings);
    handler
        .member("enableForwardingHttpRequest")
        .only(false, "HTTP requests reach the handler as invocations; leave it out");
    handler
        .member("enableProxyingHttpRequest")
        .only(false, "HTTP requests reach the handler as invocations; leave it out");
    for name in ["port", "http"] {
        let field = handler.member(name);
        if field.value.is_some() {
            field.problem("is not supported here: leave it out, the host picks a free port and reads each function.json");
        }
    }
    let http = root.member("extensions").member("http");
    let prefix = http.member("routePrefix").text().unwrap_or("api").trim_matches('/').to_owned();
    if root.member("retry").value.is_some() {
        root.member("retry")
            .problem("retry policies are not supported here: leave it out, Service Bus redelivers");
    }
    let initialization_timeout =
        handler.member("initializationTimeout").duration().unwrap_or(INITIALIZATION_TIMEOUT);
    let function_timeout = function_timeout(&root.member("functionTimeout"));
    let service_bus = service_bus(&root.member("extensions").member("serviceBus"));
    // Only now may one that is missing end the reading: everything else has been looked at.
    Some(HostConfig {
        program: program?,
        initialization_timeout,
        function_timeout,
        service_bus,
        route_prefix: prefix,
    })
}

fn function_timeout(field: &Field<'_>) -> Option<Duration> {
    if field.value.and_then(|value| value.as_str()) == Some("-1") {
        return None;
    }
    let timeout = field.duration();
    if timeout == Some(Duration::ZERO) {
        field.problem("must be longer than nothing; \"-1\" is no limit");
    }
    Some(timeout.unwrap_or(FUNCTION_TIMEOUT))
}

fn service_bus(field: &Field<'_>) -> ServiceBusConfig {
    field
        .member("autoCompleteMessages")
        .only(true, "a custom handler cannot settle a message itself; leave it out");
    field.member("enableCrossEntityTransactions").only(false, "leave it out");
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let calls = field.member("maxConcurrentCalls").number(1, CONCURRENT_CALLS_MAX);
    ServiceBusConfig {
        concurrent_calls: calls.map_or(CONCURRENT_CALLS_PER_PROCESSOR * processors, |calls| calls as usize),
        lock_renewal: field.member("maxAutoLockRenewalDuration").duration().unwrap_or(LOCK_RENEWAL),
    }
}

fn program(app: &Path, handler: &Field<'_>, settings: &Settings) -> Option<Program> {
    let description = handler.member("description");
    if !description.is_object() {
        if description.value.is_none() {
            description
                .problem("is missing: it names the handler, e.g. {\"defaultExecutablePath\": \"handler\"}");
        }
        return None;
    }
    let folder = |name: &str| {
        let text = description.member(name).text().map(|text| settings.expand_environment(text));
        app.join(text.unwrap_or_default())
    };
    let (base, directory) = (folder("workerDirectory"), folder("workingDirectory"));
    if !directory.is_dir() {
        description.member("workingDirectory").problem(format!("`{}` is no folder", directory.display()));
    }
    let executable = executable(&base, &description.member("defaultExecutablePath"), settings)?;
    let expanded = |name: &str| {
        let texts = description.member(name).texts();
        texts.iter().flat_map(|text| split(&settings.expand_environment(text))).collect::<Vec<_>>()
    };
    let worker = description.member("defaultWorkerPath").text().map(str::to_owned);
    let arguments =
        expanded("arguments").into_iter().chain(worker).chain(expanded("workerArguments")).collect();
    Some(Program { executable, arguments, directory, app: app.to_owned() })
}

/// A file beside host.json, else a command of the PATH.
fn executable(base: &Path, field: &Field<'_>, settings: &Settings) -> Option<PathBuf> {
    let Some(text) = field.text().filter(|text| !text.trim().is_empty()) else {
        field.problem("is missing: name the handler's program, beside host.json or on the PATH");
        return None;
    };
    let named = settings.expand_environment(text);
    let beside = base.join(&named);
    if beside.is_file() {
        if !is_executable(&beside) {
            field.problem(format!("`{}` is not executable: `chmod +x` it", beside.display()));
            return None;
        }
        return Some(beside);
    }
    let environment = settings.environment();
    let path = environment.get("PATH").cloned().unwrap_or_default();
    let is_command = !named.contains('/')
        && std::env::split_paths(&path).any(|folder| {
            let candidate = folder.join(&named);
            candidate.is_file() && is_executable(&candidate)
        });
    if !is_command {
        field.problem(format!(
            "there is no program `{}`, and none of that name on the PATH: build the handler",
            beside.display()
        ));
        return None;
    }
    Some(PathBuf::from(named))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(_path: &Path) -> bool {
    true
}

/// Arguments are put on one command line unquoted, which the system then takes apart at blanks.
fn split(argument: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part: Option<String> = None;
    let mut quoted = false;
    for character in argument.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                part.get_or_insert_default();
            }
            blank if blank.is_whitespace() && !quoted => parts.extend(part.take()),
            other => part.get_or_insert_default().push(other),
        }
    }
    parts.extend(part);
    parts
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;

    fn read_text(
        text: &str,
        overrides: &[(&str, &str)],
    ) -> (Option<HostConfig>, Vec<String>, tempfile::TempDir) {
        let app = tempfile::tempdir().unwrap();
        fs::write(app.path().join("host.json"), text).unwrap();
        let problems = Problems::default();
        let overrides = overrides.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = Settings::read(app.path(), overrides.collect::<BTreeMap<_, _>>(), &problems);
        let config = read(app.path(), &settings, &problems);
        let prefix = format!("{}/", app.path().display());
        let said =
            problems.into_list().iter().map(|problem| problem.to_string().replace(&prefix, "")).collect();
        (config, said, app)
    }

    #[test]
    fn a_small_host_json_takes_azures_defaults() {
        let text = r#"{"version": "2.0", "customhandler": {"description": {"defaultExecutablePath": "sh", "arguments": ["-c", "exit %CODE%"]}}}"#;
        let (config, said, app) = read_text(text, &[("CODE", "3")]);
        assert_eq!(said, Vec::<String>::new());
        let processors = thread::available_parallelism().unwrap().get();
        let expected = HostConfig {
            program: Program {
                executable: "sh".into(),
                arguments: vec!["-c".into(), "exit".into(), "3".into()],
                directory: app.path().join(""),
                app: app.path().to_owned(),
            },
            initialization_timeout: Duration::from_secs(30),
            function_timeout: Some(Duration::from_secs(1800)),
            service_bus: ServiceBusConfig {
                concurrent_calls: 16 * processors,
                lock_renewal: Duration::from_secs(300),
            },
            route_prefix: "api".into(),
        };
        assert_eq!(config, Some(expected));
    }

    #[test]
    fn everything_wrong_is_said_together_with_its_place() {
        let text = r#"{"version": "3.0", "functionTimeout": "soon",
            "customHandler": {"enableForwardingHttpRequest": true, "description": {"defaultExecutablePath": "no-such-program"}},
            "extensions": {"serviceBus": {"maxConcurrentCalls": 0, "autoCompleteMessages": false}}}"#;
        let (config, said, _app) = read_text(text, &[]);
        assert_eq!(config, None);
        assert_eq!(
            said,
            [
                "host.json: version: `3.0` is not supported: write \"2.0\"",
                "host.json: customHandler.description.defaultExecutablePath: there is no program `no-such-program`, and none of that name on the PATH: build the handler",
                "host.json: customHandler.enableForwardingHttpRequest: `true` is not supported here: HTTP requests reach the handler as invocations; leave it out",
                "host.json: functionTimeout: `soon` is no span of time: write hours, minutes and seconds, such as \"00:05:00\"",
                "host.json: extensions.serviceBus.autoCompleteMessages: `false` is not supported here: a custom handler cannot settle a message itself; leave it out",
                "host.json: extensions.serviceBus.maxConcurrentCalls: must be a whole number from 1 to 1024",
            ]
        );
    }

    #[test]
    fn malformed_json_and_a_missing_file_are_told_by_name() {
        let (_, said, _app) = read_text("{\"version\": ", &[]);
        assert_eq!(said, ["host.json: is not valid JSON: EOF while parsing a value at line 1 column 12"]);
        let app = tempfile::tempdir().unwrap();
        let problems = Problems::default();
        assert_eq!(read(app.path(), &Settings::default(), &problems), None);
        assert_eq!(
            problems.into_list()[0].problem,
            "cannot be read (No such file or directory (os error 2))"
        );
    }

    #[test]
    fn arguments_are_taken_apart_at_blanks_unless_quoted() {
        assert_eq!(split("a  b"), ["a", "b"]);
        assert_eq!(split("\"a b\"c \"\""), ["a bc", ""]);
        assert_eq!(split(""), Vec::<String>::new());
    }
}
