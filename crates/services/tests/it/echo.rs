//! Servers inside the lab that tell who answered and which source address they saw.
//!
//! Over TCP the greeting `NAME SOURCE-ADDRESS SOURCE-PORT\n` comes with the connection, and what
//! is sent after it is sent back; over UDP each datagram is answered by the greeting.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use linux::{NetNs, run_in};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Backlog, listen};

/// What a server says of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Greeting {
    /// Name of the server.
    pub who: String,
    /// The source it saw.
    pub seen: SocketAddr,
}

impl Greeting {
    /// Reads one line; [`None`] where it is not whole.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
        let mut words = line.split(' ');
        let who = words.next()?.to_owned();
        let ip: IpAddr = words.next()?.parse().ok()?;
        let port = words.next()?.parse().ok()?;
        Some(Self {
            who,
            seen: (ip, port).into(),
        })
    }

    fn line(who: &str, seen: SocketAddr) -> Vec<u8> {
        format!("{who} {} {}\n", seen.ip(), seen.port()).into_bytes()
    }
}

/// A server; it ends when this is dropped.
pub struct Server {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves TCP and UDP at these addresses of a namespace.
    pub fn start(name: &str, netns: &NetNs, at: &[SocketAddr]) -> Self {
        let (listeners, datagrams) = run_in(netns, || {
            let listeners = at.iter().map(|at| TcpListener::bind(at).unwrap());
            let listeners: Vec<TcpListener> = listeners.collect();
            let datagrams = at.iter().map(|at| UdpSocket::bind(at).unwrap());
            (listeners, datagrams.collect::<Vec<UdpSocket>>())
        })
        .unwrap();
        for listener in &listeners {
            listener.set_nonblocking(true).unwrap();
            // The standard library's queue is of 128.
            listen(listener, Backlog::new(4096).unwrap()).unwrap();
        }
        for socket in &datagrams {
            socket.set_nonblocking(true).unwrap();
        }
        let (stop, stopped) = UnixStream::pair().unwrap();
        let work = Work {
            name: name.to_owned(),
            listeners,
            datagrams,
            streams: BTreeMap::new(),
        };
        let thread = std::thread::spawn(move || work.run(&stopped));
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    name: String,
    listeners: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
    streams: BTreeMap<RawFd, TcpStream>,
}

impl Work {
    fn run(mut self, stopped: &UnixStream) {
        loop {
            let ready = {
                let sockets = self.listeners.iter().map(AsFd::as_fd);
                let sockets = sockets.chain(self.datagrams.iter().map(AsFd::as_fd));
                let sockets = sockets.chain(self.streams.values().map(AsFd::as_fd));
                let mut fds: Vec<PollFd<'_>> = std::iter::once(stopped.as_fd())
                    .chain(sockets)
                    .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                    .collect();
                if poll(&mut fds, PollTimeout::NONE).is_err() {
                    continue;
                }
                let ready = fds.iter().filter(|fd| fd.any() == Some(true));
                let ready = ready.map(|fd| fd.as_fd().as_raw_fd());
                ready.collect::<Vec<RawFd>>()
            };
            if ready.contains(&stopped.as_raw_fd()) {
                return;
            }
            self.answer(&ready);
        }
    }

    fn answer(&mut self, ready: &[RawFd]) {
        let mut buffer = [0; 4096];
        for fd in ready {
            let Some(stream) = self.streams.get_mut(fd) else {
                continue;
            };
            let alive = match stream.read(&mut buffer) {
                Ok(0) => false,
                Ok(len) => stream.write_all(&buffer[..len]).is_ok(),
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            };
            if !alive {
                self.streams.remove(fd);
            }
        }
        for socket in &self.datagrams {
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&Greeting::line(&self.name, from), from);
            }
        }
        for listener in &self.listeners {
            while let Ok((mut stream, from)) = listener.accept() {
                let greeted = stream.write_all(&Greeting::line(&self.name, from));
                if greeted.is_ok() && stream.set_nonblocking(true).is_ok() {
                    self.streams.insert(stream.as_raw_fd(), stream);
                }
            }
        }
    }
}
