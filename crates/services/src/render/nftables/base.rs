//! What is there whatever Services there are: the way in, the way out, and the node's own guard.

use ipnet::{IpNet, Ipv4Net};
use nft::{
    Base, Chain, ChainKind, CtState, Hook, IpFamily, Key, Policy, Reject, Rule, Statement, Value,
    Verdict,
};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::set::{By, Kind};
use crate::plan::{Local, Settings};

pub(super) const REJECT: &str = "services-reject";
pub(super) const DISPATCH: &str = "services-dispatch";
/// The chain that guards 127.0.0.0/8; there exactly while `route_localnet` is on for Services.
pub(crate) const GUARD: &str = "services-loopback";

/// The verdict.
pub(super) const DROP: Statement = Statement::Verdict(Verdict::Drop);

const PROTO_TCP: u8 = 6;
const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;
const FILTER: i32 = 0;

/// The chains.
pub(super) fn chains(settings: &Settings) -> BTreeMap<String, Chain> {
    let mut chains = vec![
        ("services-prerouting", prerouting(settings)),
        (
            "services-output",
            nat(Hook::Output, DSTNAT, vec![to_dispatch()]),
        ),
        ("services-postrouting", postrouting(settings)),
        (DISPATCH, regular(dispatch(settings))),
        (REJECT, regular(reject())),
    ];
    if settings.node_ports_on_loopback() {
        chains.push((GUARD, guard()));
    }
    let named = |(name, chain): (&str, Chain)| (name.to_owned(), chain);
    chains.into_iter().map(named).collect()
}

fn nat(hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    let base = Some(Base {
        kind: ChainKind::Nat,
        hook,
        priority,
        policy: Policy::Accept,
    });
    Chain { base, rules }
}

fn regular(rules: Vec<Rule>) -> Chain {
    Chain { base: None, rules }
}

fn to_dispatch() -> Rule {
    Rule::new([Statement::Verdict(Verdict::Jump(DISPATCH.to_owned()))])
}

fn loopback() -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8))
}

fn from_outside_to_loopback() -> [Statement; 2] {
    [
        Statement::is_not(Key::IifName, Value::Name("lo".to_owned())),
        Statement::is(Key::Daddr(IpFamily::V4), loopback()),
    ]
}

/// Node ports at 127.0.0.1 are for processes of this node: nobody else's packet to that address
/// is translated.
fn prerouting(settings: &Settings) -> Chain {
    let mut rules = Vec::new();
    if settings.node_ports_on_loopback() {
        let [outside, loopback] = from_outside_to_loopback();
        let rule = Rule::new([outside, loopback, DROP]);
        rules.push(rule.comment("127.0.0.1 is for this node's own processes"));
    }
    rules.push(to_dispatch());
    nat(Hook::Prerouting, DSTNAT, rules)
}

/// With `route_localnet` the kernel takes packets to 127.0.0.0/8 from anywhere, as it must for
/// the answers to node ports at 127.0.0.1, whose destination is that again behind the
/// translation. What is no answer is dropped before a socket gets it: a new connection in the nat
/// chain already, what connection tracking does not know here. Packets that are forwarded, pods'
/// for one, do not come by.
fn guard() -> Chain {
    let [outside, loopback] = from_outside_to_loopback();
    let accept = Statement::Verdict(Verdict::Accept);
    let base = Some(Base {
        kind: ChainKind::Filter,
        hook: Hook::Input,
        priority: FILTER,
        policy: Policy::Accept,
    });
    let rules = vec![
        Rule::new([
            loopback.clone(),
            outside.clone(),
            Statement::CtState(vec![CtState::Established, CtState::Related]),
            accept,
        ])
        .comment("answers to node ports at 127.0.0.1"),
        Rule::new([loopback, outside, DROP]).comment("127.0.0.1 is for this node's own processes"),
    ];
    Chain { base, rules }
}

fn dispatch(settings: &Settings) -> Vec<Rule> {
    let mut rules = Vec::new();
    for v6 in [false, true] {
        let daddr = Key::Daddr(family(v6));
        rules.push(Rule::new([Statement::VerdictMap {
            keys: vec![daddr, Key::L4Proto, Key::ThDport],
            map: Kind::Frontends(By::Address).of(v6).to_string(),
        }]));
    }
    for v6 in [false, true] {
        rules.extend(node_ports(settings, v6));
    }
    for v6 in [false, true] {
        let unknown = Rule::new([
            Statement::InSet {
                keys: vec![Key::Daddr(family(v6))],
                negate: false,
                set: Kind::ClusterIps.of(v6).to_string(),
            },
            Statement::Verdict(Verdict::Goto(REJECT.to_owned())),
        ]);
        rules.push(unknown.comment("the Service has no such port"));
    }
    for cidr in &settings.service_cidrs {
        let daddr = Key::Daddr(family(cidr.addr().is_ipv6()));
        let rule = Rule::new([within(daddr, *cidr), vec![DROP]].concat());
        rules.push(rule.comment("no Service has this address"));
    }
    rules
}

/// A rule for each range in which node ports are served, or one.
fn node_ports(settings: &Settings, v6: bool) -> Vec<Rule> {
    let daddr = Key::Daddr(family(v6));
    let not_loopback = if v6 {
        Some(Statement::is_not(
            daddr.clone(),
            Value::V6(Ipv6Addr::LOCALHOST),
        ))
    } else if settings.localhost_node_ports {
        None
    } else {
        Some(Statement::is_not(daddr.clone(), Value::Net(loopback())))
    };
    let look = [
        Statement::DaddrIsLocal,
        Statement::VerdictMap {
            keys: vec![Key::L4Proto, Key::ThDport],
            map: Kind::Frontends(By::NodePort).of(v6).to_string(),
        },
    ];
    let ranges = match settings.node_port_ranges(v6) {
        None => vec![Vec::new()],
        Some(ranges) => {
            let within = |range| within(daddr.clone(), range);
            ranges.into_iter().map(within).collect()
        }
    };
    let family = Statement::is(Key::NfProto, Value::Family(family(v6)));
    ranges
        .into_iter()
        .map(|mut tests: Vec<Statement>| {
            tests.insert(0, family.clone());
            tests.extend(not_loopback.clone());
            tests.extend(look.clone());
            Rule::new(tests)
        })
        .collect()
}

fn reject() -> Vec<Rule> {
    vec![
        Rule::new([
            Statement::is(Key::L4Proto, Value::Proto(PROTO_TCP)),
            Statement::Reject(Reject::TcpReset),
        ]),
        Rule::new([Statement::Reject(Reject::PortUnreachable)]),
    ]
}

fn postrouting(settings: &Settings) -> Chain {
    let mark = settings.masquerade_mark;
    let masquerade = Statement::Masquerade { fully_random: true };
    let marked = Rule::new([
        Statement::MatchBits {
            key: Key::Mark,
            mask: mark,
            value: mark,
        },
        Statement::ClearMarkBits(mark),
        masquerade.clone(),
    ]);
    let mut rules = vec![marked.comment("as asked for on the way in")];
    for v6 in [false, true] {
        let itself = Rule::new([
            Statement::CtDnat,
            Statement::InSet {
                keys: vec![Key::Saddr(family(v6)), Key::Daddr(family(v6))],
                negate: false,
                set: Kind::Hairpin.of(v6).to_string(),
            },
            masquerade.clone(),
        ]);
        rules.push(itself.comment("an endpoint that its own Service leads to itself"));
    }
    nat(Hook::Postrouting, SRCNAT, rules)
}

fn family(v6: bool) -> IpFamily {
    if v6 { IpFamily::V6 } else { IpFamily::V4 }
}

/// The test that an address is in a range; none where the range is everything.
pub(super) fn within(key: Key, range: IpNet) -> Vec<Statement> {
    if range.prefix_len() == 0 {
        return Vec::new();
    }
    vec![Statement::is(key, Value::from(range))]
}

/// The tests that a packet is a pod's: each by itself is enough.
pub(super) fn a_pod(pods: &Local, v6: bool) -> impl Iterator<Item = Vec<Statement>> {
    let tests = match pods {
        Local::Link(name) => vec![vec![Statement::is(Key::IifName, Value::Name(name.clone()))]],
        Local::Sources(ranges) => ranges
            .iter()
            .filter(|range| range.addr().is_ipv6() == v6)
            .map(|range| within(Key::Saddr(family(v6)), *range))
            .collect(),
    };
    tests.into_iter()
}

/// The tests that it is not, all of which must hold; none where a pod cannot be told.
pub(super) fn not_a_pod(pods: &Local, v6: bool) -> Option<Vec<Statement>> {
    let mut tests = Vec::new();
    for pod in a_pod(pods, v6) {
        match pod.as_slice() {
            [Statement::Match { key, value, .. }] => {
                tests.push(Statement::is_not(key.clone(), value.clone()));
            }
            // Everything is a pod's.
            _ => return None,
        }
    }
    (!tests.is_empty()).then_some(tests)
}
