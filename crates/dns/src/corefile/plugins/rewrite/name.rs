//! `rewrite name`.

use super::{AnswerRule, Matcher, NameRewrite, Part, Replacement, absolute, matcher, zone};
use crate::corefile::Pattern;
use crate::corefile::problem::{Report, did_you_mean};
use crate::corefile::reader::quoted;

/// `[exact|prefix|suffix|substring|regex] FROM TO [metadata] [answer ...]`
pub(super) fn rewrite(args: &[&str], report: &mut Report) -> Result<NameRewrite, String> {
    let (how, from, to, rest) = match args {
        [from, to] => ("exact", *from, *to, &[][..]),
        [how, from, to, rest @ ..] => (*how, *from, *to, rest),
        other => {
            let found = quoted(other);
            return Err(format!(
                "name takes [HOW] FROM TO [answer ...]; found {found}"
            ));
        }
    };
    let matcher = matcher(how, from, report)?;
    let metadata = rest.first() == Some(&"metadata");
    let answers = &rest[usize::from(metadata)..];
    let to = match &matcher {
        Matcher::Regex(pattern) if metadata => {
            let to = if to.ends_with('.') {
                to.to_owned()
            } else {
                format!("{to}.")
            };
            Replacement::Parts(parts(&to, pattern.groups())?)
        }
        _ if metadata => return Err("metadata is for regex rules only".to_owned()),
        Matcher::Regex(pattern) => {
            enough_groups(pattern, to)?;
            Replacement::Text(absolute(to))
        }
        Matcher::Exact(_) => {
            // CoreDNS takes the names for a regular expression here, and refuses some.
            enough_groups(&report.pattern(&absolute(to))?, &absolute(from))?;
            Replacement::Text(zone(to)?.to_string())
        }
        _ => Replacement::Text(absolute(to)),
    };
    let (auto, answers) = match answers {
        [] => (false, Vec::new()),
        answers => answer_rules(answers, report)?,
    };
    Ok(NameRewrite {
        auto: auto || matches!(matcher, Matcher::Exact(_)),
        matcher,
        to,
        answers,
    })
}

/// `answer auto`, `answer name FROM TO`, `answer value FROM TO`, as often as wanted. The word
/// `answer` may be left out but for the first.
fn answer_rules(args: &[&str], report: &mut Report) -> Result<(bool, Vec<AnswerRule>), String> {
    const KNOWN: [&str; 3] = ["auto", "name", "value"];
    let mut auto = false;
    let mut rules = Vec::new();
    let [first, _, ..] = args else {
        return Err(format!("unexpected {} after FROM TO", quoted(args)));
    };
    if *first != "answer" {
        return Err(format!(
            "unexpected {first:?} after FROM TO; \"answer\" is expected"
        ));
    }
    let mut rest = args;
    while let [word, after @ ..] = rest {
        let (kind, after) = match (*word, after) {
            ("answer", [kind, after @ ..]) => (*kind, after),
            ("answer", []) => return Err("auto, name or value is missing after answer".to_owned()),
            (kind, after) => (kind, after),
        };
        rest = after;
        if kind == "auto" {
            auto = true;
            continue;
        }
        if !KNOWN.contains(&kind) {
            let hint = did_you_mean(kind, &KNOWN);
            return Err(format!(
                "{kind:?} is no rule for answers{hint} (known: auto, name, value)"
            ));
        }
        let [from, to, after @ ..] = after else {
            return Err(format!(
                "answer {kind} takes FROM TO; found {}",
                quoted(after)
            ));
        };
        let pattern = report.pattern(from)?;
        enough_groups(&pattern, to)?;
        let to = absolute(to);
        rules.push(match kind {
            "name" => AnswerRule::Name { pattern, to },
            _ => AnswerRule::Value { pattern, to },
        });
        rest = after;
    }
    if auto
        && rules
            .iter()
            .any(|rule| matches!(rule, AnswerRule::Name { .. }))
    {
        return Err("answer auto and answer name do not go together".to_owned());
    }
    Ok((auto, rules))
}

/// A replacement may use as many groups as there are; `CoreDNS` counts `{0}` as one of them.
fn enough_groups(pattern: &Pattern, to: &str) -> Result<(), String> {
    let used = (0..=100)
        .filter(|group| to.contains(&format!("{{{group}}}")))
        .count();
    if used > pattern.groups() {
        return Err(format!(
            "{to:?} uses {used} groups; {:?} has {}",
            pattern.as_str(),
            pattern.groups()
        ));
    }
    Ok(())
}

/// `text{1}text{plugin/label}`
fn parts(text: &str, groups: usize) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (before, after) = rest.split_once('{').unwrap_or((rest, ""));
        if before.contains('}') {
            return Err(format!("{text:?} has a brace that was not opened"));
        }
        if !before.is_empty() {
            parts.push(Part::Text(before.to_lowercase()));
        }
        if before.len() == rest.len() {
            break;
        }
        let Some((label, after)) = after.split_once('}') else {
            return Err(format!("{text:?} has a brace that is not closed"));
        };
        parts.push(part(label, groups)?);
        rest = after;
    }
    Ok(parts)
}

fn part(label: &str, groups: usize) -> Result<Part, String> {
    if let Ok(group) = label.parse::<i64>() {
        return match usize::try_from(group) {
            Ok(group) if group <= groups => Ok(Part::Group(group)),
            _ => Err(format!("{{{label}}} is no group: there are {groups}")),
        };
    }
    match label.split_once('/') {
        Some((plugin, name)) if !plugin.is_empty() && !name.is_empty() && !label.contains('{') => {
            Ok(Part::Metadata(label.to_owned()))
        }
        _ => Err(format!(
            "{{{label}}} is neither the number of a group nor metadata (plugin/name)"
        )),
    }
}
