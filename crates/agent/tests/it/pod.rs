//! Pods as a runtime makes them: a namespace, and the agent asked to attach it.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use linux::{NetNs, run_in};
use model::{Change, LabelSelector, Labels, NetworkPolicy, policy};
use pods::cni::{Call, CniError, Command};
use pods::wire::{Answer, Request, ask};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::node::Node;

/// Long enough for what arrives, on a machine that is not busy: where it is, a connection may be
/// taken for refused, never for let through.
const WAIT: Duration = Duration::from_millis(200);

/// One container's namespace.
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub netns: Arc<NetNs>,
    /// Once it is attached.
    pub ip: Option<IpAddr>,
}

impl Pod {
    pub fn new(namespace: &str, name: &str) -> Self {
        let netns = Arc::new(NetNs::anonymous().unwrap());
        linux::Netlink::open_in(&netns).unwrap().set_up(1).unwrap();
        Self {
            namespace: namespace.into(),
            name: name.into(),
            netns,
            ip: None,
        }
    }

    /// A pod that is there and attached.
    pub fn add(node: &Node, namespace: &str, name: &str) -> Self {
        let mut pod = Self::new(namespace, name);
        pod.attach(node, None).unwrap();
        pod
    }

    /// Its `metadata.uid`, and the name of its container.
    pub fn uid(&self) -> String {
        format!("{}-{}", self.namespace, self.name)
    }

    /// ADD, with an address where one is asked for.
    pub fn attach(&mut self, node: &Node, ip: Option<IpAddr>) -> Result<(), CniError> {
        let result = cni(node, &self.call(Command::Add, ip))?;
        let text = result["ips"][0]["address"].as_str().unwrap();
        self.ip = Some(text.split('/').next().unwrap().parse().unwrap());
        Ok(())
    }

    /// DEL.
    pub fn detach(&self, node: &Node) {
        cni(node, &self.call(Command::Del, None)).unwrap();
    }

    pub fn call(&self, command: Command, ip: Option<IpAddr>) -> Call {
        let Self {
            namespace, name, ..
        } = self;
        let ip = ip.map(|ip| format!(";IP={ip}")).unwrap_or_default();
        let uid = self.uid();
        Call {
            command,
            container_id: uid.clone(),
            netns: format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd()),
            ifname: "eth0".into(),
            args: format!(
                "K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID={uid}{ip}"
            ),
        }
    }

    /// Its object, as the cluster has it before it has an address.
    pub fn object(&self, labels: Labels) -> model::Pod {
        model::Pod {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid(),
            node: "node1".into(),
            ips: Vec::new(),
            host_network: false,
            labels,
            ports: Vec::new(),
            created: 0,
            leaving: false,
        }
    }

    /// The same as a change.
    pub fn known(&self, labels: Labels) -> Change {
        Change::Pod(Arc::new(self.object(labels)))
    }

    /// What listens on this port, until it is dropped.
    pub fn listen(&self, port: u16) -> Listener {
        let at = SocketAddr::new(self.ip.unwrap(), port);
        let listener = run_in(&self.netns, || TcpListener::bind(at)).unwrap();
        Listener::accept(listener.unwrap())
    }

    /// Whether a connection is made.
    pub fn reaches(&self, to: IpAddr, port: u16) -> bool {
        let at = SocketAddr::new(to, port);
        run_in(&self.netns, || {
            TcpStream::connect_timeout(&at, WAIT).is_ok()
        })
        .unwrap()
    }

    /// A socket that packets leave by, each to the same place.
    pub fn udp(&self) -> UdpSocket {
        let socket = run_in(&self.netns, || UdpSocket::bind("0.0.0.0:0")).unwrap();
        socket.unwrap()
    }
}

/// Asks the agent as the plugin does.
pub fn cni(node: &Node, call: &Call) -> Result<Value, CniError> {
    let config = r#"{"cniVersion":"1.1.0","name":"flatnet","type":"flatnet-cni"}"#;
    let request = Request::Cni {
        call: call.clone(),
        config: RawValue::from_string(config.into()).unwrap(),
    };
    match ask(&node.socket(), &request, Duration::from_secs(20)) {
        Ok(Answer::Ok(value)) => Ok(value),
        Ok(Answer::Error(error)) => Err(error),
        Err(error) => Err(CniError::new(pods::cni::code::IO, error.to_string())),
    }
}

/// Takes connections, until it is dropped.
pub struct Listener {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    fn accept(listener: TcpListener) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if listener.accept().is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A policy about all pods of a namespace.
pub fn policy(
    namespace: &str,
    ingress: Option<Vec<policy::Rule>>,
    egress: Option<Vec<policy::Rule>>,
) -> Change {
    Change::Policy(Arc::new(NetworkPolicy {
        namespace: namespace.into(),
        name: "policy".into(),
        uid: format!("policy-{namespace}"),
        pods: LabelSelector::default(),
        ingress,
        egress,
    }))
}

/// A rule for pods of any namespace with this label.
pub fn with_label(key: &str, value: &str) -> policy::Rule {
    let pods = LabelSelector {
        match_labels: [(key, value)].into(),
        ..LabelSelector::default()
    };
    let namespaces = policy::Namespaces::Selected(LabelSelector::default());
    policy::Rule {
        peers: Some(vec![policy::Peer::Pods { namespaces, pods }]),
        ports: None,
    }
}

/// A namespace's object.
pub fn namespace(name: &str) -> Change {
    Change::Namespace(Arc::new(model::Namespace {
        name: name.into(),
        labels: Labels::default(),
    }))
}
