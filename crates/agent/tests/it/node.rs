//! A node: a namespace without a name, and the agent in it.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agent::{Options, Source, Update};
use linux::link::NewKind;
use linux::{Address, NetNs, Netlink, NewLink, VethEnd, run_in};
use model::{
    Change, Config, Endpoint, EndpointSlice, Protocol, Service, ServicePort, ServiceType,
    SlicePort, TrafficPolicy,
};
use tokio::sync::{Notify, mpsc};

pub const HEALTH: u16 = 10256;
pub const METRICS: u16 = 10249;

pub struct Node {
    pub netns: Arc<NetNs>,
    dir: tempfile::TempDir,
}

/// A running agent; it ends with this.
pub struct Agent {
    pub updates: mpsc::Sender<Update>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    pub fn new() -> Self {
        let netns = NetNs::anonymous().unwrap();
        let mut netlink = Netlink::open_in(&netns).unwrap();
        netlink.set_up(1).unwrap();
        let far = NewKind::Veth(VethEnd {
            name: "far",
            netns: None,
            mac: None,
            mtu: None,
        });
        netlink.create_link(&NewLink::new("eth0", far)).unwrap();
        for link in ["eth0", "far"] {
            let index = netlink.expect_link(link).unwrap().index;
            netlink.set_up(index).unwrap();
        }
        let eth0 = netlink.expect_link("eth0").unwrap().index;
        let own: ipnet::IpNet = "10.0.1.10/24".parse().unwrap();
        netlink.add_address(&Address::new(eth0, own)).unwrap();
        Self {
            netns: Arc::new(netns),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Starts the agent and tells it of its node and the configuration, of no Service and of no
    /// policy.
    pub fn start(&self, config: &Config) -> Agent {
        let agent = self.start_unaware(config);
        agent.say(Update::PoliciesSynced);
        agent
    }

    /// The same, and no word of pods and policies.
    pub fn start_unaware(&self, config: &Config) -> Agent {
        let (updates, receiver) = mpsc::channel(4096);
        let stop = Arc::new(Notify::new());
        let (netns, stopped) = (self.netns.clone(), stop.clone());
        let options = Options {
            socket: self.socket(),
            // One of its own: the thread that holds the last one's ends a moment after its agent.
            state: tempfile::tempdir_in(self.dir.path()).unwrap().keep(),
            cni_conf: None,
            metrics: Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), METRICS)),
            ..Options::new("node1", Source::Given(receiver))
        };
        let thread = std::thread::spawn(move || {
            netns.enter().unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    ended = agent::run(options) => panic!("the agent ended: {ended:?}"),
                    () = stopped.notified() => {}
                }
            });
        });
        let agent = Agent {
            updates,
            stop,
            thread: Some(thread),
        };
        agent.say(Update::Config(Box::new(config.clone())));
        agent.change(Change::Node(model::Node {
            name: "node1".into(),
            addresses: vec!["10.0.1.10".parse().unwrap()],
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
            vtep_mac: None,
            vtep_mac_v6: None,
            labels: std::collections::BTreeMap::default(),
            leaving: false,
        }));
        agent.say(Update::Synced);
        agent
    }

    /// Where the agent listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    /// What a port of this node answers to a GET; none where nobody listens.
    pub fn get(&self, port: u16, path: &str) -> Option<String> {
        use std::io::{Read as _, Write as _};
        run_in(&self.netns, || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text)
        })
        .unwrap()
    }
}

impl Agent {
    pub fn say(&self, update: Update) {
        self.updates.blocking_send(update).unwrap();
    }

    pub fn change(&self, change: Change) {
        self.say(Update::Change(change));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

pub fn service(name: &str, ip: [u8; 4], health: Option<u16>) -> Change {
    Change::Service(Arc::new(Service {
        namespace: "d".into(),
        name: name.into(),
        kind: if health.is_some() {
            ServiceType::LoadBalancer
        } else {
            ServiceType::ClusterIp
        },
        cluster_ips: vec![ip.into()],
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        external_policy: if health.is_some() {
            TrafficPolicy::Local
        } else {
            TrafficPolicy::Cluster
        },
        health_check_port: health,
        ..Service::default()
    }))
}

pub fn slice(service: &str, ips: &[[u8; 4]]) -> Change {
    let endpoints = ips.iter().map(|ip| Endpoint {
        ip: (*ip).into(),
        more: Box::default(),
        ready: true,
        serving: true,
        terminating: false,
        node: Some("node1".into()),
        zone: None,
        hostname: None,
        pod: None,
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
    });
    Change::Slice(Arc::new(EndpointSlice {
        namespace: "d".into(),
        name: format!("{service}-1"),
        service: service.into(),
        v6: false,
        ports: vec![SlicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: Some(8080),
        }],
        endpoints: endpoints.collect(),
        triggered: None,
    }))
}

/// Waits until it holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
