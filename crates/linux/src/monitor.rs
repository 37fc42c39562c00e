//! What changes in a network namespace, as it changes.
//!
//! Of nftables the kernel tells every rule and every element, of a `flush ruleset` each rule,
//! chain, set (not its elements) and table. It names the socket that asked for the change, so
//! one's own are passed over by the kernel, before they take any room: [`Monitor::ignore`]. What
//! was refused is not told, for it changes nothing.
//!
//! iptables of the variant `nf_tables` is told as tables `nat`, `filter`, ... of the families `ip`
//! and `ip6`; the legacy variant is told by nobody and can only be looked at.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nft::wire::read::subject;

use crate::bpf::{DROP, PASS, attach, end, jump_equal, statement};
use crate::error::{Error, Result};
use crate::link::Link;
use crate::neigh::{FdbEntry, Neighbour};
use crate::netlink::split;
use crate::netns::{NetNs, run_in};
use crate::route::Route;
use crate::rule::{self, MarkRule};
use crate::{Address, addr, link, neigh, route};

/// `RTNLGRP_*`: links, neighbours, addresses, routes and rules of both families.
const ROUTE_GROUPS: [u32; 8] = [1, 3, 5, 7, 8, 9, 11, 19];
/// `NFNLGRP_NFTABLES`
const NFTABLES_GROUP: u32 = 7;
/// Room for bursts; what does not fit is told as [`Event::Lost`].
const SOCKET_BUFFER: usize = 1 << 20;
const RECEIVE_BUFFER: usize = 64 << 10;
/// At most this many at once, so that a flood does not keep the caller.
const EVENTS_AT_ONCE: usize = 1024;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link is there, new or different, or it is gone.
    Link {
        /// As it is, or was.
        link: Link,
        /// It is gone.
        gone: bool,
    },
    /// An address.
    Address {
        /// As it is, or was.
        address: Address,
        /// It is gone.
        gone: bool,
    },
    /// A route.
    Route {
        /// As it is, or was.
        route: Route,
        /// It is gone.
        gone: bool,
    },
    /// A rule of routing by a mark.
    Rule {
        /// As it is, or was.
        rule: MarkRule,
        /// It is gone.
        gone: bool,
    },
    /// A neighbour.
    Neighbour {
        /// As it is, or was.
        neighbour: Neighbour,
        /// It is gone.
        gone: bool,
    },
    /// A forwarding entry.
    Fdb {
        /// As it is, or was.
        entry: FdbEntry,
        /// It is gone.
        gone: bool,
    },
    /// Something in an nftables table; told once for many changes of one object in a row.
    Nftables {
        /// Name of the table.
        table: String,
        /// Name of the chain or set; [`None`] where it is about the table itself.
        name: Option<String>,
    },
    /// More changed than there was room for: look at everything.
    Lost,
}

/// A subscription to the changes of one network namespace. Its descriptor is readable when
/// there is something to [`Monitor::read`].
pub struct Monitor {
    route: Socket,
    nftables: Socket,
    epoll: OwnedFd,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").finish_non_exhaustive()
    }
}

impl Monitor {
    /// Subscribes to the calling thread's namespace.
    pub fn open() -> Result<Self> {
        let failed = |error: std::io::Error| Error::io("netlink subscription", "open", &error);
        let route = subscribe(NETLINK_ROUTE, &ROUTE_GROUPS).map_err(failed)?;
        let nftables = subscribe(NETLINK_NETFILTER, &[NFTABLES_GROUP]).map_err(failed)?;
        let epoll = both(&route, &nftables).map_err(failed)?;
        Ok(Self {
            route,
            nftables,
            epoll,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
        })
    }

    /// Subscribes to another namespace.
    pub fn open_in(netns: &NetNs) -> Result<Self> {
        run_in(netns, Self::open)?
    }

    /// From now on does not tell what these handles change ([`crate::Nftables::port`]), nor what
    /// processes do that [`Ignored`] is told of.
    pub fn ignore(&mut self, ports: &[u32]) -> Result<Ignored> {
        let socket = self.nftables.as_fd().try_clone_to_owned();
        let ignored = Ignored {
            socket: socket.map_err(|error| unfiltered(&error))?,
            ports: ports.to_vec(),
        };
        ignored.set(None)?;
        Ok(ignored)
    }

    /// What changed since the last call, without waiting; to be called again until it returns
    /// nothing.
    pub fn read(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        while events.len() < EVENTS_AT_ONCE && self.receive(true, &mut events)? {}
        while events.len() < EVENTS_AT_ONCE && self.receive(false, &mut events)? {}
        Ok(events)
    }

    /// Waits for changes, at most this long.
    pub fn wait(&mut self, timeout: std::time::Duration) -> Result<Vec<Event>> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.epoll.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => self.read(),
            Err(errno) => Err(Error::kernel(
                "netlink subscription",
                "wait",
                errno as i32,
                None,
            )),
        }
    }

    /// One datagram; false where there is none.
    fn receive(&mut self, from_route: bool, events: &mut Vec<Event>) -> Result<bool> {
        let socket = if from_route {
            &self.route
        } else {
            &self.nftables
        };
        self.buffer.clear();
        match socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
            Ok(_) => {}
            Err(error) => {
                return match error.raw_os_error() {
                    Some(libc::EAGAIN) => Ok(false),
                    Some(libc::EINTR) => Ok(true),
                    Some(libc::ENOBUFS) => {
                        events.push(Event::Lost);
                        Ok(true)
                    }
                    _ => Err(Error::io("netlink subscription", "read", &error)),
                };
            }
        }
        let mut rest = self.buffer.as_slice();
        while let Some((raw, next)) = split(rest) {
            rest = next;
            if !from_route {
                let event = subject(raw.kind, raw.payload())
                    .map(|(table, name)| Event::Nftables { table, name });
                events.extend(event.filter(|event| events.last() != Some(event)));
            } else if let Ok(NetlinkMessage {
                payload: NetlinkPayload::InnerMessage(message),
                ..
            }) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(raw.bytes)
            {
                events.extend(event(message));
            }
        }
        Ok(true)
    }
}

/// Whose changes of nftables a [`Monitor`] does not tell.
#[derive(Debug)]
pub struct Ignored {
    /// The monitor's own socket.
    socket: OwnedFd,
    ports: Vec<u32>,
}

impl Ignored {
    /// Besides the handles one process, from before it changes anything until it has ended: the
    /// first socket of a process has its number.
    pub(crate) fn set(&self, process: Option<u32>) -> Result<()> {
        /// Where a netlink message has the port: all messages of one datagram have the same.
        const PORT: u32 = 12;
        let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        let mut program = vec![statement(load, PORT)];
        for port in self.ports.iter().copied().chain(process) {
            // A filter loads in network order.
            let value = u32::from_be_bytes(port.to_ne_bytes());
            program.extend([jump_equal(value, 0, 1), end(DROP)]);
        }
        program.push(end(PASS));
        attach(&self.socket, &mut program).map_err(|error| unfiltered(&error))
    }
}

fn unfiltered(error: &std::io::Error) -> Error {
    Error::io("netlink subscription", "filter", error)
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.epoll.as_raw_fd()
    }
}

fn event(message: RouteNetlinkMessage) -> Option<Event> {
    use RouteNetlinkMessage as Message;
    let gone = matches!(
        message,
        Message::DelLink(_)
            | Message::DelAddress(_)
            | Message::DelRoute(_)
            | Message::DelRule(_)
            | Message::DelNeighbour(_)
    );
    Some(match message {
        // Of the bridge family are changes of a port's state, with a part of the link only.
        Message::NewLink(message) | Message::DelLink(message)
            if message.header.interface_family == AddressFamily::Unspec =>
        {
            let link = link::parse(&message)?;
            Event::Link { link, gone }
        }
        Message::NewAddress(message) | Message::DelAddress(message) => {
            let address = addr::parse(&message)?;
            Event::Address { address, gone }
        }
        Message::NewRoute(message) | Message::DelRoute(message) => {
            let route = route::parse(&message)?;
            Event::Route { route, gone }
        }
        Message::NewRule(message) | Message::DelRule(message) => {
            let rule = rule::parse(&message)?;
            Event::Rule { rule, gone }
        }
        Message::NewNeighbour(message) | Message::DelNeighbour(message) => {
            if message.header.family == AddressFamily::Bridge {
                let entry = neigh::parse_fdb(&message)?;
                Event::Fdb { entry, gone }
            } else {
                let neighbour = neigh::parse(&message)?;
                Event::Neighbour { neighbour, gone }
            }
        }
        _ => return None,
    })
}

fn subscribe(protocol: isize, groups: &[u32]) -> std::io::Result<Socket> {
    use nix::sys::socket::{setsockopt, sockopt};
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    // Beyond the system's limit where that is allowed; the limit itself is enough mostly.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER));
    for group in groups {
        socket.add_membership(*group)?;
    }
    Ok(socket)
}

/// One descriptor that is readable when either socket is.
fn both(a: &Socket, b: &Socket) -> std::io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
    for socket in [a, b] {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: 0,
        };
        // SAFETY: both descriptors are open, and `event` outlives the call.
        let added = unsafe {
            libc::epoll_ctl(
                epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                socket.as_raw_fd(),
                &mut event,
            )
        };
        if added < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(epoll)
}
