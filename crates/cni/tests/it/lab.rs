//! A node and pods to test with. Everything is anonymous or below a temporary folder, so it
//! goes with the test, however that ends.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use linux::link::NewKind;
use linux::{NetNs, Netlink, NewLink, run_in};
use model::Config;
use nix::sys::socket::{Shutdown, shutdown};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::agent::{self, World};

/// False, with a line that says so, where the test cannot be run.
pub use testing::root as can_run;

/// A node's namespace, with an agent in it or without.
pub struct Node {
    pub netns: NetNs,
    /// Beyond the node's eth0: 10.0.1.1, the node's default gateway.
    pub outside: NetNs,
    pub dir: TempDir,
    pub config: Config,
    pub pod_cidrs: Vec<String>,
    /// Of an API server the agent learns from, where there is one.
    pub kubeconfig: Option<PathBuf>,
    /// Pods and policies.
    pub world: World,
    agent: Option<Child>,
}

impl Node {
    /// A node with its agent, ready to attach pods of `ranges`.
    pub fn start(ranges: &[&str]) -> Node {
        let mut node = Node::without_agent(ranges);
        node.start_agent();
        node
    }

    pub fn without_agent(ranges: &[&str]) -> Node {
        let netns = NetNs::anonymous().unwrap();
        Netlink::open_in(&netns).unwrap().set_up(1).unwrap();
        let outside = NetNs::anonymous().unwrap();
        link_up(&netns, &outside);
        let dual = ranges.iter().any(|range| range.contains(':'));
        let mut config = Config::default();
        if dual {
            config
                .cluster_cidrs
                .push("fd00:10:244::/56".parse().unwrap());
        }
        Node {
            netns,
            outside,
            dir: tempfile::Builder::new()
                .prefix("flatnet-cni-")
                .tempdir()
                .unwrap(),
            config,
            pod_cidrs: ranges.iter().map(ToString::to_string).collect(),
            kubeconfig: None,
            world: World::default(),
            agent: None,
        }
    }

    pub fn start_agent(&mut self) {
        self.spawn_agent();
        let want = !self.pod_cidrs.is_empty() && self.kubeconfig.is_none();
        let unaware = self.dir.path().join(agent::UNAWARE).exists();
        until("the agent answers", || {
            self.ask_status().is_some_and(|status| {
                let known = status["settings"].is_object() && status["synced"] == true;
                let aware = status["policiesSynced"] == !unaware;
                !want || known && aware
            })
        });
    }

    pub fn spawn_agent(&mut self) {
        let node = json!({
            "name": "node1", "addresses": ["10.0.1.10"], "pod_cidrs": self.pod_cidrs,
            "vtep_mac": null, "vtep_mac_v6": null, "labels": {},
        });
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "agent::serve", "--ignored", "--nocapture"])
            .env(agent::DIR, self.dir.path())
            .env(agent::CONFIG, serde_json::to_string(&self.config).unwrap())
            .env(agent::NODE, node.to_string())
            .env(agent::WORLD, serde_json::to_string(&self.world).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(file) = &self.kubeconfig {
            command.env(agent::KUBECONFIG, file);
        }
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("agent.log"))
            .unwrap();
        command.stderr(log);
        let child = run_in(&self.netns, move || command.spawn())
            .unwrap()
            .unwrap();
        self.agent = Some(child);
    }

    /// `kill -9`.
    pub fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// The agent's process, which is killed (`kill -9`) when dropped.
    pub fn take_agent(&mut self) -> Killed {
        Killed(self.agent.take().unwrap())
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }

    /// The configuration as the runtime would hand it over.
    pub fn conf(&self, version: &str) -> Value {
        json!({
            "cniVersion": version, "name": "flatnet", "type": "flatnet-cni",
            "agentSocket": self.socket(), "stateDir": self.dir.path().join("state"),
        })
    }

    /// Runs the plugin.
    pub fn call(&self, command: &str, id: &str, netns: &str, conf: &Value) -> Answer {
        self.call_with(command, id, netns, conf, "")
    }

    pub fn call_with(
        &self,
        command: &str,
        id: &str,
        netns: &str,
        conf: &Value,
        args: &str,
    ) -> Answer {
        let mut plugin = Command::new(env!("CARGO_BIN_EXE_flatnet-cni"));
        plugin
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", args)
            .env("CNI_PATH", "/nonexistent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A runtime runs plugins in the node's own namespace.
        run(
            run_in(&self.netns, move || plugin.spawn())
                .unwrap()
                .unwrap(),
            conf,
        )
    }

    /// From now on the agent hears of pods and policies, or one that starts does not.
    pub fn set_aware(&self, aware: bool) {
        let file = self.dir.path().join(agent::UNAWARE);
        if aware {
            std::fs::remove_file(file).unwrap();
            until("policies are known", || {
                self.ask_status()
                    .is_some_and(|status| status["policiesSynced"] == true)
            });
        } else {
            std::fs::write(file, "").unwrap();
        }
    }

    /// ADD that must succeed.
    pub fn add(&self, pod: &Pod) -> Value {
        let answer = self.call("ADD", &pod.id, &pod.path(), &self.conf("1.1.0"));
        assert!(answer.ok, "{answer:?}\n{}", self.log());
        answer.json
    }

    /// The same for a pod of Kubernetes, whose name is that of its container.
    pub fn add_named(&self, pod: &Pod) -> Value {
        let answer = self.try_add_named(pod);
        assert!(answer.ok, "{answer:?}\n{}", self.log());
        answer.json
    }

    pub fn try_add_named(&self, pod: &Pod) -> Answer {
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={0};K8S_POD_UID={0}",
            pod.id
        );
        self.call_with("ADD", &pod.id, &pod.path(), &self.conf("1.1.0"), &args)
    }

    /// DEL that must succeed.
    pub fn del(&self, pod: &Pod) {
        let answer = self.call("DEL", &pod.id, &pod.path(), &self.conf("1.1.0"));
        assert!(answer.ok, "{answer:?}\n{}", self.log());
    }

    pub fn ask_status(&self) -> Option<Value> {
        let (socket, request) = (self.socket(), pods::wire::Request::Status);
        match pods::wire::ask(&socket, &request, Duration::from_secs(30)) {
            Ok(pods::wire::Answer::Ok(status)) => Some(status),
            _ => None,
        }
    }

    pub fn status(&self) -> Value {
        match pods::wire::ask(
            &self.socket(),
            &pods::wire::Request::Status,
            Duration::from_secs(30),
        ) {
            Ok(pods::wire::Answer::Ok(status)) => status,
            other => panic!("{other:?}\n{}", self.log()),
        }
    }

    pub fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.netns).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_agent();
    }
}

/// A process that is killed when dropped.
pub struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the plugin with nothing but a command.
pub fn plugin_alone(command: &str, conf: &Value) -> Answer {
    let mut plugin = Command::new(env!("CARGO_BIN_EXE_flatnet-cni"));
    plugin.env_clear().env("CNI_COMMAND", command);
    run(
        plugin
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
        conf,
    )
}

fn run(mut child: Child, conf: &Value) -> Answer {
    // It may have refused the call before it read its input.
    let _ = child
        .stdin
        .take()
        .unwrap()
        .write_all(conf.to_string().as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    Answer {
        ok: output.status.success(),
        json: if text.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap()
        },
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What the plugin answered.
#[derive(Debug)]
pub struct Answer {
    pub ok: bool,
    pub json: Value,
    #[allow(dead_code, reason = "printed where an assertion fails")]
    pub stderr: String,
}

impl Answer {
    pub fn code(&self) -> u64 {
        assert!(!self.ok, "{self:?}");
        self.json["code"].as_u64().unwrap()
    }

    pub fn msg(&self) -> String {
        format!(
            "{}: {}",
            self.json["msg"].as_str().unwrap(),
            self.json["details"].as_str().unwrap_or_default()
        )
    }
}

/// A pod's namespace.
pub struct Pod {
    pub id: String,
    pub netns: NetNs,
}

impl Pod {
    pub fn new(id: &str) -> Pod {
        Pod {
            id: id.to_owned(),
            netns: NetNs::anonymous().unwrap(),
        }
    }

    /// A path other processes can open for as long as this value lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd())
    }

    pub fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.netns).unwrap()
    }
}

/// The first address in a result of ADD.
pub fn ip_of(result: &Value, at: usize) -> IpAddr {
    let text = result["ips"][at]["address"].as_str().unwrap();
    text.split('/').next().unwrap().parse().unwrap()
}

/// Whether a TCP connection from one namespace reaches a listener in another at `to`; the
/// source address the listener saw.
pub fn connect(
    from: &NetNs,
    listener_in: &NetNs,
    listen: SocketAddr,
    to: SocketAddr,
) -> std::io::Result<SocketAddr> {
    let listener = Listener::bind(listener_in, listen)?;
    let client = run_in(from, || {
        TcpStream::connect_timeout(&to, Duration::from_secs(30))
    })
    .unwrap()?;
    let (_, seen) = listener.0.accept()?;
    drop(client);
    Ok(seen)
}

/// A listener whose address is free as soon as this is dropped. Closing alone does not do that:
/// the child that another test is just forking has a copy of the socket until it runs its
/// program, and the copy goes on listening.
pub struct Listener(pub TcpListener);

impl Listener {
    pub fn bind(netns: &NetNs, at: SocketAddr) -> std::io::Result<Listener> {
        run_in(netns, || TcpListener::bind(at))
            .unwrap()
            .map(Listener)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Ends the listening itself, for all copies.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Read);
    }
}

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A link from the node to somewhere else, with the default route through it.
fn link_up(node: &NetNs, outside: &NetNs) {
    let mut netlink = Netlink::open_in(node).unwrap();
    let peer = linux::VethEnd {
        name: "eth0",
        netns: Some(outside),
        mtu: None,
        mac: None,
    };
    netlink
        .create_link(&NewLink::new("eth0", NewKind::Veth(peer)))
        .unwrap();
    let mut far = Netlink::open_in(outside).unwrap();
    let index = far.expect_link("eth0").unwrap().index;
    far.set_up(index).unwrap();
    far.add_address(&linux::Address::new(
        index,
        "10.0.1.1/24".parse::<ipnet::IpNet>().unwrap(),
    ))
    .unwrap();
    let index = netlink.expect_link("eth0").unwrap().index;
    netlink
        .add_address(&linux::Address::new(
            index,
            "10.0.1.10/24".parse::<ipnet::IpNet>().unwrap(),
        ))
        .unwrap();
    let default = linux::Route::new("0.0.0.0/0".parse::<ipnet::IpNet>().unwrap(), index);
    netlink
        .add_route(&default.via("10.0.1.1".parse().unwrap()))
        .unwrap();
}
