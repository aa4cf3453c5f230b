//! An event in words: when, what, about whom, because of what.

use serde_json::Value;

use crate::output::{Out, Tint, clock, scalar, text, tint_of};

/// Characters of an id that tell it apart for an eye: a prefix and eight digits.
const SHORT_DIGITS: usize = 8;
/// Characters of a version's name that tell it apart for an eye.
const VERSION_SHOWN: usize = 8;
/// The width that most event types fit in, in characters.
const TYPE_WIDTH: usize = 30;

/// An id as short as an eye needs it: `evt-3a6e1f0c` of `evt-3a6e1f0c-6f0b-...`.
pub fn short(id: &str) -> &str {
    let Some((prefix, rest)) = id.split_once('-') else { return id };
    let is_uuid = rest.len() == 36 && rest.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if is_uuid { &id[..prefix.len() + 1 + SHORT_DIGITS] } else { id }
}

/// What an event is about: the most particular thing that its payload names.
pub fn subject(envelope: &Value) -> String {
    let payload = &envelope["payload"];
    let first = [
        "deploymentId",
        "findingId",
        "secretBindingId",
        "configurationId",
        "scalingPolicyId",
        "tenantBindingId",
        "healthCheckId",
        "commandId",
        "serviceId",
        "environmentId",
    ];
    let thing = first.into_iter().map(|member| text(payload, member)).find(|text| !text.is_empty());
    thing
        .map(|thing| short(&thing).to_owned())
        .or_else(|| envelope["moduleId"].as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// What an event says, as a sentence without its subject's id.
pub fn sentence(envelope: &Value) -> String {
    let payload = &envelope["payload"];
    let member = |name: &str| text(payload, name);
    let with = |before: &str, name: &str| {
        let value = member(name);
        if value.is_empty() { String::new() } else { format!("{before}{value}") }
    };
    match text(envelope, "eventType").as_str() {
        "RuntimeEnvironmentProvisioned" => format!(
            "environment {} ({}, {}) is provisioned for {}",
            member("name"),
            member("stage"),
            member("region"),
            member("computeTargets")
        ),
        "RuntimeDeploymentRequested" if member("image") == member("previousImage") => {
            format!("{} is rolled out anew in {}", member("image"), member("environmentId"))
        }
        "RuntimeDeploymentRequested" => {
            format!(
                "{} is to run in {}{}",
                member("image"),
                member("environmentId"),
                with(" in place of ", "previousImage")
            )
        }
        "RuntimeDeploymentCompleted" => format!(
            "{} runs in {}{}{}",
            member("image"),
            member("environmentId"),
            with(", before it ", "previousImage"),
            with(", gate ", "healthGate")
        ),
        "RuntimeDeploymentRolledBack" => {
            format!(
                "{} was taken back ({}){}",
                member("image"),
                member("reason"),
                with(", now serving ", "restoredImage")
            )
        }
        "RuntimeCommandFailed" => {
            format!(
                "{} {}: {} ({})",
                member("commandType"),
                member("outcome"),
                member("detail"),
                member("reasonCode")
            )
        }
        "RuntimeCommandCompleted" => {
            format!("{} {}: {}", member("commandType"), member("outcome"), member("detail"))
        }
        "RuntimeTenantBound" => format!("{} as {}", member("change"), member("isolationModel")),
        "RuntimeEnvironmentDecommissioned" => format!("{} is gone", member("environmentId")),
        "RuntimeInventoryUpdated" => format!(
            "{}: {} is {}, {}",
            member("change"),
            member("image"),
            member("status"),
            counted(&member("replicas"), "replica")
        ),
        "ConfigurationPublished" => {
            let services = payload["serviceIds"].as_array().map_or(0, Vec::len);
            format!(
                "version {} is wanted of {}",
                member("version"),
                counted(&services.to_string(), "service")
            )
        }
        "ConfigurationSynced" => format!("version {} is in place at {}", member("version"), module(envelope)),
        "SecretBound" => format!(
            "{} reads {} in version {}",
            module(envelope),
            member("secretName"),
            abridged(&member("version"))
        ),
        "SecretRotated" => format!(
            "{} moves from version {} to {} ({})",
            member("secretName"),
            abridged(&member("previousVersion")),
            abridged(&member("newVersion")),
            member("reason")
        ),
        "HealthCheckCompleted" => {
            format!("{} is {}{}", module(envelope), member("status"), with(", was ", "previousStatus"))
        }
        "ScalingPolicyApplied" => format!(
            "{} from {} to {} replicas: {}",
            member("direction"),
            member("fromReplicas"),
            member("toReplicas"),
            member("reason")
        ),
        "RuntimeDriftDetected" => format!(
            "{} ({}) at {}: {} is desired, and {} is there",
            member("kind"),
            member("severity"),
            module(envelope),
            or_nothing(&payload["desired"]),
            or_nothing(&payload["actual"])
        ),
        "RuntimeDriftResolved" => {
            format!("{} at {} is {}", member("kind"), module(envelope), member("resolution"))
        }
        _ => members(payload),
    }
}

/// Whose event it is: its module, or its environment as a whole.
fn module(envelope: &Value) -> String {
    let module = text(envelope, "moduleId");
    if module.is_empty() { text(&envelope["payload"], "environmentId") } else { module }
}

fn or_nothing(value: &Value) -> String {
    if value.is_null() { "nothing".to_owned() } else { scalar(value) }
}

fn counted(number: &str, what: &str) -> String {
    if number == "1" { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// The beginning of a name that no eye reads to its end, as Key Vault's of versions.
fn abridged(name: &str) -> &str {
    name.get(..VERSION_SHOWN).unwrap_or(name)
}

/// The scalar members of a payload that say more than ids do.
fn members(payload: &Value) -> String {
    let Some(members) = payload.as_object() else { return String::new() };
    members
        .iter()
        .filter(|(name, value)| !name.ends_with("Id") && !value.is_null() && !value.is_object())
        .map(|(name, value)| format!("{name} {}", scalar(value)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// One event as one line for standard output: time, event, subject, what it says, cause.
/// `cause` is what caused it, in words, where that is known better than by its id.
pub fn line(out: &Out, envelope: &Value, cause: Option<&str>) -> String {
    let kind = text(envelope, "eventType");
    let padded = format!("{kind:TYPE_WIDTH$}");
    let cause = match (cause, envelope["causationId"].as_str()) {
        (Some(words), Some(id)) => format!("  <- {words} {}", short(id)),
        (None, Some(id)) => format!("  <- {}", short(id)),
        (_, None) => String::new(),
    };
    let said = sentence(envelope);
    let subject = subject(envelope);
    let subject = if said.is_empty() || subject.is_empty() { subject } else { format!("{subject}  ") };
    format!(
        "{}  {}  {subject}{said}{}",
        out.paint(Tint::Dim, &clock(&text(envelope, "occurredAt"))),
        out.paint(tint_of(&kind), &padded),
        out.paint(Tint::Dim, &cause)
    )
    .replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_told_in_one_line() {
        let envelope = json!({
            "eventId": "evt-1", "eventType": "RuntimeDeploymentCompleted", "moduleId": "module-a",
            "causationId": "evt-3a6e1f0c-6f0b-4f5e-9d0e-2f6b7a1c9e11", "occurredAt": "2026-03-02T10:15:30Z",
            "payload": {"deploymentId": "dep-1", "environmentId": "env-1", "image": "a:2", "previousImage": "a:1",
                        "healthGate": "Passed"}
        });
        assert_eq!(
            line(&Out::plain(), &envelope, None),
            "10:15:30Z  RuntimeDeploymentCompleted      dep-1  a:2 runs in env-1, before it a:1, gate Passed  <- evt-3a6e1f0c"
        );
    }

    #[test]
    fn a_failure_says_what_the_platform_said() {
        let envelope = json!({"eventType": "RuntimeCommandFailed", "payload": {
            "commandType": "Deploy", "outcome": "Rejected", "detail": "there is no `env-9`", "reasonCode": "EnvironmentNotFound"}});
        assert_eq!(sentence(&envelope), "Deploy Rejected: there is no `env-9` (EnvironmentNotFound)");
    }

    #[test]
    fn what_the_loop_tells_is_told_in_sentences() {
        let told = |kind: &str, module: Value, payload: Value| {
            sentence(&json!({ "eventType": kind, "moduleId": module, "payload": payload }))
        };
        assert_eq!(
            told(
                "SecretRotated",
                json!("m"),
                json!({"secretName": "db", "previousVersion": "0123456789ab", "newVersion": "v2", "reason": "Manual"})
            ),
            "db moves from version 01234567 to v2 (Manual)"
        );
        assert_eq!(
            told(
                "HealthCheckCompleted",
                json!("module-a"),
                json!({"status": "Unhealthy", "previousStatus": "Healthy"})
            ),
            "module-a is Unhealthy, was Healthy"
        );
        assert_eq!(
            told(
                "RuntimeDriftResolved",
                Value::Null,
                json!({"environmentId": "env-1", "kind": "ResourceMissing", "resolution": "Healed"})
            ),
            "ResourceMissing at env-1 is Healed"
        );
        assert_eq!(
            told("ConfigurationPublished", Value::Null, json!({"version": 2, "serviceIds": ["svc-1"]})),
            "version 2 is wanted of 1 service"
        );
    }

    #[test]
    fn an_event_that_is_not_known_is_told_by_its_members() {
        let envelope =
            json!({"eventType": "Novel", "payload": {"fooId": "x", "size": 3, "deep": {}, "none": null}});
        assert_eq!(sentence(&envelope), "size 3");
    }

    #[test]
    fn only_uuids_are_cut_short() {
        assert_eq!(short("evt-3a6e1f0c-6f0b-4f5e-9d0e-2f6b7a1c9e11"), "evt-3a6e1f0c");
        assert_eq!(short("dep-3a6e1f0c"), "dep-3a6e1f0c");
        assert_eq!(short("my-own-id-that-is-long"), "my-own-id-that-is-long");
    }
}
