//! Sockets towards upstreams.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpSocket, TcpStream};

/// A socket to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// For connections, not datagrams.
    pub stream: bool,
    /// IPv6.
    pub v6: bool,
}

type Open = dyn Fn(Wanted) -> io::Result<OwnedFd> + Send + Sync;

/// Where sockets towards upstreams are opened: here, or by somebody who does it elsewhere, such
/// as in another network namespace. Only the opening differs; a socket stays where it was opened.
#[derive(Clone, Default)]
pub struct Dial(Option<Arc<Open>>);

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Dial(elsewhere)"
        } else {
            "Dial"
        })
    }
}

impl Dial {
    /// By this function.
    pub fn by(open: impl Fn(Wanted) -> io::Result<OwnedFd> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(open)))
    }

    fn open(&self, to: SocketAddr, stream: bool) -> io::Result<OwnedFd> {
        let v6 = to.is_ipv6();
        if let Some(open) = &self.0 {
            return open(Wanted { stream, v6 });
        }
        let family = if v6 {
            AddressFamily::Inet6
        } else {
            AddressFamily::Inet
        };
        let kind = if stream {
            SockType::Stream
        } else {
            SockType::Datagram
        };
        Ok(socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?)
    }

    /// A socket for datagrams from and to this server only. Its port is one the kernel chooses
    /// at random.
    pub(super) fn udp(
        &self,
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> io::Result<AsyncFd<UdpSocket>> {
        let opened = self.open(to, false)?;
        // Without it, some of what ICMP says about the way there is not heard.
        if to.is_ipv6() {
            setsockopt(&opened, sockopt::Ipv6RecvErr, &true)?;
        } else {
            setsockopt(&opened, sockopt::Ipv4RecvErr, &true)?;
        }
        bind_to(&opened, from)?;
        let socket = UdpSocket::from(opened);
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        // SAFETY: a socket of the standard library is the owner of its descriptor, which stays the
        // same until it is dropped.
        Ok(unsafe { AsyncFd::register(socket) }?)
    }

    /// A connection.
    pub(super) async fn tcp(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
        let opened = self.open(to, true)?;
        bind_to(&opened, from)?;
        let socket = std::net::TcpStream::from(opened);
        socket.set_nonblocking(true)?;
        let stream = TcpSocket::from_std_stream(socket).connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn bind_to(socket: &OwnedFd, from: Option<IpAddr>) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    if let Some(from) = from {
        let any_port = SockaddrStorage::from(SocketAddr::from((from, 0)));
        bind(socket.as_raw_fd(), &any_port)?;
    }
    Ok(())
}
