//! A run: the encoded frames of one (market, view, wire) in one append-only buffer, bounded, shared by every reader
//! of a core. A reader is a cursor; what is between it and the head is one slice, so that coalescing costs nothing.

use std::collections::VecDeque;

use crate::position::Position;

/// Bytes that a run holds; a reader that is further behind catches up by a merged delta.
pub const RUN_BYTES: usize = 64 * 1024;

/// A reader's place: the number of the next frame to read, in one generation of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    generation: u32,
    frame: u64,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    end: u64,
    seq: u64,
}

/// A bounded run of encoded frames.
#[derive(Debug, Default)]
pub struct Run {
    bytes: Vec<u8>,
    /// Absolute offset of `bytes[0]`.
    start: u64,
    /// Absolute offset of the first frame that is still held.
    kept: u64,
    frames: VecDeque<Frame>,
    /// Number of the first frame that is still held.
    first: u64,
    generation: u32,
    head: Position,
    /// Number of the newest frame that must not wait.
    urgent: Option<u64>,
}

/// What a reader has before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    None,
    /// So many frames.
    Frames(u64),
    /// The run does not reach back to the cursor: the reader needs a new base.
    Lapsed,
}

impl Run {
    /// An empty run whose readers stand at `head`.
    #[must_use]
    pub fn new(head: Position) -> Self {
        Self { head, ..Self::default() }
    }

    /// Where a reader stands that has read everything.
    #[must_use]
    pub fn head(&self) -> Position {
        self.head
    }

    /// The cursor of a reader that has read everything.
    #[must_use]
    pub fn end(&self) -> Cursor {
        Cursor { generation: self.generation, frame: self.next() }
    }

    /// Bytes held.
    #[must_use]
    pub fn len(&self) -> usize {
        (self.start + self.bytes.len() as u64 - self.kept) as usize
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    fn next(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// Appends a frame that brings readers to `seq`. An urgent one is never delayed by conflation.
    pub fn push(&mut self, frame: &[u8], seq: u64, urgent: bool) {
        self.bytes.extend_from_slice(frame);
        if urgent {
            self.urgent = Some(self.next());
        }
        self.frames.push_back(Frame { end: self.start + self.bytes.len() as u64, seq });
        self.head.seq = seq;
        while self.len() > RUN_BYTES && self.frames.len() > 1 {
            if let Some(frame) = self.frames.pop_front() {
                self.kept = frame.end;
                self.first += 1;
            }
        }
        let dropped = (self.kept - self.start) as usize;
        if dropped > RUN_BYTES {
            self.bytes.drain(..dropped);
            self.start = self.kept;
        }
    }

    /// Starts over at another position that does not connect: every reader needs a new base.
    pub fn reset(&mut self, head: Position) {
        self.first = self.next();
        self.frames.clear();
        self.start += self.bytes.len() as u64;
        self.kept = self.start;
        self.bytes.clear();
        self.generation += 1;
        self.urgent = None;
        self.head = head;
    }

    /// What a reader has before it.
    #[must_use]
    pub fn pending(&self, cursor: Cursor) -> Pending {
        if cursor.generation != self.generation || cursor.frame < self.first {
            Pending::Lapsed
        } else if cursor.frame == self.next() {
            Pending::None
        } else {
            Pending::Frames(self.next() - cursor.frame)
        }
    }

    /// Whether something that must not wait is before a reader.
    #[must_use]
    pub fn is_urgent(&self, cursor: Cursor) -> bool {
        self.urgent.is_some_and(|frame| frame >= cursor.frame)
    }

    fn offset(&self, cursor: Cursor) -> u64 {
        match (cursor.frame - self.first).checked_sub(1) {
            None => self.kept,
            Some(before) => self.frames[before as usize].end,
        }
    }

    /// The bytes before a reader that has not lapsed, at most about `max` of them but at least one frame; empty where
    /// there is nothing.
    #[must_use]
    pub fn bytes(&self, cursor: Cursor, max: usize) -> &[u8] {
        let from = self.offset(cursor);
        let skip = (cursor.frame - self.first) as usize;
        let limit = from + max as u64;
        let rest = self.frames.range(skip..);
        let whole = rest.clone().next_back().map_or(from, |f| f.end);
        let end = if whole <= limit {
            whole
        } else {
            let fits = self.frames.partition_point(|f| f.end <= limit).max(skip + 1);
            self.frames[fits - 1].end
        };
        &self.bytes[(from - self.start) as usize..(end - self.start) as usize]
    }

    /// Moves a reader over `written` bytes of what [`Run::bytes`] gave. A frame that was begun counts as read; the
    /// second part of the answer is what of it must still go out.
    #[must_use]
    pub fn advance(&self, cursor: Cursor, written: usize) -> (Cursor, u64, &[u8]) {
        let from = self.offset(cursor);
        let reached = from + written as u64;
        let skip = (cursor.frame - self.first) as usize;
        let read = self.frames.partition_point(|f| f.end < reached).max(skip) + usize::from(written > 0);
        let last = self.frames[read.max(1) - 1];
        let frame = if written > 0 { self.first + read as u64 } else { cursor.frame };
        let rest = if written > 0 {
            (reached - self.start) as usize..(last.end - self.start) as usize
        } else {
            0..0
        };
        (Cursor { generation: self.generation, frame }, last.seq, &self.bytes[rest])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_frames_in_order_and_may_stop_anywhere() {
        let mut run = Run::new(Position::new(1, 10));
        let start = run.end();
        for (i, frame) in [b"aaa".as_slice(), b"bb", b"cccc"].iter().enumerate() {
            run.push(frame, 11 + i as u64, false);
        }
        assert_eq!(run.pending(start), Pending::Frames(3));
        assert_eq!(run.bytes(start, 100), b"aaabbcccc");
        assert_eq!(run.bytes(start, 5), b"aaabb");
        assert_eq!(run.bytes(start, 1), b"aaa");
        let (cursor, seq, rest) = run.advance(start, 4);
        assert_eq!((seq, rest), (12, b"b".as_slice()));
        assert_eq!(run.bytes(cursor, 100), b"cccc");
        let (cursor, seq, rest) = run.advance(cursor, 4);
        assert_eq!((seq, rest.len()), (13, 0));
        assert_eq!(run.pending(cursor), Pending::None);
        assert_eq!(run.end(), cursor);
        assert_eq!(run.head(), Position::new(1, 13));
    }

    #[test]
    fn a_run_is_bounded_and_a_slow_reader_lapses() {
        let mut run = Run::new(Position::ZERO);
        let slow = run.end();
        let frame = [7u8; 1000];
        for seq in 1..1000 {
            run.push(&frame, seq, seq == 5);
            assert!(run.len() <= RUN_BYTES);
            assert!(run.bytes.capacity() <= 4 * RUN_BYTES + 2000);
        }
        assert_eq!(run.pending(slow), Pending::Lapsed);
        let fresh = Cursor { generation: 0, frame: run.first };
        assert_eq!(run.bytes(fresh, usize::MAX >> 1).len(), run.len());
        let (cursor, seq, rest) = run.advance(fresh, 1500);
        assert_eq!((rest.len(), seq), (500, run.frames[1].seq));
        assert_eq!(run.pending(cursor), Pending::Frames(run.frames.len() as u64 - 2));
    }

    #[test]
    fn urgency_is_of_what_is_still_unread() {
        let mut run = Run::new(Position::ZERO);
        let start = run.end();
        run.push(b"x", 1, true);
        assert!(run.is_urgent(start));
        let (cursor, _, _) = run.advance(start, 1);
        assert!(!run.is_urgent(cursor));
        run.push(b"y", 2, false);
        assert!(!run.is_urgent(cursor));
    }

    #[test]
    fn after_a_reset_every_reader_needs_a_base() {
        let mut run = Run::new(Position::new(1, 1));
        run.push(b"x", 2, false);
        let (at_end, behind) = (run.end(), Cursor { generation: 0, frame: 0 });
        run.reset(Position::new(2, 3));
        assert_eq!(run.pending(at_end), Pending::Lapsed);
        assert_eq!(run.pending(behind), Pending::Lapsed);
        assert_eq!(run.pending(run.end()), Pending::None);
        run.push(b"new", 4, false);
        let start = Cursor { generation: 1, frame: 1 };
        assert_eq!(run.bytes(start, 10), b"new");
    }
}
