//! Policies while pods come, connections last and agents die.

use std::io::Read as _;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually};
use crate::life::kill;
use crate::policies_written::{LONG, apply, ask, denied, ips, namespace, passes, pods, serving};

/// Everything, in a namespace of its own that ends with it.
pub fn hold(cluster: &Cluster) {
    namespace(cluster, "living", &[]);
    let called = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "called", "namespace": "living", "labels": { "app": "called" } },
        "spec": {
            "nodeName": "node2", "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "serve", "image": "registry.k8s.io/e2e-test-images/agnhost:2.53",
                "args": ["netexec", "--http-port=8080"],
            }],
        },
    });
    let all = [
        called,
        serving("living", "friend", "node1", &[80]),
        serving("living", "stranger", "node1", &[80]),
    ];
    pods(cluster, &all);
    let ip = ips(cluster, "living", "pod/called").remove(0);
    a_lasting_connection(cluster, &ip);
    probes_pass(cluster);
    first_packets(cluster, &ip);
    agents_die(cluster, &ip);
    stayed_ready(cluster);
    cluster.kube(&["delete", "namespace", "living", "--wait=false"]);
}

fn policy(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": name, "namespace": "living" }, "spec": spec })
}

/// One connection that asks ten times a second for eight seconds.
fn connection(cluster: &Cluster, from: &str, ip: &str) -> Child {
    let url = format!("http://{ip}:8080/hostname?[1-80]");
    let words = [
        "curl",
        "-sS",
        "-N",
        "--rate",
        "10/s",
        "--max-time",
        "3",
        "--fail-early",
        &url,
    ];
    let exec = ["-n", "living", "exec", from, "--"];
    let mut command = cluster.kubectl(&[&exec[..], &words].concat());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// What a new policy denies is cut, also in the midst of it; what it allows goes on.
fn a_lasting_connection(cluster: &Cluster, ip: &str) {
    let mut friend = connection(cluster, "friend", ip);
    let mut stranger = connection(cluster, "stranger", ip);
    for child in [&mut friend, &mut stranger] {
        let mut first = [0; 6];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut first)
            .unwrap();
        assert_eq!(&first, b"called");
    }
    let only = json!({ "podSelector": { "matchLabels": { "app": "called" } },
        "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "friend" } } }] }] });
    apply(cluster, &policy("only-friends", &only));
    // And further changes, about which the connection need not care.
    cluster.kube(&["-n", "living", "label", "pod", "friend", "more=labels"]);
    let all = json!({ "podSelector": { "matchLabels": { "app": "called" } }, "ingress": [
        { "from": [{ "podSelector": { "matchExpressions": [{ "key": "more", "operator": "Exists" }] } }] },
    ] });
    apply(cluster, &policy("more-labels", &all));
    cluster.kube(&["-n", "living", "delete", "networkpolicy", "more-labels"]);
    let kept = friend.wait_with_output().unwrap();
    let answers = |output: &[u8]| String::from_utf8_lossy(output).matches("called").count();
    let said = String::from_utf8_lossy(&kept.stderr);
    assert_eq!(answers(&kept.stdout), 79, "{said}");
    let cut = stranger.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&cut.stderr);
    assert!(said.contains("(28)"), "{said}");
    assert!(answers(&cut.stdout) < 79);
}

/// A Deployment under deny-all becomes ready: its own node asks.
fn probes_pass(cluster: &Cluster) {
    let nothing = json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] });
    apply(cluster, &policy("deny-all", &nothing));
    let url = format!("http://{}/", ips(cluster, "living", "pod/friend")[0]);
    denied(cluster, "living", "pod/stranger", &url);
    let probe = json!({ "httpGet": { "path": "/", "port": 80 }, "periodSeconds": 1,
        "failureThreshold": 2, "timeoutSeconds": 2 });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "probed", "namespace": "living" },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "probed" } },
            "template": {
                "metadata": { "labels": { "app": "probed" } },
                "spec": { "terminationGracePeriodSeconds": 0, "containers": [{
                    "name": "web", "image": "nginx",
                    "readinessProbe": probe, "livenessProbe": probe,
                }] },
            },
        },
    });
    apply(cluster, &deployment);
    let status = ["rollout", "status", "deployment/probed", "--timeout=60s"];
    cluster.kube(&[&["-n", "living"][..], &status].concat());
}

fn stayed_ready(cluster: &Cluster) {
    let path = "jsonpath={range .items[*]}{.status.containerStatuses[0].ready} \
        {.status.containerStatuses[0].restartCount};{end}";
    let get = [
        "-n",
        "living",
        "get",
        "pods",
        "-l",
        "app=probed",
        "-o",
        path,
    ];
    assert_eq!(cluster.kube(&get), "true 0;true 0;");
}

/// The first packet of a pod's first container is judged, and one that may pass does at once.
fn first_packets(cluster: &Cluster, ip: &str) {
    let allow = json!({ "podSelector": { "matchLabels": { "app": "friend-too" } },
        "egress": [{ "to": [{ "podSelector": { "matchLabels": { "app": "called" } } }] }],
        "policyTypes": ["Egress"] });
    apply(cluster, &policy("friends-out", &allow));
    let also = json!({ "podSelector": { "matchLabels": { "app": "called" } }, "ingress": [
        { "from": [{ "podSelector": { "matchExpressions": [
            { "key": "app", "operator": "In", "values": ["friend", "friend-too"] }] } }] },
    ] });
    apply(cluster, &policy("only-friends", &also));
    let early = |name: &str, node: &str| {
        let mut pod = serving("living", name, node, &[80]);
        let url = format!("http://{ip}:8080/hostname");
        pod["spec"]["initContainers"] = json!([{
            "name": "early", "image": "curlimages/curl",
            "command": ["sh", "-c", "curl -sS --max-time 3 \"$0\" 2>&1; true", url],
        }]);
        pod
    };
    // On the server's node and on the other one.
    let all = [
        ("friend-too", "node1"),
        ("unknown-a", "node1"),
        ("unknown-b", "node2"),
    ];
    pods(cluster, &all.map(|(name, node)| early(name, node)));
    for (name, _) in all {
        let said = cluster.kube(&["-n", "living", "logs", name, "-c", "early"]);
        let wanted = if name == "friend-too" {
            "called"
        } else {
            "(28)"
        };
        assert!(said.contains(wanted), "{name}: {said}");
    }
}

/// An agent that is killed and comes back opens nothing and closes nothing.
fn agents_die(cluster: &Cluster, ip: &str) {
    let url = format!("http://{ip}:8080/hostname");
    let (friend, stranger) = ("pod/friend-too", "pod/stranger");
    passes(cluster, "living", friend, &url);
    denied(cluster, "living", stranger, &url);
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let end = End(&over);
        let leaks = threads.spawn(|| {
            let mut tries = 0;
            while !over.load(Ordering::Relaxed) {
                let said = ask(cluster, "living", stranger, &url);
                assert!(said.is_err(), "let through: {said:?}");
                tries += 1;
            }
            tries
        });
        for node in ["node1", "node2"] {
            kill(cluster, &format!("nodes/{node}/agent"));
        }
        passes(cluster, "living", friend, &url);
        cluster.run(&["up"]);
        passes(cluster, "living", friend, &url);
        // The new agents follow: what opens now is their doing.
        cluster.kube(&[
            "-n",
            "living",
            "label",
            "pod",
            "friend",
            "app=friend-too",
            "--overwrite",
        ]);
        eventually("the new agents follow", LONG, || {
            ask(cluster, "living", "pod/friend", &url).ok()
        });
        drop(end);
        assert!(leaks.join().unwrap() > 0);
    });
}

/// Says that it is over, also on panic.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
