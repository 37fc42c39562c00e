//! Names while what stands behind them dies and comes back, and names that policies forbid.

use std::process::Command;
use std::time::Duration;

use linux::{NetNs, run_in};

use crate::cluster::{Cluster, eventually, root, text};
use crate::dns::{apply, tried};
use crate::internet::{GOOGLE, Internet};
use crate::life::kill;
use crate::monitor::Monitor;

const PATIENCE: Duration = Duration::from_secs(60);
/// An API server that is back is asked again within five seconds; lists take a moment.
const SOON: Duration = Duration::from_secs(20);
const SERVICE: &str = "10.96.0.10";
const OWN: &str = "kubernetes.default.svc.cluster.local";
const OWN_IP: &str = "10.96.0.1";

/// Exercise 1 of a guide, and a pod that asks on each node.
const OBJECTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: asks1, labels: {app: asks}}
spec:
  nodeName: node1
  containers: [{name: app, image: nicolaka/netshoot, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: asks2, labels: {app: asks}}
spec:
  nodeName: node2
  containers: [{name: app, image: nicolaka/netshoot, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: frontend, labels: {app: frontend}}
spec: {containers: [{name: app, image: nginx}]}
---
apiVersion: v1
kind: Pod
metadata: {name: backend, labels: {app: backend}}
spec: {containers: [{name: app, image: nginx}]}
---
apiVersion: v1
kind: Service
metadata: {name: backend}
spec: {selector: {app: backend}, ports: [{port: 80}]}
"#;

/// All that a guide's `deny-all` denies, and what then lets the frontend to the backend. It
/// forgets that the backend has a name.
const DENY: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-all}
spec: {podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [asks]}]}, policyTypes: [Ingress, Egress]}
"#;
const BACKEND: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: to-backend}
spec:
  podSelector: {matchLabels: {app: frontend}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: backend}}}], ports: [{port: 80}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: from-frontend}
spec:
  podSelector: {matchLabels: {app: backend}}
  ingress: [{from: [{podSelector: {matchLabels: {app: frontend}}}], ports: [{port: 80}]}]
"#;
const DNS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-dns}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
      podSelector: {matchLabels: {k8s-app: kube-dns}}
    ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
"#;

/// A pod's network, asked from without the API server.
struct Asks(NetNs);

impl Asks {
    fn of(cluster: &Cluster, node: &str, pod: &str) -> Self {
        let uid = cluster.kube(&["get", "pod", pod, "-o", "jsonpath={.metadata.uid}"]);
        let folder = cluster.paths.node(node).pods().join(uid);
        let state = lab::shim::read_state(&folder).unwrap();
        Self(NetNs::of_process(state.pause_pid.unsigned_abs()).unwrap())
    }

    /// What one question of one try is answered: addresses, or what went wrong.
    fn of_server(&self, server: &str, name: &str) -> String {
        let output = run_in(&self.0, || {
            Command::new("dig")
                .args(["+short", "+tries=1", "+time=4", &format!("@{server}"), name])
                .output()
        });
        text(&output.unwrap().unwrap()).trim().to_owned()
    }

    fn name(&self, name: &str) -> String {
        self.of_server(SERVICE, name)
    }
}

fn ready(cluster: &Cluster) {
    let wait = [
        "wait",
        "--for=condition=Ready",
        "pod",
        "--all",
        "--timeout=60s",
    ];
    cluster.kube(&wait);
    servers(cluster);
}

/// The cluster's own servers are all there.
fn servers(cluster: &Cluster) {
    let own = ["-n", "kube-system", "rollout", "status"];
    let more = ["deployment/coredns", "--timeout=60s"];
    cluster.kube(&[&own[..], &more].concat());
}

/// The addresses of the DNS Service's ready pods.
fn endpoints(cluster: &Cluster) -> Vec<String> {
    let words = ["-n", "kube-system", "get", "endpoints", "kube-dns", "-o"];
    let path = "jsonpath={.subsets[*].addresses[*].ip}";
    let all = cluster.kube(&[&words[..], &[path]].concat());
    all.split_whitespace().map(str::to_owned).collect()
}

/// Questions that a node's own server answered.
fn counted(cluster: &Cluster, node: &str) -> f64 {
    let shown = cluster.json(&["show", "dns", node]);
    let count = &shown[node]["counts"]["coredns_dns_requests_total"];
    count.as_f64().unwrap_or_default()
}

#[test]
fn names_live_through_what_dies_and_obey_policies() {
    let test = "names_live_through_what_dies_and_obey_policies";
    if !root(test) {
        return;
    }
    let cluster = Cluster::up("dnsfault", &["--nodes", "2"]);
    let internet = Internet::start(&cluster);
    apply(&cluster, OBJECTS);
    ready(&cluster);
    let pods = [
        Asks::of(&cluster, "node1", "asks1"),
        Asks::of(&cluster, "node2", "asks2"),
    ];
    a_policy_that_forgets_names(&cluster);
    an_agent_dies(&cluster, &pods);
    the_services_pods_are_gone(&cluster, &pods);
    the_api_server_is_away(&cluster, &pods);
    drop(internet);
    cluster.down();
}

fn a_policy_that_forgets_names(cluster: &Cluster) {
    let curl = || tried(cluster, "frontend", &["curl", "-sSm2", "backend"]);
    eventually("the frontend reaches the backend", PATIENCE, || {
        curl().0.then_some(())
    });
    apply(cluster, DENY);
    eventually("all is denied", PATIENCE, || (!curl().0).then_some(()));
    let monitor = Monitor::start(cluster, &["--pod", "default/frontend"]);
    monitor.line("the header", |_| true);
    let denied_by = |policy: &str| {
        let (found, said) = curl();
        assert!(!found && said.contains("esolv"), "{said}");
        let line = monitor.line(policy, |line| {
            line.contains(&format!("default/{policy}")) && line.contains("53")
        });
        assert!(
            line.contains(SERVICE) || line.contains("kube-dns"),
            "{line}"
        );
    };
    denied_by("deny-all");
    apply(cluster, BACKEND);
    cluster.kube(&["delete", "networkpolicy", "deny-all"]);
    denied_by("to-backend");
    let forgets = |said: &str| {
        said.contains("default/to-backend: spec.egress") && said.contains("egress-forgets-dns")
    };
    let said = text(&cluster.flatnet(&["policy", "lint"]).output().unwrap());
    assert!(forgets(&said), "{said}");
    apply(cluster, DNS);
    eventually("the backend has a name", PATIENCE, || {
        curl().0.then_some(())
    });
    let said = text(&cluster.flatnet(&["policy", "lint"]).output().unwrap());
    assert!(!forgets(&said), "{said}");
    cluster.kube(&["delete", "networkpolicy", "--all"]);
}

/// The very next question is the Service's; when the agent is back the node's again.
fn an_agent_dies(cluster: &Cluster, pods: &[Asks; 2]) {
    let own = |pod: &Asks| pod.name(OWN);
    eventually("each node answers", PATIENCE, || {
        pods.iter().all(|pod| own(pod) == OWN_IP).then_some(())
    });
    kill(cluster, "nodes/node1/agent");
    for round in 0..10 {
        for pod in pods {
            assert_eq!(own(pod), OWN_IP, "question {round}");
            assert_eq!(pod.name("google.com"), GOOGLE, "question {round}");
        }
    }
    cluster.run(&["up"]);
    eventually("the node answers again", PATIENCE, || {
        let before = counted(cluster, "node1");
        assert_eq!(own(&pods[0]), OWN_IP);
        (counted(cluster, "node1") > before).then_some(())
    });
}

fn the_services_pods_are_gone(cluster: &Cluster, pods: &[Asks; 2]) {
    let scale = |count: &str| {
        let words = ["-n", "kube-system", "scale", "deployment/coredns"];
        cluster.kube(&[&words[..], &["--replicas", count]].concat());
    };
    scale("0");
    eventually("nobody is behind the Service", PATIENCE, || {
        endpoints(cluster).is_empty().then_some(())
    });
    for pod in pods {
        assert_eq!(pod.name(OWN), OWN_IP);
        assert_eq!(pod.name("www.example.org"), GOOGLE);
    }
    scale("2");
    servers(cluster);
}

/// Answers go on from the last state, in nodes and in pods; what is new comes when it is back.
fn the_api_server_is_away(cluster: &Cluster, pods: &[Asks; 2]) {
    let backend = cluster.kube(&["get", "svc", "backend", "-o", "jsonpath={.spec.clusterIP}"]);
    let servers = eventually("two servers are ready", PATIENCE, || {
        let all = endpoints(cluster);
        (all.len() == 2).then_some(all)
    });
    let servers: Vec<&str> = [SERVICE]
        .into_iter()
        .chain(servers.iter().map(String::as_str))
        .collect();
    kill(cluster, "apiserver");
    for round in 0..5 {
        for (pod, server) in pods
            .iter()
            .flat_map(|pod| servers.iter().map(move |to| (pod, to)))
        {
            let answered = pod.of_server(server, "backend.default.svc.cluster.local");
            assert_eq!(answered, backend, "question {round} of {server}");
            assert_eq!(pod.of_server(server, "google.com"), GOOGLE, "{server}");
        }
    }
    cluster.run(&["up"]);
    cluster.kube(&["create", "service", "clusterip", "late", "--tcp=80"]);
    let late = cluster.kube(&["get", "svc", "late", "-o", "jsonpath={.spec.clusterIP}"]);
    eventually("everybody knows what is new", SOON, || {
        let knows =
            |pod: &Asks, server| pod.of_server(server, "late.default.svc.cluster.local") == late;
        let all = pods
            .iter()
            .all(|pod| servers.iter().all(|server| knows(pod, server)));
        all.then_some(())
    });
}
