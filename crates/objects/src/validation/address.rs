//! Address ranges of fields that are older than strict checks (Kubernetes 1.36 is strict about
//! new values, and lets those stay that are there).

use std::net::{IpAddr, Ipv6Addr};

use serde_json::Value;

use super::common::{CIDR, text};
use super::field::{Errors, Path};

/// A range as Go's lenient parser reads it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    /// The address that was written, an IPv4-mapped one as IPv6.
    ip: IpAddr,
    length: u8,
}

/// The bits of an address behind the first `length`, or these alone.
fn masked(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

impl Range {
    /// `10.0.0.0/8`; leading zeros are decimal.
    fn parse(text: &str) -> Option<Self> {
        let (ip, length) = text.split_once('/')?;
        let ip = lenient_address(ip)?;
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        let length: u8 = length.parse().ok().filter(|_| digits)?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        (length <= most).then_some(Self { ip, length })
    }

    fn network(self) -> IpAddr {
        masked(self.ip, self.length)
    }

    /// The network and the length of its prefix, of mapped ranges as IPv4.
    fn plain(self) -> (IpAddr, u8) {
        match self.network() {
            net if is_mapped(net) => (net.to_canonical(), self.length.saturating_sub(96)),
            net => (net, self.length),
        }
    }

    /// Whether it has all of `other` and more.
    pub fn strictly_contains(self, other: Self) -> bool {
        let (net, length) = self.plain();
        let (inner, _) = other.plain();
        net.is_ipv4() == inner.is_ipv4()
            && masked(inner, length) == net
            && self.length < other.length
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (net, length) = self.plain();
        write!(f, "{net}/{length}")
    }
}

/// An address whose numbers may have leading zeros.
fn lenient_address(text: &str) -> Option<IpAddr> {
    let short = |number: &str| -> String {
        let kept = number.trim_start_matches('0');
        let kept = if kept.is_empty() && !number.is_empty() {
            "0"
        } else {
            kept
        };
        kept.to_owned()
    };
    let v4 = |text: &str| -> String {
        let octets: Vec<String> = text.split('.').map(short).collect();
        octets.join(".")
    };
    if !text.contains(':') {
        return v4(text).parse::<std::net::Ipv4Addr>().ok().map(Into::into);
    }
    let groups: Vec<String> = text
        .split(':')
        .map(|group| {
            if group.contains('.') {
                v4(group)
            } else {
                short(group)
            }
        })
        .collect();
    groups.join(":").parse::<Ipv6Addr>().ok().map(Into::into)
}

/// A range as Go's strict parser reads it: address and length.
pub(crate) fn strict_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, length) = text.rsplit_once('/')?;
    let plain = length == "0" || !length.starts_with('0');
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let length: u8 = length.parse().ok().filter(|_| plain && digits)?;
    let ip: IpAddr = ip.parse().ok()?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    (length <= most).then_some((ip, length))
}

/// A range. What `before` has of the object's old ranges is taken as it is.
pub(super) fn range(
    errors: &mut Errors,
    path: &Path<'_>,
    value: &Value,
    before: &[&str],
) -> Option<Range> {
    let value = text(value);
    let range = Range::parse(value);
    if before.contains(&value) {
        return range;
    }
    let wrong = match (range, strict_prefix(value)) {
        (None, _) => CIDR,
        (_, None) => "must not have leading 0s in IP or prefix length",
        (_, Some((ip, _))) if is_mapped(ip) => "must not have an IPv4-mapped IPv6 address",
        (_, Some((ip, length))) if masked(ip, length) != ip => {
            "must not have bits set beyond the prefix length"
        }
        _ => return range,
    };
    errors.invalid_text(path, value, wrong);
    range
}

/// What is unusual about a range that is taken all the same.
pub(super) fn range_warnings(path: &Path<'_>, value: &Value, warnings: &mut Vec<String>) {
    let value = text(value);
    let Some(range) = Range::parse(value) else {
        return;
    };
    let before = warnings.len();
    if range.network().to_canonical() != range.ip.to_canonical() {
        let bits = if range.ip.is_ipv4() { 32 } else { 128 };
        let one = range.ip.to_canonical();
        warnings.push(format!(
            "{path}: CIDR value {value:?} is ambiguous in this context (should be \"{range}\" or \"{one}/{bits}\"?)"
        ));
    }
    match strict_prefix(value) {
        Some((ip, length)) if !is_mapped(ip) => {
            let canonical = format!("{ip}/{length}");
            if warnings.len() == before && ip.is_ipv6() && canonical != value {
                warnings.push(format!(
                    "{path}: IPv6 CIDR value {value:?} should be in RFC 5952 canonical format ({canonical:?})"
                ));
            }
        }
        _ => warnings.push(format!(
            "{path}: non-standard CIDR value {value:?} is invalid: use \"{range}\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wrong(text: &str, before: &[&str]) -> String {
        let mut errors = Errors::new();
        range(&mut errors, &Path::root("cidr"), &json!(text), before);
        let found = errors.into_vec();
        found.first().map(|e| e.message.clone()).unwrap_or_default()
    }

    #[test]
    fn new_ranges_are_strict_and_old_ones_stay() {
        for good in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "FD00:0::/16",
            "::/0",
            "10.0.0.1/32",
        ] {
            assert_eq!(wrong(good, &[]), "", "{good}");
        }
        for (bad, why) in [
            ("10.0.0.0", "must be a valid CIDR value"),
            ("10.0.0.0/33", "must be a valid CIDR value"),
            (" 10.0.0.0/8", "must be a valid CIDR value"),
            (
                "10.0.0.1/8",
                "must not have bits set beyond the prefix length",
            ),
            (
                "010.0.0.0/8",
                "must not have leading 0s in IP or prefix length",
            ),
            (
                "10.0.0.0/08",
                "must not have leading 0s in IP or prefix length",
            ),
            (
                "00fd00::/16",
                "must not have leading 0s in IP or prefix length",
            ),
            (
                "::ffff:10.0.0.0/104",
                "must not have an IPv4-mapped IPv6 address",
            ),
        ] {
            let said = wrong(bad, &[]);
            assert!(said.contains(why), "{bad}: {said}");
            assert_eq!(wrong(bad, &[bad]), "");
        }
    }

    #[test]
    fn unusual_ranges_are_warned_of() {
        let warned = |text: &str| {
            let mut warnings = Vec::new();
            range_warnings(&Path::root("cidr"), &json!(text), &mut warnings);
            warnings.join("|")
        };
        assert_eq!(warned("10.0.0.0/8"), "");
        assert_eq!(
            warned("010.0.0.1/8"),
            "cidr: CIDR value \"010.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)|\
             cidr: non-standard CIDR value \"010.0.0.1/8\" is invalid: use \"10.0.0.0/8\""
        );
        assert_eq!(
            warned("FD00::/16"),
            "cidr: IPv6 CIDR value \"FD00::/16\" should be in RFC 5952 canonical format (\"fd00::/16\")"
        );
    }

    #[test]
    fn a_hole_lies_within_and_is_smaller() {
        let range = |text: &str| Range::parse(text).unwrap();
        let holds = |a: &str, b: &str| range(a).strictly_contains(range(b));
        assert!(holds("10.0.0.0/8", "10.1.0.0/16"));
        assert!(!holds("10.0.0.0/8", "10.0.0.0/8"));
        assert!(!holds("10.0.0.0/8", "11.0.0.0/16"));
        assert!(!holds("::/0", "10.0.0.0/8"));
        assert!(holds("::/0", "fd00::/8"));
    }
}
