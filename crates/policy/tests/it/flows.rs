//! Policies, labels and pods change under traffic: from the moment a node has taken a change in,
//! every connection, new or old, is what the new state makes of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use linux::{FlowFilter, Kernel, Monitor, run_in};
use model::{Change, Labels, Protocol};
use nft::{Family, Op, Transaction};
use policy::render::nftables::TABLE;
use serde_json::{Value as Json, json};

use crate::lab::{self, Lab};
use crate::probe::{self, LONG, Place, Probe};
use crate::traffic::Traffic;
use crate::{objects, oracle};

/// A change, and words for it.
type Step = (&'static str, Vec<Change>);

fn put(object: &Json) -> Change {
    let (change, problem) = objects::read(object);
    assert_eq!(problem, None);
    change
}

fn policy(name: &str, namespace: &str, spec: &Json) -> Change {
    put(&objects::policy(namespace, name, spec))
}

fn gone(name: &str, namespace: &str) -> Change {
    Change::PolicyGone(namespace.into(), name.into())
}

fn labelled(name: &str, labels: &[(&str, &str)]) -> Change {
    let number = lab::keys().position(|key| key == lab::key(name)).unwrap();
    let mut pod = lab::pod(number, &lab::key(name));
    pod.labels = labels.iter().copied().collect::<Labels>();
    Change::Pod(Arc::new(pod))
}

fn namespace(name: &str, labels: &[(&str, &str)]) -> Change {
    let mut namespace = lab::namespace(name);
    namespace.labels = labels.iter().copied().collect();
    Change::Namespace(Arc::new(namespace))
}

fn steps() -> Vec<Step> {
    let types = json!(["Ingress", "Egress"]);
    let from_y = json!([{"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]}]);
    let front = json!({"matchLabels": {"tier": "front"}});
    let tcp = json!([{"protocol": "TCP", "port": 80}]);
    let admin = |action: &str| {
        put(&objects::cluster_policy(
            "admin",
            &json!({"tier": "Admin", "priority": 5,
                "subject": {"namespaces": {"matchLabels": {"ns": "x"}}},
                "ingress": [{"action": action, "from": [{"namespaces": {"matchLabels":
                    {"kubernetes.io/metadata.name": "z"}}}]}]}),
        ))
    };
    let block = |except: &[&str]| {
        let block = json!({"cidr": "10.244.0.0/16", "except": except});
        policy(
            "block",
            "z",
            &json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": block},
                {"ipBlock": {"cidr": "fd00:10:244::/56"}}]}]}),
        )
    };
    vec![
        ("before the first policy", vec![]),
        (
            "x is closed inwards",
            vec![policy("deny", "x", &json!({"podSelector": {}}))],
        ),
        (
            "x is open to y",
            vec![policy(
                "y",
                "x",
                &json!({"podSelector": {}, "ingress": from_y}),
            )],
        ),
        ("z has the label of y", vec![namespace("z", &[("ns", "y")])]),
        ("y has lost its labels", vec![namespace("y", &[])]),
        (
            "both have theirs again",
            vec![
                Change::Namespace(Arc::new(lab::namespace("y"))),
                Change::Namespace(Arc::new(lab::namespace("z"))),
            ],
        ),
        (
            "x is open to what is in front, everywhere",
            vec![policy(
                "front",
                "x",
                &json!({"podSelector": {}, "ingress": [{"from":
                    [{"namespaceSelector": {}, "podSelector": front.clone()}]}]}),
            )],
        ),
        (
            "x/b is in front",
            vec![labelled("x/b", &[("pod", "b"), ("tier", "front")])],
        ),
        (
            "z/a is no longer",
            vec![labelled("z/a", &[("pod", "a"), ("tier", "back")])],
        ),
        (
            "y is closed outwards",
            vec![policy(
                "out",
                "y",
                &json!({"podSelector": {}, "policyTypes": ["Egress"]}),
            )],
        ),
        (
            "y may go out by TCP 80",
            vec![policy(
                "out",
                "y",
                &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": tcp}]}),
            )],
        ),
        ("x's first policy is gone", vec![gone("deny", "x")]),
        ("an administrator denies z to x", vec![admin("Deny")]),
        ("an administrator accepts z to x", vec![admin("Accept")]),
        (
            "and does not care any more",
            vec![Change::ClusterPolicyGone("admin".into())],
        ),
        ("z is open to addresses", vec![block(&[])]),
        (
            "but for some",
            vec![block(&["10.244.1.10/31", "10.244.2.0/28"])],
        ),
        ("and some less", vec![block(&["10.244.1.10/32"])]),
        (
            "all is closed",
            ["x", "y", "z"]
                .map(|ns| {
                    policy(
                        "closed",
                        ns,
                        &json!({"podSelector": {}, "policyTypes": types}),
                    )
                })
                .into(),
        ),
        (
            "all is open",
            ["x", "y", "z"]
                .map(|ns| {
                    let spec = json!({"podSelector": {}, "policyTypes": types,
                        "ingress": [{}], "egress": [{}]});
                    policy("open", ns, &spec)
                })
                .into(),
        ),
        (
            "every policy is gone",
            [
                ("y", "x"),
                ("front", "x"),
                ("out", "y"),
                ("block", "z"),
                ("closed", "x"),
                ("closed", "y"),
                ("closed", "z"),
                ("open", "x"),
                ("open", "y"),
                ("open", "z"),
            ]
            .map(|(name, namespace)| gone(name, namespace))
            .into(),
        ),
    ]
}

/// Connections between all pods: of each pair one by TCP and one by UDP.
fn between_pods(lab: &Lab) -> Vec<Probe> {
    let pods: Vec<Place> = lab.pods.keys().cloned().map(Place::Pod).collect();
    let pairs = pods
        .iter()
        .flat_map(|from| pods.iter().map(move |to| (from, to)));
    let probes = pairs.enumerate().flat_map(|(at, (from, to))| {
        [Protocol::Tcp, Protocol::Udp].map(|protocol| Probe {
            from: from.clone(),
            to: to.clone(),
            v6: (at % 2 == 0) == (protocol == Protocol::Tcp),
            port: Some((protocol, 80)),
        })
    });
    probes.collect()
}

#[test]
fn connections_are_judged_anew_when_something_changes() {
    if !testing::root("connections_are_judged_anew_when_something_changes") {
        return;
    }
    let mut lab = Lab::new();
    let mut traffic = Traffic::open(&lab, between_pods(&lab));
    let open = traffic.probes();
    let new = probe::all(&lab);
    for (words, changes) in steps() {
        for change in changes {
            lab.take(change);
        }
        lab.settle();
        for round in ["at once", "after a restart of the agents"] {
            let expected = oracle::expected(&lab, &lab.cluster, &open);
            let wrong = traffic.differences(&lab, &expected);
            assert!(wrong.is_empty(), "{words}, {round}: {}", wrong.join("\n"));
            let expected = oracle::expected(&lab, &lab.cluster, &new);
            let wrong = probe::differences(&lab, &new, &expected);
            assert!(wrong.is_empty(), "{words}, {round}: {}", wrong.join("\n"));
            for at in 0..2 {
                lab.nodes[at].restart();
                let report = lab.turn(at);
                assert_eq!((report.errors, report.changes), (vec![], 0), "{words}");
            }
        }
    }
}

/// What is allowed before and after each change is so in between: not one datagram is lost.
#[test]
fn what_stays_allowed_loses_nothing() {
    if !testing::root("what_stays_allowed_loses_nothing") {
        return;
    }
    let mut lab = Lab::new();
    let allow = |ports: &Json, more: &str| {
        let peer = |pod: &str| {
            json!([{"namespaceSelector": {}, "podSelector":
            {"matchExpressions": [{"key": "pod", "operator": "In", "values": [pod, more]}]}}])
        };
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peer("a"), "ports": ports}], "egress": [{"to": peer("b"), "ports": ports}]})
    };
    let specs = [
        allow(&json!([{"protocol": "UDP", "port": 80}]), "c"),
        allow(&json!([{"protocol": "UDP", "port": 80}]), "d"),
        allow(
            &json!([{"protocol": "UDP", "port": 70, "endPort": 80}]),
            "d",
        ),
        allow(
            &json!([{"protocol": "UDP"}, {"protocol": "TCP", "port": 80}]),
            "e",
        ),
    ];
    let put_all = |lab: &mut Lab, spec: &Json| {
        for ns in lab::NAMESPACES {
            lab.take(policy("only", ns, spec));
        }
        lab.settle();
    };
    put_all(&mut lab, &specs[0]);
    let over = AtomicBool::new(false);
    let flows: Vec<_> = [
        ("x/a", "x/b"),
        ("x/a", "y/b"),
        ("z/a", "z/b"),
        ("y/a", "x/b"),
    ]
    .into_iter()
    .zip([false, true, false, true])
    .map(|((from, to), v6)| {
        let to = (lab.pod(to).ips[usize::from(v6)], 80);
        let socket = run_in(&lab.pod(from).station.netns, || {
            let socket = probe::udp(v6);
            socket.connect(to).unwrap();
            socket
        });
        (format!("{from} to {}", to.0), socket.unwrap())
    })
    .collect();
    std::thread::scope(|scope| {
        let over = &over;
        let senders: Vec<_> = flows
            .into_iter()
            .map(|(words, socket)| {
                scope.spawn(move || {
                    socket.set_nonblocking(false).unwrap();
                    socket.set_read_timeout(Some(LONG)).unwrap();
                    let mut sent = 0_u64;
                    let mut longest = (Duration::ZERO, 0);
                    let mut buffer = [0; 8];
                    while !over.load(Ordering::SeqCst) {
                        sent += 1;
                        let start = Instant::now();
                        socket.send(&sent.to_be_bytes()).unwrap();
                        let read = probe::undisturbed(|| socket.recv(&mut buffer));
                        let back = read.map(|_| u64::from_be_bytes(buffer));
                        assert!(
                            matches!(back, Ok(back) if back == sent),
                            "{words}: {sent} is lost: {back:?}"
                        );
                        longest = longest.max((start.elapsed(), sent));
                    }
                    (sent, longest)
                })
            })
            .collect();
        let work = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..60 {
                put_all(&mut lab, &specs[round % specs.len()]);
                let label = if round % 2 == 0 { "d" } else { "c" };
                lab.take(labelled("x/c", &[("pod", label)]));
                lab.take(namespace("z", &[("round", label)]));
                lab.settle();
                if round % 10 == 9 {
                    lab.nodes[0].restart();
                }
            }
        }));
        over.store(true, Ordering::SeqCst);
        for sender in senders {
            let (sent, (longest, which)) = sender.join().unwrap();
            println!("{sent} datagrams, the slowest {longest:?} ({which})");
        }
        work.unwrap();
    });
}

/// Forgets every connection of both nodes.
fn forget(lab: &mut Lab) {
    for node in &mut lab.nodes {
        let mut flows = Vec::new();
        let filter = FlowFilter::default();
        node.host
            .flows(&filter, &mut |flow| flows.push(flow))
            .unwrap();
        for flow in flows {
            node.host.delete_flow(&flow).unwrap();
        }
    }
}

/// Both ends of a connection.
fn pair(lab: &Lab, from: &str, to: &str, v6: bool) -> (TcpStream, TcpStream) {
    let at = (lab.pod(to).ips[usize::from(v6)], 8080);
    let listener = run_in(&lab.pod(to).station.netns, || TcpListener::bind(at));
    let listener = listener.unwrap().unwrap();
    let client = run_in(&lab.pod(from).station.netns, || TcpStream::connect(at));
    let (server, _) = listener.accept().unwrap();
    (client.unwrap().unwrap(), server)
}

/// Whether something arrives within a time.
fn arrives(from: &mut TcpStream, to: &mut TcpStream, time: Duration) -> bool {
    from.write_all(b"!").unwrap();
    to.set_read_timeout(Some(time)).unwrap();
    match probe::undisturbed(|| to.read(&mut [0; 64])) {
        Ok(len) => len > 0,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::WouldBlock), "{error}");
            false
        }
    }
}

/// A packet in the middle of a connection that the kernel no longer knows must not make one in
/// the other direction, where it would be allowed.
#[test]
fn a_forgotten_connection_opens_nothing() {
    if !testing::root("a_forgotten_connection_opens_nothing") {
        return;
    }
    for (from, to, v6) in [
        ("x/b", "x/a", false),
        ("x/c", "x/a", true),
        ("y/b", "x/a", true),
    ] {
        let mut lab = Lab::new();
        lab.settle();
        let (mut client, mut server) = pair(&lab, from, to, v6);
        assert!(arrives(&mut client, &mut server, LONG));
        assert!(arrives(&mut server, &mut client, LONG));
        lab.take(policy(
            "closed",
            "x",
            &json!({"podSelector": {"matchLabels": {"pod": "a"}}}),
        ));
        lab.settle();
        forget(&mut lab);
        let time = Duration::from_millis(300);
        assert!(
            !arrives(&mut server, &mut client, time),
            "{from} {to}: the server's"
        );
        assert!(
            !arrives(&mut client, &mut server, time),
            "{from} {to}: the client's"
        );
        // Nor after both have sent: no half of a connection is known by now.
        assert!(
            !arrives(&mut server, &mut client, time),
            "{from} {to}: the server's again"
        );
        lab.take(gone("closed", "x"));
        lab.settle();
        let start = Instant::now();
        assert!(arrives(&mut client, &mut server, LONG), "it goes on");
        println!("goes on after {:?}", start.elapsed());
    }
}

/// Somebody else's `nft flush ruleset`, under a loop like the agent's.
#[test]
fn a_flushed_table_is_back_at_once() {
    if !testing::root("a_flushed_table_is_back_at_once") {
        return;
    }
    let mut lab = Lab::new();
    let mut traffic = Traffic::open(&lab, between_pods(&lab));
    lab.take(policy("closed", "x", &json!({"podSelector": {}})));
    lab.settle();
    let mut monitor = Monitor::open_in(&lab.nodes[0].station.netns).unwrap();
    let delete = Transaction {
        family: Family::Inet,
        table: TABLE.into(),
        ops: vec![Op::DeleteTable],
    };
    lab.nodes[0].host.nftables.apply(&delete).unwrap();
    let start = Instant::now();
    let mut changes = 0;
    while changes == 0 && start.elapsed() < LONG {
        let events = monitor.wait(Duration::from_millis(50)).unwrap();
        let policies = &mut lab.nodes[0].policies;
        if events.iter().filter(|event| policies.notice(event)).count() > 0 {
            changes = lab.turn(0).changes;
        }
    }
    assert!(changes > 0, "nothing was done about it");
    let expected = oracle::expected(&lab, &lab.cluster, &traffic.probes());
    assert_eq!(traffic.differences(&lab, &expected), [""; 0]);
}
