//! One upstream: its sockets, its health, and a question asked of it.

use std::cell::RefCell;
use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::dial::Dial;
use super::fault::{Doing, Fault, is_closed};
use super::metrics::{Answered, Metrics, OfUpstream, OfWay};
use super::pool::{Keeping, Kept, Pool, Stream};
use crate::wire::{Message, Opcode, Question, Rcode, WireError};

/// The shortest and the longest time a connection may take to come about.
const DIAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Of those codes the times are counted without a look into a map.
const CODES: usize = 16;
/// So many datagrams that are no answer are looked at for one question: somebody is guessing.
const MOST_STRAYS: u32 = 64;

/// What is common to the upstreams of a `forward`.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub dial: Dial,
    pub source: Option<std::net::IpAddr>,
    pub keeping: Keeping,
    pub read_timeout: Duration,
    pub max_fails: u32,
    pub health: super::health::Check,
    pub metrics: Arc<Metrics>,
}

/// An upstream.
#[derive(Debug)]
pub(super) struct Server {
    pub address: SocketAddr,
    /// With TLS, and the name its certificate has to have.
    tls: Option<Tls>,
    pub common: Common,
    pool: Pool,
    /// Failed checks one after the other.
    pub fails: AtomicU32,
    /// Somebody is checking.
    pub checking: AtomicBool,
    /// Questions answered: better news than any check.
    pub answered: AtomicU64,
    /// How long a connection took to come about, on average.
    dialled: Mutex<Duration>,
    counters: Counters,
}

#[derive(Clone)]
pub(super) struct Tls {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.name)
    }
}

/// Counters found once.
#[derive(Debug)]
struct Counters {
    times: [OnceLock<Histogram>; CODES],
    /// Of datagrams and of connections.
    hits: [Counter; 2],
    misses: [Counter; 2],
    pub failures: Counter,
}

/// A question as it goes out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub question: &'a Question,
    pub id: u16,
    /// The message, its length in front as connections want it.
    pub framed: &'a [u8],
    pub stream: bool,
    /// When the whole must be over.
    pub deadline: Instant,
    /// When a connection must be there at the latest.
    pub dial_by: Instant,
}

impl Asked<'_> {
    fn datagram(&self) -> &[u8] {
        self.framed.get(2..).unwrap_or_default()
    }
}

impl Server {
    pub(super) fn new(address: SocketAddr, tls: Option<Tls>, common: Common) -> Self {
        let to = address.to_string();
        let way = |proto| OfWay {
            proxy_name: "forward",
            to: to.clone(),
            proto,
        };
        let metrics = &common.metrics;
        let stream = if tls.is_some() { "tcp-tls" } else { "tcp" };
        let both = |family: &prometheus_client::metrics::family::Family<OfWay, Counter>| {
            ["udp", stream].map(|proto| family.get_or_create(&way(proto)).clone())
        };
        let upstream = OfUpstream {
            proxy_name: "forward",
            to: to.clone(),
        };
        let counters = Counters {
            times: [const { OnceLock::new() }; CODES],
            hits: both(&metrics.conn_cache_hits),
            misses: both(&metrics.conn_cache_misses),
            failures: metrics
                .healthcheck_failures
                .get_or_create(&upstream)
                .clone(),
        };
        Self {
            address,
            tls,
            pool: Pool::new(common.keeping),
            fails: AtomicU32::new(0),
            checking: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            dialled: Mutex::new(DIAL.1 / 2),
            counters,
            common,
        }
    }

    /// Whether more checks in a row failed than may.
    pub(super) fn is_down(&self) -> bool {
        let most = self.common.max_fails;
        most > 0 && self.fails.load(Ordering::Relaxed) > most
    }

    pub(super) fn uses_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) fn count_failed_check(&self) {
        self.counters.failures.inc();
        // It is compared with a small number: no need to count further.
        let up = |fails: u32| Some(fails.saturating_add(1));
        let _ = self
            .fails
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, up);
    }

    /// Asks, and says what the answer is.
    pub(super) async fn ask(self: &Arc<Self>, asked: Asked<'_>) -> Result<Message, Fault> {
        let start = Instant::now();
        let answer = self.asked(asked).await?;
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.fails.store(0, Ordering::Relaxed);
        self.observe(answer.header.rcode, start.elapsed());
        Ok(answer)
    }

    /// Asks, without drawing conclusions.
    pub(super) async fn asked(self: &Arc<Self>, asked: Asked<'_>) -> Result<Message, Fault> {
        loop {
            let outcome = match asked.stream || self.tls.is_some() {
                false => self.by_datagram(asked).await,
                true => self.by_connection(asked).await,
            };
            match outcome {
                // There are only so many kept ones, and each is closed now.
                Err(Fault::KeptClosed) => {}
                outcome => return outcome,
            }
        }
    }

    fn observe(&self, rcode: Rcode, took: Duration) {
        let found = || {
            let answered = Answered {
                proxy_name: "forward",
                to: self.address.to_string(),
                rcode: rcode.to_string(),
            };
            let family = &self.common.metrics.request_duration;
            family.get_or_create(&answered).clone()
        };
        let seconds = took.as_secs_f64();
        match self.counters.times.get(usize::from(rcode.0)) {
            Some(times) => times.get_or_init(found).observe(seconds),
            None => found().observe(seconds),
        }
    }

    async fn by_datagram(self: &Arc<Self>, asked: Asked<'_>) -> Result<Message, Fault> {
        let kept =
            match self.pool.udp() {
                Some(kept) => {
                    self.counters.hits[0].inc();
                    kept
                }
                None => {
                    self.counters.misses[0].inc();
                    let opened = self.common.dial.udp(self.address, self.common.source);
                    Kept::new(opened.map_err(|error| {
                        self.doing("dial", false, None).refused("connect", &error)
                    })?)
                }
            };
        let from = kept.socket.get_ref().local_addr().ok();
        let send = |socket: &UdpSocket| socket.send(asked.datagram());
        let sent = kept.socket.async_io(Interest::WRITABLE, send).await;
        sent.map_err(|error| self.doing("write", false, from).refused("write", &error))?;
        let by = asked
            .deadline
            .min(Instant::now() + self.common.read_timeout);
        let mut strays = 0;
        let answer = match timeout_at(by, receive(&kept.socket, asked, &mut strays)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                return Err(self.doing("read", false, from).refused("read", &error));
            }
            Err(_) if strays > 0 => {
                let late = self.doing("read", false, from);
                let told = format!(
                    "{late}: i/o timeout ({strays} messages that are no answer to this question)"
                );
                return Err(Fault::Failed(told));
            }
            Err(_) => return Err(self.doing("read", false, from).late()),
        };
        // Where others send something too, the port is known to them.
        if strays == 0 && self.pool.keep_udp(kept) {
            self.see_to_sweeping();
        }
        Ok(answer)
    }

    async fn by_connection(self: &Arc<Self>, asked: Asked<'_>) -> Result<Message, Fault> {
        let mut kept = match self.pool.stream() {
            Some(kept) => {
                self.counters.hits[1].inc();
                kept
            }
            None => {
                self.counters.misses[1].inc();
                Kept::new(self.connect(asked.dial_by).await?)
            }
        };
        let from = kept.socket.from;
        let by = asked
            .deadline
            .min(Instant::now() + self.common.read_timeout);
        let was_used = kept.is_used();
        let faulty = |what, call, error: std::io::Error| match was_used && is_closed(&error) {
            true => Fault::KeptClosed,
            false => self.doing(what, true, from).refused(call, &error),
        };
        let late = |what| move |_| self.doing(what, true, from).late();
        let io = &mut kept.socket.io;
        let written = timeout_at(by, async {
            io.write_all(asked.framed).await?;
            io.flush().await
        });
        let written = written.await.map_err(late("write"))?;
        written.map_err(|error| faulty("write", "write", error))?;
        let bytes = timeout_at(by, framed(io, asked.id))
            .await
            .map_err(late("read"))?;
        let bytes = bytes.map_err(|error| faulty("read", "read", error))?;
        let answer = match judge(&bytes, asked) {
            Verdict::Answer(answer) => answer,
            Verdict::Stray(why) => {
                let doing = self.doing("read", true, from);
                return Err(Fault::Failed(format!("{doing}: {why}")));
            }
        };
        if self.pool.keep_stream(kept) {
            self.see_to_sweeping();
        }
        Ok(answer)
    }

    async fn connect(&self, dial_by: Instant) -> Result<Stream, Fault> {
        let start = Instant::now();
        let by = dial_by.min(start + self.dial_time());
        let doing = self.doing("dial", true, None);
        let connected = timeout_at(by, self.dial(doing)).await;
        self.learn_dial_time(start.elapsed());
        connected.map_err(|_| doing.late())?
    }

    async fn dial(&self, doing: Doing) -> Result<Stream, Fault> {
        let connected = self.common.dial.tcp(self.address, self.common.source).await;
        let tcp = connected.map_err(|error| doing.refused("connect", &error))?;
        let from = tcp.local_addr().ok();
        let io: Box<dyn super::pool::Io> = match &self.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let connector = TlsConnector::from(Arc::clone(&tls.config));
                let met = connector.connect(tls.name.clone(), tcp).await;
                Box::new(
                    met.map_err(|error| Fault::Failed(format!("tls: {}: {error}", self.address)))?,
                )
            }
        };
        Ok(Stream { io, from })
    }

    /// Twice what it takes on average, within bounds.
    fn dial_time(&self) -> Duration {
        let average = *self.dialled.lock().unwrap_or_else(PoisonError::into_inner);
        let (least, most) = DIAL;
        if average < least {
            return least;
        }
        (average * 2).min(most)
    }

    /// The average moves a quarter of the way.
    fn learn_dial_time(&self, took: Duration) {
        let mut average = self.dialled.lock().unwrap_or_else(PoisonError::into_inner);
        *average = (*average * 3 + took) / 4;
    }

    fn doing(&self, what: &'static str, stream: bool, from: Option<SocketAddr>) -> Doing {
        Doing {
            what,
            stream,
            from,
            to: self.address,
        }
    }

    /// Idle sockets are closed when their time is over, whether somebody asks or not.
    fn see_to_sweeping(self: &Arc<Self>) {
        let server = Arc::downgrade(self);
        let every = self.pool.expire().max(Duration::from_millis(100));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(server) = server.upgrade() else {
                    return;
                };
                if !server.pool.sweep() {
                    return;
                }
            }
        });
    }
}

/// What a message is.
enum Verdict {
    Answer(Message),
    /// Not the answer, and why.
    Stray(&'static str),
}

/// Whether a message is the answer: to this question, under this identifier.
fn judge(bytes: &[u8], asked: Asked<'_>) -> Verdict {
    if bytes.get(..2) != Some(&asked.id.to_be_bytes()) {
        return Verdict::Stray("an answer with another identifier");
    }
    let answer = match Message::parse(bytes) {
        Ok(answer) => answer,
        Err(error) => match cut(bytes, error) {
            Some(answer) => answer,
            None => return Verdict::Stray("an answer that is not well formed"),
        },
    };
    if !answer.header.response || answer.header.opcode != Opcode::QUERY {
        return Verdict::Stray("a message that is no answer");
    }
    let fits = match &answer.question {
        Some(question) => question == asked.question,
        // Who did not understand the question may leave it out.
        None => {
            let codes = [
                Rcode::FORMERR,
                Rcode::SERVFAIL,
                Rcode::NOTIMP,
                Rcode::REFUSED,
            ];
            codes.contains(&answer.header.rcode) && answer.answers.is_empty()
        }
    };
    match fits {
        true => Verdict::Answer(answer),
        false => Verdict::Stray("an answer to another question"),
    }
}

/// What is left of a message that was cut in the middle of a record: that there is more.
fn cut(bytes: &[u8], error: WireError) -> Option<Message> {
    if error != WireError::Short {
        return None;
    }
    let mut reader = crate::wire::Reader::new(bytes);
    let (mut header, _) = reader.header().ok()?;
    header.truncated = true;
    Some(Message {
        header,
        question: Some(reader.question().ok()?),
        ..Message::default()
    })
}

/// What ICMP says wakes only who listens for errors too.
const HEARD: Interest = Interest::READABLE.add(Interest::ERROR);

thread_local! {
    /// Where datagrams are read into: as large as one can be, and empty while anybody waits.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; usize::from(u16::MAX)]);
}

/// The answer among what comes.
async fn receive(
    socket: &AsyncFd<UdpSocket>,
    asked: Asked<'_>,
    strays: &mut u32,
) -> std::io::Result<Message> {
    loop {
        let mut ready = socket.ready(HEARD).await?;
        let received = BUFFER.with_borrow_mut(|buffer| {
            let received = ready.try_io(|socket| socket.get_ref().recv(buffer));
            received.map(|len| Ok::<_, std::io::Error>(judge(&buffer[..len?], asked)))
        });
        let Ok(verdict) = received else { continue };
        match verdict? {
            Verdict::Answer(answer) => return Ok(answer),
            Verdict::Stray(why) => {
                *strays += 1;
                if *strays >= MOST_STRAYS {
                    return Err(std::io::Error::other(why));
                }
            }
        }
    }
}

/// The next message of a connection that has this identifier.
async fn framed(io: &mut Box<dyn super::pool::Io>, id: u16) -> std::io::Result<Vec<u8>> {
    loop {
        let len = usize::from(io.read_u16().await?);
        let mut bytes = vec![0; len];
        io.read_exact(&mut bytes).await?;
        if bytes.get(..2) == Some(&id.to_be_bytes()) {
            return Ok(bytes);
        }
    }
}
