//! Reading the file: every error is found, none stops the search for others.

use std::{collections::BTreeMap, time::Duration};

use jiff::{Span, SpanRelativeTo};
use serde_json::{Map, Value};

use super::{
    DEFAULT_RULE, Holding, Queue, Rule, SHORT_NAME_CHARS_MAX, Subscription, TenantTemplate, Topic, Topology,
    TopologyError,
};
use crate::local::service_bus::filter::{CorrelationFilter, Filter, SqlFilter};

/// Characters of a queue's or a topic's name, as on Azure.
const NAME_CHARS_MAX: usize = 260;
const MEGABYTE: u64 = 1024 * 1024;
/// The sizes that Azure offers.
const SIZES_MEGABYTES: [u64; 5] = [1024, 2048, 3072, 4096, 5120];
const LOCK_MAX: Duration = Duration::from_secs(5 * 60);
const DUPLICATE_DETECTION_MIN: Duration = Duration::from_secs(20);
const DUPLICATE_DETECTION_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const MAX_DELIVERY_COUNT_MAX: u64 = 2000;

const HOLDING_MEMBERS: [&str; 5] = [
    "lockDuration",
    "maxDeliveryCount",
    "timeToLive",
    "deadLetteringOnExpiration",
    "forwardDeadLetteredMessagesTo",
];

pub(super) fn parse(file: &str, text: &str) -> Result<Topology, Vec<TopologyError>> {
    let mut reader = Reader { file, errors: Vec::new() };
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            reader.wrong("(document)", format!("is not JSON: {error}"));
            return Err(reader.errors);
        }
    };
    let topology = reader.topology(&value);
    if reader.errors.is_empty() { Ok(topology) } else { Err(reader.errors) }
}

/// What is wrong with a subscription's or a rule's name, if anything is.
pub(super) fn short_name_problem(name: &str) -> Option<String> {
    name_problem(name, SHORT_NAME_CHARS_MAX, "")
}

fn name_problem(name: &str, chars_max: usize, also: &str) -> Option<String> {
    let inner = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c) || also.contains(c);
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if name.chars().count() > chars_max {
        Some(format!("`{name}` is too long: {chars_max} characters are allowed"))
    } else if !ends(name.chars().next()) || !ends(name.chars().last()) || !name.chars().all(inner) {
        Some(format!(
            "`{name}` is no name: write letters, digits, `.`, `-` and `_`, with a letter or digit at both ends"
        ))
    } else {
        None
    }
}

/// An object in the file, with its place.
struct Object<'v> {
    path: String,
    members: &'v Map<String, Value>,
}

impl Object<'_> {
    fn at(&self, member: &str) -> String {
        if self.path.is_empty() { member.to_owned() } else { format!("{}.{member}", self.path) }
    }
}

struct Reader<'f> {
    file: &'f str,
    errors: Vec<TopologyError>,
}

impl Reader<'_> {
    fn wrong(&mut self, path: &str, problem: impl Into<String>) {
        self.errors.push(TopologyError {
            file: self.file.to_owned(),
            path: path.to_owned(),
            problem: problem.into(),
        });
    }

    fn topology(&mut self, value: &Value) -> Topology {
        let mut topology =
            Topology { file: self.file.to_owned(), queues: Vec::new(), topics: Vec::new(), per_tenant: None };
        let Some(root) = self.object(String::new(), value, &["queues", "topics", "perTenantTemplate"]) else {
            return topology;
        };
        let mut names = Names::default();
        for (path, value) in self.list(&root, "queues") {
            if let Some(queue) = self.queue(path.clone(), value) {
                self.unique(&mut names, format!("{path}.name"), &queue.name);
                topology.queues.push(queue);
            }
        }
        for (path, value) in self.list(&root, "topics") {
            if let Some(topic) = self.topic(path.clone(), value) {
                self.unique(&mut names, format!("{path}.name"), &topic.name);
                topology.topics.push(topic);
            }
        }
        topology.per_tenant = root.members.get("perTenantTemplate").and_then(|value| self.per_tenant(value));
        self.forwards(&root, &names);
        topology
    }

    fn queue(&mut self, path: String, value: &Value) -> Option<Queue> {
        let known =
            [&["name", "duplicateDetectionWindow", "maxSizeMegabytes"], &HOLDING_MEMBERS[..]].concat();
        let object = self.object(path, value, &known)?;
        let holding = self.holding(&object);
        let duplicate_detection_window = self.duplicate_detection(&object);
        let size_bytes_max = self.size(&object);
        let name = self.name(&object, NAME_CHARS_MAX, "/")?;
        Some(Queue { name, holding, duplicate_detection_window, size_bytes_max })
    }

    fn topic(&mut self, path: String, value: &Value) -> Option<Topic> {
        let known = ["name", "duplicateDetectionWindow", "maxSizeMegabytes", "subscriptions"];
        let object = self.object(path, value, &known)?;
        let duplicate_detection_window = self.duplicate_detection(&object);
        let size_bytes_max = self.size(&object);
        let mut names = Names::default();
        let mut subscriptions = Vec::new();
        for (path, value) in self.list(&object, "subscriptions") {
            if let Some(subscription) = self.subscription(path.clone(), value) {
                self.unique(&mut names, format!("{path}.name"), &subscription.name);
                subscriptions.push(subscription);
            }
        }
        let name = self.name(&object, NAME_CHARS_MAX, "/")?;
        Some(Topic { name, duplicate_detection_window, size_bytes_max, subscriptions })
    }

    fn subscription(&mut self, path: String, value: &Value) -> Option<Subscription> {
        let object = self.object(path, value, &[&["name", "rules"], &HOLDING_MEMBERS[..]].concat())?;
        let holding = self.holding(&object);
        let mut names = Names::default();
        let mut rules = Vec::new();
        let declared = self.list(&object, "rules");
        for (path, value) in &declared {
            if let Some(rule) = self.rule(path.clone(), value) {
                self.unique(&mut names, format!("{path}.name"), &rule.name);
                rules.push(rule);
            }
        }
        if rules.len() == declared.len() && !rules.iter().any(|rule| rule.name == DEFAULT_RULE) {
            self.wrong(
                &object.at("rules"),
                format!("no rule is named `{DEFAULT_RULE}`: give one of them that name, or Azure's own rule of that name lets everything through"),
            );
        }
        let name = self.name(&object, SHORT_NAME_CHARS_MAX, "")?;
        Some(Subscription { name, holding, rules })
    }

    fn rule(&mut self, path: String, value: &Value) -> Option<Rule> {
        let object = self.object(path, value, &["name", "correlationFilter", "sqlFilter"])?;
        let name = match object.members.get("name") {
            Some(Value::String(name)) if name == DEFAULT_RULE => Some(name.clone()),
            _ => self.name(&object, SHORT_NAME_CHARS_MAX, ""),
        };
        let filter = match (object.members.get("correlationFilter"), object.members.get("sqlFilter")) {
            (Some(value), None) => self.correlation_filter(object.at("correlationFilter"), value),
            (None, Some(value)) => self.sql_filter(&object.at("sqlFilter"), value),
            _ => {
                self.wrong(&object.path, "a rule has either a `correlationFilter` or a `sqlFilter`");
                None
            }
        };
        Some(Rule { name: name?, filter: filter? })
    }

    fn sql_filter(&mut self, path: &str, value: &Value) -> Option<Filter> {
        let Value::String(text) = value else {
            self.wrong(path, format!("must be a text, found {}", kind(value)));
            return None;
        };
        match SqlFilter::parse(text) {
            Ok(filter) => Some(Filter::Sql(filter)),
            Err(error) => {
                self.wrong(path, error.to_string());
                None
            }
        }
    }

    fn correlation_filter(&mut self, path: String, value: &Value) -> Option<Filter> {
        const MEMBERS: [&str; 9] = [
            "messageId",
            "correlationId",
            "to",
            "replyTo",
            "label",
            "sessionId",
            "replyToSessionId",
            "contentType",
            "properties",
        ];
        let object = self.object(path, value, &MEMBERS)?;
        let filter = CorrelationFilter {
            message_id: self.text(&object, "messageId"),
            correlation_id: self.text(&object, "correlationId"),
            to: self.text(&object, "to"),
            reply_to: self.text(&object, "replyTo"),
            label: self.text(&object, "label"),
            session_id: self.text(&object, "sessionId"),
            reply_to_session_id: self.text(&object, "replyToSessionId"),
            content_type: self.text(&object, "contentType"),
            properties: self.properties(&object),
        };
        if filter.is_empty() {
            self.wrong(&object.path, "is empty: name what must be equal, or write `\"sqlFilter\": \"1 = 1\"` to let everything through");
        }
        Some(Filter::Correlation(filter))
    }

    fn properties(&mut self, object: &Object<'_>) -> BTreeMap<String, Value> {
        let Some(value) = object.members.get("properties") else { return BTreeMap::new() };
        let Value::Object(members) = value else {
            self.wrong(&object.at("properties"), format!("must be an object, found {}", kind(value)));
            return BTreeMap::new();
        };
        for (name, value) in members {
            if !matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_)) {
                let path = format!("{}.{name}", object.at("properties"));
                self.wrong(&path, format!("must be a text, a number or a boolean, found {}", kind(value)));
            }
        }
        members.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn holding(&mut self, object: &Object<'_>) -> Holding {
        let default = Holding::default();
        let lock_duration = self.duration(object, "lockDuration", Duration::from_secs(1), Some(LOCK_MAX));
        let max_delivery_count = self.number(object, "maxDeliveryCount", 1, MAX_DELIVERY_COUNT_MAX);
        Holding {
            lock_duration: lock_duration.unwrap_or(default.lock_duration),
            max_delivery_count: max_delivery_count
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(default.max_delivery_count),
            time_to_live: self.duration(object, "timeToLive", Duration::from_secs(1), None),
            dead_lettering_on_expiration: self.boolean(object, "deadLetteringOnExpiration").unwrap_or(false),
            forward_dead_lettered_messages_to: self.text(object, "forwardDeadLetteredMessagesTo"),
        }
    }

    fn per_tenant(&mut self, value: &Value) -> Option<TenantTemplate> {
        let known = [&["name", "properties"], &HOLDING_MEMBERS[..]].concat();
        let object = self.object("perTenantTemplate".to_owned(), value, &known)?;
        let holding = self.holding(&object);
        let name = self.text(&object, "name").unwrap_or_default();
        for part in ["{subscriber}", "{tenantId}"] {
            if !name.contains(part) {
                self.wrong(
                    &object.at("name"),
                    format!("must contain `{part}`, or two subscriptions would have one name"),
                );
            }
        }
        let mut properties = BTreeMap::new();
        for (property, value) in self.properties(&object) {
            match value {
                Value::String(value) => drop(properties.insert(property, value)),
                other => {
                    let path = format!("{}.{property}", object.at("properties"));
                    self.wrong(&path, format!("must be a text, found {}", kind(&other)));
                }
            }
        }
        for (property, part) in [("cs-tenant-id", "{tenantId}"), ("cs-event-type", "{eventType}")] {
            if properties.get(property).map(String::as_str) != Some(part) {
                let path = format!("{}.{property}", object.at("properties"));
                self.wrong(&path, format!("must be `{part}`, or a tenant would be sent what is not for it"));
            }
        }
        Some(TenantTemplate { name, holding, properties })
    }

    /// Dead letters may go only to what exists, and not back to where they come from.
    fn forwards(&mut self, root: &Object<'_>, names: &Names) {
        for (path, value) in declared(root.members, "queues", "") {
            self.forward(&path, value, names);
        }
        for (path, topic) in declared(root.members, "topics", "") {
            if let Some(members) = topic.as_object() {
                for (path, value) in declared(members, "subscriptions", &format!("{path}.")) {
                    self.forward(&path, value, names);
                }
            }
        }
        if let Some(template) = root.members.get("perTenantTemplate") {
            self.forward("perTenantTemplate", template, names);
        }
    }

    fn forward(&mut self, path: &str, value: &Value, names: &Names) {
        let Some(target) = value.get("forwardDeadLetteredMessagesTo").and_then(Value::as_str) else { return };
        let path = format!("{path}.forwardDeadLetteredMessagesTo");
        if !names.0.contains_key(&target.to_ascii_lowercase()) {
            self.wrong(
                &path,
                format!("there is no queue or topic `{target}`: declare it, or name one that is declared"),
            );
        } else if value
            .get("name")
            .and_then(Value::as_str)
            .is_some_and(|name| name.eq_ignore_ascii_case(target))
        {
            self.wrong(&path, format!("`{target}` cannot forward its dead letters to itself"));
        }
    }

    fn unique(&mut self, names: &mut Names, path: String, name: &str) {
        if let Some(first) = names.0.get(&name.to_ascii_lowercase()) {
            let problem =
                format!("`{name}` is already the name at {first}: names are the same whatever their case");
            self.wrong(&path, problem);
        } else {
            names.0.insert(name.to_ascii_lowercase(), path);
        }
    }

    fn object<'v>(&mut self, path: String, value: &'v Value, known: &[&str]) -> Option<Object<'v>> {
        let Value::Object(members) = value else {
            let path = if path.is_empty() { "(document)" } else { &path };
            self.wrong(path, format!("must be an object, found {}", kind(value)));
            return None;
        };
        let object = Object { path, members };
        for member in members.keys().filter(|member| !known.contains(&member.as_str())) {
            self.wrong(&object.at(member), format!("is not known: there are {}", known.join(", ")));
        }
        Some(object)
    }

    fn list<'v>(&mut self, object: &Object<'v>, member: &str) -> Vec<(String, &'v Value)> {
        match object.members.get(member) {
            Some(Value::Array(_)) => declared(object.members, member, &object.at("")),
            Some(other) => {
                self.wrong(&object.at(member), format!("must be a list, found {}", kind(other)));
                Vec::new()
            }
            None => {
                self.wrong(&object.at(member), "is missing");
                Vec::new()
            }
        }
    }

    fn name(&mut self, object: &Object<'_>, chars_max: usize, also: &str) -> Option<String> {
        if !object.members.contains_key("name") {
            self.wrong(&object.at("name"), "is missing");
        }
        let name = self.text(object, "name")?;
        match name_problem(&name, chars_max, also) {
            None => Some(name),
            Some(problem) => {
                self.wrong(&object.at("name"), problem);
                None
            }
        }
    }

    fn text(&mut self, object: &Object<'_>, member: &str) -> Option<String> {
        match object.members.get(member)? {
            Value::String(text) if text.is_empty() => {
                self.wrong(&object.at(member), "is empty");
                None
            }
            Value::String(text) => Some(text.clone()),
            other => {
                self.wrong(&object.at(member), format!("must be a text, found {}", kind(other)));
                None
            }
        }
    }

    fn boolean(&mut self, object: &Object<'_>, member: &str) -> Option<bool> {
        let value = object.members.get(member)?;
        if !value.is_boolean() {
            self.wrong(&object.at(member), format!("must be true or false, found {}", kind(value)));
        }
        value.as_bool()
    }

    fn number(&mut self, object: &Object<'_>, member: &str, min: u64, max: u64) -> Option<u64> {
        let value = object.members.get(member)?;
        let number = value.as_u64().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.wrong(
                &object.at(member),
                format!("must be a whole number from {min} to {max}, found {value}"),
            );
        }
        number
    }

    fn size(&mut self, object: &Object<'_>) -> u64 {
        let Some(value) = object.members.get("maxSizeMegabytes") else {
            return SIZES_MEGABYTES[0] * MEGABYTE;
        };
        match value.as_u64().filter(|size| SIZES_MEGABYTES.contains(size)) {
            Some(size) => size * MEGABYTE,
            None => {
                self.wrong(
                    &object.at("maxSizeMegabytes"),
                    format!("must be one of {SIZES_MEGABYTES:?}, found {value}"),
                );
                0
            }
        }
    }

    fn duplicate_detection(&mut self, object: &Object<'_>) -> Option<Duration> {
        let member = "duplicateDetectionWindow";
        self.duration(object, member, DUPLICATE_DETECTION_MIN, Some(DUPLICATE_DETECTION_MAX))
    }

    fn duration(
        &mut self,
        object: &Object<'_>,
        member: &str,
        min: Duration,
        max: Option<Duration>,
    ) -> Option<Duration> {
        let text = self.text(object, member)?;
        let duration = text
            .parse::<Span>()
            .ok()
            .filter(|_| text.starts_with('P'))
            .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok())
            .and_then(|duration| Duration::try_from(duration).ok());
        let Some(duration) = duration else {
            self.wrong(
                &object.at(member),
                format!("`{text}` is no duration: write e.g. `PT1M`, `PT30S` or `P14D`"),
            );
            return None;
        };
        if duration < min || max.is_some_and(|max| duration > max) {
            let most = max.map_or(String::new(), |max| format!(" and at most {} seconds", max.as_secs()));
            let problem = format!("`{text}` is out of range: at least {} seconds{most}", min.as_secs());
            self.wrong(&object.at(member), problem);
            return None;
        }
        Some(duration)
    }
}

/// Names in lower case, and where they were declared.
#[derive(Default)]
struct Names(BTreeMap<String, String>);

/// The items of a list with their places; `prefix` ends with a dot, or is empty.
fn declared<'v>(members: &'v Map<String, Value>, member: &str, prefix: &str) -> Vec<(String, &'v Value)> {
    let items = members.get(member).and_then(Value::as_array).into_iter().flatten();
    items.enumerate().map(|(index, value)| (format!("{prefix}{member}[{index}]"), value)).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
