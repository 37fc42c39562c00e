//! `forward`: queries handed to other servers.

mod to;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::ClientTls;
use crate::corefile::reader::{Reader, Result};
use crate::corefile::{Scheme, Zone, value, zone};
use crate::wire::Rcode;

/// Queries of a zone handed to other servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// The zone.
    pub from: Zone,
    /// The servers, in order; at most 15.
    pub to: Vec<To>,
    /// Zones within `from` that are not forwarded.
    pub except: Vec<Zone>,
    /// TCP whatever the client used.
    pub force_tcp: bool,
    /// UDP first, whatever the client used.
    pub prefer_udp: bool,
    /// How long an idle connection is kept.
    pub expire: Duration,
    /// How long a connection is kept at most.
    pub max_age: Option<Duration>,
    /// How many idle connections per upstream; `None` is no bound.
    pub max_idle_conns: Option<usize>,
    /// How long an answer is waited for.
    pub read_timeout: Duration,
    /// Failed health checks until an upstream counts as down; 0: it never does.
    pub max_fails: u32,
    /// Attempts to connect for one query; `None`: two per upstream, `Some(0)`: no bound.
    pub max_connect_attempts: Option<u32>,
    /// Which upstream is asked.
    pub policy: Policy,
    /// How an upstream that failed is checked.
    pub health_check: HealthCheck,
    /// More queries at once are REFUSED; 0 is no bound.
    pub max_concurrent: usize,
    /// Response codes upon which the next `forward` is asked.
    pub next: Vec<Rcode>,
    /// The next `forward` is asked upon an answer without data too.
    pub next_on_nodata: bool,
    /// Response codes upon which the next upstream is asked.
    pub failover: Vec<Rcode>,
    /// SERVFAIL when every upstream is down, instead of a try at one of them.
    pub failfast_all_unhealthy_upstreams: bool,
    /// Certificates for upstreams over TLS and HTTPS.
    pub tls: ClientTls,
    /// The name in the upstreams' certificates; an upstream's own (`tls://IP%name`) is in it.
    pub tls_servername: Option<String>,
    /// Queries to upstreams over HTTPS are sent with GET instead of POST.
    pub doh_get: bool,
    /// Servers that resolve the upstreams given by name; empty: the host's.
    pub resolver: Vec<SocketAddr>,
    /// The address queries are sent from.
    pub source_address: Option<IpAddr>,
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// A server.
    Server(Upstream),
    /// The `nameserver` lines of a file like /etc/resolv.conf.
    File(String),
    /// A server by name (or, if there is one by that name in the working folder, a file).
    Host {
        /// The transport.
        scheme: Scheme,
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// The name in its certificate.
        server_name: Option<String>,
    },
}

/// A server queries are handed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The transport.
    pub scheme: Scheme,
    /// Address and port.
    pub address: SocketAddr,
    /// The interface of a link-local address (`fe80::1%eth0`).
    pub interface: Option<String>,
    /// The name in its certificate (`tls://9.9.9.9%dns.quad9.net`).
    pub server_name: Option<String>,
}

/// Which upstream is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Any.
    #[default]
    Random,
    /// Each in turn.
    RoundRobin,
    /// The first that is up.
    Sequential,
}

/// How an upstream that failed is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// How often.
    pub interval: Duration,
    /// The question has the flag "recursion desired".
    pub recursion_desired: bool,
    /// The name asked for (type NS).
    pub domain: Zone,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            recursion_desired: true,
            domain: Zone::root(),
        }
    }
}

impl Default for Forward {
    fn default() -> Self {
        Self {
            from: Zone::root(),
            to: Vec::new(),
            except: Vec::new(),
            force_tcp: false,
            prefer_udp: false,
            expire: Duration::from_secs(10),
            max_age: None,
            max_idle_conns: None,
            read_timeout: Duration::from_secs(2),
            max_fails: 2,
            max_connect_attempts: None,
            policy: Policy::default(),
            health_check: HealthCheck::default(),
            max_concurrent: 0,
            next: Vec::new(),
            next_on_nodata: false,
            failover: Vec::new(),
            failfast_all_unhealthy_upstreams: false,
            tls: ClientTls::default(),
            tls_servername: None,
            doh_get: false,
            resolver: Vec::new(),
            source_address: None,
        }
    }
}

const OPTIONS: [&str; 21] = [
    "except",
    "force_tcp",
    "prefer_udp",
    "expire",
    "max_age",
    "max_idle_conns",
    "read_timeout",
    "max_fails",
    "max_connect_attempts",
    "tls",
    "tls_servername",
    "policy",
    "health_check",
    "max_concurrent",
    "next",
    "next_on_nodata",
    "failover",
    "failfast_all_unhealthy_upstreams",
    "doh_method",
    "resolver",
    "source_address",
];

pub(super) fn parse(reader: &mut Reader<'_>) -> Vec<Forward> {
    let mut all = Vec::new();
    reader.each(|reader| {
        let from = reader.value("FROM TO...")?;
        let zones = zone::zones(from);
        let zones = reader.check(zones)?;
        let Some(first) = zones.first() else {
            return Err(reader.error(format!("{from:?} stands for no zone")));
        };
        if zones.len() > 1 {
            reader.warn(format!(
                "{from} stands for {} zones: only {first} counts",
                zones.len()
            ));
        }
        let mut forward = Forward {
            from: first.clone(),
            ..Forward::default()
        };
        let to = reader.args();
        if to.is_empty() {
            return Err(reader.error(format!(
                "no server follows {from:?}; FROM TO... is expected"
            )));
        }
        let before = reader.report.errors.len();
        let position = reader.position();
        reader.options(|reader, name| option(reader, name, &mut forward));
        let errors = to::servers(&to, &mut forward)
            .into_iter()
            .chain(together(&forward));
        for message in errors.collect::<Vec<_>>() {
            let mut error = reader.error(message);
            error.at = position.clone();
            reader.report.error(error);
        }
        if reader.report.errors.len() == before && forward.to.is_empty() {
            return Err(reader.error("no server is left"));
        }
        all.push(forward);
        Ok(())
    });
    all
}

/// Options that do not go together.
fn together(forward: &Forward) -> Option<String> {
    let max_age = forward.max_age?;
    (max_age < forward.expire).then(|| {
        format!(
            "max_age ({max_age:?}) is less than expire ({:?})",
            forward.expire
        )
    })
}

fn option(reader: &mut Reader<'_>, name: &str, forward: &mut Forward) -> Result<()> {
    match name {
        "except" => {
            let names = reader.some_args("zones")?;
            forward.except.extend(reader.named_zones(&names));
        }
        "force_tcp" => forward.force_tcp = flag(reader)?,
        "prefer_udp" => forward.prefer_udp = flag(reader)?,
        "next_on_nodata" => forward.next_on_nodata = flag(reader)?,
        "failfast_all_unhealthy_upstreams" => {
            reader.no_args()?;
            forward.failfast_all_unhealthy_upstreams = true;
        }
        "policy" => forward.policy = policy(reader)?,
        "max_fails" => forward.max_fails = number(reader)?,
        "max_connect_attempts" => forward.max_connect_attempts = Some(number(reader)?),
        "max_concurrent" => forward.max_concurrent = large_number(reader)?,
        "max_idle_conns" => {
            forward.max_idle_conns = Some(large_number(reader)?).filter(|most| *most > 0);
        }
        "next" => forward.next.extend(rcodes(reader, false)?),
        "failover" => forward.failover.extend(rcodes(reader, true)?),
        "health_check" => health_check(reader, &mut forward.health_check)?,
        "expire" => forward.expire = duration(reader)?,
        "max_age" => forward.max_age = Some(duration(reader)?).filter(|age| !age.is_zero()),
        "read_timeout" => {
            let timeout = duration(reader)?;
            if timeout.is_zero() {
                return Err(reader.error("read_timeout is 0; a longer time is expected"));
            }
            forward.read_timeout = timeout;
        }
        _ => return connection(reader, name, forward),
    }
    Ok(())
}

/// Options about connections to upstreams.
fn connection(reader: &mut Reader<'_>, name: &str, forward: &mut Forward) -> Result<()> {
    match name {
        "tls" => {
            let args = reader.args();
            forward.tls = ClientTls::new(reader, &args)?;
        }
        "tls_servername" => {
            forward.tls_servername = Some(reader.value("a name")?.to_owned());
        }
        "doh_method" => {
            forward.doh_get = match reader.value("POST or GET")? {
                "POST" => false,
                "GET" => true,
                other => return Err(reader.unknown_value("method", other, &["POST", "GET"])),
            };
        }
        "resolver" => {
            let args = reader.some_args("addresses of servers")?;
            let servers = args.iter().map(|arg| value::socket_address(arg, 53));
            let servers: Result<_, String> = servers.collect();
            forward.resolver = reader.check(servers)?;
        }
        "source_address" => {
            let text = reader.value("an address")?;
            let address = text.parse();
            let wrong = |_| reader.error(format!("{text:?} is no IP address"));
            forward.source_address = Some(address.map_err(wrong)?);
        }
        _ => return Err(reader.unknown_option(&OPTIONS)),
    }
    Ok(())
}

/// An option that takes nothing.
fn flag(reader: &mut Reader<'_>) -> Result<bool> {
    let name = reader.word();
    match reader.next_arg() {
        Some(arg) => Err(reader.error(format!("{name} takes nothing; found {arg:?}"))),
        None => Ok(true),
    }
}

fn policy(reader: &mut Reader<'_>) -> Result<Policy> {
    const KNOWN: [&str; 3] = ["random", "round_robin", "sequential"];
    Ok(match reader.value("random, round_robin or sequential")? {
        "random" => Policy::Random,
        "round_robin" => Policy::RoundRobin,
        "sequential" => Policy::Sequential,
        other => return Err(reader.unknown_value("policy", other, &KNOWN)),
    })
}

fn number(reader: &mut Reader<'_>) -> Result<u32> {
    let name = reader.word();
    let text = reader.value("a number")?;
    reader.check(value::number(text, name, 0, u32::MAX))
}

fn large_number(reader: &mut Reader<'_>) -> Result<usize> {
    let name = reader.word();
    let text = reader.value("a number")?;
    let number = reader.check(value::number(text, name, 0, i64::MAX))?;
    Ok(usize::try_from(number).unwrap_or(usize::MAX))
}

fn duration(reader: &mut Reader<'_>) -> Result<Duration> {
    let text = reader.value("a duration")?;
    reader.check(value::positive_duration(text))
}

fn rcodes(reader: &mut Reader<'_>, failover: bool) -> Result<Vec<Rcode>> {
    let mut codes = Vec::new();
    for word in reader.some_args("response codes")? {
        let code = reader.check(value::rcode(&word.to_uppercase()))?;
        if failover && code == Rcode::NOERROR {
            return Err(reader.error("NOERROR is no reason to ask the next server"));
        }
        codes.push(code);
    }
    Ok(codes)
}

/// `DURATION [no_rec] [domain NAME]`
fn health_check(reader: &mut Reader<'_>, check: &mut HealthCheck) -> Result<()> {
    check.interval = duration(reader)?;
    check.domain = Zone::root();
    while let Some(word) = reader.next_arg() {
        match word {
            "no_rec" => check.recursion_desired = false,
            "domain" => {
                let name = reader.value("a name")?;
                let parsed = name.parse::<Zone>();
                let wrong = |error| reader.error(format!("{name:?} is no name: {error}"));
                check.domain = parsed.map_err(wrong)?.lower();
            }
            other => return Err(reader.unknown_value("option", other, &["no_rec", "domain"])),
        }
    }
    Ok(())
}
