//! Neighbours (an address's hardware address) and the forwarding entries of VXLAN links and
//! bridges (the way to a hardware address).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::addr::family;
use crate::error::Result;
use crate::mac::Mac;
use crate::netlink::{About, Netlink};

/// A neighbour on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the link.
    pub dev: u32,
    /// Its address.
    pub ip: IpAddr,
    /// Its hardware address, where known.
    pub mac: Option<Mac>,
    /// Set by hand; otherwise the kernel learned it and will check it again.
    pub permanent: bool,
}

/// A forwarding entry of a VXLAN link, or of a bridge's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// Index of the link.
    pub dev: u32,
    /// The hardware address reached.
    pub mac: Mac,
    /// The tunnel's other end (VXLAN).
    pub dst: Option<IpAddr>,
    /// Set by hand and never aged.
    pub permanent: bool,
}

impl Netlink {
    /// Neighbours of one link, or of all.
    pub fn neighbours(&mut self, dev: Option<u32>) -> Result<Vec<Neighbour>> {
        let answers = self.dump_neighbours(AddressFamily::Unspec, dev, "neighbours")?;
        Ok(answers
            .iter()
            .filter_map(parse)
            .filter(|neighbour| dev.is_none_or(|dev| neighbour.dev == dev))
            .collect())
    }

    /// Adds a permanent neighbour, or puts it in the place of whatever is there.
    pub fn replace_neighbour(&mut self, dev: u32, ip: IpAddr, mac: Mac) -> Result<()> {
        let mut message = neighbour(dev, ip);
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        self.change(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            &About {
                object: &|| format!("neighbour {ip} at {mac} on link {dev}"),
                operation: "set",
            },
        )
    }

    /// Deletes a neighbour.
    pub fn delete_neighbour(&mut self, dev: u32, ip: IpAddr) -> Result<()> {
        self.change(
            RouteNetlinkMessage::DelNeighbour(neighbour(dev, ip)),
            0,
            &About {
                object: &|| format!("neighbour {ip} on link {dev}"),
                operation: "delete",
            },
        )
    }

    /// Forwarding entries of one VXLAN link or bridge port, those of the link itself.
    pub fn fdb(&mut self, dev: u32) -> Result<Vec<FdbEntry>> {
        let answers =
            self.dump_neighbours(AddressFamily::Bridge, Some(dev), "forwarding entries")?;
        Ok(answers
            .iter()
            .filter_map(parse_fdb)
            .filter(|entry| entry.dev == dev)
            .collect())
    }

    /// Adds a permanent forwarding entry, or puts it in the place of the one there.
    pub fn replace_fdb(&mut self, dev: u32, mac: Mac, dst: IpAddr) -> Result<()> {
        let mut message = fdb_entry(dev, mac, Some(dst));
        message.header.state = NeighbourState::Permanent;
        self.change(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            &About {
                object: &|| format!("forwarding entry {mac} to {dst} on link {dev}"),
                operation: "set",
            },
        )
    }

    /// Deletes a forwarding entry.
    pub fn delete_fdb(&mut self, dev: u32, mac: Mac, dst: Option<IpAddr>) -> Result<()> {
        self.change(
            RouteNetlinkMessage::DelNeighbour(fdb_entry(dev, mac, dst)),
            0,
            &About {
                object: &|| format!("forwarding entry {mac} on link {dev}"),
                operation: "delete",
            },
        )
    }

    fn dump_neighbours(
        &mut self,
        family: AddressFamily,
        dev: Option<u32>,
        what: &'static str,
    ) -> Result<Vec<NeighbourMessage>> {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        if let Some(dev) = dev {
            message.attributes.push(NeighbourAttribute::IfIndex(dev));
        }
        let answers = self.dump(
            &RouteNetlinkMessage::GetNeighbour(message),
            &About {
                object: &|| what.to_owned(),
                operation: "list",
            },
        )?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => Some(message),
                _ => None,
            })
            .collect())
    }
}

fn neighbour(dev: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = dev;
    message
        .attributes
        .push(NeighbourAttribute::Destination(ip.into()));
    message
}

fn fdb_entry(dev: u32, mac: Mac, dst: Option<IpAddr>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = dev;
    message.header.flags = NeighbourFlags::Own;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    if let Some(dst) = dst {
        message
            .attributes
            .push(NeighbourAttribute::Destination(dst.into()));
    }
    message
}

pub(crate) fn parse(message: &NeighbourMessage) -> Option<Neighbour> {
    let ip = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(address) => ip(address),
            _ => None,
        })?;
    Some(Neighbour {
        dev: message.header.ifindex,
        ip,
        mac: hardware(message),
        permanent: message.header.state == NeighbourState::Permanent,
    })
}

pub(crate) fn parse_fdb(message: &NeighbourMessage) -> Option<FdbEntry> {
    // Entries of a bridge (not of the link itself) belong to whoever owns the bridge.
    if !message.header.flags.contains(NeighbourFlags::Own) {
        return None;
    }
    Some(FdbEntry {
        dev: message.header.ifindex,
        mac: hardware(message)?,
        dst: message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(address) => ip(address),
                _ => None,
            }),
        permanent: message.header.state == NeighbourState::Permanent,
    })
}

fn hardware(message: &NeighbourMessage) -> Option<Mac> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => Mac::from_slice(bytes),
            _ => None,
        })
}

/// A forwarding entry is of the bridge family, so its address comes as plain bytes.
fn ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(ip) => Some((*ip).into()),
        NeighbourAddress::Inet6(ip) => Some((*ip).into()),
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(bytes.as_slice())
                .ok()
                .map(IpAddr::from),
            _ => None,
        },
        _ => None,
    }
}
