//! Addresses of links.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::Result;
use crate::netlink::{About, Netlink};

/// An address on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of the link.
    pub dev: u32,
    /// Address and prefix length.
    pub net: IpNet,
    /// Broadcast address, where one is set.
    pub broadcast: Option<Ipv4Addr>,
    /// Usable at once, without duplicate address detection (IPv6).
    pub nodad: bool,
    /// Whether the kernel leaves out the route to the address's subnet.
    pub no_prefix_route: bool,
    /// Whether duplicate address detection is still under way; never set on a request.
    pub tentative: bool,
    /// Scope link or host (169.254/16, fe80::/10, 127/8) instead of global.
    pub local_scope: bool,
}

impl Address {
    /// An address as it is usually added: global, no broadcast, no DAD wait.
    pub fn new(dev: u32, net: impl Into<IpNet>) -> Self {
        let net = net.into();
        Self {
            dev,
            net,
            broadcast: None,
            nodad: matches!(net, IpNet::V6(_)),
            no_prefix_route: false,
            tentative: false,
            local_scope: false,
        }
    }

    /// The same with the subnet's broadcast address (`brd +`); nothing for IPv6, /31 and /32.
    #[must_use]
    pub fn with_broadcast(mut self) -> Self {
        self.broadcast = match self.net {
            IpNet::V4(net) if net.prefix_len() < 31 => Some(net.broadcast()),
            _ => None,
        };
        self
    }
}

impl Netlink {
    /// Addresses of one link, or of all.
    pub fn addresses(&mut self, dev: Option<u32>) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.index = dev.unwrap_or(0);
        let answers = self.dump(
            &RouteNetlinkMessage::GetAddress(message),
            &About {
                object: &|| "addresses".to_owned(),
                operation: "list",
            },
        )?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) => parse(&message),
                _ => None,
            })
            .filter(|address| dev.is_none_or(|dev| address.dev == dev))
            .collect())
    }

    /// Adds an address; one that is there already is an error (`is_exists`).
    pub fn add_address(&mut self, address: &Address) -> Result<()> {
        self.new_address(address, NLM_F_CREATE | NLM_F_EXCL, "add")
    }

    /// Adds an address, or changes the flags of one that is there.
    pub fn replace_address(&mut self, address: &Address) -> Result<()> {
        self.new_address(address, NLM_F_CREATE | NLM_F_REPLACE, "set")
    }

    /// Deletes an address.
    pub fn delete_address(&mut self, address: &Address) -> Result<()> {
        self.change(
            RouteNetlinkMessage::DelAddress(request(address)),
            0,
            &About {
                object: &|| object(address),
                operation: "delete",
            },
        )
    }

    fn new_address(
        &mut self,
        address: &Address,
        flags: u16,
        operation: &'static str,
    ) -> Result<()> {
        self.change(
            RouteNetlinkMessage::NewAddress(request(address)),
            flags,
            &About {
                object: &|| object(address),
                operation,
            },
        )
    }
}

fn object(address: &Address) -> String {
    format!("address {} on link {}", address.net, address.dev)
}

fn request(address: &Address) -> AddressMessage {
    let mut message = AddressMessage::default();
    let ip = address.net.addr();
    message.header.index = address.dev;
    message.header.prefix_len = address.net.prefix_len();
    message.header.family = family(ip);
    message.header.scope = match (address.local_scope, ip.is_loopback()) {
        (true, true) => AddressScope::Host,
        (true, false) => AddressScope::Link,
        (false, _) => AddressScope::Universe,
    };
    message.attributes.push(AddressAttribute::Local(ip));
    message.attributes.push(AddressAttribute::Address(ip));
    if let Some(broadcast) = address.broadcast {
        message
            .attributes
            .push(AddressAttribute::Broadcast(broadcast));
    }
    let mut flags = AddressFlags::empty();
    if address.nodad && ip.is_ipv6() {
        message.header.flags |= AddressHeaderFlags::Nodad;
        flags |= AddressFlags::Nodad;
    }
    if address.no_prefix_route {
        flags |= AddressFlags::Noprefixroute;
    }
    if !flags.is_empty() {
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    message
}

pub(crate) fn parse(message: &AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut peer = None;
    let mut broadcast = None;
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => peer = Some(*ip),
            AddressAttribute::Broadcast(ip) => broadcast = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    Some(Address {
        dev: message.header.index,
        net: IpNet::new(local.or(peer)?, message.header.prefix_len).ok()?,
        broadcast,
        nodad: flags.contains(AddressFlags::Nodad),
        no_prefix_route: flags.contains(AddressFlags::Noprefixroute),
        tentative: flags.contains(AddressFlags::Tentative),
        local_scope: message.header.scope != AddressScope::Universe,
    })
}

pub(crate) fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
