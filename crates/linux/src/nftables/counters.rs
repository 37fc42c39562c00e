//! What rules counted.

use nft::Family;
use nft::wire::attr::Reader;
use nft::wire::message;

use super::Nftables;
use crate::error::{Error, Result};
use crate::netlink::{About, answers};

const NF_TABLES: u16 = 10 << 8;
const NEW_RULE: u16 = NF_TABLES | 6;
const GET_RULE: u16 = NF_TABLES | 7;
const REQUEST_DUMP: u16 = 0x301;

const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const COUNTER_PACKETS: u16 = 2;

impl Nftables {
    /// How many packets the counters of a chain's rules have counted together; [`None`] where
    /// there is no such chain, or no counter in it.
    pub fn counted(&mut self, family: Family, table: &str, chain: &str) -> Result<Option<u64>> {
        self.sequence = self.sequence.wrapping_add(1);
        let object = || format!("table {table}: chain {chain}");
        let about = About {
            object: &object,
            operation: "read counters",
        };
        let header = [family.number(), 0, 0, 0];
        let mut bytes = Vec::new();
        message(
            &mut bytes,
            GET_RULE,
            REQUEST_DUMP,
            self.sequence,
            header,
            |body| {
                body.text(RULE_TABLE, table);
                body.text(RULE_CHAIN, chain);
            },
        );
        let sent = self.socket.send(&bytes, 0);
        sent.map_err(|error| Error::io(object(), about.operation, &error))?;
        let mut counted = None;
        let (socket, buffer) = (&self.socket, &mut self.buffer);
        let answered = answers(socket, buffer, self.sequence, &about, |raw| {
            if raw.kind == NEW_RULE {
                let rule = Reader(raw.payload().get(4..).unwrap_or_default());
                // The kernel gives all rules where it knows no such chain.
                if rule.text(RULE_CHAIN).as_deref() == Some(chain) {
                    for packets in counters(rule) {
                        *counted.get_or_insert(0) += packets;
                    }
                }
            }
        });
        match answered {
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
            Ok(_) => Ok(counted),
        }
    }
}

/// The packets of each counter of a rule.
fn counters(rule: Reader<'_>) -> impl Iterator<Item = u64> {
    rule.nest(RULE_EXPRESSIONS).filter_map(|(_, expression)| {
        let expression = Reader(expression);
        let is_counter = expression.text(EXPRESSION_NAME).as_deref() == Some("counter");
        let data = expression.nest(EXPRESSION_DATA);
        data.u64(COUNTER_PACKETS).filter(|_| is_counter)
    })
}
