//! What a node's rules for Services do with a packet that is on its way.

use std::net::{IpAddr, SocketAddr};

use fabric::Plan;
use fabric::plan::Via;
use model::TrafficPolicy;
use model::config::ServicesMode;
use services::{Answer, Backend, Origin, Question, Verdict, explain};

use crate::ends::{self, End, Error};
use crate::rules;
use crate::service::{Endpoint, Shown, Through, advice, choose};
use crate::walk::{Stop, Walk};

impl<'a> Walk<'a> {
    /// On from a node: to whom a Service leads, or to whoever has the address.
    pub(crate) fn at_node(
        &mut self,
        plan: &'a Plan,
        origin: Origin,
        to: &End,
    ) -> Result<Stop, Error> {
        if let Some(stop) = self.answered(&plan.node) {
            return Ok(stop);
        }
        match self.served(&plan.node, origin)? {
            Some(stop) => Ok(stop),
            None => self.cross(plan, to),
        }
    }

    /// What the node's Services do with the packet; nothing where it is for none of them.
    pub(crate) fn served(&mut self, node: &str, origin: Origin) -> Result<Option<Stop>, Error> {
        let (Some(port), Some(services)) = (self.port, self.world.services.get(node)) else {
            return Ok(None);
        };
        let own = self.world.cluster.nodes.get(node);
        let question = Question {
            source: self.seen(),
            origin,
            destination: self.destination,
            to_this_node: self.destination.is_loopback()
                || own.is_some_and(|own| own.addresses.contains(&self.destination)),
            protocol: self.protocol,
            port,
        };
        let answer = explain(services, &question);
        let refused = match &answer.verdict {
            Verdict::NotAService => return Ok(None),
            Verdict::Forward { to, masquerade } => {
                let to = to.clone();
                return self
                    .forward(node, &question, &answer, &to, *masquerade)
                    .map(Some);
            }
            // kube-proxy's chains have no rule for these: the packet leaves and is lost.
            Verdict::Reject(why)
                if self.world.mode == ServicesMode::Iptables && answer.frontend.is_none() =>
            {
                ("drop", *why)
            }
            Verdict::Reject(why) => ("reject", *why),
            Verdict::Drop(why) => ("drop", *why),
        };
        let (verdict, why) = refused;
        let rules = rules::of(self.world.mode, services, &question, &answer, None);
        self.meet(node, &answer, &rules);
        let what = match verdict {
            "reject" => "is refused at once: TCP reset, or ICMP port unreachable",
            _ => "is dropped: the sender hears nothing",
        };
        self.step(format!("node {node}"), what, why);
        self.through
            .push(through(&answer, node, self.world.mode, rules, verdict));
        Ok(Some(Err(format!(
            "does not arrive: {why}; {}",
            advice(&answer, verdict == "reject")
        ))))
    }

    /// The frontend that the packet meets.
    fn meet(&mut self, node: &str, answer: &Answer, rules: &[String]) {
        let what = match &answer.frontend {
            Some((name, frontend)) => {
                format!("is for service {name}: {}", Shown(name, frontend))
            }
            None => format!(
                "is for {}, an address of the service range",
                self.destination
            ),
        };
        self.step(format!("node {node}"), what, rules.join(" > "));
    }

    fn forward(
        &mut self,
        node: &str,
        question: &Question,
        answer: &Answer,
        to: &[(Backend, f64)],
        masquerade: Option<&'static str>,
    ) -> Result<Stop, Error> {
        let at = format!("node {node}");
        let denied = self.denied(node, question, to, masquerade);
        let Some(chosen) = choose(to, &denied, self.source) else {
            return Ok(Err("does not arrive: no endpoint is left".into()));
        };
        let services = self.world.services.get(node);
        let rules = services
            .map(|plan| rules::of(self.world.mode, plan, question, answer, Some(&chosen)))
            .unwrap_or_default();
        self.meet(node, answer, &rules);
        let end = self.behind(chosen.ip);
        let odds = match to.len() {
            1 => "the only endpoint".to_owned(),
            2 => "one of 2 endpoints, each with probability 1/2; the other:".to_owned(),
            n => format!("one of {n} endpoints, each with probability 1/{n}; the others:"),
        };
        let mut why = odds;
        for (backend, _) in to.iter().filter(|(backend, _)| *backend != chosen).take(4) {
            why.push_str(&format!(" {}", SocketAddr::new(backend.ip, backend.port)));
        }
        if to.len() > 5 {
            why.push_str(&format!(" and {} more", to.len() - 5));
        }
        if let Some(seconds) = answer.affinity {
            why.push_str(&format!("; session affinity: the client's next connections go there too, for {seconds} s after its last"));
        }
        let address = SocketAddr::new(chosen.ip, chosen.port);
        self.step(
            &at,
            format!("gets the destination {address}, {}", end.name()),
            why,
        );
        self.destination = chosen.ip;
        self.carried = Some(chosen.port);
        let plan = self.plan(node)?;
        let masquerade = if question.is_hairpin(&chosen) {
            Some("the endpoint is the sender itself: its answer must come back this way")
        } else {
            masquerade
        };
        if let Some(why) = masquerade {
            let source = leaving_address(plan, chosen.ip);
            self.step(
                &at,
                format!("gets the source address {source}"),
                format!("{why}; {}", rules::masquerade(self.world.mode)),
            );
            self.masqueraded = Some(source);
        }
        let mut through = through(answer, node, self.world.mode, rules, "forward");
        through.masquerade = masquerade.map(str::to_owned);
        through.endpoints = to
            .iter()
            .zip(denied)
            .map(|((backend, probability), denied)| Endpoint {
                name: self.behind(backend.ip).name(),
                address: SocketAddr::new(backend.ip, backend.port),
                local: backend.local,
                probability: *probability,
                chosen: *backend == chosen,
                denied,
            })
            .collect();
        self.through.push(through);
        // The endpoint is an end like any other; no Service is looked at twice on one node.
        self.port = None;
        self.cross(plan, &end)
    }

    /// What policies say about each endpoint: why they deny it, or nothing.
    fn denied(
        &self,
        node: &str,
        question: &Question,
        to: &[(Backend, f64)],
        masquerade: Option<&'static str>,
    ) -> Vec<Option<String>> {
        let plan = self.world.plans.get(node);
        let of = |backend: &Backend| {
            let masked = masquerade.is_some() && !question.is_hairpin(backend);
            let seen = match plan {
                Some(plan) if masked && !backend.local => leaving_address(plan, backend.ip),
                _ => self.entered,
            };
            self.denied_at(node, seen, backend.ip, backend.port)
        };
        to.iter().map(|(backend, _)| of(backend)).collect()
    }

    /// Whoever has an endpoint's address; an address that nobody has is somewhere outside.
    fn behind(&self, ip: IpAddr) -> End {
        ends::find_address(ip, self.world.cluster, self.world.client).unwrap_or(End::Outside {
            called: ip.to_string(),
            addresses: vec![ip],
        })
    }

    /// From outside to an address that no node has: a node announces it, or the router sends it
    /// to one; else it goes nowhere.
    pub(crate) fn enter_by_service(&mut self) -> Result<Stop, Error> {
        let open = |plan: &services::Plan| {
            let asked = |port| plan.at(self.destination, self.protocol, port);
            let (port, frontend) = self.port.and_then(asked)?;
            let open = frontend.kind != services::FrontendKind::ClusterIp;
            // Only a node that can answer announces an address of policy Local.
            let here = frontend.policy == TrafficPolicy::Cluster || !port.local.is_empty();
            open.then_some(here)
        };
        let all = self.world.services.iter();
        let serving = all
            .filter_map(|(node, plan)| Some((!open(plan)?, node)))
            .min();
        if let Some((_, node)) = serving {
            let why = "one node answers for the address (kubectl -n kube-system get leases), or the router has one as next hop; this one stands for it";
            self.step("outside", format!("goes by the router to node {node}"), why);
            if let Some(stop) = self.served(node, Origin::Elsewhere)? {
                return Ok(stop);
            }
        }
        let range = |plan: &services::Plan| {
            let mut ranges = plan.settings().service_cidrs.iter();
            ranges.any(|range| range.contains(&self.destination))
        };
        if self.world.services.values().any(range) {
            self.step(
                "outside",
                "has no route to service addresses",
                "the underlay's router knows nodes only",
            );
            return Ok(Err(
                "does not arrive: a ClusterIP is the cluster's own; type: NodePort or LoadBalancer opens a Service to the outside, kubectl port-forward svc/NAME for a try".into(),
            ));
        }
        Ok(Err("never enters the cluster: both ends are outside".into()))
    }
}

fn through(
    answer: &Answer,
    node: &str,
    mode: ServicesMode,
    rules: Vec<String>,
    verdict: &'static str,
) -> Through {
    let frontend = answer.frontend.as_ref();
    Through {
        service: frontend.map(|(name, _)| name.to_string()),
        frontend: frontend.map(|(name, frontend)| Shown(name, frontend).to_string()),
        node: node.to_owned(),
        mode,
        rules,
        verdict,
        endpoints: Vec::new(),
        masquerade: None,
        affinity: answer.affinity,
    }
}

/// The node's address that a masqueraded packet gets: that of the link it leaves by.
fn leaving_address(plan: &Plan, to: IpAddr) -> IpAddr {
    let tunnel = plan
        .paths
        .iter()
        .find(|(range, _)| range.contains(&to))
        .filter(|(_, path)| matches!(path.via, Via::Vxlan { .. }))
        .and_then(|_| {
            plan.tunnels
                .iter()
                .find(|tunnel| tunnel.address.addr().is_ipv6() == to.is_ipv6())
        });
    match tunnel {
        Some(tunnel) => tunnel.address.addr(),
        None => plan
            .underlay
            .of(&ipnet::IpNet::from(to))
            .map_or(to, |uplink| uplink.address),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use model::config::{FabricMode, ServicesMode};
    use model::{
        Change, Cluster, Endpoint, EndpointSlice, LoadBalancerAddress, Protocol, Service,
        ServicePort, ServiceType, SlicePort, TrafficPolicy,
    };

    use crate::Trace;
    use crate::tests::{cluster, traced};

    fn endpoint(ip: &str, node: &str) -> Endpoint {
        Endpoint {
            ip: ip.parse().unwrap(),
            more: Box::default(),
            ready: true,
            serving: true,
            terminating: false,
            node: Some(node.into()),
            zone: None,
            hostname: None,
            pod: None,
            for_zones: Vec::new(),
            for_nodes: Vec::new(),
        }
    }

    /// The usual cluster with `default/web` before web-1 on node1 and db-0 on node2.
    pub(crate) fn with(change: impl FnOnce(&mut Service, &mut EndpointSlice)) -> Cluster {
        let mut service = Service {
            namespace: "default".into(),
            name: "web".into(),
            kind: ServiceType::LoadBalancer,
            cluster_ips: vec!["10.96.0.5".parse().unwrap()],
            load_balancer: vec![LoadBalancerAddress {
                ip: "192.0.2.9".parse().unwrap(),
                proxied: false,
            }],
            ports: vec![ServicePort {
                name: "http".into(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: Some(30080),
            }],
            ..Service::default()
        };
        let mut slice = EndpointSlice {
            namespace: "default".into(),
            name: "web-1".into(),
            service: "web".into(),
            v6: false,
            ports: vec![SlicePort {
                name: "http".into(),
                protocol: Protocol::Tcp,
                port: Some(8080),
            }],
            endpoints: vec![
                endpoint("10.244.1.6", "node1"),
                endpoint("10.244.2.5", "node2"),
            ],
            triggered: None,
        };
        change(&mut service, &mut slice);
        let mut cluster = cluster();
        cluster.take(Change::Service(Arc::new(service)));
        cluster.take(Change::Slice(Arc::new(slice)));
        cluster
    }

    fn ask(cluster: Cluster, from: &str, to: &str) -> Trace {
        traced(cluster, FabricMode::Vxlan, ServicesMode::Nftables, from, to).unwrap()
    }

    #[test]
    fn a_pods_connection_goes_on_to_one_of_the_endpoints() {
        let trace = ask(with(|_, _| {}), "pod/web-0", "svc/web:80");
        assert!(trace.arrives, "{trace:?}");
        assert_eq!(trace.destination.to_string(), "10.96.0.5");
        let through = &trace.services[0];
        assert_eq!(through.service.as_deref(), Some("default/web:http"));
        assert_eq!(
            through.frontend.as_deref(),
            Some("ClusterIP 10.96.0.5:80/TCP")
        );
        let all: Vec<(String, f64, bool)> = through
            .endpoints
            .iter()
            .map(|e| (format!("{} {}", e.name, e.address), e.probability, e.chosen))
            .collect();
        assert_eq!(
            all,
            [
                ("pod default/web-1 10.244.1.6:8080".to_owned(), 0.5, false),
                ("pod data/db-0 10.244.2.5:8080".to_owned(), 0.5, true)
            ]
        );
        assert_eq!(trace.masqueraded, None);
        assert_eq!(trace.steps.last().unwrap().at, "pod data/db-0");
    }

    #[test]
    fn a_node_and_a_client_are_masqueraded_where_the_answer_must_come_back() {
        let node = ask(with(|_, _| {}), "node/node1", "10.96.0.5:80");
        assert_eq!(node.masqueraded, Some("10.244.1.0".parse().unwrap()));
        for to in ["svc/web:80", "192.0.2.9:80", "node/node1:30080"] {
            let client = ask(with(|_, _| {}), "client", to);
            assert!(client.arrives, "{to}: {client:?}");
            assert!(client.masqueraded.is_some(), "{to}");
        }
        let local = |service: &mut Service| service.external_policy = TrafficPolicy::Local;
        let one = ask(
            with(|service, slice| {
                service.external_policy = TrafficPolicy::Local;
                slice.endpoints.remove(0);
            }),
            "client",
            "192.0.2.9:80",
        );
        assert_eq!(one.services[0].node, "node2", "{one:?}");
        let kept = ask(with(|s, _| local(s)), "client", "node/node2:30080");
        assert_eq!(kept.masqueraded, None, "{kept:?}");
        assert_eq!(kept.services[0].endpoints.len(), 1);
    }

    #[test]
    fn a_node_port_of_another_node_is_asked_there() {
        let trace = ask(with(|_, _| {}), "pod/web-0", "node/node2:30080");
        assert!(trace.arrives, "{trace:?}");
        assert_eq!(trace.services[0].node, "node2");
        assert_eq!(
            trace.services[0].frontend.as_deref(),
            Some("node port 30080/TCP")
        );
    }

    #[test]
    fn a_pod_meets_the_local_policy_of_another_node_and_not_of_its_own() {
        let ask = |to: &str, endpoints: &[(&str, &str)]| {
            let cluster = with(|service, slice| {
                service.external_policy = TrafficPolicy::Local;
                let all = endpoints.iter().map(|(ip, node)| endpoint(ip, node));
                slice.endpoints = all.collect();
            });
            let (fabric, mode) = (FabricMode::HostGw, ServicesMode::Nftables);
            traced(cluster, fabric, mode, "pod/web-0", to).unwrap()
        };
        let both = [("10.244.1.6", "node1"), ("10.244.2.5", "node2")];
        let there = ask("node/node2:30080", &both);
        assert!(there.arrives && there.masqueraded.is_none(), "{there:?}");
        assert_eq!(there.services[0].node, "node2");
        assert_eq!(there.services[0].endpoints.len(), 1);
        let chain = "services-nodeport-local-1".to_owned();
        assert!(there.services[0].rules.contains(&chain), "{there:?}");
        let nowhere = ask("node/node2:30080", &both[..1]);
        assert_eq!(nowhere.services[0].verdict, "drop", "{nowhere:?}");
        let own = ask("node/node1:30080", &both);
        assert_eq!(own.services[0].endpoints.len(), 2, "{own:?}");
    }

    #[test]
    fn a_pod_that_reaches_itself_is_masqueraded() {
        let own = with(|_, slice| slice.endpoints = vec![endpoint("10.244.1.5", "node1")]);
        let trace = ask(own, "pod/web-0", "svc/web:80");
        assert!(trace.arrives && trace.masqueraded.is_some(), "{trace:?}");
    }

    #[test]
    fn what_is_refused_says_why_and_what_to_look_at() {
        let none = ask(
            with(|_, slice| slice.endpoints.clear()),
            "pod/web-0",
            "svc/web:80",
        );
        assert_eq!(none.services[0].verdict, "reject");
        assert!(
            none.verdict
                .contains("the Service has no endpoints; no ready pod matches"),
            "{}",
            none.verdict
        );
        let here = |service: &mut Service, slice: &mut EndpointSlice| {
            service.internal_policy = TrafficPolicy::Local;
            slice.endpoints.remove(0);
        };
        let local = ask(with(here), "pod/web-0", "svc/web:80");
        assert_eq!(local.services[0].verdict, "drop");
        let port = ask(with(|_, _| {}), "pod/web-0", "10.96.0.5:81");
        assert!(
            !port.arrives && port.services[0].service.is_none(),
            "{port:?}"
        );
        let free = ask(with(|_, _| {}), "pod/web-0", "10.96.9.9:80");
        assert_eq!(free.services[0].verdict, "drop");
        let inside = ask(with(|_, _| {}), "client", "10.96.0.5:80");
        assert!(
            inside.verdict.contains("a ClusterIP is the cluster's own"),
            "{}",
            inside.verdict
        );
    }
}
