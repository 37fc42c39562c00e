//! What the benches of daemons share: our API server, and a program in a node's namespace whose
//! work the kernel tells of.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::Client;
use lab::paths::ClusterPaths;
use linux::{Event, Monitor, NetNs, Nftables, run_in};
use nft::{Family, Op, Transaction};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;

const FLATNET: &str = env!("CARGO_BIN_EXE_flatnet");
/// A process that has written nothing for so long is done.
pub const QUIET: Duration = Duration::from_secs(2);
pub const PATIENCE: Duration = Duration::from_secs(600);

/// A cluster of two nodes whose own daemons are ended; it goes away with its owner.
pub struct Cluster {
    pub paths: ClusterPaths,
    name: &'static str,
}

impl Cluster {
    pub fn up(name: &'static str) -> Self {
        let paths = ClusterPaths::new(name);
        let cluster = Self { paths, name };
        // The machine's own servers are no part of a figure.
        let upstream = concat!(env!("CARGO_TARGET_TMPDIR"), "/bench-upstream.conf");
        std::fs::write(upstream, "nameserver 203.0.113.10\n").expect("the target folder is there");
        let up = Command::new(FLATNET)
            .args(["--name", name, "up", "--nodes", "2"])
            .args(["--resolv-conf", upstream])
            .stdin(Stdio::null())
            .output()
            .expect("flatnet starts");
        let words = String::from_utf8_lossy(&up.stderr);
        assert!(up.status.success(), "{words}");
        let cgroup = lab::cluster::cgroup::mount().unwrap();
        let nodes = ["node1", "node2"].map(|node| cluster.paths.node_cgroup(node));
        for folder in nodes
            .into_iter()
            .chain([cluster.paths.cgroup().join("controllers")])
        {
            end_all(&cgroup.join(folder));
        }
        cluster
    }

    pub fn client(&self, runtime: &Runtime) -> Client {
        let kubeconfig = self.paths.kubeconfig();
        let client = async { api::client(Some(&kubeconfig), "bench").await };
        runtime.block_on(client).expect("the kubeconfig works")
    }

    pub fn netns(&self, node: &str) -> NetNs {
        NetNs::named(&self.paths.netns(node)).expect("the node's namespace")
    }

    /// The agent of node 1, not started, known by what it writes to a table.
    pub fn agent(&self, tables: &'static [(Family, &'static str)]) -> Daemon {
        let files = self.paths.node("node1");
        let mut command = Command::new(FLATNET);
        command
            .args(["agent", "--node", "node1", "--kubeconfig"])
            .arg(files.agent_kubeconfig())
            .arg("--socket")
            .arg(files.agent_socket())
            .arg("--state")
            .arg(files.agent_state())
            .arg("--cni-conf")
            .arg(files.cni_conf());
        Daemon::new(self, "flatnet", "node1", tables, command)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new(FLATNET)
            .args(["--name", self.name, "down"])
            .stdout(Stdio::null())
            .status();
    }
}

/// Ends the processes of a control group and of those below it.
fn end_all(folder: &Path) {
    let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|line| line.parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            end_all(&entry.path());
        }
    }
}

/// A program that brings rules into the kernel of a node's namespace.
pub struct Daemon {
    pub name: &'static str,
    pub netns: NetNs,
    monitor: Monitor,
    pub tables: &'static [(Family, &'static str)],
    command: Command,
    child: Option<Child>,
}

impl Daemon {
    pub fn new(
        cluster: &Cluster,
        name: &'static str,
        node: &str,
        tables: &'static [(Family, &'static str)],
        mut command: Command,
    ) -> Self {
        let log = std::env::temp_dir().join(format!("{}-{name}.log", cluster.name));
        let log = std::fs::File::create(log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let netns = cluster.netns(node);
        Self {
            name,
            monitor: Monitor::open_in(&netns).unwrap(),
            netns,
            tables,
            command,
            child: None,
        }
    }

    /// Takes away what an earlier one left.
    pub fn clear(&mut self) {
        let mut nftables = Nftables::open_in(&self.netns).unwrap();
        for (family, table) in self.tables {
            let delete = Transaction {
                family: *family,
                table: (*table).into(),
                ops: vec![Op::DeleteTable],
            };
            if let Err(error) = nftables.apply(&delete) {
                assert!(error.is_not_found(), "{error}");
            }
        }
        self.rest(Duration::from_millis(200));
    }

    /// Starts it; the time until it has written its last rule, with all there that is to be.
    pub fn start(&mut self, has_all: impl Fn(&Self) -> bool) -> Duration {
        let start = Instant::now();
        self.spawn();
        let mut last = None;
        loop {
            assert!(start.elapsed() < PATIENCE, "{} is never done", self.name);
            assert!(self.is_alive(), "{} ended, see its log", self.name);
            if self.hears(QUIET / 4, |_| true) {
                last = Some(Instant::now());
            } else if let Some(last) = last.filter(|last| last.elapsed() > QUIET) {
                // Not only between two writes.
                if has_all(self) {
                    return last - start;
                }
            }
        }
    }

    /// Starts it, and does not wait.
    pub fn spawn(&mut self) {
        let (netns, command) = (&self.netns, &mut self.command);
        let child = run_in(netns, || command.spawn()).unwrap();
        self.child = Some(child.unwrap_or_else(|error| panic!("start {}: {error}", self.name)));
    }

    fn is_alive(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Waits for rules of its own whose chain or set is one of these.
    pub fn hears(&mut self, patience: Duration, is: impl Fn(Option<&str>) -> bool) -> bool {
        let events = self.monitor.wait(patience).unwrap();
        events.iter().any(|event| match event {
            Event::Nftables { table, name } => {
                self.tables.iter().any(|(_, own)| own == table) && is(name.as_deref())
            }
            Event::Lost => true,
            _ => false,
        })
    }

    /// Waits until nothing has been written for a while.
    pub fn rest(&mut self, quiet: Duration) {
        let start = Instant::now();
        let mut last = Instant::now();
        while last.elapsed() < quiet {
            assert!(start.elapsed() < PATIENCE, "{} never rests", self.name);
            if self.hears(quiet, |_| true) {
                last = Instant::now();
            }
        }
    }

    pub fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its number while it runs.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Resident now and at most, in MB.
    pub fn resident(&self) -> (f64, f64) {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
            kib.unwrap_or_default() / 1024.0
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

/// Times from a request's start, and from its answer, until the kernel had what it asked for.
pub fn print_changes(name: &str, sent: &mut [Duration], answered: &mut [Duration]) {
    sent.sort();
    answered.sort();
    let ms = |times: &[Duration], hundredth: usize| {
        let at = (times.len() * hundredth / 100).min(times.len().saturating_sub(1));
        times.get(at).map_or(0.0, Duration::as_secs_f64) * 1e3
    };
    println!(
        "  {name:10} from its request: p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms; \
         from its answer: p50 {:.2} ms, p99 {:.2} ms ({} changes)",
        ms(sent, 50),
        ms(sent, 99),
        ms(sent, 100),
        ms(answered, 50),
        ms(answered, 99),
        sent.len()
    );
}
