//! One invocation: wait for the handler, post, read the answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream;
use http::{Request, StatusCode, header};

use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Frame;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use uuid::Uuid;

use super::{
    events::{Events, HostEvent},
    process::{Body, HandlerClient, address},
    reply::{self, Reply, ReplyFault},
    supervisor::{Order, State},
};

/// The version of Azure's host whose manners these are.
const HOST_VERSION: &str = "4.1037.0.0";
/// Bytes of an answer.
const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Invocations wait for a handler as long as this many starts may take.
const STARTS_WAITED_FOR: u32 = 4;

/// Why an invocation failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvocationFault {
    #[error("the handler exited with code 0 and Azure's host would not start it again")]
    Finished,
    #[error("the host has stopped")]
    Gone,
    #[error("the handler was not ready within {} seconds", .0.as_secs_f64())]
    NeverReady(Duration),
    #[error("no request can be made of the function's name")]
    Unaddressable,
    #[error("the connection to the handler failed: {0}")]
    Connection(String),
    #[error("the invocation took longer than functionTimeout ({} seconds); the handler is killed and started again", .0.as_secs_f64())]
    TimedOut(Duration),
    #[error("the handler's answer is larger than {} MiB", REPLY_BYTES_MAX / (1024 * 1024))]
    TooLarge,
    #[error(transparent)]
    Reply(#[from] ReplyFault),
}

/// Invokes functions. Cheap to clone.
#[derive(Clone)]
pub(super) struct Invoker {
    pub client: HandlerClient,
    pub state: watch::Receiver<State>,
    pub orders: mpsc::Sender<Order>,
    pub events: Events,
    pub initialization_timeout: Duration,
    pub function_timeout: Option<Duration>,
}

impl Invoker {
    /// Posts `body` to the function and makes of its reply what the trigger needs. A failure has been
    /// told when this returns.
    ///
    /// # Errors
    /// Why the invocation failed.
    pub async fn invoke<T>(
        &self,
        function: &str,
        body: String,
        outcome: impl FnOnce(Reply) -> Result<T, ReplyFault>,
    ) -> Result<T, InvocationFault> {
        let invocation = Uuid::new_v4();
        let result = match self.attempt(function, invocation, body).await {
            Ok(mut reply) => {
                for line in std::mem::take(&mut reply.logs) {
                    self.events.tell("INFO", format!("{function} ({invocation}): {line}"));
                }
                outcome(reply).map_err(InvocationFault::Reply)
            }
            Err(fault) => Err(fault),
        };
        if let Err(fault) = &result {
            self.failed(function, invocation, fault.to_string());
        }
        result
    }

    /// Tells of an invocation that failed.
    pub fn failed(&self, function: &str, invocation: Uuid, reason: String) {
        let (function, invocation_id) = (function.to_owned(), invocation.to_string());
        self.events.post(HostEvent::InvocationFailed { function, invocation_id, reason });
    }

    /// Waits until the handler is ready, or is known not to become so.
    pub async fn settled(&self) -> State {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| *state != State::Starting).await;
        settled.map_or(State::Gone, |state| *state)
    }

    async fn attempt(
        &self,
        function: &str,
        invocation: Uuid,
        body: String,
    ) -> Result<Reply, InvocationFault> {
        let patience = self.initialization_timeout * STARTS_WAITED_FOR;
        let Ok(state) = timeout(patience, self.settled()).await else {
            let reason = format!(
                "no handler was ready within {} seconds, four times initializationTimeout",
                patience.as_secs_f64()
            );
            // A supervisor that has ended needs no order.
            let _ = self.orders.try_send(Order::GiveUp { reason });
            return Err(InvocationFault::NeverReady(patience));
        };
        let (port, run) = match state {
            State::Ready { port, run } => (port, run),
            State::Finished => return Err(InvocationFault::Finished),
            State::Starting | State::Gone => return Err(InvocationFault::Gone),
        };
        let exchange = self.exchange(function, invocation, port, body);
        let answer = match self.function_timeout {
            None => exchange.await,
            Some(limit) => match timeout(limit, exchange).await {
                Ok(answer) => answer,
                Err(_) => {
                    // Where too many orders wait already, one of them is this one's twin.
                    let _ = self.orders.try_send(Order::Restart { run });
                    return Err(InvocationFault::TimedOut(limit));
                }
            },
        };
        let (status, content_type, body) = answer?;
        Ok(reply::read(status, content_type.as_deref(), &body)?)
    }

    async fn exchange(
        &self,
        function: &str,
        invocation: Uuid,
        port: u16,
        body: String,
    ) -> Result<(StatusCode, Option<String>, Bytes), InvocationFault> {
        let uri = address(port, function).map_err(|_| InvocationFault::Unaddressable)?;
        // A body of no known length is sent in chunks, as Azure sends it.
        let frame = Ok(Frame::data(Bytes::from(body)));
        let body = Body::new(StreamBody::new(stream::iter([frame])));
        let request = Request::post(uri)
            .header("X-Azure-Functions-HostVersion", HOST_VERSION)
            .header("X-Azure-Functions-InvocationId", invocation.to_string())
            .header(header::USER_AGENT, format!("Azure-Functions-Host/{HOST_VERSION}"))
            .header("traceparent", trace_parent())
            .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
            .body(body)
            .map_err(|_| InvocationFault::Unaddressable)?;
        let started = Instant::now();
        let broken = |what: &dyn std::error::Error| {
            let seconds = started.elapsed().as_secs_f32();
            InvocationFault::Connection(format!("{}, after {seconds:.1} seconds", innermost(what)))
        };
        let response = self.client.request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let limited = Limited::new(response.into_body(), REPLY_BYTES_MAX).collect().await;
        let body =
            limited.map_err(|error| match error.downcast_ref::<http_body_util::LengthLimitError>() {
                Some(_) => InvocationFault::TooLarge,
                None => broken(&*error),
            })?;
        Ok((status, content_type, body.to_bytes()))
    }
}

/// A new trace, not sampled, as Azure's host was seen to send it.
fn trace_parent() -> String {
    let (trace, span) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
    format!("00-{trace}-{}-00", &span[..16])
}

/// What lies under the layers of an error.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
