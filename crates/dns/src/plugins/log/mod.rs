//! `log`: a line for each query.

mod format;

use std::time::Duration;

pub use format::{Format, Told, query_len, record_len};

use super::outcome::Class;
use crate::corefile::plugins::{Log as Options, LogClasses};
use crate::wire::Name;

use super::zones::Zones;

/// The rules of a server block.
#[derive(Debug)]
pub struct Log(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    zones: Zones,
    format: Format,
    classes: LogClasses,
}

impl Log {
    /// Of the options.
    pub fn new(options: &[Options]) -> Self {
        let rule = |log: &Options| Rule {
            zones: Zones::new(&log.zones),
            format: Format::new(&log.format),
            classes: log.classes,
        };
        Self(options.iter().map(rule).collect())
    }

    /// Whether there are rules at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The line for a query that took so long, if one is to be written: the first rule whose zone
    /// has the name decides.
    pub fn line(&self, told: &Told<'_>, took: Duration) -> Option<String> {
        let name: &Name = &told.query.question.name;
        let rule = self.0.iter().find(|rule| rule.zones.contain(name))?;
        let wanted = match told.class() {
            Class::Success => rule.classes.success,
            Class::Denial => rule.classes.denial,
            Class::Error => rule.classes.error,
        };
        wanted.then(|| {
            let mut line = String::with_capacity(160);
            line.push_str("[INFO] ");
            rule.format.write(told, took, &mut line);
            line
        })
    }
}
