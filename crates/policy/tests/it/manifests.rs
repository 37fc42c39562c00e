//! What users write: each manifest of `manifests/` says in its first lines which pods and hosts
//! there are and who must reach whom, and is tried with real packets.
//!
//! ```text
//! #! namespace NAME [LABEL=VALUE]...
//! #! pod NAMESPACE/NAME LABEL=VALUE... PORT...
//! #! host NAME ADDRESS PORT...                      outside the cluster
//! #! yes|no FROM TO TCP|UDP PORT                    or ICMP; a node is called node1 or node2
//! ```

use std::sync::Arc;

use model::{Change, Labels, Namespace, Pod, Protocol};
use testing::station::ip;

use crate::lab::{self, Lab};
use crate::probe::{self, Place, Probe};
use crate::{fake, objects, oracle};

macro_rules! manifests {
    ($($name:literal)*) => {
        const MANIFESTS: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("manifests/", $name, ".yaml")))),*
        ];
    };
}

manifests! {
    "allow-all-for-a-try"
    "api-between-web-and-database"
    "api-for-web-database-for-api"
    "api-with-all-its-neighbours"
    "closed"
    "closed-by-two"
    "company-and-partner"
    "database-by-namespace"
    "database-out-names-backup"
    "deny-egress"
    "deny-ingress"
    "deny-then-web-to-api"
    "from-a-namespace-untyped"
    "names-and-the-internet"
    "names-forgotten"
    "names-remembered"
    "office-but-one"
    "only-the-outside"
    "only-web-to-api"
    "opened-by-two"
    "scraped-by-a-namespace"
    "stage-web-from-api"
    "till-between-orders-and-bank"
    "web-only-out-to-api"
    "web-out-names-api-https"
}

/// The labels and ports of a line's end.
fn labels_and_ports<'a>(words: impl Iterator<Item = &'a str>) -> (Labels, Vec<u16>) {
    let (mut labels, mut ports) = (Vec::new(), Vec::new());
    for word in words {
        match word.split_once('=') {
            Some(label) => labels.push(label),
            None => ports.push(word.parse().unwrap()),
        }
    }
    (labels.into_iter().collect(), ports)
}

fn add_namespace(lab: &mut Lab, name: &str, labels: &Labels) {
    let own = [("kubernetes.io/metadata.name", name)];
    let namespace = Namespace {
        name: name.into(),
        labels: own.into_iter().chain(labels.iter()).collect(),
    };
    lab.take(Change::Namespace(Arc::new(namespace)));
}

fn add_pod(lab: &mut Lab, name: &str, labels: Labels, ports: &[u16]) {
    let (namespace, name) = lab::key(name);
    if !lab.cluster.namespaces.contains_key(&namespace) {
        add_namespace(lab, &namespace, &Labels::default());
    }
    let number = lab.pods.len();
    let pod = Pod {
        uid: format!("{namespace}-{name}"),
        node: format!("node{}", number % 2 + 1),
        ips: lab::addresses(number % 2, 10 + number as u8).into(),
        host_network: false,
        ports: Vec::new(),
        created: 1,
        leaving: false,
        labels,
        namespace,
        name,
    };
    lab.start(&pod, ports);
    lab.take(Change::Pod(Arc::new(pod)));
}

/// Makes what the first lines ask for; returns the claims.
fn make(lab: &mut Lab, text: &str) -> Vec<(Probe, bool)> {
    let mut claims = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("#! ")) {
        let mut words = line.split(' ');
        let (what, name) = (words.next().unwrap(), words.next().unwrap());
        match what {
            "namespace" => add_namespace(lab, name, &labels_and_ports(words).0),
            "pod" => {
                let (labels, ports) = labels_and_ports(words);
                add_pod(lab, name, labels, &ports);
            }
            "host" => {
                let at = words.next().unwrap();
                let v6 = format!("2001:db8:{}::1", lab.hosts.len());
                let ports: Vec<u16> = words.map(|word| word.parse().unwrap()).collect();
                lab.add_host(name, [ip(at), ip(&v6)], &ports);
            }
            "yes" | "no" => {
                let to = place(lab, words.next().unwrap());
                let port = words.next().and_then(|word| {
                    let mut all = Protocol::ALL.into_iter();
                    let protocol = all.find(|protocol| protocol.word() == word)?;
                    Some((protocol, words.next()?.parse().unwrap()))
                });
                let from = place(lab, name);
                let hosts = [&from, &to].iter().any(|end| matches!(end, Place::Host(_)));
                // Blocks are of IPv4; what is said about pods holds for both families.
                for v6 in [false, true].into_iter().filter(|v6| !(hosts && *v6)) {
                    let (from, to) = (from.clone(), to.clone());
                    claims.push((Probe { from, to, v6, port }, what == "yes"));
                }
            }
            other => panic!("{other}"),
        }
    }
    claims
}

fn place(lab: &Lab, name: &str) -> Place {
    match name {
        "node1" => Place::Node(0),
        "node2" => Place::Node(1),
        host if lab.hosts.contains_key(host) => Place::Host(host.to_owned()),
        pod => Place::Pod(lab::key(pod)),
    }
}

fn tried(name: &str, text: &str) -> Vec<String> {
    let mut lab = Lab::empty();
    let claims = make(&mut lab, text);
    for object in objects::manifest(text, "default") {
        let (change, problem) = objects::read(&object);
        assert_eq!(problem, None, "{name}");
        lab.take(change);
    }
    lab.settle();
    let (probes, expected): (Vec<Probe>, Vec<bool>) = claims
        .into_iter()
        // Blocks of IPv4 alone close IPv6 to what only they let in.
        .filter(|(probe, _)| !(probe.v6 && text.contains("ipBlock")))
        .unzip();
    let nodes = fake::of(&lab.cluster);
    let mut wrong = probe::differences(&lab, &probes, &expected);
    for (probe, expected) in probes.iter().zip(&expected) {
        let answer = oracle::answer(&lab, &lab.cluster, probe);
        if answer.allowed() != *expected {
            wrong.push(format!("oracle: {probe}: {answer:?}"));
        }
        if fake::allows(&nodes, &oracle::question(&lab, probe)) != *expected {
            wrong.push(format!("rules: {probe}: not {expected}"));
        }
    }
    wrong.iter().map(|line| format!("{name}: {line}")).collect()
}

#[test]
fn manifests_do_what_they_say() {
    if !testing::root("manifests_do_what_they_say") {
        return;
    }
    let wrong: Vec<String> = MANIFESTS
        .iter()
        .flat_map(|(name, text)| tried(name, text))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
