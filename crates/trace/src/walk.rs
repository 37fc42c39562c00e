//! The way of a packet, step by step, from the fabric's plans and the pods' attachments.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fabric::Plan;
use fabric::explain::{Step as Hop, explain};
use ipnet::IpNet;
use model::config::{PodMode, ServicesMode};
use model::{Cluster, Direction, Pod, Protocol};
use pods::attachment::Attachment;
use serde::Serialize;
use services::Origin;

use crate::ends::{self, End, Error, wrong};
use crate::policing::Judged;
use crate::service::{self, Target, Through};

/// What a trace is answered from.
#[derive(Debug)]
pub struct World<'a> {
    /// The fabric's plan of each node.
    pub plans: &'a BTreeMap<String, Plan>,
    /// What the agents hold, by the pod's address; empty where they are away.
    pub attachments: &'a BTreeMap<IpAddr, Attachment>,
    /// Each node's plan of Services.
    pub services: &'a BTreeMap<String, services::Plan>,
    /// How Services reach the kernel.
    pub mode: ServicesMode,
    /// Where nodes answer questions for names themselves, by node: each address, and that of the
    /// DNS Service that it stands for.
    pub resolvers: &'a BTreeMap<String, BTreeMap<IpAddr, IpAddr>>,
    /// Who has which address.
    pub cluster: &'a Cluster,
    /// Addresses of the client outside.
    pub client: &'a [IpAddr],
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Where the packet starts.
    pub from: &'a End,
    /// Where it is to go.
    pub to: &'a End,
    /// Its destination port.
    pub port: Option<u16>,
    /// Its protocol: that of the Service's port, else TCP, where none is said.
    pub protocol: Option<Protocol>,
    /// Over IPv6, where both have it.
    pub v6: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Where: a pod, a node, the underlay, the outside.
    pub at: String,
    /// What happens there.
    pub what: String,
    /// Why: the route, rule or setting.
    pub why: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// Where it starts.
    pub from: String,
    /// Where it is to go.
    pub to: String,
    /// Its source address at the start.
    pub source: IpAddr,
    /// Its destination address.
    pub destination: IpAddr,
    /// Its destination port, where one was asked about.
    pub port: Option<u16>,
    /// Its protocol.
    pub protocol: Protocol,
    /// What Services do with it, in the order of the nodes that decide.
    pub services: Vec<Through>,
    /// What the policies of either end say, where there are any.
    pub policies: Vec<Judged>,
    /// The steps.
    pub steps: Vec<Step>,
    /// The largest packet that passes whole.
    pub mtu: u32,
    /// The source address the destination sees, where it is another.
    pub masqueraded: Option<IpAddr>,
    /// True where it arrives.
    pub arrives: bool,
    /// Why, in one sentence.
    pub verdict: String,
}

/// Ends the walk: arrived, or stopped for a reason.
pub(crate) type Stop = Result<(), String>;

pub(crate) struct Walk<'a> {
    pub(crate) world: &'a World<'a>,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Protocol,
    /// The destination port that it carries, where one was asked about.
    pub(crate) carried: Option<u16>,
    /// The source that it had when it came to the node it is on: what policies go by.
    pub(crate) entered: IpAddr,
    pub(crate) through: Vec<Through>,
    pub(crate) judged: Vec<Judged>,
    steps: Vec<Step>,
    mtu: u32,
    pub(crate) masqueraded: Option<IpAddr>,
}

/// Walks a packet; through a Service where its destination is one.
pub fn trace(world: &World<'_>, wish: &Wish<'_>) -> Result<Trace, Error> {
    let (source, target) = addresses(world, wish)?;
    let mut walk = Walk {
        world,
        source,
        destination: target.address,
        port: target.port,
        protocol: target.protocol,
        carried: target.port,
        entered: source,
        through: Vec::new(),
        judged: Vec::new(),
        steps: Vec::new(),
        mtu: u32::MAX,
        masqueraded: None,
    };
    // Who is at the address of a Service is found out on the way.
    let to = match wish.to {
        End::Service(_) => ends::find_address(target.address, world.cluster, world.client)?,
        end => end.clone(),
    };
    let stop = walk.walk(wish.from, &to)?;
    let verdict = match (&stop, walk.masqueraded) {
        (Err(why), _) => why.clone(),
        (Ok(()), Some(seen)) => format!("arrives; the source is seen as {seen}"),
        (Ok(()), None) => format!("arrives; the source is seen as {source}, untranslated"),
    };
    Ok(Trace {
        from: wish.from.name(),
        to: wish.to.name(),
        source,
        destination: target.address,
        port: target.port,
        protocol: target.protocol,
        services: walk.through,
        policies: walk.judged,
        steps: walk.steps,
        mtu: if walk.mtu == u32::MAX {
            65_536
        } else {
            walk.mtu
        },
        masqueraded: walk.masqueraded,
        arrives: stop.is_ok(),
        verdict,
    })
}

/// An address of the sender, and a destination of the same family.
fn addresses(world: &World<'_>, wish: &Wish<'_>) -> Result<(IpAddr, Target), Error> {
    let of = |all: &[IpAddr], v6: bool| all.iter().copied().find(|ip| ip.is_ipv6() == v6);
    let own = wish.from.addresses();
    if let End::Service(_) = wish.from {
        return wrong(
            wish.from.name(),
            "a Service sends nothing; start at one of its pods",
        );
    }
    let nodes: Vec<IpAddr> = world
        .cluster
        .nodes
        .values()
        .flat_map(|node| node.addresses.iter().copied())
        .collect();
    let towards = |v6: bool| match wish.to {
        End::Service(service) => {
            service::target(wish.from, service, &nodes, wish.port, wish.protocol, v6).map(Some)
        }
        end => Ok(of(end.addresses(), v6).map(|address| Target {
            address,
            port: wish.port,
            protocol: wish.protocol.unwrap_or_default(),
        })),
    };
    // The client outside answers for everybody outside, in the family that is asked about.
    for v6 in if wish.v6 { &[true][..] } else { &[false, true] } {
        if let Some(target) = towards(*v6)?
            && let Some(source) = of(own, target.address.is_ipv6())
        {
            return Ok((source, target));
        }
    }
    wrong(
        format!("{} to {}", wish.from.name(), wish.to.name()),
        "they have no address of the same family; `flatnet up --dual-stack` gives both to every pod",
    )
}

impl<'a> Walk<'a> {
    fn walk(&mut self, from: &End, to: &End) -> Result<Stop, Error> {
        if from == to && self.port.is_none() {
            self.step(
                from.name(),
                "stays on its own loopback",
                "both ends are the same",
            );
            return Ok(Ok(()));
        }
        match from {
            End::Pod(pod) => {
                let plan = self.plan(&pod.node)?;
                if from == to {
                    self.step(
                        from.name(),
                        "stays on its own loopback",
                        "both ends are the same",
                    );
                    return Ok(Ok(()));
                }
                self.leave_pod(pod, plan, to);
                self.at_node(plan, Origin::Pod, to)
            }
            End::Node { node, .. } => {
                let plan = self.plan(node)?;
                self.at_node(plan, Origin::Node, to)
            }
            End::Service(_) | End::Outside { .. } => self.enter(to),
        }
    }

    /// The source that the next one sees.
    pub(crate) fn seen(&self) -> IpAddr {
        self.masqueraded.unwrap_or(self.source)
    }

    pub(crate) fn step(
        &mut self,
        at: impl Into<String>,
        what: impl Into<String>,
        why: impl Into<String>,
    ) {
        self.steps.push(Step {
            at: at.into(),
            what: what.into(),
            why: why.into(),
        });
    }

    pub(crate) fn plan(&self, node: &str) -> Result<&'a Plan, Error> {
        self.world.plans.get(node).map_or_else(
            || {
                wrong(
                    format!("node {node}"),
                    "nothing is planned for it yet; see: flatnet status",
                )
            },
            Ok,
        )
    }

    fn narrow(&mut self, mtu: u32) {
        self.mtu = self.mtu.min(mtu);
    }

    /// The link on the node's side of a pod.
    fn link(&self, address: IpAddr) -> (String, PodMode) {
        match self.world.attachments.get(&address) {
            Some(attachment) => (attachment.host_link.clone(), attachment.mode),
            None => ("the pod's link".into(), PodMode::default()),
        }
    }

    fn leave_pod(&mut self, pod: &Pod, plan: &Plan, to: &End) {
        self.narrow(plan.mtu);
        let at = format!("pod {}/{}", pod.namespace, pod.name);
        let range = plan.own.iter().find(|range| range.contains(&self.source));
        let gateway = range.map_or_else(
            || "its gateway".into(),
            |range| pods::interface::gateway(range).addr().to_string(),
        );
        let on_subnet = self.destination.is_ipv4()
            && range.is_some_and(|range| range.contains(&self.destination));
        let (link, mode) = self.link(self.source);
        let why = if on_subnet {
            format!(
                "{} dev eth0: the destination is on the pod's own subnet",
                range.map(IpNet::to_string).unwrap_or_default()
            )
        } else {
            format!("default via {gateway} dev eth0")
        };
        self.step(
            &at,
            format!("leaves by eth0, mtu {}, source {}", plan.mtu, self.source),
            why,
        );
        let node = format!("node {}", plan.node);
        match mode {
            PodMode::Bridge => self.step(
                node,
                format!("enters by {link}, a port of cni0"),
                "pod mode bridge",
            ),
            PodMode::Routed if on_subnet => self.step(
                node,
                format!("enters by {link}, which answers ARP for {}", to.name()),
                "pod mode routed: proxy_arp on the pod's link",
            ),
            PodMode::Routed => self.step(
                node,
                format!("enters by {link}"),
                "pod mode routed: the other end of the pod's eth0",
            ),
        }
    }

    /// Out of a node, by what the fabric says of it, and in at the other end.
    pub(crate) fn cross(&mut self, plan: &'a Plan, to: &End) -> Result<Stop, Error> {
        if let Some(stop) = self.police(&plan.node, Direction::Egress) {
            return Ok(stop);
        }
        let at = format!("node {}", plan.node);
        let mut packed = false;
        for step in explain(plan, self.seen(), self.destination) {
            let why = step.to_string();
            match step {
                Hop::OwnPod { .. } => break,
                Hop::OwnNode { .. } => {
                    self.step(at, "is delivered on the node itself", why);
                    return Ok(Ok(()));
                }
                Hop::NoWay { reason } => {
                    self.step(at, "has no way to the destination", &reason);
                    return Ok(Err(format!(
                        "does not arrive: {reason}; see: flatnet show routes {}",
                        plan.node
                    )));
                }
                Hop::Route { link, .. } => self.step(&at, format!("is routed into {link}"), why),
                Hop::Neighbour { ip, mac, .. } => {
                    self.step(&at, format!("finds {ip} at {mac}"), why)
                }
                Hop::Forward { remote, .. } => {
                    self.step(&at, format!("finds the tunnel's other end, {remote}"), why)
                }
                Hop::Encapsulate { mtu, .. } => {
                    packed = true;
                    self.narrow(mtu);
                    self.step(&at, "is packed into VXLAN", why);
                }
                Hop::Masquerade { address } => {
                    self.masqueraded = Some(address);
                    let what = format!("gets the source address {address}");
                    self.step(&at, what, format!("nft table flatnet: {}", leaving(to)));
                }
                Hop::KeepSource { reason } => self.step(&at, "keeps its source address", reason),
                Hop::Send { link, .. } => {
                    self.narrow(uplink_mtu(plan, self.destination));
                    self.step(&at, format!("leaves by {link}"), why);
                }
            }
        }
        if to.node() != Some(plan.node.as_str()) {
            self.entered = self.seen();
        }
        self.arrive(packed, to)
    }

    fn arrive(&mut self, packed: bool, to: &End) -> Result<Stop, Error> {
        match to {
            End::Pod(pod) => {
                let there = self.plan(&pod.node)?;
                if packed {
                    let why = format!(
                        "UDP port {} is the tunnel's",
                        there.tunnels.first().map_or(0, |tunnel| tunnel.port)
                    );
                    self.step(format!("node {}", pod.node), "is unpacked from VXLAN", why);
                }
                if let Some(stop) = self.police(&pod.node, Direction::Ingress) {
                    return Ok(stop);
                }
                self.enter_pod(there, pod);
            }
            End::Node { node, .. } => {
                if let Some(stop) = self.served(node, Origin::Elsewhere)? {
                    return Ok(stop);
                }
                let why = format!("{} is the node's own", self.destination);
                self.step(
                    format!("node {node}"),
                    "is delivered on the node itself",
                    why,
                );
            }
            End::Service(_) => {}
            End::Outside { called, .. } => {
                let why = format!("answers go to {}", self.masqueraded.unwrap_or(self.source));
                self.step(called, "arrives", why);
            }
        }
        Ok(Ok(()))
    }

    fn enter_pod(&mut self, plan: &Plan, pod: &Pod) {
        self.narrow(plan.mtu);
        let (link, mode) = self.link(self.destination);
        let (what, why) = match mode {
            PodMode::Bridge => (
                format!("is bridged to {link}"),
                format!("cni0: {} is a port's address", self.destination),
            ),
            PodMode::Routed => (
                format!("is routed to {link}"),
                format!("{} dev {link}", self.destination),
            ),
        };
        self.step(format!("node {}", plan.node), what, why);
        self.step(
            format!("pod {}/{}", pod.namespace, pod.name),
            "arrives by eth0",
            format!("it has {}", self.destination),
        );
    }

    /// From outside: to a node by the underlay's router, or nowhere.
    fn enter(&mut self, to: &End) -> Result<Stop, Error> {
        match to {
            End::Pod(pod) => {
                self.step(
                    "outside",
                    "has no route to pod addresses",
                    "the underlay's router knows nodes only",
                );
                let (namespace, name) = (&pod.namespace, &pod.name);
                Ok(Err(format!(
                    "does not arrive: pod addresses are the cluster's own; try kubectl -n {namespace} port-forward pod/{name}"
                )))
            }
            End::Node { node, .. } => {
                self.narrow(1500);
                self.step(
                    "outside",
                    format!("goes by the router to {}", self.destination),
                    "default route",
                );
                if let Some(stop) = self.served(node, Origin::Elsewhere)? {
                    return Ok(stop);
                }
                self.step(
                    format!("node {node}"),
                    "is delivered on the node itself",
                    format!("local {}", self.destination),
                );
                Ok(Ok(()))
            }
            End::Service(_) | End::Outside { .. } => self.enter_by_service(),
        }
    }
}

fn uplink_mtu(plan: &Plan, to: IpAddr) -> u32 {
    plan.underlay
        .of(&IpNet::from(to))
        .map_or(1500, |uplink| uplink.mtu)
}

/// Why a pod's packet is masqueraded on its way to this end.
fn leaving(to: &End) -> &'static str {
    match to {
        End::Node { .. } => "the underlay to that node carries no pod addresses",
        _ => "the destination is in none of the cluster's pod ranges",
    }
}

#[cfg(test)]
mod tests {
    use model::config::FabricMode;

    use super::*;
    use crate::tests::cluster;

    fn traced(mode: FabricMode, from: &str, to: &str) -> Trace {
        crate::tests::traced(cluster(), mode, ServicesMode::default(), from, to).unwrap()
    }

    fn at(trace: &Trace) -> Vec<&str> {
        trace.steps.iter().map(|step| step.at.as_str()).collect()
    }

    #[test]
    fn a_packet_to_another_node_goes_through_the_tunnel() {
        let trace = traced(FabricMode::Vxlan, "pod/web-0", "pod/data/db-0");
        assert!(trace.arrives && trace.masqueraded.is_none());
        assert_eq!(trace.mtu, 1450);
        assert_eq!(
            at(&trace),
            [
                "pod default/web-0",
                "node node1",
                "node node1",
                "node node1",
                "node node1",
                "node node1",
                "node node1",
                "node node2",
                "node node2",
                "pod data/db-0",
            ]
        );
        assert_eq!(
            trace.steps[2].why,
            "route 10.244.2.0/24 via 10.244.2.0 dev fn-vxlan onlink (node node2)"
        );
    }

    #[test]
    fn host_gw_goes_as_it_is() {
        let trace = traced(FabricMode::HostGw, "pod/web-0", "pod/data/db-0");
        assert_eq!(trace.mtu, 1500);
        assert!(
            trace.steps[2]
                .why
                .starts_with("route 10.244.2.0/24 via 10.0.1.20 dev eth0"),
            "{:?}",
            trace.steps[2]
        );
    }

    #[test]
    fn only_what_leaves_is_masqueraded() {
        let out = traced(FabricMode::Vxlan, "pod/web-0", "client");
        assert_eq!(out.masqueraded, Some("10.0.1.10".parse().unwrap()));
        let same = traced(FabricMode::Vxlan, "pod/web-0", "pod/web-1");
        assert_eq!(same.masqueraded, None);
        assert!(same.arrives);
    }

    #[test]
    fn nobody_outside_reaches_a_pod_address() {
        let trace = traced(FabricMode::Vxlan, "client", "pod/web-0");
        assert!(!trace.arrives);
        assert!(trace.verdict.contains("port-forward"), "{}", trace.verdict);
    }
}
