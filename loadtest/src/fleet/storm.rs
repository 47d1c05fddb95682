//! Everybody at once: all connections are cut, and all come back with the positions that they have.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{Client, Fleet};

/// Connects that may be without an answer at once; a listener's queue has no room for more.
const UNANSWERED: u64 = 1_000;

/// How long coming back took.
#[derive(Debug, Clone, Copy)]
pub struct Back {
    /// Until the last was answered.
    pub answered: Duration,
    /// Until the last had everything.
    pub all: Duration,
}

impl Fleet {
    /// Cuts all connections, without a word, as a network does.
    pub fn cut_all(&mut self) {
        self.clients.iter_mut().for_each(Client::cut);
        self.again.clear();
        self.ready = 0;
    }

    /// All come back with their positions, as fast as they are answered, and wait until each has all that it follows.
    ///
    /// # Errors
    /// If that takes longer than `within`, one is refused, or anything that is sent is wrong.
    pub fn come_back(&mut self, within: Duration, mut progress: impl FnMut(usize)) -> anyhow::Result<Back> {
        let (begun, before) = (Instant::now(), self.totals.answered);
        let (mut next, mut answered, mut told) = (0, None, begun);
        while self.ready < self.plan.clients {
            self.ensure_right()?;
            if begun.elapsed() > within {
                bail!("{} of {} clients are back after {within:?}", self.ready, self.plan.clients);
            }
            let is_answered = self.totals.answered - before;
            while next < self.plan.clients && next as u64 - is_answered < UNANSWERED {
                let client = self.clients.get_mut(next).context("only who was there comes back")?;
                client
                    .reconnect(&self.plan, next, &self.judge, self.poll.registry())
                    .with_context(|| format!("client {next} can't connect to {}", self.plan.address))?;
                client.heard(self.clock.ran());
                next += 1;
            }
            if answered.is_none() && is_answered >= self.plan.clients as u64 {
                answered = Some(begun.elapsed());
            }
            self.turn(Duration::from_millis(1))?;
            if told.elapsed() > Duration::from_millis(200) {
                told = Instant::now();
                progress(self.ready);
            }
        }
        let all = begun.elapsed();
        Ok(Back { answered: answered.unwrap_or(all), all })
    }

    /// Cuts some, and has them come back at once: with their positions, or as if they had never been there. Who has not
    /// everything yet is left alone. How many were cut.
    ///
    /// # Errors
    /// If one can't connect.
    pub fn replace(
        &mut self,
        numbers: impl IntoIterator<Item = usize>,
        with_positions: bool,
    ) -> anyhow::Result<usize> {
        let mut cut = 0;
        for number in numbers {
            let Some(client) = self.clients.get_mut(number).filter(|client| client.is_ready()) else {
                continue;
            };
            client.cut();
            self.again.retain(|again| *again != number);
            let registry = self.poll.registry();
            if with_positions {
                client.reconnect(&self.plan, number, &self.judge, registry)
            } else {
                Client::connect(&self.plan, number, &mut self.judge, registry).map(|new| *client = new)
            }
            .with_context(|| format!("client {number} can't connect to {}", self.plan.address))?;
            client.heard(self.clock.ran());
            self.ready -= 1;
            cut += 1;
        }
        Ok(cut)
    }

    /// How many of the clients' books are not the newest that any has.
    #[must_use]
    pub fn behind(&self) -> usize {
        self.clients.iter().map(|client| client.behind(&self.judge)).sum()
    }
}
