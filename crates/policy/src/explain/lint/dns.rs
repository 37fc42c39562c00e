//! Pods that may talk to somebody, but not ask for their names.

use std::net::IpAddr;
use std::sync::Arc;

use model::{Change, Cluster, Direction, Labels, Namespace, NetworkPolicy, Pod, Protocol};

use super::Linter;
use crate::explain::{End, Question, Reason, explain, words};

/// What to add, as it is written everywhere.
const CURE: &str = "add to spec.egress: {to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]}";

impl<'a> Linter<'a> {
    /// An egress policy that opens something, where all policies together open no DNS.
    pub(super) fn dns(&mut self, policy: &NetworkPolicy, subjects: &[&Pod]) {
        if policy.egress.as_ref().is_none_or(Vec::is_empty) {
            return;
        }
        let mut cluster = self.cluster.clone();
        let servers = servers(&mut cluster);
        let mut asking: Vec<End> = subjects.iter().filter_map(|pod| end_of(pod)).collect();
        if asking.is_empty() {
            asking.extend(end_of(&stand_in(&mut cluster, policy)));
        }
        let key = policy.key();
        let closed = asking.iter().find(|from| {
            !servers.iter().any(|to| {
                let question = Question {
                    from: (*from).clone(),
                    to: to.clone(),
                    port: Some((Protocol::Udp, 53)),
                };
                let side = explain(&cluster, &question).egress;
                // What others deny, or this policy is not asked about, is not its fault.
                side.allowed
                    || !matches!(&side.reason, Reason::Isolated { by } if by.contains(&key))
            })
        });
        let Some(closed) = closed else { return };
        let who = match subjects.is_empty() {
            true => "pods that it selects".to_owned(),
            false => words::end(closed),
        };
        self.warn(
            "egress-forgets-dns",
            format!("spec.{}", Direction::Egress.word()),
            format!("lets {who} out to some, but neither it nor another policy opens UDP 53 to the cluster's DNS: names are not found"),
            CURE,
        );
    }
}

fn end_of(pod: &Pod) -> Option<End> {
    Some(End {
        ip: *pod.ips.first()?,
        pod: Some((pod.namespace.clone(), pod.name.clone())),
        node: None,
    })
}

/// The pods of the cluster's DNS; where there are none yet, one as they are everywhere.
fn servers(cluster: &mut Cluster) -> Vec<End> {
    let is_dns =
        |pod: &Pod| pod.namespace == "kube-system" && pod.labels.get("k8s-app") == Some("kube-dns");
    let pods = cluster.pods.values().filter(|pod| is_dns(pod));
    let known: Vec<End> = pods.filter_map(|pod| end_of(pod)).collect();
    if !known.is_empty() {
        return known;
    }
    if !cluster.namespaces.contains_key("kube-system") {
        let name = "kube-system".to_owned();
        let labels = Labels::from([("kubernetes.io/metadata.name", "kube-system")]);
        cluster.take(Change::Namespace(Arc::new(Namespace { name, labels })));
    }
    let labels = Labels::from([("k8s-app", "kube-dns")]);
    let pod = imagined(cluster, "kube-system", labels);
    end_of(&pod).into_iter().collect()
}

/// A pod that the policy would select.
fn stand_in(cluster: &mut Cluster, policy: &NetworkPolicy) -> Pod {
    imagined(cluster, &policy.namespace, policy.pods.match_labels.clone())
}

/// Puts a pod into the cluster that is not there, with an address as a pod may have it.
fn imagined(cluster: &mut Cluster, namespace: &str, labels: Labels) -> Pod {
    let ranges = || cluster.nodes.values().flat_map(|node| &node.pod_cidrs);
    let free = ranges().find_map(|range| {
        range
            .hosts()
            .skip(1)
            .find(|ip| cluster.pod_at(*ip).is_none())
    });
    let pod = Pod {
        namespace: namespace.to_owned(),
        name: "imagined".into(),
        uid: String::new(),
        node: String::new(),
        ips: vec![free.unwrap_or(IpAddr::from([10, 244, 0, 2]))],
        host_network: false,
        labels,
        ports: Vec::new(),
        created: 0,
        leaving: false,
    };
    cluster.take(Change::Pod(Arc::new(pod.clone())));
    pod
}
