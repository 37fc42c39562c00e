//! A list as a chain.

use model::Direction;
use nft::{Chain, CtField, Key, Rule, Statement, Value, Verdict};

use super::base::{client, denied, server, word};
use super::set::name as set_name;
use crate::plan::{List, Match, PortRange, PortTest, Ports, Set, Target};

/// Its chain's name.
pub(super) fn name(list: &List) -> String {
    format!("{}-{:016x}", word(list.direction), list.id().0)
}

/// Whether a chain is one that verdicts of maps lead to, or one that these lead to.
pub(super) fn is_list(name: &str) -> bool {
    ["egress-", "ingress-", "denied-"]
        .iter()
        .any(|kind| name.starts_with(kind))
}

/// Where an address's connections go; none where nothing is asked about them.
pub(super) fn entry(direction: Direction, target: &Target) -> Option<Verdict> {
    match target {
        Target::Allowed => None,
        Target::Denied => Some(Verdict::Goto(denied(direction))),
        Target::List(list) => Some(Verdict::Jump(name(list))),
    }
}

/// Its chain.
pub(super) fn chain(list: &List) -> Chain {
    let mut rules = Vec::new();
    for rule in &list.rules {
        let target = verdict(list, &rule.target);
        for mut tests in tests(list, &rule.matches) {
            tests.push(target.clone());
            rules.push(Rule::new(tests));
        }
    }
    if list.end != Target::Allowed {
        rules.push(Rule::new([verdict(list, &list.end)]));
    }
    Chain { base: None, rules }
}

fn verdict(list: &List, target: &Target) -> Statement {
    Statement::Verdict(match target {
        Target::Allowed => Verdict::Return,
        Target::Denied => Verdict::Goto(denied(list.direction)),
        Target::List(other) => Verdict::Goto(name(other)),
    })
}

/// The tests of a match: a rule each. Ports come first, for they cost least.
fn tests(list: &List, matches: &Match) -> Vec<Vec<Statement>> {
    let peer = matches.peer.as_ref().map(|set| {
        let key = match list.direction {
            Direction::Ingress => client(list.v6),
            Direction::Egress => server(list.v6),
        };
        match set.single() {
            Some(net) if net.prefix_len() == net.max_prefix_len() => Statement::is(key, net.addr()),
            Some(net) => Statement::is(key, net),
            None => in_set(vec![key], set),
        }
    });
    let mut all = match &matches.ports {
        PortTest::All => vec![Vec::new()],
        PortTest::Numbers(ports) => numbers(ports),
        PortTest::Named(set) => {
            let keys = vec![server(list.v6), protocol(), port()];
            vec![vec![in_set(keys, set)]]
        }
    };
    for tests in &mut all {
        tests.extend(peer.clone());
    }
    all
}

fn protocol() -> Key {
    Key::CtProtocol
}

/// That of whoever is connected to, after translation.
fn port() -> Key {
    Key::Ct(nft::Direction::Reply, CtField::ProtoSrc)
}

fn in_set(keys: Vec<Key>, set: &Set) -> Statement {
    Statement::InSet {
        keys,
        negate: false,
        set: set_name(set),
    }
}

fn numbers(ports: &Ports) -> Vec<Vec<Statement>> {
    let singles = ports.singles();
    let together = singles.is_some();
    let mut all = Vec::new();
    if let Some(singles) = singles {
        let set = Set::ports(singles);
        all.push(vec![in_set(vec![protocol(), port()], &set)]);
    }
    let others = ports.ranges().iter();
    let others = others.filter(|range| !(together && range.is_single()));
    all.extend(others.map(of_range));
    all
}

/// The port comes first: nearly all have one protocol, and few the port. So most connections leave
/// the rule after half of its tests.
fn of_range(range: &PortRange) -> Vec<Statement> {
    let mut tests = Vec::new();
    if range.is_single() {
        tests.push(Statement::is(port(), Value::Port(range.from)));
    } else if !range.is_all() {
        tests.push(Statement::InRange {
            key: port(),
            negate: false,
            first: Value::Port(range.from),
            last: Value::Port(range.to),
        });
    }
    tests.push(Statement::is(
        protocol(),
        Value::Proto(range.protocol.number()),
    ));
    tests
}
