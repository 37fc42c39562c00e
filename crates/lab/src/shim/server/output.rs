//! A running container's standard streams: into its log, and to whoever is attached.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read, write};

use crate::shim::logs::{Log, Source};

/// With more than this on its way to an attached client, the container has to wait...
const TAP_LIMIT: usize = 64 << 10;
/// ...but only this long: then the client is let go.
const TAP_PATIENCE: Duration = Duration::from_secs(10);
/// Attached clients of one container at most.
const MAX_TAPS: usize = 16;

/// An attached client's end of one stream.
struct Tap {
    source: Source,
    to: OwnedFd,
    waiting: Vec<u8>,
    since: Instant,
}

impl Tap {
    /// Sends what it can; false when the client is gone.
    fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() {
            match write(&self.to, &self.waiting) {
                Ok(count) => {
                    self.waiting.drain(..count);
                    self.since = Instant::now();
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return self.since.elapsed() < TAP_PATIENCE,
                Err(_) => return false,
            }
        }
        true
    }
}

/// The shim's ends of a container's streams.
pub(super) struct Output {
    log: Log,
    /// Standard output (or nothing, with a terminal) and error.
    from: [Option<OwnedFd>; 2],
    /// The caller's side of the terminal.
    pub terminal: Option<OwnedFd>,
    /// Standard input, where it is kept open.
    pub stdin: Option<OwnedFd>,
    taps: Vec<Tap>,
}

impl Output {
    pub fn new(log: Log) -> Self {
        Self {
            log,
            from: [None, None],
            terminal: None,
            stdin: None,
            taps: Vec::new(),
        }
    }

    /// Takes over the reading ends of the container's pipes.
    pub fn read_from(&mut self, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<()> {
        non_blocking(stdout.as_fd())?;
        non_blocking(stderr.as_fd())?;
        self.from = [Some(stdout), Some(stderr)];
        Ok(())
    }

    /// Takes over the caller's side of the container's terminal.
    pub fn set_terminal(&mut self, terminal: OwnedFd) -> io::Result<()> {
        non_blocking(terminal.as_fd())?;
        self.terminal = Some(terminal);
        Ok(())
    }

    /// What to wait for: descriptors and the events of interest on each.
    pub fn interests(&self, out: &mut Vec<(RawFd, i16)>) {
        let full = self.taps.iter().any(|t| t.waiting.len() > TAP_LIMIT);
        if !full {
            let all = self.from.iter().flatten().chain(&self.terminal);
            out.extend(all.map(|fd| (fd.as_raw_fd(), libc::POLLIN)));
        }
        for tap in &self.taps {
            let wanted = if tap.waiting.is_empty() {
                0
            } else {
                libc::POLLOUT
            };
            out.push((tap.to.as_raw_fd(), wanted));
        }
    }

    /// True where time alone may change something: a client that does not read.
    pub fn impatient(&self) -> bool {
        self.taps.iter().any(|t| t.waiting.len() > TAP_LIMIT)
    }

    /// Moves what is there, from all streams to the log and to all clients.
    pub fn pump(&mut self) {
        self.taps
            .retain_mut(|t| t.flush() && reader_is_there(t.to.as_fd()));
        if self.taps.iter().any(|t| t.waiting.len() > TAP_LIMIT) {
            return;
        }
        for (index, source) in [Source::Stdout, Source::Stderr].into_iter().enumerate() {
            if let Some(fd) = self.from[index].take()
                && self.copy(fd.as_fd(), source)
            {
                self.from[index] = Some(fd);
            }
        }
        if let Some(fd) = self.terminal.take()
            && self.copy(fd.as_fd(), Source::Stdout)
        {
            self.terminal = Some(fd);
        }
    }

    /// The container has ended: everything that was written is read, then all is closed.
    pub fn finish(&mut self) {
        // A container's last words fit its pipes; patience with a client ends here.
        for _ in 0..64 {
            self.taps
                .retain_mut(|t| t.waiting.len() <= TAP_LIMIT && t.flush());
            let (before, from) = (self.bytes_ready(), &self.from);
            if before == 0 || (from.iter().all(Option::is_none) && self.terminal.is_none()) {
                break;
            }
            self.pump();
        }
        if let Err(e) = self.log.finish(&now()) {
            eprintln!("writing a container's log: {e}");
        }
        self.from = [None, None];
        self.terminal = None;
        self.stdin = None;
    }

    /// Clients that still have to be sent something after the end.
    pub fn drain_taps(&mut self) -> bool {
        self.taps.retain_mut(|t| t.flush() && !t.waiting.is_empty());
        !self.taps.is_empty()
    }

    /// A client's reading ends of standard output and error.
    pub fn attach(&mut self) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        if self.taps.len() >= MAX_TAPS {
            return Err(io::Error::other(format!(
                "{MAX_TAPS} clients are attached already"
            )));
        }
        let stdout = self.tap(Source::Stdout)?;
        let stderr = match self.terminal {
            Some(_) => None,
            None => Some(self.tap(Source::Stderr)?),
        };
        Ok((stdout, stderr))
    }

    fn tap(&mut self, source: Source) -> io::Result<OwnedFd> {
        let (theirs, to) = pipe2(OFlag::O_CLOEXEC)?;
        non_blocking(to.as_fd())?;
        self.taps.push(Tap {
            source,
            to,
            waiting: Vec::new(),
            since: Instant::now(),
        });
        Ok(theirs)
    }

    fn bytes_ready(&self) -> usize {
        let all = self.from.iter().flatten().chain(&self.terminal);
        all.map(|fd| {
            let mut count: libc::c_int = 0;
            // SAFETY: FIONREAD writes one int, which lives until the call returns.
            unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) };
            usize::try_from(count).unwrap_or(0)
        })
        .sum()
    }

    /// Reads one stream once; false at its end.
    fn copy(&mut self, fd: BorrowedFd<'_>, source: Source) -> bool {
        let mut chunk = [0u8; 32 << 10];
        let count = match read(fd, &mut chunk) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => return true,
            // A terminal whose last program has gone answers EIO.
            Err(_) => return false,
        };
        // A full disk loses log lines; it does not stop the container.
        if let Err(e) = self.log.write(source, &chunk[..count], &now()) {
            eprintln!("writing a container's log: {e}");
        }
        for tap in self.taps.iter_mut().filter(|t| t.source == source) {
            if tap.waiting.is_empty() {
                tap.since = Instant::now();
            }
            tap.waiting.extend_from_slice(&chunk[..count]);
        }
        self.taps.retain_mut(Tap::flush);
        true
    }
}

/// True while somebody has the other end of this pipe.
fn reader_is_there(pipe: BorrowedFd<'_>) -> bool {
    let mut entry = libc::pollfd {
        fd: pipe.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: one pollfd, which lives until the call returns.
    unsafe { libc::poll(&raw mut entry, 1, 0) };
    entry.revents & libc::POLLERR == 0
}

fn non_blocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// The time as the CRI log format writes it.
fn now() -> String {
    jiff::Timestamp::now().to_string()
}
