//! `function.json`: one trigger of a kind that this host can fire, and for HTTP its response.

use std::path::Path;

use super::{
    problems::{Field, Problems, read_json},
    settings::Settings,
};
use crate::local::host::{routes::Route, schedule::Schedule};

const SUPPORTED: &str = "serviceBusTrigger, timerTrigger, httpTrigger and, with the latter, http";
const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"];
/// The connection where a trigger names none.
const DEFAULT_CONNECTION: &str = "AzureWebJobsServiceBus";
/// How a name says that its dead letters are meant.
const DEAD_LETTERS: &str = "/$deadletterqueue";

/// A function of the app.
#[derive(Clone, Debug)]
pub(in crate::local::host) struct Function {
    /// The folder's name, and the path that is posted to.
    pub name: String,
    /// Its function.json.
    pub file: String,
    pub trigger: Trigger,
    /// Switched off by a setting.
    pub disabled: bool,
}

#[derive(Clone, Debug)]
pub(in crate::local::host) enum Trigger {
    Messages(MessageTrigger),
    Timer(TimerTrigger),
    Http(HttpTrigger),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::local::host) struct MessageTrigger {
    pub name: String,
    /// The entity's path, e.g. `queue` or `topic/Subscriptions/name`.
    pub path: String,
    pub data_type: DataType,
    /// e.g. `ns.servicebus.windows.net`.
    pub namespace: String,
}

/// How a body is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::local::host) enum DataType {
    Text,
    Binary,
}

#[derive(Clone, Debug)]
pub(in crate::local::host) struct TimerTrigger {
    pub name: String,
    pub schedule: Schedule,
    pub run_on_startup: bool,
    pub use_monitor: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::local::host) struct HttpTrigger {
    pub name: String,
    pub auth: AuthLevel,
    /// In upper case; none at all stands for every method.
    pub methods: Vec<&'static str>,
    /// Without the prefix of host.json.
    pub route: Route,
    /// The output binding that holds the response.
    pub response: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::local::host) enum AuthLevel {
    Anonymous,
    Function,
    Admin,
}

impl HttpTrigger {
    pub fn takes(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.contains(&method)
    }

    /// Whether both would answer the same request.
    pub fn overlaps(&self, other: &Self) -> bool {
        let share = |methods: &[&str]| methods.iter().any(|method| other.takes(method));
        let methods = if self.methods.is_empty() { share(METHODS) } else { share(&self.methods) };
        methods && self.route.same_shape(&other.route)
    }
}

/// Reads one function. What is wrong with it is added to the problems.
pub(super) fn read(name: &str, path: &Path, settings: &Settings, problems: &Problems) -> Option<Function> {
    let document = read_json(path, problems)?;
    let file = path.display().to_string();
    let root = Field::root(&file, &document, problems);
    if root.member("retry").value.is_some() {
        root.member("retry")
            .problem("retry policies are not supported here: leave it out, Service Bus redelivers");
    }
    let bindings = root.member("bindings");
    if bindings.value.is_none() {
        bindings.problem("is missing: a function has one trigger");
        return None;
    }
    let trigger = Reader { function: name, settings }.trigger(&bindings)?;
    let disabled = settings.flag(&format!("AzureWebJobs.{name}.Disabled"))
        || settings.flag(&format!("AzureWebJobs_{name}_Disabled"));
    Some(Function { name: name.to_owned(), file: file.clone(), trigger, disabled })
}

struct Reader<'a> {
    function: &'a str,
    settings: &'a Settings,
}

impl Reader<'_> {
    fn trigger(&self, bindings: &Field<'_>) -> Option<Trigger> {
        let mut triggers = Vec::new();
        let mut response = None;
        for binding in bindings.elements() {
            let kind = binding.member("type");
            let Some(text) = kind.text() else {
                if kind.value.is_none() {
                    kind.problem(format!("is missing: supported are {SUPPORTED}"));
                }
                continue;
            };
            match text.to_ascii_lowercase().as_str() {
                "servicebustrigger" => triggers.push(self.messages(&binding).map(Trigger::Messages)),
                "timertrigger" => triggers.push(self.timer(&binding).map(Trigger::Timer)),
                "httptrigger" => triggers.push(self.http(&binding).map(Trigger::Http)),
                "http" if response.is_none() => response = Some((self.response(&binding), kind)),
                "http" => kind.problem("a second http output has no meaning: leave one"),
                _ => kind.problem(format!("`{text}` is not supported here: supported are {SUPPORTED}")),
            }
        }
        if triggers.len() != 1 {
            bindings.problem(format!(
                "has {} triggers, a function has one: supported are {SUPPORTED}",
                triggers.len()
            ));
            return None;
        }
        match (triggers.remove(0)?, response) {
            (Trigger::Http(http), response) => {
                Some(Trigger::Http(HttpTrigger { response: response.and_then(|(name, _)| name), ..http }))
            }
            (trigger, None) => Some(trigger),
            (_, Some((_, kind))) => {
                kind.problem("an http output needs an httpTrigger beside it");
                None
            }
        }
    }

    fn messages(&self, binding: &Field<'_>) -> Option<MessageTrigger> {
        let name = self.name(binding, "in");
        binding.member("cardinality").one_of(&["one"]);
        binding.member("isSessionsEnabled").only(false, "leave it out");
        binding
            .member("autoCompleteMessages")
            .only(true, "a custom handler cannot settle a message itself; leave it out");
        let data_type = match binding.member("dataType").one_of(&["string", "binary"]) {
            Some("binary") => DataType::Binary,
            _ => DataType::Text,
        };
        let path = self.entity(binding);
        let namespace = self.namespace(&binding.member("connection"));
        Some(MessageTrigger { name: name?, path: path?, data_type, namespace: namespace? })
    }

    fn entity(&self, binding: &Field<'_>) -> Option<String> {
        let named = |name: &str| self.text(&binding.member(name)).filter(|text| !text.is_empty());
        let path = match (named("queueName"), named("topicName"), named("subscriptionName")) {
            (Some(queue), None, None) => queue,
            (None, Some(topic), Some(subscription)) => format!("{topic}/Subscriptions/{subscription}"),
            _ => {
                binding.problem("must name a `queueName`, or a `topicName` and a `subscriptionName`");
                return None;
            }
        };
        let cut = path.len().saturating_sub(DEAD_LETTERS.len());
        let is_dead_letters = path.is_char_boundary(cut) && path[cut..].eq_ignore_ascii_case(DEAD_LETTERS);
        Some(if is_dead_letters { format!("{}/$DeadLetterQueue", &path[..cut]) } else { path })
    }

    /// The connection must exist as a setting; what it leads to is the host's own Service Bus.
    fn namespace(&self, connection: &Field<'_>) -> Option<String> {
        let name = match connection.value {
            None => DEFAULT_CONNECTION.to_owned(),
            Some(_) => self.text(connection)?,
        };
        let setting = |suffix: &str| {
            let prefixed = self.settings.get(&format!("AzureWebJobs{name}{suffix}"));
            self.settings.get(&format!("{name}{suffix}")).or(prefixed)
        };
        if let Some(namespace) = setting("__fullyQualifiedNamespace") {
            return Some(namespace.to_owned());
        }
        let Some(text) = setting("") else {
            connection.problem(format!(
                "there is no setting `{name}` and none `{name}__fullyQualifiedNamespace`: set one of them"
            ));
            return None;
        };
        let endpoint = text.split(';').find_map(|part| part.trim().strip_prefix("Endpoint="));
        let host =
            endpoint.and_then(|endpoint| url::Url::parse(endpoint).ok()?.host_str().map(str::to_owned));
        if host.is_none() {
            // The setting's value is a secret: only its name is told.
            connection.problem(format!(
                "the setting `{name}` is no Service Bus connection string: it has no `Endpoint=sb://...`"
            ));
        }
        host
    }

    fn timer(&self, binding: &Field<'_>) -> Option<TimerTrigger> {
        let name = self.name(binding, "in");
        let run_on_startup = binding.member("runOnStartup").flag().unwrap_or(false);
        let use_monitor = binding.member("useMonitor").flag().unwrap_or(true);
        let field = binding.member("schedule");
        if field.value.is_none() {
            field.problem("is missing: write six fields, such as \"0 */5 * * * *\"");
        }
        let schedule = Schedule::parse(&self.text(&field)?).map_err(|problem| field.problem(problem)).ok();
        Some(TimerTrigger { name: name?, schedule: schedule?, run_on_startup, use_monitor })
    }

    fn http(&self, binding: &Field<'_>) -> Option<HttpTrigger> {
        let name = self.name(binding, "in");
        let auth = match binding.member("authLevel").one_of(&["anonymous", "function", "admin"]) {
            Some("anonymous") => AuthLevel::Anonymous,
            Some("admin") => AuthLevel::Admin,
            _ => AuthLevel::Function,
        };
        let methods = binding.member("methods").elements();
        let methods = methods.iter().filter_map(|method| method.one_of(METHODS)).collect();
        let field = binding.member("route");
        let text = self.text(&field).unwrap_or_else(|| self.function.to_owned());
        let route = Route::parse(&text).map_err(|problem| field.problem(problem)).ok();
        Some(HttpTrigger { name: name?, auth, methods, route: route?, response: None })
    }

    fn response(&self, binding: &Field<'_>) -> Option<String> {
        self.name(binding, "out")
    }

    fn name(&self, binding: &Field<'_>, direction: &'static str) -> Option<String> {
        let field = binding.member("direction");
        match field.value {
            None => field.problem(format!("is missing: write \"{direction}\"")),
            Some(_) => drop(field.one_of(&[direction])),
        }
        let field = binding.member("name");
        let name = field.text().filter(|name| !name.is_empty());
        if name.is_none() {
            field.problem("is missing: the handler finds the value under this name");
        }
        name.map(str::to_owned)
    }

    fn text(&self, field: &Field<'_>) -> Option<String> {
        let expanded = self.settings.expand(field.text()?);
        expanded
            .map_err(|missing| {
                field.problem(format!(
                    "there is no setting `{missing}`: set it, or leave out the percent signs"
                ))
            })
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;

    fn read_text(text: &str) -> (Option<Function>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("function.json");
        fs::write(&file, text).unwrap();
        let problems = Problems::default();
        let settings = [
            ("ServiceBus", "Endpoint=sb://localhost:7072;SharedAccessKey=secret"),
            ("Queue", "deploy"),
            ("Broken", "secret"),
            ("AzureWebJobs.Deploy.Disabled", "true"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = Settings::read(folder.path(), BTreeMap::from(settings), &problems);
        let function = read("Deploy", &file, &settings, &problems);
        let place = format!("{}: ", file.display());
        (
            function,
            problems.into_list().iter().map(|problem| problem.to_string().replace(&place, "")).collect(),
        )
    }

    fn messages(function: Option<Function>) -> MessageTrigger {
        match function.unwrap().trigger {
            Trigger::Messages(trigger) => trigger,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_service_bus_trigger_names_its_entity() {
        let (function, said) = read_text(
            r#"{"bindings": [{"name": "message", "type": "serviceBusTrigger", "direction": "in", "queueName": "%Queue%",
                "connection": "ServiceBus", "dataType": "binary"}]}"#,
        );
        assert_eq!(said, Vec::<String>::new());
        assert!(function.as_ref().unwrap().disabled);
        let expected = MessageTrigger {
            name: "message".into(),
            path: "deploy".into(),
            data_type: DataType::Binary,
            namespace: "localhost".into(),
        };
        assert_eq!(messages(function), expected);
        let (function, _) = read_text(
            r#"{"bindings": [{"name": "m", "type": "ServiceBusTrigger", "direction": "in", "topicName": "t",
                "subscriptionName": "s/$DeadLetterQueue", "connection": "ServiceBus"}]}"#,
        );
        let expected = MessageTrigger {
            name: "m".into(),
            path: "t/Subscriptions/s/$DeadLetterQueue".into(),
            data_type: DataType::Text,
            namespace: "localhost".into(),
        };
        assert_eq!(messages(function), expected);
    }

    #[test]
    fn an_http_trigger_takes_azures_defaults() {
        let (function, said) = read_text(
            r#"{"bindings": [{"name": "req", "type": "httpTrigger", "direction": "in", "methods": ["get", "POST"]},
                {"name": "res", "type": "http", "direction": "out"}]}"#,
        );
        assert_eq!(said, Vec::<String>::new());
        let Trigger::Http(http) = function.unwrap().trigger else { panic!("no HTTP trigger") };
        let expected = HttpTrigger {
            name: "req".into(),
            auth: AuthLevel::Function,
            methods: vec!["GET", "POST"],
            route: Route::parse("Deploy").unwrap(),
            response: Some("res".into()),
        };
        assert_eq!(http, expected);
    }

    #[test]
    fn every_problem_names_its_field_and_no_secret() {
        let cases: [(&str, &[&str]); 6] = [
            ("{}", &["bindings: is missing: a function has one trigger"]),
            (
                r#"{"bindings": [{"name": "q", "type": "queueTrigger", "direction": "in"}]}"#,
                &[
                    "bindings[0].type: `queueTrigger` is not supported here: supported are serviceBusTrigger, timerTrigger, httpTrigger and, with the latter, http",
                    "bindings: has 0 triggers, a function has one: supported are serviceBusTrigger, timerTrigger, httpTrigger and, with the latter, http",
                ],
            ),
            (
                r#"{"bindings": [{"type": "serviceBusTrigger", "direction": "in", "queueName": "%Nope%", "connection": "Broken", "cardinality": "many", "isSessionsEnabled": true}]}"#,
                &[
                    "bindings[0].name: is missing: the handler finds the value under this name",
                    "bindings[0].cardinality: `many` is not supported here: use one",
                    "bindings[0].isSessionsEnabled: `true` is not supported here: leave it out",
                    "bindings[0].queueName: there is no setting `Nope`: set it, or leave out the percent signs",
                    "bindings[0]: must name a `queueName`, or a `topicName` and a `subscriptionName`",
                    "bindings[0].connection: the setting `Broken` is no Service Bus connection string: it has no `Endpoint=sb://...`",
                ],
            ),
            (
                r#"{"bindings": [{"name": "m", "type": "serviceBusTrigger", "direction": "in", "queueName": "q"}]}"#,
                &[
                    "bindings[0].connection: there is no setting `AzureWebJobsServiceBus` and none `AzureWebJobsServiceBus__fullyQualifiedNamespace`: set one of them",
                ],
            ),
            (
                r#"{"bindings": [{"name": "t", "type": "timerTrigger", "direction": "out", "schedule": "never"}]}"#,
                &[
                    "bindings[0].direction: `out` is not supported here: use in",
                    "bindings[0].schedule: `never` has 1 fields: write six, second minute hour day month day-of-week, such as \"0 */5 * * * *\", or a period such as \"00:05:00\"",
                ],
            ),
            (
                r#"{"bindings": [{"name": "r", "type": "httpTrigger", "direction": "in", "route": 5, "methods": ["fetch"], "authLevel": "user"}]}"#,
                &[
                    "bindings[0].authLevel: `user` is not supported here: use anonymous or function or admin",
                    "bindings[0].methods[0]: `fetch` is not supported here: use GET or POST or PUT or DELETE or PATCH or HEAD or OPTIONS or TRACE",
                    "bindings[0].route: must be a text, not a number",
                ],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(read_text(text).1, expected, "{text}");
        }
    }
}
