//! What was sent and may not have been read. A socket takes far more than a slow client reads: minutes of prices can wait
//! in buffers while its pings arrive on time. So a ping names the newest heartbeat that the client has read, and what was
//! written before that one was read, too.

/// Bytes that may be on their way to a client that has not said that it read them, before prices pause. A first load of
/// many books is that large; what waits in buffers for longer is found by its age.
pub const MAX_UNSEEN: u64 = 16 * 1024 * 1024;

/// How far a two-way client has read.
#[derive(Debug)]
pub(super) struct Unseen {
    /// When the newest heartbeat was sent of which it said that it has read it.
    at: i64,
    /// It has read the connection's bytes up to here.
    read: u64,
    /// A heartbeat that it has not told of yet: when it was sent, and where it ends. While there is one, no other is
    /// remembered: a client tells once a heartbeat. A later one proves it, as two may be of the same millisecond.
    mark: Option<(i64, u64)>,
}

impl Unseen {
    pub(super) fn new(now: i64) -> Self {
        Self { at: now, read: 0, mark: None }
    }

    /// A heartbeat went out, the connection's bytes up to `end` with it.
    pub(super) fn sent(&mut self, now: i64, end: u64) {
        self.mark.get_or_insert((now, end));
    }

    /// The client has read a heartbeat that was sent then.
    pub(super) fn read(&mut self, sent: i64) {
        self.at = self.at.max(sent);
        if let Some((_, end)) = self.mark.take_if(|(at, _)| *at < sent) {
            self.read = end;
        }
    }

    /// For how long it has not said that it reads, ms.
    pub(super) fn age(&self, now: i64) -> i64 {
        now - self.at
    }

    /// How much of what was written up to `end` it has not said to have read, bytes.
    pub(super) fn bytes(&self, end: u64) -> u64 {
        end.saturating_sub(self.read)
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
            "only the one that is remembered counts"
        );
        unseen.sent(400, 6_000);
        unseen.read(400);
        assert_eq!(
            (unseen.age(400), unseen.bytes(6_000)),
            (0, 5_000),
            "another one may have been sent just before"
        );
        unseen.read(401);
        assert_eq!((unseen.age(401), unseen.bytes(6_000)), (0, 0));
        // An older one, named late, takes nothing back.
        unseen.read(300);
        assert_eq!(unseen.age(401), 0);
    }

    #[test]
    fn more_than_may_be_unseen_pauses_prices_of_two_way_sessions() {
        for (pause_after, pauses) in [(Some(2_500), true), (None, false)] {
            let mut session = crate::session::Session::new(0, pause_after);
            session.counters.bytes = MAX_UNSEEN;
            session.unseen.sent(10, MAX_UNSEEN);
            assert!(!session.is_paused(10));
            session.counters.bytes += 1;
            assert_eq!(session.is_paused(10), pauses);
            session.ping(1, Some(9), 11);
            assert_eq!(session.is_paused(11), pauses, "that heartbeat was older");
            session.ping(2, Some(11), 12);
            assert!(!session.is_paused(12), "it has read all but a byte");
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
