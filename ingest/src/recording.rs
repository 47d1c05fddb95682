//! A recording: a file with a message a line, as it is or compressed by bzip2 or gzip.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;

use crate::mcm::MAX_LINE;

/// Why a recording could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// It can't be opened.
    #[error("{} can't be opened: {source}; give the path of a readable file", path.display())]
    Open {
        /// The recording.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It can't be read on.
    #[error(
        "{} can't be read after line {line}: {source}; the file may be cut off, or not be what its name ends in \
         (.bz2, .gz, or neither for plain text): check it with bzip2 -t or gzip -t, or fetch it again",
        path.display()
    )]
    Read {
        /// The recording.
        path: PathBuf,
        /// Lines read before.
        line: u64,
        /// What the system or the decompressor said.
        source: io::Error,
    },
    /// A line is too long.
    #[error(
        "{}: line {line} has more than {limit} bytes; a recording has one message a line: check that it is one",
        path.display()
    )]
    LongLine {
        /// The recording.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Bytes allowed.
        limit: usize,
    },
}

/// An open recording.
pub struct Recording {
    path: PathBuf,
    lines: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    line: u64,
    limit: usize,
    consumed: Arc<AtomicU64>,
    size: u64,
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording")
            .field("path", &self.path)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// Counts what is read of the file itself.
struct Counted {
    file: File,
    consumed: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.consumed.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Recording {
    /// Opens a recording; the end of its name says how it is compressed.
    ///
    /// # Errors
    /// Where it can't be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RecordingError> {
        Self::open_limited(path, MAX_LINE)
    }

    /// Opens a recording with an own limit of bytes a line.
    ///
    /// # Errors
    /// Where it can't be opened.
    pub fn open_limited(path: impl AsRef<Path>, limit: usize) -> Result<Self, RecordingError> {
        let path = path.as_ref().to_path_buf();
        let open = |path: &Path| {
            let file = File::open(path)?;
            let about = file.metadata()?;
            if about.is_dir() {
                return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
            }
            Ok((file, about.len()))
        };
        let (file, size) = match open(&path) {
            Ok(opened) => opened,
            Err(source) => return Err(RecordingError::Open { path, source }),
        };
        let consumed = Arc::new(AtomicU64::new(0));
        let file = Counted { file, consumed: Arc::clone(&consumed) };
        let ending = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        let lines: Box<dyn BufRead + Send> = match ending.as_deref() {
            Some("bz2") => Box::new(BufReader::with_capacity(1 << 16, MultiBzDecoder::new(file))),
            Some("gz") => Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))),
            _ => Box::new(BufReader::with_capacity(1 << 16, file)),
        };
        Ok(Self { path, lines, buffer: Vec::new(), line: 0, limit, consumed, size })
    }

    /// The next line, without its line end; `None` at the end. The bytes lie in a buffer that the next call reuses.
    ///
    /// # Errors
    /// Where the file can't be read on or the line is too long. What follows is then not to be had either.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, RecordingError> {
        self.buffer.clear();
        // One byte more than a longest line with its CRLF tells that a line is longer.
        let most = self.limit as u64 + 3;
        let read = self.lines.by_ref().take(most).read_until(b'\n', &mut self.buffer);
        if let Err(source) = read {
            return Err(RecordingError::Read { path: self.path.clone(), line: self.line, source });
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            if self.buffer.last() == Some(&b'\r') {
                self.buffer.pop();
            }
        }
        if self.buffer.len() > self.limit {
            let (path, line, limit) = (self.path.clone(), self.line, self.limit);
            return Err(RecordingError::LongLine { path, line, limit });
        }
        Ok(Some(&self.buffer))
    }

    /// The number of the last line, from 1; 0 before the first.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// How many bytes of the file were read, and how many it has. For showing progress: it runs ahead of the lines by what
    /// is buffered.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.consumed.load(Ordering::Relaxed), self.size)
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn all(path: &Path) -> Result<Vec<String>, RecordingError> {
        let mut recording = Recording::open(path)?;
        let mut lines = Vec::new();
        while let Some(line) = recording.next_line()? {
            lines.push(String::from_utf8_lossy(line).into_owned());
        }
        assert_eq!(recording.line(), lines.len() as u64);
        let (read, size) = recording.progress();
        assert_eq!(read, size, "all was read");
        Ok(lines)
    }

    fn gz(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn bz(text: &str) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_and_compressed_files_of_several_streams() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("a.jsonl", b"one\r\ntwo\n\nfour".to_vec()),
            ("a.bz2", [bz("one\r\ntw"), bz("o\n\nfour")].concat()),
            ("a.GZ", [gz("one\r\ntw"), gz("o\n\nfour")].concat()),
        ];
        for (name, bytes) in files {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(all(&path).unwrap(), ["one", "two", "", "four"], "{name}");
        }
        let empty = dir.path().join("empty");
        std::fs::write(&empty, b"").unwrap();
        assert!(all(&empty).unwrap().is_empty());
    }

    #[test]
    fn errors_name_the_path_and_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing.bz2");
        let error = Recording::open(&missing).unwrap_err().to_string();
        assert!(error.contains("missing.bz2") && error.contains("give the path"), "{error}");
        assert!(matches!(Recording::open(dir.path()), Err(RecordingError::Open { .. })));

        for (name, bytes) in [("cut.bz2", bz(&"line\n".repeat(9000))), ("cut.gz", gz(&"line\n".repeat(9000)))]
        {
            let cut = dir.path().join(name);
            std::fs::write(&cut, &bytes[..bytes.len() - 8]).unwrap();
            let error = all(&cut).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("fetch it again"), "{error}");
        }
        let not = dir.path().join("not.gz");
        std::fs::write(&not, "{}\n").unwrap();
        assert!(matches!(all(&not), Err(RecordingError::Read { line: 0, .. })));
    }

    #[test]
    fn a_line_of_the_limit_is_read_and_a_longer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        std::fs::write(&path, "12345678\r\n12345678\n123456789\n").unwrap();
        let mut recording = Recording::open_limited(&path, 8).unwrap();
        assert_eq!(recording.next_line().unwrap(), Some(&b"12345678"[..]));
        assert_eq!(recording.next_line().unwrap(), Some(&b"12345678"[..]));
        let error = recording.next_line().unwrap_err();
        assert!(matches!(error, RecordingError::LongLine { line: 3, limit: 8, .. }), "{error}");
    }
}
