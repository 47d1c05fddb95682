//! A WebSocket connection's task: it reads, and waits for the socket when a write did not fit.

use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Shared, Sink};
use crate::core::SessionId;
use crate::limits::Place;
use crate::transports::ws::{Incoming, Reader};
use crate::wires::Wire;

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
    take_in(&shared, id, &mut reader);
    let mut buffer = [0u8; 4096];
    loop {
        let blocked = {
            let worker = shared.borrow();
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
                match stream.try_read(&mut buffer) {
                    Ok(0) => break,
                    // What a client says after it was told to go is not even kept.
                    Ok(_) if shared.borrow().core.closing(id).is_some() => {}
                    Ok(n) => {
                        reader.feed(&buffer[..n]);
                        if !take_in(&shared, id, &mut reader) {
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
    shared.borrow_mut().disconnect(id);
}

/// Does what the client asks; `false` where the connection is over.
fn take_in(shared: &Shared, id: SessionId, reader: &mut Reader) -> bool {
    let mut worker = shared.borrow_mut();
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
