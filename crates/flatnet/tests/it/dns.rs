//! Names as guides to Kubernetes show them: every kind of record, the search path and what it
//! costs, pods with settings of their own, and the clients that images bring.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::cluster::{Cluster, eventually, root, text};
use crate::internet::{GOOGLE, Internet};
use crate::stock_clients;

const PATIENCE: Duration = Duration::from_secs(30);

/// What the guides apply, and pods that ask.
const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: my-app}
spec:
  selector: {app: my-app}
  ports: [{name: http, port: 80, targetPort: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: my-app-headless}
spec:
  clusterIP: None
  selector: {app: my-app}
  ports: [{name: http, port: 80, targetPort: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: external-db}
spec: {type: ExternalName, externalName: www.example.org}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: my-app}
spec:
  serviceName: my-app-headless
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: my-app}}
  template:
    metadata: {labels: {app: my-app}}
    spec:
      containers: [{name: web, image: nginx, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: netshoot}
spec: {containers: [{name: app, image: nicolaka/netshoot, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: busybox}
spec: {containers: [{name: app, image: "busybox:1.36", command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: curl}
spec: {containers: [{name: app, image: curlimages/curl, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: optimized-dns}
spec:
  dnsConfig: {options: [{name: ndots, value: "1"}]}
  containers: [{name: app, image: nicolaka/netshoot, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: custom-dns-pod}
spec:
  dnsPolicy: "None"
  dnsConfig:
    nameservers: [203.0.113.10]
    searches: [example.org]
    options: [{name: ndots, value: "2"}, {name: edns0}]
  containers: [{name: app, image: nicolaka/netshoot, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: node-dns}
spec:
  dnsPolicy: Default
  containers: [{name: app, image: nicolaka/netshoot, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: host-net}
spec:
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  containers: [{name: app, image: nicolaka/netshoot, command: [sleep, infinity]}]
"#;

pub fn apply(cluster: &Cluster, objects: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("objects.yaml");
    std::fs::write(&file, objects).unwrap();
    cluster.kube(&["apply", "-f", file.to_str().unwrap()]);
}

fn ready(cluster: &Cluster) {
    cluster.kube(&[
        "wait",
        "--for=condition=Ready",
        "pod",
        "--all",
        "--timeout=60s",
    ]);
    let own = [
        "-n",
        "kube-system",
        "rollout",
        "status",
        "deployment/coredns",
        "--timeout=60s",
    ];
    cluster.kube(&own);
}

/// What a command in a pod prints.
pub fn inside(cluster: &Cluster, pod: &str, words: &[&str]) -> String {
    cluster.kube(&[&["exec", pod, "--"], words].concat())
}

/// What a command in a pod prints, both streams, whatever comes of it.
pub fn tried(cluster: &Cluster, pod: &str, words: &[&str]) -> (bool, String) {
    let output = cluster
        .kubectl(&[&["exec", pod, "--"], words].concat())
        .output()
        .unwrap();
    (output.status.success(), text(&output))
}

/// A field of an object.
pub fn field(cluster: &Cluster, object: &str, path: &str) -> String {
    cluster.kube(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn names_are_resolved_as_the_guides_show() {
    if !root("names_are_resolved_as_the_guides_show") {
        return;
    }
    let cluster = Cluster::up("dns", &["--nodes", "2"]);
    let internet = Internet::start(&cluster);
    apply(&cluster, OBJECTS);
    ready(&cluster);
    every_kind_of_record(&cluster);
    stock_clients::all(&cluster);
    search_path(&cluster, &internet);
    settings_of_pods(&cluster);
    questions_of_people(&cluster);
    drop(internet);
    cluster.down();
}

fn every_kind_of_record(cluster: &Cluster) {
    let dig = |words: &[&str]| {
        let words = [&["dig", "+short"][..], words].concat();
        inside(cluster, "netshoot", &words).trim().to_owned()
    };
    let service = field(cluster, "svc/my-app", ".spec.clusterIP");
    assert_eq!(dig(&["my-app.default.svc.cluster.local"]), service);
    let first = field(cluster, "pod/my-app-0", ".status.podIP");
    let second = field(cluster, "pod/my-app-1", ".status.podIP");
    let both = sorted(&format!("{first}\n{second}"));
    assert_eq!(
        sorted(&dig(&["my-app-headless.default.svc.cluster.local"])),
        both
    );
    assert_eq!(
        dig(&["my-app-0.my-app-headless.default.svc.cluster.local"]),
        first
    );
    assert_eq!(
        dig(&["_http._tcp.my-app.default.svc.cluster.local", "SRV"]),
        "0 100 80 my-app.default.svc.cluster.local."
    );
    let of_pods = dig(&[
        "_http._tcp.my-app-headless.default.svc.cluster.local",
        "SRV",
    ]);
    assert_eq!(
        sorted(&of_pods),
        [
            "0 50 80 my-app-0.my-app-headless.default.svc.cluster.local.",
            "0 50 80 my-app-1.my-app-headless.default.svc.cluster.local.",
        ]
    );
    let dashed = format!("{}.default.pod.cluster.local", first.replace('.', "-"));
    assert_eq!(dig(&[&dashed]), first);
    assert_eq!(dig(&["-x", &service]), "my-app.default.svc.cluster.local.");
    // Of both Services that it stands behind.
    let names = sorted(&dig(&["-x", &first]));
    let by_address = format!(
        "{}.my-app.default.svc.cluster.local.",
        first.replace('.', "-")
    );
    let by_name = "my-app-0.my-app-headless.default.svc.cluster.local.".to_owned();
    assert_eq!(names, [by_address, by_name]);
    assert_eq!(dig(&["dns-version.cluster.local", "TXT"]), "\"1.1.0\"");
    assert_eq!(
        dig(&["external-db.default.svc.cluster.local"]),
        format!("www.example.org.\n{GOOGLE}")
    );
    let status = |name: &str, kind: &str| {
        let answer = inside(cluster, "netshoot", &["dig", name, kind]);
        let start = answer.find("status: ").map(|at| at + 8).unwrap();
        answer[start..].split(',').next().unwrap().to_owned()
    };
    assert_eq!(status("nobody.default.svc.cluster.local", "A"), "NXDOMAIN");
    assert_eq!(
        status("my-app.default.svc.cluster.local", "AAAA"),
        "NOERROR"
    );
    assert_eq!(status("default.svc.cluster.local", "A"), "NOERROR");
    assert_eq!(status("nowhere.svc.cluster.local", "A"), "NXDOMAIN");
}

/// The packets that leave a pod to port 53.
struct Watch {
    tcpdump: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Watch {
    fn start(cluster: &Cluster, pod: &str) -> Self {
        let words = [
            "exec", pod, "--", "tcpdump", "-lni", "eth0", "udp", "dst", "port", "53",
        ];
        let mut command = cluster.kubectl(&words);
        let mut tcpdump = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(tcpdump.stderr.take().unwrap());
        let listens = said
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("listening on"));
        assert!(listens, "tcpdump in {pod} does not listen");
        let lines = BufReader::new(tcpdump.stdout.take().unwrap());
        Self { tcpdump, lines }
    }

    /// The names asked for, up to the one that ends with `last`.
    fn names(mut self, last: &str) -> Vec<String> {
        let mut names = Vec::new();
        for line in self.lines.by_ref().lines().map_while(Result::ok) {
            let name = line
                .split("A? ")
                .nth(1)
                .and_then(|rest| rest.split(' ').next());
            names.extend(name.map(str::to_owned));
            if names.last().is_some_and(|name| name == last) {
                return names;
            }
        }
        panic!("{last} was not asked for, but {names:?}");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

/// `ndots:5`: four questions for a name of the internet, one where the pod or the name says so.
fn search_path(cluster: &Cluster, internet: &Internet) {
    let resolv = inside(cluster, "netshoot", &["cat", "/etc/resolv.conf"]);
    assert_eq!(
        resolv,
        "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    );
    let asked = |pod: &str, name: &str| {
        let watch = Watch::start(cluster, pod);
        let said = inside(cluster, pod, &["getent", "ahostsv4", name]);
        assert!(said.contains(GOOGLE), "{said}");
        watch.names("google.com.")
    };
    assert_eq!(
        asked("netshoot", "google.com"),
        [
            "google.com.default.svc.cluster.local.",
            "google.com.svc.cluster.local.",
            "google.com.cluster.local.",
            "google.com.",
        ]
    );
    assert_eq!(asked("netshoot", "google.com."), ["google.com."]);
    assert_eq!(asked("optimized-dns", "google.com"), ["google.com."]);
    // What the search path makes of it is the cluster's to deny, not the internet's.
    assert_eq!(internet.asked("google.com.cluster.local.", "A"), 0);
}

fn settings_of_pods(cluster: &Cluster) {
    let said = inside(cluster, "custom-dns-pod", &["getent", "ahostsv4", "www"]);
    assert!(said.contains(GOOGLE), "{said}");
    let (found, _) = tried(cluster, "custom-dns-pod", &["getent", "hosts", "my-app"]);
    assert!(!found, "dnsPolicy None knows no cluster");
    let resolv = inside(cluster, "node-dns", &["cat", "/etc/resolv.conf"]);
    assert_eq!(resolv, "nameserver 10.0.1.1\n");
    let said = inside(cluster, "node-dns", &["getent", "ahostsv4", "google.com"]);
    assert!(said.contains(GOOGLE), "{said}");
    let resolv = inside(cluster, "optimized-dns", &["cat", "/etc/resolv.conf"]);
    assert!(resolv.ends_with("options ndots:1\n"), "{resolv}");
}

/// What flatnet's own commands say about names.
fn questions_of_people(cluster: &Cluster) {
    let service = field(cluster, "svc/my-app", ".spec.clusterIP");
    let found: Value = cluster.json(&["dns", "query", "--from", "pod/netshoot", "google.com"]);
    assert_eq!(found["found"], true);
    assert_eq!(found["addresses"][0], GOOGLE);
    let steps = found["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 4);
    assert_eq!(steps[0]["status"], "NXDOMAIN");
    assert_eq!(steps[3]["name"], "google.com.");
    let own: Value = cluster.json(&["dns", "query", "--from", "pod/netshoot", "my-app"]);
    assert_eq!(own["addresses"][0], service.as_str());

    let said = cluster.run(&["trace", "pod/netshoot", "my-app:80"]);
    assert!(
        said.contains("my-app.default.svc.cluster.local. A")
            && said.contains("service default/my-app"),
        "{said}"
    );
    let traced: Value = cluster.json(&["trace", "pod/netshoot", "my-app:80"]);
    assert_eq!(traced["names"]["addresses"][0], service.as_str());
    assert_eq!(traced["arrives"], true);
    let (code, said) = cluster.fails(&["trace", "pod/netshoot", "my-ap:80"]);
    assert_eq!(code, 1);
    assert!(
        said.contains("my-ap has no answer after 4 questions"),
        "{said}"
    );
    let (code, said) = cluster.fails(&["dns", "query", "--from", "pod/nobody", "my-app"]);
    assert_eq!(code, 1);
    assert!(
        said.contains("pod default/nobody: there is no such pod"),
        "{said}"
    );
}

/// Exercise 2 of a guide: names of the cluster resolve, those of the internet do not.
#[test]
fn a_broken_forward_is_found_in_the_log_and_mended() {
    if !root("a_broken_forward_is_found_in_the_log_and_mended") {
        return;
    }
    let cluster = Cluster::up("dnsfix", &["--nodes", "2"]);
    let internet = Internet::start(&cluster);
    cluster.kube(&[
        "run",
        "test",
        "--image=nicolaka/netshoot",
        "--",
        "sleep",
        "infinity",
    ]);
    ready(&cluster);
    let resolves = |name: &str| tried(&cluster, "test", &["nslookup", name]).0;
    assert!(resolves("google.com"));

    let map = [
        "-n",
        "kube-system",
        "get",
        "configmap",
        "coredns",
        "-o",
        "jsonpath={.data.Corefile}",
    ];
    let good = cluster.kube(&map);
    let set = |corefile: &str| {
        let patch = serde_json::json!({"data": {"Corefile": corefile}}).to_string();
        cluster.kube(&[
            "-n",
            "kube-system",
            "patch",
            "configmap",
            "coredns",
            "-p",
            &patch,
        ]);
        // The pods read the file again by themselves, after a while; people do not wait.
        let deployment = "deployment/coredns";
        cluster.kube(&["-n", "kube-system", "rollout", "restart", deployment]);
        cluster.kube(&[
            "-n",
            "kube-system",
            "rollout",
            "status",
            deployment,
            "--timeout=90s",
        ]);
    };
    // Nobody answers there.
    set(&good.replace("forward . /etc/resolv.conf", "forward . 203.0.113.1"));
    eventually("google.com fails", PATIENCE, || {
        (!resolves("google.com")).then_some(())
    });
    assert!(resolves("kubernetes.default"));
    eventually("the log tells why", PATIENCE, || {
        // A node whose upstreams fail asks the pods.
        let _ = resolves("google.com");
        let words = [
            "-n",
            "kube-system",
            "logs",
            "-l",
            "k8s-app=kube-dns",
            "--tail=50",
        ];
        let log = cluster.kube(&words);
        let told = log.lines().any(|line| {
            line.contains("[ERROR] plugin/errors: 2 google.com.") && line.contains("203.0.113.1:53")
        });
        told.then_some(())
    });
    set(&good);
    eventually("google.com resolves again", PATIENCE, || {
        resolves("google.com").then_some(())
    });
    drop(internet);
    cluster.down();
}

/// What somebody changed in CoreDNS's objects is theirs; what is gone comes back.
#[test]
fn corednss_objects_are_kept_as_people_change_them() {
    if !root("corednss_objects_are_kept_as_people_change_them") {
        return;
    }
    let cluster = Cluster::up("dnskept", &["--nodes", "1", "--dual-stack"]);
    let system = |words: &[&str]| cluster.kube(&[&["-n", "kube-system"], words].concat());
    system(&["rollout", "status", "deployment/coredns", "--timeout=60s"]);
    let ips = [
        "get",
        "svc",
        "kube-dns",
        "-o",
        "jsonpath={.spec.clusterIPs}",
    ];
    assert_eq!(system(&ips), r#"["10.96.0.10","fd00:10:96::a"]"#);
    metrics_are_forwarded(&cluster);

    system(&["scale", "deployment/coredns", "--replicas=1"]);
    let corefile = ". {\n    whoami\n    log\n}\n";
    let patch = serde_json::json!({"data": {"Corefile": corefile}}).to_string();
    system(&["patch", "configmap", "coredns", "-p", &patch]);
    system(&["delete", "service", "kube-dns"]);
    cluster.run(&["up"]);
    let replicas = [
        "get",
        "deployment",
        "coredns",
        "-o",
        "jsonpath={.spec.replicas}",
    ];
    assert_eq!(system(&replicas), "1");
    let kept = [
        "get",
        "configmap",
        "coredns",
        "-o",
        "jsonpath={.data.Corefile}",
    ];
    assert_eq!(system(&kept), corefile);
    assert_eq!(system(&ips), r#"["10.96.0.10","fd00:10:96::a"]"#);
    cluster.down();
}

/// `kubectl port-forward svc/kube-dns 9153:9153`, then the metrics.
fn metrics_are_forwarded(cluster: &Cluster) {
    let words = ["-n", "kube-system", "port-forward", "svc/kube-dns", ":9153"];
    let mut command = cluster.kubectl(&words);
    let mut forward = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    // It goes on writing there, and ends where nobody reads.
    let mut said = BufReader::new(forward.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    // "Forwarding from 127.0.0.1:40123 -> 9153"
    let address = line
        .split_whitespace()
        .nth(2)
        .unwrap_or_default()
        .to_owned();
    let asked = std::process::Command::new("curl")
        .args(["-s", &format!("http://{address}/metrics")])
        .output();
    let _ = forward.kill();
    let _ = forward.wait();
    drop(said);
    let page = String::from_utf8(asked.unwrap().stdout).unwrap();
    assert!(page.contains("coredns_build_info"), "{line}: {page}");
}
