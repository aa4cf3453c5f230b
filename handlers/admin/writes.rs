//! What operators write that is no command: a commit of the HTTP function itself, made once however
//! often the request is sent, and remembered with who and why.

use serde::Deserialize;
use tracing::debug;

use super::http::{self, HttpError};
use crate::{
    invocation::HttpRequest,
    ledger::{Commit, InboxEntry, Ledger, inbox_id},
    outcome::Fault,
    ports::store::Partition,
};

/// Times that a write is decided anew because somebody else wrote first.
const CONFLICTS_MAX: u32 = 5;
/// The longest reason, in characters.
const REASON_CHARACTERS_MAX: usize = 500;

/// The body of an operator's write.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Because {
    reason: String,
}

/// An operator's write: who, why, and what makes it one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    function: &'static str,
    /// The same for a request that is sent again.
    key: String,
    /// Whether the sender gave the key.
    given: bool,
    pub actor: String,
    pub reason: String,
}

impl Order {
    /// Reads an order about `subject`. Without an `Idempotency-Key` the subject is the key.
    ///
    /// # Errors
    /// When the body gives no reason, or the header is no key.
    pub fn read(function: &'static str, request: &HttpRequest, subject: &str) -> Result<Self, HttpError> {
        let Because { reason } = http::body(request)?;
        Self::with(function, request, subject, &reason)
    }

    /// As [`Self::read`], where the reason was read with more of the body.
    ///
    /// # Errors
    /// When there is no reason, or the header is no key.
    pub fn with(
        function: &'static str,
        request: &HttpRequest,
        subject: &str,
        reason: &str,
    ) -> Result<Self, HttpError> {
        let reason = reason.trim().to_owned();
        if reason.is_empty() || reason.chars().count() > REASON_CHARACTERS_MAX {
            let message =
                format!("The body's field `reason`: say why in 1 to {REASON_CHARACTERS_MAX} characters.");
            return Err(HttpError::bad_request("BodyInvalid", message));
        }
        let given = http::idempotency_key(request)?;
        let key = given.unwrap_or(subject).to_owned();
        Ok(Self { function, key, given: given.is_some(), actor: http::actor(request).to_owned(), reason })
    }

    /// The same order about another subject, which only counts where the sender gave no key.
    #[must_use]
    pub fn about(&self, subject: &str) -> Self {
        let key = if self.given { self.key.clone() } else { subject.to_owned() };
        Self { key, ..self.clone() }
    }

    /// The id that the order goes by.
    pub fn id(&self) -> String {
        format!("http-{}", self.key)
    }

    /// Whether the order was carried out before. `told` is what it does, in words.
    ///
    /// # Errors
    /// When its key was used for another order.
    pub async fn done(
        &self,
        ledger: &Ledger,
        partition: &Partition,
        told: &str,
    ) -> Result<Result<bool, HttpError>, Fault> {
        let id = inbox_id(self.function, &self.id());
        let Some(entry) = ledger.load::<InboxEntry>(partition, &id).await?.state else {
            return Ok(Ok(false));
        };
        let told = self.sentence(told);
        if entry.detail.as_ref() == Some(&told) {
            debug!("`{}` was carried out before", self.id());
            return Ok(Ok(true));
        }
        if !self.given {
            // Another order about the same subject: what has become of that tells what to answer.
            return Ok(Ok(false));
        }
        let message = format!(
            "The key `{}` was used for another request; send this one with a key of its own.",
            self.key
        );
        Ok(Err(HttpError::new(422, "IdempotencyKeyReused", message)))
    }

    /// Adds the memory of the order to what it writes.
    ///
    /// # Errors
    /// When it cannot be written as a document.
    pub fn remember(&self, commit: &mut Commit, told: &str) -> Result<(), Fault> {
        commit.remember(&InboxEntry {
            event_id: self.id(),
            event_type: self.function.to_owned(),
            function: self.function.to_owned(),
            handled_at: commit.now,
            environment_id: Some(commit.partition.environment_id.clone()),
            operation_id: None,
            outcome: "Accepted".to_owned(),
            outcome_event_id: None,
            detail: Some(self.sentence(told)),
        })
    }

    fn sentence(&self, told: &str) -> String {
        format!("`{}` {told}: {}", self.actor, self.reason)
    }
}

/// Decides, and decides anew where somebody else wrote first.
///
/// # Errors
/// What was decided, or that the store is away.
pub async fn patiently<T, Fut>(mut attempt: impl FnMut() -> Fut) -> Result<T, HttpError>
where
    Fut: Future<Output = Result<Result<T, HttpError>, Fault>>,
{
    let mut conflicts = 0;
    loop {
        match attempt().await {
            Ok(decided) => return decided,
            Err(Fault::Conflict { .. }) if conflicts < CONFLICTS_MAX => conflicts += 1,
            Err(fault) => return Err(fault.into()),
        }
    }
}
