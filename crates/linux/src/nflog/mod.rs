//! Packets that rules tell of (`NFLOG`): a listener on one group of a network namespace.
//!
//! The kernel copies the beginning of each packet and, where it was built so, says to which
//! connection it belongs; elsewhere [`crate::Conntrack::find`] knows it, unless the packet is the
//! connection's first. It numbers what it tells: what there was no room for is counted exactly.

mod packet;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nft::wire::attr::Reader;
use nft::wire::message;

use crate::conntrack::{self, Flow};
use crate::error::{Error, Result};
use crate::netlink::{About, RECEIVE_BUFFER, answers, connected, split};
use crate::netns::{NetNs, run_in};

pub use packet::{Layer4, Packet};

const SUBSYSTEM: u16 = 4;
const PACKET: u16 = SUBSYSTEM << 8;
const CONFIG: u16 = SUBSYSTEM << 8 | 1;
const REQUEST: u16 = 1;
const ACK: u16 = 4;

/// `NFULA_CFG_*`, and what they are set to.
mod config {
    pub const COMMAND: u16 = 1;
    pub const MODE: u16 = 2;
    pub const THRESHOLD: u16 = 5;
    pub const FLAGS: u16 = 6;

    pub const BIND: u8 = 1;
    pub const COPY_PACKET: u8 = 2;
    pub const NUMBERED: u16 = 1;
    pub const CONNECTION: u16 = 4;
}

/// `NFULA_*` that are read.
mod attr {
    pub const HEADER: u16 = 1;
    pub const TIMESTAMP: u16 = 3;
    pub const IN_DEV: u16 = 4;
    pub const OUT_DEV: u16 = 5;
    pub const PAYLOAD: u16 = 9;
    pub const PREFIX: u16 = 10;
    pub const NUMBER: u16 = 12;
    pub const CONNECTION: u16 = 18;
}

/// Bytes of each packet that are copied: addresses, ports and some options before them.
const COPIED: u32 = 128;
/// Room for bursts: some thousand packets.
const SOCKET_BUFFER: usize = 1 << 20;
/// At most this many at once, so that a flood does not keep the caller.
const PACKETS_AT_ONCE: usize = 256;

/// A packet that a rule told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// What the rule put before it.
    pub prefix: String,
    /// `NF_INET_*`: where on its way it was.
    pub hook: u8,
    /// The link it came by.
    pub in_dev: Option<u32>,
    /// The link it would leave by.
    pub out_dev: Option<u32>,
    /// When it arrived, since 1970; not all packets bear the time.
    pub time: Option<Duration>,
    /// Its headers, where they are those of IP.
    pub packet: Option<Packet>,
    /// The connection it belongs to, from kernels that tell it.
    pub connection: Option<Flow>,
}

/// What a [`Listener`] has heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// In their order.
    pub packets: Vec<Logged>,
    /// So many more there was no room for.
    pub lost: u64,
}

/// The one listener on a group of a network namespace. Its descriptor is readable when there is
/// something to [`Listener::read`].
pub struct Listener {
    socket: Socket,
    buffer: Vec<u8>,
    /// The number of the next packet.
    next: Option<u32>,
    object: String,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

impl Listener {
    /// Listens in the calling thread's namespace. The kernel has one listener a group: where
    /// another program is it, that is the error.
    pub fn open(group: u16) -> Result<Self> {
        use nix::sys::socket::{setsockopt, sockopt};
        let mut listener = Self {
            socket: connected(NETLINK_NETFILTER, "packet log socket")?,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
            next: None,
            object: format!("packet log group {group}"),
        };
        let socket = &listener.socket;
        // Beyond the system's limit where that is allowed; the limit itself is enough mostly.
        let _ = setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER)
            .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &SOCKET_BUFFER));
        match listener.bind(group, config::NUMBERED | config::CONNECTION) {
            // A kernel built without NETFILTER_NETLINK_GLUE_CT.
            Err(error) if error.is(libc::EOPNOTSUPP) => listener.bind(group, config::NUMBERED)?,
            bound => bound?,
        }
        Ok(listener)
    }

    /// Listens in another namespace.
    pub fn open_in(netns: &NetNs, group: u16) -> Result<Self> {
        run_in(netns, || Self::open(group))?
    }

    fn bind(&mut self, group: u16, flags: u16) -> Result<()> {
        const SEQUENCE: u32 = 1;
        let number = group.to_be_bytes();
        let header = [0, 0, number[0], number[1]];
        let [a, b, c, d] = COPIED.to_be_bytes();
        let mut bytes = Vec::new();
        message(
            &mut bytes,
            CONFIG,
            REQUEST | ACK,
            SEQUENCE,
            header,
            |body| {
                body.put(config::COMMAND, &[config::BIND]);
                body.put(config::MODE, &[a, b, c, d, config::COPY_PACKET, 0]);
                // Each at once: rules that tell have a rate.
                body.u32(config::THRESHOLD, 1);
                body.put(config::FLAGS, &flags.to_be_bytes());
            },
        );
        let (object, operation) = (&self.object, "listen");
        let about = About {
            object: &|| object.clone(),
            operation,
        };
        let sent = self.socket.send(&bytes, 0);
        sent.map_err(|error| Error::io(object, operation, &error))?;
        let (socket, buffer) = (&self.socket, &mut self.buffer);
        match answers(socket, buffer, SEQUENCE, &about, |_| ()) {
            Ok(_) => Ok(()),
            Err(error) if error.is(libc::EPERM) || error.is(libc::EBUSY) => Err(Error {
                hint: Some(
                    "another program listens on it, named in /proc/net/netfilter/nfnetlink_log \
                     by its netlink port; else this needs root or CAP_NET_ADMIN in the network \
                     namespace",
                ),
                ..error
            }),
            Err(error) => Err(error),
        }
    }

    /// What was told since the last call, without waiting; to be called again until there are no
    /// packets.
    pub fn read(&mut self) -> Result<Heard> {
        let mut heard = Heard::default();
        while heard.packets.len() < PACKETS_AT_ONCE {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => break,
                    // What there was no room for is missing in the numbers.
                    Some(libc::EINTR | libc::ENOBUFS) => continue,
                    _ => return Err(Error::io(&self.object, "read", &error)),
                },
            }
            let mut rest = self.buffer.as_slice();
            while let Some((raw, next)) = split(rest) {
                rest = next;
                let body = Reader(raw.payload().get(4..).unwrap_or_default());
                if raw.kind == PACKET {
                    heard.lost += skipped(&mut self.next, body.u32(attr::NUMBER));
                    heard.packets.push(logged(body));
                }
            }
        }
        Ok(heard)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// How many numbers are missing before this one; also before the first, for the kernel counts
/// from 0 when somebody begins to listen.
fn skipped(next: &mut Option<u32>, number: Option<u32>) -> u64 {
    let Some(number) = number else {
        return 0;
    };
    let expected = next.replace(number.wrapping_add(1)).unwrap_or(0);
    u64::from(number.wrapping_sub(expected))
}

fn logged(body: Reader<'_>) -> Logged {
    let payload = body.get(attr::PAYLOAD).unwrap_or_default();
    Logged {
        prefix: body.text(attr::PREFIX).unwrap_or_default(),
        hook: body
            .get(attr::HEADER)
            .and_then(|header| header.get(2).copied())
            .unwrap_or_default(),
        in_dev: body.u32(attr::IN_DEV),
        out_dev: body.u32(attr::OUT_DEV),
        time: body.get(attr::TIMESTAMP).and_then(timestamp),
        packet: Packet::parse(payload),
        connection: conntrack::read(body.nest(attr::CONNECTION)),
    }
}

/// Seconds and microseconds.
fn timestamp(bytes: &[u8]) -> Option<Duration> {
    let part = |at: usize| {
        let bytes = bytes.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    };
    let since = Duration::from_micros(part(8)?);
    Duration::from_secs(part(0)?).checked_add(since)
}

#[cfg(test)]
mod tests {
    use nft::wire::attr::{Reader, Writer};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn missing_numbers_are_counted() {
        let mut next = None;
        assert_eq!(skipped(&mut next, Some(2)), 2);
        assert_eq!(skipped(&mut next, Some(3)), 0);
        assert_eq!(skipped(&mut next, None), 0);
        assert_eq!(skipped(&mut next, Some(14)), 10);
        next = Some(u32::MAX);
        assert_eq!(skipped(&mut next, Some(1)), 2);
    }

    #[test]
    fn a_message_is_read() {
        let mut body = Writer::default();
        body.put(attr::HEADER, &[8, 0, 2, 0]);
        body.text(attr::PREFIX, "flatnet-policy egress");
        body.u32(attr::IN_DEV, 7);
        let time = [1_700_000_000_u64, 250_000].map(u64::to_be_bytes);
        body.put(attr::TIMESTAMP, &time.concat());
        let logged = logged(Reader(&body.bytes));
        assert_eq!(logged.prefix, "flatnet-policy egress");
        assert_eq!(
            (logged.hook, logged.in_dev, logged.out_dev),
            (2, Some(7), None)
        );
        assert_eq!(logged.time, Some(Duration::from_millis(1_700_000_000_250)));
        assert_eq!((logged.packet, logged.connection), (None, None));
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = logged(Reader(&bytes));
        }

        #[test]
        fn no_attributes_break_the_reader(
            list in prop::collection::vec((0_u16..24, prop::collection::vec(any::<u8>(), 0..96)), 0..12),
        ) {
            let mut body = Writer::default();
            for (kind, value) in &list {
                body.put(*kind, value);
            }
            let _ = logged(Reader(&body.bytes));
        }
    }
}
