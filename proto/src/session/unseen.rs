//! What was sent and may not have been read. A socket takes far more than a slow client reads: minutes of prices can wait
//! in buffers while its pings arrive on time. So a ping names the newest heartbeat that the client has read, and what was
//! written before that one was read, too.

/// Bytes that may be on their way to a client that has not said that it read them, before prices pause. A first load of
/// many books is that large; what waits in buffers for longer is found by its age.
pub const MAX_UNSEEN: u64 = 16 * 1024 * 1024;

/// A heartbeat that was sent: when, and up to which byte of the connection.
type Sent = (i64, u64);

/// How far a two-way client has read.
#[derive(Debug)]
pub(super) struct Unseen {
    /// When the newest heartbeat was sent of which it said that it has read it.
    at: i64,
    /// It has read the connection's bytes up to here.
    upto: u64,
    /// Heartbeats that it has not told of yet: the first after what it has read, and the first after a ping. Each is proven by
    /// one that is later, as two may be of the same millisecond.
    first: Option<Sent>,
    second: Option<Sent>,
}

impl Unseen {
    pub(super) fn new(now: i64) -> Self {
        Self { at: now, upto: 0, first: None, second: None }
    }

    /// A heartbeat went out, the connection's bytes up to `end` with it.
    pub(super) fn sent(&mut self, now: i64, end: u64) {
        if self.first.is_none() {
            self.first = Some((now, end));
        } else if self.second.is_none() {
            self.second = Some((now, end));
        }
    }

    /// The client has read a heartbeat that was sent then.
    pub(super) fn read(&mut self, sent: i64) {
        self.at = self.at.max(sent);
        for _ in 0..2 {
            if let Some((_, end)) = self.first.take_if(|(at, _)| *at < sent) {
                self.upto = end;
                self.first = self.second.take();
            }
        }
    }

    /// For how long it has not said that it reads, ms.
    pub(super) fn age(&self, now: i64) -> i64 {
        now - self.at
    }

    /// How much of what was written up to `end` it has not said to have read, bytes.
    pub(super) fn bytes(&self, end: u64) -> u64 {
        end.saturating_sub(self.upto)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_named_bounds_what_is_unread() {
        let mut unseen = Unseen::new(100);
        assert_eq!((unseen.age(150), unseen.bytes(7)), (50, 7));
        unseen.sent(200, 1_000);
        unseen.sent(300, 5_000);
        // One from before the heartbeats that were sent proves nothing of them.
        unseen.read(199);
        assert_eq!((unseen.age(400), unseen.bytes(5_000)), (201, 5_000));
        unseen.read(300);
        assert_eq!(
            (unseen.age(400), unseen.bytes(5_000)),
            (100, 4_000),
            "another one may have been sent just before"
        );
        unseen.sent(400, 6_000);
        unseen.read(400);
        assert_eq!((unseen.age(400), unseen.bytes(6_000)), (0, 1_000));
        unseen.read(401);
        assert_eq!((unseen.age(401), unseen.bytes(6_000)), (0, 0));
        // An older one, named late, takes nothing back.
        unseen.read(300);
        assert_eq!(unseen.age(401), 0);
    }

    #[test]
    fn more_than_may_be_unseen_pauses_prices_of_two_way_sessions() {
        let runs = slab::Slab::<crate::run::Run>::new();
        let echo = |session: &mut crate::session::Session, now| {
            let mut echoed = None;
            let beat = |_, echo, _| {
                echoed = echo;
                bytes::Bytes::from_static(b"hb")
            };
            assert!(!session.plan(&runs, now, beat).is_empty());
            echoed
        };
        for (pause_after, pauses) in [(Some(2_500), true), (None, false)] {
            let mut session = crate::session::Session::new(0, pause_after);
            session.counters.bytes = MAX_UNSEEN;
            session.unseen.sent(10, MAX_UNSEEN);
            assert!(!session.is_paused(10));
            session.counters.bytes += 1;
            assert_eq!(session.is_paused(10), pauses);
            session.ping(1, Some(9), 11);
            assert_eq!(session.is_paused(11), pauses, "that heartbeat was older");
            assert_eq!(echo(&mut session, 11).is_none(), pauses, "what it holds is not called fresh");
            session.ping(2, Some(11), 12);
            assert!(!session.is_paused(12), "it has read all but a byte");
            assert_eq!(echo(&mut session, 12), Some(2));
        }
    }

    proptest! {
        /// Whatever order things come in, it never says less than what is really unread.
        #[test]
        fn it_never_says_less_than_is_unread(steps in proptest::collection::vec((0u8..3, 1u64..5_000), 1..200)) {
            let (mut unseen, mut now, mut end) = (Unseen::new(0), 0i64, 0u64);
            // Heartbeats that were sent, and which of them the client has read.
            let mut beats: Vec<(i64, u64)> = Vec::new();
            let mut read = 0;
            for (what, much) in steps {
                now += i64::try_from(much % 700).unwrap();
                match what {
                    0 => end += much,
                    1 => {
                        end += 90;
                        beats.push((now, end));
                        unseen.sent(now, end);
                    }
                    _ => {
                        read = (read + usize::try_from(much % 4).unwrap()).min(beats.len());
                        if let Some((at, _)) = read.checked_sub(1).map(|last| beats[last]) {
                            unseen.read(at);
                        }
                    }
                }
                let (at, upto) = read.checked_sub(1).map_or((0, 0), |last| beats[last]);
                prop_assert!(unseen.bytes(end) >= end - upto);
                prop_assert_eq!(unseen.age(now), now - at);
            }
            // Who reads everything is found to, within three heartbeats.
            for _ in 0..3 {
                now += 1;
                unseen.sent(now, end);
                unseen.read(now);
            }
            prop_assert_eq!(unseen.bytes(end), 0);
        }
    }
}
