//! `rewrite`: queries changed on their way in, answers on their way out.
//!
//! [`question`] applies the rules to a query and says what is to be done with its answer;
//! [`Reverts::apply`] does it. The targets of CNAMEs that rules change have to be resolved by the
//! server itself: [`Reverts::targets`] says which.

mod edns;
mod names;
mod revert;
#[cfg(test)]
mod tests;

pub use revert::{Reverts, Target, retarget};

use crate::corefile::plugins::{Matcher, NameRewrite, Part, Replacement, Rewrite, Rule};
use crate::query::Query;
use crate::wire::Name;
use names::{ends_with, lower, substitute};
use revert::Revert;

/// What the rules make of a query.
#[derive(Debug)]
pub struct Rewritten<'a> {
    /// What the plugins below are asked.
    pub query: Query,
    /// What is to be done with the answer.
    pub reverts: Reverts<'a>,
}

/// Applies rules to a query; nothing where none is for it.
///
/// # Errors
/// A rule makes something of the name that is no name.
pub fn question<'a>(rules: &'a [Rewrite], query: &Query) -> Result<Option<Rewritten<'a>>, String> {
    let mut rewritten: Option<Rewritten<'a>> = None;
    for Rewrite { proceed, rule } in rules {
        let current = rewritten
            .as_ref()
            .map_or(query, |rewritten| &rewritten.query);
        let Some(change) = change(rule, current)? else {
            continue;
        };
        let rewritten = rewritten.get_or_insert_with(|| Rewritten {
            query: query.clone(),
            reverts: Reverts::default(),
        });
        change.make(&mut rewritten.query, &mut rewritten.reverts);
        if !proceed {
            break;
        }
    }
    Ok(rewritten)
}

/// What one rule does with a query that it is for.
enum Change<'a> {
    /// Another name; then this is done with the answer.
    Name(Name, Vec<Revert<'a>>),
    Class(crate::wire::Class),
    Type(crate::wire::Type),
    Edns(edns::Change),
    /// Nothing with the query, this with the answer.
    Answer(Revert<'a>),
}

impl<'a> Change<'a> {
    fn make(self, query: &mut Query, reverts: &mut Reverts<'a>) {
        match self {
            Self::Name(name, more) => {
                query.question.name = name;
                more.into_iter().for_each(|revert| reverts.push(revert));
            }
            Self::Class(class) => query.question.class = class,
            Self::Type(kind) => query.question.kind = kind,
            Self::Edns(change) => {
                if let Some(revert) = change.make(query) {
                    reverts.push(Revert::Option(revert));
                }
            }
            Self::Answer(revert) => reverts.push(revert),
        }
    }
}

fn change<'a>(rule: &'a Rule, query: &Query) -> Result<Option<Change<'a>>, String> {
    let question = &query.question;
    let name = &question.name;
    Ok(match rule {
        Rule::Name(rewrite) => match renamed(rewrite, name) {
            Some(text) => {
                let to: Name = text
                    .parse()
                    .map_err(|_| format!("invalid name after rewrite: {text}"))?;
                let reverts = revert::of_name(rewrite, name, &to);
                Some(Change::Name(to, reverts))
            }
            None => None,
        },
        Rule::Class { from, to } => (question.class == *from).then_some(Change::Class(*to)),
        Rule::Type { from, to } => (question.kind == *from).then_some(Change::Type(*to)),
        Rule::Edns0(rewrite) => edns::change(rewrite, query).map(Change::Edns),
        Rule::Ttl { names, min, max } => {
            names::matches(names, name).then_some(Change::Answer(Revert::Ttl(*min, *max)))
        }
        Rule::Rcode { names, from, to } => {
            names::matches(names, name).then_some(Change::Answer(Revert::Rcode(*from, *to)))
        }
        Rule::Cname { matcher, to } => Some(Change::Answer(Revert::Cname(matcher, to))),
    })
}

/// The name that a rule makes of another, if it is for it.
fn renamed(rewrite: &NameRewrite, name: &Name) -> Option<String> {
    if let Matcher::Exact(from) = &rewrite.matcher
        && from != name
    {
        return None;
    }
    let text = lower(name);
    let to = match &rewrite.to {
        Replacement::Text(to) => to.as_str(),
        Replacement::Parts(parts) => return assembled(&rewrite.matcher, parts, &text),
    };
    match &rewrite.matcher {
        Matcher::Exact(_) => Some(to.to_owned()),
        Matcher::Prefix(prefix) => text.strip_prefix(prefix).map(|rest| format!("{to}{rest}")),
        Matcher::Suffix(suffix) => ends_with(&text, suffix).map(|before| format!("{before}{to}")),
        Matcher::Substring(part) => text.contains(part).then(|| text.replace(part, to)),
        Matcher::Regex(pattern) => {
            let captures = pattern.regex().captures(&text)?;
            Some(substitute(to, &captures))
        }
    }
}

/// A name out of parts. There is no metadata, so what needs some does not apply.
fn assembled(matcher: &Matcher, parts: &[Part], text: &str) -> Option<String> {
    let Matcher::Regex(pattern) = matcher else {
        return None;
    };
    let captures = pattern.regex().captures(text)?;
    let part = |part: &Part| match part {
        Part::Text(text) => Some(text.clone()),
        Part::Group(group) => {
            let group = captures.get(*group);
            Some(group.map_or_else(String::new, |group| group.as_str().to_owned()))
        }
        Part::Metadata(_) => None,
    };
    parts.iter().map(part).collect()
}
