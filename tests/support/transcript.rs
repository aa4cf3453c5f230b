//! What happened, as lines of text: commands as they were sent, changes of the world, and events as
//! they were published, each with its time, type, subject and cause.

use std::collections::BTreeMap;

use jiff::Timestamp;
use runtime_platform::{envelope::Envelope, ports::bus::Outgoing};
use serde_json::Value;

/// An event as it was published.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedEvent {
    pub topic: String,
    /// The aggregate, as the session id tells it.
    pub aggregate: String,
    pub sequence: u64,
    pub properties: BTreeMap<String, String>,
    pub envelope: Envelope,
}

impl PublishedEvent {
    /// Reads what a consumer would: either wire format.
    pub fn read(message: &Outgoing) -> Self {
        let body: Value = serde_json::from_slice(&message.body).expect("a published body is JSON");
        let envelope = body.get("message").cloned().unwrap_or(body);
        Self {
            topic: message.entity.clone(),
            aggregate: message.session_id.clone().expect("an event has a session"),
            sequence: message.properties["cs-sequence"].parse().expect("a sequence is a number"),
            properties: message.properties.clone(),
            envelope: serde_json::from_value(envelope).expect("an event is in the canonical envelope"),
        }
    }

    pub fn event_type(&self) -> &str {
        &self.envelope.event_type
    }

    /// Everything of it but the time, for comparing runs that took different times.
    pub fn timeless(&self) -> String {
        let mut envelope = serde_json::to_value(&self.envelope).expect("an envelope is JSON");
        envelope["occurredAt"] = Value::Null;
        if let Some(payload) = envelope.get_mut("payload").and_then(Value::as_object_mut) {
            payload.remove("provisionedAt");
            payload.remove("rotatedAt");
            payload.remove("resolvedAt");
        }
        format!("{} {} {} {envelope}", self.topic, self.aggregate, self.sequence)
    }
}

/// One line of the story.
#[derive(Clone, Debug)]
pub enum Line {
    Sent { at: Timestamp, command: String, event_id: String },
    Changed { at: Timestamp, what: String },
    Happened { at: Timestamp, event: Box<PublishedEvent> },
}

/// The lines as text. Causes are told by what they were: a command by its id, an event by its type.
pub fn text(lines: &[Line]) -> String {
    let mut types = BTreeMap::new();
    for line in lines {
        if let Line::Happened { event, .. } = line {
            types.insert(event.envelope.event_id.to_string(), event.event_type().to_owned());
        }
    }
    let mut text = String::new();
    for line in lines {
        let (at, line) = match line {
            Line::Sent { at, command, event_id } => (at, format!("> {command} {event_id}")),
            Line::Changed { at, what } => (at, format!("~ {what}")),
            Line::Happened { at, event } => {
                let cause = event.envelope.causation_id.clone().unwrap_or_default();
                let cause = types.get(&cause).cloned().unwrap_or(cause);
                (
                    at,
                    format!(
                        "{} {} <- {cause}",
                        event.event_type(),
                        in_short(&event.envelope.payload, event.event_type())
                    ),
                )
            }
        };
        text.push_str(&format!("{} {line}\n", at.strftime("%H:%M:%S")));
    }
    text
}

fn in_short(payload: &Value, event_type: &str) -> String {
    let text = |name: &str| match &payload[name] {
        Value::String(text) => text.rsplit('/').next().unwrap_or(text).to_owned(),
        other => other.to_string(),
    };
    match event_type {
        "RuntimeEnvironmentProvisioned" => format!("{} {}", text("environmentId"), text("name")),
        "RuntimeTenantBound" => {
            format!(
                "{} {} {} {}",
                text("tenantBindingId"),
                text("environmentId"),
                text("isolationModel"),
                text("change")
            )
        }
        "RuntimeDeploymentRequested" => {
            format!("{} {} over {}", text("deploymentId"), text("image"), text("previousImage"))
        }
        "RuntimeDeploymentCompleted" => format!(
            "{} {} over {}, gate {}",
            text("deploymentId"),
            text("image"),
            text("previousImage"),
            text("healthGate")
        ),
        "RuntimeDeploymentRolledBack" => format!(
            "{} {} to {} ({}), {}, gate {}",
            text("deploymentId"),
            text("image"),
            text("restoredImage"),
            text("restoredDeploymentId"),
            text("reason"),
            text("healthGate")
        ),
        "RuntimeInventoryUpdated" => format!(
            "{} {} {} {} x{}",
            text("serviceId"),
            text("change"),
            text("status"),
            text("image"),
            text("replicas")
        ),
        "HealthCheckCompleted" => {
            format!("{} {} after {}", text("serviceId"), text("status"), text("previousStatus"))
        }
        "ConfigurationPublished" => {
            format!(
                "version {} for {} workloads",
                text("version"),
                payload["serviceIds"].as_array().map_or(0, Vec::len)
            )
        }
        "RuntimeEnvironmentDecommissioned" => text("environmentId"),
        "ConfigurationSynced" => format!("version {} at {}", text("version"), text("serviceId")),
        "ScalingPolicyApplied" => format!(
            "{} {} from {} to {}: {}",
            text("scalingPolicyId"),
            text("direction"),
            text("fromReplicas"),
            text("toReplicas"),
            payload["reason"].as_str().unwrap_or_default()
        ),
        "SecretBound" => format!("{} {} {}", text("secretBindingId"), text("secretName"), text("version")),
        "SecretRotated" => format!(
            "{} {} from {} to {} ({})",
            text("secretBindingId"),
            text("secretName"),
            text("previousVersion"),
            text("newVersion"),
            text("reason")
        ),
        "RuntimeCommandFailed" => format!(
            "{} {} {}: {}",
            text("commandId"),
            text("outcome"),
            text("reasonCode"),
            payload["detail"].as_str().unwrap_or_default()
        ),
        "RuntimeCommandCompleted" => {
            format!(
                "{} {}: {}",
                text("commandId"),
                text("outcome"),
                payload["detail"].as_str().unwrap_or_default()
            )
        }
        "RuntimeDriftDetected" => format!(
            "{} {} {}: {} is {}, {}",
            text("findingId"),
            text("severity"),
            text("kind"),
            text("desired"),
            text("actual"),
            if payload["autoRemediable"] == true { "put right by itself" } else { "waits" }
        ),
        "RuntimeDriftResolved" => {
            format!("{} {} {}", text("findingId"), text("kind"), text("resolution"))
        }
        other => panic!("no transcript tells of {other} yet: add it here"),
    }
}
