//! Which server of a Cluster has a key: the map of its slots, read from the servers themselves.
//!
//! Of what they say counts what one says that finds the Cluster whole, at the highest epoch seen: a server that was cut
//! off says so after its node time-out. Read when nothing is known, when a server says that a key moved, after a server
//! could not be reached, and when somebody asks for it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use redis::{FromRedisValue, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::address::{Server, Template};
use super::node::{Failure, Node, Request};
use crate::log::LogError;

const SLOTS: u16 = 16_384;
/// Servers asked at once for the map.
const ASKED: usize = 6;
/// Servers that are known at most; a Cluster has a thousand.
const MOST: usize = 2_000;

/// A slot: what is inside the first braces counts, where there is something.
pub(crate) fn slot(key: &str) -> u16 {
    let tag = key.find('{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.find('}').filter(|close| *close > 0).map(|close| &rest[..close])
    });
    crc16::State::<crc16::XMODEM>::calculate(tag.unwrap_or(key).as_bytes()) % SLOTS
}

/// Who has which slots.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Map {
    epoch: u64,
    /// First slot, last slot, its master; sorted.
    ranges: Vec<(u16, u16, Server)>,
    /// Masters and replicas.
    servers: BTreeSet<Server>,
}

impl Map {
    fn master(&self, slot: u16) -> Option<&Server> {
        let after = self.ranges.partition_point(|range| range.0 <= slot);
        let range = &self.ranges[after.checked_sub(1)?];
        (slot <= range.1).then_some(&range.2)
    }

    /// Reads `CLUSTER SLOTS`. A server that does not know its own address leaves it out: then it is the one asked.
    fn read(epoch: u64, slots: &Value, asked: &Server) -> Option<Self> {
        let Value::Array(ranges) = slots else { return None };
        let mut map = Self { epoch, ..Self::default() };
        for range in ranges {
            let Value::Array(parts) = range else { return None };
            let [Value::Int(first), Value::Int(last), servers @ ..] = &parts[..] else { return None };
            let servers: Vec<Server> = servers.iter().filter_map(|s| server(s, asked)).take(64).collect();
            let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
            map.ranges.push((first, last, servers.first()?.clone()));
            map.servers.extend(servers);
        }
        map.ranges.sort_unstable();
        (!map.ranges.is_empty() && map.servers.len() <= MOST).then_some(map)
    }
}

fn server(value: &Value, asked: &Server) -> Option<Server> {
    let Value::Array(parts) = value else { return None };
    let [host, Value::Int(port), ..] = &parts[..] else { return None };
    let host = match host {
        Value::Nil => String::new(),
        host => String::from_redis_value(host.clone()).ok()?,
    };
    let host = if host.is_empty() || host == "?" { asked.host.clone() } else { host };
    Some(Server { host, port: u16::try_from(*port).ok()? })
}

/// A Cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    template: Template,
    seeds: Vec<Server>,
    deadline: Duration,
    known: std::sync::Mutex<Known>,
    /// Held while the map is read, so that it is read once for all who miss it.
    reading: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    map: Option<Arc<Map>>,
    /// Counts readings.
    version: u64,
    /// It may be wrong: a server could not be reached.
    suspect: bool,
    nodes: HashMap<Server, Arc<Node>>,
}

impl Cluster {
    pub(crate) fn new(seeds: Vec<Server>, template: Template, deadline: Duration) -> Self {
        Self { template, seeds, deadline, known: std::sync::Mutex::default(), reading: Mutex::default() }
    }

    /// The connections to a server.
    pub(crate) fn node(&self, server: &Server) -> Arc<Node> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Node::fixed(self.template.clone(), Some(server.clone()), self.deadline);
        known.nodes.entry(server.clone()).or_insert_with(new).clone()
    }

    /// Who has a key, and by which reading of the map; nobody where the Cluster has lost the slot.
    pub(crate) async fn master(&self, key: &str) -> Result<Option<(Server, u64)>, LogError> {
        let slot = slot(key);
        let (map, version, suspect) = self.map();
        let server = map.as_ref().and_then(|map| map.master(slot));
        if let Some(server) = server.filter(|_| !suspect) {
            return Ok(Some((server.clone(), version)));
        }
        self.refresh(version).await?;
        let (map, version, _) = self.map();
        Ok(map.as_ref().and_then(|map| map.master(slot)).map(|server| (server.clone(), version)))
    }

    /// Any server that is in use, a different one each time.
    pub(crate) async fn any(&self) -> Result<Server, LogError> {
        let (map, version, suspect) = self.map();
        if map.is_none() || suspect {
            self.refresh(version).await?;
        }
        let masters: Vec<Server> =
            self.map().0.map_or_else(Vec::new, |m| m.ranges.iter().map(|r| r.2.clone()).collect());
        let picked = masters.choose(&mut SmallRng::from_os_rng());
        picked.cloned().ok_or_else(|| LogError::Unavailable("the Cluster has no servers".into()))
    }

    fn map(&self) -> (Option<Arc<Map>>, u64, bool) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        (known.map.clone(), known.version, known.suspect)
    }

    /// The map may be wrong: it is read again before it is used.
    pub(crate) fn suspect(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).suspect = true;
    }

    /// Reads the map, unless that was done after the reading `version`.
    pub(crate) async fn refresh(&self, version: u64) -> Result<(), LogError> {
        let _reading = self.reading.lock().await;
        let (old, current, suspect) = self.map();
        if current != version && !suspect {
            return Ok(());
        }
        let mut servers: Vec<Server> =
            old.as_ref().map_or_else(Vec::new, |m| m.servers.iter().cloned().collect());
        servers.extend(
            self.seeds.iter().filter(|seed| old.as_ref().is_none_or(|m| !m.servers.contains(*seed))).cloned(),
        );
        servers.shuffle(&mut SmallRng::from_os_rng());
        let mut why = String::from("no server is known");
        let least = old.as_ref().map_or(0, |map| map.epoch);
        let mut lower: Option<Map> = None;
        for some in servers.chunks(ASKED) {
            // Aside: one that is too late this time has its connection made for the next time.
            let ask = |server: &Server| tokio::spawn(ask(self.node(server), server.clone()));
            let mut asked: FuturesUnordered<_> = some.iter().map(ask).collect();
            while let Some(answer) = asked.next().await {
                match answer.unwrap_or_else(|error| Err(error.to_string())) {
                    Ok(map) if map.epoch >= least => {
                        self.take(map);
                        return Ok(());
                    }
                    // One that lags behind; or all, where the Cluster was made anew.
                    Ok(map) => lower = lower.filter(|other| other.epoch >= map.epoch).or(Some(map)),
                    Err(error) => why = error,
                }
            }
        }
        match lower {
            Some(map) => self.take(map),
            None => {
                let why = format!("no server says where the Cluster's slots are: {why}");
                return Err(LogError::Unavailable(why));
            }
        }
        Ok(())
    }

    /// The version of the map, for asking whether there is a newer one.
    pub(crate) fn version(&self) -> u64 {
        self.map().1
    }

    fn take(&self, map: Map) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.map.as_deref() != Some(&map) {
            tracing::info!(epoch = map.epoch, servers = map.servers.len(), "the Cluster's map is read");
        }
        // A server that left is forgotten with its connections; seeds stay.
        known.nodes.retain(|server, _| map.servers.contains(server) || self.seeds.contains(server));
        known.map = Some(Arc::new(map));
        known.version += 1;
        known.suspect = false;
    }
}

/// What one server says.
async fn ask(node: Arc<Node>, server: Server) -> Result<Map, String> {
    let until = Instant::now() + node.deadline();
    let text = |failure: Failure| match failure {
        Failure::Other(error) | Failure::Away(error) => format!("{server}: {error}"),
        Failure::Moved => format!("{server}: sent us elsewhere"),
    };
    let mut info = redis::cmd("CLUSTER");
    info.arg("INFO");
    let info = node.send(Request { command: &info, is_call: false }, until).await.map_err(text)?;
    let info = String::from_redis_value(info).map_err(|error| format!("{server}: {error}"))?;
    let field =
        |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
    if field("cluster_state") != Some("ok") {
        return Err(format!("{server} says that the Cluster is not whole"));
    }
    let epoch = field("cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    let mut slots = redis::cmd("CLUSTER");
    slots.arg("SLOTS");
    let slots = node.send(Request { command: &slots, is_call: false }, until).await.map_err(text)?;
    Map::read(epoch, &slots, &server).ok_or_else(|| format!("{server} says nothing readable of its slots"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_slot_that_redis_gives_it() {
        // CLUSTER KEYSLOT, seen on a server.
        for (key, expected) in
            [("foo", 12_182), ("odds:{0}:own", 13_907), ("odds:{cat}:live", 1_075), ("{}x", 10_595)]
        {
            assert_eq!(slot(key), expected, "{key}");
        }
        assert_eq!(slot("odds:{7}:n"), slot("other:{7}:{8}"));
    }

    #[test]
    fn the_map_says_who_has_a_slot() {
        let server = |host: &str, port| {
            let host = if host.is_empty() { Value::Nil } else { Value::BulkString(host.into()) };
            Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec())])
        };
        let slots = Value::Array(vec![
            Value::Array(vec![Value::Int(8_000), Value::Int(9_000), server("b", 2), server("c", 3)]),
            Value::Array(vec![Value::Int(0), Value::Int(100), server("", 1)]),
        ]);
        let map = Map::read(3, &slots, &Server::new("asked", 9)).unwrap();
        assert_eq!(map.master(0), Some(&Server::new("asked", 1)));
        assert_eq!(map.master(100), Some(&Server::new("asked", 1)));
        assert_eq!(map.master(8_500), Some(&Server::new("b", 2)));
        assert_eq!((map.master(101), map.master(16_383)), (None, None));
        assert_eq!(map.servers.len(), 3);
        assert_eq!(Map::read(3, &Value::Array(vec![]), &Server::new("asked", 9)), None);
    }
}
