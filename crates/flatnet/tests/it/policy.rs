//! `flatnet policy` and what `flatnet trace` says of policies, on a real cluster.

use std::io::Write as _;

use serde_json::Value;

use crate::cluster::{Cluster, root, text};
use crate::services::soon;

/// A shop whose pods want to talk, and somebody elsewhere.
const WORLD: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: data}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: nginx, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: api, namespace: shop, labels: {app: api}}
spec:
  nodeName: node2
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: nginx, ports: [{name: http, containerPort: 80}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: job, namespace: data, labels: {app: job}}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: nginx, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {selector: {app: api}, ports: [{port: 8080, targetPort: http}]}
";

const DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-all, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
";

const ALLOW: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web-to-api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: http}]
";

/// A manifest in a file, gone with it.
fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

impl Cluster {
    /// Words of the program with a manifest behind them: the exit code and what is said.
    fn with(&self, words: &[&str], manifest: &str) -> (i32, String) {
        let file = file(manifest);
        let path = file.path().display().to_string();
        let mut command = self.flatnet(words);
        let output = command.args(["-f", &path]).output().unwrap();
        (output.status.code().unwrap(), text(&output))
    }

    fn apply(&self, manifest: &str) {
        let file = file(manifest);
        self.kube(&["apply", "-f", &file.path().display().to_string()]);
    }
}

#[test]
fn policies_are_listed_traced_tried_and_linted() {
    if !root("policies_are_listed_traced_tried_and_linted") {
        return;
    }
    let world = file(WORLD);
    let world = world.path().display().to_string();
    let cluster = Cluster::up("policy", &["--nodes", "2", "-f", &world]);
    for (namespace, pod) in [("shop", "web"), ("shop", "api"), ("data", "job")] {
        let pod = format!("pod/{pod}");
        cluster.kube(&[
            "-n",
            namespace,
            "wait",
            "--for=condition=Ready",
            "--timeout=60s",
            &pod,
        ]);
    }
    without_policies(&cluster);
    what_would_close(&cluster);
    what_is_denied(&cluster);
    what_opens_again(&cluster);
    labels_and_deletions(&cluster);
    what_is_refused(&cluster);
    what_is_not_as_it_was_meant(&cluster);
    cluster.down();
}

fn without_policies(cluster: &Cluster) {
    assert_eq!(
        cluster.run(&["policy", "list"]),
        "no policies: every pod reaches every other\n"
    );
    let listed = cluster.run(&["policy", "list", "pod/shop/api"]);
    assert!(
        listed.contains("Ingress: not isolated: everything"),
        "{listed}"
    );
    let trace = cluster.json(&["trace", "pod/shop/web", "pod/shop/api:80"]);
    assert_eq!(
        (
            &trace["arrives"],
            trace["policies"].as_array().unwrap().len()
        ),
        (&Value::Bool(true), 0)
    );
    assert_eq!(cluster.run(&["policy", "lint"]), "nothing found\n");
}

fn what_would_close(cluster: &Cluster) {
    let (code, said) = cluster.with(&["policy", "test"], DENY);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("NetworkPolicy shop/deny-all: would be created"),
        "{said}"
    );
    assert!(
        said.contains("Closed") && !said.contains("Opened"),
        "{said}"
    );
    let none = cluster.kube(&["get", "networkpolicies", "-A", "-o", "name"]);
    assert_eq!(none, "", "nothing is applied");
}

fn what_is_denied(cluster: &Cluster) {
    cluster.apply(DENY);
    let (code, said) = cluster.with(&["policy", "test"], DENY);
    assert!(
        code == 0 && said.contains("shop/deny-all: unchanged"),
        "{code}: {said}"
    );
    let (code, said) = cluster.fails(&["trace", "pod/shop/web", "pod/shop/api:80"]);
    assert_eq!(code, 1);
    let why = "does not arrive: NetworkPolicy shop/deny-all isolates pod shop/api for ingress";
    assert!(said.contains(why), "{said}");
    assert!(
        said.contains("To let it through: write a NetworkPolicy in namespace shop"),
        "{said}"
    );
    let trace = cluster.json(&["trace", "pod/data/job", "svc/shop/api:8080"]);
    let denied = trace["services"][0]["endpoints"][0]["denied"]
        .as_str()
        .unwrap();
    assert!(denied.contains("shop/deny-all"), "{trace}");
    assert_eq!(
        trace["policies"][1]["reason"]["isolated"]["by"][0][1],
        "deny-all"
    );
    // The node of a pod is let in whatever its policies say.
    cluster.run(&["trace", "node/node2", "pod/shop/api:80"]);
    cluster.fails(&["trace", "node/node1", "pod/shop/api:80"]);
}

fn what_opens_again(cluster: &Cluster) {
    let (code, said) = cluster.with(&["policy", "test"], ALLOW);
    assert_eq!(code, 1, "{said}");
    let line = said.lines().find(|line| line.starts_with("shop/web"));
    let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
    assert_eq!(words, ["shop/web", "shop/api", "TCP", "80"], "{said}");
    cluster.apply(ALLOW);
    let trace = cluster.json(&["trace", "pod/shop/web", "svc/shop/api:8080"]);
    assert_eq!(trace["arrives"], true, "{trace}");
    assert_eq!(
        trace["policies"][1]["reason"]["rule"]["policy"][1], "web-to-api",
        "{trace}"
    );
    // What is said is what happens.
    let ip = [
        "-n",
        "shop",
        "get",
        "pod",
        "api",
        "-o",
        "jsonpath={.status.podIP}",
    ];
    let url = format!("http://{}/", cluster.kube(&ip));
    soon("web reaches api", || curled(cluster, "shop/web", &url));
    assert!(curled(cluster, "data/job", &url).is_err());
    let listed = cluster.run(&["policy", "list", "pod/shop/api"]);
    assert!(
        listed.contains("isolated by shop/deny-all and shop/web-to-api"),
        "{listed}"
    );
    assert!(
        listed.contains("allow TCP http from pods with app=web of namespace shop"),
        "{listed}"
    );
    let matrix = cluster.run(&["policy", "matrix", "-n", "shop"]);
    let row = matrix.lines().find(|line| line.starts_with("shop/api"));
    let row: Vec<&str> = row
        .unwrap_or_default()
        .split("  ")
        .filter(|cell| !cell.is_empty())
        .collect();
    assert_eq!(
        row.iter().map(|cell| cell.trim()).collect::<Vec<_>>(),
        ["shop/api", "TCP 80 (http)", "shop/web"],
        "{matrix}"
    );
    let json = cluster.json(&["policy", "matrix"]);
    let flows = json["flows"].as_array().unwrap();
    let ours = |flow: &&Value| flow["from"] == "shop/web" && flow["to"] == "shop/api";
    let flow = flows.iter().find(ours).unwrap();
    assert_eq!(
        (&flow["ports"]["TCP"][0], &flow["ports"]["ICMP"]),
        (&Value::from("80"), &Value::Bool(false))
    );
}

/// Whether curl in a pod succeeds.
fn curled(cluster: &Cluster, pod: &str, url: &str) -> Result<(), String> {
    let (namespace, name) = pod.split_once('/').unwrap();
    let curl = ["exec", name, "--", "curl", "-sS", "--max-time", "2", url];
    let words = [&["-n", namespace][..], &curl].concat();
    let output = cluster.kubectl(&words).output().unwrap();
    if output.status.success() {
        Ok(())
    } else {
        Err(text(&output))
    }
}

fn labels_and_deletions(cluster: &Cluster) {
    let by_team = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: team, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}}]}]
";
    let (code, said) = cluster.with(&["policy", "test"], by_team);
    assert_eq!(code, 0, "nobody has that label yet: {said}");
    let labelled =
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: data, labels: {team: b}}\n";
    let (code, said) = cluster.with(&["policy", "test"], &format!("{by_team}{labelled}"));
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("Namespace data: would be configured"),
        "{said}"
    );
    assert!(
        said.lines()
            .any(|line| line.starts_with("data/job") && line.contains("shop/api")),
        "{said}"
    );
    let (code, said) = cluster.with(&["policy", "test", "--delete"], DENY);
    assert!(
        code == 1 && said.contains("shop/deny-all: would be deleted"),
        "{said}"
    );
    assert!(
        said.contains("Opened") && !said.contains("Closed"),
        "{said}"
    );
    let elsewhere = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: new}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: new}\nspec: {podSelector: {}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: late, namespace: new}\nspec: {containers: [{name: c, image: nginx}]}\n";
    let (code, said) = cluster.with(&["policy", "test"], elsewhere);
    assert!(code == 1 && said.contains("new: new/late"), "{said}");
}

fn what_is_refused(cluster: &Cluster) {
    let bad = DENY.replace(
        "policyTypes: [Ingress]",
        "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]",
    );
    for words in [&["policy", "test"][..], &["policy", "lint"]] {
        let (code, said) = cluster.with(words, &bad);
        assert_eq!(code, 2, "{said}");
        assert!(
            said.contains("spec.ingress[0].from[0].ipBlock.cidr"),
            "{said}"
        );
    }
    let (_, said) = cluster.fails(&["policy", "list", "pod/shop/apo"]);
    assert!(said.contains("there is no such pod"), "{said}");
    let (_, said) = cluster.fails(&["policy", "matrix", "-n", "shpo"]);
    assert!(said.contains("there is no such namespace"), "{said}");
}

fn what_is_not_as_it_was_meant(cluster: &Cluster) {
    let out = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: api}}}]
      ports: [{port: 8080}]
";
    let (code, said) = cluster.with(&["policy", "lint"], out);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("warning: NetworkPolicy shop/out: spec.egress: ")
            && said.contains("egress-forgets-dns"),
        "{said}"
    );
    assert!(
        said.contains("8080 is the port of Service shop/api; policies see the pod's own: write 80"),
        "{said}"
    );
    let (code, _) = cluster.with(&["policy", "lint", "--strict"], out);
    assert_eq!(code, 1);
    assert_eq!(
        cluster.run(&["policy", "lint", "--strict"]),
        "nothing found\n",
        "what is there is fine"
    );
}
