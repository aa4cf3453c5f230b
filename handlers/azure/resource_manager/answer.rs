//! One answer of Resource Manager, and what its status means.

use std::time::Duration;

use azure_core::http::headers::{HeaderName, Headers};
use jiff::Timestamp;
use serde_json::Value;

use crate::{azure::http_client::retry_after, outcome::Fault};

/// The most characters of Azure's explanation that are told.
const DETAIL_CHARACTERS_MAX: usize = 1000;

/// Parts of codes by which a 409 says that somebody is at it right now; any other 409 stays.
const BUSY: [&str; 6] = ["inprogress", "notfinished", "busy", "beingdeleted", "retryable", "concurrent"];

/// An answer, whatever its status.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// Where the operation tells how it is.
    pub async_operation: Option<String>,
    pub location: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    pub fn new(status: u16, headers: &Headers, body: Vec<u8>) -> Self {
        let header = |name: &str| headers.get_optional_str(&HeaderName::from(name.to_owned()));
        let text = |name: &str| header(name).filter(|value| !value.is_empty()).map(str::to_owned);
        Self {
            status,
            retry_after: retry_after(header, Timestamp::now()),
            async_operation: text("azure-asyncoperation"),
            location: text("location"),
            body,
        }
    }

    /// The answer, if it is a success.
    ///
    /// # Errors
    /// The fault that its status stands for.
    pub fn ok(self, doing: &str, id: &str) -> Result<Self, Fault> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(self.fault(doing, id)) }
    }

    /// The body; null where there is none.
    ///
    /// # Errors
    /// When it is no JSON: something between us and Azure answered in its place.
    pub fn json(&self, doing: &str) -> Result<Value, Fault> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body)
            .map_err(|_| Fault::transient(doing, format!("the answer (HTTP {}) is no JSON", self.status)))
    }

    /// Azure's own code and explanation.
    pub fn refusal(&self) -> (String, String) {
        let body = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
        let (code, detail) = refusal_of(&body);
        (code.unwrap_or_else(|| format!("Http{}", self.status)), detail)
    }

    /// What the status means, where it is no success.
    pub fn fault(&self, doing: &str, id: &str) -> Fault {
        let (code, detail) = self.refusal();
        let transient = || Fault::Transient {
            doing: doing.to_owned(),
            retry_after: self.retry_after,
            source: format!("Azure answered {}: {detail} ({code})", self.status).into(),
        };
        let rejected =
            || Fault::Rejected { doing: doing.to_owned(), code: code.clone(), detail: detail.clone() };
        match self.status {
            408 | 425 | 429 | 500..=599 => transient(),
            409 if is_busy(&code) => transient(),
            412 => Fault::Conflict { id: id.to_owned() },
            400..=499 => rejected(),
            // A redirect, or something that is no answer to a request at all.
            _ => rejected(),
        }
    }
}

fn is_busy(code: &str) -> bool {
    let code = code.to_ascii_lowercase();
    // Many providers say no more than that there is a conflict, and mean that it is one of the moment.
    matches!(code.as_str(), "conflict" | "http409") || BUSY.iter().any(|part| code.contains(part))
}

/// The code and the explanation of an error body, with the explanations of its details; some
/// providers leave out the member `error` around them.
pub(super) fn refusal_of(body: &Value) -> (Option<String>, String) {
    let error = body.get("error").filter(|error| !error.is_null()).unwrap_or(body);
    let text = |value: &Value, name: &str| {
        let text = value.get(name).and_then(Value::as_str).map(str::trim);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let mut sentences: Vec<String> = text(error, "message").into_iter().collect();
    for detail in error.get("details").and_then(Value::as_array).into_iter().flatten() {
        let sentence = text(detail, "message");
        sentences.extend(sentence.filter(|sentence| !sentences.contains(sentence)));
    }
    let detail = if sentences.is_empty() { "it says nothing more".to_owned() } else { sentences.join(" ") };
    (text(error, "code"), detail.chars().take(DETAIL_CHARACTERS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, code: &str) -> Answer {
        let mut headers = Headers::new();
        headers.insert("retry-after", "11");
        let body = json!({ "error": { "code": code, "message": "It is so." } });
        Answer::new(status, &headers, body.to_string().into_bytes())
    }

    #[test]
    fn each_status_has_one_meaning() {
        for (status, code, meaning) in [
            (302, "Moved", "rejected Moved"),
            (400, "InvalidParameter", "rejected InvalidParameter"),
            (401, "ExpiredToken", "rejected ExpiredToken"),
            (403, "AuthorizationFailed", "rejected AuthorizationFailed"),
            (404, "ResourceNotFound", "rejected ResourceNotFound"),
            (408, "Timeout", "transient 11"),
            (409, "ContainerAppOperationInProgress", "transient 11"),
            (409, "Conflict", "transient 11"),
            (409, "VaultAlreadyExists", "rejected VaultAlreadyExists"),
            (409, "RoleAssignmentExists", "rejected RoleAssignmentExists"),
            (412, "PreconditionFailed", "conflict /x"),
            (422, "Unprocessable", "rejected Unprocessable"),
            (429, "TooManyRequests", "transient 11"),
            (500, "InternalServerError", "transient 11"),
            (503, "ServiceUnavailable", "transient 11"),
        ] {
            let told = match answer(status, code).fault("reading", "/x") {
                Fault::Transient { retry_after, .. } => {
                    format!("transient {}", retry_after.unwrap().as_secs())
                }
                Fault::Rejected { code, .. } => format!("rejected {code}"),
                Fault::Conflict { id } => format!("conflict {id}"),
                other @ Fault::Unreadable { .. } => format!("{other:?}"),
            };
            assert_eq!(told, meaning, "{status} {code}");
        }
    }

    #[test]
    fn an_error_body_is_read_in_each_of_its_forms() {
        for (body, code, detail) in [
            (json!({ "error": { "code": "A", "message": "One." } }), Some("A"), "One."),
            (json!({ "code": "B", "message": "Two." }), Some("B"), "Two."),
            (
                json!({ "error": { "code": "C", "message": "One.", "details": [{ "message": "Why." }, { "message": "One." }] } }),
                Some("C"),
                "One. Why.",
            ),
            (json!({ "error": null }), None, "it says nothing more"),
            (json!("text"), None, "it says nothing more"),
        ] {
            assert_eq!(refusal_of(&body), (code.map(str::to_owned), detail.to_owned()), "{body}");
        }
    }

    #[test]
    fn a_gateway_that_speaks_no_json_is_told_apart() {
        let answer = Answer::new(200, &Headers::new(), b"<html>".to_vec());
        assert!(matches!(answer.json("reading"), Err(Fault::Transient { .. })));
        let answer = Answer::new(502, &Headers::new(), b"<html>".to_vec());
        assert_eq!(answer.refusal(), ("Http502".to_owned(), "it says nothing more".to_owned()));
    }
}
