//! Plugins about what is listened on and for how long: `bind`, `https`, `timeouts`, `reload`,
//! `ready`, `health`, `pprof`, `prometheus`.

use std::net::IpAddr;
use std::time::Duration;

use crate::corefile::reader::{Reader, Result, quoted};
use crate::corefile::value;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The address or name; empty is every address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Listen on these addresses only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bind {
    /// Addresses and names of interfaces.
    pub addresses: Vec<String>,
    /// Those of them that are left out (an interface's, say).
    pub except: Vec<String>,
}

/// Bounds of the DNS over HTTPS listeners; `None` is `CoreDNS`'s default, 0 no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Https {
    /// Connections.
    pub max_connections: Option<u32>,
    /// Streams of one connection.
    pub max_streams: Option<u32>,
}

/// Timeouts of connections; `None` is the server's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// Until a query is read.
    pub read: Option<Duration>,
    /// Until an answer is written.
    pub write: Option<Duration>,
    /// Until an idle connection is closed.
    pub idle: Option<Duration>,
    /// Queries on one connection.
    pub max_tcp_queries: Option<MaxTcpQueries>,
}

/// Queries on one TCP or TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxTcpQueries {
    /// No bound.
    Unlimited,
    /// At most this many.
    AtMost(u32),
}

/// How often the file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reload {
    /// How often.
    pub interval: Duration,
    /// The interval is longer or shorter by up to half of this.
    pub jitter: Duration,
}

impl Default for Reload {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            jitter: Duration::from_secs(15),
        }
    }
}

/// The readiness endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Where.
    pub listen: Listen,
    /// A plugin that was ready once is asked again.
    pub continuously: bool,
}

/// The health endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Where.
    pub listen: Listen,
    /// On shutdown the server goes on for this time, telling that it is not healthy.
    pub lameduck: Duration,
}

/// Taken, without effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pprof {
    /// Where.
    pub listen: Listen,
}

/// The metrics endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prometheus {
    /// Where.
    pub listen: Listen,
}

impl Listen {
    fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
        }
    }
}

impl Default for Ready {
    fn default() -> Self {
        Self {
            listen: Listen::new("", 8181),
            continuously: false,
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            listen: Listen::new("", 8080),
            lameduck: Duration::ZERO,
        }
    }
}

impl Default for Pprof {
    fn default() -> Self {
        Self {
            listen: Listen::new("localhost", 6053),
        }
    }
}

impl Default for Prometheus {
    fn default() -> Self {
        Self {
            listen: Listen::new("localhost", 9153),
        }
    }
}

pub(super) fn parse_bind(reader: &mut Reader<'_>) -> Vec<Bind> {
    let mut all = Vec::new();
    reader.each(|reader| {
        let mut bind = Bind {
            addresses: addresses(reader)?,
            except: Vec::new(),
        };
        reader.options(|reader, name| {
            match name {
                "except" => bind.except = addresses(reader)?,
                _ => return Err(reader.unknown_option(&["except"])),
            }
            Ok(())
        });
        all.push(bind);
        Ok(())
    });
    all
}

/// Addresses and names of interfaces.
fn addresses(reader: &mut Reader<'_>) -> Result<Vec<String>> {
    let args = reader.some_args("addresses or names of interfaces")?;
    // The kernel's rules for names of interfaces.
    let interface = |name: &str| {
        (1..16).contains(&name.len())
            && !matches!(name, "." | "..")
            && !name.contains(['/', ':'])
            && !name.contains(char::is_whitespace)
    };
    for arg in &args {
        if arg.parse::<IpAddr>().is_err() && !interface(arg) {
            let message = format!("{arg:?} is neither an IP address nor a name of an interface");
            return Err(reader.error(message));
        }
    }
    Ok(args.into_iter().map(str::to_owned).collect())
}

pub(super) fn parse_https(reader: &mut Reader<'_>) -> Option<Https> {
    let mut found = None;
    reader.first(|reader| {
        let mut https = Https::default();
        reader.no_args()?;
        reader.options(|reader, name| {
            let place = match name {
                "max_connections" => &mut https.max_connections,
                "max_streams" => &mut https.max_streams,
                _ => return Err(reader.unknown_option(&["max_connections", "max_streams"])),
            };
            let text = reader.one_arg("a number")?;
            let most = if name == "max_streams" {
                i64::from(u32::MAX)
            } else {
                i64::MAX
            };
            let number = reader.check(value::number(text, name, 0, most))?;
            if place
                .replace(u32::try_from(number).unwrap_or(u32::MAX))
                .is_some()
            {
                return Err(reader.error(format!("{name} may be there only once")));
            }
            Ok(())
        });
        found = Some(https);
        Ok(())
    });
    found
}

pub(super) fn parse_timeouts(reader: &mut Reader<'_>) -> Option<Timeouts> {
    const OPTIONS: [&str; 4] = ["read", "write", "idle", "maxtcpqueries"];
    let mut timeouts = Timeouts::default();
    let mut found = false;
    reader.each(|reader| {
        found = true;
        reader.no_args()?;
        let mut options = 0;
        reader.options(|reader, name| {
            options += 1;
            let place = match name {
                "read" => &mut timeouts.read,
                "write" => &mut timeouts.write,
                "idle" => &mut timeouts.idle,
                "maxtcpqueries" => {
                    timeouts.max_tcp_queries = Some(max_tcp_queries(reader)?);
                    return Ok(());
                }
                _ => return Err(reader.unknown_option(&OPTIONS)),
            };
            let text = reader.one_arg("a duration of 1s to 24h")?;
            *place = Some(reader.check(timeout(text))?);
            Ok(())
        });
        if options == 0 {
            return Err(reader.error("a block with read, write or idle is missing"));
        }
        Ok(())
    });
    found.then_some(timeouts)
}

/// A duration, or a number of seconds.
fn timeout(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<i64>() {
        Ok(_) => value::positive_duration(&format!("{text}s"))?,
        Err(_) => value::positive_duration(text)?,
    };
    if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&duration) {
        return Err(format!("{text:?} is not within 1s and 24h"));
    }
    Ok(duration)
}

fn max_tcp_queries(reader: &mut Reader<'_>) -> Result<MaxTcpQueries> {
    let text = reader.one_arg("a number, or -1 for no bound")?;
    if text == "-1" {
        return Ok(MaxTcpQueries::Unlimited);
    }
    let number = value::number(text, "maxtcpqueries (-1 is no bound)", 1, i64::MAX);
    let number = reader.check(number)?;
    Ok(MaxTcpQueries::AtMost(
        u32::try_from(number).unwrap_or(u32::MAX),
    ))
}

pub(super) fn parse_reload(reader: &mut Reader<'_>) -> Option<Reload> {
    let mut found = None;
    reader.first(|reader| {
        let args = reader.args();
        let mut reload = Reload::default();
        if let [_, _, more, ..] = args.as_slice() {
            return Err(reader.error(format!("unexpected {more:?} after INTERVAL JITTER")));
        }
        if let Some(text) = args.first() {
            reload.interval = reader.check(value::duration(text))?.or_zero();
        }
        if reload.interval < Duration::from_secs(2) {
            return Err(reader.error("the interval is shorter than 2s"));
        }
        if let Some(text) = args.get(1) {
            let jitter = reader.check(value::duration(text))?;
            reload.jitter = jitter.or_zero();
            if jitter.0 != 0 && reload.jitter < Duration::from_secs(1) {
                return Err(reader.error("the jitter is neither 0 nor 1s or longer"));
            }
        }
        reload.jitter = reload.jitter.min(reload.interval / 2);
        found = Some(reload);
        Ok(())
    });
    found
}

/// `[ADDRESS]`, the only argument there may be.
fn address(reader: &mut Reader<'_>, default: &Listen) -> Result<Listen> {
    match reader.args().as_slice() {
        [] => Ok(default.clone()),
        [address] => reader.check(value::listen(address)),
        other => {
            let found = quoted(other);
            Err(reader.error(format!("an address is expected, or nothing; found {found}")))
        }
    }
}

pub(super) fn parse_ready(reader: &mut Reader<'_>) -> Option<Ready> {
    const KNOWN: [&str; 2] = ["until-ready", "continuously"];
    let mut found = None;
    reader.once(|reader| {
        let mut ready = Ready::default();
        ready.listen = address(reader, &ready.listen)?;
        reader.options(|reader, name| {
            if name != "monitor" {
                return Err(reader.unknown_option(&["monitor"]));
            }
            ready.continuously = match reader.one_arg("until-ready or continuously")? {
                "until-ready" => false,
                "continuously" => true,
                other => return Err(reader.unknown_value("kind of monitoring", other, &KNOWN)),
            };
            Ok(())
        });
        found = Some(ready);
        Ok(())
    });
    found
}

pub(super) fn parse_health(reader: &mut Reader<'_>) -> Option<Health> {
    // As in CoreDNS, a second one changes what the first one set.
    let mut health = Health::default();
    let mut found = false;
    reader.each(|reader| {
        found = true;
        health.listen = address(reader, &health.listen)?;
        reader.options(|reader, name| {
            if name != "lameduck" {
                return Err(reader.unknown_option(&["lameduck"]));
            }
            let text = reader.one_arg("a duration")?;
            health.lameduck = reader.check(value::duration(text))?.or_zero();
            Ok(())
        });
        Ok(())
    });
    found.then_some(health)
}

pub(super) fn parse_pprof(reader: &mut Reader<'_>) -> Option<Pprof> {
    let mut found = None;
    reader.once(|reader| {
        reader.warn("it is without effect: this server has no Go runtime to profile");
        let mut pprof = Pprof::default();
        pprof.listen = address(reader, &pprof.listen)?;
        reader.options(|reader, name| {
            if name != "block" {
                return Err(reader.unknown_option(&["block"]));
            }
            match reader.args().as_slice() {
                [] => {}
                [rate] => {
                    reader.check(value::number(rate, "the rate", i64::MIN, i64::MAX))?;
                }
                other => {
                    let found = quoted(other);
                    return Err(reader.error(format!("block takes a rate; found {found}")));
                }
            }
            Ok(())
        });
        found = Some(pprof);
        Ok(())
    });
    found
}

pub(super) fn parse_prometheus(reader: &mut Reader<'_>) -> Option<Prometheus> {
    let mut found = None;
    reader.once(|reader| {
        let mut prometheus = Prometheus::default();
        prometheus.listen = address(reader, &prometheus.listen)?;
        reader.options(|reader, name| match name {
            "runtime_metrics" => {
                reader.no_args()?;
                reader.warn("runtime_metrics is without effect: there is no Go runtime");
                Ok(())
            }
            "tls" => Err(reader.error("tls is not supported for the metrics endpoint")),
            _ => Err(reader.unknown_option(&["runtime_metrics", "tls"])),
        });
        found = Some(prometheus);
        Ok(())
    });
    found
}
