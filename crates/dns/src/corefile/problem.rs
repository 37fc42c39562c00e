//! What is wrong with a Corefile, and what is merely odd.

use std::fmt;

use super::{Pattern, Position};

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Where.
    pub at: Position,
    /// What kind of error it is.
    pub kind: ErrorKind,
    /// What was found and what would be right.
    pub message: String,
}

/// Kinds of errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// Braces, quotes, addresses: the text is no Corefile.
    Syntax,
    /// An import that cannot be followed.
    Import,
    /// The text, or what it imports, is larger than is taken.
    TooLarge,
    /// A zone, transport or port; or two blocks for the same.
    Address,
    /// No plugin of this name is known.
    UnknownPlugin(String),
    /// `CoreDNS` has a plugin of this name, this server has not.
    UnsupportedPlugin(String),
    /// An option or a value of this plugin.
    Plugin(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at)?;
        if let ErrorKind::Plugin(name) = &self.kind {
            write!(f, "{name}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// What is taken, but may not do what it seems to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where.
    pub at: Position,
    /// The plugin it is about.
    pub plugin: Option<&'static str>,
    /// What.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at)?;
        if let Some(name) = self.plugin {
            write!(f, "{name}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// The most errors told at once.
const MOST_ERRORS: usize = 100;

/// The memory that compiled regular expressions may take together.
const MOST_PATTERNS: usize = 64 << 20;

/// The most zones of all blocks and plugins together.
const MOST_ZONES: usize = 200_000;

/// What was found so far, and how much more may be.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) errors: Vec<Error>,
    pub(super) warnings: Vec<Warning>,
    patterns_left: usize,
    zones_left: usize,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            errors: Vec::new(),
            warnings: Vec::new(),
            patterns_left: MOST_PATTERNS,
            zones_left: MOST_ZONES,
        }
    }
}

impl Report {
    /// Whether no more is told: then nothing needs to be put in words.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= MOST_ERRORS || self.warnings.len() >= MOST_ERRORS
    }

    /// `; did you mean "forward"?` where a known name is near to `name`.
    pub(super) fn hint(&self, name: &str, known: &[&str]) -> String {
        if self.is_full() {
            return String::new();
        }
        did_you_mean(name, known)
    }

    /// A regular expression, as long as there is memory for it.
    pub(super) fn pattern(&mut self, text: &str) -> Result<Pattern, String> {
        Pattern::within(text, &mut self.patterns_left)
    }

    /// Whether there may be no more zones.
    pub(super) fn has_all_zones(&self) -> bool {
        self.zones_left == 0
    }

    /// Counts zones: a network may stand for many, and a plugin takes those of its block.
    pub(super) fn count_zones(&mut self, zones: usize) -> Result<(), String> {
        let left = self.zones_left.checked_sub(zones);
        self.zones_left = left.unwrap_or(0);
        left.map(|_| ())
            .ok_or_else(|| format!("blocks and plugins have more than {MOST_ZONES} zones together"))
    }

    /// Takes down an error; beyond the first hundred they help nobody.
    pub(super) fn error(&mut self, error: Error) {
        if self.errors.len() < MOST_ERRORS && !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    pub(super) fn warn(&mut self, warning: Warning) {
        if self.warnings.len() < MOST_ERRORS && !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

/// `; did you mean "forward"?` where a known name is near to `name`.
pub(super) fn did_you_mean(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("; did you mean {near:?}?"),
        None => String::new(),
    }
}

/// The known name that is nearest, if one is near at all.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // A long name is near to no option, and the work grows with its length.
    if name.len() > 64 {
        return None;
    }
    let plain = |text: &str| -> Vec<char> {
        let letters = text.chars().filter(|c| c.is_alphanumeric());
        letters.flat_map(char::to_lowercase).collect()
    };
    let wanted = plain(name);
    known
        .iter()
        .map(|known| (distance(&wanted, &plain(known)), *known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= 1.max(known.len() / 3))
        .map(|(_, known)| known)
}

/// Number of letters to change, add or drop.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let change = corner + usize::from(left != right);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["forward", "file", "kubernetes", "log", "any"];
        assert_eq!(nearest("foward", &known), Some("forward"));
        assert_eq!(nearest("kubernets", &known), Some("kubernetes"));
        assert_eq!(nearest("Kubernetes", &known), Some("kubernetes"));
        assert_eq!(nearest("completely-else", &known), None);
        assert_eq!(nearest(&"forward".repeat(1000), &known), None);
    }
}
