//! Connections that stay open while policies change: of each it is seen whether what is sent over
//! it now comes back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use linux::run_in;
use model::Protocol;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::lab::Lab;
use crate::probe::{self, LONG, Probe};

/// How long nothing must come of what is cut.
const SILENCE: Duration = Duration::from_millis(15);

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// A connection; what is sent over it are numbers.
struct Open {
    probe: Probe,
    socket: Socket,
    sent: u64,
    /// The last number that came back.
    back: u64,
    part: Vec<u8>,
}

impl Open {
    fn new(lab: &Lab, probe: Probe) -> Self {
        let Some((protocol, port)) = probe.port else {
            panic!("{probe} has no port");
        };
        let to = SocketAddr::from((probe.to.ip(lab, probe.v6), port));
        let socket = run_in(probe.from.netns(lab), || {
            if protocol == Protocol::Udp {
                let udp = probe::udp(probe.v6);
                udp.connect(to).unwrap();
                Socket::Udp(udp)
            } else {
                let stream = TcpStream::connect_timeout(&to, LONG).unwrap();
                stream.set_nonblocking(true).unwrap();
                stream.set_nodelay(true).unwrap();
                Socket::Tcp(stream)
            }
        });
        Self {
            probe,
            socket: socket.unwrap(),
            sent: 0,
            back: 0,
            part: Vec::new(),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Udp(udp) => udp.as_fd(),
        }
    }

    fn send(&mut self) {
        self.sent += 1;
        let bytes = self.sent.to_be_bytes();
        // What the kernel says of a connection that is cut tells nothing.
        let _ = match &mut self.socket {
            Socket::Tcp(stream) => stream.write(&bytes),
            Socket::Udp(udp) => udp.send(&bytes),
        };
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            let read = match &mut self.socket {
                Socket::Tcp(stream) => stream.read(&mut buffer),
                Socket::Udp(udp) => udp.recv(&mut buffer),
            };
            let Ok(len @ 1..) = read else {
                return;
            };
            self.part.extend_from_slice(&buffer[..len]);
            while let Some((number, rest)) = self.part.split_first_chunk() {
                let number = u64::from_be_bytes(*number);
                if matches!(self.socket, Socket::Tcp(_)) {
                    assert_eq!(number, self.back + 1, "{}: something is lost", self.probe);
                }
                self.back = number;
                self.part = rest.to_vec();
            }
        }
    }
}

/// Connections that stay open.
pub struct Traffic {
    all: Vec<Open>,
    opened: Instant,
}

impl Traffic {
    /// Opens them; all must be allowed now.
    pub fn open(lab: &Lab, probes: impl IntoIterator<Item = Probe>) -> Self {
        let open = probes.into_iter().map(|probe| Open::new(lab, probe));
        Self {
            all: open.collect(),
            opened: Instant::now(),
        }
    }

    /// Which they are.
    pub fn probes(&self) -> Vec<Probe> {
        self.all.iter().map(|open| open.probe.clone()).collect()
    }

    /// Sends something over each at once: where the outcome is not what is expected.
    pub fn differences(&mut self, lab: &Lab, expected: &[bool]) -> Vec<String> {
        // Without a bound of its own TCP waits, before it sends again, as long again as it was cut.
        let patience = LONG + self.opened.elapsed() * 2;
        let begun = Instant::now();
        let before: Vec<u64> = self.all.iter().map(|open| open.back).collect();
        self.all.iter_mut().for_each(Open::send);
        let missing = |open: &Open, expected: &bool| *expected && open.back < open.sent;
        while begun.elapsed() < patience {
            let both = self.all.iter().zip(expected);
            if !both.clone().any(|(open, expected)| missing(open, expected)) {
                break;
            }
            self.read(patience - begun.elapsed().min(patience));
        }
        let cut = expected.iter().any(|expected| !expected);
        let end = Instant::now() + SILENCE.max(begun.elapsed().min(SILENCE * 20));
        while cut && Instant::now() < end {
            lab.server.barrier();
            self.read(end.saturating_duration_since(Instant::now()));
        }
        let all = self.all.iter().zip(expected).zip(before);
        let wrong = all.filter_map(|((open, expected), before)| {
            if missing(open, expected) {
                Some(format!("{} is cut, should be open", open.probe))
            } else if !expected && open.back != before {
                Some(format!("{} is open, should be cut", open.probe))
            } else {
                None
            }
        });
        wrong.collect()
    }

    fn read(&mut self, time: Duration) {
        let waiting = |open: &&mut Open| open.back < open.sent;
        let mut open: Vec<&mut Open> = self.all.iter_mut().filter(waiting).collect();
        let fds = open
            .iter()
            .map(|open| PollFd::new(open.fd(), PollFlags::POLLIN));
        let mut fds: Vec<PollFd<'_>> = fds.collect();
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut fds, timeout);
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        drop(fds);
        for (open, _) in open.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            open.read();
        }
    }
}
