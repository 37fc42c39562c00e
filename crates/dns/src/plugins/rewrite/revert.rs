//! What is done with the answer to a rewritten query.

use super::edns::RevertOption;
use super::names::{ends_with, lower, substitute};
use crate::corefile::Pattern;
use crate::corefile::plugins::{AnswerRule, Matcher, NameRewrite, Replacement};
use crate::query::Answer;
use crate::wire::{Data, Name, Rcode, Record, Type};

/// One thing done with the answer.
#[derive(Debug)]
pub(super) enum Revert<'a> {
    /// Names are changed.
    Owner(Change<'a>),
    /// Names within the data are changed.
    Value(Change<'a>),
    Ttl(u32, u32),
    Rcode(Rcode, Rcode),
    Cname(&'a Matcher, &'a str),
    Option(RevertOption),
}

/// How a name is changed.
#[derive(Clone, Debug)]
pub(super) enum Change<'a> {
    /// A name, and those below it, become another.
    Remap(Name, Name),
    /// An end becomes another.
    Suffix(&'a str, &'a str),
    /// What matches becomes this.
    Regex(&'a Pattern, &'a str),
}

/// All that is done with an answer; what was found last is done first.
#[derive(Debug, Default)]
pub struct Reverts<'a>(Vec<Revert<'a>>);

/// A CNAME whose target a rule changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it is.
    pub from: Name,
    /// What it becomes.
    pub to: Name,
}

/// What a rule about a name does with the answer, given the name before and after it.
pub(super) fn of_name<'a>(rule: &'a NameRewrite, from: &Name, to: &Name) -> Vec<Revert<'a>> {
    let mut reverts = Vec::new();
    let exact = matches!(rule.matcher, Matcher::Exact(_));
    if rule.auto || exact {
        let change = match (&rule.matcher, &rule.to) {
            (Matcher::Suffix(suffix), Replacement::Text(text)) => Change::Suffix(text, suffix),
            _ => Change::Remap(to.clone(), from.lower()),
        };
        reverts.push(Revert::Owner(change.clone()));
        reverts.push(Revert::Value(change));
    }
    reverts.extend(rule.answers.iter().map(|answer| match answer {
        AnswerRule::Name { pattern, to } => Revert::Owner(Change::Regex(pattern, to)),
        AnswerRule::Value { pattern, to } => Revert::Value(Change::Regex(pattern, to)),
    }));
    reverts
}

impl Change<'_> {
    /// The name instead, where there is another. What would be none leaves it as it is.
    fn of(&self, name: &Name) -> Option<Name> {
        match self {
            Self::Remap(from, to) => {
                let below = name.below(from)?;
                Name::from_labels(below.chain(to.labels())).ok()
            }
            Self::Suffix(from, to) => {
                let text = name.to_string();
                let before = ends_with(&text, from)?;
                format!("{before}{to}").parse().ok()
            }
            Self::Regex(pattern, to) => {
                let text = name.to_string();
                let captures = pattern.regex().captures(&text)?;
                substitute(to, &captures).parse().ok()
            }
        }
    }
}

impl<'a> Reverts<'a> {
    pub(super) fn push(&mut self, revert: Revert<'a>) {
        self.0.push(revert);
    }

    /// Does all but what needs other names resolved.
    pub fn apply(&self, answer: &mut Answer) {
        for revert in self.0.iter().rev() {
            match revert {
                Revert::Owner(change) => {
                    for record in records(answer) {
                        if let Some(name) = change.of(&record.name) {
                            record.name = name;
                        }
                    }
                }
                Revert::Value(change) => {
                    records(answer).for_each(|record| change_value(record, change));
                }
                Revert::Ttl(min, max) => {
                    records(answer).for_each(|record| record.ttl = record.ttl.max(*min).min(*max));
                }
                Revert::Rcode(from, to) if answer.rcode == *from => answer.rcode = *to,
                Revert::Option(option) => option.apply(answer),
                Revert::Rcode(..) | Revert::Cname(..) => {}
            }
        }
    }

    /// The code that becomes of one, where there is no answer beside it.
    pub fn rcode(&self, mut rcode: Rcode) -> Rcode {
        for revert in self.0.iter().rev() {
            if let Revert::Rcode(from, to) = revert
                && *from == rcode
            {
                rcode = *to;
            }
        }
        rcode
    }

    /// The targets of CNAMEs that become others, which are to be resolved.
    pub fn targets(&self, answer: &Answer) -> Vec<Target> {
        let mut targets = Vec::new();
        for record in &answer.answers {
            let Data::Cname(from) = &record.data else {
                continue;
            };
            for revert in self.0.iter().rev() {
                if let Revert::Cname(matcher, to) = revert
                    && let Some(to) = retargeted(matcher, to, from)
                {
                    let from = from.clone();
                    targets.push(Target { from, to });
                }
            }
        }
        targets
    }
}

fn records(answer: &mut Answer) -> impl Iterator<Item = &mut Record> {
    let sections = [
        &mut answer.authorities,
        &mut answer.answers,
        &mut answer.additionals,
    ];
    sections.into_iter().flatten()
}

/// Puts what another target's name stands for into an answer: CNAMEs up to that target stay.
pub fn retarget(answer: &mut Answer, target: Target, resolved: Answer) {
    let mut answers = Vec::new();
    for mut record in std::mem::take(&mut answer.answers) {
        let Data::Cname(to) = &mut record.data else {
            continue;
        };
        let found = *to == target.from;
        if found {
            *to = target.to.clone();
        }
        answers.push(record);
        if found {
            break;
        }
    }
    answers.extend(resolved.answers);
    answer.answers = answers;
    answer.truncated = resolved.truncated;
}

fn retargeted(matcher: &Matcher, to: &str, target: &Name) -> Option<Name> {
    let text = lower(target);
    let to = match matcher {
        Matcher::Exact(from) => (from == target).then(|| to.to_owned()),
        Matcher::Prefix(from) => text.strip_prefix(from).map(|rest| format!("{to}{rest}")),
        Matcher::Suffix(from) => ends_with(&text, from).map(|before| format!("{before}{to}")),
        Matcher::Substring(from) => text.contains(from).then(|| text.replace(from, to)),
        Matcher::Regex(pattern) => {
            let captures = pattern.regex().captures(&text);
            captures.map(|captures| substitute(to, &captures))
        }
    };
    to?.parse().ok()
}

/// Changes the one name that stands in a record's data, where its type has one.
fn change_value(record: &mut Record, change: &Change<'_>) {
    let value = match &mut record.data {
        Data::Cname(name) | Data::Dname(name) | Data::Ns(name) | Data::Ptr(name) => name,
        Data::Mx(_, name) | Data::Srv { target: name, .. } => name,
        Data::Soa(soa) => &mut soa.primary,
        Data::Other(Type::NAPTR, bytes) => {
            if let Some(changed) = naptr(bytes, change) {
                *bytes = changed;
            }
            return;
        }
        _ => return,
    };
    if let Some(changed) = change.of(value) {
        *value = changed;
    }
}

/// A NAPTR's data with another replacement: order, preference, three strings, the name.
fn naptr(bytes: &[u8], change: &Change<'_>) -> Option<Box<[u8]>> {
    let mut at = 4;
    for _ in 0..3 {
        at += 1 + usize::from(*bytes.get(at)?);
    }
    let name = crate::wire::Reader::new(bytes.get(at..)?).name().ok()?;
    let changed = change.of(&name)?;
    Some([&bytes[..at], changed.as_bytes()].concat().into())
}
