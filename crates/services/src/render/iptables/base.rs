//! The chains that all ports share, and the rules that lead to them.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::port::PortRules;
use super::rule::Rule;
use super::text::Writer;
use super::{CANARY, Chain, Context, Present, Table, is_service_chain};

/// The kubelet's, in the mangle table, which tells that there is one.
pub(crate) const KUBELET: &str = "KUBE-KUBELET-CANARY";
/// Marks a packet for masquerade.
pub(crate) const MARK: &str = "KUBE-MARK-MASQ";
/// Guards 127.0.0.0/8; the kubelet's by name, and shared with it.
pub(crate) const FIREWALL: &str = "KUBE-FIREWALL";
const SERVICES: &str = "KUBE-SERVICES";
const NODE_PORTS: &str = "KUBE-NODEPORTS";
const EXTERNAL: &str = "KUBE-EXTERNAL-SERVICES";
const FORWARD: &str = "KUBE-FORWARD";
const PROXY_FIREWALL: &str = "KUBE-PROXY-FIREWALL";
const POSTROUTING: &str = "KUBE-POSTROUTING";

/// A chain that holds lines of many ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    FilterServices,
    FilterExternal,
    FilterNodePorts,
    FilterFirewall,
    NatServices,
    NatNodePorts,
}

impl Place {
    const ALL: [Self; 6] = [
        Self::FilterServices,
        Self::FilterExternal,
        Self::FilterNodePorts,
        Self::FilterFirewall,
        Self::NatServices,
        Self::NatNodePorts,
    ];

    fn table(self) -> Table {
        match self {
            Self::NatServices | Self::NatNodePorts => Table::Nat,
            _ => Table::Filter,
        }
    }

    fn chain(self) -> &'static str {
        match self {
            Self::FilterServices | Self::NatServices => SERVICES,
            Self::FilterExternal => EXTERNAL,
            Self::FilterNodePorts | Self::NatNodePorts => NODE_PORTS,
            Self::FilterFirewall => PROXY_FIREWALL,
        }
    }
}

/// True for a chain of Services, ours or kube-proxy's.
pub(crate) fn is_own(table: Table, chain: &str) -> bool {
    match table {
        Table::Mangle => chain == CANARY,
        Table::Filter => [
            SERVICES,
            EXTERNAL,
            FORWARD,
            NODE_PORTS,
            PROXY_FIREWALL,
            FIREWALL,
            CANARY,
        ]
        .contains(&chain),
        Table::Nat => {
            [SERVICES, NODE_PORTS, POSTROUTING, MARK, CANARY].contains(&chain)
                || is_service_chain(chain)
        }
    }
}

/// A rule of one of iptables' own chains that leads to one of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Jump {
    pub(crate) table: Table,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    comment: &'static str,
    new_only: bool,
}

const fn jump(
    table: Table,
    from: &'static str,
    to: &'static str,
    comment: &'static str,
    new_only: bool,
) -> Jump {
    Jump {
        table,
        from,
        to,
        comment,
        new_only,
    }
}

/// Each goes to the top of its chain, so that the last one stands first.
const JUMPS: &[Jump] = &{
    use Table::{Filter, Nat};
    const VISIBLE: &str = "kubernetes externally-visible service portals";
    const PORTALS: &str = "kubernetes service portals";
    const BALANCER: &str = "kubernetes load balancer firewall";
    const HEALTH: &str = "kubernetes health check service ports";
    [
        jump(Filter, "INPUT", EXTERNAL, VISIBLE, true),
        jump(Filter, "FORWARD", EXTERNAL, VISIBLE, true),
        jump(Filter, "INPUT", NODE_PORTS, HEALTH, false),
        jump(Filter, "FORWARD", SERVICES, PORTALS, true),
        jump(Filter, "OUTPUT", SERVICES, PORTALS, true),
        jump(
            Filter,
            "FORWARD",
            FORWARD,
            "kubernetes forwarding rules",
            false,
        ),
        jump(Filter, "INPUT", PROXY_FIREWALL, BALANCER, true),
        jump(Filter, "OUTPUT", PROXY_FIREWALL, BALANCER, true),
        jump(Filter, "FORWARD", PROXY_FIREWALL, BALANCER, true),
        jump(Nat, "OUTPUT", SERVICES, PORTALS, false),
        jump(Nat, "PREROUTING", SERVICES, PORTALS, false),
        jump(
            Nat,
            "POSTROUTING",
            POSTROUTING,
            "kubernetes postrouting rules",
            false,
        ),
        jump(Filter, "INPUT", FIREWALL, "", false),
        jump(Filter, "OUTPUT", FIREWALL, "", false),
    ]
};

/// The jumps of one table.
pub(crate) fn jumps(table: Table) -> impl Iterator<Item = Jump> {
    JUMPS
        .iter()
        .filter(move |jump| jump.table == table)
        .copied()
}

impl Jump {
    /// The rule without its chain.
    pub(crate) fn rule(&self) -> String {
        let mut rule = Rule::new();
        if self.new_only {
            rule = rule.with("-m conntrack --ctstate NEW");
        }
        if !self.comment.is_empty() {
            rule = rule.comment(self.comment);
        }
        rule.jump(self.to)
    }
}

/// The shared chains as they fill.
pub(crate) struct Shared {
    lines: BTreeMap<Place, Vec<String>>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        let lines = Place::ALL.into_iter().map(|place| (place, Vec::new()));
        Self {
            lines: lines.collect(),
        }
    }

    pub(crate) fn take(&mut self, port: &PortRules) {
        for (place, rule) in &port.shared {
            self.lines.entry(*place).or_default().push(rule.clone());
        }
    }

    /// The chains that they fill.
    pub(crate) fn chains(self, context: &Context<'_>) -> Vec<Common> {
        let mut chains = Vec::new();
        for (place, mut rules) in self.lines {
            let last = match place {
                Place::NatServices => node_ports(context),
                _ => Vec::new(),
            };
            let tail = last.len();
            rules.extend(last);
            let chain = (place.chain().to_owned(), rules);
            chains.push((place.table(), chain, tail));
        }
        chains
    }
}

/// The chains that depend on no port; the mark's is apart, for others refer to it.
pub(crate) fn fixed(context: &Context<'_>, present: &Present<'_>) -> Vec<Common> {
    let mut chains = vec![
        (Table::Filter, forward_chain(context)),
        (Table::Nat, postrouting_chain(context)),
    ];
    let guard = localnet_chain(context);
    // The kubelet may want its rule there where we do not.
    if !guard.1.is_empty() || !present.has_kubelet() || !present.has(Table::Filter, FIREWALL) {
        chains.push((Table::Filter, guard));
    }
    let chains = chains.into_iter().map(|(table, chain)| {
        let tail = chain.1.len();
        (table, chain, tail)
    });
    chains.collect()
}

/// A chain that is not a port's own, and how many of its last rules have their order.
pub(crate) type Common = (Table, Chain, usize);

/// Lines to take out of the shared chains and lines to put in, by table and chain.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    pub(crate) out: Vec<(Table, String, String)>,
    pub(crate) put: Vec<(Table, String, String)>,
}

impl Edits {
    pub(crate) fn take(&mut self, was: &PortRules, is: &PortRules) {
        let differ = |a: &PortRules, b: &PortRules| -> Vec<_> {
            let missing = a.shared.iter().filter(|line| !b.shared.contains(line));
            missing
                .map(|(place, rule)| (place.table(), place.chain().to_owned(), rule.clone()))
                .collect()
        };
        self.out.extend(differ(was, is));
        self.put.extend(differ(is, was));
    }

    /// At the top, where iptables finds the place at once, and where the rules that have to be
    /// the last stay so; backwards, so that they stand in order.
    pub(crate) fn put(&self, table: Table, writer: &mut Writer) {
        for (_, chain, rule) in self.put.iter().rev().filter(|(of, ..)| *of == table) {
            writer.section(table).line(format!("-I {chain} {rule}"));
        }
    }

    pub(crate) fn out(&self, table: Table, writer: &mut Writer) {
        for (_, chain, rule) in self.out.iter().filter(|(of, ..)| *of == table) {
            writer.section(table).line(format!("-D {chain} {rule}"));
        }
    }
}

/// The last rules of the services' chain: what is for no Service's address may be for a port of
/// this node.
fn node_ports(context: &Context<'_>) -> Vec<String> {
    let rule = || {
        Rule::new()
            .comment("kubernetes service nodeports; NOTE: this must be the last rule in this chain")
    };
    let on_loopback = context.node_ports_on_loopback();
    let Some(ranges) = context.settings.node_port_ranges(context.v6) else {
        let rule = if on_loopback {
            rule()
        } else {
            rule().not_destination(&loopback(context.v6))
        };
        return vec![rule.with("-m addrtype --dst-type LOCAL").jump(NODE_PORTS)];
    };
    let served = ranges
        .iter()
        .filter(|range| on_loopback || !range.addr().is_loopback());
    served
        .map(|range| {
            let host = range.prefix_len() == range.max_prefix_len();
            let own = host && context.settings.node_ips.contains(&range.addr());
            let rule = rule().destination(range);
            // An address of the node's own by its name; anything else has to be one.
            if own {
                rule.jump(NODE_PORTS)
            } else {
                rule.with("-m addrtype --dst-type LOCAL").jump(NODE_PORTS)
            }
        })
        .collect()
}

fn loopback(v6: bool) -> IpNet {
    if v6 {
        IpNet::from(std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST))
    } else {
        IpNet::V4(ipnet::Ipv4Net::new_assert(
            std::net::Ipv4Addr::new(127, 0, 0, 0),
            8,
        ))
    }
}

/// Marks for masquerade.
pub(crate) fn mark_chain(context: &Context<'_>) -> Chain {
    let mark = context.settings.masquerade_mark;
    let rule = Rule::new().jump(&format!("MARK --set-xmark {mark:#x}/{mark:#x}"));
    (MARK.to_owned(), vec![rule])
}

/// Masquerades what is marked; without the mark from here on, for the packet may come by again.
fn postrouting_chain(context: &Context<'_>) -> Chain {
    let mark = context.settings.masquerade_mark;
    let rules = vec![
        Rule::new()
            .with(&format!("-m mark ! --mark {mark:#x}/{mark:#x}"))
            .jump("RETURN"),
        Rule::new().jump(&format!("MARK --set-xmark {mark:#x}/0x0")),
        Rule::new()
            .comment("kubernetes service traffic requiring SNAT")
            .jump("MASQUERADE --random-fully"),
    ];
    (POSTROUTING.to_owned(), rules)
}

/// What Services forward goes through, whatever the policy of the FORWARD chain.
fn forward_chain(context: &Context<'_>) -> Chain {
    let mark = context.settings.masquerade_mark;
    let mut rules = Vec::new();
    if !context.liberal {
        // A packet out of its connection's window would go on with the pod's address, and the
        // other side would answer it with a reset.
        let invalid = Rule::new().with("-m conntrack --ctstate INVALID");
        rules.push(invalid.jump("DROP"));
    }
    rules.push(
        Rule::new()
            .comment("kubernetes forwarding rules")
            .with(&format!("-m mark --mark {mark:#x}/{mark:#x}"))
            .jump("ACCEPT"),
    );
    rules.push(
        Rule::new()
            .comment("kubernetes forwarding conntrack rule")
            .with("-m conntrack --ctstate RELATED,ESTABLISHED")
            .jump("ACCEPT"),
    );
    (FORWARD.to_owned(), rules)
}

/// `route_localnet` would let neighbours reach what listens at 127.0.0.1 only.
fn localnet_chain(context: &Context<'_>) -> Chain {
    let guard = context.node_ports_on_loopback().then(localnet_rule);
    (FIREWALL.to_owned(), guard.into_iter().collect())
}

/// The guard, which the kubelet writes in the same words.
pub(crate) fn localnet_rule() -> String {
    let local = loopback(false);
    Rule::new()
        .not_source(&local)
        .destination(&local)
        .comment("block incoming localnet connections")
        .with("-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT")
        .jump("DROP")
}
