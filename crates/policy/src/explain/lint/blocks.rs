//! Address ranges that match nothing, or what they cannot mean.

use std::net::IpAddr;

use ipnet::IpNet;
use model::policy::Peer;
use model::{Direction, Pod, Service, ServiceType, TrafficPolicy};

use super::{Linter, Placed, Severity};
use crate::explain::words;

impl<'a> Linter<'a> {
    pub(super) fn blocks(&mut self, placed: &Placed<'_>) {
        let peers = placed.rule.peers.as_deref().unwrap_or_default();
        for (index, peer) in peers.iter().enumerate() {
            let Peer::Block { net, except } = peer else {
                continue;
            };
            let field = format!("{}[{index}].ipBlock", placed.peers_field());
            if is_covered(net, except) {
                self.warn(
                    "except-swallows-all",
                    format!("{field}.except"),
                    format!(
                        "nothing is left of {net} without {}",
                        words::list(&texts(except))
                    ),
                    "leave out the except, or the rule",
                );
            } else if net.prefix_len() > 0 {
                self.block(&field, net, placed);
            }
        }
    }

    fn block(&mut self, field: &str, net: &IpNet, placed: &Placed<'_>) {
        let mut nodes = self.cluster.nodes.values();
        let pods = nodes.find_map(|node| {
            let mut ranges = node.pod_cidrs.iter();
            ranges.find(|range| net.contains(*range) || range.contains(net))
        });
        let mut services = self.cluster.services.values();
        let service =
            services.find(|service| service.cluster_ips.iter().any(|ip| net.contains(ip)));
        match (pods, service) {
            (Some(range), _) if net.prefix_len() >= 16 => self.find(
                Severity::Note,
                "block-of-pods",
                format!("{field}.cidr"),
                format!("{net} has addresses of pods ({range}): a pod has another one when it is made anew"),
                "say pods by podSelector and namespaceSelector",
            ),
            (None, Some(service)) => self.service_block(field, net, service, placed.direction),
            (None, None) if placed.direction == Direction::Ingress => self.masqueraded(field, net, placed),
            _ => {}
        }
    }

    /// ClusterIPs are translated before policies see a packet.
    fn service_block(&mut self, field: &str, net: &IpNet, service: &Service, direction: Direction) {
        let name = format!("{}/{}", service.namespace, service.name);
        let why = match direction {
            Direction::Egress => "policies see the pod's address that the Service has chosen",
            Direction::Ingress => "no packet comes from there",
        };
        self.warn(
            "block-of-services",
            format!("{field}.cidr"),
            format!("{net} is a range of ClusterIPs (Service {name}), and {why}: it matches nothing"),
            "select the pods behind the Service by podSelector and namespaceSelector, and their port",
        );
    }

    /// Clients outside that come by a Service of policy Cluster have a node's address.
    fn masqueraded(&mut self, field: &str, net: &IpNet, placed: &Placed<'_>) {
        let is_node = |ip: &IpAddr| net.contains(ip);
        if self
            .cluster
            .nodes
            .values()
            .any(|node| node.addresses.iter().any(is_node))
        {
            return;
        }
        let Some(service) = placed.subjects.iter().find_map(|pod| self.opened_by(pod)) else {
            return;
        };
        let name = format!("{}/{}", service.namespace, service.name);
        self.warn(
            "source-is-masqueraded",
            format!("{field}.cidr"),
            format!("clients that come by Service {name} (externalTrafficPolicy: Cluster) have a node's address where another node forwards them: {net} matches only some of them"),
            format!("set externalTrafficPolicy: Local on Service {name}"),
        );
    }

    /// A Service that leads from outside to a pod, by whichever node.
    fn opened_by(&self, pod: &Pod) -> Option<&'a Service> {
        let open = |service: &&Service| {
            matches!(
                service.kind,
                ServiceType::NodePort | ServiceType::LoadBalancer
            ) && service.external_policy == TrafficPolicy::Cluster
        };
        let services = self.cluster.services.values().map(|service| &**service);
        services.filter(open).find(|service| {
            let slices = self.cluster.slices_of(&service.key()).iter();
            let mut ends = slices.flat_map(|slice| &slice.endpoints);
            ends.any(|end| pod.ips.contains(&end.ip))
        })
    }
}

fn texts(nets: &[IpNet]) -> Vec<String> {
    nets.iter().map(ToString::to_string).collect()
}

/// Whether ranges leave nothing of one: one of them has it whole, or they have both its halves.
fn is_covered(net: &IpNet, by: &[IpNet]) -> bool {
    if by.iter().any(|one| one.contains(net)) {
        return true;
    }
    let within: Vec<IpNet> = by.iter().copied().filter(|one| net.contains(one)).collect();
    if within.is_empty() {
        return false;
    }
    let halves = net.subnets(net.prefix_len() + 1);
    halves.is_ok_and(|mut halves| halves.all(|half| is_covered(&half, &within)))
}
