//! Accepting: each core listens by itself (SO_REUSEPORT), speaks HTTP/1.1 with bounds on everything, and hands the sockets
//! of WebSockets and streams, with what is to be answered, to the worker of its own thread.

use std::cell::RefCell;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{HeaderValue, header};
use warp::reply::Response;

use super::socket::{Asked, SocketArrival};
use super::tap::Tap;
use crate::http::{HttpState, head, not_over_a_socket, routes};
use crate::limits::{Place, Refusal};

/// Time for a request's head to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head of a request, and what of a response may wait in memory.
const BUFFER: usize = 16 * 1024;

/// Something for the worker of this thread.
#[derive(Debug)]
pub enum Arrival {
    /// A client's socket.
    Socket(Box<SocketArrival>),
    /// The gateway's own subscriber.
    Tap(Tap),
}

/// The connection that a request came over, as an extension of the request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its place among all connections.
    pub place: Arc<Place>,
    /// Where it comes from.
    pub address: IpAddr,
}

/// Binds an address once for each core.
///
/// # Errors
/// If it can't be bound, such as when another program has it.
pub fn listen(address: SocketAddr, cores: usize) -> io::Result<Vec<StdListener>> {
    // Sharing a port is for our own threads: somebody else's listener there is an error, which only a bind without
    // sharing shows.
    let probe = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    probe.set_reuse_address(true)?;
    probe.bind(&address.into())?;
    probe.listen(1)?;
    let bound = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    (0..cores)
        .map(|_| {
            let socket = Socket::new(Domain::for_address(bound), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&bound.into())?;
            socket.listen(4096)?;
            Ok(socket.into())
        })
        .collect()
}

/// Accepts connections until told to stop.
pub async fn accept(listener: StdListener, state: HttpState, stop: CancellationToken) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listening socket can't be used");
            return;
        }
    };
    // Made once: every connection's routes are the same.
    let filters = routes(state.clone()).boxed();
    let state = Rc::new(state);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                tokio::task::spawn_local(serve(stream, address, state.clone(), filters.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: more come back as connections close.
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    state: Rc<HttpState>,
    filters: BoxedFilter<(Response,)>,
) {
    let socket = SockRef::from(&stream);
    // Both only tune; a socket that refuses them works all the same.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_send_buffer_size(state.settings.send_buffer as usize);
    // A peer that takes nothing, whatever it was sent, is cut by the kernel.
    let slow = Duration::from_millis(u64::from(state.settings.slow_ms) + 10_000);
    let _ = socket.set_tcp_user_timeout(Some(slow));
    let place = match state.limits.connect(address.ip()) {
        Ok(place) => Arc::new(place),
        Err(refusal) => return refuse(&stream, refusal).await,
    };
    let peer = Peer { place: place.clone(), address: address.ip() };
    let filters = TowerToHyperService::new(warp::service(filters));
    let taken: RefCell<Option<(Response, Asked)>> = RefCell::new(None);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let (has_body, version) = (!request.body().is_end_stream(), request.version());
        let (reply, taken) = (filters.call(request), &taken);
        async move {
            let mut reply: Response = reply.await?;
            let mut asked = reply.extensions_mut().remove::<Asked>();
            if let Some(refused) =
                asked.as_ref().and_then(|asked| not_over_a_socket(asked, has_body, version))
            {
                (reply, asked) = (refused, None);
            }
            if has_body {
                // A body is not worth reading, and while one is left nothing else can be answered over this connection.
                reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            match asked {
                None => Ok::<_, std::convert::Infallible>(reply),
                Some(asked) => {
                    *taken.borrow_mut() = Some((reply, asked));
                    // The worker answers, and from here on has the socket.
                    pending().await
                }
            }
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let served = poll_fn(|context| match Pin::new(&mut connection).poll(context) {
        // What was answered before on the same connection is out: a further request is read only then.
        Poll::Pending if taken.borrow().is_some() => Poll::Ready(Ok(())),
        polled => polled,
    });
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection ended badly");
        return;
    }
    let parts = connection.into_parts();
    let Some((reply, asked)) = taken.take() else { return };
    let arrival = SocketArrival {
        stream: parts.io.into_inner(),
        read: parts.read_buf,
        head: head(&reply, &asked, SystemTime::now()),
        asked,
        place,
    };
    // The routes asked whether there is room, and only the canary may have come in between.
    if state.arrivals.try_send(Arrival::Socket(Box::new(arrival))).is_err() {
        tracing::debug!("too many connections arrive at once: one is closed");
    }
}

/// Says no in a few bytes, without reading what the client wants.
async fn refuse(stream: &TcpStream, refusal: Refusal) {
    let body = format!("{}: {}; come back in {} ms\n", refusal.limit, refusal.why, refusal.retry);
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: {}\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}",
        refusal.retry.div_ceil(1000),
        body.len(),
    );
    if stream.writable().await.is_ok() {
        let _ = stream.try_write(answer.as_bytes());
    }
}
