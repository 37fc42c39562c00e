//! Lines of the log on their way to standard output, as `CoreDNS` writes them there.
//!
//! A reader that is slow, or gone, never holds up an answer: lines wait in a bounded buffer for a
//! thread of their own, and what does not fit is counted and left out.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// So many bytes wait at most.
const MOST_WAITING: usize = 1 << 20;

/// Where lines go. The thread that writes them ends with it, after what waits is written.
#[derive(Debug, Default)]
pub struct Output {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    more: Condvar,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Lines lost since the last time that was said.
    lost: u64,
    closed: bool,
}

impl Output {
    /// Lines stay in memory until somebody takes them: for tests.
    pub fn kept() -> Self {
        Self::default()
    }

    /// Lines go to standard output.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn stdout() -> std::io::Result<Self> {
        Self::to(std::io::stdout())
    }

    /// Lines go to a writer.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn to(mut writer: impl Write + Send + 'static) -> std::io::Result<Self> {
        let output = Self::default();
        let shared = output.shared.clone();
        std::thread::Builder::new()
            .name("dns-log".to_owned())
            .spawn(move || {
                let mut bytes = Vec::new();
                while shared.next(&mut bytes) {
                    // An output that is gone is nobody's loss; the thread goes on so that memory
                    // stays bounded.
                    let _ = writer.write_all(&bytes).and_then(|()| writer.flush());
                    bytes.clear();
                }
            })?;
        Ok(output)
    }

    /// Adds a line; its end is added too.
    pub fn line(&self, line: &str) {
        let mut waiting = self.shared.locked();
        if waiting.bytes.len() + line.len() >= MOST_WAITING {
            waiting.lost += 1;
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let first = waiting.bytes.is_empty();
        waiting.bytes.extend_from_slice(line.as_bytes());
        waiting.bytes.push(b'\n');
        drop(waiting);
        if first {
            self.shared.more.notify_one();
        }
    }

    /// How many lines were left out because nobody read.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// What waits, which then waits no longer.
    pub fn take(&self) -> String {
        let bytes = std::mem::take(&mut self.shared.locked().bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.shared.locked().closed = true;
        self.shared.more.notify_one();
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what waits into `bytes`, after waiting for it; false at the end.
    fn next(&self, bytes: &mut Vec<u8>) -> bool {
        let empty = |waiting: &mut Waiting| waiting.bytes.is_empty() && !waiting.closed;
        let waiting = self.more.wait_while(self.locked(), empty);
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut waiting.bytes, bytes);
        if waiting.lost > 0 {
            let lost = std::mem::take(&mut waiting.lost);
            let line = format!("[WARNING] {lost} lines of the log were lost: nobody read them\n");
            bytes.extend_from_slice(line.as_bytes());
        }
        !(bytes.is_empty() && waiting.closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A writer that waits for leave before each write.
    struct Slow(mpsc::Receiver<()>, mpsc::Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_does_not_read_holds_up_nobody() {
        let (leave, waits) = mpsc::channel();
        let (written, writes) = mpsc::channel();
        let output = Output::to(Slow(waits, written)).unwrap();
        let line = "x".repeat(1000);
        for _ in 0..5000 {
            output.line(&line);
        }
        assert!(output.lost() > 2000, "{}", output.lost());
        let mut all = Vec::new();
        while !all.ends_with(b"nobody read them\n") {
            leave.send(()).unwrap();
            all.extend(writes.recv().unwrap());
        }
        let lines = all.split(|&byte| byte == b'\n').count() as u64;
        assert_eq!(lines, 5000 - output.lost() + 2);
    }

    #[test]
    fn lines_in_their_order() {
        let output = Output::kept();
        output.line("one");
        output.line("two");
        assert_eq!(output.take(), "one\ntwo\n");
        assert_eq!(output.take(), "");
    }
}
