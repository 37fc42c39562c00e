//! What another set of policies, pods or labels would open and close.

use std::collections::BTreeMap;

use model::Cluster;
use serde::Serialize;

use super::End;
use super::grid::{Kind, Point, Sets, classes, grid};
use super::matrix::{Names, called};
use super::points::points;
use super::portset::PortSet;

/// What changes between two ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// The clients, in words.
    pub from: String,
    /// The servers, in words.
    pub to: String,
    /// On which ports.
    pub ports: PortSet,
}

/// What one cluster lets through and another does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Open in the second only.
    pub opened: Vec<Changed>,
    /// Open in the first only.
    pub closed: Vec<Changed>,
    /// Pods of the second only: all they reach is new.
    pub new: Vec<String>,
    /// Pods of the first only.
    pub gone: Vec<String>,
}

impl Difference {
    /// Whether nobody reaches more or less than before.
    pub fn is_nothing(&self) -> bool {
        self.opened.is_empty() && self.closed.is_empty()
    }
}

/// What changes for the pods that are in both, and what those of one only reach.
pub fn difference(before: &Cluster, after: &Cluster) -> Difference {
    let points = points(&[before, after]);
    let here = |cluster: &Cluster, point: &Point| {
        let pod = point.end.pod.as_ref();
        pod.is_none_or(|key| cluster.pods.contains_key(key))
    };
    let only = |one: &Cluster, other: &Cluster| -> Vec<String> {
        let points = points.iter().filter(|point| point.kind == Kind::Pod);
        let only = points.filter(|point| here(one, point) && !here(other, point));
        only.filter_map(|point| point.end.pod.as_ref().map(super::words::key))
            .collect()
    };
    let classes = classes(&[before, after], &points);
    let ends: Vec<&End> = classes.iter().map(|class| &points[class[0]].end).collect();
    let mut sets = Sets::new();
    let [old, new] = [before, after].map(|cluster| grid(cluster, &ends, &mut sets));
    let mut wide = Wide {
        points: &points,
        classes: &classes,
        names: Names::of(&points),
        opened: BTreeMap::new(),
        closed: BTreeMap::new(),
    };
    let nothing = PortSet::default();
    for from in 0..classes.len() {
        for to in 0..classes.len() {
            let at = from * classes.len() + to;
            let [client, server] = [from, to].map(|class| &points[classes[class][0]]);
            let exists = |cluster| here(cluster, client) && here(cluster, server);
            let (was, is) = (exists(before), exists(after));
            let alone = from == to && classes[from].len() == 1;
            let about = client.kind == Kind::Pod || server.kind == Kind::Pod;
            if alone || !about || (was && is && old[at] == new[at]) {
                continue;
            }
            let was = if was { sets.get(old[at]) } else { &nothing };
            let is = if is { sets.get(new[at]) } else { &nothing };
            wide.take(from, to, &is.without(was), &was.without(is));
        }
    }
    Difference {
        opened: wide.named(&wide.opened),
        closed: wide.named(&wide.closed),
        new: only(after, before),
        gone: only(before, after),
    }
}

/// What changes, by the ports and the server's class: the clients' classes.
type Changes = BTreeMap<PortSet, BTreeMap<usize, Vec<usize>>>;

/// Gathers single changes to few lines.
struct Wide<'a> {
    points: &'a [Point],
    classes: &'a [Vec<usize>],
    names: Names<'a>,
    opened: Changes,
    closed: Changes,
}

impl Wide<'_> {
    fn take(&mut self, from: usize, to: usize, opened: &PortSet, closed: &PortSet) {
        for (changes, set) in [(&mut self.opened, opened), (&mut self.closed, closed)] {
            if !set.is_empty() {
                let of_set = changes.entry(set.clone()).or_default();
                of_set.entry(to).or_default().push(from);
            }
        }
    }

    /// Servers with the same clients and ports are one line.
    fn named(&self, changes: &Changes) -> Vec<Changed> {
        let mut lines = Vec::new();
        for (ports, servers) in changes {
            let mut by_clients: BTreeMap<&[usize], Vec<usize>> = BTreeMap::new();
            for (to, from) in servers {
                by_clients.entry(from).or_default().push(*to);
            }
            for (from, to) in by_clients {
                lines.push(Changed {
                    from: self.words(from),
                    to: self.words(&to),
                    ports: ports.clone(),
                });
            }
        }
        lines.sort_by(|a, b| (&a.to, &a.from).cmp(&(&b.to, &b.from)));
        lines
    }

    /// Classes in words: the pods of each namespace together, then nodes, then the outside.
    fn words(&self, classes: &[usize]) -> String {
        let mut members: Vec<usize> = classes
            .iter()
            .flat_map(|class| self.classes[*class].iter().copied())
            .collect();
        members.sort_unstable();
        let mut together: BTreeMap<(Kind, Option<&str>), Vec<&str>> = BTreeMap::new();
        for at in &members {
            let point = &self.points[*at];
            let namespace = point
                .end
                .pod
                .as_ref()
                .map(|(namespace, _)| namespace.as_str());
            together
                .entry((point.kind, namespace))
                .or_default()
                .push(&point.name);
        }
        let names: Vec<String> = together
            .iter()
            .map(|((kind, namespace), all)| {
                called(*kind, *namespace, all, self.points, &self.names)
            })
            .collect();
        if members.len() == self.points.len() {
            return "everybody".into();
        }
        names.join(", ")
    }
}
