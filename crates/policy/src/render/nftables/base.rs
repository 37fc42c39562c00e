//! What is there whatever the policies say, as long as they are about any pod here.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use nft::{
    Base, Chain, ChainKind, Compiled, CtField, CtState, Direction, ElementKey, Family, Hook,
    IpFamily, Key, Limit, Log, Policy, Rule, Set, SetData, Statement, Type, Value, Verdict,
};

use super::{LOG_GROUP, TABLE};

/// The set that holds the generation.
pub(super) const GENERATION: &str = "generation";
/// The chain that marks a connection.
pub(super) const JUDGED: &str = "judged";
const LOOSE: &str = "loose";
/// The chain of questions for names to the node's own server.
const ASK: &str = "ask";
const MIDSTREAM: &str = "midstream";

/// The bits of a connection's mark that hold the generation; the others are Services'.
const GENERATION_BITS: u32 = 0xffff_ff00;
/// The generation's set has one element. That its size is declared makes the kernel look it up in
/// the fastest way, and every packet does.
const GENERATION_ROOM: u32 = 16;
/// Denials told of in a second, and at once.
const TOLD: u32 = 100;
/// Bytes of a denied packet that are told: all headers, also those that an ICMP error quotes.
const SNAPLEN: u32 = 160;
/// The addresses that a link gives itself: no policy is about them, so pods have only the
/// discovery of neighbours from them.
const LINK_LOCAL: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
    Ipv6Addr::new(0xfebf, !0, !0, !0, !0, !0, !0, !0),
];
/// The bridge whose ports pods are, in that mode.
const BRIDGE: &str = "cni0";
/// Router solicitation to redirect.
const NEIGHBOUR_DISCOVERY: (u8, u8) = (133, 137);
const FILTER: i32 = 0;

/// A direction by its name in this table.
pub(super) fn word(direction: model::Direction) -> &'static str {
    direction.word()
}

/// The map from a pod's address to its list.
pub(super) fn map(direction: model::Direction, v6: bool) -> String {
    format!("{}{}", word(direction), digit(v6))
}

/// The addresses of pods that any policy is about, each twice: so the one set can tell whether a
/// field is one of them, and whether two fields are the same one of them.
pub(super) fn subjects(v6: bool) -> String {
    format!("subjects{}", digit(v6))
}

/// Where the node's own server answers: its addresses with protocol and port.
pub(super) fn resolver(v6: bool) -> String {
    format!("resolver{}", digit(v6))
}

/// Pods that may not ask it, by address and protocol.
pub(super) fn mute(v6: bool) -> String {
    format!("mute{}", digit(v6))
}

/// The chain in which denied connections end.
pub fn denied(direction: model::Direction) -> String {
    format!("denied-{}", word(direction))
}

/// Who opened the connection.
pub(super) fn client(v6: bool) -> Key {
    Key::Ct(Direction::Original, CtField::Saddr(family(v6)))
}

/// To whom, after translation.
pub(super) fn server(v6: bool) -> Key {
    Key::Ct(Direction::Reply, CtField::Saddr(family(v6)))
}

fn digit(v6: bool) -> char {
    if v6 { '6' } else { '4' }
}

fn family(v6: bool) -> IpFamily {
    if v6 { IpFamily::V6 } else { IpFamily::V4 }
}

/// The type of an address.
pub(super) fn ip_type(v6: bool) -> Type {
    if v6 { Type::Ipv6 } else { Type::Ipv4 }
}

/// The generation as it stands in marks.
pub(super) fn mark(generation: u32) -> u32 {
    generation << 8
}

/// The generation that a table holds; none where it does not hold one.
pub fn generation(have: &Compiled) -> Option<u32> {
    let elements = &have.sets.get(GENERATION)?.elements;
    let [key]: [&ElementKey; 1] = elements.keys().collect::<Vec<_>>().try_into().ok()?;
    let mark = u32::from_ne_bytes(key.key.as_slice().try_into().ok()?);
    Some(mark >> 8).filter(|generation| *generation != 0)
}

/// The same table in another generation.
pub(super) fn set_generation(table: &mut Compiled, generation: u32) {
    let set = current(generation).compile();
    table.sets.insert(GENERATION.to_owned(), set);
    let chain = regular(vec![judged(generation)]).compile(Family::Inet);
    table.chains.insert(JUDGED.to_owned(), chain);
}

fn current(generation: u32) -> Set {
    let mut set = Set {
        size: Some(GENERATION_ROOM),
        ..Set::of([Type::Mark])
    };
    set.add([Value::Mark(mark(generation))]);
    set
}

/// The sets, without elements but the generation.
pub(super) fn sets(generation: u32) -> BTreeMap<String, Set> {
    let mut sets = BTreeMap::from([(GENERATION.to_owned(), current(generation))]);
    for v6 in [false, true] {
        let ip = ip_type(v6);
        sets.insert(subjects(v6), Set::of([ip, ip]));
        sets.insert(resolver(v6), Set::of([ip, Type::Proto, Type::Port]));
        sets.insert(mute(v6), Set::of([ip, Type::Proto]));
        for direction in model::Direction::ALL {
            sets.insert(map(direction, v6), Set::map([ip], SetData::Verdict));
        }
    }
    sets
}

/// The chains.
pub(super) fn chains(generation: u32) -> BTreeMap<String, Chain> {
    let mut chains = BTreeMap::from([
        (
            "forward".to_owned(),
            hook(Hook::Forward, by_family("forward")),
        ),
        ("input".to_owned(), hook(Hook::Input, by_family("input"))),
        (LOOSE.to_owned(), regular(loose())),
        (MIDSTREAM.to_owned(), regular(midstream())),
        (JUDGED.to_owned(), regular(vec![judged(generation)])),
    ]);
    for v6 in [false, true] {
        chains.insert(format!("forward{}", digit(v6)), regular(forward(v6)));
        chains.insert(format!("input{}", digit(v6)), regular(input(v6)));
        chains.insert(format!("{ASK}{}", digit(v6)), regular(ask(v6)));
    }
    for direction in model::Direction::ALL {
        let [tell, drop] = deny(direction);
        chains.insert(denied(direction), regular(vec![tell, drop]));
    }
    chains
}

fn hook(hook: Hook, rules: Vec<Rule>) -> Chain {
    let base = Some(Base {
        kind: ChainKind::Filter,
        hook,
        priority: FILTER,
        policy: Policy::Accept,
    });
    Chain { base, rules }
}

fn regular(rules: Vec<Rule>) -> Chain {
    Chain { base: None, rules }
}

fn to(verdict: Verdict) -> Statement {
    Statement::Verdict(verdict)
}

fn goto(chain: &str) -> Statement {
    to(Verdict::Goto(chain.to_owned()))
}

fn jump(chain: &str) -> Statement {
    to(Verdict::Jump(chain.to_owned()))
}

fn in_set(keys: [Key; 2], set: String) -> Statement {
    Statement::InSet {
        keys: keys.into(),
        negate: false,
        set,
    }
}

/// The only rule that a packet of a judged connection meets.
fn known() -> Rule {
    let known = Statement::InSet {
        keys: vec![Key::CtMarkBits(GENERATION_BITS)],
        negate: false,
        set: GENERATION.to_owned(),
    };
    Rule::new([known, to(Verdict::Accept)]).comment("judged under the rules in force")
}

fn lookup(direction: model::Direction, v6: bool) -> Rule {
    let key = match direction {
        model::Direction::Egress => client(v6),
        model::Direction::Ingress => server(v6),
    };
    Rule::new([Statement::VerdictMap {
        keys: vec![key],
        map: map(direction, v6),
    }])
}

/// Whoever has an address is asked for by packets that belong to no connection.
fn neighbours() -> [Statement; 2] {
    let (first, last) = NEIGHBOUR_DISCOVERY;
    let neighbours = Statement::InRange {
        key: Key::Icmpv6Type,
        negate: false,
        first: Value::Icmpv6Type(first),
        last: Value::Icmpv6Type(last),
    };
    [neighbours, to(Verdict::Accept)]
}

/// What is judged goes to the chain of its family, so that it meets no rule about the other.
fn by_family(hook: &str) -> Vec<Rule> {
    let v4 = Statement::is(Key::NfProto, Value::Family(IpFamily::V4));
    vec![
        known(),
        Rule::new([v4, goto(&format!("{hook}4"))]),
        Rule::new([goto(&format!("{hook}6"))]),
    ]
}

/// From pods and to pods. Only a bridge passes the discovery of neighbours on: what is routed and
/// looks like it is something else.
fn forward(v6: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    if v6 {
        let [neighbours, accept] = neighbours();
        rules.push(Rule::new([from_link(BRIDGE), neighbours, accept]));
    }
    rules.extend(check(v6));
    let same = in_set([client(v6), server(v6)], subjects(v6));
    rules.push(Rule::new([same, goto(JUDGED)]).comment("a pod to itself"));
    rules.push(lookup(model::Direction::Egress, v6));
    rules.push(lookup(model::Direction::Ingress, v6));
    rules.push(Rule::new([goto(JUDGED)]));
    rules
}

/// From pods to their node. What the node itself opens to its pods was opened by the node's
/// address, which is no pod's: nothing is asked about it.
fn input(v6: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    if v6 {
        rules.push(Rule::new(neighbours()));
    }
    rules.extend(arounds(v6));
    rules.push(asked(v6));
    rules.extend(connections());
    rules.push(lookup(model::Direction::Egress, v6));
    rules.push(Rule::new([goto(JUDGED)]));
    rules
}

/// A question for a name to this node's own server belongs to no connection: kept from tracking
/// it is judged by who asks. Nobody else's packets to such an address come to this hook untracked.
fn asked(v6: bool) -> Rule {
    let to_resolver = Statement::InSet {
        keys: vec![Key::Daddr(family(v6)), Key::L4Proto, Key::ThDport],
        negate: false,
        set: resolver(v6),
    };
    let untracked = Statement::CtState(vec![CtState::Untracked]);
    let ask = goto(&format!("{ASK}{}", digit(v6)));
    Rule::new([untracked, to_resolver, ask]).comment("names, of this node's own server")
}

fn ask(v6: bool) -> Vec<Rule> {
    let mute = Statement::InSet {
        keys: vec![Key::Saddr(family(v6)), Key::L4Proto],
        negate: false,
        set: mute(v6),
    };
    vec![
        borrowed(),
        Rule::new([mute, goto(&denied(model::Direction::Egress))]),
        Rule::new([to(Verdict::Accept)]),
    ]
}

/// What no policy is asked about.
fn check(v6: bool) -> Vec<Rule> {
    [arounds(v6), connections()].concat()
}

fn arounds(v6: bool) -> Vec<Rule> {
    match v6 {
        true => vec![around(&from_pod()), around(&[from_link(BRIDGE)])],
        false => Vec::new(),
    }
}

fn connections() -> Vec<Rule> {
    let none = Statement::CtState(vec![CtState::Invalid, CtState::Untracked]);
    let new = Statement::CtState(vec![CtState::New]);
    vec![
        Rule::new([none, goto(LOOSE)]),
        // Whose connection that is, and who opened it, is forgotten: it would be taken for one of
        // the other direction.
        Rule::new([new, Statement::TcpNotSyn, jump(MIDSTREAM)]),
        borrowed(),
    ]
}

fn borrowed() -> Rule {
    let [pod, not_tunnel] = from_pod();
    Rule::new([pod, not_tunnel, Statement::NoWayBack, to(Verdict::Drop)])
        .comment("a pod has no addresses but its own")
}

fn from_pod() -> [Statement; 2] {
    [
        from_link("fn-*"),
        Statement::is_not(Key::IifName, Value::Name("fn-vxlan*".to_owned())),
    ]
}

fn from_link(name: &str) -> Statement {
    Statement::is(Key::IifName, Value::Name(name.to_owned()))
}

/// By which links the link's own addresses lead nowhere.
fn around(from: &[Statement]) -> Rule {
    let [first, last] = LINK_LOCAL;
    let of_the_link = Statement::InRange {
        key: Key::Saddr(IpFamily::V6),
        negate: false,
        first: Value::V6(first),
        last: Value::V6(last),
    };
    let rule = [from, &[of_the_link, to(Verdict::Drop)]].concat();
    Rule::new(rule).comment("no way around by the link's addresses")
}

/// Packets that belong to no connection: nobody can tell whether they are allowed.
fn loose() -> Vec<Rule> {
    let mut rules = Vec::new();
    for v6 in [false, true] {
        let family = family(v6);
        for key in [Key::Saddr(family), Key::Daddr(family)] {
            let subject = in_set([key.clone(), key], subjects(v6));
            rules.push(Rule::new([subject, to(Verdict::Drop)]));
        }
    }
    rules.push(Rule::new([to(Verdict::Accept)]));
    rules
}

fn midstream() -> Vec<Rule> {
    let mut rules = Vec::new();
    for v6 in [false, true] {
        for key in [client(v6), server(v6)] {
            let subject = in_set([key.clone(), key], subjects(v6));
            rules.push(Rule::new([subject, to(Verdict::Drop)]));
        }
    }
    rules
}

/// No verdict: the packet goes on at the end. So the kernel need not look at the other rules when
/// this one changes.
pub(super) fn judged(generation: u32) -> Rule {
    Rule::new([Statement::SetCtMark {
        keep: !GENERATION_BITS,
        bits: mark(generation),
    }])
}

fn deny(direction: model::Direction) -> [Rule; 2] {
    let limit = Statement::Limit(Limit {
        rate: TOLD.into(),
        burst: TOLD,
    });
    let log = Statement::Log(Log {
        prefix: format!("{TABLE} {}", word(direction)),
        group: LOG_GROUP,
        snaplen: SNAPLEN,
    });
    // All are counted: how many are not told is known.
    [
        Rule::new([limit, log]),
        Rule::new([Statement::Counter, to(Verdict::Drop)]),
    ]
}
