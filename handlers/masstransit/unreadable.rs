//! Why a message is not an envelope that may be handled.

use super::{MASSTRANSIT_JSON, RAW_JSON, RECEIVED_BYTES_MAX};

/// What is wrong with a message, where, and what to do about it. Sending it again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error(
        "the content type `{content_type}` is not supported: send the canonical envelope as `{RAW_JSON}`, or MassTransit's envelope as `{MASSTRANSIT_JSON}`"
    )]
    UnsupportedContentType { content_type: String },
    #[error(
        "the body has {bytes} bytes, at most {RECEIVED_BYTES_MAX} are read: send a reference to what is large, not the thing"
    )]
    TooLarge { bytes: usize },
    #[error("the body is empty: send a canonical envelope")]
    Empty,
    #[error("the body is not UTF-8 from byte {position} on: send JSON in UTF-8")]
    NotUtf8 { position: usize },
    #[error("the body is not JSON: {problem}: send a canonical envelope")]
    NotJson {
        /// What the parser met, with line and column; never a piece of the body.
        problem: String,
    },
    #[error("{place} is {found}, an object is needed: send a canonical envelope")]
    NotAnObject {
        /// `the body`, or a field in backquotes.
        place: &'static str,
        found: &'static str,
    },
    #[error(
        "the content type says MassTransit's envelope, and `message` is missing: wrap the canonical envelope as `message`, or send it as `{RAW_JSON}`"
    )]
    WithoutMessage,
    #[error(
        "the content type is `{RAW_JSON}` and the body is MassTransit's envelope: send it as `{MASSTRANSIT_JSON}`"
    )]
    UnannouncedWrapper,
    #[error(
        "the message is a MassTransit `Fault<T>`, which tells that a consumer failed and is not the event itself: route faults to a queue of their own"
    )]
    Fault,
    #[error(
        "the body has a member `{field}`, which can be mistaken for the broker's own: leave it out, and set application properties on the message"
    )]
    Shadow { field: &'static str },
    #[error("`{field}` is missing: set it, the envelope cannot do without")]
    Missing {
        /// The field's path in the body, e.g. `message.tenantId`.
        field: String,
    },
    #[error("`{field}` {problem}: correct it and send the message anew")]
    Invalid {
        /// The field's path in the body, e.g. `message.tenantId`.
        field: String,
        problem: String,
    },
    #[error(
        "the property `{property}` says `{says}` and the body says `{body}`: set the property from the body, or leave it out"
    )]
    Contradiction { property: &'static str, says: String, body: String },
}

impl Unreadable {
    /// A word for it, to group by.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnsupportedContentType { .. } => "unsupported-content-type",
            Self::TooLarge { .. } => "too-large",
            Self::Empty => "empty-body",
            Self::NotUtf8 { .. } => "not-utf-8",
            Self::NotJson { .. } => "not-json",
            Self::NotAnObject { .. } => "not-an-object",
            Self::WithoutMessage => "envelope-without-message",
            Self::UnannouncedWrapper => "unannounced-envelope",
            Self::Fault => "masstransit-fault",
            Self::Shadow { .. } => "shadowed-properties",
            Self::Missing { .. } => "missing-field",
            Self::Invalid { .. } => "invalid-field",
            Self::Contradiction { .. } => "contradiction",
        }
    }
}
