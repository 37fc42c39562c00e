//! What can be wrong with a cluster's specification, found before anything is made.

use ipnet::IpNet;
use model::config::FabricMode;

use super::address;
use super::spec::{ClusterSpec, SpecError, wrong};

impl ClusterSpec {
    /// Everything that can be wrong, before anything is made.
    pub fn check(&self) -> Result<(), SpecError> {
        check_name("--name", &self.name, 20)?;
        for node in &self.nodes {
            check_name("NAME", &node.name, 20)?;
            // A namespace is fn-CLUSTER-NODE: a dash in NODE could make two clusters meet.
            if node.name.contains('-') {
                return wrong("NAME", format!("{:?}: a node's name has no '-'", node.name));
            }
            if node.name == "underlay" || node.name == "client" {
                return wrong(
                    "NAME",
                    format!(
                        "{} is the name of one of the cluster's own namespaces",
                        node.name
                    ),
                );
            }
        }
        let count = u16::try_from(self.nodes.len()).unwrap_or(u16::MAX);
        if count == 0 || count > address::MOST_NODES {
            return wrong(
                "--nodes",
                format!("{count} is not between 1 and {}", address::MOST_NODES),
            );
        }
        if self.segments == 0 || self.segments > address::MOST_SEGMENTS {
            return wrong(
                "--subnets",
                format!(
                    "{} is not between 1 and {}",
                    self.segments,
                    address::MOST_SEGMENTS
                ),
            );
        }
        if self.segments > 1 && self.fabric.mode == FabricMode::HostGw {
            return wrong(
                "--fabric",
                format!(
                    "host-gw needs every node on one subnet and this cluster has {}; \
                     use cross-subnet (direct inside a subnet, VXLAN across) or vxlan",
                    self.segments
                ),
            );
        }
        if let Some(mtu) = self.fabric.mtu {
            let least = if self.has_v6() { 1280 } else { 576 };
            // What VXLAN puts around a packet, as the agents reckon it.
            let (around, why) = match self.fabric.mode {
                FabricMode::HostGw => (0, ""),
                _ if self.has_v6() => (70, " less 70 bytes of VXLAN over IPv6"),
                _ => (50, " less 50 bytes of VXLAN"),
            };
            let most = 1500 - around;
            if !(least..=most).contains(&mtu) {
                return wrong(
                    "--mtu",
                    format!("{mtu} is not between {least} and {most}, the underlay's 1500{why}"),
                );
            }
        }
        self.check_ranges()
    }

    fn check_ranges(&self) -> Result<(), SpecError> {
        for net in &self.service_cidrs {
            if net.max_prefix_len() - net.prefix_len() < 4 {
                return wrong(
                    "--service-cidr",
                    format!(
                        "{net} is too small: 16 addresses are the least, a /{}",
                        net.max_prefix_len() - 4
                    ),
                );
            }
        }
        if let Some(error) = self.config().validate().into_iter().next() {
            return wrong(flag_of(&error.field), error.message);
        }
        for net in &self.cluster_cidrs {
            self.check_room(*net)?;
        }
        self.check_overlaps()
    }

    /// Each node takes a /24 (or /64) of the pod range.
    fn check_room(&self, net: IpNet) -> Result<(), SpecError> {
        let per_node = if matches!(net, IpNet::V6(_)) { 64 } else { 24 };
        let nodes = self.nodes.len();
        let needed_bits = usize::BITS - nodes.saturating_sub(1).leading_zeros();
        let widest = per_node - u8::try_from(needed_bits).unwrap_or(per_node);
        if net.prefix_len() > widest {
            return wrong(
                "--cluster-cidr",
                format!(
                    "{net} is too small for {nodes} nodes, which take a /{per_node} each; a /{widest} or wider holds them"
                ),
            );
        }
        Ok(())
    }

    /// The machine's own ranges are taken, whatever the families in use.
    fn check_overlaps(&self) -> Result<(), SpecError> {
        let mut taken: Vec<(&str, IpNet)> = Vec::new();
        for segment in 0..self.segments {
            taken.push((
                "the nodes' segment",
                IpNet::V4(address::segment_v4(segment)),
            ));
            taken.push((
                "the nodes' segment",
                IpNet::V6(address::segment_v6(segment)),
            ));
        }
        taken.push(("the client's network", address::client(false).0.trunc()));
        taken.push(("the client's network", address::client(true).0.trunc()));
        for (what, net) in [
            ("loopback", "127.0.0.0/8"),
            ("link-local addresses", "169.254.0.0/16"),
            ("multicast", "224.0.0.0/4"),
            ("link-local addresses", "fe80::/10"),
            ("multicast", "ff00::/8"),
        ] {
            taken.extend(net.parse().map(|net| (what, net)));
        }
        let pods = self.cluster_cidrs.iter().map(|net| ("--cluster-cidr", net));
        let services = self.service_cidrs.iter().map(|net| ("--service-cidr", net));
        for (flag, net) in pods.chain(services) {
            if let Some((what, other)) = taken.iter().find(|(_, other)| overlap(*net, *other)) {
                return wrong(
                    flag,
                    format!("{net} overlaps {what} {other}; choose a range outside it"),
                );
            }
        }
        Ok(())
    }
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// The flag that sets a field of the configuration.
fn flag_of(field: &str) -> &'static str {
    match field.split('[').next() {
        Some("serviceCIDRs" | "clusterDNS") => "--service-cidr",
        Some("fabric.mtu") => "--mtu",
        _ => "--cluster-cidr",
    }
}

/// Names become folders, namespaces and labels: an RFC 1123 label, and short.
pub fn check_name(flag: &'static str, name: &str, most: usize) -> Result<(), SpecError> {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = !name.is_empty()
        && name.len() <= most
        && name.chars().all(inside)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if good {
        return Ok(());
    }
    wrong(
        flag,
        format!(
            "{name:?} is not a name: at most {most} characters a-z, 0-9 and '-', beginning and ending with a letter or digit"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::spec::Request;

    fn nets(all: &[&str]) -> Vec<IpNet> {
        all.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn refused(request: &Request) -> String {
        request.create("t", 6443).unwrap_err().to_string()
    }

    #[test]
    fn bad_ranges_are_refused_with_what_where_and_what_to_do() {
        let cluster = |net: &[&str]| Request {
            cluster_cidrs: nets(net),
            ..Request::default()
        };
        let service = |net: &[&str]| Request {
            service_cidrs: nets(net),
            ..Request::default()
        };
        for (request, says) in [
            (
                cluster(&["10.0.0.0/16"]),
                "--cluster-cidr: 10.0.0.0/16 overlaps the nodes' segment 10.0.1.0/24",
            ),
            (
                cluster(&["203.0.0.0/16"]),
                "overlaps the client's network 203.0.113.0/24",
            ),
            (
                cluster(&["10.244.0.0/23"]),
                "too small for 3 nodes, which take a /24 each; a /22 or wider",
            ),
            (
                cluster(&["10.244.1.0/16"]),
                "has host bits set; did you mean 10.244.0.0/16?",
            ),
            (
                cluster(&["10.244.0.0/16", "10.245.0.0/16"]),
                "second range of its family",
            ),
            (cluster(&["224.0.0.0/8"]), "overlaps multicast"),
            (
                service(&["10.244.128.0/20"]),
                "--service-cidr: 10.244.128.0/20 overlaps clusterCIDRs[0] 10.244.0.0/16",
            ),
            (
                service(&["10.96.0.0/29"]),
                "too small: 16 addresses are the least, a /28",
            ),
            (
                service(&["fd00:10:96::/112"]),
                "has no pod range of its family",
            ),
        ] {
            let error = refused(&request);
            assert!(error.contains(says), "{error}\n  does not say {says}");
        }
    }

    #[test]
    fn host_gw_across_subnets_is_refused() {
        let request = Request {
            fabric: Some(FabricMode::HostGw),
            segments: Some(2),
            ..Request::default()
        };
        assert!(refused(&request).contains("use cross-subnet"));
    }

    #[test]
    fn names_that_cannot_be_folders_are_refused() {
        for name in [
            "",
            "-a",
            "a-",
            "A",
            "a/b",
            "../x",
            "a.b",
            "a_b",
            "twenty-one-characters",
        ] {
            assert!(check_name("--name", name, 20).is_err(), "{name}");
        }
        assert!(check_name("--name", "my-cluster-2", 20).is_ok());
    }
}
