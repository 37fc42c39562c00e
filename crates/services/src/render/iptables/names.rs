//! Names of a port's own chains: a kind and 16 characters of a hash.

use model::Protocol;
use sha2::{Digest, Sha256};

use crate::plan::{Backend, PortName};

/// A kind of a port's own chain, by the beginning of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Spreads over the endpoints of the Cluster policy.
    Cluster,
    /// Spreads over the endpoints of the Local policy.
    Local,
    /// Tells what comes to external addresses apart.
    External,
    /// Lets in the sources of `spec.loadBalancerSourceRanges`.
    Firewall,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Cluster => "KUBE-SVC-",
            Self::Local => "KUBE-SVL-",
            Self::External => "KUBE-EXT-",
            Self::Firewall => "KUBE-FW-",
        }
    }
}

const ENDPOINT: &str = "KUBE-SEP-";

/// Who refers to whom: chains of a lower depth go before those they refer to.
const PREFIXES: [(&str, u8); 5] = [
    ("KUBE-FW-", 1),
    ("KUBE-EXT-", 2),
    ("KUBE-SVC-", 3),
    ("KUBE-SVL-", 3),
    (ENDPOINT, 4),
];

/// True for names of ports' own chains, ours or an earlier kube-proxy's.
pub fn is_service_chain(name: &str) -> bool {
    PREFIXES.iter().any(|(prefix, _)| name.starts_with(prefix))
}

/// In which order chains can go: a chain goes after those that refer to it.
pub(crate) fn depth(name: &str) -> u8 {
    if matches!(name, super::base::MARK) {
        return u8::MAX;
    }
    PREFIXES
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map_or(0, |(_, depth)| *depth)
}

pub(crate) fn name(kind: Kind, port: &PortName) -> String {
    let mut name = kind.prefix().to_owned();
    hash(&mut name, port, "");
    name
}

/// Name of the chain that spreads connections to `port` over its endpoints.
pub fn chain_name(port: &PortName) -> String {
    name(Kind::Cluster, port)
}

/// Name of the chain that sends connections to one endpoint of `port`.
pub fn endpoint_chain_name(port: &PortName, endpoint: &Backend) -> String {
    let mut name = ENDPOINT.to_owned();
    hash(&mut name, port, &self::endpoint(endpoint));
    name
}

/// An endpoint as kube-proxy writes it: `10.244.1.2:80`, `[fd00::2]:80`.
pub(crate) fn endpoint(backend: &Backend) -> String {
    std::net::SocketAddr::new(backend.ip, backend.port).to_string()
}

/// `tcp`, `udp`, `sctp`.
pub(crate) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// Ten bytes of SHA-256 in base 32: a chain's name has room for 28 characters.
fn hash(into: &mut String, port: &PortName, endpoint: &str) {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut sha = Sha256::new();
    sha.update(port.to_string());
    sha.update(protocol(port.protocol));
    sha.update(endpoint);
    let digest = sha.finalize();
    for five in digest[..10].chunks_exact(5) {
        let bits = five
            .iter()
            .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for digit in (0..8).rev() {
            let index = usize::try_from(bits >> (5 * digit) & 31).unwrap_or_default();
            into.push(char::from(DIGITS[index]));
        }
    }
}
