//! What a vault answers instead of what was asked: a status and `{"error":{code,message,innererror}}`.
//! No refusal repeats what a caller sent as a value.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::sealing::Unsealable;
use crate::local::database::DatabaseFault;

/// A refusal in Key Vault's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    /// The closer reason, where Key Vault gives one.
    pub inner: Option<&'static str>,
    pub message: String,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, inner: None, message: message.into() }
    }

    pub fn because(self, inner: &'static str) -> Self {
        Self { inner: Some(inner), ..self }
    }

    pub fn bad_parameter(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadParameter", message)
    }

    pub fn no_secret(name: &str) -> Self {
        let message = format!(
            "A secret with (name/id) {name} was not found in this key vault. If it was deleted lately, it can be recovered."
        );
        Self::new(StatusCode::NOT_FOUND, "SecretNotFound", message)
    }

    pub fn not_deleted(name: &str) -> Self {
        let message = format!("Deleted Secret not found: {name}");
        Self::new(StatusCode::NOT_FOUND, "SecretNotFound", message)
    }

    pub fn disabled() -> Self {
        let message = "Operation get is not allowed on a disabled secret.";
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).because("SecretDisabled")
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", message)
    }
}

impl From<DatabaseFault> for Refusal {
    fn from(fault: DatabaseFault) -> Self {
        Self::internal(format!("The stand-in could not use its file: {}.", crate::outcome::chain(&fault)))
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        DatabaseFault::from(error).into()
    }
}

impl From<Unsealable> for Refusal {
    fn from(error: Unsealable) -> Self {
        Self::internal(format!("The stand-in could not use its file: {error}."))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(inner) = self.inner {
            error["innererror"] = json!({ "code": inner });
        }
        (self.status, Json(json!({ "error": error }))).into_response()
    }
}
