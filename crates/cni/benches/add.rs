//! ADD and DEL as a runtime sees them (the plugin's process from its start to its end), beside
//! Debian's bridge and host-local plugins, one after the other in the same run.

#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on ends where it stands"
)]

#[path = "../tests/it/agent.rs"]
mod agent;
#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/it/lab.rs"]
mod lab;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::{Node, Pod};
use linux::{NetNs, run_in};
use serde_json::{Value, json};

const ROUNDS: usize = 100;
const PEER: &str = "/usr/lib/cni/bridge";

fn main() {
    agent::run_if_asked();
    if !lab::can_run("bench add") {
        return;
    }
    let node = Node::start(&["10.244.0.0/16"]);
    let bridged = Bridged::new();
    if bridged.is_none() {
        println!(
            "skipped: bench add: the peer {PEER} is not installed (Debian's containernetworking-plugins)"
        );
    }
    let mut ours = (Vec::new(), Vec::new());
    let mut nameless = Vec::new();
    let mut theirs = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let pod = Pod::new(&format!("c{round}"));
        ours.0.push(timed(|| drop(node.add_named(&pod))));
        ours.1.push(timed(|| node.del(&pod)));
        let other = Pod::new(&format!("n{round}"));
        nameless.push(timed(|| drop(node.add(&other))));
        node.del(&other);
        if let Some(peer) = &bridged {
            let pod = Pod::new(&format!("c{round}"));
            theirs.0.push(timed(|| peer.call("ADD", &pod)));
            theirs.1.push(timed(|| peer.call("DEL", &pod)));
        }
    }
    let (median, p90) = quantiles(nameless);
    println!("cni ADD of what no policy is about: median {median:.2} ms, p90 {p90:.2} ms");
    for (name, ours, theirs) in [("ADD", ours.0, theirs.0), ("DEL", ours.1, theirs.1)] {
        let (median, p90) = quantiles(ours);
        print!("cni {name}: flatnet median {median:.2} ms, p90 {p90:.2} ms");
        if !theirs.is_empty() {
            let (peer, peer_p90) = quantiles(theirs);
            print!(
                "; bridge + host-local median {peer:.2} ms, p90 {peer_p90:.2} ms; ratio {:.2}",
                median / peer
            );
        }
        println!();
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn quantiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    let at = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1000.0;
    (at(50), at(90))
}

/// Debian's plugins, in a node's namespace of their own.
struct Bridged {
    netns: NetNs,
    dir: tempfile::TempDir,
}

impl Bridged {
    fn new() -> Option<Bridged> {
        std::path::Path::new(PEER).exists().then(|| Bridged {
            netns: NetNs::anonymous().unwrap(),
            dir: tempfile::tempdir().unwrap(),
        })
    }

    fn conf(&self) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "peer", "type": "bridge", "bridge": "cni0", "isGateway": true,
            "ipam": {
                "type": "host-local", "dataDir": self.dir.path(),
                "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}],
            },
        })
    }

    fn call(&self, command: &str, pod: &Pod) {
        let mut plugin = Command::new(PEER);
        plugin
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", pod.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/usr/lib/cni")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = run_in(&self.netns, move || plugin.spawn())
            .unwrap()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(self.conf().to_string().as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}
