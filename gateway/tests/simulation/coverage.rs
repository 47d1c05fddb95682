//! Which faults and which ways of recovering a campaign has been through, and which of them together.

use std::collections::BTreeMap;

macro_rules! named {
    ($name:ident { $($variant:ident = $text:literal,)* }) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($variant,)* }
        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),*];
            pub fn name(self) -> &'static str { match self { $(Self::$variant => $text),* } }
        }
    };
}

named!(Fault {
    Loss = "loss",
    Duplication = "duplication",
    Reordering = "reordering",
    LostTail = "lost tail",
    Failover = "failover that forgets",
    Amnesia = "amnesia",
    TwoOwners = "two owners",
    Pause = "pause",
    ClockJump = "clock jump",
    SlowClient = "slow client",
    Reconnect = "reconnect",
    LateJoin = "late join",
    GatewayRestart = "gateway restart",
    IngestRestart = "ingest restart",
    SubscriptionLost = "subscription lost",
    RepairDelayed = "repair delayed",
    RepairFailed = "repair failed",
    RepairDuplicated = "repair duplicated",
    UnknownOutcome = "append of unknown outcome",
});

named!(Path {
    Tail = "tail repair",
    Snapshots = "snapshot repair",
    NewEpoch = "new epoch",
    ResumeExact = "resume exact",
    ResumeDelta = "resume delta",
    ResumeSnap = "resume snap",
    ClientSnapshot = "client snapshot",
    Merged = "merged catch-up",
    Lapsed = "lapsed run",
    Interval = "interval",
    LostTailFound = "lost tail found",
});

/// Hits of every (fault, path).
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    hits: BTreeMap<(Fault, Path), u64>,
    /// By fault and virtual ms from its end until everything agreed: how often.
    converged: BTreeMap<Fault, BTreeMap<i64, u64>>,
    active: Vec<Fault>,
}

impl Coverage {
    /// A quiet point: what was active is over.
    pub fn quiet(&mut self) {
        self.active.clear();
    }

    pub fn fault(&mut self, fault: Fault) {
        if !self.active.contains(&fault) {
            self.active.push(fault);
        }
    }

    pub fn path(&mut self, path: Path, times: u64) {
        for fault in &self.active {
            *self.hits.entry((*fault, path)).or_default() += times;
        }
    }

    /// Everything agrees again, so long after what was active ended.
    pub fn converged(&mut self, ms: i64) {
        for fault in &self.active {
            *self.converged.entry(*fault).or_default().entry(ms).or_default() += 1;
        }
    }

    /// One line for each fault, for the table of faults.
    pub fn lines(&self, seeds: usize, [wrong, stale_open, undeclared]: [usize; 3]) -> String {
        let mut out = String::new();
        for (fault, converged) in &self.converged {
            let line = serde_json::json!({
                "kind": "simulated",
                "fault": fault.name(),
                "seeds": seeds,
                "converge_ms": converged,
                "wrong": wrong,
                "stale_open": stale_open,
                "undeclared": undeclared,
            });
            out += &format!("{line}\n");
        }
        out
    }

    pub fn add(&mut self, other: &Self) {
        for (fault, times) in &other.converged {
            let mine = self.converged.entry(*fault).or_default();
            times.iter().for_each(|(ms, count)| *mine.entry(*ms).or_default() += count);
        }
        for (pair, hits) in &other.hits {
            *self.hits.entry(*pair).or_default() += hits;
        }
    }

    pub fn hits(&self, fault: Fault, path: Path) -> u64 {
        self.hits.get(&(fault, path)).copied().unwrap_or(0)
    }

    /// The matrix as text.
    pub fn table(&self) -> String {
        let mut out = format!("{:26}", "");
        for path in Path::ALL {
            out += &format!("{:>16}", path.name());
        }
        for fault in Fault::ALL {
            out += &format!("\n{:26}", fault.name());
            for path in Path::ALL {
                out += &format!("{:>16}", self.hits(*fault, *path));
            }
        }
        out
    }
}
