//! How long large rulesets take; run with `--release -- --ignored --nocapture many`.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use linux::Nftables;
use nft::wire::encode;
use nft::{
    Chain, Compiled, Datum, ElementKey, Family, Hook, IpFamily, Key, MapTarget, NatKind, NatTo, Op,
    Rule, Set, SetData, Statement, Table, Transaction, Type, Value, Verdict, diff,
};

use crate::namespace;
use crate::nftables::nat;

const ENDPOINTS: u32 = 5;

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    println!("{what}: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
    result
}

fn to() -> Vec<Key> {
    vec![Key::Daddr(IpFamily::V4), Key::L4Proto, Key::ThDport]
}

fn at(service: u32) -> [Value; 3] {
    let ip = Ipv4Addr::from(0x0a60_0000 + service);
    [Value::V4(ip), Value::Proto(6), Value::Port(80)]
}

/// The chains, and the maps without elements.
fn skeleton() -> Table {
    let mut table = Table::new(Family::Inet, "flatnet");
    let service = [Type::Ipv4, Type::Proto, Type::Port];
    table
        .sets
        .insert("services-ips".into(), Set::map(service, SetData::Verdict));
    let endpoints = Set::map(
        [Type::Ipv4, Type::Proto, Type::Port, Type::Mark],
        SetData::Values(vec![Type::Ipv4, Type::Port]),
    );
    table.sets.insert("services-endpoints".into(), endpoints);
    let dispatch = Rule::new([Statement::VerdictMap {
        keys: to(),
        map: "services-ips".into(),
    }]);
    for (name, hook) in [
        ("services-prerouting", Hook::Prerouting),
        ("services-output", Hook::Output),
    ] {
        let jump = Statement::Verdict(Verdict::Jump("services-dispatch".into()));
        let chain = Chain {
            base: nat(hook, -100),
            rules: vec![Rule::new([jump])],
        };
        table.chains.insert(name.into(), chain);
    }
    let sub = |rules| Chain { base: None, rules };
    table
        .chains
        .insert("services-dispatch".into(), sub(vec![dispatch]));
    for count in 1..=ENDPOINTS {
        let keys = to().into_iter().chain([Key::Random(count)]).collect();
        let dnat = Rule::new([Statement::Nat {
            kind: NatKind::Dnat,
            family: IpFamily::V4,
            to: NatTo::Map(MapTarget {
                keys,
                map: "services-endpoints".into(),
                with_port: true,
            }),
        }]);
        table
            .chains
            .insert(format!("services-internal-{count}"), sub(vec![dnat]));
    }
    table
}

type Element = (ElementKey, Option<Datum>);

fn verdict(service: u32) -> Element {
    let goto = Verdict::Goto(format!("services-internal-{ENDPOINTS}"));
    (ElementKey::of(&at(service)), Some(Datum::Verdict(goto)))
}

fn endpoint(service: u32, index: u32) -> Element {
    let [ip, proto, port] = at(service);
    let key = ElementKey::of(&[ip, proto, port, Value::Mark(index)]);
    let pod = Ipv4Addr::from(0x0af4_0000 + service * ENDPOINTS + index);
    let datum = Datum::of(&[Value::V4(pod), Value::Port(8080)]);
    (key, Some(datum))
}

fn transaction(ops: Vec<Op>) -> Transaction {
    Transaction {
        family: Family::Inet,
        table: "flatnet".into(),
        ops,
    }
}

fn measure(services: u32) {
    println!("-- {services} services with {ENDPOINTS} endpoints");
    let (_netns, _) = namespace();
    let mut nftables = Nftables::open_in(&_netns).unwrap();
    let mut ops = diff(None, &skeleton().compile(), |_| true).ops;
    timed("elements to bytes of keys and data", || {
        let verdicts = (0..services).map(verdict).collect();
        let endpoints = (0..services).flat_map(|at| (0..ENDPOINTS).map(move |i| endpoint(at, i)));
        let endpoints = endpoints.collect();
        ops.push(Op::AddElements("services-endpoints".into(), endpoints));
        ops.push(Op::AddElements("services-ips".into(), verdicts));
    });
    let all = transaction(ops);
    let bytes = timed("encode", || encode(&all)).bytes.len();
    println!("   {bytes} bytes");
    timed("kernel takes all", || nftables.apply(&all).unwrap());
    let have = timed("read back", || {
        nftables.read(Family::Inet, "flatnet").unwrap().unwrap()
    });
    let want = nft::apply(None, &all).unwrap().unwrap();
    let complete =
        |table: &Compiled| -> usize { table.sets.values().map(|set| set.elements.len()).sum() };
    println!("   {} of {} elements", complete(&have), complete(&want));
    timed("difference", || diff(Some(&have), &want, |_| true));
    let (key, datum) = endpoint(services / 2, 0);
    one(&mut nftables, "one endpoint", || {
        vec![
            Op::DeleteElements("services-endpoints".into(), vec![key.clone()]),
            Op::AddElements(
                "services-endpoints".into(),
                vec![(key.clone(), datum.clone())],
            ),
        ]
    });
    let (key, datum) = verdict(services / 2);
    one(&mut nftables, "one verdict", || {
        vec![
            Op::DeleteElements("services-ips".into(), vec![key.clone()]),
            Op::AddElements("services-ips".into(), vec![(key.clone(), datum.clone())]),
        ]
    });
    let rules = skeleton().compile().chains["services-internal-5"]
        .rules
        .clone();
    one(&mut nftables, "one new chain", || {
        let name = String::from("services-new");
        vec![
            Op::AddChain(name.clone(), None),
            Op::AddRule(name.clone(), rules[0].clone()),
        ]
    });
    let flush = transaction(vec![Op::DeleteTable]);
    timed("delete the table", || nftables.apply(&flush).unwrap());
}

/// The median and the worst of many small changes.
fn one(nftables: &mut Nftables, what: &str, ops: impl Fn() -> Vec<Op>) {
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let change = transaction(ops());
            let start = Instant::now();
            nftables.apply(&change).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    let ms = |at: usize| times[at].as_secs_f64() * 1e3;
    println!("{what}: p50 {:.3} ms, p99 {:.3} ms", ms(100), ms(198));
}

#[test]
#[ignore = "measures; needs root and a release build"]
fn many_services() {
    for services in [10, 10_000, 44_000] {
        measure(services);
    }
}
