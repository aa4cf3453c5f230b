//! A container that is a server in this process and behaves as the catalogue says.
//!
//! Whatever it is asked, it answers with a JSON object that says who it is; `versions` tells what it was
//! started with, so that a rotation can be seen to have reached it: by variable, the version of the
//! vault's secret (never its value), and what a variable says whose name ends in `_VERSION`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch};

use super::{
    Container,
    running::{Context, Ended, told},
};
use crate::local::{azure::images::Behaviour, https};

/// What every answer says of the container.
struct Server {
    behaviour: Behaviour,
    image: String,
    revision: String,
    replica: String,
    versions: BTreeMap<String, String>,
    began: Instant,
    requests: AtomicU64,
}

pub(super) async fn run(
    context: &Context,
    behaviour: Behaviour,
    stopped: &mut watch::Receiver<bool>,
) -> Ended {
    tokio::select! {
        ended = serve(context, behaviour) => ended,
        () = told(stopped) => Ended::Told,
    }
}

async fn serve(context: &Context, behaviour: Behaviour) -> Ended {
    let crash = match behaviour {
        Behaviour::CrashLoop { after_seconds } => Some(Duration::from_secs_f64(after_seconds)),
        _ => None,
    };
    if behaviour == Behaviour::Missing {
        return Ended::Exited(format!("ImagePullBackOff: `{}` is not in its registry", context.spec.image()));
    }
    if crash == Some(Duration::ZERO) {
        return Ended::Exited("the container exited with code 1 before it listened".to_owned());
    }
    if let Behaviour::SlowStart { seconds } = behaviour {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }
    let listener = match TcpListener::bind(("127.0.0.1", 0)).await {
        Ok(listener) => listener,
        Err(error) => return Ended::Exited(format!("the container cannot listen: {error}")),
    };
    let address = match listener.local_addr() {
        Ok(address) => address,
        Err(error) => return Ended::Exited(format!("the container cannot listen: {error}")),
    };
    let server = Arc::new(Server {
        behaviour,
        image: context.spec.image().to_owned(),
        revision: context.spec.revision.clone(),
        replica: context.replica.clone(),
        versions: context.spec.containers.first().map(Container::versions).unwrap_or_default(),
        began: Instant::now(),
        requests: AtomicU64::new(0),
    });
    let router = Router::new().fallback(move |uri: Uri| {
        let server = server.clone();
        async move { server.answer(uri.path()).await }
    });
    context.ready(address).await;
    tokio::select! {
        never = https::serve(listener, None, router) => match never {},
        () = crashes_after(crash) => Ended::Exited("the container exited with code 1".to_owned()),
    }
}

async fn crashes_after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

impl Server {
    async fn answer(&self, path: &str) -> Response {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let failed = match self.behaviour {
            Behaviour::Errors { share } => is_error(number, share),
            Behaviour::FailsAfter { seconds } => self.began.elapsed().as_secs_f64() >= seconds,
            Behaviour::Healthy
            | Behaviour::SlowStart { .. }
            | Behaviour::CrashLoop { .. }
            | Behaviour::Missing
            | Behaviour::Latency { .. } => false,
        };
        if let Behaviour::Latency { milliseconds } = self.behaviour {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
        let status = if failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
        let body = json!({
            "image": self.image,
            "revision": self.revision,
            "replica": self.replica,
            "versions": self.versions,
            "path": path,
            "status": if failed { "error" } else { "ok" },
        });
        (status, Json(body)).into_response()
    }
}

/// Whether the `number`-th request, counted from 0, is one of the share that fails. Among the first
/// n requests, n times the share, rounded down, do.
#[expect(clippy::cast_precision_loss, reason = "a container does not live to see 2^52 requests")]
fn is_error(number: u64, share: f64) -> bool {
    let failed = |requests: u64| (requests as f64 * share + 1e-9).floor();
    failed(number + 1) > failed(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_requests_fails_evenly_spread() {
        let failing = |share: f64| (0..10).filter(|number| is_error(*number, share)).collect::<Vec<_>>();
        assert_eq!(failing(0.0), Vec::<u64>::new());
        assert_eq!(failing(0.2), [4, 9]);
        assert_eq!(failing(0.5), [1, 3, 5, 7, 9]);
        assert_eq!(failing(1.0), (0..10).collect::<Vec<_>>());
    }
}
