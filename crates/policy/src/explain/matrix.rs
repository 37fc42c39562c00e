//! Who reaches whom on which port, of all ends at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::{Cluster, Key, Protocol};
use serde::Serialize;

use super::End;
use super::grid::{Kind, Point, Sets, classes, grid};
use super::points::points;
use super::portset::PortSet;

/// Ports that pods serve, besides those with names: of their containers, and of Services.
pub type Declared = BTreeMap<Key, BTreeSet<(Protocol, u16)>>;

/// Ends that no policy tells apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// What to call it: `shop/web-* (3)`.
    pub name: String,
    /// `pods`, `nodes` or `outside`.
    pub kind: &'static str,
    /// The namespace of pods.
    pub namespace: Option<String>,
    /// The names of all.
    pub members: Vec<String>,
    /// Ports that it serves, with their names.
    pub ports: Vec<Port>,
}

/// A port that a pod serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Port {
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
    /// Its name, where it has one.
    pub name: Option<String>,
}

/// What is open from one group to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// Name of the client's group.
    pub from: String,
    /// Name of the server's group.
    pub to: String,
    /// On which ports.
    pub ports: PortSet,
}

/// Who reaches whom.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Everybody, pods first.
    pub groups: Vec<Group>,
    sets: Vec<PortSet>,
    /// From each group to each, by index into `sets`.
    grid: Vec<usize>,
}

/// One line of the matrix: on these ports, a group is reached by these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The server's group.
    pub to: String,
    /// The ports in words.
    pub ports: String,
    /// Who reaches them, in words.
    pub from: String,
}

/// Who reaches whom on which port. A pod's own node, and the pod itself, always reach it: that is
/// left out.
pub fn matrix(cluster: &Cluster, declared: &Declared) -> Matrix {
    let points = points(&[cluster]);
    let classes = classes(&[cluster], &points);
    let ends: Vec<&End> = classes.iter().map(|class| &points[class[0]].end).collect();
    let mut sets = Sets::new();
    let numbers = grid(cluster, &ends, &mut sets);
    let served = Served::of(cluster, declared);
    let merged = merged(&points, &classes, &numbers, &served);
    let names = Names::of(&points);
    let groups: Vec<Group> = merged
        .iter()
        .map(|(first, members)| {
            group(
                &points,
                &names,
                members,
                served.at(&points[classes[*first][0]]),
            )
        })
        .collect();
    let mut known: HashMap<u32, usize> = HashMap::new();
    let mut used = Vec::new();
    let mut small = Vec::with_capacity(merged.len() * merged.len());
    for (from, _) in &merged {
        for (to, _) in &merged {
            let number = numbers[from * classes.len() + to];
            small.push(*known.entry(number).or_insert_with(|| {
                used.push(sets.get(number).clone());
                used.len() - 1
            }));
        }
    }
    Matrix {
        groups,
        sets: used,
        grid: small,
    }
}

/// Classes that behave alike, and serve the same ports, are one group: the first of the classes,
/// and all members.
fn merged(
    points: &[Point],
    classes: &[Vec<usize>],
    numbers: &[u32],
    served: &Served,
) -> Vec<(usize, Vec<usize>)> {
    let count = classes.len();
    let mut known = HashMap::new();
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for (index, class) in classes.iter().enumerate() {
        // Pods of a class may serve different ports.
        let mut parts: BTreeMap<&[Port], Vec<usize>> = BTreeMap::new();
        for member in class {
            parts
                .entry(served.at(&points[*member]))
                .or_default()
                .push(*member);
        }
        let row = &numbers[index * count..(index + 1) * count];
        let column: Vec<u32> = (0..count)
            .map(|from| numbers[from * count + index])
            .collect();
        for (ports, members) in parts {
            let point = &points[members[0]];
            let namespace = point.end.pod.as_ref().map(|(namespace, _)| namespace);
            let alike = (point.kind, namespace, ports, row, column.clone());
            let group = *known.entry(alike).or_insert(groups.len());
            match groups.get_mut(group) {
                Some((_, all)) => all.extend(members),
                None => groups.push((index, members)),
            }
        }
    }
    for (_, members) in &mut groups {
        members.sort_unstable();
    }
    groups.sort_by_key(|(_, members)| members[0]);
    groups
}

/// The ports that each pod serves.
struct Served(HashMap<Key, Vec<Port>>);

impl Served {
    fn of(cluster: &Cluster, declared: &Declared) -> Self {
        let all = cluster.pods.iter().map(|(key, pod)| {
            let mut ports: BTreeMap<(Protocol, u16), Option<String>> = BTreeMap::new();
            let declared = declared.get(key).into_iter().flatten();
            ports.extend(declared.map(|port| (*port, None)));
            let named = pod.ports.iter();
            ports.extend(named.map(|p| ((p.protocol, p.port), Some(p.name.to_string()))));
            let ports = ports.into_iter().map(|((protocol, port), name)| Port {
                protocol,
                port,
                name,
            });
            (key.clone(), ports.collect())
        });
        Self(all.collect())
    }

    fn at(&self, point: &Point) -> &[Port] {
        let ports = point.end.pod.as_ref().and_then(|key| self.0.get(key));
        ports.map_or(&[], Vec::as_slice)
    }
}

/// The names of the pods of each namespace.
pub(super) struct Names<'a>(BTreeMap<&'a str, Vec<&'a str>>);

impl<'a> Names<'a> {
    pub(super) fn of(points: &'a [Point]) -> Self {
        let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (namespace, name) in points.iter().filter_map(|point| point.end.pod.as_ref()) {
            all.entry(namespace).or_default().push(name);
        }
        Self(all)
    }

    /// `shop/*`, `shop/web`, `shop/web-* (3)`, or the first and how many more.
    pub(super) fn pods(&self, namespace: &str, members: &[&str]) -> String {
        let all = self.0.get(namespace).map_or(&[][..], Vec::as_slice);
        let (first, count) = (members[0], members.len());
        if count == 1 {
            return format!("{namespace}/{first}");
        }
        if count == all.len() {
            return format!("{namespace}/* ({count})");
        }
        let mut beginning = first;
        while let Some((shorter, _)) = beginning.rsplit_once('-') {
            beginning = shorter;
            let prefix = format!("{beginning}-");
            let has = |all: &[&str]| all.iter().filter(|name| name.starts_with(&prefix)).count();
            if has(members) == count && has(all) == count {
                return format!("{namespace}/{prefix}* ({count})");
            }
        }
        format!("{namespace}/{first} and {} more", count - 1)
    }
}

fn group(points: &[Point], names: &Names<'_>, members: &[usize], ports: &[Port]) -> Group {
    let first = &points[members[0]];
    let all: Vec<&str> = members.iter().map(|at| points[*at].name.as_str()).collect();
    let namespace = first
        .end
        .pod
        .as_ref()
        .map(|(namespace, _)| namespace.clone());
    Group {
        name: called(first.kind, namespace.as_deref(), &all, points, names),
        kind: match first.kind {
            Kind::Pod => "pods",
            Kind::Node => "nodes",
            Kind::Outside => "outside",
        },
        namespace,
        members: all.into_iter().map(str::to_owned).collect(),
        ports: ports.to_vec(),
    }
}

/// What to call ends of one kind.
pub(super) fn called(
    kind: Kind,
    namespace: Option<&str>,
    members: &[&str],
    points: &[Point],
    names: &Names<'_>,
) -> String {
    let of_kind = points.iter().filter(|point| point.kind == kind).count();
    let few: Vec<String> = members.iter().map(|name| (*name).to_owned()).collect();
    match (kind, namespace) {
        (Kind::Pod, Some(namespace)) => names.pods(namespace, members),
        (Kind::Outside, _) if members.len() == of_kind => "outside".into(),
        (Kind::Node, _) if members.len() == of_kind => "other nodes".into(),
        (Kind::Node, _) => format!("node {}", few.join(", ")),
        _ => super::words::list(&few),
    }
}

impl Matrix {
    /// The index of what is open from a group to another, by their indices; nothing where no policy
    /// is about such, or the group has nobody else to talk to.
    fn open(&self, from: usize, to: usize) -> Option<usize> {
        let pods = [from, to].map(|at| self.groups[at].kind == "pods");
        let alone = from == to && self.groups[from].members.len() == 1;
        if alone || pods == [false, false] {
            return None;
        }
        Some(self.grid[from * self.groups.len() + to])
    }

    /// What the matrix is about where only pods of a namespace are asked for.
    fn within(&self, namespace: Option<&str>, from: usize, to: usize) -> bool {
        let ours = |at: usize| self.groups[at].namespace.as_deref() == namespace;
        namespace.is_none() || ours(from) || ours(to)
    }

    /// All that is open, from whom to whom.
    pub fn flows(&self, namespace: Option<&str>) -> Vec<Flow> {
        let mut flows = Vec::new();
        for (from, client) in self.groups.iter().enumerate() {
            for (to, server) in self.groups.iter().enumerate() {
                let open = self.open(from, to).map(|set| &self.sets[set]);
                let open = open.filter(|set| !set.is_empty());
                if let Some(set) = open.filter(|_| self.within(namespace, from, to)) {
                    flows.push(Flow {
                        from: client.name.clone(),
                        to: server.name.clone(),
                        ports: set.clone(),
                    });
                }
            }
        }
        flows
    }

    /// As lines of a table.
    pub fn rows(&self, namespace: Option<&str>) -> Vec<Row> {
        let all = 0..self.groups.len();
        let rows = all.flat_map(|to| self.rows_of(namespace, to));
        rows.collect()
    }

    fn rows_of(&self, namespace: Option<&str>, to: usize) -> Vec<Row> {
        let clients: Vec<(usize, usize)> = (0..self.groups.len())
            .filter(|from| self.within(namespace, *from, to))
            .filter_map(|from| Some((from, self.open(from, to)?)))
            .collect();
        if clients.is_empty() {
            return Vec::new();
        }
        let group = &self.groups[to];
        let row = |ports: String, who: &[bool]| Row {
            to: group.name.clone(),
            ports,
            from: self.words(&clients, who),
        };
        let pieces = pieces(&self.sets, &clients, &group.ports);
        pieces
            .into_iter()
            .map(|(ports, who)| row(ports, &who))
            .collect()
    }

    /// Whom of the clients these are, in words.
    fn words(&self, clients: &[(usize, usize)], who: &[bool]) -> String {
        let yes = who.iter().filter(|yes| **yes).count();
        let no = who.len() - yes;
        let mut kinds = clients.iter().map(|(at, _)| &self.groups[*at]);
        let first = kinds.next().map(|group| (group.kind, &group.namespace));
        let same = |group: &Group| first.is_some_and(|(_, own)| group.namespace == *own);
        let of = match first {
            Some(("pods", Some(own))) if kinds.all(same) => format!(" of {own}"),
            _ => String::new(),
        };
        let all_pods = clients
            .iter()
            .all(|(at, _)| self.groups[*at].kind == "pods");
        let everybody = match (all_pods, of.is_empty()) {
            (true, true) => "all pods".to_owned(),
            (true, false) => format!("all{of}"),
            _ => "everybody".to_owned(),
        };
        if yes == 0 {
            return format!("nobody{of}");
        }
        if no == 0 {
            return everybody;
        }
        let pick = |wanted: bool| self.pick(clients, who, wanted);
        if no <= 3 && yes > 2 * no {
            return format!("{everybody} but {}", pick(false).join(", "));
        }
        pick(true).join(", ")
    }

    /// The names of those that are so; whole namespaces as one, and all pods.
    fn pick(&self, clients: &[(usize, usize)], who: &[bool], wanted: bool) -> Vec<String> {
        let groups = || {
            clients
                .iter()
                .zip(who)
                .map(|((at, _), yes)| (&self.groups[*at], *yes == wanted))
        };
        let whole = |namespace: &Option<String>| {
            let ours = groups().filter(|(group, _)| group.namespace == *namespace);
            let (fitting, all) = ours.fold((0, 0), |(yes, all), (_, fits)| {
                (yes + usize::from(fits), all + 1)
            });
            fitting == all && all > 1
        };
        let mut pods = groups()
            .filter(|(group, _)| group.kind == "pods")
            .peekable();
        let all_pods = pods.peek().is_some() && pods.all(|(_, fits)| fits);
        let mut names: Vec<String> = Vec::new();
        let mut done = BTreeSet::new();
        for (group, _) in groups().filter(|(_, fits)| *fits) {
            let name = match &group.namespace {
                Some(_) if all_pods => "all pods".to_owned(),
                Some(namespace) if whole(&group.namespace) => format!("{namespace}/*"),
                _ => group.name.clone(),
            };
            if done.insert(name.clone()) {
                names.push(name);
            }
        }
        names
    }
}

/// The ports of a server in pieces that the same clients reach, each in words: those it serves by
/// themselves, and what is left as all other.
fn pieces(
    sets: &[PortSet],
    clients: &[(usize, usize)],
    served: &[Port],
) -> Vec<(String, Vec<bool>)> {
    // Many clients, few sets: a piece is in some of the sets, and then all that have those reach it.
    let distinct: BTreeSet<usize> = clients.iter().map(|(_, set)| *set).collect();
    let mut parts: Vec<(PortSet, BTreeSet<usize>)> = vec![(PortSet::all(), BTreeSet::new())];
    for set in distinct {
        for (part, within) in std::mem::take(&mut parts) {
            let (inner, outer) = (part.and(&sets[set]), part.without(&sets[set]));
            if !inner.is_empty() {
                let mut within = within.clone();
                within.insert(set);
                parts.push((inner, within));
            }
            if !outer.is_empty() {
                parts.push((outer, within));
            }
        }
    }
    // Pieces apart from each other may have the same clients.
    let mut alike: BTreeMap<BTreeSet<usize>, PortSet> = BTreeMap::new();
    for (part, within) in parts {
        let all = alike.entry(within).or_default();
        *all = all.or(&part);
    }
    let parts = alike.into_iter().map(|(within, part)| {
        let who = clients.iter().map(|(_, set)| within.contains(set));
        (part, who.collect::<Vec<bool>>())
    });
    let parts: Vec<(PortSet, Vec<bool>)> = parts.collect();
    let most = parts.iter().map(|(part, _)| part.count()).max();
    let rest = parts
        .iter()
        .position(|(part, _)| Some(part.count()) == most);
    let alone = parts.len() == 1;
    let mut rows: Vec<(bool, PortSet, String, Vec<bool>)> = Vec::new();
    for (index, (part, who)) in parts.into_iter().enumerate() {
        let is_rest = Some(index) == rest;
        let ours: Vec<&Port> = served
            .iter()
            .filter(|port| part.contains(port.protocol, port.port))
            .collect();
        let mut words: Vec<String> = ours.iter().map(|port| port.to_string()).collect();
        if is_rest {
            let other = if words.is_empty() && alone {
                "all"
            } else {
                "all other"
            };
            words.push(other.into());
        } else {
            let others = ours.iter().fold(part.clone(), |left, port| {
                left.without(&PortSet::range(port.protocol, port.port, port.port))
            });
            if !others.is_empty() {
                words.push(others.to_string());
            }
        }
        rows.push((is_rest, part, words.join(", "), who));
    }
    rows.sort_by(|a, b| (a.0, &b.1).cmp(&(b.0, &a.1)));
    let rows = rows.into_iter();
    rows.map(|(_, _, words, who)| (words, who)).collect()
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.protocol, self.port)?;
        match &self.name {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}
