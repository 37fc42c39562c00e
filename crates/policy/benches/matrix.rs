//! How long who-reaches-whom takes.
//!
//! `cargo bench -p policy --bench matrix`: 1,000 pods in 50 namespaces with 1,000 policies, once as
//! they are (Deployments of five), once with every pod of its own kind.

#![expect(clippy::unwrap_used, reason = "a bench's failure is a panic")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::policy::{Namespaces, Peer, PortMatch, PortNumbers, Rule};
use model::{
    Change, Cluster, LabelSelector, Labels, Namespace, NetworkPolicy, Node, Pod, Protocol,
};
use policy::explain::{Declared, difference, matrix};

const PODS: usize = 1_000;
const NAMESPACES: usize = 50;
const POLICIES: usize = 1_000;
const ROUNDS: usize = 7;

fn main() {
    for (name, kinds) in [
        ("Deployments of five", PODS / 5),
        ("each pod of its own kind", PODS),
    ] {
        let cluster = cluster(kinds);
        let mut groups = 0;
        let took = median(|| {
            let matrix = matrix(&cluster, &Declared::new());
            groups = matrix.groups.len();
            std::hint::black_box(matrix.rows(None).len());
        });
        println!("matrix of {PODS} pods, {POLICIES} policies, {name}: {took:.1?}, {groups} groups");
        let mut after = cluster.clone();
        after.take(Change::PolicyGone("ns0".into(), "policy0".into()));
        let took = median(|| {
            std::hint::black_box(difference(&cluster, &after));
        });
        println!("difference by one policy, {name}: {took:.1?}");
    }
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut all: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    all.sort();
    all[ROUNDS / 2]
}

/// Pods of so many kinds, each with a label of its own; policies about a kind each, with peers of
/// another kind of its namespace, of another namespace, and of an address range.
fn cluster(kinds: usize) -> Cluster {
    let mut cluster = Cluster::default();
    for number in 0..10 {
        cluster.take(Change::Node(Node {
            name: format!("node{number}"),
            addresses: vec![format!("10.0.1.{}", 10 + number).parse().unwrap()],
            pod_cidrs: vec![format!("10.244.{number}.0/24").parse().unwrap()],
            vtep_mac: None,
            vtep_mac_v6: None,
            labels: Default::default(),
            leaving: false,
        }));
    }
    for number in 0..NAMESPACES {
        let name = format!("ns{number}");
        let labels = Labels::from([("kubernetes.io/metadata.name", name.as_str())]);
        cluster.take(Change::Namespace(Arc::new(Namespace { name, labels })));
    }
    for number in 0..PODS {
        let kind = number % kinds;
        let labels = [
            ("app".to_owned(), format!("app{kind}")),
            ("pod".into(), number.to_string()),
        ];
        cluster.take(Change::Pod(Arc::new(Pod {
            namespace: format!("ns{}", kind % NAMESPACES),
            name: format!("app{kind}-{number}"),
            uid: number.to_string(),
            node: format!("node{}", number % 10),
            ips: vec![
                format!("10.244.{}.{}", number % 10, 2 + number / 10)
                    .parse()
                    .unwrap(),
            ],
            host_network: false,
            labels: labels.into_iter().collect(),
            ports: Vec::new(),
            created: 0,
            leaving: false,
        })));
    }
    for number in 0..POLICIES {
        cluster.take(Change::Policy(Arc::new(policy(number, kinds))));
    }
    cluster
}

fn policy(number: usize, kinds: usize) -> NetworkPolicy {
    let kind = number % kinds;
    let app = |kind: usize| LabelSelector {
        match_labels: Labels::from([("app", format!("app{}", kind % kinds).as_str())]),
        ..LabelSelector::default()
    };
    let other = format!("ns{}", (number * 7) % NAMESPACES);
    let namespaces = Namespaces::Selected(LabelSelector {
        match_labels: Labels::from([("kubernetes.io/metadata.name", other.as_str())]),
        ..LabelSelector::default()
    });
    let port = PortMatch {
        protocol: Some(Protocol::Tcp),
        port: PortNumbers::Range(8000 + (number % 20) as u16, 8100),
    };
    let block = Peer::Block {
        net: format!("203.0.{}.0/24", number % 20).parse().unwrap(),
        except: Vec::new(),
    };
    let own = Peer::Pods {
        namespaces: Namespaces::Own,
        pods: app(kind + NAMESPACES),
    };
    let pods = LabelSelector::default();
    let ingress = Rule {
        peers: Some(vec![own, Peer::Pods { namespaces, pods }]),
        ports: Some(vec![port]),
    };
    let anywhere = Peer::Pods {
        namespaces: Namespaces::Selected(LabelSelector::default()),
        pods: LabelSelector::default(),
    };
    let egress = Rule {
        peers: Some(vec![block, anywhere]),
        ports: None,
    };
    NetworkPolicy {
        namespace: format!("ns{}", kind % NAMESPACES),
        name: format!("policy{number}"),
        uid: String::new(),
        pods: app(kind),
        ingress: Some(vec![ingress]),
        egress: number.is_multiple_of(3).then(|| vec![egress]),
    }
}
