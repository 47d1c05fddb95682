//! A WebSocket connection's task: it reads, waits for the socket when a write did not fit, and closes it so that the last
//! words arrive.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Shared, Sink, Worker};
use crate::core::SessionId;
use crate::limits::Place;
use crate::transports::ws::{Incoming, Reader};
use crate::wires::Wire;

/// How long a client that was told to go may take to close its side.
const LINGER: Duration = Duration::from_secs(1);

/// An upgrade that was granted.
#[derive(Debug)]
pub struct WebSocketArrival {
    /// Gives the socket once the answer is out.
    pub upgrade: OnUpgrade,
    /// The wire that was chosen.
    pub wire: Wire,
    /// Whether the catalogue is wanted.
    pub catalogue: bool,
    /// The connection's place among all.
    pub place: Option<Arc<Place>>,
}

pub(super) async fn serve(shared: Shared, arrival: WebSocketArrival) {
    let Ok(upgraded) = arrival.upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        tracing::error!("an upgraded connection is not a plain socket: closed");
        return;
    };
    let stream = Rc::new(parts.io.into_inner());
    let _place = arrival.place.clone();
    let (id, wake, mut reader) = {
        let mut worker = shared.borrow_mut();
        let sink = Sink::Socket { stream: stream.clone(), blocked: false };
        let (id, wake) = worker.connect(arrival.wire, sink, arrival.place, true);
        if arrival.catalogue {
            worker.core.subscribe_catalogue(id);
        }
        (id, wake, Reader::new(worker.settings.message_bytes as usize))
    };
    reader.feed(&parts.read_buf);
    take_in(&mut shared.borrow_mut(), id, &mut reader);
    loop {
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
                        reader.feed(&worker.buffer[..n]);
                        if !take_in(worker, id, &mut reader) {
                            break;
                        }
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
    worker.flush(id);
    worker.flush_dirty();
    goes_on
}
