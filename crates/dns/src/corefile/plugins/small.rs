//! Plugins with little to say: `metadata`, `dns64`, `chaos`, `loadbalance`, `autopath`,
//! `header`, `erratic`, `view`.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use crate::corefile::reader::{Reader, Result, quoted};
use crate::corefile::{Zone, value};
use crate::expression::Expression;

/// Values of a query that other plugins may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// For names in these zones.
    pub zones: Vec<Zone>,
}

/// AAAA out of A.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns64 {
    /// The prefix; its length is 32, 40, 48, 56, 64 or 96.
    pub prefix: Ipv6Net,
    /// Also where there is an AAAA.
    pub translate_all: bool,
    /// Also for clients that ask over IPv4.
    pub allow_ipv4: bool,
}

impl Default for Dns64 {
    fn default() -> Self {
        let well_known = std::net::Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);
        Self {
            prefix: Ipv6Net::new_assert(well_known, 96),
            translate_all: false,
            allow_ipv4: false,
        }
    }
}

/// What the server says about itself in class CH.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chaos {
    /// version.bind; `None` is the server's own.
    pub version: Option<String>,
    /// authors.bind, sorted; `None` is the server's own.
    pub authors: Option<Vec<String>>,
}

/// The order of addresses in an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadBalance {
    /// How they are ordered.
    pub policy: LoadBalancePolicy,
    /// Addresses in these networks come first, in this order of networks.
    pub prefer: Vec<IpNet>,
}

/// How addresses are ordered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LoadBalancePolicy {
    /// At random.
    #[default]
    RoundRobin,
    /// By weights out of a file.
    Weighted {
        /// The file.
        file: String,
        /// How often it is looked at; zero is never again.
        reload: Duration,
    },
}

/// The search path completed by the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoPath {
    /// For names in these zones.
    pub zones: Vec<Zone>,
    /// The search path.
    pub search: SearchPath,
}

/// Where a search path comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SearchPath {
    /// From a plugin that knows the client (`@kubernetes`).
    Plugin(String),
    /// From the `search` line of a file like /etc/resolv.conf.
    File(String),
}

/// Flags set or cleared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// In the query.
    pub query: Vec<HeaderRule>,
    /// In the response.
    pub response: Vec<HeaderRule>,
}

/// A flag set or cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderRule {
    /// The flag.
    pub flag: Flag,
    /// Set or cleared.
    pub set: bool,
}

/// A flag of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// aa
    Authoritative,
    /// ra
    RecursionAvailable,
    /// rd
    RecursionDesired,
}

/// Bad answers on purpose; 0 is never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erratic {
    /// Every so-manyth query is dropped.
    pub drop: u32,
    /// Every so-manyth query is late ...
    pub delay: u32,
    /// ... by this.
    pub duration: Duration,
    /// Every so-manyth answer is truncated.
    pub truncate: u32,
    /// Answers are large.
    pub large: bool,
}

impl Default for Erratic {
    fn default() -> Self {
        Self {
            drop: 2,
            delay: 0,
            duration: Duration::ZERO,
            truncate: 0,
            large: false,
        }
    }
}

/// The block is for queries of which all of this holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The name, for metrics and metadata.
    pub name: String,
    /// Conditions in the language of the Go module expr.
    pub expressions: Vec<String>,
}

pub(super) fn parse_root(reader: &mut Reader<'_>) -> Option<String> {
    let mut root = None;
    reader.each(|reader| {
        root = Some(reader.value("a folder")?.to_owned());
        Ok(())
    });
    root
}

pub(super) fn parse_metadata(reader: &mut Reader<'_>) -> Option<Metadata> {
    let mut found = None;
    reader.once(|reader| {
        let args = reader.args();
        found = Some(Metadata {
            zones: reader.zones(&args),
        });
        if reader.next_in_block() {
            return Err(reader.unknown_option(&[]));
        }
        Ok(())
    });
    found
}

pub(super) fn parse_cancel(reader: &mut Reader<'_>) -> Option<Duration> {
    let mut found = None;
    reader.each(|reader| {
        found = Some(match reader.args().as_slice() {
            [] => Duration::from_millis(5001),
            [text] => reader.check(value::positive_duration(text))?,
            other => {
                let found = quoted(other);
                return Err(reader.error(format!("a duration is expected; found {found}")));
            }
        });
        if found == Some(Duration::ZERO) {
            return Err(reader.error("the duration is 0; a longer one is expected"));
        }
        Ok(())
    });
    found
}

pub(super) fn parse_multisocket(reader: &mut Reader<'_>) -> Option<u16> {
    let mut found = None;
    reader.once(|reader| {
        found = Some(match reader.args().as_slice() {
            [] => 0,
            [number] => reader.check(value::number(number, "the number of sockets", 1, 1024))?,
            other => {
                let found = quoted(other);
                return Err(reader.error(format!("a number is expected; found {found}")));
            }
        });
        Ok(())
    });
    found
}

pub(super) fn parse_nsid(reader: &mut Reader<'_>) -> Option<String> {
    let mut found = None;
    reader.once(|reader| {
        found = Some(reader.args().join(" "));
        Ok(())
    });
    found
}

pub(super) fn parse_bufsize(reader: &mut Reader<'_>) -> Option<u16> {
    let mut found = None;
    reader.first(|reader| {
        found = Some(match reader.args().as_slice() {
            // The size of the DNS flag day of 2020.
            [] => 1232,
            [size] => reader.check(value::number(size, "the size", 512, 4096))?,
            other => {
                let found = quoted(other);
                return Err(reader.error(format!("a size is expected; found {found}")));
            }
        });
        Ok(())
    });
    found
}

/// A plugin that takes nothing.
pub(super) fn parse_flag(reader: &mut Reader<'_>) -> bool {
    let mut found = false;
    reader.first(|reader| {
        found = true;
        if let Some(arg) = reader.next_arg() {
            return Err(reader.error(format!("it takes nothing; found {arg:?}")));
        }
        Ok(())
    });
    found
}

pub(super) fn parse_debug(reader: &mut Reader<'_>) -> bool {
    let mut found = false;
    reader.each(|reader| {
        found = true;
        if let Some(arg) = reader.next_arg() {
            return Err(reader.error(format!("it takes nothing; found {arg:?}")));
        }
        Ok(())
    });
    found
}

pub(super) fn parse_local(reader: &mut Reader<'_>) -> Option<bool> {
    // As in CoreDNS, a second one changes what the first one set.
    let mut found = None;
    reader.each(|reader| {
        let prefix = found.get_or_insert(true);
        reader.no_args()?;
        reader.options(|reader, name| {
            if name != "localhost_prefix" {
                return Err(reader.unknown_option(&["localhost_prefix"]));
            }
            *prefix = match reader.one_arg("on or off")? {
                "on" => true,
                "off" => false,
                other => return Err(reader.unknown_value("setting", other, &["on", "off"])),
            };
            Ok(())
        });
        Ok(())
    });
    found
}

pub(super) fn parse_dns64(reader: &mut Reader<'_>) -> Option<Dns64> {
    const OPTIONS: [&str; 3] = ["prefix", "translate_all", "allow_ipv4"];
    // As in CoreDNS, a second one changes what the first one set.
    let mut dns64 = Dns64::default();
    let mut found = false;
    reader.each(|reader| {
        found = true;
        match reader.args().as_slice() {
            [] => {}
            // The words of a block that follows are each read as one more `dns64`.
            [text] => {
                dns64.prefix = reader.check(dns64_prefix(text))?;
                return Ok(());
            }
            other => {
                let found = quoted(other);
                return Err(reader.error(format!("a prefix is expected; found {found}")));
            }
        }
        reader.options(|reader, name| {
            match name {
                "prefix" => {
                    let text = reader.value("a prefix")?;
                    dns64.prefix = reader.check(dns64_prefix(text))?;
                }
                "translate_all" => dns64.translate_all = true,
                "allow_ipv4" => dns64.allow_ipv4 = true,
                _ => return Err(reader.unknown_option(&OPTIONS)),
            }
            Ok(())
        });
        Ok(())
    });
    found.then_some(dns64)
}

fn dns64_prefix(text: &str) -> Result<Ipv6Net, String> {
    let prefix = text.parse::<Ipv6Net>().ok().map(|prefix| prefix.trunc());
    prefix
        .filter(|prefix| matches!(prefix.prefix_len(), 32 | 40 | 48 | 56 | 64 | 96))
        .ok_or_else(|| {
            format!(
                "{text:?} is no IPv6 prefix of length 32, 40, 48, 56, 64 or 96, such as \
                 64:ff9b::/96"
            )
        })
}

pub(super) fn parse_chaos(reader: &mut Reader<'_>) -> Option<Chaos> {
    let mut found = None;
    reader.first(|reader| {
        let args = reader.args();
        let mut chaos = Chaos::default();
        if let [version, authors @ ..] = args.as_slice() {
            chaos.version = Some((*version).to_owned());
            if !authors.is_empty() {
                let names: BTreeSet<&str> = authors.iter().copied().collect();
                chaos.authors = Some(names.into_iter().map(str::to_owned).collect());
            }
        }
        found = Some(chaos);
        if reader.next_in_block() {
            return Err(reader.unknown_option(&[]));
        }
        Ok(())
    });
    found
}

pub(super) fn parse_loadbalance(reader: &mut Reader<'_>) -> Option<LoadBalance> {
    // As in CoreDNS, a second one changes what the first one set.
    let mut balance = LoadBalance::default();
    let mut found = false;
    reader.each(|reader| {
        found = true;
        match reader.args().as_slice() {
            [] | ["round_robin"] => balance.policy = LoadBalancePolicy::RoundRobin,
            ["weighted", file] => {
                let file = reader.file(file);
                let reload = weights_reload(reader);
                balance = LoadBalance {
                    policy: LoadBalancePolicy::Weighted { file, reload },
                    prefer: Vec::new(),
                };
            }
            ["weighted"] => return Err(reader.error("weighted takes a file; found nothing")),
            ["weighted", _, more, ..] | ["round_robin", more, ..] => {
                return Err(reader.error(format!("unexpected {more:?} after the policy")));
            }
            [other, ..] => {
                let known = ["round_robin", "weighted"];
                return Err(reader.unknown_value("policy", other, &known));
            }
        }
        reader.options(|reader, name| {
            if name != "prefer" {
                return Err(reader.unknown_option(&["prefer"]));
            }
            for text in reader.args() {
                let network = text.parse::<IpNet>();
                let wrong = |_| reader.error(format!("{text:?} is no network (10.0.0.0/8)"));
                balance.prefer.push(network.map_err(wrong)?.trunc());
            }
            Ok(())
        });
        Ok(())
    });
    found.then_some(balance)
}

fn weights_reload(reader: &mut Reader<'_>) -> Duration {
    let mut reload = Duration::from_secs(30);
    reader.options(|reader, name| {
        if name != "reload" {
            return Err(reader.unknown_option(&["reload"]));
        }
        let text = reader.one_arg("a duration; 0s is never again")?;
        reload = reader.check(value::duration(text))?.or_zero();
        Ok(())
    });
    reload
}

pub(super) fn parse_autopath(reader: &mut Reader<'_>) -> Option<AutoPath> {
    let mut found = None;
    reader.each(|reader| {
        let args = reader.args();
        let Some((search, zones)) = args.split_last() else {
            let message = "a search path is missing: @kubernetes or a file like /etc/resolv.conf";
            return Err(reader.error(message));
        };
        let search = match search.strip_prefix('@') {
            Some(plugin) => {
                if plugin != "kubernetes" {
                    reader.warn(format!(
                        "the plugin {plugin:?} knows no search paths: it is without effect"
                    ));
                }
                SearchPath::Plugin(plugin.to_owned())
            }
            None => SearchPath::File((*search).to_owned()),
        };
        found = Some(AutoPath {
            zones: reader.zones(zones),
            search,
        });
        Ok(())
    });
    found
}

pub(super) fn parse_header(reader: &mut Reader<'_>) -> Option<Header> {
    let mut found: Option<Header> = None;
    let position = reader.position();
    let before = reader.report.errors.len();
    let mut any = false;
    // As in CoreDNS, the first one that has rules is the one that counts.
    reader.each(|reader| {
        any = true;
        let mut header = Header::default();
        reader.options(|reader, selector| {
            let rules = match selector.to_lowercase().as_str() {
                "query" => &mut header.query,
                "response" => &mut header.response,
                _ => return Err(reader.unknown_option(&["query", "response"])),
            };
            rules.extend(header_rules(reader)?);
            Ok(())
        });
        if found.is_some() {
            reader.warn("it is there more than once in the server block: only the first counts");
        } else if header != Header::default() {
            found = Some(header);
        }
        Ok(())
    });
    if any && found.is_none() && reader.report.errors.len() == before {
        let mut error = reader.error("a block with \"query\" or \"response\" rules is missing");
        error.at = position;
        reader.report.error(error);
    }
    found
}

/// `set|clear FLAGS...`
fn header_rules(reader: &mut Reader<'_>) -> Result<Vec<HeaderRule>> {
    let action = reader.value("set or clear, and flags")?;
    let set = match action.to_lowercase().as_str() {
        "set" => true,
        "clear" => false,
        other => return Err(reader.unknown_value("action", other, &["set", "clear"])),
    };
    let mut rules = Vec::new();
    for flag in reader.some_args("flags: aa, ra, rd")? {
        let flag = match flag.to_lowercase().as_str() {
            "aa" => Flag::Authoritative,
            "ra" => Flag::RecursionAvailable,
            "rd" => Flag::RecursionDesired,
            other => return Err(reader.unknown_value("flag", other, &["aa", "ra", "rd"])),
        };
        rules.push(HeaderRule { flag, set });
    }
    Ok(rules)
}

pub(super) fn parse_erratic(reader: &mut Reader<'_>) -> Option<Erratic> {
    const OPTIONS: [&str; 4] = ["drop", "delay", "truncate", "large"];
    let mut erratic = Erratic::default();
    let (mut found, mut drop) = (false, false);
    reader.each(|reader| {
        found = true;
        reader.options(|reader, name| {
            match name {
                "drop" => {
                    if let Some(amount) = amounts(reader, 1)?.0 {
                        (erratic.drop, drop) = (amount, true);
                    }
                }
                "delay" => {
                    let (amount, duration) = amounts(reader, 2)?;
                    erratic.delay = amount.unwrap_or(2);
                    erratic.duration = duration.unwrap_or(Duration::from_millis(100));
                }
                "truncate" => erratic.truncate = amounts(reader, 1)?.0.unwrap_or(2),
                "large" => erratic.large = true,
                _ => return Err(reader.unknown_option(&OPTIONS)),
            }
            Ok(())
        });
        Ok(())
    });
    // Who asks for other faults wants no drops unless they are asked for too.
    if (erratic.delay > 0 || erratic.truncate > 0) && !drop {
        erratic.drop = 0;
    }
    found.then_some(erratic)
}

/// `[AMOUNT [DURATION]]`
fn amounts(reader: &mut Reader<'_>, most: usize) -> Result<(Option<u32>, Option<Duration>)> {
    let args = reader.args();
    if args.len() > most {
        return Err(reader.error(format!("unexpected {:?}", args[most])));
    }
    let most = i32::MAX.unsigned_abs();
    let amount = args
        .first()
        .map(|text| value::number(text, "the amount", 0, most));
    let amount = reader.check(amount.transpose())?;
    let duration = args.get(1).map(|text| value::duration(text));
    let duration = reader.check(duration.transpose())?;
    Ok((amount, duration.map(value::Nanos::or_zero)))
}

pub(super) fn parse_loop(reader: &mut Reader<'_>) -> Option<Zone> {
    let mut found = None;
    reader.once(|reader| {
        found = Some(
            reader
                .block
                .zones
                .first()
                .cloned()
                .unwrap_or_else(Zone::root),
        );
        if let Some(arg) = reader.next_arg() {
            return Err(reader.error(format!("it takes nothing; found {arg:?}")));
        }
        Ok(())
    });
    found
}

pub(super) fn parse_view(reader: &mut Reader<'_>) -> Option<View> {
    let mut found = None;
    reader.once(|reader| {
        let mut view = View {
            name: reader.one_arg("a name")?.to_owned(),
            expressions: Vec::new(),
        };
        reader.options(|reader, name| {
            if name != "expr" {
                return Err(reader.unknown_option(&["expr"]));
            }
            let text = reader.some_args("an expression")?.join(" ");
            reader.check(Expression::new(&text, &[], false).map(drop))?;
            view.expressions.push(text);
            Ok(())
        });
        found = Some(view);
        Ok(())
    });
    found
}
