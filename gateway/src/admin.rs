//! The admin port: metrics for Prometheus, liveness and readiness. Not for the public.

use std::net::{SocketAddr, TcpListener as StdListener};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::canary::Report;
use crate::feed::Readiness;
use crate::metrics::Metrics;

type Answer = hyper::Response<http_body_util::Full<bytes::Bytes>>;

/// Binds the admin address.
///
/// # Errors
/// If it can't be bound.
pub fn bind(address: SocketAddr) -> std::io::Result<StdListener> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn answer(status: u16, body: impl Into<bytes::Bytes>) -> Answer {
    let mut answer = hyper::Response::new(http_body_util::Full::new(body.into()));
    *answer.status_mut() =
        hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

fn respond(path: &str, metrics: &Metrics, readiness: &Readiness, canary: &Report, stopping: bool) -> Answer {
    match path {
        "/readyz" if stopping => answer(503, "not ready: the gateway stops\n"),
        "/metrics" => {
            let mut reply = answer(200, metrics.text());
            let text = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4");
            reply.headers_mut().insert(hyper::header::CONTENT_TYPE, text);
            reply
        }
        "/healthz" => answer(200, "ok\n"),
        "/readyz" if readiness.connected && readiness.silent.is_empty() => match &canary.trouble {
            None => answer(200, "ready\n"),
            Some(why) => answer(503, format!("not ready: {why}\n")),
        },
        "/readyz" if !readiness.connected => answer(503, "not ready: the live subscription is not up\n"),
        "/readyz" => {
            answer(503, format!("not ready: no alive heard lately on shards {:?}\n", readiness.silent))
        }
        _ => answer(404, "there are /metrics, /healthz and /readyz\n"),
    }
}

/// Serves until dropped.
///
/// From `stopping` on the gateway is not ready, so that nobody new is sent to it while its clients are told to go.
pub async fn serve(
    listener: StdListener,
    metrics: Metrics,
    readiness: watch::Receiver<Readiness>,
    canary: watch::Receiver<Report>,
    stopping: CancellationToken,
) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let (metrics, readiness) = (metrics.clone(), readiness.clone());
        let (canary, stopping) = (canary.clone(), stopping.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let stops = stopping.is_cancelled();
                let reply =
                    respond(request.uri().path(), &metrics, &readiness.borrow(), &canary.borrow(), stops);
                async move { Ok::<_, std::convert::Infallible>(reply) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(std::time::Duration::from_secs(5))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "an admin connection ended badly");
            }
        });
    }
}
