//! A list as a chain.

use std::collections::BTreeMap;

use model::Direction;
use nft::{
    Chain, CtField, Key, MapDatum, Rule, Set as NftSet, SetData, Statement, Type, Value, Verdict,
};

use super::base::{client, denied, server, word};
use super::set::name as set_name;
use crate::plan::{List, Match, PortRange, PortTest, Ports, Rule as ListRule, Set, Target};

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

/// A list in the kernel: its chain, and where it is long, a map from ports to chains with the rules
/// about them.
pub(super) struct Rendered {
    pub chains: Vec<(String, Chain)>,
    pub map: Option<(String, NftSet)>,
}

/// Rules about single ports that are worth a map.
const MANY: usize = 8;

type ByPort<'a> = BTreeMap<(u8, u16), Vec<&'a Match>>;

/// Its chains.
pub(super) fn rendered(list: &List) -> Rendered {
    let name = name(list);
    let (others, by_port) = by_port(list);
    let mut rules = Vec::new();
    for rule in others {
        let target = verdict(list, &rule.target);
        for mut tests in tests(list, &rule.matches) {
            tests.push(target.clone());
            rules.push(Rule::new(tests));
        }
    }
    let end = (list.end != Target::Allowed).then(|| Rule::new([verdict(list, &list.end)]));
    let mut chains = Vec::new();
    let mut map = None;
    if !by_port.is_empty() {
        let mut ports = NftSet::map([Type::Proto, Type::Port], SetData::Verdict);
        for ((number, one), matches) in by_port {
            let of_port = format!("{name}-{number}-{one}");
            let keys = [Value::Proto(number), Value::Port(one)];
            ports.put(keys, MapDatum::Verdict(Verdict::Goto(of_port.clone())));
            let rules = matches.into_iter().map(|matches| {
                let mut tests: Vec<_> = peer(list, matches).into_iter().collect();
                tests.push(verdict(list, &Target::Allowed));
                Rule::new(tests)
            });
            let rules = rules.chain(end.clone()).collect();
            chains.push((of_port, Chain { base: None, rules }));
        }
        let of_ports = format!("{name}-ports");
        rules.push(Rule::new([Statement::VerdictMap {
            keys: vec![protocol(), port()],
            map: of_ports.clone(),
        }]));
        map = Some((of_ports, ports));
    }
    rules.extend(end);
    chains.push((name, Chain { base: None, rules }));
    Rendered { chains, map }
}

/// Rules that stay in the list, and those about single ports among the last that allow: what
/// becomes of a connection that none of them matches is the list's end, so the map may come last,
/// and need not lead back.
fn by_port(list: &List) -> (Vec<&ListRule>, ByPort<'_>) {
    let allow = list.rules.iter().rev();
    let allow = allow.take_while(|rule| rule.target == Target::Allowed);
    let first = list.rules.len() - allow.count();
    let (mut others, mut by_port) = (Vec::new(), ByPort::new());
    let mut moved = 0;
    for (at, rule) in list.rules.iter().enumerate() {
        match &rule.matches.ports {
            PortTest::Numbers(ports)
                if at >= first && ports.ranges().iter().all(PortRange::is_single) =>
            {
                moved += 1;
                for range in ports.ranges() {
                    let key = (range.protocol.number(), range.from);
                    by_port.entry(key).or_default().push(&rule.matches);
                }
            }
            _ => others.push(rule),
        }
    }
    if moved <= MANY {
        return (list.rules.iter().collect(), ByPort::new());
    }
    (others, by_port)
}

fn verdict(list: &List, target: &Target) -> Statement {
    Statement::Verdict(match target {
        Target::Allowed => Verdict::Return,
        Target::Denied => Verdict::Goto(denied(list.direction)),
        Target::List(other) => Verdict::Goto(name(other)),
    })
}

/// The test of who it is with.
fn peer(list: &List, matches: &Match) -> Option<Statement> {
    matches.peer.as_ref().map(|set| {
        let key = match list.direction {
            Direction::Ingress => client(list.v6),
            Direction::Egress => server(list.v6),
        };
        match set.single() {
            Some(net) if net.prefix_len() == net.max_prefix_len() => Statement::is(key, net.addr()),
            Some(net) => Statement::is(key, net),
            None => in_set(vec![key], set),
        }
    })
}

/// The tests of a match: a rule each. Ports come first, for they cost least.
fn tests(list: &List, matches: &Match) -> Vec<Vec<Statement>> {
    let peer = peer(list, matches);
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
