//! One client of the shim: what it still has to be sent, what it asked for.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::shim::SandboxState;
use crate::shim::wire::{self, Inbox, Reply, Request};

/// Messages on their way to a client at most.
const MAX_OUTBOX: usize = 32;

/// A message on its way: bytes from `sent` on, with descriptors beside the first.
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

/// A connected client.
pub(super) struct Connection {
    pub socket: OwnedFd,
    inbox: Inbox,
    outbox: VecDeque<Outgoing>,
    /// Wants every change of the state.
    pub watching: bool,
    /// The state changed while an earlier one was still on its way.
    stale: bool,
    /// The command it runs.
    pub command: Option<i32>,
}

impl Connection {
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            inbox: Inbox::default(),
            outbox: VecDeque::new(),
            watching: false,
            stale: false,
            command: None,
        }
    }

    /// What it asked for since; `Err` when it has gone.
    pub fn requests(&mut self) -> io::Result<Vec<Request>> {
        match self.inbox.fill(self.socket.as_raw_fd()) {
            Ok(true) => {}
            Ok(false) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        let mut requests = Vec::new();
        while let Some(request) = self.inbox.next()? {
            requests.push(request);
        }
        Ok(requests)
    }

    /// Sends a reply, now or as the client reads.
    pub fn reply(&mut self, reply: &Reply, fds: Vec<OwnedFd>) -> io::Result<()> {
        if self.outbox.len() >= MAX_OUTBOX {
            return Err(io::Error::other("the client asks and does not read"));
        }
        let bytes = wire::encode(reply)?;
        self.outbox.push_back(Outgoing {
            bytes,
            sent: 0,
            fds,
        });
        self.flush().map(drop)
    }

    /// Sends a watcher the state. A slow one misses states in between, never the last.
    pub fn show(&mut self, state: &SandboxState) -> io::Result<()> {
        self.stale = self.busy();
        if self.stale {
            return Ok(());
        }
        self.reply(&Reply::State(Box::new(state.clone())), Vec::new())
    }

    /// True while something is on its way.
    pub fn busy(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Sends what it can; true where the client should be shown the state again.
    pub fn flush(&mut self) -> io::Result<bool> {
        while let Some(next) = self.outbox.front_mut() {
            let fds: Vec<_> = next.fds.iter().map(AsFd::as_fd).collect();
            match wire::send(self.socket.as_raw_fd(), &next.bytes[next.sent..], &fds) {
                Ok(count) => {
                    next.sent += count;
                    next.fds.clear();
                    if next.sent == next.bytes.len() {
                        self.outbox.pop_front();
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(self.stale)
    }
}
