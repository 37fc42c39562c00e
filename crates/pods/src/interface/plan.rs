//! Attachment and node settings become the interface that both sides must see.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use linux::Mac;
use model::config::PodMode;
use serde::{Deserialize, Serialize};

use crate::attachment::{Attachment, Bandwidth};

/// The bridge of mode `bridge`.
pub const BRIDGE: &str = "cni0";

/// What the node gives every pod. Kept on disk, so that pods can be attached while the API
/// server is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// `spec.podCIDRs` of the node, at most one a family.
    pub pod_cidrs: Vec<IpNet>,
    /// The cluster's pod ranges.
    pub cluster_cidrs: Vec<IpNet>,
    /// How new pods hang on the node.
    pub mode: PodMode,
    /// MTU of pods.
    pub mtu: u32,
}

impl Settings {
    /// The gateway of pods in the range that holds `ip`: the range's first address.
    pub fn gateway_for(&self, ip: IpAddr) -> Option<IpNet> {
        self.pod_cidrs
            .iter()
            .find(|cidr| cidr.contains(&ip))
            .map(gateway)
    }
}

/// The first address of a node's range, with the range's prefix length.
pub fn gateway(cidr: &IpNet) -> IpNet {
    let first = match cidr.network() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from(u32::from(ip).wrapping_add(1))),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip).wrapping_add(1))),
    };
    IpNet::new(first, cidr.prefix_len()).unwrap_or(IpNet::from(first))
}

/// `ip` as a range of its own.
pub fn single(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}

/// A route in the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRoute {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; absent for what is on the link.
    pub gateway: Option<IpAddr>,
}

/// The interface of one attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Link in the pod.
    pub ifname: String,
    /// Its hardware address.
    pub mac: Mac,
    /// Link on the node.
    pub host_link: String,
    /// Its hardware address.
    pub host_mac: Mac,
    /// MTU of both.
    pub mtu: u32,
    /// How the node's side is wired.
    pub mode: PodMode,
    /// Addresses in the pod, with the prefix length of the node's range.
    pub addresses: Vec<IpNet>,
    /// Gateway of each address, with the same prefix length.
    pub gateways: Vec<IpNet>,
    /// Routes in the pod, in the order they must be made.
    pub routes: Vec<PodRoute>,
    /// Limits.
    pub bandwidth: Option<Bandwidth>,
    /// Link on the node that holds back what the pod sends, where that is limited.
    pub shaper: String,
    /// Whether the node's own loopback must reach the pod through a host port.
    pub has_ports: bool,
}

/// What the attachment needs.
pub fn plan(attachment: &Attachment, settings: &Settings) -> Interface {
    let mut gateways = Vec::new();
    let mut routes = Vec::new();
    for address in &attachment.addresses {
        // The node's range may have changed since: then the address says what the gateway was.
        let via = settings
            .gateway_for(address.addr())
            .unwrap_or_else(|| gateway(&address.trunc()));
        gateways.push(via);
        let through = |dst: IpNet| PodRoute {
            dst,
            gateway: Some(via.addr()),
        };
        match via {
            // The kernel makes the route of the address's own subnet.
            IpNet::V4(_) => {
                routes.push(through(IpNet::V4(Ipv4Net::default())));
                let cluster = settings
                    .cluster_cidrs
                    .iter()
                    .find(|cidr| cidr.contains(&address.addr()));
                // As the seeds' `ip route`; pointless where the node's range is the cluster's.
                routes.extend(
                    cluster
                        .filter(|c| c.prefix_len() < address.prefix_len())
                        .map(|c| through(*c)),
                );
            }
            // There is no proxy for neighbour discovery: the node's other pods are behind the
            // gateway too, and nothing but the gateway is on the link.
            IpNet::V6(_) => {
                routes.push(PodRoute {
                    dst: single(via.addr()),
                    gateway: None,
                });
                routes.push(through(IpNet::V6(Ipv6Net::default())));
            }
        }
    }
    let (own, host) = hardware_addresses(&attachment.addresses);
    Interface {
        ifname: attachment.key.ifname.clone(),
        mac: attachment.mac.map_or(own, Mac),
        host_link: attachment.host_link.clone(),
        host_mac: host,
        mtu: settings.mtu,
        mode: attachment.mode,
        addresses: attachment.addresses.clone(),
        gateways,
        routes,
        bandwidth: attachment.bandwidth,
        shaper: shaper(&attachment.host_link),
        has_ports: !attachment.ports.is_empty(),
    }
}

/// Name of the link that holds back what a pod sends: the host link's, with an `i` for `ifb`
/// in the place of its last digit.
pub fn shaper(host_link: &str) -> String {
    let id = host_link.trim_start_matches("fn-");
    format!("fn-i{}", id.get(..10).unwrap_or(id))
}

/// Hardware addresses that follow from the pod's address: whoever has the address next has the
/// same ones, so no neighbour entry is ever stale, and nobody has to ask the kernel for them.
fn hardware_addresses(addresses: &[IpNet]) -> (Mac, Mac) {
    let low: [u8; 4] = match addresses.first().map(IpNet::addr) {
        Some(IpAddr::V4(ip)) => ip.octets(),
        Some(IpAddr::V6(ip)) => {
            let [.., a, b, c, d] = ip.octets();
            [a, b, c, d]
        }
        None => [0; 4],
    };
    let [a, b, c, d] = low;
    (Mac([0x0a, 0x58, a, b, c, d]), Mac([0x0e, 0x58, a, b, c, d]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::{Key, PodRef};

    fn attachment(addresses: &[&str]) -> Attachment {
        let key = Key {
            container: "c1".into(),
            ifname: "eth0".into(),
        };
        Attachment {
            host_link: key.host_link(),
            key,
            network: "flatnet".into(),
            netns: String::new(),
            pod: PodRef::default(),
            mode: PodMode::Routed,
            addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
            ports: Vec::new(),
            bandwidth: None,
            mac: None,
        }
    }

    fn settings() -> Settings {
        Settings {
            pod_cidrs: vec![
                "10.244.1.0/24".parse().unwrap(),
                "fd00:10:244:1::/64".parse().unwrap(),
            ],
            cluster_cidrs: vec![
                "10.244.0.0/16".parse().unwrap(),
                "fd00:10:244::/56".parse().unwrap(),
            ],
            mode: PodMode::Routed,
            mtu: 1450,
        }
    }

    fn routes(interface: &Interface) -> Vec<String> {
        let text = |route: &PodRoute| match route.gateway {
            Some(gateway) => format!("{} via {gateway}", route.dst),
            None => route.dst.to_string(),
        };
        interface.routes.iter().map(text).collect()
    }

    #[test]
    fn an_ipv4_pod_sees_what_the_seeds_show() {
        let interface = plan(&attachment(&["10.244.1.5/24"]), &settings());
        assert_eq!(
            routes(&interface),
            ["0.0.0.0/0 via 10.244.1.1", "10.244.0.0/16 via 10.244.1.1"]
        );
        assert_eq!(interface.mac.to_string(), "0a:58:0a:f4:01:05");
        assert_eq!(interface.mtu, 1450);
    }

    #[test]
    fn an_ipv6_pod_has_only_its_gateway_on_the_link() {
        let attachment = Attachment {
            mac: Some([2, 0, 0, 0, 0, 9]),
            ..attachment(&["10.244.1.5/24", "fd00:10:244:1::5/64"])
        };
        let interface = plan(&attachment, &settings());
        assert_eq!(
            routes(&interface)[2..],
            [
                "fd00:10:244:1::1/128".to_owned(),
                "::/0 via fd00:10:244:1::1".to_owned()
            ]
        );
        assert_eq!(interface.mac.to_string(), "02:00:00:00:00:09");
    }

    #[test]
    fn the_gateway_outlives_a_change_of_range() {
        let mut settings = settings();
        settings.pod_cidrs = vec!["10.244.9.0/24".parse().unwrap()];
        let interface = plan(&attachment(&["10.244.1.5/24"]), &settings);
        assert_eq!(
            interface.gateways,
            ["10.244.1.1/24".parse::<IpNet>().unwrap()]
        );
    }
}
