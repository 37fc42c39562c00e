//! A container's log in the CRI format: `TIME STREAM TAG LINE`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A longer line is written in parts, each but the last with tag `P`.
const MAX_LINE: usize = 16 << 10;
/// At this size the file is moved aside to `FILE.1` and a new one begun.
const MAX_FILE: u64 = 10 << 20;

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// An open log.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    /// The beginning of a line whose end has not come, by stream.
    begun: [Vec<u8>; 2],
}

impl Log {
    /// Opens the file for appending, with its folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            begun: [Vec::new(), Vec::new()],
        })
    }

    /// Writes what a stream gave. `now` is an RFC 3339 time.
    pub fn write(&mut self, source: Source, mut bytes: &[u8], now: &str) -> io::Result<()> {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        let begun = &mut self.begun[source as usize];
        while !bytes.is_empty() {
            let room = MAX_LINE - begun.len();
            let end = bytes.iter().take(room).position(|b| *b == b'\n');
            let (part, rest) = match end {
                Some(end) => (&bytes[..end], &bytes[end + 1..]),
                None => bytes.split_at(bytes.len().min(room)),
            };
            begun.extend_from_slice(part);
            if end.is_some() || begun.len() == MAX_LINE {
                let tag = if end.is_some() { 'F' } else { 'P' };
                line(&mut out, now, source, tag, begun);
                begun.clear();
            }
            bytes = rest;
        }
        self.append(&out)
    }

    /// Writes what is left of each stream at its end.
    pub fn finish(&mut self, now: &str) -> io::Result<()> {
        let mut out = Vec::new();
        for source in [Source::Stdout, Source::Stderr] {
            let begun = std::mem::take(&mut self.begun[source as usize]);
            if !begun.is_empty() {
                line(&mut out, now, source, 'F', &begun);
            }
        }
        self.append(&out)
    }

    fn append(&mut self, out: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + out.len() as u64 > MAX_FILE {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".1");
            std::fs::rename(&self.path, aside)?;
            self.file = open(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(out)?;
        self.size += out.len() as u64;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

fn line(out: &mut Vec<u8>, now: &str, source: Source, tag: char, text: &[u8]) {
    out.extend_from_slice(now.as_bytes());
    out.extend_from_slice(format!(" {} {tag} ", source.name()).as_bytes());
    out.extend_from_slice(text);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-02T03:04:05.6Z";

    #[test]
    fn lines_parts_and_the_unfinished_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/0.log");
        let mut log = Log::open(&path).unwrap();
        log.write(Source::Stdout, b"one\ntw", NOW).unwrap();
        log.write(Source::Stderr, b"bad\n\n", NOW).unwrap();
        log.write(Source::Stdout, b"o\nend", NOW).unwrap();
        log.finish(NOW).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(|l| l.strip_prefix(NOW).unwrap()).collect();
        let expected = [
            " stdout F one",
            " stderr F bad",
            " stderr F ",
            " stdout F two",
            " stdout F end",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_long_line_is_written_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = Log::open(&path).unwrap();
        let long = vec![b'x'; MAX_LINE + 3];
        log.write(Source::Stdout, &long, NOW).unwrap();
        log.write(Source::Stdout, b"\n", NOW).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let tags: Vec<(&str, usize)> = text
            .lines()
            .map(|l| l.splitn(4, ' ').collect::<Vec<_>>())
            .map(|f| (f[2], f[3].len()))
            .collect();
        assert_eq!(tags, [("P", MAX_LINE), ("F", 3)]);
    }

    #[test]
    fn a_full_file_is_moved_aside_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = Log::open(&path).unwrap();
        let chunk = [vec![b'y'; 1023], vec![b'\n']].concat().repeat(64);
        for _ in 0..400 {
            log.write(Source::Stdout, &chunk, NOW).unwrap();
        }
        let size = |p: PathBuf| std::fs::metadata(p).unwrap().len();
        assert!(size(path.clone()) <= MAX_FILE);
        assert!(size(folder.path().join("0.log.1")) <= MAX_FILE);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
