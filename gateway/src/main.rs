//! tictac-gateway: settings → logs → feed → gateway → wait for a signal.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use tictac_gateway::settings::{LogFormat, Settings, SettingsError};
use tictac_gateway::{admin, gateway::Gateway, source};
use tokio::signal::unix::{SignalKind, signal};

/// It gives back what many clients that came at once needed only for a moment.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of a setting that can't be used (EX_USAGE).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let settings = match Settings::load(std::env::args_os()) {
        Ok(settings) => settings,
        Err(SettingsError::Arguments(error)) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
        Err(SettingsError::File(error)) => {
            eprintln!("error: {error}");
            return ExitCode::from(USAGE);
        }
    };
    start_logs(settings.log);
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logs(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TICTAC_LOG_FILTER")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal();
    let logs =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    match format {
        LogFormat::Human => logs.with_target(false).init(),
        LogFormat::Json => logs.json().init(),
    }
}

fn run(settings: Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let admin_listener = admin::bind(settings.admin)
            .with_context(|| format!("--admin {}: can't be bound; choose another port", settings.admin))?;
        let feed = source::start(&settings)?;
        let what = feed.describe().to_owned();
        let gateway = Gateway::start(settings.clone(), feed.reader())?;
        let admin_address = admin_listener.local_addr()?;
        let (metrics, readiness) = (gateway.metrics.clone(), gateway.readiness.clone());
        tokio::spawn(admin::serve(
            admin_listener,
            metrics,
            readiness,
            gateway.canary.clone(),
            gateway.stopping(),
        ));
        println!("tictac: {what}");
        println!("  board    http://{}", gateway.address);
        println!("  admin    http://{admin_address}/metrics");
        let mut terminate = signal(SignalKind::terminate())?;
        let mut look = tokio::time::interval(std::time::Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => break,
                _ = terminate.recv() => break,
                _ = look.tick() => if gateway.is_broken() {
                    anyhow::bail!("a thread of the gateway has ended: see the log; start it again");
                },
            }
        }
        gateway.stopping().cancel();
        let delay = std::time::Duration::from_millis(u64::from(settings.drain_delay_ms));
        if !delay.is_zero() {
            tracing::info!(?delay, "not ready any more: serving on until then");
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        tracing::info!("stopping: clients are told when to come back");
        tokio::task::spawn_blocking(|| gateway.stop()).await??;
        feed.stop().await;
        Ok(())
    })
}
