//! `check`: every path there should be, tried; and that what policies deny does not pass.

mod denied;
mod names;
mod paths;
mod pods;
mod probe;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use lab::cluster::plan::{NodePlan, Plan, plan};
use lab::cluster::spec::ClusterSpec;
use lab::cluster::{state, underlay};
use lab::paths::ClusterPaths;
use linux::NetNs;
use model::{Cluster, Protocol};
use serde::Serialize;
use tokio::task::JoinSet;

use self::denied::{Fate, Fates, Way};
use self::paths::{End, Kind, Path, Place};
use self::pods::Pods;
use self::probe::{Station, Tried};
use self::services::{Outcome, Try};
use super::{Failure, runtime, show, trace};
use crate::cli::{Check, Output};
use crate::output::{self, Tone, short, toned};

/// How many paths are tried at once.
const AT_ONCE: usize = 32;

/// One path and how it went.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    path: Kind,
    family: &'static str,
    from: String,
    to: String,
    ok: bool,
    tcp_ms: Option<f64>,
    udp_ms: Option<f64>,
    mtu: Option<u32>,
    /// By which policies it does not pass, as it should be.
    denied: Option<String>,
    causes: Vec<String>,
}

/// Tries every path; exit 1 if one fails.
pub fn check(paths: &ClusterPaths, check: &Check, output: Output) -> super::Outcome {
    let spec = state::existing(paths)?;
    let plan = plan(&spec, paths);
    let start = Instant::now();
    let rows = runtime()?.block_on(run(paths, &spec, &plan, check))?;
    let bad = rows.iter().filter(|row| !row.ok).count();
    let denied = rows.iter().filter(|row| row.ok && row.denied.is_some());
    let denied = match denied.count() {
        0 => String::new(),
        count => format!(", {count} denied by policies as they should be"),
    };
    if output == Output::Json {
        output::json(&rows)?;
    } else {
        print(&rows);
        let words = if bad == 0 {
            toned("all is well", Tone::Good)
        } else {
            toned(&format!("{bad} failed"), Tone::Bad)
        };
        output::print(&format!(
            "\n{} paths tried in {}: {words}{denied}\n",
            rows.len(),
            short(start.elapsed())
        ));
    }
    if bad == 0 { Ok(()) } else { Err(Failure::Said) }
}

async fn run(
    paths: &ClusterPaths,
    spec: &ClusterSpec,
    plan: &Plan,
    check: &Check,
) -> Result<Vec<Row>, Failure> {
    let client = api::client(Some(&paths.kubeconfig()), "flatnet-check").await?;
    let nodes: Vec<String> = plan.nodes.iter().map(|node| node.name.clone()).collect();
    let pods = Pods::make(&client, &nodes).await?;
    let rows = try_all(
        paths,
        spec,
        plan,
        &pods,
        Duration::from_secs(check.timeout.max(1)),
    )
    .await;
    pods.clean(check.keep).await?;
    rows
}

async fn try_all(
    paths: &ClusterPaths,
    spec: &ClusterSpec,
    plan: &Plan,
    pods: &Pods,
    patience: Duration,
) -> Result<Vec<Row>, Failure> {
    let mut servers = JoinSet::new();
    let (mut ends, mut stations) = (Vec::new(), Vec::new());
    let mut rows = Vec::new();
    for (end, netns) in all_ends(paths, spec, plan, pods) {
        let link = "eth0";
        let opened =
            netns.and_then(|netns| Station::open(netns, link, &end.addresses, &mut servers));
        match opened {
            Ok(station) => {
                ends.push(end);
                stations.push(station);
            }
            Err(why) => rows.push(unreachable(&end, why)),
        }
    }
    let wanted = paths::paths(&ends, plan.nodes.len());
    let cluster = trace::known(paths).await.map(|(cluster, _)| cluster);
    let cluster = cluster.unwrap_or_default();
    let failed = |tried: &Tried, path: &Path, fates: &Fates| {
        let wrong = |seen| paths::wrong_source(path, &ends, seen).is_some();
        !why(tried, fates).is_empty() || tried.seen.is_some_and(wrong)
    };
    let start = Instant::now();
    let tries = futures::stream::iter(wanted.into_iter().map(|path| {
        let (from, to) = (&stations[path.from], &stations[path.to]);
        let fates = fates(&cluster, &path, &ends, to);
        let patience = fates.patience(patience);
        // Again while the nodes may still be following a change of the fabric, each at its own
        // time.
        async move {
            loop {
                let tried = from.call(to, path.v6, patience).await;
                if !failed(&tried, &path, &fates) || start.elapsed() > services::SETTLE {
                    return (tried, path, fates);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }));
    let mut tried: Vec<(Tried, Path, Fates)> = tries.buffer_unordered(AT_ONCE).collect().await;
    tried.sort_by_key(|(_, path, _)| (path.v6, path.kind as u8, path.from, path.to));
    let faults = if tried
        .iter()
        .any(|(tried, path, fates)| failed(tried, path, fates))
    {
        faults(paths, plan).await
    } else {
        BTreeMap::new()
    };
    rows.extend(
        tried
            .into_iter()
            .map(|(tried, path, fates)| row(&path, tried, &fates, &ends, &faults)),
    );
    for (end, station) in ends.iter().zip(&stations) {
        if matches!(end.place, Place::Pod(_))
            && let Err(why) = station.serve(services::TARGET, &mut servers)
        {
            rows.push(unreachable(end, why));
        }
    }
    let nodes: Vec<String> = plan.nodes.iter().map(|node| node.name.clone()).collect();
    let made = services::make(&pods.client, &nodes, &ends).await?;
    follow(paths, plan).await;
    let unaddressed = services::unaddressed(&made);
    rows.extend(unaddressed.map(|name| Row {
        path: Kind::LoadBalancer,
        family: "-",
        from: "client".into(),
        to: format!("svc/{name}"),
        ok: false,
        tcp_ms: None,
        udp_ms: None,
        mtu: None,
        denied: None,
        causes: vec!["it got no address; see: kubectl get loadbalancerpools".into()],
    }));
    let api: Vec<IpAddr> = spec
        .service_cidrs
        .first()
        .and_then(|range| range.hosts().next())
        .into_iter()
        .collect();
    let one = nodes
        .first()
        .map(|node| format!("pod/{}", pods::names(node)[1]));
    let wanted = services::tries(&ends, &made, &api, &one.unwrap_or_default());
    let wanted = wanted.into_iter().map(|each| {
        let fates = each.fates(&cluster, &ends);
        (each, fates)
    });
    rows.extend(try_services(&ends, &stations, wanted, patience).await);
    if let Ok((cluster, config)) = trace::known(paths).await {
        rows.extend(names::rows(paths, plan, pods, (&cluster, &config), patience).await);
    }
    Ok(rows)
}

/// What policies say about a path between two ends.
fn fates(cluster: &Cluster, path: &Path, ends: &[End], to: &Station) -> Fates {
    let fate = |target: Option<SocketAddr>, protocol| -> Fate {
        let ends_at: Vec<SocketAddr> = target.into_iter().collect();
        let way = Way {
            own: denied::own(cluster, &ends[path.from], path.v6),
            through: Vec::new(),
            leaves_for: ends_at.clone(),
            ends_at,
        };
        way.fate(cluster, protocol)
    };
    Fates {
        tcp: fate(to.answers_tcp(path.v6), Protocol::Tcp),
        udp: fate(to.answers_udp(path.v6), Protocol::Udp),
    }
}

/// How long the nodes may take to follow the Services just made.
const FOLLOW: Duration = Duration::from_secs(5);

/// Waits until every node serves the check's Services: a connection begun before is lost, for
/// connection tracking remembers where its first packet went.
async fn follow(paths: &ClusterPaths, plan: &Plan) {
    let start = Instant::now();
    while start.elapsed() < FOLLOW {
        if let Ok((cluster, config)) = trace::known(paths).await {
            let plans = trace::services(plan, &cluster, &config);
            let follows = |node: &NodePlan| {
                let plan = plans.get(&node.name);
                plan.is_none_or(|plan| {
                    show::services::follows(node, plan, &config, pods::NAMESPACE)
                })
            };
            if plan.nodes.iter().all(follows) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every Service from every place.
async fn try_services(
    ends: &[End],
    stations: &[Station],
    wanted: impl Iterator<Item = (Try, Fates)>,
    patience: Duration,
) -> Vec<Row> {
    let start = Instant::now();
    let tries = futures::stream::iter(wanted.map(|(each, fates)| async move {
        let patience = fates.patience(patience);
        let station = &stations[each.from];
        let outcome = each.run(station, ends, start, patience, &fates).await;
        (each, outcome)
    }));
    let mut tried: Vec<(Try, Outcome)> = tries.buffer_unordered(AT_ONCE).collect().await;
    tried.sort_by_key(|(each, _)| (each.v6, each.kind as u8, each.to.clone(), each.from));
    let ms = |took: Option<Duration>| took.map(|took| took.as_secs_f64() * 1000.0);
    tried
        .into_iter()
        .map(|(each, mut outcome)| {
            let from = ends[each.from].name.clone();
            if !outcome.causes.is_empty() && each.kind != Kind::Api {
                outcome.causes.push("see: flatnet show services".to_owned());
            }
            Row {
                path: each.kind,
                family: if each.v6 { "IPv6" } else { "IPv4" },
                from,
                to: each.to,
                ok: outcome.causes.is_empty(),
                tcp_ms: ms(outcome.tcp),
                udp_ms: ms(outcome.udp),
                mtu: None,
                denied: outcome.denied,
                causes: outcome.causes,
            }
        })
        .collect()
}

/// Every end: pods, nodes and the client, with the namespace to enter.
fn all_ends(
    paths: &ClusterPaths,
    spec: &ClusterSpec,
    plan: &Plan,
    pods: &Pods,
) -> Vec<(End, Result<NetNs, String>)> {
    let named = |name: &str| NetNs::named(name).map_err(|error| error.to_string());
    let mut all = Vec::new();
    for (number, node) in plan.nodes.iter().enumerate() {
        for name in pods::names(&node.name) {
            let found = pods
                .found
                .get(&name)
                .cloned()
                .unwrap_or_else(|| Err("not made".into()));
            let addresses = found.as_ref().map(pod_addresses).unwrap_or_default();
            let netns = found.and_then(|pod| {
                pod_netns(paths, &node.name, pod.metadata.uid.as_deref().unwrap_or(""))
            });
            let end = End {
                name: format!("pod/{name}"),
                place: Place::Pod(number),
                addresses,
            };
            all.push((end, netns));
        }
        let end = End {
            name: format!("node/{}", node.name),
            place: Place::Node(number),
            addresses: families(spec, node.cable.addresses.iter().map(|net| net.addr())),
        };
        all.push((end, named(&node.namespace.name)));
    }
    let outside = plan.client_cable.addresses.iter().map(|net| net.addr());
    let end = End {
        name: "client".into(),
        place: Place::Outside,
        addresses: families(spec, outside),
    };
    all.push((end, named(&plan.client.name)));
    all
}

fn families(spec: &ClusterSpec, addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    addresses
        .filter(|address| {
            if address.is_ipv6() {
                spec.has_v6()
            } else {
                spec.has_v4()
            }
        })
        .collect()
}

fn pod_addresses(pod: &k8s_openapi::api::core::v1::Pod) -> Vec<IpAddr> {
    let ips = pod
        .status
        .iter()
        .flat_map(|status| status.pod_ips.iter().flatten());
    ips.filter_map(|ip| ip.ip.parse().ok()).collect()
}

/// The network namespace of a pod.
pub fn pod_netns(paths: &ClusterPaths, node: &str, uid: &str) -> Result<NetNs, String> {
    let folder = paths.node(node).pods().join(uid);
    let state = lab::shim::read_state(&folder)
        .ok_or_else(|| format!("no shim answers in {}", folder.display()))?;
    let pid = u32::try_from(state.pause_pid).map_err(|error| error.to_string())?;
    NetNs::of_process(pid).map_err(|error| error.to_string())
}

/// What is wrong with nodes that would explain a failure, with the next step.
async fn faults(paths: &ClusterPaths, plan: &Plan) -> BTreeMap<usize, String> {
    let plans = match trace::known(paths).await {
        Ok((cluster, config)) => trace::plans(plan, &cluster, &config),
        Err(_) => BTreeMap::new(),
    };
    let fault = |node: &NodePlan| {
        if !underlay::cable_is_up(plan, node) {
            return Some(format!(
                "{} is cut off: flatnet node join {}",
                node.name, node.name
            ));
        }
        show::deviation(node, plans.get(&node.name))
    };
    let each = plan.nodes.iter().enumerate();
    each.filter_map(|(number, node)| Some((number, fault(node)?)))
        .collect()
}

fn unreachable(end: &End, why: String) -> Row {
    let kind = match end.place {
        Place::Pod(_) => Kind::SameNode,
        Place::Node(_) => Kind::ToNode,
        Place::Outside => Kind::Outside,
    };
    Row {
        path: kind,
        family: "-",
        from: end.name.clone(),
        to: "anywhere".into(),
        ok: false,
        tcp_ms: None,
        udp_ms: None,
        mtu: None,
        denied: None,
        causes: vec![format!("{}: {why}", end.name)],
    }
}

/// Why a try did not go as it should; what fails for one reason is said once.
fn why(tried: &Tried, fates: &Fates) -> Vec<String> {
    let (tcp, udp) = (fates.tcp.wrong(&tried.tcp), fates.udp.wrong(&tried.udp));
    if let (Some(tcp), Some(udp)) = (&tcp, &udp) {
        return if tcp == udp {
            vec![tcp.clone()]
        } else {
            vec![format!("TCP: {tcp}"), format!("UDP: {udp}")]
        };
    }
    let mut causes: Vec<String> = tcp.map(|why| format!("TCP: {why}")).into_iter().collect();
    match udp {
        Some(why) => causes.push(format!("UDP: {why}")),
        None => causes.extend(fates.udp.wrong(&tried.mtu)),
    }
    causes
}

fn row(
    path: &Path,
    tried: Tried,
    fates: &Fates,
    ends: &[End],
    faults: &BTreeMap<usize, String>,
) -> Row {
    let mut causes = why(&tried, fates);
    let ms = |took: &Duration| took.as_secs_f64() * 1000.0;
    causes.extend(
        tried
            .seen
            .and_then(|seen| paths::wrong_source(path, ends, seen)),
    );
    if !causes.is_empty() {
        let on = |end: &End| match end.place {
            Place::Pod(node) | Place::Node(node) => Some(node),
            Place::Outside => None,
        };
        let both = BTreeSet::from([on(&ends[path.from]), on(&ends[path.to])]);
        causes.extend(
            both.into_iter()
                .flatten()
                .filter_map(|node| faults.get(&node).cloned()),
        );
    }
    Row {
        path: path.kind,
        family: if path.v6 { "IPv6" } else { "IPv4" },
        from: ends[path.from].name.clone(),
        to: ends[path.to].name.clone(),
        ok: causes.is_empty(),
        tcp_ms: tried.tcp.as_ref().ok().map(ms),
        udp_ms: tried.udp.as_ref().ok().map(ms),
        denied: denied::both(fates.tcp.denied(&tried.tcp), fates.udp.denied(&tried.udp)),
        mtu: tried.mtu.ok(),
        causes,
    }
}

fn print(rows: &[Row]) {
    let ms =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2} ms"));
    let lines = rows.iter().map(|row| {
        vec![
            row.path.words().to_owned(),
            row.family.to_owned(),
            row.from.clone(),
            row.to.clone(),
            ms(row.tcp_ms),
            ms(row.udp_ms),
            row.mtu
                .map_or_else(|| "-".to_owned(), |mtu| mtu.to_string()),
            match &row.denied {
                _ if !row.ok => toned(&row.causes.join("; "), Tone::Bad),
                Some(denied) => toned(denied, Tone::Good),
                None => toned("ok", Tone::Good),
            },
        ]
    });
    output::table(
        &[
            "PATH", "FAMILY", "FROM", "TO", "TCP", "UDP", "MTU", "RESULT",
        ],
        lines.collect(),
    );
}
