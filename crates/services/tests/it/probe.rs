//! Many new connections at once, and what became of each.

use std::fmt;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use linux::{NetNs, run_in};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, socket,
};

use crate::echo::Greeting;

/// How many connections of one place are under way at once: what is sent from all places together
/// fits into a server's queues.
const AT_ONCE: usize = 150;
/// An answer may take so long; less than the second after which TCP would try again by itself.
pub const PATIENCE: Duration = Duration::from_millis(900);
/// Silence is silence after this time, where silence is expected.
pub const SILENCE: Duration = Duration::from_millis(250);

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A server answered.
    Answer(Greeting),
    /// Reset or port unreachable.
    Refused,
    /// Nothing came.
    Silence,
    /// Another error.
    Failed(ErrorKind),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(greeting) => {
                write!(f, "{} answers, seen {}", greeting.who, greeting.seen.ip())
            }
            Self::Refused => f.write_str("refused"),
            Self::Silence => f.write_str("silence"),
            Self::Failed(kind) => write!(f, "failed: {kind}"),
        }
    }
}

/// A connection to try.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    pub tcp: bool,
    pub to: SocketAddr,
    /// The source, where it is not for the kernel to choose.
    pub from: Option<IpAddr>,
    /// How long silence may last before it is taken for an answer.
    pub patience: Duration,
}

impl Probe {
    pub fn tcp(ip: IpAddr, port: u16) -> Self {
        Self {
            tcp: true,
            to: (ip, port).into(),
            from: None,
            patience: PATIENCE,
        }
    }

    #[must_use]
    pub fn from(self, source: IpAddr) -> Self {
        Self {
            from: Some(source),
            ..self
        }
    }

    pub fn udp(ip: IpAddr, port: u16) -> Self {
        Self {
            tcp: false,
            ..Self::tcp(ip, port)
        }
    }
}

/// Tries one connection from a namespace.
pub fn one(netns: &NetNs, probe: Probe) -> Outcome {
    all(netns, &[probe]).remove(0)
}

/// Tries one connection from a namespace and keeps it open: the outcome, and the end that stays
/// what it is until dropped, for whoever wants to look why.
pub fn kept(netns: &NetNs, probe: Probe) -> (Outcome, Kept) {
    run_in(netns, || {
        let mut tries = [Try::start(probe)];
        finish(&mut tries);
        let [one] = tries;
        let socket = one.socket;
        (one.outcome.unwrap_or(Outcome::Silence), Kept(socket))
    })
    .unwrap()
}

/// A connection that was tried.
pub struct Kept(Socket);

impl Kept {
    /// Its own port.
    pub fn port(&self) -> u16 {
        let local = match &self.0 {
            Socket::Tcp(stream) => stream.local_addr(),
            Socket::Udp(socket) => socket.local_addr(),
        };
        local.map_or(0, |local| local.port())
    }
}

/// Tries all from a namespace; the outcomes are in the probes' order.
pub fn all(netns: &NetNs, probes: &[Probe]) -> Vec<Outcome> {
    run_in(netns, || {
        probes
            .chunks(AT_ONCE)
            .flat_map(|chunk| {
                let mut tries: Vec<Try> = chunk.iter().map(|probe| Try::start(*probe)).collect();
                finish(&mut tries);
                tries.into_iter().map(|one| one.outcome())
            })
            .collect()
    })
    .unwrap()
}

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

struct Try {
    socket: Socket,
    end: Instant,
    line: Vec<u8>,
    outcome: Option<Outcome>,
}

impl Try {
    fn start(probe: Probe) -> Self {
        let mut outcome = None;
        let socket = if probe.tcp {
            let (stream, refused) = tcp(&probe);
            outcome = refused;
            Socket::Tcp(stream)
        } else {
            let socket = UdpSocket::bind(source(&probe)).unwrap();
            socket.set_nonblocking(true).unwrap();
            // What is dropped on the way out is told at once; what is refused there, by the
            // answer that follows.
            match socket.connect(probe.to).and_then(|()| socket.send(b"?\n")) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                Err(error) => outcome = Some(failed(&error)),
            }
            Socket::Udp(socket)
        };
        Self {
            socket,
            end: Instant::now() + probe.patience,
            line: Vec::new(),
            outcome,
        }
    }

    /// Reads what there is.
    fn read(&mut self) {
        let mut buffer = [0; 256];
        let read = match &mut self.socket {
            // A reading does not tell of port unreachable, which came while connecting.
            Socket::Tcp(stream) => match stream.take_error() {
                Ok(None) => stream.read(&mut buffer),
                Ok(Some(error)) | Err(error) => Err(error),
            },
            Socket::Udp(socket) => socket.recv(&mut buffer),
        };
        match read {
            Ok(0) => self.outcome = Some(Outcome::Failed(ErrorKind::UnexpectedEof)),
            Ok(len) => {
                self.line.extend_from_slice(&buffer[..len]);
                self.outcome = Greeting::parse(&self.line).map(Outcome::Answer);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            Err(error) => self.outcome = Some(failed(&error)),
        }
    }

    fn outcome(self) -> Outcome {
        self.outcome.unwrap_or(Outcome::Silence)
    }
}

/// Reads until each has an outcome or its time is over. What has come by then counts, also where
/// a busy machine let nobody look in time.
fn finish(tries: &mut [Try]) {
    loop {
        let waiting = |one: &&mut Try| one.outcome.is_none();
        let mut open: Vec<&mut Try> = tries.iter_mut().filter(waiting).collect();
        let Some(end) = open.iter().map(|one| one.end).max() else {
            return;
        };
        let now = Instant::now();
        let mut fds: Vec<PollFd<'_>> = open
            .iter()
            .map(|one| {
                let fd = match &one.socket {
                    Socket::Tcp(stream) => stream.as_fd(),
                    Socket::Udp(socket) => socket.as_fd(),
                };
                PollFd::new(fd, PollFlags::POLLIN)
            })
            .collect();
        let left = end.saturating_duration_since(now);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut fds, timeout);
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        drop(fds);
        for (one, ready) in open.iter_mut().zip(ready) {
            if ready {
                one.read();
            }
            if one.end <= now {
                one.outcome.get_or_insert(Outcome::Silence);
            }
        }
    }
}

/// A TCP connection under way, or refused at once.
fn tcp(probe: &Probe) -> (TcpStream, Option<Outcome>) {
    let family = match probe.to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, SockProtocol::Tcp).unwrap();
    if probe.from.is_some() {
        bind(fd.as_raw_fd(), &SockaddrStorage::from(source(probe))).unwrap();
    }
    let started = connect(fd.as_raw_fd(), &SockaddrStorage::from(probe.to));
    let outcome = match started {
        Ok(()) | Err(nix::Error::EINPROGRESS) => None,
        Err(errno) => Some(failed(&errno.into())),
    };
    (TcpStream::from(fd), outcome)
}

/// Asks for a TCP connection from the calling thread's namespace, and waits for nothing.
pub fn knock(to: SocketAddr) {
    tcp(&Probe::tcp(to.ip(), to.port()));
}

fn source(probe: &Probe) -> SocketAddr {
    let any: IpAddr = match probe.to {
        SocketAddr::V4(_) => [0; 4].into(),
        SocketAddr::V6(_) => [0_u16; 8].into(),
    };
    (probe.from.unwrap_or(any), 0).into()
}

fn failed(error: &std::io::Error) -> Outcome {
    match error.kind() {
        ErrorKind::ConnectionRefused => Outcome::Refused,
        kind => Outcome::Failed(kind),
    }
}
