//! The canonical envelope: ten fields around a payload, the same for commands and events.
//!
//! Its serialised form is fixed to the byte: compact JSON, the fields in the order below, `null`
//! where a field is absent, `occurredAt` in whole seconds with `Z`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    events::Event,
    ids::{CorrelationId, EventId, ModuleId, ProjectId, TenantId, TraceId},
};

/// A command or an event, around its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<P = Value> {
    /// What consumers deduplicate on.
    pub event_id: EventId,
    /// A command's `VerbNoun` or an event's `NounVerbPastTense`.
    pub event_type: String,
    pub tenant_id: TenantId,
    #[serde(default)]
    pub project_id: Option<ProjectId>,
    #[serde(default)]
    pub module_id: Option<ModuleId>,
    pub trace_id: TraceId,
    /// Carried unchanged from a command to every event that it brings about.
    pub correlation_id: CorrelationId,
    /// The eventId of the message that directly caused this one; none for a root message.
    #[serde(default)]
    pub causation_id: Option<String>,
    #[serde(with = "whole_seconds")]
    pub occurred_at: Timestamp,
    pub payload: P,
}

impl<P> Envelope<P> {
    /// The same envelope around another payload.
    pub fn with<Q>(&self, payload: Q) -> Envelope<Q> {
        Envelope {
            event_id: self.event_id.clone(),
            event_type: self.event_type.clone(),
            tenant_id: self.tenant_id.clone(),
            project_id: self.project_id.clone(),
            module_id: self.module_id.clone(),
            trace_id: self.trace_id.clone(),
            correlation_id: self.correlation_id.clone(),
            causation_id: self.causation_id.clone(),
            occurred_at: self.occurred_at,
            payload,
        }
    }
}

impl<P> Envelope<P> {
    /// The envelope of an event that this message brings about: tenant, project, module, trace and
    /// correlation are carried on, and this message is the cause.
    pub fn brings_about(&self, event_id: EventId, event: &Event, occurred_at: Timestamp) -> Envelope<Value> {
        Envelope {
            event_id,
            event_type: event.event_type().to_owned(),
            causation_id: Some(self.event_id.to_string()),
            occurred_at,
            ..self.with(event.payload())
        }
    }
}

impl Envelope<Value> {
    /// The envelope as it is published, byte for byte.
    pub fn canonical(&self) -> String {
        serde_json::to_string(self).expect("texts and JSON values always serialise")
    }
}

/// Whole seconds on the way out; anything of RFC 3339 on the way in.
pub mod whole_seconds {
    use jiff::{Timestamp, Unit};
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*at))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| {
            serde::de::Error::custom(format!("`{text}` is not a time as RFC 3339 writes it: {error}"))
        })
    }

    /// A time as our messages write it, e.g. `2026-03-02T10:15:30Z`. Cut, not rounded: an event
    /// must not seem to happen later than it did.
    pub fn text(at: Timestamp) -> String {
        let whole = at
            .round(jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Floor))
            .unwrap_or(at);
        whole.to_string()
    }
}
