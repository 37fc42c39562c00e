//! Attachments on disk: an append-only journal of checksummed lines.
//!
//! An entry is one `write(2)`, so a process killed at any point has written it or not; the
//! page cache keeps what is written. There is no fsync: when the machine itself goes down,
//! every pod goes with it, and what is lost is found out against the kernel at the next start.
//! A line that was cut (a full disk) is cut away again before the write is reported as failed.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Seconds;
use crate::attachment::{Attachment, Key};

const FILE: &str = "attachments.journal";
/// Below this length compaction is not worth a file.
const COMPACT_FROM: u64 = 64 << 10;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Entry {
    /// An attachment holds its addresses from here on.
    Attach(Box<Attachment>),
    /// It is gone; its addresses rest.
    Detach {
        /// Which.
        key: Key,
        /// When.
        at: Seconds,
    },
    /// An address rests, in a compacted journal.
    Resting {
        /// Which.
        ip: IpAddr,
        /// Since when.
        since: Seconds,
    },
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    /// Length after the last compaction.
    compacted: u64,
    /// Held while open: one agent a state folder.
    _lock: File,
}

/// A journal that cannot be used, or did not take an entry.
#[derive(Debug)]
pub struct JournalError {
    path: PathBuf,
    operation: &'static str,
    cause: String,
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {}",
            self.path.display(),
            self.operation,
            self.cause
        )
    }
}

impl std::error::Error for JournalError {}

/// What opening found.
#[derive(Debug)]
pub struct Opened {
    /// The journal, to append to.
    pub journal: Journal,
    /// Its entries.
    pub entries: Vec<Entry>,
    /// Lines that were damaged and passed over.
    pub damaged: usize,
}

impl Journal {
    /// Opens, or makes, the journal in `dir`.
    pub fn open(dir: &Path) -> Result<Opened, JournalError> {
        let path = dir.join(FILE);
        let failed = |operation: &'static str| {
            let path = path.clone();
            move |error: io::Error| JournalError {
                path,
                operation,
                cause: error.to_string(),
            }
        };
        fs::create_dir_all(dir).map_err(failed("create folder"))?;
        let lock = lock(dir)?;
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(failed("open"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read"))?;
        let (entries, good, damaged) = decode(&bytes);
        if good < bytes.len() as u64 {
            file.set_len(good)
                .map_err(failed("cut off an unfinished line"))?;
        }
        let journal = Journal {
            path,
            file,
            length: good,
            compacted: 0,
            _lock: lock,
        };
        Ok(Opened {
            journal,
            entries,
            damaged,
        })
    }

    /// Writes entries; once this returns, a kill of the process cannot undo them.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut bytes = Vec::with_capacity(512 * entries.len());
        for entry in entries {
            encode(entry, &mut bytes).map_err(|error| self.error("encode", error.into()))?;
        }
        // The file is in append mode: one write call a batch, and all of it or a cut.
        match self.file.write_all(&bytes) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                let cut = self.file.set_len(self.length);
                let error = self.error("write", error);
                Err(match cut {
                    Ok(()) => error,
                    // The next start passes over the broken line.
                    Err(cut) => JournalError {
                        cause: format!("{}; cut back: {cut}", error.cause),
                        ..error
                    },
                })
            }
        }
    }

    /// True where most of the journal is history.
    pub fn is_long(&self) -> bool {
        self.length > COMPACT_FROM && self.length > 4 * self.compacted
    }

    /// Replaces the journal by `entries`. Where that fails the old journal stays in use.
    pub fn compact(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut bytes = Vec::with_capacity(512 * entries.len());
        for entry in entries {
            encode(entry, &mut bytes).map_err(|error| self.error("encode", error.into()))?;
        }
        let new = self.path.with_extension("new");
        let written = File::create(&new).and_then(|mut file| file.write_all(&bytes));
        let file = written
            .and_then(|()| OpenOptions::new().read(true).append(true).open(&new))
            .and_then(|file| fs::rename(&new, &self.path).map(|()| file));
        match file {
            Ok(mut file) => {
                self.length = file
                    .seek(SeekFrom::End(0))
                    .map_err(|error| self.error("seek", error))?;
                self.compacted = self.length;
                self.file = file;
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_file(&new);
                // Not again before the journal has grown as much once more.
                self.compacted = self.length;
                Err(self.error("compact", error))
            }
        }
    }

    fn error(&self, operation: &'static str, error: io::Error) -> JournalError {
        JournalError {
            path: self.path.clone(),
            operation,
            cause: error.to_string(),
        }
    }
}

fn lock(dir: &Path) -> Result<File, JournalError> {
    let path = dir.join("lock");
    let file = File::create(&path);
    let locked = file
        .map_err(|error| error.to_string())
        .and_then(|file| match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                Err("another agent uses this state folder; end it first".to_owned())
            }
            Err(TryLockError::Error(error)) => Err(error.to_string()),
        });
    locked.map_err(|cause| JournalError {
        path,
        operation: "lock",
        cause,
    })
}

/// `CHECKSUM JSON\n`, the checksum over the JSON.
fn encode(entry: &Entry, bytes: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let json = serde_json::to_string(entry)?;
    bytes.extend_from_slice(format!("{:08x} {json}\n", crc32(json.as_bytes())).as_bytes());
    Ok(())
}

/// The entries, the length up to the end of the last whole line, and how many whole lines
/// were damaged.
fn decode(bytes: &[u8]) -> (Vec<Entry>, u64, usize) {
    let mut entries = Vec::new();
    let mut damaged = 0;
    let mut good = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(text) = line.strip_suffix(b"\n") else {
            break;
        };
        good += line.len() as u64;
        match decode_line(text) {
            Some(entry) => entries.push(entry),
            None => damaged += 1,
        }
    }
    (entries, good, damaged)
}

fn decode_line(line: &[u8]) -> Option<Entry> {
    let (sum, json) = (line.get(..8)?, line.get(9..)?);
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    if sum != crc32(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// CRC-32 (IEEE), bit by bit: lines are short.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn detach(n: u64) -> Entry {
        Entry::Detach {
            key: Key {
                container: format!("c{n}"),
                ifname: "eth0".into(),
            },
            at: n,
        }
    }

    #[test]
    fn crc_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn entries_survive_and_a_second_agent_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Journal::open(dir.path()).unwrap();
        opened.journal.append(&[detach(1), detach(2)]).unwrap();
        let refused = Journal::open(dir.path()).unwrap_err().to_string();
        assert!(
            refused.contains("another agent uses this state folder"),
            "{refused}"
        );
        drop(opened);
        let mut opened = Journal::open(dir.path()).unwrap();
        assert_eq!(opened.entries, [detach(1), detach(2)]);
        opened.journal.compact(&[detach(2)]).unwrap();
        opened.journal.append(&[detach(3)]).unwrap();
        drop(opened);
        assert_eq!(
            Journal::open(dir.path()).unwrap().entries,
            [detach(2), detach(3)]
        );
    }

    proptest! {
        /// A kill or a full disk leaves any prefix; what was whole is read, and new entries
        /// are read after it.
        #[test]
        fn any_prefix_opens(count in 1u64..20, cut in 0.0f64..1.0, damage in any::<prop::sample::Index>()) {
            let dir = tempfile::tempdir().unwrap();
            let entries: Vec<Entry> = (0..count).map(detach).collect();
            Journal::open(dir.path()).unwrap().journal.append(&entries).unwrap();
            let path = dir.path().join(FILE);
            let mut bytes = fs::read(&path).unwrap();
            let whole = bytes.clone();
            bytes.truncate((bytes.len() as f64 * cut) as usize);
            fs::write(&path, &bytes).unwrap();
            let mut opened = Journal::open(dir.path()).unwrap();
            let kept = bytes.iter().filter(|byte| **byte == b'\n').count();
            prop_assert_eq!(&opened.entries[..], &entries[..kept]);
            prop_assert_eq!(opened.damaged, 0);
            opened.journal.append(&[detach(99)]).unwrap();
            drop(opened);
            let again = Journal::open(dir.path()).unwrap();
            prop_assert_eq!(again.entries.last(), Some(&detach(99)));
            drop(again);

            // One byte wrong: at most the line it stands in, and its neighbour, are lost.
            let mut bytes = whole;
            let at = damage.index(bytes.len());
            bytes[at] ^= 0x20;
            fs::write(&path, &bytes).unwrap();
            let opened = Journal::open(dir.path()).unwrap();
            prop_assert!(opened.entries.len() + 2 >= entries.len());
            prop_assert!(opened.entries.iter().all(|entry| entries.contains(entry)));
        }
    }
}
