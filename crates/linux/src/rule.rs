//! Rules of routing: which packets look into a table before the main one.

use std::fmt;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleHeader, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::Result;
use crate::netlink::{About, Netlink};
use crate::route::PROTO_KERNEL;

/// Packets with some bits in their mark look into a table. Rules of this form that say that the
/// kernel made them are the ones that are listed and made: of others' rules that is what
/// systemd-networkd leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MarkRule {
    /// Of which family.
    pub v6: bool,
    /// Rules are asked in this order; the main table's is 32766.
    pub priority: u32,
    /// What the bits are.
    pub mark: u32,
    /// Which bits.
    pub mask: u32,
    /// The table.
    pub table: u32,
}

impl fmt::Display for MarkRule {
    /// In the words of `ip rule`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            priority,
            mark,
            mask,
            table,
            ..
        } = self;
        write!(f, "{priority}: fwmark {mark:#x}/{mask:#x} lookup {table}")
    }
}

impl Netlink {
    /// All rules of that form, IPv4 first.
    pub fn mark_rules(&mut self) -> Result<Vec<MarkRule>> {
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RuleMessage::default();
            message.header.family = family;
            let answers = self.dump(
                &RouteNetlinkMessage::GetRule(message),
                &About {
                    object: &|| "rules".to_owned(),
                    operation: "list",
                },
            );
            let answers = match answers {
                // No IPv6 in this kernel.
                Err(error) if error.is(libc::EOPNOTSUPP) || error.is(libc::EAFNOSUPPORT) => {
                    continue;
                }
                answers => answers?,
            };
            rules.extend(answers.into_iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRule(message) => parse(&message),
                _ => None,
            }));
        }
        Ok(rules)
    }

    /// Adds a rule; one that is there is no error.
    pub fn add_mark_rule(&mut self, rule: &MarkRule) -> Result<()> {
        let message = RouteNetlinkMessage::NewRule(request(rule));
        let about = About {
            object: &|| format!("rule {rule}"),
            operation: "add",
        };
        let made = self.change(message, NLM_F_CREATE | NLM_F_EXCL, &about);
        made.or_else(|error| {
            if error.is_exists() {
                Ok(())
            } else {
                Err(error)
            }
        })
    }

    /// Deletes a rule; one that is not there is no error.
    pub fn delete_mark_rule(&mut self, rule: &MarkRule) -> Result<()> {
        let message = RouteNetlinkMessage::DelRule(request(rule));
        let about = About {
            object: &|| format!("rule {rule}"),
            operation: "delete",
        };
        let made = self.change(message, 0, &about);
        made.or_else(|error| match error.is_not_found() {
            true => Ok(()),
            false => Err(error),
        })
    }
}

fn request(rule: &MarkRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header = RuleHeader {
        family: match rule.v6 {
            false => AddressFamily::Inet,
            true => AddressFamily::Inet6,
        },
        action: RuleAction::ToTable,
        ..RuleHeader::default()
    };
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::FwMark(rule.mark),
        RuleAttribute::FwMask(rule.mask),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(PROTO_KERNEL.into()),
    ];
    message
}

/// A rule of that form; [`None`] for any other.
pub(crate) fn parse(message: &RuleMessage) -> Option<MarkRule> {
    let header = &message.header;
    if header.action != RuleAction::ToTable || header.dst_len != 0 || header.src_len != 0 {
        return None;
    }
    let mut rule = MarkRule {
        v6: match header.family {
            AddressFamily::Inet => false,
            AddressFamily::Inet6 => true,
            _ => return None,
        },
        priority: 0,
        mark: 0,
        mask: 0,
        table: header.table.into(),
    };
    let mut kernels = false;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::FwMark(mark) => rule.mark = *mark,
            RuleAttribute::FwMask(mask) => rule.mask = *mask,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Protocol(protocol) => kernels = u8::from(*protocol) == PROTO_KERNEL,
            RuleAttribute::SuppressPrefixLen(u32::MAX)
            | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            RuleAttribute::Other(_) => {}
            _ => return None,
        }
    }
    Some(rule).filter(|rule| kernels && rule.mask != 0)
}
