//! The faults: how each is made, how it is known to be detected, how it ends.

use std::time::{Duration, Instant};

use serde_json::json;

use super::stage::Stage;
use super::viewer::{OPEN_FOR, Shows};
use crate::support::proxy::{Mode, Proxy};
use crate::support::store::StoreKind;

/// What a takeover may take.
const TAKEOVER: Duration = Duration::from_secs(2);
/// What it may take until everybody trades everything again.
const CONVERGE: Duration = Duration::from_secs(5);
/// The same after Redis came back.
const CONVERGE_AFTER_REDIS: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(60);

/// A way between two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    OwnerToRedis,
    GatewayToRedis,
    ClientsToGateway,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    IngestKilled,
    IngestStopped,
    /// It is told to stop and gives its shards to the one that stands by.
    IngestHandsOver,
    GatewayKilled,
    GatewayStopped,
    /// Comes back with what it had saved.
    RedisGone(Duration),
    RedisForgets(Duration),
    RedisHangs,
    RedisFull,
    /// A replica takes its place; it comes back as a replica.
    MasterKilled(StoreKind),
    MasterHangs(StoreKind),
    Network(Way, Mode),
}

/// How it is known that a fault was detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// Nobody can trade anything.
    Untradable,
    /// Nobody can trade some of what is open.
    Partly,
    /// Somebody else owns every shard.
    NewOwner,
    /// It need not be noticed.
    Nothing,
}

/// What came of one fault.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) fault: Fault,
    pub(crate) detected: Option<Duration>,
    pub(crate) converged: Option<Duration>,
    pub(crate) wrong: u64,
    pub(crate) stale_open: u64,
    pub(crate) undeclared: u64,
}

const STOPPED: Duration = Duration::from_secs(5);

impl Fault {
    pub(crate) fn name(self) -> String {
        match self {
            Self::IngestKilled => "owning ingest killed (SIGKILL)".into(),
            Self::IngestStopped => "owning ingest stopped and revived (SIGSTOP, SIGCONT)".into(),
            Self::IngestHandsOver => "owning ingest told to stop (SIGTERM): planned hand-over".into(),
            Self::GatewayKilled => "gateway killed (SIGKILL) and started again".into(),
            Self::GatewayStopped => "gateway stopped and revived (SIGSTOP, SIGCONT)".into(),
            Self::RedisGone(time) => format!("Redis gone for {} s, back with a save", time.as_secs()),
            Self::RedisForgets(time) => {
                format!("Redis gone for {} s, back with empty memory", time.as_secs())
            }
            Self::RedisHangs => "Redis stopped and revived (SIGSTOP, SIGCONT)".into(),
            Self::RedisFull => "Redis at maxmemory".into(),
            Self::MasterKilled(kind) => format!("{kind:?}: a master killed (SIGKILL), back as a replica"),
            Self::MasterHangs(kind) => format!("{kind:?}: a master stopped and revived (SIGSTOP, SIGCONT)"),
            Self::Network(way, mode) => {
                let way = match way {
                    Way::OwnerToRedis => "owning ingest ↔ Redis",
                    Way::GatewayToRedis => "gateway ↔ Redis",
                    Way::ClientsToGateway => "clients ↔ gateway",
                };
                let mode = match mode {
                    Mode::Swallow => "black hole".to_owned(),
                    Mode::Cut => "cut".into(),
                    Mode::Delay(delay) => format!("{} ms delay", delay.as_millis()),
                    Mode::Pass => "nothing".into(),
                };
                format!("network, {way}: {mode}")
            }
        }
    }

    fn sign(self) -> Sign {
        match self {
            Self::IngestKilled | Self::IngestStopped | Self::IngestHandsOver => Sign::NewOwner,
            Self::Network(_, Mode::Delay(_) | Mode::Pass) => Sign::Nothing,
            Self::Network(Way::OwnerToRedis, _) => Sign::NewOwner,
            Self::MasterKilled(_) | Self::MasterHangs(_) => Sign::Partly,
            _ => Sign::Untradable,
        }
    }

    /// How long it lasts, `None` for ever.
    fn lasts(self) -> Option<Duration> {
        match self {
            Self::IngestKilled | Self::IngestHandsOver | Self::GatewayKilled => None,
            Self::RedisGone(time) | Self::RedisForgets(time) => Some(time),
            _ => Some(STOPPED),
        }
    }

    fn store(self) -> StoreKind {
        match self {
            Self::MasterKilled(kind) | Self::MasterHangs(kind) => kind,
            _ => StoreKind::One,
        }
    }

    fn is_of_redis(self) -> bool {
        matches!(self, Self::RedisGone(_) | Self::RedisForgets(_) | Self::RedisHangs | Self::RedisFull)
    }

    async fn begin(self, stage: &mut Stage) {
        match self {
            Self::IngestKilled => stage.ingests[0].kill(),
            Self::IngestStopped => stage.ingests[0].signal("STOP"),
            Self::IngestHandsOver => stage.ingests[0].signal("TERM"),
            Self::GatewayKilled => stage.gateway.kill(),
            Self::GatewayStopped => stage.gateway.signal("STOP"),
            Self::RedisGone(_) => {
                stage.store.one().command(&[b"SAVE"]).unwrap();
                stage.store.one().kill();
            }
            Self::RedisForgets(_) => stage.store.one().kill(),
            Self::RedisHangs => stage.store.one().hang(true),
            Self::MasterKilled(_) => stage.store.master_of(0).kill(),
            Self::MasterHangs(_) => stage.store.master_of(0).hang(true),
            Self::RedisFull => {
                drop(stage.store.one().command(&[b"CONFIG", b"SET", b"maxmemory", b"1mb"]).unwrap())
            }
            Self::Network(way, mode) => proxy(stage, way).set(mode),
        }
    }

    async fn end(self, stage: &mut Stage) {
        match self {
            Self::IngestKilled => {}
            Self::IngestHandsOver => {
                let code = tokio::task::block_in_place(|| stage.ingests[0].wait());
                assert_eq!(code, Some(0), "an ingest that was told to stop");
            }
            Self::IngestStopped => stage.ingests[0].signal("CONT"),
            Self::GatewayKilled => stage.restart_gateway(),
            Self::GatewayStopped => stage.gateway.signal("CONT"),
            Self::RedisGone(_) | Self::RedisForgets(_) => stage.store.one().restart().unwrap(),
            Self::RedisHangs => stage.store.one().hang(false),
            Self::MasterKilled(_) | Self::MasterHangs(_) => {
                tokio::task::block_in_place(|| stage.store.revive());
            }
            Self::RedisFull => {
                drop(stage.store.one().command(&[b"CONFIG", b"SET", b"maxmemory", b"0"]).unwrap())
            }
            Self::Network(way, _) => proxy(stage, way).set(Mode::Pass),
        }
    }

    /// Makes it, waits until it is seen, ends it, waits until all is well again.
    pub(crate) async fn run(self, seed: u64) -> Report {
        let mut stage = Stage::new(self.store(), seed).await;
        let epochs = stage.shards.epochs().await;
        let begun = Instant::now();
        self.begin(&mut stage).await;
        let detected = match self.sign() {
            Sign::Untradable => stage.until(LONG, |shows| shows.open == 0).await,
            Sign::Partly => stage.until(LONG, |shows| shows.open < shows.should).await,
            Sign::NewOwner => Some(stage.shards.until_newer(&epochs).await),
            Sign::Nothing => None,
        };
        let mut late = u64::from(self.sign() != Sign::Nothing && detected.is_none());
        let well = |shows: &Shows| shows.should > 0 && shows.open == shows.should;
        let mut converged = None;
        if matches!(self.sign(), Sign::NewOwner | Sign::Partly) {
            // A takeover makes it well though the fault lasts.
            converged = stage.until(LONG, well).await.map(|_| begun.elapsed());
        }
        if let Some(lasts) = self.lasts() {
            // What is not to be traded stays so.
            let mut looks = tokio::time::interval(Duration::from_millis(20));
            while begun.elapsed() < lasts {
                looks.tick().await;
                let out = self.sign() == Sign::Untradable && begun.elapsed() > OPEN_FOR;
                late += u64::from(out && stage.open() > 0 && late == 0);
            }
        }
        self.end(&mut stage).await;
        let again = stage.until(LONG, well).await;
        late += u64::from(again.is_none());
        if self.sign() == Sign::Untradable {
            converged = again;
        }
        // It goes on for a while, then everybody must have all of it.
        stage.goes_on(20).await;
        let settled = stage.settles(LONG).await;
        let found = stage.found();
        Report {
            fault: self,
            detected,
            converged,
            wrong: found.wrong + u64::from(!settled),
            stale_open: found.stale_open + late,
            undeclared: found.undeclared,
        }
    }

    fn bounds(self) -> (Duration, Duration) {
        let detect = if self.sign() == Sign::NewOwner { TAKEOVER } else { OPEN_FOR };
        (detect, if self.is_of_redis() { CONVERGE_AFTER_REDIS } else { CONVERGE })
    }
}

fn proxy(stage: &Stage, way: Way) -> &Proxy {
    match way {
        Way::OwnerToRedis => &stage.ways.as_ref().expect("one server").ingests[0],
        Way::GatewayToRedis => &stage.ways.as_ref().expect("one server").gateway,
        Way::ClientsToGateway => &stage.to_gateway,
    }
}

impl Report {
    /// What must always hold; and, where nothing else runs, the times.
    pub(crate) fn check(&self) {
        eprintln!("{self:?}");
        assert_eq!((self.wrong, self.stale_open, self.undeclared), (0, 0, 0), "{}", self.fault.name());
        let (detect, converge) = self.fault.bounds();
        if let Some(detected) = self.detected {
            crate::support::took(&format!("{}: detected", self.fault.name()), detected, detect);
        }
        if let Some(converged) = self.converged {
            crate::support::took(&format!("{}: converged", self.fault.name()), converged, converge);
        }
        assert!(
            self.fault.sign() == Sign::Nothing || self.converged.is_some(),
            "{} never ends",
            self.fault.name()
        );
    }

    /// One line for the table of faults.
    pub(crate) fn line(&self) -> String {
        let ms = |time: Option<Duration>| time.map(|t| t.as_millis() as u64);
        let (detect, converge) = self.fault.bounds();
        json!({
            "kind": "real",
            "fault": self.fault.name(),
            "detect_ms": ms(self.detected),
            "converge_ms": ms(self.converged),
            "bounds_ms": [detect.as_millis() as u64, converge.as_millis() as u64],
            "wrong": self.wrong,
            "stale_open": self.stale_open,
            "undeclared": self.undeclared,
        })
        .to_string()
    }
}
