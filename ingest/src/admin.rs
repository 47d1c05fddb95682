//! The port for operators: `/metrics`, `/healthz`, `/readyz`, `/problems`, and `/operator` to suspend, resume or re-image.
//! Loopback by default: whoever reaches it may act.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, ORIGIN};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::log::LogWriter;
use crate::metrics::Metrics;
use crate::operator::Act;
use crate::service::Window;

/// How long the engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most bytes of an operator's act.
const MAX_BODY: usize = 4 * 1024;
/// Connections at a time.
const MAX_CONNECTIONS: usize = 64;

/// What the port shows.
#[derive(Debug, Clone)]
pub struct Admin {
    /// What is counted.
    pub metrics: Metrics,
    /// The engine.
    pub window: Window,
    /// Where operators' acts are noted.
    pub log: LogWriter,
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
                async move { Ok::<_, Infallible>(admin.answer(request).await) }
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
    /// Takes an operator's act in.
    async fn operate<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // A page that somebody looks at must not be able to act: a browser tells where it is, and asks before it sends JSON.
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let is_json = header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
        if header(ORIGIN).is_some() || !is_json {
            let why = "send application/json, and not from a page: curl -H 'content-type: application/json' -d \
                       '{\"action\":\"suspend\",\"scope\":\"market:1.23\",\"by\":\"ann\",\"why\":\"wrong price\"}'\n";
            return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, why.into());
        }
        let body = match timeout(PATIENCE, Limited::new(request.into_body(), MAX_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            _ => {
                let why = format!("an act has at most {MAX_BODY} bytes, sent within {PATIENCE:?}\n");
                return text(StatusCode::BAD_REQUEST, why);
            }
        };
        let act = serde_json::from_slice::<Act>(&body).map_err(|error| error.to_string());
        let act = act.map(|act| Act { at: crate::clock::now_ms(), ..act });
        let act = match act.and_then(|act| act.check().map(|_| act)) {
            Ok(act) => act,
            Err(why) => return text(StatusCode::BAD_REQUEST, format!("{why}\n")),
        };
        match self.log.act(&act, true).await {
            Ok(true) => text(StatusCode::OK, format!("{}: told to every ingest\n", act.scope)),
            Ok(false) => text(
                StatusCode::CONFLICT,
                format!("somebody acted on {} later than now: set the clocks right\n", act.scope),
            ),
            Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        }
    }

    async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if request.method() == Method::POST && request.uri().path() == "/operator" {
            return self.operate(request).await;
        }
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET, and POST /operator\n".into());
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
            "/operator" => {
                let held = self.window.look(|e| {
                    let acts: Vec<Act> = e.ledger().held().map(|h| h.1.clone()).collect();
                    serde_json::to_string(&acts).unwrap_or_default()
                });
                match timeout(PATIENCE, held).await {
                    Ok(Some(json)) => text(StatusCode::OK, json),
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
            _ => text(StatusCode::NOT_FOUND, "/metrics /healthz /readyz /problems /operator\n".into()),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
