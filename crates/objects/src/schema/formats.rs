//! The `format` words of CRD schemas that Kubernetes checks; others are ignored.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;

use crate::validation::names;

fn hex_groups(text: &str, groups: &[usize]) -> bool {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    hex.len() == groups.iter().sum::<usize>() && hex.chars().all(|c| c.is_ascii_hexdigit())
}

fn uuid(text: &str, version: Option<char>) -> bool {
    let hex: Vec<char> = text.chars().filter(|c| *c != '-').collect();
    hex_groups(text, &[8, 4, 4, 4, 12])
        && version.is_none_or(|v| hex.get(12) == Some(&v))
        && text.matches('-').count() <= 4
}

/// Go's durations: `1h2m3.5s`, a sign allowed, each number with a unit.
pub(crate) fn duration(text: &str) -> bool {
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let unit = ["ns", "us", "µs", "ms", "s", "m", "h"]
            .into_iter()
            .filter(|u| rest[number..].starts_with(u))
            .max_by_key(|u| u.len());
        let Some(unit) = unit.filter(|_| number > 0) else {
            return false;
        };
        rest = &rest[number + unit.len()..];
    }
    true
}

fn mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    [6, 8, 20].contains(&parts.len())
        && parts
            .iter()
            .all(|p| p.len() == 2 && p.chars().all(|c| c.is_ascii_hexdigit()))
}

fn uri(text: &str) -> bool {
    if text.starts_with('/') {
        return true;
    }
    text.split_once(':').is_some_and(|(scheme, rest)| {
        !rest.is_empty()
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}

/// False where the text is not of the format.
pub(crate) fn matches(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => duration(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "mac" => mac(text),
        "uri" => uri(text),
        "hostname" => {
            text.len() <= 255 && names::dns1123_subdomain(&text.to_lowercase()).is_empty()
        }
        "email" => text
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty()),
        "byte" => base64::engine::general_purpose::STANDARD
            .decode(text)
            .is_ok(),
        "uuid" => uuid(text, None),
        "uuid3" => uuid(text, Some('3')),
        "uuid4" => uuid(text, Some('4')),
        "uuid5" => uuid(text, Some('5')),
        "k8s-short-name" => names::dns1123_label(text).is_empty(),
        "k8s-long-name" => names::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_formats() {
        for (format, good, bad) in [
            ("date-time", "2026-01-01T00:00:00Z", "yesterday"),
            ("duration", "1h2m3.5s", "5 parsecs"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("cidr", "10.0.0.0/8", "10.0.0.0"),
            ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "x"),
            ("uri", "https://a.b/c", "nothing"),
            ("mac", "02:00:00:00:00:01", "02"),
        ] {
            assert!(matches(format, good), "{format}");
            assert!(!matches(format, bad), "{format}");
        }
        assert!(matches("unheard-of", "x"));
    }
}
