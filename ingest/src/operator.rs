//! The operator's switch: what is suspended by hand, and what is to be imaged. Kept in Redis, so that every ingest knows it,
//! and by every ingest, so that a Redis that forgets does not open anything. Each act is noted in a stream (`odds:audit`) and in
//! the process log of every ingest.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tictac_proto::limits::MAX_ID;
use tictac_proto::model::MarketId;

/// Most scopes that are remembered, held or released.
pub const MAX_SCOPES: usize = 1_024;
/// Most bytes of a name and of a reason.
pub const MAX_TEXT: usize = 200;
/// A release is remembered for a day, ms: by then every ingest that ran has heard of it.
const REMEMBERED: i64 = 24 * 3_600_000;

/// What an act is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Everything.
    All,
    /// All markets of a source.
    Source(Arc<str>),
    /// All markets of an event.
    Event(Arc<str>),
    /// One market.
    Market(MarketId),
}

impl Scope {
    /// Whether a market is in it.
    #[must_use]
    pub fn covers(&self, source: &str, event: &str, market: &str) -> bool {
        match self {
            Self::All => true,
            Self::Source(name) => **name == *source,
            Self::Event(id) => **id == *event,
            Self::Market(id) => **id == *market,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Source(name) => write!(f, "source:{name}"),
            Self::Event(id) => write!(f, "event:{id}"),
            Self::Market(id) => write!(f, "market:{id}"),
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let strange = || {
            format!(
                "{text:?} is no scope: write all, source:NAME, event:ID or market:ID (1 to {MAX_ID} bytes)"
            )
        };
        if text == "all" {
            return Ok(Self::All);
        }
        let (kind, id) = text.split_once(':').ok_or_else(strange)?;
        if id.is_empty() || id.len() > MAX_ID {
            return Err(strange());
        }
        match kind {
            "source" => Ok(Self::Source(id.into())),
            "event" => Ok(Self::Event(id.into())),
            "market" => Ok(Self::Market(id.into())),
            _ => Err(strange()),
        }
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing of it can be traded until it is resumed, whatever its source says.
    Suspend,
    /// Its source's word counts again.
    Resume,
    /// Nothing of it can be traded until its source has imaged it.
    Image,
}

/// An act of somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Act {
    /// What.
    pub action: Action,
    /// Of what, as text (`all`, `source:NAME`, `event:ID`, `market:ID`).
    pub scope: String,
    /// Who.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub why: String,
    /// When, Unix ms; now where it is not said.
    #[serde(default)]
    pub at: i64,
}

impl Act {
    /// Checks it; its scope.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub fn check(&self) -> Result<Scope, String> {
        if self.by.is_empty() || self.by.len() > MAX_TEXT {
            return Err(format!("by {:?}: say who does it, in 1 to {MAX_TEXT} bytes", self.by));
        }
        if self.why.len() > MAX_TEXT {
            return Err(format!("why is {} bytes long; at most {MAX_TEXT}", self.why.len()));
        }
        self.scope.parse()
    }
}

/// The last act on every scope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    last: BTreeMap<Scope, Act>,
}

impl Ledger {
    /// Whether something is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.last.values().any(|act| act.action == Action::Suspend)
    }

    /// Whether a market is suspended by somebody.
    #[must_use]
    pub fn holds(&self, source: &str, event: &str, market: &str) -> bool {
        self.held().any(|act| act.0.covers(source, event, market))
    }

    /// What is suspended, with the act that did it.
    pub fn held(&self) -> impl Iterator<Item = (&Scope, &Act)> {
        self.last.iter().filter(|l| l.1.action == Action::Suspend)
    }

    /// What is suspended, for reading.
    #[must_use]
    pub fn table(&self, now: i64) -> String {
        if self.is_empty() {
            return "nothing is suspended by an operator\n".into();
        }
        let width = self.held().map(|(scope, _)| scope.to_string().len()).max().unwrap_or(0).max(5);
        let mut out = format!("{:width$}  {:>8}  {:12}  why\n", "scope", "since", "by");
        for (scope, act) in self.held() {
            let since = age(now - act.at);
            out += &format!("{:width$}  {since:>8}  {:12}  {}\n", scope.to_string(), act.by, act.why);
        }
        out
    }

    /// All of it, held and released.
    pub fn acts(&self) -> impl Iterator<Item = &Act> {
        self.last.values()
    }

    /// Takes in what is stored. Of each scope the later act counts. What is new here, and what is to be stored since it is
    /// later or not there.
    pub fn merge(&mut self, stored: &Self, now: i64) -> (Vec<Act>, Vec<Act>) {
        let mut news = Vec::new();
        for (scope, act) in &stored.last {
            if self.last.get(scope).is_none_or(|mine| mine.at < act.at) {
                self.last.insert(scope.clone(), act.clone());
                news.push(act.clone());
            }
        }
        self.last.retain(|_, act| act.action == Action::Suspend || now - act.at < REMEMBERED);
        let missing = |(scope, act): &(&Scope, &Act)| stored.last.get(*scope).is_none_or(|s| s.at < act.at);
        let missing = self.last.iter().filter(missing).map(|l| l.1.clone()).collect();
        (news, missing)
    }

    /// Notes an act.
    ///
    /// # Errors
    /// As [`Act::check`], and where too many scopes are remembered.
    pub fn note(&mut self, act: Act) -> Result<(), String> {
        let scope = act.check()?;
        if act.action == Action::Image {
            return Ok(());
        }
        if self.last.len() >= MAX_SCOPES && !self.last.contains_key(&scope) {
            return Err(format!(
                "{MAX_SCOPES} scopes are remembered; {scope} is one more: act on source:NAME or all"
            ));
        }
        self.last.insert(scope, act);
        Ok(())
    }
}

/// A time that passed, ms, in the unit that people would use.
fn age(ms: i64) -> String {
    match ms.max(0) / 1_000 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_suspended_is_shown_with_its_age() {
        let held = ledger(&[act(Action::Suspend, "market:1.23", 1_000), act(Action::Resume, "all", 1_000)]);
        let table = held.table(1_000 + 3 * 3_600_000);
        assert!(table.contains("market:1.23") && table.contains("3 h") && !table.contains("all"), "{table}");
        assert_eq!([0, 119_000, 120_000, 172_800_000].map(age), ["0 s", "119 s", "2 min", "2 d"]);
        assert!(Ledger::default().table(0).starts_with("nothing"));
    }

    fn act(action: Action, scope: &str, at: i64) -> Act {
        Act { action, scope: scope.into(), by: "ann".into(), why: "test".into(), at }
    }

    fn ledger(acts: &[Act]) -> Ledger {
        let mut ledger = Ledger::default();
        acts.iter().for_each(|act| ledger.note(act.clone()).unwrap());
        ledger
    }

    #[test]
    fn scopes_are_read_back_and_cover_what_they_name() {
        for text in ["all", "source:demo", "event:e:1", "market:1.23"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for text in ["", "market", "market:", "sport:football"] {
            assert!(text.parse::<Scope>().unwrap_err().contains("market:ID"), "{text}");
        }
        let held = ledger(&[act(Action::Suspend, "event:e:1", 1), act(Action::Suspend, "source:other", 1)]);
        assert!(held.holds("demo", "e:1", "m") && held.holds("other", "e2", "m"));
        assert!(!held.holds("demo", "e2", "m"));
    }

    #[test]
    fn the_later_act_counts_and_what_was_forgotten_is_stored_again() {
        let mut mine = ledger(&[act(Action::Suspend, "all", 5), act(Action::Suspend, "source:a", 1)]);
        let stored = ledger(&[act(Action::Resume, "source:a", 2), act(Action::Suspend, "market:m", 3)]);
        let (news, missing) = mine.merge(&stored, 10);
        assert_eq!(news.len(), 2);
        assert_eq!(missing, [act(Action::Suspend, "all", 5)]);
        assert_eq!(mine.held().count(), 2);
        // A Redis that came back with nothing opens nothing.
        let (news, missing) = mine.merge(&Ledger::default(), 10);
        assert_eq!((news.len(), missing.len(), mine.held().count()), (0, 3, 2));
        // A release is forgotten in the end.
        mine.merge(&Ledger::default(), 2 + REMEMBERED);
        assert_eq!(mine.acts().count(), 2);
    }

    #[test]
    fn an_act_says_who() {
        let mut nobody = act(Action::Suspend, "all", 1);
        nobody.by.clear();
        assert!(nobody.check().unwrap_err().contains("say who"));
    }
}
