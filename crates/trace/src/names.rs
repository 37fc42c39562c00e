//! Questions for names that the sender's own node answers.

use model::Protocol;
use policy::End;
use policy::explain::asking;

use crate::walk::{Stop, Walk};

const PORT: u16 = 53;

impl Walk<'_> {
    /// What becomes of the packet where this node, which it starts on, answers it itself.
    pub(crate) fn answered(&mut self, node: &str) -> Option<Stop> {
        let addresses = self.world.resolvers.get(node)?;
        let service = *addresses.get(&self.destination)?;
        let asks =
            self.port == Some(PORT) && matches!(self.protocol, Protocol::Udp | Protocol::Tcp);
        if !asks {
            return None;
        }
        let cluster = self.world.cluster;
        let from = End::at(cluster, self.source);
        if from.pod.is_some() && self.has_policies() {
            let (question, side) = asking(cluster, &from, service, self.protocol);
            if let Some(stop) = self.judge(node, model::Direction::Egress, &question, side) {
                return Some(stop);
            }
        }
        self.step(
            format!("node {node}"),
            "is answered by the node's own DNS server",
            "nftables table flatnet-dns: questions of this node and its pods are delivered here, untracked",
        );
        Some(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{Change, Cluster, NetworkPolicy, Protocol};

    use crate::Trace;
    use crate::tests::{asked, cluster};

    fn ask(cluster: Cluster, from: &str) -> Trace {
        asked(cluster, from, "10.96.0.10:53", Some(Protocol::Udp)).unwrap()
    }

    fn deny(namespace: &str) -> Change {
        Change::Policy(Arc::new(NetworkPolicy {
            namespace: namespace.into(),
            name: "deny".into(),
            egress: Some(Vec::new()),
            ..NetworkPolicy::default()
        }))
    }

    #[test]
    fn the_senders_own_node_answers_where_it_has_a_server() {
        // Only node1 has one.
        let trace = ask(cluster(), "pod/web-0");
        assert!(trace.arrives, "{trace:?}");
        let last = trace.steps.last().unwrap();
        assert_eq!(last.at, "node node1");
        assert!(last.what.contains("own DNS server"), "{last:?}");
        assert!(ask(cluster(), "node/node1").arrives);
        let trace = ask(cluster(), "pod/data/db-0");
        let own = |what: &str| what.contains("own DNS server");
        assert!(!trace.steps.iter().any(|step| own(&step.what)));
        let trace = asked(cluster(), "pod/web-0", "10.96.0.10:9153", None).unwrap();
        assert!(!trace.steps.iter().any(|step| own(&step.what)));
    }

    #[test]
    fn who_may_not_talk_to_the_clusters_dns_is_not_answered() {
        let mut closed = cluster();
        closed.take(deny("default"));
        let trace = ask(closed, "pod/web-0");
        assert!(!trace.arrives);
        assert_eq!(trace.policies.len(), 1);
        let said =
            "does not arrive: NetworkPolicy default/deny isolates pod default/web-0 for egress";
        assert!(trace.verdict.starts_with(said), "{}", trace.verdict);
        let mut other = cluster();
        other.take(deny("data"));
        let trace = ask(other, "pod/web-0");
        assert!(trace.arrives && trace.policies[0].allowed, "{trace:?}");
    }
}
