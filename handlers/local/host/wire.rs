//! How Azure's host writes values into an invocation. One rule decides for `Data` and `Metadata`:
//! texts and numbers become JSON inside a JSON string, bytes become base64, objects stay objects.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// A value as .NET knows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Net {
    Text(String),
    Bytes(Vec<u8>),
    Integer(i64),
    /// A time of no zone: UTC, without saying so.
    Time(Timestamp),
    /// A time with its offset, which is UTC's.
    TimeWithOffset(Timestamp),
    Object(Value),
    Null,
}

impl Net {
    fn encode(self) -> Value {
        match self {
            Self::Text(text) => Value::String(json_text(&Value::String(text))),
            Self::Bytes(bytes) => Value::String(BASE64_STANDARD.encode(bytes)),
            Self::Integer(number) => Value::String(number.to_string()),
            Self::Time(time) => Value::String(whole_seconds(time)),
            Self::TimeWithOffset(time) => Value::String(format!("{}+00:00", whole_seconds(time))),
            Self::Object(value) => value,
            Self::Null => Value::String("null".to_owned()),
        }
    }
}

/// JSON as Newtonsoft writes it: compact, and three line ends beyond ASCII escaped.
pub(super) fn json_text(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
        return text;
    }
    // They can only stand inside strings, where an escape means the same.
    text.replace('\u{85}', "\\u0085").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// `2023-10-12T20:13:49`, the way invocations give times.
pub(super) fn whole_seconds(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

/// With the fraction of a second that .NET keeps: seven digits, without zeros at the end.
pub(super) fn with_fraction(time: Timestamp) -> String {
    let ticks = time.subsec_nanosecond().unsigned_abs() / 100;
    let fraction = format!("{ticks:07}");
    match fraction.trim_end_matches('0') {
        "" => whole_seconds(time),
        digits => format!("{}.{digits}", whole_seconds(time)),
    }
}

/// When an invocation is made, and the id it makes up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occasion {
    pub now: Timestamp,
    pub random: Uuid,
}

/// An invocation's metadata, in the order of Azure's host.
#[derive(Debug, Default)]
pub(super) struct Metadata(Map<String, Value>);

impl Metadata {
    /// Adds a value. What is null is left out, and so is every name that ends in `trigger`.
    pub fn put(&mut self, name: &str, value: Net) {
        if value == Net::Null || name.to_ascii_lowercase().ends_with("trigger") {
            return;
        }
        let known = self.known(name);
        self.0.insert(known.unwrap_or_else(|| name.to_owned()), value.encode());
    }

    /// Adds a value unless there is one of that name.
    pub fn put_new(&mut self, name: &str, value: Net) {
        if self.known(name).is_none() {
            self.put(name, value);
        }
    }

    fn known(&self, name: &str) -> Option<String> {
        self.0.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned()
    }

    pub fn put_sys(&mut self, function: &str, occasion: Occasion) {
        let sys = json!({
            "MethodName": function,
            "UtcNow": format!("{}Z", with_fraction(occasion.now)),
            "RandGuid": occasion.random.to_string(),
        });
        self.put("sys", Net::Object(sys));
    }

    /// Merges a body that is a JSON object: its members overwrite what is there, under the name that
    /// is there. Arrays and nulls are passed over, other values become texts.
    pub fn merge_body(&mut self, body: &str) {
        for (name, value) in body_members(body) {
            self.put(&name, value);
        }
    }
}

/// The members of a body that is a JSON object.
pub(super) fn body_members(body: &str) -> Vec<(String, Net)> {
    let Ok(Value::Object(members)) = serde_json::from_str(body) else { return Vec::new() };
    let member = |(name, value)| {
        let value = match value {
            Value::Null | Value::Array(_) => return None,
            Value::Object(_) => Net::Object(value),
            Value::String(text) => Net::Text(text),
            Value::Number(number) => Net::Text(number.to_string()),
            // .NET writes them with a capital.
            Value::Bool(flag) => Net::Text(if flag { "True" } else { "False" }.to_owned()),
        };
        Some((name, value))
    };
    members.into_iter().filter_map(member).collect()
}

/// The body of an invocation's request.
pub(super) fn invocation(binding: &str, data: Net, metadata: Metadata) -> String {
    let mut bindings = Map::new();
    bindings.insert(binding.to_owned(), data.encode());
    let mut body = Map::new();
    body.insert("Data".to_owned(), Value::Object(bindings));
    body.insert("Metadata".to_owned(), Value::Object(metadata.0));
    json_text(&Value::Object(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_by_azures_table() {
        let time: Timestamp = "2023-10-12T20:13:49.640002Z".parse().unwrap();
        let cases = [
            (Net::Text("stringTest".into()), json!("\"stringTest\"")),
            (Net::Text("a\"b\nc\u{7}\u{2028}ä".into()), json!("\"a\\\"b\\nc\\u0007\\u2028ä\"")),
            (Net::Bytes(b"hello".to_vec()), json!("aGVsbG8=")),
            (Net::Integer(1), json!("1")),
            (Net::Time(time), json!("2023-10-12T20:13:49")),
            (Net::TimeWithOffset(time), json!("2023-10-12T20:13:49+00:00")),
            (Net::Object(json!({"a": 1})), json!({"a": 1})),
            (Net::Null, json!("null")),
        ];
        for (value, expected) in cases {
            assert_eq!(value.clone().encode(), expected, "{value:?}");
        }
    }

    #[test]
    fn fractions_of_seconds_lose_their_last_zeros() {
        let text = |time: &str| with_fraction(time.parse().unwrap());
        assert_eq!(text("2026-05-15T17:40:00.010541999Z"), "2026-05-15T17:40:00.0105419");
        assert_eq!(text("2026-05-15T17:45:00Z"), "2026-05-15T17:45:00");
        assert_eq!(text("2026-05-15T17:45:00.5Z"), "2026-05-15T17:45:00.5");
    }

    #[test]
    fn a_body_overwrites_what_the_broker_said() {
        let mut metadata = Metadata::default();
        metadata.put("MessageId", Net::Text("broker".into()));
        metadata.put("Nothing", Net::Null);
        metadata.put("TimerTrigger", Net::Text("x".into()));
        metadata.merge_body(
            r#"{"messageId": "body", "count": 2, "open": true, "list": [1], "none": null, "deep": {"a": 1}}"#,
        );
        let expected =
            json!({"MessageId": "\"body\"", "count": "\"2\"", "open": "\"True\"", "deep": {"a": 1}});
        assert_eq!(Value::Object(metadata.0), expected);
    }

    #[test]
    fn a_body_that_is_no_object_is_not_merged() {
        for body in ["[1]", "\"x\"", "no json", ""] {
            assert_eq!(body_members(body), Vec::new(), "{body}");
        }
    }
}
