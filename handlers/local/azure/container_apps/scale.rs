//! The scale of a template: the least and the most replicas of a revision, and the rules that say
//! how many there are in between.
//!
//! Absent on purpose: rules by what this machine does not measure (TCP connections, storage queues,
//! scalers of other services). They are refused: a rule that is kept and never acted on would be worse.

use serde_json::{Map, Value, json};

use super::rules::invalid;
use crate::local::azure::refusals::ArmError;

/// The most replicas of a revision that Azure takes.
const REPLICAS_MAX: u64 = 1000;
/// The most rules of a revision.
const RULES_MAX: usize = 20;
/// Requests at a time for each replica, where no rule says otherwise.
const CONCURRENT_REQUESTS: u32 = 10;
/// The replicas of a template that does not say how many, and for how many seconds nobody must have
/// asked for a revision before its last replica goes.
const REPLICAS_MAX_DEFAULT: u32 = 10;
const COOLDOWN_SECONDS_DEFAULT: u64 = 300;

/// What makes more replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::local::azure) enum Rule {
    /// So many requests at a time are for one replica.
    Http { concurrent: u32 },
    /// Replicas are to use so many percent of their processors.
    Cpu { percent: u32 },
    /// Replicas are to use so many percent of their memory.
    Memory { percent: u32 },
    /// So many waiting messages are for one replica.
    Queue { queue: String, messages: u32 },
}

/// How many replicas a revision may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::local::azure) struct Scale {
    /// 0 lets the revision go down to none while nobody asks for it.
    pub replicas_min: u32,
    pub replicas_max: u32,
    /// How long nobody must have asked for it.
    pub cooldown_seconds: u64,
    pub rules: Vec<Rule>,
}

impl Scale {
    /// The scale of a template that was taken. `ingress` says whether requests come to it: where no
    /// rule is written down, Azure scales such a revision by them.
    pub(super) fn of(template: &Value, ingress: bool) -> Self {
        let scale = &template["scale"];
        let number = |name: &str| scale[name].as_u64();
        let small = |name: &str, default: u32| {
            number(name).map_or(default, |number| u32::try_from(number).unwrap_or(u32::MAX))
        };
        let written = scale["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut rules = written.iter().filter_map(|rule| read(rule, "").ok()).collect::<Vec<_>>();
        if rules.is_empty() && ingress {
            rules.push(Rule::Http { concurrent: CONCURRENT_REQUESTS });
        }
        Self {
            replicas_min: small("minReplicas", 0),
            replicas_max: small("maxReplicas", REPLICAS_MAX_DEFAULT),
            cooldown_seconds: number("cooldownPeriod").unwrap_or(COOLDOWN_SECONDS_DEFAULT),
            rules,
        }
    }
}

/// Writes down what a template does not say.
pub(super) fn complete(scale: &mut Map<String, Value>) {
    let defaults = json!({
        "minReplicas": 0,
        "maxReplicas": REPLICAS_MAX_DEFAULT,
        "cooldownPeriod": COOLDOWN_SECONDS_DEFAULT,
        "pollingInterval": 30,
    });
    for (name, value) in defaults.as_object().into_iter().flatten() {
        scale.entry(name.clone()).or_insert_with(|| value.clone());
    }
}

/// `secrets` and `identities` are those that the app has, identities in lower case.
///
/// # Errors
/// When the numbers do not fit, or a rule is none that can be acted on.
pub(super) fn check(scale: &Value, secrets: &[String], identities: &[String]) -> Result<(), ArmError> {
    let number = |name: &str, default: u64, most: u64| match scale.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value.as_u64().filter(|number| *number <= most).ok_or_else(|| {
            invalid(&format!("template.scale.{name}"), &format!("it takes a number from 0 to {most}."))
        }),
    };
    let least = number("minReplicas", 0, REPLICAS_MAX)?;
    let most = number("maxReplicas", u64::from(REPLICAS_MAX_DEFAULT), REPLICAS_MAX)?;
    if most == 0 || least > most {
        return Err(invalid("template.scale", "maxReplicas must be at least 1 and not below minReplicas."));
    }
    number("cooldownPeriod", 0, 86_400)?;
    number("pollingInterval", 0, 86_400)?;
    let rules = match scale.get("rules") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(rules)) => rules,
        Some(_) => return Err(invalid("template.scale.rules", "it is a list of rules.")),
    };
    if rules.len() > RULES_MAX {
        let problem = format!("there are {} rules, at most {RULES_MAX} are allowed.", rules.len());
        return Err(invalid("template.scale.rules", &problem));
    }
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("template.scale.rules[{index}]");
        let name = |rule: &Value| rule.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        if name(rule).is_empty() {
            return Err(invalid(&format!("{field}.name"), "a rule needs a name."));
        }
        if rules[..index].iter().any(|other| name(other) == name(rule)) {
            let problem = format!("another rule is called `{}` too.", name(rule));
            return Err(invalid(&format!("{field}.name"), &problem));
        }
        let of_a_queue = matches!(read(rule, &field)?, Rule::Queue { .. });
        let kind = if rule["custom"].is_object() { "custom" } else { "http" };
        signs_in(&rule[kind], &format!("{field}.{kind}"), secrets, identities, of_a_queue)?;
    }
    Ok(())
}

/// Checks how a rule gets at its measure.
fn signs_in(
    rule: &Value,
    field: &str,
    secrets: &[String],
    identities: &[String],
    needed: bool,
) -> Result<(), ArmError> {
    let auth = rule["auth"].as_array().map(Vec::as_slice).unwrap_or_default();
    for entry in auth {
        let secret = entry["secretRef"].as_str().unwrap_or_default();
        if !secrets.iter().any(|known| known == secret) {
            return Err(ArmError::bad_request(
                "ContainerAppSecretRefNotFound",
                format!("`{field}.auth` refers to the secret `{secret}`, which the app does not have."),
            ));
        }
    }
    match rule["identity"].as_str().filter(|identity| !identity.is_empty()) {
        Some(identity) if !identities.contains(&identity.to_ascii_lowercase()) => Err(invalid(
            &format!("{field}.identity"),
            &format!("the identity `{identity}` is not assigned to the container app."),
        )),
        None if needed && auth.is_empty() => Err(invalid(
            field,
            "the rule needs `auth` with a connection, or the `identity` that may read the queue.",
        )),
        _ => Ok(()),
    }
}

fn read(rule: &Value, field: &str) -> Result<Rule, ArmError> {
    let kinds = ["http", "custom", "tcp", "azureQueue"];
    let given = kinds.into_iter().filter(|kind| rule[*kind].is_object()).collect::<Vec<_>>();
    match given.as_slice() {
        ["http"] => {
            let metadata = &rule["http"]["metadata"];
            let at = format!("{field}.http.metadata");
            let concurrent = match &metadata["concurrentRequests"] {
                Value::Null => CONCURRENT_REQUESTS,
                _ => positive(metadata, "concurrentRequests", &at)?,
            };
            Ok(Rule::Http { concurrent })
        }
        ["custom"] => custom(&rule["custom"], &format!("{field}.custom")),
        [kind] => Err(invalid(
            &format!("{field}.{kind}"),
            "this stand-in does not measure that; it knows http, and custom rules of type cpu, memory and azure-servicebus.",
        )),
        _ => Err(invalid(field, "a rule has exactly one of http, custom, tcp and azureQueue.")),
    }
}

fn custom(rule: &Value, field: &str) -> Result<Rule, ArmError> {
    let metadata = &rule["metadata"];
    let at = format!("{field}.metadata");
    let kind = rule["type"].as_str().unwrap_or_default();
    match kind {
        "cpu" | "memory" => {
            if metadata["type"] != json!("Utilization") {
                return Err(invalid(&format!("{at}.type"), "it is `Utilization` here."));
            }
            let percent = positive(metadata, "value", &at)?;
            Ok(if kind == "cpu" { Rule::Cpu { percent } } else { Rule::Memory { percent } })
        }
        "azure-servicebus" => {
            let text = |name: &str| metadata[name].as_str().filter(|text| !text.is_empty());
            let Some(queue) = text("queueName") else {
                return Err(invalid(
                    &format!("{at}.queueName"),
                    "the rule names the queue that it looks at.",
                ));
            };
            if text("namespace").is_none() && rule["auth"].as_array().is_none_or(Vec::is_empty) {
                let problem = "the rule names the namespace, where no connection tells it.";
                return Err(invalid(&format!("{at}.namespace"), problem));
            }
            let messages = match &metadata["messageCount"] {
                Value::Null => 5,
                _ => positive(metadata, "messageCount", &at)?,
            };
            Ok(Rule::Queue { queue: queue.to_owned(), messages })
        }
        _ => Err(invalid(
            &format!("{field}.type"),
            &format!("this stand-in does not measure `{kind}`; it knows cpu, memory and azure-servicebus."),
        )),
    }
}

/// Numbers in metadata are texts, as scalers take them.
fn positive(metadata: &Value, name: &str, field: &str) -> Result<u32, ArmError> {
    let number = metadata[name].as_str().and_then(|text| text.parse().ok());
    number
        .filter(|number| *number > 0)
        .ok_or_else(|| invalid(&format!("{field}.{name}"), "it takes a whole number above 0, as a text."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(rule: Value) -> Result<(), String> {
        let scale = json!({ "rules": [rule] });
        check(&scale, &["s".to_owned()], &["/id".to_owned()]).map_err(|error| error.message)
    }

    #[test]
    fn a_rule_is_one_that_can_be_acted_on() {
        let queue = |identity: &str| {
            json!({ "name": "q", "custom": { "type": "azure-servicebus", "identity": identity,
                "metadata": { "queueName": "orders", "namespace": "sb", "messageCount": "5" } } })
        };
        for good in [
            json!({ "name": "h", "http": { "metadata": { "concurrentRequests": "20" } } }),
            json!({ "name": "h", "http": { "auth": [{ "secretRef": "s", "triggerParameter": "t" }] } }),
            json!({ "name": "c", "custom": { "type": "cpu", "metadata": { "type": "Utilization", "value": "70" } } }),
            queue("/ID"),
        ] {
            assert_eq!(verdict(good.clone()), Ok(()), "{good}");
        }
        for (bad, says) in [
            (json!({ "http": {} }), "rules[0].name` is invalid: a rule needs a name"),
            (json!({ "name": "h" }), "exactly one of"),
            (json!({ "name": "h", "http": { "metadata": { "concurrentRequests": 20 } } }), "as a text"),
            (
                json!({ "name": "t", "tcp": {} }),
                "rules[0].tcp` is invalid: this stand-in does not measure that",
            ),
            (json!({ "name": "k", "custom": { "type": "kafka" } }), "does not measure `kafka`"),
            (
                json!({ "name": "c", "custom": { "type": "cpu", "metadata": { "type": "AverageValue", "value": "1" } } }),
                "`Utilization`",
            ),
            (queue("/other"), "not assigned"),
            (queue(""), "needs `auth`"),
        ] {
            let message = verdict(bad.clone()).unwrap_err();
            assert!(message.contains(says), "{bad}: {message}");
        }
    }

    #[test]
    fn two_rules_have_two_names_and_the_bounds_fit() {
        let rule = json!({ "name": "h", "http": {} });
        let twice = check(&json!({ "rules": [rule, rule] }), &[], &[]).unwrap_err();
        assert!(twice.message.contains("another rule is called `h` too"), "{twice}");
        let bounds = check(&json!({ "minReplicas": 3, "maxReplicas": 2 }), &[], &[]).unwrap_err();
        assert!(bounds.message.contains("template.scale"), "{bounds}");
    }

    #[test]
    fn without_a_rule_requests_scale_what_has_an_ingress() {
        let rules = |ingress| Scale::of(&json!({ "scale": { "minReplicas": 1 } }), ingress).rules;
        assert_eq!(rules(true), [Rule::Http { concurrent: 10 }]);
        assert_eq!(rules(false), []);
    }
}
