use nft::eval::{Fate, Nat, Outcome, Packet};
use nft::{
    Chain, ChainKind, CtState, Family, Hook, IpFamily, Key, MapDatum, MapTarget, NatKind, NatTo,
    Rule, Set, SetData, Statement, Table, Type, Value, Verdict,
};

use crate::base;

fn packet(src: &str, dst: &str, proto: u8, dport: u16) -> Packet {
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    Packet {
        iif: "eth0".into(),
        to_local: true,
        ..Packet::new(src, dst, proto, 40000, dport)
    }
}

fn chain(rules: impl Into<Vec<Rule>>) -> Chain {
    Chain {
        base: base(ChainKind::Nat, Hook::Prerouting),
        rules: rules.into(),
    }
}

fn sub(rules: impl Into<Vec<Rule>>) -> Chain {
    Chain {
        base: None,
        rules: rules.into(),
    }
}

fn run(table: &Table, packet: &Packet) -> Outcome {
    table.compile().eval("start", packet).unwrap()
}

#[test]
fn host_ports_of_both_families() {
    let mut table = Table::new(Family::Inet, "t");
    let mut v4 = Set::map(
        [Type::Proto, Type::Port],
        SetData::Values(vec![Type::Ipv4, Type::Port]),
    );
    v4.put(
        [Value::Proto(6), Value::Port(8080)],
        MapDatum::Values(vec![Value::V4([10, 244, 1, 5].into()), Value::Port(80)]),
    );
    let mut v6 = Set::map(
        [Type::Proto, Type::Port],
        SetData::Values(vec![Type::Ipv6, Type::Port]),
    );
    v6.put(
        [Value::Proto(6), Value::Port(8080)],
        MapDatum::Values(vec![Value::V6("fd00::5".parse().unwrap()), Value::Port(81)]),
    );
    table.sets.insert("v4".into(), v4);
    table.sets.insert("v6".into(), v6);
    let rule = |family, map: &str| {
        Rule::new([
            Statement::DaddrIsLocal,
            Statement::Nat {
                kind: NatKind::Dnat,
                family,
                to: NatTo::Map(MapTarget {
                    keys: vec![Key::L4Proto, Key::ThDport],
                    map: map.into(),
                    with_port: true,
                }),
            },
        ])
    };
    table.chains.insert(
        "start".into(),
        chain([rule(IpFamily::V4, "v4"), rule(IpFamily::V6, "v6")]),
    );
    let to = |ip: &str, port| Some(Nat::Destination(ip.parse().unwrap(), Some(port)));
    assert_eq!(
        run(&table, &packet("1.2.3.4", "10.0.1.10", 6, 8080)).nat,
        to("10.244.1.5", 80)
    );
    assert_eq!(
        run(&table, &packet("fd01::1", "fd00::1", 6, 8080)).nat,
        to("fd00::5", 81)
    );
    assert_eq!(
        run(&table, &packet("1.2.3.4", "10.0.1.10", 17, 8080)).nat,
        None
    );
    assert_eq!(
        run(&table, &packet("1.2.3.4", "10.0.1.10", 6, 8081)).nat,
        None
    );
    let elsewhere = Packet {
        to_local: false,
        ..packet("1.2.3.4", "9.9.9.9", 6, 8080)
    };
    assert_eq!(run(&table, &elsewhere).nat, None);
}

#[test]
fn jumps_returns_and_verdict_maps() {
    let mut table = Table::new(Family::Inet, "t");
    let mut map = Set::map([Type::Ipv4, Type::Port], SetData::Verdict);
    let key = |last, port| [Value::V4([10, 96, 0, last].into()), Value::Port(port)];
    map.put(key(1, 80), MapDatum::Verdict(Verdict::Goto("goes".into())));
    map.put(
        key(2, 80),
        MapDatum::Verdict(Verdict::Jump("comes-back".into())),
    );
    map.put(key(3, 80), MapDatum::Verdict(Verdict::Drop));
    table.sets.insert("services".into(), map);
    let last = Rule::new([
        Statement::SetMarkBits(8),
        Statement::Verdict(Verdict::Accept),
    ]);
    let lookup = Statement::VerdictMap {
        keys: vec![Key::Daddr(IpFamily::V4), Key::ThDport],
        map: "services".into(),
    };
    table
        .chains
        .insert("start".into(), chain([Rule::new([lookup]), last]));
    table
        .chains
        .insert("goes".into(), sub([Rule::new([Statement::SetMarkBits(1)])]));
    let back = Rule::new([
        Statement::SetMarkBits(2),
        Statement::Verdict(Verdict::Return),
    ]);
    let never = Rule::new([Statement::Verdict(Verdict::Drop)]);
    table.chains.insert("comes-back".into(), sub([back, never]));
    let mark = |dst: &str, port| {
        let outcome = run(&table, &packet("1.2.3.4", dst, 6, port));
        (outcome.fate == Fate::Accepted, outcome.mark)
    };
    assert_eq!(
        mark("10.96.0.1", 80),
        (true, 1),
        "gone to the end, the policy accepts"
    );
    assert_eq!(mark("10.96.0.2", 80), (true, 2 | 8), "jumped and returned");
    assert_eq!(mark("10.96.0.3", 80), (false, 0));
    assert_eq!(mark("10.96.0.1", 81), (true, 8), "not in the map");
    let v6 = run(&table, &packet("fd00::1", "fd00::2", 6, 80));
    assert_eq!(
        (v6.fate, v6.mark),
        (Fate::Accepted, 8),
        "not the map's family"
    );
}

#[test]
fn ranges_names_and_states() {
    let mut table = Table::new(Family::Inet, "t");
    let mut ranges = Set {
        interval: true,
        ..Set::of([Type::Ipv4])
    };
    for range in ["10.0.0.0/8", "192.168.1.0/24", "255.0.0.0/8"] {
        ranges.add([Value::Net(range.parse().unwrap())]);
    }
    table.sets.insert("ranges".into(), ranges);
    let drop = Statement::Verdict(Verdict::Drop);
    let rules = [
        Rule::new([
            Statement::CtState(vec![CtState::Established, CtState::Related]),
            Statement::Verdict(Verdict::Accept),
        ]),
        Rule::new([
            Statement::is(Key::IifName, Value::Name("fn-*".into())),
            drop.clone(),
        ]),
        Rule::new([
            Statement::is_not(Key::TcpDport, Value::Port(443)),
            Statement::CtDnat,
            drop.clone(),
        ]),
        Rule::new([
            Statement::InSet {
                keys: vec![Key::Saddr(IpFamily::V4)],
                negate: true,
                set: "ranges".into(),
            },
            drop,
        ]),
    ];
    let filter = Chain {
        base: base(ChainKind::Filter, Hook::Prerouting),
        rules: rules.into(),
    };
    table.chains.insert("start".into(), filter);
    let passes = |packet: &Packet| run(&table, packet).fate == Fate::Accepted;
    for inside in [
        "10.0.0.0",
        "10.255.255.255",
        "192.168.1.77",
        "255.255.255.255",
    ] {
        assert!(passes(&packet(inside, "9.9.9.9", 6, 80)), "{inside}");
    }
    for outside in ["9.255.255.255", "11.0.0.0", "192.168.2.0", "254.0.0.1"] {
        assert!(!passes(&packet(outside, "9.9.9.9", 6, 80)), "{outside}");
        let known = Packet {
            state: CtState::Established,
            ..packet(outside, "9.9.9.9", 6, 80)
        };
        assert!(passes(&known), "{outside}");
    }
    let from = |iif: &str| Packet {
        iif: iif.into(),
        ..packet("10.0.0.1", "9.9.9.9", 6, 80)
    };
    assert!(!passes(&from("fn-abc")));
    assert!(passes(&from("fnabc")));
    let translated = |port| Packet {
        dnat: true,
        ..packet("10.0.0.1", "9.9.9.9", 6, port)
    };
    assert!(!passes(&translated(80)));
    assert!(passes(&translated(443)));
}

#[test]
fn translation_is_decided_once() {
    let mut table = Table::new(Family::Inet, "t");
    let drop = Rule::new([Statement::Verdict(Verdict::Drop)]);
    table.chains.insert("start".into(), chain([drop]));
    let first = packet("10.0.0.1", "9.9.9.9", 6, 80);
    assert_eq!(run(&table, &first).fate, Fate::Dropped);
    let later = Packet {
        state: CtState::Established,
        ..first
    };
    assert_eq!(run(&table, &later).fate, Fate::Accepted);
}
