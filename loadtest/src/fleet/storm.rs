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

/// Clients that are on their way back.
#[derive(Debug)]
pub struct Coming {
    begun: Instant,
    /// Answers before.
    before: u64,
    /// Who comes next.
    next: usize,
    /// How long it took until the last was answered, once it was.
    pub answered: Option<Duration>,
    /// How long it took until the last had everything, once it had.
    pub all: Option<Duration>,
}

impl Fleet {
    /// Cuts all connections, without a word, as a network does. How many there were.
    pub fn cut_all(&mut self) -> usize {
        let cut = self.clients.iter_mut().map(Client::cut).filter(|was_open| *was_open).count();
        self.again.clear();
        self.ready = 0;
        cut
    }

    /// All come back with their positions, as fast as they are answered, and wait until each has all that it follows.
    ///
    /// # Errors
    /// If that takes longer than `within`, one is refused, or anything that is sent is wrong.
    pub fn come_back(&mut self, within: Duration, mut progress: impl FnMut(usize)) -> anyhow::Result<Back> {
        let mut coming = self.coming();
        let mut told = coming.begun;
        loop {
            self.go_on_coming(&mut coming)?;
            if let Some(all) = coming.all {
                return Ok(Back { answered: coming.answered.unwrap_or(all), all });
            }
            self.ensure_right()?;
            if coming.begun.elapsed() > within {
                bail!("{} of {} clients are back after {within:?}", self.ready, self.plan.clients);
            }
            self.turn(Duration::from_millis(1))?;
            if told.elapsed() > Duration::from_millis(200) {
                told = Instant::now();
                progress(self.ready);
            }
        }
    }

    /// All begin to come back; each step is one of [`Fleet::go_on_coming`], beside whatever else is read.
    #[must_use]
    pub fn coming(&self) -> Coming {
        Coming { begun: Instant::now(), before: self.answered(), next: 0, answered: None, all: None }
    }

    /// Has those come back for whom there is room, and looks who is there.
    ///
    /// # Errors
    /// If one can't connect.
    pub fn go_on_coming(&mut self, coming: &mut Coming) -> anyhow::Result<()> {
        let clients = self.plan.clients;
        let is_answered = self.answered().saturating_sub(coming.before);
        while coming.next < clients && (coming.next as u64).saturating_sub(is_answered) < UNANSWERED {
            let next = coming.next;
            let client = self.clients.get_mut(next).context("only who was there comes back")?;
            client
                .reconnect(&self.plan, next, &self.judge, self.poll.registry())
                .with_context(|| format!("client {next} can't connect to {}", self.plan.address))?;
            client.heard(self.clock.ran());
            coming.next += 1;
        }
        if coming.answered.is_none() && is_answered >= clients as u64 {
            coming.answered = Some(coming.begun.elapsed());
        }
        if coming.all.is_none() && self.ready >= clients {
            coming.all = Some(coming.begun.elapsed());
        }
        Ok(())
    }

    /// Reads on until each of those that were cut has everything again, for so long at most, of the time that it has read.
    /// Who has not by then is a mistake.
    ///
    /// # Errors
    /// If one can't connect, or the event queue fails.
    pub fn all_back(&mut self, mut coming: Option<&mut Coming>, within: Duration) -> anyhow::Result<()> {
        let end = self.clock.ran() + within;
        loop {
            if let Some(coming) = coming.as_deref_mut() {
                self.go_on_coming(coming)?;
            }
            let missing = self.plan.clients.saturating_sub(self.ready);
            if missing == 0 {
                return Ok(());
            }
            if self.clock.ran() >= end {
                self.judge.mistake(|| {
                    format!("{missing} clients that were cut have not everything again after {within:?}")
                });
                return Ok(());
            }
            self.turn(Duration::from_millis(1))?;
        }
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
                Client::connect(&self.plan, number, &mut self.judge, registry)
                    .map(|new| *client = new.replaces())
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
