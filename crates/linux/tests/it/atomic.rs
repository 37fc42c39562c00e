//! What packets see of a transaction while it is made.
//!
//! A packet keeps to the rules that were in force when it came to the hook, but each lookup sees
//! the elements that are in force at that moment. So a packet on its way finds a map's new
//! verdict, and in a chain that came by the same transaction no rules: it comes back as if nothing
//! had been said. With chains made by a transaction before nothing goes wrong; else one packet of
//! 150 did here, at 2000 changes a second.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use linux::{NetNs, Netlink, Nftables, run_in};
use nft::{
    Base, Chain, ChainKind, CtField, Datum, Direction, ElementKey, Family, Hook, IpFamily, Key,
    MapDatum, Op, Policy, Rule, Set, SetData, Statement, Table, Transaction, Type, Value, Verdict,
    diff,
};

use crate::{namespace, root};

const HERE: [u8; 4] = [127, 0, 0, 1];
/// Rules before the lookup: a packet is on its way for a while.
const ON_THE_WAY: u32 = 200;

fn subject() -> ElementKey {
    ElementKey::of(&[Value::V4(HERE.into())])
}

fn verdict(verdict: Verdict) -> Rule {
    Rule::new([Statement::Verdict(verdict)])
}

fn judged(generation: u32) -> Rule {
    Rule::new([Statement::SetCtMark {
        keep: 0xff,
        bits: generation << 8,
    }])
}

/// Packets of this host are judged by the list that a map has for it; `end` is what becomes of
/// those that come back from there.
fn table(list: &[Rule], end: Verdict) -> Table {
    let mut table = Table::new(Family::Inet, "t");
    let mut generation = Set::of([Type::Mark]);
    generation.add([Value::Mark(1 << 8)]);
    let mut subjects = Set::map([Type::Ipv4], SetData::Verdict);
    subjects.put(
        [Value::V4(HERE.into())],
        MapDatum::Verdict(Verdict::Jump("list".into())),
    );
    table.sets.insert("generation".into(), generation);
    table.sets.insert("subjects".into(), subjects);
    let known = Rule::new([
        Statement::InSet {
            keys: vec![Key::CtMarkBits(0xffff_ff00)],
            negate: false,
            set: "generation".into(),
        },
        Statement::Verdict(Verdict::Accept),
    ]);
    let dispatch = Rule::new([Statement::VerdictMap {
        keys: vec![Key::Ct(Direction::Original, CtField::Saddr(IpFamily::V4))],
        map: "subjects".into(),
    }]);
    let base = Base {
        kind: ChainKind::Filter,
        hook: Hook::Output,
        priority: 0,
        policy: Policy::Accept,
    };
    let other = |mark| {
        let mark = Statement::is(Key::Mark, Value::Mark(mark));
        Rule::new([mark, Statement::Verdict(Verdict::Drop)])
    };
    let mut rules = vec![known];
    rules.extend((1..=ON_THE_WAY).map(other));
    rules.extend([
        dispatch,
        verdict(Verdict::Jump("judged".into())),
        verdict(end),
    ]);
    let output = Chain {
        base: Some(base),
        rules,
    };
    let sub = |rules: &[Rule]| Chain {
        base: None,
        rules: rules.to_vec(),
    };
    table.chains.insert("output".into(), output);
    table.chains.insert("list".into(), sub(list));
    table.chains.insert("judged".into(), sub(&[]));
    table
}

/// What the sender saw of its packets.
#[derive(Debug, Default)]
struct Sent {
    passed: u64,
    dropped: u64,
    /// Not between two changes what the first of them says.
    wrong: u64,
}

const CHANGING: u64 = 0;
const NONE_PASSES: u64 = 1;
const ALL_PASS: u64 = 2;

/// Sends packets for a second while changes are made; `change` makes that of a round and tells
/// whether packets pass from then on.
fn flood(netns: &NetNs, mut change: impl FnMut(u64) -> bool) -> Sent {
    let phase = AtomicU64::new(0);
    let over = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            run_in(netns, || {
                // Nobody reads there; what does not fit is lost behind the chain.
                let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
                let to = receiver.local_addr().unwrap();
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let mut sent = Sent::default();
                while over.load(Ordering::SeqCst) == 0 {
                    let before = phase.load(Ordering::SeqCst);
                    // What the chain drops, its sender is told of.
                    let passed = socket.send_to(b"x", to).is_ok();
                    let same = phase.load(Ordering::SeqCst) == before;
                    if passed {
                        sent.passed += 1;
                    } else {
                        sent.dropped += 1;
                    }
                    let expected = match before % 3 {
                        CHANGING => passed,
                        phase => phase == ALL_PASS,
                    };
                    sent.wrong += u64::from(same && passed != expected);
                }
                sent
            })
            .unwrap()
        });
        let end = Instant::now() + Duration::from_secs(1);
        let mut round = 0;
        while Instant::now() < end {
            round += 1;
            phase.store(3 * round + CHANGING, Ordering::SeqCst);
            let now = if change(round) { ALL_PASS } else { NONE_PASSES };
            phase.store(3 * round + now, Ordering::SeqCst);
            // Some packets see what it came to.
            let until = Instant::now() + Duration::from_micros(50);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        over.store(1, Ordering::SeqCst);
        sender.join().unwrap()
    })
}

fn apply(nftables: &mut Nftables, ops: Vec<Op>) {
    let transaction = Transaction {
        family: Family::Inet,
        table: "t".into(),
        ops,
    };
    nftables.apply(&transaction).unwrap();
}

fn new_chain(name: &str, rule: &Rule) -> Vec<Op> {
    vec![
        Op::AddChain(name.into(), None),
        Op::AddRule(name.into(), rule.compile(Family::Inet)),
    ]
}

fn old_chain(name: String) -> Vec<Op> {
    vec![Op::FlushChain(name.clone()), Op::DeleteChain(name)]
}

fn swap(to: String) -> Vec<Op> {
    let datum = Datum::Verdict(Verdict::Jump(to));
    vec![
        Op::DeleteElements("subjects".into(), vec![subject()]),
        Op::AddElements("subjects".into(), vec![(subject(), Some(datum))]),
    ]
}

fn replace(chain: &str, rule: &Rule) -> Vec<Op> {
    vec![
        Op::FlushChain(chain.into()),
        Op::AddRule(chain.into(), rule.compile(Family::Inet)),
    ]
}

fn host(list: &[Rule], end: Verdict) -> (NetNs, Netlink, Nftables) {
    let (netns, mut netlink) = namespace();
    let lo = netlink.expect_link("lo").unwrap().index;
    netlink.set_up(lo).unwrap();
    let mut nftables = Nftables::open_in(&netns).unwrap();
    let all = diff(None, &table(list, end).compile(), |_| true);
    nftables.apply(&all).unwrap();
    (netns, netlink, nftables)
}

#[test]
fn a_subject_gets_another_list_at_once() {
    if !root("a_subject_gets_another_list_at_once") {
        return;
    }
    // Denied before, denied after: nothing passes, also not what comes back from a list.
    let drop = verdict(Verdict::Drop);
    let (netns, _, mut nftables) = host(std::slice::from_ref(&drop), Verdict::Accept);
    let mut last = String::from("list");
    let mut first_then_swap = |round| {
        let next = format!("list-{round}");
        apply(&mut nftables, new_chain(&next, &drop));
        apply(&mut nftables, swap(next.clone()));
        let had = std::mem::replace(&mut last, next);
        apply(&mut nftables, old_chain(had));
        false
    };
    let sent = flood(&netns, &mut first_then_swap);
    assert_eq!((sent.passed, sent.wrong), (0, 0));

    // The rules of its list are replaced.
    let sent = flood(&netns, |round| {
        let rule = drop.clone().comment(format!("{round}"));
        apply(&mut nftables, replace(&last, &rule));
        false
    });
    assert_eq!((sent.passed, sent.wrong), (0, 0));

    // Allowed before, allowed after; what comes back is dropped.
    let accept = verdict(Verdict::Accept);
    let (netns, _, mut nftables) = host(std::slice::from_ref(&accept), Verdict::Drop);
    apply(&mut nftables, new_chain("other", &accept));
    let sent = flood(&netns, |round| {
        apply(
            &mut nftables,
            swap(["list", "other"][round as usize % 2].into()),
        );
        true
    });
    assert_eq!((sent.dropped, sent.wrong), (0, 0));
}

#[test]
fn what_was_judged_is_judged_again() {
    if !root("what_was_judged_is_judged_again") {
        return;
    }
    let (netns, _, mut nftables) = host(&[], Verdict::Accept);
    apply(&mut nftables, new_chain("denied", &verdict(Verdict::Drop)));
    let mark = |round: u64| ElementKey::of(&[Value::Mark((round as u32 + 1) << 8)]);
    let sent = flood(&netns, |round| {
        let passes = round % 2 == 0;
        let list = if passes { "list" } else { "denied" };
        let ops = [
            swap(list.into()),
            replace("judged", &judged(round as u32 + 1)),
            vec![
                Op::DeleteElements("generation".into(), vec![mark(round - 1)]),
                Op::AddElements("generation".into(), vec![(mark(round), None)]),
            ],
        ];
        apply(&mut nftables, ops.concat());
        passes
    });
    assert_eq!(sent.wrong, 0, "{sent:?}");
    assert!(sent.passed > 0 && sent.dropped > 0, "{sent:?}");
}
