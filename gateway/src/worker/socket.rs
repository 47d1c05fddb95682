//! A client's socket and its task: it reads, waits for the socket when a write did not fit, and closes it so that the last
//! words arrive. A stream (SSE) is the same but that its client says nothing.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tictac_proto::wire::Up;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Shared, Sink, Worker};
use crate::core::SessionId;
use crate::limits::Place;
use crate::transports::sse::SseRequest;
use crate::transports::ws::{Incoming, Reader};
use crate::wires::Wire;

/// How long a client that was told to go may take to close its side.
const LINGER: Duration = Duration::from_secs(1);

/// What the client of a stream may say, all of it in vain, before it is cut, bytes.
const MAX_SAID: usize = 16 * 1024;

/// What a request asked for that goes on over its socket.
#[derive(Debug, Clone)]
pub enum Asked {
    /// A WebSocket of this wire, with the catalogue or without.
    WebSocket {
        /// The wire that was chosen.
        wire: Wire,
        /// Whether the catalogue is wanted.
        catalogue: bool,
    },
    /// Server-sent events.
    Stream(SseRequest),
}

/// A socket whose request was granted.
#[derive(Debug)]
pub struct SocketArrival {
    /// The socket.
    pub stream: TcpStream,
    /// What the client said after its request.
    pub read: Bytes,
    /// The answer, which goes out ahead of everything.
    pub head: Bytes,
    /// What it asked for.
    pub asked: Asked,
    /// The connection's place among all.
    pub place: Arc<Place>,
}

pub(super) async fn serve(shared: Shared, arrival: SocketArrival) {
    let SocketArrival { stream, read, head, asked, place } = arrival;
    let stream = Rc::new(stream);
    let _place = place.clone();
    let (id, wake, mut reader, mut goes_on) = {
        let worker = &mut *shared.borrow_mut();
        let wire = match &asked {
            Asked::WebSocket { wire, .. } => *wire,
            Asked::Stream(_) => Wire::Sse,
        };
        let sink = Sink::Socket { stream: stream.clone(), blocked: false };
        let (id, wake) = worker.connect(wire, sink, Some(place), true);
        worker.core.begin(id, head);
        let (mut reader, mut goes_on) = (None, true);
        match asked {
            Asked::WebSocket { catalogue, .. } => {
                if catalogue {
                    worker.core.subscribe_catalogue(id);
                }
                let reader = reader.insert(Reader::new(worker.settings.message_bytes as usize));
                reader.feed(&read);
                goes_on = take_in(worker, id, reader);
            }
            Asked::Stream(request) => worker.open_stream(id, request),
        }
        // It holds the whole buffer that the request was read into.
        drop(read);
        worker.flush(id);
        worker.flush_dirty();
        (id, wake, reader, goes_on)
    };
    let mut said = 0;
    while goes_on {
        let blocked = {
            let mut worker = shared.borrow_mut();
            worker.turns += 1;
            match worker.conns.get(&id) {
                Some(conn) if !conn.dead => matches!(conn.sink, Sink::Socket { blocked: true, .. }),
                _ => break,
            }
        };
        tokio::select! {
            ready = stream.readable() => {
                if ready.is_err() {
                    break;
                }
                let worker = &mut *shared.borrow_mut();
                match stream.try_read(&mut worker.buffer) {
                    Ok(0) => break,
                    // What a client says after it was told to go is not even kept.
                    Ok(_) if worker.core.closing(id).is_some() => {}
                    Ok(n) => {
                        let Some(reader) = &mut reader else {
                            // Nothing is expected of it.
                            said += n;
                            if said > MAX_SAID {
                                break;
                            }
                            continue;
                        };
                        reader.feed(&worker.buffer[..n]);
                        goes_on = take_in(worker, id, reader);
                        worker.flush(id);
                        worker.flush_dirty();
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
            _ = stream.writable(), if blocked => {
                let mut worker = shared.borrow_mut();
                if let Some(conn) = worker.conns.get_mut(&id) {
                    conn.blocked_since = None;
                    if let Sink::Socket { blocked, .. } = &mut conn.sink {
                        *blocked = false;
                    }
                }
                worker.flush(id);
                worker.ask();
            }
            () = wake.notified() => {}
        }
    }
    let said_bye = shared.borrow().conns.get(&id).is_some_and(|conn| conn.said_bye);
    shared.borrow_mut().disconnect(id);
    if said_bye {
        // Apart, so that not every connection has room for it.
        Box::pin(linger(&stream)).await;
    }
}

/// A socket that is closed while something the client said is unread is reset, which can take the goodbye away from a client
/// that has not read it yet. So only our direction is closed, and what still comes is thrown away until the client closes.
async fn linger(stream: &TcpStream) {
    if SockRef::from(stream).shutdown(Shutdown::Write).is_err() {
        return;
    }
    let read = async {
        let mut buffer = [0u8; 4096];
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    // Whoever does not close is closed.
    let _ = timeout(LINGER, read).await;
}

/// Does what the client asks; `false` where the connection is over.
fn take_in(worker: &mut Worker, id: SessionId, reader: &mut Reader) -> bool {
    let mut goes_on = true;
    loop {
        match reader.next() {
            Ok(Some(Incoming::Text(bytes) | Incoming::Binary(bytes))) => worker.client_message(id, &bytes),
            Ok(Some(Incoming::Close)) => {
                goes_on = false;
                break;
            }
            Ok(None) => break,
            Err(broken) => {
                worker.core.close(id, broken.code, broken.why);
                break;
            }
        }
        if worker.core.closing(id).is_some() {
            break;
        }
    }
    if let Some(reply) = reader.take_output() {
        worker.core.control(id, reply);
    }
    goes_on
}

impl Worker {
    /// What a stream asks for, as if its client had said it, and a first heartbeat.
    pub(super) fn open_stream(&mut self, id: SessionId, request: SseRequest) {
        if request.catalogue {
            self.core.subscribe_catalogue(id);
        }
        let now = self.clock.now();
        for subscribe in request.subscriptions {
            self.core.up(id, Up::Sub(subscribe), now);
        }
        self.core.output(id, |session, _| session.beat());
    }
}
