//! The hot path of a core alone: clients that follow markets, a change of one of them, and everything up to the bytes that
//! would be written. No sockets, no clock.

#![allow(unreachable_pub, missing_docs, reason = "shared by an example and a test")]

use std::hint::black_box;

use bytes::Bytes;
use tictac_gateway::core::{Core, SessionId, SessionLimits};
use tictac_gateway::hub::{Now, RunId, ToCore, ToHub};
use tictac_gateway::rights::Rights;
use tictac_gateway::wires::Wire;
use tictac_proto::model::{MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Conflate, FeedState, How, Resume, Scope, Subscribe, Up};

/// As long as a change of one price in JSON.
const FRAME: [u8; 150] = [b'x'; 150];
const NOW: Now = Now { mono: 1_000, wall: 1_764_000_000_000 };
/// Where every market stands in the beginning.
const BEGIN: Position = Position { epoch: 1, seq: 1 };

/// Clients with their books.
pub struct World {
    core: Core,
    runs: Vec<RunId>,
    frame: Bytes,
    seq: u64,
}

/// What was done.
#[derive(Debug, Default, Clone, Copy)]
pub struct Work {
    pub changes: u64,
    pub deliveries: u64,
    pub bytes: u64,
}

fn market(number: usize) -> MarketId {
    format!("m-{number}").as_str().into()
}

fn write(core: &mut Core, id: SessionId) -> usize {
    let wrote = core.output(id, |session, _, runs| {
        let chunks = session.plan(runs, NOW.mono, |_, _, _| Bytes::new());
        let total: usize = chunks.iter().map(|chunk| black_box(chunk).len()).sum();
        drop(chunks);
        session.wrote(runs, total, NOW.mono);
        total
    });
    wrote.unwrap_or(0)
}

impl World {
    /// Each client follows `each` markets, one after another in a circle, and has its books.
    pub fn new(clients: usize, markets: usize, each: usize) -> Self {
        let mut core = Core::new(0, SessionLimits { subscriptions: each.max(1), scopes: 1 });
        for client in 0..clients {
            let id = core.connect(Wire::WsJson, Rights::All, None, NOW);
            let wanted = (0..each).map(|i| market((client * each + i) % markets)).collect();
            let subscribe = Subscribe {
                id: 1,
                scope: Scope::Markets(wanted),
                view: View::All,
                conflate: Conflate::Raw,
                resume: Resume::default(),
            };
            core.up(id, Up::Sub(subscribe), NOW);
        }
        let mut runs = Vec::new();
        let frame = Bytes::from_static(&FRAME);
        loop {
            let asked = core.take_asks();
            if asked.is_empty() {
                break;
            }
            for ask in asked {
                match ask {
                    ToHub::Open { key, .. } => {
                        let run = runs.len() + 1;
                        runs.push(run);
                        core.handle(ToCore::Opened { key, run, shard: 0, source: "s".into(), head: BEGIN });
                    }
                    ToHub::Base { run, from, .. } => core.handle(ToCore::Based {
                        run,
                        from,
                        frame: frame.clone(),
                        at: BEGIN,
                        how: How::Snap,
                        stop: Position::ZERO,
                        feed: FeedState::Live,
                    }),
                    other => panic!("nobody asks {other:?} here"),
                }
            }
            for due in core.take_dirty() {
                core.tell_news(due);
                while write(&mut core, due.session()) > 0 {}
            }
        }
        Self { core, runs, frame, seq: BEGIN.seq }
    }

    /// So many changes, each of the next market, each written to everybody before the next one comes.
    #[inline(never)]
    pub fn steady(&mut self, changes: usize) -> Work {
        let mut work = Work::default();
        for change in 0..changes {
            self.seq += 1;
            let run = self.runs[change % self.runs.len()];
            let (bytes, seq) = (self.frame.clone(), self.seq);
            self.core.handle(ToCore::Frame { run, bytes, seq, urgent: false });
            let dirty = self.core.take_dirty();
            self.core.look_ahead(&dirty);
            for due in dirty {
                self.core.tell_news(due);
                let wrote = write(&mut self.core, due.session());
                work.deliveries += 1;
                work.bytes += wrote as u64;
            }
            work.changes += 1;
        }
        work
    }
}
