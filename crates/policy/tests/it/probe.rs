//! Every connection that can be tried in the lab, all at once, and what became of each.
//!
//! Whether one is let through is seen by an answer. That one is not is seen by silence: when all
//! that should be answered are, and the servers have nothing left to do, a short time more. Where
//! the outcome is not the expected one and time may be the reason, it is tried again without the
//! others, with patience.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use linux::NetNs;
use model::{Key, Protocol};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::{Linger, SocketError};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, getsockopt,
    setsockopt, socket,
};

use crate::lab::{self, Lab, PORTS};

/// How long what should be answered is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same at the second try.
pub const LONG: Duration = Duration::from_secs(8);
/// How long silence must last at least.
const SILENCE: Duration = Duration::from_millis(12);

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Pod(Key),
    Node(usize),
    Host(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod((namespace, name)) => write!(f, "{namespace}/{name}"),
            Self::Node(at) => write!(f, "node{}", at + 1),
            Self::Host(name) => f.write_str(name),
        }
    }
}

impl Place {
    pub fn netns<'a>(&self, lab: &'a Lab) -> &'a NetNs {
        match self {
            Self::Pod(key) => &lab.pods[key].station.netns,
            Self::Node(at) => &lab.nodes[*at].station.netns,
            Self::Host(name) => &lab.hosts[name].station.netns,
        }
    }

    pub fn ip(&self, lab: &Lab, v6: bool) -> IpAddr {
        match self {
            Self::Pod(key) => lab.pods[key].ips[usize::from(v6)],
            Self::Node(at) => lab.nodes[*at].node.addresses[usize::from(v6)],
            Self::Host(name) => lab.hosts[name].ips[usize::from(v6)],
        }
    }

    /// The source address of what goes from here to there.
    pub fn source(&self, lab: &Lab, to: &Self, v6: bool) -> IpAddr {
        match (self, to) {
            (Self::Node(at), Self::Pod(key)) if lab.pods[key].node == *at => {
                lab::gateways(*at)[usize::from(v6)]
            }
            _ => self.ip(lab, v6),
        }
    }
}

/// A connection to try.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    pub from: Place,
    pub to: Place,
    pub v6: bool,
    /// None for an echo by ICMP.
    pub port: Option<(Protocol, u16)>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        write!(f, "{} -> {} {family} ", self.from, self.to)?;
        match self.port {
            Some((protocol, port)) => write!(f, "{protocol} {port}"),
            None => f.write_str("ICMP echo"),
        }
    }
}

/// What became of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    Silence,
    /// A reset or another error: no policy does that.
    Failed(ErrorKind),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => f.write_str("answered"),
            Self::Silence => f.write_str("silence"),
            Self::Failed(kind) => write!(f, "failed: {kind}"),
        }
    }
}

/// Every connection there is to try: between all pods, and between them, the nodes and the host
/// outside.
pub fn all(lab: &Lab) -> Vec<Probe> {
    let pods: Vec<Place> = lab.pods.keys().cloned().map(Place::Pod).collect();
    let others = [
        Place::Node(0),
        Place::Node(1),
        Place::Host("outside".into()),
    ];
    let ports = |count: usize| {
        let numbers = PORTS[..count].iter();
        let ports = numbers.flat_map(|port| {
            [Protocol::Tcp, Protocol::Udp].map(|protocol| Some((protocol, *port)))
        });
        ports.chain([None]).collect::<Vec<_>>()
    };
    let mut probes = Vec::new();
    let mut add = |from: &Place, to: &Place, count| {
        for port in ports(count) {
            for v6 in [false, true] {
                probes.push(Probe {
                    from: from.clone(),
                    to: to.clone(),
                    v6,
                    port,
                });
            }
        }
    };
    for from in &pods {
        pods.iter().for_each(|to| add(from, to, 2));
        others.iter().for_each(|to| add(from, to, 1));
    }
    for from in &others {
        pods.iter().for_each(|to| add(from, to, 1));
    }
    probes
}

/// Where the outcome is not what was expected, after a second try where time may be the reason.
pub fn differences(lab: &Lab, probes: &[Probe], expected: &[bool]) -> Vec<String> {
    let mut outcomes = run(lab, probes, expected, PATIENCE);
    let as_expected = |at: usize, outcome| match outcome {
        Outcome::Answered => expected[at],
        Outcome::Silence => !expected[at],
        Outcome::Failed(_) => false,
    };
    // What was let through against all expectation stays so.
    let late = |at: &usize| {
        let outcome = outcomes[*at];
        !as_expected(*at, outcome) && outcome != Outcome::Answered
    };
    let again: Vec<usize> = (0..probes.len()).filter(late).collect();
    if !again.is_empty() {
        let alone: Vec<Probe> = again.iter().map(|at| probes[*at].clone()).collect();
        let wanted: Vec<bool> = again.iter().map(|at| expected[*at]).collect();
        for (at, outcome) in again.iter().zip(run(lab, &alone, &wanted, LONG)) {
            outcomes[*at] = outcome;
        }
    }
    let wrong = (0..probes.len()).filter(|at| !as_expected(*at, outcomes[*at]));
    wrong
        .map(|at| {
            let word = if expected[at] { "allowed" } else { "denied" };
            let (probe, outcome) = (&probes[at], outcomes[at]);
            format!("{probe}: expected {word}, got {outcome}")
        })
        .collect()
}

/// Tries all at once; the outcomes are in the probes' order.
pub fn run(lab: &Lab, probes: &[Probe], expected: &[bool], patience: Duration) -> Vec<Outcome> {
    let mut table = Table::start(lab, probes);
    let begun = Instant::now();
    let deadline = begun + patience;
    while table.open(expected) && Instant::now() < deadline {
        table.read(deadline);
    }
    if table.outcomes.iter().any(Option::is_none) {
        // The slower the machine, the longer what must not come may take.
        let silence = SILENCE.max(begun.elapsed());
        lab.server.barrier();
        let deadline = Instant::now() + silence;
        while Instant::now() < deadline {
            table.read(deadline);
        }
        lab.server.barrier();
        table.read(Instant::now());
    }
    let outcomes = table.outcomes.iter();
    outcomes
        .map(|outcome| outcome.unwrap_or(Outcome::Silence))
        .collect()
}

/// A socket and what it carries.
enum Socket {
    /// One connection.
    Tcp(OwnedFd, usize),
    /// Flows by whom they go to.
    Udp(UdpSocket, BTreeMap<SocketAddr, usize>),
    /// Echoes by sequence number.
    Echo(UdpSocket, Vec<usize>),
}

struct Table {
    sockets: Vec<Socket>,
    outcomes: Vec<Option<Outcome>>,
}

impl Table {
    fn start(lab: &Lab, probes: &[Probe]) -> Self {
        let mut table = Self {
            sockets: Vec::new(),
            outcomes: vec![None; probes.len()],
        };
        let mut by_place: BTreeMap<&Place, Vec<usize>> = BTreeMap::new();
        for (index, probe) in probes.iter().enumerate() {
            by_place.entry(&probe.from).or_default().push(index);
        }
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                for (place, indices) in by_place {
                    place.netns(lab).enter().unwrap();
                    table.send(lab, probes, &indices);
                }
            });
            sending.join().unwrap();
        });
        table
    }

    /// Sends what goes from the namespace of this thread.
    fn send(&mut self, lab: &Lab, probes: &[Probe], indices: &[usize]) {
        for v6 in [false, true] {
            let mut datagrams = BTreeMap::new();
            let mut echoes = Vec::new();
            for index in indices.iter().copied().filter(|at| probes[*at].v6 == v6) {
                let probe = &probes[index];
                let ip = probe.to.ip(lab, v6);
                match probe.port {
                    Some((Protocol::Udp, port)) => {
                        datagrams.insert(SocketAddr::from((ip, port)), index);
                    }
                    Some((_, port)) => self.connect(index, (ip, port).into()),
                    None => echoes.push((index, ip)),
                }
            }
            if !datagrams.is_empty() {
                self.datagrams(v6, datagrams);
            }
            if !echoes.is_empty() {
                self.echoes(v6, &echoes);
            }
        }
    }

    fn connect(&mut self, index: usize, to: SocketAddr) {
        let fd = tcp(to.is_ipv6());
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(nix::Error::EINPROGRESS) => self.sockets.push(Socket::Tcp(fd, index)),
            Err(errno) => self.outcomes[index] = Some(failed(errno)),
        }
    }

    fn datagrams(&mut self, v6: bool, to: BTreeMap<SocketAddr, usize>) {
        let udp = udp(v6);
        for (to, index) in &to {
            if let Err(error) = udp.send_to(b"?", to) {
                self.outcomes[*index] = Some(Outcome::Failed(error.kind()));
            }
        }
        self.sockets.push(Socket::Udp(udp, to));
    }

    fn echoes(&mut self, v6: bool, to: &[(usize, IpAddr)]) {
        let socket = echo(v6);
        for (sequence, (index, ip)) in to.iter().enumerate() {
            if let Err(error) = socket.send_to(&echo_request(v6, sequence), (*ip, 0)) {
                self.outcomes[*index] = Some(Outcome::Failed(error.kind()));
            }
        }
        let indices = to.iter().map(|(index, _)| *index).collect();
        self.sockets.push(Socket::Echo(socket, indices));
    }

    /// Whether something that should be answered is not yet.
    fn open(&self, expected: &[bool]) -> bool {
        let mut both = self.outcomes.iter().zip(expected);
        both.any(|(outcome, expected)| *expected && outcome.is_none())
    }

    /// Waits for the next answers.
    fn read(&mut self, until: Instant) {
        let Self { sockets, outcomes } = self;
        let open = |index: &usize| outcomes[*index].is_none();
        sockets.retain(|socket| match socket {
            Socket::Tcp(_, index) => open(index),
            Socket::Udp(_, to) => to.values().any(open),
            Socket::Echo(_, to) => to.iter().any(open),
        });
        let fds = sockets.iter().map(|socket| match socket {
            Socket::Tcp(fd, _) => PollFd::new(fd.as_fd(), PollFlags::POLLOUT),
            Socket::Udp(udp, _) | Socket::Echo(udp, _) => {
                PollFd::new(udp.as_fd(), PollFlags::POLLIN)
            }
        });
        let mut fds: Vec<PollFd<'_>> = fds.collect();
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        if poll(&mut fds, timeout).is_err() {
            return;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        drop(fds);
        let mut buffer = [0; 64];
        for (socket, _) in sockets.iter().zip(ready).filter(|(_, ready)| *ready) {
            match socket {
                Socket::Tcp(fd, index) => outcomes[*index] = Some(connected(fd.as_fd())),
                Socket::Udp(udp, to) => {
                    while let Ok((_, from)) = udp.recv_from(&mut buffer) {
                        if let Some(index) = to.get(&from) {
                            outcomes[*index] = Some(Outcome::Answered);
                        }
                    }
                }
                Socket::Echo(socket, to) => {
                    while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                        let sequence = usize::from(u16::from_be_bytes([buffer[6], buffer[7]]));
                        let kind = if from.is_ipv6() { 129 } else { 0 };
                        if let Some(index) = to.get(sequence).filter(|_| buffer[0] == kind) {
                            outcomes[*index] = Some(Outcome::Answered);
                        }
                    }
                }
            }
        }
    }
}

/// Tries a TCP connection to an address, which need not be its server's own.
pub fn reaches(lab: &Lab, from: &Place, to: SocketAddr, expected: bool) -> Outcome {
    let fd = linux::run_in(from.netns(lab), || tcp(to.is_ipv6())).unwrap();
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(nix::Error::EINPROGRESS) => {}
        Err(errno) => return failed(errno),
    }
    let end = Instant::now() + if expected { LONG } else { SILENCE * 4 };
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(1) => return connected(fd.as_fd()),
            Err(nix::Error::EINTR) => {}
            _ => return Outcome::Silence,
        }
    }
}

/// Reads again where a signal came between: a socket with a timeout does not by itself.
pub fn undisturbed(mut read: impl FnMut() -> std::io::Result<usize>) -> std::io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// A TCP socket of this thread's namespace that ends without a trace.
pub fn tcp(v6: bool) -> OwnedFd {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family(v6), SockType::Stream, flags, SockProtocol::Tcp).unwrap();
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&fd, Linger, &linger).unwrap();
    fd
}

/// A UDP socket of this thread's namespace.
pub fn udp(v6: bool) -> UdpSocket {
    let any: IpAddr = if v6 { [0_u16; 8].into() } else { [0; 4].into() };
    let udp = UdpSocket::bind((any, 0)).unwrap();
    udp.set_nonblocking(true).unwrap();
    udp
}

/// A socket of this thread's namespace for echoes by ICMP.
fn echo(v6: bool) -> UdpSocket {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let protocol = if v6 {
        SockProtocol::IcmpV6
    } else {
        SockProtocol::Icmp
    };
    let fd = socket(family(v6), SockType::Datagram, flags, protocol).unwrap();
    UdpSocket::from(fd)
}

fn echo_request(v6: bool, sequence: usize) -> [u8; 8] {
    let [high, low] = (sequence as u16).to_be_bytes();
    // The kernel fills in the checksum and the identifier.
    [if v6 { 128 } else { 8 }, 0, 0, 0, 0, 0, high, low]
}

fn family(v6: bool) -> AddressFamily {
    if v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}

/// What became of a TCP connection that is no longer under way.
pub fn connected(fd: BorrowedFd<'_>) -> Outcome {
    match getsockopt(&fd, SocketError) {
        Ok(0) => Outcome::Answered,
        Ok(errno) => failed(nix::Error::from_raw(errno)),
        Err(errno) => failed(errno),
    }
}

fn failed(errno: nix::Error) -> Outcome {
    Outcome::Failed(std::io::Error::from(errno).kind())
}
