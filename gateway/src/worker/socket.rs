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

use super::conn::{Event, Line, Sink};
use super::{Shared, Worker};
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

/// A connection from its arrival on, as its task keeps it.
struct Talk {
    id: SessionId,
    line: Rc<Line>,
    /// Of a WebSocket.
    reader: Option<Reader>,
    /// What the client of a stream said.
    said: usize,
}

pub(super) async fn serve(shared: Shared, arrival: Box<SocketArrival>) {
    let (mut talk, mut goes_on) = begin(&mut shared.borrow_mut(), *arrival);
    let (id, line) = (talk.id, talk.line.clone());
    while goes_on {
        let blocked = {
            let mut worker = shared.borrow_mut();
            worker.turns += 1;
            match worker.conns.get(id) {
                Some(conn) if !conn.dead => conn.blocked,
                _ => break,
            }
        };
        match line.next(blocked).await {
            Event::Readable => goes_on = talk.read(&mut shared.borrow_mut()),
            Event::Writable => {
                let mut worker = shared.borrow_mut();
                if let Some(conn) = worker.conns.get_mut(id) {
                    (conn.blocked_since, conn.blocked) = (None, false);
                }
                worker.flush(id);
                worker.ask();
            }
            Event::Woken => {}
            Event::Over => break,
        }
    }
    let said_bye = shared.borrow().conns.get(id).is_some_and(|conn| conn.said_bye);
    shared.borrow_mut().disconnect(id);
    if said_bye {
        // Apart, so that not every connection has room for it.
        Box::pin(linger(&line.stream)).await;
    }
}

/// Makes the session, and answers what came with the request; whether it goes on.
fn begin(worker: &mut Worker, arrival: SocketArrival) -> (Talk, bool) {
    let SocketArrival { stream, read, head, asked, place } = arrival;
    let line = Rc::new(Line::new(stream));
    let wire = match &asked {
        Asked::WebSocket { wire, .. } => *wire,
        Asked::Stream(_) => Wire::Sse,
    };
    let id = worker.connect(wire, Sink::Socket(line.clone()), Some(place), true);
    worker.core.begin(id, head);
    let mut talk = Talk { id, line, reader: None, said: 0 };
    let mut goes_on = true;
    match asked {
        Asked::WebSocket { catalogue, .. } => {
            if catalogue {
                worker.core.subscribe_catalogue(id);
            }
            let reader = talk.reader.insert(Reader::new(worker.settings.message_bytes));
            reader.feed(&read);
            goes_on = take_in(worker, id, reader);
        }
        Asked::Stream(request) => worker.open_stream(id, request),
    }
    worker.flush(id);
    worker.flush_touched();
    (talk, goes_on)
}

impl Talk {
    /// Takes in what came; `false` where the connection is over.
    fn read(&mut self, worker: &mut Worker) -> bool {
        match self.line.stream.try_read(&mut worker.buffer) {
            Ok(0) => false,
            // What a client says after it was told to go is not even kept.
            Ok(_) if worker.core.closing(self.id).is_some() => true,
            Ok(n) => {
                let Some(reader) = &mut self.reader else {
                    // Nothing is expected of it.
                    self.said += n;
                    return self.said <= MAX_SAID;
                };
                reader.feed(&worker.buffer[..n]);
                let goes_on = take_in(worker, self.id, reader);
                // An answer goes with the pass that follows, but for the last one.
                if !goes_on || !worker.pass_is_due {
                    worker.flush(self.id);
                    worker.flush_touched();
                } else {
                    // What it wishes need not wait for the pass.
                    worker.ask();
                }
                goes_on
            }
            Err(e) => e.kind() == ErrorKind::WouldBlock,
        }
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
            Ok(Some(Incoming::Text(bytes) | Incoming::Binary(bytes))) => worker.client_message(id, bytes),
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
        self.core.output(id, |session, _, _| session.beat());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream as StdStream;

    use clap::Parser;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::limits::Limits;
    use crate::metrics::Metrics;
    use crate::settings::Settings;
    use crate::time::Clock;

    /// A masked frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        out.extend_from_slice(payload);
        out
    }

    #[tokio::test]
    async fn under_load_an_answer_waits_for_the_pass_and_the_last_one_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        let (settings, metrics) = (Arc::new(Settings::parse_from(["t"])), Metrics::new());
        let limits = Limits::new(&settings, metrics.clone());
        let place = Arc::new(limits.connect(address.ip()).unwrap());
        let (hub, _asked) = mpsc::channel(8);
        let mut worker = Worker::new(0, settings, limits, metrics, Clock::default(), hub);
        let asked = Asked::WebSocket { wire: Wire::WsJson, catalogue: false };
        let arrival =
            SocketArrival { stream, read: Bytes::new(), head: Bytes::from_static(b"head"), asked, place };
        let (mut talk, goes_on) = begin(&mut worker, arrival);
        assert!(goes_on);
        let mut heard = [0; 1_024];
        let count = client.read(&mut heard).unwrap();
        assert!(heard[..count].starts_with(b"head"));

        worker.pass_is_due = true;
        client.write_all(&frame(0x81, b"{\"t\":\"ping\",\"time\":7}")).unwrap();
        talk.line.stream.readable().await.unwrap();
        assert!(talk.read(&mut worker));
        assert!(worker.core.is_dirty(), "the pass has it");
        client.write_all(&frame(0x88, &1000u16.to_be_bytes())).unwrap();
        talk.line.stream.readable().await.unwrap();
        while talk.read(&mut worker) {
            talk.line.stream.readable().await.unwrap();
        }
        worker.disconnect(talk.id);
        drop(talk);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(rest.windows(4).any(|four| four == [0x88, 2, 0x03, 0xE8]), "the close is answered: {rest:?}");
        assert!(rest.windows(8).any(|eight| eight == b"\"echo\":7"), "so is the ping: {rest:?}");
    }
}
