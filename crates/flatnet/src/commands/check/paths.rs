//! Which paths there should be between the ends of a cluster, as values.

use std::net::IpAddr;

use serde::Serialize;

/// Where an end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A pod on the node of that number.
    Pod(usize),
    /// The node of that number itself.
    Node(usize),
    /// Outside the cluster.
    Outside,
}

/// One end of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// What to call it.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// Its addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
}

/// A path there should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// What it stands for.
    pub kind: Kind,
    /// Index of the end it starts at.
    pub from: usize,
    /// Index of the end it leads to.
    pub to: usize,
    /// Over IPv6.
    pub v6: bool,
}

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Between pods of one node.
    SameNode,
    /// Between pods of two nodes.
    OtherNode,
    /// From a pod to a node.
    ToNode,
    /// From a node to a pod.
    FromNode,
    /// From a pod to the outside.
    Outside,
    /// To a Service's own address.
    ClusterIp,
    /// To a port of a node.
    NodePort,
    /// To one of `spec.externalIPs`.
    ExternalIp,
    /// To a load balancer's address.
    LoadBalancer,
    /// Again and again to the same endpoint.
    Affinity,
    /// From an endpoint to its own Service.
    Hairpin,
    /// To a Service without endpoints.
    NoEndpoints,
    /// To the API by its Service.
    Api,
    /// To a server of names.
    Names,
}

impl Kind {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::SameNode => "pod to pod, same node",
            Self::OtherNode => "pod to pod, other node",
            Self::ToNode => "pod to node",
            Self::FromNode => "node to pod",
            Self::Outside => "pod to outside",
            Self::ClusterIp => "to a ClusterIP",
            Self::NodePort => "to a node port",
            Self::ExternalIp => "to an external IP",
            Self::LoadBalancer => "to a load balancer",
            Self::Affinity => "session affinity",
            Self::Hairpin => "endpoint to itself",
            Self::NoEndpoints => "no endpoints: refused",
            Self::Api => "to the API",
            Self::Names => "names",
        }
    }
}

/// Nodes further away than this in the circle of nodes stand for no new case.
const NEIGHBOURS: usize = 4;

/// Every path there should be: between the first pods of a node and its second, to the
/// next nodes in the circle and back, to and from nodes, and to the outside.
pub fn paths(ends: &[End], nodes: usize) -> Vec<Path> {
    let mut all = Vec::new();
    for (from, source) in ends.iter().enumerate() {
        for (to, target) in ends.iter().enumerate() {
            let Some(kind) = kind(source, target, ends, nodes, from, to) else {
                continue;
            };
            let has =
                |end: &End, v6: bool| end.addresses.iter().any(|address| address.is_ipv6() == v6);
            let both = [false, true]
                .into_iter()
                .filter(|v6| has(source, *v6) && has(target, *v6));
            all.extend(both.map(|v6| Path { kind, from, to, v6 }));
        }
    }
    all.sort_by_key(|path| (path.v6, path.kind as u8, path.from, path.to));
    all
}

fn kind(
    source: &End,
    target: &End,
    ends: &[End],
    nodes: usize,
    from: usize,
    to: usize,
) -> Option<Kind> {
    let first =
        |index: usize| ends.iter().position(|end| end.place == ends[index].place) == Some(index);
    let near = |a: usize, b: usize| {
        (b + nodes - a) % nodes <= NEIGHBOURS || (a + nodes - b) % nodes <= NEIGHBOURS
    };
    match (&source.place, &target.place) {
        (Place::Pod(a), Place::Pod(b)) if a == b => {
            (from != to && first(from)).then_some(Kind::SameNode)
        }
        // The first pod of a node calls the second of another, so that each pod is in a path.
        (Place::Pod(a), Place::Pod(b)) => {
            (near(*a, *b) && first(from) && !first(to)).then_some(Kind::OtherNode)
        }
        (Place::Pod(a), Place::Node(b)) => (near(*a, *b) && first(from)).then_some(Kind::ToNode),
        (Place::Node(a), Place::Pod(b)) => (near(*a, *b) && first(to)).then_some(Kind::FromNode),
        (Place::Pod(_), Place::Outside) => first(from).then_some(Kind::Outside),
        _ => None,
    }
}

/// What is wrong with the address the other side saw, if anything: pods are never
/// translated on the way to each other, always on the way out.
pub fn wrong_source(path: &Path, ends: &[End], seen: IpAddr) -> Option<String> {
    let from = &ends[path.from];
    let own = from.addresses.contains(&seen);
    match path.kind {
        Kind::SameNode | Kind::OtherNode if !own => Some(format!(
            "translated: seen as {seen}, not by the pod's own address"
        )),
        Kind::Outside => {
            let Place::Pod(node) = from.place else {
                return None;
            };
            let its_node = ends.iter().find(|end| end.place == Place::Node(node));
            let masqueraded = its_node.is_some_and(|node| node.addresses.contains(&seen));
            (!masqueraded)
                .then(|| format!("not masqueraded: seen as {seen}, not by its node's address"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(name: &str, place: Place, address: &str) -> End {
        End {
            name: name.into(),
            place,
            addresses: vec![address.parse().unwrap()],
        }
    }

    fn two_nodes() -> Vec<End> {
        vec![
            end("a1", Place::Pod(0), "10.244.1.2"),
            end("b1", Place::Pod(0), "10.244.1.3"),
            end("a2", Place::Pod(1), "10.244.2.2"),
            end("b2", Place::Pod(1), "10.244.2.3"),
            end("node1", Place::Node(0), "10.0.1.10"),
            end("node2", Place::Node(1), "10.0.1.20"),
            end("client", Place::Outside, "203.0.113.10"),
        ]
    }

    #[test]
    fn every_kind_of_path_is_tried_in_both_directions() {
        let ends = two_nodes();
        let words: Vec<String> = paths(&ends, 2)
            .iter()
            .map(|path| format!("{}>{}", ends[path.from].name, ends[path.to].name))
            .collect();
        assert_eq!(
            words,
            [
                "a1>b1",
                "a2>b2",
                "a1>b2",
                "a2>b1",
                "a1>node1",
                "a1>node2",
                "a2>node1",
                "a2>node2",
                "node1>a1",
                "node1>a2",
                "node2>a1",
                "node2>a2",
                "a1>client",
                "a2>client",
            ]
        );
    }

    #[test]
    fn many_nodes_make_not_many_times_many_paths() {
        let nodes = 50;
        let mut ends = Vec::new();
        for node in 0..nodes {
            for pod in 2..4 {
                ends.push(end("p", Place::Pod(node), &format!("10.244.{node}.{pod}")));
            }
        }
        assert!(paths(&ends, nodes).len() <= nodes * (1 + 2 * NEIGHBOURS));
    }

    #[test]
    fn a_translated_pod_and_an_untranslated_one_outside_are_found() {
        let ends = two_nodes();
        let path = |kind, from, to| Path {
            kind,
            from,
            to,
            v6: false,
        };
        let seen = |text: &str| text.parse().unwrap();
        assert_eq!(
            wrong_source(&path(Kind::OtherNode, 0, 3), &ends, seen("10.244.1.2")),
            None
        );
        assert!(wrong_source(&path(Kind::OtherNode, 0, 3), &ends, seen("10.0.1.10")).is_some());
        assert_eq!(
            wrong_source(&path(Kind::Outside, 0, 6), &ends, seen("10.0.1.10")),
            None
        );
        assert!(wrong_source(&path(Kind::Outside, 0, 6), &ends, seen("10.244.1.2")).is_some());
    }
}
