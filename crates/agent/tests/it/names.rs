//! The node answers its own and its pods' questions for names, as its Corefile says, while it
//! can.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use agent::{Corefile, Update};
use dns::render::nftables::TABLE;
use linux::{NetNs, Netlink, Nftables, Route, run_in};
use model::{Change, Config, EndpointSlice, Labels, Protocol, Service, ServicePort, SlicePort};
use nft::Family;
use pods::wire::{Answer, Request, ask};
use serde_json::Value;

use crate::node::{Agent, METRICS, Node, eventually, slice};
use crate::pod::{Pod, namespace, policy};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const PATIENCE: Duration = Duration::from_secs(2);

/// The address of `name.test` in an answer; an error where there is none, or the code is one.
fn resolve(netns: &NetNs, patience: Duration) -> Result<Ipv4Addr, ErrorKind> {
    let mut question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
    question.extend(b"\x04name\x04test\x00\x00\x01\x00\x01");
    run_in(netns, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let asked = || {
            socket.connect(SocketAddr::new(SERVICE.into(), 53))?;
            socket.set_read_timeout(Some(patience))?;
            socket.send(&question)?;
            let mut answer = [0; 512];
            let len = socket.recv(&mut answer)?;
            let answer = &answer[..len];
            assert_eq!(answer[..2], question[..2]);
            if answer[3] & 15 != 0 || answer[7] == 0 {
                return Err(ErrorKind::NotFound.into());
            }
            let ip: [u8; 4] = answer[len - 4..].try_into().unwrap();
            Ok(Ipv4Addr::from(ip))
        };
        let answer: std::io::Result<Ipv4Addr> = asked();
        answer.map_err(|error| error.kind())
    })
    .unwrap()
}

/// Says that `name.test` is somewhere.
fn write(agent: &Agent, number: u8) {
    let text = format!(
        ".:53 {{\n  errors\n  health\n  prometheus :9153\n  hosts {{\n    192.0.2.{number} name.test\n  }}\n}}\n"
    );
    tell(agent, Some(&text));
}

fn tell(agent: &Agent, text: Option<&str>) {
    agent.say(Update::Corefile(text.map(|text| Corefile {
        uid: "u".into(),
        text: text.into(),
    })));
}

fn is(number: u8) -> Result<Ipv4Addr, ErrorKind> {
    Ok(Ipv4Addr::new(192, 0, 2, number))
}

/// Nothing while the agent does not listen yet.
fn said(node: &Node, request: &Request) -> Value {
    match ask(&node.socket(), request, PATIENCE) {
        Ok(Answer::Ok(status)) => status,
        _ => Value::Null,
    }
}

fn status(node: &Node) -> Value {
    said(node, &Request::Dns)
}

fn leads(node: &Node) -> bool {
    let mut nftables = Nftables::open_in(&node.netns).unwrap();
    // It may go while it is read.
    let table = nftables.read(Family::Inet, TABLE).unwrap_or(None);
    table.is_some_and(|table| !table.chains.is_empty())
}

/// A node with a way out, though nobody is there.
fn started() -> (Node, Agent) {
    let node = Node::new();
    let mut netlink = Netlink::open_in(&node.netns).unwrap();
    let dev = netlink.expect_link("eth0").unwrap().index;
    let all: ipnet::IpNet = "0.0.0.0/0".parse().unwrap();
    let gateway = IpAddr::from([10, 0, 1, 1]);
    netlink
        .add_route(&Route::new(all, dev).via(gateway))
        .unwrap();
    let agent = node.start(&Config::default());
    agent.say(Update::ServicesSynced);
    (node, agent)
}

#[test]
fn the_corefile_is_served_followed_and_let_go() {
    if !testing::root("the_corefile_is_served_followed_and_let_go") {
        return;
    }
    let (node, agent) = started();
    tell(&agent, None);
    assert_eq!(
        resolve(&node.netns, Duration::from_millis(100)),
        Err(ErrorKind::WouldBlock)
    );
    write(&agent, 1);
    eventually("the node answers", || {
        resolve(&node.netns, PATIENCE) == is(1)
    });
    let pod = Pod::add(&node, "shop", "web");
    assert_eq!(resolve(&pod.netns, PATIENCE), is(1));

    // What cannot be understood changes nothing.
    tell(&agent, Some(". {\n  hots\n}\n"));
    eventually("it is told", || {
        let problems = status(&node)["problems"].to_string();
        problems.contains("ConfigMap kube-system/coredns: data[Corefile]")
            && problems.contains("hots")
            && problems.contains("the last good one stays in force")
    });
    assert_eq!(resolve(&pod.netns, PATIENCE), is(1));
    // Nobody is without an answer while it changes.
    let (over, lost) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let answered = resolve(&pod.netns, PATIENCE).is_ok();
                lost.fetch_add(usize::from(!answered), Ordering::Relaxed);
            }
        });
        for number in 2..10 {
            write(&agent, number);
            eventually("the change is there", || {
                resolve(&node.netns, PATIENCE) == is(number)
            });
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(lost.into_inner(), 0);
    let status = status(&node);
    assert_eq!(status["serving"], true);
    assert_eq!(status["addresses"].to_string(), r#"["10.96.0.10"]"#);
    assert_eq!(status["problems"].as_array().map(Vec::len), Some(0));
    assert!(
        status["counts"]["coredns_dns_requests_total"].as_f64() > Some(10.0),
        "{status}"
    );
    let metrics = node.get(METRICS, "/metrics").unwrap();
    assert!(
        metrics.contains("\ncoredns_dns_requests_total{"),
        "{metrics}"
    );
    let comments = metrics.lines().filter(|line| line.starts_with("# TYPE "));
    let mut names: Vec<&str> = comments.collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(all, names.len(), "each metric once");

    // The Corefile goes, or node DNS is not wanted: others are asked.
    tell(&agent, None);
    eventually("nothing leads here", || !leads(&node));
    assert!(resolve(&node.netns, Duration::from_millis(100)).is_err());
    write(&agent, 10);
    eventually("the node answers again", || {
        resolve(&node.netns, PATIENCE) == is(10)
    });
    let mut config = Config::default();
    config.dns.node_local = false;
    agent.say(Update::Config(Box::new(config)));
    eventually("nothing leads here", || !leads(&node));
}

#[test]
fn what_is_taken_away_is_there_again_within_a_second() {
    if !testing::root("what_is_taken_away_is_there_again_within_a_second") {
        return;
    }
    let (node, agent) = started();
    write(&agent, 1);
    eventually("the node answers", || {
        resolve(&node.netns, PATIENCE) == is(1)
    });
    let pod = Pod::add(&node, "shop", "web");
    let mut netlink = Netlink::open_in(&node.netns).unwrap();
    let mut best = Duration::MAX;
    for _ in 0..4 {
        for rule in netlink.mark_rules().unwrap() {
            netlink.delete_mark_rule(&rule).unwrap();
        }
        let begun = Instant::now();
        eventually("the rule is there again", || {
            !netlink.mark_rules().unwrap().is_empty()
        });
        best = best.min(begun.elapsed());
        eventually("it answers", || {
            resolve(&pod.netns, Duration::from_millis(100)) == is(1)
        });
    }
    assert!(best < Duration::from_secs(1), "{best:?}");
}

#[test]
fn a_second_agent_answers_when_the_first_has_ended() {
    if !testing::root("a_second_agent_answers_when_the_first_has_ended") {
        return;
    }
    let (node, first) = started();
    write(&first, 1);
    eventually("the node answers", || {
        resolve(&node.netns, PATIENCE) == is(1)
    });
    // Beside it another that does not know of it.
    let claim = || run_in(&node.netns, || dns::apply::Interception::claim().unwrap()).unwrap();
    assert!(claim().is_none());
    drop(first);
    eventually("the first has ended", || !leads(&node));
    let taken = claim().unwrap();
    let agent = node.start(&Config::default());
    agent.say(Update::ServicesSynced);
    write(&agent, 2);
    eventually("it is told", || {
        let problems = status(&node)["problems"].to_string();
        problems.contains("another process answers on this node")
    });
    drop(taken);
    eventually("the second answers", || {
        resolve(&node.netns, PATIENCE) == is(2)
    });
    assert_eq!(status(&node)["problems"].as_array().map(Vec::len), Some(0));
}

#[test]
fn who_may_not_ask_is_told_of_by_the_policys_name() {
    if !testing::root("who_may_not_ask_is_told_of_by_the_policys_name") {
        return;
    }
    let (node, agent) = started();
    write(&agent, 1);
    agent.change(namespace("closed"));
    agent.change(policy("closed", None, Some(Vec::new())));
    eventually("the node answers", || {
        resolve(&node.netns, PATIENCE) == is(1)
    });
    let mut pod = Pod::new("closed", "web");
    agent.change(pod.known(Labels::default()));
    pod.attach(&node, None).unwrap();
    let mut object = pod.object(Labels::default());
    object.ips = pod.ip.into_iter().collect();
    agent.change(Change::Pod(std::sync::Arc::new(object)));

    let ip = pod.ip.unwrap().to_string();
    eventually("whose its address is", || {
        said(&node, &Request::Cluster)["pods"]
            .to_string()
            .contains(&ip)
    });

    let mut stream = UnixStream::connect(node.socket()).unwrap();
    let request = Request::Drops {
        place: None,
        past: true,
    };
    stream
        .write_all(&serde_json::to_vec(&request).unwrap())
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut lines = BufReader::new(stream).lines();
    // The answer; from then on the agent listens to the kernel.
    lines.next().unwrap().unwrap();
    let denied = resolve(&pod.netns, Duration::from_millis(100));
    assert_eq!(denied, Err(ErrorKind::WouldBlock));
    let told = lines
        .map(Result::unwrap)
        .find(|line| line.contains("egress"))
        .unwrap();
    for part in ["closed/policy", "10.96.0.10", "\"web\""] {
        assert!(told.contains(part), "{part}: {told}");
    }
    agent.change(Change::PolicyGone("closed".into(), "policy".into()));
    eventually("it may ask", || {
        resolve(&pod.netns, Duration::from_millis(100)) == is(1)
    });
}

/// The node's resolver leads to the cluster's DNS, which is the node itself.
#[test]
fn a_server_that_asks_itself_is_taken_away_and_told_of() {
    if !testing::root("a_server_that_asks_itself_is_taken_away_and_told_of") {
        return;
    }
    let (node, agent) = started();
    tell(&agent, Some(". {\n  forward . 10.96.0.10\n  loop\n}\n"));
    eventually("it is told", || {
        let problems = status(&node)["problems"].to_string();
        problems.contains("Loop") && problems.contains("the DNS Service does")
    });
    assert!(!leads(&node));
    write(&agent, 1);
    eventually("the node answers", || {
        resolve(&node.netns, PATIENCE) == is(1)
    });
}

/// Upstreams that refuse, and a server of the cluster's beside this node that knows the name.
#[test]
fn the_dns_services_pods_are_asked_where_the_upstreams_fail() {
    if !testing::root("the_dns_services_pods_are_asked_where_the_upstreams_fail") {
        return;
    }
    let (node, agent) = started();
    tell(&agent, Some(". {\n  forward . 127.0.0.1:9\n}\n"));
    eventually("the node says that nobody answers", || {
        resolve(&node.netns, PATIENCE) == Err(ErrorKind::NotFound)
    });
    let pod = Pod::add(&node, "kube-system", "coredns-0");
    let socket = run_in(&pod.netns, || UdpSocket::bind("0.0.0.0:5353").unwrap()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let peer = std::thread::spawn(move || {
        let mut question = [0; 512];
        let (len, from) = socket.recv_from(&mut question).unwrap();
        // The same name, its address behind it.
        let end = 12 + 11 + 4;
        let mut answer = question[..end.min(len)].to_vec();
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        answer.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\xc0\x00\x02\x09");
        socket.send_to(&answer, from).unwrap();
        from.ip()
    });
    agent.change(Change::Service(Arc::new(Service {
        namespace: "kube-system".into(),
        name: "kube-dns".into(),
        cluster_ips: vec![SERVICE.into()],
        ports: vec![ServicePort {
            name: "dns".into(),
            protocol: Protocol::Udp,
            port: 53,
            node_port: None,
        }],
        ..Service::default()
    })));
    let ip = match pod.ip {
        Some(IpAddr::V4(ip)) => ip.octets(),
        other => panic!("{other:?}"),
    };
    let Change::Slice(of_pod) = slice("kube-dns", &[ip]) else {
        panic!("a slice")
    };
    agent.change(Change::Slice(Arc::new(EndpointSlice {
        namespace: "kube-system".into(),
        ports: vec![SlicePort {
            name: "dns".into(),
            protocol: Protocol::Udp,
            port: Some(5353),
        }],
        ..Arc::unwrap_or_clone(of_pod)
    })));
    eventually("the pod answers", || {
        resolve(&node.netns, PATIENCE) == is(9)
    });
    assert_eq!(peer.join().unwrap(), IpAddr::from([10, 244, 1, 1]));
    agent.change(Change::SliceGone("kube-system".into(), "kube-dns-1".into()));
    eventually("nobody is asked any more", || {
        resolve(&node.netns, PATIENCE) == Err(ErrorKind::NotFound)
    });
}
