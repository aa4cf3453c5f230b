//! Whether an envelope has the fields, the order and the formats of the events page's sample.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::output::scalar;

/// The ten fields of every envelope.
const FIELDS: [&str; 10] = [
    "eventId",
    "eventType",
    "tenantId",
    "projectId",
    "moduleId",
    "traceId",
    "correlationId",
    "causationId",
    "occurredAt",
    "payload",
];
/// The fields of the payload of RuntimeDeploymentCompleted.
const PAYLOAD: [&str; 7] =
    ["deploymentId", "environmentId", "target", "image", "previousImage", "healthGate", "strategy"];
/// Digits of the ids that are no UUIDs.
const SHORT_DIGITS: usize = 8;

/// The form of a field.
#[derive(Clone, Copy)]
enum Form {
    /// A prefix, and a UUID.
    Uuid(&'static str),
    /// A prefix, and eight hexadecimal digits.
    Short(&'static str),
    /// A prefix, and a name.
    Slug(&'static str),
    /// A time in UTC, in whole seconds.
    Seconds,
    OneOf(&'static [&'static str]),
}

/// Everything in which the envelope of a RuntimeDeploymentCompleted differs from the sample.
pub fn problems(envelope: &Value) -> Vec<String> {
    let mut found = Vec::new();
    order("the envelope", envelope, &FIELDS, &mut found);
    order("the payload", &envelope["payload"], &PAYLOAD, &mut found);
    let forms = [
        ("/eventId", Form::Uuid("evt-")),
        ("/eventType", Form::OneOf(&["RuntimeDeploymentCompleted"])),
        ("/tenantId", Form::Slug("")),
        ("/projectId", Form::Slug("proj-")),
        ("/moduleId", Form::Slug("module-")),
        ("/traceId", Form::Short("trace-")),
        ("/correlationId", Form::Short("corr-")),
        ("/causationId", Form::Uuid("evt-")),
        ("/occurredAt", Form::Seconds),
        ("/payload/deploymentId", Form::Short("dep-")),
        ("/payload/environmentId", Form::Short("env-")),
        ("/payload/target", Form::OneOf(&["container-apps"])),
        ("/payload/healthGate", Form::OneOf(&["Passed"])),
        ("/payload/strategy", Form::OneOf(&["RollingHealthGated"])),
    ];
    for (pointer, form) in forms {
        let value = envelope.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if !fits(value, form) {
            found.push(format!("{} is `{value}`", pointer.trim_start_matches('/').replace('/', ".")));
        }
    }
    found
}

fn order(what: &str, object: &Value, expected: &[&str], found: &mut Vec<String>) {
    let names = object.as_object().map(|members| members.keys().map(String::as_str).collect::<Vec<_>>());
    match names {
        Some(names) if names == expected => {}
        Some(names) => found.push(format!("{what} has {}, not {}", names.join(", "), expected.join(", "))),
        None => found.push(format!("{what} is `{}`, no object", scalar(object))),
    }
}

fn fits(value: &str, form: Form) -> bool {
    let after = |prefix: &str| value.strip_prefix(prefix).filter(|rest| !rest.is_empty());
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match form {
        Form::Uuid(prefix) => {
            after(prefix).is_some_and(|rest| rest.len() == 36 && Uuid::try_parse(rest).is_ok())
        }
        Form::Short(prefix) => {
            after(prefix).is_some_and(|rest| rest.len() == SHORT_DIGITS && rest.bytes().all(is_hex))
        }
        Form::Slug(prefix) => after(prefix).is_some_and(|rest| {
            rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        }),
        Form::Seconds => {
            value.len() == "2026-03-02T10:15:30Z".len()
                && value.parse::<Timestamp>().is_ok_and(|at| at.to_string() == value)
        }
        Form::OneOf(words) => words.contains(&value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn completed() -> Value {
        json!({
            "eventId": "evt-3a6e1f0c-6f0b-4f5e-9d0e-2f6b7a1c9e11",
            "eventType": "RuntimeDeploymentCompleted",
            "tenantId": "connectsoft",
            "projectId": "proj-booking-saas",
            "moduleId": "module-reservations-api",
            "traceId": "trace-0a1b2c3d",
            "correlationId": "corr-0a1b2c3d",
            "causationId": "evt-9d0e1f0c-6f0b-4f5e-9d0e-2f6b7a1c9e12",
            "occurredAt": "2026-03-02T10:15:30Z",
            "payload": {
                "deploymentId": "dep-0a1b2c3d",
                "environmentId": "env-0a1b2c3d",
                "target": "container-apps",
                "image": "a:2",
                "previousImage": "a:1",
                "healthGate": "Passed",
                "strategy": "RollingHealthGated",
            },
        })
    }

    #[test]
    fn an_envelope_like_the_sample_has_no_problem() {
        assert_eq!(problems(&completed()), Vec::<String>::new());
    }

    #[test]
    fn a_field_out_of_place_and_one_of_another_form_are_told() {
        let mut envelope = completed();
        envelope["occurredAt"] = json!("2026-03-02T10:15:30.25Z");
        envelope["causationId"] = json!("dep-1");
        let target = envelope["payload"].as_object_mut().unwrap().shift_remove("target").unwrap();
        envelope["payload"]["target"] = target;
        assert_eq!(
            problems(&envelope),
            [
                "the payload has deploymentId, environmentId, image, previousImage, healthGate, strategy, target, \
                 not deploymentId, environmentId, target, image, previousImage, healthGate, strategy",
                "causationId is `dep-1`",
                "occurredAt is `2026-03-02T10:15:30.25Z`",
            ]
        );
    }
}
