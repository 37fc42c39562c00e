//! The matrix and the difference: against `explain`, pair by pair, and in words.

use std::collections::BTreeMap;

use model::selector::{Operator, Requirement};

use super::*;
use crate::explain::grid::{Sets, classes, grid};
use crate::explain::points::points;
use crate::explain::{Declared, difference, matrix};

/// Pseudo-random choices that a seed repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % most
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn some<T>(&mut self, most: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| one(self)).collect()
    }

    fn selector(&mut self) -> LabelSelector {
        let mut selector = labelled(self.of(&["", "", "app=a", "app=b", "tier=x", "app=a,tier=y"]));
        if self.below(4) == 0 {
            selector.match_expressions.push(Requirement {
                key: self.of(&["app", "tier"]).into(),
                operator: self.of(&[
                    Operator::In,
                    Operator::NotIn,
                    Operator::Exists,
                    Operator::DoesNotExist,
                ]),
                values: vec!["a".into(), "x".into()],
            });
        }
        selector
    }

    fn peer(&mut self) -> Peer {
        match self.below(6) {
            0 => block("10.244.0.0/16", &["10.244.1.0/24"]),
            1 => block(self.of(&["0.0.0.0/0", "203.0.113.0/24", "10.0.0.0/8"]), &[]),
            2 => block("203.0.113.0/24", &["203.0.113.64/26"]),
            3 => Peer::Pods {
                namespaces: Namespaces::Own,
                pods: self.selector(),
            },
            _ => Peer::Pods {
                namespaces: Namespaces::Selected(labelled(self.of(&["", "team=a", "team=b"]))),
                pods: self.selector(),
            },
        }
    }

    fn port(&mut self) -> PortMatch {
        let (low, high) = self.of(&[(80, 80), (8080, 8090), (1, 1024), (8000, 65535)]);
        PortMatch {
            protocol: Some(self.of(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp])),
            port: match self.below(4) {
                0 => PortNumbers::Any,
                1 => PortNumbers::Named("http".into()),
                _ => PortNumbers::Range(low, high),
            },
        }
    }

    fn rule(&mut self) -> Rule {
        Rule {
            peers: (self.below(4) > 0).then(|| self.some(2, Self::peer)),
            ports: (self.below(2) > 0).then(|| self.some(2, Self::port)),
        }
    }

    fn rules(&mut self) -> Option<Vec<Rule>> {
        (self.below(3) > 0).then(|| self.some(3, Self::rule))
    }

    fn cluster_rule(&mut self) -> ClusterRule {
        let action = self.of(&[Action::Accept, Action::Deny, Action::Pass]);
        let mut rule = self.rule();
        if self.below(4) == 0 {
            rule.peers = Some(vec![Peer::Nodes(labelled(self.of(&["", "zone=z1"])))]);
        }
        does(action, rule)
    }

    fn cluster(&mut self) -> Cluster {
        let mut cluster = cluster();
        for number in 0..5u8 {
            let node = self.of(&["1", "2"]);
            let (namespace, marks) = (
                self.of(&["shop", "data"]),
                self.of(&[
                    "",
                    "app=a",
                    "app=b",
                    "tier=x",
                    "app=a,tier=y",
                    "app=a,noise=1",
                ]),
            );
            let ip = format!("10.244.{node}.{}", 100 + number);
            let mut pod = pod(
                namespace,
                &format!("p{number}"),
                &format!("node{node}"),
                &ip,
                marks,
            );
            let port = self.of(&[80, 8080]);
            let ports = self.some(1, |_| ContainerPort {
                name: "http".into(),
                protocol: Protocol::Tcp,
                port,
            });
            pod.ports = ports;
            cluster.take(Change::Pod(Arc::new(pod)));
        }
        for number in 0..self.below(5) {
            let key = format!("{}/p{number}", self.of(&["shop", "data"]));
            let (ingress, egress) = (self.rules(), self.rules());
            if let Change::Policy(written) = policy(&key, "", ingress, egress) {
                let mut written = NetworkPolicy::clone(&written);
                written.pods = self.selector();
                cluster.take(Change::Policy(Arc::new(written)));
            }
        }
        for number in 0..self.below(4) {
            let tier = self.of(&[Tier::Admin, Tier::Baseline]);
            let rules = [
                self.some(3, Self::cluster_rule),
                self.some(3, Self::cluster_rule),
            ];
            if let Change::ClusterPolicy(written) = cnp(tier, 7, &format!("c{number}"), rules) {
                let mut written = ClusterPolicy::clone(&written);
                written.pods = self.selector();
                written.namespaces = labelled(self.of(&["", "team=a"]));
                cluster.take(Change::ClusterPolicy(Arc::new(written)));
            }
        }
        cluster
    }
}

const NUMBERS: [u16; 9] = [1, 80, 81, 1024, 1025, 8000, 8080, 8090, 65535];

/// Index of client and of server, what is asked, and whether it is allowed.
type Asked = (usize, usize, Option<(Protocol, u16)>, bool);

/// All that `explain` says.
fn truth(cluster: &Cluster, points: &[crate::explain::grid::Point]) -> Vec<Asked> {
    let mut all = Vec::new();
    let mut ports: Vec<Option<(Protocol, u16)>> = vec![None];
    for protocol in Protocol::ALL {
        ports.extend(NUMBERS.map(|number| Some((protocol, number))));
    }
    for (from, client) in points.iter().enumerate() {
        for (to, server) in points.iter().enumerate().filter(|(to, _)| *to != from) {
            for port in &ports {
                let question = Question {
                    from: client.end.clone(),
                    to: server.end.clone(),
                    port: *port,
                };
                all.push((from, to, *port, explain(cluster, &question).allowed()));
            }
        }
    }
    all
}

#[test]
fn the_matrix_says_what_explain_says_of_each_pair() {
    for seed in 0..40 {
        let cluster = Dice(seed).cluster();
        let points = points(&[&cluster]);
        let classes = classes(&[&cluster], &points);
        let ends: Vec<&End> = classes.iter().map(|class| &points[class[0]].end).collect();
        let mut sets = Sets::new();
        let grid = grid(&cluster, &ends, &mut sets);
        let mut class_of = BTreeMap::new();
        for (class, members) in classes.iter().enumerate() {
            class_of.extend(members.iter().map(|member| (*member, class)));
        }
        for (from, to, port, allowed) in truth(&cluster, &points) {
            let set = sets.get(grid[class_of[&from] * classes.len() + class_of[&to]]);
            let open = match port {
                Some((protocol, number)) => set.contains(protocol, number),
                None => set.has_portless(),
            };
            let names = (&points[from].name, &points[to].name);
            assert_eq!(open, allowed, "seed {seed}: {names:?} {port:?}: {set}");
        }
    }
}

#[test]
fn the_difference_is_nothing_where_explain_says_the_same() {
    let mut same = 0;
    for seed in 0..40 {
        let before = Dice(seed).cluster();
        let mut after = before.clone();
        if let Some(key) = before.policies.keys().next() {
            after.take(Change::PolicyGone(key.0.clone(), key.1.clone()));
        }
        let points = points(&[&before, &after]);
        let alike = truth(&before, &points) == truth(&after, &points);
        let found = difference(&before, &after);
        // What is asked at a few ports only may miss a difference, never make one up.
        assert!(alike || !found.is_nothing(), "seed {seed}");
        assert!(difference(&before, &before).is_nothing());
        same += usize::from(found.is_nothing());
    }
    assert!(same > 2, "some policies change nothing: {same}");
}

fn rows(policies: impl IntoIterator<Item = Change>, namespace: Option<&str>) -> Vec<String> {
    let mut cluster = cluster();
    for policy in policies {
        cluster.take(policy);
    }
    let mut declared = Declared::new();
    declared.insert(("shop".into(), "web".into()), [(Protocol::Tcp, 80)].into());
    let rows = matrix(&cluster, &declared).rows(namespace);
    rows.iter()
        .map(|row| format!("{}: {}: {}", row.to, row.ports, row.from))
        .collect()
}

#[test]
fn rows_are_read_by_people() {
    let web = Rule {
        ports: Some(vec![tcp(8080, 8080), tcp(9000, 9001)]),
        ..peers([own("app=web")])
    };
    let policies = [
        policy("shop/api", "app=api", Some(vec![web]), None),
        policy("data/deny", "", DENY, None),
        policy(
            "shop/web",
            "app=web",
            None,
            Some(vec![peers([block("203.0.113.0/24", &[]), own("")])]),
        ),
    ];
    assert_eq!(
        rows(policies.clone(), Some("shop")),
        [
            "data/db: TCP 9090 (http), all other: nobody of shop",
            "data/job: all: nobody of shop",
            "shop/api: TCP 8080 (http), TCP 9000-9001: shop/web",
            "shop/api: UDP 53 (dns), all other: nobody",
            "shop/web: TCP 80, all other: everybody",
            "other nodes: all: shop/api",
            "203.0.113.0/24: all: all of shop",
            "the rest outside: all: shop/api",
        ]
    );
    assert_eq!(
        rows(policies, None).last().unwrap(),
        "the rest outside: all: all pods but shop/web"
    );
}

#[test]
fn pods_that_are_alike_are_one_group() {
    let mut cluster = cluster();
    for number in 0..20 {
        let hash = format!("app=cart,pod-template-hash={number}");
        let ip = format!("10.244.1.{}", 100 + number);
        let pod = pod("shop", &format!("cart-7d-{number}"), "node1", &ip, &hash);
        cluster.take(Change::Pod(Arc::new(pod)));
    }
    cluster.take(policy(
        "shop/api",
        "app=api",
        Some(vec![peers([own("app=cart")])]),
        None,
    ));
    let matrix = matrix(&cluster, &Declared::new());
    let names: Vec<&str> = matrix
        .groups
        .iter()
        .map(|group| group.name.as_str())
        .collect();
    assert!(names.contains(&"shop/cart-7d-* (20)"), "{names:?}");
    let into_api: Vec<String> = matrix
        .rows(Some("shop"))
        .into_iter()
        .filter(|row| row.to == "shop/api")
        .map(|row| row.from)
        .collect();
    assert_eq!(into_api, ["shop/cart-7d-* (20)"]);
}

#[test]
fn what_opens_and_what_closes_is_told_apart() {
    let mut before = cluster();
    before.take(policy(
        "shop/api",
        "app=api",
        Some(vec![peers([own("app=web")])]),
        None,
    ));
    let mut after = before.clone();
    let rule = Rule {
        ports: Some(vec![tcp(8080, 8080)]),
        ..peers([of("", "tier=front")])
    };
    after.take(policy("shop/api", "app=api", Some(vec![rule]), None));
    after.take(Change::PodGone("data".into(), "db".into()));
    let found = difference(&before, &after);
    let words = |all: &[crate::explain::Changed]| -> Vec<String> {
        let line =
            |one: &crate::explain::Changed| format!("{} > {}: {}", one.from, one.to, one.ports);
        all.iter().map(line).collect()
    };
    assert_eq!(words(&found.opened), ["data/job > shop/api: TCP 8080"]);
    assert_eq!(found.gone, ["data/db"]);
    let closed = words(&found.closed);
    let said = "shop/web > shop/api: TCP 1-8079,8081-65535, all UDP, all SCTP, ICMP";
    assert!(closed.contains(&said.to_owned()), "{closed:?}");
}
