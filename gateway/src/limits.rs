//! Limits: who may connect how often, how many at once, and how often clients may ask. Tables are bounded and swept.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::clock::MonotonicClock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tictac_proto::model::MarketId;

use crate::metrics::Metrics;
use crate::settings::Settings;

/// Keys that a limiter remembers at most. While it is full, until the next sweep, only the limits over all hold: who
/// fills it must not lock everybody out.
const MAX_KEYS: usize = 200_000;

/// The limits that all cores share.
#[derive(Debug)]
pub struct Limits {
    connects: DefaultKeyedRateLimiter<IpAddr>,
    requests: DefaultKeyedRateLimiter<IpAddr>,
    markets: DefaultKeyedRateLimiter<MarketId>,
    open: AtomicUsize,
    max_open: usize,
    metrics: Metrics,
}

/// One connection's place among all; given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<Limits>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection was refused: why, and when to come back, ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Which limit.
    pub limit: &'static str,
    /// For people.
    pub why: &'static str,
    /// When to come back, ms.
    pub retry: u64,
}

fn quota(per_second: u32) -> Quota {
    let rate = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(rate).allow_burst(rate.saturating_mul(NonZeroU32::new(2).unwrap_or(NonZeroU32::MIN)))
}

/// The key of an address: an IPv6 network of 64 bits counts as one, and an IPv4 address in IPv6 clothes as itself.
#[must_use]
pub fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

impl Limits {
    /// The limits of these settings.
    #[must_use]
    pub fn new(settings: &Settings, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            connects: RateLimiter::keyed(quota(settings.connects_per_ip)),
            requests: RateLimiter::keyed(quota(settings.requests_per_ip)),
            markets: RateLimiter::keyed(quota(settings.snapshots_per_market)),
            open: AtomicUsize::new(0),
            max_open: settings.max_connections,
            metrics,
        })
    }

    /// Takes a place for a connection from this address.
    ///
    /// # Errors
    /// If the address connects too often, or there are too many connections.
    pub fn connect(self: &Arc<Self>, address: IpAddr) -> Result<Place, Refusal> {
        let key = address_key(address);
        if self.connects.len() < MAX_KEYS && self.connects.check_key(&key).is_err() {
            return Err(self.refuse("connects_per_ip", "too many connects from this address", 1_000));
        }
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max_open {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(self.refuse("max_connections", "the gateway is full", 5_000));
        }
        Ok(Place(self.clone()))
    }

    /// Whether one more question of this address may go to the feed.
    ///
    /// # Errors
    /// If it asks too often.
    pub fn request(&self, address: IpAddr) -> Result<(), Refusal> {
        let key = address_key(address);
        if self.requests.len() < MAX_KEYS && self.requests.check_key(&key).is_err() {
            return Err(self.refuse("requests_per_ip", "too many requests from this address", 1_000));
        }
        Ok(())
    }

    /// Whether one more snapshot of a market may be made.
    ///
    /// # Errors
    /// If it was asked for too often.
    pub fn snapshot(&self, market: &MarketId) -> Result<(), Refusal> {
        if self.markets.len() < MAX_KEYS && self.markets.check_key(market).is_err() {
            return Err(self.refuse("snapshots_per_market", "too many snapshots of this market", 1_000));
        }
        Ok(())
    }

    fn refuse(&self, limit: &'static str, why: &'static str, retry: u64) -> Refusal {
        self.metrics.limited.with_label_values(&[limit]).inc();
        Refusal { limit, why, retry }
    }

    /// Counts a refusal that one connection's own limiter made.
    pub fn count(&self, limit: &'static str) {
        self.metrics.limited.with_label_values(&[limit]).inc();
    }

    /// Forgets keys that are as good as new. Call it every few seconds.
    pub fn sweep(&self) {
        self.connects.retain_recent();
        self.connects.shrink_to_fit();
        self.requests.retain_recent();
        self.requests.shrink_to_fit();
        self.markets.retain_recent();
        self.markets.shrink_to_fit();
    }

    /// Connections now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// With the plain clock: the default one keeps its calibration in each limiter, and there are two a connection.
type Limiter = RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// One connection's own limits.
#[derive(Debug)]
pub struct Pace {
    messages: Limiter,
    snapshots: Limiter,
    refused: u32,
}

impl Pace {
    /// The limits of one connection.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            messages: RateLimiter::direct_with_clock(quota(settings.messages), MonotonicClock),
            snapshots: RateLimiter::direct_with_clock(quota(settings.snapshots), MonotonicClock),
            refused: 0,
        }
    }

    /// Whether a message may be read; the error says how many were refused in a row.
    ///
    /// # Errors
    /// If there were too many lately.
    pub fn message(&mut self) -> Result<(), u32> {
        match self.messages.check() {
            Ok(()) => {
                self.refused = 0;
                Ok(())
            }
            Err(_) => {
                self.refused += 1;
                Err(self.refused)
            }
        }
    }

    /// Whether a snapshot may be asked for.
    #[must_use]
    pub fn snapshot(&self) -> bool {
        self.snapshots.check().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn addresses_count_by_network() {
        let key = |a: &str| address_key(a.parse().unwrap());
        assert_eq!(key("2001:db8:1:2:aaaa::1"), key("2001:db8:1:2:bbbb::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let settings = Settings::parse_from(["t", "--max-connections", "2", "--connects-per-ip", "100"]);
        let limits = Limits::new(&settings, Metrics::new());
        let address = "192.0.2.1".parse().unwrap();
        let first = limits.connect(address).unwrap();
        let _second = limits.connect(address).unwrap();
        assert_eq!(limits.connect(address).unwrap_err().limit, "max_connections");
        drop(first);
        assert!(limits.connect(address).is_ok());
    }

    #[test]
    fn one_address_may_not_ask_without_end_and_others_do_not_care() {
        let settings = Settings::parse_from(["t", "--requests-per-ip", "5"]);
        let limits = Limits::new(&settings, Metrics::new());
        let address = "192.0.2.1".parse().unwrap();
        let taken = (0..100).filter(|_| limits.request(address).is_ok()).count();
        assert!((5..20).contains(&taken), "{taken} requests were taken");
        assert_eq!(limits.request(address).unwrap_err().limit, "requests_per_ip");
        assert!(limits.request("192.0.2.2".parse().unwrap()).is_ok());
    }

    #[test]
    fn one_address_may_not_connect_without_end_and_others_do_not_care() {
        let settings = Settings::parse_from(["t", "--connects-per-ip", "5"]);
        let limits = Limits::new(&settings, Metrics::new());
        let address = "192.0.2.1".parse().unwrap();
        let taken = (0..100).filter(|_| limits.connect(address).is_ok()).count();
        assert!((5..20).contains(&taken), "{taken} connects were taken");
        assert!(limits.connect("192.0.2.2".parse().unwrap()).is_ok());
    }
}
