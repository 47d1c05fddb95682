//! What a worker keeps of a connection, apart from its session: side by side in the order of sessions, since a pass
//! goes over all of them in that order.

use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::core::SessionId;
use crate::limits::{Pace, Place};

/// A client's socket, and how its task is woken.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) stream: TcpStream,
    pub(super) wake: Notify,
}

/// Where a session's output goes.
#[derive(Debug)]
pub(super) enum Sink {
    Socket(Rc<Line>),
    Tap(Rc<Notify>),
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) sink: Sink,
    /// The socket is full: its task waits until it is not.
    pub(super) blocked: bool,
    pub(super) dead: bool,
    /// Its prices pause, and it is counted as such.
    pub(super) paused: bool,
    /// All that was to be said is written, the goodbye included.
    pub(super) said_bye: bool,
    pub(super) counted: bool,
    pub(super) bad: u32,
    pub(super) next_beat: i64,
    pub(super) blocked_since: Option<i64>,
    pub(super) close_by: Option<i64>,
    /// When the session is to be planned again by itself.
    pub(super) scheduled: Option<i64>,
    pub(super) pace: Pace,
    pub(super) _place: Option<Arc<Place>>,
}

impl Conn {
    /// Wakes the connection's task.
    pub(super) fn wake(&self) {
        match &self.sink {
            Sink::Socket(line) => line.wake.notify_one(),
            Sink::Tap(wake) => wake.notify_one(),
        }
    }

    pub(super) fn kill(&mut self) {
        self.dead = true;
        self.wake();
    }
}

/// The connections of a core, by the numbers of their sessions.
#[derive(Debug, Default)]
pub(super) struct Conns(Vec<Option<Conn>>);

impl Conns {
    pub(super) fn insert(&mut self, id: SessionId, conn: Conn) {
        if self.0.len() <= id {
            self.0.resize_with(id + 1, || None);
        }
        self.0[id] = Some(conn);
    }

    pub(super) fn remove(&mut self, id: SessionId) {
        if let Some(place) = self.0.get_mut(id) {
            *place = None;
        }
        // As far as nobody with a higher number is left, its room is given back.
        while self.0.last().is_some_and(Option::is_none) {
            self.0.pop();
        }
        if self.0.len() * 4 < self.0.capacity() {
            self.0.shrink_to(self.0.len() * 2);
        }
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Conn> {
        self.0.get(id)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Conn> {
        self.0.get_mut(id)?.as_mut()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (SessionId, &mut Conn)> {
        self.0.iter_mut().enumerate().filter_map(|(id, conn)| Some((id, conn.as_mut()?)))
    }
}
