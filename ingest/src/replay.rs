//! A recording as a source: each line is published as a numbered envelope to `<prefix>:in:<source>`, in its own time or
//! as fast as ingest says that it took them (`taken` on `<prefix>:ctl:<source>`).
//!
//! At full speed nothing is lost: lines stay here until they are taken, and are sent again where ingest was away. In its
//! own time it is a source like any other, which waits for nobody.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::link::{Link, RedisSettings};
use crate::log::LogError;
use crate::pacing::{Pacer, Speed};
use crate::recording::{Recording, RecordingError};
use crate::service::writing::wait;
use crate::stream_input;

/// Most lines that are sent and not taken.
const WINDOW: usize = 256;
/// How many entries of a stream are kept, about.
const STREAM_ENTRIES: u64 = 100_000;
/// Silence of ingest after which it is said, and what is not taken is sent again.
const SILENCE: Duration = Duration::from_secs(5);
/// Pause between two repetitions where ingest says that it lacks something.
const AGAIN: Duration = Duration::from_millis(500);

/// What to replay, and how.
#[derive(Debug, Clone)]
pub struct ReplaySettings {
    /// Where to.
    pub redis: RedisSettings,
    /// The source's name.
    pub source: String,
    /// Whether lines go to the source's stream, rather than to its channel.
    pub to_stream: bool,
    /// How fast.
    pub speed: Speed,
    /// The recordings, one after another.
    pub files: Vec<PathBuf>,
    /// Whether progress is shown.
    pub progress: bool,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Summary {
    /// Lines sent.
    pub lines: u64,
    /// Lines that ingest said it took; at a timed speed as far as it had said so by the end.
    pub taken: u64,
    /// Lines left out, since they are no JSON.
    pub skipped: u64,
    /// Lines sent again.
    pub repeated: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The recording.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// Redis.
    #[error(transparent)]
    Redis(#[from] LogError),
    /// It was told to stop.
    #[error("stopped after {0} lines")]
    Stopped(u64),
}

/// A line: `mcm` with its time, or a native envelope with its body.
#[derive(Deserialize)]
struct Line<'a> {
    pt: Option<i64>,
    ts: Option<i64>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// What ingest says.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Taken {
    seq: u64,
    since: u64,
}

/// Replays recordings.
///
/// # Errors
/// Where a recording can't be read, the address is none, or the token was cancelled.
pub async fn replay(settings: ReplaySettings, cancel: CancellationToken) -> Result<Summary, ReplayError> {
    let (heard, taken) = mpsc::channel(64);
    let listener = tokio::spawn(listen(
        Link::new(&settings.redis, settings.redis.deadline)?,
        format!("{}:ctl:{}", settings.redis.prefix, settings.source),
        heard,
    ));
    // Numbers of a later replay are higher than those of an earlier one, so that what ingest says of that is no answer.
    let base = u64::try_from(now_ms()).unwrap_or(0) * 1_000;
    let mut player = Player {
        link: Link::new(&settings.redis, settings.redis.deadline)?,
        channel: format!("{}:in:{}", settings.redis.prefix, settings.source),
        base,
        sent: base,
        acked: base,
        window: VecDeque::new(),
        taken,
        last_heard: Instant::now(),
        last_repeat: None,
        silence_told: false,
        summary: Summary::default(),
        meter: Meter::new(settings.progress),
        settings,
    };
    let begun = Instant::now();
    let played = tokio::select! {
        played = player.play() => played,
        () = cancel.cancelled() => Err(ReplayError::Stopped(player.summary.lines)),
    };
    listener.abort();
    player.summary.elapsed = begun.elapsed();
    player.summary.taken = player.acked - base;
    player.meter.end();
    played.map(|()| player.summary)
}

struct Player {
    settings: ReplaySettings,
    link: Link,
    channel: String,
    base: u64,
    /// Number of the last line sent.
    sent: u64,
    /// Number of the last line taken.
    acked: u64,
    /// Lines after `acked`, at full speed.
    window: VecDeque<Vec<u8>>,
    taken: mpsc::Receiver<Taken>,
    last_heard: Instant,
    last_repeat: Option<Instant>,
    silence_told: bool,
    summary: Summary,
    meter: Meter,
}

impl Player {
    async fn play(&mut self) -> Result<(), ReplayError> {
        let start = Instant::now();
        let mut pacer = Pacer::new(self.settings.speed);
        for path in self.settings.files.clone() {
            let mut recording = Recording::open(&path)?;
            while let Some(line) = recording.next_line()? {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let Ok(read) = serde_json::from_slice::<Line<'_>>(line) else {
                    self.summary.skipped += 1;
                    continue;
                };
                let at = read.pt.or(read.ts).unwrap_or_else(now_ms);
                let body = read.body.map_or(line, |body| body.get().as_bytes());
                let message = envelope(&self.settings.source, self.sent + 1, at, body);
                sleep_until(start + pacer.due(at)).await;
                self.send(message).await;
                self.meter.show(&self.summary, recording.progress(), at);
            }
        }
        while self.settings.speed == Speed::Max && self.acked < self.sent {
            self.wait().await;
        }
        // What is said of the last lines is on its way.
        while self.acked < self.sent {
            match timeout(Duration::from_secs(1), self.taken.recv()).await {
                Ok(Some(taken)) => self.note(taken),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(())
    }

    async fn send(&mut self, message: Vec<u8>) {
        while let Ok(taken) = self.taken.try_recv() {
            self.note(taken);
        }
        if self.settings.speed == Speed::Max {
            while self.window.len() >= WINDOW {
                self.wait().await;
            }
            self.publish(&message).await;
            self.window.push_back(message);
        } else {
            self.publish(&message).await;
            if self.last_heard.elapsed() > SILENCE {
                self.tell_silence();
            }
        }
        self.sent += 1;
        self.summary.lines += 1;
    }

    /// Publishes; while Redis is away it goes on trying.
    async fn publish(&self, message: &[u8]) {
        let publish = if self.settings.to_stream {
            let mut add = redis::cmd("XADD");
            add.arg(&self.channel).arg("MAXLEN").arg("~").arg(STREAM_ENTRIES).arg("*");
            add.arg(stream_input::FIELD).arg(message);
            add
        } else {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(&self.channel).arg(message);
            publish
        };
        let mut tries = 0;
        while let Err(error) = self.link.query::<redis::Value>(&self.channel, &publish).await {
            if tries == 0 {
                tracing::warn!(%error, "can't publish");
            }
            sleep(wait(tries)).await;
            tries += 1;
        }
    }

    /// Waits for `taken`, and sends again what was not.
    async fn wait(&mut self) {
        match timeout(SILENCE, self.taken.recv()).await {
            Ok(Some(taken)) => {
                self.note(taken);
                let lacks = taken.seq > self.acked || taken.seq < self.base;
                let due = self.last_repeat.is_none_or(|last| last.elapsed() >= AGAIN);
                // Another ingest took over, or this one missed something: it has not what lies before `since`.
                if lacks && due && taken.seq <= self.sent {
                    self.repeat().await;
                }
            }
            Ok(None) | Err(_) => {
                self.tell_silence();
                self.repeat().await;
            }
        }
    }

    fn note(&mut self, taken: Taken) {
        self.last_heard = Instant::now();
        if self.silence_told {
            self.silence_told = false;
            self.meter.line("ingest is there: going on");
        }
        if taken.seq <= self.acked || taken.seq > self.sent || taken.since > self.acked + 1 {
            return;
        }
        let count = (taken.seq - self.acked) as usize;
        self.window.drain(..count.min(self.window.len()));
        self.acked = taken.seq;
    }

    async fn repeat(&mut self) {
        self.last_repeat = Some(Instant::now());
        for i in 0..self.window.len() {
            let message = self.window[i].clone();
            self.publish(&message).await;
            self.summary.repeated += 1;
        }
    }

    fn tell_silence(&mut self) {
        if self.silence_told {
            return;
        }
        self.silence_told = true;
        let (prefix, url) = (&self.settings.redis.prefix, shown(&self.settings.redis.url));
        self.meter.line(&format!(
            "nothing is taken for {} s: no ingest seems to run on {url} with prefix {prefix:?}. Start one (tictac-ingest \
             --redis {url} --prefix {prefix}) or give this one the prefix of the one that runs. {}",
            SILENCE.as_secs(),
            if self.settings.speed == Speed::Max { "Waiting; nothing is lost." } else { "Going on all the same." },
        ));
    }
}

/// An address without its passwords.
#[must_use]
pub fn shown(url: &str) -> String {
    let url = url.split_once('?').map_or(url, |(address, _)| address);
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}…{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

fn envelope(source: &str, seq: u64, at: i64, body: &[u8]) -> Vec<u8> {
    let source = serde_json::Value::from(source);
    let mut message = format!("{{\"src\":{source},\"seq\":{seq},\"ts\":{at},\"body\":").into_bytes();
    message.extend_from_slice(body);
    message.push(b'}');
    message
}

/// Hears what ingest says, and reconnects for ever.
async fn listen(link: Link, channel: String, heard: mpsc::Sender<Taken>) {
    let mut tries = 0;
    loop {
        if let Ok((mut subscriber, _)) = link.subscriber().await
            && subscriber.subscribe(&channel).await.is_ok()
        {
            tries = 0;
            let mut messages = subscriber.into_on_message();
            while let Some(message) = messages.next().await {
                // Image requests can't be served by a recording. Where there is no room, the next one says more.
                if let Ok(taken) = serde_json::from_slice::<Taken>(message.get_payload_bytes()) {
                    let _ = heard.try_send(taken);
                }
            }
        }
        if heard.is_closed() {
            return;
        }
        sleep(wait(tries)).await;
        tries += 1;
    }
}

/// Shows how far a replay has come.
struct Meter {
    on: bool,
    terminal: bool,
    begun: Instant,
    shown: Instant,
}

impl Meter {
    fn new(on: bool) -> Self {
        let now = Instant::now();
        Self { on, terminal: std::io::stderr().is_terminal(), begun: now, shown: now }
    }

    fn show(&mut self, summary: &Summary, (read, size): (u64, u64), at: i64) {
        let every = if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(5) };
        if !self.on || self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        let share = if size == 0 { 1.0 } else { read as f64 / size as f64 };
        let rate = summary.lines as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let time = day_time(at);
        let text = format!("{} lines  {:3.0} %  {rate:.0} lines/s  {time}", summary.lines, share * 100.0);
        if self.terminal {
            let filled = (share * 30.0) as usize;
            eprint!("\r\x1b[K[{}{}] {text}", "#".repeat(filled), ".".repeat(30 - filled.min(30)));
            // A terminal that went away shows nothing.
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{text}");
        }
    }

    fn line(&self, text: &str) {
        if self.on {
            eprintln!("{}{text}", if self.terminal { "\r\x1b[K" } else { "" });
        } else {
            tracing::warn!("{text}");
        }
    }

    fn end(&self) {
        if self.on && self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

/// Unix ms as date and time, UTC.
fn day_time(ms: i64) -> String {
    let (days, seconds) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000) / 1_000);
    // Days to a date, by eras of 400 years that begin in March (Howard Hinnant's civil-from-days).
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_dates() {
        assert_eq!(day_time(0), "1970-01-01 00:00:00Z");
        assert_eq!(day_time(1_764_038_400_123), "2025-11-25 02:40:00Z");
        assert_eq!(day_time(951_782_399_000), "2000-02-28 23:59:59Z");
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        assert_eq!(shown("redis://user:secret@host:1"), "redis://…@host:1");
        assert_eq!(shown("redis://host:1"), "redis://host:1");
    }
}
