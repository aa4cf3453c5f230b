//! What a file holds, and the message that is made of it: a canonical envelope and a MassTransit
//! envelope are sent as they are, a bare payload gets an envelope around it.

use jiff::Timestamp;
use runtime_platform::{
    envelope::Envelope,
    events::queue_name,
    ids::IdError,
    masstransit::{Delivered, PUBLISHED_BYTES_MAX, Published, Received, WireFormat, publish, read},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    bus::Mail,
    cli::{SendArgs, Wire},
    failure::Failure,
    payload_check,
};

/// The version of what our commands carry, as their properties tell it.
const SCHEMA_VERSION: &str = "1";

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
    namespace_host: &str,
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
    let given = given_form(&value);
    let received = given.map(|form| understood(&file, form, &value)).transpose()?;
    // A MassTransit envelope has an id of its own on the wire; a resend of it is a resend.
    let own_id = received
        .as_ref()
        .filter(|_| given == Some(WireFormat::MassTransit))
        .and_then(|it| it.dedupe_key.as_deref());
    let own_id = own_id.and_then(|id| Uuid::try_parse(id).ok());
    let envelope = match received {
        Some(received) => received.envelope,
        None => wrap(command, value.clone(), args, tenant.asked.or(tenant.usual), now)?,
    };
    agree(command, &file, &envelope, args, tenant.asked)?;
    let problems = payload_check::problems(command, &envelope.payload);
    if !problems.is_empty() && !args.unchecked {
        return Err(Failure::unusable(format!("{file} is no payload of {command}: {}", problems.join("; ")))
            .advice("correct it, or let the platform judge with --unchecked"));
    }
    let as_it_is = given.map(|form| (form, &value));
    let mail = posted(command, &envelope, own_id, as_it_is, args, namespace_host)?;
    Ok(Message { envelope, mail })
}

/// The message as it goes to the broker; `given` is what the file held of it, and in which form.
fn posted(
    command: &'static str,
    envelope: &Envelope,
    own_id: Option<Uuid>,
    given: Option<(WireFormat, &Value)>,
    args: &SendArgs,
    namespace_host: &str,
) -> Result<Mail, Failure> {
    let queue = args.queue.clone().unwrap_or_else(|| queue_name(command));
    let wire = match (given, args.wire) {
        (Some((WireFormat::MassTransit, _)), _) | (_, Wire::Masstransit) => WireFormat::MassTransit,
        (_, Wire::Raw) => WireFormat::Raw,
    };
    let Published { content_type, body, properties } =
        publish(envelope, SCHEMA_VERSION, wire, None, None, &queue, namespace_host);
    let body = match (given, wire) {
        (Some((form, value)), wire) if form == wire => value.to_string().into_bytes(),
        (_, WireFormat::Raw) => body,
        (_, WireFormat::MassTransit) => to_a_queue(&body, &queue, namespace_host),
    };
    if body.len() > PUBLISHED_BYTES_MAX {
        return Err(Failure::unusable(format!(
            "The message has {} bytes, {PUBLISHED_BYTES_MAX} are allowed",
            body.len()
        ))
        .advice("make it smaller: what is large belongs into a store, and its address into the message"));
    }
    Ok(Mail {
        queue,
        message_id: own_id.unwrap_or_else(|| envelope.event_id.broker_message_id()).to_string(),
        correlation_id: Some(envelope.correlation_id.to_string()),
        content_type,
        properties,
        body,
    })
}

/// The form of the envelope that a file holds; none where it holds just a payload.
fn given_form(value: &Value) -> Option<WireFormat> {
    let has = |name: &str| value.get(name).is_some();
    if value["message"].is_object() && (has("messageType") || has("destinationAddress")) {
        Some(WireFormat::MassTransit)
    } else if has("payload") && (has("eventId") || has("eventType") || has("tenantId")) {
        Some(WireFormat::Raw)
    } else {
        None
    }
}

/// Reads an envelope just as the platform will.
fn understood(file: &str, form: WireFormat, value: &Value) -> Result<Received, Failure> {
    let (properties, body) = (Map::new(), value.to_string());
    let delivered = Delivered {
        content_type: Some(form.content_type()),
        properties: &properties,
        message_id: None,
        body: body.as_bytes(),
    };
    read(&delivered).map_err(|error| {
        Failure::unusable(format!("{file} holds an envelope that the platform would not read"))
            .because(&error)
            .advice("correct it, or write just the payload to have an envelope made around it")
    })
}

/// The published form is addressed to a topic, as events are; a command goes to a queue.
fn to_a_queue(body: &[u8], queue: &str, namespace_host: &str) -> Vec<u8> {
    let mut wrapper: Value = serde_json::from_slice(body).expect("what was just written is JSON");
    wrapper["destinationAddress"] = json!(format!("sb://{namespace_host}/{queue}"));
    wrapper.to_string().into_bytes()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
        let message = compose("Deploy", PAYLOAD, &args(), asked("acme"), "bus.localhost", at()).unwrap();
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
                content_type: "application/json",
                properties: BTreeMap::from([
                    ("cs-event-type".into(), "Deploy".into()),
                    ("cs-tenant-id".into(), "acme".into()),
                    ("cs-trace-id".into(), "trace-1".into()),
                    ("cs-correlation-id".into(), "corr-1".into()),
                    ("cs-schema-version".into(), "1".into()),
                ]),
                body: body.into_bytes(),
            }
        );
    }

    #[test]
    fn what_is_not_given_is_made_anew_each_time() {
        let bare = SendArgs { correlation_id: None, trace_id: None, event_id: None, ..args() };
        let one = compose("Deploy", PAYLOAD, &bare, asked("acme"), "bus.localhost", at()).unwrap().envelope;
        let two = compose("Deploy", PAYLOAD, &bare, asked("acme"), "bus.localhost", at()).unwrap().envelope;
        assert_ne!(one.event_id, two.event_id);
        assert!(one.event_id.as_str().starts_with("evt-") && one.event_id.as_str().len() == 40);
        assert!(one.trace_id.as_str().starts_with("trace-") && one.trace_id.as_str().len() == 14);
        assert!(one.correlation_id.as_str().starts_with("corr-") && one.correlation_id.as_str().len() == 13);
    }

    #[test]
    fn an_envelope_is_sent_as_it_is_in_either_form() {
        let made = compose("Deploy", PAYLOAD, &args(), asked("acme"), "bus.localhost", at()).unwrap();
        let text = String::from_utf8(made.mail.body.clone()).unwrap();
        assert_eq!(
            compose("Deploy", &text, &args(), Tenant::default(), "bus.localhost", at()).unwrap().mail,
            made.mail
        );

        let wire = SendArgs { wire: Wire::Masstransit, ..args() };
        let enclosed =
            compose("Deploy", &text, &wire, Tenant::default(), "bus.localhost", at()).unwrap().mail;
        let enclosed_text = String::from_utf8(enclosed.body.clone()).unwrap();
        assert_eq!(enclosed.content_type, "application/vnd.masstransit+json");
        assert!(enclosed_text.contains(&text), "the canonical envelope stands in it to the byte");
        assert!(enclosed_text.contains(r#""destinationAddress":"sb://bus.localhost/deploy""#));
        let again =
            compose("Deploy", &enclosed_text, &args(), Tenant::default(), "elsewhere", at()).unwrap().mail;
        assert_eq!(again, enclosed);
    }

    #[test]
    fn what_contradicts_itself_is_not_sent() {
        let text =
            compose("Deploy", PAYLOAD, &args(), asked("acme"), "bus.localhost", at()).unwrap().mail.body;
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            told(compose("Deploy", &text, &args(), asked("other"), "bus.localhost", at())),
            "`deploy.json` and the command line disagree: `tenantId` is `acme`, --tenant (or RUNTIME_TENANT) says `other`"
        );
        assert_eq!(
            told(compose("RotateSecret", &text, &args(), Tenant::default(), "bus.localhost", at())),
            "`deploy.json` and the command line disagree: `eventType` is `Deploy`, COMMAND says `RotateSecret`"
        );
    }

    #[test]
    fn what_cannot_be_right_is_said_before_it_is_sent() {
        assert_eq!(
            told(compose("Deploy", "{\n oops", &args(), Tenant::default(), "bus.localhost", at())),
            "`deploy.json` is no JSON: line 2, column 2"
        );
        assert_eq!(
            told(compose("Deploy", "{}", &args(), Tenant::default(), "bus.localhost", at())),
            "A payload alone does not say whose it is"
        );
        assert!(
            told(compose("Deploy", "{}", &args(), asked("a"), "bus.localhost", at()))
                .contains("`environmentId` is missing")
        );
        let unchecked = SendArgs { unchecked: true, ..args() };
        assert!(compose("Deploy", "{}", &unchecked, asked("a"), "bus.localhost", at()).is_ok());
        assert!(
            told(compose("ProvisionEnvironment", "{}", &args(), asked("a"), "bus.localhost", at()))
                .contains("needs a project")
        );
        let large = format!("{{\"environmentId\":\"{}\"}}", "x".repeat(PUBLISHED_BYTES_MAX));
        assert!(
            told(compose("Deploy", &large, &unchecked, asked("a"), "bus.localhost", at()))
                .contains("196608 are allowed")
        );
    }
}
