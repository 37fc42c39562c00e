//! What people most often get wrong in policies, found by holding them against the cluster that
//! they are about.

use std::collections::BTreeSet;

use model::policy::{Peer, Rule, Tier};
use model::{Cluster, ClusterPolicy, Direction, Key, NetworkPolicy, Pod};
use serde::Serialize;

use super::{Declared, judge, words};

mod blocks;
mod dns;
mod ports;
mod selectors;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is not understood, and closes what it is about.
    Error,
    /// It does most likely not do what was meant.
    Warning,
    /// It does what it says; good to know.
    Note,
}

/// Something that is most likely not as it was meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which mistake, as a stable name: `egress-forgets-dns`.
    pub code: &'static str,
    /// `NetworkPolicy` or `ClusterNetworkPolicy`.
    pub kind: &'static str,
    /// Its namespace (empty where it has none) and name.
    pub object: Key,
    /// Path of the field.
    pub field: String,
    /// What is found.
    pub message: String,
    /// What to write instead.
    pub cure: String,
}

/// Holds every policy against the cluster; sorted by object. A finding is about what is there now:
/// a selector that matches no pod may be one whose pods come tomorrow.
pub fn lint(cluster: &Cluster, declared: &Declared) -> Vec<Finding> {
    let mut findings = Vec::new();
    for policy in cluster.policies.values() {
        let mut one = Linter {
            cluster,
            declared,
            kind: "NetworkPolicy",
            object: policy.key(),
            findings: &mut findings,
        };
        one.network_policy(policy);
    }
    for policy in cluster.cluster_policies.values() {
        let mut one = Linter {
            cluster,
            declared,
            kind: "ClusterNetworkPolicy",
            object: (String::new(), policy.name.clone()),
            findings: &mut findings,
        };
        one.cluster_policy(policy);
    }
    findings.sort_by(|a, b| (&a.object, a).cmp(&(&b.object, b)));
    findings.dedup();
    findings
}

/// One policy under the eye.
struct Linter<'a> {
    cluster: &'a Cluster,
    declared: &'a Declared,
    kind: &'static str,
    object: Key,
    findings: &'a mut Vec<Finding>,
}

/// A rule, where it stands, and whom its policy is about.
struct Placed<'a> {
    rule: &'a Rule,
    direction: Direction,
    /// `spec.ingress[0]`.
    field: String,
    subjects: &'a [&'a Pod],
}

impl<'a> Placed<'a> {
    fn peers_field(&self) -> String {
        let list = match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        format!("{}.{list}", self.field)
    }
}

impl<'a> Linter<'a> {
    fn find(
        &mut self,
        severity: Severity,
        code: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.findings.push(Finding {
            severity,
            code,
            kind: self.kind,
            object: self.object.clone(),
            field: field.into(),
            message: message.into(),
            cure: cure.into(),
        });
    }

    fn warn(
        &mut self,
        code: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.find(Severity::Warning, code, field, message, cure);
    }

    fn network_policy(&mut self, policy: &'a NetworkPolicy) {
        let all = self.pods_of(&policy.namespace);
        let chosen: Vec<&Pod> = all
            .iter()
            .copied()
            .filter(|pod| policy.pods.matches(&pod.labels))
            .collect();
        self.subjects(policy, &all, &chosen);
        let subjects: Vec<&Pod> = chosen.into_iter().filter(|pod| !pod.host_network).collect();
        for direction in Direction::ALL {
            let rules = policy.rules(direction).unwrap_or_default();
            self.rules(&subjects, rules, direction);
            self.swallowed(rules, direction);
        }
        self.forgotten_direction(policy);
        self.dns(policy, &subjects);
    }

    fn cluster_policy(&mut self, policy: &'a ClusterPolicy) {
        let pods = self.cluster.pods.values().map(|pod| &**pod);
        let subjects: Vec<&Pod> = pods
            .filter(|pod| judge::is_subject(self.cluster, policy, pod))
            .collect();
        if subjects.is_empty() {
            self.warn(
                "selects-no-pod",
                "spec.subject",
                "selects no pod",
                "compare it with: kubectl get namespaces --show-labels, kubectl get pods -A --show-labels",
            );
        }
        for direction in Direction::ALL {
            let rules: Vec<Rule> = policy
                .rules(direction)
                .iter()
                .map(|one| one.rule.clone())
                .collect();
            self.rules(&subjects, &rules, direction);
            let all = rules.iter().position(|rule| *rule == Rule::default());
            if let Some(at) = all.filter(|at| at + 1 < rules.len()) {
                let word = direction.word();
                self.warn(
                    "never-asked",
                    format!("spec.{word}[{}]", at + 1),
                    format!("spec.{word}[{at}] matches everything, so no rule behind it is asked"),
                    "put it last",
                );
            }
        }
        if policy.ingress.is_empty() && policy.egress.is_empty() {
            let tier = match policy.tier {
                Tier::Admin => "NetworkPolicies",
                Tier::Baseline => "nothing",
            };
            self.warn(
                "isolates-nothing",
                "spec",
                format!("has no rules, so it says nothing and {tier} decides"),
                "write rules in spec.ingress or spec.egress, or delete it",
            );
        }
    }

    fn rules(&mut self, subjects: &[&Pod], rules: &[Rule], direction: Direction) {
        for (index, rule) in rules.iter().enumerate() {
            let placed = Placed {
                rule,
                direction,
                field: format!("spec.{}[{index}]", direction.word()),
                subjects,
            };
            self.peers(&placed);
            self.and_was_meant(&placed);
            self.ports(&placed);
            self.blocks(&placed);
        }
    }

    /// An empty rule opens everything, so the rules beside it say nothing; and a list of peers and
    /// one of ports as two rules open more than both in one.
    fn swallowed(&mut self, rules: &[Rule], direction: Direction) {
        let word = direction.word();
        if let Some(all) = rules.iter().position(|rule| *rule == Rule::default()) {
            let (severity, more) = match rules.len() {
                1 => (
                    Severity::Note,
                    ", whatever other policies say of the same pods",
                ),
                _ => (Severity::Warning, "; the other rules add nothing to it"),
            };
            self.find(
                severity,
                "allows-everything",
                format!("spec.{word}[{all}]"),
                format!("`- {{}}` allows everybody on every port{more}"),
                format!("to allow nobody leave out spec.{word} and keep policyTypes; to allow some write from or to, and ports"),
            );
        }
        let only_peers = rules
            .iter()
            .position(|rule| rule.peers.is_some() && rule.ports.is_none());
        let is_dns = |rule: &Rule| {
            let mut ports = rule.ports.iter().flatten();
            ports.all(|port| port.port == model::policy::PortNumbers::Range(53, 53))
        };
        let only_ports = rules
            .iter()
            .position(|rule| rule.peers.is_none() && rule.ports.is_some() && !is_dns(rule));
        if let (Some(peers), Some(ports)) = (only_peers, only_ports) {
            self.warn(
                "and-was-meant",
                format!("spec.{word}[{ports}].ports"),
                format!(
                    "spec.{word}[{peers}] names peers on every port, and spec.{word}[{ports}] ports for everybody: two rules are two ways in"
                ),
                "where these peers on these ports are meant, leave out the `-` before ports: one rule with both",
            );
        }
    }

    /// A direction that is isolated and has no rule, beside one that has.
    fn forgotten_direction(&mut self, policy: &NetworkPolicy) {
        let has = |rules: &Option<Vec<Rule>>| rules.as_ref().map(|rules| !rules.is_empty());
        match (has(&policy.ingress), has(&policy.egress)) {
            (Some(true), Some(false)) => self.warn(
                "egress-without-rules",
                "spec.policyTypes",
                "Egress is among them and there is no egress rule: the selected pods can send nothing, not even ask DNS",
                "take Egress out of policyTypes, or write spec.egress",
            ),
            (Some(false), Some(true)) => self.find(
                Severity::Note,
                "ingress-without-rules",
                "spec.policyTypes",
                "there is no ingress rule, and Ingress is meant also where policyTypes is left out: nobody reaches the selected pods",
                "where only egress is meant write policyTypes: [Egress]",
            ),
            (None, None) => self.warn(
                "isolates-nothing",
                "spec.policyTypes",
                "is about neither direction",
                "write policyTypes: [Ingress], [Egress] or both",
            ),
            _ => {}
        }
    }

    /// All pods of a namespace that have not ended.
    fn pods_of(&self, namespace: &str) -> Vec<&'a Pod> {
        let from = (namespace.to_owned(), String::new());
        let pods = self.cluster.pods.range(from..).map(|(_, pod)| &**pod);
        pods.take_while(|pod| pod.namespace == namespace).collect()
    }

    /// The pods that a peer selects.
    fn selected(&self, peer: &Peer) -> Vec<&'a Pod> {
        let Peer::Pods { namespaces, pods } = peer else {
            return Vec::new();
        };
        let all: Vec<&Pod> = match namespaces {
            model::policy::Namespaces::Own => self.pods_of(&self.object.0),
            model::policy::Namespaces::Selected(selector) => {
                let some = self.cluster.namespaces.values();
                let some = some.filter(|namespace| selector.matches(&namespace.labels));
                some.flat_map(|namespace| self.pods_of(&namespace.name))
                    .collect()
            }
        };
        let ours = all.into_iter();
        ours.filter(|pod| pods.matches(&pod.labels) && !pod.host_network)
            .collect()
    }
}

/// Values that exist, the nearest to what was written first; at most five.
fn nearest(wanted: &str, all: impl IntoIterator<Item = String>) -> Vec<String> {
    let all: BTreeSet<String> = all.into_iter().collect();
    let mut all: Vec<String> = all.into_iter().collect();
    all.sort_by_cached_key(|each| distance(wanted, each));
    all.truncate(5);
    all
}

/// How many letters have to be changed, put in or taken out (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let change = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Pods by name, few of them.
fn some_pods(pods: &[&Pod]) -> String {
    let names: Vec<String> = pods
        .iter()
        .map(|pod| format!("{}/{}", pod.namespace, pod.name))
        .collect();
    words::list(&names)
}

#[cfg(test)]
mod tests;
