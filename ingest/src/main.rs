//! `tictac-ingest`: settings → process log → build → run.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tictac_ingest::admin::{Admin, bind, serve};
use tictac_ingest::clock::now_ms;
use tictac_ingest::config::{Cli, Command, Config, LogFormat, Operation, USAGE, check_rate, check_source};
use tictac_ingest::log::{LogWriter, RedisLog};
use tictac_ingest::operator::{Act, Action};
use tictac_ingest::replay::{ReplayError, ReplaySettings, replay, shown};
use tictac_ingest::service::{GRACE, Ingest, Settings};
use tictac_ingest::simulate::simulate;
use tictac_ingest::{redis_input, simulator, stream_input};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no mistakes.
            let usage = error.use_stderr();
            // Nobody to tell, where this fails.
            let _ = error.print();
            return if usage { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let source = match &cli.command {
        Some(Command::Replay { source, .. }) => check_source(source),
        Some(Command::Simulate { source, rate, .. }) => check_source(source).and_then(|()| check_rate(*rate)),
        _ => Ok(()),
    };
    let config = match source.and_then(|()| cli.common.resolve()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("tictac-ingest: {error}");
            return ExitCode::from(USAGE);
        }
    };
    logs(config.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tictac-ingest: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(act(cli.command.unwrap_or(Command::Run), config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tictac-ingest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn logs(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Human => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Cancelled by the first SIGINT or SIGTERM.
fn stopper() -> anyhow::Result<CancellationToken> {
    let cancel = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = cancel.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    Ok(cancel)
}

async fn act(command: Command, config: Config) -> anyhow::Result<()> {
    let cancel = stopper()?;
    match command {
        Command::Run => run(config, cancel).await,
        Command::Replay { files, source, speed, to_stream } => {
            let redis = config.redis;
            let settings = ReplaySettings { redis, source, to_stream, speed, files, progress: true };
            match replay(settings, cancel).await {
                Ok(done) => {
                    let seconds = done.elapsed.as_secs_f64();
                    println!(
                        "{} lines in {seconds:.1} s ({:.0} a second), {} taken by ingest, {} sent again, {} left out as no JSON",
                        done.lines,
                        done.lines as f64 / seconds.max(0.001),
                        done.taken,
                        done.repeated,
                        done.skipped
                    );
                    Ok(())
                }
                Err(error @ ReplayError::Stopped(_)) => {
                    println!("{error}");
                    Ok(())
                }
                Err(error) => Err(error.into()),
            }
        }
        Command::Operator { what, scope, by, why } => operate(config, what, scope, by, why).await,
        Command::Simulate { source, seed, rate } => {
            let defaults = simulator::Config::default();
            let config_of = simulator::Config {
                rate,
                source: source.as_str().into(),
                prefix: source.as_str().into(),
                ..defaults
            };
            simulate(config.redis, seed, config_of, cancel).await.context("simulating")
        }
    }
}

async fn operate(
    config: Config,
    what: Operation,
    scope: Option<String>,
    by: String,
    why: String,
) -> anyhow::Result<()> {
    let log = LogWriter::from(RedisLog::new(config.redis)?);
    let action = match what {
        Operation::Suspend => Action::Suspend,
        Operation::Resume => Action::Resume,
        Operation::Image => Action::Image,
        Operation::List => {
            let ledger = log.ledger().await?;
            print!("{}", ledger.table(now_ms()));
            return Ok(());
        }
    };
    let scope = scope.context("say of what: all, source:NAME, event:ID or market:ID")?;
    let act = Act { action, scope, by, why, at: now_ms() };
    act.check().map_err(anyhow::Error::msg)?;
    anyhow::ensure!(
        log.act(&act, true).await?,
        "somebody acted on {} later than now: set the clocks right",
        act.scope
    );
    println!("{}: told to every ingest; see `tictac-ingest operator list` and the process log", act.scope);
    Ok(())
}

async fn run(config: Config, cancel: CancellationToken) -> anyhow::Result<()> {
    let listener = bind(config.admin).await.with_context(|| {
        format!("--admin {}: it can't be bound; give a free address, such as 127.0.0.1:0", config.admin)
    })?;
    let mut settings = Settings::new()?;
    settings.engine = config.engine;
    settings.streams = config.streams;
    settings.grace = GRACE;
    let log = RedisLog::new(config.redis.clone())?;
    tracing::info!(
        redis = shown(&config.redis.url),
        prefix = config.redis.prefix,
        shards = settings.engine.shards,
        owner = settings.owner.id,
        admin = %listener.local_addr()?,
        "ingest"
    );
    let metrics = settings.metrics.clone();
    let writer = LogWriter::from(log);
    let (ingest, controls) = Ingest::start(settings, writer.clone(), cancel.clone());
    let admin = Admin { metrics: metrics.clone(), window: ingest.window(), log: writer };
    let port = tokio::spawn(serve(listener, admin, cancel.clone()));
    let streams =
        stream_input::listen(config.redis.clone(), ingest.starts(), ingest.input().clone(), cancel.clone());
    let streams = tokio::spawn(streams);
    let told = async {
        cancel.cancelled().await;
        tracing::info!("stopping");
        Ok(())
    };
    tokio::try_join!(
        told,
        redis_input::run(config.redis, controls, ingest.input().clone(), metrics, cancel.clone())
    )?;
    ingest.finished().await;
    port.await?;
    streams.await??;
    Ok(())
}
