//! Random choice, refusal, affinity: what packets do to rulesets as Services have them.

use std::time::Duration;

use nft::eval::{Fate, Nat, Outcome, Packet, Updated};
use nft::{
    Chain, ChainKind, Compiled, Datum, ElementKey, Family, Hook, IpFamily, Key, Looked, MapDatum,
    MapTarget, NatKind, NatTo, Reject, Rule, Set, SetData, Statement, Table, Type, Update, Value,
    Verdict,
};

use crate::base;

const V4: IpFamily = IpFamily::V4;
const HOUR: Duration = Duration::from_secs(3600);

fn service() -> Vec<Value> {
    vec![
        Value::V4([10, 96, 0, 1].into()),
        Value::Proto(17),
        Value::Port(80),
    ]
}

fn endpoint(last: u8) -> Vec<Value> {
    vec![Value::V4([10, 244, 1, last].into()), Value::Port(8080)]
}

fn to() -> Vec<Key> {
    vec![Key::Daddr(V4), Key::L4Proto, Key::ThDport]
}

fn chosen() -> Vec<Key> {
    to().into_iter().chain([Key::Random(3)]).collect()
}

fn dnat(keys: Vec<Key>, map: &str) -> Rule {
    Rule::new([Statement::Nat {
        kind: NatKind::Dnat,
        family: V4,
        to: NatTo::Map(MapTarget {
            keys,
            map: map.into(),
            with_port: true,
        }),
    }])
}

/// One service with three endpoints and room for two clients.
fn table(sticky: bool) -> Table {
    let mut table = Table::new(Family::Inet, "flatnet");
    let service_types = [Type::Ipv4, Type::Proto, Type::Port];
    let endpoint_types = [Type::Ipv4, Type::Port];
    let key = [Type::Ipv4, Type::Proto, Type::Port, Type::Mark];
    let mut endpoints = Set::map(key, SetData::Values(endpoint_types.to_vec()));
    let mut sticky_endpoints = Looked::map_of(key, &endpoint_types);
    for index in 0..3_u8 {
        let key: Vec<Value> = service()
            .into_iter()
            .chain([Value::Mark(index.into())])
            .collect();
        endpoints.put(key.clone(), MapDatum::Values(endpoint(index)));
        sticky_endpoints.put(key, MapDatum::Values(Looked::data_of(&endpoint(index))));
    }
    let mut canonical = Looked::map_of(service_types, &service_types);
    canonical.put(service(), MapDatum::Values(Looked::data_of(&service())));
    let affinity = Set {
        size: Some(2),
        dynamic: true,
        ..Set::map(
            [Type::Ipv4, Type::Ipv4, Type::Proto, Type::Port],
            SetData::Values(endpoint_types.to_vec()),
        )
    };
    let looked = |keys, map: &str, data: &[Type]| {
        Key::Looked(Looked {
            keys,
            map: map.into(),
            data: data.to_vec(),
        })
    };
    let client = vec![Key::Saddr(V4), looked(to(), "canonical", &service_types)];
    let mut rules = vec![dnat(chosen(), "endpoints")];
    if sticky {
        let remember = Rule::new([Statement::Update(Update {
            set: "affinity".into(),
            key: client.clone(),
            data: vec![looked(chosen(), "sticky-endpoints", &endpoint_types)],
            timeout: HOUR,
        })]);
        rules.splice(0..0, [remember, dnat(client, "affinity")]);
    }
    table.sets.insert("endpoints".into(), endpoints);
    table
        .sets
        .insert("sticky-endpoints".into(), sticky_endpoints);
    table.sets.insert("canonical".into(), canonical);
    table.sets.insert("affinity".into(), affinity);
    table.chains.insert(
        "start".into(),
        Chain {
            base: base(ChainKind::Nat, Hook::Prerouting),
            rules,
        },
    );
    table
}

/// A client's packet for which the kernel draws so many thirds.
fn packet(client: u8, thirds: u32) -> Packet {
    let (src, dst) = ([10, 9, 9, client], [10, 96, 0, 1]);
    Packet {
        random: u32::MAX / 3 * thirds + 7,
        ..Packet::new(src.into(), dst.into(), 17, 4000, 80)
    }
}

fn reached(outcome: &Outcome) -> u8 {
    match outcome.nat {
        Some(Nat::Destination(std::net::IpAddr::V4(ip), Some(8080))) => ip.octets()[3],
        _ => panic!("not to an endpoint: {outcome:?}"),
    }
}

/// Takes over what a packet did to dynamic sets.
fn take(table: &mut Compiled, updates: Vec<Updated>) {
    for update in updates {
        let set = table.sets.get_mut(&update.set).unwrap();
        set.elements.insert(update.key, update.data);
    }
}

#[test]
fn every_draw_has_its_endpoint() {
    let table = table(false).compile();
    for thirds in 0..3 {
        let outcome = table.eval("start", &packet(1, thirds)).unwrap();
        assert_eq!(u32::from(reached(&outcome)), thirds);
        assert_eq!(outcome.updates, []);
    }
}

#[test]
fn a_client_stays_with_its_endpoint() {
    let mut table = table(true).compile();
    let outcome = table.eval("start", &packet(1, 2)).unwrap();
    assert_eq!(reached(&outcome), 2, "it sees what it added itself");
    let key: Vec<Value> = [Value::V4([10, 9, 9, 1].into())]
        .into_iter()
        .chain(service())
        .collect();
    let added = [Updated {
        set: "affinity".into(),
        key: ElementKey::of(&key),
        data: Some(Datum::of(&endpoint(2))),
        timeout: HOUR,
    }];
    assert_eq!(outcome.updates, added);
    take(&mut table, outcome.updates);
    let again = table.eval("start", &packet(1, 0)).unwrap();
    assert_eq!(reached(&again), 2);
    assert_eq!(again.updates, added, "it lives on with the same data");

    let other = table.eval("start", &packet(2, 1)).unwrap();
    assert_eq!(reached(&other), 1);
    take(&mut table, other.updates);
    let third = table.eval("start", &packet(3, 0)).unwrap();
    assert_eq!(
        (reached(&third), third.updates),
        (0, vec![]),
        "there is no room: as without affinity"
    );
}

#[test]
fn refusals_are_told_from_silence() {
    let mut table = Table::new(Family::Inet, "t");
    let local = |statements: &[Statement]| Rule::new(statements);
    let rules = vec![
        local(&[
            Statement::SaddrIsLocal,
            Statement::ClearMarkBits(0x4000),
            Statement::Verdict(Verdict::Accept),
        ]),
        local(&[
            Statement::is(Key::L4Proto, Value::Proto(6)),
            Statement::Reject(Reject::TcpReset),
        ]),
        local(&[
            Statement::is(Key::ThDport, Value::Port(80)),
            Statement::Reject(Reject::PortUnreachable),
        ]),
        local(&[Statement::Verdict(Verdict::Drop)]),
    ];
    let chain = Chain {
        base: base(ChainKind::Nat, Hook::Prerouting),
        rules,
    };
    table.chains.insert("start".into(), chain);
    let fate = |packet: Packet| {
        let outcome = table.compile().eval("start", &packet).unwrap();
        (outcome.fate, outcome.mark)
    };
    let udp = Packet {
        mark: 0x4001,
        ..packet(1, 0)
    };
    let tcp = Packet {
        proto: 6,
        ..udp.clone()
    };
    let other = Packet {
        dport: 81,
        ..udp.clone()
    };
    let own = Packet {
        from_local: true,
        ..udp.clone()
    };
    assert_eq!(fate(tcp), (Fate::Rejected(Reject::TcpReset), 0x4001));
    assert_eq!(fate(udp), (Fate::Rejected(Reject::PortUnreachable), 0x4001));
    assert_eq!(fate(other), (Fate::Dropped, 0x4001));
    assert_eq!(fate(own), (Fate::Accepted, 1));
}

/// Single elements and rules compile to what they are in a whole table.
#[test]
fn parts_compile_as_in_the_whole() {
    let table = table(true);
    let whole = table.compile();
    for (name, set) in &table.sets {
        for (key, datum) in &set.elements {
            let compiled = &whole.sets[name].elements[&ElementKey::of(key)];
            assert_eq!(*compiled, datum.as_ref().map(Datum::from));
        }
    }
    for (name, chain) in &table.chains {
        for (rule, compiled) in chain.rules.iter().zip(&whole.chains[name].rules) {
            assert_eq!(rule.compile(table.family), *compiled);
        }
    }
    let net: ipnet::IpNet = "10.244.0.0/16".parse().unwrap();
    let end = ElementKey::end(&net.into()).unwrap();
    assert_eq!((end.key, end.starts), (vec![10, 245, 0, 0], false));
}
