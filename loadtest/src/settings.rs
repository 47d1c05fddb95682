//! Settings: flags, environment (`TICTAC_*`) and a TOML file (`--config`), one set of names.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use tictac_ingest::settings_file::with_file;
use tictac_proto::model::View;
use tictac_proto::wire::Conflate;

const EXAMPLES: &str = "\
Examples:
  tictac-loadtest ws://127.0.0.1:8080
  tictac-loadtest ws://127.0.0.1:8080 --clients 500 --markets 1 --seconds 30
  tictac-loadtest bench --help                   (the gateway against the least program that could do its job)
  tictac-loadtest --config evening.toml          (with: url = \"ws://…\", clients = 500)

Every flag has a variable (--clients is TICTAC_CLIENTS) and a key in the file given by --config (clients = 500). A flag
beats its variable, which beats the file.";

/// Opens WebSocket clients against a gateway, keeps every book by its deltas, checks it by every checksum and digest that
/// the gateway sends, and compares the final books with GET /v1/markets/{id}. Fails on a wrong book, a gap that was
/// not declared, or a market that is tradable behind its stop.
#[derive(Debug, Parser)]
#[command(name = "tictac-loadtest", version, args_override_self = true, after_help = EXAMPLES)]
pub struct Settings {
    /// The gateway, such as ws://127.0.0.1:8080.
    #[arg(value_name = "URL", required_unless_present_any = ["gateway", "config"])]
    pub url: Option<String>,
    /// The same as URL, for the environment and the file.
    #[arg(long = "url", env = "TICTAC_URL", value_name = "URL")]
    pub gateway: Option<String>,
    /// A TOML file with settings.
    #[arg(long, env = "TICTAC_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How many clients.
    #[arg(long, env = "TICTAC_CLIENTS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub clients: u32,
    /// For how long, once all are connected.
    #[arg(long, env = "TICTAC_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Markets each client follows; 0 takes all.
    #[arg(long, env = "TICTAC_MARKETS", default_value_t = 5)]
    pub markets: usize,
    /// The view: 1, 3, 10 or all.
    #[arg(long, env = "TICTAC_VIEW", default_value = "all", value_parser = |t: &str| View::from_name(t).ok_or("a view is 1, 3, 10 or all"))]
    pub view: View,
    /// raw, auto, 100, 250, 500 or 1000.
    #[arg(long, env = "TICTAC_CONFLATE", default_value = "raw", value_parser = |t: &str| Conflate::from_name(t).ok_or("raw, auto, 100, 250, 500 or 1000"))]
    pub conflate: Conflate,
    /// Connects a second; a gateway allows one address only so many (--connects-per-ip).
    #[arg(long, env = "TICTAC_RAMP", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub ramp: u32,
    /// Speak MessagePack rather than JSON.
    #[arg(long, env = "TICTAC_MSGPACK")]
    pub msgpack: bool,
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

    /// The gateway's address, `host:port`.
    ///
    /// # Errors
    /// If none was given, or one that is not `ws://host:port`.
    pub fn address(&self) -> anyhow::Result<String> {
        let Some(url) = self.url.as_ref().or(self.gateway.as_ref()) else {
            anyhow::bail!(
                "no gateway: give it as ws://host:port, on the command line or as `url` in the file"
            );
        };
        let address = url.strip_prefix("ws://").map(|a| a.trim_end_matches('/').to_owned());
        address.ok_or_else(|| anyhow::anyhow!("{url}: give the gateway as ws://host:port"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(arguments: &[&str]) -> Result<Settings, SettingsError> {
        Settings::load(["tictac-loadtest"].iter().chain(arguments).map(OsString::from))
    }

    #[test]
    fn a_flag_beats_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "url = \"ws://h:1\"\nclients = 7\nseconds = 3\nmsgpack = true\n")
            .unwrap();
        let config = format!("--config={}", file.path().display());
        let settings = load(&[&config, "--clients", "9"]).unwrap();
        assert_eq!((settings.clients, settings.seconds, settings.msgpack), (9, 3, true));
        assert_eq!(settings.address().unwrap(), "h:1");
    }

    #[test]
    fn a_bad_setting_names_itself() {
        for (arguments, name) in [
            (vec!["ws://h:1", "--clients", "0"], "--clients"),
            (vec!["ws://h:1", "--view", "7"], "--view"),
            (vec![], "URL"),
        ] {
            let Err(SettingsError::Arguments(error)) = load(&arguments) else {
                panic!("{arguments:?} was taken")
            };
            assert!(error.to_string().contains(name), "{error}");
        }
        let error = load(&["http://h:1"]).unwrap().address().unwrap_err().to_string();
        assert!(error.contains("http://h:1") && error.contains("ws://host:port"), "{error}");
    }
}
