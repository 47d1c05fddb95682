//! What a worker keeps of a connection, apart from its session: side by side in the order of sessions, since a pass
//! goes over all of them in that order.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::core::SessionId;
use crate::limits::{Pace, Place};

/// A client's socket, and how its task is woken. What the task waits for is polled for here, with no futures to keep for each.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) stream: TcpStream,
    woken: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What a connection's task waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Something can be read, or its end.
    Readable,
    /// The socket has room.
    Writable,
    /// The state of the connection changed.
    Woken,
    /// The socket can't be waited for: the runtime ends.
    Over,
}

impl Line {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, woken: Cell::new(false), waker: RefCell::new(None) }
    }

    fn wake(&self) {
        self.woken.set(true);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Waits, for room only where it is `blocked`.
    pub(super) fn next(&self, blocked: bool) -> impl Future<Output = Event> {
        poll_fn(move |context| {
            if self.woken.take() {
                return Poll::Ready(Event::Woken);
            }
            let mut waker = self.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
            // Whoever talks all the time is to be answered, too.
            if blocked && self.stream.poll_write_ready(context).is_ready() {
                return Poll::Ready(Event::Writable);
            }
            if let Poll::Ready(ready) = self.stream.poll_read_ready(context) {
                return Poll::Ready(ready.map_or(Event::Over, |()| Event::Readable));
            }
            Poll::Pending
        })
    }
}

/// Writes to a socket without asking the runtime whether it has room, which is elsewhere in memory and hardly ever says no.
/// Where it has none, the runtime learns of it, so that its room can be waited for.
pub(super) fn send(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match rustix::net::send(stream, bytes, SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN) => stream.try_write(bytes),
        other => Ok(other?),
    }
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
    /// All that was to be said is written, the goodbye included.
    pub(super) said_bye: bool,
    pub(super) counted: bool,
    pub(super) bad: u32,
    pub(super) next_beat: i64,
    pub(super) blocked_since: Option<i64>,
    /// Since when its prices pause, as far as was seen.
    pub(super) paused_since: Option<i64>,
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
            Sink::Socket(line) => line.wake(),
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

    /// Reads a little of everything that writing to these will read, so that it is near by then.
    pub(super) fn look_ahead(&self, ids: impl Iterator<Item = SessionId>) {
        for conn in ids.filter_map(|id| self.get(id)) {
            if let Sink::Socket(line) = &conn.sink {
                let flags = u64::from(conn.blocked) + u64::from(conn.close_by.is_some());
                std::hint::black_box((line.stream.as_raw_fd(), flags, conn.scheduled, conn.next_beat));
            }
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
