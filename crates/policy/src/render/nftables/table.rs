//! The whole table.

use std::net::IpAddr;

use model::Direction;
use nft::{Compiled, Family, MapDatum, Table, Value};

use super::{TABLE, base, list, set};
use crate::plan::{DIRECTIONS, DNS_PORT, DNS_PROTOCOLS, Mute, Plan};

/// Everything that the plan renders to, as `nft list table inet flatnet-policy` shows it; nothing
/// where no policy is about any pod here.
pub fn table(plan: &Plan, generation: u32) -> Option<Table> {
    if plan.subjects().is_empty() {
        return None;
    }
    let mut table = Table::new(Family::Inet, TABLE);
    table.sets = base::sets(generation);
    table.chains = base::chains(generation);
    for live in plan.sets().values() {
        table.sets.insert(set::name(&live.set), set::typed(live));
    }
    for each in plan.lists() {
        let rendered = list::rendered(each);
        table.chains.extend(rendered.chains);
        table.sets.extend(rendered.map);
    }
    for ip in plan.resolver() {
        if let Some(set) = table.sets.get_mut(&base::resolver(ip.is_ipv6())) {
            for protocol in DNS_PROTOCOLS {
                let [ip, port] = [Value::from(*ip), Value::Port(DNS_PORT)];
                set.add([ip, Value::Proto(protocol.number()), port]);
            }
        }
    }
    for (ip, mute) in plan.mute() {
        if let Some(set) = table.sets.get_mut(&base::mute(ip.is_ipv6())) {
            for key in muted(*ip, mute) {
                set.add(key);
            }
        }
    }
    for (ip, targets) in plan.subjects() {
        let v6 = ip.is_ipv6();
        if let Some(set) = table.sets.get_mut(&base::subjects(v6)) {
            set.add(twice(*ip));
        }
        for (direction, target) in DIRECTIONS.into_iter().zip(targets) {
            let map = table.sets.get_mut(&base::map(direction, v6));
            if let (Some(map), Some(verdict)) = (map, list::entry(direction, target)) {
                map.put([Value::from(*ip)], MapDatum::Verdict(verdict));
            }
        }
    }
    Some(table)
}

/// The same as the kernel has it.
pub fn compiled(plan: &Plan, generation: u32) -> Option<Compiled> {
    let mut compiled = table(plan, generation)?.compile();
    compiled.sets.values_mut().for_each(set::close);
    Some(compiled)
}

/// An address as it is in the set of subjects.
pub(super) fn twice(ip: IpAddr) -> [Value; 2] {
    [Value::from(ip), Value::from(ip)]
}

/// An address by the protocols by which it may not ask for names.
pub(super) fn muted(ip: IpAddr, mute: &Mute) -> impl Iterator<Item = [Value; 2]> {
    let all = DNS_PROTOCOLS.into_iter().zip(*mute);
    all.filter(|(_, mute)| *mute)
        .map(move |(protocol, _)| [Value::from(ip), Value::Proto(protocol.number())])
}

/// The directions of the maps.
pub(super) const MAPS: [Direction; 2] = DIRECTIONS;
