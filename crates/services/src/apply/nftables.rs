//! The plan to the kernel as maps of nftables.

use std::collections::BTreeMap;
use std::sync::Arc;

use linux::{Error, Event, Kernel};
use nft::{ElementKey, Family, Op, Transaction};

use super::backend::{Backend, Done};
use super::inspect::{Inspection, State};
use crate::plan::{Delta, Plan, PortChange, PortId, PortPlan, Settings};
use crate::render::nftables::{
    Change, GUARD, Rendered, SetId, TABLE, There, affinity, is_there, owns, removal, there,
};

const ROUTE_LOCALNET: &str = "net/ipv4/conf/all/route_localnet";

/// What is known to be in the kernel: what the plan renders to, less what was refused.
#[derive(Debug, Default)]
pub(crate) struct Nftables {
    rendered: Rendered,
    refused: BTreeMap<PortId, Error>,
}

impl Backend for Nftables {
    fn sync(&mut self, kernel: &mut dyn Kernel, plan: &Plan) -> Done {
        match self.whole(kernel, plan) {
            Ok(changes) => self.done(changes),
            // Somebody else may have changed what was just read.
            Err(error) if is_refusal(&error) => match self.whole(kernel, plan) {
                Ok(changes) => self.done(changes),
                Err(error) if is_refusal(&error) => self.isolate(kernel, plan),
                Err(error) => error.into(),
            },
            Err(error) => error.into(),
        }
    }

    fn update(&mut self, kernel: &mut dyn Kernel, plan: &Plan, delta: &Delta) -> Done {
        let changes = delta.ports.clone();
        let changes = self.without_refused(changes);
        let mut change = Change::of(&mut self.rendered, plan.settings(), &changes);
        let maps = affinity::concerned(&changes).into_iter();
        let maps: Vec<SetId> = maps.filter(|map| self.rendered.has(*map)).collect();
        let changed = clients(kernel, plan, &maps)
            .map(|stale| {
                for (map, clients) in stale {
                    change.forget(map, clients);
                }
            })
            .and_then(|()| make(kernel, change))
            // A packet that was under way may have noted what was gone already.
            .and_then(|changes| Ok(changes + forget(kernel, plan, &maps)?));
        match changed {
            Ok(changes) => self.done(changes),
            // It is not as thought.
            Err(_) => self.sync(kernel, plan),
        }
    }

    fn remove(&mut self, kernel: &mut dyn Kernel) -> Done {
        *self = Self::default();
        let removed = kernel
            .nft_table(Family::Inet, TABLE)
            .and_then(|have| match have {
                Some(have) if has_ours(&have) => write(kernel, &removal(&have)),
                _ => Ok(0),
            });
        match removed {
            Ok(changes) => self.done(changes),
            Err(error) => error.into(),
        }
    }

    fn concerns(&self, event: &Event) -> bool {
        match event {
            Event::Nftables { table, name } => table == TABLE && name.as_deref().is_none_or(owns),
            _ => false,
        }
    }
}

impl Nftables {
    fn done(&self, changes: usize) -> Done {
        let refused = self.refused.iter();
        Done {
            changes,
            errors: Vec::new(),
            refused: refused
                .map(|(port, error)| (port.clone(), error.clone()))
                .collect(),
        }
    }

    /// Reads what is there, and changes what differs.
    fn whole(&mut self, kernel: &mut dyn Kernel, plan: &Plan) -> Result<usize, Error> {
        self.refused.clear();
        let have = kernel.nft_owned(Family::Inet, TABLE, &owns)?;
        let guarded = have
            .as_ref()
            .is_some_and(|have| have.chains.contains_key(GUARD));
        // What the guard guards is closed before it goes, and open after it came.
        let wanted = plan.settings().node_ports_on_loopback();
        if guarded && !wanted {
            kernel.set_sysctl(ROUTE_LOCALNET, "0")?;
        }
        let (rendered, change) = Change::whole(plan.settings(), plan.ports().values(), have);
        let changes = make(kernel, change)?;
        self.rendered = rendered;
        if wanted && kernel.sysctl(ROUTE_LOCALNET)?.is_some() {
            kernel.set_sysctl(ROUTE_LOCALNET, "1")?;
        }
        let maps: Vec<SetId> = affinity::maps()
            .filter(|map| self.rendered.has(*map))
            .collect();
        Ok(changes + forget(kernel, plan, &maps)?)
    }

    /// The kernel refuses the whole: finds the ports that it refuses, and serves all others.
    fn isolate(&mut self, kernel: &mut dyn Kernel, plan: &Plan) -> Done {
        let have = match kernel.nft_owned(Family::Inet, TABLE, &owns) {
            Ok(have) => have,
            Err(error) => return error.into(),
        };
        let (there, others): (Vec<_>, Vec<_>) = plan
            .ports()
            .values()
            .cloned()
            .partition(|port| have.as_ref().is_some_and(|have| is_there(port, have)));
        let (rendered, change) = Change::whole(plan.settings(), there.iter(), have);
        let mut changes = match make(kernel, change) {
            Ok(changes) => changes,
            Err(error) => return error.into(),
        };
        self.rendered = rendered;
        changes += self.add(kernel, plan.settings(), &others);
        self.done(changes)
    }

    /// Adds ports, all at once or in halves.
    fn add(
        &mut self,
        kernel: &mut dyn Kernel,
        settings: &Settings,
        ports: &[Arc<PortPlan>],
    ) -> usize {
        let new = |port: &Arc<PortPlan>| PortChange {
            was: None,
            is: Some(Arc::clone(port)),
        };
        let changes: Vec<PortChange> = ports.iter().map(new).collect();
        let before = self.rendered.clone();
        let change = Change::of(&mut self.rendered, settings, &changes);
        match (make(kernel, change), ports) {
            (Ok(changes), _) => changes,
            (Err(error), [port]) => {
                self.rendered = before;
                self.refused.insert(port.id(), error);
                0
            }
            (Err(_), ports) => {
                self.rendered = before;
                let (some, others) = ports.split_at(ports.len() / 2);
                self.add(kernel, settings, some) + self.add(kernel, settings, others)
            }
        }
    }

    /// Nothing of a refused port is in the kernel.
    fn without_refused(&mut self, mut changes: Vec<PortChange>) -> Vec<PortChange> {
        for change in &mut changes {
            if change
                .was
                .as_ref()
                .is_some_and(|was| self.refused.remove(&was.id()).is_some())
            {
                change.was = None;
            }
        }
        changes
    }
}

/// The clients whose endpoint no longer serves them, by map.
fn clients(
    kernel: &mut dyn Kernel,
    plan: &Plan,
    maps: &[SetId],
) -> Result<Vec<(SetId, Vec<ElementKey>)>, Error> {
    let mut found = Vec::new();
    for map in maps {
        let elements = kernel.nft_dynamic(Family::Inet, TABLE, &map.to_string())?;
        found.push((*map, affinity::stale(plan, *map, elements)));
    }
    Ok(found)
}

/// Has the kernel forget them; how many they were.
fn forget(kernel: &mut dyn Kernel, plan: &Plan, maps: &[SetId]) -> Result<usize, Error> {
    let mut change = Change::default();
    for (map, clients) in clients(kernel, plan, maps)? {
        change.forget(map, clients);
    }
    make(kernel, change)
}

/// Closes what only a guard keeps others from, where the guard is there, before it goes.
pub(super) fn close_loopback(kernel: &mut dyn Kernel) -> Result<(), Error> {
    let guard = |name: &str| name == GUARD;
    let have = kernel.nft_owned(Family::Inet, TABLE, &guard)?;
    if have.is_some_and(|have| have.chains.contains_key(GUARD)) {
        kernel.set_sysctl(ROUTE_LOCALNET, "0")?;
    }
    Ok(())
}

fn has_ours(have: &nft::Compiled) -> bool {
    have.chains
        .keys()
        .chain(have.sets.keys())
        .any(|name| owns(name))
}

/// Whether the kernel found fault with what was asked for, and not with who asked, or when.
fn is_refusal(error: &Error) -> bool {
    !matches!(
        error.errno,
        None | Some(
            libc::EPERM
                | libc::EACCES
                | libc::ENOMEM
                | libc::ENOBUFS
                | libc::EAGAIN
                | libc::EINTR
                | libc::EMSGSIZE
        )
    )
}

/// Makes a change; how many changes the kernel made.
fn make(kernel: &mut dyn Kernel, change: Change) -> Result<usize, Error> {
    let transactions = change.transactions();
    let made = transactions
        .iter()
        .map(|transaction| write(kernel, transaction));
    made.sum()
}

/// Makes a transaction; how many changes it was.
fn write(kernel: &mut dyn Kernel, transaction: &Transaction) -> Result<usize, Error> {
    if transaction.is_empty() {
        return Ok(0);
    }
    kernel.nft_apply(transaction)?;
    let changes = transaction.ops.iter().map(|op| match op {
        Op::AddElements(_, elements) => elements.len(),
        Op::DeleteElements(_, keys) | Op::DestroyElements(_, keys) => keys.len(),
        _ => 1,
    });
    Ok(changes.sum())
}

/// What deviates: what a sync would change.
pub(super) fn inspect(kernel: &mut dyn Kernel, plan: &Plan) -> Result<Inspection, Error> {
    let mut found = Inspection::default();
    let have = kernel.nft_table(Family::Inet, TABLE)?;
    for (id, port) in plan.ports() {
        let there = have.as_ref().map_or(There::None, |have| there(port, have));
        let state = match there {
            There::All => State::Ok,
            There::Some => State::Different,
            There::None => State::Missing,
        };
        found.ports.insert(id.clone(), state);
    }
    let all_there = found.ports.values().all(|state| *state == State::Ok);
    let (_, change) = Change::whole(plan.settings(), plan.ports().values(), have);
    for op in change
        .transactions()
        .into_iter()
        .flat_map(|change| change.ops)
    {
        let line = match op {
            Op::AddTable => format!("table {TABLE} is missing"),
            Op::AddSet(set, _) => format!("set {set} is missing"),
            Op::AddChain(chain, _) => format!("chain {chain} is missing"),
            Op::FlushChain(chain) => format!("chain {chain} has other rules"),
            Op::DeleteChain(chain) => format!("chain {chain} is not planned"),
            Op::DeleteSet(set) => format!("set {set} is not planned"),
            // An element of a port that is not as planned is told of there.
            Op::DeleteElements(set, keys) if all_there => {
                format!("set {set} has {} elements that are not planned", keys.len())
            }
            _ => continue,
        };
        found.others.push(line);
    }
    Ok(found)
}
