//! Regular expressions as Go writes them (RE2), which `CoreDNS` takes from the Corefile.

use std::fmt;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

mod translate;

/// The longest expression taken; `CoreDNS` has the same bound.
const LONGEST: usize = 10_000;

/// The bounds of memory an expression is compiled within, one after the other.
const COMPILED_SIZES: [usize; 3] = [8 << 10, 64 << 10, 1 << 20];

/// The bound of the memory in which an expression's states are kept while it is used.
const STATES_SIZE: usize = 1 << 20;

/// A regular expression.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    regex: Regex,
}

impl Pattern {
    /// Compiles an expression in Go's syntax.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        Self::within(text, &mut usize::MAX.clone())
    }

    /// As [`Self::new`], within an amount of memory, of which it takes what it needs.
    pub(super) fn within(text: &str, left: &mut usize) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!(
                "the regular expression has {} bytes; at most {LONGEST} are taken",
                text.len()
            ));
        }
        let wrong = |why: &str| format!("{text:?} is not a regular expression: {why}");
        let translated = translate::to_rust(text).map_err(|why| wrong(&why))?;
        for size in COMPILED_SIZES {
            if size > *left {
                *left = 0;
                return Err("the Corefile's regular expressions take too much memory".to_owned());
            }
            let mut builder = RegexBuilder::new(&translated);
            match builder.size_limit(size).dfa_size_limit(STATES_SIZE).build() {
                Ok(regex) => {
                    *left -= size;
                    let text = text.into();
                    return Ok(Self { text, regex });
                }
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(error) => return Err(wrong(&cause(&error))),
            }
        }
        Err(wrong("it takes too much memory"))
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
