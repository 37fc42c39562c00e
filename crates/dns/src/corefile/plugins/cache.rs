//! `cache`.

use std::time::Duration;

use crate::corefile::reader::{Reader, Result};
use crate::corefile::{Zone, value};

/// The cache of a server block.
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    /// The zones whose answers are kept.
    pub zones: Vec<Zone>,
    /// Answers with data.
    pub success: CacheLimits,
    /// NXDOMAIN and NODATA.
    pub denial: CacheLimits,
    /// Answers fetched again before they are too old.
    pub prefetch: Option<Prefetch>,
    /// Answers given although they are too old.
    pub serve_stale: Option<ServeStale>,
    /// How long a SERVFAIL is kept; zero is not at all.
    pub servfail: Duration,
    /// Zones whose answers with data are not kept.
    pub disable_success: Vec<Zone>,
    /// Zones whose denials are not kept.
    pub disable_denial: Vec<Zone>,
    /// An answer out of the cache has the TTL it came with.
    pub keepttl: bool,
}

/// Bounds of one half of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// How many answers.
    pub capacity: usize,
    /// The longest TTL, in seconds.
    pub max_ttl: u32,
    /// The shortest TTL, in seconds.
    pub min_ttl: u32,
}

/// When an answer is fetched again before it is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefetch {
    /// Asked for this often ...
    pub amount: u32,
    /// ... without a pause longer than this ...
    pub duration: Duration,
    /// ... when this many hundredths of the TTL are left.
    pub percentage: u8,
}

/// Answers given although they are too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeStale {
    /// For how long.
    pub duration: Duration,
    /// Whether the upstream is asked before or after.
    pub refresh: Refresh,
    /// The TTL such an answer has, in seconds.
    pub ttl: u32,
    /// After a failed refresh, the upstream is left alone for this time.
    pub recheck: Duration,
    /// An answer with data that is too old is preferred to a denial.
    pub prefer_positive: bool,
}

/// When a stale answer is made fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// The stale answer goes out at once, the upstream is asked afterwards.
    Immediate,
    /// The upstream is asked first, for at most this time (`None`: as long as it takes).
    Verify(Option<Duration>),
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            success: CacheLimits {
                capacity: 10_000,
                max_ttl: 3600,
                min_ttl: 5,
            },
            denial: CacheLimits {
                capacity: 10_000,
                max_ttl: 1800,
                min_ttl: 5,
            },
            prefetch: None,
            serve_stale: None,
            servfail: Duration::from_secs(5),
            disable_success: Vec::new(),
            disable_denial: Vec::new(),
            keepttl: false,
        }
    }
}

const OPTIONS: [&str; 8] = [
    "success",
    "denial",
    "prefetch",
    "serve_stale",
    "serve_stale_policy",
    "servfail",
    "disable",
    "keepttl",
];

/// The longest a SERVFAIL is kept (RFC 2308, section 7.1), and an upstream left alone.
const LONGEST_FAILURE: Duration = Duration::from_secs(300);

pub(super) fn parse(reader: &mut Reader<'_>) -> Option<Cache> {
    let mut found = None;
    reader.once(|reader| {
        let mut cache = Cache::default();
        let args = reader.args();
        let mut zones = args.as_slice();
        if let Some(ttl) = args.first().filter(|first| first.parse::<i64>().is_ok()) {
            let ttl = reader.check(value::number(ttl, "the TTL", 1, i64::MAX))?;
            cache.success.max_ttl = capped(ttl);
            cache.denial.max_ttl = capped(ttl);
            zones = &args[1..];
        }
        cache.zones = reader.zones(zones);
        let mut policy = None;
        reader.options(|reader, name| option(reader, name, &mut cache, &mut policy));
        match (policy, &mut cache.serve_stale) {
            (Some(_), Some(stale)) => stale.prefer_positive = true,
            (Some(()), None) => {
                let error = reader.error("serve_stale_policy is there without serve_stale");
                reader.report.error(error);
            }
            (None, _) => {}
        }
        found = Some(cache);
        Ok(())
    });
    found
}

fn capped(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn option(
    reader: &mut Reader<'_>,
    name: &str,
    cache: &mut Cache,
    policy: &mut Option<()>,
) -> Result<()> {
    match name {
        "success" => limits(reader, &mut cache.success)?,
        "denial" => limits(reader, &mut cache.denial)?,
        "prefetch" => cache.prefetch = prefetch(reader)?,
        "serve_stale" => cache.serve_stale = Some(serve_stale(reader)?),
        "serve_stale_policy" => {
            let value = reader.one_arg("prefer_positive")?;
            if policy.replace(()).is_some() {
                return Err(reader.error("serve_stale_policy may be there only once"));
            }
            if !value.eq_ignore_ascii_case("prefer_positive") {
                return Err(reader.unknown_value("policy", value, &["prefer_positive"]));
            }
        }
        "servfail" => {
            let text = reader.one_arg("a duration of at most 5m")?;
            cache.servfail = reader.check(failure_duration(text))?;
        }
        "disable" => disable(reader, cache)?,
        "keepttl" => {
            reader.no_args()?;
            cache.keepttl = true;
        }
        _ => return Err(reader.unknown_option(&OPTIONS)),
    }
    Ok(())
}

/// `CAPACITY [TTL [MINTTL]]`
fn limits(reader: &mut Reader<'_>, limits: &mut CacheLimits) -> Result<()> {
    let args = reader.some_args("CAPACITY [TTL [MINTTL]]")?;
    let number = |at: usize, what, min| match args.get(at) {
        Some(text) => value::number(text, what, min, i64::MAX).map(Some),
        None => Ok(None),
    };
    if let Some(capacity) = reader.check(number(0, "the capacity", i64::MIN))? {
        limits.capacity = usize::try_from(capacity).unwrap_or(0);
    }
    if let Some(ttl) = reader.check(number(1, "the TTL", 1))? {
        limits.max_ttl = capped(ttl);
    }
    if let Some(ttl) = reader.check(number(2, "the least TTL", 0))? {
        limits.min_ttl = capped(ttl);
    }
    Ok(())
}

/// `AMOUNT [DURATION [PERCENTAGE%]]`
fn prefetch(reader: &mut Reader<'_>) -> Result<Option<Prefetch>> {
    let args = reader.some_args("AMOUNT [DURATION [PERCENTAGE%]]")?;
    if let [_, _, _, more, ..] = args.as_slice() {
        return Err(reader.error(format!("unexpected {more:?} after the percentage")));
    }
    let mut prefetch = Prefetch {
        amount: reader.check(value::count(args[0], "the amount"))?,
        duration: Duration::from_secs(60),
        percentage: 10,
    };
    if let Some(text) = args.get(1) {
        prefetch.duration = reader.check(value::duration(text))?.or_zero();
    }
    if let Some(text) = args.get(2) {
        let number = text.strip_suffix('%');
        let number = number.and_then(|text| value::number(text, "", 10, 90).ok());
        prefetch.percentage = number.ok_or_else(|| {
            reader.error(format!(
                "the percentage is {text:?}; 10% to 90% is expected"
            ))
        })?;
    }
    Ok((prefetch.amount > 0).then_some(prefetch))
}

/// `[DURATION [immediate [TTL [RECHECK]] | verify [TIMEOUT [TTL [RECHECK]]]]]`
fn serve_stale(reader: &mut Reader<'_>) -> Result<ServeStale> {
    let args = reader.args();
    let mut stale = ServeStale {
        duration: Duration::from_secs(3600),
        refresh: Refresh::Immediate,
        ttl: 0,
        recheck: Duration::ZERO,
        prefer_positive: false,
    };
    if let Some(text) = args.first() {
        stale.duration = reader.check(value::positive_duration(text))?;
    }
    let mut rest = args.get(2..).unwrap_or_default();
    match args.get(1).map(|mode| mode.to_lowercase()).as_deref() {
        None | Some("immediate") => {}
        Some("verify") => {
            let mut timeout = Duration::ZERO;
            if let [text, after @ ..] = rest {
                timeout = reader.check(value::positive_duration(text))?;
                rest = after;
            }
            stale.refresh = Refresh::Verify((!timeout.is_zero()).then_some(timeout));
        }
        Some(mode) => {
            return Err(reader.unknown_value("refresh mode", mode, &["immediate", "verify"]));
        }
    }
    if let [ttl, ..] = rest {
        stale.ttl = reader.check(stale_ttl(ttl))?;
    }
    if let [_, recheck, ..] = rest {
        stale.recheck = reader.check(failure_duration(recheck))?;
    }
    match rest {
        [_, _, more, ..] => Err(reader.error(format!("unexpected {more:?} after the recheck"))),
        _ => Ok(stale),
    }
}

fn stale_ttl(text: &str) -> Result<u32, String> {
    let ttl = value::positive_duration(text)?;
    match u32::try_from(ttl.as_secs()) {
        Ok(seconds) if ttl.subsec_nanos() == 0 => Ok(seconds),
        _ => Err(format!(
            "the TTL is {text:?}; whole seconds are expected, as in \"30s\""
        )),
    }
}

fn failure_duration(text: &str) -> Result<Duration, String> {
    let duration = value::positive_duration(text)?;
    if duration > LONGEST_FAILURE {
        return Err(format!("{text:?} is too long: at most 5m"));
    }
    Ok(duration)
}

/// `disable success|denial [ZONES...]`
fn disable(reader: &mut Reader<'_>, cache: &mut Cache) -> Result<()> {
    let args = reader.some_args("success or denial, and zones")?;
    let mut zones = Vec::new();
    for name in &args[1..] {
        match name.parse::<Zone>() {
            Ok(zone) => zones.push(zone.lower()),
            Err(error) => reader.warn(format!("{name:?} is no name: {error}: it is left out")),
        }
    }
    if args.len() == 1 {
        zones.push(Zone::root());
    }
    match args[0] {
        "success" => cache.disable_success = zones,
        "denial" => cache.disable_denial = zones,
        other => return Err(reader.unknown_value("half", other, &["success", "denial"])),
    }
    Ok(())
}
