//! Queries are kept from connection tracking and marked; a rule of routing delivers what is
//! marked here. The table belongs to the socket that made it, so it ends with its process.
//!
//! ```text
//! prerouting (raw): from this node's pods, to a server's address ─▶ take: mark, notrack
//! output (raw): to a server's address ─▶ mark, notrack: routed again, to lo
//!               from a server's address ─▶ notrack
//! ```
//!
//! What comes from elsewhere to such an address is somebody else's question: it goes the ordinary
//! way. So does a pod's query while the rule or the route is missing, for the mark is taken off
//! again where it would not be delivered here.

use std::net::IpAddr;

use nft::{
    Base, Chain, ChainKind, Family, Hook, IpFamily, Key, Policy, Rule, Set, Statement, Table, Type,
    Value, Verdict,
};

/// The table.
pub const TABLE: &str = "flatnet-dns";
/// The port.
pub const PORT: u16 = 53;
/// UDP and TCP.
const PROTOCOLS: [u8; 2] = [17, 6];
const RAW: i32 = -300;

/// The table that leads queries to these addresses to sockets of this node; `mark` is one bit.
pub fn table(addresses: &[IpAddr], mark: u32) -> Table {
    let mut table = Table::new(Family::Inet, TABLE);
    for v6 in [false, true] {
        let mut set = Set::of([ip_type(v6), Type::Proto, Type::Port]);
        for ip in addresses.iter().filter(|ip| ip.is_ipv6() == v6) {
            for protocol in PROTOCOLS {
                let [ip, port] = [Value::from(*ip), Value::Port(PORT)];
                set.add([ip, Value::Proto(protocol), port]);
            }
        }
        table.sets.insert(servers(v6), set);
    }
    let chains = [
        ("prerouting", prerouting()),
        ("queries", queries()),
        ("take", take(mark)),
        ("output", output(mark)),
    ];
    let named = |(name, chain): (&str, Chain)| (name.to_owned(), chain);
    table.chains.extend(chains.map(named));
    table
}

fn prerouting() -> Chain {
    let from = |link: &str| Statement::is(Key::IifName, Value::Name(link.to_owned()));
    let rules = vec![
        Rule::new([
            Statement::is_not(Key::ThDport, Value::Port(PORT)),
            to(Verdict::Accept),
        ]),
        Rule::new([from("fn-vxlan*"), to(Verdict::Accept)]).comment("of other nodes' pods"),
        Rule::new([from("fn-*"), goto("queries")]),
        Rule::new([from("cni0"), goto("queries")]),
    ];
    hook(ChainKind::Filter, Hook::Prerouting, rules)
}

fn queries() -> Chain {
    let rules = [false, true].map(|v6| Rule::new([asked(v6), goto("take")]));
    regular(rules.into())
}

/// Where the rule or the route is missing the packet stays as it was.
fn take(mark: u32) -> Chain {
    regular(vec![
        Rule::new([Statement::SetMarkBits(mark)]),
        Rule::new([Statement::NoWayOut, Statement::NoTrack, to(Verdict::Accept)]),
        Rule::new([Statement::ClearMarkBits(mark)]).comment("it would not be delivered here"),
    ])
}

fn output(mark: u32) -> Chain {
    let mut rules = Vec::new();
    for v6 in [false, true] {
        rules.push(Rule::new([answered(v6), Statement::NoTrack]));
        rules.push(Rule::new([
            asked(v6),
            Statement::SetMarkBits(mark),
            Statement::NoTrack,
        ]));
    }
    hook(ChainKind::Route, Hook::Output, rules)
}

fn asked(v6: bool) -> Statement {
    in_servers(Key::Daddr(family(v6)), Key::ThDport, v6)
}

fn answered(v6: bool) -> Statement {
    in_servers(Key::Saddr(family(v6)), Key::ThSport, v6)
}

fn in_servers(address: Key, port: Key, v6: bool) -> Statement {
    Statement::InSet {
        keys: vec![address, Key::L4Proto, port],
        negate: false,
        set: servers(v6),
    }
}

fn servers(v6: bool) -> String {
    format!("servers{}", if v6 { '6' } else { '4' })
}

fn hook(kind: ChainKind, hook: Hook, rules: Vec<Rule>) -> Chain {
    let base = Some(Base {
        kind,
        hook,
        priority: RAW,
        policy: Policy::Accept,
    });
    Chain { base, rules }
}

fn regular(rules: Vec<Rule>) -> Chain {
    Chain { base: None, rules }
}

fn to(verdict: Verdict) -> Statement {
    Statement::Verdict(verdict)
}

fn goto(chain: &str) -> Statement {
    to(Verdict::Goto(chain.to_owned()))
}

fn family(v6: bool) -> IpFamily {
    if v6 { IpFamily::V6 } else { IpFamily::V4 }
}

fn ip_type(v6: bool) -> Type {
    if v6 { Type::Ipv6 } else { Type::Ipv4 }
}

#[cfg(test)]
mod tests {
    use nft::eval::Packet;

    use super::*;

    const MARK: u32 = 0x40;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn from_pod(proto: u8, to: &str, port: u16) -> Packet {
        let src = if to.contains(':') {
            "fd00::5"
        } else {
            "10.244.1.5"
        };
        Packet {
            iif: "fn-0123456789a".into(),
            way_out: false,
            ..Packet::new(ip(src), ip(to), proto, 40_000, port)
        }
    }

    #[test]
    fn queries_of_this_nodes_pods_are_taken_and_nothing_else() {
        let table = table(&[ip("10.96.0.10"), ip("fd00:10:96::a")], MARK).compile();
        let taken = |chain: &str, packet: &Packet| {
            let done = table.eval(chain, packet).unwrap();
            assert_eq!(done.untracked, done.mark == MARK, "{packet:?}");
            done.untracked
        };
        for (proto, to) in [(17, "10.96.0.10"), (6, "10.96.0.10"), (6, "fd00:10:96::a")] {
            let query = from_pod(proto, to, 53);
            assert!(taken("prerouting", &query));
            let bridged = Packet {
                iif: "cni0".into(),
                ..query.clone()
            };
            assert!(taken("prerouting", &bridged));
            for elsewhere in ["eth0", "fn-vxlan", "fn-vxlan6"] {
                let iif = elsewhere.into();
                assert!(!taken(
                    "prerouting",
                    &Packet {
                        iif,
                        ..query.clone()
                    }
                ));
            }
            // The rule or the route is missing.
            let way_out = true;
            assert!(!taken(
                "prerouting",
                &Packet {
                    way_out,
                    ..query.clone()
                }
            ));
            let own = Packet {
                iif: String::new(),
                ..query.clone()
            };
            assert!(taken("output", &own));
            let answer = Packet::new(query.dst, query.src, proto, 53, 40_000);
            let done = table.eval("output", &answer).unwrap();
            assert_eq!((done.untracked, done.mark), (true, 0));
        }
        assert!(!taken("prerouting", &from_pod(17, "10.96.0.10", 9153)));
        assert!(!taken("prerouting", &from_pod(17, "10.96.0.1", 53)));
        assert!(!taken("prerouting", &from_pod(132, "10.96.0.10", 53)));
    }
}
