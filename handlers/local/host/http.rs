//! HTTP triggers: find the function, check the key, bound the body, invoke, answer.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, future::BoxFuture};
use http::{HeaderMap, StatusCode, header};
use percent_encoding::percent_decode_str;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use uuid::Uuid;

use super::{
    app::{AuthLevel, HttpTrigger},
    invoker::Invoker,
    keys::{FunctionKey, admit},
    payloads::{HttpCall, http},
    reply::{HttpReply, http_reply},
    wire::Occasion,
};
use crate::{local::https, ports::clock::Clock};

/// Bytes of a request's body, as on Azure.
const BODY_BYTES_MAX: usize = 100 * 1024 * 1024;
/// Bytes of all bodies that are held at the same time; more wait.
const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The unit in which the room for bodies is given out.
const BODY_UNIT: usize = 1024;
/// How long a caller may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// Requests that one function answers at the same time; more wait.
const CONCURRENT_MAX: usize = 100;
/// How long the last answers may take to be written when the host stops.
const LAST_ANSWERS_WAIT: Duration = Duration::from_millis(50);
/// Invocations that wait to be taken up.
const JOBS_MAX: usize = 64;

type Job = BoxFuture<'static, ()>;
/// A function's name, its trigger, and the route's parameters.
type Found<'a> = (&'a str, &'a HttpTrigger, Vec<(String, String)>);

/// What the HTTP side needs.
pub(super) struct HttpSide {
    /// Of host.json, without slashes at its ends.
    pub prefix: String,
    pub functions: Vec<(String, HttpTrigger)>,
    pub keys: Vec<FunctionKey>,
    pub invoker: Invoker,
    pub clock: Arc<dyn Clock>,
}

struct Shared {
    prefix: Vec<String>,
    /// Those that match first come first.
    functions: Vec<(String, HttpTrigger)>,
    room: HashMap<String, Arc<Semaphore>>,
    bodies: Semaphore,
    keys: Vec<FunctionKey>,
    invoker: Invoker,
    clock: Arc<dyn Clock>,
    jobs: mpsc::Sender<Job>,
    stopping: watch::Receiver<bool>,
}

impl HttpSide {
    /// Serves until it is told to stop, and then lets what runs come to its end.
    pub async fn run(self, listener: TcpListener, mut stopping: watch::Receiver<bool>) {
        let (jobs, mut received) = mpsc::channel::<Job>(JOBS_MAX);
        let mut functions = self.functions;
        functions.sort_by_key(|(_, trigger)| trigger.route.rank());
        let room = functions
            .iter()
            .map(|(name, _)| (name.clone(), Arc::new(Semaphore::new(CONCURRENT_MAX))))
            .collect();
        let shared = Shared {
            prefix: self.prefix.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            functions,
            room,
            bodies: Semaphore::new(BODIES_BYTES_MAX / BODY_UNIT),
            keys: self.keys,
            invoker: self.invoker,
            clock: self.clock,
            jobs,
            stopping: stopping.clone(),
        };
        let router = Router::new().fallback(answer).with_state(Arc::new(shared));
        let server = https::serve(listener, None, router);
        tokio::pin!(server);
        // An invocation is not part of its connection: a caller that leaves does not cut it short.
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                never = &mut server => match never {},
                Some(job) = received.recv() => { running.spawn(job); }
                Some(_) = running.join_next() => {}
                _ = stopping.wait_for(|stopping| *stopping) => break,
            }
        }
        // Answers still go out; new requests are refused.
        received.close();
        while !running.is_empty() || !received.is_empty() {
            tokio::select! {
                never = &mut server => match never {},
                Some(job) = received.recv() => { running.spawn(job); }
                Some(_) = running.join_next() => {}
            }
        }
        // The last answers have been handed to their connections: a moment to write them.
        tokio::select! {
            never = server => match never {},
            () = tokio::time::sleep(LAST_ANSWERS_WAIT) => {}
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match shared.answer(request).await {
        Ok(response) => response,
        Err(Refused(status, text)) => refuse(status, text),
    }
}

/// A request that reaches no function, or has no answer.
struct Refused(StatusCode, String);

fn refuse(status: StatusCode, text: String) -> Response {
    let mut response = (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response();
    // A body that was not read would be taken for the next request.
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}

impl Shared {
    async fn answer(&self, request: Request) -> Result<Response, Refused> {
        if *self.stopping.borrow() {
            return Err(Refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "The Functions host is stopping.".to_owned(),
            ));
        }
        let (parts, body) = request.into_parts();
        let method = parts.method.as_str();
        let path = parts.uri.path();
        let found = segments(path).and_then(|path| self.find(method, &path));
        let Some((name, trigger, parameters)) = found else {
            let text = format!("No function answers {method} {path}.");
            return Err(Refused(StatusCode::NOT_FOUND, text));
        };
        let query = query(parts.uri.query().unwrap_or_default());
        let key = self.admit(trigger, &parts.headers, &query)?;
        let body = self.read_body(&parts.headers, body).await?;
        let call = HttpCall {
            url: url(&parts.uri, &parts.headers),
            method: method.to_owned(),
            query,
            headers: with_host(&parts.uri, parts.headers),
            parameters,
            body,
            key,
        };
        self.invoke(name, trigger, call).await
    }

    fn find(&self, method: &str, path: &[String]) -> Option<Found<'_>> {
        let (prefix, rest) = path.split_at_checked(self.prefix.len())?;
        let is_ours = prefix.iter().zip(&self.prefix).all(|(part, ours)| part.eq_ignore_ascii_case(ours));
        if !is_ours {
            return None;
        }
        let candidates = self.functions.iter().filter(|(_, trigger)| trigger.takes(method));
        candidates
            .filter_map(|(name, trigger)| Some((name.as_str(), trigger, trigger.route.matches(rest)?)))
            .next()
    }

    fn admit(
        &self,
        trigger: &HttpTrigger,
        headers: &HeaderMap,
        query: &[(String, String)],
    ) -> Result<Option<(&'static str, String)>, Refused> {
        let header = headers.get("x-functions-key").and_then(|value| value.to_str().ok());
        let given = header.or_else(|| {
            query.iter().find(|(name, _)| name.eq_ignore_ascii_case("code")).map(|(_, code)| code.as_str())
        });
        admit(&self.keys, trigger.auth, given).ok_or_else(|| {
            let wanted = match trigger.auth {
                AuthLevel::Admin => "the master key",
                AuthLevel::Anonymous | AuthLevel::Function => "a function key",
            };
            let text = format!(
                "This function asks for {wanted}: send it as the header x-functions-key or as ?code=."
            );
            Refused(StatusCode::UNAUTHORIZED, text)
        })
    }

    /// The body where a length above zero was named; a chunked one is not passed on, as on Azure.
    async fn read_body(&self, headers: &HeaderMap, body: Body) -> Result<Option<Vec<u8>>, Refused> {
        let length =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        let Some(length) = length.filter(|length| *length > 0) else { return Ok(None) };
        if length > BODY_BYTES_MAX {
            let text = format!(
                "The body has {length} bytes, {BODY_BYTES_MAX} are the most that a function can be sent."
            );
            return Err(Refused(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        let units = u32::try_from(length.div_ceil(BODY_UNIT)).expect("the limit on bodies is small");
        let _room = self.bodies.acquire_many(units).await.expect("the semaphore is never closed");
        let incomplete = |text: &str| Refused(StatusCode::BAD_REQUEST, text.to_owned());
        let read = timeout(BODY_TIMEOUT, async {
            let mut chunks = body.into_data_stream();
            // Grown as it comes: a length is only a promise.
            let mut bytes = Vec::new();
            while let Some(chunk) = chunks.next().await {
                bytes.extend_from_slice(&chunk?);
            }
            Ok::<_, axum::Error>(bytes)
        });
        let read = read.await.map_err(|_| incomplete("The body took too long to arrive."))?;
        Ok(Some(read.map_err(|_| incomplete("The body ended before the length that was named."))?))
    }

    async fn invoke(&self, name: &str, trigger: &HttpTrigger, call: HttpCall) -> Result<Response, Refused> {
        let room = self.room.get(name).cloned().expect("every function has its room");
        let permit = room.acquire_owned().await.expect("the semaphore is never closed");
        let occasion = Occasion { now: self.clock.now(), random: Uuid::new_v4() };
        let (invoker, function, trigger) = (self.invoker.clone(), name.to_owned(), trigger.clone());
        let (sender, receiver) = oneshot::channel();
        let job = async move {
            let body = http(&function, &trigger.name, &call, occasion);
            drop(call);
            let answer = invoker
                .invoke(&function, body, |reply| http_reply(reply, trigger.response.as_deref()))
                .await
                .ok();
            drop(permit);
            // A caller that has left gets no answer.
            let _ = sender.send(answer);
        };
        let stopping =
            || Refused(StatusCode::SERVICE_UNAVAILABLE, "The Functions host is stopping.".to_owned());
        self.jobs.send(Box::pin(job)).await.map_err(|_| stopping())?;
        match receiver.await.map_err(|_| stopping())? {
            Some(reply) => response(reply).ok_or_else(|| failed(name)),
            None => Err(failed(name)),
        }
    }
}

fn failed(function: &str) -> Refused {
    let text = format!("The function {function} failed; the host's log says why.");
    Refused(StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn response(reply: HttpReply) -> Option<Response> {
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        // The length and the framing are the server's to say.
        if !["content-length", "transfer-encoding", "connection"]
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name))
        {
            response = response.header(name, value);
        }
    }
    response.body(Body::from(reply.body)).ok()
}

/// Decoded segments; none where one is no UTF-8.
fn segments(path: &str) -> Option<Vec<String>> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.map(|part| Some(percent_decode_str(part).decode_utf8().ok()?.into_owned())).collect()
}

fn query(text: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

fn url(uri: &http::Uri, headers: &HeaderMap) -> String {
    let host = uri.authority().map(|authority| authority.as_str().to_owned());
    let host =
        host.or_else(|| headers.get(header::HOST)?.to_str().ok().map(str::to_owned)).unwrap_or_default();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    format!("http://{host}{path}")
}

/// HTTP/2 names the host elsewhere.
fn with_host(uri: &http::Uri, mut headers: HeaderMap) -> HeaderMap {
    let authority =
        uri.authority().and_then(|authority| header::HeaderValue::from_str(authority.as_str()).ok());
    if let (None, Some(authority)) = (headers.get(header::HOST), authority) {
        headers.insert(header::HOST, authority);
    }
    headers
}
