//! What there is, and who follows what of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tictac_proto::model::{MarketField, MarketId};
use tictac_proto::wire::Codec;

use crate::fleet::Transport;
use crate::fleet::events::{MOST_MARKETS, MOST_NAMES};
use crate::scenario::{Group, Pick};
use crate::websocket::WsClient;

/// How long the catalogue may take.
const WITHIN: Duration = Duration::from_secs(10);
/// What a gateway takes in one message unless it is told otherwise, less what stands around the names.
const MESSAGE: usize = 16 * 1024 - 256;

/// The markets of a gateway.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    markets: Vec<MarketId>,
    events: Vec<Vec<MarketId>>,
}

impl Catalogue {
    /// From markets with the events that they are of; in this order Zipf's law prefers them.
    pub fn new(markets: impl IntoIterator<Item = (MarketId, String)>) -> Self {
        let (mut all, mut events) = (Vec::new(), BTreeMap::<String, Vec<MarketId>>::new());
        for (market, event) in markets {
            all.push(market.clone());
            events.entry(event).or_default().push(market);
        }
        Self { markets: all, events: events.into_values().collect() }
    }

    /// What a gateway has.
    ///
    /// # Errors
    /// If it can't be reached, or has nothing.
    pub async fn fetch(address: &str) -> anyhow::Result<Self> {
        let connected = WsClient::connect(address, Codec::Json, "?catalogue=1");
        let connected = tokio::time::timeout(WITHIN, connected).await;
        let mut client = connected.context("no answer in time").flatten().with_context(|| {
            format!(
                "no gateway answers at {address}; one with markets inside is started by: cargo run --release"
            )
        })?;
        let come = client.until(WITHIN, "the catalogue", |f| !f.catalogue.is_empty()).await;
        come.context("the gateway has no market")?;
        let catalogue = std::mem::take(&mut client.followed.catalogue);
        Ok(Self::new(catalogue.into_iter().map(|(id, fields)| {
            let event = fields.fields.iter().find(|(field, _)| *field == MarketField::Event);
            let event = event.and_then(|(_, value)| value.as_ref()?.text().map(str::to_owned));
            (id.clone(), event.unwrap_or_else(|| id.to_string()))
        })))
    }

    /// How many markets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.markets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.markets.is_empty()
    }

    /// How many events there are.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events.len()
    }

    /// What each client of a group follows.
    ///
    /// # Errors
    /// If there is no such market, or it is too much for one message.
    pub fn follows(&self, group: &Group) -> anyhow::Result<Vec<Vec<MarketId>>> {
        ensure!(!self.is_empty(), "the gateway has no market");
        let (all, count) = (&self.markets, group.count);
        let follows: Vec<Vec<MarketId>> = match &group.pick {
            Pick::All(each) => {
                let each = if *each == 0 { all.len() } else { (*each).min(all.len()) };
                let next =
                    |client: usize| (0..each).map(|k| all[(client * each + k) % all.len()].clone()).collect();
                (0..count).map(next).collect()
            }
            Pick::Hot(each) => vec![all[..(*each).min(all.len())].to_vec(); count],
            Pick::Zipf(each, skew) => self.drawn((*each).min(all.len()), *skew, count),
            Pick::Event => (0..count).map(|client| self.events[client % self.events.len()].clone()).collect(),
            Pick::Ids(ids) => {
                if let Some(unknown) = ids.iter().find(|id| !all.contains(id)) {
                    bail!("{}: the gateway has no market {unknown}; it has such as {}", group.name, all[0]);
                }
                vec![ids.clone(); count]
            }
        };
        let bytes = |markets: &Vec<MarketId>| markets.iter().map(|id| id.len() + 3).sum::<usize>();
        if let Some(most) = follows.iter().max_by_key(|markets| bytes(markets)).filter(|m| bytes(m) > MESSAGE)
        {
            bail!(
                "{}: the names of {} markets are {} bytes, and a gateway takes {MESSAGE} in one message; follow fewer (--markets)",
                group.name,
                most.len(),
                bytes(most)
            );
        }
        if group.transport == Transport::Sse
            && let Some(most) = follows.iter().find(|m| m.len() > MOST_MARKETS || bytes(m) > MOST_NAMES)
        {
            bail!(
                "{}: {} markets with names of {} bytes, and {MOST_MARKETS} of {MOST_NAMES} fit one stream; follow fewer (--markets), or use --transport ws",
                group.name,
                most.len(),
                bytes(most)
            );
        }
        Ok(follows)
    }

    /// So many different ones for each, the first ones more often.
    fn drawn(&self, each: usize, skew: f64, clients: usize) -> Vec<Vec<MarketId>> {
        let mut dice = SmallRng::seed_from_u64(7);
        let weight = |rank: usize| ((rank + 1) as f64).powf(-skew);
        let weights: Vec<f64> = (0..self.markets.len()).map(weight).collect();
        let mut one = || {
            // Of waiting times with these rates the shortest: as if they were drawn one after the other.
            let wait = |weight: &f64| -dice.random_range(f64::MIN_POSITIVE..1.0_f64).ln() / weight;
            let mut waits: Vec<(f64, usize)> = weights.iter().map(wait).zip(0..).collect();
            if each < waits.len() {
                waits.select_nth_unstable_by(each, |a, b| a.0.total_cmp(&b.0));
            }
            waits[..each].iter().map(|(_, number)| self.markets[*number].clone()).collect()
        };
        (0..clients).map(|_| one()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use toml::Table;

    fn group(more: &str) -> Group {
        let text = format!("url = \"ws://h:1\"\n{more}");
        Scenario::read(Some((std::path::Path::new("t.toml"), &text)), &Table::new()).unwrap().groups.remove(0)
    }

    fn catalogue(count: usize) -> Catalogue {
        Catalogue::new((0..count).map(|i| (format!("m{i:03}").as_str().into(), format!("e{}", i / 4))))
    }

    fn names(follows: &[Vec<MarketId>]) -> Vec<String> {
        follows
            .iter()
            .map(|markets| markets.iter().map(|m| m.to_string()).collect::<Vec<_>>().join(" "))
            .collect()
    }

    #[test]
    fn all_are_followed_by_turns() {
        let follows = catalogue(5).follows(&group("clients = 3\nmarkets = 2")).unwrap();
        assert_eq!(names(&follows), ["m000 m001", "m002 m003", "m004 m000"]);
        let follows = catalogue(3).follows(&group("clients = 1\nmarkets = 0")).unwrap();
        assert_eq!(names(&follows), ["m000 m001 m002"]);
    }

    #[test]
    fn hot_is_the_same_for_everyone_and_events_come_whole() {
        let follows = catalogue(5).follows(&group("clients = 2\npick = \"hot\"")).unwrap();
        assert_eq!(names(&follows), ["m000", "m000"]);
        let follows = catalogue(6).follows(&group("clients = 3\npick = \"event\"")).unwrap();
        assert_eq!(names(&follows), ["m000 m001 m002 m003", "m004 m005", "m000 m001 m002 m003"]);
    }

    #[test]
    fn zipf_draws_different_ones_and_the_first_most_often() {
        let follows = catalogue(100).follows(&group("clients = 500\npick = \"zipf\"\nmarkets = 5")).unwrap();
        let of = |name: &str| follows.iter().flatten().filter(|id| ***id == *name).count();
        for markets in &follows {
            let different: std::collections::BTreeSet<_> = markets.iter().collect();
            assert_eq!(different.len(), 5);
        }
        assert!(of("m000") > 250 && of("m000") > of("m004") && of("m099") < 50, "{}", of("m000"));
        let follows = catalogue(4).follows(&group("clients = 2\npick = \"zipf\"\nmarkets = 9")).unwrap();
        assert!(follows.iter().all(|markets| markets.len() == 4));
    }

    #[test]
    fn what_is_not_there_or_too_much_is_refused() {
        let error = catalogue(4).follows(&group("ids = [\"m001\", \"x\"]")).unwrap_err().to_string();
        assert!(error.contains("no market x") && error.contains("m000"), "{error}");
        let error = catalogue(5_000).follows(&group("markets = 0")).unwrap_err().to_string();
        assert!(error.contains("5000 markets") && error.contains("--markets"), "{error}");
        let error =
            catalogue(300).follows(&group("transport = \"sse\"\nmarkets = 0")).unwrap_err().to_string();
        assert!(error.contains("300 markets") && error.contains("200") && error.contains("ws"), "{error}");
    }
}
