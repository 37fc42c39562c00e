use nft::{
    Chain, ChainKind, Compiled, ElementKey, Family, Hook, IpFamily, Key, MapDatum, Op, Rule, Set,
    SetData, Statement, Table, Transaction, Type, Value, Verdict, apply, diff,
};
use proptest::prelude::*;

use crate::base;

const CHAINS: [&str; 3] = ["own-a", "own-b", "own-c"];

fn owns(name: &str) -> bool {
    name.starts_with("own-")
}

/// A rule that refers to nothing, to a set or to a chain, all of which every table has.
fn any_rule() -> impl Strategy<Value = Rule> {
    let mark = |number: u8| Statement::is(Key::Mark, Value::Mark(number.into()));
    prop_oneof![
        (0_u8..4)
            .prop_map(move |number| Rule::new([mark(number), Statement::Verdict(Verdict::Accept)])),
        Just(Rule::new([
            Statement::InSet {
                keys: vec![Key::Daddr(IpFamily::V4)],
                negate: false,
                set: "own-set".into()
            },
            Statement::Counter,
        ])),
        Just(Rule::new([Statement::VerdictMap {
            keys: vec![Key::Daddr(IpFamily::V4)],
            map: "own-map".into()
        }])),
        Just(Rule::new([Statement::Verdict(Verdict::Jump("own-always".into()))]).comment("always")),
    ]
}

fn any_table() -> impl Strategy<Value = Table> {
    let chain = (
        prop::option::of(any::<bool>()),
        prop::collection::vec(any_rule(), 0..4),
    );
    let chains = prop::collection::vec(prop::option::of(chain), CHAINS.len());
    let elements = || prop::collection::btree_set(0_u8..6, 0..6);
    let targets = prop::collection::btree_map(0_u8..6, any::<bool>(), 0..6);
    (chains, elements(), targets, any::<bool>()).prop_map(
        |(chains, elements, targets, interval)| {
            let mut table = Table::new(Family::Inet, "flatnet");
            let mut set = Set {
                interval,
                ..Set::of([Type::Ipv4])
            };
            for last in elements {
                set.add([Value::V4([10, 0, last, 0].into())]);
            }
            table.sets.insert("own-set".into(), set);
            let mut map = Set::map([Type::Ipv4], SetData::Verdict);
            for (last, accept) in targets {
                let verdict = if accept {
                    Verdict::Accept
                } else {
                    Verdict::Goto("own-always".into())
                };
                map.put(
                    [Value::V4([10, 1, last, 0].into())],
                    MapDatum::Verdict(verdict),
                );
            }
            table.sets.insert("own-map".into(), map);
            table.chains.insert("own-always".into(), Chain::default());
            for (name, chain) in CHAINS.iter().zip(chains) {
                if let Some((hook, rules)) = chain {
                    let hook = hook.map(|first| {
                        if first {
                            Hook::Prerouting
                        } else {
                            Hook::Forward
                        }
                    });
                    let base = hook.and_then(|hook| base(ChainKind::Filter, hook));
                    table.chains.insert((*name).into(), Chain { base, rules });
                }
            }
            table
        },
    )
}

/// What another function has in the same table.
fn others() -> (String, Set, Chain) {
    let mut set = Set::of([Type::Port]);
    set.add([Value::Port(80)]);
    let rules = vec![Rule::new([Statement::InSet {
        keys: vec![Key::ThDport],
        negate: false,
        set: "other".into(),
    }])];
    (
        "other".into(),
        set,
        Chain {
            base: base(ChainKind::Filter, Hook::Input),
            rules,
        },
    )
}

proptest! {
    #[test]
    fn a_difference_makes_one_table_the_other(before in any_table(), after in any_table()) {
        let mut have = before;
        let (name, set, chain) = others();
        have.sets.insert(name.clone(), set.clone());
        have.chains.insert(name.clone(), chain.clone());
        let have = have.compile();
        let changes = diff(Some(&have), &after.compile(), owns);
        let made = apply(Some(have.clone()), &changes).unwrap().unwrap();
        let mut want = after.clone();
        want.sets.insert(name.clone(), set);
        want.chains.insert(name, chain);
        prop_assert_eq!(&made, &want.compile());
        prop_assert!(diff(Some(&made), &after.compile(), owns).is_empty());
        untouched(&have, &want.compile(), &changes.ops)?;
    }

    #[test]
    fn nothing_there_is_an_empty_table(after in any_table()) {
        let changes = diff(None, &after.compile(), owns);
        prop_assert_eq!(apply(None, &changes).unwrap().unwrap(), after.compile());
    }
}

/// What is the same before and after is not named by any change.
fn untouched(have: &Compiled, want: &Compiled, ops: &[Op]) -> Result<(), TestCaseError> {
    let redefined = have.sets["own-set"].interval != want.sets["own-set"].interval;
    for op in ops {
        match op {
            Op::FlushChain(name) | Op::AddRule(name, _) if !redefined => {
                prop_assert_ne!(have.chains.get(name), want.chains.get(name), "{}", op);
            }
            Op::AddElements(set, elements) if !(redefined && set == "own-set") => {
                for (key, datum) in elements {
                    prop_assert_ne!(have.sets[set].elements.get(key), Some(datum));
                }
            }
            Op::DeleteElements(set, keys) => {
                for key in keys {
                    prop_assert_ne!(
                        have.sets[set].elements.get(key),
                        want.sets[set].elements.get(key)
                    );
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn what_is_in_use_or_missing_is_refused() {
    let mut table = Table::new(Family::Inet, "flatnet");
    table.sets.insert("own-set".into(), Set::of([Type::Ipv4]));
    let use_it = Statement::InSet {
        keys: vec![Key::Daddr(IpFamily::V4)],
        negate: false,
        set: "own-set".into(),
    };
    let chain = Chain {
        base: None,
        rules: vec![Rule::new([use_it])],
    };
    table.chains.insert("own-a".into(), chain);
    let there = table.compile();
    let mut changes = diff(None, &there, owns);
    changes.ops = vec![Op::DeleteSet("own-set".into())];
    assert!(
        apply(Some(there.clone()), &changes)
            .unwrap_err()
            .contains("delete set own-set")
    );
    changes.ops = vec![Op::FlushChain("nowhere".into())];
    assert!(
        apply(Some(there.clone()), &changes)
            .unwrap_err()
            .contains("flush chain nowhere")
    );
    changes.ops = vec![Op::DeleteTable];
    assert_eq!(apply(Some(there), &changes), Ok(None));
}

#[test]
fn other_data_takes_a_deletion_before() {
    let mut table = Table::new(Family::Inet, "flatnet");
    let mut map = Set::map([Type::Port], SetData::Verdict);
    map.put([Value::Port(1)], MapDatum::Verdict(Verdict::Drop));
    table.sets.insert("own-map".into(), map);
    let there = table.compile();
    let element = |verdict| {
        let datum = MapDatum::Verdict(verdict);
        (ElementKey::of(&[Value::Port(1)]), Some((&datum).into()))
    };
    let set = || String::from("own-map");
    let add = |verdict| Op::AddElements(set(), vec![element(verdict)]);
    let delete = Op::DeleteElements(set(), vec![ElementKey::of(&[Value::Port(1)])]);
    let made = |ops| {
        let changes = Transaction {
            family: Family::Inet,
            table: "flatnet".into(),
            ops,
        };
        apply(Some(there.clone()), &changes)
    };
    assert_eq!(made(vec![add(Verdict::Drop)]), Ok(Some(there.clone())));
    made(vec![add(Verdict::Accept)]).unwrap_err();
    let swapped = made(vec![delete, add(Verdict::Accept)]).unwrap().unwrap();
    let (key, datum) = element(Verdict::Accept);
    assert_eq!(swapped.sets["own-map"].elements[&key], datum);
}

#[test]
fn what_packets_added_is_no_difference() {
    let mut table = Table::new(Family::Inet, "flatnet");
    let set = Set {
        size: Some(100),
        dynamic: true,
        ..Set::of([Type::Ipv4])
    };
    table.sets.insert("own-clients".into(), set);
    let want = table.compile();
    let mut have = want.clone();
    let clients = have.sets.get_mut("own-clients").unwrap();
    let client = nft::ElementKey::of(&[Value::V4([10, 9, 9, 9].into())]);
    clients.elements.insert(client.clone(), None);
    assert!(diff(Some(&have), &want, owns).is_empty());

    let mut forget = diff(None, &want, owns);
    forget.ops = vec![Op::DestroyElements("own-clients".into(), vec![client])];
    let made = apply(Some(have), &forget).unwrap().unwrap();
    assert_eq!(made, want);
    assert_eq!(apply(Some(made), &forget), Ok(Some(want.clone())));

    let mut larger = want.clone();
    larger.sets.get_mut("own-clients").unwrap().size = Some(200);
    let changes = diff(Some(&want), &larger, owns);
    assert_eq!(changes.ops.len(), 2, "another size is another set");
}
