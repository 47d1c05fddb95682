//! What people see while a run goes on: one line that is drawn again, or plain lines now and then where nobody watches.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::load::figures::Point;
use crate::report::units::{bytes, count, ms};
use crate::scenario::Scenario;

/// How often a plain line is written.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// Width of the bar.
const BAR: usize = 24;

/// Writes to standard error.
#[derive(Debug)]
pub struct Progress {
    live: bool,
    told: Option<Instant>,
    seconds: u64,
}

impl Progress {
    /// Drawn again on a terminal, plain elsewhere.
    #[must_use]
    pub fn of_stderr() -> Self {
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        Self { live: std::io::stderr().is_terminal() && !dumb, told: None, seconds: 0 }
    }

    /// A line that stays.
    pub fn say(&mut self, line: &str) {
        self.clear();
        eprintln!("{line}");
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if self.live {
            eprint!("\r\x1b[K");
            // Nobody sees it where standard error is closed.
            let _ = std::io::stderr().flush();
        }
    }

    /// Something that takes a while has begun.
    pub fn working(&mut self, on: &str) {
        self.draw(on, false);
    }

    /// `last` lines are always written.
    fn draw(&mut self, line: &str, last: bool) {
        if self.live {
            eprint!("\r\x1b[K{line}");
            // Nobody sees it where standard error is closed.
            let _ = std::io::stderr().flush();
        } else if last || self.told.is_none_or(|told| told.elapsed() >= PLAIN_EVERY) {
            self.told = Some(Instant::now());
            eprintln!("{line}");
        }
    }

    /// So many of the clients have what they follow.
    pub fn connecting(&mut self, ready: usize, of: usize, since: Duration) {
        let bar = bar(ready as f64 / of.max(1) as f64, self.live);
        let line = format!("connecting {bar} {ready} of {of} clients  {:.0} s", since.as_secs_f64());
        self.draw(&line, ready == of);
    }

    /// A second was measured.
    pub fn second(&mut self, point: &Point, scenario: &Scenario, p99_ms: Option<f64>) {
        self.seconds += 1;
        let of = scenario.seconds;
        let bar = bar(self.seconds as f64 / of as f64, self.live);
        let latency = p99_ms.map_or_else(|| "–".into(), ms);
        let wrong = match point.wrong {
            0 => "nothing wrong".to_owned(),
            wrong if self.live => format!("\x1b[31m{wrong} wrong\x1b[0m"),
            wrong => format!("{wrong} wrong"),
        };
        let line = format!(
            "measuring  {bar} {}/{of} s  {} clients  {}/s  {}/s  p99 {latency}  {wrong}",
            self.seconds,
            scenario.clients(),
            count(point.deliveries),
            bytes(point.bytes),
        );
        self.draw(&line, self.seconds == of);
    }

    /// A market's book is being compared.
    pub fn comparing(&mut self, market: &str) {
        self.draw(&format!("comparing  {market}"), false);
    }
}

/// A bar of so much; nothing where nobody watches.
fn bar(share: f64, live: bool) -> String {
    if !live {
        return String::new();
    }
    let eighths = (share.clamp(0.0, 1.0) * (BAR * 8) as f64).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(['▏', '▎', '▍', '▌', '▋', '▊', '▉'][eighths % 8 - 1]);
    }
    let filled = bar.chars().count();
    format!("\x1b[36m{bar}\x1b[90m{}\x1b[0m", "·".repeat(BAR - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_always_as_wide() {
        for share in [-1.0, 0.0, 0.01, 0.333, 0.5, 0.999, 1.0, 7.0] {
            let drawn = bar(share, true);
            let blocks = drawn.chars().filter(|c| ('\u{2588}'..='\u{258f}').contains(c) || *c == '·').count();
            assert_eq!(blocks, BAR, "{share}: {drawn}");
        }
        assert_eq!(bar(0.5, false), "");
    }
}
