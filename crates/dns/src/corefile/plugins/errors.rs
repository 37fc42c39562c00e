//! `errors`: log of what went wrong.

use std::time::Duration;

use crate::corefile::reader::{Reader, Result, quoted};
use crate::corefile::{Pattern, value};

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

pub(super) fn parse(reader: &mut Reader<'_>) -> Option<Errors> {
    let mut found = None;
    reader.once(|reader| {
        let args = reader.args();
        if !matches!(args.as_slice(), [] | ["stdout"]) {
            let message = format!("the log goes to \"stdout\" only; found {}", quoted(&args));
            return Err(reader.error(message));
        }
        let mut errors = Errors::default();
        reader.options(|reader, name| {
            match name {
                "stacktrace" => errors.stacktrace = true,
                "consolidate" => errors.consolidate.push(consolidate(reader)?),
                _ => return Err(reader.unknown_option(&["stacktrace", "consolidate"])),
            }
            Ok(())
        });
        found = Some(errors);
        Ok(())
    });
    found
}

/// `DURATION REGEXP [LEVEL] [show_first]`
fn consolidate(reader: &mut Reader<'_>) -> Result<Consolidate> {
    let args = reader.args();
    let [period, pattern, rest @ ..] = args.as_slice() else {
        let message = "consolidate takes DURATION REGEXP [LEVEL] [show_first]";
        return Err(reader.error(format!("{message}; found {}", quoted(&args))));
    };
    let period = reader.check(value::duration(period))?.or_zero();
    let pattern = reader.pattern(pattern)?;
    let (mut level, mut show_first) = (None, false);
    if let [_, _, more, ..] = rest {
        return Err(reader.error(format!("unexpected {more:?} after the options")));
    }
    for word in rest {
        let named = match *word {
            "show_first" => {
                show_first = true;
                continue;
            }
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warning" => Level::Warning,
            "error" => Level::Error,
            other => {
                let known = ["debug", "info", "warning", "error", "show_first"];
                return Err(reader.unknown_value("level or option", other, &known));
            }
        };
        if show_first {
            return Err(reader.error(format!("the level {word:?} has to be before show_first")));
        }
        if level.replace(named).is_some() {
            return Err(reader.error(format!("{word:?} is a second level")));
        }
    }
    Ok(Consolidate {
        period,
        pattern,
        level: level.unwrap_or_default(),
        show_first,
    })
}
