//! A transaction as one netlink batch.

use super::attr::Writer;
use super::{DATA_VALUE, LIST_ELEMENT, SUBSYSTEM, chain_attr, exprs, msg, set_attr};
use crate::compile::{CompiledRule, CompiledSet, Datum, ElementKey, VERDICT_TYPE};
use crate::diff::{Op, Transaction};
use crate::model::{Base, ChainKind, Family, Hook, Policy};
use crate::value::Type;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// `NFTNL_UDATA_SET_KEYBYTEORDER`
const USERDATA_KEY_BYTE_ORDER: u8 = 0;
/// `BYTEORDER_HOST_ENDIAN`
const HOST_BYTE_ORDER: u32 = 1;
/// `NFTA_TABLE_FLAGS`
const TABLE_FLAGS: u16 = 2;
/// `NFT_TABLE_F_OWNER`
const TABLE_OWNER: u32 = 2;
/// Elements of one message: an attribute's length has 16 bits.
const ELEMENTS_LEN: usize = 32 << 10;

/// A batch for `NETLINK_NETFILTER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// All messages, the first and the last mark the batch.
    pub bytes: Vec<u8>,
    /// What each message is about, by its sequence number minus [`Encoded::FIRST`].
    pub about: Vec<String>,
}

impl Encoded {
    /// Sequence number of the first message.
    pub const FIRST: u32 = 1;

    /// What the message with a sequence number is about.
    pub fn about(&self, sequence: u32) -> &str {
        let at = sequence.checked_sub(Self::FIRST).map(|at| at as usize);
        at.and_then(|at| self.about.get(at))
            .map_or("batch", String::as_str)
    }
}

/// The bytes of a transaction. The table is made where it is not there; the kernel
/// acknowledges that message once all is done.
pub fn encode(transaction: &Transaction) -> Encoded {
    let mut batch = Batch {
        family: transaction.family,
        table: &transaction.table,
        out: Encoded {
            bytes: Vec::new(),
            about: Vec::new(),
        },
        sets: 0,
    };
    batch.edge(BATCH_BEGIN, "begin");
    batch.message(
        msg::NEW_TABLE,
        ACK | CREATE,
        &Op::AddTable.to_string(),
        |w| {
            w.text(1, &transaction.table);
            if transaction.ops.contains(&Op::OwnTable) {
                w.u32(TABLE_FLAGS, TABLE_OWNER);
            }
        },
    );
    for op in &transaction.ops {
        batch.op(op);
    }
    batch.edge(BATCH_END, "end");
    batch.out
}

struct Batch<'a> {
    family: Family,
    table: &'a str,
    out: Encoded,
    sets: u32,
}

impl Batch<'_> {
    fn op(&mut self, op: &Op) {
        let about = op.to_string();
        let table = self.table;
        match op {
            Op::AddTable | Op::OwnTable => {}
            Op::DeleteTable => self.message(msg::DEL_TABLE, 0, &about, |w| w.text(1, table)),
            Op::AddChain(name, base) => self.message(msg::NEW_CHAIN, CREATE, &about, |w| {
                w.text(chain_attr::TABLE, table);
                w.text(chain_attr::NAME, name);
                if let Some(base) = base {
                    write_base(w, base);
                }
            }),
            Op::FlushChain(name) => self.message(msg::DEL_RULE, 0, &about, |w| {
                w.text(chain_attr::TABLE, table);
                w.text(chain_attr::RULE_CHAIN, name);
            }),
            Op::DeleteChain(name) => self.message(msg::DEL_CHAIN, 0, &about, |w| {
                w.text(chain_attr::TABLE, table);
                w.text(chain_attr::NAME, name);
            }),
            Op::AddRule(chain, rule) => self.message(msg::NEW_RULE, CREATE | APPEND, &about, |w| {
                w.text(chain_attr::TABLE, table);
                w.text(chain_attr::RULE_CHAIN, chain);
                write_rule(w, rule);
            }),
            Op::AddSet(name, set) => {
                self.sets += 1;
                let id = self.sets;
                self.message(msg::NEW_SET, CREATE, &about, |w| {
                    w.text(set_attr::TABLE, table);
                    w.text(set_attr::NAME, name);
                    write_set(w, set, id);
                });
            }
            Op::DeleteSet(name) => self.message(msg::DEL_SET, 0, &about, |w| {
                w.text(set_attr::TABLE, table);
                w.text(set_attr::NAME, name);
            }),
            Op::AddElements(set, elements) => {
                let elements = elements.iter().map(|(key, datum)| (key, datum.as_ref()));
                self.elements(msg::NEW_ELEMENTS, CREATE, &about, set, elements);
            }
            Op::DeleteElements(set, keys) => {
                let elements = keys.iter().map(|key| (key, None));
                self.elements(msg::DEL_ELEMENTS, 0, &about, set, elements);
            }
            Op::DestroyElements(set, keys) => {
                let elements = keys.iter().map(|key| (key, None));
                self.elements(msg::DESTROY_ELEMENTS, 0, &about, set, elements);
            }
        }
    }

    /// As many messages as it takes.
    fn elements<'e>(
        &mut self,
        kind: u8,
        flags: u16,
        about: &str,
        set: &str,
        elements: impl Iterator<Item = (&'e ElementKey, Option<&'e Datum>)>,
    ) {
        let mut elements = elements.peekable();
        let table = self.table;
        while elements.peek().is_some() {
            self.message(kind, flags, about, |w| {
                w.text(1, table);
                w.text(2, set);
                w.nest(set_attr::ELEMENTS, |list| {
                    let full = list.bytes.len() + ELEMENTS_LEN;
                    while list.bytes.len() < full
                        && let Some((key, datum)) = elements.next()
                    {
                        write_element(list, key, datum);
                    }
                });
            });
        }
    }

    fn message(&mut self, kind: u8, flags: u16, about: &str, write: impl FnOnce(&mut Writer)) {
        let kind = u16::from(SUBSYSTEM) << 8 | u16::from(kind);
        let header = [self.family.number(), 0, 0, 0];
        self.raw(kind, flags, header, about, write);
    }

    fn edge(&mut self, kind: u16, about: &str) {
        self.raw(kind, 0, [0, 0, 0, SUBSYSTEM], about, |_| ());
    }

    fn raw(
        &mut self,
        kind: u16,
        flags: u16,
        header: [u8; 4],
        about: &str,
        write: impl FnOnce(&mut Writer),
    ) {
        let sequence = Encoded::FIRST + self.out.about.len() as u32;
        self.out.about.push(about.to_owned());
        message(
            &mut self.out.bytes,
            kind,
            REQUEST | flags,
            sequence,
            header,
            write,
        );
    }
}

/// One message of netfilter behind others: the type, flags, sequence number, the header that all
/// of netfilter has behind netlink's, and what `write` adds.
pub fn message(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    header: [u8; 4],
    write: impl FnOnce(&mut Writer),
) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&header);
    let mut writer = Writer {
        bytes: std::mem::take(bytes),
    };
    write(&mut writer);
    *bytes = writer.bytes;
    let len = (bytes.len() - start) as u32;
    bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
}

fn write_base(w: &mut Writer, base: &Base) {
    w.nest(chain_attr::HOOK, |hook| {
        hook.u32(chain_attr::HOOK_NUMBER, hook_number(base.hook));
        hook.u32(chain_attr::HOOK_PRIORITY, base.priority as u32);
    });
    w.u32(
        chain_attr::POLICY,
        match base.policy {
            Policy::Drop => 0,
            Policy::Accept => 1,
        },
    );
    w.text(chain_attr::TYPE, base.kind.word());
}

impl ChainKind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

fn write_rule(w: &mut Writer, rule: &CompiledRule) {
    w.nest(chain_attr::RULE_EXPRS, |list| {
        for expr in &rule.exprs {
            exprs::write(list, expr);
        }
    });
    if let Some(comment) = &rule.comment {
        // Type 0, length, text with its end; at most what one length byte holds.
        let mut text: Vec<u8> = comment.bytes().take(253).collect();
        text.push(0);
        let mut userdata = vec![0, text.len() as u8];
        userdata.extend(text);
        w.put(chain_attr::RULE_USERDATA, &userdata);
    }
}

fn write_set(w: &mut Writer, set: &CompiledSet, id: u32) {
    let mut flags = 0;
    if set.interval {
        flags |= set_attr::FLAG_INTERVAL;
    }
    if set.data.is_some() {
        flags |= set_attr::FLAG_MAP;
    }
    if set.dynamic {
        flags |= set_attr::FLAG_DYNAMIC | set_attr::FLAG_TIMEOUT;
    }
    w.u32(set_attr::FLAGS, flags);
    w.u32(set_attr::KEY_TYPE, set.key_type);
    w.u32(set_attr::KEY_LEN, set.key_len);
    if let Some((kind, len)) = set.data {
        w.u32(set_attr::DATA_TYPE, kind);
        if kind != VERDICT_TYPE {
            w.u32(set_attr::DATA_LEN, len);
        }
    }
    if let Some(size) = set.size {
        w.nest(set_attr::DESCRIPTION, |description| {
            description.u32(set_attr::DESCRIPTION_SIZE, size);
        });
    }
    w.u32(set_attr::ID, id);
    if set.key_type == Type::Mark.number() {
        // The program would take a mark for a number in network order.
        let mut userdata = vec![USERDATA_KEY_BYTE_ORDER, 4];
        userdata.extend(HOST_BYTE_ORDER.to_ne_bytes());
        w.put(set_attr::USERDATA, &userdata);
    }
}

fn write_element(list: &mut Writer, key: &ElementKey, datum: Option<&Datum>) {
    list.nest(LIST_ELEMENT, |element| {
        if !key.starts {
            element.u32(set_attr::ELEMENT_FLAGS, set_attr::INTERVAL_END);
        }
        element.nest(set_attr::ELEMENT_KEY, |value| {
            value.put(DATA_VALUE, &key.key)
        });
        match datum {
            Some(Datum::Bytes(bytes)) => {
                element.nest(set_attr::ELEMENT_DATA, |value| value.put(DATA_VALUE, bytes));
            }
            Some(Datum::Verdict(verdict)) => {
                element.nest(set_attr::ELEMENT_DATA, |value| {
                    exprs::write_verdict(value, verdict)
                });
            }
            None => {}
        }
    });
}
