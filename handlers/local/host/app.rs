//! The function app as its files say: `host.json`, `local.settings.json`, and every `function.json`.
//! All that is wrong with them is reported at once, with file and path of the field.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use croner::{Cron, parser::{CronParser, Seconds}};
use serde_json::{Map, Value};

/// The longest that an invocation may take where `host.json` says nothing.
const FUNCTION_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long the handler may take to answer its first `GET /`.
const INITIALIZATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Invocations of one Service Bus function at a time where `host.json` says nothing.
const CONCURRENT_CALLS: usize = 16;

/// One thing that is wrong with an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// e.g. `bindings[0].queueName`; empty for the file as a whole.
    pub path: String,
    pub what: String,
}

/// All that is wrong with an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppError(pub Vec<Problem>);

impl fmt::Display for AppError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let colon = if problem.path.is_empty() { "" } else { ": " };
            write!(formatter, "{separator}{}{colon}{}: {}", problem.file, problem.path, problem.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for AppError {}

/// An app that can be run.
pub(super) struct App {
    pub functions: Vec<Function>,
    pub executable: PathBuf,
    pub arguments: Vec<String>,
    pub working_directory: PathBuf,
    pub root: PathBuf,
    pub environment: BTreeMap<String, String>,
    pub function_timeout: Duration,
    pub initialization_timeout: Duration,
    pub route_prefix: String,
    pub service_bus: ServiceBusOptions,
}

#[derive(Clone, Copy)]
pub(super) struct ServiceBusOptions {
    pub concurrent_calls: usize,
    pub lock_renewal: Duration,
}

pub(super) struct Function {
    pub name: String,
    pub trigger: Trigger,
    pub disabled: bool,
}

pub(super) enum Trigger {
    ServiceBus(ServiceBusTrigger),
    Timer(TimerTrigger),
    Http(HttpTrigger),
}

#[derive(Clone)]
pub(super) struct ServiceBusTrigger {
    pub binding: String,
    /// `queue`, or `topic/Subscriptions/name`.
    pub path: String,
    pub binary: bool,
}

#[derive(Clone)]
pub(super) struct TimerTrigger {
    pub binding: String,
    pub schedule: Schedule,
    pub run_on_startup: bool,
    pub monitor: bool,
}

#[derive(Clone)]
pub(super) enum Schedule {
    Cron(Box<Cron>),
    Every(Duration),
}

#[derive(Clone)]
pub(super) struct HttpTrigger {
    pub binding: String,
    /// The `http` output.
    pub output: Option<String>,
    pub route: String,
    /// In upper case; empty for all.
    pub methods: Vec<String>,
    pub anonymous: bool,
}

/// One file with what was found wrong in it.
struct Reader<'a> {
    file: String,
    settings: &'a BTreeMap<String, String>,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, path: &str, what: impl Into<String>) {
        self.problems.push(Problem { file: self.file.clone(), path: path.to_owned(), what: what.into() });
    }

    /// A text with `%NAME%` replaced by app settings.
    fn text(&mut self, object: &Map<String, Value>, path: &str, name: &str) -> Option<String> {
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match object.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(self.expand(&path, text)),
            Some(_) => {
                self.problem(&path, "must be a text");
                None
            }
        }
    }

    fn expand(&mut self, path: &str, text: &str) -> String {
        let Some((before, rest)) = text.split_once('%') else { return text.to_owned() };
        let Some((name, after)) = rest.split_once('%') else { return text.to_owned() };
        match self.settings.get(name) {
            Some(value) => format!("{before}{value}{}", self.expand(path, after)),
            None => {
                self.problem(path, format!("names the app setting `{name}`, which is not set"));
                text.to_owned()
            }
        }
    }

    fn duration(&mut self, value: Option<&Value>, path: &str, default: Duration) -> Duration {
        match value {
            None | Some(Value::Null) => default,
            Some(Value::String(text)) => timespan(text).unwrap_or_else(|| {
                self.problem(path, format!("`{text}` is no time span; write it as hh:mm:ss"));
                default
            }),
            Some(_) => {
                self.problem(path, "must be a time span, e.g. \"00:05:00\"");
                default
            }
        }
    }
}

/// `hh:mm:ss`, optionally with days before and a fraction behind.
fn timespan(text: &str) -> Option<Duration> {
    let mut parts = text.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (days, hours) = hours.split_once('.').unwrap_or(("0", hours));
    let whole = days.parse::<u64>().ok()? * 86_400 + hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60;
    Some(Duration::from_secs(whole) + Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?)
}

impl App {
    pub fn read(root: &Path, given: &BTreeMap<String, String>) -> Result<Self, AppError> {
        let mut problems = Vec::new();
        let mut settings = local_settings(root, &mut problems);
        settings.extend(given.clone());
        let host = object(&root.join("host.json"), root, &mut problems).unwrap_or_default();
        let mut reader = Reader { file: "host.json".to_owned(), settings: &settings, problems: &mut problems };
        let mut app = read_host(&mut reader, root, &host);
        app.functions = read_functions(root, &settings, &mut problems);
        app.environment.clone_from(&settings);
        if problems.is_empty() { Ok(app) } else { Err(AppError(problems)) }
    }
}

fn relative(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

fn object(path: &Path, root: &Path, problems: &mut Vec<Problem>) -> Option<Map<String, Value>> {
    let mut problem = |what: String| problems.push(Problem { file: relative(path, root), path: String::new(), what });
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problem(format!("cannot be read: {error}"));
            return None;
        }
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Some(object),
        Ok(_) => {
            problem("must be a JSON object".to_owned());
            None
        }
        Err(error) => {
            problem(format!("is no JSON: {error}"));
            None
        }
    }
}

fn local_settings(root: &Path, problems: &mut Vec<Problem>) -> BTreeMap<String, String> {
    let path = root.join("local.settings.json");
    if !path.is_file() {
        return BTreeMap::new();
    }
    let Some(file) = object(&path, root, problems) else { return BTreeMap::new() };
    let mut settings = BTreeMap::new();
    for (name, value) in file.get("Values").and_then(Value::as_object).into_iter().flatten() {
        match value {
            Value::String(text) => {
                settings.insert(name.clone(), text.clone());
            }
            _ => problems.push(Problem {
                file: "local.settings.json".to_owned(),
                path: format!("Values.{name}"),
                what: "must be a text".to_owned(),
            }),
        }
    }
    settings
}

fn read_host(reader: &mut Reader<'_>, root: &Path, host: &Map<String, Value>) -> App {
    if host.get("version").and_then(Value::as_str) != Some("2.0") {
        reader.problem("version", "must be \"2.0\"");
    }
    let empty = Map::new();
    let section = |object: &Map<String, Value>, name: &str| -> Map<String, Value> {
        object.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let custom = section(host, "customHandler");
    for name in ["enableForwardingHttpRequest", "enableProxyingHttpRequest"] {
        if custom.get(name) == Some(&Value::Bool(true)) {
            reader.problem(&format!("customHandler.{name}"), "is not supported here; leave it out: every function gets the host's payload");
        }
    }
    let description = section(&custom, "description");
    let override_name = "AzureFunctionsJobHost__customHandler__description__defaultExecutablePath";
    let executable = match reader.settings.get(override_name).cloned() {
        Some(path) => path,
        None => reader.text(&description, "customHandler.description", "defaultExecutablePath").unwrap_or_else(|| {
            reader.problem("customHandler.description.defaultExecutablePath", "is missing; it names the handler's program");
            String::new()
        }),
    };
    // A file of the app where there is one, else a command on the PATH.
    let in_app = root.join(&executable);
    let executable = if in_app.is_file() { in_app } else { executable.into() };
    let mut arguments = Vec::new();
    for argument in description.get("arguments").and_then(Value::as_array).into_iter().flatten() {
        if let Value::String(text) = argument {
            arguments.push(reader.expand("customHandler.description.arguments", text));
        } else {
            reader.problem("customHandler.description.arguments", "must be a list of texts");
        }
    }
    let working_directory = reader
        .text(&description, "customHandler.description", "workingDirectory")
        .map_or_else(|| root.to_owned(), |directory| root.join(directory));
    let extensions = section(host, "extensions");
    let bus = section(&extensions, "serviceBus");
    let concurrent_calls = match bus.get("maxConcurrentCalls") {
        None => CONCURRENT_CALLS,
        Some(value) => value.as_u64().filter(|calls| (1..=1000).contains(calls)).map_or_else(
            || {
                reader.problem("extensions.serviceBus.maxConcurrentCalls", "must be a number from 1 to 1000");
                CONCURRENT_CALLS
            },
            |calls| usize::try_from(calls).unwrap_or(CONCURRENT_CALLS),
        ),
    };
    let http = extensions.get("http").and_then(Value::as_object).unwrap_or(&empty);
    App {
        functions: Vec::new(),
        executable,
        arguments,
        working_directory,
        root: root.to_owned(),
        environment: BTreeMap::new(),
        function_timeout: reader.duration(host.get("functionTimeout"), "functionTimeout", FUNCTION_TIMEOUT),
        initialization_timeout: reader.duration(
            custom.get("initializationTimeout"),
            "customHandler.initializationTimeout",
            INITIALIZATION_TIMEOUT,
        ),
        route_prefix: reader.text(http, "extensions.http", "routePrefix").unwrap_or_else(|| "api".to_owned()),
        service_bus: ServiceBusOptions {
            concurrent_calls,
            lock_renewal: reader.duration(
                bus.get("maxAutoLockRenewalDuration"),
                "extensions.serviceBus.maxAutoLockRenewalDuration",
                Duration::from_secs(5 * 60),
            ),
        },
    }
}

/// In a checkout functions are under `functions/`, in a staged app beside `host.json`.
fn read_functions(root: &Path, settings: &BTreeMap<String, String>, problems: &mut Vec<Problem>) -> Vec<Function> {
    let folder = Some(root.join("functions")).filter(|folder| folder.is_dir()).unwrap_or_else(|| root.to_owned());
    let mut folders: Vec<PathBuf> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("function.json").is_file())
        .collect();
    folders.sort();
    let mut functions = Vec::new();
    for path in folders {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let file = path.join("function.json");
        let Some(object) = object(&file, root, problems) else { continue };
        let mut reader = Reader { file: relative(&file, root), settings, problems };
        let good_name = name.len() <= 128
            && name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name.chars().all(|character| character.is_ascii_alphanumeric() || "_-".contains(character));
        if !good_name {
            reader.problem("", format!("`{name}` is no function's name: letters, digits, `_` and `-`, beginning with a letter"));
        }
        if let Some(trigger) = read_bindings(&mut reader, &name, &object) {
            let disabled = [format!("AzureWebJobs.{name}.Disabled"), format!("AzureWebJobs_{name}_Disabled")]
                .iter()
                .any(|setting| settings.get(setting).is_some_and(|value| value == "true" || value == "1"));
            functions.push(Function { name, trigger, disabled });
        }
    }
    if functions.is_empty() && problems.is_empty() {
        problems.push(Problem {
            file: relative(&folder, root),
            path: String::new(),
            what: "holds no folder with a function.json".to_owned(),
        });
    }
    functions
}

fn read_bindings(reader: &mut Reader<'_>, name: &str, object: &Map<String, Value>) -> Option<Trigger> {
    let Some(bindings) = object.get("bindings").and_then(Value::as_array) else {
        reader.problem("bindings", "is missing; it is a list with one trigger");
        return None;
    };
    let (mut trigger, mut output) = (None, None);
    for (index, binding) in bindings.iter().enumerate() {
        let path = format!("bindings[{index}]");
        let Some(binding) = binding.as_object() else {
            reader.problem(&path, "must be an object");
            continue;
        };
        let own = reader.text(binding, &path, "name").unwrap_or_else(|| {
            reader.problem(&format!("{path}.name"), "is missing");
            String::new()
        });
        match binding.get("type").and_then(Value::as_str) {
            Some("serviceBusTrigger") => trigger = read_service_bus(reader, binding, &path, own).map(Trigger::ServiceBus),
            Some("timerTrigger") => trigger = read_timer(reader, binding, &path, own).map(Trigger::Timer),
            Some("httpTrigger") => trigger = Some(Trigger::Http(read_http(reader, binding, &path, own, name))),
            Some("http") => output = Some(own),
            Some(other) => reader.problem(
                &format!("{path}.type"),
                format!("`{other}` is not supported here; serviceBusTrigger, timerTrigger, httpTrigger and http are"),
            ),
            None => reader.problem(&format!("{path}.type"), "is missing"),
        }
    }
    if let Some(Trigger::Http(http)) = &mut trigger {
        http.output = output;
    }
    trigger
}

fn read_service_bus(reader: &mut Reader<'_>, binding: &Map<String, Value>, path: &str, own: String) -> Option<ServiceBusTrigger> {
    for (name, supported) in [("cardinality", "one"), ("dataType", "binary or string")] {
        let value = binding.get(name).and_then(Value::as_str);
        let good = match name {
            "cardinality" => matches!(value, None | Some("one")),
            _ => matches!(value, None | Some("binary" | "string")),
        };
        if !good {
            reader.problem(&format!("{path}.{name}"), format!("is not supported here; {supported} is"));
        }
    }
    if binding.get("isSessionsEnabled") == Some(&Value::Bool(true)) {
        reader.problem(&format!("{path}.isSessionsEnabled"), "is not supported here; leave it out");
    }
    let connection = reader.text(binding, path, "connection").unwrap_or_else(|| "AzureWebJobsServiceBus".to_owned());
    let by_identity = format!("{connection}__fullyQualifiedNamespace");
    if !reader.settings.contains_key(&connection) && !reader.settings.contains_key(&by_identity) {
        reader.problem(
            &format!("{path}.connection"),
            format!("names the app setting `{connection}`, and neither that nor `{by_identity}` is set"),
        );
    }
    let queue = reader.text(binding, path, "queueName");
    let topic = reader.text(binding, path, "topicName");
    let subscription = reader.text(binding, path, "subscriptionName");
    let entity = match (queue, topic, subscription) {
        (Some(queue), None, None) => queue,
        (None, Some(topic), Some(subscription)) => format!("{topic}/Subscriptions/{subscription}"),
        _ => {
            reader.problem(path, "needs queueName, or topicName and subscriptionName");
            return None;
        }
    };
    let binary = binding.get("dataType").and_then(Value::as_str) == Some("binary");
    Some(ServiceBusTrigger { binding: own, path: entity, binary })
}

fn read_timer(reader: &mut Reader<'_>, binding: &Map<String, Value>, path: &str, own: String) -> Option<TimerTrigger> {
    let Some(text) = reader.text(binding, path, "schedule") else {
        reader.problem(&format!("{path}.schedule"), "is missing");
        return None;
    };
    let schedule = match schedule(&text) {
        Ok(schedule) => schedule,
        Err(problem) => {
            reader.problem(&format!("{path}.schedule"), format!("`{text}`: {problem}"));
            return None;
        }
    };
    let flag = |name: &str, default: bool| binding.get(name).and_then(Value::as_bool).unwrap_or(default);
    Some(TimerTrigger { binding: own, schedule, run_on_startup: flag("runOnStartup", false), monitor: flag("useMonitor", true) })
}

/// Six fields, five without seconds, or a time span.
pub(super) fn schedule(text: &str) -> Result<Schedule, String> {
    if let Some(every) = timespan(text) {
        return if every.is_zero() { Err("it must be longer than nothing".to_owned()) } else { Ok(Schedule::Every(every)) };
    }
    let fields = text.split_whitespace().count();
    let six = match fields {
        5 => format!("0 {text}"),
        6 => text.to_owned(),
        _ => return Err(format!("it has {fields} fields; six are second, minute, hour, day, month and day of the week")),
    };
    let parser = CronParser::builder().seconds(Seconds::Required).build();
    let cron = parser.parse(&six).or_else(|_| Cron::from_str(&six)).map_err(|error| error.to_string())?;
    Ok(Schedule::Cron(Box::new(cron)))
}

fn read_http(reader: &mut Reader<'_>, binding: &Map<String, Value>, path: &str, own: String, name: &str) -> HttpTrigger {
    let anonymous = match binding.get("authLevel").and_then(Value::as_str) {
        Some("anonymous") => true,
        None | Some("function" | "admin") => false,
        Some(other) => {
            reader.problem(&format!("{path}.authLevel"), format!("`{other}` is none of anonymous, function and admin"));
            false
        }
    };
    let methods = binding
        .get("methods")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|method| method.as_str().map(str::to_uppercase))
        .collect();
    let route = reader.text(binding, path, "route").unwrap_or_else(|| name.to_owned());
    HttpTrigger { binding: own, output: None, route, methods, anonymous }
}
