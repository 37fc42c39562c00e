//! The `nameserver` lines of a file like /etc/resolv.conf.

use std::net::{IpAddr, SocketAddr};

use crate::corefile::Scheme;
use crate::corefile::plugins::Upstream;

/// The servers of a file, in order, each once.
pub(super) fn nameservers(text: &str) -> Vec<Upstream> {
    let mut found: Vec<Upstream> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(word) = words.next() else { continue };
        let (ip, interface) = match word.split_once('%') {
            Some((ip, interface)) => (ip, Some(interface.to_owned())),
            None => (word, None),
        };
        let Ok(ip) = ip.parse::<IpAddr>() else {
            continue;
        };
        let server = Upstream {
            scheme: Scheme::Dns,
            address: SocketAddr::from((ip, 53)),
            interface,
            server_name: None,
        };
        if !found.contains(&server) {
            found.push(server);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nameserver_lines_count() {
        let text = "# nameserver 9.9.9.9\nsearch a.test\n nameserver 10.0.0.1\n\
                    nameserver\t2001:db8::1 # the second\nnameserver 10.0.0.1\nnameserver nobody\n\
                    nameservers 1.1.1.1\nnameserver\noptions ndots:5\nnameserver fe80::1%eth0\n";
        let servers: Vec<String> = nameservers(text)
            .iter()
            .map(|server| server.address.to_string())
            .collect();
        assert_eq!(servers, ["10.0.0.1:53", "[2001:db8::1]:53", "[fe80::1]:53"]);
    }
}
