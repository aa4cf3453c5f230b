//! Serving a router on a loopback listener, with TLS or without.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::Router;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// Connections that one stand-in serves at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;
/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after the system had no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until it is dropped. Small answers go out at once: Nagle's algorithm is off.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
) -> Infallible {
    let acceptor = tls.map(TlsAcceptor::from);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (acceptor, router) = (acceptor.clone(), router.clone());
        connections.spawn(async move {
            let _permit = permit;
            serve_connection(stream, acceptor, router).await;
        });
    }
}

async fn serve_connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, router: Router) {
    // A socket that refuses the option still works, only slower.
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => serve_stream(stream, router).await,
        Some(acceptor) => {
            // A client that does not agree is its own affair.
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                serve_stream(stream, router).await;
            }
        }
    }
}

async fn serve_stream(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let service = router.map_request(|request: http::Request<Incoming>| request.map(axum::body::Body::new));
    let builder = auto::Builder::new(TokioExecutor::new());
    // How a connection ends is its client's affair.
    let _ =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service)).await;
}
