//! `show`: what a node should have in its kernel, beside what it has.

mod dns;
mod policies;
pub mod services;

use std::collections::BTreeMap;
use std::net::IpAddr;

use fabric::Plan as FabricPlan;
use fabric::render::{Objects, ROUTE_PROTOCOL, render};
use ipnet::IpNet;
use lab::cluster::plan::{NodePlan, Plan as Lab, plan};
use lab::cluster::{Error, state};
use lab::paths::ClusterPaths;
use linux::{NetNs, Netlink, RouteFilter};
use serde::Serialize;

use super::{Failure, Outcome, runtime, trace};
use crate::cli::{Output, Show};
use crate::output::{self, Tone, toned};

/// One entry: what is planned, what is there.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    node: String,
    kind: &'static str,
    key: String,
    planned: Option<String>,
    kernel: Option<String>,
    ok: bool,
}

/// What a kernel has of the fabric: the same keys and words as the plan's.
type Table = BTreeMap<(&'static str, String), String>;

/// Prints plan and kernel side by side; exit 1 where they differ.
pub fn show(paths: &ClusterPaths, what: &Show, output: Output) -> Outcome {
    let spec = state::existing(paths)?;
    let lab = plan(&spec, paths);
    match what {
        Show::Routes { node } => routes(paths, &lab, node.as_deref(), output),
        Show::Services { service, node } => {
            services::show(paths, &lab, service.as_deref(), node.as_deref(), output)
        }
        Show::Dns { node } => dns::show(paths, &lab, node.as_deref(), output),
        Show::Policies { pod, node } => {
            policies::show(paths, &lab, pod.as_deref(), node.as_deref(), output)
        }
    }
}

/// The nodes asked for: one, or all.
fn nodes<'a>(
    paths: &ClusterPaths,
    lab: &'a Lab,
    name: Option<&str>,
) -> Result<Vec<&'a NodePlan>, Failure> {
    let Some(name) = name else {
        return Ok(lab.nodes.iter().collect());
    };
    let name = name.strip_prefix("node/").unwrap_or(name);
    let found = lab.nodes.iter().find(|node| node.name == name);
    let found = found.ok_or_else(|| Error::NoNode {
        cluster: paths.name.clone(),
        name: name.to_owned(),
        nodes: lab.nodes.iter().map(|node| node.name.clone()).collect(),
    })?;
    Ok(vec![found])
}

fn routes(paths: &ClusterPaths, lab: &Lab, node: Option<&str>, output: Output) -> Outcome {
    let wanted = nodes(paths, lab, node)?;
    let (cluster, config) = runtime()?.block_on(trace::known(paths))?;
    let plans = trace::plans(lab, &cluster, &config);
    let mut rows = Vec::new();
    for node in wanted {
        rows.extend(beside(node, plans.get(&node.name))?);
    }
    let good = rows.iter().all(|row| row.ok);
    if output == Output::Json {
        output::json(&rows)?;
    } else {
        print(&rows);
    }
    if good { Ok(()) } else { Err(Failure::Said) }
}

/// Plan and kernel of one node, side by side.
fn beside(node: &NodePlan, plan: Option<&FabricPlan>) -> Result<Vec<Row>, Failure> {
    let planned = plan.map(|plan| planned(&render(plan))).unwrap_or_default();
    Ok(compare(&node.name, &planned, &kernel(node)?))
}

/// What deviates on a node, in one sentence; nothing where all is as planned.
pub fn deviation(node: &NodePlan, plan: Option<&FabricPlan>) -> Option<String> {
    let rows = beside(node, plan).ok()?;
    let bad = rows.iter().filter(|row| !row.ok).count();
    let first = rows.iter().find(|row| !row.ok)?;
    let state = match (&first.planned, &first.kernel) {
        (Some(_), None) => "is missing",
        (None, Some(_)) => "is not planned",
        _ => "is different",
    };
    let more = if bad > 1 {
        format!(" and {} more", bad - 1)
    } else {
        String::new()
    };
    Some(format!(
        "{}: {} {} {state}{more}: flatnet show routes {}",
        node.name, first.kind, first.key, node.name
    ))
}

fn way(gateway: Option<IpAddr>, link: &str, onlink: bool) -> String {
    let via = gateway
        .map(|gateway| format!("via {gateway} "))
        .unwrap_or_default();
    format!("{via}dev {link}{}", if onlink { " onlink" } else { "" })
}

fn planned(objects: &Objects) -> Table {
    let mut table = Table::new();
    for (range, route) in &objects.routes {
        let words = way(Some(route.gateway), &route.link, route.onlink);
        table.insert(("route", range.to_string()), words);
    }
    for ((link, ip), mac) in &objects.neighbours {
        table.insert(
            ("neighbour", format!("{ip} dev {link}")),
            format!("lladdr {mac}"),
        );
    }
    for ((link, mac), ip) in &objects.fdb {
        table.insert(("fdb", format!("{mac} dev {link}")), format!("dst {ip}"));
    }
    table
}

fn kernel(node: &NodePlan) -> Result<Table, Failure> {
    let failed = |error: linux::Error| Failure::Failed(format!("node {}: {error}", node.name));
    let netns = NetNs::named(&node.namespace.name).map_err(failed)?;
    let mut kernel = Netlink::open_in(&netns).map_err(failed)?;
    let links = kernel.links().map_err(failed)?;
    let name = |index: Option<u32>| {
        let link = links.iter().find(|link| Some(link.index) == index);
        link.map_or("?", |link| link.name.as_str())
    };
    let mut table = Table::new();
    for route in kernel.routes(RouteFilter::main()).map_err(failed)? {
        if route.protocol == ROUTE_PROTOCOL && route.gateway.is_some() {
            let words = way(route.gateway, name(route.dev), route.onlink);
            table.insert(("route", route.dst.to_string()), words);
        }
    }
    let tunnels = links.iter().filter(|link| {
        [fabric::plan::VXLAN_V4, fabric::plan::VXLAN_V6].contains(&link.name.as_str())
    });
    for link in tunnels {
        for neighbour in kernel.neighbours(Some(link.index)).map_err(failed)? {
            // Multicast groups are the kernel's own.
            if let Some(mac) = neighbour.mac.filter(|_| !is_group(neighbour.ip)) {
                table.insert(
                    ("neighbour", format!("{} dev {}", neighbour.ip, link.name)),
                    format!("lladdr {mac}"),
                );
            }
        }
        for entry in kernel.fdb(link.index).map_err(failed)? {
            if let Some(ip) = entry.dst {
                table.insert(
                    ("fdb", format!("{} dev {}", entry.mac, link.name)),
                    format!("dst {ip}"),
                );
            }
        }
    }
    Ok(table)
}

fn is_group(ip: IpAddr) -> bool {
    ip.is_multicast() || IpNet::from(ip).addr().is_unspecified()
}

fn compare(node: &str, planned: &Table, kernel: &Table) -> Vec<Row> {
    let mut keys: Vec<&(&'static str, String)> = planned.keys().chain(kernel.keys()).collect();
    keys.sort();
    keys.dedup();
    let row = |key: &(&'static str, String)| {
        let (planned, kernel) = (planned.get(key).cloned(), kernel.get(key).cloned());
        Row {
            node: node.to_owned(),
            kind: key.0,
            key: key.1.clone(),
            ok: planned == kernel,
            planned,
            kernel,
        }
    };
    keys.into_iter().map(row).collect()
}

fn print(rows: &[Row]) {
    let lines = rows.iter().map(|row| {
        let state = match (&row.planned, &row.kernel) {
            (Some(_), None) => toned("missing", Tone::Bad),
            (None, Some(_)) => toned("not planned", Tone::Bad),
            _ if row.ok => toned("ok", Tone::Good),
            _ => toned("different", Tone::Bad),
        };
        let words = |side: &Option<String>| side.clone().unwrap_or_else(|| "-".into());
        vec![
            row.node.clone(),
            row.kind.to_owned(),
            row.key.clone(),
            words(&row.planned),
            words(&row.kernel),
            state,
        ]
    });
    output::table(
        &["NODE", "KIND", "KEY", "PLANNED", "KERNEL", "STATE"],
        lines.collect(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_missing_not_planned_or_different() {
        let table = |all: &[(&str, &str)]| -> Table {
            all.iter()
                .map(|(key, words)| (("route", (*key).to_owned()), (*words).to_owned()))
                .collect()
        };
        let rows = compare(
            "node1",
            &table(&[("a", "x"), ("b", "x"), ("c", "x")]),
            &table(&[("a", "x"), ("b", "y"), ("d", "x")]),
        );
        let ok: Vec<(&str, bool)> = rows.iter().map(|row| (row.key.as_str(), row.ok)).collect();
        assert_eq!(ok, [("a", true), ("b", false), ("c", false), ("d", false)]);
    }
}
