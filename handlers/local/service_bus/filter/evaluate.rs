//! Three-valued logic: a condition is true, false, or unknown because a property is missing or two
//! types have nothing to say to each other.

use std::cmp::Ordering;

use serde_json::Value;

use super::{
    parse::{Arithmetic, Comparison, Condition, Operand, Property, SystemProperty},
    property,
};
use crate::local::service_bus::Message;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Datum<'m> {
    Text(&'m str),
    Integer(i64),
    Decimal(f64),
    Boolean(bool),
}

/// Whether the condition holds; none where it is unknown.
pub(super) fn holds(condition: &Condition, message: &Message) -> Option<bool> {
    match condition {
        Condition::And(left, right) => and(holds(left, message), holds(right, message)),
        Condition::Or(left, right) => or(holds(left, message), holds(right, message)),
        Condition::Not(inner) => holds(inner, message).map(|truth| !truth),
        Condition::Compare { left, by, right } => compare(value(left, message)?, *by, value(right, message)?),
        Condition::In { value: wanted, list } => {
            let wanted = value(wanted, message)?;
            let is = |item| value(item, message).and_then(|item| compare(wanted, Comparison::Equal, item));
            list.iter().map(is).fold(Some(false), or)
        }
        Condition::Like { value: text, pattern: wanted, escape } => {
            let (Datum::Text(text), Datum::Text(wanted)) = (value(text, message)?, value(wanted, message)?)
            else {
                return None;
            };
            let escape = match escape {
                None => None,
                Some(escape) => Some(single(value(escape, message)?)?),
            };
            Some(is_like(text, &pattern(wanted, escape)?))
        }
        Condition::IsNull(property) => Some(found(property, message).is_none()),
        Condition::Exists(property) => Some(found(property, message).is_some()),
    }
}

fn and(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn or(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

fn compare(left: Datum<'_>, by: Comparison, right: Datum<'_>) -> Option<bool> {
    let ordering = match (left, right) {
        (Datum::Text(left), Datum::Text(right)) => left.cmp(right),
        (Datum::Integer(left), Datum::Integer(right)) => left.cmp(&right),
        // Booleans are equal or not; neither is the greater.
        (Datum::Boolean(left), Datum::Boolean(right)) => {
            return match by {
                Comparison::Equal => Some(left == right),
                Comparison::NotEqual => Some(left != right),
                Comparison::Less
                | Comparison::LessOrEqual
                | Comparison::Greater
                | Comparison::GreaterOrEqual => None,
            };
        }
        (left, right) => decimal(left)?.partial_cmp(&decimal(right)?)?,
    };
    Some(match by {
        Comparison::Equal => ordering == Ordering::Equal,
        Comparison::NotEqual => ordering != Ordering::Equal,
        Comparison::Less => ordering == Ordering::Less,
        Comparison::LessOrEqual => ordering != Ordering::Greater,
        Comparison::Greater => ordering == Ordering::Greater,
        Comparison::GreaterOrEqual => ordering != Ordering::Less,
    })
}

fn value<'m>(operand: &'m Operand, message: &'m Message) -> Option<Datum<'m>> {
    match operand {
        Operand::Text(text) => Some(Datum::Text(text)),
        Operand::Integer(value) => Some(Datum::Integer(*value)),
        Operand::Decimal(value) => Some(Datum::Decimal(*value)),
        Operand::Boolean(value) => Some(Datum::Boolean(*value)),
        Operand::Null => None,
        Operand::Property(property) => found(property, message),
        Operand::Negative(inner) => match value(inner, message)? {
            Datum::Integer(value) => value.checked_neg().map(Datum::Integer),
            Datum::Decimal(value) => Some(Datum::Decimal(-value)),
            Datum::Text(_) | Datum::Boolean(_) => None,
        },
        Operand::Arithmetic { left, by, right } => {
            calculate(value(left, message)?, *by, value(right, message)?)
        }
    }
}

fn found<'m>(name: &Property, message: &'m Message) -> Option<Datum<'m>> {
    match name {
        Property::User(name) => match property(message, name)? {
            Value::String(text) => Some(Datum::Text(text)),
            Value::Bool(value) => Some(Datum::Boolean(*value)),
            Value::Number(number) => {
                number.as_i64().map(Datum::Integer).or_else(|| number.as_f64().map(Datum::Decimal))
            }
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        },
        Property::System(property) => {
            let text = match property {
                SystemProperty::MessageId => Some(&message.message_id),
                SystemProperty::CorrelationId => message.correlation_id.as_ref(),
                SystemProperty::To => message.to.as_ref(),
                SystemProperty::ReplyTo => message.reply_to.as_ref(),
                SystemProperty::Label => message.subject.as_ref(),
                SystemProperty::SessionId => message.session_id.as_ref(),
                SystemProperty::ReplyToSessionId => message.reply_to_session_id.as_ref(),
                SystemProperty::ContentType => message.content_type.as_ref(),
                SystemProperty::PartitionKey => message.partition_key.as_ref(),
            };
            text.map(|text| Datum::Text(text))
        }
    }
}

/// Whole numbers stay whole; what overflows or divides by zero is unknown.
fn calculate<'m>(left: Datum<'m>, by: Arithmetic, right: Datum<'m>) -> Option<Datum<'m>> {
    if let (Datum::Integer(left), Datum::Integer(right)) = (left, right) {
        let result = match by {
            Arithmetic::Add => left.checked_add(right),
            Arithmetic::Subtract => left.checked_sub(right),
            Arithmetic::Multiply => left.checked_mul(right),
            Arithmetic::Divide => left.checked_div(right),
            Arithmetic::Remainder => left.checked_rem(right),
        };
        return result.map(Datum::Integer);
    }
    let (left, right) = (decimal(left)?, decimal(right)?);
    let result = match by {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide => left / right,
        Arithmetic::Remainder => left % right,
    };
    result.is_finite().then_some(Datum::Decimal(result))
}

#[expect(clippy::cast_precision_loss, reason = "as a decimal, a whole number has a decimal's precision")]
fn decimal(datum: Datum<'_>) -> Option<f64> {
    match datum {
        Datum::Integer(value) => Some(value as f64),
        Datum::Decimal(value) => Some(value),
        Datum::Text(_) | Datum::Boolean(_) => None,
    }
}

fn single(datum: Datum<'_>) -> Option<char> {
    let Datum::Text(text) = datum else { return None };
    let mut chars = text.chars();
    let first = chars.next()?;
    chars.next().is_none().then_some(first)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Any,
    One,
    Char(char),
}

/// The pieces of a pattern; none where it ends with its escape character.
pub(super) fn pattern(text: &str, escape: Option<char>) -> Option<Vec<Piece>> {
    let mut pieces = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        pieces.push(match c {
            c if Some(c) == escape => Piece::Char(chars.next()?),
            '%' => Piece::Any,
            '_' => Piece::One,
            c => Piece::Char(c),
        });
    }
    Some(pieces)
}

/// Greedy, coming back to the last `%` only: never worse than text times pattern.
fn is_like(text: &str, pattern: &[Piece]) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut piece) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(piece) {
            Some(Piece::Any) => {
                retry = Some((at, piece));
                piece += 1;
            }
            Some(Piece::One) => {
                at += 1;
                piece += 1;
            }
            Some(Piece::Char(c)) if *c == text[at] => {
                at += 1;
                piece += 1;
            }
            Some(Piece::Char(_)) | None => {
                let Some((from, any)) = retry else { return false };
                retry = Some((from + 1, any));
                at = from + 1;
                piece = any + 1;
            }
        }
    }
    pattern[piece..].iter().all(|piece| *piece == Piece::Any)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::{Filter, FilterError, SqlFilter};
    use super::*;

    fn message() -> Message {
        Message {
            message_id: "m-1".into(),
            subject: Some("deploy".into()),
            to: Some("Store5".into()),
            properties: BTreeMap::from([
                ("cs-event-type".to_owned(), json!("SecretRotated")),
                ("name".to_owned(), json!("100%_sure")),
                ("one".to_owned(), json!(1)),
                ("half".to_owned(), json!(0.5)),
                ("text1".to_owned(), json!("1")),
                ("yes".to_owned(), json!(true)),
                ("it's".to_owned(), json!("it's")),
                ("a]b".to_owned(), json!("bracket")),
            ]),
            ..Message::default()
        }
    }

    fn truth(text: &str) -> Option<bool> {
        let filter = SqlFilter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        holds(&filter.condition, &message())
    }

    fn refused(text: &str) -> (usize, String) {
        let FilterError { column, problem } = SqlFilter::parse(text).expect_err(text);
        (column, problem)
    }

    const T: Option<bool> = Some(true);
    const F: Option<bool> = Some(false);
    const U: Option<bool> = None;

    #[test]
    fn three_values_combine_as_documented() {
        let named = [("1 = 1", T), ("1 = 2", F), ("absent = 1", U)];
        let and_table = [T, F, U, F, F, F, U, F, U];
        let or_table = [T, T, T, T, F, U, T, U, U];
        let mut cell = 0;
        for (left, _) in named {
            for (right, _) in named {
                assert_eq!(truth(&format!("{left} AND {right}")), and_table[cell], "{left} AND {right}");
                assert_eq!(truth(&format!("{left} OR {right}")), or_table[cell], "{left} OR {right}");
                cell += 1;
            }
        }
        for (text, value) in named {
            assert_eq!(truth(text), value);
            assert_eq!(truth(&format!("NOT {text}")), value.map(|value| !value));
        }
    }

    #[test]
    fn conditions_have_the_truth_of_the_table() {
        let table = [
            ("[cs-event-type] = 'SecretRotated'", T),
            ("\"cs-event-type\" = 'SecretRotated'", T),
            ("user.[CS-EVENT-TYPE] = 'SecretRotated'", T),
            ("[cs-event-type] = 'secretrotated'", F),
            ("[cs-event-type] <> 'X'", T),
            ("[cs-event-type] != 'X'", T),
            ("[a]]b] = 'bracket'", T),
            ("\"it's\" = 'it''s'", T),
            ("sys.Label = 'deploy' and SYS.MessageId = 'm-1'", T),
            ("sys.To IN ('Store5', 'Store6')", T),
            ("sys.To NOT IN ('Store5', 'Store6')", F),
            ("sys.To IN ('Store6', absent)", U),
            ("sys.To IN ('Store5', absent)", T),
            ("sys.SessionId = 'x'", U),
            ("sys.SessionId IS NULL", T),
            ("absent IS NULL", T),
            ("absent IS NOT NULL", F),
            ("one IS NOT NULL", T),
            ("EXISTS(one)", T),
            ("EXISTS(absent) OR NOT EXISTS([nor-this])", T),
            ("one = 1", T),
            ("one = 1.0", T),
            ("one = '1'", U),
            ("text1 = '1'", T),
            ("text1 = 1", U),
            ("NOT text1 = 1", U),
            ("half < one", T),
            ("half >= 5E-1", T),
            ("one + 2 * 3 = 7", T),
            ("(one + 2) * 3 = 9", T),
            ("7 / 2 = 3", T),
            ("7 / 2.0 = 3.5", T),
            ("7 % 4 = 3", T),
            ("-one = -1", T),
            ("one - half = 0.5", T),
            ("one / 0 = 1", U),
            ("9223372036854775807 + one > 0", U),
            ("yes = TRUE", T),
            ("yes = FALSE", F),
            ("yes > FALSE", U),
            ("yes = 'true'", U),
            ("one = NULL", U),
            ("name LIKE '100%'", T),
            ("name LIKE '%sure'", T),
            ("name LIKE '100x%'", F),
            ("name LIKE '100\\%\\_s___' ESCAPE '\\'", T),
            ("name LIKE '100\\%x%' ESCAPE '\\'", F),
            ("name NOT LIKE '%nope%'", T),
            ("one LIKE '1'", U),
            ("absent NOT LIKE '%'", U),
            ("1 = 1 OR absent = 1 AND 1 = 2", T),
            ("NOT 1 = 2 AND 1 = 1", T),
            ("NOT (1 = 1 OR absent = 1)", F),
            ("(((one = 1)))", T),
        ];
        for (text, expected) in table {
            assert_eq!(truth(text), expected, "{text}");
        }
    }

    #[test]
    fn unknown_lets_nothing_through() {
        let passes = |text: &str| Filter::Sql(SqlFilter::parse(text).unwrap()).matches(&message());
        assert!(passes("one = 1"));
        assert!(!passes("absent = 1"));
        assert!(!passes("NOT absent = 1"));
    }

    #[test]
    fn a_bad_filter_is_refused_with_its_column() {
        let table = [
            (
                "cs-event-type = 'x'",
                1,
                "`cs-event-type` subtracts one property from another: write [cs-event-type] for the property of that name, or put spaces around the minus to subtract",
            ),
            (
                "one = 1 AND user.cs-tenant-id = 'x'",
                18,
                "`cs-tenant-id` subtracts one property from another: write [cs-tenant-id] for the property of that name, or put spaces around the minus to subtract",
            ),
            ("", 1, "the filter is empty: write `1 = 1` to let everything through"),
            (
                "yes",
                1,
                "this is a value, not a condition: compare it with something, e.g. `[name] = 'value'` or `1 = 1`",
            ),
            (
                "one = 1 AND yes",
                13,
                "this is a value, not a condition: compare it with something, e.g. `[name] = 'value'` or `1 = 1`",
            ),
            (
                "(one = 1) = 2",
                1,
                "this is a condition, not a value: it cannot be compared or calculated with",
            ),
            ("one = ", 7, "expected a property or a value, found the end"),
            ("one = 1 one = 2", 9, "expected AND, OR or the end, found `one`"),
            ("one == 1", 6, "expected a property or a value, found `=`"),
            ("one = 'x", 7, "the text in quotation marks is never closed"),
            ("one = 'x''", 7, "the text in quotation marks is never closed"),
            ("[one = 1", 1, "`[` is never closed by `]`"),
            ("[] = 1", 1, "`[]` names no property"),
            ("one = 1x", 7, "`1x` is not a number"),
            (
                "one = 99999999999999999999",
                7,
                "`99999999999999999999` is out of range: whole numbers have 64 bits",
            ),
            ("one ~ 1", 5, "`~` means nothing here"),
            (
                "sys.Body = 'x'",
                5,
                "there is no system property `Body`: there are MessageId, CorrelationId, To, ReplyTo, Label, SessionId, ReplyToSessionId, ContentType, PartitionKey",
            ),
            ("app.name = 'x'", 1, "`app` is no scope: write sys.name, user.name or [app.name]"),
            ("newid() = 'x'", 1, "the function `newid` is not supported: name the property itself"),
            ("one IN 1", 8, "expected `(` and a list of values, found `1`"),
            ("one IN (1", 10, "expected `,` or `)`, found the end"),
            ("one IN ()", 9, "expected a property or a value, found `)`"),
            ("(one = 1", 9, "expected `)`, found the end"),
            ("1 IS NULL", 1, "IS NULL is asked of properties only"),
            ("name LIKE 5", 11, "LIKE takes a text with the wildcards % and _"),
            ("name LIKE 'a' ESCAPE 'xy'", 22, "ESCAPE takes a text of one character"),
            (
                "name LIKE 'a\\' ESCAPE '\\'",
                11,
                "the pattern ends with its escape character, which escapes nothing",
            ),
        ];
        for (text, column, problem) in table {
            assert_eq!(refused(text), (column, problem.to_owned()), "{text}");
        }
    }

    #[test]
    fn length_and_nesting_have_limits() {
        let deep = format!("{}1 = 1{}", "(".repeat(65), ")".repeat(65));
        assert_eq!(refused(&deep), (66, "more than 64 levels within each other".to_owned()));
        assert_eq!(
            refused(&format!("{}1 = 1", "NOT ".repeat(70))).1,
            "more than 64 levels within each other"
        );
        assert_eq!(refused(&"x".repeat(1025)), (1025, "a filter has at most 1024 characters".to_owned()));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z0-9'\\[\\]\"()=<>%*/+. -]{0,60}|(NOT |AND |OR |IN|LIKE|\\(|\\)|one|'x'| |=|,){0,20}") {
            if let Ok(filter) = SqlFilter::parse(&text) {
                let _ = holds(&filter.condition, &message());
            }
        }

        #[test]
        fn like_agrees_with_a_plain_recursion(text in "[ab]{0,8}", wanted in "[ab%_]{0,6}") {
            fn plain(text: &[char], pieces: &[Piece]) -> bool {
                match pieces.split_first() {
                    None => text.is_empty(),
                    Some((Piece::Any, rest)) => (0..=text.len()).any(|skip| plain(&text[skip..], rest)),
                    Some((Piece::One, rest)) => !text.is_empty() && plain(&text[1..], rest),
                    Some((Piece::Char(c), rest)) => text.first() == Some(c) && plain(&text[1..], rest),
                }
            }
            let pieces = pattern(&wanted, None).unwrap();
            let chars: Vec<char> = text.chars().collect();
            proptest::prop_assert_eq!(is_like(&text, &pieces), plain(&chars, &pieces));
        }
    }
}
