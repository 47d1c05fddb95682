//! The gateway as it is, in a process that a measurement can tell what to bring: its updates come in through the in-process
//! log, so that no Redis is measured, or the whole way from a PUBLISH to a Redis of its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tictac_gateway::gateway::Gateway;
use tictac_gateway::settings::Settings;
use tictac_ingest::log::MemorySettings;
use tictac_ingest::update::Update;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::logged::Logged;
use crate::orders::{Order, Orders};
use crate::published::Published;
use crate::pulse::{self, Pulse, now_us};
use crate::request::get;

/// The room of a shard's log.
const LOG: MemorySettings =
    MemorySettings { entries: 16_384, bytes: 64 << 20, lease: Duration::from_secs(3) };
/// How long the gateway may take until it serves them.
const LISTED_WITHIN: Duration = Duration::from_secs(30);
/// Changes that are due within this of a message go with the next one, as sources do it, µs; they count as late from when they
/// were due all the same. Stops do not wait.
const GAP: i64 = 1_000;
/// Markets imaged in one message.
const IMAGES: usize = 64;

/// Serves until it is told to quit. What is told is published to the Redis of the settings, or written to the in-process log where
/// they name none.
///
/// # Errors
/// If the gateway can't be started, or ingest or Redis is not there any more.
pub fn serve(settings: Settings, orders: &Orders) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let cancel = CancellationToken::new();
    let (mut outlet, log) = if settings.redis.is_some() {
        let published = Published::start(&runtime, &settings, LOG.entries as u64, &cancel)?;
        let log = published.log();
        (Outlet::Redis(Box::new(published)), log)
    } else {
        let logged = Logged::start(&runtime, settings.shards, LOG, &cancel)?;
        let log = logged.log();
        (Outlet::Log(logged), log)
    };
    let gateway = runtime.block_on(async { Gateway::start(settings, log) })?;
    println!("listening {}", gateway.address);
    loop {
        match orders.wait() {
            Order::Markets(count) => {
                let images: Vec<Update> = (0..count).map(pulse::image).collect();
                for some in images.chunks(IMAGES) {
                    outlet.say(&runtime, some.to_vec(), now_us())?;
                }
                runtime.block_on(listed(&gateway.address.to_string(), count))?;
                println!("ready {count}");
            }
            Order::Pulse { rate, seconds, markets, skew, stops, width } => {
                let (time, begun) = (Duration::from_secs_f64(seconds), now_us());
                let stops = (stops > 0.0).then(|| Stops { next: begun, gap: 1e6 / stops, is_open: true });
                let count =
                    outlet.pulse(&runtime, Pulse::new(begun, rate, time, markets, skew), stops, width)?;
                println!("done {count}");
            }
            Order::Quit => break,
        }
    }
    gateway.stop()?;
    cancel.cancel();
    outlet.end(&runtime)
}

/// Until the gateway serves the last of so many markets, and so all: they come to it in order.
async fn listed(address: &str, count: usize) -> anyhow::Result<()> {
    let Some(last) = count.checked_sub(1) else { return Ok(()) };
    let path = format!("/v1/markets/{}", pulse::market(last));
    let begun = Instant::now();
    while get(address, &path, &[]).await?.status != 200 {
        ensure!(begun.elapsed() < LISTED_WITHIN, "the gateway does not serve {path} after {LISTED_WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Where what is due is told.
enum Outlet {
    Log(Logged),
    Redis(Box<Published>),
}

impl Outlet {
    fn say(&mut self, runtime: &Runtime, updates: Vec<Update>, at: i64) -> anyhow::Result<()> {
        match self {
            Self::Log(logged) => logged.say(runtime, updates, at / 1_000),
            Self::Redis(published) => published.say(&updates, at / 1_000),
        }
    }

    fn end(self, runtime: &Runtime) -> anyhow::Result<()> {
        match self {
            Self::Log(_) => Ok(()),
            Self::Redis(published) => published.end(runtime),
        }
    }

    /// Says what is due, when it is due, until there is no more; in the end the first market is open.
    fn pulse(
        &mut self,
        runtime: &Runtime,
        mut pulse: Pulse,
        mut stops: Option<Stops>,
        width: usize,
    ) -> anyhow::Result<u64> {
        let (mut due, mut earliest) = (VecDeque::new(), i64::MIN);
        while let Some(next) = pulse.next_due() {
            let next = next.max(earliest);
            let next = stops.as_ref().map_or(next, |stops| next.min(stops.next));
            let now = now_us();
            if next > now {
                std::thread::sleep(Duration::from_micros(u64::try_from(next - now).unwrap_or(0)));
            }
            if let Some((update, at)) = stops.as_mut().and_then(|stops| stops.take_due(now_us())) {
                self.say(runtime, vec![update], at)?;
            }
            if now_us() < earliest {
                continue;
            }
            pulse.take_due(now_us(), &mut due);
            let (mut updates, mut first) = (Vec::with_capacity(due.len()), None);
            for (i, (market, at)) in due.drain(..).enumerate() {
                first.get_or_insert(at);
                updates.push(pulse::change(market, at, pulse.count() + i as u64, width));
            }
            if let Some(first) = first {
                self.say(runtime, updates, first)?;
                earliest = now_us() + GAP;
            }
        }
        if stops.is_some_and(|stops| !stops.is_open) {
            self.say(runtime, vec![pulse::open(0)], now_us())?;
        }
        Ok(pulse.count())
    }
}

/// The first market is stopped again and again, and open half of the time.
struct Stops {
    /// When the next stop, or opening, is due, µs since 1970.
    next: i64,
    /// From a stop to the next, µs.
    gap: f64,
    is_open: bool,
}

impl Stops {
    /// What is due by now, and when it was.
    fn take_due(&mut self, now: i64) -> Option<(Update, i64)> {
        let due = self.next;
        if now < due {
            return None;
        }
        let update = if self.is_open { pulse::stop(0, due) } else { pulse::open(0) };
        self.is_open = !self.is_open;
        self.next += (self.gap / 2.0) as i64;
        Some((update, due))
    }
}
