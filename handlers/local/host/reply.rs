//! What a handler's answer means to the host.

use serde_json::Value;

/// Why an invocation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("Response status code does not indicate success: {0}{1}")]
    Status(u16, String),
    #[error("the answer has the content type `{0}`; it must be application/json")]
    ContentType(String),
    #[error("the answer is no JSON: {0}")]
    Malformed(String),
    #[error("the answer is empty: on Azure this invocation would hang until the function's timeout, and the handler be killed. Answer at least {{}}")]
    WouldHang,
    #[error("the handler was not reached: {0}")]
    NotReached(String),
    #[error("no answer within {0} seconds: the handler is killed and started again, as on Azure")]
    TimedOut(u64),
}

/// The host's rules, in its order.
pub(super) fn read(status: u16, content_type: Option<&str>, body: &[u8]) -> Result<Value, Failure> {
    if !(200..300).contains(&status) {
        let text = String::from_utf8_lossy(body);
        let sentence = serde_json::from_str::<Value>(&text).ok().and_then(|body| Some(body.get("error")?.as_str()?.to_owned()));
        return Err(Failure::Status(status, sentence.map_or_else(String::new, |sentence| format!(": {sentence}"))));
    }
    if status == 204 || body.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::WouldHang);
    }
    let media = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media != "application/json" && media != "text/json" {
        return Err(Failure::ContentType(content_type.unwrap_or_default().to_owned()));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Null) => Err(Failure::WouldHang),
        Ok(answer) => Ok(answer),
        Err(error) => Err(Failure::Malformed(error.to_string())),
    }
}

/// A member of the answer, whatever the case of its name.
pub(super) fn member<'a>(answer: &'a Value, name: &str) -> Option<&'a Value> {
    answer.as_object()?.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}
