//! Datagrams in batches: one system call for many.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

/// So many datagrams at most go through one system call.
pub(super) const BATCH: usize = 64;
/// Room for a datagram that is received. Larger than the 1232 bytes that are offered: what does
/// not fit is cut off by the kernel and then no well-formed message.
const ROOM: usize = 2048;
/// Room for the address that a datagram was sent to or comes from and for the length of its
/// segments: with their headers 40 and 24 bytes.
const CONTROL: usize = 64;

/// Control messages begin where a pointer may.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Any address of a datagram's peer.
#[derive(Clone, Copy)]
#[repr(C)]
union Peer {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

const PEER: libc::socklen_t = size_of::<Peer>() as libc::socklen_t;

/// What the kernel fills in or reads for a batch. All pointers in it are set anew before each
/// call, so that it may be moved in between.
struct Headers {
    messages: [libc::mmsghdr; BATCH],
    buffers: [libc::iovec; BATCH],
    peers: [Peer; BATCH],
    controls: [Control; BATCH],
}

impl Headers {
    fn new() -> Box<Self> {
        // SAFETY: all of it is C structures of numbers and pointers, for which zeros are valid.
        Box::new(unsafe { MaybeUninit::zeroed().assume_init() })
    }
}

/// Received datagrams and room for more.
pub(super) struct Inbox {
    headers: Box<Headers>,
    bytes: Box<[u8]>,
    received: usize,
    /// Where the socket listens: datagrams came there if they do not say otherwise.
    local: SocketAddr,
    /// Whether datagrams say where they were sent to.
    wildcard: bool,
}

impl Inbox {
    pub(super) fn new(local: SocketAddr) -> Self {
        Self {
            headers: Headers::new(),
            bytes: vec![0; BATCH * ROOM].into(),
            received: 0,
            local,
            wildcard: local.ip().is_unspecified(),
        }
    }

    /// Receives what is there, at most a batch, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there, and what the kernel says.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.received = 0;
        let headers = &mut *self.headers;
        for (index, room) in self.bytes.chunks_exact_mut(ROOM).enumerate() {
            headers.buffers[index] = libc::iovec {
                iov_base: room.as_mut_ptr().cast(),
                iov_len: ROOM,
            };
            let header = &mut headers.messages[index].msg_hdr;
            header.msg_name = (&raw mut headers.peers[index]).cast();
            header.msg_namelen = PEER;
            header.msg_iov = &raw mut headers.buffers[index];
            header.msg_iovlen = 1;
            header.msg_flags = 0;
            if self.wildcard {
                header.msg_control = (&raw mut headers.controls[index]).cast();
                header.msg_controllen = CONTROL;
            }
        }
        // SAFETY: each of the `BATCH` headers points at buffers that live as long as `self`, is
        // told their true lengths, and nothing else refers to them during the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        self.received = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        Ok(self.received)
    }

    /// A received datagram, whence it came and where it was sent to. None if its sender has no
    /// address of the Internet.
    pub(super) fn datagram(&self, index: usize) -> Option<(&[u8], SocketAddr, SocketAddr)> {
        debug_assert!(index < self.received);
        let message = &self.headers.messages[index];
        let len = (message.msg_len as usize).min(ROOM);
        let bytes = &self.bytes[index * ROOM..index * ROOM + len];
        let client = from_peer(&self.headers.peers[index])?;
        let mut server = self.local;
        if self.wildcard
            && let Some(ip) = asked(&message.msg_hdr)
        {
            server.set_ip(ip);
        }
        Some((bytes, client, server))
    }
}

/// The longest datagrams that are sent as segments of one: they cross any link whole.
const SEGMENT: usize = 1232;

/// A datagram to be sent: a part of a buffer.
#[derive(Clone, Debug)]
struct Waiting {
    bytes: Range<usize>,
    client: SocketAddr,
    server: SocketAddr,
}

/// Datagrams to be sent, in a batch; their bytes stand one behind the other in one buffer.
///
/// Those to one client go through the kernel as one that is cut at the end of its way
/// (`UDP_SEGMENT`): all pieces have one length, but for a shorter one at the end.
pub(super) struct Outbox {
    headers: Box<Headers>,
    waiting: Vec<Waiting>,
    /// How many datagrams each message of the current call stands for.
    counts: [usize; BATCH],
    /// Whether replies have to say from which address they come.
    wildcard: bool,
    /// Whether the kernel cuts.
    segments: bool,
}

impl Outbox {
    /// Of a batch at most.
    pub(super) fn new(local: SocketAddr) -> Self {
        Self {
            headers: Headers::new(),
            waiting: Vec::with_capacity(BATCH),
            counts: [0; BATCH],
            wildcard: local.ip().is_unspecified(),
            segments: true,
        }
    }

    /// Puts these bytes of the buffer up, from the server's address to a client.
    pub(super) fn push(&mut self, bytes: Range<usize>, client: SocketAddr, server: SocketAddr) {
        debug_assert!(self.waiting.len() < BATCH);
        self.waiting.push(Waiting {
            bytes,
            client,
            server,
        });
    }

    /// Sends all; what the kernel has no room for or refuses is lost, as any datagram may be.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>, bytes: &[u8]) {
        if self.segments && self.waiting.len() > 1 {
            self.waiting.sort_unstable_by(|a, b| {
                let peers = (a.client, a.server).cmp(&(b.client, b.server));
                peers.then_with(|| b.bytes.len().cmp(&a.bytes.len()))
            });
        }
        let count = self.prepare(bytes);
        let (mut sent, mut datagrams) = (0, 0);
        while sent < count {
            // SAFETY: the headers from `sent` to `count` point at addresses, control messages
            // and buffers in `self` that point at parts of `bytes`, all of which outlive the
            // call; the kernel only reads them and writes the lengths sent into the headers.
            let done = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers.messages.as_mut_ptr().add(sent),
                    (count - sent) as libc::c_uint,
                    libc::MSG_DONTWAIT,
                )
            };
            let error = io::Error::last_os_error();
            let done = usize::try_from(done).unwrap_or_default();
            datagrams += self.counts[sent..sent + done].iter().sum::<usize>();
            sent += done;
            if done == 0 {
                // The first of what was to be sent could not be: the next ones may.
                self.refused(sent, datagrams, &error, socket);
                datagrams += self.counts[sent];
                sent += 1;
            }
        }
        self.waiting.clear();
    }

    /// Makes messages of what waits; how many.
    fn prepare(&mut self, bytes: &[u8]) -> usize {
        let (mut count, mut at) = (0, 0);
        while at < self.waiting.len() {
            let first = &self.waiting[at];
            let together = if self.segments {
                together(&self.waiting[at..])
            } else {
                1
            };
            let headers = &mut *self.headers;
            for (buffer, one) in headers.buffers[at..].iter_mut().zip(&self.waiting[at..]) {
                let bytes = &bytes[one.bytes.clone()];
                *buffer = libc::iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                };
            }
            let header = &mut headers.messages[count].msg_hdr;
            header.msg_namelen = to_peer(first.client, &mut headers.peers[count]);
            header.msg_name = (&raw mut headers.peers[count]).cast();
            header.msg_iov = &raw mut headers.buffers[at];
            header.msg_iovlen = together;
            header.msg_control = (&raw mut headers.controls[count]).cast();
            let source = self.wildcard.then(|| first.server.ip());
            let segment = (together > 1).then(|| first.bytes.len() as u16);
            control(header, source, segment);
            self.counts[count] = together;
            count += 1;
            at += together;
        }
        count
    }

    /// A message was not sent: where it stands for several datagrams, they are sent one by one,
    /// and no others are put together any more.
    fn refused(&mut self, message: usize, first: usize, error: &io::Error, socket: BorrowedFd<'_>) {
        let count = self.counts[message];
        if count < 2 || error.kind() == io::ErrorKind::WouldBlock {
            return;
        }
        tracing::debug!(%error, "datagrams are not sent as segments of one");
        self.segments = false;
        let headers = &mut *self.headers;
        let header = &mut headers.messages[message].msg_hdr;
        let source = self.wildcard.then(|| self.waiting[first].server.ip());
        control(header, source, None);
        header.msg_iovlen = 1;
        for buffer in &mut headers.buffers[first..first + count] {
            header.msg_iov = buffer;
            // SAFETY: as for the call for all of them; the buffer is one of those made there.
            let _ = unsafe { libc::sendmsg(socket.as_raw_fd(), header, libc::MSG_DONTWAIT) };
        }
    }
}

/// How many of these datagrams, the longest to each client first, can be segments of one.
fn together(waiting: &[Waiting]) -> usize {
    let Some((first, others)) = waiting.split_first() else {
        return 0;
    };
    let len = first.bytes.len();
    if len > SEGMENT || len == 0 {
        return 1;
    }
    let most = (usize::from(u16::MAX) - 100) / len;
    let mut count = 1;
    for other in others.iter().take(most - 1) {
        if (other.client, other.server) != (first.client, first.server) {
            break;
        }
        count += 1;
        if other.bytes.len() < len {
            break;
        }
    }
    count
}

/// The address a datagram was sent to, where its header says so.
fn asked(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel has filled in the control buffer and its length, and the macros stay
    // within it; what they point at is read without a claim to alignment.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = at.as_ref() {
            let data = libc::CMSG_DATA(at);
            match (message.cmsg_level, message.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = data.cast::<libc::in_pktinfo>().read_unaligned();
                    return Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    return Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                _ => at = libc::CMSG_NXTHDR(header, at),
            }
        }
    }
    None
}

/// Writes into a header's control buffer, of `CONTROL` bytes, the address that the datagram is to
/// come from and the length of its segments.
fn control(header: &mut libc::msghdr, source: Option<IpAddr>, segment: Option<u16>) {
    let mut used = 0;
    // Room for the structures behind one another: see `CONTROL`.
    header.msg_controllen = CONTROL;
    match source {
        Some(IpAddr::V4(ip)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr(ip),
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            used += put(header, used, (libc::IPPROTO_IP, libc::IP_PKTINFO), info);
        }
        Some(IpAddr::V6(ip)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: ip.octets(),
                },
                ipi6_ifindex: 0,
            };
            used += put(header, used, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), info);
        }
        None => {}
    }
    if let Some(segment) = segment {
        used += put(header, used, (libc::SOL_UDP, libc::UDP_SEGMENT), segment);
    }
    header.msg_controllen = used;
}

/// Puts a control message behind those of so many bytes; how many it takes itself.
fn put<T>(header: &libc::msghdr, used: usize, (level, kind): (i32, i32), data: T) -> usize {
    let len = size_of::<T>() as libc::c_uint;
    // SAFETY: the macros only calculate.
    let (whole, space) = unsafe { (libc::CMSG_LEN(len), libc::CMSG_SPACE(len) as usize) };
    assert!(used + space <= CONTROL, "control messages have room");
    // SAFETY: the header's buffer has `CONTROL` bytes and is aligned as control messages are;
    // `used` is a sum of spaces, which keep that alignment, and what is written ends before
    // `used + space`. The data is written without a claim to alignment.
    unsafe {
        let message = header.msg_control.cast::<u8>().add(used);
        let message = message.cast::<libc::cmsghdr>();
        message.write(libc::cmsghdr {
            cmsg_len: whole as usize,
            cmsg_level: level,
            cmsg_type: kind,
        });
        libc::CMSG_DATA(message).cast::<T>().write_unaligned(data);
    }
    space
}

fn in_addr(ip: Ipv4Addr) -> libc::in_addr {
    libc::in_addr {
        s_addr: u32::from(ip).to_be(),
    }
}

fn from_peer(peer: &Peer) -> Option<SocketAddr> {
    // SAFETY: all of the union is initialised, zeros at least, and any bytes are valid for each
    // of its members; the family says which one the kernel wrote.
    unsafe {
        match i32::from(peer.family) {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(u32::from_be(peer.v4.sin_addr.s_addr));
                let port = u16::from_be(peer.v4.sin_port);
                Some(SocketAddrV4::new(ip, port).into())
            }
            libc::AF_INET6 => {
                let v6 = peer.v6;
                let (ip, port) = (Ipv6Addr::from(v6.sin6_addr.s6_addr), v6.sin6_port);
                let scope = v6.sin6_scope_id;
                Some(SocketAddrV6::new(ip, u16::from_be(port), 0, scope).into())
            }
            _ => None,
        }
    }
}

fn to_peer(address: SocketAddr, peer: &mut Peer) -> libc::socklen_t {
    match address {
        SocketAddr::V4(v4) => {
            peer.v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: in_addr(*v4.ip()),
                sin_zero: [0; 8],
            };
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(v6) => {
            peer.v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;
    use crate::serve::socket::bind;

    /// A datagram to each of these addresses of a listener comes back from there.
    fn comes_back_from(listen: &str, asked: &[&str]) {
        let (udp, _) = bind(listen.parse().unwrap()).unwrap();
        let port = udp.local_addr().unwrap().port();
        let local = udp.local_addr().unwrap();
        let (mut inbox, mut outbox) = (Inbox::new(local), Outbox::new(local));
        for ip in asked {
            let ip: IpAddr = ip.parse().unwrap();
            let any: IpAddr = if ip.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            let client = UdpSocket::bind((any, 0)).unwrap();
            client
                .set_read_timeout(Some(std::time::Duration::from_secs(5)))
                .unwrap();
            for text in ["one", "two"] {
                client.send_to(text.as_bytes(), (ip, port)).unwrap();
            }
            let mut bytes = Vec::new();
            let mut got = 0;
            while got < 2 {
                let count = match inbox.receive(udp.as_fd()) {
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => panic!("{error}"),
                };
                for index in 0..count {
                    let (datagram, from, to) = inbox.datagram(index).unwrap();
                    assert_eq!(to.ip().to_canonical(), ip);
                    let begin = bytes.len();
                    bytes.extend_from_slice(datagram);
                    outbox.push(begin..bytes.len(), from, to);
                }
                got += count;
            }
            outbox.send(udp.as_fd(), &bytes);
            for text in ["one", "two"] {
                let mut answer = [0; 8];
                let (len, from) = client.recv_from(&mut answer).unwrap();
                assert_eq!(&answer[..len], text.as_bytes());
                assert_eq!(from, SocketAddr::new(ip, port));
            }
        }
    }

    #[test]
    fn datagrams_of_any_lengths_arrive_as_they_were() {
        let (udp, _) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let local = udp.local_addr().unwrap();
        let clients: [UdpSocket; 3] = std::array::from_fn(|_| {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            let patience = std::time::Duration::from_secs(5);
            client.set_read_timeout(Some(patience)).unwrap();
            client
        });
        let mut outbox = Outbox::new(local);
        for round in 0..2 {
            // The second round as where the kernel cuts nothing.
            outbox.segments = round == 0;
            let (mut bytes, mut sent) = (Vec::new(), [const { Vec::new() }; 3]);
            for number in 0..BATCH {
                let datagram = vec![number as u8; [40, 41, 40, 60, 1232, 1233, 3000][number % 7]];
                let begin = bytes.len();
                bytes.extend_from_slice(&datagram);
                let client = number % clients.len();
                let address = clients[client].local_addr().unwrap();
                outbox.push(begin..bytes.len(), address, local);
                sent[client].push(datagram);
            }
            outbox.send(udp.as_fd(), &bytes);
            assert_eq!(outbox.segments, round == 0);
            for (client, mut sent) in clients.iter().zip(sent) {
                let mut received: Vec<Vec<u8>> = (0..sent.len())
                    .map(|_| {
                        let mut room = [0; 4096];
                        let len = client.recv(&mut room).unwrap();
                        room[..len].to_vec()
                    })
                    .collect();
                received.sort();
                sent.sort();
                assert_eq!(received, sent);
            }
        }
    }

    #[test]
    fn replies_come_from_the_address_that_was_asked() {
        comes_back_from("127.0.0.1:0", &["127.0.0.1"]);
        comes_back_from("0.0.0.0:0", &["127.0.0.1", "127.0.0.2", "127.9.9.9"]);
        comes_back_from("[::]:0", &["127.0.0.1", "127.0.0.2", "::1"]);
        comes_back_from("[::1]:0", &["::1"]);
    }
}
