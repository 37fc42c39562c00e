//! `errors`: what went wrong, told or counted.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::corefile::plugins::{Consolidate, Errors as Options, Level};
use crate::query::Query;
use crate::wire::Rcode;

/// The options, and what has been counted.
#[derive(Debug)]
pub struct Errors {
    since: Instant,
    patterns: Vec<Counted>,
}

/// Messages that are counted and told once a period.
#[derive(Debug)]
struct Counted {
    options: Consolidate,
    count: AtomicU32,
    /// When the period began, in milliseconds; what is counted is told at its end.
    began: AtomicU64,
}

impl Errors {
    /// Of the options.
    pub fn new(options: &Options, now: Instant) -> Self {
        let counted = |options: &Consolidate| Counted {
            options: options.clone(),
            count: AtomicU32::new(0),
            began: AtomicU64::new(0),
        };
        Self {
            since: now,
            patterns: options.consolidate.iter().map(counted).collect(),
        }
    }

    /// The line for an error, unless it is only counted.
    pub fn line(&self, query: &Query, rcode: Rcode, error: &str) -> Option<String> {
        let text = || {
            let question = &query.question;
            let name = question.name.lower();
            format!("{} {name} {}: {error}", rcode.0, question.kind)
        };
        let matching = |counted: &&Counted| counted.options.pattern.regex().is_match(error);
        let Some(counted) = self.patterns.iter().find(matching) else {
            return Some(said(Level::Error, &text()));
        };
        if counted.count.fetch_add(1, Ordering::AcqRel) > 0 {
            return None;
        }
        counted
            .began
            .store(self.millis(query.now), Ordering::Release);
        let Consolidate {
            show_first, level, ..
        } = counted.options;
        show_first.then(|| said(level, &text()))
    }

    /// The lines about what was counted in periods that are over; all of it at the end.
    pub fn due(&self, now: Instant, end: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for counted in &self.patterns {
            let began = counted.began.load(Ordering::Acquire);
            let period = counted.options.period;
            let over = self.millis(now) >= began + period.as_millis() as u64;
            if !(over || end) || counted.count.load(Ordering::Acquire) == 0 {
                continue;
            }
            let count = counted.count.swap(0, Ordering::AcqRel);
            // The first one has been told already.
            if count > 1 || !counted.options.show_first {
                let text = format!(
                    "{count} errors like '{}' occurred in last {}",
                    counted.options.pattern.as_str(),
                    duration(period)
                );
                lines.push(said(counted.options.level, &text));
            }
        }
        lines
    }

    /// How long the shortest period is.
    pub fn shortest(&self) -> Option<Duration> {
        self.patterns
            .iter()
            .map(|counted| counted.options.period)
            .min()
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.since).as_millis() as u64
    }
}

/// A line as `CoreDNS`'s log has it.
fn said(level: Level, text: &str) -> String {
    let level = match level {
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Warning => "WARNING",
        Level::Error => "ERROR",
    };
    format!("[{level}] plugin/errors: {text}")
}

/// A duration as Go prints it: `1m30s`, `5s`, `100ms`.
fn duration(duration: Duration) -> String {
    let (secs, millis) = (duration.as_secs(), duration.subsec_millis());
    if secs == 0 {
        return format!("{millis}ms");
    }
    let (hours, minutes) = (secs / 3600, secs / 60 % 60);
    let rest = format!("{}s", (secs % 60) as f64 + f64::from(millis) / 1000.0);
    match (hours, minutes) {
        (0, 0) => rest,
        (0, minutes) => format!("{minutes}m{rest}"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::Pattern;
    use crate::plugins::tests::query;
    use crate::wire::Type;

    fn errors(show_first: bool) -> (Errors, Query) {
        let query = query("Example.org", Type::AAAA);
        let consolidate = Consolidate {
            period: Duration::from_secs(300),
            pattern: Pattern::new("^read udp .* i/o timeout$").unwrap(),
            level: Level::Warning,
            show_first,
        };
        let options = Options {
            stacktrace: false,
            consolidate: vec![consolidate],
        };
        (Errors::new(&options, query.now), query)
    }

    #[test]
    fn an_error_is_told() {
        let (errors, query) = errors(false);
        assert_eq!(
            errors
                .line(&query, Rcode::SERVFAIL, "no next plugin found")
                .unwrap(),
            "[ERROR] plugin/errors: 2 example.org. AAAA: no next plugin found"
        );
    }

    #[test]
    fn many_errors_are_one_line() {
        for show_first in [false, true] {
            let (errors, query) = errors(show_first);
            let error = "read udp 10.0.0.1:1->10.0.0.2:53: i/o timeout";
            let first = errors.line(&query, Rcode::SERVFAIL, error);
            assert_eq!(first.is_some(), show_first);
            if let Some(line) = first {
                assert!(line.starts_with("[WARNING] plugin/errors: 2 example.org. AAAA: read"));
            }
            assert_eq!(errors.line(&query, Rcode::SERVFAIL, error), None);
            assert!(
                errors
                    .due(query.now + Duration::from_secs(299), false)
                    .is_empty()
            );
            assert_eq!(
                errors.due(query.now + Duration::from_secs(300), false),
                [
                    "[WARNING] plugin/errors: 2 errors like '^read udp .* i/o timeout$' occurred in last 5m0s"
                ]
            );
            assert!(
                errors
                    .due(query.now + Duration::from_secs(900), true)
                    .is_empty()
            );
        }
    }

    #[test]
    fn durations_as_go_prints_them() {
        for (millis, text) in [
            (100, "100ms"),
            (5000, "5s"),
            (1500, "1.5s"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }
}
