//! Ports that nobody serves.

use std::collections::BTreeSet;

use model::policy::{Peer, PortMatch, PortNumbers};
use model::{Direction, Pod, Protocol};

use super::{Linter, Placed, nearest};
use crate::explain::words;

impl<'a> Linter<'a> {
    /// Ports of a rule that none of the pods connected to has.
    pub(super) fn ports(&mut self, placed: &Placed<'_>) {
        let servers: Vec<&Pod> = match placed.direction {
            Direction::Ingress => placed.subjects.to_vec(),
            Direction::Egress => self.destinations(placed),
        };
        let peers = placed.rule.peers.as_deref();
        let outside = placed.direction == Direction::Egress
            && peers.is_none_or(|all| all.iter().any(|peer| !matches!(peer, Peer::Pods { .. })));
        let ports = placed.rule.ports.as_deref().unwrap_or_default();
        for (index, port) in ports.iter().enumerate() {
            let field = format!("{}.ports[{index}].port", placed.field);
            match &port.port {
                PortNumbers::Named(name) => self.named(&field, port, name, &servers, outside),
                // Addresses outside serve what they like.
                PortNumbers::Range(first, last) if !outside => {
                    self.numbered(&field, port, (*first, *last), &servers);
                }
                _ => {}
            }
        }
    }

    /// The pods that an egress rule is about; none where it is about everybody.
    fn destinations(&self, placed: &Placed<'_>) -> Vec<&'a Pod> {
        let peers = placed.rule.peers.iter().flatten();
        peers.flat_map(|peer| self.selected(peer)).collect()
    }

    fn named(
        &mut self,
        field: &str,
        port: &PortMatch,
        name: &str,
        servers: &[&Pod],
        outside: bool,
    ) {
        let ours = || servers.iter().flat_map(|pod| &pod.ports);
        if ours().any(|one| *one.name == *name && port.protocol.is_none_or(|p| p == one.protocol)) {
            return;
        }
        if servers.is_empty() {
            if outside {
                self.warn(
                    "named-port-outside",
                    field,
                    format!(
                        "{name:?} is a name of ports of pods: addresses and nodes have no such"
                    ),
                    "write the number",
                );
            }
            return;
        }
        if let Some(other) = ours().find(|one| *one.name == *name) {
            let (have, want) = (other.protocol, words::port(port));
            return self.warn(
                "port-nobody-has",
                field,
                format!("{want} is meant, and {name} of the pods is {have}"),
                format!("write protocol: {have}"),
            );
        }
        let near = nearest(name, ours().map(|one| one.name.to_string()));
        let cure = match near.as_slice() {
            [] => "name the port in the pods (ports[].name of the container), or write its number"
                .into(),
            near => format!("they have {}", words::list(near)),
        };
        self.warn(
            "named-port-nobody-has",
            field,
            format!("no pod that it is about has a port called {name:?}"),
            cure,
        );
    }

    fn numbered(&mut self, field: &str, port: &PortMatch, range: (u16, u16), servers: &[&Pod]) {
        let Some(protocol) = port.protocol else {
            return;
        };
        let served = self.served(servers);
        let of_protocol: Vec<u16> = served
            .iter()
            .filter(|(p, _)| *p == protocol)
            .map(|(_, port)| *port)
            .collect();
        let hit = of_protocol
            .iter()
            .any(|port| (range.0..=range.1).contains(port));
        // Who declares nothing may serve anything.
        if hit || served.is_empty() || servers.iter().any(|pod| self.served(&[pod]).is_empty()) {
            return;
        }
        let have: Vec<String> = served
            .iter()
            .map(|(p, port)| format!("{p} {port}"))
            .collect();
        let have = words::list(&have);
        let cure = match self.service_port(protocol, range.0, servers) {
            Some((service, target)) => format!(
                "{} is the port of Service {service}; policies see the pod's own: write {target}",
                range.0
            ),
            None => format!("they serve {have}"),
        };
        let wanted = words::port(port);
        self.warn(
            "port-nobody-has",
            field,
            format!("no pod that it is about serves {wanted}"),
            cure,
        );
    }

    /// The ports that pods declare.
    fn served(&self, pods: &[&Pod]) -> BTreeSet<(Protocol, u16)> {
        let mut all = BTreeSet::new();
        for pod in pods {
            all.extend(pod.ports.iter().map(|port| (port.protocol, port.port)));
            let key = (pod.namespace.clone(), pod.name.clone());
            all.extend(self.declared.get(&key).into_iter().flatten());
        }
        all
    }

    /// The Service before one of the pods that has such a port, and the pod's port behind it.
    fn service_port(
        &self,
        protocol: Protocol,
        number: u16,
        pods: &[&Pod],
    ) -> Option<(String, u16)> {
        for (key, service) in &self.cluster.services {
            let mut ports = service.ports.iter();
            let Some(port) = ports.find(|port| port.protocol == protocol && port.port == number)
            else {
                continue;
            };
            for slice in self.cluster.slices_of(key) {
                let mut ends = slice.endpoints.iter();
                let ours = ends.any(|end| pods.iter().any(|pod| pod.ips.contains(&end.ip)));
                let mut targets = slice.ports.iter().filter(|target| target.name == port.name);
                let target = targets.find_map(|target| target.port).filter(|_| ours);
                if let Some(target) = target.filter(|target| *target != number) {
                    return Some((format!("{}/{}", key.0, key.1), target));
                }
            }
        }
        None
    }
}
