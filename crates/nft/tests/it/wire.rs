use nft::wire::{encode, read};
use nft::{
    Chain, ChainKind, Compiled, Family, Hook, IpFamily, Key, MapDatum, Op, Rule, Set, SetData,
    Statement, Table, Transaction, Type, Value, Verdict, diff,
};

use crate::base;

fn table() -> Table {
    let mut table = Table::new(Family::Inet, "t");
    let mut map = Set::map([Type::Ipv4, Type::Port], SetData::Verdict);
    map.put(
        [Value::V4([10, 96, 0, 1].into()), Value::Port(80)],
        MapDatum::Verdict(Verdict::Drop),
    );
    table.sets.insert("m".into(), map);
    let rule = Rule::new([
        Statement::is(Key::Daddr(IpFamily::V4), Value::V4([10, 96, 0, 1].into())),
        Statement::VerdictMap {
            keys: vec![Key::Daddr(IpFamily::V4), Key::ThDport],
            map: "m".into(),
        },
    ]);
    let chain = Chain {
        base: base(ChainKind::Filter, Hook::Forward),
        rules: vec![rule.comment("why")],
    };
    table.chains.insert("c".into(), chain);
    table
}

/// Messages of a batch: type, flags, sequence and payload.
fn messages(mut bytes: &[u8]) -> Vec<(u16, u16, u32, &[u8])> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let len = u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize;
        messages.push((
            u16::from_ne_bytes(bytes[4..6].try_into().unwrap()),
            u16::from_ne_bytes(bytes[6..8].try_into().unwrap()),
            u32::from_ne_bytes(bytes[8..12].try_into().unwrap()),
            &bytes[16..len],
        ));
        bytes = &bytes[len..];
    }
    messages
}

#[cfg(target_endian = "little")]
#[test]
fn the_bytes_of_a_transaction() {
    let batch = encode(&diff(None, &table().compile(), |_| true));
    let lines: Vec<String> = messages(&batch.bytes)
        .into_iter()
        .map(|(kind, flags, sequence, payload)| {
            let payload: String = payload
                .chunks(4)
                .map(|word| {
                    word.iter()
                        .map(|byte| format!("{byte:02x}"))
                        .collect::<String>()
                        + " "
                })
                .collect();
            format!(
                "{} | {kind:04x} {flags:04x} {}",
                batch.about(sequence),
                payload.trim_end()
            )
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    begin | 0010 0001 0000000a
    add table | 0a00 0405 01000000 06000100 74000000
    add set m | 0a09 0401 01000000 06000100 74000000 06000200 6d000000 08000300 00000008 08000400 000001cd 08000500 00000008 08000600 ffffff00 08000a00 00000001
    add chain c | 0a03 0401 01000000 06000100 74000000 06000300 63000000 14000480 08000100 00000002 08000200 00000000 08000500 00000001 0b000700 66696c74 65720000
    add elements to set m | 0a0c 0401 01000000 06000100 74000000 06000200 6d000000 28000380 24000180 10000180 0c000100 0a600001 00500000 10000280 0c000280 08000100 00000000
    add rule "why" to chain c | 0a06 0c01 01000000 06000100 74000000 06000200 63000000 50010480 24000180 09000100 6d657461 00000000 14000280 08000100 00000001 08000200 0000000f 2c000180 08000100 636d7000 20000280 08000100 00000001 08000200 00000000 0c000380 05000100 02000000 34000180 0c000100 7061796c 6f616400 24000280 08000100 00000001 08000200 00000001 08000300 00000010 08000400 00000004 2c000180 08000100 636d7000 20000280 08000100 00000001 08000200 00000000 0c000380 08000100 0a600001 34000180 0c000100 7061796c 6f616400 24000280 08000100 00000001 08000200 00000001 08000300 00000010 08000400 00000004 34000180 0c000100 7061796c 6f616400 24000280 08000100 00000009 08000200 00000002 08000300 00000002 08000400 00000002 34000180 0b000100 6c6f6f6b 75700000 24000280 06000100 6d000000 08000200 00000001 08000300 00000000 08000500 00000000 0a000700 00047768 79000000
    end | 0011 0001 0000000a
    "#);
}

/// What is written reads back: the kernel lists objects in the form in which it takes them.
#[test]
fn what_is_written_reads_back() {
    let mut sized = table();
    let set = Set {
        size: Some(16),
        ..Set::of([Type::Mark])
    };
    sized.sets.insert("sized".into(), set);
    assert!(sized.to_string().contains("type mark\n\t\tsize 16\n"));
    for want in [crate::connections::table(), table(), sized] {
        let want = want.compile();
        let batch = encode(&diff(None, &want, |_| true));
        let mut found = Compiled::empty(Family::Inet, "t");
        for (kind, _, _, payload) in messages(&batch.bytes) {
            found.take(kind, payload);
        }
        assert_eq!(found, want);
    }
    let batch = encode(&diff(None, &table().compile(), |_| true));
    let mut other = Compiled::empty(Family::Inet, "other");
    for (kind, _, _, payload) in messages(&batch.bytes) {
        other.take(kind, payload);
    }
    assert_eq!(
        other,
        Compiled::empty(Family::Inet, "other"),
        "another table's"
    );
}

#[test]
fn many_elements_take_several_messages() {
    let mut set = Set::of([Type::Ipv6]);
    for number in 0..5000_u32 {
        set.add([Value::V6(u128::from(number).into())]);
    }
    let mut table = Table::new(Family::Ip6, "t");
    table.sets.insert("s".into(), set);
    let want = table.compile();
    let batch = encode(&diff(None, &want, |_| true));
    let mut found = Compiled::empty(Family::Ip6, "t");
    for (kind, _, _, payload) in messages(&batch.bytes) {
        assert!(payload.len() < 1 << 16);
        found.take(kind, payload);
    }
    assert_eq!(found, want);
}

#[test]
fn a_notification_names_its_object() {
    let batch = encode(&Transaction {
        family: Family::Inet,
        table: "t".into(),
        ops: vec![
            Op::FlushChain("c".into()),
            Op::DeleteSet("s".into()),
            Op::DeleteTable,
        ],
    });
    let subjects: Vec<_> = messages(&batch.bytes)
        .into_iter()
        .filter_map(|(kind, _, _, payload)| read::subject(kind, payload))
        .map(|(table, name)| (table, name.unwrap_or_default()))
        .collect();
    let named = |name: &str| ("t".to_owned(), name.to_owned());
    assert_eq!(subjects, [named(""), named("c"), named("s"), named("")]);
}

/// Nothing the kernel, or a newer one, may send makes reading fail.
#[test]
fn broken_messages_are_passed_over() {
    for table in [table().compile(), crate::connections::table().compile()] {
        let batch = encode(&diff(None, &table, |_| true));
        for (kind, _, _, payload) in messages(&batch.bytes) {
            for len in 0..payload.len() {
                table.clone().take(kind, &payload[..len]);
                let _ = read::subject(kind, &payload[..len]);
            }
            for at in 0..payload.len() {
                let mut changed = payload.to_vec();
                changed[at] ^= 0xff;
                table.clone().take(kind, &changed);
            }
        }
    }
}
