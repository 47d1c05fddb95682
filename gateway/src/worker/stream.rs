//! A streaming response's task (SSE): it gives the response's body the next piece whenever the client's socket has
//! room, made at that moment from the newest state.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Shared, Sink};
use crate::limits::Place;
use crate::transports::sse::{SseRequest, preamble};
use crate::wires::Wire;

/// A stream that was granted.
#[derive(Debug)]
pub struct StreamArrival {
    /// What it asks for.
    pub request: SseRequest,
    /// Where its pieces go: room for one.
    pub body: mpsc::Sender<Bytes>,
    /// The connection's place among all.
    pub place: Option<Arc<Place>>,
    /// Whether it counts as a session in metrics: not the gateway's own.
    pub counted: bool,
}

pub(super) async fn serve(shared: Shared, arrival: StreamArrival) {
    let StreamArrival { request, body, place, counted } = arrival;
    let (id, wake) = {
        let mut worker = shared.borrow_mut();
        let (id, wake) = worker.connect(Wire::Sse, Sink::Stream, place, counted);
        if request.catalogue {
            worker.core.subscribe_catalogue(id);
        }
        let now = worker.clock.now();
        for subscribe in request.subscriptions {
            worker.core.up(id, tictac_proto::wire::Up::Sub(subscribe), now);
        }
        worker.core.output(id, |session, _| session.beat());
        worker.flush_dirty();
        (id, wake)
    };
    let mut first = Some(preamble(rand::random_range(0..4_000)));
    loop {
        // Room first, then the piece: what waits for room stays state, not bytes.
        let room = tokio::select! {
            room = body.reserve() => room,
            () = body.closed() => break,
            () = wake.notified() => {
                if shared.borrow().conns.get(&id).is_none_or(|c| c.dead) {
                    break;
                }
                continue;
            }
        };
        let Ok(room) = room else { break };
        if let Some(first) = first.take() {
            room.send(first);
            continue;
        }
        let piece = {
            let mut worker = shared.borrow_mut();
            worker.turns += 1;
            if worker.conns.get(&id).is_none_or(|c| c.dead) {
                break;
            }
            if let Some(conn) = worker.conns.get_mut(&id) {
                conn.blocked_since = None;
            }
            worker.next_piece(id)
        };
        match piece {
            Some(piece) => {
                room.send(piece);
                let mut worker = shared.borrow_mut();
                let now = worker.clock.now().mono;
                if let Some(conn) = worker.conns.get_mut(&id) {
                    conn.blocked_since = Some(now);
                }
            }
            None => {
                drop(room);
                shared.borrow_mut().end_if_closing(id);
                if shared.borrow().conns.get(&id).is_none_or(|c| c.dead) {
                    break;
                }
                tokio::select! {
                    () = wake.notified() => {}
                    () = body.closed() => break,
                }
            }
        }
    }
    shared.borrow_mut().disconnect(id);
}
