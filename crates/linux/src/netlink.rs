//! One blocking `NETLINK_ROUTE` socket: requests, dumps, acknowledgements.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlaBuffer, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::error::{Error, Result};
use crate::netns::{NetNs, run_in};

/// Large enough for any datagram of a dump (the kernel fills at most 32 KiB).
pub(crate) const RECEIVE_BUFFER: usize = 64 << 10;
/// A dump that other changes interrupt is repeated this often.
const DUMP_TRIES: usize = 10;
/// `NLMSGERR_ATTR_MSG`: the kernel's sentence in an extended acknowledgement.
const ATTR_MESSAGE: u16 = 1;
const HEADER: usize = 16;

/// What a request was about, for errors; composed only when there is one.
pub(crate) struct About<'a> {
    pub object: &'a dyn Fn() -> String,
    pub operation: &'static str,
}

/// A socket to the kernel in the calling thread's network namespace, with short acknowledgements
/// that carry a sentence. `name` is for errors.
pub(crate) fn connected(protocol: isize, name: &'static str) -> Result<Socket> {
    let failed = |error| Error::io(name, "open", &error);
    let mut socket = Socket::new(protocol).map_err(failed)?;
    socket.bind_auto().map_err(failed)?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
    socket.set_cap_ack(true).map_err(failed)?;
    socket.set_ext_ack(true).map_err(failed)?;
    Ok(socket)
}

/// A handle to the links, addresses, routes, neighbours and queues of one network namespace.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

impl Netlink {
    /// A handle to the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        const NAME: &str = "netlink socket";
        let socket = connected(NETLINK_ROUTE, NAME)?;
        // Dumps are filtered by the kernel.
        socket
            .set_netlink_get_strict_chk(true)
            .map_err(|error| Error::io(NAME, "open", &error))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
        })
    }

    /// A handle to another network namespace.
    pub fn open_in(netns: &NetNs) -> Result<Self> {
        run_in(netns, Self::open)?
    }

    /// Sends a request that changes something and waits for the acknowledgement.
    pub(crate) fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        about: &About<'_>,
    ) -> Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags, about)?;
        self.receive(about, |_| ()).map(|_| ())
    }

    /// Sends a request with one answer.
    pub(crate) fn get(
        &mut self,
        message: RouteNetlinkMessage,
        about: &About<'_>,
    ) -> Result<Option<RouteNetlinkMessage>> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK, about)?;
        let mut answer = None;
        self.receive(about, |message| answer = Some(message))?;
        Ok(answer)
    }

    /// Asks for a whole table; repeated where it changed meanwhile, so that the answer is one
    /// consistent view. After too many repetitions the last view is returned.
    pub(crate) fn dump(
        &mut self,
        message: &RouteNetlinkMessage,
        about: &About<'_>,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut answers = Vec::new();
        for _ in 0..DUMP_TRIES {
            answers.clear();
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP, about)?;
            let interrupted = self.receive(about, |message| answers.push(message))?;
            if !interrupted {
                break;
            }
        }
        Ok(answers)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16, about: &About<'_>) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket
            .send(&bytes, 0)
            .map(|_| ())
            .map_err(|error| Error::io((about.object)(), about.operation, &error))
    }

    /// Reads until the acknowledgement or the end of the dump; true where a dump was interrupted.
    fn receive(
        &mut self,
        about: &About<'_>,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> Result<bool> {
        answers(
            &self.socket,
            &mut self.buffer,
            self.sequence,
            about,
            |raw| {
                match NetlinkMessage::<RouteNetlinkMessage>::deserialize(raw.bytes) {
                    Ok(NetlinkMessage {
                        payload: NetlinkPayload::InnerMessage(message),
                        ..
                    }) => take(message),
                    Ok(_) => {}
                    // One object of a kind nobody knows must not hide all others.
                    Err(error) => tracing::debug!(%error, "netlink message not understood"),
                }
            },
        )
    }
}

/// Reads the answers to a request until its acknowledgement or the end of the dump; true where
/// changes interrupted the dump.
pub(crate) fn answers(
    socket: &Socket,
    buffer: &mut Vec<u8>,
    sequence: u32,
    about: &About<'_>,
    mut take: impl FnMut(&Raw<'_>),
) -> Result<bool> {
    let mut interrupted = false;
    loop {
        buffer.clear();
        match socket.recv(buffer, 0) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io((about.object)(), about.operation, &error)),
        }
        let mut rest = buffer.as_slice();
        while let Some((raw, next)) = split(rest) {
            rest = next;
            if raw.sequence != sequence {
                // The remains of an answer nobody waited for.
                continue;
            }
            interrupted |= raw.flags & NLM_F_DUMP_INTR != 0;
            match raw.kind {
                NLMSG_ERROR | NLMSG_DONE => {
                    raw.status(about)?;
                    return Ok(interrupted);
                }
                NLMSG_NOOP => {}
                _ => take(&raw),
            }
        }
    }
}

impl std::os::fd::AsFd for Netlink {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

const NLMSG_NOOP: u16 = 1;
pub(crate) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// One message as it lies in a datagram.
pub(crate) struct Raw<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// Header and payload.
    pub bytes: &'a [u8],
}

impl Raw<'_> {
    /// The payload.
    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    /// The error number (positive) and sentence of an `NLMSG_ERROR` or `NLMSG_DONE`.
    pub(crate) fn error(&self) -> Option<(i32, Option<String>)> {
        let code = self.payload().get(..4)?;
        let code = i32::from_ne_bytes(code.try_into().ok()?);
        if code >= 0 {
            return None;
        }
        // Behind the number: in an error the header of the request, then attributes.
        let skip = if self.kind == NLMSG_ERROR {
            4 + HEADER
        } else {
            4
        };
        let attributes = self.payload().get(skip..).unwrap_or_default();
        let message = NlasIterator::new(attributes)
            .filter_map(|nla: std::result::Result<NlaBuffer<&[u8]>, _>| nla.ok())
            .find(|nla| nla.kind() == ATTR_MESSAGE)
            .map(|nla| {
                String::from_utf8_lossy(nla.value())
                    .trim_end_matches('\0')
                    .to_owned()
            });
        Some((-code, message))
    }

    fn status(&self, about: &About<'_>) -> Result<()> {
        match self.error() {
            None => Ok(()),
            Some((errno, message)) => Err(Error::kernel(
                (about.object)(),
                about.operation,
                errno,
                message.as_deref(),
            )),
        }
    }
}

/// The first message of a datagram and what follows.
pub(crate) fn split(bytes: &[u8]) -> Option<(Raw<'_>, &[u8])> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let length = usize::try_from(word(0)?).ok()?;
    if length < HEADER {
        return None;
    }
    let raw = Raw {
        kind: half(4)?,
        flags: half(6)?,
        sequence: word(8)?,
        bytes: bytes.get(..length)?,
    };
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((raw, next))
}
