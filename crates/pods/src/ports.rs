//! Host ports: a port of the node that leads to a port of a pod.
//!
//! All of them are elements of a few maps in table `flatnet`, so a port costs one element and
//! the rules never change. Rendered from the attachments alone; adopted after a restart.

use linux::nftables::Nftables;
use nft::{
    Base, Chain, ChainKind, Compiled, Family, Hook, IpFamily, Key, MapDatum, MapTarget, NatKind,
    NatTo, Policy, Rule, Set, SetData, Statement, Table, Type, Value,
};

use crate::attachment::Attachment;

/// The nftables table all of flatnet's rules are in.
pub const TABLE: &str = "flatnet";
/// What in it is this module's.
const PREFIX: &str = "pods-";

/// Names of the maps and sets of one family.
struct Names {
    family: IpFamily,
    address: Type,
    any: &'static str,
    at: &'static str,
    hairpin: &'static str,
}

const FAMILIES: [Names; 2] = [
    Names {
        family: IpFamily::V4,
        address: Type::Ipv4,
        any: "pods-ports",
        at: "pods-ports-at",
        hairpin: "pods-hairpin",
    },
    Names {
        family: IpFamily::V6,
        address: Type::Ipv6,
        any: "pods-ports6",
        at: "pods-ports6-at",
        hairpin: "pods-hairpin6",
    },
];

/// The rules for the host ports of these attachments; nothing where there are none.
pub fn render<'a>(attachments: impl Iterator<Item = &'a Attachment>) -> Table {
    let mut table = Table::new(Family::Inet, TABLE);
    let with_ports: Vec<&Attachment> = attachments
        .filter(|attachment| !attachment.ports.is_empty())
        .collect();
    if with_ports.is_empty() {
        return table;
    }
    let mut to_pods = Vec::new();
    let mut leaving = Vec::new();
    for names in &FAMILIES {
        let there = add_sets(&mut table, names, &with_ports);
        if there {
            to_pods.extend(dnat_rules(names));
            leaving.extend(masquerade_rules(names));
        }
    }
    let mut chain = |name: &str, hook: Hook, priority: i32, rules: Vec<Rule>| {
        let base = Some(Base {
            kind: ChainKind::Nat,
            hook,
            priority,
            policy: Policy::Accept,
        });
        table
            .chains
            .insert(format!("{PREFIX}{name}"), Chain { base, rules });
    };
    chain("prerouting", Hook::Prerouting, -100, to_pods.clone());
    chain("output", Hook::Output, -100, to_pods);
    chain("postrouting", Hook::Postrouting, 100, leaving);
    table
}

/// False where no pod with a host port has an address of the family.
fn add_sets(table: &mut Table, names: &Names, attachments: &[&Attachment]) -> bool {
    let data = || SetData::Values(vec![names.address, Type::Port]);
    let mut any = Set::map([Type::Proto, Type::Port], data());
    let mut at = Set::map([names.address, Type::Proto, Type::Port], data());
    let mut hairpin = Set::of([names.address, names.address]);
    for attachment in attachments {
        let Some(ip) = attachment
            .ips()
            .find(|ip| IpFamily::of(*ip) == names.family)
        else {
            continue;
        };
        hairpin.add([Value::from(ip), Value::from(ip)]);
        for port in &attachment.ports {
            let to = MapDatum::Values(vec![ip.into(), Value::Port(port.container_port)]);
            let (proto, host) = (
                Value::Proto(port.protocol.number()),
                Value::Port(port.host_port),
            );
            match port.host_ip {
                None => any.put([proto, host], to),
                Some(host_ip) if IpFamily::of(host_ip) == names.family => {
                    at.put([host_ip.into(), proto, host], to)
                }
                Some(_) => {}
            }
        }
    }
    let there = !hairpin.elements.is_empty();
    if there {
        for (name, set) in [(names.any, any), (names.at, at), (names.hairpin, hairpin)] {
            table.sets.insert(name.to_owned(), set);
        }
    }
    there
}

fn dnat_rules(names: &Names) -> [Rule; 2] {
    let to = |keys: Vec<Key>, map: &str| Statement::Nat {
        kind: NatKind::Dnat,
        family: names.family,
        to: NatTo::Map(MapTarget {
            keys,
            map: map.to_owned(),
            with_port: true,
        }),
    };
    [
        Rule::new([to(
            vec![Key::Daddr(names.family), Key::L4Proto, Key::ThDport],
            names.at,
        )])
        .comment("host port of one address"),
        Rule::new([
            Statement::DaddrIsLocal,
            to(vec![Key::L4Proto, Key::ThDport], names.any),
        ])
        .comment("host port"),
    ]
}

/// A pod that reaches itself through its host port, and the node's own loopback: the answer
/// would not find back.
fn masquerade_rules(names: &Names) -> Vec<Rule> {
    let masquerade = Statement::Masquerade {
        fully_random: false,
    };
    let hairpin = Statement::InSet {
        keys: vec![Key::Saddr(names.family), Key::Daddr(names.family)],
        negate: false,
        set: names.hairpin.to_owned(),
    };
    let mut rules =
        vec![Rule::new([Statement::CtDnat, hairpin, masquerade.clone()]).comment("hairpin")];
    if names.family == IpFamily::V4 {
        let loopback: Value =
            ipnet::IpNet::V4(ipnet::Ipv4Net::new_assert([127, 0, 0, 0].into(), 8)).into();
        let from = Statement::is(Key::Saddr(IpFamily::V4), loopback);
        rules.push(
            Rule::new([Statement::CtDnat, from, masquerade]).comment("from the node's loopback"),
        );
    }
    rules
}

/// The node's host ports in the kernel.
#[derive(Debug)]
pub struct Ports {
    nftables: Nftables,
    /// What is there, once read; forgotten where somebody else may have changed it.
    have: Option<Option<Compiled>>,
}

impl Ports {
    /// For the namespace of the calling thread.
    pub fn open() -> Result<Ports, linux::Error> {
        Ok(Ports {
            nftables: Nftables::open()?,
            have: None,
        })
    }

    /// Forgets what is known to be there.
    pub fn forget(&mut self) {
        self.have = None;
    }

    /// Makes the kernel's rules those of `attachments`; how many changes that took.
    pub fn apply<'a>(
        &mut self,
        attachments: impl Iterator<Item = &'a Attachment>,
    ) -> Result<usize, linux::Error> {
        let owns = |name: &str| name.starts_with(PREFIX);
        let want = render(attachments).compile();
        let have = match self.have.take() {
            Some(have) => have,
            None => self.nftables.read_owned(Family::Inet, TABLE, &owns)?,
        };
        let changes = nft::diff(have.as_ref(), &want, owns);
        // An empty table of its own is not worth making.
        if changes.is_empty() || want.chains.is_empty() && have.is_none() {
            self.have = Some(have);
            return Ok(0);
        }
        self.nftables.apply(&changes)?;
        self.have = nft::apply(have, &changes).ok();
        Ok(changes.ops.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::{Key as Attached, PodRef, PortMapping, Protocol};
    use model::config::PodMode;

    fn attachment(ip: &str, ports: Vec<PortMapping>) -> Attachment {
        let key = Attached {
            container: ip.replace('.', "-"),
            ifname: "eth0".into(),
        };
        Attachment {
            host_link: key.host_link(),
            key,
            network: "flatnet".into(),
            netns: String::new(),
            pod: PodRef::default(),
            mode: PodMode::Routed,
            addresses: vec![ip.parse().unwrap()],
            ports,
            bandwidth: None,
            mac: None,
        }
    }

    #[test]
    fn the_rules_are_these() {
        let port = |host_port, host_ip: Option<&str>| PortMapping {
            host_port,
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        };
        let a = attachment("10.244.1.2/24", vec![port(8080, None)]);
        let b = attachment("10.244.1.3/24", vec![port(8081, Some("10.0.1.10"))]);
        let text = render([&a, &b].into_iter()).to_string();
        for line in [
            "fib daddr type local dnat ip to meta l4proto . th dport map @pods-ports comment \"host port\"",
            "dnat ip to ip daddr . meta l4proto . th dport map @pods-ports-at comment \"host port of one address\"",
            "ct status dnat ip saddr . ip daddr @pods-hairpin masquerade comment \"hairpin\"",
            "tcp . 8080 : 10.244.1.2 . 80",
            "10.0.1.10 . tcp . 8081 : 10.244.1.3 . 80",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(render([].into_iter()).chains.is_empty());
    }
}
