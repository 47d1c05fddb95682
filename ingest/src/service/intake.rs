//! A source's bytes → the engine. One pair of readers for each source, since both remember markets.

use std::collections::BTreeMap;
use std::sync::Arc;

use tictac_proto::wire::Times;

use crate::engine::Engine;
use crate::envelope::{Body, Envelope};
use crate::mcm::McmReader;
use crate::native::NativeReader;
use crate::problem::{Problem, ProblemKind};
use crate::update::Update;

#[derive(Debug)]
struct Readers {
    native: NativeReader,
    mcm: McmReader,
}

impl Readers {
    fn new(source: &Arc<str>) -> Self {
        Self { native: NativeReader::new(source.clone()), mcm: McmReader::new() }
    }
}

/// Readers of all sources. Bounded: the engine lets only so many sources in.
#[derive(Debug, Default)]
pub(super) struct Intake {
    readers: BTreeMap<Arc<str>, Readers>,
    updates: Vec<Update>,
    problems: Vec<Problem>,
}

impl Intake {
    /// Takes in one message.
    pub(super) fn message(&mut self, engine: &mut Engine, source: &Arc<str>, payload: &[u8], received: i64) {
        let envelope = match Envelope::read(payload, &mut self.problems) {
            Ok(envelope) => envelope,
            Err(problem) => {
                engine.problem(source, problem, received);
                return engine.handle_unreadable(source);
            }
        };
        // The channel says whose it is: only the source may publish there.
        if let Some(said) = envelope.source.as_ref().filter(|said| *said != source) {
            let why = format!(
                "says it is from {said:?} but came through the channel of {source:?}: taken as {source:?}"
            );
            self.problems.push(Problem::new(ProblemKind::Value, "src", why, said.as_bytes()));
        }
        if engine.handle_message(source, envelope.seq, received) {
            let readers = self.readers.entry(source.clone()).or_insert_with(|| Readers::new(source));
            match &envelope.body {
                Body::Native(node) => readers.native.read(node, &mut self.updates, &mut self.problems),
                Body::Mcm(line) => {
                    let read = readers.mcm.read(source, line, &mut self.updates, &mut self.problems);
                    if read.kind != crate::mcm::Kind::None {
                        engine.handle_late(source, read.is_late());
                    }
                    if read.broken {
                        engine.handle_loss(source);
                    }
                }
            }
            let times = Times { source: envelope.ts.unwrap_or(received), received, ..Times::default() };
            engine.handle_updates(source, self.updates.drain(..), times);
        }
        for problem in self.problems.drain(..) {
            engine.problem(source, problem, received);
        }
    }

    /// Tells readers of markets whose books came from the log.
    pub(super) fn restore(&mut self, engine: &mut Engine) {
        for (source, market) in engine.take_restored() {
            let Some(book) = engine.book(&market) else { continue };
            let readers = self.readers.entry(source.clone()).or_insert_with(|| Readers::new(&source));
            readers.native.restore(&market, book);
            readers.mcm.restore(&market, book);
        }
    }

    /// Forgets markets that are gone.
    pub(super) fn forget(&mut self, engine: &mut Engine) {
        for (source, market) in engine.take_forgotten() {
            if let Some(readers) = self.readers.get_mut(&source) {
                readers.native.forget(&market);
                readers.mcm.forget(&market);
            }
        }
    }
}
