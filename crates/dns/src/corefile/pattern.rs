//! Regular expressions as Go writes them (RE2), which `CoreDNS` takes from the Corefile.

use std::fmt;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

mod translate;

/// The longest expression taken; `CoreDNS` has the same bound.
const LONGEST: usize = 10_000;

/// The most memory a compiled expression may take.
const COMPILED_SIZE: usize = 4 << 20;

/// A regular expression.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    regex: Regex,
}

impl Pattern {
    /// Compiles an expression in Go's syntax.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!(
                "the regular expression has {} bytes; at most {LONGEST} are taken",
                text.len()
            ));
        }
        let wrong = |why: &str| format!("{text:?} is not a regular expression: {why}");
        let translated = translate::to_rust(text).map_err(|why| wrong(&why))?;
        let regex = RegexBuilder::new(&translated)
            .size_limit(COMPILED_SIZE)
            .dfa_size_limit(COMPILED_SIZE)
            .build()
            .map_err(|error| wrong(&cause(&error)))?;
        Ok(Self {
            text: text.into(),
            regex,
        })
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The compiled expression.
    pub fn regex(&self) -> &Regex {
        &self.regex
    }

    /// Number of groups, without the whole match.
    pub fn groups(&self) -> usize {
        self.regex.captures_len() - 1
    }
}

/// The last line of what the compiler says; the lines before it draw the expression.
fn cause(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for Pattern {}
