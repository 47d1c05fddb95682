//! Where the gateway's feed comes from: the log in Redis, or an ingest that runs in this process.

use anyhow::Context;
use tictac_ingest::embedded::{Embedded, Running};
use tictac_ingest::log::{LogReader, RedisLog, RedisSettings, TlsFiles};
use tokio_util::sync::CancellationToken;

use crate::settings::Settings;

/// A feed to follow.
#[derive(Debug)]
pub struct Source {
    reader: LogReader,
    what: String,
    running: Option<(Running, CancellationToken)>,
}

impl Source {
    /// The log to follow.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    /// What it is, for people.
    #[must_use]
    pub fn describe(&self) -> &str {
        &self.what
    }

    /// Ends what runs in this process.
    pub async fn stop(self) {
        if let Some((running, cancel)) = self.running {
            cancel.cancel();
            running.stop().await;
        }
    }
}

/// Starts the feed that the settings name.
///
/// # Errors
/// If a recording can't be opened or a URL not be understood.
pub fn start(settings: &Settings) -> anyhow::Result<Source> {
    if let Some(url) = &settings.redis {
        let mut redis = RedisSettings::new(url.clone());
        redis.prefix.clone_from(&settings.prefix);
        let files = (settings.redis_ca.clone(), settings.redis_cert.clone(), settings.redis_key.clone());
        redis.tls = TlsFiles::new(files.0, files.1, files.2).map_err(anyhow::Error::msg)?;
        let log = RedisLog::new(redis).context("--redis")?;
        let what = format!("following the log with prefix {:?} in Redis", settings.prefix);
        return Ok(Source { reader: log.into(), what, running: None });
    }
    let (embedded, what) = match &settings.replay {
        Some(path) => {
            let embedded = Embedded::replay(path, settings.speed)
                .with_context(|| format!("--replay {}", path.display()))?;
            (embedded, format!("playing {}", path.display()))
        }
        None => {
            let embedded = Embedded::simulator(settings.seed, settings.rate)?;
            (embedded, format!("a market simulator inside, seed {}", settings.seed))
        }
    };
    let cancel = CancellationToken::new();
    let (reader, running) = embedded.with_shards(settings.shards).start(cancel.clone());
    Ok(Source { reader, what, running: Some((running, cancel)) })
}
