//! What befalls a group's clients while it is measured: some leave and come back all the time, or all are cut at once.

use std::time::{Duration, Instant};

use crate::fleet::{Coming, Fleet};

/// How often some leave.
const ROUND: Duration = Duration::from_millis(100);
/// How long is read between two looks at who is back after a storm.
const COMING: Duration = Duration::from_millis(2);
/// What is late already is read for so long.
const LATE: Duration = Duration::from_millis(20);
/// How long all may take to be back once it is not measured any more.
const BACK_WITHIN: Duration = Duration::from_secs(30);

/// How a group is measured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measuring {
    /// How long, s.
    pub seconds: u64,
    /// How many leave and come back each second.
    pub churn: Option<f64>,
    /// The second in which all are cut and come back.
    pub storm_at: Option<u64>,
}

/// What befalls them.
#[derive(Debug, Default)]
pub(super) struct Unrest {
    clients: usize,
    churn: Option<f64>,
    /// When all will be cut, from when it began to be measured.
    storm_at: Option<Duration>,
    /// How many were to leave so far.
    left: usize,
    /// Who leaves next.
    next: usize,
    /// How often some left.
    rounds: u64,
    /// Connections that were cut.
    pub(super) cut: u64,
    /// The storm, once there was one.
    pub(super) coming: Option<Coming>,
}

impl Unrest {
    pub(super) fn new(measuring: &Measuring, clients: usize) -> Self {
        let storm_at = measuring.storm_at.map(Duration::from_secs);
        Self { clients, churn: measuring.churn, storm_at, ..Self::default() }
    }

    /// Some are still on their way back after a storm.
    fn is_storm(&self) -> bool {
        self.coming.as_ref().is_some_and(|coming| coming.all.is_none())
    }

    /// Reads until then, and has happen what is due meanwhile.
    pub(super) fn run(&mut self, fleet: &mut Fleet, begun: Instant, until: Instant) -> anyhow::Result<()> {
        loop {
            self.befall(fleet, begun.elapsed())?;
            let left = until.saturating_duration_since(Instant::now());
            let slice = match (self.is_storm(), self.churn.is_some() || self.storm_at.is_some()) {
                (true, _) => left.min(COMING),
                (false, true) => left.min(ROUND),
                (false, false) => left,
            };
            // Even if it is late already, what waits is read.
            fleet.run(if left.is_zero() { LATE } else { slice }, false, |_| {})?;
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }

    fn befall(&mut self, fleet: &mut Fleet, elapsed: Duration) -> anyhow::Result<()> {
        if self.storm_at.is_some_and(|at| elapsed >= at) {
            self.storm_at = None;
            self.cut += fleet.cut_all() as u64;
            self.coming = Some(fleet.coming());
        }
        if let Some(coming) = self.coming.as_mut().filter(|coming| coming.all.is_none()) {
            fleet.go_on_coming(coming)?;
        }
        let Some(churn) = self.churn else { return Ok(()) };
        let due = (elapsed.as_secs_f64() * churn) as usize;
        // Who could not leave in a storm, or in a pause of the tester, does not leave later.
        let most = (churn * 2.0 * ROUND.as_secs_f64()).ceil() as usize;
        let some = due.saturating_sub(std::mem::replace(&mut self.left, due)).min(most).min(self.clients);
        if some == 0 || self.is_storm() {
            return Ok(());
        }
        let numbers = (self.next..self.next + some).map(|number| number % self.clients);
        self.cut += fleet.replace(numbers, self.rounds.is_multiple_of(2))? as u64;
        (self.next, self.rounds) = ((self.next + some) % self.clients, self.rounds + 1);
        Ok(())
    }

    /// It is not measured any more: all read as fast as it comes, and nobody leaves. Waits until all are back.
    pub(super) fn end(&mut self, fleet: &mut Fleet) -> anyhow::Result<()> {
        fleet.full_pace();
        if self.cut == 0 {
            return Ok(());
        }
        let coming = self.coming.as_mut().filter(|coming| coming.all.is_none());
        fleet.all_back(coming, BACK_WITHIN)
    }
}
