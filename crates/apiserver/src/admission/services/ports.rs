//! Node ports and health check ports.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;

use objects::{Kind, Object, Status};

use super::{TRIES, has_health_port, has_node_ports, invalid, number, text};
use crate::context::Ctx;
use crate::store::Store;
use crate::verbs::meta;

/// The ports that one write may take: a port of a node is one Service's, whatever the protocol.
struct Book<'a> {
    range: &'a RangeInclusive<u16>,
    taken: HashSet<u64>,
}

impl<'a> Book<'a> {
    /// Ports of all services but the one of that key.
    fn open(range: &'a RangeInclusive<u16>, store: &Store, but: &str) -> Self {
        let mut taken = HashSet::new();
        for (key, entry) in store.list("/services/").items {
            // Most services have none: what cannot have one is not parsed.
            let text = std::str::from_utf8(&entry.data).unwrap_or_default();
            if key.as_ref() != but && text.contains("odePort\":") {
                taken.extend(ports_of(&entry.object()));
            }
        }
        Self { range, taken }
    }

    fn take(&mut self, port: u64) -> Result<(), String> {
        if !u16::try_from(port).is_ok_and(|port| self.range.contains(&port)) {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                self.range.start(),
                self.range.end()
            ));
        }
        if self.taken.insert(port) {
            Ok(())
        } else {
            Err("provided port is already allocated".into())
        }
    }

    /// A free port, from the part that is not kept for static use as long as there is one.
    fn next(&mut self) -> Option<u64> {
        let (start, end) = (*self.range.start(), *self.range.end());
        let size = end.saturating_sub(start) + 1;
        // Kubernetes keeps min(max(16, size/32), 128) ports for static use.
        let kept = start.saturating_add((size / 32).clamp(16, 128).min(size / 2));
        let free = |port: &u16| !self.taken.contains(&u64::from(*port));
        let found = (0..TRIES)
            .map(|_| rand::random_range(kept..=end))
            .find(free)
            .or_else(|| (kept..=end).chain(start..kept).find(free))?;
        self.taken.insert(found.into());
        Some(found.into())
    }
}

/// Node ports and the health check port of a service.
fn ports_of(service: &Object) -> HashSet<u64> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let mut all: HashSet<u64> = ports.map(|port| number(&port["nodePort"])).collect();
    all.insert(number(&service["spec"]["healthCheckNodePort"]));
    all.remove(&0);
    all
}

/// Gives node ports and the health check port, or checks the ones asked for.
pub(super) fn allocate(
    ctx: &Ctx,
    kind: &Kind,
    old: Option<&Object>,
    new: &mut Object,
) -> Result<(), Status> {
    if !has_node_ports(new) {
        return Ok(());
    }
    let key = format!(
        "/services/{}/{}",
        meta::get(new, "namespace"),
        meta::get(new, "name")
    );
    let mut book = Book::open(&ctx.settings.node_ports, &ctx.store, &key);
    // What it has already needs no asking.
    let mut mine: HashSet<u64> = old.map(ports_of).unwrap_or_default();
    book.taken.extend(&mine);
    node_ports(&mut book, &mut mine, kind, new)?;
    health_port(&mut book, &mine, kind, old, new)
}

fn node_ports(
    book: &mut Book<'_>,
    mine: &mut HashSet<u64>,
    kind: &Kind,
    new: &mut Object,
) -> Result<(), Status> {
    let given =
        text(new, "type") == "NodePort" || new["spec"]["allocateLoadBalancerNodePorts"] != false;
    let mut ports = new["spec"]["ports"].as_array().cloned().unwrap_or_default();
    // Ports of one number, such as DNS over TCP and UDP, share a node port.
    let mut by_number: BTreeMap<u64, u64> = BTreeMap::new();
    for (index, port) in ports.iter().enumerate() {
        let asked = number(&port["nodePort"]);
        if asked == 0 {
            continue;
        }
        by_number.entry(number(&port["port"])).or_insert(asked);
        if mine.insert(asked) {
            book.take(asked).map_err(|why| {
                let field = format!("spec.ports[{index}].nodePort");
                invalid(kind, new, &field, format!("Invalid value: {asked}: {why}"))
            })?;
        }
    }
    for port in ports.iter_mut().filter(|_| given) {
        if number(&port["nodePort"]) != 0 {
            continue;
        }
        let wanted = number(&port["port"]);
        let free = match by_number.get(&wanted) {
            Some(shared) => *shared,
            None => book
                .next()
                .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?,
        };
        by_number.insert(wanted, free);
        port["nodePort"] = free.into();
    }
    if new["spec"]["ports"].is_array() {
        new["spec"]["ports"] = ports.into();
    }
    Ok(())
}

fn health_port(
    book: &mut Book<'_>,
    mine: &HashSet<u64>,
    kind: &Kind,
    old: Option<&Object>,
    new: &mut Object,
) -> Result<(), Status> {
    if !has_health_port(new) {
        return Ok(());
    }
    let asked = number(&new["spec"]["healthCheckNodePort"]);
    let had = old
        .filter(|old| has_health_port(old))
        .map_or(0, |old| number(&old["spec"]["healthCheckNodePort"]));
    if had != 0 && asked != had {
        let message = format!("Invalid value: {asked}: field is immutable");
        return Err(invalid(kind, new, "spec.healthCheckNodePort", message));
    }
    if asked == 0 {
        let free = book.next().ok_or_else(|| {
            Status::internal("failed to allocate a HealthCheck NodePort: range is full")
        })?;
        new["spec"]["healthCheckNodePort"] = free.into();
    } else if had == 0 {
        let free = if mine.contains(&asked) {
            Err("provided port is already allocated".to_owned())
        } else {
            book.take(asked)
        };
        free.map_err(|why| {
            Status::internal(format!(
                "failed to allocate requested HealthCheck NodePort {asked}: {why}"
            ))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_for_static_use_are_given_last() {
        let range = 30000..=30099;
        let mut book = Book {
            range: &range,
            taken: HashSet::new(),
        };
        let first: Vec<u64> = (0..84).filter_map(|_| book.next()).collect();
        assert!(first.iter().all(|port| (30016..=30099).contains(port)));
        assert!(book.next().is_some_and(|port| port < 30016));
    }
}
