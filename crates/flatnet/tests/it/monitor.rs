//! What policies deny is seen, on every node, with everybody's name.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, eventually, root};
use crate::life::kill;

const PATIENCE: Duration = Duration::from_secs(60);

const MANIFEST: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: curlimages/curl, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  nodeName: node2
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: nginx}]
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec:
  selector: {app: db}
  ports: [{port: 8000, targetPort: 80}]
"#;

fn policy(name: &str, direction: &str, app: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: {name}, namespace: shop}}\n\
         spec: {{podSelector: {{matchLabels: {{app: {app}}}}}, policyTypes: [{direction}]}}\n"
    )
}

fn apply(cluster: &Cluster, manifest: &str) {
    use std::io::Write as _;
    let mut child = cluster
        .kubectl(&["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(manifest.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{manifest}");
}

/// `flatnet monitor` while it runs.
pub struct Monitor {
    child: Child,
    lines: Receiver<String>,
}

impl Monitor {
    pub fn start(cluster: &Cluster, words: &[&str]) -> Self {
        let mut child = cluster
            .flatnet(&["monitor", "--drops"])
            .args(words)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The first line that is so.
    pub fn line(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with {what}, but {seen:#?}");
            };
            if is(&line) {
                return line;
            }
            seen.push(line);
        }
    }

    /// The first event that is so.
    fn event(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        parse(&self.line(what, |line| is(&parse(line))))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a connection from web to a target passes.
fn passes(cluster: &Cluster, target: &str) -> bool {
    let words = [
        "-n",
        "shop",
        "exec",
        "web",
        "--",
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-m",
        "1",
    ];
    let tried = cluster.kubectl(&[&words[..], &[target]].concat()).output();
    tried.unwrap().status.success()
}

#[test]
fn what_is_denied_is_seen_with_its_policy() {
    let test = "what_is_denied_is_seen_with_its_policy";
    if !root(test) {
        return;
    }
    let cluster = Cluster::up("monitor", &["--nodes", "2"]);
    apply(&cluster, MANIFEST);
    let ready = [
        "-n",
        "shop",
        "wait",
        "--for=condition=Ready",
        "--timeout=60s",
        "pod/web",
        "pod/db",
    ];
    cluster.kube(&ready);
    let jsonpath = "jsonpath={.status.podIP}";
    let ip = cluster.kube(&["-n", "shop", "get", "pod", "db", "-o", jsonpath]);
    let url = format!("http://{ip}/");
    eventually("web reaches db", PATIENCE, || {
        passes(&cluster, &url).then_some(())
    });

    let table = Monitor::start(&cluster, &[]);
    let json = Monitor::start(&cluster, &["-o", "json", "--pod", "shop/db"]);
    let header = table.line("the header", |_| true);
    assert!(header.starts_with("TIME (UTC)"), "{header}");

    // At the server.
    apply(&cluster, &policy("db-closed", "Ingress", "db"));
    eventually("db is closed", PATIENCE, || {
        (!passes(&cluster, &url)).then_some(())
    });
    let line = table.line("the policy", |line| line.contains("shop/db-closed"));
    for word in [
        "node2",
        "ingress",
        "shop/web",
        "shop/db:80/TCP",
        "NetworkPolicy shop/db-closed",
    ] {
        assert!(line.contains(word), "{word}: {line}");
    }
    let event = json.event("the policy", |event| event["direction"] == "ingress");
    assert_eq!(event["kind"], "drop");
    assert_eq!(event["from"]["pod"], "web");
    assert_eq!(
        (&event["to"]["namespace"], &event["to"]["pod"]),
        (&"shop".into(), &"db".into())
    );
    assert_eq!(event["by"]["policies"][0]["name"], "db-closed");

    // At the client, through the Service.
    apply(&cluster, &policy("web-closed", "Egress", "web"));
    let service = cluster.kube(&[
        "-n",
        "shop",
        "get",
        "service",
        "db",
        "-o",
        "jsonpath={.spec.clusterIP}",
    ]);
    let url = format!("http://{service}:8000/");
    eventually("web is closed", PATIENCE, || {
        assert!(!passes(&cluster, &url));
        let past = cluster.run(&[
            "monitor",
            "--drops",
            "--no-follow",
            "--since",
            "1m",
            "-o",
            "json",
        ]);
        let events = past
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.into_iter().find(|event| {
            event["direction"] == "egress" && event["by"]["policies"][0]["name"] == "web-closed"
        })
    });
    let line = table.line("the client's policy", |line| {
        line.contains("shop/web-closed")
    });
    for word in ["node1", "egress", "shop/db:80/TCP"] {
        assert!(line.contains(word), "{word}: {line}");
    }

    // Another agent, the same monitor.
    kill(&cluster, "nodes/node1/agent");
    cluster.run(&["up"]);
    while table.lines.try_recv().is_ok() {}
    eventually("the monitor goes on", PATIENCE, || {
        assert!(!passes(&cluster, &url));
        let lines: Vec<String> = table.lines.try_iter().collect();
        lines
            .into_iter()
            .find(|line| line.contains("node1  egress"))
    });
    drop((table, json));
    cluster.down();
}
