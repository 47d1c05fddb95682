//! Settings of a log in Redis.

use std::time::Duration;

use super::address::TlsFiles;

/// Where Redis is, and the log's bounds in it.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// One server: `redis://` or `redis+unix://`. A master that Sentinels name:
    /// `redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/MASTER[/DATABASE][?sentinel=USER:PASSWORD]`. A Cluster:
    /// `redis+cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT`. With TLS `rediss…`.
    pub url: String,
    /// Certificates, where the system's will not do.
    pub tls: TlsFiles,
    /// Before every key and channel.
    pub prefix: String,
    /// How long a lease lives without a sign of life.
    pub lease: Duration,
    /// For connecting, and for each command.
    pub deadline: Duration,
    /// Most entries of a shard's log (Redis may keep about a hundred more).
    pub entries: u64,
}

impl RedisSettings {
    /// The defaults: prefix `odds`, lease 1.5 s, deadline 2 s, 65,536 entries.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            tls: TlsFiles::default(),
            prefix: "odds".into(),
            lease: Duration::from_millis(1_500),
            deadline: Duration::from_secs(2),
            entries: 65_536,
        }
    }

    /// Checks the address and the certificates.
    ///
    /// # Errors
    /// What is wrong, and what to write.
    pub fn check(&self) -> Result<(), String> {
        super::address::Address::read(&self.url, &self.tls).map(drop)
    }
}
