//! The rules, read as the kernel reads them, against `explain`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use model::Protocol;
use nft::eval::{Fate, Nat, Packet};
use nft::{Compiled, Reject};
use proptest::prelude::*;
use services::explain::{Origin, Question, Verdict, explain};
use services::plan::Plan;
use services::render::nftables::table;

use crate::build::ip;
use crate::worlds::{World, link, questions, world};

const OWN: [&str; 4] = ["10.0.1.10", "127.0.0.1", "fd00:10:0:1::10", "::1"];

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// To this endpoint, from the node's address or its own.
    To(SocketAddr, bool),
    Untouched,
    Reset,
    Unreachable,
    Dropped,
}

/// What `explain` says, with the probability of each end.
fn expected(plan: &Plan, question: &Question) -> BTreeMap<End, f64> {
    let end = match explain(plan, question).verdict {
        Verdict::Forward { to, masquerade } => {
            let ends = to.into_iter().map(|(backend, probability)| {
                let masquerade = masquerade.is_some() || question.is_hairpin(&backend);
                let to = SocketAddr::new(backend.ip, backend.port);
                (End::To(to, masquerade), probability)
            });
            return ends.collect();
        }
        Verdict::NotAService => End::Untouched,
        Verdict::Reject(_) if question.protocol == Protocol::Tcp => End::Reset,
        Verdict::Reject(_) => End::Unreachable,
        Verdict::Drop(_) => End::Dropped,
    };
    BTreeMap::from([(end, 1.0)])
}

/// What the rules do with the first packet, where the kernel draws `random`.
fn end(rules: &Compiled, question: &Question, link: &str, random: u32) -> End {
    let own = OWN.map(ip);
    let packet = Packet {
        iif: link.to_owned(),
        from_local: own.contains(&question.source),
        to_local: question.to_this_node,
        random,
        ..Packet::new(
            question.source,
            question.destination,
            question.protocol.number(),
            40000,
            question.port,
        )
    };
    let hook = match question.origin {
        Origin::Node => "services-output",
        Origin::Pod | Origin::Elsewhere => "services-prerouting",
    };
    let outcome = rules.eval(hook, &packet).unwrap();
    let to = match (outcome.fate, outcome.nat) {
        (Fate::Rejected(Reject::TcpReset), None) => return End::Reset,
        (Fate::Rejected(Reject::PortUnreachable), None) => return End::Unreachable,
        (Fate::Dropped, None) => return End::Dropped,
        (Fate::Accepted, None) => None,
        (Fate::Accepted, Some(Nat::Destination(ip, Some(port)))) => Some((ip, port)),
        other => panic!("{other:?}"),
    };
    let leaving = Packet {
        dst: to.map_or(packet.dst, |(ip, _)| ip),
        dport: to.map_or(packet.dport, |(_, port)| port),
        dnat: to.is_some(),
        mark: outcome.mark,
        ..packet
    };
    let outcome = rules.eval("services-postrouting", &leaving).unwrap();
    assert_eq!((outcome.fate, outcome.mark), (Fate::Accepted, 0));
    match (to, outcome.nat) {
        (Some((ip, port)), None) => End::To((ip, port).into(), false),
        (Some((ip, port)), Some(Nat::Masquerade)) => End::To((ip, port).into(), true),
        (None, None) => End::Untouched,
        other => panic!("{other:?}"),
    }
}

/// What the rules do, with probabilities: each of `count` equal parts of all numbers.
fn ends(rules: &Compiled, question: &Question, link: &str, count: u32) -> BTreeMap<End, f64> {
    let mut ends = BTreeMap::new();
    for part in 0..u64::from(count) {
        let middle = ((2 * part + 1) << 31) / u64::from(count);
        let end = end(rules, question, link, u32::try_from(middle).unwrap());
        *ends.entry(end).or_default() += 1.0 / f64::from(count);
    }
    ends
}

fn same(a: &BTreeMap<End, f64>, b: &BTreeMap<End, f64>) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|((end, p), (other, q))| end == other && (p - q).abs() < 1e-6)
}

pub fn check(world: &World, rules: &Compiled) -> Result<(), TestCaseError> {
    let plan = world.plan();
    for question in questions(&world.cluster) {
        let expected = expected(&plan, &question);
        let link = link(world, &question);
        let count = u32::try_from(expected.len()).unwrap();
        let ends = ends(rules, &question, &link, count);
        prop_assert!(
            same(&ends, &expected),
            "{question:?}\nrules:    {ends:?}\nexpected: {expected:?}\n{:?}",
            explain(&plan, &question),
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Every connection that can be asked about in a generated cluster.
    #[test]
    fn rules_do_what_explain_says(world in world()) {
        check(&world, &table(&world.plan()).compile())?;
    }
}
