//! The plan as kube-proxy's iptables chains: their names, comments, order and matches are the
//! interface that operators and other programs know, so they are kube-proxy's to the letter.
//!
//! ```text
//! nat     PREROUTING, OUTPUT ─▶ KUBE-SERVICES ─┬─▶ KUBE-SVC-*, KUBE-SVL-* ─▶ KUBE-SEP-* ─▶ DNAT
//!                                              ├─▶ KUBE-FW-* ─▶ KUBE-EXT-* ─▶ KUBE-SVC-*, KUBE-SVL-*
//!                                              └─▶ KUBE-NODEPORTS ─▶ KUBE-EXT-*
//!         POSTROUTING ─▶ KUBE-POSTROUTING (masquerade of what KUBE-MARK-MASQ marked)
//! filter  INPUT, FORWARD, OUTPUT ─▶ what has no endpoint is rejected or dropped
//! ```
//!
//! Rules are written as `iptables-save` prints them, so that what is there can be compared with
//! what should be as text. A port's own chains (SVC, SVL, EXT, FW, SEP) belong to it alone; the
//! shared chains hold lines of many ports, whose order among each other means nothing: no two
//! ports serve one frontend. That is why a change edits lines there, and rewrites own chains.

mod base;
mod names;
mod port;
mod present;
mod rule;
mod text;

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::plan::{Delta, Plan, PortId, PortPlan, Settings};

pub use names::{chain_name, endpoint_chain_name, is_service_chain};
pub use port::way;
pub use present::Present;

use base::{Edits, Jump, Shared};
use text::Writer;

/// The chain whose absence tells that somebody flushed the tables.
pub const CANARY: &str = "KUBE-PROXY-CANARY";

/// Beyond this many endpoints the chains carry no comments, as kube-proxy does it: they would be
/// two fifths of the rules' size.
pub const LARGE: usize = 1000;

/// Beyond this many deleted lines a shared chain is written anew: each deletion makes iptables
/// search the whole chain.
const MOST_DELETIONS: usize = 32;

/// A table of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Packet marks and the like; holds nothing but the canary.
    Mangle,
    /// What is let through.
    Filter,
    /// Where connections go.
    Nat,
}

impl Table {
    /// All of them, in the order they are written.
    pub const ALL: [Self; 3] = [Self::Mangle, Self::Filter, Self::Nat];

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mangle => "mangle",
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// A chain with its rules.
pub(crate) type Chain = (String, Vec<String>);

/// What rules of one family depend on besides the ports.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The node and the configuration.
    pub settings: &'a Settings,
    /// IPv6: text for `ip6tables-restore`.
    pub v6: bool,
    /// `nf_conntrack_tcp_be_liberal` is set: packets out of the window are no reason to drop.
    pub liberal: bool,
    /// More than [`LARGE`] endpoints: no comments in endpoints' rules.
    pub large: bool,
    /// The programs are of the legacy kind.
    pub legacy: bool,
    /// Ports that are left out: the kernel refused them.
    pub without: &'a BTreeSet<PortId>,
}

impl Context<'_> {
    /// The node's ports answer at 127.0.0.1 too: asked for, and possible (IPv4 only).
    fn node_ports_on_loopback(&self) -> bool {
        !self.v6 && self.settings.node_ports_on_loopback()
    }

    /// The ports of the plan that have rules.
    fn ports<'p>(&self, plan: &'p Plan) -> impl Iterator<Item = &'p PortPlan> {
        let ports = plan.ports().iter();
        ports
            .filter(|(id, port)| port.v6 == self.v6 && !self.without.contains(id))
            .map(|(_, port)| &**port)
    }
}

/// Text that makes a table where there may be none: what prints it then tells its kind.
pub fn first_table() -> String {
    let mut writer = Writer::new(false);
    writer.section(Table::Mangle).chain(CANARY, &[]);
    writer.finish()
}

/// Text that makes all chains what they should be, given what is there; empty where they are.
/// Chains that nobody wants any more go, rules and chains of others stay. Established rules that
/// are right already are not written again.
pub fn whole(context: &Context<'_>, plan: &Plan, present: &Present<'_>) -> String {
    let mut writer = Writer::new(context.legacy);
    let mut shared = Shared::new();
    let mut wanted = HashSet::new();
    for table in Table::ALL {
        if !present.has(table, CANARY) {
            writer.section(table).chain(CANARY, &[]);
        }
    }
    // Before any endpoint's chain refers to it.
    let mark = base::mark_chain(context);
    if !present.is(Table::Nat, &mark) {
        writer.section(Table::Nat).chain(&mark.0, &mark.1);
    }
    for port in context.ports(plan) {
        let rules = port::render(context, port);
        shared.take(&rules);
        writer.port(
            rules
                .own
                .iter()
                .filter(|chain| !present.is(Table::Nat, chain)),
        );
        wanted.extend(rules.own.into_iter().map(|(name, _)| name));
    }
    let mut edits = Edits::default();
    let mut anew = Vec::new();
    let shared = shared.chains(context).into_iter();
    for (table, chain, tail) in shared.chain(base::fixed(context, present)) {
        let Some(difference) = present.difference(table, &chain, tail) else {
            continue;
        };
        let line = |rule: &str| (table, chain.0.clone(), rule.to_owned());
        if difference.exists && tail < chain.1.len() {
            edits
                .put
                .extend(difference.missing.iter().map(|rule| line(rule)));
        }
        if difference.editable && difference.extra.len() <= MOST_DELETIONS {
            edits
                .out
                .extend(difference.extra.iter().map(|rule| line(rule)));
        } else {
            anew.push((table, chain));
        }
    }
    let jumps = |table| base::jumps(table).filter(|jump| !present.jumps(jump));
    share(&mut writer, &edits, &anew, jumps);
    let mut gone: Vec<&str> = present
        .chains(Table::Nat)
        .filter(|chain| is_service_chain(chain) && !wanted.contains(*chain))
        .collect();
    gone.sort_by_key(|chain| (names::depth(chain), *chain));
    writer.remove(Table::Nat, &gone);
    writer.finish()
}

/// Text for what changed between two plans: the chains of those ports, and their lines in the
/// shared chains; empty where nothing of this family did. `plan` is the one after the change; of
/// the ports that are left out there is nothing to change.
pub fn change(context: &Context<'_>, plan: &Plan, delta: &Delta) -> String {
    let mut writer = Writer::new(context.legacy);
    let mut edits = Edits::default();
    let mut gone = Vec::new();
    for change in &delta.ports {
        let render = |port: &Option<std::sync::Arc<PortPlan>>| {
            port.as_ref()
                .filter(|port| port.v6 == context.v6 && !context.without.contains(&port.id()))
                .map(|port| port::render(context, port))
                .unwrap_or_default()
        };
        let (was, is) = (render(&change.was), render(&change.is));
        edits.take(&was, &is);
        writer.port(is.own.iter().filter(|chain| !was.own.contains(chain)));
        gone.extend(
            was.own
                .into_iter()
                .map(|(name, _)| name)
                .filter(|name| !is.own.iter().any(|(other, _)| other == name)),
        );
    }
    let mut anew = Vec::new();
    if edits.out.len() > MOST_DELETIONS {
        let mut shared = Shared::new();
        for port in context.ports(plan) {
            shared.take(&port::render(context, port));
        }
        let chains = shared.chains(context).into_iter();
        anew.extend(chains.map(|(table, chain, _)| (table, chain)));
        edits.out.clear();
    }
    share(&mut writer, &edits, &anew, |_| std::iter::empty());
    let mut gone: Vec<&str> = gone.iter().map(String::as_str).collect();
    gone.sort_by_key(|chain| (names::depth(chain), *chain));
    writer.remove(Table::Nat, &gone);
    writer.finish()
}

/// Writes shared chains so that a connection always has a way: it is led before it is no longer
/// refused, and refused before it is no longer led.
fn share<J: Iterator<Item = Jump>>(
    writer: &mut Writer,
    edits: &Edits,
    anew: &[(Table, Chain)],
    jumps: impl Fn(Table) -> J,
) {
    edits.put(Table::Nat, writer);
    edits.put(Table::Filter, writer);
    if !anew.is_empty() {
        // A chain is emptied where its section begins, not where its rules come.
        writer.close();
    }
    for table in [Table::Filter, Table::Nat] {
        for (_, (name, rules)) in anew.iter().filter(|(of, _)| *of == table) {
            writer.section(table).chain(name, rules);
        }
        edits.out(table, writer);
        for jump in jumps(table) {
            let rule = format!("-I {} {}", jump.from, jump.rule());
            writer.section(table).line(rule);
        }
    }
}

/// Text that removes everything of Services from the tables; empty where nothing is there.
///
/// KUBE-FIREWALL stays where a kubelet says that it shares it.
pub fn removal(present: &Present<'_>) -> String {
    let mut writer = Writer::new(present.is_legacy());
    let kubelet = present.has_kubelet();
    for table in Table::ALL {
        let lines: Vec<String> = base::jumps(table)
            .filter(|jump| !(kubelet && jump.to == base::FIREWALL))
            .flat_map(|jump| present.jump_lines(&jump))
            .map(|(chain, rule)| format!("-D {chain} {rule}"))
            .collect();
        if !lines.is_empty() {
            let section = writer.section(table);
            for line in lines {
                section.line(line);
            }
        }
        let mut gone: Vec<&str> = present
            .chains(table)
            .filter(|chain| base::is_own(table, chain) && !(kubelet && *chain == base::FIREWALL))
            .collect();
        gone.sort_by_key(|chain| (names::depth(chain), *chain));
        writer.remove(table, &gone);
    }
    writer.finish()
}

/// Whether a change of a chain, or of a table as a whole, may be one of what is written here.
pub fn concerns(table: &str, chain: Option<&str>) -> bool {
    let known = Table::ALL.into_iter().find(|known| known.word() == table);
    known.is_some_and(|table| {
        chain.is_none_or(|chain| {
            base::is_own(table, chain) || base::jumps(table).any(|jump| jump.from == chain)
        })
    })
}

/// Whose rules and chains lines of text are.
#[derive(Debug, Default)]
pub struct Owners {
    chains: HashMap<String, PortId>,
    shared: HashMap<String, PortId>,
}

impl Owners {
    /// Of all ports of the plan.
    pub fn of(context: &Context<'_>, plan: &Plan) -> Self {
        let mut owners = Self::default();
        for port in context.ports(plan) {
            let rules = port::render(context, port);
            let chains = rules.own.into_iter().map(|(name, _)| (name, port.id()));
            owners.chains.extend(chains);
            let shared = rules.shared.into_iter().map(|(_, rule)| (rule, port.id()));
            owners.shared.extend(shared);
        }
        owners
    }

    /// Whose a line for `iptables-restore` is.
    pub fn of_line(&self, line: &str) -> Option<&PortId> {
        let (chain, rule) = match line.strip_prefix(':') {
            Some(declared) => (declared.split(' ').next()?, ""),
            None => {
                let (_, rest) = line.split_once(' ')?;
                rest.split_once(' ').unwrap_or((rest, ""))
            }
        };
        self.chains.get(chain).or_else(|| self.shared.get(rule))
    }
}

/// Endpoints that a port has: what counts towards [`LARGE`].
pub fn endpoints(port: &PortPlan) -> usize {
    port.cluster.len().max(port.local.len())
}
