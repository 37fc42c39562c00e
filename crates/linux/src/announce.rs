//! Answering for addresses that no link has: ARP and neighbour discovery by packet sockets.
//!
//! A program that answers by itself stops answering when it ends, whatever ended it; an address
//! on a link would stay, and a second node that takes it over would make it a duplicate.

mod packet;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::bpf::{DROP, attach, end, jump_equal, statement};
use crate::error::{Error, Result};
use crate::mac::Mac;

pub use packet::Heard;
use packet::{Asker, FRAME_MAX};

/// One link's half of one family: it hears who asks for which address, and answers.
#[derive(Debug)]
pub struct Speaker {
    socket: OwnedFd,
    index: u32,
    mac: Mac,
    v6: bool,
    groups: Groups,
}

impl Speaker {
    /// For the link `index` with hardware address `mac` of the calling thread's namespace.
    /// Needs `CAP_NET_RAW`.
    pub fn open(index: u32, mac: Mac, v6: bool) -> Result<Self> {
        let failed = |operation| move |error| Error::io(object(index, v6), operation, &error);
        // No protocol yet: nothing arrives before the filter and the link are set.
        // SAFETY: a plain system call without pointers.
        let raw = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                0,
            )
        };
        if raw < 0 {
            return Err(failed("open")(io::Error::last_os_error()));
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        if v6 {
            filter(&socket).map_err(failed("filter"))?;
        }
        bind(&socket, index, v6).map_err(failed("bind"))?;
        Ok(Self {
            socket,
            index,
            mac,
            v6,
            groups: Groups::default(),
        })
    }

    /// Whether it speaks for IPv6.
    pub fn is_v6(&self) -> bool {
        self.v6
    }

    /// The link.
    pub fn link(&self) -> u32 {
        self.index
    }

    /// The hardware address it answers with.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// All that was heard since the last call; empty where there is nothing. The socket itself
    /// becomes readable when there is something.
    pub fn read(&mut self) -> Result<Vec<Heard>> {
        /// So that a flood on the link does not hold the caller.
        const AT_ONCE: usize = 256;
        let mut heard = Vec::new();
        let mut frame = [0_u8; 512];
        for _ in 0..AT_ONCE {
            // SAFETY: the buffer is valid for its length while the call lasts.
            let length = unsafe {
                libc::recv(
                    self.socket.as_raw_fd(),
                    frame.as_mut_ptr().cast(),
                    frame.len(),
                    0,
                )
            };
            match usize::try_from(length) {
                Ok(length) => packet::hear(&frame[..length.min(frame.len())], &mut heard),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    return match error.kind() {
                        io::ErrorKind::WouldBlock => Ok(heard),
                        io::ErrorKind::Interrupted => continue,
                        _ => Err(Error::io(object(self.index, self.v6), "read", &error)),
                    };
                }
            }
        }
        Ok(heard)
    }

    /// Answers one who asked for `ip`: this link has it.
    pub fn answer(&self, ip: IpAddr, asker: &Asker) -> Result<()> {
        self.send(&packet::answer(ip, self.mac, asker))
    }

    /// Tells everybody on the link that `ip` is here now: gratuitous ARP (as request and as
    /// reply, since some hear only one of them), or an unsolicited neighbour advertisement.
    pub fn announce(&self, ip: IpAddr) -> Result<()> {
        for frame in packet::announcements(ip, self.mac) {
            self.send(&frame)?;
        }
        Ok(())
    }

    /// Asks who has `ip`, in a way that changes nobody's cache. An answer is [`Heard::Claimed`].
    pub fn probe(&self, ip: IpAddr) -> Result<()> {
        self.send(&packet::probe(ip, self.mac))
    }

    /// Begins to hear questions for an IPv6 address: they go to a multicast group. IPv4
    /// questions are broadcast and always heard.
    pub fn listen(&mut self, ip: IpAddr) -> Result<()> {
        match ip {
            IpAddr::V6(ip) => self
                .groups
                .join(packet::solicited_node(ip), self.index)
                .map_err(|error| {
                    Error::io(object(self.index, self.v6), "join multicast group", &error)
                }),
            IpAddr::V4(_) => Ok(()),
        }
    }

    /// Ends [`Speaker::listen`] for an address.
    pub fn unlisten(&mut self, ip: IpAddr) {
        if let IpAddr::V6(ip) = ip {
            self.groups.leave(packet::solicited_node(ip), self.index);
        }
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        debug_assert!(frame.len() <= FRAME_MAX);
        // SAFETY: the buffer is valid for its length while the call lasts.
        let sent = unsafe {
            libc::send(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
            )
        };
        if sent < 0 {
            let error = io::Error::last_os_error();
            return Err(Error::io(object(self.index, self.v6), "send", &error));
        }
        Ok(())
    }
}

impl AsRawFd for Speaker {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn object(index: u32, v6: bool) -> String {
    let protocol = if v6 { "neighbour discovery" } else { "ARP" };
    format!("{protocol} on link {index}")
}

fn bind(socket: &OwnedFd, index: u32, v6: bool) -> io::Result<()> {
    let protocol = if v6 {
        libc::ETH_P_IPV6
    } else {
        libc::ETH_P_ARP
    };
    // SAFETY: all bytes zero is a valid address of this kind.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = u16::try_from(protocol).unwrap_or_default().to_be();
    address.sll_ifindex = i32::try_from(index).unwrap_or_default();
    // SAFETY: the address is valid for the length given while the call lasts.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets only neighbour solicitations and advertisements through, so that the other IPv6 packets
/// of the link are not copied here.
fn filter(socket: &OwnedFd) -> io::Result<()> {
    let load_byte = |offset| statement(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, offset);
    let mut program = [
        load_byte(20),
        jump_equal(58, 0, 4),
        load_byte(54),
        jump_equal(135, 1, 0),
        jump_equal(136, 0, 1),
        end(512),
        end(DROP),
    ];
    attach(socket, &mut program)
}

/// Memberships of multicast groups. The kernel joins them on the link too, and tells switches
/// that filter multicast. One socket has room for some hundred; more are opened as needed.
#[derive(Debug, Default)]
struct Groups {
    sockets: Vec<UdpSocket>,
    /// How many addresses share the group, and which socket has joined.
    joined: BTreeMap<Ipv6Addr, (usize, usize)>,
}

impl Groups {
    fn join(&mut self, group: Ipv6Addr, index: u32) -> io::Result<()> {
        if let Some((count, _)) = self.joined.get_mut(&group) {
            *count += 1;
            return Ok(());
        }
        if let Some(socket) = self.sockets.last() {
            match socket.join_multicast_v6(&group, index) {
                Err(error) if full(&error) => {}
                result => {
                    result?;
                    self.joined.insert(group, (1, self.sockets.len() - 1));
                    return Ok(());
                }
            }
        }
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        socket.join_multicast_v6(&group, index)?;
        self.sockets.push(socket);
        self.joined.insert(group, (1, self.sockets.len() - 1));
        Ok(())
    }

    fn leave(&mut self, group: Ipv6Addr, index: u32) {
        let Some((count, socket)) = self.joined.get_mut(&group) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            if let Some(socket) = self.sockets.get(*socket) {
                // The link may be gone, and the membership with it.
                let _ = socket.leave_multicast_v6(&group, index);
            }
            self.joined.remove(&group);
        }
    }
}

fn full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}
