//! What a subscription's rule asks of a message: equality of properties (a correlation filter) or a
//! condition in a subset of SQL-92.
//!
//! Absent on purpose: rule actions, functions (`newid()`, `property(..)`) and parameters.

mod evaluate;
mod lex;
mod parse;

use std::collections::BTreeMap;

use serde_json::{Number, Value};

use super::Message;

/// Characters that a SQL filter may have, as on Azure.
pub const SQL_FILTER_CHARS_MAX: usize = 1024;

/// Why a SQL filter is refused, and at which character (the first is 1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at column {column}: {problem}")]
pub struct FilterError {
    pub column: usize,
    pub problem: String,
}

/// A rule's question about a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    Correlation(CorrelationFilter),
    Sql(SqlFilter),
}

impl Filter {
    pub fn matches(&self, message: &Message) -> bool {
        match self {
            Self::Correlation(filter) => filter.matches(message),
            Self::Sql(filter) => filter.matches(message),
        }
    }
}

/// Matches when everything that it names is equal. Text is compared with case; a property's name is not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CorrelationFilter {
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    pub to: Option<String>,
    pub reply_to: Option<String>,
    pub label: Option<String>,
    pub session_id: Option<String>,
    pub reply_to_session_id: Option<String>,
    pub content_type: Option<String>,
    pub properties: BTreeMap<String, Value>,
}

impl CorrelationFilter {
    /// Whether it names nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn matches(&self, message: &Message) -> bool {
        let same = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        same(&self.message_id, Some(&message.message_id))
            && same(&self.correlation_id, message.correlation_id.as_deref())
            && same(&self.to, message.to.as_deref())
            && same(&self.reply_to, message.reply_to.as_deref())
            && same(&self.label, message.subject.as_deref())
            && same(&self.session_id, message.session_id.as_deref())
            && same(&self.reply_to_session_id, message.reply_to_session_id.as_deref())
            && same(&self.content_type, message.content_type.as_deref())
            && self
                .properties
                .iter()
                .all(|(name, wanted)| property(message, name).is_some_and(|found| equal(wanted, found)))
    }
}

/// A condition in SQL that has been read and understood.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlFilter {
    text: String,
    condition: parse::Condition,
}

impl SqlFilter {
    /// # Errors
    /// Where the text stops making sense, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        Ok(Self { condition: parse::parse(text)?, text: text.to_owned() })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn matches(&self, message: &Message) -> bool {
        // Unknown is not true.
        evaluate::holds(&self.condition, message) == Some(true)
    }
}

/// An application property. Names are the same whatever their case; the exact one comes first.
fn property<'m>(message: &'m Message, name: &str) -> Option<&'m Value> {
    message.properties.get(name).or_else(|| {
        message.properties.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    })
}

/// Equality with types: the text `1` is not the number 1, and 1 is 1.0.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => same_number(left, right),
        (left, right) => left == right,
    }
}

fn same_number(left: &Number, right: &Number) -> bool {
    match (left.as_i64(), right.as_i64()) {
        (Some(left), Some(right)) => left == right,
        _ => left.as_f64() == right.as_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message() -> Message {
        Message {
            message_id: "m-1".into(),
            subject: Some("deploy".into()),
            session_id: Some("env-1".into()),
            properties: BTreeMap::from([
                ("cs-event-type".to_owned(), json!("SecretRotated")),
                ("attempt".to_owned(), json!(1)),
                ("final".to_owned(), json!(true)),
            ]),
            ..Message::default()
        }
    }

    fn asks(name: &str, value: Value) -> Filter {
        Filter::Correlation(CorrelationFilter {
            properties: BTreeMap::from([(name.to_owned(), value)]),
            ..CorrelationFilter::default()
        })
    }

    #[test]
    fn a_correlation_filter_compares_type_and_value() {
        let table = [
            ("cs-event-type", json!("SecretRotated"), true),
            ("CS-Event-Type", json!("SecretRotated"), true),
            ("cs-event-type", json!("secretrotated"), false),
            ("attempt", json!(1), true),
            ("attempt", json!(1.0), true),
            ("attempt", json!("1"), false),
            ("final", json!(true), true),
            ("final", json!("true"), false),
            ("absent", json!("x"), false),
        ];
        for (name, value, expected) in table {
            assert_eq!(asks(name, value.clone()).matches(&message()), expected, "{name} = {value}");
        }
    }

    #[test]
    fn everything_that_a_correlation_filter_names_must_be_equal() {
        let both = |subject: &str, session: &str| {
            Filter::Correlation(CorrelationFilter {
                label: Some(subject.to_owned()),
                session_id: Some(session.to_owned()),
                ..CorrelationFilter::default()
            })
            .matches(&message())
        };
        assert!(both("deploy", "env-1"));
        assert!(!both("deploy", "env-2"));
        assert!(!both("other", "env-1"));
        let correlated =
            CorrelationFilter { correlation_id: Some("c".into()), ..CorrelationFilter::default() };
        assert!(!Filter::Correlation(correlated).matches(&message()), "an absent property equals nothing");
    }
}
