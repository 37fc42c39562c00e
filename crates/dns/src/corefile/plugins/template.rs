//! `template`: answers made out of the question.

use crate::corefile::reader::{Reader, Result, quoted};
use crate::corefile::{Pattern, Zone, value};
use crate::expression::Expression;
use crate::gotext;
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

const OPTIONS: [&str; 9] = [
    "match",
    "answer",
    "additional",
    "authority",
    "rcode",
    "ederror",
    "fallthrough",
    "var",
    "expr",
];

/// Names that expressions have a meaning for: values of the query, functions and words of the
/// language of the Go module expr.
const RESERVED: &str = "incidr metadata type name class proto size client_ip port id opcode do \
    bufsize server_ip server_port group all none any one filter map find findIndex findLast \
    findLastIndex count sum groupBy sortBy reduce len abs ceil floor round int float string trim \
    trimPrefix trimSuffix upper lower split splitAfter replace repeat join indexOf lastIndexOf \
    hasPrefix hasSuffix max min mean median toJSON fromJSON toBase64 fromBase64 now duration \
    date timezone first last get take keys values toPairs fromPairs reverse uniq concat flatten \
    sort bitnot bitand bitor bitxor bitnand bitshl bitshr bitushr true false nil let in not and \
    or matches contains startsWith endsWith if else";

pub(super) fn parse(reader: &mut Reader<'_>) -> Vec<Template> {
    let mut all = Vec::new();
    reader.each(|reader| {
        let class = reader.value("CLASS TYPE [ZONES...]")?;
        let class = reader.check(value::class(class))?;
        let kind = match reader.next_arg() {
            Some(kind) => reader.check(value::record_type(kind))?,
            None => return Err(reader.error("a type is missing: CLASS TYPE [ZONES...]")),
        };
        let args = reader.args();
        let mut template = Template {
            class,
            kind,
            zones: reader.zones(&args),
            matches: Vec::new(),
            conditions: Vec::new(),
            variables: Vec::new(),
            answer: Vec::new(),
            additional: Vec::new(),
            authority: Vec::new(),
            rcode: Rcode::NOERROR,
            extended_error: None,
            fallthrough: Vec::new(),
        };
        reader.options(|reader, name| option(reader, name, &mut template));
        if template.matches.is_empty() {
            template.matches.push(reader.pattern(".*")?);
        }
        all.push(template);
        Ok(())
    });
    all
}

fn option(reader: &mut Reader<'_>, name: &str, template: &mut Template) -> Result<()> {
    let records = |reader: &mut Reader<'_>| -> Result<Vec<String>> {
        let args = reader.some_args("records")?;
        for text in &args {
            reader.check(gotext::Template::new(text).map(drop))?;
        }
        Ok(args.into_iter().map(str::to_owned).collect())
    };
    match name {
        "match" => {
            for text in reader.some_args("regular expressions")? {
                template.matches.push(reader.pattern(text)?);
            }
        }
        "answer" => template.answer.extend(records(reader)?),
        "additional" => template.additional.extend(records(reader)?),
        "authority" => template.authority.extend(records(reader)?),
        "rcode" => {
            let word = reader.value("a response code")?;
            template.rcode = reader.check(value::rcode(word))?;
        }
        "ederror" => template.extended_error = Some(extended_error(reader)?),
        "fallthrough" => template.fallthrough = reader.fallthrough(),
        "var" => {
            let assignment = assignment(reader)?;
            if template
                .variables
                .iter()
                .any(|one| one.name == assignment.name)
            {
                let message = format!("there is a variable {:?} already", assignment.name);
                return Err(reader.error(message));
            }
            understood(reader, &assignment.expression, template)?;
            template.variables.push(assignment);
        }
        "expr" => {
            let words = reader.some_args("an expression")?;
            let text = words.join(" ");
            understood(reader, &text, template)?;
            template.conditions.push(text);
        }
        "upstream" => {
            reader.args();
            reader.warn("upstream is without effect, here as in CoreDNS");
        }
        _ => return Err(reader.unknown_option(&OPTIONS)),
    }
    Ok(())
}

/// Whether an expression is understood, given the variables so far.
fn understood(reader: &Reader<'_>, text: &str, template: &Template) -> Result<()> {
    let variables = template.variables.iter();
    let known: Vec<String> = variables.map(|variable| variable.name.clone()).collect();
    reader.check(Expression::new(text, &known, true).map(drop))
}

/// `NAME EXPRESSION`
fn assignment(reader: &mut Reader<'_>) -> Result<Assignment> {
    let words = reader.args();
    let [name, expression @ ..] = words.as_slice() else {
        return Err(reader.error("var takes NAME EXPRESSION; found nothing"));
    };
    if expression.is_empty() {
        return Err(reader.error(format!("var takes NAME EXPRESSION; found {name:?} alone")));
    }
    let mut letters = name.bytes();
    let first = letters
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == b'_');
    if !first || !letters.all(|c| c.is_ascii_alphanumeric() || c == b'_') {
        return Err(reader.error(format!("{name:?} is no name of a variable")));
    }
    if RESERVED.split_whitespace().any(|word| word == *name) {
        return Err(reader.error(format!("{name:?} has a meaning in expressions already")));
    }
    Ok(Assignment {
        name: (*name).to_owned(),
        expression: expression.join(" "),
    })
}

/// `CODE [REASON]`
fn extended_error(reader: &mut Reader<'_>) -> Result<ExtendedError> {
    let args = reader.args();
    let ([code, reason @ ..], true) = (args.as_slice(), args.len() <= 2) else {
        let found = quoted(&args);
        return Err(reader.error(format!("ederror takes CODE [REASON]; found {found}")));
    };
    Ok(ExtendedError {
        code: reader.check(value::number(code, "the code", 0, u16::MAX))?,
        reason: reason
            .first()
            .map_or_else(String::new, |reason| (*reason).to_owned()),
    })
}
