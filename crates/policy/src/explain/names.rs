//! Questions for names that a node's own server answers: they are judged as if they went on to
//! the DNS Service's endpoints.

use std::net::IpAddr;

use model::{Cluster, Direction, Protocol};

use super::{End, Question, Side, judge};

/// The port.
const PORT: u16 = 53;

/// Whether a client's policies let it ask the DNS Service at an address, where its own node
/// answers: it may where it is let out to any of the Service's ready endpoints, or, while there
/// is none, to the address. Also the connection that was judged: one that is allowed, where there
/// is one.
pub fn asking(
    cluster: &Cluster,
    from: &End,
    service: IpAddr,
    protocol: Protocol,
) -> (Question, Side) {
    let to = |ip, port| {
        let question = Question {
            from: from.clone(),
            to: End::at(cluster, ip),
            port: Some((protocol, port)),
        };
        let side = Side::by(judge::judge(cluster, &question, Direction::Egress));
        (question, side)
    };
    let owner = cluster.service_at(service);
    let endpoints = owner.map(|owner| {
        let port = (protocol, PORT);
        cluster.ready_endpoints(owner, port, service.is_ipv6())
    });
    let mut denied = None;
    for (ip, port) in endpoints.into_iter().flatten() {
        let (question, side) = to(ip, port);
        if side.allowed {
            return (question, side);
        }
        denied.get_or_insert((question, side));
    }
    denied.unwrap_or_else(|| to(service, PORT))
}
