//! What a file holds, and the message that is made of it: a canonical envelope and a MassTransit
//! envelope are sent as they are, a bare payload gets an envelope around it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use runtime_platform::{
    envelope::{Envelope, whole_seconds},
    ids::{IdError, derive},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    bus::Mail,
    cli::{SendArgs, Wire},
    commands::kebab,
    failure::Failure,
    payload_check,
};

/// The longest message that is sent, in bytes: the platform's own limit.
pub const MESSAGE_BYTES_MAX: usize = 192 * 1024;
/// The version of what our commands carry, as their properties tell it.
const SCHEMA_VERSION: &str = "1";
const JSON: &str = "application/json";
const MASSTRANSIT: &str = "application/vnd.masstransit+json";
/// Under which names .NET finds the envelope.
const ENVELOPE_URN: &str = "urn:message:cs:event-envelope:v1";

/// A message, ready to go.
#[derive(Debug, PartialEq)]
pub struct Message {
    /// The canonical envelope in it.
    pub envelope: Envelope,
    pub mail: Mail,
}

/// Whose message it is to be.
#[derive(Clone, Copy, Default)]
pub struct Tenant<'a> {
    /// As asked for with this command; an envelope must not say otherwise.
    pub asked: Option<&'a str>,
    /// As the context says, where nobody else does.
    pub usual: Option<&'a str>,
}

/// Makes the message for `command` of what a file holds.
///
/// # Errors
/// When it is no JSON, no message of this command, or (unless unchecked) lacks something. All that
/// is wrong is said at once.
pub fn compose(
    command: &'static str,
    text: &str,
    args: &SendArgs,
    tenant: Tenant<'_>,
    now: Timestamp,
) -> Result<Message, Failure> {
    let file = if args.file.as_os_str() == "-" {
        "Standard input".into()
    } else {
        format!("`{}`", args.file.display())
    };
    let value: Value = serde_json::from_str(text).map_err(|error| {
        Failure::unusable(format!("{file} is no JSON: line {}, column {}", error.line(), error.column()))
            .advice("it has to hold a canonical envelope, a MassTransit envelope, or a payload")
    })?;
    let masstransit = is_masstransit(&value);
    let envelope = if masstransit {
        read_envelope(&file, &value["message"])?
    } else if is_envelope(&value) {
        read_envelope(&file, &value)?
    } else {
        wrap(command, value.clone(), args, tenant.asked.or(tenant.usual), now)?
    };
    agree(command, &file, &envelope, args, tenant.asked)?;
    let problems = payload_check::problems(command, &envelope.payload);
    if !problems.is_empty() && !args.unchecked {
        return Err(Failure::unusable(format!("{file} is no payload of {command}: {}", problems.join("; ")))
            .advice("correct it, or let the platform judge with --unchecked"));
    }
    let (content_type, body) = if masstransit {
        (MASSTRANSIT, value.to_string())
    } else if args.wire == Wire::Masstransit {
        (MASSTRANSIT, enclosed(&envelope).to_string())
    } else {
        (JSON, if is_envelope(&value) { value.to_string() } else { canonical(&envelope) })
    };
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(Failure::unusable(format!(
            "The message has {} bytes, {MESSAGE_BYTES_MAX} are allowed",
            body.len()
        ))
        .advice("make it smaller: what is large belongs into a store, and its address into the message"));
    }
    // A MassTransit envelope has an id of its own on the wire; a resend of it is a resend.
    let message_id = value["messageId"]
        .as_str()
        .filter(|_| masstransit)
        .and_then(|id| Uuid::try_parse(id).ok())
        .unwrap_or_else(|| envelope.event_id.broker_message_id());
    let mail = Mail {
        queue: args.queue.clone().unwrap_or_else(|| kebab(command)),
        message_id: message_id.to_string(),
        correlation_id: Some(envelope.correlation_id.to_string()),
        content_type,
        properties: BTreeMap::from([
            ("cs-event-type", envelope.event_type.clone()),
            ("cs-tenant-id", envelope.tenant_id.to_string()),
            ("cs-trace-id", envelope.trace_id.to_string()),
            ("cs-correlation-id", envelope.correlation_id.to_string()),
            ("cs-schema-version", SCHEMA_VERSION.to_owned()),
        ]),
        body: body.into_bytes(),
    };
    Ok(Message { envelope, mail })
}

fn is_masstransit(value: &Value) -> bool {
    value["message"].is_object()
        && (value.get("messageType").is_some() || value.get("destinationAddress").is_some())
}

fn is_envelope(value: &Value) -> bool {
    value.get("payload").is_some()
        && ["eventId", "eventType", "tenantId"].iter().any(|name| value.get(name).is_some())
}

fn read_envelope(file: &str, value: &Value) -> Result<Envelope, Failure> {
    serde_json::from_value(value.clone()).map_err(|error| {
        Failure::unusable(format!("{file} holds an envelope that cannot be read")).because(&error).advice(
            "an envelope has eventId, eventType, tenantId, traceId, correlationId, occurredAt and payload; \
             write just the payload to have the rest made",
        )
    })
}

/// The ten fields as compact JSON.
pub fn canonical(envelope: &Envelope) -> String {
    serde_json::to_string(envelope).expect("an envelope has text keys only")
}

/// An envelope around a payload.
fn wrap(
    command: &'static str,
    payload: Value,
    args: &SendArgs,
    tenant: Option<&str>,
    now: Timestamp,
) -> Result<Envelope, Failure> {
    let Some(tenant) = tenant else {
        return Err(Failure::unusable("A payload alone does not say whose it is")
            .advice("pass --tenant, set RUNTIME_TENANT, or write `tenant` into the context"));
    };
    if command == "ProvisionEnvironment" && args.project.is_none() {
        return Err(Failure::unusable(
            "ProvisionEnvironment needs a project: an environment is its tenant, project and name",
        )
        .advice("pass --project"));
    }
    let new = |prefix: &str| format!("{prefix}{}", &Uuid::new_v4().simple().to_string()[..8]);
    let module = args.module.clone().or_else(|| module_of(&payload));
    Ok(Envelope {
        event_id: id(
            "--event-id",
            args.event_id.clone().unwrap_or_else(|| format!("evt-{}", Uuid::new_v4())),
        )?,
        event_type: command.to_owned(),
        tenant_id: id("--tenant", tenant.to_owned())?,
        project_id: args.project.clone().map(|project| id("--project", project)).transpose()?,
        module_id: module.map(|module| id("--module", module)).transpose()?,
        trace_id: id("--trace-id", args.trace_id.clone().unwrap_or_else(|| new("trace-")))?,
        correlation_id: id("--correlation-id", args.correlation_id.clone().unwrap_or_else(|| new("corr-")))?,
        causation_id: None,
        occurred_at: now,
        payload,
    })
}

/// The module that a payload names, where it names one.
fn module_of(payload: &Value) -> Option<String> {
    payload["moduleId"].as_str().or_else(|| payload["workloads"][0]["moduleId"].as_str()).map(str::to_owned)
}

fn id<T: TryFrom<String, Error = IdError>>(option: &str, text: String) -> Result<T, Failure> {
    T::try_from(text).map_err(|error| {
        Failure::unusable(format!("The value of {option} {error}"))
            .advice("an id has 1 to 128 characters of printable ASCII")
    })
}

/// What was typed must not contradict what the file says.
fn agree(
    command: &str,
    file: &str,
    envelope: &Envelope,
    args: &SendArgs,
    tenant: Option<&str>,
) -> Result<(), Failure> {
    let said = [
        ("COMMAND", Some(command), Some(envelope.event_type.as_str()), "eventType"),
        ("--tenant (or RUNTIME_TENANT)", tenant, Some(envelope.tenant_id.as_str()), "tenantId"),
        ("--project", args.project.as_deref(), envelope.project_id.as_ref().map(AsRef::as_ref), "projectId"),
        ("--module", args.module.as_deref(), envelope.module_id.as_ref().map(AsRef::as_ref), "moduleId"),
        (
            "--correlation-id",
            args.correlation_id.as_deref(),
            Some(envelope.correlation_id.as_str()),
            "correlationId",
        ),
        ("--trace-id", args.trace_id.as_deref(), Some(envelope.trace_id.as_str()), "traceId"),
        ("--event-id", args.event_id.as_deref(), Some(envelope.event_id.as_str()), "eventId"),
    ];
    for (option, typed, written, field) in said {
        let Some(typed) = typed else { continue };
        if Some(typed) != written {
            return Err(Failure::unusable(format!(
                "{file} and the command line disagree: `{field}` is `{}`, {option} says `{typed}`",
                written.unwrap_or("null")
            ))
            .advice("an envelope is sent as it is: change it, or leave the option out"));
        }
    }
    Ok(())
}

/// The canonical envelope inside MassTransit's.
fn enclosed(envelope: &Envelope) -> Value {
    json!({
        "messageId": envelope.event_id.broker_message_id(),
        "requestId": null,
        "correlationId": null,
        "conversationId": derive(&["conversation", envelope.correlation_id.as_str()]),
        "initiatorId": null,
        "sourceAddress": null,
        "destinationAddress": null,
        "responseAddress": null,
        "faultAddress": null,
        "messageType": [ENVELOPE_URN, format!("urn:message:ConnectSoft.Factory.Runtime:{}", envelope.event_type)],
        "message": envelope,
        "expirationTime": null,
        "sentTime": whole_seconds::text(envelope.occurred_at),
        "headers": {
            "cs-event-type": envelope.event_type,
            "cs-tenant-id": envelope.tenant_id,
            "cs-trace-id": envelope.trace_id,
            "cs-correlation-id": envelope.correlation_id,
            "cs-schema-version": SCHEMA_VERSION,
        },
        "host": {"processName": "runtimectl"},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> SendArgs {
        SendArgs {
            command: "deploy".into(),
            file: "deploy.json".into(),
            project: None,
            module: None,
            correlation_id: Some("corr-1".into()),
            trace_id: Some("trace-1".into()),
            event_id: Some("evt-3a6e1f0c-6f0b-4f5e-9d0e-2f6b7a1c9e11".into()),
            queue: None,
            wait: false,
            timeout: std::time::Duration::from_secs(1),
            wire: Wire::Raw,
            unchecked: false,
        }
    }

    fn asked(tenant: &str) -> Tenant<'_> {
        Tenant { asked: Some(tenant), usual: Some("usual") }
    }

    fn at() -> Timestamp {
        "2026-03-02T10:15:30.25Z".parse().unwrap()
    }

    const PAYLOAD: &str = r#"{"environmentId":"env-1","workloads":[{"moduleId":"module-a","componentType":"api","image":"a/b:1","target":"aks"}]}"#;

    fn told(result: Result<Message, Failure>) -> String {
        match result {
            Err(Failure::Told { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_payload_gets_the_envelope_that_the_options_describe() {
        let message = compose("Deploy", PAYLOAD, &args(), asked("acme"), at()).unwrap();
        let body = format!(
            "{{\"eventId\":\"evt-3a6e1f0c-6f0b-4f5e-9d0e-2f6b7a1c9e11\",\"eventType\":\"Deploy\",\"tenantId\":\"acme\",\
             \"projectId\":null,\"moduleId\":\"module-a\",\"traceId\":\"trace-1\",\"correlationId\":\"corr-1\",\
             \"causationId\":null,\"occurredAt\":\"2026-03-02T10:15:30Z\",\"payload\":{PAYLOAD}}}"
        );
        assert_eq!(
            message.mail,
            Mail {
                queue: "deploy".into(),
                message_id: "3a6e1f0c-6f0b-4f5e-9d0e-2f6b7a1c9e11".into(),
                correlation_id: Some("corr-1".into()),
                content_type: JSON,
                properties: BTreeMap::from([
                    ("cs-event-type", "Deploy".into()),
                    ("cs-tenant-id", "acme".into()),
                    ("cs-trace-id", "trace-1".into()),
                    ("cs-correlation-id", "corr-1".into()),
                    ("cs-schema-version", "1".into()),
                ]),
                body: body.into_bytes(),
            }
        );
    }

    #[test]
    fn what_is_not_given_is_made_anew_each_time() {
        let bare = SendArgs { correlation_id: None, trace_id: None, event_id: None, ..args() };
        let one = compose("Deploy", PAYLOAD, &bare, asked("acme"), at()).unwrap().envelope;
        let two = compose("Deploy", PAYLOAD, &bare, asked("acme"), at()).unwrap().envelope;
        assert_ne!(one.event_id, two.event_id);
        assert!(one.event_id.as_str().starts_with("evt-") && one.event_id.as_str().len() == 40);
        assert!(one.trace_id.as_str().starts_with("trace-") && one.trace_id.as_str().len() == 14);
        assert!(one.correlation_id.as_str().starts_with("corr-") && one.correlation_id.as_str().len() == 13);
    }

    #[test]
    fn an_envelope_is_sent_as_it_is_in_either_form() {
        let made = compose("Deploy", PAYLOAD, &args(), asked("acme"), at()).unwrap();
        let text = String::from_utf8(made.mail.body.clone()).unwrap();
        assert_eq!(compose("Deploy", &text, &args(), Tenant::default(), at()).unwrap().mail, made.mail);

        let enclosed = enclosed(&made.envelope).to_string();
        assert!(enclosed.contains(&text), "the canonical envelope stands in it to the byte");
        let again = compose("Deploy", &enclosed, &args(), Tenant::default(), at()).unwrap();
        assert_eq!(again.mail.content_type, MASSTRANSIT);
        assert_eq!(String::from_utf8(again.mail.body).unwrap(), enclosed);
        assert_eq!(again.mail.message_id, "3a6e1f0c-6f0b-4f5e-9d0e-2f6b7a1c9e11");
    }

    #[test]
    fn what_contradicts_itself_is_not_sent() {
        let text = compose("Deploy", PAYLOAD, &args(), asked("acme"), at()).unwrap().mail.body;
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            told(compose("Deploy", &text, &args(), asked("other"), at())),
            "`deploy.json` and the command line disagree: `tenantId` is `acme`, --tenant (or RUNTIME_TENANT) says `other`"
        );
        assert_eq!(
            told(compose("RotateSecret", &text, &args(), Tenant::default(), at())),
            "`deploy.json` and the command line disagree: `eventType` is `Deploy`, COMMAND says `RotateSecret`"
        );
    }

    #[test]
    fn what_cannot_be_right_is_said_before_it_is_sent() {
        assert_eq!(
            told(compose("Deploy", "{\n oops", &args(), Tenant::default(), at())),
            "`deploy.json` is no JSON: line 2, column 2"
        );
        assert_eq!(
            told(compose("Deploy", "{}", &args(), Tenant::default(), at())),
            "A payload alone does not say whose it is"
        );
        assert!(
            told(compose("Deploy", "{}", &args(), asked("a"), at())).contains("`environmentId` is missing")
        );
        let unchecked = SendArgs { unchecked: true, ..args() };
        assert!(compose("Deploy", "{}", &unchecked, asked("a"), at()).is_ok());
        assert!(
            told(compose("ProvisionEnvironment", "{}", &args(), asked("a"), at()))
                .contains("needs a project")
        );
        let large = format!("{{\"environmentId\":\"{}\"}}", "x".repeat(MESSAGE_BYTES_MAX));
        assert!(told(compose("Deploy", &large, &unchecked, asked("a"), at())).contains("196608 are allowed"));
    }
}
