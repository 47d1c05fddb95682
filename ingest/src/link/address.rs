//! Where Redis is, as an address says it: one server, a master that Sentinels name, or a Cluster.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError,
    TlsCertificates,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// What the error says that an address looks like.
const SHAPES: &str = "write redis://host:port or redis+unix:///path; redis+sentinel://host:port,host:port/MASTER; \
                      redis+cluster://host:port,host:port (with TLS rediss://, rediss+sentinel://, rediss+cluster://)";
/// Sentinels, or servers of a Cluster, that an address may name.
const MOST: usize = 32;

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Server {
    pub(crate) fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }
}

/// Files for TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates that may have signed the server's, PEM; without it those that the system trusts.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key, PEM, where the server asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// From what is given; a certificate and its key go together.
    ///
    /// # Errors
    /// Where one of the two is missing.
    pub fn new(ca: Option<PathBuf>, cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Self, String> {
        match (cert, key) {
            (Some(cert), Some(key)) => Ok(Self { ca, identity: Some((cert, key)) }),
            (None, None) => Ok(Self { ca, identity: None }),
            _ => Err("a certificate and its key go together: give --redis-cert and --redis-key".into()),
        }
    }
}

/// All that connections to servers of one deployment share: credentials, database, TLS, TCP.
#[derive(Clone)]
pub(crate) struct Template {
    info: ConnectionInfo,
    certificates: Option<TlsCertificates>,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Credentials are in it.
        f.debug_struct("Template").finish_non_exhaustive()
    }
}

impl Template {
    /// A client of the server that the address names, or of another one of its deployment.
    pub(crate) fn client(
        &self,
        server: Option<&Server>,
        protocol: ProtocolVersion,
    ) -> Result<Client, RedisError> {
        let redis = self.info.redis_settings().clone().set_protocol(protocol);
        let mut info = self.info.clone().set_redis_settings(redis);
        if let Some(Server { host, port }) = server {
            let (host, port) = (host.clone(), *port);
            let addr = match self.info.addr() {
                ConnectionAddr::TcpTls { insecure, .. } => {
                    ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: None }
                }
                _ => ConnectionAddr::Tcp(host, port),
            };
            info = info.set_addr(addr);
        }
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }

    /// The server that the address names.
    fn server(&self) -> Option<Server> {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some(Server::new(host.clone(), *port))
            }
            _ => None,
        }
    }

    fn read(url: &str, certificates: Option<&TlsCertificates>) -> Result<Self, String> {
        let wrong = |error: RedisError| format!("{error}: {SHAPES}");
        let keepalive =
            TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2));
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(Duration::from_secs(10));
        let info = url.into_connection_info().map_err(wrong)?.set_tcp_settings(tcp);
        let certificates = certificates.cloned();
        if certificates.is_some() && !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Err("certificates are given but the address has no TLS: write rediss://…".into());
        }
        let template = Self { info, certificates };
        // What is wrong with a certificate shows here, not at the first connection.
        template.client(None, ProtocolVersion::RESP2).map_err(wrong)?;
        Ok(template)
    }
}

/// A way to find the servers.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    /// This one.
    One(Template),
    /// The master of this name, which any of these knows.
    Sentinels { name: String, sentinels: Vec<(Template, Server)>, master: Template },
    /// All that any of these knows.
    Cluster { seeds: Vec<Server>, template: Template },
}

impl Address {
    /// Reads an address. What it says never repeats a password.
    pub(crate) fn read(url: &str, tls: &TlsFiles) -> Result<Self, String> {
        // Without a provider of cryptography the first TLS connection would panic. One that the program has chosen
        // already stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificates = certificates(tls)?;
        let Some((scheme, rest)) = url.split_once("://") else { return Err(format!("no scheme: {SHAPES}")) };
        let (scheme, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        match kind {
            "sentinel" | "cluster" if matches!(scheme, "redis" | "rediss") => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
                let hosts: Vec<&str> = hosts.split(',').collect();
                if hosts.len() > MOST {
                    return Err(format!("{} servers: at most {MOST} are taken", hosts.len()));
                }
                let at = if user.is_empty() { "" } else { "@" };
                let each = |user: &str, at: &str, host: &str, more: &str| {
                    let template =
                        Template::read(&format!("{scheme}://{user}{at}{host}{more}"), certificates.as_ref())?;
                    let server = template.server().ok_or_else(|| format!("no host and port: {SHAPES}"))?;
                    Ok::<_, String>((template, server))
                };
                if kind == "cluster" {
                    let servers: Vec<_> =
                        hosts.iter().map(|host| each(user, at, host, "")).collect::<Result<_, _>>()?;
                    let template = servers.first().ok_or("no server")?.0.clone();
                    return Ok(Self::Cluster { seeds: servers.into_iter().map(|s| s.1).collect(), template });
                }
                let (path, query) = path.split_once('?').unwrap_or((path, ""));
                let (name, database) = path.split_once('/').unwrap_or((path, "0"));
                if name.is_empty() {
                    return Err(format!("no name of a master after the Sentinels: {SHAPES}"));
                }
                // Sentinels have users of their own, or none.
                let login = query.strip_prefix("sentinel=").unwrap_or("");
                let login_at = if login.is_empty() { "" } else { "@" };
                let sentinels =
                    hosts.iter().map(|host| each(login, login_at, host, "")).collect::<Result<_, _>>()?;
                let master = each(user, at, hosts[0], &format!("/{database}"))?.0;
                Ok(Self::Sentinels { name: name.into(), sentinels, master })
            }
            _ => Ok(Self::One(Template::read(url, certificates.as_ref())?)),
        }
    }
}

fn certificates(files: &TlsFiles) -> Result<Option<TlsCertificates>, String> {
    if files.ca.is_none() && files.identity.is_none() {
        return Ok(None);
    }
    let read = |path: &PathBuf| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let client_tls = match &files.identity {
        Some((cert, key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
        None => None,
    };
    let root_cert = files.ca.as_ref().map(read).transpose()?;
    if let (Some(path), Some(pem)) = (&files.ca, &root_cert) {
        let one = CertificateDer::pem_slice_iter(pem).next();
        if !matches!(one, Some(Ok(_))) {
            return Err(format!(
                "{}: no certificate in it; a PEM file with BEGIN CERTIFICATE is wanted",
                path.display()
            ));
        }
    }
    Ok(Some(TlsCertificates { client_tls, root_cert }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Address, String> {
        Address::read(url, &TlsFiles::default())
    }

    #[test]
    fn each_kind_of_address_is_read() {
        assert!(matches!(read("redis://127.0.0.1:6379/2").unwrap(), Address::One(_)));
        assert!(matches!(read("redis+unix:///run/redis.sock").unwrap(), Address::One(_)));
        let Address::Cluster { seeds, template } = read("rediss+cluster://u:p@a:1,b:2").unwrap() else {
            panic!()
        };
        assert_eq!(seeds, [Server::new("a", 1), Server::new("b", 2)]);
        assert_eq!(template.info.redis_settings().username(), Some("u"));
        let url = "redis+sentinel://u:p@a:26379,b:26380/odds/3?sentinel=s:q";
        let Address::Sentinels { name, sentinels, master } = read(url).unwrap() else { panic!() };
        assert_eq!((&*name, master.info.redis_settings().db()), ("odds", 3));
        assert_eq!(sentinels.iter().map(|s| s.1.to_string()).collect::<Vec<_>>(), ["a:26379", "b:26380"]);
        assert_eq!(sentinels[0].0.info.redis_settings().username(), Some("s"));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_write_and_without_passwords() {
        let missing = Address::read("rediss://a", &TlsFiles { ca: Some("/no/such".into()), identity: None });
        assert!(missing.unwrap_err().contains("/no/such"));
        for url in
            ["http://u:secret@a", "localhost", "redis+sentinel://:secret@a:1", "redis+cluster://:secret@"]
        {
            let why = read(url).unwrap_err();
            assert!(!why.contains("secret") && why.contains("redis+sentinel://"), "{url}: {why}");
        }
        let many = format!("redis+cluster://{}", vec!["a:1"; MOST + 1].join(","));
        assert!(read(&many).unwrap_err().contains("at most 32"));
    }
}
