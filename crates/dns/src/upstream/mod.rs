//! `forward`: questions handed to other servers.
//!
//! Runs within the runtime of the worker that was asked: each has sockets of its own, and only
//! what is known about an upstream's health is common to all.

mod dial;
#[cfg(test)]
mod fake;
mod fault;
mod health;
mod metrics;
mod peers;
mod pool;
mod resolv;
mod server;
#[cfg(test)]
mod tests;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rand::seq::SliceRandom;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use smallvec::SmallVec;
use tokio::time::{Instant, timeout_at};

use crate::corefile::Scheme;
use crate::corefile::plugins::{Forward as Options, Policy, To, Upstream};
use crate::query::{Answer, Failure, Query, Transport};
use crate::wire::{Edns, EdnsOption, Header, Message, Rcode};
pub use dial::{Dial, Wanted};
use fault::Fault;
pub use metrics::Metrics;
pub use peers::Peers;
use pool::Keeping;
use server::{Asked, Common, Server, Tls};

/// A question is given up after this time.
const DEADLINE: Duration = Duration::from_secs(5);
/// Peers are asked when the upstreams have had this long.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Attempts for each upstream, where the Corefile does not say it.
const ATTEMPTS: usize = 2;

/// What forwarding needs from outside.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Where sockets are opened.
    pub dial: Dial,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Servers to be asked where upstreams have no answer.
    pub peers: Option<Arc<Peers>>,
    /// The file that stands for `/etc/resolv.conf`, where it is another one.
    pub resolv_conf: Option<String>,
}

/// All `forward`s of a server block, in order.
#[derive(Debug)]
pub struct Forwards(Vec<Forward>);

/// One `forward`.
#[derive(Debug)]
pub struct Forward {
    options: Options,
    resolv_conf: Option<String>,
    common: Common,
    tls: Option<Arc<ClientConfig>>,
    servers: ArcSwap<Vec<Arc<Server>>>,
    peers: Option<peers::Asked>,
    /// Whose turn it is.
    turn: AtomicUsize,
    /// Questions under way.
    concurrent: AtomicUsize,
}

/// How files are read: the path in, the text out.
pub type Read<'a> = &'a dyn Fn(&str) -> io::Result<String>;

impl Forwards {
    /// Of the options in a Corefile; `read` reads the files with upstreams.
    ///
    /// # Errors
    /// There is no upstream, or a file is not what it has to be.
    pub fn new(options: &[Options], resources: &Resources, read: Read<'_>) -> Result<Self, String> {
        let all = options
            .iter()
            .map(|one| Forward::new(one.clone(), resources, read));
        all.collect::<Result<_, _>>().map(Self)
    }

    /// The files that upstreams are read from.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(Forward::files)
    }

    /// Reads those files again. Upstreams that are still there keep their connections and their
    /// health.
    ///
    /// # Errors
    /// A file cannot be read or has no upstream; the upstreams are as they were.
    pub fn reread(&self, read: Read<'_>) -> Result<(), String> {
        self.0.iter().try_for_each(|forward| forward.reread(read))
    }

    /// The answer of an upstream; none where the question is not for any of them.
    ///
    /// # Errors
    /// No upstream answered, or there are too many questions under way.
    pub async fn answer(&self, query: &Query) -> Result<Option<Answer>, Failure> {
        for (at, forward) in self.0.iter().enumerate() {
            if !forward.is_for(query) {
                continue;
            }
            let answer = forward.answer(query).await?;
            let is_last = at + 1 == self.0.len();
            if is_last || !forward.leaves(&answer) {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }
}

impl Forward {
    /// Of the options in a Corefile; `read` reads the files with upstreams.
    ///
    /// # Errors
    /// There is no upstream, or a file is not what it has to be.
    pub fn new(options: Options, resources: &Resources, read: Read<'_>) -> Result<Self, String> {
        let common = Common {
            dial: resources.dial.clone(),
            source: options.source_address,
            keeping: Keeping {
                expire: options.expire,
                max_age: options.max_age,
                most: options.max_idle_conns,
            },
            read_timeout: options.read_timeout,
            max_fails: options.max_fails,
            health: health::Check {
                interval: options.health_check.interval,
                recursion_desired: options.health_check.recursion_desired,
                domain: options.health_check.domain.clone(),
                stream: options.force_tcp,
            },
            metrics: Arc::clone(&resources.metrics),
        };
        let with_tls = options.to.iter().any(|to| scheme(to) == Scheme::Tls);
        let tls = with_tls.then(|| tls::config(&options.tls)).transpose()?;
        let peers = resources.peers.as_ref();
        let forward = Self {
            resolv_conf: resources.resolv_conf.clone(),
            peers: peers.map(|peers| peers::Asked::new(Arc::clone(peers), common.clone())),
            options,
            common,
            tls,
            servers: ArcSwap::default(),
            turn: AtomicUsize::new(0),
            concurrent: AtomicUsize::new(0),
        };
        forward.reread(read)?;
        Ok(forward)
    }

    fn files(&self) -> impl Iterator<Item = &str> {
        self.options.to.iter().filter_map(|to| match to {
            To::File(path) => Some(self.path(path)),
            _ => None,
        })
    }

    fn path<'a>(&'a self, path: &'a str) -> &'a str {
        match &self.resolv_conf {
            Some(other) if path == "/etc/resolv.conf" => other,
            _ => path,
        }
    }

    fn reread(&self, read: Read<'_>) -> Result<(), String> {
        let before = self.servers.load();
        let mut servers: Vec<Arc<Server>> = Vec::new();
        for upstream in self.upstreams(read)? {
            let address = scoped(&upstream);
            let with_tls = upstream.scheme == Scheme::Tls;
            let same =
                |server: &&Arc<Server>| server.address == address && server.uses_tls() == with_tls;
            if servers.iter().any(|server| same(&server)) {
                continue;
            }
            let server = match before.iter().find(same) {
                Some(server) => Arc::clone(server),
                None => {
                    let tls = with_tls.then(|| self.tls_to(&upstream)).transpose()?;
                    Arc::new(Server::new(address, tls, self.common.clone()))
                }
            };
            servers.push(server);
        }
        if servers.is_empty() {
            return Err("no valid upstream addresses found".to_owned());
        }
        self.servers.store(Arc::new(servers));
        Ok(())
    }

    fn upstreams(&self, read: Read<'_>) -> Result<Vec<Upstream>, String> {
        let mut all = Vec::new();
        for to in &self.options.to {
            match to {
                To::Server(upstream) => all.push(upstream.clone()),
                To::File(path) => {
                    let path = self.path(path);
                    let text = read(path).map_err(|error| format!("{path}: {error}"))?;
                    all.extend(resolv::nameservers(&text));
                }
                To::Host {
                    scheme,
                    host,
                    port,
                    server_name,
                } => {
                    // By name: as the host finds it.
                    let found = std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), *port));
                    let found = found.map_err(|error| format!("upstream {host}: {error}"))?;
                    all.extend(found.map(|address| Upstream {
                        scheme: *scheme,
                        address,
                        interface: None,
                        server_name: server_name.clone(),
                    }));
                }
            }
        }
        match all.iter().find(|upstream| upstream.scheme == Scheme::Https) {
            Some(upstream) => Err(format!(
                "upstream https://{}: DNS over HTTPS is not supported towards upstreams; tls:// is",
                upstream.address
            )),
            None => Ok(all),
        }
    }

    fn tls_to(&self, upstream: &Upstream) -> Result<Tls, String> {
        let config = self.tls.clone().ok_or("TLS is not set up")?;
        let own = upstream.server_name.as_ref();
        let name = match own.or(self.options.tls_servername.as_ref()) {
            Some(name) => {
                let checked = ServerName::try_from(name.clone());
                checked.map_err(|_| format!("tls_servername {name}: not a name"))?
            }
            None => ServerName::IpAddress(upstream.address.ip().into()),
        };
        Ok(Tls { config, name })
    }

    /// Whether the name is in its zone, and not in one of those left out.
    fn is_for(&self, query: &Query) -> bool {
        let (name, from) = (&query.question.name, &self.options.from);
        let left_out = || self.options.except.iter().any(|zone| name.is_within(zone));
        name.is_within(from) && (name == from || !left_out())
    }

    /// Whether an answer is left to the next `forward`.
    fn leaves(&self, answer: &Answer) -> bool {
        let nodata = answer.rcode == Rcode::NOERROR && answer.answers.is_empty();
        self.options.next.contains(&answer.rcode) || self.options.next_on_nodata && nodata
    }

    async fn answer(&self, query: &Query) -> Result<Answer, Failure> {
        let _place = self.place()?;
        let start = Instant::now();
        let deadline = start + DEADLINE;
        let id = rand::random();
        let message = outgoing(query, id);
        let framed = framed(&message);
        let asked = Asked {
            question: &query.question,
            id,
            framed: &framed,
            stream: self.options.force_tcp
                || !self.options.prefer_udp && query.transport != Transport::Udp,
            deadline,
            dial_by: deadline,
        };
        let peers = self
            .peers
            .as_ref()
            .and_then(|peers| peers.for_client(query.client));
        let answered = match peers {
            None => self.ask_upstreams(asked).await,
            Some(peers) => self.ask_all(asked, &peers, start + PATIENCE).await,
        };
        answered.map(taken)
    }

    /// The upstreams, and when they fail or take long one of the peers.
    async fn ask_all(
        &self,
        asked: Asked<'_>,
        peers: &[Arc<Server>],
        patience: Instant,
    ) -> Result<Message, Failure> {
        let mut upstreams = std::pin::pin!(self.ask_upstreams(asked));
        let first = match timeout_at(patience, &mut upstreams).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(failure)) => Some(failure),
            Err(_) => None,
        };
        let mut others = std::pin::pin!(self.ask_peers(asked, peers));
        if let Some(failure) = first {
            return others.await.ok_or(failure);
        }
        // Both, whoever is first with an answer.
        tokio::select! {
            answer = &mut upstreams => match answer {
                Ok(answer) => Ok(answer),
                Err(failure) => others.await.ok_or(failure),
            },
            Some(answer) = &mut others => Ok(answer),
            else => Err(servfail("no healthy proxies")),
        }
    }

    /// Any of the peers, each once.
    async fn ask_peers(&self, asked: Asked<'_>, peers: &[Arc<Server>]) -> Option<Message> {
        for peer in order(Policy::Random, &self.turn, peers) {
            if peer.is_down() {
                continue;
            }
            match self.ask(peer, asked).await {
                Ok(answer) if answer.header.rcode != Rcode::SERVFAIL => return Some(answer),
                Ok(_) => {}
                Err(_) => peer.check(),
            }
            if Instant::now() >= asked.deadline {
                break;
            }
        }
        None
    }

    /// The upstreams in the order of the policy, until one answers.
    async fn ask_upstreams(&self, asked: Asked<'_>) -> Result<Message, Failure> {
        let servers = self.servers.load_full();
        let list = order(self.options.policy, &self.turn, &servers);
        let most = match self.options.max_connect_attempts {
            None => ATTEMPTS * list.len(),
            Some(0) => usize::MAX,
            Some(most) => most as usize,
        };
        let (mut attempts, mut failovers, mut down) = (0, 0, 0);
        let mut last = None;
        let mut next = 0;
        while Instant::now() < asked.deadline && attempts < most {
            if next == list.len() {
                (next, down) = (0, 0);
            }
            let mut server = list[next];
            next += 1;
            if server.is_down() {
                down += 1;
                if down < list.len() {
                    continue;
                }
                self.common.metrics.healthcheck_broken.inc();
                if self.options.failfast_all_unhealthy_upstreams {
                    break;
                }
                // It is more likely that the checks are wrong than that nobody is there.
                server = list[rand::random_range(0..list.len())];
            }
            match self.ask(server, self.bounded(asked, most)).await {
                Ok(answer) => {
                    if self.options.failover.contains(&answer.header.rcode) {
                        failovers += 1;
                        if failovers < list.len() {
                            continue;
                        }
                    }
                    return Ok(answer);
                }
                Err(failed) => {
                    last = Some(failed);
                    server.check();
                    attempts += 1;
                    if down >= list.len() {
                        break;
                    }
                }
            }
        }
        Err(servfail(
            last.unwrap_or_else(|| "no healthy proxies".to_owned()),
        ))
    }

    /// One connection that does not come about leaves time for another.
    fn bounded<'a>(&self, asked: Asked<'a>, most: usize) -> Asked<'a> {
        let mut bounded = asked;
        if most != 1 {
            let now = Instant::now();
            bounded.dial_by = (now + DEADLINE / 2).min(asked.deadline);
        }
        bounded
    }

    /// One upstream; by TCP too, where its answer was cut and `prefer_udp` says that who asks
    /// shall not see it.
    async fn ask(&self, server: &Arc<Server>, asked: Asked<'_>) -> Result<Message, String> {
        let mut answered = server.ask(asked).await;
        if let Ok(answer) = &answered
            && answer.header.truncated
            && !asked.stream
            && self.options.prefer_udp
        {
            let stream = true;
            answered = server.ask(Asked { stream, ..asked }).await;
        }
        answered.map_err(|fault| match fault {
            Fault::Failed(text) => text,
            Fault::KeptClosed => "cached connection was closed by peer".to_owned(),
        })
    }

    /// A place among those that may be under way.
    fn place(&self) -> Result<Place<'_>, Failure> {
        let place = Place(&self.concurrent);
        let count = self.concurrent.fetch_add(1, Ordering::Relaxed) + 1;
        let most = self.options.max_concurrent;
        if most > 0 && count > most {
            self.common.metrics.max_concurrent_rejects.inc();
            return Err(Failure {
                rcode: Rcode::REFUSED,
                text: format!("concurrent queries exceeded maximum {most}"),
                by: "forward",
            });
        }
        Ok(place)
    }
}

/// A question under way.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn scheme(to: &To) -> Scheme {
    match to {
        To::Server(upstream) => upstream.scheme,
        To::File(_) => Scheme::Dns,
        To::Host { scheme, .. } => *scheme,
    }
}

/// With the interface of a link-local address, where it is there.
fn scoped(upstream: &Upstream) -> SocketAddr {
    let mut address = upstream.address;
    if let (SocketAddr::V6(v6), Some(interface)) = (&mut address, &upstream.interface)
        && let Ok(index) = nix::net::if_::if_nametoindex(interface.as_str())
    {
        v6.set_scope_id(index);
    }
    address
}

fn servfail(text: impl Into<String>) -> Failure {
    Failure::servfail(text, "forward")
}

/// In which order servers are asked. Fifteen is the most a Corefile may have.
fn order<'a>(
    policy: Policy,
    turn: &AtomicUsize,
    servers: &'a [Arc<Server>],
) -> SmallVec<[&'a Arc<Server>; 15]> {
    let mut list: SmallVec<[&Arc<Server>; 15]> = servers.iter().collect();
    match policy {
        Policy::Sequential => {}
        Policy::Random if list.len() < 2 => {}
        Policy::Random => list.shuffle(&mut rand::rng()),
        Policy::RoundRobin => {
            let first = (turn.fetch_add(1, Ordering::Relaxed) + 1) % list.len().max(1);
            // The others follow as they stand in the Corefile.
            list[..=first].rotate_right(1);
        }
    }
    list
}

/// The message that goes out: what the client said, but for what EDNS says of one hop only.
fn outgoing(query: &Query, id: u16) -> Message {
    Message {
        header: Header {
            id,
            recursion_desired: query.recursion_desired,
            authentic: query.authentic,
            checking_disabled: query.checking_disabled,
            ..Header::default()
        },
        question: Some(query.question.clone()),
        edns: query.edns.as_ref().map(|edns| Edns {
            options: passed_on(&edns.options),
            version: 0,
            ..*edns
        }),
        ..Message::default()
    }
}

/// Cookies, keepalive and padding are between two neighbours (RFC 7873, RFC 7828, RFC 7830).
fn passed_on(options: &[EdnsOption]) -> Vec<EdnsOption> {
    let neighbours = [
        EdnsOption::COOKIE,
        EdnsOption::KEEPALIVE,
        EdnsOption::PADDING,
    ];
    let passes = |option: &&EdnsOption| !neighbours.contains(&option.code);
    options.iter().filter(passes).cloned().collect()
}

/// A message with its length in front.
fn framed(message: &Message) -> Vec<u8> {
    let mut framed = vec![0, 0];
    message.write(usize::from(u16::MAX), &mut framed);
    let len = (framed.len() - 2) as u16;
    framed[..2].copy_from_slice(&len.to_be_bytes());
    framed
}

/// The answer in an upstream's message.
fn taken(message: Message) -> Answer {
    let options = message.edns.map(|edns| edns.options).unwrap_or_default();
    Answer {
        rcode: message.header.rcode,
        authoritative: message.header.authoritative,
        authentic: message.header.authentic,
        recursion_available: message.header.recursion_available,
        truncated: message.header.truncated,
        answers: message.answers,
        authorities: message.authorities,
        additionals: message.additionals,
        options: passed_on(&options),
        by: "forward",
        ..Answer::default()
    }
}
