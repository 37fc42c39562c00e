//! What people run: the examples, and stock kubectl against them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
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
        Duration::from_secs(30),
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

    let script = "while read line; do echo got $line; done";
    cluster.kube(&[
        "run",
        "talker",
        "--image=busybox:1.36",
        "-i",
        "--attach=false",
        "--restart=Never",
        "--",
        "sh",
        "-c",
        script,
    ]);
    cluster.kube(&[
        "wait",
        "--for=condition=Ready",
        "pod/talker",
        "--timeout=30s",
    ]);
    let mut command = cluster.kubectl(&["attach", "-i", "talker"]);
    let mut attached = Running(
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut input = attached.0.stdin.take().unwrap();
    input.write_all(b"word\n").unwrap();
    let mut answer = [0; 9];
    attached
        .0
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut answer)
        .unwrap();
    assert_eq!(&answer, b"got word\n");
    drop((input, attached));

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

    let mut forward = running(cluster.kubectl(&["port-forward", "deploy/web", ":80"]));
    let mut said = String::new();
    let mut output = BufReader::new(forward.0.stdout.take().unwrap());
    output.read_line(&mut said).unwrap();
    let port = said.strip_prefix("Forwarding from 127.0.0.1:");
    let port = port.and_then(|rest| rest.split(' ').next()?.parse().ok());
    let port = port.unwrap_or_else(|| panic!("kubectl port-forward: {said:?}"));
    let page = eventually(
        "the page through the forwarded port",
        Duration::from_secs(30),
        || get(port),
    );
    assert!(page.contains("<h1>Hello from flatnet</h1>"), "{page}");
    drop(forward);
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

    let mut watch =
        running(cluster.kubectl(&["get", "pods", "-l", "tier=front", "-w", "-o", "name"]));
    cluster.kube(&["label", "pod", "sidecar", "tier=front"]);
    let mut seen = [0; 11];
    watch
        .0
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut seen)
        .unwrap();
    assert_eq!(&seen, b"pod/sidecar");
    drop(watch);
    let describe = cluster.kube(&["describe", "pod", "sidecar"]);
    assert!(
        describe.contains("Node:") && describe.contains("Events:"),
        "{describe}"
    );
    applied_by_the_server(cluster);
}

/// diff, server-side apply with its conflicts, edit.
fn applied_by_the_server(cluster: &Cluster) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("map.yaml");
    let path = file.to_str().unwrap();
    let map = |value: &str| {
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: map\ndata:\n  key: {value}\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    map("one");
    cluster.kube(&["apply", "--server-side", "-f", path]);
    map("two");
    let diff = cluster
        .kubectl(&["diff", "--server-side", "-f", path])
        .output()
        .unwrap();
    assert_eq!(diff.status.code(), Some(1), "{}", text(&diff));
    assert!(text(&diff).contains("+  key: two"), "{}", text(&diff));
    let conflict = cluster
        .kubectl(&[
            "apply",
            "--server-side",
            "--field-manager=other",
            "-f",
            path,
        ])
        .output()
        .unwrap();
    assert!(text(&conflict).contains("conflict"), "{}", text(&conflict));
    cluster.kube(&[
        "apply",
        "--server-side",
        "--field-manager=other",
        "--force-conflicts",
        "-f",
        path,
    ]);
    let output = cluster
        .kubectl(&["edit", "configmap", "map"])
        .env("KUBE_EDITOR", "sed -i s/two/three/")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(
        cluster.kube(&["get", "configmap", "map", "-o", "jsonpath={.data.key}"]),
        "three"
    );
}
