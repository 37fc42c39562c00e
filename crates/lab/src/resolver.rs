//! The nodes' resolver: it listens in the underlay's namespace, where nodes and pods reach it,
//! and asks the servers that this machine's `resolv.conf` names, from where the machine reaches
//! them. It passes messages on as they are and keeps nothing.
//!
//! A server on the client's network, which plays the internet, is asked from inside the
//! cluster: nobody else can reach it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use linux::{NetNs, run_in};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::cluster::address;
use crate::kubelet::Resolv;

/// Port of DNS.
pub const PORT: u16 = 53;
/// How long one server may take to answer, or to take a connection.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection may last.
const LONGEST: Duration = Duration::from_secs(60);
/// How many questions may be under way; further ones are answered SERVFAIL.
const QUESTIONS: usize = 256;
/// How many connections may be.
const CONNECTIONS: usize = 64;
/// The largest message by UDP: what anybody announces is less.
const LARGEST: usize = 16 * 1024;
const HEADER: usize = 12;
const SERVFAIL: u8 = 2;

/// What the resolver is started with.
#[derive(Debug)]
pub struct Options {
    /// Addresses in the underlay's namespace.
    pub listen: Vec<IpAddr>,
    /// The underlay's namespace.
    pub inside: NetNs,
    /// Names the servers to ask; read again when it changes.
    pub resolv_conf: PathBuf,
}

/// Why it cannot run.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}: {cause}")]
pub struct Error {
    address: SocketAddr,
    cause: String,
}

/// The servers to ask.
#[derive(Debug)]
struct Upstreams {
    inside: NetNs,
    file: PathBuf,
    read: Mutex<(Option<SystemTime>, Arc<[SocketAddr]>)>,
}

impl Upstreams {
    /// The servers that the file names now.
    fn servers(&self) -> Arc<[SocketAddr]> {
        let changed = std::fs::metadata(&self.file).and_then(|meta| meta.modified());
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = changed.ok();
        if changed.is_none() || read.0 != changed {
            let text = std::fs::read_to_string(&self.file).unwrap_or_default();
            let all = servers(&text);
            if all.is_empty() {
                tracing::warn!(file = %self.file.display(), "names no server: nothing outside the cluster can be resolved");
            }
            *read = (changed, all.into());
        }
        read.1.clone()
    }

    /// Makes a socket from which `server` can be reached.
    async fn socket<T: Send + 'static>(
        self: &Arc<Self>,
        server: SocketAddr,
        make: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if !is_client(server.ip()) {
            return make();
        }
        let own = self.clone();
        let made = tokio::task::spawn_blocking(move || run_in(&own.inside, make));
        made.await?.map_err(io::Error::other)?
    }
}

/// The servers of a `resolv.conf`. Names and zones, as in `fe80::1%eth0`, are not understood.
pub fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let named = Resolv::parse(resolv_conf).nameservers;
    let parsed = named.iter().filter_map(|text| text.parse().ok());
    parsed.map(|ip: IpAddr| SocketAddr::new(ip, PORT)).collect()
}

/// True on the network of the cluster's client.
fn is_client(ip: IpAddr) -> bool {
    let (own, _): (IpNet, IpNet) = address::client(ip.is_ipv6());
    own.trunc().contains(&ip)
}

/// Listens, and relays until the process ends.
pub async fn run(options: Options) -> Result<(), Error> {
    let mut tasks = tokio::task::JoinSet::new();
    let mut bound = Vec::new();
    for ip in options.listen {
        let address = SocketAddr::new(ip, PORT);
        let fail = |cause: String| Error { address, cause };
        let made = run_in(&options.inside, move || {
            io::Result::Ok((
                std::net::UdpSocket::bind(address)?,
                std::net::TcpListener::bind(address)?,
            ))
        });
        let (udp, tcp) = made
            .map_err(|error| fail(error.to_string()))?
            .map_err(|error| fail(error.to_string()))?;
        let ready = udp
            .set_nonblocking(true)
            .and_then(|()| tcp.set_nonblocking(true))
            .and_then(|()| Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?)));
        bound.push(ready.map_err(|error| fail(error.to_string()))?);
    }
    let upstreams = Arc::new(Upstreams {
        inside: options.inside,
        file: options.resolv_conf,
        read: Mutex::new((None, Arc::new([]))),
    });
    let servers = upstreams.servers();
    tracing::info!(?servers, file = %upstreams.file.display(), "asks");
    for (udp, tcp) in bound {
        tasks.spawn(datagrams(Arc::new(udp), upstreams.clone()));
        tasks.spawn(streams(tcp, upstreams.clone()));
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn datagrams(socket: Arc<UdpSocket>, upstreams: Arc<Upstreams>) {
    let room = Arc::new(Semaphore::new(QUESTIONS));
    let mut buffer = vec![0; LARGEST];
    loop {
        // An error is one that an answer sent earlier met, such as a port that is closed now.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let question = buffer.get(..length).unwrap_or_default().to_vec();
        if length < HEADER {
            continue;
        }
        let Ok(place) = room.clone().try_acquire_owned() else {
            let _ = socket.try_send_to(&failure(&question), from);
            continue;
        };
        let (socket, upstreams) = (socket.clone(), upstreams.clone());
        tokio::spawn(async move {
            let answer = ask_all(&upstreams, &question).await;
            let _ = socket.send_to(&answer, from).await;
            drop(place);
        });
    }
}

/// The first answer in the servers' order, or SERVFAIL.
async fn ask_all(upstreams: &Arc<Upstreams>, question: &[u8]) -> Vec<u8> {
    for server in upstreams.servers().iter() {
        match timeout(PATIENCE, ask(upstreams, *server, question)).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => tracing::warn!(%server, "{error}"),
            Err(_) => tracing::warn!(%server, "no answer within {} s", PATIENCE.as_secs()),
        }
    }
    failure(question)
}

async fn ask(
    upstreams: &Arc<Upstreams>,
    server: SocketAddr,
    question: &[u8],
) -> io::Result<Vec<u8>> {
    let any = unspecified(server);
    let socket = upstreams.socket(server, move || {
        let socket = std::net::UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    let socket = UdpSocket::from_std(socket.await?)?;
    // Connected: the kernel drops what others send, and tells when nobody listens there.
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let same = length >= HEADER && buffer.get(..2) == question.get(..2);
        if same && buffer.get(2).is_some_and(|flags| flags & 0x80 != 0) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

fn unspecified(server: SocketAddr) -> SocketAddr {
    match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// SERVFAIL in answer to a question, which is repeated where it can be read.
fn failure(question: &[u8]) -> Vec<u8> {
    let end = end_of_name(question);
    let asked = end.and_then(|end| question.get(HEADER..end + 4));
    let mut answer: Vec<u8> = question.iter().take(HEADER).copied().collect();
    if let [_, _, flags, codes, counts @ ..] = answer.as_mut_slice() {
        *flags = (*flags & 0x79) | 0x80;
        *codes = 0x80 | SERVFAIL;
        counts.fill(0);
        if let Some(count) = counts.get_mut(1) {
            *count = u8::from(asked.is_some());
        }
    }
    answer.extend_from_slice(asked.unwrap_or_default());
    answer
}

/// Where the name of the first question ends; names in questions are not compressed.
fn end_of_name(question: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match question.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(*length),
            _ => return None,
        }
    }
}

async fn streams(listener: TcpListener, upstreams: Arc<Upstreams>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        let Ok((mut near, _)) = listener.accept().await else {
            // Out of descriptors: the next try waits until some are free.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let upstreams = upstreams.clone();
        tokio::spawn(async move {
            for server in upstreams.servers().iter() {
                match timeout(PATIENCE, connect(&upstreams, *server)).await {
                    Ok(Ok(mut far)) => {
                        let relay = tokio::io::copy_bidirectional(&mut near, &mut far);
                        let _ = timeout(LONGEST, relay).await;
                        break;
                    }
                    Ok(Err(error)) => tracing::warn!(%server, "{error}"),
                    Err(_) => tracing::warn!(%server, "takes no connection"),
                }
            }
            drop(place);
        });
    }
}

async fn connect(upstreams: &Arc<Upstreams>, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = upstreams.socket(server, move || match server {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    });
    socket.await?.connect(server).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_nobody_answers_gets_servfail_with_its_id() {
        let question = b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\x01\x01a\0\0\x01\0\x01\0\0\x29";
        assert_eq!(
            failure(question),
            b"\x12\x34\x81\x82\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01"
        );
        let broken = b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\x01\x09a";
        assert_eq!(failure(broken), b"\x12\x34\x81\x82\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn servers_are_those_with_an_address() {
        let text = "nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\n";
        let all: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["127.0.0.53:53", "[2001:db8::1]:53"]);
    }

    #[test]
    fn only_the_clients_network_is_reached_from_inside() {
        for (ip, inside) in [
            ("203.0.113.10", true),
            ("2001:db8:113::10", true),
            ("10.0.1.1", false),
            ("192.0.2.53", false),
        ] {
            assert_eq!(is_client(ip.parse().unwrap()), inside, "{ip}");
        }
    }
}
