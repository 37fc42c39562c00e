//! `acl`: who may ask for what.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::corefile::reader::{Reader, Result};
use crate::corefile::{Zone, value};
use crate::wire::Type;

/// The rules for some zones.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Acl {
    /// The zones.
    pub zones: Vec<Zone>,
    /// The rules; the first that matches counts.
    pub rules: Vec<AclRule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct AclRule {
    /// What is done with the query.
    pub action: AclAction,
    /// Query types; `None` is every type.
    pub types: Option<Vec<Type>>,
    /// Sources; `None` is everyone.
    pub networks: Option<Vec<IpNet>>,
}

/// What is done with a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AclAction {
    /// It is answered.
    Allow,
    /// REFUSED.
    Block,
    /// An empty answer.
    Filter,
    /// No answer.
    Drop,
}

pub(super) fn parse(reader: &mut Reader<'_>) -> Vec<Acl> {
    let mut all = Vec::new();
    reader.each(|reader| {
        let args = reader.args();
        let mut acl = Acl {
            zones: reader.zones(&args),
            rules: Vec::new(),
        };
        reader.options(|reader, action| {
            acl.rules.push(rule(reader, action)?);
            Ok(())
        });
        all.push(acl);
        Ok(())
    });
    all
}

fn rule(reader: &mut Reader<'_>, action: &str) -> Result<AclRule> {
    let action = match action.to_lowercase().as_str() {
        "allow" => AclAction::Allow,
        "block" => AclAction::Block,
        "filter" => AclAction::Filter,
        "drop" => AclAction::Drop,
        _ => return Err(reader.unknown_option(&["allow", "block", "filter", "drop"])),
    };
    let (mut types, mut networks) = (None, None);
    let args = reader.args();
    let mut rest = args.as_slice();
    while let [section, after @ ..] = rest {
        let of_types = match section.to_lowercase().as_str() {
            "type" => true,
            "net" => false,
            _ => {
                let message = format!("unexpected {section:?}; \"type\" or \"net\" is expected");
                return Err(reader.error(message));
            }
        };
        let end = after.iter().position(|word| is_section(word));
        let (words, next) = after.split_at(end.unwrap_or(after.len()));
        if words.is_empty() {
            return Err(reader.error(format!("nothing follows {section:?}")));
        }
        if of_types {
            let found = words_before_star(words, value::record_type);
            let found = reader.check(found)?;
            types = Some(merged(types, found));
        } else {
            let found = words_before_star(words, network);
            let found = reader.check(found)?;
            networks = Some(merged(networks, found));
        }
        rest = next;
    }
    Ok(AclRule {
        action,
        types: types.flatten(),
        networks: networks.flatten(),
    })
}

fn is_section(word: &str) -> bool {
    word.eq_ignore_ascii_case("type") || word.eq_ignore_ascii_case("net")
}

/// The values of a section; `None` if one is `*`, which ends it.
fn words_before_star<T>(
    words: &[&str],
    value: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<Vec<T>>, String> {
    let mut values = Vec::new();
    for word in words {
        if *word == "*" {
            return Ok(None);
        }
        values.push(value(word)?);
    }
    Ok(Some(values))
}

/// The values of the sections before (`None` without one), and of one more.
fn merged<T>(before: Option<Option<Vec<T>>>, more: Option<Vec<T>>) -> Option<Vec<T>> {
    match (before, more) {
        (None, more) => more,
        (Some(Some(mut values)), Some(more)) => {
            values.extend(more);
            Some(values)
        }
        (Some(_), _) => None,
    }
}

/// A network, or an address as the network it is.
fn network(word: &str) -> Result<IpNet, String> {
    let network = word
        .parse()
        .or_else(|_| word.parse::<IpAddr>().map(IpNet::from));
    network
        .map(|network: IpNet| network.trunc())
        .map_err(|_| format!("{word:?} is neither a network (10.0.0.0/8) nor an address"))
}
