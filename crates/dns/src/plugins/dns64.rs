//! `dns64`: IPv6 addresses made out of IPv4 addresses (RFC 6147), for clients without IPv4.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

use super::outcome::Kind;
use crate::corefile::plugins::Dns64;
use crate::query::{Answer, Query};
use crate::wire::{Class, Data, Record, Type};

/// The TTL of addresses where no SOA says how long there are none.
const TTL: u32 = 600;

/// Whether the question may need it.
pub fn concerns(options: &Dns64, query: &Query) -> bool {
    let v4 = query.client.ip().to_canonical().is_ipv4();
    let question = &query.question;
    (options.allow_ipv4 || !v4) && question.kind == Type::AAAA && question.class == Class::IN
}

/// Whether addresses are to be made, given the answer to the question itself.
pub fn needed(options: &Dns64, query: &Query, answer: &Answer) -> bool {
    if Kind::of(query, answer) == Kind::NameError {
        return false;
    }
    let has = answer
        .answers
        .iter()
        .any(|record| record.kind() == Type::AAAA);
    options.translate_all || !has
}

/// The answer, made out of the one to the question for A; `original` is the one to the question
/// itself.
pub fn translate(options: &Dns64, original: &Answer, v4: Answer) -> Answer {
    let mut authorities = original.authorities.iter();
    let soa = authorities.rfind(|record| record.kind() == Type::SOA);
    let most = soa.map_or(TTL, |record| record.ttl);
    let translated = |record: Record| match record.data {
        Data::A(ip) => Record {
            ttl: record.ttl.min(most),
            data: Data::Aaaa(embed(options.prefix, ip)),
            ..record
        },
        _ => record,
    };
    Answer {
        rcode: v4.rcode,
        truncated: v4.truncated,
        answers: v4.answers.into_iter().map(translated).collect(),
        authorities: v4.authorities,
        additionals: v4.additionals,
        by: "dns64",
        ..Answer::default()
    }
}

/// An IPv4 address within a prefix of 32, 40, 48, 56, 64 or 96 bits (RFC 6052, section 2.2):
/// bits 64 to 71 stay zero.
fn embed(prefix: Ipv6Net, ip: Ipv4Addr) -> Ipv6Addr {
    let mut octets = prefix.network().octets();
    let mut at = usize::from(prefix.prefix_len() / 8);
    for octet in ip.octets() {
        if at == 8 {
            at += 1;
        }
        if let Some(place) = octets.get_mut(at) {
            *place = octet;
        }
        at += 1;
    }
    Ipv6Addr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 6052, section 2.4.
    #[test]
    fn addresses_in_prefixes() {
        let ip = Ipv4Addr::new(192, 0, 2, 33);
        for (prefix, expected) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100:0"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::c000:221"),
            ("64:ff9b::/96", "64:ff9b::c000:221"),
        ] {
            let made = embed(prefix.parse().unwrap(), ip);
            assert_eq!(made, expected.parse::<Ipv6Addr>().unwrap(), "{prefix}");
        }
    }
}
