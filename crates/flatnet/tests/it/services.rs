//! Services as people use them: the examples with stock kubectl and curl, in both modes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, KUBECTL_LOST, Server, eventually, root, text};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// The examples in a cluster of this mode, and a pod `caller` on node1 that stands behind nothing.
pub fn with_examples(test: &str, mode: &str, nodes: &str) -> Cluster {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/services");
    let cluster = Cluster::up(
        test,
        &["--services", mode, "--nodes", nodes, "-f", examples],
    );
    pod(&cluster, "caller", "node1");
    for name in ["my-app", "backend", "frontend"] {
        let deployment = format!("deployment/{name}");
        cluster.kube(&["rollout", "status", &deployment, "--timeout=60s"]);
    }
    cluster
}

/// A pod with curl on a node.
fn pod(cluster: &Cluster, name: &str, node: &str) {
    let patch = format!(r#"{{"spec":{{"nodeName":"{node}","terminationGracePeriodSeconds":0}}}}"#);
    let image = "--image=curlimages/curl";
    cluster.kube(&[
        "run",
        name,
        image,
        "--overrides",
        &patch,
        "--",
        "sleep",
        "infinity",
    ]);
    let ready = ["wait", "--for=condition=Ready", "--timeout=30s"];
    cluster.kube(&[&ready[..], &[&format!("pod/{name}")]].concat());
}

/// One field of a Service.
pub fn field(cluster: &Cluster, service: &str, path: &str) -> String {
    let path = format!("jsonpath={{{path}}}");
    cluster.kube(&["get", "service", service, "-o", &path])
}

pub fn cluster_ip(cluster: &Cluster, service: &str) -> String {
    field(cluster, service, ".spec.clusterIP")
}

/// What curl in the pod says, both streams, and whether it succeeded.
pub fn curl(cluster: &Cluster, pod: &str, words: &[&str]) -> Result<String, String> {
    let start = ["exec", pod, "--", "curl", "-sS", "--max-time", "3"];
    let output = cluster
        .kubectl(&[&start[..], words].concat())
        .output()
        .unwrap();
    let said = text(&output);
    if output.status.success() {
        Ok(said)
    } else {
        Err(said)
    }
}

/// What curl outside the cluster says.
fn from_outside(cluster: &Cluster, url: &str) -> Result<String, String> {
    let words = ["client", "--", "curl", "-sS", "--max-time", "3", url];
    let output = cluster.flatnet(&words).output().unwrap();
    let said = text(&output);
    if output.status.success() {
        Ok(said)
    } else {
        Err(said)
    }
}

/// Asks until it succeeds: right after `apply` the nodes are a moment behind.
pub fn soon<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let mut last = String::new();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match ask() {
            Ok(answer) => return answer,
            Err(why) => last = why,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("not within {PATIENCE:?}: {what}: {last}");
}

#[test]
fn services_of_every_kind_answer_over_nftables() {
    if !root("services_of_every_kind_answer_over_nftables") {
        return;
    }
    let cluster = with_examples("svcnft", "nftables", "3");
    every_kind(&cluster);
    let rules = in_node(
        &cluster,
        "node1",
        &["nft", "list", "table", "inet", "flatnet"],
    );
    assert!(rules.contains("services-dispatch"), "{rules}");
    assert!(!iptables(&cluster).contains("KUBE-SERVICES"));
    cluster.down();
}

#[test]
fn services_of_every_kind_answer_over_iptables() {
    if !root("services_of_every_kind_answer_over_iptables") {
        return;
    }
    let cluster = with_examples("svcipt", "iptables", "3");
    every_kind(&cluster);
    the_documents_iptables_session(&cluster);
    let rules = in_node(
        &cluster,
        "node1",
        &["nft", "list", "table", "inet", "flatnet"],
    );
    assert!(!rules.contains("services-"), "{rules}");
    cluster.down();
}

fn every_kind(cluster: &Cluster) {
    kubectl_shows_what_the_documents_show(cluster);
    inside(cluster);
    outside(cluster);
    sticky(cluster);
    local(cluster);
    by_hand(cluster);
    refused_and_back(cluster);
    the_api(cluster);
    told(cluster);
    balanced(cluster);
    cluster.check_is_green();
}

fn kubectl_shows_what_the_documents_show(cluster: &Cluster) {
    let list = cluster.kube(&["get", "services"]);
    let row = |name: &str| -> Vec<String> {
        let mut lines = list.lines().map(|line| line.split_whitespace());
        let found = lines.find(|words| words.clone().next() == Some(name));
        found.unwrap().map(str::to_owned).collect()
    };
    let shape = |name: &str| {
        let row = row(name);
        format!("{} {} {}", row[1], row[3], row[4])
    };
    assert_eq!(shape("my-app"), "ClusterIP <none> 80/TCP");
    assert_eq!(shape("my-app-nodeport"), "NodePort <none> 80:30080/TCP");
    assert_eq!(shape("external-db"), "ExternalName db.example.com <none>");
    assert_eq!(row("my-app-headless")[2], "None");
    assert!(row("my-app-lb")[4].starts_with("80:3"), "{list}");
    let endpoints = cluster.kube(&["get", "endpoints", "my-app"]);
    assert_eq!(endpoints.matches(":8080").count(), 3, "{endpoints}");
    let described = cluster.kube(&["describe", "service", "my-app-sticky"]);
    assert!(
        described.contains("Session Affinity:         ClientIP"),
        "{described}"
    );
}

/// The pods that answer `count` new connections to a URL, each by its name.
fn answers(cluster: &Cluster, url: &str, count: usize) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut words = vec!["-w", "\n", "-H", "Connection: close"];
    words.extend(std::iter::repeat_n(url, count));
    let said = soon(url, || curl(cluster, "caller", &words));
    names.extend(
        said.lines()
            .filter(|line| !line.is_empty())
            .map(str::to_owned),
    );
    names.sort();
    names
}

fn inside(cluster: &Cluster) {
    let ip = cluster_ip(cluster, "my-app");
    let mut names = answers(cluster, &format!("http://{ip}/hostname"), 40);
    assert_eq!(names.len(), 40);
    names.dedup();
    assert_eq!(names.len(), 3, "all pods answer in turn: {names:?}");
    // A port the Service does not have; kube-proxy's chains know nothing of it.
    let refused = curl(cluster, "caller", &[&format!("http://{ip}:81")]).unwrap_err();
    if cluster.json(&["status"])["services"]["mode"] == "nftables" {
        assert!(refused.contains("(7)"), "refused at once: {refused}");
    }
    // A pod that reaches itself through its Service.
    let app = cluster.kube(&["get", "pods", "-l", "app=my-app", "-o", "name"]);
    let app = app.lines().next().unwrap().to_owned();
    let words = ["exec", &app, "--", "curl", "-sS", "--max-time", "3"];
    let url = format!("http://{ip}/hostname");
    let many: Vec<&str> = std::iter::repeat_n(url.as_str(), 20).collect();
    let close = ["-w", "\n", "-H", "Connection: close"];
    let said = cluster.kube(&[&words[..], &close, &many].concat());
    let own = app.trim_start_matches("pod/");
    assert!(said.contains(own), "{own} never answers itself: {said}");
    // Another tier, by its own port.
    let backend = cluster_ip(cluster, "backend");
    let said = curl(
        cluster,
        "caller",
        &[&format!("http://{backend}:8080/hostname")],
    );
    assert!(said.unwrap().starts_with("backend-"));
}

fn outside(cluster: &Cluster) {
    for node in ["10.0.1.10", "10.0.1.20", "10.0.1.30"] {
        let said = soon(node, || {
            from_outside(cluster, &format!("http://{node}:30080/hostname"))
        });
        assert!(said.starts_with("my-app-"), "{said}");
    }
    let words = [
        "curl",
        "-sS",
        "--max-time",
        "3",
        "http://127.0.0.1:30080/hostname",
    ];
    let said = in_node(cluster, "node1", &words);
    assert!(said.starts_with("my-app-"), "{said}");
    // A client outside never sees the inside.
    let ip = cluster_ip(cluster, "my-app");
    assert!(from_outside(cluster, &format!("http://{ip}/hostname")).is_err());
}

/// Addresses from the cluster's pool, reached by the client outside.
fn balanced(cluster: &Cluster) {
    for service in ["my-app-lb", "frontend"] {
        let ip = soon("an address outside", || {
            let ip = field(cluster, service, ".status.loadBalancer.ingress[0].ip");
            (!ip.is_empty())
                .then_some(ip)
                .ok_or_else(|| service.to_owned())
        });
        soon(service, || from_outside(cluster, &format!("http://{ip}/")));
    }
}

fn sticky(cluster: &Cluster) {
    let ip = cluster_ip(cluster, "my-app-sticky");
    let mut names = answers(cluster, &format!("http://{ip}/hostname"), 20);
    names.dedup();
    assert_eq!(names.len(), 1, "one client has one pod: {names:?}");
    cluster.kube(&[
        "delete",
        &format!("pod/{}", names[0]),
        "--grace-period=0",
        "--force",
    ]);
    cluster.kube(&["rollout", "status", "deployment/my-app", "--timeout=60s"]);
    let mut next = answers(cluster, &format!("http://{ip}/hostname"), 20);
    next.dedup();
    assert_eq!(next.len(), 1, "{next:?}");
    assert_ne!(next, names);
}

/// Whose address the server sees, and which node's pods answer.
fn local(cluster: &Cluster) {
    let client = "203.0.113.10";
    let seen = |url: &str| soon(url, || from_outside(cluster, url));
    let kept = seen("http://10.0.1.20:30081/clientip");
    assert!(kept.starts_with(&format!("{client}:")), "{kept}");
    let translated = seen("http://10.0.1.20:30080/clientip");
    assert!(!translated.starts_with(client), "{translated}");
    // Inside, only the caller's own node answers.
    let ip = cluster_ip(cluster, "my-app-local");
    let names = answers(cluster, &format!("http://{ip}/hostname"), 10);
    for name in names {
        let path = "jsonpath={.spec.nodeName}";
        let node = cluster.kube(&["get", "pod", &name, "-o", path]);
        assert_eq!(node, "node1", "{name}");
    }
    // Without a pod on the node there is no answer from outside.
    cluster.kube(&["cordon", "node2"]);
    cluster.kube(&[
        "delete",
        "pods",
        "-l",
        "app=my-app",
        "--field-selector",
        "spec.nodeName=node2",
        "--wait=false",
    ]);
    eventually("node2 has no endpoint", PATIENCE, || {
        from_outside(cluster, "http://10.0.1.20:30081/clientip").err()
    });
    cluster.kube(&["uncordon", "node2"]);
    // A caller's zone: with a pod of its own, no other zone is asked.
    for (node, zone) in [("node1", "a"), ("node2", "b"), ("node3", "b")] {
        let label = format!("topology.kubernetes.io/zone={zone}");
        cluster.kube(&["label", "node", node, &label]);
    }
    let ip = cluster_ip(cluster, "my-app-close");
    eventually("only zone a is asked", PATIENCE, || {
        let names = answers(cluster, &format!("http://{ip}/hostname"), 12);
        let path = "jsonpath={.spec.nodeName}";
        let node = |name: &str| cluster.kubectl(&["get", "pod", name, "-o", path]).output();
        let near = |name: &String| node(name).is_ok_and(|out| out.stdout == b"node1");
        names.iter().all(near).then_some(())
    });
}

/// Endpoints written by hand: a server outside the cluster.
fn by_hand(cluster: &Cluster) {
    let server = Server::start(cluster, 8000);
    let ip = cluster_ip(cluster, "outside");
    let said = soon("the server outside", || {
        curl(cluster, "caller", &[&format!("http://{ip}/")])
    });
    assert!(said.contains("Directory listing"), "{said}");
    drop(server);
}

/// A wrong selector: no endpoints, refused at once, and how it is found and put right.
fn refused_and_back(cluster: &Cluster) {
    let ip = cluster_ip(cluster, "my-app");
    let url = format!("http://{ip}/hostname");
    let wrong = r#"{"spec":{"selector":{"app":"my-ap"}}}"#;
    cluster.kube(&["patch", "service", "my-app", "-p", wrong]);
    let refused = eventually("no endpoint answers", PATIENCE, || {
        curl(cluster, "caller", &[&url]).err()
    });
    assert!(refused.contains("(7)"), "{refused}");
    let none = cluster.kube(&["get", "endpoints", "my-app"]);
    assert!(none.contains("<none>"), "{none}");
    let (code, said) = cluster.fails(&["trace", "pod/caller", "svc/my-app"]);
    assert_eq!(code, 1);
    assert!(said.contains("the Service has no endpoints"), "{said}");
    let right = r#"{"spec":{"selector":{"app":"my-app"}}}"#;
    cluster.kube(&["patch", "service", "my-app", "-p", right]);
    soon("it answers again", || curl(cluster, "caller", &[&url]));
}

/// The API at its own Service, with the pod's token.
fn the_api(cluster: &Cluster) {
    let script = "cd /var/run/secrets/kubernetes.io/serviceaccount && \
        curl -sS --max-time 3 --cacert ca.crt -H \"Authorization: Bearer $(cat token)\" \
        --resolve kubernetes.default:443:10.96.0.1 https://kubernetes.default/version";
    let said = cluster.kube(&["exec", "caller", "--", "sh", "-c", script]);
    assert!(said.contains("gitVersion"), "{said}");
}

/// trace and show say the same as the kernel does.
fn told(cluster: &Cluster) {
    let trace = cluster.json(&["trace", "pod/caller", "svc/my-app:80"]);
    assert_eq!(trace["arrives"], true, "{trace}");
    let through = &trace["services"][0];
    assert_eq!(through["endpoints"].as_array().unwrap().len(), 3, "{trace}");
    assert_eq!(through["masquerade"], serde_json::Value::Null);
    for to in ["svc/my-app-lb", "node/node2:30080", "10.0.1.30:30081"] {
        let said = cluster.run(&["trace", "client", to]);
        assert!(said.contains("arrives"), "{said}");
    }
    let shown = cluster.json(&["show", "services"]);
    let rows = shown["frontends"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["state"] == "ok"), "{shown}");
    assert_eq!(shown["others"], serde_json::json!({}), "{shown}");
    let mine = rows.iter().filter(|row| row["service"] == "default/my-app");
    assert_eq!(
        mine.count(),
        3,
        "one frontend on each of three nodes: {shown}"
    );
    let status = cluster.json(&["status"]);
    assert_eq!(
        status["services"]["problems"],
        serde_json::json!([]),
        "{status}"
    );
}

/// Runs a program in a node's network.
fn in_node(cluster: &Cluster, node: &str, words: &[&str]) -> String {
    let netns = format!("--net=/run/netns/{}", cluster.paths.netns(node));
    let output = std::process::Command::new("nsenter")
        .arg(netns)
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}:\n{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn iptables(cluster: &Cluster) -> String {
    in_node(cluster, "node1", &["iptables-save", "-t", "nat"])
}

/// "View iptables rules for specific Service", as the guide has it.
fn the_documents_iptables_session(cluster: &Cluster) {
    let ip = cluster_ip(cluster, "my-app");
    let services = in_node(
        cluster,
        "node1",
        &["iptables", "-t", "nat", "-L", "KUBE-SERVICES", "-n"],
    );
    let line = services.lines().find(|line| line.contains(&ip)).unwrap();
    let chain = line.split_whitespace().next().unwrap();
    assert!(
        chain.starts_with("KUBE-SVC-") && line.contains("dpt:80"),
        "{line}"
    );
    let rules = in_node(cluster, "node1", &["iptables", "-t", "nat", "-S", chain]);
    assert!(
        rules.contains("--mode random --probability 0.33333333"),
        "{rules}"
    );
    assert!(rules.contains("--probability 0.5"), "{rules}");
    let endpoint = rules
        .split_whitespace()
        .find(|word| word.starts_with("KUBE-SEP-"))
        .unwrap();
    let rules = in_node(cluster, "node1", &["iptables", "-t", "nat", "-S", endpoint]);
    assert!(
        rules.contains("-j DNAT --to-destination 10.244."),
        "{rules}"
    );
    // The same names in the trace.
    let trace = cluster.run(&["trace", "pod/caller", "svc/my-app"]);
    assert!(trace.contains(chain), "{trace}");
}

/// A client that asks over one connection, ten times a second, and what it heard.
struct Caller(std::process::Child);

impl Caller {
    /// Calls `url` from pod `caller`, `count` times, over one connection or each over a new one.
    fn start(cluster: &Cluster, url: &str, count: usize, keep: bool) -> Self {
        let urls = format!("{url}?[1-{count}]");
        let mut words = vec![
            "exec",
            "caller",
            "--",
            "curl",
            "-sS",
            "--rate",
            "10/s",
            "--max-time",
            "3",
            "-w",
            "\n",
        ];
        if !keep {
            words.extend(["-H", "Connection: close"]);
        }
        words.push(&urls);
        let mut command = cluster.kubectl(&words);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// Its answers, one a line, and its complaints.
    fn finish(self) -> (Vec<String>, String) {
        let output = self.0.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let lines = said.lines().filter(|line| !line.is_empty());
        (
            lines.map(str::to_owned).collect(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

fn unbroken(what: &str, caller: Caller, count: usize) {
    let (mut answers, complaints) = caller.finish();
    let lost = complaints.matches(KUBECTL_LOST).count();
    assert_eq!(answers.len() + lost, count, "{what}: {complaints}");
    // The server tells the caller's port: one port is one connection.
    answers.dedup();
    assert_eq!(answers.len(), 1, "{what}: {answers:?}");
}

#[test]
fn an_established_connection_outlives_agents_and_modes() {
    if !root("an_established_connection_outlives_agents_and_modes") {
        return;
    }
    let cluster = with_examples("svclive", "nftables", "2");
    let url = format!("http://{}/clientip", cluster_ip(&cluster, "my-app"));
    soon("the Service answers", || curl(&cluster, "caller", &[&url]));

    let caller = Caller::start(&cluster, &url, 60, true);
    kill_agents(&cluster);
    cluster.run(&["up"]);
    unbroken("agents are killed", caller, 60);

    for mode in ["iptables", "nftables"] {
        let caller = Caller::start(&cluster, &url, 60, true);
        // As the fabric is changed: in the ConfigMap, here by `up`.
        cluster.run(&["up", "--services", mode]);
        eventually("the other mode's rules are gone", PATIENCE, || {
            let old = in_node(
                &cluster,
                "node1",
                &["nft", "list", "table", "inet", "flatnet"],
            )
            .contains("services-");
            let new = iptables(&cluster).contains("KUBE-SERVICES");
            ((mode == "iptables") == new && (mode == "nftables") == old).then_some(())
        });
        unbroken(mode, caller, 60);
        soon("new connections", || curl(&cluster, "caller", &[&url]));
    }
    assert_eq!(cluster.json(&["status"])["services"]["mode"], "nftables");
    cluster.down();
}

fn kill_agents(cluster: &Cluster) {
    for node in ["node1", "node2"] {
        crate::life::kill(cluster, &format!("nodes/{node}/agent"));
    }
}

#[test]
fn a_rolling_update_under_load_loses_no_request() {
    if !root("a_rolling_update_under_load_loses_no_request") {
        return;
    }
    for mode in ["nftables", "iptables"] {
        let cluster = with_examples(&format!("svcroll{}", &mode[..3]), mode, "2");
        let url = format!("http://{}/hostname", cluster_ip(&cluster, "my-app"));
        soon("the Service answers", || curl(&cluster, "caller", &[&url]));
        let caller = Caller::start(&cluster, &url, 100, false);
        cluster.kube(&["rollout", "restart", "deployment/my-app"]);
        cluster.kube(&["rollout", "status", "deployment/my-app", "--timeout=60s"]);
        let (mut answers, complaints) = caller.finish();
        assert_eq!(answers.len(), 100, "{mode}: {complaints}");
        answers.sort();
        answers.dedup();
        assert!(answers.len() > 3, "old and new pods answer: {answers:?}");
        cluster.down();
    }
}
