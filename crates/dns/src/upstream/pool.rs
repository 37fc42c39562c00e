//! Sockets kept for the next question. Each belongs to the thread whose runtime waits for it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// A datagram socket asks at most so many questions, one at a time. Its port is known to who
/// listens on the way only; who guesses shall not have long.
const MOST_USES: u32 = 32;
/// So many idle datagram sockets are kept where the Corefile sets no bound.
const MOST_IDLE: usize = 64;

/// A connection, with TLS or without.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to a server.
pub(super) struct Stream {
    pub io: Box<dyn Io>,
    pub from: Option<SocketAddr>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({:?})", self.from)
    }
}

/// A socket, and what it has behind it.
#[derive(Debug)]
pub(super) struct Kept<T> {
    pub socket: T,
    made: Instant,
    used: Instant,
    uses: u32,
}

impl<T> Kept<T> {
    pub(super) fn new(socket: T) -> Self {
        let now = Instant::now();
        Self {
            socket,
            made: now,
            used: now,
            uses: 0,
        }
    }

    /// Whether it has been used before.
    pub(super) fn is_used(&self) -> bool {
        self.uses > 0
    }
}

/// For how long and how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeping {
    pub expire: Duration,
    pub max_age: Option<Duration>,
    pub most: Option<usize>,
}

impl Keeping {
    fn holds<T>(&self, kept: &Kept<T>, now: Instant) -> bool {
        now.duration_since(kept.used) <= self.expire
            && self
                .max_age
                .is_none_or(|most| now.duration_since(kept.made) <= most)
    }
}

#[derive(Debug, Default)]
struct Idle {
    udp: Vec<Kept<AsyncFd<UdpSocket>>>,
    streams: VecDeque<Kept<Stream>>,
}

impl Idle {
    fn is_empty(&self) -> bool {
        self.udp.is_empty() && self.streams.is_empty()
    }
}

/// What is idle, by thread.
#[derive(Debug)]
pub(super) struct Pool {
    keeping: Keeping,
    idle: Mutex<HashMap<ThreadId, Idle>>,
}

impl Pool {
    pub(super) fn new(keeping: Keeping) -> Self {
        Self {
            keeping,
            idle: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ThreadId, Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Any of the idle sockets.
    pub(super) fn udp(&self) -> Option<Kept<AsyncFd<UdpSocket>>> {
        let now = Instant::now();
        let mut idle = self.lock();
        let udp = &mut idle.get_mut(&thread::current().id())?.udp;
        udp.retain(|kept| self.keeping.holds(kept, now));
        if udp.is_empty() {
            return None;
        }
        let any = rand::random_range(0..udp.len());
        Some(udp.swap_remove(any))
    }

    /// The connection that was idle for longest.
    pub(super) fn stream(&self) -> Option<Kept<Stream>> {
        let now = Instant::now();
        let mut idle = self.lock();
        let streams = &mut idle.get_mut(&thread::current().id())?.streams;
        streams.retain(|kept| self.keeping.holds(kept, now));
        streams.pop_front()
    }

    /// Keeps a socket. True where it is the first: somebody has to see to it that it goes.
    pub(super) fn keep_udp(&self, mut kept: Kept<AsyncFd<UdpSocket>>) -> bool {
        kept.uses += 1;
        kept.used = Instant::now();
        if kept.uses >= MOST_USES {
            return false;
        }
        self.keep(|idle| {
            if idle.udp.len() < self.keeping.most.unwrap_or(MOST_IDLE) {
                idle.udp.push(kept);
            }
        })
    }

    /// Keeps a connection. True where it is the first: somebody has to see to it that it goes.
    pub(super) fn keep_stream(&self, mut kept: Kept<Stream>) -> bool {
        kept.uses += 1;
        kept.used = Instant::now();
        self.keep(|idle| {
            if self
                .keeping
                .most
                .is_none_or(|most| idle.streams.len() < most)
            {
                idle.streams.push_back(kept);
            }
        })
    }

    fn keep(&self, put: impl FnOnce(&mut Idle)) -> bool {
        let mut idle = self.lock();
        let mine = idle.entry(thread::current().id()).or_default();
        let first = mine.is_empty();
        put(mine);
        first && !mine.is_empty()
    }

    /// Closes what this thread has kept too long; false where there is nothing left.
    pub(super) fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut all = self.lock();
        let me = thread::current().id();
        let Some(idle) = all.get_mut(&me) else {
            return false;
        };
        idle.udp.retain(|kept| self.keeping.holds(kept, now));
        idle.streams.retain(|kept| self.keeping.holds(kept, now));
        let left = !idle.is_empty();
        if !left {
            all.remove(&me);
        }
        left
    }

    pub(super) fn expire(&self) -> Duration {
        self.keeping.expire
    }
}
