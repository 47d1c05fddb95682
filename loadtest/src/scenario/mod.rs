//! What a run is to do: where, for how long, and which clients, group by group.
//!
//! A scenario comes from flags, from a file, or from both, under one set of names: what the top of a file says holds for every
//! group that does not say otherwise, and a flag beats them all. [`keys`] knows the names, [`values`] what they may be.

pub mod keys;
pub mod values;

use std::path::{Path, PathBuf};

use tictac_proto::model::{MarketId, View};
use tictac_proto::wire::{Codec, Conflate};
use toml::{Table, Value};

pub use crate::fleet::Transport;
use crate::report::units::bytes;
use keys::Given;

/// Most clients of one group, and of all.
pub const MOST_CLIENTS: u64 = 50_000;
/// Most groups: each has a thread.
pub const MOST_GROUPS: usize = 16;

/// What a slow reader may read, bytes a second: it takes sips, five each second.
const SLOW: std::ops::RangeInclusive<u64> = 5..=5_000_000;

/// Which markets a client follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Pick {
    /// So many each, the next ones for the next client, until all are followed and it begins anew; 0 for all.
    All(usize),
    /// The first so many, the same for everyone.
    Hot(usize),
    /// So many different ones each, drawn by Zipf's law with this exponent: the first of the catalogue most often.
    Zipf(usize, f64),
    /// All markets of one event, the next event for the next client.
    Event,
    /// These, for everyone.
    Ids(Vec<MarketId>),
}

/// Clients that are alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// What it is called in tables.
    pub name: String,
    /// How many clients.
    pub count: usize,
    /// How they are connected.
    pub transport: Transport,
    /// In which encoding.
    pub codec: Codec,
    /// Connects a second.
    pub ramp: u32,
    /// How much of each book.
    pub view: View,
    /// How often they want to hear.
    pub conflate: Conflate,
    /// What they follow.
    pub pick: Pick,
    /// How fast each of them reads, bytes a second; `None` for as fast as it comes.
    pub read: Option<u64>,
    /// How many leave and come back each second.
    pub churn: Option<f64>,
    /// The second in which all are cut and come back.
    pub storm_at: Option<u64>,
}

impl Group {
    /// What they are, for people.
    #[must_use]
    pub fn described(&self) -> String {
        let transport = if self.transport == Transport::Ws { "WebSocket" } else { "server-sent events" };
        let codec = if self.codec == Codec::Json { "JSON" } else { "MessagePack" };
        let view =
            self.view.depth().map_or_else(|| "whole books".to_owned(), |depth| format!("depth {depth}"));
        let often = match self.conflate {
            Conflate::Raw => "every change".to_owned(),
            Conflate::Auto => "as fast as they take it".to_owned(),
            Conflate::Every(ms) => format!("every {ms} ms"),
        };
        let markets = match &self.pick {
            Pick::All(0) => "all markets".to_owned(),
            Pick::All(count) => format!("{count} markets each, by turns"),
            Pick::Hot(1) => "one hot market".to_owned(),
            Pick::Hot(count) => format!("the same {count} markets"),
            Pick::Zipf(count, skew) => format!("{count} markets each, by Zipf's law with {skew}"),
            Pick::Event => "a whole event each".to_owned(),
            Pick::Ids(ids) => ids.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        let mut text = format!("{transport}, {codec}, {view}, {often}; {markets}; {} connects/s", self.ramp);
        if let Some(read) = self.read {
            text.push_str(&format!("; each reads {} a second", bytes(read as f64)));
        }
        if let Some(churn) = self.churn {
            text.push_str(&format!("; {churn} leave and come back each second"));
        }
        if let Some(at) = self.storm_at {
            text.push_str(&format!("; all are cut in second {at}"));
        }
        text
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// What it is called in reports.
    pub name: String,
    /// The gateway, `host:port`.
    pub address: String,
    /// How long is measured, s, once everybody is connected.
    pub seconds: u64,
    /// The clients.
    pub groups: Vec<Group>,
    /// Where all figures go.
    pub json: Option<PathBuf>,
    /// Where the page goes.
    pub report: Option<PathBuf>,
}

impl Scenario {
    /// From a file's text and what was given beside it, which beats it. `path` is for errors and names the run.
    ///
    /// # Errors
    /// What can't be used, why, and what would do.
    pub fn read(file: Option<(&Path, &str)>, flags: &Table) -> Result<Self, String> {
        let mut name = None;
        let top = match file {
            None => Table::new(),
            Some((path, text)) => {
                name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
                let table: Table = text.parse().map_err(|error| format!("{}: {error}", path.display()))?;
                keys::checked(table, &keys::TOP, &format!("{}: ", path.display()))?
            }
        };
        let origin = file.map(|(path, _)| format!("{}: ", path.display())).unwrap_or_default();
        let (shared, mut tables) = groups_of(top, &origin)?;
        let whole = Given::new(&origin).over(&shared).flags(flags);
        let seconds = whole.number("seconds", 1, 86_400)?.unwrap_or(10);
        let address = values::address(whole.text("url")?)?;
        if tables.len() > 1 && flags.contains_key("clients") {
            return Err(format!(
                "--clients {}: {}has {} groups, so it says nothing of which; change `count` of [[clients]] there",
                keys::shown(flags.get("clients")),
                origin,
                tables.len()
            ));
        }
        if tables.len() > MOST_GROUPS {
            return Err(format!(
                "{origin}{} groups of [[clients]]: each has a thread, so at most {MOST_GROUPS}; put like clients together",
                tables.len()
            ));
        }
        // Without groups the whole file is one.
        let is_one = tables.is_empty();
        if is_one {
            tables.push(shared.clone());
        }
        let mut groups = Vec::with_capacity(tables.len());
        for (number, table) in tables.iter().enumerate() {
            let prefix = if is_one { origin.clone() } else { format!("{origin}clients[{}].", number + 1) };
            let given = Given::new(&origin).over(&shared).own(table, &prefix).flags(flags);
            groups.push(group(&given, number, tables.len(), seconds)?);
        }
        let all: u64 = groups.iter().map(|group| group.count as u64).sum();
        if all > MOST_CLIENTS {
            return Err(format!(
                "{origin}{all} clients in all: one address has ports for {MOST_CLIENTS} at most; run a second tester elsewhere"
            ));
        }
        let path = |key| whole.text(key).map(|text| text.map(PathBuf::from));
        Ok(Self {
            name: whole.text("name")?.map(str::to_owned).or(name).unwrap_or_else(|| "load".into()),
            address,
            seconds,
            groups,
            json: path("json")?,
            report: path("report")?,
        })
    }

    /// Clients of all groups.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.groups.iter().map(|group| group.count).sum()
    }
}

/// What the top of a file says for everybody, and its groups.
fn groups_of(mut top: Table, origin: &str) -> Result<(Table, Vec<Table>), String> {
    let Some(Value::Array(list)) = top.get("clients") else { return Ok((top, Vec::new())) };
    let wrong = || {
        format!(
            "{origin}clients = {}: either how many (clients = 500), or groups, each under its own [[clients]]",
            keys::shown(top.get("clients"))
        )
    };
    let mut groups = Vec::with_capacity(list.len());
    for (number, item) in list.iter().enumerate() {
        let Value::Table(table) = item else { return Err(wrong()) };
        groups.push(keys::checked(
            table.clone(),
            &keys::GROUP,
            &format!("{origin}clients[{}].", number + 1),
        )?);
    }
    if groups.is_empty() {
        return Err(wrong());
    }
    top.remove("clients");
    Ok((top, groups))
}

fn group(given: &Given<'_>, number: usize, of: usize, seconds: u64) -> Result<Group, String> {
    // A group says `count`; the flag and a file without groups say `clients`.
    let count = match given.number("count", 1, MOST_CLIENTS)? {
        Some(count) if !given.is_flag("clients") => count,
        _ => given.number("clients", 1, MOST_CLIENTS)?.unwrap_or(50),
    };
    let transport = given.one_of("transport", "ws or sse", |text| match text {
        "ws" => Some(Transport::Ws),
        "sse" => Some(Transport::Sse),
        _ => None,
    })?;
    let codec = given.one_of("codec", "json or msgpack", |text| match text {
        "json" => Some(Codec::Json),
        "msgpack" => Some(Codec::Msgpack),
        _ => None,
    })?;
    let msgpack = given.switch("msgpack")?;
    if codec == Some(Codec::Json) && msgpack {
        return Err(given.wrong("codec", "msgpack says otherwise; leave one of the two out"));
    }
    let standard = if msgpack { Codec::Msgpack } else { Codec::Json };
    let name = match of {
        1 => given.own_text("name")?.unwrap_or("clients").to_owned(),
        _ => given.own_text("name")?.map_or_else(|| format!("group {}", number + 1), str::to_owned),
    };
    if name.chars().count() > 40 {
        return Err(given.wrong("name", "it heads a column; at most 40 characters"));
    }
    let group = Group {
        name,
        count: usize::try_from(count).unwrap_or(usize::MAX),
        transport: transport.unwrap_or(Transport::Ws),
        codec: codec.unwrap_or(standard),
        ramp: given.number("ramp", 1, 20_000)?.map_or(40, |ramp| u32::try_from(ramp).unwrap_or(u32::MAX)),
        view: given.one_of("view", "1, 3, 10 or all", View::from_name)?.unwrap_or(View::All),
        conflate: given
            .one_of("conflate", "raw, auto, 100, 250, 500 or 1000", Conflate::from_name)?
            .unwrap_or(Conflate::Raw),
        pick: pick(given)?,
        read: given.text("read")?.map(values::rate).transpose().map_err(|why| given.wrong("read", &why))?,
        churn: given.real("churn", 0.001, 10_000.0)?,
        storm_at: given.number("storm_at", 1, 86_400)?,
    };
    can_be_done(&group, given, seconds)?;
    Ok(group)
}

/// Whether what is good by itself goes together.
fn can_be_done(group: &Group, given: &Given<'_>, seconds: u64) -> Result<(), String> {
    if let Some(at) = group.storm_at.filter(|at| *at >= seconds) {
        let why = format!(
            "{at} s is not within the {seconds} s that are measured; make it earlier, or `seconds` more"
        );
        return Err(given.wrong("storm_at", &why));
    }
    if group.transport == Transport::Sse && group.codec == Codec::Msgpack {
        let why = "events are text, and MessagePack is not; use codec = \"json\", or transport = \"ws\"";
        return Err(given.wrong("transport", why));
    }
    if group.read.is_some_and(|bytes| !SLOW.contains(&bytes)) {
        let why = "a slow reader reads from 5B/s to 5MB/s; leave it out to read as fast as it comes";
        return Err(given.wrong("read", why));
    }
    if let Some(churn) = group.churn.filter(|churn| *churn > group.count as f64) {
        let count = group.count;
        let why = format!(
            "{churn} of {count} clients each second: each can leave at most once; make it {count} at most, or have more clients"
        );
        return Err(given.wrong("churn", &why));
    }
    Ok(())
}

fn pick(given: &Given<'_>) -> Result<Pick, String> {
    let name = given.one_of("pick", "all, hot, zipf or event", |text| {
        ["all", "hot", "zipf", "event"].into_iter().find(|name| *name == text)
    })?;
    let markets = given.number("markets", 0, 10_000)?.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let skew = given.real("skew", 0.0, 5.0)?;
    // What a group says itself beats what its file says for all.
    let beaten = |key: &str, by: &str| !given.is_own(key) && given.is_own(by);
    if skew.is_some() && name != Some("zipf") && !beaten("skew", "pick") {
        return Err(given.wrong("skew", "only pick = \"zipf\" has one; add that, or leave it out"));
    }
    if let Some(ids) = given.texts("ids")?.filter(|_| !beaten("ids", "pick")) {
        if name.is_some() && !beaten("pick", "ids") {
            return Err(given
                .wrong("ids", "they are what is followed, so there is nothing to pick; leave `pick` out"));
        }
        if ids.is_empty() || ids.iter().any(String::is_empty) {
            return Err(given.wrong("ids", "give the names of markets, such as [\"1.23\", \"1.24\"]"));
        }
        if let Some(twice) = ids.iter().enumerate().find(|(at, id)| ids[..*at].contains(id)) {
            return Err(given.wrong("ids", &format!("{} is there twice; name each market once", twice.1)));
        }
        return Ok(Pick::Ids(ids.iter().map(|id| id.as_str().into()).collect()));
    }
    let at_least_one = |default: usize| match markets {
        Some(0) => Err(given.wrong("markets", "all only with pick = \"all\"; give how many")),
        Some(count) => Ok(count),
        None => Ok(default),
    };
    match name.unwrap_or("all") {
        "hot" => at_least_one(1).map(Pick::Hot),
        "zipf" => at_least_one(5).map(|count| Pick::Zipf(count, skew.unwrap_or(1.0))),
        "event" if given.is_own("markets") => Err(given
            .wrong("markets", "with pick = \"event\" each follows all markets of one event; leave it out")),
        "event" => Ok(Pick::Event),
        _ => Ok(Pick::All(markets.unwrap_or(5))),
    }
}

#[cfg(test)]
mod tests;
