//! Settings: flags, environment (`TICTAC_*`) and a TOML file (`--config`), one set of names. A flag beats the
//! environment, the environment beats the file, the file beats the default.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use tictac_ingest::pacing::Speed;
use tictac_ingest::settings_file::with_file;

const EXAMPLES: &str = "\
Examples:
  tictac-gateway                                  a market simulator inside, the board at http://127.0.0.1:8080
  tictac-gateway --replay day.mcm.bz2 --speed 10  a recording inside, ten times as fast
  tictac-gateway --redis redis://127.0.0.1:6379   production: follow what tictac-ingest writes to Redis

Every flag has a variable (--listen is TICTAC_LISTEN) and a key in the file given by --config (listen = \"…\").";

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Everything that can be set.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "tictac-gateway",
    version,
    about = "Fans live odds out to browsers, and says when they can't be trusted.",
    long_about = "Fans live odds out to browsers over WebSocket, SSE and HTTP. Without --redis it brings its own feed: \
                  a market simulator, or a recording given by --replay.",
    after_help = EXAMPLES,
    args_override_self = true
)]
pub struct Settings {
    /// Address for clients and pages.
    #[arg(
        long,
        env = "TICTAC_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8080",
        help_heading = "Addresses"
    )]
    pub listen: SocketAddr,
    /// Address for /metrics, /healthz and /readyz: not for the public.
    #[arg(
        long,
        env = "TICTAC_ADMIN",
        value_name = "ADDR",
        default_value = "127.0.0.1:9090",
        help_heading = "Addresses"
    )]
    pub admin: SocketAddr,
    /// A TOML file with any of these settings.
    #[arg(long, env = "TICTAC_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Follow the log that tictac-ingest keeps in this Redis: redis://HOST:PORT; the master that Sentinels name,
    /// redis+sentinel://HOST:PORT,HOST:PORT/MASTER; a Cluster, redis+cluster://HOST:PORT,HOST:PORT. With TLS rediss….
    #[arg(long, env = "TICTAC_REDIS", value_name = "URL", conflicts_with = "replay", help_heading = "Feed")]
    pub redis: Option<String>,
    /// Certificates (PEM) that may have signed Redis's; without it those that the system trusts.
    #[arg(long, env = "TICTAC_REDIS_CA", value_name = "FILE", help_heading = "Feed")]
    pub redis_ca: Option<PathBuf>,
    /// Our certificate (PEM), where Redis wants one; with --redis-key.
    #[arg(long, env = "TICTAC_REDIS_CERT", value_name = "FILE", help_heading = "Feed")]
    pub redis_cert: Option<PathBuf>,
    /// The key (PEM) of our certificate.
    #[arg(long, env = "TICTAC_REDIS_KEY", value_name = "FILE", help_heading = "Feed")]
    pub redis_key: Option<PathBuf>,
    /// Prefix of all keys and channels in Redis.
    #[arg(long, env = "TICTAC_PREFIX", default_value = "odds", help_heading = "Feed")]
    pub prefix: String,
    /// Number of shards; must be what ingest uses.
    #[arg(long, env = "TICTAC_SHARDS", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Feed")]
    pub shards: u16,
    /// Play a recording (.mcm, .bz2, .gz) instead of the simulator.
    #[arg(long, env = "TICTAC_REPLAY", value_name = "FILE", help_heading = "Feed")]
    pub replay: Option<PathBuf>,
    /// How fast a recording plays: a factor, or `max`.
    #[arg(long, env = "TICTAC_SPEED", default_value = "1", help_heading = "Feed")]
    pub speed: Speed,
    /// Seed of the simulator.
    #[arg(long, env = "TICTAC_SEED", default_value_t = 2011, help_heading = "Feed")]
    pub seed: u64,
    /// How busy the simulator's markets are: 1 is about a hundred updates a second.
    #[arg(long, env = "TICTAC_RATE", default_value_t = 1.0, value_parser = rate, help_heading = "Feed")]
    pub rate: f64,

    /// Socket threads; 0 takes one for each CPU.
    #[arg(long, env = "TICTAC_CORES", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64), help_heading = "Delivery")]
    pub cores: u16,
    /// Heartbeat interval, ms.
    #[arg(long, env = "TICTAC_HEARTBEAT_MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(500..=5000), help_heading = "Delivery")]
    pub heartbeat_ms: u32,
    /// Least ms between two checksums of a market and view; 0 sends one after every delta.
    #[arg(long, env = "TICTAC_CHECKSUM_MS", default_value_t = 5000, help_heading = "Delivery")]
    pub checksum_ms: u32,
    /// Send buffer of a client's socket, bytes: what a slow client can have in flight.
    #[arg(long, env = "TICTAC_SEND_BUFFER", default_value_t = 128 * 1024, value_parser = clap::value_parser!(u32).range(4096..), help_heading = "Delivery")]
    pub send_buffer: u32,
    /// A client that takes nothing for so long is closed with 4290, ms.
    #[arg(long, env = "TICTAC_SLOW_MS", default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(1000..), help_heading = "Delivery")]
    pub slow_ms: u32,
    /// How long a gateway that was told to stop still serves, not ready, before it sends its clients away, ms: as long as a
    /// load balancer takes to notice. A second signal cuts it short.
    #[arg(long, env = "TICTAC_DRAIN_DELAY_MS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=600_000), help_heading = "Delivery")]
    pub drain_delay_ms: u32,

    /// Most connections at once.
    #[arg(long, env = "TICTAC_MAX_CONNECTIONS", default_value_t = 50_000, help_heading = "Limits")]
    pub max_connections: usize,
    /// Connects a second from one address (IPv6: from one /64).
    #[arg(long, env = "TICTAC_CONNECTS_PER_IP", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Limits")]
    pub connects_per_ip: u32,
    /// Questions a second (GET /v1/markets…) from one address (IPv6: from one /64).
    #[arg(long, env = "TICTAC_REQUESTS_PER_IP", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Limits")]
    pub requests_per_ip: u32,
    /// Messages a second from one client.
    #[arg(long, env = "TICTAC_MESSAGES", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Limits")]
    pub messages: u32,
    /// Snapshots a second that one client may ask for.
    #[arg(long, env = "TICTAC_SNAPSHOTS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Limits")]
    pub snapshots: u32,
    /// Snapshots a second of one market, over all clients of a core and all HTTP requests.
    #[arg(long, env = "TICTAC_SNAPSHOTS_PER_MARKET", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Limits")]
    pub snapshots_per_market: u32,
    /// Subscriptions of one client.
    #[arg(long, env = "TICTAC_SUBSCRIPTIONS", default_value_t = 1000, help_heading = "Limits")]
    pub subscriptions: usize,
    /// Largest message of a client, bytes.
    #[arg(long, env = "TICTAC_MESSAGE_BYTES", default_value_t = 16 * 1024, value_parser = clap::value_parser!(u32).range(256..=1_048_576), help_heading = "Limits")]
    pub message_bytes: u32,

    /// How a log line looks.
    #[arg(long, env = "TICTAC_LOG", value_enum, default_value_t = LogFormat::Human)]
    pub log: LogFormat,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(v) if v.is_finite() && v > 0.0 && v <= 100_000.0 => Ok(v),
        _ => Err("a rate is a factor above 0 and at most 100000".into()),
    }
}

/// Why the settings can't be used; the program exits with 64.
#[derive(Debug)]
pub enum SettingsError {
    /// From the command line or the environment, or a request for help.
    Arguments(Box<clap::Error>),
    /// From the file.
    File(String),
}

impl Settings {
    /// Reads settings from arguments, environment and file.
    ///
    /// # Errors
    /// If one has a value that it can't have, or the file can't be read.
    pub fn load(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, SettingsError> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let wrong = |e| SettingsError::Arguments(Box::new(e));
        let first = Self::try_parse_from(&arguments).map_err(wrong)?;
        let Some(path) = &first.config else { return Ok(first) };
        let all = with_file(path, arguments).map_err(SettingsError::File)?;
        Self::try_parse_from(all).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(arguments: &[&str]) -> Result<Settings, SettingsError> {
        Settings::load(std::iter::once("tictac-gateway").chain(arguments.iter().copied()).map(OsString::from))
    }

    #[test]
    fn the_defaults_need_nothing() {
        let settings = load(&[]).unwrap();
        assert_eq!(settings.listen.port(), 8080);
        assert!(settings.redis.is_none());
    }

    #[test]
    fn a_flag_beats_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "shards = 8\nheartbeat_ms = 700\nspeed = \"max\"\n").unwrap();
        let config = format!("--config={}", file.path().display());
        let settings = load(&[&config, "--shards", "16"]).unwrap();
        assert_eq!((settings.shards, settings.heartbeat_ms, settings.speed), (16, 700, Speed::Max));
    }

    #[test]
    fn a_bad_setting_names_itself() {
        for (arguments, name) in [
            (vec!["--heartbeat-ms", "10"], "--heartbeat-ms"),
            (vec!["--speed=-1"], "--speed"),
            (vec!["--listen", "nowhere"], "--listen"),
        ] {
            let Err(SettingsError::Arguments(error)) = load(&arguments) else {
                panic!("{arguments:?} was taken")
            };
            assert!(error.to_string().contains(name), "{error}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sharts = 8\n").unwrap();
        let config = format!("--config={}", file.path().display());
        let Err(SettingsError::Arguments(error)) = load(&[&config]) else {
            panic!("an unknown key was taken")
        };
        assert!(error.to_string().contains("--sharts"), "{error}");
    }
}
