//! The probes see what there is: drops that were set by hand, at either end and for one protocol.

use std::collections::BTreeMap;
use std::time::Instant;

use linux::{NetNs, Nftables};
use model::Protocol;
use nft::{
    Base, Chain, ChainKind, Family, Hook, IpFamily, Key, Policy, Rule, Statement, Table, Value,
    Verdict, diff,
};

use crate::lab::{self, Lab};
use crate::probe::{self, Place, Probe};

/// Drops what the tests match, where packets pass a node.
fn drop_on(netns: &NetNs, tests: Vec<Statement>) {
    let mut table = Table::new(Family::Inet, "by-hand");
    let mut statements = tests;
    statements.push(Statement::Verdict(Verdict::Drop));
    let base = Base {
        kind: ChainKind::Filter,
        hook: Hook::Forward,
        priority: 0,
        policy: Policy::Accept,
    };
    let chain = Chain {
        base: Some(base),
        rules: vec![Rule::new(statements)],
    };
    table.chains = BTreeMap::from([("forward".to_owned(), chain)]);
    let made = diff(None, &table.compile(), |_| true);
    Nftables::open_in(netns).unwrap().apply(&made).unwrap();
}

#[test]
fn probes_see_what_is_dropped_by_hand() {
    if !testing::root("probes_see_what_is_dropped_by_hand") {
        return;
    }
    let lab = Lab::new();
    let probes = probe::all(&lab);
    let everything = vec![true; probes.len()];
    let start = Instant::now();
    assert_eq!(probe::differences(&lab, &probes, &everything), [""; 0]);
    println!("{} probes: {:?}", probes.len(), start.elapsed());
    // Into a pod of node 1 over IPv4 by UDP; out of a pod of node 2 over IPv6 by TCP.
    let (server, client) = (lab::key("x/a"), lab::key("x/b"));
    let (at, from) = (lab.pod("x/a").ips[0], lab.pod("x/b").ips[1]);
    drop_on(
        &lab.nodes[0].station.netns,
        vec![
            Statement::is(Key::Daddr(IpFamily::V4), Value::from(at)),
            Statement::is(Key::UdpDport, Value::Port(80)),
        ],
    );
    drop_on(
        &lab.nodes[1].station.netns,
        vec![
            Statement::is(Key::Saddr(IpFamily::V6), Value::from(from)),
            Statement::is(Key::TcpDport, Value::Port(81)),
        ],
    );
    let dropped = |probe: &Probe| {
        let Probe { from, to, v6, port } = probe;
        let itself = from == to;
        let into = *to == Place::Pod(server.clone()) && *from != Place::Node(0) && !v6;
        let out_of = *from == Place::Pod(client.clone()) && *v6;
        !itself
            && (into && *port == Some((Protocol::Udp, 80))
                || out_of && *port == Some((Protocol::Tcp, 81)))
    };
    let expected: Vec<bool> = probes.iter().map(|probe| !dropped(probe)).collect();
    let start = Instant::now();
    assert_eq!(probe::differences(&lab, &probes, &expected), [""; 0]);
    println!("with drops: {:?}", start.elapsed());
    // Whoever expects something else hears of each difference.
    let wrong = probe::differences(&lab, &probes[..200], &everything[..200]);
    let count = probes[..200].iter().filter(|probe| dropped(probe)).count();
    assert_eq!(wrong.len(), count, "{wrong:#?}");
    let nothing = vec![false; 20];
    let wrong = probe::differences(&lab, &probes[..20], &nothing);
    assert_eq!(wrong.len(), 20, "{wrong:#?}");
}
