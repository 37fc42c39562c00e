//! What the kernel takes for changes of a table as policies have it; run with
//! `--release -- --ignored --nocapture costs`.

use std::time::{Duration, Instant};

use linux::Nftables;
use nft::{
    Base, Chain, ChainKind, CtField, Datum, Direction, ElementKey, Family, Hook, IpFamily, Key,
    MapDatum, Op, Policy, Rule, Set, SetData, Statement, Table, Transaction, Type, Value, Verdict,
    diff,
};

use crate::namespace;

const TABLE: &str = "flatnet-policy";
const PEERS: u32 = 10_000;
const RULES: u32 = 10;

fn address(number: u32) -> Value {
    Value::V4((0x0af4_0000 + number).into())
}

fn client() -> Key {
    Key::Ct(Direction::Original, CtField::Saddr(IpFamily::V4))
}

fn jump(chain: &str) -> Rule {
    Rule::new([Statement::Verdict(Verdict::Jump(chain.into()))])
}

/// Ten rules that each look up two sets.
fn list() -> Chain {
    let in_set = |keys: &[Key], set: &str| Statement::InSet {
        keys: keys.to_vec(),
        negate: false,
        set: set.into(),
    };
    let port = Key::Ct(Direction::Reply, CtField::ProtoSrc);
    let rule = Rule::new([
        in_set(&[client()], "peers"),
        in_set(&[Key::CtProtocol, port], "ports"),
        Statement::Verdict(Verdict::Return),
    ]);
    Chain {
        base: None,
        rules: vec![rule; RULES as usize],
    }
}

fn judged(generation: u32) -> Rule {
    Rule::new([Statement::SetCtMark {
        keep: 0xff,
        bits: generation << 8,
    }])
}

/// So many subjects, which share so many lists.
fn table(subjects: u32, lists: u32) -> Table {
    let mut table = Table::new(Family::Inet, TABLE);
    let mut peers = Set::of([Type::Ipv4]);
    (0..PEERS).for_each(|number| peers.add([address(number)]));
    let mut ports = Set::of([Type::Proto, Type::Port]);
    ports.add([Value::Proto(6), Value::Port(80)]);
    let mut map = Set::map([Type::Ipv4], SetData::Verdict);
    for number in 0..subjects {
        let verdict = Verdict::Jump(format!("list-{}", number % lists));
        map.put([address(number)], MapDatum::Verdict(verdict));
    }
    table.sets.insert("peers".into(), peers);
    table.sets.insert("ports".into(), ports);
    table.sets.insert("subjects".into(), map);
    for number in 0..lists {
        table.chains.insert(format!("list-{number}"), list());
    }
    let dispatch = Rule::new([Statement::VerdictMap {
        keys: vec![client()],
        map: "subjects".into(),
    }]);
    let sub = |rules| Chain { base: None, rules };
    table
        .chains
        .insert("judge".into(), sub(vec![dispatch, jump("judged")]));
    table.chains.insert("judged".into(), sub(vec![judged(1)]));
    for (name, hook) in [("forward", Hook::Forward), ("input", Hook::Input)] {
        let base = Base {
            kind: ChainKind::Filter,
            hook,
            priority: 0,
            policy: Policy::Accept,
        };
        let chain = Chain {
            base: Some(base),
            rules: vec![jump("judge")],
        };
        table.chains.insert(name.into(), chain);
    }
    table
}

fn transaction(ops: Vec<Op>) -> Transaction {
    Transaction {
        family: Family::Inet,
        table: TABLE.into(),
        ops,
    }
}

/// What this thread has computed, in the kernel too: others on the machine do not count.
fn computed() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes into `time`, which outlives the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The median and nearly the worst of many.
fn many(nftables: &mut Nftables, what: &str, mut ops: impl FnMut(u32) -> Vec<Op>) {
    let mut times: Vec<(Duration, Duration)> = (0..40)
        .map(|round| {
            let change = transaction(ops(round));
            let (start, before) = (Instant::now(), computed());
            nftables.apply(&change).unwrap();
            (computed() - before, start.elapsed())
        })
        .collect();
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{what}: computed p50 {:.3} ms, p95 {:.3} ms; took p50 {:.3} ms",
        ms(times[20].0),
        ms(times[38].0),
        ms(times[20].1)
    );
}

fn measure(subjects: u32, lists: u32) {
    println!("-- {subjects} subjects, {lists} lists of {RULES} rules, {PEERS} peers");
    let (netns, _) = namespace();
    let mut nftables = Nftables::open_in(&netns).unwrap();
    let all = diff(None, &table(subjects, lists).compile(), |_| true);
    let start = Instant::now();
    nftables.apply(&all).unwrap();
    println!("all: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);

    let peer = ElementKey::of(&[address(PEERS + 1)]);
    many(&mut nftables, "(a) an element of a plain set", |round| {
        vec![if round % 2 == 0 {
            Op::AddElements("peers".into(), vec![(peer.clone(), None)])
        } else {
            Op::DeleteElements("peers".into(), vec![peer.clone()])
        }]
    });
    let subject = ElementKey::of(&[address(0)]);
    let swap = |to: String| {
        let datum = Datum::Verdict(Verdict::Jump(to));
        [
            Op::DeleteElements("subjects".into(), vec![subject.clone()]),
            Op::AddElements("subjects".into(), vec![(subject.clone(), Some(datum))]),
        ]
    };
    let rules = list().compile(Family::Inet).rules;
    let chain = |name: &str| {
        let mut ops = vec![Op::AddChain(name.into(), None)];
        let rules = rules.iter().cloned();
        ops.extend(rules.map(|rule| Op::AddRule(name.into(), rule)));
        ops
    };
    many(
        &mut nftables,
        "(b) a new list, and a subject gets it",
        |round| {
            let name = format!("new-{round}");
            [chain(&name), swap(name).to_vec()].concat()
        },
    );
    many(&mut nftables, "(b') a new list nobody has", |round| {
        chain(&format!("unused-{round}"))
    });
    many(
        &mut nftables,
        "(b'') a subject gets another list",
        |round| swap(format!("new-{round}")).to_vec(),
    );
    many(
        &mut nftables,
        "(b''') a list that nobody has goes",
        |round| {
            let name = format!("unused-{round}");
            vec![Op::FlushChain(name.clone()), Op::DeleteChain(name)]
        },
    );
    many(&mut nftables, "(c) the one rule without verdict", |round| {
        let rule = judged(round).compile(Family::Inet);
        vec![
            Op::FlushChain("judged".into()),
            Op::AddRule("judged".into(), rule),
        ]
    });
}

#[test]
#[ignore = "measures; needs root and a release build"]
fn costs_of_policies() {
    for (subjects, lists) in [(100, 100), (1000, 1000), (10_000, 10_000), (10_000, 100)] {
        measure(subjects, lists);
    }
}
