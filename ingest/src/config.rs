//! Settings of the program: flags, then environment (`TICTAC_…`), then a TOML file, then defaults; one set of names.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

use crate::engine::{EngineSettings, MAX_SOURCES};
use crate::log::{RedisSettings, TlsFiles};
use crate::pacing::Speed;

/// The exit status for a bad setting.
pub const USAGE: u8 = 64;

const EXAMPLES: &str = "\
Examples:
  tictac-ingest                                 take sources from Redis on this machine
  tictac-ingest --redis redis://10.0.0.5:6379   … on another
  tictac-ingest simulate                        be a source of invented markets (in another terminal)
  tictac-ingest operator suspend market:1.23 --why \"wrong price\"   nobody trades it until it is resumed
  tictac-ingest operator list                   what is suspended, by whom and why
  tictac-ingest replay race.mcm.bz2 --speed 10  be a source that plays a recording ten times as fast

A source publishes to <prefix>:in:<source> (default odds:in:…), one message each:
  redis-cli publish odds:in:mine '{\"src\":\"mine\",\"seq\":1,\"ts\":1764038400000,\"body\":{\"op\":\"market\",\"market\":\"m1\",…}}'
or, where ingest runs with --stream mine, without any loss:
  redis-cli xadd odds:in:mine maxlen '~' 100000 '*' m '{…}'

Every flag can be set as TICTAC_<NAME> (TICTAC_REDIS, TICTAC_STALE_AFTER_MS, …) or by its name in the --config file:
  redis = \"redis://10.0.0.5:6379\"
  stale-after-ms = 3000
A flag goes before the environment, the environment before the file.";

/// Takes odds updates of sources, owns the books, and writes what changes to the log that gateways follow.
#[derive(Debug, Parser)]
#[command(name = "tictac-ingest", version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do; `run` where nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings of all commands.
    #[command(flatten)]
    pub common: Common,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take sources from Redis and write the log (the default).
    Run,
    /// Publish recordings (one Betfair mcm message or native envelope a line; plain, .bz2 or .gz) as a source.
    Replay {
        /// The recordings, played one after another.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The source's name.
        #[arg(long, default_value = "replay", value_name = "NAME")]
        source: String,
        /// Publish to the source's stream, not to its channel (ingest must be given --stream NAME).
        #[arg(long)]
        to_stream: bool,
        /// 1 is as it was, 10 ten times that; max is as fast as ingest takes it, and loses nothing.
        #[arg(long, default_value = "1", value_name = "SPEED")]
        speed: Speed,
    },
    /// Suspend, resume or re-image markets by hand, on every ingest of this Redis; or show what is suspended.
    Operator {
        /// What to do.
        #[arg(value_enum)]
        what: Operation,
        /// Of what: all, source:NAME, event:ID or market:ID.
        #[arg(value_name = "SCOPE")]
        scope: Option<String>,
        /// Who does it, for the audit.
        #[arg(long, env = "USER", default_value = "")]
        by: String,
        /// Why, for the audit.
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Publish invented markets as a source.
    Simulate {
        /// The source's name.
        #[arg(long, default_value = "demo", value_name = "NAME")]
        source: String,
        /// The same seed gives the same events.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Factor on activity; 1 is about 110 updates a second.
        #[arg(long, default_value_t = 1.0)]
        rate: f64,
    },
}

/// What an operator can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Operation {
    /// Nothing of it can be traded until it is resumed, whatever its source says.
    Suspend,
    /// Its source's word counts again.
    Resume,
    /// Nothing of it can be traded until its source has imaged it.
    Image,
    /// Show what is suspended, by whom and why.
    List,
}

/// How the process log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For reading.
    Human,
    /// One JSON object a line.
    Json,
}

/// Settings as given: a flag or its environment; also what a file may hold.
#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Common {
    /// A TOML file with settings by the names of these flags.
    #[arg(long, global = true, env = "TICTAC_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Where Redis is: redis://HOST:PORT or redis+unix:///PATH; the master that Sentinels name,
    /// redis+sentinel://HOST:PORT,HOST:PORT/MASTER; a Cluster, redis+cluster://HOST:PORT,HOST:PORT. With TLS
    /// rediss…. USER:PASSWORD@ before the hosts; before those of Sentinels it is the master's, and theirs is
    /// ?sentinel=USER:PASSWORD at the end. [default: redis://127.0.0.1:6379]
    #[arg(long, global = true, env = "TICTAC_REDIS", value_name = "URL", hide_env_values = true)]
    pub redis: Option<String>,
    /// Certificates (PEM) that may have signed the server's; without it those that the system trusts.
    #[arg(long, global = true, env = "TICTAC_REDIS_CA", value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,
    /// Our certificate (PEM), where the server wants one; with --redis-key.
    #[arg(long, global = true, env = "TICTAC_REDIS_CERT", value_name = "FILE")]
    pub redis_cert: Option<PathBuf>,
    /// The key (PEM) of our certificate.
    #[arg(long, global = true, env = "TICTAC_REDIS_KEY", value_name = "FILE")]
    pub redis_key: Option<PathBuf>,
    /// What every key and channel begins with. [default: odds]
    #[arg(long, global = true, env = "TICTAC_PREFIX")]
    pub prefix: Option<String>,
    /// Where /metrics, /healthz, /readyz and /problems are. [default: 127.0.0.1:9091]
    #[arg(long, global = true, env = "TICTAC_ADMIN", value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// How many shards events are spread over; all ingests and gateways must have the same number. [default: 64]
    #[arg(long, global = true, env = "TICTAC_SHARDS", value_name = "N")]
    pub shards: Option<u16>,
    /// How the process log looks. [default: human]
    #[arg(long, global = true, env = "TICTAC_LOG")]
    pub log: Option<LogFormat>,
    /// Silence of a source after which its feed is stale; down after three times this. [default: 5000]
    #[arg(long, global = true, env = "TICTAC_STALE_AFTER_MS", value_name = "MS")]
    pub stale_after_ms: Option<u32>,
    /// The same for one source, as NAME=MS; may be given several times.
    #[arg(long, global = true, env = "TICTAC_STALE_AFTER_OF", value_name = "NAME=MS", value_delimiter = ',')]
    #[serde(default)]
    pub stale_after_of: Vec<String>,
    /// A source that publishes to the Redis Stream <prefix>:in:NAME (XADD … m MESSAGE) rather than to the channel of that
    /// name: nothing of it is lost by restarts. May be given several times.
    #[arg(long, global = true, env = "TICTAC_STREAM", value_name = "NAME", value_delimiter = ',')]
    #[serde(default)]
    pub stream: Vec<String>,
    /// How long a closed or settled market stays. [default: 600]
    #[arg(long, global = true, env = "TICTAC_GONE_AFTER_S", value_name = "S")]
    pub gone_after_s: Option<u32>,
    /// How long an owner that says nothing keeps its shards. [default: 1500]
    #[arg(long, global = true, env = "TICTAC_LEASE_MS", value_name = "MS")]
    pub lease_ms: Option<u32>,
    /// Most entries of a shard's log. [default: 65536]
    #[arg(long, global = true, env = "TICTAC_LOG_ENTRIES", value_name = "N")]
    pub log_entries: Option<u32>,
}

/// A setting that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--{name} {value:?}: {why}")]
pub struct BadSetting {
    /// The flag's name.
    pub name: &'static str,
    /// What was given.
    pub value: String,
    /// Why not, and what to do.
    pub why: String,
}

fn bad(name: &'static str, value: impl ToString, why: impl Into<String>) -> BadSetting {
    BadSetting { name, value: value.to_string(), why: why.into() }
}

/// Settings as they hold.
#[derive(Debug, Clone)]
pub struct Config {
    /// Redis and the log in it.
    pub redis: RedisSettings,
    /// The admin port.
    pub admin: SocketAddr,
    /// The process log.
    pub log: LogFormat,
    /// The engine.
    pub engine: EngineSettings,
    /// Sources that are read from streams.
    pub streams: Vec<Arc<str>>,
}

impl Common {
    /// Takes from a file what is not given otherwise, then the defaults, and checks all of it.
    ///
    /// # Errors
    /// The first setting that can't be.
    pub fn resolve(self) -> Result<Config, BadSetting> {
        let file = self.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let url = self.redis.or(file.redis).unwrap_or_else(|| "redis://127.0.0.1:6379".into());
        let prefix = self.prefix.or(file.prefix).unwrap_or_else(|| "odds".into());
        if prefix.is_empty() || prefix.len() > 64 || prefix.contains(['{', '}', ' ']) {
            return Err(bad(
                "prefix",
                prefix,
                "a prefix has 1 to 64 bytes, without braces and spaces; such as odds",
            ));
        }
        let shards = self.shards.or(file.shards).unwrap_or(64);
        if !(1..=1024).contains(&shards) {
            return Err(bad("shards", shards, "from 1 to 1024; 64 suits most"));
        }
        let stale_after = self.stale_after_ms.or(file.stale_after_ms).unwrap_or(5_000);
        if !(100..=600_000).contains(&stale_after) {
            return Err(bad("stale-after-ms", stale_after, "from 100 to 600000 (10 minutes)"));
        }
        let lease = self.lease_ms.or(file.lease_ms).unwrap_or(1_500);
        if !(1_500..=60_000).contains(&lease) {
            let why = "from 1500 (it is renewed every 500 ms) to 60000; the longer, the later another one takes over";
            return Err(bad("lease-ms", lease, why));
        }
        let entries = self.log_entries.or(file.log_entries).unwrap_or(65_536);
        if !(8_192..=4_000_000).contains(&entries) {
            return Err(bad("log-entries", entries, "from 8192 to 4000000"));
        }
        let given = if self.stale_after_of.is_empty() { file.stale_after_of } else { self.stale_after_of };
        let mut engine = EngineSettings {
            shards,
            stale_after: i64::from(stale_after),
            gone_after: i64::from(self.gone_after_s.or(file.gone_after_s).unwrap_or(600)) * 1_000,
            log_capacity: u64::from(entries),
            ..EngineSettings::default()
        };
        for pair in given {
            let ms = pair.split_once('=').and_then(|(name, ms)| Some((name, ms.parse::<u32>().ok()?)));
            let Some((name, ms)) = ms.filter(|(name, ms)| !name.is_empty() && *ms >= 100) else {
                return Err(bad(
                    "stale-after-of",
                    pair,
                    "write NAME=MS with at least 100 ms, such as slow=20000",
                ));
            };
            engine.stale_after_of.insert(Arc::from(name), i64::from(ms));
        }
        let streams = if self.stream.is_empty() { file.stream } else { self.stream };
        if streams.len() > MAX_SOURCES {
            return Err(bad("stream", streams.len(), format!("at most {MAX_SOURCES} sources can be known")));
        }
        for name in &streams {
            check_source(name).map_err(|error| BadSetting { name: "stream", ..error })?;
        }
        let (cert, key) = (self.redis_cert.or(file.redis_cert), self.redis_key.or(file.redis_key));
        let one = cert.clone().or(key.clone()).unwrap_or_default();
        let tls = TlsFiles::new(self.redis_ca.or(file.redis_ca), cert, key);
        let tls = tls.map_err(|why| bad("redis-cert", one.display(), why))?;
        let mut redis = RedisSettings { tls, ..RedisSettings::new(url) };
        redis.check().map_err(|why| bad("redis", crate::replay::shown(&redis.url), why))?;
        redis.prefix = prefix;
        redis.lease = Duration::from_millis(u64::from(lease));
        redis.entries = u64::from(entries);
        Ok(Config {
            redis,
            admin: self.admin.or(file.admin).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9091))),
            log: self.log.or(file.log).unwrap_or(LogFormat::Human),
            engine,
            streams: streams.iter().map(|name| Arc::from(&name[..])).collect(),
        })
    }
}

fn read(path: &Path) -> Result<Common, BadSetting> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| {
        bad("config", &shown, format!("it can't be read ({e}); give the path of a readable file"))
    })?;
    toml::from_str(&text)
        .map_err(|e| bad("config", &shown, format!("{e}Its names are those of the flags: see --help")))
}

/// Checks a rate of the simulator.
///
/// # Errors
/// Where it is none.
pub fn check_rate(rate: f64) -> Result<(), BadSetting> {
    if rate > 0.0 && rate <= 10_000.0 {
        return Ok(());
    }
    Err(bad("rate", rate, "a number above 0 and up to 10000; 1 is about 110 updates a second"))
}

/// Checks a source's name.
///
/// # Errors
/// Where it is none.
pub fn check_source(name: &str) -> Result<(), BadSetting> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > tictac_proto::limits::MAX_ID || !name.chars().all(fine) {
        return Err(bad("source", name, "a source's name has 1 to 64 letters, digits, and - _ ."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Common {
        let cli = Cli::try_parse_from([&["tictac-ingest"], args].concat()).unwrap();
        cli.common
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ingest.toml");
        std::fs::write(&path, "shards = 8\nprefix = \"file\"\nstale-after-of = [\"slow=20000\"]\n").unwrap();
        let config = parsed(&["--config", path.to_str().unwrap(), "--prefix", "flag"]).resolve().unwrap();
        assert_eq!((config.engine.shards, config.redis.prefix.as_str()), (8, "flag"));
        assert_eq!((config.engine.stale_after("slow"), config.engine.stale_after("other")), (20_000, 5_000));
        std::fs::write(&path, "shrads = 8\n").unwrap();
        let error = parsed(&["--config", path.to_str().unwrap()]).resolve().unwrap_err().to_string();
        assert!(error.contains("shrads") && error.contains("--config"), "{error}");
    }

    #[test]
    fn a_bad_setting_names_itself_the_value_and_the_remedy() {
        for (args, value, remedy) in [
            (["--redis", "localhost"], "localhost", "redis://host:port"),
            (["--redis", "redis+sentinel://host"], "redis+sentinel://host", "/MASTER"),
            (["--redis-key", "k.pem"], "k.pem", "go together"),
            (["--shards", "0"], "0", "from 1 to 1024"),
            (["--prefix", "a{b}"], "a{b}", "without braces"),
            (["--lease-ms", "10"], "10", "from 1500"),
            (["--stale-after-of", "x"], "x", "NAME=MS"),
            (["--stream", "a b"], "a b", "letters, digits"),
        ] {
            let error = parsed(&args).resolve().unwrap_err().to_string();
            assert!(error.contains(args[0]) && error.contains(value) && error.contains(remedy), "{error}");
        }
        let secret = parsed(&["--redis", "http://user:secret@host"]).resolve().unwrap_err().to_string();
        assert!(!secret.contains("secret"), "{secret}");
    }
}
