//! What is asked of connections, in the kernel's and the `nft` program's own words.

use linux::Nftables;
use nft::{
    Base, Chain, ChainKind, CtField, CtState, Direction, Family, Hook, IpFamily, Key, Limit, Log,
    MapDatum, Policy, Rule, Set, SetData, Statement, Table, Type, Value, Verdict, diff,
};

use crate::nftables::nft;
use crate::{namespace, root};

use IpFamily::{V4, V6};

const ACCEPT: Statement = Statement::Verdict(Verdict::Accept);
const DROP: Statement = Statement::Verdict(Verdict::Drop);
const PROTOCOL: Key = Key::CtProtocol;
/// The port behind translation.
const PORT: Key = Key::Ct(Direction::Reply, CtField::ProtoSrc);

fn client(family: IpFamily) -> Key {
    Key::Ct(Direction::Original, CtField::Saddr(family))
}

fn server(family: IpFamily) -> Key {
    Key::Ct(Direction::Reply, CtField::Saddr(family))
}

fn in_set(keys: impl Into<Vec<Key>>, set: &str) -> Statement {
    Statement::InSet {
        keys: keys.into(),
        negate: false,
        set: set.into(),
    }
}

fn range(key: Key, negate: bool, first: Value, last: Value) -> Statement {
    Statement::InRange {
        key,
        negate,
        first,
        last,
    }
}

fn chain(hook: Hook, rules: impl IntoIterator<Item = Vec<Statement>>) -> Chain {
    let base = Base {
        kind: ChainKind::Filter,
        hook,
        priority: 0,
        policy: Policy::Accept,
    };
    Chain {
        base: Some(base),
        rules: rules.into_iter().map(Rule::new).collect(),
    }
}

fn sets(table: &mut Table) {
    let mut generation = Set::of([Type::Mark]);
    generation.add([Value::Mark(0x1200)]);
    let mut peers = Set::of([Type::Ipv4]);
    peers.add([Value::V4([10, 244, 1, 5].into())]);
    let mut ports = Set::of([Type::Proto, Type::Port]);
    ports.add([Value::Proto(6), Value::Port(80)]);
    let mut subjects = Set::map([Type::Ipv6], SetData::Verdict);
    subjects.put(
        [Value::V6("fd00::5".parse().unwrap())],
        MapDatum::Verdict(Verdict::Drop),
    );
    let all = [
        ("generation", generation),
        ("peers", peers),
        ("ports", ports),
        ("subjects", subjects),
        ("self", Set::of([Type::Ipv4, Type::Ipv4])),
        ("self6", Set::of([Type::Ipv6, Type::Ipv6])),
        ("named", Set::of([Type::Ipv4, Type::Proto, Type::Port])),
        ("named6", Set::of([Type::Ipv6, Type::Proto, Type::Port])),
    ];
    table
        .sets
        .extend(all.map(|(name, set)| (name.to_owned(), set)));
}

fn table() -> Table {
    let mut table = Table::new(Family::Inet, "flatnet-policy");
    sets(&mut table);
    let port = Value::Port;
    let icmp = Value::Icmpv6Type;
    let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
    let name = |text: &str| Value::Name(text.into());
    let forward = [
        vec![in_set([Key::CtMarkBits(0xffff_ff00)], "generation"), ACCEPT],
        vec![range(Key::Icmpv6Type, false, icmp(133), icmp(137)), ACCEPT],
        vec![range(Key::Icmpv6Type, true, icmp(133), icmp(137)), ACCEPT],
        vec![Statement::is(Key::Icmpv6Type, icmp(135)), ACCEPT],
        vec![
            Statement::CtState(vec![CtState::Untracked, CtState::Invalid]),
            DROP,
        ],
        vec![
            Statement::CtState(vec![CtState::New]),
            Statement::TcpNotSyn,
            DROP,
        ],
        vec![
            Statement::is(Key::IifName, name("fn-*")),
            Statement::is_not(Key::IifName, name("fn-vxlan*")),
            Statement::NoWayBack,
            DROP,
        ],
        vec![in_set([client(V4), server(V4)], "self"), ACCEPT],
        vec![in_set([client(V6), server(V6)], "self6"), ACCEPT],
        vec![in_set([client(V4)], "peers"), ACCEPT],
        vec![Statement::VerdictMap {
            keys: vec![client(V6)],
            map: "subjects".into(),
        }],
        vec![Statement::is(client(V4), net("10.0.0.0/8")), ACCEPT],
        vec![Statement::is_not(server(V6), net("fd00::/56")), ACCEPT],
        vec![Statement::is(PROTOCOL, Value::Proto(17)), ACCEPT],
        vec![range(Key::ThDport, false, port(8000), port(8080)), ACCEPT],
        vec![range(Key::ThDport, true, port(8000), port(8080)), ACCEPT],
    ];
    let input = [
        vec![Statement::SetCtMark {
            keep: 0xff,
            bits: 0x1200,
        }],
        vec![Statement::SetCtMark {
            keep: 0xffff_00ff,
            bits: 0,
        }],
        vec![
            Statement::Limit(Limit {
                rate: 100,
                burst: 100,
            }),
            Statement::Log(Log {
                prefix: "flatnet-policy ingress".into(),
                group: 11,
                snaplen: 128,
            }),
        ],
        vec![Statement::Limit(Limit { rate: 3, burst: 5 }), DROP],
        vec![Statement::NoWayBack, DROP],
    ];
    table
        .chains
        .insert("forward".into(), chain(Hook::Forward, forward));
    table
        .chains
        .insert("input".into(), chain(Hook::Input, input));
    table
}

/// Ports of connections.
fn ports() -> Vec<Vec<Statement>> {
    let port = Value::Port;
    vec![
        vec![in_set([PROTOCOL, PORT], "ports"), ACCEPT],
        vec![in_set([server(V4), PROTOCOL, PORT], "named"), ACCEPT],
        vec![in_set([server(V6), PROTOCOL, PORT], "named6"), ACCEPT],
        vec![
            Statement::is(PROTOCOL, Value::Proto(6)),
            Statement::is(PORT, port(80)),
            ACCEPT,
        ],
        vec![
            Statement::is(PROTOCOL, Value::Proto(6)),
            range(PORT, false, port(8000), port(8080)),
            ACCEPT,
        ],
        vec![
            range(
                Key::Ct(Direction::Original, CtField::ProtoDst),
                true,
                port(8000),
                port(8080),
            ),
            ACCEPT,
        ],
    ]
}

#[test]
fn questions_about_connections_read_back() {
    if !root("questions_about_connections_read_back") {
        return;
    }
    let (netns, _) = namespace();
    let mut nftables = Nftables::open_in(&netns).unwrap();
    let mut check = |want: &Table| {
        let have = nftables.read(Family::Inet, "flatnet-policy").unwrap();
        nftables
            .apply(&diff(have.as_ref(), &want.compile(), |_| true))
            .unwrap();
        let found = nftables
            .read(Family::Inet, "flatnet-policy")
            .unwrap()
            .unwrap();
        let wanted = want.compile();
        for (name, chain) in &wanted.chains {
            for (have, want) in found.chains[name].rules.iter().zip(&chain.rules) {
                assert_eq!(have, want, "{name}");
            }
        }
        assert!(found == wanted);
    };
    let mut want = table();
    check(&want);
    if let Some(listed) = nft(&netns, &["list", "ruleset"]) {
        assert_eq!(listed, want.to_string());
    }
    want.chains
        .insert("ports".into(), chain(Hook::Forward, ports()));
    check(&want);
    let listed = nft(
        &netns,
        &["list", "chain", "inet", "flatnet-policy", "ports"],
    );
    if let Some(listed) = listed {
        let mut ports = Table::new(Family::Inet, "flatnet-policy");
        ports
            .chains
            .insert("ports".into(), want.chains["ports"].clone());
        // The program (1.0.6) does not know the type of the port of a connection where it is not
        // told the family and the protocol.
        let mut text = ports.to_string();
        for port in [8080, 8000, 80] {
            for (before, behind) in [(" ", " "), (" ", "-"), ("-", " ")] {
                text = text.replace(
                    &format!("{before}{port}{behind}"),
                    &format!("{before}{port:#x} [invalid type]{behind}"),
                );
            }
        }
        assert_eq!(listed, text);
    }
}
