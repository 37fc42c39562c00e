//! What a well-formed configuration may still have wrong.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{API_VERSION, Config, ConfigError, KIND};

/// Errors under the way.
struct Findings(Vec<ConfigError>);

impl Findings {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(ConfigError {
            field: field.into(),
            message: message.into(),
        });
    }
}

impl Config {
    /// Everything that is wrong with this configuration, empty where it can be used.
    pub fn validate(&self) -> Vec<ConfigError> {
        let mut found = Findings(Vec::new());
        self.check_head(&mut found);
        check_ranges("clusterCIDRs", &self.cluster_cidrs, &mut found);
        check_ranges("serviceCIDRs", &self.service_cidrs, &mut found);
        self.check_node_masks(&mut found);
        self.check_services(&mut found);
        self.check_overlaps(&mut found);
        self.check_dns(&mut found);
        self.check_node_dns(&mut found);
        self.check_fabric(&mut found);
        found.0
    }

    fn check_head(&self, found: &mut Findings) {
        for (field, given, wanted) in [
            ("apiVersion", &self.api_version, API_VERSION),
            ("kind", &self.kind, KIND),
        ] {
            if given.is_empty() {
                found.add(field, format!("missing: write `{field}: {wanted}`"));
            } else if given != wanted {
                found.add(field, format!("{given:?} is not known; write {wanted:?}"));
            }
        }
    }

    /// A node's range must fit into the cluster's.
    fn check_node_masks(&self, found: &mut Findings) {
        for (at, cidr) in self.cluster_cidrs.iter().enumerate() {
            let mask = self.node_mask(cidr);
            let (name, widest, longest) = match cidr {
                IpNet::V4(_) => ("nodeCIDRMaskSizeIPv4", 32, 30),
                IpNet::V6(_) => ("nodeCIDRMaskSizeIPv6", 128, 126),
            };
            if mask > longest || mask > widest {
                found.add(
                    name,
                    format!("/{mask} leaves a node no room for pods; choose at most {longest}"),
                );
            } else if mask < cidr.prefix_len() {
                found.add(
                    format!("clusterCIDRs[{at}]"),
                    format!(
                        "{cidr} is too small: a node takes a /{mask} of it; choose a /{} or wider, or a larger {name}",
                        mask.saturating_sub(8).max(1)
                    ),
                );
            } else if mask - cidr.prefix_len() > 16 {
                // The same limit as kube-controller-manager's CIDR set.
                found.add(
                    name,
                    format!(
                        "/{mask} out of {cidr} makes more than 65536 ranges; choose at most {}",
                        cidr.prefix_len() + 16
                    ),
                );
            }
        }
    }

    fn check_services(&self, found: &mut Findings) {
        for (at, cidr) in self.service_cidrs.iter().enumerate() {
            let field = format!("serviceCIDRs[{at}]");
            if !self
                .cluster_cidrs
                .iter()
                .any(|pods| same_family(pods, cidr))
            {
                found.add(&field, format!("{cidr} has no pod range of its family in clusterCIDRs; add one or take it out"));
            }
            let (widest, longest) = match cidr {
                IpNet::V4(_) => (12, 29),
                IpNet::V6(_) => (108, 125),
            };
            if cidr.prefix_len() < widest {
                found.add(
                    &field,
                    format!("{cidr} is too large; choose a /{widest} or smaller"),
                );
            } else if cidr.prefix_len() > longest {
                found.add(&field, format!("{cidr} is too small: it must hold at least 8 addresses; choose a /{longest} or larger"));
            }
        }
    }

    fn check_overlaps(&self, found: &mut Findings) {
        let named = |name: &'static str, cidrs: &[IpNet]| -> Vec<(String, IpNet)> {
            cidrs
                .iter()
                .enumerate()
                .map(|(at, cidr)| (format!("{name}[{at}]"), *cidr))
                .collect()
        };
        let mut all = named("clusterCIDRs", &self.cluster_cidrs);
        all.extend(named("serviceCIDRs", &self.service_cidrs));
        for (at, (field, cidr)) in all.iter().enumerate() {
            for (earlier, other) in &all[..at] {
                if overlap(cidr, other) {
                    found.add(
                        field,
                        format!("{cidr} overlaps {earlier} {other}; choose a range of its own"),
                    );
                }
            }
        }
    }

    fn check_dns(&self, found: &mut Findings) {
        for (at, address) in self.cluster_dns.iter().enumerate() {
            let field = format!("clusterDNS[{at}]");
            match self
                .service_cidrs
                .iter()
                .find(|cidr| cidr.contains(address))
            {
                None => found.add(
                    field,
                    format!("{address} is in none of serviceCIDRs; choose an address inside"),
                ),
                Some(cidr) if *address == cidr.network() || Some(*address) == first_host(cidr) => {
                    found.add(field, format!("{address} is kept for the network and the kubernetes Service; choose another"));
                }
                Some(_) => {}
            }
        }
        let label = |label: &str| {
            let edge =
                |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            label.len() <= 63
                && edge(label.chars().next())
                && edge(label.chars().last())
                && label
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        if self.cluster_domain.len() > 253 || !self.cluster_domain.split('.').all(label) {
            found.add(
                "clusterDomain",
                format!("{:?} is not a DNS name: lower-case letters, digits, '-' and '.', for example cluster.local", self.cluster_domain),
            );
        }
    }

    fn check_node_dns(&self, found: &mut Findings) {
        const FIELD: &str = "dns.localAddress";
        let Some(address) = self.dns.local_address else {
            return;
        };
        let within = |cidrs: &[IpNet]| cidrs.iter().any(|cidr| cidr.contains(&address));
        let unusable = match address {
            IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] == 0,
            // A link's own: it means something on a link only.
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified(),
        };
        if unusable || address.is_loopback() || address.is_multicast() {
            found.add(
                FIELD,
                format!("{address} cannot be asked by pods; choose another, for example 169.254.20.10 or fd00::53"),
            );
        } else if within(&self.cluster_cidrs) {
            found.add(
                FIELD,
                format!("{address} is one that a pod may get; choose one outside clusterCIDRs, for example 169.254.20.10"),
            );
        } else if within(&self.service_cidrs) && !self.cluster_dns.contains(&address) {
            found.add(
                FIELD,
                format!("{address} is one that a Service may get; choose one outside serviceCIDRs, for example 169.254.20.10"),
            );
        }
    }

    fn check_fabric(&self, found: &mut Findings) {
        if self.fabric.vni == 0 || self.fabric.vni > 16_777_215 {
            found.add(
                "fabric.vni",
                format!("{} is out of range: choose 1 to 16777215", self.fabric.vni),
            );
        }
        if self.fabric.port == 0 {
            found.add("fabric.port", "0 is out of range: choose 1 to 65535");
        }
        let v6 = self
            .cluster_cidrs
            .iter()
            .any(|cidr| matches!(cidr, IpNet::V6(_)));
        let least = if v6 { 1280 } else { 576 };
        if let Some(mtu) = self.fabric.mtu
            && !(least..=65_535).contains(&mtu)
        {
            found.add("fabric.mtu", format!("{mtu} is out of range: choose {least} to 65535, or leave it out to have it computed"));
        }
    }
}

fn check_ranges(field: &str, cidrs: &[IpNet], found: &mut Findings) {
    if cidrs.is_empty() {
        found.add(field, "empty: give one range, or one a family");
    }
    for (at, cidr) in cidrs.iter().enumerate() {
        let here = format!("{field}[{at}]");
        if cidr.addr() != cidr.network() {
            found.add(
                &here,
                format!("{cidr} has host bits set; did you mean {}?", cidr.trunc()),
            );
        }
        if cidrs[..at].iter().any(|earlier| same_family(earlier, cidr)) {
            found.add(
                &here,
                format!(
                    "{cidr} is a second range of its family; at most one IPv4 and one IPv6 range"
                ),
            );
        }
    }
}

fn same_family(a: &IpNet, b: &IpNet) -> bool {
    matches!(a, IpNet::V4(_)) == matches!(b, IpNet::V4(_))
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn first_host(cidr: &IpNet) -> Option<IpAddr> {
    match cidr {
        IpNet::V4(net) => u32::from(net.network())
            .checked_add(1)
            .map(|bits| IpAddr::V4(bits.into())),
        IpNet::V6(net) => u128::from(net.network())
            .checked_add(1)
            .map(|bits| IpAddr::V6(bits.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config
            .validate()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_default_and_dual_stack_are_fine() {
        assert_eq!(wrong(|_| {}), "");
        assert_eq!(
            wrong(|c| {
                c.cluster_cidrs = nets(&["10.244.0.0/16", "fd00:10:244::/56"]);
                c.service_cidrs = nets(&["10.96.0.0/12", "fd00:10:96::/112"]);
            }),
            ""
        );
    }

    #[test]
    fn overlapping_ranges_are_refused() {
        assert_eq!(
            wrong(|c| c.service_cidrs = nets(&["10.244.16.0/20"])),
            "serviceCIDRs[0]: 10.244.16.0/20 overlaps clusterCIDRs[0] 10.244.0.0/16; choose a range of its own\n\
             clusterDNS[0]: 10.96.0.10 is in none of serviceCIDRs; choose an address inside"
        );
    }

    #[test]
    fn a_cluster_range_smaller_than_a_node_is_refused() {
        assert_eq!(
            wrong(|c| c.cluster_cidrs = nets(&["10.244.0.0/26"])),
            "clusterCIDRs[0]: 10.244.0.0/26 is too small: a node takes a /24 of it; \
             choose a /16 or wider, or a larger nodeCIDRMaskSizeIPv4"
        );
    }

    #[test]
    fn families_must_match() {
        assert!(
            wrong(|c| c.service_cidrs = nets(&["10.96.0.0/12", "fd00:10:96::/112"]))
                .contains("serviceCIDRs[1]: fd00:10:96::/112 has no pod range of its family")
        );
        assert!(
            wrong(|c| c.cluster_cidrs = nets(&["10.244.0.0/16", "10.245.0.0/16"]))
                .contains("clusterCIDRs[1]: 10.245.0.0/16 is a second range of its family")
        );
    }

    #[test]
    fn nobody_else_may_get_the_address_of_the_nodes_servers() {
        let with = |address: &str| {
            wrong(|c| c.dns.local_address = Some(address.parse().unwrap()))
                .split(';')
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        for usable in ["169.254.20.10", "192.0.2.53", "fd00::53", "10.96.0.10"] {
            assert_eq!(with(usable), "");
        }
        for (address, cause) in [
            ("127.0.0.53", "cannot be asked by pods"),
            ("fe80::1", "cannot be asked by pods"),
            ("224.0.0.1", "cannot be asked by pods"),
            ("10.244.3.4", "is one that a pod may get"),
            ("10.96.0.11", "is one that a Service may get"),
        ] {
            assert_eq!(
                with(address),
                format!("dns.localAddress: {address} {cause}")
            );
        }
        let mut config = Config::default();
        config.dns.local_address = Some([169, 254, 20, 10].into());
        assert_eq!(config.node_dns().len(), 2);
        config.dns.node_local = false;
        assert!(config.node_dns().is_empty());
    }

    #[test]
    fn host_bits_are_pointed_out() {
        assert!(
            wrong(|c| c.cluster_cidrs = nets(&["10.244.1.0/16"])).contains(
                "clusterCIDRs[0]: 10.244.1.0/16 has host bits set; did you mean 10.244.0.0/16?"
            )
        );
    }
}
