//! Names and addresses of a hosts file.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::plugins::zones::Zones;
use crate::wire::Name;

/// Addresses by name and names by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    addresses: HashMap<Name, Vec<IpAddr>>,
    /// Of `*.zone`, by the zone.
    wildcards: HashMap<Name, Vec<IpAddr>>,
    names: HashMap<IpAddr, Vec<Name>>,
    len: usize,
}

impl Table {
    /// Reads a hosts file; what is no address or no name in it is left out, as the C library does.
    pub fn parse(text: &str, zones: &Zones, reverse: bool) -> Self {
        let mut table = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut fields = line.split_ascii_whitespace();
            // The zone of a link-local address means nothing to others.
            let ip = fields.next().and_then(|ip| ip.split('%').next());
            let Some(Ok(ip)) = ip.map(str::parse::<IpAddr>) else {
                continue;
            };
            for name in fields.filter_map(|name| name.parse().ok()) {
                table.add(ip, name, zones, reverse);
            }
        }
        table
    }

    /// Adds a name of an address, if one of the zones has it.
    pub fn add(&mut self, ip: IpAddr, name: Name, zones: &Zones, reverse: bool) {
        let ip = ip.to_canonical();
        if !zones.contain(&name) {
            return;
        }
        self.len += 1;
        if let Some(zone) = name.parent().filter(|_| name.is_wildcard()) {
            self.wildcards.entry(zone).or_default().push(ip);
            return;
        }
        let name = name.lower();
        if reverse {
            self.len += 1;
            self.names.entry(ip).or_default().push(name.clone());
        }
        self.addresses.entry(name).or_default().push(ip);
    }

    /// How many addresses of names and names of addresses there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The addresses of a name. A wildcard counts for the families that the name itself lacks.
    pub(super) fn addresses<'a>(
        &'a self,
        name: &Name,
    ) -> impl Iterator<Item = &'a IpAddr> + use<'a> {
        let own = self.addresses.get(name).map_or(&[][..], Vec::as_slice);
        let wild = if self.wildcards.is_empty() {
            None
        } else {
            name.parent().and_then(|zone| self.wildcards.get(&zone))
        };
        let wild = wild.map_or(&[][..], Vec::as_slice);
        let lacking = |ip: &&IpAddr| !own.iter().any(|own| own.is_ipv4() == ip.is_ipv4());
        own.iter().chain(wild.iter().filter(lacking))
    }

    /// The names of an address.
    pub(super) fn names(&self, ip: IpAddr) -> &[Name] {
        self.names.get(&ip).map_or(&[][..], Vec::as_slice)
    }
}
