//! tictac-loadtest: opens clients, keeps and checks every book, and says how it went.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use tictac_loadtest::commands;
use tictac_loadtest::compare::compare_with_document;
use tictac_loadtest::follow::Counts;
use tictac_loadtest::settings::{Settings, SettingsError};
use tictac_loadtest::websocket::WsClient;
use tictac_proto::model::{MarketId, View};
use tictac_proto::wire::{Codec, Conflate, Down, Resume};

/// Why nothing was begun, and the code to exit with: 64 for a bad setting.
fn refused(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell where standard error is closed.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 64 } else { 0 })
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).and_then(|name| name.to_str()).is_some_and(|name| commands::NAMES.contains(&name)) {
        return match commands::run(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let settings = match Settings::load(std::env::args_os()) {
        Ok(settings) => settings,
        Err(SettingsError::Arguments(error)) => return refused(&error),
        Err(SettingsError::File(why)) => {
            eprintln!("error: {why}");
            return ExitCode::from(64);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(settings)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Outcome {
    counts: Counts,
    latencies: Vec<i64>,
    wrong: Vec<String>,
}

fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

async fn client(address: String, markets: Vec<MarketId>, settings: Plan) -> anyhow::Result<Outcome> {
    tokio::time::sleep_until(tokio::time::Instant::from_std(settings.start)).await;
    let mut client = WsClient::connect(&address, settings.codec, "").await.context(
        "not let in; if it says 503, the gateway limits connects from one address: see --ramp and its --connects-per-ip",
    )?;
    client.subscribe(&markets, settings.view, settings.conflate, Resume::default()).await?;
    let mut latencies = Vec::new();
    let end = tokio::time::Instant::from_std(settings.end);
    while let Ok(step) = tokio::time::timeout_at(end, client.step()).await {
        match step? {
            Some(Down::Delta(head, _)) if head.times.source > 0 => {
                latencies.push(wall_ms() - head.times.source)
            }
            Some(_) => {}
            None => bail!("the gateway closed with {:?}", client.closed),
        }
    }
    let mut wrong = Vec::new();
    if settings.compares {
        for market in &markets {
            if let Err(error) = compare_with_document(&mut client, &address, market, settings.view).await {
                wrong.push(format!("{error:#}"));
            }
        }
    }
    Ok(Outcome { counts: client.followed.counts, latencies, wrong })
}

#[derive(Clone)]
struct Plan {
    codec: Codec,
    view: View,
    conflate: Conflate,
    start: Instant,
    end: Instant,
    compares: bool,
}

async fn discover(address: &str) -> anyhow::Result<Vec<MarketId>> {
    let mut first = WsClient::connect(address, Codec::Json, "?catalogue=1").await?;
    first
        .until(Duration::from_secs(10), "the catalogue", |f| !f.catalogue.is_empty())
        .await
        .context("the gateway has no market")?;
    Ok(first.followed.catalogue.keys().cloned().collect())
}

async fn run(settings: Settings) -> anyhow::Result<bool> {
    let address = settings.address()?;
    let all = discover(&address).await?;
    let each = if settings.markets == 0 { all.len() } else { settings.markets.min(all.len()) };
    println!("{} markets at {address}; {} clients follow {each} each", all.len(), settings.clients);
    let ramp = f64::from(settings.clients) / f64::from(settings.ramp);
    let began = Instant::now();
    let mut plan = Plan {
        codec: if settings.msgpack { Codec::Msgpack } else { Codec::Json },
        view: settings.view,
        conflate: settings.conflate,
        start: Instant::now(),
        end: Instant::now() + Duration::from_secs_f64(settings.seconds as f64 + ramp),
        compares: false,
    };
    let started = Instant::now();
    let tasks: Vec<_> = (0..settings.clients as usize)
        .map(|i| {
            let markets = (0..each).map(|k| all[(i * each + k) % all.len()].clone()).collect();
            // A few compare their final books with the gateway's documents; more would only ask for the same.
            plan.compares = i < 3;
            plan.start = began + Duration::from_secs_f64(i as f64 / f64::from(settings.ramp));
            tokio::spawn(client(address.clone(), markets, plan.clone()))
        })
        .collect();
    let mut sum = Counts::default();
    let (mut latencies, mut wrong, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for task in tasks {
        match task.await? {
            Ok(outcome) => {
                sum.add(&outcome.counts);
                latencies.extend(outcome.latencies);
                wrong.extend(outcome.wrong);
            }
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    let took = started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at =
        |share: f64| latencies.get(((latencies.len() as f64 - 1.0) * share) as usize).copied().unwrap_or(0);
    println!("  messages   {:>12}   {:>10.0}/s", sum.messages, sum.messages as f64 / took);
    println!("  deltas     {:>12}   {:>10.0}/s", sum.deltas, sum.deltas as f64 / took);
    println!("  snapshots  {:>12}   {:>12}", sum.snapshots, format!("{} stops", sum.stops));
    println!("  source → client   p50 {} ms   p99 {} ms   max {} ms", at(0.5), at(0.99), at(1.0));
    println!("  checksums  {:>12} agree, {} do not", sum.checked, sum.mismatches);
    println!("  digests    {:>12} agree, {} do not", sum.digests, sum.digest_mismatches);
    println!("  gaps       {:>12} of them {} declared", sum.gaps, sum.declared);
    for problem in wrong.iter().chain(&failed).take(10) {
        println!("  WRONG      {problem}");
    }
    let good = wrong.is_empty()
        && failed.is_empty()
        && sum.mismatches == 0
        && sum.digest_mismatches == 0
        && sum.gaps == sum.declared
        && sum.deltas > 0;
    println!("{}", if good { "every book is right" } else { "FAILED" });
    Ok(good)
}
