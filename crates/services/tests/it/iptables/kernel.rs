//! The real programs, of both kinds, in a network namespace.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use linux::{Host, Monitor, Route, run_in};
use model::config::ServicesMode;
use model::{Change, Changed, Cluster, Protocol, Service, SlicePort, TrafficPolicy};
use services::plan::Plan;
use services::render::iptables::{Present, change, removal, whole};
use services::{Report, Services};
use testing::Figure;

use super::context;
use crate::build::{
    Put, balanced, cluster, config, endpoint, ip, plan, port, service, settings, slice,
};
use crate::station::{Station, net};

/// Services of every kind, in both families.
fn every_kind() -> Cluster {
    let mut cluster = cluster();
    let three = ["10.244.1.1", "10.244.1.2", "10.244.2.1"];
    let v6 = ["fd00:10:244:1::1", "fd00:10:244:2::1"];
    let mut many = service("many", 1);
    many.cluster_ips.push(ip("fd00:10:96::1"));
    many.ports = vec![
        port("http", Protocol::Tcp, 80),
        port("dns", Protocol::Udp, 53),
        port("media", Protocol::Sctp, 9),
    ];
    many.affinity = Some(300);
    many.external_ips = vec![ip("198.51.100.1"), ip("2001:db8::1")];
    let ports: Vec<SlicePort> = many.ports.iter().map(target).collect();
    many.put(&mut cluster);
    for (suffix, endpoints) in [("4", &three[..]), ("6", &v6[..])] {
        let endpoints = endpoints.iter().copied().map(endpoint).collect();
        let mut slice = slice("many", suffix, endpoints);
        slice.ports.clone_from(&ports);
        slice.put(&mut cluster);
    }
    Service {
        source_ranges: vec![net("203.0.113.0/24"), net("10.0.0.0/8")],
        ..balanced("guarded", 2, "192.0.2.2", 30002)
    }
    .put(&mut cluster);
    slice("guarded", "x", three.map(endpoint).to_vec()).put(&mut cluster);
    Service {
        external_policy: TrafficPolicy::Local,
        internal_policy: TrafficPolicy::Local,
        health_check_port: Some(30100),
        ..balanced("local", 3, "192.0.2.3", 30003)
    }
    .put(&mut cluster);
    slice("local", "x", three.map(endpoint).to_vec()).put(&mut cluster);
    Service {
        external_policy: TrafficPolicy::Local,
        ..balanced("far", 4, "192.0.2.4", 30004)
    }
    .put(&mut cluster);
    slice("far", "x", vec![endpoint("10.244.2.1")]).put(&mut cluster);
    balanced("empty", 5, "192.0.2.5", 30005).put(&mut cluster);
    cluster
}

fn target(port: &model::ServicePort) -> SlicePort {
    SlicePort {
        name: port.name.clone(),
        protocol: port.protocol,
        port: Some(8080),
    }
}

/// One of the four families of programs.
#[derive(Clone, Copy, Debug)]
struct Programs {
    legacy: bool,
    v6: bool,
}

impl Programs {
    fn name(self, what: &str) -> String {
        let family = if self.v6 { "ip6tables" } else { "iptables" };
        let kind = if self.legacy { "legacy" } else { "nft" };
        format!("{family}-{kind}-{what}")
    }

    fn save(self, options: &[&str]) -> String {
        let output = Command::new(self.name("save")).args(options).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    fn restore(self, text: &str) {
        let mut child = Command::new(self.name("restore"))
            .args(["--noflush", "--wait=5"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{self:?}: {said}\n{text}");
    }
}

/// Runs in a namespace of its own with each family of programs that is here.
fn with_programs(test: &str, run: impl Fn(Programs) + Sync) {
    if !testing::root(test) {
        return;
    }
    for legacy in [false, true] {
        for v6 in [false, true] {
            let programs = Programs { legacy, v6 };
            if testing::program(test, &programs.name("restore")).is_some() {
                let station = Station::new();
                run_in(&station.netns, || run(programs)).unwrap();
            }
        }
    }
}

/// What is written is taken, and read back as it was written: the next agent has nothing to do.
#[test]
fn both_kinds_of_iptables_take_it_and_give_it_back() {
    with_programs("both_kinds_of_iptables_take_it_and_give_it_back", |it| {
        let mut cluster = every_kind();
        let mut plan = plan(&cluster);
        let without = Default::default();
        let left = |plan: &Plan| {
            let saved = it.save(&[]);
            let present = Present::parse(&saved);
            assert!(
                saved.is_empty() || present.is_legacy() == it.legacy,
                "{saved}"
            );
            whole(&context(plan, it.v6, &without), plan, &present)
        };
        it.restore(&left(&plan));
        assert_eq!(left(&plan), "", "{it:?}");

        // Endpoints go and come, Services go.
        let three = ["10.244.1.1", "10.244.2.1", "10.244.2.2"].map(endpoint);
        let mut changed = Changed::default();
        for change in [
            Change::Slice(slice("guarded", "x", three.to_vec()).into()),
            Change::Slice(slice("far", "x", Vec::new()).into()),
            Change::Slice(slice("empty", "x", three.to_vec()).into()),
            Change::ServiceGone("ns".to_owned(), "many".to_owned()),
        ] {
            cluster.note(change, &mut changed);
        }
        let delta = plan.update(&cluster, &changed.services);
        it.restore(&change(&context(&plan, it.v6, &without), &plan, &delta));
        assert_eq!(left(&plan), "", "{it:?}");

        it.restore(&removal(&Present::parse(&it.save(&[]))));
        let saved = it.save(&[]);
        assert!(!saved.contains("KUBE"), "{it:?}: {saved}");
    });
}

/// The packets that each rule of a chain has seen.
fn counters(saved: &str, chain: &str) -> Vec<u64> {
    let rules = saved.lines().filter_map(|line| {
        let (counters, rule) = line.strip_prefix('[')?.split_once("] -A ")?;
        rule.starts_with(chain)
            .then(|| counters.split(':').next().unwrap().parse().unwrap())
    });
    rules.collect()
}

/// An endpoint's change leaves the rules of others alone, and what they counted.
#[test]
fn a_change_touches_its_own_chains() {
    let test = "a_change_touches_its_own_chains";
    if !testing::root(test) {
        return;
    }
    for legacy in [false, true] {
        let it = Programs { legacy, v6: false };
        if testing::program(test, &it.name("restore")).is_none() {
            continue;
        }
        let mut station = Station::new();
        let lo = station.index("lo");
        station
            .netlink
            .add_route(&Route::new(net("10.0.0.0/8"), lo))
            .unwrap();
        run_in(&station.netns, || {
            let mut cluster = cluster();
            for (name, n) in [("still", 1), ("moving", 2)] {
                let mut made = service(name, n);
                made.ports = vec![port("", Protocol::Udp, 80)];
                made.put(&mut cluster);
                let mut slice = slice(name, "x", vec![endpoint("10.244.1.1")]);
                slice.ports[0].protocol = Protocol::Udp;
                slice.put(&mut cluster);
            }
            let mut plan = Plan::of(settings(&cluster), &cluster);
            let without = Default::default();
            it.restore(&whole(
                &context(&plan, false, &without),
                &plan,
                &Present::default(),
            ));
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"x", "10.96.0.1:80").unwrap();
            let chain = |name: &str| {
                let (id, _) = plan
                    .ports()
                    .iter()
                    .find(|((port, _), _)| port.name == name)
                    .unwrap();
                services::render::iptables::chain_name(&id.0)
            };
            let (still, moving) = (chain("still"), chain("moving"));
            let before = it.save(&["-c"]);
            assert_eq!(counters(&before, &still), [1, 1], "{before}");

            let mut slice = slice("moving", "x", vec![endpoint("10.244.2.1")]);
            slice.ports[0].protocol = Protocol::Udp;
            let mut changed = Changed::default();
            cluster.note(Change::Slice(slice.into()), &mut changed);
            let delta = plan.update(&cluster, &changed.services);
            let text = change(&context(&plan, false, &without), &plan, &delta);
            assert!(!text.contains(&still) && text.contains(&moving), "{text}");
            assert!(!text.contains("KUBE-SERVICES"), "{text}");
            it.restore(&text);
            let after = it.save(&["-c"]);
            for chain in [still.as_str(), "KUBE-SERVICES", "KUBE-POSTROUTING"] {
                assert_eq!(counters(&after, chain), counters(&before, chain), "{chain}");
            }
        })
        .unwrap();
    }
}

/// An agent's Services in a namespace, by the PATH's programs.
struct Node {
    station: Station,
    host: Host,
    services: Services,
    cluster: Cluster,
}

impl Node {
    fn new(cluster: Cluster) -> Self {
        let station = Station::new();
        Self {
            host: run_in(&station.netns, Host::open).unwrap().unwrap(),
            station,
            services: Services::new("node1"),
            cluster,
        }
    }

    fn turn(&mut self, changed: &Changed) -> Report {
        let mut config = config();
        config.services.mode = ServicesMode::Iptables;
        let (host, services) = (&mut self.host, &mut self.services);
        run_in(&self.station.netns, || {
            services.reconcile(host, &self.cluster, changed, &config)
        })
        .unwrap()
    }

    fn save(&self) -> String {
        run_in(&self.station.netns, || {
            let output = Command::new("iptables-save").output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(|line| format!("{line}\n")).collect()
        })
        .unwrap()
    }
}

/// Whatever others do to the chains is heard of, where the kernel tells, and mended.
#[test]
fn others_changes_are_mended_within_a_second() {
    let test = "others_changes_are_mended_within_a_second";
    if !testing::root(test) || testing::program(test, "iptables-nft").is_none() {
        return;
    }
    if !std::fs::canonicalize("/usr/sbin/iptables")
        .is_ok_and(|it| it.ends_with("xtables-nft-multi"))
    {
        return testing::skip(test, "needs iptables over nf_tables as iptables");
    }
    let mut node = Node::new(every_kind());
    node.turn(&Changed::default());
    let whole = node.save();
    let mut monitor = Monitor::open_in(&node.station.netns).unwrap();
    node.host.ignored = Some(monitor.ignore(&[]).unwrap());
    let figure = Figure {
        figure: Duration::from_secs(1),
        waits: Duration::ZERO,
        work: Duration::from_millis(100),
    };
    for arguments in [
        "-t nat -F PREROUTING",
        "-t nat -F KUBE-SERVICES",
        "-F KUBE-FORWARD",
        "-F",
        "-t nat -F",
    ] {
        figure.hold(arguments, || {
            run_in(&node.station.netns, || {
                let status = Command::new("iptables-nft")
                    .args(arguments.split(' '))
                    .status();
                assert!(status.unwrap().success());
            })
            .unwrap();
            let start = Instant::now();
            loop {
                let events = monitor.wait(Duration::from_millis(100)).unwrap();
                // All of them, as the agent does.
                let concerned = events.iter().filter(|event| node.services.notice(event));
                if concerned.count() > 0 {
                    assert_eq!(node.turn(&Changed::default()).errors, []);
                }
                if node.save() == whole {
                    return start.elapsed();
                }
                assert!(start.elapsed() < Duration::from_secs(30), "{arguments}");
            }
        });
    }
}
