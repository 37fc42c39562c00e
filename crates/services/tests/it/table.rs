//! The table: every kind of address from every place, in both modes, over real packets; what is
//! expected is what `explain` says.

use std::net::IpAddr;

use model::config::{LocalDetection, NodePortAddresses, ServicesMode};

use crate::cases::{self, Case, PORT, Place};
use crate::lab::{BALANCER, Lab, MODES};
use crate::oracle::{Expect, expect};
use crate::probe::{self, Outcome, Probe, SILENCE};
use crate::station::ip;

/// A connection and what shall come of it.
struct Row {
    case: String,
    kind: &'static str,
    probe: Probe,
    expect: Expect,
}

impl Row {
    fn words(&self, from: Place) -> String {
        let protocol = if self.probe.tcp { "TCP" } else { "UDP" };
        let (kind, to, case) = (self.kind, self.probe.to, &self.case);
        format!(
            "{protocol} from {} to {kind} {to} of [{case}]",
            from.words()
        )
    }
}

/// The addresses of a Service.
fn frontends(lab: &Lab, case: &Case, v6: bool) -> Vec<(&'static str, IpAddr, u16)> {
    let mut frontends = vec![
        ("ClusterIP", case.cluster_ip(v6), PORT),
        ("an undefined port of ClusterIP", case.cluster_ip(v6), 81),
        ("externalIP", case.external_ip(v6), PORT),
        ("LoadBalancer IP", case.load_balancer(v6), PORT),
        ("NodePort at node 1", lab.nodes[0].ip(v6), case.node_port()),
        ("NodePort at node 2", lab.nodes[1].ip(v6), case.node_port()),
    ];
    if !v6 {
        let localhost = IpAddr::from([127, 0, 0, 1]);
        frontends.push(("NodePort at localhost", localhost, case.node_port()));
    }
    frontends
}

/// Addresses of no Service.
fn others(lab: &Lab, v6: bool) -> [(&'static str, IpAddr, u16); 3] {
    let unallocated = if v6 { "fd00:10:96::99:99" } else { "10.99.9.9" };
    [
        ("an unallocated ClusterIP", ip(unallocated), PORT),
        (
            "LoadBalancer IP with ipMode Proxy",
            ip(BALANCER[usize::from(v6)]),
            PORT,
        ),
        ("a port that is no NodePort", lab.nodes[0].ip(v6), 32000),
    ]
}

fn rows(lab: &Lab, cases: &[Case], from: Place) -> Vec<Row> {
    let mut rows = Vec::new();
    for v6 in [false, true] {
        let of_cases = cases.iter().flat_map(|case| {
            let frontends = frontends(lab, case, v6).into_iter();
            frontends.map(|frontend| (case.words.clone(), frontend))
        });
        let of_none = others(lab, v6).map(|frontend| (String::new(), frontend));
        for (case, (kind, ip, port)) in of_cases.chain(of_none) {
            // Another host's own address is nobody's to send to.
            if ip.is_loopback() && !matches!(from, Place::Node(_)) {
                continue;
            }
            for mut probe in [Probe::tcp(ip, port), Probe::udp(ip, port)] {
                let expect = expect(lab, from, &probe);
                if matches!(expect, Expect::Silence | Expect::AroundTheNode(_)) {
                    probe.patience = SILENCE;
                }
                rows.push(Row {
                    case: case.clone(),
                    kind,
                    probe,
                    expect,
                });
            }
        }
    }
    rows
}

/// Tries every row from every place; what was not as expected, in words.
fn check(lab: &Lab, cases: &[Case]) -> (usize, Vec<String>) {
    let checked: Vec<(usize, Vec<String>)> = std::thread::scope(|scope| {
        let places = Place::ALL.map(|from| {
            scope.spawn(move || {
                let rows = rows(lab, cases, from);
                (rows.len(), check_from(lab, &rows, from))
            })
        });
        let places = places.into_iter();
        places.map(|place| place.join().unwrap()).collect()
    });
    let rows = checked.iter().map(|(rows, _)| rows).sum();
    (
        rows,
        checked.into_iter().flat_map(|(_, wrong)| wrong).collect(),
    )
}

fn check_from(lab: &Lab, rows: &[Row], from: Place) -> Vec<String> {
    let probes: Vec<Probe> = rows.iter().map(|row| row.probe).collect();
    let netns = from.netns(lab);
    let mut wrong = Vec::new();
    for (row, mut outcome) in rows.iter().zip(probe::all(netns, &probes)) {
        // On a busy machine an answer may be late: asked again alone, it must come each time.
        if outcome == Outcome::Silence && !row.expect.holds(&outcome) {
            for _ in 0..3 {
                outcome = probe::one(netns, row.probe);
                if !row.expect.holds(&outcome) {
                    break;
                }
            }
        }
        if !row.expect.holds(&outcome) {
            wrong.push(format!(
                "{}: expected {}, got {outcome}",
                row.words(from),
                row.expect
            ));
        }
    }
    wrong
}

fn assert_table(lab: &Lab, cases: &[Case], settings: &str) {
    let start = std::time::Instant::now();
    let (rows, wrong) = check(lab, cases);
    println!("{settings}: {rows} rows in {:?}", start.elapsed());
    assert!(
        wrong.is_empty(),
        "{settings}: {} of {rows} rows are wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}

fn table(mode: ServicesMode) {
    let mut lab = Lab::new(mode);
    let cases = cases::all();
    for case in &cases {
        case.put(&mut lab);
    }
    lab.settle();
    assert_table(&lab, &cases, &format!("{mode:?}"));
}

/// The settings that change the table, on fewer Services.
fn settings(mode: ServicesMode) {
    let mut lab = Lab::new(mode);
    let cases = cases::few();
    for case in &cases {
        case.put(&mut lab);
    }
    type Set = fn(&mut model::config::ServicesConfig);
    let settings: [(&str, Set); 6] = [
        ("masqueradeAll", |config| config.masquerade_all = true),
        ("pods by the node's range", |config| {
            config.local_detection = LocalDetection::NodeCidr;
        }),
        ("pods by their links' names", |config| {
            config.local_detection = LocalDetection::InterfaceNamePrefix("fn-".into());
        }),
        ("node ports at the primary addresses", |config| {
            config.node_port_addresses = NodePortAddresses::Primary;
        }),
        ("node ports in a range", |config| {
            let ranges = ["10.0.1.16/28", "fd00:10:0:1::2/128"];
            let ranges = ranges.map(|range| range.parse().unwrap());
            config.node_port_addresses = NodePortAddresses::Ranges(ranges.into());
        }),
        ("no node ports at localhost", |config| {
            config.localhost_node_ports = false;
        }),
    ];
    let plain = lab.config.clone();
    for (words, set) in settings {
        lab.config = plain.clone();
        set(&mut lab.config.services);
        lab.settle();
        assert_table(&lab, &cases, &format!("{mode:?}, {words}"));
    }
}

#[test]
#[ignore = "the backends are not here yet"]
fn every_kind_from_every_place_over_nftables() {
    if testing::root("every_kind_from_every_place_over_nftables") {
        table(MODES[0]);
    }
}

#[test]
#[ignore = "the backends are not here yet"]
fn every_kind_from_every_place_over_iptables() {
    if testing::root("every_kind_from_every_place_over_iptables") {
        table(MODES[1]);
    }
}

#[test]
#[ignore = "the backends are not here yet"]
fn settings_over_nftables() {
    if testing::root("settings_over_nftables") {
        settings(MODES[0]);
    }
}

#[test]
#[ignore = "the backends are not here yet"]
fn settings_over_iptables() {
    if testing::root("settings_over_iptables") {
        settings(MODES[1]);
    }
}
