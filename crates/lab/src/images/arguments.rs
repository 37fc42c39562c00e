//! Flags and durations as Go programs take them, for programs that stand in for such.

use std::collections::BTreeMap;
use std::time::Duration;

/// A parsed command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    named: BTreeMap<String, String>,
    /// What is no flag.
    pub rest: Vec<String>,
}

impl Flags {
    /// Reads `-name value`, `--name=value` and, for those in `switches`, `--name`. Only the
    /// flags in `values` and `switches` are known.
    pub fn parse(args: &[String], values: &[&str], switches: &[&str]) -> Result<Self, String> {
        let mut flags = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(name) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                flags.rest.push(arg.clone());
                continue;
            };
            if name.is_empty() {
                flags.rest.extend(args.by_ref().cloned());
                break;
            }
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let value = match value {
                Some(value) if values.contains(&name) || switches.contains(&name) => value,
                None if switches.contains(&name) => "true".to_owned(),
                None if values.contains(&name) => args
                    .next()
                    .cloned()
                    .ok_or(format!("flag needs an argument: --{name}"))?,
                _ => return Err(format!("unknown flag: --{name}")),
            };
            flags.named.insert(name.to_owned(), value);
        }
        Ok(flags)
    }

    /// A flag's text.
    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.named.get(name).map_or(default, String::as_str)
    }

    /// A flag's number.
    pub fn number(&self, name: &str, default: i32) -> Result<i32, String> {
        match self.named.get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| {
                format!("invalid argument {text:?} for \"--{name}\" flag: it is no number")
            }),
        }
    }

    /// A switch.
    pub fn switch(&self, name: &str, default: bool) -> bool {
        self.named
            .get(name)
            .map_or(default, |v| v == "true" || v == "1")
    }

    /// A flag's duration.
    pub fn duration(&self, name: &str) -> Result<Duration, String> {
        match self.named.get(name) {
            None => Ok(Duration::ZERO),
            Some(text) => duration(text)
                .ok_or_else(|| format!("invalid argument {text:?} for \"--{name}\" flag")),
        }
    }
}

/// A duration in Go's words: `1m30s`, `500ms`, `0`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |n| end + n);
        total += number
            * match &rest[end..unit_end] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_in_all_their_forms() {
        let args = [
            "--http-port=80",
            "-udp-port",
            "81",
            "--close",
            "x",
            "--",
            "--y",
        ];
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        let flags = Flags::parse(&args, &["http-port", "udp-port"], &["close"]).unwrap();
        assert_eq!(flags.number("http-port", 1), Ok(80));
        assert_eq!(flags.number("udp-port", 1), Ok(81));
        assert!(flags.switch("close", false));
        assert_eq!(flags.rest, ["x", "--y"]);
        let wrong = Flags::parse(&["--htp".to_owned()], &["http"], &[]);
        assert_eq!(wrong.unwrap_err(), "unknown flag: --htp");
    }

    #[test]
    fn durations_as_go_reads_them() {
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("0"), Some(Duration::ZERO));
        assert_eq!(duration("5"), None);
        assert_eq!(duration(""), None);
        assert_eq!(duration("1y"), None);
    }
}
