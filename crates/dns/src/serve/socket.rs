//! The sockets of a listener.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, setsockopt, socket, sockopt,
};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Datagrams may wait while a batch is answered; the kernel's default holds some 250 of them.
/// What the kernel allows without privilege may be less.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A UDP and a TCP socket on an address, that others of the same user may share. Port 0 takes
/// one that is free for both.
pub(super) fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    const TRIES: usize = 16;
    for _ in 0..TRIES {
        let tcp = bind_tcp(address)?;
        match bind_udp(tcp.local_addr()?) {
            Ok(udp) => return Ok((udp, tcp)),
            Err(error) if address.port() != 0 => return Err(error),
            Err(_) => {}
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// A TCP socket that listens on an address.
pub(super) fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = make(SockType::Stream, address)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    nix::sys::socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket.into())
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = make(SockType::Datagram, address)?;
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    let socket = socket.into();
    tune_udp(&socket, address)?;
    Ok(socket)
}

/// What a UDP socket needs, our own or one that was given.
pub(super) fn tune_udp(socket: &UdpSocket, local: SocketAddr) -> io::Result<()> {
    if local.ip().is_unspecified() {
        if local.is_ipv6() {
            setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
        }
    }
    // Less room is no reason not to serve.
    let _ = setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER);
    Ok(())
}

fn make(kind: SockType, address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, kind, flags, None)?;
    if address.is_ipv6() {
        // The wildcard is that of both families; another IPv6 address is of its own anyway.
        let only_v6 = !address.ip().is_unspecified();
        setsockopt(&socket, sockopt::Ipv6V6Only, &only_v6)?;
    }
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    Ok(socket)
}
