//! Follows every shard of a log as a gateway does.

use std::collections::BTreeMap;
use std::time::Duration;

use tictac_ingest::clock::now_ms;
use tictac_ingest::log::{LiveEvent, LiveHandle, LogReader};
use tictac_proto::follower::{Event, Follower};
use tictac_proto::log::{CATALOGUE, FeedReport, Live};
use tictac_proto::model::{Book, MarketId};
use tictac_proto::wire::FeedState;
use tokio::sync::mpsc;

pub(crate) struct Gateway {
    reader: LogReader,
    _handle: LiveHandle,
    live: mpsc::Receiver<LiveEvent>,
    pub(crate) followers: BTreeMap<u16, Follower>,
}

impl Gateway {
    pub(crate) fn new(reader: &LogReader, shards: u16) -> Self {
        let (handle, live) = reader.live(65_536);
        let followers: BTreeMap<u16, Follower> =
            (0..shards).chain([CATALOGUE]).map(|s| (s, Follower::new(s))).collect();
        followers.keys().for_each(|s| handle.follow(*s));
        Self { reader: reader.clone(), _handle: handle, live, followers }
    }

    /// Follows until the condition holds; panics with what is known after 20 s.
    pub(crate) async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        // Looked at only when all that came is followed: the look is what costs.
        while !self.live.is_empty() || !holds(self) {
            let event = tokio::time::timeout(Duration::from_millis(100), self.live.recv()).await;
            assert!(tokio::time::Instant::now() < deadline, "not within 20 s: {what}; {}", self.describe());
            let now = now_ms();
            match event {
                Ok(Some(LiveEvent::Subscribed { shard })) => {
                    self.followers.get_mut(&shard).unwrap().handle_subscribed(now);
                }
                Ok(Some(LiveEvent::Message { shard, bytes })) => {
                    let live = Live::decode(&bytes).expect("an entry or an alive");
                    self.followers.get_mut(&shard).unwrap().handle_live(live, now);
                }
                Ok(Some(LiveEvent::Lost { shards, .. })) => {
                    for shard in shards {
                        self.followers.get_mut(&shard).unwrap().handle_lost();
                    }
                }
                Ok(None) => panic!("the live channel ended"),
                Err(_) => {}
            }
            for (shard, follower) in &mut self.followers {
                follower.handle_time(now);
                while let Some(event) = follower.poll(now) {
                    match event {
                        Event::NeedTail(after) => match self.reader.tail(*shard, after).await {
                            Ok(t) => follower.handle_tail(t.head, t.entries, t.complete, now),
                            Err(_) => follower.handle_unread(now),
                        },
                        Event::NeedSnapshots => match self.reader.snapshots(*shard).await {
                            Ok(s) => {
                                assert_eq!(s.unreadable, []);
                                follower.handle_snapshots(s.head, s.markets, s.entries, now);
                            }
                            Err(_) => follower.handle_unread(now),
                        },
                        _ => {}
                    }
                }
                assert_eq!(follower.counters().mismatches, 0, "checksums of shard {shard}");
            }
        }
    }

    fn describe(&self) -> String {
        let markets = self.books().len();
        let behind: Vec<u16> =
            self.followers.values().filter(|f| !f.is_following()).map(Follower::shard).collect();
        format!("{markets} markets, listed {}, not following: {behind:?}", self.listed().len())
    }

    pub(crate) fn books(&self) -> BTreeMap<MarketId, Book> {
        let mine = self.followers.iter().filter(|f| *f.0 != CATALOGUE);
        mine.flat_map(|f| f.1.markets()).map(|m| (m.id.clone(), m.book.clone())).collect()
    }

    pub(crate) fn listed(&self) -> BTreeMap<MarketId, Book> {
        self.followers[&CATALOGUE].markets().map(|m| (m.id.clone(), m.book.clone())).collect()
    }

    pub(crate) fn feed(&self, source: &str) -> FeedState {
        self.report(source).state
    }

    pub(crate) fn report(&self, source: &str) -> FeedReport {
        self.followers[&CATALOGUE].feed(source, now_ms())
    }

    pub(crate) fn all_following(&self) -> bool {
        self.followers.values().all(Follower::is_following)
    }
}
