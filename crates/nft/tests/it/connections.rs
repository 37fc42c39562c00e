//! Questions about connections: what packets without one, answers and errors come to.

use nft::eval::{Fate, Outcome, Packet};
use nft::{
    Chain, ChainKind, CtField, CtState, Direction, Family, Hook, IpFamily, Key, Limit, Log,
    MapDatum, Rule, Set, SetData, Statement, Table, Type, Value, Verdict,
};

use crate::base;

const V4: IpFamily = IpFamily::V4;
const CLIENT: [u8; 4] = [10, 244, 1, 2];
const SERVICE: [u8; 4] = [10, 96, 0, 1];
const POD: [u8; 4] = [10, 244, 1, 5];
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ACK: u8 = 16;

fn in_set(keys: impl Into<Vec<Key>>, set: &str) -> Statement {
    Statement::InSet {
        keys: keys.into(),
        negate: false,
        set: set.into(),
    }
}

fn server() -> Key {
    Key::Ct(Direction::Reply, CtField::Saddr(V4))
}

fn goto(chain: &str) -> Statement {
    Statement::Verdict(Verdict::Goto(chain.into()))
}

const DROP: Statement = Statement::Verdict(Verdict::Drop);

/// The pod is open at TCP 8080 and 9000 to 9010 for the client.
pub(crate) fn table() -> Table {
    let mut table = Table::new(Family::Inet, "t");
    let port = Key::Ct(Direction::Reply, CtField::ProtoSrc);
    let mut generation = Set::of([Type::Mark]);
    generation.add([Value::Mark(0x700)]);
    let mut subjects = Set::map([Type::Ipv4], SetData::Verdict);
    subjects.put(
        [Value::V4(POD.into())],
        MapDatum::Verdict(Verdict::Jump("pod".into())),
    );
    let mut peers = Set::of([Type::Ipv4]);
    peers.add([Value::V4(CLIENT.into())]);
    let mut ports = Set::of([Type::Proto, Type::Port]);
    ports.add([Value::Proto(TCP), Value::Port(8080)]);
    for (name, set) in [
        ("generation", generation),
        ("subjects", subjects),
        ("peers", peers),
        ("ports", ports),
    ] {
        table.sets.insert(name.into(), set);
    }
    let accept = Statement::Verdict(Verdict::Accept);
    let nd = |first, last| Statement::InRange {
        key: Key::Icmpv6Type,
        negate: false,
        first: Value::Icmpv6Type(first),
        last: Value::Icmpv6Type(last),
    };
    let forward = [
        vec![
            in_set([Key::CtMarkBits(0xffff_ff00)], "generation"),
            accept.clone(),
        ],
        vec![nd(133, 137), accept],
        vec![
            Statement::CtState(vec![CtState::Invalid, CtState::Untracked]),
            goto("denied"),
        ],
        vec![
            Statement::CtState(vec![CtState::New]),
            Statement::TcpNotSyn,
            goto("denied"),
        ],
        vec![
            Statement::is(Key::IifName, Value::Name("fn-*".into())),
            Statement::is_not(Key::IifName, Value::Name("fn-vxlan*".into())),
            Statement::NoWayBack,
            DROP,
        ],
        vec![Statement::VerdictMap {
            keys: vec![server()],
            map: "subjects".into(),
        }],
        vec![Statement::SetCtMark {
            keep: 0xff,
            bits: 0x700,
        }],
    ];
    let peer = in_set([Key::Ct(Direction::Original, CtField::Saddr(V4))], "peers");
    let back = Statement::Verdict(Verdict::Return);
    let pod = [
        vec![
            peer.clone(),
            in_set([Key::CtProtocol, port.clone()], "ports"),
            back.clone(),
        ],
        vec![
            peer,
            Statement::is(Key::CtProtocol, Value::Proto(TCP)),
            Statement::InRange {
                key: port,
                negate: false,
                first: Value::Port(9000),
                last: Value::Port(9010),
            },
            back,
        ],
        vec![goto("denied")],
    ];
    let denied = [
        vec![
            Statement::Limit(Limit {
                rate: 100,
                burst: 100,
            }),
            Statement::Log(log()),
        ],
        vec![DROP],
    ];
    let chains: [(&str, _, &[Vec<Statement>]); 3] = [
        ("forward", base(ChainKind::Filter, Hook::Forward), &forward),
        ("pod", None, &pod),
        ("denied", None, &denied),
    ];
    for (name, base, rules) in chains {
        let rules = rules.iter().cloned().map(Rule::new).collect();
        table.chains.insert(name.into(), Chain { base, rules });
    }
    table
}

fn log() -> Log {
    Log {
        prefix: "denied".into(),
        group: 11,
        snaplen: 128,
    }
}

fn run(packet: &Packet) -> Outcome {
    table().compile().eval("forward", packet).unwrap()
}

/// To the pod's port, through the Service's port 80.
fn first(client: [u8; 4], proto: u8, port: u16) -> Packet {
    let packet = Packet {
        iif: "fn-1".into(),
        ..Packet::new(client.into(), SERVICE.into(), proto, 40000, 80)
    };
    let mut connection = packet.connection();
    connection.reply.src = POD.into();
    connection.reply.sport = port;
    Packet {
        dst: POD.into(),
        dport: port,
        dnat: true,
        connection: Some(connection),
        ..packet
    }
}

fn answer(packet: &Packet) -> Packet {
    Packet {
        src: packet.dst,
        dst: packet.src,
        sport: packet.dport,
        dport: packet.sport,
        state: CtState::Established,
        ..packet.clone()
    }
}

#[test]
fn all_packets_of_a_connection_are_judged_alike() {
    for (client, proto, port, passes) in [
        (CLIENT, TCP, 8080, true),
        (CLIENT, TCP, 9000, true),
        (CLIENT, TCP, 9010, true),
        (CLIENT, TCP, 9011, false),
        (CLIENT, 17, 8080, false),
        ([10, 244, 1, 3], TCP, 8080, false),
    ] {
        let packet = first(client, proto, port);
        let error = Packet {
            proto: ICMP,
            icmp_type: 3,
            state: CtState::Related,
            ..answer(&packet)
        };
        for packet in [answer(&packet), packet, error] {
            let outcome = run(&packet);
            assert_eq!(outcome.fate == Fate::Accepted, passes, "{packet:?}");
            assert_eq!(outcome.ct_mark, if passes { 0x700 } else { 0 });
            assert_eq!(outcome.logs.is_empty(), passes);
        }
    }
}

#[test]
fn a_mark_of_now_is_known_and_others_bits_stay() {
    let denied = first([10, 244, 1, 3], TCP, 8080);
    let known = Packet {
        ct_mark: 0x705,
        ..denied.clone()
    };
    let known = run(&known);
    assert_eq!((known.fate, known.ct_mark), (Fate::Accepted, 0x705));
    let old = Packet {
        ct_mark: 0x605,
        ..denied
    };
    assert_eq!(run(&old).fate, Fate::Dropped);
    let judged = Packet {
        ct_mark: 0x605,
        ..first(CLIENT, TCP, 8080)
    };
    assert_eq!(run(&judged).ct_mark, 0x705);
}

#[test]
fn what_has_no_connection_has_no_mark_of_it() {
    for state in [CtState::Invalid, CtState::Untracked] {
        let packet = Packet {
            state,
            ct_mark: 0x700,
            ..first(CLIENT, TCP, 8080)
        };
        let outcome = run(&packet);
        assert_eq!(outcome.fate, Fate::Dropped);
        assert_eq!(outcome.logs, [log()]);
        let beyond = Packet {
            beyond_limit: true,
            ..packet
        };
        assert_eq!(run(&beyond).logs, []);
    }
    // Setting it is no test: the rule goes on.
    let mut table = Table::new(Family::Inet, "t");
    let rule = Rule::new([
        Statement::SetCtMark {
            keep: 0,
            bits: 1 << 8,
        },
        DROP,
    ]);
    let chain = Chain {
        base: base(ChainKind::Filter, Hook::Forward),
        rules: vec![rule],
    };
    table.chains.insert("forward".into(), chain);
    let fate = |state| {
        let packet = Packet {
            state,
            ..first(CLIENT, TCP, 80)
        };
        let outcome = table.compile().eval("forward", &packet).unwrap();
        (outcome.fate, outcome.ct_mark)
    };
    assert_eq!(fate(CtState::New), (Fate::Dropped, 1 << 8));
    assert_eq!(
        fate(CtState::Invalid),
        (Fate::Accepted, 0),
        "its mark is asked for first"
    );
}

#[test]
fn beginnings_ways_and_neighbours() {
    let passes = |packet: Packet| run(&packet).fate == Fate::Accepted;
    let opened = first(CLIENT, TCP, 8080);
    assert!(!passes(Packet {
        tcp_flags: ACK,
        ..opened.clone()
    }));
    assert!(passes(Packet {
        tcp_flags: ACK,
        ..answer(&opened)
    }));
    let borrowed = Packet {
        way_back: false,
        ..opened
    };
    assert!(!passes(borrowed.clone()));
    for iif in ["fn-vxlan6", "eth0"] {
        assert!(passes(Packet {
            iif: iif.into(),
            ..borrowed.clone()
        }));
    }
    let neighbour = Packet {
        state: CtState::Untracked,
        icmp_type: 135,
        ..Packet::new(
            "fe80::1".parse().unwrap(),
            "fe80::2".parse().unwrap(),
            58,
            0,
            0,
        )
    };
    assert!(passes(neighbour.clone()));
    for icmp_type in [132, 138] {
        assert!(!passes(Packet {
            icmp_type,
            ..neighbour.clone()
        }));
    }
}
