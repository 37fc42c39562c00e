//! Figures of the one-machine cluster, from the release binary: how long `flatnet up` takes
//! until three nodes are ready, what the API server keeps resident, and how long 1,000 pods
//! on 50 nodes take.
//!
//! `cargo bench -p flatnet --bench cluster`, as root.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const FLATNET: &str = env!("CARGO_BIN_EXE_flatnet");
const ROUNDS: usize = 5;
const SCALE_NODES: &str = "50";
const SCALE_PODS: usize = 1000;

/// A cluster that goes away with its owner, also when a figure could not be taken.
struct Cluster(&'static str);

impl Cluster {
    fn up(name: &'static str, nodes: &str) -> (Self, Duration) {
        let cluster = Self(name);
        let start = Instant::now();
        // The machine's own servers are no part of a figure.
        let upstream = concat!(env!("CARGO_TARGET_TMPDIR"), "/bench-upstream.conf");
        std::fs::write(upstream, "nameserver 203.0.113.10\n").expect("the target folder is there");
        let words = ["up", "--resolv-conf", upstream, "--nodes", nodes];
        run(Command::new(FLATNET).args(["--name", name]).args(words));
        (cluster, start.elapsed())
    }

    fn kubectl(&self, args: &[&str]) -> Output {
        run(Command::new(FLATNET)
            .args(["--name", self.0, "kubectl", "--"])
            .args(args))
    }

    fn apiserver_resident_mb(&self) -> f64 {
        let procs = cgroup2()
            .join("flatnet")
            .join(self.0)
            .join("apiserver/cgroup.procs");
        let pids = std::fs::read_to_string(procs).unwrap_or_default();
        let kib: u64 = pids.lines().filter_map(resident_kib).sum();
        kib as f64 / 1024.0
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new(FLATNET)
            .args(["--name", self.0, "down"])
            .stdout(Stdio::null())
            .status();
    }
}

fn run(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn cgroup2() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/mounts").expect("/proc is mounted");
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"))
        .expect("cgroup v2 is mounted");
    line.split(' ')
        .nth(1)
        .map(PathBuf::from)
        .expect("a mount has a place")
}

fn resident_kib(pid: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn three_nodes() {
    let mut times = Vec::new();
    let mut resident = Vec::new();
    for _ in 0..ROUNDS {
        let (cluster, took) = Cluster::up("bench-up", "3");
        times.push(took.as_secs_f64());
        resident.push(cluster.apiserver_resident_mb());
    }
    times.sort_by(f64::total_cmp);
    resident.sort_by(f64::total_cmp);
    println!(
        "three nodes ready after `flatnet up`: median {:.2} s, worst {:.2} s of {ROUNDS} (target 2 s)",
        times[ROUNDS / 2],
        times[ROUNDS - 1]
    );
    println!(
        "API server resident, three nodes: median {:.1} MB, worst {:.1} MB (target 40 MB)",
        resident[ROUNDS / 2],
        resident[ROUNDS - 1]
    );
}

fn thousand_pods() {
    let (cluster, took) = Cluster::up("bench-scale", SCALE_NODES);
    println!("{SCALE_NODES} nodes ready: {:.2} s", took.as_secs_f64());
    let start = Instant::now();
    let replicas = format!("--replicas={SCALE_PODS}");
    cluster.kubectl(&[
        "create",
        "deployment",
        "scale",
        "--image=registry.k8s.io/pause:3.10",
        &replicas,
    ]);
    cluster.kubectl(&["rollout", "status", "deployment/scale", "--timeout=600s"]);
    println!(
        "{SCALE_PODS} pods on {SCALE_NODES} nodes running: {:.1} s (target 60 s); API server resident {:.1} MB",
        start.elapsed().as_secs_f64(),
        cluster.apiserver_resident_mb()
    );
}

fn main() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: cluster bench: needs root");
        return;
    }
    three_nodes();
    thousand_pods();
}
