//! Connection tracking: which flows the kernel knows, and forgetting one.

use std::net::IpAddr;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nft::IpFamily;
use nft::wire::attr::{Reader, Writer};
use nft::wire::message;

use crate::error::{Error, Result};
use crate::netlink::{About, RECEIVE_BUFFER, answers, connected};
use crate::netns::{NetNs, run_in};

const SUBSYSTEM: u16 = 1;
const NEW: u16 = SUBSYSTEM << 8;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;

/// `CTA_*` that are used.
mod attr {
    pub const TUPLE_ORIG: u16 = 1;
    pub const TUPLE_REPLY: u16 = 2;
    pub const STATUS: u16 = 3;
    pub const MARK: u16 = 8;
    pub const ID: u16 = 12;
    pub const ZONE: u16 = 18;
    pub const FILTER: u16 = 25;

    pub const TUPLE_IP: u16 = 1;
    pub const TUPLE_PROTO: u16 = 2;

    pub const V4_SRC: u16 = 1;
    pub const V4_DST: u16 = 2;
    pub const V6_SRC: u16 = 3;
    pub const V6_DST: u16 = 4;

    pub const NUMBER: u16 = 1;
    pub const SRC_PORT: u16 = 2;
    pub const DST_PORT: u16 = 3;

    pub const FILTER_ORIG: u16 = 1;
}

/// `CTA_FILTER_F_*`: which fields of a tuple a dump is filtered by.
mod field {
    pub const IP_DST: u32 = 1 << 1;
    pub const PROTO: u32 = 1 << 3;
    pub const DST_PORT: u32 = 1 << 5;
}

/// `IPS_SEEN_REPLY`: there was a packet in the other direction.
pub const SEEN_REPLY: u32 = 1 << 1;
/// `IPS_SRC_NAT`: the source is translated.
pub const SRC_NAT: u32 = 1 << 4;
/// `IPS_DST_NAT`: the destination is translated.
pub const DST_NAT: u32 = 1 << 5;

/// One direction of a flow; the ports are 0 where the protocol has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

impl Tuple {
    /// That of an answer.
    pub fn answer(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
        }
    }
}

/// A flow that the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// As its first packet came.
    pub orig: Tuple,
    /// As answers come: the source is whom the flow was translated to.
    pub reply: Tuple,
    /// Layer 4 protocol by number.
    pub proto: u8,
    /// `IPS_*`; [`DST_NAT`] and others.
    pub status: u32,
    /// Mark.
    pub mark: u32,
    /// Zone.
    pub zone: u16,
    /// The kernel's number; a later flow with the same addresses may get the same.
    pub id: u32,
}

impl Flow {
    /// A flow with these directions and nothing else.
    pub fn new(proto: u8, orig: Tuple, reply: Tuple) -> Self {
        Self {
            orig,
            reply,
            proto,
            status: 0,
            mark: 0,
            zone: 0,
            id: 0,
        }
    }
}

impl std::fmt::Display for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let socket = std::net::SocketAddr::new;
        let Tuple { src, dst, .. } = self.orig;
        let [from, to] = [socket(src, self.orig.sport), socket(dst, self.orig.dport)];
        write!(f, "flow of protocol {} from {from} to {to}", self.proto)
    }
}

/// Which flows are looked for; the kernel itself passes over the others since Linux 5.8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// Of an address family.
    pub family: Option<IpFamily>,
    /// Of a layer 4 protocol.
    pub proto: Option<u8>,
    /// First sent to an address. The kernel itself looks at it only for IPv4.
    pub dst: Option<IpAddr>,
    /// First sent to a port. The kernel itself looks at it only together with a protocol.
    pub dport: Option<u16>,
}

impl FlowFilter {
    /// Whether a flow is looked for.
    pub fn matches(&self, flow: &Flow) -> bool {
        fn same<T: PartialEq>(wanted: Option<T>, is: T) -> bool {
            wanted.is_none_or(|wanted| wanted == is)
        }
        same(self.family, IpFamily::of(flow.orig.src))
            && same(self.proto, flow.proto)
            && same(self.dst, flow.orig.dst)
            && same(self.dport, flow.orig.dport)
    }

    fn write(&self, family: Option<IpFamily>, body: &mut Writer) {
        let mut fields = 0;
        if family.is_none() {
            return;
        }
        body.nest(attr::TUPLE_ORIG, |tuple| {
            // Of IPv6 the kernel (seen in 6.18) passes over just the flows that do match.
            if let Some(dst @ IpAddr::V4(_)) = self.dst {
                fields |= field::IP_DST;
                tuple.nest(attr::TUPLE_IP, |ips| write_dst(ips, dst));
            }
            if let Some(proto) = self.proto {
                fields |= field::PROTO;
                tuple.nest(attr::TUPLE_PROTO, |list| {
                    list.put(attr::NUMBER, &[proto]);
                    if let Some(dport) = self.dport {
                        fields |= field::DST_PORT;
                        list.put(attr::DST_PORT, &dport.to_be_bytes());
                    }
                });
            }
        });
        if fields != 0 {
            // This one number is in the host's order.
            body.nest(attr::FILTER, |filter| {
                filter.put(attr::FILTER_ORIG, &fields.to_ne_bytes());
            });
        }
    }
}

/// A handle to the connection tracking of one network namespace.
pub struct Conntrack {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Conntrack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conntrack").finish_non_exhaustive()
    }
}

impl Conntrack {
    /// A handle to the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        Ok(Self {
            socket: connected(NETLINK_NETFILTER, "conntrack socket")?,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
        })
    }

    /// A handle to another network namespace.
    pub fn open_in(netns: &NetNs) -> Result<Self> {
        run_in(netns, Self::open)?
    }

    /// Hands out all flows that a filter lets pass. Flows that come and go meanwhile may be among
    /// them or not; one may be told twice.
    pub fn flows(&mut self, filter: &FlowFilter, take: &mut dyn FnMut(Flow)) -> Result<()> {
        let family = filter.family.or(filter.dst.map(IpFamily::of));
        let about = About {
            object: &|| String::from("conntrack"),
            operation: "read",
        };
        self.ask(GET, DUMP, family, &about, |body| filter.write(family, body))?;
        let (socket, buffer) = (&self.socket, &mut self.buffer);
        answers(socket, buffer, self.sequence, &about, |raw| {
            let flow = raw.payload().get(4..).map(Reader).and_then(read);
            if let Some(flow) = flow.filter(|flow| raw.kind == NEW && filter.matches(flow)) {
                take(flow);
            }
        })
        .map(|_| ())
    }

    /// The flow that a packet of a protocol with ports belongs to, by its addresses and ports as
    /// they are before or after translation, of a packet in either direction. [`None`] also for
    /// the first packet of a flow as long as it is on its way: what is dropped was never known.
    pub fn find(&mut self, proto: u8, packet: &Tuple) -> Result<Option<Flow>> {
        let found = self.find_exact(proto, *packet)?;
        match found {
            Some(flow) => Ok(Some(flow)),
            // A translated packet is on no side of its flow, but its answer is.
            None => self.find_exact(proto, packet.answer()),
        }
    }

    fn find_exact(&mut self, proto: u8, tuple: Tuple) -> Result<Option<Flow>> {
        let wanted = Flow::new(proto, tuple, tuple);
        let about = About {
            object: &|| wanted.to_string(),
            operation: "find",
        };
        let family = Some(IpFamily::of(tuple.src));
        self.ask(GET, ACK, family, &about, |body| write(body, &wanted))?;
        let mut found = None;
        let (socket, buffer) = (&self.socket, &mut self.buffer);
        let answered = answers(socket, buffer, self.sequence, &about, |raw| {
            let flow = raw.payload().get(4..).map(Reader).and_then(read);
            found = flow.filter(|_| raw.kind == NEW).or(found);
        });
        match answered {
            Ok(_) => Ok(found),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the kernel forget a flow of a protocol with ports; false where it had already. Another flow that took its place
    /// meanwhile stays where the kernel gave it another number.
    pub fn delete_flow(&mut self, flow: &Flow) -> Result<bool> {
        let about = About {
            object: &|| flow.to_string(),
            operation: "delete",
        };
        let family = Some(IpFamily::of(flow.orig.src));
        self.ask(DELETE, ACK, family, &about, |body| write(body, flow))?;
        let (socket, buffer) = (&self.socket, &mut self.buffer);
        match answers(socket, buffer, self.sequence, &about, |_| ()) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        family: Option<IpFamily>,
        about: &About<'_>,
        write: impl FnOnce(&mut Writer),
    ) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let header = [family.map_or(0, IpFamily::number), 0, 0, 0];
        let mut bytes = Vec::new();
        message(
            &mut bytes,
            kind,
            REQUEST | flags,
            self.sequence,
            header,
            write,
        );
        self.socket
            .send(&bytes, 0)
            .map(|_| ())
            .map_err(|error| Error::io((about.object)(), about.operation, &error))
    }
}

fn write_dst(list: &mut Writer, dst: IpAddr) {
    match dst {
        IpAddr::V4(ip) => list.put(attr::V4_DST, &ip.octets()),
        IpAddr::V6(ip) => list.put(attr::V6_DST, &ip.octets()),
    }
}

/// What finds a flow: without a tuple the kernel would forget all.
fn write(body: &mut Writer, flow: &Flow) {
    let Tuple {
        src,
        dst,
        sport,
        dport,
    } = flow.orig;
    body.nest(attr::TUPLE_ORIG, |tuple| {
        tuple.nest(attr::TUPLE_IP, |ips| {
            match src {
                IpAddr::V4(ip) => ips.put(attr::V4_SRC, &ip.octets()),
                IpAddr::V6(ip) => ips.put(attr::V6_SRC, &ip.octets()),
            }
            write_dst(ips, dst);
        });
        tuple.nest(attr::TUPLE_PROTO, |list| {
            list.put(attr::NUMBER, &[flow.proto]);
            list.put(attr::SRC_PORT, &sport.to_be_bytes());
            list.put(attr::DST_PORT, &dport.to_be_bytes());
        });
    });
    if flow.id != 0 {
        body.u32(attr::ID, flow.id);
    }
    if flow.zone != 0 {
        body.put(attr::ZONE, &flow.zone.to_be_bytes());
    }
}

/// The flow of an answer; [`None`] for what has no addresses.
pub(crate) fn read(body: Reader<'_>) -> Option<Flow> {
    let (orig, proto) = read_tuple(body.nest(attr::TUPLE_ORIG))?;
    let (reply, _) = read_tuple(body.nest(attr::TUPLE_REPLY))?;
    Some(Flow {
        orig,
        reply,
        proto,
        status: body.u32(attr::STATUS).unwrap_or(0),
        mark: body.u32(attr::MARK).unwrap_or(0),
        zone: short(body, attr::ZONE),
        id: body.u32(attr::ID).unwrap_or(0),
    })
}

fn read_tuple(tuple: Reader<'_>) -> Option<(Tuple, u8)> {
    let ips = tuple.nest(attr::TUPLE_IP);
    let list = tuple.nest(attr::TUPLE_PROTO);
    let ip = |v4, v6| -> Option<IpAddr> {
        match ips.get(v4) {
            Some(bytes) => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
            None => Some(<[u8; 16]>::try_from(ips.get(v6)?).ok()?.into()),
        }
    };
    let ends = Tuple {
        src: ip(attr::V4_SRC, attr::V6_SRC)?,
        dst: ip(attr::V4_DST, attr::V6_DST)?,
        sport: short(list, attr::SRC_PORT),
        dport: short(list, attr::DST_PORT),
    };
    Some((ends, *list.get(attr::NUMBER)?.first()?))
}

fn short(list: Reader<'_>, kind: u16) -> u16 {
    let bytes = list.get(kind).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u16::from_be_bytes)
}
