//! `acl`: who may ask for what.

use crate::corefile::plugins::{Acl as Options, AclAction, AclRule};
use crate::query::{Answer, Query};
use crate::wire::{EdnsOption, Name, Rcode, Type};

use super::zones::Zones;

/// The rules of a server block.
#[derive(Debug)]
pub struct Acl(Vec<(Zones, Vec<AclRule>)>);

/// What is done with a query.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The next plugin is asked.
    Allowed,
    /// This is said instead, because of a rule for the zone.
    Denied(Answer, AclAction, &'a Name),
    /// Nothing is said, because of a rule for the zone.
    Dropped(&'a Name),
}

impl Acl {
    /// Of the options.
    pub fn new(options: &[Options]) -> Self {
        let one = |acl: &Options| (Zones::new(&acl.zones), acl.rules.clone());
        Self(options.iter().map(one).collect())
    }

    /// What is done with a query: the first rule that matches counts.
    pub fn judge(&self, query: &Query) -> Verdict<'_> {
        for (zones, rules) in &self.0 {
            let Some(zone) = zones.matching(&query.question.name) else {
                continue;
            };
            let rule = rules.iter().find(|rule| matches(rule, query));
            match rule.map(|rule| rule.action) {
                None => {}
                Some(AclAction::Allow) => return Verdict::Allowed,
                Some(AclAction::Drop) => return Verdict::Dropped(zone),
                Some(AclAction::Block) => {
                    let answer = denied(Rcode::REFUSED, BLOCKED);
                    return Verdict::Denied(answer, AclAction::Block, zone);
                }
                Some(AclAction::Filter) => {
                    let answer = denied(Rcode::NOERROR, FILTERED);
                    return Verdict::Denied(answer, AclAction::Filter, zone);
                }
            }
        }
        Verdict::Allowed
    }
}

/// Codes of extended errors (RFC 8914).
const BLOCKED: u16 = 15;
const FILTERED: u16 = 17;

fn denied(rcode: Rcode, error: u16) -> Answer {
    Answer {
        rcode,
        options: vec![EdnsOption {
            code: EdnsOption::EXTENDED_ERROR,
            data: error.to_be_bytes().into(),
        }],
        by: "acl",
        ..Answer::default()
    }
}

fn matches(rule: &AclRule, query: &Query) -> bool {
    let client = query.client.ip().to_canonical();
    let kind = |types: &Vec<Type>| types.contains(&query.question.kind);
    let source = |nets: &Vec<ipnet::IpNet>| nets.iter().any(|net| net.contains(&client));
    rule.types.as_ref().is_none_or(kind) && rule.networks.as_ref().is_none_or(source)
}
