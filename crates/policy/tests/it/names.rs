//! Questions for names that a node's own server answers, between real sockets: who may ask is who
//! may talk to the cluster's DNS, from the next packet on.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dns::apply::{Interception, mark};
use linux::{Conntrack, FlowFilter, run_in, transparent};
use model::{
    Change, Config, Endpoint, EndpointSlice, Labels, Namespace, Pod, Protocol, Service,
    ServicePort, SlicePort,
};
use policy::explain::asking;
use policy::{End, NodeDns};
use serde_json::{Value as Json, json};
use testing::station::{Station, ip};

use crate::lab::{self, Lab};
use crate::objects;

const SERVICE: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];
const LOCAL: &str = "169.254.20.10";
/// The cluster's DNS: a pod on the other node, which nobody ever reaches here.
const ENDPOINT: [&str; 2] = ["10.244.2.53", "fd00:10:244:2::53"];
/// What no packet comes through shows after this time.
const PATIENCE: Duration = Duration::from_millis(150);

fn config() -> Config {
    let mut config = Config {
        cluster_dns: SERVICE.map(ip).into(),
        ..Config::default()
    };
    config.dns.local_address = Some(ip(LOCAL));
    config
}

/// The server of the first node.
struct Answers {
    _interception: Interception,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Answers {
    fn start(node: &Station) -> Self {
        let addresses = config().node_dns();
        let (interception, datagrams, listeners) = run_in(&node.netns, || {
            let mut interception = Interception::claim().unwrap().unwrap();
            let at = |ip: &IpAddr| SocketAddr::new(*ip, 53);
            let sockets = addresses.iter();
            let datagrams = sockets.clone().map(|ip| transparent::udp(at(ip)).unwrap());
            let datagrams: Vec<UdpSocket> = datagrams.collect();
            let listeners = sockets.map(|ip| transparent::tcp(at(ip)).unwrap());
            let listeners: Vec<TcpListener> = listeners.collect();
            let mut netlink = linux::Netlink::open().unwrap();
            interception
                .lead(&mut netlink, &addresses, mark(14))
                .unwrap();
            (interception, datagrams, listeners)
        })
        .unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for socket in datagrams {
            socket.set_nonblocking(false).unwrap();
            let wait = Duration::from_millis(20);
            socket.set_read_timeout(Some(wait)).unwrap();
            let told = over.clone();
            threads.push(std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while !told.load(Ordering::Relaxed) {
                    if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                        let _ = socket.send_to(&buffer[..len], from);
                    }
                }
            }));
        }
        for listener in listeners {
            let told = over.clone();
            threads.push(std::thread::spawn(move || {
                while !told.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => drop(std::thread::spawn(move || echo(stream))),
                        Err(_) => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
            }));
        }
        Self {
            _interception: interception,
            over,
            threads,
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn echo(mut stream: TcpStream) {
    let _ = stream.set_nonblocking(false);
    let mut buffer = [0; 64];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
}

/// Whether a question is answered.
fn is_answered(from: &Station, server: &str, protocol: Protocol) -> bool {
    let at = SocketAddr::new(ip(server), 53);
    run_in(&from.netns, || match protocol {
        Protocol::Tcp => TcpStream::connect_timeout(&at, PATIENCE).is_ok(),
        _ => {
            let any = if at.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any).unwrap();
            socket.connect(at).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send(b"?").unwrap();
            socket.recv(&mut [0; 64]).is_ok()
        }
    })
    .unwrap()
}

fn cluster_dns(lab: &mut Lab) {
    let labels = Labels::from([("kubernetes.io/metadata.name", "kube-system")]);
    let name = "kube-system".to_owned();
    lab.take(Change::Namespace(Arc::new(Namespace { name, labels })));
    lab.take(Change::Pod(Arc::new(Pod {
        namespace: "kube-system".into(),
        name: "coredns".into(),
        uid: "coredns".into(),
        node: "node2".into(),
        ips: ENDPOINT.map(ip).into(),
        labels: Labels::from([("k8s-app", "kube-dns")]),
        ..lab::pod(1, &lab::key("x/c"))
    })));
    let names = [("dns", Protocol::Udp), ("dns-tcp", Protocol::Tcp)];
    let service = Service {
        namespace: "kube-system".into(),
        name: "kube-dns".into(),
        cluster_ips: SERVICE.map(ip).into(),
        ports: names
            .map(|(name, protocol)| ServicePort {
                name: name.into(),
                protocol,
                port: 53,
                node_port: None,
            })
            .into(),
        ..Service::default()
    };
    lab.take(Change::Service(Arc::new(service)));
    endpoints(lab, true);
}

/// The cluster's DNS becomes ready, or is no longer.
fn endpoints(lab: &mut Lab, ready: bool) {
    for (at, v6) in [false, true].into_iter().enumerate() {
        let names = [("dns", Protocol::Udp), ("dns-tcp", Protocol::Tcp)];
        let slice = EndpointSlice {
            namespace: "kube-system".into(),
            name: format!("kube-dns-{v6}"),
            service: "kube-dns".into(),
            v6,
            ports: names
                .map(|(name, protocol)| SlicePort {
                    name: name.into(),
                    protocol,
                    port: Some(53),
                })
                .into(),
            endpoints: vec![Endpoint {
                ip: ip(ENDPOINT[at]),
                more: Box::default(),
                ready,
                serving: ready,
                terminating: false,
                node: Some("node2".into()),
                zone: None,
                hostname: None,
                pod: Some("coredns".into()),
                for_zones: Vec::new(),
                for_nodes: Vec::new(),
            }],
            triggered: None,
        };
        lab.take(Change::Slice(Arc::new(slice)));
    }
}

fn about_a(egress: &Json) -> Json {
    let spec = json!({
        "podSelector": {"matchLabels": {"pod": "a"}},
        "policyTypes": ["Egress"],
        "egress": egress,
    });
    objects::policy("x", "names", &spec)
}

/// A rule of egress, and whether it lets ask by UDP and by TCP.
fn cases() -> Vec<(&'static str, Json, [bool; 2])> {
    let both = json!([{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]);
    let kube_dns = json!([{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }]);
    let block = |text: [&str; 2]| {
        let blocks = text.map(|cidr| json!({"ipBlock": {"cidr": cidr}}));
        json!(blocks)
    };
    let endpoint = block(["10.244.2.53/32", "fd00:10:244:2::53/128"]);
    let service = block(["10.96.0.10/32", "fd00:10:96::a/128"]);
    vec![
        ("deny all", json!([]), [false, false]),
        ("allow all", json!([{}]), [true, true]),
        (
            "the DNS pods on its port",
            json!([{"to": kube_dns, "ports": both}]),
            [true, true],
        ),
        (
            "the DNS pods on all ports",
            json!([{"to": kube_dns}]),
            [true, true],
        ),
        (
            "everybody on its port",
            json!([{"ports": both}]),
            [true, true],
        ),
        (
            "only UDP",
            json!([{"ports": [{"protocol": "UDP", "port": 53}]}]),
            [true, false],
        ),
        (
            "only TCP",
            json!([{"to": kube_dns, "ports": [{"port": 53}]}]),
            [false, true],
        ),
        (
            "the endpoint's address",
            json!([{"to": endpoint, "ports": both}]),
            [true, true],
        ),
        // Egress is judged behind the Service: nothing goes to its own address.
        (
            "the Service's address",
            json!([{"to": service, "ports": both}]),
            [false, false],
        ),
        (
            "DNS is forgotten",
            json!([{"ports": [{"port": 443}]}]),
            [false, false],
        ),
        (
            "other pods",
            json!([{"to": [{"podSelector": {}}]}]),
            [false, false],
        ),
    ]
}

/// What differs between the node's server and the oracle.
fn differences(lab: &Lab, pod: &str, [udp, tcp]: [bool; 2]) -> Vec<String> {
    let mut wrong = Vec::new();
    for server in [SERVICE[0], SERVICE[1], LOCAL] {
        for (protocol, expected) in [(Protocol::Udp, udp), (Protocol::Tcp, tcp)] {
            let service = config().dns_service_of(ip(server)).unwrap();
            let from = lab.pod(pod).ips[usize::from(service.is_ipv6())];
            let from = End::at(&lab.cluster, from);
            let (_, said) = asking(&lab.cluster, &from, service, protocol);
            let found = is_answered(&lab.pod(pod).station, server, protocol);
            if found != expected || said.allowed != expected {
                wrong.push(format!(
                    "{pod} to {server} by {protocol}: answered {found}, expected {expected}, {said:?}"
                ));
            }
        }
    }
    wrong
}

#[test]
fn who_may_talk_to_the_clusters_dns_may_ask_the_nodes() {
    if !testing::root("who_may_talk_to_the_clusters_dns_may_ask_the_nodes") {
        return;
    }
    let mut lab = Lab::new();
    cluster_dns(&mut lab);
    let _answers = Answers::start(&lab.nodes[0].station);
    lab.nodes[0].policies.set_resolver(NodeDns::of(&config()));
    lab.settle();
    let mut wrong = Vec::new();
    for (name, egress, expected) in cases() {
        let object = about_a(&egress);
        lab.take(objects::read(&object).0);
        lab.settle();
        let mut found = differences(&lab, "x/a", expected);
        // Whom the policy is not about.
        found.extend(differences(&lab, "x/c", [true, true]));
        wrong.extend(found.iter().map(|line| format!("{name}: {line}")));
        lab.take(objects::gone(&object));
    }
    // Ingress is another matter.
    let closed = objects::policy("x", "closed", &json!({"podSelector": {}}));
    lab.take(objects::read(&closed).0);
    lab.settle();
    wrong.extend(differences(&lab, "x/a", [true, true]));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut conntrack = Conntrack::open_in(&lab.nodes[0].station.netns).unwrap();
    let mut tracked = 0;
    let mut count = |flow: linux::Flow| tracked += usize::from(flow.orig.dport == 53);
    conntrack.flows(&FlowFilter::default(), &mut count).unwrap();
    assert_eq!(tracked, 0);
}

#[test]
fn a_change_counts_from_the_next_packet_on() {
    if !testing::root("a_change_counts_from_the_next_packet_on") {
        return;
    }
    let mut lab = Lab::new();
    cluster_dns(&mut lab);
    let _answers = Answers::start(&lab.nodes[0].station);
    lab.nodes[0].policies.set_resolver(NodeDns::of(&config()));
    lab.settle();
    let mut stream = run_in(&lab.pod("x/a").station.netns, || {
        TcpStream::connect(SocketAddr::new(ip(SERVICE[0]), 53)).unwrap()
    })
    .unwrap();
    let mut ask = |patience: Duration| {
        stream.write_all(b"?").unwrap();
        let end = Instant::now() + patience;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        loop {
            match stream.read(&mut [0; 64]) {
                Ok(len) => return len > 0,
                Err(_) if Instant::now() < end => {}
                Err(_) => return false,
            }
        }
    };
    assert!(ask(PATIENCE));
    // The cluster's DNS stays allowed, and then is no more: also what is open ends.
    let block = json!([{"to": [{"ipBlock": {"cidr": "10.244.2.53/32"}}]}]);
    let object = about_a(&block);
    lab.take(objects::read(&object).0);
    lab.settle();
    assert!(ask(PATIENCE));
    // Without any endpoint the Service's address is asked.
    endpoints(&mut lab, false);
    lab.settle();
    assert_eq!(differences(&lab, "x/a", [false, false]), [""; 0]);
    assert!(!ask(PATIENCE));
    endpoints(&mut lab, true);
    lab.settle();
    assert!(ask(Duration::from_secs(10)));
    // The labels of the cluster's DNS decide.
    let by_label = json!([{"to": [{
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }]}]);
    lab.take(objects::read(&about_a(&by_label)).0);
    lab.settle();
    assert_eq!(differences(&lab, "x/a", [true, true]), [""; 0]);
    let other = Pod {
        labels: Labels::default(),
        ..(*lab.cluster.pods[&lab::key("kube-system/coredns")]).clone()
    };
    lab.take(Change::Pod(Arc::new(other)));
    lab.settle();
    assert_eq!(differences(&lab, "x/a", [false, false]), [""; 0]);
}

#[test]
fn a_pod_that_is_not_known_may_not_ask() {
    if !testing::root("a_pod_that_is_not_known_may_not_ask") {
        return;
    }
    let mut lab = Lab::new();
    cluster_dns(&mut lab);
    let _answers = Answers::start(&lab.nodes[0].station);
    lab.nodes[0].policies.set_resolver(NodeDns::of(&config()));
    lab.take(objects::read(&about_a(&json!([]))).0);
    let new = Pod {
        name: "new".into(),
        uid: "x-new".into(),
        node: "node1".into(),
        ips: lab::addresses(0, 99).into(),
        ..lab::pod(0, &lab::key("x/b"))
    };
    lab.attach(&new);
    lab.settle();
    let answered = |lab: &Lab| is_answered(&lab.pod("x/new").station, SERVICE[0], Protocol::Udp);
    assert!(!answered(&lab));
    lab.take(Change::Pod(Arc::new(new)));
    lab.settle();
    assert!(answered(&lab));
}
