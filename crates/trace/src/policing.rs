//! What the policies of the pods at both ends say about a packet on its way: at the client's node
//! about egress, once Services have chosen; at the server's node about ingress.

use std::net::IpAddr;

use model::Direction;
use policy::explain::words;
use policy::{Answer, End, Question, Reason, Side, explain};
use serde::Serialize;

use crate::walk::{Stop, Walk};

/// What the policies of one end say.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    /// The node that enforces them.
    pub node: String,
    /// Out of the client, or into the server.
    pub direction: Direction,
    /// The pod they are about, as `namespace/name`.
    pub pod: String,
    /// Whether they let the packet through.
    pub allowed: bool,
    /// What decided.
    pub reason: Reason,
    /// The same in a sentence.
    pub why: String,
    /// What would have to change.
    pub cure: Option<policy::explain::Cure>,
}

impl Walk<'_> {
    /// Asks the policies of the end that is on this node; ends the walk where they deny it.
    pub(crate) fn police(&mut self, node: &str, direction: Direction) -> Option<Stop> {
        let question = self.question(self.entered, self.destination, self.carried);
        let subject = subject(&question, direction);
        subject.pod.as_ref()?;
        if subject.node.as_deref() != Some(node) || !self.has_policies() {
            return None;
        }
        let side = side(explain(self.world.cluster, &question), direction);
        self.judge(node, direction, &question, side)
    }

    /// Takes down what the policies of one end say; ends the walk where they deny it.
    pub(crate) fn judge(
        &mut self,
        node: &str,
        direction: Direction,
        question: &Question,
        side: Side,
    ) -> Option<Stop> {
        let pod = subject(question, direction).pod.as_ref().map(words::key)?;
        let cluster = self.world.cluster;
        let why = words::why(cluster, question, direction, &side);
        let cure = policy::explain::cure(cluster, question, direction, &side);
        let word = direction.word();
        let what = match side.allowed {
            true => format!("policies let it through: {word} of pod {pod}"),
            false => format!("is dropped by policy: {word} of pod {pod}; the sender hears nothing"),
        };
        self.step(format!("node {node}"), what, &why);
        let denied = cure.as_ref().map(|cure| self.verdict(&why, cure));
        self.judged.push(Judged {
            node: node.to_owned(),
            direction,
            pod,
            allowed: side.allowed,
            reason: side.reason,
            why,
            cure,
        });
        denied.map(Err)
    }

    /// The last sentence of a trace that policies end.
    fn verdict(&self, why: &str, cure: &policy::explain::Cure) -> String {
        let endpoints = self.through.last().map(|through| &through.endpoints);
        let all = endpoints.map_or(0, Vec::len);
        let denied = endpoints.map_or(0, |all| all.iter().filter(|e| e.denied.is_some()).count());
        let mut text = if denied < all {
            format!("arrives at {} of {all} endpoints only: {why}", all - denied)
        } else {
            format!("does not arrive: {why}")
        };
        for near in &cure.near {
            let policy = words::key(&near.policy);
            text.push_str(&format!(
                ".\n  Near: {} of NetworkPolicy {policy} {}",
                near.field, near.message
            ));
        }
        text.push_str(&format!(".\n  To let it through: {}", cure.add));
        text
    }

    /// Why policies deny a connection from this node to an endpoint that sees the source `seen`.
    pub(crate) fn denied_at(
        &self,
        node: &str,
        seen: IpAddr,
        ip: IpAddr,
        port: u16,
    ) -> Option<String> {
        let cluster = self.world.cluster;
        let sent = self.question(self.entered, ip, Some(port));
        let is_here = sent.from.node.as_deref() == Some(node);
        let out = is_here.then_some((sent, Direction::Egress));
        let into = (self.question(seen, ip, Some(port)), Direction::Ingress);
        out.into_iter()
            .chain([into])
            .find_map(|(question, direction)| {
                let side = side(explain(cluster, &question), direction);
                (!side.allowed).then(|| words::why(cluster, &question, direction, &side))
            })
    }

    fn question(&self, from: IpAddr, to: IpAddr, port: Option<u16>) -> Question {
        let cluster = self.world.cluster;
        Question {
            from: End::at(cluster, from),
            to: End::at(cluster, to),
            port: port.map(|port| (self.protocol, port)),
        }
    }

    pub(crate) fn has_policies(&self) -> bool {
        let cluster = self.world.cluster;
        !cluster.policies.is_empty() || !cluster.cluster_policies.is_empty()
    }
}

fn subject(question: &Question, direction: Direction) -> &End {
    match direction {
        Direction::Egress => &question.from,
        Direction::Ingress => &question.to,
    }
}

fn side(answer: Answer, direction: Direction) -> Side {
    match direction {
        Direction::Egress => answer.egress,
        Direction::Ingress => answer.ingress,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::config::{FabricMode, ServicesMode};
    use model::policy::{Namespaces, Peer, PortMatch, PortNumbers, Rule};
    use model::{Change, Cluster, LabelSelector, NetworkPolicy, Protocol};

    use crate::Trace;
    use crate::forward::tests::with;
    use crate::tests::{cluster, traced};

    fn policy(key: &str, ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> Change {
        let (namespace, name) = key.split_once('/').unwrap();
        Change::Policy(Arc::new(NetworkPolicy {
            namespace: namespace.into(),
            name: name.into(),
            ingress,
            egress,
            ..NetworkPolicy::default()
        }))
    }

    fn block(net: &str, port: u16) -> Rule {
        Rule {
            peers: Some(vec![Peer::Block {
                net: net.parse().unwrap(),
                except: Vec::new(),
            }]),
            ports: Some(vec![PortMatch {
                protocol: Some(Protocol::Tcp),
                port: PortNumbers::Range(port, port),
            }]),
        }
    }

    fn ask(mut cluster: Cluster, policies: &[Change], from: &str, to: &str) -> Trace {
        for policy in policies {
            cluster.take(policy.clone());
        }
        traced(cluster, FabricMode::Vxlan, ServicesMode::Nftables, from, to).unwrap()
    }

    /// Node and verdict of each judgement.
    fn judged(trace: &Trace) -> Vec<String> {
        let one = |judged: &super::Judged| {
            let word = if judged.allowed { "allowed" } else { "denied" };
            format!("{} {} {word}", judged.node, judged.direction.word())
        };
        trace.policies.iter().map(one).collect()
    }

    #[test]
    fn without_policies_none_is_spoken_of() {
        let trace = ask(cluster(), &[], "pod/web-0", "pod/data/db-0:5432");
        assert!(trace.arrives && trace.policies.is_empty());
        assert!(!trace.steps.iter().any(|step| step.what.contains("polic")));
    }

    #[test]
    fn egress_is_judged_at_the_client_and_ingress_at_the_server() {
        let (from, to) = ("pod/web-0", "pod/data/db-0:5432");
        let open = [
            policy(
                "default/out",
                None,
                Some(vec![block("10.244.2.0/24", 5432)]),
            ),
            policy("data/in", Some(vec![block("10.244.1.5/32", 5432)]), None),
        ];
        let trace = ask(cluster(), &open, from, to);
        assert!(trace.arrives, "{trace:?}");
        assert_eq!(
            judged(&trace),
            ["node1 egress allowed", "node2 ingress allowed"]
        );
        let deny = [open[0].clone(), policy("data/in", Some(Vec::new()), None)];
        let trace = ask(cluster(), &deny, from, to);
        assert!(!trace.arrives);
        assert_eq!(
            judged(&trace),
            ["node1 egress allowed", "node2 ingress denied"]
        );
        let last = trace.steps.last().unwrap();
        assert_eq!(last.at, "node node2");
        assert!(last.what.starts_with("is dropped by policy"), "{last:?}");
        let said = "does not arrive: NetworkPolicy data/in isolates pod data/db-0 for ingress";
        assert!(trace.verdict.starts_with(said), "{}", trace.verdict);
        let deny = [policy("default/out", None, Some(Vec::new()))];
        let trace = ask(cluster(), &deny, from, to);
        assert_eq!(judged(&trace), ["node1 egress denied"]);
        assert_eq!(trace.steps.last().unwrap().at, "node node1");
    }

    #[test]
    fn the_own_node_passes_another_does_not_and_out_to_the_own_node_is_judged() {
        let deny = [policy("default/deny", Some(Vec::new()), Some(Vec::new()))];
        assert!(ask(cluster(), &deny, "node/node1", "pod/web-0:80").arrives);
        assert!(!ask(cluster(), &deny, "node/node2", "pod/web-0:80").arrives);
        assert!(!ask(cluster(), &deny, "pod/web-0", "node/node1:80").arrives);
        assert!(!ask(cluster(), &deny, "pod/web-0", "client").arrives);
        let out = [policy(
            "default/out",
            None,
            Some(vec![block("203.0.113.0/24", 443)]),
        )];
        assert!(ask(cluster(), &out, "pod/web-0", "203.0.113.10:443").arrives);
        assert!(!ask(cluster(), &out, "pod/web-0", "203.0.113.10:80").arrives);
    }

    #[test]
    fn egress_is_judged_after_the_service_has_chosen() {
        let by_service = [policy(
            "default/out",
            None,
            Some(vec![block("10.96.0.5/32", 80)]),
        )];
        let trace = ask(with(|_, _| {}), &by_service, "pod/web-0", "svc/web:80");
        assert!(
            !trace.arrives,
            "no packet has the ClusterIP any more: {trace:?}"
        );
        let both = [policy(
            "default/out",
            None,
            Some(vec![block("10.244.0.0/16", 8080)]),
        )];
        let trace = ask(with(|_, _| {}), &both, "pod/web-0", "svc/web:80");
        assert!(trace.arrives, "{trace:?}");
        // default/web has web-1 on node1 and db-0 on node2: only one is let out to.
        let one = [policy(
            "default/out",
            None,
            Some(vec![block("10.244.1.6/32", 8080)]),
        )];
        let trace = ask(with(|_, _| {}), &one, "pod/web-0", "svc/web:80");
        let denied: Vec<bool> = trace.services[0]
            .endpoints
            .iter()
            .map(|endpoint| endpoint.denied.is_some())
            .collect();
        assert_eq!(denied, [false, true]);
        assert!(!trace.arrives);
        let said = "arrives at 1 of 2 endpoints only: NetworkPolicy default/out isolates";
        assert!(trace.verdict.starts_with(said), "{}", trace.verdict);
    }

    #[test]
    fn a_client_outside_is_seen_as_the_node_that_forwards_it() {
        let client = [policy(
            "data/in",
            Some(vec![block("203.0.113.10/32", 8080)]),
            None,
        )];
        let ask = |rules: &[Change], to: &str| {
            let cluster = with(|_, slice| {
                slice.endpoints.remove(0);
            });
            ask(cluster, rules, "client", to)
        };
        // The pod is on node2: by that node its own address counts, by node1 that of node1.
        assert!(ask(&client, "node/node2:30080").arrives);
        assert!(!ask(&client, "node/node1:30080").arrives);
        let node = [policy(
            "data/in",
            Some(vec![block("10.244.1.0/32", 8080)]),
            None,
        )];
        let trace = ask(&node, "node/node1:30080");
        assert!(trace.arrives, "{trace:?}");
    }

    #[test]
    fn a_pod_reaches_itself_through_its_service() {
        let own = with(|_, slice| {
            slice.endpoints.remove(1);
        });
        let any = Rule {
            peers: Some(vec![Peer::Pods {
                namespaces: Namespaces::Own,
                pods: LabelSelector::default(),
            }]),
            ports: None,
        };
        let deny = [policy("default/deny", Some(Vec::new()), Some(Vec::new()))];
        let trace = ask(own.clone(), &deny, "pod/web-1", "svc/web:80");
        assert!(trace.arrives, "{trace:?}");
        let trace = ask(own.clone(), &deny, "pod/web-0", "svc/web:80");
        assert!(!trace.arrives);
        let open = [policy(
            "default/in",
            Some(vec![any.clone()]),
            Some(vec![any]),
        )];
        assert!(ask(own, &open, "pod/web-0", "svc/web:80").arrives);
    }
}
