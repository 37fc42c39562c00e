//! The presentation format of DNS (RFC 1035, section 5): zone files, and single records as text.
//!
//! Nothing here reads a file: what `$INCLUDE` names comes from who calls.

mod digits;
mod fields;
mod generate;
mod lex;
mod print;
mod rdata;
mod svcb;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use print::{data_text, record_text};

use crate::wire::{Class, Name, Record, Type};
use lex::{Entries, Entry, Field};

/// `$INCLUDE`s within each other.
const DEEPEST: u8 = 7;
/// `$INCLUDE`s altogether: a file that includes itself twice would never end.
const MOST_INCLUDES: u32 = 1000;
/// The TTL of a single record that does not say.
const TTL: u32 = 3600;

/// What is wrong with a zone file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The file.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

impl std::error::Error for Error {}

/// The text of a file that is included, by its path: relative ones are those beside the file that
/// includes them.
pub type Include<'a> = &'a mut dyn FnMut(&str) -> Result<String, String>;

/// Reads a zone file; each record goes to `each`.
///
/// # Errors
/// What is not as RFC 1035 says, or what `each` does not take.
pub fn parse(
    text: &str,
    origin: &Name,
    file: &str,
    include: Include<'_>,
    each: &mut dyn FnMut(Record) -> Result<(), String>,
) -> Result<(), Error> {
    let mut state = State::new(origin.clone(), None);
    let mut includes = 0;
    let mut run = Run {
        include,
        each,
        includes: &mut includes,
    };
    run.file(text, &file.into(), &mut state, 0)
}

/// Reads one record, as a zone file would have it. Names are absolute.
///
/// # Errors
/// It is none.
pub fn record(text: &str) -> Result<Record, String> {
    let mut state = State::new(Name::root(), Some(TTL));
    let mut entries = Entries::new(text);
    let entry = entries.next().ok_or("there is no record in the text")?;
    let entry = entry.map_err(|(_, what)| what)?;
    if entry
        .fields
        .first()
        .is_some_and(|field| field.text.starts_with('$'))
    {
        return Err("a record begins with a name".to_owned());
    }
    let record = state.record(&entry)?;
    match entries.next() {
        None => Ok(record),
        Some(_) => Err("there is more than one record in the text".to_owned()),
    }
}

/// What a line takes over from those before it.
#[derive(Clone, Debug)]
struct State {
    origin: Name,
    owner: Option<Name>,
    ttl: Option<u32>,
    /// `$TTL` has been given: a record's own TTL is its own alone.
    directed: bool,
}

struct Run<'a> {
    include: Include<'a>,
    each: &'a mut dyn FnMut(Record) -> Result<(), String>,
    includes: &'a mut u32,
}

impl Run<'_> {
    fn file(
        &mut self,
        text: &str,
        file: &Arc<str>,
        state: &mut State,
        depth: u8,
    ) -> Result<(), Error> {
        for entry in Entries::new(text) {
            let wrong = |(line, what): (u32, String)| Error {
                file: Arc::clone(file),
                line,
                what,
            };
            let entry = entry.map_err(wrong)?;
            self.entry(&entry, file, state, depth)
                .map_err(|problem| match problem {
                    Problem::Here(what) => wrong((entry.line, what)),
                    Problem::Within(error) => error,
                })?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        entry: &Entry,
        file: &Arc<str>,
        state: &mut State,
        depth: u8,
    ) -> Result<(), Problem> {
        let word = match entry.fields.first() {
            Some(field) if !field.quoted && !entry.indented => field.text.to_ascii_uppercase(),
            _ => String::new(),
        };
        match word.as_str() {
            "$ORIGIN" => state.origin = name(one(entry)?, &state.origin)?,
            "$TTL" => {
                state.ttl = Some(ttl(one(entry)?).ok_or("$TTL is followed by a time")?);
                state.directed = true;
            }
            "$INCLUDE" => return self.included(entry, file, state, depth),
            "$GENERATE" => {
                let fields = entry.fields.get(1..).unwrap_or_default();
                for text in generate::lines(fields)? {
                    let mut inner = state.clone();
                    inner.ttl = inner.ttl.or(Some(TTL));
                    for line in Entries::new(&text) {
                        let line = line.map_err(|(_, what)| what)?;
                        (self.each)(inner.record(&line)?)?;
                    }
                }
            }
            word if word.starts_with('$') => {
                let known = "$ORIGIN, $TTL, $INCLUDE and $GENERATE";
                return Err(format!("{word} is no directive; there are {known}").into());
            }
            _ => (self.each)(state.record(entry)?)?,
        }
        Ok(())
    }

    fn included(
        &mut self,
        entry: &Entry,
        file: &Arc<str>,
        state: &State,
        depth: u8,
    ) -> Result<(), Problem> {
        let (path, origin) = match entry.fields.as_slice() {
            [_, path] => (path, state.origin.clone()),
            [_, path, origin] => (path, name(origin, &state.origin)?),
            _ => return Err("$INCLUDE is followed by a file and perhaps an origin".into()),
        };
        *self.includes += 1;
        if depth >= DEEPEST || *self.includes > MOST_INCLUDES {
            return Err(format!("too many $INCLUDE within each other: {}", path.text).into());
        }
        let path = Path::new(&**file).with_file_name(&path.text);
        let path = path.to_string_lossy();
        let text = (self.include)(&path)?;
        let mut inner = State {
            origin,
            owner: None,
            ..state.clone()
        };
        let path = path.as_ref().into();
        self.file(&text, &path, &mut inner, depth + 1)
            .map_err(Problem::Within)
    }
}

/// What is wrong, here or in a file that is included here.
enum Problem {
    Here(String),
    Within(Error),
}

impl From<String> for Problem {
    fn from(what: String) -> Self {
        Self::Here(what)
    }
}

impl From<&str> for Problem {
    fn from(what: &str) -> Self {
        Self::Here(what.to_owned())
    }
}

/// The one value of a directive.
fn one(entry: &Entry) -> Result<&Field, String> {
    match entry.fields.as_slice() {
        [_, value] => Ok(value),
        [directive, ..] => Err(format!("{} is followed by one value", directive.text)),
        [] => Err("there is no value".to_owned()),
    }
}

/// A name, below the origin where it does not end with a dot.
fn name(field: &Field, origin: &Name) -> Result<Name, String> {
    let text = field.text.as_str();
    if text == "@" && !field.quoted {
        return Ok(origin.clone());
    }
    let wrong = |error| format!("{text:?} is no name: {error}");
    if text.is_empty() {
        return Err("a name is missing".to_owned());
    }
    let name: Name = text.parse().map_err(wrong)?;
    if is_absolute(text) {
        return Ok(name);
    }
    name.join(origin).map_err(wrong)
}

/// Whether the last dot is there, and is one.
fn is_absolute(text: &str) -> bool {
    let Some(before) = text.strip_suffix('.') else {
        return false;
    };
    let backslashes = before
        .bytes()
        .rev()
        .take_while(|&byte| byte == b'\\')
        .count();
    // An escaped dot belongs to the label, one behind an escaped backslash does not.
    backslashes.is_multiple_of(2)
}

/// Seconds, or `1w2d3h4m5s`.
fn ttl(field: &Field) -> Option<u32> {
    let (mut whole, mut number, mut digits) = (0_u64, 0_u64, false);
    for letter in field.text.bytes() {
        let unit = match letter {
            b'0'..=b'9' => {
                number = number * 10 + u64::from(letter - b'0');
                digits = true;
                if number > u64::from(u32::MAX) {
                    return None;
                }
                continue;
            }
            b's' | b'S' => 1,
            b'm' | b'M' => 60,
            b'h' | b'H' => 3600,
            b'd' | b'D' => 86_400,
            b'w' | b'W' => 604_800,
            _ => return None,
        };
        if !digits {
            return None;
        }
        whole += number * unit;
        (number, digits) = (0, false);
    }
    if field.text.is_empty() {
        return None;
    }
    u32::try_from(whole + number).ok()
}

fn class(word: &str) -> Option<Class> {
    let known = [
        ("IN", Class::IN),
        ("CH", Class::CH),
        ("CS", Class(2)),
        ("HS", Class::HS),
        ("NONE", Class::NONE),
        ("ANY", Class::ANY),
    ];
    let found = known
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(word));
    found.map(|(_, class)| *class).or_else(|| {
        let prefix = word.get(..5)?;
        let number = word[5..].parse().ok()?;
        prefix
            .eq_ignore_ascii_case("CLASS")
            .then_some(Class(number))
    })
}

impl State {
    fn new(origin: Name, ttl: Option<u32>) -> Self {
        Self {
            origin,
            owner: None,
            ttl,
            directed: false,
        }
    }

    /// A line that is a record: its owner, if the line begins with one; TTL and class in any
    /// order, if they are there; type; data.
    fn record(&mut self, entry: &Entry) -> Result<Record, String> {
        let mut fields = entry.fields.as_slice();
        if !entry.indented
            && let Some((first, rest)) = fields.split_first()
        {
            self.owner = Some(name(first, &self.origin)?);
            fields = rest;
        }
        let (mut own_ttl, mut own_class) = (None, None);
        let kind = loop {
            let Some((field, rest)) = fields.split_first() else {
                return Err("a type is missing".to_owned());
            };
            fields = rest;
            // A number is a TTL, even one that some would take for a type.
            if own_ttl.is_none()
                && let Some(ttl) = ttl(field)
            {
                own_ttl = Some(ttl);
            } else if own_class.is_none()
                && let Some(class) = class(&field.text)
            {
                own_class = Some(class);
            } else {
                let kind = Type::from_word(&field.text).filter(|_| !field.quoted);
                break kind.ok_or_else(|| format!("{:?} is no type", field.text))?;
            }
        };
        if let Some(ttl) = own_ttl.filter(|_| !self.directed) {
            self.ttl = Some(ttl);
        }
        let ttl = own_ttl.or(self.ttl);
        // With a class but without any TTL so far, it is zero.
        let ttl = ttl
            .or(own_class.map(|_| 0))
            .ok_or("there is no TTL: none here, none before, no $TTL")?;
        let owner = self
            .owner
            .clone()
            .ok_or("there is no name: none here and none before")?;
        let data = rdata::parse(kind, fields, &self.origin)?;
        Ok(Record {
            name: owner,
            class: own_class.unwrap_or(Class::IN),
            ttl,
            data,
        })
    }
}
