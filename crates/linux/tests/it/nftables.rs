//! What the nft crate writes, in the kernel's and the `nft` program's own words.

use std::process::Command;

use linux::link::NewKind;
use linux::{NetNs, NewLink, Nftables, run_in};
use nft::{
    Base, Chain, ChainKind, Family, Hook, IpFamily, Key, MapDatum, MapTarget, NatKind, NatTo,
    Policy, Rule, Set, SetData, Statement, Table, Transaction, Type, Value, Verdict, diff,
};

use crate::{namespace, root};

pub(crate) fn nat(hook: Hook, priority: i32) -> Option<Base> {
    Some(Base {
        kind: ChainKind::Nat,
        hook,
        priority,
        policy: Policy::Accept,
    })
}

/// A table with each thing there is.
fn table() -> Table {
    use IpFamily::{V4, V6};
    let mut table = Table::new(Family::Inet, "flatnet");
    let mut nodes = Set::of([Type::Ipv4]);
    for last in [10, 20, 30] {
        nodes.add([Value::V4([10, 0, 1, last].into())]);
    }
    let mut ranges = Set {
        interval: true,
        ..Set::of([Type::Ipv4])
    };
    ranges.add([Value::Net("10.244.0.0/16".parse().unwrap())]);
    ranges.add([Value::Net("224.0.0.0/4".parse().unwrap())]);
    ranges.add([Value::Net("240.0.0.0/4".parse().unwrap())]);
    let mut ports = Set::map(
        [Type::Proto, Type::Port],
        SetData::Values(vec![Type::Ipv4, Type::Port]),
    );
    ports.put(
        [Value::Proto(6), Value::Port(8080)],
        MapDatum::Values(vec![Value::V4([10, 244, 1, 5].into()), Value::Port(80)]),
    );
    let mut ports6 = Set::map(
        [Type::Proto, Type::Port],
        SetData::Values(vec![Type::Ipv6, Type::Port]),
    );
    ports6.put(
        [Value::Proto(17), Value::Port(53)],
        MapDatum::Values(vec![
            Value::V6("fd00::5".parse().unwrap()),
            Value::Port(5353),
        ]),
    );
    let mut verdicts = Set::map([Type::Ipv4, Type::Port], SetData::Verdict);
    verdicts.put(
        [Value::V4([10, 96, 0, 10].into()), Value::Port(53)],
        MapDatum::Verdict(Verdict::Goto("service".into())),
    );
    table.sets.insert("nodes".into(), nodes);
    table.sets.insert("ranges".into(), ranges);
    table.sets.insert("ports".into(), ports);
    table.sets.insert("ports6".into(), ports6);
    table.sets.insert("verdicts".into(), verdicts);

    let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
    let post = vec![
        Rule::new([
            Statement::is(Key::Saddr(V4), net("10.244.0.0/16")),
            Statement::is_not(Key::Daddr(V4), net("224.0.0.0/4")),
            Statement::InSet {
                keys: vec![Key::Daddr(V4)],
                negate: true,
                set: "nodes".into(),
            },
            Statement::Counter,
            Statement::Masquerade { fully_random: true },
        ])
        .comment("leaves the cluster"),
        Rule::new([
            Statement::is(Key::Saddr(V6), net("fd00:10:244::/56")),
            Statement::is_not(Key::Daddr(V6), net("ff00::/8")),
            Statement::Masquerade {
                fully_random: false,
            },
        ]),
        Rule::new([
            Statement::is(Key::OifName, Value::Name("fn-*".into())),
            Statement::is_not(Key::IifName, Value::Name("eth0".into())),
            Statement::MatchBits {
                key: Key::Mark,
                mask: 0x4000,
                value: 0x4000,
            },
            Statement::Verdict(Verdict::Return),
        ]),
        Rule::new([
            Statement::CtDnat,
            Statement::Masquerade {
                fully_random: false,
            },
        ]),
    ];
    let map = |map: &str| {
        NatTo::Map(MapTarget {
            keys: vec![Key::L4Proto, Key::ThDport],
            map: map.into(),
            with_port: true,
        })
    };
    let pre = vec![
        Rule::new([
            Statement::DaddrIsLocal,
            Statement::Nat {
                kind: NatKind::Dnat,
                family: V4,
                to: map("ports"),
            },
        ]),
        Rule::new([
            Statement::DaddrIsLocal,
            Statement::Nat {
                kind: NatKind::Dnat,
                family: V6,
                to: map("ports6"),
            },
        ]),
        Rule::new([Statement::VerdictMap {
            keys: vec![Key::Daddr(V4), Key::ThDport],
            map: "verdicts".into(),
        }]),
        Rule::new([
            Statement::is(Key::TcpDport, Value::Port(80)),
            Statement::InSet {
                keys: vec![Key::Saddr(V4)],
                negate: false,
                set: "ranges".into(),
            },
            Statement::Nat {
                kind: NatKind::Dnat,
                family: V4,
                to: NatTo::Fixed([10, 244, 1, 9].into(), Some(8080)),
            },
        ]),
    ];
    table.chains.insert(
        "post".into(),
        Chain {
            base: nat(Hook::Postrouting, 100),
            rules: post,
        },
    );
    table.chains.insert(
        "pre".into(),
        Chain {
            base: nat(Hook::Prerouting, -105),
            rules: pre,
        },
    );
    table.chains.insert(
        "service".into(),
        Chain {
            base: None,
            rules: vec![Rule::new([
                Statement::SetMarkBits(0x4000),
                Statement::Verdict(Verdict::Accept),
            ])],
        },
    );
    table
}

pub(crate) fn apply(nftables: &mut Nftables, want: &Table) -> Transaction {
    let have = nftables.read(want.family, &want.name).unwrap();
    let changes = diff(have.as_ref(), &want.compile(), |_| true);
    nftables.apply(&changes).unwrap();
    // While the kernel still grows a set's hash table, a listing may leave elements out.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let compiled = Some(want.compile());
    let mut found = nftables.read(want.family, &want.name).unwrap();
    while found != compiled && std::time::Instant::now() < deadline {
        found = nftables.read(want.family, &want.name).unwrap();
    }
    assert!(
        found == compiled,
        "table {} reads back other than written",
        want.name
    );
    changes
}

/// What the `nft` program lists, where there is one.
pub(crate) fn listed(netns: &NetNs) -> Option<String> {
    nft(netns, &["list", "ruleset"])
}

pub(crate) fn nft(netns: &NetNs, arguments: &[&str]) -> Option<String> {
    let output = run_in(netns, || Command::new("nft").args(arguments).output()).unwrap();
    match output {
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "nft: {}: {stderr}", output.status);
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(_) => {
            testing::skip("nft list", "needs the nft program; make setup installs it");
            None
        }
    }
}

#[test]
fn a_table_reads_back_as_it_was_written() {
    if !root("nftables") {
        return;
    }
    let (netns, _) = namespace();
    let mut nftables = Nftables::open_in(&netns).unwrap();
    assert_eq!(nftables.read(Family::Inet, "flatnet").unwrap(), None);
    let mut want = table();
    assert!(!apply(&mut nftables, &want).is_empty());
    assert!(
        apply(&mut nftables, &want).is_empty(),
        "the second time nothing is left to do"
    );
    if let Some(listed) = listed(&netns) {
        assert_eq!(listed, want.to_string());
    }

    // One element, one rule, one chain, one set with another shape.
    let nodes = want.sets.get_mut("nodes").unwrap();
    nodes
        .elements
        .remove(&vec![Value::V4([10, 0, 1, 20].into())]);
    assert_eq!(apply(&mut nftables, &want).ops.len(), 1);
    want.chains.get_mut("post").unwrap().rules.remove(1);
    apply(&mut nftables, &want);
    want.sets.insert(
        "verdicts".into(),
        Set::map([Type::Ipv4, Type::Port], SetData::Verdict),
    );
    want.chains.remove("service");
    apply(&mut nftables, &want);
    let wider = Set::of([Type::Ipv4]);
    want.sets.insert(
        "ranges".into(),
        Set {
            interval: false,
            ..wider
        },
    );
    apply(&mut nftables, &want);
    want.chains.get_mut("pre").unwrap().base = nat(Hook::Prerouting, -90);
    apply(&mut nftables, &want);
    if let Some(listed) = listed(&netns) {
        // The program lists sets in the order they were made in.
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&listed), sorted(&want.to_string()));
    }
}

#[test]
fn large_sets_and_errors_by_name() {
    if !root("nftables errors") {
        return;
    }
    let (netns, mut netlink) = namespace();
    netlink
        .create_link(&NewLink::new("eth0", NewKind::Bridge))
        .unwrap();
    let mut nftables = Nftables::open_in(&netns).unwrap();
    let mut want = Table::new(Family::Inet, "flatnet");
    let mut many = Set::of([Type::Ipv4]);
    for number in 0..20_000_u32 {
        many.add([Value::V4((0x0a00_0000 + number).into())]);
    }
    want.sets.insert("many".into(), many);
    apply(&mut nftables, &want);

    want.chains.insert(
        "wrong".into(),
        Chain {
            base: None,
            rules: vec![Rule::new([Statement::Verdict(Verdict::Jump(
                "nowhere".into(),
            ))])],
        },
    );
    let changes = diff(None, &want.compile(), |name| name == "wrong");
    let error = nftables.apply(&changes).unwrap_err();
    assert!(
        error.to_string().starts_with(
            "table flatnet: add rule to chain wrong: change: no such file or directory"
        ),
        "{error}"
    );
    let left = nftables.read(Family::Inet, "flatnet").unwrap().unwrap();
    assert!(left.chains.is_empty(), "all or nothing");
    let others = nftables.read_owned(Family::Inet, "flatnet", &|name| name != "many");
    assert!(others.unwrap().unwrap().sets.is_empty());
}
