//! The ingress: leads requests by host name to a ready replica, honouring traffic weights.
//!
//! Absent on purpose: upgraded connections, session affinity, retries on another replica.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version, header},
    response::{IntoResponse, Response},
};
use http_body_util::Limited;
use hyper::body::{Frame, SizeHint};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::Timestamp;

use super::{
    replicas::{Fleet, Pick},
    routes::{Route, Routes},
};

/// The largest body that is passed on, in bytes.
const BODY_BYTES_MAX: usize = 100 * 1024 * 1024;
/// How long a replica may take until it begins to answer; Azure's ingress waits as long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(240);
/// How long a request waits for a revision that it woke.
const WAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// The pause between two looks whether it is awake.
const WAKE_PAUSE: Duration = Duration::from_millis(25);
/// Idle connections kept to one replica.
const IDLE_CONNECTIONS_MAX: usize = 16;
/// Headers that concern one connection and are not passed on.
const OF_ONE_CONNECTION: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

#[derive(Clone)]
struct Ingress {
    routes: Arc<Routes>,
    fleet: Arc<Fleet>,
    client: Client<HttpConnector, Limited<Body>>,
}

/// The router of the ingress: every request, whatever its path.
pub(super) fn router(routes: Arc<Routes>, fleet: Arc<Fleet>) -> Router {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(IDLE_CONNECTIONS_MAX).build(connector);
    Router::new().fallback(lead).with_state(Ingress { routes, fleet, client })
}

async fn lead(State(ingress): State<Ingress>, request: Request) -> Response {
    let authority = authority_of(request.uri(), request.headers()).to_owned();
    let host = host_of(&authority);
    let Some(route) = ingress.routes.next(&host) else {
        return plain(
            StatusCode::NOT_FOUND,
            format!("There is no container app at `{host}`, or it is stopped.\n"),
        );
    };
    let flight = ingress.fleet.flight(&route.app, &route.revision);
    let response = ingress.pass_on(&route, &authority, request).await;
    ingress.routes.count(&host, &route.revision, response.status().as_u16());
    match flight {
        Some(flight) => response.map(|body| Body::new(Held { body, _while: flight })),
        None => response,
    }
}

/// An answer, and what is held until its last byte is on its way or nobody wants it any more.
struct Held<T> {
    body: Body,
    _while: T,
}

impl<T: Unpin> HttpBody for Held<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The host and port that a request is for.
fn authority_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let named = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    uri.authority().map(|authority| authority.as_str()).or(named).unwrap_or_default()
}

/// The host alone, in lower case.
fn host_of(authority: &str) -> String {
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn plain(status: StatusCode, text: String) -> Response {
    (status, text).into_response()
}

fn unavailable(text: String) -> Response {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

impl Ingress {
    async fn pass_on(&self, route: &Route, authority: &str, request: Request) -> Response {
        let declared =
            request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if declared.is_some_and(|bytes: u64| bytes > BODY_BYTES_MAX as u64) {
            return plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("A body has at most {BODY_BYTES_MAX} bytes here.\n"),
            );
        }
        let began = Instant::now();
        let (address, answering) = loop {
            match self.fleet.pick(&route.app, &route.revision, Timestamp::now()) {
                Pick::At(address, answering) => break (address, answering),
                Pick::Waking if began.elapsed() < WAKE_TIMEOUT => tokio::time::sleep(WAKE_PAUSE).await,
                Pick::Waking | Pick::NotReady | Pick::NotRunning => {
                    return unavailable(format!(
                        "No replica of the revision `{}` is ready.\n",
                        route.revision
                    ));
                }
            }
        };
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let Ok(uri) = Uri::try_from(format!("http://{address}{path}")) else {
            return plain(
                StatusCode::BAD_REQUEST,
                "The path of the request cannot be passed on.\n".to_owned(),
            );
        };
        let outgoing = outgoing(request, uri, authority);
        match tokio::time::timeout(ANSWER_TIMEOUT, self.client.request(outgoing)).await {
            Ok(Ok(response)) => {
                let held = |body| Body::new(Held { body: Body::new(body), _while: answering });
                incoming(response.map(held))
            }
            Ok(Err(_)) => {
                unavailable(format!("The replica of `{}` closed the connection.\n", route.revision))
            }
            Err(_) => plain(
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "The replica of `{}` did not answer in {} seconds.\n",
                    route.revision,
                    ANSWER_TIMEOUT.as_secs()
                ),
            ),
        }
    }
}

fn outgoing(request: Request, uri: Uri, authority: &str) -> http::Request<Limited<Body>> {
    let (mut parts, body) = request.into_parts();
    parts.uri = uri;
    parts.version = Version::HTTP_11;
    of_this_connection_alone(&mut parts.headers);
    if let Ok(host) = HeaderValue::from_str(authority) {
        parts.headers.insert("x-forwarded-host", host.clone());
        parts.headers.insert(header::HOST, host);
    }
    parts.headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    parts.headers.insert("x-forwarded-for", HeaderValue::from_static("127.0.0.1"));
    parts.extensions.clear();
    http::Request::from_parts(parts, Limited::new(body, BODY_BYTES_MAX))
}

fn incoming(mut response: Response) -> Response {
    of_this_connection_alone(response.headers_mut());
    response
}

/// Takes out what concerns one connection only, and what `connection` names beside.
fn of_this_connection_alone(headers: &mut HeaderMap) {
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named =
        named.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok());
    for name in named.collect::<Vec<_>>() {
        headers.remove(name);
    }
    for name in OF_ONE_CONNECTION {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_the_authoritys_or_the_headers_without_port_and_case() {
        let of = |uri: &str, host: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            }
            host_of(authority_of(&uri.parse().unwrap(), &headers))
        };
        assert_eq!(of("/x", Some("A.b.apps.localhost:8443")), "a.b.apps.localhost");
        assert_eq!(of("https://c.apps.localhost:1/x", None), "c.apps.localhost");
        assert_eq!(of("/x", None), "");
    }

    #[test]
    fn what_concerns_one_connection_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("connection", "close, x-own"), ("x-own", "1"), ("te", "gzip"), ("x-kept", "2")]
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        of_this_connection_alone(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }
}
