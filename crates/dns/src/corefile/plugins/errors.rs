//! `errors`: log of what went wrong.

use std::time::Duration;

use crate::corefile::Pattern;

/// How errors are logged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Errors {
    /// A stack trace when a plugin panics.
    pub stacktrace: bool,
    /// Messages that are counted and told once a period.
    pub consolidate: Vec<Consolidate>,
}

/// Messages that are counted and told once a period.
#[derive(Debug, Clone, PartialEq)]
pub struct Consolidate {
    /// The period.
    pub period: Duration,
    /// The messages.
    pub pattern: Pattern,
    /// At which level.
    pub level: Level,
    /// The first one is told at once.
    pub show_first: bool,
}

/// A level of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// debug
    Debug,
    /// info
    Info,
    /// warning
    Warning,
    /// error
    #[default]
    Error,
}
