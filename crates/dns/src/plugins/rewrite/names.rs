//! Names as text, the way rules see them.

use regex::Captures;

use crate::corefile::plugins::Matcher;
use crate::wire::Name;

/// A name in lower case, with the final dot.
pub(super) fn lower(name: &Name) -> String {
    let mut text = name.to_string();
    text.make_ascii_lowercase();
    text
}

/// What is in front of a suffix, letters in any case.
pub(super) fn ends_with<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let split = text.len().checked_sub(suffix.len())?;
    let end = text.get(split..)?;
    end.eq_ignore_ascii_case(suffix).then(|| &text[..split])
}

/// Whether a rule is for a name.
pub(super) fn matches(matcher: &Matcher, name: &Name) -> bool {
    match matcher {
        Matcher::Exact(exact) => exact == name,
        Matcher::Prefix(prefix) => lower(name).starts_with(prefix),
        Matcher::Suffix(suffix) => ends_with(&name.to_string(), suffix).is_some(),
        Matcher::Substring(part) => lower(name).contains(part),
        Matcher::Regex(pattern) => pattern.regex().is_match(&lower(name)),
    }
}

/// A replacement with `{0}`, `{1}`, ... being what groups matched. What a group matched is never
/// looked at for further braces: it is the asker's text.
pub(super) fn substitute(to: &str, captures: &Captures<'_>) -> String {
    let mut text = String::with_capacity(to.len() + 32);
    let mut rest = to;
    while let Some(open) = rest.find('{') {
        text.push_str(&rest[..open]);
        rest = &rest[open..];
        let number = rest.find('}').and_then(|close| {
            let number: usize = rest[1..close].parse().ok()?;
            (number < captures.len()).then_some((number, close))
        });
        match number {
            Some((number, close)) => {
                text.push_str(captures.get(number).map_or("", |group| group.as_str()));
                rest = &rest[close + 1..];
            }
            None => {
                text.push('{');
                rest = &rest[1..];
            }
        }
    }
    text.push_str(rest);
    text
}
