//! The port for operators: `/metrics`, `/healthz`, `/readyz`, `/problems`. Loopback by default; it has no secrets, but
//! names of sources and pieces of their input.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::service::Window;

/// How long the engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connections at a time.
const MAX_CONNECTIONS: usize = 64;

/// What the port shows.
#[derive(Debug, Clone)]
pub struct Admin {
    /// What is counted.
    pub metrics: Metrics,
    /// The engine.
    pub window: Window,
}

/// Serves until the token is cancelled.
pub async fn serve(listener: TcpListener, admin: Admin, cancel: CancellationToken) {
    let room = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: they come back.
                tracing::warn!(%error, "the admin port can't accept");
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else { continue };
        let (admin, cancel) = (admin.clone(), cancel.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let admin = admin.clone();
                async move { Ok::<_, Infallible>(admin.answer(&request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = cancel.cancelled() => {}
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "admin connection");
                },
            }
            drop(permit);
        });
    }
}

/// Binds the port.
///
/// # Errors
/// Where it can't be had.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

impl Admin {
    async fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        }
        match request.uri().path() {
            "/metrics" => {
                let metrics = self.metrics.clone();
                let look = self.window.look(move |e| metrics.observe(e, crate::clock::now_ms()));
                // Where the engine does not answer, what is known from before is better than nothing.
                let _ = timeout(PATIENCE, look).await;
                text(StatusCode::OK, self.metrics.render())
            }
            "/healthz" => match timeout(PATIENCE, self.window.look(|_| ())).await {
                Ok(Some(())) => text(StatusCode::OK, "ok\n".into()),
                _ => text(StatusCode::SERVICE_UNAVAILABLE, "the engine does not answer\n".into()),
            },
            "/readyz" => {
                let owned = self.window.look(|e| {
                    let owned = e.shards().filter(|s| e.owns(*s)).count();
                    (owned, e.shards().count(), e.is_covered(), e.is_warm())
                });
                match timeout(PATIENCE, owned).await {
                    Ok(Some((owned, all, ..))) if owned == all => {
                        text(StatusCode::OK, format!("owner of all {all} shards\n"))
                    }
                    // A rolling restart may go on: this one knows all that the owner knows.
                    Ok(Some((owned, all, true, true))) => text(
                        StatusCode::OK,
                        format!("owner of {owned} of {all} shards, warm for the others\n"),
                    ),
                    Ok(Some((owned, all, covered, warm))) => {
                        let why = match (covered, warm) {
                            (false, _) => "some have no owner, or the log is away (see the process log)",
                            _ => "warming up: markets wait for images, or a stream is not read to its end",
                        };
                        let text_of = format!("owner of {owned} of {all} shards: {why}\n");
                        text(StatusCode::SERVICE_UNAVAILABLE, text_of)
                    }
                    _ => text(StatusCode::SERVICE_UNAVAILABLE, "the engine does not answer\n".into()),
                }
            }
            "/problems" => {
                let problems = self.window.look(|e| {
                    let seen = e.problems().last().map(|s| {
                        serde_json::json!({
                            "at": s.at,
                            "source": &*s.source,
                            "kind": s.problem.kind.label(),
                            "where": s.problem.at,
                            "why": s.problem.why,
                            "input": s.problem.excerpt,
                        })
                    });
                    serde_json::Value::from_iter(seen).to_string()
                });
                match timeout(PATIENCE, problems).await {
                    Ok(Some(json)) => text(StatusCode::OK, json),
                    _ => text(StatusCode::SERVICE_UNAVAILABLE, "the engine does not answer\n".into()),
                }
            }
            _ => text(StatusCode::NOT_FOUND, "/metrics /healthz /readyz /problems\n".into()),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
