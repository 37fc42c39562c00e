//! Sockets at addresses that the host does not have: what is led to them by rules of routing they
//! receive, and answer as that address.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, listen,
    setsockopt, socket, sockopt,
};

use crate::error::{Error, Result};

/// Connections that wait to be accepted; the kernel's own limit may be lower.
const BACKLOG: i32 = 4096;

/// A UDP socket at an address, in the calling thread's network namespace. It does not block.
/// Several may have one address: the kernel deals the clients out among them.
pub fn udp(at: SocketAddr) -> Result<UdpSocket> {
    let made = bound(at, SockType::Datagram, SockProtocol::Udp);
    made.map(UdpSocket::from)
        .map_err(|error| Error::io(format!("UDP socket {at}"), "bind", &error))
}

/// A TCP listener at an address; otherwise the same.
pub fn tcp(at: SocketAddr) -> Result<TcpListener> {
    let made = bound(at, SockType::Stream, SockProtocol::Tcp).and_then(|socket| {
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(socket)
    });
    made.map(TcpListener::from)
        .map_err(|error| Error::io(format!("TCP socket {at}"), "listen", &error))
}

fn bound(at: SocketAddr, kind: SockType, protocol: SockProtocol) -> io::Result<OwnedFd> {
    let family = match at.ip() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, kind, flags, protocol)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    match at.ip() {
        IpAddr::V4(_) => setsockopt(&socket, sockopt::IpTransparent, &true)?,
        IpAddr::V6(_) => {
            setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
            transparent_v6(&socket)?;
        }
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    Ok(socket)
}

fn transparent_v6(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the kernel reads one integer, which outlives the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_TRANSPARENT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
