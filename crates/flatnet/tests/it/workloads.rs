//! What people run: the examples, and stock kubectl against them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cluster::{Cluster, eventually, root, text};

/// A helper process, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn running(mut command: Command) -> Running {
    Running(
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    )
}

#[test]
fn the_examples_come_up_and_kubectl_works_on_them() {
    if !root("the_examples_come_up_and_kubectl_works_on_them") {
        return;
    }
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let cluster = Cluster::up("work", &[]);
    cluster.kube(&["apply", "-f", examples]);
    cluster.kube(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.kube(&["rollout", "status", "statefulset/db", "--timeout=60s"]);
    cluster.kube(&["rollout", "status", "daemonset/node-info", "--timeout=60s"]);
    cluster.kube(&[
        "wait",
        "--for=condition=Ready",
        "pod/sidecar",
        "pod/dns-none",
        "--timeout=60s",
    ]);

    inside_pods(&cluster);
    files_and_ports(&cluster);
    changes(&cluster);
    cluster.down();
}

/// exec, logs, attach, and what a pod sees of its network.
fn inside_pods(cluster: &Cluster) {
    let routes = cluster.kube(&["exec", "deploy/web", "--", "ip", "route"]);
    assert!(
        routes.contains("default via 10.244.") && routes.contains("dev eth0"),
        "{routes}"
    );
    let resolv = cluster.kube(&["exec", "dns-none", "--", "cat", "/etc/resolv.conf"]);
    assert_eq!(
        resolv,
        "search example.org\nnameserver 192.0.2.53\noptions ndots:2 edns0\n"
    );
    eventually(
        "the logger reaches nginx on localhost",
        Duration::from_secs(10),
        || {
            let logs = cluster.kube(&["logs", "sidecar", "-c", "logger", "--tail", "1"]);
            logs.contains("localhost answered 200").then_some(())
        },
    );
    let output = cluster
        .kubectl(&["exec", "dns-none", "--", "sh", "-c", "exit 7"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));

    let mut command = cluster.kubectl(&["exec", "-i", "dns-none", "--", "cat"]);
    let mut cat = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    cat.stdin
        .take()
        .unwrap()
        .write_all(b"through and back\n")
        .unwrap();
    let output = cat.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"through and back\n");
}

/// cp, port-forward, and a pod reached by another at its address.
fn files_and_ports(cluster: &Cluster) {
    let folder = tempfile::tempdir().unwrap();
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    std::fs::write(&there, vec![b'x'; 200_000]).unwrap();
    cluster.kube(&["cp", there.to_str().unwrap(), "dns-none:/tmp/copied"]);
    cluster.kube(&["cp", "dns-none:/tmp/copied", back.to_str().unwrap()]);
    assert_eq!(
        std::fs::read(&there).unwrap(),
        std::fs::read(&back).unwrap()
    );

    let port = free_port();
    let forward = running(cluster.kubectl(&["port-forward", "deploy/web", &format!("{port}:80")]));
    let page = eventually(
        "the page through the forwarded port",
        Duration::from_secs(10),
        || get(port),
    );
    assert!(page.contains("<h1>Hello from flatnet</h1>"), "{page}");
    drop(forward);
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn get(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    (!page.is_empty()).then_some(page)
}

/// scale, a rolling update, labels, a diff, server-side apply.
fn changes(cluster: &Cluster) {
    cluster.kube(&["scale", "deployment/web", "--replicas=5"]);
    cluster.kube(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.kube(&["set", "env", "deployment/web", "STEP=2"]);
    cluster.kube(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let step = cluster.kube(&["exec", "deploy/web", "--", "printenv", "STEP"]);
    assert_eq!(step, "2\n");
    cluster.kube(&["rollout", "undo", "deployment/web"]);
    cluster.kube(&["rollout", "status", "deployment/web", "--timeout=60s"]);

    cluster.kube(&["label", "pod", "sidecar", "tier=front"]);
    assert!(
        cluster
            .kube(&["get", "pods", "-l", "tier=front", "-o", "name"])
            .contains("pod/sidecar")
    );
    let describe = cluster.kube(&["describe", "pod", "sidecar"]);
    assert!(
        describe.contains("Node:") && describe.contains("Events:"),
        "{describe}"
    );
}
