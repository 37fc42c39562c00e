//! Which connection a packet belongs to.

use std::net::IpAddr;

use linux::nflog::{Layer4, Logged};
use model::Direction;

/// A connection, as policies judge it: all packets of it, in both directions, are the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// On which side it was denied.
    pub direction: Direction,
    /// Protocol by number.
    pub protocol: u8,
    /// The client, as it called itself.
    pub from: IpAddr,
    /// The server, after translation of a Service.
    pub to: IpAddr,
    /// The client's and the server's port, where the protocol has ports.
    pub ports: Option<(u16, u16)>,
    /// Type and code of an ICMP message.
    pub icmp: Option<(u8, u8)>,
    /// Address and port that the client asked for, where that was translated.
    pub asked: Option<(IpAddr, u16)>,
}

impl Connection {
    /// That of a packet: by connection tracking, which knows it before and after translation and
    /// of an ICMP error what it is about; else as the packet's own headers are. [`None`] where
    /// neither says who talks to whom.
    pub fn of(direction: Direction, logged: &Logged) -> Option<Self> {
        let icmp = |protocol| match logged.packet {
            Some(packet) if packet.protocol == protocol => match packet.layer4 {
                Layer4::Icmp { kind, code } => Some((kind, code)),
                _ => None,
            },
            _ => None,
        };
        if let Some(flow) = &logged.connection {
            let (asked, answers) = (flow.orig.dst, flow.reply.src);
            let translated = (asked, flow.orig.dport) != (answers, flow.reply.sport);
            return Some(Self {
                direction,
                protocol: flow.proto,
                from: flow.orig.src,
                to: answers,
                ports: (has_ports(flow.proto)).then_some((flow.orig.sport, flow.reply.sport)),
                icmp: icmp(flow.proto),
                asked: translated.then_some((asked, flow.orig.dport)),
            });
        }
        let packet = logged.packet?;
        Some(Self {
            direction,
            protocol: packet.protocol,
            from: packet.src,
            to: packet.dst,
            ports: match packet.layer4 {
                Layer4::Ports { src, dst } => Some((src, dst)),
                _ => None,
            },
            icmp: icmp(packet.protocol),
            asked: None,
        })
    }
}

/// TCP, UDP, DCCP, SCTP, UDP-Lite.
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

#[cfg(test)]
mod tests {
    use linux::conntrack::Tuple;
    use linux::nflog::Packet;
    use linux::{Flow, conntrack};

    use super::*;

    fn logged(packet: Option<Packet>, connection: Option<Flow>) -> Logged {
        Logged {
            prefix: String::new(),
            hook: 2,
            in_dev: None,
            out_dev: None,
            time: None,
            packet,
            connection,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn tuple(src: &str, sport: u16, dst: &str, dport: u16) -> Tuple {
        let (src, dst) = (ip(src), ip(dst));
        Tuple {
            src,
            dst,
            sport,
            dport,
        }
    }

    #[test]
    fn a_translated_connection_is_between_client_and_endpoint_whichever_packet_tells_of_it() {
        let mut flow = Flow::new(
            6,
            tuple("10.244.1.5", 40_000, "10.96.0.7", 80),
            tuple("10.244.2.9", 8080, "10.244.1.5", 40_000),
        );
        flow.status = conntrack::DST_NAT;
        let answer = Packet {
            src: ip("10.244.2.9"),
            dst: ip("10.244.1.5"),
            protocol: 6,
            layer4: Layer4::Ports {
                src: 8080,
                dst: 40_000,
            },
        };
        let of = |packet| Connection::of(Direction::Egress, &logged(packet, Some(flow))).unwrap();
        let connection = of(None);
        assert_eq!(of(Some(answer)), connection);
        assert_eq!(
            (connection.from, connection.to),
            (ip("10.244.1.5"), ip("10.244.2.9"))
        );
        assert_eq!(connection.ports, Some((40_000, 8080)));
        assert_eq!(connection.asked, Some((ip("10.96.0.7"), 80)));
    }

    #[test]
    fn without_connection_tracking_the_packet_itself_tells() {
        let ping = Packet {
            src: ip("10.244.1.5"),
            dst: ip("10.244.2.9"),
            protocol: 1,
            layer4: Layer4::Icmp { kind: 8, code: 0 },
        };
        let connection = Connection::of(Direction::Ingress, &logged(Some(ping), None)).unwrap();
        assert_eq!((connection.ports, connection.icmp), (None, Some((8, 0))));
        assert_eq!(connection.asked, None);
        let nothing = logged(None, None);
        assert_eq!(Connection::of(Direction::Ingress, &nothing), None);
    }

    #[test]
    fn an_icmp_error_is_of_the_connection_it_is_about() {
        let flow = Flow::new(
            17,
            tuple("10.244.1.5", 40_000, "10.244.2.9", 53),
            tuple("10.244.2.9", 53, "10.244.1.5", 40_000),
        );
        let unreachable = Packet {
            src: ip("10.244.2.9"),
            dst: ip("10.244.1.5"),
            protocol: 1,
            layer4: Layer4::Icmp { kind: 3, code: 3 },
        };
        let told = logged(Some(unreachable), Some(flow));
        let connection = Connection::of(Direction::Egress, &told).unwrap();
        assert_eq!((connection.protocol, connection.icmp), (17, None));
        assert_eq!(connection.ports, Some((40_000, 53)));
    }
}
