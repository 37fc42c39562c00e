//! One container's attachment to the network: what is written down about it.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use model::config::PodMode;
use serde::{Deserialize, Serialize};

/// What the specification tells attachments apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// CNI_CONTAINERID.
    pub container: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

impl Key {
    /// Name of the link on the node's side: `fn-` and 11 hex digits.
    ///
    /// A sandbox id of 64 hex digits gives its own first 11, so that the link can be told by
    /// eye; any other id, and any further interface of a container, gives a digest.
    pub fn host_link(&self) -> String {
        let id = &self.container;
        let plain = id.len() == 64
            && self.ifname == "eth0"
            && id
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if plain {
            return format!("fn-{}", &id[..11]);
        }
        // FNV-1a: no secret depends on it, and a clash is refused by the kernel (EEXIST).
        let mut digest: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in id.bytes().chain([0]).chain(self.ifname.bytes()) {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        format!("fn-{:011x}", (digest >> 20) & 0xfff_ffff_ffff)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container, self.ifname)
    }
}

/// The pod an attachment serves, as the runtime named it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodRef {
    /// Namespace, empty where the runtime did not say.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Transport protocol of a port mapping.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The protocol called `name`, in either case.
    pub fn parse(name: &str) -> Option<Protocol> {
        match name.to_ascii_lowercase().as_str() {
            "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            "sctp" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// Number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// A port of the node that leads to a port of the pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// Port on the node.
    pub host_port: u16,
    /// Port in the pod.
    pub container_port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Address of the node the port is on; every address where absent.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

impl PortMapping {
    /// True where both cannot be had at once on one node.
    pub fn clashes(&self, other: &PortMapping) -> bool {
        self.host_port == other.host_port
            && self.protocol == other.protocol
            && match (self.host_ip, other.host_ip) {
                (Some(a), Some(b)) => a == b,
                _ => true,
            }
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}/{}", self.host_port, self.protocol),
            Some(ip) => write!(f, "{ip}:{}/{}", self.host_port, self.protocol),
            None => write!(f, "{}/{}", self.host_port, self.protocol),
        }
    }
}

/// Limits as the capability names them: bits a second and bits; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bandwidth {
    /// Towards the pod, bits a second.
    pub ingress_rate: u64,
    /// Towards the pod, bits at once.
    pub ingress_burst: u64,
    /// From the pod, bits a second.
    pub egress_rate: u64,
    /// From the pod, bits at once.
    pub egress_burst: u64,
}

/// One attachment, complete: enough to check, heal and remove it after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Container and interface.
    #[serde(flatten)]
    pub key: Key,
    /// Name of the network in its configuration.
    pub network: String,
    /// CNI_NETNS.
    pub netns: String,
    /// The pod.
    #[serde(default)]
    pub pod: PodRef,
    /// Routed or bridge, as it was when the interface was made.
    pub mode: PodMode,
    /// Addresses with the node's prefix length, at most one a family.
    pub addresses: Vec<IpNet>,
    /// Hardware address the runtime asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<[u8; 6]>,
    /// Link on the node's side.
    pub host_link: String,
    /// Host ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
    /// Limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
}

impl Attachment {
    /// The addresses without their prefix lengths.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().map(IpNet::addr)
    }

    /// How messages call the holder.
    pub fn holder(&self) -> String {
        if self.pod.name.is_empty() {
            format!("container {}", self.key)
        } else {
            format!("pod {}", self.pod)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_links_are_told_by_eye_or_by_digest() {
        let key = |container: &str, ifname: &str| Key {
            container: container.to_owned(),
            ifname: ifname.to_owned(),
        };
        let sandbox = "0123456789abcdef".repeat(4);
        assert_eq!(key(&sandbox, "eth0").host_link(), "fn-0123456789a");
        assert_ne!(key(&sandbox, "net1").host_link(), "fn-0123456789a");
        let short = key("c1", "eth0").host_link();
        assert_eq!(short.len(), 14);
        assert_ne!(short, key("c2", "eth0").host_link());
    }
}
