//! What the handler answered, read as Azure's host reads it, rule by rule and in its order.
//!
//! Nothing of a body is ever part of a fault: it could be a secret.

use base64::{Engine, prelude::BASE64_STANDARD};
use http::StatusCode;
use serde_json::{Map, Value};

/// Log lines that are taken from one reply; more are counted.
const LOGS_MAX: usize = 200;

/// What a function returned.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reply {
    pub outputs: Map<String, Value>,
    pub logs: Vec<String>,
    pub return_value: Value,
}

/// Why an answer fails its invocation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReplyFault {
    #[error("Response status code does not indicate success: {} ({})", .0.as_u16(), .0.canonical_reason().unwrap_or("no reason"))]
    Status(StatusCode),
    #[error(
        "the handler answered with {0}: on Azure this invocation would hang until functionTimeout, and the process be killed then; always answer at least `{{}}` as application/json"
    )]
    Hang(&'static str),
    #[error("the handler answered with Content-Type {0}: it must be application/json")]
    ContentType(String),
    #[error("the handler's answer is not valid JSON (line {line}, column {column})")]
    Malformed { line: usize, column: usize },
    #[error("the handler's answer has {0}")]
    Shape(&'static str),
}

/// Reads an answer.
///
/// # Errors
/// When the invocation has failed, by Azure's rules.
pub(super) fn read(status: StatusCode, content_type: Option<&str>, body: &[u8]) -> Result<Reply, ReplyFault> {
    if !status.is_success() {
        return Err(ReplyFault::Status(status));
    }
    if status == StatusCode::NO_CONTENT {
        return Err(ReplyFault::Hang("204"));
    }
    if body.is_empty() {
        return Err(ReplyFault::Hang("an empty body"));
    }
    let media_type = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    if !["application/json", "text/json"].iter().any(|known| known.eq_ignore_ascii_case(media_type)) {
        let named = if media_type.is_empty() { "missing".to_owned() } else { format!("`{media_type}`") };
        return Err(ReplyFault::ContentType(named));
    }
    let value = serde_json::from_slice(body)
        .map_err(|error| ReplyFault::Malformed { line: error.line(), column: error.column() })?;
    match value {
        Value::Null => Err(ReplyFault::Hang("null")),
        Value::Object(members) => shape(members),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(ReplyFault::Shape("no JSON object in it"))
        }
    }
}

fn shape(members: Map<String, Value>) -> Result<Reply, ReplyFault> {
    let mut reply = Reply::default();
    for (name, value) in members {
        match (name.to_ascii_lowercase().as_str(), value) {
            ("outputs", Value::Object(outputs)) => reply.outputs = outputs,
            ("logs", Value::Array(lines)) => reply.logs = logs(lines)?,
            ("outputs" | "logs", Value::Null) => {}
            ("outputs", _) => return Err(ReplyFault::Shape("an `Outputs` that is no object")),
            ("logs", _) => return Err(ReplyFault::Shape("`Logs` that are no array of texts")),
            ("returnvalue", value) => reply.return_value = value,
            _ => {}
        }
    }
    Ok(reply)
}

fn logs(lines: Vec<Value>) -> Result<Vec<String>, ReplyFault> {
    let left = lines.len().saturating_sub(LOGS_MAX);
    let text = |line| match line {
        Value::String(text) => Ok(text),
        Value::Null => Ok(String::new()),
        // Newtonsoft turns numbers and flags into texts.
        Value::Bool(_) | Value::Number(_) => Ok(line.to_string()),
        Value::Array(_) | Value::Object(_) => Err(ReplyFault::Shape("`Logs` that are no array of texts")),
    };
    let mut logs = lines.into_iter().take(LOGS_MAX).map(text).collect::<Result<Vec<_>, _>>()?;
    if left > 0 {
        logs.push(format!("({left} more lines of this invocation's Logs are left out)"));
    }
    Ok(logs)
}

/// The answer to an HTTP caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpReply {
    pub status: StatusCode,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// Makes the answer of a function whose output binding is `binding`, if it has one.
///
/// # Errors
/// When the output cannot be an answer: the invocation has failed.
pub(super) fn http_reply(reply: Reply, binding: Option<&str>) -> Result<HttpReply, ReplyFault> {
    let Reply { mut outputs, return_value, .. } = reply;
    let output = match (binding, return_value) {
        (None, _) => {
            return Ok(HttpReply {
                status: StatusCode::NO_CONTENT,
                headers: Vec::new(),
                body: String::new(),
            });
        }
        (Some("$return"), value) => Some(value).filter(|value| !value.is_null()),
        // Without a `$return`, an object's members count as outputs.
        (Some(name), Value::Object(mut members)) => outputs.remove(name).or_else(|| members.remove(name)),
        (Some(name), _) => outputs.remove(name),
    };
    let empty = HttpReply { status: StatusCode::OK, headers: vec![text_plain()], body: "{}".to_owned() };
    let members = match output {
        None => return Ok(empty),
        Some(Value::Object(members)) => members,
        Some(Value::String(text)) if BASE64_STANDARD.decode(&text).is_ok() => {
            return Err(ReplyFault::Shape(
                "an http output that is valid base64, which the host takes for bytes: answer an object",
            ));
        }
        Some(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(Value::Object(members)) => members,
            _ => {
                return Err(ReplyFault::Shape(
                    "an http output that is no object: answer {\"statusCode\", \"headers\", \"body\"}",
                ));
            }
        },
        Some(_) => {
            return Err(ReplyFault::Shape(
                "an http output that is no object: answer {\"statusCode\", \"headers\", \"body\"}",
            ));
        }
    };
    response(members)
}

fn response(members: Map<String, Value>) -> Result<HttpReply, ReplyFault> {
    let member =
        |name: &str| members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let status = match member("statusCode").or_else(|| member("status")) {
        None | Some(Value::Null) => Some(StatusCode::OK),
        Some(Value::String(text)) => {
            text.trim().parse().ok().and_then(|code: u16| StatusCode::from_u16(code).ok())
        }
        Some(value) => value.as_u64().and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok()),
    };
    let status = status.ok_or(ReplyFault::Shape("an http output whose statusCode is no HTTP status"))?;
    let mut headers: Vec<(String, String)> = match member("headers") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(headers)) => {
            headers.iter().map(|(name, value)| (name.clone(), plain(value))).collect()
        }
        Some(_) => return Err(ReplyFault::Shape("an http output whose headers are no object")),
    };
    let has_type = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let body = match member("body") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => {
            if !has_type {
                headers.push(text_plain());
            }
            text.clone()
        }
        Some(value) => value.to_string(),
    };
    Ok(HttpReply { status, headers, body })
}

fn text_plain() -> (String, String) {
    ("Content-Type".to_owned(), "text/plain; charset=utf-8".to_owned())
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_json(body: &str) -> Result<Reply, ReplyFault> {
        read(StatusCode::OK, Some("application/json; charset=utf-8"), body.as_bytes())
    }

    #[test]
    fn the_rules_are_applied_in_azures_order() {
        let status = |code| StatusCode::from_u16(code).unwrap();
        let json = Some("application/json");
        let cases: [(u16, Option<&str>, &str, Result<Reply, ReplyFault>); 12] = [
            (500, json, r#"{"Logs":["x"]}"#, Err(ReplyFault::Status(status(500)))),
            (302, json, "{}", Err(ReplyFault::Status(status(302)))),
            (204, None, "", Err(ReplyFault::Hang("204"))),
            (200, json, "", Err(ReplyFault::Hang("an empty body"))),
            (200, json, "null", Err(ReplyFault::Hang("null"))),
            (200, None, "{}", Err(ReplyFault::ContentType("missing".into()))),
            (200, Some("text/plain"), "{}", Err(ReplyFault::ContentType("`text/plain`".into()))),
            (
                200,
                Some("application/problem+json"),
                "{}",
                Err(ReplyFault::ContentType("`application/problem+json`".into())),
            ),
            (200, json, "{", Err(ReplyFault::Malformed { line: 1, column: 1 })),
            (200, json, "{}", Ok(Reply::default())),
            (202, Some("text/json"), r#"{"key1":"value1"}"#, Ok(Reply::default())),
            (200, json, "[1]", Err(ReplyFault::Shape("no JSON object in it"))),
        ];
        for (code, content_type, body, expected) in cases {
            assert_eq!(
                read(status(code), content_type, body.as_bytes()),
                expected,
                "{code} {content_type:?} {body}"
            );
        }
    }

    #[test]
    fn faults_are_sentences() {
        let status = ReplyFault::Status(StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(
            status.to_string(),
            "Response status code does not indicate success: 500 (Internal Server Error)"
        );
        assert!(ReplyFault::Hang("null").to_string().contains("would hang until functionTimeout"));
    }

    #[test]
    fn members_are_found_whatever_their_case() {
        let reply =
            read_json(r#"{"outputs":{"a":1},"LOGS":["x",null,2],"returnValue":"r","other":0}"#).unwrap();
        let outputs = Map::from_iter([("a".to_owned(), json!(1))]);
        assert_eq!(
            reply,
            Reply { outputs, logs: vec!["x".into(), String::new(), "2".into()], return_value: json!("r") }
        );
        assert_eq!(read_json(r#"{"Outputs":[]}"#), Err(ReplyFault::Shape("an `Outputs` that is no object")));
        assert_eq!(read_json(r#"{"Logs":"x"}"#), Err(ReplyFault::Shape("`Logs` that are no array of texts")));
    }

    fn answer(body: Value) -> Result<HttpReply, ReplyFault> {
        http_reply(read_json(&body.to_string()).unwrap(), Some("res"))
    }

    fn expected(status: u16, headers: &[(&str, &str)], body: &str) -> Result<HttpReply, ReplyFault> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ok(HttpReply { status: StatusCode::from_u16(status).unwrap(), headers, body: body.to_owned() })
    }

    #[test]
    fn the_http_output_makes_the_answer() {
        let plain = ("Content-Type", "text/plain; charset=utf-8");
        let cases = [
            (
                json!({"Outputs": {"res": {"statusCode": "201", "body": "my world", "headers": {"header1": "v"}}}}),
                expected(201, &[("header1", "v"), plain], "my world"),
            ),
            (
                json!({"Outputs": {"res": {"statusCode": 404, "body": "{}", "headers": {"content-type": "application/json"}}}}),
                expected(404, &[("content-type", "application/json")], "{}"),
            ),
            (json!({"Outputs": {"res": {"body": {"a": 1}}}}), expected(200, &[], r#"{"a":1}"#)),
            (json!({"Outputs": {"res": "{\"statusCode\": 202}"}}), expected(202, &[], "")),
            (json!({"ReturnValue": {"res": {"statusCode": 203}}}), expected(203, &[], "")),
            (json!({}), expected(200, &[plain], "{}")),
        ];
        for (body, expected) in cases {
            assert_eq!(answer(body.clone()), expected, "{body}");
        }
    }

    #[test]
    fn an_output_that_is_no_answer_fails() {
        for output in [
            json!("plain words"),
            json!("test"),
            json!(5),
            json!([1]),
            json!({"statusCode": 9999}),
            json!({"headers": "x"}),
        ] {
            let body = json!({"Outputs": {"res": output}});
            assert!(matches!(answer(body.clone()), Err(ReplyFault::Shape(_))), "{body}");
        }
    }
}
