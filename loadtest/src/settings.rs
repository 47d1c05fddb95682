//! Settings: flags, environment (`TICTAC_*`) and a TOML file, one set of names. What they may be is told by
//! [`crate::scenario`], wherever they were given.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use toml::{Table, Value};

use crate::scenario::Scenario;

const EXAMPLES: &str = "\
Examples:
  tictac-loadtest ws://127.0.0.1:8080                                       50 clients, 10 seconds, every book checked
  tictac-loadtest ws://127.0.0.1:8080 --clients 500 --pick hot --seconds 30 500 clients of one market
  tictac-loadtest evening.toml --report evening.html                        several groups of clients, and a page about it
  tictac-loadtest bench --help                                              the gateway against the least program that could do its job

A scenario is a file with the same names, and a [[clients]] for each group of clients that are alike:

  url = \"ws://127.0.0.1:8080\"
  seconds = 30
  view = 3                  # of every group that does not say otherwise

  [[clients]]
  name = \"crowd\"
  count = 500
  ramp = 200
  pick = \"zipf\"             # 20 of all markets each, the first ones more often
  markets = 20

  [[clients]]
  name = \"desk\"
  count = 20
  codec = \"msgpack\"
  view = \"all\"
  pick = \"event\"            # all markets of one event each

Every flag has a variable (--clients is TICTAC_CLIENTS) and a key (clients = 500). A flag beats its variable, which beats
the file; a flag is for every group. More examples lie in loadtest/scenarios.

A gateway lets one address connect only so often (50 times a second unless its --connects-per-ip says more): that is why
--ramp is 40 unless you say otherwise.

Exit codes: 0 every book is right; 1 something was wrong, or nothing came; 64 a setting can't be used.";

/// Opens thousands of clients against a gateway, keeps every book by its deltas, and says how fast and how right they
/// were.
///
/// Each message is judged once for all clients that are sent it: books against checksums, merged deltas against those that
/// led there step by step, every client's digest against what it holds. In the end every client must come to where the
/// others were, and of at most five markets of each group the book is compared with GET /v1/markets/{id}. A wrong book, a gap
/// that was not declared, a client that is not served, or a market that is tradable when it must not be fails the run.
#[derive(Debug, Parser)]
#[command(name = "tictac-loadtest", version, args_override_self = true, after_help = EXAMPLES)]
pub struct Settings {
    /// The gateway (ws://host:port), a scenario (FILE.toml), or both.
    #[arg(value_name = "URL|FILE.toml", num_args = 0..=2)]
    pub what: Vec<String>,
    /// The gateway, for the environment and the file.
    #[arg(long, env = "TICTAC_URL", value_name = "URL")]
    pub url: Option<String>,
    /// A scenario.
    #[arg(long, env = "TICTAC_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How long is measured, s, once all are connected [default: 10].
    #[arg(long, env = "TICTAC_SECONDS", value_name = "N")]
    pub seconds: Option<String>,

    /// How many clients [default: 50].
    #[arg(long, env = "TICTAC_CLIENTS", value_name = "N", help_heading = "Clients")]
    pub clients: Option<String>,
    /// Connects a second [default: 40].
    #[arg(long, env = "TICTAC_RAMP", value_name = "N", help_heading = "Clients")]
    pub ramp: Option<String>,
    /// ws, or sse, which is JSON only [default: ws].
    #[arg(long, env = "TICTAC_TRANSPORT", value_name = "NAME", help_heading = "Clients")]
    pub transport: Option<String>,
    /// json, or msgpack [default: json].
    #[arg(long, env = "TICTAC_CODEC", value_name = "NAME", help_heading = "Clients")]
    pub codec: Option<String>,
    /// The same as --codec msgpack.
    #[arg(long, env = "TICTAC_MSGPACK", help_heading = "Clients")]
    pub msgpack: bool,
    /// How fast each reads while it is measured, such as 20KB/s [default: as fast as it comes].
    #[arg(long, env = "TICTAC_READ", value_name = "RATE", help_heading = "Clients")]
    pub read: Option<String>,
    /// How many leave and come back each second, half of them as new clients.
    #[arg(long, env = "TICTAC_CHURN", value_name = "N", help_heading = "Clients")]
    pub churn: Option<String>,
    /// So many seconds after measuring began all are cut at once, and come back.
    #[arg(long, env = "TICTAC_STORM_AT", value_name = "S", help_heading = "Clients")]
    pub storm_at: Option<String>,

    /// Markets that each follows; 0 takes all [default: 5; with --pick hot: 1].
    #[arg(long, env = "TICTAC_MARKETS", value_name = "N", help_heading = "What they follow")]
    pub markets: Option<String>,
    /// Which: all (by turns), hot (the same for everyone), zipf (the first ones more often), event (a whole event
    /// each) [default: all].
    #[arg(long, env = "TICTAC_PICK", value_name = "NAME", help_heading = "What they follow")]
    pub pick: Option<String>,
    /// The exponent of Zipf's law [default: 1].
    #[arg(long, env = "TICTAC_SKEW", value_name = "X", help_heading = "What they follow")]
    pub skew: Option<String>,
    /// These markets, separated by commas.
    #[arg(long, env = "TICTAC_IDS", value_name = "ID,…", help_heading = "What they follow")]
    pub ids: Option<String>,
    /// How much of each book: 1, 3, 10 or all [default: all].
    #[arg(long, env = "TICTAC_VIEW", value_name = "VIEW", help_heading = "What they follow")]
    pub view: Option<String>,
    /// How often: raw, auto, or every 100, 250, 500 or 1000 ms [default: raw].
    #[arg(long, env = "TICTAC_CONFLATE", value_name = "HOW", help_heading = "What they follow")]
    pub conflate: Option<String>,

    /// Write every figure here.
    #[arg(long, env = "TICTAC_JSON", value_name = "FILE", help_heading = "Reports")]
    pub json: Option<String>,
    /// Write a page with plots here; it needs nothing else to be looked at.
    #[arg(long, env = "TICTAC_REPORT", value_name = "FILE.html", help_heading = "Reports")]
    pub report: Option<String>,
}

/// Why the settings can't be used; the program exits with 64.
#[derive(Debug)]
pub enum SettingsError {
    /// From the command line or the environment, or a request for help.
    Arguments(Box<clap::Error>),
    /// A value, or the file.
    Scenario(String),
}

impl Settings {
    /// Reads a scenario from arguments, environment and file.
    ///
    /// # Errors
    /// If one has a value that it can't have, or the file can't be read.
    pub fn load(arguments: impl IntoIterator<Item = OsString>) -> Result<Scenario, SettingsError> {
        let settings =
            Self::try_parse_from(arguments).map_err(|error| SettingsError::Arguments(Box::new(error)))?;
        settings.scenario().map_err(SettingsError::Scenario)
    }

    fn scenario(self) -> Result<Scenario, String> {
        let (mut url, mut config) = (self.url, self.config);
        let mut seen = (false, false);
        for what in self.what {
            let is_file = what.ends_with(".toml");
            let twice = std::mem::replace(if is_file { &mut seen.1 } else { &mut seen.0 }, true);
            if twice {
                return Err(format!(
                    "{what}: a second one; give one gateway (ws://host:port) and one scenario (FILE.toml)"
                ));
            }
            if is_file { config = Some(what.into()) } else { url = Some(what) }
        }
        let mut flags = Table::new();
        for (key, value) in [
            ("url", url),
            ("seconds", self.seconds),
            ("clients", self.clients),
            ("ramp", self.ramp),
            ("transport", self.transport),
            ("codec", self.codec),
            ("read", self.read),
            ("churn", self.churn),
            ("storm_at", self.storm_at),
            ("markets", self.markets),
            ("pick", self.pick),
            ("skew", self.skew),
            ("ids", self.ids),
            ("view", self.view),
            ("conflate", self.conflate),
            ("json", self.json),
            ("report", self.report),
        ] {
            if let Some(text) = value {
                flags.insert(key.into(), Value::String(text));
            }
        }
        if self.msgpack {
            flags.insert("msgpack".into(), Value::Boolean(true));
        }
        let text = match &config {
            None => None,
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                format!("{}: {error}; give a scenario, such as those in loadtest/scenarios", path.display())
            })?),
        };
        Scenario::read(config.as_deref().zip(text.as_deref()), &flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tictac_proto::wire::Codec;

    fn load(arguments: &[&str]) -> Result<Scenario, String> {
        match Settings::load(["tictac-loadtest"].iter().chain(arguments).map(OsString::from)) {
            Ok(scenario) => Ok(scenario),
            Err(SettingsError::Scenario(why)) => Err(why),
            Err(SettingsError::Arguments(error)) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_flag_beats_the_file() {
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        std::fs::write(file.path(), "url = \"ws://h:1\"\nclients = 7\nseconds = 3\nmsgpack = true\n")
            .unwrap();
        let path = file.path().display().to_string();
        for first in [format!("--config={path}"), path] {
            let scenario = load(&[&first, "--clients", "9"]).unwrap();
            assert_eq!((scenario.clients(), scenario.seconds), (9, 3));
            assert_eq!(scenario.groups[0].codec, Codec::Msgpack);
            assert_eq!(scenario.address, "h:1");
        }
    }

    #[test]
    fn an_address_alone_is_enough() {
        let scenario = load(&["ws://127.0.0.1:8080/"]).unwrap();
        assert_eq!((scenario.clients(), scenario.seconds), (50, 10));
        assert_eq!(scenario.address, "127.0.0.1:8080");
    }

    #[test]
    fn a_bad_setting_names_itself() {
        for (arguments, name) in [
            (vec!["ws://h:1", "--clients", "0"], "--clients 0"),
            (vec!["ws://h:1", "--view", "7"], "--view 7"),
            (vec!["ws://h:1", "--read", "slowly"], "--read slowly"),
            (vec!["ws://h:1", "ws://h:2"], "ws://h:2"),
            (vec!["ws://h:1", "--seconds-of", "7"], "--seconds-of"),
            (vec!["nowhere.toml"], "nowhere.toml"),
            (vec![], "ws://host:port"),
            (vec!["http://h:1"], "ws://host:port"),
        ] {
            let error = load(&arguments).unwrap_err();
            assert!(error.contains(name), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn the_examples_can_be_run() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let scenario = load(&[path.to_str().unwrap()]).unwrap();
            assert!(scenario.clients() > 0, "{}", path.display());
            count += 1;
        }
        assert!(count >= 6, "{count} examples");
    }
}
