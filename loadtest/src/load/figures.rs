//! What is known of a run when it is over.

use std::time::{SystemTime, UNIX_EPOCH};

use super::BUSY;
pub use super::counts::{Histogram, Sum, histogram, quantile_ms};
use super::group::Second;
use super::reference::Outcome;
use crate::fleet::Early;
use crate::scenario::{Group, Scenario};

/// Seconds without anything, though every client is owed a heartbeat in each, that fail a run.
const SILENT: usize = 3;

/// How long is measured before every client must have heard a heartbeat, s.
const HEARTBEAT_WITHIN: f64 = 3.0;

/// What is known of one group, or of all.
#[derive(Debug, Clone)]
pub struct GroupFigures {
    /// What it is called.
    pub name: String,
    /// How many clients.
    pub clients: usize,
    /// What they are, for people.
    pub what: String,
    /// Whether they read more slowly than they could.
    pub slow: bool,
    /// How many have all that they follow.
    pub ready: usize,
    /// From the first connect until all had their books, s.
    pub connect_s: f64,
    /// How long was measured, s.
    pub measured_s: f64,
    /// What was counted.
    pub sum: Sum,
    /// Checksums that agreed; each is compared once for all clients.
    pub checksums: u64,
    /// Deltas and snapshots whose book was compared with the one that was told step by step.
    pub compared: u64,
    /// Those that could not be.
    pub not_compared: u64,
    /// Distinct messages.
    pub decoded: u64,
    /// How often something was wrong.
    pub wrong: u64,
    /// The first of them, for people.
    pub mistakes: Vec<String>,
    /// CPU time of the thread while it was measured, s.
    pub cpu_s: f64,
    /// The busiest second's share of a CPU.
    pub busiest: f64,
    /// Connections that were cut because the scenario wants it.
    pub cut: u64,
    /// From the storm until the last was answered, s.
    pub storm_answered_s: Option<f64>,
    /// From the storm until the last had everything again, s.
    pub storm_back_s: Option<f64>,
}

impl GroupFigures {
    /// Nothing yet.
    ///
    /// # Errors
    /// Never: the bounds of histograms are right.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            name: String::new(),
            clients: 0,
            what: String::new(),
            slow: false,
            ready: 0,
            connect_s: 0.0,
            measured_s: 0.0,
            sum: Sum::new()?,
            checksums: 0,
            compared: 0,
            not_compared: 0,
            decoded: 0,
            wrong: 0,
            mistakes: Vec::new(),
            cpu_s: 0.0,
            busiest: 0.0,
            cut: 0,
            storm_answered_s: None,
            storm_back_s: None,
        })
    }

    fn named(mut self, group: &Group) -> Self {
        (self.name, self.clients, self.slow) = (group.name.clone(), group.count, group.read.is_some());
        self.what = group.described();
        self
    }

    /// A count as so many a second.
    #[must_use]
    pub fn per_second(&self, count: u64) -> f64 {
        if self.measured_s > 0.0 { count as f64 / self.measured_s } else { 0.0 }
    }

    /// Frames of one read.
    #[must_use]
    pub fn frames_per_read(&self) -> f64 {
        self.sum.frames as f64 / self.sum.reads.max(1) as f64
    }

    /// Connects a second, until every client had its books.
    #[must_use]
    pub fn connects(&self) -> f64 {
        if self.connect_s > 0.0 { self.ready as f64 / self.connect_s } else { 0.0 }
    }

    /// The thread's share of a CPU.
    #[must_use]
    pub fn cpu(&self) -> f64 {
        if self.measured_s > 0.0 { self.cpu_s / self.measured_s } else { 0.0 }
    }
}

/// Where latencies come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatencyFrom {
    /// Every delivery of every client; the changes say when they were due.
    Deliveries,
    /// One client; the messages say in whole ms when the source made them.
    Reference,
    /// Nothing came that says when it was made.
    Nothing,
}

impl LatencyFrom {
    /// For people.
    #[must_use]
    pub fn described(self) -> &'static str {
        match self {
            Self::Deliveries => "due to delivered, of every delivery",
            Self::Reference => {
                "source to client, measured by one client of each group; up to 1 ms too much, needs clocks in step"
            }
            Self::Nothing => "nothing came that says when it was made",
        }
    }
}

/// What a client saw that is looked at closely.
#[derive(Debug, Clone)]
pub struct ReferenceFigures {
    /// Markets that it followed.
    pub markets: usize,
    /// Source to client, µs.
    pub latency: Histogram,
    /// Deltas that it applied.
    pub deltas: u64,
    /// Stops that it was told.
    pub stops: u64,
    /// Checksums and digests that agreed.
    pub agreed: u64,
    /// Those that did not, and gaps that were not declared.
    pub wrong: u64,
    /// How often a market was tradable until a price message said that it was not: no stop had come before.
    pub stale_opens: u64,
    /// Changes that came before their source made them.
    pub early: Early,
}

impl ReferenceFigures {
    fn add(&mut self, other: &Self) {
        self.markets += other.markets;
        self.deltas += other.deltas;
        self.stops += other.stops;
        self.agreed += other.agreed;
        self.wrong += other.wrong;
        self.stale_opens += other.stale_opens;
        self.early.add(other.early);
        // Both have the same bounds, so that they always fit.
        let _ = self.latency.add(&other.latency);
    }
}

/// What came of comparing books with documents.
#[derive(Debug, Clone, Default)]
pub struct Compared {
    /// Markets that were to be compared.
    pub sampled: u64,
    /// Books that were the document's.
    pub equal: u64,
    /// Markets that were gone meanwhile.
    pub gone: u64,
    /// What was not.
    pub wrong: Vec<String>,
}

/// One second of all groups.
#[derive(Debug, Clone)]
pub struct Point {
    /// Deliveries a second.
    pub deliveries: f64,
    /// Bytes a second.
    pub bytes: f64,
    /// Latency of 99 of a hundred, ms.
    pub p99_ms: Option<f64>,
    /// The busiest thread's CPU.
    pub cpu: f64,
    /// Everything that was wrong so far.
    pub wrong: u64,
    frames: u64,
    latency: Histogram,
}

impl Point {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            deliveries: 0.0,
            bytes: 0.0,
            p99_ms: None,
            cpu: 0.0,
            wrong: 0,
            frames: 0,
            latency: histogram()?,
        })
    }

    /// Adds what a group measured in this second, or, after a pause of the tester, in several, of which this is one.
    pub(super) fn add(&mut self, second: &Second) {
        self.deliveries += second.sum.deliveries as f64 / second.took;
        self.bytes += second.sum.bytes as f64 / second.took;
        self.cpu = self.cpu.max(second.cpu);
        self.wrong += second.wrong;
        self.frames += second.sum.frames;
        // Both have the same bounds, so that they always fit.
        let _ = self.latency.add(&second.sum.latency);
    }

    /// Every group was heard; what is not needed any more is given back.
    pub(super) fn settle(&mut self) {
        self.p99_ms = quantile_ms(&self.latency, 0.99);
        self.latency = Histogram::new_with_bounds(1, 2, 1).unwrap_or_else(|_| self.latency.clone());
    }
}

/// A run.
#[derive(Debug, Clone)]
pub struct Figures {
    /// What it is called.
    pub name: String,
    /// The gateway.
    pub address: String,
    /// When it began, ms since 1970.
    pub begun_ms: u64,
    /// How long was to be measured, s.
    pub seconds: u64,
    /// Markets that there were.
    pub markets: usize,
    /// Group by group.
    pub groups: Vec<GroupFigures>,
    /// All together.
    pub all: GroupFigures,
    /// Second by second.
    pub points: Vec<Point>,
    /// The clients that are looked at closely, one of each group, together.
    pub reference: ReferenceFigures,
    /// Their latency of 99 of a hundred, ms, second by second: the highest of them.
    reference_seconds: Vec<Option<f64>>,
    /// Their latencies, group by group.
    reference_latencies: Vec<Histogram>,
    /// Books against documents.
    pub compared: Compared,
    /// Where latencies come from.
    pub latency_from: LatencyFrom,
    /// Why the run failed.
    pub problems: Vec<String>,
    /// What makes its figures doubtful.
    pub warnings: Vec<String>,
}

impl Figures {
    /// Of a run that begins.
    ///
    /// # Errors
    /// Never: the bounds of histograms are right.
    pub fn new(scenario: &Scenario, markets: usize) -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let named = |group: &Group| GroupFigures::new().map(|figures| figures.named(group));
        let reference = ReferenceFigures {
            markets: 0,
            latency: histogram()?,
            deltas: 0,
            stops: 0,
            agreed: 0,
            wrong: 0,
            stale_opens: 0,
            early: Early::default(),
        };
        Ok(Self {
            name: scenario.name.clone(),
            address: scenario.address.clone(),
            begun_ms: u64::try_from(now.as_millis()).unwrap_or(0),
            seconds: scenario.seconds,
            markets,
            groups: scenario.groups.iter().map(named).collect::<anyhow::Result<_>>()?,
            all: GroupFigures::new()?,
            points: Vec::new(),
            reference,
            reference_seconds: Vec::new(),
            reference_latencies: Vec::new(),
            compared: Compared::default(),
            latency_from: LatencyFrom::Nothing,
            problems: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// Takes over what a group measured, under its name.
    pub(super) fn measured(&mut self, number: usize, mut figures: GroupFigures) {
        let group = &mut self.groups[number];
        figures.name = std::mem::take(&mut group.name);
        figures.what = std::mem::take(&mut group.what);
        (figures.clients, figures.slow) = (group.clients, group.slow);
        *group = figures;
    }

    /// Takes over what the client saw that is looked at closely, group by group.
    pub(super) fn watched(&mut self, outcome: Outcome) {
        let Outcome { figures, seconds, problem } = outcome;
        self.reference.add(&figures);
        self.reference_latencies.push(figures.latency);
        self.problems.extend(problem);
        self.reference_seconds.resize(self.reference_seconds.len().max(seconds.len()), None);
        for (highest, p99) in self.reference_seconds.iter_mut().zip(seconds) {
            // Something is above nothing.
            if p99 > *highest {
                *highest = p99;
            }
        }
    }

    /// Whether everything was right.
    #[must_use]
    pub fn good(&self) -> bool {
        self.problems.is_empty()
    }

    /// Sums up, and judges.
    pub(super) fn conclude(&mut self) {
        let all = &mut self.all;
        all.name = "all".into();
        for group in &self.groups {
            all.clients += group.clients;
            all.ready += group.ready;
            all.connect_s += group.connect_s;
            all.measured_s = all.measured_s.max(group.measured_s);
            all.sum.add(&group.sum);
            all.checksums += group.checksums;
            all.compared += group.compared;
            all.not_compared += group.not_compared;
            all.decoded += group.decoded;
            all.wrong += group.wrong;
            all.mistakes.extend(group.mistakes.iter().cloned());
            all.cpu_s += group.cpu_s;
            all.cut += group.cut;
            // Something is above nothing.
            if group.storm_answered_s > all.storm_answered_s {
                all.storm_answered_s = group.storm_answered_s;
            }
            if group.storm_back_s > all.storm_back_s {
                all.storm_back_s = group.storm_back_s;
            }
            all.busiest = all.busiest.max(group.busiest);
        }
        self.latency_from = match (all.sum.latency.is_empty(), self.reference.latency.is_empty()) {
            (false, _) => LatencyFrom::Deliveries,
            (true, false) => LatencyFrom::Reference,
            (true, true) => LatencyFrom::Nothing,
        };
        if self.latency_from == LatencyFrom::Reference {
            all.sum.latency = self.reference.latency.clone();
            for (group, latency) in self.groups.iter_mut().zip(&self.reference_latencies) {
                group.sum.latency.clone_from(latency);
            }
            for (point, p99) in self.points.iter_mut().zip(&self.reference_seconds) {
                point.p99_ms = *p99;
            }
        }
        self.judge();
    }

    fn judge(&mut self) {
        let silent = self.points.split(|point| point.frames > 0).map(<[Point]>::len).max().unwrap_or(0);
        let (all, problems) = (&self.all, &mut self.problems);
        if silent >= SILENT {
            problems.push(format!(
                "for {silent} s nothing came, be it a heartbeat: every page shows itself stale"
            ));
        }
        let mut note = |count: u64, what: &str| {
            if count > 0 {
                problems.push(format!("{count} {what}"));
            }
        };
        note(all.sum.undeclared, "gaps were not declared");
        note(all.sum.wrong_digests, "digests were not those of what was held");
        note(all.sum.closed, "connections ended though nobody wished it");
        note(
            self.reference.wrong,
            "checksums, digests or gaps of the clients that are looked at closely were wrong",
        );
        note(
            self.reference.stale_opens,
            "stale opens: a market was tradable until a price said that it was not",
        );
        note(self.compared.wrong.len() as u64, "books were not found to be those of GET /v1/markets/{id}");
        problems.extend(self.compared.wrong.iter().cloned());
        let compared = &self.compared;
        if compared.sampled > 0 && compared.equal + compared.gone == 0 && compared.wrong.is_empty() {
            problems.push(format!("none of {} books was compared with its document", compared.sampled));
        }
        // One that is not served at all would not be seen in the sum of all.
        for group in self.groups.iter().filter(|group| group.measured_s > 0.0) {
            let (name, sum) = (&group.name, &group.sum);
            // One that reads slowly may have got nothing yet; that it comes to everything was seen in the end.
            if sum.deliveries == 0 && all.sum.deliveries > 0 && !group.slow {
                problems.push(format!(
                    "no update came to \"{name}\", though {} came to others: it is not served, or follows markets that never change; let it follow others",
                    all.sum.deliveries
                ));
            }
            if sum.digests == 0 && sum.wrong_digests == 0 && group.measured_s >= HEARTBEAT_WITHIN {
                problems.push(format!(
                    "no digest of \"{name}\" was heard in {:.0} s: nothing says that its clients hold what was sent",
                    group.measured_s
                ));
            }
        }
        if all.wrong > 0 {
            let other = all.wrong.saturating_sub(all.sum.undeclared + all.sum.wrong_digests);
            if other > 0 {
                problems.push(format!("{other} messages or connections were wrong"));
            }
            let new = |mistake: &&String| !problems.iter().any(|problem| problem.contains(mistake.as_str()));
            let mistakes: Vec<String> = all.mistakes.iter().filter(new).take(5).cloned().collect();
            problems.extend(mistakes);
        }
        if problems.is_empty() && all.sum.deliveries == 0 {
            problems.push("no update came: does the gateway's feed say anything?".into());
        }
        for group in self.groups.iter().filter(|group| group.busiest > BUSY) {
            self.warnings.push(format!(
                "the thread of \"{}\" was busy for {:.0} % of a second: the tester may be what was measured; split the group in two, or use another machine",
                group.name,
                100.0 * group.busiest
            ));
        }
        if all.not_compared > all.compared {
            self.warnings.push(format!(
                "{} merged messages could not be compared, {} were: they begin or end where no book is remembered",
                all.not_compared, all.compared
            ));
        }
        let mut early = all.sum.early;
        early.add(self.reference.early);
        if early.count > 0 {
            self.warnings.push(format!(
                "{} changes came before they were made: the clocks differ by up to {:.1} ms; latencies are that wrong, so set the clocks",
                early.count,
                early.most_us as f64 / 1e3
            ));
        }
        if self.compared.gone > 0 {
            self.warnings
                .push(format!("{} markets were gone before their books were compared", self.compared.gone));
        }
    }
}

#[cfg(test)]
mod tests;
