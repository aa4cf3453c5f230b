//! JSON lines on standard output, one span per invocation.
//!
//! The host turns each line of standard output into a log entry and each line of standard error into
//! an *error*, so everything goes to standard output. No message body and no secret is ever logged.

use tracing::{Level, Span, level_filters::LevelFilter};
use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::envelope::Envelope;

/// Starts logging. A second call does nothing.
pub fn start(level: LevelFilter) {
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_current_span(true)
        .with_filter(level);
    // Already started: the first one stays.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

/// The span of one invocation. Its fields are filled in as they become known.
pub fn invocation(function: &str, invocation_id: &str) -> Span {
    tracing::span!(
        Level::INFO,
        "invocation",
        function.name = function,
        invocation.id = invocation_id,
        message.id = tracing::field::Empty,
        message.type = tracing::field::Empty,
        tenant.id = tracing::field::Empty,
        project.id = tracing::field::Empty,
        module.id = tracing::field::Empty,
        trace.id = tracing::field::Empty,
        correlation.id = tracing::field::Empty,
        causation.id = tracing::field::Empty,
        delivery.count = tracing::field::Empty,
    )
}

/// Tells the current span whose message it handles.
pub fn identify<P>(envelope: &Envelope<P>, delivery_count: u32) {
    let span = Span::current();
    span.record("message.id", envelope.event_id.as_str());
    span.record("message.type", envelope.event_type.as_str());
    span.record("tenant.id", envelope.tenant_id.as_str());
    if let Some(project) = &envelope.project_id {
        span.record("project.id", project.as_str());
    }
    if let Some(module) = &envelope.module_id {
        span.record("module.id", module.as_str());
    }
    span.record("trace.id", envelope.trace_id.as_str());
    span.record("correlation.id", envelope.correlation_id.as_str());
    if let Some(causation) = &envelope.causation_id {
        span.record("causation.id", causation.as_str());
    }
    span.record("delivery.count", delivery_count);
}
