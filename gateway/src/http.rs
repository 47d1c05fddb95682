//! Routes: what a request's path leads to. Everything is answered by the hub or handed to the worker of this thread.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::json;
use tictac_proto::limits::MAX_ID;
use tictac_proto::model::{MarketStatus, View};
use tictac_proto::wire::ErrorCode;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use warp::http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use warp::{Filter, Reply};

use crate::assets;
use crate::feed::{HubInput, Question};
use crate::hub::{Answer, MAX_PAGE, MarketFilter};
use crate::limits::Limits;
use crate::settings::Settings;
use crate::time::Clock;
use crate::transports::sse::{self, form_pairs, preamble};
use crate::transports::ws::choose_subprotocol;
use crate::worker::{Arrival, Asked, Peer};

type Reply2 = warp::reply::Response;

/// What the routes need.
#[derive(Debug, Clone)]
pub struct HttpState {
    /// Settings.
    pub settings: Arc<Settings>,
    /// Shared limits.
    pub limits: Arc<Limits>,
    /// The clock.
    pub clock: Clock,
    /// To the hub.
    pub hub: mpsc::Sender<HubInput>,
    /// To the worker of this thread.
    pub arrivals: mpsc::Sender<Arrival>,
}

/// All routes of the public address. The last one takes whatever no other does, so that nothing is ever rejected.
pub fn routes(
    state: HttpState,
) -> impl Filter<Extract = (Reply2,), Error = std::convert::Infallible> + Clone + Send + Sync + 'static {
    let with = warp::any().map(move || state.clone());
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let websocket = warp::path!("v1" / "ws")
        .and(warp::get())
        .and(with.clone())
        .and(query)
        .and(warp::header::headers_cloned())
        .map(websocket);
    let sse = warp::path!("v1" / "sse")
        .and(warp::get())
        .and(with.clone())
        .and(query)
        .and(warp::header::headers_cloned())
        .map(stream);
    let time = warp::path!("v1" / "time").and(warp::get()).and(with.clone()).map(|state: HttpState| {
        let body = json!({"now": state.clock.now().wall}).to_string();
        json_reply(StatusCode::OK, body.into(), "no-store")
    });
    let markets = warp::path!("v1" / "markets")
        .and(warp::get())
        .and(with.clone())
        .and(query)
        .and(warp::ext::optional::<Peer>())
        .then(list);
    let market = warp::path!("v1" / "markets" / String)
        .and(warp::get())
        .and(with)
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Peer>())
        .then(|id: String, state: HttpState, query: String, headers: HeaderMap, peer: Option<Peer>| {
            document(state, id, query, headers, peer)
        });
    let page = warp::get()
        .and(warp::path::full())
        .and(warp::header::headers_cloned())
        .map(|path: warp::path::FullPath, headers: HeaderMap| assets::page(path.as_str(), &headers));
    let other = warp::method().map(|method: warp::http::Method| {
        let why = format!("{:.20} is not answered here: only GET is", method.as_str());
        let mut reply = problem(StatusCode::METHOD_NOT_ALLOWED, "bad_request", &why, None);
        reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        reply
    });
    websocket
        .or(sse)
        .unify()
        .or(time)
        .unify()
        .or(markets)
        .unify()
        .or(market)
        .unify()
        .or(page)
        .unify()
        .or(other)
        .unify()
        .map(|mut reply: Reply2| {
            let headers = reply.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            headers.insert(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("etag, date, retry-after, x-as-of, x-fresh-ms"),
            );
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            reply
        })
}

fn json_reply(status: StatusCode, body: bytes::Bytes, cache: &'static str) -> Reply2 {
    let mut reply = warp::reply::Response::new(body.into());
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    reply
}

/// Why a request can't be answered by a socket that is its own; the answer then.
#[must_use]
pub fn not_over_a_socket(asked: &Asked, has_body: bool, version: Version) -> Option<Reply2> {
    let bad = |why: &str| Some(problem(StatusCode::BAD_REQUEST, "bad_request", why, None));
    if has_body {
        // What comes after the head would be taken for what the client says.
        return bad("this request has a body, which nothing is done with: send it without one");
    }
    match asked {
        Asked::WebSocket { .. } if version < Version::HTTP_11 => {
            bad("a WebSocket begins with HTTP/1.1; HTTP/1.0 has no upgrade")
        }
        _ => None,
    }
}

fn problem(status: StatusCode, code: &str, why: &str, retry: Option<u64>) -> Reply2 {
    let body = json!({"code": code, "why": why, "retry": retry}).to_string();
    let mut reply = json_reply(status, body.into(), "no-store");
    if let Some(retry) = retry {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry.div_ceil(1000)));
    }
    reply
}

fn websocket(state: HttpState, query: String, headers: HeaderMap) -> Reply2 {
    let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    let bad = |why: &str| problem(StatusCode::BAD_REQUEST, "bad_request", why, None);
    let upgrades = text(header::UPGRADE).is_some_and(|v| v.eq_ignore_ascii_case("websocket"));
    // A list may come in several lines.
    let says = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    let says_so =
        says.flat_map(|v| v.split(',')).map(str::trim).any(|token| token.eq_ignore_ascii_case("upgrade"));
    if !upgrades || !says_so {
        return bad(
            "this is a WebSocket: send `upgrade: websocket` and `connection: upgrade`, or use /v1/sse",
        );
    }
    if text(header::SEC_WEBSOCKET_VERSION) != Some("13") {
        let mut reply =
            problem(StatusCode::UPGRADE_REQUIRED, "bad_request", "WebSocket version 13 is spoken", None);
        reply.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return reply;
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|k| k.len() == 24) else {
        return bad("sec-websocket-key is missing or not 16 bytes in base 64");
    };
    let (name, wire) = match choose_subprotocol(text(header::SEC_WEBSOCKET_PROTOCOL)) {
        Ok(chosen) => chosen,
        Err(why) => return bad(&why),
    };
    let accept = derive_accept_key(key.as_bytes());
    let catalogue = form_pairs(&query).any(|(name, value)| name == "catalogue" && value != "0");
    if state.arrivals.capacity() == 0 {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "overload",
            "too many connections arrive at once",
            Some(1_000),
        );
    }
    let mut reply = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(name) = name {
        reply = reply.header(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    match reply.body(()) {
        Ok(reply) => {
            let mut reply = reply.map(|()| "").into_response();
            reply.extensions_mut().insert(Asked::WebSocket { wire, catalogue });
            reply
        }
        Err(error) => bad(&error.to_string()),
    }
}

fn stream(state: HttpState, query: String, headers: HeaderMap) -> Reply2 {
    // One that is no text is read as leniently as any other that is none of ours.
    let last_event_id = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let request = match sse::request(&query, last_event_id) {
        Ok(request) => request,
        Err(why) => return problem(StatusCode::BAD_REQUEST, "bad_request", &why, None),
    };
    let mut reply = Reply2::default();
    // A full gateway answers 200 and ends the stream: anything else would stop an EventSource for good.
    if state.arrivals.capacity() > 0 {
        reply.extensions_mut().insert(Asked::Stream(request));
    }
    let headers = reply.headers_mut();
    // The body ends with the connection, so that what is sent is the same bytes for everybody, without chunks around them.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    reply
}

/// The answer that goes out ahead of what is sent over a socket from then on, as bytes.
#[must_use]
pub fn head(reply: &Reply2, asked: &Asked, now: SystemTime) -> Bytes {
    let status = reply.status();
    let mut head = format!(
        "HTTP/1.1 {} {}\r\ndate: {}\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or(""),
        httpdate::fmt_http_date(now)
    )
    .into_bytes();
    for (name, value) in reply.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    if let Asked::Stream(_) = asked {
        head.extend_from_slice(preamble(rand::random_range(0..4_000)).as_bytes());
    }
    head.into()
}

async fn ask(state: &HttpState, question: Question) -> Answer {
    let (reply, answer) = oneshot::channel();
    let busy =
        |why: &str| Answer::Refused { code: ErrorCode::NotReady, why: why.to_owned(), retry: Some(1_000) };
    if state.hub.try_send(HubInput::Ask(question, reply)).is_err() {
        return busy("too many questions wait for the feed");
    }
    answer.await.unwrap_or_else(|_| busy("the gateway stops"))
}

fn refused(code: ErrorCode, why: &str, retry: Option<u64>) -> Reply2 {
    let status = match code {
        ErrorCode::UnknownMarket => StatusCode::NOT_FOUND,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    problem(status, code.name(), why, retry)
}

/// The answer to an address that asks too often.
fn too_often(state: &HttpState, peer: Option<&Peer>) -> Option<Reply2> {
    let refusal = state.limits.request(peer?.address).err()?;
    Some(refused(ErrorCode::RateLimited, refusal.why, Some(refusal.retry)))
}

async fn list(state: HttpState, query: String, peer: Option<Peer>) -> Reply2 {
    if let Some(refused) = too_often(&state, peer.as_ref()) {
        return refused;
    }
    let mut filter = MarketFilter { limit: 100, ..MarketFilter::default() };
    for (name, value) in form_pairs(&query) {
        let wrong = |what: &str| {
            problem(StatusCode::BAD_REQUEST, "bad_request", &format!("{name}={value}: {what}"), None)
        };
        match name.as_str() {
            "sport" => filter.sport = Some(value),
            "event" => filter.event = Some(value),
            "after" => filter.after = Some(value),
            "status" => match MarketStatus::from_name(&value) {
                Some(status) => filter.status = Some(status),
                None => return wrong("no status; open, suspended and so on are"),
            },
            "in_play" => match value.as_str() {
                "true" | "1" => filter.in_play = Some(true),
                "false" | "0" => filter.in_play = Some(false),
                _ => return wrong("true or false"),
            },
            "limit" => match value.parse() {
                Ok(limit @ 1..=MAX_PAGE) => filter.limit = limit,
                _ => return wrong("a page has 1 to 500 markets"),
            },
            _ => {}
        }
    }
    match ask(&state, Question::List(filter)).await {
        Answer::Listing(listing) => json_reply(StatusCode::OK, listing.body, "no-cache"),
        Answer::Refused { code, why, retry } => refused(code, &why, retry),
        Answer::Document(_) => refused(ErrorCode::BadRequest, "the answer was to another question", None),
    }
}

async fn document(
    state: HttpState,
    id: String,
    query: String,
    headers: HeaderMap,
    peer: Option<Peer>,
) -> Reply2 {
    if let Some(refused) = too_often(&state, peer.as_ref()) {
        return refused;
    }
    let mut view = View::All;
    for (name, value) in form_pairs(&query) {
        if name == "view" {
            match View::from_name(&value) {
                Some(named) => view = named,
                None => {
                    let why = format!("view={value}: a view is 1, 3, 10 or all");
                    return refused(ErrorCode::BadRequest, &why, None);
                }
            }
        }
    }
    let id = sse::decoded(&id, false);
    if !(1..=MAX_ID).contains(&id.len()) {
        let shown: String = id.chars().take(MAX_ID).collect();
        let why = format!("{shown:?} has {} bytes; a market's id has 1 to {MAX_ID}", id.len());
        return refused(ErrorCode::BadRequest, &why, None);
    }
    let market = id.as_str().into();
    if let Err(refusal) = state.limits.snapshot(&market) {
        return refused(ErrorCode::RateLimited, refusal.why, Some(refusal.retry));
    }
    let document = match ask(&state, Question::Document(market, view)).await {
        Answer::Document(document) => document,
        Answer::Refused { code, why, retry } => return refused(code, &why, retry),
        Answer::Listing(_) => {
            return refused(ErrorCode::BadRequest, "the answer was to another question", None);
        }
    };
    let etag = document.etag();
    let matches = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).any(|tags| {
        tags.split(',').map(|t| t.trim().trim_start_matches("W/")).any(|t| t == etag || t == "*")
    });
    let mut reply = if matches {
        let mut reply = json_reply(StatusCode::NOT_MODIFIED, bytes::Bytes::new(), "no-cache");
        reply.headers_mut().remove(header::CONTENT_TYPE);
        reply
    } else {
        json_reply(StatusCode::OK, document.body, "no-cache")
    };
    let out = reply.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        out.insert(header::ETAG, etag);
    }
    out.insert("x-as-of", HeaderValue::from(document.as_of));
    out.insert("x-fresh-ms", HeaderValue::from(document.fresh_ms));
    reply
}
