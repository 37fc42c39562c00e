//! One try of a path: a TCP connection, a UDP question, and a datagram as large as the
//! path's MTU that may not be split. Sockets are made inside the ends' namespaces.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linux::{NetNs, Netlink, run_in};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// An end, ready to be called and to call.
#[derive(Debug)]
pub struct Station {
    netns: Arc<NetNs>,
    /// Its link's name.
    link: String,
    /// Where it answers TCP, one a family.
    tcp: Vec<SocketAddr>,
    /// Where it answers UDP, one a family.
    udp: Vec<SocketAddr>,
}

/// How one try went.
#[derive(Debug)]
pub struct Tried {
    /// Connection and first answer.
    pub tcp: Result<Duration, String>,
    /// Question and answer.
    pub udp: Result<Duration, String>,
    /// The size that passed whole.
    pub mtu: Result<u32, String>,
    /// The address the other side saw.
    pub seen: Option<IpAddr>,
}

/// How long a try may take, by protocol.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A connection and its answer.
    pub tcp: Duration,
    /// A datagram and its answer.
    pub udp: Duration,
}

/// What a server told of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The source it saw.
    pub seen: IpAddr,
    /// Its own address.
    pub server: IpAddr,
}

fn inside<T: Send>(netns: &NetNs, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    run_in(netns, work).map_err(io::Error::other)?
}

impl Station {
    /// Listens on every address of an end, inside its namespace; answers until `servers` end.
    pub fn open(
        netns: NetNs,
        link: &str,
        addresses: &[IpAddr],
        servers: &mut JoinSet<()>,
    ) -> Result<Self, String> {
        let words = |error: io::Error| error.to_string();
        mtu(&netns, link)?;
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        for address in addresses {
            let local = SocketAddr::new(*address, 0);
            let listener = inside(&netns, || std::net::TcpListener::bind(local)).map_err(words)?;
            listener.set_nonblocking(true).map_err(words)?;
            tcp.push(listener.local_addr().map_err(words)?);
            let listener = TcpListener::from_std(listener).map_err(words)?;
            servers.spawn(answer_tcp(listener));
            let socket = inside(&netns, || std::net::UdpSocket::bind(local)).map_err(words)?;
            socket.set_nonblocking(true).map_err(words)?;
            udp.push(socket.local_addr().map_err(words)?);
            let socket = UdpSocket::from_std(socket).map_err(words)?;
            servers.spawn(answer_udp(socket));
        }
        Ok(Self {
            netns: Arc::new(netns),
            link: link.to_owned(),
            tcp,
            udp,
        })
    }

    /// Answers on a port of its choice as well, in the family of each of its addresses.
    pub fn serve(&self, port: u16, servers: &mut JoinSet<()>) -> Result<(), String> {
        let words = |error: io::Error| error.to_string();
        for address in &self.tcp {
            let local = SocketAddr::new(address.ip(), port);
            let bind = || std::net::TcpListener::bind(local);
            let listener = inside(&self.netns, bind).map_err(words)?;
            listener.set_nonblocking(true).map_err(words)?;
            servers.spawn(answer_tcp(TcpListener::from_std(listener).map_err(words)?));
            let bind = || std::net::UdpSocket::bind(local);
            let socket = inside(&self.netns, bind).map_err(words)?;
            socket.set_nonblocking(true).map_err(words)?;
            servers.spawn(answer_udp(UdpSocket::from_std(socket).map_err(words)?));
        }
        Ok(())
    }

    /// Where it answers connections of that family.
    pub fn answers_tcp(&self, v6: bool) -> Option<SocketAddr> {
        self.tcp.iter().copied().find(|at| at.is_ipv6() == v6)
    }

    /// Where it answers datagrams of that family.
    pub fn answers_udp(&self, v6: bool) -> Option<SocketAddr> {
        self.udp.iter().copied().find(|at| at.is_ipv6() == v6)
    }

    /// Tries the path to another end.
    pub async fn call(&self, other: &Self, v6: bool, patience: Patience) -> Tried {
        let (Some(tcp), Some(udp)) = (other.answers_tcp(v6), other.answers_udp(v6)) else {
            let none = || "no address of this family".to_owned();
            return Tried {
                tcp: Err(none()),
                udp: Err(none()),
                mtu: Err(none()),
                seen: None,
            };
        };
        let headers = if v6 { 48 } else { 28 };
        // Asked for each time: a change of the fabric may be on its way.
        let whole = mtu(&self.netns, &self.link)
            .and_then(|own| Ok(own.min(mtu(&other.netns, &other.link)?)));
        let large = async {
            let whole = whole?;
            self.udp(udp, whole.saturating_sub(headers), patience.udp)
                .await
                .map(|_| whole)
                .map_err(|why| format!("{whole} bytes, not to be split: {why}"))
        };
        let (tcp, asked, large) = tokio::join!(
            self.tcp(tcp, patience.tcp),
            self.udp(udp, 32, patience.udp),
            large,
        );
        let (tcp, seen) = match tcp {
            Ok((took, told)) => (Ok(took), Some(told.seen)),
            Err(why) => (Err(why), None),
        };
        Tried {
            tcp,
            udp: asked,
            mtu: large,
            seen,
        }
    }

    /// A connection to `to`, which one of the check's servers answers.
    pub async fn tcp(
        &self,
        to: SocketAddr,
        patience: Duration,
    ) -> Result<(Duration, Told), String> {
        let (took, answer) = self.talk(to, true, patience).await?;
        let strange = || format!("answered {answer:?}");
        let (seen, server) = answer.split_once(' ').ok_or_else(strange)?;
        let (Ok(seen), Ok(server)) = (seen.parse(), server.parse()) else {
            return Err(strange());
        };
        Ok((took, Told { seen, server }))
    }

    /// A connection to `to`, whoever answers.
    pub async fn connect(&self, to: SocketAddr, patience: Duration) -> Result<Duration, String> {
        Ok(self.talk(to, false, patience).await?.0)
    }

    /// Connects and, where `listen` says so, hears what the server says.
    async fn talk(
        &self,
        to: SocketAddr,
        listen: bool,
        patience: Duration,
    ) -> Result<(Duration, String), String> {
        let netns = self.netns.clone();
        let socket = blocking(move || {
            inside(&netns, || {
                if to.is_ipv6() {
                    TcpSocket::new_v6()
                } else {
                    TcpSocket::new_v4()
                }
            })
        })
        .await?;
        let start = Instant::now();
        let talk = async {
            let mut stream = socket.connect(to).await?;
            let mut answer = String::new();
            if listen {
                stream.read_to_string(&mut answer).await?;
            }
            Ok(answer)
        };
        let answer = within(patience, talk).await?;
        Ok((start.elapsed(), answer))
    }

    /// A question of that size to `to`, and its answer.
    pub async fn udp(
        &self,
        to: SocketAddr,
        size: u32,
        patience: Duration,
    ) -> Result<Duration, String> {
        let netns = self.netns.clone();
        let socket = blocking(move || inside(&netns, || unsplit(to))).await?;
        let socket = UdpSocket::from_std(socket).map_err(|error| error.to_string())?;
        let question = vec![b'?'; usize::try_from(size).unwrap_or(32)];
        let start = Instant::now();
        let talk = async {
            // A first datagram may be lost while the neighbour is asked for; three are not.
            let mut answer = vec![0; question.len() + 1];
            for _ in 0..3 {
                socket.send(&question).await?;
                if let Ok(got) = timeout(patience / 3, socket.recv(&mut answer)).await {
                    let got = got?;
                    if got != question.len() {
                        return Err(io::Error::other(format!(
                            "{got} of {} bytes came back",
                            question.len()
                        )));
                    }
                    return Ok(());
                }
            }
            Err(io::ErrorKind::TimedOut.into())
        };
        within(patience + Duration::from_millis(100), talk).await?;
        Ok(start.elapsed())
    }
}

fn mtu(netns: &NetNs, link: &str) -> Result<u32, String> {
    let found = Netlink::open_in(netns).and_then(|mut links| links.expect_link(link));
    found
        .map(|link| link.mtu)
        .map_err(|error| error.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| error.to_string())?;
    done.map_err(|error| error.to_string())
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, String> {
    let no_answer = || format!("no answer within {:.0} s", patience.as_secs_f64());
    match timeout(patience, work).await {
        Err(_) => Err(no_answer()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(no_answer()),
        Ok(Err(error)) => Err(why(&error)),
        Ok(Ok(value)) => Ok(value),
    }
}

/// What a refusal means for a path.
pub const REFUSED: &str = "the address answers, but not on this port";

/// The kernel's words, with what they mean for a path.
fn why(error: &io::Error) -> String {
    let meaning = match error.raw_os_error() {
        Some(libc::ENETUNREACH) => "no route on the way",
        Some(libc::EHOSTUNREACH) => "nobody has that address on the last link",
        Some(libc::ECONNREFUSED) => REFUSED,
        Some(libc::EMSGSIZE) => "larger than an MTU on the way",
        _ => return error.to_string(),
    };
    meaning.to_owned()
}

/// A UDP socket whose datagrams may not be split, connected to `to`.
fn unsplit(to: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let any: IpAddr = if to.is_ipv6() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
    let (level, option, value) = if to.is_ipv6() {
        (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_DO,
        )
    } else {
        (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_DO,
        )
    };
    let size = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and the option's value is an int that lives here.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size,
        )
    };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Tells each caller the address it is seen by, and who answers.
async fn answer_tcp(listener: TcpListener) {
    while let Ok((mut stream, peer)) = listener.accept().await {
        let Ok(own) = stream.local_addr() else {
            continue;
        };
        let told = format!("{} {}", peer.ip(), own.ip());
        let _ = stream.write_all(told.as_bytes()).await;
    }
}

/// Sends each datagram back.
async fn answer_udp(socket: UdpSocket) {
    let mut buffer = vec![0; 65_536];
    while let Ok((size, peer)) = socket.recv_from(&mut buffer).await {
        let _ = socket.send_to(&buffer[..size], peer).await;
    }
}
