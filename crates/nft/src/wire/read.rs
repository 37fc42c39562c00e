//! Reading a table back: the requests to send, and the values of the answers.
//!
//! The order is table, chains, rules, sets, and then the elements of each set; see
//! `linux::nftables`, which sends them.

use std::time::Duration;

use super::attr::{Reader, Writer};
use super::{DATA_VALUE, DATA_VERDICT, SUBSYSTEM, chain_attr, encode, exprs, msg, set_attr};
use crate::compile::{
    Compiled, CompiledChain, CompiledRule, CompiledSet, Datum, ElementKey, VERDICT_TYPE,
};
use crate::model::{Base, ChainKind, Family, Hook, Policy, Table};

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Is the table there? One answer, or the error that it is not.
    Table,
    /// Its chains.
    Chains,
    /// The rules of all its chains.
    Rules,
    /// Its sets.
    Sets,
    /// The elements of one set.
    Elements(String),
}

/// The bytes of a request.
pub fn request(family: Family, table: &str, question: &Question, sequence: u32) -> Vec<u8> {
    let (kind, flags) = match question {
        Question::Table => (msg::GET_TABLE, ACK),
        Question::Chains => (msg::GET_CHAIN, DUMP),
        Question::Rules => (msg::GET_RULE, DUMP),
        Question::Sets => (msg::GET_SET, DUMP),
        Question::Elements(_) => (msg::GET_ELEMENTS, DUMP),
    };
    let kind = u16::from(SUBSYSTEM) << 8 | u16::from(kind);
    let header = [family.number(), 0, 0, 0];
    let mut bytes = Vec::new();
    encode::message(
        &mut bytes,
        kind,
        REQUEST | flags,
        sequence,
        header,
        |body: &mut Writer| {
            // The table's name is the first attribute of every object.
            body.text(1, table);
            if let Question::Elements(set) = question {
                body.text(2, set);
            }
        },
    );
    bytes
}

/// An element that a packet added to a dynamic set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicElement {
    /// Its key.
    pub key: ElementKey,
    /// Its data, in a map.
    pub data: Option<Datum>,
    /// How long it lives on.
    pub remaining: Duration,
}

/// The elements of an answer to [`Question::Elements`], as a dynamic set has them.
pub fn dynamic_elements(kind: u16, payload: &[u8]) -> Vec<DynamicElement> {
    let kind_wanted = u16::from(SUBSYSTEM) << 8 | u16::from(msg::NEW_ELEMENTS);
    let Some(body) = payload.get(4..).filter(|_| kind == kind_wanted) else {
        return Vec::new();
    };
    let items = Reader(body).nest(set_attr::ELEMENTS);
    items
        .filter_map(|(_, item)| {
            let (key, data) = read_element(Reader(item))?;
            let remaining = Reader(item).u64(set_attr::ELEMENT_EXPIRATION).unwrap_or(0);
            Some(DynamicElement {
                key,
                data,
                remaining: Duration::from_millis(remaining),
            })
        })
        .collect()
}

impl Compiled {
    /// A table without anything in it, to be filled by [`Compiled::take`].
    pub fn empty(family: Family, name: &str) -> Self {
        Table::new(family, name).compile()
    }

    /// Takes in one answer: the message's type and what follows the netlink header.
    pub fn take(&mut self, kind: u16, payload: &[u8]) {
        let Some(body) = payload.get(4..).map(Reader) else {
            return;
        };
        if kind >> 8 != u16::from(SUBSYSTEM) || body.text(1).as_deref() != Some(&self.name) {
            return;
        }
        match kind as u8 {
            msg::NEW_CHAIN => {
                if let Some(name) = body.text(chain_attr::NAME) {
                    self.chains.entry(name).or_default().base = read_base(body);
                }
            }
            msg::NEW_RULE => {
                if let Some(chain) = body.text(chain_attr::RULE_CHAIN) {
                    let chain: &mut CompiledChain = self.chains.entry(chain).or_default();
                    chain.rules.push(read_rule(body));
                }
            }
            msg::NEW_SET => {
                if let Some((name, set)) = read_set(body) {
                    self.sets.insert(name, set);
                }
            }
            msg::NEW_ELEMENTS => {
                let set = body.text(set_attr::NAME);
                let set = set.and_then(|name| self.sets.get_mut(&name));
                if let Some(set) = set.filter(|set| !set.dynamic) {
                    let items = body.nest(set_attr::ELEMENTS);
                    set.elements
                        .extend(items.filter_map(|(_, item)| read_element(Reader(item))));
                }
            }
            _ => {}
        }
    }
}

fn read_base(body: Reader<'_>) -> Option<Base> {
    let hook = body.nest(chain_attr::HOOK);
    Some(Base {
        kind: match body.text(chain_attr::TYPE)?.as_str() {
            "filter" => ChainKind::Filter,
            "nat" => ChainKind::Nat,
            "route" => ChainKind::Route,
            _ => return None,
        },
        hook: match hook.u32(chain_attr::HOOK_NUMBER)? {
            0 => Hook::Prerouting,
            1 => Hook::Input,
            2 => Hook::Forward,
            3 => Hook::Output,
            4 => Hook::Postrouting,
            _ => return None,
        },
        priority: hook.u32(chain_attr::HOOK_PRIORITY)? as i32,
        policy: match body.u32(chain_attr::POLICY) {
            Some(0) => Policy::Drop,
            _ => Policy::Accept,
        },
    })
}

fn read_rule(body: Reader<'_>) -> CompiledRule {
    CompiledRule {
        exprs: body
            .nest(chain_attr::RULE_EXPRS)
            .map(|(_, item)| exprs::read(Reader(item)))
            .collect(),
        comment: body.get(chain_attr::RULE_USERDATA).and_then(read_comment),
    }
}

fn read_comment(mut userdata: &[u8]) -> Option<String> {
    while let [kind, len, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*len))?;
        if *kind == 0 {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return String::from_utf8(text.to_vec()).ok();
        }
        userdata = rest.get(usize::from(*len)..)?;
    }
    None
}

fn read_set(body: Reader<'_>) -> Option<(String, CompiledSet)> {
    let flags = body.u32(set_attr::FLAGS).unwrap_or(0);
    let data = match body.u32(set_attr::DATA_TYPE) {
        Some(VERDICT_TYPE) => Some((VERDICT_TYPE, 0)),
        Some(kind) => Some((kind, body.u32(set_attr::DATA_LEN)?)),
        None => None,
    };
    let set = CompiledSet {
        key_type: body.u32(set_attr::KEY_TYPE)?,
        key_len: body.u32(set_attr::KEY_LEN)?,
        interval: flags & set_attr::FLAG_INTERVAL != 0,
        size: body
            .nest(set_attr::DESCRIPTION)
            .u32(set_attr::DESCRIPTION_SIZE),
        dynamic: flags & (set_attr::FLAG_DYNAMIC | set_attr::FLAG_TIMEOUT) != 0,
        data: data.filter(|_| flags & set_attr::FLAG_MAP != 0),
        elements: Default::default(),
    };
    Some((body.text(set_attr::NAME)?, set))
}

fn read_element(item: Reader<'_>) -> Option<(ElementKey, Option<Datum>)> {
    let flags = item.u32(set_attr::ELEMENT_FLAGS).unwrap_or(0);
    let key = ElementKey {
        key: item.nest(set_attr::ELEMENT_KEY).get(DATA_VALUE)?.to_vec(),
        starts: flags & set_attr::INTERVAL_END == 0,
    };
    let data = item.nest(set_attr::ELEMENT_DATA);
    let datum = match data.get(DATA_VALUE) {
        Some(bytes) => Some(Datum::Bytes(bytes.to_vec())),
        None => exprs::read_verdict(data.nest(DATA_VERDICT)).map(Datum::Verdict),
    };
    Some((key, datum))
}

/// What a notification is about: the table's name, and the chain's or set's. [`None`] for
/// messages that are not about an object.
pub fn subject(kind: u16, payload: &[u8]) -> Option<(String, Option<String>)> {
    if kind >> 8 != u16::from(SUBSYSTEM) {
        return None;
    }
    let body = Reader(payload.get(4..)?);
    let name = match kind as u8 {
        msg::NEW_TABLE | msg::DEL_TABLE => None,
        msg::NEW_CHAIN | msg::DEL_CHAIN => Some(chain_attr::NAME),
        msg::NEW_RULE | msg::DEL_RULE => Some(chain_attr::RULE_CHAIN),
        msg::NEW_SET | msg::DEL_SET | msg::NEW_ELEMENTS | msg::DEL_ELEMENTS => Some(set_attr::NAME),
        _ => return None,
    };
    Some((body.text(1)?, name.and_then(|name| body.text(name))))
}
