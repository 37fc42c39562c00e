//! The servers of the whole lab in one thread: what comes is sent back.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use linux::{NetNs, run_in};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Backlog, listen};

/// A socket that is served.
enum Socket {
    Listener(TcpListener),
    Datagrams(UdpSocket),
    Stream(TcpStream),
}

#[derive(Default)]
struct Sockets {
    next: u64,
    /// By number, with the number of the listener that a stream came by.
    open: BTreeMap<u64, (u64, Arc<Socket>)>,
}

impl Sockets {
    fn add(&mut self, listener: Option<u64>, socket: Socket) -> u64 {
        self.next += 1;
        let parent = listener.unwrap_or(self.next);
        self.open.insert(self.next, (parent, Arc::new(socket)));
        self.next
    }
}

struct Shared {
    sockets: Mutex<Sockets>,
    /// Wakes the thread; none when it is to end.
    wake: Mutex<Option<UnixStream>>,
}

impl Shared {
    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.wake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when all that had come before is answered, and what was taken out is closed.
    fn barrier(&self) {
        if let Some(wake) = self.wake().as_mut() {
            let _ = wake
                .write_all(b"?")
                .and_then(|()| wake.read_exact(&mut [0]));
        }
    }
}

/// The thread; it ends when this is dropped.
pub struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Sockets that are served until this is dropped.
pub struct Serving {
    shared: Arc<Shared>,
    ids: Vec<u64>,
}

impl Server {
    pub fn start() -> Self {
        let (wake, woken) = UnixStream::pair().unwrap();
        let shared = Arc::new(Shared {
            sockets: Mutex::default(),
            wake: Mutex::new(Some(wake)),
        });
        let work = Arc::clone(&shared);
        let thread = std::thread::spawn(move || run(&work, woken));
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Serves TCP and UDP at these addresses and ports of a namespace.
    pub fn serve(&self, netns: &NetNs, ips: &[IpAddr], ports: &[u16]) -> Serving {
        let at = ips
            .iter()
            .flat_map(|ip| ports.iter().map(|port| SocketAddr::from((*ip, *port))));
        let opened: Vec<Socket> = run_in(netns, || at.flat_map(open).collect()).unwrap();
        let mut sockets = self.shared.sockets();
        let ids = opened
            .into_iter()
            .map(|socket| sockets.add(None, socket))
            .collect();
        drop(sockets);
        self.barrier();
        Serving {
            shared: Arc::clone(&self.shared),
            ids,
        }
    }

    /// Returns when all that had come before is answered.
    pub fn barrier(&self) {
        self.shared.barrier();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shared.wake().take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let ids = &self.ids;
        let mut sockets = self.shared.sockets();
        sockets.open.retain(|_, (parent, _)| !ids.contains(parent));
        drop(sockets);
        self.shared.barrier();
    }
}

/// What listens at an address.
fn open(at: SocketAddr) -> [Socket; 2] {
    let listener = TcpListener::bind(at).unwrap();
    listener.set_nonblocking(true).unwrap();
    // The standard library's queue is of 128.
    listen(&listener, Backlog::new(4096).unwrap()).unwrap();
    let datagrams = UdpSocket::bind(at).unwrap();
    datagrams.set_nonblocking(true).unwrap();
    [Socket::Listener(listener), Socket::Datagrams(datagrams)]
}

fn run(shared: &Shared, mut woken: UnixStream) {
    woken.set_nonblocking(true).unwrap();
    // Who waits for an answer gets it after a round that found nothing to do.
    let mut waiting = false;
    loop {
        let open: Vec<(u64, Arc<Socket>)> = {
            let sockets = shared.sockets();
            let open = sockets.open.iter();
            open.map(|(id, (_, socket))| (*id, Arc::clone(socket)))
                .collect()
        };
        let fds = open.iter().map(|(_, socket)| match &**socket {
            Socket::Listener(listener) => listener.as_fd(),
            Socket::Datagrams(datagrams) => datagrams.as_fd(),
            Socket::Stream(stream) => stream.as_fd(),
        });
        let mut fds: Vec<PollFd<'_>> = std::iter::once(woken.as_fd())
            .chain(fds)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let timeout = if waiting {
            PollTimeout::ZERO
        } else {
            PollTimeout::NONE
        };
        if poll(&mut fds, timeout).is_err() {
            continue;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        drop(fds);
        let mut busy = false;
        for ((id, socket), ready) in open.iter().zip(&ready[1..]) {
            if *ready {
                busy = true;
                answer(shared, *id, socket);
            }
        }
        drop(open);
        if waiting && !busy {
            waiting = false;
            let _ = woken.write_all(b"!");
        }
        if ready[0] {
            match woken.read(&mut [0]) {
                Ok(0) => return,
                Ok(_) => waiting = true,
                Err(_) => {}
            }
        }
    }
}

fn answer(shared: &Shared, id: u64, socket: &Socket) {
    let mut buffer = [0; 4096];
    match socket {
        Socket::Listener(listener) => {
            while let Ok((stream, _)) = listener.accept() {
                if stream.set_nonblocking(true).is_ok() && stream.set_nodelay(true).is_ok() {
                    shared.sockets().add(Some(id), Socket::Stream(stream));
                }
            }
        }
        Socket::Datagrams(datagrams) => {
            while let Ok((len, from)) = datagrams.recv_from(&mut buffer) {
                let _ = datagrams.send_to(&buffer[..len], from);
            }
        }
        Socket::Stream(stream) => {
            let mut stream: &TcpStream = stream;
            let alive = match stream.read(&mut buffer) {
                Ok(0) => false,
                Ok(len) => stream.write_all(&buffer[..len]).is_ok(),
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            };
            if !alive {
                shared.sockets().open.remove(&id);
            }
        }
    }
}
