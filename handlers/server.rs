//! The custom handler's HTTP face: `GET /` at once, and `POST /<Function>` for every function.
//!
//! The host polls `GET /` before it sends anything, so listening comes first and opening the store
//! after it. Nothing runs after a reply, and the reply is always the host's JSON: an empty success
//! would hang the invocation on Azure until its timeout.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tracing::{Instrument, error};

use crate::{
    functions::{self, Function, Run},
    invocation::{self, HttpAnswer, Invocation},
    outcome::Fault,
    platform::Platform,
    telemetry,
};

/// The largest invocation that is read: a message of 256 KiB in base64, and its metadata.
const INVOCATION_BYTES_MAX: usize = 1024 * 1024;
/// What is read and thrown away of a larger one, so that the host can finish sending it.
const DISCARDED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The platform, once it is there.
pub type Ready = watch::Receiver<Option<Platform>>;

#[derive(Clone)]
struct Server {
    functions: Arc<HashMap<&'static str, Function>>,
    ready: Ready,
}

/// The router of the handler. `ready` holds the platform once the store is open.
pub fn router(ready: Ready) -> Router {
    router_telling(ready, Arc::default())
}

/// The same, which also tells `looked` of every `GET /`.
pub fn router_telling(ready: Ready, looked: Arc<Notify>) -> Router {
    let functions = functions::all().into_iter().map(|function| (function.name, function)).collect();
    let look = move || {
        looked.notify_one();
        async { StatusCode::OK }
    };
    Router::new()
        .route("/", get(look))
        .route("/{function}", post(invoke))
        .fallback(|| async {
            reply(StatusCode::NOT_FOUND, &json!({ "error": "There is no such function." }))
        })
        .with_state(Server { functions: Arc::new(functions), ready })
}

async fn invoke(
    State(mut server): State<Server>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(function) = server.functions.get(name.as_str()).cloned() else {
        return failure(&format!(
            "There is no function `{name}`; the app was staged with another version of the handler."
        ));
    };
    let invocation_id =
        headers.get("x-azure-functions-invocationid").and_then(|id| id.to_str().ok()).unwrap_or("-");
    let span = telemetry::invocation(function.name, invocation_id);
    async move {
        let ready = server.ready.wait_for(Option::is_some).await;
        let Some(platform) = ready.ok().and_then(|platform| platform.clone()) else {
            return failure("The platform did not start; the log says why.");
        };
        let run = run(platform, function, body);
        match std::panic::AssertUnwindSafe(run).catch_unwind().await {
            Ok(response) => response,
            Err(_) => {
                failure("The function stopped in a state that should be impossible; the log has the place.")
            }
        }
    }
    .instrument(span)
    .await
}

async fn run(platform: Platform, function: Function, body: Body) -> Response {
    let body = match (read(body).await, function.run) {
        (Ok(body), _) => body,
        (Err(TooLarge), Run::Http(_)) => return reply(StatusCode::OK, &invocation::answer(&too_large())),
        (Err(TooLarge), Run::Message(_) | Run::Timer(_)) => {
            return failure("The invocation is larger than any message may be.");
        }
    };
    match function.run {
        Run::Message(handle) => match Invocation::read(&body).and_then(|invocation| invocation.message()) {
            Ok(message) => settle(handle(platform, message).await),
            Err(error) => failure(&crate::outcome::chain(&error)),
        },
        // What a timer says of itself is of no interest: a sweep looks at what is due.
        Run::Timer(handle) => settle(handle(platform).await),
        Run::Http(handle) => match invocation::request(&body) {
            Ok(request) => reply(StatusCode::OK, &invocation::answer(&handle(platform, request).await)),
            Err(error) => failure(&crate::outcome::chain(&error)),
        },
    }
}

/// A success completes the message; a failure gives it back to the broker at once.
fn settle(result: Result<(), Fault>) -> Response {
    match result {
        Ok(()) => reply(StatusCode::OK, &invocation::done()),
        Err(fault) => failure(&fault.chain()),
    }
}

fn failure(sentence: &str) -> Response {
    error!("the invocation failed: {sentence}");
    reply(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": sentence }))
}

fn reply(status: StatusCode, body: &Value) -> Response {
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}

struct TooLarge;

async fn read(body: Body) -> Result<Vec<u8>, TooLarge> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut discarded = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        if discarded > 0 || bytes.len() + chunk.len() > INVOCATION_BYTES_MAX {
            bytes = Vec::new();
            discarded += chunk.len();
            if discarded > DISCARDED_BYTES_MAX {
                break;
            }
        } else {
            bytes.extend_from_slice(&chunk);
        }
    }
    if discarded > 0 { Err(TooLarge) } else { Ok(bytes) }
}

fn too_large() -> HttpAnswer {
    HttpAnswer::problem(
        413,
        "RequestTooLarge",
        &format!("The request is over {INVOCATION_BYTES_MAX} bytes; send less."),
    )
}
