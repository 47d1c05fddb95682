//! A tap: a stream inside the gateway, for its own canary. It gives the next piece whenever there is room for one, made at that
//! moment from the newest state, as a client's socket is given it.

use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::Shared;
use super::conn::Sink;
use crate::transports::sse::SseRequest;
use crate::wires::Wire;

/// What is wanted, and where it goes.
#[derive(Debug)]
pub struct Tap {
    /// What is asked for.
    pub request: SseRequest,
    /// Where its pieces go: room for one.
    pub body: mpsc::Sender<Bytes>,
}

pub(super) async fn serve(shared: Shared, tap: Tap) {
    let Tap { request, body } = tap;
    let (id, wake) = {
        let mut worker = shared.borrow_mut();
        let wake = Rc::new(Notify::new());
        let id = worker.connect(Wire::Sse, Sink::Tap(wake.clone()), None, false);
        worker.open_stream(id, request);
        worker.flush_touched();
        (id, wake)
    };
    loop {
        // Room first, then the piece: what waits for room stays state, not bytes.
        let room = tokio::select! {
            room = body.reserve() => room,
            () = body.closed() => break,
            () = wake.notified() => {
                if shared.borrow().conns.get(id).is_none_or(|c| c.dead) {
                    break;
                }
                continue;
            }
        };
        let Ok(room) = room else { break };
        let piece = {
            let mut worker = shared.borrow_mut();
            worker.turns += 1;
            if worker.conns.get(id).is_none_or(|c| c.dead) {
                break;
            }
            if let Some(conn) = worker.conns.get_mut(id) {
                conn.blocked_since = None;
            }
            worker.next_piece(id)
        };
        match piece {
            Some(piece) => {
                room.send(piece);
                let mut worker = shared.borrow_mut();
                let now = worker.clock.now().mono;
                if let Some(conn) = worker.conns.get_mut(id) {
                    conn.blocked_since = Some(now);
                }
            }
            None => {
                drop(room);
                shared.borrow_mut().end_if_closing(id);
                if shared.borrow().conns.get(id).is_none_or(|c| c.dead) {
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
