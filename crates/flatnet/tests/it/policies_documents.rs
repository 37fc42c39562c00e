//! The policies that guides to Kubernetes show, and what they claim of them.

use serde_json::json;

use crate::cluster::{Cluster, Server};
use crate::policies_written::{apply, denied, ips, namespace, passes, pods, serving, try_apply};

/// Who, to whom, on which port, and whether it passes.
type Case = (&'static str, &'static str, u16, bool);

/// One passage: its policies and what they claim.
struct Passage {
    policies: &'static str,
    cases: &'static [Case],
}

const HEAD: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n";

const PASSAGES: &[Passage] = &[
    // Deny all ingress: what goes out still does.
    Passage {
        policies: "metadata: {name: deny-all-ingress, namespace: default}
spec: {podSelector: {}, policyTypes: [Ingress]}",
        cases: &[
            ("default/frontend", "default/backend", 80, false),
            ("default/frontend", "staging/caller", 80, true),
            ("default/frontend", "client", 443, true),
        ],
    },
    // Allow ingress from specific pods, from a namespace.
    Passage {
        policies: "metadata: {name: allow-frontend-to-backend, namespace: default}
spec:
  podSelector: {matchLabels: {app: backend}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: frontend}}}]
      ports: [{protocol: TCP, port: 80}]
---
metadata: {name: allow-from-monitoring-ns, namespace: default}
spec:
  podSelector: {matchLabels: {app: backend}}
  policyTypes: [Ingress]
  ingress:
    - from: [{namespaceSelector: {matchLabels: {name: monitoring}}}]
      ports: [{protocol: TCP, port: 9090}]",
        cases: &[
            ("default/frontend", "default/backend", 80, true),
            ("default/frontend", "default/backend", 9090, false),
            ("default/database", "default/backend", 80, false),
            ("monitoring/prom", "default/backend", 9090, true),
            ("monitoring/prom", "default/backend", 80, false),
            ("production/frontend", "default/backend", 80, false),
            ("default/backend", "default/database", 80, true),
        ],
    },
    // Deny all egress, allow egress to specific pods.
    Passage {
        policies: "metadata: {name: deny-all-egress, namespace: default}
spec: {podSelector: {}, policyTypes: [Egress]}
---
metadata: {name: allow-frontend-to-backend-egress, namespace: default}
spec:
  podSelector: {matchLabels: {app: frontend}}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: backend}}}]
      ports: [{protocol: TCP, port: 80}]",
        cases: &[
            ("default/frontend", "default/backend", 80, true),
            ("default/frontend", "default/backend", 8080, false),
            ("default/frontend", "default/database", 80, false),
            ("default/backend", "default/frontend", 80, false),
            ("staging/caller", "default/backend", 80, true),
        ],
    },
    // Allow egress to DNS and external HTTPS: a list of two selectors is either of them.
    Passage {
        policies: "metadata: {name: allow-dns-and-external, namespace: default}
spec:
  podSelector: {matchLabels: {app: frontend}}
  policyTypes: [Egress]
  egress:
    - to:
        - namespaceSelector: {matchLabels: {name: kube-system}}
        - podSelector: {matchLabels: {k8s-app: kube-dns}}
      ports: [{protocol: UDP, port: 53}]
    - to:
        - ipBlock: {cidr: 0.0.0.0/0, except: [169.254.169.254/32]}
      ports: [{protocol: TCP, port: 443}]",
        cases: &[
            ("default/frontend", "client", 443, true),
            ("default/frontend", "client", 80, false),
            ("default/frontend", "default/backend", 80, false),
            ("default/frontend", "default/backend", 443, true),
        ],
    },
    // Combined: the backend between its frontend and its database.
    Passage {
        policies: "metadata: {name: backend-isolation, namespace: default}
spec:
  podSelector: {matchLabels: {app: backend}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: frontend}}}]
      ports: [{protocol: TCP, port: 8080}]
  egress:
    - to: [{podSelector: {matchLabels: {app: database}}}]
      ports: [{protocol: TCP, port: 5432}]
    - to: [{namespaceSelector: {matchLabels: {name: kube-system}}}]
      ports: [{protocol: UDP, port: 53}]",
        cases: &[
            ("default/frontend", "default/backend", 8080, true),
            ("default/frontend", "default/backend", 80, false),
            ("default/backend", "default/database", 5432, true),
            ("default/backend", "default/database", 80, false),
            ("default/frontend", "default/database", 80, true),
        ],
    },
    // A policy for testing that allows everything beside one that denies everything: a union.
    Passage {
        policies: "metadata: {name: deny-all, namespace: default}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
metadata: {name: allow-all, namespace: default}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress: [{}]
  egress: [{}]",
        cases: &[
            ("default/frontend", "default/backend", 80, true),
            ("staging/caller", "default/backend", 80, true),
            ("default/frontend", "client", 443, true),
        ],
    },
    // A selector of pods alone is about the policy's own namespace.
    Passage {
        policies: "metadata: {name: frontend-ingress-policy, namespace: production}
spec:
  podSelector: {matchLabels: {app: frontend}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: backend}}}]
      ports: [{protocol: TCP, port: 8080}]",
        cases: &[
            ("production/backend", "production/frontend", 8080, true),
            ("production/backend", "production/frontend", 80, false),
            ("default/backend", "production/frontend", 8080, false),
        ],
    },
    // A port for each namespace.
    Passage {
        policies: "metadata: {name: database-access-policy, namespace: database}
spec:
  podSelector: {matchLabels: {app: postgres}}
  policyTypes: [Ingress]
  ingress:
    - from: [{namespaceSelector: {matchLabels: {name: production}}}]
      ports: [{protocol: TCP, port: 5432}]
    - from: [{namespaceSelector: {matchLabels: {name: staging}}}]
      ports: [{protocol: TCP, port: 5433}]",
        cases: &[
            ("production/backend", "database/postgres", 5432, true),
            ("production/backend", "database/postgres", 5433, false),
            ("staging/caller", "database/postgres", 5433, true),
            ("staging/caller", "database/postgres", 5432, false),
            ("default/backend", "database/postgres", 5432, false),
        ],
    },
    // Blocks of addresses; the Service keeps those of its clients.
    Passage {
        policies: "metadata: {name: external-access-policy, namespace: production}
spec:
  podSelector: {matchLabels: {app: api-gateway}}
  policyTypes: [Ingress]
  ingress:
    - from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24]}}]
      ports: [{protocol: TCP, port: 443}]
    - from: [{ipBlock: {cidr: 203.0.113.0/24}}]
      ports: [{protocol: TCP, port: 8080}]",
        cases: &[
            ("client", "gateway", 8080, true),
            ("client", "gateway", 443, false),
            ("production/backend", "production/api-gateway", 443, true),
            ("production/backend", "production/api-gateway", 8080, false),
        ],
    },
    // An empty `to` is everybody, with DNS's ports.
    Passage {
        policies: "metadata: {name: frontend-egress-policy, namespace: production}
spec:
  podSelector: {matchLabels: {app: frontend}}
  policyTypes: [Egress]
  egress:
    - to: []
      ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
    - to: [{podSelector: {matchLabels: {app: backend}}}]
      ports: [{protocol: TCP, port: 8080}]
    - to: [{ipBlock: {cidr: 0.0.0.0/0}}]
      ports: [{protocol: TCP, port: 443}]",
        cases: &[
            ("production/frontend", "staging/caller", 53, true),
            ("production/frontend", "production/backend", 8080, true),
            ("production/frontend", "production/backend", 80, false),
            ("production/frontend", "client", 443, true),
            ("production/frontend", "staging/caller", 8080, false),
        ],
    },
    // Both selectors in one entry: those pods of that namespace.
    Passage {
        policies: "metadata: {name: payment-service-policy, namespace: production}
spec:
  podSelector: {matchLabels: {app: payment-service}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: order-service}}}]
      ports: [{protocol: TCP, port: 8080}]
  egress:
    - to: []
      ports: [{protocol: UDP, port: 53}]
    - to:
        - namespaceSelector: {matchLabels: {name: database}}
          podSelector: {matchLabels: {app: postgres}}
      ports: [{protocol: TCP, port: 5432}]
    - to: [{ipBlock: {cidr: 203.0.113.0/24}}]
      ports: [{protocol: TCP, port: 443}]",
        cases: &[
            (
                "production/order-service",
                "production/payment-service",
                8080,
                true,
            ),
            (
                "production/backend",
                "production/payment-service",
                8080,
                false,
            ),
            (
                "production/payment-service",
                "database/postgres",
                5432,
                true,
            ),
            ("production/payment-service", "database/other", 5432, false),
            ("production/payment-service", "client", 443, true),
            ("production/payment-service", "client", 80, false),
        ],
    },
    // Egress to what is not in the private ranges; policyTypes left out means what is written.
    Passage {
        policies: "metadata: {name: allow-external-egress, namespace: default}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Egress]
  egress:
    - to:
        - ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16]}
---
metadata: {name: allow-from-monitoring, namespace: default}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
    - from: [{namespaceSelector: {matchLabels: {name: monitoring}}}]",
        cases: &[
            ("default/api", "client", 443, true),
            ("default/api", "default/backend", 80, false),
            ("monitoring/prom", "default/api", 8080, true),
            ("default/frontend", "default/api", 8080, false),
        ],
    },
];

/// Pods of every role, on both nodes.
const PODS: [(&str, &str, &str); 14] = [
    ("default", "frontend", "node1"),
    ("default", "backend", "node2"),
    ("default", "database", "node2"),
    ("default", "api", "node1"),
    ("monitoring", "prom", "node1"),
    ("production", "frontend", "node2"),
    ("production", "backend", "node1"),
    ("production", "api-gateway", "node2"),
    ("production", "payment-service", "node1"),
    ("production", "order-service", "node1"),
    ("database", "postgres", "node2"),
    ("database", "other", "node2"),
    ("staging", "caller", "node1"),
    ("staging", "netshoot", "node2"),
];

/// Applies every passage for itself and tries what it claims.
pub fn hold(cluster: &Cluster) {
    for name in ["monitoring", "production", "database", "staging"] {
        namespace(cluster, name, &[&format!("name={name}")]);
    }
    let ports = [53, 80, 443, 5432, 5433, 8080, 9090];
    pods(
        cluster,
        &PODS.map(|(namespace, name, node)| serving(namespace, name, node, &ports)),
    );
    let _servers = [80, 443].map(|port| Server::start(cluster, port));
    let gateway = gateway(cluster);
    let mut addresses: Vec<(String, String)> = PODS
        .iter()
        .map(|(namespace, name, _)| {
            let ip = ips(cluster, namespace, &format!("pod/{name}")).remove(0);
            (format!("{namespace}/{name}"), ip)
        })
        .collect();
    addresses.push(("client".into(), "203.0.113.10".into()));
    addresses.push(("gateway".into(), gateway));
    for passage in PASSAGES {
        let objects: Vec<String> = passage
            .policies
            .split("---\n")
            .map(|policy| format!("{HEAD}{policy}"))
            .collect();
        let (applied, said) = try_apply(cluster, &objects.join("\n---\n"));
        assert!(applied, "{said}");
        std::thread::scope(|threads| {
            for case in passage.cases {
                let addresses = &addresses;
                threads.spawn(move || try_case(cluster, case, addresses));
            }
        });
        for name in ["default", "production", "database"] {
            cluster.kube(&["-n", name, "delete", "networkpolicy", "--all"]);
        }
    }
    passes(
        cluster,
        "default",
        "pod/frontend",
        &format!("http://{}/", addresses[1].1),
    );
    cluster.kube(&["delete", "pods", "frontend", "backend", "database", "api"]);
}

fn try_case(cluster: &Cluster, case: &Case, addresses: &[(String, String)]) {
    let (from, to, port, allowed) = case;
    let (_, ip) = addresses.iter().find(|(name, _)| name == to).unwrap();
    let url = format!("http://{ip}:{port}/");
    let (namespace, from) = match from.split_once('/') {
        Some((namespace, pod)) => (namespace, format!("pod/{pod}")),
        None => ("", "client".to_owned()),
    };
    if *allowed {
        passes(cluster, namespace, &from, &url);
    } else {
        denied(cluster, namespace, &from, &url);
    }
}

/// A load balancer in front of production's api-gateway that keeps the client's address.
fn gateway(cluster: &Cluster) -> String {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "api-gateway", "namespace": "production" },
        "spec": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "selector": { "app": "api-gateway" },
            "ports": [{ "name": "a", "port": 443 }, { "name": "b", "port": 8080 }],
        },
    });
    apply(cluster, &service);
    let wait = [
        "-n",
        "production",
        "wait",
        "service/api-gateway",
        "--timeout=30s",
    ];
    let address = "--for=jsonpath={.status.loadBalancer.ingress[0].ip}";
    cluster.kube(&[&wait[..], &[address]].concat());
    let path = "jsonpath={.status.loadBalancer.ingress[0].ip}";
    let get = [
        "-n",
        "production",
        "get",
        "service",
        "api-gateway",
        "-o",
        path,
    ];
    let ip = cluster.kube(&get);
    passes(cluster, "", "client", &format!("http://{ip}:443/"));
    ip
}
