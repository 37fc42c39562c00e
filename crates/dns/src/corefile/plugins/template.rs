//! `template`: answers made out of the question.

use crate::corefile::{Pattern, Zone};
use crate::wire::{Class, Rcode, Type};

/// Answers made out of the question.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// The class asked for; `ANY` is any.
    pub class: Class,
    /// The type asked for; `ANY` is any.
    pub kind: Type,
    /// The zones.
    pub zones: Vec<Zone>,
    /// The name matches one of these; the first that does gives the groups. Never empty.
    pub matches: Vec<Pattern>,
    /// Conditions that must hold too, in the language of the Go module expr.
    pub conditions: Vec<String>,
    /// Values for the records.
    pub variables: Vec<Assignment>,
    /// Records, each in the language of Go's text/template.
    pub answer: Vec<String>,
    /// Records of the additional section.
    pub additional: Vec<String>,
    /// Records of the authority section.
    pub authority: Vec<String>,
    /// The response code.
    pub rcode: Rcode,
    /// An extended DNS error (RFC 8914).
    pub extended_error: Option<ExtendedError>,
    /// Zones in which the next template or plugin is asked for a name that does not match; empty
    /// is none.
    pub fallthrough: Vec<Zone>,
}

/// `var NAME EXPRESSION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The name.
    pub name: String,
    /// Its value, in the language of the Go module expr.
    pub expression: String,
}

/// An extended DNS error (RFC 8914).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendedError {
    /// The code.
    pub code: u16,
    /// The text.
    pub reason: String,
}
