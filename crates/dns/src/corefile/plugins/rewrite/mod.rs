//! `rewrite`: queries changed on their way in, answers on their way out.

mod answer;
mod edns;
mod name;

use crate::corefile::problem::{Report, did_you_mean};
use crate::corefile::reader::{Reader, quoted};
use crate::corefile::{Pattern, Zone, value};
use crate::wire::{Class, Rcode, Type};

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rewrite {
    /// The next rules are looked at although this one applied.
    pub proceed: bool,
    /// The rule.
    pub rule: Rule,
}

/// What is rewritten.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// `name`: the name asked for, and with it names in the answer.
    Name(NameRewrite),
    /// `class`: the class asked for.
    Class {
        /// This one ...
        from: Class,
        /// ... becomes that one.
        to: Class,
    },
    /// `type`: the type asked for.
    Type {
        /// This one ...
        from: Type,
        /// ... becomes that one.
        to: Type,
    },
    /// `edns0`: an option of the query.
    Edns0(EdnsRewrite),
    /// `ttl`: the TTLs of the answer.
    Ttl {
        /// For these names.
        names: NameMatch,
        /// At least this.
        min: u32,
        /// At most this.
        max: u32,
    },
    /// `rcode`: the response code.
    Rcode {
        /// For these names.
        names: NameMatch,
        /// This one ...
        from: Rcode,
        /// ... becomes that one.
        to: Rcode,
    },
    /// `cname`: the target of a CNAME in the answer; the new target is resolved.
    Cname {
        /// Targets that match.
        matcher: Matcher,
        /// What they become; `{1}` is what the first group matched.
        to: String,
    },
}

/// Which names a rule is for. Names are compared in lower case, with the final dot.
#[derive(Debug, Clone, PartialEq)]
pub enum Matcher {
    /// This one.
    Exact(Zone),
    /// Those that start with this (which ends with a dot).
    Prefix(String),
    /// Those that end with this.
    Suffix(String),
    /// Those that have this within.
    Substring(String),
    /// Those that match.
    Regex(Pattern),
}

/// Which names a rule is for.
pub type NameMatch = Matcher;

/// The name asked for, and with it names in the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct NameRewrite {
    /// The names.
    pub matcher: Matcher,
    /// What replaces what matched (with `Exact` and `Regex`: the whole name).
    pub to: Replacement,
    /// The answer's names and values are rewritten back (always so with `Exact`).
    pub auto: bool,
    /// Further rules for the answer, in their order.
    pub answers: Vec<AnswerRule>,
}

/// What a name is replaced with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replacement {
    /// This text; with a `Regex`, `{1}` is what the first group matched.
    Text(String),
    /// These parts one after the other (`metadata`).
    Parts(Vec<Part>),
}

/// A part of a replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// This text.
    Text(String),
    /// What a group of the pattern matched; 0 is the whole.
    Group(usize),
    /// A value of the metadata, `plugin/name`; without it the rule does not apply.
    Metadata(String),
}

/// A rule for the records of the answer.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerRule {
    /// `answer name`: the record's name.
    Name {
        /// Names that match ...
        pattern: Pattern,
        /// ... become this; `{1}` is what the first group matched.
        to: String,
    },
    /// `answer value`: the name within the record's data.
    Value {
        /// Values that match ...
        pattern: Pattern,
        /// ... become this; `{1}` is what the first group matched.
        to: String,
    },
}

/// An EDNS0 option of the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdnsRewrite {
    /// What is done.
    pub action: EdnsAction,
    /// With which option.
    pub data: EdnsData,
    /// The answer's option is changed back.
    pub revert: bool,
}

/// What is done with an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdnsAction {
    /// Changed, or added.
    Set,
    /// Added if it is not there.
    Append,
    /// Changed if it is there.
    Replace,
    /// Removed.
    Unset,
}

/// An option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EdnsData {
    /// `local CODE DATA`: an option with these bytes.
    Local {
        /// Its code.
        code: u16,
        /// Its data.
        data: Vec<u8>,
    },
    /// `local CODE {variable}`: an option with a value of the query.
    Variable {
        /// Its code.
        code: u16,
        /// `qname`, `qtype`, `client_ip`, `client_port`, `protocol`, `server_ip`, `server_port`
        /// or a label of the metadata.
        variable: String,
    },
    /// `nsid`.
    Nsid,
    /// `subnet`: the client's address, this many bits of it.
    Subnet {
        /// Bits of an IPv4 address.
        v4: u8,
        /// Bits of an IPv6 address.
        v6: u8,
    },
}

/// Types of rules.
const TYPES: [&str; 7] = ["name", "class", "type", "edns0", "ttl", "rcode", "cname"];

pub(super) fn parse(reader: &mut Reader<'_>) -> Vec<Rewrite> {
    let mut all = Vec::new();
    reader.each(|reader| {
        let position = reader.position();
        let mut args = reader.args();
        // A rule over several lines: its words stand in a block.
        if args.len() < 2 {
            while reader.next_in_block() {
                args.push(reader.word());
            }
        }
        match rule(&args, reader.report) {
            Ok(rule) => all.push(rule),
            Err(message) => {
                let mut error = reader.error(message);
                error.at = position;
                reader.report.error(error);
            }
        }
        Ok(())
    });
    all
}

/// `[continue|stop] TYPE ...`
fn rule(args: &[&str], report: &mut Report) -> Result<Rewrite, String> {
    let lower = |at: usize| args.get(at).map(|arg| arg.to_lowercase());
    let (proceed, start) = match lower(0).as_deref() {
        Some("continue") => (true, 1),
        Some("stop") => (false, 1),
        _ => (false, 0),
    };
    let Some(kind) = lower(start) else {
        return Err(format!(
            "a type of rule is missing (known: {})",
            TYPES.join(", ")
        ));
    };
    let rest = args.get(start + 1..).unwrap_or_default();
    let rule = match kind.as_str() {
        "name" => Rule::Name(name::rewrite(rest, report)?),
        "class" => {
            let (from, to) = pair(&kind, rest)?;
            Rule::Class {
                from: value::class(&from)?,
                to: value::class(&to)?,
            }
        }
        "type" => {
            let (from, to) = pair(&kind, rest)?;
            Rule::Type {
                from: value::record_type(&from)?,
                to: value::record_type(&to)?,
            }
        }
        "edns0" => Rule::Edns0(edns::rewrite(rest)?),
        "ttl" => answer::ttl(rest, report)?,
        "rcode" => answer::rcode(rest, report)?,
        "cname" => answer::cname(rest, report)?,
        "answer" => return Err("a rule starts with name, not with answer".to_owned()),
        other => {
            let hint = did_you_mean(other, &TYPES);
            let known = TYPES.join(", ");
            return Err(format!(
                "{other:?} is no type of rule{hint} (known: {known})"
            ));
        }
    };
    Ok(Rewrite { proceed, rule })
}

/// Two words, in capitals.
fn pair(kind: &str, args: &[&str]) -> Result<(String, String), String> {
    match args {
        [from, to] => Ok((from.to_uppercase(), to.to_uppercase())),
        other => Err(format!("{kind} takes FROM TO; found {}", quoted(other))),
    }
}

/// Which names, by a word for how they are compared.
fn matcher(how: &str, from: &str, report: &mut Report) -> Result<Matcher, String> {
    const KNOWN: [&str; 5] = ["exact", "prefix", "suffix", "substring", "regex"];
    Ok(match how.to_lowercase().as_str() {
        "exact" => Matcher::Exact(zone(from)?),
        "prefix" => Matcher::Prefix(absolute(from)),
        "suffix" => Matcher::Suffix(absolute(from)),
        "substring" => Matcher::Substring(absolute(from)),
        "regex" => Matcher::Regex(report.pattern(from)?),
        other => {
            let hint = did_you_mean(other, &KNOWN);
            let known = KNOWN.join(", ");
            return Err(format!(
                "{other:?} is no way to compare names{hint} (known: {known})"
            ));
        }
    })
}

fn zone(text: &str) -> Result<Zone, String> {
    let parsed = text.parse::<Zone>();
    parsed
        .map(|zone| zone.lower())
        .map_err(|error| format!("{text:?} is no name: {error}"))
}

/// In lower case, with the final dot.
fn absolute(text: &str) -> String {
    let escaped = || {
        let before = text.len() - 1;
        let kept = text[..before].trim_end_matches('\\').len();
        (before - kept) % 2 == 1
    };
    let mut name = text.to_lowercase();
    if !text.ends_with('.') || escaped() {
        name.push('.');
    }
    name
}
