//! `rewrite ttl`, `rewrite rcode` and `rewrite cname`: rules for what is answered.

use super::{Matcher, Rule, absolute, matcher};
use crate::corefile::problem::Report;
use crate::corefile::reader::quoted;
use crate::corefile::value::{self, RCODES};
use crate::wire::Rcode;

/// The largest TTL (RFC 2181, section 8).
const MOST_TTL: u32 = 2_147_483_647;

/// `[HOW] NAME TTL|[MIN]-[MAX]`
pub(super) fn ttl(args: &[&str], report: &mut Report) -> Result<Rule, String> {
    let (how, name, range) = match args {
        [name, range] => ("exact", name, range),
        [how, name, range] => (*how, name, range),
        other => {
            return Err(format!("ttl takes [HOW] NAME TTL; found {}", quoted(other)));
        }
    };
    let (min, max) = ttl_range(range).ok_or_else(|| {
        format!("the TTL is {range:?}; a number, MIN-MAX, MIN- or -MAX is expected")
    })?;
    let names = matcher(how, name, report)?;
    Ok(Rule::Ttl { names, min, max })
}

fn ttl_range(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| match text.as_bytes() {
        [b'0'..=b'9', ..] => text.parse::<u32>().ok(),
        _ => None,
    };
    let (min, max) = match text.split_once('-') {
        None => (number(text)?, number(text)?),
        Some(("", "")) => return None,
        Some((min, "")) => (number(min)?, MOST_TTL),
        Some(("", max)) => (0, number(max)?),
        Some((min, max)) => (number(min)?, number(max)?),
    };
    (min <= max).then_some((min, max))
}

/// `[HOW] NAME FROM TO`
pub(super) fn rcode(args: &[&str], report: &mut Report) -> Result<Rule, String> {
    let (how, name, from, to) = match args {
        [name, from, to] => ("exact", name, from, to),
        [how, name, from, to] => (*how, name, from, to),
        other => {
            return Err(format!(
                "rcode takes [HOW] NAME FROM TO; found {}",
                quoted(other)
            ));
        }
    };
    let (from, to) = (code(from)?, code(to)?);
    let names = matcher(how, name, report)?;
    Ok(Rule::Rcode { names, from, to })
}

/// A response code by its word or number.
fn code(text: &str) -> Result<Rcode, String> {
    let most = RCODES.iter().map(|(_, code)| *code).max().unwrap_or(23);
    match text.parse::<u16>() {
        Ok(number) if number <= most && !text.starts_with('+') => Ok(Rcode(number)),
        _ => value::rcode(&text.to_uppercase()),
    }
}

/// `[HOW] FROM TO`
pub(super) fn cname(args: &[&str], report: &mut Report) -> Result<Rule, String> {
    let (how, from, to) = match args {
        [from, to] => ("exact", from, to),
        [how, from, to] => (*how, from, to),
        other => {
            return Err(format!(
                "cname takes [HOW] FROM TO; found {}",
                quoted(other)
            ));
        }
    };
    let (from, to) = (from.to_lowercase(), to.to_lowercase());
    // Parts of targets are taken as they are, without a final dot.
    let (matcher, to) = match how.to_lowercase().as_str() {
        "prefix" => (Matcher::Prefix(from), to),
        "suffix" => (Matcher::Suffix(from), to),
        "substring" => (Matcher::Substring(from), to),
        "regex" => (Matcher::Regex(report.pattern(&from)?), to),
        other => (matcher(other, &from, report)?, absolute(&to)),
    };
    Ok(Rule::Cname { matcher, to })
}
