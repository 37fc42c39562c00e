//! Stock kubectl against the server.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::server::Server;

/// kubectl with a kubeconfig and a cache of its own.
struct Kubectl {
    program: std::path::PathBuf,
    home: tempfile::TempDir,
}

impl Kubectl {
    fn new(server: &Server) -> Option<Self> {
        let program = testing::program("stock kubectl", "kubectl")?;
        let home = tempfile::tempdir().unwrap();
        std::fs::write(
            home.path().join("config"),
            server.kubeconfig("admin", Some("system:masters")),
        )
        .unwrap();
        Some(Self { program, home })
    }

    /// Runs it; output and errors together, and whether it succeeded.
    fn try_with(&self, arguments: &[&str], input: &str) -> (bool, String) {
        let mut child = Command::new(&self.program)
            .args(arguments)
            .env("KUBECONFIG", self.home.path().join("config"))
            .env("HOME", self.home.path())
            .env("EDITOR", "sed -i s/before/after/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }

    fn run(&self, line: &str) -> String {
        self.with(line, "")
    }

    fn with(&self, line: &str, input: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let (good, text) = self.try_with(&arguments, input);
        assert!(good, "kubectl {line}: {text}");
        text
    }

    fn fails(&self, line: &str, input: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let (good, text) = self.try_with(&arguments, input);
        assert!(!good, "kubectl {line}: {text}");
        text
    }
}

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}, annotations: {note: before}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: nginx
        image: nginx:1.27
        ports: [{containerPort: 80}]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_everyday_commands_work() {
    let server = Server::start().await;
    let Some(kubectl) = Kubectl::new(&server) else {
        return;
    };
    assert!(kubectl.run("get ns").contains("kube-system"));
    assert!(kubectl.run("api-resources").contains("networkpolicies"));
    assert_eq!(
        kubectl.with("apply -f -", WEB),
        "deployment.apps/web created\n"
    );
    assert_eq!(
        kubectl.with("apply -f -", WEB),
        "deployment.apps/web unchanged\n"
    );
    let changed = WEB.replace("replicas: 2", "replicas: 3");
    assert!(
        kubectl
            .fails("diff -f -", &changed)
            .contains("+  replicas: 3")
    );
    assert_eq!(
        kubectl.with("apply -f -", &changed),
        "deployment.apps/web configured\n"
    );
    assert!(kubectl.run("get deploy web").contains("0/3"));
    kubectl.run("scale deploy web --replicas=1");
    assert_eq!(
        kubectl.run("get deploy web -o jsonpath={.spec.replicas}"),
        "1"
    );
    kubectl.run("label deploy web tier=front");
    kubectl.run("annotate deploy web x=y");
    assert!(
        kubectl
            .run("get deploy -l tier=front -o name")
            .contains("deployment.apps/web")
    );
    kubectl.run("edit deploy web");
    assert_eq!(
        kubectl.run("get deploy web -o jsonpath={.metadata.annotations.note}"),
        "after"
    );
    kubectl.run("set image deploy/web nginx=nginx:1.28");
    assert!(kubectl.run("describe deploy web").contains("nginx:1.28"));
    kubectl.run("create configmap cm --from-literal=a=b");
    kubectl.run("create secret generic s --from-literal=a=b");
    kubectl.run("expose deploy web --port=80");
    assert!(kubectl.run("get svc web").contains("ClusterIP"));
    kubectl.run("patch cm cm -p {\"data\":{\"c\":\"d\"}}");
    assert!(kubectl.run("get cm cm -o yaml").contains("c: d"));
    assert_eq!(kubectl.run("delete deploy,svc web").lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_side_apply_names_its_conflicts() {
    let server = Server::start().await;
    let Some(kubectl) = Kubectl::new(&server) else {
        return;
    };
    assert_eq!(
        kubectl.with("apply --server-side -f -", WEB),
        "deployment.apps/web serverside-applied\n"
    );
    let other = WEB.replace("replicas: 2", "replicas: 5");
    let conflict = kubectl.fails("apply --server-side --field-manager=other -f -", &other);
    assert!(
        conflict.contains("conflict with \"kubectl\"") && conflict.contains(".spec.replicas"),
        "{conflict}"
    );
    kubectl.with(
        "apply --server-side --force-conflicts --field-manager=other -f -",
        &other,
    );
    assert_eq!(
        kubectl.run("get deploy web -o jsonpath={.spec.replicas}"),
        "5"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_with_a_wrong_field_is_refused() {
    let server = Server::start().await;
    let Some(kubectl) = Kubectl::new(&server) else {
        return;
    };
    let wrong = WEB.replace("replicas: 2", "replica: 2");
    assert!(
        kubectl
            .fails("apply -f -", &wrong)
            .contains("unknown field \"spec.replica\"")
    );
    let wrong = WEB.replace("matchLabels: {app: web}", "matchLabels: {app: other}");
    let refused = kubectl.fails("apply -f -", &wrong);
    assert!(
        refused.contains("`selector` does not match template `labels`"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_and_wait_and_auth_answer() {
    let server = Server::start().await;
    let Some(kubectl) = Kubectl::new(&server) else {
        return;
    };
    assert!(
        kubectl
            .run("explain deployment.spec.strategy")
            .contains("RollingUpdate")
    );
    assert!(kubectl.run("auth can-i list pods").contains("yes"));
    assert!(
        kubectl
            .fails("auth can-i list pods --as=bob", "")
            .contains("no")
    );
    assert!(kubectl.run("auth whoami").contains("system:masters"));
    assert_eq!(
        kubectl
            .run("create token default")
            .trim()
            .split('.')
            .count(),
        3
    );
    kubectl.run("create namespace shop");
    kubectl.run("wait --for=jsonpath={.status.phase}=Active ns/shop");
    kubectl.run("delete namespace shop");
    assert!(kubectl.fails("get namespace shop", "").contains("NotFound"));
    assert!(kubectl.run("version").contains("v1.36.0+flatnet"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_cordoned_and_drained() {
    let server = Server::start().await;
    let Some(kubectl) = Kubectl::new(&server) else {
        return;
    };
    kubectl.with(
        "create -f -",
        "apiVersion: v1\nkind: Node\nmetadata: {name: node1}",
    );
    kubectl.with(
        "create -f -",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {nodeName: node1, containers: [{name: c, image: nginx}]}",
    );
    kubectl.run("cordon node1");
    assert!(kubectl.run("get node node1").contains("SchedulingDisabled"));
    assert!(
        kubectl
            .run("drain node1 --force --grace-period=0 --timeout=20s")
            .contains("node/node1 drained")
    );
    assert!(kubectl.fails("get pod p", "").contains("NotFound"));
    kubectl.run("uncordon node1");
    let warned = kubectl.run("get endpoints kubernetes");
    assert!(
        warned.contains("Warning: v1 Endpoints is deprecated in v1.33+"),
        "{warned}"
    );
}

/// `kubectl create` sends what it knows as protobuf.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_generator_of_create_is_understood() {
    let server = Server::start().await;
    let Some(kubectl) = Kubectl::new(&server) else {
        return;
    };
    for line in [
        "create deployment d --image=nginx --replicas=0 --port=80",
        "create service nodeport n --tcp=80:8080 --node-port=30123",
        "create service externalname e --external-name=db.example.com",
        "create ingress i --rule=a.example.com/*=web:80,tls=cert --default-backend=web:http",
        "create role r --verb=get,list --resource=pods,deployments.apps",
        "create clusterrole c --verb=get --non-resource-url=/metrics",
        "create rolebinding rb --role=r --serviceaccount=default:default",
        "create clusterrolebinding cb --clusterrole=c --group=people",
        "create quota q --hard=pods=10,cpu=2",
        "create poddisruptionbudget p --selector=app=web --min-available=50%",
        "create priorityclass high --value=1000",
    ] {
        kubectl.run(line);
    }
    assert_eq!(
        kubectl.run("get deploy d -o jsonpath={.spec.replicas}"),
        "0"
    );
    assert_eq!(
        kubectl.run("get svc n -o jsonpath={.spec.ports[0].targetPort}/{.spec.ports[0].nodePort}"),
        "8080/30123"
    );
    let ingress = kubectl.run("get ingress i -o jsonpath={.spec}");
    assert!(ingress.contains("\"host\":\"a.example.com\",\"http\":{\"paths\":[{\"backend\":{\"service\":{\"name\":\"web\",\"port\":{\"number\":80}}},\"path\":\"/\",\"pathType\":\"Prefix\"}]}"), "{ingress}");
    assert_eq!(kubectl.run("get quota q -o jsonpath={.spec.hard.cpu}"), "2");
    assert_eq!(
        kubectl.run("get pdb p -o jsonpath={.spec.minAvailable}"),
        "50%"
    );
    assert!(
        kubectl
            .run("auth can-i list deployments.apps --as=system:serviceaccount:default:default")
            .contains("yes")
    );
}

const POLICIES: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]
    ports: [{port: 5432}, {port: 8000, endPort: 8010, protocol: UDP}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: metadata}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  egress:
  - {name: metadata, action: Deny, to: [{networks: [169.254.169.254/32]}]}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_are_applied_listed_and_described() {
    let server = Server::start().await;
    let Some(kubectl) = Kubectl::new(&server) else {
        return;
    };
    assert_eq!(
        kubectl.with("apply -f -", POLICIES),
        "networkpolicy.networking.k8s.io/db created\n\
         clusternetworkpolicy.policy.networking.k8s.io/metadata created\n"
    );
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let listed = kubectl.run("get netpol");
    assert!(words(&listed).starts_with("NAME POD-SELECTOR AGE db app=db"));
    let listed = kubectl.run("get cnp");
    assert!(words(&listed).starts_with("NAME TIER PRIORITY AGE metadata Admin 10"));
    let described = words(&kubectl.run("describe networkpolicy db"));
    for part in [
        "PodSelector: app=db",
        "Allowing ingress traffic: To Port: 5432/TCP To Port Range: 8000-8010/UDP From: PodSelector: app=web From: IPBlock: CIDR: 10.0.0.0/8 Except: 10.1.0.0/16",
        "Not affecting egress traffic",
        "Policy Types: Ingress",
    ] {
        assert!(described.contains(part), "{described}");
    }
    let described = words(&kubectl.run("describe cnp metadata"));
    assert!(described.contains("Networks: 169.254.169.254/32"));
    let bad = POLICIES.replace("10.0.0.0/8", "10.0.0.0/33");
    let refused = kubectl.fails("apply -f -", &bad);
    assert!(
        refused.contains(
            "The NetworkPolicy \"db\" is invalid: spec.ingress[0].from[1].ipBlock.cidr: \
             Invalid value: \"10.0.0.0/33\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
        ),
        "{refused}"
    );
}
