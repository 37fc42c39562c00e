//! The table: every kind of address from every place, in both modes, over real packets; what is
//! expected is what `explain` says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use linux::Kernel;
use linux::conntrack::FlowFilter;
use model::config::{LocalDetection, NodePortAddresses, ServicesMode};

use crate::cases::{self, Case, PORT, Place};
use crate::lab::{BALANCER, Lab, MODES};
use crate::oracle::{Expect, expect};
use crate::probe::{self, Outcome, PATIENCE, Probe, SILENCE};
use crate::station::ip;

/// With more than so many late answers of one place, something is wrong with them.
const MOST_LATE: usize = 10;

/// Of a Service's range, and of no Service.
const UNCLAIMED: [&str; 2] = ["an undefined port of ClusterIP", "an unallocated ClusterIP"];

/// A connection and what shall come of it.
struct Row {
    case: String,
    kind: &'static str,
    probe: Probe,
    expect: Expect,
}

impl Row {
    /// What rows that fail alike have in common.
    fn group(&self, from: Place, outcome: &Outcome) -> String {
        let protocol = if self.probe.tcp { "TCP" } else { "UDP" };
        let family = if self.probe.to.is_ipv4() {
            "IPv4"
        } else {
            "IPv6"
        };
        let expected = self.expect.kind();
        let got = match outcome {
            Outcome::Answer(_) => "an answer".to_owned(),
            outcome => outcome.to_string(),
        };
        let (kind, from) = (self.kind, from.words());
        format!("{family} {protocol} from {from} to {kind}: {expected} expected, {got} got")
    }

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
        (UNCLAIMED[0], case.cluster_ip(v6), 81),
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
        (UNCLAIMED[1], ip(unallocated), PORT),
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
            // Own addresses: of every host, and of the host outside.
            let own = match from {
                Place::Node(_) => false,
                Place::Client => ip.is_loopback() || BALANCER.contains(&ip.to_string().as_str()),
                Place::Pod(_) => ip.is_loopback(),
            };
            if own {
                continue;
            }
            for mut probe in [Probe::tcp(ip, port), Probe::udp(ip, port)] {
                let expect = expect(lab, from, &probe);
                if has_no_rule(lab, from, kind, &expect) {
                    continue;
                }
                probe.patience = patience(lab, &probe, &expect);
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

/// Whether kube-proxy's chains of iptables, and so ours, have no rule for it, or another one.
fn has_no_rule(lab: &Lab, from: Place, kind: &str, expect: &Expect) -> bool {
    let settings = &lab.config.services;
    let refused = *expect == Expect::Refused;
    // What has no endpoints is not refused on its way out of a node.
    let outside = ["externalIP", "LoadBalancer IP"].contains(&kind) && from == Place::Node(0);
    // What has none on this node is dropped also where its node port is not served.
    let all = settings.node_port_addresses == NodePortAddresses::All;
    let node_port = kind.starts_with("NodePort") && !(all && settings.localhost_node_ports);
    settings.mode == ServicesMode::Iptables
        && (UNCLAIMED.contains(&kind) || (refused && (outside || node_port)))
}

/// How long silence is waited for.
fn patience(lab: &Lab, probe: &Probe, expect: &Expect) -> Duration {
    let iptables = lab.config.services.mode == ServicesMode::Iptables;
    match expect {
        Expect::Silence => SILENCE,
        // kube-proxy's rules answer TCP too by ICMP. Where that comes while the kernel is still in
        // the call that connects, as it does from a pod, TCP over IPv6 takes it for a passing
        // error, and takes it seriously when it comes for the second try, a second later.
        Expect::Refused if iptables && probe.tcp && probe.to.is_ipv6() => PATIENCE * 2,
        _ => PATIENCE,
    }
}

/// The rows that are not as expected, in words, by what they have in common.
type Wrong = BTreeMap<String, Vec<String>>;

/// Tries every row from every place; how many rows, and those that are wrong.
fn check(lab: &Lab, cases: &[Case]) -> (usize, Wrong) {
    std::thread::scope(|scope| {
        let places = Place::ALL.map(|from| {
            scope.spawn(move || {
                let rows = rows(lab, cases, from);
                (rows.len(), check_from(lab, rows, from))
            })
        });
        let (mut count, mut wrong) = (0, Wrong::new());
        for place in places {
            let (rows, found) = place.join().unwrap();
            count += rows;
            wrong.extend(found);
        }
        (count, wrong)
    })
}

fn check_from(lab: &Lab, mut rows: Vec<Row>, from: Place) -> Wrong {
    // Those who wait do it together.
    rows.sort_by_key(|row| row.probe.patience);
    let probes: Vec<Probe> = rows.iter().map(|row| row.probe).collect();
    let netns = from.netns(lab);
    let (mut wrong, mut late) = (Wrong::new(), 0);
    for (row, mut outcome) in rows.iter().zip(probe::all(netns, &probes)) {
        // On a busy machine an answer may be late: asked again alone, it must come each time.
        if outcome == Outcome::Silence && !row.expect.holds(&outcome) && late < MOST_LATE {
            late += 1;
            for _ in 0..3 {
                outcome = probe::one(netns, row.probe);
                if !row.expect.holds(&outcome) {
                    break;
                }
            }
        }
        if !row.expect.holds(&outcome) {
            let words = format!(
                "{}: expected {}, got {outcome}",
                row.words(from),
                row.expect
            );
            wrong
                .entry(row.group(from, &outcome))
                .or_default()
                .push(words);
        }
    }
    wrong
}

fn assert_table(lab: &Lab, cases: &[Case], settings: &str) {
    let start = Instant::now();
    let (rows, wrong) = check(lab, cases);
    println!("{settings}: {rows} rows in {:?}", start.elapsed());
    let groups = wrong.iter().map(|(group, rows)| {
        let (count, first) = (rows.len(), &rows[0]);
        format!("{count} rows: {group}\n    {first}")
    });
    let words: Vec<String> = groups.collect();
    assert!(wrong.is_empty(), "{settings}:\n{}", words.join("\n"));
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

/// A probe of one table may have the source port that one of the table before had: by UDP its
/// packet would go where that one's went.
fn forget_flows(lab: &mut Lab) {
    for node in &mut lab.nodes {
        let mut flows = Vec::new();
        let mut take = |flow| flows.push(flow);
        node.host.flows(&FlowFilter::default(), &mut take).unwrap();
        for flow in flows {
            node.host.delete_flow(&flow).unwrap();
        }
    }
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
        forget_flows(&mut lab);
        assert_table(&lab, &cases, &format!("{mode:?}, {words}"));
    }
}

#[test]
fn every_kind_from_every_place_over_nftables() {
    if testing::root("every_kind_from_every_place_over_nftables") {
        table(MODES[0]);
    }
}

#[test]
fn every_kind_from_every_place_over_iptables() {
    if testing::root("every_kind_from_every_place_over_iptables") {
        table(MODES[1]);
    }
}

#[test]
fn settings_over_nftables() {
    if testing::root("settings_over_nftables") {
        settings(MODES[0]);
    }
}

#[test]
fn settings_over_iptables() {
    if testing::root("settings_over_iptables") {
        settings(MODES[1]);
    }
}
