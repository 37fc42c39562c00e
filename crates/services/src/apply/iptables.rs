//! The plan to the kernel as kube-proxy's iptables chains.

use std::collections::BTreeSet;

use linux::{Error, Event, Kernel};
use nft::IpFamily;

use super::backend::{Backend, Done};
use super::inspect::{Inspection, State};
use crate::plan::{Delta, Plan, PortId, PortPlan};
use crate::render::iptables::{
    Context, LARGE, Owners, Present, Table, chain_name, change, concerns, endpoints, first_table,
    removal, whole,
};

/// So many ports are left out of one sync for being refused; with more, something else is wrong.
const MOST_REFUSED: usize = 32;

/// Lets programs on this node reach node ports at 127.0.0.1: packets from there may leave.
const ROUTE_LOCALNET: &str = "net/ipv4/conf/all/route_localnet";
const LIBERAL: &str = "net/netfilter/nf_conntrack_tcp_be_liberal";

/// What is known to be in the kernel.
#[derive(Debug, Default)]
pub(crate) struct Iptables {
    v4: Known,
    v6: Known,
}

/// The same of one family.
#[derive(Debug, Default)]
struct Known {
    /// The cluster has this family.
    used: bool,
    liberal: bool,
    legacy: bool,
    /// In the plan: a large cluster's rules have no comments.
    endpoints: usize,
    refused: Vec<(PortId, Error)>,
    without: BTreeSet<PortId>,
}

impl Backend for Iptables {
    fn sync(&mut self, kernel: &mut dyn Kernel, plan: &Plan) -> Done {
        let mut done = Done::default();
        for v6 in [false, true] {
            let result = if self.family(v6).looks_at(plan, v6) {
                self.sync_family(kernel, plan, v6)
            } else {
                self.remove_family(kernel, v6)
            };
            self.take(result, &mut done);
        }
        self.tell_refused(&mut done);
        done
    }

    fn update(&mut self, kernel: &mut dyn Kernel, plan: &Plan, delta: &Delta) -> Done {
        let mut done = Done::default();
        for v6 in [false, true] {
            let is_of = |port: &PortPlan| port.v6 == v6;
            let mut ports = delta
                .ports
                .iter()
                .flat_map(|change| [&change.was, &change.is]);
            if !ports.any(|port| port.as_deref().is_some_and(is_of)) {
                continue;
            }
            let known = self.family(v6);
            // What was refused may be right now; a new family has no chains yet; and if somebody
            // changed a chain under us, a look at all of them tells.
            let refused = delta.ports.iter().any(|change| {
                let id = change.is.as_ref().or(change.was.as_ref()).map(|p| p.id());
                id.is_some_and(|id| known.without.contains(&id))
            });
            let result = if refused || !known.used {
                known.used = true;
                self.sync_family(kernel, plan, v6)
            } else {
                self.update_family(kernel, plan, delta, v6)
                    .or_else(|_| self.sync_family(kernel, plan, v6))
            };
            self.take(result, &mut done);
        }
        self.tell_refused(&mut done);
        done
    }

    fn remove(&mut self, kernel: &mut dyn Kernel) -> Done {
        let mut done = Done::default();
        for v6 in [false, true] {
            let result = self.remove_family(kernel, v6);
            self.take(result, &mut done);
        }
        done
    }

    /// iptables over `nf_tables` tells of changes; of the legacy kind nothing is heard. Our own
    /// are passed over before they come here.
    fn concerns(&self, event: &Event) -> bool {
        let Event::Nftables { table, name } = event else {
            return false;
        };
        concerns(table, name.as_deref())
    }
}

impl Iptables {
    fn family(&mut self, v6: bool) -> &mut Known {
        if v6 { &mut self.v6 } else { &mut self.v4 }
    }

    fn take(&mut self, result: Result<usize, Error>, done: &mut Done) {
        match result {
            Ok(changes) => done.changes += changes,
            Err(error) => done.errors.push(error),
        }
    }

    fn tell_refused(&self, done: &mut Done) {
        for known in [&self.v4, &self.v6] {
            done.refused.extend(known.refused.iter().cloned());
        }
    }

    fn sync_family(
        &mut self,
        kernel: &mut dyn Kernel,
        plan: &Plan,
        v6: bool,
    ) -> Result<usize, Error> {
        let liberal = kernel.sysctl(LIBERAL)?;
        let known = self.family(v6);
        known.liberal = liberal.is_some_and(|value| value.trim() != "0");
        known.endpoints = (plan.ports().values())
            .filter(|port| port.v6 == v6)
            .map(|port| endpoints(port))
            .sum();
        known.refused.clear();
        known.without.clear();
        let mut changes = 0;
        loop {
            let mut saved = kernel.iptables_save(ip_family(v6))?;
            if saved.is_empty() {
                restore(kernel, v6, &first_table())?;
                saved = kernel.iptables_save(ip_family(v6))?;
            }
            let present = Present::parse(&saved);
            let known = self.family(v6);
            known.legacy = present.is_legacy();
            let context = known.context(plan, v6);
            let text = whole(&context, plan, &present);
            // What the guard guards is closed before it goes, and open after it came.
            let open = !v6 && plan.settings().node_ports_on_loopback();
            if !v6 && !open && present.guards_loopback() {
                kernel.set_sysctl(ROUTE_LOCALNET, "0")?;
            }
            let error = match restore(kernel, v6, &text) {
                Ok(()) if open && kernel.sysctl(ROUTE_LOCALNET)?.is_some() => {
                    kernel.set_sysctl(ROUTE_LOCALNET, "1")?;
                    return Ok(changes + count(&text));
                }
                Ok(()) => return Ok(changes + count(&text)),
                Err(error) => error,
            };
            // What stands before the refused line in other sections is there by now.
            changes += 1;
            let culprit = refused_line(&error)
                .and_then(|line| Owners::of(&context, plan).of_line(line).cloned());
            let known = self.family(v6);
            match culprit {
                Some(port) if known.refused.len() < MOST_REFUSED => {
                    known.without.insert(port.clone());
                    known.refused.push((port, error));
                }
                _ => return Err(error),
            }
        }
    }

    fn update_family(
        &mut self,
        kernel: &mut dyn Kernel,
        plan: &Plan,
        delta: &Delta,
        v6: bool,
    ) -> Result<usize, Error> {
        let known = self.family(v6);
        let count_of = |port: &Option<std::sync::Arc<PortPlan>>| {
            let port = port.as_deref().filter(|port| port.v6 == v6);
            port.map_or(0, endpoints)
        };
        for change in &delta.ports {
            known.endpoints += count_of(&change.is);
            known.endpoints = known.endpoints.saturating_sub(count_of(&change.was));
        }
        let text = change(&known.context(plan, v6), plan, delta);
        restore(kernel, v6, &text)?;
        Ok(count(&text))
    }

    fn remove_family(&mut self, kernel: &mut dyn Kernel, v6: bool) -> Result<usize, Error> {
        *self.family(v6) = Known::default();
        let saved = kernel.iptables_save(ip_family(v6))?;
        let text = removal(&Present::parse(&saved));
        restore(kernel, v6, &text)?;
        Ok(count(&text))
    }
}

impl Known {
    /// Whether the cluster has this family, from here on.
    fn looks_at(&mut self, plan: &Plan, v6: bool) -> bool {
        let settings = plan.settings();
        let mut addresses = (settings.node_ips.iter().copied())
            .chain(settings.service_cidrs.iter().map(ipnet::IpNet::addr));
        self.used = addresses.any(|ip| ip.is_ipv6() == v6)
            || plan.ports().values().any(|port| port.v6 == v6);
        self.used
    }

    fn context<'a>(&'a self, plan: &'a Plan, v6: bool) -> Context<'a> {
        Context {
            settings: plan.settings(),
            v6,
            liberal: self.liberal,
            legacy: self.legacy,
            large: self.endpoints > LARGE,
            without: &self.without,
        }
    }
}

/// Closes what only a guard keeps others from, where the guard is ours, before it goes.
pub(super) fn close_loopback(kernel: &mut dyn Kernel) -> Result<(), Error> {
    let saved = kernel.iptables_save(IpFamily::V4)?;
    if Present::parse(&saved).guards_loopback() {
        kernel.set_sysctl(ROUTE_LOCALNET, "0")?;
    }
    Ok(())
}

fn count(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with('-')).count()
}

/// The line that an error of `iptables-restore` quotes.
fn refused_line(error: &Error) -> Option<&str> {
    let (_, quoted) = error.cause.rsplit_once(": `")?;
    quoted.strip_suffix('`')
}

fn restore(kernel: &mut dyn Kernel, v6: bool, text: &str) -> Result<(), Error> {
    if text.is_empty() {
        return Ok(());
    }
    kernel.iptables_restore(ip_family(v6), text)
}

fn ip_family(v6: bool) -> IpFamily {
    if v6 { IpFamily::V6 } else { IpFamily::V4 }
}

/// What deviates: what a sync would write.
pub(super) fn inspect(kernel: &mut dyn Kernel, plan: &Plan) -> Result<Inspection, Error> {
    let mut found = Inspection::default();
    let liberal = kernel.sysctl(LIBERAL)?;
    for v6 in [false, true] {
        let mut known = Known {
            liberal: liberal.as_deref().is_some_and(|value| value.trim() != "0"),
            ..Known::default()
        };
        if !known.looks_at(plan, v6) {
            continue;
        }
        let ports = plan.ports().values().filter(|port| port.v6 == v6);
        known.endpoints = ports.clone().map(|port| endpoints(port)).sum();
        let saved = kernel.iptables_save(ip_family(v6))?;
        let present = Present::parse(&saved);
        let context = known.context(plan, v6);
        found.ports.extend(ports.map(|port| (port.id(), State::Ok)));
        let text = whole(&context, plan, &present);
        let owners = if text.is_empty() {
            Owners::default()
        } else {
            Owners::of(&context, plan)
        };
        for line in text.lines() {
            if line.starts_with(['*', '#']) || line == "COMMIT" {
                continue;
            }
            match owners.of_line(line) {
                Some(port) => {
                    let chain = chain_name(&port.0);
                    let there = present.rules(Table::Nat, &chain).is_some();
                    let state = if there {
                        State::Different
                    } else {
                        State::Missing
                    };
                    found.ports.insert(port.clone(), state);
                }
                None => found.others.push(line.to_owned()),
            }
        }
    }
    Ok(found)
}
