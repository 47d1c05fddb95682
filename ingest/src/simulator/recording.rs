//! A run of the simulator written down: native envelopes or `mcm` messages, one a line, and the books at checkpoints.

use std::io::{self, Write};

use serde_json::json;

use super::mcm::{McmWriter, books};
use super::{Config, Simulator};
use crate::native::NativeWriter;
use crate::update::Update;

/// Time between two lines, ms.
const LINE_MS: i64 = 100;

/// What to record.
#[derive(Debug, Clone)]
pub struct Recording {
    /// The simulator's seed.
    pub seed: u64,
    /// What is simulated.
    pub config: Config,
    /// Time of the first line, Unix milliseconds.
    pub start_ms: i64,
    /// Length in seconds.
    pub seconds: u32,
}

impl Recording {
    /// Writes native envelopes: `seq` from 1 without gaps, `ts` the simulated time. The first line has all images.
    /// Returns the number of lines.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write_native(&self, out: &mut impl Write) -> io::Result<u64> {
        let mut writer = NativeWriter::default();
        let mut line = String::new();
        let mut seq = 0;
        self.play(|_, now, updates| {
            if updates.is_empty() {
                return Ok(());
            }
            seq += 1;
            line.clear();
            writer.write_envelope(&self.config.source, seq, now, updates, &mut line);
            line.push('\n');
            out.write_all(line.as_bytes())
        })?;
        Ok(seq)
    }

    /// Writes the ladder markets as `mcm` messages, and to `checkpoints` the books as they are after about every
    /// `every` lines and after the last: `{"file", "lines", "checkpoints": [{"line", "pt", "markets"}]}`. Markets that
    /// are gone by a checkpoint are not in it. Returns the number of lines.
    ///
    /// # Errors
    /// What the writers say.
    pub fn write_mcm(
        &self,
        file: &str,
        every: u64,
        out: &mut impl Write,
        checkpoints: &mut impl Write,
    ) -> io::Result<u64> {
        let mut writer = McmWriter::default();
        let mut lines = 0;
        let mut taken = Vec::new();
        let mut last_checkpoint = 0;
        let last = self.start_ms + i64::from(self.seconds) * 1_000;
        let mut pt = self.start_ms;
        self.play(|simulator, now, updates| {
            if let Some(message) = writer.message(updates, lines + 1, now) {
                lines += 1;
                pt = now;
                out.write_all(message.as_bytes())?;
                out.write_all(b"\n")?;
            }
            if lines >= last_checkpoint + every.max(1) || (now == last && lines > last_checkpoint) {
                last_checkpoint = lines;
                taken.push(json!({"line": lines, "pt": pt, "markets": books(simulator.truth())}));
            }
            Ok(())
        })?;
        let all = json!({"file": file, "lines": lines, "checkpoints": taken});
        serde_json::to_writer(&mut *checkpoints, &all)?;
        checkpoints.write_all(b"\n")?;
        Ok(lines)
    }

    /// Plays the run; `each` gets the simulator, the time and what was said.
    fn play(&self, mut each: impl FnMut(&Simulator, i64, &[Update]) -> io::Result<()>) -> io::Result<()> {
        let mut simulator = Simulator::new(self.seed, self.config.clone());
        let mut updates = Vec::new();
        for line in 0..=i64::from(self.seconds) * 1_000 / LINE_MS {
            let now = self.start_ms + line * LINE_MS;
            updates.clear();
            simulator.advance(now, &mut updates);
            each(&simulator, now, &updates)?;
        }
        Ok(())
    }
}
