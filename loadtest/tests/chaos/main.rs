//! Faults with real processes: each is made once here, and as often as `TICTAC_CHAOS_RUNS` says, with the long outages, by
//! `make chaos`. Nobody may ever see a wrong price, one that is open for longer than a bound allows, or a loss that was
//! not told. Reports go to the file that `TICTAC_FAULTS_FILE` names, for `tictac-faults`.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod stage;
mod viewer;

use std::io::Write;
use std::time::Duration;

use faults::{Fault, Way};
use support::proxy::Mode;
use support::store::StoreKind;

async fn make(fault: Fault, seed: u64) {
    let runs = std::env::var("TICTAC_CHAOS_RUNS").map_or(1, |runs| runs.parse().unwrap());
    // A source of one kind alone, where one run is looked at again.
    let seed = std::env::var("TICTAC_CHAOS_SEED").map_or(seed, |seed| seed.parse().unwrap());
    for run in 0..runs {
        let report = fault.run(seed + 100 * run).await;
        if let Some(path) = std::env::var_os("TICTAC_FAULTS_FILE") {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            writeln!(file, "{}", report.line()).unwrap();
        }
        report.check();
    }
}

macro_rules! faults {
    ($($(#[$attribute:meta])* $name:ident: $fault:expr, $seed:expr;)*) => {
        $(
            $(#[$attribute])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                make($fault, $seed).await;
            }
        )*
    };
}

/// All ingests and the gateway are replaced one after another while the source goes on: each ingest only when the one before
/// it knows all that it knew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing() {
    let mut stage = stage::Stage::new(StoreKind::One, 30).await;
    for ingest in [0, 1, 0] {
        stage.replace_ingest(ingest).await;
    }
    stage.gateway.signal("TERM");
    assert_eq!(
        tokio::task::block_in_place(|| stage.gateway.wait()),
        Some(0),
        "a gateway that was told to stop"
    );
    stage.restart_gateway();
    let open = stage.until(support::SOON * 2, |shows| shows.should > 0 && shows.open == shows.should).await;
    assert!(open.is_some(), "everybody trades again");
    assert!(stage.settles(support::SOON * 2).await, "all books are the source's");
    assert_eq!(stage.found(), viewer::Found::default());
}

const SLOW: Mode = Mode::Delay(Duration::from_millis(300));

faults! {
    an_ingest_is_killed: Fault::IngestKilled, 1;
    an_ingest_is_stopped_and_revived: Fault::IngestStopped, 2;
    an_ingest_hands_over: Fault::IngestHandsOver, 21;
    a_gateway_is_killed: Fault::GatewayKilled, 3;
    a_gateway_is_stopped_and_revived: Fault::GatewayStopped, 4;
    redis_is_gone_for_4_seconds: Fault::RedisGone(Duration::from_secs(4)), 5;
    redis_forgets: Fault::RedisForgets(Duration::from_secs(4)), 6;
    redis_hangs: Fault::RedisHangs, 7;
    redis_is_full: Fault::RedisFull, 8;
    the_owner_is_cut_off: Fault::Network(Way::OwnerToRedis, Mode::Cut), 9;
    the_owner_is_swallowed: Fault::Network(Way::OwnerToRedis, Mode::Swallow), 10;
    the_owner_is_slow: Fault::Network(Way::OwnerToRedis, SLOW), 11;
    a_gateway_is_cut_off: Fault::Network(Way::GatewayToRedis, Mode::Cut), 12;
    a_gateway_is_swallowed: Fault::Network(Way::GatewayToRedis, Mode::Swallow), 13;
    a_gateway_is_slow: Fault::Network(Way::GatewayToRedis, SLOW), 14;
    clients_are_cut_off: Fault::Network(Way::ClientsToGateway, Mode::Cut), 15;
    clients_are_swallowed: Fault::Network(Way::ClientsToGateway, Mode::Swallow), 16;
    clients_are_slow: Fault::Network(Way::ClientsToGateway, SLOW), 17;
    sentinel_s_master_is_killed: Fault::MasterKilled(StoreKind::Sentinel), 22;
    sentinel_s_master_hangs: Fault::MasterHangs(StoreKind::Sentinel), 23;
    a_cluster_s_master_is_killed: Fault::MasterKilled(StoreKind::Cluster), 24;
    a_cluster_s_master_hangs: Fault::MasterHangs(StoreKind::Cluster), 25;
    #[ignore = "long: make chaos"]
    redis_is_gone_for_25_seconds: Fault::RedisGone(Duration::from_secs(25)), 18;
    #[ignore = "long: make chaos"]
    redis_is_gone_for_120_seconds: Fault::RedisGone(Duration::from_secs(120)), 19;
    #[ignore = "long: make chaos"]
    redis_forgets_for_25_seconds: Fault::RedisForgets(Duration::from_secs(25)), 20;
}
