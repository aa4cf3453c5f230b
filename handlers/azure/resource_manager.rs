//! Azure Resource Manager: reading, writing and deleting resources, and looking once at what it does
//! in the background.
//!
//! Deliberately absent: the SDK's poller, which sleeps until an operation ends. An operation is a
//! value here ([`LongRunning`]) that its caller stores and looks at again, in another process if need
//! be. Absent, too, is any typed resource: bodies are JSON.

mod answer;
mod long_running;

use std::{sync::Arc, time::Duration};

use azure_core::{
    Bytes,
    credentials::TokenCredential,
    error::ErrorKind,
    http::{
        ClientOptions, Context, Method, Pipeline, PipelineStreamOptions, Request, RetryOptions, Url,
        headers::{ACCEPT, CONTENT_TYPE},
        policies::auth::BearerTokenAuthorizationPolicy,
    },
};
use futures::StreamExt;
use serde_json::Value;
use tokio::time::Instant;

pub(super) use self::long_running::is_at_work;
pub use self::long_running::{LongRunning, Reply};
use self::{
    answer::Answer,
    long_running::{Started, begin},
};
use super::http_client::reason;
use crate::outcome::Fault;

/// What a token for Resource Manager is asked for.
const SCOPE: &str = "https://management.azure.com/.default";
/// How long a call may take, its retries included; an invocation has 10 seconds in all.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// Tries after the first.
const RETRIES_MAX: u32 = 2;
/// How long after a call began a retry may still start.
const RETRY_WINDOW: Duration = Duration::from_secs(3);
/// The pause before the first retry; the second waits four times as long.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most pages of a listing.
const LIST_PAGES_MAX: usize = 50;

/// Why there is no client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{endpoint}` is no endpoint of Resource Manager; it must be a URL that begins with `https://`")]
pub struct EndpointError {
    pub endpoint: String,
}

/// A client of one Resource Manager. Cheap to clone.
#[derive(Clone)]
pub struct ResourceManager {
    endpoint: Url,
    pipeline: Pipeline,
}

impl ResourceManager {
    /// `endpoint` is `https://management.azure.com`, or a stand-in's.
    ///
    /// # Errors
    /// When it is no HTTPS URL: a token never leaves in the clear.
    pub fn new(
        endpoint: &str,
        client_options: ClientOptions,
        credential: Arc<dyn TokenCredential>,
    ) -> Result<Self, EndpointError> {
        let refused = || EndpointError { endpoint: endpoint.to_owned() };
        let url = Url::parse(endpoint).ok().filter(|url| url.scheme() == "https" && url.has_host());
        let token = Arc::new(BearerTokenAuthorizationPolicy::new(credential, [SCOPE]));
        // The SDK's own retries would wait for as long as the other side asks.
        let options = ClientOptions { retry: RetryOptions::none(), ..client_options };
        let (name, version) = (option_env!("CARGO_PKG_NAME"), option_env!("CARGO_PKG_VERSION"));
        let pipeline = Pipeline::new(name, version, options, Vec::new(), vec![token], None);
        Ok(Self { endpoint: url.ok_or_else(refused)?, pipeline })
    }

    /// Reads a resource; none where there is no such resource.
    ///
    /// # Errors
    /// [`Fault::Transient`] where it may pass, [`Fault::Rejected`] with Azure's code where not. Every
    /// call here has the same; a missing right is a rejection with code `AuthorizationFailed` or
    /// alike, and it is for the caller to know whether a right is still on its way.
    pub async fn get(&self, id: &str, api_version: &str) -> Result<Option<Value>, Fault> {
        let doing = format!("reading `{id}`");
        let answer = self.call(Method::Get, self.url(id, api_version, &doing)?, None, &doing).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        answer.ok(&doing, id)?.json(&doing).map(Some)
    }

    /// Reads a collection, all pages of it. `path` may have a query, e.g. a `$filter`.
    ///
    /// # Errors
    /// As [`Self::get`]; also where there are more pages than a listing may have.
    pub async fn list(&self, path: &str, api_version: &str) -> Result<Vec<Value>, Fault> {
        let doing = format!("listing `{path}`");
        let mut url = self.url(path, api_version, &doing)?;
        let mut items = Vec::new();
        for _ in 0..LIST_PAGES_MAX {
            let answer = self.call(Method::Get, url, None, &doing).await?;
            let mut page = answer.ok(&doing, path)?.json(&doing)?;
            if let Some(Value::Array(found)) = page.get_mut("value").map(Value::take) {
                items.extend(found);
            }
            match page.get("nextLink").and_then(Value::as_str) {
                Some(next) if !next.is_empty() => url = self.trusted(next, &doing)?,
                Some(_) | None => return Ok(items),
            }
        }
        Err(rejected(
            &doing,
            "TooManyPages",
            format!("there are more than {LIST_PAGES_MAX} pages; narrow the listing"),
        ))
    }

    /// Makes or replaces a resource.
    ///
    /// # Errors
    /// As [`Self::get`]; [`Fault::Conflict`] where the resource has another etag.
    pub async fn put(&self, id: &str, api_version: &str, body: &Value) -> Result<Reply, Fault> {
        self.write(Method::Put, id, api_version, Some(body), "writing").await
    }

    /// Changes a resource by a merge patch, in which an array replaces the whole array.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn patch(&self, id: &str, api_version: &str, body: &Value) -> Result<Reply, Fault> {
        self.write(Method::Patch, id, api_version, Some(body), "changing").await
    }

    /// Calls an action of a resource; `path` is the resource's id, a slash and the action's name.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn post(&self, path: &str, api_version: &str, body: Option<&Value>) -> Result<Reply, Fault> {
        self.write(Method::Post, path, api_version, body, "calling").await
    }

    /// Deletes a resource; nothing there is done.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete(&self, id: &str, api_version: &str) -> Result<Reply, Fault> {
        self.write(Method::Delete, id, api_version, None, "deleting").await
    }

    /// Looks once at an operation.
    ///
    /// # Errors
    /// As [`Self::get`]. An operation that failed is no error but [`Reply::Failed`].
    pub async fn look(&self, operation: &LongRunning) -> Result<Reply, Fault> {
        long_running::look(self, operation).await
    }

    async fn write(
        &self,
        method: Method,
        id: &str,
        api_version: &str,
        body: Option<&Value>,
        verb: &str,
    ) -> Result<Reply, Fault> {
        let doing = format!("{verb} `{id}`");
        let url = self.url(id, api_version, &doing)?;
        let answer = self.call(method, url, body, &doing).await?;
        let started = Started { method, id, api_version };
        begin(self, &started, answer, &doing)
    }

    /// The URL of a path of ours, with its API version.
    fn url(&self, path: &str, api_version: &str, doing: &str) -> Result<Url, Fault> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let walks = path.split('/').any(|segment| matches!(segment, "." | ".."));
        if !path.starts_with('/') || walks {
            return Err(rejected(
                doing,
                "InvalidId",
                "an id begins with `/` and has no `.` or `..` in it".to_owned(),
            ));
        }
        let mut url = self.endpoint.clone();
        url.set_path(path);
        if !query.is_empty() {
            url.set_query(Some(query));
        }
        url.query_pairs_mut().append_pair("api-version", api_version);
        Ok(url)
    }

    /// A URL that Resource Manager gave us, if a token may go there: to its own host or a host under
    /// it (regions have theirs), and nowhere else.
    fn trusted(&self, given: &str, doing: &str) -> Result<Url, Fault> {
        let refuse = |detail: &str| rejected(doing, "UntrustedUrl", detail.to_owned());
        let url =
            self.endpoint.join(given).map_err(|_| refuse("Azure named a URL to look at that is none"))?;
        let ours = self.endpoint.host_str().unwrap_or_default();
        let theirs = url.host_str().unwrap_or_default();
        let under = theirs.strip_suffix(ours).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let same_port = url.port_or_known_default() == self.endpoint.port_or_known_default();
        let anonymous = url.username().is_empty() && url.password().is_none();
        if url.scheme() == "https" && under && same_port && anonymous {
            return Ok(url);
        }
        Err(refuse("Azure named a URL to look at that is not Resource Manager's own"))
    }

    /// One call, tried again where that is safe and soon.
    async fn call(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
        doing: &str,
    ) -> Result<Answer, Fault> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        match tokio::time::timeout(CALL_TIMEOUT, self.tries(method, &url, body)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Unanswered::Unsent(reason) | Unanswered::Lost(reason))) => {
                Err(Fault::transient(doing, reason))
            }
            Ok(Err(Unanswered::TooLong)) => Err(rejected(
                doing,
                "AnswerTooLong",
                format!("the answer is longer than {ANSWER_BYTES_MAX} bytes"),
            )),
            Err(_) => {
                Err(Fault::transient(doing, format!("no answer within {} seconds", CALL_TIMEOUT.as_secs())))
            }
        }
    }

    async fn tries(&self, method: Method, url: &Url, body: Option<Bytes>) -> Result<Answer, Unanswered> {
        let started = Instant::now();
        let mut retry = 0;
        loop {
            let outcome = self.once(method, url, body.clone()).await;
            let pause = RETRY_PAUSE * 4_u32.pow(retry);
            let pause = match &outcome {
                Ok(answer) => pause.max(answer.retry_after.unwrap_or_default()),
                Err(_) => pause,
            };
            if retry >= RETRIES_MAX
                || !may_retry(method, &outcome, retry)
                || started.elapsed() + pause > RETRY_WINDOW
            {
                return outcome;
            }
            tokio::time::sleep(pause).await;
            retry += 1;
        }
    }

    async fn once(&self, method: Method, url: &Url, body: Option<Bytes>) -> Result<Answer, Unanswered> {
        let mut request = Request::new(url.clone(), method);
        request.insert_header(ACCEPT, "application/json");
        if let Some(body) = body {
            request.insert_header(CONTENT_TYPE, "application/json");
            request.set_body(body);
        }
        let options = PipelineStreamOptions { skip_checks: true, ..PipelineStreamOptions::default() };
        let response = self.pipeline.stream(&Context::new(), &mut request, Some(options)).await?;
        let (status, headers, mut stream) = response.deconstruct();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(Unanswered::TooLong);
            }
        }
        Ok(Answer::new(u16::from(status), &headers, bytes))
    }
}

/// A call to which there was no answer, and why.
enum Unanswered {
    /// It is known that Azure did not see it.
    Unsent(String),
    /// Azure may have done it.
    Lost(String),
    /// The answer is longer than [`ANSWER_BYTES_MAX`].
    TooLong,
}

impl From<azure_core::Error> for Unanswered {
    fn from(error: azure_core::Error) -> Self {
        match error.kind() {
            ErrorKind::Credential => {
                Self::Unsent(format!("there is no token for Resource Manager: {}", reason(&error)))
            }
            ErrorKind::Connection => Self::Unsent(reason(&error)),
            _ => Self::Lost(reason(&error)),
        }
    }
}

/// Whether a call may be made again. PATCH and POST are, only where Azure certainly did nothing.
fn may_retry(method: Method, outcome: &Result<Answer, Unanswered>, retry: u32) -> bool {
    let repeatable = match method {
        Method::Get | Method::Head | Method::Put | Method::Delete => true,
        Method::Patch | Method::Post => false,
        // The enum may grow; what we do not know we do not repeat.
        _ => false,
    };
    match outcome {
        Ok(answer) => match answer.status {
            429 | 503 => true,
            // The token may just have been revoked: the policy drops it and asks the credential anew.
            401 => retry == 0,
            408 | 500 | 502 | 504 => repeatable,
            _ => false,
        },
        Err(Unanswered::Unsent(_)) => true,
        Err(Unanswered::Lost(_)) => repeatable,
        Err(Unanswered::TooLong) => false,
    }
}

fn rejected(doing: &str, code: &str, detail: String) -> Fault {
    Fault::Rejected { doing: doing.to_owned(), code: code.to_owned(), detail }
}

#[cfg(all(test, feature = "local"))]
mod tests;
